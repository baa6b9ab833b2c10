/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sessions: runs with a name that others can enter and end.
 *
 * A session is the processes in its mount namespace, and nothing else: no process watches it.
 * <runtime>/sessions/NAME holds one line, "pid start space": its first process, and the inode of
 * the namespace, by which all others are found; 0 where there is none (docs/attaching.md, way 3),
 * and while the session is being made. The number of a namespace that is gone may be given out
 * again, so the line is believed only while its first process or one of its servers lives.
 */
#include "attach/attach-internal.h"

#include "base/file.h"

#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#define LINE_MAX_SIZE 128u
/* How long SIGKILL may take (a process may wait for a disk), and a server to follow its mount. */
#define KILL_MS 10000
#define GONE_MS 5000
#define STEP_MS 20
/* Parents between a process and the first one: more is not a tree that people make. */
#define ANCESTORS_MAX 4096

struct session {
    pid_t leader;
    uint64_t start;
    uint64_t space;
};

const char *attach_session_name(const struct attach_record *r)
{
    size_t n = strlen(ATTACH_SESSION_PREFIX);

    return strncmp(r->run, ATTACH_SESSION_PREFIX, n) == 0 ? r->run + n : NULL;
}

/* ---- files
 * ----------------------------------------------------------------------------------------- */

