/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Packs: what is written can be read back leaf by leaf, keeps its bytes for ever (golden digests),
 * and whatever was changed in it is refused.
 *
 * `test-pack --write-golden DIR` writes the golden packs and their digests anew. That is right only
 * for a new version of the format.
 */
#include "pack/pack.h"

#include "base/file.h"
#include "base/le.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define OBJECT_MAX (64u << 20)
#define HEADER     64u
#define ROW        40u
#define FULL       PACK_LEAF_MAX

/* A pack in memory, with what is needed to read it. */
struct object {
    enum pack_kind kind;
    struct buf bytes;
    struct pack_summary summary;
};

static int sink_to_buf(void *ctx, const void *data, size_t size)
{
    return buf_append(ctx, data, size);
}

static void object_release(struct object *o)
{
    buf_release(&o->bytes);
}

static inline void auto_object_release(struct object *o)
{
    object_release(o);
}

/* The content of leaf `number`: fixed for ever, the golden digests depend on it. */
static void fill(uint8_t *p, size_t size, uint64_t number)
{
    for (size_t i = 0; i < size; i++)
        p[i] = (uint8_t)(number * 131 + i * 7 + (i >> 8) + (number >> 8));
}

static int add_leaf(struct pack_writer *w, uint64_t number, uint32_t length, bool starts)
{
    uint8_t data[PACK_LEAF_MAX + PACK_BLOCK] = {0};
    uint64_t block, leaf, before = pack_writer_data_size(w);

    fill(data, length, number);
    struct pack_leaf l = {digest_of(data, length), length, starts};
    int r = pack_writer_add(w, &l, 1, data, pack_blocks(length) * PACK_BLOCK, &block, &leaf);
    if (r == 0) {
        assert_true(block == before / PACK_BLOCK);
        assert_true(leaf == number);
    }
    return r;
}

/* How long leaf `number` of a pack is; UINT32_MAX: does not start a blob and is full. */
typedef uint32_t length_fn(uint64_t number);

static uint32_t length_one(uint64_t number)
{
    return 1;
}

static uint32_t length_small(uint64_t number)
{
    return (uint32_t)(1 + number * 37 % 512);
}

/* A file of 3 leaves at the start and one of 2 leaves across the first border of pages. */
static uint32_t length_mixed(uint64_t number)
{
    if (number == 0 || number == 101)
        return FULL;
    if (number == 1)
        return UINT32_MAX;
    return (uint32_t)(1 + number * 1237 % 3000);
}

static bool starts_mixed(uint64_t number)
{
    return number != 1 && number != 2 && number != 102;
}

static void build(struct object *ret, enum pack_kind kind, uint64_t count, length_fn *length,
                  bool mixed)
{
    AUTO(pack_writer_free) struct pack_writer *w = NULL;

    *ret = (struct object){.kind = kind, .bytes = BUF_INIT(OBJECT_MAX)};
    assert_int_equal(pack_writer_new(kind, sink_to_buf, &ret->bytes, &w), 0);
    for (uint64_t i = 0; i < count; i++) {
        uint32_t n = length(i);
        bool starts = kind == PACK_KIND_DATA && (!mixed || starts_mixed(i));
        if (add_leaf(w, i, n == UINT32_MAX ? FULL : n, starts) != 0)
            fail_msg("leaf %llu was refused", (unsigned long long)i);
    }
    assert_int_equal(pack_writer_finish(w, &ret->summary), 0);
    assert_true(ret->summary.length == ret->bytes.size);
    assert_true(ret->summary.leaf_count == count);
    assert_true(ret->summary.trailer_offset + ret->summary.trailer_length == ret->bytes.size);
}

static uint32_t length_index(uint64_t number)
{
    return number == 4 ? 100 : PACK_INDEX_LEAF;
}

