/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Collection: what goes and what stays, failing enumerations at every call, odd stores, collectors
 * that die at every call, share a round, or come back late (I7, I9 to I12, I16).
 */
#include "hold-fixture.h"

struct waits {
    unsigned count;
    struct collect_wait last;
};

static void see_wait(void *ctx, const struct collect_wait *w)
{
    struct waits *waits = ctx;

    waits->count++;
    waits->last = *w;
}

static struct collect_report collect(struct scene *s)
{
    struct collect_report report;
    struct err err = ERR_INIT;

    int r = catalogue_collect(s->c, &(struct collect_options){0}, &report, &err);
    if (r < 0)
        fail_msg("%s", err_text(&err, r));
    return report;
}

static void test_what_goes_and_what_stays(void **state)
{
    struct scene *s = *state;
    struct collect_report report = collect(s);

    assert_int_equal(report.round, 0); /* nothing to do */
    struct version_info first = scene_publish(s, NULL);
    struct object_ref shared = pack_of(s, &first);
    struct version_info second = scene_publish(s, &shared);
    struct object_ref own = pack_of(s, &second);
    report = collect(s);
    assert_int_equal(report.round, 0);
    assert_int_equal(report.versions, 2);

    assert_int_equal(scene_delete(s->c, 1, NULL), 0);
    report = collect(s);
    assert_int_equal(report.round, 1);
    assert_true(report.ended);
    assert_int_equal(report.objects, 2); /* its index and manifest; its pack is named by 2 */
    assert_true(report.bytes > PACK_LENGTH);
    assert_true(object_exists(s, 'p', &shared));
    assert_whole(s);
    assert_int_equal(keys_under(s, "s/"), 2); /* an object of the first session is left */

    assert_int_equal(scene_delete(s->c, 2, NULL), 0);
    report = collect(s);
    assert_int_equal(report.round, 2);
    assert_int_equal(report.objects, 4);
    assert_false(object_exists(s, 'p', &shared));
    assert_false(object_exists(s, 'p', &own));
    assert_int_equal(keys_under(s, "p/") + keys_under(s, "x/") + keys_under(s, "m/"), 0);
    assert_int_equal(keys_under(s, "s/"), 0); /* I12 */
    assert_int_equal(report.records, 2);
    report = collect(s);
    assert_int_equal(report.round, 0);
    assert_int_equal(report.records, 0);
    assert_int_equal(scene_publish(s, NULL).version, 3);
    assert_whole(s);
}

static void test_a_dry_run_writes_nothing(void **state)
{
    struct scene *s = *state;
    AUTO(upload_free) struct upload *u = NULL;
    struct collect_report report;
    struct waits waits = {0};
    struct collect_options dry = {.dry_run = true, .waits_for = see_wait, .ctx = &waits};

    (void)scene_publish(s, NULL);
    assert_int_equal(scene_delete(s->c, 1, NULL), 0);
    assert_int_equal(upload_begin(s->c, &terms_of_cats, &u, NULL), 0);
    s->now_ms += CATALOGUE_DEAD_AFTER_MS * 2; /* not even what is dead is expired */
    uint64_t put = s->put, removed = s->removed;
    assert_int_equal(catalogue_collect(s->c, &dry, &report, NULL), 0);
    assert_int_equal(report.objects, 3);
    assert_true(report.bytes > 0 && !report.ended && report.round == 0);
    assert_int_equal(waits.count, 1);
    assert_true(s->put == put && s->removed == removed);
}

/* ---- uploads ---- */

