/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Deleting a version: what is said, what stands, suspects and clocks, every failing call, damage
 * (I2, I13, I14).
 */
#include "hold-fixture.h"

static void test_deleted_for_good(void **state)
{
    struct scene *s = *state;
    struct delete_report report;
    struct version_info v;
    struct err err = ERR_INIT;

    (void)scene_publish(s, NULL);
    (void)scene_publish(s, NULL);
    assert_int_equal(catalogue_delete(s->c, "cats", 1, &(struct delete_options){0}, &report, &err),
                     0);
    assert_int_equal(report.was, VERSION_SUCCEEDED);
    assert_int_equal(report.info.version, 1);
    assert_int_equal(report.overruled, 0);
    assert_int_equal(catalogue_resolve(s->c, "cats", 1, &v, &err), -ENOENT);
    assert_string_equal(err.text, "version 1 of 'cats' was deleted");
    err_clear(&err);
    assert_int_equal(scene_delete(s->c, 1, &err), -ENOENT);
    assert_string_equal(err.text, "version 1 of 'cats' was deleted before");
    err_clear(&err);
    assert_int_equal(scene_delete(s->c, 3, &err), -ENOENT);
    assert_non_null(strstr(err.text, "'cats' has no version 3"));
    err_clear(&err);
    assert_int_equal(catalogue_delete(s->c, "dogs", 1, &(struct delete_options){0}, &report, &err),
                     -ENOENT);
    err_clear(&err);
    assert_int_equal(catalogue_delete(s->c, "../x", 1, &(struct delete_options){0}, &report, &err),
                     -EINVAL);
    assert_int_equal(scene_delete(s->c, 0, NULL), -EINVAL);
    assert_int_equal(scene_delete(s->c, UINT32_MAX, NULL), -EINVAL);
    assert_int_equal(scene_delete(s->c, 2, NULL), 0);
    assert_int_equal(scene_publish(s, NULL).version, 3); /* I2 */
    assert_whole(s);
}

static void test_five_requests(void **state)
{
    struct scene *s = *state;
    struct actor a = {0};

    (void)scene_publish(s, NULL);
    actor_open(s, &a, NULL);
    assert_int_equal(scene_delete(a.c, 1, NULL), 0);
    assert_int_equal(a.calls, 5);
    actor_close(&a);
}

static void test_refused_while_held(void **state)
{
    struct scene *s = *state;
    struct err err = ERR_INIT;
    uint64_t id;

    (void)scene_publish(s, NULL);
    struct hold *h = scene_hold(s, NULL, 1);
    assert_int_equal(scene_delete(s->c, 1, &err), -EBUSY);
    assert_non_null(strstr(err.text, "version 1 of 'cats' is in use: run r1 on node1 (process 77) "
                                     "since 2027-01-15"));
    for (int i = 0; i < 20; i++)
        assert_int_equal(hold_join(h, &(struct hold_job){.text = "session s", .pid = i}, &id), 0);
    (void)hold_tick(h);
    err_clear(&err);
    assert_int_equal(scene_delete(s->c, 1, &err), -EBUSY);
    assert_non_null(strstr(err.text, "; session s on node1 (process 3)"));
    assert_non_null(strstr(err.text, "; and 16 more"));
    hold_end(h);
    assert_int_equal(scene_delete(s->c, 1, NULL), 0); /* at once */
    assert_int_equal(status_of(s, "cats", 1), VERSION_DELETED);
}

static void test_forced(void **state)
{
    struct scene *s = *state;
    struct delete_report report;

    (void)scene_publish(s, NULL);
    struct hold *h = scene_hold(s, NULL, 1);
    assert_int_equal(
        catalogue_delete(s->c, "cats", 1, &(struct delete_options){.force = true}, &report, NULL),
        0);
    assert_int_equal(report.overruled, 1);
    s->now_ms += 3 * MINUTE;
    assert_int_equal(hold_tick(h), INT64_MAX);
    assert_int_equal(hold_look(h, NULL), HOLD_LOST);
    hold_end(h);

    AUTO(json_decref) json_t *body = NULL;
    char key[CATALOGUE_KEY_MAX];
    key_delete_round(key, "cats", 1, 1, 'r');
    assert_int_equal(read_record(s->c, key, RECORD_DELETE_RESULT, &body, NULL), 0);
    const json_t *who = json_array_get(json_object_get(body, "holders"), 0);
    assert_string_equal(json_string_value(json_object_get(who, "job")), "run r1");
    assert_string_equal(json_string_value(json_object_get(who, "host")), "node1");
}

