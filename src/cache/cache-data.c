/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bytes in and out of cells. Marks are set behind the data and looked at before it; generations
 * tell whether an eviction came in between (cache-victim.c has the other half of that agreement).
 * What slips through all the same, after a crash or by a stranger's hand, the reader's digests
 * find.
 */
#include "cache/cache-object.h"

#include "base/file.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

/* A use is noted once in so many seconds. */
#define CLOCK_STEP_S 10u
/* One call's segments; larger ranges go in pieces of 64 MiB. */
#define SEGMENTS_MAX 65u
#define PIECE_MAX    (UINT64_C(64) << 20)
/* A pin meets the evictor at work on that file: it is done in no time, or in the middle of a
 * removal. */
#define PIN_ATTEMPTS 20
#define PIN_WAIT_MS  5

static bool is_range(const struct cache_object *o, uint64_t offset, uint64_t size)
{
    return size > 0 && offset < o->shape.length && size <= o->shape.length - offset;
}

static uint64_t block_of(uint64_t offset)
{
    return offset / CACHE_BLOCK;
}

static uint64_t blocks_end(uint64_t offset)
{
    return (offset + CACHE_BLOCK - 1) / CACHE_BLOCK;
}

/* Heads of the segments that a range touches. */
struct heads {
    uint64_t first;
    size_t count;
    struct cell_head at[SEGMENTS_MAX];
};

static int heads_read(const struct cell *cell, const struct cell_shape *s, uint64_t offset,
                      uint64_t size, struct heads *ret)
{
    int r = 0;

    ret->first = offset / CACHE_SEGMENT;
    ret->count = (size_t)((offset + size - 1) / CACHE_SEGMENT - ret->first + 1);
    for (size_t i = 0; r == 0 && i < ret->count; i++)
        r = cell_head_read(cell, s, ret->first + i, &ret->at[i]);
    return r;
}

/* Was nothing evicted since they were read? */
static bool heads_hold(const struct cell *cell, const struct cell_shape *s, const struct heads *h)
{
    struct cell_head now;

    for (size_t i = 0; i < h->count; i++) {
        if (cell_head_read(cell, s, h->first + i, &now) < 0 ||
            now.generation != h->at[i].generation)
            return false;
    }
    return true;
}

static void touch(struct cache *c, const struct cell *cell, const struct cell_shape *s,
                  const struct heads *h)
{
    uint32_t now = cache_now_s(c);

    for (size_t i = 0; cell->writable && i < h->count; i++) {
        uint32_t clock = h->at[i].clock;
        if (clock > now || clock <= c->opened_s || now - clock > CLOCK_STEP_S)
            (void)cell_clock_write(cell, s, h->first + i, now); /* a wrong age, no more */
    }
}

/* ---- reading ---- */

/* 0, -ENODATA, or an errno of the disk. */
static int read_piece(struct cache_object *o, const struct cell *cell, uint64_t offset, void *data,
                      size_t size)
{
    const struct cell_shape *s = &o->shape;
    struct heads h;
    uint64_t end = blocks_end(offset + size);

    int64_t hole = cell_find(cell, s, block_of(offset), end, false);
    if (hole < 0)
        return (int)hole;
    if ((uint64_t)hole < end)
        return -ENODATA;
    int r = heads_read(cell, s, offset, size, &h);
    if (r < 0)
        return r;
    ssize_t n = file_pread(cell->fd, data, size, (off_t)offset);
    if (n < 0)
        return (int)n;
    if ((size_t)n < size)
        return -EPROTO;
    /* An eviction may have begun before the heads were read: it clears marks before it punches. */
    hole = cell_find(cell, s, block_of(offset), end, false);
    if (hole < 0 || (uint64_t)hole < end)
        return hole < 0 ? (int)hole : -ENODATA;
    if (!heads_hold(cell, s, &h))
        return -ENODATA;
    touch(o->cache, cell, s, &h);
    return 0;
}

/* The cell is of no use as it is: what to do about it. */
static void trouble(struct cache_object *o, struct cell *cell, int r)
{
    if (r == -EPROTO) { /* cut while we had it open: opening anew finds that, and makes a new one */
        cache_note_foreign(o->cache);
        object_discard(o, cell);
    } else if (r != -ENODATA) {
        cache_note(o->cache, r);
    } else if (object_is_gone(cell)) {
        object_discard(o, cell);
    }
}

