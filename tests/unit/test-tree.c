/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The tree in memory: what it accepts, what it refuses, and what it costs.
 */
#include "tree/tree.h"

#include "base/le.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static struct tree_entry file_entry(const char *name)
{
    return (struct tree_entry){
        .name = name, .name_length = (uint8_t)strlen(name), .type = TREE_FILE, .mode = 0444};
}

static struct tree_entry dir_entry(const char *name)
{
    struct tree_entry e = file_entry(name);
    e.type = TREE_DIRECTORY;
    e.mode = 0555;
    return e;
}

static struct tree_entry link_entry(const char *name, uint32_t to)
{
    struct tree_entry e = file_entry(name);
    e.type = TREE_HARDLINK;
    e.link = to;
    return e;
}

static struct tree_entry symlink_entry(const char *name, const char *target)
{
    struct tree_entry e = file_entry(name);
    e.type = TREE_SYMLINK;
    e.mode = 0777;
    e.target = target;
    e.target_length = (uint16_t)strlen(target);
    return e;
}

static struct tree *new_tree(void)
{
    struct tree *t = NULL;
    assert_int_equal(tree_new(&t), 0);
    return t;
}

static uint32_t add(struct tree *t, uint32_t dir, const struct tree_entry *e, size_t n)
{
    uint32_t first = TREE_NO_NODE;
    assert_int_equal(tree_add_children(t, dir, e, n, &first), 0);
    return first;
}

static void refuse(struct tree *t, uint32_t dir, const struct tree_entry *e, size_t n, int code)
{
    uint32_t first = 12345, nodes = tree_node_count(t), dirs = tree_directory_count(t);
    assert_int_equal(tree_add_children(t, dir, e, n, &first), code);
    assert_int_equal(first, 12345);
    assert_int_equal(tree_node_count(t), nodes);
    assert_int_equal(tree_directory_count(t), dirs);
}

static void assert_path(const struct tree *t, uint32_t directory, const char *path)
{
    struct buf b = BUF_INIT(1 << 20);
    assert_int_equal(tree_directory_path(t, directory, &b), 0);
    assert_string_equal(buf_text(&b), path);
    buf_release(&b);
}

static void empty_root(void **state)
{
    AUTO(tree_free) struct tree *t = new_tree();
    struct tree_cursor c;

    assert_int_equal(tree_node_count(t), 1);
    assert_int_equal(tree_directory_count(t), 1);
    assert_int_equal(tree_node(t, TREE_ROOT)->type, TREE_DIRECTORY);
    assert_int_equal(tree_node(t, TREE_ROOT)->mode, 0555);
    assert_false(tree_first(t, TREE_ROOT, &c));
    assert_path(t, 0, "");
    assert_int_equal(tree_directory_parent(t, 0), 0);
    assert_int_equal(tree_seal(t), 0);
    assert_int_equal(tree_link_count(t, TREE_ROOT), 1);
    assert_int_equal(tree_xattrs(t, TREE_ROOT).size, 0);
}

static void fields_and_order(void **state)
{
    AUTO(tree_free) struct tree *t = new_tree();
    struct tree_entry e[] = {dir_entry("a"), file_entry("a\x01"), file_entry("ab"),
                             symlink_entry("b", "../somewhere"), dir_entry("\xff")};
    struct tree_cursor c;
    unsigned i = 0;

    e[2].size = UINT64_C(1) << 40;
    e[2].mtime_s = -5;
    e[2].mtime_ns = 999999999;
    e[2].mode = 0754;
    uint32_t first = add(t, TREE_ROOT, e, 5);
    for (bool more = tree_first(t, TREE_ROOT, &c); more; more = tree_next(t, &c), i++) {
        assert_int_equal(c.node, first + i);
        assert_int_equal(c.name_length, e[i].name_length);
        assert_memory_equal(c.name, e[i].name, c.name_length);
        assert_int_equal(tree_node(t, c.node)->type, e[i].type);
        assert_int_equal(tree_node(t, c.node)->pack, TREE_PACK_NONE);
    }
    assert_int_equal(i, 5);
    assert_false(tree_next(t, &c));
    const struct tree_node *n = tree_node(t, first + 2);
    assert_true(n->size == UINT64_C(1) << 40);
    assert_int_equal(n->mtime_s, -5);
    assert_int_equal(n->mtime_ns, 999999999);
    assert_int_equal(n->mode, 0754);
    struct bytes target = tree_symlink_target(t, tree_node(t, first + 3));
    assert_int_equal(target.size, 12);
    assert_memory_equal(target.data, "../somewhere", 12);
    assert_int_equal(tree_node(t, first + 3)->size, 12);
    assert_int_equal(tree_directory_count(t), 3);
    assert_int_equal(tree_directory_children(t, 0), 5);
    assert_int_equal(tree_directory_subdirs(t, 0), 2);
    assert_int_equal(tree_directory_node(t, 2), first + 4);
    assert_int_equal(tree_node(t, first + 4)->ref, 2);
    assert_int_equal(tree_directory_depth(t, 2), 1);
    *tree_directory_word(t, 2) = UINT64_MAX;
    assert_true(*tree_directory_word(t, 2) == UINT64_MAX && *tree_directory_word(t, 1) == 0);
}

