/* SPDX-License-Identifier: Apache-2.0 */
/*
 * For the tests of publish: a source to fill, a memory store, and the comparison of a version with
 * its source, to the last byte. Include it first.
 */
#ifndef TESTS_PUBLISH_FIXTURE_H
#define TESTS_PUBLISH_FIXTURE_H

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

static inline void notice(void *ctx, enum publish_notice_kind kind, const char *path)
{
    struct fixture *f = ctx;

    f->notices[kind]++;
    (void)snprintf(f->notice_path[kind], sizeof f->notice_path[kind], "%s", path);
}

static inline int setup(void **state)
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

static inline void remove_tree(const char *path)
{
    pid_t pid = fork();

    if (pid == 0) {
        execlp("rm", "rm", "-rf", path, (char *)NULL);
        _exit(127);
    }
    assert_int_equal(waitpid(pid, NULL, 0), pid);
}

static inline int teardown(void **state)
{
    struct fixture *f = *state;

    catalogue_close(f->catalogue);
    store_close(f->store);
    remove_tree(f->root);
    free(f);
    return 0;
}

static inline const char *at(const struct fixture *f, const char *name)
{
    static char path[4096];

    (void)snprintf(path, sizeof path, "%s/%s", f->source, name);
    return path;
}

/* Bytes that depend on the seed, so that no two files are alike by chance. */
static inline void put_size(const struct fixture *f, const char *name, size_t size, unsigned seed)
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

static inline struct spy *open_source(const struct fixture *f)
{
    struct source *s = NULL;
    struct err err = ERR_INIT;

    assert_int_equal(source_directory_open(f->source, &s, &err), 0);
    return spy_new(s);
}

static inline int try_publish_from(struct fixture *f, struct source *s)
{
    memset(f->notices, 0, sizeof f->notices);
    memset(&f->result, 0, sizeof f->result);
    err_clear(&f->err);
    int r = publish_run(f->catalogue, s, &f->o, &f->result, &f->err);
    if (r < 0)
        assert_true(f->err.text[0] != '\0');
    return r;
}

static inline int try_publish(struct fixture *f)
{
    struct spy *s = open_source(f);
    int r = try_publish_from(f, &s->base);

    source_close(&s->base);
    return r;
}

static inline void publish(struct fixture *f)
{
    int r = try_publish(f);

    if (r < 0)
        print_error("publish: %s\n", f->err.text);
    assert_int_equal(r, 0);
}

/* Files must be older than a second to be trusted later. */
static inline void settle(void)
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

static inline int count_entry(void *ctx, const struct index_entry *e)
{
    unsigned *count = ctx;

    *count +=
        !(e->name[0] == '.' && (e->name_length == 1 || (e->name_length == 2 && e->name[1] == '.')));
    return 0;
}

static inline void compare_file(const struct compare *c, int dir_fd, const char *name,
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

static inline void compare_directory(struct compare *c, int fd, uint64_t nid);

static inline void compare_entry(struct compare *c, int dir_fd, const char *name, uint64_t dir_nid)
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

static inline void compare_directory(struct compare *c, int fd, uint64_t nid)
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
static inline void assert_same(struct fixture *f, uint32_t n)
{
    AUTO(fetch_free) struct fetch *fetch = NULL;
    AUTO(view_close) struct view *view = NULL;
    struct version_info info;
    struct compare c = {0};

    assert_int_equal(catalogue_resolve(f->catalogue, "cats", n, &info, &f->err), 0);
    assert_int_equal(
        fetch_new(&(struct fetch_options){.store = f->store, .memory_bytes = 16 << 20}, &fetch), 0);
    int r = view_open(f->catalogue, &info, fetch, &view, &f->err);
    if (r < 0)
        print_error("view: %s\n", f->err.text);
    assert_int_equal(r, 0);
    c.view = view;
    compare_directory(&c, open(f->source, O_RDONLY | O_DIRECTORY | O_CLOEXEC), INDEX_ROOT_NID);
}

static inline void make_tree(const struct fixture *f)
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

#endif
