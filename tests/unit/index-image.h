/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A small index put together by hand, byte by byte from docs/formats/index.md and without the
 * writer, so that a mistake which both halves share shows; and everything a reader can be asked
 * about it.
 *
 * All of it is static: one test program includes it.
 */
#ifndef TESTS_INDEX_IMAGE_H
#define TESTS_INDEX_IMAGE_H

#include "base/le.h"
#include "index/index.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

/* ---- the image ---- */

/* Bytes in the image. Two devices, so the inodes start at up(1152 + 256, 512). */
enum {
    SB = 1024,
    SLOT1 = 1152,
    SLOT2 = 1280,
    META = 1536,
    ROOT = META + 32,
    ROOT_ENTRIES = ROOT + 64,
    MANY = 2048,  /* plain, three blocks; its names are 255 bytes long */
    FILE1 = 2112, /* one chunk of 1,000 bytes, six names */
    LINK = 2208,  /* inline */
    LONG = 2304,  /* plain, 600 bytes */
    THREE = 2368, /* three chunks: data, hole, data */
    XATTR = 2464, /* 100 bytes, and an attribute */
    EMPTY = 2560,
    DASH = 2624, /* sorts before "." */
    SUB = 2720,
    SUB_ENTRIES = SUB + 64,
    MANY_BLOCKS = 3072,
    LONG_BLOCKS = 4608,
    IMAGE = 5632,
};
#define NID(address)  (((address)-META) / 32)
#define DEVICE1       16u /* unified start, blocks */
#define DEVICE1_SIZE  40000u
#define DEVICE2_SIZE  16u
#define THREE_SIZE    (2 * (UINT64_C(8) << 20) + 5)
#define LONG_SIZE     600u
#define MANY_SIZE     (1024u + 12 + 255)
#define FILE_MODE     (S_IFREG | 0444u)
#define DIR_MODE      (S_IFDIR | 0555u)
#define FORMAT_PLAIN  1u
#define FORMAT_INLINE 5u
#define FORMAT_CHUNK  9u

struct image {
    uint8_t bytes[IMAGE];
    uint64_t size;
    unsigned reads;
};

static void put_inode(uint8_t *p, uint16_t format, uint32_t mode, uint64_t size, uint32_t u,
                      uint32_t nlink)
{
    le16_put(p, format);
    le16_put(p + 4, (uint16_t)mode);
    le64_put(p + 8, size);
    le32_put(p + 16, u);
    le64_put(p + 32, (uint64_t)-5);
    le32_put(p + 40, 999999999);
    le32_put(p + 44, nlink);
}

static void put_chunk(uint8_t *p, uint16_t device, uint32_t block)
{
    le16_put(p + 2, device);
    le32_put(p + 4, block);
}

struct named {
    const char *name;
    uint32_t address;
    uint8_t type;
};

/* One block of a directory; gives its size without padding. */
static uint32_t put_entries(uint8_t *p, const struct named *e, uint32_t count)
{
    uint32_t at = 12 * count;

    for (uint32_t i = 0; i < count; i++) {
        size_t length = strlen(e[i].name);
        le64_put(p + 12 * i, NID(e[i].address));
        le16_put(p + 12 * i + 8, (uint16_t)at);
        p[12 * i + 10] = e[i].type;
        memcpy(p + at, e[i].name, length);
        at += (uint32_t)length;
    }
    return at;
}

static const struct named root_entries[] = {
    {"-", DASH, 1},      {".", ROOT, 2},     {"..", ROOT, 2},     {"dir", MANY, 2},
    {"empty", EMPTY, 1}, {"file", FILE1, 1}, {"hard", FILE1, 1},  {"link", LINK, 7},
    {"long", LONG, 7},   {"sub", SUB, 2},    {"three", THREE, 1}, {"xattr", XATTR, 1},
};
#define ROOT_COUNT 12u
/* Offset of entry `i` of the root. */
#define ROOT_ENTRY(i) (ROOT_ENTRIES + 12u * (i))
#define ROOT_NAMES    (ROOT_ENTRIES + 12u * ROOT_COUNT)

