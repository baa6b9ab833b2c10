/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The window of a download, and the first answer, which decides how it goes on.
 *
 * Consumers may take what has come of the first chunk while its request is still running. Chunks
 * are allocated once. HTTP's thread never waits: a plain answer for which there is no room is held.
 */
#include "archive/archive-download-internal.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#define REDIRECTS_MAX   10u
#define PATIENCE_MS     120000
#define CONNECTIONS_MAX 16u

static struct chunk *chunk_at(struct download *d, size_t i)
{
    return &d->chunks[(d->head + i) % CHUNK_COUNT];
}

/* A chunk behind the window. NULL: no memory. */
static struct chunk *chunk_push(struct download *d)
{
    struct chunk *c = chunk_at(d, d->count);

    if (!c->data)
        c->data = malloc(CHUNK_SIZE);
    if (!c->data)
        return NULL;
    c->d = d;
    c->offset = d->next;
    c->size = CHUNK_SIZE;
    c->got = 0;
    c->tries = 0;
    c->plain = false;
    c->state = CHUNK_IDLE;
    d->count++;
    return c;
}

/* ---- plain ------------------------------------------------------------------------------------
 */

int download_plain_piece(struct download *d, const void *data, size_t size)
{
    struct chunk *last = d->count ? chunk_at(d, d->count - 1) : NULL;
    uint64_t before = d->next;

    if (last && last->got == last->size)
        last = NULL;
    size_t room = last ? last->size - last->got : 0;
    if (room < size && d->count == CHUNK_COUNT) {
        atomic_store(&d->flow.open, false);
        return HTTP_HOLD;
    }
    while (size > 0) {
        if (!last) {
            last = chunk_push(d);
            if (!last)
                return -ENOMEM;
            last->state = CHUNK_RUNNING;
        }
        size_t n = last->size - last->got < size ? last->size - last->got : size;
        memcpy(last->data + last->got, data, n);
        last->got += n;
        d->next += n;
        data = (const uint8_t *)data + n;
        size -= n;
        if (last->got == last->size) {
            last->state = CHUNK_FULL;
            last = NULL;
        }
    }
    d->moved_ms = download_now();
    download_wake(d, before, d->next);
    return 0;
}

void download_plain_end(struct download *d)
{
    struct chunk *last = d->count ? chunk_at(d, d->count - 1) : NULL;

    if (last && last->state == CHUNK_RUNNING) {
        last->size = last->got;
        last->state = CHUNK_FULL;
    }
}

/* ---- ranges -----------------------------------------------------------------------------------
 */

static int fill_window(struct download *d, struct err *err)
{
    int64_t now = download_now();

    for (size_t i = 0; i < d->count; i++) {
        struct chunk *c = chunk_at(d, i);
        if (c->state == CHUNK_FAILED && !chunk_again(c))
            return chunk_error(c, err);
        if (c->state == CHUNK_AGAIN && c->again_ms <= now)
            chunk_start(c);
    }
    while (d->ranged && d->count < CHUNK_COUNT && d->next < d->size) {
        struct chunk *c = chunk_push(d);
        if (!c)
            return err_fail(err, -ENOMEM, "out of memory");
        if (d->size - d->next < c->size)
            c->size = (size_t)(d->size - d->next);
        d->next += c->size;
        chunk_start(c);
    }
    return 0;
}

/* ---- taking -----------------------------------------------------------------------------------
 */

/* The head chunk was given whole: its room is for the next one. Not before its request is over. */
static bool drop_head(struct download *d)
{
    struct chunk *c = chunk_at(d, 0);

    if (d->count == 0 || d->given < c->size || c->state != CHUNK_FULL)
        return false;
    d->head = (d->head + 1) % CHUNK_COUNT;
    d->count--;
    d->given = 0;
    if (!d->ranged)
        http_flow_open(d->http, &d->flow);
    return true;
}

/* Keep the window filling; fails as its requests do. */
static int keep_going(struct download *d, struct err *err)
{
    if (d->ranged)
        return fill_window(d, err);
    return d->single.state == CHUNK_FAILED ? chunk_error(&d->single, err) : 0;
}