int cache_read(struct cache_object *o, uint64_t offset, void *data, size_t size)
{
    struct cell *cell;
    uint8_t *to = data;

    if (!is_range(o, offset, size) || cache_rests(o->cache, false) ||
        object_acquire(o, false, &cell) < 0)
        return -ENODATA;
    int r = 0;
    while (r == 0 && size > 0) {
        size_t n = size < PIECE_MAX ? size : (size_t)PIECE_MAX;
        r = read_piece(o, cell, offset, to, n);
        to += n;
        offset += n;
        size -= n;
    }
    if (r < 0)
        trouble(o, cell, r);
    object_release(o, cell);
    return r < 0 ? -ENODATA : 0;
}

uint64_t cache_missing(struct cache_object *o, uint64_t offset, uint64_t end)
{
    struct cell *cell;

    if (end > o->shape.length)
        end = o->shape.length;
    if (offset >= end || cache_rests(o->cache, false) || object_acquire(o, false, &cell) < 0)
        return offset < end ? offset : end;
    int64_t hole = cell_find(cell, &o->shape, block_of(offset), blocks_end(end), false);
    if (hole < 0)
        trouble(o, cell, (int)hole);
    else if ((uint64_t)hole * CACHE_BLOCK <= offset && object_is_gone(cell))
        trouble(o, cell, -ENODATA);
    object_release(o, cell);
    if (hole < 0)
        return offset;
    uint64_t at = (uint64_t)hole * CACHE_BLOCK;
    return at < offset ? offset : at < end ? at : end;
}

/* ---- writing ---- */

/* What a file system may want of a write past the page cache: place, size and memory. */
#define DIRECT_ALIGN UINT64_C(4096)

/* -EINVAL: not here. The descriptor is opened anew each time: next to a write of this size that
 * costs nothing, and there are few of them. */
static int pwrite_direct(int fd, const uint8_t *data, size_t size, uint64_t offset)
{
    char path[64];

    (void)snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    AUTO(close_fd) int direct = open(path, O_WRONLY | O_DIRECT | O_CLOEXEC | O_NOCTTY);
    if (direct < 0)
        return -EINVAL;
    return file_pwrite(direct, data, size, (off_t)offset);
}

static int write_bytes(const struct cell *cell, uint64_t offset, const uint8_t *data, size_t size,
                       bool direct)
{
    uint64_t first = (offset + DIRECT_ALIGN - 1) / DIRECT_ALIGN * DIRECT_ALIGN;
    uint64_t end = (offset + size) / DIRECT_ALIGN * DIRECT_ALIGN;

    if (!direct || first >= end || (uintptr_t)data % DIRECT_ALIGN != offset % DIRECT_ALIGN)
        return file_pwrite(cell->fd, data, size, (off_t)offset);
    const uint8_t *middle = data + (first - offset), *rest = data + (end - offset);
    int r = pwrite_direct(cell->fd, middle, (size_t)(end - first), first);
    if (r == -EINVAL)
        r = file_pwrite(cell->fd, middle, (size_t)(end - first), (off_t)first);
    if (r == 0)
        r = file_pwrite(cell->fd, data, (size_t)(first - offset), (off_t)offset);
    if (r == 0)
        r = file_pwrite(cell->fd, rest, (size_t)(offset + size - end), (off_t)end);
    return r;
}

/* *ret_fresh: bytes that were not there before. */
static int write_piece(struct cache_object *o, const struct cell *cell, uint64_t offset,
                       const void *data, size_t size, bool direct, uint64_t *ret_fresh)
{
    const struct cell_shape *s = &o->shape;
    uint64_t first = block_of(offset), end = blocks_end(offset + size);
    uint32_t now = cache_now_s(o->cache);
    struct heads h;

    int64_t fresh = cell_unmarked(cell, s, first, end);
    if (fresh <= 0)
        return (int)fresh;
    int r = heads_read(cell, s, offset, size, &h);
    if (r == 0)
        r = write_bytes(cell, offset, data, size, direct);
    for (size_t i = 0; r == 0 && i < h.count; i++)
        r = cell_clock_write(cell, s, h.first + i, now);
    if (r == 0)
        r = cell_mark(cell, s, first, end, true);
    if (r == 0 && !heads_hold(cell, s, &h))
        r = cell_mark(cell, s, first, end, false); /* punched meanwhile: not kept */
    if (r == 0)
        *ret_fresh += (uint64_t)fresh * CACHE_BLOCK;
    return r;
}

