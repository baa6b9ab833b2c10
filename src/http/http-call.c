/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One request: its easy handle, the callbacks that move its bytes, and what its end means.
 *
 * HTTP/1.1 only: many connections beat one shared one for object storage (each is limited to some
 * 90 MB/s), and one lost packet then stops one transfer, not all. curl may quietly send a request
 * again when a warm connection turns out to be dead; that would be two attempts where the caller
 * counts one, so a body that was begun is never rewound (-ECONNRESET instead). curl's verbose
 * output is never on: headers hold signatures and tokens.
 */
#include "http/http-internal.h"

#include <stdio.h>
#include <strings.h>

/* Large reads cost fewer system calls; curl takes no more than 512 KiB. */
#define TRANSFER_BUFFER (512L << 10)
/* Servers of object stores close idle connections after some 20 s; older ones are a gamble. */
#define IDLE_SECONDS     50L
#define LIFETIME_SECONDS 600L
#define KEEPALIVE_IDLE   15L
#define DEADLINE_MS      60000

static size_t on_header(char *line, size_t one, size_t size, void *ctx)
{
    struct http_call *c = ctx;
    struct http_response *r = c->response;
    long status = 0;

    if (c->head_done)
        return size; /* trailers: nobody asked for them */
    if (size >= 5 && strncmp(line, "HTTP/", 5) == 0) {
        buf_clear(&r->head); /* an interim answer came before */
        return size;
    }
    if (size > 2 || (size > 0 && line[0] != '\r' && line[0] != '\n')) {
        c->code = http_response_line(r, line, size);
        return c->code ? 0 : size;
    }
    (void)curl_easy_getinfo(c->easy, CURLINFO_RESPONSE_CODE, &status);
    if (status < 200)
        return size;
    r->status = (int)status;
    c->head_done = true;
    http_socket_acknowledge(c);
    c->code = http_response_settle(r);
    char encoding[64];
    if (!c->code && !c->q.encoded_ok &&
        http_response_header(r, "content-encoding", encoding, sizeof encoding) &&
        strcasecmp(encoding, "identity") != 0)
        c->code = -EPROTO;
    if (!c->code && c->q.head)
        c->code = c->q.head(c->q.ctx, r);
    if (!c->code && strcmp(c->q.method, "HEAD") != 0 && r->content_length != UINT64_MAX &&
        r->content_length > c->q.body_max)
        c->code = -EFBIG;
    return c->code ? 0 : size;
}

static size_t on_body(char *data, size_t one, size_t size, void *ctx)
{
    struct http_call *c = ctx;

    if (c->code) /* what was held may come again behind a failure */
        return size ? 0 : 1;
    if (size > c->q.body_max || c->got > c->q.body_max - size)
        c->code = -EFBIG;
    else if (c->q.sink)
        c->code = c->q.sink(c->q.ctx, data, size);
    else
        c->code = buf_append(&c->response->body, data, size);
    if (c->code == HTTP_HOLD && c->q.flow) {
        c->code = 0;
        c->paused = true;
        c->http->held_count++;
        return CURL_WRITEFUNC_PAUSE;
    }
    if (c->code)
        return size ? 0 : 1;
    c->got += size;
    return size;
}

static size_t on_send(char *to, size_t one, size_t room, void *ctx)
{
    struct http_call *c = ctx;
    size_t rest = c->q.body.size - c->sent;
    size_t n = rest < room ? rest : room;

    if (c->q.gate && !c->q.gate->open && n == rest && n > 0) {
        if (--n == 0) {
            c->held = true;
            c->http->held_count++;
            c->q.gate->arrived++;
            return CURL_READFUNC_PAUSE;
        }
    }
    if (n)
        memcpy(to, (const char *)c->q.body.data + c->sent, n);
    c->sent += n;
    return n;
}

static int on_rewind(void *ctx, curl_off_t offset, int origin)
{
    struct http_call *c = ctx;

    return c->sent == 0 && offset == 0 && origin == SEEK_SET ? CURL_SEEKFUNC_OK
                                                             : CURL_SEEKFUNC_FAIL;
}

static bool is_clean(const char *text)
{
    for (; *text; text++)
        if ((unsigned char)*text < 0x20 || *text == 0x7f)
            return false;
    return true;
}

static int add_header(struct http_call *c, const char *name, const char *value)
{
    AUTO(buf_release) struct buf line = BUF_INIT(64u << 10);

    if (!name[0] || strpbrk(name, ": ;") || !is_clean(name) || !is_clean(value))
        return -EINVAL;
    /* An empty value is spelled with a semicolon in curl's lists. */
    int r = value[0] ? buf_printf(&line, "%s: %s", name, value) : buf_printf(&line, "%s;", name);
    if (r < 0)
        return r;
    struct curl_slist *longer = curl_slist_append(c->headers, buf_text(&line));
    explicit_bzero(line.data, line.size);
    if (!longer)
        return -ENOMEM;
    c->headers = longer;
    return 0;
}

