/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Many versions: the listing, and finding the one that is meant.
 *
 * One listing of keys says what there is; then the records are read by a few threads, in chunks,
 * and handed out in order. The caller's thread reads too, so one reader means no thread at all
 * (which is how the simulator runs this). What is read ahead of the caller is bounded.
 */
#include "catalogue/catalogue-internal.h"

#include "base/name.h"

#include <inttypes.h>

#define READERS_MAX 16u
/* Rows that a thread takes at once: long enough that the lock does not matter. */
#define CHUNK_ROWS 32u
/* Chunks read ahead of the one that is handed out: with 2 KB a row, 1 MB. */
#define CHUNKS_AHEAD 16u

struct chunk {
    bool done;
    int error;   /* of the row behind the last good one */
    size_t good; /* rows read */
    struct err err;
    struct version_info *infos; /* owned; chunk_rows of them */
};

struct reading {
    struct catalogue *c;
    const struct version_row *rows;
    size_t row_count, chunk_rows, chunk_count;
    pthread_mutex_t lock; /* guards all below */
    pthread_cond_t changed;
    size_t next;      /* chunk to be taken */
    size_t delivered; /* chunks handed out: chunks below delivered + CHUNKS_AHEAD may be taken */
    bool stop;
    struct chunk slots[CHUNKS_AHEAD];
};

/* Takes the next chunk if there is room, waiting for room if `wait`. False: nothing to take. */
static bool take_chunk(struct reading *g, bool wait, size_t *ret)
{
    WITH_LOCK(&g->lock);
    while (wait && !g->stop && g->next < g->chunk_count && g->next >= g->delivered + CHUNKS_AHEAD)
        pthread_cond_wait(&g->changed, &g->lock);
    if (g->stop || g->next >= g->chunk_count || g->next >= g->delivered + CHUNKS_AHEAD)
        return false;
    *ret = g->next++;
    return true;
}

static void read_chunk(struct reading *g, size_t number)
{
    struct chunk *chunk = &g->slots[number % CHUNKS_AHEAD];
    size_t first = number * g->chunk_rows;
    size_t count = g->row_count - first < g->chunk_rows ? g->row_count - first : g->chunk_rows;
    int r = 0;

    chunk->good = 0;
    err_clear(&chunk->err);
    if (!chunk->infos) {
        chunk->infos = calloc(g->chunk_rows, sizeof *chunk->infos);
        if (!chunk->infos)
            r = err_fail(&chunk->err, -ENOMEM, "out of memory");
    }
    for (size_t i = 0; r == 0 && i < count; i++) {
        r = version_read(g->c, &g->rows[first + i], &chunk->infos[i], &chunk->err);
        if (r == 0)
            chunk->good++;
    }
    chunk->error = r;
    WITH_LOCK(&g->lock);
    chunk->done = true;
    pthread_cond_broadcast(&g->changed);
}

static void *reader_main(void *ctx)
{
    struct reading *g = ctx;
    size_t number;

    while (take_chunk(g, true, &number))
        read_chunk(g, number);
    return NULL;
}

/* Until chunk `number` is read: read whatever nobody has taken yet, else wait. */
static void await_chunk(struct reading *g, size_t number)
{
    for (;;) {
        size_t mine;
        {
            WITH_LOCK(&g->lock);
            if (g->slots[number % CHUNKS_AHEAD].done)
                return;
        }
        if (take_chunk(g, false, &mine)) {
            read_chunk(g, mine);
            continue;
        }
        WITH_LOCK(&g->lock);
        while (!g->slots[number % CHUNKS_AHEAD].done)
            pthread_cond_wait(&g->changed, &g->lock);
        return;
    }
}

static int deliver(struct reading *g, catalogue_version_fn *fn, void *ctx, struct err *err)
{
    for (size_t number = 0; number < g->chunk_count; number++) {
        struct chunk *chunk = &g->slots[number % CHUNKS_AHEAD];
        await_chunk(g, number);
        for (size_t i = 0; i < chunk->good; i++) {
            int r = fn(ctx, &chunk->infos[i]);
            if (r != 0)
                return r;
        }
        if (chunk->error)
            return err_fail(err, chunk->error, "%s", err_text(&chunk->err, chunk->error));
        WITH_LOCK(&g->lock);
        chunk->done = false;
        g->delivered++;
        pthread_cond_broadcast(&g->changed);
    }
    return 0;
}

