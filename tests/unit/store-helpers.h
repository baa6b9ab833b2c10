/* SPDX-License-Identifier: Apache-2.0 */
/*
 * For the tests of stores: one of each kind to run over, a clock that only sleeping moves, and
 * assertions in one line. Include it first, it brings cmocka.
 */
#ifndef TESTS_STORE_HELPERS_H
#define TESTS_STORE_HELPERS_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "store/store.h"

#include <ftw.h>
#include <stdio.h>

#define COUNT(a) (sizeof(a) / sizeof *(a))

/* ---- a clock ---- */

static int64_t fake_now_ms, fake_slept_ms;

static inline int64_t fake_clock(struct env *env)
{
    return fake_now_ms;
}

static inline void fake_random(struct env *env, void *data, size_t size)
{
    memset(data, 0xa5, size);
}

static inline void fake_sleep(struct env *env, int64_t ms)
{
    assert_true(ms >= 0);
    fake_now_ms += ms;
    fake_slept_ms += ms;
}

static struct env fake_env = {
    .wall_ms = fake_clock, .boot_ms = fake_clock, .random = fake_random, .sleep_ms = fake_sleep};

/* ---- kinds ---- */

struct fixture {
    struct store *s;
    char dir[64]; /* "" if there is none */
};

static inline int remove_entry(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    return remove(path);
}

static inline void fixture_close(struct fixture *f)
{
    store_close(f->s);
    if (f->dir[0])
        assert_int_equal(nftw(f->dir, remove_entry, 16, FTW_DEPTH | FTW_PHYS), 0);
}

static inline struct fixture open_memory(void)
{
    struct fixture f = {0};

    assert_int_equal(store_open("memory:", STORE_WRITE, &f.s, NULL), 0);
    return f;
}

static inline struct fixture open_directory(void)
{
    struct fixture f = {.dir = "/tmp/test-store-XXXXXX"};
    struct err err = ERR_INIT;
    char location[128];

    assert_non_null(mkdtemp(f.dir));
    (void)snprintf(location, sizeof location, "file://%s/store", f.dir);
    int r = store_open(location, STORE_WRITE, &f.s, &err);
    if (r < 0)
        fail_msg("%s", err.text);
    return f;
}

static inline struct fixture open_wrapped(void)
{
    struct fixture f = open_directory();
    const struct store_fault_plan none = {0};
    const struct store_retry_policy policy = {
        .attempts = 3, .first_delay_ms = 1, .max_delay_ms = 10, .deadline_ms = 1000};

    assert_int_equal(store_fault_new(f.s, &none, &f.s), 0);
    assert_int_equal(store_retry_new(f.s, &policy, &fake_env, &f.s), 0);
    assert_int_equal(store_trace_new(f.s, NULL, NULL, &f.s), 0);
    return f;
}

/* Below a prefix of its own in the bucket that the environment names, with its credentials. */
static inline bool has_s3(void)
{
    return getenv("S3_TEST_ENDPOINT") && getenv("S3_TEST_BUCKET");
}

static inline struct fixture open_s3(void)
{
    struct store_options options = {.endpoint = getenv("S3_TEST_ENDPOINT"),
                                    .region = getenv("S3_TEST_REGION")};
    struct fixture f = {0};
    struct err err = ERR_INIT;
    char location[256];
    uint64_t random;

    env_real()->random(env_real(), &random, sizeof random);
    (void)snprintf(location, sizeof location, "s3://%s/test-store/%016llx",
                   getenv("S3_TEST_BUCKET"), (unsigned long long)random);
    int r = store_open_with(location, STORE_WRITE, &options, &f.s, &err);
    if (r < 0)
        fail_msg("%s", err.text);
    return f;
}

static inline bool always(void)
{
    return true;
}

static const struct kind {
    const char *name;
    struct fixture (*open)(void);
    bool (*is_here)(void);
    bool flat; /* a key may be what stands before a '/' of another */
} kinds[] = {
    {"memory", open_memory, always, false},
    {"directory", open_directory, always, false},
    {"wrapped", open_wrapped, always, false},
    {"s3", open_s3, has_s3, true},
};

/* ---- helpers ---- */

static inline int put(struct store *s, const char *key, const char *text)
{
    return store_put_if_absent(s, key, bytes_str(text));
}

/* The object is `text`, as a whole. */
static inline void assert_object(struct store *s, const char *key, const char *text)
{
    struct buf b = BUF_INIT(1u << 20);

    assert_int_equal(store_get_all(s, key, &b), 0);
    assert_string_equal(buf_text(&b), text);
    assert_int_equal(b.size, strlen(text));
    buf_release(&b);
}

static inline void assert_absent(struct store *s, const char *key)
{
    uint8_t byte;
    size_t got = 77;

    assert_int_equal(store_get(s, key, 0, &byte, 1, &got, NULL), -ENOENT);
    assert_int_equal(got, 77);
}

static inline int list_line(void *ctx, const struct store_entry *e)
{
    assert_int_equal(e->is_prefix, e->key[strlen(e->key) - 1] == '/');
    if (e->is_prefix)
        return buf_printf(ctx, "%s ", e->key);
    assert_true(e->mtime_ms > 0);
    return buf_printf(ctx, "%s=%d ", e->key, (int)e->size_bytes);
}

/* "key=size prefix/ ...": what is still to come. */
struct keys_told {
    const char *rest;
};

static inline int list_key(void *ctx, const struct store_entry *e)
{
    struct keys_told *told = ctx;
    size_t length = strlen(e->key);

    assert_int_equal(strncmp(told->rest, e->key, length), 0);
    assert_int_equal(told->rest[length], e->is_prefix ? ' ' : '=');
    told->rest = strchr(told->rest, ' ') + 1;
    return 0;
}

static inline void assert_list(struct store *s, const char *prefix, bool by_component,
                               const char *start_after, const char *expected)
{
    struct store_list_options options = {.by_component = by_component, .start_after = start_after};
    struct buf b = BUF_INIT(1u << 20);
    int64_t now = 0;

    assert_int_equal(store_list(s, prefix, &options, list_line, &b, &now), 0);
    assert_string_equal(buf_text(&b), expected);
    assert_true(now > 0);

    struct keys_told told = {.rest = expected};
    options.keys_only = true;
    assert_int_equal(store_list(s, prefix, &options, list_key, &told, NULL), 0);
    assert_string_equal(told.rest, "");
    buf_release(&b);
}

static inline void fill(struct store *s, const char *const *keys, size_t count)
{
    for (size_t i = 0; i < count; i++)
        assert_int_equal(put(s, keys[i], "x"), 0);
}

#endif
