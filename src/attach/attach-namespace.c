/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A mount namespace of our own: as root directly, as an ordinary user inside a user namespace that
 * maps the user's ids to themselves (so that nothing looks different inside). Where the machine
 * forbids that, the sentence names the switch.
 */
#include "attach/attach-internal.h"

#include "base/file.h"

#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>

/* The first line of a switch under /proc/sys is `value`. */
static bool switch_is(const char *path, const char *value)
{
    char text[16];
    AUTO(close_fd) int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : file_read(fd, text, sizeof text - 1);

    if (n <= 0)
        return false;
    text[n] = '\0';
    text[strcspn(text, "\n")] = '\0';
    return strcmp(text, value) == 0;
}

/* Why may an ordinary user not have a user namespace here? */
static int refused(int code, struct err *err)
{
    static const struct {
        const char *path, *value, *advice;
    } switches[] = {
        {"/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1",
         "AppArmor restricts user namespaces on this machine; install Grid's AppArmor profile "
         "(`make install` does), or as root: sysctl "
         "kernel.apparmor_restrict_unprivileged_userns=0"},
        {"/proc/sys/kernel/unprivileged_userns_clone", "0",
         "user namespaces are switched off for users on this machine; as root: "
         "sysctl kernel.unprivileged_userns_clone=1"},
        {"/proc/sys/user/max_user_namespaces", "0",
         "user namespaces are switched off on this machine; as root: "
         "sysctl user.max_user_namespaces=10000"},
    };

    for (size_t i = 0; i < sizeof switches / sizeof switches[0]; i++) {
        if (switch_is(switches[i].path, switches[i].value))
            return err_fail(err, -EPERM, "%s", switches[i].advice);
    }
    return err_fail(err, -EPERM,
                    "this machine refuses a user namespace (%s); inside a container its security "
                    "profile (seccomp) does so",
                    strerror(-code));
}

static int write_map(const char *path, const char *text)
{
    AUTO(close_fd) int fd = open(path, O_WRONLY | O_CLOEXEC);

    return fd < 0 ? -errno : file_write(fd, text, strlen(text));
}

static int map_ids(uid_t uid, gid_t gid)
{
    char text[64];
    int c = write_map("/proc/self/setgroups", "deny"); /* else the kernel takes no gid_map */

    (void)snprintf(text, sizeof text, "%u %u 1\n", (unsigned)uid, (unsigned)uid);
    if (c == 0)
        c = write_map("/proc/self/uid_map", text);
    (void)snprintf(text, sizeof text, "%u %u 1\n", (unsigned)gid, (unsigned)gid);
    return c == 0 ? write_map("/proc/self/gid_map", text) : c;
}

int attach_namespace_enter(bool user, struct err *err)
{
    uid_t uid = geteuid();
    gid_t gid = getegid();
    int c = 0;

    if (unshare(CLONE_NEWNS | (user ? CLONE_NEWUSER : 0)) < 0)
        c = -errno;
    if (c == 0 && user)
        c = map_ids(uid, gid);
    /* Mounts that are made outside from now on are seen inside; nothing of ours gets out. */
    if (c == 0 && mount(NULL, "/", NULL, MS_REC | MS_SLAVE, NULL) < 0)
        c = -errno;
    if (c == 0)
        return 0;
    if (user)
        return refused(c, err);
    return err_fail(err, -EPERM, "cannot make a mount namespace: %s", strerror(-c));
}
