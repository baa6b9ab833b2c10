/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fetch/ over a store that answers later: what goes out together, what waits for what (in rounds of
 * answers, not in time), operations that are parked and run again, faults, and reading ahead.
 */
#include "pack-object.h"

#include "base/log.h"
#include "fetch/fetch.h"
#include "store/store-internal.h"

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>

#define LIMIT (UINT64_C(32) << 20)
#define KEY   "p/0123456789abcdef0123456789abcdef/1"

/* ---- a store that answers when it is told to ---- */

struct asked {
    uint64_t offset;
    size_t size;
    void *data;
    store_done_fn *done;
    void *ctx;
    unsigned round;
};

struct far {
    struct store base;
    struct object *object;
    pthread_mutex_t lock;
    struct asked asked[4096];
    unsigned count, answered;
    bool automatic;    /* a thread answers, all that is there at once: a round */
    uint64_t flip;     /* this byte comes wrong ... */
    atomic_uint flips; /* ... so often */
    atomic_uint rounds;
    atomic_int code; /* what is given instead of bytes */
    atomic_uint failed;
    atomic_bool silent;
    uint64_t bytes;
    pthread_t thread;
    atomic_bool stop;
};

static int far_get(struct store *s, const char *key, uint64_t offset, void *data, size_t size,
                   size_t *ret_size, uint64_t *ret_length)
{
    fail_msg("a get that waits");
    return -EIO;
}

static int far_get_async(struct store *s, const char *key, uint64_t offset, void *data, size_t size,
                         store_done_fn *done, void *ctx)
{
    struct far *f = (struct far *)s;
    WITH_LOCK(&f->lock);

    assert_true(f->count < sizeof f->asked / sizeof *f->asked);
    f->asked[f->count++] = (struct asked){offset, size, data, done, ctx, f->rounds};
    f->bytes += size;
    return 0;
}

/* Answer all that has been asked so far; gives how much that was. */
static unsigned far_answer(struct far *f)
{
    unsigned first, end;
    {
        WITH_LOCK(&f->lock);
        first = f->answered;
        end = f->answered = f->count;
        if (first < end)
            f->rounds++;
    }
    for (unsigned i = first; i < end; i++) {
        struct asked *a = &f->asked[i];
        const struct buf *b = &f->object->bytes;
        int code = atomic_load(&f->code);
        size_t n = a->offset >= b->size ? 0 : b->size - (size_t)a->offset;
        n = n < a->size ? n : a->size;
        if (code == 0)
            memcpy(a->data, b->data + a->offset, n);
        if (code == 0 && f->flips && f->flip >= a->offset && f->flip < a->offset + n) {
            ((uint8_t *)a->data)[f->flip - a->offset] ^= 1;
            f->flips--;
        }
        if (code)
            f->failed++;
        a->done(a->ctx, code, code ? 0 : n);
    }
    return end - first;
}

static void *far_run(void *arg)
{
    struct far *f = arg;

    while (!f->stop) {
        (void)poll(NULL, 0, 2); /* so that what is asked together is answered together */
        if (!f->silent)
            (void)far_answer(f);
    }
    return NULL;
}

static void far_close(struct store *s)
{
    struct far *f = (struct far *)s;

    f->silent = false;
    f->code = -ECANCELED;
    while (far_answer(f) > 0)
        continue;
    store_release(s);
}

static const struct store_ops far_ops = {
    .kind = "far", .get = far_get, .get_async = far_get_async, .close = far_close};

/* The same, which cannot call back: whoever asks waits. */
static int waiting_get(struct store *s, const char *key, uint64_t offset, void *data, size_t size,
                       size_t *ret_size, uint64_t *ret_length)
{
    struct far *f = (struct far *)s;
    const struct buf *b = &f->object->bytes;

    (void)poll(NULL, 0, 1);
    *ret_size = offset >= b->size                 ? 0
                : b->size - (size_t)offset < size ? b->size - (size_t)offset
                                                  : size;
    memcpy(data, b->data + offset, *ret_size);
    f->rounds++;
    return 0;
}

static const struct store_ops waiting_ops = {
    .kind = "waiting", .get = waiting_get, .close = far_close};

struct world {
    struct object object;
    struct far far;
    struct fetch *fetch;
    struct fetch_object *fetched;
};

