/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The wrappers of a store: fault, retry and trace. Each test of a fault asserts that it fired.
 */
#include "store-helpers.h"

/* ---- faults: whatever fails, a value is absent or whole ---- */

#define FAULT_LIMIT 100 /* more calls than the work below makes */

/* The work: allocate, upload, commit, read, remove. The first error ends it. */
static int some_work(struct store *s)
{
    struct store_upload *u;
    struct buf b = BUF_INIT(1000);
    struct store_space space;
    int r = put(s, "n/v/a", "allocation");

    if (r == 0)
        r = store_upload(s, "p/1", &u);
    if (r == 0) {
        (void)store_upload_write(u, "pack ", 5); /* sticky: the commit tells */
        (void)store_upload_write(u, "data", 4);
        r = store_upload_commit(u);
    }
    if (r == 0)
        r = put(s, "n/v/o", "outcome");
    if (r == 0)
        r = store_list(s, "n/", NULL, list_line, &b, NULL);
    if (r == 0)
        r = store_get_all(s, "p/1", &b);
    if (r == 0)
        r = store_space(s, &space);
    if (r == 0)
        r = store_remove(s, "n/v/a");
    buf_release(&b);
    return r;
}

static bool absent_or_whole(struct store *s, const char *key, const char *text)
{
    uint8_t byte;
    size_t got;

    if (store_get(s, key, 0, &byte, 1, &got, NULL) == -ENOENT)
        return false;
    assert_object(s, key, text);
    return true;
}

static void faults_leave_values_absent_or_whole(const struct kind *kind, bool after)
{
    uint64_t calls = 0;

    for (uint64_t nth = 1;; nth++) {
        struct store_fault_plan plan = {.nth = nth, .code = -EIO, .after = after};
        struct fixture f = kind->open();
        struct store *below = f.s; /* looks at what is there without a fault */
        assert_true(nth < FAULT_LIMIT);
        assert_int_equal(store_fault_new(f.s, &plan, &f.s), 0);
        int r = some_work(f.s);
        bool fired = store_fault_fired(f.s);
        assert_int_equal(r, fired ? -EIO : 0);
        calls = store_fault_calls(f.s);

        bool allocated = absent_or_whole(below, "n/v/a", "allocation");
        bool stored = absent_or_whole(below, "p/1", "pack data");
        bool decided = absent_or_whole(below, "n/v/o", "outcome");
        assert_true(!decided || stored);
        assert_true(!stored || allocated || decided);
        if (nth == 1)
            assert_int_equal(allocated, after);
        fixture_close(&f);
        if (!fired) {
            assert_int_equal(calls, 10);
            assert_int_equal(nth, calls + 1);
            break;
        }
    }
}

static void faults_before(void **state)
{
    for (size_t i = 0; i < COUNT(kinds); i++) {
        if (kinds[i].is_here())
            faults_leave_values_absent_or_whole(&kinds[i], false);
    }
}

static void faults_after(void **state)
{
    for (size_t i = 0; i < COUNT(kinds); i++) {
        if (kinds[i].is_here())
            faults_leave_values_absent_or_whole(&kinds[i], true);
    }
}

static void a_fault_can_last(void **state)
{
    struct store_fault_plan plan = {.nth = 2, .code = -ENOSPC, .forever = true};
    struct fixture f = open_memory();

    assert_int_equal(store_fault_new(f.s, &plan, &f.s), 0);
    assert_int_equal(put(f.s, "a", "x"), 0);
    assert_false(store_fault_fired(f.s));
    for (int i = 0; i < 5; i++)
        assert_int_equal(put(f.s, "b", "x"), -ENOSPC);
    assert_true(store_fault_fired(f.s));
    assert_int_equal(store_fault_calls(f.s), 6);
    fixture_close(&f);
}

/* ---- retry ---- */

static const struct store_retry_policy four_attempts = {
    .attempts = 4, .first_delay_ms = 100, .max_delay_ms = 1000, .deadline_ms = 100000};

struct retried {
    struct store *fault; /* borrowed */
    struct store *s;
};

