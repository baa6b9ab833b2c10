/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The client: endpoint, region and addressing from options, environment and profile; which bucket
 * lies in which region, as far as it was told.
 *
 * With an endpoint of one's own a redirect only changes the region that is signed, never the host:
 * credentials go nowhere else. AWS's hosts are made from a region's name, which is checked.
 */
#include "s3/s3-internal.h"

#include "s3/s3-profile.h"

#include <stdio.h>
#include <strings.h>

#define ATTEMPT_MS          30000
#define TOTAL_MS            180000
#define CONNECTIONS_DEFAULT 128u

/* ---- places ---- */

int s3_parse_addressing(const char *text, enum s3_addressing *ret, struct err *err)
{
    if (!text || strcmp(text, "auto") == 0)
        *ret = S3_ADDRESSING_AUTO;
    else if (strcmp(text, "path") == 0)
        *ret = S3_ADDRESSING_PATH;
    else if (strcmp(text, "virtual") == 0)
        *ret = S3_ADDRESSING_VIRTUAL;
    else
        return err_fail(err, -EINVAL,
                        "addressing is \"auto\", \"path\" or \"virtual\", not \"%.80s\"", text);
    return 0;
}

int s3_parse_location(const char *location, char ret_bucket[static 256],
                      char ret_prefix[static S3_KEY_MAX + 1], struct err *err)
{
    if (strncmp(location, "s3://", 5) != 0)
        return err_fail(err, -EINVAL, "%s is no S3 location: s3://BUCKET/PREFIX", location);
    const char *bucket = location + 5, *slash = strchrnul(bucket, '/');
    size_t n = (size_t)(slash - bucket);
    const char *prefix = *slash ? slash + 1 : slash;

    if (n == 0)
        return err_fail(err, -EINVAL, "%s names no bucket: s3://BUCKET/PREFIX", location);
    bool valid = n <= S3_BUCKET_MAX && bucket[0] != '.' && bucket[0] != '-';
    for (size_t i = 0; i < n && valid; i++)
        valid = strchr("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_",
                       bucket[i]) != NULL;
    if (!valid)
        return err_fail(err, -EINVAL, "%s: \"%.*s\" cannot be a bucket's name", location,
                        (int)(n < 256 ? n : 256), bucket);
    if (strlen(prefix) > S3_KEY_MAX)
        return err_fail(err, -EINVAL, "%.100s...: the prefix is longer than any key may be",
                        location);
    memcpy(ret_bucket, bucket, n);
    ret_bucket[n] = '\0';
    return s3_copy(ret_prefix, S3_KEY_MAX + 1, prefix);
}

static bool is_region(const char *text)
{
    size_t n = strlen(text);

    return n > 0 && n <= S3_REGION_MAX &&
           strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_") == n;
}

/* ---- regions of buckets ---- */

static struct s3_known_bucket *find_bucket(struct s3 *s, const char *bucket)
{
    for (unsigned i = 0; i < s->bucket_count; i++)
        if (strcmp(s->buckets[i].name, bucket) == 0)
            return &s->buckets[i];
    return NULL;
}

void s3_region_of(struct s3 *s, const char *bucket, char ret[static S3_REGION_MAX + 1])
{
    WITH_LOCK(&s->lock);
    const struct s3_known_bucket *b = find_bucket(s, bucket);

    memcpy(ret, b ? b->region : s->region, S3_REGION_MAX + 1);
}

bool s3_learn_region(struct s3 *s, const char *bucket, const char *region)
{
    if (!is_region(region))
        return false;
    WITH_LOCK(&s->lock);
    struct s3_known_bucket *b = find_bucket(s, bucket);
    if (strcmp(b ? b->region : s->region, region) == 0)
        return false;
    if (!b) {
        /* More buckets than that in one process: the oldest is asked again. */
        unsigned at = s->bucket_count < S3_BUCKETS_KNOWN ? s->bucket_count++ : 0;
        b = &s->buckets[at];
        (void)s3_copy(b->name, sizeof b->name, bucket); /* fits: it is a call's bucket */
    }
    return s3_copy(b->region, sizeof b->region, region) == 0;
}

