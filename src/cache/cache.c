/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The cache's directory and its health. The directory must be ours alone: whoever can write there
 * could at most make us fetch again, but could also have us write through a symlink.
 *
 * Health: after a failed call the disk rests for a time that doubles; the first call that comes
 * through ends that. A disk that only refuses writes is still read.
 */
#include "cache/cache-internal.h"

#include "base/file.h"
#include "base/hex.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>

/* How long a disk that failed is left alone: at first, and at most. */
#define REST_FIRST_MS 1000
#define REST_MAX_MS   64000

int64_t cache_now_ms(struct cache *c)
{
    return c->env->boot_ms(c->env);
}

uint32_t cache_now_s(struct cache *c)
{
    int64_t s = c->env->wall_ms(c->env) / 1000;

    return s < 1 ? 1 : s > UINT32_MAX ? UINT32_MAX : (uint32_t)s;
}

/* ---- directory ---- */

/* Opened, a directory, ours, and closed to others. */
static int check_directory(int fd, const char *path, struct err *err)
{
    struct stat st;

    if (fstat(fd, &st) < 0)
        return err_fail(err, -errno, "cannot look at the cache %s: %s", path, strerror(errno));
    if (st.st_uid != geteuid())
        return err_fail(err, -EPERM, "the cache %s belongs to somebody else; set GRID_CACHE", path);
    if ((st.st_mode & 077) && fchmod(fd, 0700) < 0)
        return err_fail(err, -errno, "cannot close the cache %s to others: %s", path,
                        strerror(errno));
    return 0;
}

static int open_directory(const char *dir, int *ret_fd, bool *ret_is_new, struct err *err)
{
    AUTO(free_ptr) char *path = NULL;

    if (asprintf(&path, "%s/packs", dir) < 0) {
        path = NULL;
        return err_fail(err, -ENOMEM, "out of memory");
    }
    int r = file_mkdirs(dir, 0700);
    if (r < 0)
        return err_fail(err, r, "cannot make the cache %s: %s", dir, strerror(-r));
    *ret_is_new = mkdir(path, 0700) == 0;
    if (!*ret_is_new && errno != EEXIST) {
        struct stat st; /* one that is there, on a disk that is read-only */
        int e = errno;
        if (lstat(path, &st) < 0)
            return err_fail(err, -e, "cannot make the cache %s: %s", path, strerror(e));
    }
    AUTO(close_fd) int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0 && (errno == ELOOP || errno == ENOTDIR))
        return err_fail(err, -ENOTDIR, "the cache %s is not a directory", path);
    if (fd < 0)
        return err_fail(err, -errno, "cannot open the cache %s: %s", path, strerror(errno));
    r = check_directory(fd, path, err);
    if (r == 0)
        *ret_fd = take_fd(&fd);
    return r;
}

