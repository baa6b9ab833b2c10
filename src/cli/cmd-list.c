/* SPDX-License-Identifier: Apache-2.0 */
/*
 * grid datastore [list]: what is in the store.
 *
 * Own datastores, unless --global. An upload that is under way on this machine is shown as it goes;
 * what was killed or failed only with --show-incomplete. Whether an upload of another machine still
 * lives cannot be told from its records alone: it counts as incomplete.
 */
#include "cli/cli-internal.h"

#include "publish/publish.h"

#include <inttypes.h>
#include <string.h>

const struct option cmd_list_options[] = {
    {"--global", 0, NULL, "everybody's datastores, not only your own", NULL},
    OPTION_CLUSTER,
    {"--show-incomplete", 0, NULL, "also uploads that were killed or failed", NULL},
    OPTION_JSON,
    OPTION_END};

struct listing {
    struct cli *cli;
    bool everybody, incomplete;
    struct table *table; /* or */
    json_t *rows;
    uint64_t shown, of_others;
    VEC(struct session_id) running; /* uploads of this machine that are under way */
};

static int note_running(void *ctx, const struct publish_pending *p)
{
    struct listing *l = ctx;
    return p->running ? vec_push(&l->running, p->session) : 0;
}

static bool is_running(const struct listing *l, const struct version_info *info)
{
    for (size_t i = 0; i < l->running.count; i++) {
        if (memcmp(l->running.at[i].byte, info->session.byte, sizeof info->session.byte) == 0)
            return true;
    }
    return false;
}

/* MiB with one decimal; what is not empty is at least 0.1. */
static const char *figure_mib(uint64_t bytes, char ret[static FIGURE_MAX])
{
    double mib = (double)bytes / (1024 * 1024);

    (void)snprintf(ret, FIGURE_MAX, "%.1f", bytes && mib < 0.1 ? 0.1 : mib);
    return ret;
}

static int show_row(void *ctx, const struct version_info *info)
{
    struct listing *l = ctx;
    char text[FIGURE_MAX];

    if (info->status != VERSION_SUCCEEDED && !l->incomplete && !is_running(l, info))
        return 0;
    if (!l->everybody && strcmp(info->owner, l->cli->owner) != 0) {
        l->of_others++;
        return 0;
    }
    l->shown++;
    if (l->rows)
        return json_array_append_new(l->rows, json_version(l->cli, info)) < 0 ? -ENOMEM : 0;
    table_add(l->table, info->name);
    table_add(l->table, l->cli->cluster);
    (void)snprintf(text, sizeof text, "%" PRIu32, info->version);
    table_add(l->table, text);
    table_add(l->table, figure_mib(info->size_bytes, text));
    table_add(l->table, figure_local_time(info->created_ms, text));
    table_add(l->table, version_status_name(info->status));
    return 0;
}

/* A table without rows needs a word on why. */
static void explain_empty(const struct listing *l)
{
    char count[FIGURE_MAX];

    if (l->of_others)
        say("you have no datastores in %s; there are %s of others: --global shows them",
            l->cli->store, figure_things(l->of_others, "version", count));
    else
        say("there are no datastores in %s yet: 'grid datastore create DIR' makes one",
            l->cli->store);
}

static int finish(struct listing *l)
{
    if (l->rows)
        return json_print(json_incref(l->rows));
    if (l->shown == 0)
        explain_empty(l);
    else if (table_print(l->table, stdout) < 0)
        return say_failed("out of memory");
    return finish_stdout(CLI_DONE);
}

static int list(struct listing *l)
{
    AUTO(opened_release) struct opened o = {0};
    struct cli *cli = l->cli;
    struct err err = ERR_INIT;
    int r = open_catalogue_quietly(cli, false, &o, &err);

    /* The default store is made by the first create: until then it is empty, not an error. */
    if (r == -ENOENT && (o.store || cli->store_is_default))
        return finish(l);
    if (r < 0)
        return say_err(&err, r);
    r = publish_each_pending(cli->places.cache, note_running, l, &err);
    if (r < 0)
        say("%s", err_text(&err, r)); /* only the display of running uploads needs it */
    err_clear(&err);
    r = catalogue_list(o.catalogue, NULL, show_row, l, &err);
    if (r == 0)
        return finish(l);
    int code = l->shown ? finish(l) : CLI_DONE; /* what can be read is shown */
    return code == CLI_DONE || code == CLI_FAILED ? say_err(&err, r) : code;
}

int cmd_list(struct cli *cli, const struct args *args)
{
    static const char *const columns[] = {"Name",        "Cluster ID", ">Version",
                                          ">Size (MiB)", "Created At", "Status"};
    AUTO(table_free) struct table *table = table_new(columns, sizeof columns / sizeof *columns);
    struct listing l = {.cli = cli,
                        .everybody = args_flag(args, "--global"),
                        .incomplete = args_flag(args, "--show-incomplete"),
                        .table = table};

    if (args_flag(args, "--json"))
        l.rows = json_array();
    if (!table || (args_flag(args, "--json") && !l.rows))
        return say_failed("out of memory");
    int code = list(&l);
    json_decref(l.rows);
    vec_release(&l.running);
    return code;
}
