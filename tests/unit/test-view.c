/* SPDX-License-Identifier: Apache-2.0 */
/*
 * view/: a published tree, read back in every way; objects that are gone, damaged, or not those
 * that the index means.
 */
#include "view/view.h"

#include "base/file.h"
#include "base/log.h"
#include "publish/publish.h"

#include <fcntl.h>
#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>

#include <cmocka.h>

#define BIG_SIZE  (9u * 1024 * 1024 + 12345) /* more than one chunk, and a bit */
#define HOLE_SIZE (20u << 20)
#define ENTRIES   500u /* of one directory: several leaves of the index */
#define MEMORY    (UINT64_C(64) << 20)

struct world {
    char dir[64];
    struct store *store;
    struct catalogue *c;
    struct publish_result published;
    struct fetch *fetch;
    struct view *v;
    uint8_t *big;
    bool has_xattr;
};

static void put_file(struct world *w, const char *name, const void *data, size_t size)
{
    char path[256];

    (void)snprintf(path, sizeof path, "%s/%s", w->dir, name);
    AUTO(close_fd) int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    assert_true(fd >= 0);
    assert_int_equal(file_write(fd, data, size), 0);
}

static void make_tree(struct world *w)
{
    char path[256], name[64];
    uint64_t x = 88172645463325252u;

    w->big = malloc(BIG_SIZE);
    assert_non_null(w->big);
    for (size_t i = 0; i < BIG_SIZE; i++) {
        x ^= x << 13, x ^= x >> 7, x ^= x << 17;
        w->big[i] = (uint8_t)x;
    }
    put_file(w, "big", w->big, BIG_SIZE);
    put_file(w, "hello", "hello\n", 6);
    put_file(w, "empty", "", 0);
    put_file(w, "hole", "", 0);
    (void)snprintf(path, sizeof path, "%s/hole", w->dir);
    assert_int_equal(truncate(path, HOLE_SIZE), 0);
    AUTO(close_fd) int fd = open(path, O_WRONLY | O_CLOEXEC);
    assert_int_equal(file_pwrite(fd, "end", 3, HOLE_SIZE - 3), 0);
    (void)snprintf(path, sizeof path, "%s/many", w->dir);
    assert_int_equal(mkdir(path, 0755), 0);
    for (unsigned i = 0; i < ENTRIES; i++) {
        (void)snprintf(name, sizeof name, "many/a-longer-name-%04u", i);
        put_file(w, name, name, strlen(name));
    }
    (void)snprintf(path, sizeof path, "%s/link", w->dir);
    assert_int_equal(symlink("many/../hello", path), 0);
    (void)snprintf(path, sizeof path, "%s/hello", w->dir);
    w->has_xattr = setxattr(path, "user.colour", "blue", 4, 0) == 0;
}

static void open_view(struct world *w)
{
    struct err err = ERR_INIT;

    assert_int_equal(
        fetch_new(&(struct fetch_options){.store = w->store, .memory_bytes = MEMORY}, &w->fetch),
        0);
    int r = view_open(w->c, &w->published.info, w->fetch, &w->v, &err);
    if (r < 0)
        fail_msg("%s", err_text(&err, r));
}

static void close_view(struct world *w)
{
    view_close(w->v);
    w->v = NULL;
    fetch_free(w->fetch);
    w->fetch = NULL;
}

static int setup(void **state)
{
    struct world *w = calloc(1, sizeof *w);
    AUTO(source_close) struct source *s = NULL;
    struct err err = ERR_INIT;
    struct publish_options o = {
        .name = "t", .owner = "me", .host = "here", .pack_size_min = 2 << 20};

    assert_non_null(w);
    (void)snprintf(w->dir, sizeof w->dir, "/tmp/grid-test-view-XXXXXX");
    assert_non_null(mkdtemp(w->dir));
    make_tree(w);
    assert_int_equal(store_memory_new(&w->store), 0);
    assert_int_equal(catalogue_open(w->store, env_real(), CATALOGUE_WRITE, &w->c, &err), 0);
    assert_int_equal(source_directory_open(w->dir, &s, &err), 0);
    int r = publish_run(w->c, s, &o, &w->published, &err);
    if (r < 0)
        fail_msg("%s", err_text(&err, r));
    open_view(w);
    *state = w;
    return 0;
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    return remove(path);
}

