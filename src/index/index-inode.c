/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inodes: 64 bytes at meta + 32 * nid, parsed into values.
 *
 * All that an inode says about places is checked here, once: whoever holds a struct index_inode can
 * follow it without meeting the end of the image. What stands at those places is not looked at.
 */
#include "index/index-internal.h"

#include "base/le.h"

#include <sys/stat.h>

/* Published trees are read-only, and a reader of the store is nobody's owner. A symlink's mode
 * means nothing: it is what Linux shows for all of them. */
#define MODE_ALLOWED 0555u
#define MODE_SYMLINK 0777u

/* The blocks of the plain layout, from start_block on, are inside the metadata. */
static bool plain_fits(const struct index *x, const struct index_inode *inode)
{
    uint64_t start = (uint64_t)inode->start_block * EROFS_BLOCK_SIZE;

    return start >= x->meta && start < x->size && inode->size <= x->size - start;
}

/* Inode, attributes and tail stand in one block. */
static bool inline_fits(const struct index_inode *inode)
{
    uint64_t in_block = inode->address % EROFS_BLOCK_SIZE;

    return inode->size <= EROFS_INLINE_MAX &&
           in_block + EROFS_INODE_SIZE + erofs_xattr_size(inode->xattr_count) + inode->size <=
               EROFS_BLOCK_SIZE;
}

static int parse_data(const struct index *x, uint32_t u, struct index_inode *inode)
{
    bool fits;

    if (inode->layout == EROFS_LAYOUT_PLAIN) {
        inode->start_block = u;
        fits = plain_fits(x, inode);
    } else {
        fits = inode->layout == EROFS_LAYOUT_INLINE && u == 0 && inline_fits(inode);
    }
    return fits ? 0 : -EPROTO;
}

/* A file's chunk size follows from its size, so there is one image for one tree. */
static int parse_file(const struct index *x, uint32_t u, struct index_inode *file)
{
    uint8_t bits = 0;
    uint64_t at;

    if (file->layout != EROFS_LAYOUT_CHUNK || file->size > INT64_MAX)
        return -EPROTO;
    while (bits < EROFS_CHUNK_BITS_BIG && (uint64_t)EROFS_BLOCK_SIZE << bits < file->size)
        bits++;
    if (u != (EROFS_CHUNK_INDEXES | bits))
        return -EPROTO;
    file->chunk_bits = bits;

    at = index_chunks_address(file);
    if (at > x->size || index_chunk_count(file) > (x->size - at) / EROFS_CHUNK_INDEX_SIZE)
        return -EPROTO;
    return file->leaf_hint && index_chunk_count(file) != 1 ? -EPROTO : 0;
}

static int parse_type(const struct index *x, uint16_t mode, uint32_t u, struct index_inode *inode)
{
    if (!S_ISREG(mode) && inode->leaf_hint)
        return -EPROTO;
    if (S_ISLNK(mode) ? inode->mode != MODE_SYMLINK : inode->mode & ~MODE_ALLOWED)
        return -EPROTO;
    switch (mode & S_IFMT) {
    case S_IFREG:
        inode->type = INDEX_FILE;
        return parse_file(x, u, inode);
    case S_IFDIR:
        inode->type = INDEX_DIRECTORY;
        /* "." and ".." are always there */
        if (inode->size < 2 * EROFS_DIRENT_SIZE + 3 || inode->nlink < 2)
            return -EPROTO;
        return parse_data(x, u, inode);
    case S_IFLNK:
        inode->type = INDEX_SYMLINK;
        if (inode->size == 0 || inode->size > INDEX_TARGET_MAX)
            return -EPROTO;
        return parse_data(x, u, inode);
    default:
        return -EPROTO;
    }
}

int index_inode(const struct index *x, uint64_t nid, struct index_inode *ret)
{
    struct erofs_inode raw;
    struct index_inode inode = {.nid = nid};
    uint16_t format, mode;
    int r;

    if (!index_nid_fits(x, nid))
        return -EPROTO;
    inode.address = x->meta + nid * EROFS_NID_SIZE;
    r = index_bytes(x, inode.address, &raw, sizeof raw);
    if (r < 0)
        return r;

    format = le16_get(raw.format);
    mode = le16_get(raw.mode);
    inode.layout = (uint8_t)(format >> 1 & 7);
    inode.xattr_count = le16_get(raw.xattr_count);
    inode.mode = mode & 07777;
    inode.nlink = le32_get(raw.nlink);
    inode.size = le64_get(raw.size);
    inode.mtime_s = (int64_t)le64_get(raw.mtime);
    inode.mtime_ns = le32_get(raw.mtime_nsec);
    inode.leaf_hint = le32_get(raw.leaf_hint);
    if (format != EROFS_FORMAT(inode.layout) || inode.nlink == 0 || inode.mtime_ns >= 1000000000 ||
        le32_get(raw.uid) || le32_get(raw.gid) ||
        !index_all_zero(raw.reserved_6, sizeof raw.reserved_6) ||
        !index_all_zero(raw.reserved_48, sizeof raw.reserved_48))
        return -EPROTO;
    /* A count of 1 would be a header without an entry, which the kernel does not take. */
    if (inode.xattr_count == 1 || erofs_xattr_size(inode.xattr_count) > INDEX_XATTR_AREA ||
        index_tail_address(&inode) > x->size)
        return -EPROTO;
    r = parse_type(x, mode, le32_get(raw.u), &inode);
    if (r < 0)
        return r;
    *ret = inode;
    return 0;
}
