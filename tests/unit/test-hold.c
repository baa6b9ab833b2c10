/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Holding a version: renewals, batches, deadlines, every failing call, and deletion in between at
 * every call (I13 to I15).
 */
#include "hold-fixture.h"

#include <sys/wait.h>

static void test_one_lease_renewed(void **state)
{
    struct scene *s = *state;
    struct actor a = {0};
    struct store_counts before, after;

    (void)scene_publish(s, NULL);
    actor_open(s, &a, NULL);
    struct hold *h = scene_hold(s, a.c, 1);
    assert_int_equal(hold_look(h, NULL), HOLD_HELD);
    assert_int_equal(keys_under(s, "l/"), 1);
    for (int i = 0; i < 20; i++) {
        int64_t wait = hold_tick(h);
        assert_true(wait >= HOLD_RENEW_MS * 8 / 10 && wait <= HOLD_RENEW_MS * 12 / 10);
        s->now_ms += wait;
        store_trace_counts(a.trace, &before);
        (void)hold_tick(h); /* renews */
        store_trace_counts(a.trace, &after);
        assert_int_equal(after.puts - before.puts, 1);
        assert_int_equal(after.lists - before.lists, 1);
        assert_int_equal(after.removes - before.removes, 1);
        assert_int_equal(after.gets - before.gets, 0);
        assert_int_equal(keys_under(s, "l/"), 1);
        assert_int_equal(hold_look(h, NULL), HOLD_HELD);
    }
    hold_end(h);
    assert_int_equal(keys_under(s, "l/"), 0);
    actor_close(&a);
}

struct seen {
    int count;
    char text[8192];
};

static int see_holder(void *ctx, const struct holder *h)
{
    struct seen *seen = ctx;
    size_t length = strlen(seen->text);

    seen->count++;
    (void)snprintf(seen->text + length, sizeof seen->text - length, "%s@%s:%d;", h->text, h->host,
                   (int)h->pid);
    return 0;
}

static void assert_holders(struct scene *s, const char *expected)
{
    struct seen seen = {0};

    assert_int_equal(catalogue_holders(s->c, "cats", 1, see_holder, &seen, NULL), 0);
    assert_string_equal(seen.text, expected);
}

static void test_joins_are_gathered(void **state)
{
    struct scene *s = *state;
    struct actor a = {0};
    struct store_counts before, after;
    uint64_t id[3];

    (void)scene_publish(s, NULL);
    actor_open(s, &a, NULL);
    struct hold *h = scene_hold(s, a.c, 1);
    (void)hold_tick(h);
    assert_holders(s, "run r1@node1:77;");
    store_trace_counts(a.trace, &before);
    for (int i = 0; i < 3; i++) {
        char text[16];
        (void)snprintf(text, sizeof text, "run x%d", i);
        assert_int_equal(hold_join(h, &(struct hold_job){.text = text, .pid = 100 + i}, &id[i]), 0);
    }
    hold_leave(h, id[1]);
    hold_leave(h, 999); /* nobody */
    store_trace_counts(a.trace, &after);
    assert_int_equal(after.puts, before.puts);
    (void)hold_tick(h); /* at once, without waiting for the renewal */
    store_trace_counts(a.trace, &after);
    assert_int_equal(after.puts - before.puts, 1);
    assert_holders(s, "run r1@node1:77;run x0@node1:100;run x2@node1:102;");
    (void)hold_tick(h);
    store_trace_counts(a.trace, &after);
    assert_int_equal(after.puts - before.puts, 1); /* nothing changed */
    hold_end(h);
    assert_holders(s, "");
    actor_close(&a);
}

/* A server that was killed leaves a lease; its next process, which knows it to be dead, sweeps it.
 */