/* A retry over a fault over memory with `key`s in it. */
static struct retried retried_new(struct store_fault_plan plan,
                                  const struct store_retry_policy *policy)
{
    static const char *const keys[] = {"l/a", "l/b", "l/c/1", "l/c/2", "l/d"};
    struct retried t;

    assert_int_equal(store_memory_new(&t.s), 0);
    fill(t.s, keys, COUNT(keys));
    assert_int_equal(store_fault_new(t.s, &plan, &t.fault), 0);
    assert_int_equal(store_retry_new(t.fault, policy, &fake_env, &t.s), 0);
    fake_slept_ms = 0;
    return t;
}

static void retry_hides_one_fault(void **state)
{
    static const int codes[] = {-EIO, -ETIMEDOUT};

    for (int i = 0; i < 4; i++) {
        struct store_fault_plan plan = {.nth = 1, .code = codes[i / 2], .after = i % 2};
        struct retried t = retried_new(plan, &four_attempts);
        /* "after": the first put landed, the second is told "taken" and finds its own bytes. */
        assert_int_equal(put(t.s, "k", "mine"), 0);
        assert_true(store_fault_fired(t.fault));
        assert_int_equal(store_fault_calls(t.fault), plan.after ? 3 : 2);
        assert_object(t.s, "k", "mine");
        store_close(t.s);

        t = retried_new(plan, &four_attempts);
        assert_object(t.s, "l/a", "x");
        assert_true(store_fault_fired(t.fault));
        store_close(t.s);

        t = retried_new(plan, &four_attempts);
        assert_int_equal(store_remove(t.s, "l/a"), 0);
        assert_true(store_fault_fired(t.fault));
        assert_absent(t.s, "l/a");
        store_close(t.s);

        /* "after": all rows came before the error, none may come twice. */
        t = retried_new(plan, &four_attempts);
        assert_list(t.s, "l/", false, NULL, "l/a=1 l/b=1 l/c/1=1 l/c/2=1 l/d=1 ");
        assert_true(store_fault_fired(t.fault));
        store_close(t.s);

        t = retried_new(plan, &four_attempts);
        assert_list(t.s, "l/", true, "l/a", "l/b=1 l/c/ l/d=1 ");
        assert_true(store_fault_fired(t.fault));
        store_close(t.s);
    }
}

static void retry_does_not_claim_the_bytes_of_others(void **state)
{
    static const char *const bodies[] = {"y", "xx", ""}; /* the key holds "x" */

    for (size_t i = 0; i < COUNT(bodies); i++) {
        struct store_fault_plan plan = {.nth = 1, .code = -EIO};
        struct retried t = retried_new(plan, &four_attempts);
        assert_int_equal(put(t.s, "l/a", bodies[i]), -EEXIST);
        assert_true(store_fault_fired(t.fault));
        assert_int_equal(store_fault_calls(t.fault), 3);
        assert_object(t.s, "l/a", "x");
        store_close(t.s);
    }
    /* Equal bytes of another, without a failed attempt of ours: not ours. */
    struct retried t = retried_new((struct store_fault_plan){0}, &four_attempts);
    assert_int_equal(put(t.s, "l/a", "x"), -EEXIST);
    store_close(t.s);
}

static void retry_gives_up_after_its_attempts(void **state)
{
    struct store_fault_plan plan = {.nth = 1, .code = -EIO, .forever = true};
    struct retried t = retried_new(plan, &four_attempts);

    assert_int_equal(put(t.s, "k", "x"), -EIO);
    assert_int_equal(store_fault_calls(t.fault), 4);
    assert_true(fake_slept_ms > 0 && fake_slept_ms <= 100 + 200 + 400);
    store_close(t.s);
}

static void retry_gives_up_at_its_deadline(void **state)
{
    struct store_retry_policy policy = {
        .attempts = 1000000, .first_delay_ms = 100, .max_delay_ms = 400, .deadline_ms = 5000};
    struct store_fault_plan plan = {.nth = 1, .code = -ETIMEDOUT, .forever = true};
    struct retried t = retried_new(plan, &policy);
    struct buf b = BUF_INIT(1000);

    assert_int_equal(store_list(t.s, "", NULL, list_line, &b, NULL), -ETIMEDOUT);
    assert_true(store_fault_fired(t.fault));
    assert_true(store_fault_calls(t.fault) >= 5000 / 400);
    assert_true(fake_slept_ms < 5000 && fake_slept_ms >= 5000 - 400);
    assert_int_equal(b.size, 0);
    buf_release(&b);
    store_close(t.s);
}

