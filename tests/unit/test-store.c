/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What every store must do, run over each kind in kinds[] of store-helpers.h.
 *
 * What wrappers add is in test-store-wrappers.c, what only a directory can get wrong in
 * test-store-directory.c.
 */
#include "store-helpers.h"

/* ---- every store ---- */

static void put_then_get(struct store *s)
{
    assert_absent(s, "a");
    assert_absent(s, "n/b/c");
    assert_int_equal(put(s, "a", "one"), 0);
    assert_int_equal(put(s, "n/b/c", "deep"), 0);
    assert_int_equal(put(s, "empty", ""), 0);
    assert_object(s, "a", "one");
    assert_object(s, "n/b/c", "deep");
    assert_object(s, "empty", "");
    assert_absent(s, "n");
    assert_absent(s, "n/b");
    assert_absent(s, "a/b");
}

static void the_first_put_wins(struct store *s)
{
    assert_int_equal(put(s, "k/x", "first"), 0);
    assert_int_equal(put(s, "k/x", "second"), -EEXIST);
    assert_int_equal(put(s, "k/x", "first"), -EEXIST);
    assert_object(s, "k/x", "first");

    struct store_upload *u;
    assert_int_equal(store_upload(s, "k/x", &u), 0);
    assert_int_equal(store_upload_write(u, "third", 5), 0);
    assert_int_equal(store_upload_commit(u), -EEXIST);
    assert_object(s, "k/x", "first");
}

static void ranges(struct store *s)
{
    static const struct {
        uint64_t offset;
        size_t size;
        const char *expected;
    } rows[] = {
        {0, 10, "0123456789"},
        {0, 100, "0123456789"},
        {0, 0, ""},
        {3, 4, "3456"},
        {9, 1, "9"},
        {9, 5, "9"},
        {10, 1, ""},
        {11, 1, ""},
        {1u << 31, 8, ""},
        {(uint64_t)1 << 40, 8, ""},
        {UINT64_MAX, 8, ""},
    };

    assert_int_equal(put(s, "r", "0123456789"), 0);
    for (size_t i = 0; i < COUNT(rows); i++) {
        char data[101] = {0};
        size_t got = 77;
        uint64_t length = 77;
        assert_int_equal(store_get(s, "r", rows[i].offset, data, rows[i].size, &got, &length), 0);
        assert_string_equal(data, rows[i].expected);
        assert_int_equal(got, strlen(rows[i].expected));
        assert_int_equal(length, 10);
    }
}

static void get_all_is_bounded(struct store *s)
{
    static uint8_t data[200000];
    struct buf b = BUF_INIT(sizeof data + 2);

    for (size_t i = 0; i < sizeof data; i++)
        data[i] = (uint8_t)(i % 251);
    assert_int_equal(store_put_if_absent(s, "big", bytes_of(data, sizeof data)), 0);
    assert_int_equal(buf_append(&b, "ab", 2), 0);
    assert_int_equal(store_get_all(s, "big", &b), 0);
    assert_int_equal(b.size, sizeof data + 2);
    assert_memory_equal(b.data, "ab", 2);
    assert_memory_equal(b.data + 2, data, sizeof data);
    buf_release(&b);

    buf_init(&b, sizeof data + 1); /* one byte less than it takes */
    assert_int_equal(buf_append(&b, "ab", 2), 0);
    assert_int_equal(store_get_all(s, "big", &b), -EFBIG);
    assert_string_equal(buf_text(&b), "ab");
    assert_int_equal(store_get_all(s, "none", &b), -ENOENT);
    assert_string_equal(buf_text(&b), "ab");
    buf_release(&b);

    uint8_t *too_big = calloc(1, STORE_PUT_MAX + 1);
    assert_non_null(too_big);
    assert_int_equal(store_put_if_absent(s, "x", bytes_of(too_big, STORE_PUT_MAX + 1)), -EFBIG);
    assert_absent(s, "x");
    assert_int_equal(store_put_if_absent(s, "x", bytes_of(too_big, STORE_PUT_MAX)), 0);
    free(too_big);
}

