/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the tests of the catalogue share: a store of each kind, a world whose sleeps take no time,
 * and uploads of one small pack and one small index.
 */
#ifndef CATALOGUE_FIXTURE_H
#define CATALOGUE_FIXTURE_H

#include "base/file.h"
#include "catalogue/catalogue-internal.h"

#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#define PACK_LENGTH 612u /* 512 of data and a trailer of 100: nobody looks inside here */

struct world {
    struct env env;
    struct store *store;
    struct catalogue *c;
    char root[64]; /* of the directory store; empty for memory */
};

static inline void no_sleep(struct env *env, int64_t ms)
{
}

static inline int remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
    return remove(path);
}

static inline struct world world_open(bool directory)
{
    struct world w = {.env = *env_real()};
    struct err err = ERR_INIT;

    w.env.sleep_ms = no_sleep;
    if (directory) {
        (void)snprintf(w.root, sizeof w.root, "/tmp/test-catalogue-XXXXXX");
        assert_non_null(mkdtemp(w.root));
        assert_int_equal(store_open(w.root, STORE_WRITE, &w.store, &err), 0);
    } else {
        assert_int_equal(store_memory_new(&w.store), 0);
    }
    return w;
}

static inline int setup(void **state, bool directory)
{
    struct world *w = calloc(1, sizeof *w);

    assert_non_null(w);
    *w = world_open(directory);
    assert_int_equal(catalogue_open(w->store, &w->env, CATALOGUE_WRITE, &w->c, NULL), 0);
    *state = w;
    return 0;
}

static inline int setup_memory(void **state)
{
    return setup(state, false);
}

static inline int setup_directory(void **state)
{
    return setup(state, true);
}

static inline int teardown(void **state)
{
    struct world *w = *state;

    catalogue_close(w->c);
    store_close(w->store);
    if (w->root[0])
        assert_int_equal(nftw(w->root, remove_one, 16, FTW_DEPTH | FTW_PHYS), 0);
    free(w);
    return 0;
}

#define BOTH(test)                                                                                 \
    {#test " (memory)", test, setup_memory, teardown, NULL},                                       \
    {                                                                                              \
#test " (directory)", test, setup_directory, teardown, NULL                                \
    }

static const struct upload_terms terms_of_cats = {
    .name = "cats", .owner = "ann", .host = "node7", .source = "/data/cats"};

static inline struct object_ref some_ref(const struct session_id *session, uint32_t seq,
                                         uint32_t born)
{
    return (struct object_ref){.session = *session,
                               .seq = seq,
                               .length = PACK_LENGTH,
                               .trailer_length = 100,
                               .data_size = 512,
                               .leaf_count = 1,
                               .used_blocks = 1,
                               .born = born};
}

static inline int put_object(struct store *s, char letter, const struct object_ref *ref)
{
    static const uint8_t zeros[PACK_LENGTH];
    char key[OBJECT_KEY_MAX];

    object_ref_key(letter, ref, key);
    return store_put_if_absent(s, key, bytes_of(zeros, (size_t)ref->length));
}

/* A manifest of one pack and an index of `u`, both put into `s`. */
static inline int put_objects(struct store *s, struct upload *u, struct manifest *ret)
{
    const struct session_id *session = upload_session(u);
    struct manifest m = {.files = 3, .size_bytes = 300, .index_size = 500, .index_head = 100};
    struct object_ref pack = some_ref(session, upload_next_seq(u, 'p'), upload_version(u));

    m.index = some_ref(session, upload_next_seq(u, 'x'), 0);
    m.index.used_blocks = 0;
    m.packs = malloc(sizeof pack);
    if (!m.packs)
        return -ENOMEM;
    m.packs[0] = pack;
    m.pack_count = 1;
    int r = put_object(s, 'p', &pack);
    if (r == 0)
        r = put_object(s, 'x', &m.index);
    if (r < 0)
        manifest_release(&m);
    else
        *ret = m;
    return r;
}

/* Begin, put, commit. `u` may be NULL. */
static inline int publish(struct catalogue *c, struct store *objects, const char *name,
                          struct version_info *ret, struct err *err)
{
    AUTO(upload_free) struct upload *u = NULL;
    AUTO(manifest_release) struct manifest m = {0};
    struct upload_terms terms = terms_of_cats;

    terms.name = name;
    int r = upload_begin(c, &terms, &u, err);
    if (r == 0)
        r = put_objects(objects, u, &m);
    return r < 0 ? r : upload_commit(u, &m, ret, err);
}

/* Write any record at any key, as another program would. */
static inline void put_raw_record(struct world *w, const char *key, enum record_type type,
                                  json_t *body)
{
    AUTO(draft_release) struct draft d = {0};

    assert_int_equal(draft_make(w->c, type, body, &d, NULL), 0);
    assert_int_equal(store_put_if_absent(w->store, key, buf_bytes(&d.bytes)), 0);
}

/* Put other bytes in the place of an object. */
static inline void replace(struct world *w, const char *key, struct bytes bytes)
{
    assert_int_equal(store_remove(w->store, key), 0);
    assert_int_equal(store_put_if_absent(w->store, key, bytes), 0);
}

/* A store that wrappers may own: closing it does not close the one below. */
struct lent {
    struct store base;
    struct store *below;
};

static inline void lent_close(struct store *s)
{
    free(s->location);
    free(s);
}

static inline int lent_put(struct store *s, const char *key, struct bytes body)
{
    return store_put_if_absent(((struct lent *)s)->below, key, body);
}

static inline int lent_get(struct store *s, const char *key, uint64_t offset, void *data,
                           size_t size, size_t *ret_size, uint64_t *ret_length)
{
    return store_get(((struct lent *)s)->below, key, offset, data, size, ret_size, ret_length);
}

static inline int lent_list(struct store *s, const char *prefix,
                            const struct store_list_options *options, store_list_fn *fn, void *ctx,
                            int64_t *ret_now_ms)
{
    return store_list(((struct lent *)s)->below, prefix, options, fn, ctx, ret_now_ms);
}

static inline int lent_remove(struct store *s, const char *key)
{
    return store_remove(((struct lent *)s)->below, key);
}

static const struct store_ops lent_ops = {
    .kind = "lent",
    .put_if_absent = lent_put,
    .get = lent_get,
    .list = lent_list,
    .remove = lent_remove,
    .close = lent_close,
};

static inline struct store *faulty(struct store *below, const struct store_fault_plan *plan)
{
    struct lent *lent = calloc(1, sizeof *lent);
    struct store *fault = NULL;

    assert_non_null(lent);
    *lent = (struct lent){{&lent_ops, strdup(below->location)}, below};
    assert_int_equal(store_fault_new(&lent->base, plan, &fault), 0);
    return fault;
}

#endif
