/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The scheduler: coroutines, simulated time, and one run from its seed.
 */
#include "sim.h"

#include <inttypes.h>
#include <stdio.h>

#if defined(__SANITIZE_ADDRESS__)
#define SIM_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SIM_ASAN 1
#endif
#endif
#ifdef SIM_ASAN
#include <sanitizer/common_interface_defs.h>
#endif

#define STACK_SIZE (256u << 10)

const char *const sim_names[SIM_NAMES] = {"cats", "dogs"};

/* ---- chance ---- */

uint64_t rng_next(struct rng *r) /* splitmix64 */
{
    uint64_t z = r->state += UINT64_C(0x9e3779b97f4a7c15);

    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

uint64_t rng_below(struct rng *r, uint64_t n)
{
    return rng_next(r) % n;
}

bool rng_chance(struct rng *r, unsigned per_mille)
{
    return rng_below(r, 1000) < per_mille;
}

/* ---- words ---- */

void sim_violation(struct sim *sim, const char *format, ...)
{
    if (sim->violation[0])
        return;
    va_list args;
    va_start(args, format);
    (void)vsnprintf(sim->violation, sizeof sim->violation, format, args);
    va_end(args);
    sim_log(sim, "VIOLATION: %s", sim->violation);
}

void sim_log(struct sim *sim, const char *format, ...)
{
    if (!sim->verbose)
        return;
    (void)printf("%6" PRIu64 " ", sim->steps);
    va_list args;
    va_start(args, format);
    (void)vprintf(format, args);
    va_end(args);
    (void)printf("\n");
}

bool sim_exists(struct sim *sim, const char *key)
{
    uint8_t byte;
    size_t got;

    return store_get(sim->raw, key, 0, &byte, 1, &got, NULL) == 0;
}

/* ---- the world of one actor ---- */

static int64_t sim_ms(struct env *env)
{
    return ((struct actor *)env->ctx)->sim->now_ms;
}

static void sim_random(struct env *env, void *data, size_t size)
{
    struct actor *a = env->ctx;
    uint8_t *p = data;

    for (size_t i = 0; i < size; i++)
        p[i] = (uint8_t)rng_next(&a->rng);
}

static void sim_sleep(struct env *env, int64_t ms)
{
    struct actor *a = env->ctx;

    if (a->dead)
        return;
    a->wake_ms = a->sim->now_ms + ms;
    sim_yield(a);
}

/* ---- coroutines ---- */

static void switch_to_main(struct actor *a)
{
    struct sim *sim = a->sim;

#ifdef SIM_ASAN
    __sanitizer_start_switch_fiber(a->done ? NULL : &a->fake_stack, sim->main_stack_bottom,
                                   sim->main_stack_size);
#endif
    (void)swapcontext(&a->context, &sim->main_context); /* fails on a bad stack only */
#ifdef SIM_ASAN
    __sanitizer_finish_switch_fiber(a->fake_stack, &sim->main_stack_bottom, &sim->main_stack_size);
#endif
}

void sim_yield(struct actor *a)
{
    if (!a->dead)
        switch_to_main(a);
}

static struct actor *starting; /* makecontext() passes no pointers */

static void actor_entry(void)
{
    struct actor *a = starting;

#ifdef SIM_ASAN
    __sanitizer_finish_switch_fiber(NULL, &a->sim->main_stack_bottom, &a->sim->main_stack_size);
#endif
    a->fn(a);
    a->done = true;
    switch_to_main(a);
}

static void resume_actor(struct sim *sim, struct actor *a)
{
    sim->running = a;
    starting = a;
#ifdef SIM_ASAN
    __sanitizer_start_switch_fiber(&sim->main_fake_stack, a->stack, STACK_SIZE);
#endif
    (void)swapcontext(&sim->main_context, &a->context);
#ifdef SIM_ASAN
    __sanitizer_finish_switch_fiber(sim->main_fake_stack, NULL, NULL);
#endif
    sim->running = NULL;
}

static const struct store_retry_policy retry_policy = {
    .attempts = 3, .first_delay_ms = 10, .max_delay_ms = 100, .deadline_ms = 10000};

static int add_actor(struct sim *sim, const char *role, actor_fn *fn)
{
    static void *stacks[SIM_ACTORS_MAX]; /* kept from run to run */
    struct actor *a = &sim->actors[sim->actor_count];

    *a = (struct actor){.sim = sim, .number = sim->actor_count, .role = role, .fn = fn};
    if (!stacks[a->number])
        stacks[a->number] = malloc(STACK_SIZE);
    a->stack = stacks[a->number];
    if (!a->stack || getcontext(&a->context) < 0)
        return -ENOMEM;
    a->wire.ops = &sim_store_ops;
    a->wire.location = (char *)"sim:";
    a->store = &a->wire;
    a->env = (struct env){.wall_ms = sim_ms,
                          .boot_ms = sim_ms,
                          .random = sim_random,
                          .sleep_ms = sim_sleep,
                          .ctx = a};
    a->rng.state = rng_next(&sim->rng);
    if (sim->retry && store_retry_new(&a->wire, &retry_policy, &a->env, &a->store) < 0)
        return -ENOMEM;
    a->context.uc_stack.ss_sp = a->stack;
    a->context.uc_stack.ss_size = STACK_SIZE;
    a->context.uc_link = NULL;
    makecontext(&a->context, actor_entry, 0);
    sim->actor_count++;
    return 0;
}

/* ---- the run ---- */

/* Somebody who is awake; time goes on if nobody is. NULL: all are done. */
static struct actor *choose(struct sim *sim)
{
    for (;;) {
        struct actor *awake[SIM_ACTORS_MAX];
        int64_t next = INT64_MAX;
        unsigned count = 0;
        for (int i = 0; i < sim->actor_count; i++) {
            struct actor *a = &sim->actors[i];
            if (a->done)
                continue;
            if (a->dead || a->wake_ms <= sim->now_ms)
                awake[count++] = a;
            else if (a->wake_ms < next)
                next = a->wake_ms;
        }
        if (count)
            return awake[rng_below(&sim->rng, count)];
        if (next == INT64_MAX)
            return NULL;
        sim->now_ms = next;
    }
}

static void run_all(struct sim *sim)
{
    for (struct actor *a; (a = choose(sim));) {
        if (++sim->steps > SIM_STEPS_MAX) {
            sim_violation(sim, "the run does not end");
            for (int i = 0; i < sim->actor_count; i++)
                sim->actors[i].dead = true; /* so that all unwind */
        }
        sim->now_ms += (int64_t)rng_below(&sim->rng, 100);
        if (rng_chance(&sim->rng, 2))
            sim->now_ms += CATALOGUE_HEARTBEAT_MS;
        if (sim->flights.count && rng_chance(&sim->rng, 150))
            sim_land(sim);
        if (!a->dead && rng_chance(&sim->rng, sim->death_per_mille)) {
            a->dead = true;
            sim->stats.deaths++;
            sim_log(sim, "%s %d dies", a->role, a->number);
        }
        /* Anybody may stall anywhere, for longer than any lease. */
        if (sim->watch && rng_chance(&sim->rng, sim->storm ? 20 : 3)) {
            a->wake_ms = sim->now_ms + (int64_t)rng_below(&sim->rng, sim->storm ? 8000 : 40000);
            continue;
        }
        resume_actor(sim, a);
    }
    while (sim->flights.count) /* the last answers of the world come in */
        sim_land(sim);
}

static int cast(struct sim *sim)
{
    int creators = 1 + (int)rng_below(&sim->rng, 3);
    int resumers = (int)rng_below(&sim->rng, 3);
    int r = 0;

    for (int i = 0; r == 0 && i < creators; i++)
        r = add_actor(sim, "creator", creator_main);
    for (int i = 0; r == 0 && i < resumers; i++)
        r = add_actor(sim, "resumer", resumer_main);
    if (r == 0 && rng_chance(&sim->rng, 600))
        r = add_actor(sim, "expirer", expirer_main);
    if (r == 0 && rng_chance(&sim->rng, 600))
        r = add_actor(sim, "lister", lister_main);
    return r;
}

static int cast_holders(struct sim *sim)
{
    static const struct {
        const char *role;
        actor_fn *fn;
        unsigned max;
    } roles[] = {{"creator", creator_main, 3},
                 {"holder", holder_main, 2},
                 {"deleter", deleter_main, 2},
                 {"collector", collector_main, 2}};
    int r = 0;

    for (size_t i = 0; r == 0 && i < sizeof roles / sizeof *roles; i++) {
        uint64_t count = (i == 0) + rng_below(&sim->rng, roles[i].max + (i > 0));
        if (sim->storm)
            count = i == 1 ? 0 : roles[i].max;
        for (uint64_t k = 0; r == 0 && k < count && sim->actor_count < SIM_ACTORS_MAX; k++)
            r = add_actor(sim, roles[i].role, roles[i].fn);
    }
    if (r == 0 && sim->actor_count < SIM_ACTORS_MAX && rng_chance(&sim->rng, 300))
        r = add_actor(sim, "expirer", expirer_main);
    return r;
}

bool sim_run(uint64_t seed, enum sim_plan plan, bool verbose, struct sim_stats *stats, char *text,
             size_t size)
{
    static const unsigned fault_rates[] = {0, 20, 60, 150, 300};
    static const unsigned death_rates[] = {0, 0, 5, 20};
    struct sim *sim = calloc(1, sizeof *sim);

    if (!sim || store_memory_new(&sim->raw) < 0)
        abort();
    sim->seed = seed;
    sim->plan = plan;
    if (plan == SIM_PLAN_HOLD)
        sim->watch = watch_new();
    sim->rng.state = seed;
    sim->now_ms = INT64_C(1700000000000);
    sim->verbose = verbose;
    sim->stats = *stats;
    sim->fault_per_mille = fault_rates[rng_below(&sim->rng, 5)];
    sim->death_per_mille = death_rates[rng_below(&sim->rng, 4)];
    sim->retry = rng_chance(&sim->rng, 500);
    sim->page_rows = 1 + (unsigned)rng_below(&sim->rng, 6);
    sim->storm = plan == SIM_PLAN_HOLD && rng_chance(&sim->rng, 50);
    if (sim->storm)
        sim->fault_per_mille = sim->death_per_mille = 0;
    if ((plan == SIM_PLAN_HOLD ? cast_holders(sim) : cast(sim)) < 0)
        abort();
    run_all(sim);
    sim_check(sim);
    if (sim->watch)
        watch_end(sim);

    bool good = sim->violation[0] == '\0';
    (void)snprintf(text, size, "%s", sim->violation);
    *stats = sim->stats;
    for (int i = 0; i < sim->actor_count; i++)
        store_close(sim->actors[i].store);
    store_close(sim->raw);
    vec_release(&sim->flights);
    vec_release(&sim->attempts);
    vec_release(&sim->reports);
    vec_release(&sim->sessions);
    vec_release(&sim->deletions);
    watch_free(sim->watch);
    free(sim);
    return good;
}
