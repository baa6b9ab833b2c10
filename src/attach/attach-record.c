/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Records of mounts: one small file for each server, <runtime>/mounts/<pid>-<start>, of `key=value`
 * lines with every byte that is not plain written as %XX. Parsed strictly: every key once, none
 * unknown. A record lives as long as its server; who finds one whose server is gone removes it.
 */
#include "attach/attach-shared.h"

#include "base/file.h"
#include "base/hex.h"
#include "base/vec.h"

#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#define RECORD_SIZE_MAX  32768u /* all fields at their longest, escaped, are 13 KiB */
#define RECORD_COUNT_MAX 65536u /* in the directory; more is not our doing */
#define FILE_NAME_MAX    64

int attach_process_start(pid_t pid, uint64_t *ret_start)
{
    char path[64], text[1024];

    (void)snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    AUTO(close_fd) int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -ESRCH;
    ssize_t n = file_read(fd, text, sizeof text - 1);
    if (n <= 0)
        return -ESRCH;
    text[n] = '\0';
    /* The second field is a name in parentheses and may hold anything. */
    const char *p = strrchr(text, ')');
    for (int field = 2; p && field < 22; field++)
        p = strchr(p + 1, ' ');
    if (!p || sscanf(p, " %" SCNu64, ret_start) != 1)
        return -ESRCH;
    /* A zombie has ended, though nobody has asked for its exit code yet. */
    p = strrchr(text, ')');
    return p[1] == ' ' && (p[2] == 'Z' || p[2] == 'X') ? -ESRCH : 0;
}

static void file_name(const struct attach_record *r, char name[static FILE_NAME_MAX])
{
    int n = snprintf(name, FILE_NAME_MAX, "%d-%" PRIu64, (int)r->server, r->server_start);

    if (r->attachment) /* one of many: all of it fits */
        (void)snprintf(name + n, FILE_NAME_MAX - (size_t)n, "-%" PRIu32, r->attachment);
}

/* ---- text
 * ---------------------------------------------------------------------------------------- */

static bool is_plain(unsigned char c)
{
    return c > 0x20 && c < 0x7f && c != '%';
}

static int put_text(struct buf *b, const char *key, const char *value)
{
    int r = buf_printf(b, "%s=", key);

    for (; r == 0 && *value; value++) {
        if (is_plain((unsigned char)*value))
            r = buf_append(b, value, 1);
        else
            r = buf_printf(b, "%%%02x", (unsigned)(unsigned char)*value);
    }
    return r == 0 ? buf_append_str(b, "\n") : r;
}

static int record_encode(const struct attach_record *r, struct buf *b)
{
    int c = put_text(b, "name", r->name);

    if (c == 0)
        c = buf_printf(b, "version=%u\n", r->version);
    if (c == 0)
        c = put_text(b, "cluster", r->cluster);
    if (c == 0)
        c = put_text(b, "mountpoint", r->mountpoint);
    if (c == 0)
        c = put_text(b, "mode", r->mode);
    if (c == 0)
        c = put_text(b, "why", r->why);
    if (c == 0)
        c = buf_printf(b, "server=%d\nserver_start=%" PRIu64 "\nsince_ms=%" PRId64 "\n",
                       (int)r->server, r->server_start, r->since_ms);
    if (c == 0)
        c = put_text(b, "run", r->run);
    if (c == 0)
        c = put_text(b, "holder", r->holder);
    return c == 0
               ? buf_printf(b, "pid=%d\nattachment=%" PRIu32 "\nwatch=%d\nmount_id=%" PRIu64 "\n",
                            (int)r->pid, r->attachment, r->watch, r->mount_id)
               : c;
}

static int get_text(const char *value, size_t length, char *text, size_t size)
{
    size_t n = 0;

    for (size_t i = 0; i < length; i++) {
        unsigned char c = (unsigned char)value[i];
        if (c == '%') {
            if (length - i < 3 || hex_decode(&c, 1, value + i + 1) < 0 || c == '\0')
                return -EPROTO;
            i += 2;
        } else if (!is_plain(c)) {
            return -EPROTO;
        }
        if (n + 1 >= size)
            return -EPROTO;
        text[n++] = (char)c;
    }
    text[n] = '\0';
    return 0;
}

