/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What only a directory store can get wrong: symlinks, foreign files, leftovers, modes, file
 * systems, full disks. What every store must do is in test-store.c.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "store/store-internal.h"

#include <fcntl.h>
#include <ftw.h>
#include <sched.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <sys/wait.h>

#define COUNT(a) (sizeof(a) / sizeof *(a))
#define NOBODY   65534

struct fixture {
    char dir[64];   /* holds the root and what must not be touched */
    char root[128]; /* dir/store */
    struct store *s;
};

static void setup_with(struct fixture *f, unsigned flags)
{
    struct err err = ERR_INIT;

    *f = (struct fixture){.dir = "/tmp/test-store-directory-XXXXXX"};
    assert_non_null(mkdtemp(f->dir));
    (void)snprintf(f->root, sizeof f->root, "%s/store", f->dir);
    if (store_open(f->root, flags, &f->s, &err) < 0)
        fail_msg("%s", err.text);
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);

    assert_non_null(f);
    setup_with(f, STORE_WRITE);
    *state = f;
    return 0;
}

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    return remove(path);
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    store_close(f->s);
    assert_int_equal(nftw(f->dir, remove_entry, 16, FTW_DEPTH | FTW_PHYS), 0);
    free(f);
    return 0;
}

/* "dir/<name>", good until the next call but three. */
static const char *at(const struct fixture *f, const char *name)
{
    static char paths[4][1024];
    static unsigned next;
    char *path = paths[next++ % COUNT(paths)];

    (void)snprintf(path, sizeof paths[0], "%s/%s", f->dir, name);
    return path;
}

static void write_file(const char *path, const char *text)
{
    AUTO(close_file) FILE *file = fopen(path, "we");

    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
}

static int put(struct store *s, const char *key, const char *text)
{
    return store_put_if_absent(s, key, bytes_str(text));
}

static void assert_object(struct store *s, const char *key, const char *text)
{
    struct buf b = BUF_INIT(1u << 20);

    assert_int_equal(store_get_all(s, key, &b), 0);
    assert_string_equal(buf_text(&b), text);
    buf_release(&b);
}

static int get_code(struct store *s, const char *key)
{
    uint8_t byte;
    size_t got;

    return store_get(s, key, 0, &byte, 1, &got, NULL);
}

static int list_line(void *ctx, const struct store_entry *e)
{
    return buf_printf(ctx, "%s ", e->key);
}

static void assert_list(struct store *s, const char *prefix, bool by_component,
                        const char *expected)
{
    struct store_list_options options = {.by_component = by_component};
    struct buf b = BUF_INIT(1u << 20);

    assert_int_equal(store_list(s, prefix, &options, list_line, &b, NULL), 0);
    assert_string_equal(buf_text(&b), expected);
    buf_release(&b);
}

static int list_code(struct store *s, const char *prefix, bool by_component)
{
    struct store_list_options options = {.by_component = by_component};
    struct buf b = BUF_INIT(1u << 20);
    int r = store_list(s, prefix, &options, list_line, &b, NULL);

    buf_release(&b);
    return r;
}

static unsigned mode_of(const char *path)
{
    struct stat st;

    assert_int_equal(lstat(path, &st), 0);
    return st.st_mode & 07777;
}

/* ---- what others put into the root ---- */

static void a_symlinked_directory_is_not_followed(void **state)
{
    struct fixture *f = *state;
    struct store_upload *u = NULL;

    assert_int_equal(mkdir(at(f, "outside"), 0777), 0);
    write_file(at(f, "outside/secret"), "secret");
    assert_int_equal(symlink(at(f, "outside"), at(f, "store/n")), 0);
    assert_int_equal(get_code(f->s, "n/secret"), -EPROTO);
    assert_int_equal(put(f->s, "n/new", "x"), -EPROTO);
    assert_int_equal(put(f->s, "n/deep/new", "x"), -EPROTO);
    assert_int_equal(store_upload(f->s, "n/new", &u), -EPROTO);
    assert_int_equal(store_remove(f->s, "n/secret"), -EPROTO);
    assert_int_equal(list_code(f->s, "", false), -EPROTO);
    assert_int_equal(list_code(f->s, "", true), -EPROTO);
    assert_int_equal(list_code(f->s, "n/", false), -EPROTO);
    assert_int_equal(put(f->s, "m/other", "x"), 0);
    assert_list(f->s, "m/", false, "m/other ");

    struct stat st;
    assert_int_equal(stat(at(f, "outside/secret"), &st), 0);
    assert_int_equal(unlink(at(f, "outside/secret")), 0);
    assert_int_equal(rmdir(at(f, "outside")), 0); /* nothing else came there */
}

