/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Mounts in view of all, that stay until somebody unmounts them.
 */
#include "attach/attach-shared.h"

#include <dirent.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>

/* After the unmount the server has to see it, and to close its store. */
#define GONE_MS 5000

static int check_empty(const char *path, struct err *err)
{
    AUTO(close_dir) DIR *d = opendir(path);
    struct dirent *e;

    if (!d)
        return err_fail(err, -errno, "cannot mount at %s: %s", path, strerror(errno));
    while ((e = readdir(d)) != NULL) {
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
            return err_fail(err, -ENOTEMPTY, "cannot mount at %s: the directory is not empty",
                            path);
    }
    return 0;
}

static int make_absolute(char path[static ATTACH_PATH_MAX], struct err *err)
{
    AUTO(free_ptr) char *real = realpath(path, NULL);

    if (!real)
        return err_fail(err, -errno, "cannot use %s as a mount point: %s", path, strerror(errno));
    if (strlen(real) >= ATTACH_PATH_MAX)
        return err_fail(err, -ENAMETOOLONG, "the mount point's path is too long");
    memcpy(path, real, strlen(real) + 1);
    return 0;
}

/* A server for this mount alone. */
static int serve_alone(const struct attach_item *item, struct err *err)
{
    const struct attach_record *record = &item->record;
    struct attach_server server = ATTACH_SERVER_NONE;
    AUTO(close_fd) int fd = -1;
    AUTO(close_fd) int flat_fd = -1;
    int c = attach_server_start(record, item->serve, item->serve_ctx, NULL, 0, &server, err);

    if (c < 0)
        return c;
    if (record->kernel)
        c = attach_flat_mount(record, &flat_fd, &fd, err);
    else if (geteuid() == 0)
        c = attach_fuse_mount(record, record->mountpoint, &fd, err);
    bool mounted = fd >= 0 && !record->kernel;
    if (c == 0) {
        c = attach_server_command(&server, ATTACH_VISIBLE, record->mountpoint, fd);
        if (c < 0)
            c = err_fail(err, c, "the server of %s:%u died", record->name, record->version);
    }
    if (c == 0)
        c = attach_server_wait(&server, record, err);
    if (c == 0 && record->kernel)
        c = attach_kernel_show(record, flat_fd, record->mountpoint, err);
    if (c < 0 && mounted)
        (void)attach_fuse_unmount(record->mountpoint, true, NULL); /* the first failure counts */
    attach_server_close(&server);
    return c;
}

int attach_serve_background(struct attach_item *item, struct err *err)
{
    struct attach_record *record = &item->record;
    struct err why = ERR_INIT;
    dev_t device;
    int c = make_absolute(record->mountpoint, err);

    if (c == 0 && attach_fuse_find(record->mountpoint, &device) == 0)
        return err_fail(err, -EBUSY, "a datastore is mounted at %s already", record->mountpoint);
    if (c == 0)
        c = check_empty(record->mountpoint, err);
    if (c < 0)
        return c;
    /* The server mounts where it is: in the machine's own namespace. */
    c = apart_is_possible() ? attach_shared_visible(item, &why) : -EOPNOTSUPP;
    if (c == -EOPNOTSUPP)
        return serve_alone(item, err);
    return c < 0 ? err_fail(err, c, "%s", err_text(&why, c)) : 0;
}

/* ---- unmounting
 * ---------------------------------------------------------------------------------------- */

struct search {
    const char *mountpoint;
    struct attach_record found;
    bool any;
};

static int match(void *ctx, const struct attach_record *r)
{
    struct search *s = ctx;

    if (r->run[0] == '\0' && strcmp(r->mountpoint, s->mountpoint) == 0) {
        s->found = *r;
        s->any = true;
    }
    return 0;
}

/* Of its server, or of this mount at one that goes on. */
static void wait_for_end(const struct attach_record *r)
{
    struct timespec pause = {.tv_nsec = 2000000};
    uint64_t start;

    for (int waited = 0; waited < GONE_MS; waited += 2) {
        if (attach_process_start(r->server, &start) < 0 || start != r->server_start ||
            (r->attachment && !attach_record_exists(r)))
            return;
        (void)nanosleep(&pause, NULL); /* too early does no harm */
    }
}

/* The absolute path, without asking the file system below it: its server may be dead. */
static int name_mountpoint(const char *mountpoint, char path[static ATTACH_PATH_MAX],
                           struct err *err)
{
    AUTO(free_ptr) char *copy = strdup(mountpoint);
    size_t length = strlen(mountpoint);
    int n;

    if (!copy)
        return err_fail(err, -ENOMEM, "not enough memory");
    while (length > 1 && copy[length - 1] == '/')
        copy[--length] = '\0';
    char *slash = strrchr(copy, '/');
    const char *last = slash ? slash + 1 : copy;
    if (!last[0] || strcmp(last, ".") == 0 || strcmp(last, "..") == 0) {
        n = snprintf(path, ATTACH_PATH_MAX, "%s", mountpoint);
        return n < 0 || n >= ATTACH_PATH_MAX ? -ENAMETOOLONG : make_absolute(path, err);
    }
    if (slash)
        *slash = '\0';
    const char *parent = !slash ? "." : slash == copy ? "/" : copy;
    AUTO(free_ptr) char *real = realpath(parent, NULL);
    if (!real)
        return err_fail(err, -errno, "cannot look at %s: %s", mountpoint, strerror(errno));
    n = snprintf(path, ATTACH_PATH_MAX, "%s/%s", strcmp(real, "/") == 0 ? "" : real, last);
    return n < 0 || n >= ATTACH_PATH_MAX
               ? err_fail(err, -ENAMETOOLONG, "the mount point's path is too long")
               : 0;
}

int attach_unmount(const char *mountpoint, bool lazy, struct err *err)
{
    char path[ATTACH_PATH_MAX];
    struct search s = {.mountpoint = path};
    dev_t device;
    int c = name_mountpoint(mountpoint, path, err);

    if (c < 0)
        return c;
    bool there = attach_fuse_find(path, &device) == 0;
    if (!there) {
        /* Perhaps a symbolic link leads to it. */
        c = make_absolute(path, err);
        if (c < 0)
            return c;
        there = attach_fuse_find(path, &device) == 0;
    }
    c = attach_each(match, &s, err); /* which also takes away what a dead server left */
    if (c < 0)
        return c;
    if (attach_fuse_find(path, &device) < 0)
        return s.any || there ? 0
                              : err_fail(err, -EINVAL, "no datastore is mounted at %s", mountpoint);
    c = attach_fuse_unmount(path, lazy, err);
    if (c == 0 && s.any && !lazy)
        wait_for_end(&s.found);
    return c;
}