static int get_number(const char *value, size_t length, uint64_t max, uint64_t *ret)
{
    uint64_t n = 0;

    if (length == 0 || length > 19)
        return -EPROTO;
    for (size_t i = 0; i < length; i++) {
        if (value[i] < '0' || value[i] > '9')
            return -EPROTO;
        n = n * 10 + (uint64_t)(value[i] - '0');
    }
    if (n > max)
        return -EPROTO;
    *ret = n;
    return 0;
}

static const char *const keys[] = {
    "name", "version", "cluster", "mountpoint", "mode",       "server", "server_start", "since_ms",
    "run",  "why",     "holder",  "pid",        "attachment", "watch",  "mount_id"};
#define KEY_COUNT (sizeof keys / sizeof keys[0])

static int set_field(struct attach_record *r, size_t key, const char *value, size_t length)
{
    uint64_t n = 0;
    int c;

    switch (key) {
    case 0:
        return get_text(value, length, r->name, sizeof r->name);
    case 1:
        c = get_number(value, length, UINT32_MAX, &n);
        r->version = (uint32_t)n;
        return c;
    case 2:
        return get_text(value, length, r->cluster, sizeof r->cluster);
    case 3:
        return get_text(value, length, r->mountpoint, sizeof r->mountpoint);
    case 4:
        return get_text(value, length, r->mode, sizeof r->mode);
    case 5:
        c = get_number(value, length, INT_MAX, &n);
        r->server = (pid_t)n;
        return c == 0 && n == 0 ? -EPROTO : c;
    case 6:
        return get_number(value, length, INT64_MAX, &r->server_start);
    case 7:
        c = get_number(value, length, INT64_MAX, &n);
        r->since_ms = (int64_t)n;
        return c;
    case 8:
        return get_text(value, length, r->run, sizeof r->run);
    case 9:
        return get_text(value, length, r->why, sizeof r->why);
    case 10:
        return get_text(value, length, r->holder, sizeof r->holder);
    case 11:
        c = get_number(value, length, INT_MAX, &n);
        r->pid = (pid_t)n;
        return c;
    case 12:
        c = get_number(value, length, UINT32_MAX, &n);
        r->attachment = (uint32_t)n;
        return c;
    case 13:
        c = get_number(value, length, INT_MAX, &n);
        r->watch = (int)n;
        return c;
    default:
        return get_number(value, length, INT64_MAX, &r->mount_id);
    }
}

static int record_decode(const char *text, size_t size, struct attach_record *ret)
{
    struct attach_record r = {.version = 0};
    unsigned seen = 0;

    for (size_t at = 0; at < size;) {
        const char *line = text + at;
        const char *end = memchr(line, '\n', size - at);
        const char *equals = end ? memchr(line, '=', (size_t)(end - line)) : NULL;
        size_t key = 0;
        if (!equals)
            return -EPROTO;
        while (key < KEY_COUNT && (strlen(keys[key]) != (size_t)(equals - line) ||
                                   memcmp(keys[key], line, (size_t)(equals - line)) != 0))
            key++;
        if (key == KEY_COUNT || (seen & 1u << key))
            return -EPROTO;
        seen |= 1u << key;
        int c = set_field(&r, key, equals + 1, (size_t)(end - equals - 1));
        if (c < 0)
            return c;
        at += (size_t)(end - line) + 1;
    }
    if (seen != (1u << KEY_COUNT) - 1)
        return -EPROTO;
    *ret = r;
    return 0;
}

/* ---- files
 * --------------------------------------------------------------------------------------- */

