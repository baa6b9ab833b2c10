/* SPDX-License-Identifier: Apache-2.0 */
/*
 * On a node: the datastores of a step, in a mount namespace that its tasks share.
 *
 * The first task, in its last moment as root, starts `grid slurm attach`, which makes the namespace
 * out of the task's own (so whatever container plugin there is has done its work), and enters it;
 * the descriptor goes to the other tasks through a socket. The namespace, the mounts and the leases
 * then last as long as any process of the step, whatever happens to Slurm's daemons. slurmstepd
 * itself stays outside. It only has servers of the user's moved into the job's control groups, when
 * those are there.
 *
 * A step whose datastores are not there ends with the reason on its standard error. It ends in the
 * task, since Slurm takes a node out of service when a batch step fails before.
 */
#include "spank-grid.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <slurm/slurm.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* Of Slurm, not in its public header under one name in all releases. */
#define STEP_BATCH       0xfffffffbu
#define STEP_EXTERN      0xfffffffcu
#define STEP_INTERACTIVE 0xfffffffau

#define WORDS_MAX 128
#define SAID_MAX  8192
/* The environment of a job: `grid` takes no more. */
#define ENVIRONMENT_MAX (16u << 20)
/* Beyond the helper's own deadline. */
#define EXTRA_MS 10000

static int to_tasks[2] = {-1, -1};  /* the first task writes, the others read */
static int to_daemon[2] = {-1, -1}; /* the first task writes, slurmstepd reads */
static bool is_wanted;              /* this step has datastores */
static bool has_failed;             /* in a task */
static char said[SAID_MAX];         /* in the first task: for the job's standard error */

struct note {
    int code;
    char servers[1024]; /* pids */
};

/* ---- the step ---- */

static uint32_t step_of(spank_t sp)
{
    uint32_t step = STEP_EXTERN;

    (void)spank_get_item(sp, S_JOB_STEPID, &step); /* then it is as if it were none of ours */
    return step;
}

int node_prepare(spank_t sp)
{
    static char specs[SPECS_MAX];

    if (step_of(sp) == STEP_EXTERN ||
        spank_getenv(sp, SPECS_VARIABLE, specs, sizeof specs) != ESPANK_SUCCESS || !*specs)
        return 0;
    is_wanted = true;
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, to_tasks) < 0 ||
        socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, to_daemon) < 0) {
        slurm_error("grid: cannot make a socket: %s", strerror(errno));
        to_tasks[0] = -1; /* tasks see it and fail */
    }
    return 0;
}

static void fail(const char *sentence)
{
    has_failed = true;
    size_t n = strlen(said);
    (void)snprintf(said + n, sizeof said - n, "grid: %s\n", sentence);
}

/* ---- sending a note, with a descriptor ---- */

static int note_send(int sock, const struct note *note, int fd)
{
    union {
        char bytes[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } control = {.bytes = {0}};
    struct iovec iov = {.iov_base = (void *)note, .iov_len = sizeof *note};
    struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1};

    if (fd >= 0) {
        m.msg_control = control.bytes;
        m.msg_controllen = sizeof control.bytes;
        struct cmsghdr *c = CMSG_FIRSTHDR(&m);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(sizeof fd);
        memcpy(CMSG_DATA(c), &fd, sizeof fd);
    }
    return sendmsg(sock, &m, MSG_NOSIGNAL) == (ssize_t)sizeof *note ? 0 : -1;
}

static int note_receive(int sock, struct note *note, int *ret_fd)
{
    union {
        char bytes[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } control = {.bytes = {0}};
    struct iovec iov = {.iov_base = note, .iov_len = sizeof *note};
    struct msghdr m = {.msg_iov = &iov,
                       .msg_iovlen = 1,
                       .msg_control = control.bytes,
                       .msg_controllen = sizeof control.bytes};
    struct pollfd p = {.fd = sock, .events = POLLIN};

    *ret_fd = -1;
    if (poll(&p, 1, (int)settings.timeout_s * 1000 + EXTRA_MS) <= 0 ||
        recvmsg(sock, &m, MSG_CMSG_CLOEXEC) != (ssize_t)sizeof *note)
        return -1;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(&m); c; c = CMSG_NXTHDR(&m, c)) {
        if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS &&
            c->cmsg_len == CMSG_LEN(sizeof(int)))
            memcpy(ret_fd, CMSG_DATA(c), sizeof(int));
    }
    note->servers[sizeof note->servers - 1] = '\0';
    return 0;
}

