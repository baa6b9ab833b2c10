/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The writer of indexes: bytes at the places that docs/formats/index.md names, the order of units,
 * what is refused, and that equal content gives equal bytes. Whether the kernel agrees is asked in
 * tests/cases/index; golden images are in test-index-dump.c.
 */
#include "index/index.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "base/le.h"

#define IMAGE_MAX (512u << 20) /* the largest image that these tests make */

static int to_buf(void *ctx, const void *data, size_t size)
{
    return buf_append(ctx, data, size);
}

static int from_buf(void *ctx, uint64_t offset, void *data, size_t size)
{
    const struct buf *b = ctx;
    assert_true(offset <= b->size && size <= b->size - offset);
    memcpy(data, b->data + offset, size);
    return 0;
}

/* ---- trees -------------------------------------------------------------------------------------
 */

static struct tree_entry entry(const char *name, enum tree_type type)
{
    return (struct tree_entry){
        .name = name,
        .name_length = (uint8_t)strlen(name),
        .type = type,
        .mode = type == TREE_SYMLINK ? 0777 : 0555,
        .mtime_s = 1700000000,
    };
}

static struct tree_entry file(const char *name, uint64_t size)
{
    struct tree_entry e = entry(name, TREE_FILE);
    e.size = size;
    return e;
}

static struct tree_entry hard_link(const char *name, uint32_t to)
{
    struct tree_entry e = entry(name, TREE_HARDLINK);
    e.link = to;
    return e;
}

static uint32_t add(struct tree *t, uint32_t dir, const struct tree_entry *entries, size_t count)
{
    uint32_t first;
    assert_int_equal(tree_add_children(t, dir, entries, count, &first), 0);
    return first;
}

static void set_data(struct tree *t, uint32_t node, uint16_t pack, uint32_t block, uint32_t leaf)
{
    struct tree_node *n = tree_node(t, node);
    n->pack = pack;
    n->ref = block;
    n->leaf = leaf;
}

/* `count` files of no data, with names of eight bytes, or directories. */
static uint32_t add_many(struct tree *t, uint32_t dir, size_t count, enum tree_type type)
{
    struct tree_entry *entries = calloc(count, sizeof *entries);
    char(*names)[9] = calloc(count, sizeof *names);
    assert_non_null(entries);
    assert_non_null(names);
    for (size_t i = 0; i < count; i++) {
        (void)snprintf(names[i], sizeof names[i], "n%07zu", i);
        entries[i] = entry(names[i], type);
    }
    uint32_t first = add(t, dir, entries, count);
    free(entries);
    free(names);
    return first;
}

static struct tree *tree_of(const struct tree_entry *entries, size_t count)
{
    struct tree *t;
    assert_int_equal(tree_new(&t), 0);
    if (count > 0)
        (void)add(t, TREE_ROOT, entries, count); /* its number is 1 */
    return t;
}

/* ---- writing -----------------------------------------------------------------------------------
 */

static const struct index_device two_devices[2] = {
    {.digest = {{0x11}}, .blocks = 100},
    {.digest = {{0x22}}, .blocks = 20000},
};
/* Pack 0 is not in the tree, pack 1 is device 2, pack 2 is device 1. */
static const uint16_t device_of[3] = {0, 2, 1};

static int write_tree(struct tree *t, struct buf *image, struct index_summary *ret, struct err *err)
{
    buf_init(image, IMAGE_MAX);
    return index_write(t, two_devices, 2, device_of, 3, to_buf, image, ret, err);
}

static void write_good(struct tree *t, struct buf *image, struct index_summary *ret)
{
    struct err err = ERR_INIT;
    AUTO(index_close) struct index *x = NULL;
    struct index_counts counts;
    assert_int_equal(tree_seal(t), 0);
    int r = write_tree(t, image, ret, &err);
    if (r < 0)
        fail_msg("write: %s", err_text(&err, r));
    assert_int_equal(ret->size, image->size);
    assert_int_equal(ret->size % INDEX_BLOCK, 0);
    r = index_open(from_buf, image, image->size, &x, &err);
    if (r == 0)
        r = index_check(x, &counts, &err);
    if (r < 0)
        fail_msg("check: %s", err_text(&err, r));
    assert_int_equal(counts.files + counts.directories + counts.symlinks, ret->inodes);
}

