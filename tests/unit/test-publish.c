/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Publish from end to end on the memory store: what was in the source is what a view of the version
 * gives; what is known is not read, and what is stored is not stored again.
 */
#include "publish-fixture.h"

/* ---- tests -------------------------------------------------------------------------------------
 */

static void everything_comes_back(void **state)
{
    struct fixture *f = *state;
    struct timespec old[2] = {{-1234567890, 5}, {-1234567890, 999999999}},
                    late[2] = {{4102444800, 1}, {4102444800, 1}};

    make_tree(f);
    put_size(f, "large", (20u << 20) + 12345, 77);
    put_size(f, "exact", 8u << 20, 78);
    put_size(f, "\xff\xfe name\nwith anything", 10, 79);
    char longest[256];
    memset(longest, 'n', 255);
    longest[255] = '\0';
    put_size(f, longest, 10, 80);
    put_size(f, "script", 10, 81);
    assert_int_equal(chmod(at(f, "script"), 0750), 0);
    char *target = strdup(at(f, "f02"));
    assert_int_equal(link(target, at(f, "z-again")), 0);
    assert_int_equal(link(target, at(f, "a/again")), 0);
    free(target);
    assert_int_equal(link(at(f, "link"), "/nonexistent/x"), -1);
    assert_int_equal(utimensat(AT_FDCWD, at(f, "f02"), old, 0), 0);
    assert_int_equal(utimensat(AT_FDCWD, at(f, "f05"), late, 0), 0);
    assert_int_equal(mkfifo(at(f, "fifo"), 0644), 0);
    publish(f);
    assert_int_equal(f->result.info.version, 1);
    assert_int_equal(f->notices[PUBLISH_NOTICE_SKIPPED], 1);
    assert_string_equal(f->notice_path[PUBLISH_NOTICE_SKIPPED], "fifo");
    assert_int_equal(f->notices[PUBLISH_NOTICE_PRIVATE], 1);
    assert_int_equal(f->result.private_files, 1);
    assert_int_equal(f->result.skipped_files, 1);
    assert_true(f->result.packs_written > 3);
    assert_same(f, 1);
    /* In directory order: the script is private, so it is left out. */
    f->o.exclude_private = true;
    publish(f);
    assert_int_equal(unlink(at(f, "script")), 0);
    struct stat st;
    assert_int_equal(stat(f->source, &st), 0);
    assert_same(f, 2);
}

static void a_huge_sparse_file(void **state)
{
    struct fixture *f = *state;
    uint64_t used = 0;
    int fd = open(at(f, "sparse"), O_WRONLY | O_CREAT | O_CLOEXEC, 0644);

    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, "middle", 6, (off_t)3 << 29), 6);
    assert_int_equal(ftruncate(fd, ((off_t)3 << 30) + 17), 0);
    (void)close(fd);
    put_size(f, "zeros", 0, 0);
    assert_int_equal(truncate(at(f, "zeros"), 100000), 0);
    publish(f);
    used = f->result.bytes_stored;
    assert_true(used < 9u << 20); /* one piece that is not all zeros, and the index */
    assert_int_equal(f->result.info.size_bytes, (UINT64_C(3) << 30) + 17 + 100000);
    AUTO(fetch_free) struct fetch *fetch = NULL;
    AUTO(view_close) struct view *view = NULL;
    struct index_inode i;
    char data[16];
    assert_int_equal(
        fetch_new(&(struct fetch_options){.store = f->store, .memory_bytes = 16 << 20}, &fetch), 0);
    assert_int_equal(view_open(f->catalogue, &f->result.info, fetch, &view, &f->err), 0);
    assert_int_equal(view_walk(view, "sparse", &i), 0);
    assert_int_equal(view_read(view, &i, (UINT64_C(3) << 29) - 2, data, 10), 10);
    assert_memory_equal(data, "\0\0middle\0\0", 10);
    assert_int_equal(view_read(view, &i, UINT64_C(3) << 30, data, 16), 16);
}