/* ---- the first task attaches ---- */

/* All strings of the job's environment, with an empty one at the end. NULL: no memory. */
static char *join_environment(spank_t sp, size_t *ret_size)
{
    char **environment = NULL;
    size_t size = 2, at = 0;

    if (spank_get_item(sp, S_JOB_ENV, &environment) != ESPANK_SUCCESS)
        environment = NULL;
    for (char **e = environment; e && *e; e++)
        size += strlen(*e) + 1;
    char *all = size <= ENVIRONMENT_MAX ? malloc(size) : NULL;
    if (!all)
        return NULL;
    for (char **e = environment; e && *e; e++) {
        size_t n = strlen(*e) + 1;
        if (n > 1) { /* an empty one would be the end */
            memcpy(all + at, *e, n);
            at += n;
        }
    }
    if (at == 0)
        all[at++] = '\0';
    all[at++] = '\0';
    *ret_size = at;
    return all;
}

static void name_step(spank_t sp, char *label, size_t size)
{
    uint32_t job = 0, step = step_of(sp);

    (void)spank_get_item(sp, S_JOB_ID, &job); /* a name for people */
    if (step == STEP_BATCH)
        (void)snprintf(label, size, "%u.batch", job);
    else if (step == STEP_INTERACTIVE)
        (void)snprintf(label, size, "%u.interactive", job);
    else
        (void)snprintf(label, size, "%u.%u", job, step);
}

/* argv of `grid slurm attach`; `specs` is cut into pieces. False: too many. */
static bool command_line(char *argv[WORDS_MAX], char *specs, char *uid, char *gid, char *label)
{
    char *first[] = {(char *)"grid",
                     (char *)"slurm",
                     (char *)"attach",
                     (char *)"--uid",
                     uid,
                     (char *)"--gid",
                     gid,
                     (char *)"--job",
                     label};
    size_t n = sizeof first / sizeof first[0];
    char *save = NULL;

    memcpy(argv, first, sizeof first);
    for (size_t i = 0; i < settings.option_count; i++)
        argv[n++] = (char *)settings.options[i];
    argv[n++] = (char *)"--";
    for (char *spec = strtok_r(specs, ",", &save); spec; spec = strtok_r(NULL, ",", &save)) {
        if (n + 1 >= WORDS_MAX)
            return false;
        argv[n++] = spec;
    }
    argv[n] = NULL;
    return true;
}

/* The namespace, or -1 after a sentence. */
static int attach(spank_t sp, struct note *note)
{
    static char specs[SPECS_MAX];
    char *argv[WORDS_MAX], uid_text[24], gid_text[24], label[64], line[sizeof note->servers];
    uid_t uid = (uid_t)-1;
    gid_t gid = (gid_t)-1;
    struct helper h;
    size_t size = 0;
    int pid = 0, used = 0, fd = -1;

    if (spank_getenv(sp, SPECS_VARIABLE, specs, sizeof specs) != ESPANK_SUCCESS ||
        spank_get_item(sp, S_JOB_UID, &uid) != ESPANK_SUCCESS ||
        spank_get_item(sp, S_JOB_GID, &gid) != ESPANK_SUCCESS) {
        fail("Slurm does not say whose job this is");
        return -1;
    }
    (void)snprintf(uid_text, sizeof uid_text, "%u", (unsigned)uid);
    (void)snprintf(gid_text, sizeof gid_text, "%u", (unsigned)gid);
    name_step(sp, label, sizeof label);
    char *environment = join_environment(sp, &size);
    if (!environment || !command_line(argv, specs, uid_text, gid_text, label)) {
        free(environment);
        fail("too many datastores, or too large an environment");
        return -1;
    }
    if (helper_start(&h, argv, settings.variables) < 0) {
        free(environment);
        fail("the program cannot be started");
        return -1;
    }
    bool ready = helper_talk(&h, environment, size, true, line, sizeof line, said, sizeof said);
    explicit_bzero(environment, size); /* it may hold credentials */
    free(environment);
    if (ready && sscanf(line, "ready %d%n", &pid, &used) == 1 && pid > 0) {
        char path[64];
        (void)snprintf(path, sizeof path, "/proc/%d/ns/mnt", pid);
        fd = open(path, O_RDONLY | O_CLOEXEC);
        (void)snprintf(note->servers, sizeof note->servers, "%s", line + used);
    }
    bool is_late = now_ms() >= h.deadline;
    (void)helper_end(&h); /* what it said is in `said` */
    if (fd < 0 && is_late)
        fail("the datastores were not there in time; see timeout= in plugstack.conf");
    else if (fd < 0 && !*said)
        fail("the datastores are not there; the node's log may say why");
    return fd;
}