static void a_symlinked_object_is_not_followed(void **state)
{
    struct fixture *f = *state;

    write_file(at(f, "secret"), "secret");
    assert_int_equal(put(f->s, "n/a", "x"), 0);
    assert_int_equal(symlink(at(f, "secret"), at(f, "store/n/b")), 0);
    assert_int_equal(symlink(at(f, "nowhere"), at(f, "store/n/c")), 0);
    assert_int_equal(mkfifo(at(f, "store/n/fifo"), 0666), 0);
    assert_int_equal(get_code(f->s, "n/b"), -EPROTO);
    assert_int_equal(get_code(f->s, "n/fifo"), -EPROTO);
    assert_int_equal(put(f->s, "n/b", "x"), -EPROTO);
    assert_int_equal(put(f->s, "n/c", "x"), -EPROTO);
    assert_int_equal(access(at(f, "nowhere"), F_OK), -1);
    assert_int_equal(list_code(f->s, "", false), -EPROTO);
    assert_int_equal(store_remove(f->s, "n/b"), 0);
    assert_int_equal(access(at(f, "secret"), F_OK), 0);
}

static void names_that_are_no_keys_are_passed_over(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(put(f->s, "a/b", "x"), 0);
    write_file(at(f, "store/.hidden"), "x");
    write_file(at(f, "store/two words"), "x");
    write_file(at(f, "store/a/.nfs0001"), "x");
    assert_int_equal(mkdir(at(f, "store/lost+found"), 0777), 0);
    write_file(at(f, "store/lost+found/x"), "x");
    assert_int_equal(mkdir(at(f, "store/c"), 0777), 0);
    write_file(at(f, "store/c/.hidden"), "x");
    assert_int_equal(mkdir(at(f, "store/d"), 0777), 0);
    assert_int_equal(mkdir(at(f, "store/d/e"), 0777), 0);
    assert_list(f->s, "", false, "a/b ");
    assert_list(f->s, "", true, "a/ ");
    assert_list(f->s, "d/", true, "");
    write_file(at(f, "store/d/e/f"), "x");
    assert_list(f->s, "", true, "a/ d/ ");
}

static void a_parent_that_vanishes_is_made_again(void **state)
{
    struct fixture *f = *state;
    struct store_upload *u;

    for (int round = 0; round < 3; round++) { /* also one that was known to be durable */
        assert_int_equal(store_upload(f->s, "a/b/c", &u), 0);
        assert_int_equal(store_upload_write(u, "data", 4), 0);
        assert_int_equal(rmdir(at(f, "store/a/b")), 0);
        assert_int_equal(rmdir(at(f, "store/a")), 0);
        assert_int_equal(store_upload_commit(u), 0);
        assert_object(f->s, "a/b/c", "data");
        assert_int_equal(store_remove(f->s, "a/b/c"), 0);
    }
}

static void the_deepest_key(void **state)
{
    struct fixture *f = *state;
    char key[STORE_KEY_MAX + 1], expected[STORE_KEY_MAX + 3];

    for (size_t i = 0; i < STORE_KEY_MAX - 1; i++)
        key[i] = i % 2 ? '/' : 'a';
    key[STORE_KEY_MAX - 1] = '\0';
    assert_int_equal(put(f->s, key, "deep"), 0);
    assert_object(f->s, key, "deep");
    (void)snprintf(expected, sizeof expected, "%s ", key);
    assert_list(f->s, "", false, expected);
    assert_list(f->s, "", true, "a/ ");
}

/* ---- temporaries ---- */

