/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The workers of a stream. Each takes an empty batch, gets the stream's next part under a lock, and
 * then, beside the others, has it completed (members inflated), and digests it.
 *
 * A worker has its batch before it asks for a part, so whoever has the lowest number can always go
 * on, and nothing can be stuck.
 */
#include "publish/publish-stream.h"

#include "base/queue.h"

#include <stdatomic.h>
#include <time.h>

#define WORKERS_MAX  8u
#define BATCHES_MAX  (2 * WORKERS_MAX + 2)
#define BUFFER_ALIGN 4096 /* so that a store may write it past the page cache */
#define LEAVES_MAX   (SOURCE_PART_ITEMS + SOURCE_PART_ROOM / PACK_LEAF_MAX + 1)
#define WAIT_MS      200 /* then progress is told, and a wish to stop is heard */

/* NOLINTNEXTLINE(misc-redundant-expression): two names for what must stay one number. */
_Static_assert(SOURCE_PIECE == PACK_BLOB_MAX, "a piece of a stream is a blob");
_Static_assert(SOURCE_PART_ALIGN == PACK_BLOCK, "files start at blocks");

struct stream_pipe {
    struct publish *p;
    struct source *source;
    struct stream_batch batches[BATCHES_MAX];
    size_t batch_count;
    struct queue *empty;
    atomic_bool stop;

    pthread_mutex_t next_lock;
    uint64_t next_sequence; /* under next_lock */
    bool ended;             /* under next_lock: for everybody */
    unsigned active;        /* under next_lock: workers for whom there may be more */

    pthread_mutex_t done_lock;
    pthread_cond_t done;
    struct stream_batch *ready[BATCHES_MAX]; /* under done_lock; by sequence modulo batch_count */
    uint64_t taken, end;                     /* under done_lock; end: UINT64_MAX until known */

    pthread_t threads[WORKERS_MAX];
    unsigned thread_count;
};

/* ---- a part -----------------------------------------------------------------------------------
 */

static bool is_zero(const uint8_t *p, size_t size)
{
    return p[0] == 0 && memcmp(p, p + 1, size - 1) == 0;
}

static void digest_leaves(struct stream_batch *b, const uint8_t *data, size_t size)
{
    b->leaf_count += pack_make_leaves(data, 0, size, &b->leaves[b->leaf_count]);
}

/* Digests, and zeros behind the last byte, up to the block where the next file starts. */
static int finish_item(struct stream_batch *b, size_t i)
{
    const struct source_item *it = &b->part.items[i];
    struct stream_piece *piece = &b->pieces[i];
    uint64_t room = pack_blocks(it->size) * PACK_BLOCK;

    *piece = (struct stream_piece){.kind = it->hole && it->size > 0 ? PIECE_ZEROS : PIECE_NONE};
    if (it->hole || it->size == 0)
        return 0;
    if (it->size > SOURCE_PIECE || it->data % PACK_BLOCK != 0 || it->data > SOURCE_PART_ROOM ||
        room > SOURCE_PART_ROOM - it->data)
        return -EPROTO;
    uint8_t *data = b->part.data + it->data;
    if (is_zero(data, (size_t)it->size)) {
        piece->kind = PIECE_ZEROS;
        return 0;
    }
    memset(data + it->size, 0, (size_t)(room - it->size));
    piece->kind = PIECE_DATA;
    piece->leaf = b->leaf_count;
    digest_leaves(b, data, (size_t)it->size);
    piece->leaf_count = b->leaf_count - piece->leaf;
    piece->id = pack_blob_id(&b->leaves[piece->leaf], piece->leaf_count);
    return 0;
}

static int finish_part(struct stream_batch *b)
{
    for (size_t i = 0; i < b->part.count; i++) {
        int r = finish_item(b, i);
        if (r < 0)
            return err_fail(&b->err, r, "the stream broke its own rules");
    }
    return 0;
}

/* ---- workers ----------------------------------------------------------------------------------
 */

