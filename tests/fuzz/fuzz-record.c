/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzzes the records and keys of the catalogue.
 *
 * The input is one byte, then a record. The byte's low bits choose the expected type; with its high
 * bit the bytes are taken as they are, else the digest line is added, so that the fuzzer gets past
 * it.
 */
#include "fuzz-target.h"

#include "catalogue/catalogue-internal.h"

#define KEY "n/cats/v/9999999998/o"

static void use_outcome(const json_t *body)
{
    struct version_info v;

    if (version_from_outcome(body, KEY, "cats", 1, &v, NULL) < 0)
        return;
    FUZZ_REQUIRE(v.version == 1 && strcmp(v.name, "cats") == 0);
    FUZZ_REQUIRE(v.status == VERSION_SUCCEEDED || v.status == VERSION_FAILED);
    FUZZ_REQUIRE(memchr(v.owner, '\0', sizeof v.owner) && memchr(v.host, '\0', sizeof v.host));
    FUZZ_REQUIRE(memchr(v.source, '\0', sizeof v.source) &&
                 memchr(v.reason, '\0', sizeof v.reason));
    FUZZ_REQUIRE(v.index.trailer_length <= v.index.length);
}

static void use_record(struct bytes bytes, enum record_type type)
{
    AUTO(json_decref) json_t *body = NULL, *again = NULL;
    AUTO(buf_release) struct buf b = BUF_INIT(4 * CATALOGUE_RECORD_MAX);
    struct err err = ERR_INIT;

    int r = record_decode(bytes, KEY, type, &body, &err);
    FUZZ_REQUIRE(r == 0 || r == -EBADMSG || r == -EPROTO || r == -EPROTONOSUPPORT);
    FUZZ_REQUIRE(r == 0 || strstr(err.text, KEY));
    if (r < 0)
        return;
    use_outcome(body);
    if (record_encode(type, body, &b) < 0) /* escapes may make it longer than a record */
        return;
    FUZZ_REQUIRE(record_decode(buf_bytes(&b), KEY, type, &again, NULL) == 0);
    FUZZ_REQUIRE(json_equal(body, again));
}

/* A key that parses is the key that is made of its parts. */
static void use_key(const char *text)
{
    struct key_parts parts;
    char back[CATALOGUE_KEY_MAX], out[64];
    uint32_t seq;
    uint64_t round;
    char leaf;

    text_copy(out, sizeof out, text);
    FUZZ_REQUIRE(memchr(out, '\0', sizeof out));
    (void)key_parse_seq(text, 35, &seq); /* only that it stays in bounds */
    (void)key_parse_round(text, &round, &leaf);
    if (!key_parse_version(text, &parts))
        return;
    key_version(back, parts.name, parts.version, "");
    FUZZ_REQUIRE(strncmp(text, back, strlen(back)) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    AUTO(buf_release) struct buf b = BUF_INIT(4 * CATALOGUE_RECORD_MAX);
    char hex[DIGEST_HEX_SIZE];

    if (size < 1 || buf_append(&b, data + 1, size - 1) < 0)
        return 0;
    use_key(buf_text(&b));
    enum record_type type = (enum record_type)((data[0] & 0x7f) % RECORD_TYPE_COUNT);
    if (!(data[0] & 0x80)) {
        struct digest d = digest_of(b.data, b.size);
        digest_to_hex(&d, hex);
        if (buf_printf(&b, "sha256 %s\n", hex) < 0)
            return 0;
    }
    use_record(buf_bytes(&b), type);
    return 0;
}
