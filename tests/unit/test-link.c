/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tables of links: every block of what was written is found again by way of the hint and by way of
 * the directory, what a writer refuses, and what a parser does when single bytes are changed.
 */
#include "link/link.h"

#include "base/le.h"

#include <setjmp.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

struct table {
    struct buf bytes;
    struct pack_summary summary;
    struct link_header header;
    uint64_t blocks;
};

static int to_buf(void *ctx, const void *data, size_t size)
{
    return buf_append(ctx, data, size);
}

static const struct link_place place = {
    .bucket = "bucket",
    .prefix = "some/prefix/",
    .endpoint = "https://host:8443",
    .region = "default",
    .addressing = LINK_ADDRESSING_PATH,
};

static struct link_row row_of(const char *key, uint64_t size)
{
    return (struct link_row){
        .size = size,
        .length = size,
        .mtime_ms = -5,
        .key = bytes_str(key),
        .etag = bytes_str("0123456789abcdef0123456789abcdef"),
    };
}

static const uint8_t *page_of(const struct table *t, uint32_t number)
{
    assert_true(((uint64_t)number + 1) * LINK_PAGE <= t->summary.data_size);
    return t->bytes.data + (size_t)number * LINK_PAGE;
}

static void finish(struct link_writer *w, struct table *t)
{
    assert_int_equal(link_writer_finish(w, &t->summary, &t->blocks), 0);
    uint32_t last = (uint32_t)(t->summary.data_size / LINK_PAGE) - 1;
    assert_int_equal(link_header_parse(page_of(t, last), t->summary.data_size, &t->header), 0);
}

/* As a reader without a hint does it. */
static int find(const struct table *t, uint32_t block, struct link_row *ret, uint32_t *ret_page)
{
    uint32_t last = t->header.row_pages + t->header.directory_pages, directory = 0;
    int r = link_header_find(page_of(t, last), &t->header, block, &directory);

    if (r == 0)
        r = link_directory_find(page_of(t, directory), &t->header, directory, block, ret_page);
    if (r == 0)
        r = link_rows_check(page_of(t, *ret_page));
    return r < 0 ? r : link_rows_find(page_of(t, *ret_page), block, ret);
}

static void write_many(struct table *t, unsigned count, uint32_t *blocks, uint32_t *pages)
{
    AUTO(link_writer_free) struct link_writer *w = NULL;
    char key[LINK_KEY_MAX + 1];

    t->bytes = (struct buf)BUF_INIT(256u << 20);
    assert_int_equal(link_writer_new(&place, 0, to_buf, &t->bytes, &w), 0);
    for (unsigned i = 0; i < count; i++) {
        (void)snprintf(key, sizeof key, "d%u/%0*u", i % 7, (int)(1 + i % 900), i);
        struct link_row row = row_of(key, 1 + (uint64_t)i * 977 % 5000);
        if (i % 3 == 0)
            row.version = bytes_str("v.1-2_3");
        assert_int_equal(link_writer_add(w, &row, &blocks[i], &pages[i]), 0);
    }
    finish(w, t);
}

static void every_block_is_found(void **state)
{
    enum { COUNT = 3000 };
    static uint32_t blocks[COUNT], pages[COUNT];
    AUTO(buf_release) struct buf key = BUF_INIT(2048);
    struct table t;

    write_many(&t, COUNT, blocks, pages);
    assert_true(t.header.row_pages > 50 && t.header.directory_pages == 1);
    assert_true(t.header.rows == COUNT && t.header.blocks == t.blocks);
    assert_memory_equal(&t.header.place, &place, sizeof place);
    for (unsigned i = 0; i < COUNT; i++) {
        uint64_t size = 1 + (uint64_t)i * 977 % 5000;
        struct link_row row;
        uint32_t page = 0;
        for (uint64_t b = 0; b < pack_blocks(size); b++) {
            assert_int_equal(find(&t, blocks[i] + (uint32_t)b, &row, &page), 0);
            assert_int_equal(page, pages[i]);
            assert_int_equal(row.block, blocks[i]);
        }
        buf_clear(&key);
        assert_int_equal(buf_printf(&key, "d%u/%0*u", i % 7, (int)(1 + i % 900), i), 0);
        assert_int_equal(row.key.size, key.size);
        assert_memory_equal(row.key.data, key.data, key.size);
        assert_true(row.size == size && row.length == size && row.offset == 0);
        assert_true(row.mtime_ms == -5 && row.etag.size == 32);
        assert_int_equal(row.version.size, i % 3 == 0 ? 7 : 0);
    }
    struct link_row row;
    uint32_t page;
    assert_int_equal(find(&t, (uint32_t)t.blocks, &row, &page), -ENOENT);
    /* The wrong page has not the block: a wrong hint is seen. */
    assert_int_equal(link_rows_find(page_of(&t, 0), blocks[COUNT - 1], &row), -ENOENT);
    assert_int_equal(link_rows_find(page_of(&t, 5), 0, &row), -ENOENT);
    buf_release(&t.bytes);
}