static void test_waiting_for_uploads(void **state)
{
    struct scene *s = *state;
    AUTO(upload_free) struct upload *u = NULL;
    AUTO(upload_free) struct upload *later = NULL;
    AUTO(manifest_release) struct manifest m = {0};
    struct waits waits = {0};
    struct collect_options options = {.waits_for = see_wait, .ctx = &waits};
    struct collect_report report;
    struct version_info v;

    struct version_info first = scene_publish(s, NULL);
    struct object_ref pack = pack_of(s, &first);
    assert_int_equal(upload_begin(s->c, &terms_of_cats, &u, NULL), 0);
    assert_true(upload_may_reuse(u, &pack));
    assert_int_equal(scene_delete(s->c, 1, NULL), 0);
    assert_int_equal(catalogue_collect(s->c, &options, &report, NULL), 0);
    assert_true(report.round == 1 && !report.ended && report.waits == 1 && waits.count == 1);
    assert_string_equal(waits.last.name, "cats");
    assert_int_equal(waits.last.version, 2);
    assert_string_equal(waits.last.owner, "ann");
    assert_string_equal(waits.last.host, "node7");
    assert_int_equal(s->objects_removed, 0);

    /* I7: who comes later reads the condemned list, and is not waited for */
    assert_int_equal(upload_begin(s->c, &terms_of_cats, &later, NULL), 0);
    assert_false(upload_may_reuse(later, &pack));
    waits = (struct waits){0};
    assert_int_equal(catalogue_collect(s->c, &options, &report, NULL), 0);
    assert_true(report.waits == 1 && waits.last.version == 2 && !report.ended);

    /* the one that was there names the pack: it stays */
    assert_int_equal(put_objects(s->c->store, u, &m), 0);
    m.packs = realloc(m.packs, 2 * sizeof *m.packs);
    assert_non_null(m.packs);
    m.packs[m.pack_count++] = pack;
    assert_int_equal(upload_commit(u, &m, &v, NULL), 0);
    assert_int_equal(catalogue_collect(s->c, &options, &report, NULL), 0);
    assert_true(report.round == 1 && report.ended && report.waits == 0);
    assert_int_equal(report.objects, 2);
    assert_true(object_exists(s, 'p', &pack));
    assert_whole(s);
    assert_int_equal(upload_abort(later, "enough", NULL), 0);
}

static void test_dead_uploads_expire(void **state)
{
    struct scene *s = *state;
    AUTO(upload_free) struct upload *u = NULL;
    AUTO(manifest_release) struct manifest m = {0};

    assert_int_equal(upload_begin(s->c, &terms_of_cats, &u, NULL), 0);
    assert_int_equal(put_objects(s->c->store, u, &m), 0);
    s->now_ms += CATALOGUE_DEAD_AFTER_MS - MINUTE;
    struct collect_report report = collect(s);
    assert_true(report.expired == 0 && report.objects == 0);
    s->now_ms += 2 * MINUTE;
    report = collect(s);
    assert_true(report.expired == 1 && report.objects == 2 && report.ended);
    assert_int_equal(keys_under(s, "s/"), 0);
}

/* ---- fail closed ---- */

/* Versions 1 (deleted), 2 (names a pack of 1) and 3 (deleted), a failed upload, another name. */
static struct scene *busy_scene(void)
{
    struct scene *s = scene_new();
    AUTO(upload_free) struct upload *u = NULL;
    AUTO(manifest_release) struct manifest m = {0};
    struct version_info v;

    struct version_info first = scene_publish(s, NULL);
    struct object_ref pack = pack_of(s, &first);
    (void)scene_publish(s, &pack);
    (void)scene_publish(s, NULL);
    assert_int_equal(upload_begin(s->c, &terms_of_cats, &u, NULL), 0);
    assert_int_equal(put_objects(s->c->store, u, &m), 0);
    assert_int_equal(upload_abort(u, "for the test", NULL), 0);
    assert_int_equal(publish(s->c, s->c->store, "dogs", &v, NULL), 0);
    assert_int_equal(scene_delete(s->c, 1, NULL), 0);
    assert_int_equal(scene_delete(s->c, 3, NULL), 0);
    return s;
}

#define BUSY_GARBAGE 7u /* of 1: index and manifest; of 3: all three; of the failed one: two */

static int collect_as(struct actor *a, struct collect_report *ret, struct err *err)
{
    return catalogue_collect(a->c, &(struct collect_options){0}, ret, err);
}

/* Calls of a collection before its first removal of an object. */
static struct {
    uint64_t calls, first_removal;
} walk;

static void note_call(void *ctx, const char *call, const char *key, int result)
{
    walk.calls++;
    if (!walk.first_removal && strcmp(call, "remove") == 0 && strchr("pxm", key[0]))
        walk.first_removal = walk.calls;
}

static void count_calls(void)
{
    struct scene *s = busy_scene();
    struct store *trace = NULL;
    struct collect_report report;
    AUTO(catalogue_close) struct catalogue *c = NULL;

    walk.calls = walk.first_removal = 0;
    assert_int_equal(store_trace_new(clocked_new(s, NULL), note_call, NULL, &trace), 0);
    assert_int_equal(catalogue_open(s->w.store, &s->env, CATALOGUE_READ, &c, NULL), 0);
    c->store = trace;
    catalogue_set_readers(c, 1);
    assert_int_equal(catalogue_collect(c, &(struct collect_options){0}, &report, NULL), 0);
    assert_int_equal(report.objects, BUSY_GARBAGE);
    assert_int_equal(s->objects_removed, BUSY_GARBAGE);
    assert_whole(s);
    store_close(trace);
    scene_free(s);
    assert_true(walk.first_removal > 20);
}

