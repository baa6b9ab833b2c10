/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the tests of holding, deleting and collecting share: a store with a clock that the test
 * moves, actors whose calls may fail, a hook before each call of an actor (so that another one can
 * run to its end in between), and a look at the whole store.
 */
#ifndef HOLD_FIXTURE_H
#define HOLD_FIXTURE_H

#include "catalogue-fixture.h"

#include <inttypes.h>

#define MINUTE (INT64_C(60) * 1000)

struct stamp {
    char key[CATALOGUE_KEY_MAX];
    int64_t ms;
};

struct scene {
    struct world w;
    int64_t now_ms;  /* of everybody, but for: */
    int64_t skew_ms; /* what the store's listings say too much */
    int64_t boot_ms; /* what the boot clock is ahead: suspended time */
    VEC(struct stamp) stamps;
    uint64_t objects_removed, removed, put;
    struct env env;
    struct catalogue *c;
    void (*on_sleep)(struct scene *s);
    void *ctx;
};

/* One process: its own wrappers over the scene's store. */
struct actor {
    struct scene *s;
    struct store *fault, *trace;
    struct catalogue *c;
    uint64_t calls, hook_at; /* the hook runs before this call; 0: never */
    void (*hook)(struct scene *s);
    bool hooked;
};

struct clocked {
    struct store base;
    struct scene *s;
    struct actor *a;
};

static inline int64_t scene_wall(struct env *env)
{
    return ((struct scene *)env->ctx)->now_ms;
}

static inline int64_t scene_boot(struct env *env)
{
    struct scene *s = env->ctx;

    return s->now_ms + s->boot_ms;
}

static inline void scene_random(struct env *env, void *data, size_t size)
{
    env_real()->random(env_real(), data, size);
}

static inline void scene_sleep(struct env *env, int64_t ms)
{
    struct scene *s = env->ctx;

    s->now_ms += ms;
    if (s->on_sleep)
        s->on_sleep(s);
}

static inline struct scene *count_call(struct store *store)
{
    struct clocked *c = (struct clocked *)store;

    if (c->a && ++c->a->calls == c->a->hook_at && c->a->hook) {
        c->a->hooked = true;
        c->a->hook(c->s);
    }
    return c->s;
}

static inline int clocked_put(struct store *store, const char *key, struct bytes body)
{
    struct scene *s = count_call(store);
    struct stamp stamp = {.ms = s->now_ms};

    int r = store_put_if_absent(s->w.store, key, body);
    (void)snprintf(stamp.key, sizeof stamp.key, "%s", key);
    if (r == 0) {
        s->put++;
        assert_int_equal(vec_push(&s->stamps, stamp), 0);
    }
    return r;
}

static inline int clocked_get(struct store *store, const char *key, uint64_t offset, void *data,
                              size_t size, size_t *ret_size, uint64_t *ret_length)
{
    struct scene *s = count_call(store);

    return store_get(s->w.store, key, offset, data, size, ret_size, ret_length);
}

struct stamping {
    struct scene *s;
    store_list_fn *fn;
    void *ctx;
};

static inline int stamp_entry(void *ctx, const struct store_entry *entry)
{
    struct stamping *t = ctx;
    struct store_entry stamped = *entry;

    for (size_t i = 0; i < t->s->stamps.count; i++) {
        if (strcmp(t->s->stamps.at[i].key, entry->key) == 0)
            stamped.mtime_ms = t->s->stamps.at[i].ms;
    }
    return t->fn(t->ctx, &stamped);
}

static inline int clocked_list(struct store *store, const char *prefix,
                               const struct store_list_options *options, store_list_fn *fn,
                               void *ctx, int64_t *ret_now_ms)
{
    struct scene *s = count_call(store);
    struct stamping t = {s, fn, ctx};

    int r = store_list(s->w.store, prefix, options, stamp_entry, &t, NULL);
    if (ret_now_ms)
        *ret_now_ms = s->now_ms + s->skew_ms;
    return r;
}

static inline int clocked_remove(struct store *store, const char *key)
{
    struct scene *s = count_call(store);

    s->removed++;
    s->objects_removed += strchr("pxm", key[0]) != NULL;
    return store_remove(s->w.store, key);
}

static inline void clocked_close(struct store *store)
{
    free(store->location);
    free(store);
}

static const struct store_ops clocked_ops = {
    .kind = "clocked",
    .put_if_absent = clocked_put,
    .get = clocked_get,
    .list = clocked_list,
    .remove = clocked_remove,
    .close = clocked_close,
};

static inline struct store *clocked_new(struct scene *s, struct actor *a)
{
    struct clocked *c = calloc(1, sizeof *c);

    assert_non_null(c);
    *c = (struct clocked){{&clocked_ops, strdup(s->w.store->location)}, s, a};
    return &c->base;
}

/* `a` is the actor's for its life. */
static inline void actor_open(struct scene *s, struct actor *a, const struct store_fault_plan *plan)
{
    static const struct store_fault_plan none;

    a->s = s;
    assert_int_equal(store_fault_new(clocked_new(s, a), plan ? plan : &none, &a->fault), 0);
    assert_int_equal(store_trace_new(a->fault, NULL, NULL, &a->trace), 0);
    /* The format is read from the store itself: faults are for what is tested. */
    assert_int_equal(catalogue_open(s->w.store, &s->env, CATALOGUE_READ, &a->c, NULL), 0);
    a->c->store = a->trace;
    catalogue_set_readers(a->c, 1);
}

static inline void actor_close(struct actor *a)
{
    catalogue_close(a->c);
    store_close(a->trace);
}

