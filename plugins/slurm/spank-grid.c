/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What Slurm calls, by context. Only these functions are visible outside (spank.map).
 */
#include "spank-grid.h"

#include <slurm/slurm_errno.h>
#include <stdlib.h>
#include <string.h>

SPANK_PLUGIN(grid, 1)

/* Long enough for a store that answers slowly, shorter than Slurm's patience with a node. */
#define TIMEOUT_DEFAULT_S 120u
#define TIMEOUT_MAX_S     3600u

#ifndef GRID_PROGRAM
#error "GRID_PROGRAM: where grid is installed"
#endif

struct plugin_settings settings = {
    .grid = GRID_PROGRAM,
    .timeout_s = TIMEOUT_DEFAULT_S,
    .variables = {"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LC_ALL=C.UTF-8"},
};

static int option_given(int value, const char *text, int remote)
{
    (void)value; /* there is one option */
    /* Only the last of several options arrives on the node: they travel in SPECS_VARIABLE. */
    return remote ? 0 : submit_add(text);
}

static struct spank_option datastore_option = {
    .name = (char *)"datastore",
    .arginfo = (char *)"NAME[:N][@DIR]",
    .usage = (char *)"attach a datastore at /datastores/NAME, or DIR; may be given several times",
    .has_arg = 1,
    .cb = option_given,
};

int settings_read(int ac, char **av)
{
    size_t variables = 0;

    settings.option_count = 0;
    while (variables < 3)
        variables++;
    for (int i = 0; i < ac; i++) {
        char *end;
        if (strncmp(av[i], "grid=/", 6) == 0) {
            settings.grid = av[i] + 5;
        } else if (strncmp(av[i], "timeout=", 8) == 0) {
            unsigned long n = strtoul(av[i] + 8, &end, 10);
            if (*end || n == 0 || n > TIMEOUT_MAX_S)
                goto wrong;
            settings.timeout_s = (unsigned)n;
        } else if (strncmp(av[i], "setenv=", 7) == 0 && strchr(av[i] + 7, '=') &&
                   variables < ARGUMENTS_MAX) {
            settings.variables[variables++] = av[i] + 7;
        } else if (strncmp(av[i], "option=--", 9) == 0 && settings.option_count < ARGUMENTS_MAX) {
            settings.options[settings.option_count++] = av[i] + 7;
        } else {
            goto wrong;
        }
        continue;
    wrong:
        slurm_error("grid: plugstack.conf: '%s' is not understood", av[i]);
        return -1;
    }
    settings.variables[variables] = NULL;
    return 0;
}

int slurm_spank_init(spank_t sp, int ac, char **av)
{
    spank_context_t context = spank_context();

    if (context != S_CTX_LOCAL && context != S_CTX_ALLOCATOR && context != S_CTX_REMOTE)
        return 0;
    if (settings_read(ac, av) < 0)
        return -1;
    /* sbatch leaves the last option of several there, for srun: SPECS_VARIABLE has them all. */
    (void)unsetenv("SLURM_SPANK__SLURM_SPANK_OPTION_grid_datastore"); /* valid names */
    (void)unsetenv("_SLURM_SPANK_OPTION_grid_datastore");
    /* Outside of a job, what an earlier one left in the environment is not meant. */
    if (context == S_CTX_ALLOCATOR || (context == S_CTX_LOCAL && !getenv("SLURM_JOB_ID")))
        (void)unsetenv(SPECS_VARIABLE); /* a valid name */
    return spank_option_register(sp, &datastore_option) == ESPANK_SUCCESS ? 0 : -1;
}

int slurm_spank_init_post_opt(spank_t sp, int ac, char **av)
{
    spank_context_t context = spank_context();

    return context == S_CTX_LOCAL || context == S_CTX_ALLOCATOR ? submit_check(sp) : 0;
}

int slurm_spank_user_init(spank_t sp, int ac, char **av)
{
    return spank_remote(sp) == 1 ? node_prepare(sp) : 0;
}

int slurm_spank_task_init_privileged(spank_t sp, int ac, char **av)
{
    return node_enter(sp);
}

int slurm_spank_task_init(spank_t sp, int ac, char **av)
{
    return spank_remote(sp) == 1 ? node_report(sp) : 0;
}

int slurm_spank_task_post_fork(spank_t sp, int ac, char **av)
{
    return node_settle(sp);
}
