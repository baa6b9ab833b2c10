/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What `mount`, `run` and `session` share.
 */
#ifndef CLI_CMD_MOUNT_H
#define CLI_CMD_MOUNT_H

#include "cli/cli-internal.h"

#include "attach/attach.h"

#include <limits.h>

/* Print the live mounts of this user, or those of runs, or of sessions. Gives an exit code. */
enum listing { LIST_MOUNTS, LIST_RUNS, LIST_SESSIONS };
int list_mounts(enum listing what, bool json);

/* ---- what a run or a session attaches (items.c) ---- */

/* More would need more than a terminal's line to type. */
#define DATASTORES_MAX 64

/* One group of options; strings point into argv. */
struct asked {
    const char *name, *version, *directory;
};

struct items {
    struct asked groups[DATASTORES_MAX];
    size_t count;
    struct attach_item at[DATASTORES_MAX];
    struct serve serves[DATASTORES_MAX];
    char targets[DATASTORES_MAX][PATH_MAX];
};

/* The options by which they are told, and those of Grid that chose a machine. */
#define RENTS(name, value)                                                                         \
    {                                                                                              \
        name, 0, value, NULL,                                                                      \
            name " chose a rented machine; a run is on this one: leave it out, or let your "       \
                 "scheduler choose the machine"                                                    \
    }
#define OPTIONS_ITEMS                                                                              \
    {"--datastore_name", 0, "NAME", "attach this datastore; may be given several times", NULL},    \
        {"--datastore_version", 0, "N", "this version of it; default: the newest", NULL},          \
    {                                                                                              \
        "--datastore_mount_dir", 0, "DIR", "where; default: /datastores/NAME", NULL                \
    }
#define OPTIONS_RENTED                                                                             \
    RENTS("--instance_type", "TYPE"), RENTS("--gpus", "N"), RENTS("--cpus", "N"),                  \
        RENTS("--use_spot", NULL), RENTS("--disk_size", "N")

/* Of one group that is filled in: where it is to be seen; all that is needed to serve it. */
int items_target(const struct args *args, struct items *items, size_t i);
int items_resolve(struct cli *cli, const struct args *args, struct items *items, size_t i,
                  const struct reading *reading, const char *run, const char *text);
/* Resolve what `args` ask for; `run` is for records, `text` for whoever wants to delete it. Gives
 * an exit code. */
int items_prepare(struct cli *cli, const struct args *args, const char *run, const char *text,
                  struct items **ret);
void items_free(struct items *items);
AUTO_FREE_FUNC(struct items, items_free);

#endif
