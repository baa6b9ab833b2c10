/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Shared by the files of credentials: the state, and one function for each place to look in.
 */
#ifndef S3_S3_CREDENTIAL_INTERNAL_H
#define S3_S3_CREDENTIAL_INTERNAL_H

#include "s3/s3-credential.h"

#include "http/http.h"
#include "s3/s3-internal.h"
#include "s3/s3-profile.h"

struct s3_credentials {
    struct http *http; /* borrowed */
    struct env *env;
    char *profile, *region, *sts_endpoint, *role_arn, *external_id; /* owned; may be NULL */

    pthread_mutex_t lock; /* of what is known; held for moments */
    struct s3_credential known;
    uint64_t generation;   /* of `known`; 0: nothing yet */
    bool none;             /* looked everywhere: there are none */
    int64_t look_again_ms; /* before that, no new look (boot clock) */
    int64_t jitter_ms;     /* so that many clients do not refresh at once */
    bool rejected;         /* the server refused `known` */

    pthread_mutex_t finding; /* one look at a time; held across network calls */
};

/* Each gives 0, -ENOENT (this place is not set up), or a failure with a sentence. */
typedef int s3_provider_fn(struct s3_credentials *k, const struct s3_profile *p,
                           struct s3_credential *ret, struct err *err);
s3_provider_fn s3_credential_environment, s3_credential_profile;       /* s3-credential-static.c */
s3_provider_fn s3_credential_process;                                  /* s3-credential-process.c */
s3_provider_fn s3_credential_web_identity, s3_credential_profile_role; /* s3-credential-sts.c */
s3_provider_fn s3_credential_container; /* s3-credential-container.c */
s3_provider_fn s3_credential_machine;   /* s3-credential-machine.c: IMDSv2 */

/* Keys as text; checked for length and for being one word. */
int s3_credential_set(struct s3_credential *c, const char *access_key, const char *secret,
                      const char *token, const char *source, struct err *err);
/* All places but assumed roles, for `p`. */
int s3_credential_find(struct s3_credentials *k, const struct s3_profile *p,
                       struct s3_credential *ret, struct err *err);
/* `base` assumes the role. */
int s3_credential_assume(struct s3_credentials *k, const struct s3_credential *base,
                         const char *role_arn, const char *external_id, const char *session_name,
                         struct s3_credential *ret, struct err *err);
/* {"AccessKeyId", "SecretAccessKey", token, "Expiration"}: of processes, containers, machines. */
int s3_credential_parse_json(struct bytes text, const char *token_name, const char *source,
                             struct s3_credential *ret, struct err *err);

#endif
