/* SPDX-License-Identifier: Apache-2.0 */
/*
 * grid datastore export: a plain copy of a version in a new or empty directory.
 *
 * Modes (with write permission for the owner added, so that the copy can be worked with), times,
 * hard links, symbolic links and user.* attributes; holes stay holes; every byte is verified. Never
 * through a symbolic link: the copy stands in one directory at a time, everything is made in it
 * with O_EXCL, and on the way up the parent is checked to be the one it came from. A damaged file
 * is left out, named, and the rest is copied; the exit code says so.
 */
#include "cli/cli-internal.h"

#include "base/file.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

const struct option cmd_export_options[] = {OPTION_CLUSTER, OPTION_END};

/* One read: as large as a segment, so that fetches are few. */
#define COPY_BUFFER (1u << 20)
/* Zero bytes of this many are not written; no file system has smaller holes. */
#define SPARSE_UNIT 4096u
/* Sentences about single files before they are only counted. */
#define TOLD_MAX 10

/* The directories from the root of the copy to where we stand. */
struct place {
    dev_t device;
    ino_t inode;
};

/* Where a file with several names was copied first. */
struct first_name {
    uint64_t nid;
    char *path; /* owned */
};

struct export
{
    struct opened *o;
    int root_fd, fd; /* of the copy; where we stand */
    VEC(struct place) places;
    VEC(struct first_name) links;
    char *buffer;
    struct progress progress;
    uint64_t failed;
    bool xattrs_refused; /* told once */
};

/* ---- one file that cannot be copied does not end the copy ---- */

static int item_failed(struct export *x, const char *path, const char *what, int r)
{
    if (x->failed++ < TOLD_MAX)
        say("cannot %s %s: %s", what, path, strerror(-r));
    return 0;
}

/* Out of space or permission: the next file would fail the same way. */
static bool ends_export(int r)
{
    return r == -ENOSPC || r == -EDQUOT || r == -EROFS || r == -ENOMEM;
}

/* ---- attributes ---- */

static struct timespec mtime_of(const struct index_inode *inode)
{
    return (struct timespec){.tv_sec = inode->mtime_s, .tv_nsec = (long)inode->mtime_ns};
}

static int set_xattr(void *ctx, const char *name, size_t length, struct bytes value)
{
    char full[512];

    if ((size_t)snprintf(full, sizeof full, "user.%.*s", (int)length, name) >= sizeof full)
        return -ENAMETOOLONG;
    return fsetxattr(*(int *)ctx, full, value.data, value.size, 0) < 0 ? -errno : 0;
}

/* Attributes last: a directory without write permission takes no more files, and every change of
 * a file moves its time. */
static int set_attributes(struct export *x, int fd, const struct index_inode *inode,
                          const char *path)
{
    struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, mtime_of(inode)};
    mode_t mode = inode->mode | (inode->type == INDEX_DIRECTORY ? 0700 : 0200);

    if (inode->xattr_count) {
        int r = view_xattrs(x->o->view, inode, set_xattr, &fd);
        if (r == -EOPNOTSUPP && !x->xattrs_refused)
            say("extended attributes are left out: the file system of the copy has none");
        x->xattrs_refused |= r == -EOPNOTSUPP;
        if (r < 0 && r != -EOPNOTSUPP)
            return item_failed(x, path, "set the extended attributes of", r);
    }
    if (fchmod(fd, mode) < 0)
        return item_failed(x, path, "set the mode of", -errno);
    if (futimens(fd, times) < 0)
        return item_failed(x, path, "set the time of", -errno);
    return 0;
}

/* ---- hard links ---- */

static const char *find_first(const struct export *x, uint64_t nid)
{
    size_t low = 0, high = x->links.count;

    while (low < high) { /* sorted by nid */
        size_t middle = low + (high - low) / 2;
        if (x->links.at[middle].nid < nid)
            low = middle + 1;
        else
            high = middle;
    }
    return low < x->links.count && x->links.at[low].nid == nid ? x->links.at[low].path : NULL;
}

static int note_first(struct export *x, uint64_t nid, const char *path)
{
    struct first_name row = {nid, strdup(path)};
    int r = row.path ? vec_push(&x->links, row) : -ENOMEM;

    if (r < 0) {
        free(row.path);
        return r;
    }
    size_t i = x->links.count - 1;
    for (; i > 0 && x->links.at[i - 1].nid > nid; i--)
        x->links.at[i] = x->links.at[i - 1];
    x->links.at[i] = row;
    return 0;
}

/* Open a name of the copy without following any link: one component after the other, since the
 * whole may be longer than the kernel takes. */
