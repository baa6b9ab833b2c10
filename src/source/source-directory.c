/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A directory of this machine, or a single file, as a source.
 *
 * Everything is opened relative to the root's descriptor, without following a symbolic link or
 * leaving the root (openat2(2); where that is refused, component by component). A file is opened so
 * that neither a FIFO nor a device can make us wait, and only then looked at: what it is counts,
 * not what a listing said. Nothing here decides what an error or a change means.
 */
#include "source/source-internal.h"

#include "base/file.h"
#include "base/le.h"

#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <sys/xattr.h>

#define XATTR_NAMES_MAX 65536u /* the kernel's own limit (XATTR_LIST_MAX) */
#define XATTR_PREFIX    "user."

struct directory_source {
    struct source base;
    int root_fd; /* of a single file: the directory it is in */
    char *only;  /* owned; the single file's name, or NULL */
    atomic_bool no_openat2;
    atomic_bool no_noatime; /* O_NOATIME was refused once: files are not ours */
};

struct directory_dir {
    struct source_dir base;
    int fd;
};

struct directory_file {
    struct source_file base;
    int fd;
};

static struct directory_source *source_of(struct source *s)
{
    return (struct directory_source *)s;
}

/* Reasons stand in docs/publish.md, "Which file systems are trusted". */
static const uint32_t stable_file_systems[] = {
    0x0000ef53, /* ext2, ext3, ext4 */
    0x58465342, /* XFS */
    0x9123683e, /* Btrfs */
    0x2fc12fc1, /* ZFS */
    0x01021994, /* tmpfs */
    0x858458f6, /* ramfs */
    0x794c7630, /* overlayfs */
    0xf2f52010, /* F2FS */
    0xca451a4e, /* bcachefs */
    0x3153464a, /* JFS */
    0x52654973, /* ReiserFS */
    0xe0f5e1e2, /* EROFS */
    0x73717368, /* SquashFS */
};

bool source_directory_inodes_stable(uint64_t fs_type)
{
    for (size_t i = 0; i < sizeof stable_file_systems / sizeof *stable_file_systems; i++) {
        if (stable_file_systems[i] == (uint32_t)fs_type)
            return true;
    }
    return false;
}

static void stat_convert(const struct stat *st, struct source_stat *ret)
{
    *ret = (struct source_stat){
        .type = S_ISREG(st->st_mode)   ? SOURCE_FILE
                : S_ISDIR(st->st_mode) ? SOURCE_DIRECTORY
                : S_ISLNK(st->st_mode) ? SOURCE_SYMLINK
                                       : SOURCE_SPECIAL,
        .mode = (uint16_t)(st->st_mode & 07777),
        .link_count = st->st_nlink > UINT32_MAX ? UINT32_MAX : (uint32_t)st->st_nlink,
        .device = st->st_dev,
        .inode = st->st_ino,
        .size = (uint64_t)st->st_size,
        .room = (uint64_t)st->st_blocks * 512,
        .mtime = {st->st_mtim.tv_sec, (uint32_t)st->st_mtim.tv_nsec},
        .ctime = {st->st_ctim.tv_sec, (uint32_t)st->st_ctim.tv_nsec},
    };
}

/* ---- directories ------------------------------------------------------------------------------
 */

#define DIR_FLAGS (O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)

/* -ENOSYS where openat2 is missing or forbidden: old kernels, seccomp filters. */
static int open_beneath(struct directory_source *s, const char *path)
{
    struct open_how how = {
        .flags = DIR_FLAGS,
        .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS,
    };

    if (atomic_load_explicit(&s->no_openat2, memory_order_relaxed))
        return -ENOSYS;
    int fd = (int)syscall(SYS_openat2, s->root_fd, path, &how, sizeof how);
    if (fd >= 0)
        return fd;
    if (errno == ENOSYS || errno == EPERM || errno == EINVAL) {
        atomic_store_explicit(&s->no_openat2, true, memory_order_relaxed);
        return -ENOSYS;
    }
    return -errno;
}

