/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The reader of indexes against the writer: random trees, by seed.
 *
 * A tree is written and read back, and every name, size, time, chunk, link and attribute compared.
 * Names are made of few bytes around '.', so that they collide, nest and sort badly. Then the
 * images are damaged, and must be refused or at least followed without harm.
 */
#include "index-explore.h"

#include "base/le.h"
#include "base/vec.h"

#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

#define SEEDS        200u
#define MUTANTS      10u /* of each seed's image */
#define NODES_MAX    3000u
#define CHILDREN_MAX 400u
#define BIG          (UINT64_C(8) << 20)

/* ---- an image in memory ---- */

struct image {
    struct buf bytes;
    uint64_t reads;
    uint64_t last_leaf, leaves; /* changes of the 16-KiB leaf that is read */
};

static int image_sink(void *ctx, const void *data, size_t size)
{
    struct image *m = ctx;
    return buf_append(&m->bytes, data, size);
}

static int image_read(void *ctx, uint64_t offset, void *data, size_t size)
{
    struct image *m = ctx;

    assert_true(size > 0 && offset <= m->bytes.size && size <= m->bytes.size - offset);
    memcpy(data, m->bytes.data + offset, size);
    m->reads++;
    for (uint64_t leaf = offset / 16384; leaf <= (offset + size - 1) / 16384; leaf++) {
        m->leaves += leaf != m->last_leaf;
        m->last_leaf = leaf;
    }
    return 0;
}

/* ---- random trees ---- */

static uint64_t next_random(uint64_t *state)
{
    uint64_t z = (*state += 0x9E3779B97F4A7C15u);

    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return z ^ z >> 31;
}

static uint32_t below(uint64_t *rng, uint32_t n)
{
    return (uint32_t)(next_random(rng) % n);
}

struct model {
    struct tree *tree;
    uint64_t rng;
    VEC(uint32_t) linkable;
    char targets[CHILDREN_MAX][4096];
    char names[CHILDREN_MAX][256];
};

static const struct index_device devices[] = {
    {.digest = {{1}}, .blocks = 40000},
    {.digest = {{2}}, .blocks = 16},
    {.digest = {{3}}, .blocks = UINT32_MAX},
};
#define DEVICES 3u
static const uint16_t device_of[] = {2, 0, 3, 1, 0};
#define PACKS 5u

static uint8_t random_name(struct model *m, char *name)
{
    static const char alphabet[] = {'-', '.', 1, '!', 'a', '\xff'};
    uint32_t length = below(&m->rng, 8) ? 1 + below(&m->rng, 4) : 250 + below(&m->rng, 6);

    for (uint32_t i = 0; i < length; i++)
        name[i] = alphabet[below(&m->rng, sizeof alphabet)];
    name[length] = 0;
    return (uint8_t)length;
}

static uint64_t random_size(struct model *m)
{
    static const uint64_t sizes[] = {0,   1,       511,     512,     513,
                                     BIG, BIG - 1, BIG + 1, 2 * BIG, 5 * BIG + 77};
    uint32_t n = below(&m->rng, 20);
    return n < 10 ? sizes[n] : below(&m->rng, 100000);
}

static uint32_t random_target_length(struct model *m)
{
    static const uint32_t lengths[] = {1, 447, 448, 449, 511, 512, 513, 4095};
    uint32_t n = below(&m->rng, 24);
    return n < 8 ? lengths[n] : 1 + below(&m->rng, 100);
}

/* A place for `size` bytes in some pack, or a hole. */
static void random_chunk(struct model *m, uint64_t size, struct tree_chunk *ret)
{
    static const uint16_t packs[] = {0, 2, 3};
    uint64_t blocks = (size + 511) / 512;

    *ret = (struct tree_chunk){.pack = TREE_PACK_HOLE};
    for (uint32_t tries = 0; tries < 3; tries++) {
        uint16_t pack = packs[below(&m->rng, 3)];
        uint64_t room = devices[device_of[pack] - 1].blocks;
        if (blocks > room)
            continue;
        uint32_t r = below(&m->rng, 4);
        uint64_t block = r == 0   ? 0
                         : r == 1 ? room - blocks
                                  : next_random(&m->rng) % (room - blocks + 1);
        *ret = (struct tree_chunk){
            .pack = pack, .block = (uint32_t)block, .leaf = below(&m->rng, UINT32_MAX)};
        return;
    }
}

