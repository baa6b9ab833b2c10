/* SPDX-License-Identifier: Apache-2.0 */
/*
 * grid datastore prefetch: bring a version, or some paths of it, into the disk cache before anybody
 * asks. And --drop: take it out again.
 */
#include "cli/hydrate.h"

#include <string.h>

const struct option cmd_prefetch_options[] = {
    {"--drop", 0, NULL, "remove it from the cache instead; without NAME: everything", NULL},
    OPTION_CACHE_SIZE,
    OPTION_CLUSTER,
    OPTION_JSON,
    OPTION_END};

/* The cache keeps marks beside the data, and whole blocks of the disk. */
#define OVERHEAD_SHARE 100u

/* ---- dropping ---- */

static int drop_version(struct opened *o, uint64_t *ret_pinned)
{
    const struct manifest *m = view_manifest(o->view);
    uint64_t pinned = 0;

    for (uint32_t i = 0; i <= m->pack_count; i++) {
        const struct object_ref *ref = i ? &m->packs[i - 1] : &m->index;
        struct cache_object *c = NULL;
        int r = cache_object_open(o->cache, &ref->digest, ref->length, &c);
        if (r == 0)
            r = cache_object_drop(c);
        cache_object_close(c);
        pinned += r == -EBUSY;
        if (r < 0 && r != -EBUSY)
            return r;
    }
    *ret_pinned = pinned;
    return 0;
}

static int say_dropped(const struct args *args, uint64_t freed, uint64_t pinned)
{
    char text[FIGURE_MAX];

    if (args_flag(args, "--json"))
        return json_print(json_pack("{s:I, s:I}", "freed_bytes", (json_int_t)freed,
                                    "pinned_objects", (json_int_t)pinned));
    say("%s freed", figure_bytes(freed, text));
    if (pinned)
        say("%s stay: a mount stands on them", figure_things(pinned, "object", text));
    return CLI_DONE;
}

static int drop_all(const struct args *args, const struct cache_place *place)
{
    AUTO(cache_close) struct cache *c = NULL;
    struct err err = ERR_INIT;
    uint64_t freed = 0;

    int r = cache_place_open(place, &c, &err);
    if (r < 0)
        return say_err(&err, r);
    r = cache_drop(c, &freed);
    if (r < 0)
        return say_failed("the cache %s could not be emptied: %s", place->dir, strerror(-r));
    return say_dropped(args, freed, 0);
}

static int drop(struct opened *o, const struct args *args)
{
    struct cache_usage before, after;
    uint64_t pinned = 0;

    (void)cache_usage(o->cache, &before); /* cannot fail */
    int r = drop_version(o, &pinned);
    if (r < 0)
        return say_failed("%s:%u could not be removed from the cache: %s", o->info.name,
                          o->info.version, strerror(-r));
    (void)cache_usage(o->cache, &after);
    uint64_t freed =
        before.used_bytes > after.used_bytes ? before.used_bytes - after.used_bytes : 0;
    return say_dropped(args, freed, pinned);
}

/* ---- what is wanted ---- */

struct wanted {
    struct hydrate *h;
    uint64_t files;
};

static int want(struct wanted *w, const struct index_inode *inode)
{
    if (inode->type != INDEX_FILE)
        return 0;
    w->files++;
    return hydrate_add_file(w->h, inode);
}

static int want_below(struct wanted *w, struct view *v, const struct index_inode *root)
{
    AUTO(walk_free) struct walk *walk = NULL;
    struct walk_item item;
    int r = walk_new(v, root, &walk);

    while (r == 0 && (r = walk_next(walk, &item)) == 1)
        r = interrupt_signal ? -ECANCELED : item.leaving ? 0 : want(w, &item.inode);
    return r;
}

static int want_path(struct wanted *w, struct opened *o, const char *path)
{
    struct index_inode inode;

    while (*path == '/')
        path++;
    int r = view_walk(o->view, path, &inode);
    if (r == 0)
        r = inode.type == INDEX_DIRECTORY ? want_below(w, o->view, &inode) : want(w, &inode);
    if (r < 0 && r != -ECANCELED)
        return say_failed("%s:%u/%s: %s", o->info.name, o->info.version, path, strerror(-r));
    return r < 0 ? 128 + interrupt_signal : CLI_DONE;
}

static int choose(struct opened *o, const struct args *args, struct wanted *w)
{
    int code = CLI_DONE;

    if (args->words.count == 1 && !o->path[0]) {
        w->files = view_manifest(o->view)->files;
        return hydrate_add_all(w->h) < 0 ? say_failed("out of memory") : CLI_DONE;
    }
    if (o->path[0])
        code = want_path(w, o, o->path);
    for (size_t i = 1; code == CLI_DONE && i < args->words.count; i++)
        code = want_path(w, o, args->words.at[i]);
    return code;
}

