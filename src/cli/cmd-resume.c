/* SPDX-License-Identifier: Apache-2.0 */
/*
 * grid datastore resume, clearcache: uploads that were interrupted on this machine.
 *
 * The local state knows store, source and options of each. All that match are continued, the oldest
 * first. clearcache also tells the stores that those uploads are over, so that nobody waits for
 * them.
 */
#include "cli/cmd-create.h"

#include "base/name.h"

#include <stdlib.h>
#include <string.h>

const struct option cmd_resume_options[] = {
    {"--name", 0, "NAME", "only uploads to this datastore", NULL}, OPTION_JSON, OPTION_END};

const struct option cmd_clearcache_options[] = {OPTION_END};

/* An interrupted upload is a rare thing; more than this is litter. */
#define PENDING_MAX 1000u

struct pending_list {
    const char *name; /* only this one; NULL: all */
    VEC(struct publish_pending) rows;
    unsigned running;
};

static int collect(void *ctx, const struct publish_pending *p)
{
    struct pending_list *list = ctx;

    if (list->name && strcmp(list->name, p->name) != 0)
        return 0;
    if (p->running) {
        list->running++;
        return 0;
    }
    return list->rows.count < PENDING_MAX ? vec_push(&list->rows, *p) : 0;
}

static int collect_pending(struct cli *cli, struct pending_list *list)
{
    struct err err = ERR_INIT;
    int r = publish_each_pending(cli->places.cache, collect, list, &err);

    return r < 0 ? say_err(&err, r) : CLI_DONE;
}

/* Work on the store that the upload went to, under the name it has in the configuration. */
static void choose_store_of(struct cli *cli, const struct publish_pending *p)
{
    const char *name = CLUSTER_DEFAULT;

    cli->store = p->store;
    cli->store_is_default = false;
    cli->options = (struct store_options){0};
    for (size_t i = 0; i < cli->config.clusters.count; i++) {
        const struct cluster *c = &cli->config.clusters.at[i];
        if (c->store && strcmp(c->store, p->store) == 0) {
            name = c->name;
            cli->coherent |= c->coherent;
            cli->options = cluster_options(c);
        }
    }
    (void)snprintf(cli->cluster, sizeof cli->cluster, "%s", name);
}

static int resume_one(struct cli *cli, const struct publish_pending *p, bool json)
{
    AUTO(opened_release) struct opened o = {0};
    AUTO(source_close) struct source *source = NULL;
    struct err err = ERR_INIT;
    struct source_choice choice = {.location = p->source,
                                   .terms = p->source_terms[0] ? p->source_terms : NULL};
    int r = source_choose(cli, &choice, &source, &err);

    if (r < 0) {
        err_prefix(&err, r, "cannot continue %s:%u", p->name, p->version);
        return say_source_failed(&err, r);
    }
    choose_store_of(cli, p);
    int code = open_catalogue(cli, true, &o);
    if (code != CLI_DONE)
        return code;
    if (strcmp(catalogue_store_id(o.catalogue), p->store_id) != 0)
        return say_failed("cannot continue %s:%u: %s is another store than the one it was begun in",
                          p->name, p->version, p->store);
    struct publish_options options = {.name = p->name,
                                      .append = p->append,
                                      .exclude_private = p->exclude_private,
                                      .trust_mtime = p->trust_mtime};
    return publish_and_tell(cli, &o, source, &options, json);
}

int cmd_resume(struct cli *cli, const struct args *args)
{
    struct pending_list list = {.name = args_text(args, "--name")};
    int code = collect_pending(cli, &list), worst = code;

    if (code == CLI_DONE && list.rows.count == 0) {
        if (list.running)
            worst = say_failed("the upload%s%s is under way already", list.name ? " of " : "",
                               list.name ? list.name : "");
        else if (list.name)
            worst = say_failed("there is no interrupted upload of %s on this machine", list.name);
        else
            say("there is no interrupted upload on this machine");
    }
    if (list.rows.count > 1 && args_flag(args, "--json")) {
        worst = say_usage(args->command, "%zu uploads were interrupted: choose one with --name",
                          list.rows.count);
        list.rows.count = 0;
    }
    for (size_t i = list.rows.count; i-- > 0 && !interrupt_signal;) {
        code = resume_one(cli, &list.rows.at[i], args_flag(args, "--json"));
        if (code != CLI_DONE)
            worst = code;
    }
    vec_release(&list.rows);
    return worst;
}

/* Best effort: where the store cannot be reached, the upload counts as dead after some days. */
static void give_up(struct cli *cli, const struct publish_pending *p)
{
    AUTO(opened_release) struct opened o = {0};
    struct err err = ERR_INIT;

    choose_store_of(cli, p);
    int r = open_catalogue_quietly(cli, true, &o, &err);
    if (r == 0 && strcmp(catalogue_store_id(o.catalogue), p->store_id) != 0)
        return;
    if (r == 0)
        r = catalogue_abort(o.catalogue, p->name, p->version,
                            "given up: its local state was cleared", &err);
    if (r < 0 && r != -EEXIST) /* it has committed: all the better */
        say("%s could not be told that %s:%u is given up: %s", p->store, p->name, p->version,
            err_text(&err, r));
}

int cmd_clearcache(struct cli *cli, const struct args *args)
{
    struct pending_list list = {0};
    struct err err = ERR_INIT;
    unsigned count = 0;
    int code = collect_pending(cli, &list);

    if (code == CLI_DONE && list.running)
        code = say_failed("an upload is under way on this machine: wait for it, or stop it first");
    for (size_t i = 0; code == CLI_DONE && i < list.rows.count; i++)
        give_up(cli, &list.rows.at[i]);
    if (code == CLI_DONE) {
        int r = publish_clear_state(cli->places.cache, &count, &err);
        code = r < 0 ? say_err(&err, r) : CLI_DONE;
    }
    if (code == CLI_DONE)
        say("forgot %u interrupted upload%s and what was known of unchanged files", count,
            count == 1 ? "" : "s");
    vec_release(&list.rows);
    return code;
}