static void fill_file(struct model *m, struct tree_node *n)
{
    uint64_t count = tree_chunk_count(n->size);
    struct tree_chunk c;

    n->pack = TREE_PACK_NONE;
    if (count == 1) {
        random_chunk(m, n->size, &c);
        n->pack = c.pack;
        n->ref = c.block;
        n->leaf = c.leaf;
    } else if (count > 1) {
        n->pack = TREE_PACK_MANY;
        assert_int_equal(tree_add_chunks(m->tree, count, &n->ref), 0);
        for (uint64_t i = 0; i < count; i++) {
            random_chunk(m, i + 1 < count ? BIG : n->size - i * BIG, &c);
            *tree_chunk(m->tree, n->ref + (uint32_t)i) = c;
        }
    }
}

static void add_attributes(struct model *m, uint32_t node)
{
    AUTO(buf_release) struct buf b = BUF_INIT(65536);
    uint8_t length[2];
    uint32_t count = 1 + below(&m->rng, 4);

    for (uint32_t i = 0; i < count; i++) {
        char name[64];
        uint8_t value[600];
        uint16_t size = (uint16_t)below(&m->rng, below(&m->rng, 4) ? 20 : sizeof value);
        (void)snprintf(name, sizeof name, "%c%.*s", (char)('a' + i), (int)below(&m->rng, 9),
                       "attribute");
        memset(value, (int)below(&m->rng, 256), sizeof value);
        le16_put(length, size);
        assert_int_equal(buf_append(&b, name, strlen(name) + 1), 0);
        assert_int_equal(buf_append(&b, length, 2), 0);
        assert_int_equal(buf_append(&b, value, size), 0);
    }
    assert_int_equal(tree_set_xattrs(m->tree, node, buf_bytes(&b)), 0);
}

static int compare_entries(const void *a, const void *b)
{
    const struct tree_entry *x = a, *y = b;
    size_t common = x->name_length < y->name_length ? x->name_length : y->name_length;
    int r = memcmp(x->name, y->name, common);
    return r ? r : (int)x->name_length - (int)y->name_length;
}

static void random_entry(struct model *m, uint32_t i, uint32_t depth, struct tree_entry *e)
{
    uint32_t kind = below(&m->rng, 20);

    *e = (struct tree_entry){.name = m->names[i]};
    do
        e->name_length = random_name(m, m->names[i]);
    while (strcmp(m->names[i], ".") == 0 || strcmp(m->names[i], "..") == 0);
    e->mode = (uint16_t)(next_random(&m->rng) & 0555);
    e->mtime_s = below(&m->rng, 4) ? below(&m->rng, INT32_MAX) : (int64_t)next_random(&m->rng);
    e->mtime_ns = below(&m->rng, 1000000000);
    e->type = TREE_FILE;
    if (kind < 4 && depth < 6) {
        e->type = TREE_DIRECTORY;
    } else if (kind < 8) {
        e->type = TREE_SYMLINK;
        e->mode = 0777;
        e->target_length = (uint16_t)random_target_length(m);
        memset(m->targets[i], 'a' + (int)below(&m->rng, 26), e->target_length);
        e->target = m->targets[i];
    } else if (kind < 10 && m->linkable.count) {
        e->type = TREE_HARDLINK;
        e->link = m->linkable.at[below(&m->rng, (uint32_t)m->linkable.count)];
    } else {
        e->size = random_size(m);
    }
}

static void fill_directory(struct model *m, uint32_t directory)
{
    static struct tree_entry entries[CHILDREN_MAX];
    uint32_t depth = tree_directory_depth(m->tree, directory), count = 0, first;
    uint32_t wanted = below(&m->rng, 6) ? below(&m->rng, 30) : below(&m->rng, CHILDREN_MAX);

    if (tree_node_count(m->tree) > NODES_MAX)
        return;
    for (uint32_t i = 0; i < wanted; i++)
        random_entry(m, i, depth, &entries[i]);
    qsort(entries, wanted, sizeof *entries, compare_entries);
    for (uint32_t i = 0; i < wanted; i++)
        if (count == 0 || compare_entries(&entries[count - 1], &entries[i]) != 0)
            entries[count++] = entries[i];
    if (count == 0)
        return;
    assert_int_equal(
        tree_add_children(m->tree, tree_directory_node(m->tree, directory), entries, count, &first),
        0);
    for (uint32_t i = 0; i < count; i++) {
        struct tree_node *n = tree_node(m->tree, first + i);
        if (n->type == TREE_FILE)
            fill_file(m, n);
        if (n->type == TREE_FILE || n->type == TREE_SYMLINK)
            assert_int_equal(vec_push(&m->linkable, first + i), 0);
        if (n->type != TREE_HARDLINK && below(&m->rng, 10) == 0)
            add_attributes(m, first + i);
    }
}

