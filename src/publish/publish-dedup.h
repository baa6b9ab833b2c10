/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which contents are stored already, and where: 16 bytes a blob. Inside publish/ only.
 *
 * A blob is known by 8 bytes of its digest, so a hit is only a suggestion: the caller compares the
 * full digests before it believes it. Threads: one at a time.
 */
#ifndef PUBLISH_PUBLISH_DEDUP_H
#define PUBLISH_PUBLISH_DEDUP_H

#include "base/cleanup.h"
#include "base/digest.h"

#include <stdbool.h>
#include <stdint.h>

struct dedup;

struct dedup_place {
    uint32_t block;
    uint16_t pack; /* publish's number */
};

int dedup_new(uint64_t max_blobs, struct dedup **ret);
void dedup_free(struct dedup *d);
AUTO_FREE_FUNC(struct dedup, dedup_free);

bool dedup_find(const struct dedup *d, const struct digest *id, struct dedup_place *ret);
/* The first place of a blob counts. Beyond the maximum nothing is remembered: that costs room in
 * the store, not correctness. 0 or -ENOMEM. */
int dedup_add(struct dedup *d, const struct digest *id, struct dedup_place place);
uint64_t dedup_count(const struct dedup *d);
uint64_t dedup_memory(const struct dedup *d);

#endif
