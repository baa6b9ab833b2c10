/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writes a table of links as a stream: a page of rows goes out as it is full; what is kept is four
 * bytes a page for the directory, and the rows of the pack's own table.
 *
 * A writer refuses what a reader would refuse.
 */
#include "link/link-internal.h"

#include "base/le.h"
#include "base/vec.h"

#include <string.h>

struct link_writer {
    struct pack_writer *pack; /* owned */
    struct link_place place;
    uint64_t blocks_max, blocks, rows, bytes;
    VEC(uint32_t) first_blocks; /* of the pages of rows */
    uint8_t page[LINK_PAGE];    /* rows from the front... */
    uint8_t texts[LINK_PAGE];   /* ...and their texts, joined when the page is full */
    uint32_t page_rows;
    size_t texts_size;
    int failed;
};

static const char *place_text(const struct link_place *p, unsigned i, size_t *ret_max)
{
    static const size_t max[LINK_TEXTS] = {sizeof p->bucket, sizeof p->prefix, sizeof p->endpoint,
                                           sizeof p->region};
    const char *texts[LINK_TEXTS] = {p->bucket, p->prefix, p->endpoint, p->region};

    *ret_max = max[i];
    return texts[i];
}

static bool place_is_sound(const struct link_place *p)
{
    for (unsigned i = 0; i < LINK_TEXTS; i++) {
        size_t max;
        const char *text = place_text(p, i, &max);
        if (!memchr(text, '\0', max))
            return false;
    }
    return p->bucket[0] && p->addressing <= LINK_ADDRESSING_VIRTUAL;
}

int link_writer_new(const struct link_place *place, uint64_t blocks_max, pack_sink_fn *sink,
                    void *ctx, struct link_writer **ret)
{
    if (!place_is_sound(place) || blocks_max > LINK_BLOCKS_MAX)
        return -EINVAL;
    AUTO(link_writer_free) struct link_writer *w = calloc(1, sizeof *w);
    if (!w)
        return -ENOMEM;
    w->place = *place;
    w->blocks_max = blocks_max ? blocks_max : LINK_BLOCKS_MAX;
    int r = pack_writer_new(PACK_KIND_LINKS, sink, ctx, &w->pack);
    if (r == 0)
        *ret = take_ptr(&w);
    return r;
}

void link_writer_free(struct link_writer *w)
{
    if (!w)
        return;
    pack_writer_free(w->pack);
    vec_release(&w->first_blocks);
    free(w);
}

uint64_t link_writer_room(const struct link_writer *w, uint64_t left)
{
    uint64_t room = (w->blocks_max - w->blocks) * PACK_BLOCK;

    return left <= room ? left : room / LINK_CUT * LINK_CUT;
}

static int put_page(struct link_writer *w, const uint8_t *page)
{
    struct pack_leaf leaf = {.digest = digest_of(page, LINK_PAGE), .length = LINK_PAGE};
    uint64_t block, number;
    int r = pack_writer_add(w->pack, &leaf, 1, page, LINK_PAGE, &block, &number);

    if (r < 0)
        w->failed = r;
    return r;
}

static int end_page(struct link_writer *w)
{
    size_t at = LINK_PAGE_HEAD + (size_t)w->page_rows * LINK_ROW;

    if (w->page_rows == 0)
        return 0;
    memcpy(w->page + PAGE_MAGIC, LINK_ROWS_MAGIC, 4);
    le16_put(w->page + PAGE_COUNT, (uint16_t)w->page_rows);
    /* Only now is it known where the rows end and the texts begin. */
    for (uint32_t i = 0; i < w->page_rows; i++) {
        uint8_t *row = w->page + LINK_PAGE_HEAD + (size_t)i * LINK_ROW;
        le16_put(row + ROW_TEXT, (uint16_t)(le16_get(row + ROW_TEXT) + at));
    }
    memcpy(w->page + at, w->texts, w->texts_size);
    int r = vec_push(&w->first_blocks, le32_get(w->page + LINK_PAGE_HEAD + ROW_BLOCK));
    if (r < 0)
        w->failed = r;
    else
        r = put_page(w, w->page);
    memset(w->page, 0, sizeof w->page);
    w->page_rows = 0;
    w->texts_size = 0;
    return r;
}

static void add_text(struct link_writer *w, struct bytes text)
{
    if (text.size > 0)
        memcpy(w->texts + w->texts_size, text.data, text.size);
    w->texts_size += text.size;
}

