/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The base: buffers, vectors, hexadecimal, digests, names, errors, queues.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/digest.h"
#include "base/err.h"
#include "base/file.h"
#include "base/hex.h"
#include "base/le.h"
#include "base/name.h"
#include "base/queue.h"
#include "base/vec.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/stat.h>

#define COUNT(a) (sizeof(a) / sizeof *(a))

static void buf_grows_to_its_maximum_only(void **state)
{
    struct buf b = BUF_INIT(10);
    uint8_t *place;

    assert_string_equal(buf_text(&b), "");
    assert_int_equal(buf_append_str(&b, "hello"), 0);
    assert_int_equal(buf_append(&b, NULL, 0), 0);
    assert_int_equal(buf_printf(&b, "%d", 12345), 0);
    assert_string_equal(buf_text(&b), "hello12345");
    assert_int_equal(buf_append(&b, "x", 1), -EFBIG);
    assert_int_equal(buf_printf(&b, "y"), -EFBIG);
    assert_int_equal(buf_extend(&b, SIZE_MAX, &place), -EFBIG);
    assert_int_equal(b.size, 10);
    assert_string_equal(buf_text(&b), "hello12345");

    buf_clear(&b);
    assert_string_equal(buf_text(&b), "");
    assert_int_equal(buf_extend(&b, 10, &place), 0);
    for (int i = 0; i < 10; i++)
        assert_int_equal(place[i], 0);
    buf_release(&b);
    assert_null(b.data);
    assert_int_equal(b.max, 10);
}

static void buf_keeps_bytes_over_many_appends(void **state)
{
    struct buf b = BUF_INIT(1u << 20);

    for (uint32_t i = 0; i < 100000; i++) {
        uint8_t byte = (uint8_t)(i * 7);
        assert_int_equal(buf_append(&b, &byte, 1), 0);
    }
    assert_int_equal(b.size, 100000);
    for (uint32_t i = 0; i < 100000; i++)
        assert_int_equal(b.data[i], (uint8_t)(i * 7));
    assert_int_equal(b.data[b.size], 0);
    buf_release(&b);
}

static void vec_keeps_rows(void **state)
{
    VEC(int) v = {0};

    for (int i = 0; i < 1000; i++)
        assert_int_equal(vec_push(&v, i * i), 0);
    assert_int_equal(v.count, 1000);
    for (int i = 0; i < 1000; i++)
        assert_int_equal(v.at[i], i * i);
    vec_release(&v);
    assert_null(v.at);
    assert_int_equal(v.count + v.capacity, 0);
}

static void vec_refuses_sizes_that_overflow(void **state)
{
    size_t capacity = SIZE_MAX / 4;
    void *p = NULL;

    assert_int_equal(vec_grow(&p, &capacity, 16), -ENOMEM);
    assert_null(p);
    assert_int_equal(capacity, SIZE_MAX / 4);
}

static void segvec_rows_stay_where_they_are(void **state)
{
    struct segvec v;
    size_t first;

    segvec_init(&v, sizeof(uint64_t));
    assert_int_equal(segvec_add(&v, 1, &first), 0);
    assert_int_equal(first, 0);
    uint64_t *row = segvec_at(&v, 0);
    *row = 42;
    assert_int_equal(segvec_add(&v, 3 * SEGVEC_ROWS, &first), 0);
    assert_int_equal(first, 1);
    assert_ptr_equal(segvec_at(&v, 0), row);
    assert_int_equal(*row, 42);
    for (size_t i = first; i < v.count; i++) {
        uint64_t *p = segvec_at(&v, i);
        assert_int_equal(*p, 0);
        *p = i;
    }
    for (size_t i = first; i < v.count; i++)
        assert_int_equal(*(uint64_t *)segvec_at(&v, i), i);
    segvec_release(&v);
    assert_int_equal(v.count, 0);
}

static void hex_there_and_back(void **state)
{
    const uint8_t bytes[] = {0x00, 0x01, 0x7f, 0x80, 0xab, 0xff};
    uint8_t back[sizeof bytes];
    char text[2 * sizeof bytes + 1];

    hex_encode(text, bytes, sizeof bytes);
    assert_string_equal(text, "00017f80abff");
    assert_int_equal(hex_decode(back, sizeof back, text), 0);
    assert_memory_equal(back, bytes, sizeof bytes);
    assert_int_equal(hex_decode(back, 2, "00017f and more"), 0);
    assert_int_equal(hex_decode(back, 1, "AB"), -EINVAL);
    assert_int_equal(hex_decode(back, 1, "0"), -EINVAL);
    assert_int_equal(hex_decode(back, 1, "g0"), -EINVAL);
    assert_int_equal(hex_decode(back, 1, ""), -EINVAL);
}

