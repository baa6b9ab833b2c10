/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Packs for tests: a builder whose content is fixed for ever (the golden digests depend on it), the
 * table of golden packs, and callbacks that read them back.
 */
#ifndef UNIT_PACK_OBJECT_H
#define UNIT_PACK_OBJECT_H

#include "pack/pack.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#define OBJECT_MAX (64u << 20)
#define FULL       PACK_LEAF_MAX

/* A pack in memory, with what is needed to read it. */
struct object {
    enum pack_kind kind;
    struct buf bytes;
    struct pack_summary summary;
};

static inline int sink_to_buf(void *ctx, const void *data, size_t size)
{
    return buf_append(ctx, data, size);
}

static inline void object_release(struct object *o)
{
    buf_release(&o->bytes);
}

static inline void auto_object_release(struct object *o)
{
    object_release(o);
}

/* The content of leaf `number`: fixed for ever, the golden digests depend on it. */
static inline void fill(uint8_t *p, size_t size, uint64_t number)
{
    for (size_t i = 0; i < size; i++)
        p[i] = (uint8_t)(number * 131 + i * 7 + (i >> 8) + (number >> 8));
}

static inline int add_leaf(struct pack_writer *w, uint64_t number, uint32_t length, bool starts)
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

static inline uint32_t length_one(uint64_t number)
{
    return 1;
}

static inline uint32_t length_small(uint64_t number)
{
    return (uint32_t)(1 + number * 37 % 512);
}

/* A file of 3 leaves at the start and one of 2 leaves across the first border of pages. */
static inline uint32_t length_mixed(uint64_t number)
{
    if (number == 0 || number == 101)
        return FULL;
    if (number == 1)
        return UINT32_MAX;
    return (uint32_t)(1 + number * 1237 % 3000);
}

static inline bool starts_mixed(uint64_t number)
{
    return number != 1 && number != 2 && number != 102;
}

static inline void build(struct object *ret, enum pack_kind kind, uint64_t count, length_fn *length,
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

static inline uint32_t length_index(uint64_t number)
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

static inline void build_golden(struct object *ret, const struct golden *g)
{
    build(ret, g->kind, g->count, g->length, g->mixed);
}

static inline const struct golden *golden_named(const char *name)
{
    for (size_t i = 0; i < sizeof goldens / sizeof *goldens; i++) {
        if (strcmp(goldens[i].name, name) == 0)
            return &goldens[i];
    }
    fail_msg("no golden pack %s", name);
    return NULL;
}

static inline struct bytes trailer_of(const struct object *o)
{
    return bytes_of(o->bytes.data + o->summary.trailer_offset, o->summary.trailer_length);
}

static inline struct pack_trailer *parse(const struct object *o)
{
    struct pack_trailer *t = NULL;
    struct err err = ERR_INIT;
    int r = pack_trailer_parse(trailer_of(o), o->kind, &o->summary, &t, &err);
    if (r < 0)
        fail_msg("the trailer was refused: %s", err_text(&err, r));
    return t;
}

struct reading {
    const struct object *o;
    uint64_t reads, leaves, next_block, blobs;
    uint64_t stop_at; /* leaf number */
    int read_fails;   /* the error of the second read, if not 0 */
};

static inline int read_object(void *ctx, uint64_t offset, void *data, size_t size)
{
    struct reading *r = ctx;
    if (++r->reads == 2 && r->read_fails)
        return r->read_fails;
    assert_true(offset <= r->o->bytes.size && size <= r->o->bytes.size - offset);
    memcpy(data, r->o->bytes.data + offset, size);
    return 0;
}

static inline int check_leaf(void *ctx, const struct pack_leaf_at *at)
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

#endif
