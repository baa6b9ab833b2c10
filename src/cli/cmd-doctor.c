/* SPDX-License-Identifier: Apache-2.0 */
/*
 * grid datastore doctor: try out what is assumed of the store, and say what its settings mean;
 * and whether this machine's kernel mounts versions itself (mode.h).
 *
 * A store that fails is one that must not be written to: exit 1. What is merely worth knowing is a
 * warning on stderr, and in the JSON document.
 */
#include "cli/mode.h"

#include <stdlib.h>
#include <string.h>

/* S3 refuses requests that are 15 minutes off. */
#define OFFSET_WARN_MS (60 * 1000)
/* What leases are made for (A4). */
#define SPREAD_MAX_MS 2000
#define WARNINGS_MAX  8u

const struct option cmd_doctor_options[] = {OPTION_CLUSTER, OPTION_JSON, OPTION_END};

struct examination {
    struct cli *cli;
    struct store *store;
    struct store_probe probe;
    struct store_space space;
    bool raced;               /* between two processes, in a directory */
    bool kernel, kernel_wide; /* it mounts images of ours, and those of the 48-bit layout */
    char why_not[200], why_not_wide[200];
    unsigned count;
    const char *warnings[WARNINGS_MAX];
};

static void warn(struct examination *e, const char *sentence)
{
    if (e->count < WARNINGS_MAX)
        e->warnings[e->count++] = sentence;
}

static void find_warnings(struct examination *e)
{
    const struct store_probe *p = &e->probe;

    if (p->clock_offset_ms > OFFSET_WARN_MS || p->clock_offset_ms < -OFFSET_WARN_MS)
        warn(e, "this machine's clock differs from the store's by more than a minute: set it");
    if (p->clock_spread_ms > SPREAD_MAX_MS)
        warn(e,
             "the store's clocks differ among each other by more than two seconds: a version may "
             "be deleted while it is read");
    if (p->versioning == 1)
        warn(e,
             "the bucket keeps old versions: what is deleted still takes space until a lifecycle "
             "rule expires noncurrent versions and delete markers");
    if (p->lifecycle == 1)
        warn(e,
             "the bucket has lifecycle rules: one that expires or archives objects below this "
             "prefix destroys datastores; one that aborts incomplete multipart uploads is welcome");
    if (p->lifecycle == 0)
        warn(e, "the bucket has no lifecycle rule: one that aborts incomplete multipart uploads "
                "after some 8 days saves the space of interrupted uploads");
    if (p->replication == 1)
        warn(e, "the bucket is replicated: write to one side only, the other one lags behind");
    if (p->file_system && strcmp(p->sharing, "nothing is known of it") == 0)
        warn(e,
             "nothing is known of this file system: --store-is-coherent declares that one writer "
             "of a new file wins and listings are never stale");
}

/* ---- telling ---- */

static void print_row(const char *label, const char *value)
{
    AUTO(buf_release) struct buf b = BUF_INIT(32768);

    if (escape_text(&b, value, strlen(value)) < 0)
        buf_clear(&b);
    printf("%-14s %s\n", label, buf_text(&b));
}

static const char *setting(int value)
{
    return value < 0 ? "unknown (no permission to look)" : value ? "on" : "off";
}

static void print_examination(const struct examination *e)
{
    const struct store_probe *p = &e->probe;
    char text[512], free_bytes[FIGURE_MAX];

    (void)snprintf(text, sizeof text, "%.400s (cluster %s)", e->cli->store, e->cli->cluster);
    print_row("Store", text);
    if (p->file_system) {
        (void)snprintf(text, sizeof text, "%s: %s", p->file_system, p->sharing);
        print_row("File system", text);
    }
    if (p->rounds)
        (void)snprintf(text, sizeof text, "kept: one winner in each of %u rounds of %u writers",
                       p->rounds, p->racers);
    else
        (void)snprintf(text, sizeof text, "kept: one winner in each of %u rounds of two processes",
                       RACE_ROUNDS);
    if (p->rounds || e->raced)
        print_row("Put if absent", text);
    if (e->space.free_bytes >= 0)
        print_row("Free", figure_bytes((uint64_t)e->space.free_bytes, free_bytes));
    (void)snprintf(text, sizeof text, "%s%s", e->kernel ? "yes" : "no: ", e->why_not);
    print_row("Kernel mounts", text);
    if (e->kernel) {
        (void)snprintf(text, sizeof text, "%s%s", e->kernel_wide ? "yes" : "no: ", e->why_not_wide);
        print_row("  over 2 TiB", text);
    }
    if (!p->rounds)
        return;
    (void)snprintf(text, sizeof text, "%.1f s %s this machine's; its own differ by %.1f s",
                   (double)llabs(p->clock_offset_ms) / 1000,
                   p->clock_offset_ms < 0 ? "behind" : "ahead of",
                   (double)p->clock_spread_ms / 1000);
    print_row("Clock", text);
    print_row("Versioning", setting(p->versioning));
    print_row("Lifecycle", setting(p->lifecycle));
    print_row("Replication", setting(p->replication));
}

