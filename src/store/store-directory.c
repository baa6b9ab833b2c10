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
 * Directories are never removed: a writer may just be about to link into one. Here: walking, and
 * the verbs that write no bytes. Writing is in store-directory-put.c, opening and what file systems
 * promise in store-directory-open.c, listings in store-directory-list.c.
 */
#include "store/store-internal.h"

#include "base/file.h"

#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/vfs.h>
#include <sys/syscall.h>
#include <sys/vfs.h>

/* How often a directory that vanishes under us is made again. Nobody of ours removes directories,
 * so more than once means that somebody works against us. */
#define MAKE_ATTEMPTS 8
/* O_NONBLOCK: somebody may have put a FIFO there. */
#define OBJECT_OPEN_FLAGS (O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC)

static struct store_directory *directory_of(struct store *s)
{
    return (struct store_directory *)s;
}

/* ---- directories known to be durable ---- */

static size_t durable_slot(const char *path, size_t length)
{
    uint64_t hash = 14695981039346656037u; /* FNV-1a: only spreads over the slots */

    for (size_t i = 0; i < length; i++)
        hash = (hash ^ (uint8_t)path[i]) * 1099511628211u;
    return hash % STORE_DURABLE_SLOTS;
}

bool store_directory_is_durable(struct store_directory *d, const char *path, size_t length)
{
    WITH_LOCK(&d->lock);
    const char *known = d->durable[durable_slot(path, length)];

    return length == 0 || (known && strncmp(known, path, length) == 0 && !known[length]);
}

void store_directory_set_durable(struct store_directory *d, const char *path, size_t length)
{
    char *copy = strndup(path, length);
    WITH_LOCK(&d->lock);
    char **slot = &d->durable[durable_slot(path, length)];

    free(*slot);
    *slot = copy; /* NULL: forgotten, so it is synced once more */
}

/* `path` was made just now: what was known is of a directory that somebody removed. */
static void forget_durable(struct store_directory *d, const char *path, size_t length)
{
    if (!store_directory_is_durable(d, path, length))
        return;
    WITH_LOCK(&d->lock);
    char **slot = &d->durable[durable_slot(path, length)];
    free(*slot);
    *slot = NULL;
}

int store_directory_sync(int fd)
{
    if (fsync(fd) == 0)
        return 0;
    return errno == ENOSPC || errno == EDQUOT ? -errno : -EIO;
}

/* ---- walking ---- */

/* `name` in `at` could not be opened as a directory: an object gives -ENOTDIR, else -EPROTO. */
static int what_stands_there(int at, const char *name)
{
    struct stat st;

    if (fstatat(at, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return -errno;
    return S_ISREG(st.st_mode) ? -ENOTDIR : -EPROTO;
}

static int open_directory(int at, const char *name, enum store_walk how, bool *ret_made,
                          int *ret_fd)
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
        if (mkdirat(at, name, 0777) == 0)
            *ret_made = true;
        else if (errno != EEXIST)
            return -errno;
    }
    return -ENOENT;
}

int store_directory_walk(struct store_directory *d, const char *path, size_t length,
                         enum store_walk how, int *ret_fd)
{
    char name[NAME_MAX + 1];
    AUTO(close_fd) int at = -1;
    bool made = false;
    int r = open_directory(d->root_fd, ".", how, &made, &at);

