/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Puts that overlap for certain: does a server keep If-None-Match when it matters?
 *
 * A server that looks first and writes then passes every test of one put after another. So all
 * requests are sent up to their last byte and held there; when all have come that far, or no more
 * will, the last bytes go out. Says what happened; what it means is for the caller.
 */
#include "s3/s3-internal.h"

#include <time.h>

/* How long to wait for the slowest to arrive. The others' server must bear with it. */
#define ARRIVE_MAX_MS 5000
#define LOOK_EVERY_MS 2

struct overlap {
    struct http_gate gate;
    pthread_mutex_t lock;
    pthread_cond_t cond;
    unsigned ended; /* under lock */
};

struct overlap_call {
    struct overlap *all;
    struct s3_call *call;
    int result;
};

static void on_put(void *ctx, struct s3_call *c, int result)
{
    struct overlap_call *o = ctx;

    WITH_LOCK(&o->all->lock);
    o->result = result;
    o->all->ended++;
    pthread_cond_signal(&o->all->cond);
}

static unsigned ended(struct overlap *all)
{
    WITH_LOCK(&all->lock);
    return all->ended;
}

static void wait_for_all(struct overlap *all, struct s3 *s, unsigned count)
{
    int64_t start = s->env->boot_ms(s->env);

    while (all->gate.arrived + ended(all) < count &&
           s->env->boot_ms(s->env) - start < ARRIVE_MAX_MS) {
        struct timespec t = {.tv_nsec = LOOK_EVERY_MS * 1000000L};
        (void)nanosleep(&t, NULL); /* the loop looks again anyway */
    }
    http_gate_open(s->http, &all->gate);
    WITH_LOCK(&all->lock);
    while (all->ended < count)
        pthread_cond_wait(&all->cond, &all->lock);
}

int s3_put_overlapped(struct s3 *s, const char *bucket, const char *key, const struct bytes *bodies,
                      unsigned count, int *ret_results, struct err *err)
{
    struct overlap all = {.lock = PTHREAD_MUTEX_INITIALIZER, .cond = PTHREAD_COND_INITIALIZER};
    struct overlap_call calls[S3_OVERLAP_MAX] = {0};
    int r = count > S3_OVERLAP_MAX ? -EINVAL : 0;

    for (unsigned i = 0; i < count && r == 0; i++) {
        calls[i].all = &all;
        r = s3_put_call(s, bucket, key, bodies[i], true, &calls[i].call);
        if (r == 0) {
            calls[i].call->attempts_max = 1;
            calls[i].call->gate = &all.gate;
        }
    }
    for (unsigned i = 0; i < count && r == 0; i++)
        s3_call_start(calls[i].call, on_put, &calls[i]);
    if (r == 0)
        wait_for_all(&all, s, count);
    for (unsigned i = 0; i < count && i < S3_OVERLAP_MAX; i++) {
        if (r == 0)
            ret_results[i] = calls[i].result;
        if (r == 0 && calls[i].result < 0 && calls[i].result != -EEXIST && err && !err->text[0])
            (void)err_fail(err, calls[i].result, "%s", calls[i].call->err.text);
        s3_call_free(calls[i].call);
    }
    return r < 0 ? err_fail(err, r, "cannot try s3://%s/%s: %s", bucket, key, strerror(-r)) : 0;
}