int cache_shard_open(struct cache *c, const char *name, bool make, int *ret_fd)
{
    const char shard[3] = {name[0], name[1], '\0'};

    for (int attempt = 0; attempt < 3; attempt++) {
        int fd = openat(c->dir_fd, shard, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (fd >= 0) {
            struct stat st;
            if (fstat(fd, &st) == 0 && st.st_uid == geteuid()) {
                *ret_fd = fd;
                return 0;
            }
            (void)close(fd); /* read-only */
            return -EPERM;
        }
        if (errno == ELOOP || errno == ENOTDIR) { /* a file or symlink is in its place */
            cache_note_foreign(c);
            if (unlinkat(c->dir_fd, shard, 0) < 0)
                return -errno;
        } else if (errno != ENOENT || !make) {
            return -errno;
        }
        if (mkdirat(c->dir_fd, shard, 0700) < 0 && errno != EEXIST)
            return -errno;
    }
    return -EAGAIN;
}

/* ---- health ---- */

void cache_note(struct cache *c, int r)
{
    WITH_LOCK(&c->account_lock);
    if (r == 0) {
        c->failure = 0;
        c->failure_delay_ms = 0;
        return;
    }
    int64_t delay = c->failure_delay_ms * 2;
    c->errors++;
    c->failure = r;
    c->failure_delay_ms = delay < REST_FIRST_MS ? REST_FIRST_MS
                          : delay > REST_MAX_MS ? REST_MAX_MS
                                                : delay;
    c->failure_retry_ms = cache_now_ms(c) + c->failure_delay_ms;
    if (r == -ENOSPC || r == -EDQUOT) {
        account_look(c);
        evict_wake(c);
    }
}

void cache_note_foreign(struct cache *c)
{
    WITH_LOCK(&c->account_lock);
    c->foreign++;
}

bool cache_rests(struct cache *c, bool writing)
{
    WITH_LOCK(&c->account_lock);
    return c->failure && (writing || c->failure == -EIO) && cache_now_ms(c) < c->failure_retry_ms;
}

/* ---- life ---- */

/* Which boot this is; zero where the kernel does not say, and then nothing is of this boot. */
static void read_boot(uint8_t boot[static CELL_BOOT_SIZE])
{
    AUTO(buf_release) struct buf text = BUF_INIT(64);
    char digits[2 * CELL_BOOT_SIZE + 1];
    size_t n = 0;

    memset(boot, 0, CELL_BOOT_SIZE);
    if (file_slurp(AT_FDCWD, "/proc/sys/kernel/random/boot_id", &text) < 0)
        return;
    for (const char *p = buf_text(&text); *p && n < 2 * CELL_BOOT_SIZE; p++) {
        if (*p != '-')
            digits[n++] = *p;
    }
    digits[n] = '\0';
    if (n < 2 * CELL_BOOT_SIZE || hex_decode(boot, CELL_BOOT_SIZE, digits) < 0)
        memset(boot, 0, CELL_BOOT_SIZE);
}

/* A quarter of what a process may open; the rest is for others in it. */
static unsigned cells_allowed(void)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur / 4 >= CACHE_CELLS_MAX)
        return CACHE_CELLS_MAX;
    return limit.rlim_cur / 4 < 8 ? 8 : (unsigned)(limit.rlim_cur / 4);
}

int cache_open(const struct cache_options *o, struct cache **ret, struct err *err)
{
    AUTO(close_fd) int dir_fd = -1;
    bool is_new = false;
    int r = open_directory(o->dir, &dir_fd, &is_new, err);

    if (r < 0)
        return r;
    struct cache *c = calloc(1, sizeof *c);
    if (!c)
        return err_fail(err, -ENOMEM, "out of memory");
    c->env = o->env ? o->env : env_real();
    c->dir_fd = take_fd(&dir_fd);
    c->limit_bytes = o->size_bytes;
    c->keep_free_bytes = o->keep_free_bytes;
    c->opened_s = cache_now_s(c);
    c->cells_max = cells_allowed();
    c->account_fd = -1;
    read_boot(c->boot);
    (void)pthread_mutex_init(&c->lock, NULL); /* cannot fail without attributes */
    (void)pthread_mutex_init(&c->account_lock, NULL);
    (void)pthread_cond_init(&c->evict_wake, NULL);
    account_open(c, is_new);
    *ret = c;
    return 0;
}

void cache_close(struct cache *c)
{
    if (!c)
        return;
    evict_stop(c);
    account_close(c);
    pthread_cond_destroy(&c->evict_wake);
    pthread_mutex_destroy(&c->account_lock);
    pthread_mutex_destroy(&c->lock);
    (void)close(c->dir_fd); /* a directory */
    free(c);
}

int cache_usage(struct cache *c, struct cache_usage *ret)
{
    WITH_LOCK(&c->account_lock);
    account_look(c);
    int64_t objects = (int64_t)c->shared_objects + c->objects_delta;
    *ret = (struct cache_usage){.used_bytes = account_used(c),
                                .limit_bytes = c->effective_limit,
                                .objects = objects > 0 ? (uint64_t)objects : 0,
                                .failing = c->failure != 0,
                                .failure = c->failure,
                                .errors = c->errors,
                                .refused = c->refused,
                                .evicted = c->evicted,
                                .foreign = c->foreign};
    return 0;
}

int cache_drop(struct cache *c, uint64_t *ret_freed_bytes)
{
    return evict_all(c, ret_freed_bytes);
}
