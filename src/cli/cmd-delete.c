/* SPDX-License-Identifier: Apache-2.0 */
/*
 * grid datastore delete: one version, immediately and for good, unless somebody holds it; then its
 * space is reclaimed as far as nobody else needs it.
 */
#include "cli/cli-internal.h"

#include "base/name.h"

#include <inttypes.h>
#include <string.h>
#include <unistd.h>

/* Holders that the sentence of a refusal names itself. */
#define SENTENCE_NAMES 5u

const struct option cmd_delete_options[] = {
    {"--name", 0, "NAME", "the datastore", NULL},
    {"--version", 0, "N", "the version of it", NULL},
    {"--yes", 'y', NULL, "do not ask", NULL},
    {"--force", 0, NULL, "even if it is attached: its readers get input/output errors", NULL},
    OPTION_CLUSTER,
    OPTION_END};

static int read_arguments(const struct args *args, const char **ret_name, uint32_t *ret_version)
{
    const char *name = args_text(args, "--name"), *version = args_text(args, "--version");

    if (!name || !version)
        return say_usage(args->command, "%s is missing", name ? "--version N" : "--name NAME");
    if (!name_is_valid(name))
        return say_usage(args->command, "'%s' is no name of a datastore", name);
    if (parse_version(version, ret_version) < 0)
        return say_usage(args->command, "--version is a number from 1, not '%s'", version);
    *ret_name = name;
    return CLI_DONE;
}

/* ---- asking ---- */

static int find_row(void *ctx, const struct version_info *info)
{
    struct version_info *wanted = ctx;

    if (info->version != wanted->version)
        return 0;
    *wanted = *info;
    return 1;
}

static void print_question(const char *name, uint32_t version, const struct version_info *info)
{
    char a[FIGURE_MAX], b[FIGURE_MAX];

    if (info->status == VERSION_SUCCEEDED)
        (void)fprintf(stderr, "Delete version %" PRIu32 " of %s (%s, %s, of %s)?", version, name,
                      figure_things(info->files, "file", a), figure_bytes(info->size_bytes, b),
                      info->owner);
    else
        (void)fprintf(stderr, "Give up the upload of version %" PRIu32 " of %s (%s)?", version,
                      name, version_status_name(info->status));
    (void)fprintf(stderr, " It cannot be brought back. [y/N] ");
}

/* CLI_DONE: go on. Without a terminal nobody can answer. */
static int confirm(struct catalogue *c, const char *name, uint32_t version)
{
    AUTO(free_ptr) struct version_info *info = calloc(1, sizeof *info);
    struct err err = ERR_INIT;
    char answer[64];

    if (!info)
        return say_failed("out of memory");
    info->version = version;
    info->name[0] = '\0';
    int r = catalogue_list(c, name, find_row, info, &err);
    if (r < 0)
        return say_err(&err, r);
    if (r == 0 && catalogue_resolve(c, name, version, info, &err) < 0)
        return say_err(&err, -ENOENT);
    if (!isatty(STDIN_FILENO))
        return say_failed("version %" PRIu32 " of %s was not deleted: there is no terminal to ask "
                          "on; --yes deletes without a question",
                          version, name);
    print_question(name, version, info);
    if (fgets(answer, sizeof answer, stdin) && (answer[0] == 'y' || answer[0] == 'Y'))
        return CLI_DONE;
    return say_failed("version %" PRIu32 " of %s was not deleted", version, name);
}

/* Is there such a store, and is it meant? */
static int ask(struct cli *cli, const struct args *args, const char *name, uint32_t version)
{
    AUTO(opened_release) struct opened o = {0};
    int code = open_catalogue(cli, false, &o);

    return code == CLI_DONE && !args_flag(args, "--yes") ? confirm(o.catalogue, name, version)
                                                         : code;
}

/* ---- deleting ---- */

struct waiting {
    bool told;
};