static inline int scene_setup(void **state, bool directory)
{
    struct scene *s = calloc(1, sizeof *s);

    assert_non_null(s);
    s->w = world_open(directory);
    s->now_ms = INT64_C(1800000000000);
    s->env = (struct env){scene_wall, scene_boot, scene_random, scene_sleep, s};
    assert_int_equal(catalogue_open(clocked_new(s, NULL), &s->env, CATALOGUE_WRITE, &s->c, NULL),
                     0);
    catalogue_set_readers(s->c, 1);
    *state = s;
    return 0;
}

static inline int scene_memory(void **state)
{
    return scene_setup(state, false);
}

static inline int scene_directory(void **state)
{
    return scene_setup(state, true);
}

static inline int scene_teardown(void **state)
{
    struct scene *s = *state;

    store_close(s->c->store);
    catalogue_close(s->c);
    store_close(s->w.store);
    if (s->w.root[0])
        assert_int_equal(nftw(s->w.root, remove_one, 16, FTW_DEPTH | FTW_PHYS), 0);
    vec_release(&s->stamps);
    free(s);
    return 0;
}

/* A store of its own, inside a test: for loops. */
static inline struct scene *scene_new(void)
{
    void *s;

    assert_int_equal(scene_memory(&s), 0);
    return s;
}

static inline void scene_free(struct scene *s)
{
    void *p = s;

    assert_int_equal(scene_teardown(&p), 0);
}

#define BOTH_SCENES(test)                                                                          \
    {#test " (memory)", test, scene_memory, scene_teardown, NULL},                                 \
    {                                                                                              \
#test " (directory)", test, scene_directory, scene_teardown, NULL                          \
    }

/* ---- versions ---- */

/* Publish a version of "cats" that names, beside a pack of its own, `extra` (may be NULL). */
static inline struct version_info scene_publish(struct scene *s, const struct object_ref *extra)
{
    AUTO(upload_free) struct upload *u = NULL;
    AUTO(manifest_release) struct manifest m = {0};
    struct version_info v;
    struct err err = ERR_INIT;

    assert_int_equal(upload_begin(s->c, &terms_of_cats, &u, &err), 0);
    assert_int_equal(put_objects(s->c->store, u, &m), 0);
    if (extra) {
        m.packs = realloc(m.packs, 2 * sizeof *m.packs);
        assert_non_null(m.packs);
        m.packs[m.pack_count++] = *extra;
    }
    int r = upload_commit(u, &m, &v, &err);
    if (r < 0)
        fail_msg("%s", err_text(&err, r));
    return v;
}

/* The first pack that a version names. */
static inline struct object_ref pack_of(struct scene *s, const struct version_info *v)
{
    AUTO(manifest_release) struct manifest m = {0};

    assert_int_equal(catalogue_manifest(s->c, v, &m, NULL), 0);
    return m.packs[0];
}

static inline bool object_exists(struct scene *s, char letter, const struct object_ref *ref)
{
    char key[OBJECT_KEY_MAX];
    uint8_t byte;
    size_t got;

    object_ref_key(letter, ref, key);
    return store_get(s->w.store, key, 0, &byte, 1, &got, NULL) == 0;
}

static inline enum version_status status_of(struct scene *s, const char *name, uint32_t n)
{
    AUTO(version_rows_release) struct version_rows v = {0};
    struct version_info info;
    char prefix[CATALOGUE_KEY_MAX];

    key_version(prefix, name, n, "");
    assert_int_equal(version_rows_list(s->c, prefix, &v, NULL), 0);
    assert_int_equal(v.rows.count, 1);
    assert_int_equal(version_read(s->c, &v.rows.at[0], &info, NULL), 0);
    return info.status;
}

static inline int check_version(void *ctx, const struct version_info *v)
{
    struct scene *s = ctx;
    AUTO(manifest_release) struct manifest m = {0};

    if (v->status != VERSION_SUCCEEDED)
        return 0;
    assert_int_equal(catalogue_manifest(s->c, v, &m, NULL), 0);
    assert_true(object_exists(s, 'x', &v->index));
    for (uint32_t i = 0; i < m.pack_count; i++)
        assert_true(object_exists(s, 'p', &m.packs[i]));
    return 0;
}

/* I9: everything that an available version names is there. */
static inline void assert_whole(struct scene *s)
{
    assert_int_equal(catalogue_list(s->c, NULL, check_version, s, NULL), 0);
}

struct key_count {
    size_t count;
};

static inline int count_one_key(void *ctx, const struct store_entry *entry)
{
    ((struct key_count *)ctx)->count++;
    return 0;
}

static inline size_t keys_under(struct scene *s, const char *prefix)
{
    struct key_count k = {0};

    assert_int_equal(store_list(s->w.store, prefix, NULL, count_one_key, &k, NULL), 0);
    return k.count;
}

static const struct hold_process somewhere = {.host = "node1",
                                              .machine = "0123456789abcdef0123456789abcdef",
                                              .boot_id = "another kernel",
                                              .pid_ns = 1,
                                              .pid = 77,
                                              .pid_start = 1};
static const struct hold_options hold_there = {.self = &somewhere, .text = "run r1"};

static inline struct hold *scene_hold(struct scene *s, struct catalogue *c, uint32_t n)
{
    struct hold *h = NULL;
    struct err err = ERR_INIT;

    int r = hold_begin(c ? c : s->c, "cats", n, &hold_there, &h, &err);
    if (r < 0)
        fail_msg("%s", err_text(&err, r));
    return h;
}

static inline int scene_delete(struct catalogue *c, uint32_t n, struct err *err)
{
    struct delete_report report;

    return catalogue_delete(c, "cats", n, &(struct delete_options){0}, &report, err);
}

#endif