int versions_each(struct catalogue *c, const struct version_row *rows, size_t count,
                  catalogue_version_fn *fn, void *ctx, struct err *err)
{
    AUTO(free_ptr) struct reading *g = calloc(1, sizeof *g);
    pthread_t threads[READERS_MAX];
    unsigned started = 0;

    if (!g)
        return err_fail(err, -ENOMEM, "out of memory");
    g->c = c;
    g->rows = rows;
    g->row_count = count;
    g->chunk_rows = count >= 8 * CHUNK_ROWS ? CHUNK_ROWS : 1;
    g->chunk_count = (count + g->chunk_rows - 1) / g->chunk_rows;
    pthread_mutex_init(&g->lock, NULL);
    pthread_cond_init(&g->changed, NULL);
    while (started + 1 < c->readers && started + 1 < g->chunk_count && started < READERS_MAX &&
           pthread_create(&threads[started], NULL, reader_main, g) == 0)
        started++;

    int r = deliver(g, fn, ctx, err);
    {
        WITH_LOCK(&g->lock);
        g->stop = true;
        pthread_cond_broadcast(&g->changed);
    }
    while (started > 0)
        (void)pthread_join(threads[--started], NULL); /* ours, joinable: cannot fail */
    for (size_t i = 0; i < CHUNKS_AHEAD; i++)
        free(g->slots[i].infos);
    pthread_cond_destroy(&g->changed);
    pthread_mutex_destroy(&g->lock);
    return r;
}

/* ---- the listing ---- */

/* Key order is not name order: "a-b/" stands before "a/". */
static int compare_rows(const void *a, const void *b)
{
    const struct version_row *x = a, *y = b;
    int order = strcmp(x->name, y->name);

    if (order != 0)
        return order;
    return x->version < y->version ? 1 : x->version > y->version ? -1 : 0;
}

struct filter {
    catalogue_version_fn *fn;
    void *ctx;
};

static int leave_out_deleted(void *ctx, const struct version_info *info)
{
    struct filter *f = ctx;

    return info->status == VERSION_DELETED ? 0 : f->fn(f->ctx, info);
}

static int check_name(const char *name, struct err *err)
{
    if (name_is_valid(name))
        return 0;
    return err_fail(err, -EINVAL, "'%s' is no name of a datastore", name);
}

int catalogue_list(struct catalogue *c, const char *name, catalogue_version_fn *fn, void *ctx,
                   struct err *err)
{
    AUTO(version_rows_release) struct version_rows v = {0};
    char prefix[CATALOGUE_KEY_MAX] = KEY_VERSIONS;
    struct filter filter = {fn, ctx};
    int r = 0;

    if (name) {
        r = check_name(name, err);
        if (r == 0)
            key_versions(prefix, name);
    }
    if (r == 0)
        r = version_rows_list(c, prefix, &v, err);
    if (r < 0 || v.rows.count == 0)
        return r;
    qsort(v.rows.at, v.rows.count, sizeof *v.rows.at, compare_rows);
    return versions_each(c, v.rows.at, v.rows.count, leave_out_deleted, &filter, err);
}

/* ---- resolving ---- */

/* Read at once: usually the newest has succeeded. */
#define NEWEST 3u

struct newest {
    struct version_info found; /* version 0: none yet */
    struct version_info first; /* the newest of all, for the sentence */
};

static int look_for_succeeded(void *ctx, const struct version_info *info)
{
    struct newest *n = ctx;

    if (n->first.version == 0)
        n->first = *info;
    if (info->status != VERSION_SUCCEEDED)
        return 0;
    n->found = *info;
    return 1;
}

static int no_such_datastore(struct catalogue *c, const char *name, struct err *err)
{
    return err_fail(err, -ENOENT, "no datastore is named '%s' in %s", name, c->store->location);
}