static const struct golden {
    const char *name;
    enum pack_kind kind;
    uint64_t count;
    length_fn *length;
    bool mixed;
    uint32_t pages, levels;
} goldens[] = {
    {"pack-one", PACK_KIND_DATA, 1, length_one, false, 1, 1},
    {"pack-small", PACK_KIND_DATA, 110, length_small, false, 2, 1},
    {"pack-mixed", PACK_KIND_DATA, 250, length_mixed, true, 3, 1},
    {"pack-full-pages", PACK_KIND_DATA, 204, length_small, false, 2, 1},
    {"pack-one-level", PACK_KIND_DATA, 104448, length_one, false, 1024, 1},
    {"pack-two-levels", PACK_KIND_DATA, 104449, length_one, false, 1025, 2},
    {"pack-index", PACK_KIND_INDEX, 5, length_index, false, 1, 1},
};

static void build_golden(struct object *ret, const struct golden *g)
{
    build(ret, g->kind, g->count, g->length, g->mixed);
}

static const struct golden *golden_named(const char *name)
{
    for (size_t i = 0; i < sizeof goldens / sizeof *goldens; i++) {
        if (strcmp(goldens[i].name, name) == 0)
            return &goldens[i];
    }
    fail_msg("no golden pack %s", name);
    return NULL;
}

static struct bytes trailer_of(const struct object *o)
{
    return bytes_of(o->bytes.data + o->summary.trailer_offset, o->summary.trailer_length);
}

static struct pack_trailer *parse(const struct object *o)
{
    struct pack_trailer *t = NULL;
    struct err err = ERR_INIT;
    int r = pack_trailer_parse(trailer_of(o), o->kind, &o->summary, &t, &err);
    if (r < 0)
        fail_msg("the trailer was refused: %s", err_text(&err, r));
    return t;
}

/* ---- reading back ------------------------------------------------------------------------------
 */

struct reading {
    const struct object *o;
    uint64_t reads, leaves, next_block, blobs;
    uint64_t stop_at; /* leaf number */
    int read_fails;   /* the error of the second read, if not 0 */
};

static int read_object(void *ctx, uint64_t offset, void *data, size_t size)
{
    struct reading *r = ctx;
    if (++r->reads == 2 && r->read_fails)
        return r->read_fails;
    assert_true(offset <= r->o->bytes.size && size <= r->o->bytes.size - offset);
    memcpy(data, r->o->bytes.data + offset, size);
    return 0;
}

static int check_leaf(void *ctx, const struct pack_leaf_at *at)
{
    struct reading *r = ctx;
    if (at->number == r->stop_at)
        return 77;
    const uint8_t *data = r->o->bytes.data + at->block * PACK_BLOCK;
    struct digest d = digest_of(data, at->leaf.length);
    if (at->number != r->leaves || at->block != r->next_block ||
        !digest_equal(&d, &at->leaf.digest))
        fail_msg("leaf %llu came out wrong", (unsigned long long)at->number);
    r->leaves++;
    r->blobs += at->leaf.starts_blob;
    r->next_block += pack_blocks(at->leaf.length);
    return 0;
}

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

/* ---- what a writer refuses ---------------------------------------------------------------------
 */

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

    assert_int_equal(pack_writer_new(3, sink_counts, &written, &w), -EINVAL);
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

/* ---- what a reader refuses ---------------------------------------------------------------------
 */

static int parse_code(const struct object *o, struct bytes trailer, bool fix_digest)
{
    struct pack_trailer *t = NULL;
    struct pack_summary s = o->summary;
    struct err err = ERR_INIT;

    if (fix_digest)
        s.digest = digest_of(trailer.data, trailer.size);
    int r = pack_trailer_parse(trailer, o->kind, &s, &t, &err);
    assert_true(r == 0 ? t && !err.text[0] : !t && err.text[0]);
    pack_trailer_free(t);
    return r;
}

/* Each bit of a trailer: refused as damage; with a digest that fits it, refused by the rules, but
 * for the digests in its rows, which only the pages can contradict. */
