/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Requests that must wait for the store keep no thread: the operation is parked, and run again from
 * its beginning when what it missed has come. So any number of readers may wait, and whoever asks
 * for what is here already is answered meanwhile.
 *
 * A signal for who waits: the kernel tells of it once. If the process is to end (it was killed, or
 * interrupted at its terminal), the request ends with EINTR; for all other signals (timers,
 * children) it goes on, as it would on a local disk, and the process is looked at again now and
 * then, since the kernel will not tell again.
 */
#include "front/front-internal.h"

#include "base/file.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

/* How often a process is looked at whose signals were passed over so far. */
#define LOOK_MS 200
/* What is known of a process: some 60 lines. */
#define STATUS_MAX 4096

static _Thread_local struct front_op *prepared;

/* ---- operations ---- */

int front_op_prepare(void)
{
    if (!prepared)
        prepared = calloc(1, sizeof *prepared);
    return prepared ? 0 : -ENOMEM;
}

void front_op_unprepare(void)
{
    free(prepared);
    prepared = NULL;
}

struct front_op *front_op_begin(fuse_req_t req, front_run_fn *run, fuse_ino_t ino)
{
    struct front_op *op = prepared;

    op->front = fuse_req_userdata(req);
    op->req = req;
    op->run = run;
    op->ino = ino;
    op->size = 0;
    op->offset = 0;
    op->plus = op->parked = false;
    atomic_store_explicit(&op->interrupted, false, memory_order_relaxed);
    atomic_store_explicit(&op->killed, false, memory_order_relaxed);
    return op;
}

/* ---- who is to end ---- */

static uint64_t mask_of(const char *status, const char *name)
{
    const char *line = strstr(status, name);

    return line ? strtoull(line + strlen(name), NULL, 16) : 0;
}

/* Has the thread a signal to come that ends processes? True also if it cannot be told. */
static bool is_to_end(pid_t pid)
{
    const int ends[] = {SIGKILL, SIGINT, SIGTERM, SIGQUIT, SIGHUP};
    char path[64], status[STATUS_MAX];
    uint64_t mask = 0;

    (void)snprintf(path, sizeof path, "/proc/%d/status", (int)pid); /* it fits */
    AUTO(close_fd) int fd = pid > 0 ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    ssize_t n = fd >= 0 ? file_read(fd, status, sizeof status - 1) : -1;
    if (n <= 0)
        return true;
    status[n] = '\0';
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++)
        mask |= UINT64_C(1) << (ends[i] - 1);
    uint64_t pending = mask_of(status, "\nSigPnd:") | mask_of(status, "\nShdPnd:");
    return (pending & ~mask_of(status, "\nSigBlk:") & mask) != 0;
}

/* ---- the parking place ---- */

static void make_ready(struct front_op *op)
{
    struct parking *p = &op->front->parking;
    WITH_LOCK(&p->ready_lock);

    op->next = NULL;
    *(p->ready_last ? &p->ready_last->next : &p->ready_first) = op;
    p->ready_last = op;
    (void)pthread_cond_signal(&p->ready); /* a valid condition */
}

/* Of the ticket: what was missed has come. */
static void on_ready(struct fetch_ticket *t)
{
    make_ready((struct front_op *)t);
}

/* End it, if it still waits and its process is to end. */
static void end_if_killed(struct front_op *op)
{
    if (is_to_end(op->pid) && fetch_ticket_recall(&op->ticket)) {
        atomic_store(&op->killed, true);
        make_ready(op);
    }
}

/* Called by libfuse, on a thread that serves, with a lock of the request. */
static void on_interrupt(fuse_req_t req, void *data)
{
    struct front_op *op = data;
    struct parking *p = &op->front->parking;

    if (!atomic_exchange(&op->interrupted, true)) {
        WITH_LOCK(&p->ready_lock);
        atomic_fetch_add(&p->interrupted, 1);
        (void)pthread_cond_signal(&p->ready); /* so that it is looked at now and then */
    }
    end_if_killed(op);
}

static void enter(struct front_op *op)
{
    struct parking *p = &op->front->parking;

    if (!op->parked) {
        const struct fuse_ctx *ctx = fuse_req_ctx(op->req);
        op->pid = ctx ? ctx->pid : 0;
        op->parked = true;
        {
            WITH_LOCK(&p->lock);
            op->before = NULL;
            op->after = p->first;
            if (p->first)
                p->first->before = op;
            p->first = op;
        }
        fuse_req_interrupt_func(op->req, on_interrupt, op);
    }
}

static void leave(struct front_op *op)
{
    struct parking *p = &op->front->parking;

    fuse_req_interrupt_func(op->req, NULL, NULL); /* waits for one that is running */
    WITH_LOCK(&p->lock);
    *(op->before ? &op->before->after : &p->first) = op->after;
    if (op->after)
        op->after->before = op->before;
    if (atomic_load(&op->interrupted))
        atomic_fetch_sub(&p->interrupted, 1);
    op->parked = false;
}

/* From here on it may be on another thread at any time. */
static void park(struct front_op *op)
{
    if (op == prepared)
        prepared = NULL;
    enter(op);
    bool interrupted = atomic_load(&op->interrupted);
    bool killed = interrupted && is_to_end(op->pid);
    if (killed) { /* the signal came while it ran, and was told to nobody who waited */
        atomic_store(&op->killed, true);
        make_ready(op);
        return;
    }
    fetch_ticket_park(&op->ticket);
}

