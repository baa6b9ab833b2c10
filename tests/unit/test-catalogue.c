/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The catalogue as its callers see it, over the memory and the directory store. Failures and damage
 * are in test-catalogue-fault.c, schedules in tests/sim.
 */
#include "catalogue-fixture.h"

#include <inttypes.h>

static void test_opening(void **state)
{
    struct world *w = *state;
    struct world empty = world_open(w->root[0] != '\0');
    AUTO(catalogue_close) struct catalogue *again = NULL;
    struct catalogue *c = NULL;
    struct err err = ERR_INIT;

    assert_int_equal(strlen(catalogue_store_id(w->c)), 32);
    assert_ptr_equal(catalogue_store(w->c), w->store);
    assert_int_equal(catalogue_open(w->store, &w->env, CATALOGUE_READ, &again, &err), 0);
    assert_string_equal(catalogue_store_id(again), catalogue_store_id(w->c));

    assert_int_equal(catalogue_open(empty.store, &w->env, CATALOGUE_READ, &c, &err), -ENOENT);
    assert_non_null(strstr(err.text, "holds no datastores yet"));
    err_clear(&err);
    assert_int_equal(store_put_if_absent(empty.store, "photos/1.jpg", bytes_str("x")), 0);
    assert_int_equal(catalogue_open(empty.store, &w->env, CATALOGUE_READ, &c, &err), -EPROTO);
    err_clear(&err);
    assert_int_equal(catalogue_open(empty.store, &w->env, CATALOGUE_WRITE, &c, &err), -EPROTO);
    assert_non_null(strstr(err.text, "is not a store of datastores"));
    size_t got;
    uint8_t byte;
    assert_int_equal(store_get(empty.store, KEY_FORMAT, 0, &byte, 1, &got, NULL), -ENOENT);

    struct world *p = calloc(1, sizeof *p);
    assert_non_null(p);
    *p = empty;
    void *s = p;
    assert_int_equal(teardown(&s), 0);
}

static void test_newer_formats_are_refused(void **state)
{
    struct world *w = *state;
    struct catalogue *c = NULL;
    struct err err = ERR_INIT;
    AUTO(buf_release) struct buf b = BUF_INIT(1000);
    char hex[DIGEST_HEX_SIZE];

    assert_int_equal(store_remove(w->store, KEY_FORMAT), 0);
    put_raw_record(w, KEY_FORMAT, RECORD_FORMAT,
                   json_pack("{s:i, s:s, s:i, s:i}", "format", CATALOGUE_FORMAT + 1, "store_id",
                             "00112233445566778899aabbccddeeff", "created_ms", 1, "dead_after_ms",
                             1));
    assert_int_equal(catalogue_open(w->store, &w->env, CATALOGUE_WRITE, &c, &err),
                     -EPROTONOSUPPORT);
    assert_non_null(strstr(err.text, "needs a newer one"));

    assert_int_equal(buf_append_str(&b, "grid-record 2 format\nwhatever comes\n"), 0);
    struct digest d = digest_of(b.data, b.size);
    digest_to_hex(&d, hex);
    assert_int_equal(buf_printf(&b, "sha256 %s\n", hex), 0);
    replace(w, KEY_FORMAT, buf_bytes(&b));
    err_clear(&err);
    assert_int_equal(catalogue_open(w->store, &w->env, CATALOGUE_READ, &c, &err), -EPROTONOSUPPORT);
    assert_non_null(strstr(err.text, KEY_FORMAT));
}

static void test_a_version_from_begin_to_manifest(void **state)
{
    struct world *w = *state;
    AUTO(manifest_release) struct manifest m = {0};
    struct version_info made, found;
    struct err err = ERR_INIT;
    char owner[64];

    assert_int_equal(publish(w->c, w->store, "cats", &made, &err), 0);
    assert_int_equal(made.version, 1);
    assert_int_equal(made.status, VERSION_SUCCEEDED);
    assert_int_equal(catalogue_resolve(w->c, "cats", 0, &found, &err), 0);
    assert_memory_equal(&found, &made, sizeof made);
    assert_int_equal(catalogue_resolve(w->c, "cats", 1, &found, &err), 0);
    assert_memory_equal(&found, &made, sizeof made);
    assert_string_equal(found.name, "cats");
    assert_string_equal(found.owner, "ann");
    assert_string_equal(found.host, "node7");
    assert_string_equal(found.source, "/data/cats");
    assert_int_equal(found.files, 3);
    assert_int_equal(found.size_bytes, 300);
    assert_int_equal(found.index_size, 500);
    assert_int_equal(found.index_head, 100);
    assert_int_equal(found.index.trailer_length, 100);
    assert_true(found.created_ms > INT64_C(1700000000000));

    assert_int_equal(catalogue_manifest(w->c, &found, &m, &err), 0);
    assert_string_equal(m.name, "cats");
    assert_int_equal(m.version, 1);
    assert_int_equal(m.pack_count, 1);
    assert_int_equal(m.created_ms, found.created_ms);
    assert_int_equal(catalogue_owner(w->c, "cats", owner, &err), 0);
    assert_string_equal(owner, "ann");
    assert_int_equal(publish(w->c, w->store, "cats", &made, &err), 0);
    assert_int_equal(made.version, 2);
}

