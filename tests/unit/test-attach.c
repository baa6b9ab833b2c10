/* SPDX-License-Identifier: Apache-2.0 */
/*
 * attach/: runs and mounts with a tiny file system, as root and as an ordinary user in each way
 * that this machine has. Every case runs its caller in a process of its own, and compares the
 * mounts of the machine before and after.
 */
#define FUSE_USE_VERSION 34
#include <fuse_lowlevel.h>

#include "attach/attach.h"
#include "base/buf.h"
#include "base/env.h"
#include "base/file.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <limits.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>

#include <cmocka.h>

#define NOBODY  65534
#define WAIT_MS 20000

/* ---- a file system with one file
 * ------------------------------------------------------------------------ */

static const char hello[] = "hello\n";

static void fill(fuse_ino_t ino, struct stat *st)
{
    *st = (struct stat){.st_ino = ino, .st_uid = geteuid(), .st_gid = getegid()};
    st->st_mode = ino == 1 ? S_IFDIR | 0755 : S_IFREG | 0444;
    st->st_nlink = 1;
    st->st_size = ino == 1 ? 0 : (off_t)strlen(hello);
}

static void op_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
    struct fuse_entry_param e = {.ino = 2};

    if (parent != 1 || strcmp(name, "hello") != 0) {
        fuse_reply_err(req, ENOENT);
        return;
    }
    fill(2, &e.attr);
    fuse_reply_entry(req, &e);
}

static void op_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    struct stat st;

    fill(ino, &st);
    fuse_reply_attr(req, &st, 0);
}

static void op_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset,
                    struct fuse_file_info *fi)
{
    size_t length = strlen(hello), at = (size_t)offset < length ? (size_t)offset : length;

    fuse_reply_buf(req, hello + at, size < length - at ? size : length - at);
}

static void op_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    fi->direct_io = 1; /* no page cache: every read needs the server */
    fuse_reply_open(req, fi);
}

static int serve(void *ctx, struct supervise_child *child)
{
    static const struct fuse_lowlevel_ops ops = {
        .lookup = op_lookup, .getattr = op_getattr, .read = op_read, .open = op_open};
    char *argv[] = {"test", NULL};
    struct fuse_args args = FUSE_ARGS_INIT(1, argv);
    char dev[64], init[1024];
    struct fuse_buf buf = {.size = child->init_size, .mem = init};

    if (ctx) {
        supervise_failed(child, -EPROTO, "this version is damaged");
        return 1;
    }
    struct fuse_session *se = fuse_session_new(&args, &ops, sizeof ops, NULL);
    (void)snprintf(dev, sizeof dev, "/dev/fd/%d", child->fuse_fd);
    if (!se || child->init_size > sizeof init || fuse_session_mount(se, dev) != 0) {
        supervise_failed(child, -EIO, "cannot serve");
        return 1;
    }
    memcpy(init, child->init, child->init_size);
    fuse_session_process_buf(se, &buf);
    supervise_ready(child);
    (void)fuse_session_loop(se); /* till the mount is gone */
    fuse_session_destroy(se);
    fuse_opt_free_args(&args);
    return 0;
}

/* ---- callers
 * --------------------------------------------------------------------------------------------- */

enum who {
    ROOT,
    USER,         /* an ordinary user */
    USER_HELPED,  /* who needs fusermount3 to mount */
    USER_BLOCKED, /* who gets no user namespace */
};

static char top[64];        /* of all files of this test; open to all */
static char directory[128]; /* of the case, the caller's own */

struct job {
    const char *script;
    const char *targets[3];
    bool fail_serve;
    char *argv0; /* instead of a shell */
};

static void path_in(char path[static 512], const char *name)
{
    (void)snprintf(path, 512, "%s/%s", directory, name);
}

/* A /dev/fuse that is open to users, as udev makes it, seen by this program alone. */
static int give_device(void)
{
    char node[128];
    struct stat st;

    if (geteuid() != 0 || (stat("/dev/fuse", &st) == 0 && (st.st_mode & 06) == 06))
        return 0;
    (void)snprintf(node, sizeof node, "%s/fuse", top);
    if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
        mount("dev", top, "tmpfs", 0, "mode=0755") < 0 ||
        mknod(node, S_IFCHR | 0666, makedev(10, 229)) < 0 || chmod(node, 0666) < 0 ||
        mount(node, "/dev/fuse", NULL, MS_BIND, NULL) < 0)
        return -errno;
    return umount2(top, MNT_DETACH) < 0 ? -errno : 0;
}

