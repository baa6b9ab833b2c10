/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory for many small texts that live as long as their tree.
 *
 * A place is a segment's number and an offset in it, in one word. Nothing is freed alone; a mark
 * takes back what was added since, for the caller whose operation failed half-way.
 */
#include "tree/tree-internal.h"

#define PLACE_OFFSET_BITS                                                                          \
    40 /* a piece may be 1 TiB; 2^24 segments of at least 128 KiB are 2 TiB                        \
        */
#define PLACE_OFFSET_MASK ((UINT64_C(1) << PLACE_OFFSET_BITS) - 1)
#define SEGMENTS_MAX      (UINT64_C(1) << (64 - PLACE_OFFSET_BITS))

static int arena_grow(struct arena *a, size_t size, size_t *ret_segment)
{
    if (a->segments.count >= SEGMENTS_MAX || size > PLACE_OFFSET_MASK)
        return -ENOMEM;
    uint8_t *segment = malloc(size);
    if (!segment)
        return -ENOMEM;
    int r = vec_push(&a->segments, segment);
    if (r < 0) {
        free(segment);
        return r;
    }
    a->bytes += size;
    *ret_segment = a->segments.count - 1;
    return 0;
}

int arena_add(struct arena *a, size_t size, uint64_t *ret_place)
{
    size_t segment;
    int r;

    if (size > ARENA_OWN) {
        r = arena_grow(a, size, &segment);
        if (r < 0)
            return r;
        *ret_place = (uint64_t)segment << PLACE_OFFSET_BITS;
        return 0;
    }
    if (size > a->left) {
        r = arena_grow(a, ARENA_SEGMENT, &segment);
        if (r < 0)
            return r;
        a->current = segment;
        a->left = ARENA_SEGMENT;
    }
    *ret_place = (uint64_t)a->current << PLACE_OFFSET_BITS | (ARENA_SEGMENT - a->left);
    a->left -= size;
    return 0;
}

uint8_t *arena_at(const struct arena *a, uint64_t place)
{
    return a->segments.at[place >> PLACE_OFFSET_BITS] + (place & PLACE_OFFSET_MASK);
}

struct arena_mark arena_mark(const struct arena *a)
{
    return (struct arena_mark){a->segments.count, a->current, a->left, a->bytes};
}

void arena_reset(struct arena *a, struct arena_mark mark)
{
    while (a->segments.count > mark.count)
        free(a->segments.at[--a->segments.count]);
    a->current = mark.current;
    a->left = mark.left;
    a->bytes = mark.bytes;
}

void arena_release(struct arena *a)
{
    for (size_t i = 0; i < a->segments.count; i++)
        free(a->segments.at[i]);
    vec_release(&a->segments);
}