static void test_sweep_of_a_family(void **state)
{
    static const uint8_t mine[HOLD_FAMILY_SIZE] = "family1", other[HOLD_FAMILY_SIZE] = "family2";
    struct scene *s = *state;
    struct actor a = {0};
    struct hold_options options = {.text = "run r1", .text_pid = 5, .family = mine};
    struct hold_process self = {.host = "node1", .boot_id = "boot", .pid = 77, .pid_start = 1};
    struct hold *dead, *stranger, *next;

    (void)scene_publish(s, NULL);
    actor_open(s, &a, NULL);
    options.self = &self;
    assert_int_equal(hold_begin(a.c, "cats", 1, &options, &dead, NULL), 0);
    options.family = other;
    options.text = "run r2";
    assert_int_equal(hold_begin(a.c, "cats", 1, &options, &stranger, NULL), 0);
    options.family = mine;
    options.text = "run r3";
    assert_int_equal(hold_begin(a.c, "cats", 1, &options, &next, NULL), 0);
    assert_int_equal(keys_under(s, "l/cats/1/"), 3);
    hold_sweep(a.c, "cats", 1, mine, next);
    assert_int_equal(keys_under(s, "l/cats/1/"), 2);
    hold_sweep(a.c, "cats", 1, mine, NULL);
    assert_int_equal(keys_under(s, "l/cats/1/"), 1);
    hold_end(stranger);
    assert_int_equal(keys_under(s, "l/cats/1/"), 0);
    hold_end(next);
    hold_end(dead);
    actor_close(&a);
}

static void test_thousands_of_jobs(void **state)
{
    struct scene *s = *state;
    struct seen seen = {0};
    uint64_t id;

    (void)scene_publish(s, NULL);
    struct hold *h = scene_hold(s, NULL, 1);
    for (int i = 0; i < 3000; i++)
        assert_int_equal(hold_join(h, &(struct hold_job){.text = "\x01 a job", .pid = i}, &id), 0);
    (void)hold_tick(h);
    assert_int_equal(hold_look(h, NULL), HOLD_HELD);
    assert_int_equal(catalogue_holders(s->c, "cats", 1, see_holder, &seen, NULL), 0);
    assert_int_equal(seen.count, HOLD_JOBS_MAX + 1);
    hold_end(h);
}

static void test_an_outage(void **state)
{
    struct scene *s = *state;
    struct actor a = {0};
    struct err why = ERR_INIT;
    uint64_t id;

    (void)scene_publish(s, NULL);
    actor_open(s, &a, NULL);
    struct hold *h = scene_hold(s, a.c, 1);
    int64_t began = s->now_ms;
    struct store *up = a.c->store, *down = NULL;
    assert_int_equal(
        store_fault_new(clocked_new(s, NULL),
                        &(struct store_fault_plan){.nth = 1, .code = -ETIMEDOUT, .forever = true},
                        &down),
        0);
    a.c->store = down;
    int ticks = 0;
    while (s->now_ms - began < HOLD_TTL_MS - HOLD_MARGIN_MS) {
        assert_int_equal(hold_look(h, NULL), HOLD_HELD);
        int64_t wait = hold_tick(h);
        assert_true(wait > 0);
        assert_true(s->now_ms - began >= HOLD_TTL_MS - HOLD_MARGIN_MS ||
                    hold_look(h, &why) == HOLD_HELD);
        s->now_ms += wait;
        ticks++;
    }
    assert_true(store_fault_fired(down));
    assert_true(ticks > 10 && ticks < 200); /* sooner than every two minutes, and no storm */
    assert_int_equal(hold_look(h, &why), HOLD_DOUBTFUL);
    assert_non_null(strstr(why.text, "could not be renewed in time"));
    assert_int_equal(hold_join(h, &(struct hold_job){.text = "late"}, &id), -EAGAIN);
    a.c->store = up;
    (void)hold_tick(h);
    assert_int_equal(hold_look(h, NULL), HOLD_HELD); /* nobody had deleted it */
    assert_int_equal(hold_join(h, &(struct hold_job){.text = "late"}, &id), 0);
    hold_end(h);
    assert_int_equal(keys_under(s, "l/"), 0);
    store_close(down);
    actor_close(&a);
}

