/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The kernel's way in: a view as a FUSE file system (libfuse 3, low level).
 *
 * No state beyond the image: node id = nid, no open files or directories (answered once with
 * ENOSYS), unlimited entry and attribute lifetimes, negative entries cached. A server that is
 * killed can be started again on the same descriptor.
 *
 * Threads: front_serve() runs its own few threads and returns when the mount is gone or
 * front_stop() was called (from a signal handler, too).
 */
#ifndef FRONT_FRONT_H
#define FRONT_FRONT_H

#include "base/cleanup.h"
#include "base/err.h"
#include "view/view.h"

struct front;

struct front_options {
    const char *fsname; /* shown in /proc/mounts, e.g. "grid:imagenet:2" */
    bool allow_other;   /* everybody may read; needs root or user_allow_other */
    unsigned threads;   /* 0: as many as CPUs, 4 to 8 */
    int control_fd;     /* an already opened and mounted /dev/fuse; -1: mount here */
};

/* Mount `view` (borrowed) at `mountpoint`, an existing directory: directly as root, else through
 * fusermount3; or take over `control_fd` (owned from here on, also on failure). Nothing is served
 * before front_serve(), but the mount is there; the kernel makes callers wait. */
int front_mount(struct view *view, const char *mountpoint, const struct front_options *o,
                struct front **ret, struct err *err);
/* Serve until unmounted or stopped. */
int front_serve(struct front *f, struct err *err);
void front_stop(struct front *f);
/* Unmounts what front_mount() itself mounted, if it is still there. */
void front_free(struct front *f);
AUTO_FREE_FUNC(struct front, front_free);

#endif