/* Set by root before it becomes the user, so that fusermount3 still gets its powers. */
static void filter(struct sock_filter *code, size_t count)
{
    struct sock_fprog program = {.len = (unsigned short)count, .filter = code};

    if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program) < 0)
        _exit(98);
}

/* What a container's security profile does: unshare() is refused. */
static void block_namespaces(void)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_unshare, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    filter(code, sizeof code / sizeof code[0]);
}

/* What a kernel before 4.18 does: no FUSE in a user namespace. Our mount is told from fusermount3's
 * by its flags. */
static void block_mount(void)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_mount, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[3])),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOATIME, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    filter(code, sizeof code / sizeof code[0]);
}

/* Become `who` in this process. */
static void become(enum who who)
{
    if (setenv("GRID_RUNTIME_DIR", directory, 1) < 0 ||
        setenv("PATH", "/usr/local/bin:/usr/bin:/bin", 1) < 0 || chdir(directory) < 0)
        _exit(96);
    if (who == USER_BLOCKED)
        block_namespaces();
    if (who == USER_HELPED)
        block_mount();
    if (chdir(directory) < 0)
        _exit(95);
    if (who != ROOT && geteuid() == 0 &&
        (setresgid(NOBODY, NOBODY, NOBODY) < 0 || setresuid(NOBODY, NOBODY, NOBODY) < 0))
        _exit(94);
    /* Without an exec between, /proc/self would stay root's. */
    if (prctl(PR_SET_DUMPABLE, 1) < 0)
        _exit(93);
}

/* In the caller: run the job; the exit code, or 200 and the sentence in the file "error". */
static int run_job(const struct job *job)
{
    struct attach_item items[3];
    size_t count = 0;
    struct err err = ERR_INIT;
    int code = 0;
    char *argv[] = {job->argv0 ? job->argv0 : "sh", "-c", (char *)job->script, NULL};

    for (; count < 3 && job->targets[count]; count++) {
        items[count] = (struct attach_item){
            .target = job->targets[count],
            .serve = serve,
            .serve_ctx = job->fail_serve ? (void *)job : NULL,
            .record = {.version = (uint32_t)count + 1, .cluster = "local", .mode = "fuse"}};
        (void)snprintf(items[count].record.name, 64, "name%zu", count);
    }
    int r = attach_run(items, count, argv, &code, &err);
    if (waitpid(-1, NULL, WNOHANG) != -1 || errno != ECHILD)
        return 201; /* a child was left */
    if (r == 0)
        return code;
    FILE *f = fopen("error", "we");
    if (!f)
        return 202;
    (void)fprintf(f, "%d %d %s", -r, code, err_text(&err, r));
    return fclose(f) == 0 ? 200 : 202;
}

static pid_t start(enum who who, const struct job *job)
{
    pid_t pid = fork();

    assert_true(pid >= 0);
    if (pid == 0) {
        become(who);
        _exit(run_job(job));
    }
    return pid;
}

static int finish(pid_t pid)
{
    int status;

    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

static char *content(const char *name);

/* The same for a job that should have run. */
static int finish_run(pid_t pid)
{
    int code = finish(pid);

    if (code == 200)
        print_message("it did not run: %s\n", content("error"));
    return code;
}

static char *content(const char *name)
{
    static char text[8192];
    char path[512];

    path_in(path, name);
    AUTO(close_fd) int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? 0 : file_read(fd, text, sizeof text - 1);
    text[n > 0 ? n : 0] = '\0';
    return text;
}

static void put(const char *name, const char *text)
{
    char path[512];

    path_in(path, name);
    AUTO(close_fd) int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    assert_true(fd >= 0);
    assert_int_equal(file_write(fd, text, strlen(text)), 0);
}

static void pause_ms(long ms)
{
    struct timespec t = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};

    (void)nanosleep(&t, NULL); /* too early does no harm */
}

static void await_content(const char *name, const char *text)
{
    for (int waited = 0; strcmp(content(name), text) != 0; waited += 10) {
        if (waited > WAIT_MS)
            fail_msg("%s holds \"%s\", not \"%s\"", name, content(name), text);
        pause_ms(10);
    }
}

