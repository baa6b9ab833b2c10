/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Shared by the files of this folder: the mount, and what answers requests.
 */
#ifndef FRONT_FRONT_INTERNAL_H
#define FRONT_FRONT_INTERNAL_H

#define FUSE_USE_VERSION 34
#include <fuse_lowlevel.h>

#include "front/front.h"

#include <semaphore.h>
#include <stdatomic.h>

/* The largest answer: what the kernel asks for at once, 256 pages. */
#define FRONT_REPLY_MAX (1u << 20)

#define THREADS_MIN 4 /* a thread that waits for the store answers nobody */
#define THREADS_MAX 8

struct front {
    struct view *view; /* borrowed */
    struct fuse_session *session;
    unsigned threads;
    uid_t uid; /* whose the files are shown to be */
    gid_t gid;
    bool no_open; /* the kernel needs no open and release */
    bool no_opendir;
    sem_t wake; /* posted when serving shall end */
    atomic_bool stopped;
    atomic_bool failed;                         /* requests cannot be read */
    _Atomic int64_t working_since[THREADS_MAX]; /* of each thread; 0: it waits for requests */
};

extern const struct fuse_lowlevel_ops front_ops;

/* The calling thread's room for one answer: each thread that serves sets it once. */
void front_set_reply_buffer(uint8_t *buffer);

#endif