static void flipped_trailers(void **state)
{
    static const char *const names[] = {"pack-small", "pack-index", "pack-two-levels"};

    for (size_t k = 0; k < sizeof names / sizeof *names; k++) {
        AUTO(object_release) struct object o;
        build_golden(&o, golden_named(names[k]));
        struct bytes t = trailer_of(&o);
        uint8_t *p = o.bytes.data + o.summary.trailer_offset;
        for (size_t bit = 0; bit < t.size * 8; bit++) {
            size_t at = bit / 8;
            p[at] ^= (uint8_t)(1 << bit % 8);
            assert_int_equal(parse_code(&o, t, false), -EBADMSG);
            int r = parse_code(&o, t, true);
            bool in_row = at >= HEADER, in_digest = in_row && (at - HEADER) % ROW < 32;
            bool is_block = in_row && (at - HEADER) % ROW >= 32 && (at - HEADER) % ROW < 36;
            if (in_digest)
                assert_int_equal(r, 0);
            else if (at >= 8 && at < 12)
                assert_int_equal(r, bit == 64 ? -EPROTO : -EPROTONOSUPPORT);
            else if (!is_block || at < HEADER + ROW) /* other blocks may still be in order */
                assert_int_equal(r, -EPROTO);
            p[at] ^= (uint8_t)(1 << bit % 8);
        }
        assert_int_equal(parse_code(&o, t, false), 0);
    }
}

static void wrong_expectations(void **state)
{
    AUTO(object_release) struct object o;
    build_golden(&o, golden_named("pack-small"));
    const struct pack_summary good = o.summary;
    struct bytes t = trailer_of(&o);

    o.summary.length++;
    assert_int_equal(parse_code(&o, t, false), -EPROTO);
    o.summary = good;
    o.summary.data_size += PACK_BLOCK;
    assert_int_equal(parse_code(&o, t, false), -EPROTO);
    o.summary = good;
    o.summary.leaf_count--;
    assert_int_equal(parse_code(&o, t, false), -EPROTO);
    o.summary = good;
    o.summary.trailer_offset = 0;
    assert_int_equal(parse_code(&o, t, false), -EPROTO);
    o.summary = good;
    o.summary.trailer_length++;
    assert_int_equal(parse_code(&o, t, false), -EBADMSG);
    o.summary = good;
    o.summary.digest.byte[31] ^= 1;
    assert_int_equal(parse_code(&o, t, false), -EBADMSG);
    o.summary = good;
    o.kind = PACK_KIND_INDEX;
    assert_int_equal(parse_code(&o, t, false), -EPROTO);
    o.kind = PACK_KIND_DATA;
    for (size_t n = 0; n < t.size; n++) {
        assert_int_equal(parse_code(&o, bytes_of(t.data, n), false), -EBADMSG);
        o.summary.trailer_length = (uint32_t)n;
        assert_true(parse_code(&o, bytes_of(t.data, n), true) < 0);
        o.summary = good;
    }
}

/* Header fields that are wrong together, so that only one rule can refuse them. */
static void impossible_shapes(void **state)
{
    static const struct {
        uint64_t data_size, leaf_count;
    } bad[] = {
        {0, 0},
        {0, 1},
        {512, 0},
        {513, 1},
        {512, 2},                              /* more leaves than blocks */
        {131072 + 512, 2},                     /* leaves longer than 64 KiB */
        {PACK_DATA_MAX + 512, 1 << 20},        /* too large */
        {UINT64_MAX - 511, UINT64_C(1) << 40}, /* sums that would overflow */
        {UINT64_MAX - 511, UINT64_MAX / 512},
        {512, UINT64_MAX},
    };
    AUTO(object_release) struct object o;
    build_golden(&o, golden_named("pack-small"));
    uint8_t *p = o.bytes.data + o.summary.trailer_offset;

    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        le64_put(p + 16, o.summary.data_size = bad[i].data_size);
        le64_put(p + 24, o.summary.leaf_count = bad[i].leaf_count);
        assert_int_equal(parse_code(&o, trailer_of(&o), true), -EPROTO);
    }
}

/* The rows of a page that was accepted must tile, whatever was changed in it. */
static void assert_tiles(const struct pack_trailer *t, const struct pack_page_ref *ref,
                         const uint8_t *page)
{
    uint64_t block = ref->first_block;

    for (uint32_t i = 0; i < pack_page_leaf_count(t, ref->number); i++) {
        struct pack_leaf_at at = pack_page_leaf(page, ref->number, i);
        if (at.block != block || at.leaf.length < 1 || at.leaf.length > PACK_LEAF_MAX)
            fail_msg("row %u of an accepted page is wrong", i);
        block += pack_blocks(at.leaf.length);
    }
    assert_true(block == ref->end_block);
}