int attach_record_write(const struct attach_record *r, struct err *err)
{
    AUTO(buf_release) struct buf text = BUF_INIT(RECORD_SIZE_MAX);
    char dir[ATTACH_PATH_MAX], name[FILE_NAME_MAX], temp[FILE_NAME_MAX + 1];
    int c = attach_runtime_sub("mounts", dir, err);

    if (c == 0)
        c = record_encode(r, &text);
    if (c < 0)
        return err_fail(err, c, "cannot write down the mount: %s", strerror(-c));
    file_name(r, name);
    (void)snprintf(temp, sizeof temp, ".%s", name);
    AUTO(close_fd) int dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (dir_fd < 0)
        return err_fail(err, -errno, "cannot open %s: %s", dir, strerror(errno));
    AUTO(close_fd)
    int fd = openat(dir_fd, temp, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC | O_NOCTTY,
                    0600);
    c = fd < 0 ? -errno : file_write(fd, text.data, text.size);
    if (c == 0 && renameat(dir_fd, temp, dir_fd, name) < 0)
        c = -errno;
    if (c < 0) {
        (void)unlinkat(dir_fd, temp, 0); /* it may not even be there */
        return err_fail(err, c, "cannot write %s/%s: %s", dir, name, strerror(-c));
    }
    return 0;
}

void attach_record_remove(const struct attach_record *r)
{
    char dir[ATTACH_PATH_MAX], name[FILE_NAME_MAX];

    if (r->attachment == 0) { /* else they are the server's, which goes on */
        attach_protection_remove(r->server, r->server_start);
        attach_alive_remove(r->server, r->server_start);
    }
    if (attach_runtime_sub("mounts", dir, NULL) < 0)
        return;
    AUTO(close_fd) int dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    file_name(r, name);
    if (dir_fd >= 0)
        (void)unlinkat(dir_fd, name, 0); /* gone already: as wanted */
}

