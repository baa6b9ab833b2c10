/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The reader of indexes against hostile images.
 *
 * Every field of a good image (index-image.h) is poked, one at a time, and each time it is asked
 * who notices: opening, following, or the check of the whole image. The superblock's checksum is
 * put right after each poke: whoever is hostile can do that too.
 */
#include "index-image.h"

#include <inttypes.h>

/* ---- pokes ---- */

struct poke {
    const char *what;
    uint32_t at;
    uint8_t size; /* 1, 2, 4 or 8 */
    uint64_t value;
    int open;    /* what index_open() gives */
    use_fn *use; /* what notices it, if opening does not; NULL: only the check does */
};

#define UNSUPPORTED (-EPROTONOSUPPORT)
#define BROKEN      (-EPROTO)

static const struct poke pokes[] = {
    /* superblock */
    {"byte 0 not zero", 0, 1, 1, BROKEN, NULL},
    {"byte 1023 not zero", 1023, 1, 1, BROKEN, NULL},
    {"magic", SB, 4, 0xE0F5E1E3u, BROKEN, NULL},
    {"no checksum", SB + 8, 4, 2, UNSUPPORTED, NULL},
    {"no mtime", SB + 8, 4, 1, UNSUPPORTED, NULL},
    {"xattr filter", SB + 8, 4, 7, UNSUPPORTED, NULL},
    {"block size 4096", SB + 12, 1, 12, UNSUPPORTED, NULL},
    {"block size 256", SB + 12, 1, 8, UNSUPPORTED, NULL},
    {"block size 2^255", SB + 12, 1, 255, UNSUPPORTED, NULL},
    {"extension slots", SB + 13, 1, 1, BROKEN, NULL},
    {"root nid 0", SB + 14, 2, 0, BROKEN, NULL},
    {"root nid 2", SB + 14, 2, 2, BROKEN, NULL},
    {"no inodes", SB + 16, 8, 0, BROKEN, NULL},
    {"more inodes than bytes", SB + 16, 8, UINT64_MAX, BROKEN, NULL},
    {"fewer inodes than there are", SB + 16, 8, 9, 0, NULL},
    {"more inodes than there are", SB + 16, 8, 11, 0, NULL},
    {"epoch", SB + 24, 8, 1, BROKEN, NULL},
    {"fixed_nsec", SB + 32, 4, 1, BROKEN, NULL},
    {"blocks", SB + 36, 4, IMAGE / 512 + 1, BROKEN, NULL},
    {"meta_blkaddr 0", SB + 40, 4, 0, BROKEN, NULL},
    {"meta_blkaddr + 1", SB + 40, 4, META / 512 + 1, BROKEN, NULL},
    {"xattr_blkaddr", SB + 44, 4, 3, BROKEN, NULL},
    {"volume name", SB + 64, 1, 'v', BROKEN, NULL},
    {"no chunked files", SB + 80, 4, 8, UNSUPPORTED, NULL},
    {"no device table", SB + 80, 4, 4, UNSUPPORTED, NULL},
    {"compression", SB + 80, 4, 0xD, UNSUPPORTED, NULL},
    {"48 bits, the root not moved", SB + 80, 4, 0x8C, BROKEN, NULL},
    {"unknown incompat bit", SB + 80, 4, 0x8000000Cu, UNSUPPORTED, NULL},
    {"compression algorithms", SB + 84, 2, 1, BROKEN, NULL},
    {"no devices", SB + 86, 2, 0, BROKEN, NULL},
    {"one device", SB + 86, 2, 1, BROKEN, NULL},
    {"device table beyond the image", SB + 86, 2, 100, BROKEN, NULL},
    {"too many devices", SB + 86, 2, 65535, BROKEN, NULL},
    {"devt_slotoff", SB + 88, 2, 10, BROKEN, NULL},
    {"dirblkbits", SB + 90, 1, 1, BROKEN, NULL},
    {"xattr prefixes", SB + 91, 1, 1, BROKEN, NULL},
    {"packed nid", SB + 96, 8, 1, BROKEN, NULL},
    {"xattr filter seed", SB + 104, 1, 1, BROKEN, NULL},
    {"build time", SB + 108, 4, 1, BROKEN, NULL},
    {"wide root nid", SB + 112, 8, 1, BROKEN, NULL},
    {"reserved 120", SB + 120, 8, 1, BROKEN, NULL},
    /* device table */
    {"tag: upper case", SLOT1, 1, 'A', BROKEN, NULL},
    {"tag: not hex", SLOT1 + 63, 1, 'g', BROKEN, NULL},
    {"tag: NUL", SLOT2, 1, 0, BROKEN, NULL},
    {"device over the next", SLOT1 + 64, 4, DEVICE1_SIZE + 1, BROKEN, NULL},
    {"device start in the image", SLOT1 + 68, 4, 8, BROKEN, NULL},
    {"device start not aligned", SLOT1 + 68, 4, DEVICE1 + 1, BROKEN, NULL},
    {"devices in the wrong order", SLOT2 + 68, 4, 16, BROKEN, NULL},
    {"blocks, high", SLOT1 + 72, 2, 1, BROKEN, NULL},
    {"start, high", SLOT2 + 74, 2, 1, BROKEN, NULL},
    {"slot reserved", SLOT1 + 127, 1, 1, BROKEN, NULL},
    {"padding behind the table", META - 1, 1, 1, BROKEN, NULL},
    {"device shorter than its chunks", SLOT1 + 64, 4, DEVICE1_SIZE - 1, 0, use_map_file},
    /* the root */
    {"root is a file", ROOT + 4, 2, FILE_MODE, BROKEN, NULL},
    {"root: no type", ROOT + 4, 2, 0555, BROKEN, NULL},
    {"root: compact inode", ROOT, 2, 4, BROKEN, NULL},
    {"root: nlink", ROOT + 44, 4, 5, 0, NULL},
    {"root: size 0", ROOT + 8, 8, 0, BROKEN, NULL},
    {"root: only one entry fits", ROOT + 8, 8, 26, BROKEN, NULL},
    {"root: size + 1", ROOT + 8, 8, 186, 0, use_list_root},
    {"root: size - 1", ROOT + 8, 8, 184, 0, NULL},
    {"root: negative size", ROOT + 8, 8, UINT64_MAX, BROKEN, NULL},
    {"root: tail crosses the block", ROOT + 8, 8, 417, BROKEN, NULL},
    {"root: a first block though inline", ROOT + 16, 4, 8, BROKEN, NULL},
    /* inodes */
    {"format: compact", FILE1, 2, 8, 0, use_stat_file},
    {"format: compressed", FILE1, 2, 3, 0, use_stat_file},
    {"format: unknown bit", FILE1, 2, 0x19, 0, use_stat_file},
    {"format: layout 5", FILE1, 2, 11, 0, use_stat_file},
    {"file in the plain layout", FILE1, 2, FORMAT_PLAIN, 0, use_stat_file},
    {"file in the inline layout", FILE1, 2, FORMAT_INLINE, 0, use_stat_file},
    {"directory of chunks", MANY, 2, FORMAT_CHUNK, 0, use_stat_dir},
    {"symlink of chunks", LINK, 2, FORMAT_CHUNK, 0, use_stat_link},
    {"xattr count of a file without", FILE1 + 2, 2, 4, 0, use_map_file},
    {"xattr count: no entry", FILE1 + 2, 2, 1, 0, use_stat_file},
    {"xattr count: all there is", FILE1 + 2, 2, 65535, 0, use_stat_file},
    {"xattr count: one less", XATTR + 2, 2, 2, 0, use_attributes},
    {"mode: no type", FILE1 + 4, 2, 0444, 0, use_stat_file},
    {"mode: a device", FILE1 + 4, 2, S_IFBLK | 0444, 0, use_stat_file},
    {"mode: a fifo", FILE1 + 4, 2, S_IFIFO | 0444, 0, use_stat_file},
    {"mode: writable", FILE1 + 4, 2, S_IFREG | 0644, 0, use_stat_file},
    {"mode: set-uid", FILE1 + 4, 2, S_IFREG | 04555, 0, use_stat_file},
    {"mode: sticky", MANY + 4, 2, S_IFDIR | 01555, 0, use_stat_dir},
    {"mode: a symlink's", LINK + 4, 2, S_IFLNK | 0555, 0, use_stat_link},
    {"another type than the entry's", EMPTY + 4, 2, S_IFLNK | 0777, 0, use_stat_empty},
    {"reserved 6", FILE1 + 6, 2, 1, 0, use_stat_file},
    {"file size: other chunk bits", FILE1 + 8, 8, 1025, 0, use_stat_file},
    {"file size: beyond its indexes", THREE + 8, 8, UINT64_C(1) << 40, 0, use_stat_three},
    {"file size: one more chunk", THREE + 8, 8, (UINT64_C(3) << 23) + 1, 0, NULL},
    {"file size: 2^63", THREE + 8, 8, UINT64_C(1) << 63, 0, use_stat_three},
    {"file size: 2^63 - 1", THREE + 8, 8, INT64_MAX, 0, use_stat_three},
    {"chunk format: 4-byte addresses", FILE1 + 16, 4, 1, 0, use_stat_file},
    {"chunk format: 48 bits", FILE1 + 16, 4, 0x61, 0, use_stat_file},
    {"chunk format: unknown bit", FILE1 + 16, 4, 0x10021, 0, use_stat_file},
    {"chunk format: larger chunk", FILE1 + 16, 4, 0x22, 0, use_stat_file},
    {"chunk format: 2^40", FILE1 + 16, 4, 0x3f, 0, use_stat_file},
    {"chunk format of an empty file", EMPTY + 16, 4, 0, 0, use_stat_empty},
    {"leaf hint of a large file", THREE + 20, 4, 1, 0, use_stat_three},
    {"leaf hint of an empty file", EMPTY + 20, 4, 1, 0, use_stat_empty},
    {"leaf hint of a directory", MANY + 20, 4, 1, 0, use_stat_dir},
    {"uid", FILE1 + 24, 4, 1000, 0, use_stat_file},
    {"gid", FILE1 + 28, 4, 1, 0, use_stat_file},
    {"nanoseconds", FILE1 + 40, 4, 1000000000, 0, use_stat_file},
    {"nlink 0", FILE1 + 44, 4, 0, 0, use_stat_file},
    {"nlink 1 of six", FILE1 + 44, 4, 1, 0, NULL},
    {"nlink 5 of six", FILE1 + 44, 4, 5, 0, NULL},
    {"nlink 7 of six", FILE1 + 44, 4, 7, 0, NULL},
    {"nlink 2 of one", EMPTY + 44, 4, 2, 0, NULL},
    {"directory's nlink 1", MANY + 44, 4, 1, 0, use_stat_dir},
    {"directory's nlink 3", MANY + 44, 4, 3, 0, NULL},
    {"reserved 48", FILE1 + 56, 8, UINT64_C(1) << 63, 0, use_stat_file},
    {"padding behind a file", FILE1 + 72, 1, 1, 0, NULL},
    {"padding behind a symlink", LINK + 64 + 12, 1, 1, 0, NULL},
    {"bytes of nobody", ROOT_ENTRIES + 250, 1, 1, 0, NULL},
    /* chunks */
    {"chunk: block, high", FILE1 + 64, 2, 1, 0, use_map_file},
    {"chunk: device 0", FILE1 + 66, 2, 0, 0, use_map_file},
    {"chunk: device 3", FILE1 + 66, 2, 3, 0, use_map_file},
    {"chunk: device 65535", FILE1 + 66, 2, 65535, 0, use_map_file},
    {"chunk: ends behind its device", FILE1 + 68, 4, DEVICE1_SIZE - 1, 0, use_map_file},
    {"chunk: starts behind its device", FILE1 + 68, 4, UINT32_MAX - 1, 0, use_map_file},
    {"chunk: in a smaller device", FILE1 + 66, 2, 2, 0, use_map_file},
    {"hole with a device", THREE + 74, 2, 1, 0, use_map_hole},
    {"hole with high bits", THREE + 72, 2, 0xFFFF, 0, use_map_hole},
    {"last chunk behind its device", THREE + 84, 4, DEVICE2_SIZE, 0, use_map_end},
    /* symlinks */
    {"symlink: size 0", LINK + 8, 8, 0, 0, use_stat_link},
    {"symlink: size 4096", LONG + 8, 8, 4096, 0, use_stat_long},
    {"symlink: 4095 bytes, which are not there", LONG + 8, 8, 4095, 0, use_stat_long},
    {"symlink: negative size", LINK + 8, 8, UINT64_MAX, 0, use_stat_link},
    {"symlink: tail crosses the block", LINK + 8, 8, 2560 - LINK - 64 + 1, 0, use_stat_link},
    {"symlink: one byte more", LINK + 8, 8, 5, 0, use_target},
    {"symlink: one byte less", LINK + 8, 8, 3, 0, NULL},
    {"symlink: NUL inside", LINK + 65, 1, 0, 0, use_target},
    {"long symlink: NUL inside", LONG_BLOCKS + 511, 1, 0, 0, use_long_target},
    {"long symlink: block 0", LONG + 16, 4, 0, 0, use_stat_long},
    {"long symlink: last block", LONG + 16, 4, IMAGE / 512 - 1, 0, use_stat_long},
    {"long symlink: block 2^32 - 1", LONG + 16, 4, UINT32_MAX, 0, use_stat_long},
    {"long symlink: a directory's block", LONG + 16, 4, MANY_BLOCKS / 512, 0, use_long_target},
    {"long symlink: padding", IMAGE - 1, 1, 1, 0, NULL},
    /* attributes */
    {"attributes: name filter", XATTR + 64, 4, 1, 0, use_attributes},
    {"attributes: shared", XATTR + 68, 1, 1, 0, use_attributes},
    {"attributes: reserved", XATTR + 75, 1, 1, 0, use_attributes},
    {"attributes: no name", XATTR + 76, 1, 0, 0, use_attributes},
    {"attributes: long name", XATTR + 76, 1, 255, 0, use_attributes},
    {"attributes: trusted.", XATTR + 77, 1, 4, 0, use_attributes},
    {"attributes: long prefix", XATTR + 77, 1, 0x80, 0, use_attributes},
    {"attributes: long value", XATTR + 78, 2, 4, 0, use_attributes},
    {"attributes: value of 65535", XATTR + 78, 2, 65535, 0, use_attributes},
    {"attributes: NUL in the name", XATTR + 80, 1, 0, 0, use_attributes},
    {"attributes: padding of the value", XATTR + 78, 2, 2, 0, use_attributes},
    {"attributes: gap before the chunk", XATTR + 84, 1, 1, 0, NULL},
    /* directories */
    {"entry: nid 0", ROOT_ENTRY(5), 8, 0, 0, use_stat_file},
    {"entry: nid behind the image", ROOT_ENTRY(5), 8, NID(IMAGE), 0, use_stat_file},
    {"entry: nid at the last byte", ROOT_ENTRY(5), 8, NID(IMAGE) - 1, 0, use_stat_file},
    {"entry: nid wraps round", ROOT_ENTRY(5), 8, UINT64_C(1) << 59 | NID(FILE1), 0, use_stat_file},
    {"entry: nid in an inode", ROOT_ENTRY(5), 8, NID(FILE1) + 1, 0, use_stat_file},
    {"entry: nid of another file", ROOT_ENTRY(4), 8, NID(DASH), 0, NULL},
    {"entry: name offset 0", ROOT_ENTRY(0) + 8, 2, 0, 0, use_list_root},
    {"entry: name offset 12", ROOT_ENTRY(0) + 8, 2, 12, 0, use_list_root},
    {"entry: name offset no multiple", ROOT_ENTRY(0) + 8, 2, 145, 0, use_list_root},
    {"entry: name offset 65532", ROOT_ENTRY(0) + 8, 2, 65532, 0, use_list_root},
    {"entry: all of it entries", ROOT_ENTRY(0) + 8, 2, 180, 0, use_list_root},
    {"entry: second offset below the first", ROOT_ENTRY(1) + 8, 2, 144, 0, use_list_root},
    {"entry: offset behind the block", ROOT_ENTRY(3) + 8, 2, 600, 0, use_list_root},
    {"entry: empty name", ROOT_ENTRY(4) + 8, 2, 148, 0, use_list_root},
    {"entry: a longer name", ROOT_ENTRY(5) + 8, 2, 158, 0, NULL},
    {"entry: type 0", ROOT_ENTRY(5) + 10, 1, 0, 0, use_list_root},
    {"entry: type device", ROOT_ENTRY(5) + 10, 1, 3, 0, use_list_root},
    {"entry: type directory", ROOT_ENTRY(5) + 10, 1, 2, 0, NULL},
    {"entry: reserved", ROOT_ENTRY(5) + 11, 1, 1, 0, use_list_root},
    {"name with a slash", ROOT_NAMES + 5, 1, '/', 0, use_list_root},
    {"name with a NUL", ROOT_NAMES + 5, 1, 0, 0, use_list_root},
    {"names in the wrong order", ROOT_NAMES, 1, 'z', 0, use_list_root},
    {"the same name twice", ROOT_NAMES, 1, '.', 0, use_list_root},
    {"\".\" is another", ROOT_ENTRY(1), 8, NID(MANY), 0, NULL},
    {"\"..\" is another", ROOT_ENTRY(2), 8, NID(MANY), 0, NULL},
    {"\"..\" is a file", ROOT_ENTRY(2) + 10, 1, 1, 0, NULL},
    {"sub: \"..\" is the directory itself", SUB_ENTRIES + 12, 8, NID(SUB), 0, NULL},
    {"sub: no \".\"", SUB_ENTRIES + 36, 1, '!', 0, NULL},
    {"sub: no \"..\"", SUB_ENTRIES + 38, 1, '!', 0, NULL},
    {"sub: names itself", SUB_ENTRIES + 24, 8, NID(SUB), 0, NULL},
    {"dir is sub", ROOT_ENTRY(3), 8, NID(SUB), 0, NULL},
    {"directory: blocks in the table", MANY + 16, 4, 2, 0, use_stat_dir},
    {"directory: blocks behind the image", MANY + 16, 4, IMAGE / 512 - 2, 0, use_stat_dir},
    {"directory: block 2^32 - 1", MANY + 16, 4, UINT32_MAX, 0, use_stat_dir},
    {"directory: blocks among inodes", MANY + 16, 4, MANY / 512, 0, use_list_dir},
    {"directory: size 2^40", MANY + 8, 8, UINT64_C(1) << 40, 0, use_stat_dir},
    {"directory: size up to the image's end", MANY + 8, 8, IMAGE - MANY_BLOCKS, 0, use_list_dir},
    {"directory: one block less", MANY + 8, 8, 1024, 0, use_list_dir},
    {"directory: order across blocks", MANY_BLOCKS + 512 + 12, 1, '0', 0, use_list_dir},
    {"directory: padding behind the names", MANY_BLOCKS + 511, 1, 1, 0, use_list_dir},
    {"directory: a second NUL-ended name", MANY_BLOCKS + 300, 1, 'x', 0, use_list_dir},
    {"directory: padding of the last block", MANY_BLOCKS + MANY_SIZE, 1, 1, 0, NULL},
};
#define POKES (sizeof pokes / sizeof *pokes)