static void a_table_of_many_pages_has_a_directory_of_several(void **state)
{
    AUTO(link_writer_free) struct link_writer *w = NULL;
    struct table t = {.bytes = BUF_INIT(256u << 20)};
    char key[1000];
    struct link_row row;
    uint32_t block, page, found, count = 4094 * 12 + 5;

    assert_int_equal(link_writer_new(&place, 0, to_buf, &t.bytes, &w), 0);
    memset(key, 'k', sizeof key - 1);
    key[sizeof key - 1] = '\0';
    for (uint32_t i = 0; i < count; i++) {
        row = row_of(key, 513);
        row.etag = bytes_of("0123456789012345678901234567890123456789"
                            "0123456789012345678901234567890123456789"
                            "01234567890123456789012345678901234567890123456",
                            127);
        row.version = row.etag;
        assert_int_equal(link_writer_add(w, &row, &block, &page), 0);
        assert_int_equal(block, 2 * i);
    }
    finish(w, &t);
    assert_int_equal(t.header.directory_pages, 2);
    for (uint32_t i = 0; i < count; i += 7) {
        assert_int_equal(find(&t, 2 * i + 1, &row, &found), 0);
        assert_int_equal(row.block, 2 * i);
    }
    buf_release(&t.bytes);
}

static void a_device_is_bounded_and_objects_are_cut(void **state)
{
    AUTO(link_writer_free) struct link_writer *w = NULL;
    struct table t = {.bytes = BUF_INIT(1 << 20)};
    uint64_t cut = LINK_CUT / PACK_BLOCK;
    uint32_t block, page;

    assert_int_equal(link_writer_new(&place, 2 * cut + 3, to_buf, &t.bytes, &w), 0);
    struct link_row row = row_of("small", 512);
    assert_int_equal(link_writer_add(w, &row, &block, &page), 0);
    assert_true(link_writer_room(w, 700) == 700);
    assert_true(link_writer_room(w, 2 * LINK_CUT + 1024) == 2 * LINK_CUT + 1024);
    assert_true(link_writer_room(w, 2 * LINK_CUT + 1025) == 2 * LINK_CUT);
    row = row_of("large", UINT64_C(5) << 40);
    row.length = link_writer_room(w, row.size);
    row.offset = 3 * LINK_CUT;
    assert_true(row.length == 2 * LINK_CUT);
    assert_int_equal(link_writer_add(w, &row, &block, &page), 0);
    assert_int_equal(block, 1);
    assert_true(link_writer_room(w, 10000) == 0);
    row = row_of("more", 10000);
    assert_int_equal(link_writer_add(w, &row, &block, &page), -EFBIG);
    finish(w, &t);
    assert_int_equal(find(&t, (uint32_t)cut, &row, &page), 0);
    assert_true(row.offset == 3 * LINK_CUT && row.length == 2 * LINK_CUT);
    buf_release(&t.bytes);
}

