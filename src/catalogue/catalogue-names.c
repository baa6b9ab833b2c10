/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The rows of all names, where a listing crosses a network.
 *
 * A bucket gives a thousand keys a request, and the next page only after the last; a version has
 * three keys. So the names are listed first (one short listing), cut into as many runs as there may
 * be threads, and each run is listed on a thread of its own. Runs stand in key order and a name is
 * never cut, so the rows come out as one long listing would have told them.
 */
#include "catalogue/catalogue-internal.h"

/* At once. Each keeps a connection; more would only make pages that are half empty. */
#define RUNS_MAX 32u

struct name_keys {
    VEC(char *) keys; /* "n/<name>/", in key order */
    int error;
};

static void name_keys_release(struct name_keys *n)
{
    for (size_t i = 0; i < n->keys.count; i++)
        free(n->keys.at[i]);
    vec_release(&n->keys);
}

static inline void auto_name_keys_release(struct name_keys *n)
{
    name_keys_release(n);
}

static int take_name(void *ctx, const struct store_entry *entry)
{
    struct name_keys *n = ctx;

    if (!entry->is_prefix)
        return 0;
    char *copy = strdup(entry->key);
    n->error = copy ? vec_push(&n->keys, copy) : -ENOMEM;
    if (n->error)
        free(copy);
    return n->error ? 1 : 0;
}

/* A run of names, and what its thread has found. */
struct run {
    struct catalogue *c;
    const char *first, *end; /* end: the first key behind it; NULL: there is none */
    struct version_rows v;
    int result;
    struct err err;
    pthread_t thread;
    bool started;
};

static int take_row(void *ctx, const struct store_entry *entry)
{
    struct run *run = ctx;
    struct key_parts parts;

    if (run->end && strcmp(entry->key, run->end) >= 0)
        return 1;
    if (entry->is_prefix || !key_parse_version(entry->key, &parts))
        return 0;
    run->result = version_rows_add(&run->v, entry, &parts);
    return run->result ? 1 : 0;
}

static void *list_run(void *ctx)
{
    struct run *run = ctx;
    struct store *s = run->c->store;
    struct store_list_options options = {.keys_only = true, .start_after = run->first};
    int r = store_list(s, KEY_VERSIONS, &options, take_row, run, NULL);

    if (r < 0 && run->result == 0)
        run->result = err_fail(&run->err, r, "cannot list %s in the store %s: %s", KEY_VERSIONS,
                               s->location, store_error(s, r));
    return NULL;
}

static int pass(struct run *run, version_row_fn *fn, void *ctx, struct err *err)
{
    if (run->result < 0)
        return err_fail(err, run->result, "%s", err_text(&run->err, run->result));
    for (size_t i = 0; i < run->v.rows.count; i++) {
        int r = fn(ctx, &run->v.rows.at[i]);
        if (r != 0)
            return r;
    }
    return 0;
}

static int list_runs(struct catalogue *c, const struct name_keys *names, version_row_fn *fn,
                     void *ctx, struct err *err)
{
    size_t count = names->keys.count < RUNS_MAX ? names->keys.count : RUNS_MAX;
    AUTO(free_ptr) struct run *runs = calloc(count + 1, sizeof *runs);
    int r = 0;

    if (!runs)
        return err_fail(err, -ENOMEM, "out of memory");
    for (size_t i = 0; i < count; i++) {
        size_t first = i * names->keys.count / count, end = (i + 1) * names->keys.count / count;
        runs[i].c = c;
        runs[i].first = names->keys.at[first];
        runs[i].end = end < names->keys.count ? names->keys.at[end] : NULL;
        runs[i].started = pthread_create(&runs[i].thread, NULL, list_run, &runs[i]) == 0;
    }
    for (size_t i = 0; i < count; i++) {
        if (runs[i].started)
            (void)pthread_join(runs[i].thread, NULL); /* ours, joinable: cannot fail */
        else if (r == 0)
            (void)list_run(&runs[i]); /* gives its result in the run */
        if (r == 0)
            r = pass(&runs[i], fn, ctx, err);
        vec_release(&runs[i].v.rows);
    }
    return r;
}

int version_rows_each(struct catalogue *c, version_row_fn *fn, void *ctx, struct err *err)
{
    AUTO(name_keys_release) struct name_keys names = {0};
    int r = store_list(c->store, KEY_VERSIONS, &(struct store_list_options){.by_component = true},
                       take_name, &names, NULL);

    if (r < 0 || names.error)
        return err_fail(err, r < 0 ? r : names.error, "cannot list %s in the store %s: %s",
                        KEY_VERSIONS, c->store->location,
                        store_error(c->store, r < 0 ? r : names.error));
    return list_runs(c, &names, fn, ctx, err);
}