static void make_temp(const struct fixture *f, const char *name, int64_t age_s)
{
    char path[256];

    (void)snprintf(path, sizeof path, "%s/.tmp/%s", f->root, name);
    write_file(path, "left");
    struct timespec t = {.tv_sec = time(NULL) - age_s};
    const struct timespec times[2] = {t, t};
    assert_int_equal(utimensat(AT_FDCWD, path, times, AT_SYMLINK_NOFOLLOW), 0);
}

static bool has_temp(const struct fixture *f, const char *name)
{
    char path[256];

    (void)snprintf(path, sizeof path, "%s/.tmp/%s", f->root, name);
    return access(path, F_OK) == 0;
}

static void reopen(struct fixture *f, unsigned flags)
{
    store_close(f->s);
    f->s = NULL;
    assert_int_equal(store_open(f->root, flags, &f->s, NULL), 0);
}

static void leftovers_of_the_dead_are_removed(void **state)
{
    struct fixture *f = *state;
    char dead[STORE_TEMP_NAME_SIZE], young[STORE_TEMP_NAME_SIZE], alive[STORE_TEMP_NAME_SIZE];
    char before_boot[STORE_TEMP_NAME_SIZE], other_host[STORE_TEMP_NAME_SIZE];
    const int64_t old = 25 * 3600, fresh = 3600;
    pid_t gone = fork();

    if (gone == 0)
        _exit(0);
    assert_true(gone > 0);
    assert_int_equal(waitpid(gone, NULL, 0), gone);
    store_temp_name(dead, gone);
    store_temp_name(young, gone);
    store_temp_name(alive, getpid());
    store_temp_name(before_boot, getpid());
    before_boot[17] = before_boot[17] == '0' ? '1' : '0'; /* a digit of the boot id */
    store_temp_name(other_host, gone);
    other_host[0] = other_host[0] == '0' ? '1' : '0';

    assert_int_equal(mkdir(at(f, "store/.tmp"), 0777), 0);
    make_temp(f, dead, old);
    make_temp(f, young, fresh);
    make_temp(f, alive, old);
    make_temp(f, before_boot, old);
    make_temp(f, other_host, old);
    make_temp(f, "something", old);
    reopen(f, STORE_READ);
    assert_true(has_temp(f, dead));
    reopen(f, STORE_WRITE);
    assert_false(has_temp(f, dead));
    assert_false(has_temp(f, before_boot));
    assert_true(has_temp(f, young));
    assert_true(has_temp(f, alive));
    assert_true(has_temp(f, other_host));
    assert_true(has_temp(f, "something"));
    assert_list(f->s, "", false, "");
}

static size_t count_temps(const struct fixture *f)
{
    AUTO(close_dir) DIR *dir = opendir(at(f, "store/.tmp"));
    size_t n = 0;

    while (dir && readdir(dir))
        n++;
    return dir ? n - 2 : 0; /* "." and ".." */
}

static void without_unnamed_files_names_are_used(void **state)
{
    struct fixture *f = *state;
    struct store_upload *u;

    ((struct store_directory *)f->s)->named_temps = true;
    assert_int_equal(put(f->s, "a/b", "x"), 0);
    assert_int_equal(put(f->s, "a/b", "y"), -EEXIST);
    assert_int_equal(store_upload(f->s, "a/c", &u), 0);
    assert_int_equal(count_temps(f), 1);
    assert_int_equal(store_upload_write(u, "data", 4), 0);
    assert_list(f->s, "", false, "a/b ");
    assert_int_equal(store_upload_commit(u), 0);
    assert_object(f->s, "a/c", "data");
    assert_int_equal(store_upload(f->s, "a/c", &u), 0);
    assert_int_equal(store_upload_commit(u), -EEXIST);
    assert_int_equal(store_upload(f->s, "a/d", &u), 0);
    store_upload_abort(u);
    assert_int_equal(count_temps(f), 0);
    assert_list(f->s, "", false, "a/b a/c ");

    struct stat st;
    assert_int_equal(stat(at(f, "store/a/c"), &st), 0);
    assert_int_equal(st.st_nlink, 1);
}