static int open_directory(int *ret_fd, struct err *err)
{
    char dir[ATTACH_PATH_MAX];
    int c = attach_runtime_sub("sessions", dir, err);

    if (c < 0)
        return c;
    *ret_fd = open(dir, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    return *ret_fd < 0 ? err_fail(err, -errno, "cannot open %s: %s", dir, strerror(errno)) : 0;
}

static int session_read(int dir_fd, const char *name, struct session *ret)
{
    AUTO(buf_release) struct buf text = BUF_INIT(LINE_MAX_SIZE);
    struct session s = {0};
    int pid;
    int c = file_slurp(dir_fd, name, &text);

    if (c < 0)
        return c;
    if (sscanf(buf_text(&text), "%d %" SCNu64 " %" SCNu64, &pid, &s.start, &s.space) != 3 ||
        pid <= 0)
        return -EPROTO;
    s.leader = (pid_t)pid;
    *ret = s;
    return 0;
}

/* In one step, so that nobody reads half a line. */
static int session_write(int dir_fd, const char *name, const struct session *s)
{
    char line[LINE_MAX_SIZE], temp[NAME_MAX + 1];
    int n = snprintf(line, sizeof line, "%d %" PRIu64 " %" PRIu64 "\n", (int)s->leader, s->start,
                     s->space);

    (void)snprintf(temp, sizeof temp, ".%.200s", name);
    AUTO(close_fd)
    int fd = openat(dir_fd, temp, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
    int c = fd < 0 ? -errno : file_write(fd, line, (size_t)n);
    if (c == 0 && renameat(dir_fd, temp, dir_fd, name) < 0)
        c = -errno;
    if (c < 0)
        (void)unlinkat(dir_fd, temp, 0); /* it may not even be there */
    return c;
}

/* ---- processes
 * ------------------------------------------------------------------------------------- */

/* The inode of a process's mount namespace; 0: it is gone, or not ours to look at. */
static uint64_t space_of(pid_t pid)
{
    char path[64], text[64];
    uint64_t number;

    (void)snprintf(path, sizeof path, "/proc/%d/ns/mnt", (int)pid);
    ssize_t n = readlink(path, text, sizeof text - 1);
    if (n <= 0)
        return 0;
    text[n] = '\0';
    return sscanf(text, "mnt:[%" SCNu64 "]", &number) == 1 ? number : 0;
}

static pid_t parent_of(pid_t pid)
{
    char path[64], text[1024];
    int parent;

    (void)snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    AUTO(close_fd) int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : file_read(fd, text, sizeof text - 1);
    if (n <= 0)
        return 0;
    text[n] = '\0';
    const char *p = strrchr(text, ')');
    return p && sscanf(p, ") %*c %d", &parent) == 1 ? (pid_t)parent : 0;
}

static bool leader_lives(const struct session *s)
{
    uint64_t start;

    return attach_process_start(s->leader, &start) == 0 && start == s->start &&
           (s->space == 0 || space_of(s->leader) == s->space);
}

/* Without a namespace: the first process and its descendants. */
static bool belongs(const struct session *s, pid_t pid)
{
    if (s->space)
        return space_of(pid) == s->space;
    for (int i = 0; pid > 1 && i < ANCESTORS_MAX; i++) {
        if (pid == s->leader)
            return leader_lives(s);
        pid = parent_of(pid);
    }
    return false;
}

struct servers {
    const char *name;
    size_t count;
};

static int count_server(void *ctx, const struct attach_record *r)
{
    struct servers *s = ctx;
    const char *name = attach_session_name(r);

    s->count += name && strcmp(name, s->name) == 0;
    return 0;
}

static bool servers_live(const char *name)
{
    struct servers s = {.name = name};

    return attach_each(count_server, &s, NULL) == 0 && s.count > 0;
}

static bool lives(const char *name, const struct session *s)
{
    return leader_lives(s) || (s->space && servers_live(name));
}

/* Send `number` to all of it (0: only look) but ourselves. Gives how many there are, or the pid of
 * one in *ret_any. */
static size_t signal_all(const struct session *s, int number, pid_t *ret_any)
{
    AUTO(close_dir) DIR *d = opendir("/proc");
    struct dirent *e;
    size_t count = 0;

    while (d && (e = readdir(d)) != NULL) {
        pid_t pid = (pid_t)strtol(e->d_name, NULL, 10); /* what is no number gives 0 */
        uint64_t start;
        if (pid <= 0 || pid == getpid())
            continue;
        /* Opened before it is looked at: it cannot become another process in between. */
        AUTO(close_fd) int fd = (int)syscall(SYS_pidfd_open, pid, 0);
        if (fd < 0 || !belongs(s, pid) || attach_process_start(pid, &start) < 0)
            continue;
        count++;
        if (ret_any)
            *ret_any = pid;
        if (number)
            (void)syscall(SYS_pidfd_send_signal, fd, number, NULL, 0); /* it may just have ended */
    }
    return count;
}

static void pause_ms(int ms)
{
    struct timespec t = {.tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000};

    (void)nanosleep(&t, NULL); /* too early does no harm */
}

/* ---- begin
 * ---------------------------------------------------------------------------------------- */

int attach_session_claim(const char *name, struct err *err)
{
    AUTO(close_fd) int dir_fd = -1;
    struct session s, self = {.leader = getpid()};
    int c = open_directory(&dir_fd, err);

    if (c < 0)
        return c;
    if (flock(dir_fd, LOCK_EX) < 0 || attach_process_start(self.leader, &self.start) < 0)
        return err_fail(err, -EIO, "cannot take the name '%s' for a session", name);
    if (session_read(dir_fd, name, &s) == 0 && lives(name, &s))
        return err_fail(err, -EEXIST,
                        "there is a session '%s' already: 'grid session enter %s' goes into it, "
                        "'grid session delete %s' ends it",
                        name, name, name);
    c = session_write(dir_fd, name, &self);
    return c < 0 ? err_fail(err, c, "cannot write down the session '%s': %s", name, strerror(-c))
                 : 0;
}

int attach_session_note(const char *name, bool has_namespace, struct err *err)
{
    AUTO(close_fd) int dir_fd = -1;
    struct session self = {.leader = getpid()};
    int c = open_directory(&dir_fd, err);

    if (c == 0)
        c = attach_process_start(self.leader, &self.start);
    if (c == 0 && has_namespace) {
        self.space = space_of(self.leader);
        c = self.space ? 0 : -EIO;
    }
    if (c == 0)
        c = session_write(dir_fd, name, &self);
    return c < 0 ? err_fail(err, c, "cannot write down the session '%s': %s", name, strerror(-c))
                 : 0;
}

void attach_session_drop(const char *name)
{
    AUTO(close_fd) int dir_fd = -1;
    struct session s;

    if (open_directory(&dir_fd, NULL) < 0 || flock(dir_fd, LOCK_EX) < 0)
        return;
    if (session_read(dir_fd, name, &s) < 0)
        return;
    bool ours = s.space == 0 && s.leader == getpid();
    if (ours || signal_all(&s, 0, NULL) == 0 || !lives(name, &s))
        (void)unlinkat(dir_fd, name, 0); /* else the next one of this name finds it dead */
}

/* ---- enter, end
 * ------------------------------------------------------------------------------------ */

static int find(const char *name, struct session *ret, struct err *err)
{
    AUTO(close_fd) int dir_fd = -1;
    struct session s;
    int c = open_directory(&dir_fd, err);

    if (c < 0)
        return c;
    c = session_read(dir_fd, name, &s);
    if (c == 0 && lives(name, &s)) {
        *ret = s;
        return 0;
    }
    if (c == 0)
        (void)unlinkat(dir_fd, name, 0); /* of a session that has ended */
    return err_fail(err, -ENOENT, "there is no session '%s': 'grid session' lists them", name);
}

/* Join the user namespace first, if it has one: that gives the right to join the other. */
static int join_spaces(pid_t pid)
{
    char user[64], space[64];
    struct stat theirs, ours;

    (void)snprintf(user, sizeof user, "/proc/%d/ns/user", (int)pid);
    (void)snprintf(space, sizeof space, "/proc/%d/ns/mnt", (int)pid);
    AUTO(close_fd) int user_fd = open(user, O_RDONLY | O_CLOEXEC);
    AUTO(close_fd) int space_fd = open(space, O_RDONLY | O_CLOEXEC);
    if (user_fd < 0 || space_fd < 0 || fstat(user_fd, &theirs) < 0 ||
        stat("/proc/self/ns/user", &ours) < 0)
        return -errno;
    if (theirs.st_ino != ours.st_ino && setns(user_fd, CLONE_NEWUSER) < 0)
        return -errno;
    return setns(space_fd, CLONE_NEWNS) < 0 ? -errno : 0;
}

int attach_session_enter(const char *name, char *const argv[], int *ret_exit, struct err *err)
{
    AUTO(free_ptr) char *cwd = getcwd(NULL, 0);
    struct session s;
    pid_t pid = 0;
    int c = find(name, &s, err);

    if (c < 0)
        return c;
    if (s.space && s.space != space_of(getpid())) {
        if (signal_all(&s, 0, &pid) == 0)
            return err_fail(err, -ENOENT, "the session '%s' has just ended", name);
        c = join_spaces(pid);
        if (c < 0)
            return err_fail(err, c, "cannot enter the session '%s': %s", name, strerror(-c));
        if (!cwd || chdir(cwd) < 0)
            (void)!chdir("/"); /* there is always one */
    }
    (void)execvp(argv[0], argv);
    *ret_exit = errno == ENOENT ? 127 : 126;
    return err_fail(err, -errno, "cannot run %s: %s", argv[0], strerror(errno));
}

static bool wait_for_processes(const struct session *s, unsigned ms, int number)
{
    for (unsigned waited = 0; signal_all(s, number, NULL) > 0; waited += STEP_MS) {
        if (waited >= ms)
            return false;
        pause_ms(STEP_MS);
    }
    return true;
}

int attach_session_end(const char *name, unsigned grace_ms, struct err *err)
{
    static const int asked[] = {SIGHUP, SIGTERM, SIGCONT};
    struct session s;
    int c = find(name, &s, err);

    if (c < 0)
        return c;
    bool inside = belongs(&s, getpid());
    for (size_t i = 0; i < sizeof asked / sizeof asked[0]; i++)
        (void)signal_all(&s, asked[i], NULL);
    if (!wait_for_processes(&s, grace_ms, 0) && !wait_for_processes(&s, KILL_MS, SIGKILL))
        return err_fail(err, -EBUSY, "processes of the session '%s' do not end, even if killed",
                        name);
    /* Who calls this in the session itself is its last process: servers follow when it ends. */
    for (int waited = 0; !inside && servers_live(name) && waited < GONE_MS; waited += STEP_MS)
        pause_ms(STEP_MS);
    AUTO(close_fd) int dir_fd = -1;
    if (open_directory(&dir_fd, NULL) == 0)
        (void)unlinkat(dir_fd, name, 0); /* its wrapper may have been quicker */
    return 0;
}
