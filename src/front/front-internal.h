/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Shared by the files of this folder: the mount, and what answers requests.
 */
#ifndef FRONT_FRONT_INTERNAL_H
#define FRONT_FRONT_INTERNAL_H

#define FUSE_USE_VERSION 34
#include <fuse_lowlevel.h>

#include "front/front.h"

#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>

/* The largest answer: what the kernel asks for at once, 256 pages. */
#define FRONT_REPLY_MAX (1u << 20)

#define THREADS_MIN 4 /* a thread that waits for the disk answers nobody */
#define THREADS_MAX 8
#define RUNNERS     2 /* run parked requests again */

/* Seconds that names and attributes are good for: the version never changes. */
#define FRONT_FOREVER 1e9
/* Requests that the kernel sends ahead of need (read-ahead); 12 by default. */
#define FRONT_BACKGROUND_MAX 64

struct front_op;

/* What an operation answers. */
enum front_answer_kind {
    FRONT_ERROR,
    FRONT_ENTRY,
    FRONT_ATTR,
    FRONT_TEXT,   /* in the reply buffer */
    FRONT_BYTES,  /* in the reply buffer */
    FRONT_LENGTH, /* of an attribute */
};

struct front_answer {
    enum front_answer_kind kind;
    int code; /* -errno */
    size_t size;
    struct fuse_entry_param entry;
    struct stat attr;
};

/* An operation as a value: it can be run again from its beginning. */
typedef void front_run_fn(struct front_op *op, struct front_answer *ret);

struct front_op {
    struct fetch_ticket ticket; /* first */
    struct front *front;
    fuse_req_t req;
    front_run_fn *run;
    fuse_ino_t ino;
    size_t size;
    off_t offset;
    bool plus;
    char name[INDEX_NAME_MAX + 1];
    /* if it was parked: */
    struct front_op *before, *after; /* of all that are; under the lock of the parking place */
    struct front_op *next;           /* of those to be run again */
    pid_t pid;                       /* who waits */
    bool parked;
    atomic_bool interrupted; /* a signal came for who waits */
    atomic_bool killed;      /* and it is to end */
};

/* Requests that wait for their bytes, and the threads that run them again. */
struct parking {
    pthread_mutex_t lock; /* of `first`; taken before that of the fetch */
    struct front_op *first;
    pthread_mutex_t ready_lock; /* of what follows; taken last */
    pthread_cond_t ready;
    struct front_op *ready_first, *ready_last;
    bool stopping;
    pthread_t threads[RUNNERS];
    unsigned thread_count;
    atomic_uint interrupted; /* those that were, but are not to end */
};

struct front {
    struct fetch *fetch; /* borrowed; NULL: nothing is parked */
    struct parking parking;
    struct view *view;      /* borrowed; NULL: the file system of one file */
    struct front_flat flat; /* or this */
    struct fuse_session *session;
    unsigned threads;
    uid_t uid; /* whose the files are shown to be */
    gid_t gid;
    bool no_open; /* the kernel needs no open and release */
    bool no_opendir;
    sem_t wake; /* posted when serving shall end */
    atomic_bool stopped;
    atomic_bool failed;                                   /* requests cannot be read */
    _Atomic int64_t working_since[THREADS_MAX + RUNNERS]; /* of each thread; 0: it is idle */
};

extern const struct fuse_lowlevel_ops front_ops;      /* front-ops.c: a tree */
extern const struct fuse_lowlevel_ops front_flat_ops; /* front-flat.c: one file */

/* The calling thread's room for one answer: each thread that serves sets it once. */
void front_set_reply_buffer(uint8_t *buffer);
uint8_t *front_reply_buffer(void);
int64_t front_now_ms(void);

/* ---- front-park.c ---- */

/* A new operation for a request, on a thread that serves. */
struct front_op *front_op_begin(fuse_req_t req, front_run_fn *run, fuse_ino_t ino);
/* Run it and answer it, or park it. */
void front_op_go(struct front_op *op);
/* The thread's own operation, made ahead, so that a request cannot fail for want of it. */
int front_op_prepare(void);
void front_op_unprepare(void);
int front_parking_init(struct front *f);
void front_parking_release(struct front *f);
int front_parking_start(struct front *f);
/* What is parked is dropped without an answer: the kernel is gone, or will ask somebody else. */
void front_parking_stop(struct front *f);

/* ---- front-answer.c ---- */

void front_answer(fuse_req_t req, const struct front_answer *a);
void front_answer_error(fuse_req_t req, int code);

#endif