/* ---- what the machine looks like
 * -------------------------------------------------------------------------- */

static int count_record(void *ctx, const struct attach_record *r)
{
    *(struct attach_record *)ctx = *r;
    return 1;
}

/* In a process of the user: the pid of a live server, or 0. */
static pid_t live_server(enum who who)
{
    int fds[2];
    pid_t server = 0;
    assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        struct attach_record r = {.server = 0};
        become(who == ROOT ? ROOT : USER);
        int c = attach_each(count_record, &r, NULL);
        _exit(c < 0 || file_write(fds[1], &r.server, sizeof r.server) < 0);
    }
    (void)close(fds[1]);
    assert_int_equal(read(fds[0], &server, sizeof server), sizeof server);
    (void)close(fds[0]);
    assert_int_equal(finish(pid), 0);
    return server;
}

static void await_no_server(enum who who)
{
    for (int waited = 0; live_server(who) != 0; waited += 10) {
        if (waited > WAIT_MS)
            fail_msg("a server is still there");
        pause_ms(10);
    }
}

static size_t mounts(char *text, size_t size)
{
    AUTO(close_fd) int fd = open("/proc/self/mountinfo", O_RDONLY | O_CLOEXEC);
    ssize_t n = file_read(fd, text, size - 1);

    assert_true(n > 0);
    text[n] = '\0';
    return (size_t)n;
}

static char mounts_before[1 << 18], mounts_after[1 << 18];

/* How each case begins and ends. */
static void case_begin(enum who who)
{
    if (who == ROOT && geteuid() != 0) {
        print_message("needs root\n");
        skip();
    }
    if ((who == USER_HELPED || who == USER_BLOCKED) && geteuid() != 0) {
        print_message("needs root, to open and to forbid things\n");
        skip();
    }
    if (who != ROOT && access("/usr/bin/fusermount3", X_OK) < 0 &&
        access("/bin/fusermount3", X_OK) < 0) {
        print_message("needs fusermount3\n");
        skip();
    }
    static int number;
    (void)snprintf(directory, sizeof directory, "%s/%d", top, number++);
    assert_int_equal(mkdir(directory, 0700), 0);
    if (who != ROOT && geteuid() == 0)
        assert_int_equal(chown(directory, NOBODY, NOBODY), 0);
    (void)mounts(mounts_before, sizeof mounts_before);
}

static void remove_tree(const char *path)
{
    DIR *d = opendir(path);
    struct dirent *e;

    while (d && (e = readdir(d)) != NULL) {
        char inner[1024];
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
            continue;
        (void)snprintf(inner, sizeof inner, "%s/%s", path, e->d_name);
        if (e->d_type == DT_DIR)
            remove_tree(inner);
        else
            assert_int_equal(unlink(inner), 0);
    }
    if (d)
        closedir(d);
    assert_int_equal(rmdir(path), 0);
}

static void case_end(enum who who)
{
    char path[512];

    await_no_server(who);
    (void)mounts(mounts_after, sizeof mounts_after);
    assert_string_equal(mounts_after, mounts_before);
    path_in(path, "mnt");
    if (access(path, F_OK) == 0)
        assert_int_equal(rmdir(path), 0); /* no private mount point was left */
    remove_tree(directory);
}

/* ---- cases
 * --------------------------------------------------------------------------------------------------
 */

static bool have_datastores(void)
{
    return access("/datastores", F_OK) == 0;
}

static void test_run(void **state)
{
    enum who who = (enum who)(uintptr_t)*state;
    struct job job = {
        .script = "cat /datastores/one/hello /datastores/two/hello > out; pwd >> out; id -u >> out;"
                  "ls -d /bin /etc/passwd /proc/self >> out; touch /datastores/x 2>/dev/null;"
                  "test -e /datastores/one/none || exit 7",
        .targets = {"/datastores/one", "/datastores//two/"}};
    char expect[1024];
    bool was_there = have_datastores();

    case_begin(who);
    (void)snprintf(expect, sizeof expect, "hello\nhello\n%s\n%u\n/bin\n/etc/passwd\n/proc/self\n",
                   directory,
                   who == ROOT      ? 0
                   : geteuid() == 0 ? NOBODY
                                    : geteuid());
    assert_int_equal(finish_run(start(who, &job)), 7);
    assert_string_equal(content("out"), expect);
    assert_int_equal(have_datastores(), was_there);
    case_end(who);
}

