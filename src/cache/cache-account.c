/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How much is kept, by all processes: a small file that each adds to now and then, and that every
 * walk of the evictor puts right. A process that is killed leaves it wrong by ACCOUNT_STEP; it is
 * counted anew after a boot and once a day.
 *
 * The file is locked for a moment only, and never waited for: a process that was stopped while it
 * had the lock must not stop others, who try again at their next turn.
 */
#include "cache/cache-internal.h"

#include "base/file.h"
#include "base/le.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#define ACCOUNT_NAME   "account"
#define ACCOUNT_SIZE   64u
#define ACCOUNT_FORMAT 1u
/* Counts are written when they have grown by this, or by a 64th of the limit; and looked at, with
 * the disk's free space, once a second. */
#define ACCOUNT_STEP    (INT64_C(16) << 20)
#define ACCOUNT_LOOK_MS 1000
#define RECOUNT_AFTER_S (24u * 3600u)
/* Of the disk: what the cache takes by default, and what it leaves free. */
#define SHARE_OF_DISK 4u
#define SHARE_FREE    20u
/* Bytes of the account file that are locks. */
#define LOCK_COUNTS 0
#define LOCK_EVICT  1

static const char magic[8] = {'G', 'R', 'I', 'D', 'U', 'S', 'E', 'D'};

struct account {
    uint64_t used, objects;
    uint32_t counted_s; /* when a walk last put it right */
    uint8_t boot[CELL_BOOT_SIZE];
};

static int file_lock(struct cache *c, short type, off_t byte)
{
    struct flock l = {.l_type = type, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1};

    if (c->account_fd < 0)
        return -EBADF;
    return fcntl(c->account_fd, F_OFD_SETLK, &l) < 0 ? -errno : 0;
}

/* ---- the file ---- */

static bool account_read(struct cache *c, struct account *ret)
{
    uint8_t data[ACCOUNT_SIZE];

    if (c->account_fd < 0 || file_pread(c->account_fd, data, sizeof data, 0) != sizeof data ||
        memcmp(data, magic, sizeof magic) != 0 || le32_get(data + 8) != ACCOUNT_FORMAT)
        return false;
    ret->counted_s = le32_get(data + 12);
    ret->used = le64_get(data + 16);
    ret->objects = le64_get(data + 24);
    memcpy(ret->boot, data + 32, CELL_BOOT_SIZE);
    /* No disk is that large: a stranger's number, or a flipped bit. */
    return ret->used < UINT64_C(1) << 60 && ret->objects < UINT64_C(1) << 48;
}

static int account_write(struct cache *c, const struct account *a)
{
    uint8_t data[ACCOUNT_SIZE] = {0};

    memcpy(data, magic, sizeof magic);
    le32_put(data + 8, ACCOUNT_FORMAT);
    le32_put(data + 12, a->counted_s);
    le64_put(data + 16, a->used);
    le64_put(data + 24, a->objects);
    memcpy(data + 32, a->boot, CELL_BOOT_SIZE);
    return c->account_fd < 0 ? -EBADF : file_pwrite(c->account_fd, data, sizeof data, 0);
}

static uint64_t plus(uint64_t n, int64_t delta)
{
    return delta < 0 && (uint64_t)-delta > n ? 0 : n + (uint64_t)delta;
}

/* Add what this process has not written yet. With account_lock. */
static void flush(struct cache *c)
{
    struct account a;

    if (file_lock(c, F_WRLCK, LOCK_COUNTS) < 0)
        return; /* the next time */
    if (account_read(c, &a)) {
        a.used = plus(a.used, c->used_delta);
        a.objects = plus(a.objects, c->objects_delta);
        if ((c->used_delta == 0 && c->objects_delta == 0) || account_write(c, &a) == 0) {
            c->used_delta = c->objects_delta = 0;
            c->shared_used = a.used;
            c->shared_objects = a.objects;
        }
    } else {
        c->recount_wanted = true;
    }
    (void)file_lock(c, F_UNLCK, LOCK_COUNTS); /* or it goes with the process */
}

/* ---- limits ---- */

uint64_t account_used(const struct cache *c)
{
    return plus(c->shared_used, c->used_delta);
}

