/* SPDX-License-Identifier: Apache-2.0 */
/*
 * grid datastore stats: what the servers of the live mounts have counted, and how full the cache
 * is. Reads small files that the servers write; asks nobody and changes nothing.
 */
#include "cli/tally.h"

#include "attach/attach.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

const struct option cmd_stats_options[] = {OPTION_JSON, OPTION_END};

struct stats {
    struct table *table;
    json_t *rows; /* NULL: text */
    size_t count;
};

/* A server writes once a second: a second look meets it at rest. */
static bool read_tally(const struct attach_record *r, struct tally *ret)
{
    uint8_t data[TALLY_SIZE];

    for (int attempt = 0; attempt < 3; attempt++) {
        ssize_t n = attach_figures_read(r, data, sizeof data);
        if (n < 0)
            return false;
        int c = tally_decode(data, (size_t)n, ret);
        if (c == 0)
            return true;
        if (c != -EAGAIN)
            return false;
        env_real()->sleep_ms(env_real(), 1);
    }
    return false;
}

static json_t *latency(const struct tally *t, double part)
{
    double ms = tally_latency_ms(t, part);

    return ms < 0 ? json_null() : json_real(ms);
}

static json_int_t number(const struct tally *t, enum tally_field field)
{
    return (json_int_t)t->at[field];
}

static json_t *figures(const struct tally *t)
{
    return json_pack(
        "{s:I,s:I, s:{s:I,s:I,s:I}, s:I,s:I,s:{s:o,s:o}, s:I,s:f,s:I, s:I,s:I, s:I,s:I, s:I,s:I, "
        "s:I, s:b,s:b,s:b}",
        "hits", number(t, TALLY_HITS), "misses", number(t, TALLY_MISSES), "bytes", "memory",
        number(t, TALLY_BYTES_MEMORY), "cache", number(t, TALLY_BYTES_CACHE), "store",
        number(t, TALLY_BYTES_STORE), "gets", number(t, TALLY_GETS), "retries",
        number(t, TALLY_RETRIES), "latency_ms", "median", latency(t, 0.5), "p99", latency(t, 0.99),
        "stalls", number(t, TALLY_STALLS), "stall_seconds", (double)t->at[TALLY_STALL_NS] / 1e9,
        "waiting", number(t, TALLY_WAITING), "memory_bytes", number(t, TALLY_MEMORY_BYTES),
        "memory_limit_bytes", number(t, TALLY_MEMORY_LIMIT), "ahead_bytes",
        number(t, TALLY_AHEAD_BYTES), "ahead_unused_bytes", number(t, TALLY_AHEAD_UNUSED),
        "damaged", number(t, TALLY_DAMAGED), "damaged_cache", number(t, TALLY_DAMAGED_CACHE),
        "restarts", number(t, TALLY_RESTARTS), "has_cache", t->at[TALLY_HAS_CACHE] != 0,
        "store_failing", t->at[TALLY_STORE_ERROR] != 0, "cache_failing",
        t->at[TALLY_CACHE_ERROR] != 0);
}

static int add_json(struct stats *s, const struct attach_record *r, const struct tally *t)
{
    char since[FIGURE_MAX];
    json_t *row = json_pack("{s:s, s:I, s:s, s:s, s:s, s:s, s:I, s:o}", "name", r->name, "version",
                            (json_int_t)r->version, "cluster", r->cluster, "mode", r->mode, "run",
                            r->run, "since", figure_utc_time(r->since_ms, since), "server",
                            (json_int_t)r->server, "figures", t ? figures(t) : json_null());

    if (!row || json_set_bytes(row, "mountpoint", r->mountpoint, strlen(r->mountpoint)) < 0) {
        json_decref(row);
        return -ENOMEM;
    }
    return json_array_append_new(s->rows, row) < 0 ? -ENOMEM : 0;
}

static void add_time(struct table *table, double ms)
{
    char text[32] = "-";

    if (ms >= 0)
        (void)snprintf(text, sizeof text, ms < 10 ? "%.1f ms" : "%.0f ms", ms);
    table_add(table, text);
}