/* ---- doing it ---- */

static int check_room(const struct opened *o, const struct cache_place *place, uint64_t bytes)
{
    struct cache_usage u;
    char a[FIGURE_MAX], b[FIGURE_MAX];

    (void)cache_usage(o->cache, &u); /* cannot fail */
    if (bytes + bytes / OVERHEAD_SHARE <= u.limit_bytes)
        return CLI_DONE;
    return say_failed("%s:%u needs %s and the cache %s may take %s: name some paths of it, or give "
                      "it room by --cache-size, GRID_CACHE_SIZE or, on another disk, GRID_CACHE",
                      o->info.name, o->info.version, figure_bytes(bytes, a), place->dir,
                      figure_bytes(u.limit_bytes, b));
}

static int tell(const struct opened *o, const struct args *args, const struct wanted *w,
                uint64_t bytes, double seconds)
{
    struct fetch_stats stats;
    char a[FIGURE_MAX], b[FIGURE_MAX], c[FIGURE_MAX];

    fetch_stats(o->fetch, &stats);
    if (args_flag(args, "--json"))
        return json_print(json_pack(
            "{s:s, s:I, s:I, s:I, s:I, s:f}", "name", o->info.name, "version",
            (json_int_t)o->info.version, "files", (json_int_t)w->files, "size_bytes",
            (json_int_t)bytes, "fetched_bytes", (json_int_t)stats.bytes_store, "seconds", seconds));
    say("%s of %s:%u, %s, are in the cache; %s were fetched", figure_things(w->files, "file", a),
        o->info.name, o->info.version, figure_bytes(bytes, b), figure_bytes(stats.bytes_store, c));
    return CLI_DONE;
}

static int prefetch(struct opened *o, const struct args *args, const struct cache_place *place)
{
    AUTO(hydrate_free) struct hydrate *h = NULL;
    struct wanted w = {.files = 0};
    struct err err = ERR_INIT;
    int64_t began_ms = env_real()->boot_ms(env_real());

    int r = hydrate_new(o, &h);
    if (r < 0)
        return say_failed("%s:%u: %s", o->info.name, o->info.version, strerror(-r));
    w.h = h;
    int code = choose(o, args, &w);
    if (code != CLI_DONE)
        return code;
    uint64_t bytes = hydrate_plan(h);
    code = check_room(o, place, bytes);
    if (code != CLI_DONE)
        return code;
    struct progress p = {.phase = "Fetching"};
    if (args->words.count > 1 || o->path[0])
        p.files_total = w.files;
    r = hydrate_run(h, &p, &err);
    if (r == -ECANCELED) {
        say("interrupted; the same command goes on where this one stopped");
        return 128 + interrupt_signal;
    }
    if (r < 0) {
        err_prefix(&err, r, "%s:%u is not all in the cache", o->info.name, o->info.version);
        return say_err(&err, r);
    }
    double seconds = (double)(env_real()->boot_ms(env_real()) - began_ms) / 1000;
    return tell(o, args, &w, bytes, seconds);
}

/* Why there is nothing to do: *ret_code, after a sentence. */
static bool needs_none(const struct opened *o, const struct cache_place *place, int *ret_code)
{
    *ret_code = CLI_DONE;
    if (place->off)
        *ret_code = say_failed("the cache is switched off by --cache-size or GRID_CACHE_SIZE");
    else if (!cache_place_is_wanted(place, o->store))
        say("%s:%u lies in a store on a disk of this machine, and is read there: nothing to fetch",
            o->info.name, o->info.version);
    else if (view_manifest(o->view)->linked)
        *ret_code = say_failed("%s:%u is linked: its data stays in its source and is not kept here",
                               o->info.name, o->info.version);
    else if (!o->cache)
        *ret_code = say_failed("there is no cache to fetch into");
    else
        return false;
    return true;
}

int cmd_prefetch(struct cli *cli, const struct args *args)
{
    AUTO(opened_release) struct opened o = {0};
    struct cache_place place;
    bool dropping = args_flag(args, "--drop");

    int code = cache_place_choose(cli, args, &place);
    if (code != CLI_DONE)
        return code;
    if (args->words.count == 0)
        return dropping ? drop_all(args, &place)
                        : say_usage(args->command, "a datastore is missing: NAME");
    if (dropping && args->words.count > 1)
        return say_usage(args->command, "--drop takes a whole version");
    interrupt_catch();
    code = open_view_cached(cli, args->words.at[0], !dropping, &place, true, &o);
    if (code != CLI_DONE || needs_none(&o, &place, &code))
        return code;
    return dropping ? drop(&o, args) : prefetch(&o, args, &place);
}
