/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Checking packs as they lie in the store, every byte against its digest.
 *
 * Not through fetch: a reader stops at the first wrong leaf, here all of them are wanted. Data is
 * read in order, in large pieces. Padding between leaves is nobody's data and is not checked.
 */
#include "cli/damage.h"

#include "pack/pack.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* One get: large enough that a store's round trip does not count. */
#define WINDOW (4u << 20)
/* A store that is wrong from end to end must not fill the memory with sentences. */
#define RANGES_MAX 100000u

/* Does the new range belong to the last one? */
static bool joins(const struct damage *d, const struct damage_range *last, uint64_t offset,
                  const char *why)
{
    if (d->ranges.count >= RANGES_MAX)
        return true; /* coarser, but nothing is left out */
    return last->offset + last->size >= offset && strcmp(last->why, why) == 0;
}

int damage_add(struct damage *d, uint32_t pack, uint64_t offset, uint64_t size, const char *why)
{
    struct damage_range row = {.pack = pack, .offset = offset, .size = size};

    if (d->ranges.count) {
        struct damage_range *last = &d->ranges.at[d->ranges.count - 1];
        if (last->pack == pack && joins(d, last, offset, why)) {
            last->size = offset + size - last->offset;
            return 0;
        }
    }
    (void)snprintf(row.why, sizeof row.why, "%s", why);
    return vec_push(&d->ranges, row);
}

void damage_release(struct damage *d)
{
    vec_release(&d->ranges);
}

/* ---- one object ---- */

struct check {
    struct store *store;
    char key[OBJECT_KEY_MAX];
    const struct object_ref *ref;
    uint32_t pack;
    struct damage *damage;
    struct progress *progress;
    uint8_t *window; /* bytes of the object, from window_offset */
    uint64_t window_offset;
    size_t window_size;
    int window_error;    /* why it is empty */
    uint64_t checked_to; /* end of the last leaf, offset in the data */
};

static int read_exactly(struct store *store, const char *key, uint64_t offset, void *data,
                        size_t size)
{
    size_t n;
    int r = store_get(store, key, offset, data, size, &n, NULL);

    if (r < 0)
        return r;
    return n == size ? 0 : -EBADMSG;
}

static int read_table(void *ctx, uint64_t offset, void *data, size_t size)
{
    struct check *c = ctx;
    return read_exactly(c->store, c->key, offset, data, size);
}

/* Have [offset, offset + size) in the window; leaves come in ascending order. */
static int want(struct check *c, uint64_t offset, size_t size)
{
    if (offset >= c->window_offset && offset + size <= c->window_offset + c->window_size)
        return 0;
    c->window_offset = offset;
    c->window_size = 0;
    return store_get(c->store, c->key, offset, c->window, WINDOW, &c->window_size, NULL);
}

static int check_leaf(void *ctx, const struct pack_leaf_at *leaf)
{
    struct check *c = ctx;
    uint64_t offset = leaf->block * PACK_BLOCK;
    const char *why = NULL;

    if (interrupt_signal)
        return -ECANCELED;
    int r = want(c, offset, leaf->leaf.length);
    size_t at = (size_t)(offset - c->window_offset);
    if (r < 0) {
        why = strerror(-r);
    } else if (at + leaf->leaf.length > c->window_size) {
        why = "the object ends early";
    } else {
        struct digest digest = digest_of(c->window + at, leaf->leaf.length);
        if (!digest_equal(&digest, &leaf->leaf.digest))
            why = "the bytes do not match their digest";
    }
    c->progress->bytes += offset + leaf->leaf.length - c->checked_to;
    c->checked_to = offset + leaf->leaf.length;
    progress_show(c->progress);
    return why ? damage_add(c->damage, c->pack, offset, leaf->leaf.length, why) : 0;
}

static int read_trailer(struct check *c, enum pack_kind kind, struct pack_trailer **ret,
                        struct err *err)
{
    const struct object_ref *ref = c->ref;
    struct pack_summary summary = {.digest = ref->digest,
                                   .length = ref->length,
                                   .data_size = ref->data_size,
                                   .leaf_count = ref->leaf_count,
                                   .trailer_offset = object_ref_trailer_offset(ref),
                                   .trailer_length = ref->trailer_length};
    AUTO(free_ptr) uint8_t *bytes = NULL;

