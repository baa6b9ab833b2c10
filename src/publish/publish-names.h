/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The names of a stream, as they come: in any order, some twice, some before their directories.
 * When all are there, a tree is made of them. Inside publish/ only.
 *
 * 40 bytes a row, 6 to 11 in the table, and the name. docs/archives.md says what becomes of what.
 * Threads: one.
 */
#ifndef PUBLISH_PUBLISH_NAMES_H
#define PUBLISH_PUBLISH_NAMES_H

#include "base/cleanup.h"
#include "base/err.h"
#include "source/source.h"
#include "tree/tree.h"

struct names;

int names_new(struct names **ret);
void names_free(struct names *n);
AUTO_FREE_FUNC(struct names, names_free);

struct names_entry {
    const char *path, *target; /* as in the source; `target` of links */
    size_t path_size, target_size;
    const struct source_stat *stat;
    uint16_t mode; /* as it is published */
    bool is_hard_link, unique;
};

/* What is worth telling of an entry. */
struct names_remarks {
    bool absolute; /* the path began with '/' */
    bool replaced; /* an earlier entry of this name counts no more */
    bool encoding; /* the path is no UTF-8: bytes are kept */
};

/* *ret_row: its number, for names_node(). -EPROTO with a sentence if there is no place in a tree
 * for it, or if its place is disputed. */
int names_add(struct names *n, const struct names_entry *e, uint32_t *ret_row,
              struct names_remarks *ret_remarks, struct err *err);
/* Of files: size, place and times are the caller's to fill in. */
struct tree_node *names_node(struct names *n, uint32_t row);
uint64_t names_count(const struct names *n); /* rows, replaced ones included */

/* Everything into `t`, which has only its root, and its chunk table. names_node() is gone then, and
 * names_tree_node() gives the node of a row, TREE_NO_NODE if it was replaced. */
int names_build(struct names *n, struct tree *t);
uint32_t names_tree_node(const struct names *n, uint32_t row);

#endif
