/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What writer and readers have in common: where the parts of a pack stand, and a blob's identity.
 *
 * The shape of a pack follows from three numbers; whatever else a trailer or a manifest says is
 * compared with it, so there is one place where the arithmetic on foreign numbers is done.
 */
#include "pack/pack-internal.h"

#include <string.h>

static uint64_t divide_up(uint64_t a, uint64_t b)
{
    return a / b + (a % b != 0);
}

int pack_shape_of(uint32_t kind, uint64_t data_size, uint64_t leaf_count, struct pack_shape *ret)
{
    bool is_index = kind == PACK_KIND_INDEX || kind == PACK_KIND_LINKS; /* leaves of one size */
    uint64_t blocks = data_size / PACK_BLOCK;
    uint32_t leaf_size = is_index ? PACK_INDEX_LEAF : PACK_LEAF_MAX;

    if (kind != PACK_KIND_DATA && !is_index)
        return -EPROTO;
    if (data_size % PACK_BLOCK != 0 || data_size > (is_index ? PACK_INDEX_MAX : PACK_DATA_MAX))
        return -EPROTO;
    /* Bounds the number of leaves by that of blocks, so nothing below can overflow. */
    if (leaf_count == 0 || leaf_count > blocks ||
        leaf_count < divide_up(blocks, leaf_size / PACK_BLOCK))
        return -EPROTO;
    if (is_index && leaf_count != divide_up(data_size, leaf_size))
        return -EPROTO;

    struct pack_shape s = {
        .kind = (enum pack_kind)kind,
        .data_size = data_size,
        .leaf_count = leaf_count,
        .leaf_size = leaf_size,
        .page_count = (uint32_t)divide_up(leaf_count, PACK_PAGE_LEAVES),
    };
    if (s.page_count > PACK_GROUP_PAGES)
        s.group_count = (uint32_t)divide_up(s.page_count, PACK_PAGE_LEAVES);
    s.entry_count = s.group_count ? s.group_count : s.page_count;
    s.groups_offset = data_size + (uint64_t)s.page_count * PACK_PAGE;
    s.trailer_offset = s.groups_offset + (uint64_t)s.group_count * PACK_PAGE;
    s.trailer_length = PACK_HEADER + s.entry_count * PACK_ROW;
    if (s.trailer_length > PACK_TRAILER_MAX)
        return -EPROTO;
    *ret = s;
    return 0;
}

bool pack_is_zero(const uint8_t *p, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        if (p[i] != 0)
            return false;
    }
    return true;
}

uint32_t rows_find(const uint8_t *rows, uint32_t count, uint64_t block)
{
    uint32_t low = 0, high = count;

    while (high - low > 1) {
        uint32_t middle = low + (high - low) / 2;
        if (row_block(rows + (size_t)middle * PACK_ROW) <= block)
            low = middle;
        else
            high = middle;
    }
    return low;
}

#define AT_ONCE 16u /* leaves */

size_t pack_make_leaves(const void *blob, size_t at, size_t end, struct pack_leaf *ret)
{
    const uint8_t *data = blob;
    struct digest digests[AT_ONCE];
    size_t count = 0;

    while (end - at >= PACK_LEAF_MAX) {
        size_t n = (end - at) / PACK_LEAF_MAX;
        n = n < AT_ONCE ? n : AT_ONCE;
        digest_of_many(data + at, PACK_LEAF_MAX, n, digests);
        for (size_t i = 0; i < n; i++, at += PACK_LEAF_MAX)
            ret[count++] = (struct pack_leaf){digests[i], PACK_LEAF_MAX, at == 0};
    }
    if (at < end)
        ret[count++] =
            (struct pack_leaf){digest_of(data + at, end - at), (uint32_t)(end - at), at == 0};
    return count;
}

struct digest pack_blob_id(const struct pack_leaf *leaves, size_t count)
{
    uint8_t text[24 + PACK_BLOB_LEAVES * DIGEST_SIZE] = "grid blob v1";
    uint64_t length = 0;

    if (count == 0 || count > PACK_BLOB_LEAVES)
        abort(); /* callers cut files at PACK_BLOB_MAX */
    if (count == 1)
        return leaves[0].digest;
    for (size_t i = 0; i < count; i++) {
        length += leaves[i].length;
        memcpy(text + 24 + i * DIGEST_SIZE, leaves[i].digest.byte, DIGEST_SIZE);
    }
    le64_put(text + 16, length);
    struct digest id = digest_of(text, 24 + count * DIGEST_SIZE);
    /* Inverted, since a one-leaf file could consist of just this text. */
    for (size_t i = 0; i < DIGEST_SIZE; i++)
        id.byte[i] ^= 0xff;
    return id;
}
