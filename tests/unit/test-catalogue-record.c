/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Records and keys of the catalogue: what damage, a newer writer and broken rules look like (I17).
 */
#include "catalogue/catalogue-internal.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#define HEX32 "00112233445566778899aabbccddeeff"
#define KEY   "n/cats/v/9999999998/o"

static const char good_body[] =
    "{\"nonce\":\"" HEX32 "\",\"session\":\"" HEX32 "\",\"time_ms\":1700000000000,"
    "\"writer\":{\"host\":\"h\",\"pid\":7,\"program\":\"0\",\"user\":\"u\"}}";

/* A record with a right digest around any first line and body. */
static void frame(struct buf *b, const char *first, const char *body)
{
    char hex[DIGEST_HEX_SIZE];

    buf_clear(b);
    assert_int_equal(buf_printf(b, "%s\n%s\n", first, body), 0);
    struct digest d = digest_of(b->data, b->size);
    digest_to_hex(&d, hex);
    assert_int_equal(buf_printf(b, "sha256 %s\n", hex), 0);
}

static int decode(const struct buf *b, enum record_type type, struct err *err)
{
    AUTO(json_decref) json_t *body = NULL;
    int r = record_decode(buf_bytes(b), KEY, type, &body, err);

    assert_true((r == 0) == (body != NULL));
    return r;
}

static void test_round_trip(void **state)
{
    for (int type = 0; type < RECORD_TYPE_COUNT; type++) {
        AUTO(buf_release) struct buf b = BUF_INIT(CATALOGUE_RECORD_MAX);
        AUTO(json_decref) json_t *body = json_loads(good_body, 0, NULL), *back = NULL;
        struct err err = ERR_INIT;

        assert_non_null(body);
        assert_int_equal(record_encode((enum record_type)type, body, &b), 0);
        assert_int_equal(record_decode(buf_bytes(&b), KEY, (enum record_type)type, &back, &err), 0);
        assert_true(json_equal(body, back));
        /* another type is refused */
        int other = (type + 1) % RECORD_TYPE_COUNT;
        assert_int_equal(decode(&b, (enum record_type)other, &err), -EPROTO);
    }
}

static void test_looks_as_documented(void **state)
{
    AUTO(buf_release) struct buf b = BUF_INIT(CATALOGUE_RECORD_MAX);
    AUTO(json_decref) json_t *body = json_pack("{s:s, s:i}", "b", "x\ny", "a", 1);

    assert_int_equal(record_encode(RECORD_ROUND_END, body, &b), 0);
    assert_string_equal(
        buf_text(&b), "grid-record 1 round-end\n{\"a\":1,\"b\":\"x\\ny\"}\n"
                      "sha256 a78d43a8b9a1dbf72daa4e8cbf4275f32272d56c0d0d2e42654af9b560d23325\n");
}

static void test_every_flipped_byte_is_damage(void **state)
{
    for (int type = 0; type < RECORD_TYPE_COUNT; type++) {
        AUTO(buf_release) struct buf b = BUF_INIT(CATALOGUE_RECORD_MAX);
        AUTO(json_decref) json_t *body = json_loads(good_body, 0, NULL);

        assert_int_equal(record_encode((enum record_type)type, body, &b), 0);
        for (size_t i = 0; i < b.size; i++) {
            static const uint8_t flips[] = {0x01, 0x20, 0x80, 0xff};
            for (size_t k = 0; k < sizeof flips; k++) {
                struct err err = ERR_INIT;
                b.data[i] ^= flips[k];
                assert_int_equal(decode(&b, (enum record_type)type, &err), -EBADMSG);
                assert_non_null(strstr(err.text, KEY));
                b.data[i] ^= flips[k];
            }
        }
    }
}

static void test_every_cut_is_damage(void **state)
{
    AUTO(buf_release) struct buf b = BUF_INIT(CATALOGUE_RECORD_MAX);
    AUTO(json_decref) json_t *body = json_loads(good_body, 0, NULL);

    assert_int_equal(record_encode(RECORD_SESSION, body, &b), 0);
    for (size_t left = b.size; left-- > 0;) {
        struct err err = ERR_INIT;
        b.size = left;
        assert_int_equal(decode(&b, RECORD_SESSION, &err), -EBADMSG);
        assert_non_null(strstr(err.text, KEY));
    }
    assert_int_equal(record_encode(RECORD_SESSION, body, &b), 0);
    assert_int_equal(buf_append(&b, "\n", 1), 0); /* nothing may stand behind it */
    assert_int_equal(decode(&b, RECORD_SESSION, NULL), -EBADMSG);
}

