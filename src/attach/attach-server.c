/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Server processes: started before anything is mounted, told by one message what to serve, apart
 * from the caller in every way that could end them with it (session, terminal, descriptors,
 * parent).
 *
 * A server ends by itself: the kernel tells it when its mount is gone. Only a mount that stands in
 * view of others has to be taken away, and a thread waits for the moment: until the caller lets go
 * of the socket (the command was started: the private mount is bound elsewhere by then), or until a
 * process ends, or until SIGTERM (a machine that shuts down).
 */
#include "attach/attach-internal.h"

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
#include <sys/socket.h>
#include <sys/wait.h>

struct command {
    int kind;
    char place[ATTACH_PATH_MAX];
};

struct answer {
    int code;
    char sentence[1024];
};

/* What a server process knows. */
struct server {
    struct attach_record record; /* its mountpoint is what people see */
    char place[ATTACH_PATH_MAX]; /* where we mount */
    attach_serve_fn *serve;
    void *serve_ctx;
    int talk_fd;
    int life_fd;  /* open as long as we live */
    int until_fd; /* ATTACH_UNTIL: the process */
    int term_fd;  /* gives SIGTERMs; -1: they just end us */
    enum attach_kind kind;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool answered; /* under lock: ready or failed */
    bool mounted;  /* under lock: there is something in view that is ours to take away */
    dev_t device;  /* of it */
    bool recorded;
};

/* ---- descriptors over a socket
 * ------------------------------------------------------------------------ */

static int send_message(int sock, const void *data, size_t size, int fd)
{
    union {
        char bytes[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } control = {.bytes = {0}};
    struct iovec iov = {.iov_base = (void *)data, .iov_len = size};
    struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1};

    if (fd >= 0) {
        m.msg_control = control.bytes;
        m.msg_controllen = sizeof control.bytes;
        struct cmsghdr *c = CMSG_FIRSTHDR(&m);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(sizeof fd);
        memcpy(CMSG_DATA(c), &fd, sizeof fd);
    }
    for (;;) {
        ssize_t n = sendmsg(sock, &m, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        return n < 0 ? -errno : 0;
    }
}

/* 0, -ENODATA at the end, -EPROTO for another size. */
static int receive_message(int sock, void *data, size_t size, int *ret_fd)
{
    union {
        char bytes[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } control = {.bytes = {0}};
    struct iovec iov = {.iov_base = data, .iov_len = size};
    struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1};
    ssize_t n;
    int fd = -1;

    if (ret_fd) {
        m.msg_control = control.bytes;
        m.msg_controllen = sizeof control.bytes;
    }
    do
        n = recvmsg(sock, &m, MSG_CMSG_CLOEXEC);
    while (n < 0 && errno == EINTR);
    if (n < 0)
        return -errno;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(&m); c; c = CMSG_NXTHDR(&m, c)) {
        if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS &&
            c->cmsg_len == CMSG_LEN(sizeof fd))
            memcpy(&fd, CMSG_DATA(c), sizeof fd);
    }
    if (n == 0 || (size_t)n != size) {
        if (fd >= 0)
            (void)close(fd); /* of a message that is dropped */
        return n == 0 ? -ENODATA : -EPROTO;
    }
    if (ret_fd)
        *ret_fd = fd;
    return 0;
}

/* ---- the server process
 * --------------------------------------------------------------------------------- */

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

static void take_away(struct server *s)
{
    dev_t device;

    /* By now something else may be mounted there. */
    if (attach_fuse_find(s->place, &device) < 0 || device != s->device)
        return;
    struct err err = ERR_INIT;
    int c = attach_fuse_unmount(s->place, true, &err);
    if (c < 0)
        log_warning("%s", err_text(&err, c));
}

/* From now on SIGTERM is read from a descriptor: it takes the mount away, and whoever still stands
 * in it is served to the end. */
static int catch_sigterm(void)
{
    sigset_t set;

    (void)sigemptyset(&set); /* valid arguments, all of them */
    (void)sigaddset(&set, SIGTERM);
    (void)pthread_sigmask(SIG_BLOCK, &set, NULL);
    return signalfd(-1, &set, SFD_CLOEXEC);
}

/* The second one ends the process, whoever is served. */
static void wait_for_another(int term_fd)
{
    struct signalfd_siginfo info;
    struct pollfd p = {.fd = term_fd, .events = POLLIN};
    sigset_t set;

    if (poll(&p, 1, 0) > 0)
        (void)!read(term_fd, &info, sizeof info); /* the first one has done its work */
    (void)sigemptyset(&set);                      /* valid arguments, all of them */
    (void)sigaddset(&set, SIGTERM);
    (void)pthread_sigmask(SIG_UNBLOCK, &set, NULL);
    for (;;)
        (void)pause();
}