#define SAYS(call, code, sentence)                                                                 \
    do {                                                                                           \
        struct err err = ERR_INIT;                                                                 \
        assert_int_equal(call, code);                                                              \
        if (!strstr(err.text, sentence))                                                           \
            fail_msg("it says: %s", err.text);                                                     \
    } while (0)

static void test_what_resolve_says(void **state)
{
    struct world *w = *state;
    AUTO(upload_free) struct upload *u = NULL;
    struct version_info v;
    char owner[64];

    SAYS(catalogue_resolve(w->c, "cats", 0, &v, &err), -ENOENT, "no datastore is named 'cats' in ");
    SAYS(catalogue_resolve(w->c, "cats", 3, &v, &err), -ENOENT, "no datastore is named 'cats' in ");
    SAYS(catalogue_resolve(w->c, "Cats!", 0, &v, &err), -EINVAL, "'Cats!' is no name");
    SAYS(catalogue_owner(w->c, "cats", owner, &err), -ENOENT, "no datastore is named 'cats' in ");
    SAYS(catalogue_owner(w->c, "../x", owner, &err), -EINVAL, "is no name");
    assert_int_equal(upload_begin(w->c, &terms_of_cats, &u, NULL), 0);
    SAYS(catalogue_resolve(w->c, "cats", 1, &v, &err), -ENOENT,
         "version 1 of 'cats' is still being made (processing)");
    SAYS(catalogue_resolve(w->c, "cats", 0, &v, &err), -ENOENT,
         "'cats' has no succeeded version: version 1 of 'cats' is still being made (processing)");
    assert_int_equal(upload_indexing(u, NULL), 0);
    SAYS(catalogue_resolve(w->c, "cats", 1, &v, &err), -ENOENT, "(optimizing)");
    SAYS(catalogue_resolve(w->c, "cats", 2, &v, &err), -ENOENT,
         "'cats' has no version 2; its only version is 1");
    assert_int_equal(upload_abort(u, "the disk\nis full", NULL), 0);
    SAYS(catalogue_resolve(w->c, "cats", 1, &v, &err), -ENOENT,
         "version 1 of 'cats' failed: the disk\nis full");
    for (uint32_t n = 2; n <= 4; n++)
        assert_int_equal(publish(w->c, w->store, "cats", &v, NULL), 0);
    SAYS(catalogue_resolve(w->c, "cats", 7, &v, &err), -ENOENT,
         "'cats' has no version 7; its versions are 1 to 4");
    SAYS(catalogue_resolve(w->c, "cats", UINT32_MAX, &v, &err), -ENOENT, "its versions are 1 to 4");
}

static void delete_round(struct world *w, uint32_t n, int round, const char *decision)
{
    char key[CATALOGUE_KEY_MAX], leaf[32];

    (void)snprintf(leaf, sizeof leaf, "d/%06d/i", round);
    key_version(key, "cats", n, leaf);
    put_raw_record(w, key, RECORD_DELETE_INTENT,
                   json_pack("{s:s, s:I, s:i, s:b}", "name", "cats", "version", (json_int_t)n,
                             "round", round, "force", 0));
    if (!decision)
        return;
    (void)snprintf(leaf, sizeof leaf, "d/%06d/r", round);
    key_version(key, "cats", n, leaf);
    put_raw_record(w, key, RECORD_DELETE_RESULT,
                   json_pack("{s:s, s:I, s:i, s:s, s:[]}", "name", "cats", "version", (json_int_t)n,
                             "round", round, "decision", decision, "holders"));
}

static int count_versions(void *ctx, const struct version_info *v)
{
    ++*(int *)ctx;
    return 0;
}

