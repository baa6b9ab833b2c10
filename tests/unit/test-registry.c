/* SPDX-License-Identifier: Apache-2.0 */
/*
 * attach/: who serves what. Sockets under names that all jobs can work out, found only while
 * somebody listens, taken away only by their own; and records that many jobs of one server have.
 */
#include "attach/attach-shared.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <cmocka.h>

static char directory[128];

static struct registry open_for(const char *name, uint32_t version, const char *mode,
                                const char *share)
{
    struct attach_record r = {.version = version};
    struct registry g = {.dir_fd = -1};

    (void)snprintf(r.name, sizeof r.name, "%s", name);
    (void)snprintf(r.mode, sizeof r.mode, "%s", mode);
    assert_int_equal(registry_open(&r, share, &g, NULL), 0);
    return g;
}

static void test_identity(void **state)
{
    struct registry all[] = {open_for("t", 1, "fuse", "x"), open_for("t", 2, "fuse", "x"),
                             open_for("u", 1, "fuse", "x"), open_for("t", 1, "native", "x"),
                             open_for("t", 1, "fuse", "y"), open_for("t", 1, "fuse", "")};
    struct registry again = open_for("t", 1, "fuse", "x");

    assert_string_equal(all[0].key, again.key);
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        for (size_t k = 0; k < i; k++)
            assert_string_not_equal(all[i].key, all[k].key);
        registry_close(&all[i]);
    }
    registry_close(&again);
}

static bool is_there(const struct registry *g, const char *suffix)
{
    char name[64];
    struct stat st;

    (void)snprintf(name, sizeof name, "%s%s", g->key, suffix);
    return fstatat(g->dir_fd, name, &st, 0) == 0;
}

static void test_offer(void **state)
{
    struct registry g = open_for("offer", 1, "fuse", "");
    int listen_fd, other_fd, fd;
    uint64_t inode, other;
    struct stat st;
    char path[300];

    assert_int_equal(registry_connect(&g, &fd), -ENOENT);
    assert_int_equal(registry_offer(&g, &listen_fd, &inode), 0);
    (void)snprintf(path, sizeof path, "%s/servers/%s.new", directory, g.key);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_int_equal(registry_connect(&g, &fd), -ENOENT); /* not found yet */
    assert_int_equal(registry_publish(&g), 0);
    assert_int_equal(registry_connect(&g, &fd), 0);
    assert_int_equal(close(fd), 0);

    /* Nobody takes away what is another's. */
    registry_withdraw(&g, inode + 1);
    assert_int_equal(registry_connect(&g, &fd), 0);
    assert_int_equal(close(fd), 0);

    /* A dead one is nobody, though its name is there; the next one takes its place. */
    assert_int_equal(close(listen_fd), 0);
    assert_true(is_there(&g, ".sock"));
    assert_int_equal(registry_connect(&g, &fd), -ENOENT);
    assert_int_equal(registry_offer(&g, &other_fd, &other), 0);
    assert_int_equal(registry_publish(&g), 0);
    registry_withdraw(&g, inode);
    assert_true(inode != other); /* though the number may have been given out again */
    assert_int_equal(registry_connect(&g, &fd), 0);
    assert_int_equal(close(fd), 0);
    registry_withdraw(&g, other);
    assert_false(is_there(&g, ".sock"));
    assert_int_equal(registry_connect(&g, &fd), -ENOENT);
    assert_int_equal(close(other_fd), 0);
    registry_close(&g);
}

static void test_lock(void **state)
{
    struct registry g = open_for("lock", 1, "fuse", ""), other = open_for("other", 1, "fuse", "");
    int a, b;

    assert_int_equal(registry_lock(&g, false, &a), 0);
    assert_int_equal(registry_lock(&other, false, &b), -EAGAIN);
    assert_int_equal(close(a), 0);
    assert_int_equal(registry_lock(&other, true, &b), 0);
    assert_int_equal(close(b), 0);
    registry_close(&g);
    registry_close(&other);
}

static void test_sweep(void **state)
{
    struct registry dead = open_for("dead", 1, "fuse", ""), live = open_for("live", 1, "fuse", "");
    int dead_fd, live_fd;
    uint64_t inode;

    assert_int_equal(registry_offer(&dead, &dead_fd, &inode), 0);
    assert_int_equal(registry_publish(&dead), 0);
    assert_int_equal(close(dead_fd), 0);
    assert_int_equal(registry_offer(&live, &live_fd, &inode), 0);
    assert_int_equal(registry_publish(&live), 0);
    registry_sweep();
    assert_false(is_there(&dead, ".sock"));
    assert_true(is_there(&live, ".sock"));
    registry_withdraw(&live, inode);
    assert_int_equal(close(live_fd), 0);
    registry_close(&dead);
    registry_close(&live);
}

static void test_refuse(void **state)
{
    struct registry g = open_for("refuse", 1, "fuse", "");
    struct shared_answer a;
    int listen_fd, first, second;
    uint64_t inode;

    assert_int_equal(registry_offer(&g, &listen_fd, &inode), 0);
    assert_int_equal(registry_publish(&g), 0);
    assert_int_equal(registry_connect(&g, &first), 0);
    shared_refuse(listen_fd, -EPROTO, "this version is damaged");
    assert_int_equal(registry_connect(&g, &second), 0);
    shared_refuse(listen_fd, 0, NULL);
    assert_int_equal(attach_receive(first, &a, sizeof a, NULL), 0);
    assert_int_equal(a.code, -EPROTO);
    assert_false(a.again);
    assert_string_equal(a.sentence, "this version is damaged");
    assert_int_equal(attach_receive(second, &a, sizeof a, NULL), 0);
    assert_true(a.code < 0 && a.again);
    registry_withdraw(&g, inode);
    assert_int_equal(close(first) + close(second) + close(listen_fd), 0);
    registry_close(&g);
}