static void keys_that_are_refused(struct store *s)
{
    char long_key[STORE_KEY_MAX + 2], long_component[257];
    const char *bad[] = {"",    "/",    "/a",     "a/",    "a//b",   ".",
                         "..",  "../a", "a/..",   "a/.",   ".a",     "a/.b/c",
                         "a b", "a\nb", "a\\b",   "a:b",   "a*",     "\xc3\xa9",
                         "a+",  ".tmp", ".tmp/x", "a/./b", long_key, long_component};

    for (size_t i = 0; i < sizeof long_key; i++)
        long_key[i] = i % 8 == 7 ? '/' : 'x';
    long_key[STORE_KEY_MAX + 1] = '\0';
    memset(long_component, 'y', 256);
    long_component[256] = '\0';
    for (size_t i = 0; i < COUNT(bad); i++) {
        struct store_upload *u = NULL;
        uint8_t byte;
        size_t got;
        assert_false(store_key_is_valid(bad[i]));
        assert_int_equal(put(s, bad[i], "x"), -EINVAL);
        assert_int_equal(store_get(s, bad[i], 0, &byte, 1, &got, NULL), -EINVAL);
        assert_int_equal(store_remove(s, bad[i]), -EINVAL);
        assert_int_equal(store_upload(s, bad[i], &u), -EINVAL);
        assert_null(u);
    }
    assert_list(s, "", false, NULL, "");

    long_key[STORE_KEY_MAX] = '\0';
    long_component[255] = '\0';
    if (long_key[STORE_KEY_MAX - 1] == '/')
        long_key[STORE_KEY_MAX - 1] = 'z';
    assert_int_equal(put(s, long_key, "long"), 0);
    assert_object(s, long_key, "long");
    assert_int_equal(put(s, long_component, "wide"), 0);
    assert_object(s, long_component, "wide");
    assert_int_equal(put(s, "A-Z.a_z", "x"), 0);
}

static void prefixes_that_are_refused(struct store *s)
{
    static const char *const bad[] = {"/", "//", "a//", ".", "a/.", "a/..", "a b", "\xff"};
    struct buf b = BUF_INIT(1000);

    for (size_t i = 0; i < COUNT(bad); i++)
        assert_int_equal(store_list(s, bad[i], NULL, list_line, &b, NULL), -EINVAL);
    assert_int_equal(b.size, 0);
    buf_release(&b);
}

static void no_key_is_a_directory_of_another(struct store *s)
{
    struct store_upload *u = NULL;

    assert_int_equal(put(s, "a", "file"), 0);
    assert_int_equal(put(s, "a/b", "x"), -EINVAL);
    assert_int_equal(put(s, "a/b/c", "x"), -EINVAL);
    assert_int_equal(put(s, "d/e/f", "file"), 0);
    assert_int_equal(put(s, "d", "x"), -EINVAL);
    assert_int_equal(put(s, "d/e", "x"), -EINVAL);
    int r = store_upload(s, "d/e", &u);
    if (r == 0)
        r = store_upload_commit(u);
    assert_int_equal(r, -EINVAL);
    assert_int_equal(store_remove(s, "d"), 0);
    assert_int_equal(store_remove(s, "a/b"), 0);
    assert_list(s, "", false, NULL, "a=4 d/e/f=4 ");
    assert_list(s, "a/", false, NULL, "");
}

