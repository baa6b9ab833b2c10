/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A few threads that read requests and answer them.
 *
 * The loop is our own: a fixed number of threads (libfuse's grows and shrinks, and each change
 * costs more than a request), and one way to end it that works from a signal handler. The
 * descriptor, mounted already, goes to libfuse as "/dev/fd/N", and the kernel's first message, read
 * already, as if it had just been read.
 */
#include "front/front-internal.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* How long a thread that shall end may sleep through a signal that came too early for it. */
#define KICK_MS 20

/* ---- beginning
 * ------------------------------------------------------------------------------------------- */

static int make_session(struct front *f, int *fuse_fd, struct err *err)
{
    char *argv[] = {(char *)"grid", NULL};
    struct fuse_args args = FUSE_ARGS_INIT(1, argv);
    char name[32];

    const struct fuse_lowlevel_ops *ops = f->flat.read ? &front_flat_ops : &front_ops;
    f->session = fuse_session_new(&args, ops, sizeof *ops, f);
    fuse_opt_free_args(&args);
    if (!f->session)
        return err_fail(err, -ENOMEM, "cannot start a FUSE session");
    (void)snprintf(name, sizeof name, "/dev/fd/%d", *fuse_fd);
    if (fuse_session_mount(f->session, name) < 0)
        return err_fail(err, -EIO, "cannot use descriptor %d for FUSE", *fuse_fd);
    (void)take_fd(fuse_fd); /* the session's now */
    return 0;
}

/* The kernel gets a second answer if an earlier process gave one: it says ENOENT, which libfuse
 * takes for an interrupted request, and nothing else happens. */
static int answer_init(struct front *f, const void *init, size_t size, struct err *err)
{
    AUTO(free_ptr) void *copy = malloc(size); /* libfuse wants it writable */
    struct fuse_buf buf = {.size = size, .mem = copy};

    if (!copy)
        return err_fail(err, -ENOMEM, "not enough memory");
    memcpy(copy, init, size);
    fuse_session_process_buf(f->session, &buf);
    if (fuse_session_exited(f->session))
        return err_fail(err, -EPROTO,
                        "the kernel and the FUSE library do not understand each other");
    return 0;
}

static unsigned choose_threads(unsigned wanted)
{
    long n = wanted ? (long)wanted : sysconf(_SC_NPROCESSORS_ONLN);

    return n < THREADS_MIN ? THREADS_MIN : n > THREADS_MAX ? THREADS_MAX : (unsigned)n;
}

int front_open(struct view *view, const struct front_options *o, struct front **ret,
               struct err *err)
{
    AUTO(close_fd) int fuse_fd = o->fuse_fd;
    AUTO(front_free) struct front *f = calloc(1, sizeof *f);

    if (!f || sem_init(&f->wake, 0, 0) < 0 || front_parking_init(f) < 0)
        return err_fail(err, -ENOMEM, "not enough memory");
    f->fetch = o->fetch;
    f->view = view;
    if (o->flat)
        f->flat = *o->flat;
    f->threads = choose_threads(o->threads);
    f->uid = geteuid();
    f->gid = getegid();
    int r = make_session(f, &fuse_fd, err);
    if (r == 0)
        r = answer_init(f, o->init, o->init_size, err);
    if (r < 0)
        return r;
    *ret = take_ptr(&f);
    return 0;
}

void front_free(struct front *f)
{
    if (!f)
        return;
    if (f->session)
        fuse_session_destroy(f->session); /* closes its descriptor */
    (void)sem_destroy(&f->wake);          /* nobody waits */
    front_parking_release(f);
    free(f);
}

/* ---- serving
 * --------------------------------------------------------------------------------------------- */

void front_stop(struct front *f)
{
    atomic_store(&f->stopped, true);
    (void)sem_post(&f->wake); /* fails only after 2^31 of them */
}

