/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Mounting and unmounting: mount(2) on an opened /dev/fuse where we may, fusermount3 for the rest,
 * and a look into /proc/self/mountinfo, since asking a mount itself may wait for its server.
 */
#include "attach/attach-internal.h"

#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>

#define FILE_SYSTEM "fuse.grid"

int attach_fuse_mount(const struct attach_record *r, const char *mountpoint, int *ret_fd,
                      struct err *err)
{
    char source[160], options[160];
    AUTO(close_fd) int fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);

    if (fd < 0)
        return err_fail(err, -errno, "cannot open /dev/fuse: %s", strerror(errno));
    (void)snprintf(source, sizeof source, "grid:%s:%u", r->name, r->version);
    (void)snprintf(options, sizeof options,
                   "fd=%d,rootmode=40000,user_id=%u,group_id=%u,default_permissions,allow_other",
                   fd, (unsigned)geteuid(), (unsigned)getegid());
    if (mount(source, mountpoint, FILE_SYSTEM, MS_RDONLY | MS_NOSUID | MS_NODEV, options) < 0)
        return err_fail(err, -errno, "cannot mount %s:%u at %s: %s", r->name, r->version,
                        mountpoint, strerror(errno));
    *ret_fd = take_fd(&fd);
    return 0;
}

/* ---- unmounting
 * ------------------------------------------------------------------------------------ */

static int run_fusermount(const char *mountpoint, bool lazy)
{
    char *argv[] = {(char *)"fusermount3", (char *)(lazy ? "-uzq" : "-uq"), (char *)"--",
                    (char *)mountpoint, NULL};
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attr;
    sigset_t none, defaults;
    pid_t pid;
    int status;

    if (posix_spawn_file_actions_init(&actions) != 0)
        return -ENOMEM;
    if (posix_spawnattr_init(&attr) != 0) {
        (void)posix_spawn_file_actions_destroy(&actions); /* nothing was allocated */
        return -ENOMEM;
    }
    (void)sigemptyset(&none);
    (void)sigemptyset(&defaults);
    (void)sigaddset(&defaults, SIGCHLD); /* fusermount3 waits for children of its own */
    int c = posix_spawn_file_actions_addopen(&actions, 2, "/dev/null", O_WRONLY, 0);
    if (c == 0)
        c = posix_spawnattr_setsigmask(&attr, &none);
    if (c == 0)
        c = posix_spawnattr_setsigdefault(&attr, &defaults);
    if (c == 0)
        c = posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
    if (c == 0)
        c = posix_spawnp(&pid, argv[0], &actions, &attr, argv, environ);
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

int attach_fuse_unmount(const char *mountpoint, bool lazy, struct err *err)
{
    dev_t device;
    int c = 0;

    if (umount2(mountpoint, UMOUNT_NOFOLLOW | (lazy ? MNT_DETACH : 0)) < 0)
        c = -errno;
    if (c == -EPERM) {
        c = run_fusermount(mountpoint, lazy);
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
        if (strncmp(type + 3, FILE_SYSTEM " ", sizeof FILE_SYSTEM) == 0) {
            *ret_device = makedev(major_number, minor_number);
            found = 0;
        } else {
            found = -ENOENT;
        }
    }
    return found;
}