static void answer(struct front_op *op, const struct front_answer *a)
{
    fuse_req_t req = op->req;

    if (op->parked)
        leave(op);
    if (op != prepared)
        free(op);
    front_answer(req, a);
}

void front_op_go(struct front_op *op)
{
    struct front *f = op->front;
    struct front_answer a = {.kind = FRONT_ERROR};

    if (atomic_load_explicit(&op->killed, memory_order_relaxed)) {
        fetch_ticket_release(&op->ticket);
        a.code = -EINTR;
    } else if (!f->fetch) {
        op->run(op, &a);
    } else {
        if (!op->parked)
            fetch_ticket_init(&op->ticket, f->fetch, on_ready);
        fetch_try_begin(&op->ticket);
        op->run(op, &a);
        if (fetch_try_end(&op->ticket)) {
            /* Whoever serves needs the next one at hand; without memory for it this one waits. */
            bool mine = op == prepared;
            struct front_op *spare = mine ? calloc(1, sizeof *spare) : NULL;
            if (mine && !spare) {
                fetch_ticket_release(&op->ticket);
                op->run(op, &a);
                answer(op, &a);
                return;
            }
            park(op);
            if (mine)
                prepared = spare;
            return;
        }
    }
    answer(op, &a);
}

/* ---- threads that run what is ready ---- */

static void look_at_interrupted(struct parking *p)
{
    WITH_LOCK(&p->lock);

    for (struct front_op *op = p->first; op; op = op->after) {
        if (atomic_load(&op->interrupted))
            end_if_killed(op);
    }
}

static void wait_for_ready(struct parking *p)
{
    struct timespec t;

    if (atomic_load(&p->interrupted) == 0) {
        (void)pthread_cond_wait(&p->ready, &p->ready_lock); /* a valid condition */
        return;
    }
    (void)clock_gettime(CLOCK_REALTIME, &t); /* cannot fail for this clock */
    t.tv_nsec += LOOK_MS * 1000000L;
    t.tv_sec += t.tv_nsec / 1000000000L;
    t.tv_nsec %= 1000000000L;
    if (pthread_cond_timedwait(&p->ready, &p->ready_lock, &t) != ETIMEDOUT)
        return;
    pthread_mutex_unlock(&p->ready_lock);
    look_at_interrupted(p);
    pthread_mutex_lock(&p->ready_lock);
}

static struct front_op *take_ready(struct parking *p)
{
    WITH_LOCK(&p->ready_lock);

    while (!p->stopping && !p->ready_first)
        wait_for_ready(p);
    struct front_op *op = p->ready_first;
    if (p->stopping)
        return NULL;
    p->ready_first = op->next;
    if (!op->next)
        p->ready_last = NULL;
    return op;
}

struct runner {
    struct front *front;
    unsigned number;
};

static void *run_ready(void *arg)
{
    struct runner r = *(struct runner *)arg;
    struct front *f = r.front;
    _Atomic int64_t *since = &f->working_since[THREADS_MAX + r.number];
    AUTO(free_ptr) uint8_t *reply = malloc(FRONT_REPLY_MAX);
    struct front_op *op;

    free(arg);
    front_set_reply_buffer(reply);
    while (reply && (op = take_ready(&f->parking))) {
        atomic_store_explicit(since, front_now_ms(), memory_order_relaxed);
        front_op_go(op);
        atomic_store_explicit(since, 0, memory_order_relaxed);
    }
    if (!reply) { /* nobody would answer any more */
        atomic_store(&f->failed, true);
        front_stop(f);
    }
    return NULL;
}

int front_parking_init(struct front *f)
{
    struct parking *p = &f->parking;

    if (pthread_mutex_init(&p->lock, NULL) != 0 || pthread_mutex_init(&p->ready_lock, NULL) != 0 ||
        pthread_cond_init(&p->ready, NULL) != 0)
        return -ENOMEM;
    return 0;
}

void front_parking_release(struct front *f)
{
    (void)pthread_mutex_destroy(&f->parking.lock); /* nobody holds them, or waits */
    (void)pthread_mutex_destroy(&f->parking.ready_lock);
    (void)pthread_cond_destroy(&f->parking.ready);
}

int front_parking_start(struct front *f)
{
    struct parking *p = &f->parking;

    for (unsigned i = 0; f->fetch && i < RUNNERS; i++) {
        struct runner *r = malloc(sizeof *r);
        if (!r)
            return -ENOMEM;
        *r = (struct runner){.front = f, .number = i};
        if (pthread_create(&p->threads[i], NULL, run_ready, r) != 0) {
            free(r);
            return -EAGAIN;
        }
        p->thread_count++;
    }
    return 0;
}

void front_parking_stop(struct front *f)
{
    struct parking *p = &f->parking;
    struct front_op *op;

    {
        WITH_LOCK(&p->ready_lock);
        p->stopping = true;
        (void)pthread_cond_broadcast(&p->ready); /* a valid condition */
    }
    for (unsigned i = 0; i < p->thread_count; i++)
        (void)pthread_join(p->threads[i], NULL); /* joinable */
    p->thread_count = 0;
    while ((op = p->first)) { /* nobody else is left to take one */
        fuse_req_t req = op->req;
        (void)fetch_ticket_recall(&op->ticket); /* or it is ready: the same to us */
        fetch_ticket_release(&op->ticket);
        leave(op);
        free(op);
        fuse_reply_none(req);
    }
}
