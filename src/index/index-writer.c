/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writes an index: plans the layout, then emits superblock, device table and metadata in order.
 *
 * The metadata is emitted twice: once into a digest, whose first bytes are the image's uuid in the
 * superblock (so equal content gives equal images), and once into the sink. That costs less than to
 * keep it, and needs no second description of what an image says.
 */
#include "index/index.h"

#include "base/le.h"
#include "index/index-emit.h"

#define START_ALIGN   4096u /* unified starts: a page never holds parts of two packs */
#define FLAT_MAX      (UINT64_C(1) << 48)  /* blocks that 48-bit addresses reach */
#define NARROW_MAX    UINT64_C(0xFFFFFFFF) /* blocks that 32-bit addresses reach */
#define BLOCKS_MAX    UINT64_C(0xFFFFFFFF) /* of a device; chunk indexes reach no more */
#define TABLE_OFFSET  (EROFS_SUPER_OFFSET + EROFS_SUPER_SIZE)
#define CRC_SLOTS_MAX ((EROFS_CRC_END - TABLE_OFFSET) / EROFS_SLOT_SIZE)

static uint64_t first_start(const struct layout *l)
{
    return layout_up(l->end, START_ALIGN) / EROFS_BLOCK_SIZE;
}

static uint64_t next_start(uint64_t start, const struct index_device *d)
{
    return layout_up(start + d->blocks, START_ALIGN / EROFS_BLOCK_SIZE);
}

/* Is the 48-bit layout needed? -EFBIG if even that is too small. */
static int check_starts(const struct layout *l, bool *ret_wide, struct err *err)
{
    uint64_t start = first_start(l), end = start;
    for (size_t i = 0; i < l->device_count; i++) {
        end = start + l->devices[i].blocks;
        start = next_start(start, &l->devices[i]);
        if (start > FLAT_MAX)
            return err_fail(err, -EFBIG, "the packs are larger than 2^48 blocks together");
    }
    *ret_wide = end > NARROW_MAX;
    return 0;
}

static int check_devices(const struct layout *l, struct err *err)
{
    if (l->device_count > INDEX_DEVICES_MAX)
        return err_fail(err, -EINVAL, "the version would need %zu packs, more than %u",
                        l->device_count, INDEX_DEVICES_MAX);
    for (size_t i = 0; i < l->device_count; i++) {
        if (l->devices[i].blocks > BLOCKS_MAX)
            return err_fail(err, -EFBIG, "pack %zu is larger than 2^32 blocks", i + 1);
    }
    return 0;
}

static void fill_slot(const struct index_device *d, uint64_t start, struct erofs_slot *slot)
{
    char tag[DIGEST_HEX_SIZE];
    digest_to_hex(&d->digest, tag);
    memcpy(slot->tag, tag, sizeof slot->tag);
    le32_put(slot->blocks, (uint32_t)d->blocks);
    le16_put(slot->blocks_hi, (uint16_t)(d->blocks >> 32));
    le32_put(slot->start, (uint32_t)start);
    le16_put(slot->start_hi, (uint16_t)(start >> 32));
}

/* Slots, then the rest up to the end of the image. */
static int emit_behind_super(struct emit *e)
{
    const struct layout *l = e->l;
    uint64_t start = first_start(l);
    for (size_t i = 0; i < l->device_count; i++) {
        struct erofs_slot slot = {.tag = {0}};
        fill_slot(&l->devices[i], start, &slot);
        int r = emit_bytes(e, &slot, sizeof slot);
        if (r < 0)
            return r;
        start = next_start(start, &l->devices[i]);
    }
    int r = emit_zeros_to(e, l->meta);
    return r < 0 ? r : emit_metadata(e);
}

/* The superblock's checksum covers the slots that stand in its block too. */
static uint32_t checksum(const struct layout *l, const struct erofs_super *sb)
{
    uint8_t block[EROFS_CRC_END - EROFS_SUPER_OFFSET] = {0};
    uint64_t start = first_start(l);
    memcpy(block, sb, sizeof *sb);
    for (size_t i = 0; i < l->device_count && i < CRC_SLOTS_MAX; i++) {
        uint8_t *at = block + EROFS_SUPER_SIZE + i * EROFS_SLOT_SIZE;
        fill_slot(&l->devices[i], start, (struct erofs_slot *)at);
        start = next_start(start, &l->devices[i]);
    }
    return erofs_crc32c(block, sizeof block);
}

