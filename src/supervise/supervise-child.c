/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The child's end of the link: one thread that answers pings, and that notices when the supervisor
 * is gone. It is also the proof that the process still runs at all; whether its work gets on, the
 * age of the oldest request tells.
 */
#include "supervise/supervise-internal.h"

#include "base/cleanup.h"
#include "base/log.h"

#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>

struct supervise_link {
    const struct supervise_options *options;
    int fd;
    bool settled; /* the thread's */
    pthread_mutex_t lock;
    supervise_age_fn *age; /* under lock */
    void *age_ctx;
};

static void tell(const struct supervise_link *link, const struct message *m)
{
    /* If it cannot be told, the supervisor has gone: the thread sees that. */
    while (send(link->fd, m, sizeof *m, MSG_NOSIGNAL) < 0 && errno == EINTR)
        continue;
}

static void answer_ping(struct supervise_link *link, const struct message *ping)
{
    struct message pong = {.kind = MESSAGE_PONG};

    link->settled = link->settled || ping->code == 1;
    {
        WITH_LOCK(&link->lock);
        if (link->age)
            pong.age_ms = link->age(link->age_ctx);
    }
    tell(link, &pong);
}

static void *keep_link(void *arg)
{
    struct supervise_link *link = arg;
    struct message m;
    ssize_t n;

    for (;;) {
        n = recv(link->fd, &m, sizeof m, 0);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            break;
        if (n == (ssize_t)sizeof m && m.kind == MESSAGE_PING)
            answer_ping(link, &m);
    }
    log_warning("the supervisor of %s is gone; it goes on without", link->options->what);
    if (link->options->adopt)
        link->options->adopt(link->options->ctx, link->settled);
    return NULL;
}

static int start_thread(struct supervise_link *link)
{
    sigset_t all, old;
    pthread_t thread;

    (void)sigfillset(&all); /* valid arguments, all of them */
    (void)pthread_sigmask(SIG_SETMASK, &all, &old);
    int r = pthread_create(&thread, NULL, keep_link, link);
    (void)pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (r == 0)
        (void)pthread_detach(thread); /* it is joinable: cannot fail */
    return -r;
}

void child_main(const struct supervise_options *o, const struct init *init, int link_fd,
                pid_t supervisor, bool again, bool settled)
{
    struct supervise_link link = {
        .options = o, .fd = link_fd, .settled = settled, .lock = PTHREAD_MUTEX_INITIALIZER};
    struct supervise_child child = {.fuse_fd = o->fuse_fd,
                                    .init = init->data,
                                    .init_size = init->size,
                                    .again = again,
                                    .supervisor = supervisor,
                                    .link = &link};

    (void)prctl(PR_SET_NAME, o->child_name); /* a name for people */
    if (o->child_begins)
        o->child_begins(o->ctx);
    int r = start_thread(&link);
    if (r < 0) {
        supervise_failed(&child, r, "cannot start a thread");
        _exit(1);
    }
    /* Not exit(): what the program registered with atexit() is for the process that it began as. */
    _exit(o->serve(o->ctx, &child));
}

void supervise_ready(struct supervise_child *child)
{
    const struct message m = {.kind = MESSAGE_READY};
    int r = child->again ? init_resend(child->fuse_fd) : 0;

    /* ENODEV and the like: the mount is gone, as the next read will tell. */
    if (r == -EINVAL)
        log_warning("the kernel refuses to send the requests of %s again",
                    child->link->options->what);
    tell(child->link, &m);
}

void supervise_failed(struct supervise_child *child, int code, const char *sentence)
{
    struct message m = {.kind = MESSAGE_FAILED, .code = code};

    (void)snprintf(m.sentence, sizeof m.sentence, "%s", sentence ? sentence : strerror(-code));
    tell(child->link, &m);
}

void supervise_watch_age(struct supervise_child *child, supervise_age_fn *age, void *ctx)
{
    WITH_LOCK(&child->link->lock);
    child->link->age = age;
    child->link->age_ctx = ctx;
}