static void refused_entries(void **state)
{
    AUTO(tree_free) struct tree *t = new_tree();
    struct tree_entry twice[] = {file_entry("a"), file_entry("a")};
    struct tree_entry falling[] = {file_entry("b"), file_entry("a")};
    struct tree_entry longer_first[] = {file_entry("ab"), file_entry("a")};
    struct tree_entry is_signed[] = {file_entry("\x80"), file_entry("a")};
    static const char *const names[] = {"", ".", "..", "a/b", "/"};
    struct tree_entry e;

    refuse(t, TREE_ROOT, twice, 2, -EINVAL);
    refuse(t, TREE_ROOT, falling, 2, -EINVAL);
    refuse(t, TREE_ROOT, longer_first, 2, -EINVAL);
    refuse(t, TREE_ROOT, is_signed, 2, -EINVAL);
    refuse(t, TREE_ROOT, twice, 0, -EINVAL);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        e = file_entry(names[i]);
        refuse(t, TREE_ROOT, &e, 1, -EINVAL);
    }
    e = (struct tree_entry){.name = "a\0b", .name_length = 3};
    refuse(t, TREE_ROOT, &e, 1, -EINVAL);
    e = file_entry("a");
    e.mtime_ns = 1000000000;
    refuse(t, TREE_ROOT, &e, 1, -EINVAL);
    e = file_entry("a");
    e.mode = 010000;
    refuse(t, TREE_ROOT, &e, 1, -EINVAL);
    e = file_entry("a");
    e.type = 4;
    refuse(t, TREE_ROOT, &e, 1, -EINVAL);
    e = symlink_entry("a", "");
    refuse(t, TREE_ROOT, &e, 1, -EINVAL);
    e = symlink_entry("a", "abc");
    e.target = "a\0c";
    refuse(t, TREE_ROOT, &e, 1, -EINVAL);
    e.target_length = 4096;
    refuse(t, TREE_ROOT, &e, 1, -EINVAL);

    e = file_entry("a");
    uint32_t first = add(t, TREE_ROOT, &e, 1);
    refuse(t, TREE_ROOT, &e, 1, -EEXIST);
    refuse(t, first, &e, 1, -EINVAL);
    refuse(t, first + 1, &e, 1, -EINVAL);
    refuse(t, TREE_NO_NODE, &e, 1, -EINVAL);
}

static void longest_name_and_target(void **state)
{
    AUTO(tree_free) struct tree *t = new_tree();
    char name[256], target[4096];
    struct tree_cursor c;

    memset(name, 'n', 255);
    memset(target, 't', 4095);
    name[255] = target[4095] = '\0';
    struct tree_entry e = symlink_entry(name, target);
    uint32_t node = add(t, TREE_ROOT, &e, 1);
    assert_true(tree_first(t, TREE_ROOT, &c));
    assert_int_equal(c.name_length, 255);
    assert_memory_equal(c.name, name, 255);
    assert_int_equal(tree_symlink_target(t, tree_node(t, node)).size, 4095);
}

#define MANY 1000000u

static void million_children(void **state)
{
    AUTO(tree_free) struct tree *t = new_tree();
    AUTO(free_ptr) struct tree_entry *e = calloc(MANY, sizeof *e);
    AUTO(free_ptr) char *names = malloc(MANY * (size_t)10);
    struct tree_cursor c;
    uint32_t i = 0;

    assert_true(e && names);
    for (uint32_t k = 0; k < MANY; k++) {
        char *name = names + k * (size_t)10;
        (void)snprintf(name, 10, "f%08u", k);
        e[k] = file_entry(name);
    }
    uint32_t first = add(t, TREE_ROOT, e, MANY);
    assert_int_equal(first, 1);
    assert_int_equal(tree_node_count(t), MANY + 1);
    for (bool more = tree_first(t, TREE_ROOT, &c); more; more = tree_next(t, &c), i++) {
        if (c.node != first + i || c.name_length != 9 || memcmp(c.name, e[i].name, 9) != 0)
            fail_msg("child %u came out wrong", i);
    }
    assert_int_equal(i, MANY);
}