static void unnamed_files_leave_nothing(void **state)
{
    struct fixture *f = *state;
    struct store_upload *u;

    if (((struct store_directory *)f->s)->named_temps) {
        print_message("skipped: /proc is not mounted, so unnamed files cannot be linked\n");
        skip();
    }
    assert_int_equal(store_upload(f->s, "a/c", &u), 0);
    assert_int_equal(store_upload_write(u, "data", 4), 0);
    int temps = access(at(f, "store/.tmp"), F_OK);
    store_upload_abort(u);
    assert_int_equal(temps, -1);
}

/* ---- opening, modes, file systems ---- */

static void modes_follow_the_umask(void **state)
{
    struct fixture f;
    mode_t before = umask(027);

    setup_with(&f, STORE_WRITE);
    assert_int_equal(put(f.s, "a/b", "x"), 0);
    ((struct store_directory *)f.s)->named_temps = true;
    assert_int_equal(put(f.s, "a/c", "x"), 0);
    (void)umask(before);
    assert_int_equal(mode_of(at(&f, "store")), 0750);
    assert_int_equal(mode_of(at(&f, "store/a")), 0750);
    assert_int_equal(mode_of(at(&f, "store/a/b")), 0440);
    assert_int_equal(mode_of(at(&f, "store/a/c")), 0440);
    store_close(f.s);
    assert_int_equal(nftw(f.dir, remove_entry, 16, FTW_DEPTH | FTW_PHYS), 0);
}

static void opening(void **state)
{
    struct fixture *f = *state;
    struct err err = ERR_INIT;
    struct store *s = NULL;
    char location[256];

    (void)snprintf(location, sizeof location, "file://%s", f->root);
    assert_string_equal(f->s->location, location);
    assert_int_equal(store_open(at(f, "none"), STORE_READ, &s, &err), -ENOENT);
    assert_non_null(strstr(err.text, at(f, "none")));
    assert_int_equal(access(at(f, "none"), F_OK), -1);

    assert_int_equal(store_open(at(f, "x/y/z///"), STORE_WRITE, &s, NULL), 0);
    (void)snprintf(location, sizeof location, "file://%s/x/y/z", f->dir);
    assert_string_equal(s->location, location);
    assert_int_equal(put(s, "a", "x"), 0);
    store_close(s);

    struct store_upload *u = NULL;
    assert_int_equal(store_open(location, STORE_READ, &s, NULL), 0);
    assert_object(s, "a", "x");
    assert_int_equal(put(s, "b", "x"), -EROFS);
    assert_int_equal(store_remove(s, "a"), -EROFS);
    assert_int_equal(store_upload(s, "b", &u), -EROFS);
    assert_list(s, "", false, "a ");
    store_close(s);
}

static void file_systems(void **state)
{
    static const struct {
        uint64_t type;
        enum store_sharing sharing;
    } rows[] = {
        {0xef53, STORE_SHARING_LOCAL},
        {0x58465342, STORE_SHARING_LOCAL},
        {0x9123683e, STORE_SHARING_LOCAL},
        {0x0bd00bd0, STORE_SHARING_COHERENT},
        {0x47504653, STORE_SHARING_COHERENT},
        {0x6969, STORE_SHARING_READ},
        {0x65735546, STORE_SHARING_UNKNOWN},
        {0xff534d42, STORE_SHARING_UNKNOWN},
        {0xffffffffff534d42, STORE_SHARING_UNKNOWN}, /* sign-extended, as some kernels tell it */
        {0xffffffff9123683e, STORE_SHARING_LOCAL},
        {0, STORE_SHARING_UNKNOWN},
    };

    for (size_t i = 0; i < COUNT(rows); i++)
        assert_int_equal(store_directory_sharing(rows[i].type, NULL), rows[i].sharing);
}

/* procfs stands for all that is unknown: nothing is ever written there. */
static void unknown_file_systems_are_read_only(void **state)
{
    struct err err = ERR_INIT;
    struct store *s = NULL;

    assert_int_equal(store_open("/proc", STORE_WRITE, &s, &err), -EPERM);
    assert_non_null(strstr(err.text, "--store-is-coherent"));
    err_clear(&err);
    assert_int_equal(store_open("/proc/no-such-store", STORE_WRITE, &s, &err), -EPERM);
    assert_non_null(strstr(err.text, "/proc/no-such-store"));
    assert_int_equal(store_open("/proc/sys/kernel", STORE_READ, &s, NULL), 0);
    assert_int_equal(put(s, "x", "y"), -EROFS);
    store_close(s);
}

