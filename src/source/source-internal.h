/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the sources share: building listings.
 */
#ifndef SOURCE_SOURCE_INTERNAL_H
#define SOURCE_SOURCE_INTERNAL_H

#include "source/source.h"

#include "base/vec.h"

/* A listing as it grows. Texts lie in pieces of memory that never move, so that a directory of a
 * million entries is not copied. Zero is a fresh one. */
struct listing_builder {
    VEC(struct source_entry) entries;
    struct listing_piece *pieces; /* newest first; owned */
};

/* Add one child; name and target (may be NULL) are copied. 0 or -ENOMEM. */
int listing_add(struct listing_builder *b, const char *name, const struct source_stat *stat,
                const char *target);
/* Give the child that was added last its pin; the texts are copied. 0 or -ENOMEM. */
int listing_pin(struct listing_builder *b, const struct source_pin *pin);
/* Hand everything over to *ret; the builder is fresh again. */
void listing_finish(struct listing_builder *b, struct source_listing *ret);
void listing_builder_release(struct listing_builder *b);

static inline void auto_listing_builder_release(struct listing_builder *b)
{
    listing_builder_release(b);
}

/* `location` is copied. 0 or -ENOMEM. */
int source_init(struct source *s, const struct source_ops *ops, const char *location,
                bool inodes_stable);

/* Do inode numbers and ctimes of this file system (statfs's f_type) identify content? */
bool source_directory_inodes_stable(uint64_t fs_type);

#endif