static int open_by_components(const struct directory_source *s, const char *path)
{
    char name[NAME_MAX + 1];
    AUTO(close_fd) int at = openat(s->root_fd, ".", DIR_FLAGS);

    while (at >= 0 && *path) {
        size_t length = strcspn(path, "/");
        if (length > NAME_MAX)
            return -ENAMETOOLONG;
        memcpy(name, path, length);
        name[length] = '\0';
        int next = openat(at, name, DIR_FLAGS);
        int saved = errno;
        (void)close(at); /* a directory: nothing to lose */
        errno = saved;
        at = next;
        path += length + (path[length] == '/');
    }
    return at < 0 ? -errno : take_fd(&at);
}

static int directory_open_dir(struct source *base, const char *path, struct source_dir **ret)
{
    struct directory_source *s = source_of(base);
    AUTO(close_fd) int fd = -1;

    if (s->only && *path)
        return -ENOENT;
    fd = *path ? open_beneath(s, path) : open_by_components(s, path);
    if (fd == -ENOSYS || fd == -ENAMETOOLONG)
        fd = open_by_components(s, path);
    if (fd < 0)
        return fd;
    struct directory_dir *d = malloc(sizeof *d);
    if (!d)
        return -ENOMEM;
    d->base.source = base;
    d->fd = take_fd(&fd);
    *ret = &d->base;
    return 0;
}

static int fd_of(const struct source_dir *d)
{
    return ((const struct directory_dir *)d)->fd;
}

static void directory_close_dir(struct source_dir *d)
{
    (void)close(fd_of(d)); /* only read */
    free(d);
}

