/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The Slurm plugin: datastores for jobs. It stands inside other people's programs (srun, sbatch,
 * salloc, slurmstepd), so it holds no more than it must: it parses its options, starts the program
 * `grid` and talks to it through pipes, with a deadline for everything (docs/slurm.md).
 *
 *   spank-grid.c     the functions that Slurm calls, and nothing else
 *   spank-submit.c   where jobs are submitted: options, and whether their names are right
 *   spank-node.c     on a node: the namespace of a step, before its first process
 *   spank-helper.c   starting `grid`, and talking to it
 *
 * Threads: none of its own.
 */
#ifndef SPANK_GRID_H
#define SPANK_GRID_H

#include <slurm/spank.h>

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* What the job's steps shall see: "SPEC,SPEC". Slurm passes variables of this beginning on,
 * whatever
 * --export says. */
#define SPECS_VARIABLE "SLURM_GRID_DATASTORES"
#define SPECS_MAX      16384u

/* ---- the line in plugstack.conf ---- */

#define ARGUMENTS_MAX 16

struct plugin_settings {
    const char *grid;   /* grid=PATH */
    unsigned timeout_s; /* timeout=SECONDS: for all that a step waits for */
    const char
        *variables[ARGUMENTS_MAX + 4];  /* setenv=NAME=VALUE; NULL-ended environment of root's */
    const char *options[ARGUMENTS_MAX]; /* option=--OPTION, for `grid slurm attach` */
    size_t option_count;
};
extern struct plugin_settings settings;

/* -1, after a message, where it makes no sense. */
int settings_read(int ac, char **av);

/* ---- spank-submit.c ---- */

/* --datastore was given. */
int submit_add(const char *spec);
/* All options are known. -1: something is wrong, and was said. */
int submit_check(spank_t sp);

/* ---- spank-node.c ---- */

/* In slurmstepd, before tasks are forked. */
int node_prepare(spank_t sp);
/* In the process that becomes a task, still root. */
int node_enter(spank_t sp);
/* In the same, as the user, its standard error being the job's: ends a task whose datastores are
 * not there. */
int node_report(spank_t sp);
/* In slurmstepd, for each task, when it is in the job's control groups. */
int node_settle(spank_t sp);

/* ---- spank-helper.c ---- */

struct helper {
    pid_t pid;
    int in, out, err; /* of ours; -1: none */
    int64_t deadline; /* milliseconds of CLOCK_MONOTONIC */
};

/* Start settings.grid. Without an environment it is the user's own: standard error is ours, and
 * there is no input. With one it is root's. -1 with errno. */
int helper_start(struct helper *h, char *const argv[], const char *const environment[]);
/* Send all of `input`, then read its output up to the first newline (`one_line`) or to its end, and
 * what it says on standard error. False: too late, or too much. Both texts end with NUL. */
bool helper_talk(struct helper *h, const char *input, size_t input_size, bool one_line,
                 char *output, size_t output_size, char *said, size_t said_size);
/* Close its input and wait; killed when the deadline has passed. Its exit code; -1: killed. */
int helper_end(struct helper *h);

int64_t now_ms(void);

#endif
