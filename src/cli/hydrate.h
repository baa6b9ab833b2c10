/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bring ranges of a version's objects into the disk cache: in parallel, verified, and what is there
 * already is read from there.
 */
#ifndef CLI_HYDRATE_H
#define CLI_HYDRATE_H

#include "cli/cli-internal.h"

struct hydrate;

/* `o` has a view and a cache, and is borrowed. */
int hydrate_new(struct opened *o, struct hydrate **ret);
void hydrate_free(struct hydrate *h);
AUTO_FREE_FUNC(struct hydrate, hydrate_free);

/* Wanted: every object, whole; or the data of one file. Nothing is read yet. */
int hydrate_add_all(struct hydrate *h);
int hydrate_add_file(struct hydrate *h, const struct index_inode *file);
/* Put in order what was added; gives the bytes of it that the cache will hold. */
uint64_t hydrate_plan(struct hydrate *h);

/* Do it, with a progress line. -ECANCELED: interrupted, goes on the next time; -ENOSPC: the cache
 * does not keep it. */
int hydrate_run(struct hydrate *h, struct progress *p, struct err *err);
/* Bytes that did not have to be fetched because they were there, whole. */
uint64_t hydrate_present(const struct hydrate *h);

#endif
