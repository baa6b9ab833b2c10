/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which store a command works on, and as whom.
 *
 *   --cluster NAME   beats   GRID_STORE   beats   the context   beats   the default store
 *
 * The default store, and the one that GRID_STORE names, are the cluster "local"; a section
 * [cluster local] moves the default one elsewhere.
 */
#include "cli/cli-internal.h"

#include <pwd.h>
#include <string.h>

static void warn_config(void *ctx, const char *sentence)
{
    say("%s", sentence);
}

/* A command without --cluster works on no store: a context that leads nowhere must not be in its
 * way, least of all in that of `set-cluster-context`. */
static bool uses_store(const struct command *c)
{
    for (const struct option *o = c->options; o && o->name; o++) {
        if (strcmp(o->name, "--cluster") == 0)
            return true;
    }
    return false;
}

static void find_owner(struct cli *cli)
{
    const struct passwd *pw = getpwuid(geteuid());

    if (pw && *pw->pw_name)
        (void)snprintf(cli->owner, sizeof cli->owner, "%s", pw->pw_name);
    else
        (void)snprintf(cli->owner, sizeof cli->owner, "%u", (unsigned)geteuid());
    if (gethostname(cli->host, sizeof cli->host - 1) < 0)
        (void)snprintf(cli->host, sizeof cli->host, "unknown");
}

int cli_use_cluster(struct cli *cli, bool is_needed, const char *given)
{
    const char *name = given                        ? given
                       : cli->places.store_is_given ? CLUSTER_DEFAULT
                       : *cli->config.context       ? cli->config.context
                                                    : CLUSTER_DEFAULT;
    const struct cluster *cluster = config_cluster(&cli->config, name);
    bool is_local = strcmp(name, CLUSTER_DEFAULT) == 0;

    (void)snprintf(cli->cluster, sizeof cli->cluster, "%s", name);
    cli->coherent = false;
    cli->store_is_default = false;
    cli->options = (struct store_options){0};
    if (cluster && cluster->store && !(is_local && cli->places.store_is_given)) {
        cli->store = cluster->store;
        cli->coherent = cluster->coherent;
        cli->options = cluster_options(cluster);
        return CLI_DONE;
    }
    if (is_local) {
        cli->store = cli->places.store;
        cli->store_is_default = !cli->places.store_is_given;
        return CLI_DONE;
    }
    if (!is_needed)
        return CLI_DONE;
    if (cluster)
        return say_failed("%s:%u: the cluster %s has no 'store'", cluster->file, cluster->line,
                          name);
    return say_failed("there is no cluster '%s': neither %s nor %s has a section [cluster %s]",
                      name, cli->places.system_config, cli->places.user_config, name);
}

int cli_read_config(struct cli *cli)
{
    struct err err = ERR_INIT;

    find_owner(cli);
    int r = places_find(&cli->places, &err);
    if (r == 0)
        r = config_read(&cli->config, cli->places.system_config,
                        !cli->places.system_config_is_given, warn_config, NULL, &err);
    if (r == 0)
        r = config_read(&cli->config, cli->places.user_config, false, warn_config, NULL, &err);
    return r < 0 ? say_err(&err, r) : CLI_DONE;
}

int cli_choose_store(struct cli *cli, const struct args *args)
{
    bool is_needed = uses_store(args->command);
    const char *given = is_needed ? args_text(args, "--cluster") : NULL;
    int code = cli_read_config(cli);

    return code == CLI_DONE ? cli_use_cluster(cli, is_needed, given) : code;
}