/* A bucket's name can stand in a host name, also under a certificate for "*.host". */
static bool fits_host_name(const char *bucket)
{
    size_t n = strlen(bucket);

    return n >= 3 && n <= 63 && bucket[n - 1] != '-' &&
           strspn(bucket, "abcdefghijklmnopqrstuvwxyz0123456789-") == n;
}

int s3_address(struct s3 *s, const char *bucket, char ret_host[static S3_HOST_MAX + 1],
               struct buf *path)
{
    char region[S3_REGION_MAX + 1], host[S3_HOST_MAX + 1];
    bool in_host = s->addressing == S3_ADDRESSING_VIRTUAL ||
                   (s->addressing == S3_ADDRESSING_AUTO && !s->host[0] && fits_host_name(bucket));

    if (s->host[0]) {
        memcpy(host, s->host, sizeof host);
    } else {
        s3_region_of(s, bucket, region);
        (void)snprintf(host, sizeof host, "s3.%s.amazonaws.com%s", region,
                       strncmp(region, "cn-", 3) == 0 ? ".cn" : "");
    }
    int n = in_host ? snprintf(ret_host, S3_HOST_MAX + 1, "%s.%s", bucket, host)
                    : snprintf(ret_host, S3_HOST_MAX + 1, "%s", host);
    if (n < 0 || (size_t)n > S3_HOST_MAX)
        return -EINVAL;
    int r = buf_append_str(path, s->path);
    if (r == 0 && !in_host) {
        r = buf_append(path, "/", 1);
        if (r == 0)
            r = s3_encode(path, bucket, false);
    }
    return r;
}

/* ---- setting up ---- */

/* "https://host[:port][/path]"; the default port is dropped, as curl does in the Host header. */
static int set_endpoint(struct s3 *s, const char *url, struct err *err)
{
    const char *rest = NULL;

    if (strncasecmp(url, "https://", 8) == 0)
        rest = url + 8;
    else if (strncasecmp(url, "http://", 7) == 0)
        rest = url + 7;
    (void)s3_copy(s->scheme, sizeof s->scheme, rest == url + 7 ? "http" : "https");
    size_t host = rest ? strcspn(rest, "/") : 0;
    if (host == 0 || host > S3_HOST_MAX || strpbrk(rest, "@?# \"<>\\"))
        return err_fail(err, -EINVAL, "%.200s is no endpoint: https://HOST[:PORT]", url);
    memcpy(s->host, rest, host);
    s->host[host] = '\0';
    const char *standard = rest == url + 7 ? ":80" : ":443";
    size_t n = strlen(standard);
    if (host > n && strcmp(s->host + host - n, standard) == 0)
        s->host[host - n] = '\0';
    if (s3_copy(s->path, sizeof s->path, rest + host) < 0)
        return err_fail(err, -EINVAL, "the endpoint is too long: %.200s...", url);
    n = strlen(s->path);
    while (n > 0 && s->path[n - 1] == '/')
        s->path[--n] = '\0';
    return 0;
}

static const char *first_of(const char *const *candidates, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (candidates[i] && candidates[i][0])
            return candidates[i];
    return NULL;
}

static int set_place(struct s3 *s, const struct s3_options *o, const struct s3_profile *p,
                     struct err *err)
{
    const char *endpoints[] = {o->endpoint, getenv("AWS_ENDPOINT_URL_S3"),
                               getenv("AWS_ENDPOINT_URL"), s3_profile_get(p, "s3.endpoint_url"),
                               s3_profile_get(p, "endpoint_url")};
    const char *regions[] = {o->region, getenv("AWS_REGION"), getenv("AWS_DEFAULT_REGION"),
                             s3_profile_get(p, "region"), "us-east-1"};
    const char *style = s3_profile_get(p, "s3.addressing_style");
    const char *endpoint = first_of(endpoints, 5), *region = first_of(regions, 5);

