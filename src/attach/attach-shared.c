/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The supervisor of a shared server. It holds what all jobs stand on and what must survive a child:
 * the mount, which stands in no namespace (so no job and nobody's namespace can keep or lose it),
 * the socket at which jobs ask, and the inotify descriptor that watches their tags. Every child
 * inherits all of it; what the jobs are is written in the records. So a job that asks while a child
 * is replaced waits a little, and a supervisor that dies leaves a server that goes on in every way.
 *
 * It answers jobs only where no child can: when the first one fails, and at the end.
 */
#include "attach/attach-shared.h"

#include "base/log.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/mount.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

/* How long a server stays without jobs: the next one finds it warm. */
#define IDLE_S     60
#define IDLE_MAX_S 86400

enum watched { WATCH_TERM, WATCH_CONTROL };

struct keeper {
    struct shared shared;
    int term_fd;
    int control_fd; /* our end */
    bool withdrawn; /* the child has taken the socket's name away */
    int alive_fd;   /* a lock that we and our children hold */
};

static int64_t idle_ms(void)
{
    const char *text = getenv("GRID_SERVER_IDLE");
    char *end = NULL;
    long seconds = text ? strtol(text, &end, 10) : -1;

    if (!text || end == text || *end || seconds < 0 || seconds > IDLE_MAX_S)
        seconds = IDLE_S;
    return (int64_t)seconds * 1000;
}

void shared_refuse(int listen_fd, int code, const char *sentence)
{
    struct shared_answer a = {.code = code ? code : -ESHUTDOWN, .again = code == 0};
    int fd;

    (void)snprintf(a.sentence, sizeof a.sentence, "%s", sentence ? sentence : strerror(-a.code));
    while ((fd = accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC)) >= 0) {
        (void)attach_send(fd, &a, sizeof a, -1); /* who asked may be gone */
        (void)close(fd);                         /* a socket: nothing to lose */
    }
}

