/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Opening an index: superblock, device table, root.
 *
 * The format allows far more than our writer writes. What it does not write is refused here, so the
 * rest of the reader has one shape of image to think about, and the kernel, which is given the same
 * bytes, does not meet features nobody tried. The checksum finds accidents only: that the bytes are
 * the publisher's is for the caller's digests to say, and the publisher himself is not trusted.
 */
#include "index/index-internal.h"

#include "base/hex.h"
#include "base/le.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* Unified starts are multiples of this: no page of the flat image holds parts of two packs. */
#define DEVICE_ALIGN 4096u

/* Slots read at once: one leaf of an index object. */
#define SLOTS_AT_ONCE (INDEX_PIECE / EROFS_SLOT_SIZE)

int index_bytes(const struct index *x, uint64_t offset, void *data, size_t size)
{
    if (offset > x->size || size > x->size - offset)
        return -EPROTO;
    return size ? x->read(x->ctx, offset, data, size) : 0;
}

bool index_all_zero(const void *data, size_t size)
{
    const uint8_t *p = data;

    return size == 0 || (p[0] == 0 && memcmp(p, p + 1, size - 1) == 0);
}

/* Is this an image of ours at all? `head` is bytes 0 to EROFS_CRC_END. */
static int check_identity(uint8_t *head, struct err *err)
{
    struct erofs_super *sb = (struct erofs_super *)(head + EROFS_SUPER_OFFSET);
    uint32_t checksum = le32_get(sb->checksum);
    uint32_t compat = le32_get(sb->feature_compat);
    uint32_t incompat = le32_get(sb->feature_incompat);

    if (!index_all_zero(head, EROFS_SUPER_OFFSET) || le32_get(sb->magic) != EROFS_MAGIC)
        return err_fail(err, -EPROTO, "the index is not an EROFS image");
    if (sb->block_bits[0] != EROFS_BLOCK_BITS)
        return err_fail(err, -EPROTONOSUPPORT,
                        "the index has blocks of 2^%u bytes; this program knows 2^%u only",
                        sb->block_bits[0], EROFS_BLOCK_BITS);
    le32_put(sb->checksum, 0);
    if (erofs_crc32c(sb, EROFS_CRC_END - EROFS_SUPER_OFFSET) != checksum)
        return err_fail(err, -EPROTO, "the checksum of the index's superblock is wrong");
    if (compat != (EROFS_COMPAT_SB_CHKSUM | EROFS_COMPAT_MTIME) ||
        (incompat & ~EROFS_INCOMPAT_48BIT) !=
            (EROFS_INCOMPAT_CHUNKED_FILE | EROFS_INCOMPAT_DEVICE_TABLE))
        return err_fail(err, -EPROTONOSUPPORT,
                        "the index has other features than this program knows "
                        "(compat %#" PRIx32 ", incompat %#" PRIx32 ")",
                        compat, incompat);
    return 0;
}

/* What these fields would switch on was never tried, by us or on a kernel. */
static int check_unused(const struct erofs_super *sb, struct err *err)
{
    const struct {
        const char *name;
        const uint8_t *field;
        size_t size;
    } unused[] = {
        {"extension slots", sb->ext_slots, sizeof sb->ext_slots},
        {"epoch", sb->epoch, sizeof sb->epoch},
        {"fixed_nsec", sb->fixed_nsec, sizeof sb->fixed_nsec},
        {"xattr_blkaddr", sb->xattr_block, sizeof sb->xattr_block},
        {"volume name", sb->volume_name, sizeof sb->volume_name},
        {"bytes 84 to 85", sb->union_84, sizeof sb->union_84},
        {"dirblkbits", sb->dir_block_bits, sizeof sb->dir_block_bits},
        {"bytes 91 to 107", sb->reserved_91, sizeof sb->reserved_91},
        {"build time", sb->build_time, sizeof sb->build_time},
        {"bytes 120 to 127", sb->reserved_120, sizeof sb->reserved_120},
    };

    for (size_t i = 0; i < sizeof unused / sizeof *unused; i++)
        if (!index_all_zero(unused[i].field, unused[i].size))
            return err_fail(err, -EPROTO, "the index's superblock: %s is not zero", unused[i].name);
    return 0;
}