static void test_deleted_versions_are_gone(void **state)
{
    struct world *w = *state;
    struct version_info v;
    int count = 0;

    for (uint32_t n = 1; n <= 5; n++)
        assert_int_equal(publish(w->c, w->store, "cats", &v, NULL), 0);
    delete_round(w, 5, 1, NULL); /* an intent alone, and a refusal, change nothing */
    assert_int_equal(catalogue_resolve(w->c, "cats", 0, &v, NULL), 0);
    assert_int_equal(v.version, 5);
    delete_round(w, 5, 2, "refused");
    assert_int_equal(catalogue_resolve(w->c, "cats", 0, &v, NULL), 0);
    assert_int_equal(v.version, 5);
    delete_round(w, 5, 3, "deleted");
    delete_round(w, 4, 1, "deleted");
    delete_round(w, 3, 1, "deleted");
    delete_round(w, 2, 1, "deleted");
    assert_int_equal(catalogue_resolve(w->c, "cats", 0, &v, NULL), 0); /* in the second batch */
    assert_int_equal(v.version, 1);
    SAYS(catalogue_resolve(w->c, "cats", 5, &v, &err), -ENOENT, "version 5 of 'cats' was deleted");
    assert_int_equal(catalogue_list(w->c, NULL, count_versions, &count, NULL), 0);
    assert_int_equal(count, 1);
    delete_round(w, 1, 1, "deleted");
    SAYS(catalogue_resolve(w->c, "cats", 0, &v, &err), -ENOENT,
         "'cats' has no succeeded version: version 5 of 'cats' was deleted");
    assert_int_equal(publish(w->c, w->store, "cats", &v, NULL), 0);
    assert_int_equal(v.version, 6); /* I2: numbers never return */
    delete_round(w, 6, 1, "perhaps");
    SAYS(catalogue_resolve(w->c, "cats", 6, &v, &err), -EPROTO, "d/000001/r");
}

struct order {
    char name[64];
    uint32_t version;
    unsigned count, stop_at;
};

static int check_order(void *ctx, const struct version_info *v)
{
    struct order *o = ctx;

    if (o->count++ > 0) {
        int order = strcmp(o->name, v->name);
        assert_true(order < 0 || (order == 0 && o->version > v->version));
    }
    memcpy(o->name, v->name, sizeof o->name);
    o->version = v->version;
    return o->count == o->stop_at ? 42 : 0;
}

static void test_listing(void **state)
{
    struct world *w = *state;
    static const char *const names[] = {"a", "a-b", "a.b", "ab", "b0"};
    struct version_info v;

    assert_int_equal(catalogue_list(w->c, NULL, check_order, &(struct order){0}, NULL), 0);
    for (unsigned i = 0; i < 5; i++) {
        for (unsigned n = 0; n < 100; n++)
            assert_int_equal(publish(w->c, w->store, names[i], &v, NULL), 0);
    }
    for (unsigned readers = 1; readers <= 6; readers++) {
        struct order all = {0}, one = {0}, none = {0}, some = {.stop_at = 77};
        catalogue_set_readers(w->c, readers);
        assert_int_equal(catalogue_list(w->c, NULL, check_order, &all, NULL), 0);
        assert_int_equal(all.count, 500);
        assert_int_equal(catalogue_list(w->c, "a-b", check_order, &one, NULL), 0);
        assert_int_equal(one.count, 100);
        assert_int_equal(catalogue_list(w->c, "zzz", check_order, &none, NULL), 0);
        assert_int_equal(none.count, 0);
        assert_int_equal(catalogue_list(w->c, NULL, check_order, &some, NULL), 42);
        assert_int_equal(some.count, 77);
    }
    SAYS(catalogue_list(w->c, "A", check_order, NULL, &err), -EINVAL, "is no name");
}

static int add_seq(void *ctx, uint32_t seq, uint64_t length)
{
    uint64_t *sum = ctx;

    assert_true(seq > *sum % 1000 || *sum == 0); /* ascending, by number and not by text */
    assert_int_equal(length, PACK_LENGTH);
    *sum = (*sum / 1000 + 1) * 1000 + seq;
    return 0;
}

