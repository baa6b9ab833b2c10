/* SPDX-License-Identifier: Apache-2.0 */
/*
 * For the tests of the cache: a directory, a clock that stands until it is moved, and bytes that
 * follow from object and offset.
 */
#ifndef TEST_CACHE_FIXTURE_H
#define TEST_CACHE_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "cache/cache-internal.h"
#include "cache/cache.h"

#include <ftw.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#define KIB (UINT64_C(1) << 10)
#define MIB (UINT64_C(1) << 20)

struct fixture {
    char dir[64];
    struct env env;
    _Atomic int64_t now_ms;
};

static int64_t fixture_now(struct env *env)
{
    struct fixture *f = env->ctx;
    return atomic_load(&f->now_ms);
}

static void fixture_sleep(struct env *env, int64_t ms)
{
    env_real()->sleep_ms(env_real(), ms);
}

static inline void fixture_init(struct fixture *f)
{
    memset(f, 0, sizeof *f);
    memcpy(f->dir, "/tmp/test-cache-XXXXXX", sizeof "/tmp/test-cache-XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    atomic_store(&f->now_ms, 1800000000000);
    f->env = (struct env){
        .wall_ms = fixture_now, .boot_ms = fixture_now, .sleep_ms = fixture_sleep, .ctx = f};
}

static int fixture_remove(const char *path, const struct stat *st, int kind, struct FTW *ftw)
{
    return remove(path);
}

static inline void fixture_release(struct fixture *f)
{
    assert_int_equal(nftw(f->dir, fixture_remove, 16, FTW_DEPTH | FTW_PHYS), 0);
}

static inline void fixture_wait(struct fixture *f, int seconds)
{
    atomic_fetch_add(&f->now_ms, (int64_t)seconds * 1000);
}

static inline struct cache *fixture_open(struct fixture *f, uint64_t size)
{
    struct cache_options o = {
        .dir = f->dir, .size_bytes = size, .keep_free_bytes = 1, .env = &f->env};
    struct err err = ERR_INIT;
    struct cache *c = NULL;

    int r = cache_open(&o, &c, &err);
    if (r < 0)
        print_error("%s\n", err_text(&err, r));
    assert_int_equal(r, 0);
    return c;
}

static inline struct digest object_id(unsigned n)
{
    return digest_of(&n, sizeof n);
}

static inline struct cache_object *object(struct cache *c, unsigned n, uint64_t length)
{
    struct digest id = object_id(n);
    struct cache_object *o = NULL;

    assert_int_equal(cache_object_open(c, &id, length, &o), 0);
    return o;
}

/* The bytes of object `n` at `offset`; never zero, so that a hole is no data. */
static inline void fill(unsigned n, uint64_t offset, uint8_t *data, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        uint64_t at = offset + i;
        data[i] = (uint8_t)(1 + (at * 31 + (at >> 9) * 17 + n * 101) % 255);
    }
}

static inline int put(struct cache_object *o, unsigned n, uint64_t offset, size_t size)
{
    uint8_t *data = malloc(size);

    assert_non_null(data);
    fill(n, offset, data, size);
    int r = cache_write(o, offset, data, size);
    free(data);
    return r;
}

/* 0 and the right bytes; 1 and others; or -ENODATA. */
static inline int check(struct cache_object *o, unsigned n, uint64_t offset, size_t size)
{
    uint8_t *data = malloc(size), *want = malloc(size);

    assert_non_null(data);
    assert_non_null(want);
    int r = cache_read(o, offset, data, size);
    fill(n, offset, want, size);
    if (r == 0 && memcmp(data, want, size) != 0)
        r = 1;
    free(data);
    free(want);
    return r;
}

static inline void cell_path(struct fixture *f, unsigned n, char path[static 256])
{
    struct digest id = object_id(n);
    char hex[DIGEST_HEX_SIZE];

    digest_to_hex(&id, hex);
    (void)snprintf(path, 256, "%s/packs/%.2s/%s", f->dir, hex, hex);
}

/* A pass of the evictor, behind the one that its thread may be at. */
static inline void evict(struct cache *c)
{
    int r;

    while ((r = evict_pass(c)) == -EBUSY)
        env_real()->sleep_ms(env_real(), 1);
    assert_int_equal(r, 0);
}

static inline struct cache_usage usage(struct cache *c)
{
    struct cache_usage u;

    assert_int_equal(cache_usage(c, &u), 0);
    return u;
}

#endif