static void test_newer_versions_and_broken_rules(void **state)
{
    static const struct {
        const char *first, *body;
        int result;
    } cases[] = {
        {"grid-record 1 session", good_body, 0},
        {"grid-record 2 session", good_body, -EPROTONOSUPPORT},
        {"grid-record 999999999 anything", "{}", -EPROTONOSUPPORT},
        {"grid-record 9999999999 session", good_body, -EBADMSG},
        {"grid-record 0 session", good_body, -EBADMSG},
        {"grid-record 01 session", good_body, -EBADMSG},
        {"grid-record  1 session", good_body, -EBADMSG},
        {"grid-record 1", good_body, -EBADMSG},
        {"grid-record 1 ", good_body, -EPROTO},
        {"grid-record 1 sessio", good_body, -EPROTO},
        {"grid-record 1 sessions", good_body, -EPROTO},
        {"Grid-record 1 session", good_body, -EBADMSG},
        {"", good_body, -EBADMSG},
        {"grid-record 1 session", "", -EPROTO},
        {"grid-record 1 session", "[]", -EPROTO},
        {"grid-record 1 session", "7", -EPROTO},
        {"grid-record 1 session", "{", -EPROTO},
        {"grid-record 1 session", "{\n}", -EPROTO},
        {"grid-record 1 session", "{}", -EPROTO},
        {"grid-record 1 session", "{\"a\":1,\"a\":2}", -EPROTO},
        {"grid-record 1 session", "{\"nonce\":\"\\u0000\"}", -EPROTO},
        {"grid-record 1 session", "{\"nonce\":\"" HEX32 "\"}", -EPROTO},
        {"grid-record 1 session", "{\"nonce\":\"" HEX32 "\",\"time_ms\":-1}", -EPROTO},
        {"grid-record 1 session", "{\"nonce\":\"" HEX32 "\",\"time_ms\":1,\"writer\":1}", -EPROTO},
        {"grid-record 1 session", "{\"nonce\":\"" HEX32 "\",\"time_ms\":1,\"writer\":{}}", -EPROTO},
    };

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        AUTO(buf_release) struct buf b = BUF_INIT(CATALOGUE_RECORD_MAX);
        struct err err = ERR_INIT;
        frame(&b, cases[i].first, cases[i].body);
        assert_int_equal(decode(&b, RECORD_SESSION, &err), cases[i].result);
        assert_true(cases[i].result == 0 || strstr(err.text, KEY));
    }
}

static void test_depth_and_length_are_bounded(void **state)
{
    AUTO(buf_release) struct buf b = BUF_INIT(4 * CATALOGUE_RECORD_MAX);
    AUTO(buf_release) struct buf deep = BUF_INIT(2 * CATALOGUE_RECORD_MAX);

    assert_int_equal(buf_append_str(&deep, "{\"a\":"), 0);
    for (int i = 0; i < 100000; i++)
        assert_int_equal(buf_append_str(&deep, "["), 0);
    frame(&b, "grid-record 1 session", buf_text(&deep));
    assert_int_equal(decode(&b, RECORD_SESSION, NULL), -EPROTO);
    while (deep.size <= CATALOGUE_RECORD_MAX)
        assert_int_equal(buf_append_str(&deep, "[[[[[[[[[[[[[[[["), 0);
    frame(&b, "grid-record 1 session", buf_text(&deep));
    assert_int_equal(decode(&b, RECORD_SESSION, NULL), -EBADMSG);
}

static void test_fields(void **state)
{
    AUTO(json_decref)
    json_t *body =
        json_pack("{s:s, s:I, s:b, s:o, s:s, s:f, s:s}", "text", "x", "big", (json_int_t)INT64_MAX,
                  "flag", 1, "object", json_object(), "hex", HEX32, "real", 1.0, "short", "0011");
    struct nonce nonce;

    assert_non_null(body);
    struct record_fields f = {.body = body, .key = KEY};
    assert_string_equal(record_string(&f, "text"), "x");
    assert_true(record_number(&f, "big", INT64_MAX) == INT64_MAX);
    assert_true(record_flag(&f, "flag"));
    assert_non_null(record_member(&f, "object", JSON_OBJECT));
    record_hex(&f, "hex", &nonce, sizeof nonce);
    assert_int_equal(nonce.byte[15], 0xff);
    assert_int_equal(f.error, 0);

#define REFUSED(call)                                                                              \
    do {                                                                                           \
        struct err err_ = ERR_INIT;                                                                \
        f = (struct record_fields){.body = body, .key = KEY, .err = &err_};                        \
        (void)(call);                                                                              \
        assert_int_equal(f.error, -EPROTO);                                                        \
        assert_non_null(strstr(err_.text, KEY));                                                   \
        assert_true(record_number(&f, "big", INT64_MAX) == 0); /* errors are sticky */             \
    } while (0)
    REFUSED(record_string(&f, "nothing"));
    REFUSED(record_string(&f, "big"));
    REFUSED(record_number(&f, "text", 9));
    REFUSED(record_number(&f, "real", 9));
    REFUSED(record_number(&f, "big", 9));
    REFUSED(record_flag(&f, "text"));
    REFUSED(record_flag(&f, "nothing"));
    REFUSED(record_member(&f, "text", JSON_OBJECT));
    REFUSED((record_hex(&f, "short", &nonce, sizeof nonce), 0));
    REFUSED((record_hex(&f, "text", &nonce, sizeof nonce), 0));
#undef REFUSED
}

