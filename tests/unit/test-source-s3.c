/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The parts of the S3 source that need no server: which key is which file, the listing in memory,
 * and where ranges of keys are cut.
 */
#include "source/source-s3-internal.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

/* ---- keys -------------------------------------------------------------------------------------
 */

static void key_kinds(void **state)
{
    char name[600];
    static const struct {
        const char *key;
        uint64_t size;
        enum key_kind kind;
    } rows[] = {
        {"a", 1, KEY_FILE},          {"a/b/c", 0, KEY_FILE},
        {"...", 1, KEY_FILE},        {".hidden", 1, KEY_FILE},
        {"..a/b..", 1, KEY_FILE},    {"\x01\x7f\xff\n", 1, KEY_FILE},
        {"", 0, KEY_DIRECTORY},      {"", 1, KEY_DIRECTORY_DATA},
        {"a/", 0, KEY_DIRECTORY},    {"a/b/", 5, KEY_DIRECTORY_DATA},
        {"/", 0, KEY_EMPTY_NAME},    {"/a", 1, KEY_EMPTY_NAME},
        {"a//b", 1, KEY_EMPTY_NAME}, {"a//", 0, KEY_EMPTY_NAME},
        {".", 1, KEY_DOT_NAME},      {"./", 0, KEY_DOT_NAME},
        {"a/../b", 1, KEY_DOT_NAME}, {"a/..", 1, KEY_DOT_NAME},
        {"a/./b", 1, KEY_DOT_NAME},
    };

    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        assert_int_equal(key_kind(rows[i].key, rows[i].size), rows[i].kind);
    memset(name, 'n', sizeof name);
    name[255] = '\0';
    assert_int_equal(key_kind(name, 1), KEY_FILE);
    name[255] = '/';
    name[256] = '\0';
    assert_int_equal(key_kind(name, 0), KEY_DIRECTORY);
    name[255] = 'n';
    assert_int_equal(key_kind(name, 1), KEY_LONG_NAME);
    for (unsigned kind = 0; kind < KEY_KINDS; kind++)
        assert_int_equal(*key_why((enum key_kind)kind) != '\0',
                         key_is_skipped((enum key_kind)kind));
}

/* ---- rows -------------------------------------------------------------------------------------
 */

static struct s3_object object_of(unsigned i)
{
    struct s3_object o = {.size = (uint64_t)i * i * i, .mtime_ms = (int64_t)i * 1234567 - 999999};

    if (i % 5 == 0)
        o.mtime_ms = -(int64_t)i * 1000;
    switch (i % 7) {
    case 0:
        (void)snprintf(o.etag, sizeof o.etag, "weird-%u", i);
        break;
    case 1:
        (void)snprintf(o.etag, sizeof o.etag, "%032x-%u", i, i + 1);
        break;
    case 2: /* looks like one of parts, and is none */
        (void)snprintf(o.etag, sizeof o.etag, "%032x-0%u", i, i + 1);
        break;
    case 3: /* upper case is another text */
        (void)snprintf(o.etag, sizeof o.etag, "ABCDEF%026x", i);
        break;
    case 4: /* no ETag */
        break;
    case 5:
        (void)snprintf(o.etag, sizeof o.etag, "%0127d", i);
        break;
    default:
        (void)snprintf(o.etag, sizeof o.etag, "%032x", i * 2654435761u);
    }
    if (i % 3 == 0)
        (void)snprintf(o.version_id, sizeof o.version_id, "v%u", i);
    return o;
}

static void key_of(unsigned i, char *key)
{
    (void)snprintf(key, S3_KEY_MAX + 1, "dir%02u/%0*u", i / 300, 3 + (int)(i / 300) * 7, i);
}

static void rows_keep_everything(void **state)
{
    enum { COUNT = 1000 };
    struct rows_builder b = {.total = 0};
    struct rows r = {.count = 0};
    struct rows_cursor c;
    struct s3_object o, got;
    char key[S3_KEY_MAX + 1];

    /* In two runs, the later one first. */
    for (unsigned half = 2; half-- > 0;) {
        for (unsigned i = half * COUNT / 2; i < (half + 1) * COUNT / 2; i++) {
            key_of(i, key);
            o = object_of(i);
            assert_int_equal(rows_add(&b, key, &o), 0);
        }
        assert_int_equal(rows_take(&r, &b), 0);
    }
    assert_int_equal(rows_settle(&r), 0);
    assert_int_equal(r.count, COUNT);
    assert_true(rows_seek(&r, "", &c));
    for (unsigned i = 0; i < COUNT; i++) {
        key_of(i, key);
        o = object_of(i);
        rows_object(&c, &got);
        assert_string_equal(c.key, key);
        assert_int_equal(got.size, o.size);
        assert_int_equal(got.mtime_ms, o.mtime_ms);
        assert_string_equal(got.etag, o.etag);
        assert_string_equal(got.version_id, o.version_id);
        assert_int_equal(rows_next(&c), i + 1 < COUNT);
    }
    for (unsigned i = 0; i < COUNT; i += 7) {
        key_of(i, key);
        assert_true(rows_seek(&r, key, &c));
        assert_string_equal(c.key, key);
        assert_false(rows_changed(c.row));
        rows_set_changed(c.row);
        assert_true(rows_changed(c.row));
        assert_int_equal(rows_kind(&c), KEY_FILE);
        (void)snprintf(key + strlen(key), 2, "+");
        if (rows_seek(&r, key, &c))
            assert_true(strcmp(c.key, key) > 0);
        else
            assert_true(i + 1 == COUNT);
    }
    assert_false(rows_seek(&r, "e", &c));
    rows_release(&r);
}