/* -ENOENT: it vanished meanwhile. */
static int list_one(int dir_fd, const char *name, struct listing_builder *b)
{
    char target[PATH_MAX];
    struct stat st;
    struct source_stat stat;
    bool is_link;

    if (fstatat(dir_fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return -errno;
    stat_convert(&st, &stat);
    is_link = stat.type == SOURCE_SYMLINK;
    if (is_link) {
        ssize_t n = readlinkat(dir_fd, name, target, sizeof target);
        if (n < 0) /* EINVAL: replaced by something else meanwhile; the next publish sees it */
            return errno == EINVAL ? -ENOENT : -errno;
        if (n == 0 || n == (ssize_t)sizeof target)
            return -ENAMETOOLONG;
        target[n] = '\0';
    }
    return listing_add(b, name, &stat, is_link ? target : NULL);
}

static int list_all(DIR *stream, struct listing_builder *b)
{
    for (;;) {
        errno = 0;
        const struct dirent *e = readdir(stream);
        if (!e)
            return -errno;
        const char *name = e->d_name;
        if (name[0] == '.' && (!name[1] || (name[1] == '.' && !name[2])))
            continue;
        int r = list_one(dirfd(stream), name, b);
        if (r < 0 && r != -ENOENT)
            return r;
    }
}

static int directory_list(struct source_dir *d, struct source_listing *ret)
{
    const struct directory_source *s = source_of(d->source);
    AUTO(listing_builder_release) struct listing_builder b = {0};
    int r;

    if (s->only) {
        r = list_one(fd_of(d), s->only, &b);
    } else {
        /* A stream takes its descriptor along when it is closed, and shares its position: so one
         * of its own, opened anew. */
        AUTO(close_fd) int fd = openat(fd_of(d), ".", DIR_FLAGS);
        if (fd < 0)
            return -errno;
        AUTO(close_dir) DIR *stream = fdopendir(fd);
        if (!stream)
            return -errno;
        (void)take_fd(&fd); /* the stream's now */
        r = list_all(stream, &b);
    }
    if (r == 0)
        listing_finish(&b, ret);
    return r;
}

static int directory_dir_stat(struct source_dir *d, struct source_stat *ret)
{
    const struct directory_source *s = source_of(d->source);
    struct stat st;

    if (fstat(fd_of(d), &st) < 0)
        return -errno;
    stat_convert(&st, ret);
    if (s->only && fstatat(fd_of(d), s->only, &st, AT_SYMLINK_NOFOLLOW) == 0) {
        /* The directory around a single file is not part of the source: its time says nothing. */
        ret->mtime = (struct source_time){st.st_mtim.tv_sec, (uint32_t)st.st_mtim.tv_nsec};
        ret->mode = 0755;
    }
    return 0;
}

/* ---- extended attributes ----------------------------------------------------------------------
 */

static int name_compare(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* -E2BIG: they do not fit `b`. */
static int xattr_add(int fd, const char *name, struct buf *b)
{
    AUTO(free_ptr) char *value = NULL;
    const char *bare = name + strlen(XATTR_PREFIX);
    uint8_t length[2];
    ssize_t size = fgetxattr(fd, name, NULL, 0);

    if (size > UINT16_MAX)
        return -E2BIG;
    value = size < 0 ? NULL : malloc((size_t)size + 1);
    if (size >= 0 && !value)
        return -ENOMEM;
    if (size >= 0)
        size = fgetxattr(fd, name, value, (size_t)size);
    if (size < 0)
        return errno == ENODATA ? 0 : errno == ERANGE ? -EAGAIN : -errno;
    le16_put(length, (uint16_t)size);
    int r = buf_append(b, bare, strlen(bare) + 1);
    if (r == 0)
        r = buf_append(b, length, sizeof length);
    if (r == 0)
        r = buf_append(b, value, (size_t)size);
    return r == -EFBIG ? -E2BIG : r;
}

static int xattrs_add(int fd, char *names, size_t size, struct buf *b)
{
    VEC(const char *) sorted = {0};
    int r = 0;

    for (const char *name = names; r == 0 && name < names + size; name += strlen(name) + 1) {
        if (strncmp(name, XATTR_PREFIX, strlen(XATTR_PREFIX)) == 0 && name[strlen(XATTR_PREFIX)])
            r = vec_push(&sorted, name);
    }
    if (sorted.count > 1)
        qsort(sorted.at, sorted.count, sizeof *sorted.at, name_compare);
    for (size_t i = 0; r == 0 && i < sorted.count; i++)
        r = xattr_add(fd, sorted.at[i], b);
    vec_release(&sorted);
    return r;
}

static int fd_xattrs(int fd, struct buf *b)
{
    char small[1024];
    AUTO(free_ptr) char *large = NULL;
    char *names = small;
    size_t before = b->size;

    /* One call where there are none, which is nearly always. */
    ssize_t size = flistxattr(fd, small, sizeof small - 1);
    if (size < 0 && errno == ERANGE) {
        names = large = malloc(XATTR_NAMES_MAX + 1);
        if (!large)
            return -ENOMEM;
        size = flistxattr(fd, large, XATTR_NAMES_MAX);
    }
    if (size < 0)
        return errno == ENOTSUP ? 0 : errno == ERANGE ? -E2BIG : -errno;
    if (size == 0)
        return 0;
    names[size] = '\0';
    int r = xattrs_add(fd, names, (size_t)size, b);
    if (r < 0)
        b->size = before;
    return r;
}

static int directory_dir_xattrs(struct source_dir *d, struct buf *b)
{
    return source_of(d->source)->only ? 0 : fd_xattrs(fd_of(d), b);
}

/* ---- files ------------------------------------------------------------------------------------
 */

static int file_fd(const struct source_file *f)
{
    return ((const struct directory_file *)f)->fd;
}

static int open_regular(struct directory_source *s, int dir_fd, const char *name)
{
    int flags = O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC;
    int fd = -1;

    if (!atomic_load_explicit(&s->no_noatime, memory_order_relaxed)) {
        fd = openat(dir_fd, name, flags | O_NOATIME);
        if (fd >= 0 || errno != EPERM)
            return fd < 0 ? -errno : fd;
        atomic_store_explicit(&s->no_noatime, true, memory_order_relaxed);
    }
    fd = openat(dir_fd, name, flags);
    return fd < 0 ? -errno : fd;
}

static int directory_open_file(struct source_dir *d, const char *name, struct source_file **ret)
{
    struct directory_source *s = source_of(d->source);

    if (s->only && strcmp(name, s->only) != 0)
        return -ENOENT;
    AUTO(close_fd) int fd = open_regular(s, fd_of(d), name);
    if (fd == -ENXIO) /* a socket, or a device without a driver */
        return -EINVAL;
    if (fd < 0)
        return fd;
    struct directory_file *f = malloc(sizeof *f);
    if (!f)
        return -ENOMEM;
    f->base.source = d->source;
    f->fd = take_fd(&fd);
    *ret = &f->base;
    return 0;
}

static void directory_close_file(struct source_file *f)
{
    (void)close(file_fd(f)); /* only read */
    free(f);
}

static int directory_file_stat(struct source_file *f, struct source_stat *ret)
{
    struct stat st;

    if (fstat(file_fd(f), &st) < 0)
        return -errno;
    if (!S_ISREG(st.st_mode))
        return -EINVAL;
    stat_convert(&st, ret);
    return 0;
}

static int directory_file_xattrs(struct source_file *f, struct buf *b)
{
    return fd_xattrs(file_fd(f), b);
}

static ssize_t directory_read(struct source_file *f, void *data, size_t size, uint64_t offset)
{
    return file_pread(file_fd(f), data, size, (off_t)offset);
}

static int directory_next_data(struct source_file *f, uint64_t offset, uint64_t *ret)
{
    struct stat st;
    off_t at = lseek(file_fd(f), (off_t)offset, SEEK_DATA);

    if (at >= 0) {
        *ret = (uint64_t)at;
        return 0;
    }
    if (errno == EINVAL || errno == ENOTSUP) { /* no holes are known here: all of it is data */
        *ret = offset;
        return 0;
    }
    if (errno != ENXIO)
        return -errno;
    if (fstat(file_fd(f), &st) < 0)
        return -errno;
    *ret = (uint64_t)st.st_size > offset ? (uint64_t)st.st_size : offset;
    return 0;
}

/* ---- opening ----------------------------------------------------------------------------------
 */

static void directory_close(struct source *base)
{
    struct directory_source *s = source_of(base);

    if (s->root_fd >= 0)
        (void)close(s->root_fd); /* only read */
    free(s->only);
    free(s);
}

static const struct source_ops directory_ops = {
    .open_dir = directory_open_dir,
    .close_dir = directory_close_dir,
    .list = directory_list,
    .dir_stat = directory_dir_stat,
    .dir_xattrs = directory_dir_xattrs,
    .open_file = directory_open_file,
    .close_file = directory_close_file,
    .file_stat = directory_file_stat,
    .file_xattrs = directory_file_xattrs,
    .read = directory_read,
    .next_data = directory_next_data,
    .close = directory_close,
};

/* Open `real` itself, or the directory around it if it is a file. */
static int open_root(struct directory_source *s, const char *real, const char *path,
                     struct err *err)
{
    char parent[PATH_MAX];
    struct stat st;

    if (stat(real, &st) < 0)
        return err_fail(err, -errno, "cannot use %s as a source: %s", path, strerror(errno));
    if (!S_ISREG(st.st_mode) && !S_ISDIR(st.st_mode))
        return err_fail(err, -EINVAL, "cannot use %s as a source: neither a directory nor a file",
                        path);
    (void)snprintf(parent, sizeof parent, "%s", real);
    if (S_ISREG(st.st_mode)) {
        char *slash = strrchr(parent, '/'); /* an absolute path has one */
        s->only = strdup(slash + 1);
        if (!s->only)
            return -ENOMEM;
        slash[slash == parent] = '\0';
    }
    s->root_fd = open(parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (s->root_fd < 0)
        return err_fail(err, -errno, "cannot open the source %s: %s", path, strerror(errno));
    return 0;
}

int source_directory_open(const char *path, struct source **ret, struct err *err)
{
    char real[PATH_MAX];
    struct statfs fs;

    if (!realpath(path, real))
        return err_fail(err, -errno, "cannot use %s as a source: %s", path, strerror(errno));
    struct directory_source *s = calloc(1, sizeof *s);
    if (!s)
        return -ENOMEM;
    s->root_fd = -1;
    int r = source_init(&s->base, &directory_ops, real, false);
    if (r == 0)
        r = open_root(s, real, path, err);
    if (r == 0 && fstatfs(s->root_fd, &fs) < 0)
        r = err_fail(err, -errno, "cannot find out the file system of %s: %s", path,
                     strerror(errno));
    if (r < 0) {
        char *location = s->base.location;
        directory_close(&s->base);
        free(location);
        return r;
    }
    s->base.inodes_stable = source_directory_inodes_stable((uint64_t)fs.f_type);
    *ret = &s->base;
    return 0;
}