/* Sizes and places, all of which follow from the size of the image and the number of devices. */
static int check_places(struct index *x, const struct erofs_super *sb, struct err *err)
{
    uint64_t table_end;

    /* With 48-bit addresses the root's nid moves, and its old place is bits 32 to 47 of the number
     * of blocks: zero, by INDEX_SIZE_MAX. */
    x->wide = le32_get(sb->feature_incompat) & EROFS_INCOMPAT_48BIT;
    if (le16_get(sb->root_nid) != (x->wide ? 0 : INDEX_ROOT_NID) ||
        le64_get(sb->root_nid_wide) != (x->wide ? INDEX_ROOT_NID : 0))
        return err_fail(err, -EPROTO, "the index's root is not at its place");
    if (le32_get(sb->blocks) != x->size / EROFS_BLOCK_SIZE)
        return err_fail(err, -EPROTO,
                        "the index is %" PRIu64 " blocks long, but its superblock says %" PRIu32,
                        x->size / EROFS_BLOCK_SIZE, le32_get(sb->blocks));
    x->inodes = le64_get(sb->inodes);
    if (x->inodes == 0 || x->inodes > x->size / EROFS_INODE_SIZE)
        return err_fail(err, -EPROTO,
                        "an index of %" PRIu64 " bytes cannot hold %" PRIu64 " inodes", x->size,
                        x->inodes);

    x->device_count = le16_get(sb->extra_devices);
    if (x->device_count > INDEX_DEVICES_MAX)
        return err_fail(err, -EPROTO, "the index names %" PRIu32 " packs; at most %u are allowed",
                        x->device_count, INDEX_DEVICES_MAX);
    if (le16_get(sb->slot_first) != EROFS_SLOT_FIRST)
        return err_fail(err, -EPROTO, "the index's device table is not at its place");
    table_end = (uint64_t)(EROFS_SLOT_FIRST + x->device_count) * EROFS_SLOT_SIZE;
    x->meta = (table_end + EROFS_BLOCK_SIZE - 1) / EROFS_BLOCK_SIZE * EROFS_BLOCK_SIZE;
    if (le32_get(sb->meta_block) != x->meta / EROFS_BLOCK_SIZE || x->meta >= x->size)
        return err_fail(err, -EPROTO, "the index's inodes are not at their place");
    return 0;
}

static int read_superblock(struct index *x, struct err *err)
{
    uint8_t head[EROFS_CRC_END];
    const struct erofs_super *sb = (const struct erofs_super *)(head + EROFS_SUPER_OFFSET);
    int r;

    if (x->size % EROFS_BLOCK_SIZE || x->size <= EROFS_CRC_END || x->size > INDEX_SIZE_MAX)
        return err_fail(err, -EPROTO, "an index cannot be %" PRIu64 " bytes long", x->size);
    r = index_bytes(x, 0, head, sizeof head);
    if (r < 0)
        return err_fail(err, r, "the index's superblock cannot be read: %s", strerror(-r));
    r = check_identity(head, err);
    if (r == 0)
        r = check_unused(sb, err);
    if (r == 0)
        r = check_places(x, sb, err);
    return r;
}

