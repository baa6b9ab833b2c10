/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Publish while the world moves: sources that change, stores that fail, processes that die. What is
 * committed at last is always one consistent source.
 */
#include "publish-fixture.h"

/* ---- changes while reading ----------------------------------------------------------------------
 */

struct change {
    struct fixture *f;
    const char *name;
    unsigned times; /* how often still */
    size_t size;
};

static void rewrite_on_read(struct spy *s, const char *name, uint64_t offset)
{
    struct change *c = s->ctx;

    if (strcmp(name, c->name) != 0 || c->times == 0)
        return;
    c->times--;
    put_size(c->f, c->name, c->size, 1000 + c->times);
}

static int publish_with_change(struct fixture *f, struct change *c)
{
    struct spy *s = open_source(f);

    s->on_read = rewrite_on_read;
    s->ctx = c;
    f->o.workers = 1; /* put_size() has one buffer for paths */
    int r = try_publish_from(f, &s->base);
    source_close(&s->base);
    return r;
}

static void a_file_that_changes_is_read_again(void **state)
{
    struct fixture *f = *state;
    struct change c = {f, "f05", 2, 4096};

    make_tree(f);
    assert_int_equal(publish_with_change(f, &c), 0);
    assert_int_equal(c.times, 0);
    assert_int_equal(f->notices[PUBLISH_NOTICE_CHANGED], 1);
    assert_string_equal(f->notice_path[PUBLISH_NOTICE_CHANGED], "f05");
    assert_same(f, 1);
}

static void a_file_that_keeps_changing_is_named(void **state)
{
    struct fixture *f = *state;
    struct change c = {f, "f05", 1000, 4096};

    make_tree(f);
    assert_int_equal(publish_with_change(f, &c), -EAGAIN);
    assert_non_null(strstr(f->err.text, "f05"));
    assert_non_null(strstr(f->err.text, "keeps changing"));
    publish(f); /* calm again: it goes on where it stopped */
    assert_int_equal(f->notices[PUBLISH_NOTICE_RESUMED], 1);
    assert_int_equal(f->result.info.version, 1);
    assert_same(f, 1);
}

/* Small files that become large, large ones that become small, or that change between pieces. */
static void files_that_change_their_size(void **state)
{
    static const struct {
        size_t before, after;
    } rows[] = {{100, 9u << 20},       {9u << 20, 100},       {20u << 20, 20u << 20},    {4096, 0},
                {100, (8u << 20) - 1}, {9u << 20, 30u << 20}, {(8u << 20) + 1, 8u << 20}};
    struct fixture *f = *state;
    char name[16];

    for (unsigned i = 0; i < sizeof rows / sizeof *rows; i++) {
        (void)snprintf(name, sizeof name, "x%u", i);
        struct change c = {f, name, 1, rows[i].after};
        put_size(f, name, rows[i].before, i);
        put_size(f, "neighbour", 3u << 20, i + 50);
        assert_int_equal(publish_with_change(f, &c), 0);
        assert_int_equal(c.times, 0);
        assert_int_equal(f->notices[PUBLISH_NOTICE_CHANGED], 1);
        assert_same(f, 0);
    }
}

static int vanish(struct spy *s, const char *name)
{
    const struct change *c = s->ctx;

    if (strcmp(name, c->name) != 0)
        return 0;
    (void)unlink(at(c->f, name)); /* the second time it is gone already */
    if (c->size == 1)
        assert_int_equal(mkfifo(at(c->f, name), 0644), 0);
    if (c->size == 2)
        assert_int_equal(symlink("/etc/passwd", at(c->f, name)), 0);
    if (c->size == 3)
        assert_int_equal(mkdir(at(c->f, name), 0755), 0);
    return 0;
}

static void a_file_that_vanishes_is_named(void **state)
{
    struct fixture *f = *state;

    make_tree(f);
    for (size_t how = 0; how < 4; how++) {
        struct change c = {f, "f02", 0, how};
        put_size(f, "f02", 1000, (unsigned)how);
        struct spy *s = open_source(f);
        s->on_open = vanish;
        s->ctx = &c;
        assert_int_equal(try_publish_from(f, &s->base), -EAGAIN);
        assert_non_null(strstr(f->err.text, "/f02: it "));
        source_close(&s->base);
        remove_tree(at(f, "f02"));
    }
    publish(f);
    assert_same(f, 0);
}

