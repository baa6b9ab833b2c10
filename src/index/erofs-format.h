/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The on-disk structures of EROFS as far as an index uses them: shared by the writer and the
 * reader. Format and rules: docs/formats/index.md.
 *
 * All fields are byte arrays, read and written with base/le.h (le32_get(sb->magic)), so that the
 * structures may lie at any address of a buffer. All integers are little-endian.
 */
#ifndef INDEX_EROFS_FORMAT_H
#define INDEX_EROFS_FORMAT_H

#include <stddef.h>
#include <stdint.h>

#define EROFS_MAGIC        0xE0F5E1E2u
#define EROFS_SUPER_OFFSET 1024u /* the bytes before it are zero */
#define EROFS_SUPER_SIZE   128u
#define EROFS_BLOCK_BITS   9u
#define EROFS_BLOCK_SIZE   512u
#define EROFS_SLOT_SIZE    128u
#define EROFS_SLOT_FIRST   9u  /* the device table's place, counted in slots from byte 0: 1152 */
#define EROFS_NID_SIZE     32u /* inode address = meta_blkaddr * 512 + nid * 32 */

/* feature_compat */
#define EROFS_COMPAT_SB_CHKSUM 0x1u
#define EROFS_COMPAT_MTIME     0x2u
/* feature_incompat */
#define EROFS_INCOMPAT_CHUNKED_FILE 0x4u
#define EROFS_INCOMPAT_DEVICE_TABLE 0x8u
#define EROFS_INCOMPAT_48BIT        0x80u

/* CRC-32C, reflected, without the final inversion. */
#define EROFS_CRC_POLYNOMIAL 0x82F63B78u
#define EROFS_CRC_START      0xFFFFFFFFu
#define EROFS_CRC_END        1536u /* covers the bytes from EROFS_SUPER_OFFSET to here */

