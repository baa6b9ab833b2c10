/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One call: its request, each attempt of it, and the way from an answer to the next step.
 *
 * Bytes of a range go from the socket's buffer straight to where the caller wants them, after the
 * head of the answer was found to be about exactly that range: a 200 with the whole object, another
 * range, or another object than the pinned one ends the attempt before its first byte is taken.
 */
#include "s3/s3-internal.h"

#include <stdio.h>

#define QUERY_MAX (16u << 10)
/* Large bodies get time for at least this many bytes a second, beside the attempt's own. */
#define SLOWEST_BYTES_PER_SECOND (256u << 10)
#define REDIRECTS_MAX            3u
#define EMPTY_HASH               "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

int s3_call_new(struct s3 *s, const char *method, const char *action, const char *bucket,
                const char *key, struct s3_call **ret)
{
    struct s3_call *c = calloc(1, sizeof *c);

    if (!c)
        return -ENOMEM;
    c->s3 = s;
    c->method = method;
    c->action = action;
    c->body_max = S3_ERROR_BODY_MAX;
    c->total = UINT64_MAX;
    buf_init(&c->query, QUERY_MAX);
    buf_init(&c->url, HTTP_URL_MAX - 1);
    buf_init(&c->answer_body, S3_PAGE_BODY_MAX);
    memcpy(c->body_hash, EMPTY_HASH, sizeof c->body_hash);
    int r = s3_copy(c->bucket, sizeof c->bucket, bucket);
    if (r == 0 && key) {
        size_t n = strlen(key);
        r = n == 0 || n > S3_KEY_MAX ? -EINVAL : 0;
        c->key = r == 0 ? strdup(key) : NULL;
        if (r == 0 && !c->key)
            r = -ENOMEM;
    }
    if (r < 0) {
        s3_call_free(c);
        return r == -ENAMETOOLONG ? -EINVAL : r;
    }
    *ret = c;
    return 0;
}

void s3_call_free(struct s3_call *c)
{
    if (!c)
        return;
    http_response_release(&c->response);
    buf_release(&c->answer_body);
    buf_release(&c->query);
    buf_release(&c->url);
    free(c->key);
    free(c);
}

int s3_call_header(struct s3_call *c, const char *name, const char *value)
{
    if (c->header_count >= S3_CALL_HEADERS)
        return -E2BIG;
    int r = s3_copy(c->header[c->header_count].value, sizeof c->header[0].value, value);
    if (r < 0)
        return r;
    c->header[c->header_count++].name = name;
    return 0;
}

int s3_call_query(struct s3_call *c, const char *name, const char *value)
{
    int r = buf_printf(&c->query, "%s%s=", c->query.size ? "&" : "", name);

    return r < 0 ? r : s3_encode(&c->query, value, false);
}

void s3_call_body(struct s3_call *c, struct bytes body)
{
    struct digest d = digest_of(body.data, body.size);

    s3_call_digested(c, body, &d);
}

void s3_call_digested(struct s3_call *c, struct bytes body, const struct digest *d)
{
    c->body = body;
    digest_to_hex(d, c->body_hash);
}

int s3_call_pin(struct s3_call *c, const struct s3_object *pin)
{
    char quoted[S3_ETAG_MAX + 2];

    if (!pin)
        return 0;
    c->object = *pin;
    if (pin->version_id[0]) {
        c->action = "s3:GetObjectVersion";
        return s3_call_query(c, "versionId", pin->version_id);
    }
    if (!pin->etag[0])
        return 0;
    (void)snprintf(quoted, sizeof quoted, "\"%s\"", pin->etag);
    c->pinned = true;
    return s3_call_header(c, "if-match", quoted);
}

/* ---- the answer's head and body, on the loop's thread ---- */

static int distrust(struct s3_call *c, const char *why)
{
    c->complaint = why;
    return -EPROTO;
}

/* "bytes 0-99/1000" */
static bool parse_content_range(const char *text, uint64_t *first, uint64_t *last, uint64_t *total)
{
    char copy[80], *dash, *slash;

    if (strncmp(text, "bytes ", 6) != 0 || s3_copy(copy, sizeof copy, text + 6) < 0)
        return false;
    dash = strchr(copy, '-');
    slash = dash ? strchr(dash, '/') : NULL;
    if (!slash)
        return false;
    *dash = *slash = '\0';
    return s3_parse_number(copy, INT64_MAX, first) == 0 &&
           s3_parse_number(dash + 1, INT64_MAX, last) == 0 &&
           s3_parse_number(slash + 1, INT64_MAX, total) == 0;
}

