/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Server processes, from the caller's side: started before anything is mounted, told by one message
 * what to serve, apart from the caller in every way that could end them with it (session, terminal,
 * descriptors, parent). What they do then is in attach-serve.c.
 */
#include "attach/attach-internal.h"

#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>

/* ---- descriptors over a socket
 * ------------------------------------------------------------------------ */

int attach_send(int sock, const void *data, size_t size, int fd)
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

int attach_receive(int sock, void *data, size_t size, int *ret_fd)
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

/* ---- starting and talking to them
 * --------------------------------------------------------------------------- */

static _Noreturn void server_process(struct attach_server_job *job,
                                     const struct attach_server *others, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        struct attach_server o = others[i];
        attach_server_close(&o);
    }
    AUTO(close_fd) int null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (null_fd < 0 || dup2(null_fd, 0) < 0 || dup2(null_fd, 1) < 0 || dup2(null_fd, 2) < 0)
        _exit(1);
    _exit(attach_server_main(job));
}

static int start(struct attach_server_job *job, const struct attach_server *others,
                 size_t other_count, struct attach_server *ret, struct err *err)
{
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
        job->talk_fd = talk_theirs;
        job->life_fd = life_theirs;
        server_process(job, others, other_count);
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

int attach_server_start(const struct attach_record *r, attach_serve_fn *serve, void *ctx,
                        const struct attach_server *others, size_t other_count,
                        struct attach_server *ret, struct err *err)
{
    struct attach_server_job job = {
        .record = *r, .serve = serve, .serve_ctx = ctx, .listen_fd = -1};

    return start(&job, others, other_count, ret, err);
}

int attach_server_start_shared(const struct attach_item *item, int listen_fd, uint64_t socket_mark,
                               struct attach_server *ret, struct err *err)
{
    struct attach_server_job job = {.record = item->record,
                                    .serve = item->serve,
                                    .serve_ctx = item->serve_ctx,
                                    .listen_fd = listen_fd,
                                    .socket_mark = socket_mark};

    return start(&job, NULL, 0, ret, err);
}

int attach_server_command(struct attach_server *s, enum attach_kind kind, const char *place, int fd)
{
    struct attach_command c = {.kind = (int)kind};

    (void)snprintf(c.place, sizeof c.place, "%s", place);
    return attach_send(s->talk_fd, &c, sizeof c, fd);
}

int attach_server_wait(struct attach_server *s, const struct attach_record *r, struct err *err)
{
    struct attach_answer a;
    int c = attach_receive(s->talk_fd, &a, sizeof a, NULL);

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
