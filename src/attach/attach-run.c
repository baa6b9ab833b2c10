/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Running a command with datastores attached, in the best way that the machine allows:
 *
 *   1. a mount namespace (in a user namespace unless we are root) in which we mount /dev/fuse
 * itself;
 *   2. the same, but fusermount3 mounts, at a private place, and the namespace binds that;
 *   3. no namespace: fusermount3 mounts at a directory of the user's, in view of all.
 *
 * In 1 and 2 the mounts belong to nobody but the namespace: the kernel drops them with its last
 * process, tells the servers, and they end. So nothing depends on this process, which only passes
 * signals on and waits for the command. In 3 the servers watch the command.
 *
 * A session without a terminal has no command: the child itself stays, and we leave.
 */
#include "attach/attach-internal.h"

#include <fcntl.h>
#include <linux/capability.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#define ITEMS_MAX 64
/* A shared server that ends just when it is asked is asked for anew. */
#define AGAIN_MAX 20
/* After the command has ended its servers follow, unless it left processes behind. */
#define SERVERS_GONE_MS 500
/* A program that Ctrl-Z stops has stopped by then. */
#define STOPS_WITHIN_MS 100

enum way { WAY_SHARED, WAY_ROOT, WAY_USER, WAY_FUSERMOUNT, WAY_VISIBLE };

/* How far a child came; decides what is tried next. */
enum stage { STAGE_SHARED = 1, STAGE_NAMESPACE, STAGE_FUSE, STAGE_EXEC, STAGE_FINAL };

struct failure {
    int code;
    int stage;
    char sentence[sizeof((struct err *)0)->text];
};

struct run {
    struct attach_item *items;
    size_t count;
    char *const *argv;             /* NULL: the child stays without one */
    const char *session;           /* its name; NULL: a run */
    pid_t parent;                  /* this process, for its child */
    bool is_job;                   /* of a batch system: the child, not this process, is wanted */
    pid_t child;                   /* the last one */
    struct attach_place *places;   /* one for each item */
    struct attach_server *servers; /* one for each item, of this attempt */
    int links[ITEMS_MAX];          /* WAY_SHARED: to the shared servers instead */
    int flat_fds[ITEMS_MAX];       /* in the child: below what the kernel mounts */
    char stage_dir[ATTACH_PATH_MAX];
    char private_dir[ATTACH_PATH_MAX];
    char (*private_places)[ATTACH_PATH_MAX]; /* WAY_FUSERMOUNT: one for each item */
    char *cwd;
    sigset_t old_mask;
    struct sigaction old_chld;
};

/* ---- the child: becomes the command
 * ----------------------------------------------------------------- */

static int command_all(struct run *run, enum attach_kind kind, int fd, struct err *err)
{
    for (size_t i = 0; i < run->count; i++) {
        const char *place = kind == ATTACH_PRIVATE ? run->private_places[i] : run->places[i].path;
        int c = attach_server_command(&run->servers[i], kind, place, fd);
        if (c < 0)
            return err_fail(err, c, "the server of %s:%u died", run->items[i].record.name,
                            run->items[i].record.version);
    }
    return 0;
}

static int wait_all(struct run *run, struct err *err)
{
    int c = 0;

    for (size_t i = 0; c == 0 && i < run->count; i++)
        c = attach_server_wait(&run->servers[i], &run->items[i].record, err);
    return c;
}