static void test_a_failing_enumeration_removes_nothing(void **state)
{
    static const int codes[] = {-EIO, -ETIMEDOUT, -EACCES, -EBADMSG, -EPROTO, -ENOENT};
    unsigned failed = 0;

    count_calls();
    for (size_t i = 0; i < sizeof codes / sizeof *codes; i++) {
        for (uint64_t n = 1; n < walk.first_removal; n++) {
            struct scene *s = busy_scene();
            struct actor a = {0};
            struct collect_report report = {0};
            struct err err = ERR_INIT;
            actor_open(s, &a,
                       &(struct store_fault_plan){
                           .nth = n, .code = codes[i], .after = n & 1, .forever = true});
            int r = collect_as(&a, &report, &err);
            assert_true(store_fault_fired(a.fault));
            assert_true(r < 0);
            assert_true(err.text[0] != '\0');
            assert_int_equal(s->objects_removed, 0); /* I16 */
            actor_close(&a);
            (void)collect(s); /* what was begun is ended */
            assert_int_equal(s->objects_removed, BUSY_GARBAGE);
            assert_whole(s);
            scene_free(s);

            s = busy_scene();
            struct actor once = {0};
            actor_open(s, &once,
                       &(struct store_fault_plan){.nth = n, .code = codes[i], .after = n & 1});
            r = collect_as(&once, &report, NULL);
            if (r < 0) {
                failed++;
                assert_int_equal(s->objects_removed, 0);
            }
            actor_close(&once);
            (void)collect(s);
            assert_int_equal(s->objects_removed, BUSY_GARBAGE);
            assert_whole(s);
            scene_free(s);
        }
    }
    assert_true(failed > 6 * 15); /* but for settled puts and reads, every one counts */
}

static void assert_refused(struct scene *s, int code, const char *sentence)
{
    struct collect_report report;
    struct err err = ERR_INIT;

    assert_int_equal(catalogue_collect(s->c, &(struct collect_options){0}, &report, &err), code);
    if (!strstr(err.text, sentence))
        fail_msg("it says: %s", err.text);
    assert_int_equal(s->objects_removed, 0);
}

static void test_odd_stores(void **state)
{
    static const struct {
        const char *key, *says;
    } odd[] = {
        {"lost-found", "lost-found"},
        {"z/1", "z/"},
        {"n/cats/w", "n/cats/w"},
        {"n/cats/v/9999999998/z", "n/cats/v/9999999998/z"},
        {"p/0123456789abcdef0123456789abcdef/007", "/007"},
        {"p/0123456789abcdef0123456789abcdef/7", "of no upload"},
        {"x/0123456789abcdef0123456789abcdef/7", "of no upload"},
        {"s/0123456789abcdef0123456789abcdef/j", "no record of an upload"},
        {"g/9999999998/z", "no collection record"},
        {"g/9999999998/c", "is damaged"},
        {"g/9999999998/w", "not all there"},
        {"g/9999999997/c", "not all there"},
    };

    for (size_t i = 0; i < sizeof odd / sizeof *odd; i++) {
        struct scene *s = busy_scene();
        assert_int_equal(store_put_if_absent(s->w.store, odd[i].key, bytes_str("x")), 0);
        assert_refused(s, strcmp(odd[i].says, "is damaged") == 0 ? -EBADMSG : -EPROTO, odd[i].says);
        scene_free(s);
    }
}

static void test_stores_with_holes(void **state)
{
    char key[CATALOGUE_KEY_MAX];

    for (uint32_t n = 1; n <= 3; n++) { /* of 4: the highest may be any number */
        struct scene *s = busy_scene();
        key_version(key, "cats", n, "a");
        assert_int_equal(store_remove(s->w.store, key), 0);
        assert_refused(s, -EPROTO, "are not all there");
        scene_free(s);
    }
    struct scene *s = busy_scene(); /* a whole name is not listed */
    key_version(key, "dogs", 1, "a");
    assert_int_equal(store_remove(s->w.store, key), 0);
    key_version(key, "dogs", 1, "o");
    assert_int_equal(store_remove(s->w.store, key), 0);
    assert_refused(s, -EPROTO, "of no upload");
    scene_free(s);

    s = busy_scene(); /* an outcome is not listed: its upload seems to run */
    struct collect_report report;
    key_version(key, "dogs", 1, "o");
    assert_int_equal(store_remove(s->w.store, key), 0);
    assert_int_equal(catalogue_collect(s->c, &(struct collect_options){0}, &report, NULL), 0);
    assert_true(report.waits == 1 && s->objects_removed == 0);
    scene_free(s);

    s = busy_scene(); /* versions that had been committed are not there any more */
    (void)collect(s);
    s->objects_removed = 0;
    key_version(key, "cats", 2, "o");
    assert_int_equal(store_remove(s->w.store, key), 0);
    assert_refused(s, -EPROTO, "had been committed");
    scene_free(s);
}