static bool is_at_end(const struct download *d)
{
    return d->count == 0 && (d->ranged ? d->next >= d->size : d->ended);
}

static int wait_moved(struct download *d, struct err *err)
{
    int r = download_wait(d, INT64_MAX);

    return r < 0 ? err_fail(err, r, "interrupted") : 0;
}

int download_take(struct download *d, struct bytes *ret, struct err *err)
{
    WITH_LOCK(&d->lock);

    for (;;) {
        while (drop_head(d))
            continue;
        int r = keep_going(d, err);
        struct chunk *c = d->count ? chunk_at(d, 0) : NULL;
        if (r == 0 && c && c->got > d->given && !d->stop) {
            *ret = bytes_of(c->data + d->given, c->got - d->given);
            d->given = c->got;
            d->taken += ret->size;
            return 1;
        }
        if (r == 0 && is_at_end(d))
            return 0;
        if (r == 0)
            r = wait_moved(d, err);
        if (r < 0)
            return r;
    }
}

int download_peek(struct download *d, size_t size, struct bytes *ret, struct err *err)
{
    WITH_LOCK(&d->lock);

    for (;;) {
        struct chunk *c = d->count ? chunk_at(d, 0) : NULL;
        if (is_at_end(d) || (c && (c->got >= size || c->state == CHUNK_FULL))) {
            *ret = c ? bytes_of(c->data, c->got < size ? c->got : size) : bytes_of(NULL, 0);
            return 0;
        }
        int r = keep_going(d, err);
        if (r == 0)
            r = wait_moved(d, err);
        if (r < 0)
            return r;
    }
}

/* Until the request of `c` has ended, for good or ill. */
static int wait_for(struct chunk *c, struct err *err)
{
    while (c->state != CHUNK_FULL) {
        if (c->state == CHUNK_FAILED && !chunk_again(c))
            return chunk_error(c, err);
        if (c->state == CHUNK_AGAIN && c->again_ms <= download_now())
            chunk_start(c);
        int r = wait_moved(c->d, err);
        if (r < 0)
            return r;
    }
    return 0;
}

int download_range(struct download *d, uint64_t offset, void *data, size_t size, struct err *err)
{
    struct chunk *c = &d->single;
    WITH_LOCK(&d->lock);

    if (size == 0)
        return 0;
    http_response_release(&c->response);
    *c = (struct chunk){.d = d, .data = data, .offset = offset, .size = size};
    d->moved_ms = download_now();
    chunk_start(c);
    int r = wait_for(c, err);
    /* What still runs writes to `data`: it is the caller's again only when it has ended. */
    while (r < 0 && c->state == CHUNK_RUNNING)
        (void)pthread_cond_wait(&d->moved, &d->lock);
    return r;
}

/* ---- the first answer -------------------------------------------------------------------------
 */

static int follow(struct download *d, unsigned *redirects, struct err *err)
{
    struct url next;

    if (++*redirects > REDIRECTS_MAX)
        return err_fail(err, -EPROTO, "%s redirects more than %u times", d->shown, REDIRECTS_MAX);
    int r = url_redirect(&d->url, d->single.response.location, &next, err);
    if (r == 0)
        d->url = next;
    return r;
}

/* Until it is known what the answer is: one byte of a range, or all of it on its way. */
static int ask(struct download *d, struct err *err)
{
    struct chunk *c = &d->single;
    unsigned redirects = 0;
    int r = 0;

    d->moved_ms = download_now();
    chunk_start(c);
    while (r == 0) {
        if (c->state == CHUNK_FULL ||
            (c->state == CHUNK_RUNNING && c->plain && c->verdict == VERDICT_BODY))
            return 0;
        if (c->state == CHUNK_FAILED && c->verdict == VERDICT_REDIRECT) {
            r = follow(d, &redirects, err);
            c->state = CHUNK_AGAIN;
            c->again_ms = 0;
        } else if (c->state == CHUNK_FAILED && c->verdict == VERDICT_NO_RANGE && !d->pinned) {
            c->plain = true;
            c->state = CHUNK_AGAIN;
            c->again_ms = 0;
        } else if (c->state == CHUNK_FAILED && c->status == 416 && !c->plain && !d->pinned) {
            d->ended = true; /* not even one byte */
            d->size = 0;
            return 0;
        } else if (c->state == CHUNK_FAILED && !chunk_again(c)) {
            return chunk_error(c, err);
        }
        if (r == 0 && c->state == CHUNK_AGAIN && c->again_ms <= download_now())
            chunk_start(c);
        else if (r == 0)
            r = wait_moved(d, err);
    }
    return r;
}

