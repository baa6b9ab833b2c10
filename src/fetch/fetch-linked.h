/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Linked devices: bytes that lie in the objects of a source, found through a table of links. Inside
 * fetch/ only: a fetch_object stands in front of each.
 *
 * A piece is at most FETCH_PIECE bytes of one object, at multiples of that from where it begins on
 * the device: what a leaf is of a pack, but without a digest. What keeps bytes right is the pin of
 * the object: its version id, or its ETag by If-Match.
 *
 * Threads: any number.
 */
#ifndef FETCH_FETCH_LINKED_H
#define FETCH_FETCH_LINKED_H

#include "fetch/fetch.h"

#define FETCH_PIECE PACK_LEAF_MAX

struct fetch_linked;

/* `table`: a fetch_object of kind PACK_KIND_LINKS, taken over also on failure; `table_size` its
 * data's size. `blocks`: of the device. */
int fetch_linked_new(struct fetch_object *table, const char *key, uint64_t table_size,
                     uint64_t blocks, fetch_source_fn *open, void *open_ctx,
                     struct fetch_linked **ret);
void fetch_linked_free(struct fetch_linked *l);
AUTO_FREE_FUNC(struct fetch_linked, fetch_linked_free);

int fetch_linked_place(struct fetch_linked *l, struct link_place *ret);
/* What covers `offset` of the device; may read the table. -EPROTO: nothing does, or the table
 * breaks its format. `page_hint`: page of the table, or FETCH_NO_HINT. */
int fetch_linked_find(struct fetch_linked *l, uint64_t offset, uint64_t page_hint,
                      struct fetch_link *ret);
/* `size` bytes at `within` of what the link has. A source that is not what it was: -ESTALE or
 * -ENOENT, and a line in the log that says what became of it. */
int fetch_linked_get(struct fetch_linked *l, const struct fetch_link *link, uint64_t within,
                     void *data, size_t size);
/* Any range of the device: what is left of an object's last block reads as zeros. */
int fetch_linked_read(struct fetch_linked *l, uint64_t offset, void *data, size_t size,
                      uint64_t page_hint);

#endif
