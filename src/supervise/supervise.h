/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Supervise: a mount outlives the process that serves it.
 *
 * supervise_run() is the main loop of a small process without threads that owns a mounted /dev/fuse
 * descriptor. It reads the kernel's first message (INIT) once and keeps it, then forks a child that
 * serves. When the child dies with the mount still there, another one gets the same descriptor and
 * the same INIT, and the kernel is told to send again what nobody has answered
 * (FUSE_NOTIFY_RESEND): those who wait for an answer wait a little longer, and see nothing else.
 * The child must keep no state that the next one would need.
 *
 * Whether the mount is still there only the kernel says; a child's exit code does not count.
 *
 *   - A child that lived is replaced at once; one that died young or could not start, after delays
 *     that grow; after `give_up_ms` of that the supervisor gives up, and users get ENOTCONN.
 *   - A child that answers no ping for `ping_ms` x `ping_limit`, or works on one request for longer
 *     than `stall_ms`, is killed and replaced. Pings are counted, not timed: a machine that slept,
 *     or a frozen cgroup, is no dead child.
 *   - If the supervisor itself dies, the child goes on to serve: adopt() is called in it.
 *   - If both die, the kernel ends the connection: ENOTCONN.
 *   - Kernels before 6.9 cannot send again. There, a child's death ends the mount as if both died;
 *     supervise_run() says so in the log at the beginning.
 *
 * Threads: none in the supervisor, which must have none when it calls supervise_run(). In the child
 * one thread talks to the supervisor; all signals but those of faults are blocked in it.
 */
#ifndef SUPERVISE_SUPERVISE_H
#define SUPERVISE_SUPERVISE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* ---- the child's side
 * ----------------------------------------------------------------------------------------- */

struct supervise_link; /* to the supervisor */

/* What a child gets. */
struct supervise_child {
    int fuse_fd;      /* the child's to close */
    const void *init; /* the INIT request, answered by an earlier child or not. To be answered */
    size_t
        init_size; /* before anything else is read; ENOENT from the kernel then means: answered */
    bool again;    /* not the first child of this mount */
    pid_t supervisor; /* who forked it; it may be dead by now */
    void *more;       /* of whoever supervises, for its own serve function; NULL */
    struct supervise_link *link;
};

/* Serves until the mount is gone; gives the exit code of the process. */
typedef int supervise_serve_fn(void *ctx, struct supervise_child *child);

/* INIT is answered, and from now on requests are read and answered. Has the kernel send again what
 * an earlier child left; so nobody may have read from the descriptor yet. */
void supervise_ready(struct supervise_child *child);
/* It cannot serve, and will exit. The sentence is for whoever waits, or for the log. */
void supervise_failed(struct supervise_child *child, int code, const char *sentence);

/* Milliseconds that the oldest request in work has taken; 0: there is none. Called from the thread
 * that answers pings. */
typedef int64_t supervise_age_fn(void *ctx);
/* Have the age of requests watched, until `age` is NULL again (ctx may go then). */
void supervise_watch_age(struct supervise_child *child, supervise_age_fn *age, void *ctx);

/* ---- the supervisor's side
 * ------------------------------------------------------------------------------------ */

/* What becomes of a watched descriptor that was readable. */
enum supervise_answer {
    SUPERVISE_WATCH,  /* go on (it was read) */
    SUPERVISE_FORGET, /* it is not looked at again */
    SUPERVISE_END,    /* kill the child and return */
};

#define SUPERVISE_WATCHED_MAX 2

struct supervise_options {
    int fuse_fd;            /* mounted, and nothing was read from it; borrowed */
    const char *what;       /* "imagenet:2", for log lines */
    const char *child_name; /* of the process, for people: 15 bytes at most */
    supervise_serve_fn *serve;
    /* In the supervisor, once: the first child is ready (0), or failed (-errno), or died before it
     * could say so (-ECHILD). */
    void (*started)(void *ctx, int code, const char *sentence);
    /* In the supervisor: watched[which] is readable. May be NULL if nothing is watched. */
    enum supervise_answer (*watched_ready)(void *ctx, size_t which);
    /* In the child, before it serves. May be NULL. */
    void (*child_begins)(void *ctx);
    /* In a thread of the child: the supervisor has died; `settled`: the first child was ready, so
     * that somebody relies on the mount. May stay for as long as it likes, and may end the process.
     * May be NULL. */
    void (*adopt)(void *ctx, bool settled);
    void *ctx;                          /* for all of these */
    int watched[SUPERVISE_WATCHED_MAX]; /* descriptors, -1: none */
    int ping_ms, ping_limit;            /* 0: 2 s, and 5 of them */
    int64_t stall_ms;                   /* 0: 5 minutes */
    int64_t give_up_ms;                 /* 0: a minute */
};

/* Serve until the mount is gone (0), or until it has to be given up: -EIO (children die), -ENOTCONN
 * (a kernel that cannot send again), -ECANCELED (SUPERVISE_END), or what the first child failed
 * with. No child is left. */
int supervise_run(const struct supervise_options *o);

#endif
