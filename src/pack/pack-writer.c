/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writes a pack as a stream: data goes straight to the sink, table and trailer follow at the end.
 *
 * Only the rows of the leaf table are kept (40 bytes a leaf). A writer refuses what a reader would
 * refuse, so a pack that was finished can be read.
 */
#include "pack/pack-internal.h"

#include "base/vec.h"

#include <string.h>

struct pack_writer {
    enum pack_kind kind;
    pack_sink_fn *sink;
    void *ctx;
    struct segvec rows; /* of the leaf table, PACK_ROW bytes each */
    uint64_t data_size;
    uint32_t last_length; /* of the last leaf; 0 before the first */
    uint32_t blob_leaves; /* of the blob that the last leaf belongs to */
    int failed;           /* the error that ended it */
    bool finished;
};

int pack_writer_new(enum pack_kind kind, pack_sink_fn *sink, void *ctx, struct pack_writer **ret)
{
    if (kind != PACK_KIND_DATA && kind != PACK_KIND_INDEX && kind != PACK_KIND_LINKS)
        return -EINVAL;
    struct pack_writer *w = calloc(1, sizeof *w);
    if (!w)
        return -ENOMEM;
    w->kind = kind;
    w->sink = sink;
    w->ctx = ctx;
    segvec_init(&w->rows, PACK_ROW);
    *ret = w;
    return 0;
}

void pack_writer_free(struct pack_writer *w)
{
    if (!w)
        return;
    segvec_release(&w->rows);
    free(w);
}

uint64_t pack_writer_data_size(const struct pack_writer *w)
{
    return w->data_size;
}

/* Where the writer would stand behind some more leaves. */
struct position {
    uint32_t last_length, blob_leaves;
    uint64_t size; /* of the added data */
};

static bool leaf_may_follow(enum pack_kind kind, const struct position *at,
                            const struct pack_leaf *leaf)
{
    if (kind != PACK_KIND_DATA)
        return leaf->length >= 1 && leaf->length <= PACK_INDEX_LEAF && !leaf->starts_blob &&
               (at->last_length == 0 || at->last_length == PACK_INDEX_LEAF);
    if (leaf->length < 1 || leaf->length > PACK_LEAF_MAX)
        return false;
    return leaf->starts_blob ||
           (at->last_length == PACK_LEAF_MAX && at->blob_leaves < PACK_BLOB_LEAVES);
}

static int leaves_check(const struct pack_writer *w, const struct pack_leaf *leaves, size_t count,
                        const uint8_t *data, size_t size, struct position *ret)
{
    struct position at = {.last_length = w->last_length, .blob_leaves = w->blob_leaves};

    for (size_t i = 0; i < count; i++) {
        if (!leaf_may_follow(w->kind, &at, &leaves[i]))
            return -EINVAL;
        uint64_t padded = pack_blocks(leaves[i].length) * PACK_BLOCK;
        if (padded > size - at.size ||
            !pack_is_zero(data + at.size + leaves[i].length, padded - leaves[i].length))
            return -EINVAL;
        at.size += padded;
        at.last_length = leaves[i].length;
        at.blob_leaves = leaves[i].starts_blob ? 1 : at.blob_leaves + 1;
    }
    if (at.size != size)
        return -EINVAL;
    *ret = at;
    return 0;
}

static bool has_room(const struct pack_writer *w, size_t count, size_t size)
{
    bool is_index = w->kind != PACK_KIND_DATA;

    if (size > (is_index ? PACK_INDEX_MAX : PACK_DATA_MAX) - w->data_size)
        return false;
    return is_index || count <= PACK_LEAVES_MAX - w->rows.count;
}

int pack_writer_add(struct pack_writer *w, const struct pack_leaf *leaves, size_t count,
                    const void *data, size_t size, uint64_t *ret_block, uint64_t *ret_leaf)
{
    struct position at;
    size_t first;

    if (w->failed)
        return w->failed;
    if (w->finished || count == 0)
        return -EINVAL;
    if (!has_room(w, count, size))
        return -EFBIG;
    int r = leaves_check(w, leaves, count, data, size, &at);
    if (r < 0)
        return r;
    r = segvec_add(&w->rows, count, &first);
    if (r == 0)
        r = w->sink(w->ctx, data, size);
    if (r < 0) {
        w->failed = r;
        return r;
    }
    uint64_t block = w->data_size / PACK_BLOCK;
    *ret_block = block;
    *ret_leaf = first;
    for (size_t i = 0; i < count; i++) {
        uint8_t *row = segvec_at(&w->rows, first + i);
        memcpy(row, leaves[i].digest.byte, DIGEST_SIZE);
        le32_put(row + ROW_BLOCK, (uint32_t)block);
        le32_put(row + ROW_INFO, leaves[i].length | (leaves[i].starts_blob ? ROW_STARTS : 0));
        block += pack_blocks(leaves[i].length);
    }
    w->data_size += size;
    w->last_length = at.last_length;
    w->blob_leaves = at.blob_leaves;
    return 0;
}

