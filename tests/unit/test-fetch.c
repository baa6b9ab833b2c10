/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fetch/: every byte right or an error, whatever is asked, damaged or raced for; how often the
 * store is asked; and the limit of memory.
 */
#include "pack-object.h"

#include "base/log.h"
#include "base/vec.h"
#include "fetch/fetch.h"
#include "store/store.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

#define LIMIT (UINT64_C(32) << 20) /* the least that a fetch takes */
#define KEY   "p/0123456789abcdef0123456789abcdef/1"

/* ---- a store that holds one object
 * -------------------------------------------------------------------------- */

struct world {
    struct object object;
    struct store *store; /* a trace */
    struct fetch *fetch;
    struct fetch_object *fetched;
    uint64_t *starts; /* of each leaf, bytes; one more at the end */
    uint32_t *lengths;
};

static void slow_down(void *ctx, const char *call, const char *key, int result)
{
    struct timespec t = {.tv_nsec = 20000000};

    if (ctx)
        (void)nanosleep(&t, NULL); /* so that others come while we read; too early is no harm */
}

static void world_open(struct world *w, bool slow)
{
    struct store *memory = NULL;

    assert_int_equal(store_memory_new(&memory), 0);
    assert_int_equal(store_trace_new(memory, slow_down, slow ? w : NULL, &w->store), 0);
    if (w->object.bytes.size) {
        struct store_upload *u = NULL;
        assert_int_equal(store_upload(w->store, KEY, &u), 0);
        assert_int_equal(store_upload_write(u, w->object.bytes.data, w->object.bytes.size), 0);
        assert_int_equal(store_upload_commit(u), 0);
    }
    assert_int_equal(
        fetch_new(&(struct fetch_options){.store = w->store, .memory_bytes = LIMIT}, &w->fetch), 0);
    assert_int_equal(
        fetch_object_new(w->fetch, KEY, w->object.kind, &w->object.summary, &w->fetched), 0);
}

static void world_close(struct world *w)
{
    fetch_object_free(w->fetched);
    fetch_free(w->fetch);
    store_close(w->store);
}

static void world_release(struct world *w)
{
    world_close(w);
    object_release(&w->object);
    free(w->starts);
    free(w->lengths);
}

static void build_world(struct world *w, enum pack_kind kind, uint64_t count, length_fn *length,
                        bool mixed)
{
    uint64_t at = 0;

    *w = (struct world){.store = NULL};
    build(&w->object, kind, count, length, mixed);
    w->starts = calloc(count + 1, sizeof *w->starts);
    w->lengths = calloc(count + 1, sizeof *w->lengths);
    assert_non_null(w->starts);
    assert_non_null(w->lengths);
    for (uint64_t i = 0; i < count; i++) {
        w->starts[i] = at;
        w->lengths[i] = length(i) == UINT32_MAX ? FULL : length(i);
        at += pack_blocks(w->lengths[i]) * PACK_BLOCK;
    }
    w->starts[count] = at;
    world_open(w, false);
}

static uint64_t get_count(struct world *w)
{
    struct store_counts c;

    store_trace_counts(w->store, &c);
    return c.gets;
}

/* Read and compare with the object's bytes. */
static void check_read(struct world *w, uint64_t offset, size_t size, uint64_t hint)
{
    AUTO(free_ptr) uint8_t *data = malloc(size + 1);

    assert_non_null(data);
    data[size] = 0x5a;
    int r = fetch_read(w->fetched, offset, data, size, hint);
    if (r != 0)
        fail_msg("reading %zu at %llu gave %d", size, (unsigned long long)offset, r);
    assert_memory_equal(data, w->object.bytes.data + offset, size);
    assert_int_equal(data[size], 0x5a);
}

static int read_code(struct world *w, uint64_t offset, size_t size)
{
    AUTO(free_ptr) uint8_t *data = malloc(size);

    assert_non_null(data);
    return fetch_read(w->fetched, offset, data, size, FETCH_NO_HINT);
}

