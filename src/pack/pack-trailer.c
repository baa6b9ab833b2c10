/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Parses a trailer, and finds pages with it.
 *
 * The digest comes first, so all that follows was once written by somebody; still every field is
 * compared with what the format says, since that somebody may be hostile. A parsed trailer holds
 * only rows that ascend and stay inside the data, so the searches need no further checks.
 */
#include "pack/pack-internal.h"

#include <string.h>

static int header_check(const uint8_t *h, enum pack_kind kind, struct pack_shape *ret,
                        struct err *err)
{
    if (memcmp(h + HEADER_MAGIC, PACK_MAGIC, 8) != 0)
        return err_fail(err, -EPROTO, "this is not the trailer of a pack");
    uint32_t version = le32_get(h + HEADER_VERSION);
    if (version > PACK_VERSION)
        return err_fail(err, -EPROTONOSUPPORT,
                        "the pack is of format %u, newer than this program knows (%u)", version,
                        PACK_VERSION);
    if (version != PACK_VERSION)
        return err_fail(err, -EPROTO, "the pack says that its format is %u", version);
    if (le32_get(h + HEADER_KIND) != (uint32_t)kind)
        return err_fail(err, -EPROTO, "the pack is of kind %u instead of %u",
                        le32_get(h + HEADER_KIND), (unsigned)kind);
    uint64_t data_size = le64_get(h + HEADER_DATA_SIZE), leaves = le64_get(h + HEADER_LEAF_COUNT);
    if (pack_shape_of(kind, data_size, leaves, ret) < 0)
        return err_fail(err, -EPROTO, "no pack has %llu bytes of data in %llu leaves",
                        (unsigned long long)data_size, (unsigned long long)leaves);
    if (le32_get(h + HEADER_PAGE_COUNT) != ret->page_count ||
        le32_get(h + HEADER_LEVELS) != (ret->group_count ? 2u : 1u) ||
        le32_get(h + HEADER_ENTRY_COUNT) != ret->entry_count ||
        le32_get(h + HEADER_LEAF_SIZE) != ret->leaf_size)
        return err_fail(err, -EPROTO, "the pack's trailer contradicts itself");
    if (le32_get(h + HEADER_RESERVED) != 0 ||
        !pack_is_zero(h + HEADER_TAIL, PACK_HEADER - HEADER_TAIL))
        return err_fail(err, -EPROTO, "a reserved field of the pack's trailer is in use");
    return 0;
}

static int summary_check(const struct pack_shape *s, const struct pack_summary *expect,
                         struct err *err)
{
    if (s->data_size != expect->data_size || s->leaf_count != expect->leaf_count ||
        s->trailer_offset != expect->trailer_offset ||
        s->trailer_length != expect->trailer_length ||
        s->trailer_offset + s->trailer_length != expect->length)
        return err_fail(err, -EPROTO, "the pack's trailer contradicts what names the pack");
    return 0;
}

/* Rows of pages: from `first`, strictly ascending, below `end`. */
static bool page_rows_are_valid(const uint8_t *rows, uint32_t count, uint64_t first, uint64_t end)
{
    uint64_t least = first;

    for (uint32_t i = 0; i < count; i++, rows += PACK_ROW) {
        uint64_t block = row_block(rows);
        if (block < least || block >= end || (i == 0 && block != first) ||
            le32_get(rows + ROW_INFO) != 0)
            return false;
        least = block + 1;
    }
    return true;
}

int pack_trailer_parse(struct bytes bytes, enum pack_kind kind, const struct pack_summary *expect,
                       struct pack_trailer **ret, struct err *err)
{
    struct pack_shape shape;

    if (bytes.size != expect->trailer_length || bytes.size < PACK_HEADER ||
        bytes.size > PACK_TRAILER_MAX)
        return err_fail(err, -EBADMSG, "the pack's trailer has %zu bytes instead of %u", bytes.size,
                        expect->trailer_length);
    struct digest digest = digest_of(bytes.data, bytes.size);
    if (!digest_equal(&digest, &expect->digest))
        return err_fail(err, -EBADMSG, "the pack's trailer is damaged: its digest is wrong");

    const uint8_t *h = bytes.data, *rows = h + PACK_HEADER;
    int r = header_check(h, kind, &shape, err);
    if (r == 0)
        r = summary_check(&shape, expect, err);
    if (r < 0)
        return r;
    if (!page_rows_are_valid(rows, shape.entry_count, 0, shape.data_size / PACK_BLOCK))
        return err_fail(err, -EPROTO, "the rows of the pack's trailer are not in order");

    size_t size = (size_t)shape.entry_count * PACK_ROW; /* the rest of `bytes`, as was checked */
    struct pack_trailer *t = malloc(sizeof *t + size);
    if (!t)
        return err_fail(err, -ENOMEM, "not enough memory for a pack's trailer of %zu bytes", size);
    t->shape = shape;
    memcpy(t->entries, rows, size);
    *ret = t;
    return 0;
}