static void put_directories(uint8_t *b)
{
    static char names[3][256];
    const struct named sub[] = {{".", SUB, 2}, {"..", ROOT, 2}, {"again", FILE1, 1}};

    for (int i = 0; i < 3; i++)
        memset(names[i], 'a' + i, 255);
    uint32_t size = put_entries(b + ROOT_ENTRIES, root_entries, ROOT_COUNT);
    put_inode(b + ROOT, FORMAT_INLINE, DIR_MODE, size, 0, 4);
    size = put_entries(b + SUB_ENTRIES, sub, 3);
    put_inode(b + SUB, FORMAT_INLINE, DIR_MODE, size, 0, 2);

    const struct named first[] = {{".", MANY, 2}, {"..", ROOT, 2}, {names[0], FILE1, 1}};
    (void)put_entries(b + MANY_BLOCKS, first, 3);
    for (uint32_t i = 1; i < 3; i++) {
        const struct named e = {names[i], FILE1, 1};
        (void)put_entries(b + MANY_BLOCKS + 512 * i, &e, 1);
    }
    put_inode(b + MANY, FORMAT_PLAIN, DIR_MODE, MANY_SIZE, MANY_BLOCKS / 512, 2);
}

static void put_files(uint8_t *b)
{
    static const uint8_t attribute[8] = {1, 1, 3, 0, 'a', 'x', 'y', 'z'};

    put_inode(b + FILE1, FORMAT_CHUNK, FILE_MODE, 1000, 0x21, 6);
    le32_put(b + FILE1 + 20, 7);
    put_chunk(b + FILE1 + 64, 1, DEVICE1_SIZE - 2);
    put_inode(b + LINK, FORMAT_INLINE, S_IFLNK | 0777, 4, 0, 1);
    memcpy(b + LINK + 64, "file", 4);
    put_inode(b + LONG, FORMAT_PLAIN, S_IFLNK | 0777, LONG_SIZE, LONG_BLOCKS / 512, 1);
    memset(b + LONG_BLOCKS, 'l', LONG_SIZE);
    put_inode(b + THREE, FORMAT_CHUNK, FILE_MODE, THREE_SIZE, 0x20 | 14, 1);
    put_chunk(b + THREE + 64, 1, 0);
    put_chunk(b + THREE + 72, 0, UINT32_MAX);
    put_chunk(b + THREE + 80, 2, DEVICE2_SIZE - 1);
    put_inode(b + XATTR, FORMAT_CHUNK, FILE_MODE, 100, 0x20, 1);
    le16_put(b + XATTR + 2, 1 + sizeof attribute / 4);
    memcpy(b + XATTR + 76, attribute, sizeof attribute);
    put_chunk(b + XATTR + 88, 2, 0);
    put_inode(b + EMPTY, FORMAT_CHUNK, FILE_MODE, 0, 0x20, 1);
    put_inode(b + DASH, FORMAT_CHUNK, FILE_MODE, 1, 0x20, 1);
    put_chunk(b + DASH + 64, 2, 1);
}

