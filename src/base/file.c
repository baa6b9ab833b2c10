/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whole reads and writes. No policy: who calls decides what an error means.
 */
#include "base/file.h"

#include "base/cleanup.h"

#include <fcntl.h>
#include <limits.h>
#include <sys/stat.h>

int file_write(int fd, const void *data, size_t size)
{
    const uint8_t *p = data;

    while (size > 0) {
        ssize_t n = write(fd, p, size);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        if (n == 0)
            return -EIO;
        p += n;
        size -= (size_t)n;
    }
    return 0;
}

int file_pwrite(int fd, const void *data, size_t size, off_t offset)
{
    const uint8_t *p = data;

    while (size > 0) {
        ssize_t n = pwrite(fd, p, size, offset);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        if (n == 0)
            return -EIO;
        p += n;
        offset += n;
        size -= (size_t)n;
    }
    return 0;
}

ssize_t file_read(int fd, void *data, size_t size)
{
    uint8_t *p = data;
    size_t done = 0;

    while (done < size) {
        ssize_t n = read(fd, p + done, size - done);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        if (n == 0)
            break;
        done += (size_t)n;
    }
    return (ssize_t)done;
}

ssize_t file_pread(int fd, void *data, size_t size, off_t offset)
{
    uint8_t *p = data;
    size_t done = 0;

    while (done < size) {
        ssize_t n = pread(fd, p + done, size - done, offset + (off_t)done);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        if (n == 0)
            break;
        done += (size_t)n;
    }
    return (ssize_t)done;
}

int file_slurp(int dirfd, const char *path, struct buf *b)
{
    uint8_t piece[16384];
    AUTO(close_fd) int fd = openat(dirfd, path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);

    if (fd < 0)
        return -errno;
    for (;;) {
        ssize_t n = file_read(fd, piece, sizeof piece);
        if (n <= 0)
            return (int)n;
        int r = buf_append(b, piece, (size_t)n);
        if (r < 0)
            return r;
    }
}

int file_mkdirs(const char *path, mode_t mode)
{
    char part[PATH_MAX];
    size_t len = strlen(path);

    if (len == 0 || len >= sizeof part)
        return -ENAMETOOLONG;
    memcpy(part, path, len + 1);
    for (size_t i = 1; i <= len; i++) {
        if (part[i] != '/' && part[i] != '\0')
            continue;
        char saved = part[i];
        part[i] = '\0';
        if (mkdir(part, mode) < 0 && errno != EEXIST) {
            /* A parent on a read-only file system gives EROFS although it is there. */
            struct stat st;
            int e = errno;
            if (stat(part, &st) < 0 || !S_ISDIR(st.st_mode))
                return -e;
        }
        part[i] = saved;
    }
    return 0;
}

int file_fsync_dir(const char *path)
{
    AUTO(close_fd) int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (fd < 0 || fsync(fd) < 0)
        return -errno;
    return 0;
}
