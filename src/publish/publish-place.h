/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where a blob goes: to its place in a pack that has it already, or into the pack that is being
 * made. Inside publish/ only; used by both writers, of trees and of streams. Threads: one.
 */
#ifndef PUBLISH_PUBLISH_PLACE_H
#define PUBLISH_PUBLISH_PLACE_H

#include "publish/publish-internal.h"

struct placer;

/* Learns what the usable packs of `p` hold; of all those, and of what will be stored, at most
 * `blobs` are remembered. */
int placer_start(struct publish *p, uint64_t blobs, struct placer **ret, struct err *err);
void placer_free(struct placer *pl);
AUTO_FREE_FUNC(struct placer, placer_free);

/* A blob as it stands in memory: leaves one behind the other in `data`, `size` bytes and zeros up
 * to the next block. */
struct placer_blob {
    const struct pack_leaf *leaves;
    size_t leaf_count;
    const uint8_t *data; /* borrowed until placer_flush() */
    size_t size;
    const struct digest *id;
};
int placer_place(struct placer *pl, const struct placer_blob *b, struct tree_chunk *ret,
                 struct err *err);
/* Before the memory of blobs is used again. */
int placer_flush(struct placer *pl, struct err *err);
/* All packs are closed and committed. */
int placer_finish(struct placer *pl, struct err *err);

#endif