static void test_existing_directory(void **state)
{
    enum who who = (enum who)(uintptr_t)*state;
    char target[512];
    struct job job = {.script = "cat data/hello > out", .targets = {target}};

    case_begin(who);
    path_in(target, "data");
    assert_int_equal(mkdir(target, 0755), 0);
    if (who != ROOT && geteuid() == 0)
        assert_int_equal(chown(target, NOBODY, NOBODY), 0);
    assert_int_equal(finish_run(start(who, &job)), 0);
    assert_string_equal(content("out"), hello);
    case_end(who);
}

/* The wrapper is killed: the command goes on with its datastore, and the server ends after it. */
static void test_wrapper_killed(void **state)
{
    enum who who = (enum who)(uintptr_t)*state;
    char target[512];
    struct job job = {.script = "echo up > up; while ! test -e go; do sleep 0.02; done;"
                                "cat $PWD/data/hello > out",
                      .targets = {target}};

    case_begin(who);
    path_in(target, "data");
    assert_int_equal(mkdir(target, 0755), 0);
    if (who != ROOT && geteuid() == 0)
        assert_int_equal(chown(target, NOBODY, NOBODY), 0);
    pid_t pid = start(who, &job);
    await_content("up", "up\n");
    assert_int_not_equal(live_server(who), 0);
    assert_int_equal(kill(pid, SIGKILL), 0);
    assert_int_equal(finish(pid), 1000 + SIGKILL);
    pause_ms(50);
    assert_int_not_equal(live_server(who), 0);
    put("go", "");
    await_content("out", hello);
    case_end(who);
}

/* What the command leaves behind keeps the datastore. */
static void test_left_behind(void **state)
{
    enum who who = (enum who)(uintptr_t)*state;
    struct job job = {.script = "(while ! test -e go; do sleep 0.02; done;"
                                "cat /datastores/one/hello > out) & exit 0",
                      .targets = {"/datastores/one"}};

    case_begin(who);
    assert_int_equal(finish_run(start(who, &job)), 0);
    assert_int_not_equal(live_server(who), 0);
    put("go", "");
    await_content("out", hello);
    case_end(who);
}

/* The process below a supervisor that serves, once there is one that is not `old`. */
static pid_t await_child(pid_t supervisor, pid_t old)
{
    char path[64];

    (void)snprintf(path, sizeof path, "/proc/%d/task/%d/children", supervisor, supervisor);
    for (int waited = 0; waited < WAIT_MS; waited += 10) {
        char text[64] = "";
        AUTO(close_fd) int fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd >= 0 && file_read(fd, text, sizeof text - 1) > 0 && strtol(text, NULL, 10) != old)
            return (pid_t)strtol(text, NULL, 10);
        pause_ms(10);
    }
    fail_msg("no server below %d", supervisor);
    return 0;
}

enum victim { KILL_CHILD, KILL_SUPERVISOR, KILL_BOTH };

static void kill_server(enum who who, enum victim victim)
{
    pid_t supervisor = live_server(who);

    assert_int_not_equal(supervisor, 0);
    pid_t child = await_child(supervisor, 0);
    if (victim != KILL_CHILD)
        assert_int_equal(kill(supervisor, SIGKILL), 0);
    if (victim != KILL_SUPERVISOR)
        assert_int_equal(kill(child, SIGKILL), 0);
    for (int waited = 0; victim == KILL_SUPERVISOR && live_server(who) != child; waited += 10) {
        if (waited > WAIT_MS)
            fail_msg("the child did not take the record over");
        pause_ms(10);
    }
    if (victim == KILL_CHILD) {
        (void)await_child(supervisor, child);
        assert_int_equal(live_server(who), supervisor);
    }
}

static void lose(enum who who, enum victim victim, int code, const char *out)
{
    struct job job = {.script = "echo up > up; while ! test -e go; do sleep 0.02; done;"
                                "cat /datastores/one/hello > out 2>/dev/null || exit 9",
                      .targets = {"/datastores/one"}};

    case_begin(who);
    pid_t pid = start(who, &job);
    await_content("up", "up\n");
    kill_server(who, victim);
    if (victim == KILL_BOTH)
        await_no_server(who);
    put("go", "");
    assert_int_equal(finish(pid), code);
    assert_string_equal(content("out"), out);
    case_end(who);
}

