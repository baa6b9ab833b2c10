/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the Slurm plugin calls (docs/slurm.md): which datastore a job means, whether root may serve
 * it for its user, and serving it as that user.
 */
#ifndef CLI_SLURM_H
#define CLI_SLURM_H

#include "cli/cmd-mount.h"

#include <sys/types.h>

/* "[CLUSTER/]NAME[:N][@/DIR]" */
struct spec {
    char cluster[64]; /* "": as GRID_STORE, or the user's context, says */
    char name[64];
    uint32_t version;      /* 0: the newest */
    const char *directory; /* into the text; NULL: /datastores/NAME */
};

/* -EINVAL with a sentence. */
int spec_parse(const char *text, struct spec *ret, struct err *err);

/* Did the administrator list this user, or a group of theirs, for the cluster? */
bool cluster_is_open_to(const struct cluster *c, uid_t uid);

/* ---- as the user of a job (slurm-user.c) ---- */

struct job_user {
    uid_t uid;
    gid_t gid;
    char name[64];     /* "": the user database knows none */
    char *environment; /* of the job: strings one behind another, an empty one at the end; owned */
};

/* Bounded; from a descriptor. -EPROTO, -E2BIG. */
int job_user_read(int fd, struct job_user *user);
/* For good: ids, groups and environment of this process. */
int job_user_become(const struct job_user *user);
void job_user_environment(const struct job_user *user);

/* Ask, in a process of the user's, what `spec` means; says what is wrong. Gives an exit code, and
 * sets spec->version and spec->cluster. */
int job_user_resolve(const struct job_user *user, struct spec *spec);

/* What a server of the user's is born with. */
struct job_serve {
    const struct job_user *user;
    struct spec spec;
    struct reading reading;
    const struct args *args; /* for the user's cache */
    char text[HOLD_TEXT_MAX];
    bool require_lease;
};
/* An attach_serve_fn; the process is root's until it is called. */
int job_serve_run(void *ctx, struct supervise_child *child);

#endif