static void remove_is_idempotent(struct store *s)
{
    assert_int_equal(store_remove(s, "x/y"), 0);
    assert_int_equal(put(s, "x/y", "1"), 0);
    assert_int_equal(put(s, "x/z", "2"), 0);
    assert_int_equal(store_remove(s, "x/y"), 0);
    assert_int_equal(store_remove(s, "x/y"), 0);
    assert_absent(s, "x/y");
    assert_list(s, "", false, NULL, "x/z=1 ");
    assert_int_equal(store_remove(s, "x/z"), 0);
    assert_list(s, "", false, NULL, "");
    assert_list(s, "", true, NULL, ""); /* no empty directory is told */
    assert_int_equal(put(s, "x/y", "3"), 0);
    assert_object(s, "x/y", "3");
}

/* '-' and '.' sort before '/', digits and letters behind it; upper case before lower case. */
static void lists_are_in_the_order_of_whole_keys(struct store *s)
{
    static const char *const keys[] = {"b",    "a/x", "a-b", "a.b",   "a0",   "ab",
                                       "a-/z", "A",   "a_b", "a/b/c", "a/b-", "a/b0"};

    fill(s, keys, COUNT(keys));
    assert_list(s, "", false, NULL,
                "A=1 a-/z=1 a-b=1 a.b=1 a/b-=1 a/b/c=1 a/b0=1 a/x=1 a0=1 a_b=1 ab=1 b=1 ");
    assert_list(s, "", true, NULL, "A=1 a-/ a-b=1 a.b=1 a/ a0=1 a_b=1 ab=1 b=1 ");
    assert_list(s, "a", false, NULL,
                "a-/z=1 a-b=1 a.b=1 a/b-=1 a/b/c=1 a/b0=1 a/x=1 a0=1 a_b=1 ab=1 ");
    assert_list(s, "a", true, NULL, "a-/ a-b=1 a.b=1 a/ a0=1 a_b=1 ab=1 ");
    assert_list(s, "a/", false, NULL, "a/b-=1 a/b/c=1 a/b0=1 a/x=1 ");
    assert_list(s, "a/", true, NULL, "a/b-=1 a/b/ a/b0=1 a/x=1 ");
    assert_list(s, "a/b", true, NULL, "a/b-=1 a/b/ a/b0=1 ");
    assert_list(s, "a/b/c", false, NULL, "a/b/c=1 ");
    assert_list(s, "a/b/c/", false, NULL, "");
    assert_list(s, "a/q", false, NULL, "");
    assert_list(s, "zz/q/", true, NULL, "");
}

static void lists_start_anywhere(struct store *s)
{
    static const char *const keys[] = {"n/a/1", "n/a/2", "n/a-", "n/b", "n/c/d/e", "n/c/f", "o"};

    fill(s, keys, COUNT(keys));
    assert_list(s, "n/", false, NULL, "n/a-=1 n/a/1=1 n/a/2=1 n/b=1 n/c/d/e=1 n/c/f=1 ");
    assert_list(s, "n/", false, "n/a-", "n/a/1=1 n/a/2=1 n/b=1 n/c/d/e=1 n/c/f=1 ");
    assert_list(s, "n/", false, "n/a/1", "n/a/2=1 n/b=1 n/c/d/e=1 n/c/f=1 ");
    assert_list(s, "n/", false, "n/a/1x", "n/a/2=1 n/b=1 n/c/d/e=1 n/c/f=1 ");
    assert_list(s, "n/", false, "n/a/", "n/a/1=1 n/a/2=1 n/b=1 n/c/d/e=1 n/c/f=1 ");
    assert_list(s, "n/", false, "n/a0", "n/b=1 n/c/d/e=1 n/c/f=1 ");
    assert_list(s, "n/", false, "n/c/d", "n/c/d/e=1 n/c/f=1 ");
    assert_list(s, "n/", false, "n/c/d~", "n/c/f=1 ");
    assert_list(s, "n/", false, "n/c/f", "");
    assert_list(s, "n/", false, "o", "");
    assert_list(s, "n/", false, "m", "n/a-=1 n/a/1=1 n/a/2=1 n/b=1 n/c/d/e=1 n/c/f=1 ");
    assert_list(s, "n/", false, "", "n/a-=1 n/a/1=1 n/a/2=1 n/b=1 n/c/d/e=1 n/c/f=1 ");
    /* By component rows count as they are told: what was told last is where to go on. */
    assert_list(s, "n/", true, NULL, "n/a-=1 n/a/ n/b=1 n/c/ ");
    assert_list(s, "n/", true, "n/a-", "n/a/ n/b=1 n/c/ ");
    assert_list(s, "n/", true, "n/a/", "n/b=1 n/c/ ");
    assert_list(s, "n/", true, "n/a/1", "n/b=1 n/c/ ");
    assert_list(s, "n/", true, "n/b", "n/c/ ");
    assert_list(s, "n/", true, "n/c/", "");
    assert_list(s, "", true, "n/", "o=1 ");
}