static void apply(struct image *m, const struct poke *p)
{
    uint8_t value[8];

    image_init(m);
    le64_put(value, p->value);
    assert_true(memcmp(m->bytes + p->at, value, p->size) != 0);
    memcpy(m->bytes + p->at, value, p->size);
    put_checksum(m->bytes);
}

static void expect_poke(const struct poke *p)
{
    AUTO(index_close) struct index *x = NULL;
    struct err err = ERR_INIT;
    struct image m;
    int r;

    apply(&m, p);
    r = index_open(image_read, &m, m.size, &x, &err);
    if (r != p->open)
        fail_msg("%s: index_open gave %d (%s)", p->what, r, err.text);
    if (r < 0) {
        assert_null(x);
        assert_true(err.text[0]);
        return;
    }
    if (p->use && (r = p->use(x)) != -EPROTO)
        fail_msg("%s: following it gave %d", p->what, r);
    for (size_t i = 0; i < sizeof all_uses / sizeof *all_uses; i++) {
        r = all_uses[i](x);
        if (r != 0 && r != -EPROTO && r != -EINVAL && r != -ENOTDIR && r != -ENOENT)
            fail_msg("%s: use %zu gave %d", p->what, i, r);
    }
    r = index_check(x, NULL, &err);
    if (r != -EPROTO || !err.text[0])
        fail_msg("%s: index_check gave %d (%s)", p->what, r, err.text);
}