/* A world whose object has one bit turned. */
static void damage(struct world *w, uint64_t offset)
{
    world_close(w);
    w->object.bytes.data[offset] ^= 0x10;
    world_open(w, false);
}

static void log_to_nowhere(void)
{
    int fd = open("/dev/null", O_WRONLY | O_CLOEXEC);

    assert_true(fd >= 0);
    log_init(fd, LOG_LEVEL_DEBUG, "test");
}

/* ---- bytes
 * ---------------------------------------------------------------------------------------------------
 */

static void read_all_leaves(struct world *w)
{
    uint64_t count = w->object.summary.leaf_count;

    for (uint64_t k = 0; k < count; k++) {
        uint64_t i = k * 7919 % count; /* in no order */
        uint64_t hint = i % 3 == 0 ? i : i % 3 == 1 ? FETCH_NO_HINT : (i + 150) % (count + 20);
        uint32_t n = w->lengths[i];
        check_read(w, w->starts[i], n, hint);
        check_read(w, w->starts[i] + n / 2, n - n / 2, hint);
        check_read(w, w->starts[i] + n - 1, 1, hint);
    }
}

static void test_bytes(void **state)
{
    struct world w;

    build_world(&w, PACK_KIND_DATA, 250, length_mixed, true);
    read_all_leaves(&w);
    /* A blob of three leaves, read across their borders. */
    check_read(&w, 0, 2 * FULL + w.lengths[2], 0);
    check_read(&w, FULL - 1, 2, FETCH_NO_HINT);
    check_read(&w, FULL / 2, FULL + 10, FETCH_NO_HINT);
    /* A blob across the border of pages. */
    check_read(&w, w.starts[101] + 5, FULL, 101);
    world_release(&w);
}

static void test_two_levels(void **state)
{
    struct world w;

    build_world(&w, PACK_KIND_DATA, 104449, length_one, false);
    for (uint64_t i = 0; i < 104449; i += 997)
        check_read(&w, w.starts[i], 1, i);
    check_read(&w, w.starts[104448], 1, FETCH_NO_HINT);
    check_read(&w, w.starts[0], 1, FETCH_NO_HINT);
    world_release(&w);
}

static void test_index(void **state)
{
    struct world w;

    build_world(&w, PACK_KIND_INDEX, 5, length_index, false);
    for (uint64_t at = 0; at + 512 <= 4 * PACK_INDEX_LEAF; at += 512)
        check_read(&w, at, 512, FETCH_NO_HINT);
    check_read(&w, 100, 3 * PACK_INDEX_LEAF, FETCH_NO_HINT);
    check_read(&w, 4 * PACK_INDEX_LEAF - 7, 107, FETCH_NO_HINT);
    assert_int_equal(read_code(&w, 4 * PACK_INDEX_LEAF, 101), -EPROTO);
    world_release(&w);
}

static void test_outside(void **state)
{
    struct world w;
    uint64_t end;

    build_world(&w, PACK_KIND_DATA, 110, length_small, false);
    end = w.object.summary.data_size;
    for (uint64_t i = 0; i < 110; i++) {
        if (w.lengths[i] < 512) {
            assert_int_equal(read_code(&w, w.starts[i], w.lengths[i] + 1), -EPROTO);
            assert_int_equal(read_code(&w, w.starts[i] + w.lengths[i], 1), -EPROTO);
            assert_int_equal(read_code(&w, w.starts[i] + w.lengths[i], 700), -EPROTO);
        }
    }
    assert_int_equal(read_code(&w, end, 1), -EPROTO);
    assert_int_equal(read_code(&w, UINT64_MAX, 1), -EPROTO);
    assert_int_equal(read_code(&w, UINT64_MAX - 5, 100), -EPROTO);
    assert_int_equal(read_code(&w, 0, end + 1), -EPROTO);
    assert_int_equal(fetch_read(w.fetched, 0, &end, 0, FETCH_NO_HINT), 0);
    world_release(&w);
}

