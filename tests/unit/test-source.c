/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sources: what a directory, a single file and the generated tree show, and that nothing outside
 * the root, no symbolic link and no FIFO is ever followed or waited for.
 */
#include "source/source-internal.h"

#include "base/le.h"

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
#include <unistd.h>

#include <cmocka.h>

struct fixture {
    char root[64];
    struct source *source;
};

static void path_of(const struct fixture *f, const char *name, char ret[static 4096])
{
    (void)snprintf(ret, 4096, "%s/%s", f->root, name);
}

static void put(const struct fixture *f, const char *name, const char *text)
{
    char path[4096];
    path_of(f, name, path);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
}

static void make_dir(const struct fixture *f, const char *name)
{
    char path[4096];
    path_of(f, name, path);
    assert_int_equal(mkdir(path, 0755), 0);
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    struct err err = ERR_INIT;

    (void)snprintf(f->root, sizeof f->root, "/tmp/grid-test-source-XXXXXX");
    assert_non_null(mkdtemp(f->root));
    assert_int_equal(source_directory_open(f->root, &f->source, &err), 0);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    source_close(f->source);
    pid_t pid = fork();
    if (pid == 0) {
        execlp("rm", "rm", "-rf", f->root, (char *)NULL);
        _exit(127);
    }
    assert_int_equal(waitpid(pid, NULL, 0), pid);
    free(f);
    return 0;
}

static struct source_dir *open_dir(struct source *s, const char *path)
{
    struct source_dir *d = NULL;
    assert_int_equal(source_open_dir(s, path, &d), 0);
    return d;
}

static const struct source_entry *find(const struct source_listing *l, const char *name)
{
    for (size_t i = 0; i < l->count; i++) {
        if (strcmp(l->entries[i].name, name) == 0)
            return &l->entries[i];
    }
    return NULL;
}

static void lists_every_type(void **state)
{
    struct fixture *f = *state;
    struct source_listing l;
    char path[4096];

    put(f, "file", "hello");
    make_dir(f, "dir");
    path_of(f, "link", path);
    assert_int_equal(symlink("../nowhere/\xff", path), 0);
    path_of(f, "fifo", path);
    assert_int_equal(mkfifo(path, 0644), 0);
    put(f, "\xff\x01odd\nname", "");

    AUTO(source_close_dir) struct source_dir *d = open_dir(f->source, "");
    for (int twice = 0; twice < 2; twice++) { /* a directory can be listed again */
        assert_int_equal(source_list(d, &l), 0);
        assert_int_equal(l.count, 5);
        assert_int_equal(find(&l, "file")->stat.type, SOURCE_FILE);
        assert_int_equal(find(&l, "file")->stat.size, 5);
        assert_int_equal(find(&l, "file")->stat.link_count, 1);
        assert_null(find(&l, "file")->target);
        assert_int_equal(find(&l, "dir")->stat.type, SOURCE_DIRECTORY);
        assert_int_equal(find(&l, "link")->stat.type, SOURCE_SYMLINK);
        assert_string_equal(find(&l, "link")->target, "../nowhere/\xff");
        assert_int_equal(find(&l, "fifo")->stat.type, SOURCE_SPECIAL);
        assert_non_null(find(&l, "\xff\x01odd\nname"));
        source_listing_release(&l);
    }
}

static void times_and_modes(void **state)
{
    struct fixture *f = *state;
    struct source_listing l;
    struct timespec times[2] = {{.tv_sec = -5, .tv_nsec = 7}, {.tv_sec = -5, .tv_nsec = 7}};
    char path[4096];

    put(f, "old", "");
    path_of(f, "old", path);
    assert_int_equal(chmod(path, 04751), 0);
    assert_int_equal(utimensat(AT_FDCWD, path, times, 0), 0);
    AUTO(source_close_dir) struct source_dir *d = open_dir(f->source, "");
    assert_int_equal(source_list(d, &l), 0);
    assert_int_equal(l.count, 1);
    assert_int_equal(l.entries[0].stat.mode, 04751);
    assert_int_equal(l.entries[0].stat.mtime.s, -5);
    assert_int_equal(l.entries[0].stat.mtime.ns, 7);
    source_listing_release(&l);
}

/* Both ways of opening a directory: with openat2, and component by component for long paths. */
static void directories_stay_inside(void **state)
{
    struct fixture *f = *state;
    struct source_dir *d = NULL;
    char path[4096];

    make_dir(f, "a");
    make_dir(f, "a/b");
    put(f, "a/b/x", "1");
    put(f, "plain", "1");
    path_of(f, "out", path);
    assert_int_equal(symlink("/etc", path), 0);
    path_of(f, "a/in", path);
    assert_int_equal(symlink("b", path), 0);

    source_close_dir(open_dir(f->source, "a/b"));
    assert_int_equal(source_open_dir(f->source, "out", &d), -ENOTDIR);
    assert_int_equal(source_open_dir(f->source, "out/ssh", &d), -ELOOP);
    assert_int_equal(source_open_dir(f->source, "a/in", &d), -ENOTDIR);
    assert_int_equal(source_open_dir(f->source, "a/none", &d), -ENOENT);
    assert_int_equal(source_open_dir(f->source, "plain", &d), -ENOTDIR);
    assert_int_not_equal(source_open_dir(f->source, "..", &d), 0);
    assert_int_not_equal(source_open_dir(f->source, "a/../..", &d), 0);
    assert_null(d);
}