/* Bit by bit: it covers 512 bytes, once an image. */
static inline uint32_t erofs_crc32c(const void *data, size_t size)
{
    const uint8_t *p = data;
    uint32_t crc = EROFS_CRC_START;
    for (size_t i = 0; i < size; i++) {
        crc ^= p[i];
        for (int bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (crc & 1 ? EROFS_CRC_POLYNOMIAL : 0);
    }
    return crc;
}

struct erofs_super {
    uint8_t magic[4];
    uint8_t checksum[4]; /* 0 while it is computed */
    uint8_t feature_compat[4];
    uint8_t block_bits[1];
    uint8_t ext_slots[1]; /* 0 */
    uint8_t root_nid[2];  /* with 48BIT: bits 32 to 47 of `blocks` */
    uint8_t inodes[8];
    uint8_t epoch[8];       /* 0; of compact inodes, like the next */
    uint8_t fixed_nsec[4];  /* 0 */
    uint8_t blocks[4];      /* of the index alone */
    uint8_t meta_block[4];  /* meta_blkaddr */
    uint8_t xattr_block[4]; /* 0: no shared attributes */
    uint8_t uuid[16];
    uint8_t volume_name[16]; /* 0 */
    uint8_t feature_incompat[4];
    uint8_t union_84[2]; /* 0 */
    uint8_t extra_devices[2];
    uint8_t slot_first[2];     /* devt_slotoff */
    uint8_t dir_block_bits[1]; /* 0 */
    uint8_t reserved_91[17];   /* 0 */
    uint8_t build_time[4];     /* 0 */
    uint8_t root_nid_wide[8];  /* with 48BIT; else 0 */
    uint8_t reserved_120[8];   /* 0 */
};
_Static_assert(sizeof(struct erofs_super) == EROFS_SUPER_SIZE, "superblock");
_Static_assert(offsetof(struct erofs_super, block_bits) == 12, "superblock");
_Static_assert(offsetof(struct erofs_super, root_nid) == 14, "superblock");
_Static_assert(offsetof(struct erofs_super, inodes) == 16, "superblock");
_Static_assert(offsetof(struct erofs_super, blocks) == 36, "superblock");
_Static_assert(offsetof(struct erofs_super, meta_block) == 40, "superblock");
_Static_assert(offsetof(struct erofs_super, uuid) == 48, "superblock");
_Static_assert(offsetof(struct erofs_super, feature_incompat) == 80, "superblock");
_Static_assert(offsetof(struct erofs_super, extra_devices) == 86, "superblock");
_Static_assert(offsetof(struct erofs_super, slot_first) == 88, "superblock");
_Static_assert(offsetof(struct erofs_super, dir_block_bits) == 90, "superblock");
_Static_assert(offsetof(struct erofs_super, build_time) == 108, "superblock");
_Static_assert(offsetof(struct erofs_super, root_nid_wide) == 112, "superblock");

struct erofs_slot {
    uint8_t tag[64]; /* the pack's digest, 64 lower-case hex digits, no NUL */
    uint8_t blocks[4];
    uint8_t start[4];     /* uniaddr, blocks */
    uint8_t blocks_hi[2]; /* with 48BIT, like the next; else 0 */
    uint8_t start_hi[2];
    uint8_t reserved[52]; /* 0 */
};
_Static_assert(sizeof(struct erofs_slot) == EROFS_SLOT_SIZE, "device slot");
_Static_assert(offsetof(struct erofs_slot, start) == 68, "device slot");
_Static_assert(offsetof(struct erofs_slot, start_hi) == 74, "device slot");

/* inode.format: bit 0: this 64-byte form; bits 1 to 3: where the data is */
#define EROFS_FORMAT_EXTENDED 0x1u
#define EROFS_LAYOUT_PLAIN    0u /* whole blocks, the first one is inode.u */
#define EROFS_LAYOUT_INLINE                                                                        \
    2u                          /* right behind inode and attributes (whole blocks before: never)  \
                                 */
#define EROFS_LAYOUT_CHUNK   4u /* chunk indexes behind inode and attributes, 8-aligned */
#define EROFS_FORMAT(layout) (EROFS_FORMAT_EXTENDED | (layout) << 1)

#define EROFS_INODE_SIZE 64u
/* The longest inline tail: inode, attributes and tail stand in one block. */
#define EROFS_INLINE_MAX (EROFS_BLOCK_SIZE - EROFS_INODE_SIZE)

/* inode.u of a chunk-based file */
#define EROFS_CHUNK_BITS_MASK 0x1Fu /* chunk = block << these bits */
#define EROFS_CHUNK_INDEXES   0x20u /* indexes of 8 bytes; always set */
#define EROFS_CHUNK_BITS_BIG  14u   /* files of more than one chunk: 8 MiB */
#define EROFS_CHUNK_BIG       (UINT64_C(1) << (EROFS_BLOCK_BITS + EROFS_CHUNK_BITS_BIG))

struct erofs_inode {
    uint8_t format[2];
    uint8_t xattr_count[2]; /* 0: none; else header and entries are 12 + 4 * (count - 1) bytes */
    uint8_t mode[2];        /* with the type bits */
    uint8_t reserved_6[2];  /* 0 */
    uint8_t size[8];
    uint8_t u[4];         /* first block, or chunk format */
    uint8_t leaf_hint[4]; /* i_ino, ignored by others: a one-chunk file's first leaf in its pack */
    uint8_t uid[4];       /* 0, like the next */
    uint8_t gid[4];
    uint8_t mtime[8]; /* signed seconds */
    uint8_t mtime_nsec[4];
    uint8_t nlink[4];
    uint8_t reserved_48[16]; /* 0 */
};
_Static_assert(sizeof(struct erofs_inode) == EROFS_INODE_SIZE, "inode");
_Static_assert(offsetof(struct erofs_inode, size) == 8, "inode");
_Static_assert(offsetof(struct erofs_inode, u) == 16, "inode");
_Static_assert(offsetof(struct erofs_inode, leaf_hint) == 20, "inode");
_Static_assert(offsetof(struct erofs_inode, mtime) == 32, "inode");
_Static_assert(offsetof(struct erofs_inode, nlink) == 44, "inode");

struct erofs_chunk_index {
    uint8_t block_hi[2]; /* 0 */
    uint8_t device[2];   /* from 1 */
    uint8_t block[4];    /* in that device; EROFS_HOLE: none (device is 0 then) */
};
#define EROFS_CHUNK_INDEX_SIZE 8u
#define EROFS_HOLE             0xFFFFFFFFu
_Static_assert(sizeof(struct erofs_chunk_index) == EROFS_CHUNK_INDEX_SIZE, "chunk index");

struct erofs_dirent {
    uint8_t nid[8];
    uint8_t name_offset[2]; /* from the start of the directory block; the first one / 12 = count */
    uint8_t type[1];
    uint8_t reserved[1]; /* 0 */
};
#define EROFS_DIRENT_SIZE    12u
#define EROFS_TYPE_FILE      1u
#define EROFS_TYPE_DIRECTORY 2u
#define EROFS_TYPE_SYMLINK   7u
_Static_assert(sizeof(struct erofs_dirent) == EROFS_DIRENT_SIZE, "directory entry");

/* Extended attributes: this header, then entries, each zero-padded to a multiple of 4. */
struct erofs_xattr_header {
    uint8_t name_filter[4];  /* 0 */
    uint8_t shared_count[1]; /* 0 */
    uint8_t reserved[7];     /* 0 */
};
#define EROFS_XATTR_HEADER_SIZE 12u
_Static_assert(sizeof(struct erofs_xattr_header) == EROFS_XATTR_HEADER_SIZE, "attribute header");

struct erofs_xattr_entry {
    uint8_t name_length[1];
    uint8_t name_index[1]; /* EROFS_XATTR_USER */
    uint8_t value_size[2];
    /* then the name without "user.", then the value */
};
#define EROFS_XATTR_ENTRY_SIZE 4u
#define EROFS_XATTR_USER       1u
_Static_assert(sizeof(struct erofs_xattr_entry) == EROFS_XATTR_ENTRY_SIZE, "attribute entry");

/* Bytes of attributes behind an inode, by its xattr_count. */
static inline uint32_t erofs_xattr_size(uint32_t xattr_count)
{
    return xattr_count ? EROFS_XATTR_HEADER_SIZE + 4 * (xattr_count - 1) : 0;
}

#endif