static void flipped_pages(void **state)
{
    AUTO(object_release) struct object o;
    build_golden(&o, golden_named("pack-mixed"));
    AUTO(pack_trailer_free) struct pack_trailer *t = parse(&o);
    unsigned accepted = 0;

    for (uint32_t number = 0; number < pack_trailer_page_count(t); number++) {
        struct pack_page_ref ref, forged;
        assert_int_equal(pack_trailer_page(t, number, &ref), 0);
        uint8_t *page = o.bytes.data + ref.offset;
        uint32_t used = pack_page_leaf_count(t, number) * ROW;
        for (uint32_t bit = 0; bit < PACK_PAGE * 8; bit++) {
            uint32_t at = bit / 8, field = at % ROW;
            if (at < used && field < 32 && bit % 8 != at % 8)
                continue; /* one bit of each byte of a digest is enough */
            page[at] ^= (uint8_t)(1 << bit % 8);
            assert_int_equal(pack_page_verify(t, &ref, page), -EBADMSG);
            forged = ref;
            forged.digest = digest_of(page, PACK_PAGE);
            int r = pack_page_verify(t, &forged, page);
            if (at >= used || (field >= 32 && field < 36))
                assert_int_equal(r, -EPROTO);
            else if (field < 32)
                assert_int_equal(r, 0);
            else if (r == 0) {
                assert_tiles(t, &forged, page);
                accepted++;
            } else {
                assert_int_equal(r, -EPROTO);
            }
            page[at] ^= (uint8_t)(1 << bit % 8);
        }
    }
    assert_in_range(accepted, 1, 250 * 10); /* low bits of lengths; marks behind full leaves */
}

/* Change 4 bytes of page `number`, forge all digests above, and walk. */
static int walk_changed(struct object *o, uint32_t number, uint32_t offset, uint32_t value)
{
    uint8_t *trailer = o->bytes.data + o->summary.trailer_offset;
    uint8_t *page = o->bytes.data + o->summary.data_size + (uint64_t)number * PACK_PAGE;
    uint32_t before = le32_get(page + offset);
    const struct pack_summary good = o->summary;
    struct reading r = {.o = o, .stop_at = UINT64_MAX};

    le32_put(page + offset, value);
    struct digest d = digest_of(page, PACK_PAGE);
    memcpy(trailer + HEADER + (size_t)number * ROW, d.byte, 32);
    o->summary.digest = digest_of(trailer, o->summary.trailer_length);
    struct pack_trailer *t = parse(o);
    int code = pack_each_leaf(t, read_object, &r, check_leaf, &r);
    pack_trailer_free(t);
    le32_put(page + offset, before);
    d = digest_of(page, PACK_PAGE);
    memcpy(trailer + HEADER + (size_t)number * ROW, d.byte, 32);
    o->summary = good;
    return code;
}

static void broken_pages(void **state)
{
    AUTO(object_release) struct object o;
    build_golden(&o, golden_named("pack-mixed"));
    const uint32_t starts = 0x80000000u, info = 36;

    assert_int_equal(walk_changed(&o, 0, info, FULL | starts), 0); /* as it was */
    assert_int_equal(walk_changed(&o, 0, info, FULL), -EPROTO);    /* first leaf of the pack */
    assert_int_equal(walk_changed(&o, 0, info, starts), -EPROTO);  /* length 0 */
    assert_int_equal(walk_changed(&o, 0, info, (FULL + 1) | starts), -EPROTO);
    assert_int_equal(walk_changed(&o, 0, info, FULL | starts | 1 << 17), -EPROTO);
    assert_int_equal(walk_changed(&o, 0, info, (FULL - 1) | starts),
                     -EPROTO);                                          /* not a blob's end */
    assert_int_equal(walk_changed(&o, 0, info, 512 | starts), -EPROTO); /* a gap */
    assert_int_equal(walk_changed(&o, 0, 32, 1), -EPROTO);
    assert_int_equal(walk_changed(&o, 0, 3 * ROW + info, length_mixed(3)), -EPROTO);
    assert_int_equal(walk_changed(&o, 0, PACK_PAGE - 4, 1), -EPROTO);
    assert_int_equal(walk_changed(&o, 2, 46 * ROW, 1), -EPROTO); /* a row that no leaf needs */
}

