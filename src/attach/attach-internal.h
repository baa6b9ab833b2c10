/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of this folder share: directories, records, server processes, mounts, namespaces.
 */
#ifndef ATTACH_ATTACH_INTERNAL_H
#define ATTACH_ATTACH_INTERNAL_H

#include "attach/attach.h"

#include <limits.h>

/* ---- attach-runtime.c
 * ---------------------------------------------------------------------------- */

#define ATTACH_PATH_MAX 4096

/* "<runtime>/<sub>", made 0700 where it is missing. */
int attach_runtime_sub(const char *sub, char ret_path[static ATTACH_PATH_MAX], struct err *err);
/* The log of NAME:VERSION, opened for appending. */
int attach_log_open(const struct attach_record *r, int *ret_fd, struct err *err);

/* ---- attach-record.c
 * ------------------------------------------------------------------------------ */

int attach_record_write(const struct attach_record *r, struct err *err);
void attach_record_remove(const struct attach_record *r);
/* attach-protection.c: beside the record of a server; "unknown" if nothing was written. */
void attach_protection_read(pid_t server, uint64_t start, char ret_word[static 16],
                            char *ret_sentence, size_t size);
void attach_protection_remove(pid_t server, uint64_t start);
/* attach-figures.c: beside it too. */
void attach_figures_remove(pid_t server, uint64_t start);
/* attach-alive.c: held by the process that asks and its children, until the last one is gone. */
int attach_alive_hold(pid_t server, int *ret_fd);
bool attach_alive_is_held(pid_t server, uint64_t start);
void attach_alive_remove(pid_t server, uint64_t start);
/* If `name` is such a file, and nobody holds it any more, remove it. */
void attach_alive_sweep(const char *name);
/* Field 22 of /proc/PID/stat; -ESRCH. */
int attach_process_start(pid_t pid, uint64_t *ret_start);

/* ---- attach-mount.c
 * ------------------------------------------------------------------------------- */

/* Open /dev/fuse and mount it. -EACCES, -EPERM, -ENOENT, -ENODEV: not possible for us here. */
int attach_fuse_mount(const struct attach_record *r, const char *mountpoint, int *ret_fd,
                      struct err *err);
/* The same with fusermount3's help, where attach_fuse_mount() is not allowed to. */
int attach_fuse_mount_helped(const struct attach_record *r, const char *mountpoint, int *ret_fd,
                             struct err *err);
/* umount2(), or fusermount3 -u where that is not ours to call. */
int attach_fuse_unmount(const char *mountpoint, bool lazy, struct err *err);
/* The device number of the topmost mount at `mountpoint` (absolute) if it is one of ours; -ENOENT.
 */
int attach_fuse_find(const char *mountpoint, dev_t *ret_device);

/* ---- attach-kernel.c
 * ------------------------------------------------------------------------------ */

/* A FUSE mount that stands nowhere; `*ret_fuse_fd` is for its server. Lives until `*ret_mount_fd`
 * is closed and nothing has a file of it open. */
int attach_flat_mount(const struct attach_record *r, int *ret_mount_fd, int *ret_fuse_fd,
                      struct err *err);
/* EROFS over the file in it (served by now) and `devices`; it stands nowhere yet. With `copy`,
 * where there are devices, perhaps over a copy of the index: then the FUSE mount is not kept by it.
 * -EOPNOTSUPP: the kernel does not do it. */
int attach_kernel_mount(const struct attach_record *r, int flat_fd,
                        const struct attach_devices *devices, bool copy, int *ret_mount_fd,
                        struct err *err);
/* The two steps behind a server that is ready: mount what r->kernel says, and show it at `place`.
 */
int attach_kernel_show(const struct attach_record *r, int flat_fd, const char *place,
                       struct err *err);

/* ---- attach-server.c
 * ------------------------------------------------------------------------------ */

/* How a server's mount is made, and when it ends. */
enum attach_kind {
    ATTACH_NAMESPACE =
        1,          /* the caller mounts in a namespace and sends the descriptor: nothing to undo */
    ATTACH_PRIVATE, /* the server mounts at a private place; unmounted when the caller lets go, who
                     * has bound it elsewhere by then */
    ATTACH_UNTIL,   /* the server mounts in view of all; unmounted when the process ends that the
                     * descriptor, a pidfd, stands for */
    ATTACH_VISIBLE, /* in view of all until somebody unmounts; with or without a descriptor */
    ATTACH_SHARED,  /* of many jobs (attach-shared.h); `place` is its key */
    ATTACH_TRIAL,   /* as ATTACH_NAMESPACE, but nobody is told of it */
};

/* The caller's side of a server process. */
struct attach_server {
    int talk_fd; /* commands and answers */
    int life_fd; /* at its end when the server is gone */
};

#define ATTACH_SERVER_NONE                                                                         \
    {                                                                                              \
        .talk_fd = -1, .life_fd = -1                                                               \
    }

