/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The catalogue when things go wrong: every store call failing in turn, before and after it took
 * effect; damaged records in every place; many threads racing for one name. What is reported must
 * be what the store holds (I1, I3, I4, I5, I17).
 */
#include "catalogue-fixture.h"

#include "base/name.h"

#include <inttypes.h>

/* ---- failing calls ---- */

static bool exists(struct store *s, const char *key)
{
    uint8_t byte;
    size_t got;
    int r = store_get(s, key, 0, &byte, 1, &got, NULL);

    assert_true(r == 0 || r == -ENOENT);
    return r == 0;
}

/* One publish whose Nth call fails. False when there was no Nth call. */
static bool publish_with_fault(struct world *w, const struct store_fault_plan *plan)
{
    AUTO(catalogue_close) struct catalogue *c = NULL;
    struct err err = ERR_INIT;
    struct version_info v = {0}, there;
    uint32_t highest_before, highest;
    char key[CATALOGUE_KEY_MAX];

    assert_int_equal(version_highest(w->c, "cats", &highest_before, NULL), 0);
    struct store *fault = faulty(w->store, plan);
    int r = catalogue_open(fault, &w->env, CATALOGUE_WRITE, &c, &err);
    if (r == 0)
        r = publish(c, w->store, "cats", &v, &err);
    bool fired = store_fault_fired(fault);
    store_close(fault);

    if (r < 0)
        assert_true(err.text[0] != '\0'); /* each failure has its sentence */
    assert_int_equal(version_highest(w->c, "cats", &highest, NULL), 0);
    assert_true(highest - highest_before <= 1);
    int look = catalogue_resolve(w->c, "cats", highest, &there, NULL);
    if (r == 0) { /* told "committed" */
        assert_int_equal(v.version, highest_before + 1);
        assert_int_equal(look, 0);
        assert_memory_equal(&v, &there, sizeof v);
        AUTO(manifest_release) struct manifest m = {0};
        assert_int_equal(catalogue_manifest(w->c, &there, &m, NULL), 0);
    } else if (highest > highest_before) { /* told something else */
        key_version(key, "cats", highest, "o");
        if (r == -ESTALE)
            assert_true(look == -ENOENT && exists(w->store, key));
        else if (r != -EIO && r != -ETIMEDOUT)
            assert_int_equal(look, -ENOENT);
    }
    assert_true(!fired || r == 0 || r == plan->code || r == -EIO || r == -ESTALE);
    return fired;
}

static void fault_loop(void **state, int code, bool after, bool forever)
{
    struct world *w = *state;
    uint64_t n = 1;

    while (publish_with_fault(w, &(struct store_fault_plan){
                                     .nth = n, .code = code, .after = after, .forever = forever})) {
        n++;
        assert_true(n < 1000);
    }
    assert_true(n > 9); /* the loop did walk: fmt, n, a, i, g, p, x, m, o */
    struct version_info v;
    assert_int_equal(publish(w->c, w->store, "cats", &v, NULL), 0); /* and nothing is in the way */
}

static void test_lost_before(void **state)
{
    fault_loop(state, -EIO, false, false);
    fault_loop(state, -ETIMEDOUT, false, false);
}

static void test_lost_after(void **state)
{
    fault_loop(state, -EIO, true, false);
    fault_loop(state, -ETIMEDOUT, true, false);
}

static void test_refused(void **state)
{
    fault_loop(state, -ENOSPC, false, false);
    fault_loop(state, -EACCES, false, true);
}

static void test_gone_for_good(void **state)
{
    fault_loop(state, -EIO, false, true);
    fault_loop(state, -EIO, true, true);
}