static void every_field_is_looked_at(void **state)
{
    for (size_t i = 0; i < POKES; i++)
        expect_poke(&pokes[i]);
    print_message("%zu pokes\n", POKES);
}

/* ---- the image as it is ---- */

static void the_image_is_good(void **state)
{
    AUTO(index_close) struct index *x = NULL;
    struct index_counts counts;
    struct index_inode i;
    struct index_extent e;
    struct err err = ERR_INIT;
    struct image m;

    image_init(&m);
    assert_int_equal(index_open(image_read, &m, m.size, &x, &err), 0);
    for (size_t u = 0; u < sizeof all_uses / sizeof *all_uses; u++)
        assert_int_equal(all_uses[u](x), 0);
    assert_int_equal(index_check(x, &counts, &err), 0);
    assert_int_equal(counts.files, 5);
    assert_int_equal(counts.directories, 3);
    assert_int_equal(counts.symlinks, 2);
    assert_int_equal(counts.size_bytes, 1000 + THREE_SIZE + 100 + 1);
    assert_string_equal(err.text, "");

    assert_int_equal(index_device_count(x), 2);
    assert_int_equal(index_device_blocks(x, 1), DEVICE1_SIZE);
    assert_int_equal(index_device_start(x, 2), (DEVICE1 + DEVICE1_SIZE) * 512);
    assert_int_equal(index_flat_size(x), (DEVICE1 + DEVICE1_SIZE + DEVICE2_SIZE) * 512);
    assert_int_equal(index_device_digest(x, 1).byte[31], 0xaa);
    assert_int_equal(index_inode_count(x), 10);

    assert_int_equal(index_walk(x, "//sub/./../dir/../file/", &i), 0);
    assert_int_equal(i.nid, NID(FILE1));
    assert_int_equal(i.mode, 0444);
    assert_int_equal(i.nlink, 6);
    assert_int_equal(i.mtime_s, -5);
    assert_int_equal(i.mtime_ns, 999999999);
    assert_int_equal(i.leaf_hint, 7);
    assert_int_equal(index_map(x, &i, 999, &e), 0);
    assert_int_equal(e.device, 1);
    assert_int_equal(e.block, DEVICE1_SIZE - 2);
    assert_int_equal(e.chunk_offset, 0);
    assert_int_equal(e.chunk_size, 1000);
    assert_int_equal(index_walk(x, "three", &i), 0);
    assert_int_equal(index_map(x, &i, (UINT64_C(8) << 20) + 1, &e), 0);
    assert_int_equal(e.device, 0);
    assert_int_equal(e.chunk_offset, UINT64_C(8) << 20);
    assert_int_equal(e.chunk_size, UINT64_C(8) << 20);
    assert_int_equal(index_map(x, &i, THREE_SIZE - 1, &e), 0);
    assert_int_equal(e.device, 2);
    assert_int_equal(e.block, DEVICE2_SIZE - 1);
    assert_int_equal(e.chunk_size, 5);
}

