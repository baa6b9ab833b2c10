/* SPDX-License-Identifier: Apache-2.0 */
/*
 * AWS Signature Version 4, and the other two uses of libcrypto here (HMAC for it; MD5 for the ETag
 * that servers compute of multipart objects, which is no protection and is not used as one).
 *
 * Every header given is signed. libcurl's own signer is not used: it lacks x-amz-content-sha256 in
 * the versions around, and Ceph refuses that.
 */
#include "s3/s3-internal.h"

#include "base/hex.h"

#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <stdio.h>
#include <time.h>

#define CANONICAL_MAX (64u << 10)

void s3_sign_date(int64_t wall_ms, char ret[static S3_AMZ_DATE_SIZE])
{
    time_t t = (time_t)(wall_ms / S3_SECOND_MS);
    struct tm parts;

    if (!gmtime_r(&t, &parts) || strftime(ret, S3_AMZ_DATE_SIZE, "%Y%m%dT%H%M%SZ", &parts) == 0)
        (void)snprintf(ret, S3_AMZ_DATE_SIZE, "19700101T000000Z"); /* the server will refuse it */
}

static int hmac(const void *key, size_t key_size, const char *text, size_t size,
                uint8_t ret[static DIGEST_SIZE])
{
    unsigned n = DIGEST_SIZE;

    return HMAC(EVP_sha256(), key, (int)key_size, (const unsigned char *)text, size, ret, &n)
               ? 0
               : -ENOMEM;
}

static int signing_key(const struct s3_signing *g, uint8_t key[static DIGEST_SIZE])
{
    char first[S3_SECRET_MAX + 8];

    int n = snprintf(first, sizeof first, "AWS4%s", g->credential->secret);
    int r = hmac(first, (size_t)n, g->date, 8, key);
    explicit_bzero(first, sizeof first);
    if (r == 0)
        r = hmac(key, DIGEST_SIZE, g->region, strlen(g->region), key);
    if (r == 0)
        r = hmac(key, DIGEST_SIZE, g->service, strlen(g->service), key);
    return r == 0 ? hmac(key, DIGEST_SIZE, "aws4_request", 12, key) : r;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct http_header *)a)->name, ((const struct http_header *)b)->name);
}

/* Values as SigV4 sees them: trimmed, runs of spaces as one. */
static int append_value(struct buf *b, const char *value)
{
    bool space = false, any = false;

    for (; *value; value++) {
        if (*value == ' ' || *value == '\t') {
            space = any;
            continue;
        }
        if ((space && buf_append(b, " ", 1) < 0) || buf_append(b, value, 1) < 0)
            return -EFBIG;
        space = false;
        any = true;
    }
    return 0;
}

static int canonical_request(const struct s3_signing *g, const struct http_header *headers,
                             size_t count, const char *names, struct buf *b)
{
    int r = buf_printf(b, "%s\n%s\n%s\n", g->method, g->path, g->query);

    for (size_t i = 0; i < count && r == 0; i++) {
        r = buf_printf(b, "%s:", headers[i].name);
        if (r == 0)
            r = append_value(b, headers[i].value);
        if (r == 0)
            r = buf_append_str(b, "\n");
    }
    return r < 0 ? r : buf_printf(b, "\n%s\n%s", names, g->payload_hash);
}

int s3_sign(const struct s3_signing *g, struct http_header *headers, size_t count,
            char ret_authorization[static S3_AUTHORIZATION_MAX])
{
    AUTO(buf_release) struct buf request = BUF_INIT(CANONICAL_MAX);
    AUTO(buf_release) struct buf names = BUF_INIT(4096);
    AUTO(buf_release) struct buf text = BUF_INIT(4096);
    char scope[256], hash[DIGEST_HEX_SIZE], signature[DIGEST_HEX_SIZE];
    uint8_t key[DIGEST_SIZE], mac[DIGEST_SIZE];

    qsort(headers, count, sizeof *headers, by_name);
    for (size_t i = 0; i < count; i++)
        if (buf_printf(&names, "%s%s", i ? ";" : "", headers[i].name) < 0)
            return -EFBIG;
    if (canonical_request(g, headers, count, buf_text(&names), &request) < 0)
        return -EFBIG;
    struct digest d = digest_of(request.data, request.size);
    digest_to_hex(&d, hash);
    explicit_bzero(request.data, request.size); /* session tokens stand in it */

    int n =
        snprintf(scope, sizeof scope, "%.8s/%s/%s/aws4_request", g->date, g->region, g->service);
    if (n < 0 || (size_t)n >= sizeof scope ||
        buf_printf(&text, "AWS4-HMAC-SHA256\n%s\n%s\n%s", g->date, scope, hash) < 0)
        return -EFBIG;
    int r = signing_key(g, key);
    if (r == 0)
        r = hmac(key, sizeof key, buf_text(&text), text.size, mac);
    explicit_bzero(key, sizeof key);
    if (r < 0)
        return r;
    hex_encode(signature, mac, sizeof mac);
    n = snprintf(ret_authorization, S3_AUTHORIZATION_MAX,
                 "AWS4-HMAC-SHA256 Credential=%s/%s,SignedHeaders=%s,Signature=%s",
                 g->credential->access_key, scope, buf_text(&names), signature);
    return n > 0 && (size_t)n < S3_AUTHORIZATION_MAX ? 0 : -EFBIG;
}

int s3_multipart_etag(const struct s3_etag *parts, size_t count, char ret[static S3_ETAG_MAX])
{
    EVP_MD_CTX *md = EVP_MD_CTX_new();
    uint8_t part[16], sum[EVP_MAX_MD_SIZE];
    unsigned size = 0;
    char text[33];
    bool ok = md && EVP_DigestInit_ex(md, EVP_md5(), NULL) == 1;

    for (size_t i = 0; i < count && ok; i++)
        ok = strlen(parts[i].text) == 32 && hex_decode(part, sizeof part, parts[i].text) == 0 &&
             EVP_DigestUpdate(md, part, sizeof part) == 1;
    ok = ok && EVP_DigestFinal_ex(md, sum, &size) == 1 && size == sizeof part;
    EVP_MD_CTX_free(md);
    if (!ok)
        return -EINVAL;
    hex_encode(text, sum, sizeof part);
    (void)snprintf(ret, S3_ETAG_MAX, "%s-%zu", text, count);
    return 0;
}