/* A single lost answer is nothing that a user should see. */
static void test_one_lost_answer_of_a_put_is_settled(void **state)
{
    struct world *w = *state;

    for (uint64_t n = 1;; n++) {
        struct store_fault_plan plan = {.nth = n, .code = -EIO, .after = true};
        AUTO(catalogue_close) struct catalogue *c = NULL;
        struct version_info v;
        struct store_counts counts;
        struct store *trace = NULL, *fault = faulty(w->store, &plan);
        assert_int_equal(store_trace_new(fault, NULL, NULL, &trace), 0);
        int r = catalogue_open(trace, &w->env, CATALOGUE_READ, &c, NULL);
        if (r == 0)
            r = publish(c, w->store, "cats", &v, NULL);
        bool fired = store_fault_fired(fault);
        store_trace_counts(trace, &counts);
        store_close(trace);
        if (!fired) {
            assert_int_equal(r, 0);
            break;
        }
        /* what may fail is a list or a get at which nothing was at stake */
        if (r < 0)
            assert_int_equal(r, -EIO);
        assert_true(r == 0 || counts.puts <= 3); /* of a, i, m, o: an answered outcome is known */
    }
}

/* ---- damage ---- */

static int publish_over(struct world *w, struct err *err)
{
    struct version_info v;

    return publish(w->c, w->store, "cats", &v, err);
}

static int take_any(void *ctx, const struct version_info *v)
{
    return 0;
}

static int list_over(struct world *w, struct err *err)
{
    return catalogue_list(w->c, NULL, take_any, NULL, err);
}

static int resolve_over(struct world *w, struct err *err)
{
    struct version_info v;

    return catalogue_resolve(w->c, "cats", 0, &v, err);
}

static int open_over(struct world *w, struct err *err)
{
    AUTO(catalogue_close) struct catalogue *c = NULL;

    return catalogue_open(w->store, &w->env, CATALOGUE_WRITE, &c, err);
}

static int owner_over(struct world *w, struct err *err)
{
    char owner[64];

    return catalogue_owner(w->c, "cats", owner, err);
}

static int manifest_over(struct world *w, struct err *err)
{
    AUTO(manifest_release) struct manifest m = {0};
    struct version_info v;

    assert_int_equal(catalogue_resolve(w->c, "cats", 1, &v, NULL), 0);
    return catalogue_manifest(w->c, &v, &m, err);
}

static struct session_id undecided_session;

static int resume_over(struct world *w, struct err *err)
{
    AUTO(upload_free) struct upload *u = NULL;

    return upload_resume(w->c, "cats", 2, &undecided_session, &u, err);
}

/* Each byte of the object flipped, it cut at each length, and it empty: -EBADMSG naming it. */
static void damage(struct world *w, const char *key, int (*use)(struct world *, struct err *))
{
    AUTO(buf_release) struct buf good = BUF_INIT(CATALOGUE_RECORD_MAX);
    struct err err = ERR_INIT;

    assert_int_equal(store_get_all(w->store, key, &good), 0);
    for (size_t i = 0; i < good.size; i += w->root[0] ? 13 : 1) { /* a disk is slow */
        err_clear(&err);
        good.data[i] ^= 0x11;
        replace(w, key, buf_bytes(&good));
        int r = use(w, &err);
        if (r != -EBADMSG || !strstr(err.text, key))
            fail_msg("%s, byte %zu: %d, %s", key, i, r, err.text);
        good.data[i] ^= 0x11;
    }
    for (size_t size = 0; size < good.size; size += 1 + size / 8) {
        replace(w, key, bytes_of(good.data, size));
        assert_int_equal(use(w, NULL), -EBADMSG);
    }
    replace(w, key, buf_bytes(&good));
}

