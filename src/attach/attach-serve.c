/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a server process does: it gets its command, mounts (or gets what was mounted), and from then
 * on supervises a child that serves (supervise/supervise.h); so it owns what must not go: the
 * descriptor, the mount and the record.
 *
 * It ends by itself: the kernel tells when the mount is gone. Only a mount that stands in view of
 * others has to be taken away: when the caller lets go of the socket (the command was started: the
 * private mount is bound elsewhere by then), or when a process ends, or at SIGTERM (a machine that
 * shuts down). Servers of a namespace ignore SIGTERM: their mount goes with its users.
 *
 * If this process dies, its child goes on and takes over the record and the taking away.
 */
#include "attach/attach-shared.h"

#include "base/env.h"
#include "base/log.h"

#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>

enum watched { WATCH_TERM, WATCH_UNTIL };

/* What a server process knows, and its child in its copy. */
struct server {
    struct attach_server_job *job;
    struct attach_record *record;
    char place[ATTACH_PATH_MAX]; /* where we mount */
    enum attach_kind kind;
    int term_fd;          /* gives SIGTERMs; -1: they do nothing */
    int until_fd;         /* ATTACH_UNTIL: the process */
    int alive_fd;         /* a lock that we and our children hold */
    dev_t device;         /* of what is mounted there */
    pthread_mutex_t lock; /* of a child that adopts; before, there is one thread */
    bool mounted;         /* there is something in view that is ours to take away */
    bool recorded;        /* a record is ours to remove */
};

/* ---- taking the mount away
 * ----------------------------------------------------------------------------------- */

static void take_away(struct server *s)
{
    dev_t device;

    /* By now something else may be mounted there. */
    if (s->mounted && attach_fuse_find(s->place, &device) == 0 && device == s->device) {
        struct err err = ERR_INIT;
        int c = attach_fuse_unmount(s->place, true, &err);
        if (c < 0)
            log_warning("%s", err_text(&err, c));
    }
    s->mounted = false;
    if (s->kind == ATTACH_PRIVATE && rmdir(s->place) < 0 && errno != ENOENT)
        log_warning("cannot remove %s: %s", s->place, strerror(errno));
}

/* Who asked for a mount that the kernel reads itself makes it when we are ready. */
static void find_kernel_mount(struct server *s)
{
    if (s->record->kernel && s->kind == ATTACH_VISIBLE && !s->mounted)
        s->mounted = attach_fuse_find(s->place, &s->device) == 0;
}

/* From now on SIGTERM does nothing; here, and in every child, it is read from a descriptor. */
static void block_sigterm(sigset_t *ret_set)
{
    (void)sigemptyset(ret_set); /* valid arguments, all of them */
    (void)sigaddset(ret_set, SIGTERM);
    (void)pthread_sigmask(SIG_BLOCK, ret_set, NULL);
}