static void writers_refuse_what_readers_would(void **state)
{
    AUTO(link_writer_free) struct link_writer *w = NULL, *none = NULL;
    AUTO(buf_release) struct buf out = BUF_INIT(1 << 20);
    struct link_place bad = place;
    struct pack_summary summary;
    uint64_t blocks;
    uint32_t block, page;
    char long_key[LINK_KEY_MAX + 1];

    bad.bucket[0] = '\0';
    assert_int_equal(link_writer_new(&bad, 0, to_buf, &out, &none), -EINVAL);
    assert_int_equal(link_writer_new(&place, LINK_BLOCKS_MAX + 1, to_buf, &out, &none), -EINVAL);
    assert_int_equal(link_writer_new(&place, 0, to_buf, &out, &w), 0);
    struct link_row row = row_of("", 1);
    assert_int_equal(link_writer_add(w, &row, &block, &page), -EINVAL);
    row = row_of("empty", 0);
    assert_int_equal(link_writer_add(w, &row, &block, &page), -EINVAL);
    row = row_of("nul", 1);
    row.key = bytes_of("a\0b", 3);
    assert_int_equal(link_writer_add(w, &row, &block, &page), -EINVAL);
    row = row_of("unpinned", 1);
    row.etag.size = 0;
    assert_int_equal(link_writer_add(w, &row, &block, &page), -EINVAL);
    row = row_of("beyond", 10);
    row.length = 11;
    assert_int_equal(link_writer_add(w, &row, &block, &page), -EINVAL);
    row = row_of("odd-cut", 3 * LINK_CUT);
    row.length = LINK_CUT + 1;
    assert_int_equal(link_writer_add(w, &row, &block, &page), -EINVAL);
    memset(long_key, 'x', LINK_KEY_MAX); /* with the prefix it is too long */
    long_key[LINK_KEY_MAX] = '\0';
    row = row_of(long_key, 1);
    assert_int_equal(link_writer_add(w, &row, &block, &page), -EINVAL);
    assert_int_equal(link_writer_finish(w, &summary, &blocks), -EINVAL);
    assert_int_equal(out.size, 0);
}

static void changed_bytes_are_refused_or_harmless(void **state)
{
    enum { COUNT = 400 };
    static uint32_t blocks[COUNT], pages[COUNT];
    uint8_t page[LINK_PAGE];
    struct table t;
    struct link_header h;
    struct link_row row;
    unsigned refused = 0;

    write_many(&t, COUNT, blocks, pages);
    uint32_t last = t.header.row_pages + t.header.directory_pages, found;
    for (uint32_t number = 0; number <= last; number += last - 1) { /* rows, directory + header */
        for (size_t at = 0; at < LINK_PAGE; at++) {
            memcpy(page, page_of(&t, number), sizeof page);
            page[at] ^= 0x81;
            if (link_rows_check(page) < 0)
                refused++;
            else
                (void)link_rows_find(page, blocks[3], &row);
            (void)link_directory_find(page, &t.header, last - 1, 7, &found);
            (void)link_header_parse(page, t.summary.data_size, &h);
        }
    }
    assert_true(refused > LINK_PAGE);
    /* Of the header each byte counts: in its list, texts and zeros as in its numbers. */
    memcpy(page, page_of(&t, last), sizeof page);
    page[8] = 2;
    assert_int_equal(link_header_parse(page, t.summary.data_size, &h), -EPROTONOSUPPORT);
    page[8] = 1;
    page[LINK_PAGE - 1] = 1;
    assert_int_equal(link_header_parse(page, t.summary.data_size, &h), -EPROTO);
    page[LINK_PAGE - 1] = 0;
    assert_int_equal(link_header_parse(page, t.summary.data_size + LINK_PAGE, &h), -EPROTO);
    assert_int_equal(link_header_parse(page, t.summary.data_size, &h), 0);
    /* A gap between two rows. */
    memcpy(page, page_of(&t, 0), sizeof page);
    le32_put(page + 8 + 48, le32_get(page + 8 + 48) + 1);
    assert_int_equal(link_rows_check(page), -EPROTO);
    buf_release(&t.bytes);
}

/* The bytes of the format stay what they are. */
static void golden(void **state)
{
    enum { COUNT = 500 };
    static uint32_t blocks[COUNT], pages[COUNT];
    char hex[DIGEST_HEX_SIZE];
    struct table t;

    write_many(&t, COUNT, blocks, pages);
    digest_to_hex(&t.summary.digest, hex);
    assert_string_equal(hex, "7ccef42d80be465b52eed9e3c06b23c1e572c9614f5de4d326a1be8beb036a04");
    buf_release(&t.bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_block_is_found),
        cmocka_unit_test(a_table_of_many_pages_has_a_directory_of_several),
        cmocka_unit_test(a_device_is_bounded_and_objects_are_cut),
        cmocka_unit_test(writers_refuse_what_readers_would),
        cmocka_unit_test(changed_bytes_are_refused_or_harmless),
        cmocka_unit_test(golden),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
