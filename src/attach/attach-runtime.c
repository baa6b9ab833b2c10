/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The runtime directory: records, logs and private mount points of one user.
 *
 * Whoever could write there could have us mount or unmount things, so it is ours and closed to
 * others, or refused. No symlink is followed in its last component.
 */
#include "attach/attach-internal.h"

#include "base/file.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

/* A log that grew beyond this starts anew: it holds one line per event, so this is years. */
#define LOG_MAX (1 << 20)

static int path_format(char *path, size_t size, const char *a, const char *b, struct err *err)
{
    int n = snprintf(path, size, "%s/%s", a, b);

    if (n < 0 || (size_t)n >= size)
        return err_fail(err, -ENAMETOOLONG, "the path %s/%s is too long", a, b);
    return 0;
}

/* Made if it is missing; a directory, ours, and closed to others; or a sentence. */
static int private_dir(const char *path, struct err *err)
{
    struct stat st;

    if (mkdir(path, 0700) < 0 && errno != EEXIST)
        return err_fail(err, -errno, "cannot make the directory %s: %s", path, strerror(errno));
    if (lstat(path, &st) < 0)
        return err_fail(err, -errno, "cannot look at %s: %s", path, strerror(errno));
    if (!S_ISDIR(st.st_mode))
        return err_fail(err, -ENOTDIR, "%s is not a directory", path);
    if (st.st_uid != geteuid())
        return err_fail(err, -EPERM, "%s belongs to somebody else; set GRID_RUNTIME_DIR", path);
    if ((st.st_mode & 0777) != 0700 && chmod(path, 0700) < 0)
        return err_fail(err, -errno, "cannot close %s to others: %s", path, strerror(errno));
    return 0;
}

static bool is_own_dir(const char *path)
{
    struct stat st;

    return path[0] == '/' && stat(path, &st) == 0 && S_ISDIR(st.st_mode) && st.st_uid == geteuid();
}

int attach_runtime_dir(char *ret_path, size_t size, struct err *err)
{
    const char *chosen = getenv("GRID_RUNTIME_DIR");
    const char *xdg = getenv("XDG_RUNTIME_DIR");
    char path[ATTACH_PATH_MAX], name[32];
    int r;

    if (chosen && chosen[0]) {
        if (chosen[0] != '/')
            return err_fail(err, -EINVAL, "GRID_RUNTIME_DIR must be an absolute path, not \"%s\"",
                            chosen);
        r = file_mkdirs(chosen, 0700);
        if (r < 0)
            return err_fail(err, r, "cannot make the directory %s: %s", chosen, strerror(-r));
        if (strlen(chosen) >= sizeof path)
            return err_fail(err, -ENAMETOOLONG, "GRID_RUNTIME_DIR is too long");
        memcpy(path, chosen, strlen(chosen) + 1);
    } else if (geteuid() == 0) {
        r = file_mkdirs("/run", 0755);
        if (r < 0)
            return err_fail(err, r, "cannot make the directory /run: %s", strerror(-r));
        memcpy(path, "/run/grid", sizeof "/run/grid");
    } else if (xdg && is_own_dir(xdg)) {
        r = path_format(path, sizeof path, xdg, "grid", err);
        if (r < 0)
            return r;
    } else {
        (void)snprintf(name, sizeof name, "/tmp/grid-%u", (unsigned)geteuid());
        memcpy(path, name, strlen(name) + 1);
    }
    r = private_dir(path, err);
    if (r < 0)
        return r;
    if (strlen(path) >= size)
        return err_fail(err, -ENAMETOOLONG, "the path %s is too long", path);
    memcpy(ret_path, path, strlen(path) + 1);
    return 0;
}

int attach_runtime_sub(const char *sub, char ret_path[static ATTACH_PATH_MAX], struct err *err)
{
    char base[ATTACH_PATH_MAX], path[ATTACH_PATH_MAX];
    int r = attach_runtime_dir(base, sizeof base, err);

    if (r == 0)
        r = path_format(path, sizeof path, base, sub, err);
    if (r == 0)
        r = private_dir(path, err);
    if (r == 0)
        memcpy(ret_path, path, sizeof path);
    return r;
}

int attach_log_open(const struct attach_record *r, int *ret_fd, struct err *err)
{
    char dir[ATTACH_PATH_MAX], name[128], path[ATTACH_PATH_MAX];
    struct stat st;
    int c = attach_runtime_sub("log", dir, err);

    if (c < 0)
        return c;
    (void)snprintf(name, sizeof name, "%s-%u.log", r->name, r->version);
    c = path_format(path, sizeof path, dir, name, err);
    if (c < 0)
        return c;
    AUTO(close_fd)
    int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_NOFOLLOW | O_CLOEXEC | O_NOCTTY, 0600);
    if (fd < 0 || fstat(fd, &st) < 0)
        return err_fail(err, -errno, "cannot open the log %s: %s", path, strerror(errno));
    if (st.st_size > LOG_MAX && ftruncate(fd, 0) < 0)
        return err_fail(err, -errno, "cannot start the log %s anew: %s", path, strerror(errno));
    *ret_fd = take_fd(&fd);
    return 0;
}
