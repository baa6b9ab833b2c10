/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A mount namespace that holds the mount of a shared server and nothing else, kept by a descriptor:
 * for kernels before 6.15, which copy no mount that stands nowhere.
 *
 * A process makes the namespace, puts a tmpfs in the place of everything, and ends; who holds the
 * descriptor of its namespace keeps it, and goes there for the moment of a copy. No process lives
 * in it, nobody sees it, and with the last descriptor the kernel drops it with all that is in it.
 */
#include "attach/attach-shared.h"

#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

/* In the process: `stage` becomes the root of a namespace of its own. */
static int empty_namespace(const char *stage)
{
    if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
        mount("grid", stage, "tmpfs", MS_NOSUID | MS_NODEV, "size=4k,nr_inodes=8,mode=0700") < 0 ||
        chdir(stage) < 0)
        return -errno;
    for (int i = 0; i < VAULT_PLACES; i++) {
        const char name[] = {(char)('a' + i), '\0'};
        if (mkdir(name, 0700) < 0)
            return -errno;
    }
    if (syscall(SYS_pivot_root, ".", ".") < 0 || umount2(".", MNT_DETACH) < 0)
        return -errno;
    return 0;
}

int vault_make(int *ret_vault_fd)
{
    char stage[ATTACH_PATH_MAX], path[64];
    int ready[2], go[2], status;
    int32_t code = -EPROTO;
    int c = attach_runtime_sub("root", stage, NULL);

    if (c < 0)
        return c;
    if (pipe2(ready, O_CLOEXEC) < 0)
        return -errno;
    AUTO(close_fd) int ready_in = ready[0];
    AUTO(close_fd) int ready_out = ready[1];
    if (pipe2(go, O_CLOEXEC) < 0)
        return -errno;
    AUTO(close_fd) int go_in = go[0];
    AUTO(close_fd) int go_out = go[1];
    pid_t pid = fork();
    if (pid < 0)
        return -errno;
    if (pid == 0) {
        char byte;
        (void)close(go_out); /* the caller's end: its closing lets us go */
        code = empty_namespace(stage);
        (void)!write(ready_out, &code, sizeof code); /* or the caller is gone */
        (void)!read(go_in, &byte, 1);
        _exit(0);
    }
    (void)close(take_fd(&ready_out)); /* the process's */
    if (read(ready_in, &code, sizeof code) != (ssize_t)sizeof code)
        code = -EPROTO;
    (void)snprintf(path, sizeof path, "/proc/%d/ns/mnt", (int)pid); /* fits */
    int fd = code == 0 ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (code == 0 && fd < 0)
        code = -errno;
    (void)close(take_fd(&go_out));
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        continue;
    if (code == 0)
        *ret_vault_fd = fd;
    return code;
}

/* Do something there. Where a process has threads, this one gets a root and working directory of
 * its own for that. */
static int go_to(int vault_fd, int *ret_home)
{
    AUTO(close_fd) int home = open("/proc/thread-self/ns/mnt", O_RDONLY | O_CLOEXEC);

    if (home < 0 || unshare(CLONE_FS) < 0 || setns(vault_fd, CLONE_NEWNS) < 0)
        return -errno;
    *ret_home = take_fd(&home);
    return 0;
}

static void go_back(int home)
{
    if (setns(home, CLONE_NEWNS) < 0)
        abort(); /* in there no file can be opened: it would serve nothing any more */
}

int vault_put(int vault_fd, int mount_fd, enum vault_place place)
{
    const char name[] = {'/', (char)('a' + (int)place), '\0'};
    AUTO(close_fd) int home = -1;
    int c = go_to(vault_fd, &home);

    if (c < 0)
        return c;
    if (move_mount(mount_fd, "", AT_FDCWD, name, MOVE_MOUNT_F_EMPTY_PATH) < 0)
        c = -errno;
    go_back(home);
    return c;
}

int vault_copy(int vault_fd, int mount_fd)
{
    AUTO(close_fd) int home = -1;
    int c = go_to(vault_fd, &home);

    if (c < 0)
        return c;
    c = open_tree(mount_fd, "", AT_EMPTY_PATH | OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
    if (c < 0)
        c = -errno;
    go_back(home);
    return c;
}