/* An open cell that still has its name. */
static int acquire_named(struct cache_object *o, struct cell **ret)
{
    for (int attempt = 0; attempt < 2; attempt++) {
        int r = object_acquire(o, true, ret);
        if (r < 0)
            return r;
        if (!object_is_gone(*ret))
            return 0;
        object_discard(o, *ret);
        object_release(o, *ret);
    }
    return -EAGAIN;
}

static int write_all(struct cache_object *o, uint64_t offset, const void *data, size_t size,
                     bool direct)
{
    struct cache *c = o->cache;
    const uint8_t *from = data;
    struct cell *cell;
    uint64_t fresh = 0;

    if (!is_range(o, offset, size) || offset % CACHE_BLOCK ||
        (size % CACHE_BLOCK && offset + size != o->shape.length))
        return -EINVAL;
    if (cache_rests(c, true))
        return -EAGAIN;
    int r = account_admit(c, size);
    if (r == 0)
        r = acquire_named(o, &cell);
    if (r < 0)
        return r;
    if (!cell->writable)
        r = -EROFS;
    while (r == 0 && size > 0) {
        size_t n = size < PIECE_MAX ? size : (size_t)PIECE_MAX;
        r = write_piece(o, cell, offset, from, n, direct, &fresh);
        from += n;
        offset += n;
        size -= n;
    }
    if (fresh)
        account_add(c, (int64_t)fresh, 0);
    if (r < 0)
        trouble(o, cell, r);
    else if (fresh)
        cache_note(c, 0);
    object_release(o, cell);
    return r;
}

int cache_write(struct cache_object *o, uint64_t offset, const void *data, size_t size)
{
    return write_all(o, offset, data, size, false);
}

int cache_write_direct(struct cache_object *o, uint64_t offset, const void *data, size_t size)
{
    return write_all(o, offset, data, size, true);
}

void cache_forget(struct cache_object *o, uint64_t offset, uint64_t size)
{
    struct cell *cell;

    if (!is_range(o, offset, size) || object_acquire(o, false, &cell) < 0)
        return;
    if (cell->writable) {
        struct cell_header h;
        struct cell_shape s;
        uint64_t end = blocks_end(offset + size);
        int r = cell_identify(cell->fd, o->shape.file_size, &h, &s);
        if (r == 0 && (h.flags & CELL_SETTLED))
            r = cell_flags_write(cell, &o->shape, h.flags & ~CELL_SETTLED);
        int64_t had = r == 0 ? cell_unmarked(cell, &o->shape, block_of(offset), end) : r;
        if (had >= 0)
            r = cell_mark(cell, &o->shape, block_of(offset), end, false);
        if (had >= 0 && r == 0) /* its bytes stay where they are, for the next write */
            account_add(o->cache,
                        -(int64_t)((end - block_of(offset) - (uint64_t)had) * CACHE_BLOCK), 0);
        if (r < 0)
            trouble(o, cell, r);
    }
    object_release(o, cell);
}

/* ---- whole objects ---- */

static int all_there(struct cache_object *o, const struct cell *cell)
{
    int64_t hole = cell_find(cell, &o->shape, 0, o->shape.blocks, false);

    if (hole < 0)
        return (int)hole;
    return (uint64_t)hole < o->shape.blocks || object_is_gone(cell) ? -ENODATA : 0;
}

/* Complete, and to be believed. */
static int complete(struct cache_object *o, const struct cell *cell)
{
    static const uint8_t none[CELL_BOOT_SIZE];
    struct cell_header h;
    struct cell_shape s;
    int r = cell_identify(cell->fd, o->shape.file_size, &h, &s);

    if (r < 0)
        return r;
    bool this_boot =
        memcmp(h.boot, none, sizeof none) != 0 && memcmp(h.boot, o->cache->boot, sizeof none) == 0;
    return this_boot || (h.flags & CELL_SETTLED) ? all_there(o, cell) : -ENODATA;
}

