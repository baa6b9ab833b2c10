/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The loop: one thread that owns curl's multi handle and with it all sockets.
 *
 * Submitters put calls on a locked list and wake the loop; the loop starts as many as there may be
 * connections, so that the rest waits here, where no time-out of curl's counts yet. Finished calls
 * tell their owners from the loop thread. Easy handles are kept for the next call.
 */
#include "http/http-internal.h"

#include <stdio.h>

#define CONNECTIONS_DEFAULT 64u
#define CONNECTIONS_MAX     4096u
#define CONNECT_TIMEOUT_MS  10000
#define LOW_SPEED_BYTES     1024u
#define LOW_SPEED_MS        20000
#define POLL_MS             1000 /* curl knows its own timers; this only bounds a lost wake-up */

static void list_append(struct http_call_list *l, struct http_call *c)
{
    c->next = NULL;
    c->previous = l->last;
    if (l->last)
        l->last->next = c;
    else
        l->first = c;
    l->last = c;
}

static void list_remove(struct http_call_list *l, struct http_call *c)
{
    if (c->previous)
        c->previous->next = c->next;
    else
        l->first = c->next;
    if (c->next)
        c->next->previous = c->previous;
    else
        l->last = c->previous;
}

CURL *http_take_easy(struct http *h)
{
    WITH_LOCK(&h->lock);
    return h->spare_count ? h->spare[--h->spare_count] : curl_easy_init();
}

void http_give_easy(struct http *h, CURL *easy)
{
    curl_easy_reset(easy);
    {
        WITH_LOCK(&h->lock);
        if (h->spare_count < h->connections) {
            h->spare[h->spare_count++] = easy;
            return;
        }
    }
    curl_easy_cleanup(easy);
}

static void finish(struct http_call *c, int result)
{
    http_done_fn *done = c->done;
    void *ctx = c->done_ctx;
    struct http_response *response = c->response;

    http_call_free(c);
    done(ctx, result, response);
}

static void start_waiting(struct http *h)
{
    while (h->running_count < h->connections) {
        struct http_call *c;
        {
            WITH_LOCK(&h->lock);
            c = h->waiting.first;
            if (!c)
                return;
            list_remove(&h->waiting, c);
        }
        if (curl_multi_add_handle(h->multi, c->easy) != CURLM_OK) {
            finish(c, -ENOMEM);
            continue;
        }
        list_append(&h->running, c);
        h->running_count++;
    }
}

static void stop_call(struct http *h, struct http_call *c)
{
    (void)curl_multi_remove_handle(h->multi, c->easy); /* it is one of ours: cannot fail */
    list_remove(&h->running, c);
    h->running_count--;
    h->held_count -= (unsigned)c->held + (unsigned)c->paused;
}

static bool reap(struct http *h)
{
    struct CURLMsg *m;
    int left;
    bool any = false;

    while ((m = curl_multi_info_read(h->multi, &left))) {
        struct http_call *c = NULL;
        if (m->msg != CURLMSG_DONE)
            continue;
        CURLcode code = m->data.result;
        (void)curl_easy_getinfo(m->easy_handle, CURLINFO_PRIVATE, (char **)&c);
        int result = http_call_result(c, code);
        stop_call(h, c);
        finish(c, result);
        any = true;
    }
    return any;
}

/* May what is held, at its gate or by its sink, go on? */
static bool passes(struct http_call *c)
{
    if (c->held)
        return c->q.gate->open;
    return c->paused && atomic_exchange(&c->q.flow->open, false);
}

static void let_pass(struct http *h)
{
    for (struct http_call *c = h->running.first; c && h->held_count; c = c->next) {
        if (!passes(c))
            continue;
        c->held = c->paused = false;
        h->held_count--;
        (void)curl_easy_pause(c->easy, CURLPAUSE_CONT); /* a failure shows as the call's end */
    }
}

static bool is_stopping(struct http *h)
{
    WITH_LOCK(&h->lock);
    return h->stopping;
}

static void *loop(void *arg)
{
    struct http *h = arg;
    struct http_call *c;
    int running;

    while (!is_stopping(h)) {
        start_waiting(h);
        let_pass(h);
        (void)curl_multi_perform(h->multi, &running); /* errors come with each handle */
        if (!reap(h))
            (void)curl_multi_poll(h->multi, NULL, 0, POLL_MS, NULL);
    }
    while ((c = h->running.first)) {
        stop_call(h, c);
        finish(c, -ECANCELED);
    }
    while ((c = h->waiting.first)) { /* nobody adds any more */
        list_remove(&h->waiting, c);
        finish(c, -ECANCELED);
    }
    return NULL;
}

static pthread_once_t global_once = PTHREAD_ONCE_INIT;

static void global_init(void)
{
    (void)curl_global_init(CURL_GLOBAL_DEFAULT); /* a failure shows at curl_multi_init() */
}

