/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Shared servers, inside this folder: one supervisor and its child for all jobs of one version.
 *
 *   attach-registry.c  who serves what: a socket under a name that all jobs can work out
 *   attach-apart.c     out of the job that happens to start the server
 *   attach-join.c      the side of a job: connect or start, ask, put the mount where it belongs
 *   attach-shared.c    the supervisor: holds the socket and the mount, which stands nowhere
 *   attach-vault.c     where older kernels keep that
 *   attach-jobs.c      a thread of its child: who comes, who has gone, when it is over
 */
#ifndef ATTACH_ATTACH_SHARED_H
#define ATTACH_ATTACH_SHARED_H

#include "attach/attach-internal.h"

/* ---- attach-registry.c
 * ------------------------------------------------------------------------------------------- */

#define REGISTRY_KEY_SIZE 33

/* Where the server of one identity is found. */
struct registry {
    int dir_fd;
    char key[REGISTRY_KEY_SIZE];
};

/* The identity is (user, name, version, mode, share). */
int registry_open(const struct attach_record *r, const char *share, struct registry *ret,
                  struct err *err);
void registry_close(struct registry *g);
/* -ENOENT: nobody serves it. */
int registry_connect(const struct registry *g, int *ret_fd);
/* One at a time may put something in or take it out; the lock ends with the descriptor. -EAGAIN:
 * taken, unless `wait`. */
int registry_lock(const struct registry *g, bool wait, int *ret_fd);
/* Under the lock: a socket that listens, but is not found yet; and now it is. */
int registry_offer(const struct registry *g, int *ret_listen_fd, uint64_t *ret_mark);
int registry_publish(const struct registry *g);
/* Under the lock: nobody finds that socket any more. `mark` tells it from a later one. */
void registry_withdraw(const struct registry *g, uint64_t mark);
/* Remove the sockets of dead servers. */
void registry_sweep(void);

/* ---- attach-apart.c
 * ------------------------------------------------------------------------------------------- */

/* Whether a server that this process starts could outlive it, and be used by others: as root, in
 * the machine's (or the container's) own namespaces. */
bool apart_is_possible(void);
/* This process leaves the control groups and limits of its job. -EOPNOTSUPP: it cannot. */
int apart_go(struct err *err);
/* The user, the pid and so on of this process, and of the first one, are in the same namespace. */
bool apart_same_namespace(const char *kind, uint64_t inode_of_first);

/* ---- attach-vault.c
 * ------------------------------------------------------------------------------------------- */

/* Places there: for the server's own mount, and the kernel's over it. */
enum vault_place { VAULT_OURS, VAULT_BY_KERNEL, VAULT_PLACES };
/* In a process without threads. */
int vault_make(int *ret_vault_fd);
/* Put a mount there that stands nowhere. */
int vault_put(int vault_fd, int mount_fd, enum vault_place place);
/* The descriptor of a copy of a mount that is there, or an errno. */
int vault_copy(int vault_fd, int mount_fd);

/* ---- what is said over the socket
 * ------------------------------------------------------------------------------------------- */

#define SHARED_PROTOCOL 1

enum shared_kind {
    SHARED_JOB = 1, /* a mount that the asker puts into its namespace; a tag comes with it */
    SHARED_VISIBLE, /* the server mounts it at `mountpoint` */
};

struct shared_request {
    uint32_t protocol;
    uint32_t kind;
    uint32_t required; /* fail rather than attach unprotected */
    int32_t pid;
    char run[sizeof((struct attach_record *)NULL)->run];
    char cluster[64];
    char holder[256];
    char mountpoint[ATTACH_PATH_MAX];
};

/* With the mount, for a job. */
struct shared_answer {
    int32_t code;
    uint32_t again;      /* with a code: the server is about to end; there may be another one */
    char sentence[1024]; /* why not; or what is wrong all the same */
};

/* ---- attach-shared.c
 * ------------------------------------------------------------------------------------------- */

/* All that the supervisor has and every child inherits. */
struct shared {
    struct attach_server_job *job;
    struct registry registry;
    uint64_t socket_mark;
    int mount_fd;   /* the mount; clones of it are what jobs get */
    int flat_fd;    /* what we serve, where a mount of the kernel's with devices may not keep it */
    int vault_fd;   /* where it is kept; -1: nowhere */
    int listen_fd;  /* jobs come here, and wait while a child is replaced */
    int watches_fd; /* inotify: the tags of jobs */
    int alive_fd;   /* a lock that we and our children hold, if the mount is the kernel's own */
    int quit_fd;    /* eventfd: the supervisor was told to end */
    int control_fd; /* to the supervisor: let go of everything, or a better mount */
    dev_t device;   /* of the mount */
    bool by_kernel; /* it is the kernel's own, over what we serve */
    int64_t idle_ms;
    pid_t supervisor;
    uint64_t supervisor_start;
    struct attach_jobs *jobs; /* in a child */
};

enum shared_control {
    SHARED_LET_GO = 1, /* close the mount and the socket */
    SHARED_MOUNT,      /* hold this mount, which comes with it, instead */
    SHARED_END,        /* end, whoever is served */
};

/* The process of a shared server; command.place is the key. */
int shared_main(struct attach_server_job *job, const char *key);
/* A copy of a mount of ours, or an errno. */
int shared_copy(const struct shared *s, int mount_fd);
/* Send the same to all who wait at the socket; code 0: that the server ends. */
void shared_refuse(int listen_fd, int code, const char *sentence);

/* ---- attach-jobs.c
 * ------------------------------------------------------------------------------------------- */

/* A child begins, its supervisor has died, its last user is gone. */
int jobs_new(struct shared *s, struct attach_jobs **ret);
void jobs_adopt(struct attach_jobs *jobs);
void jobs_free(struct attach_jobs *jobs);
AUTO_FREE_FUNC(struct attach_jobs, jobs_free);

/* ---- attach-record.c
 * ------------------------------------------------------------------------------------------- */

/* Records of the attachments of one server, read from the files. fn may remove them. */
int attach_record_each_of(pid_t server, uint64_t start, attach_record_fn *fn, void *ctx);
bool attach_record_exists(const struct attach_record *r);

#endif