/* Write the rows as pages, several at a time, and make a row of each page in `ret_above`. */
static int write_table(struct pack_writer *w, const struct segvec *rows, struct segvec *ret_above)
{
    AUTO(free_ptr) uint8_t *pages = malloc((size_t)PACK_BATCH_PAGES * PACK_PAGE);
    uint32_t filled = 0;

    if (!pages)
        return -ENOMEM;
    for (size_t i = 0; i < rows->count;) {
        uint8_t *page = pages + (size_t)filled * PACK_PAGE;
        uint32_t n = rows_in_page(rows->count, (uint32_t)(i / PACK_PAGE_LEAVES));
        size_t number;

        memset(page, 0, PACK_PAGE);
        for (uint32_t k = 0; k < n; k++)
            memcpy(page + (size_t)k * PACK_ROW, segvec_at(rows, i + k), PACK_ROW);
        int r = segvec_add(ret_above, 1, &number);
        if (r < 0)
            return r;
        struct digest d = digest_of(page, PACK_PAGE);
        uint8_t *row = segvec_at(ret_above, number);
        memcpy(row, d.byte, DIGEST_SIZE);
        le32_put(row + ROW_BLOCK, row_block(page));
        i += n;
        if (++filled == PACK_BATCH_PAGES || i == rows->count) {
            r = w->sink(w->ctx, pages, (size_t)filled * PACK_PAGE);
            if (r < 0)
                return r;
            filled = 0;
        }
    }
    return 0;
}

static int write_trailer(struct pack_writer *w, const struct pack_shape *s,
                         const struct segvec *entries, struct digest *ret)
{
    AUTO(free_ptr) uint8_t *t = calloc(1, s->trailer_length);

    if (!t)
        return -ENOMEM;
    memcpy(t + HEADER_MAGIC, PACK_MAGIC, 8);
    le32_put(t + HEADER_VERSION, PACK_VERSION);
    le32_put(t + HEADER_KIND, s->kind);
    le64_put(t + HEADER_DATA_SIZE, s->data_size);
    le64_put(t + HEADER_LEAF_COUNT, s->leaf_count);
    le32_put(t + HEADER_PAGE_COUNT, s->page_count);
    le32_put(t + HEADER_LEVELS, s->group_count ? 2 : 1);
    le32_put(t + HEADER_ENTRY_COUNT, s->entry_count);
    le32_put(t + HEADER_LEAF_SIZE, s->leaf_size);
    for (uint32_t i = 0; i < s->entry_count; i++)
        memcpy(t + PACK_HEADER + (size_t)i * PACK_ROW, segvec_at(entries, i), PACK_ROW);
    *ret = digest_of(t, s->trailer_length);
    return w->sink(w->ctx, t, s->trailer_length);
}

static int write_end(struct pack_writer *w, const struct pack_shape *s, struct segvec *pages,
                     struct segvec *groups, struct digest *ret)
{
    int r = write_table(w, &w->rows, pages);
    if (r == 0 && s->group_count)
        r = write_table(w, pages, groups);
    if (r == 0)
        r = write_trailer(w, s, s->group_count ? groups : pages, ret);
    return r;
}

int pack_writer_finish(struct pack_writer *w, struct pack_summary *ret)
{
    struct segvec pages, groups;
    struct pack_shape s;
    struct digest digest;

    if (w->failed)
        return w->failed;
    if (w->finished || pack_shape_of(w->kind, w->data_size, w->rows.count, &s) < 0)
        return -EINVAL;
    segvec_init(&pages, PACK_ROW);
    segvec_init(&groups, PACK_ROW);
    int r = write_end(w, &s, &pages, &groups, &digest);
    segvec_release(&pages);
    segvec_release(&groups);
    w->finished = true;
    if (r < 0) {
        w->failed = r;
        return r;
    }
    *ret = (struct pack_summary){
        .digest = digest,
        .length = s.trailer_offset + s.trailer_length,
        .data_size = s.data_size,
        .leaf_count = s.leaf_count,
        .trailer_offset = s.trailer_offset,
        .trailer_length = s.trailer_length,
    };
    return 0;
}
