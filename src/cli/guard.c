/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The jobs of a server and the thread that renews their lease. It looks every few seconds whether
 * something is due: so a machine that was suspended, whose timers stood still, notices at once.
 *
 * The lease is there as long as there are jobs: nobody has to wait to delete what only lies warm.
 * Jobs that come or go while a lease is being written are in the next one.
 */
#include "cli/guard.h"

#include "attach/attach.h"
#include "base/digest.h"
#include "base/log.h"
#include "base/vec.h"

#include <inttypes.h>
#include <signal.h>
#include <string.h>
#include <time.h>

#define LOOK_MS 5000
/* A lease that is in doubt is asked for anew this often before a job is refused. */
#define DOUBT_TRIES 3

struct guarded {
    uint64_t id; /* ours: it stays when the lease is another one */
    uint64_t held;
    pid_t pid;
    char *text; /* owned */
};

struct guard {
    struct catalogue *c; /* borrowed */
    struct version_info info;
    pthread_t thread;
    bool started;
    pthread_mutex_t lock; /* guards all below */
    pthread_cond_t changed;
    pid_t owner;       /* in whose name */
    struct hold *hold; /* NULL: there are no jobs */
    bool busy;         /* the thread uses it */
    bool stop;
    uint64_t last_id;
    VEC(struct guarded) jobs;
};

/* Under the lock. */
static void tell(struct guard *g)
{
    struct err why = ERR_INIT;
    enum hold_state s = g->hold ? hold_look(g->hold, &why) : HOLD_HELD;
    const char *word = s == HOLD_HELD ? "protected" : hold_state_name(s);
    int r = attach_protection_write(g->owner, word, s == HOLD_HELD ? "" : why.text);

    if (r < 0)
        log_warning("cannot note that %s:%" PRIu32 " is %s: %s", g->info.name, g->info.version,
                    word, strerror(-r));
}

/* All leases of one owner begin alike. */
static void family_of(const struct hold_process *p, uint8_t ret[static HOLD_FAMILY_SIZE])
{
    char text[sizeof p->boot_id + 64];
    int n =
        snprintf(text, sizeof text, "%s %" PRId64 " %" PRIu64, p->boot_id, p->pid, p->pid_start);
    struct digest d = digest_of(text, (size_t)n);

    memcpy(ret, d.byte, HOLD_FAMILY_SIZE);
}

/* Under the lock: hold for all jobs, of which there is one at least. */
static int begin(struct guard *g, bool required, struct hold **ret, struct err *err)
{
    const struct guarded *first = &g->jobs.at[0];
    uint8_t family[HOLD_FAMILY_SIZE];
    struct hold_process self;
    struct hold_options options = {
        .required = required, .text = first->text, .text_pid = first->pid, .self = &self};

    hold_process_of(g->owner, &self);
    family_of(&self, family);
    options.family = family;
    int r = hold_begin(g->c, g->info.name, g->info.version, &options, ret, err);
    if (r < 0)
        return r;
    g->jobs.at[0].held = HOLD_FIRST_JOB;
    for (size_t i = 1; i < g->jobs.count; i++) {
        struct hold_job job = {.text = g->jobs.at[i].text, .pid = g->jobs.at[i].pid};
        (void)hold_join(*ret, &job, &g->jobs.at[i].held); /* it is held all the same */
    }
    return 0;
}

/* Our parent has died: a lease in its name is void. Under the lock. */
static void follow_owner(struct guard *g)
{
    struct hold *hold = NULL;
    struct err err = ERR_INIT;
    pid_t before = g->owner;

    if (g->owner == getpid() || getppid() == g->owner)
        return;
    g->owner = getpid();
    int r = begin(g, false, &hold, &err);
    if (r < 0) {
        g->owner = before; /* the next look tries again */
        log_warning("%s:%" PRIu32 " is not protected any more: %s", g->info.name, g->info.version,
                    err_text(&err, r));
        return;
    }
    hold_end(g->hold);
    g->hold = hold;
    tell(g);
}

