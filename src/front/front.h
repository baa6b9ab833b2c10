/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The kernel's way in: a view as a FUSE file system (libfuse 3, low level).
 *
 * No state beyond the image: node id = nid, no open files or directories (answered once with
 * ENOSYS), unlimited entry and attribute lifetimes, negative entries cached. A server that is
 * killed can be started again on the same descriptor, with the same first message.
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

/* Instead of a view's tree: one file in the root, for the kernel's own EROFS. */
struct front_flat {
    const char *name;
    uint64_t size;
    /* Exactly `size` bytes at `offset`, or -errno. Any number of threads. */
    int (*read)(void *ctx, uint64_t offset, void *data, size_t size);
    void *ctx;
};

struct front_options {
    const struct front_flat *flat; /* NULL: the view's tree */
    struct fetch *fetch;           /* what is read through; requests that must wait for it are
                                    * parked, and keep no thread. Borrowed; NULL: they wait */
    unsigned threads;              /* 0: as many as CPUs, 4 to 8 */
    int fuse_fd;                   /* /dev/fuse, opened and mounted */
    const void *init; /* the kernel's first message, read from it, answered already or not */
    size_t init_size;
};

/* Answer `view` (borrowed; may be NULL with o->flat) through o->fuse_fd, which is owned from here
 * on, also on failure. The first message is answered here, the others from front_serve() on; the
 * kernel makes callers wait.
 */
int front_open(struct view *view, const struct front_options *o, struct front **ret,
               struct err *err);
/* Serve until unmounted or stopped. -EIO if requests cannot be read any more though it is mounted.
 */
int front_serve(struct front *f, struct err *err);
void front_stop(struct front *f);
/* Milliseconds since the oldest request in work was read (or begun again); 0: there is none. Those
 * that are parked do not count: the fetch has a deadline for them. From any thread, while
 * front_serve() runs or not. */
int64_t front_age_ms(const struct front *f);
/* Does not unmount. */
void front_free(struct front *f);
AUTO_FREE_FUNC(struct front, front_free);

#endif
