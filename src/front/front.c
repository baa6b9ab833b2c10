/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The mount, and a few threads that read requests and answer them.
 *
 * The loop is our own: a fixed number of threads (libfuse's grows and shrinks, and each change
 * costs more than a request), and one way to end it that works from a signal handler. A descriptor
 * that is mounted already goes to libfuse as "/dev/fd/N".
 */
#include "front/front-internal.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define THREADS_MIN 4 /* a thread that waits for the store answers nobody */
#define THREADS_MAX 8
/* How long a thread that shall end may sleep through a signal that came too early for it. */
#define KICK_MS 20

/* ---- mounting
 * -------------------------------------------------------------------------------------------- */

/* It becomes part of a comma-separated option. */
static bool is_plain_name(const char *name)
{
    return name[strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                             "0123456789:._/-")] == '\0';
}

static int make_session(struct front *f, const struct front_options *o, struct err *err)
{
    char options[512];
    char *argv[] = {(char *)"grid", (char *)"-o", options, NULL};
    struct fuse_args args = FUSE_ARGS_INIT(o->control_fd >= 0 ? 1 : 3, argv);

    if (!is_plain_name(o->fsname) || strlen(o->fsname) > 200)
        return err_fail(err, -EINVAL, "\"%s\" cannot be the name of a mount", o->fsname);
    (void)snprintf(options, sizeof options,
                   "ro,nosuid,nodev,default_permissions,subtype=grid,fsname=%s%s", o->fsname,
                   o->allow_other ? ",allow_other" : "");
    f->session = fuse_session_new(&args, &front_ops, sizeof front_ops, f);
    fuse_opt_free_args(&args);
    if (!f->session)
        return err_fail(err, -ENOMEM, "cannot start a FUSE session");
    return 0;
}

static int mount_session(struct front *f, const char *mountpoint, int control_fd, struct err *err)
{
    char name[32];

    (void)snprintf(name, sizeof name, "/dev/fd/%d", control_fd);
    if (fuse_session_mount(f->session, control_fd >= 0 ? name : mountpoint) == 0)
        return 0;
    if (access("/dev/fuse", F_OK) < 0)
        return err_fail(err, -ENODEV, "cannot mount at %s: this machine has no /dev/fuse",
                        mountpoint);
    if (geteuid() != 0 && access("/dev/fuse", R_OK | W_OK) < 0)
        return err_fail(err, -EACCES, "cannot mount at %s: /dev/fuse is closed to users",
                        mountpoint);
    return err_fail(err, -EPERM, "cannot mount at %s (is fusermount3 installed?)", mountpoint);
}

static unsigned choose_threads(unsigned wanted)
{
    long n = wanted ? (long)wanted : sysconf(_SC_NPROCESSORS_ONLN);

    return n < THREADS_MIN ? THREADS_MIN : n > THREADS_MAX ? THREADS_MAX : (unsigned)n;
}

int front_mount(struct view *view, const char *mountpoint, const struct front_options *o,
                struct front **ret, struct err *err)
{
    AUTO(close_fd) int control_fd = o->control_fd;
    AUTO(front_free) struct front *f = calloc(1, sizeof *f);

    if (!f || sem_init(&f->wake, 0, 0) < 0)
        return err_fail(err, -ENOMEM, "not enough memory for the mount at %s", mountpoint);
    f->view = view;
    f->threads = choose_threads(o->threads);
    f->uid = geteuid();
    f->gid = getegid();
    int r = make_session(f, o, err);
    if (r == 0)
        r = mount_session(f, mountpoint, control_fd, err);
    if (r < 0)
        return r;
    (void)take_fd(&control_fd); /* the session's now */
    *ret = take_ptr(&f);
    return 0;
}

void front_free(struct front *f)
{
    if (!f)
        return;
    if (f->session) {
        fuse_session_unmount(f->session);
        fuse_session_destroy(f->session);
    }
    (void)sem_destroy(&f->wake); /* nobody waits */
    free(f);
}

/* ---- serving
 * --------------------------------------------------------------------------------------------- */

void front_stop(struct front *f)
{
    atomic_store(&f->stopped, true);
    (void)sem_post(&f->wake); /* fails only after 2^31 of them */
}

/* One request. False at the end. */
static bool serve_one(struct front *f, struct fuse_buf *buf)
{
    int r = fuse_session_receive_buf(f->session, buf);

    if (r == -EINTR || r == -EAGAIN)
        return true;
    if (r <= 0)
        return false; /* unmounted */
    fuse_session_process_buf(f->session, buf);
    return !fuse_session_exited(f->session);
}

static void *serve(void *arg)
{
    struct front *f = arg;
    struct fuse_buf buf = {.mem = NULL};
    AUTO(free_ptr) uint8_t *reply = malloc(FRONT_REPLY_MAX);

    front_set_reply_buffer(reply);
    while (reply && !atomic_load(&f->stopped) && serve_one(f, &buf))
        continue;
    free(buf.mem);
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
static unsigned start_threads(struct front *f, pthread_t *threads)
{
    sigset_t all, old;
    unsigned n = 0;

    (void)sigfillset(&all); /* valid arguments, all of them */
    (void)sigdelset(&all, SIGUSR1);
    (void)pthread_sigmask(SIG_SETMASK, &all, &old);
    while (n < f->threads && pthread_create(&threads[n], NULL, serve, f) == 0)
        n++;
    (void)pthread_sigmask(SIG_SETMASK, &old, NULL);
    return n;
}

int front_serve(struct front *f, struct err *err)
{
    pthread_t threads[THREADS_MAX];
    struct sigaction action = {.sa_handler = wake_up}, old; /* not restarting: that is the point */
    struct fuse_buf first = {.mem = NULL};
    int r = 0;

    if (sigaction(SIGUSR1, &action, &old) < 0)
        return err_fail(err, -errno, "cannot set up signals: %s", strerror(errno));
    /* The first request agrees on the protocol; nothing else comes before it is answered. */
    if (!atomic_load(&f->stopped) && serve_one(f, &first)) {
        unsigned n = start_threads(f, threads);
        if (n == 0) {
            r = err_fail(err, -EAGAIN, "cannot start a thread");
            front_stop(f);
        }
        while (!atomic_load(&f->stopped))
            (void)sem_wait(&f->wake); /* interrupted: look again */
        for (unsigned i = 0; i < n; i++)
            join(threads[i]);
    }
    free(first.mem);
    (void)sigaction(SIGUSR1, &old, NULL); /* as it was */
    return r;
}
