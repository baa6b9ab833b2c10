/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Verified bytes of an object as they lie in it, the zeros between its leaves included: what a flat
 * image of a version is made of. Only leaves are ever read; padding is known to be zero.
 */
#include "fetch/fetch-internal.h"

#include <string.h>

/* The leaf whose blocks cover `offset`. */
static int find_leaf(struct fetch_object *o, uint64_t offset, struct pack_leaf_at *ret)
{
    struct fetch_place place;

    for (;;) {
        int r;
        {
            WITH_LOCK(&o->fetch->memory.lock);
            r = fetch_table_find(o, offset, FETCH_NO_HINT, &place);
            if (r == 1)
                *ret = place.at;
        }
        if (r == 0)
            r = fetch_table_load(o, offset, FETCH_NO_HINT);
        if (r != 0)
            return r < 0 ? r : 0;
    }
}

int fetch_read_flat(struct fetch_object *o, uint64_t offset, void *data, size_t size)
{
    uint8_t *to = data;

    if (size > o->summary.data_size || offset > o->summary.data_size - size)
        return -EPROTO;
    if (o->linked)
        return fetch_linked_read(o->linked, offset, data, size, FETCH_NO_HINT);
    while (size > 0) {
        struct pack_leaf_at at = {.number = 0};
        int r = find_leaf(o, offset, &at);
        if (r < 0)
            return r;
        uint64_t end = at.block * PACK_BLOCK + at.leaf.length;
        uint64_t next = (at.block + pack_blocks(at.leaf.length)) * PACK_BLOCK;
        size_t here = next - offset < size ? (size_t)(next - offset) : size;
        size_t data_here = offset < end ? (size_t)(end - offset) : 0;
        data_here = data_here < here ? data_here : here;
        /* All that is wanted, so that what is missing is read at once; it ends at the padding. */
        if (data_here && fetch_read(o, offset, to, size, FETCH_NO_HINT) == 0)
            return 0;
        r = data_here ? fetch_read(o, offset, to, data_here, FETCH_NO_HINT) : 0;
        if (r < 0)
            return r;
        memset(to + data_here, 0, here - data_here);
        to += here;
        offset += here;
        size -= here;
    }
    return 0;
}
