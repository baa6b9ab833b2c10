/* SPDX-License-Identifier: Apache-2.0 */
/*
 * supervise/: children that live, fail, die, stop and stall, below a supervisor in a process of its
 * own. The kernel is a socket that keeps the borders of messages: what is written to it can be
 * looked at, and when it is closed the mount is gone.
 */
#include "supervise/supervise.h"

#include "base/cleanup.h"
#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>

#include <cmocka.h>

#define LIVES   64
#define WAIT_MS 20000

enum life {
    SERVE, /* to the end */
    FAIL,  /* to start, with a sentence */
    DIE,   /* before it is ready */
    QUIT,  /* when ready, with exit code 0, though the mount is there */
    STOP,  /* when ready, so that it answers no ping */
    STALL, /* when ready, with a request that takes for ever */
};

/* What all processes of a case see. */
struct shared {
    enum life lives[LIVES]; /* of one child after the other; the last one again and again */
    size_t life_count;
    atomic_size_t begun;
    _Atomic pid_t pids[LIVES];
    atomic_bool wrong;           /* a child got another INIT, or `again` was wrong */
    atomic_int started, code;    /* calls of started(), and its last code */
    atomic_int ended;            /* children that came to their end */
    atomic_int adopted, settled; /* calls of adopt(), and what it was told */
    char sentence[128];
};

static struct shared *shared;
static int kernel_fd;    /* our end */
static pid_t supervisor; /* its process */
static struct {
    struct fuse_in_header header;
    struct fuse_init_in in;
} init;

/* ---- in the other processes
 * ---------------------------------------------------------------------------------- */

static int64_t for_ever(void *ctx)
{
    return 1000000;
}

static int serve(void *ctx, struct supervise_child *child)
{
    size_t number = atomic_fetch_add(&shared->begun, 1);
    enum life life = shared->lives[number < shared->life_count ? number : shared->life_count - 1];
    char request[256];

    if (number < LIVES)
        shared->pids[number] = getpid();
    if (child->again != (number > 0) || child->init_size != sizeof init ||
        memcmp(child->init, &init, sizeof init) != 0)
        shared->wrong = true;
    if (life == DIE)
        (void)raise(SIGKILL);
    if (life == FAIL) {
        supervise_failed(child, -EPROTO, "this version is damaged");
        return 1;
    }
    supervise_ready(child);
    if (life == STOP)
        (void)raise(SIGSTOP);
    if (life == STALL)
        supervise_watch_age(child, for_ever, NULL);
    while (life != QUIT && read(child->fuse_fd, request, sizeof request) > 0)
        continue;
    shared->ended++;
    return 0;
}

static void started(void *ctx, int code, const char *sentence)
{
    shared->started++;
    shared->code = code;
    (void)snprintf(shared->sentence, sizeof shared->sentence, "%s", sentence ? sentence : "");
}

static void adopt(void *ctx, bool settled)
{
    shared->settled = settled;
    shared->adopted++;
}

static enum supervise_answer watched_ready(void *ctx, size_t which)
{
    return which == 0 ? SUPERVISE_END : SUPERVISE_FORGET;
}

/* ---- a case
 * --------------------------------------------------------------------------------------------------
 */

static void begin(bool resends, int watched_fd, const enum life *lives, size_t count)
{
    int fds[2];

    memset(shared, 0, sizeof *shared);
    memcpy(shared->lives, lives, count * sizeof lives[0]);
    shared->life_count = count;
    init.header = (struct fuse_in_header){.len = sizeof init, .opcode = FUSE_INIT, .unique = 2};
    init.in = (struct fuse_init_in){
        .major = 7, .minor = 40, .flags = FUSE_INIT_EXT, .flags2 = resends ? 1u << 7 : 0};
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds), 0);
    kernel_fd = fds[0];
    assert_int_equal(write(kernel_fd, &init, sizeof init), sizeof init);
    supervisor = fork();
    assert_true(supervisor >= 0);
    if (supervisor == 0) {
        struct supervise_options o = {.fuse_fd = fds[1],
                                      .what = "test:1",
                                      .child_name = "test-child",
                                      .serve = serve,
                                      .started = started,
                                      .watched_ready = watched_ready,
                                      .adopt = adopt,
                                      .watched = {watched_fd, -1},
                                      .ping_ms = 20,
                                      .ping_limit = 10,
                                      .stall_ms = 900000, /* for_ever() is longer */
                                      .give_up_ms = 500};
        (void)close(kernel_fd);
        log_init(2, LOG_LEVEL_ERROR, "supervisor");
        _exit(-supervise_run(&o));
    }
    (void)close(fds[1]);
}