static const struct store_ops *world_ops = &far_ops;

static void world_open(struct world *w, struct fetch_options o, bool automatic)
{
    w->far = (struct far){.object = &w->object, .lock = PTHREAD_MUTEX_INITIALIZER};
    assert_int_equal(store_init(&w->far.base, world_ops, "far:"), 0);
    w->far.automatic = automatic;
    o.store = &w->far.base;
    o.memory_bytes = LIMIT;
    assert_int_equal(fetch_new(&o, &w->fetch), 0);
    assert_int_equal(
        fetch_object_new(w->fetch, KEY, w->object.kind, &w->object.summary, &w->fetched), 0);
    if (automatic)
        assert_int_equal(pthread_create(&w->far.thread, NULL, far_run, &w->far), 0);
}

static void world_close(struct world *w)
{
    if (w->far.automatic) {
        w->far.stop = true;
        assert_int_equal(pthread_join(w->far.thread, NULL), 0);
    }
    fetch_object_free(w->fetched);
    fetch_free(w->fetch);
    store_close(&w->far.base);
}

static void log_to(const char *path)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    assert_true(fd >= 0);
    log_init(fd, LOG_LEVEL_DEBUG, "test");
}

static void check_read(struct world *w, uint64_t offset, size_t size, const struct fetch_hint *hint)
{
    AUTO(free_ptr) uint8_t *data = malloc(size + 1);

    int r = fetch_read_hinted(w->fetched, offset, data, size, hint);
    if (r != 0)
        fail_msg("reading %zu at %llu gave %d", size, (unsigned long long)offset, r);
    assert_memory_equal(data, w->object.bytes.data + offset, size);
}

/* Leaves of 1 MiB blobs, and of small files: leaf n of those starts at 1024 * n. */
static uint32_t length_full(uint64_t number)
{
    return number % 16 == 0 ? FULL : UINT32_MAX;
}

static uint32_t length_700(uint64_t number)
{
    return 700;
}

#define SMALL 6400u /* a table of 63 pages: more than comes along with the trailer */

static struct fetch_hint small_file(uint64_t number)
{
    return (struct fetch_hint){1024 * number, 1024 * number + 700, number};
}

static struct fetch_hint large_file(uint64_t number)
{
    return (struct fetch_hint){number << 20, (number + 1) << 20, number * 16};
}

static const struct fetch_options plain = {.prefetch = FETCH_PREFETCH_NONE};
static const struct fetch_options adaptive = {.prefetch = FETCH_PREFETCH_ADAPTIVE};

static void settle(void)
{
    (void)poll(NULL, 0, 1);
}

/* ---- rounds: what waits for what ---- */

/* Trailer, page and data come together if the reader knows the place; else one after the other. */
static void test_rounds(void **state)
{
    struct world w;
    struct fetch_hint hint = small_file(3000);

    build(&w.object, PACK_KIND_DATA, SMALL, length_700, false);
    world_open(&w, plain, true);
    check_read(&w, hint.start + 10, 500, &hint);
    assert_int_equal(w.far.rounds, 1);
    assert_int_equal(w.far.count, 3);
    check_read(&w, hint.start, 700, NULL);
    assert_int_equal(w.far.rounds, 1);
    hint = small_file(3001); /* the table is known, and neighbours share its page */
    check_read(&w, hint.start, 700, &hint);
    assert_int_equal(w.far.rounds, 2);
    assert_int_equal(w.far.count, 4);
    world_close(&w);

    world_open(&w, plain, true);
    check_read(&w, hint.start, 700, NULL);
    assert_int_equal(w.far.rounds, 3);
    world_close(&w);

    /* A wrong number costs rounds, a wrong place too; never a byte. */
    world_open(&w, plain, true);
    hint.leaf = 17;
    check_read(&w, hint.start, 700, &hint);
    hint = (struct fetch_hint){1024 * 4000, 1024 * 4003, 4000};
    check_read(&w, hint.start, 700, &hint);
    hint = (struct fetch_hint){1024 * 5000 + 512, 1024 * 5000 + 700, 5000};
    check_read(&w, hint.start, 100, &hint);
    world_close(&w);
    object_release(&w.object);
}