static void test_resume(void **state)
{
    struct world *w = *state;
    AUTO(manifest_release) struct manifest m = {0};
    struct upload *u = NULL, *none = NULL;
    struct version_info v;
    struct session_id session, other = {{1}};
    uint64_t sum = 0;

    assert_int_equal(upload_begin(w->c, &terms_of_cats, &u, NULL), 0);
    session = *upload_session(u);
    for (int i = 0; i < 12; i++) {
        struct object_ref pack = some_ref(&session, upload_next_seq(u, 'p'), 1);
        assert_int_equal(put_object(w->store, 'p', &pack), 0);
    }
    upload_free(u);

    SAYS(upload_resume(w->c, "cats", 2, &session, &none, &err), -ESTALE, "has no version 2");
    SAYS(upload_resume(w->c, "cats", 1, &other, &none, &err), -ESTALE, "is another upload's");
    assert_int_equal(upload_resume(w->c, "cats", 1, &session, &u, NULL), 0);
    assert_int_equal(upload_version(u), 1);
    assert_int_equal(upload_each_pack(u, add_seq, &sum, NULL), 0);
    assert_int_equal(sum, 12011);
    assert_int_equal(upload_next_seq(u, 'p'), 12);
    assert_int_equal(upload_next_seq(u, 'x'), 0);
    assert_int_equal(put_objects(w->store, u, &m), 0);
    assert_int_equal(m.packs[0].seq, 13);
    assert_int_equal(upload_commit(u, &m, &v, NULL), 0);
    assert_string_equal(v.source, "/data/cats"); /* from the allocation */
    SAYS(upload_resume(w->c, "cats", 1, &session, &none, &err), -EEXIST, "has been committed");
    SAYS(upload_abort(u, "no", &err), -EEXIST, "has been committed");
    upload_free(u);

    assert_int_equal(upload_begin(w->c, &terms_of_cats, &u, NULL), 0);
    session = *upload_session(u);
    assert_int_equal(catalogue_abort(w->c, "cats", 2, "cleared", NULL), 0);
    assert_int_equal(catalogue_abort(w->c, "cats", 2, "cleared", NULL), 0);
    SAYS(catalogue_abort(w->c, "cats", 3, "cleared", &err), -ENOENT, "has no version 3");
    SAYS(catalogue_abort(w->c, "cats", 1, "cleared", &err), -EEXIST, "has been committed");
    SAYS(upload_resume(w->c, "cats", 2, &session, &none, &err), -ESTALE, "was aborted (cleared)");
    manifest_release(&m);
    assert_int_equal(put_objects(w->store, u, &m), 0);
    SAYS(upload_commit(u, &m, &v, &err), -ESTALE, "was aborted: cleared");
    upload_free(u);
}

static void test_two_processes_resume_one_session(void **state)
{
    struct world *w = *state;
    AUTO(manifest_release) struct manifest m1 = {0}, m2 = {0};
    AUTO(upload_free) struct upload *a = NULL, *b = NULL;
    struct version_info v;

    assert_int_equal(upload_begin(w->c, &terms_of_cats, &a, NULL), 0);
    assert_int_equal(upload_resume(w->c, "cats", 1, upload_session(a), &b, NULL), 0);
    assert_int_equal(put_objects(w->store, a, &m1), 0);
    /* both count from 0: the second is told so by its own put, and goes on behind it */
    assert_int_equal(put_objects(w->store, b, &m2), -EEXIST);
    (void)upload_next_seq(b, 'x');
    assert_int_equal(put_objects(w->store, b, &m2), 0);
    assert_int_equal(upload_indexing(a, NULL), 0);
    assert_int_equal(upload_indexing(b, NULL), 0);
    assert_int_equal(upload_commit(a, &m1, &v, NULL), 0);
    SAYS(upload_commit(b, &m2, &v, &err), -EEXIST, "was committed by another process");
}

static int64_t later_ms;
static int64_t later_boot(struct env *env)
{
    return env_real()->boot_ms(env_real()) + later_ms;
}

static int count_keys(void *ctx, const struct store_entry *e)
{
    ++*(int *)ctx;
    return 0;
}

static int keys_under(struct world *w, const char *prefix)
{
    int count = 0;

    assert_int_equal(store_list(w->store, prefix, NULL, count_keys, &count, NULL), 0);
    return count;
}

static void test_heartbeats(void **state)
{
    struct world *w = *state;
    AUTO(upload_free) struct upload *u = NULL;

    w->env.boot_ms = later_boot;
    later_ms = 0;
    assert_int_equal(upload_begin(w->c, &terms_of_cats, &u, NULL), 0);
    assert_int_equal(keys_under(w, "s/"), 1);
    assert_int_equal(upload_heartbeat(u, NULL), 0);
    assert_int_equal(keys_under(w, "s/"), 1); /* too early for one */
    for (int i = 0; i < 5; i++) {
        later_ms += CATALOGUE_HEARTBEAT_MS;
        assert_int_equal(upload_heartbeat(u, NULL), 0);
        assert_int_equal(keys_under(w, "s/"), 2); /* the older ones are gone */
        assert_int_equal(upload_heartbeat(u, NULL), 0);
    }
    assert_int_equal(keys_under(w, "s/"), 2);
}

