/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Shared by the two ends of the link between a supervisor and its child.
 */
#ifndef SUPERVISE_SUPERVISE_INTERNAL_H
#define SUPERVISE_SUPERVISE_INTERNAL_H

#include "supervise/supervise.h"

/* ---- supervise-init.c
 * ----------------------------------------------------------------------------------------- */

/* INIT is 104 bytes today. The kernel wants room for the largest request before it gives any. */
#define INIT_ROOM 65536u

struct init {
    size_t size;
    bool resends;                        /* the kernel can send requests again */
    _Alignas(8) uint8_t data[INIT_ROOM]; /* holds the kernel's structs */
};

/* Read and check it. -ENODEV: the mount is gone already; -EPROTO; -ETIMEDOUT. */
int init_read(int fuse_fd, struct init *ret);
/* Have the kernel send again what was read and not answered. */
int init_resend(int fuse_fd);
/* The kernel says that the mount is gone, or its connection was ended. */
bool init_mount_gone(int fuse_fd);

/* ---- the link: messages over a socket that keeps their borders
 * ---------------------------------------------------- */

enum message_kind {
    MESSAGE_PING = 1, /* to the child; code 1: its readiness was told */
    MESSAGE_PONG,     /* to the supervisor; age_ms */
    MESSAGE_READY,
    MESSAGE_FAILED, /* code, sentence */
};

struct message {
    int32_t kind;
    int32_t code;
    int64_t age_ms;
    char sentence[1024];
};

/* ---- supervise-child.c
 * ---------------------------------------------------------------------------------------- */

/* All that a child does; never returns. */
_Noreturn void child_main(const struct supervise_options *o, const struct init *init, int link_fd,
                          pid_t supervisor, bool again, bool settled);

#endif