/* The thread that unmounts. */
static void *wait_and_unmount(void *arg)
{
    struct server *s = arg;
    struct pollfd p[2] = {{.fd = -1, .events = POLLIN}, {.fd = s->term_fd, .events = POLLIN}};

    if (s->kind != ATTACH_VISIBLE)
        p[0].fd = s->kind == ATTACH_UNTIL ? s->until_fd : s->talk_fd;
    while (poll(p, 2, -1) < 0 && errno == EINTR)
        continue;
    {
        WITH_LOCK(&s->lock);
        while (!s->answered)
            (void)pthread_cond_wait(&s->changed, &s->lock); /* fails for no valid condition */
        if (s->mounted)
            take_away(s);
        s->mounted = false;
    }
    if (s->kind == ATTACH_PRIVATE && rmdir(s->place) < 0 && errno != ENOENT)
        log_warning("cannot remove %s: %s", s->place, strerror(errno));
    if (s->term_fd >= 0)
        wait_for_another(s->term_fd);
    return NULL;
}

static void server_ready(void *ctx, int code, const char *sentence)
{
    struct server *s = ctx;
    struct answer a = {.code = code};
    struct err err = ERR_INIT;
    char word[16], note[sizeof a.sentence];

    {
        WITH_LOCK(&s->lock);
        if (s->answered)
            return;
        s->answered = true;
        s->mounted =
            code == 0 && s->kind != ATTACH_NAMESPACE && attach_fuse_find(s->place, &s->device) == 0;
        (void)pthread_cond_broadcast(&s->changed); /* fails for no valid condition */
    }
    if (code == 0) {
        s->record.since_ms = env_real()->wall_ms(env_real());
        int c = attach_record_write(&s->record, &err);
        s->recorded = c == 0;
        if (c < 0)
            log_warning("the mount works, but will not be listed: %s", err_text(&err, c));
        attach_protection_read(s->record.server, s->record.server_start, word, note, sizeof note);
        if (note[0] && !sentence)
            sentence = note;
        log_info("serving %s:%u at %s", s->record.name, s->record.version, s->record.mountpoint);
    } else {
        log_error("%s", sentence ? sentence : strerror(-code));
    }
    if (sentence)
        (void)snprintf(a.sentence, sizeof a.sentence, "%s", sentence);
    (void)send_message(s->talk_fd, &a, sizeof a, -1); /* who asked may be gone */
}

static int server_serve(struct server *s, int fd)
{
    pthread_t thread;
    int control_fd = s->kind == ATTACH_UNTIL ? -1 : fd;

    s->until_fd = s->kind == ATTACH_UNTIL ? fd : -1;
    s->term_fd = s->kind == ATTACH_VISIBLE || s->kind == ATTACH_UNTIL ? catch_sigterm() : -1;
    if (s->kind != ATTACH_NAMESPACE && pthread_create(&thread, NULL, wait_and_unmount, s) != 0) {
        server_ready(s, -EAGAIN, "cannot start a thread");
        return 1;
    }
    int code = s->serve(s->serve_ctx, s->place, control_fd, server_ready, s);
    server_ready(s, -EIO, "the server ended before it was ready");
    {
        WITH_LOCK(&s->lock);
        if (s->mounted)
            take_away(s);
        s->mounted = false;
    }
    if (s->recorded)
        attach_record_remove(&s->record);
    log_info("%s:%u at %s has ended", s->record.name, s->record.version, s->record.mountpoint);
    return code;
}

static int server_main(struct server *s)
{
    struct command c;
    int fd = -1, log_fd = -1;
    sigset_t none;

    (void)sigemptyset(&none);
    (void)sigprocmask(SIG_SETMASK, &none, NULL); /* both cannot fail with these arguments */
    const int defaults[] = {SIGTERM, SIGINT, SIGQUIT, SIGHUP, SIGCHLD, SIGUSR1, SIGUSR2};
    for (size_t i = 0; i < sizeof defaults / sizeof defaults[0]; i++)
        (void)signal(defaults[i], SIG_DFL); /* valid signals */
    (void)signal(SIGPIPE, SIG_IGN);         /* writes tell it */
    (void)prctl(PR_SET_NAME, "grid-serve"); /* a name for people */
    close_inherited();
    if (receive_message(s->talk_fd, &c, sizeof c, &fd) < 0)
        return 0; /* nobody wants us any more */
    c.place[sizeof c.place - 1] = '\0';
    memcpy(s->place, c.place, sizeof s->place);
    s->kind = (enum attach_kind)c.kind;
    s->record.server = getpid();
    struct err err = ERR_INIT;
    int r = attach_process_start(s->record.server, &s->record.server_start);
    if (r == 0)
        r = attach_log_open(&s->record, &log_fd, &err);
    if (r == 0 && (dup2(log_fd, 2) < 0 || chdir("/") < 0))
        r = -errno;
    if (r < 0) {
        server_ready(s, r, err_text(&err, r));
        return 1;
    }
    (void)close(log_fd); /* 2 is the same */
    char prefix[32];
    (void)snprintf(prefix, sizeof prefix, "grid-serve %d", (int)getpid());
    log_init(2, LOG_LEVEL_INFO, prefix);
    return server_serve(s, fd);
}

