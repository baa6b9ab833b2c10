/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a server counts, told to those who list mounts: a file beside the record of its server,
 * <runtime>/mounts/.f-<pid>-<start>, whose bytes are the business of whoever serves. It outlives
 * the child that writes it, so the next one goes on counting.
 */
#include "attach/attach-internal.h"

#include "base/file.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <sys/stat.h>

static int open_directory(char *ret_name, size_t size, pid_t server, uint64_t start)
{
    char dir[ATTACH_PATH_MAX];

    if (attach_runtime_sub("mounts", dir, NULL) < 0)
        return -1;
    (void)snprintf(ret_name, size, ".f-%d-%" PRIu64, (int)server, start); /* fits */
    return open(dir, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
}

int attach_figures_open(pid_t server, int *ret_fd)
{
    char name[64];
    uint64_t start;
    int r = attach_process_start(server, &start);

    if (r < 0)
        return r;
    AUTO(close_fd) int dir_fd = open_directory(name, sizeof name, server, start);
    int fd = dir_fd < 0
                 ? -1
                 : openat(dir_fd, name,
                          O_RDWR | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC | O_NOCTTY, 0600);
    if (fd < 0)
        return -errno;
    *ret_fd = fd;
    return 0;
}

ssize_t attach_figures_read(const struct attach_record *record, void *data, size_t size)
{
    char name[64];
    struct stat st;
    AUTO(close_fd)
    int dir_fd = open_directory(name, sizeof name, record->server, record->server_start);
    AUTO(close_fd)
    int fd = dir_fd < 0
                 ? -1
                 : openat(dir_fd, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);

    if (fd < 0 || fstat(fd, &st) < 0)
        return -errno;
    return S_ISREG(st.st_mode) ? file_pread(fd, data, size, 0) : -EPROTO;
}

void attach_figures_remove(pid_t server, uint64_t start)
{
    char name[64];
    AUTO(close_fd) int dir_fd = open_directory(name, sizeof name, server, start);

    if (dir_fd >= 0)
        (void)unlinkat(dir_fd, name, 0); /* none was written, or it is gone already */
}
