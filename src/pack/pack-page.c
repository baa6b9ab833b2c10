/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Verifies pages, reads the rows of leaf pages, and walks the whole table.
 *
 * A page that passed tiles its blocks exactly, so the accessors and searches trust its rows. What
 * one page cannot show (a blob that goes on from the page before) is checked by the walk.
 */
#include "pack/pack-internal.h"

#include <string.h>

/* May a leaf of this length and mark stand behind one of length `before` (0: unknown)? */
static bool leaf_is_valid(const struct pack_shape *s, uint64_t number, uint32_t before,
                          const uint8_t *row)
{
    uint32_t info = le32_get(row + ROW_INFO), length = info & ROW_LENGTH;
    bool starts = info & ROW_STARTS;

    if ((info & ~(ROW_LENGTH | ROW_STARTS)) != 0 || length == 0 || length > s->leaf_size)
        return false;
    if (s->kind != PACK_KIND_DATA)
        return !starts && (length == s->leaf_size || number + 1 == s->leaf_count);
    return starts || (number > 0 && (before == 0 || before == s->leaf_size));
}

static int leaves_check(const struct pack_trailer *t, const struct pack_page_ref *ref,
                        const uint8_t *page)
{
    uint32_t count = pack_page_leaf_count(t, ref->number), before = 0;
    uint64_t number = (uint64_t)ref->number * PACK_PAGE_LEAVES, block = ref->first_block;
    const uint8_t *row = page;

    if (count == 0)
        return -EPROTO;
    for (uint32_t i = 0; i < count; i++, row += PACK_ROW) {
        if (row_block(row) != block || !leaf_is_valid(&t->shape, number + i, before, row))
            return -EPROTO;
        before = row_length(row);
        block += pack_blocks(before);
        if (block > ref->end_block)
            return -EPROTO;
    }
    if (block != ref->end_block)
        return -EPROTO;
    return pack_is_zero(row, (size_t)(page + PACK_PAGE - row)) ? 0 : -EPROTO;
}

int pack_page_verify(const struct pack_trailer *t, const struct pack_page_ref *ref,
                     const void *page)
{
    struct digest digest = digest_of(page, PACK_PAGE);

    if (!digest_equal(&digest, &ref->digest))
        return -EBADMSG;
    return ref->is_group ? pack_group_check(t, ref, page) : leaves_check(t, ref, page);
}

uint32_t pack_page_leaf_count(const struct pack_trailer *t, uint32_t page_number)
{
    return rows_in_page(t->shape.leaf_count, page_number);
}

struct pack_leaf_at pack_page_leaf(const void *page, uint32_t page_number, uint32_t row)
{
    const uint8_t *p = (const uint8_t *)page + (size_t)row * PACK_ROW;
    struct pack_leaf_at at = {
        .leaf = {.length = row_length(p), .starts_blob = row_starts_blob(p)},
        .number = (uint64_t)page_number * PACK_PAGE_LEAVES + row,
        .block = row_block(p),
    };

    memcpy(at.leaf.digest.byte, p, DIGEST_SIZE);
    return at;
}

int pack_page_find(const struct pack_trailer *t, const void *page, uint32_t page_number,
                   uint64_t block, struct pack_leaf_at *ret)
{
    uint32_t count = pack_page_leaf_count(t, page_number);

    if (count == 0 || block < row_block(page))
        return -ENOENT;
    struct pack_leaf_at at = pack_page_leaf(page, page_number, rows_find(page, count, block));
    if (block - at.block >= pack_blocks(at.leaf.length))
        return -ENOENT;
    *ret = at;
    return 0;
}

struct walk {
    const struct pack_trailer *t;
    pack_read_fn *read;
    void *read_ctx;
    pack_leaf_fn *fn;
    void *ctx;
    uint8_t *groups, *pages; /* owned; PACK_BATCH_PAGES each; groups only with two levels */
    uint32_t last_length;    /* of the leaf before; 0 at the start */
    uint32_t blob_leaves;    /* so far, of the blob that it belongs to */
};

