/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Damaged ranges of the packs of one version, and the files that lie in them.
 */
#ifndef CLI_DAMAGE_H
#define CLI_DAMAGE_H

#include "cli/cli-internal.h"

/* A range of a pack's data that is not what was written, or cannot be read. */
struct damage_range {
    uint32_t pack; /* number in the manifest */
    uint64_t offset, size;
    char why[160];
};

struct damage {
    VEC(struct damage_range) ranges; /* by pack, then offset */
};

/* 0 or -ENOMEM. A range that goes on where the last one ended, for the same reason, is joined. */
int damage_add(struct damage *d, uint32_t pack, uint64_t offset, uint64_t size, const char *why);
void damage_release(struct damage *d);

/* Read one object whole, leaf by leaf, and add what does not match. `pack`: number for the ranges.
 * 0, -ENOMEM or -ECANCELED. `progress` is moved on by the bytes of the object. */
int damage_check_object(struct store *store, char letter, const struct object_ref *ref,
                        uint32_t pack, struct progress *progress, struct damage *d);

/* Walk the tree and tell each file that names a damaged range, in the order of paths. Stops as `fn`
 * says. 0 or an error of the walk. */
typedef int damage_file_fn(void *ctx, const char *path, size_t length);
int damage_each_file(const struct damage *d, struct view *view, damage_file_fn *fn, void *ctx);

#endif
