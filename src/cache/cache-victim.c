/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Evicting from one cell while others use it. The generation of a segment grows before and after
 * its marks are cleared and its hole is punched, and the marks are cleared again behind that: a
 * reader compares generations around its read, a writer behind its marks. A file that was ever
 * pinned loses no bytes, only its name.
 */
#include "cache/cache-internal.h"

#include "base/file.h"
#include "base/le.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

/* Longer than a write takes on a disk that is any good. */
#define FRESH_S 60

uint64_t victim_disk_bytes(const struct victim *v)
{
    struct stat st;

    return fstat(v->cell.fd, &st) < 0 ? 0 : (uint64_t)st.st_blocks * 512;
}

/* The lock that a pin holds shared. Its own open file, so that it excludes pins of this process
 * too. It goes with the descriptor. */
bool victim_is_pinned(const struct victim *v)
{
    struct flock l = {
        .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = CELL_PIN_OFFSET, .l_len = 1};

    return fcntl(v->cell.fd, F_OFD_SETLK, &l) < 0 && (errno == EAGAIN || errno == EACCES);
}

/* Heads [first, first + count): nothing there, and whoever was at it notices. */
static int reset_heads(const struct cell *cell, const struct cell_shape *s, uint64_t first,
                       size_t count)
{
    uint8_t data[HEADS_AT_ONCE * CELL_HEAD_SIZE];
    size_t size = count * CELL_HEAD_SIZE;
    off_t at = (off_t)(s->heads + first * CELL_HEAD_SIZE);
    ssize_t n = file_pread(cell->fd, data, size, at);

    if (n != (ssize_t)size)
        return n < 0 ? (int)n : -EPROTO;
    for (size_t i = 0; i < count; i++) {
        le32_put(data + i * CELL_HEAD_SIZE, 0);
        le32_put(data + i * CELL_HEAD_SIZE + 4, le32_get(data + i * CELL_HEAD_SIZE + 4) + 1);
    }
    return file_pwrite(cell->fd, data, size, at);
}

static int reset_all(const struct cell *cell, const struct cell_shape *s)
{
    int r = 0;

    for (uint64_t i = 0; r == 0 && i < s->segments; i += HEADS_AT_ONCE) {
        uint64_t n = s->segments - i < HEADS_AT_ONCE ? s->segments - i : HEADS_AT_ONCE;
        r = reset_heads(cell, s, i, (size_t)n);
    }
    return r;
}

static int punch(const struct cell *cell, uint64_t from, uint64_t to)
{
    return fallocate(cell->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)from,
                     (off_t)(to - from)) < 0
               ? -errno
               : 0;
}

int victim_evict_segment(const struct victim *v, uint64_t segment)
{
    const struct cell_shape *s = &v->shape;
    uint64_t from = segment * CACHE_SEGMENT, to = from + CACHE_SEGMENT;
    uint64_t first = from / CACHE_BLOCK, end = to / CACHE_BLOCK;

    to = to < s->header ? to : s->header;
    end = end < s->blocks ? end : s->blocks;
    int r = reset_heads(&v->cell, s, segment, 1);
    if (r == 0)
        r = cell_mark(&v->cell, s, first, end, false);
    if (r == 0)
        r = punch(&v->cell, from, to);
    if (r == 0)
        r = reset_heads(&v->cell, s, segment, 1);
    return r < 0 ? r : cell_mark(&v->cell, s, first, end, false);
}

/* All of it. Others may have it open for long: so its bytes go at once, unless a mount may stand on
 * them. The name goes first, and whoever writes sees that. */
int victim_remove(const struct victim *v, uint64_t *ret_freed)
{
    if (unlinkat(v->shard_fd, v->name, 0) < 0)
        return -errno;
    *ret_freed = v->bytes;
    if (!(v->header.flags & CELL_PINNED)) {
        /* What fails here frees the space later, when the last descriptor is closed. */
        (void)reset_all(&v->cell, &v->shape);
        (void)cell_mark(&v->cell, &v->shape, 0, v->shape.blocks, false);
        (void)punch(&v->cell, 0, v->shape.header);
        (void)reset_all(&v->cell, &v->shape);
    }
    return 0;
}

int victim_open(int shard_fd, const char *name, struct victim *ret)
{
    struct victim v = {.shard_fd = shard_fd, .name = name, .cell = {.fd = -1}};
    char hex[DIGEST_HEX_SIZE];
    struct stat st;

    AUTO(close_fd)
    int fd = openat(shard_fd, name, O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
    if (fd < 0 || fstat(fd, &st) < 0)
        return errno == ELOOP ? -EPROTO : -errno;
    if (!S_ISREG(st.st_mode) || st.st_uid != geteuid())
        return -EPROTO;
    int r = cell_identify(fd, (uint64_t)st.st_size, &v.header, &v.shape);
    if (r < 0)
        return r;
    digest_to_hex(&v.header.id, hex);
    if (strcmp(hex, name) != 0)
        return -EPROTO;
    v.bytes = (uint64_t)st.st_blocks * 512;
    v.is_fresh = st.st_mtime + FRESH_S > time(NULL);
    v.cell.fd = take_fd(&fd);
    *ret = v;
    return 0;
}

int victim_each_segment(struct victim *v, victim_segment_fn *fn, void *ctx)
{
    uint8_t data[HEADS_AT_ONCE * CELL_HEAD_SIZE];
    int r = 0;

    for (uint64_t first = 0; r == 0 && first < v->shape.segments; first += HEADS_AT_ONCE) {
        uint64_t left = v->shape.segments - first;
        size_t count = left < HEADS_AT_ONCE ? (size_t)left : HEADS_AT_ONCE;
        ssize_t n = file_pread(v->cell.fd, data, count * CELL_HEAD_SIZE,
                               (off_t)(v->shape.heads + first * CELL_HEAD_SIZE));
        if (n != (ssize_t)(count * CELL_HEAD_SIZE))
            return n < 0 ? (int)n : -EPROTO;
        for (size_t i = 0; r == 0 && i < count; i++) {
            uint32_t clock = le32_get(data + i * CELL_HEAD_SIZE);
            if (clock)
                r = fn(ctx, v, first + i, clock);
        }
    }
    return r;
}
