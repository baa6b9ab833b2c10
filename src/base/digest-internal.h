/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Shared by digest.c, digest-pair.c and digest-wide.c: several digests at once, where the CPU has
 * instructions for it.
 */
#ifndef BASE_DIGEST_INTERNAL_H
#define BASE_DIGEST_INTERNAL_H

#include "base/digest.h"

bool digest_has_pairs(void);
/* Only if it has. */
void digest_pair(const void *a, const void *b, size_t size, struct digest ret[static 2]);

#define DIGEST_WIDE 16u
bool digest_has_wide(void);
/* Of up to DIGEST_WIDE pieces in a row, each of whole blocks. Only if it has. */
void digest_wide(const void *data, size_t size, size_t count, struct digest *ret);

extern const uint32_t digest_round_constants[64], digest_first_state[8];

#endif
