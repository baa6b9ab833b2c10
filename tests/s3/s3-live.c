/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The S3 client against a server that is one: S3_TEST_ENDPOINT, with keys in AWS_ACCESS_KEY_ID and
 * AWS_SECRET_ACCESS_KEY, and those of somebody without rights in S3_TEST_OTHER_KEY and _SECRET.
 * Run by tests/cases/s3/, which boot a server. Uses the bucket S3_TEST_BUCKET, made before.
 */
#include "s3/s3-internal.h"

#include "base/digest.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define MIB (1u << 20)

struct fixture {
    struct s3 *s3;
    const char *bucket;
    char prefix[64]; /* of this run */
};

static struct fixture fixture;

static struct s3 *open_client(const struct s3_options *o)
{
    struct s3_options options = *o;
    struct err err = ERR_INIT;
    struct s3 *s = NULL;

    options.endpoint = getenv("S3_TEST_ENDPOINT");
    options.region = getenv("S3_TEST_REGION");
    if (s3_new(&options, &s, &err) < 0)
        fail_msg("s3_new: %s", err.text);
    return s;
}

static int set_up(void **state)
{
    unsigned long long random;

    fixture.bucket = getenv("S3_TEST_BUCKET");
    assert_non_null(fixture.bucket);
    fixture.s3 = open_client(&(struct s3_options){.region = NULL});
    env_real()->random(env_real(), &random, sizeof random);
    (void)snprintf(fixture.prefix, sizeof fixture.prefix, "run-%016llx/", random);
    return 0;
}

static int tear_down(void **state)
{
    s3_free(fixture.s3);
    return 0;
}

static const char *key_of(char *room, size_t size, const char *name)
{
    (void)snprintf(room, size, "%s%s", fixture.prefix, name);
    return room;
}

#define KEY(name) key_of((char[1100]){0}, 1100, name)