/* ---- bytes -------------------------------------------------------------------------------------
 */

static void assert_bytes(const struct buf *image, size_t at, const char *want, size_t size)
{
    assert_true(at + size <= image->size);
    assert_memory_equal(image->data + at, want, size);
}

static void test_empty_tree(void **state)
{
    AUTO(tree_free) struct tree *t = tree_of(NULL, 0);
    AUTO(buf_release) struct buf image;
    struct index_summary s;
    tree_node(t, TREE_ROOT)->mtime_s = -2;
    tree_node(t, TREE_ROOT)->mtime_ns = 5;
    write_good(t, &image, &s);
    const uint8_t *sb = image.data + 1024;
    assert_int_equal(image.size, 2048);
    assert_int_equal(s.head, 2048);
    assert_int_equal(s.inodes, 1);
    assert_false(s.wide);
    assert_int_equal(le32_get(sb), 0xE0F5E1E2);
    assert_int_equal(le32_get(sb + 8), 3);
    assert_int_equal(sb[12], 9);
    assert_int_equal(le16_get(sb + 14), 1);
    assert_int_equal(le64_get(sb + 16), 1);
    assert_int_equal(le32_get(sb + 36), 4);
    assert_int_equal(le32_get(sb + 40), 3);
    assert_int_equal(le32_get(sb + 80), 0xC);
    assert_int_equal(le16_get(sb + 86), 2);
    assert_int_equal(le16_get(sb + 88), 9);
    assert_int_equal(le64_get(sb + 112), 0);
    /* The root, inline: format 5, mode, size 27, and "." and "..", both nid 1. */
    const uint8_t *root = image.data + 1536 + 32;
    assert_int_equal(le16_get(root), 5);
    assert_int_equal(le16_get(root + 2), 0);
    assert_int_equal(le16_get(root + 4), 040555);
    assert_int_equal(le64_get(root + 8), 27);
    assert_int_equal(le32_get(root + 16), 0);
    assert_int_equal((int64_t)le64_get(root + 32), -2);
    assert_int_equal(le32_get(root + 40), 5);
    assert_int_equal(le32_get(root + 44), 2);
    assert_bytes(&image, 1536 + 96,
                 "\1\0\0\0\0\0\0\0\x18\0\2\0"
                 "\1\0\0\0\0\0\0\0\x19\0\2\0"
                 "...\0\0\0\0\0",
                 32);
}

static uint32_t crc32c(const uint8_t *p, size_t size)
{
    uint32_t crc = 0xFFFFFFFF;
    for (size_t i = 0; i < size * 8; i++) {
        uint32_t bit = (crc ^ p[i / 8] >> i % 8) & 1;
        crc = crc >> 1 ^ (bit ? 0x82F63B78 : 0);
    }
    return crc;
}

static void test_checksum_and_uuid(void **state)
{
    /* The check value of CRC-32C, whose common form inverts at the end. */
    assert_int_equal(~crc32c((const uint8_t *)"123456789", 9), 0xE3069283);
    AUTO(tree_free) struct tree *t = tree_of(NULL, 0);
    AUTO(buf_release) struct buf image;
    struct index_summary s;
    write_good(t, &image, &s);
    uint8_t block[512];
    memcpy(block, image.data + 1024, sizeof block);
    memset(block + 4, 0, 4);
    assert_int_equal(le32_get(image.data + 1028), crc32c(block, sizeof block));
    struct digest d = digest_of(image.data + 1152, image.size - 1152);
    assert_memory_equal(image.data + 1024 + 48, d.byte, 16);
}

static void test_device_table(void **state)
{
    AUTO(tree_free) struct tree *t = tree_of(NULL, 0);
    AUTO(buf_release) struct buf image;
    struct index_summary s;
    write_good(t, &image, &s);
    const uint8_t *one = image.data + 1152, *two = one + 128;
    assert_memory_equal(one, "1100000000", 10);
    assert_memory_equal(two, "2200000000", 10);
    assert_int_equal(le32_get(one + 64), 100);
    assert_int_equal(le32_get(two + 64), 20000);
    /* 2048 bytes of image: the first start is 4096; 100 blocks end at 108, the next is 112. */
    assert_int_equal(le32_get(one + 68), 8);
    assert_int_equal(le32_get(two + 68), 112);
    for (size_t i = 72; i < 128; i++)
        assert_int_equal(one[i] | two[i], 0);
}

