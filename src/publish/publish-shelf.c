/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading packs back from the store.
 *
 * Leaf tables are read in lines of 16 pages, since blobs that are looked up one after the other
 * mostly lie together; a page is verified against the trailer each time it is used, which costs
 * less than keeping account of it. The oldest line, or trailer, makes room for the next.
 */
#include "publish/publish-shelf.h"

#include "base/err.h"

#include <string.h>

#define TRAILERS    64u /* of 40 KB each, typically */
#define LINES       64u
#define LINE_SIZE   (16u * PACK_PAGE)
#define VERIFY_SIZE (8u << 20) /* data is verified in pieces */

struct trailer_row {
    struct session_id session;
    uint32_t seq;
    uint64_t used; /* tick; 0: free */
    struct pack_trailer *trailer;
};

struct line_row {
    struct session_id session;
    uint32_t seq, size;
    uint64_t offset, used;
    uint8_t *data; /* owned; LINE_SIZE */
};

struct shelf {
    struct store *store;
    uint64_t tick;
    struct trailer_row trailers[TRAILERS];
    struct line_row lines[LINES];
};

int shelf_new(struct store *store, struct shelf **ret)
{
    struct shelf *s = calloc(1, sizeof *s);

    if (!s)
        return -ENOMEM;
    s->store = store;
    *ret = s;
    return 0;
}

void shelf_free(struct shelf *s)
{
    if (!s)
        return;
    for (size_t i = 0; i < TRAILERS; i++)
        pack_trailer_free(s->trailers[i].trailer);
    for (size_t i = 0; i < LINES; i++)
        free(s->lines[i].data);
    free(s);
}

struct pack_summary shelf_summary(const struct object_ref *ref)
{
    return (struct pack_summary){
        .digest = ref->digest,
        .length = ref->length,
        .data_size = ref->data_size,
        .leaf_count = ref->leaf_count,
        .trailer_offset = object_ref_trailer_offset(ref),
        .trailer_length = ref->trailer_length,
    };
}

void shelf_set_summary(struct object_ref *ref, const struct pack_summary *summary)
{
    ref->digest = summary->digest;
    ref->length = summary->length;
    ref->data_size = summary->data_size;
    ref->leaf_count = summary->leaf_count;
    ref->trailer_length = summary->trailer_length;
}

uint64_t shelf_table_size(const struct object_ref *pack)
{
    return pack->length - pack->data_size;
}

/* Exactly `size` bytes, or an error. */
static int read_whole(const struct shelf *s, const struct object_ref *pack, uint64_t offset,
                      void *data, size_t size)
{
    char key[OBJECT_KEY_MAX];
    size_t got;

    object_ref_key('p', pack, key);
    int r = store_get(s->store, key, offset, data, size, &got, NULL);
    if (r < 0)
        return r;
    return got == size ? 0 : -EBADMSG;
}

static bool is_same(const struct session_id *session, uint32_t seq, const struct object_ref *pack)
{
    return seq == pack->seq && memcmp(session->byte, pack->session.byte, 16) == 0;
}

static int get_trailer(struct shelf *s, const struct object_ref *pack,
                       const struct pack_trailer **ret)
{
    struct trailer_row *oldest = &s->trailers[0];
    struct pack_summary summary = shelf_summary(pack);
    struct pack_trailer *trailer;

    for (size_t i = 0; i < TRAILERS; i++) {
        struct trailer_row *row = &s->trailers[i];
        if (row->used && is_same(&row->session, row->seq, pack)) {
            row->used = ++s->tick;
            *ret = row->trailer;
            return 0;
        }
        if (row->used < oldest->used)
            oldest = row;
    }
    if (pack->trailer_length > PACK_TRAILER_MAX || pack->trailer_length > pack->length)
        return -EPROTO;
    AUTO(free_ptr) void *bytes = malloc(pack->trailer_length + (size_t)1);
    if (!bytes)
        return -ENOMEM;
    int r = read_whole(s, pack, summary.trailer_offset, bytes, pack->trailer_length);
    if (r == 0)
        r = pack_trailer_parse(bytes_of(bytes, pack->trailer_length), PACK_KIND_DATA, &summary,
                               &trailer, NULL);
    if (r < 0)
        return r;
    pack_trailer_free(oldest->trailer);
    *oldest = (struct trailer_row){pack->session, pack->seq, ++s->tick, trailer};
    *ret = trailer;
    return 0;
}

/* ---- one leaf ---------------------------------------------------------------------------------
 */

static int load_line(const struct shelf *s, const struct object_ref *pack, uint64_t offset,
                     struct line_row *row)
{
    uint64_t end = object_ref_trailer_offset(pack);

    if (offset >= end)
        return -EPROTO;
    if (!row->data)
        row->data = malloc(LINE_SIZE);
    if (!row->data)
        return -ENOMEM;
    row->used = 0; /* free, should the read fail */
    row->size = (uint32_t)(end - offset < LINE_SIZE ? end - offset : LINE_SIZE);
    int r = read_whole(s, pack, offset, row->data, row->size);
    if (r == 0) {
        row->session = pack->session;
        row->seq = pack->seq;
        row->offset = offset;
    }
    return r;
}