static int add_row(void *ctx, const struct attach_record *r)
{
    struct stats *s = ctx;
    struct tally t = {.at = {0}};
    bool is_known = read_tally(r, &t);
    char text[FIGURE_MAX];

    s->count++;
    if (s->rows)
        return add_json(s, r, is_known ? &t : NULL);
    (void)snprintf(text, sizeof text, "%.40s:%u", r->name, r->version);
    table_add(s->table, text);
    table_add(s->table, r->mountpoint);
    if (!is_known) {
        for (int i = 0; i < 9; i++)
            table_add(s->table, "-");
        return 0;
    }
    table_add(s->table, figure_count(t.at[TALLY_HITS], text));
    table_add(s->table, figure_count(t.at[TALLY_MISSES], text));
    table_add(s->table, figure_bytes(t.at[TALLY_BYTES_MEMORY], text));
    table_add(s->table, figure_bytes(t.at[TALLY_BYTES_CACHE], text));
    table_add(s->table, figure_bytes(t.at[TALLY_BYTES_STORE], text));
    add_time(s->table, tally_latency_ms(&t, 0.5));
    add_time(s->table, tally_latency_ms(&t, 0.99));
    (void)snprintf(text, sizeof text, "%.1f s", (double)t.at[TALLY_STALL_NS] / 1e9);
    table_add(s->table, text);
    table_add(s->table, figure_bytes(t.at[TALLY_MEMORY_BYTES], text));
    return 0;
}

/* ---- the cache ---- */

/* Only one that is there: a look makes nothing. */
static bool look_at_cache(const struct cache_place *place, struct cache_usage *ret)
{
    AUTO(cache_close) struct cache *c = NULL;
    AUTO(free_ptr) char *packs = NULL;
    struct stat st;

    if (place->off || !place->dir || asprintf(&packs, "%s/packs", place->dir) < 0 ||
        lstat(packs, &st) < 0)
        return false;
    return cache_place_open(place, &c, NULL) == 0 && cache_usage(c, ret) == 0;
}

static int print_cache(const struct cache_place *place, const struct cache_usage *u, bool is_there)
{
    char a[FIGURE_MAX], b[FIGURE_MAX], c[FIGURE_MAX];

    if (is_there)
        printf("Cache %s: %s of %s, %s\n", place->dir, figure_bytes(u->used_bytes, a),
               figure_bytes(u->limit_bytes, b), figure_things(u->objects, "object", c));
    else
        printf("Cache %s: %s\n", place->dir ? place->dir : "-",
               place->off ? "switched off" : "empty");
    return finish_stdout(CLI_DONE);
}

static json_t *json_cache(const struct cache_place *place, const struct cache_usage *u)
{
    json_t *o =
        json_pack("{s:I, s:I, s:I, s:b}", "used_bytes", (json_int_t)u->used_bytes, "limit_bytes",
                  (json_int_t)u->limit_bytes, "objects", (json_int_t)u->objects, "off", place->off);
    const char *dir = place->dir ? place->dir : "";

    if (o && json_set_bytes(o, "directory", dir, strlen(dir)) < 0) {
        json_decref(o);
        return NULL;
    }
    return o;
}

int cmd_stats(struct cli *cli, const struct args *args)
{
    static const char *const columns[] = {"Datastore", "Mount point", ">Hits",  ">Misses",
                                          ">Memory",   ">Cache",      ">Store", ">Median",
                                          ">99 %",     ">Stalled",    ">In use"};
    bool json = args_flag(args, "--json");
    AUTO(table_free) struct table *table = table_new(columns, sizeof columns / sizeof *columns);
    struct stats s = {.table = table, .rows = json ? json_array() : NULL};
    struct cache_usage usage = {.used_bytes = 0};
    struct cache_place place;
    struct err err = ERR_INIT;

    int code = cache_place_choose(cli, NULL, &place);
    if (code != CLI_DONE) {
        json_decref(s.rows);
        return code;
    }
    int r = !table || (json && !s.rows) ? -ENOMEM : attach_each(add_row, &s, &err);
    if (r < 0) {
        json_decref(s.rows);
        return say_err(&err, r);
    }
    bool is_there = look_at_cache(&place, &usage);
    if (json)
        return json_print(
            json_pack("{s:o, s:o}", "mounts", s.rows, "cache", json_cache(&place, &usage)));
    if (s.count == 0)
        say("nothing is mounted");
    else if (table_print(table, stdout) < 0)
        return say_failed("out of memory");
    return print_cache(&place, &usage, is_there);
}