static int teardown(void **state)
{
    struct world *w = *state;

    close_view(w);
    catalogue_close(w->c);
    store_close(w->store);
    (void)nftw(w->dir, remove_one, 16, FTW_DEPTH | FTW_PHYS); /* a left file does no harm */
    free(w->big);
    free(w);
    return 0;
}

static struct index_inode walk(struct world *w, const char *path)
{
    struct index_inode inode;

    assert_int_equal(view_walk(w->v, path, &inode), 0);
    return inode;
}

/* ---- reading
 * -------------------------------------------------------------------------------------------------
 */

static void test_read(void **state)
{
    struct world *w = *state;
    struct index_inode big = walk(w, "big"), hole = walk(w, "hole"), empty = walk(w, "empty");
    AUTO(free_ptr) uint8_t *data = malloc(BIG_SIZE);
    uint64_t x = 1234567;

    assert_non_null(data);
    assert_int_equal(big.size, BIG_SIZE);
    assert_int_equal(view_read(w->v, &big, 0, data, BIG_SIZE), BIG_SIZE);
    assert_memory_equal(data, w->big, BIG_SIZE);
    for (unsigned i = 0; i < 300; i++) {
        x ^= x << 13, x ^= x >> 7, x ^= x << 17;
        uint64_t offset = x % BIG_SIZE;
        size_t size = (x >> 32) % 300000 + 1, expect = size;
        if (expect > BIG_SIZE - offset)
            expect = (size_t)(BIG_SIZE - offset);
        assert_int_equal(view_read(w->v, &big, offset, data, size), expect);
        assert_memory_equal(data, w->big + offset, expect);
    }
    assert_int_equal(view_read(w->v, &big, BIG_SIZE, data, 1), 0);
    assert_int_equal(view_read(w->v, &big, UINT64_MAX, data, 1), 0);
    assert_int_equal(view_read(w->v, &empty, 0, data, 1), 0);

    memset(data, 1, 5 << 20);
    assert_int_equal(view_read(w->v, &hole, 1000, data, 5 << 20), 5 << 20);
    for (size_t i = 0; i < 5 << 20; i++)
        assert_int_equal(data[i], 0);
    assert_int_equal(view_read(w->v, &hole, HOLE_SIZE - 4, data, 10), 4);
    assert_memory_equal(data, "\0end", 4);

    for (unsigned i = 0; i < ENTRIES; i += 7) {
        char name[64];
        (void)snprintf(name, sizeof name, "many/a-longer-name-%04u", i);
        struct index_inode f = walk(w, name);
        assert_int_equal(view_read(w->v, &f, 0, data, 1000), (int)strlen(name));
        assert_memory_equal(data, name, strlen(name));
    }
}

static void load(struct world *w, char letter, const struct object_ref *ref, uint8_t *to,
                 size_t size)
{
    char key[OBJECT_KEY_MAX];
    size_t got = 0;

    object_ref_key(letter, ref, key);
    assert_int_equal(store_get(w->store, key, 0, to, size, &got, NULL), 0);
    assert_int_equal(got, size);
}

