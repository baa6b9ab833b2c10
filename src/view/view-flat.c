/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A version as one file: the index, and behind it every pack at its unified address. This is what
 * the kernel's EROFS mounts (docs/formats/index.md). Each byte is verified on its way, padding and
 * what lies between packs is zero. Nothing is ever shorter than asked for: a short answer would be
 * taken for the end of the file.
 */
#include "view/view-internal.h"

#include <string.h>

/* Packs whose tables are read before anybody asks: a job begins at the beginning. */
#define AHEAD_PACKS 16u
/* Of the first one what the kernel asks for at once. */
#define AHEAD_FIRST (128u << 10)
#define FLAT_ALIGN  4096u

uint64_t view_flat_size(const struct view *v)
{
    uint64_t size = index_flat_size(v->index);

    return size + (FLAT_ALIGN - size % FLAT_ALIGN) % FLAT_ALIGN;
}

/* The device that covers `offset`, or the first one behind it; count + 1 if there is none. Starts
 * are ascending (index_open checked it). */
static uint32_t find_device(const struct index *x, uint64_t offset)
{
    uint32_t low = 1, high = index_device_count(x) + 1;

    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (index_device_start(x, middle) + index_device_blocks(x, middle) * PACK_BLOCK <= offset)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static size_t at_most(uint64_t there, size_t wanted)
{
    return there < wanted ? (size_t)there : wanted;
}

/* One piece of one kind; gives its size. */
static ssize_t read_piece(struct view *v, uint64_t offset, void *data, size_t size)
{
    uint64_t index_size = v->manifest.index_size;
    size_t n;

    if (offset < index_size) {
        n = at_most(index_size - offset, size);
        int r = fetch_read(v->index_object, offset, data, n, FETCH_NO_HINT);
        return r < 0 ? r : (ssize_t)n;
    }
    uint32_t id = find_device(v->index, offset);
    uint64_t start =
        id <= index_device_count(v->index) ? index_device_start(v->index, id) : view_flat_size(v);
    if (offset < start) {
        n = at_most(start - offset, size);
        memset(data, 0, n);
        return (ssize_t)n;
    }
    uint64_t within = offset - start;
    n = at_most(index_device_blocks(v->index, id) * PACK_BLOCK - within, size);
    struct fetch_object *pack;
    int r = view_open_pack(v, id - 1, &pack);
    if (r == 0)
        r = fetch_read_flat(pack, within, data, n);
    return r < 0 ? r : (ssize_t)n;
}

int view_flat_read(struct view *v, uint64_t offset, void *data, size_t size)
{
    uint8_t *to = data;

    if (offset > view_flat_size(v) || size > view_flat_size(v) - offset)
        return -EINVAL;
    while (size > 0) {
        ssize_t n = read_piece(v, offset, to, size);
        if (n < 0)
            return view_object_error((int)n);
        to += n;
        offset += (uint64_t)n;
        size -= (size_t)n;
    }
    return 0;
}

void view_flat_ahead(struct view *v)
{
    uint32_t end = v->manifest.pack_count < AHEAD_PACKS ? v->manifest.pack_count : AHEAD_PACKS;
    struct fetch_object *o;

    for (uint32_t i = 0; i < end && !v->quick; i++) {
        if (view_open_pack(v, i, &o) == 0) /* else who reads there hears why */
            fetch_ahead(o, 0, i == 0 ? AHEAD_FIRST : 1, 0);
    }
}