static int check_range(struct s3_call *c, const struct http_response *r)
{
    char text[96];
    uint64_t first, last, total;

    if (r->status != 206)
        return distrust(c, "it answered a request for a range with the whole object");
    if (!http_response_header(r, "content-range", text, sizeof text) ||
        !parse_content_range(text, &first, &last, &total) || last < first || last >= total)
        return distrust(c, "it does not say which range it sent");
    uint64_t end = total - c->offset < c->size ? total : c->offset + c->size;
    if (first != c->offset || c->offset >= total || last != end - 1)
        return distrust(c, "it sent another range than the one asked for");
    c->expected = (size_t)(end - c->offset);
    if (r->content_length != UINT64_MAX && r->content_length != c->expected)
        return distrust(c, "its length and its range differ");
    c->total = total;
    return 0;
}

static void read_object(struct s3_call *c, const struct http_response *r, struct s3_object *ret)
{
    char text[S3_ETAG_MAX + 8];

    *ret = (struct s3_object){.size = c->total != UINT64_MAX ? c->total : r->content_length};
    if (http_response_header(r, "etag", text, sizeof text))
        s3_copy_etag(text, ret->etag);
    if (!http_response_header(r, "last-modified", text, sizeof text) ||
        s3_parse_http_time(text, &ret->mtime_ms) < 0)
        ret->mtime_ms = 0;
    if (!http_response_header(r, "x-amz-version-id", ret->version_id, sizeof ret->version_id) ||
        strcmp(ret->version_id, "null") == 0)
        ret->version_id[0] = '\0';
}

static int on_head(void *ctx, const struct http_response *r)
{
    struct s3_call *c = ctx;
    struct s3_object object;

    if (r->status / 100 != 2)
        return 0;
    int result = c->ranged ? check_range(c, r) : 0;
    if (result < 0)
        return result;
    read_object(c, r, &object);
    if (c->pinned && strcmp(object.etag, c->object.etag) != 0) {
        c->drifted = true; /* a server that does not know If-Match */
        return -ESTALE;
    }
    c->object = object;
    return 0;
}

static int on_body(void *ctx, const void *data, size_t size)
{
    struct s3_call *c = ctx;

    if (c->response.status / 100 == 2 && c->ranged) {
        if (size > c->expected - c->got)
            return distrust(c, "it sent more than it announced");
        memcpy(c->data + c->got, data, size);
        c->got += size;
        return 0;
    }
    if (c->response.status / 100 == 2)
        return buf_append(&c->answer_body, data, size) < 0
                   ? distrust(c, "it sent more than was asked for")
                   : 0;
    /* Of an error only the beginning is of use. */
    if (c->answer_body.size + size <= S3_ERROR_BODY_MAX)
        return buf_append(&c->answer_body, data, size);
    return 0;
}

/* ---- one attempt ---- */

static int build_url(struct s3_call *c, char host[static S3_HOST_MAX + 1], struct buf *path)
{
    int r = s3_address(c->s3, c->bucket, host, path);

    if (r == 0)
        r = buf_append(path, "/", 1);
    if (r == 0 && c->key)
        r = s3_encode(path, c->key, true);
    buf_clear(&c->url);
    if (r == 0)
        r = buf_printf(&c->url, "%s://%s%s%s%s", c->s3->scheme, host, buf_text(path),
                       c->query.size ? "?" : "", buf_text(&c->query));
    return r == -EFBIG ? -EINVAL : r;
}

struct signed_headers {
    struct http_header header[S3_CALL_HEADERS + 6];
    size_t count;
    char authorization[S3_AUTHORIZATION_MAX];
    char date[S3_AMZ_DATE_SIZE];
};

static void add(struct signed_headers *h, const char *name, const char *value)
{
    h->header[h->count++] = (struct http_header){name, value};
}

