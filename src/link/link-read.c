/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Parses the pages of a table of links. Every byte is hostile: a page is checked whole before a row
 * of it is looked at, with arithmetic that cannot wrap, and rows are only found for blocks that
 * they cover.
 */
#include "link/link-internal.h"

#include "base/le.h"

#include <string.h>

static bool is_zero(const uint8_t *from, const uint8_t *end)
{
    while (from < end && *from == 0)
        from++;
    return from == end;
}

static bool text_is_sound(struct bytes text, size_t max)
{
    return text.size <= max && (text.size == 0 || !memchr(text.data, '\0', text.size));
}

bool link_row_is_sound(const struct link_row *row)
{
    if (row->length == 0 || row->offset > row->size || row->length > row->size - row->offset ||
        row->offset % LINK_CUT != 0 ||
        (row->length % LINK_CUT != 0 && row->offset + row->length != row->size) ||
        row->length > LINK_BLOCKS_MAX * PACK_BLOCK)
        return false;
    return row->key.size > 0 && row->etag.size + row->version.size > 0 &&
           text_is_sound(row->key, LINK_KEY_MAX) && text_is_sound(row->etag, LINK_ETAG_MAX) &&
           text_is_sound(row->version, LINK_VERSION_MAX);
}

/* ---- header -----------------------------------------------------------------------------------
 */

/* The next text into a buffer of `size` bytes. */
static bool take_text(const uint8_t *h, unsigned i, const uint8_t **at, char *ret, size_t size)
{
    size_t n = le16_get(h + HEADER_TEXT_LENGTHS + 2 * i);

    if (n >= size || memchr(*at, '\0', n))
        return false;
    memcpy(ret, *at, n);
    ret[n] = '\0';
    *at += n;
    return true;
}

static bool place_get(const uint8_t *h, struct link_place *p)
{
    const uint8_t *at = h + HEADER_TEXTS;
    uint32_t addressing = le32_get(h + HEADER_ADDRESSING);

    /* In this order; together they cannot reach the list. */
    if (!take_text(h, 0, &at, p->bucket, sizeof p->bucket) ||
        !take_text(h, 1, &at, p->prefix, sizeof p->prefix) ||
        !take_text(h, 2, &at, p->endpoint, sizeof p->endpoint) ||
        !take_text(h, 3, &at, p->region, sizeof p->region) || !p->bucket[0] ||
        addressing > LINK_ADDRESSING_VIRTUAL)
        return false;
    p->addressing = (enum link_addressing)addressing;
    return is_zero(at, h + LINK_FIRST);
}

/* Begin with `first`, ascend strictly, stay below `end`. */
static bool blocks_ascend(const uint8_t *list, uint32_t count, uint32_t first, uint64_t end)
{
    uint32_t before = le32_get(list);

    if (before != first)
        return false;
    for (uint32_t i = 1; i < count; i++) {
        uint32_t block = le32_get(list + 4u * i);
        if (block <= before)
            return false;
        before = block;
    }
    return before < end;
}

int link_header_parse(const void *page, uint64_t data_size, struct link_header *ret)
{
    const uint8_t *h = page;
    struct link_header x = {
        .blocks = le64_get(h + HEADER_BLOCKS),
        .rows = le64_get(h + HEADER_ROWS),
        .bytes = le64_get(h + HEADER_BYTES),
        .row_pages = le32_get(h + HEADER_ROW_PAGES),
        .directory_pages = le32_get(h + HEADER_DIRECTORY_PAGES),
    };

    if (memcmp(h + HEADER_MAGIC, LINK_MAGIC, 8) != 0)
        return -EPROTO;
    if (le32_get(h + HEADER_FORMAT) > LINK_VERSION)
        return -EPROTONOSUPPORT;
    if (le32_get(h + HEADER_FORMAT) != LINK_VERSION || x.blocks == 0 ||
        x.blocks > LINK_BLOCKS_MAX || x.rows < x.row_pages || x.rows > x.blocks || x.bytes == 0 ||
        x.bytes > x.blocks * PACK_BLOCK || x.row_pages == 0 ||
        x.directory_pages > LINK_DIRECTORY_MAX ||
        x.directory_pages != (x.row_pages - 1) / LINK_ENTRIES + 1 ||
        data_size != ((uint64_t)x.row_pages + x.directory_pages + 1) * LINK_PAGE ||
        !place_get(h, &x.place) || !blocks_ascend(h + LINK_FIRST, x.directory_pages, 0, x.blocks) ||
        !is_zero(h + LINK_FIRST + 4u * (size_t)x.directory_pages, h + LINK_PAGE))
        return -EPROTO;
    *ret = x;
    return 0;
}

/* The last entry that is not behind `block`; the first one is not. */
static uint32_t last_before(const uint8_t *list, uint32_t count, uint32_t block)
{
    uint32_t low = 0, high = count;

    while (high - low > 1) {
        uint32_t middle = low + (high - low) / 2;
        if (le32_get(list + 4u * middle) <= block)
            low = middle;
        else
            high = middle;
    }
    return low;
}

