/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Packs as they are made: opened, filled, finished, and committed in the background while the next
 * one is being filled. Inside publish/ only.
 *
 * Threads: all calls from the writer; one thread of its own commits.
 */
#ifndef PUBLISH_PUBLISH_MAKING_H
#define PUBLISH_PUBLISH_MAKING_H

#include "publish/publish-internal.h"

#include "pack/pack.h"

struct making;

int making_start(struct publish *p, struct making **ret);
/* Aborts what is not committed. NULL is fine. */
void making_free(struct making *m);
AUTO_FREE_FUNC(struct making, making_free);

/* Make room for a blob: closes the open pack if it would exceed its size, opens the next one. */
int making_room(struct making *m, size_t size, size_t leaf_count, struct err *err);
/* Append a blob, whose bytes lie in `data`, padded. They are borrowed until making_flush(), and
 * should lie behind those of the blob before: then they are written in one go. */
int making_add(struct making *m, const struct pack_leaf *leaves, size_t leaf_count,
               const uint8_t *data, size_t size, struct tree_chunk *ret, struct err *err);
int making_flush(struct making *m, struct err *err);
/* Close the open pack; wait until all are committed. */
int making_finish(struct making *m, struct err *err);

/* Is the leaf at `block` of pack `number` this one? 1, 0; -ENOENT: that pack is not being made. */
int making_has_leaf(struct making *m, uint16_t number, uint64_t block, const struct pack_leaf *leaf,
                    uint32_t *ret_number);

#endif