/* Under the lock. */
static void wait_until_due(struct guard *g, int64_t ms)
{
    struct timespec end;

    if (ms > LOOK_MS)
        ms = LOOK_MS;
    (void)clock_gettime(CLOCK_MONOTONIC, &end); /* cannot fail */
    end.tv_sec += (time_t)(ms / 1000);
    end.tv_nsec += (long)(ms % 1000) * 1000000;
    if (end.tv_nsec >= 1000000000) {
        end.tv_nsec -= 1000000000;
        end.tv_sec++;
    }
    (void)pthread_cond_timedwait(&g->changed, &g->lock, &end); /* too early does no harm */
}

static void log_state(struct guard *g, enum hold_state now)
{
    struct err why = ERR_INIT;

    (void)hold_look(g->hold, &why);
    if (now == HOLD_HELD)
        log_info("%s:%" PRIu32 " is protected again", g->info.name, g->info.version);
    else
        log_warning("%s:%" PRIu32 " is not protected any more: %s", g->info.name, g->info.version,
                    why.text);
}

static void *guard_main(void *arg)
{
    struct guard *g = arg;
    enum hold_state last = HOLD_HELD;
    struct hold *of = NULL; /* `last` is its state */
    WITH_LOCK(&g->lock);

    while (!g->stop) {
        if (!g->hold) {
            (void)pthread_cond_wait(&g->changed, &g->lock); /* cannot fail */
            continue;
        }
        follow_owner(g);
        struct hold *hold = g->hold;
        if (hold != of)
            last = hold_look(hold, NULL);
        of = hold;
        g->busy = true;
        pthread_mutex_unlock(&g->lock);
        int64_t due = hold_tick(hold);
        enum hold_state now = hold_look(hold, NULL);
        pthread_mutex_lock(&g->lock);
        g->busy = false;
        pthread_cond_broadcast(&g->changed);
        if (g->hold != hold)
            continue; /* it was the last job's, who waits for us */
        if (now != last) {
            tell(g);
            log_state(g, now);
        }
        last = now;
        if (!g->stop)
            wait_until_due(g, due);
    }
    return NULL;
}

/* Signals are for the other threads. */
static int start_thread(struct guard *g)
{
    sigset_t all, old;

    (void)sigfillset(&all); /* valid arguments, all of them */
    (void)pthread_sigmask(SIG_BLOCK, &all, &old);
    int r = -pthread_create(&g->thread, NULL, guard_main, g);
    (void)pthread_sigmask(SIG_SETMASK, &old, NULL);
    g->started = r == 0;
    return r;
}

int guard_new(struct catalogue *c, const struct version_info *info, pid_t owner, struct guard **ret,
              struct err *err)
{
    AUTO(guard_free) struct guard *g = calloc(1, sizeof *g);
    pthread_condattr_t attr;

    if (!g)
        return err_fail(err, -ENOMEM, "out of memory");
    g->c = c;
    g->info = *info;
    g->owner = owner;
    pthread_mutex_init(&g->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&g->changed, &attr);
    pthread_condattr_destroy(&attr);
    int r = start_thread(g);
    if (r < 0)
        return err_fail(err, r, "cannot start a thread");
    *ret = take_ptr(&g);
    return 0;
}

/* ---- jobs ---- */

static void forget(struct guard *g, size_t i)
{
    free(g->jobs.at[i].text);
    g->jobs.count--;
    memmove(g->jobs.at + i, g->jobs.at + i + 1, (g->jobs.count - i) * sizeof *g->jobs.at);
}

