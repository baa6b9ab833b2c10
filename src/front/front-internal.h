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

/* Seconds that names and attributes are good for: the version never changes. */
#define FRONT_FOREVER 1e9
/* Requests that the kernel sends ahead of need (read-ahead); 12 by default. */
#define FRONT_BACKGROUND_MAX 64

struct front {
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
    atomic_bool failed;                         /* requests cannot be read */
    _Atomic int64_t working_since[THREADS_MAX]; /* of each thread; 0: it waits for requests */
};

extern const struct fuse_lowlevel_ops front_ops;      /* front-ops.c: a tree */
extern const struct fuse_lowlevel_ops front_flat_ops; /* front-flat.c: one file */

/* The calling thread's room for one answer: each thread that serves sets it once. */
void front_set_reply_buffer(uint8_t *buffer);
uint8_t *front_reply_buffer(void);

#endif