struct stop_after {
    struct store *s;
    int rows;
    int code;
};

static int stop_after(void *ctx, const struct store_entry *e)
{
    struct stop_after *c = ctx;

    assert_object(c->s, e->key, "x"); /* the callback may call the store */
    return --c->rows == 0 ? c->code : 0;
}

static void a_callback_ends_the_list(struct store *s)
{
    static const char *const keys[] = {"a", "b/c", "b/d", "e"};
    static const int codes[] = {1, -ECANCELED, -EIO}; /* -EIO is not the store's: no retry */

    fill(s, keys, COUNT(keys));
    for (size_t i = 0; i < COUNT(codes); i++) {
        struct stop_after c = {s, 2, codes[i]};
        int64_t now = -1;
        assert_int_equal(store_list(s, "", NULL, stop_after, &c, &now), codes[i]);
        assert_int_equal(c.rows, 0);
        assert_int_equal(now, -1);
    }
}

static int remove_row(void *ctx, const struct store_entry *e)
{
    return store_remove(ctx, e->key);
}

static void a_list_may_remove_what_it_tells(struct store *s)
{
    char key[32];

    for (int i = 0; i < 300; i++) {
        (void)snprintf(key, sizeof key, "d%d/k%d", i % 7, i);
        assert_int_equal(put(s, key, "x"), 0);
    }
    assert_int_equal(store_list(s, "", NULL, remove_row, s, NULL), 0);
    assert_list(s, "", false, NULL, "");
}

#define HUGE_PIECE ((1u << 20) + 7)
#define HUGE_COUNT 40u

static void a_huge_upload(struct store *s)
{
    struct store_upload *u;
    uint8_t *piece = malloc(HUGE_PIECE), *back = malloc(HUGE_PIECE);
    uint64_t length;
    size_t got;

    assert_true(piece && back);
    assert_int_equal(store_upload(s, "p/huge", &u), 0);
    for (uint32_t i = 0; i < HUGE_COUNT; i++) {
        memset(piece, (int)(i + 1), HUGE_PIECE);
        assert_int_equal(store_upload_write(u, piece, HUGE_PIECE), 0);
    }
    assert_absent(s, "p/huge");
    assert_list(s, "", true, NULL, "");
    assert_int_equal(store_upload_commit(u), 0);
    for (uint32_t i = 0; i < HUGE_COUNT; i++) {
        memset(piece, (int)(i + 1), HUGE_PIECE);
        assert_int_equal(
            store_get(s, "p/huge", (uint64_t)i * HUGE_PIECE, back, HUGE_PIECE, &got, &length), 0);
        assert_int_equal(got, HUGE_PIECE);
        assert_int_equal(length, (uint64_t)HUGE_COUNT * HUGE_PIECE);
        assert_memory_equal(piece, back, HUGE_PIECE);
    }
    free(piece);
    free(back);
}