static void post(struct stream_pipe *pipe, struct stream_batch *b)
{
    WITH_LOCK(&pipe->done_lock);
    pipe->ready[b->sequence % pipe->batch_count] = b;
    if (b->sequence == pipe->taken) /* in between, nobody waits for it */
        pthread_cond_signal(&pipe->done);
}

static void post_end(struct stream_pipe *pipe, uint64_t end)
{
    WITH_LOCK(&pipe->done_lock);
    pipe->end = end;
    pthread_cond_signal(&pipe->done);
}

static void batch_clear(struct stream_batch *b)
{
    b->part.count = b->part.data_size = b->leaf_count = 0;
    buf_clear(&b->part.texts);
    b->error = 0;
    err_clear(&b->err);
}

/* True: `b` has its number, and a part, or the error that ends the stream. */
static bool next_part(struct stream_pipe *pipe, struct source_worker *w, struct stream_batch *b)
{
    WITH_LOCK(&pipe->next_lock);
    if (pipe->ended)
        return false;
    int r = w ? pipe->source->stream->next(pipe->source, w, &b->part, &b->err)
              : err_fail(&b->err, -ENOMEM, "out of memory");
    if (r == 1) {
        b->sequence = pipe->next_sequence++;
        return true;
    }
    if (r < 0) {
        b->error = r;
        b->sequence = pipe->next_sequence++;
    }
    pipe->ended = r < 0 || --pipe->active == 0;
    if (pipe->ended)
        post_end(pipe, pipe->next_sequence);
    return r < 0;
}

/* A worker that is done gives its batch to those who are not. */
static void leave(struct stream_pipe *pipe, struct stream_batch *b)
{
    bool ended;
    {
        WITH_LOCK(&pipe->next_lock);
        ended = pipe->ended;
    }
    if (b)
        stream_pipe_give_back(pipe, b);
    if (ended || atomic_load(&pipe->stop))
        queue_close(pipe->empty); /* the others need not wait for more */
}

static void *work(void *ctx)
{
    struct stream_pipe *pipe = ctx;
    struct source_worker *w = NULL;
    struct stream_batch *b;

    if (pipe->source->stream->worker_new(pipe->source, &w) < 0)
        w = NULL; /* said in next_part() */
    while ((b = queue_pop(pipe->empty)) != NULL) {
        batch_clear(b);
        if (atomic_load(&pipe->stop) || !next_part(pipe, w, b))
            break;
        if (b->error == 0)
            b->error = pipe->source->stream->fill(pipe->source, w, &b->part, &b->err);
        if (b->error == 0)
            b->error = finish_part(b);
        post(pipe, b);
        b = NULL;
    }
    leave(pipe, b);
    if (w)
        pipe->source->stream->worker_free(pipe->source, w);
    return NULL;
}

/* ---- the writer's side ------------------------------------------------------------------------
 */

static struct stream_batch *take_ready(struct stream_pipe *pipe)
{
    struct stream_batch **slot = &pipe->ready[pipe->taken % pipe->batch_count];
    struct stream_batch *b = *slot;

    if (b) {
        *slot = NULL;
        pipe->taken++;
    }
    return b;
}

struct stream_batch *stream_pipe_take(struct stream_pipe *pipe, bool *ret_waiting)
{
    struct timespec until;

    (void)clock_gettime(CLOCK_MONOTONIC, &until); /* cannot fail: the clock exists */
    until.tv_nsec += WAIT_MS * 1000000L;
    until.tv_sec += until.tv_nsec / 1000000000L;
    until.tv_nsec %= 1000000000L;
    WITH_LOCK(&pipe->done_lock);
    *ret_waiting = false;
    for (;;) {
        struct stream_batch *b = take_ready(pipe);
        if (b || pipe->taken == pipe->end)
            return b;
        if (pthread_cond_timedwait(&pipe->done, &pipe->done_lock, &until) == ETIMEDOUT) {
            *ret_waiting = true;
            return NULL;
        }
    }
}

