/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One request of a download: what is asked for, what its answer is, whether it is worth another
 * try.
 *
 * A range is pinned by If-Match, or by If-Unmodified-Since where there is no strong ETag; and since
 * not every server honours these, each answer's own ETag, time and length are compared as well. A
 * request that was cut asks for the rest. Everything here runs with the download's lock held; the
 * callbacks, on HTTP's thread, take it.
 */
#include "archive/archive-download-internal.h"

#include "base/env.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#define REQUEST_MS      300000 /* of one range: 8 MiB at 30 KB/s */
#define DELAY_FIRST_MS  200
#define DELAY_MAX_MS    8000
#define RETRY_AFTER_MAX 60000
#define TRIES_AT_FIRST  4u  /* before anything was answered: a wrong address should not take long */
#define POLL_MS         200 /* for the user's wish to stop, and for a trickle */
/* Waking the consumer for each piece of a body would cost more than reading it. */
#define WAKE_EVERY (UINT64_C(1) << 20)

int64_t download_now(void)
{
    return env_real()->boot_ms(env_real());
}

int download_wait(struct download *d, int64_t until_ms)
{
    int64_t ms = until_ms - download_now();
    struct timespec until;

    if (d->stop || (d->interrupted && __atomic_load_n(d->interrupted, __ATOMIC_RELAXED)))
        return -ECANCELED;
    ms = ms < 1 ? 1 : ms > POLL_MS ? POLL_MS : ms;
    (void)clock_gettime(CLOCK_MONOTONIC, &until); /* cannot fail: the clock exists */
    until.tv_nsec += ms * 1000000L;
    until.tv_sec += until.tv_nsec / 1000000000L;
    until.tv_nsec %= 1000000000L;
    (void)pthread_cond_timedwait(&d->moved, &d->lock, &until); /* the caller looks what it was */
    return d->stop ? -ECANCELED : 0;
}

void download_wake(struct download *d, uint64_t before, uint64_t now)
{
    if (before / WAKE_EVERY != now / WAKE_EVERY || before == 0)
        pthread_cond_broadcast(&d->moved);
}

/* ---- the answer's head ------------------------------------------------------------------------
 */

static bool number_at(const char **text, uint64_t *ret)
{
    uint64_t v = 0;
    const char *p = *text;

    if (*p < '0' || *p > '9')
        return false;
    for (; *p >= '0' && *p <= '9'; p++) {
        if (v > (UINT64_MAX - 9) / 10)
            return false;
        v = v * 10 + (uint64_t)(*p - '0');
    }
    *text = p;
    *ret = v;
    return true;
}

/* "bytes FIRST-LAST/TOTAL" */
static bool content_range(const struct http_response *head, uint64_t *ret_first,
                          uint64_t *ret_total)
{
    char text[128];
    const char *at = text + 6;
    uint64_t last;

    return http_response_header(head, "content-range", text, sizeof text) &&
           strncasecmp(text, "bytes ", 6) == 0 && number_at(&at, ret_first) && *at++ == '-' &&
           number_at(&at, &last) && *at++ == '/' && number_at(&at, ret_total) && last < *ret_total;
}

/* What can be pinned: a weak ETag promises nothing about bytes. */
static void read_pins(const struct http_response *head, char *etag, size_t etag_size,
                      char *modified, size_t modified_size)
{
    if (!http_response_header(head, "etag", etag, etag_size) || etag[0] != '"')
        etag[0] = '\0';
    if (!http_response_header(head, "last-modified", modified, modified_size))
        modified[0] = '\0';
}

static enum verdict judge_same(const struct download *d, const struct http_response *head,
                               uint64_t total)
{
    char etag[sizeof d->etag], modified[sizeof d->modified];

    read_pins(head, etag, sizeof etag, modified, sizeof modified);
    bool same = total == d->size &&
                (d->etag[0] ? strcmp(etag, d->etag) == 0 : strcmp(modified, d->modified) == 0);
    return same ? VERDICT_BODY : VERDICT_CHANGED;
}

static enum verdict judge(struct chunk *c, const struct http_response *head)
{
    struct download *d = c->d;
    uint64_t first = 0, total = head->content_length;

