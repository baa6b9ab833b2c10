/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The Security Token Service: roles assumed with other credentials, or with a token that a cluster
 * puts into a file (web identity).
 *
 * The token file is read anew each time: it is replaced every hour or so under long-running
 * processes. Bodies of answers hold secrets, and are wiped.
 */
#include "s3/s3-credential-internal.h"

#include "base/file.h"

#include <fcntl.h>
#include <stdio.h>

#define TOKEN_FILE_MAX (16u << 10)
#define ANSWER_MAX     (64u << 10)
#define ATTEMPT_MS     20000
#define ATTEMPTS       3
#define DELAY_MS       500
#define SOURCE_DEPTH   4 /* source_profile of a source_profile ... */
#define ROLE_SECONDS   "3600"

struct reader {
    struct s3_credential *ret;
    char expiration[40], access_key[S3_ACCESS_KEY_MAX + 1], secret[S3_SECRET_MAX + 1];
    char token[S3_TOKEN_MAX + 1];
};

static int on_event(void *ctx, const struct s3_xml_event *e)
{
    struct reader *r = ctx;

    if (!e->close || e->depth != 4)
        return 0;
    if (strcmp(e->name, "AccessKeyId") == 0)
        return s3_copy(r->access_key, sizeof r->access_key, e->text) < 0 ? -EPROTO : 0;
    if (strcmp(e->name, "SecretAccessKey") == 0)
        return s3_copy(r->secret, sizeof r->secret, e->text) < 0 ? -EPROTO : 0;
    if (strcmp(e->name, "SessionToken") == 0)
        return s3_copy(r->token, sizeof r->token, e->text) < 0 ? -EPROTO : 0;
    if (strcmp(e->name, "Expiration") == 0)
        return s3_copy(r->expiration, sizeof r->expiration, e->text) < 0 ? -EPROTO : 0;
    return 0;
}

static int read_credentials(struct bytes body, const char *source, struct s3_credential *ret,
                            struct err *err)
{
    struct reader r = {.ret = ret};
    int64_t expires = 0;

    int result = s3_xml_parse(body, on_event, &r);
    if (result < 0 || s3_parse_iso_time(r.expiration, &expires) < 0)
        result =
            err_fail(err, -EPROTO, "%s: the token service's answer holds no credentials", source);
    else
        result = s3_credential_set(ret, r.access_key, r.secret, r.token, source, err);
    if (result == 0)
        ret->expires_ms = expires;
    explicit_bzero(&r, sizeof r);
    return result;
}

struct endpoint {
    char url[1200], host[S3_HOST_MAX + 1], path[S3_HOST_MAX + 2];
};

static int find_endpoint(struct s3_credentials *k, struct endpoint *e, struct err *err)
{
    const char *given = getenv("AWS_ENDPOINT_URL_STS");
    char standard[128];

    (void)snprintf(standard, sizeof standard, "https://sts.%s.amazonaws.com%s", k->region,
                   strncmp(k->region, "cn-", 3) == 0 ? ".cn" : "");
    if (!given || !given[0])
        given = k->sts_endpoint ? k->sts_endpoint : standard;
    const char *host = strstr(given, "://");
    size_t n = host ? strcspn(host + 3, "/") : 0;
    if (n == 0 || n > S3_HOST_MAX || strlen(host + 3 + n) > S3_HOST_MAX ||
        strpbrk(given, "@?# \"<>"))
        return err_fail(err, -EINVAL, "AWS_ENDPOINT_URL_STS is no endpoint: https://HOST");
    memcpy(e->host, host + 3, n);
    e->host[n] = '\0';
    (void)snprintf(e->path, sizeof e->path, "%s", host[3 + n] ? host + 3 + n : "/");
    (void)snprintf(e->url, sizeof e->url, "%.*s%s%s", (int)(host - given) + 3, given, e->host,
                   e->path);
    return 0;
}