static void unchanged_files_are_not_opened(void **state)
{
    struct fixture *f = *state;

    make_tree(f);
    put_size(f, "large", (9u << 20), 5);
    settle();
    publish(f);
    uint64_t files = f->result.files_read;
    assert_int_equal(files, 13);

    struct spy *s = open_source(f);
    assert_int_equal(try_publish_from(f, &s->base), 0);
    assert_int_equal(s->opened, 0);
    assert_int_equal(f->result.files_read, 0);
    assert_int_equal(f->result.files_unchanged, files);
    assert_int_equal(f->result.packs_written, 0);
    assert_int_equal(f->result.info.version, 2);
    source_close(&s->base);
    assert_same(f, 2);

    /* Same size, and the old mtime set again: its ctime tells. */
    struct stat st;
    assert_int_equal(stat(at(f, "f05"), &st), 0);
    put_size(f, "f05", (size_t)st.st_size, 4711);
    struct timespec times[2] = {st.st_mtim, st.st_mtim};
    assert_int_equal(utimensat(AT_FDCWD, at(f, "f05"), times, 0), 0);
    s = open_source(f);
    assert_int_equal(try_publish_from(f, &s->base), 0);
    assert_int_equal(s->opened, 1);
    assert_int_equal(f->result.files_read, 1);
    source_close(&s->base);
    assert_same(f, 3);
}

static void racily_clean_files_are_read_again(void **state)
{
    struct fixture *f = *state;

    make_tree(f);
    publish(f); /* all are younger than a second */
    struct spy *s = open_source(f);
    assert_int_equal(try_publish_from(f, &s->base), 0);
    assert_int_equal(s->opened, f->result.info.files);
    assert_int_equal(f->result.packs_written, 0); /* but nothing is stored again */
    source_close(&s->base);
    assert_same(f, 2);
}

static void unstable_inodes_are_not_trusted(void **state)
{
    struct fixture *f = *state;

    make_tree(f);
    settle();
    for (unsigned i = 0; i < 3; i++) {
        struct spy *s = open_source(f);
        s->base.inodes_stable = false;
        f->o.trust_mtime = i == 2;
        assert_int_equal(try_publish_from(f, &s->base), 0);
        assert_int_equal(s->opened, i == 2 ? 0 : f->result.info.files);
        source_close(&s->base);
    }
    assert_same(f, 3);
}

static void known_contents_are_not_stored_again(void **state)
{
    struct fixture *f = *state;

    make_tree(f);
    put_size(f, "large", (9u << 20) + 1, 5);
    f->o.state_dir = NULL;
    publish(f);
    uint64_t first = f->result.bytes_stored;
    publish(f); /* as from another machine */
    assert_int_equal(f->result.packs_written, 0);
    assert_true(f->result.bytes_stored < first / 10);
    assert_true(f->result.packs_reused > 0);
    assert_int_equal(f->result.files_unchanged, 0);
    assert_same(f, 2);

    /* The same bytes under two names are stored once. */
    assert_int_equal(mkdir(at(f, "copy"), 0755), 0);
    put_size(f, "copy/large", (9u << 20) + 1, 5);
    put_size(f, "copy/new", 50000, 99);
    put_size(f, "copy/twin", 50000, 99);
    publish(f);
    assert_int_equal(f->result.packs_written, 1);
    assert_true(f->result.bytes_stored < 80000);
    assert_same(f, 3);
}

/* ---- rules --------------------------------------------------------------------------------------
 */

static void the_owner_is_asked(void **state)
{
    struct fixture *f = *state;

    make_tree(f);
    publish(f);
    f->o.owner = "somebody";
    assert_int_equal(try_publish(f), -EPERM);
    assert_non_null(strstr(f->err.text, "belongs to me"));
    assert_non_null(strstr(f->err.text, "--append"));
    f->o.append = true;
    publish(f);
    assert_int_equal(f->result.info.version, 2);
    f->o.name = "No Name";
    assert_int_equal(try_publish(f), -EINVAL);
}

static int say_no(void *ctx, const struct publish_progress *totals)
{
    assert_int_equal(totals->files_total, 12);
    assert_true(totals->bytes_total > 1000000);
    return 1;
}

static int no_room(struct store *s, struct store_space *ret)
{
    *ret = (struct store_space){.free_bytes = 1000, .free_objects = -1};
    return 0;
}

static void refused_without_a_trace(void **state)
{
    struct fixture *f = *state;
    const struct store_ops *ops = f->store->ops;
    struct store_ops full = *ops;
    struct version_info info;

    make_tree(f);
    f->o.confirm = say_no;
    assert_int_equal(try_publish(f), -ECANCELED);
    f->o.confirm = NULL;
    full.space = no_room;
    f->store->ops = &full;
    assert_int_equal(try_publish(f), -ENOSPC);
    assert_non_null(strstr(f->err.text, "does not fit"));
    f->store->ops = ops;
    assert_int_equal(catalogue_resolve(f->catalogue, "cats", 0, &info, &f->err), -ENOENT);
    publish(f);
    assert_int_equal(f->result.info.version, 1); /* no number was used up */
}

