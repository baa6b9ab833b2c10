/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Runs the simulation over many seeds.
 *
 *   sim-catalogue [--seeds A..B]       run them all; the first violation ends it
 *   sim-catalogue --replay SEED [-v]   one of them; -v prints every step
 *   --expect-violation                 succeed if there is one: the program has a rule taken out
 */
#include "sim.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DEFAULT_SEEDS 10000u

struct options {
    uint64_t first, last;
    bool verbose, expect_violation;
};

static bool parse_options(int argc, char **argv, struct options *ret)
{
    struct options o = {.first = 1, .last = DEFAULT_SEEDS};

    for (int i = 1; i < argc; i++) {
        int end = 0;
        if (strcmp(argv[i], "-v") == 0)
            o.verbose = true;
        else if (strcmp(argv[i], "--expect-violation") == 0)
            o.expect_violation = true;
        else if (strcmp(argv[i], "--seeds") == 0 && i + 1 < argc &&
                 sscanf(argv[i + 1], "%" SCNu64 "..%" SCNu64 "%n", &o.first, &o.last, &end) == 2 &&
                 argv[i + 1][end] == '\0')
            i++;
        else if (strcmp(argv[i], "--replay") == 0 && i + 1 < argc &&
                 sscanf(argv[i + 1], "%" SCNu64 "%n", &o.first, &end) == 1 &&
                 argv[i + 1][end] == '\0')
            o.last = o.first, i++;
        else
            return false;
    }
    *ret = o;
    return true;
}

/* A run of all seeds in which something never happened has tested nothing of it. */
static bool is_empty(const struct sim_stats *s)
{
    return !s->commits || !s->aborts || !s->others || !s->deaths || !s->lost || !s->late ||
           !s->never || !s->resumes || !s->resolves;
}

int main(int argc, char **argv)
{
    struct sim_stats s = {0};
    struct options o;
    char violation[512];

    if (!parse_options(argc, argv, &o)) {
        (void)fprintf(stderr,
                      "usage: %s [--seeds A..B | --replay SEED] [-v] [--expect-violation]\n",
                      argv[0]);
        return 2;
    }
    for (uint64_t seed = o.first; seed <= o.last; seed++) {
        if (sim_run(seed, o.verbose, &s, violation, sizeof violation))
            continue;
        (void)printf("seed %" PRIu64 ": %s\n", seed, violation);
        if (!o.expect_violation)
            (void)printf("see it happen: %s --replay %" PRIu64 " -v\n", argv[0], seed);
        return o.expect_violation ? 0 : 1;
    }
    (void)printf("%" PRIu64 " seeds: %" PRIu64 " commits, %" PRIu64 " found aborted, %" PRIu64
                 " committed by another, %" PRIu64 " unknown; %" PRIu64 " resumed, %" PRIu64
                 " resolved; %" PRIu64 " faults, %" PRIu64 " late, %" PRIu64
                 " never landed, %" PRIu64 " deaths\n",
                 o.last - o.first + 1, s.commits, s.aborts, s.others, s.unknown, s.resumes,
                 s.resolves, s.lost, s.late, s.never, s.deaths);
    if (o.expect_violation) {
        (void)printf("no violation: the rule that was taken out is not tested\n");
        return 1;
    }
    if (o.last - o.first + 1 >= DEFAULT_SEEDS && is_empty(&s)) {
        (void)printf("something never happened: the simulation is empty\n");
        return 1;
    }
    return 0;
}