static struct tree *random_tree(uint64_t seed)
{
    static struct model m;

    m.rng = seed;
    assert_int_equal(tree_new(&m.tree), 0);
    for (uint32_t d = 0; d < tree_directory_count(m.tree); d++)
        fill_directory(&m, d);
    if (below(&m.rng, 2))
        add_attributes(&m, TREE_ROOT);
    assert_int_equal(tree_seal(m.tree), 0);
    vec_release(&m.linkable);
    return m.tree;
}

static void write_tree(const struct tree *t, struct image *m, struct index_summary *ret)
{
    struct err err = ERR_INIT;

    *m = (struct image){.bytes = BUF_INIT(1u << 30), .last_leaf = UINT64_MAX};
    if (index_write(t, devices, DEVICES, device_of, PACKS, image_sink, m, ret, &err) < 0)
        fail_msg("index_write: %s", err.text);
    assert_int_equal(ret->size, m->bytes.size);
}

/* ---- comparing ---- */

struct listed {
    char name[INDEX_NAME_MAX];
    uint8_t length;
    enum index_type type;
    uint64_t nid, next;
};
struct listing {
    VEC(struct listed) entries;
    size_t stop_after; /* then the callback says stop; 0: never */
};

static int listing_entry(void *ctx, const struct index_entry *e)
{
    struct listing *l = ctx;
    struct listed row = {.length = e->name_length, .type = e->type, .nid = e->nid, .next = e->next};

    memcpy(row.name, e->name, e->name_length);
    assert_int_equal(vec_push(&l->entries, row), 0);
    return l->entries.count == l->stop_after;
}

static bool is_dots(const struct listed *e)
{
    return e->name[0] == '.' && e->length <= 2 && e->name[e->length - 1] == '.';
}

/* Listed in one go, and again a few entries at a time, on from the cookies. */
static void list(const struct index *x, const struct index_inode *dir, uint32_t step,
                 struct listing *l)
{
    struct listing again = {.stop_after = step};
    size_t before = SIZE_MAX;

    assert_int_equal(index_readdir(x, dir, 0, listing_entry, l), 0);
    while (again.entries.count != before) {
        uint64_t cookie = 0;
        before = again.entries.count;
        if (before)
            cookie = again.entries.at[before - 1].next;
        again.stop_after = before + step;
        assert_int_equal(index_readdir(x, dir, cookie, listing_entry, &again), 0);
    }
    assert_int_equal(again.entries.count, l->entries.count);
    for (size_t i = 0; i < before; i++) {
        assert_int_equal(again.entries.at[i].nid, l->entries.at[i].nid);
        assert_int_equal(again.entries.at[i].next, l->entries.at[i].next);
    }
    vec_release(&again.entries);
}

/* Names that are not there: those that are, one byte longer or shorter. */
static void look_beside(const struct index *x, const struct index_inode *dir,
                        const struct listing *l)
{
    for (size_t i = 0; i < l->entries.count; i++) {
        const struct listed *e = &l->entries.at[i];
        char name[INDEX_NAME_MAX + 1];
        uint64_t nid;

        memcpy(name, e->name, e->length);
        name[e->length] = 2; /* in no name, and no separator */
        if (e->length < INDEX_NAME_MAX)
            assert_int_equal(index_lookup(x, dir, name, e->length + 1u, &nid), -ENOENT);
        name[0] = 2;
        assert_int_equal(index_lookup(x, dir, name, e->length, &nid), -ENOENT);
        assert_int_equal(index_lookup(x, dir, e->name, e->length, &nid), 0);
        assert_int_equal(nid, e->nid);
    }
}