static void test_text_is_cut_between_characters(void **state)
{
    static const struct {
        const char *in;
        size_t size;
        const char *out;
    } cases[] = {
        {"", 4, ""},
        {"abc", 4, "abc"},
        {"abcd", 4, "..."},
        {"abcdefgh", 8, "abcd..."},
        {"\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4", 9, "\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4"},
        {"\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4", 8, "\xc3\xa4\xc3\xa4..."},
        {"a\xff"
         "b",
         16,
         "a\xef\xbf\xbd"
         "b"},
        {"\xc3", 16, "\xef\xbf\xbd"},
        {"\xed\xa0\x80", 16, "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"}, /* a surrogate */
        {"\xc0\x80", 16, "\xef\xbf\xbd\xef\xbf\xbd"},                 /* too long a form */
        {"\xf0\x9f\x98\x80", 16, "\xf0\x9f\x98\x80"},
        {"\xf4\x90\x80\x80", 16, "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"},
    };

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char out[32];
        memset(out, 'Z', sizeof out);
        text_copy(out, cases[i].size, cases[i].in);
        assert_string_equal(out, cases[i].out);
        assert_int_equal(out[cases[i].size], 'Z');
    }
}

static void test_keys_round_trip(void **state)
{
    static const uint32_t numbers[] = {1, 2, 10, 999999, CATALOGUE_VERSION_MAX};
    static const char *const leaves[] = {"", "a", "o", "d/000001/i", "d/000007/r"};

    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        for (size_t k = 0; k < sizeof leaves / sizeof *leaves; k++) {
            char key[CATALOGUE_KEY_MAX];
            struct key_parts parts;
            key_version(key, "cats-2.x_y", numbers[i], leaves[k]);
            assert_true(key_parse_version(key, &parts));
            assert_string_equal(parts.name, "cats-2.x_y");
            assert_int_equal(parts.version, numbers[i]);
            assert_int_equal(parts.leaf, KEY_LEAF_NONE + k);
        }
    }
    char newer[CATALOGUE_KEY_MAX], older[CATALOGUE_KEY_MAX];
    key_version(newer, "x", 10, "a");
    key_version(older, "x", 9, "a");
    assert_true(strcmp(newer, older) < 0);
    assert_string_equal(older, "n/x/v/9999999990/a");
}

static void test_strange_keys_are_nobodys(void **state)
{
    static const char *const keys[] = {
        "",
        "n/",
        "n/x",
        "n/x/v/",
        "n/x/v/1/a",
        "n/x/v/9999999998",
        "n/x/v/9999999998/b",
        "n/x/v/9999999999/a",
        "n/x/v/0000000000/a",
        "n/x/v/5999999998/a",
        "n/X/v/9999999998/a",
        "n//v/9999999998/a",
        "n/x/w/9999999998/a",
        "n/x/v/99999999980/a",
        "n/x/v/999999999a/a",
        "n/x/v/9999999998/a/b",
        "n/x/v/9999999998/d/1/i",
        "n/x/v/9999999998/d/000001/x",
        "n/x/v/9999999998/d/000001",
        "s/x/v/9999999998/a",
        "n/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa/v/9999999998/a"};

    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        struct key_parts parts = {.version = 77};
        assert_false(key_parse_version(keys[i], &parts));
        assert_int_equal(parts.version, 77);
    }
    uint32_t seq = 77;
    uint64_t round = 77;
    char leaf;
    assert_false(key_parse_seq("p/x/4294967296", 4, &seq));
    assert_false(key_parse_seq("p/x/", 4, &seq));
    assert_false(key_parse_seq("p/", 4, &seq));
    assert_false(key_parse_seq("p/x/1a", 4, &seq));
    assert_false(key_parse_seq("p/x/1/2", 4, &seq));
    assert_int_equal(seq, 77);
    assert_true(key_parse_seq("p/x/4294967295", 4, &seq));
    assert_true(seq == UINT32_MAX);
    assert_false(key_parse_round("g/9999999999/c", &round, &leaf));
    assert_false(key_parse_round("g/9999999998/d", &round, &leaf));
    assert_false(key_parse_round("g/9999999998/cc", &round, &leaf));
    assert_false(key_parse_round("g/9999999998", &round, &leaf));
    assert_int_equal(round, 77);
    assert_true(key_parse_round("g/9999999998/w", &round, &leaf));
    assert_int_equal(round, 1);
    assert_int_equal(leaf, 'w');
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_looks_as_documented),
        cmocka_unit_test(test_every_flipped_byte_is_damage),
        cmocka_unit_test(test_every_cut_is_damage),
        cmocka_unit_test(test_newer_versions_and_broken_rules),
        cmocka_unit_test(test_depth_and_length_are_bounded),
        cmocka_unit_test(test_fields),
        cmocka_unit_test(test_text_is_cut_between_characters),
        cmocka_unit_test(test_keys_round_trip),
        cmocka_unit_test(test_strange_keys_are_nobodys),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