static void wrong_uses_are_refused(void **state)
{
    AUTO(index_close) struct index *x = NULL;
    char target[INDEX_TARGET_MAX + 1], name[256];
    struct index_inode file, root;
    struct index_extent e;
    struct image m;
    uint64_t nid;

    image_init(&m);
    memset(name, 'n', sizeof name);
    assert_int_equal(index_open(image_read, &m, m.size, &x, NULL), 0);
    assert_int_equal(index_walk(x, "", &root), 0);
    assert_int_equal(root.nid, INDEX_ROOT_NID);
    assert_int_equal(index_walk(x, "file", &file), 0);
    assert_int_equal(index_walk(x, "file/a", &file), -ENOTDIR);
    assert_int_equal(index_walk(x, "fil", &file), -ENOENT);
    assert_int_equal(index_walk(x, "sub/nothing/file", &file), -ENOENT);
    assert_int_equal(index_lookup(x, &file, ".", 1, &nid), -ENOTDIR);
    assert_int_equal(index_lookup(x, &root, "", 0, &nid), -ENOENT);
    assert_int_equal(index_lookup(x, &root, "fi/le", 5, &nid), -ENOENT);
    assert_int_equal(index_lookup(x, &root, name, 255, &nid), -ENOENT);
    assert_int_equal(index_lookup(x, &root, name, 256, &nid), -ENAMETOOLONG);
    assert_int_equal(index_readdir(x, &file, 0, ignore_entry, NULL), -ENOTDIR);
    assert_int_equal(index_readlink(x, &file, target), -EINVAL);
    assert_int_equal(index_map(x, &file, 1000, &e), -EINVAL);
    assert_int_equal(index_map(x, &root, 0, &e), -EINVAL);
    assert_int_equal(index_inode(x, 0, &file), -EPROTO);
    assert_int_equal(index_inode(x, UINT64_MAX, &file), -EPROTO);
    /* Cookies come from whoever called seekdir(): any number will do. */
    assert_int_equal(index_readdir(x, &root, UINT64_MAX, ignore_entry, NULL), 0);
    assert_int_equal(index_readdir(x, &root, 65535, ignore_entry, NULL), 0);
    assert_int_equal(index_readdir(x, &root, 1 << 16, ignore_entry, NULL), 0);
}