static int add_headers(struct http_call *c)
{
    if (c->q.header_count > HTTP_HEADERS_MAX)
        return -EINVAL;
    for (size_t i = 0; i < c->q.header_count; i++) {
        int r = add_header(c, c->q.headers[i].name, c->q.headers[i].value);
        if (r < 0)
            return r;
    }
    /* Without "Expect:" curl would wait for leave before each large body: a round trip. */
    struct curl_slist *longer = curl_slist_append(c->headers, "Expect:");
    if (longer)
        c->headers = longer;
    struct curl_slist *last =
        longer ? curl_slist_append(longer, "Accept-Encoding: identity") : NULL;
    return last ? 0 : -ENOMEM;
}

#define SET(option, value) (failed |= curl_easy_setopt(c->easy, (option), (value)) != CURLE_OK)

static int set_method(struct http_call *c)
{
    bool has_body =
        c->q.body.size > 0 || strcmp(c->q.method, "PUT") == 0 || strcmp(c->q.method, "POST") == 0;
    int failed = 0;

    if (strcmp(c->q.method, "HEAD") == 0)
        SET(CURLOPT_NOBODY, 1L);
    else if (!has_body && strcmp(c->q.method, "GET") == 0)
        SET(CURLOPT_HTTPGET, 1L);
    else
        SET(CURLOPT_CUSTOMREQUEST, c->q.method);
    if (has_body) {
        SET(CURLOPT_UPLOAD, 1L);
        SET(CURLOPT_INFILESIZE_LARGE, (curl_off_t)c->q.body.size);
        SET(CURLOPT_READFUNCTION, on_send);
        SET(CURLOPT_READDATA, c);
        SET(CURLOPT_SEEKFUNCTION, on_rewind);
        SET(CURLOPT_SEEKDATA, c);
    }
    return failed ? -ENOMEM : 0;
}