/* ---- failures of the machine, each in a process of its own ---- */

enum { CHILD_OK, CHILD_SKIP = 77 };

#define CHILD_CHECK(condition)                                                                     \
    do {                                                                                           \
        if (!(condition))                                                                          \
            return __LINE__ % 70 + 1;                                                              \
    } while (0)

static void run_child(int (*child)(const struct fixture *f), const struct fixture *f,
                      const char *reason)
{
    int status;
    pid_t pid = fork();

    if (pid == 0)
        _exit(child(f));
    assert_true(pid > 0);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    if (WEXITSTATUS(status) == CHILD_SKIP) {
        print_message("skipped: %s\n", reason);
        skip();
    }
    assert_int_equal(WEXITSTATUS(status), CHILD_OK); /* else 1 + the line, modulo 70 */
}

/* As somebody whom modes stop: root would pass. */
static int child_without_permission(const struct fixture *f)
{
    struct err err = ERR_INIT;
    struct store *s = NULL;

    if (geteuid() == 0 && setresuid(NOBODY, NOBODY, NOBODY) < 0)
        return CHILD_SKIP;
    CHILD_CHECK(store_open(f->root, STORE_WRITE, &s, &err) == -EACCES);
    CHILD_CHECK(strstr(err.text, f->root) != NULL);
    CHILD_CHECK(store_open(f->root, STORE_READ, &s, NULL) == 0);
    CHILD_CHECK(get_code(s, "open/a") == 0);
    CHILD_CHECK(get_code(s, "shut/a") == -EACCES);
    CHILD_CHECK(list_code(s, "open/", false) == 0);
    CHILD_CHECK(list_code(s, "", false) == -EACCES); /* incomplete, so an error */
    store_close(s);
    return CHILD_OK;
}

static void missing_permissions_are_errors(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(put(f->s, "open/a", "x"), 0);
    assert_int_equal(put(f->s, "shut/a", "x"), 0);
    assert_int_equal(chmod(f->dir, 0755), 0);
    assert_int_equal(chmod(at(f, "store/shut"), 0), 0);
    assert_int_equal(chmod(f->root, 0555), 0);
    run_child(child_without_permission, f, "the user cannot be changed");
    assert_int_equal(chmod(f->root, 0755), 0);
    assert_int_equal(chmod(at(f, "store/shut"), 0755), 0);
}

#define FULL_BODY 20000