/* Under the lock, which is left while a lease in doubt is asked for. */
static int join_held(struct guard *g, struct guarded *job, bool required, struct err *err)
{
    struct hold_job named = {.text = job->text, .pid = job->pid};
    struct err why = ERR_INIT;
    enum hold_state state = hold_look(g->hold, &why);
    int r;

    if (state == HOLD_UNPROTECTED && required)
        return err_fail(err, -EACCES, "%s", why.text);
    for (int i = 0; (r = hold_join(g->hold, &named, &job->held)) == -EAGAIN; i++) {
        if (i == DOUBT_TRIES)
            break;
        (void)hold_tick(g->hold);
    }
    if (r < 0) {
        (void)hold_look(g->hold, &why);
        return err_fail(err, r, "%s", why.text[0] ? why.text : strerror(-r));
    }
    pthread_cond_broadcast(&g->changed); /* it is to be named */
    return 0;
}

int guard_join(struct guard *g, const char *text, pid_t pid, bool required, uint64_t *ret_id,
               struct err *err)
{
    AUTO(free_ptr) char *copy = strdup(text);
    WITH_LOCK(&g->lock);
    struct guarded job = {.id = ++g->last_id, .pid = pid, .text = copy};

    if (!copy || vec_push(&g->jobs, job) < 0)
        return err_fail(err, -ENOMEM, "out of memory");
    (void)take_ptr(&copy); /* the list's */
    int r = 0;
    if (g->hold) {
        r = join_held(g, &g->jobs.at[g->jobs.count - 1], required, err);
    } else {
        r = begin(g, required, &g->hold, err);
        if (r == 0) {
            tell(g);
            pthread_cond_broadcast(&g->changed);
        }
    }
    if (r < 0) {
        forget(g, g->jobs.count - 1);
        return r;
    }
    *ret_id = job.id;
    return 0;
}

bool guard_take(struct guard *g, uint64_t id, const char *text, pid_t pid)
{
    WITH_LOCK(&g->lock);
    enum hold_state state = g->hold ? hold_look(g->hold, NULL) : HOLD_LOST;

    if (state == HOLD_DOUBTFUL || state == HOLD_LOST)
        return false; /* joining asks again */
    for (size_t i = 0; i < g->jobs.count; i++) {
        struct guarded *job = &g->jobs.at[i];
        if (job->id == id && strcmp(job->text, text) == 0) {
            job->pid = pid;
            return true;
        }
    }
    return false;
}

/* Under the lock, which is left while the thread finishes. */
static struct hold *take_hold(struct guard *g)
{
    struct hold *hold = take_ptr(&g->hold);

    while (g->busy)
        (void)pthread_cond_wait(&g->changed, &g->lock); /* cannot fail */
    return hold;
}

void guard_leave(struct guard *g, uint64_t id)
{
    struct hold *hold = NULL;

    {
        WITH_LOCK(&g->lock);
        for (size_t i = 0; i < g->jobs.count; i++) {
            if (g->jobs.at[i].id != id)
                continue;
            if (g->hold)
                hold_leave(g->hold, g->jobs.at[i].held);
            forget(g, i);
            break;
        }
        if (g->jobs.count == 0)
            hold = take_hold(g);
        else
            pthread_cond_broadcast(&g->changed);
    }
    hold_end(hold);
}

void guard_settle(struct guard *g)
{
    uint8_t family[HOLD_FAMILY_SIZE];
    struct hold_process self;
    WITH_LOCK(&g->lock);

    hold_process_of(g->owner, &self);
    family_of(&self, family);
    hold_sweep(g->c, g->info.name, g->info.version, family, g->hold);
}

bool guard_is_unprotected(struct guard *g, struct err *ret_why)
{
    WITH_LOCK(&g->lock);

    return g->hold && hold_look(g->hold, ret_why) == HOLD_UNPROTECTED;
}

void guard_free(struct guard *g)
{
    if (!g)
        return;
    {
        WITH_LOCK(&g->lock);
        g->stop = true;
        pthread_cond_broadcast(&g->changed);
    }
    if (g->started)
        (void)pthread_join(g->thread, NULL); /* ours, joinable: cannot fail */
    hold_end(g->hold);
    while (g->jobs.count)
        forget(g, g->jobs.count - 1);
    vec_release(&g->jobs);
    pthread_cond_destroy(&g->changed);
    pthread_mutex_destroy(&g->lock);
    free(g);
}