static int refuse_f02(struct spy *s, const char *name)
{
    return strcmp(name, "f02") == 0 ? -EACCES : 0;
}

static void an_unreadable_file_is_named(void **state)
{
    struct fixture *f = *state;

    make_tree(f);
    struct spy *s = open_source(f);
    s->on_open = refuse_f02;
    assert_int_equal(try_publish_from(f, &s->base), -EACCES);
    assert_non_null(strstr(f->err.text, "/f02: Permission denied"));
    source_close(&s->base);
}

/* ---- interruptions ------------------------------------------------------------------------------
 */

static void stop_on_read(struct spy *s, const char *name, uint64_t offset)
{
    struct change *c = s->ctx;

    if (strcmp(name, c->name) == 0)
        __atomic_store_n(&c->f->stop, 1, __ATOMIC_RELAXED); /* the writer reads it meanwhile */
}

static void interrupted_and_resumed(void **state)
{
    struct fixture *f = *state;
    struct change c = {.f = f, .name = "m599"};
    char name[16];

    make_tree(f);
    for (unsigned i = 0; i < 600; i++) {
        (void)snprintf(name, sizeof name, "a/m%03u", i);
        put_size(f, name, 40000, i + 500);
    }
    settle();
    f->o.interrupted = &f->stop;
    f->o.workers = 1;
    struct spy *s = open_source(f);
    s->on_read = stop_on_read;
    s->ctx = &c;
    assert_int_equal(try_publish_from(f, &s->base), -ECANCELED);
    source_close(&s->base);
    struct version_info info;
    assert_int_equal(catalogue_resolve(f->catalogue, "cats", 0, &info, &f->err), -ENOENT);
    f->stop = 0;
    s = open_source(f);
    assert_int_equal(try_publish_from(f, &s->base), 0);
    assert_int_equal(f->notices[PUBLISH_NOTICE_RESUMED], 1);
    assert_string_equal(f->notice_path[PUBLISH_NOTICE_RESUMED], "1");
    assert_int_equal(f->result.info.version, 1);
    assert_true(f->result.files_unchanged > 50); /* most of it was done */
    assert_int_equal(s->opened, f->result.files_read);
    source_close(&s->base);
    assert_same(f, 1);
}

static void without_state_nothing_is_left_behind(void **state)
{
    struct fixture *f = *state;
    struct change c = {.f = f, .name = "f11"};

    make_tree(f);
    f->o.interrupted = &f->stop;
    f->o.state_dir = NULL;
    struct spy *s = open_source(f);
    s->on_read = stop_on_read;
    s->ctx = &c;
    assert_int_equal(try_publish_from(f, &s->base), -ECANCELED);
    source_close(&s->base);
    f->stop = 0;
    publish(f);
    assert_int_equal(f->notices[PUBLISH_NOTICE_RESUMED], 0);
    assert_int_equal(f->result.info.version, 2); /* the first one was given up */
    assert_same(f, 2);
}

struct pack_count {
    unsigned packs;
};

static int count_pack(void *ctx, const struct store_entry *e)
{
    struct pack_count *c = ctx;

    c->packs++;
    return 0;
}

static unsigned packs_in(struct store *s)
{
    struct pack_count c = {0};

    assert_int_equal(store_list(s, "p/", NULL, count_pack, &c, NULL), 0);
    return c.packs;
}

static void no_sleep(struct env *env, int64_t ms)
{
}

/* The store fails for good at its Nth call, before or after it took effect; then a new process on
 * the same store goes on. Over all N. */