static void put_row(struct link_writer *w, const struct link_row *row)
{
    uint8_t *p = w->page + LINK_PAGE_HEAD + (size_t)w->page_rows++ * LINK_ROW;

    le32_put(p + ROW_BLOCK, (uint32_t)w->blocks);
    le16_put(p + ROW_TEXT, (uint16_t)w->texts_size);
    le16_put(p + ROW_KEY_LENGTH, (uint16_t)row->key.size);
    le64_put(p + ROW_SIZE, row->size);
    le64_put(p + ROW_OFFSET, row->offset);
    le64_put(p + ROW_LENGTH, row->length);
    le64_put(p + ROW_MTIME, (uint64_t)row->mtime_ms);
    p[ROW_ETAG_LENGTH] = (uint8_t)row->etag.size;
    p[ROW_VERSION_LENGTH] = (uint8_t)row->version.size;
    add_text(w, row->key);
    add_text(w, row->etag);
    add_text(w, row->version);
}

int link_writer_add(struct link_writer *w, const struct link_row *row, uint32_t *ret_block,
                    uint32_t *ret_page)
{
    size_t texts = row->key.size + row->etag.size + row->version.size;

    if (w->failed)
        return w->failed;
    if (!link_row_is_sound(row) || row->key.size + strlen(w->place.prefix) > LINK_KEY_MAX)
        return -EINVAL;
    if (link_row_blocks(row) > w->blocks_max - w->blocks ||
        w->first_blocks.count >= LINK_DIRECTORY_MAX * LINK_ENTRIES)
        return -EFBIG;
    if (LINK_PAGE_HEAD + (w->page_rows + 1) * LINK_ROW + w->texts_size + texts > LINK_PAGE) {
        int r = end_page(w);
        if (r < 0)
            return r;
    }
    put_row(w, row);
    *ret_block = (uint32_t)w->blocks;
    *ret_page = (uint32_t)w->first_blocks.count;
    w->blocks += link_row_blocks(row);
    w->bytes += row->length;
    w->rows++;
    return 0;
}

/* The pages of the directory; `firsts` gets the first block of each. */
static int write_directory(struct link_writer *w, uint8_t *firsts, uint32_t *ret_count)
{
    uint32_t pages = (uint32_t)w->first_blocks.count, count = 0;
    int r = 0;

    for (uint32_t at = 0; r == 0 && at < pages; at += LINK_ENTRIES) {
        uint32_t n = pages - at < LINK_ENTRIES ? pages - at : LINK_ENTRIES;
        memset(w->page, 0, sizeof w->page);
        memcpy(w->page + PAGE_MAGIC, LINK_DIRECTORY_MAGIC, 4);
        le16_put(w->page + PAGE_COUNT, (uint16_t)n);
        for (uint32_t i = 0; i < n; i++)
            le32_put(w->page + LINK_PAGE_HEAD + 4u * i, w->first_blocks.at[at + i]);
        le32_put(firsts + 4u * count++, w->first_blocks.at[at]);
        r = put_page(w, w->page);
    }
    *ret_count = count;
    return r;
}

static int write_header(struct link_writer *w, const uint8_t *firsts, uint32_t directory_pages)
{
    uint8_t *h = w->page, *text = h + HEADER_TEXTS;

    memset(h, 0, LINK_PAGE);
    memcpy(h + HEADER_MAGIC, LINK_MAGIC, 8);
    le32_put(h + HEADER_FORMAT, LINK_VERSION);
    le32_put(h + HEADER_ADDRESSING, w->place.addressing);
    le64_put(h + HEADER_BLOCKS, w->blocks);
    le64_put(h + HEADER_ROWS, w->rows);
    le64_put(h + HEADER_BYTES, w->bytes);
    le32_put(h + HEADER_ROW_PAGES, (uint32_t)w->first_blocks.count);
    le32_put(h + HEADER_DIRECTORY_PAGES, directory_pages);
    for (unsigned i = 0; i < LINK_TEXTS; i++) {
        size_t max, n;
        const char *from = place_text(&w->place, i, &max);
        n = strlen(from);
        le16_put(h + HEADER_TEXT_LENGTHS + 2 * i, (uint16_t)n);
        memcpy(text, from, n);
        text += n;
    }
    memcpy(h + LINK_FIRST, firsts, 4u * (size_t)directory_pages);
    return put_page(w, h);
}

int link_writer_finish(struct link_writer *w, struct pack_summary *ret, uint64_t *ret_blocks)
{
    AUTO(free_ptr) uint8_t *firsts = calloc(LINK_DIRECTORY_MAX, 4);
    uint32_t directory_pages;

    if (w->failed)
        return w->failed;
    if (w->rows == 0)
        return -EINVAL;
    int r = firsts ? end_page(w) : -ENOMEM;
    if (r == 0)
        r = write_directory(w, firsts, &directory_pages);
    if (r == 0)
        r = write_header(w, firsts, directory_pages);
    if (r == 0)
        r = pack_writer_finish(w->pack, ret);
    if (r == 0)
        *ret_blocks = w->blocks;
    return r;
}
