/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where credentials come from, and keeping them fresh.
 *
 * The order is that of AWS's tools: environment, assumed role or web identity or keys or
 * credential_process of the profile, web identity of the environment, container endpoint, IMDSv2.
 * What was found is kept; it is refreshed ahead of its expiry, by one thread at a time, while the
 * others go on with what there is. Threads: any.
 */
#ifndef S3_S3_CREDENTIAL_H
#define S3_S3_CREDENTIAL_H

#include "base/env.h"
#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>

#define S3_ACCESS_KEY_MAX 255u
#define S3_SECRET_MAX     511u
#define S3_TOKEN_MAX      8191u

struct s3_credential {
    char access_key[S3_ACCESS_KEY_MAX + 1];
    char secret[S3_SECRET_MAX + 1];
    char token[S3_TOKEN_MAX + 1]; /* "": none */
    int64_t expires_ms;           /* wall clock; 0: never */
    char source[256];             /* for sentences: "the environment" */
    uint64_t generation;          /* which of those that were found; for s3_credentials_reject() */
};

void s3_credential_wipe(struct s3_credential *c);
static inline void auto_s3_credential_wipe(struct s3_credential *c)
{
    s3_credential_wipe(c);
}

struct http;
struct s3_credentials;
struct s3_credentials_options {
    struct http *http;
    struct env *env;
    const char *profile; /* NULL: AWS_PROFILE, "default" */
    const char *region;
    const char *sts_endpoint; /* NULL: AWS_ENDPOINT_URL_STS, else that of AWS in `region` */
    const char *role_arn, *external_id; /* NULL: none */
};
int s3_credentials_new(const struct s3_credentials_options *o, struct s3_credentials **ret,
                       struct err *err);
void s3_credentials_free(struct s3_credentials *k);

/* What is there, without waiting: 0; -ENOENT: there are none; -EAGAIN: s3_credentials_get() must be
 * called, on a thread that may wait. *ret_stale: good, but it is time to get new ones. */
int s3_credentials_peek(struct s3_credentials *k, struct s3_credential *ret, bool *ret_stale);
/* Find or refresh them. -ENOENT: there are none (the sentence says where was looked). */
int s3_credentials_get(struct s3_credentials *k, struct s3_credential *ret, struct err *err);
/* The server refused those of `generation` as expired: they are not used again. */
void s3_credentials_reject(struct s3_credentials *k, uint64_t generation);

#endif