static void test_rounds_two_levels(void **state)
{
    struct world w;
    struct fetch_hint hint = {512 * 70000, 512 * 70000 + 1, 70000};

    build(&w.object, PACK_KIND_DATA, 104449, length_one, false);
    world_open(&w, plain, true);
    check_read(&w, hint.start, 1, &hint);
    assert_int_equal(w.far.rounds, 1);
    assert_int_equal(w.far.count, 4);
    world_close(&w);
    object_release(&w.object);
}

static void test_rounds_index(void **state)
{
    struct world w;

    build(&w.object, PACK_KIND_INDEX, 5, length_index, false);
    world_open(&w, plain, true);
    check_read(&w, 100, 3 * PACK_INDEX_LEAF, NULL);
    assert_int_equal(w.far.rounds, 1);
    check_read(&w, 4 * PACK_INDEX_LEAF - 7, 107, NULL);
    assert_int_equal(w.far.rounds, 2);
    world_close(&w);
    object_release(&w.object);
}

/* ---- parked operations ---- */

struct op {
    struct fetch_ticket ticket; /* first */
    struct world *w;
    uint64_t offset;
    size_t size;
    struct fetch_hint hint;
    uint8_t *data;
    int result;
    unsigned runs;
    bool ended;
    struct op *next;
};

static pthread_mutex_t ready_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t ready_cond = PTHREAD_COND_INITIALIZER;
static struct op *ready_list;

static void on_ready(struct fetch_ticket *t)
{
    struct op *op = (struct op *)t;
    WITH_LOCK(&ready_lock);

    op->next = ready_list;
    ready_list = op;
    (void)pthread_cond_signal(&ready_cond);
}

static void run_op(struct op *op)
{
    fetch_try_begin(&op->ticket);
    op->result = fetch_read_hinted(op->w->fetched, op->offset, op->data, op->size, &op->hint);
    op->runs++;
    if (fetch_try_end(&op->ticket))
        fetch_ticket_park(&op->ticket);
    else
        op->ended = true;
}

static void begin_op(struct op *op, struct world *w, struct fetch_hint hint, size_t size)
{
    *op = (struct op){.w = w, .offset = hint.start, .size = size, .hint = hint};
    op->data = malloc(size);
    fetch_ticket_init(&op->ticket, w->fetch, on_ready);
    run_op(op);
}

static struct op *next_ready(void)
{
    WITH_LOCK(&ready_lock);

    while (!ready_list)
        (void)pthread_cond_wait(&ready_cond, &ready_lock);
    struct op *op = ready_list;
    ready_list = op->next;
    return op;
}

static void finish(struct op *ops, unsigned count, unsigned ended)
{
    while (ended < count) {
        struct op *op = next_ready();
        run_op(op);
        ended += op->ended;
    }
    for (unsigned i = 0; i < count; i++) {
        assert_int_equal(ops[i].result, 0);
        assert_memory_equal(ops[i].data, ops[i].w->object.bytes.data + ops[i].offset, ops[i].size);
        free(ops[i].data);
    }
}

/* A thousand who wait for one leaf: no thread of theirs, one get, each told once. */
static void test_one_for_all(void **state)
{
    static struct op ops[1000];
    struct world w;
    struct fetch_stats s;

    build(&w.object, PACK_KIND_DATA, SMALL, length_700, false);
    world_open(&w, plain, false);
    for (unsigned i = 0; i < 1000; i++)
        begin_op(&ops[i], &w, small_file(77), 700);
    assert_int_equal(w.far.count, 3);
    fetch_stats(w.fetch, &s);
    assert_int_equal(s.waiting, 1000);
    assert_int_equal(far_answer(&w.far), 3);
    finish(ops, 1000, 0);
    for (unsigned i = 0; i < 1000; i++)
        assert_int_equal(ops[i].runs, 2);
    assert_int_equal(w.far.count, 3);
    fetch_stats(w.fetch, &s);
    assert_int_equal(s.stalls, 1000);
    assert_int_equal(s.waiting, 0);
    world_close(&w);
    object_release(&w.object);
}