static int open_result(struct image *m, struct err *err)
{
    AUTO(index_close) struct index *x = NULL;

    err_clear(err);
    return index_open(image_read, m, m->size, &x, err);
}

static void the_checksum_is_compared(void **state)
{
    struct err err = ERR_INIT;
    struct image m;

    image_init(&m);
    m.bytes[SB + 4] ^= 1;
    assert_int_equal(open_result(&m, &err), -EPROTO);
    assert_non_null(strstr(err.text, "checksum"));
    image_init(&m);
    m.bytes[SB + 48] ^= 1; /* the uuid may be anything, but it is covered */
    assert_int_equal(open_result(&m, &err), -EPROTO);
    put_checksum(m.bytes);
    assert_int_equal(open_result(&m, &err), 0);
}

static void the_size_must_be_right(void **state)
{
    static const uint64_t sizes[] = {
        0,    1,           512,  1024,        1535,      1536,       2048,
        5120, IMAGE - 512, 5631, IMAGE + 512, INT64_MAX, UINT64_MAX, UINT64_C(1) << 38};
    struct err err = ERR_INIT;
    struct image m;

    image_init(&m);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        m.size = sizes[i] <= IMAGE ? sizes[i] : IMAGE; /* nothing beyond the bytes may be read */
        AUTO(index_close) struct index *x = NULL;
        err_clear(&err);
        assert_int_equal(index_open(image_read, &m, sizes[i], &x, &err), -EPROTO);
        assert_true(err.text[0]);
    }
}

