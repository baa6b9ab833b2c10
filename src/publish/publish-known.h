/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The walk's current directory, for the merge with local state. Inside publish/ only.
 */
#ifndef PUBLISH_PUBLISH_KNOWN_H
#define PUBLISH_PUBLISH_KNOWN_H

#include "publish/publish-internal.h"

struct sort_row {
    uint64_t prefix; /* first bytes of the name, so that most comparisons need no name */
    uint32_t entry;  /* in the listing */
};

struct known_directory {
    struct publish *p;
    const struct buf *path;
    const struct source_entry *entries; /* as listed */
    const struct sort_row *sorted;      /* the children, in order */
    size_t count;
    uint32_t first;  /* node of the first child */
    uint64_t device; /* of the source's root */
    size_t at;       /* private: where the merge stands */
};

/* Fill in what is known and unchanged; the other files stay PUBLISH_PENDING. 0 or -ENOMEM. */
int known_merge(struct known_directory *d);

#endif