    if (!is_region(region))
        return err_fail(err, -EINVAL, "\"%.80s\" cannot be a region's name", region);
    (void)s3_copy(s->region, sizeof s->region, region); /* checked */
    s->addressing = o->addressing;
    if (s->addressing == S3_ADDRESSING_AUTO && style)
        s->addressing = strcmp(style, "path") == 0      ? S3_ADDRESSING_PATH
                        : strcmp(style, "virtual") == 0 ? S3_ADDRESSING_VIRTUAL
                                                        : S3_ADDRESSING_AUTO;
    (void)s3_copy(s->scheme, sizeof s->scheme, "https");
    return endpoint ? set_endpoint(s, endpoint, err) : 0;
}

static int set_up(struct s3 *s, const struct s3_options *o, struct err *err)
{
    AUTO(s3_profile_release) struct s3_profile profile = {.name = ""};
    const char *authorities[] = {o->ca_file, getenv("AWS_CA_BUNDLE")};
    unsigned connections = o->connections ? o->connections : CONNECTIONS_DEFAULT;

    int r = s3_profile_load(o->profile, &profile, err);
    if (r == 0)
        r = set_place(s, o, &profile, err);
    if (r < 0)
        return r;
    struct http_options http = {
        .ca_file = first_of(authorities, 2),
        .connections = connections,
    };
    r = http_new(&http, &s->http, err);
    if (r < 0)
        return r;
    /* Servers of one's own have their STS at the same address; AWS's has one of its own. */
    char sts[2 * S3_HOST_MAX + 16] = "";
    if (s->host[0] && !strstr(s->host, ".amazonaws.com"))
        (void)snprintf(sts, sizeof sts, "%s://%s%s", s->scheme, s->host, s->path);
    struct s3_credentials_options credentials = {
        .http = s->http,
        .env = s->env,
        .profile = o->profile,
        .region = s->region,
        .sts_endpoint = sts[0] ? sts : NULL,
        .role_arn = o->role_arn,
        .external_id = o->external_id,
    };
    if (!o->anonymous)
        r = s3_credentials_new(&credentials, &s->credentials, err);
    if (r == 0)
        r = s3_schedule_init(s, connections);
    return r;
}

int s3_new(const struct s3_options *o, struct s3 **ret, struct err *err)
{
    struct s3 *s = calloc(1, sizeof *s);

    if (!s)
        return err_fail(err, -ENOMEM, "out of memory");
    s->env = o->env ? o->env : env_real();
    s->attempt_ms = o->attempt_ms ? o->attempt_ms : ATTEMPT_MS;
    s->total_ms = o->total_ms ? o->total_ms : TOTAL_MS;
    (void)pthread_mutex_init(&s->lock, NULL);
    int r = set_up(s, o, err);
    if (r < 0) {
        s3_free(s);
        return err_fail(err, r, "cannot set up S3: %s", strerror(-r));
    }
    *ret = s;
    return 0;
}

void s3_free(struct s3 *s)
{
    if (!s)
        return;
    if (s->schedule.running) {
        s3_schedule_stop(s);
        http_free(s->http); /* ends what runs; their owners hear of it before this returns */
        s3_schedule_release(s);
    } else {
        http_free(s->http);
    }
    s3_credentials_free(s->credentials);
    pthread_mutex_destroy(&s->lock);
    free(s);
}

void s3_place_of(struct s3 *s, const char *bucket, struct s3_place *ret)
{
    *ret = (struct s3_place){.addressing = s->addressing};
    s3_region_of(s, bucket, ret->region);
    if (s->host[0])
        (void)snprintf(ret->endpoint, sizeof ret->endpoint, "%s://%s%s", s->scheme, s->host,
                       s->path); /* both are bounded: it fits */
}

int64_t s3_clock_offset_ms(const struct s3 *s)
{
    return s->clock_offset_ms;
}

void s3_counts(struct s3 *s, struct s3_counts *ret)
{
    struct http_counts h;

    http_counts(s->http, &h);
    *ret = (struct s3_counts){
        .requests = s->requests,
        .retries = s->retries,
        .bytes_in = h.bytes_in,
        .bytes_out = h.bytes_out,
    };
}