/* ---- suspects ---- */

struct watching {
    struct hold *h; /* ticks while somebody sleeps, if set */
    int asked;
    int64_t left_ms;
    bool stop;
    char text[HOLD_TEXT_MAX];
};

static bool while_waiting(void *ctx, const struct holder *holder, int64_t left_ms)
{
    struct watching *w = ctx;

    w->asked++;
    w->left_ms = left_ms;
    memcpy(w->text, holder->text, sizeof w->text);
    return !w->stop;
}

static void tick_holder(struct scene *s)
{
    struct watching *w = s->ctx;

    if (w->h)
        (void)hold_tick(w->h);
}

static int delete_watching(struct scene *s, struct watching *w, struct err *err)
{
    struct delete_report report;

    s->ctx = w;
    s->on_sleep = tick_holder;
    int r = catalogue_delete(s->c, "cats", 1,
                             &(struct delete_options){.waiting = while_waiting, .ctx = w}, &report,
                             err);
    s->on_sleep = NULL;
    return r;
}

static void test_a_vanished_holder_delays(void **state)
{
    struct scene *s = *state;
    struct watching w = {0};

    (void)scene_publish(s, NULL);
    struct hold *h = scene_hold(s, NULL, 1);
    s->now_ms += 9 * MINUTE;
    assert_int_equal(delete_watching(s, &w, NULL), -EBUSY); /* fresh, by the store's clock */
    assert_int_equal(w.asked, 0);
    s->now_ms += 2 * MINUTE;
    int64_t began = s->now_ms;
    assert_int_equal(delete_watching(s, &w, NULL), 0);
    assert_true(w.asked > 5 && w.left_ms > 0);
    assert_string_equal(w.text, "run r1");
    assert_true(s->now_ms - began >= HOLD_RENEW_MS * 12 / 10); /* a whole renewal interval */
    assert_true(s->now_ms - began <= 2 * HOLD_RENEW_MS);
    hold_end(h);
}

/* The store's clock says that every lease has run out; the holder renews all the same. */
static void test_a_store_with_a_wrong_clock(void **state)
{
    struct scene *s = *state;
    struct watching w = {0};
    struct err err = ERR_INIT;

    (void)scene_publish(s, NULL);
    w.h = scene_hold(s, NULL, 1);
    s->skew_ms = 60 * MINUTE;
    /* A renewal is no younger by this clock, so the lease stays suspect; but it is a newer one. */
    assert_int_equal(delete_watching(s, &w, &err), -EBUSY);
    assert_non_null(strstr(err.text, "run r1 on node1"));
    assert_int_equal(hold_look(w.h, NULL), HOLD_HELD);
    s->skew_ms = -60 * MINUTE; /* leases from the future are fresh */
    assert_int_equal(delete_watching(s, &w, NULL), -EBUSY);
    hold_end(w.h);
    assert_int_equal(delete_watching(s, &(struct watching){0}, NULL), 0);
}

static void test_withdrawn(void **state)
{
    struct scene *s = *state;
    struct watching w = {.stop = true};
    struct err err = ERR_INIT;

    (void)scene_publish(s, NULL);
    struct hold *h = scene_hold(s, NULL, 1);
    s->now_ms += 11 * MINUTE;
    assert_int_equal(delete_watching(s, &w, &err), -ECANCELED);
    assert_string_equal(err.text, "stopped: version 1 of 'cats' was not deleted");
    assert_int_equal(status_of(s, "cats", 1), VERSION_SUCCEEDED);
    assert_int_equal(keys_under(s, "n/cats/v/9999999998/d/000001/"), 2); /* it has its result */
    (void)hold_tick(h);
    assert_int_equal(hold_look(h, NULL), HOLD_HELD);
    hold_end(h);
}

static bool gone(void *ctx, const struct hold_process *p)
{
    assert_int_equal(p->pid, 77);
    assert_string_equal(p->host, "node1");
    assert_string_equal(p->machine, "0123456789abcdef0123456789abcdef");
    assert_int_equal(p->pid_ns, 1);
    return true;
}