/* Where the inode of a path stands. */
static const uint8_t *inode_at(const struct buf *image, const char *path)
{
    AUTO(index_close) struct index *x = NULL;
    struct index_inode inode;
    assert_int_equal(index_open(from_buf, (void *)image, image->size, &x, NULL), 0);
    assert_int_equal(index_walk(x, path, &inode), 0);
    return image->data + inode.address;
}

static void test_files(void **state)
{
    const struct tree_entry entries[] = {
        file("empty", 0),      file("hole", 70000),    file("large", (8u << 20) + 1),
        file("max", 8u << 20), file("one-block", 512), file("over", 513),
    };
    AUTO(tree_free) struct tree *t = tree_of(entries, 6);
    AUTO(buf_release) struct buf image;
    struct index_summary s;
    uint32_t chunk;
    set_data(t, 2, TREE_PACK_HOLE, 0, 0);
    assert_int_equal(tree_add_chunks(t, 2, &chunk), 0);
    set_data(t, 3, TREE_PACK_MANY, chunk, 0);
    *tree_chunk(t, chunk) = (struct tree_chunk){.block = 7, .leaf = 3, .pack = 1};
    *tree_chunk(t, chunk + 1) = (struct tree_chunk){.pack = TREE_PACK_HOLE};
    set_data(t, 4, 1, 3616, 77);
    set_data(t, 5, 2, 99, 78);
    set_data(t, 6, 2, 98, 79);
    write_good(t, &image, &s);
    static const struct {
        const char *path;
        uint32_t format, hint;
        const char *indexes;
        size_t size;
    } want[] = {
        {"empty", 0x20, 0, "", 0},
        {"hole", 0x20 + 8, 0, "\0\0\0\0\xff\xff\xff\xff", 8},
        {"large", 0x20 + 14, 0, "\0\0\2\0\7\0\0\0\0\0\0\0\xff\xff\xff\xff", 16},
        {"max", 0x20 + 14, 77, "\0\0\2\0\x20\x0e\0\0", 8},
        {"one-block", 0x20, 78, "\0\0\1\0\x63\0\0\0", 8},
        {"over", 0x20 + 1, 79, "\0\0\1\0\x62\0\0\0", 8},
    };
    for (size_t i = 0; i < sizeof want / sizeof *want; i++) {
        const uint8_t *inode = inode_at(&image, want[i].path);
        assert_int_equal(le16_get(inode), 9);
        assert_int_equal(le16_get(inode + 4), 0100555);
        assert_int_equal(le64_get(inode + 8), entries[i].size);
        assert_int_equal(le32_get(inode + 16), want[i].format);
        assert_int_equal(le32_get(inode + 20), want[i].hint);
        assert_int_equal(le32_get(inode + 44), 1);
        assert_memory_equal(inode + 64, want[i].indexes, want[i].size);
    }
}

static void test_attributes(void **state)
{
    static const char list[] = "a\0\3\0xyz"
                               "bc\0\0\0";
    static const char want[] = "\0\0\0\0\0\0\0\0\0\0\0\0"
                               "\1\1\3\0axyz"
                               "\2\1\0\0bc\0\0"
                               "\0\0\0\0"
                               "\0\0\1\0\5\0\0";
    const struct tree_entry entries[] = {file("f", 1)};
    AUTO(tree_free) struct tree *t = tree_of(entries, 1);
    AUTO(buf_release) struct buf image;
    struct index_summary s;
    set_data(t, 1, 2, 5, 0);
    assert_int_equal(tree_set_xattrs(t, 1, bytes_of(list, sizeof list - 1)), 0);
    write_good(t, &image, &s);
    const uint8_t *inode = inode_at(&image, "f");
    assert_int_equal(le16_get(inode + 2), 1 + (8 + 8) / 4);
    assert_memory_equal(inode + 64, want, sizeof want);
}