static void test_damaged_records_are_named(void **state)
{
    struct world *w = *state;
    AUTO(upload_free) struct upload *u = NULL;
    struct version_info v;
    char key[CATALOGUE_KEY_MAX], manifest[OBJECT_KEY_MAX];

    catalogue_set_readers(w->c, 1);
    assert_int_equal(publish(w->c, w->store, "cats", &v, NULL), 0);
    object_ref_key('m', &v.manifest, manifest);
    damage(w, manifest, manifest_over);
    damage(w, KEY_FORMAT, open_over);
    key_version(key, "cats", 1, "a");
    damage(w, key, owner_over);
    key_version(key, "cats", 1, "o");
    damage(w, key, list_over);
    damage(w, key, resolve_over);

    assert_int_equal(upload_begin(w->c, &terms_of_cats, &u, NULL), 0);
    undecided_session = *upload_session(u);
    key_version(key, "cats", 2, "a");
    damage(w, key, list_over);
    damage(w, key, resume_over);
    key_session(key, &undecided_session, "i");
    damage(w, key, resume_over);
    assert_int_equal(upload_indexing(u, NULL), 0);
    for (uint32_t seq = 0; seq < 5000; seq++) {
        key_heartbeat(key, &undecided_session, seq);
        if (exists(w->store, key))
            break;
    }
    damage(w, key, list_over);
    assert_int_equal(upload_abort(u, "reason", NULL), 0);
    key_version(key, "cats", 2, "o");
    damage(w, key, list_over);
    damage(w, key, resume_over);

    (void)snprintf(key, sizeof key, "g/%010" PRIu64 "/c", KEY_REVERSE - 1);
    put_raw_record(w, key, RECORD_CONDEMNED, json_pack("{s:i, s:[]}", "round", 1, "objects"));
    damage(w, key, publish_over);
    key_version(key, "cats", 1, "d/000001/r");
    put_raw_record(w, key, RECORD_DELETE_RESULT, json_pack("{s:s}", "decision", "refused"));
    damage(w, key, list_over);
}

static int count_any(void *ctx, const struct version_info *v)
{
    ++*(unsigned *)ctx;
    return 0;
}

static void test_a_listing_goes_on_behind_damage(void **state)
{
    struct world *w = *state;
    struct version_info v;
    struct err err = ERR_INIT;
    char key[CATALOGUE_KEY_MAX];

    for (unsigned n = 1; n <= 200; n++)
        assert_int_equal(publish(w->c, w->store, "cats", &v, NULL), 0);
    key_version(key, "cats", 150, "o");
    replace(w, key, bytes_str("rubbish"));
    for (unsigned readers = 1; readers <= 4; readers += 3) {
        unsigned count = 0;
        catalogue_set_readers(w->c, readers);
        err_clear(&err);
        assert_int_equal(catalogue_list(w->c, NULL, count_any, &count, &err), -EBADMSG);
        assert_int_equal(count, 199);
        assert_non_null(strstr(err.text, key));
    }
    key_version(key, "cats", 20, "o");
    replace(w, key, bytes_str(""));
    unsigned count = 0;
    err_clear(&err);
    assert_int_equal(catalogue_list(w->c, NULL, count_any, &count, &err), -EBADMSG);
    assert_int_equal(count, 198);
    assert_non_null(strstr(err.text, "; and 1 more"));
}

/* I3: a damaged outcome is neither a commit nor an abort, and nobody gets past it. */
static void test_a_damaged_outcome_decides_nothing(void **state)
{
    struct world *w = *state;
    AUTO(upload_free) struct upload *u = NULL;
    AUTO(manifest_release) struct manifest m = {0};
    struct version_info v;
    char key[CATALOGUE_KEY_MAX];

    assert_int_equal(upload_begin(w->c, &terms_of_cats, &u, NULL), 0);
    assert_int_equal(put_objects(w->store, u, &m), 0);
    key_version(key, "cats", 1, "o");
    assert_int_equal(store_put_if_absent(w->store, key, bytes_str("")), 0);
    assert_int_equal(upload_commit(u, &m, &v, NULL), -EBADMSG);
    assert_int_equal(upload_abort(u, "x", NULL), -EBADMSG);
    /* nor is a damaged allocation a free number */
    key_version(key, "cats", 2, "a");
    assert_int_equal(store_put_if_absent(w->store, key, bytes_str("rubbish")), 0);
    assert_int_equal(publish(w->c, w->store, "cats", &v, NULL), 0);
    assert_int_equal(v.version, 3);
}

