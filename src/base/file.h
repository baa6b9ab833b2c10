/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Small wrappers over file system calls: whole reads and writes, durable directories.
 *
 * All give 0 (or a count) or a negative errno, and go on after EINTR. Threads: any.
 */
#ifndef BASE_FILE_H
#define BASE_FILE_H

#include "base/buf.h"

#include <sys/types.h>

/* Write all of it, or fail. */
int file_write(int fd, const void *data, size_t size);
int file_pwrite(int fd, const void *data, size_t size, off_t offset);
/* Up to `size` bytes; fewer only at the end of the file. */
ssize_t file_read(int fd, void *data, size_t size);
ssize_t file_pread(int fd, void *data, size_t size, off_t offset);
/* The whole file at `path` (relative to dirfd), appended to `b` (whose max bounds it). */
int file_slurp(int dirfd, const char *path, struct buf *b);
/* Make `path` and its missing parents, mode `mode`. Existing directories are fine. */
int file_mkdirs(const char *path, mode_t mode);
int file_fsync_dir(const char *path);

#endif
