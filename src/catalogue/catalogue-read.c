/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reads the records of many versions by a few threads and hands them out in order.
 *
 * Rows come in from a listing that is still going on; they are cut into chunks, read by whoever is
 * free (the caller's own thread too, so one reader means no thread at all, which is how the
 * simulator runs this), and handed out on the caller's thread as soon as their turn has come. The
 * ring of chunks bounds what is read ahead; nothing else is kept.
 */
#include "catalogue/catalogue-internal.h"

#define READERS_MAX 224u
/* Rows that a thread takes at once: long enough that the lock does not matter; where there are many
 * readers, each waits for a network, and all shall have something to wait for. */
#define CHUNK_ROWS     32u
#define CHUNK_ROWS_FAR 2u
/* The first few rows go one by one, so that a short listing is read in parallel too. */
#define SINGLE_ROWS 8u
/* Chunks in the ring: with 2 KB a row, 1 MB; far away more of the short ones, so that nobody waits
 * for a place in it. */
#define CHUNKS     16u
#define CHUNKS_FAR 320u

struct chunk {
    struct version_row rows[CHUNK_ROWS];
    size_t row_count;
    struct version_info *infos; /* owned; one for each row */
    size_t good;                /* of them are read; version 0: one that is damaged */
    int error;                  /* of the row behind */
    struct err err;
    unsigned damaged; /* of the good ones */
    int damage;       /* the first one's code */
    struct err damage_err;
    bool done; /* under lock */
};

struct version_reading {
    struct catalogue *c;
    catalogue_version_fn *fn;
    void *ctx;
    struct err *err;
    bool past_damage; /* go on behind a damaged record, and fail at the end */
    unsigned damaged;
    int damage;
    struct err damage_err; /* of the first */
    pthread_t threads[READERS_MAX];
    unsigned started;
    pthread_mutex_t lock; /* guards all below, and `done` */
    pthread_cond_t work;  /* for the readers */
    pthread_cond_t done;  /* for who delivers */
    unsigned idle;        /* readers that wait */
    const struct chunk *awaited;
    size_t submitted, taken, delivered; /* chunk numbers; the slot is number % chunks */
    bool stop;
    size_t chunk_rows, chunks;      /* in use: of CHUNK_ROWS, of CHUNKS_FAR */
    struct chunk slots[CHUNKS_FAR]; /* a chunk belongs to who fills, has taken, or delivers it */
};

int version_reading_new(struct catalogue *c, catalogue_version_fn *fn, void *ctx, bool past_damage,
                        struct err *err, struct version_reading **ret)
{
    struct version_reading *g = calloc(1, sizeof *g);

    if (!g)
        return err_fail(err, -ENOMEM, "out of memory");
    g->c = c;
    g->fn = fn;
    g->ctx = ctx;
    g->err = err;
    g->past_damage = past_damage;
    g->chunk_rows = c->readers > CATALOGUE_READERS ? CHUNK_ROWS_FAR : CHUNK_ROWS;
    g->chunks = c->readers > CATALOGUE_READERS ? CHUNKS_FAR : CHUNKS;
    pthread_mutex_init(&g->lock, NULL);
    pthread_cond_init(&g->work, NULL);
    pthread_cond_init(&g->done, NULL);
    *ret = g;
    return 0;
}

void version_reading_free(struct version_reading *g)
{
    if (!g)
        return;
    {
        WITH_LOCK(&g->lock);
        g->stop = true;
        pthread_cond_broadcast(&g->work);
    }
    while (g->started > 0)
        (void)pthread_join(g->threads[--g->started], NULL); /* ours, joinable: cannot fail */
    for (size_t i = 0; i < g->chunks; i++)
        free(g->slots[i].infos);
    pthread_cond_destroy(&g->work);
    pthread_cond_destroy(&g->done);
    pthread_mutex_destroy(&g->lock);
    free(g);
}

/* The store has answered, and what it holds is wrong: another row may be right. */
static bool is_damage(int code)
{
    return code == -EBADMSG || code == -EPROTO || code == -EPROTONOSUPPORT;
}

static int read_row(struct version_reading *g, struct chunk *chunk, size_t i)
{
    struct err err = ERR_INIT;
    int r = version_read(g->c, &chunk->rows[i], &chunk->infos[i], &err);

    if (r < 0 && g->past_damage && is_damage(r)) {
        chunk->infos[i].version = 0;
        if (chunk->damaged++ == 0) {
            chunk->damage = r;
            chunk->damage_err = err;
        }
        return 0;
    }
    if (r < 0)
        chunk->err = err;
    return r;
}