/* `credential` must live as long as the headers; NULL: unsigned. */
static int sign(struct s3_call *c, const char *host, const char *path,
                const struct s3_credential *credential, struct signed_headers *h)
{
    struct s3 *s = c->s3;
    char region[S3_REGION_MAX + 1];

    h->count = 0;
    for (size_t i = 0; i < c->header_count; i++)
        add(h, c->header[i].name, c->header[i].value);
    if (!credential)
        return 0;
    s3_region_of(s, c->bucket, region);
    s3_sign_date(s->env->wall_ms(s->env) + s->signing_offset_ms, h->date);
    add(h, "host", host);
    add(h, "x-amz-date", h->date);
    add(h, "x-amz-content-sha256", c->body_hash);
    if (credential->token[0])
        add(h, "x-amz-security-token", credential->token);
    struct s3_signing g = {
        .method = c->method,
        .path = path,
        .query = buf_text(&c->query),
        .region = region,
        .service = "s3",
        .payload_hash = c->body_hash,
        .date = h->date,
        .credential = credential,
    };
    int r = s3_sign(&g, h->header, h->count, h->authorization);
    if (r == 0)
        add(h, "authorization", h->authorization);
    return r;
}

static void on_answer(void *ctx, int result, struct http_response *response);

static int64_t attempt_deadline(const struct s3_call *c, int64_t rest)
{
    size_t moved = c->body.size > c->size ? c->body.size : c->size;
    int64_t ms =
        c->s3->attempt_ms + (int64_t)((uint64_t)moved * S3_SECOND_MS / SLOWEST_BYTES_PER_SECOND);

    return ms < rest ? ms : rest;
}

static int send_request(struct s3_call *c, const struct signed_headers *h, int64_t rest)
{
    size_t accepted = c->ranged && c->size > c->body_max ? c->size : c->body_max;
    struct http_request q = {
        .method = c->method,
        .url = buf_text(&c->url),
        .headers = h->header,
        .header_count = h->count,
        .body = c->body,
        .head = on_head,
        .sink = on_body,
        .ctx = c,
        .body_max = accepted,
        .deadline_ms = attempt_deadline(c, rest),
        .fresh = c->attempts > 0,
        .encoded_ok = true, /* a label of the object; its length is checked to the byte */
        .gate = c->gate,
    };

    http_response_release(&c->response);
    buf_clear(&c->answer_body);
    c->answer = (struct s3_answer){.code = ""};
    c->complaint = NULL;
    c->got = c->expected = 0;
    c->total = UINT64_MAX;
    c->attempts++;
    c->s3->requests++;
    return http_submit(c->s3->http, &q, &c->response, on_answer, c);
}

/* Gives 0, -ENOENT (unsigned), or why there are no credentials, with a sentence. */
static int find_credential(struct s3_call *c, struct s3_credential *ret)
{
    bool stale = false;

    if (!c->s3->credentials)
        return -ENOENT;
    int r = s3_credentials_peek(c->s3->credentials, ret, &stale);
    if (r == -EAGAIN)
        r = s3_credentials_get(c->s3->credentials, ret, &c->err);
    else if (stale)
        s3_schedule_refresh(c->s3);
    if (r == -ENOENT)
        err_clear(&c->err);
    else if (r == 0)
        c->generation = ret->generation;
    return r;
}

void s3_call_attempt(struct s3_call *c)
{
    AUTO(buf_release) struct buf path = BUF_INIT(HTTP_URL_MAX);
    AUTO(s3_credential_wipe) struct s3_credential credential = {.token = ""};
    struct s3 *s = c->s3;
    struct signed_headers h;
    char host[S3_HOST_MAX + 1];
    int64_t rest = c->start_ms + s->total_ms - s->env->boot_ms(s->env);

    int r = rest <= 0                       ? -ETIMEDOUT
            : c->abandoned && *c->abandoned ? -ECANCELED
                                            : find_credential(c, &credential);
    c->no_credentials = r == -ENOENT;
    if (r == 0 || r == -ENOENT) {
        r = build_url(c, host, &path);
        if (r == 0)
            r = sign(c, host, buf_text(&path), c->no_credentials ? NULL : &credential, &h);
        if (r == 0)
            r = send_request(c, &h, rest);
    }
    if (r == 0)
        return; /* it may be finished and gone already */
    s3_schedule_ended(s, S3_FINAL, false);
    s3_call_finish(c, r);
}

/* ---- the answer ---- */

