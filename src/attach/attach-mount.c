/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Mounting and unmounting: mount(2) on an opened /dev/fuse where we may, fusermount3 for the rest,
 * and a look into /proc/self/mountinfo, since asking a mount itself may wait for its server.
 */
#include "attach/attach-internal.h"

#include <fcntl.h>
#include <poll.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>

#define FILE_SYSTEM "fuse.grid"
/* Of the kernel's own, by their source. */
#define KERNEL_MOUNT "erofs grid:"

int attach_fuse_mount(const struct attach_record *r, const char *mountpoint, int *ret_fd,
                      struct err *err)
{
    char source[ATTACH_SOURCE_MAX], options[160];
    AUTO(close_fd) int fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);

    if (fd < 0)
        return err_fail(err, -errno, "cannot open /dev/fuse: %s", strerror(errno));
    attach_source_name(r, source);
    bool alone = r->user && r->user->alone;
    (void)snprintf(options, sizeof options,
                   "fd=%d,rootmode=40000,user_id=%u,group_id=%u,default_permissions%s", fd,
                   (unsigned)(alone ? r->user->uid : geteuid()),
                   (unsigned)(alone ? r->user->gid : getegid()), alone ? "" : ",allow_other");
    if (mount(source, mountpoint, FILE_SYSTEM, MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOATIME,
              options) < 0)
        return err_fail(err, -errno, "cannot mount %s:%u at %s: %s", r->name, r->version,
                        mountpoint, strerror(errno));
    *ret_fd = take_fd(&fd);
    return 0;
}

/* ---- fusermount3
 * ----------------------------------------------------------------------------------- */

/* How it is told of the socket for its answer, and what that socket is to it. */
#define COMM_VARIABLE "_FUSE_COMMFD=3"
#define COMM_FD       3
/* It answers at once or not at all. */
#define COMM_WAIT_MS 30000

static int prepare_spawn(posix_spawn_file_actions_t *actions, posix_spawnattr_t *attr, int comm_fd)
{
    sigset_t none, defaults;

    (void)sigemptyset(&none);
    (void)sigemptyset(&defaults);
    (void)sigaddset(&defaults, SIGCHLD); /* fusermount3 waits for children of its own */
    int c = comm_fd < 0 ? posix_spawn_file_actions_addopen(actions, 2, "/dev/null", O_WRONLY, 0)
                        : posix_spawn_file_actions_adddup2(actions, comm_fd, COMM_FD);
    if (c == 0)
        c = posix_spawnattr_setsigmask(attr, &none);
    if (c == 0)
        c = posix_spawnattr_setsigdefault(attr, &defaults);
    if (c == 0)
        c = posix_spawnattr_setflags(attr, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
    return c;
}

/* Run it to its end; with `comm_fd` it gets that socket, without one it keeps its complaints. */
static int run_fusermount(char *const argv[], int comm_fd)
{
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attr;
    size_t count = 0;
    pid_t pid;
    int status;

    while (environ[count])
        count++;
    AUTO(free_ptr) char **environment = calloc(count + 2, sizeof *environment);
    if (!environment || posix_spawn_file_actions_init(&actions) != 0)
        return -ENOMEM;
    if (posix_spawnattr_init(&attr) != 0) {
        (void)posix_spawn_file_actions_destroy(&actions); /* nothing was allocated */
        return -ENOMEM;
    }
    memcpy(environment, environ, count * sizeof *environment);
    environment[count] = comm_fd >= 0 ? (char *)COMM_VARIABLE : NULL;
    int c = prepare_spawn(&actions, &attr, comm_fd);
    if (c == 0)
        c = posix_spawnp(&pid, argv[0], &actions, &attr, argv, environment);
    (void)posix_spawn_file_actions_destroy(&actions); /* cannot fail */
    (void)posix_spawnattr_destroy(&attr);             /* cannot fail */
    if (c != 0)
        return -c;
    while (waitpid(pid, &status, 0) < 0) {
        if (errno != EINTR)
            return -errno;
    }
    return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : -EBUSY;
}

/* One byte with the descriptor. */
static int receive_descriptor(int sock, int *ret_fd)
{
    struct pollfd p = {.fd = sock, .events = POLLIN};
    char byte;
    int fd = -1;

    if (poll(&p, 1, COMM_WAIT_MS) <= 0)
        return -ETIMEDOUT;
    int c = attach_receive(sock, &byte, 1, &fd);
    if (c == 0 && fd < 0)
        c = -EPROTO;
    if (c == 0)
        *ret_fd = fd;
    return c;
}

/* fusermount3 says why only to its log: what usually stands behind it is looked at here. */
static int helper_failed(const struct attach_record *r, const char *mountpoint, int code,
                         struct err *err)
{
    char runtime[ATTACH_PATH_MAX];

    if (access("/dev/fuse", F_OK) < 0)
        return err_fail(err, -ENODEV, "cannot mount at %s: this machine has no /dev/fuse",
                        mountpoint);
    if (access("/dev/fuse", R_OK | W_OK) < 0)
        return err_fail(err, -EACCES,
                        "cannot mount at %s: you may not open /dev/fuse; root lets everybody do so "
                        "with 'chmod 666 /dev/fuse', as is usual",
                        mountpoint);
    if (code == -ENOENT)
        return err_fail(err, code, "cannot mount at %s: fusermount3 is not installed", mountpoint);
    if (access(mountpoint, W_OK) < 0)
        return err_fail(err, -EACCES,
                        "cannot mount at %s: users may only mount on directories that they may "
                        "write to, and this one is another's",
                        mountpoint);
    if (attach_runtime_dir(runtime, sizeof runtime, NULL) < 0)
        return err_fail(err, -EPERM, "cannot mount at %s: fusermount3 refuses", mountpoint);
    return err_fail(err, -EPERM,
                    "cannot mount at %s: fusermount3 refuses; its reason is in %s/log/%s-%u.log",
                    mountpoint, runtime, r->name, r->version);
}

int attach_fuse_mount_helped(const struct attach_record *r, const char *mountpoint, int *ret_fd,
                             struct err *err)
{
    char options[320];
    char *argv[] = {(char *)"fusermount3", (char *)"-o",       options,
                    (char *)"--",          (char *)mountpoint, NULL};
    int sockets[2];

    if (geteuid() == 0)
        return attach_fuse_mount(r, mountpoint, ret_fd, err);
    (void)snprintf(options, sizeof options,
                   "ro,nosuid,nodev,default_permissions,subtype=grid,fsname=grid:%s:%u", r->name,
                   r->version);
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets) < 0)
        return err_fail(err, -errno, "cannot make a socket: %s", strerror(errno));
    AUTO(close_fd) int ours = sockets[0];
    AUTO(close_fd) int theirs = sockets[1];
    int c = run_fusermount(argv, theirs);
    if (c == 0)
        c = receive_descriptor(ours, ret_fd);
    if (c == 0)
        return 0;
    return helper_failed(r, mountpoint, c, err);
}

