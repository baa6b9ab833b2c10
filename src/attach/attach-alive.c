/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A lock that a server process and its children hold together, on <runtime>/mounts/.l-<pid>-<start>
 * (of the supervisor): free when all of them are gone, however they went. For mounts that do not
 * tell by themselves that nobody serves them any more.
 */
#include "attach/attach-internal.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <sys/file.h>

static int open_directory(char *ret_name, size_t size, pid_t server, uint64_t start)
{
    char dir[ATTACH_PATH_MAX];

    if (attach_runtime_sub("mounts", dir, NULL) < 0)
        return -1;
    (void)snprintf(ret_name, size, ".l-%d-%" PRIu64, (int)server, start); /* fits */
    return open(dir, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
}

int attach_alive_hold(pid_t server, int *ret_fd)
{
    char name[64];
    uint64_t start;
    int c = attach_process_start(server, &start);

    if (c < 0)
        return c;
    AUTO(close_fd) int dir_fd = open_directory(name, sizeof name, server, start);
    AUTO(close_fd)
    int fd =
        dir_fd < 0 ? -1 : openat(dir_fd, name, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0 || flock(fd, LOCK_EX | LOCK_NB) < 0)
        return -errno;
    *ret_fd = take_fd(&fd);
    return 0;
}

bool attach_alive_is_held(pid_t server, uint64_t start)
{
    char name[64];
    AUTO(close_fd) int dir_fd = open_directory(name, sizeof name, server, start);
    AUTO(close_fd)
    int fd = dir_fd < 0 ? -1 : openat(dir_fd, name, O_RDWR | O_NOFOLLOW | O_CLOEXEC);

    return fd >= 0 && flock(fd, LOCK_SH | LOCK_NB) < 0 && errno == EWOULDBLOCK;
}

void attach_alive_remove(pid_t server, uint64_t start)
{
    char name[64];
    AUTO(close_fd) int dir_fd = open_directory(name, sizeof name, server, start);

    if (dir_fd >= 0)
        (void)unlinkat(dir_fd, name, 0); /* none was made, or it is gone already */
}

void attach_alive_sweep(const char *name)
{
    int server, end = 0;
    uint64_t start, now;

    if (sscanf(name, ".l-%d-%" SCNu64 "%n", &server, &start, &end) != 2 || name[end] ||
        attach_alive_is_held(server, start))
        return;
    /* One that has just made it holds it soon. */
    if (attach_process_start(server, &now) < 0 || now != start)
        attach_alive_remove(server, start);
}
