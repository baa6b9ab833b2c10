/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The supervisor's loop: one child at a time, its death, its silence, and what else is watched.
 *
 * It must outlive its child in everything the child can go wrong with, so it does little: no
 * threads, no store, no memory beyond the start. It does not wait on the /dev/fuse descriptor
 * either, for that would wake it up with every request; it looks at it when a child ends and with
 * every ping.
 */
#include "supervise/supervise-internal.h"

#include "base/cleanup.h"
#include "base/log.h"

#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>

/* An idle mount costs two wake-ups in this time. */
#define PING_MS 2000
/* So a wedged child is replaced after 10 to 12 seconds; a loaded machine answers within one. */
#define PING_LIMIT 5
/* Beyond all that a request may rightly take: each store call gives up after 30 s. */
#define STALL_MS 300000
/* What users wait at most for a child that cannot start. */
#define GIVE_UP_MS 60000
/* A child that was ready for this long was no failure, whatever ended it. */
#define GOOD_LIFE_MS 250
/* Between failures: none, then from the first of these, doubling, to the second. */
#define DELAY_FIRST_MS 20
#define DELAY_MAX_MS   2000
/* A child whose mount is gone sees it at once; unless it waits for a store that hangs. */
#define FAREWELL_PINGS 3

struct supervisor {
    struct supervise_options o;
    struct init *init;
    sigset_t old_mask;
    int signal_fd;
    pid_t self;  /* taken before a child could ask who its parent is */
    pid_t child; /* 0: none */
    int link_fd; /* -1: none */
    bool again;  /* there was a child before this one */
    bool ready;  /* this one is */
    bool told;   /* started() was called with success */
    bool killed; /* by us: why was said */
    int unanswered;
    int farewell; /* pings since the mount was seen to be gone */
    int64_t ready_at, next_ping, restart_at;
    unsigned failures; /* in a row */
    int64_t failing_since;
    bool ended;
    int result;
};

static int64_t now_ms(void)
{
    struct timespec t;

    (void)clock_gettime(CLOCK_MONOTONIC, &t); /* cannot fail for this clock */
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static void end(struct supervisor *s, int result)
{
    s->ended = true;
    s->result = result;
}

/* The first child will never be ready. */
static void fail_start(struct supervisor *s, int code, const char *sentence)
{
    if (!s->told && !s->ended)
        s->o.started(s->o.ctx, code, sentence);
    end(s, code);
}

/* ---- starting
 * ------------------------------------------------------------------------------------------- */

static void close_link(struct supervisor *s)
{
    int fd = take_fd(&s->link_fd);

    if (fd >= 0)
        (void)close(fd); /* a socket: nothing to lose */
}

static void run_child(struct supervisor *s, int link_fd)
{
    (void)close(s->signal_fd); /* the supervisor's; what is watched, it may need if it adopts */
    (void)sigprocmask(SIG_SETMASK, &s->old_mask, NULL); /* as it was: cannot fail */
    child_main(&s->o, s->init, link_fd, s->self, s->again, s->told);
}

static void schedule(struct supervisor *s);

static void start_child(struct supervisor *s)
{
    int link[2];

    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, link) < 0) {
        log_error("cannot start a server for %s: %s", s->o.what, strerror(errno));
        schedule(s);
        return;
    }
    pid_t pid = fork();
    if (pid == 0) {
        (void)close(link[0]); /* the supervisor's end */
        run_child(s, link[1]);
    }
    int code = errno;
    (void)close(link[1]); /* the child's end */
    if (pid < 0) {
        (void)close(link[0]); /* nobody is there */
        log_error("cannot start a server for %s: %s", s->o.what, strerror(code));
        schedule(s);
        return;
    }
    s->child = pid;
    s->link_fd = link[0];
    s->ready = s->killed = false;
    s->unanswered = 0;
    s->next_ping = now_ms() + s->o.ping_ms;
}

/* No child is there: when will the next one be? */
static void schedule(struct supervisor *s)
{
    int64_t now = now_ms(), delay = 0;

    if (s->ready && now - s->ready_at >= GOOD_LIFE_MS) {
        s->failures = 0;
    } else if (s->failures++ == 0) {
        s->failing_since = now;
    } else if (now - s->failing_since >= s->o.give_up_ms) {
        log_error("%s: no server has lived for %lld seconds; giving up", s->o.what,
                  (long long)(now - s->failing_since) / 1000);
        fail_start(s, -EIO, "its servers die");
        return;
    }
    for (unsigned i = 1; i < s->failures && delay < DELAY_MAX_MS; i++)
        delay = delay ? 2 * delay : DELAY_FIRST_MS;
    s->restart_at = now + (delay < DELAY_MAX_MS ? delay : DELAY_MAX_MS);
    s->ready = false;
    s->again = true;
}

