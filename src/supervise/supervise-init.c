/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The kernel's side of a takeover, as raw messages: INIT, which comes once in a mount's life and
 * must be kept for every later child, and the notification that has requests sent again.
 */
#include "supervise/supervise-internal.h"

#include <errno.h>
#include <linux/fuse.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

/* INIT is queued by mount(2) itself; this only keeps a wrong descriptor from blocking us. */
#define INIT_WAIT_MS 10000
/* Newer than the kernel headers of our oldest distribution: bit 39 of the flags, and the code. */
#define HAS_RESEND_HIGH (1u << 7)
#define NOTIFY_RESEND   7

int init_read(int fuse_fd, struct init *ret)
{
    struct pollfd p = {.fd = fuse_fd, .events = POLLIN};
    const struct fuse_in_header *header = (const void *)ret->data;
    const struct fuse_init_in *in = (const void *)(header + 1);
    ssize_t n;

    int ready = poll(&p, 1, INIT_WAIT_MS);
    if (ready <= 0)
        return ready == 0 ? -ETIMEDOUT : -errno;
    do
        n = read(fuse_fd, ret->data, sizeof ret->data);
    while (n < 0 && errno == EINTR);
    if (n < 0)
        return -errno;
    /* The first four fields of INIT's body came with the first FUSE protocols. */
    if ((size_t)n < sizeof *header + 16 || header->opcode != FUSE_INIT || header->len != (size_t)n)
        return -EPROTO;
    ret->size = (size_t)n;
    ret->resends = (size_t)n >= sizeof *header + 20 && (in->flags & FUSE_INIT_EXT) &&
                   (in->flags2 & HAS_RESEND_HIGH);
    return 0;
}

int init_resend(int fuse_fd)
{
    const struct fuse_out_header h = {.len = sizeof h, .error = NOTIFY_RESEND};

    return write(fuse_fd, &h, sizeof h) == (ssize_t)sizeof h ? 0 : -errno;
}

bool init_mount_gone(int fuse_fd)
{
    struct pollfd p = {.fd = fuse_fd};

    return poll(&p, 1, 0) > 0 && (p.revents & (POLLERR | POLLHUP)) != 0;
}