static void test_child_killed(void **state)
{
    lose((enum who)(uintptr_t)*state, KILL_CHILD, 0, hello);
}

static void test_supervisor_killed(void **state)
{
    lose((enum who)(uintptr_t)*state, KILL_SUPERVISOR, 0, hello);
}

static void test_both_killed(void **state)
{
    lose((enum who)(uintptr_t)*state, KILL_BOTH, 9, "");
}

static void test_signals(void **state)
{
    enum who who = (enum who)(uintptr_t)*state;
    struct job traps = {.script = "trap 'exit 42' TERM; trap 'echo usr1 > got' USR1; echo up > up;"
                                  "while :; do sleep 0.02; done",
                        .targets = {"/datastores/one"}};
    struct job dies = {.script = "echo up2 > up; exec sleep 1000", .targets = {"/datastores/one"}};

    case_begin(who);
    pid_t pid = start(who, &traps);
    await_content("up", "up\n");
    assert_int_equal(kill(pid, SIGUSR1), 0);
    await_content("got", "usr1\n");
    assert_int_equal(kill(pid, SIGTERM), 0);
    assert_int_equal(finish(pid), 42);

    pid = start(who, &dies);
    await_content("up", "up2\n");
    assert_int_equal(kill(pid, SIGINT), 0);
    assert_int_equal(finish(pid), 128 + SIGINT);
    case_end(who);
}

static void expect_failure(enum who who, const struct job *job, int code, const char *sentence)
{
    char expect[32];

    assert_int_equal(finish(start(who, job)), 200);
    (void)snprintf(expect, sizeof expect, "%d %d ", code,
                   code == ENOENT && job->argv0 ? 127
                   : code == EACCES             ? 126
                                                : 0);
    if (strncmp(content("error"), expect, strlen(expect)) != 0 ||
        !strstr(content("error"), sentence))
        fail_msg("not %d, %s: %s", code, sentence, content("error"));
    await_no_server(who);
}

static void test_failures(void **state)
{
    enum who who = (enum who)(uintptr_t)*state;
    char inside[512];

    case_begin(who);
    expect_failure(who, &(struct job){.targets = {"/datastores/one"}, .argv0 = "no-such-command"},
                   ENOENT, "cannot run no-such-command");
    expect_failure(who, &(struct job){.targets = {"/datastores/one"}, .argv0 = "/etc/passwd"},
                   EACCES, "cannot run /etc/passwd");
    expect_failure(who, &(struct job){.targets = {"/datastores/one"}, .fail_serve = true}, EPROTO,
                   "this version is damaged");
    expect_failure(who, &(struct job){.targets = {"/datastores/one", "/datastores/one/two"}},
                   EINVAL, "cannot both be mount points");
    expect_failure(who, &(struct job){.targets = {"/"}}, EINVAL, "cannot be mounted at /");
    expect_failure(who, &(struct job){.targets = {"datastores/one"}}, EINVAL,
                   "not an absolute path");
    expect_failure(who, &(struct job){.targets = {"/etc/passwd"}}, ENOTDIR, "no directory");
    expect_failure(who, &(struct job){.targets = {"/none/../x"}}, EINVAL, "/none/../x");
    path_in(inside, "missing/data");
    expect_failure(who, &(struct job){.targets = {inside}}, ENOENT, "does not exist; make it");
    case_end(who);
}

/* Directories that cannot be written to by the caller may get a new one. */
static void test_new_directory_below_a_foreign_one(void **state)
{
    enum who who = (enum who)(uintptr_t)*state;
    struct job job = {.script = "cat /usr/gridtest/a/hello > out; ls -d /usr/bin/env >> out",
                      .targets = {"/usr/gridtest/a"}};

    case_begin(who);
    assert_int_equal(finish_run(start(who, &job)), 0);
    assert_string_equal(content("out"), "hello\n/usr/bin/env\n");
    assert_int_not_equal(access("/usr/gridtest", F_OK), 0);
    case_end(who);
}

static void test_blocked(void **state)
{
    struct job job = {.script = "true", .targets = {"/datastores/one"}};

    case_begin(USER_BLOCKED);
    expect_failure(USER_BLOCKED, &job, EPERM, "user namespace");
    case_end(USER);
}

