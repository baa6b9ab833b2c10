/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Cells: the file of one object, byte for byte (docs/formats/cache.md). Nothing that is read here
 * is believed beyond the question which blocks are worth reading: every other value of a mark is
 * "not there", a clock only orders evictions.
 */
#include "cache/cache-internal.h"

#include "base/file.h"
#include "base/le.h"

#include <string.h>
#include <sys/stat.h>

/* Marks looked at in one read: those of 2 MiB. */
#define MARKS_AT_ONCE 4096u

static const char magic[8] = {'G', 'R', 'I', 'D', 'C', 'E', 'L', 'L'};

int cell_shape_of(uint64_t length, struct cell_shape *ret)
{
    if (length == 0 || length > CACHE_OBJECT_MAX)
        return -EINVAL;
    struct cell_shape s = {.length = length};
    s.blocks = (length + CACHE_BLOCK - 1) / CACHE_BLOCK;
    s.segments = (length + CACHE_SEGMENT - 1) / CACHE_SEGMENT;
    s.header = (length + CELL_ALIGN - 1) / CELL_ALIGN * CELL_ALIGN;
    s.heads = s.header + CELL_HEADER_SIZE;
    s.marks = s.heads + s.segments * CELL_HEAD_SIZE;
    s.file_size = s.marks + s.blocks;
    *ret = s;
    return 0;
}

/* ---- header ---- */

void cell_header_encode(const struct cell_header *h, uint8_t data[static CELL_HEADER_SIZE])
{
    memset(data, 0, CELL_HEADER_SIZE);
    memcpy(data, magic, sizeof magic);
    le32_put(data + 8, CELL_FORMAT);
    le32_put(data + 12, h->flags);
    le64_put(data + 16, h->length);
    memcpy(data + 24, h->id.byte, DIGEST_SIZE);
    memcpy(data + 56, h->boot, CELL_BOOT_SIZE);
}

int cell_header_decode(const uint8_t data[static CELL_HEADER_SIZE], struct cell_header *ret)
{
    struct cell_header h;

    if (memcmp(data, magic, sizeof magic) != 0 || le32_get(data + 8) != CELL_FORMAT)
        return -EPROTO;
    h.flags = le32_get(data + 12);
    h.length = le64_get(data + 16);
    memcpy(h.id.byte, data + 24, DIGEST_SIZE);
    memcpy(h.boot, data + 56, CELL_BOOT_SIZE);
    if ((h.flags & ~(CELL_PINNED | CELL_SETTLED)) || h.length == 0 || h.length > CACHE_OBJECT_MAX)
        return -EPROTO;
    for (size_t i = 72; i < CELL_HEADER_SIZE; i++) {
        if (data[i])
            return -EPROTO;
    }
    *ret = h;
    return 0;
}

/* The header lies behind data of a length that only the header knows; but the size of the file
 * determines it: (size - 128) is the sum of rounded length, heads and marks, which grows with the
 * length in steps, so a search over blocks finds the one place. */
int cell_identify(int fd, uint64_t file_size, struct cell_header *ret, struct cell_shape *ret_shape)
{
    uint8_t data[CELL_HEADER_SIZE];
    struct cell_shape s;
    uint64_t low = 1, high = CACHE_OBJECT_MAX / CACHE_BLOCK;

    while (low < high) { /* the least number of blocks whose file is that large */
        uint64_t middle = low + (high - low) / 2;
        (void)cell_shape_of(middle * CACHE_BLOCK, &s); /* within bounds */
        if (s.file_size < file_size)
            low = middle + 1;
        else
            high = middle;
    }
    if (cell_shape_of(low * CACHE_BLOCK, &s) < 0 || s.file_size != file_size)
        return -EPROTO;
    ssize_t n = file_pread(fd, data, sizeof data, (off_t)s.header);
    if (n < 0)
        return (int)n;
    int r = n == (ssize_t)sizeof data ? cell_header_decode(data, ret) : -EPROTO;
    if (r == 0)
        r = cell_shape_of(ret->length, &s);
    if (r == 0 && (s.file_size != file_size || s.blocks != low))
        r = -EPROTO;
    if (r == 0)
        *ret_shape = s;
    return r;
}

/* ---- heads and marks ---- */

int cell_head_read(const struct cell *cell, const struct cell_shape *s, uint64_t segment,
                   struct cell_head *ret)
{
    uint8_t data[CELL_HEAD_SIZE];
    ssize_t n =
        file_pread(cell->fd, data, sizeof data, (off_t)(s->heads + segment * CELL_HEAD_SIZE));

    if (n < 0)
        return (int)n;
    if (n != (ssize_t)sizeof data)
        return -EPROTO; /* somebody has cut the file */
    ret->clock = le32_get(data);
    ret->generation = le32_get(data + 4);
    return 0;
}

int cell_clock_write(const struct cell *cell, const struct cell_shape *s, uint64_t segment,
                     uint32_t clock)
{
    uint8_t data[4];

    le32_put(data, clock);
    return file_pwrite(cell->fd, data, sizeof data, (off_t)(s->heads + segment * CELL_HEAD_SIZE));
}

int64_t cell_find(const struct cell *cell, const struct cell_shape *s, uint64_t first, uint64_t end,
                  bool marked)
{
    uint8_t marks[MARKS_AT_ONCE];

    while (first < end) {
        size_t n = end - first < sizeof marks ? (size_t)(end - first) : sizeof marks;
        ssize_t got = file_pread(cell->fd, marks, n, (off_t)(s->marks + first));
        if (got < 0)
            return got;
        if ((size_t)got < n)
            return -EPROTO;
        for (size_t i = 0; i < n; i++) {
            if ((marks[i] == CELL_MARK) == marked)
                return (int64_t)(first + i);
        }
        first += n;
    }
    return (int64_t)end;
}

int64_t cell_unmarked(const struct cell *cell, const struct cell_shape *s, uint64_t first,
                      uint64_t end)
{
    uint8_t marks[MARKS_AT_ONCE];
    int64_t count = 0;

    while (first < end) {
        size_t n = end - first < sizeof marks ? (size_t)(end - first) : sizeof marks;
        ssize_t got = file_pread(cell->fd, marks, n, (off_t)(s->marks + first));
        if (got < 0)
            return got;
        if ((size_t)got < n)
            return -EPROTO;
        for (size_t i = 0; i < n; i++)
            count += marks[i] != CELL_MARK;
        first += n;
    }
    return count;
}

int cell_mark(const struct cell *cell, const struct cell_shape *s, uint64_t first, uint64_t end,
              bool marked)
{
    uint8_t marks[MARKS_AT_ONCE];
    int r = 0;

    memset(marks, marked ? CELL_MARK : 0, sizeof marks);
    while (r == 0 && first < end) {
        size_t n = end - first < sizeof marks ? (size_t)(end - first) : sizeof marks;
        r = file_pwrite(cell->fd, marks, n, (off_t)(s->marks + first));
        first += n;
    }
    return r;
}

int cell_flags_write(const struct cell *cell, const struct cell_shape *s, uint32_t flags)
{
    uint8_t data[4];

    le32_put(data, flags);
    return file_pwrite(cell->fd, data, sizeof data, (off_t)(s->header + 12));
}
