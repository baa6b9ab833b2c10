/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Making a directory to mount on where there is none, seen by one mount namespace only.
 *
 * A directory that exists is simply mounted over. Otherwise its nearest existing parent is rebuilt:
 * a small tmpfs with everything of the parent bound in (symbolic links made again), plus the
 * missing directories; then it is made read-only and takes the parent's place, by a move, or by
 * pivot_root if the parent is "/".
 *
 * What a command creates in a rebuilt directory itself would be lost, so only "/", /datastores and
 * directories in which the caller cannot create anything are rebuilt, and they refuse writes.
 */
#include "attach/attach-internal.h"

#include "base/file.h"
#include "base/name.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>

/* Entries of a directory that is rebuilt: each one is a mount. */
#define ENTRIES_MAX 1024

/* ---- looking
 * ------------------------------------------------------------------------------------------ */

/* The rest of a path consists of names only, so that it means what it says once it is made. */
static bool is_plain_rest(const char *rest)
{
    while (*rest == '/') {
        rest++;
        size_t n = strcspn(rest, "/");
        if (!name_is_file_name(rest, n))
            return false;
        rest += n;
    }
    return *rest == '\0';
}

static bool may_rebuild(const char *anchor)
{
    return strcmp(anchor, "/") == 0 || strcmp(anchor, "/datastores") == 0 ||
           access(anchor, W_OK) < 0;
}

/* "/a//b/" to "/a/b". */
static int squeeze(const char *target, char *path)
{
    size_t n = 0;

    for (const char *p = target; *p; p++) {
        if (*p == '/' && (p[1] == '/' || p[1] == '\0'))
            continue;
        if (n + 1 >= ATTACH_PATH_MAX)
            return -ENAMETOOLONG;
        path[n++] = *p;
    }
    path[n] = '\0';
    return 0;
}

int attach_place_find(const char *target, struct attach_place *ret, struct err *err)
{
    char path[ATTACH_PATH_MAX], anchor[ATTACH_PATH_MAX], real[PATH_MAX];
    struct stat st;

    if (target[0] != '/')
        return err_fail(err, -EINVAL, "%s is not an absolute path", target);
    if (squeeze(target, path) < 0)
        return err_fail(err, -ENAMETOOLONG, "the mount point's path is too long");
    if (!path[0])
        return err_fail(err, -EINVAL, "a datastore cannot be mounted at /");
    memcpy(anchor, path, sizeof anchor);
    size_t length = strlen(path);
    while (!realpath(length ? anchor : "/", real)) {
        if (errno != ENOENT)
            return err_fail(err, -errno, "cannot use %s as a mount point: %s", path,
                            strerror(errno));
        while (length > 0 && anchor[--length] != '/')
            continue;
        anchor[length] = '\0';
    }
    if (stat(real, &st) < 0 || !S_ISDIR(st.st_mode))
        return err_fail(err, -ENOTDIR, "cannot use %s as a mount point: %s is no directory", path,
                        real);
    if (strcmp(real, "/") == 0 && !path[length])
        return err_fail(err, -EINVAL, "a datastore cannot be mounted at /");
    if (path[length] && !is_plain_rest(path + length))
        return err_fail(err, -EINVAL, "%s cannot be made a mount point", path);
    if (path[length] && !may_rebuild(real))
        return err_fail(err, -ENOENT,
                        "the directory %s does not exist; make it, or give another mount point",
                        path);
    struct attach_place place = {.anchor_length = strlen(real)};
    int n = snprintf(place.path, sizeof place.path, "%s%s", strcmp(real, "/") == 0 ? "" : real,
                     path + length);
    if (n < 0 || (size_t)n >= sizeof place.path)
        return err_fail(err, -ENAMETOOLONG, "the mount point's path is too long");
    if (strcmp(real, "/") == 0)
        place.anchor_length = 0;
    *ret = place;
    return 0;
}

static bool exists(const struct attach_place *p)
{
    return p->path[p->anchor_length] == '\0';
}

static bool lies_in(const char *inner, const char *outer)
{
    size_t n = strlen(outer);

    return strncmp(inner, outer, n) == 0 && (inner[n] == '/' || inner[n] == '\0');
}

