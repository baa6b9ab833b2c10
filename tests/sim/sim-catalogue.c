/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Runs the simulation over many seeds.
 *
 *   sim-catalogue [--seeds A..B]       run them all; the first violation ends it
 *   sim-catalogue --replay SEED [-v]   one of them; -v prints every step
 *   --hold                             holders, deleters and collectors too
 *   --expect-violation                 succeed if there is one: the program has a rule taken out
 */
#include "sim.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DEFAULT_SEEDS      10000u
#define DEFAULT_HOLD_SEEDS 5000u /* each takes twice as long */

struct options {
    uint64_t first, last;
    bool verbose, expect_violation;
    enum sim_plan plan;
};

static bool parse_options(int argc, char **argv, struct options *ret)
{
    struct options o = {.first = 1, .last = DEFAULT_SEEDS};
    bool given = false;

    for (int i = 1; i < argc; i++) {
        int end = 0;
        if (strcmp(argv[i], "-v") == 0)
            o.verbose = true;
        else if (strcmp(argv[i], "--hold") == 0)
            o.plan = SIM_PLAN_HOLD;
        else if (strcmp(argv[i], "--expect-violation") == 0)
            o.expect_violation = true;
        else if (strcmp(argv[i], "--seeds") == 0 && i + 1 < argc &&
                 sscanf(argv[i + 1], "%" SCNu64 "..%" SCNu64 "%n", &o.first, &o.last, &end) == 2 &&
                 argv[i + 1][end] == '\0')
            given = true, i++;
        else if (strcmp(argv[i], "--replay") == 0 && i + 1 < argc &&
                 sscanf(argv[i + 1], "%" SCNu64 "%n", &o.first, &end) == 1 &&
                 argv[i + 1][end] == '\0')
            o.last = o.first, given = true, i++;
        else
            return false;
    }
    if (!given && o.plan == SIM_PLAN_HOLD)
        o.last = DEFAULT_HOLD_SEEDS;
    *ret = o;
    return true;
}

/* A run of all seeds in which something never happened has tested nothing of it. */
static bool is_empty(const struct sim_stats *s, enum sim_plan plan)
{
    if (plan == SIM_PLAN_HOLD)
        return !s->commits || !s->deaths || !s->lost || !s->late || !s->never || !s->reused ||
               !s->held || !s->refused || !s->deleted || !s->lost_leases || !s->rounds ||
               !s->removed || !s->waits;
    return !s->commits || !s->aborts || !s->others || !s->deaths || !s->lost || !s->late ||
           !s->never || !s->resumes || !s->resolves;
}

int main(int argc, char **argv)
{
    struct sim_stats s = {0};
    struct options o;
    char violation[512];

    if (!parse_options(argc, argv, &o)) {
        (void)fprintf(
            stderr, "usage: %s [--hold] [--seeds A..B | --replay SEED] [-v] [--expect-violation]\n",
            argv[0]);
        return 2;
    }
    for (uint64_t seed = o.first; seed <= o.last; seed++) {
        if (sim_run(seed, o.plan, o.verbose, &s, violation, sizeof violation))
            continue;
        (void)printf("seed %" PRIu64 ": %s\n", seed, violation);
        if (!o.expect_violation)
            (void)printf("see it happen: %s%s --replay %" PRIu64 " -v\n", argv[0],
                         o.plan == SIM_PLAN_HOLD ? " --hold" : "", seed);
        return o.expect_violation ? 0 : 1;
    }
    (void)printf("%" PRIu64 " seeds: %" PRIu64 " commits, %" PRIu64 " found aborted, %" PRIu64
                 " committed by another, %" PRIu64 " unknown; %" PRIu64 " resumed, %" PRIu64
                 " resolved; %" PRIu64 " faults, %" PRIu64 " late, %" PRIu64
                 " never landed, %" PRIu64 " deaths\n",
                 o.last - o.first + 1, s.commits, s.aborts, s.others, s.unknown, s.resumes,
                 s.resolves, s.lost, s.late, s.never, s.deaths);
    if (o.plan == SIM_PLAN_HOLD)
        (void)printf("%" PRIu64 " packs named again, %" PRIu64 " held, %" PRIu64
                     " leases lost; %" PRIu64 " deleted, %" PRIu64 " refused; %" PRIu64
                     " rounds ended, %" PRIu64 " waited, %" PRIu64 " objects removed\n",
                     s.reused, s.held, s.lost_leases, s.deleted, s.refused, s.rounds, s.waits,
                     s.removed);
    if (o.expect_violation) {
        (void)printf("no violation: the rule that was taken out is not tested\n");
        return 1;
    }
    if (o.last - o.first + 1 >= DEFAULT_HOLD_SEEDS && is_empty(&s, o.plan)) {
        (void)printf("something never happened: the simulation is empty\n");
        return 1;
    }
    return 0;
}