static void fill_super(const struct layout *l, bool wide, const struct digest *uuid,
                       struct erofs_super *sb)
{
    uint32_t incompat = EROFS_INCOMPAT_CHUNKED_FILE | EROFS_INCOMPAT_DEVICE_TABLE;
    le32_put(sb->magic, EROFS_MAGIC);
    le32_put(sb->feature_compat, EROFS_COMPAT_MTIME | EROFS_COMPAT_SB_CHKSUM);
    sb->block_bits[0] = EROFS_BLOCK_BITS;
    if (wide) {
        incompat |= EROFS_INCOMPAT_48BIT;
        le64_put(sb->root_nid_wide, INDEX_ROOT_NID);
    } else {
        le16_put(sb->root_nid, INDEX_ROOT_NID);
    }
    le64_put(sb->inodes, l->inodes);
    le32_put(sb->blocks, (uint32_t)(l->end / EROFS_BLOCK_SIZE));
    le32_put(sb->meta_block, (uint32_t)(l->meta / EROFS_BLOCK_SIZE));
    memcpy(sb->uuid, uuid->byte, sizeof sb->uuid);
    le32_put(sb->feature_incompat, incompat);
    le16_put(sb->extra_devices, (uint16_t)l->device_count);
    le16_put(sb->slot_first, EROFS_SLOT_FIRST);
    le32_put(sb->checksum, checksum(l, sb));
}

static int digest_sink(void *ctx, const void *data, size_t size)
{
    digest_stream_add(ctx, data, size);
    return 0;
}

static int content_digest(const struct layout *l, uint8_t *buffer, struct digest *ret)
{
    struct digest_stream *stream = digest_stream_new();
    if (!stream)
        return -ENOMEM;
    struct emit e = {l, digest_sink, stream, TABLE_OFFSET, buffer, 0};
    int r = emit_behind_super(&e);
    if (r == 0)
        *ret = digest_stream_finish(stream);
    digest_stream_free(stream);
    return r;
}

static int write_planned(const struct layout *l, uint8_t *buffer, index_sink_fn *sink, void *ctx,
                         struct index_summary *ret, struct err *err)
{
    bool wide = false;
    int r = check_starts(l, &wide, err);
    if (r < 0)
        return r;
    struct digest uuid;
    r = content_digest(l, buffer, &uuid);
    if (r < 0)
        return r;
    struct erofs_super sb = {.magic = {0}};
    fill_super(l, wide, &uuid, &sb);
    struct emit e = {l, sink, ctx, 0, buffer, 0};
    r = emit_zeros_to(&e, EROFS_SUPER_OFFSET);
    if (r == 0)
        r = emit_bytes(&e, &sb, sizeof sb);
    if (r == 0)
        r = emit_behind_super(&e);
    if (r < 0)
        return r;
    *ret = (struct index_summary){
        .size = l->end,
        .head = layout_up(l->head, EROFS_BLOCK_SIZE),
        .inodes = l->inodes,
        .wide = wide,
    };
    return 0;
}

int index_write(const struct tree *tree, const struct index_device *devices, size_t device_count,
                const uint16_t *device_of, size_t pack_count, index_sink_fn *sink, void *ctx,
                struct index_summary *ret, struct err *err)
{
    struct layout l = {
        .tree = tree,
        .devices = devices,
        .device_count = device_count,
        .device_of = device_of,
        .pack_count = pack_count,
    };
    uint8_t *buffer = malloc(EMIT_BUFFER);
    int r = buffer ? check_devices(&l, err) : -ENOMEM;
    if (r == 0)
        r = layout_plan(&l, err);
    if (r == 0)
        r = write_planned(&l, buffer, sink, ctx, ret, err);
    layout_release(&l);
    free(buffer);
    return r;
}
