/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A version's directory tree as an EROFS image without data: written from a tree, read by our own
 * reader, and mounted by the kernel as it stands. Format: docs/formats/index.md.
 *
 * Block size 512. Every pack is a device slot; a file's chunk indexes name (device id, block). The
 * kernel mounts the image flat (packs at their unified starts behind it) or with one device a pack.
 *
 * This folder is pure: the writer gives its bytes in order to a callback, the reader asks a
 * callback for bytes that the caller has verified against their digest. The reader trusts none of
 * them all the same: whoever publishes may be hostile.
 *
 * Threads: an opened struct index is constant: any number, if the read callback allows it.
 */
#ifndef INDEX_INDEX_H
#define INDEX_INDEX_H

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/digest.h"
#include "base/err.h"
#include "tree/tree.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#define INDEX_BLOCK       512u
#define INDEX_ROOT_NID    1u         /* always; also FUSE's root node id */
#define INDEX_HEAD_MAX    (1u << 20) /* what a mount fetches at once */
#define INDEX_DEVICES_MAX 60000u
#define INDEX_NAME_MAX    255u
#define INDEX_TARGET_MAX  4095u
#define INDEX_DEPTH_MAX   TREE_DEPTH_MAX

/* ---- writing -----------------------------------------------------------------------------------
 */

/* One device slot. */
struct index_device {
    struct digest digest; /* of the pack; its 64 hex digits are the slot's tag */
    uint64_t blocks;      /* 512-byte blocks of data in the pack */
};

typedef int index_sink_fn(void *ctx, const void *data, size_t size);

struct index_summary {
    uint64_t size; /* bytes of the image, a multiple of INDEX_BLOCK */
    uint64_t head; /* bytes of its head, <= INDEX_HEAD_MAX unless the root's unit is larger */
    uint64_t inodes;
    bool wide; /* the 48-bit layout was needed */
};

/* Write the image of a sealed `tree`, in order, to `sink`. `device_of[pack]` is the device id
 * (1-based) of publish's pack number, for packs 0 to pack_count-1 (0: not used by this tree; a node
 * naming it is -EINVAL). Uses the tree's directory words. Memory: a constant, whatever the tree's
 * size. The same tree and devices give the same bytes. */
int index_write(const struct tree *tree, const struct index_device *devices, size_t device_count,
                const uint16_t *device_of, size_t pack_count, index_sink_fn *sink, void *ctx,
                struct index_summary *ret, struct err *err);

/* ---- reading -----------------------------------------------------------------------------------
 */

/* Give exactly `size` verified bytes at `offset` of the image (never beyond its size), or -errno.
 */
typedef int index_read_fn(void *ctx, uint64_t offset, void *data, size_t size);

struct index;

/* Check superblock, device table (order, no overlap, all behind the image) and root. `size` is what
 * the manifest says. -EPROTO with a sentence if the image breaks a rule. */
int index_open(index_read_fn *read, void *ctx, uint64_t size, struct index **ret, struct err *err);
void index_close(struct index *x);
AUTO_FREE_FUNC(struct index, index_close);

uint32_t index_device_count(const struct index *x);
uint64_t index_device_blocks(const struct index *x, uint32_t id); /* id from 1 */
struct digest index_device_digest(const struct index *x, uint32_t id);
uint64_t index_device_start(const struct index *x, uint32_t id); /* unified, bytes */
uint64_t index_flat_size(const struct index *x);                 /* bytes of the flat image */
bool index_is_wide(const struct index *x);                       /* the 48-bit layout */
uint64_t index_inode_count(const struct index *x);               /* as the superblock says */

enum index_type {
    INDEX_FILE = 1,
    INDEX_DIRECTORY = 2,
    INDEX_SYMLINK = 7
}; /* as in directory entries */

