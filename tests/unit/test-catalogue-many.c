/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Listings of stores that are far away: names listed by several threads, records that are kept and
 * not read again. What a listing says must not depend on either.
 */
#include "catalogue-fixture.h"

#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#define NAMES    40u /* more than there are runs */
#define VERSIONS 2u
#define FAR_AWAY 8u /* readers */

/* The catalogue of a world, through a store that counts. */
struct counted {
    struct store *trace;
    struct catalogue *c;
};

static void open_counted(struct world *w, const char *keep, struct counted *ret)
{
    assert_int_equal(
        store_trace_new(faulty(w->store, &(struct store_fault_plan){0}), NULL, NULL, &ret->trace),
        0);
    assert_int_equal(catalogue_open(ret->trace, &w->env, CATALOGUE_READ, &ret->c, NULL), 0);
    catalogue_set_readers(ret->c, FAR_AWAY);
    if (keep)
        assert_int_equal(catalogue_keep_records(ret->c, keep), 0);
}

static uint64_t close_counted(struct counted *k)
{
    struct store_counts counts;

    store_trace_counts(k->trace, &counts);
    catalogue_close(k->c);
    store_close(k->trace);
    return counts.gets - 1; /* `fmt` */
}

static int print_version(void *ctx, const struct version_info *v)
{
    return buf_printf(ctx, "%s:%u %d %s %d\n", v->name, (unsigned)v->version, (int)v->status,
                      v->owner, (int)v->manifest.length);
}

/* The listing as text, and how many records were read for it. */
static uint64_t list_counted(struct world *w, const char *keep, struct buf *text)
{
    struct counted k;

    buf_clear(text);
    open_counted(w, keep, &k);
    assert_int_equal(catalogue_list(k.c, NULL, print_version, text, NULL), 0);
    return close_counted(&k);
}

static void fill_world(struct world *w)
{
    struct version_info v;
    char name[16];

    for (unsigned i = 0; i < NAMES; i++) {
        /* neighbours in key order that are none in name order */
        (void)snprintf(name, sizeof name, i % 3 ? "n%02u%cx" : "n%02u", i / 3,
                       i % 3 == 1 ? '-' : '.');
        for (unsigned n = 0; n < VERSIONS; n++)
            assert_int_equal(publish(w->c, w->store, name, &v, NULL), 0);
    }
}

static void test_many_threads_list_as_one(void **state)
{
    struct world *w = *state;
    AUTO(buf_release) struct buf near = BUF_INIT(1u << 20), far = BUF_INIT(1u << 20);

    assert_int_equal(list_counted(w, NULL, &far), 0); /* an empty one */
    assert_int_equal(far.size, 0);
    fill_world(w);
    catalogue_set_readers(w->c, 1);
    assert_int_equal(catalogue_list(w->c, NULL, print_version, &near, NULL), 0);
    assert_int_equal(list_counted(w, NULL, &far), NAMES * VERSIONS);
    assert_string_equal(buf_text(&far), buf_text(&near));
}

static void test_a_failed_run_fails_the_listing(void **state)
{
    struct world *w = *state;

    fill_world(w);
    for (uint64_t nth = 2; nth < 12; nth++) { /* 1 is `fmt`; then the names, then the runs */
        struct store_fault_plan plan = {.nth = nth, .code = -EIO};
        AUTO(buf_release) struct buf text = BUF_INIT(1u << 20);
        struct store *fault = faulty(w->store, &plan);
        struct catalogue *c = NULL;
        struct err err = ERR_INIT;
        assert_int_equal(catalogue_open(fault, &w->env, CATALOGUE_READ, &c, NULL), 0);
        catalogue_set_readers(c, FAR_AWAY);
        assert_int_equal(catalogue_list(c, NULL, print_version, &text, &err), -EIO);
        assert_true(store_fault_fired(fault));
        assert_non_null(strstr(err.text, "cannot list"));
        catalogue_close(c);
        store_close(fault);
    }
}

static void keep_path(struct world *w, const char *keep, char ret_path[static 128])
{
    (void)snprintf(ret_path, 128, "%s/%s", keep, catalogue_store_id(w->c));
}

static void test_kept_records_are_not_read_again(void **state)
{
    struct world *w = *state;
    AUTO(buf_release) struct buf first = BUF_INIT(1u << 20), again = BUF_INIT(1u << 20);
    char keep[] = "/tmp/grid-test-keep-XXXXXX", path[128];
    struct version_info v;

    assert_non_null(mkdtemp(keep));
    fill_world(w);
    assert_int_equal(list_counted(w, keep, &first), NAMES * VERSIONS);
    assert_int_equal(list_counted(w, keep, &again), 0);
    assert_string_equal(buf_text(&again), buf_text(&first));
    assert_int_equal(publish(w->c, w->store, "n00", &v, NULL), 0);
    assert_int_equal(list_counted(w, keep, &again), 1);
    assert_int_equal(again.size,
                     first.size + (strchr(buf_text(&first), '\n') - buf_text(&first)) + 1);
    keep_path(w, keep, path);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(list_counted(w, keep, &again), NAMES * VERSIONS + 1);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(rmdir(keep), 0); /* nothing else was left there */
}

/* A byte of the file changed, or its end cut off: the listing is right, some is read again. */
static void test_damage_of_what_is_kept_costs_a_read(void **state)
{
    struct world *w = *state;
    AUTO(buf_release) struct buf first = BUF_INIT(1u << 20), again = BUF_INIT(1u << 20);
    AUTO(buf_release) struct buf good = BUF_INIT(1u << 20);
    char keep[] = "/tmp/grid-test-keep-XXXXXX", path[128];
    struct version_info v;
    uint64_t reads = 0;

    assert_non_null(mkdtemp(keep));
    for (unsigned n = 0; n < 3; n++)
        assert_int_equal(publish(w->c, w->store, "cats", &v, NULL), 0);
    assert_int_equal(list_counted(w, keep, &first), 3);
    keep_path(w, keep, path);
    assert_int_equal(file_slurp(AT_FDCWD, path, &good), 0);
    for (size_t i = 0; i < good.size; i += 7) {
        AUTO(close_fd) int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
        assert_true(fd >= 0);
        good.data[i] ^= 0x21;
        assert_int_equal(file_write(fd, good.data, i % 2 ? good.size : i), 0);
        good.data[i] ^= 0x21;
        reads += list_counted(w, keep, &again);
        assert_string_equal(buf_text(&again), buf_text(&first));
    }
    assert_true(reads >= good.size / 7 * 9 / 10); /* next to every byte is looked at */
    assert_int_equal(unlink(path), 0);
    assert_int_equal(rmdir(keep), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        BOTH(test_many_threads_list_as_one),
        BOTH(test_a_failed_run_fails_the_listing),
        BOTH(test_kept_records_are_not_read_again),
        BOTH(test_damage_of_what_is_kept_costs_a_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