static int catch_sigterm(void)
{
    sigset_t set;

    block_sigterm(&set);
    return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

static bool took_sigterm(int term_fd)
{
    struct signalfd_siginfo info;

    return read(term_fd, &info, sizeof info) == (ssize_t)sizeof info;
}

/* ---- events of the supervisor
 * --------------------------------------------------------------------------------- */

/* The first SIGTERM takes the mount away, and whoever still stands in it is served to the end; the
 * second one ends the process, whoever is served. */
static enum supervise_answer watched_ready(void *ctx, size_t which)
{
    struct server *s = ctx;

    if (which == WATCH_TERM && !took_sigterm(s->term_fd))
        return SUPERVISE_WATCH;
    find_kernel_mount(s);
    if (which == WATCH_UNTIL && s->record->kernel)
        return SUPERVISE_FORGET; /* the caller has let go: it is mounted, or never will be */
    if (which == WATCH_TERM && !s->mounted)
        return SUPERVISE_END;
    take_away(s);
    return which == WATCH_TERM ? SUPERVISE_WATCH : SUPERVISE_FORGET;
}

static void answer(struct server *s, int code, const char *sentence)
{
    struct attach_answer a = {.code = code};

    if (sentence)
        (void)snprintf(a.sentence, sizeof a.sentence, "%s", sentence);
    (void)attach_send(s->job->talk_fd, &a, sizeof a, -1); /* who asked may be gone */
}

static void write_record(struct server *s)
{
    struct err err = ERR_INIT;
    int c = attach_process_start(getpid(), &s->record->server_start);

    s->record->server = getpid();
    if (c == 0)
        c = attach_record_write(s->record, &err);
    s->recorded = c == 0;
    if (c < 0)
        log_warning("the mount works, but will not be listed: %s", err_text(&err, c));
}

/* What the child says of its protection, for who waits; NULL: all is well. */
static const char *protection_note(struct server *s, char note[static 1024])
{
    char word[16];

    attach_protection_read(getpid(), s->record->server_start, word, note, 1024);
    return note[0] ? note : NULL;
}

static void started(void *ctx, int code, const char *sentence)
{
    struct server *s = ctx;
    unsigned timeout = attach_request_timeout();
    char note[sizeof((struct attach_answer *)0)->sentence];

    if (code == 0 && s->kind != ATTACH_TRIAL) {
        write_record(s);
        log_info("serving %s:%u at %s", s->record->name, s->record->version, s->record->mountpoint);
        if (!sentence)
            sentence = protection_note(s, note);
        if (timeout)
            log_warning("the kernel ends this mount if a request takes longer than %u s", timeout);
    } else if (code < 0) {
        log_error("%s", sentence ? sentence : strerror(-code));
    }
    answer(s, code, sentence);
}

/* ---- in the child
 * -------------------------------------------------------------------------------------------- */

static int child_serve(void *ctx, struct supervise_child *child)
{
    struct server *s = ctx;
    int code = s->job->serve(s->job->serve_ctx, child);

    WITH_LOCK(&s->lock);
    if (s->recorded) { /* it was adopted */
        take_away(s);
        attach_record_remove(s->record);
    }
    return code;
}

static void child_begins(void *ctx)
{
    struct server *s = ctx;
    char prefix[32];

    s->recorded = false; /* by the supervisor */

    /* Who waits for the answer must see its end if the supervisor dies. */
    (void)close(take_fd(&s->job->talk_fd));
    (void)snprintf(prefix, sizeof prefix, "grid-serve %d", (int)getpid());
    log_init(2, LOG_LEVEL_INFO, prefix);
}

/* In the child: nobody else is left to take the mount away, or to remove the record. The end of the
 * mount ends the process, and this thread with it. */
static void adopt(void *ctx, bool settled)
{
    struct server *s = ctx;
    struct attach_record before = *s->record;
    struct pollfd p[2] = {{.fd = s->term_fd, .events = POLLIN},
                          {.fd = s->until_fd, .events = POLLIN}};

    find_kernel_mount(s);
    /* The supervisor died before it could answer: whoever waited was told that it failed. A private
     * mount is bound by now, or never will be. */
    if (s->term_fd >= 0)
        (void)took_sigterm(s->term_fd); /* was for both of us, and then the other's to heed */
    {
        WITH_LOCK(&s->lock);
        if (!settled || s->kind == ATTACH_PRIVATE)
            take_away(s);
        if (!settled)
            _exit(1);
        attach_record_remove(&before);
        write_record(s);
    }
    while (p[0].fd >= 0 || p[1].fd >= 0) {
        if (poll(p, 2, -1) < 0)
            continue; /* a signal */
        WITH_LOCK(&s->lock);
        if (p[0].revents && took_sigterm(s->term_fd) && !s->mounted)
            _exit(1);
        take_away(s);
        p[1].fd = -1;
    }
}

/* ---- the process
 * --------------------------------------------------------------------------------------------- */

/* What came from outside (the caller's shell, a pipe of a job) must not stay open in a process that
 * outlives the caller: somebody would wait for its end. What the program opened is close-on-exec.
 */
static void close_inherited(void)
{
    AUTO(close_dir) DIR *d = opendir("/proc/self/fd");
    struct dirent *e;

    while (d && (e = readdir(d)) != NULL) {
        long fd = strtol(e->d_name, NULL, 10); /* "." and ".." give 0 */
        int flags = fd > 2 ? fcntl((int)fd, F_GETFD) : -1;
        if (flags >= 0 && !(flags & FD_CLOEXEC))
            (void)close((int)fd); /* not ours: nothing to report */
    }
}

/* `fd` came with the command. */
static int mount_it(struct server *s, int fd, int *ret_fuse_fd, struct err *err)
{
    int c = 0;

    if (s->kind == ATTACH_UNTIL)
        s->until_fd = fd;
    if (s->kind == ATTACH_NAMESPACE || s->kind == ATTACH_TRIAL ||
        (s->kind == ATTACH_VISIBLE && fd >= 0))
        *ret_fuse_fd = fd;
    else
        c = attach_fuse_mount_helped(s->record, s->place, ret_fuse_fd, err);
    if (c == 0 && s->kind != ATTACH_NAMESPACE && s->kind != ATTACH_TRIAL)
        s->mounted = !s->record->kernel && attach_fuse_find(s->place, &s->device) == 0;
    if (c == 0 && s->record->kernel && s->kind != ATTACH_TRIAL)
        c = attach_alive_hold(getpid(), &s->alive_fd);
    return c;
}

static int server_supervise(struct server *s, int fuse_fd)
{
    char what[80];

    s->record->since_ms = env_real()->wall_ms(env_real());
    (void)snprintf(what, sizeof what, "%s:%u", s->record->name, s->record->version);
    if (s->kind == ATTACH_VISIBLE || s->kind == ATTACH_UNTIL)
        s->term_fd = catch_sigterm();
    struct supervise_options o = {
        .fuse_fd = fuse_fd,
        .what = what,
        .child_name = "grid-serve",
        .serve = child_serve,
        .started = started,
        .watched_ready = watched_ready,
        .child_begins = child_begins,
        .adopt = adopt,
        .ctx = s,
        .watched = {[WATCH_TERM] = s->term_fd, [WATCH_UNTIL] = s->until_fd},
    };
    if (s->kind == ATTACH_PRIVATE || (s->kind == ATTACH_VISIBLE && s->record->kernel))
        o.watched[WATCH_UNTIL] = s->job->talk_fd;
    int c = supervise_run(&o);
    take_away(s);
    if (s->recorded)
        attach_record_remove(s->record);
    if (s->kind != ATTACH_TRIAL)
        log_info("%s at %s has ended", what, s->record->mountpoint);
    return c < 0;
}

int attach_server_begin(const struct attach_record *r, struct err *err)
{
    int log_fd = -1;
    int c = attach_log_open(r, &log_fd, err);

    if (c == 0 && (dup2(log_fd, 2) < 0 || chdir("/") < 0))
        c = -errno;
    if (log_fd >= 0)
        (void)close(log_fd); /* 2 is the same */
    char prefix[32];
    (void)snprintf(prefix, sizeof prefix, "grid-supervise %d", (int)getpid());
    log_init(2, LOG_LEVEL_INFO, prefix);
    return c;
}

int attach_server_main(struct attach_server_job *job)
{
    struct server s = {.job = job,
                       .record = &job->record,
                       .term_fd = -1,
                       .until_fd = -1,
                       .alive_fd = -1,
                       .lock = PTHREAD_MUTEX_INITIALIZER};
    struct attach_command c;
    struct err err = ERR_INIT;
    int fd = -1, fuse_fd = -1;
    sigset_t set;

    const int defaults[] = {SIGTERM, SIGINT, SIGQUIT, SIGHUP, SIGCHLD, SIGUSR1, SIGUSR2};
    for (size_t i = 0; i < sizeof defaults / sizeof defaults[0]; i++)
        (void)signal(defaults[i], SIG_DFL); /* valid signals */
    (void)signal(SIGPIPE, SIG_IGN);         /* writes tell it */
    (void)sigemptyset(&set);
    (void)sigprocmask(SIG_SETMASK, &set, NULL); /* both cannot fail with these arguments */
    block_sigterm(&set);
    (void)prctl(PR_SET_NAME, "grid-supervise"); /* a name for people */
    close_inherited();
    if (attach_receive(job->talk_fd, &c, sizeof c, &fd) < 0)
        return 0; /* nobody wants us any more */
    c.place[sizeof c.place - 1] = '\0';
    memcpy(s.place, c.place, sizeof s.place);
    s.kind = (enum attach_kind)c.kind;
    int r = attach_server_begin(s.record, &err);
    if (r == 0 && s.kind == ATTACH_SHARED)
        return shared_main(job, s.place);
    if (r == 0)
        r = mount_it(&s, fd, &fuse_fd, &err);
    if (r < 0) {
        log_error("%s", err_text(&err, r));
        answer(&s, r, err_text(&err, r));
        return 1;
    }
    return server_supervise(&s, fuse_fd);
}