/* "." and ".." stand among the names. */
static void test_order_of_dots(void **state)
{
    static const char *const names[] = {"!", "+", "-", ".!", "..!", "...", "..a", ".a", "0", "a"};
    static const char want[] = "!+-..!....!.....a.a0a"; /* ! + - . .! .. ..! ... ..a .a 0 a */
    struct tree_entry entries[10];
    for (size_t i = 0; i < 10; i++)
        entries[i] = entry(names[i], TREE_FILE);
    AUTO(tree_free) struct tree *t = tree_of(entries, 10);
    AUTO(buf_release) struct buf image;
    struct index_summary s;
    write_good(t, &image, &s);
    const uint8_t *root = inode_at(&image, "");
    assert_int_equal(le64_get(root + 8), 12 * 12 + sizeof want - 1);
    assert_memory_equal(root + 64 + 12 * 12, want, sizeof want - 1);
}

/* Targets stay in the inode's block up to 448 bytes, attributes counted; the root has 32 fewer. */
static void test_inline_limits(void **state)
{
    static const char list[] = "a\0\4\0wxyz"; /* 12 + 4 + 1 + 4 bytes: 24 with padding */
    static char target[INDEX_TARGET_MAX];
    memset(target, 't', sizeof target);
    static const struct {
        uint16_t length;
        bool xattr;
        uint16_t format;
    } cases[] = {{1, false, 5},  {448, false, 5}, {449, false, 1}, {4095, false, 1},
                 {424, true, 5}, {425, true, 1},  {513, true, 1}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct tree_entry e = entry("link", TREE_SYMLINK);
        e.target = target;
        e.target_length = cases[i].length;
        AUTO(tree_free) struct tree *t = tree_of(&e, 1);
        AUTO(buf_release) struct buf image;
        struct index_summary s;
        if (cases[i].xattr)
            assert_int_equal(tree_set_xattrs(t, 1, bytes_of(list, sizeof list - 1)), 0);
        write_good(t, &image, &s);
        const uint8_t *inode = inode_at(&image, "link");
        assert_int_equal(le16_get(inode), cases[i].format);
        assert_int_equal(le16_get(inode + 4), 0120777);
        assert_int_equal(le64_get(inode + 8), cases[i].length);
        const uint8_t *text = inode + 64 + (cases[i].xattr ? 24 : 0);
        if (cases[i].format == 1)
            text = image.data + 512 * (size_t)le32_get(inode + 16);
        assert_memory_equal(text, target, cases[i].length);
    }
}

static void test_root_inline_limit(void **state)
{
    char a[255], b[111];
    memset(a, 'a', sizeof a);
    memset(b, 'b', sizeof b);
    struct tree_entry entries[] = {entry("", TREE_FILE), entry("", TREE_FILE)};
    entries[0].name = a;
    entries[0].name_length = sizeof a;
    entries[1].name = b;
    for (uint8_t length = 110; length <= 111; length++) {
        entries[1].name_length = length;
        AUTO(tree_free) struct tree *t = tree_of(entries, 2);
        AUTO(buf_release) struct buf image;
        struct index_summary s;
        write_good(t, &image, &s);
        const uint8_t *root = inode_at(&image, "");
        assert_int_equal(root - image.data, 1536 + 32);
        assert_int_equal(le64_get(root + 8), 4 * 12 + 3 + 255 + length); /* 416 and 417 */
        assert_int_equal(le16_get(root), length == 110 ? 5 : 1);
    }
}

/* ---- the order of units ------------------------------------------------------------------------
 */

static uint64_t place_of(const struct buf *image, const char *path)
{
    return (uint64_t)(inode_at(image, path) - image->data);
}