static int walk_page(struct walk *w, const struct pack_page_ref *ref, const uint8_t *page)
{
    uint32_t count = pack_page_leaf_count(w->t, ref->number);
    bool has_blobs = w->t->shape.kind == PACK_KIND_DATA;

    int r = pack_page_verify(w->t, ref, page);
    if (r < 0)
        return r;
    for (uint32_t i = 0; i < count; i++) {
        struct pack_leaf_at at = pack_page_leaf(page, ref->number, i);
        w->blob_leaves = at.leaf.starts_blob ? 1 : w->blob_leaves + 1;
        if (has_blobs && !at.leaf.starts_blob &&
            (w->last_length != PACK_LEAF_MAX || w->blob_leaves > PACK_BLOB_LEAVES))
            return -EPROTO;
        w->last_length = at.leaf.length;
        r = w->fn(w->ctx, &at);
        if (r != 0)
            return r;
    }
    return 0;
}

/* Pages `first` up to `end`, which are all of one group if there are groups. */
static int walk_pages(struct walk *w, const uint8_t *group, const struct pack_page_ref *group_ref,
                      uint32_t first, uint32_t end)
{
    struct pack_page_ref ref;
    uint32_t start = first;

    for (uint32_t number = first; number < end; number++) {
        uint32_t slot = (number - start) % PACK_BATCH_PAGES;
        if (slot == 0) {
            uint32_t n = end - number < PACK_BATCH_PAGES ? end - number : PACK_BATCH_PAGES;
            int r = w->read(w->read_ctx, w->t->shape.data_size + (uint64_t)number * PACK_PAGE,
                            w->pages, (size_t)n * PACK_PAGE);
            if (r < 0)
                return r;
        }
        if (group)
            group_entry(w->t, group, group_ref, number - start, &ref);
        else
            trailer_entry(w->t, number, &ref);
        int r = walk_page(w, &ref, w->pages + (size_t)slot * PACK_PAGE);
        if (r != 0)
            return r;
    }
    return 0;
}

static int walk_groups(struct walk *w)
{
    uint32_t count = w->t->shape.group_count;
    struct pack_page_ref ref;

    for (uint32_t g = 0; g < count; g++) {
        uint32_t slot = g % PACK_BATCH_PAGES, first = g * PACK_PAGE_LEAVES;
        const uint8_t *group = w->groups + (size_t)slot * PACK_PAGE;
        if (slot == 0) {
            uint32_t n = count - g < PACK_BATCH_PAGES ? count - g : PACK_BATCH_PAGES;
            int r = w->read(w->read_ctx, w->t->shape.groups_offset + (uint64_t)g * PACK_PAGE,
                            w->groups, (size_t)n * PACK_PAGE);
            if (r < 0)
                return r;
        }
        trailer_entry(w->t, g, &ref);
        int r = pack_page_verify(w->t, &ref, group);
        if (r == 0)
            r = walk_pages(w, group, &ref, first, first + group_page_count(w->t, g));
        if (r != 0)
            return r;
    }
    return 0;
}

int pack_each_leaf(const struct pack_trailer *t, pack_read_fn *read, void *read_ctx,
                   pack_leaf_fn *fn, void *ctx)
{
    bool has_groups = t->shape.group_count > 0;
    AUTO(free_ptr)
    uint8_t *buffer = malloc((size_t)PACK_BATCH_PAGES * PACK_PAGE * (has_groups ? 2 : 1));
    struct walk w = {t, read, read_ctx, fn, ctx, buffer, buffer, 0, 0};

    if (!buffer)
        return -ENOMEM;
    if (!has_groups)
        return walk_pages(&w, NULL, NULL, 0, t->shape.page_count);
    w.pages += (size_t)PACK_BATCH_PAGES * PACK_PAGE;
    return walk_groups(&w);
}
