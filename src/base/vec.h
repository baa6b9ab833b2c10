/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A growable array of one type, and a segmented one for millions of rows.
 *
 *   VEC(struct row) rows = {0};  vec_push(&rows, row)  rows.at[i]  rows.count  vec_release(&rows)
 *
 * vec_push() gives 0 or -ENOMEM and leaves the vector as it was on failure. Pointers into a VEC are
 * good until the next push. A SEGVEC grows by whole segments: no copy, no doubling (so the peak of
 * memory is what is used), and pointers into it stay good for its life. Threads: one at a time.
 */
#ifndef BASE_VEC_H
#define BASE_VEC_H

#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#define VEC(type)                                                                                  \
    struct {                                                                                       \
        type *at;                                                                                  \
        size_t count, capacity;                                                                    \
    }

int vec_grow(void **at, size_t *capacity, size_t item_size);

#define vec_push(v, item)                                                                          \
    __extension__({                                                                                \
        int vec_r_ = 0;                                                                            \
        if ((v)->count == (v)->capacity) {                                                         \
            void *vec_p_ = (v)->at;                                                                \
            vec_r_ = vec_grow(&vec_p_, &(v)->capacity, sizeof *(v)->at);                           \
            (v)->at = vec_p_;                                                                      \
        }                                                                                          \
        if (vec_r_ == 0)                                                                           \
            (v)->at[(v)->count++] = (item);                                                        \
        vec_r_;                                                                                    \
    })

#define vec_release(v)                                                                             \
    do {                                                                                           \
        free((v)->at);                                                                             \
        (v)->at = NULL;                                                                            \
        (v)->count = (v)->capacity = 0;                                                            \
    } while (0)

/* Rows of `item_size` bytes, zeroed when added, addressed by number. */
struct segvec {
    uint8_t **segments; /* owned */
    size_t segment_count, segment_capacity;
    size_t count;
    size_t item_size; /* fixed after init */
};

#define SEGVEC_ROWS 4096u /* rows per segment */

void segvec_init(struct segvec *v, size_t item_size);
void segvec_release(struct segvec *v);
/* Add `n` zeroed rows; *ret_first is the number of the first. 0 or -ENOMEM (nothing added). */
int segvec_add(struct segvec *v, size_t n, size_t *ret_first);

static inline void *segvec_at(const struct segvec *v, size_t i)
{
    return v->segments[i / SEGVEC_ROWS] + (i % SEGVEC_ROWS) * v->item_size;
}

#endif
