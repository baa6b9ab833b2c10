/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The names of a stream: in any order, twice, in each other's way; and the tree that is made of
 * them, against what tar would leave on a disk.
 */
#include "publish/publish-names.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static struct names *names;
static struct names_remarks remarks;
static struct err err;

static int set_up(void **state)
{
    return names_new(&names);
}

static int tear_down(void **state)
{
    names_free(names);
    return 0;
}

static int add(const char *path, enum source_type type, const char *target, bool hard,
               uint32_t *ret_row)
{
    struct source_stat st = {.type = type, .mtime = {.s = 5}};
    struct names_entry e = {.path = path,
                            .path_size = strlen(path),
                            .target = target,
                            .target_size = target ? strlen(target) : 0,
                            .stat = &st,
                            .mode = 0444,
                            .is_hard_link = hard};

    err_clear(&err);
    int r = names_add(names, &e, ret_row, &remarks, &err);
    assert_true(r == 0 || (r == -EPROTO && err.text[0]));
    return r;
}

static uint32_t file(const char *path, uint32_t mark)
{
    uint32_t row;

    assert_int_equal(add(path, SOURCE_FILE, NULL, false, &row), 0);
    names_node(names, row)->size = mark;
    names_node(names, row)->pack = 1;
    names_node(names, row)->ref = mark;
    return row;
}

static struct tree *build(void)
{
    struct tree *t;

    assert_int_equal(tree_new(&t), 0);
    assert_int_equal(names_build(names, t), 0);
    assert_int_equal(tree_seal(t), 0);
    return t;
}

/* The node of a path; TREE_NO_NODE. */
static uint32_t find(const struct tree *t, const char *path)
{
    uint32_t node = TREE_ROOT;
    struct tree_cursor c;

    while (*path) {
        size_t n = strcspn(path, "/");
        uint32_t found = TREE_NO_NODE;
        for (bool more = tree_first(t, node, &c); more; more = tree_next(t, &c)) {
            if (c.name_length == n && memcmp(c.name, path, n) == 0)
                found = c.node;
        }
        if (found == TREE_NO_NODE)
            return found;
        node = found;
        path += n + (path[n] == '/');
    }
    return node;
}

static uint32_t mark_at(const struct tree *t, const char *path)
{
    uint32_t node = find(t, path);

    assert_int_not_equal(node, TREE_NO_NODE);
    if (tree_node(t, node)->type == TREE_HARDLINK)
        node = tree_node(t, node)->ref;
    assert_int_equal(tree_node(t, node)->type, TREE_FILE);
    return tree_node(t, node)->ref;
}

static void test_order_does_not_matter(void **state)
{
    uint32_t row;

    file("z/y/x", 1);
    file("a", 2);
    assert_int_equal(add("z", SOURCE_DIRECTORY, NULL, false, &row), 0);
    file("z/a", 3);
    file("./z//b/.", 4);
    struct tree *t = build();
    assert_int_equal(mark_at(t, "z/y/x"), 1);
    assert_int_equal(mark_at(t, "a"), 2);
    assert_int_equal(mark_at(t, "z/a"), 3);
    assert_int_equal(mark_at(t, "z/b"), 4);
    assert_int_equal(tree_node(t, find(t, "z"))->mtime_s, 5);
    assert_int_equal(tree_node(t, find(t, "z/y"))->mtime_s, 0);
    assert_int_equal(tree_node_count(t), 7);
    tree_free(t);
}

static void test_replaced(void **state)
{
    uint32_t row, first = file("a", 1);

    assert_int_equal(add("b", SOURCE_FILE, "a", true, &row), 0);
    assert_int_equal(add("c", SOURCE_FILE, "b", true, &row), 0);
    uint32_t second = file("a", 2);
    assert_true(remarks.replaced);
    assert_int_equal(add("d", SOURCE_FILE, "a", true, &row), 0);
    assert_int_equal(add("a", SOURCE_FILE, "d", true, &row), 0); /* what it is already */
    assert_false(remarks.replaced);
    struct tree *t = build();
    assert_int_equal(mark_at(t, "a"), 2);
    assert_int_equal(mark_at(t, "d"), 2);
    assert_int_equal(mark_at(t, "b"), 1);
    assert_int_equal(mark_at(t, "c"), 1);
    assert_int_equal(tree_link_count(t, find(t, "b")), 2);
    assert_int_equal(names_tree_node(names, first), TREE_NO_NODE);
    assert_int_equal(names_tree_node(names, second), find(t, "a"));
    tree_free(t);
}

static void test_refused(void **state)
{
    static const char *const paths[] = {"..", "a/../b", "../a", "", "f/x", "l/x"};
    char longest[SOURCE_PATH_MAX + 2], name[300];
    uint32_t row;

    file("f", 1);
    assert_int_equal(add("l", SOURCE_SYMLINK, "f", false, &row), 0);
    assert_int_equal(add("d", SOURCE_DIRECTORY, NULL, false, &row), 0);
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++)
        assert_int_equal(add(paths[i], SOURCE_FILE, NULL, false, &row), -EPROTO);
    assert_int_equal(add("/", SOURCE_FILE, NULL, false, &row), -EPROTO);
    assert_int_equal(add("d", SOURCE_FILE, NULL, false, &row), -EPROTO);
    assert_int_equal(add("d", SOURCE_SYMLINK, "f", false, &row), -EPROTO);
    assert_int_equal(add("d", SOURCE_FILE, "f", true, &row), -EPROTO);
    assert_int_equal(add("f", SOURCE_DIRECTORY, NULL, false, &row), -EPROTO);
    assert_int_equal(add("l", SOURCE_DIRECTORY, NULL, false, &row), -EPROTO);
    assert_int_equal(add("h", SOURCE_FILE, "nowhere", true, &row), -EPROTO);
    assert_int_equal(add("h", SOURCE_FILE, "d", true, &row), -EPROTO);
    assert_int_equal(add("h", SOURCE_FILE, "../f", true, &row), -EPROTO);
    assert_int_equal(add("s", SOURCE_SYMLINK, "", false, &row), -EPROTO);
    memset(name, 'n', 256);
    name[256] = '\0';
    assert_int_equal(add(name, SOURCE_FILE, NULL, false, &row), -EPROTO);
    for (size_t i = 0; i < sizeof longest - 1; i++)
        longest[i] = i % 2 ? '/' : 'd';
    longest[sizeof longest - 1] = '\0';
    assert_int_equal(add(longest, SOURCE_FILE, NULL, false, &row), -EPROTO);
    longest[SOURCE_PATH_MAX - 1] = '\0';
    assert_int_equal(add(longest, SOURCE_FILE, NULL, false, &row), 0);
    struct tree *t = build();
    assert_int_equal(mark_at(t, "f"), 1);
    assert_int_equal(tree_node(t, find(t, "d"))->type, TREE_DIRECTORY);
    tree_free(t);
}

static void test_many(void **state)
{
    char path[64];

    for (uint32_t i = 0; i < 50000; i++) {
        (void)snprintf(path, sizeof path, "d%u/e%u/f%u", i * 7919 % 31, i % 17, i);
        file(path, i);
    }
    struct tree *t = build();
    for (uint32_t i = 0; i < 50000; i += 499) {
        (void)snprintf(path, sizeof path, "d%u/e%u/f%u", i * 7919 % 31, i % 17, i);
        assert_int_equal(mark_at(t, path), i);
    }
    assert_int_equal(tree_node_count(t), 1 + 31 + 31 * 17 + 50000);
    tree_free(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_order_does_not_matter, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_replaced, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_refused, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_many, set_up, tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