static int child_full_disk(const struct fixture *f)
{
    static uint8_t body[FULL_BODY];
    struct store_upload *u;
    struct store *s = NULL;
    char key[32];
    size_t got, stored = 0;
    uint64_t length;
    int r;

    if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
        mount("full", f->root, "tmpfs", 0, "size=512k") < 0)
        return CHILD_SKIP;
    CHILD_CHECK(store_open(f->root, STORE_WRITE, &s, NULL) == 0);
    do {
        (void)snprintf(key, sizeof key, "d%zu/k", stored);
        r = store_put_if_absent(s, key, bytes_of(body, sizeof body));
    } while (r == 0 && ++stored < 1000);
    CHILD_CHECK(r == -ENOSPC);
    CHILD_CHECK(stored > 5 && stored < 512 * 1024 / FULL_BODY + 1);
    CHILD_CHECK(get_code(s, key) == -ENOENT);
    CHILD_CHECK(store_upload(s, "u", &u) == 0);
    /* Bytes are gathered into steps: a large upload is told while it writes, a small one at its
     * end. */
    for (size_t i = 0; i < (8u << 20) / FULL_BODY && r != 0; i++)
        r = store_upload_write(u, body, sizeof body) == -ENOSPC ? 0 : r;
    CHILD_CHECK(r == 0);
    CHILD_CHECK(store_upload_write(u, "", 1) == -ENOSPC);
    CHILD_CHECK(store_upload_commit(u) == -ENOSPC);
    CHILD_CHECK(get_code(s, "u") == -ENOENT);
    CHILD_CHECK(store_upload(s, "u", &u) == 0);
    CHILD_CHECK(store_upload_write(u, body, sizeof body) == 0);
    CHILD_CHECK(store_upload_commit(u) == -ENOSPC);
    CHILD_CHECK(get_code(s, "u") == -ENOENT);
    for (size_t i = 0; i < stored; i++) {
        (void)snprintf(key, sizeof key, "d%zu/k", i);
        CHILD_CHECK(store_get(s, key, 0, body, sizeof body, &got, &length) == 0);
        CHILD_CHECK(got == FULL_BODY && length == FULL_BODY);
    }
    CHILD_CHECK(store_remove(s, "d0/k") == 0);
    CHILD_CHECK(store_put_if_absent(s, "again", bytes_of(body, sizeof body)) == 0);
    CHILD_CHECK(mount(NULL, f->root, NULL, MS_REMOUNT | MS_RDONLY, NULL) == 0);
    CHILD_CHECK(put(s, "more", "") == -EROFS);
    CHILD_CHECK(store_remove(s, "again") == -EROFS);
    CHILD_CHECK(get_code(s, "again") == 0);
    store_close(s);
    CHILD_CHECK(store_open(f->root, STORE_WRITE, &s, NULL) == -EROFS);
    return CHILD_OK;
}

/* For the kernel to read from: a plain file on a disk, or a reason. */
static void objects_as_local_files(void **state)
{
    struct fixture *f = *state;
    struct statfs fs = {0};
    uint8_t found[8];
    int fd = -1;

    assert_int_equal(store_put_if_absent(f->s, "p/a", bytes_of("bytes", 5)), 0);
    assert_int_equal(symlink("a", at(f, "store/p/b")), 0);
    assert_int_equal(store_open_local(f->s, "p/none", &fd), -ENOENT);
    assert_int_equal(store_open_local(f->s, "p", &fd), -EPROTO);
    assert_int_equal(store_open_local(f->s, "p/b", &fd), -EPROTO);
    assert_int_equal(store_open_local(f->s, "../a", &fd), -EINVAL);
    assert_int_equal(fd, -1);
    assert_int_equal(statfs(f->root, &fs), 0);
    if (!store_directory_is_disk((uint64_t)fs.f_type)) {
        assert_int_equal(store_open_local(f->s, "p/a", &fd), -EOPNOTSUPP);
        return;
    }
    assert_int_equal(store_open_local(f->s, "p/a", &fd), 0);
    assert_int_equal(read(fd, found, sizeof found), 5);
    assert_memory_equal(found, "bytes", 5);
    assert_int_equal(write(fd, "x", 1), -1);
    (void)close(fd);
    assert_true(store_directory_is_disk(0x58465342));
    assert_false(store_directory_is_disk(0x01021994)); /* tmpfs */
    assert_false(store_directory_is_disk(0x00006969)); /* NFS */
    assert_false(store_directory_is_disk(0x794c7630)); /* overlayfs */
}

static void a_full_disk_loses_nothing(void **state)
{
    run_child(child_full_disk, *state, "a tmpfs cannot be mounted here");
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(a_symlinked_directory_is_not_followed),
        TEST(a_symlinked_object_is_not_followed),
        TEST(names_that_are_no_keys_are_passed_over),
        TEST(a_parent_that_vanishes_is_made_again),
        TEST(the_deepest_key),
        TEST(leftovers_of_the_dead_are_removed),
        TEST(without_unnamed_files_names_are_used),
        TEST(unnamed_files_leave_nothing),
        cmocka_unit_test(modes_follow_the_umask),
        TEST(opening),
        cmocka_unit_test(file_systems),
        cmocka_unit_test(unknown_file_systems_are_read_only),
        TEST(missing_permissions_are_errors),
        TEST(objects_as_local_files),
        TEST(a_full_disk_loses_nothing),
    };
    return cmocka_run_group_tests_name("store-directory", tests, NULL, NULL);
}