/* More is wanted at once than memory holds: everybody gets on, within the limit. */
static void test_more_than_memory(void **state)
{
    static struct op ops[300];
    struct world w;
    struct fetch_stats s;
    unsigned ended = 0;

    build(&w.object, PACK_KIND_DATA, 960, length_full, false); /* 60 MiB through 32 */
    world_open(&w, plain, true);
    for (unsigned i = 0; i < 300; i++) {
        /* Across blobs: without the table the second one's place is not known. */
        struct fetch_hint hint = large_file(i * 7 % 58);
        begin_op(&ops[i], &w, hint, (size_t)(1 + i % 2) << 20);
        ended += ops[i].ended;
        fetch_stats(w.fetch, &s);
        assert_true(s.memory_bytes <= LIMIT);
    }
    finish(ops, 300, ended);
    fetch_stats(w.fetch, &s);
    assert_true(s.memory_bytes <= LIMIT);
    assert_true(s.gets > 60);
    world_close(&w);
    object_release(&w.object);
}

/* Recalled: `ready` is not called any more. Given up while the store is at it; and a fetch that is
 * freed while the store still has gets of it. */
static void test_recall(void **state)
{
    struct world w;
    struct op op;

    build(&w.object, PACK_KIND_DATA, SMALL, length_700, false);
    world_open(&w, plain, false);
    begin_op(&op, &w, small_file(5), 700);
    assert_true(fetch_ticket_recall(&op.ticket));
    assert_false(fetch_ticket_recall(&op.ticket));
    fetch_ticket_release(&op.ticket);
    free(op.data);
    assert_int_equal(far_answer(&w.far), 3);
    while (far_answer(&w.far) > 0)
        settle();
    assert_null(ready_list);
    begin_op(&op, &w, small_file(6000), 700);
    assert_true(fetch_ticket_recall(&op.ticket));
    fetch_ticket_release(&op.ticket);
    free(op.data);
    world_close(&w);
    object_release(&w.object);
}

/* A store that cannot call back: threads of the pool wait for it, nobody else. */
static void test_waiting_store(void **state)
{
    static struct op ops[200];
    struct world w;
    unsigned ended = 0;

    build(&w.object, PACK_KIND_DATA, SMALL, length_700, false);
    world_ops = &waiting_ops;
    world_open(&w, adaptive, false);
    for (unsigned i = 0; i < 200; i++) {
        begin_op(&ops[i], &w, small_file(i * 31 % SMALL), 700);
        ended += ops[i].ended;
    }
    assert_true(ended < 200); /* some waited, and not here */
    finish(ops, 200, ended);
    for (uint64_t i = 1000; i < 1100; i++) {
        struct fetch_hint hint = small_file(i);
        check_read(&w, hint.start, 700, &hint);
    }
    assert_true(w.far.rounds > 3);
    world_close(&w);
    world_ops = &far_ops;
    object_release(&w.object);
}

/* ---- faults ---- */

static void *end_the_fault(void *arg)
{
    struct far *f = arg;

    while (f->failed < 5)
        settle();
    f->code = 0;
    return NULL;
}

/* Reads wait while the store fails, and go on; without a limit they get the error at once. */
static void test_outage(void **state)
{
    struct fetch_options patient = {.io_timeout_ms = 60000};
    struct fetch_hint hint = small_file(9);
    struct world w;
    struct fetch_stats s;
    pthread_t thread;
    uint8_t data[700];

    build(&w.object, PACK_KIND_DATA, SMALL, length_700, false);
    world_open(&w, patient, true);
    w.far.code = -EIO;
    assert_int_equal(pthread_create(&thread, NULL, end_the_fault, &w.far), 0);
    check_read(&w, hint.start, 700, &hint);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_true(w.far.failed >= 5);
    fetch_stats(w.fetch, &s);
    assert_int_equal(s.store_error, 0);
    assert_true(s.retries >= 3);
    world_close(&w);

    world_open(&w, plain, true);
    w.far.code = -EIO;
    assert_int_equal(fetch_read_hinted(w.fetched, hint.start, data, 700, &hint), -EIO);
    w.far.code = -ENOENT;
    assert_int_equal(fetch_read_hinted(w.fetched, hint.start, data, 700, &hint), -ENOENT);
    w.far.code = 0;
    check_read(&w, hint.start, 700, &hint);
    world_close(&w);
    object_release(&w.object);
}

