/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The memory of a fetch by itself: what is counted, what goes first, slabs that come back.
 */
#include "fetch/fetch-memory.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define MIB   (UINT64_C(1) << 20)
#define LIMIT (32 * MIB)
#define LEAF  65536u

static struct memory_entry *claim(struct memory *m, uint64_t number)
{
    struct memory_key key = {.object = 1, .number = number, .kind = MEMORY_LEAF};

    assert_null(memory_find(m, &key));
    struct memory_entry *e = memory_claim(m, &key);
    assert_non_null(e);
    return e;
}

static struct memory_entry *find(struct memory *m, uint64_t number)
{
    struct memory_key key = {.object = 1, .number = number, .kind = MEMORY_LEAF};

    return memory_find(m, &key);
}

/* A slab of `mib` MiB, full of leaves, that nobody but they keep. */
static struct slab *fill_slab(struct memory *m, uint64_t first, size_t mib)
{
    size_t leaves = (size_t)(mib * MIB / LEAF);
    struct slab *s = slab_reserve(m, (size_t)(mib * MIB), leaves * MEMORY_ENTRY_COST, 0);

    assert_non_null(s);
    assert_int_equal(slab_allocate(s), 0);
    assert_int_equal((uintptr_t)s->data % SLAB_ALIGN, 0);
    for (size_t i = 0; i < leaves; i++) {
        memset(s->data + i * LEAF, (int)(first + i), LEAF);
        memory_fill_slab(m, claim(m, first + i), s, s->data + i * LEAF, LEAF, MEMORY_ENTRY_COST);
    }
    slab_unref(m, s);
    return s;
}

static void test_count(void **state)
{
    struct memory m;

    assert_int_equal(memory_init(&m, LIMIT), 0);
    (void)fill_slab(&m, 0, 4);
    assert_int_equal(m.used, 4 * MIB + 64 * MEMORY_ENTRY_COST);
    (void)fill_slab(&m, 1000, 4);
    assert_int_equal(m.used, 8 * MIB + 128 * MEMORY_ENTRY_COST);
    /* More than there ever is: all is tried, all goes. */
    assert_null(slab_reserve(&m, (size_t)LIMIT, 1, 0));
    assert_int_equal(m.used, 0);
    assert_null(find(&m, 0));
    memory_release(&m);
}

/* The oldest slab goes as a whole, and is the next one. */
static void test_again(void **state)
{
    struct memory m;
    struct slab *first;

    assert_int_equal(memory_init(&m, LIMIT), 0);
    first = fill_slab(&m, 0, 3);
    for (uint64_t i = 1; i < 10; i++)
        (void)fill_slab(&m, i * 1000, 3);
    for (uint64_t i = 10; i < 50; i++) {
        struct slab *s = fill_slab(&m, i * 1000, 3);
        assert_null(find(&m, (i - 10) * 1000));
        assert_non_null(find(&m, (i - 9) * 1000));
        assert_true(m.used <= LIMIT);
        if (i % 10 == 0)
            assert_ptr_equal(s, first);
    }
    memory_release(&m);
}

/* A leaf that somebody copies from, or waited for, stays, and its slab with it. */
static void test_pins(void **state)
{
    struct memory m;

    assert_int_equal(memory_init(&m, LIMIT), 0);
    (void)fill_slab(&m, 0, 6);
    find(&m, 7)->pins++;
    for (uint64_t i = 1; i < 20; i++)
        (void)fill_slab(&m, i * 1000, 6);
    assert_null(find(&m, 6));
    assert_non_null(find(&m, 7));
    assert_int_equal(((uint8_t *)find(&m, 7)->data)[LEAF - 1], 7);
    assert_null(slab_reserve(&m, (size_t)(28 * MIB), 0, 0));
    assert_int_equal(m.used, 6 * MIB + MEMORY_ENTRY_COST);
    find(&m, 7)->pins--;
    struct slab *s = slab_reserve(&m, (size_t)(28 * MIB), 0, 0);
    assert_non_null(s);
    assert_int_equal(m.used, 28 * MIB);
    slab_unref(&m, s);
    assert_int_equal(m.used, 0);
    memory_release(&m);
}

/* A leaf that is used again leaves its slab. */
static void test_own(void **state)
{
    struct memory m;

    assert_int_equal(memory_init(&m, LIMIT), 0);
    (void)fill_slab(&m, 0, 6);
    memory_used_now(&m, find(&m, 7));
    memory_own(&m, find(&m, 7));
    assert_null(find(&m, 7)->slab);
    assert_int_equal(m.used, 6 * MIB + LEAF + 96 * MEMORY_ENTRY_COST);
    for (uint64_t i = 1; i < 5; i++)
        (void)fill_slab(&m, i * 1000, 6);
    (void)fill_slab(&m, 5000, 6);
    assert_null(find(&m, 6));
    assert_null(find(&m, 8));
    assert_int_equal(((uint8_t *)find(&m, 7)->data)[0], 7);
    /* A slab that is not much larger than the leaf is left alone. */
    struct slab *s = slab_reserve(&m, LEAF, MEMORY_ENTRY_COST, 0);
    assert_non_null(s);
    assert_int_equal(slab_allocate(s), 0);
    memory_fill_slab(&m, claim(&m, 9999), s, s->data, LEAF, MEMORY_ENTRY_COST);
    slab_unref(&m, s);
    memory_own(&m, find(&m, 9999));
    assert_ptr_equal(find(&m, 9999)->slab, s);
    memory_release(&m);
}

/* What is spare is no reason to refuse, whatever its size; and some room is left where wanted. */
static void test_spare(void **state)
{
    struct memory m;

    assert_int_equal(memory_init(&m, LIMIT), 0);
    for (size_t mib = 1; mib < 5; mib++) {
        struct slab *s = slab_reserve(&m, (size_t)(mib * MIB), 0, 0);
        assert_non_null(s);
        assert_int_equal(slab_allocate(s), 0);
        slab_unref(&m, s);
        assert_true(m.spare_bytes <= LIMIT / 8);
        assert_int_equal(m.used, m.spare_bytes);
    }
    assert_true(memory_reserve(&m, (size_t)(LIMIT - MIB), (size_t)MIB));
    assert_int_equal(m.used, LIMIT - MIB);
    assert_false(memory_reserve(&m, 1, (size_t)MIB));
    assert_true(memory_reserve(&m, 1, 0));
    memory_unreserve(&m, (size_t)(LIMIT - MIB) + 1);
    assert_int_equal(m.used, 0);
    memory_release(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_count), cmocka_unit_test(test_again), cmocka_unit_test(test_pins),
        cmocka_unit_test(test_own),   cmocka_unit_test(test_spare),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
