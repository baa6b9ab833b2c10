/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Publish from end to end on the memory store: what was in the source is what a view of the version
 * gives, whatever is interrupted, changes meanwhile, or was known before.
 */
#include "publish/publish.h"

#include "base/file.h"
#include "publish-source.h"
#include "view/view.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

/* ---- fixture -----------------------------------------------------------------------------------
 */

struct fixture {
    char root[64], source[96], state[96];
    struct store *store;
    struct catalogue *catalogue;
    struct publish_options o;
    struct publish_result result;
    struct err err;
    unsigned notices[8];
    char notice_path[8][256];
    volatile sig_atomic_t stop;
    unsigned stop_after; /* progress reports; 0: never */
};

static void notice(void *ctx, enum publish_notice_kind kind, const char *path)
{
    struct fixture *f = ctx;

    f->notices[kind]++;
    (void)snprintf(f->notice_path[kind], sizeof f->notice_path[kind], "%s", path);
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);

    (void)snprintf(f->root, sizeof f->root, "/tmp/grid-test-publish-XXXXXX");
    assert_non_null(mkdtemp(f->root));
    (void)snprintf(f->source, sizeof f->source, "%s/source", f->root);
    (void)snprintf(f->state, sizeof f->state, "%s/state", f->root);
    assert_int_equal(mkdir(f->source, 0755), 0);
    assert_int_equal(store_memory_new(&f->store), 0);
    assert_int_equal(catalogue_open(f->store, env_real(), CATALOGUE_WRITE, &f->catalogue, &f->err),
                     0);
    f->o = (struct publish_options){.name = "cats",
                                    .owner = "me",
                                    .host = "here",
                                    .state_dir = f->state,
                                    .pack_size_min = 256 << 10,
                                    .notice = notice,
                                    .ctx = f};
    *state = f;
    return 0;
}

static void remove_tree(const char *path)
{
    pid_t pid = fork();

    if (pid == 0) {
        execlp("rm", "rm", "-rf", path, (char *)NULL);
        _exit(127);
    }
    assert_int_equal(waitpid(pid, NULL, 0), pid);
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    catalogue_close(f->catalogue);
    store_close(f->store);
    remove_tree(f->root);
    free(f);
    return 0;
}

static const char *at(const struct fixture *f, const char *name)
{
    static char path[4096];

    (void)snprintf(path, sizeof path, "%s/%s", f->source, name);
    return path;
}

/* Bytes that depend on the seed, so that no two files are alike by chance. */
static void put_size(const struct fixture *f, const char *name, size_t size, unsigned seed)
{
    uint8_t *data = malloc(size + 8);
    uint64_t x = seed * 2654435761u + 1;

    for (size_t i = 0; i < size; i += 8) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        memcpy(data + i, &x, 8);
    }
    int fd = open(at(f, name), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    assert_true(fd >= 0);
    assert_int_equal(file_write(fd, data, size), 0);
    assert_int_equal(close(fd), 0);
    free(data);
}

static struct spy *open_source(const struct fixture *f)
{
    struct source *s = NULL;
    struct err err = ERR_INIT;

    assert_int_equal(source_directory_open(f->source, &s, &err), 0);
    return spy_new(s);
}

static int try_publish_from(struct fixture *f, struct source *s)
{
    memset(f->notices, 0, sizeof f->notices);
    memset(&f->result, 0, sizeof f->result);
    err_clear(&f->err);
    int r = publish_run(f->catalogue, s, &f->o, &f->result, &f->err);
    if (r < 0)
        assert_true(f->err.text[0] != '\0');
    return r;
}

static int try_publish(struct fixture *f)
{
    struct spy *s = open_source(f);
    int r = try_publish_from(f, &s->base);

    source_close(&s->base);
    return r;
}

static void publish(struct fixture *f)
{
    int r = try_publish(f);

    if (r < 0)
        print_error("publish: %s\n", f->err.text);
    assert_int_equal(r, 0);
}

/* Files must be older than a second to be trusted later. */
static void settle(void)
{
    struct timespec t = {.tv_sec = 1, .tv_nsec = 100000000};

    (void)nanosleep(&t, NULL);
}

/* ---- comparing ---------------------------------------------------------------------------------
 */

struct compare {
    struct view *view;
    unsigned entries;
};

static int count_entry(void *ctx, const struct index_entry *e)
{
    unsigned *count = ctx;

    *count +=
        !(e->name[0] == '.' && (e->name_length == 1 || (e->name_length == 2 && e->name[1] == '.')));
    return 0;
}

static void compare_file(const struct compare *c, int dir_fd, const char *name,
                         const struct index_inode *i)
{
    static uint8_t a[1 << 20], b[1 << 20];
    int fd = openat(dir_fd, name, O_RDONLY | O_CLOEXEC);

    assert_true(fd >= 0);
    for (uint64_t offset = 0;; offset += sizeof a) {
        ssize_t n = file_pread(fd, a, sizeof a, (off_t)offset);
        assert_true(n >= 0);
        assert_int_equal(view_read(c->view, i, offset, b, sizeof b), n);
        assert_memory_equal(a, b, (size_t)n);
        if (n < (ssize_t)sizeof a)
            break;
    }
    (void)close(fd);
}

