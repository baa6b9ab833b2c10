/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzzes the verification of pages, the searches in them, and the walk over all leaves.
 *
 * The input is a trailer, then a group page if the trailer says two levels, then a leaf page. Their
 * digests are forged bottom up, for the first page and for the last one, so that the fuzzer gets
 * past them; in the walk every page is the same one.
 */
#include "fuzz-target.h"

#include "base/le.h"
#include "pack/pack.h"

#include <string.h>

#define TRAILER_MAX 8192u

struct forged {
    uint8_t trailer[TRAILER_MAX];
    uint8_t group[PACK_PAGE];
    size_t trailer_size;
    bool has_group;
    const uint8_t *leaves;
};

static void forge(uint8_t *row, const uint8_t *page)
{
    struct digest d = digest_of(page, PACK_PAGE);
    memcpy(row, d.byte, DIGEST_SIZE);
}

static struct pack_trailer *parse(const struct forged *f)
{
    const uint8_t *h = f->trailer;
    struct pack_trailer *t = NULL;
    uint64_t pages = (uint64_t)le32_get(h + 32) + (f->has_group ? le32_get(h + 40) : 0);
    struct pack_summary s = {
        .digest = digest_of(h, f->trailer_size),
        .data_size = le64_get(h + 16),
        .leaf_count = le64_get(h + 24),
        .trailer_length = (uint32_t)f->trailer_size,
    };

    s.trailer_offset = s.data_size + pages * PACK_PAGE;
    s.length = s.trailer_offset + f->trailer_size;
    enum pack_kind kind = le32_get(h + 12) == PACK_KIND_INDEX ? PACK_KIND_INDEX : PACK_KIND_DATA;
    (void)pack_trailer_parse(bytes_of(h, f->trailer_size), kind, &s, &t, NULL); /* t says it */
    return t;
}

static void use_leaves(const struct pack_trailer *t, const struct pack_page_ref *ref,
                       const uint8_t *page)
{
    uint32_t count = pack_page_leaf_count(t, ref->number);
    struct pack_leaf_at at, found;
    uint64_t next = ref->first_block;

    for (uint32_t i = 0; i < count; i++) {
        at = pack_page_leaf(page, ref->number, i);
        uint64_t end = at.block + pack_blocks(at.leaf.length);
        FUZZ_REQUIRE(at.block == next && end <= ref->end_block && end > at.block);
        FUZZ_REQUIRE(end * PACK_BLOCK <= pack_trailer_data_size(t));
        FUZZ_REQUIRE(at.number < pack_trailer_leaf_count(t));
        FUZZ_REQUIRE(pack_page_find(t, page, ref->number, at.block, &found) == 0);
        FUZZ_REQUIRE(found.number == at.number);
        FUZZ_REQUIRE(pack_page_find(t, page, ref->number, end - 1, &found) == 0);
        FUZZ_REQUIRE(found.number == at.number);
        next = end;
    }
    FUZZ_REQUIRE(next == ref->end_block);
    FUZZ_REQUIRE(pack_page_find(t, page, ref->number, next, &found) == -ENOENT);
}

static int read_forged(void *ctx, uint64_t offset, void *data, size_t size)
{
    const struct forged *f = ctx;
    uint64_t groups = le64_get(f->trailer + 16) + (uint64_t)le32_get(f->trailer + 32) * PACK_PAGE;

    for (size_t i = 0; i < size; i += PACK_PAGE)
        memcpy((uint8_t *)data + i, offset >= groups ? f->group : f->leaves, PACK_PAGE);
    return 0;
}

static int count_leaf(void *ctx, const struct pack_leaf_at *at)
{
    uint64_t *count = ctx;
    FUZZ_REQUIRE(at->number == *count);
    ++*count;
    return 0;
}

static void use_pack(struct forged *f, const struct pack_trailer *t, uint64_t block)
{
    struct pack_page_ref group_ref, ref;
    const uint8_t *group = NULL;
    uint64_t leaves = 0;

    if (f->has_group) {
        if (pack_trailer_find_group(t, block, &group_ref) < 0 ||
            pack_page_verify(t, &group_ref, f->group) < 0)
            return;
        group = f->group;
    }
    if (pack_trailer_find_page(t, group, group ? &group_ref : NULL, block, &ref) < 0)
        return;
    FUZZ_REQUIRE(!ref.is_group && ref.first_block <= block && block < ref.end_block);
    if (pack_page_verify(t, &ref, f->leaves) == 0)
        use_leaves(t, &ref, f->leaves);
    if (pack_each_leaf(t, read_forged, f, count_leaf, &leaves) == 0)
        FUZZ_REQUIRE(leaves == pack_trailer_leaf_count(t));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct forged f = {0};

    if (size < 64 + 40 + PACK_PAGE)
        return 0;
    f.has_group = le32_get(data + 36) == 2;
    size_t pages = f.has_group ? 2 : 1;
    if (size < 64 + 40 + pages * PACK_PAGE || size - pages * PACK_PAGE > TRAILER_MAX)
        return 0;
    f.trailer_size = size - pages * PACK_PAGE;
    f.leaves = data + size - PACK_PAGE;
    memcpy(f.trailer, data, f.trailer_size);
    if (f.has_group)
        memcpy(f.group, data + f.trailer_size, PACK_PAGE);

    size_t rows = (f.trailer_size - 64) / 40;
    const size_t places[2] = {0, rows - 1};
    for (size_t i = 0; i < 2; i++) {
        uint8_t *row = f.trailer + 64 + places[i] * 40;
        uint64_t block = le32_get(row + 32);
        if (f.has_group)
            forge(f.group, f.leaves);
        forge(row, f.has_group ? f.group : f.leaves);
        AUTO(pack_trailer_free) struct pack_trailer *t = parse(&f);
        if (t)
            use_pack(&f, t, block);
    }
    return 0;
}
