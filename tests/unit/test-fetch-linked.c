/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Linked devices as a reader sees them: every block leads to its object, whatever the hint says; a
 * table that breaks its format, though its digests are right, is an error and no bytes; and a
 * source that nobody can open is asked for once, not by each read.
 */
#include "fetch/fetch.h"

#include "base/le.h"

#include <setjmp.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define FILES 1000u

struct world {
    struct store *store;
    struct fetch *fetch;
    struct fetch_object *device;
    struct pack_summary summary;
    uint64_t blocks;
    uint32_t block[FILES], page[FILES];
    unsigned opened;
};

static const struct link_place place = {
    .bucket = "photos", .prefix = "p/", .endpoint = "http://127.0.0.1:1", .region = "here"};

static uint64_t size_of(unsigned i)
{
    return 1 + (uint64_t)i * 631 % 200000;
}

/* A source that may not be read. */
static int refuse(void *ctx, const struct link_place *p, const char *key, struct s3 **ret,
                  struct err *err)
{
    struct world *w = ctx;

    w->opened++;
    assert_string_equal(p->bucket, "photos");
    assert_int_equal(strncmp(key, "p/key", 5), 0);
    return err_fail(err, -EACCES, "not for you");
}

static int to_buf(void *ctx, const void *data, size_t size)
{
    return buf_append(ctx, data, size);
}

static void write_table(struct world *w, struct buf *b)
{
    AUTO(link_writer_free) struct link_writer *writer = NULL;
    char key[64];

    assert_int_equal(link_writer_new(&place, 0, to_buf, b, &writer), 0);
    for (unsigned i = 0; i < FILES; i++) {
        (void)snprintf(key, sizeof key, "key-%u", i);
        struct link_row row = {.size = size_of(i),
                               .length = size_of(i),
                               .key = bytes_str(key),
                               .etag = bytes_str("tag")};
        assert_int_equal(link_writer_add(writer, &row, &w->block[i], &w->page[i]), 0);
    }
    assert_int_equal(link_writer_finish(writer, &w->summary, &w->blocks), 0);
}

/* The same pages with `at` of page `number` changed, and digests that are right for it. */
static void rewrite(struct world *w, const struct buf *old, uint32_t number, size_t at,
                    uint8_t value, struct buf *b)
{
    AUTO(pack_writer_free) struct pack_writer *p = NULL;
    uint8_t page[LINK_PAGE];
    uint64_t block, leaf;

    assert_int_equal(pack_writer_new(PACK_KIND_LINKS, to_buf, b, &p), 0);
    for (uint32_t i = 0; i < w->summary.data_size / LINK_PAGE; i++) {
        memcpy(page, old->data + (size_t)i * LINK_PAGE, LINK_PAGE);
        if (i == number)
            page[at] = value;
        struct pack_leaf l = {.digest = digest_of(page, LINK_PAGE), .length = LINK_PAGE};
        assert_int_equal(pack_writer_add(p, &l, 1, page, LINK_PAGE, &block, &leaf), 0);
    }
    assert_int_equal(pack_writer_finish(p, &w->summary), 0);
}

static void put(struct world *w, const struct buf *b, const char *key)
{
    struct fetch_options options = {.store = w->store, .open_source = refuse, .open_source_ctx = w};

    assert_int_equal(store_put_if_absent(w->store, key, buf_bytes(b)), 0);
    assert_int_equal(fetch_new(&options, &w->fetch), 0);
    assert_int_equal(fetch_object_new_linked(w->fetch, key, &w->summary, w->blocks, &w->device), 0);
}

static void close_device(struct world *w)
{
    fetch_object_free(w->device);
    fetch_free(w->fetch);
    w->device = NULL;
    w->fetch = NULL;
}

static int setup(void **state)
{
    struct world *w = calloc(1, sizeof *w);

    assert_int_equal(store_memory_new(&w->store), 0);
    *state = w;
    return 0;
}

static int teardown(void **state)
{
    struct world *w = *state;

    store_close(w->store);
    free(w);
    return 0;
}

static void check_link(struct world *w, unsigned i, uint64_t within, uint64_t hint)
{
    struct fetch_link link;
    char key[64];

    (void)snprintf(key, sizeof key, "key-%u", i);
    uint64_t start = (uint64_t)w->block[i] * PACK_BLOCK;
    assert_int_equal(fetch_object_link(w->device, start + within, hint, &link), 0);
    assert_string_equal(link.key, key);
    assert_string_equal(link.pin.etag, "tag");
    assert_true(link.start == start && link.length == size_of(i) && link.offset == 0);
    assert_true(link.pin.size == size_of(i));
}