void pack_trailer_free(struct pack_trailer *t)
{
    free(t);
}

uint64_t pack_trailer_data_size(const struct pack_trailer *t)
{
    return t->shape.data_size;
}

uint64_t pack_trailer_leaf_count(const struct pack_trailer *t)
{
    return t->shape.leaf_count;
}

uint32_t pack_trailer_page_count(const struct pack_trailer *t)
{
    return t->shape.page_count;
}

bool pack_trailer_has_groups(const struct pack_trailer *t)
{
    return t->shape.group_count > 0;
}

void trailer_entry(const struct pack_trailer *t, uint32_t number, struct pack_page_ref *ret)
{
    const struct pack_shape *s = &t->shape;
    const uint8_t *row = t->entries + (size_t)number * PACK_ROW;
    bool is_group = s->group_count > 0;

    *ret = (struct pack_page_ref){
        .number = number,
        .is_group = is_group,
        .offset = (is_group ? s->groups_offset : s->data_size) + (uint64_t)number * PACK_PAGE,
        .first_block = row_block(row),
        .end_block =
            number + 1 < s->entry_count ? row_block(row + PACK_ROW) : s->data_size / PACK_BLOCK,
    };
    memcpy(ret->digest.byte, row, DIGEST_SIZE);
}

uint32_t group_page_count(const struct pack_trailer *t, uint32_t number)
{
    return rows_in_page(t->shape.page_count, number);
}

void group_entry(const struct pack_trailer *t, const uint8_t *group,
                 const struct pack_page_ref *group_ref, uint32_t row, struct pack_page_ref *ret)
{
    const uint8_t *p = group + (size_t)row * PACK_ROW;
    uint32_t number = group_ref->number * PACK_PAGE_LEAVES + row;

    *ret = (struct pack_page_ref){
        .number = number,
        .offset = t->shape.data_size + (uint64_t)number * PACK_PAGE,
        .first_block = row_block(p),
        .end_block = row + 1 < group_page_count(t, group_ref->number) ? row_block(p + PACK_ROW)
                                                                      : group_ref->end_block,
    };
    memcpy(ret->digest.byte, p, DIGEST_SIZE);
}

int pack_group_check(const struct pack_trailer *t, const struct pack_page_ref *ref,
                     const uint8_t *page)
{
    uint32_t count = group_page_count(t, ref->number);
    size_t used = (size_t)count * PACK_ROW;

    if (count == 0 || !page_rows_are_valid(page, count, ref->first_block, ref->end_block) ||
        !pack_is_zero(page + used, PACK_PAGE - used))
        return -EPROTO;
    return 0;
}

int pack_trailer_find_group(const struct pack_trailer *t, uint64_t block, struct pack_page_ref *ret)
{
    if (t->shape.group_count == 0)
        return -EINVAL;
    if (block >= t->shape.data_size / PACK_BLOCK)
        return -ENOENT;
    trailer_entry(t, rows_find(t->entries, t->shape.entry_count, block), ret);
    return 0;
}

int pack_trailer_find_page(const struct pack_trailer *t, const void *group,
                           const struct pack_page_ref *group_ref, uint64_t block,
                           struct pack_page_ref *ret)
{
    bool has_groups = t->shape.group_count > 0;

    if (has_groups != (group != NULL) || has_groups != (group_ref != NULL))
        return -EINVAL;
    if (!has_groups) {
        if (block >= t->shape.data_size / PACK_BLOCK)
            return -ENOENT;
        trailer_entry(t, rows_find(t->entries, t->shape.entry_count, block), ret);
        return 0;
    }
    uint32_t count = group_page_count(t, group_ref->number);
    if (!group_ref->is_group || count == 0)
        return -EINVAL;
    if (block < group_ref->first_block || block >= group_ref->end_block)
        return -ENOENT;
    group_entry(t, group, group_ref, rows_find(group, count, block), ret);
    return 0;
}

int pack_trailer_page(const struct pack_trailer *t, uint32_t number, struct pack_page_ref *ret)
{
    if (t->shape.group_count > 0 || number >= t->shape.page_count)
        return -EINVAL;
    trailer_entry(t, number, ret);
    return 0;
}

int pack_trailer_group(const struct pack_trailer *t, uint32_t number, struct pack_page_ref *ret)
{
    if (number >= t->shape.group_count)
        return -EINVAL;
    trailer_entry(t, number, ret);
    return 0;
}

int pack_group_page(const struct pack_trailer *t, const void *group,
                    const struct pack_page_ref *group_ref, uint32_t page, struct pack_page_ref *ret)
{
    if (t->shape.group_count == 0 || page >= t->shape.page_count ||
        page / PACK_PAGE_LEAVES != group_ref->number)
        return -EINVAL;
    group_entry(t, group, group_ref, page % PACK_PAGE_LEAVES, ret);
    return 0;
}