int link_header_find(const void *page, const struct link_header *h, uint32_t block,
                     uint32_t *ret_page)
{
    if (block >= h->blocks)
        return -ENOENT;
    *ret_page =
        h->row_pages + last_before((const uint8_t *)page + LINK_FIRST, h->directory_pages, block);
    return 0;
}

int link_directory_find(const void *page, const struct link_header *h, uint32_t number,
                        uint32_t block, uint32_t *ret_page)
{
    const uint8_t *p = page;
    uint32_t before, count;

    if (number < h->row_pages || number - h->row_pages >= h->directory_pages)
        return -EINVAL;
    before = (number - h->row_pages) * LINK_ENTRIES;
    count = h->row_pages - before < LINK_ENTRIES ? h->row_pages - before : LINK_ENTRIES;
    if (memcmp(p + PAGE_MAGIC, LINK_DIRECTORY_MAGIC, 4) != 0 || le16_get(p + PAGE_COUNT) != count ||
        le16_get(p + PAGE_COUNT + 2) != 0 ||
        !blocks_ascend(p + LINK_PAGE_HEAD, count, le32_get(p + LINK_PAGE_HEAD), h->blocks) ||
        !is_zero(p + LINK_PAGE_HEAD + 4u * (size_t)count, p + LINK_PAGE) ||
        block < le32_get(p + LINK_PAGE_HEAD))
        return -EPROTO;
    *ret_page = before + last_before(p + LINK_PAGE_HEAD, count, block);
    return 0;
}

/* ---- rows -------------------------------------------------------------------------------------
 */

uint32_t link_rows_count(const void *page)
{
    return le16_get((const uint8_t *)page + PAGE_COUNT);
}

static const uint8_t *row_at(const void *page, uint32_t i)
{
    return (const uint8_t *)page + LINK_PAGE_HEAD + (size_t)i * LINK_ROW;
}

void link_rows_get(const void *page, uint32_t i, struct link_row *ret)
{
    const uint8_t *p = row_at(page, i);
    const uint8_t *text = (const uint8_t *)page + le16_get(p + ROW_TEXT);

    *ret = (struct link_row){
        .block = le32_get(p + ROW_BLOCK),
        .size = le64_get(p + ROW_SIZE),
        .offset = le64_get(p + ROW_OFFSET),
        .length = le64_get(p + ROW_LENGTH),
        .mtime_ms = (int64_t)le64_get(p + ROW_MTIME),
        .key = bytes_of(text, le16_get(p + ROW_KEY_LENGTH)),
    };
    ret->etag = bytes_of(text + ret->key.size, p[ROW_ETAG_LENGTH]);
    ret->version = bytes_of(text + ret->key.size + ret->etag.size, p[ROW_VERSION_LENGTH]);
}

int link_rows_check(const void *page)
{
    const uint8_t *p = page;
    uint32_t count = link_rows_count(page);
    size_t text = LINK_PAGE_HEAD + (size_t)count * LINK_ROW;
    uint64_t block = 0;

    if (memcmp(p + PAGE_MAGIC, LINK_ROWS_MAGIC, 4) != 0 || count == 0 || text > LINK_PAGE ||
        le16_get(p + PAGE_COUNT + 2) != 0)
        return -EPROTO;
    for (uint32_t i = 0; i < count; i++) {
        const uint8_t *at = row_at(page, i);
        size_t texts =
            (size_t)le16_get(at + ROW_KEY_LENGTH) + at[ROW_ETAG_LENGTH] + at[ROW_VERSION_LENGTH];
        struct link_row row;
        /* The texts lie in the page before anybody looks at them. */
        if (le16_get(at + ROW_TEXT) != text || texts > LINK_PAGE - text ||
            !is_zero(at + ROW_ZERO, at + LINK_ROW))
            return -EPROTO;
        link_rows_get(page, i, &row);
        if (!link_row_is_sound(&row) || (i > 0 && row.block != block))
            return -EPROTO;
        block = row.block + link_row_blocks(&row);
        if (block > LINK_BLOCKS_MAX)
            return -EPROTO;
        text += texts;
    }
    return is_zero(p + text, p + LINK_PAGE) ? 0 : -EPROTO;
}

int link_rows_find(const void *page, uint32_t block, struct link_row *ret)
{
    uint32_t low = 0, high = link_rows_count(page);

    while (high - low > 1) {
        uint32_t middle = low + (high - low) / 2;
        if (le32_get(row_at(page, middle) + ROW_BLOCK) <= block)
            low = middle;
        else
            high = middle;
    }
    link_rows_get(page, low, ret);
    return block >= ret->block && block - ret->block < link_row_blocks(ret) ? 0 : -ENOENT;
}