/* A page of the table; valid until the next call. */
static int get_page(struct shelf *s, const struct object_ref *pack,
                    const struct pack_trailer *trailer, const struct pack_page_ref *ref,
                    const uint8_t **ret)
{
    struct line_row *row = NULL, *oldest = &s->lines[0];

    for (size_t i = 0; i < LINES && !row; i++) {
        struct line_row *l = &s->lines[i];
        if (l->used && is_same(&l->session, l->seq, pack) && ref->offset >= l->offset &&
            ref->offset - l->offset + PACK_PAGE <= l->size)
            row = l;
        else if (l->used < oldest->used)
            oldest = l;
    }
    if (!row) {
        int r = load_line(s, pack, ref->offset, oldest);
        if (r < 0)
            return r;
        row = oldest;
        if (ref->offset - row->offset + PACK_PAGE > row->size)
            return -EPROTO;
    }
    row->used = ++s->tick;
    *ret = row->data + (ref->offset - row->offset);
    return pack_page_verify(trailer, ref, *ret);
}

int shelf_leaf(struct shelf *s, const struct object_ref *pack, uint64_t block,
               struct pack_leaf_at *ret)
{
    const struct pack_trailer *trailer;
    struct pack_page_ref group_ref, ref;
    uint8_t group[PACK_PAGE];
    const uint8_t *page;
    bool groups;

    int r = get_trailer(s, pack, &trailer);
    if (r < 0)
        return r;
    groups = pack_trailer_has_groups(trailer);
    if (groups) {
        r = pack_trailer_find_group(trailer, block, &group_ref);
        if (r == 0)
            r = get_page(s, pack, trailer, &group_ref, &page);
        if (r == 0)
            memcpy(group, page, sizeof group);
    }
    if (r == 0)
        r = pack_trailer_find_page(trailer, groups ? group : NULL, groups ? &group_ref : NULL,
                                   block, &ref);
    if (r == 0)
        r = get_page(s, pack, trailer, &ref, &page);
    return r < 0 ? r : pack_page_find(trailer, page, ref.number, block, ret);
}

/* ---- all leaves -------------------------------------------------------------------------------
 */

struct reading {
    struct shelf *s;
    const struct object_ref *pack;
    /* blobs: */
    shelf_blob_fn *fn;
    void *ctx;
    struct pack_leaf *leaves; /* owned; of the blob that is being gathered */
    size_t leaf_count;
    struct shelf_blob blob;
    /* verification: */
    uint8_t *data; /* owned; VERIFY_SIZE */
    uint64_t data_offset;
    size_t data_size;
    bool (*stop)(void *ctx);
    void *stop_ctx;
};

#define BLOB_LEAVES (PACK_BLOB_MAX / PACK_LEAF_MAX)

static int read_table(void *ctx, uint64_t offset, void *data, size_t size)
{
    const struct reading *rd = ctx;

    return read_whole(rd->s, rd->pack, offset, data, size);
}

static int end_blob(struct reading *rd)
{
    if (rd->leaf_count == 0)
        return 0;
    rd->blob.id = pack_blob_id(rd->leaves, rd->leaf_count);
    rd->leaf_count = 0;
    return rd->fn(rd->ctx, &rd->blob);
}

static int gather_leaf(void *ctx, const struct pack_leaf_at *at)
{
    struct reading *rd = ctx;

    if (at->leaf.starts_blob) {
        int r = end_blob(rd);
        if (r != 0)
            return r;
        rd->blob = (struct shelf_blob){.block = at->block, .leaf = at->number};
    }
    if (rd->leaf_count == BLOB_LEAVES)
        return -EPROTO;
    rd->leaves[rd->leaf_count++] = at->leaf;
    rd->blob.size += at->leaf.length;
    return 0;
}

int shelf_each_blob(struct shelf *s, const struct object_ref *pack, shelf_blob_fn *fn, void *ctx)
{
    struct reading rd = {.s = s, .pack = pack, .fn = fn, .ctx = ctx};
    const struct pack_trailer *trailer;
    AUTO(free_ptr) void *memory = malloc(BLOB_LEAVES * sizeof *rd.leaves);

    if (!memory)
        return -ENOMEM;
    rd.leaves = memory;
    int r = get_trailer(s, pack, &trailer);
    if (r == 0)
        r = pack_each_leaf(trailer, read_table, &rd, gather_leaf, &rd);
    return r != 0 ? r : end_blob(&rd);
}

static int verify_leaf(void *ctx, const struct pack_leaf_at *at)
{
    struct reading *rd = ctx;
    uint64_t offset = at->block * PACK_BLOCK, end = offset + at->leaf.length;

    if (rd->data_size == 0 || end > rd->data_offset + rd->data_size) {
        uint64_t left = rd->pack->data_size - offset;
        if (rd->stop && rd->stop(rd->stop_ctx))
            return -ECANCELED;
        rd->data_offset = offset;
        rd->data_size = (size_t)(left < VERIFY_SIZE ? left : VERIFY_SIZE);
        int r = read_whole(rd->s, rd->pack, offset, rd->data, rd->data_size);
        if (r < 0)
            return r;
    }
    struct digest d = digest_of(rd->data + (offset - rd->data_offset), at->leaf.length);
    return digest_equal(&d, &at->leaf.digest) ? 0 : -EBADMSG;
}

int shelf_verify(struct shelf *s, const struct object_ref *pack, bool (*stop)(void *ctx),
                 void *stop_ctx)
{
    struct reading rd = {.s = s, .pack = pack, .stop = stop, .stop_ctx = stop_ctx};
    const struct pack_trailer *trailer;
    AUTO(free_ptr) void *memory = malloc(VERIFY_SIZE);

    if (!memory)
        return -ENOMEM;
    rd.data = memory;
    int r = get_trailer(s, pack, &trailer);
    return r < 0 ? r : pack_each_leaf(trailer, read_table, &rd, verify_leaf, &rd);
}
