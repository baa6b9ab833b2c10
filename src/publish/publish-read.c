/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The reading threads. Each takes an empty batch, gets from the plan what is next, reads it, and
 * posts it; the writer takes batches in the order of the plan.
 *
 * Batches are allocated once, so memory is bounded. A thread has its batch before it asks the plan,
 * so whoever has the lowest number can always go on, and nothing can be stuck. One lock and one
 * wake-up per batch, not per file.
 */
#include "publish/publish-pipe.h"

#include "base/queue.h"

#include <stdatomic.h>
#include <time.h>

#define WORKERS_MAX  8u
#define BATCHES_MAX  (2 * WORKERS_MAX + 2)
#define BUFFER_ALIGN 4096 /* so that a store may write it past the page cache */
#define WAIT_MS      200  /* then progress is told, and a wish to stop is heard */

struct pipe {
    struct publish *p;
    struct batch batches[BATCHES_MAX];
    size_t batch_count;
    struct queue *empty;
    atomic_bool stop;

    pthread_mutex_t plan_lock;
    struct plan plan;       /* under plan_lock */
    struct ahead ahead;     /* under plan_lock */
    uint64_t planned_items; /* under plan_lock: files and pieces */
    uint64_t next_sequence; /* under plan_lock */
    bool planned;           /* under plan_lock: all of it */

    pthread_mutex_t done_lock;
    pthread_cond_t done;
    struct batch *ready[BATCHES_MAX]; /* under done_lock; by sequence modulo batch_count */
    uint64_t end;                     /* under done_lock: how many batches there are */
    uint64_t taken;                   /* the writer's */

    pthread_t threads[WORKERS_MAX];
    unsigned thread_count;
};

static void post(struct pipe *pipe, struct batch *b)
{
    WITH_LOCK(&pipe->done_lock);
    pipe->ready[b->sequence % pipe->batch_count] = b;
    /* In between, nobody waits for it. */
    if (b->sequence == pipe->taken)
        pthread_cond_signal(&pipe->done);
}

static void post_end(struct pipe *pipe, uint64_t end)
{
    WITH_LOCK(&pipe->done_lock);
    pipe->end = end;
    pthread_cond_signal(&pipe->done);
}

/* 1: `b` is planned; 0: nothing is left. A failure of the plan travels in the batch. */
static int next_plan(struct pipe *pipe, struct batch *b)
{
    WITH_LOCK(&pipe->plan_lock);
    if (pipe->planned)
        return 0;
    int r = plan_batch(&pipe->plan, b);
    if (r == 0) {
        pipe->planned = true;
        post_end(pipe, pipe->next_sequence);
        return 0;
    }
    b->sequence = pipe->next_sequence++;
    b->error = r < 0 ? r : 0;
    pipe->planned_items += b->count;
    ahead_tell(&pipe->ahead, pipe->planned_items);
    if (r < 0) {
        pipe->planned = true;
        post_end(pipe, pipe->next_sequence);
    }
    return 1;
}

static void *read_batches(void *ctx)
{
    struct pipe *pipe = ctx;
    struct reader rd;
    struct batch *b;

    reader_init(&rd, pipe->p);
    while ((b = queue_pop(pipe->empty)) != NULL) {
        if (atomic_load(&pipe->stop) || next_plan(pipe, b) == 0)
            break;
        if (b->error == 0)
            reader_read(&rd, b);
        post(pipe, b);
    }
    queue_close(pipe->empty); /* the others need not wait for more */
    reader_release(&rd);
    return NULL;
}

/* ---- the writer's side ------------------------------------------------------------------------
 */

static struct batch *take_ready(struct pipe *pipe)
{
    struct batch **slot = &pipe->ready[pipe->taken % pipe->batch_count];
    struct batch *b = *slot;

    if (b) {
        *slot = NULL;
        pipe->taken++;
    }
    return b;
}

struct batch *pipe_take(struct pipe *pipe, bool *ret_waiting)
{
    struct timespec until;

