/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tickets: who waits for which entries of memory, and what is kept for them.
 *
 * A wait hangs on an entry and on a ticket. When the entry is filled, the wait stays, and keeps the
 * entry from being dropped until the operation has run again; when it is given up with an error,
 * the ticket remembers that: the operation, run again, misses the same thing and gets the error.
 *
 * Where memory is short, what is kept for operations that still wait for more could be all there
 * is. Then all but the oldest of them lose it, so the oldest gets on; it ends, and another one is
 * the oldest.
 */
#include "fetch/fetch-internal.h"

#include "base/log.h"

#include <inttypes.h>
#include <time.h>

/* Reads that fail for want of an answer are told in the log once in so long. */
#define TELL_EVERY_US INT64_C(10000000)

struct fetch_wait {
    struct fetch_ticket *ticket;
    struct memory_entry *entry;
    struct fetch_wait *of_ticket; /* the next one */
    struct fetch_wait *of_entry;  /* while it is a claim */
};

struct fetch_failure {
    struct fetch_failure *next;
    struct memory_key key;
    int code;
};

static _Thread_local struct fetch_ticket *current;

int64_t fetch_now_us(void)
{
    struct timespec t;

    (void)clock_gettime(CLOCK_MONOTONIC, &t); /* cannot fail for this clock */
    return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

struct fetch_ticket *ticket_current(const struct fetch *f)
{
    return current && current->fetch == f ? current : NULL;
}

void fetch_ticket_init(struct fetch_ticket *t, struct fetch *f, fetch_ready_fn *ready)
{
    *t = (struct fetch_ticket){.fetch = f, .ready = ready};
}

/* ---- waits ---- */

int ticket_wait_for(struct fetch_ticket *t, struct memory_entry *e)
{
    for (struct fetch_wait *w = t->waits; w; w = w->of_ticket) {
        if (w->entry == e)
            return 0;
    }
    struct fetch_wait *w = malloc(sizeof *w);
    if (!w)
        return -ENOMEM;
    *w = (struct fetch_wait){.ticket = t, .entry = e, .of_ticket = t->waits};
    t->waits = w;
    if (e->loaded) {
        e->keeps++;
        return 0;
    }
    w->of_entry = e->waits;
    e->waits = w;
    t->pending++;
    return 0;
}

int ticket_failure(const struct fetch_ticket *t, const struct memory_key *key)
{
    for (const struct fetch_failure *x = t->failures; x; x = x->next) {
        if (memory_key_equal(&x->key, key))
            return x->code;
    }
    return 0;
}

static void remember_failure(struct fetch_ticket *t, const struct memory_key *key, int code)
{
    struct fetch_failure *x = malloc(sizeof *x);

    if (!x)
        return; /* it will be tried once more */
    *x = (struct fetch_failure){.next = t->failures, .key = *key, .code = code};
    t->failures = x;
}

static void leave_queue(struct fetch_ticket *t)
{
    struct fetch *f = t->fetch;

    if (!t->waiting)
        return;
    *(t->before ? &t->before->after : &f->waiting_first) = t->after;
    *(t->after ? &t->after->before : &f->waiting_last) = t->before;
    t->before = t->after = NULL;
    t->waiting = false;
    f->stats.waiting--;
    f->stats.stalls++;
    f->stats.stall_ns += (uint64_t)(fetch_now_us() - t->since_us) * 1000;
}

static void join_queue(struct fetch_ticket *t)
{
    struct fetch *f = t->fetch;

    t->since_us = fetch_now_us();
    t->before = f->waiting_last;
    t->after = NULL;
    *(f->waiting_last ? &f->waiting_last->after : &f->waiting_first) = t;
    f->waiting_last = t;
    t->waiting = true;
    f->stats.waiting++;
}

static void call_ready(struct fetch_ticket *t)
{
    leave_queue(t);
    t->ready(t);
}

/* Its entry is filled, or (code) will be given up: `w` then is no more. */
static void came(struct fetch_wait *w, int code)
{
    struct fetch_ticket *t = w->ticket;

    t->pending--;
    if (w->entry->loaded) {
        w->entry->keeps++;
    } else {
        struct fetch_wait **at = &t->waits;
        while (*at != w)
            at = &(*at)->of_ticket;
        *at = w->of_ticket;
        if (code < 0)
            remember_failure(t, &w->entry->key, code);
        free(w);
    }
    if (t->pending == 0 && t->waiting)
        call_ready(t);
}

void ticket_tell(struct fetch *f, struct memory_entry *e, int code)
{
    struct fetch_wait *w = e->waits;

    e->waits = NULL;
    while (w) {
        struct fetch_wait *next = w->of_entry;
        w->of_entry = NULL;
        came(w, code);
        w = next;
    }
}

/* `w` is off its ticket's list. */
static void wait_free(struct fetch_wait *w)
{
    struct memory_entry *e = w->entry;

    if (e->loaded) {
        e->keeps--;
    } else {
        struct fetch_wait **at = &e->waits;
        while (*at != w)
            at = &(*at)->of_entry;
        *at = w->of_entry;
        w->ticket->pending--;
    }
    free(w);
}

static void release(struct fetch_ticket *t)
{
    struct fetch_wait *w;
    struct fetch_failure *x;
    bool kept = t->waits != NULL;

    while ((w = t->waits)) {
        t->waits = w->of_ticket;
        wait_free(w);
    }
    while ((x = t->failures)) {
        t->failures = x->next;
        free(x);
    }
    t->number = 0;
    t->missed = t->expired = false;
    if (kept && t->fetch->demand.first)
        pool_wake(t->fetch); /* there may be room for them now */
}

bool ticket_strip(struct fetch *f)
{
    const struct fetch_ticket *oldest = f->waiting_first;
    bool freed = false;

    for (const struct fetch_ticket *t = f->waiting_first; t; t = t->after)
        oldest = t->number < oldest->number ? t : oldest;
    for (struct fetch_ticket *t = f->waiting_first; t; t = t->after) {
        for (struct fetch_wait **at = &t->waits, *w; t != oldest && (w = *at);) {
            if (!w->entry->loaded) {
                at = &w->of_ticket;
                continue;
            }
            *at = w->of_ticket;
            freed = true;
            wait_free(w);
        }
    }
    return freed;
}

/* ---- deadlines ---- */

static void tell_expired(struct fetch *f, int64_t now)
{
    if (f->told_us && now - f->told_us < TELL_EVERY_US)
        return;
    f->told_us = now;
    log_warning("%s: no answer for %" PRId64
                " s (the limit of --io-timeout): reads that wait for it fail",
                f->store->location, f->io_timeout_ms / 1000);
}

int64_t ticket_expire(struct fetch *f)
{
    int64_t now = fetch_now_us();

    if (f->io_timeout_ms == 0)
        return INT64_MAX;
    while (f->waiting_first) {
        struct fetch_ticket *t = f->waiting_first;
        int64_t end = t->since_us + f->io_timeout_ms * 1000;
        if (end > now)
            return end;
        t->expired = true;
        tell_expired(f, now);
        call_ready(t);
    }
    return INT64_MAX;
}

/* ---- the caller's side ---- */

void fetch_try_begin(struct fetch_ticket *t)
{
    t->missed = false;
    current = t;
}

bool fetch_try_end(struct fetch_ticket *t)
{
    current = NULL;
    if (t->missed)
        return true;
    if (t->number) {
        WITH_LOCK(&t->fetch->lock);
        release(t);
    }
    return false;
}

void fetch_ticket_park(struct fetch_ticket *t)
{
    struct fetch *f = t->fetch;
    WITH_LOCK(&f->lock);

    join_queue(t);
    if (t->pending == 0)
        call_ready(t);
    else
        pool_keep_time(f);
}

bool fetch_ticket_recall(struct fetch_ticket *t)
{
    WITH_LOCK(&t->fetch->lock);
    bool waiting = t->waiting;

    leave_queue(t);
    return waiting;
}

void fetch_ticket_release(struct fetch_ticket *t)
{
    WITH_LOCK(&t->fetch->lock);
    release(t);
}

/* ---- waiting ---- */

/* A ticket of somebody who waits. */
struct waiter {
    struct fetch_ticket ticket; /* first */
    pthread_cond_t came;
};

static void wake(struct fetch_ticket *t)
{
    struct waiter *w = (struct waiter *)t;

    (void)pthread_cond_signal(&w->came); /* a valid condition */
}

static void wait_for_it(struct waiter *w)
{
    struct fetch_ticket *t = &w->ticket;
    struct fetch *f = t->fetch;
    WITH_LOCK(&f->lock);

    join_queue(t);
    if (t->pending == 0)
        call_ready(t);
    else
        pool_keep_time(f);
    while (t->waiting)
        (void)pthread_cond_wait(&w->came, &f->lock); /* fails for no valid condition */
}

int fetch_waiting(struct fetch *f, int (*run)(struct fetch_ticket *t, void *ctx), void *ctx)
{
    struct waiter w;
    int r;

    fetch_ticket_init(&w.ticket, f, wake);
    if (pthread_cond_init(&w.came, NULL) != 0)
        return -ENOMEM;
    while ((r = run(&w.ticket, ctx)) == -EAGAIN)
        wait_for_it(&w); /* one that waited too long makes the next run fail */
    if (w.ticket.number)
        fetch_ticket_release(&w.ticket);
    (void)pthread_cond_destroy(&w.came); /* nobody waits */
    return r;
}