/* ---- how often the store is asked
 * --------------------------------------------------------------------------- */

static uint32_t length_full(uint64_t number)
{
    return number % 16 == 0 ? FULL : UINT32_MAX; /* blobs of 1 MiB */
}

static void test_gets(void **state)
{
    struct world w;

    /* A small pack's trailer and table come together, then the leaf; then nothing. */
    build_world(&w, PACK_KIND_DATA, 250, length_mixed, true);
    check_read(&w, w.starts[200], 10, 200);
    assert_int_equal(get_count(&w), 2);
    check_read(&w, w.starts[200] + 10, 10, FETCH_NO_HINT);
    check_read(&w, w.starts[200], w.lengths[200], 200);
    assert_int_equal(get_count(&w), 2);
    world_release(&w);

    /* A long read is one get for each MiB. */
    build_world(&w, PACK_KIND_DATA, 64, length_full, false);
    check_read(&w, 0, 4u << 20, 0);
    assert_int_equal(get_count(&w), 1 + 4);
    struct fetch_stats s;
    fetch_stats(w.fetch, &s);
    assert_int_equal(s.misses, 64);
    assert_int_equal(s.bytes_verified, 4u << 20);
    assert_int_equal(s.damaged, 0);
    world_release(&w);
}

/* ---- damage
 * ---------------------------------------------------------------------------------------------------
 */

static void test_damaged_leaf(void **state)
{
    struct world w;
    struct fetch_stats s;

    build_world(&w, PACK_KIND_DATA, 250, length_mixed, true);
    damage(&w, w.starts[1] + 12345);
    check_read(&w, 0, FULL, 0);
    assert_int_equal(read_code(&w, FULL, FULL), -EBADMSG);
    assert_int_equal(read_code(&w, FULL, 1), -EBADMSG); /* the whole leaf, and not cached */
    assert_int_equal(read_code(&w, FULL - 1, 2), -EBADMSG);
    assert_int_equal(read_code(&w, 0, 2 * FULL + 5), -EBADMSG);
    check_read(&w, 2 * FULL, w.lengths[2], 2);
    fetch_stats(w.fetch, &s);
    assert_int_equal(s.damaged, 4);
    for (uint64_t i = 2; i < 250; i++)
        check_read(&w, w.starts[i], w.lengths[i], i);
    world_release(&w);
}

static void test_damaged_table(void **state)
{
    struct world w;

    build_world(&w, PACK_KIND_DATA, 250, length_mixed, true);
    uint64_t table = w.object.summary.data_size;
    damage(&w, table + PACK_PAGE + 17); /* leaves 102 to 203 */
    for (uint64_t i = 0; i < 250; i++) {
        if (i >= 102 && i < 204)
            assert_int_equal(read_code(&w, w.starts[i], 1), -EBADMSG);
        else
            check_read(&w, w.starts[i], w.lengths[i], i);
    }
    w.object.bytes.data[table + PACK_PAGE + 17] ^= 0x10;
    damage(&w, w.object.summary.trailer_offset + 3);
    assert_int_equal(read_code(&w, 0, 1), -EBADMSG);
    world_release(&w);
}

static void test_damaged_group(void **state)
{
    struct world w;

    build_world(&w, PACK_KIND_DATA, 104449, length_one, false);
    /* The second page of the page table: pages 102 to 203. */
    uint64_t groups = w.object.summary.data_size + UINT64_C(1025) * PACK_PAGE;
    damage(&w, groups + PACK_PAGE + 40);
    check_read(&w, w.starts[102 * 102 - 1], 1, FETCH_NO_HINT);
    assert_int_equal(read_code(&w, w.starts[102 * 102], 1), -EBADMSG);
    assert_int_equal(read_code(&w, w.starts[204 * 102 - 1], 1), -EBADMSG);
    check_read(&w, w.starts[204 * 102], 1, FETCH_NO_HINT);
    world_release(&w);
}