static void patterns_leave_files_out(void **state)
{
    struct fixture *f = *state;
    static const char text[] = "# temporary\n*.tmp\n/cache/\n!keep.tmp\n";

    assert_int_equal(mkdir(at(f, "cache"), 0755), 0);
    assert_int_equal(mkdir(at(f, "sub"), 0755), 0);
    assert_int_equal(mkdir(at(f, "sub/cache"), 0755), 0);
    put_size(f, "cache/x", 10, 1);
    put_size(f, "sub/cache/x", 10, 2);
    put_size(f, "a.tmp", 10, 3);
    put_size(f, "sub/b.tmp", 10, 4);
    put_size(f, "sub/keep.tmp", 10, 5);
    int fd = open(at(f, ".gridignore"), O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
    assert_int_equal(file_write(fd, text, sizeof text - 1), 0);
    (void)close(fd);
    struct stat st;
    assert_int_equal(stat(f->source, &st), 0);
    publish(f);
    assert_int_equal(f->result.info.files, 3); /* .gridignore, sub/cache/x, sub/keep.tmp */
}

static void attributes_are_kept(void **state)
{
    struct fixture *f = *state;

    put_size(f, "plain", 10, 1);
    put_size(f, "with", 10, 2);
    put_size(f, "much", 10, 3);
    if (setxattr(at(f, "with"), "user.colour", "red", 3, 0) < 0) {
        print_message("no user attributes here: %s\n", strerror(errno));
        skip();
    }
    char value[3000] = {0};
    assert_int_equal(setxattr(at(f, "much"), "user.a", value, sizeof value, 0), 0);
    bool full = setxattr(at(f, "much"), "user.b", value, 1200, 0) < 0;
    settle();
    for (unsigned version = 1; version <= 2; version++) { /* read, then known */
        AUTO(fetch_free) struct fetch *fetch = NULL;
        AUTO(view_close) struct view *view = NULL;
        struct index_inode i;
        publish(f);
        if (!full)
            assert_int_equal(f->notices[PUBLISH_NOTICE_XATTR], version == 1);
        assert_int_equal(
            fetch_new(&(struct fetch_options){.store = f->store, .memory_bytes = 16 << 20}, &fetch),
            0);
        assert_int_equal(view_open(f->catalogue, &f->result.info, fetch, &view, &f->err), 0);
        assert_int_equal(view_walk(view, "with", &i), 0);
        assert_int_equal(i.xattr_count > 0, 1);
        assert_int_equal(view_walk(view, "plain", &i), 0);
        assert_int_equal(i.xattr_count, 0);
    }
    assert_int_equal(f->result.files_read, 0);
}

/* ---- local state --------------------------------------------------------------------------------
 */

static void find_known_file(const struct fixture *f, char path[static 1024])
{
    char command[256];
    AUTO(close_dir) DIR *d = NULL;
    const struct dirent *e;

    (void)snprintf(command, sizeof command, "%s/uploads", f->state);
    d = opendir(command);
    assert_non_null(d);
    while ((e = readdir(d)) != NULL) {
        if (e->d_name[0] != '.')
            (void)snprintf(path, 1024, "%s/%s/known", command, e->d_name);
    }
}

static void damaged_state_costs_time_only(void **state)
{
    struct fixture *f = *state;
    char path[1024] = "";
    struct stat st;
    unsigned read_again = 0;

    make_tree(f);
    settle();
    publish(f);
    find_known_file(f, path);
    for (unsigned i = 0; i < 60; i++) {
        uint8_t byte;
        assert_int_equal(stat(path, &st), 0);
        off_t where = (off_t)((uint64_t)st.st_size * i / 60);
        int fd = open(path, O_RDWR | O_CLOEXEC);
        assert_true(fd >= 0);
        assert_int_equal(file_pread(fd, &byte, 1, where), 1);
        byte ^= 0x20;
        assert_int_equal(file_pwrite(fd, &byte, 1, where), 0);
        (void)close(fd);
        publish(f);
        read_again += f->result.files_read > 0;
        assert_int_equal(f->result.packs_written, 0);
    }
    assert_true(read_again > 30);
    assert_same(f, 0);
}

static void state_of_a_lost_version_is_no_help(void **state)
{
    struct fixture *f = *state;

    make_tree(f);
    settle();
    publish(f);
    /* Another store with the same contents has another id, so another key: nothing is shared. */
    struct store *other = NULL;
    assert_int_equal(store_memory_new(&other), 0);
    struct fixture g = *f;
    g.store = other;
    g.o.ctx = &g;
    assert_int_equal(catalogue_open(other, env_real(), CATALOGUE_WRITE, &g.catalogue, &g.err), 0);
    publish(&g);
    assert_int_equal(g.result.files_unchanged, 0);
    assert_same(&g, 1);
    catalogue_close(g.catalogue);
    store_close(other);
}

/* ---- many versions ------------------------------------------------------------------------------
 */

#define MANY_FILES 1000u

struct many {
    uint32_t generation[MANY_FILES];
    uint64_t seed;
};

static unsigned number_of(const char *name)
{
    return name[0] == 'f' ? (unsigned)strtoul(name + 1, NULL, 10) : 0;
}

static void many_stat(struct spy *s, const char *name, struct source_stat *st)
{
    const struct many *m = s->ctx;

    if (name[0] == 'f')
        st->mtime.s = st->ctime.s = 1600000000 + m->generation[number_of(name)];
}

static void many_data(struct spy *s, const char *name, uint64_t offset, void *data, size_t size)
{
    const struct many *m = s->ctx;
    uint8_t *p = data;

    for (size_t i = 0; i < size; i += 64)
        p[i] ^= (uint8_t)(m->generation[number_of(name)] * 2654435761u >> (i / 64 % 4 * 8));
    (void)offset; /* files are read in one go */
}

static unsigned random_below(struct many *m, unsigned n)
{
    m->seed = m->seed * UINT64_C(6364136223846793005) + 1442695040888963407u;
    return (unsigned)((m->seed >> 33) % n);
}

struct bytes_count {
    uint64_t bytes;
};

static int add_bytes(void *ctx, const struct store_entry *e)
{
    struct bytes_count *c = ctx;

    c->bytes += e->size_bytes;
    return 0;
}

/* 100 versions with one per cent of random changes each. */
static void a_hundred_versions_stay_compact(void **state)
{
    struct fixture *f = *state;
    struct source_synthetic_options so = {
        .files = MANY_FILES, .per_directory = 100, .size_min = 2048, .size_max = 40960};
    struct many many = {.seed = 42};
    struct source *below = NULL;
    struct bytes_count stored = {0};
    uint64_t live = 0, fresh = 0, most = 0;

    f->o.pack_size_min = 1 << 20; /* 20 packs: what a tree of 1.3 GB has */
    assert_int_equal(source_synthetic_new(&so, &below), 0);
    struct spy *s = spy_new(below);
    s->on_stat = many_stat;
    s->on_data = many_data;
    s->ctx = &many;
    for (unsigned version = 1; version <= 100; version++) {
        assert_int_equal(try_publish_from(f, &s->base), 0);
        uint64_t packs = f->result.packs_written + f->result.packs_reused;
        if (version == 1) {
            fresh = packs;
            live = f->result.info.size_bytes;
        }
        most = packs > most ? packs : most;
        for (unsigned i = 0; i < MANY_FILES / 100; i++)
            many.generation[random_below(&many, MANY_FILES)] = version;
    }
    assert_int_equal(store_list(f->store, "p/", NULL, add_bytes, &stored, NULL), 0);
    print_message("%.1f x the packs of a fresh publish, %.2f x the live bytes\n",
                  (double)most / (double)fresh, (double)stored.bytes / (double)live);
    assert_true(most <= 2 * fresh);
    assert_true(stored.bytes <= 3 * live);
    source_close(&s->base);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(everything_comes_back),
        TEST(a_huge_sparse_file),
        TEST(unchanged_files_are_not_opened),
        TEST(racily_clean_files_are_read_again),
        TEST(unstable_inodes_are_not_trusted),
        TEST(known_contents_are_not_stored_again),
        TEST(the_owner_is_asked),
        TEST(refused_without_a_trace),
        TEST(patterns_leave_files_out),
        TEST(attributes_are_kept),
        TEST(damaged_state_costs_time_only),
        TEST(state_of_a_lost_version_is_no_help),
        TEST(a_hundred_versions_stay_compact),
    };
#undef TEST
    return cmocka_run_group_tests(tests, NULL, NULL);
}
