/* SPDX-License-Identifier: Apache-2.0 */
/*
 * grid user set-cluster-context, grid clusters: named stores.
 */
#include "cli/cli-internal.h"

#include <string.h>

const struct option cmd_set_cluster_context_options[] = {OPTION_END};

const struct option cmd_clusters_options[] = {OPTION_JSON, OPTION_END};

int cmd_set_cluster_context(struct cli *cli, const struct args *args)
{
    const char *name = args->words.at[0];
    struct err err = ERR_INIT;

    if (strcmp(name, CLUSTER_DEFAULT) != 0 && !config_cluster(&cli->config, name))
        return say_failed("there is no cluster '%s': neither %s nor %s has a section [cluster %s]",
                          name, cli->places.system_config, cli->places.user_config, name);
    int r = config_set_context(cli->places.user_config, name, &err);
    if (r < 0)
        return say_err(&err, r);
    say("the cluster is now %s%s", name,
        cli->places.store_is_given ? "; GRID_STORE is set and overrides it" : "");
    return CLI_DONE;
}

struct rows {
    struct cli *cli;
    struct table *table; /* or */
    json_t *rows;
};

static int add_row(struct rows *rows, const char *name, const char *store)
{
    bool is_chosen = strcmp(rows->cli->cluster, name) == 0;

    if (rows->rows) {
        json_t *row = json_pack("{s:s, s:b}", "name", name, "chosen", is_chosen);
        if (row && store && json_set_bytes(row, "store", store, strlen(store)) < 0) {
            json_decref(row);
            return -ENOMEM;
        }
        return json_array_append_new(rows->rows, row) < 0 ? -ENOMEM : 0;
    }
    table_add(rows->table, name);
    table_add(rows->table, store ? store : "(none)");
    table_add(rows->table, is_chosen ? "yes" : "");
    return 0;
}

int cmd_clusters(struct cli *cli, const struct args *args)
{
    static const char *const columns[] = {"Cluster ID", "Store", "Chosen"};
    AUTO(table_free) struct table *table = table_new(columns, 3);
    const struct cluster *local = config_cluster(&cli->config, CLUSTER_DEFAULT);
    bool is_moved = local && local->store && !cli->places.store_is_given;
    struct rows rows = {
        .cli = cli, .table = table, .rows = args_flag(args, "--json") ? json_array() : NULL};

    int r = table ? add_row(&rows, CLUSTER_DEFAULT, is_moved ? local->store : cli->places.store)
                  : -ENOMEM;
    for (size_t i = 0; r == 0 && i < cli->config.clusters.count; i++) {
        const struct cluster *c = &cli->config.clusters.at[i];
        if (c != local)
            r = add_row(&rows, c->name, c->store);
    }
    if (r < 0) {
        json_decref(rows.rows);
        return say_failed("out of memory");
    }
    if (rows.rows)
        return json_print(rows.rows);
    if (table_print(table, stdout) < 0)
        return say_failed("out of memory");
    return finish_stdout(CLI_DONE);
}
