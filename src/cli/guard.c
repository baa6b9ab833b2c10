/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The thread that renews a server's lease. It looks every few seconds whether something is due: so
 * a machine that was suspended, whose timers stood still, notices at once.
 */
#include "cli/guard.h"

#include "attach/attach.h"
#include "base/log.h"

#include <inttypes.h>
#include <signal.h>
#include <string.h>
#include <time.h>

#define LOOK_MS 5000

struct guard {
    struct catalogue *c; /* borrowed */
    struct version_info info;
    char text[HOLD_TEXT_MAX];
    bool required;
    pid_t owner; /* in whose name */
    struct hold *hold;
    pthread_t thread;
    bool started;
    pthread_mutex_t lock; /* guards all below */
    pthread_cond_t changed;
    bool stop;
};

static void tell(struct guard *g)
{
    struct err why = ERR_INIT;
    enum hold_state s = hold_look(g->hold, &why);
    const char *word = s == HOLD_HELD ? "protected" : hold_state_name(s);
    int r = attach_protection_write(g->owner, word, s == HOLD_HELD ? "" : why.text);

    if (r < 0)
        log_warning("cannot note that %s:%" PRIu32 " is %s: %s", g->info.name, g->info.version,
                    word, strerror(-r));
}

static int begin(struct guard *g, pid_t owner, struct hold **ret, struct err *err)
{
    struct hold_process self;
    struct hold_options options = {.required = g->required, .text = g->text, .self = &self};

    hold_process_of(owner, &self);
    return hold_begin(g->c, g->info.name, g->info.version, &options, ret, err);
}

/* Our parent has died: a lease in its name is void. */
static void follow_owner(struct guard *g)
{
    struct hold *hold = NULL;
    struct err err = ERR_INIT;

    if (g->owner == getpid() || getppid() == g->owner)
        return;
    int r = begin(g, getpid(), &hold, &err);
    if (r < 0) {
        log_warning("%s:%" PRIu32 " is not protected any more: %s", g->info.name, g->info.version,
                    err_text(&err, r));
        return;
    }
    hold_end(g->hold);
    g->hold = hold;
    g->owner = getpid();
    tell(g);
}

/* False: it is over. */
static bool wait_until_due(struct guard *g, int64_t ms)
{
    struct timespec end;
    WITH_LOCK(&g->lock);

    if (ms > LOOK_MS)
        ms = LOOK_MS;
    (void)clock_gettime(CLOCK_MONOTONIC, &end); /* cannot fail */
    end.tv_sec += (time_t)(ms / 1000);
    end.tv_nsec += (long)(ms % 1000) * 1000000;
    if (end.tv_nsec >= 1000000000) {
        end.tv_nsec -= 1000000000;
        end.tv_sec++;
    }
    while (!g->stop && pthread_cond_timedwait(&g->changed, &g->lock, &end) == 0)
        continue;
    return !g->stop;
}

static void *guard_main(void *arg)
{
    struct guard *g = arg;
    enum hold_state last = HOLD_HELD;
    int64_t due;

    do {
        struct err why = ERR_INIT;
        follow_owner(g);
        due = hold_tick(g->hold);
        enum hold_state now = hold_look(g->hold, &why);
        if (now != last) {
            tell(g);
            if (now == HOLD_HELD)
                log_info("%s:%" PRIu32 " is protected again", g->info.name, g->info.version);
            else
                log_warning("%s:%" PRIu32 " is not protected any more: %s", g->info.name,
                            g->info.version, why.text);
        }
        last = now;
    } while (wait_until_due(g, due));
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

int guard_new(struct catalogue *c, const struct version_info *info, const char *text, bool required,
              pid_t owner, struct guard **ret, struct err *err)
{
    AUTO(guard_free) struct guard *g = calloc(1, sizeof *g);
    pthread_condattr_t attr;

    if (!g)
        return err_fail(err, -ENOMEM, "out of memory");
    g->c = c;
    g->info = *info;
    g->required = required;
    g->owner = owner;
    (void)snprintf(g->text, sizeof g->text, "%s", text); /* of the same size */
    pthread_mutex_init(&g->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&g->changed, &attr);
    pthread_condattr_destroy(&attr);
    int r = begin(g, g->owner, &g->hold, err);
    if (r < 0)
        return r;
    tell(g);
    if (hold_look(g->hold, NULL) != HOLD_UNPROTECTED) {
        r = start_thread(g);
        if (r < 0)
            return err_fail(err, r, "cannot start a thread");
    }
    *ret = take_ptr(&g);
    return 0;
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
    pthread_cond_destroy(&g->changed);
    pthread_mutex_destroy(&g->lock);
    free(g);
}
