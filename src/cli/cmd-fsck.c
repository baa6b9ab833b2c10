/* SPDX-License-Identifier: Apache-2.0 */
/*
 * grid datastore fsck: whether a whole store keeps the rules of docs/formats/catalogue.md.
 */
#include "cli/cli-internal.h"

#include <inttypes.h>

const struct option cmd_fsck_options[] = {OPTION_CLUSTER, OPTION_JSON, OPTION_END};

struct found {
    json_t *rows; /* --json, or NULL */
    bool no_memory;
};

static void take_finding(void *ctx, const char *rule, const char *text)
{
    struct found *found = ctx;

    if (!found->rows)
        printf("%s: %s\n", rule, text);
    else if (json_array_append_new(found->rows,
                                   json_pack("{s:s, s:s}", "rule", rule, "text", text)) < 0)
        found->no_memory = true;
}

static int print_fsck(const struct fsck_report *p, struct found *found, const char *store)
{
    char a[FIGURE_MAX], b[FIGURE_MAX], c[FIGURE_MAX];
    int code = p->findings ? CLI_FAILED : CLI_DONE;

    if (found->rows) {
        int printed = json_print(json_pack(
            "{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:o}", "keys", (json_int_t)p->keys, "records",
            (json_int_t)p->records, "versions", (json_int_t)p->versions, "available",
            (json_int_t)p->available, "objects", (json_int_t)p->objects, "bytes",
            (json_int_t)p->bytes, "unnamed_objects", (json_int_t)p->unnamed_objects,
            "unnamed_bytes", (json_int_t)p->unnamed_bytes, "findings", found->rows));
        return printed == CLI_DONE ? code : printed;
    }
    if (p->findings)
        return finish_stdout(
            say_failed("%s breaks %s of its rules", store, figure_count(p->findings, a)));
    printf("%s, %s, %s: good\n", figure_things(p->available, "available version", a),
           figure_things(p->objects, "object", b), figure_bytes(p->bytes, c));
    return finish_stdout(CLI_DONE);
}

int cmd_fsck(struct cli *cli, const struct args *args)
{
    AUTO(opened_release) struct opened o = {0};
    struct found found = {.rows = args_flag(args, "--json") ? json_array() : NULL};
    struct fsck_report report = {0};
    struct err err = ERR_INIT;

    int r = open_store(cli, false, &o.store, &err);
    if (r == 0)
        r = catalogue_fsck(o.store, take_finding, &found, &report, &err);
    if (r == 0 && found.no_memory)
        r = err_fail(&err, -ENOMEM, "out of memory");
    if (r < 0) {
        json_decref(found.rows);
        return say_err(&err, r);
    }
    return print_fsck(&report, &found, cli->store);
}
