/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A store in a directory: an object is a read-only file, its key the path below the root.
 *
 * Put-if-absent is a file without a name that is written, synced and then linked: link(2) is the
 * one atomic step, and fails if the name is taken. Success, and "taken" too, is reported only when
 * every directory on the way down is on disk as well. Everything is opened component by component
 * from the root's descriptor and no symlink is followed, so nothing outside the root is ever
 * touched.
 *
 * Directories are never removed: a writer may just be about to link into one. Opening, and what
 * file systems promise, is in store-directory-open.c; listings are in store-directory-list.c.
 */
#include "store/store-internal.h"

#include "base/file.h"

#include <fcntl.h>
#include <stdatomic.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

/* How often a directory that vanishes under us is made again. Nobody of ours removes directories,
 * so more than once means that somebody works against us. */
#define MAKE_ATTEMPTS 8
/* Dirty bytes of an upload that wait for nobody: writing them early keeps the commit's fsync short.
 */
#define WRITE_BACK_STEP (8u << 20)

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
    uint64_t size, started_bytes; /* written; handed to write-back */
    int error;                    /* the first one: the commit reports it again */
    char key[STORE_KEY_MAX + 1];
};

static struct store_directory *directory_of(struct store *s)
{
    return (struct store_directory *)s;
}

/* ---- walking -----------------------------------------------------------------------------------
 */

