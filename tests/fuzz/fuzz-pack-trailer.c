/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzzes the parser of trailers, and the searches in what it accepted.
 *
 * The input is a trailer. What a manifest would say is made from the input itself, digest included,
 * so that the fuzzer gets past it.
 */
#include "fuzz-target.h"

#include "base/le.h"
#include "pack/pack.h"

static struct pack_summary summary_from(const uint8_t *data, size_t size)
{
    uint64_t data_size = le64_get(data + 16), pages = le32_get(data + 32);
    uint64_t groups = le32_get(data + 36) == 2 ? le32_get(data + 40) : 0;
    uint64_t offset = data_size + (pages + groups) * PACK_PAGE;

    return (struct pack_summary){
        .digest = digest_of(data, size),
        .length = offset + size,
        .data_size = data_size,
        .leaf_count = le64_get(data + 24),
        .trailer_offset = offset,
        .trailer_length = (uint32_t)size,
    };
}

static void search(const struct pack_trailer *t, uint64_t block)
{
    uint64_t end = pack_trailer_data_size(t) / PACK_BLOCK;
    struct pack_page_ref ref;

    int r = pack_trailer_has_groups(t) ? pack_trailer_find_group(t, block, &ref)
                                       : pack_trailer_find_page(t, NULL, NULL, block, &ref);
    FUZZ_REQUIRE(r == (block < end ? 0 : -ENOENT));
    if (r < 0)
        return;
    FUZZ_REQUIRE(ref.first_block <= block && block < ref.end_block && ref.end_block <= end);
    FUZZ_REQUIRE(ref.is_group == pack_trailer_has_groups(t));
    FUZZ_REQUIRE(ref.offset >= pack_trailer_data_size(t) && ref.offset % PACK_BLOCK == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    AUTO(pack_trailer_free) struct pack_trailer *t = NULL;
    struct err err = ERR_INIT;
    struct pack_page_ref ref;

    if (size < 64 || size > PACK_TRAILER_MAX)
        return 0;
    struct pack_summary s = summary_from(data, size);
    enum pack_kind kind = le32_get(data + 12) == PACK_KIND_INDEX ? PACK_KIND_INDEX : PACK_KIND_DATA;
    int r = pack_trailer_parse(bytes_of(data, size), kind, &s, &t, &err);
    FUZZ_REQUIRE((r == 0) == (t != NULL) && (r == 0) == (err.text[0] == '\0'));
    if (r < 0)
        return 0;
    FUZZ_REQUIRE(pack_trailer_leaf_count(t) == s.leaf_count);
    for (uint64_t block = 1; block != 0; block <<= 1) {
        search(t, block - 1);
        search(t, block);
    }
    for (size_t i = 64; i < size; i += 40) {
        search(t, le32_get(data + i + 32));
        search(t, (uint64_t)le32_get(data + i + 32) + 1);
    }
    for (uint32_t i = 0; i < pack_trailer_page_count(t) && i < 2000; i++)
        FUZZ_REQUIRE((pack_trailer_page(t, i, &ref) == 0) == !pack_trailer_has_groups(t));
    return 0;
}
