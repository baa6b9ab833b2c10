/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The open cell of an object, for whoever reads and writes it.
 */
#ifndef CACHE_CACHE_OBJECT_H
#define CACHE_CACHE_OBJECT_H

#include "cache/cache-internal.h"

/* Use its cell; made if it is missing and `make`. -ENOENT: it is missing. Release it again. */
int object_acquire(struct cache_object *o, bool make, struct cell **ret);
void object_release(struct cache_object *o, struct cell *cell);
/* It is of no use any more: the next acquire opens anew. The caller still releases it. */
void object_discard(struct cache_object *o, struct cell *cell);
/* Its name is gone: what is written there nobody finds. */
bool object_is_gone(const struct cell *cell);

#endif
