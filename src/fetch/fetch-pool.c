/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Threads of a fetch, started when there is work for them: some that verify what came, start what
 * waited for room and read ahead; some that wait for stores which cannot call back; and one that
 * keeps time.
 */
#include "fetch/fetch-internal.h"

#include <signal.h>
#include <time.h>

/* Waiting costs nothing but the stack. */
#define BLOCKERS_MAX 16u
_Static_assert(POOL_WORKERS + POOL_WRITERS + BLOCKERS_MAX <= POOL_MAX,
               "they fit the table of threads");

/* ---- work ---- */

/* With the lock: what waits for room, if there is some. */
static struct get *take_startable(struct fetch *f)
{
    struct get *g = f->demand.first;

    if (!g || !get_may_start(g))
        return NULL;
    get_list_remove(&f->demand, g);
    return g;
}

/* With the lock: what came for somebody who waits. */
static struct get *take_wanted(struct fetch *f)
{
    struct get *g = f->ended.first;

    while (g && g->ahead)
        g = g->next;
    if (g)
        get_list_remove(&f->ended, g);
    return g;
}

/* With the lock, given up meanwhile. False: there is nothing to do. Beginning goes before verifying
 * what nobody waits for yet: else the store has nothing to do meanwhile. */
static bool work_once(struct fetch *f)
{
    struct get *ended = take_wanted(f);
    struct get *begun = ended ? NULL : take_startable(f);

    if (!ended && !begun) {
        if (f->ahead_work && ahead_step(f))
            return true;
        ended = get_list_take(&f->ended);
    }
    if (!ended && !begun)
        return false;
    pthread_mutex_unlock(&f->lock);
    if (ended)
        verify_get(ended);
    else
        get_start(begun);
    pthread_mutex_lock(&f->lock);
    return true;
}

static void *run_worker(void *arg)
{
    struct fetch *f = arg;

    pthread_mutex_lock(&f->lock);
    while (!f->stopping) {
        if (work_once(f))
            continue;
        f->idle_workers++;
        (void)pthread_cond_wait(&f->work, &f->lock); /* fails for no valid condition */
        f->idle_workers--;
    }
    pthread_mutex_unlock(&f->lock);
    return NULL;
}

static void *run_blocker(void *arg)
{
    struct fetch *f = arg;

    pthread_mutex_lock(&f->lock);
    while (!f->stopping) {
        struct get *g = get_list_take(&f->blocking);
        if (g) {
            pthread_mutex_unlock(&f->lock);
            get_read_blocking(g);
            pthread_mutex_lock(&f->lock);
            continue;
        }
        f->idle_blockers++;
        (void)pthread_cond_wait(&f->block, &f->lock); /* fails for no valid condition */
        f->idle_blockers--;
    }
    pthread_mutex_unlock(&f->lock);
    return NULL;
}

/* What was verified is kept, also when all ends: it is bounded, and would have to be read again. */
static void *run_writer(void *arg)
{
    struct fetch *f = arg;

    pthread_mutex_lock(&f->lock);
    for (;;) {
        if (disk_write_one(f))
            continue;
        if (f->stopping)
            break;
        f->idle_writers++;
        (void)pthread_cond_wait(&f->write, &f->lock); /* fails for no valid condition */
        f->idle_writers--;
    }
    pthread_mutex_unlock(&f->lock);
    return NULL;
}

/* ---- time ---- */

static void sleep_until(struct fetch *f, int64_t when_us)
{
    struct timespec t = {.tv_sec = when_us / 1000000, .tv_nsec = when_us % 1000000 * 1000};

    f->timer_us = when_us;
    if (when_us == INT64_MAX)
        (void)pthread_cond_wait(&f->timer, &f->lock); /* fails for no valid condition */
    else
        (void)pthread_cond_timedwait(&f->timer, &f->lock, &t); /* it looks again anyway */
    f->timer_us = 0;
}

static void *run_keeper(void *arg)
{
    struct fetch *f = arg;

    pthread_mutex_lock(&f->lock);
    while (!f->stopping) {
        int64_t expire = ticket_expire(f), due = gets_due(f), ahead = ahead_due(f);
        due = expire < due ? expire : due;
        sleep_until(f, ahead < due ? ahead : due);
    }
    pthread_mutex_unlock(&f->lock);
    return NULL;
}

/* ---- starting and stopping ---- */

/* Signals are for the threads of the program. */
static bool start(struct fetch *f, pthread_t *thread, void *(*fn)(void *))
{
    sigset_t all, old;

    (void)sigfillset(&all); /* valid arguments, all of them */
    (void)pthread_sigmask(SIG_SETMASK, &all, &old);
    bool started = pthread_create(thread, NULL, fn, f) == 0;
    (void)pthread_sigmask(SIG_SETMASK, &old, NULL);
    return started;
}

static void add_thread(struct fetch *f, unsigned *count, unsigned max, void *(*fn)(void *))
{
    if (*count < max && !f->stopping && start(f, &f->threads[f->thread_count], fn)) {
        f->thread_count++;
        (*count)++;
    }
}

void pool_wake(struct fetch *f)
{
    size_t todo = f->ended.count + (f->demand.first != NULL) + f->ahead_work;

    if (todo > f->idle_workers)
        add_thread(f, &f->workers, POOL_WORKERS, run_worker);
    if (todo > 0)
        (void)pthread_cond_signal(&f->work); /* a valid condition */
    if (f->blocking.count > f->idle_blockers)
        add_thread(f, &f->blockers, BLOCKERS_MAX, run_blocker);
    if (f->blocking.first)
        (void)pthread_cond_signal(&f->block); /* the same */
    if (f->writes && f->idle_writers == 0)
        add_thread(f, &f->writers, POOL_WRITERS, run_writer);
    if (f->writes)
        (void)pthread_cond_signal(&f->write); /* the same */
}

void pool_keep_time(struct fetch *f)
{
    if (f->stopping)
        return;
    if (!f->keeper_runs)
        f->keeper_runs = start(f, &f->keeper, run_keeper);
    else if (f->timer_us > fetch_now_us() + AGAIN_MIN_US)
        (void)pthread_cond_signal(&f->timer); /* a valid condition; it may have to look earlier */
}

void pool_stop(struct fetch *f)
{
    {
        WITH_LOCK(&f->lock);
        f->stopping = true;
        (void)pthread_cond_broadcast(&f->work); /* valid conditions, all of them */
        (void)pthread_cond_broadcast(&f->block);
        (void)pthread_cond_broadcast(&f->write);
        (void)pthread_cond_signal(&f->timer);
    }
    for (unsigned i = 0; i < f->thread_count; i++)
        (void)pthread_join(f->threads[i], NULL); /* joinable, all of them */
    if (f->keeper_runs)
        (void)pthread_join(f->keeper, NULL);
}
