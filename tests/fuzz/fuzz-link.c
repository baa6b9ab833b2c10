/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzzes the parsers of tables of links: a page each as header, part of the directory and rows.
 * Whatever is accepted has rows that lie inside their page, and a row that is found covers its
 * block.
 */
#include "fuzz-target.h"

#include "link/link.h"

#include <string.h>

static void check_row(const uint8_t *page, const struct link_row *row)
{
    const uint8_t *key = row->key.data;

    FUZZ_REQUIRE(key >= page &&
                 key + row->key.size + row->etag.size + row->version.size <= page + LINK_PAGE);
    FUZZ_REQUIRE(row->key.size > 0 && row->key.size <= LINK_KEY_MAX);
    FUZZ_REQUIRE(row->length > 0 && row->offset + row->length <= row->size);
    FUZZ_REQUIRE(row->block + link_row_blocks(row) <= LINK_BLOCKS_MAX);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static uint8_t page[LINK_PAGE];
    struct link_header h = {.blocks = 1000, .rows = 5, .row_pages = 3, .directory_pages = 1};
    struct link_header parsed;
    struct link_row row;
    uint32_t number, block;

    if (size < 4)
        return 0;
    memcpy(&block, data, 4);
    memset(page, 0, sizeof page);
    memcpy(page, data + 4, size - 4 < LINK_PAGE ? size - 4 : LINK_PAGE);

    for (uint64_t pages = 2; pages < 6; pages++) {
        if (link_header_parse(page, pages * LINK_PAGE, &parsed) == 0) {
            FUZZ_REQUIRE(memchr(parsed.place.bucket, '\0', sizeof parsed.place.bucket));
            FUZZ_REQUIRE(parsed.row_pages + parsed.directory_pages + 1 == pages);
            if (link_header_find(page, &parsed, block, &number) == 0)
                FUZZ_REQUIRE(number >= parsed.row_pages &&
                             number < parsed.row_pages + parsed.directory_pages);
        }
    }
    if (link_directory_find(page, &h, 3, block, &number) == 0)
        FUZZ_REQUIRE(number < h.row_pages);
    if (link_rows_check(page) == 0) {
        for (uint32_t i = 0; i < link_rows_count(page); i++) {
            link_rows_get(page, i, &row);
            check_row(page, &row);
        }
        if (link_rows_find(page, block, &row) == 0)
            FUZZ_REQUIRE(block >= row.block && block - row.block < link_row_blocks(&row));
    }
    return 0;
}
