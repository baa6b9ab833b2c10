/* SPDX-License-Identifier: Apache-2.0 */
/*
 * grid run: a command with datastores attached, here, now.
 *
 * The options come in groups: each --datastore_name begins one, version and directory that follow
 * belong to it. Everything is resolved before anything is mounted.
 */
#include "cli/cmd-mount.h"

#include "base/name.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

#define RENTS(name, value)                                                                         \
    {                                                                                              \
        name, 0, value, NULL,                                                                      \
            name                                                                                   \
            " chose a rented machine; a run is on this one: leave it out, or let your scheduler "  \
            "choose the machine"                                                                   \
    }

const struct option cmd_run_options[] = {
    {"--datastore_name", 0, "NAME", "attach this datastore; may be given several times", NULL},
    {"--datastore_version", 0, "N", "this version of it; default: the newest", NULL},
    {"--datastore_mount_dir", 0, "DIR", "where; default: /datastores/NAME", NULL},
    {"--name", 0, "RUN", "a name for the run, for listings", NULL},
    OPTIONS_READING,
    OPTION_REQUIRE_LEASE,
    OPTION_CLUSTER,
    OPTION_JSON,
    RENTS("--instance_type", "TYPE"),
    RENTS("--gpus", "N"),
    RENTS("--cpus", "N"),
    RENTS("--use_spot", NULL),
    RENTS("--disk_size", "N"),
    RENTS("--framework", "NAME"),
    RENTS("--dockerfile", "FILE"),
    RENTS("--dependency_file", "FILE"),
    RENTS("--localdir", NULL),
    RENTS("--ignore_warnings", NULL),
    RENTS("--strategy", "NAME"),
    RENTS("--num_trials", "N"),
    OPTION_END};

/* More would need more than a terminal's line to type. */
#define DATASTORES_MAX 64

/* One group of options; strings point into argv. */
struct group {
    const char *name, *version, *directory;
};

struct run {
    struct group groups[DATASTORES_MAX];
    size_t count;
    struct attach_item items[DATASTORES_MAX];
    struct serve serves[DATASTORES_MAX];
    char targets[DATASTORES_MAX][PATH_MAX];
};

static int add_to_group(const struct args *args, struct run *run, const struct args_option *o)
{
    bool is_version = strcmp(o->option->name, "--datastore_version") == 0;
    bool is_directory = strcmp(o->option->name, "--datastore_mount_dir") == 0;

    if (strcmp(o->option->name, "--datastore_name") == 0) {
        if (run->count == DATASTORES_MAX)
            return say_usage(args->command, "more than %d datastores", DATASTORES_MAX);
        run->groups[run->count++].name = o->value;
        return CLI_DONE;
    }
    if (!is_version && !is_directory)
        return CLI_DONE;
    if (run->count == 0)
        return say_usage(args->command, "%s belongs behind a --datastore_name", o->option->name);
    struct group *g = &run->groups[run->count - 1];
    const char **place = is_version ? &g->version : &g->directory;
    if (*place)
        return say_usage(args->command, "%s is given twice for %s", o->option->name, g->name);
    *place = o->value;
    return CLI_DONE;
}

static int make_target(const struct args *args, struct run *run, size_t i)
{
    const struct group *g = &run->groups[i];
    char *target = run->targets[i];
    AUTO(free_ptr) char *cwd = NULL;
    int n;

    if (!g->directory)
        n = snprintf(target, PATH_MAX, "/datastores/%s", run->serves[i].info.name);
    else if (g->directory[0] == '/')
        n = snprintf(target, PATH_MAX, "%s", g->directory);
    else if ((cwd = getcwd(NULL, 0)))
        n = snprintf(target, PATH_MAX, "%s/%s", cwd, g->directory);
    else
        return say_failed("cannot find out the working directory: %s", strerror(errno));
    if (n < 0 || n >= PATH_MAX)
        return say_failed("the mount directory of %s is too long", g->name);
    for (size_t length = strlen(target); length > 1 && target[length - 1] == '/'; length--)
        target[length - 1] = '\0';
    for (size_t j = 0; j < i; j++) {
        if (strcmp(run->targets[j], target) == 0)
            return say_usage(args->command,
                             "two datastores at %s: give one of them a --datastore_mount_dir",
                             target);
    }
    return CLI_DONE;
}

static int prepare(struct cli *cli, const struct args *args, struct run *run, size_t i,
                   const struct reading *reading, const char *name)
{
    const struct group *g = &run->groups[i];
    struct attach_item *item = &run->items[i];
    uint32_t version = 0;

    if (g->version && parse_version(g->version, &version) < 0)
        return say_usage(args->command, "--datastore_version is a number from 1, not '%s'",
                         g->version);
    if (g->version && strchr(g->name, ':'))
        return say_usage(args->command, "the version of %s is given twice", g->name);
    int code = serve_prepare(cli, g->name, version, reading, &run->serves[i], &item->record);
    if (code == CLI_DONE)
        code = make_target(args, run, i);
    if (code != CLI_DONE)
        return code;
    (void)snprintf(item->record.run, sizeof item->record.run, "%s", name);
    (void)snprintf(run->serves[i].text, sizeof run->serves[i].text, "run %s", name); /* fits */
    run->serves[i].require_lease = args_flag(args, "--require-lease");
    item->record.note = serve_note;
    item->target = run->targets[i];
    item->serve = serve_run;
    item->serve_ctx = &run->serves[i];
    return CLI_DONE;
}

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

static int run_prepared(struct run *run, char *const *rest)
{
    AUTO(free_ptr) char **argv = command_line(rest);
    struct err err = ERR_INIT;
    int exit_code = CLI_FAILED;

    if (!argv)
        return say_failed("out of memory");
    int r = attach_run(run->items, run->count, argv, &exit_code, &err);
    if (r < 0)
        (void)say_err(&err, r); /* the code is a shell's, if the command could not be run */
    return exit_code;
}

int cmd_run(struct cli *cli, const struct args *args)
{
    AUTO(free_ptr) struct run *run = calloc(1, sizeof *run);
    const char *name = args_text(args, "--name");
    char default_name[64];
    struct reading reading = {0};

    if (!run)
        return say_failed("out of memory");
    if (!args->rest && args->options.count == (size_t)args_flag(args, "--json"))
        return list_mounts(true, args_flag(args, "--json"));
    if (!args->rest)
        return say_usage(args->command, "a command to run is missing");
    if (args_flag(args, "--json"))
        return say_usage(args->command, "--json is for the list of runs, without a command");
    if (name && !name_is_valid(name))
        return say_usage(args->command,
                         "--name is made of lower case letters, digits, '.', '_' and '-', not '%s'",
                         name);
    (void)snprintf(default_name, sizeof default_name, "run-%ld", (long)getpid());

    int code = reading_options(args, &reading);
    for (size_t i = 0; code == CLI_DONE && i < args->options.count; i++)
        code = add_to_group(args, run, &args->options.at[i]);
    if (code == CLI_DONE && run->count == 0)
        code = say_usage(args->command, "a datastore is missing: --datastore_name NAME");
    for (size_t i = 0; code == CLI_DONE && i < run->count; i++)
        code = prepare(cli, args, run, i, &reading, name ? name : default_name);
    return code == CLI_DONE ? run_prepared(run, args->rest) : code;
}
