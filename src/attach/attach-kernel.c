/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Mounts that the kernel reads itself: its EROFS over a file of ours, and with devices, over local
 * files besides.
 *
 * The file is the only one of a FUSE mount that stands nowhere (a detached mount): EROFS has it
 * open, and so keeps it. When the last EROFS mount is gone the kernel drops the FUSE mount as well,
 * and its server ends, as any server does. Nobody has to watch, in any namespace.
 *
 * With devices, where the server watches its jobs by other means, EROFS gets a copy of the index on
 * a local disk instead, so that the kernel asks nobody for anything; the copy has no name any more
 * when the mount is made.
 *
 * fsconfig(2) is called directly: mount(8) would put a loop device between.
 */
#include "attach/attach-internal.h"

#include "base/file.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#define ATTRIBUTES (MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOATIME)
/* What the kernel reads at once and ahead of need, where we may say so. */
#define READ_AHEAD_KIB "1024"
/* A longer index stays where it is: a copy costs time before the first read, and disk. */
#define COPY_MAX   (UINT64_C(1) << 30)
#define COPY_PIECE (1u << 20)
/* The magic number of EROFS; newer than the headers of our oldest distribution. */
#define EROFS_MAGIC 0xe0f5e1e2

void attach_source_name(const struct attach_record *r, char ret[static ATTACH_SOURCE_MAX])
{
    (void)snprintf(ret, ATTACH_SOURCE_MAX, ATTACH_SOURCE_FORMAT, r->name, r->version); /* fits */
}

static int set_text(int fs, const char *key, const char *value)
{
    return fsconfig(fs, FSCONFIG_SET_STRING, key, value, 0) < 0 ? -errno : 0;
}

/* What the kernel has to say of a failure, on the way to its log. */
static void read_complaint(int fs, char *ret, size_t size)
{
    char text[256];
    ssize_t n;

    while ((n = read(fs, text, sizeof text - 1)) > 0) {
        text[n] = '\0';
        text[strcspn(text, "\n")] = '\0';
        (void)snprintf(ret, size, ": %s", text[0] && text[1] == ' ' ? text + 2 : text);
    }
}

int attach_flat_mount(const struct attach_record *r, int *ret_mount_fd, int *ret_fuse_fd,
                      struct err *err)
{
    const struct {
        const char *key;
        unsigned value;
    } ids[] = {{"user_id", (unsigned)geteuid()}, {"group_id", (unsigned)getegid()}};
    char source[ATTACH_SOURCE_MAX], text[32];
    AUTO(close_fd) int fuse_fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);

    if (fuse_fd < 0)
        return err_fail(err, -errno, "cannot open /dev/fuse: %s", strerror(errno));
    AUTO(close_fd) int fs = fsopen("fuse", FSOPEN_CLOEXEC);
    if (fs < 0)
        return err_fail(err, -errno, "cannot make a FUSE mount: %s", strerror(errno));
    attach_source_name(r, source);
    int c = set_text(fs, "source", source);
    if (c == 0)
        c = set_text(fs, "subtype", "grid");
    (void)snprintf(text, sizeof text, "%d", fuse_fd);
    if (c == 0)
        c = set_text(fs, "fd", text);
    if (c == 0)
        c = set_text(fs, "rootmode", "40000");
    for (size_t i = 0; c == 0 && i < sizeof ids / sizeof ids[0]; i++) {
        (void)snprintf(text, sizeof text, "%u", ids[i].value);
        c = set_text(fs, ids[i].key, text);
    }
    if (c == 0 && (fsconfig(fs, FSCONFIG_SET_FLAG, "ro", NULL, 0) < 0 ||
                   fsconfig(fs, FSCONFIG_SET_FLAG, "allow_other", NULL, 0) < 0 ||
                   fsconfig(fs, FSCONFIG_SET_FLAG, "default_permissions", NULL, 0) < 0 ||
                   fsconfig(fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0))
        c = -errno;
    int mount_fd = c == 0 ? fsmount(fs, FSMOUNT_CLOEXEC, ATTRIBUTES) : -1;
    if (c == 0 && mount_fd < 0)
        c = -errno;
    if (c < 0)
        return err_fail(err, c, "cannot make a FUSE mount: %s", strerror(-c));
    *ret_mount_fd = mount_fd;
    *ret_fuse_fd = take_fd(&fuse_fd);
    return 0;
}

