/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Packs: what is written can be read back leaf by leaf and keeps its bytes for ever (golden
 * digests), and a writer refuses what a reader would refuse.
 *
 * `test-pack --write-golden DIR` writes the golden packs and their digests anew. That is right only
 * for a new version of the format.
 */
#include "pack-object.h"

#include "base/file.h"
#include "base/le.h"

#include <fcntl.h>
#include <stdio.h>

/* Find one block the way a reader does: page by page, verified. */
static void look_up(const struct object *o, const struct pack_trailer *t, uint64_t block,
                    struct pack_leaf_at *ret)
{
    struct pack_page_ref group_ref, ref;
    const uint8_t *group = NULL;

    if (pack_trailer_has_groups(t)) {
        assert_int_equal(pack_trailer_find_group(t, block, &group_ref), 0);
        group = o->bytes.data + group_ref.offset;
        assert_int_equal(pack_page_verify(t, &group_ref, group), 0);
    }
    assert_int_equal(pack_trailer_find_page(t, group, group ? &group_ref : NULL, block, &ref), 0);
    const uint8_t *page = o->bytes.data + ref.offset;
    assert_int_equal(pack_page_verify(t, &ref, page), 0);
    assert_int_equal(pack_page_find(t, page, ref.number, block, ret), 0);
    assert_true(ret->block <= block && block < ret->block + pack_blocks(ret->leaf.length));
}

static void round_trip(const struct object *o)
{
    AUTO(pack_trailer_free) struct pack_trailer *t = parse(o);
    struct reading r = {.o = o, .stop_at = UINT64_MAX};
    uint64_t blocks = o->summary.data_size / PACK_BLOCK;
    struct pack_page_ref ref;
    struct pack_leaf_at at;

    assert_true(pack_trailer_data_size(t) == o->summary.data_size);
    assert_true(pack_trailer_leaf_count(t) == o->summary.leaf_count);
    assert_int_equal(pack_each_leaf(t, read_object, &r, check_leaf, &r), 0);
    assert_true(r.leaves == o->summary.leaf_count);
    assert_true(r.next_block == blocks);
    assert_true(r.reads <= pack_trailer_page_count(t) / 32 + 2);

    uint64_t step = blocks > 3000 ? blocks / 997 : 1;
    for (uint64_t block = 0; block < blocks; block += step)
        look_up(o, t, block, &at);
    look_up(o, t, blocks - 1, &at);
    assert_true(at.number == o->summary.leaf_count - 1);
    if (pack_trailer_has_groups(t)) {
        assert_int_equal(pack_trailer_find_group(t, blocks, &ref), -ENOENT);
        assert_int_equal(pack_trailer_find_page(t, NULL, NULL, 0, &ref), -EINVAL);
        assert_int_equal(pack_trailer_page(t, 0, &ref), -EINVAL);
    } else {
        assert_int_equal(pack_trailer_find_group(t, 0, &ref), -EINVAL);
        assert_int_equal(pack_trailer_find_page(t, NULL, NULL, blocks, &ref), -ENOENT);
        assert_int_equal(pack_trailer_page(t, pack_trailer_page_count(t), &ref), -EINVAL);
        assert_int_equal(pack_trailer_page(t, pack_trailer_page_count(t) - 1, &ref), 0);
        assert_true(ref.end_block == blocks);
    }
}

static void golden_packs(void **state)
{
    for (size_t i = 0; i < sizeof goldens / sizeof *goldens; i++) {
        const struct golden *g = &goldens[i];
        AUTO(object_release) struct object o;
        AUTO(buf_release) struct buf want = BUF_INIT(1000);
        char path[256], hex[DIGEST_HEX_SIZE];

        build_golden(&o, g);
        (void)snprintf(path, sizeof path, GOLDEN_DIR "/%s.digest", g->name);
        assert_int_equal(file_slurp(AT_FDCWD, path, &want), 0);
        digest_to_hex(&o.summary.digest, hex);
        assert_int_equal(want.size, 65);
        assert_memory_equal(want.data, hex, 64);
        AUTO(pack_trailer_free) struct pack_trailer *t = parse(&o);
        assert_int_equal(pack_trailer_page_count(t), g->pages);
        assert_int_equal(pack_trailer_has_groups(t), g->levels == 2);
        round_trip(&o);
    }
}

/* A pack from the past, parsed with nothing but the digest that names it. */
static void golden_file(void **state)
{
    AUTO(object_release) struct object o = {.kind = PACK_KIND_DATA, .bytes = BUF_INIT(OBJECT_MAX)};
    AUTO(object_release) struct object now;

    assert_int_equal(file_slurp(AT_FDCWD, GOLDEN_DIR "/pack-small.pack", &o.bytes), 0);
    build_golden(&now, golden_named("pack-small"));
    o.summary = now.summary;
    assert_int_equal(o.bytes.size, now.bytes.size);
    round_trip(&o);
}

