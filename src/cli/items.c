/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a run or a session attaches, from its options: they come in groups, each --datastore_name
 * begins one, version and directory that follow belong to it. Everything is resolved before
 * anything is mounted.
 */
#include "cli/cmd-mount.h"

#include <stdlib.h>
#include <string.h>

static int add_to_group(const struct args *args, struct items *items, const struct args_option *o)
{
    bool is_version = strcmp(o->option->name, "--datastore_version") == 0;
    bool is_directory = strcmp(o->option->name, "--datastore_mount_dir") == 0;

    if (strcmp(o->option->name, "--datastore_name") == 0) {
        if (items->count == DATASTORES_MAX)
            return say_usage(args->command, "more than %d datastores", DATASTORES_MAX);
        items->groups[items->count++].name = o->value;
        return CLI_DONE;
    }
    if (!is_version && !is_directory)
        return CLI_DONE;
    if (items->count == 0)
        return say_usage(args->command, "%s belongs behind a --datastore_name", o->option->name);
    struct asked *g = &items->groups[items->count - 1];
    const char **place = is_version ? &g->version : &g->directory;
    if (*place)
        return say_usage(args->command, "%s is given twice for %s", o->option->name, g->name);
    *place = o->value;
    return CLI_DONE;
}

int items_target(const struct args *args, struct items *items, size_t i)
{
    const struct asked *g = &items->groups[i];
    char *target = items->targets[i];
    AUTO(free_ptr) char *cwd = NULL;
    char name[sizeof items->serves[i].info.name];
    int n;

    memcpy(name, items->serves[i].info.name, sizeof name);
    if (!g->directory)
        n = snprintf(target, PATH_MAX, "/datastores/%s", name);
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
        if (strcmp(items->targets[j], target) == 0)
            return say_usage(args->command,
                             "two datastores at %s: give one of them a --datastore_mount_dir",
                             target);
    }
    return CLI_DONE;
}

int items_resolve(struct cli *cli, const struct args *args, struct items *items, size_t i,
                  const struct reading *reading, const char *run, const char *text)
{
    const struct asked *g = &items->groups[i];
    struct attach_item *item = &items->at[i];
    uint32_t version = 0;

    if (g->version && parse_version(g->version, &version) < 0)
        return say_usage(args->command, "--datastore_version is a number from 1, not '%s'",
                         g->version);
    if (g->version && strchr(g->name, ':'))
        return say_usage(args->command, "the version of %s is given twice", g->name);
    int code = serve_prepare(cli, g->name, version, reading, &items->serves[i], &item->record);
    if (code == CLI_DONE)
        code = items_target(args, items, i);
    if (code != CLI_DONE)
        return code;
    (void)snprintf(item->record.run, sizeof item->record.run, "%s", run);
    (void)snprintf(items->serves[i].text, sizeof items->serves[i].text, "%s", text);
    (void)snprintf(item->record.holder, sizeof item->record.holder, "%s", text);
    items->serves[i].require_lease = item->required = args_flag(args, "--require-lease");
    item->share = items->serves[i].share;
    item->record.note = serve_note;
    item->target = items->targets[i];
    item->serve = serve_run;
    item->serve_ctx = &items->serves[i];
    return CLI_DONE;
}

int items_prepare(struct cli *cli, const struct args *args, const char *run, const char *text,
                  struct items **ret)
{
    AUTO(items_free) struct items *items = calloc(1, sizeof *items);
    struct reading reading = {0};

    if (!items)
        return say_failed("out of memory");
    int code = reading_options(cli, args, &reading);
    for (size_t i = 0; code == CLI_DONE && i < args->options.count; i++)
        code = add_to_group(args, items, &args->options.at[i]);
    if (code == CLI_DONE && items->count == 0)
        code = say_usage(args->command, "a datastore is missing: --datastore_name NAME");
    for (size_t i = 0; code == CLI_DONE && i < items->count; i++)
        code = items_resolve(cli, args, items, i, &reading, run, text);
    if (code == CLI_DONE)
        *ret = take_ptr(&items);
    return code;
}

void items_free(struct items *items)
{
    if (!items)
        return;
    for (size_t i = 0; i < items->count; i++)
        serve_release(&items->serves[i]);
    free(items);
}