/* ---- mounts in view of all
 * ----------------------------------------------------------------------------------- */

enum act { ACT_MOUNT, ACT_UNMOUNT, ACT_UNMOUNT_LAZY };

static int act(enum who who, enum act what, const char *mountpoint, struct err *ret_err)
{
    int fds[2], code = 1;
    assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        struct err err = ERR_INIT;
        struct attach_item item = {
            .serve = serve,
            .record = {.name = "shown", .version = 3, .cluster = "a b%", .mode = "fuse"}};
        become(who);
        (void)snprintf(item.record.mountpoint, sizeof item.record.mountpoint, "%s", mountpoint);
        code = what == ACT_MOUNT ? attach_serve_background(&item, &err)
                                 : attach_unmount(mountpoint, what == ACT_UNMOUNT_LAZY, &err);
        _exit(file_write(fds[1], &code, sizeof code) < 0 ||
              file_write(fds[1], &err, sizeof err) < 0);
    }
    (void)close(fds[1]);
    assert_int_equal(file_read(fds[0], &code, sizeof code), sizeof code);
    assert_int_equal(file_read(fds[0], ret_err, sizeof *ret_err), sizeof *ret_err);
    (void)close(fds[0]);
    assert_int_equal(finish(pid), 0);
    return code;
}

static void test_background(void **state)
{
    enum who who = (enum who)(uintptr_t)*state;
    char target[512], file[600];
    struct err err;
    struct stat st;

    case_begin(who);
    path_in(target, "data");
    assert_int_equal(mkdir(target, 0755), 0);
    if (who != ROOT && geteuid() == 0)
        assert_int_equal(chown(target, NOBODY, NOBODY), 0);
    put("data/in-the-way", "");
    assert_int_equal(act(who, ACT_MOUNT, target, &err), -ENOTEMPTY);
    path_in(file, "data/in-the-way");
    assert_int_equal(unlink(file), 0);
    assert_int_equal(act(who, ACT_UNMOUNT, target, &err), -EINVAL);

    assert_int_equal(act(who, ACT_MOUNT, "data", &err), 0);
    assert_int_equal(act(who, ACT_MOUNT, target, &err), -EBUSY);
    if (who == ROOT) {
        assert_string_equal(content("data/hello"), hello);
        path_in(file, "data/hello");
        int fd = open(file, O_RDONLY | O_CLOEXEC);
        assert_true(fd >= 0);
        assert_int_equal(act(who, ACT_UNMOUNT, target, &err), -EBUSY);
        assert_int_equal(close(fd), 0);
    }
    assert_int_equal(act(who, ACT_UNMOUNT, target, &err), 0);
    assert_int_equal(live_server(who), 0);

    /* A server that is asked to end takes its mount along. */
    assert_int_equal(act(who, ACT_MOUNT, target, &err), 0);
    assert_int_equal(kill(live_server(who), SIGTERM), 0);
    await_no_server(who);
    assert_int_equal(act(who, ACT_UNMOUNT, target, &err), -EINVAL);

    /* The same where the supervisor is gone. */
    assert_int_equal(act(who, ACT_MOUNT, target, &err), 0);
    kill_server(who, KILL_SUPERVISOR);
    assert_int_equal(kill(live_server(who), SIGTERM), 0);
    await_no_server(who);
    assert_int_equal(act(who, ACT_UNMOUNT, target, &err), -EINVAL);

    /* A dead server's mount goes away with the next look. */
    assert_int_equal(act(who, ACT_MOUNT, target, &err), 0);
    kill_server(who, KILL_CHILD);
    kill_server(who, KILL_BOTH);
    for (int waited = 0; stat(target, &st) < 0; waited += 10) {
        if (waited > WAIT_MS)
            fail_msg("the mount of a dead server stays");
        await_no_server(who); /* which looks; perhaps the server is only dying */
        pause_ms(10);
    }
    case_end(who);
}