/* One attempt. `base` NULL: unsigned. */
static int post(struct s3_credentials *k, const struct endpoint *e, struct bytes form,
                const struct s3_credential *base, struct http_response *response)
{
    struct http_header headers[8] = {
        {"content-type", "application/x-www-form-urlencoded; charset=utf-8"}, {"host", e->host}};
    char date[S3_AMZ_DATE_SIZE], hash[DIGEST_HEX_SIZE], authorization[S3_AUTHORIZATION_MAX];
    size_t count = 2;

    if (base) {
        struct digest d = digest_of(form.data, form.size);
        digest_to_hex(&d, hash);
        s3_sign_date(k->env->wall_ms(k->env), date);
        headers[count++] = (struct http_header){"x-amz-date", date};
        headers[count++] = (struct http_header){"x-amz-content-sha256", hash};
        if (base->token[0])
            headers[count++] = (struct http_header){"x-amz-security-token", base->token};
        struct s3_signing g = {
            .method = "POST",
            .path = e->path,
            .query = "",
            .region = k->region,
            .service = "sts",
            .payload_hash = hash,
            .date = date,
            .credential = base,
        };
        int r = s3_sign(&g, headers, count, authorization);
        if (r < 0)
            return r;
        headers[count++] = (struct http_header){"authorization", authorization};
    }
    struct http_request q = {
        .method = "POST",
        .url = e->url,
        .headers = headers,
        .header_count = count,
        .body = form,
        .body_max = ANSWER_MAX,
        .deadline_ms = ATTEMPT_MS,
    };
    return http_perform(k->http, &q, response);
}

static int ask(struct s3_credentials *k, struct bytes form, const struct s3_credential *base,
               const char *source, struct s3_credential *ret, struct err *err)
{
    struct endpoint e;
    int r = find_endpoint(k, &e, err);

    for (int attempt = 1; r == 0; attempt++) {
        struct http_response response = {.status = 0};
        struct s3_answer answer = {.code = ""};
        r = post(k, &e, form, base, &response);
        bool again = r == -ETIMEDOUT || r == -ECONNRESET || r == -ECONNREFUSED || r == -EPROTO ||
                     (r == 0 && (response.status >= 500 || response.status == 429));
        if (r == 0 && response.status == 200)
            r = read_credentials(buf_bytes(&response.body), source, ret, err);
        else if (again && attempt < ATTEMPTS)
            again = true;
        else if (r < 0)
            r = err_fail(err, -EIO, "%s: no answer from the token service %s: %s", source, e.host,
                         response.error[0] ? response.error : strerror(-r));
        else {
            (void)s3_xml_error(buf_bytes(&response.body), &answer);
            r = err_fail(err, response.status >= 500 ? -EIO : -EACCES,
                         "%s: the token service %s refused: %s (status %d)", source, e.host,
                         answer.code[0] ? answer.code : "no reason given", response.status);
        }
        bool done = !(again && attempt < ATTEMPTS);
        if (response.body.data)
            explicit_bzero(response.body.data, response.body.size);
        http_response_release(&response);
        if (done)
            break;
        k->env->sleep_ms(k->env, (int64_t)DELAY_MS << attempt);
        r = 0;
    }
    return r;
}

static int add_field(struct buf *form, const char *name, const char *value)
{
    int r = buf_printf(form, "%s%s=", form->size ? "&" : "", name);

    return r < 0 ? r : s3_encode(form, value, false);
}

static int begin_form(struct buf *form, const char *action, const char *role_arn,
                      const char *session_name)
{
    const char *session = session_name ? session_name : getenv("AWS_ROLE_SESSION_NAME");
    int r = add_field(form, "Action", action);

    if (r == 0)
        r = add_field(form, "Version", "2011-06-15");
    if (r == 0)
        r = add_field(form, "DurationSeconds", ROLE_SECONDS);
    if (r == 0)
        r = add_field(form, "RoleArn", role_arn);
    return r < 0 ? r : add_field(form, "RoleSessionName", session && session[0] ? session : "grid");
}

int s3_credential_assume(struct s3_credentials *k, const struct s3_credential *base,
                         const char *role_arn, const char *external_id, const char *session_name,
                         struct s3_credential *ret, struct err *err)
{
    AUTO(buf_release) struct buf form = BUF_INIT(TOKEN_FILE_MAX);
    char source[256];

    (void)snprintf(source, sizeof source, "the role %.200s", role_arn);
    int r = begin_form(&form, "AssumeRole", role_arn, session_name);
    if (r == 0 && external_id && external_id[0])
        r = add_field(&form, "ExternalId", external_id);
    if (r < 0)
        return err_fail(err, r, "%s: its name is too long", source);
    return ask(k, buf_bytes(&form), base, source, ret, err);
}