static void an_aborted_upload_leaves_nothing(struct store *s)
{
    struct store_upload *u, *empty;

    assert_int_equal(store_upload(s, "p/a", &u), 0);
    assert_int_equal(store_upload_write(u, "data", 4), 0);
    store_upload_abort(u);
    store_upload_abort(NULL);
    assert_absent(s, "p/a");
    assert_int_equal(store_upload(s, "p/a", &empty), 0);
    assert_int_equal(store_upload_commit(empty), 0);
    assert_object(s, "p/a", "");
}

/* ---- races ---- */

#define RACERS 8
#define ROUNDS 200

struct race {
    struct store *s;
    pthread_barrier_t barrier;
    bool uploads;
    int winners[ROUNDS][RACERS];
};

struct racer {
    struct race *race;
    int number;
    pthread_t thread;
};

static int race_once(const struct race *race, const char *key, const char *body)
{
    struct store_upload *u;

    if (!race->uploads)
        return put(race->s, key, body);
    int r = store_upload(race->s, key, &u);
    if (r < 0)
        return r;
    (void)store_upload_write(u, body, 3); /* sticky: the commit tells */
    (void)store_upload_write(u, body + 3, strlen(body) - 3);
    return store_upload_commit(u);
}

static void *racer_run(void *ctx)
{
    struct racer *racer = ctx;
    char key[32], body[32];

    for (int round = 0; round < ROUNDS; round++) {
        (void)snprintf(key, sizeof key, "race/%d/k", round);
        (void)snprintf(body, sizeof body, "by racer %d", racer->number);
        (void)pthread_barrier_wait(&racer->race->barrier);
        racer->race->winners[round][racer->number] = race_once(racer->race, key, body);
    }
    return NULL;
}

static void race_all(struct store *s, bool uploads)
{
    static struct race race;
    struct racer racers[RACERS];
    char key[32], body[32];

    race = (struct race){.s = s, .uploads = uploads};
    assert_int_equal(pthread_barrier_init(&race.barrier, NULL, RACERS), 0);
    for (int i = 0; i < RACERS; i++) {
        racers[i] = (struct racer){.race = &race, .number = i};
        assert_int_equal(pthread_create(&racers[i].thread, NULL, racer_run, &racers[i]), 0);
    }
    for (int i = 0; i < RACERS; i++)
        assert_int_equal(pthread_join(racers[i].thread, NULL), 0);
    pthread_barrier_destroy(&race.barrier);

    for (int round = 0; round < ROUNDS; round++) {
        int winner = -1;
        for (int i = 0; i < RACERS; i++) {
            if (race.winners[round][i] == 0) {
                assert_int_equal(winner, -1);
                winner = i;
            } else {
                assert_int_equal(race.winners[round][i], -EEXIST);
            }
        }
        assert_int_not_equal(winner, -1);
        (void)snprintf(key, sizeof key, "race/%d/k", round);
        (void)snprintf(body, sizeof body, "by racer %d", winner);
        assert_object(s, key, body);
    }
}

static void of_racing_puts_one_wins(struct store *s)
{
    race_all(s, false);
}

static void of_racing_uploads_one_wins(struct store *s)
{
    race_all(s, true);
}

static void space_is_told_or_unknown(struct store *s)
{
    struct store_space space = {-7, -7};

    assert_int_equal(store_space(s, &space), 0);
    assert_true(space.free_bytes >= -1 && space.free_objects >= -1);
}

/* ---- opening ---- */

static void locations_that_are_refused(void **state)
{
    static const struct {
        const char *location;
        int code;
    } rows[] = {
        {"", -EINVAL},
        {"relative/path", -EINVAL},
        {"file://host/path", -EINVAL},
        {"memory:x", -EINVAL},
        {"ftp://x/y", -EINVAL},
        {"s3:", -EINVAL},
        {"s3://", -EINVAL},
        {"s3:///x", -EINVAL},
        {"s3://b%/x", -EINVAL},
        {"s3://bucket/a//b", -EINVAL},
        {"s3://bucket/../b", -EINVAL},
        {"s3://bucket/a b", -EINVAL},
        {"/dev/null", -ENOTDIR},
        {"/nonexistent/store", -ENOENT},
    };

    for (size_t i = 0; i < COUNT(rows); i++) {
        struct err err = ERR_INIT;
        struct store *s = NULL;
        assert_int_equal(store_open(rows[i].location, STORE_READ, &s, &err), rows[i].code);
        assert_null(s);
        assert_true(strlen(err.text) > 10);
        assert_true(strstr(err.text, rows[i].location) != NULL ||
                    strncmp(rows[i].location, "file://", 7) == 0);
    }
    store_close(NULL);
}