int attach_places_check(const struct attach_place *places, size_t count, struct err *err)
{
    for (size_t i = 0; i < count; i++) {
        for (size_t j = 0; j < count; j++) {
            if (i != j && lies_in(places[i].path, places[j].path))
                return err_fail(err, -EINVAL, "%s and %s cannot both be mount points",
                                places[j].path, places[i].path);
        }
    }
    return 0;
}

/* ---- rebuilding
 * ----------------------------------------------------------------------------------------- */

static int copy_link(int from_fd, int to_fd, const char *name)
{
    char target[PATH_MAX];
    ssize_t n = readlinkat(from_fd, name, target, sizeof target - 1);

    if (n < 0)
        return -errno;
    target[n] = '\0';
    return symlinkat(target, to_fd, name) < 0 ? -errno : 0;
}

/* Bind anchor/name to stage/name. */
static int bind_entry(const char *anchor, const char *stage, int to_fd, const char *name,
                      bool directory)
{
    char from[ATTACH_PATH_MAX], to[ATTACH_PATH_MAX];
    int n = snprintf(from, sizeof from, "%s/%s", anchor, name);
    int m = snprintf(to, sizeof to, "%s/%s", stage, name);

    if (n < 0 || (size_t)n >= sizeof from || m < 0 || (size_t)m >= sizeof to)
        return -ENAMETOOLONG;
    if (directory) {
        if (mkdirat(to_fd, name, 0755) < 0)
            return -errno;
    } else {
        AUTO(close_fd) int fd = openat(to_fd, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
        if (fd < 0)
            return -errno;
    }
    return mount(from, to, NULL, MS_BIND | MS_REC, NULL) < 0 ? -errno : 0;
}

static int mirror_entry(const char *anchor, const char *stage, int from_fd, int to_fd,
                        const struct dirent *e)
{
    unsigned type = e->d_type;
    struct stat st;

    if (type == DT_UNKNOWN) {
        if (fstatat(from_fd, e->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0)
            return errno == ENOENT ? 0 : -errno;
        type = S_ISDIR(st.st_mode) ? DT_DIR : S_ISLNK(st.st_mode) ? DT_LNK : DT_REG;
    }
    int c = type == DT_LNK ? copy_link(from_fd, to_fd, e->d_name)
                           : bind_entry(anchor, stage, to_fd, e->d_name, type == DT_DIR);
    if (c == -ENOENT) { /* it vanished meanwhile */
        (void)unlinkat(to_fd, e->d_name, type == DT_DIR ? AT_REMOVEDIR : 0);
        c = 0;
    }
    return c;
}

static int mirror_entries(const char *anchor, const char *stage, struct err *err)
{
    const char *slash = anchor[0] ? anchor : "/";
    AUTO(close_dir) DIR *d = opendir(slash);
    AUTO(close_fd) int to_fd = open(stage, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    struct dirent *e;
    size_t count = 0;

    if (!d || to_fd < 0)
        return err_fail(err, -errno, "cannot read the directory %s: %s", d ? stage : slash,
                        strerror(errno));
    while ((e = readdir(d)) != NULL) {
        if (!name_is_file_name(e->d_name, strlen(e->d_name)))
            continue;
        if (++count > ENTRIES_MAX)
            return err_fail(err, -E2BIG,
                            "%s holds more than %d entries; make the mount point's directory first",
                            slash, ENTRIES_MAX);
        int c = mirror_entry(anchor, stage, dirfd(d), to_fd, e);
        if (c < 0)
            return err_fail(err, c, "cannot bind %s/%s: %s", anchor, e->d_name, strerror(-c));
    }
    return 0;
}

static int make_rest(const char *stage, const char *rest, struct err *err)
{
    char path[ATTACH_PATH_MAX];
    int n = snprintf(path, sizeof path, "%s%s", stage, rest);
    int c = n < 0 || (size_t)n >= sizeof path ? -ENAMETOOLONG : file_mkdirs(path, 0755);

    return c < 0 ? err_fail(err, c, "cannot make %s: %s", rest, strerror(-c)) : 0;
}

static int set_root(const char *stage)
{
    if (chdir(stage) < 0)
        return -errno;
    /* The old root lands on the new one and is taken off again. */
    if (syscall(SYS_pivot_root, ".", ".") == 0)
        return umount2(".", MNT_DETACH) < 0 || chdir("/") < 0 ? -errno : 0;
    /* "/" is no mount point (a chroot, an initial RAM disk). */
    return chroot(".") < 0 || chdir("/") < 0 ? -errno : 0;
}

static int take_place(const char *anchor, const char *stage, struct err *err)
{
    int c = mount(NULL, stage, NULL, MS_PRIVATE, NULL);

    if (c == 0)
        c = mount(NULL, stage, NULL, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV, NULL);
    if (c == 0 && anchor[0])
        c = mount(stage, anchor, NULL, MS_MOVE, NULL);
    if (c < 0)
        c = -errno;
    else if (!anchor[0])
        c = set_root(stage);
    return c < 0 ? err_fail(err, c, "cannot put a new directory in the place of %s: %s",
                            anchor[0] ? anchor : "/", strerror(-c))
                 : 0;
}

/* Rebuild `anchor` ("" is the root) with all places in it that have no directory yet. */
static int rebuild(const char *anchor, const struct attach_place *places, size_t count,
                   const char *stage, struct err *err)
{
    size_t length = strlen(anchor);
    int c;

    if (mount("grid", stage, "tmpfs", MS_NOSUID | MS_NODEV, "mode=0755,size=16m") < 0 ||
        /* else binding the directory that holds the stage would bind the stage into itself */
        mount(NULL, stage, NULL, MS_UNBINDABLE, NULL) < 0)
        return err_fail(err, -errno, "cannot mount a tmpfs at %s: %s", stage, strerror(errno));
    c = mirror_entries(anchor, stage, err);
    for (size_t i = 0; c == 0 && i < count; i++) {
        const struct attach_place *p = &places[i];
        if (!exists(p) && p->anchor_length == length && memcmp(p->path, anchor, length) == 0)
            c = make_rest(stage, p->path + length, err);
    }
    return c == 0 ? take_place(anchor, stage, err) : c;
}

static int by_anchor(const void *a, const void *b)
{
    const struct attach_place *const *x = a, *const *y = b;

    return ((*x)->anchor_length < (*y)->anchor_length) -
           ((*x)->anchor_length > (*y)->anchor_length);
}

int attach_places_make(const struct attach_place *places, size_t count, const char *stage,
                       struct err *err)
{
    AUTO(free_ptr) const struct attach_place **order = calloc(count, sizeof(void *));
    char anchor[ATTACH_PATH_MAX];
    int c = 0;

    if (!order)
        return err_fail(err, -ENOMEM, "not enough memory");
    for (size_t i = 0; i < count; i++)
        order[i] = &places[i];
    /* Longest anchor first: the root, last, takes the others with it. */
    qsort(order, count, sizeof(void *), by_anchor);
    mode_t saved = umask(022); /* whoever the command becomes must get through */
    for (size_t i = 0; c == 0 && i < count; i++) {
        if (access(order[i]->path, F_OK) == 0)
            continue; /* it was there, or came with one that shares its anchor */
        memcpy(anchor, order[i]->path, order[i]->anchor_length);
        anchor[order[i]->anchor_length] = '\0';
        c = rebuild(anchor, places, count, stage, err);
    }
    (void)umask(saved); /* cannot fail */
    return c;
}

/* ---- places of others
 * -------------------------------------------------------------------------------------- */

int attach_place_pin(struct attach_place *place, uid_t uid, struct err *err)
{
    static const char common[] = "/datastores/";
    char link[64], real[ATTACH_PATH_MAX];
    struct stat st;
    AUTO(close_fd) int fd = open(place->path, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

    (void)snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = fd < 0 ? -1 : readlink(link, real, sizeof real - 1);
    if (n < 0 || fstat(fd, &st) < 0)
        return err_fail(err, -errno, "cannot use %s as a mount point: %s", place->path,
                        strerror(errno));
    real[n] = '\0';
    /* The path was free of symbolic links when it was looked at first, and must still be. */
    if (strcmp(real, place->path) != 0 ||
        (strncmp(real, common, sizeof common - 1) != 0 && st.st_uid != uid))
        return err_fail(err, -EPERM,
                        "a job's datastore is mounted below /datastores, or on a directory of the "
                        "user's own: %s is neither",
                        place->path);
    (void)snprintf(place->path, sizeof place->path, "%s", link); /* fits */
    (void)take_fd(&fd);                                          /* stays open with this process */
    return 0;
}