static void a_wide_image_is_read(void **state)
{
    AUTO(index_close) struct index *x = NULL;
    struct err err = ERR_INIT;
    struct image m;

    image_init(&m);
    le32_put(m.bytes + SB + 80, 0x8C);
    le16_put(m.bytes + SB + 14, 0);
    le64_put(m.bytes + SB + 112, 1);
    le16_put(m.bytes + SLOT2 + 74, 0xFFFF);
    put_checksum(m.bytes);
    assert_int_equal(index_open(image_read, &m, m.size, &x, &err), 0);
    assert_int_equal(index_device_start(x, 2),
                     (UINT64_C(0xFFFF) << 32 | (DEVICE1 + DEVICE1_SIZE)) * 512);
    assert_int_equal(index_flat_size(x), index_device_start(x, 2) + DEVICE2_SIZE * 512);
    assert_int_equal(index_check(x, NULL, &err), 0);
    le16_put(m.bytes + SB + 14, 1); /* bits 32 to 47 of the number of blocks, now */
    put_checksum(m.bytes);
    assert_int_equal(open_result(&m, &err), -EPROTO);
}

/* "xattr" becomes an empty file whose attribute's value holds the inode of "empty", which is a good
 * inode and a good value: each for itself is right. */
static void hide_inode_in_attribute(struct image *m)
{
    image_init(m);
    put_inode(m->bytes + XATTR, FORMAT_CHUNK, FILE_MODE, 0, 0x20, 1);
    le16_put(m->bytes + XATTR + 2, 1 + (EMPTY + 64 - XATTR - 64 - 12) / 4);
    le16_put(m->bytes + XATTR + 78, EMPTY + 64 - XATTR - 81);
}