    if (head->status >= 300 && head->status < 400)
        return VERDICT_REDIRECT;
    if (head->status == 412 || (head->status == 416 && d->pinned && d->size > 0))
        return VERDICT_CHANGED;
    if (head->status != 200 && head->status != 206)
        return VERDICT_STATUS;
    if (head->status == 206 &&
        (c->plain || !content_range(head, &first, &total) || first != c->offset + c->got))
        return VERDICT_STATUS;
    if (d->pinned) {
        if (head->status == 200 && !c->plain)
            return VERDICT_NO_RANGE;
        return judge_same(d, head, total);
    }
    read_pins(head, d->etag, sizeof d->etag, d->modified, sizeof d->modified);
    if (!http_response_header(head, "content-type", d->type, sizeof d->type))
        d->type[0] = '\0';
    if (head->status == 206 && !d->etag[0] && !d->modified[0])
        return VERDICT_NO_RANGE; /* nothing to pin further ranges to */
    d->ranged = head->status == 206;
    d->size = total;
    d->pinned = true;
    c->plain = !d->ranged;
    return VERDICT_BODY;
}

static int64_t retry_after(const struct http_response *head)
{
    char text[32];
    const char *at = text;
    uint64_t seconds;

    if (!http_response_header(head, "retry-after", text, sizeof text) || !number_at(&at, &seconds))
        return 0;
    return seconds > RETRY_AFTER_MAX / 1000 ? RETRY_AFTER_MAX : (int64_t)seconds * 1000;
}

static int on_head(void *ctx, const struct http_response *head)
{
    struct chunk *c = ctx;
    WITH_LOCK(&c->d->lock);

    c->status = head->status;
    c->retry_after_ms = retry_after(head);
    c->verdict = judge(c, head);
    pthread_cond_broadcast(&c->d->moved);
    return c->verdict == VERDICT_BODY ? 0 : -ECONNABORTED; /* its body is of no use */
}

/* ---- its body ---------------------------------------------------------------------------------
 */

static int on_body(void *ctx, const void *data, size_t size)
{
    struct chunk *c = ctx;
    struct download *d = c->d;
    size_t at;

    {
        WITH_LOCK(&d->lock);
        if (d->stop)
            return -ECANCELED;
        if (c->plain)
            return download_plain_piece(d, data, size);
        at = c->got;
        if (size > c->size - at)
            return -EPROTO;
    }
    memcpy(c->data + at, data, size); /* nobody looks behind `got` */
    WITH_LOCK(&d->lock);
    c->got += size;
    c->tries = 0;
    d->moved_ms = download_now();
    download_wake(d, at, c->got);
    return 0;
}

static void on_done(void *ctx, int result, struct http_response *response)
{
    struct chunk *c = ctx;
    struct download *d = c->d;
    WITH_LOCK(&d->lock);

    c->code = result;
    (void)snprintf(c->error, sizeof c->error, "%s", response->error);
    if (c->plain) {
        d->ended = result == 0;
        if (d->ended)
            download_plain_end(d);
        c->state = result == 0 ? CHUNK_FULL : CHUNK_FAILED;
    } else if (result == 0 && c->got == c->size) {
        c->state = CHUNK_FULL;
    } else {
        if (result == 0)
            c->code = -EPROTO; /* fewer bytes than were asked for */
        c->state = CHUNK_FAILED;
    }
    pthread_cond_broadcast(&d->moved);
}

/* ---- asking -----------------------------------------------------------------------------------
 */

void chunk_start(struct chunk *c)
{
    struct download *d = c->d;
    char range[80];
    struct http_header headers[3];
    size_t count = 0;

    (void)snprintf(range, sizeof range, "bytes=%" PRIu64 "-%" PRIu64, c->offset + c->got,
                   c->offset + c->size - 1);
    if (!c->plain)
        headers[count++] = (struct http_header){"Range", range};
    if (d->url.basic[0])
        headers[count++] = (struct http_header){"Authorization", d->url.basic};
    if (d->pinned && d->etag[0])
        headers[count++] = (struct http_header){"If-Match", d->etag};
    else if (d->pinned && d->modified[0])
        headers[count++] = (struct http_header){"If-Unmodified-Since", d->modified};
    bool bounded = d->pinned && !c->plain; /* the first answer may turn out to be all of it */
    struct http_request q = {.method = "GET",
                             .url = d->url.request,
                             .headers = headers,
                             .header_count = count,
                             .head = on_head,
                             .sink = on_body,
                             .ctx = c,
                             .body_max = bounded ? c->size - c->got : SIZE_MAX,
                             .deadline_ms = bounded ? REQUEST_MS : HTTP_NO_DEADLINE,
                             .fresh = c->tries > 0,
                             .encoded_ok = true, /* many servers label .tar.gz so */
                             .flow = &d->flow};
    if (c->tries == 0)
        c->begun_ms = download_now();
    c->verdict = VERDICT_NONE;
    c->status = c->code = 0;
    c->retry_after_ms = 0;
    c->state = CHUNK_RUNNING;
    http_response_release(&c->response);
    int r = http_submit(d->http, &q, &c->response, on_done, c);
    if (r < 0) {
        c->code = r;
        c->state = CHUNK_FAILED;
    }
}