static void every_block_leads_to_its_object(void **state)
{
    struct world *w = *state;
    AUTO(buf_release) struct buf b = BUF_INIT(4u << 20);
    struct link_place p;
    struct fetch_link link;

    write_table(w, &b);
    put(w, &b, "p/0/0");
    uint32_t pages = (uint32_t)(w->summary.data_size / LINK_PAGE);
    assert_true(pages > 5);
    for (unsigned i = 0; i < FILES; i++) {
        uint64_t hints[] = {w->page[i], FETCH_NO_HINT, 0, pages - 1, pages - 2, pages, UINT32_MAX};
        check_link(w, i, size_of(i) - 1, hints[i % 7]); /* right, none, and wrong ones */
        check_link(w, i, 0, w->page[i]);
    }
    assert_int_equal(fetch_object_link(w->device, w->blocks * PACK_BLOCK, 0, &link), -EPROTO);
    assert_int_equal(fetch_object_place(w->device, &p), 0);
    assert_string_equal(p.endpoint, place.endpoint);
    close_device(w);
}

static void a_source_that_cannot_be_opened_is_not_asked_by_each_read(void **state)
{
    struct world *w = *state;
    AUTO(buf_release) struct buf b = BUF_INIT(4u << 20);
    char byte;

    write_table(w, &b);
    put(w, &b, "p/0/0");
    for (unsigned i = 0; i < 20; i++) {
        int r = fetch_read(w->device, (uint64_t)w->block[i] * PACK_BLOCK, &byte, 1, w->page[i]);
        assert_int_equal(r, -EACCES);
    }
    assert_int_equal(w->opened, 1);
    close_device(w);
}

/* Whoever wrote it may be hostile: digests that are right say nothing. */
static void a_hostile_table_gives_errors(void **state)
{
    struct world *w = *state;
    AUTO(buf_release) struct buf good = BUF_INIT(4u << 20);
    struct fetch_link link;
    char key[32], byte;

    write_table(w, &good);
    struct pack_summary summary = w->summary;
    uint32_t last = (uint32_t)(summary.data_size / LINK_PAGE) - 1;
    const struct {
        uint32_t page;
        size_t at;
        uint8_t value;
    } changes[] = {
        {0, 0, 'X'},              /* magic of a page of rows */
        {0, 4, 255},              /* more rows than fit */
        {0, 8 + 4, 255},          /* texts elsewhere */
        {0, 8 + 48, 200},         /* a gap between two rows */
        {0, 8 + 7, 255},          /* a key that leaves the page */
        {last - 1, 8, 1},         /* the directory begins elsewhere */
        {last, 16, 1},            /* another number of blocks */
        {last, 40, 200},          /* more pages than there are */
        {last, LINK_PAGE - 1, 1}, /* not zero where it should be */
    };
    for (unsigned i = 0; i < sizeof changes / sizeof *changes; i++) {
        AUTO(buf_release) struct buf bad = BUF_INIT(4u << 20);
        w->summary = summary;
        rewrite(w, &good, changes[i].page, changes[i].at, changes[i].value, &bad);
        (void)snprintf(key, sizeof key, "p/0/%u", i);
        put(w, &bad, key);
        int r = fetch_object_link(w->device, 0, FETCH_NO_HINT, &link);
        assert_int_equal(r, -EPROTO);
        r = fetch_read(w->device, 0, &byte, 1, FETCH_NO_HINT);
        assert_true(r < 0);
        close_device(w);
    }
    assert_int_equal(w->opened, 0);
}

static void other_objects_have_no_links(void **state)
{
    struct world *w = *state;
    AUTO(buf_release) struct buf b = BUF_INIT(4u << 20);
    struct fetch_object *table = NULL;
    struct link_place p;
    struct fetch_link link;

    write_table(w, &b);
    put(w, &b, "p/0/0");
    assert_int_equal(fetch_object_new(w->fetch, "p/0/0", PACK_KIND_LINKS, &w->summary, &table), 0);
    assert_int_equal(fetch_object_link(table, 0, 0, &link), -EINVAL);
    assert_int_equal(fetch_object_place(table, &p), -EINVAL);
    fetch_object_free(table);
    close_device(w);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(every_block_leads_to_its_object),
        TEST(a_source_that_cannot_be_opened_is_not_asked_by_each_read),
        TEST(a_hostile_table_gives_errors),
        TEST(other_objects_have_no_links),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