static int leaf_ignored(void *ctx, const struct pack_leaf_at *at)
{
    return 0;
}

/* What only the walk can see, since it takes two pages. */
static void broken_across_pages(void **state)
{
    AUTO(object_release) struct object o;
    build(&o, PACK_KIND_DATA, 300, length_one, false);
    uint8_t *trailer = o.bytes.data + o.summary.trailer_offset;
    uint8_t *page = o.bytes.data + o.summary.data_size + PACK_PAGE;
    struct reading r = {.o = &o};
    struct pack_page_ref ref;

    le32_put(page + 36, 1); /* leaf 102 does not start a blob, leaf 101 is one byte */
    struct digest d = digest_of(page, PACK_PAGE);
    memcpy(trailer + HEADER + ROW, d.byte, 32);
    o.summary.digest = digest_of(trailer, o.summary.trailer_length);
    AUTO(pack_trailer_free) struct pack_trailer *t = parse(&o);
    assert_int_equal(pack_trailer_page(t, 1, &ref), 0);
    assert_int_equal(pack_page_verify(t, &ref, page), 0);
    assert_int_equal(pack_each_leaf(t, read_object, &r, leaf_ignored, NULL), -EPROTO);
}

static void broken_groups(void **state)
{
    AUTO(object_release) struct object o;
    build_golden(&o, golden_named("pack-two-levels"));
    AUTO(pack_trailer_free) struct pack_trailer *t = parse(&o);
    struct pack_page_ref ref, forged, page;
    static const uint32_t offsets[] = {32, 36, ROW + 32, ROW + 36, 101 * ROW + 32, 4080};

    assert_int_equal(pack_trailer_find_group(t, 102 * 102, &ref), 0);
    assert_int_equal(ref.number, 1);
    assert_int_equal(pack_trailer_find_group(t, 102 * 102 - 1, &ref), 0);
    assert_int_equal(ref.number, 0);
    uint8_t *group = o.bytes.data + ref.offset;
    for (size_t i = 0; i < sizeof offsets / sizeof *offsets; i++) {
        uint32_t before = le32_get(group + offsets[i]);
        le32_put(group + offsets[i], before + 0x10000);
        assert_int_equal(pack_page_verify(t, &ref, group), -EBADMSG);
        forged = ref;
        forged.digest = digest_of(group, PACK_PAGE);
        assert_int_equal(pack_page_verify(t, &forged, group), -EPROTO);
        le32_put(group + offsets[i], before);
    }
    assert_int_equal(pack_page_verify(t, &ref, group), 0);
    assert_int_equal(pack_trailer_find_page(t, group, &ref, 102 * 102, &page), -ENOENT);
    assert_int_equal(pack_trailer_find_page(t, group, NULL, 0, &page), -EINVAL);
    group[0] ^= 1;
    struct reading r = {.o = &o, .stop_at = UINT64_MAX};
    assert_int_equal(pack_each_leaf(t, read_object, &r, check_leaf, &r), -EBADMSG);
}

/* ---- golden files ------------------------------------------------------------------------------
 */

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
        cmocka_unit_test(sink_errors),          cmocka_unit_test(flipped_trailers),
        cmocka_unit_test(wrong_expectations),   cmocka_unit_test(impossible_shapes),
        cmocka_unit_test(flipped_pages),        cmocka_unit_test(broken_pages),
        cmocka_unit_test(broken_across_pages),  cmocka_unit_test(broken_groups),
    };

    if (argc == 3 && strcmp(argv[1], "--write-golden") == 0) {
        write_golden(argv[2]);
        return 0;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
