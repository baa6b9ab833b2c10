/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files of a linked version whose objects are not what they were.
 */
#ifndef CLI_DRIFT_H
#define CLI_DRIFT_H

#include "cli/cli-internal.h"

/* `path` below the root; `key` the whole key; `why` a few words. Nonzero ends it. */
typedef int drift_fn(void *ctx, const char *path, size_t path_length, const char *key,
                     const char *why);

struct drift_report {
    uint64_t files, drifted;
    uint64_t unknown; /* could not be asked for; among the drifted */
};

/* Compare all files of `o`'s view, a linked version, with their source. 0, -ECANCELED, or an error
 * with a sentence: then nothing is known. */
int drift_check(struct opened *o, struct progress *progress, drift_fn *fn, void *ctx,
                struct drift_report *ret, struct err *err);

#endif