static void test_suspended(void **state)
{
    struct scene *s = *state;
    struct err why = ERR_INIT;
    uint64_t id;

    (void)scene_publish(s, NULL);
    struct hold *h = scene_hold(s, NULL, 1);
    s->boot_ms += 20 * MINUTE; /* this machine only: wall clocks of the store agree */
    assert_int_equal(hold_look(h, NULL), HOLD_DOUBTFUL);
    (void)hold_tick(h);
    assert_int_equal(hold_look(h, NULL), HOLD_HELD);

    s->now_ms += 20 * MINUTE;
    assert_int_equal(scene_delete(s->c, 1, NULL), 0);
    assert_int_equal(hold_tick(h), INT64_MAX);
    assert_int_equal(hold_look(h, &why), HOLD_LOST);
    assert_non_null(strstr(why.text, "version 1 of 'cats' has been deleted"));
    assert_int_equal(hold_tick(h), INT64_MAX);
    assert_int_equal(hold_join(h, &(struct hold_job){.text = "late"}, &id), -ESTALE);
    assert_int_equal(keys_under(s, "l/"), 0); /* strays are not left */
    hold_end(h);
}

static void test_who_may_not_write(void **state)
{
    struct scene *s = *state;
    static const int codes[] = {-EACCES, -EPERM, -EROFS};

    (void)scene_publish(s, NULL);
    for (size_t i = 0; i < sizeof codes / sizeof *codes; i++) {
        struct actor a = {0};
        struct hold *h = NULL;
        struct hold_options required = hold_there;
        struct err err = ERR_INIT;
        uint64_t id;
        actor_open(s, &a, &(struct store_fault_plan){.nth = 1, .code = codes[i], .forever = true});
        required.required = true;
        assert_int_equal(hold_begin(a.c, "cats", 1, &required, &h, &err), codes[i]);
        assert_non_null(strstr(err.text, "cannot write l/cats/1/"));
        assert_int_equal(hold_begin(a.c, "cats", 1, &hold_there, &h, NULL), 0);
        assert_int_equal(hold_look(h, &err), HOLD_UNPROTECTED);
        assert_non_null(strstr(err.text, "cannot write l/cats/1/"));
        assert_int_equal(hold_join(h, &(struct hold_job){.text = "x"}, &id), 0);
        assert_int_equal(hold_tick(h), INT64_MAX);
        assert_int_equal(keys_under(s, "l/"), 0);
        hold_end(h);
        assert_true(store_fault_fired(a.fault));
        actor_close(&a);
    }
    struct actor a = {0};
    struct hold *h = NULL;
    actor_open(s, &a, &(struct store_fault_plan){.nth = 1, .code = -EACCES, .forever = true});
    assert_int_equal(hold_begin(a.c, "cats", 1, &hold_there, &h, NULL), 0);
    assert_int_equal(scene_delete(s->c, 1, NULL), 0); /* I15 */
    hold_end(h);
    actor_close(&a);
}

static void test_deleted_before(void **state)
{
    struct scene *s = *state;
    struct hold *h = NULL;
    struct err err = ERR_INIT;

    (void)scene_publish(s, NULL);
    assert_int_equal(scene_delete(s->c, 1, NULL), 0);
    assert_int_equal(hold_begin(s->c, "cats", 1, &hold_there, &h, &err), -ESTALE);
    assert_null(h);
    assert_string_equal(err.text, "version 1 of 'cats' has been deleted");
    assert_int_equal(keys_under(s, "l/"), 0);
}

static void test_another_process_writes_this_lease(void **state)
{
    struct scene *s = *state;
    char key[CATALOGUE_KEY_MAX];
    struct err why = ERR_INIT;

    (void)scene_publish(s, NULL);
    struct hold *h = scene_hold(s, NULL, 1);
    assert_int_equal(s->stamps.count > 0, 1);
    (void)snprintf(key, sizeof key, "%s", s->stamps.at[s->stamps.count - 1].key);
    assert_memory_equal(key, "l/cats/1/", 9);
    key[strlen(key) - 1] = '1';
    struct world w = s->w;
    w.c = s->c;
    put_raw_record(&w, key, RECORD_LEASE, json_pack("{s:i}", "seq", 1));
    s->now_ms += 3 * MINUTE;
    assert_int_equal(hold_tick(h), INT64_MAX);
    assert_int_equal(hold_look(h, &why), HOLD_LOST);
    assert_non_null(strstr(why.text, "another process"));
    hold_end(h);
    assert_int_equal(keys_under(s, key), 1); /* what is the other's stays */
}