static void test_dead_uploads_expire(void **state)
{
    struct world *w = *state;
    struct upload *dead = NULL;
    struct catalogue *soon = NULL;
    struct version_info v;
    unsigned count = 77;

    assert_int_equal(publish(w->c, w->store, "cats", &v, NULL), 0);
    assert_int_equal(upload_begin(w->c, &terms_of_cats, &dead, NULL), 0);
    assert_int_equal(catalogue_expire(w->c, NULL, &count, NULL), 0);
    assert_int_equal(count, 0); /* seven days have not passed */

    assert_int_equal(store_remove(w->store, KEY_FORMAT), 0);
    put_raw_record(w, KEY_FORMAT, RECORD_FORMAT,
                   json_pack("{s:i, s:s, s:i, s:i}", "format", CATALOGUE_FORMAT, "store_id",
                             "00112233445566778899aabbccddeeff", "created_ms", 1, "dead_after_ms",
                             0));
    assert_int_equal(catalogue_open(w->store, &w->env, CATALOGUE_READ, &soon, NULL), 0);
    env_real()->sleep_ms(env_real(), 20); /* the file system's clock ticks every few ms */
    assert_int_equal(catalogue_expire(soon, "dogs", &count, NULL), 0);
    assert_int_equal(count, 0);
    assert_int_equal(catalogue_expire(soon, "cats", &count, NULL), 0);
    assert_int_equal(count, 1);
    SAYS(catalogue_resolve(w->c, "cats", 2, &v, &err), -ENOENT, "failed: no sign of life");
    catalogue_close(soon);
    upload_free(dead);
}

static void put_round(struct world *w, int round, const char *leaf, enum record_type type,
                      const char *objects)
{
    char key[CATALOGUE_KEY_MAX];

    (void)snprintf(key, sizeof key, "g/%010" PRIu64 "/%s", KEY_REVERSE - (uint64_t)round, leaf);
    put_raw_record(w, key, type,
                   objects ? json_pack("{s:i, s:[s, s]}", "round", round, "objects", objects,
                                       "m/00000000000000000000000000000000/0-4294967295")
                           : json_pack("{s:i}", "round", round));
}

static void test_condemned_packs_are_not_named(void **state)
{
    struct world *w = *state;
    struct upload *u = NULL;
    AUTO(manifest_release) struct manifest m = {0};
    struct version_info v;
    char hex[33], range[64];

    assert_int_equal(publish(w->c, w->store, "cats", &v, NULL), 0);
    struct object_ref old = some_ref(&v.session, 0, 1);
    session_id_to_hex(&v.session, hex);

    /* round 1 has ended: what it condemned is decided */
    (void)snprintf(range, sizeof range, "p/%s/0-9", hex);
    put_round(w, 1, "c", RECORD_CONDEMNED, range);
    put_round(w, 1, "w", RECORD_SWEEP, range);
    put_round(w, 1, "e", RECORD_ROUND_END, NULL);
    assert_int_equal(upload_begin(w->c, &terms_of_cats, &u, NULL), 0);
    assert_true(upload_may_reuse(u, &old));
    upload_free(u);

    (void)snprintf(range, sizeof range, "p/%s/3-7", hex);
    put_round(w, 2, "c", RECORD_CONDEMNED, range);
    assert_int_equal(upload_begin(w->c, &terms_of_cats, &u, NULL), 0);
    for (uint32_t seq = 0; seq < 10; seq++) {
        struct object_ref pack = some_ref(&v.session, seq, 1);
        assert_int_equal(upload_may_reuse(u, &pack), seq < 3 || seq > 7);
    }
    assert_true(upload_may_reuse(u, &(struct object_ref){.seq = 5}));
    assert_int_equal(put_objects(w->store, u, &m), 0);
    m.packs[0] = some_ref(&v.session, 5, 1);
    SAYS(upload_commit(u, &m, &v, &err), -EPROTO, "is about to be collected");
    m.packs[0] = old;
    assert_int_equal(upload_commit(u, &m, &v, NULL), 0); /* another's pack may be named */
    upload_free(u);
    assert_int_equal(v.version, 3);
}