static int set_limits(struct http_call *c)
{
    const struct http *h = c->http;
    int failed = 0;

    SET(CURLOPT_NOSIGNAL, 1L);
    SET(CURLOPT_PROTOCOLS_STR, "http,https");
    SET(CURLOPT_FOLLOWLOCATION, 0L);
    SET(CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
    SET(CURLOPT_NETRC, (long)CURL_NETRC_IGNORED);
    SET(CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    SET(CURLOPT_PATH_AS_IS, 1L);
    SET(CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
    SET(CURLOPT_SSL_VERIFYPEER, 1L);
    SET(CURLOPT_SSL_VERIFYHOST, 2L);
    if (h->ca_file)
        SET(CURLOPT_CAINFO, h->ca_file);
    SET(CURLOPT_USERAGENT, h->user_agent);
    /* Refused by a handle that still has its buffer from a call that got no connection: then the
     * smaller default it is. */
    (void)curl_easy_setopt(c->easy, CURLOPT_BUFFERSIZE, TRANSFER_BUFFER);
    (void)curl_easy_setopt(c->easy, CURLOPT_UPLOAD_BUFFERSIZE, TRANSFER_BUFFER);
    SET(CURLOPT_TCP_NODELAY, 1L);
    SET(CURLOPT_TCP_KEEPALIVE, 1L);
    SET(CURLOPT_TCP_KEEPIDLE, KEEPALIVE_IDLE);
    SET(CURLOPT_TCP_KEEPINTVL, KEEPALIVE_IDLE);
    SET(CURLOPT_MAXAGE_CONN, IDLE_SECONDS);
    SET(CURLOPT_MAXLIFETIME_CONN, LIFETIME_SECONDS);
    SET(CURLOPT_CONNECTTIMEOUT_MS, (long)h->connect_timeout_ms);
    SET(CURLOPT_LOW_SPEED_LIMIT, (long)h->low_speed_bytes);
    SET(CURLOPT_LOW_SPEED_TIME, (long)((h->low_speed_ms + 999) / 1000));
    SET(CURLOPT_TIMEOUT_MS, (long)(c->q.deadline_ms > 0 ? c->q.deadline_ms : DEADLINE_MS));
    if (c->q.fresh) {
        SET(CURLOPT_FRESH_CONNECT, 1L);
        SET(CURLOPT_DNS_CACHE_TIMEOUT, 0L);
    }
    if (c->q.no_proxy)
        SET(CURLOPT_PROXY, "");
    return failed ? -ENOMEM : 0;
}

static int set_callbacks(struct http_call *c)
{
    int failed = 0;

    SET(CURLOPT_PRIVATE, c);
    SET(CURLOPT_ERRORBUFFER, c->curl_error);
    SET(CURLOPT_HTTPHEADER, c->headers);
    SET(CURLOPT_HEADERFUNCTION, on_header);
    SET(CURLOPT_HEADERDATA, c);
    SET(CURLOPT_WRITEFUNCTION, on_body);
    SET(CURLOPT_WRITEDATA, c);
    SET(CURLOPT_URL, c->q.url);
    return failed || !http_socket_watch(c) ? -ENOMEM : 0;
}

int http_call_new(struct http *h, const struct http_request *q, struct http_response *response,
                  struct http_call **ret)
{
    if (strncmp(q->url, "http://", 7) != 0 && strncmp(q->url, "https://", 8) != 0)
        return -EINVAL;
    if (strlen(q->url) >= HTTP_URL_MAX || !is_clean(q->url) || strchr(q->url, ' '))
        return -EINVAL;
    struct http_call *c = calloc(1, sizeof *c);
    if (!c)
        return -ENOMEM;
    c->http = h;
    c->q = *q;
    c->response = response;
    c->easy = http_take_easy(h);
    int r = c->easy ? add_headers(c) : -ENOMEM;
    if (r == 0)
        r = set_limits(c);
    if (r == 0)
        r = set_method(c);
    if (r == 0)
        r = set_callbacks(c);
    c->q.headers = NULL;
    if (r < 0) {
        http_call_free(c);
        return r;
    }
    *ret = c;
    return 0;
}

void http_call_free(struct http_call *c)
{
    if (c->easy)
        http_give_easy(c->http, c->easy);
    for (struct curl_slist *l = c->headers; l; l = l->next)
        explicit_bzero(l->data, strlen(l->data));
    curl_slist_free_all(c->headers);
    free(c);
}

/* A handshake that was cut off is a failure of the connection; one that was refused is not. */
static int tls_code(const struct http_call *c)
{
    return strstr(c->curl_error, "SYSCALL") || strstr(c->curl_error, "reset by peer") ||
                   strstr(c->curl_error, "unexpected eof")
               ? -ECONNRESET
               : -EKEYREJECTED;
}

static int code_of(const struct http_call *c, CURLcode code)
{
    switch (code) {
    case CURLE_OK:
        return c->head_done ? 0 : -EPROTO;
    case CURLE_OPERATION_TIMEDOUT:
        return -ETIMEDOUT;
    case CURLE_COULDNT_CONNECT:
        return -ECONNREFUSED;
    case CURLE_COULDNT_RESOLVE_HOST:
    case CURLE_COULDNT_RESOLVE_PROXY:
        return -EHOSTUNREACH;
    case CURLE_SEND_ERROR:
    case CURLE_RECV_ERROR:
    case CURLE_GOT_NOTHING:
    case CURLE_SEND_FAIL_REWIND:
        return -ECONNRESET;
    case CURLE_SSL_CONNECT_ERROR:
        return tls_code(c);
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CACERT_BADFILE:
    case CURLE_SSL_CERTPROBLEM:
    case CURLE_SSL_CIPHER:
    case CURLE_SSL_ISSUER_ERROR:
        return -EKEYREJECTED;
    case CURLE_URL_MALFORMAT:
        return -EINVAL;
    case CURLE_OUT_OF_MEMORY:
        return -ENOMEM;
    default:
        return -EPROTO;
    }
}

int http_call_result(struct http_call *c, CURLcode curl_code)
{
    struct http_response *r = c->response;
    curl_off_t first = 0, total = 0;
    long opened = 0;
    int result = c->code ? c->code : code_of(c, curl_code);

    (void)curl_easy_getinfo(c->easy, CURLINFO_STARTTRANSFER_TIME_T, &first);
    (void)curl_easy_getinfo(c->easy, CURLINFO_TOTAL_TIME_T, &total);
    (void)curl_easy_getinfo(c->easy, CURLINFO_NUM_CONNECTS, &opened);
    r->first_byte_ms = first / 1000;
    r->total_ms = total / 1000;
    if (result < 0 && !c->code)
        (void)snprintf(r->error, sizeof r->error, "%s",
                       c->curl_error[0] ? c->curl_error : curl_easy_strerror(curl_code));
    c->http->opened += (uint64_t)opened;
    c->http->bytes_in += c->got + r->head.size;
    c->http->bytes_out += c->sent;
    return result;
}
