/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Stored credentials: roles that may read buckets of sources. A role's ARN and an external id,
 * which are no secrets; what they are assumed with is found as AWS's own tools find it, each time.
 */
#ifndef CLI_CREDENTIAL_H
#define CLI_CREDENTIAL_H

#include "cli/cli-internal.h"

#include "s3/s3.h"

#define CREDENTIALS_MAX         100u /* each may be tried, one after the other */
#define CREDENTIAL_ARN_MAX      2048u
#define CREDENTIAL_EXTERNAL_MAX 1224u /* of AWS */
#define CREDENTIAL_TEXT_MAX     255u

struct credential {
    char name[64];
    char role_arn[CREDENTIAL_ARN_MAX + 1];
    char external_id[CREDENTIAL_EXTERNAL_MAX + 1]; /* "": none */
    char description[CREDENTIAL_TEXT_MAX + 1];
    int64_t created_ms;
};

struct credentials {
    VEC(struct credential) rows;
};
void credentials_release(struct credentials *c);
static inline void auto_credentials_release(struct credentials *c)
{
    credentials_release(c);
}

/* The file beside the user's configuration. */
int credentials_path(const struct places *places, char **ret, struct err *err);
/* A missing file is an empty one. Refused if others may write it: it says which role is assumed. */
int credentials_read(const char *path, struct credentials *ret, struct err *err);
/* Add one, or take one away, while no other process does. -EEXIST, -ENOENT, with a sentence. */
int credentials_add(const char *path, const struct credential *c, struct err *err);
int credentials_remove(const char *path, const char *name, struct err *err);

bool credential_arn_is_valid(const char *arn);
bool credential_external_id_is_valid(const char *id);

/* A client that may list below `prefix`, or read `key` where that is not NULL: with what AWS's own
 * tools would use, else with the first stored credential that may. `base` has endpoint, region and
 * so on. *ret_used (may be NULL) is the credential's name, "" for none. */
int credential_choose(const char *path, const struct s3_options *base, const char *bucket,
                      const char *prefix, const char *key, struct s3 **ret,
                      struct credential *ret_used, struct err *err);

#endif
