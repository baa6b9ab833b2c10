/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who serves what: <runtime>/servers/KEY.sock is the socket of the one server of an identity, and
 * KEY a digest of that identity, which every job can work out by itself.
 *
 * A server is there if its socket can be connected to: the kernel refuses one whose processes are
 * all gone, so nothing on disk has to be true. Who finds nobody takes the lock, looks again, and
 * only then starts one, whose socket gets its name when it works. Names are taken away under the
 * lock too, so nobody removes what is another's.
 */
#include "attach/attach-shared.h"

#include "base/buf.h"
#include "base/digest.h"
#include "base/hex.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

/* More jobs at once than this wait in connect(); the kernel's own limit is the same. */
#define BACKLOG 4096
/* Beyond all that a server may take to be ready, or to be replaced. */
#define ANSWER_S (2 * ATTACH_PATIENCE_S)

/* A path below the directory that fits into a socket's address, however long the directory's. */
static void address_of(const struct registry *g, const char *suffix, struct sockaddr_un *ret)
{
    *ret = (struct sockaddr_un){.sun_family = AF_UNIX};
    (void)snprintf(ret->sun_path, sizeof ret->sun_path, "/proc/self/fd/%d/%s%s", g->dir_fd, g->key,
                   suffix); /* fits */
}

static void name_of(const struct registry *g, const char *suffix, char ret[static 64])
{
    (void)snprintf(ret, 64, "%s%s", g->key, suffix); /* fits */
}

int registry_open(const struct attach_record *r, const char *share, struct registry *ret,
                  struct err *err)
{
    AUTO(buf_release) struct buf text = BUF_INIT(64u << 10);
    char dir[ATTACH_PATH_MAX];
    int c = attach_runtime_sub("servers", dir, err);

    if (c == 0)
        c = buf_printf(&text, "%u\n%s\n%" PRIu32 "\n%s\n%s", (unsigned)geteuid(), r->name,
                       r->version, r->mode, share);
    if (c < 0)
        return c;
    struct digest d = digest_of(text.data, text.size);
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return err_fail(err, -errno, "cannot open %s: %s", dir, strerror(errno));
    ret->dir_fd = fd;
    hex_encode(ret->key, d.byte, (sizeof ret->key - 1) / 2);
    return 0;
}

void registry_close(struct registry *g)
{
    int fd = take_fd(&g->dir_fd);

    if (fd >= 0)
        (void)close(fd); /* a directory: nothing to lose */
}

static int connect_to(const struct sockaddr_un *address, int *ret_fd)
{
    const struct timeval limit = {.tv_sec = ANSWER_S};
    struct ucred peer;
    socklen_t size = sizeof peer;
    AUTO(close_fd) int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit) < 0 ||
        setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit) < 0)
        return -errno;
    while (connect(fd, (const struct sockaddr *)address, sizeof *address) < 0) {
        if (errno == EINTR)
            continue;
        return errno == ECONNREFUSED ? -ENOENT : errno == EAGAIN ? -ETIMEDOUT : -errno;
    }
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) < 0)
        return -errno;
    if (peer.uid != geteuid())
        return -EPERM;
    *ret_fd = take_fd(&fd);
    return 0;
}

int registry_connect(const struct registry *g, int *ret_fd)
{
    struct sockaddr_un address;

    address_of(g, ".sock", &address);
    return connect_to(&address, ret_fd);
}

static int lock_directory(int dir_fd, bool wait, int *ret_fd)
{
    AUTO(close_fd)
    int fd = openat(dir_fd, "lock", O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC | O_NOCTTY, 0600);

    if (fd < 0)
        return -errno;
    while (flock(fd, LOCK_EX | (wait ? 0 : LOCK_NB)) < 0) {
        if (errno == EINTR)
            continue;
        return errno == EWOULDBLOCK ? -EAGAIN : -errno;
    }
    *ret_fd = take_fd(&fd);
    return 0;
}

int registry_lock(const struct registry *g, bool wait, int *ret_fd)
{
    return lock_directory(g->dir_fd, wait, ret_fd);
}

/* Inode numbers are given out again at once; with the time of its making it is one of a kind. */
static uint64_t mark_of(const struct stat *st)
{
    const uint64_t parts[] = {st->st_ino, (uint64_t)st->st_mtim.tv_sec,
                              (uint64_t)st->st_mtim.tv_nsec};
    struct digest d = digest_of(parts, sizeof parts);
    uint64_t mark;

    memcpy(&mark, d.byte, sizeof mark);
    return mark;
}

int registry_offer(const struct registry *g, int *ret_listen_fd, uint64_t *ret_mark)
{
    struct sockaddr_un address;
    char name[64];
    struct stat st;
    AUTO(close_fd) int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    if (fd < 0)
        return -errno;
    address_of(g, ".new", &address);
    name_of(g, ".new", name);
    (void)unlinkat(g->dir_fd, name, 0); /* of one that died here */
    mode_t mask = umask(0177);
    int c = bind(fd, (const struct sockaddr *)&address, sizeof address) < 0 ? -errno : 0;
    (void)umask(mask); /* cannot fail */
    if (c == 0 && (listen(fd, BACKLOG) < 0 || fstatat(g->dir_fd, name, &st, 0) < 0))
        c = -errno;
    if (c < 0)
        return c;
    *ret_listen_fd = take_fd(&fd);
    *ret_mark = mark_of(&st);
    return 0;
}

int registry_publish(const struct registry *g)
{
    char from[64], to[64];

    name_of(g, ".new", from);
    name_of(g, ".sock", to);
    return renameat(g->dir_fd, from, g->dir_fd, to) < 0 ? -errno : 0;
}

void registry_withdraw(const struct registry *g, uint64_t mark)
{
    static const char *const suffixes[] = {".sock", ".new"};
    char name[64];
    struct stat st;

    for (size_t i = 0; i < sizeof suffixes / sizeof suffixes[0]; i++) {
        name_of(g, suffixes[i], name);
        if (fstatat(g->dir_fd, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && mark_of(&st) == mark)
            (void)unlinkat(g->dir_fd, name, 0); /* gone already: as wanted */
    }
}

void registry_sweep(void)
{
    char dir[ATTACH_PATH_MAX];
    struct registry g = {.dir_fd = -1};
    struct dirent *e;

    if (attach_runtime_sub("servers", dir, NULL) < 0)
        return;
    AUTO(close_dir) DIR *d = opendir(dir);
    AUTO(close_fd) int lock_fd = -1;
    if (!d)
        return;
    g.dir_fd = dirfd(d);
    while ((e = readdir(d)) != NULL) {
        const char *dot = strchr(e->d_name, '.');
        AUTO(close_fd) int fd = -1;
        if (!dot || dot - e->d_name != REGISTRY_KEY_SIZE - 1 || strcmp(dot, ".sock") != 0)
            continue;
        memcpy(g.key, e->d_name, sizeof g.key - 1);
        g.key[sizeof g.key - 1] = '\0';
        if (lock_fd < 0 && lock_directory(g.dir_fd, false, &lock_fd) < 0)
            return; /* somebody is at work: another time */
        if (registry_connect(&g, &fd) == -ENOENT)
            (void)unlinkat(g.dir_fd, e->d_name, 0); /* another time, then */
    }
}