static void very_deep_paths_open(void **state)
{
    struct fixture *f = *state;
    struct buf path = BUF_INIT(1 << 20);
    char name[201];
    int at = open(f->root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    memset(name, 'n', 200);
    name[200] = '\0';
    for (int i = 0; i < 30; i++) { /* 6,000 bytes: more than one system call takes */
        assert_int_equal(mkdirat(at, name, 0755), 0);
        int next = openat(at, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        assert_true(next >= 0);
        (void)close(at);
        at = next;
        assert_int_equal(buf_printf(&path, "%s%s", i ? "/" : "", name), 0);
    }
    (void)close(at);
    source_close_dir(open_dir(f->source, buf_text(&path)));
    buf_release(&path);
}

static void files_are_regular_or_refused(void **state)
{
    struct fixture *f = *state;
    struct source_file *file = NULL;
    struct source_stat stat;
    char path[4096], data[16];

    put(f, "file", "hello");
    make_dir(f, "dir");
    path_of(f, "link", path);
    assert_int_equal(symlink("file", path), 0);
    path_of(f, "fifo", path);
    assert_int_equal(mkfifo(path, 0644), 0);
    AUTO(source_close_dir) struct source_dir *d = open_dir(f->source, "");

    assert_int_equal(source_open_file(d, "link", &file), -ELOOP);
    assert_int_equal(source_open_file(d, "none", &file), -ENOENT);
    /* Opening does not wait for the FIFO's other end; what it is, is seen by its stat. */
    static const char *const odd[] = {"fifo", "dir"};
    for (size_t i = 0; i < 2; i++) {
        assert_int_equal(source_open_file(d, odd[i], &file), 0);
        assert_int_equal(source_file_stat(file, &stat), -EINVAL);
        source_close_file(file);
    }
    assert_int_equal(source_open_file(d, "file", &file), 0);
    assert_int_equal(source_file_stat(file, &stat), 0);
    assert_int_equal(stat.size, 5);
    assert_int_equal(source_file_read(file, data, sizeof data, 1), 4);
    assert_memory_equal(data, "ello", 4);
    assert_int_equal(source_file_read(file, data, sizeof data, 9), 0);
    source_close_file(file);
}

static void holes_are_seen(void **state)
{
    struct fixture *f = *state;
    struct source_file *file = NULL;
    char path[4096];
    uint64_t at = 0;

    path_of(f, "sparse", path);
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, "x", 1, 64 << 20), 1);
    assert_int_equal(ftruncate(fd, 128 << 20), 0);
    off_t first = lseek(fd, 0, SEEK_DATA);
    (void)close(fd);
    AUTO(source_close_dir) struct source_dir *d = open_dir(f->source, "");
    assert_int_equal(source_open_file(d, "sparse", &file), 0);
    assert_int_equal(source_file_next_data(file, 0, &at), 0);
    assert_int_equal(at, first);
    if (first == 0) {
        source_close_file(file);
        print_message("the file system of /tmp shows no holes\n");
        skip();
    }
    assert_int_equal(source_file_next_data(file, 65 << 20, &at), 0);
    assert_int_equal(at, 128 << 20);
    source_close_file(file);
}

static void attributes_are_sorted(void **state)
{
    struct fixture *f = *state;
    struct source_file *file = NULL;
    struct buf b = BUF_INIT(4096), small = BUF_INIT(4);
    char path[4096];

    put(f, "file", "");
    path_of(f, "file", path);
    if (setxattr(path, "user.z", "last", 4, 0) < 0) {
        print_message("no user attributes here: %s\n", strerror(errno));
        skip();
    }
    assert_int_equal(setxattr(path, "user.a", "", 0, 0), 0);
    AUTO(source_close_dir) struct source_dir *d = open_dir(f->source, "");
    assert_int_equal(source_open_file(d, "file", &file), 0);
    assert_int_equal(source_file_xattrs(file, &b), 0);
    assert_int_equal(b.size, 12);
    assert_memory_equal(b.data, "a\0\0\0z\0\4\0last", 12);
    assert_int_equal(source_file_xattrs(file, &small), -E2BIG);
    assert_int_equal(small.size, 0);
    source_close_file(file);
    buf_clear(&b);
    assert_int_equal(source_dir_xattrs(d, &b), 0);
    assert_int_equal(b.size, 0);
    buf_release(&b);
    buf_release(&small);
}