/* The flat image is the objects' bytes at the addresses that the index gives, and zeros. */
static void test_flat(void **state)
{
    struct world *w = *state;
    const struct manifest *m = view_manifest(w->v);
    const struct index *x = view_index(w->v);
    uint64_t size = view_flat_size(w->v), at = 0, step = 1;
    AUTO(free_ptr) uint8_t *expected = calloc(1, size);
    AUTO(free_ptr) uint8_t *found = malloc(size);

    assert_non_null(expected);
    assert_non_null(found);
    assert_int_equal(size % 4096, 0);
    assert_true(m->pack_count > 1);
    load(w, 'x', &m->index, expected, (size_t)m->index_size);
    for (uint32_t i = 0; i < m->pack_count; i++)
        load(w, 'p', &m->packs[i], expected + index_device_start(x, i + 1),
             (size_t)m->packs[i].data_size);
    assert_int_equal(view_flat_read(w->v, 0, found, size), 0);
    assert_memory_equal(found, expected, size);
    while (at < size) { /* pieces of all sizes, from anywhere to anywhere */
        uint64_t n = step < size - at ? step : size - at;
        memset(found, 0xaa, n);
        assert_int_equal(view_flat_read(w->v, at, found, n), 0);
        assert_memory_equal(found, expected + at, n);
        at += n;
        step = (step * 7 + 13) % 300007;
    }
    assert_int_equal(view_flat_read(w->v, size, found, 0), 0);
    assert_int_equal(view_flat_read(w->v, size, found, 1), -EINVAL);
    assert_int_equal(view_flat_read(w->v, size - 1, found, 2), -EINVAL);
    assert_int_equal(view_flat_read(w->v, UINT64_MAX, found, 2), -EINVAL);
}

static void test_wrong_types(void **state)
{
    struct world *w = *state;
    struct index_inode hello = walk(w, "hello"), many = walk(w, "many"), link = walk(w, "link");
    struct index_inode out;
    char target[INDEX_TARGET_MAX + 1], byte;

    assert_int_equal(view_read(w->v, &many, 0, &byte, 1), -EISDIR);
    assert_int_equal(view_read(w->v, &link, 0, &byte, 1), -EINVAL);
    assert_int_equal(view_lookup(w->v, hello.nid, "x", 1, &out), -ENOTDIR);
    assert_int_equal(view_lookup(w->v, many.nid, "x", 1, &out), -ENOENT);
    assert_int_equal(view_lookup(w->v, INDEX_ROOT_NID, "many", 4, &out), 0);
    assert_int_equal(out.nid, many.nid);
    assert_int_equal(view_readlink(w->v, link.nid, target), 0);
    assert_string_equal(target, "many/../hello");
    assert_true(view_readlink(w->v, hello.nid, target) < 0);
    assert_int_equal(view_walk(w->v, "none/x", &out), -ENOENT);
    assert_true(view_inode(w->v, UINT64_MAX / 64, &out) < 0);
    assert_true(view_inode(w->v, UINT64_MAX, &out) < 0);
    assert_true(view_inode(w->v, 0, &out) < 0);
}

struct seen {
    char names[ENTRIES + 2][32];
    uint64_t next;
    unsigned count, limit;
};

static int take(void *ctx, const struct index_entry *e)
{
    struct seen *s = ctx;

    if (s->limit-- == 0)
        return 1;
    assert_in_range(s->count, 0, ENTRIES + 1);
    (void)snprintf(s->names[s->count++], 32, "%.*s", e->name_length, e->name);
    s->next = e->next;
    return 0;
}

static void test_readdir(void **state)
{
    struct world *w = *state;
    struct index_inode many = walk(w, "many");
    struct seen whole = {.limit = UINT32_MAX}, parts = {.count = 0};

    assert_int_equal(view_readdir(w->v, many.nid, 0, take, &whole), 0);
    assert_int_equal(whole.count, ENTRIES + 2);
    for (unsigned step = 1; step < 100; step += 13) {
        parts.count = 0;
        parts.next = 0;
        for (unsigned before = UINT32_MAX; parts.count != before;) {
            before = parts.count;
            parts.limit = step;
            assert_int_equal(view_readdir(w->v, many.nid, parts.next, take, &parts), 0);
        }
        assert_int_equal(parts.count, whole.count);
        assert_memory_equal(parts.names, whole.names, sizeof whole.names);
    }
}

static int take_xattr(void *ctx, const char *name, size_t name_length, struct bytes value)
{
    unsigned *count = ctx;

    assert_int_equal(name_length, 6);
    assert_memory_equal(name, "colour", 6);
    assert_int_equal(value.size, 4);
    assert_memory_equal(value.data, "blue", 4);
    (*count)++;
    return 0;
}