static void compare_directory(struct compare *c, int fd, uint64_t nid);

static void compare_entry(struct compare *c, int dir_fd, const char *name, uint64_t dir_nid)
{
    struct index_inode i;
    struct stat st;
    char a[4097], b[INDEX_TARGET_MAX + 1];

    assert_int_equal(fstatat(dir_fd, name, &st, AT_SYMLINK_NOFOLLOW), 0);
    if (!S_ISREG(st.st_mode) && !S_ISDIR(st.st_mode) && !S_ISLNK(st.st_mode))
        return;
    int r = view_lookup(c->view, dir_nid, name, strlen(name), &i);
    if (r < 0)
        print_error("'%s' is missing\n", name);
    assert_int_equal(r, 0);
    c->entries++;
    assert_int_equal(i.mtime_s, st.st_mtim.tv_sec);
    assert_int_equal(i.mtime_ns, st.st_mtim.tv_nsec);
    if (S_ISLNK(st.st_mode)) {
        assert_int_equal(i.type, INDEX_SYMLINK);
        ssize_t n = readlinkat(dir_fd, name, a, sizeof a - 1);
        assert_true(n > 0);
        a[n] = '\0';
        assert_int_equal(view_readlink(c->view, i.nid, b), 0);
        assert_string_equal(a, b);
    } else if (S_ISREG(st.st_mode)) {
        assert_int_equal(i.type, INDEX_FILE);
        assert_int_equal(i.size, st.st_size);
        assert_int_equal(i.nlink, st.st_nlink);
        assert_int_equal(i.mode, 0444 | ((st.st_mode & 0111) ? 0111 : 0));
        compare_file(c, dir_fd, name, &i);
    } else {
        int fd = openat(dir_fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        assert_int_equal(i.type, INDEX_DIRECTORY);
        assert_int_equal(i.mode, 0555);
        compare_directory(c, fd, i.nid);
    }
}

static void compare_directory(struct compare *c, int fd, uint64_t nid)
{
    DIR *d = fdopendir(fd);
    unsigned before = c->entries, here = 0, there = 0;
    const struct dirent *e;

    assert_non_null(d);
    while ((e = readdir(d)) != NULL) {
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
            continue;
        unsigned saved = c->entries;
        compare_entry(c, dirfd(d), e->d_name, nid);
        here += c->entries > saved;
    }
    assert_int_equal(view_readdir(c->view, nid, 0, count_entry, &there), 0);
    assert_int_equal(here, there);
    assert_true(c->entries >= before + here);
    (void)closedir(d);
}

/* Version `n` (0: the newest) is the source as it is now, to the last byte. */
static void assert_same(struct fixture *f, uint32_t n)
{
    AUTO(fetch_free) struct fetch *fetch = NULL;
    AUTO(view_close) struct view *view = NULL;
    struct version_info info;
    struct compare c = {0};

    assert_int_equal(catalogue_resolve(f->catalogue, "cats", n, &info, &f->err), 0);
    assert_int_equal(fetch_new(f->store, 16 << 20, &fetch), 0);
    int r = view_open(f->catalogue, &info, fetch, &view, &f->err);
    if (r < 0)
        print_error("view: %s\n", f->err.text);
    assert_int_equal(r, 0);
    c.view = view;
    compare_directory(&c, open(f->source, O_RDONLY | O_DIRECTORY | O_CLOEXEC), INDEX_ROOT_NID);
}

static void make_tree(const struct fixture *f)
{
    static const size_t sizes[] = {0,     1,     511,   512,    513,    4096,
                                   65535, 65536, 65537, 131072, 300000, 1000000};
    char name[64];

    assert_int_equal(mkdir(at(f, "a"), 0755), 0);
    assert_int_equal(mkdir(at(f, "a/b"), 0755), 0);
    assert_int_equal(mkdir(at(f, "empty"), 0755), 0);
    for (unsigned i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        (void)snprintf(name, sizeof name, "%sf%02u",
                       i % 3 == 0   ? "a/"
                       : i % 3 == 1 ? "a/b/"
                                    : "",
                       i);
        put_size(f, name, sizes[i], i);
    }
    assert_int_equal(symlink("a/b/f01", at(f, "link")), 0);
}

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
    assert_int_equal(fetch_new(f->store, 16 << 20, &fetch), 0);
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
        assert_int_equal(fetch_new(f->store, 16 << 20, &fetch), 0);
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
        TEST(a_file_that_changes_is_read_again),
        TEST(a_file_that_keeps_changing_is_named),
        TEST(files_that_change_their_size),
        TEST(a_file_that_vanishes_is_named),
        TEST(an_unreadable_file_is_named),
        TEST(interrupted_and_resumed),
        TEST(without_state_nothing_is_left_behind),
        TEST(killed_at_every_store_call),
        TEST(what_was_left_is_verified),
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