/* ---- all tasks enter ---- */

static int go_to(const char *cwd, uid_t uid)
{
    if (chdir(cwd) == 0)
        return 0;
    /* A file server may refuse root. */
    if (seteuid(uid) < 0)
        return -1;
    int r = chdir(cwd);
    return seteuid(0) < 0 ? -1 : r;
}

static void enter(spank_t sp, int fd)
{
    char *cwd = getcwd(NULL, 0);
    uid_t uid = (uid_t)-1;

    (void)spank_get_item(sp, S_JOB_UID, &uid); /* it is there: it was before */
    if (setns(fd, CLONE_NEWNS) < 0)
        fail("the job's mount namespace cannot be entered");
    else if (cwd && go_to(cwd, uid) < 0 && chdir("/tmp") < 0)
        fail("the working directory cannot be entered");
    free(cwd);
}

static void tell(spank_t sp, const struct note *note, int fd)
{
    uint32_t count = 1;

    (void)spank_get_item(sp, S_JOB_LOCAL_TASK_COUNT, &count); /* 1 is the usual case */
    for (uint32_t i = 1; i < count; i++)
        (void)note_send(to_tasks[0], note, fd); /* who is not told waits, and fails */
    (void)note_send(to_daemon[0], note, -1);    /* then servers stay where they are */
}

int node_enter(spank_t sp)
{
    struct note note = {.code = 0};
    int task = 0, fd = -1;

    if (!is_wanted)
        return 0;
    (void)spank_get_item(sp, S_TASK_ID, &task); /* there is always one here */
    if (to_tasks[0] < 0) {
        fail("the node has no socket left");
    } else if (task == 0) {
        fd = attach(sp, &note);
        note.code = fd < 0 ? -1 : 0;
        tell(sp, &note, fd);
    } else if (note_receive(to_tasks[1], &note, &fd) < 0 || note.code < 0) {
        has_failed = true; /* the first task says why */
    }
    if (fd >= 0) {
        enter(sp, fd);
        (void)close(fd); /* or the namespace would outlive the step */
    } else {
        has_failed = true;
    }
    return 0;
}

int node_report(spank_t sp)
{
    (void)sp;
    if (*said)
        (void)!write(2, said, strlen(said)); /* the job's own standard error */
    if (has_failed)
        _exit(1);
    return 0;
}

/* ---- slurmstepd ---- */

int node_settle(spank_t sp)
{
    char *argv[WORDS_MAX] = {(char *)"grid", (char *)"slurm", (char *)"settle"};
    char pid_text[24], line[64], complaint[512], *save = NULL;
    struct note note;
    struct helper h;
    pid_t pid = 0;
    int task = -1, fd;
    size_t n = 3;

    if (!is_wanted || to_daemon[0] < 0 || spank_get_item(sp, S_TASK_ID, &task) != ESPANK_SUCCESS ||
        task != 0 || spank_get_item(sp, S_TASK_PID, &pid) != ESPANK_SUCCESS)
        return 0;
    if (note_receive(to_daemon[1], &note, &fd) < 0 || note.code < 0)
        return 0; /* the task says why */
    (void)snprintf(pid_text, sizeof pid_text, "%d", (int)pid);
    argv[n++] = pid_text;
    for (char *server = strtok_r(note.servers, " \n", &save); server && n + 1 < WORDS_MAX;
         server = strtok_r(NULL, " \n", &save))
        argv[n++] = server;
    if (n == 4)
        return 0;
    argv[n] = NULL;
    if (helper_start(&h, argv, settings.variables) < 0)
        return 0;
    (void)helper_talk(&h, NULL, 0, false, line, sizeof line, complaint, sizeof complaint);
    if (helper_end(&h) != 0)
        slurm_info("%.*s", (int)strcspn(complaint, "\n"), complaint);
    return 0;
}