static void test_xattrs(void **state)
{
    struct world *w = *state;
    struct index_inode hello = walk(w, "hello"), big = walk(w, "big");
    unsigned count = 0;

    assert_int_equal(view_xattrs(w->v, &big, take_xattr, &count), 0);
    assert_int_equal(count, 0);
    if (!w->has_xattr) {
        print_message("/tmp has no extended attributes\n");
        skip();
    }
    assert_int_equal(view_xattrs(w->v, &hello, take_xattr, &count), 0);
    assert_int_equal(count, 1);
}

/* ---- what goes wrong
 * -------------------------------------------------------------------------------------------- */

/* Put other bytes in an object's place. */
static void replace(struct world *w, const char *key, const struct buf *b)
{
    struct store_upload *u = NULL;

    assert_int_equal(store_remove(w->store, key), 0);
    assert_int_equal(store_upload(w->store, key, &u), 0);
    assert_int_equal(store_upload_write(u, b->data, b->size), 0);
    assert_int_equal(store_upload_commit(u), 0);
}

static void flip(struct world *w, const char *key, uint64_t offset)
{
    AUTO(buf_release) struct buf b = BUF_INIT(64u << 20);

    assert_int_equal(store_get_all(w->store, key, &b), 0);
    assert_true(offset < b.size);
    b.data[offset] ^= 1;
    replace(w, key, &b);
}

static uint64_t place_of(struct world *w, const char *path, uint64_t offset,
                         char key[OBJECT_KEY_MAX])
{
    struct index_inode f = walk(w, path);
    struct index_extent e;

    assert_int_equal(index_map(view_index(w->v), &f, offset, &e), 0);
    assert_int_not_equal(e.device, 0);
    object_ref_key('p', &view_manifest(w->v)->packs[e.device - 1], key);
    return e.block * PACK_BLOCK + (offset - e.chunk_offset);
}

static void test_damaged_data(void **state)
{
    struct world *w = *state;
    char key[OBJECT_KEY_MAX];
    const uint64_t hurt = 5 * PACK_LEAF_MAX + 77;
    AUTO(free_ptr) uint8_t *data = malloc(BIG_SIZE);

    assert_non_null(data);
    flip(w, key, place_of(w, "big", hurt, key));
    close_view(w);
    open_view(w);
    struct index_inode big = walk(w, "big");
    for (uint64_t at = 0; at < BIG_SIZE; at += 4096) {
        size_t n = at + 4096 < BIG_SIZE ? 4096 : (size_t)(BIG_SIZE - at);
        ssize_t r = view_read(w->v, &big, at, data, n);
        if (at / PACK_LEAF_MAX == hurt / PACK_LEAF_MAX) {
            assert_int_equal(r, -EIO);
        } else {
            assert_int_equal(r, n);
            assert_memory_equal(data, w->big + at, n);
        }
    }
    assert_int_equal(view_read(w->v, &big, 0, data, BIG_SIZE), -EIO);
}

static void test_missing_pack(void **state)
{
    struct world *w = *state;
    char key[OBJECT_KEY_MAX], target[INDEX_TARGET_MAX + 1], byte;

    (void)place_of(w, "hello", 0, key);
    assert_int_equal(store_remove(w->store, key), 0);
    struct index_inode hello = walk(w, "hello");
    assert_int_equal(view_read(w->v, &hello, 0, &byte, 1), -EIO);
    assert_int_equal(view_readlink(w->v, walk(w, "link").nid, target), 0);
}