/* "b" is too large for the head behind "a", so it is left for later, with all that is below it. */
static void test_head(void **state)
{
    const struct tree_entry entries[] = {entry("a", TREE_DIRECTORY), entry("b", TREE_DIRECTORY),
                                         entry("c", TREE_DIRECTORY)};
    const struct tree_entry below[] = {entry("d", TREE_DIRECTORY), file("e", 0)};
    const struct tree_entry leaf[] = {file("f", 0)};
    AUTO(tree_free) struct tree *t = tree_of(entries, 3);
    AUTO(buf_release) struct buf image;
    struct index_summary s;
    uint32_t a = add_many(t, 1, 7000, TREE_FILE);
    uint32_t b = add_many(t, 2, 7000, TREE_DIRECTORY);
    uint32_t c = add(t, 3, below, 2);
    uint32_t d = add(t, c, below, 2);
    (void)add(t, d, leaf, 1);
    (void)add(t, b, leaf, 1);
    assert_int_equal(a, 4);
    write_good(t, &image, &s);
    assert_true(s.head <= INDEX_HEAD_MAX);
    const uint64_t in_order[] = {
        place_of(&image, "a"),
        place_of(&image, "c"),
        place_of(&image, "a/n0000000"),
        place_of(&image, "a/n0006999"),
        place_of(&image, "c/d"),
        place_of(&image, "c/e"),
        place_of(&image, "c/d/d"),
        place_of(&image, "c/d/e"),
        s.head,
        place_of(&image, "b/n0000000"),
        place_of(&image, "b/n0006999"),
        place_of(&image, "b/n0000000/f"),
        place_of(&image, "c/d/d/f"),
    };
    for (size_t i = 1; i < sizeof in_order / sizeof *in_order; i++)
        assert_true(in_order[i - 1] < in_order[i]);
}

/* A root that alone exceeds the head is written all the same. */
static void test_large_root(void **state)
{
    AUTO(tree_free) struct tree *t = tree_of(NULL, 0);
    AUTO(buf_release) struct buf image;
    struct index_summary s;
    uint32_t first = add_many(t, TREE_ROOT, 20000, TREE_DIRECTORY);
    (void)add_many(t, first, 1, TREE_FILE);
    write_good(t, &image, &s);
    assert_true(s.head > INDEX_HEAD_MAX && s.head <= s.size);
    assert_true(place_of(&image, "n0000000/n0000000") >= s.head - INDEX_BLOCK);
}

static void test_million_entries(void **state)
{
    AUTO(tree_free) struct tree *t = tree_of(NULL, 0);
    AUTO(buf_release) struct buf image;
    struct index_summary s;
    (void)add_many(t, TREE_ROOT, 1000000, TREE_FILE);
    write_good(t, &image, &s);
    (void)place_of(&image, "n0000000");
    (void)place_of(&image, "n0999999");
    assert_int_equal(s.inodes, 1000001);
}

static void test_size_of_an_index(void **state)
{
    AUTO(tree_free) struct tree *t = tree_of(NULL, 0);
    AUTO(buf_release) struct buf image;
    struct index_summary s;
    uint32_t first = add_many(t, TREE_ROOT, 20, TREE_DIRECTORY);
    for (uint32_t d = first; d < first + 20; d++) {
        uint32_t node = add_many(t, d, 1000, TREE_FILE);
        for (uint32_t i = 0; i < 1000; i++) {
            tree_node(t, node + i)->size = 1;
            set_data(t, node + i, 2, 0, 0);
        }
    }
    write_good(t, &image, &s);
    assert_true(s.size <= 20000 * (130 + 8));
}

/* ---- equal content, equal bytes ----------------------------------------------------------------
 */

/* The same tree, its directories filled in another order, its packs numbered otherwise, and with
 * another name of each inode in the role of the link. */
static struct tree *equal_tree(bool other)
{
    const struct tree_entry entries[] = {entry("a", TREE_DIRECTORY), entry("b", TREE_DIRECTORY)};
    struct tree *t = tree_of(entries, 2);
    uint32_t order[2] = {1, 2}, node[2];
    for (int i = 0; i < 2; i++) {
        bool links = (i == 1);
        uint32_t dir = order[other ? 1 - i : i];
        struct tree_entry e = links ? hard_link("x", node[0]) : file("x", 3);
        node[i] = add(t, dir, &e, 1);
        if (!links) {
            set_data(t, node[i], other ? 0 : 1, 17, 4);
            assert_int_equal(tree_set_xattrs(t, node[i], bytes_of("k\0\0", 4)), 0);
        }
    }
    assert_int_equal(tree_seal(t), 0);
    return t;
}

