/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Credentials that just stand somewhere: in the environment, in AWS's files; and the JSON that
 * processes, containers and machines answer with.
 */
#include "s3/s3-credential-internal.h"

#include <jansson.h>
#include <stdio.h>

static bool is_word(const char *text)
{
    for (; *text; text++)
        if ((unsigned char)*text <= 0x20 || (unsigned char)*text >= 0x7f)
            return false;
    return true;
}

int s3_credential_set(struct s3_credential *c, const char *access_key, const char *secret,
                      const char *token, const char *source, struct err *err)
{
    s3_credential_wipe(c);
    if (!access_key || !access_key[0] || !secret || !secret[0])
        return err_fail(err, -EACCES, "the credentials of %s are incomplete", source);
    token = token ? token : "";
    if (!is_word(access_key) || !is_word(secret) || !is_word(token) ||
        s3_copy(c->access_key, sizeof c->access_key, access_key) < 0 ||
        s3_copy(c->secret, sizeof c->secret, secret) < 0 ||
        s3_copy(c->token, sizeof c->token, token) < 0) {
        s3_credential_wipe(c);
        return err_fail(err, -EACCES, "the credentials of %s have spaces in them or are too long",
                        source);
    }
    (void)snprintf(c->source, sizeof c->source, "%s", source);
    return 0;
}

int s3_credential_environment(struct s3_credentials *k, const struct s3_profile *p,
                              struct s3_credential *ret, struct err *err)
{
    const char *access_key = getenv("AWS_ACCESS_KEY_ID");
    const char *secret = getenv("AWS_SECRET_ACCESS_KEY");

    /* A profile that was asked for by name goes before the environment. */
    if (k->profile || !access_key || !access_key[0])
        return -ENOENT;
    if (!secret || !secret[0])
        return err_fail(err, -EACCES, "AWS_ACCESS_KEY_ID is set, AWS_SECRET_ACCESS_KEY is not");
    return s3_credential_set(ret, access_key, secret, getenv("AWS_SESSION_TOKEN"),
                             "the environment", err);
}

int s3_credential_profile(struct s3_credentials *k, const struct s3_profile *p,
                          struct s3_credential *ret, struct err *err)
{
    const char *access_key = s3_profile_get(p, "aws_access_key_id");
    char source[256];

    if (!access_key)
        return -ENOENT;
    (void)snprintf(source, sizeof source, "the profile \"%.200s\"", p->name);
    return s3_credential_set(ret, access_key, s3_profile_get(p, "aws_secret_access_key"),
                             s3_profile_get(p, "aws_session_token"), source, err);
}

int s3_credential_parse_json(struct bytes text, const char *token_name, const char *source,
                             struct s3_credential *ret, struct err *err)
{
    const char *access_key = NULL, *secret = NULL, *token = NULL, *expires = NULL;
    json_error_t where; /* holds a piece of the text: not shown */
    json_t *j = text.size ? json_loadb(text.data, text.size, JSON_REJECT_DUPLICATES, &where) : NULL;
    int64_t expires_ms = 0;

    if (j) {
        access_key = json_string_value(json_object_get(j, "AccessKeyId"));
        secret = json_string_value(json_object_get(j, "SecretAccessKey"));
        token = json_string_value(json_object_get(j, token_name));
        expires = json_string_value(json_object_get(j, "Expiration"));
    }
    int r = j ? s3_credential_set(ret, access_key, secret, token, source, err)
              : err_fail(err, -EPROTO, "%s did not answer with credentials", source);
    char zulu[40] = "";
    if (r == 0 && expires) {
        /* "+00:00" is how some tools spell "Z". */
        size_t n = strlen(expires);
        if (n > 6 && n < sizeof zulu && strcmp(expires + n - 6, "+00:00") == 0)
            (void)snprintf(zulu, sizeof zulu, "%.*sZ", (int)(n - 6), expires);
        if (s3_parse_iso_time(zulu[0] ? zulu : expires, &expires_ms) < 0)
            r = err_fail(err, -EPROTO, "%s gave a time of expiry that is none", source);
        ret->expires_ms = expires_ms;
    }
    json_decref(j);
    return r;
}