static int unusable(const struct version_info *v, struct err *err)
{
    switch (v->status) {
    case VERSION_FAILED:
        return err_fail(err, -ENOENT, "version %" PRIu32 " of '%s' failed: %s", v->version, v->name,
                        v->reason);
    case VERSION_DELETED:
        return err_fail(err, -ENOENT, "version %" PRIu32 " of '%s' was deleted", v->version,
                        v->name);
    default:
        return err_fail(err, -ENOENT, "version %" PRIu32 " of '%s' is still being made (%s)",
                        v->version, v->name, version_status_name(v->status));
    }
}

/* The rows of the newest few versions behind `start_after`. */
struct newest_rows {
    struct version_rows v;
    char last[CATALOGUE_KEY_MAX]; /* the last key of those versions */
    int error;
};

static int fill_newest(void *ctx, const struct store_entry *entry)
{
    struct newest_rows *n = ctx;
    struct key_parts parts;

    if (strlen(entry->key) >= sizeof n->last || !key_parse_version(entry->key, &parts))
        return 0;
    bool same = n->v.rows.count && n->v.rows.at[n->v.rows.count - 1].version == parts.version;
    if (!same && n->v.rows.count == NEWEST)
        return 1;
    n->error = version_rows_add(&n->v, entry, &parts);
    if (n->error)
        return 1;
    memcpy(n->last, entry->key, strlen(entry->key) + 1);
    return 0;
}

static int resolve_newest(struct catalogue *c, const char *name, struct version_info *ret,
                          struct err *err)
{
    struct newest newest = {0};
    char prefix[CATALOGUE_KEY_MAX], after[CATALOGUE_KEY_MAX] = "";

    key_versions(prefix, name);
    for (;;) {
        struct newest_rows rows = {0};
        AUTO(version_rows_release) struct version_rows v = {0};
        int r = store_list(c->store, prefix,
                           &(struct store_list_options){.start_after = after[0] ? after : NULL},
                           fill_newest, &rows, NULL);
        v = rows.v;
        if (r < 0 || rows.error < 0)
            return err_fail(err, r < 0 ? r : rows.error,
                            "cannot list the versions of '%s' in the store %s: %s", name,
                            c->store->location, strerror(r < 0 ? -r : -rows.error));
        if (v.rows.count == 0)
            break;
        r = versions_each(c, v.rows.at, v.rows.count, look_for_succeeded, &newest, err);
        if (r < 0)
            return r;
        if (newest.found.version) {
            *ret = newest.found;
            return 0;
        }
        memcpy(after, rows.last, sizeof after);
    }
    if (newest.first.version == 0)
        return no_such_datastore(c, name, err);
    (void)unusable(&newest.first, err); /* the code is always the same: the sentence is wanted */
    return err_prefix(err, -ENOENT, "'%s' has no succeeded version", name);
}

static int no_such_version(struct catalogue *c, const char *name, uint32_t n, struct err *err)
{
    uint32_t highest;

    int r = version_highest(c, name, &highest, err);
    if (r < 0)
        return r;
    if (highest == 0)
        return no_such_datastore(c, name, err);
    if (highest == 1)
        return err_fail(err, -ENOENT, "'%s' has no version %" PRIu32 "; its only version is 1",
                        name, n);
    return err_fail(err, -ENOENT, "'%s' has no version %" PRIu32 "; its versions are 1 to %" PRIu32,
                    name, n, highest);
}

int catalogue_resolve(struct catalogue *c, const char *name, uint32_t n, struct version_info *ret,
                      struct err *err)
{
    AUTO(version_rows_release) struct version_rows v = {0};
    char prefix[CATALOGUE_KEY_MAX];
    struct version_info info;

    int r = check_name(name, err);
    if (r < 0)
        return r;
    if (n == 0)
        return resolve_newest(c, name, ret, err);
    if (n > CATALOGUE_VERSION_MAX)
        return no_such_version(c, name, n, err);
    key_version(prefix, name, n, "");
    r = version_rows_list(c, prefix, &v, err);
    if (r < 0)
        return r;
    if (v.rows.count == 0)
        return no_such_version(c, name, n, err);
    r = version_read(c, &v.rows.at[0], &info, err);
    if (r < 0)
        return r;
    if (info.status != VERSION_SUCCEEDED)
        return unusable(&info, err);
    *ret = info;
    return 0;
}
