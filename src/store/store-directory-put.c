/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writing to a directory store: the one place that makes something visible and durable.
 *
 * The order is the point: bytes, fsync of the file, link(2), fsync of its directory and of every
 * directory above that is not known to be on disk; only then success is reported.
 */
#include "store/store-internal.h"

#include "base/file.h"

#include <fcntl.h>
#include <sys/stat.h>

/* How often the parent may vanish between its making and the link: see store-directory.c. */
#define LINK_ATTEMPTS 8
/* An upload is written in whole steps past the page cache (O_DIRECT): a pack is written once and
 * read later, if at all on this machine; the copy, and the pages that it pushes out, cost more than
 * half of a publish. Large enough that the medium is busy although one step is under way at a time.
 */
#define STEP (4u << 20)
/* Of memory and offsets, for O_DIRECT: no file system of ours asks for more. */
#define STEP_ALIGNMENT 4096u

/* A file that no key names yet. */
struct pending {
    int fd;
    int temp_fd; /* the directory of `temp`; -1: the file has no name */
    char temp[STORE_TEMP_NAME_SIZE];
};

#define PENDING_NONE                                                                               \
    {                                                                                              \
        .fd = -1, .temp_fd = -1                                                                    \
    }

struct directory_upload {
    struct store_upload base;
    struct pending file;
    uint8_t *step; /* owned; STEP bytes, aligned; what is not written yet */
    size_t filled; /* of `step` */
    bool direct;   /* past the page cache */
    uint64_t size; /* written; a multiple of STEP while `direct` */
    int error;     /* the first one: the commit reports it again */
    char key[STORE_KEY_MAX + 1];
};

static struct store_directory *directory_of(struct store *s)
{
    return (struct store_directory *)s;
}

/* ---- durable names ---- */

/* Make the entry of `key` in its directory durable, and of that directory in its own, and so on up.
 * Another process may have made one of them without having synced it yet. */
static int make_durable(struct store_directory *d, const char *key, int parent_fd)
{
    size_t length;

    (void)store_key_leaf(key, &length);
    for (size_t end = 0; !store_directory_is_durable(d, key, length) && end <= length;) {
        AUTO(close_fd) int fd = -1;
        const char *slash = memchr(key + end, '/', length - end);
        size_t next = slash ? (size_t)(slash - key) : length;
        if (!store_directory_is_durable(d, key, next)) {
            int r = store_directory_walk(d, key, end ? end - 1 : 0, STORE_WALK_READ, &fd);
            if (r == 0)
                r = store_directory_sync(fd);
            if (r < 0)
                return r == -ENOENT ? -EIO : r;
            store_directory_set_durable(d, key, next);
        }
        end = next + 1;
    }
    return store_directory_sync(parent_fd);
}

/* ---- files without a key ---- */

static void pending_release(struct pending *p)
{
    if (p->fd >= 0)
        (void)close(p->fd); /* committed and synced, or given up */
    if (p->temp_fd >= 0) {
        (void)unlinkat(p->temp_fd, p->temp, 0); /* a leftover is cleaned by a later opening */
        (void)close(p->temp_fd);
    }
    *p = (struct pending)PENDING_NONE;
}

static inline void auto_pending_release(struct pending *p)
{
    pending_release(p);
}

static int pending_open_named(struct store_directory *d, struct pending *p)
{
    AUTO(close_fd) int temp_fd = -1;
    int r = store_directory_walk(d, STORE_TEMP_DIRECTORY, strlen(STORE_TEMP_DIRECTORY),
                                 STORE_WALK_MAKE, &temp_fd);

    if (r < 0)
        return r;
    store_temp_name(p->temp, getpid());
    p->fd = openat(temp_fd, p->temp, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0444);
    if (p->fd < 0)
        return -errno;
    p->temp_fd = take_fd(&temp_fd);
    return 0;
}

/* In `parent_fd`, so that the file system places it near its neighbours. */
static int pending_open(struct store_directory *d, int parent_fd, struct pending *p)
{
    if (d->named_temps)
        return pending_open_named(d, p);
    p->fd = openat(parent_fd, ".", O_TMPFILE | O_WRONLY | O_CLOEXEC, 0444);
    if (p->fd >= 0)
        return 0;
    /* What kernels and file systems answer that do not know unnamed files. */
    if (errno == EOPNOTSUPP || errno == EISDIR || errno == EINVAL || errno == ENOENT)
        return pending_open_named(d, p);
    return -errno;
}