static void test_short_and_missing(void **state)
{
    struct world w;

    build_world(&w, PACK_KIND_DATA, 250, length_mixed, true);
    assert_int_equal(store_remove(w.store, KEY), 0);
    assert_int_equal(read_code(&w, 0, 1), -ENOENT);
    world_close(&w);
    w.object.bytes.size--;
    world_open(&w, false);
    assert_int_equal(read_code(&w, 0, 1), -EBADMSG);
    world_close(&w);
    w.object.bytes.size++;
    world_open(&w, false);

    struct fetch_object *o = NULL;
    struct pack_summary s = w.object.summary;
    s.trailer_length = PACK_TRAILER_MAX + 1;
    assert_int_equal(fetch_object_new(w.fetch, KEY, PACK_KIND_DATA, &s, &o), -EPROTO);
    s = w.object.summary;
    s.trailer_offset = s.length + 1;
    assert_int_equal(fetch_object_new(w.fetch, KEY, PACK_KIND_DATA, &s, &o), -EPROTO);
    s = w.object.summary;
    s.data_size = s.length;
    assert_int_equal(fetch_object_new(w.fetch, KEY, PACK_KIND_DATA, &s, &o), -EPROTO);
    /* An index that is taken for a pack. */
    assert_int_equal(fetch_object_new(w.fetch, KEY, PACK_KIND_INDEX, &w.object.summary, &o), 0);
    char byte;
    assert_true(fetch_read(o, 0, &byte, 1, FETCH_NO_HINT) < 0);
    fetch_object_free(o);
    world_release(&w);
}

/* Each get fails once: an error for that read only. */
static void test_faults(void **state)
{
    struct world w;
    uint64_t fired = 0;

    build_world(&w, PACK_KIND_DATA, 250, length_mixed, true);
    for (uint64_t nth = 1; nth <= 3; nth++) {
        struct store *memory = NULL, *fault = NULL;
        struct fetch *f = NULL;
        struct fetch_object *o = NULL;
        struct store_fault_plan plan = {.nth = nth + 3, .code = -EIO}; /* behind the upload */
        uint8_t data[100];
        struct store_upload *u = NULL;
        assert_int_equal(store_memory_new(&memory), 0);
        assert_int_equal(store_fault_new(memory, &plan, &fault), 0);
        assert_int_equal(store_upload(fault, KEY, &u), 0);
        assert_int_equal(store_upload_write(u, w.object.bytes.data, w.object.bytes.size), 0);
        assert_int_equal(store_upload_commit(u), 0);
        assert_int_equal(store_fault_calls(fault), 3);
        assert_int_equal(
            fetch_new(&(struct fetch_options){.store = fault, .memory_bytes = LIMIT}, &f), 0);
        assert_int_equal(fetch_object_new(f, KEY, PACK_KIND_DATA, &w.object.summary, &o), 0);
        int r = fetch_read(o, FULL, data, sizeof data, 1);
        assert_int_equal(r, store_fault_fired(fault) ? -EIO : 0);
        fired += store_fault_fired(fault);
        assert_int_equal(fetch_read(o, FULL, data, sizeof data, 1), 0);
        assert_memory_equal(data, w.object.bytes.data + FULL, sizeof data);
        fetch_object_free(o);
        fetch_free(f);
        store_close(fault);
    }
    assert_int_equal(fired, 2); /* the trailer with the table, and the leaf */
    world_release(&w);
}

/* ---- many at once
 * ---------------------------------------------------------------------------------------------- */

#define THREADS 8

struct reader {
    struct world *w;
    unsigned number;
    atomic_bool *stop;
    uint64_t reads;
    bool wrong;
    uint64_t peak;
};

static void *read_one_leaf(void *arg)
{
    struct reader *r = arg;
    uint8_t data[1000];

    r->wrong = fetch_read(r->w->fetched, FULL, data, sizeof data, 1) != 0 ||
               memcmp(data, r->w->object.bytes.data + FULL, sizeof data) != 0;
    return NULL;
}