#define OK(call)                                                                                   \
    do {                                                                                           \
        struct err err_ = ERR_INIT, *err = &err_;                                                  \
        int r_ = (call);                                                                           \
        if (r_ != 0)                                                                               \
            fail_msg("%s: %d %s", #call, r_, err_.text);                                           \
    } while (0)

#define FAILS(expected, words, call)                                                               \
    do {                                                                                           \
        struct err err_ = ERR_INIT, *err = &err_;                                                  \
        int r_ = (call);                                                                           \
        if (r_ != (expected) || !strstr(err_.text, words))                                         \
            fail_msg("%s: %d \"%s\", not %d \"%s\"", #call, r_, err_.text, (expected), words);     \
    } while (0)

static void put(const char *key, const char *text)
{
    OK(s3_put(fixture.s3, fixture.bucket, key, bytes_str(text), false, err));
}

static void test_put_if_absent(void **state)
{
    struct s3 *s = fixture.s3;
    const char *key = KEY("once");
    char data[32];
    size_t got;

    OK(s3_put(s, fixture.bucket, key, bytes_str("first"), true, err));
    FAILS(-EEXIST, "exists already",
          s3_put(s, fixture.bucket, key, bytes_str("second"), true, err));
    FAILS(-EEXIST, "exists already", s3_put(s, fixture.bucket, key, bytes_str("first"), true, err));
    OK(s3_get(s, fixture.bucket, key, 0, data, sizeof data, NULL, &got, NULL, err));
    assert_int_equal(got, 5);
    assert_memory_equal(data, "first", 5);
    OK(s3_delete(s, fixture.bucket, key, err));
    OK(s3_delete(s, fixture.bucket, key, err));
    OK(s3_put(s, fixture.bucket, key, bytes_of(NULL, 0), true, err));
    FAILS(-EEXIST, "exists already", s3_put(s, fixture.bucket, key, bytes_str("x"), true, err));
}

struct racer {
    pthread_t thread;
    const char *key;
    char body[8];
    int result;
};

static void *race(void *arg)
{
    struct racer *r = arg;

    r->result = s3_put(fixture.s3, fixture.bucket, r->key, bytes_str(r->body), true, NULL);
    return NULL;
}

static void test_put_if_absent_race(void **state)
{
    struct racer racers[16];
    char name[32], data[16];
    size_t got;

    for (int round = 0; round < 8; round++) {
        int winner = -1;
        (void)snprintf(name, sizeof name, "race-%d", round);
        const char *key = KEY(name);
        for (int i = 0; i < 16; i++) {
            racers[i].key = key;
            (void)snprintf(racers[i].body, sizeof racers[i].body, "by-%02d", i);
            assert_int_equal(pthread_create(&racers[i].thread, NULL, race, &racers[i]), 0);
        }
        for (int i = 0; i < 16; i++) {
            (void)pthread_join(racers[i].thread, NULL);
            if (racers[i].result == 0) {
                assert_int_equal(winner, -1);
                winner = i;
            } else {
                assert_int_equal(racers[i].result, -EEXIST);
            }
        }
        assert_true(winner >= 0);
        OK(s3_get(fixture.s3, fixture.bucket, key, 0, data, sizeof data, NULL, &got, NULL, err));
        assert_int_equal(got, 5);
        assert_memory_equal(data, racers[winner].body, 5);
    }
}

static void test_ranges(void **state)
{
    struct s3 *s = fixture.s3;
    const char *key = KEY("digits");
    struct s3_object o;
    char data[32];
    size_t got;

    put(key, "0123456789");
    OK(s3_get(s, fixture.bucket, key, 3, data, 4, NULL, &got, &o, err));
    assert_int_equal(got, 4);
    assert_memory_equal(data, "3456", 4);
    assert_int_equal(o.size, 10);
    assert_true(o.mtime_ms > 1600000000000);
    assert_string_equal(o.etag, "781e5e245d69b566979b86e28d23f2c7");
    OK(s3_get(s, fixture.bucket, key, 8, data, 20, NULL, &got, NULL, err));
    assert_int_equal(got, 2);
    OK(s3_get(s, fixture.bucket, key, 10, data, 5, NULL, &got, &o, err));
    assert_int_equal(got, 0);
    assert_int_equal(o.size, 10);
    OK(s3_get(s, fixture.bucket, key, 1000, data, 5, NULL, &got, NULL, err));
    assert_int_equal(got, 0);
    OK(s3_get(s, fixture.bucket, key, 0, data, 0, NULL, &got, NULL, err));
    OK(s3_head(s, fixture.bucket, key, &o, err));
    assert_int_equal(o.size, 10);
    put(KEY("empty"), "");
    OK(s3_get(s, fixture.bucket, KEY("empty"), 0, data, 5, NULL, &got, &o, err));
    assert_int_equal(got, 0);
    assert_int_equal(o.size, 0);
}

static void test_absent(void **state)
{
    struct s3 *s = fixture.s3;
    struct s3_object o;
    char data[4];
    size_t got;

    FAILS(-ENOENT, "no such object",
          s3_get(s, fixture.bucket, KEY("nothing"), 0, data, 4, NULL, &got, NULL, err));
    FAILS(-ENOENT, "no such object", s3_head(s, fixture.bucket, KEY("nothing"), &o, err));
    FAILS(-ENXIO, "no such bucket", s3_head(s, "no-bucket-of-ours", "x", &o, err));
    FAILS(-ENXIO, "no such bucket",
          s3_get(s, "no-bucket-of-ours", "x", 0, data, 4, NULL, &got, NULL, err));
    FAILS(-ENXIO, "no such bucket", s3_put(s, "no-bucket-of-ours", "x", bytes_str("x"), true, err));
}

static void test_pins(void **state)
{
    struct s3 *s = fixture.s3;
    const char *key = KEY("pinned");
    struct s3_object pin;
    char data[16];
    size_t got;

    put(key, "as it was");
    OK(s3_head(s, fixture.bucket, key, &pin, err));
    OK(s3_get(s, fixture.bucket, key, 0, data, 9, &pin, &got, NULL, err));
    put(key, "different");
    FAILS(-ESTALE, "changed", s3_get(s, fixture.bucket, key, 0, data, 9, &pin, &got, NULL, err));
    FAILS(-ESTALE, "changed", s3_get(s, fixture.bucket, key, 90, data, 9, &pin, &got, NULL, err));
}

/* ---- listings ---- */

static const char *const odd_names[] = {
    " leading and trailing ",
    "../up",
    "./dot",
    "a",
    "a b+c%20d",
    "a&b<c>\"d'",
    "a-",
    "a/b",
    "a/c/d",
    "b//c",
    "back\\slash",
    "plus+",
    "question?mark#hash",
    "star*(paren)!",
    "tilde~",
    "trailing/",
    "umlaut-\xc3\xa4-\xe2\x82\xac",
};
#define ODD_COUNT (sizeof odd_names / sizeof *odd_names)

struct seen {
    char keys[64][256];
    bool prefix[64];
    size_t count;
};

static int note(void *ctx, const struct s3_entry *e)
{
    struct seen *seen = ctx;

    assert_true(seen->count < 64);
    (void)snprintf(seen->keys[seen->count], 256, "%s", e->key);
    seen->prefix[seen->count++] = e->is_prefix;
    return 0;
}

static void test_list_odd_keys(void **state)
{
    struct s3 *s = fixture.s3;
    char data[64];
    size_t got;

    for (size_t i = 0; i < ODD_COUNT; i++) {
        char name[128];
        (void)snprintf(name, sizeof name, "odd/%s", odd_names[i]);
        put(KEY(name), odd_names[i]);
        OK(s3_get(s, fixture.bucket, KEY(name), 0, data, sizeof data, NULL, &got, NULL, err));
        assert_int_equal(got, strlen(odd_names[i]));
        assert_memory_equal(data, odd_names[i], got);
    }
    for (unsigned page = 1; page <= 1000; page = page * 5 + 1) {
        struct seen seen = {.count = 0};
        int64_t now = 0;
        struct s3_list_options o = {.prefix = KEY("odd/"), .page = page};
        OK(s3_list(s, fixture.bucket, &o, note, &seen, &now, err));
        assert_true(now > 1600000000000);
        assert_int_equal(seen.count, ODD_COUNT);
        for (size_t i = 0; i < ODD_COUNT; i++) /* the table is sorted */
            assert_string_equal(seen.keys[i] + strlen(o.prefix), odd_names[i]);
    }
}

static void test_list_delimiter(void **state)
{
    static const char *const expected[] = {"d/", "e", "f/", "g"};
    struct s3 *s = fixture.s3;

    for (const char *const *name =
             (const char *const[]){"l/d/1", "l/d/2", "l/e", "l/f/1/2", "l/f/3", "l/g", NULL};
         *name; name++)
        put(KEY(*name), *name);
    for (unsigned page = 1; page < 5; page++) {
        struct seen seen = {.count = 0};
        struct s3_list_options o = {.prefix = KEY("l/"), .delimiter = '/', .page = page};
        OK(s3_list(s, fixture.bucket, &o, note, &seen, NULL, err));
        assert_int_equal(seen.count, 4);
        for (size_t i = 0; i < 4; i++) {
            assert_string_equal(seen.keys[i] + strlen(o.prefix), expected[i]);
            assert_int_equal(seen.prefix[i], i % 2 == 0);
        }
        seen.count = 0;
        o.start_after = KEY("l/d/");
        o.end_before = KEY("l/g");
        OK(s3_list(s, fixture.bucket, &o, note, &seen, NULL, err));
        assert_int_equal(seen.count, 2);
        assert_string_equal(seen.keys[0] + strlen(o.prefix), "e");
    }
    struct seen none = {.count = 0};
    OK(s3_list(s, fixture.bucket, &(struct s3_list_options){.prefix = KEY("nothing/")}, note, &none,
               NULL, err));
    assert_int_equal(none.count, 0);
    FAILS(-ENXIO, "no such bucket",
          s3_list(s, "no-bucket-of-ours", &(struct s3_list_options){.prefix = ""}, note, &none,
                  NULL, err));
}

static void test_list_versions(void **state)
{
    struct s3 *s = fixture.s3;
    struct seen seen = {.count = 0};

    put(KEY("v/a"), "1");
    put(KEY("v/a"), "2");
    put(KEY("v/b"), "1");
    put(KEY("v/c"), "1");
    OK(s3_delete(s, fixture.bucket, KEY("v/b"), err));
    struct s3_list_options o = {.prefix = KEY("v/"), .versions = true, .page = 1};
    OK(s3_list(s, fixture.bucket, &o, note, &seen, NULL, err));
    assert_int_equal(seen.count, 2);
    assert_string_equal(seen.keys[1], KEY("v/c"));
}

/* ---- multipart ---- */

static uint8_t *make_data(size_t size)
{
    uint8_t *data = malloc(size);
    uint32_t x = 12345;

    assert_non_null(data);
    for (size_t i = 0; i < size; i++) {
        x = x * 1664525 + 1013904223;
        data[i] = (uint8_t)(x >> 24);
    }
    return data;
}

static void upload(const char *key, const uint8_t *data, size_t size, size_t step, bool if_absent,
                   int expected)
{
    struct s3_upload *u = NULL;
    struct err reason = ERR_INIT;

    OK(s3_upload_new(fixture.s3, fixture.bucket, key, 5 * MIB, 3, &u, err));
    for (size_t at = 0; at < size; at += step)
        OK(s3_upload_write(u, data + at, size - at < step ? size - at : step, err));
    int r = s3_upload_commit(u, if_absent, &reason);
    if (r != expected)
        fail_msg("commit: %d %s", r, reason.text);
}

static void test_multipart(void **state)
{
    static const size_t sizes[] = {0, 1, 5 * MIB, 5 * MIB + 1, 10 * MIB, 23 * MIB + 77};
    struct s3 *s = fixture.s3;
    uint8_t *data = make_data(24 * MIB), *back = malloc(24 * MIB);
    size_t got;

    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        char name[32];
        (void)snprintf(name, sizeof name, "multipart-%zu", i);
        upload(KEY(name), data, sizes[i], 777777, true, 0);
        OK(s3_get(s, fixture.bucket, KEY(name), 0, back, 24 * MIB, NULL, &got, NULL, err));
        assert_int_equal(got, sizes[i]);
        assert_memory_equal(back, data, got);
    }
    free(data);
    free(back);
}

static void test_multipart_if_absent(void **state)
{
    uint8_t *data = make_data(6 * MIB);
    const char *key = KEY("multipart-once");

    put(key, "first");
    upload(key, data, 4 * MIB, MIB, true, -EEXIST);
    upload(key, data, 6 * MIB, MIB, true, -EEXIST);
    upload(key, data, 6 * MIB, MIB, false, 0);
    free(data);
}

static void test_multipart_abort(void **state)
{
    uint8_t *data = make_data(11 * MIB);
    struct s3_upload *u = NULL;
    struct s3_object o;

    OK(s3_upload_new(fixture.s3, fixture.bucket, KEY("aborted"), 5 * MIB, 2, &u, err));
    OK(s3_upload_write(u, data, 11 * MIB, err));
    s3_upload_abort(u);
    FAILS(-ENOENT, "no such object", s3_head(fixture.s3, fixture.bucket, KEY("aborted"), &o, err));
    free(data);
}

/* ---- asynchronous reads ---- */

struct arrivals {
    pthread_mutex_t lock;
    pthread_cond_t cond;
    unsigned done, bad;
};

static void arrived(void *ctx, int result, size_t size)
{
    struct arrivals *a = ctx;

    WITH_LOCK(&a->lock);
    a->done++;
    a->bad += result != 0 || size != 1000;
    pthread_cond_signal(&a->cond);
}

static void test_async(void **state)
{
    struct arrivals a = {.lock = PTHREAD_MUTEX_INITIALIZER, .cond = PTHREAD_COND_INITIALIZER};
    uint8_t *data = make_data(200000), *back = calloc(1, 200000);

    OK(s3_put(fixture.s3, fixture.bucket, KEY("async"), bytes_of(data, 200000), false, err));
    for (size_t i = 0; i < 200; i++)
        assert_int_equal(s3_get_async(fixture.s3, fixture.bucket, KEY("async"), i * 1000,
                                      back + i * 1000, 1000, NULL, arrived, &a),
                         0);
    pthread_mutex_lock(&a.lock);
    while (a.done < 200)
        pthread_cond_wait(&a.cond, &a.lock);
    pthread_mutex_unlock(&a.lock);
    assert_int_equal(a.bad, 0);
    assert_memory_equal(back, data, 200000);
    free(data);
    free(back);
}

/* ---- who may ---- */

static void test_denied(void **state)
{
    AUTO(s3_free) struct s3 *nobody = open_client(&(struct s3_options){.anonymous = true});
    struct seen seen = {.count = 0};
    char data[4];
    size_t got;

    put(KEY("mine"), "mine");
    FAILS(-EACCES, "no credentials were used",
          s3_get(nobody, fixture.bucket, KEY("mine"), 0, data, 4, NULL, &got, NULL, err));
    if (!getenv("S3_TEST_OTHER_KEY"))
        return;
    char *key = strdup(getenv("AWS_ACCESS_KEY_ID")),
         *secret = strdup(getenv("AWS_SECRET_ACCESS_KEY"));
    setenv("AWS_ACCESS_KEY_ID", getenv("S3_TEST_OTHER_KEY"), 1);
    setenv("AWS_SECRET_ACCESS_KEY", getenv("S3_TEST_OTHER_SECRET"), 1);
    AUTO(s3_free) struct s3 *other = open_client(&(struct s3_options){.region = NULL});
    FAILS(-EACCES, "s3:GetObject",
          s3_get(other, fixture.bucket, KEY("mine"), 0, data, 4, NULL, &got, NULL, err));
    FAILS(-EACCES, "s3:PutObject",
          s3_put(other, fixture.bucket, KEY("theirs"), bytes_str("x"), true, err));
    FAILS(-EACCES, "s3:DeleteObject", s3_delete(other, fixture.bucket, KEY("mine"), err));
    FAILS(-EACCES, "s3:ListBucket",
          s3_list(other, fixture.bucket, &(struct s3_list_options){.prefix = ""}, note, &seen, NULL,
                  err));
    setenv("AWS_SECRET_ACCESS_KEY", "wrong", 1);
    AUTO(s3_free) struct s3 *wrong = open_client(&(struct s3_options){.region = NULL});
    FAILS(-EACCES, "SignatureDoesNotMatch",
          s3_get(wrong, fixture.bucket, KEY("mine"), 0, data, 4, NULL, &got, NULL, err));
    setenv("AWS_ACCESS_KEY_ID", "unknown", 1);
    AUTO(s3_free) struct s3 *unknown = open_client(&(struct s3_options){.region = NULL});
    FAILS(-EACCES, "InvalidAccessKeyId",
          s3_get(unknown, fixture.bucket, KEY("mine"), 0, data, 4, NULL, &got, NULL, err));
    setenv("AWS_ACCESS_KEY_ID", key, 1);
    setenv("AWS_SECRET_ACCESS_KEY", secret, 1);
    free(key);
    free(secret);
}

static int64_t late_wall(struct env *env)
{
    return env_real()->wall_ms(env_real()) - 3 * 3600 * 1000;
}

static void test_clock(void **state)
{
    struct env late = *env_real();
    char data[8];
    size_t got;

    late.wall_ms = late_wall;
    AUTO(s3_free) struct s3 *s = open_client(&(struct s3_options){.env = &late});
    put(KEY("late"), "late");
    OK(s3_get(s, fixture.bucket, KEY("late"), 0, data, 4, NULL, &got, NULL, err));
    assert_in_range(s3_clock_offset_ms(s), 3 * 3600 * 1000 - 60000, 3 * 3600 * 1000 + 60000);
}

static void test_settings(void **state)
{
    struct s3_bucket_settings b;

    assert_int_equal(s3_bucket_settings(fixture.s3, fixture.bucket, &b), 0);
    assert_int_equal(b.versioning, 0);
    assert_int_equal(b.lifecycle, 0);
}

/* A put to the bucket itself makes it: the client has no call for that, and needs none. */
static int make_bucket(const char *bucket)
{
    AUTO(s3_free) struct s3 *s = open_client(&(struct s3_options){.region = NULL});
    struct s3_call *c = NULL;
    struct err err = ERR_INIT;

    int r = s3_call_new(s, "PUT", "s3:CreateBucket", bucket, NULL, &c);
    if (r == 0)
        r = s3_call_run(c, &err);
    s3_call_free(c);
    if (r < 0)
        (void)fprintf(stderr, "%s\n", err_text(&err, r));
    return r < 0;
}

/* With a role that may only read: S3_TEST_ROLE, assumed at S3_TEST_STS_ENDPOINT. */
static void test_role(void **state)
{
    struct s3_options o = {
        .endpoint = getenv("S3_TEST_STS_ENDPOINT"),
        .region = getenv("S3_TEST_REGION"),
        .role_arn = getenv("S3_TEST_ROLE"),
    };
    AUTO(s3_free) struct s3 *s = NULL;
    char data[8];
    size_t got;

    if (!o.role_arn || !o.endpoint) {
        print_message("S3_TEST_ROLE and S3_TEST_STS_ENDPOINT are not set\n");
        skip();
    }
    put(KEY("for-the-role"), "readable");
    OK(s3_new(&o, &s, err));
    OK(s3_get(s, fixture.bucket, KEY("for-the-role"), 0, data, 8, NULL, &got, NULL, err));
    assert_int_equal(got, 8);
    FAILS(-EACCES, "s3:PutObject",
          s3_put(s, fixture.bucket, KEY("by-the-role"), bytes_str("x"), true, err));
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_put_if_absent),
        cmocka_unit_test(test_put_if_absent_race),
        cmocka_unit_test(test_ranges),
        cmocka_unit_test(test_absent),
        cmocka_unit_test(test_pins),
        cmocka_unit_test(test_list_odd_keys),
        cmocka_unit_test(test_list_delimiter),
        cmocka_unit_test(test_list_versions),
        cmocka_unit_test(test_multipart),
        cmocka_unit_test(test_multipart_if_absent),
        cmocka_unit_test(test_multipart_abort),
        cmocka_unit_test(test_async),
        cmocka_unit_test(test_denied),
        cmocka_unit_test(test_clock),
        cmocka_unit_test(test_settings),
        cmocka_unit_test(test_role),
    };

    if (argc == 2 && strcmp(argv[1], "--make-bucket") == 0)
        return make_bucket(getenv("S3_TEST_BUCKET"));
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