static void read_chunk(struct version_reading *g, struct chunk *chunk)
{
    int r = 0;

    chunk->good = 0;
    chunk->damaged = 0;
    err_clear(&chunk->err);
    if (!chunk->infos) {
        chunk->infos = calloc(g->chunk_rows, sizeof *chunk->infos);
        if (!chunk->infos)
            r = err_fail(&chunk->err, -ENOMEM, "out of memory");
    }
    for (size_t i = 0; r == 0 && i < chunk->row_count; i++) {
        r = read_row(g, chunk, i);
        if (r == 0)
            chunk->good++;
    }
    chunk->error = r;
    WITH_LOCK(&g->lock);
    chunk->done = true;
    if (chunk == g->awaited)
        pthread_cond_signal(&g->done);
}

/* The next chunk that nobody has taken. NULL: none; with `wait`, only when it is over. */
static struct chunk *take_chunk(struct version_reading *g, bool wait)
{
    WITH_LOCK(&g->lock);
    while (wait && !g->stop && g->taken == g->submitted) {
        g->idle++;
        pthread_cond_wait(&g->work, &g->lock);
        g->idle--;
    }
    if (g->stop || g->taken == g->submitted)
        return NULL;
    return &g->slots[g->taken++ % g->chunks];
}

static void *reader_main(void *ctx)
{
    struct version_reading *g = ctx;

    for (struct chunk *chunk; (chunk = take_chunk(g, true));)
        read_chunk(g, chunk);
    return NULL;
}

static bool is_done(struct version_reading *g, const struct chunk *chunk)
{
    WITH_LOCK(&g->lock);
    return chunk->done;
}

/* Hand out the oldest chunk. It is there; until it is read, read whatever nobody has taken yet. */
static int deliver(struct version_reading *g)
{
    struct chunk *chunk = &g->slots[g->delivered % g->chunks], *mine;

    while (!is_done(g, chunk) && (mine = take_chunk(g, false)))
        read_chunk(g, mine);
    {
        WITH_LOCK(&g->lock);
        g->awaited = chunk;
        while (!chunk->done)
            pthread_cond_wait(&g->done, &g->lock);
        g->awaited = NULL;
        chunk->done = false;
    }
    g->delivered++; /* only this thread uses it */
    if (chunk->damaged && !g->damaged) {
        g->damage = chunk->damage;
        g->damage_err = chunk->damage_err;
    }
    g->damaged += chunk->damaged;
    for (size_t i = 0; i < chunk->good; i++) {
        int r = chunk->infos[i].version ? g->fn(g->ctx, &chunk->infos[i]) : 0;
        if (r != 0)
            return r;
    }
    size_t count = chunk->row_count;
    chunk->row_count = 0;
    if (chunk->good < count)
        return err_fail(g->err, chunk->error, "%s", err_text(&chunk->err, chunk->error));
    return 0;
}

/* Give the chunk that was filled to the readers, and hand out what is ready. */
static int submit(struct version_reading *g)
{
    bool all_busy;

    {
        WITH_LOCK(&g->lock);
        g->submitted++;
        all_busy = g->idle == 0;
        pthread_cond_signal(&g->work);
    }
    if (all_busy && g->started + 1 < g->c->readers && g->started < READERS_MAX &&
        g->submitted > 1 && pthread_create(&g->threads[g->started], NULL, reader_main, g) == 0)
        g->started++;
    while (g->delivered < g->submitted) {
        bool full = g->submitted - g->delivered == g->chunks;
        if (!full && !is_done(g, &g->slots[g->delivered % g->chunks]))
            break;
        int r = deliver(g);
        if (r != 0)
            return r;
    }
    return 0;
}

int version_reading_add(struct version_reading *g, const struct version_row *row)
{
    struct chunk *chunk = &g->slots[g->submitted % g->chunks];
    size_t full = g->submitted < SINGLE_ROWS ? 1 : g->chunk_rows;

    chunk->rows[chunk->row_count++] = *row;
    return chunk->row_count < full ? 0 : submit(g);
}

int version_reading_finish(struct version_reading *g)
{
    int r = g->slots[g->submitted % g->chunks].row_count ? submit(g) : 0;

    while (r == 0 && g->delivered < g->submitted)
        r = deliver(g);
    if (r != 0 || !g->damaged)
        return r;
    if (g->damaged == 1)
        return err_fail(g->err, g->damage, "%s", err_text(&g->damage_err, g->damage));
    return err_fail(g->err, g->damage, "%s; and %u more", err_text(&g->damage_err, g->damage),
                    g->damaged - 1);
}

int versions_each(struct catalogue *c, const struct version_row *rows, size_t count,
                  catalogue_version_fn *fn, void *ctx, struct err *err)
{
    struct version_reading *g = NULL;
    int r = version_reading_new(c, fn, ctx, false, err, &g);

    for (size_t i = 0; r == 0 && i < count; i++)
        r = version_reading_add(g, &rows[i]);
    if (r == 0)
        r = version_reading_finish(g);
    version_reading_free(g);
    return r;
}
