/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What hangs on an inode besides entries: a file's chunks, a symlink's target, attributes.
 *
 * Linux masks device ids and reads whatever stands at a wrong block, so nobody but this code keeps
 * a hostile index from naming bytes outside its packs. A chunk that is named by two files is fine:
 * that is how equal contents are stored once.
 */
#include "index/index-internal.h"

#include "base/le.h"

#include <string.h>

/* Linux takes 255 bytes for a name, "user." among them. */
#define USER_NAME_MAX 250u

int index_chunk_parse(const struct index *x, const struct index_inode *file, uint64_t number,
                      const struct erofs_chunk_index *raw, struct index_extent *ret)
{
    uint64_t chunk = (uint64_t)EROFS_BLOCK_SIZE << file->chunk_bits;
    uint32_t device = le16_get(raw->device);
    uint32_t block = le32_get(raw->block);
    struct index_extent e = {.device = device, .chunk_offset = number * chunk};
    uint64_t blocks;

    e.chunk_size = file->size - e.chunk_offset < chunk ? file->size - e.chunk_offset : chunk;
    blocks = (e.chunk_size + EROFS_BLOCK_SIZE - 1) / EROFS_BLOCK_SIZE;
    if (le16_get(raw->block_hi))
        return -EPROTO;
    if (block == EROFS_HOLE) {
        if (device)
            return -EPROTO;
    } else {
        if (device == 0 || device > x->device_count || block > x->devices[device - 1].blocks ||
            blocks > x->devices[device - 1].blocks - block)
            return -EPROTO;
        e.block = block;
    }
    *ret = e;
    return 0;
}

int index_map(const struct index *x, const struct index_inode *file, uint64_t offset,
              struct index_extent *ret)
{
    struct erofs_chunk_index raw;
    uint64_t number;
    int r;

    if (file->type != INDEX_FILE || offset >= file->size)
        return -EINVAL;
    number = offset >> (EROFS_BLOCK_BITS + file->chunk_bits);
    r = index_bytes(x, index_chunks_address(file) + number * EROFS_CHUNK_INDEX_SIZE, &raw,
                    sizeof raw);
    return r < 0 ? r : index_chunk_parse(x, file, number, &raw, ret);
}

int index_readlink(const struct index *x, const struct index_inode *link,
                   char target[static INDEX_TARGET_MAX + 1])
{
    int r;

    if (link->type != INDEX_SYMLINK || link->size > INDEX_TARGET_MAX)
        return -EINVAL;
    r = index_bytes(x, index_data_address(link), target, link->size);
    if (r < 0)
        return r;
    target[link->size] = '\0';
    return strlen(target) == link->size ? 0 : -EPROTO;
}

/* One attribute at `p`, which has `left` bytes; *ret_size is what it takes with its padding. */
static int parse_xattr(const uint8_t *p, size_t left, struct bytes *ret_name,
                       struct bytes *ret_value, size_t *ret_size)
{
    const struct erofs_xattr_entry *e = (const struct erofs_xattr_entry *)p;
    size_t name, value, used, padded;

    if (left < sizeof *e)
        return -EPROTO;
    name = e->name_length[0];
    value = le16_get(e->value_size);
    used = sizeof *e + name + value;
    padded = (used + 3) & ~(size_t)3;
    if (e->name_index[0] != EROFS_XATTR_USER || name == 0 || name > USER_NAME_MAX ||
        padded > left || memchr(p + sizeof *e, 0, name) || !index_all_zero(p + used, padded - used))
        return -EPROTO;
    *ret_name = bytes_of(p + sizeof *e, name);
    *ret_value = bytes_of(p + sizeof *e + name, value);
    *ret_size = padded;
    return 0;
}

int index_xattrs(const struct index *x, const struct index_inode *inode, index_xattr_fn *fn,
                 void *ctx)
{
    uint8_t area[INDEX_XATTR_AREA];
    uint32_t size = erofs_xattr_size(inode->xattr_count);
    struct bytes name = {NULL, 0}, before, value;
    size_t step;
    int r;

    if (size == 0)
        return 0;
    if (size > sizeof area)
        return -EPROTO;
    r = index_bytes(x, inode->address + EROFS_INODE_SIZE, area, size);
    if (r < 0)
        return r;
    if (!index_all_zero(area, EROFS_XATTR_HEADER_SIZE))
        return -EPROTO;
    for (size_t at = EROFS_XATTR_HEADER_SIZE; at < size; at += step) {
        before = name;
        r = parse_xattr(area + at, size - at, &name, &value, &step);
        if (r == 0 && before.size &&
            index_name_compare(before.data, before.size, name.data, name.size) >= 0)
            r = -EPROTO;
        if (r == 0)
            r = fn(ctx, name.data, name.size, value);
        if (r)
            return r;
    }
    return 0;
}