/* A store that says nothing: an error after the limit, for those who wait and those who are parked;
 * and when it speaks again, everything works. */
static void test_silence(void **state)
{
    struct fetch_options impatient = {.io_timeout_ms = 100};
    struct fetch_hint hint = small_file(9);
    struct world w;
    struct fetch_stats s;
    struct op op;
    uint8_t data[700];

    build(&w.object, PACK_KIND_DATA, SMALL, length_700, false);
    world_open(&w, impatient, true);
    w.far.silent = true;
    assert_int_equal(fetch_read_hinted(w.fetched, hint.start, data, 700, &hint), -ETIMEDOUT);
    begin_op(&op, &w, hint, 700);
    assert_ptr_equal(next_ready(), &op);
    run_op(&op);
    assert_true(op.ended);
    assert_int_equal(op.result, -ETIMEDOUT);
    free(op.data);
    assert_int_equal(w.far.count, 3); /* nobody asked again while it was silent */
    fetch_stats(w.fetch, &s);
    assert_true(s.stall_ns >= 200 * 1000000u);
    w.far.silent = false;
    check_read(&w, hint.start, 700, &hint);
    world_close(&w);
    object_release(&w.object);
}

/* A bit that is wrong once is nobody's business; always: an error for that leaf only. */
static void test_flipped(void **state)
{
    struct fetch_hint hint = large_file(3);
    struct world w;
    struct fetch_stats s;
    uint8_t data[100];

    build(&w.object, PACK_KIND_DATA, 960, length_full, false);
    for (unsigned what = 0; what < 3; what++) {
        const uint64_t flip[] = {(3u << 20) + 5, w.object.summary.data_size + 4096 * 0 + 48,
                                 w.object.summary.trailer_offset + 9};
        world_open(&w, plain, true);
        w.far.flip = flip[what];
        w.far.flips = 1;
        check_read(&w, hint.start, 1 << 20, &hint);
        assert_int_equal(w.far.flips, 0);
        fetch_stats(w.fetch, &s);
        assert_int_equal(s.damaged, 0);
        if (what != 1) /* a page that came along with the trailer is just read alone */
            assert_int_equal(s.retries, 1);
        world_close(&w);
    }
    world_open(&w, plain, true);
    w.far.flip = (3u << 20) + 5;
    w.far.flips = 1000;
    assert_int_equal(fetch_read_hinted(w.fetched, hint.start, data, 100, &hint), -EBADMSG);
    assert_int_equal(fetch_read_hinted(w.fetched, hint.start, data, 100, &hint), -EBADMSG);
    check_read(&w, hint.start + FULL, FULL, &hint);
    fetch_stats(w.fetch, &s);
    assert_int_equal(s.damaged, 2);
    assert_int_equal(w.far.flips, 1000 - 4);
    world_close(&w);
    object_release(&w.object);
}

/* ---- reading ahead ---- */

/* All of it in order, and all of it in no order: every byte about once. */
static void test_everything_once(void **state)
{
    struct world w;

    build(&w.object, PACK_KIND_DATA, SMALL, length_700, false);
    for (unsigned step = 1; step < 3000; step += 2736) {
        world_open(&w, adaptive, true);
        for (uint64_t i = 0; i < SMALL; i++) {
            struct fetch_hint hint = small_file(i * step % SMALL);
            check_read(&w, hint.start, 700, &hint);
        }
        assert_true(w.far.bytes * 10 <= w.object.summary.length * 11);
        assert_true(w.far.count < SMALL / 20);
        world_close(&w);
    }
    object_release(&w.object);
}

/* Random reads of a large file fetch what they read; the table is theirs once. */
static void test_random(void **state)
{
    struct world w;
    uint64_t x = 88172645463325252u, reads = 60;

    build(&w.object, PACK_KIND_DATA, 960, length_full, false);
    world_open(&w, adaptive, true);
    for (uint64_t i = 0; i < reads; i++) {
        x ^= x << 13, x ^= x >> 7, x ^= x << 17;
        /* A file of 60 MiB, of chunks of 8. */
        uint64_t at = x % (60u << 20) / 4096 * 4096, chunk = at >> 23 << 23;
        struct fetch_hint hint = {chunk, chunk + (8u << 20), FETCH_NO_HINT};
        if (hint.end > 60u << 20)
            hint.end = 60u << 20;
        check_read(&w, at, 4096, &hint);
    }
    assert_true(w.far.bytes <=
                2 * reads * FULL + w.object.summary.length - w.object.summary.data_size);
    world_close(&w);
    object_release(&w.object);
}