/* Every field that is needed, left out or of another type, one at a time. */
static void test_each_field_is_needed(void **state)
{
    struct world *w = *state;
    AUTO(json_decref) json_t *body = NULL;
    struct version_info v;
    char key[CATALOGUE_KEY_MAX];
    const char *field;
    json_t *value;
    void *next;
    unsigned fields = 0;

    assert_int_equal(publish(w->c, w->store, "cats", &v, NULL), 0);
    key_version(key, "cats", 1, "o");
    assert_int_equal(read_record(w->c, key, RECORD_OUTCOME, &body, NULL), 0);
    json_object_foreach_safe(body, next, field, value)
    {
        for (int kind = 0; kind < 2; kind++) {
            AUTO(json_decref) json_t *broken = json_deep_copy(body);
            AUTO(buf_release) struct buf b = BUF_INIT(CATALOGUE_RECORD_MAX);
            struct err err = ERR_INIT;
            if (kind == 0)
                assert_int_equal(json_object_del(broken, field), 0);
            else
                assert_int_equal(json_object_set_new(broken, field, json_null()), 0);
            assert_int_equal(record_encode(RECORD_OUTCOME, broken, &b), 0);
            replace(w, key, buf_bytes(&b));
            assert_int_equal(catalogue_resolve(w->c, "cats", 1, &v, &err), -EPROTO);
            assert_non_null(strstr(err.text, key));
            assert_non_null(strstr(err.text, field));
        }
        fields++;
    }
    assert_int_equal(fields, 18);
    AUTO(json_decref) json_t *more = json_deep_copy(body);
    AUTO(buf_release) struct buf b = BUF_INIT(CATALOGUE_RECORD_MAX);
    assert_int_equal(json_object_set_new(more, "of_the_future", json_array()), 0);
    assert_int_equal(record_encode(RECORD_OUTCOME, more, &b), 0);
    replace(w, key, buf_bytes(&b));
    assert_int_equal(catalogue_resolve(w->c, "cats", 1, &v, NULL), 0);
    /* a record that was copied to another key is not believed */
    char other[CATALOGUE_KEY_MAX];
    key_version(other, "cats", 2, "o");
    assert_int_equal(store_put_if_absent(w->store, other, buf_bytes(&b)), 0);
    assert_int_equal(catalogue_resolve(w->c, "cats", 2, &v, NULL), -EPROTO);
}

/* ---- many at once ---- */

#define RACERS 64
#define LAPS   3

struct racer {
    struct world *w;
    pthread_t thread;
    uint32_t versions[LAPS];
    int result;
};

static void *race(void *ctx)
{
    struct racer *r = ctx;

    for (int i = 0; i < LAPS && r->result == 0; i++) {
        struct version_info v;
        struct err err = ERR_INIT;
        r->result = publish(r->w->c, r->w->store, "cats", &v, &err);
        if (r->result < 0)
            (void)fprintf(stderr, "%s\n", err.text);
        else
            r->versions[i] = v.version;
    }
    return NULL;
}

static void test_racing_creations(void **state)
{
    struct racer racers[RACERS] = {0};
    bool seen[RACERS * LAPS + 1] = {false};

    for (int i = 0; i < RACERS; i++) {
        racers[i].w = *state;
        assert_int_equal(pthread_create(&racers[i].thread, NULL, race, &racers[i]), 0);
    }
    for (int i = 0; i < RACERS; i++) {
        assert_int_equal(pthread_join(racers[i].thread, NULL), 0);
        assert_int_equal(racers[i].result, 0);
        for (int k = 0; k < LAPS; k++) { /* dense, each once (I1) */
            uint32_t n = racers[i].versions[k];
            assert_true(n >= 1 && n <= RACERS * LAPS && !seen[n]);
            seen[n] = true;
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        BOTH(test_lost_before),
        BOTH(test_lost_after),
        BOTH(test_refused),
        BOTH(test_gone_for_good),
        BOTH(test_one_lost_answer_of_a_put_is_settled),
        BOTH(test_damaged_records_are_named),
        BOTH(test_a_listing_goes_on_behind_damage),
        BOTH(test_a_damaged_outcome_decides_nothing),
        BOTH(test_each_field_is_needed),
        BOTH(test_racing_creations),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
