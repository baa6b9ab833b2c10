/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Packs that were damaged, or written by somebody who breaks the rules: each is refused for its
 * reason, with the digests left alone (damage) and with digests that fit (a hostile writer).
 */
#include "pack-object.h"

#include "base/le.h"

#define HEADER 64u
#define ROW    40u

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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(flipped_trailers),  cmocka_unit_test(wrong_expectations),
        cmocka_unit_test(impossible_shapes), cmocka_unit_test(flipped_pages),
        cmocka_unit_test(broken_pages),      cmocka_unit_test(broken_across_pages),
        cmocka_unit_test(broken_groups),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