static void compare_directory(const struct index *x, const struct tree *t, uint32_t directory,
                              uint64_t *nids)
{
    uint32_t parent = tree_directory_node(t, tree_directory_parent(t, directory)), dots = 0;
    uint32_t node = tree_directory_node(t, directory);
    struct listing l = {.stop_after = 0};
    struct index_inode dir;
    struct tree_cursor c;
    size_t i = 0;

    assert_int_equal(index_inode(x, nids[node], &dir), 0);
    assert_int_equal(dir.type, INDEX_DIRECTORY);
    list(x, &dir, 1 + directory % 50, &l);
    for (bool more = tree_first(t, node, &c); more; more = tree_next(t, &c), i++) {
        for (; i < l.entries.count && is_dots(&l.entries.at[i]); i++, dots++)
            assert_int_equal(l.entries.at[i].nid,
                             nids[l.entries.at[i].length == 1 ? node : parent]);
        assert_true(i < l.entries.count);
        assert_int_equal(l.entries.at[i].length, c.name_length);
        assert_memory_equal(l.entries.at[i].name, c.name, c.name_length);
        nids[c.node] = l.entries.at[i].nid;
    }
    assert_int_equal(i + 2 - dots, l.entries.count);
    look_beside(x, &dir, &l);
    vec_release(&l.entries);
}

static void compare_chunks(const struct index *x, const struct tree *t, const struct tree_node *n,
                           const struct index_inode *file)
{
    uint64_t count = tree_chunk_count(n->size);

    for (uint64_t i = 0; i < count; i++) {
        struct tree_chunk want = {.pack = n->pack, .block = n->ref};
        uint64_t end = i + 1 < count ? (i + 1) * BIG : n->size;
        struct index_extent first, last;

        if (count > 1)
            want = *tree_chunk(t, n->ref + (uint32_t)i);
        assert_int_equal(index_map(x, file, i * BIG, &first), 0);
        assert_int_equal(index_map(x, file, end - 1, &last), 0);
        assert_int_equal(last.device, first.device);
        assert_int_equal(last.block, first.block);
        assert_int_equal(last.chunk_offset, first.chunk_offset);
        assert_int_equal(last.chunk_size, first.chunk_size);
        assert_int_equal(first.chunk_offset, i * BIG);
        assert_int_equal(first.chunk_size, end - i * BIG);
        assert_int_equal(first.device, want.pack == TREE_PACK_HOLE ? 0 : device_of[want.pack]);
        if (first.device)
            assert_int_equal(first.block, want.block);
        if (first.device && count == 1)
            assert_int_equal(file->leaf_hint, n->leaf);
    }
}

/* Attributes as tree_xattrs() has them. */
static int collect_attribute(void *ctx, const char *name, size_t length, struct bytes value)
{
    uint8_t size[2];

    le16_put(size, (uint16_t)value.size);
    assert_int_equal(buf_append(ctx, name, length), 0);
    assert_int_equal(buf_append(ctx, "", 1), 0);
    assert_int_equal(buf_append(ctx, size, 2), 0);
    return buf_append(ctx, value.data, value.size);
}

static void compare_node(const struct index *x, const struct tree *t, uint32_t node, uint64_t nid)
{
    AUTO(buf_release) struct buf attributes = BUF_INIT(65536);
    const struct tree_node *n = tree_node(t, node);
    struct bytes want = tree_xattrs(t, node), target;
    char text[INDEX_TARGET_MAX + 1];
    struct index_inode i;

    assert_int_equal(index_inode(x, nid, &i), 0);
    assert_int_equal(i.mode, n->mode);
    assert_true(i.mtime_s == n->mtime_s);
    assert_int_equal(i.mtime_ns, n->mtime_ns);
    assert_int_equal(index_xattrs(x, &i, collect_attribute, &attributes), 0);
    assert_int_equal(attributes.size, want.size);
    if (want.size)
        assert_memory_equal(attributes.data, want.data, want.size);
    switch (n->type) {
    case TREE_FILE:
        assert_int_equal(i.type, INDEX_FILE);
        assert_int_equal(i.size, n->size);
        assert_int_equal(i.nlink, tree_link_count(t, node));
        compare_chunks(x, t, n, &i);
        break;
    case TREE_SYMLINK:
        target = tree_symlink_target(t, n);
        assert_int_equal(i.type, INDEX_SYMLINK);
        assert_int_equal(i.nlink, tree_link_count(t, node));
        assert_int_equal(index_readlink(x, &i, text), 0);
        assert_int_equal(strlen(text), target.size);
        assert_memory_equal(text, target.data, target.size);
        break;
    default:
        assert_int_equal(i.type, INDEX_DIRECTORY);
        assert_int_equal(i.nlink, 2 + tree_directory_subdirs(t, n->ref));
    }
}