/* Way 1: everything is made in here. */
static int mount_inside(struct run *run, int *ret_stage, struct err *err)
{
    for (size_t i = 0; i < run->count; i++) {
        AUTO(close_fd) int fd = -1;
        const struct attach_record *r = &run->items[i].record;
        const char *path = run->places[i].path;
        *ret_stage = r->kernel ? STAGE_FINAL : STAGE_FUSE;
        int c = r->kernel ? attach_flat_mount(r, &run->flat_fds[i], &fd, err)
                          : attach_fuse_mount(r, path, &fd, err);
        if (c < 0)
            return c;
        *ret_stage = STAGE_FINAL;
        c = attach_server_command(&run->servers[i], ATTACH_NAMESPACE, path, fd);
        if (c < 0)
            return err_fail(err, c, "the server of %s:%u died", run->items[i].record.name,
                            run->items[i].record.version);
    }
    int c = wait_all(run, err);
    for (size_t i = 0; c == 0 && i < run->count; i++) {
        const struct attach_record *r = &run->items[i].record;
        if (r->kernel)
            c = attach_kernel_show(r, run->flat_fds[i], run->places[i].path, err);
    }
    return c;
}

/* From the servers that all jobs share. */
static int join_inside(struct run *run, int *ret_stage, struct err *err)
{
    int c = 0;

    *ret_stage = STAGE_SHARED;
    for (size_t i = 0; c == 0 && i < run->count; i++)
        c = attach_link_join(run->links[i], &run->items[i], run->places[i].path, err);
    return c;
}

static int bind_inside(struct run *run, struct err *err)
{
    for (size_t i = 0; i < run->count; i++) {
        const char *from = run->private_places[i], *to = run->places[i].path;
        if (mount(from, to, NULL, MS_BIND, NULL) < 0)
            return err_fail(err, -errno, "cannot bind %s to %s: %s", from, to, strerror(errno));
    }
    return 0;
}

static int arrange(struct run *run, enum way way, int *ret_stage, struct err *err)
{
    int c = 0;

    *ret_stage = STAGE_FINAL;
    if (way == WAY_VISIBLE) {
        AUTO(close_fd) int self = (int)syscall(SYS_pidfd_open, getpid(), 0);
        if (self < 0)
            return err_fail(err, -errno, "cannot open a pidfd: %s", strerror(errno));
        c = command_all(run, ATTACH_UNTIL, self, err);
        return c == 0 ? wait_all(run, err) : c;
    }
    if (way == WAY_FUSERMOUNT) {
        /* Before there is a namespace, for fusermount3 may mount in the caller's only. */
        c = command_all(run, ATTACH_PRIVATE, -1, err);
        if (c == 0)
            c = wait_all(run, err);
        if (c < 0)
            return c;
    }
    *ret_stage = STAGE_NAMESPACE;
    c = attach_namespace_enter(way != WAY_ROOT && way != WAY_SHARED, err);
    if (c < 0)
        return c;
    *ret_stage = STAGE_FINAL;
    c = attach_places_make(run->places, run->count, run->stage_dir, err);
    for (size_t i = 0; c == 0 && i < run->count; i++) {
        const struct attach_user *user = run->items[i].record.user;
        if (user && user->uid != 0)
            c = attach_place_pin(&run->places[i], user->uid, err);
    }
    if (c == 0)
        c = way == WAY_SHARED       ? join_inside(run, ret_stage, err)
            : way == WAY_FUSERMOUNT ? bind_inside(run, err)
                                    : mount_inside(run, ret_stage, err);
    if (c == 0 && chdir(run->cwd) < 0)
        c = err_fail(err, -errno, "cannot go to the working directory %s: %s", run->cwd,
                     strerror(errno));
    return c;
}

/* In a user namespace of our own we have all rights, which a program that is executed has not: so
 * its equals inside, who may not look at more than they are, can find and end us. */
static void become_ordinary(void)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct none[_LINUX_CAPABILITY_U32S_3] = {{0}};

    (void)syscall(SYS_capset, &header, none); /* giving up is never refused */
    (void)prctl(PR_SET_DUMPABLE, 1);
}