/* ---- unmounting
 * ------------------------------------------------------------------------------------ */

static int unmount_helped(const char *mountpoint, bool lazy)
{
    char *argv[] = {(char *)"fusermount3", (char *)(lazy ? "-uzq" : "-uq"), (char *)"--",
                    (char *)mountpoint, NULL};

    return run_fusermount(argv, -1);
}

int attach_fuse_unmount(const char *mountpoint, bool lazy, struct err *err)
{
    dev_t device;
    int c = 0;

    if (umount2(mountpoint, UMOUNT_NOFOLLOW | (lazy ? MNT_DETACH : 0)) < 0)
        c = -errno;
    if (c == -EPERM) {
        c = unmount_helped(mountpoint, lazy);
        if (c < 0 && attach_fuse_find(mountpoint, &device) == -ENOENT)
            c = 0; /* the server was quicker */
    }
    if (c == -EBUSY)
        return err_fail(err, c, "%s is in use", mountpoint);
    if (c == -ENOENT)
        return err_fail(err, c, "cannot unmount %s: fusermount3 is not installed", mountpoint);
    if (c < 0)
        return err_fail(err, c, "cannot unmount %s: %s", mountpoint, strerror(-c));
    return 0;
}

/* ---- the kernel's patience
 * ------------------------------------------------------------------------- */

static unsigned read_switch(const char *path)
{
    unsigned n = 0;
    AUTO(close_file) FILE *f = fopen(path, "re");

    return f && fscanf(f, "%u", &n) == 1 ? n : 0; /* not there before Linux 6.15: no limit */
}

unsigned attach_request_timeout(void)
{
    unsigned usual = read_switch("/proc/sys/fs/fuse/default_request_timeout");
    unsigned most = read_switch("/proc/sys/fs/fuse/max_request_timeout");
    unsigned effective = most && (!usual || most < usual) ? most : usual;

    return effective < ATTACH_PATIENCE_S ? effective : 0;
}

/* ---- mountinfo
 * ------------------------------------------------------------------------------------- */

/* "\040" and the like back to bytes, in place. */
static void unescape(char *text)
{
    char *to = text;

    for (const char *from = text; *from; to++) {
        if (from[0] == '\\' && from[1] >= '0' && from[1] <= '3' && from[2] >= '0' &&
            from[2] <= '7' && from[3] >= '0' && from[3] <= '7') {
            *to = (char)((from[1] - '0') << 6 | (from[2] - '0') << 3 | (from[3] - '0'));
            from += 4;
        } else {
            *to = *from++;
        }
    }
    *to = '\0';
}

int attach_fuse_find(const char *mountpoint, dev_t *ret_device)
{
    AUTO(close_file) FILE *f = fopen("/proc/self/mountinfo", "re");
    AUTO(free_ptr) char *line = NULL;
    size_t capacity = 0;
    int found = -ENOENT;

    if (!f)
        return -errno;
    /* Mounts over mounts come later in the file: the last one is what one sees. */
    while (getline(&line, &capacity, f) > 0) {
        unsigned major_number, minor_number;
        int at = 0;
        char *save = NULL;
        if (sscanf(line, "%*u %*u %u:%u %*s %n", &major_number, &minor_number, &at) != 2 || at == 0)
            continue;
        char *type = strstr(line + at, " - ");
        char *path = strtok_r(line + at, " ", &save);
        if (!type || !path)
            continue;
        unescape(path);
        if (strcmp(path, mountpoint) != 0)
            continue;
        if (strncmp(type + 3, FILE_SYSTEM " ", sizeof FILE_SYSTEM) == 0 ||
            strncmp(type + 3, KERNEL_MOUNT, sizeof KERNEL_MOUNT - 1) == 0) {
            *ret_device = makedev(major_number, minor_number);
            found = 0;
        } else {
            found = -ENOENT;
        }
    }
    return found;
}
