/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Growth of VEC and SEGVEC. See vec.h.
 */
#include "base/vec.h"

#include <string.h>

int vec_grow(void **at, size_t *capacity, size_t item_size)
{
    size_t more = *capacity ? *capacity * 2 : 8;
    void *p;

    if (more > SIZE_MAX / item_size)
        return -ENOMEM;
    p = realloc(*at, more * item_size);
    if (!p)
        return -ENOMEM;
    *at = p;
    *capacity = more;
    return 0;
}

void segvec_init(struct segvec *v, size_t item_size)
{
    *v = (struct segvec){.item_size = item_size};
}

void segvec_release(struct segvec *v)
{
    for (size_t i = 0; i < v->segment_count; i++)
        free(v->segments[i]);
    free(v->segments);
    *v = (struct segvec){.item_size = v->item_size};
}

int segvec_add(struct segvec *v, size_t n, size_t *ret_first)
{
    size_t need = (v->count + n + SEGVEC_ROWS - 1) / SEGVEC_ROWS;

    while (v->segment_count < need) {
        if (v->segment_count == v->segment_capacity) {
            void *p = v->segments;
            if (vec_grow(&p, &v->segment_capacity, sizeof *v->segments) < 0)
                return -ENOMEM;
            v->segments = p;
        }
        uint8_t *segment = calloc(SEGVEC_ROWS, v->item_size);
        if (!segment)
            return -ENOMEM;
        v->segments[v->segment_count++] = segment;
    }
    *ret_first = v->count;
    v->count += n;
    return 0;
}
