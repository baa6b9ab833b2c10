/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Packs that lie in the store, read back: all leaves of one, one leaf by its block, or all of its
 * data to verify it. Inside publish/ only.
 *
 * A bounded cache holds trailers and pages of leaf tables. Threads: one at a time.
 */
#ifndef PUBLISH_PUBLISH_SHELF_H
#define PUBLISH_PUBLISH_SHELF_H

#include "base/cleanup.h"
#include "manifest/manifest.h"
#include "pack/pack.h"
#include "store/store.h"

struct shelf;

int shelf_new(struct store *store, struct shelf **ret); /* store is borrowed */
void shelf_free(struct shelf *s);
AUTO_FREE_FUNC(struct shelf, shelf_free);

/* What has to be known to read a pack back, both ways round. */
struct pack_summary shelf_summary(const struct object_ref *ref);
void shelf_set_summary(struct object_ref *ref, const struct pack_summary *summary);

/* Bytes of its leaf table: what shelf_each_leaf() reads. */
uint64_t shelf_table_size(const struct object_ref *pack);

/* A blob of a pack, with all its leaves. */
struct shelf_blob {
    struct digest id;
    uint64_t block, leaf; /* of its first leaf */
    uint64_t size;        /* bytes */
};
typedef int shelf_blob_fn(void *ctx, const struct shelf_blob *blob);

/* Every blob, in order; the pages are verified, the data is not looked at. */
int shelf_each_blob(struct shelf *s, const struct object_ref *pack, shelf_blob_fn *fn, void *ctx);
/* The same, and every leaf's bytes are digested and compared first. -EBADMSG: they differ. `stop`
 * (may be NULL) is asked now and then; true: -ECANCELED. */
int shelf_verify(struct shelf *s, const struct object_ref *pack, bool (*stop)(void *ctx),
                 void *stop_ctx);

/* The leaf at `block` of the pack. */
int shelf_leaf(struct shelf *s, const struct object_ref *pack, uint64_t block,
               struct pack_leaf_at *ret);

#endif