int download_rewind(struct download *d, struct err *err)
{
    WITH_LOCK(&d->lock);

    if (d->ranged || !d->ended)
        return err_fail(err, -EINVAL, "%s cannot be read again", d->shown);
    http_response_release(&d->single.response);
    d->single = (struct chunk){.d = d, .plain = true};
    d->head = d->count = d->given = 0;
    d->next = 0;
    d->ended = false;
    d->taken = 0;
    return ask(d, err);
}

/* ---- life -------------------------------------------------------------------------------------
 */

static int set_up(struct download *d, const struct archive_options *o, struct err *err)
{
    struct http_options ho = {
        .ca_file = o->ca_file, .connections = CONNECTIONS_MAX, .low_speed_ms = o->low_speed_ms};
    char shown[HTTP_URL_MAX];

    url_redact(&d->url, shown, sizeof shown);
    d->shown = strdup(shown);
    if (!d->shown)
        return err_fail(err, -ENOMEM, "out of memory");
    d->patience_ms = o->patience_ms ? o->patience_ms : PATIENCE_MS;
    d->interrupted = o->interrupted;
    return http_new(&ho, &d->http, err);
}

int download_open(const char *url, const struct archive_options *o, struct download **ret,
                  struct err *err)
{
    AUTO(download_close) struct download *d = calloc(1, sizeof *d);
    pthread_condattr_t attr;

    if (!d)
        return err_fail(err, -ENOMEM, "out of memory");
    (void)pthread_mutex_init(&d->lock, NULL); /* these cannot fail on Linux */
    (void)pthread_condattr_init(&attr);
    (void)pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    (void)pthread_cond_init(&d->moved, &attr);
    (void)pthread_condattr_destroy(&attr);
    d->size = DOWNLOAD_UNKNOWN;
    int r = url_parse(url, &d->url, err);
    if (r == 0)
        r = set_up(d, o, err);
    if (r < 0)
        return r;
    d->single = (struct chunk){.d = d, .data = &d->probe, .size = 1};
    {
        WITH_LOCK(&d->lock);
        r = ask(d, err);
    }
    if (r == 0)
        *ret = take_ptr(&d);
    return r;
}

void download_close(struct download *d)
{
    if (!d)
        return;
    download_stop(d);
    http_free(d->http); /* its callbacks are over */
    for (size_t i = 0; i < CHUNK_COUNT; i++) {
        http_response_release(&d->chunks[i].response);
        free(d->chunks[i].data);
    }
    http_response_release(&d->single.response);
    pthread_cond_destroy(&d->moved);
    pthread_mutex_destroy(&d->lock);
    explicit_bzero(&d->url, sizeof d->url);
    free(d->shown);
    free(d);
}

void download_stop(struct download *d)
{
    WITH_LOCK(&d->lock);
    d->stop = true;
    pthread_cond_broadcast(&d->moved);
    if (d->http)
        http_flow_open(d->http, &d->flow);
}

const char *download_shown(const struct download *d)
{
    return d->shown;
}

uint64_t download_size(const struct download *d)
{
    return d->size;
}

bool download_has_ranges(const struct download *d)
{
    return d->ranged;
}

bool download_is_html(const struct download *d)
{
    return strncasecmp(d->type, "text/html", 9) == 0;
}

uint64_t download_progress(const struct download *d)
{
    return d->taken;
}
