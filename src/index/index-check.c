/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The check of a whole image: what opening and following leave to be believed.
 *
 * It walks the tree from the root with a stack of directories, and marks in a bitmap, one bit for
 * every 32 bytes, what belongs to whom. All parts of an image start at multiples of 32, so two
 * parts that overlap meet in the bitmap; a directory that is reached twice does too, so the walk
 * ends, and after at most as much work as the image is long. A second pass reads the image in
 * order: what nobody marked must be zero. Memory: the bitmap (1/256 of the image), 16 bytes for
 * each directory that waits, and 16 for each name of a file with several names.
 *
 * Not checked: that two files' chunks are apart (they may share), what the packs hold, that the
 * layout is the one our writer would choose, and the uuid.
 */
#include "index/index-internal.h"

#include "base/le.h"
#include "base/vec.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define SLOT 32u /* bytes a bit stands for */

/* A directory on the stack. */
struct waiting {
    uint64_t nid : 48;
    uint64_t depth : 16;
    uint64_t parent;
};

/* One of the names of an inode that says it has several. */
struct name_of {
    uint64_t nid : 63;
    uint64_t marked : 1; /* this name led to the inode first */
    uint64_t nlink;
};

struct check {
    const struct index *x;
    struct err *err;
    uint64_t *bits; /* owned */
    VEC(struct waiting) stack;
    VEC(struct name_of) names;
    struct index_counts counts;
    uint64_t inodes;
    /* the directory whose entries are being checked */
    struct index_inode dir;
    uint64_t parent, subdirs;
    uint32_t depth;
    bool saw_self, saw_parent;
};

static int broken(struct check *c, uint64_t nid, const char *what)
{
    return err_fail(c->err, -EPROTO, "inode %" PRIu64 " of the index: %s", nid, what);
}

/* An error of a function that has no sentence of its own. */
static int failed(struct check *c, uint64_t nid, int r, const char *what)
{
    if (r == -EPROTO)
        return broken(c, nid, what);
    return err_fail(c->err, r, "inode %" PRIu64 " of the index cannot be read: %s", nid,
                    strerror(-r));
}

/* ---- the bitmap --------------------------------------------------------------------------------
 */

static bool is_marked(const struct check *c, uint64_t slot)
{
    return c->bits[slot / 64] >> (slot % 64) & 1;
}

static bool is_free(const struct check *c, uint64_t from, uint64_t to)
{
    for (uint64_t slot = from / SLOT; slot * SLOT < to; slot++)
        if (is_marked(c, slot))
            return false;
    return true;
}

/* Mark [from, to), which is free, and check that the rest of its last slot is zero. */
static int mark(struct check *c, uint64_t from, uint64_t to)
{
    uint8_t rest[SLOT];
    uint64_t end = (to + SLOT - 1) / SLOT;
    int r;

    for (uint64_t i = from / SLOT; i < end; i++)
        c->bits[i / 64] |= UINT64_C(1) << (i % 64);
    r = index_bytes(c->x, to, rest, end * SLOT - to);
    if (r == 0 && !index_all_zero(rest, end * SLOT - to))
        r = -EPROTO;
    return r;
}

/* Whole blocks of a plain directory or symlink. */
static int mark_blocks(struct check *c, const struct index_inode *inode)
{
    uint64_t from = index_data_address(inode), size = inode->size;
    uint64_t end = from + (size + EROFS_BLOCK_SIZE - 1) / EROFS_BLOCK_SIZE * EROFS_BLOCK_SIZE;
    uint8_t rest[EROFS_BLOCK_SIZE];
    int r;

    if (!is_free(c, from, end))
        return broken(c, inode->nid, "its blocks belong to something else too");
    r = index_bytes(c->x, from + size, rest, end - from - size);
    if (r == 0 && !index_all_zero(rest, end - from - size))
        r = -EPROTO;
    if (r == 0)
        r = mark(c, from, end);
    return r < 0 ? failed(c, inode->nid, r, "its last block is not padded with zeros") : 0;
}

/* What nobody marked is zero. */
static int check_unmarked(struct check *c)
{
    uint8_t piece[INDEX_PIECE];

    for (uint64_t at = 0; at < c->x->size; at += sizeof piece) {
        uint64_t n = c->x->size - at < sizeof piece ? c->x->size - at : sizeof piece;
        int r = index_bytes(c->x, at, piece, n);

        if (r < 0)
            return err_fail(c->err, r, "byte %" PRIu64 " of the index cannot be read: %s", at,
                            strerror(-r));
        for (uint64_t i = 0; i < n; i += SLOT) {
            if (!is_marked(c, (at + i) / SLOT) && !index_all_zero(piece + i, SLOT))
                return err_fail(c->err, -EPROTO,
                                "byte %" PRIu64 " of the index belongs to nothing and is not zero",
                                at + i);
        }
    }
    return 0;
}

