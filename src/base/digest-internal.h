/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Shared by digest.c and digest-pair.c: two digests at once, where the CPU has instructions for it.
 */
#ifndef BASE_DIGEST_INTERNAL_H
#define BASE_DIGEST_INTERNAL_H

#include "base/digest.h"

bool digest_has_pairs(void);
/* Only if it has. */
void digest_pair(const void *a, const void *b, size_t size, struct digest ret[static 2]);

#endif
