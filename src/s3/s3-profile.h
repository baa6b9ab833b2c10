/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One profile of AWS's shared files: ~/.aws/config and ~/.aws/credentials, merged (the second
 * wins).
 *
 * Their dialect of INI: "[profile NAME]" in the first, "[NAME]" in the second, "key = value", and
 * indented lines below a key without a value, which are told here as "key.inner". Threads: one.
 */
#ifndef S3_S3_PROFILE_H
#define S3_S3_PROFILE_H

#include "base/buf.h"
#include "base/err.h"
#include "base/vec.h"

#include <stdbool.h>

#define S3_PROFILE_NAME_MAX 255u

struct s3_profile_entry {
    char *key, *value; /* owned */
    bool secret_file;  /* from the credentials file */
};

struct s3_profile {
    char name[S3_PROFILE_NAME_MAX + 1];
    bool found; /* in one of the files */
    VEC(struct s3_profile_entry) entries;
};

/* `name` NULL: AWS_PROFILE, else "default". Missing files are empty. -ENOENT: a profile that was
 * named stands in neither file. Files: AWS_CONFIG_FILE, AWS_SHARED_CREDENTIALS_FILE, ~/.aws/... */
int s3_profile_load(const char *name, struct s3_profile *ret, struct err *err);
void s3_profile_release(struct s3_profile *p);
static inline void auto_s3_profile_release(struct s3_profile *p)
{
    s3_profile_release(p);
}
/* NULL: not there. Borrowed. */
const char *s3_profile_get(const struct s3_profile *p, const char *key);
/* For tests and fuzzing: add what one file says of p->name. */
int s3_profile_parse(struct s3_profile *p, struct bytes text, bool secret_file);

#endif