int64_t front_now_ms(void)
{
    struct timespec t;

    (void)clock_gettime(CLOCK_MONOTONIC_COARSE, &t); /* cannot fail for this clock */
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

int64_t front_age_ms(const struct front *f)
{
    int64_t now = front_now_ms(), oldest = 0;

    for (size_t i = 0; i < THREADS_MAX + RUNNERS; i++) {
        int64_t since = atomic_load_explicit(&f->working_since[i], memory_order_relaxed);
        if (since && now - since > oldest)
            oldest = now - since;
    }
    return oldest;
}

/* One request. False at the end. */
static bool serve_one(struct front *f, struct fuse_buf *buf, _Atomic int64_t *working_since)
{
    int r = fuse_session_receive_buf(f->session, buf);

    if (r == -EINTR || r == -EAGAIN)
        return true;
    if (r < 0 && r != -ENODEV && r != -ECONNABORTED)
        atomic_store(&f->failed, true);
    if (r <= 0)
        return false; /* unmounted */
    atomic_store_explicit(working_since, front_now_ms(), memory_order_relaxed);
    fuse_session_process_buf(f->session, buf);
    atomic_store_explicit(working_since, 0, memory_order_relaxed);
    return !fuse_session_exited(f->session);
}

struct thread {
    struct front *front;
    pthread_t id;
    unsigned number;
};

static void *serve(void *arg)
{
    struct thread *t = arg;
    struct front *f = t->front;
    struct fuse_buf buf = {.mem = NULL};
    AUTO(free_ptr) uint8_t *reply = malloc(FRONT_REPLY_MAX);

    front_set_reply_buffer(reply);
    bool able = reply && front_op_prepare() == 0;
    if (!able)
        atomic_store(&f->failed, true);
    while (able && !atomic_load(&f->stopped) && serve_one(f, &buf, &f->working_since[t->number]))
        continue;
    free(buf.mem);
    front_op_unprepare();
    front_stop(f); /* if one has seen the end, it is the end for all */
    return NULL;
}

static void wake_up(int number)
{
    /* Only to interrupt a read. */
}

static void join(pthread_t thread)
{
    struct timespec until;

    do {
        (void)pthread_kill(thread, SIGUSR1); /* a valid signal, to a thread not yet joined */
        (void)clock_gettime(CLOCK_REALTIME, &until); /* cannot fail for this clock */
        until.tv_nsec += KICK_MS * 1000000L;
        until.tv_sec += until.tv_nsec / 1000000000L;
        until.tv_nsec %= 1000000000L;
    } while (pthread_timedjoin_np(thread, NULL, &until) != 0);
}

/* Signals go to the thread that called front_serve(): only it waits for them. */
static unsigned start_threads(struct front *f, struct thread *threads)
{
    sigset_t all, old;
    unsigned n = 0;

    (void)sigfillset(&all); /* valid arguments, all of them */
    (void)sigdelset(&all, SIGUSR1);
    (void)pthread_sigmask(SIG_SETMASK, &all, &old);
    if (front_parking_start(f) < 0)
        f->stopped = true; /* what was started ends at once */
    for (; n < f->threads && !f->stopped; n++) {
        threads[n] = (struct thread){.front = f, .number = n};
        if (pthread_create(&threads[n].id, NULL, serve, &threads[n]) != 0)
            break;
    }
    (void)pthread_sigmask(SIG_SETMASK, &old, NULL);
    return n;
}

int front_serve(struct front *f, struct err *err)
{
    struct thread threads[THREADS_MAX];
    struct sigaction action = {.sa_handler = wake_up}, old; /* not restarting: that is the point */

    if (sigaction(SIGUSR1, &action, &old) < 0)
        return err_fail(err, -errno, "cannot set up signals: %s", strerror(errno));
    unsigned n = start_threads(f, threads);
    while (n && !atomic_load(&f->stopped))
        (void)sem_wait(&f->wake); /* interrupted: look again */
    for (unsigned i = 0; i < n; i++)
        join(threads[i].id);
    front_parking_stop(f);
    (void)sigaction(SIGUSR1, &old, NULL); /* as it was */
    if (n == 0)
        return err_fail(err, -EAGAIN, "cannot start a thread");
    return atomic_load(&f->failed) ? err_fail(err, -EIO, "cannot read requests") : 0;
}