/* The price of a node is part of the contract: tens of millions must fit. */
static void memory_per_file(void **state)
{
    AUTO(tree_free) struct tree *t = new_tree();
    struct tree_entry e[1000];
    char names[1000][13];

    for (unsigned k = 0; k < 1000; k++) {
        (void)snprintf(names[k], sizeof names[k], "dir_%08u", k);
        e[k] = dir_entry(names[k]);
    }
    uint32_t first = add(t, TREE_ROOT, e, 1000);
    for (unsigned k = 0; k < 1000; k++)
        e[k].type = TREE_FILE;
    for (unsigned k = 0; k < 1000; k++)
        (void)add(t, first + k, e, 1000);
    assert_int_equal(tree_node_count(t), 1001001);
    assert_in_range(tree_memory(t) / tree_node_count(t), 45, 49);
}

static void deep_chain(void **state)
{
    AUTO(tree_free) struct tree *t = new_tree();
    struct tree_entry d = dir_entry("d"), f = file_entry("f");
    uint32_t node = TREE_ROOT;

    for (unsigned i = 0; i < TREE_DEPTH_MAX; i++)
        node = add(t, node, &d, 1);
    uint32_t number = tree_node(t, node)->ref;
    assert_int_equal(tree_directory_depth(t, number), TREE_DEPTH_MAX);
    refuse(t, node, &d, 1, -ENAMETOOLONG);
    (void)add(t, node, &f, 1);

    struct buf b = BUF_INIT(2 * TREE_DEPTH_MAX - 1);
    assert_int_equal(tree_directory_path(t, number, &b), 0);
    assert_int_equal(b.size, 2 * TREE_DEPTH_MAX - 1);
    assert_memory_equal(b.data + b.size - 5, "d/d/d", 5);
    buf_release(&b);
    struct buf small = BUF_INIT(10);
    assert_int_equal(buf_append_str(&small, "x"), 0);
    assert_int_equal(tree_directory_path(t, number, &small), -EFBIG);
    assert_string_equal(buf_text(&small), "x");
    buf_release(&small);
}

static void paths(void **state)
{
    AUTO(tree_free) struct tree *t = new_tree();
    struct tree_entry top[] = {dir_entry("one"), file_entry("three"), dir_entry("two")};
    struct tree_entry below[] = {dir_entry("x"), dir_entry("y")};

    uint32_t first = add(t, TREE_ROOT, top, 3);
    uint32_t second = add(t, first + 2, below, 2);
    (void)add(t, first, below, 2);
    assert_path(t, 1, "one");
    assert_path(t, 2, "two");
    assert_path(t, tree_node(t, second + 1)->ref, "two/y");
    assert_path(t, 5, "one/x");
    assert_int_equal(tree_directory_parent(t, 5), 1);
}

static void hard_links(void **state)
{
    AUTO(tree_free) struct tree *t = new_tree();
    struct tree_entry e[] = {link_entry("a", 2),      file_entry("b"),    link_entry("c", 2),
                             symlink_entry("d", "b"), link_entry("e", 4), file_entry("f")};

    (void)add(t, TREE_ROOT, e, 6);
    assert_int_equal(tree_seal(t), 0);
    assert_int_equal(tree_link_count(t, 2), 3);
    assert_int_equal(tree_link_count(t, 4), 2);
    assert_int_equal(tree_link_count(t, 6), 1);
    assert_int_equal(tree_link_count(t, TREE_NO_NODE), 1);
    refuse(t, TREE_ROOT, e, 1, -EINVAL);
    assert_int_equal(tree_seal(t), -EINVAL);
}

static void refused_links(void **state)
{
    static const uint32_t bad[] = {0, 1, 2, 4, TREE_NO_NODE}; /* root, directory, links, nothing */

    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        AUTO(tree_free) struct tree *t = new_tree();
        struct tree_entry e[] = {dir_entry("a"), link_entry("b", bad[i]), file_entry("c")};
        (void)add(t, TREE_ROOT, e, 3);
        assert_int_equal(tree_seal(t), -EINVAL);
        tree_node(t, 2)->ref = 3;
        assert_int_equal(tree_seal(t), 0);
        assert_int_equal(tree_link_count(t, 3), 2);
    }
}

