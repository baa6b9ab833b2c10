/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files of a version that is not copied: each gets its place on a linked device, and a row in the
 * device's table of links. Inside publish/ only.
 *
 * Threads: that of publish_run().
 */
#ifndef PUBLISH_PUBLISH_LINK_H
#define PUBLISH_PUBLISH_LINK_H

#include "publish/publish-internal.h"

struct linking;

int linking_new(struct publish *p, struct linking **ret, struct err *err);
void linking_free(struct linking *l); /* aborts the table that is open */
AUTO_FREE_FUNC(struct linking, linking_free);

/* Files come in the order of the tree; `n` is filled in. */
int linking_add(struct linking *l, struct tree_node *n, const struct source_entry *e,
                struct err *err);
/* The last table is written, and all are in the store. */
int linking_finish(struct linking *l, struct err *err);

#endif