/* Start a process that waits for its command. `others` (earlier servers of the caller) are not
 * inherited. */
int attach_server_start(const struct attach_record *r, attach_serve_fn *serve, void *ctx,
                        const struct attach_server *others, size_t other_count,
                        struct attach_server *ret, struct err *err);
/* The same for a server that is shared: it listens at this socket. */
int attach_server_start_shared(const struct attach_item *item, int listen_fd, uint64_t socket_mark,
                               struct attach_server *ret, struct err *err);
/* Send the command; `place` is where the server mounts (or the caller did, in its namespace), an
 * absolute path; `fd` may be -1, and stays the caller's. */
int attach_server_command(struct attach_server *s, enum attach_kind kind, const char *place,
                          int fd);
/* Wait until it serves. */
int attach_server_wait(struct attach_server *s, const struct attach_record *r, struct err *err);
void attach_server_let_go(struct attach_server *s); /* close the talk: lets a private mount go */
/* Wait until it is gone, `timeout_ms` at most; true if it is. */
bool attach_server_gone(const struct attach_server *s, int timeout_ms);
void attach_server_close(struct attach_server *s);

/* Between the two: one command, one answer. */
struct attach_command {
    int kind;
    char place[ATTACH_PATH_MAX];
};

struct attach_answer {
    int code;
    char sentence[1024];
};

/* A message over a socket that keeps borders, with a descriptor unless `fd` is -1. */
int attach_send(int sock, const void *data, size_t size, int fd);
/* 0, -ENODATA at the end, -EPROTO for another size. */
int attach_receive(int sock, void *data, size_t size, int *ret_fd);

/* ---- attach-serve.c
 * ------------------------------------------------------------------------------- */

/* What a server process is born with. */
struct attach_server_job {
    struct attach_record record; /* its mountpoint is what people see */
    attach_serve_fn *serve;
    void *serve_ctx;
    int talk_fd;          /* the command comes from here, the answer goes there */
    int life_fd;          /* open as long as it or its child lives */
    int listen_fd;        /* of a shared one: where jobs come; else -1 */
    uint64_t socket_mark; /* and how its name is known to be ours */
};

/* The server process, from its birth to its exit code. */
int attach_server_main(struct attach_server_job *job);

/* Its log is open, its directory is "/". */
int attach_server_begin(const struct attach_record *r, struct err *err);

/* ---- attach-join.c
 * -------------------------------------------------------------------------------- */

/* A connection to the shared server of an item, which is started if there is none. -EOPNOTSUPP: it
 * cannot be shared here. */
int attach_link_open(const struct attach_item *item, int *ret_link, struct err *err);
/* Have it shown at `place`, a directory of this namespace. -EAGAIN: the server has ended meanwhile:
 * begin anew. */
int attach_link_join(int link, const struct attach_item *item, const char *place, struct err *err);
/* The server has seen the end of that job, or has ended. */
bool attach_link_ended(int link, int timeout_ms);
/* Have it mounted in view of all, at item->record.mountpoint. -EOPNOTSUPP. */
int attach_shared_visible(const struct attach_item *item, struct err *err);

/* ---- attach-namespace.c
 * --------------------------------------------------------------------------- */

/* A mount namespace for this process, events from outside still coming in, none going out; with
 * `user`, in a user namespace that maps our ids to themselves. */
int attach_namespace_enter(bool user, struct err *err);

/* ---- attach-session.c
 * ----------------------------------------------------------------------------- */

/* Take a name, before anything is attached. -EEXIST: a session has it. */
int attach_session_claim(const char *name, struct err *err);
/* In its first process, when all is attached. */
int attach_session_note(const char *name, bool has_namespace, struct err *err);
/* Give the name back, unless processes of the session are left. */
void attach_session_drop(const char *name);

/* ---- attach-root.c
 * -------------------------------------------------------------------------------- */

/* Where a datastore is to be seen, and how far that path exists. */
struct attach_place {
    char path[ATTACH_PATH_MAX];
    size_t anchor_length; /* what exists of it; all of it: the whole length */
};

/* Look at the file system as the caller sees it. -EINVAL, -ENOTDIR or -ENOENT with a sentence where
 * no directory can be shown there. */
int attach_place_find(const char *target, struct attach_place *ret, struct err *err);
/* Neither may lie in the other. */
int attach_places_check(const struct attach_place *places, size_t count, struct err *err);
/* Inside a new mount namespace: make every place a directory, without touching what others see.
 * `stage` is an existing directory. */
int attach_places_make(const struct attach_place *places, size_t count, const char *stage,
                       struct err *err);
/* Then, in front of mounts by root for `uid`: if that user may have something mounted there,
 * `place` becomes a path that leads to the same directory whatever its owner does meanwhile, as
 * long as this process lives. -EPERM. */
int attach_place_pin(struct attach_place *place, uid_t uid, struct err *err);

#endif
