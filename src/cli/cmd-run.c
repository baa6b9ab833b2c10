/* SPDX-License-Identifier: Apache-2.0 */
/*
 * grid run: a command with datastores attached, here, now.
 *
 * What it attaches is in items.c, and how in src/attach.
 */
#include "cli/cmd-mount.h"
#include "cli/mode.h"

#include "base/name.h"

#include <stdlib.h>
#include <string.h>

const struct option cmd_run_options[] = {
    OPTIONS_ITEMS,
    {"--name", 0, "RUN", "a name for the run, for listings", NULL},
    OPTIONS_READING,
    OPTION_REQUIRE_LEASE,
    OPTION_CLUSTER,
    OPTION_JSON,
    OPTIONS_RENTED,
    RENTS("--framework", "NAME"),
    RENTS("--dockerfile", "FILE"),
    RENTS("--dependency_file", "FILE"),
    RENTS("--localdir", NULL),
    RENTS("--ignore_warnings", NULL),
    RENTS("--strategy", "NAME"),
    RENTS("--num_trials", "N"),
    OPTION_END};

/* argv of the command: a Python program is run with python3. NULL: no memory. */
static char **command_line(char *const *rest)
{
    static char python[] = "python3";
    size_t count = 0, length = strlen(rest[0]);
    bool is_python = length > 3 && strcmp(rest[0] + length - 3, ".py") == 0;

    while (rest[count])
        count++;
    char **argv = calloc(count + 2, sizeof *argv);
    if (!argv)
        return NULL;
    if (is_python)
        argv[0] = python;
    memcpy(argv + is_python, rest, count * sizeof *argv);
    return argv;
}

static int run_prepared(struct items *items, char *const *rest)
{
    AUTO(free_ptr) char **argv = command_line(rest);
    struct err err = ERR_INIT;
    int exit_code = CLI_FAILED;

    if (!argv)
        return say_failed("out of memory");
    int r;
    do {
        err_clear(&err);
        r = attach_run(items->at, items->count, argv, &exit_code, &err);
    } while (r == -EOPNOTSUPP && mode_step_down_all(items, &err));
    if (r < 0)
        (void)say_err(&err, r); /* the code is a shell's, if the command could not be run */
    return exit_code;
}

int cmd_run(struct cli *cli, const struct args *args)
{
    AUTO(items_free) struct items *items = NULL;
    const char *name = args_text(args, "--name");
    char run[64], text[HOLD_TEXT_MAX];

    if (!args->rest && args->options.count == (size_t)args_flag(args, "--json"))
        return list_mounts(LIST_RUNS, args_flag(args, "--json"));
    if (!args->rest)
        return say_usage(args->command, "a command to run is missing");
    if (args_flag(args, "--json"))
        return say_usage(args->command, "--json is for the list of runs, without a command");
    if (name && !name_is_valid(name))
        return say_usage(args->command,
                         "--name is made of lower case letters, digits, '.', '_' and '-', not '%s'",
                         name);
    if (name)
        (void)snprintf(run, sizeof run, "%s", name);
    else
        (void)snprintf(run, sizeof run, "run-%ld", (long)getpid());
    (void)snprintf(text, sizeof text, "run %s", run);
    int code = items_prepare(cli, args, run, text, &items);
    return code == CLI_DONE ? run_prepared(items, args->rest) : code;
}
