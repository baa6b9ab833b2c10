/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of tree/ share: the tree's tables, and the arena its texts lie in.
 */
#ifndef TREE_TREE_INTERNAL_H
#define TREE_TREE_INTERNAL_H

#include "tree/tree.h"

#include "base/vec.h"

/* Text grows by segments that are never moved. What is larger than an eighth of one gets memory of
 * its own, so at most an eighth of a segment is lost at its end. */
#define ARENA_SEGMENT (1u << 20)
#define ARENA_OWN     (ARENA_SEGMENT / 8)

struct arena {
    VEC(uint8_t *) segments; /* owned */
    size_t current;          /* the segment that is being filled; meaningless while `left` is 0 */
    size_t left;             /* bytes free at its end */
    uint64_t bytes;          /* allocated in all */
};

/* The state to go back to when a step of an operation fails. */
struct arena_mark {
    size_t count, current, left;
    uint64_t bytes;
};

/* `size` bytes in one piece; *ret_place finds them again. 0 or -ENOMEM. */
int arena_add(struct arena *a, size_t size, uint64_t *ret_place);
uint8_t *arena_at(const struct arena *a, uint64_t place);
struct arena_mark arena_mark(const struct arena *a);
void arena_reset(struct arena *a, struct arena_mark mark);
void arena_release(struct arena *a);

struct tree_directory {
    uint64_t names; /* place of the children's names: length byte, name, ... */
    uint64_t word;  /* the user's */
    uint32_t node;
    uint32_t parent;      /* number */
    uint32_t first_child; /* node */
    uint32_t children, subdirs;
    uint32_t depth;
};

struct tree_xattr_row {
    uint64_t place; /* 2 bytes of size, then the bytes */
    uint32_t node;
};

struct tree {
    struct segvec nodes;       /* struct tree_node */
    struct segvec directories; /* struct tree_directory */
    struct segvec targets;     /* uint64_t: place of 2 bytes of size, then the target */
    struct segvec chunks;      /* struct tree_chunk */
    struct arena texts;
    VEC(struct tree_xattr_row) xattrs; /* sorted by node once sealed */
    uint32_t *links;                   /* owned; sorted once sealed: a row for each hard link */
    size_t link_rows;
    bool sealed;
};

#endif