static void test_damaged_stores(void **state)
{
    struct version_info v;
    char key[CATALOGUE_KEY_MAX];
    struct world w;

    struct scene *s = busy_scene(); /* a manifest */
    assert_int_equal(catalogue_resolve(s->c, "cats", 2, &v, NULL), 0);
    object_ref_key('m', &v.manifest, key);
    w = s->w;
    replace(&w, key, bytes_str("GRMF and then nothing"));
    assert_refused(s, -EBADMSG, "does not match");
    assert_int_equal(store_remove(s->w.store, key), 0);
    assert_refused(s, -EPROTO, "cannot read the manifest");
    scene_free(s);

    s = busy_scene(); /* a pack is missing */
    assert_int_equal(catalogue_resolve(s->c, "dogs", 1, &v, NULL), 0);
    struct object_ref pack = pack_of(s, &v);
    object_ref_key('p', &pack, key);
    assert_int_equal(store_remove(s->w.store, key), 0);
    assert_refused(s, -EPROTO, "which is missing");
    scene_free(s);

    s = busy_scene(); /* a record of a later format */
    AUTO(buf_release) struct buf b = BUF_INIT(1000);
    char hex[DIGEST_HEX_SIZE];
    assert_int_equal(buf_append_str(&b, "grid-record 2 outcome\nwhatever comes\n"), 0);
    struct digest d = digest_of(b.data, b.size);
    digest_to_hex(&d, hex);
    assert_int_equal(buf_printf(&b, "sha256 %s\n", hex), 0);
    key_version(key, "cats", 4, "o");
    replace(&s->w, key, buf_bytes(&b));
    assert_refused(s, -EPROTONOSUPPORT, "needs a newer one");
    scene_free(s);
}

/* A sweep list that names what a version names is not believed, whoever wrote it. */
static void test_a_sweep_list_that_is_wrong(void **state)
{
    struct scene *s = busy_scene();
    struct version_info v;
    struct world w = s->w;
    char key[CATALOGUE_KEY_MAX], hex[33], range[64];

    assert_int_equal(catalogue_resolve(s->c, "cats", 2, &v, NULL), 0);
    session_id_to_hex(&v.session, hex);
    (void)snprintf(range, sizeof range, "p/%s/0-4294967295", hex);
    w.c = s->c;
    key_round(key, 1, 'c');
    put_raw_record(&w, key, RECORD_CONDEMNED,
                   json_pack("{s:i, s:[s]}", "round", 1, "objects", range));
    struct collect_report report = collect(s); /* a condemned list may name it */
    assert_true(report.round == 1 && report.ended && report.objects == 0);
    assert_whole(s);
    key_round(key, 2, 'c');
    put_raw_record(&w, key, RECORD_CONDEMNED,
                   json_pack("{s:i, s:[s]}", "round", 2, "objects", range));
    key_round(key, 2, 'w');
    put_raw_record(&w, key, RECORD_SWEEP, json_pack("{s:i, s:[s]}", "round", 2, "objects", range));
    assert_refused(s, -EPROTO, "an available version names");
    scene_free(s);
}

/* ---- several collectors ---- */

static void test_collectors_that_die_and_are_taken_over(void **state)
{
    uint64_t n = 0;

    for (bool fired = true; fired;) {
        struct scene *s = busy_scene();
        struct actor a = {0};
        struct collect_report report;
        n++;
        actor_open(
            s, &a,
            &(struct store_fault_plan){.nth = n, .code = -EIO, .after = n & 1, .forever = true});
        int r = collect_as(&a, &report, NULL);
        fired = store_fault_fired(a.fault);
        assert_int_equal(r < 0, fired);
        actor_close(&a);
        assert_whole(s);
        (void)collect(s);
        assert_int_equal(s->objects_removed, BUSY_GARBAGE);
        assert_int_equal(keys_under(s, "g/"), 3); /* one round, ended once */
        assert_int_equal(keys_under(s, "s/"), 3); /* of 1, whose pack lives, of 2 and dogs */
        assert_whole(s);
        scene_free(s);
    }
    assert_true(n > walk.calls / 2);
}