static void page_borders(void **state)
{
    static const uint64_t counts[] = {101, 102, 103, 204, 205, 6528, 6529};

    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        AUTO(object_release) struct object o;
        build(&o, PACK_KIND_DATA, counts[i], length_one, false);
        round_trip(&o);
    }
}

static void walk_can_stop(void **state)
{
    AUTO(object_release) struct object o;
    build_golden(&o, golden_named("pack-mixed"));
    AUTO(pack_trailer_free) struct pack_trailer *t = parse(&o);
    struct reading r = {.o = &o, .stop_at = 120};

    assert_int_equal(pack_each_leaf(t, read_object, &r, check_leaf, &r), 77);
    assert_true(r.leaves == 120);
    assert_true(r.blobs == 117);

    AUTO(object_release) struct object big;
    build(&big, PACK_KIND_DATA, 102 * 64 + 1, length_one, false);
    AUTO(pack_trailer_free) struct pack_trailer *u = parse(&big);
    r = (struct reading){.o = &big, .stop_at = UINT64_MAX, .read_fails = -ENODEV};
    assert_int_equal(pack_each_leaf(u, read_object, &r, check_leaf, &r), -ENODEV);
    assert_true(r.leaves == 102 * 64);
}

static void blob_identity(void **state)
{
    struct pack_leaf l[2] = {{.length = PACK_LEAF_MAX, .starts_blob = true}, {.length = 10}};
    uint8_t text[24 + 64] = "grid blob v1";

    l[0].digest = digest_of("a", 1);
    l[1].digest = digest_of("b", 1);
    struct digest one = pack_blob_id(l, 1), two = pack_blob_id(l, 2);
    assert_true(digest_equal(&one, &l[0].digest));
    le64_put(text + 16, PACK_LEAF_MAX + 10);
    memcpy(text + 24, l[0].digest.byte, 32);
    memcpy(text + 56, l[1].digest.byte, 32);
    struct digest plain = digest_of(text, sizeof text);
    assert_false(digest_equal(&two, &plain)); /* what a small file with this content would get */
    for (size_t i = 0; i < DIGEST_SIZE; i++)
        assert_int_equal(two.byte[i], plain.byte[i] ^ 0xff);
    l[1].length = 11;
    struct digest longer = pack_blob_id(l, 2);
    assert_false(digest_equal(&two, &longer));
}

static int sink_counts(void *ctx, const void *data, size_t size)
{
    *(uint64_t *)ctx += size;
    return 0;
}

static void writer_refuses(void **state)
{
    AUTO(pack_writer_free) struct pack_writer *w = NULL;
    uint8_t data[2 * PACK_BLOCK] = {1};
    struct pack_leaf one = {digest_of(data, 1), 1, true};
    struct pack_summary s;
    uint64_t written = 0, block = 5, leaf = 6;

    assert_int_equal(pack_writer_new(4, sink_counts, &written, &w), -EINVAL);
    assert_int_equal(pack_writer_new(PACK_KIND_DATA, sink_counts, &written, &w), 0);
    assert_int_equal(pack_writer_finish(w, &s), -EINVAL); /* no leaves */
    assert_int_equal(add_leaf(w, 0, 1, false), -EINVAL);  /* the first must start a blob */
    assert_int_equal(pack_writer_add(w, &one, 0, data, 0, &block, &leaf), -EINVAL);
    assert_int_equal(pack_writer_add(w, &one, 1, data, 1, &block, &leaf), -EINVAL);
    assert_int_equal(pack_writer_add(w, &one, 1, data, 1024, &block, &leaf), -EINVAL);
    data[511] = 1; /* padding */
    assert_int_equal(pack_writer_add(w, &one, 1, data, 512, &block, &leaf), -EINVAL);
    data[511] = 0;
    one.length = 0;
    assert_int_equal(pack_writer_add(w, &one, 1, data, 0, &block, &leaf), -EINVAL);
    one.length = PACK_LEAF_MAX + 1;
    assert_int_equal(pack_writer_add(w, &one, 1, data, 512, &block, &leaf), -EINVAL);
    assert_true(written == 0 && block == 5 && leaf == 6);

    assert_int_equal(add_leaf(w, 0, 100, true), 0);
    assert_int_equal(add_leaf(w, 1, 1, false), -EINVAL); /* behind a short leaf */
    for (uint64_t i = 1; i < 129; i++)
        assert_int_equal(add_leaf(w, i, FULL, i == 1), 0);
    assert_int_equal(add_leaf(w, 129, 1, false), -EINVAL); /* the blob is 8 MiB */
    assert_int_equal(add_leaf(w, 129, 1, true), 0);
    assert_int_equal(pack_writer_finish(w, &s), 0);
    assert_true(written == s.length);
    assert_int_equal(add_leaf(w, 130, 1, true), -EINVAL);
    assert_int_equal(pack_writer_finish(w, &s), -EINVAL);
}

