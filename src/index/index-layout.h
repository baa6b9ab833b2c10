/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where everything in an index stands: the writer's plan. Rules: docs/formats/index.md, "Layout".
 *
 * layout_plan() goes over the tree once and leaves in each directory's word where its inode and its
 * unit stand; everything else follows from these two by walking the one directory again. So the
 * plan takes eight bytes a directory and eight a node with hard links, whatever the tree's size.
 *
 * Private to this folder. Threads: one at a time.
 */
#ifndef INDEX_INDEX_LAYOUT_H
#define INDEX_INDEX_LAYOUT_H

#include "base/err.h"
#include "index/erofs-format.h"
#include "index/index.h"
#include "tree/tree.h"

/* Positions are kept as 32-bit multiples of EROFS_NID_SIZE. */
#define LAYOUT_SIZE_MAX (UINT64_C(1) << 37)
/* XATTR_NAME_MAX without "user." */
#define LAYOUT_XATTR_NAME_MAX 250u

static inline uint64_t layout_up(uint64_t n, uint64_t to)
{
    return (n + to - 1) / to * to;
}

/* An inode with more than one name. It stands in the unit of the name that the order of units
 * reaches first, whichever of them the tree calls the link, so that equal content gives equal
 * bytes. */
struct layout_link {
    uint32_t node;     /* that holds what the inode says */
    uint32_t owner;    /* node of the first name; TREE_NO_NODE until it was reached */
    uint32_t position; /* of the inode, in EROFS_NID_SIZE */
};

struct layout {
    const struct tree *tree;
    const struct index_device *devices;
    size_t device_count;
    const uint16_t *device_of; /* pack number to device id */
    size_t pack_count;
    uint64_t meta; /* all that follows: bytes from the start of the image */
    uint64_t head; /* end of the last unit of the head */
    uint64_t end;
    struct layout_link *links; /* owned; sorted by node */
    size_t link_count;
    uint64_t inodes;
    bool planned; /* all of this stands */
};

/* Place everything; check that the tree can be written. -EINVAL or -EFBIG with a sentence. */
int layout_plan(struct layout *l, struct err *err);
void layout_release(struct layout *l);

/* Call `fn` for each directory with a unit, in the order of their addresses. `head` units may be
 * refused by the plan; afterwards only units that are in the head are called so. */
typedef int layout_unit_fn(void *ctx, uint32_t directory, bool head, struct err *err);
int layout_each_unit(const struct layout *l, layout_unit_fn *fn, void *ctx, struct err *err);

/* Places of a directory that was planned: its inode (low half of its word) and its unit. */
static inline uint64_t layout_inode_of(const struct layout *l, uint32_t directory)
{
    return (*tree_directory_word(l->tree, directory) & UINT32_MAX) * EROFS_NID_SIZE;
}
static inline uint64_t layout_unit_of(const struct layout *l, uint32_t directory)
{
    return (*tree_directory_word(l->tree, directory) >> 32) * EROFS_NID_SIZE;
}
static inline uint64_t layout_nid(const struct layout *l, uint64_t address)
{
    return (address - l->meta) / EROFS_NID_SIZE;
}

/* What stands behind an inode. */
struct layout_shape {
    uint32_t xattrs; /* bytes of attributes, header included */
    uint8_t layout;  /* EROFS_LAYOUT_* */
    uint64_t behind; /* bytes of chunk indexes or inline tail */
    uint64_t target; /* bytes of a plain symlink's target, else 0 */
};
void layout_shape_of(const struct layout *l, uint32_t node, struct layout_shape *ret);

/* Give the next inode its address, at or behind *pos; *pos is then the end of what stands behind
 * it. */
uint64_t layout_place(const struct layout_shape *s, uint64_t *pos);

/* Where the parts of a unit stand if it is placed at, or at the next border behind, `at`. */
struct layout_unit {
    bool inlined;        /* the entries stand behind the directory's inode, not here */
    uint64_t start;      /* entries */
    uint64_t inodes;     /* the first one is placed from here on */
    uint64_t inodes_end; /* of what stands behind the last one */
    uint64_t targets;    /* of plain symlinks */
    uint64_t end;
};
void layout_measure(const struct layout *l, uint32_t directory, uint64_t at,
                    struct layout_unit *ret);

/* The entries of a directory in their order, "." and ".." among them. */
struct layout_entry {
    const char *name;
    uint8_t name_length;
    uint32_t node;
    bool dots; /* "." or "..": `node` is not a child */
};
struct layout_entries {
    struct tree_cursor cursor;
    uint32_t directory;
    uint8_t dots; /* how many of "." and ".." were given */
    bool more;
};
void layout_entries_start(const struct layout *l, uint32_t directory, struct layout_entries *e);
bool layout_entries_next(const struct layout *l, struct layout_entries *e,
                         struct layout_entry *ret);

/* Bytes of a directory's entries, as its inode's size says. */
uint64_t layout_entries_size(const struct layout *l, uint32_t directory);

/* Make the rows of all nodes that hard links name, and count inodes. */
int layout_collect_links(struct layout *l, struct err *err);
/* The row of a node that hard links name, or NULL. */
struct layout_link *layout_link_of(const struct layout *l, uint32_t node);
/* Does the inode of this child stand in its directory's unit? *ret is the node with its content. */
bool layout_owns_inode(const struct layout *l, uint32_t node, uint32_t *ret);

/* Chunk `number` of a file. */
struct layout_chunk {
    uint16_t device; /* 0: a hole, and the rest is 0 */
    uint32_t block;
    uint32_t leaf;
};
/* -EINVAL: no data, no such pack, or none of this tree's. */
int layout_chunk_of(const struct layout *l, const struct tree_node *file, uint64_t number,
                    struct layout_chunk *ret);

/* tree_xattrs() one by one: 1 and *ret, 0 at the end, -EINVAL if malformed. *at starts as 0. */
struct layout_xattr {
    struct bytes name, value;
};
int layout_xattr_next(struct bytes list, size_t *at, struct layout_xattr *ret);

#endif