bool cache_object_is_complete(struct cache_object *o)
{
    struct cell *cell;

    if (cache_rests(o->cache, false) || object_acquire(o, false, &cell) < 0)
        return false;
    int r = complete(o, cell);
    if (r < 0)
        trouble(o, cell, r);
    object_release(o, cell);
    return r == 0;
}

/* The names that lead to the cell, for a crash to find it. */
static int sync_names(struct cache_object *o)
{
    AUTO(close_fd) int shard_fd = -1;
    int r = cache_shard_open(o->cache, o->name, false, &shard_fd);

    if (r == 0 && (fsync(shard_fd) < 0 || fsync(o->cache->dir_fd) < 0))
        r = -errno;
    return r;
}

int cache_object_settle(struct cache_object *o)
{
    struct cell_header h;
    struct cell_shape s;
    struct cell *cell;
    int r = object_acquire(o, false, &cell);

    if (r < 0)
        return r == -ENOENT ? -ENODATA : r;
    r = all_there(o, cell);
    if (r == 0)
        r = cell_identify(cell->fd, o->shape.file_size, &h, &s);
    if (r == 0 && !(h.flags & CELL_SETTLED)) {
        if (fdatasync(cell->fd) < 0)
            r = -errno;
        if (r == 0)
            r = cell_flags_write(cell, &o->shape, h.flags | CELL_SETTLED);
        if (r == 0 && fdatasync(cell->fd) < 0)
            r = -errno;
        if (r == 0)
            r = sync_names(o);
    }
    if (r < 0)
        trouble(o, cell, r);
    object_release(o, cell);
    return r;
}

static int pin_lock(struct cache *c, int fd)
{
    struct flock l = {
        .l_type = F_RDLCK, .l_whence = SEEK_SET, .l_start = CELL_PIN_OFFSET, .l_len = 1};

    for (int attempt = 0; attempt < PIN_ATTEMPTS; attempt++) {
        if (fcntl(fd, F_OFD_SETLK, &l) == 0)
            return 0;
        if (errno != EAGAIN && errno != EACCES)
            return -errno;
        c->env->sleep_ms(c->env, PIN_WAIT_MS);
    }
    return -EBUSY;
}

/* The pin is the lock of an open file of its own, which this process never closes: a mount may
 * stand on it longer than whoever asked for it. */
static int pin(struct cache_object *o, const struct cell *cell, int *ret_fd)
{
    struct cell_header h;
    struct cell_shape s;
    char path[64];

    (void)snprintf(path, sizeof path, "/proc/self/fd/%d", cell->fd);
    AUTO(close_fd) int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    if (fd < 0)
        return -errno;
    int r = pin_lock(o->cache, fd);
    if (r == 0)
        r = complete(o, cell); /* now that nobody takes anything away */
    if (r == 0)
        r = cell_identify(cell->fd, o->shape.file_size, &h, &s);
    if (r == 0 && !(h.flags & CELL_PINNED))
        r = cell->writable ? cell_flags_write(cell, &o->shape, h.flags | CELL_PINNED) : -EROFS;
    int kept = r == 0 ? fcntl(fd, F_DUPFD_CLOEXEC, 3) : -1;
    if (r == 0 && kept < 0)
        r = -errno;
    if (r == 0)
        *ret_fd = take_fd(&fd);
    return r;
}

int cache_object_pin(struct cache_object *o, int *ret_fd)
{
    struct cell *cell;
    int r = object_acquire(o, false, &cell);

    if (r < 0)
        return r == -ENOENT ? -ENODATA : r;
    r = pin(o, cell, ret_fd);
    object_release(o, cell);
    return r;
}

int cache_object_drop(struct cache_object *o)
{
    AUTO(close_fd) int shard_fd = -1;
    uint64_t freed = 0;
    int r = cache_shard_open(o->cache, o->name, false, &shard_fd);

    if (r == 0)
        r = evict_file(shard_fd, o->name + 3, &freed);
    if (r == 0)
        account_add(o->cache, -(int64_t)freed, -1);
    return r == -ENOENT ? 0 : r;
}