static void http_release(struct http *h)
{
    if (h->multi)
        (void)curl_multi_cleanup(h->multi);
    for (unsigned i = 0; i < h->spare_count; i++)
        curl_easy_cleanup(h->spare[i]);
    vec_release(&h->sockets);
    free(h->spare);
    free(h->ca_file);
    free(h->user_agent);
    pthread_mutex_destroy(&h->lock);
    free(h);
}

static int set_up(struct http *h, const struct http_options *o)
{
    unsigned per_host = o->per_host ? o->per_host : h->connections;

    h->spare = calloc(h->connections, sizeof(CURL *));
    h->user_agent = strdup(o->user_agent ? o->user_agent : "grid/" GRID_VERSION);
    if (o->ca_file)
        h->ca_file = strdup(o->ca_file);
    h->multi = curl_multi_init();
    if (!h->spare || !h->user_agent || (o->ca_file && !h->ca_file) || !h->multi)
        return -ENOMEM;
    if (curl_multi_setopt(h->multi, CURLMOPT_MAXCONNECTS, (long)h->connections) != CURLM_OK ||
        curl_multi_setopt(h->multi, CURLMOPT_MAX_HOST_CONNECTIONS, (long)per_host) != CURLM_OK ||
        curl_multi_setopt(h->multi, CURLMOPT_PIPELINING, (long)CURLPIPE_NOTHING) != CURLM_OK)
        return -ENOMEM;
    return -pthread_create(&h->thread, NULL, loop, h);
}

int http_new(const struct http_options *o, struct http **ret, struct err *err)
{
    (void)pthread_once(&global_once, global_init);
    if (o->ca_file && access(o->ca_file, R_OK) < 0)
        return err_fail(err, -errno, "cannot read the file of certificates %s: %s", o->ca_file,
                        strerror(errno));
    struct http *h = calloc(1, sizeof *h);
    if (!h)
        return err_fail(err, -ENOMEM, "out of memory");
    (void)pthread_mutex_init(&h->lock, NULL);
    h->connections = o->connections ? o->connections : CONNECTIONS_DEFAULT;
    if (h->connections > CONNECTIONS_MAX)
        h->connections = CONNECTIONS_MAX;
    h->connect_timeout_ms = o->connect_timeout_ms ? o->connect_timeout_ms : CONNECT_TIMEOUT_MS;
    h->low_speed_bytes = o->low_speed_bytes ? o->low_speed_bytes : LOW_SPEED_BYTES;
    h->low_speed_ms = o->low_speed_ms ? o->low_speed_ms : LOW_SPEED_MS;
    int r = set_up(h, o);
    if (r < 0) {
        http_release(h);
        return err_fail(err, r, "cannot set up HTTP: %s", strerror(-r));
    }
    *ret = h;
    return 0;
}

void http_free(struct http *h)
{
    if (!h)
        return;
    {
        WITH_LOCK(&h->lock);
        h->stopping = true;
    }
    (void)curl_multi_wakeup(h->multi);
    (void)pthread_join(h->thread, NULL);
    http_release(h);
}

int http_submit(struct http *h, const struct http_request *q, struct http_response *response,
                http_done_fn *done, void *done_ctx)
{
    struct http_call *c;

    http_response_init(response, q->body_max);
    int r = http_call_new(h, q, response, &c);
    if (r < 0)
        return r;
    c->done = done;
    c->done_ctx = done_ctx;
    {
        WITH_LOCK(&h->lock);
        if (!h->stopping) {
            list_append(&h->waiting, c);
            c = NULL;
        }
    }
    if (c) {
        http_call_free(c);
        return -ECANCELED;
    }
    h->requests++;
    (void)curl_multi_wakeup(h->multi); /* at worst the loop looks a second later */
    return 0;
}

struct waiter {
    pthread_mutex_t lock;
    pthread_cond_t cond;
    bool done;
    int result;
};

static void on_performed(void *ctx, int result, struct http_response *response)
{
    struct waiter *w = ctx;

    WITH_LOCK(&w->lock);
    w->result = result;
    w->done = true;
    pthread_cond_signal(&w->cond);
}

int http_perform(struct http *h, const struct http_request *q, struct http_response *ret)
{
    struct waiter w = {.lock = PTHREAD_MUTEX_INITIALIZER, .cond = PTHREAD_COND_INITIALIZER};

    int r = http_submit(h, q, ret, on_performed, &w);
    if (r < 0)
        return r;
    WITH_LOCK(&w.lock);
    while (!w.done)
        pthread_cond_wait(&w.cond, &w.lock);
    return w.result;
}

void http_gate_open(struct http *h, struct http_gate *gate)
{
    gate->open = true;
    (void)curl_multi_wakeup(h->multi); /* at worst the loop looks a second later */
}

void http_flow_open(struct http *h, struct http_flow *flow)
{
    atomic_store(&flow->open, true);
    (void)curl_multi_wakeup(h->multi); /* at worst the loop looks a second later */
}

void http_counts(struct http *h, struct http_counts *ret)
{
    *ret = (struct http_counts){
        .requests = h->requests,
        .connections = h->opened,
        .bytes_in = h->bytes_in,
        .bytes_out = h->bytes_out,
    };
}
