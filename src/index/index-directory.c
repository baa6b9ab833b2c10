/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Directories: blocks of sorted entries, each block with its own table of names.
 *
 * A lookup searches the blocks by their first names, so a directory of a million entries takes some
 * sixteen reads of 512 bytes, and then goes through one block. A listing reads 16 KiB at once and
 * stops wherever its caller wants; the cookie is the entry's place, so it can go on from there
 * without any state. Every block that is listed or searched to the end is checked byte by byte; of
 * a block that only steers the search, the first name. Order across blocks is checked where it is
 * seen: where it is broken, a lookup may miss a name, and that is all.
 */
#include "index/index-internal.h"

#include "base/le.h"

#include <string.h>

/* A cookie is block << COOKIE_BITS | entries of that block already given. */
#define COOKIE_BITS 16

int index_name_compare(const char *a, size_t a_length, const char *b, size_t b_length)
{
    int r = memcmp(a, b, a_length < b_length ? a_length : b_length);

    if (r)
        return r;
    return a_length < b_length ? -1 : a_length > b_length;
}

/* ---- one block ---------------------------------------------------------------------------------
 */

static const struct erofs_dirent *dirent_at(const uint8_t *data, uint32_t i)
{
    return (const struct erofs_dirent *)(data + (size_t)i * EROFS_DIRENT_SIZE);
}

/* The number of entries: every entry table ends where the first name begins. */
static int parse_count(const uint8_t *data, uint32_t size, uint32_t *ret)
{
    uint32_t first;

    if (size <= EROFS_DIRENT_SIZE)
        return -EPROTO;
    first = le16_get(dirent_at(data, 0)->name_offset);
    if (first == 0 || first % EROFS_DIRENT_SIZE || first >= size)
        return -EPROTO;
    *ret = first / EROFS_DIRENT_SIZE;
    return 0;
}

/* Where name `i` ends: where the next one begins; the last one at a NUL or at the end. */
static int parse_name(const uint8_t *data, uint32_t size, uint32_t count, uint32_t i,
                      struct bytes *ret)
{
    uint32_t begin = le16_get(dirent_at(data, i)->name_offset);
    uint32_t end;

    if (begin >= size)
        return -EPROTO;
    if (i + 1 < count)
        end = le16_get(dirent_at(data, i + 1)->name_offset);
    else
        end = begin + (uint32_t)strnlen((const char *)data + begin, size - begin);
    if (end > size || end <= begin || end - begin > INDEX_NAME_MAX ||
        memchr(data + begin, '/', end - begin) || memchr(data + begin, 0, end - begin))
        return -EPROTO;
    *ret = bytes_of(data + begin, end - begin);
    return 0;
}

int index_dirblock_parse(const struct index *x, const uint8_t *data, uint32_t size, bool last,
                         struct index_dirblock *ret)
{
    struct bytes name = {NULL, 0}, before;
    uint32_t count, end;
    int r = parse_count(data, size, &count);

    for (uint32_t i = 0; r == 0 && i < count; i++) {
        const struct erofs_dirent *d = dirent_at(data, i);
        uint8_t type = d->type[0];

        before = name;
        r = parse_name(data, size, count, i, &name);
        if (r < 0)
            break;
        if (i && index_name_compare(before.data, before.size, name.data, name.size) >= 0)
            r = -EPROTO;
        if (type != EROFS_TYPE_FILE && type != EROFS_TYPE_DIRECTORY && type != EROFS_TYPE_SYMLINK)
            r = -EPROTO;
        if (d->reserved[0] || !index_nid_fits(x, le64_get(d->nid)))
            r = -EPROTO;
    }
    if (r < 0)
        return r;

    end = (uint32_t)((const uint8_t *)name.data + name.size - data);
    if (last ? end != size : !index_all_zero(data + end, size - end))
        return -EPROTO;
    *ret = (struct index_dirblock){data, count, end};
    return 0;
}

void index_dirblock_entry(const struct index_dirblock *b, uint32_t i, struct index_entry *ret)
{
    const struct erofs_dirent *d = dirent_at(b->data, i);
    uint32_t begin = le16_get(d->name_offset);
    uint32_t end =
        i + 1 < b->count ? le16_get(dirent_at(b->data, i + 1)->name_offset) : b->names_end;

    ret->name = (const char *)b->data + begin;
    ret->name_length = (uint8_t)(end - begin);
    ret->type = (enum index_type)d->type[0];
    ret->nid = le64_get(d->nid);
}

static uint64_t block_count(const struct index_inode *dir)
{
    return dir->size / EROFS_BLOCK_SIZE + (dir->size % EROFS_BLOCK_SIZE != 0);
}

static uint32_t block_size(const struct index_inode *dir, uint64_t block)
{
    uint64_t left = dir->size - block * EROFS_BLOCK_SIZE;

    return left < EROFS_BLOCK_SIZE ? (uint32_t)left : EROFS_BLOCK_SIZE;
}

/* ---- lookup ------------------------------------------------------------------------------------
 */

static int read_block(const struct index *x, const struct index_inode *dir, uint64_t block,
                      uint8_t *data)
{
    return index_bytes(x, index_data_address(dir) + block * EROFS_BLOCK_SIZE, data,
                       block_size(dir, block));
}