/* Where we may: a container often may not. */
static void raise_read_ahead(dev_t device)
{
    char path[64];

    (void)snprintf(path, sizeof path, "/sys/class/bdi/%u:%u/read_ahead_kb", major(device),
                   minor(device));
    AUTO(close_fd) int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd >= 0)
        (void)file_write(fd, READ_AHEAD_KIB, sizeof READ_AHEAD_KIB - 1); /* it is as it was, then */
}

/* The kernel opens the files again, by what their descriptors stand for: no path is too long, and
 * none is exchanged between a check and the mount. */
static int add_devices(int fs, const struct attach_devices *d)
{
    char path[48];
    int c = 0;

    for (size_t i = 0; c == 0 && i < d->count; i++) {
        (void)snprintf(path, sizeof path, "/proc/self/fd/%d", d->fds[i]);
        c = set_text(fs, "device", path);
    }
    return c;
}

void attach_devices_release(struct attach_devices *d)
{
    for (size_t i = 0; i < d->count; i++) {
        if (d->fds[i] >= 0)
            (void)close(d->fds[i]); /* read-only: nothing to lose */
    }
    free(d->fds);
    *d = (struct attach_devices){.fds = NULL};
}

/* `source` is a name in a directory, and relative: so it can be one for people. */
static int create_there(int fs, int dir_fd, const char *source)
{
    AUTO(close_fd) int here = open(".", O_PATH | O_DIRECTORY | O_CLOEXEC);
    int c = 0;

    if (here < 0 || fchdir(dir_fd) < 0)
        return -errno;
    c = set_text(fs, "source", source);
    if (c == 0 && fsconfig(fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0)
        c = -errno;
    if (fchdir(here) < 0 && c == 0)
        c = -errno;
    return c;
}

/* One attempt, with the file `source` in a directory. */
static int mount_source(const struct attach_record *r, int dir_fd, const char *source,
                        const struct attach_devices *devices, int *ret_mount_fd, struct err *err)
{
    char complaint[300] = "";
    struct statfs fs_stat;

    AUTO(close_fd) int fs = fsopen("erofs", FSOPEN_CLOEXEC);
    if (fs < 0)
        return err_fail(err, -EOPNOTSUPP, "this kernel has no EROFS: %s", strerror(errno));
    int c = fsconfig(fs, FSCONFIG_SET_FLAG, "ro", NULL, 0) < 0 ? -errno : 0;
    if (c == 0)
        c = add_devices(fs, devices);
    if (c == 0)
        c = create_there(fs, dir_fd, source);
    AUTO(close_fd) int mount_fd = c == 0 ? fsmount(fs, FSMOUNT_CLOEXEC, ATTRIBUTES) : -1;
    if (c == 0 && mount_fd < 0)
        c = -errno;
    if (c < 0) {
        read_complaint(fs, complaint, sizeof complaint);
        return err_fail(err, -EOPNOTSUPP, "the kernel does not mount %s:%u itself: %s%s", r->name,
                        r->version, strerror(-c), complaint);
    }
    if (fstatfs(mount_fd, &fs_stat) < 0 || (uint32_t)fs_stat.f_type != EROFS_MAGIC)
        return err_fail(err, -EOPNOTSUPP, "what the kernel mounted for %s:%u is no EROFS", r->name,
                        r->version);
    *ret_mount_fd = take_fd(&mount_fd);
    return 0;
}

/* ---- a copy of the index
 * -------------------------------------------------------------------------------- */

/* Nobody else may write there, and so exchange what the kernel parses. */
static bool is_our_directory(const char *path)
{
    struct stat st;

    return lstat(path, &st) == 0 && S_ISDIR(st.st_mode) && st.st_uid == geteuid() &&
           (st.st_mode & 022) == 0;
}

static int copy_bytes(int from, int to, uint64_t size)
{
    AUTO(free_ptr) uint8_t *piece = malloc(COPY_PIECE);
    int c = piece ? 0 : -ENOMEM;

    for (uint64_t at = 0; c == 0 && at < size;) {
        size_t n = size - at < COPY_PIECE ? (size_t)(size - at) : COPY_PIECE;
        ssize_t got = file_pread(from, piece, n, (off_t)at);
        c = got < 0 ? (int)got : (size_t)got < n ? -EIO : file_write(to, piece, n);
        at += n;
    }
    return c;
}

/* EROFS over a copy of the index (each byte verified, since it comes from the server) on our disk.
 */
static int mount_copy(const struct attach_record *r, int image, const char *source,
                      const struct attach_devices *devices, int *ret_mount_fd, struct err *err)
{
    const struct attach_kernel *k = r->kernel;
    char path[ATTACH_PATH_MAX];

    int c = file_mkdirs(k->copies, 0700);
    if (c == 0 && !is_our_directory(k->copies))
        c = -EPERM;
    int n = snprintf(path, sizeof path, "%s/kernel-XXXXXX", k->copies);
    if (c == 0 && (n < 0 || (size_t)n >= sizeof path))
        c = -ENAMETOOLONG;
    if (c == 0 && !mkdtemp(path))
        c = -errno;
    if (c < 0)
        return err_fail(err, c, "cannot keep a copy of an index in %s: %s", k->copies,
                        strerror(-c));
    AUTO(close_fd) int dir_fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    AUTO(close_fd)
    int fd = dir_fd < 0
                 ? -1
                 : openat(dir_fd, source, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    c = fd < 0 ? -errno : copy_bytes(image, fd, k->index_size);
    if (c < 0)
        c = err_fail(err, c, "cannot keep a copy of an index in %s: %s", path, strerror(-c));
    else
        c = mount_source(r, dir_fd, source, devices, ret_mount_fd, err);
    if (dir_fd >= 0)
        (void)unlinkat(dir_fd, source, 0); /* the kernel has it open */
    (void)rmdir(path);                     /* empty; if it stays, it is an empty directory */
    return c;
}

int attach_kernel_mount(const struct attach_record *r, int flat_fd,
                        const struct attach_devices *devices, bool copy, int *ret_mount_fd,
                        struct err *err)
{
    const struct attach_kernel *k = r->kernel;
    char source[ATTACH_SOURCE_MAX];
    struct err why = ERR_INIT;
    struct stat st;

    attach_source_name(r, source);
    AUTO(close_fd) int image = openat(flat_fd, source, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (image < 0 || fstat(image, &st) < 0)
        return err_fail(err, -errno, "cannot open the image of %s:%u: %s", r->name, r->version,
                        strerror(errno));
    raise_read_ahead(st.st_dev);
    if (copy && k->devices && k->copies && k->index_size <= COPY_MAX &&
        mount_copy(r, image, source, devices, ret_mount_fd, &why) == 0)
        return 0;
    if (k->ahead)
        (void)posix_fadvise(image, 0, (off_t)k->ahead, POSIX_FADV_WILLNEED); /* or later */
    return mount_source(r, flat_fd, source, devices, ret_mount_fd, err);
}

int attach_kernel_try(const struct attach_record *r, attach_serve_fn *serve, void *ctx,
                      int *ret_mount_fd, struct err *err)
{
    const struct attach_devices none = {.fds = NULL};
    struct attach_server server = ATTACH_SERVER_NONE;
    AUTO(close_fd) int fuse_fd = -1;
    AUTO(close_fd) int flat_fd = -1;
    int c = attach_server_start(r, serve, ctx, NULL, 0, &server, err);

    if (c < 0)
        return c;
    c = attach_flat_mount(r, &flat_fd, &fuse_fd, err);
    if (c == 0) {
        c = attach_server_command(&server, ATTACH_TRIAL, "/", fuse_fd);
        c = c < 0 ? err_fail(err, c, "the server died") : attach_server_wait(&server, r, err);
    }
    if (c == 0)
        c = attach_kernel_mount(r, flat_fd, &none, false, ret_mount_fd, err);
    attach_server_close(&server);
    return c;
}

int attach_kernel_show(const struct attach_record *r, int flat_fd, const char *place,
                       struct err *err)
{
    AUTO(attach_devices_release) struct attach_devices devices = {.fds = NULL};
    AUTO(close_fd) int mount_fd = -1;
    int c = r->kernel->devices ? r->kernel->devices(r->kernel->ctx, &devices, err) : 0;

    if (c == 0)
        c = attach_kernel_mount(r, flat_fd, &devices, false, &mount_fd, err);
    if (c == 0 && move_mount(mount_fd, "", AT_FDCWD, place, MOVE_MOUNT_F_EMPTY_PATH) < 0)
        c = err_fail(err, -errno, "cannot mount at %s: %s", place, strerror(errno));
    return c;
}