    for (size_t start = 0; r == 0 && start < length;) {
        const char *slash = memchr(path + start, '/', length - start);
        size_t end = slash ? (size_t)(slash - path) : length;
        int next = -1;
        made = false;
        memcpy(name, path + start, end - start);
        name[end - start] = '\0';
        r = open_directory(at, name, how, &made, &next);
        if (made)
            forget_durable(d, path, end);
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

const char *store_key_leaf(const char *key, size_t *ret_parent_length)
{
    const char *slash = strrchr(key, '/');

    *ret_parent_length = slash ? (size_t)(slash - key) : 0;
    return slash ? slash + 1 : key;
}

int store_directory_parent(struct store_directory *d, const char *key, enum store_walk how,
                           int *ret_fd)
{
    size_t length;

    (void)store_key_leaf(key, &length);
    return store_directory_walk(d, key, length, how, ret_fd);
}

/* ---- verbs ---- */

/* One system call for the whole path, by the same rules as a walk (Linux 5.6; container sandboxes
 * may refuse it): a read of a warm pack costs less than opening its directories one by one. */
static int open_quickly(const struct store_directory *d, const char *key)
{
    struct open_how how = {
        .flags = OBJECT_OPEN_FLAGS,
        .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS,
    };
    long fd = syscall(SYS_openat2, d->root_fd, key, &how, sizeof how);

    return fd < 0 ? -errno : (int)fd;
}

/* The same step by step, for kernels without that call and for an exact error. */
static int open_slowly(struct store_directory *d, const char *key)
{
    AUTO(close_fd) int parent_fd = -1;
    size_t parent_length;
    int r = store_directory_parent(d, key, STORE_WALK_LOOK, &parent_fd);

    if (r < 0)
        return r == -ENOTDIR ? -ENOENT : r;
    int fd = openat(parent_fd, store_key_leaf(key, &parent_length), OBJECT_OPEN_FLAGS);
    if (fd < 0)
        return errno == ELOOP || errno == ENXIO ? -EPROTO : -errno;
    return fd;
}

static int directory_get(struct store *s, const char *key, uint64_t offset, void *data, size_t size,
                         size_t *ret_size, uint64_t *ret_length)
{
    AUTO(close_fd) int fd = open_quickly(directory_of(s), key);
    struct stat st;

    if (fd < 0 && fd != -ENOENT)
        fd = open_slowly(directory_of(s), key);
    if (fd < 0)
        return fd;
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

static int directory_open_local(struct store *s, const char *key, int *ret_fd)
{
    AUTO(close_fd) int fd = open_quickly(directory_of(s), key);
    struct statfs fs;
    struct stat st;

    if (fd < 0 && fd != -ENOENT)
        fd = open_slowly(directory_of(s), key);
    if (fd < 0)
        return fd;
    if (fstat(fd, &st) < 0 || fstatfs(fd, &fs) < 0)
        return -errno;
    if (!S_ISREG(st.st_mode))
        return -EPROTO;
    if (!store_directory_is_disk((uint64_t)fs.f_type))
        return -EOPNOTSUPP;
    *ret_fd = take_fd(&fd);
    return 0;
}

static bool directory_is_quick(struct store *s)
{
    struct statfs fs;

    return fstatfs(directory_of(s)->root_fd, &fs) == 0 &&
           store_directory_sharing((uint64_t)fs.f_type, NULL) == STORE_SHARING_LOCAL;
}

static int directory_remove(struct store *s, const char *key)
{
    struct store_directory *d = directory_of(s);
    AUTO(close_fd) int parent_fd = -1;
    size_t parent_length;
    const char *leaf = store_key_leaf(key, &parent_length);

    if (!d->writable)
        return -EROFS;
    int r = store_directory_parent(d, key, STORE_WALK_READ, &parent_fd);
    if (r < 0)
        return r == -ENOENT || r == -ENOTDIR ? 0 : r;
    if (unlinkat(parent_fd, leaf, 0) < 0) {
        /* Linux gives EISDIR, POSIX EPERM, for a directory: which is no object. */
        int e = errno;
        struct stat st;
        if (e == ENOENT)
            return store_directory_sync(parent_fd); /* another's removal must be durable, too */
        if (fstatat(parent_fd, leaf, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISDIR(st.st_mode))
            return 0;
        return -e;
    }
    return store_directory_sync(parent_fd);
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
    .put_if_absent = store_directory_put_if_absent,
    .get = directory_get,
    .is_quick = directory_is_quick,
    .list = store_directory_list,
    .remove = directory_remove,
    .upload = store_directory_upload,
    .upload_write = store_directory_upload_write,
    .upload_commit = store_directory_upload_commit,
    .upload_abort = store_directory_upload_abort,
    .space = directory_space,
    .open_local = directory_open_local,
    .probe = store_directory_probe,
    .close = directory_close,
};