static void test_a_process_that_is_gone(void **state)
{
    struct scene *s = *state;
    struct delete_report report;

    (void)scene_publish(s, NULL);
    struct hold *h = scene_hold(s, NULL, 1);
    int64_t began = s->now_ms;
    assert_int_equal(
        catalogue_delete(s->c, "cats", 1, &(struct delete_options){.is_gone = gone}, &report, NULL),
        0);
    assert_int_equal(s->now_ms, began); /* void at once */
    hold_end(h);
}

/* ---- uploads ---- */

static void test_an_upload_is_aborted(void **state)
{
    struct scene *s = *state;
    AUTO(upload_free) struct upload *u = NULL;
    AUTO(manifest_release) struct manifest m = {0};
    struct delete_report report;
    struct version_info v;

    assert_int_equal(upload_begin(s->c, &terms_of_cats, &u, NULL), 0);
    assert_int_equal(put_objects(s->c->store, u, &m), 0);
    assert_int_equal(catalogue_delete(s->c, "cats", 1, &(struct delete_options){0}, &report, NULL),
                     0);
    assert_int_equal(report.was, VERSION_PROCESSING);
    assert_int_equal(upload_commit(u, &m, &v, NULL), -ESTALE);
    assert_int_equal(catalogue_delete(s->c, "cats", 1, &(struct delete_options){0}, &report, NULL),
                     0);
    assert_int_equal(report.was, VERSION_FAILED); /* nothing is left to do */
    assert_int_equal(keys_under(s, "n/cats/v/9999999998/d/"), 0);
}

struct committing {
    struct upload *u;
    struct manifest *m;
};

static void commit_now(struct scene *s)
{
    struct committing *k = s->ctx;
    struct version_info v;

    (void)upload_commit(k->u, k->m, &v, NULL); /* the outcome is looked at below */
}

static void test_an_upload_that_commits_meanwhile(void **state)
{
    for (uint64_t n = 1;; n++) {
        struct scene *s = scene_new();
        AUTO(upload_free) struct upload *u = NULL;
        AUTO(manifest_release) struct manifest m = {0};
        struct committing k;
        struct actor a = {.hook_at = n, .hook = commit_now};
        assert_int_equal(upload_begin(s->c, &terms_of_cats, &u, NULL), 0);
        assert_int_equal(put_objects(s->c->store, u, &m), 0);
        k = (struct committing){u, &m};
        s->ctx = &k;
        actor_open(s, &a, NULL);
        assert_int_equal(scene_delete(a.c, 1, NULL), 0);
        assert_true(status_of(s, "cats", 1) == VERSION_DELETED ||
                    status_of(s, "cats", 1) == VERSION_FAILED);
        bool more = a.hooked;
        actor_close(&a);
        scene_free(s);
        if (!more) {
            assert_true(n > 3);
            break;
        }
    }
}

/* ---- failures and damage ---- */

static bool delete_with_fault(const struct store_fault_plan *plan, bool held)
{
    struct scene *s = scene_new();
    struct actor a = {0};
    struct err err = ERR_INIT;

    (void)scene_publish(s, NULL);
    struct hold *h = held ? scene_hold(s, NULL, 1) : NULL;
    actor_open(s, &a, plan);
    int r = scene_delete(a.c, 1, &err);
    bool fired = store_fault_fired(a.fault);
    bool deleted = status_of(s, "cats", 1) == VERSION_DELETED;
    if (r < 0)
        assert_true(err.text[0] != '\0');
    if (held)
        assert_true(r < 0 && !deleted);
    else if (r == 0)
        assert_true(deleted);
    else if (r != -EIO && r != -ETIMEDOUT)
        assert_false(deleted);
    if (!fired)
        assert_int_equal(r, held ? -EBUSY : 0);
    if (h) {
        (void)hold_tick(h);
        s->now_ms += 3 * MINUTE;
        (void)hold_tick(h); /* settles what the deleter left */
        assert_int_equal(hold_look(h, NULL), HOLD_HELD);
    }
    hold_end(h);
    if (!deleted) /* nothing is in the way */
        assert_int_equal(scene_delete(s->c, 1, NULL), 0);
    actor_close(&a);
    scene_free(s);
    return fired;
}