static void compare_tree(const struct index *x, const struct tree *t,
                         const struct index_summary *summary)
{
    uint32_t count = tree_node_count(t);
    uint64_t *nids = calloc(count, sizeof *nids);
    struct index_counts found, want = {0};
    struct err err = ERR_INIT;

    assert_non_null(nids);
    nids[TREE_ROOT] = INDEX_ROOT_NID;
    for (uint32_t d = 0; d < tree_directory_count(t); d++)
        compare_directory(x, t, d, nids);
    for (uint32_t i = 0; i < count; i++) {
        const struct tree_node *n = tree_node(t, i);
        if (n->type == TREE_HARDLINK) {
            assert_int_equal(nids[i], nids[n->ref]);
            continue;
        }
        compare_node(x, t, i, nids[i]);
        want.files += n->type == TREE_FILE;
        want.symlinks += n->type == TREE_SYMLINK;
        want.directories += n->type == TREE_DIRECTORY;
        want.size_bytes += n->type == TREE_FILE ? n->size : 0;
    }
    free(nids);
    if (index_check(x, &found, &err) < 0)
        fail_msg("index_check: %s", err.text);
    assert_memory_equal(&found, &want, sizeof want);
    assert_int_equal(want.files + want.symlinks + want.directories, summary->inodes);
    assert_int_equal(index_inode_count(x), summary->inodes);
}

static void what_is_written_is_read(void **state)
{
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        AUTO(tree_free) struct tree *t = random_tree(seed);
        AUTO(index_close) struct index *x = NULL;
        struct index_summary summary;
        struct err err = ERR_INIT;
        struct image m;

        write_tree(t, &m, &summary);
        if (index_open(image_read, &m, m.bytes.size, &x, &err) < 0)
            fail_msg("seed %" PRIu64 ": %s", seed, err.text);
        assert_int_equal(index_device_count(x), DEVICES);
        for (uint32_t id = 1; id <= DEVICES; id++) {
            struct digest d = index_device_digest(x, id);
            assert_true(digest_equal(&d, &devices[id - 1].digest));
            assert_int_equal(index_device_blocks(x, id), devices[id - 1].blocks);
        }
        compare_tree(x, t, &summary);
        assert_int_equal(explore(x, UINT64_MAX), 0);
        buf_release(&m.bytes);
    }
}

/* Bytes behind the superblock, so that the checksum is not what refuses them. */
static void what_is_damaged_does_no_harm(void **state)
{
    unsigned refused = 0, damaged = 0;

    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        AUTO(tree_free) struct tree *t = random_tree(seed);
        struct index_summary summary;
        uint64_t rng = seed;
        struct image m;

        write_tree(t, &m, &summary);
        for (unsigned i = 0; i < MUTANTS; i++, damaged++) {
            AUTO(index_close) struct index *x = NULL;
            uint64_t at = 1536 + next_random(&rng) % (summary.size - 1536);
            uint8_t old = m.bytes.data[at];

            m.bytes.data[at] ^= (uint8_t)(1u << below(&rng, 8));
            if (index_open(image_read, &m, m.bytes.size, &x, NULL) < 0) {
                refused++;
            } else {
                int followed = explore(x, 2000);
                int r = index_check(x, NULL, NULL);
                refused += r < 0;
                if (r != 0 && r != -EPROTO)
                    fail_msg("seed %" PRIu64 ", byte %" PRIu64 ": %d", seed, at, r);
                if (r == 0 && followed != 0)
                    fail_msg("seed %" PRIu64 ", byte %" PRIu64 ": accepted", seed, at);
            }
            m.bytes.data[at] = old;
        }
        buf_release(&m.bytes);
    }
    /* Another time, name or block is a good image too, and many bytes are just that. */
    assert_in_range(refused, damaged / 10, damaged);
    print_message("%u of %u refused\n", refused, damaged);
}