/* The answer comes when the deadline has passed. */
static void too_slow(struct scene *s)
{
    s->now_ms += 9 * MINUTE;
}

static void test_a_slow_store(void **state)
{
    for (uint64_t n = 1; n <= 2; n++) { /* before the put, before the listing */
        struct scene *s = scene_new();
        struct actor a = {.hook_at = n, .hook = too_slow};
        struct hold *h = NULL;
        struct err err = ERR_INIT;
        (void)scene_publish(s, NULL);
        actor_open(s, &a, NULL);
        assert_int_equal(hold_begin(a.c, "cats", 1, &hold_there, &h, &err), -ETIMEDOUT);
        assert_true(a.hooked);
        assert_non_null(strstr(err.text, "took too long"));
        assert_int_equal(keys_under(s, "l/"), 0);
        actor_close(&a);
        scene_free(s);
    }
}

/* Begin and renew with a failing Nth call: who is told "held" cannot lose the version. */
static bool hold_with_fault(const struct store_fault_plan *plan)
{
    struct scene *s = scene_new();
    struct actor a = {0};
    struct hold *h = NULL;
    struct err err = ERR_INIT;

    (void)scene_publish(s, NULL);
    char key[CATALOGUE_KEY_MAX]; /* a round that a dead deleter has left */
    key_delete_round(key, "cats", 1, 1, 'i');
    struct world w = s->w;
    w.c = s->c;
    put_raw_record(&w, key, RECORD_DELETE_INTENT, json_object());
    actor_open(s, &a, plan);
    int r = hold_begin(a.c, "cats", 1, &hold_there, &h, &err);
    if (r == 0) {
        s->now_ms += 3 * MINUTE;
        (void)hold_tick(h);
        enum hold_state state = hold_look(h, NULL);
        int deleted = scene_delete(s->c, 1, NULL);
        if (state == HOLD_HELD)
            assert_int_equal(deleted, -EBUSY);
        else
            assert_true(state == HOLD_UNPROTECTED || state == HOLD_DOUBTFUL);
    } else
        assert_true(err.text[0] != '\0');
    bool fired = store_fault_fired(a.fault);
    hold_end(h);
    s->now_ms += 30 * MINUTE;
    if (status_of(s, "cats", 1) == VERSION_SUCCEEDED)
        assert_int_equal(scene_delete(s->c, 1, NULL), 0); /* nothing is in the way for long */
    actor_close(&a);
    scene_free(s);
    return fired;
}

static void test_every_failing_call(void **state)
{
    static const int codes[] = {-EIO, -ETIMEDOUT, -ENOSPC, -EACCES};

    for (size_t i = 0; i < sizeof codes / sizeof *codes; i++) {
        for (int kind = 0; kind < 4; kind++) {
            struct store_fault_plan plan = {
                .nth = 1, .code = codes[i], .after = kind & 1, .forever = kind & 2};
            while (hold_with_fault(&plan))
                plan.nth++;
            assert_true(plan.nth > 6); /* lease, rounds, result; lease, rounds, removal */
        }
    }
}

/* ---- deletion in between ---- */

static void delete_now(struct scene *s)
{
    *(int *)s->ctx = scene_delete(s->c, 1, NULL);
}

static void test_deletion_at_every_call_of_an_attach(void **state)
{
    int told_deleted = 0, told_held = 0;

    for (uint64_t n = 1;; n++) {
        struct scene *s = scene_new();
        struct actor a = {.hook_at = n, .hook = delete_now};
        struct hold *h = NULL;
        int deleted = 1;
        (void)scene_publish(s, NULL);
        s->ctx = &deleted;
        actor_open(s, &a, NULL);
        int r = hold_begin(a.c, "cats", 1, &hold_there, &h, NULL);
        if (r == 0 && a.calls < n) { /* at a renewal */
            s->now_ms += 3 * MINUTE;
            (void)hold_tick(h);
        }
        bool more = a.hooked;
        bool held = r == 0 && hold_look(h, NULL) == HOLD_HELD;
        if (more) {
            assert_int_equal(deleted == 0, !held); /* I13; and nobody is refused for nothing */
            assert_int_equal(status_of(s, "cats", 1) == VERSION_DELETED, deleted == 0);
            told_deleted += deleted == 0;
            told_held += held;
        }
        hold_end(h);
        actor_close(&a);
        scene_free(s);
        if (!more)
            break;
    }
    assert_true(told_deleted > 0 && told_held > 0);
}