/* Compare `name` with the first name of a block. */
static int compare_first(const uint8_t *data, uint32_t size, const char *name, size_t length,
                         int *ret)
{
    struct bytes first;
    uint32_t count;
    int r = parse_count(data, size, &count);

    if (r == 0)
        r = parse_name(data, size, count, 0, &first);
    if (r == 0)
        *ret = index_name_compare(name, length, first.data, first.size);
    return r;
}

static int search_block(const struct index *x, const uint8_t *data, uint32_t size, bool last,
                        const char *name, size_t length, uint64_t *ret_nid)
{
    struct index_dirblock b;
    struct index_entry e;
    uint32_t low = 0;
    int r = index_dirblock_parse(x, data, size, last, &b);

    if (r < 0)
        return r;
    for (uint32_t high = b.count; low < high;) {
        uint32_t middle = low + (high - low) / 2;

        index_dirblock_entry(&b, middle, &e);
        r = index_name_compare(name, length, e.name, e.name_length);
        if (r == 0) {
            *ret_nid = e.nid;
            return 0;
        }
        if (r < 0)
            high = middle;
        else
            low = middle + 1;
    }
    return -ENOENT;
}

int index_lookup(const struct index *x, const struct index_inode *dir, const char *name,
                 size_t name_length, uint64_t *ret_nid)
{
    uint8_t buffers[2][EROFS_BLOCK_SIZE]; /* the best block so far, and the one looked at */
    uint8_t *best = buffers[0], *probe = buffers[1];
    uint64_t low = 0, high, best_block = UINT64_MAX;
    int r, order = 0;

    if (dir->type != INDEX_DIRECTORY)
        return -ENOTDIR;
    if (name_length > INDEX_NAME_MAX)
        return -ENAMETOOLONG;

    /* The name is in the last block whose first name is not behind it. */
    for (high = block_count(dir); high - low > 1;) {
        uint64_t middle = low + (high - low) / 2;

        r = read_block(x, dir, middle, probe);
        if (r == 0)
            r = compare_first(probe, block_size(dir, middle), name, name_length, &order);
        if (r < 0)
            return r;
        if (order < 0) {
            high = middle;
            continue;
        }
        low = best_block = middle;
        uint8_t *swap = best;
        best = probe;
        probe = swap;
    }
    if (best_block != low) {
        r = read_block(x, dir, low, best);
        if (r < 0)
            return r;
    }
    return search_block(x, best, block_size(dir, low), low + 1 == block_count(dir), name,
                        name_length, ret_nid);
}

int index_walk(const struct index *x, const char *path, struct index_inode *ret)
{
    struct index_inode inode;
    uint64_t nid;
    int r = index_inode(x, INDEX_ROOT_NID, &inode);

    while (r == 0) {
        path += strspn(path, "/");
        if (!*path)
            break;
        size_t length = strcspn(path, "/");
        r = index_lookup(x, &inode, path, length, &nid);
        if (r == 0)
            r = index_inode(x, nid, &inode);
        path += length;
    }
    if (r == 0)
        *ret = inode;
    return r;
}

/* ---- listing -----------------------------------------------------------------------------------
 */

struct listing {
    const struct index *x;
    const struct index_inode *dir;
    index_entry_fn *fn;
    void *ctx;
    char last[INDEX_NAME_MAX]; /* the name that ended the block before; length 0: none */
    uint8_t last_length;
};

/* Give the entries of one block from number `from` on. */
static int list_block(struct listing *l, const uint8_t *data, uint64_t block, uint64_t from)
{
    bool last = block + 1 == block_count(l->dir);
    struct index_dirblock b;
    struct index_entry e;
    int r = index_dirblock_parse(l->x, data, block_size(l->dir, block), last, &b);

    if (r < 0)
        return r;
    index_dirblock_entry(&b, 0, &e);
    if (l->last_length && index_name_compare(l->last, l->last_length, e.name, e.name_length) >= 0)
        return -EPROTO;
    for (uint64_t i = from; i < b.count; i++) {
        index_dirblock_entry(&b, (uint32_t)i, &e);
        e.next = block << COOKIE_BITS | (i + 1);
        r = l->fn(l->ctx, &e);
        if (r)
            return r;
    }
    index_dirblock_entry(&b, b.count - 1, &e);
    memcpy(l->last, e.name, e.name_length);
    l->last_length = e.name_length;
    return 0;
}

int index_readdir(const struct index *x, const struct index_inode *dir, uint64_t cookie,
                  index_entry_fn *fn, void *ctx)
{
    struct listing l = {.x = x, .dir = dir, .fn = fn, .ctx = ctx};
    uint8_t piece[INDEX_PIECE];
    uint64_t block = cookie >> COOKIE_BITS;
    uint64_t from = cookie & ((UINT64_C(1) << COOKIE_BITS) - 1);

    if (dir->type != INDEX_DIRECTORY)
        return -ENOTDIR;
    while (block < block_count(dir)) {
        uint64_t done = block * EROFS_BLOCK_SIZE;
        uint64_t at = index_data_address(dir) + done;
        uint64_t size = INDEX_PIECE - at % INDEX_PIECE;
        int r;

        if (size > dir->size - done)
            size = dir->size - done;
        r = index_bytes(x, at, piece, size);
        for (uint64_t i = 0; r == 0 && i < size; i += EROFS_BLOCK_SIZE, block++, from = 0)
            r = list_block(&l, piece + i, block, from);
        if (r)
            return r > 0 ? 0 : r;
    }
    return 0;
}