static bool while_waiting(void *ctx, const struct holder *holder, int64_t left_ms)
{
    struct waiting *w = ctx;

    if (!w->told)
        say("waiting up to %d s for %s%son %s, which has not been heard of for longer than a lease "
            "lasts; Ctrl-C leaves the version as it is",
            (int)((left_ms + 999) / 1000), holder->text, holder->text[0] ? " " : "", holder->host);
    w->told = true;
    return !interrupt_signal;
}

static int reclaim(struct catalogue *c, const char *name, uint32_t version, const char *done)
{
    struct collect_report report = {0};
    struct err err = ERR_INIT;
    char a[FIGURE_MAX], b[FIGURE_MAX];
    int r = catalogue_collect(c, &(struct collect_options){0}, &report, &err);

    printf("%s:%" PRIu32 " %s", name, version, done);
    if (r == 0 && report.objects)
        printf(", %s freed in %s", figure_bytes(report.bytes, a),
               figure_things(report.objects, "object", b));
    putchar('\n');
    if (r < 0)
        say("its space was not reclaimed: %s", err_text(&err, r));
    else if (report.waits)
        say("its space comes back when %s that %s under way now %s ended: 'grid datastore gc'",
            report.waits == 1 ? "the upload" : "the uploads", report.waits == 1 ? "is" : "are",
            report.waits == 1 ? "has" : "have");
    return finish_stdout(CLI_DONE);
}

/* One line for each, where a sentence does not name them all. */
struct holders_list {
    unsigned count;
    bool print;
};

static int list_holder(void *ctx, const struct holder *h)
{
    struct holders_list *l = ctx;
    char since[FIGURE_MAX];

    l->count++;
    if (l->print)
        say("  %s%son %s (process %" PRId64 ")%s%s", h->text, h->text[0] ? " " : "", h->host,
            h->pid, h->since_ms > 0 ? " since " : "",
            h->since_ms > 0 ? figure_local_time(h->since_ms, since) : "");
    return 0;
}

static void list_holders(struct catalogue *c, const char *name, uint32_t version)
{
    struct holders_list l = {.count = 0};

    if (catalogue_holders(c, name, version, list_holder, &l, NULL) < 0 || l.count <= SENTENCE_NAMES)
        return;
    l.print = true;
    (void)catalogue_holders(c, name, version, list_holder, &l, NULL); /* what could be read */
}

int cmd_delete(struct cli *cli, const struct args *args)
{
    AUTO(opened_release) struct opened o = {0};
    struct waiting waiting = {0};
    struct delete_options options = {.waiting = while_waiting, .ctx = &waiting};
    AUTO(free_ptr) struct delete_report *report = calloc(1, sizeof *report);
    struct err err = ERR_INIT;
    const char *name = NULL;
    uint32_t version = 0;
    int code = read_arguments(args, &name, &version);

    if (code != CLI_DONE)
        return code;
    if (!report)
        return say_failed("out of memory");
    /* Opening a directory to write makes it; a bucket is there or not. */
    if (!args_flag(args, "--yes") || !is_far(cli))
        code = ask(cli, args, name, version);
    if (code != CLI_DONE)
        return code;
    int r = open_store(cli, true, &o.store, &err);
    if (r == 0)
        r = open_catalogue_beside(cli, &o, &err);
    if (r < 0) {
        (void)opened_no_store(&o, r, &err); /* only its sentence is wanted */
        return say_err(&err, r);
    }
    options.force = args_flag(args, "--force");
    interrupt_catch();
    r = catalogue_delete(o.catalogue, name, version, &options, report, &err);
    if (r < 0) {
        (void)opened_no_store(&o, r, &err); /* the same */
        (void)say_err(&err, r);             /* the code is decided here */
        if (r == -EBUSY)
            list_holders(o.catalogue, name, version);
        return r == -ECANCELED ? CLI_INTERRUPTED : CLI_FAILED;
    }
    if (report->overruled)
        say("%u who had it attached %s overruled", report->overruled,
            report->overruled == 1 ? "was" : "were");
    return reclaim(o.catalogue, name, version,
                   report->was == VERSION_SUCCEEDED ? "deleted" : "given up");
}