/* A session's first process, where nobody sits at a terminal: there until it is told to end. */
static _Noreturn void stay(int status_fd)
{
    AUTO(close_fd) int null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    sigset_t none;

    (void)sigemptyset(&none); /* valid arguments, all of them */
    (void)signal(SIGHUP, SIG_DFL);
    (void)signal(SIGTERM, SIG_DFL);
    (void)sigprocmask(SIG_SETMASK, &none, NULL);
    (void)prctl(PR_SET_NAME, "grid-hold"); /* a name for people */
    if (geteuid() != 0)
        become_ordinary();
    if (null_fd < 0 || dup2(null_fd, 0) < 0 || dup2(null_fd, 1) < 0 || dup2(null_fd, 2) < 0 ||
        chdir("/") < 0)
        _exit(1);
    (void)close(status_fd); /* tells the caller that all is well */
    /* What is open is the caller's: who reads its output must see the end of it. */
    (void)syscall(SYS_close_range, 3u, ~0u, 0u);
    for (;;)
        (void)pause();
}

static void child_main(struct run *run, enum way way, int status_fd)
{
    struct failure f = {.stage = STAGE_FINAL};
    struct err err = ERR_INIT;

    (void)sigaction(SIGCHLD, &run->old_chld, NULL);       /* as it was: cannot fail */
    (void)sigprocmask(SIG_SETMASK, &run->old_mask, NULL); /* as it was: cannot fail */
    if (!run->argv && setsid() < 0)
        _exit(1);
    if (run->is_job && (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0 || getppid() != run->parent))
        _exit(1);
    f.code = arrange(run, way, &f.stage, &err);
    if (f.code == 0 && run->session)
        f.code = attach_session_note(run->session, way != WAY_VISIBLE, &err);
    if (f.code == 0 && !run->argv)
        stay(status_fd);
    if (f.code == 0) {
        (void)execvp(run->argv[0], run->argv);
        f.stage = STAGE_EXEC;
        f.code = err_fail(&err, -errno, "cannot run %s: %s", run->argv[0], strerror(errno));
    }
    (void)snprintf(f.sentence, sizeof f.sentence, "%s", err_text(&err, f.code));
    (void)!write(status_fd, &f, sizeof f); /* one write, less than a pipe holds */
    _exit(1);
}

/* ---- the parent: waits and passes signals on
 * ----------------------------------------------------------- */

static const int passed_on[] = {SIGTERM, SIGINT,   SIGHUP,  SIGQUIT, SIGUSR1,
                                SIGUSR2, SIGWINCH, SIGTSTP, SIGCONT, SIGALRM};

static void watched_signals(sigset_t *ret)
{
    (void)sigemptyset(ret); /* valid arguments, all of them */
    (void)sigaddset(ret, SIGCHLD);
    for (size_t i = 0; i < sizeof passed_on / sizeof passed_on[0]; i++)
        (void)sigaddset(ret, passed_on[i]);
}

/* Has it stopped since this was asked last? */
static bool has_stopped(pid_t child)
{
    siginfo_t info = {.si_pid = 0};

    return waitid(P_PID, (id_t)child, &info, WSTOPPED | WNOHANG) == 0 && info.si_pid == child;
}

/* Where a shell has job control, it waits for us to stop with the command, and continues both;
 * elsewhere nobody would continue us. */
static void stop_too(void)
{
    AUTO(close_fd) int tty_fd = open("/dev/tty", O_RDONLY | O_CLOEXEC | O_NOCTTY);

    if (tty_fd >= 0)
        (void)raise(SIGSTOP); /* a valid number */
}

/* What the terminal sends it sends to the whole foreground group, the command among it. Ctrl-Z: we
 * stop behind the command, so that it is not found stopped once more when both go on; one that does
 * not stop (a shell within vfork) keeps nobody waiting. */
static void pass_on(pid_t child, const struct signalfd_siginfo *info)
{
    int number = (int)info->ssi_signo;

    if (info->ssi_code != SI_KERNEL) {
        (void)kill(child, number); /* it may just have ended */
        return;
    }
    for (int i = 0; number == SIGTSTP && i < STOPS_WITHIN_MS && !has_stopped(child); i++)
        (void)poll(NULL, 0, 1);
    if (number == SIGTSTP)
        stop_too();
}