/* ---- inodes ------------------------------------------------------------------------------------
 */

/* Bytes of the inode and all that stands right behind it. */
static uint64_t inode_end(const struct index_inode *inode)
{
    if (inode->type == INDEX_FILE && inode->size)
        return index_chunks_address(inode) + index_chunk_count(inode) * EROFS_CHUNK_INDEX_SIZE;
    return index_tail_address(inode) + (inode->layout == EROFS_LAYOUT_INLINE ? inode->size : 0);
}

static int check_chunks(struct check *c, const struct index_inode *file)
{
    struct erofs_chunk_index piece[INDEX_PIECE / EROFS_CHUNK_INDEX_SIZE];
    uint64_t count = index_chunk_count(file);
    struct index_extent e;
    uint8_t gap[8];
    size_t gap_size = index_chunks_address(file) - index_tail_address(file);
    int r = count ? index_bytes(c->x, index_tail_address(file), gap, gap_size) : 0;

    if (r == 0 && count && !index_all_zero(gap, gap_size))
        return broken(c, file->nid, "the padding behind its attributes is not zero");
    for (uint64_t i = 0; r == 0 && i < count;) {
        uint64_t n =
            count - i < sizeof piece / sizeof *piece ? count - i : sizeof piece / sizeof *piece;
        r = index_bytes(c->x, index_chunks_address(file) + i * EROFS_CHUNK_INDEX_SIZE, piece,
                        n * sizeof *piece);
        for (uint64_t k = 0; r == 0 && k < n; k++)
            r = index_chunk_parse(c->x, file, i + k, &piece[k], &e);
        i += n;
    }
    return r < 0 ? failed(c, file->nid, r, "a chunk is not inside its pack") : 0;
}

static int ignore_xattr(void *ctx, const char *name, size_t name_length, struct bytes value)
{
    return 0; /* that index_xattrs() could parse it is all */
}

/* All of an inode that was reached for the first time, but a directory's entries. */
static int check_inode(struct check *c, const struct index_inode *inode)
{
    char target[INDEX_TARGET_MAX + 1];
    int r = mark(c, inode->address, inode_end(inode));

    if (r < 0)
        return failed(c, inode->nid, r, "the padding behind it is not zero");
    r = index_xattrs(c->x, inode, ignore_xattr, NULL);
    if (r < 0)
        return failed(c, inode->nid, r, "its attributes break the format");
    if (inode->layout == EROFS_LAYOUT_PLAIN)
        r = mark_blocks(c, inode);
    if (r < 0)
        return r;
    c->inodes++;
    switch (inode->type) {
    case INDEX_FILE:
        c->counts.files++;
        if (__builtin_add_overflow(c->counts.size_bytes, inode->size, &c->counts.size_bytes))
            return broken(c, inode->nid, "the sizes of all files exceed 64 bits");
        return check_chunks(c, inode);
    case INDEX_SYMLINK:
        c->counts.symlinks++;
        r = index_readlink(c->x, inode, target);
        return r < 0 ? failed(c, inode->nid, r, "its target has a NUL inside") : 0;
    default:
        c->counts.directories++;
        return 0;
    }
}

/* A file or symlink that an entry names. If something is marked there already, it should be the
 * same inode, by another of its names: check_names() finds out. */
static int reach_leaf(struct check *c, const struct index_inode *inode)
{
    bool marked = is_marked(c, inode->address / SLOT);

    if (marked ? inode->nlink == 1 : !is_free(c, inode->address, inode_end(inode)))
        return broken(c, inode->nid, "it overlaps another, or has more names than it says");
    if (inode->nlink > 1) {
        struct name_of n = {.nid = inode->nid, .marked = !marked, .nlink = inode->nlink};
        if (vec_push(&c->names, n) < 0)
            return err_fail(c->err, -ENOMEM, "not enough memory to check the index");
    }
    return marked ? 0 : check_inode(c, inode);
}

/* ---- directories -------------------------------------------------------------------------------
 */