/* ---- the child's end
 * ------------------------------------------------------------------------------------- */

static void log_end(const struct supervisor *s, int status)
{
    if (s->killed)
        return;
    if (WIFSIGNALED(status))
        log_warning("the server of %s (%d) was killed by signal %d", s->o.what, (int)s->child,
                    WTERMSIG(status));
    else
        log_warning("the server of %s (%d) ended with exit code %d", s->o.what, (int)s->child,
                    WEXITSTATUS(status));
}

static void read_messages(struct supervisor *s);

static void child_ended(struct supervisor *s, int status)
{
    read_messages(s); /* its last words */
    close_link(s);
    pid_t pid = s->child;
    bool gone = init_mount_gone(s->o.fuse_fd);
    if (!gone)
        log_end(s, status);
    s->child = 0;
    if (s->ended)
        return;
    if (!s->told) {
        fail_start(s, -ECHILD, "the server ended before it was ready");
    } else if (gone) {
        end(s, 0);
    } else if (!s->init->resends) {
        log_error("%s: the server (%d) died, and this kernel cannot send requests again", s->o.what,
                  (int)pid);
        end(s, -ENOTCONN);
    } else {
        schedule(s);
    }
}

static void kill_child(struct supervisor *s)
{
    s->killed = true;
    if (s->child > 0)
        (void)kill(s->child, SIGKILL); /* not reaped yet, so it is the right one */
}

static void reap(struct supervisor *s)
{
    struct signalfd_siginfo info;
    int status;

    (void)!read(s->signal_fd, &info, sizeof info); /* waitpid() knows more */
    /* Others may be children of this process, of whoever mounts: not ours to ask for. */
    if (s->child > 0 && waitpid(s->child, &status, WNOHANG) == s->child)
        child_ended(s, status);
}

/* ---- messages and pings
 * ---------------------------------------------------------------------------------------- */

static void ping(struct supervisor *s)
{
    const struct message m = {.kind = MESSAGE_PING, .code = s->told};

    s->next_ping = now_ms() + s->o.ping_ms;
    if (init_mount_gone(s->o.fuse_fd) && ++s->farewell > FAREWELL_PINGS && !s->killed) {
        log_warning("%s is unmounted, but its server (%d) does not end; it is killed", s->o.what,
                    (int)s->child);
        kill_child(s);
    }
    if (++s->unanswered > s->o.ping_limit && !s->killed) {
        log_error("the server of %s (%d) does not answer; it is replaced", s->o.what,
                  (int)s->child);
        kill_child(s);
    }
    if (s->link_fd >= 0) /* full or closed: then it does not answer */
        (void)send(s->link_fd, &m, sizeof m, MSG_DONTWAIT | MSG_NOSIGNAL);
}

static void take_message(struct supervisor *s, struct message *m)
{
    m->sentence[sizeof m->sentence - 1] = '\0';
    if (m->kind == MESSAGE_PONG) {
        s->unanswered = 0;
        if (m->age_ms > s->o.stall_ms && !s->killed) {
            log_error("the server of %s (%d) has worked on one request for %lld seconds; it is "
                      "replaced",
                      s->o.what, (int)s->child, (long long)m->age_ms / 1000);
            kill_child(s);
        }
    } else if (m->kind == MESSAGE_READY && !s->ready) {
        s->ready = true;
        s->ready_at = now_ms();
        if (!s->told) {
            s->told = true;
            ping(s); /* first, so that it learns of it: nothing may be lost that was promised */
            s->o.started(s->o.ctx, 0, NULL);
        } else {
            log_info("a new server of %s is ready: %d", s->o.what, (int)s->child);
        }
    } else if (m->kind == MESSAGE_FAILED) {
        s->killed = true; /* it has said why it ends */
        if (!s->told)
            fail_start(s, m->code < 0 ? m->code : -EIO, m->sentence);
        else
            log_error("a new server of %s cannot start: %s", s->o.what, m->sentence);
    }
}

