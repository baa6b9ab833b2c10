/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The role of an EC2 machine, by its metadata service (IMDSv2 only: a session token first).
 *
 * Asked only where the machine says that it is one of Amazon's, or where the service's address is
 * set: elsewhere the address leads nowhere, and each command would wait for that. From a container
 * with its own network the answer may not come (hop limit 1): hence the short time-outs.
 */
#include "s3/s3-credential-internal.h"

#include "base/file.h"

#include <fcntl.h>
#include <stdio.h>
#include <strings.h>

#define BASE       "http://169.254.169.254"
#define TOKEN_PATH "/latest/api/token"
#define ROLE_PATH  "/latest/meta-data/iam/security-credentials/"
#define TOKEN_LIFE "21600"
#define ANSWER_MAX (64u << 10)
#define ATTEMPT_MS 1000
#define ATTEMPTS   3
#define DELAY_MS   200

static bool is_amazon(void)
{
    AUTO(buf_release) struct buf vendor = BUF_INIT(256);

    return file_slurp(AT_FDCWD, "/sys/class/dmi/id/sys_vendor", &vendor) == 0 &&
           strncmp(buf_text(&vendor), "Amazon EC2", 10) == 0;
}

static int ask(struct s3_credentials *k, const char *method, const char *url,
               const struct http_header *header, struct buf *ret)
{
    struct http_request q = {
        .method = method,
        .url = url,
        .headers = header,
        .header_count = 1,
        .body_max = ANSWER_MAX,
        .deadline_ms = ATTEMPT_MS,
        .no_proxy = true,
    };
    int r = 0;

    for (int attempt = 1; attempt <= ATTEMPTS; attempt++) {
        struct http_response response = {.status = 0};
        r = http_perform(k->http, &q, &response);
        bool again = r < 0 || response.status >= 500;
        if (r == 0 && response.status == 200)
            r = buf_append(ret, response.body.data, response.body.size);
        else if (r == 0)
            r = response.status == 404 ? -ENOENT : -EACCES;
        if (response.body.data)
            explicit_bzero(response.body.data, response.body.size);
        http_response_release(&response);
        if (!again)
            break;
        if (attempt < ATTEMPTS)
            k->env->sleep_ms(k->env, (int64_t)DELAY_MS << attempt);
    }
    return r;
}

static int ask_role(struct s3_credentials *k, const char *base, struct buf *answer)
{
    AUTO(buf_release) struct buf token = BUF_INIT(4096);
    AUTO(buf_release) struct buf role = BUF_INIT(512);
    struct http_header life = {"x-aws-ec2-metadata-token-ttl-seconds", TOKEN_LIFE};
    char url[1024];

    (void)snprintf(url, sizeof url, "%.400s%s", base, TOKEN_PATH);
    int r = ask(k, "PUT", url, &life, &token);
    if (r < 0)
        return r;
    struct http_header session = {"x-aws-ec2-metadata-token", buf_text(&token)};
    (void)snprintf(url, sizeof url, "%.400s%s", base, ROLE_PATH);
    r = ask(k, "GET", url, &session, &role);
    if (r < 0)
        return r; /* -ENOENT: a machine without a role */
    size_t n = strcspn(buf_text(&role), "\r\n");
    if (n == 0)
        return -ENOENT;
    (void)snprintf(url, sizeof url, "%.400s%s%.*s", base, ROLE_PATH, (int)n, buf_text(&role));
    r = ask(k, "GET", url, &session, answer);
    explicit_bzero(token.data, token.size);
    return r;
}

int s3_credential_machine(struct s3_credentials *k, const struct s3_profile *p,
                          struct s3_credential *ret, struct err *err)
{
    AUTO(buf_release) struct buf answer = BUF_INIT(ANSWER_MAX);
    const char *disabled = getenv("AWS_EC2_METADATA_DISABLED");
    const char *base = getenv("AWS_EC2_METADATA_SERVICE_ENDPOINT");
    bool given = base && base[0];

    if ((disabled && strcasecmp(disabled, "true") == 0) || (!given && !is_amazon()))
        return -ENOENT;
    int r = ask_role(k, given ? base : BASE, &answer);
    if (r == 0)
        r = s3_credential_parse_json(buf_bytes(&answer), "Token", "the machine's role", ret, err);
    else if (r != -ENOENT)
        r = err_fail(err, r, "the machine's metadata service did not give credentials: %s",
                     strerror(-r));
    if (answer.data)
        explicit_bzero(answer.data, answer.size);
    return r;
}
