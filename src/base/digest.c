/* SPDX-License-Identifier: Apache-2.0 */
/*
 * SHA-256 by OpenSSL's libcrypto, which uses the CPU's SHA instructions where there are any.
 *
 * EVP contexts are kept per thread, since EVP_MD_CTX_new() and the fetch of the algorithm cost more
 * than the digest of a small file does.
 */
#include "base/digest-internal.h"

#include "base/hex.h"

#include <errno.h>
#include <openssl/evp.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

static pthread_once_t digest_once = PTHREAD_ONCE_INIT;
static pthread_key_t digest_key;
static EVP_MD *digest_md;
static bool digest_pairs, digest_is_wide;
/* Fewer pieces are done in pairs: lanes without a piece cost as much as those with one. */
#define WIDE_LEAST 10u

static void digest_thread_ends(void *ctx)
{
    EVP_MD_CTX_free(ctx);
}

static void digest_setup(void)
{
    digest_pairs = digest_has_pairs();
    digest_is_wide = digest_has_wide();
    digest_md = EVP_MD_fetch(NULL, "SHA256", NULL);
    if (!digest_md || pthread_key_create(&digest_key, digest_thread_ends) != 0) {
        (void)fputs("grid: libcrypto offers no SHA-256\n", stderr);
        abort(); /* nothing can be verified, so nothing may go on */
    }
}

static EVP_MD_CTX *digest_context(void)
{
    (void)pthread_once(&digest_once, digest_setup);
    EVP_MD_CTX *ctx = pthread_getspecific(digest_key);
    if (!ctx) {
        ctx = EVP_MD_CTX_new();
        if (!ctx || pthread_setspecific(digest_key, ctx) != 0)
            abort();
    }
    return ctx;
}

static void digest_check(int ok)
{
    if (!ok)
        abort(); /* libcrypto fails here only when it is broken: never go on with no digest */
}

struct digest digest_of(const void *data, size_t size)
{
    struct digest d;
    EVP_MD_CTX *ctx = digest_context();

    digest_check(EVP_DigestInit_ex2(ctx, digest_md, NULL));
    digest_check(EVP_DigestUpdate(ctx, data, size));
    digest_check(EVP_DigestFinal_ex(ctx, d.byte, NULL));
    return d;
}

void digest_of_two(const void *a, const void *b, size_t size, struct digest ret[static 2])
{
    (void)pthread_once(&digest_once, digest_setup);
    if (digest_pairs) {
        digest_pair(a, b, size, ret);
        return;
    }
    ret[0] = digest_of(a, size);
    ret[1] = digest_of(b, size);
}

void digest_of_many(const void *data, size_t size, size_t count, struct digest *ret)
{
    const uint8_t *at = data;

    (void)pthread_once(&digest_once, digest_setup);
    while (count > 0) {
        size_t n = count < DIGEST_WIDE ? count : DIGEST_WIDE;
        if (digest_is_wide && n >= (digest_pairs ? WIDE_LEAST : 4) && size % 64 == 0) {
            digest_wide(at, size, n, ret);
        } else if (count >= 2) {
            n = 2;
            digest_of_two(at, at + size, size, ret);
        } else {
            *ret = digest_of(at, size);
        }
        at += n * size;
        ret += n;
        count -= n;
    }
}

void digest_to_hex(const struct digest *d, char text[static DIGEST_HEX_SIZE])
{
    hex_encode(text, d->byte, DIGEST_SIZE);
}

int digest_from_hex(struct digest *ret, const char *text)
{
    struct digest d;

    if (strlen(text) != 2 * (size_t)DIGEST_SIZE || hex_decode(d.byte, DIGEST_SIZE, text) < 0)
        return -EINVAL;
    *ret = d;
    return 0;
}

struct digest_stream {
    EVP_MD_CTX *ctx;
};

struct digest_stream *digest_stream_new(void)
{
    (void)pthread_once(&digest_once, digest_setup);
    struct digest_stream *s = malloc(sizeof *s);
    if (!s)
        return NULL;
    s->ctx = EVP_MD_CTX_new();
    if (!s->ctx || !EVP_DigestInit_ex2(s->ctx, digest_md, NULL)) {
        digest_stream_free(s);
        return NULL;
    }
    return s;
}

void digest_stream_free(struct digest_stream *s)
{
    if (!s)
        return;
    EVP_MD_CTX_free(s->ctx);
    free(s);
}

void digest_stream_add(struct digest_stream *s, const void *data, size_t size)
{
    digest_check(EVP_DigestUpdate(s->ctx, data, size));
}

struct digest digest_stream_finish(struct digest_stream *s)
{
    struct digest d;

    digest_check(EVP_DigestFinal_ex(s->ctx, d.byte, NULL));
    digest_check(EVP_DigestInit_ex2(s->ctx, digest_md, NULL));
    return d;
}