static bool is_passing(const struct chunk *c)
{
    if (c->verdict == VERDICT_STATUS)
        return c->status == 408 || c->status == 429 || c->status == 500 || c->status == 502 ||
               c->status == 503 || c->status == 504;
    if (c->verdict != VERDICT_BODY && c->verdict != VERDICT_NONE)
        return false;
    if (!c->d->pinned && (c->code == -EHOSTUNREACH || c->code == -ECONNREFUSED))
        return false; /* rather a wrong address than a bad moment */
    return c->code == -ETIMEDOUT || c->code == -ECONNRESET || c->code == -ECONNREFUSED ||
           c->code == -EHOSTUNREACH || c->code == -EPROTO;
}

bool chunk_again(struct chunk *c)
{
    struct download *d = c->d;
    int64_t now = download_now(), delay = DELAY_FIRST_MS;
    int64_t since = d->moved_ms > c->begun_ms ? d->moved_ms : c->begun_ms;
    uint32_t random;

    if (c->plain && d->pinned)
        return false; /* nothing can be continued */
    if (!is_passing(c) || now - since > d->patience_ms ||
        (!d->pinned && c->tries + 1 >= TRIES_AT_FIRST))
        return false;
    for (unsigned i = 0; i < c->tries && delay < DELAY_MAX_MS; i++)
        delay *= 2;
    env_real()->random(env_real(), &random, sizeof random);
    delay = delay / 2 + (int64_t)(random % (uint32_t)delay);
    c->tries++;
    c->again_ms = now + (delay > c->retry_after_ms ? delay : c->retry_after_ms);
    c->state = CHUNK_AGAIN;
    return true;
}

/* ---- sentences --------------------------------------------------------------------------------
 */

static int status_error(const struct chunk *c, struct err *err)
{
    const char *shown = c->d->shown;

    switch (c->status) {
    case 401:
    case 403:
        return err_fail(err, -EACCES,
                        "%s may not be read: the server answers %d; a link that has run out, or "
                        "user and password are missing (https://user:password@host/...)",
                        shown, c->status);
    case 404:
    case 410:
        return err_fail(err, -ENOENT, "%s is not there: the server answers %d", shown, c->status);
    case 206:
        return err_fail(err, -EPROTO, "%s: the server sends another range than it was asked for",
                        shown);
    default:
        return err_fail(err, -EIO, "%s cannot be read: the server answers %d", shown, c->status);
    }
}

int chunk_error(const struct chunk *c, struct err *err)
{
    const char *shown = c->d->shown;

    switch (c->verdict) {
    case VERDICT_CHANGED:
        return err_fail(err, -EAGAIN,
                        "%s changed while it was read; nothing of it is visible, start again",
                        shown);
    case VERDICT_STATUS:
        return status_error(c, err);
    case VERDICT_NO_RANGE:
        return err_fail(err, -EPROTO, "%s: the server has ranges no longer", shown);
    case VERDICT_REDIRECT:
        return err_fail(err, -EPROTO, "%s is redirected in the middle", shown);
    default:
        break;
    }
    if (c->code == -ECANCELED)
        return err_fail(err, -ECANCELED, "interrupted");
    if (c->plain && c->d->pinned)
        return err_fail(err, c->code,
                        "%s was cut off after %" PRIu64 " bytes (%s), and the server has no ranges "
                        "to go on with; start again",
                        shown, c->d->next, c->error[0] ? c->error : strerror(-c->code));
    return err_fail(err, c->code, "%s cannot be read: %s", shown,
                    c->error[0] ? c->error : strerror(-c->code));
}