static void test_broken_rounds_stop_an_upload(void **state)
{
    static const char *const broken[] = {"",
                                         "p",
                                         "p/00112233445566778899aabbccddeeff/",
                                         "p/00112233445566778899aabbccddeeff/1",
                                         "p/00112233445566778899aabbccddeeff/2-1",
                                         "p/00112233445566778899aabbccddeeff/0-4294967296",
                                         "p/00112233445566778899aabbccddeeff/0-1 ",
                                         "q/00112233445566778899aabbccddeeff/0-1",
                                         "p/00112233445566778899aabbccddeef/0-1"};
    struct world *w = *state;

    for (int i = 0; i < (int)(sizeof broken / sizeof *broken); i++) {
        struct upload *u = NULL;
        struct version_info v;
        char key[CATALOGUE_KEY_MAX];
        put_round(w, 1, "c", RECORD_CONDEMNED, broken[i]);
        SAYS(upload_begin(w->c, &terms_of_cats, &u, &err), -EPROTO, "g/9999999998/c");
        /* and the number does not look alive for days */
        SAYS(catalogue_resolve(w->c, "cats", (uint32_t)i + 1, &v, &err), -ENOENT,
             "failed: it could");
        (void)snprintf(key, sizeof key, "g/%010" PRIu64 "/c", KEY_REVERSE - 1);
        assert_int_equal(store_remove(w->store, key), 0);
    }
}

static void test_a_commit_needs_its_packs(void **state)
{
    struct world *w = *state;
    AUTO(upload_free) struct upload *u = NULL;
    AUTO(manifest_release) struct manifest m = {0};
    struct version_info v;

    assert_int_equal(upload_begin(w->c, &terms_of_cats, &u, NULL), 0);
    assert_int_equal(put_objects(w->store, u, &m), 0);
    m.packs[0].seq = 5;
    SAYS(upload_commit(u, &m, &v, &err), -ENOENT, "1 of 1 objects under p/");
    m.packs[0].seq = 0;
    m.packs[0].length++;
    SAYS(upload_commit(u, &m, &v, &err), -EBADMSG, "and should be 613");
    m.packs[0].length--;
    m.index.seq = 9;
    SAYS(upload_commit(u, &m, &v, &err), -ENOENT, "under x/");
    m.index.seq = 0;
    m.index_size = 0;
    SAYS(upload_commit(u, &m, &v, &err), -EINVAL, "cannot make the manifest");
    m.index_size = 500;
    m.files = UINT64_MAX; /* no number of JSON's */
    SAYS(upload_commit(u, &m, &v, &err), -EPROTO, "its field \"files\" is out of range");
    m.files = 3;
    assert_int_equal(upload_commit(u, &m, &v, NULL), 0);
    assert_int_equal(v.files, 3);
}

static void test_labels_are_made_safe(void **state)
{
    struct world *w = *state;
    AUTO(upload_free) struct upload *u = NULL;
    AUTO(manifest_release) struct manifest m = {0};
    struct version_info made, v;
    char source[3000];
    struct upload_terms terms = {
        .name = "x", .owner = "\xff\xfe", .host = "", .source = source, .linked = true};

    memset(source, 'y', sizeof source);
    source[sizeof source - 1] = '\0';
    assert_int_equal(upload_begin(w->c, &terms, &u, NULL), 0);
    assert_int_equal(put_objects(w->store, u, &m), 0);
    assert_int_equal(upload_commit(u, &m, &made, NULL), 0);
    assert_int_equal(catalogue_resolve(w->c, "x", 1, &v, NULL), 0);
    assert_memory_equal(&v, &made, sizeof v);
    assert_string_equal(v.owner, "\xef\xbf\xbd\xef\xbf\xbd");
    assert_int_equal(strlen(v.source), sizeof v.source - 1);
    assert_string_equal(v.source + sizeof v.source - 4, "...");
    assert_true(v.linked);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        BOTH(test_opening),
        BOTH(test_newer_formats_are_refused),
        BOTH(test_a_version_from_begin_to_manifest),
        BOTH(test_what_resolve_says),
        BOTH(test_deleted_versions_are_gone),
        BOTH(test_listing),
        BOTH(test_resume),
        BOTH(test_two_processes_resume_one_session),
        BOTH(test_heartbeats),
        BOTH(test_dead_uploads_expire),
        BOTH(test_condemned_packs_are_not_named),
        BOTH(test_broken_rounds_stop_an_upload),
        BOTH(test_a_commit_needs_its_packs),
        BOTH(test_labels_are_made_safe),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