static void rows_refuse_disorder(void **state)
{
    struct rows_builder b = {.total = 0};
    struct rows r = {.count = 0};
    struct s3_object o = object_of(1);
    char key[S3_KEY_MAX + 2];

    assert_int_equal(rows_add(&b, "b", &o), 0);
    assert_int_equal(rows_add(&b, "b", &o), -EPROTO);
    assert_int_equal(rows_add(&b, "a", &o), -EPROTO);
    memset(key, 'k', sizeof key);
    key[S3_KEY_MAX + 1] = '\0';
    assert_int_equal(rows_add(&b, key, &o), -ENAMETOOLONG);
    key[S3_KEY_MAX] = '\0';
    assert_int_equal(rows_add(&b, key, &o), 0);
    assert_int_equal(rows_take(&r, &b), 0);
    /* A second run that lies inside of the first one. */
    assert_int_equal(rows_add(&b, "c", &o), 0);
    assert_int_equal(rows_take(&r, &b), 0);
    assert_int_equal(rows_settle(&r), -EPROTO);
    rows_release(&r);
    assert_int_equal(rows_settle(&r), 0);
    assert_false(rows_seek(&r, "", &(struct rows_cursor){.block = 0}));
}

/* What 35 bytes an object promise. */
static void rows_are_small(void **state)
{
    enum { COUNT = 64000 };
    struct rows_builder b = {.total = 0};
    struct rows r = {.count = 0};
    struct s3_object o;
    char key[S3_KEY_MAX + 1];
    size_t bytes = 0;

    for (unsigned i = 0; i < COUNT; i++) {
        o = (struct s3_object){.size = 20000 + i % 977,
                               .mtime_ms = 1700000000000 + 1000 * (i % 999)};
        (void)snprintf(o.etag, sizeof o.etag, "%032x", i * 2654435761u);
        (void)snprintf(key, sizeof key, "train/class_%03u/img_%06u.jpg", i / 500, i);
        assert_int_equal(rows_add(&b, key, &o), 0);
        if (b.count == ROWS_BLOCK)
            bytes += b.block.size;
    }
    assert_int_equal(rows_take(&r, &b), 0);
    assert_true(bytes / COUNT < 40);
    rows_release(&r);
}

static void keys_in_each_others_way(void **state)
{
    static const struct {
        const char *key;
        uint64_t size;
        enum key_kind kind;
    } rows[] = {
        {"", 0, KEY_DIRECTORY},      {"a", 1, KEY_IS_DIRECTORY}, /* a/b/c is below it */
        {"a-b", 1, KEY_FILE},        {"a/b", 1, KEY_IS_DIRECTORY}, {"a/b/c", 1, KEY_FILE},
        {"d", 1, KEY_FILE}, /* below it are only markers */
        {"d!", 1, KEY_FILE},         {"d/", 0, KEY_BELOW_FILE},    {"d/e/", 3, KEY_BELOW_FILE},
        {"d0", 1, KEY_FILE},         {"e", 1, KEY_FILE}, /* what is below it is skipped anyway */
        {"e//x", 1, KEY_EMPTY_NAME}, {"f", 1, KEY_IS_DIRECTORY}, /* markers, and a file at last */
        {"f/", 0, KEY_DIRECTORY},    {"f/g/", 0, KEY_DIRECTORY},   {"f/h", 1, KEY_FILE},
        {"z", 0, KEY_FILE}, /* the last of all */
        {"z/", 0, KEY_BELOW_FILE},
    };
    struct rows_builder b = {.total = 0};
    struct rows r = {.count = 0};
    struct rows_cursor c;

    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct s3_object o = {.size = rows[i].size};
        assert_int_equal(rows_add(&b, rows[i].key, &o), 0);
    }
    assert_int_equal(rows_take(&r, &b), 0);
    assert_int_equal(rows_settle(&r), 0);
    assert_true(rows_seek(&r, "", &c));
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        assert_string_equal(c.key, rows[i].key);
        if (rows_kind(&c) != rows[i].kind)
            fail_msg("%s: %d", c.key, rows_kind(&c));
        (void)rows_next(&c);
    }
    rows_release(&r);
}