static void test_records(void **state)
{
    enum who who = (enum who)(uintptr_t)*state;
    char target[512], path[600], name[64], good[8192];
    struct err err;

    case_begin(who);
    path_in(target, "da ta");
    assert_int_equal(mkdir(target, 0755), 0);
    if (who != ROOT && geteuid() == 0)
        assert_int_equal(chown(target, NOBODY, NOBODY), 0);
    assert_int_equal(act(who, ACT_MOUNT, target, &err), 0);
    pid_t server = live_server(who);
    assert_int_not_equal(server, 0);

    path_in(path, "mounts");
    DIR *d = opendir(path);
    struct dirent *e;
    name[0] = '\0';
    while (d && (e = readdir(d)) != NULL) {
        if (e->d_name[0] != '.')
            (void)snprintf(name, sizeof name, "mounts/%.40s", e->d_name);
    }
    assert_non_null(d);
    closedir(d);
    (void)snprintf(good, sizeof good, "%s", content(name));
    assert_non_null(strstr(good, "cluster=a%20b%25\n"));
    assert_non_null(strstr(good, "/da%20ta\n"));

    /* Each of these is no record, and none makes us unmount anything. */
    char bad[8200];
    for (size_t i = 0; i < strlen(good); i += 7) {
        (void)snprintf(bad, sizeof bad, "%.*s", (int)i, good);
        put(name, bad);
        assert_int_equal(live_server(who), 0);
    }
    (void)snprintf(bad, sizeof bad, "%.8000sversion=3\n", good);
    put(name, bad);
    assert_int_equal(live_server(who), 0);
    put(name, good);
    assert_int_equal(live_server(who), server);
    assert_int_equal(act(who, ACT_UNMOUNT, target, &err), 0);
    case_end(who);
}

static void test_runtime_dir(void **state)
{
    char path[4096], link_path[512], old[512];
    struct err err = ERR_INIT;

    case_begin(geteuid() == 0 ? ROOT : USER);
    path_in(link_path, "link");
    path_in(old, "real");
    assert_int_equal(mkdir(old, 0755), 0);
    assert_int_equal(symlink(old, link_path), 0);
    assert_int_equal(setenv("GRID_RUNTIME_DIR", link_path, 1), 0);
    assert_int_equal(attach_runtime_dir(path, sizeof path, &err), -ENOTDIR);
    assert_int_equal(setenv("GRID_RUNTIME_DIR", old, 1), 0);
    assert_int_equal(attach_runtime_dir(path, sizeof path, &err), 0);
    struct stat st;
    assert_int_equal(stat(old, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0700);
    assert_int_equal(setenv("GRID_RUNTIME_DIR", "relative", 1), 0);
    assert_int_equal(attach_runtime_dir(path, sizeof path, NULL), -EINVAL);
    if (geteuid() == 0) {
        assert_int_equal(chown(old, NOBODY, NOBODY), 0);
        assert_int_equal(setenv("GRID_RUNTIME_DIR", old, 1), 0);
        assert_int_equal(attach_runtime_dir(path, sizeof path, NULL), -EPERM);
    }
    case_end(geteuid() == 0 ? ROOT : USER);
}

#define AS(test, who)                                                                              \
    {                                                                                              \
#test " as " #who, test, NULL, NULL, (void *)(uintptr_t)(who)                              \
    }
#define AS_ALL(test) AS(test, ROOT), AS(test, USER), AS(test, USER_HELPED)

int main(void)
{
    const struct CMUnitTest tests[] = {
        AS_ALL(test_run),
        AS_ALL(test_existing_directory),
        AS(test_existing_directory, USER_BLOCKED),
        AS_ALL(test_wrapper_killed),
        AS(test_wrapper_killed, USER_BLOCKED),
        AS_ALL(test_left_behind),
        AS_ALL(test_child_killed),
        AS_ALL(test_supervisor_killed),
        AS_ALL(test_both_killed),
        AS_ALL(test_signals),
        AS_ALL(test_failures),
        AS(test_new_directory_below_a_foreign_one, USER),
        AS(test_blocked, USER_BLOCKED),
        AS(test_background, ROOT),
        AS(test_background, USER_BLOCKED),
        AS(test_records, ROOT),
        AS(test_records, USER_BLOCKED),
        cmocka_unit_test(test_runtime_dir),
    };

    (void)snprintf(top, sizeof top, "/tmp/grid-test-attach-XXXXXX");
    if (!mkdtemp(top) || chmod(top, 0755) < 0)
        return 1;
    if (give_device() < 0) {
        (void)fprintf(stderr, "cannot make a /dev/fuse for users\n");
        return 1;
    }
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    if (rmdir(top) < 0)
        (void)fprintf(stderr, "%s is left for you to look at\n", top);
    return failed;
}