static void expect_refusal(struct image *m, const char *sentence)
{
    AUTO(index_close) struct index *x = NULL;
    struct err err = ERR_INIT;

    put_checksum(m->bytes);
    assert_int_equal(index_open(image_read, m, m->size, &x, &err), 0);
    assert_int_equal(use_attributes(x), 0);
    assert_int_equal(index_check(x, NULL, &err), -EPROTO);
    if (!strstr(err.text, sentence))
        fail_msg("index_check said: %s", err.text);
}

static void overlaps_are_found(void **state)
{
    struct image m;

    hide_inode_in_attribute(&m);
    expect_refusal(&m, "overlaps another");

    /* The attribute's owner is reached first, by the name "empty"; then two names agree that what
     * lies in its value has two names. */
    hide_inode_in_attribute(&m);
    le32_put(m.bytes + XATTR + 44, 2);
    le32_put(m.bytes + EMPTY + 44, 2);
    le64_put(m.bytes + ROOT_ENTRY(4), NID(XATTR));
    le64_put(m.bytes + ROOT_ENTRY(5), NID(EMPTY));
    le64_put(m.bytes + ROOT_ENTRY(6), NID(EMPTY));
    le32_put(m.bytes + FILE1 + 44, 4);
    expect_refusal(&m, "overlaps another");

    /* Two directories with the same blocks. */
    image_init(&m);
    put_inode(m.bytes + EMPTY, FORMAT_PLAIN, DIR_MODE, MANY_SIZE, MANY_BLOCKS / 512, 2);
    m.bytes[ROOT_ENTRY(4) + 10] = 2;
    le32_put(m.bytes + ROOT + 44, 5);
    expect_refusal(&m, "belong to something else");

    /* A directory that is reached twice; the other way round "dir" would miss its name. */
    image_init(&m);
    le64_put(m.bytes + ROOT_ENTRY(9), NID(MANY));
    expect_refusal(&m, "reached twice");
}