static json_t *json_setting(int value)
{
    return value < 0 ? json_null() : json_boolean(value);
}

static json_t *json_examination(const struct examination *e)
{
    const struct store_probe *p = &e->probe;
    json_t *warnings = json_array();

    for (unsigned i = 0; warnings && i < e->count; i++)
        (void)json_array_append_new(warnings, json_string(e->warnings[i])); /* static text */
    json_t *o = json_pack("{s:s, s:s, s:b, s:i, s:i, s:o}", "kind", p->rounds ? "s3" : "directory",
                          "cluster", e->cli->cluster, "put_if_absent", true, "rounds",
                          (int)(p->rounds ? p->rounds : RACE_ROUNDS), "writers",
                          p->rounds ? (int)p->racers : 2, "warnings", warnings);
    if (!o || json_set_bytes(o, "store", e->cli->store, strlen(e->cli->store)) < 0)
        return o;
    (void)json_object_set_new(o, "kernel_mount", json_boolean(e->kernel));
    (void)json_object_set_new(o, "kernel_mount_48", json_boolean(e->kernel_wide));
    if (p->file_system)
        (void)json_object_set_new(o, "file_system", json_string(p->file_system)); /* short */
    if (e->space.free_bytes >= 0)
        (void)json_object_set_new(o, "free_bytes", json_integer(e->space.free_bytes));
    if (p->rounds) {
        json_t *more = json_pack(
            "{s:I, s:I, s:o, s:o, s:o}", "clock_offset_ms", (json_int_t)p->clock_offset_ms,
            "clock_spread_ms", (json_int_t)p->clock_spread_ms, "versioning",
            json_setting(p->versioning), "lifecycle", json_setting(p->lifecycle), "replication",
            json_setting(p->replication));
        (void)json_object_update(o, more); /* a document without them still says the result */
        json_decref(more);
    }
    return o;
}

static int examine(struct examination *e, struct err *err)
{
    const char *location = e->cli->store;
    bool is_path = location[0] == '/' || strncmp(location, "file://", 7) == 0;
    struct store *look = NULL;

    int r = is_path ? store_open(location, STORE_READ, &look, err) : 0; /* makes nothing */
    store_close(look);
    if (r == 0)
        r = open_store(e->cli, true, &e->store, err);
    if (r == 0)
        r = store_probe(e->store, &e->probe, err);
    if (r == 0 && is_path) {
        const char *root = location[0] == '/' ? location : location + 7;
        r = race_two_processes(root, e->cli->coherent, err);
        e->raced = r == 0;
    }
    if (r == 0 && store_space(e->store, &e->space) < 0)
        e->space.free_bytes = -1;
    return r;
}

static void examine_kernel(struct examination *e)
{
    if (geteuid() != 0) {
        (void)snprintf(e->why_not, sizeof e->why_not, "%s", MODE_ONLY_ROOT);
        return;
    }
    e->kernel = mode_probe(false, e->why_not, sizeof e->why_not);
    e->kernel_wide = e->kernel && mode_probe(true, e->why_not_wide, sizeof e->why_not_wide);
}

int cmd_doctor(struct cli *cli, const struct args *args)
{
    struct examination e = {.cli = cli, .space = {.free_bytes = -1, .free_objects = -1}};
    struct err err = ERR_INIT;
    int code = CLI_DONE, r = examine(&e, &err);

    if (r < 0) {
        code = say_err(&err, r);
    } else {
        find_warnings(&e);
        examine_kernel(&e);
        for (unsigned i = 0; i < e.count; i++)
            say("warning: %s", e.warnings[i]);
        if (args_flag(args, "--json"))
            code = json_print(json_examination(&e));
        else
            print_examination(&e);
    }
    store_close(e.store);
    return finish_stdout(code);
}