/* ---- cuts -------------------------------------------------------------------------------------
 */

/* Keys of a bucket that is listed as lister_run() does it, one cut after the other: how many cuts
 * until no piece has more than a page and a half. */
struct model {
    char **keys;
    size_t count;
    struct split_alphabet alphabet;
};

static size_t first_behind(const struct model *m, const char *key)
{
    size_t i = 0;

    while (i < m->count && strcmp(m->keys[i], key) <= 0)
        i++;
    return i;
}

static size_t common_of(const char *a, const char *b)
{
    size_t n = 0;

    while (a[n] && a[n] == b[n])
        n++;
    return n;
}

/* Cuts what lies behind `at` (the last key of a page) up to `end`; gives how much the cut has of
 * it, 0: no cut. */
static size_t cut_once(struct model *m, size_t page_from, size_t page, const char *end,
                       size_t varies, char *ret)
{
    const char *first = m->keys[page_from], *last = m->keys[page_from + page - 1];
    struct split_range r = {
        .at = last, .end = end, .common = common_of(first, last), .varies = varies};

    for (size_t i = page_from; i < page_from + page; i += 16)
        split_learn(&m->alphabet, m->keys[i]);
    if (!split_between(&m->alphabet, &r, ret))
        return SIZE_MAX;
    assert_true(strcmp(ret, last) > 0);
    assert_true(!end || strcmp(ret, end) < 0);
    size_t to = end ? first_behind(m, end) : m->count;
    return to - first_behind(m, ret);
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static int photo_key(char **ret, unsigned i)
{
    return asprintf(ret, "img_%06u.jpg", i);
}

static int hex_key(char **ret, unsigned i)
{
    return asprintf(ret, "%08x", i * 2654435761u);
}

static int part_key(char **ret, unsigned i)
{
    return asprintf(ret, "a/very/long/common/prefix/of/all/part-%05u-of-99999.parquet", i);
}

static int number_key(char **ret, unsigned i)
{
    return asprintf(ret, "%u.png", i);
}

/* The first cuts must find the keys: a half of them or so, within a few attempts. */
static void check_cuts(int (*make)(char **, unsigned), size_t count, unsigned attempts)
{
    struct model m = {.count = count};
    char cut[S3_KEY_MAX + 1], end[S3_KEY_MAX + 1];
    const char *known = NULL;
    size_t got = 0;
    unsigned i = 0;

    m.keys = calloc(count, sizeof *m.keys);
    assert_non_null(m.keys);
    for (size_t k = 0; k < count; k++)
        assert_true(make(&m.keys[k], (unsigned)k) > 0);
    qsort(m.keys, count, sizeof *m.keys, by_text);
    for (; i < attempts && got == 0; i++) {
        got = cut_once(&m, 0, 1000, known, SIZE_MAX, cut);
        assert_int_not_equal(got, SIZE_MAX);
        (void)snprintf(end, sizeof end, "%s", cut);
        known = end;
    }
    if (got == 0 || got == count)
        fail_msg("%s...: nothing found in %u cuts", m.keys[0], i);
    for (size_t k = 0; k < count; k++)
        free(m.keys[k]);
    free(m.keys);
}

static void cuts_find_keys(void **state)
{
    check_cuts(photo_key, 100000, 3);
    check_cuts(hex_key, 100000, 1);
    check_cuts(part_key, 90000, 6);
    check_cuts(number_key, 60000, 3);
}

static void cuts_use_what_is_known(void **state)
{
    struct split_alphabet a = {.seen = {{false}}};
    char cut[S3_KEY_MAX + 1];

    split_learn(&a, "f0123");
    /* It is known to differ in byte 1: half of the digits behind '2'. */
    struct split_range r = {.at = "f2999", .common = 2, .varies = 1};
    assert_true(split_between(&a, &r, cut));
    assert_string_equal(cut, "f6");
    /* It ends at f4: in between is f3. */
    r = (struct split_range){.at = "f2999", .end = "f4", .common = 2, .varies = 1};
    assert_true(split_between(&a, &r, cut));
    assert_string_equal(cut, "f3");
    /* A place that nobody can cut. */
    r = (struct split_range){.at = "f9999", .end = "f9999!", .common = 5, .varies = SIZE_MAX};
    assert_false(split_between(&a, &r, cut));
    /* Bytes that are no ASCII are left whole. */
    r = (struct split_range){.at = "\xc3\xbc\xc3\xbc", .common = 4, .varies = SIZE_MAX};
    assert_false(split_between(&a, &r, cut));
}

/* Whatever it is given: a key strictly in between, or none. */
static void cuts_stay_inside(void **state)
{
    static const char bytes[] = "aab/09~\x7f\xc3\xff!";
    struct split_alphabet a = {.seen = {{false}}};
    char at[S3_KEY_MAX + 1], end[S3_KEY_MAX + 1], cut[S3_KEY_MAX + 1];
    unsigned found = 0;

    srand(1);
    for (unsigned i = 0; i < 200000; i++) {
        size_t n = 1 + (size_t)rand() % 6, m = 1 + (size_t)rand() % 6;
        for (size_t k = 0; k < n; k++)
            at[k] = bytes[(size_t)rand() % (sizeof bytes - 1)];
        for (size_t k = 0; k < m; k++)
            end[k] = rand() % 3 && k < n ? at[k] : bytes[(size_t)rand() % (sizeof bytes - 1)];
        at[n] = end[m] = '\0';
        split_learn(&a, at);
        if (strcmp(at, end) >= 0)
            continue;
        struct split_range r = {.at = at,
                                .end = rand() % 4 ? end : NULL,
                                .common = (size_t)rand() % (n + 1),
                                .varies = rand() % 2 ? SIZE_MAX : (size_t)rand() % 8};
        if (!split_between(&a, &r, cut))
            continue;
        found++;
        assert_true(strcmp(cut, at) > 0);
        assert_true(!r.end || strcmp(cut, end) < 0);
        assert_true(strlen(cut) <= n + 1);
    }
    assert_true(found > 10000);
}

/* ---- directories to cut at --------------------------------------------------------------------
 */

/* Short keys of few bytes, so that files, markers and directories of like names meet. */
static size_t random_keys(char keys[][16], size_t count)
{
    static const char bytes[] = "ab-/.0";
    size_t kept = 0;
    char *sorted[64];

    for (size_t i = 0; i < count; i++) {
        size_t n = 1 + (size_t)rand() % 7;
        for (size_t k = 0; k < n; k++)
            keys[i][k] = bytes[(size_t)rand() % (sizeof bytes - 1)];
        keys[i][n] = '\0';
        sorted[i] = strdup(keys[i]);
    }
    qsort(sorted, count, sizeof *sorted, by_text);
    for (size_t i = 0; i < count; i++) {
        if (kept == 0 || strcmp(keys[kept - 1], sorted[i]) != 0)
            memcpy(keys[kept++], sorted[i], strlen(sorted[i]) + 1);
        free(sorted[i]);
    }
    return kept;
}

/* What a server answers for a delimiter and no prefix. */
static void see_page(char keys[][16], size_t count, struct hints_page *p)
{
    char start[S3_KEY_MAX + 1], row[16], before[16] = "";

    memcpy(start, p->last, sizeof start);
    for (size_t i = 0; i < count; i++) {
        if (strcmp(keys[i], start) <= 0)
            continue;
        memcpy(row, keys[i], sizeof row);
        char *slash = strchr(row, '/');
        if (slash)
            slash[1] = '\0';
        if (strcmp(row, before) == 0)
            continue;
        assert_int_equal(hints_see(p, row, slash != NULL), 0);
        memcpy(before, row, sizeof before);
    }
}

static void whole_directories_are_whole(void **state)
{
    char keys[64][16], cut[S3_KEY_MAX + 1], end[S3_KEY_MAX + 1];
    size_t found = 0;

    srand(2);
    for (unsigned round = 0; round < 20000; round++) {
        struct hints hints = {.count = 0};
        struct hints_page page = {.open = false};
        size_t count = random_keys(keys, 2 + (size_t)rand() % 60);
        if (rand() % 2)
            memcpy(page.last, keys[(size_t)rand() % count], sizeof *keys);
        see_page(keys, count, &page);
        assert_int_equal(hints_learn(&hints, &page), 0);
        for (size_t i = 0; i + 1 < hints.count; i++) {
            const char *path = hints.at[i].path;
            hint_cut(&hints.at[i], cut);
            hint_cut(&hints.at[i + 1], end);
            assert_false(hint_is_whole(&hints, i, NULL));
            if (!hint_is_whole(&hints, i, end))
                continue;
            found++;
            for (size_t k = 0; k < count; k++)
                assert_int_equal(strcmp(keys[k], cut) > 0 && strcmp(keys[k], end) <= 0,
                                 strncmp(keys[k], path, strlen(path)) == 0);
        }
        hints_page_release(&page);
        hints_release(&hints);
    }
    assert_true(found > 1000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(key_kinds),
        cmocka_unit_test(rows_keep_everything),
        cmocka_unit_test(rows_refuse_disorder),
        cmocka_unit_test(rows_are_small),
        cmocka_unit_test(keys_in_each_others_way),
        cmocka_unit_test(cuts_find_keys),
        cmocka_unit_test(cuts_use_what_is_known),
        cmocka_unit_test(cuts_stay_inside),
        cmocka_unit_test(whole_directories_are_whole),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