/* ---- a medium that fails ---- */

struct failing {
    struct image image;
    unsigned fail_at; /* this read fails, from 1 */
    bool fired;
};

static int failing_read(void *ctx, uint64_t offset, void *data, size_t size)
{
    struct failing *f = ctx;

    if (f->image.reads + 1 == f->fail_at) {
        f->fired = true;
        return -EIO;
    }
    return image_read(&f->image, offset, data, size);
}

static int do_everything(struct failing *f, struct err *err)
{
    AUTO(index_close) struct index *x = NULL;
    int r = index_open(failing_read, f, f->image.size, &x, err);

    for (size_t i = 0; r == 0 && i < sizeof all_uses / sizeof *all_uses; i++) {
        r = all_uses[i](x);
        if (r < 0)
            (void)err_fail(err, r, "use %zu", i); /* uses have no sentence of their own */
    }
    return r < 0 ? r : index_check(x, NULL, err);
}

static void every_failed_read_is_reported(void **state)
{
    struct failing f = {.fail_at = 0};
    unsigned reads;

    image_init(&f.image);
    assert_int_equal(do_everything(&f, NULL), 0);
    reads = f.image.reads;
    assert_in_range(reads, 50, 1000);
    for (unsigned n = 1; n <= reads; n++) {
        struct err err = ERR_INIT;
        f.image.reads = 0;
        f.fail_at = n;
        f.fired = false;
        assert_int_equal(do_everything(&f, &err), -EIO);
        assert_true(f.fired);
        assert_true(err.text[0]);
    }
}

/* ---- many bytes at random ---- */

static uint64_t next_random(uint64_t *state)
{
    uint64_t z = (*state += 0x9E3779B97F4A7C15u);

    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return z ^ z >> 31;
}

#define MUTANTS 20000u

/* A mutant is refused, or followed without harm; what the check accepts is followed to the end. */
static void mutants_do_no_harm(void **state)
{
    unsigned opened = 0, accepted = 0;
    struct image m;

    for (uint64_t seed = 1; seed <= MUTANTS; seed++) {
        AUTO(index_close) struct index *x = NULL;
        uint64_t rng = seed;
        unsigned changes = 1 + (unsigned)(next_random(&rng) % 4);

        image_init(&m);
        for (unsigned i = 0; i < changes; i++) {
            uint64_t at = META + next_random(&rng) % (IMAGE - META), v = next_random(&rng);
            m.bytes[at] = v % 3 == 0   ? (uint8_t)(v >> 8)
                          : v % 3 == 1 ? m.bytes[at] ^ 1u << (v >> 8) % 8
                                       : m.bytes[v % IMAGE];
        }
        put_checksum(m.bytes);
        if (index_open(image_read, &m, m.size, &x, NULL) < 0)
            continue;
        opened++;
        bool good = index_check(x, NULL, NULL) == 0;
        accepted += good;
        for (size_t i = 0; i < sizeof all_uses / sizeof *all_uses; i++) {
            int r = all_uses[i](x);
            if (r == 0 || r == -ENOENT || r == -EINVAL || r == -ENOTDIR)
                continue;
            if (good || r != -EPROTO)
                fail_msg("seed %" PRIu64 ": use %zu gave %d", seed, i, r);
        }
    }
    assert_in_range(opened, MUTANTS / 2, MUTANTS - 1);
    assert_in_range(accepted, 1, opened - 1); /* another time or target is a good image too */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_image_is_good),        cmocka_unit_test(wrong_uses_are_refused),
        cmocka_unit_test(every_field_is_looked_at), cmocka_unit_test(the_checksum_is_compared),
        cmocka_unit_test(the_size_must_be_right),   cmocka_unit_test(a_wide_image_is_read),
        cmocka_unit_test(overlaps_are_found),       cmocka_unit_test(every_failed_read_is_reported),
        cmocka_unit_test(mutants_do_no_harm),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