/* FIPS 180-4 examples, and the million "a" of NIST. */
static void digest_agrees_with_nist(void **state)
{
    static const struct {
        const char *text, *hex;
    } rows[] = {
        {"", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
        {"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},
        {"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
         "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"},
    };
    char hex[DIGEST_HEX_SIZE];

    for (size_t i = 0; i < COUNT(rows); i++) {
        struct digest d = digest_of(rows[i].text, strlen(rows[i].text)), back;
        digest_to_hex(&d, hex);
        assert_string_equal(hex, rows[i].hex);
        assert_int_equal(digest_from_hex(&back, hex), 0);
        assert_true(digest_equal(&d, &back));
        back.byte[31] ^= 1;
        assert_false(digest_equal(&d, &back));
    }

    char block[1000];
    memset(block, 'a', sizeof block);
    struct digest_stream *s = digest_stream_new();
    assert_non_null(s);
    for (int round = 0; round < 2; round++) { /* finish starts anew */
        for (int i = 0; i < 1000; i++)
            digest_stream_add(s, block, sizeof block);
        struct digest d = digest_stream_finish(s);
        digest_to_hex(&d, hex);
        assert_string_equal(hex,
                            "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
    }
    digest_stream_free(s);
}

static void digests_in_pairs(void **state)
{
    static uint8_t data[2 * 70000];
    struct digest two[2], a, b;

    for (size_t i = 0; i < sizeof data; i++)
        data[i] = (uint8_t)(i * 2654435761u >> 13);
    for (size_t size = 0; size < 70000; size += size < 300 ? 1 : 6553) {
        digest_of_two(data + size % 7, data + 70000 - size % 3, size, two);
        a = digest_of(data + size % 7, size);
        b = digest_of(data + 70000 - size % 3, size);
        assert_true(digest_equal(&two[0], &a));
        assert_true(digest_equal(&two[1], &b));
    }
}

static void digests_of_many(void **state)
{
    static uint8_t data[40 * 4096 + 1];
    static const size_t sizes[] = {0, 1, 63, 64, 128, 100, 4096};
    struct digest many[40];

    for (size_t i = 0; i < sizeof data; i++)
        data[i] = (uint8_t)(i * 2246822519u >> 11);
    for (size_t k = 0; k < sizeof sizes / sizeof *sizes; k++) {
        for (size_t count = 0; count <= 40; count++) {
            digest_of_many(data + 1, sizes[k], count, many);
            for (size_t i = 0; i < count; i++) {
                struct digest d = digest_of(data + 1 + i * sizes[k], sizes[k]);
                assert_true(digest_equal(&many[i], &d));
            }
        }
    }
}

static void digest_refuses_text_that_is_none(void **state)
{
    char hex[DIGEST_HEX_SIZE + 1];
    struct digest d = digest_of("abc", 3), before = d;

    digest_to_hex(&d, hex);
    hex[63] = '\0';
    assert_int_equal(digest_from_hex(&d, hex), -EINVAL);
    memcpy(hex + 63, "00", 3);
    assert_int_equal(digest_from_hex(&d, hex), -EINVAL);
    memcpy(hex + 63, "D", 2);
    assert_int_equal(digest_from_hex(&d, hex), -EINVAL);
    assert_true(digest_equal(&d, &before));
}

static void integers_are_little_endian(void **state)
{
    uint8_t b[9] = {0};

    le64_put(b + 1, 0x0102030405060708u);
    assert_memory_equal(b + 1, "\x08\x07\x06\x05\x04\x03\x02\x01", 8);
    assert_true(le64_get(b + 1) == 0x0102030405060708u);
    assert_int_equal(le32_get(b + 1), 0x05060708);
    assert_int_equal(le16_get(b + 1), 0x0708);
}

static void names_are_derived_from_sources(void **state)
{
    static const struct {
        const char *source;
        bool is_url;
        const char *name; /* NULL: none can be derived */
    } rows[] = {
        {"s3://x/esRedditJson/", true, "esredditjson"},
        {"https://h/sub/trainingSet.tar.gz", true, "trainingset"},
        {"https://h/a/set.zip?token=x/y.tar#z", true, "set"},
        {"https://h/DATA.TAR.ZST", true, "data"},
        {"./imagenet_folder", false, "imagenet_folder"},
        {"/data/My Images///", false, "myimages"},
        {"photos.tar.gz", false, "photos.tar.gz"}, /* a directory may be called so */
        {"/data/Caf\xc3\xa9s", false, "cafs"},
        {"/data/.hidden", false, NULL},
        {"/data/a+b", false, NULL},
        {"/", false, NULL},
        {"", false, NULL},
        {"\xc3\xa9", false, NULL},
        {"123456789-123456789-123456789-123456789-123456789-123456789-123", false,
         "123456789-123456789-123456789-123456789-123456789-123456789-123"},
        {"123456789-123456789-123456789-123456789-123456789-123456789-1234", false, NULL},
    };

    for (size_t i = 0; i < COUNT(rows); i++) {
        char name[NAME_MAX_LENGTH + 1];
        bool got = name_derive(rows[i].source, rows[i].is_url, name);
        assert_int_equal(got, rows[i].name != NULL);
        if (got)
            assert_string_equal(name, rows[i].name);
    }
}

static void names_that_are_none(void **state)
{
    assert_true(name_is_valid("a"));
    assert_true(name_is_valid("0.a_b-c"));
    assert_false(name_is_valid(""));
    assert_false(name_is_valid("-a"));
    assert_false(name_is_valid(".a"));
    assert_false(name_is_valid("A"));
    assert_false(name_is_valid("a/b"));
    assert_false(name_is_valid("a:1"));

    char long_name[300];
    memset(long_name, 'x', sizeof long_name);
    assert_true(name_is_file_name(long_name, 255));
    assert_false(name_is_file_name(long_name, 256));
    assert_false(name_is_file_name("", 0));
    assert_false(name_is_file_name(".", 1));
    assert_false(name_is_file_name("..", 2));
    assert_true(name_is_file_name("...", 3));
    assert_true(name_is_file_name("\xff\n", 2));
    assert_false(name_is_file_name("a/b", 3));
    assert_false(name_is_file_name("a\0b", 3));
}

static void errors_keep_the_innermost_sentence(void **state)
{
    struct err err = ERR_INIT;

    assert_string_equal(err_text(&err, -ENOENT), strerror(ENOENT));
    assert_int_equal(err_fail(&err, -EIO, "disk %d broke", 7), -EIO);
    assert_int_equal(err_fail(&err, -ENOENT, "something failed"), -ENOENT);
    assert_string_equal(err_text(&err, -ENOENT), "disk 7 broke");
    assert_int_equal(err_prefix(&err, -EIO, "pack %s", "p/1"), -EIO);
    assert_string_equal(err_text(&err, -EIO), "pack p/1: disk 7 broke");
    err_clear(&err);
    (void)err_prefix(&err, -ENOENT, "x");
    char expected[256];
    (void)snprintf(expected, sizeof expected, "x: %s", strerror(ENOENT));
    assert_string_equal(err_text(&err, -EIO), expected);
    assert_int_equal(err_fail(NULL, -EIO, "nobody asks"), -EIO);
    assert_int_equal(err_prefix(NULL, -EIO, "nobody asks"), -EIO);
}

static void errors_are_cut_not_overrun(void **state)
{
    struct err err = ERR_INIT;
    char text[2 * sizeof err.text];

    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    (void)err_fail(&err, -EIO, "%s", text);
    assert_int_equal(strlen(err.text), sizeof err.text - 1);
    (void)err_prefix(&err, -EIO, "p");
    assert_int_equal(strlen(err.text), sizeof err.text - 1);
    assert_memory_equal(err.text, "p: xx", 5);
}

static void files_are_written_and_read_whole(void **state)
{
    char dir[] = "/tmp/test-base-XXXXXX", path[64], deep[64];
    struct buf b = BUF_INIT(100000), small = BUF_INIT(10);
    uint8_t data[70000], back[4];
    struct stat st;

    assert_non_null(mkdtemp(dir));
    (void)snprintf(path, sizeof path, "%s/file", dir);
    (void)snprintf(deep, sizeof deep, "%s/a/b/c", dir);
    for (size_t i = 0; i < sizeof data; i++)
        data[i] = (uint8_t)(i * 31);
    FILE *f = fopen(path, "we");
    assert_non_null(f);
    assert_int_equal(file_write(fileno(f), data, sizeof data), 0);
    assert_int_equal(file_pwrite(fileno(f), "abcd", 4, 10), 0);
    memcpy(data + 10, "abcd", 4);
    assert_int_equal(fclose(f), 0);

    assert_int_equal(file_slurp(-1, path, &b), 0);
    assert_int_equal(b.size, sizeof data);
    assert_memory_equal(b.data, data, sizeof data);
    assert_int_equal(file_slurp(-1, path, &small), -EFBIG);
    assert_int_equal(file_slurp(-1, deep, &b), -ENOENT);
    f = fopen(path, "re");
    assert_non_null(f);
    assert_int_equal(file_pread(fileno(f), back, 4, sizeof data - 2), 2);
    assert_int_equal(file_pread(fileno(f), back, 4, sizeof data), 0);
    assert_int_equal(fclose(f), 0);

    assert_int_equal(file_mkdirs(deep, 0755), 0);
    assert_int_equal(file_mkdirs(deep, 0755), 0);
    assert_int_equal(stat(deep, &st), 0);
    assert_true(S_ISDIR(st.st_mode));
    assert_int_equal(file_fsync_dir(deep), 0);
    (void)snprintf(deep, sizeof deep, "%s/file/x", dir);
    assert_int_equal(file_mkdirs(deep, 0755), -ENOTDIR);

    buf_release(&b);
    buf_release(&small);
    assert_int_equal(unlink(path), 0);
    for (const char *tail = "/a/b/c"; *tail;) {
        (void)snprintf(path, sizeof path, "%s%s", dir, tail);
        assert_int_equal(rmdir(path), 0);
        tail = strcmp(tail, "/a/b/c") == 0 ? "/a/b" : strcmp(tail, "/a/b") == 0 ? "/a" : "";
    }
    assert_int_equal(rmdir(dir), 0);
}

static void queue_is_first_in_first_out(void **state)
{
    int items[3];
    struct queue *q = queue_new(3);

    assert_non_null(q);
    for (int i = 0; i < 3; i++)
        assert_true(queue_push(q, &items[i]));
    assert_ptr_equal(queue_pop(q), &items[0]);
    assert_true(queue_push(q, &items[0]));
    queue_close(q);
    assert_false(queue_push(q, &items[0]));
    assert_ptr_equal(queue_pop(q), &items[1]);
    assert_ptr_equal(queue_pop(q), &items[2]);
    assert_ptr_equal(queue_pop(q), &items[0]);
    assert_null(queue_pop(q));
    queue_free(q);
    queue_free(NULL);
}

#define QUEUE_ITEMS   20000
#define QUEUE_THREADS 4

struct queue_test {
    struct queue *q;
    pthread_mutex_t lock;
    uint64_t sum, count; /* under lock */
};

static void *queue_producer(void *ctx)
{
    struct queue_test *t = ctx;

    for (uintptr_t i = 1; i <= QUEUE_ITEMS; i++) {
        if (!queue_push(t->q, (void *)i))
            return NULL;
    }
    return t;
}

static void *queue_consumer(void *ctx)
{
    struct queue_test *t = ctx;
    void *item;

    while ((item = queue_pop(t->q))) {
        WITH_LOCK(&t->lock);
        t->sum += (uintptr_t)item;
        t->count++;
    }
    return t;
}

static void queue_loses_nothing_between_threads(void **state)
{
    struct queue_test t = {.q = queue_new(8)};
    pthread_t producers[QUEUE_THREADS], consumers[QUEUE_THREADS];
    void *ended;

    assert_non_null(t.q);
    pthread_mutex_init(&t.lock, NULL);
    for (int i = 0; i < QUEUE_THREADS; i++) {
        assert_int_equal(pthread_create(&consumers[i], NULL, queue_consumer, &t), 0);
        assert_int_equal(pthread_create(&producers[i], NULL, queue_producer, &t), 0);
    }
    for (int i = 0; i < QUEUE_THREADS; i++) {
        assert_int_equal(pthread_join(producers[i], &ended), 0);
        assert_non_null(ended);
    }
    queue_close(t.q);
    for (int i = 0; i < QUEUE_THREADS; i++)
        assert_int_equal(pthread_join(consumers[i], &ended), 0);
    assert_int_equal(t.count, QUEUE_THREADS * QUEUE_ITEMS);
    assert_int_equal(t.sum, (uint64_t)QUEUE_THREADS * QUEUE_ITEMS * (QUEUE_ITEMS + 1) / 2);
    pthread_mutex_destroy(&t.lock);
    queue_free(t.q);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(buf_grows_to_its_maximum_only),
        cmocka_unit_test(buf_keeps_bytes_over_many_appends),
        cmocka_unit_test(vec_keeps_rows),
        cmocka_unit_test(vec_refuses_sizes_that_overflow),
        cmocka_unit_test(segvec_rows_stay_where_they_are),
        cmocka_unit_test(hex_there_and_back),
        cmocka_unit_test(digest_agrees_with_nist),
        cmocka_unit_test(digests_in_pairs),
        cmocka_unit_test(digests_of_many),
        cmocka_unit_test(digest_refuses_text_that_is_none),
        cmocka_unit_test(integers_are_little_endian),
        cmocka_unit_test(names_are_derived_from_sources),
        cmocka_unit_test(names_that_are_none),
        cmocka_unit_test(errors_keep_the_innermost_sentence),
        cmocka_unit_test(errors_are_cut_not_overrun),
        cmocka_unit_test(files_are_written_and_read_whole),
        cmocka_unit_test(queue_is_first_in_first_out),
        cmocka_unit_test(queue_loses_nothing_between_threads),
    };
    return cmocka_run_group_tests_name("base", tests, NULL, NULL);
}
