/* SPDX-License-Identifier: Apache-2.0 */
/*
 * When a call may go out: how many at once, and after which delay again. All policy stands here.
 *
 * A call that finds a free place and credentials at hand is sent by its own thread; all others wait
 * in one list by due time, which the schedule's thread serves. SlowDown halves the number of calls
 * at once, successes let it grow by one per round. Delays have full jitter, so that many clients
 * that failed together do not come back together. The budget bounds how much a client adds to an
 * outage: when it is used up, each further retry waits the longest delay instead of failing.
 */
#include "s3/s3-internal.h"

#include <time.h>

#define DELAY_FIRST_MS      200
#define DELAY_SLOW_FIRST_MS 1000 /* after SlowDown */
#define DELAY_MAX_MS        20000
#define RETRY_AFTER_MAX_MS  60000 /* a server that asks for more is asked again anyway */
#define FEW_ATTEMPTS        4u    /* for S3_AGAIN_FEW */
#define BUDGET_MAX          200.0
#define BUDGET_PER_SECOND   5.0
#define CUT_EVERY_MS        1000 /* one answer to one overload: they come in flocks */
#define WAIT_MAX_MS         60000

static int64_t now_ms(struct s3 *s)
{
    return s->env->boot_ms(s->env);
}

/* By due time; those due at the same time in the order they came. Under the lock. */
static void insert(struct s3_schedule *q, struct s3_call *c)
{
    struct s3_call **at = &q->waiting;

    while (*at && (*at)->due_ms <= c->due_ms)
        at = &(*at)->next;
    c->next = *at;
    *at = c;
    pthread_cond_signal(&q->cond);
}

static void wait_until(struct s3_schedule *q, int64_t delay_ms)
{
    struct timespec t;

    if (delay_ms > WAIT_MAX_MS)
        delay_ms = WAIT_MAX_MS;
    (void)clock_gettime(CLOCK_MONOTONIC, &t); /* cannot fail for this clock */
    t.tv_sec += delay_ms / 1000;
    t.tv_nsec += delay_ms % 1000 * 1000000;
    if (t.tv_nsec >= 1000000000) {
        t.tv_sec++;
        t.tv_nsec -= 1000000000;
    }
    (void)pthread_cond_timedwait(&q->cond, &q->lock, &t); /* the caller looks again anyway */
}

static void refresh(struct s3 *s)
{
    struct s3_credential fresh;

    /* A failure shows in the first call that has none left. */
    (void)s3_credentials_get(s->credentials, &fresh, NULL);
    s3_credential_wipe(&fresh);
}

static void *serve(void *arg)
{
    struct s3 *s = arg;
    struct s3_schedule *q = &s->schedule;
    struct s3_call *c;

    pthread_mutex_lock(&q->lock);
    while (!q->stopping) {
        if (q->refresh_wanted) {
            q->refresh_wanted = false;
            pthread_mutex_unlock(&q->lock);
            refresh(s);
            pthread_mutex_lock(&q->lock);
            continue;
        }
        c = q->waiting;
        int64_t delay = c ? c->due_ms - now_ms(s) : WAIT_MAX_MS;
        bool full = q->in_flight >= (unsigned)q->limit;
        if (!c || full || delay > 0) {
            wait_until(q, full ? WAIT_MAX_MS : delay);
            continue;
        }
        q->waiting = c->next;
        q->in_flight++;
        pthread_mutex_unlock(&q->lock);
        if (c->attempts == 0)
            c->start_ms = now_ms(s); /* waiting for a place does not use up a call's time */
        s3_call_attempt(c);
        pthread_mutex_lock(&q->lock);
    }
    while ((c = q->waiting)) {
        q->waiting = c->next;
        pthread_mutex_unlock(&q->lock);
        s3_call_finish(c, -ECANCELED);
        pthread_mutex_lock(&q->lock);
    }
    pthread_mutex_unlock(&q->lock);
    return NULL;
}

int s3_schedule_init(struct s3 *s, unsigned connections)
{
    struct s3_schedule *q = &s->schedule;
    pthread_condattr_t attributes;

    q->limit_max = connections;
    q->limit = connections;
    q->budget = BUDGET_MAX;
    q->budget_ms = now_ms(s);
    (void)pthread_mutex_init(&q->lock, NULL);
    (void)pthread_condattr_init(&attributes);
    (void)pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    (void)pthread_cond_init(&q->cond, &attributes);
    (void)pthread_condattr_destroy(&attributes);
    int r = pthread_create(&q->thread, NULL, serve, s);
    q->running = r == 0;
    return -r;
}

void s3_schedule_stop(struct s3 *s)
{
    struct s3_schedule *q = &s->schedule;

    {
        WITH_LOCK(&q->lock);
        q->stopping = true;
        pthread_cond_signal(&q->cond);
    }
    if (q->running)
        (void)pthread_join(q->thread, NULL);
    q->running = false;
}

void s3_schedule_release(struct s3 *s)
{
    pthread_cond_destroy(&s->schedule.cond);
    pthread_mutex_destroy(&s->schedule.lock);
}