static void chunks(void **state)
{
    AUTO(tree_free) struct tree *t = new_tree();
    const uint64_t cut = 8 << 20;
    uint32_t first;

    assert_true(tree_chunk_count(0) == 0);
    assert_true(tree_chunk_count(1) == 1);
    assert_true(tree_chunk_count(cut) == 1);
    assert_true(tree_chunk_count(cut + 1) == 2);
    assert_true(tree_chunk_count(UINT64_MAX) == UINT64_C(1) << 41);
    assert_int_equal(tree_add_chunks(t, 5000, &first), 0);
    assert_int_equal(first, 0);
    assert_int_equal(tree_add_chunks(t, 2, &first), 0);
    assert_int_equal(first, 5000);
    *tree_chunk(t, 5001) = (struct tree_chunk){.block = 7, .leaf = 8, .pack = 9};
    assert_int_equal(tree_chunk(t, 5000)->pack, 0);
    assert_int_equal(tree_chunk(t, 5001)->block, 7);
    assert_int_equal(tree_add_chunks(t, UINT32_MAX, &first), -EFBIG);
}

static size_t put_xattr(uint8_t *p, const char *name, const char *value)
{
    size_t n = strlen(name) + 1, v = strlen(value);
    memcpy(p, name, n);
    le16_put(p + n, (uint16_t)v);
    memcpy(p + n + 2, value, v);
    return n + 2 + v;
}

static void xattrs(void **state)
{
    AUTO(tree_free) struct tree *t = new_tree();
    struct tree_entry e[] = {file_entry("a"), file_entry("b"), link_entry("c", 1), file_entry("d")};
    uint8_t p[64];

    (void)add(t, TREE_ROOT, e, 4);
    size_t n = put_xattr(p, "colour", "blue");
    n += put_xattr(p + n, "empty", "");
    assert_int_equal(tree_set_xattrs(t, 4, bytes_of(p, n)), 0);
    assert_int_equal(tree_set_xattrs(t, 0, bytes_of(p, 13)), 0);
    assert_int_equal(tree_set_xattrs(t, 2, bytes_of(p, 0)), 0);
    assert_int_equal(tree_set_xattrs(t, 3, bytes_of(p, n)), -EINVAL);
    assert_int_equal(tree_set_xattrs(t, 5, bytes_of(p, n)), -EINVAL);
    assert_int_equal(tree_seal(t), 0);
    assert_int_equal(tree_xattrs(t, 4).size, n);
    assert_memory_equal(tree_xattrs(t, 4).data, p, n);
    assert_int_equal(tree_xattrs(t, 0).size, 13);
    assert_int_equal(tree_xattrs(t, 1).size, 0);
    assert_int_equal(tree_xattrs(t, 2).size, 0);
    assert_int_equal(tree_set_xattrs(t, 1, bytes_of(p, n)), -EINVAL);
}

static void refused_xattrs(void **state)
{
    AUTO(tree_free) struct tree *t = new_tree();
    uint8_t p[TREE_XATTR_MAX + 1] = {'a', 0};

    size_t n = put_xattr(p, "a", "value");
    for (size_t cut = 1; cut < n; cut++)
        assert_int_equal(tree_set_xattrs(t, 0, bytes_of(p, cut)), -EINVAL);
    size_t twice = n + put_xattr(p + n, "a", "value");
    assert_int_equal(tree_set_xattrs(t, 0, bytes_of(p, twice)), -EINVAL);
    n = put_xattr(p, "b", "");
    n += put_xattr(p + n, "a", "");
    assert_int_equal(tree_set_xattrs(t, 0, bytes_of(p, n)), -EINVAL);
    n = put_xattr(p, "", "x");
    assert_int_equal(tree_set_xattrs(t, 0, bytes_of(p, n)), -EINVAL);

    memset(p, 'x', sizeof p);
    p[1] = 0;
    le16_put(p + 2, TREE_XATTR_MAX - 4);
    assert_int_equal(tree_set_xattrs(t, 0, bytes_of(p, TREE_XATTR_MAX + 1)), -E2BIG);
    assert_int_equal(tree_set_xattrs(t, 0, bytes_of(p, TREE_XATTR_MAX)), 0);
    assert_int_equal(tree_set_xattrs(t, 0, bytes_of(p, TREE_XATTR_MAX)), 0);
    assert_int_equal(tree_seal(t), -EINVAL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(empty_root),       cmocka_unit_test(fields_and_order),
        cmocka_unit_test(refused_entries),  cmocka_unit_test(longest_name_and_target),
        cmocka_unit_test(million_children), cmocka_unit_test(memory_per_file),
        cmocka_unit_test(deep_chain),       cmocka_unit_test(paths),
        cmocka_unit_test(hard_links),       cmocka_unit_test(refused_links),
        cmocka_unit_test(chunks),           cmocka_unit_test(xattrs),
        cmocka_unit_test(refused_xattrs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