static int record_read(int dir_fd, const char *name, struct attach_record *ret)
{
    AUTO(buf_release) struct buf text = BUF_INIT(RECORD_SIZE_MAX);
    char expect[FILE_NAME_MAX];
    struct stat st;

    if (fstatat(dir_fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return -errno;
    if (!S_ISREG(st.st_mode) || st.st_uid != geteuid())
        return -EPROTO;
    int c = file_slurp(dir_fd, name, &text);
    if (c == 0)
        c = record_decode(buf_text(&text), text.size, ret);
    if (c == 0) {
        file_name(ret, expect);
        if (strcmp(expect, name) != 0)
            c = -EPROTO;
    }
    return c;
}

static bool is_alive(const struct attach_record *r)
{
    uint64_t start;

    return attach_process_start(r->server, &start) == 0 && start == r->server_start;
}

/* Is what stands at its mount point served by nobody? A mount that the kernel reads itself has its
 * root in memory, and says nothing. */
static bool is_dead_mount(const struct attach_record *r)
{
    struct stat st;

    if (strcmp(r->mode, "local") == 0)
        return false; /* the kernel needs nobody */
    if (strcmp(r->mode, "fuse") != 0)
        return !attach_alive_is_held(r->server, r->server_start);
    return stat(r->mountpoint, &st) < 0 && (errno == ENOTCONN || errno == ECONNABORTED);
}

/* The server died without its farewell: take away what it left in view. A dead connection is of no
 * use to anybody who still stands in it. If it answers, its record is not ours to remove yet: a
 * server that lost its supervisor takes it over, or it will soon be dead too. */
static void bury(int dir_fd, const char *name, const struct attach_record *r)
{
    dev_t device;

    if (attach_alive_is_held(r->server, r->server_start))
        return; /* a child is just adopting it */
    if (!r->run[0] && attach_fuse_find(r->mountpoint, &device) == 0) {
        if (!is_dead_mount(r))
            return;
        (void)attach_fuse_unmount(r->mountpoint, true, NULL); /* it stays as it is, then */
    }
    (void)unlinkat(dir_fd, name, 0); /* somebody else may have been quicker */
    attach_protection_remove(r->server, r->server_start);
    attach_alive_remove(r->server, r->server_start);
}

/* What lies beside the records of a server that nobody buried: ".p-<pid>-<start>"; or a record that
 * it did not finish. */
static void bury_beside(int dir_fd, const char *name)
{
    uint64_t start, now;
    int pid;

    if ((sscanf(name, ".%*1[a-z]-%d-%" SCNu64, &pid, &start) != 2 &&
         sscanf(name, ".%d-%" SCNu64, &pid, &start) != 2) ||
        pid <= 0 || (attach_process_start(pid, &now) == 0 && now == start) ||
        attach_alive_is_held(pid, start))
        return;
    attach_protection_remove(pid, start);
    attach_alive_remove(pid, start);
    (void)unlinkat(dir_fd, name, 0); /* it was one of these, then */
}

static int by_age(const void *a, const void *b)
{
    const struct attach_record *x = a, *y = b;

    if (x->since_ms != y->since_ms)
        return x->since_ms < y->since_ms ? -1 : 1;
    return (x->server > y->server) - (x->server < y->server);
}

int attach_each(attach_record_fn *fn, void *ctx, struct err *err)
{
    VEC(struct attach_record) live = {0};
    char dir[ATTACH_PATH_MAX];
    int c = attach_runtime_sub("mounts", dir, err);

    if (c < 0)
        return c;
    registry_sweep();
    AUTO(close_dir) DIR *d = opendir(dir);
    if (!d)
        return err_fail(err, -errno, "cannot read %s: %s", dir, strerror(errno));
    struct dirent *e;
    while (c == 0 && (e = readdir(d)) != NULL && live.count < RECORD_COUNT_MAX) {
        struct attach_record r = {.server = 0};
        if (e->d_name[0] == '.')
            bury_beside(dirfd(d), e->d_name);
        if (e->d_name[0] == '.' || record_read(dirfd(d), e->d_name, &r) < 0)
            continue; /* not one of ours, or just vanished */
        char why[1];
        attach_protection_read(r.server, r.server_start, r.protection, why, sizeof why);
        if (is_alive(&r))
            c = vec_push(&live, r);
        else
            bury(dirfd(d), e->d_name, &r);
    }
    if (c < 0)
        c = err_fail(err, c, "not enough memory for the list of mounts");
    if (live.count)
        qsort(live.at, live.count, sizeof live.at[0], by_age);
    for (size_t i = 0; c == 0 && i < live.count; i++)
        c = fn(ctx, &live.at[i]);
    vec_release(&live);
    return c;
}

/* The prefix is that of file_name(). */
int attach_record_each_of(pid_t server, uint64_t start, attach_record_fn *fn, void *ctx)
{
    VEC(uint32_t) numbers = {0};
    char dir[ATTACH_PATH_MAX], prefix[FILE_NAME_MAX];
    int c = attach_runtime_sub("mounts", dir, NULL);

    if (c < 0)
        return c;
    AUTO(close_dir) DIR *d = opendir(dir);
    if (!d)
        return -errno;
    int length = snprintf(prefix, sizeof prefix, "%d-%" PRIu64 "-", (int)server, start);
    struct dirent *e;
    while (c == 0 && (e = readdir(d)) != NULL && numbers.count < RECORD_COUNT_MAX) {
        uint32_t number;
        if (strncmp(e->d_name, prefix, (size_t)length) == 0 &&
            sscanf(e->d_name + length, "%" SCNu32, &number) == 1)
            c = vec_push(&numbers, number);
    }
    for (size_t i = 0; c == 0 && i < numbers.count; i++) {
        struct attach_record r = {
            .server = server, .server_start = start, .attachment = numbers.at[i]};
        char name[FILE_NAME_MAX];
        file_name(&r, name);
        if (record_read(dirfd(d), name, &r) == 0)
            c = fn(ctx, &r);
    }
    vec_release(&numbers);
    return c;
}

bool attach_record_exists(const struct attach_record *r)
{
    char dir[ATTACH_PATH_MAX], name[FILE_NAME_MAX];
    struct stat st;

    if (attach_runtime_sub("mounts", dir, NULL) < 0)
        return false;
    AUTO(close_fd) int dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    file_name(r, name);
    return dir_fd >= 0 && fstatat(dir_fd, name, &st, AT_SYMLINK_NOFOLLOW) == 0;
}