/* A name in a part of the index that cannot be read is not a name that does not exist. */
static void test_missing_index(void **state)
{
    struct world *w = *state;
    char key[OBJECT_KEY_MAX];
    struct index_inode out;
    struct err err = ERR_INIT;
    struct view *v = NULL;

    object_ref_key('x', &view_manifest(w->v)->index, key);
    close_view(w);
    open_view(w);
    AUTO(buf_release) struct buf b = BUF_INIT(64u << 20);
    assert_int_equal(store_get_all(w->store, key, &b), 0);
    assert_int_equal(store_remove(w->store, key), 0);
    unsigned failed = 0;
    for (unsigned i = 0; i < ENTRIES; i++) {
        char name[64];
        (void)snprintf(name, sizeof name, "many/a-longer-name-%04u", i);
        int r = view_walk(w->v, name, &out);
        assert_true(r == 0 || r == -EIO);
        failed += r != 0;
    }
    assert_true(failed > 0);
    close_view(w);
    assert_int_equal(
        fetch_new(&(struct fetch_options){.store = w->store, .memory_bytes = MEMORY}, &w->fetch),
        0);
    assert_int_equal(view_open(w->c, &w->published.info, w->fetch, &v, &err), -EIO);
    assert_non_null(strstr(err.text, key));
    assert_non_null(strstr(err.text, "not in the store"));

    /* Damaged where the superblock is. */
    struct store_upload *u = NULL;
    b.data[1030] ^= 1;
    assert_int_equal(store_upload(w->store, key, &u), 0);
    assert_int_equal(store_upload_write(u, b.data, b.size), 0);
    assert_int_equal(store_upload_commit(u), 0);
    err_clear(&err);
    assert_int_equal(view_open(w->c, &w->published.info, w->fetch, &v, &err), -EBADMSG);
    assert_non_null(strstr(err.text, key));
    assert_null(v);
}

/* Commit a version whose manifest was changed, and open it. */
static int open_changed(struct world *w, void (*change)(struct manifest *m), struct err *err)
{
    AUTO(manifest_release) struct manifest m = {.version = 0};
    AUTO(upload_free) struct upload *u = NULL;
    AUTO(view_close) struct view *v = NULL;
    struct version_info info;
    struct upload_terms terms = {.name = "t", .owner = "me", .host = "here", .source = "x"};

    assert_int_equal(catalogue_manifest(w->c, &w->published.info, &m, NULL), 0);
    change(&m);
    assert_int_equal(upload_begin(w->c, &terms, &u, err), 0);
    int r = upload_commit(u, &m, &info, err);
    if (r < 0)
        fail_msg("the manifest was refused: %s", err_text(err, r));
    return view_open(w->c, &info, w->fetch, &v, err);
}

static void no_change(struct manifest *m)
{
}

static void swap_packs(struct manifest *m)
{
    struct object_ref first = m->packs[0];

    m->packs[0] = m->packs[1];
    m->packs[1] = first;
}

static void drop_pack(struct manifest *m)
{
    m->pack_count--;
}

static void shorten_data(struct manifest *m)
{
    m->packs[0].data_size -= PACK_BLOCK;
    m->packs[0].used_blocks = 1;
}

static void other_digest(struct manifest *m)
{
    m->index.digest.byte[0] ^= 1;
}

static void test_manifest_and_index_differ(void **state)
{
    struct world *w = *state;
    struct err err = ERR_INIT;

    assert_true(view_manifest(w->v)->pack_count >= 2);
    assert_int_equal(open_changed(w, no_change, &err), 0);
    assert_int_equal(open_changed(w, swap_packs, &err), -EPROTO);
    assert_non_null(strstr(err.text, "pack 1 of its index is not the one in its manifest"));
    err_clear(&err);
    assert_int_equal(open_changed(w, drop_pack, &err), -EPROTO);
    err_clear(&err);
    assert_int_equal(open_changed(w, shorten_data, &err), -EPROTO);
    err_clear(&err);
    assert_int_equal(open_changed(w, other_digest, &err), -EBADMSG);
    assert_non_null(strstr(err.text, "damaged"));
}

#define CASE(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(test_read),         CASE(test_flat),          CASE(test_wrong_types),
        CASE(test_readdir),      CASE(test_xattrs),        CASE(test_damaged_data),
        CASE(test_missing_pack), CASE(test_missing_index), CASE(test_manifest_and_index_differ),
    };
    int fd = open("/dev/null", O_WRONLY | O_CLOEXEC);

    if (fd < 0)
        return 1;
    log_init(fd, LOG_LEVEL_DEBUG, "test");
    return cmocka_run_group_tests(tests, NULL, NULL);
}