static void retry_leaves_plain_answers_alone(void **state)
{
    static const int codes[] = {-ENOSPC, -EACCES, -EROFS, -ENOENT, -EEXIST, -EPROTO};

    for (size_t i = 0; i < COUNT(codes); i++) {
        struct store_fault_plan plan = {.nth = 1, .code = codes[i]};
        struct retried t = retried_new(plan, &four_attempts);
        assert_int_equal(put(t.s, "k", "x"), codes[i]);
        assert_true(store_fault_fired(t.fault));
        assert_int_equal(store_fault_calls(t.fault), 1);
        assert_int_equal(fake_slept_ms, 0);
        store_close(t.s);
    }
}

static void retry_does_not_repeat_uploads(void **state)
{
    for (uint64_t nth = 1; nth <= 3; nth++) {
        struct store_fault_plan plan = {.nth = nth, .code = -EIO};
        struct retried t = retried_new(plan, &four_attempts);
        struct store_upload *u;
        int r = store_upload(t.s, "p", &u);
        if (r == 0) {
            int written = store_upload_write(u, "x", 1);
            r = store_upload_commit(u);
            assert_int_equal(written, nth == 2 ? -EIO : 0);
        }
        assert_int_equal(r, -EIO);
        assert_true(store_fault_fired(t.fault));
        assert_absent(t.s, "p");
        store_close(t.s);
    }
}

/* ---- trace ---- */

static void trace_line(void *ctx, const char *call, const char *key, int result)
{
    assert_int_equal(buf_printf(ctx, "%s %s %d\n", call, key, result), 0);
}

static void trace_tells_and_counts(void **state)
{
    struct buf log = BUF_INIT(10000), rows = BUF_INIT(1000);
    struct store_counts counts;
    struct store_upload *u;
    struct store *s;
    char data[8];
    size_t got;

    assert_int_equal(store_memory_new(&s), 0);
    assert_int_equal(store_trace_new(s, trace_line, &log, &s), 0);
    assert_string_equal(s->location, "memory:");
    assert_int_equal(put(s, "a", "12345"), 0);
    assert_int_equal(put(s, "a", "1"), -EEXIST);
    assert_int_equal(store_get(s, "a", 3, data, sizeof data, &got, NULL), 0);
    assert_int_equal(store_list(s, "", NULL, list_line, &rows, NULL), 0);
    assert_int_equal(store_upload(s, "p", &u), 0);
    assert_int_equal(store_upload_write(u, "123", 3), 0);
    assert_int_equal(store_upload_commit(u), 0);
    assert_int_equal(store_upload(s, "q", &u), 0);
    store_upload_abort(u);
    assert_int_equal(store_remove(s, "a"), 0);

    char expected[512];
    (void)snprintf(expected, sizeof expected,
                   "put_if_absent a 0\nput_if_absent a %d\nget a 0\nlist  0\nupload p 0\n"
                   "upload_write p 0\nupload_commit p 0\nupload q 0\nupload_abort q 0\n"
                   "remove a 0\n",
                   -EEXIST);
    assert_string_equal(buf_text(&log), expected);
    store_trace_counts(s, &counts);
    assert_int_equal(counts.puts, 2);
    assert_int_equal(counts.gets, 1);
    assert_int_equal(counts.lists, 1);
    assert_int_equal(counts.removes, 1);
    assert_int_equal(counts.uploads, 2);
    assert_int_equal(counts.put_bytes, 5 + 1 + 3);
    assert_int_equal(counts.get_bytes, 2);
    buf_release(&log);
    buf_release(&rows);
    store_close(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(faults_before),
        cmocka_unit_test(faults_after),
        cmocka_unit_test(a_fault_can_last),
        cmocka_unit_test(retry_hides_one_fault),
        cmocka_unit_test(retry_does_not_claim_the_bytes_of_others),
        cmocka_unit_test(retry_gives_up_after_its_attempts),
        cmocka_unit_test(retry_gives_up_at_its_deadline),
        cmocka_unit_test(retry_leaves_plain_answers_alone),
        cmocka_unit_test(retry_does_not_repeat_uploads),
        cmocka_unit_test(trace_tells_and_counts),
    };
    return cmocka_run_group_tests_name("store-wrappers", tests, NULL, NULL);
}
