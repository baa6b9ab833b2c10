/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What protects a mount's version, told by the process that serves it to those who list mounts: a
 * line beside the record of its server, <runtime>/mounts/.p-<pid>-<start>, "word sentence". It may
 * be missing, and then nobody knows.
 */
#include "attach/attach-internal.h"

#include "base/file.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define LINE_MAX_SIZE 4096u

static int open_directory(char *ret_name, size_t size, pid_t server, uint64_t start)
{
    char dir[ATTACH_PATH_MAX];

    if (attach_runtime_sub("mounts", dir, NULL) < 0)
        return -1;
    (void)snprintf(ret_name, size, ".p-%d-%" PRIu64, (int)server, start); /* fits */
    return open(dir, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
}

int attach_protection_write(pid_t server, const char *word, const char *sentence)
{
    AUTO(buf_release) struct buf line = BUF_INIT(LINE_MAX_SIZE);
    char name[64], temp[80];
    uint64_t start;
    int c = attach_process_start(server, &start);

    if (c == 0)
        c = buf_printf(&line, "%s %s", word, sentence);
    if (c < 0)
        return c;
    AUTO(close_fd) int dir_fd = open_directory(name, sizeof name, server, start);
    (void)snprintf(temp, sizeof temp, "%s.new", name); /* fits */
    AUTO(close_fd)
    int fd = dir_fd < 0
                 ? -1
                 : openat(dir_fd, temp,
                          O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC | O_NOCTTY, 0600);
    c = fd < 0 ? -errno : file_write(fd, line.data, line.size);
    if (c == 0 && renameat(dir_fd, temp, dir_fd, name) < 0)
        c = -errno;
    return c;
}

void attach_protection_remove(pid_t server, uint64_t start)
{
    char name[64];
    AUTO(close_fd) int dir_fd = open_directory(name, sizeof name, server, start);

    if (dir_fd >= 0)
        (void)unlinkat(dir_fd, name, 0); /* none was written, or it is gone already */
    attach_figures_remove(server, start);
}

void attach_protection_forget(pid_t server)
{
    uint64_t start;

    if (attach_process_start(server, &start) == 0)
        attach_protection_remove(server, start);
}

void attach_protection_read(pid_t server, uint64_t start, char ret_word[static 16],
                            char *ret_sentence, size_t size)
{
    AUTO(buf_release) struct buf line = BUF_INIT(LINE_MAX_SIZE);
    char name[64];
    AUTO(close_fd) int dir_fd = open_directory(name, sizeof name, server, start);

    (void)snprintf(ret_word, 16, "unknown"); /* fits */
    ret_sentence[0] = '\0';
    if (dir_fd < 0 || file_slurp(dir_fd, name, &line) < 0)
        return;
    size_t length = strcspn(buf_text(&line), " ");
    if (length == 0 || length >= 16)
        return;
    memcpy(ret_word, buf_text(&line), length);
    ret_word[length] = '\0';
    if (length < line.size)
        (void)snprintf(ret_sentence, size, "%s", buf_text(&line) + length + 1); /* or cut short */
}