static void read_messages(struct supervisor *s)
{
    struct message m;

    while (s->link_fd >= 0) {
        ssize_t n = recv(s->link_fd, &m, sizeof m, MSG_DONTWAIT);
        if (n == (ssize_t)sizeof m) {
            take_message(s, &m);
        } else if (n < 0 && errno == EINTR) {
            continue;
        } else {
            if (n == 0)
                close_link(s); /* it is ending: SIGCHLD follows */
            return;
        }
    }
}

/* ---- the loop
 * -------------------------------------------------------------------------------------------- */

static void handle_watched(struct supervisor *s, size_t which)
{
    enum supervise_answer a = s->o.watched_ready(s->o.ctx, which);

    if (a == SUPERVISE_FORGET)
        s->o.watched[which] = -1;
    else if (a == SUPERVISE_END)
        end(s, -ECANCELED);
}

static void wait_for_something(struct supervisor *s)
{
    struct pollfd p[2 + SUPERVISE_WATCHED_MAX] = {{.fd = s->signal_fd, .events = POLLIN},
                                                  {.fd = s->link_fd, .events = POLLIN}};
    int64_t wait = (s->child ? s->next_ping : s->restart_at) - now_ms();

    for (size_t i = 0; i < SUPERVISE_WATCHED_MAX; i++)
        p[2 + i] = (struct pollfd){.fd = s->o.watched[i], .events = POLLIN};
    int n = poll(p, sizeof p / sizeof p[0], wait < 0 ? 0 : wait > INT_MAX ? INT_MAX : (int)wait);
    if (n <= 0)
        return; /* time, or a signal: the caller looks what is due */
    for (size_t i = 0; i < SUPERVISE_WATCHED_MAX; i++) {
        if (p[2 + i].revents)
            handle_watched(s, i);
    }
    if (p[1].revents)
        read_messages(s);
    if (p[0].revents)
        reap(s);
}

static void loop(struct supervisor *s)
{
    start_child(s);
    while (!s->ended) {
        wait_for_something(s);
        if (s->ended)
            break;
        if (s->child) {
            if (now_ms() >= s->next_ping)
                ping(s);
        } else if (init_mount_gone(s->o.fuse_fd)) {
            end(s, 0);
        } else if (now_ms() >= s->restart_at) {
            start_child(s);
        }
    }
    kill_child(s);
    while (s->child > 0 && waitpid(s->child, NULL, 0) < 0 && errno == EINTR)
        continue;
    close_link(s);
}

static int prepare(struct supervisor *s)
{
    struct sigaction chld = {.sa_handler = SIG_DFL};
    sigset_t set;

    s->init = malloc(sizeof *s->init);
    if (!s->init)
        return -ENOMEM;
    int r = init_read(s->o.fuse_fd, s->init);
    if (r < 0)
        return r;
    if (!s->init->resends)
        log_warning("%s: this kernel cannot send requests again (Linux 6.9 can): the mount ends if "
                    "its server dies",
                    s->o.what);
    (void)sigemptyset(&set); /* valid arguments, all of them */
    (void)sigaddset(&set, SIGCHLD);
    (void)sigaction(SIGCHLD, &chld, NULL);
    (void)sigprocmask(SIG_BLOCK, &set, &s->old_mask);
    s->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    return s->signal_fd < 0 ? -errno : 0;
}

int supervise_run(const struct supervise_options *o)
{
    struct supervisor s = {.o = *o, .self = getpid(), .signal_fd = -1, .link_fd = -1};

    s.o.ping_ms = o->ping_ms ? o->ping_ms : PING_MS;
    s.o.ping_limit = o->ping_limit ? o->ping_limit : PING_LIMIT;
    s.o.stall_ms = o->stall_ms ? o->stall_ms : STALL_MS;
    s.o.give_up_ms = o->give_up_ms ? o->give_up_ms : GIVE_UP_MS;
    (void)sigemptyset(&s.old_mask); /* a valid argument */
    int r = prepare(&s);
    if (r < 0)
        fail_start(&s, r, r == -ENOMEM ? "not enough memory" : "the kernel does not begin to talk");
    else
        loop(&s);
    if (s.signal_fd >= 0) {
        (void)close(s.signal_fd);                          /* nothing to report */
        (void)sigprocmask(SIG_SETMASK, &s.old_mask, NULL); /* as it was: cannot fail */
    }
    free(s.init);
    return s.result;
}
