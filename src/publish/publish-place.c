/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Deduplication and packing of one blob after the other.
 *
 * Eight bytes of a digest suggest where a content may be; the digests of all its leaves decide, in
 * memory for packs that are being made, else by the leaf table in the store. Does not know files.
 */
#include "publish/publish-place.h"

#include "publish/publish-dedup.h"
#include "publish/publish-making.h"
#include "publish/publish-shelf.h"

/* Leaf tables are read for deduplication as long as that is less than what is to be read. */
#define TABLES_LEAST (UINT64_C(64) << 20)

struct placer {
    struct publish *p;
    struct making *making;
    struct shelf *shelf;
    struct dedup *dedup;
};

/* ---- what is known already --------------------------------------------------------------------
 */

struct filling {
    struct placer *pl;
    uint16_t pack;
};

static int remember(void *ctx, const struct shelf_blob *blob)
{
    const struct filling *f = ctx;

    return dedup_add(f->pl->dedup, &blob->id,
                     (struct dedup_place){.block = (uint32_t)blob->block, .pack = f->pack});
}

/* Newest packs first: what is published again was most likely there the last time. */
static int fill_dedup(struct placer *pl, struct err *err)
{
    struct publish *p = pl->p;
    uint64_t budget = p->pending_bytes + TABLES_LEAST;

    for (size_t i = p->packs.count; i > 0; i--) {
        const struct publish_pack *pack = &p->packs.at[i - 1];
        struct filling f = {pl, (uint16_t)(i - 1)};
        if (pack->state != PACK_USABLE || shelf_table_size(&pack->ref) > budget)
            continue;
        budget -= shelf_table_size(&pack->ref);
        int r = shelf_each_blob(pl->shelf, &pack->ref, remember, &f);
        if (r == -ENOMEM)
            return err_fail(err, r, "out of memory");
        /* Whatever else is wrong with it: its contents are stored anew. */
        if (publish_interrupted(p))
            return err_fail(err, -ECANCELED, "interrupted");
    }
    return 0;
}

static bool leaf_matches(struct placer *pl, uint16_t number, uint64_t block,
                         const struct pack_leaf *leaf, uint32_t *ret_number)
{
    struct pack_leaf_at at;
    int r = making_has_leaf(pl->making, number, block, leaf, ret_number);

    if (r != -ENOENT)
        return r == 1;
    if (shelf_leaf(pl->shelf, &pl->p->packs.at[number].ref, block, &at) < 0)
        return false;
    *ret_number = (uint32_t)at.number;
    return at.block == block && at.leaf.length == leaf->length &&
           digest_equal(&at.leaf.digest, &leaf->digest);
}

static bool find_known(struct placer *pl, const struct placer_blob *b, struct tree_chunk *ret)
{
    struct dedup_place place;
    uint32_t first = 0, number;

    if (!dedup_find(pl->dedup, b->id, &place))
        return false;
    uint64_t block = place.block;
    for (size_t i = 0; i < b->leaf_count; i++) {
        const struct pack_leaf *leaf = &b->leaves[i];
        if (!leaf_matches(pl, place.pack, block, leaf, &number))
            return false;
        if (i == 0)
            first = number;
        block += pack_blocks(leaf->length);
    }
    *ret = (struct tree_chunk){.block = place.block, .leaf = first, .pack = place.pack};
    if (pl->p->packs.at[place.pack].state == PACK_USABLE) /* a new one is named when it is closed */
        publish_journal_pack(pl->p, place.pack);
    return true;
}

/* ---- interface --------------------------------------------------------------------------------
 */

int placer_place(struct placer *pl, const struct placer_blob *b, struct tree_chunk *ret,
                 struct err *err)
{
    size_t size = (size_t)(pack_blocks(b->size) * PACK_BLOCK);

    if (find_known(pl, b, ret))
        return 0;
    int r = making_room(pl->making, size, b->leaf_count, err);
    if (r == 0)
        r = making_add(pl->making, b->leaves, b->leaf_count, b->data, size, ret, err);
    if (r < 0)
        return r;
    r = dedup_add(pl->dedup, b->id, (struct dedup_place){.block = ret->block, .pack = ret->pack});
    return r < 0 ? err_fail(err, r, "out of memory") : 0;
}

int placer_flush(struct placer *pl, struct err *err)
{
    return making_flush(pl->making, err);
}

int placer_finish(struct placer *pl, struct err *err)
{
    return making_finish(pl->making, err);
}

int placer_start(struct publish *p, uint64_t blobs, struct placer **ret, struct err *err)
{
    AUTO(placer_free) struct placer *pl = calloc(1, sizeof *pl);

    if (!pl)
        return err_fail(err, -ENOMEM, "out of memory");
    pl->p = p;
    int r = making_start(p, &pl->making);
    if (r == 0)
        r = shelf_new(p->store, &pl->shelf);
    if (r == 0)
        r = dedup_new(blobs, &pl->dedup);
    if (r < 0)
        return err_fail(err, r, "cannot start writing: %s", strerror(-r));
    r = fill_dedup(pl, err);
    if (r == 0)
        *ret = take_ptr(&pl);
    return r;
}

void placer_free(struct placer *pl)
{
    if (!pl)
        return;
    making_free(pl->making);
    shelf_free(pl->shelf);
    dedup_free(pl->dedup);
    free(pl);
}
