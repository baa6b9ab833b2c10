/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Linking: while the walk goes through the source, each file gets blocks on a device that has no
 * bytes, and the device's table says which object stands there. Nothing is read but the listing.
 *
 * The table goes to the store as it is made, so what is kept is the tree alone. A device that is
 * full is ended, and the next one begins; an object may go on there, at a border of chunks.
 */
#include "publish/publish-link.h"
#include "publish/publish-shelf.h"

#include "link/link.h"

#include <inttypes.h>
#include <stdio.h>

struct linking {
    struct publish *p;
    struct link_place place;
    struct store_upload *upload; /* NULL: no table is open */
    struct link_writer *writer;
    uint16_t number; /* of the device in p->packs */
};

/* ---- life -------------------------------------------------------------------------------------
 */

static int copy(char *to, size_t size, const char *from)
{
    int n = snprintf(to, size, "%s", from ? from : "");

    return n >= 0 && (size_t)n < size ? 0 : -ENAMETOOLONG;
}

static int place_of(const struct source_bucket *b, struct link_place *ret)
{
    const char *how = b->addressing ? b->addressing : "auto";
    int r = copy(ret->bucket, sizeof ret->bucket, b->bucket);

    if (r == 0)
        r = copy(ret->prefix, sizeof ret->prefix, b->prefix);
    if (r == 0)
        r = copy(ret->endpoint, sizeof ret->endpoint, b->endpoint);
    if (r == 0)
        r = copy(ret->region, sizeof ret->region, b->region);
    ret->addressing = strcmp(how, "path") == 0      ? LINK_ADDRESSING_PATH
                      : strcmp(how, "virtual") == 0 ? LINK_ADDRESSING_VIRTUAL
                                                    : LINK_ADDRESSING_AUTO;
    return r;
}

int linking_new(struct publish *p, struct linking **ret, struct err *err)
{
    const struct source_bucket *b = source_bucket(p->source);

    if (!b)
        return err_fail(err, -EINVAL, "only what lies in a bucket can be linked; %s is copied",
                        p->source->location);
    AUTO(linking_free) struct linking *l = calloc(1, sizeof *l);
    if (!l)
        return err_fail(err, -ENOMEM, "out of memory");
    l->p = p;
    int r = place_of(b, &l->place);
    if (r < 0)
        return err_fail(err, r, "cannot link %s: its name or endpoint is too long",
                        p->source->location);
    *ret = take_ptr(&l);
    return 0;
}

void linking_free(struct linking *l)
{
    if (!l)
        return;
    link_writer_free(l->writer);
    store_upload_abort(l->upload);
    free(l);
}

/* ---- one device -------------------------------------------------------------------------------
 */

static int to_store(void *ctx, const void *data, size_t size)
{
    struct linking *l = ctx;

    return store_upload_write(l->upload, data, size);
}

static int store_failed(const struct linking *l, int r, struct err *err)
{
    return err_fail(err, r, "cannot write the table of links to %s: %s", l->p->store->location,
                    store_error(l->p->store, r));
}

static int begin_device(struct linking *l, struct err *err)
{
    struct publish *p = l->p;
    struct publish_pack pack = {.state = PACK_OPEN, .of_session = true};
    char key[OBJECT_KEY_MAX];

    pack.ref.session = *upload_session(p->upload);
    pack.ref.seq = upload_next_seq(p->upload, 'p');
    pack.ref.born = upload_version(p->upload);
    pack.ref.linked = true;
    object_ref_key('p', &pack.ref, key);
    int r = publish_add_pack(p, &pack, &l->number, err);
    if (r < 0)
        return r;
    r = link_writer_new(&l->place, p->o->linked_blocks_max, to_store, l, &l->writer);
    if (r == 0)
        r = store_upload(p->store, key, &l->upload);
    return r < 0 ? store_failed(l, r, err) : 0;
}