static void collect_too(struct scene *s)
{
    struct collect_report report;

    assert_int_equal(catalogue_collect(s->c, &(struct collect_options){0}, &report, NULL), 0);
}

static void collect_and_publish(struct scene *s)
{
    struct version_info v;

    collect_too(s);
    v = scene_publish(s, NULL);
    struct object_ref pack = pack_of(s, &v);
    (void)scene_publish(s, &pack);
    assert_int_equal(scene_delete(s->c, v.version, NULL), 0);
    collect_too(s);
}

/* Another one runs to its end before every call of a collector, and the world goes on: what the
 * first does then is old, and harmless. */
static void run_with(void (*hook)(struct scene *s))
{
    uint64_t n = 0;

    for (bool hooked = true; hooked;) {
        struct scene *s = busy_scene();
        struct actor a = {.hook_at = ++n, .hook = hook};
        struct collect_report report;
        struct err err = ERR_INIT;
        actor_open(s, &a, NULL);
        int r = collect_as(&a, &report, &err);
        if (r < 0 && r != -EPROTO && r != -ENOENT)
            fail_msg("call %d: %s", (int)n, err_text(&err, r));
        hooked = a.hooked;
        actor_close(&a);
        assert_whole(s);
        (void)collect(s);
        assert_whole(s);
        assert_true(s->objects_removed >= BUSY_GARBAGE);
        scene_free(s);
    }
    assert_true(n > 30);
}

static void test_two_collectors(void **state)
{
    run_with(collect_too);
}

static void test_a_zombie(void **state)
{
    run_with(collect_and_publish);
}

/* ---- leases ---- */

static bool nobody(void *ctx, const struct hold_process *p)
{
    return false;
}

static void test_leases_are_tidied(void **state)
{
    struct scene *s = *state;
    struct collect_report report;
    struct collect_options options = {.is_gone = nobody};

    (void)scene_publish(s, NULL);
    (void)scene_publish(s, NULL);
    struct hold *dead = scene_hold(s, NULL, 1);
    struct hold *live = scene_hold(s, NULL, 2);
    struct delete_report deleted;
    assert_int_equal(
        catalogue_delete(s->c, "cats", 1, &(struct delete_options){.force = true}, &deleted, NULL),
        0);
    assert_int_equal(catalogue_collect(s->c, &options, &report, NULL), 0);
    assert_int_equal(keys_under(s, "l/cats/1/"), 0); /* a stray */
    assert_int_equal(keys_under(s, "l/cats/2/"), 1);
    s->now_ms += 60 * MINUTE; /* run out, perhaps: not a collector's to judge */
    assert_int_equal(catalogue_collect(s->c, &options, &report, NULL), 0);
    assert_int_equal(keys_under(s, "l/cats/2/"), 1);
    s->now_ms += CATALOGUE_DEAD_AFTER_MS;
    assert_int_equal(catalogue_collect(s->c, &options, &report, NULL), 0);
    assert_int_equal(keys_under(s, "l/"), 0);
    (void)hold_tick(live);
    assert_int_equal(hold_look(live, NULL), HOLD_HELD); /* it was only asleep */
    assert_int_equal(scene_delete(s->c, 2, NULL), -EBUSY);
    hold_end(live);
    hold_end(dead);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        BOTH_SCENES(test_what_goes_and_what_stays),
        BOTH_SCENES(test_a_dry_run_writes_nothing),
        BOTH_SCENES(test_waiting_for_uploads),
        BOTH_SCENES(test_dead_uploads_expire),
        cmocka_unit_test(test_a_failing_enumeration_removes_nothing),
        cmocka_unit_test(test_odd_stores),
        cmocka_unit_test(test_stores_with_holes),
        cmocka_unit_test(test_damaged_stores),
        cmocka_unit_test(test_a_sweep_list_that_is_wrong),
        cmocka_unit_test(test_collectors_that_die_and_are_taken_over),
        cmocka_unit_test(test_two_collectors),
        cmocka_unit_test(test_a_zombie),
        BOTH_SCENES(test_leases_are_tidied),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