static void test_equal_trees(void **state)
{
    static const uint16_t other_devices[1] = {2};
    AUTO(tree_free) struct tree *one = equal_tree(false), *two = equal_tree(true);
    AUTO(buf_release) struct buf image1, image2 = BUF_INIT(IMAGE_MAX);
    struct index_summary s;
    assert_int_equal(write_tree(one, &image1, &s, NULL), 0);
    assert_int_equal(index_write(two, two_devices, 2, other_devices, 1, to_buf, &image2, &s, NULL),
                     0);
    assert_int_equal(image1.size, image2.size);
    assert_memory_equal(image1.data, image2.data, image1.size);
    /* Writing changes nothing that the next writing would see. */
    buf_release(&image2);
    assert_int_equal(write_tree(one, &image2, &s, NULL), 0);
    assert_int_equal(image1.size, image2.size);
    assert_memory_equal(image1.data, image2.data, image1.size);
}

/* ---- what is refused ---------------------------------------------------------------------------
 */

static int write_file_with(uint64_t size, uint16_t pack, uint32_t block, struct err *err)
{
    const struct tree_entry dir = entry("d", TREE_DIRECTORY), f = file("f", size);
    AUTO(tree_free) struct tree *t = tree_of(&dir, 1);
    AUTO(buf_release) struct buf image;
    struct index_summary s;
    set_data(t, add(t, 1, &f, 1), pack, block, 0);
    assert_int_equal(tree_seal(t), 0);
    int r = write_tree(t, &image, &s, err);
    assert_true(r == 0 || image.size == 0);
    return r;
}

static void test_bad_data(void **state)
{
    static const struct {
        uint64_t size;
        uint16_t pack;
        uint32_t block;
        const char *sentence; /* NULL: taken */
    } cases[] = {
        {1, 2, 99, NULL},
        {513, 2, 98, NULL},
        {1, 2, 100, "d/f: its data is beyond the end of its pack"},
        {513, 2, 99, "d/f: its data is beyond the end of its pack"},
        {1, 2, UINT32_MAX, "d/f: its data is beyond the end of its pack"},
        {8u << 20, 1, 3616, NULL},
        {8u << 20, 1, 3617, "d/f: its data is beyond the end of its pack"},
        {1, 0, 0, "d/f: its data is in a pack that this version does not have"},
        {1, 3, 0, "d/f: its data is in a pack that this version does not have"},
        {1, TREE_PACK_NONE, 0, "d/f: it has no data"},
        {1, TREE_PACK_MANY, 0, "d/f: it has no data"},
        {(8u << 20) + 1, 1, 0, "d/f: it has no data"},
        {(8u << 20) + 1, TREE_PACK_HOLE, 0, "d/f: it has no data"},
        {UINT64_C(1) << 63, 1, 0, "the index would be larger"},
        {0, TREE_PACK_NONE, 0, NULL},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct err err = ERR_INIT;
        int r = write_file_with(cases[i].size, cases[i].pack, cases[i].block, &err);
        if ((r == 0) != !cases[i].sentence ||
            (r < 0 && strncmp(err.text, cases[i].sentence, strlen(cases[i].sentence)) != 0))
            fail_msg("case %zu: %d \"%s\"", i, r, err.text);
    }
}

static void test_too_many_devices(void **state)
{
    size_t count = INDEX_DEVICES_MAX;
    AUTO(free_ptr) struct index_device *devices = calloc(count + 1, sizeof *devices);
    AUTO(tree_free) struct tree *t = tree_of(NULL, 0);
    AUTO(buf_release) struct buf image = BUF_INIT(IMAGE_MAX);
    struct index_summary s;
    struct err err = ERR_INIT;
    assert_non_null(devices);
    assert_int_equal(tree_seal(t), 0);
    int r = index_write(t, devices, count + 1, NULL, 0, to_buf, &image, &s, &err);
    assert_int_equal(r, -EINVAL);
    assert_string_equal(err.text, "the version would need 60001 packs, more than 60000");
    assert_int_equal(image.size, 0);
    for (size_t i = 0; i < count; i++)
        devices[i].blocks = i % 20;
    r = index_write(t, devices, count, NULL, 0, to_buf, &image, &s, &err);
    assert_int_equal(r, 0);
    AUTO(index_close) struct index *x = NULL;
    assert_int_equal(index_open(from_buf, &image, image.size, &x, NULL), 0);
    assert_int_equal(index_device_count(x), count);
    assert_int_equal(index_device_blocks(x, 60000), 59999 % 20);
}