static void run_threads(struct world *w, void *(*fn)(void *), struct reader readers[THREADS])
{
    pthread_t threads[THREADS];

    for (unsigned i = 0; i < THREADS; i++) {
        readers[i] = (struct reader){.w = w, .number = i};
        assert_int_equal(pthread_create(&threads[i], NULL, fn, &readers[i]), 0);
    }
    for (unsigned i = 0; i < THREADS; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
        assert_false(readers[i].wrong);
    }
}

/* However they meet: each thing is read once. */
static void test_coalescing(void **state)
{
    struct world w;
    struct reader readers[THREADS];

    build_world(&w, PACK_KIND_DATA, 250, length_mixed, true);
    world_close(&w);
    world_open(&w, true);
    run_threads(&w, read_one_leaf, readers);
    assert_int_equal(get_count(&w), 2);
    world_release(&w);
}

static void *read_at_random(void *arg)
{
    struct reader *r = arg;
    struct world *w = r->w;
    uint64_t x = 88172645463325252u + r->number, count = w->object.summary.leaf_count;
    AUTO(free_ptr) uint8_t *data = malloc(2u << 20);
    struct fetch_stats s;

    for (unsigned i = 0; i < 600 && !r->wrong; i++) {
        x ^= x << 13, x ^= x >> 7, x ^= x << 17;
        uint64_t blob = x % (count / 16), at = (x >> 20) % (1u << 20);
        uint64_t size = (x >> 40) % 3 ? 4096 : (1u << 20) - at;
        uint64_t offset = (blob << 20) + at;
        if (at + size > 1u << 20)
            size = (1u << 20) - at;
        r->wrong = !data || fetch_read(w->fetched, offset, data, size, FETCH_NO_HINT) != 0 ||
                   memcmp(data, w->object.bytes.data + offset, size) != 0;
        fetch_stats(w->fetch, &s);
        if (s.memory_bytes > r->peak)
            r->peak = s.memory_bytes;
    }
    return NULL;
}

static void test_memory(void **state)
{
    struct world w;
    struct reader readers[THREADS];
    uint64_t peak = 0;

    build_world(&w, PACK_KIND_DATA, 960, length_full, false); /* 60 MiB through 32 */
    run_threads(&w, read_at_random, readers);
    for (unsigned i = 0; i < THREADS; i++)
        peak = readers[i].peak > peak ? readers[i].peak : peak;
    assert_in_range(peak, LIMIT / 2, LIMIT);
    struct fetch_stats s;
    fetch_stats(w.fetch, &s);
    assert_true(s.misses > 960); /* something had to go */
    assert_true(s.hits > 0);
    world_release(&w);
}

/* Threads that meet damage each get the error; nobody waits for ever. */
static void *read_damage(void *arg)
{
    struct reader *r = arg;
    uint8_t data[1000];

    r->wrong = fetch_read(r->w->fetched, FULL, data, sizeof data, 1) != -EBADMSG;
    return NULL;
}

static void test_damage_in_threads(void **state)
{
    struct world w;
    struct reader readers[THREADS];

    build_world(&w, PACK_KIND_DATA, 250, length_mixed, true);
    damage(&w, FULL);
    run_threads(&w, read_damage, readers);
    struct fetch_stats s;
    fetch_stats(w.fetch, &s);
    assert_in_range(s.damaged, 1, THREADS); /* those who meet wait for one get */
    world_release(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bytes),
        cmocka_unit_test(test_two_levels),
        cmocka_unit_test(test_index),
        cmocka_unit_test(test_outside),
        cmocka_unit_test(test_gets),
        cmocka_unit_test(test_damaged_leaf),
        cmocka_unit_test(test_damaged_table),
        cmocka_unit_test(test_damaged_group),
        cmocka_unit_test(test_short_and_missing),
        cmocka_unit_test(test_faults),
        cmocka_unit_test(test_coalescing),
        cmocka_unit_test(test_memory),
        cmocka_unit_test(test_damage_in_threads),
    };

    log_to_nowhere();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