static void attach_now(struct scene *s)
{
    (void)hold_begin(s->c, "cats", 1, &hold_there, (struct hold **)s->ctx, NULL);
}

static void test_an_attach_at_every_call_of_a_deletion(void **state)
{
    int told_held = 0;

    for (uint64_t n = 1;; n++) {
        struct scene *s = scene_new();
        struct actor a = {.hook_at = n, .hook = attach_now};
        struct hold *h = NULL;
        struct err err = ERR_INIT;
        (void)scene_publish(s, NULL);
        s->ctx = &h;
        actor_open(s, &a, NULL);
        int r = scene_delete(a.c, 1, &err);
        bool more = a.hooked;
        assert_true(r == 0 || r == -EBUSY);
        if (r == -EBUSY)
            assert_non_null(strstr(err.text, "run r1 on node1 (process 77) since 20"));
        assert_int_equal(status_of(s, "cats", 1) == VERSION_DELETED, r == 0);
        if (more) {
            assert_int_equal(h == NULL, r == 0);
            told_held += h != NULL;
        }
        hold_end(h);
        actor_close(&a);
        scene_free(s);
        if (!more)
            break;
    }
    assert_true(told_held >= 4); /* before each call that matters */
}

/* ---- processes ---- */

static void test_whether_a_process_is_gone(void **state)
{
    struct hold_process self, p;

    hold_process_self(&self);
    assert_true(self.host[0] && self.boot_id[0] && self.pid == getpid() && self.pid_start > 0 &&
                self.pid_ns > 0);
    assert_false(hold_process_is_gone(&self));
    p = self;
    p.pid_start++;
    assert_true(hold_process_is_gone(&p)); /* the number was given out again */
    pid_t child = fork();
    if (child == 0)
        _exit(0);
    siginfo_t ended;
    assert_int_equal(waitid(P_PID, (id_t)child, &ended, WEXITED | WNOWAIT), 0);
    hold_process_of(child, &p);
    assert_true(hold_process_is_gone(&p)); /* a zombie reads nothing any more */
    assert_int_equal(waitpid(child, NULL, 0), child);
    p = self;
    p.pid = child;
    assert_true(hold_process_is_gone(&p));
    p.pid_ns++; /* in a container its number means nothing here */
    assert_false(hold_process_is_gone(&p));
    p = self;
    (void)snprintf(p.boot_id, sizeof p.boot_id, "another");
    p.machine[0] = '\0'; /* a name may be another machine's */
    assert_false(hold_process_is_gone(&p));
    p = self;
    p.boot_id[0] = '\0';
    p.pid = child;
    assert_false(hold_process_is_gone(&p));
    assert_false(hold_process_is_gone(&somewhere));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        BOTH_SCENES(test_one_lease_renewed),
        BOTH_SCENES(test_joins_are_gathered),
        BOTH_SCENES(test_sweep_of_a_family),
        BOTH_SCENES(test_thousands_of_jobs),
        BOTH_SCENES(test_an_outage),
        BOTH_SCENES(test_suspended),
        BOTH_SCENES(test_who_may_not_write),
        BOTH_SCENES(test_deleted_before),
        BOTH_SCENES(test_another_process_writes_this_lease),
        cmocka_unit_test(test_a_slow_store),
        cmocka_unit_test(test_every_failing_call),
        cmocka_unit_test(test_deletion_at_every_call_of_an_attach),
        cmocka_unit_test(test_an_attach_at_every_call_of_a_deletion),
        cmocka_unit_test(test_whether_a_process_is_gone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
