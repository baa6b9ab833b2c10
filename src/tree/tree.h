/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A directory tree in memory, compact enough for tens of millions of files: what publish fills in
 * and the index writer writes out.
 *
 * 32 bytes a node, plus its name and one byte. A directory's children are added together, sorted by
 * name as unsigned bytes (the shorter first), and then stand in consecutive nodes; their names
 * stand one behind the other, so they are walked in order with a cursor, not picked at random. A
 * hard link is a node of its own that names the node it links to (a file or symlink, never a
 * directory or another hard link). Node 0 is the root directory.
 *
 * Life: tree_new(), tree_add_children() for the root and each directory in any order (each once),
 * data filled in through tree_node(), tree_seal(), tree_free(). Pointers to nodes stay good for the
 * tree's life. Threads: one at a time changes the structure, and none may look nodes up meanwhile;
 * through pointers they have, different threads may fill in different nodes at any time. A sealed
 * tree may be read by any number.
 */
#ifndef TREE_TREE_H
#define TREE_TREE_H

#include "base/buf.h"
#include "base/cleanup.h"

#include <stdbool.h>
#include <stdint.h>

#define TREE_ROOT      0u
#define TREE_NO_NODE   UINT32_MAX
#define TREE_DEPTH_MAX 4096u /* directories below the root */
#define TREE_XATTR_MAX 4096u /* bytes of all of a node's extended attributes, names included */

enum tree_type { TREE_FILE = 0, TREE_DIRECTORY = 1, TREE_SYMLINK = 2, TREE_HARDLINK = 3 };

/* Values of tree_node.pack beyond real pack numbers (0 to 65,000). */
#define TREE_PACK_NONE 0xFFFFu /* no data yet, or an empty file */
#define TREE_PACK_HOLE 0xFFFEu /* one chunk, all zero bytes, not stored */
#define TREE_PACK_MANY 0xFFFDu /* more than one chunk: `ref` is the first in the chunk table */

struct tree_node {
    uint64_t size;          /* bytes of a file; of a symlink's target; 0 */
    int64_t mtime_s;        /* seconds since 1970, floor */
    uint32_t mtime_ns : 30; /* 0 to 999,999,999, forward from mtime_s */
    uint32_t type : 2;      /* enum tree_type */
    uint32_t ref;           /* file: block in `pack`, or first chunk; directory: its number;
                               symlink: its target's number; hard link: the node it links to */
    uint32_t leaf;          /* file of one chunk: number of its first leaf in the pack (a hint) */
    uint16_t pack;          /* file of one chunk: its pack's number in publish's table, or
                               TREE_PACK_* */
    uint16_t mode;          /* permission bits */
};
_Static_assert(sizeof(struct tree_node) == 32, "a node is 32 bytes");

/* One 8-MiB piece of a large file. */
struct tree_chunk {
    uint32_t block;
    uint32_t leaf;
    uint16_t pack; /* or TREE_PACK_HOLE */
};

struct tree;

int tree_new(struct tree **ret); /* with an empty root, mode 0555, mtime 0 */
void tree_free(struct tree *t);
AUTO_FREE_FUNC(struct tree, tree_free);

/* What is needed to add one child; name and target are copied. */
struct tree_entry {
    const char *name;
    uint8_t name_length; /* 1 to 255; no '/', no NUL, not "." or ".." (-EINVAL) */
    enum tree_type type;
    uint16_t mode;
    uint64_t size;
    int64_t mtime_s;
    uint32_t mtime_ns;
    const char *target; /* symlink: 1 to 4,095 bytes without NUL */
    uint16_t target_length;
    uint32_t link; /* hard link: node it links to */
};

/* Give directory node `dir` its children: `entries` strictly ascending by name, else -EINVAL;
 * -EEXIST if it has some already; -ENAMETOOLONG beyond TREE_DEPTH_MAX; -EFBIG beyond TREE_NO_NODE;
 * -ENOMEM: in each case the tree is as it was. *ret_first is the first child's node; the others
 * follow. An empty directory needs no call (count 0: -EINVAL). */
int tree_add_children(struct tree *t, uint32_t dir, const struct tree_entry *entries, size_t count,
                      uint32_t *ret_first);

struct tree_node *tree_node(const struct tree *t, uint32_t node);
uint32_t tree_node_count(const struct tree *t);

/* Walks a directory's children in order. name is valid for the life of the tree, not NUL-ended. */
struct tree_cursor {
    uint32_t node; /* current child */
    const char *name;
    uint8_t name_length;
    uint32_t end; /* private */
};
/* `for (bool more = tree_first(t, dir, &c); more; more = tree_next(t, &c))` */
bool tree_first(const struct tree *t, uint32_t dir, struct tree_cursor *c);
bool tree_next(const struct tree *t, struct tree_cursor *c);

/* Directories have numbers too, in the order of tree_add_children() of their parents; the root is
 * 0. */
uint32_t tree_directory_count(const struct tree *t);
uint32_t tree_directory_node(const struct tree *t, uint32_t directory);
uint32_t tree_directory_parent(const struct tree *t, uint32_t directory); /* number; root: itself */
uint32_t tree_directory_children(const struct tree *t, uint32_t directory);
uint32_t tree_directory_subdirs(const struct tree *t, uint32_t directory);
uint32_t tree_directory_depth(const struct tree *t, uint32_t directory); /* root: 0 */
/* "a/b/c" of a directory by number ("" for the root), appended to `b`. O(depth * siblings). */
int tree_directory_path(const struct tree *t, uint32_t directory, struct buf *b);
/* A word per directory for the caller's own use (the index writer keeps positions there). */
uint64_t *tree_directory_word(const struct tree *t, uint32_t directory);

struct bytes tree_symlink_target(const struct tree *t, const struct tree_node *n);

/* Reserve `count` chunk rows for a large file; *ret_first goes into its `ref`. */
int tree_add_chunks(struct tree *t, size_t count, uint32_t *ret_first);
struct tree_chunk *tree_chunk(const struct tree *t, uint32_t chunk);
/* How many chunks a file of this size has: 0 if empty, 1 up to 8 MiB, else ceil(size / 8 MiB). */
uint64_t tree_chunk_count(uint64_t size);

/* How many names lead to this node: 1 + hard links to it. Sealed trees only. */
uint32_t tree_link_count(const struct tree *t, uint32_t node);
/* Called once by whoever built the tree; from then on its structure does not change. -EINVAL if a
 * hard link names a directory, another hard link or no node, or if a node has two sets of
 * attributes. */
int tree_seal(struct tree *t);

/* user.* attributes of a node: `names_values` is name NUL, value length (2 bytes LE), value, ...
 * with the "user." prefix cut off; strictly ascending by name (strcmp). Copied. -E2BIG beyond
 * TREE_XATTR_MAX; -EINVAL if malformed, or for a hard link (set them on what it names). */
int tree_set_xattrs(struct tree *t, uint32_t node, struct bytes names_values);
/* Sealed trees only; size 0: none. */
struct bytes tree_xattrs(const struct tree *t, uint32_t node);

/* Memory in use, bytes; for the limits and the benchmark. */
uint64_t tree_memory(const struct tree *t);

#endif