/* ---- large directories ---- */

#define MANY 200000u

static struct tree *large_tree(void)
{
    AUTO(tree_free) struct tree *t = NULL;
    struct tree_entry *e = calloc(MANY, sizeof *e);
    char(*names)[16] = calloc(MANY, sizeof *names);
    uint32_t first;

    assert_int_equal(tree_new(&t), 0);
    assert_non_null(e);
    assert_non_null(names);
    for (uint32_t i = 0; i < MANY; i++) {
        (void)snprintf(names[i], sizeof names[i], "%08u", 10 * i);
        e[i] = (struct tree_entry){
            .name = names[i], .name_length = 8, .type = TREE_FILE, .mode = 0444};
    }
    assert_int_equal(tree_add_children(t, TREE_ROOT, e, MANY, &first), 0);
    for (uint32_t i = 0; i < MANY; i++)
        tree_node(t, first + i)->pack = TREE_PACK_NONE;
    assert_int_equal(tree_seal(t), 0);
    free(e);
    free(names);
    return take_ptr(&t);
}

static int count_entry(void *ctx, const struct index_entry *e)
{
    ++*(uint64_t *)ctx;
    return 0;
}

static void large_directories_are_searched_not_read(void **state)
{
    AUTO(tree_free) struct tree *t = large_tree();
    AUTO(index_close) struct index *x = NULL;
    struct index_summary summary;
    struct index_inode root;
    struct image m;
    uint64_t nid, count = 0;
    char name[16];

    write_tree(t, &m, &summary);
    assert_int_equal(index_open(image_read, &m, m.bytes.size, &x, NULL), 0);
    assert_int_equal(index_walk(x, "/", &root), 0);
    for (uint32_t i = 0; i < MANY; i += 997) {
        m.reads = m.leaves = 0;
        (void)snprintf(name, sizeof name, "%08u", 10 * i);
        assert_int_equal(index_lookup(x, &root, name, 8, &nid), 0);
        assert_in_range(m.reads, 1, 14); /* 2^13 blocks of 25 entries */
        assert_in_range(m.leaves, 1, 12);
        (void)snprintf(name, sizeof name, "%08u", 10 * i + 5);
        assert_int_equal(index_lookup(x, &root, name, 8, &nid), -ENOENT);
    }
    m.reads = 0;
    assert_int_equal(index_readdir(x, &root, 0, count_entry, &count), 0);
    assert_int_equal(count, MANY + 2);
    assert_in_range(m.reads, 1, root.size / 16384 + 2);
    assert_int_equal(index_check(x, NULL, NULL), 0);
    buf_release(&m.bytes);
}

/* As deep as a tree may be: one more is for the tree to refuse. */
static void the_deepest_tree_is_read(void **state)
{
    AUTO(tree_free) struct tree *t = NULL;
    AUTO(index_close) struct index *x = NULL;
    AUTO(buf_release) struct buf path = BUF_INIT(3 * INDEX_DEPTH_MAX);
    const struct tree_entry e = {
        .name = "d", .name_length = 1, .type = TREE_DIRECTORY, .mode = 0555};
    struct index_summary summary;
    struct index_inode bottom;
    struct err err = ERR_INIT;
    uint32_t node = TREE_ROOT;
    struct image m;

    assert_int_equal(tree_new(&t), 0);
    for (uint32_t depth = 0; depth < INDEX_DEPTH_MAX; depth++) {
        assert_int_equal(tree_add_children(t, node, &e, 1, &node), 0);
        assert_int_equal(buf_append_str(&path, "/d"), 0);
    }
    assert_int_equal(tree_seal(t), 0);
    write_tree(t, &m, &summary);
    assert_int_equal(index_open(image_read, &m, m.bytes.size, &x, NULL), 0);
    assert_int_equal(index_walk(x, buf_text(&path), &bottom), 0);
    assert_int_equal(bottom.nlink, 2);
    if (index_check(x, NULL, &err) < 0)
        fail_msg("index_check: %s", err.text);
    buf_release(&m.bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_written_is_read),
        cmocka_unit_test(what_is_damaged_does_no_harm),
        cmocka_unit_test(large_directories_are_searched_not_read),
        cmocka_unit_test(the_deepest_tree_is_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