/* The 48-bit layout, exactly when the last device ends beyond 2^32 - 1 blocks. */
static void test_wide(void **state)
{
    AUTO(tree_free) struct tree *t = tree_of(NULL, 0);
    assert_int_equal(tree_seal(t), 0);
    /* An image of 2048 bytes: the first device starts at block 8. */
    for (uint64_t more = 0; more <= 1; more++) {
        struct index_device devices[2] = {{.blocks = UINT32_MAX - 15}, {.blocks = 7 + more}};
        AUTO(buf_release) struct buf image = BUF_INIT(IMAGE_MAX);
        AUTO(index_close) struct index *x = NULL;
        struct index_summary s;
        int r = index_write(t, devices, 2, NULL, 0, to_buf, &image, &s, NULL);
        assert_int_equal(r, 0);
        const uint8_t *sb = image.data + 1024;
        assert_int_equal(s.wide, more);
        assert_int_equal(le32_get(sb + 80), more ? 0x8C : 0xC);
        assert_int_equal(le16_get(sb + 14), !more);
        assert_int_equal(le64_get(sb + 112), more);
        assert_int_equal(index_open(from_buf, &image, image.size, &x, NULL), 0);
        assert_int_equal(index_device_start(x, 2), (UINT64_C(0x100000000) - 8) * 512);
    }
    struct index_device large[3] = {{.blocks = UINT32_MAX}, {.blocks = UINT32_MAX}, {.blocks = 1}};
    AUTO(buf_release) struct buf image = BUF_INIT(IMAGE_MAX);
    struct index_summary s;
    assert_int_equal(index_write(t, large, 3, NULL, 0, to_buf, &image, &s, NULL), 0);
    const uint8_t *slot = image.data + 1152 + 2 * 128;
    /* 8 + 2 * 2^32, each rounded up to eight blocks */
    assert_int_equal(le32_get(slot + 68), 8);
    assert_int_equal(le16_get(slot + 74), 2);
}

/* ---- the sink ----------------------------------------------------------------------------------
 */

struct failing {
    unsigned calls, fail_at;
};

static int failing_sink(void *ctx, const void *data, size_t size)
{
    struct failing *f = ctx;
    assert_true(size > 0);
    return ++f->calls == f->fail_at ? -ENOSPC : 0;
}

static void test_sink_fails(void **state)
{
    AUTO(tree_free) struct tree *t = tree_of(NULL, 0);
    struct failing all = {0, 0};
    struct index_summary s;
    (void)add_many(t, TREE_ROOT, 10000, TREE_FILE);
    assert_int_equal(tree_seal(t), 0);
    assert_int_equal(index_write(t, two_devices, 2, device_of, 3, failing_sink, &all, &s, NULL), 0);
    assert_true(all.calls > 2);
    for (unsigned at = 1; at <= all.calls; at++) {
        struct failing f = {0, at};
        int r = index_write(t, two_devices, 2, device_of, 3, failing_sink, &f, &s, NULL);
        assert_int_equal(r, -ENOSPC);
        assert_int_equal(f.calls, at);
    }
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_empty_tree),
        cmocka_unit_test(test_checksum_and_uuid),
        cmocka_unit_test(test_device_table),
        cmocka_unit_test(test_files),
        cmocka_unit_test(test_attributes),
        cmocka_unit_test(test_order_of_dots),
        cmocka_unit_test(test_inline_limits),
        cmocka_unit_test(test_root_inline_limit),
        cmocka_unit_test(test_head),
        cmocka_unit_test(test_large_root),
        cmocka_unit_test(test_million_entries),
        cmocka_unit_test(test_size_of_an_index),
        cmocka_unit_test(test_equal_trees),
        cmocka_unit_test(test_bad_data),
        cmocka_unit_test(test_too_many_devices),
        cmocka_unit_test(test_wide),
        cmocka_unit_test(test_sink_fails),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