static void put_checksum(uint8_t *b)
{
    uint32_t crc = UINT32_MAX;

    le32_put(b + SB + 4, 0);
    for (int i = SB; i < 1536; i++) {
        crc ^= b[i];
        for (int bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (crc & 1 ? 0x82F63B78u : 0);
    }
    le32_put(b + SB + 4, crc);
}

static void put_slot(uint8_t *p, char tag, uint32_t blocks, uint32_t start)
{
    memset(p, tag, 64);
    le32_put(p + 64, blocks);
    le32_put(p + 68, start);
}

static void image_init(struct image *m)
{
    uint8_t *b = m->bytes, *sb = b + SB;

    memset(m, 0, sizeof *m);
    m->size = IMAGE;
    le32_put(sb, 0xE0F5E1E2u);
    le32_put(sb + 8, 3);
    sb[12] = 9;
    le16_put(sb + 14, 1);
    le64_put(sb + 16, 10);
    le32_put(sb + 36, IMAGE / 512);
    le32_put(sb + 40, META / 512);
    memset(sb + 48, 0x5a, 16);
    le32_put(sb + 80, 0xC);
    le16_put(sb + 86, 2);
    le16_put(sb + 88, 9);
    put_slot(b + SLOT1, 'a', DEVICE1_SIZE, DEVICE1);
    put_slot(b + SLOT2, '0', DEVICE2_SIZE, DEVICE1 + DEVICE1_SIZE);
    put_directories(b);
    put_files(b);
    put_checksum(b);
}

static int image_read(void *ctx, uint64_t offset, void *data, size_t size)
{
    struct image *m = ctx;

    assert_true(size > 0 && offset <= m->size && size <= m->size - offset);
    memcpy(data, m->bytes + offset, size);
    m->reads++;
    return 0;
}

/* ---- what is done with it ---- */

typedef int use_fn(const struct index *x);

static int ignore_entry(void *ctx, const struct index_entry *e)
{
    assert_true(e->name_length > 0);
    return 0;
}

static int ignore_attribute(void *ctx, const char *name, size_t length, struct bytes value)
{
    assert_true(length > 0);
    return 0;
}

static int stat_of(const struct index *x, const char *path)
{
    struct index_inode i;
    return index_walk(x, path, &i);
}

static int use_stat_root(const struct index *x)
{
    return stat_of(x, "/");
}
static int use_stat_file(const struct index *x)
{
    return stat_of(x, "file");
}
static int use_stat_three(const struct index *x)
{
    return stat_of(x, "three");
}
static int use_stat_xattr(const struct index *x)
{
    return stat_of(x, "xattr");
}
static int use_stat_link(const struct index *x)
{
    return stat_of(x, "link");
}
static int use_stat_long(const struct index *x)
{
    return stat_of(x, "long");
}
static int use_stat_dir(const struct index *x)
{
    return stat_of(x, "dir");
}
static int use_stat_empty(const struct index *x)
{
    return stat_of(x, "empty");
}

static int map_at(const struct index *x, const char *path, uint64_t offset)
{
    struct index_extent e;
    struct index_inode i;
    int r = index_walk(x, path, &i);
    return r < 0 ? r : index_map(x, &i, offset, &e);
}

static int use_map_file(const struct index *x)
{
    return map_at(x, "file", 0);
}
static int use_map_hole(const struct index *x)
{
    return map_at(x, "three", UINT64_C(8) << 20);
}
static int use_map_end(const struct index *x)
{
    return map_at(x, "three", THREE_SIZE - 1);
}

static int target_of(const struct index *x, const char *path)
{
    char target[INDEX_TARGET_MAX + 1];
    struct index_inode i;
    int r = index_walk(x, path, &i);
    return r < 0 ? r : index_readlink(x, &i, target);
}

static int use_target(const struct index *x)
{
    return target_of(x, "link");
}
static int use_long_target(const struct index *x)
{
    return target_of(x, "long");
}

static int list_of(const struct index *x, const char *path)
{
    struct index_inode i;
    int r = index_walk(x, path, &i);
    return r < 0 ? r : index_readdir(x, &i, 0, ignore_entry, NULL);
}

static int use_list_root(const struct index *x)
{
    struct index_inode i;
    int r = index_inode(x, INDEX_ROOT_NID, &i);
    return r < 0 ? r : index_readdir(x, &i, 0, ignore_entry, NULL);
}
static int use_list_dir(const struct index *x)
{
    return list_of(x, "dir");
}

static int use_attributes(const struct index *x)
{
    struct index_inode i;
    int r = index_walk(x, "xattr", &i);
    return r < 0 ? r : index_xattrs(x, &i, ignore_attribute, NULL);
}

static use_fn *const all_uses[] = {
    use_stat_root, use_stat_file,  use_stat_three, use_stat_xattr,  use_stat_link, use_stat_long,
    use_stat_dir,  use_stat_empty, use_map_file,   use_map_hole,    use_map_end,   use_target,
    use_list_root, use_list_dir,   use_attributes, use_long_target,
};

#endif