/* `name` in `at` could not be opened as a directory: an object gives -ENOTDIR, else -EPROTO. */
static int what_stands_there(int at, const char *name)
{
    struct stat st;

    if (fstatat(at, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return -errno;
    return S_ISREG(st.st_mode) ? -ENOTDIR : -EPROTO;
}

static int open_directory(int at, const char *name, enum store_walk how, int *ret_fd)
{
    int flags = O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC | (how == STORE_WALK_LOOK ? O_PATH : O_RDONLY);

    for (int i = 0; i < MAKE_ATTEMPTS; i++) {
        int fd = openat(at, name, flags);
        if (fd >= 0) {
            *ret_fd = fd;
            return 0;
        }
        if (errno == ENOTDIR || errno == ELOOP)
            return what_stands_there(at, name);
        if (errno != ENOENT || how != STORE_WALK_MAKE)
            return -errno;
        if (mkdirat(at, name, 0777) < 0 && errno != EEXIST)
            return -errno;
    }
    return -ENOENT;
}

int store_directory_walk(const struct store_directory *d, const char *path, size_t length,
                         enum store_walk how, int *ret_fd)
{
    char name[NAME_MAX + 1];
    AUTO(close_fd) int at = -1;
    int r = open_directory(d->root_fd, ".", how, &at);

    for (size_t start = 0; r == 0 && start < length;) {
        const char *slash = memchr(path + start, '/', length - start);
        size_t end = slash ? (size_t)(slash - path) : length;
        int next = -1;
        memcpy(name, path + start, end - start);
        name[end - start] = '\0';
        r = open_directory(at, name, how, &next);
        if (r == 0) {
            (void)close(at); /* a directory: nothing to lose */
            at = next;
        }
        start = end + 1;
    }
    if (r == 0)
        *ret_fd = take_fd(&at);
    return r;
}

/* The last component of a key, and the length of what stands before its '/'. */
static const char *leaf_of(const char *key, size_t *ret_parent_length)
{
    const char *slash = strrchr(key, '/');

    *ret_parent_length = slash ? (size_t)(slash - key) : 0;
    return slash ? slash + 1 : key;
}

static int open_parent(const struct store_directory *d, const char *key, enum store_walk how,
                       int *ret_fd)
{
    size_t length;

    (void)leaf_of(key, &length);
    return store_directory_walk(d, key, length, how, ret_fd);
}

/* ---- durable directories -----------------------------------------------------------------------
 */

static size_t durable_slot(const char *path, size_t length)
{
    uint64_t hash = 14695981039346656037u; /* FNV-1a: only spreads over the slots */

    for (size_t i = 0; i < length; i++)
        hash = (hash ^ (uint8_t)path[i]) * 1099511628211u;
    return hash % STORE_DURABLE_SLOTS;
}

static bool is_durable(struct store_directory *d, const char *path, size_t length)
{
    WITH_LOCK(&d->lock);
    const char *known = d->durable[durable_slot(path, length)];

    return length == 0 || (known && strncmp(known, path, length) == 0 && !known[length]);
}

static void set_durable(struct store_directory *d, const char *path, size_t length)
{
    char *copy = strndup(path, length);
    WITH_LOCK(&d->lock);
    char **slot = &d->durable[durable_slot(path, length)];

    free(*slot);
    *slot = copy; /* NULL: forgotten, so it is synced once more */
}

static int sync_directory(int fd)
{
    if (fsync(fd) == 0)
        return 0;
    return errno == ENOSPC || errno == EDQUOT ? -errno : -EIO;
}

/* Make the entry of `key` in its directory durable, and of that directory in its own, and so on up.
 * Another process may have made one of them without having synced it yet. */
static int make_durable(struct store_directory *d, const char *key, int parent_fd)
{
    size_t length;

    (void)leaf_of(key, &length);
    for (size_t end = 0; !is_durable(d, key, length) && end <= length;) {
        AUTO(close_fd) int fd = -1;
        const char *slash = memchr(key + end, '/', length - end);
        size_t next = slash ? (size_t)(slash - key) : length;
        if (!is_durable(d, key, next)) {
            int r = store_directory_walk(d, key, end ? end - 1 : 0, STORE_WALK_READ, &fd);
            if (r == 0)
                r = sync_directory(fd);
            if (r < 0)
                return r == -ENOENT ? -EIO : r;
            set_durable(d, key, next);
        }
        end = next + 1;
    }
    return sync_directory(parent_fd);
}

/* ---- files without a key -----------------------------------------------------------------------
 */

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

static int pending_open_named(const struct store_directory *d, struct pending *p)
{
    AUTO(close_fd) int temp_fd = -1;
    int r = open_directory(d->root_fd, STORE_TEMP_DIRECTORY, STORE_WALK_MAKE, &temp_fd);

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
static int pending_open(const struct store_directory *d, int parent_fd, struct pending *p)
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
    const char *leaf = leaf_of(key, &parent_length);
    int r = -ENOENT;

    /* The kernel drops the dirty pages of a failed fsync, so a second one would lie: never retried.
     */
    if (fsync(p->fd) < 0)
        return errno == ENOSPC || errno == EDQUOT ? -errno : -EIO;
    for (int i = 0; r == -ENOENT && i < MAKE_ATTEMPTS; i++) {
        AUTO(close_fd) int parent_fd = -1;
        r = open_parent(d, key, STORE_WALK_MAKE, &parent_fd);
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

/* ---- verbs -------------------------------------------------------------------------------------
 */

static int directory_put_if_absent(struct store *s, const char *key, struct bytes body)
{
    struct store_directory *d = directory_of(s);
    AUTO(pending_release) struct pending p = PENDING_NONE;
    AUTO(close_fd) int parent_fd = -1;
    size_t parent_length;
    const char *leaf = leaf_of(key, &parent_length);
    struct stat st;

    if (!d->writable)
        return -EROFS;
    int r = open_parent(d, key, STORE_WALK_MAKE, &parent_fd);
    if (r < 0)
        return r == -ENOTDIR ? -EINVAL : r;
    if (fstatat(parent_fd, leaf, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(st.st_mode))
        return make_durable(d, key, parent_fd) < 0 ? -EIO : -EEXIST;
    r = pending_open(d, parent_fd, &p);
    if (r == 0)
        r = file_write(p.fd, body.data, body.size);
    return r < 0 ? r : pending_commit(d, &p, key);
}

static int directory_get(struct store *s, const char *key, uint64_t offset, void *data, size_t size,
                         size_t *ret_size, uint64_t *ret_length)
{
    AUTO(close_fd) int parent_fd = -1;
    AUTO(close_fd) int fd = -1;
    size_t parent_length;
    const char *leaf = leaf_of(key, &parent_length);
    struct stat st;
    int r = open_parent(directory_of(s), key, STORE_WALK_LOOK, &parent_fd);

    if (r < 0)
        return r == -ENOTDIR ? -ENOENT : r;
    /* O_NONBLOCK: somebody may have put a FIFO there. */
    fd = openat(parent_fd, leaf, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    if (fd < 0)
        return errno == ELOOP || errno == ENXIO ? -EPROTO : -errno;
    if (fstat(fd, &st) < 0)
        return -errno;
    if (!S_ISREG(st.st_mode))
        return S_ISDIR(st.st_mode) ? -ENOENT : -EPROTO;

    uint64_t length = (uint64_t)st.st_size;
    uint64_t left = offset < length ? length - offset : 0;
    if (size > left)
        size = (size_t)left;
    ssize_t got = size ? file_pread(fd, data, size, (off_t)offset) : 0;
    if (got < 0)
        return (int)got;
    if ((size_t)got != size)
        return -EIO; /* somebody cut the object while it was read */
    *ret_size = size;
    if (ret_length)
        *ret_length = length;
    return 0;
}

static int directory_remove(struct store *s, const char *key)
{
    struct store_directory *d = directory_of(s);
    AUTO(close_fd) int parent_fd = -1;
    size_t parent_length;
    const char *leaf = leaf_of(key, &parent_length);

    if (!d->writable)
        return -EROFS;
    int r = open_parent(d, key, STORE_WALK_READ, &parent_fd);
    if (r < 0)
        return r == -ENOENT || r == -ENOTDIR ? 0 : r;
    if (unlinkat(parent_fd, leaf, 0) < 0) {
        /* Linux gives EISDIR, POSIX EPERM, for a directory: which is no object. */
        int e = errno;
        struct stat st;
        if (e == ENOENT)
            return sync_directory(parent_fd); /* another's removal must be durable, too */
        if (fstatat(parent_fd, leaf, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISDIR(st.st_mode))
            return 0;
        return -e;
    }
    return sync_directory(parent_fd);
}

static void directory_upload_abort(struct store_upload *u)
{
    struct directory_upload *du = (struct directory_upload *)u;

    pending_release(&du->file);
    free(du);
}

static int directory_upload(struct store *s, const char *key, struct store_upload **ret)
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
    int r = open_parent(d, key, STORE_WALK_MAKE, &parent_fd);
    if (r == 0)
        r = pending_open(d, parent_fd, &du->file);
    if (r < 0) {
        directory_upload_abort(&du->base);
        return r == -ENOTDIR ? -EINVAL : r;
    }
    *ret = &du->base;
    return 0;
}

static int directory_upload_write(struct store_upload *u, const void *data, size_t size)
{
    struct directory_upload *du = (struct directory_upload *)u;

    if (du->error < 0)
        return du->error;
    du->error = file_write(du->file.fd, data, size);
    if (du->error < 0)
        return du->error;
    du->size += size;
    if (du->size - du->started_bytes >= WRITE_BACK_STEP) {
        /* Only a hint: an error of the medium comes back from the fsync. */
        (void)sync_file_range(du->file.fd, (off_t)du->started_bytes,
                              (off_t)(du->size - du->started_bytes), SYNC_FILE_RANGE_WRITE);
        du->started_bytes = du->size;
    }
    return 0;
}

static int directory_upload_commit(struct store_upload *u)
{
    struct directory_upload *du = (struct directory_upload *)u;
    int r = du->error;

    if (r == 0)
        r = pending_commit(directory_of(u->store), &du->file, du->key);
    directory_upload_abort(u);
    return r;
}

static int directory_space(struct store *s, struct store_space *ret)
{
    struct statvfs v;

    if (fstatvfs(directory_of(s)->root_fd, &v) < 0)
        return -errno;
    ret->free_bytes = (int64_t)v.f_bavail * (int64_t)v.f_frsize;
    ret->free_objects = v.f_files ? (int64_t)v.f_favail : -1; /* 0: inodes are made on demand */
    return 0;
}

static void directory_close(struct store *s)
{
    struct store_directory *d = directory_of(s);

    for (size_t i = 0; i < STORE_DURABLE_SLOTS; i++)
        free(d->durable[i]);
    if (d->root_fd >= 0)
        (void)close(d->root_fd); /* a directory: nothing to lose */
    pthread_mutex_destroy(&d->lock);
    store_release(s);
    free(d);
}

const struct store_ops store_directory_ops = {
    .kind = "directory",
    .put_if_absent = directory_put_if_absent,
    .get = directory_get,
    .list = store_directory_list,
    .remove = directory_remove,
    .upload = directory_upload,
    .upload_write = directory_upload_write,
    .upload_commit = directory_upload_commit,
    .upload_abort = directory_upload_abort,
    .space = directory_space,
    .close = directory_close,
};
