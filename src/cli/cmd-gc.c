/* SPDX-License-Identifier: Apache-2.0 */
/*
 * grid datastore gc: reclaim what no version names any more.
 */
#include "cli/cli-internal.h"

#include <inttypes.h>
#include <string.h>

const struct option cmd_gc_options[] = {
    {"--dry-run", 'n', NULL, "show what would be freed; write and remove nothing", NULL},
    OPTION_CLUSTER,
    OPTION_JSON,
    OPTION_END};

struct waits {
    json_t *rows; /* --json, or NULL */
    bool no_memory;
};

static void tell_wait(void *ctx, const struct collect_wait *w)
{
    struct waits *waits = ctx;
    char since[FIGURE_MAX];

    if (!waits->rows) {
        say("waiting for the upload of %s:%" PRIu32 " by %s on %s, begun %s", w->name, w->version,
            w->owner, w->host, figure_local_time(w->since_ms, since));
        return;
    }
    json_t *row =
        json_pack("{s:s, s:I, s:s, s:s, s:s}", "name", w->name, "version", (json_int_t)w->version,
                  "owner", w->owner, "host", w->host, "since", figure_utc_time(w->since_ms, since));
    if (json_array_append_new(waits->rows, row) < 0)
        waits->no_memory = true;
}

static int print_json(const struct collect_report *p, struct waits *waits, bool dry_run)
{
    if (waits->no_memory) {
        json_decref(waits->rows);
        return say_failed("out of memory");
    }
    return json_print(json_pack(
        "{s:b, s:b, s:I, s:I, s:I, s:I, s:I, s:I, s:o}", "dry_run", (int)dry_run, "ended",
        (int)(p->waits == 0), "round", (json_int_t)p->round, "objects", (json_int_t)p->objects,
        "bytes", (json_int_t)p->bytes, "versions", (json_int_t)p->versions, "expired_uploads",
        (json_int_t)p->expired, "records", (json_int_t)p->records, "waits_for", waits->rows));
}

static int print_report(const struct collect_report *p, bool dry_run)
{
    char a[FIGURE_MAX], b[FIGURE_MAX];

    if (p->expired)
        say("%u upload%s without a sign of life %s given up", p->expired,
            p->expired == 1 ? "" : "s", p->expired == 1 ? "was" : "were");
    if (p->objects == 0 && p->waits == 0)
        printf("nothing to reclaim\n");
    else if (p->objects == 0)
        printf("nothing freed yet\n");
    else
        printf("%s %s in %s\n", figure_bytes(p->bytes, a), dry_run ? "would be freed" : "freed",
               figure_things(p->objects, "object", b));
    if (p->waits && !dry_run)
        say("run 'grid datastore gc' again when %s ended", p->waits == 1 ? "it has" : "they have");
    return finish_stdout(CLI_DONE);
}

int cmd_gc(struct cli *cli, const struct args *args)
{
    AUTO(opened_release) struct opened o = {0};
    bool dry_run = args_flag(args, "--dry-run"), json = args_flag(args, "--json");
    struct waits waits = {.rows = json ? json_array() : NULL};
    struct collect_options options = {.dry_run = dry_run, .waits_for = tell_wait, .ctx = &waits};
    struct collect_report report = {0};
    struct err err = ERR_INIT;

    int r = open_catalogue_quietly(cli, false, &o, &err); /* what is not there is not made */
    bool empty = r == -ENOENT;
    if (r == 0 && !dry_run) {
        opened_release(&o);
        r = open_catalogue_quietly(cli, true, &o, &err);
    }
    if (r == 0)
        r = catalogue_collect(o.catalogue, &options, &report, &err);
    if (r < 0 && !empty) {
        json_decref(waits.rows);
        return say_err(&err, r);
    }
    return json ? print_json(&report, &waits, dry_run) : print_report(&report, dry_run);
}