    if (ref->trailer_length > PACK_TRAILER_MAX || ref->trailer_length > ref->length)
        return err_fail(err, -EPROTO, "the manifest names an impossible trailer");
    bytes = malloc(ref->trailer_length ? ref->trailer_length : 1);
    if (!bytes)
        return -ENOMEM;
    int r = read_exactly(c->store, c->key, summary.trailer_offset, bytes, ref->trailer_length);
    if (r == -ENOENT)
        return err_fail(err, r, "the object is missing");
    if (r == -EBADMSG)
        return err_fail(err, r, "the object ends early");
    if (r < 0)
        return r;
    return pack_trailer_parse(bytes_of(bytes, ref->trailer_length), kind, &summary, ret, err);
}

static int check_leaves(struct check *c, enum pack_kind kind, struct err *err)
{
    AUTO(pack_trailer_free) struct pack_trailer *trailer = NULL;
    int r = read_trailer(c, kind, &trailer, err);

    if (r < 0)
        return r;
    r = pack_each_leaf(trailer, read_table, c, check_leaf, c);
    if (r == -EBADMSG || r == -EPROTO)
        return err_fail(err, r, "the leaf table does not match its digest");
    return r;
}

int damage_check_object(struct store *store, char letter, const struct object_ref *ref,
                        uint32_t pack, struct progress *progress, struct damage *d)
{
    AUTO(free_ptr) uint8_t *window = malloc(WINDOW);
    struct check c = {.store = store,
                      .ref = ref,
                      .pack = pack,
                      .damage = d,
                      .progress = progress,
                      .window = window};
    struct err err = ERR_INIT;
    char why[160];

    if (!window)
        return -ENOMEM;
    object_ref_key(letter, ref, c.key);
    int r = check_leaves(&c,
                         letter == 'x' ? PACK_KIND_INDEX
                         : ref->linked ? PACK_KIND_LINKS
                                       : PACK_KIND_DATA,
                         &err);
    if (r == -ECANCELED || r == -ENOMEM)
        return r;
    if (c.checked_to < ref->data_size)
        progress->bytes += ref->data_size - c.checked_to;
    if (r == 0)
        return 0;
    /* What could not be checked counts as damaged. */
    (void)snprintf(why, sizeof why, "%s", err_text(&err, r));
    return damage_add(d, pack, c.checked_to, ref->data_size - c.checked_to, why);
}

/* ---- files ---- */

static bool is_damaged(const struct damage *d, uint32_t pack, uint64_t offset, uint64_t size)
{
    size_t low = 0, high = d->ranges.count;

    /* The first range that ends behind `offset`. */
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        const struct damage_range *r = &d->ranges.at[middle];
        if (r->pack < pack || (r->pack == pack && r->offset + r->size <= offset))
            low = middle + 1;
        else
            high = middle;
    }
    return low < d->ranges.count && d->ranges.at[low].pack == pack &&
           d->ranges.at[low].offset < offset + size;
}

/* 1 if any chunk lies in a damaged range. */
static int file_is_damaged(const struct damage *d, const struct view *view,
                           const struct index_inode *file)
{
    struct index_extent e;

    for (uint64_t offset = 0; offset < file->size; offset = e.chunk_offset + e.chunk_size) {
        int r = index_map(view_index(view), file, offset, &e);
        if (r < 0)
            return r;
        if (e.device && is_damaged(d, e.device - 1, e.block * INDEX_BLOCK, e.chunk_size))
            return 1;
        if (e.chunk_offset + e.chunk_size <= offset)
            return -EPROTO;
    }
    return 0;
}

int damage_each_file(const struct damage *d, struct view *view, damage_file_fn *fn, void *ctx)
{
    AUTO(walk_free) struct walk *walk = NULL;
    struct index_inode root;
    struct walk_item item;
    int r = view_inode(view, INDEX_ROOT_NID, &root);

    if (r == 0)
        r = walk_new(view, &root, &walk);
    while (r == 0 && (r = walk_next(walk, &item)) == 1) {
        r = 0;
        if (item.inode.type == INDEX_FILE)
            r = file_is_damaged(d, view, &item.inode);
        if (r == 1)
            r = fn(ctx, item.path, item.path_length);
    }
    return r;
}
