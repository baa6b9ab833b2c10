/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of the reader share: the opened image, and where an inode's parts stand.
 *
 * An index_inode from index_inode() is checked: its attributes, tail, chunk indexes and blocks are
 * inside the image. index_bytes() checks bounds again, since the structure passes through callers.
 */
#ifndef INDEX_INTERNAL_H
#define INDEX_INTERNAL_H

#include "index/erofs-format.h"
#include "index/index.h"

/* Positions fit 32-bit multiples of 32 bytes; see "Limits" in docs/formats/index.md. */
#define INDEX_SIZE_MAX (UINT64_C(1) << 37)

/* Bytes read at once where much is read in order: a leaf of an index object. Reads end at multiples
 * of it, so that each touches one leaf. */
#define INDEX_PIECE 16384u

/* Most bytes of attributes: TREE_XATTR_MAX counts names, values and 3 bytes an attribute; here an
 * attribute takes 4 and up to 3 of padding, so not twice as much. */
#define INDEX_XATTR_AREA (EROFS_XATTR_HEADER_SIZE + 2 * TREE_XATTR_MAX)

struct index_slot {
    uint64_t blocks;
    uint64_t start; /* unified, bytes */
    struct digest digest;
};

struct index {
    index_read_fn *read;
    void *ctx;
    uint64_t size;   /* bytes of the image */
    uint64_t meta;   /* where nid 0 would stand, bytes */
    uint64_t inodes; /* as the superblock says */
    uint64_t flat_size;
    bool wide; /* 48-bit layout */
    uint32_t device_count;
    struct index_slot *devices; /* owned */
};

/* `size` bytes at `offset`; -EPROTO if they are not inside the image. */
int index_bytes(const struct index *x, uint64_t offset, void *data, size_t size);

bool index_all_zero(const void *data, size_t size);

/* Whether an inode can stand at this nid. */
static inline bool index_nid_fits(const struct index *x, uint64_t nid)
{
    return nid >= INDEX_ROOT_NID && nid <= (x->size - EROFS_INODE_SIZE - x->meta) / EROFS_NID_SIZE;
}

/* Where the attributes of an inode end: its inline tail, if it has one. */
static inline uint64_t index_tail_address(const struct index_inode *inode)
{
    return inode->address + EROFS_INODE_SIZE + erofs_xattr_size(inode->xattr_count);
}

static inline uint64_t index_chunks_address(const struct index_inode *file)
{
    return (index_tail_address(file) + 7) & ~UINT64_C(7);
}

/* How many chunk indexes a file has. */
static inline uint64_t index_chunk_count(const struct index_inode *file)
{
    uint32_t bits = EROFS_BLOCK_BITS + file->chunk_bits;

    return (file->size >> bits) + ((file->size & ((UINT64_C(1) << bits) - 1)) != 0);
}

/* Where the bytes of a directory or symlink start. */
static inline uint64_t index_data_address(const struct index_inode *inode)
{
    if (inode->layout == EROFS_LAYOUT_INLINE)
        return index_tail_address(inode);
    return (uint64_t)inode->start_block * EROFS_BLOCK_SIZE;
}

/* One chunk index, checked against the device. `number` is the chunk's, not its byte. */
int index_chunk_parse(const struct index *x, const struct index_inode *file, uint64_t number,
                      const struct erofs_chunk_index *raw, struct index_extent *ret);

/* ---- directory blocks --------------------------------------------------------------------------
 */

/* A checked block of a directory. The bytes are borrowed. */
struct index_dirblock {
    const uint8_t *data;
    uint32_t count;     /* entries, at least 1 */
    uint32_t names_end; /* offset behind the last name */
};

/* Check every byte of a block: offsets, names and their order, nids, types, padding. `last`: the
 * directory's last block, which ends with its last name. -EPROTO. */
int index_dirblock_parse(const struct index *x, const uint8_t *data, uint32_t size, bool last,
                         struct index_dirblock *ret);

/* Entry `i` (< count) of a checked block; ret->next is left alone. */
void index_dirblock_entry(const struct index_dirblock *b, uint32_t i, struct index_entry *ret);

/* < 0, 0, > 0: as unsigned bytes, the shorter first. */
int index_name_compare(const char *a, size_t a_length, const char *b, size_t b_length);

#endif