/* Wait for the child; `*ret_failure` (code 0: none) tells why the command was not started. With
 * `started_is_enough`, until it was. */
static int watch(pid_t child, int signal_fd, int status_fd, bool started_is_enough,
                 struct failure *ret_failure)
{
    struct pollfd p[2] = {{.fd = signal_fd, .events = POLLIN}, {.fd = status_fd, .events = POLLIN}};
    struct signalfd_siginfo info;
    int status;

    ret_failure->code = 0;
    for (;;) {
        if (poll(p, 2, -1) < 0) {
            if (errno == EINTR)
                continue;
            return -errno;
        }
        if (p[1].fd >= 0 && p[1].revents) {
            struct failure f;
            if (read(status_fd, &f, sizeof f) == (ssize_t)sizeof f)
                *ret_failure = f;
            else if (started_is_enough)
                return 0;
            p[1].fd = -1; /* poll() leaves it out */
        }
        if (!p[0].revents || read(signal_fd, &info, sizeof info) != (ssize_t)sizeof info)
            continue;
        if (info.ssi_signo != SIGCHLD) {
            pass_on(child, &info);
            continue;
        }
        if (has_stopped(child))
            stop_too();
        if (waitpid(child, &status, WNOHANG) != child)
            continue;
        if (p[1].fd >= 0) {
            struct failure f;
            if (read(status_fd, &f, sizeof f) == (ssize_t)sizeof f)
                *ret_failure = f;
        }
        return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
    }
}

static void close_links(struct run *run)
{
    for (size_t i = 0; i < run->count; i++) {
        int fd = take_fd(&run->links[i]);
        if (fd >= 0)
            (void)close(fd); /* a socket: nothing to lose */
    }
}

static int open_links(struct run *run, struct err *err)
{
    int c = 0;

    for (size_t i = 0; c == 0 && i < run->count; i++)
        c = attach_link_open(&run->items[i], &run->links[i], err);
    if (c < 0)
        close_links(run);
    return c;
}

static int start_servers(struct run *run, struct err *err)
{
    for (size_t i = 0; i < run->count; i++) {
        int c =
            attach_server_start(&run->items[i].record, run->items[i].serve, run->items[i].serve_ctx,
                                run->servers, i, &run->servers[i], err);
        if (c < 0)
            return c;
    }
    return 0;
}

static void close_servers(struct run *run)
{
    for (size_t i = 0; i < run->count; i++)
        attach_server_close(&run->servers[i]);
}

/* Those that are mounted still are their servers' to remove. */
static void remove_private_places(struct run *run)
{
    for (size_t i = 0; i < run->count; i++) {
        if (run->private_places[i][0])
            (void)rmdir(run->private_places[i]); /* the server may have done it */
    }
}

static int make_private_places(struct run *run, struct err *err)
{
    for (size_t i = 0; i < run->count; i++) {
        int n = snprintf(run->private_places[i], ATTACH_PATH_MAX, "%s/XXXXXX", run->private_dir);
        if (n < 0 || n >= ATTACH_PATH_MAX || !mkdtemp(run->private_places[i])) {
            int c = n >= ATTACH_PATH_MAX ? -ENAMETOOLONG : -errno;
            run->private_places[i][0] = '\0';
            return err_fail(err, c, "cannot make a directory in %s: %s", run->private_dir,
                            strerror(-c));
        }
    }
    return 0;
}

/* One attempt. 0: the command ran. */
static int attempt(struct run *run, enum way way, int signal_fd, int *ret_stage, int *ret_exit,
                   struct err *err)
{
    struct failure failure;
    int fds[2];
    int c = way == WAY_FUSERMOUNT ? make_private_places(run, err) : 0;