static int open_beneath(int root_fd, const char *path)
{
    AUTO(close_fd) int fd = fcntl(root_fd, F_DUPFD_CLOEXEC, 0);
    char name[INDEX_NAME_MAX + 1];

    while (fd >= 0 && *path) {
        size_t n = strcspn(path, "/");
        if (n >= sizeof name)
            return -1;
        memcpy(name, path, n);
        name[n] = '\0';
        path += n + (path[n] == '/');
        int next = openat(fd, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
        (void)close(fd);
        fd = next;
    }
    return take_fd(&fd);
}

/* A second name of what stands at `first`. Where that fails (a file system without links, more of
 * them than it allows) the caller makes a copy. */
static bool link_to(struct export *x, const char *first, const char *name)
{
    char proc[64];
    AUTO(close_fd) int fd = open_beneath(x->root_fd, first);

    if (fd < 0)
        return false;
    (void)snprintf(proc, sizeof proc, "/proc/self/fd/%d", fd);
    return linkat(AT_FDCWD, proc, x->fd, name, AT_SYMLINK_FOLLOW) == 0;
}

/* ---- files ---- */

static bool is_zero(const char *data, size_t size)
{
    return data[0] == 0 && memcmp(data, data + 1, size - 1) == 0;
}

/* Write what is not zero: the file has its size already, and what is not written stays a hole. The
 * index knows holes of whole chunks only. */
static int write_sparse(int fd, const char *data, size_t size, uint64_t offset)
{
    int r = 0;

    for (size_t at = 0; at < size && r == 0;) {
        size_t end = at;
        while (end < size) {
            size_t n = size - end < SPARSE_UNIT ? size - end : SPARSE_UNIT;
            if (is_zero(data + end, n))
                break;
            end += n;
        }
        if (end > at)
            r = file_pwrite(fd, data + at, end - at, (off_t)(offset + at));
        at = end + SPARSE_UNIT; /* over the zero unit that ended the run */
    }
    return r;
}

/* Bytes [offset, offset + size) of the file, which are data. */
static int copy_range(struct export *x, int fd, const struct index_inode *file, uint64_t offset,
                      uint64_t size)
{
    while (size > 0) {
        size_t want = size < COPY_BUFFER ? (size_t)size : COPY_BUFFER;
        ssize_t n = view_read(x->o->view, file, offset, x->buffer, want);
        if (n <= 0)
            return n < 0 ? (int)n : -EIO;
        int r = write_sparse(fd, x->buffer, (size_t)n, offset);
        if (r < 0)
            return r;
        if (interrupt_signal)
            return -ECANCELED;
        offset += (uint64_t)n;
        size -= (uint64_t)n;
        x->progress.bytes += (uint64_t)n;
        progress_show(&x->progress);
    }
    return 0;
}

static int copy_content(struct export *x, int fd, const struct index_inode *file)
{
    struct index_extent extent;

    if (file->size > INT64_MAX || ftruncate(fd, (off_t)file->size) < 0)
        return file->size > INT64_MAX ? -EFBIG : -errno;
    for (uint64_t offset = 0; offset < file->size;) {
        int r = index_map(view_index(x->o->view), file, offset, &extent);
        if (r < 0)
            return r;
        uint64_t end = extent.chunk_offset + extent.chunk_size;
        if (end <= offset)
            return -EPROTO;
        if (extent.device)
            r = copy_range(x, fd, file, offset, end - offset);
        else
            x->progress.bytes += end - offset; /* a hole */
        if (r < 0)
            return r;
        offset = end;
    }
    return 0;
}

static int export_file(struct export *x, const struct walk_item *item)
{
    AUTO(close_fd)
    int fd = openat(x->fd, item->name, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);

    if (fd < 0)
        return -errno;
    int r = copy_content(x, fd, &item->inode);
    if (r < 0) {
        (void)unlinkat(x->fd, item->name, 0); /* half a file is worse than none */
        if (r == -ECANCELED || ends_export(r))
            return r;
        return item_failed(x, item->path, "copy", r);
    }
    return set_attributes(x, fd, &item->inode, item->path);
}

static int export_symlink(struct export *x, const struct walk_item *item)
{
    char target[INDEX_TARGET_MAX + 1];
    struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, mtime_of(&item->inode)};
    int r = view_readlink(x->o->view, item->inode.nid, target);

    if (r < 0)
        return item_failed(x, item->path, "read the symbolic link", r);
    if (symlinkat(target, x->fd, item->name) < 0)
        return -errno;
    (void)utimensat(x->fd, item->name, times, AT_SYMLINK_NOFOLLOW); /* a nicety on links */
    return 0;
}

/* ---- directories ---- */

static int stand_in(struct export *x, int fd)
{
    struct stat st;

    if (fstat(fd, &st) < 0)
        return -errno;
    struct place here = {st.st_dev, st.st_ino};
    return vec_push(&x->places, here);
}

