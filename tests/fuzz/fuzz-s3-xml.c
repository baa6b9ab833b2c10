/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzzes what reads a server's text: pages of listings, errors, single words, decoded keys; and the
 * profiles of AWS's files. What is accepted must keep the promises of s3-internal.h; and what the
 * quick reader of plain XML accepts, the parser of all XML must have accepted with the same events.
 */
#include "fuzz-target.h"

#include "s3/s3-internal.h"
#include "s3/s3-profile.h"

#include <string.h>

static void check_page(struct bytes body, bool versions)
{
    AUTO(s3_page_release) struct s3_page p = {.truncated = false};
    struct err err = ERR_INIT;

    int r = s3_page_parse(body, versions, &p, &err);
    FUZZ_REQUIRE(r == 0 || r == -EPROTO || r == -ENOMEM);
    FUZZ_REQUIRE(r != -EPROTO || err.text[0]);
    if (r < 0)
        return;
    FUZZ_REQUIRE(!p.truncated || p.token);
    for (size_t i = 0; i < p.rows.count; i++) {
        const struct s3_entry *row = &p.rows.at[i];
        FUZZ_REQUIRE(row->key[0] && strlen(row->key) <= S3_KEY_MAX);
        FUZZ_REQUIRE(i == 0 || strcmp(p.rows.at[i - 1].key, row->key) < 0);
        FUZZ_REQUIRE(row->object.size <= INT64_MAX);
    }
}

struct heard {
    struct digest digest; /* of all events */
    size_t count;
};

static int hear(void *ctx, const struct s3_xml_event *e)
{
    struct heard *h = ctx;
    struct buf b = BUF_INIT(S3_XML_TEXT_MAX + 4096u);

    FUZZ_REQUIRE(buf_append(&b, h->digest.byte, sizeof h->digest.byte) == 0);
    FUZZ_REQUIRE(buf_printf(&b, "%d %u %s %s", e->close, e->depth, e->name, e->text) == 0);
    h->digest = digest_of(b.data, b.size);
    h->count++;
    buf_release(&b);
    return 0;
}

static void check_scan(struct bytes body)
{
    struct heard quick = {.count = 0}, whole = {.count = 0};

    int r = s3_xml_scan(body, hear, &quick);
    FUZZ_REQUIRE(r == 0 || r == -ENOTSUP);
    if (r < 0)
        return;
    FUZZ_REQUIRE(s3_xml_parse(body, hear, &whole) == 0);
    FUZZ_REQUIRE(quick.count == whole.count && digest_equal(&quick.digest, &whole.digest));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    AUTO(s3_profile_release) struct s3_profile profile = {.name = "default"};
    struct bytes body = bytes_of(data, size);
    struct s3_answer answer;
    char word[64];

    check_scan(body);
    check_page(body, false);
    check_page(body, true);
    if (s3_xml_error(body, &answer))
        FUZZ_REQUIRE(strlen(answer.code) <= S3_CODE_MAX && !strpbrk(answer.code, "\n\r\x1b"));
    if (s3_xml_find(body, "InitiateMultipartUploadResult", "UploadId", word, sizeof word) == 0)
        FUZZ_REQUIRE(strlen(word) < sizeof word);
    FUZZ_REQUIRE(s3_profile_parse(&profile, body, size % 2) == 0);
    return 0;
}