/* A parsed inode: values only, copy freely. */
struct index_inode {
    uint64_t nid;
    enum index_type type;
    uint16_t mode; /* permission bits only */
    uint32_t nlink;
    uint64_t size;
    int64_t mtime_s;
    uint32_t mtime_ns;
    uint32_t leaf_hint; /* number of the first leaf of a one-chunk file in its pack; a hint only */
    /* private to the reader: */
    uint8_t layout;
    uint8_t chunk_bits;
    uint16_t xattr_count;
    uint32_t start_block;
    uint64_t address; /* of the inode in the image, bytes */
};

/* All give 0, or -ENOENT, -ENOTDIR, -ENAMETOOLONG, -EINVAL (wrong type, offset behind the end),
 * -EPROTO (hostile image), or what the read callback gave. */
int index_inode(const struct index *x, uint64_t nid, struct index_inode *ret);
int index_lookup(const struct index *x, const struct index_inode *dir, const char *name,
                 size_t name_length, uint64_t *ret_nid);
/* Follow "a/b/c" (no symlinks followed; "" and "." are the root). */
int index_walk(const struct index *x, const char *path, struct index_inode *ret);

struct index_entry {
    const char *name; /* not NUL-ended; valid until the callback returns */
    uint8_t name_length;
    enum index_type type; /* as the entry says; the inode decides */
    uint64_t nid;
    uint64_t next; /* cookie with which a later call goes on behind this entry */
};
/* Return 0 to go on, 1 to stop (the listing then gives 0), or an error. */
typedef int index_entry_fn(void *ctx, const struct index_entry *entry);
/* All entries from `cookie` (0: the first) on, "." and ".." among them, in the image's order. */
int index_readdir(const struct index *x, const struct index_inode *dir, uint64_t cookie,
                  index_entry_fn *fn, void *ctx);

/* Target, NUL-ended, into `target`. */
int index_readlink(const struct index *x, const struct index_inode *link,
                   char target[static INDEX_TARGET_MAX + 1]);

/* Where a file's byte stands. */
struct index_extent {
    uint32_t device;       /* id from 1; 0: a hole, all zero bytes */
    uint64_t block;        /* of the chunk's first byte in the device */
    uint64_t chunk_offset; /* of the chunk's first byte in the file */
    uint64_t chunk_size;   /* bytes of the file in this chunk */
};
/* The chunk that holds `offset` (< size). Everything is checked against the device's blocks. */
int index_map(const struct index *x, const struct index_inode *file, uint64_t offset,
              struct index_extent *ret);

/* user.* attributes: `fn` gets the name without "user." (not NUL-ended). */
typedef int index_xattr_fn(void *ctx, const char *name, size_t name_length, struct bytes value);
int index_xattrs(const struct index *x, const struct index_inode *inode, index_xattr_fn *fn,
                 void *ctx);

/* Check the whole image: every inode and entry reachable, each directory once, sorted names, types
 * agree, "." and "..", every chunk inside its device, link counts and the number of inodes right,
 * nothing overlaps, padding zero. Reads the image about twice. Memory: 1/256 of the image's size,
 * and 16 bytes for each directory that waits and each name of a file with several. A file with
 * several names counts once. `ret` may be NULL. */
struct index_counts {
    uint64_t files, directories, symlinks, size_bytes;
};
int index_check(const struct index *x, struct index_counts *ret, struct err *err);

/* ---- text --------------------------------------------------------------------------------------
 */

/* One line per device and per path, in tree order; docs/formats/index-dump.md. Round-trips: parsing
 * it and writing again gives the same image. */
int index_dump(const struct index *x, FILE *out, struct err *err);

/* What a dump says, ready for index_write(). */
struct index_dump_parsed {
    struct tree *tree;
    struct index_device *devices;
    uint16_t *device_of; /* pack number i is device i + 1 */
    size_t device_count;
};
int index_dump_parse(FILE *in, struct index_dump_parsed *ret, struct err *err);
void index_dump_parsed_release(struct index_dump_parsed *p);

#endif