static int enter(struct export *x, const struct walk_item *item)
{
    if (mkdirat(x->fd, item->name, 0700) < 0)
        return -errno;
    int fd = openat(x->fd, item->name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    int r = stand_in(x, fd);
    if (r < 0) {
        (void)close(fd);
        return r;
    }
    (void)close(x->fd);
    x->fd = fd;
    return 0;
}

static int leave(struct export *x, const struct walk_item *item)
{
    struct stat st;
    AUTO(close_fd) int up = openat(x->fd, "..", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

    if (up < 0 || fstat(up, &st) < 0)
        return -errno;
    if (x->places.count < 2)
        return -EPROTO;
    x->places.count--;
    struct place expected = x->places.at[x->places.count - 1];
    if (st.st_dev != expected.device || st.st_ino != expected.inode)
        return -EXDEV; /* somebody moved the directory away meanwhile */
    int r = set_attributes(x, x->fd, &item->inode, item->path);
    (void)close(x->fd);
    x->fd = take_fd(&up);
    return r;
}

/* ---- the whole ---- */

static int export_item(struct export *x, const struct walk_item *item)
{
    bool is_linked = item->inode.type != INDEX_DIRECTORY && item->inode.nlink > 1;
    const char *first = is_linked ? find_first(x, item->inode.nid) : NULL;
    int r;

    if (item->leaving)
        return leave(x, item);
    if (item->inode.type == INDEX_DIRECTORY)
        return enter(x, item);
    x->progress.files += item->inode.type == INDEX_FILE && !first;
    if (first && link_to(x, first, item->name))
        return 0;
    if (item->inode.type == INDEX_SYMLINK)
        r = export_symlink(x, item);
    else
        r = export_file(x, item);
    return r == 0 && is_linked && !first ? note_first(x, item->inode.nid, item->path) : r;
}

static int run_export(struct export *x, const struct index_inode *root, char *where, size_t size)
{
    AUTO(walk_free) struct walk *walk = NULL;
    struct walk_item item = {0};
    int r = walk_new(x->o->view, root, &walk);

    while (r == 0 && (r = walk_next(walk, &item)) == 1) {
        r = interrupt_signal ? -ECANCELED : export_item(x, &item);
        progress_show(&x->progress);
    }
    (void)snprintf(where, size, "%s", item.path ? item.path : "");
    if (r < 0)
        return r;
    return set_attributes(x, x->fd, root, ".");
}

static int not_dot(const struct dirent *e)
{
    return strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0;
}

/* A new directory (its parent must be there), or an existing empty one. */
static int open_target(const char *path, int *ret_fd)
{
    bool is_new = mkdir(path, 0700) == 0;

    if (!is_new && errno != EEXIST)
        return say_failed("cannot make %s: %s", path, strerror(errno));
    AUTO(close_fd)
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | (is_new ? O_NOFOLLOW : 0));
    if (fd < 0)
        return say_failed("cannot export to %s: %s", path, strerror(errno));

    int other = is_new ? -1 : openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    AUTO(close_dir) DIR *directory = other < 0 ? NULL : fdopendir(other);
    const struct dirent *e = NULL;
    while (directory && (e = readdir(directory)) && !not_dot(e))
        continue;
    if (e)
        return say_failed("cannot export to %s: it is not empty; name a new directory", path);
    *ret_fd = take_fd(&fd);
    return CLI_DONE;
}

static int say_end(struct export *x, int r, const char *where, const char *target)
{
    char a[FIGURE_MAX], b[FIGURE_MAX];

    progress_clear();
    if (r == -ECANCELED) {
        say("interrupted; %s holds an incomplete copy", target);
        return 128 + interrupt_signal;
    }
    if (r < 0)
        return say_failed("the copy in %s is not complete: %s%s%s", target, where,
                          *where ? ": " : "", strerror(-r));
    if (x->failed)
        return say_failed("%s of %s:%u could not be copied as stored",
                          figure_things(x->failed, "file", a), x->o->info.name, x->o->info.version);
    say("copied %s, %s, to %s", figure_things(x->progress.files, "file", a),
        figure_bytes(x->progress.bytes, b), target);
    return CLI_DONE;
}

int cmd_export(struct cli *cli, const struct args *args)
{
    AUTO(opened_release) struct opened o = {0};
    AUTO(free_ptr) char *buffer = malloc(COPY_BUFFER);
    struct export x = {.o = &o, .root_fd = -1, .fd = -1, .buffer = buffer};
    const char *target = args->words.at[1];
    struct index_inode root;
    char where[512] = "";

    if (!buffer)
        return say_failed("out of memory");
    int code = open_view(cli, args->words.at[0], false, &o);
    if (code == CLI_DONE)
        code = open_target(target, &x.root_fd);
    if (code != CLI_DONE)
        return code;

    const struct manifest *m = view_manifest(o.view);
    x.progress = (struct progress){
        .phase = "Copying", .files_total = m->files, .bytes_total = m->size_bytes};
    interrupt_catch();
    x.fd = fcntl(x.root_fd, F_DUPFD_CLOEXEC, 0);
    int r = x.fd < 0 ? -errno : stand_in(&x, x.fd);
    if (r == 0)
        r = view_inode(o.view, INDEX_ROOT_NID, &root);
    if (r == 0)
        r = run_export(&x, &root, where, sizeof where);
    code = say_end(&x, r, where, target);

    for (size_t i = 0; i < x.links.count; i++)
        free(x.links.at[i].path);
    vec_release(&x.links);
    vec_release(&x.places);
    if (x.fd >= 0)
        (void)close(x.fd);
    (void)close(x.root_fd);
    return code;
}
