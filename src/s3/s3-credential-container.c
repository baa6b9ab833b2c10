/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The credentials endpoint that container services give their tasks: ECS, EKS Pod Identity.
 *
 * A full URI may only lead to this machine, to the link-local addresses of those services, or over
 * HTTPS: it is asked with a token that nobody else shall see. The token file is read each time.
 */
#include "s3/s3-credential-internal.h"

#include "base/file.h"

#include <fcntl.h>
#include <stdio.h>

#define RELATIVE_BASE  "http://169.254.170.2"
#define TOKEN_FILE_MAX (16u << 10)
#define ANSWER_MAX     (64u << 10)
#define ATTEMPT_MS     5000
#define ATTEMPTS       3
#define DELAY_MS       300

static bool is_allowed(const char *url)
{
    static const char *const hosts[] = {"127.0.0.1",     "localhost",      "[::1]",
                                        "169.254.170.2", "169.254.170.23", "[fd00:ec2::23]"};

    if (strncmp(url, "https://", 8) == 0)
        return true;
    if (strncmp(url, "http://", 7) != 0)
        return false;
    for (size_t i = 0; i < sizeof hosts / sizeof *hosts; i++) {
        size_t n = strlen(hosts[i]);
        if (strncmp(url + 7, hosts[i], n) == 0 && (!url[7 + n] || strchr(":/", url[7 + n])) &&
            !memchr(url + 7, '@', strcspn(url + 7, "/")))
            return true;
    }
    return false;
}

static int read_token(struct buf *token, struct err *err)
{
    const char *path = getenv("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE");
    const char *plain = getenv("AWS_CONTAINER_AUTHORIZATION_TOKEN");
    int r = 0;

    if (path && path[0])
        r = file_slurp(AT_FDCWD, path, token);
    else if (plain)
        r = buf_append_str(token, plain);
    if (r < 0)
        return err_fail(err, r == -ENOENT ? -EACCES : r,
                        "cannot read the token of the container's credentials, %s: %s",
                        path ? path : "AWS_CONTAINER_AUTHORIZATION_TOKEN", strerror(-r));
    while (token->size > 0 && token->data[token->size - 1] <= ' ')
        token->data[--token->size] = '\0';
    return 0;
}

int s3_credential_container(struct s3_credentials *k, const struct s3_profile *p,
                            struct s3_credential *ret, struct err *err)
{
    AUTO(buf_release) struct buf token = BUF_INIT(TOKEN_FILE_MAX);
    const char *relative = getenv("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI");
    const char *full = getenv("AWS_CONTAINER_CREDENTIALS_FULL_URI");
    const char *source = "the container's role";
    char url[2048];

    if (relative && relative[0])
        (void)snprintf(url, sizeof url, "%s%s%s", RELATIVE_BASE, relative[0] == '/' ? "" : "/",
                       relative);
    else if (full && full[0])
        (void)snprintf(url, sizeof url, "%s", full);
    else
        return -ENOENT;
    if (!is_allowed(url))
        return err_fail(err, -EACCES,
                        "AWS_CONTAINER_CREDENTIALS_FULL_URI leads to a host that must not get the "
                        "container's token");
    int r = read_token(&token, err);
    struct http_header header = {"authorization", buf_text(&token)};
    struct http_request q = {
        .method = "GET",
        .url = url,
        .headers = &header,
        .header_count = token.size ? 1 : 0,
        .body_max = ANSWER_MAX,
        .deadline_ms = ATTEMPT_MS,
        .no_proxy = strncmp(url, "http://", 7) == 0,
    };
    for (int attempt = 1; r == 0; attempt++) {
        struct http_response response = {.status = 0};
        r = http_perform(k->http, &q, &response);
        bool ok = r == 0 && response.status == 200;
        bool again = !ok && attempt < ATTEMPTS && (r < 0 || response.status >= 500);
        if (ok)
            r = s3_credential_parse_json(buf_bytes(&response.body), "Token", source, ret, err);
        else if (!again)
            r = err_fail(err, -EACCES, "%s: its endpoint did not give credentials: %s (status %d)",
                         source, r < 0 ? strerror(-r) : "refused", response.status);
        if (response.body.data)
            explicit_bzero(response.body.data, response.body.size);
        http_response_release(&response);
        if (!again)
            break;
        k->env->sleep_ms(k->env, (int64_t)DELAY_MS << attempt);
        r = 0;
    }
    if (token.data)
        explicit_bzero(token.data, token.size);
    return r;
}