    *ret_stage = STAGE_FINAL;
    if (c < 0)
        return c;
    c = way == WAY_SHARED ? open_links(run, err) : start_servers(run, err);
    if (c < 0)
        return c;
    if (pipe2(fds, O_CLOEXEC) < 0)
        return err_fail(err, -errno, "cannot make a pipe: %s", strerror(errno));
    AUTO(close_fd) int status_fd = fds[0];
    AUTO(close_fd) int child_fd = fds[1];
    pid_t child = fork();
    if (child < 0)
        return err_fail(err, -errno, "cannot start a process: %s", strerror(errno));
    if (child == 0)
        child_main(run, way, child_fd);
    run->child = child;
    (void)close(take_fd(&child_fd)); /* the child's end: its exec is our end of file */
    for (size_t i = 0; i < run->count; i++)
        attach_server_let_go(&run->servers[i]);
    int code = watch(child, signal_fd, status_fd, run->argv == NULL, &failure);
    for (size_t i = 0; run->argv && i < run->count; i++) /* or processes were left */
        (void)(way == WAY_SHARED ? attach_link_ended(run->links[i], SERVERS_GONE_MS)
                                 : attach_server_gone(&run->servers[i], SERVERS_GONE_MS));
    if (code < 0)
        return err_fail(err, code, "cannot wait for the command: %s", strerror(-code));
    if (failure.code < 0) {
        *ret_stage = failure.stage;
        if (failure.stage == STAGE_EXEC)
            *ret_exit = failure.code == -ENOENT ? 127 : 126;
        return err_fail(err, failure.code, "%s", failure.sentence);
    }
    *ret_exit = code;
    return 0;
}

/* ---- choosing the way
 * ------------------------------------------------------------------------------------ */

/* Every item stands on a directory that exists and is the user's own: the last resort is open. */
static bool can_be_visible(const struct run *run)
{
    struct stat st;

    for (size_t i = 0; i < run->count; i++) {
        const struct attach_place *p = &run->places[i];
        if (p->path[p->anchor_length] || stat(p->path, &st) < 0 || st.st_uid != geteuid())
            return false;
    }
    return true;
}

static int choose(struct run *run, int signal_fd, int *ret_exit, struct err *err)
{
    unsigned again = 0;
    enum way way = geteuid() == 0                          ? WAY_SHARED
                   : access("/dev/fuse", R_OK | W_OK) == 0 ? WAY_USER
                                                           : WAY_FUSERMOUNT;
    for (;;) {
        struct err e = ERR_INIT;
        int stage;
        int c = attempt(run, way, signal_fd, &stage, ret_exit, &e);
        close_servers(run);
        close_links(run);
        if (way == WAY_FUSERMOUNT)
            remove_private_places(run);
        if (c == 0)
            return 0;
        if (way == WAY_SHARED && c == -EAGAIN && stage == STAGE_SHARED && ++again < AGAIN_MAX)
            continue; /* the server ended meanwhile */
        if (way == WAY_SHARED && (c == -EOPNOTSUPP || stage == STAGE_NAMESPACE)) {
            way = WAY_ROOT;
            continue;
        }
        if (run->is_job && stage == STAGE_NAMESPACE)
            return err_fail(err, c, "%s", err_text(&e, c));
        if (way == WAY_ROOT && stage == STAGE_NAMESPACE)
            way = WAY_USER; /* root without its powers, in a container */
        else if (way == WAY_USER && stage == STAGE_FUSE)
            way = WAY_FUSERMOUNT;
        else if (way != WAY_VISIBLE && stage == STAGE_NAMESPACE && can_be_visible(run))
            way = WAY_VISIBLE;
        else
            return err_fail(err, c, "%s", err_text(&e, c));
    }
}

static int prepare(struct run *run, struct err *err)
{
    int c = attach_runtime_sub("root", run->stage_dir, err);

    if (c == 0)
        c = attach_runtime_sub("mnt", run->private_dir, err);
    for (size_t i = 0; c == 0 && i < run->count; i++) {
        struct attach_record *r = &run->items[i].record;
        c = attach_place_find(run->items[i].target, &run->places[i], err);
        if (c == 0)
            memcpy(r->mountpoint, run->places[i].path, sizeof r->mountpoint);
        if (c == 0 && !r->run[0]) /* a name is what tells a run from a mount in view of all */
            (void)snprintf(r->run, sizeof r->run, "run-%d", (int)getpid());
    }
    if (c == 0)
        c = attach_places_check(run->places, run->count, err);
    return c;
}

