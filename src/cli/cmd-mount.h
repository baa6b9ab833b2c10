/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What `mount` and `run` share.
 */
#ifndef CLI_CMD_MOUNT_H
#define CLI_CMD_MOUNT_H

#include "cli/cli-internal.h"

#include "attach/attach.h"

/* Print the live mounts of this user, or those of runs. Gives an exit code. */
int list_mounts(bool runs_only, bool json);

#endif