static int parse_slot(struct index *x, uint32_t id, const struct erofs_slot *raw, struct err *err)
{
    struct index_slot *slot = &x->devices[id - 1];
    uint64_t start = (uint64_t)le16_get(raw->start_hi) << 32 | le32_get(raw->start);

    if (hex_decode(slot->digest.byte, DIGEST_SIZE, (const char *)raw->tag) < 0)
        return err_fail(err, -EPROTO, "device %" PRIu32 " of the index has no digest as its tag",
                        id);
    if (!index_all_zero(raw->reserved, sizeof raw->reserved) || le16_get(raw->blocks_hi) ||
        (!x->wide && le16_get(raw->start_hi)))
        return err_fail(err, -EPROTO,
                        "device %" PRIu32 " of the index has a field that must be zero", id);
    slot->blocks = le32_get(raw->blocks);
    slot->start = start * EROFS_BLOCK_SIZE; /* at most 2^57 */
    if (slot->start % DEVICE_ALIGN || slot->start < x->flat_size)
        return err_fail(err, -EPROTO,
                        "device %" PRIu32 " of the index starts at byte %" PRIu64
                        ", which is not a free place",
                        id, slot->start);
    x->flat_size = slot->start + slot->blocks * EROFS_BLOCK_SIZE;
    return 0;
}

/* The device table and the padding behind it. */
static int read_devices(struct index *x, struct err *err)
{
    struct erofs_slot raw[SLOTS_AT_ONCE];
    uint64_t at = EROFS_SLOT_FIRST * EROFS_SLOT_SIZE;
    int r;

    x->flat_size = x->size;
    x->devices = calloc(x->device_count ? x->device_count : 1, sizeof *x->devices);
    if (!x->devices)
        return err_fail(err, -ENOMEM, "not enough memory for the index's device table");

    for (uint32_t id = 1; id <= x->device_count;) {
        uint32_t n = x->device_count - id + 1;
        if (n > SLOTS_AT_ONCE)
            n = SLOTS_AT_ONCE;
        r = index_bytes(x, at, raw, n * sizeof *raw);
        if (r < 0)
            return err_fail(err, r, "the index's device table cannot be read: %s", strerror(-r));
        for (uint32_t i = 0; i < n; i++) {
            r = parse_slot(x, id + i, &raw[i], err);
            if (r < 0)
                return r;
        }
        id += n;
        at += n * sizeof *raw;
    }

    r = index_bytes(x, at, raw, x->meta - at);
    if (r < 0)
        return err_fail(err, r, "the index's device table cannot be read: %s", strerror(-r));
    if (!index_all_zero(raw, x->meta - at))
        return err_fail(err, -EPROTO, "the padding behind the index's device table is not zero");
    return 0;
}

int index_open(index_read_fn *read, void *ctx, uint64_t size, struct index **ret, struct err *err)
{
    AUTO(index_close) struct index *x = calloc(1, sizeof *x);
    struct index_inode root;
    int r;

    if (!x)
        return err_fail(err, -ENOMEM, "not enough memory to open an index");
    x->read = read;
    x->ctx = ctx;
    x->size = size;
    r = read_superblock(x, err);
    if (r < 0)
        return r;
    r = read_devices(x, err);
    if (r < 0)
        return r;
    r = index_inode(x, INDEX_ROOT_NID, &root);
    if (r == 0 && root.type != INDEX_DIRECTORY)
        r = -EPROTO;
    if (r < 0)
        return err_fail(err, r, "the index's root directory cannot be read: %s",
                        r == -EPROTO ? "its inode breaks the format" : strerror(-r));
    *ret = take_ptr(&x);
    return 0;
}

void index_close(struct index *x)
{
    if (!x)
        return;
    free(x->devices);
    free(x);
}

uint32_t index_device_count(const struct index *x)
{
    return x->device_count;
}

uint64_t index_device_blocks(const struct index *x, uint32_t id)
{
    return x->devices[id - 1].blocks;
}

struct digest index_device_digest(const struct index *x, uint32_t id)
{
    return x->devices[id - 1].digest;
}

uint64_t index_device_start(const struct index *x, uint32_t id)
{
    return x->devices[id - 1].start;
}

uint64_t index_flat_size(const struct index *x)
{
    return x->flat_size;
}

bool index_is_wide(const struct index *x)
{
    return x->wide;
}

uint64_t index_inode_count(const struct index *x)
{
    return x->inodes;
}