/* Directories are marked when they are put on the stack, so none gets there twice. */
static int reach_directory(struct check *c, const struct index_inode *dir, uint64_t parent,
                           uint32_t depth)
{
    struct waiting w = {.nid = dir->nid, .depth = depth, .parent = parent};
    int r;

    if (!is_free(c, dir->address, inode_end(dir)))
        return broken(c, dir->nid, "the directory is reached twice, or overlaps another inode");
    if (depth > INDEX_DEPTH_MAX)
        return broken(c, dir->nid, "the directory lies too deep");
    r = check_inode(c, dir);
    if (r == 0 && vec_push(&c->stack, w) < 0)
        r = err_fail(c->err, -ENOMEM, "not enough memory to check the index");
    return r;
}

static int check_entry(void *ctx, const struct index_entry *e)
{
    struct check *c = ctx;
    struct index_inode inode;
    int r;

    if (e->name[0] == '.' && e->name_length <= 2 && e->name[e->name_length - 1] == '.') {
        bool self = e->name_length == 1;
        *(self ? &c->saw_self : &c->saw_parent) = true;
        if (e->nid != (self ? c->dir.nid : c->parent) || e->type != INDEX_DIRECTORY)
            return broken(c, c->dir.nid,
                          self ? "\".\" is not the directory itself"
                               : "\"..\" is not the directory above it");
        return 0;
    }
    r = index_inode(c->x, e->nid, &inode);
    if (r < 0)
        return failed(c, e->nid, r, "it breaks the format");
    if (inode.type != e->type)
        return broken(c, e->nid, "its entry says another type");
    if (inode.type != INDEX_DIRECTORY)
        return reach_leaf(c, &inode);
    c->subdirs++;
    return reach_directory(c, &inode, c->dir.nid, c->depth + 1);
}

static int check_directory(struct check *c, struct waiting w)
{
    int r = index_inode(c->x, w.nid, &c->dir);

    c->parent = w.parent;
    c->depth = w.depth;
    c->subdirs = 0;
    c->saw_self = c->saw_parent = false;
    if (r == 0)
        r = index_readdir(c->x, &c->dir, 0, check_entry, c);
    if (r < 0)
        return failed(c, w.nid, r, "its entries break the format");
    if (!c->saw_self || !c->saw_parent)
        return broken(c, w.nid, "\".\" or \"..\" is missing");
    if (c->dir.nlink != c->subdirs + 2)
        return broken(c, w.nid, "its link count is not 2 and one for each directory in it");
    return 0;
}

static int compare_names(const void *a, const void *b)
{
    const struct name_of *x = a, *y = b;

    if (x->nid != y->nid)
        return x->nid < y->nid ? -1 : 1;
    return (int)y->marked - (int)x->marked;
}

/* Each inode with several names was found by as many as it says. The first name of each run is the
 * one that marked it; if none did, the bits were set by something else that lies there. */
static int check_names(struct check *c)
{
    if (c->names.count)
        qsort(c->names.at, c->names.count, sizeof *c->names.at, compare_names);
    for (size_t i = 0, n; i < c->names.count; i += n) {
        const struct name_of *first = &c->names.at[i];
        for (n = 1; i + n < c->names.count && first[n].nid == first->nid; n++)
            ;
        if (!first->marked)
            return broken(c, first->nid, "it overlaps another");
        if (n != first->nlink)
            return broken(c, first->nid, "its link count is not the number of its names");
    }
    return 0;
}

static int check_all(struct check *c)
{
    const struct index *x = c->x;
    struct index_inode root;
    int r = index_inode(x, INDEX_ROOT_NID, &root);

    if (r < 0)
        return failed(c, INDEX_ROOT_NID, r, "it breaks the format");
    for (uint64_t i = 0; i < x->meta / SLOT; i++) /* superblock and table: checked when opened */
        c->bits[i / 64] |= UINT64_C(1) << (i % 64);
    r = reach_directory(c, &root, INDEX_ROOT_NID, 0);
    while (r == 0 && c->stack.count)
        r = check_directory(c, c->stack.at[--c->stack.count]);
    if (r == 0)
        r = check_names(c);
    if (r == 0 && c->inodes != x->inodes)
        r = err_fail(c->err, -EPROTO,
                     "the index has %" PRIu64 " inodes, but its superblock says %" PRIu64,
                     c->inodes, x->inodes);
    return r == 0 ? check_unmarked(c) : r;
}

int index_check(const struct index *x, struct index_counts *ret, struct err *err)
{
    struct check c = {.x = x, .err = err};
    int r;

    c.bits = calloc(x->size / SLOT / 64 + 1, sizeof *c.bits);
    if (!c.bits)
        return err_fail(err, -ENOMEM, "not enough memory to check the index");
    r = check_all(&c);
    free(c.bits);
    vec_release(&c.stack);
    vec_release(&c.names);
    if (r == 0 && ret)
        *ret = c.counts;
    return r;
}