static int end_device(struct linking *l, struct err *err)
{
    struct publish *p = l->p;
    struct object_ref *ref = &p->packs.at[l->number].ref;
    struct pack_summary summary;

    int r = link_writer_finish(l->writer, &summary, &ref->used_blocks);
    link_writer_free(take_ptr(&l->writer));
    if (r == 0)
        r = store_upload_commit(take_ptr(&l->upload));
    if (r < 0)
        return store_failed(l, r, err);
    shelf_set_summary(ref, &summary);
    p->result.bytes_stored += summary.length;
    p->progress.bytes_stored += summary.length;
    return 0;
}

/* ---- files ------------------------------------------------------------------------------------
 */

/* The place of `left` bytes of the object, or of as many as the device has room for. */
static int add_run(struct linking *l, struct link_row *row, uint64_t left, struct tree_chunk *ret,
                   struct err *err)
{
    uint32_t block, page;

    row->length = l->writer ? link_writer_room(l->writer, left) : 0;
    int r = row->length > 0 ? link_writer_add(l->writer, row, &block, &page) : -EFBIG;
    if (r == -EFBIG) {
        r = l->writer ? end_device(l, err) : 0;
        if (r == 0)
            r = begin_device(l, err);
        if (r < 0)
            return r;
        row->length = link_writer_room(l->writer, left);
        r = link_writer_add(l->writer, row, &block, &page);
    }
    if (r == -EINVAL)
        return err_fail(err, r, "cannot link %s%.*s: the bucket does not say what it is now",
                        l->place.prefix, (int)row->key.size, (const char *)row->key.data);
    if (r < 0)
        return store_failed(l, r, err);
    *ret = (struct tree_chunk){.block = block, .leaf = page, .pack = l->number};
    return 0;
}

static int add_large(struct linking *l, struct tree_node *n, struct link_row *row, struct err *err)
{
    struct tree *tree = l->p->tree;
    struct tree_chunk run;
    uint32_t first;

    int r = tree_add_chunks(tree, (size_t)tree_chunk_count(n->size), &first);
    if (r < 0)
        return err_fail(err, r, "out of memory");
    while (row->offset < n->size) {
        r = add_run(l, row, n->size - row->offset, &run, err);
        if (r < 0)
            return r;
        for (uint64_t at = 0; at < row->length; at += PACK_BLOB_MAX) {
            uint32_t chunk = first + (uint32_t)((row->offset + at) / PACK_BLOB_MAX);
            *tree_chunk(tree, chunk) = run;
            run.block += PACK_BLOB_MAX / PACK_BLOCK;
        }
        row->offset += row->length;
    }
    n->pack = TREE_PACK_MANY;
    n->ref = first;
    return 0;
}

int linking_add(struct linking *l, struct tree_node *n, const struct source_entry *e,
                struct err *err)
{
    const struct source_pin *pin = &e->pin;
    size_t prefix = strlen(l->place.prefix);
    struct tree_chunk place;

    if (!pin->key || strncmp(pin->key, l->place.prefix, prefix) != 0)
        return err_fail(err, -EINVAL, "cannot link %s: it is no object below s3://%s/%s", e->name,
                        l->place.bucket, l->place.prefix);
    if (n->size == 0) {
        n->pack = TREE_PACK_NONE;
        return 0;
    }
    struct link_row row = {
        .size = n->size,
        .mtime_ms = e->stat.mtime.s * 1000 + e->stat.mtime.ns / 1000000,
        .key = bytes_str(pin->key + prefix),
        .etag = bytes_str(pin->etag ? pin->etag : ""),
        .version = bytes_str(pin->version_id ? pin->version_id : ""),
    };
    if (n->size > PACK_BLOB_MAX)
        return add_large(l, n, &row, err);
    int r = add_run(l, &row, n->size, &place, err);
    if (r < 0)
        return r;
    n->pack = place.pack;
    n->ref = place.block;
    n->leaf = place.leaf;
    return 0;
}

int linking_finish(struct linking *l, struct err *err)
{
    return l->writer ? end_device(l, err) : 0;
}