void stream_pipe_give_back(struct stream_pipe *pipe, struct stream_batch *b)
{
    (void)queue_push(pipe->empty, b); /* refused when the stream has ended */
}

/* ---- life -------------------------------------------------------------------------------------
 */

static int batch_init(struct stream_batch *b)
{
    buf_init(&b->part.texts, SOURCE_PART_TEXTS);
    b->part.items = malloc(SOURCE_PART_ITEMS * sizeof *b->part.items);
    b->pieces = malloc(SOURCE_PART_ITEMS * sizeof *b->pieces);
    b->leaves = malloc(LEAVES_MAX * sizeof *b->leaves);
    if (posix_memalign((void **)&b->part.data, BUFFER_ALIGN, SOURCE_PART_ROOM) != 0)
        b->part.data = NULL;
    return b->part.items && b->pieces && b->leaves && b->part.data ? 0 : -ENOMEM;
}

static void batch_release(struct stream_batch *b)
{
    buf_release(&b->part.texts);
    free(b->part.items);
    free(b->part.data);
    free(b->pieces);
    free(b->leaves);
}

static unsigned choose_workers(const struct publish *p)
{
    long cpus = sysconf(_SC_NPROCESSORS_ONLN);
    unsigned workers = p->o->workers ? p->o->workers : cpus > 0 ? (unsigned)cpus : 1;

    return workers < WORKERS_MAX ? workers : WORKERS_MAX;
}

static int start_threads(struct stream_pipe *pipe, unsigned workers)
{
    while (pipe->thread_count < workers) {
        int r = pthread_create(&pipe->threads[pipe->thread_count], NULL, work, pipe);
        if (r != 0)
            return -r;
        pipe->thread_count++;
    }
    return 0;
}

static int init_sync(struct stream_pipe *pipe)
{
    pthread_condattr_t attr;

    (void)pthread_mutex_init(&pipe->next_lock, NULL); /* these cannot fail on Linux */
    (void)pthread_mutex_init(&pipe->done_lock, NULL);
    (void)pthread_condattr_init(&attr);
    (void)pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    (void)pthread_cond_init(&pipe->done, &attr);
    (void)pthread_condattr_destroy(&attr);
    pipe->empty = queue_new(BATCHES_MAX);
    return pipe->empty ? 0 : -ENOMEM;
}

int stream_pipe_start(struct publish *p, struct stream_pipe **ret)
{
    unsigned workers = choose_workers(p);
    AUTO(stream_pipe_stop) struct stream_pipe *pipe = calloc(1, sizeof *pipe);

    if (!pipe)
        return -ENOMEM;
    pipe->p = p;
    pipe->source = p->source;
    pipe->end = UINT64_MAX;
    pipe->batch_count = 2 * workers + 2;
    pipe->active = workers;
    int r = init_sync(pipe);
    for (size_t i = 0; r == 0 && i < pipe->batch_count; i++) {
        r = batch_init(&pipe->batches[i]);
        if (r == 0)
            stream_pipe_give_back(pipe, &pipe->batches[i]);
    }
    if (r == 0)
        r = start_threads(pipe, workers);
    if (r == 0)
        *ret = take_ptr(&pipe);
    return r;
}

void stream_pipe_stop(struct stream_pipe *pipe)
{
    if (!pipe)
        return;
    atomic_store(&pipe->stop, true);
    pipe->source->stream->stop(pipe->source);
    if (pipe->empty)
        queue_close(pipe->empty);
    for (unsigned i = 0; i < pipe->thread_count; i++)
        pthread_join(pipe->threads[i], NULL);
    for (size_t i = 0; i < pipe->batch_count; i++)
        batch_release(&pipe->batches[i]);
    queue_free(pipe->empty);
    pthread_cond_destroy(&pipe->done);
    pthread_mutex_destroy(&pipe->done_lock);
    pthread_mutex_destroy(&pipe->next_lock);
    free(pipe);
}