/* ---- the caller's side
 * ------------------------------------------------------------------------------------ */

static void server_process(struct server *s, const struct attach_server *others, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        struct attach_server o = others[i];
        attach_server_close(&o);
    }
    AUTO(close_fd) int null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (null_fd < 0 || dup2(null_fd, 0) < 0 || dup2(null_fd, 1) < 0 || dup2(null_fd, 2) < 0)
        _exit(1);
    _exit(server_main(s));
}

int attach_server_start(const struct attach_record *r, attach_serve_fn *serve, void *ctx,
                        const struct attach_server *others, size_t other_count,
                        struct attach_server *ret, struct err *err)
{
    struct server s = {.record = *r,
                       .serve = serve,
                       .serve_ctx = ctx,
                       .until_fd = -1,
                       .lock = PTHREAD_MUTEX_INITIALIZER,
                       .changed = PTHREAD_COND_INITIALIZER};
    int talk[2], life[2], status;

    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, talk) < 0)
        return err_fail(err, -errno, "cannot make a socket: %s", strerror(errno));
    AUTO(close_fd) int talk_ours = talk[0];
    AUTO(close_fd) int talk_theirs = talk[1];
    if (pipe2(life, O_CLOEXEC) < 0)
        return err_fail(err, -errno, "cannot make a pipe: %s", strerror(errno));
    AUTO(close_fd) int life_ours = life[0];
    AUTO(close_fd) int life_theirs = life[1];
    /* Twice, so that the server is nobody's child here: no zombie, whoever ends first. */
    pid_t pid = fork();
    if (pid < 0)
        return err_fail(err, -errno, "cannot start a process: %s", strerror(errno));
    if (pid == 0) {
        if (setsid() < 0)
            _exit(1);
        pid = fork();
        if (pid != 0)
            _exit(pid < 0);
        (void)close(talk_ours); /* ends of the caller */
        (void)close(life_ours);
        s.talk_fd = talk_theirs;
        s.life_fd = life_theirs;
        server_process(&s, others, other_count);
    }
    while (waitpid(pid, &status, 0) < 0) {
        if (errno != EINTR)
            return err_fail(err, -errno, "cannot wait for a process: %s", strerror(errno));
    }
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
        return err_fail(err, -EAGAIN, "cannot start a server process");
    ret->talk_fd = take_fd(&talk_ours);
    ret->life_fd = take_fd(&life_ours);
    return 0;
}

int attach_server_command(struct attach_server *s, enum attach_kind kind, const char *place, int fd)
{
    struct command c = {.kind = (int)kind};

    (void)snprintf(c.place, sizeof c.place, "%s", place);
    return send_message(s->talk_fd, &c, sizeof c, fd);
}

int attach_server_wait(struct attach_server *s, const struct attach_record *r, struct err *err)
{
    struct answer a;
    int c = receive_message(s->talk_fd, &a, sizeof a, NULL);

    if (c < 0)
        return err_fail(err, -EIO, "the server of %s:%u died before it was ready", r->name,
                        r->version);
    a.sentence[sizeof a.sentence - 1] = '\0';
    if (a.code < 0)
        return err_fail(err, a.code, "%s", a.sentence[0] ? a.sentence : strerror(-a.code));
    if (a.sentence[0] && r->note)
        r->note(r, a.sentence);
    return 0;
}

void attach_server_let_go(struct attach_server *s)
{
    int fd = take_fd(&s->talk_fd);

    if (fd >= 0)
        (void)close(fd); /* a socket: nothing to lose */
}

bool attach_server_gone(const struct attach_server *s, int timeout_ms)
{
    struct pollfd p = {.fd = s->life_fd, .events = POLLIN};

    return s->life_fd < 0 || (poll(&p, 1, timeout_ms) > 0 && (p.revents & POLLHUP));
}

void attach_server_close(struct attach_server *s)
{
    attach_server_let_go(s);
    int fd = take_fd(&s->life_fd);
    if (fd >= 0)
        (void)close(fd); /* a pipe's reading end */
}