static void killed_at_every_store_call(void **state)
{
    struct fixture *f = *state;
    unsigned fired = 0, resumed = 0, clean;
    struct env impatient = *env_real(); /* nobody else will settle a doubt meanwhile */

    impatient.sleep_ms = no_sleep;

    for (unsigned i = 0; i < 24; i++) {
        char name[16];
        (void)snprintf(name, sizeof name, "k%02u", i);
        put_size(f, name, 90000, i);
    }
    settle();
    publish(f);
    clean = packs_in(f->store);
    for (uint64_t n = 1; n < 10000; n++) {
        struct store *memory = NULL, *fault = NULL;
        struct catalogue *c = NULL;
        struct store_fault_plan plan = {
            .nth = n / 2 + 1, .code = -EIO, .after = n % 2, .forever = true};
        struct fixture g = *f;
        assert_int_equal(store_memory_new(&memory), 0);
        /* The wrapper closes what is below, which has to outlive it: so it is left to the end. */
        assert_int_equal(store_fault_new(memory, &plan, &fault), 0);
        (void)snprintf(g.state, sizeof g.state, "%s/state-%u", f->root, (unsigned)n);
        g.o.state_dir = g.state;
        g.o.ctx = &g;
        g.o.workers = 1;
        g.store = memory;
        int r = catalogue_open(fault, &impatient, CATALOGUE_WRITE, &c, &g.err);
        g.catalogue = c;
        if (r == 0)
            r = try_publish(&g);
        catalogue_close(c);
        bool hit = store_fault_fired(fault);
        fired += hit;
        if (r == 0 || !hit) { /* an error that had no consequence is fine; none at all is the end */
            store_close(fault);
            remove_tree(g.state);
            if (!hit)
                break;
            continue;
        }
        g.catalogue = NULL;
        assert_int_equal(catalogue_open(memory, env_real(), CATALOGUE_WRITE, &g.catalogue, &g.err),
                         0);
        publish(&g);
        resumed += g.notices[PUBLISH_NOTICE_RESUMED];
        assert_same(&g, 0);
        assert_true(packs_in(memory) <= clean + 1); /* at most one pack was sent twice */
        catalogue_close(g.catalogue);
        store_close(fault);
        remove_tree(g.state);
    }
    assert_true(fired > 20);
    assert_true(resumed > 10);
}

/* A damaged pack of an interrupted upload must not be named by the version. */
static void what_was_left_is_verified(void **state)
{
    struct fixture *f = *state;
    struct change c = {.f = f, .name = "z"};
    char name[64], path[256];
    struct store *directory = NULL;

    for (unsigned i = 0; i < 600; i++) { /* more than what is read ahead */
        (void)snprintf(name, sizeof name, "k%03u", i);
        put_size(f, name, 90000, i);
    }
    put_size(f, "z", 10, 1);
    settle();
    (void)snprintf(path, sizeof path, "%s/store", f->root);
    assert_int_equal(store_open(path, STORE_WRITE, &directory, &f->err), 0);
    catalogue_close(f->catalogue);
    store_close(f->store);
    f->store = directory;
    f->catalogue = NULL;
    assert_int_equal(catalogue_open(f->store, env_real(), CATALOGUE_WRITE, &f->catalogue, &f->err),
                     0);
    f->o.interrupted = &f->stop;
    f->o.workers = 1;
    struct spy *s = open_source(f);
    s->on_read = stop_on_read;
    s->ctx = &c;
    assert_int_equal(try_publish_from(f, &s->base), -ECANCELED);
    source_close(&s->base);
    f->stop = 0;
    /* One byte of the first pack. */
    (void)snprintf(path, sizeof path,
                   "f=$(find %s/store/p -type f -name 0) && chmod u+w \"$f\" && "
                   "printf X | dd of=\"$f\" bs=1 seek=5000 conv=notrunc 2>/dev/null",
                   f->root);
    pid_t pid = fork();
    if (pid == 0) {
        execlp("sh", "sh", "-c", path, (char *)NULL);
        _exit(127);
    }
    int status = 1;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    publish(f);
    assert_int_equal(f->notices[PUBLISH_NOTICE_RESUMED], 1);
    assert_true(f->result.files_unchanged > 0); /* the other packs were fine */
    assert_same(f, 1);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(a_file_that_changes_is_read_again),
        TEST(a_file_that_keeps_changing_is_named),
        TEST(files_that_change_their_size),
        TEST(a_file_that_vanishes_is_named),
        TEST(an_unreadable_file_is_named),
        TEST(interrupted_and_resumed),
        TEST(without_state_nothing_is_left_behind),
        TEST(killed_at_every_store_call),
        TEST(what_was_left_is_verified),
    };
#undef TEST
    return cmocka_run_group_tests(tests, NULL, NULL);
}