static bool can_sign_now(struct s3 *s)
{
    struct s3_credential c;
    bool stale;

    if (!s->credentials)
        return true;
    int r = s3_credentials_peek(s->credentials, &c, &stale);
    s3_credential_wipe(&c);
    return r != -EAGAIN;
}

void s3_schedule_start(struct s3_call *c)
{
    struct s3_schedule *q = &c->s3->schedule;
    bool ready = can_sign_now(c->s3);

    c->start_ms = c->due_ms = now_ms(c->s3);
    pthread_mutex_lock(&q->lock);
    bool stopping = q->stopping;
    bool overtakes = q->waiting && q->waiting->due_ms <= c->due_ms;
    bool at_once = ready && !stopping && !overtakes && q->in_flight < (unsigned)q->limit;
    if (at_once)
        q->in_flight++;
    else if (!stopping)
        insert(q, c);
    pthread_mutex_unlock(&q->lock);
    if (at_once)
        s3_call_attempt(c);
    else if (stopping)
        s3_call_finish(c, -ECANCELED);
}

void s3_schedule_ended(struct s3 *s, enum s3_verdict verdict, bool success)
{
    struct s3_schedule *q = &s->schedule;
    int64_t now = now_ms(s);

    WITH_LOCK(&q->lock);
    q->in_flight--;
    if (verdict == S3_SLOW_DOWN && now - q->last_cut_ms >= CUT_EVERY_MS) {
        q->limit = q->limit / 2 < 1 ? 1 : q->limit / 2;
        q->last_cut_ms = now;
    } else if (success && q->limit < q->limit_max) {
        q->limit += 1 / q->limit;
        if (q->limit > q->limit_max)
            q->limit = q->limit_max;
    }
    if (q->waiting)
        pthread_cond_signal(&q->cond);
}

static bool budget_allows(struct s3_schedule *q, int64_t now)
{
    q->budget += (double)(now - q->budget_ms) / 1000 * BUDGET_PER_SECOND;
    q->budget_ms = now;
    if (q->budget > BUDGET_MAX)
        q->budget = BUDGET_MAX;
    if (q->budget < 1)
        return false;
    q->budget -= 1;
    return true;
}

static int64_t next_delay_ms(struct s3_call *c, enum s3_verdict verdict)
{
    int64_t limit = verdict == S3_SLOW_DOWN ? DELAY_SLOW_FIRST_MS : DELAY_FIRST_MS;
    uint64_t random;

    for (unsigned i = 1; i < c->attempts && limit < DELAY_MAX_MS; i++)
        limit *= 2;
    if (limit > DELAY_MAX_MS)
        limit = DELAY_MAX_MS;
    c->s3->env->random(c->s3->env, &random, sizeof random);
    return (int64_t)(random % ((uint64_t)limit + 1));
}

static int64_t retry_after_ms(const struct s3_call *c)
{
    char text[16];
    uint64_t seconds;

    if (!http_response_header(&c->response, "retry-after", text, sizeof text) ||
        s3_parse_number(text, RETRY_AFTER_MAX_MS, &seconds) < 0)
        return 0;
    int64_t ms = (int64_t)seconds * S3_SECOND_MS;
    return ms < RETRY_AFTER_MAX_MS ? ms : RETRY_AFTER_MAX_MS;
}

bool s3_schedule_again(struct s3_call *c, enum s3_verdict verdict)
{
    struct s3_schedule *q = &c->s3->schedule;
    int64_t now = now_ms(c->s3), delay = next_delay_ms(c, verdict), asked = retry_after_ms(c);

    if ((verdict == S3_AGAIN_FEW && c->attempts >= FEW_ATTEMPTS) ||
        (c->attempts_max && c->attempts >= c->attempts_max))
        return false;
    if (delay < asked)
        delay = asked;
    WITH_LOCK(&q->lock);
    if (!budget_allows(q, now))
        delay = DELAY_MAX_MS;
    if (q->stopping || now - c->start_ms + delay >= c->s3->total_ms)
        return false;
    c->due_ms = now + delay;
    c->s3->retries++;
    insert(q, c);
    return true;
}

void s3_schedule_now(struct s3_call *c)
{
    struct s3_schedule *q = &c->s3->schedule;

    pthread_mutex_lock(&q->lock);
    bool stopping = q->stopping;
    c->due_ms = now_ms(c->s3);
    if (!stopping)
        insert(q, c);
    pthread_mutex_unlock(&q->lock);
    if (stopping)
        s3_call_finish(c, -ECANCELED);
}

void s3_schedule_refresh(struct s3 *s)
{
    WITH_LOCK(&s->schedule.lock);
    s->schedule.refresh_wanted = true;
    pthread_cond_signal(&s->schedule.cond);
}

void s3_schedule_hurry(struct s3 *s)
{
    struct s3_schedule *q = &s->schedule;
    struct s3_call *ended = NULL, *c;

    pthread_mutex_lock(&q->lock);
    for (struct s3_call **at = &q->waiting; (c = *at);) {
        if (!c->abandoned || !*c->abandoned) {
            at = &c->next;
            continue;
        }
        *at = c->next;
        c->next = ended;
        ended = c;
    }
    pthread_mutex_unlock(&q->lock);
    while ((c = ended)) {
        ended = c->next;
        s3_call_finish(c, -ECANCELED);
    }
}