int shared_copy(const struct shared *s, int mount_fd)
{
    if (s->vault_fd >= 0)
        return vault_copy(s->vault_fd, mount_fd);
    int fd = open_tree(mount_fd, "", AT_EMPTY_PATH | OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
    return fd < 0 ? -errno : fd;
}

/* ---- the end
 * ------------------------------------------------------------------------------------------- */

static void withdraw(struct shared *s)
{
    AUTO(close_fd) int lock_fd = -1;

    if (registry_lock(&s->registry, true, &lock_fd) == 0)
        registry_withdraw(&s->registry, s->socket_mark);
}

static void close_all(struct shared *s)
{
    int *const fds[] = {&s->mount_fd, &s->flat_fd, &s->vault_fd, &s->listen_fd};

    for (size_t i = 0; i < sizeof fds / sizeof fds[0]; i++) {
        int fd = take_fd(fds[i]);
        if (fd >= 0)
            (void)close(fd); /* nothing to lose */
    }
}

static void remove_beside(pid_t server, uint64_t start)
{
    attach_protection_remove(server, start);
    attach_alive_remove(server, start);
}

/* What children could not: a mount in view whose server gives up, and records. */
static int clear_record(void *ctx, const struct attach_record *r)
{
    const struct shared *s = ctx;
    dev_t device;

    if (!r->run[0] && attach_fuse_find(r->mountpoint, &device) == 0 && device == s->device)
        (void)attach_fuse_unmount(r->mountpoint, true, NULL); /* the next command tries again */
    attach_record_remove(r);
    return 0;
}

/* ---- events of the supervisor
 * ------------------------------------------------------------------------------------------- */

static void hold_mount(struct shared *s, int fd)
{
    struct statx st;

    if (statx(fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, 0, &st) == 0)
        s->device = makedev(st.stx_dev_major, st.stx_dev_minor);
    if (s->mount_fd >= 0 && s->job->record.kernel->devices)
        s->flat_fd = s->mount_fd;
    else if (s->mount_fd >= 0)
        (void)close(s->mount_fd); /* a mount that nobody uses */
    s->mount_fd = fd;
}

static enum supervise_answer watched_ready(void *ctx, size_t which)
{
    struct keeper *k = ctx;
    struct signalfd_siginfo info;
    int32_t what = 0;
    int fd = -1;

    if (which == WATCH_TERM) {
        if (read(k->term_fd, &info, sizeof info) == (ssize_t)sizeof info)
            (void)eventfd_write(k->shared.quit_fd, 1); /* the child knows who is served */
        return SUPERVISE_WATCH;
    }
    if (attach_receive(k->control_fd, &what, sizeof what, &fd) < 0)
        return SUPERVISE_FORGET;
    if (what == SHARED_MOUNT && fd >= 0) {
        hold_mount(&k->shared, take_fd(&fd));
        k->shared.by_kernel = true;
    }
    if (what == SHARED_LET_GO) {
        k->withdrawn = true;
        close_all(&k->shared);
    }
    if (fd >= 0)
        (void)close(fd); /* of a message that should have none */
    return what == SHARED_END ? SUPERVISE_END : SUPERVISE_WATCH;
}

static void started(void *ctx, int code, const char *sentence)
{
    struct keeper *k = ctx;
    struct shared *s = &k->shared;
    const struct attach_record *r = &s->job->record;
    unsigned timeout = attach_request_timeout();

    if (code == 0) {
        log_info("serving %s:%u to all who ask", r->name, r->version);
        if (timeout)
            log_warning("the kernel ends this mount if a request takes longer than %u s", timeout);
        return;
    }
    log_error("%s", sentence ? sentence : strerror(-code));
    withdraw(s);
    if (code == -ECHILD) /* killed by somebody: the next one may live */
        shared_refuse(s->listen_fd, 0, NULL);
    else
        shared_refuse(s->listen_fd, code, sentence);
}

/* ---- in the child
 * ------------------------------------------------------------------------------------------- */

static int child_serve(void *ctx, struct supervise_child *child)
{
    struct keeper *k = ctx;

    if (!k->shared.jobs) {
        supervise_failed(child, -ENOMEM, "not enough memory");
        return 1;
    }
    child->more = k->shared.jobs;
    int code = k->shared.job->serve(k->shared.job->serve_ctx, child);
    if (getppid() != k->shared.supervisor) { /* it was adopted */
        uint64_t start;
        withdraw(&k->shared);
        remove_beside(k->shared.supervisor, k->shared.supervisor_start);
        if (attach_process_start(getpid(), &start) == 0)
            remove_beside(getpid(), start);
    }
    return code;
}

static void child_begins(void *ctx)
{
    struct keeper *k = ctx;
    char prefix[32];

    (void)close(take_fd(&k->control_fd)); /* the supervisor's end */
    /* Before there are threads, and as long as the process. NULL: it will not serve. */
    (void)jobs_new(&k->shared, &k->shared.jobs);
    (void)snprintf(prefix, sizeof prefix, "grid-serve %d", (int)getpid());
    log_init(2, LOG_LEVEL_INFO, prefix);
}

/* In a thread of the child: it goes on alone, and signals are its own now. */
static void adopt(void *ctx, bool settled)
{
    struct keeper *k = ctx;
    struct signalfd_siginfo info;

    if (!settled)
        _exit(1); /* nobody has been given anything: who waits asks again */
    if (k->shared.jobs)
        jobs_adopt(k->shared.jobs);
    for (;;) {
        struct pollfd p = {.fd = k->term_fd, .events = POLLIN};
        if (poll(&p, 1, -1) > 0 && read(k->term_fd, &info, sizeof info) == (ssize_t)sizeof info)
            (void)eventfd_write(k->shared.quit_fd, 1);
    }
}

/* ---- the process
 * ------------------------------------------------------------------------------------------- */

static int make_descriptors(struct keeper *k, int *ret_fuse_fd, struct err *err)
{
    struct shared *s = &k->shared;
    int pair[2], mount_fd;
    sigset_t set;
    int c = attach_flat_mount(&s->job->record, &mount_fd, ret_fuse_fd, err);

    if (c < 0)
        return c;
    hold_mount(s, mount_fd);
    AUTO(close_fd) int probe = shared_copy(s, mount_fd);
    if (probe == -EINVAL) { /* before Linux 6.15 */
        c = vault_make(&s->vault_fd);
        if (c == 0)
            c = vault_put(s->vault_fd, mount_fd, VAULT_OURS);
        if (c == 0)
            c = probe = shared_copy(s, mount_fd);
    }
    if (probe < 0)
        return err_fail(err, -EOPNOTSUPP, "cannot copy a mount: %s", strerror(c < 0 ? -c : -probe));
    (void)sigemptyset(&set); /* valid arguments, both */
    (void)sigaddset(&set, SIGTERM);
    k->term_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    s->watches_fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
    s->quit_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (k->term_fd < 0 || s->watches_fd < 0 || s->quit_fd < 0 ||
        socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
        return err_fail(err, -EOPNOTSUPP, "cannot watch jobs: %s", strerror(errno));
    k->control_fd = pair[0];
    s->control_fd = pair[1];
    return 0;
}

/* What the command that started us has open (the lock of the registry, its terminal's signals) is
 * nothing to a server of all. */
static void close_others(const struct attach_server_job *job)
{
    AUTO(close_dir) DIR *d = opendir("/proc/self/fd");
    struct dirent *e;

    while (d && (e = readdir(d)) != NULL) {
        long fd = strtol(e->d_name, NULL, 10); /* "." and ".." give 0 */
        if (fd > 2 && fd != dirfd(d) && fd != job->talk_fd && fd != job->life_fd &&
            fd != job->listen_fd)
            (void)close((int)fd); /* not ours: nothing to report */
    }
}

static int prepare(struct keeper *k, const char *key, int *ret_fuse_fd, struct err *err)
{
    struct shared *s = &k->shared;
    close_others(s->job);
    int c = apart_go(err);
    if (c == 0)
        c = make_descriptors(k, ret_fuse_fd, err);
    if (c == 0)
        c = registry_open(&s->job->record, "", &s->registry, err); /* for the directory */
    if (c == 0)
        (void)snprintf(s->registry.key, sizeof s->registry.key, "%s", key);
    s->supervisor = getpid();
    if (c == 0)
        c = attach_process_start(s->supervisor, &s->supervisor_start);
    if (c == 0)
        c = attach_alive_hold(s->supervisor, &k->alive_fd);
    return c;
}

int shared_main(struct attach_server_job *job, const char *key)
{
    struct keeper k = {.shared = {.job = job,
                                  .registry = {.dir_fd = -1},
                                  .socket_mark = job->socket_mark,
                                  .mount_fd = -1,
                                  .flat_fd = -1,
                                  .vault_fd = -1,
                                  .listen_fd = job->listen_fd,
                                  .watches_fd = -1,
                                  .quit_fd = -1,
                                  .control_fd = -1,
                                  .idle_ms = idle_ms()},
                       .term_fd = -1,
                       .control_fd = -1,
                       .alive_fd = -1};
    struct attach_answer ready = {.code = 0};
    struct err err = ERR_INIT;
    char what[80];
    int fuse_fd = -1;
    int c = prepare(&k, key, &fuse_fd, &err);

    if (c < 0) {
        ready.code = c;
        (void)snprintf(ready.sentence, sizeof ready.sentence, "%s", err_text(&err, c));
        log_warning("%s:%u gets servers of its own: %s", job->record.name, job->record.version,
                    ready.sentence);
    }
    (void)attach_send(job->talk_fd, &ready, sizeof ready, -1); /* who asked may be gone */
    (void)close(take_fd(&job->talk_fd));                       /* that was all */
    if (c < 0)
        return 1;
    (void)snprintf(what, sizeof what, "%s:%u", job->record.name, job->record.version);
    struct supervise_options o = {
        .fuse_fd = fuse_fd,
        .what = what,
        .child_name = "grid-serve",
        .serve = child_serve,
        .started = started,
        .watched_ready = watched_ready,
        .child_begins = child_begins,
        .adopt = adopt,
        .ctx = &k,
        .watched = {[WATCH_TERM] = k.term_fd, [WATCH_CONTROL] = k.control_fd},
    };
    c = supervise_run(&o);
    if (!k.withdrawn)
        withdraw(&k.shared);
    if (k.shared.listen_fd >= 0)
        shared_refuse(k.shared.listen_fd, 0, NULL);
    (void)attach_record_each_of(k.shared.supervisor, k.shared.supervisor_start, clear_record,
                                &k.shared); /* what stays, the next command removes */
    remove_beside(k.shared.supervisor, k.shared.supervisor_start);
    log_info("%s has ended", what);
    return c < 0;
}