static int watch_and_choose(struct run *run, int *ret_exit, struct err *err)
{
    sigset_t watched;
    struct sigaction chld = {.sa_handler = SIG_DFL};
    int c;

    watched_signals(&watched);
    if (sigprocmask(SIG_BLOCK, &watched, &run->old_mask) < 0 ||
        sigaction(SIGCHLD, &chld, &run->old_chld) < 0)
        return err_fail(err, -errno, "cannot watch signals: %s", strerror(errno));
    AUTO(close_fd) int signal_fd = signalfd(-1, &watched, SFD_CLOEXEC);
    if (signal_fd < 0)
        c = err_fail(err, -errno, "cannot watch signals: %s", strerror(errno));
    else
        c = choose(run, signal_fd, ret_exit, err);
    (void)sigaction(SIGCHLD, &run->old_chld, NULL);       /* as it was: cannot fail */
    (void)sigprocmask(SIG_SETMASK, &run->old_mask, NULL); /* as it was: cannot fail */
    return c;
}

/* `ret_job`: NULL, or where the child goes that holds a job. */
static int run_items(struct attach_item *items, size_t count, char *const argv[], pid_t *ret_job,
                     int *ret_exit, struct err *err)
{
    if (count == 0 || count > ITEMS_MAX)
        return err_fail(err, -EINVAL, "between 1 and %d datastores can be attached", ITEMS_MAX);
    AUTO(free_ptr) struct attach_place *places = calloc(count, sizeof *places);
    AUTO(free_ptr) struct attach_server *servers = calloc(count, sizeof *servers);
    AUTO(free_ptr) char(*private_places)[ATTACH_PATH_MAX] = calloc(count, ATTACH_PATH_MAX);
    AUTO(free_ptr) char *cwd = getcwd(NULL, 0);
    if (!cwd)
        return err_fail(err, -errno, "cannot tell the working directory: %s", strerror(errno));
    if (!places || !servers || !private_places)
        return err_fail(err, -ENOMEM, "not enough memory");
    struct run run = {.items = items,
                      .count = count,
                      .argv = argv,
                      .is_job = ret_job != NULL,
                      .parent = getpid(),
                      .places = places,
                      .servers = servers,
                      .private_places = private_places,
                      .cwd = cwd};
    for (size_t i = 0; i < count; i++) {
        servers[i] = (struct attach_server)ATTACH_SERVER_NONE;
        run.links[i] = -1;
    }
    int c = prepare(&run, err);
    if (c < 0)
        return c;

    run.session = attach_session_name(&items[0].record);
    if (run.session)
        c = attach_session_claim(run.session, err);
    if (c < 0)
        return c;
    c = watch_and_choose(&run, ret_exit, err);
    if (run.session && (argv || c < 0))
        attach_session_drop(run.session);
    if (c == 0 && ret_job)
        *ret_job = run.child;
    return c;
}

int attach_run(struct attach_item *items, size_t count, char *const argv[], int *ret_exit,
               struct err *err)
{
    return run_items(items, count, argv, NULL, ret_exit, err);
}

int attach_hold(struct attach_item *items, size_t count, struct err *err)
{
    int exit_code;

    return run_items(items, count, NULL, NULL, &exit_code, err);
}

int attach_hold_job(struct attach_item *items, size_t count, pid_t *ret_pid, struct err *err)
{
    int exit_code;

    if (geteuid() != 0)
        return err_fail(err, -EPERM, "only root attaches for others");
    return run_items(items, count, NULL, ret_pid, &exit_code, err);
}