static int pending_link_once(const struct pending *p, int parent_fd, const char *leaf)
{
    char path[64];
    struct stat st;
    int r;

    if (p->temp_fd >= 0) {
        r = linkat(p->temp_fd, p->temp, parent_fd, leaf, 0);
    } else {
        (void)snprintf(path, sizeof path, "/proc/self/fd/%d", p->fd);
        r = linkat(AT_FDCWD, path, parent_fd, leaf, AT_SYMLINK_FOLLOW);
    }
    if (r == 0)
        return 0;
    r = -errno;
    if (r == -EEXIST && fstatat(parent_fd, leaf, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
        !S_ISREG(st.st_mode))
        return S_ISDIR(st.st_mode) ? -EINVAL : -EPROTO;
    return r;
}

/* The commit of everything: the file's bytes, its name, the directories. */
static int pending_commit(struct store_directory *d, struct pending *p, const char *key)
{
    size_t parent_length;
    const char *leaf = store_key_leaf(key, &parent_length);
    int r = -ENOENT;

    /* The kernel drops the dirty pages of a failed fsync, so a second one would lie: never retried.
     */
    if (fsync(p->fd) < 0)
        return errno == ENOSPC || errno == EDQUOT ? -errno : -EIO;
    for (int i = 0; r == -ENOENT && i < LINK_ATTEMPTS; i++) {
        AUTO(close_fd) int parent_fd = -1;
        r = store_directory_parent(d, key, STORE_WALK_MAKE, &parent_fd);
        if (r < 0)
            continue;
        r = pending_link_once(p, parent_fd, leaf);
        if (r == 0 || r == -EEXIST) {
            /* "Taken" is a fact that callers act on, so it must outlive a power cut, too. */
            int sync_result = make_durable(d, key, parent_fd);
            /* The name is there: whatever went wrong now, the outcome is unknown. */
            return sync_result < 0 ? -EIO : r;
        }
    }
    return r == -ENOTDIR ? -EINVAL : r;
}

/* ---- verbs ---- */

int store_directory_put_if_absent(struct store *s, const char *key, struct bytes body)
{
    struct store_directory *d = directory_of(s);
    AUTO(pending_release) struct pending p = PENDING_NONE;
    AUTO(close_fd) int parent_fd = -1;
    size_t parent_length;
    const char *leaf = store_key_leaf(key, &parent_length);
    struct stat st;

    if (!d->writable)
        return -EROFS;
    int r = store_directory_parent(d, key, STORE_WALK_MAKE, &parent_fd);
    if (r < 0)
        return r == -ENOTDIR ? -EINVAL : r;
    if (fstatat(parent_fd, leaf, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(st.st_mode))
        return make_durable(d, key, parent_fd) < 0 ? -EIO : -EEXIST;
    r = pending_open(d, parent_fd, &p);
    if (r == 0)
        r = file_write(p.fd, body.data, body.size);
    return r < 0 ? r : pending_commit(d, &p, key);
}

void store_directory_upload_abort(struct store_upload *u)
{
    struct directory_upload *du = (struct directory_upload *)u;

    pending_release(&du->file);
    free(du->step);
    free(du);
}

/* Switch O_DIRECT on or off. False: this file system does not know it. */
static bool set_direct(int fd, bool on)
{
    int flags = fcntl(fd, F_GETFL);

    return flags >= 0 && fcntl(fd, F_SETFL, on ? flags | O_DIRECT : flags & ~O_DIRECT) == 0;
}

int store_directory_upload(struct store *s, const char *key, struct store_upload **ret)
{
    struct store_directory *d = directory_of(s);
    AUTO(close_fd) int parent_fd = -1;

    if (!d->writable)
        return -EROFS;
    struct directory_upload *du = calloc(1, sizeof *du);
    if (!du)
        return -ENOMEM;
    du->base.store = s;
    du->file = (struct pending)PENDING_NONE;
    memcpy(du->key, key, strlen(key) + 1);
    int r = store_directory_parent(d, key, STORE_WALK_MAKE, &parent_fd);
    if (r == 0)
        r = pending_open(d, parent_fd, &du->file);
    if (r == 0 && !(du->step = aligned_alloc(STEP_ALIGNMENT, STEP)))
        r = -ENOMEM;
    if (r < 0) {
        store_directory_upload_abort(&du->base);
        return r == -ENOTDIR ? -EINVAL : r;
    }
    du->direct = set_direct(du->file.fd, true);
    *ret = &du->base;
    return 0;
}

/* Write a step, or the shorter rest at the end. */
static int write_step(struct directory_upload *du, const uint8_t *data, size_t size)
{
    int fd = du->file.fd, r = -EINVAL;

    if (du->direct && size % STEP_ALIGNMENT == 0)
        r = file_pwrite(fd, data, size, (off_t)du->size);
    if (r == -EINVAL) { /* the rest of a file, or a file system that only pretended */
        if (du->direct)
            du->direct = !set_direct(fd, false);
        r = file_pwrite(fd, data, size, (off_t)du->size);
        /* Begun now, so that the commit's fsync is short. An error comes back from the fsync. */
        if (r == 0)
            (void)sync_file_range(fd, (off_t)du->size, (off_t)size, SYNC_FILE_RANGE_WRITE);
    }
    if (r == 0)
        du->size += size;
    return r;
}

int store_directory_upload_write(struct store_upload *u, const void *data, size_t size)
{
    struct directory_upload *du = (struct directory_upload *)u;
    const uint8_t *p = data;

    while (size > 0 && du->error == 0) {
        if (du->filled == 0 && size >= STEP && (uintptr_t)p % STEP_ALIGNMENT == 0) {
            du->error = write_step(du, p, STEP); /* as it lies: no copy */
            p += STEP;
            size -= STEP;
            continue;
        }
        size_t n = size < STEP - du->filled ? size : STEP - du->filled;
        memcpy(du->step + du->filled, p, n);
        du->filled += n;
        p += n;
        size -= n;
        if (du->filled == STEP) {
            du->error = write_step(du, du->step, STEP);
            du->filled = 0;
        }
    }
    return du->error;
}

int store_directory_upload_commit(struct store_upload *u)
{
    struct directory_upload *du = (struct directory_upload *)u;
    int r = du->error;

    if (r == 0 && du->filled > 0)
        r = write_step(du, du->step, du->filled);
    if (r == 0)
        r = pending_commit(directory_of(u->store), &du->file, du->key);
    store_directory_upload_abort(u);
    return r;
}