    (void)clock_gettime(CLOCK_MONOTONIC, &until); /* cannot fail: the clock exists */
    until.tv_nsec += WAIT_MS * 1000000L;
    until.tv_sec += until.tv_nsec / 1000000000L;
    until.tv_nsec %= 1000000000L;
    WITH_LOCK(&pipe->done_lock);
    *ret_waiting = false;
    for (;;) {
        struct batch *b = take_ready(pipe);
        if (b || pipe->taken == pipe->end)
            return b;
        if (pthread_cond_timedwait(&pipe->done, &pipe->done_lock, &until) == ETIMEDOUT) {
            *ret_waiting = true;
            return NULL;
        }
    }
}

void pipe_give_back(struct pipe *pipe, struct batch *b)
{
    (void)queue_push(pipe->empty, b); /* refused when nothing is left to read */
}

pthread_mutex_t *pipe_tree_lock(struct pipe *pipe)
{
    return &pipe->plan_lock;
}

/* ---- life -------------------------------------------------------------------------------------
 */

static int batch_init(struct batch *b)
{
    buf_init(&b->paths, BATCH_FILES * ((size_t)TREE_DEPTH_MAX * 256 + 1));
    buf_init(&b->xattrs, (size_t)BATCH_FILES * TREE_XATTR_MAX);
    b->items = malloc(BATCH_FILES * sizeof *b->items);
    b->leaves = malloc(BATCH_LEAVES * sizeof *b->leaves);
    if (posix_memalign((void **)&b->data, BUFFER_ALIGN, BATCH_BUFFER) != 0)
        b->data = NULL;
    return b->items && b->leaves && b->data ? 0 : -ENOMEM;
}

static void batch_release(struct batch *b)
{
    buf_release(&b->paths);
    buf_release(&b->xattrs);
    free(b->items);
    free(b->leaves);
    free(b->data);
}

static unsigned worker_count(const struct publish *p)
{
    long cpus = sysconf(_SC_NPROCESSORS_ONLN);
    unsigned n = p->o->workers ? p->o->workers : cpus > 0 ? (unsigned)cpus : 1;

    return n < WORKERS_MAX ? n : WORKERS_MAX;
}

static int start_threads(struct pipe *pipe, unsigned count)
{
    for (; pipe->thread_count < count; pipe->thread_count++) {
        int r = pthread_create(&pipe->threads[pipe->thread_count], NULL, read_batches, pipe);
        if (r != 0) /* fewer will do, but one */
            return pipe->thread_count > 0 ? 0 : -r;
    }
    return 0;
}

int pipe_start(struct publish *p, struct pipe **ret)
{
    AUTO(pipe_stop) struct pipe *pipe = calloc(1, sizeof *pipe);
    pthread_condattr_t attr;
    unsigned workers = worker_count(p);
    int r = 0;

    if (!pipe)
        return -ENOMEM;
    pipe->p = p;
    pipe->end = UINT64_MAX;
    pipe->batch_count = 2 * (size_t)workers + 2;
    pthread_mutex_init(&pipe->plan_lock, NULL);
    pthread_mutex_init(&pipe->done_lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&pipe->done, &attr);
    pthread_condattr_destroy(&attr);
    plan_init(&pipe->plan, p);
    ahead_init(&pipe->ahead, p);
    pipe->empty = queue_new(pipe->batch_count);
    if (!pipe->empty)
        return -ENOMEM;
    for (size_t i = 0; i < pipe->batch_count && r == 0; i++) {
        r = batch_init(&pipe->batches[i]);
        if (r == 0)
            pipe_give_back(pipe, &pipe->batches[i]);
    }
    if (r == 0)
        r = start_threads(pipe, workers);
    if (r == 0)
        *ret = take_ptr(&pipe);
    return r;
}

void pipe_stop(struct pipe *pipe)
{
    if (!pipe)
        return;
    atomic_store(&pipe->stop, true);
    if (pipe->empty)
        queue_close(pipe->empty);
    for (unsigned i = 0; i < pipe->thread_count; i++)
        pthread_join(pipe->threads[i], NULL);
    for (size_t i = 0; i < pipe->batch_count; i++)
        batch_release(&pipe->batches[i]);
    plan_release(&pipe->plan);
    ahead_release(&pipe->ahead);
    queue_free(pipe->empty);
    pthread_cond_destroy(&pipe->done);
    pthread_mutex_destroy(&pipe->done_lock);
    pthread_mutex_destroy(&pipe->plan_lock);
    free(pipe);
}