static void index_writer_refuses(void **state)
{
    AUTO(pack_writer_free) struct pack_writer *w = NULL;
    uint64_t written = 0;

    assert_int_equal(pack_writer_new(PACK_KIND_INDEX, sink_counts, &written, &w), 0);
    assert_int_equal(add_leaf(w, 0, PACK_INDEX_LEAF, true), -EINVAL);
    assert_int_equal(add_leaf(w, 0, PACK_INDEX_LEAF + 1, false), -EINVAL);
    assert_int_equal(add_leaf(w, 0, PACK_INDEX_LEAF, false), 0);
    assert_int_equal(add_leaf(w, 1, 512, false), 0);
    assert_int_equal(add_leaf(w, 2, 512, false), -EINVAL); /* only the last may be shorter */
}

static void writer_limits(void **state)
{
    AUTO(pack_writer_free) struct pack_writer *w = NULL;
    AUTO(free_ptr) uint8_t *data = calloc(1, PACK_BLOB_MAX);
    static struct pack_leaf l[16384];
    uint64_t written = 0, block, leaf, bytes = 0;

    for (size_t i = 0; i < 16384; i++)
        l[i] = (struct pack_leaf){.length = 1, .starts_blob = true};
    assert_int_equal(pack_writer_new(PACK_KIND_DATA, sink_counts, &written, &w), 0);
    for (unsigned i = 0; i < PACK_LEAVES_MAX / 16384; i++)
        assert_int_equal(pack_writer_add(w, l, 16384, data, 16384 * 512, &block, &leaf), 0);
    assert_true(leaf == PACK_LEAVES_MAX - 16384);
    assert_int_equal(pack_writer_add(w, l, 1, data, 512, &block, &leaf), -EFBIG);
    pack_writer_free(take_ptr(&w));

    assert_int_equal(pack_writer_new(PACK_KIND_DATA, sink_counts, &written, &w), 0);
    for (size_t i = 0; i < 128; i++)
        l[i] = (struct pack_leaf){.length = FULL, .starts_blob = i == 0};
    for (; bytes < PACK_DATA_MAX; bytes += PACK_BLOB_MAX)
        assert_int_equal(pack_writer_add(w, l, 128, data, PACK_BLOB_MAX, &block, &leaf), 0);
    written = 0;
    assert_int_equal(pack_writer_add(w, l, 1, data, 65536, &block, &leaf), -EFBIG);
    assert_true(written == 0 && pack_writer_data_size(w) == PACK_DATA_MAX);
    struct pack_summary s;
    assert_int_equal(pack_writer_finish(w, &s), 0);
    assert_true(s.data_size == PACK_DATA_MAX && s.leaf_count == 65536);
}

static int sink_fails(void *ctx, const void *data, size_t size)
{
    unsigned *left = ctx;
    return (*left)-- == 0 ? -ENOSPC : 0;
}

static void sink_errors(void **state)
{
    for (unsigned calls = 0; calls < 4; calls++) {
        AUTO(pack_writer_free) struct pack_writer *w = NULL;
        unsigned left = calls;
        struct pack_summary s;

        assert_int_equal(pack_writer_new(PACK_KIND_DATA, sink_fails, &left, &w), 0);
        int first = add_leaf(w, 0, 1, true), second = add_leaf(w, 1, 1, true);
        assert_int_equal(first, calls == 0 ? -ENOSPC : 0);
        assert_int_equal(second, calls <= 1 ? -ENOSPC : 0);
        assert_int_equal(pack_writer_finish(w, &s), -ENOSPC); /* table, trailer: calls 2 and 3 */
        assert_int_equal(pack_writer_finish(w, &s), -ENOSPC);
    }
}

static int write_file(const char *dir, const char *name, const char *suffix, const void *data,
                      size_t size)
{
    char path[4096];

    (void)snprintf(path, sizeof path, "%s/%s%s", dir, name, suffix);
    AUTO(close_fd) int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    return fd < 0 ? -errno : file_write(fd, data, size);
}

static void write_golden(const char *dir)
{
    for (size_t i = 0; i < sizeof goldens / sizeof *goldens; i++) {
        AUTO(object_release) struct object o;
        char hex[DIGEST_HEX_SIZE + 1];
        build_golden(&o, &goldens[i]);
        digest_to_hex(&o.summary.digest, hex);
        memcpy(hex + 64, "\n", 2);
        if (write_file(dir, goldens[i].name, ".digest", hex, 65) < 0 ||
            write_file(dir, goldens[i].name, ".pack", o.bytes.data, o.bytes.size) < 0)
            (void)fprintf(stderr, "%s: cannot be written\n", goldens[i].name);
    }
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(golden_packs),         cmocka_unit_test(golden_file),
        cmocka_unit_test(page_borders),         cmocka_unit_test(walk_can_stop),
        cmocka_unit_test(blob_identity),        cmocka_unit_test(writer_refuses),
        cmocka_unit_test(index_writer_refuses), cmocka_unit_test(writer_limits),
        cmocka_unit_test(sink_errors),
    };

    if (argc == 3 && strcmp(argv[1], "--write-golden") == 0) {
        write_golden(argv[2]);
        return 0;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