static void a_single_file(void **state)
{
    struct fixture *f = *state;
    struct source_listing l;
    struct source *s = NULL;
    struct source_dir *none = NULL;
    struct source_file *file = NULL;
    struct source_stat stat;
    struct err err = ERR_INIT;
    char path[4096];

    put(f, "one.bin", "data");
    put(f, "other", "not part of it");
    path_of(f, "one.bin", path);
    assert_int_equal(source_directory_open(path, &s, &err), 0);
    assert_non_null(strstr(s->location, "/one.bin"));
    struct source_dir *d = open_dir(s, "");
    assert_int_equal(source_list(d, &l), 0);
    assert_int_equal(l.count, 1);
    assert_string_equal(l.entries[0].name, "one.bin");
    assert_int_equal(source_dir_stat(d, &stat), 0);
    assert_int_equal(stat.type, SOURCE_DIRECTORY);
    assert_int_equal(stat.mtime.s, l.entries[0].stat.mtime.s);
    source_listing_release(&l);
    assert_int_equal(source_open_file(d, "other", &file), -ENOENT);
    assert_int_equal(source_open_file(d, "one.bin", &file), 0);
    source_close_file(file);
    assert_int_equal(source_open_dir(s, "x", &none), -ENOENT);
    source_close_dir(d);
    source_close(s);
}

static void what_is_no_source(void **state)
{
    struct fixture *f = *state;
    struct source *s = NULL;
    struct err err = ERR_INIT;
    char path[4096];

    path_of(f, "missing", path);
    assert_int_equal(source_directory_open(path, &s, &err), -ENOENT);
    assert_non_null(strstr(err.text, "missing"));
    err_clear(&err);
    path_of(f, "fifo", path);
    assert_int_equal(mkfifo(path, 0644), 0);
    assert_int_equal(source_directory_open(path, &s, &err), -EINVAL);
    assert_non_null(strstr(err.text, "neither a directory nor a file"));
    assert_null(s);
}

static void stable_inodes_by_file_system(void **state)
{
    assert_true(source_directory_inodes_stable(0xef53));
    assert_true(source_directory_inodes_stable(0x01021994));
    assert_false(source_directory_inodes_stable(0x6969));     /* NFS */
    assert_false(source_directory_inodes_stable(0x65735546)); /* FUSE */
    assert_false(source_directory_inodes_stable(0xff534d42)); /* SMB */
    assert_false(source_directory_inodes_stable(0x12345678));
}

static void generated_tree(void **state)
{
    struct source_synthetic_options o = {
        .files = 250, .per_directory = 100, .size_min = 3, .size_max = 5000};
    struct source *s = NULL;
    struct source_listing l;
    struct source_file *file = NULL;
    struct source_stat stat;
    uint8_t a[5000], b[5000];

    assert_int_equal(source_synthetic_new(&o, &s), 0);
    struct source_dir *d = open_dir(s, "");
    assert_int_equal(source_list(d, &l), 0);
    assert_int_equal(l.count, 3);
    source_listing_release(&l);
    source_close_dir(d);
    d = open_dir(s, "d2");
    assert_int_equal(source_list(d, &l), 0);
    assert_int_equal(l.count, 50);
    source_listing_release(&l);
    assert_int_equal(source_open_file(d, "f0", &file), -ENOENT);
    assert_int_equal(source_open_file(d, "f249", &file), 0);
    assert_int_equal(source_file_stat(file, &stat), 0);
    assert_int_equal(source_file_read(file, a, sizeof a, 0), stat.size);
    for (size_t i = 0; i < stat.size; i++) /* any range alone gives the same bytes */
        source_synthetic_bytes(&o, 249, i, b + i, 1);
    assert_memory_equal(a, b, stat.size);
    source_close_file(file);
    source_close_dir(d);
    source_close(s);

    /* A generation changes some files and leaves the others as the one before had them. */
    struct source_synthetic_options before = o, later = o;
    unsigned changed = 0, kept = 0;
    before.changed_percent = later.changed_percent = 10;
    before.generation = 4;
    later.generation = 5;
    for (uint64_t i = 0; i < o.files; i++) {
        source_synthetic_bytes(&o, i, 0, a, 8);
        source_synthetic_bytes(&before, i, 0, b, 8);
        kept += memcmp(a, b, 8) == 0;
        source_synthetic_bytes(&later, i, 0, a, 8);
        changed += memcmp(a, b, 8) != 0;
    }
    assert_in_range(changed, o.files * 5 / 100, o.files * 15 / 100);
    assert_in_range(kept, o.files * 55 / 100, o.files * 75 / 100); /* 0.9 ^ 4 = 0.66 */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(lists_every_type, setup, teardown),
        cmocka_unit_test_setup_teardown(times_and_modes, setup, teardown),
        cmocka_unit_test_setup_teardown(directories_stay_inside, setup, teardown),
        cmocka_unit_test_setup_teardown(very_deep_paths_open, setup, teardown),
        cmocka_unit_test_setup_teardown(files_are_regular_or_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(holes_are_seen, setup, teardown),
        cmocka_unit_test_setup_teardown(attributes_are_sorted, setup, teardown),
        cmocka_unit_test_setup_teardown(a_single_file, setup, teardown),
        cmocka_unit_test_setup_teardown(what_is_no_source, setup, teardown),
        cmocka_unit_test(stable_inodes_by_file_system),
        cmocka_unit_test(generated_tree),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