struct two {
    struct fetch_object *at[2];
};

static struct fetch_object *open_of_two(void *ctx, uint32_t i)
{
    return ((struct two *)ctx)->at[i];
}

/* Reading in order to the end of one object begins the next one. */
static void test_next_object(void **state)
{
    struct world w;
    struct two two;
    struct fetch_series *series = NULL;
    uint64_t whole;

    build(&w.object, PACK_KIND_DATA, SMALL, length_700, false);
    world_open(&w, adaptive, true);
    two.at[0] = w.fetched;
    assert_int_equal(
        fetch_object_new(w.fetch, "p/b/2", w.object.kind, &w.object.summary, &two.at[1]), 0);
    assert_int_equal(fetch_series_new(w.fetch, 2, UINT64_C(1) << 40, open_of_two, &two, &series),
                     0);
    fetch_object_in_series(two.at[0], series, 0);
    fetch_object_in_series(two.at[1], series, 1);
    for (uint64_t i = 0; i < SMALL; i++) {
        struct fetch_hint hint = small_file(i);
        check_read(&w, hint.start, 700, &hint);
    }
    whole = w.object.summary.length;
    for (;;) {
        WITH_LOCK(&w.far.lock);
        if (w.far.bytes > whole + (1u << 20))
            break;
        settle();
    }
    fetch_series_free(series);
    fetch_object_free(two.at[1]);
    world_close(&w);
    object_release(&w.object);
}

/* A version that fits and of which enough was read, and one that is wanted whole. */
static void test_fill(void **state)
{
    struct world w;
    struct two two;

    build(&w.object, PACK_KIND_DATA, SMALL, length_700, false); /* 6 MiB of 32 */
    for (unsigned all = 0; all < 2; all++) {
        struct fetch_series *series = NULL;
        struct fetch_stats s;
        world_open(
            &w,
            (struct fetch_options){.prefetch = all ? FETCH_PREFETCH_ALL : FETCH_PREFETCH_ADAPTIVE},
            true);
        two.at[0] = w.fetched;
        assert_int_equal(
            fetch_object_new(w.fetch, "p/b/2", w.object.kind, &w.object.summary, &two.at[1]), 0);
        assert_int_equal(fetch_series_new(w.fetch, 2, 13u << 20, open_of_two, &two, &series), 0);
        fetch_object_in_series(two.at[0], series, 0);
        fetch_object_in_series(two.at[1], series, 1);
        for (uint64_t i = 0; i < 16 && !all; i++) { /* one file of each segment */
            struct fetch_hint hint =
                small_file(i % 7 * 1024 + 300 < SMALL ? i % 7 * 1024 + 300 : 6200);
            AUTO(free_ptr) uint8_t *data = malloc(700);
            assert_int_equal(fetch_read_hinted(two.at[i / 7 % 2], hint.start, data, 700, &hint), 0);
        }
        do {
            settle();
            fetch_stats(w.fetch, &s);
        } while (s.bytes_verified < 2 * SMALL * 700 && (all || s.misses < 14));
        fetch_series_free(series);
        fetch_object_free(two.at[1]);
        world_close(&w);
    }
    object_release(&w.object);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rounds),           cmocka_unit_test(test_rounds_two_levels),
        cmocka_unit_test(test_rounds_index),     cmocka_unit_test(test_one_for_all),
        cmocka_unit_test(test_more_than_memory), cmocka_unit_test(test_recall),
        cmocka_unit_test(test_waiting_store),    cmocka_unit_test(test_outage),
        cmocka_unit_test(test_silence),          cmocka_unit_test(test_flipped),
        cmocka_unit_test(test_everything_once),  cmocka_unit_test(test_random),
        cmocka_unit_test(test_next_object),      cmocka_unit_test(test_fill),
    };

    log_to("/dev/null");
    return cmocka_run_group_tests(tests, NULL, NULL);
}