#define BEGIN(...)                                                                                 \
    begin(true, -1, (const enum life[]){__VA_ARGS__},                                              \
          sizeof((const enum life[]){__VA_ARGS__}) / sizeof(enum life))

static void pause_ms(long ms)
{
    struct timespec t = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};

    (void)nanosleep(&t, NULL); /* too early does no harm */
}

#define UNTIL(condition)                                                                           \
    for (int waited = 0; !(condition); waited += 5) {                                              \
        if (waited > WAIT_MS)                                                                      \
            fail_msg("never: %s", #condition);                                                     \
        pause_ms(5);                                                                               \
    }

static bool is_gone(pid_t pid)
{
    return kill(pid, 0) < 0 && errno == ESRCH;
}

/* Its result, as a negative errno. */
static int result(void)
{
    int status;

    assert_int_equal(waitpid(supervisor, &status, 0), supervisor);
    assert_true(WIFEXITED(status));
    assert_false(shared->wrong);
    return -WEXITSTATUS(status);
}

static void unmount(void)
{
    (void)close(kernel_fd);
}

/* The next message to the kernel is the one that has requests sent again. */
static void expect_resend(void)
{
    struct fuse_out_header h;

    assert_int_equal(read(kernel_fd, &h, sizeof h), sizeof h);
    assert_int_equal(h.len, 16);
    assert_int_equal(h.error, 7);
    assert_int_equal(h.unique, 0);
}

static void expect_silence(void)
{
    struct pollfd p = {.fd = kernel_fd, .events = POLLIN};

    assert_int_equal(poll(&p, 1, 0), 0);
}

static void test_end(void **state)
{
    BEGIN(SERVE);
    UNTIL(shared->started == 1);
    assert_int_equal(shared->code, 0);
    expect_silence();
    unmount();
    assert_int_equal(result(), 0);
    assert_int_equal(shared->begun, 1);
}

static void test_killed(void **state)
{
    BEGIN(SERVE);
    for (size_t i = 0; i < 40; i++) {
        UNTIL(shared->begun == i + 1 && shared->pids[i]);
        if (i > 0)
            expect_resend();
        UNTIL(shared->started == 1);
        assert_int_equal(kill(shared->pids[i], SIGKILL), 0);
        /* Every third one had a life; the others died young, and the next ones wait a little. */
        pause_ms(i % 3 == 0 ? 300 : 0);
    }
    UNTIL(shared->begun == 41);
    expect_resend();
    unmount();
    assert_int_equal(result(), 0);
    assert_int_equal(shared->started, 1);
}

/* An exit code of 0 is no end, and one that cannot start is tried again. */
static void test_failures_later(void **state)
{
    BEGIN(QUIT, DIE, FAIL, DIE, SERVE);
    UNTIL(shared->begun == 5);
    expect_resend();
    expect_silence();
    unmount();
    assert_int_equal(result(), 0);
    assert_int_equal(shared->started, 1);
    assert_int_equal(shared->code, 0);
}

static void test_first_fails(void **state)
{
    BEGIN(FAIL, SERVE);
    assert_int_equal(result(), -EPROTO);
    assert_int_equal(shared->started, 1);
    assert_int_equal(shared->code, -EPROTO);
    assert_string_equal(shared->sentence, "this version is damaged");
    unmount();

    BEGIN(DIE, SERVE);
    assert_int_equal(result(), -ECHILD);
    assert_int_equal(shared->started, 1);
    assert_int_equal(shared->code, -ECHILD);
    assert_int_equal(shared->begun, 1);
    unmount();
}

static void test_stopped(void **state)
{
    BEGIN(STOP, SERVE);
    UNTIL(shared->begun == 2);
    expect_resend();
    UNTIL(is_gone(shared->pids[0]));
    unmount();
    assert_int_equal(result(), 0);
}

static void test_stalled(void **state)
{
    BEGIN(STALL, SERVE);
    UNTIL(shared->begun == 2);
    expect_resend();
    UNTIL(is_gone(shared->pids[0]));
    unmount();
    assert_int_equal(result(), 0);
}

static void test_give_up(void **state)
{
    BEGIN(SERVE, DIE);
    UNTIL(shared->started == 1);
    assert_int_equal(kill(shared->pids[0], SIGKILL), 0);
    assert_int_equal(result(), -EIO);
    assert_true(shared->begun > 3);
    assert_int_equal(shared->started, 1);
    unmount();
}

/* Gone while no child is there to notice. */
static void test_gone_meanwhile(void **state)
{
    BEGIN(SERVE, DIE);
    UNTIL(shared->started == 1);
    assert_int_equal(kill(shared->pids[0], SIGKILL), 0);
    UNTIL(shared->begun > 1);
    unmount();
    assert_int_equal(result(), 0);
}

static void test_old_kernel(void **state)
{
    const enum life lives[] = {SERVE, SERVE};

    begin(false, -1, lives, 2);
    UNTIL(shared->started == 1);
    assert_int_equal(kill(shared->pids[0], SIGKILL), 0);
    assert_int_equal(result(), -ENOTCONN);
    assert_int_equal(shared->begun, 1);
    unmount();
}

static void test_supervisor_killed(void **state)
{
    int status;

    BEGIN(SERVE);
    UNTIL(shared->started == 1);
    assert_int_equal(kill(supervisor, SIGKILL), 0);
    assert_int_equal(waitpid(supervisor, &status, 0), supervisor);
    UNTIL(shared->adopted == 1);
    assert_int_equal(shared->settled, 1);
    assert_int_equal(kill(shared->pids[0], 0), 0);
    unmount();
    UNTIL(shared->ended == 1);
}

static void test_told_to_end(void **state)
{
    const enum life lives[] = {SERVE};
    int fds[2];

    assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
    begin(true, fds[0], lives, 1);
    UNTIL(shared->started == 1);
    assert_int_equal(write(fds[1], "", 1), 1);
    assert_int_equal(result(), -ECANCELED);
    assert_true(is_gone(shared->pids[0]));
    (void)close(fds[0]);
    (void)close(fds[1]);
    unmount();
}

/* What is read first is no INIT. */
static void test_no_init(void **state)
{
    int fds[2];
    struct supervise_options o = {.what = "test:1", .started = started, .watched = {-1, -1}};

    memset(shared, 0, sizeof *shared);
    for (size_t size = 0; size < sizeof init; size += 8) {
        assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds), 0);
        o.fuse_fd = fds[1];
        init.header.len = sizeof init;
        assert_int_equal(write(fds[0], &init, size), size);
        assert_int_equal(close(fds[0]), 0);
        assert_int_equal(supervise_run(&o), -EPROTO);
        assert_int_equal(shared->code, -EPROTO);
        assert_int_equal(close(fds[1]), 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_end),
        cmocka_unit_test(test_killed),
        cmocka_unit_test(test_failures_later),
        cmocka_unit_test(test_first_fails),
        cmocka_unit_test(test_stopped),
        cmocka_unit_test(test_stalled),
        cmocka_unit_test(test_give_up),
        cmocka_unit_test(test_gone_meanwhile),
        cmocka_unit_test(test_old_kernel),
        cmocka_unit_test(test_supervisor_killed),
        cmocka_unit_test(test_told_to_end),
        cmocka_unit_test(test_no_init),
    };

    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED)
        return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