void account_look(struct cache *c)
{
    struct statvfs fs;
    uint64_t limit = c->limit_bytes;

    flush(c);
    c->looked_ms = cache_now_ms(c);
    uint64_t used = account_used(c);
    if (fstatvfs(c->dir_fd, &fs) < 0) {
        c->effective_limit = limit;
        return;
    }
    uint64_t size = (uint64_t)fs.f_blocks * fs.f_frsize, free = (uint64_t)fs.f_bavail * fs.f_frsize;
    uint64_t keep = c->keep_free_bytes ? c->keep_free_bytes : size / SHARE_FREE;
    if (limit == 0)
        limit = size / SHARE_OF_DISK;
    uint64_t room = used + free > keep ? used + free - keep : 0;
    c->effective_limit = limit < room ? limit : room;
}

int account_admit(struct cache *c, uint64_t size)
{
    WITH_LOCK(&c->account_lock);
    if (cache_now_ms(c) - c->looked_ms >= ACCOUNT_LOOK_MS)
        account_look(c);
    uint64_t used = account_used(c), limit = c->effective_limit;
    if (c->recount_wanted || used + size > limit - limit / 16)
        evict_wake(c);
    if (used + size <= limit)
        return 0;
    c->refused += size;
    if (size > c->room_wanted)
        c->room_wanted = size;
    return -EDQUOT;
}

void account_add(struct cache *c, int64_t bytes, int64_t objects)
{
    WITH_LOCK(&c->account_lock);
    c->used_delta += bytes;
    c->objects_delta += objects;
    int64_t step = (int64_t)(c->effective_limit / 64);
    step = step < ACCOUNT_STEP ? step : ACCOUNT_STEP;
    if (c->used_delta > step || c->used_delta < -step)
        flush(c);
}

void account_set(struct cache *c, uint64_t used, uint64_t objects)
{
    struct account a = {.used = used, .objects = objects, .counted_s = cache_now_s(c)};

    WITH_LOCK(&c->account_lock);
    memcpy(a.boot, c->boot, sizeof a.boot);
    c->used_delta = c->objects_delta = 0;
    c->shared_used = used;
    c->shared_objects = objects;
    c->recount_wanted = false;
    if (file_lock(c, F_WRLCK, LOCK_COUNTS) < 0)
        return;
    (void)account_write(c, &a); /* then the next walk does */
    (void)file_lock(c, F_UNLCK, LOCK_COUNTS);
}

int account_lock_eviction(struct cache *c)
{
    WITH_LOCK(&c->account_lock);
    if (c->evicting)
        return -EBUSY;
    int r = file_lock(c, F_WRLCK, LOCK_EVICT);
    if (r < 0 && r != -EBADF) /* without an account everybody does as he thinks best */
        return -EBUSY;
    c->evicting = true;
    return 0;
}

void account_unlock_eviction(struct cache *c)
{
    WITH_LOCK(&c->account_lock);
    c->evicting = false;
    (void)file_lock(c, F_UNLCK, LOCK_EVICT); /* or it goes with the process */
}

/* ---- life ---- */

void account_open(struct cache *c, bool is_new)
{
    struct account a;
    struct stat st;

    for (int attempt = 0; attempt < 2 && c->account_fd < 0; attempt++) {
        int fd = openat(c->dir_fd, ACCOUNT_NAME,
                        O_RDWR | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC | O_NOCTTY, 0600);
        if (fd >= 0 && fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_uid == geteuid()) {
            c->account_fd = fd;
            break;
        }
        if (fd >= 0)
            (void)close(fd); /* nothing was written */
        if (fd < 0 && errno == EROFS)
            break;
        (void)unlinkat(c->dir_fd, ACCOUNT_NAME, 0); /* what is no file of ours: made anew */
    }
    WITH_LOCK(&c->account_lock);
    if (account_read(c, &a)) {
        uint32_t now = cache_now_s(c);
        c->recount_wanted = memcmp(a.boot, c->boot, sizeof a.boot) != 0 || a.counted_s > now ||
                            now - a.counted_s > RECOUNT_AFTER_S;
    } else {
        /* Something to add to; the walk that counts comes with the first write. */
        struct account empty = {.used = 0};
        if (is_new) { /* nothing to count */
            empty.counted_s = cache_now_s(c);
            memcpy(empty.boot, c->boot, sizeof empty.boot);
        }
        (void)account_write(c, &empty);
        c->recount_wanted = !is_new;
    }
    account_look(c);
}

void account_close(struct cache *c)
{
    {
        WITH_LOCK(&c->account_lock);
        if (c->used_delta || c->objects_delta)
            flush(c);
    }
    if (c->account_fd >= 0)
        (void)close(c->account_fd); /* a help, no more */
}