/* ---- the suite ---- */

typedef void behaviour_fn(struct store *s);

static const struct behaviour {
    const char *name;
    behaviour_fn *run;
} behaviours[] = {
#define BEHAVIOUR(f)                                                                               \
    {                                                                                              \
#f, f                                                                                      \
    }
    BEHAVIOUR(put_then_get),
    BEHAVIOUR(the_first_put_wins),
    BEHAVIOUR(ranges),
    BEHAVIOUR(get_all_is_bounded),
    BEHAVIOUR(keys_that_are_refused),
    BEHAVIOUR(prefixes_that_are_refused),
    BEHAVIOUR(no_key_is_a_directory_of_another),
    BEHAVIOUR(remove_is_idempotent),
    BEHAVIOUR(lists_are_in_the_order_of_whole_keys),
    BEHAVIOUR(lists_start_anywhere),
    BEHAVIOUR(a_callback_ends_the_list),
    BEHAVIOUR(a_list_may_remove_what_it_tells),
    BEHAVIOUR(a_huge_upload),
    BEHAVIOUR(an_aborted_upload_leaves_nothing),
    BEHAVIOUR(of_racing_puts_one_wins),
    BEHAVIOUR(of_racing_uploads_one_wins),
    BEHAVIOUR(space_is_told_or_unknown),
#undef BEHAVIOUR
};

/* Where keys are flat, both of "a" and "a/b" can exist: whoever lays out keys sees to it. */
static bool is_meant_for(const struct behaviour *b, const struct kind *k)
{
    return !(k->flat && b->run == no_key_is_a_directory_of_another);
}

struct run {
    const struct kind *kind;
    const struct behaviour *behaviour;
};

static void run_behaviour(void **state)
{
    const struct run *run = *state;
    struct fixture f = run->kind->open();

    run->behaviour->run(f.s);
    fixture_close(&f);
}

int main(void)
{
    static struct run runs[COUNT(kinds) * COUNT(behaviours)];
    static char names[COUNT(runs)][80];
    static const struct CMUnitTest others[] = {
        cmocka_unit_test(locations_that_are_refused),
    };
    struct CMUnitTest tests[COUNT(runs) + COUNT(others)];
    const char *only = getenv("TEST_STORE_KIND");
    size_t count = 0;

    for (size_t i = 0; i < COUNT(kinds); i++) {
        if (!kinds[i].is_here())
            print_message("no test of %s: S3_TEST_ENDPOINT and S3_TEST_BUCKET are not set\n",
                          kinds[i].name);
        if (!kinds[i].is_here() || (only && strcmp(only, kinds[i].name) != 0))
            continue;
        for (size_t k = 0; k < COUNT(behaviours); k++) {
            if (!is_meant_for(&behaviours[k], &kinds[i]))
                continue;
            runs[count] = (struct run){&kinds[i], &behaviours[k]};
            (void)snprintf(names[count], sizeof names[0], "%s: %s", kinds[i].name,
                           behaviours[k].name);
            tests[count] =
                (struct CMUnitTest){names[count], run_behaviour, NULL, NULL, &runs[count]};
            count++;
        }
    }
    memcpy(tests + count, others, sizeof others);
    return _cmocka_run_group_tests("store", tests, count + COUNT(others), NULL, NULL);
}