static void test_every_failing_call(void **state)
{
    static const int codes[] = {-EIO, -ETIMEDOUT, -ENOSPC, -EACCES};

    for (size_t i = 0; i < sizeof codes / sizeof *codes; i++) {
        for (int kind = 0; kind < 8; kind++) {
            if ((kind & 1) && i >= 2) /* "nothing was written" is believed */
                continue;
            struct store_fault_plan plan = {
                .nth = 1, .code = codes[i], .after = kind & 1, .forever = kind & 2};
            while (delete_with_fault(&plan, kind & 4))
                plan.nth++;
            assert_true(plan.nth > 5); /* version, outcome, intent, leases, result */
        }
    }
}

/* What cannot be read is not nobody (R6). */
static void test_odd_leases(void **state)
{
    struct scene *s = *state;
    struct delete_report report;
    struct err err = ERR_INIT;

    (void)scene_publish(s, NULL);
    const char *damaged = "l/cats/1/0123456789abcdef0123456789abcdef.0000000000";
    assert_int_equal(store_put_if_absent(s->w.store, damaged, bytes_str("half a re")), 0);
    assert_int_equal(scene_delete(s->c, 1, &err), -EBADMSG);
    assert_non_null(strstr(err.text, damaged));
    assert_int_equal(store_remove(s->w.store, damaged), 0);
    err_clear(&err);
    assert_int_equal(store_put_if_absent(s->w.store, "l/cats/1/whatever", bytes_str("x")), 0);
    assert_int_equal(scene_delete(s->c, 1, &err), -EPROTO);
    assert_non_null(strstr(err.text, "l/cats/1/whatever is no lease that this program knows"));
    assert_int_equal(status_of(s, "cats", 1), VERSION_SUCCEEDED);
    assert_int_equal(
        catalogue_delete(s->c, "cats", 1, &(struct delete_options){.force = true}, &report, NULL),
        0);
}

/* A deleter that stops behind its listing, and goes on when somebody has attached. */
static void test_a_deleter_that_was_stopped(void **state)
{
    struct scene *s = *state;
    bool deleted = true;
    AUTO(json_decref) json_t *other = NULL;
    struct world w = s->w;
    char key[CATALOGUE_KEY_MAX];

    (void)scene_publish(s, NULL);
    w.c = s->c;
    key_delete_round(key, "cats", 1, 1, 'i');
    put_raw_record(&w, key, RECORD_DELETE_INTENT, json_object());
    struct hold *h = scene_hold(s, NULL, 1);
    assert_int_equal(
        delete_result_write(s->c, "cats", 1, 1, true, json_array(), &deleted, &other, NULL), 0);
    assert_false(deleted); /* I14: the attacher has settled the round */
    assert_non_null(other);
    hold_end(h);
    assert_int_equal(status_of(s, "cats", 1), VERSION_SUCCEEDED);
}

static void delete_too(struct scene *s)
{
    *(int *)s->ctx = scene_delete(s->c, 1, NULL);
}

static void test_two_deleters(void **state)
{
    for (uint64_t n = 1;; n++) {
        struct scene *s = scene_new();
        struct actor a = {.hook_at = n, .hook = delete_too};
        int other = 1;
        (void)scene_publish(s, NULL);
        s->ctx = &other;
        actor_open(s, &a, NULL);
        int r = scene_delete(a.c, 1, NULL);
        bool more = a.hooked;
        assert_true(r == 0 || r == -ENOENT);
        assert_int_equal(status_of(s, "cats", 1), VERSION_DELETED);
        if (more)
            assert_int_equal(other, 0);
        actor_close(&a);
        scene_free(s);
        if (!more)
            break;
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        BOTH_SCENES(test_deleted_for_good),
        BOTH_SCENES(test_five_requests),
        BOTH_SCENES(test_refused_while_held),
        BOTH_SCENES(test_forced),
        BOTH_SCENES(test_a_vanished_holder_delays),
        BOTH_SCENES(test_a_store_with_a_wrong_clock),
        BOTH_SCENES(test_withdrawn),
        BOTH_SCENES(test_a_process_that_is_gone),
        BOTH_SCENES(test_an_upload_is_aborted),
        cmocka_unit_test(test_an_upload_that_commits_meanwhile),
        cmocka_unit_test(test_every_failing_call),
        BOTH_SCENES(test_odd_leases),
        BOTH_SCENES(test_a_deleter_that_was_stopped),
        cmocka_unit_test(test_two_deleters),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