/* ---- where older kernels keep a mount */

static void *copy_in_thread(void *arg)
{
    int *fds = arg; /* vault, mount, and the copy */

    fds[2] = vault_copy(fds[0], fds[1]);
    return NULL;
}

static void test_vault(void **state)
{
    struct stat before, after;
    pthread_t thread;
    int fds[3];

    if (geteuid() != 0) {
        print_message("needs root\n");
        skip();
    }
    int fs = fsopen("tmpfs", FSOPEN_CLOEXEC);
    assert_true(fs >= 0);
    assert_int_equal(fsconfig(fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0), 0);
    fds[1] = fsmount(fs, FSMOUNT_CLOEXEC, 0);
    assert_true(fds[1] >= 0);
    assert_int_equal(mkdirat(fds[1], "inside", 0700), 0);
    assert_int_equal(stat("/proc/self/ns/mnt", &before), 0);
    assert_int_equal(vault_make(&fds[0]), 0);
    assert_int_equal(vault_put(fds[0], fds[1], VAULT_OURS), 0);
    assert_int_equal(stat("/proc/self/ns/mnt", &after), 0);
    assert_true(before.st_ino == after.st_ino);
    assert_int_equal(fstat(fds[0], &after), 0);
    assert_true(before.st_ino != after.st_ino);
    /* From a thread, which comes back too. */
    assert_int_equal(pthread_create(&thread, NULL, copy_in_thread, fds), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_true(fds[2] >= 0);
    int copy = vault_copy(fds[0], fds[1]);
    assert_true(copy >= 0 && copy != fds[2]);
    assert_int_equal(close(fds[0]) + close(fds[1]), 0);
    assert_int_equal(faccessat(fds[2], "inside", F_OK, 0), 0);
    assert_int_equal(faccessat(copy, "inside", F_OK, 0), 0);
    assert_int_equal(close(fds[2]) + close(copy) + close(fs), 0);
    assert_int_equal(access(directory, F_OK), 0);
}

/* ---- records */

static int add_number(void *ctx, const struct attach_record *r)
{
    *(uint32_t *)ctx += r->attachment;
    return 0;
}

static void test_records(void **state)
{
    struct attach_record r = {.name = "t",
                              .version = 7,
                              .mode = "fuse",
                              .mountpoint = "/a b%",
                              .holder = "run r\n1",
                              .pid = 12,
                              .watch = 3,
                              .mount_id = 99,
                              .server = getpid()};
    uint32_t sum = 0;

    assert_int_equal(attach_process_start(getpid(), &r.server_start), 0);
    for (r.attachment = 1; r.attachment <= 4; r.attachment++)
        assert_int_equal(attach_record_write(&r, NULL), 0);
    assert_int_equal(attach_record_each_of(r.server, r.server_start, add_number, &sum), 0);
    assert_int_equal(sum, 1 + 2 + 3 + 4);
    sum = 0;
    assert_int_equal(attach_record_each_of(r.server, r.server_start + 1, add_number, &sum), 0);
    assert_int_equal(sum, 0);
    assert_int_equal(attach_each(add_number, &sum, NULL), 0);
    assert_int_equal(sum, 10);
    r.attachment = 3;
    assert_true(attach_record_exists(&r));
    attach_record_remove(&r);
    assert_false(attach_record_exists(&r));
    sum = 0;
    assert_int_equal(attach_each(add_number, &sum, NULL), 0);
    assert_int_equal(sum, 7);
}

/* Of a server that is dead nothing stays. */
static void test_dead_records(void **state)
{
    struct attach_record r = {.name = "t", .version = 7, .mode = "fuse", .run = "r"};
    char path[300];
    uint32_t sum = 0;
    pid_t pid = fork();

    assert_true(pid >= 0);
    if (pid == 0)
        _exit(0);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
    r.server = pid;
    r.server_start = 1;
    r.attachment = 2;
    assert_int_equal(attach_record_write(&r, NULL), 0);
    (void)snprintf(path, sizeof path, "%s/mounts/.p-%d-1", directory, (int)pid);
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(close(fd), 0);
    assert_int_equal(attach_each(add_number, &sum, NULL), 0);
    assert_false(attach_record_exists(&r));
    assert_int_equal(access(path, F_OK), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_identity), cmocka_unit_test(test_offer),
        cmocka_unit_test(test_lock),     cmocka_unit_test(test_sweep),
        cmocka_unit_test(test_refuse),   cmocka_unit_test(test_vault),
        cmocka_unit_test(test_records),  cmocka_unit_test(test_dead_records),
    };
    const char *tmp = getenv("TMPDIR");

    (void)snprintf(directory, sizeof directory, "%.80s/grid-test-registry-XXXXXX",
                   tmp ? tmp : "/tmp");
    if (!mkdtemp(directory) || setenv("GRID_RUNTIME_DIR", directory, 1) < 0)
        return 1;
    int failed = cmocka_run_group_tests_name("registry", tests, NULL, NULL);
    if (failed == 0) {
        char command[4][200];
        static const char *const names[] = {"/servers/lock", "/servers", "/mounts", ""};
        for (size_t i = 0; i < 4; i++) {
            (void)snprintf(command[i], sizeof command[i], "%s%s", directory, names[i]);
            (void)remove(command[i]); /* what is left is the runner's */
        }
    }
    return failed;
}