static void note_clock(struct s3_call *c)
{
    struct s3 *s = c->s3;
    char text[64];
    int64_t date;

    if (http_response_header(&c->response, "date", text, sizeof text) &&
        s3_parse_http_time(text, &date) == 0)
        s->clock_offset_ms = date - s->env->wall_ms(s->env);
}

static void read_answer(struct s3_call *c)
{
    const struct http_response *r = &c->response;
    bool suspicious = r->status / 100 != 2 || strcmp(c->method, "POST") == 0;

    c->s3->answered = true;
    note_clock(c);
    /* Completing an upload, and some copies, say 200 and then change their mind in the body. */
    struct bytes body = buf_bytes(&c->answer_body);
    bool is_error = suspicious && body.size && s3_xml_error(body, &c->answer);
    if (!is_error && r->status / 100 == 2 && c->root && !s3_xml_is(body, c->root))
        c->complaint = "its body is cut short, or not what was asked for";
    if (!c->answer.request_id[0] &&
        !http_response_header(r, "x-amz-request-id", c->answer.request_id,
                              sizeof c->answer.request_id))
        c->answer.request_id[0] = '\0';
    char region[S3_REGION_MAX + 1];
    if (http_response_header(r, "x-amz-bucket-region", region, sizeof region))
        memcpy(c->answer.region, region, sizeof region);
}

/* Another signature may help: prepare it. */
static bool mend(struct s3_call *c, enum s3_verdict verdict)
{
    struct s3 *s = c->s3;

    switch (verdict) {
    case S3_CLOCK:
        if (c->clock_mended)
            return false;
        s->signing_offset_ms = s->clock_offset_ms;
        return c->clock_mended = true;
    case S3_REGION:
        return c->redirects++ < REDIRECTS_MAX && s3_learn_region(s, c->bucket, c->answer.region);
    case S3_REFRESH:
        if (c->refreshed || !s->credentials)
            return false;
        s3_credentials_reject(s->credentials, c->generation);
        return c->refreshed = true;
    default:
        return false;
    }
}

static bool is_write(const struct s3_call *c)
{
    return strcmp(c->method, "GET") != 0 && strcmp(c->method, "HEAD") != 0;
}

static void on_answer(void *ctx, int result, struct http_response *response)
{
    struct s3_call *c = ctx;
    struct s3 *s = c->s3;
    enum s3_verdict verdict;

    if (response->status)
        read_answer(c);
    int code = c->drifted ? -ESTALE : s3_judge(c, result, &verdict);
    if (c->drifted)
        verdict = S3_FINAL;
    s3_schedule_ended(s, verdict, code == 0);
    if (is_write(c) && (code == -EIO || code == -ETIMEDOUT || code == -EPROTO)) {
        c->in_doubt = true;
        code = code == -EPROTO ? -EIO : code;
    }
    if (mend(c, verdict)) {
        s3_schedule_now(c);
        return;
    }
    bool again = verdict == S3_AGAIN || verdict == S3_AGAIN_FEW || verdict == S3_SLOW_DOWN;
    if (code < 0 && again && s3_schedule_again(c, verdict))
        return;
    s3_call_finish(c, code);
}

void s3_call_finish(struct s3_call *c, int result)
{
    if (result < 0)
        s3_describe(c, result);
    c->done(c->done_ctx, c, result);
}

/* ---- running ---- */

void s3_call_start(struct s3_call *c, s3_call_done_fn *done, void *ctx)
{
    c->done = done;
    c->done_ctx = ctx;
    s3_schedule_start(c);
}

struct waiter {
    pthread_mutex_t lock;
    pthread_cond_t cond;
    bool done;
    int result;
};

static void on_done(void *ctx, struct s3_call *c, int result)
{
    struct waiter *w = ctx;

    WITH_LOCK(&w->lock);
    w->result = result;
    w->done = true;
    pthread_cond_signal(&w->cond);
}

int s3_call_run(struct s3_call *c, struct err *err)
{
    struct waiter w = {.lock = PTHREAD_MUTEX_INITIALIZER, .cond = PTHREAD_COND_INITIALIZER};

    s3_call_start(c, on_done, &w);
    pthread_mutex_lock(&w.lock);
    while (!w.done)
        pthread_cond_wait(&w.cond, &w.lock);
    pthread_mutex_unlock(&w.lock);
    return w.result < 0 ? err_fail(err, w.result, "%s", c->err.text) : 0;
}