static int with_token_file(struct s3_credentials *k, const char *path, const char *role_arn,
                           const char *session_name, struct s3_credential *ret, struct err *err)
{
    AUTO(buf_release) struct buf token = BUF_INIT(TOKEN_FILE_MAX);
    AUTO(buf_release) struct buf form = BUF_INIT(4 * TOKEN_FILE_MAX);
    char source[256];

    (void)snprintf(source, sizeof source, "the role %.150s by web identity", role_arn);
    int r = file_slurp(AT_FDCWD, path, &token);
    if (r < 0)
        return err_fail(err, r == -ENOENT ? -EACCES : r, "%s: cannot read its token %s: %s", source,
                        path, strerror(-r));
    while (token.size > 0 && token.data[token.size - 1] <= ' ')
        token.data[--token.size] = '\0';
    r = begin_form(&form, "AssumeRoleWithWebIdentity", role_arn, session_name);
    if (r == 0)
        r = add_field(&form, "WebIdentityToken", buf_text(&token));
    r = r < 0 ? err_fail(err, r, "%s: its token is too long", source)
              : ask(k, buf_bytes(&form), NULL, source, ret, err);
    if (token.data)
        explicit_bzero(token.data, token.size);
    if (form.data)
        explicit_bzero(form.data, form.size);
    return r;
}

int s3_credential_web_identity(struct s3_credentials *k, const struct s3_profile *p,
                               struct s3_credential *ret, struct err *err)
{
    const char *path = getenv("AWS_WEB_IDENTITY_TOKEN_FILE"), *role = getenv("AWS_ROLE_ARN");

    if (!path || !path[0] || !role || !role[0])
        return -ENOENT;
    return with_token_file(k, path, role, NULL, ret, err);
}

/* What the role of a profile is assumed with: keys of another, or of this environment. */
static int find_base(struct s3_credentials *k, const struct s3_profile *p,
                     struct s3_credential *ret, struct err *err)
{
    const char *source = s3_profile_get(p, "credential_source");

    if (!source)
        return err_fail(err, -EACCES,
                        "profile \"%s\" has a role, but neither source_profile nor "
                        "credential_source nor web_identity_token_file",
                        p->name);
    int r = -ENOENT;
    if (strcmp(source, "Environment") == 0) {
        const char *key = getenv("AWS_ACCESS_KEY_ID"), *secret = getenv("AWS_SECRET_ACCESS_KEY");
        if (key && key[0])
            r = s3_credential_set(ret, key, secret, getenv("AWS_SESSION_TOKEN"), "the environment",
                                  err);
    } else if (strcmp(source, "EcsContainer") == 0) {
        r = s3_credential_container(k, p, ret, err);
    } else if (strcmp(source, "Ec2InstanceMetadata") == 0) {
        r = s3_credential_machine(k, p, ret, err);
    }
    return r == -ENOENT ? err_fail(err, -EACCES, "profile \"%s\": nothing at credential_source %s",
                                   p->name, source)
                        : r;
}

int s3_credential_profile_role(struct s3_credentials *k, const struct s3_profile *p,
                               struct s3_credential *ret, struct err *err)
{
    struct s3_profile chain[SOURCE_DEPTH] = {{.name = ""}};
    AUTO(s3_credential_wipe) struct s3_credential base = {.token = ""};
    const struct s3_profile *at = p;
    int depth = 0, r = 0;

    const char *role = s3_profile_get(p, "role_arn");
    if (!role)
        return -ENOENT;
    const char *token_file = s3_profile_get(p, "web_identity_token_file");
    if (token_file)
        return with_token_file(k, token_file, role, s3_profile_get(p, "role_session_name"), ret,
                               err);
    /* Down to a profile with keys, then up again, one role after the other. */
    const char *next = s3_profile_get(p, "source_profile");
    while (r == 0 && next && s3_profile_get(at, "role_arn")) {
        if (strcmp(next, at->name) == 0 || depth == SOURCE_DEPTH) {
            if (depth == SOURCE_DEPTH)
                r = err_fail(err, -EACCES, "profile \"%s\": too long a chain of source_profile",
                             p->name);
            break;
        }
        r = s3_profile_load(next, &chain[depth], err);
        if (r == 0)
            at = &chain[depth++];
        next = s3_profile_get(at, "source_profile");
    }
    if (r == 0 && s3_profile_get(at, "aws_access_key_id"))
        r = s3_credential_profile(k, at, &base, err);
    else if (r == 0 && s3_profile_get(at, "credential_process"))
        r = s3_credential_process(k, at, &base, err);
    else if (r == 0)
        r = find_base(k, at, &base, err);
    for (int i = depth - 1; r == 0 && i >= -1; i--) {
        const struct s3_profile *one = i < 0 ? p : &chain[i];
        const char *arn = s3_profile_get(one, "role_arn");
        if (!arn)
            continue;
        r = s3_credential_assume(k, &base, arn, s3_profile_get(one, "external_id"),
                                 s3_profile_get(one, "role_session_name"), ret, err);
        base = *ret;
    }
    for (int i = 0; i < depth; i++)
        s3_profile_release(&chain[i]);
    return r == -ENOENT ? -EACCES : r;
}
