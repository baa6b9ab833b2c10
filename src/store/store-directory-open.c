/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Opening a directory store: which file system it stands on decides whether it may be written to,
 * since put-if-absent and "a listing sees what was written before it" must hold between all hosts.
 *
 * Also names of temporaries, and the cleaning of those whose process is gone.
 */
#include "store/store-internal.h"

#include "base/digest.h"
#include "base/file.h"
#include "base/hex.h"

#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/vfs.h>

/* A temporary this old belongs to nobody, if its process is gone as well. */
#define TEMP_AGE_S (24 * 3600)
/* Opening a store must not take long because of somebody's litter. */
#define TEMPS_MAX 4096

/* ---- file systems ---- */

/* Reasons stand in docs/formats/store.md. Numbers are f_type of statfs(2), 32 bits of it. */
static const struct {
    uint32_t type;
    enum store_sharing sharing;
    const char *name;
} file_systems[] = {
    {0x0000ef53, STORE_SHARING_LOCAL, "ext4"}, /* ext2 and ext3 have the same number */
    {0x58465342, STORE_SHARING_LOCAL, "XFS"},       {0x9123683e, STORE_SHARING_LOCAL, "Btrfs"},
    {0x2fc12fc1, STORE_SHARING_LOCAL, "ZFS"},       {0x01021994, STORE_SHARING_LOCAL, "tmpfs"},
    {0x858458f6, STORE_SHARING_LOCAL, "ramfs"},     {0x794c7630, STORE_SHARING_LOCAL, "overlayfs"},
    {0xf2f52010, STORE_SHARING_LOCAL, "F2FS"},      {0xca451a4e, STORE_SHARING_LOCAL, "bcachefs"},
    {0x0bd00bd0, STORE_SHARING_COHERENT, "Lustre"}, {0x47504653, STORE_SHARING_COHERENT, "GPFS"},
    {0x00c36400, STORE_SHARING_COHERENT, "CephFS"}, {0x19830326, STORE_SHARING_COHERENT, "BeeGFS"},
    {0x00006969, STORE_SHARING_READ, "NFS"},        {0x65735546, STORE_SHARING_UNKNOWN, "FUSE"},
    {0xff534d42, STORE_SHARING_UNKNOWN, "SMB"},     {0xfe534d42, STORE_SHARING_UNKNOWN, "SMB"},
    {0x0000517b, STORE_SHARING_UNKNOWN, "SMB"},     {0x01021997, STORE_SHARING_UNKNOWN, "9p"},
};

enum store_sharing store_directory_sharing(uint64_t fs_type, const char **ret_name)
{
    const char *name = "unknown";
    enum store_sharing sharing = STORE_SHARING_UNKNOWN;

    for (size_t i = 0; i < sizeof file_systems / sizeof *file_systems; i++) {
        if (file_systems[i].type == (uint32_t)fs_type) {
            name = file_systems[i].name;
            sharing = file_systems[i].sharing;
        }
    }
    if (ret_name)
        *ret_name = name;
    return sharing;
}

bool store_directory_is_disk(uint64_t fs_type)
{
    static const uint32_t disks[] = {0x0000ef53, 0x58465342, 0x9123683e, 0xf2f52010, 0xca451a4e};

    for (size_t i = 0; i < sizeof disks / sizeof *disks; i++) {
        if (disks[i] == (uint32_t)fs_type)
            return true;
    }
    return false;
}

/* The file system decides; whether link(2) does what it must is not for a library to try. */
int store_directory_probe(struct store *s, struct store_probe *ret, struct err *err)
{
    static const char *const promises[] = {
        [STORE_SHARING_LOCAL] = "one host uses it",
        [STORE_SHARING_COHERENT] = "many hosts may use it",
        [STORE_SHARING_READ] = "other hosts may only read",
        [STORE_SHARING_UNKNOWN] = "nothing is known of it",
    };
    const struct store_directory *d = (const struct store_directory *)s;
    struct statfs fs;
    const char *name;

    if (fstatfs(d->root_fd, &fs) < 0)
        return err_fail(err, -errno, "cannot look at %s: %s", s->location, strerror(errno));
    enum store_sharing sharing = store_directory_sharing((uint64_t)fs.f_type, &name);
    *ret = (struct store_probe){.versioning = -1,
                                .lifecycle = -1,
                                .replication = -1,
                                .file_system = name,
                                .sharing = promises[sharing]};
    return 0;
}

/* Whether a store at `fd` may be written to; `path` is for the sentence. */
static int check_file_system(int fd, const char *path, unsigned flags, bool *ret_own_clock,
                             struct err *err)
{
    struct statfs fs;
    const char *name;

    if (fstatfs(fd, &fs) < 0)
        return err_fail(err, -errno, "cannot find out the file system of %s: %s", path,
                        strerror(errno));
    enum store_sharing sharing = store_directory_sharing((uint64_t)fs.f_type, &name);
    *ret_own_clock = sharing == STORE_SHARING_LOCAL;
    if (!(flags & STORE_WRITE))
        return 0;
    if (sharing == STORE_SHARING_READ)
        return err_fail(err, -EPERM,
                        "the store %s stands on %s, where hosts do not see at once what others "
                        "wrote: it can be read there, not written to",
                        path, name);
    if (sharing == STORE_SHARING_UNKNOWN && !(flags & STORE_COHERENT))
        return err_fail(err, -EPERM,
                        "the store %s stands on a file system (%s, type 0x%x) that is not known "
                        "to be coherent between hosts: --store-is-coherent declares that it is",
                        path, name, (unsigned)(uint32_t)fs.f_type);
    return 0;
}

/* ---- the root ---- */

/* Cut `path` down to its parent; false at "/". */
static bool to_parent(char *path)
{
    char *slash = strrchr(path, '/');

    if (!slash || !path[1])
        return false;
    slash[slash == path ? 1 : 0] = '\0';
    return true;
}

/* Make the root and what is missing above it, durably. The file system is asked before. */
static int make_root(const char *path, unsigned flags, struct err *err)
{
    char above[PATH_MAX], part[PATH_MAX];
    AUTO(close_fd) int fd = -1;
    bool own_clock;

    (void)snprintf(above, sizeof above, "%s", path);
    do {
        if (!to_parent(above))
            return err_fail(err, -ENOENT, "the store %s cannot be made", path);
        fd = open(above, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    } while (fd < 0 && errno == ENOENT);
    if (fd < 0)
        return err_fail(err, -errno, "cannot make the store %s: %s: %s", path, above,
                        strerror(errno));
    int r = check_file_system(fd, path, flags, &own_clock, err);
    if (r < 0)
        return r;
    r = file_mkdirs(path, 0777);
    (void)snprintf(part, sizeof part, "%s", path);
    while (r == 0 && strcmp(part, above) != 0 && to_parent(part))
        r = file_fsync_dir(part);
    return r < 0 ? err_fail(err, r, "cannot make the store %s: %s", path, strerror(-r)) : 0;
}

static int open_root(const char *path, unsigned flags, int *ret_fd, struct err *err)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (fd < 0 && errno == ENOENT && (flags & STORE_WRITE)) {
        int r = make_root(path, flags, err);
        if (r < 0)
            return r;
        fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    }
    if (fd < 0 && errno == ENOENT)
        return err_fail(err, -ENOENT, "there is no store at %s: no such directory", path);
    if (fd < 0)
        return err_fail(err, -errno, "cannot open the store %s: %s", path, strerror(errno));
    *ret_fd = fd;
    return 0;
}

/* Unnamed files get their name through /proc, which a chroot may lack. */
static bool has_proc(int fd)
{
    char path[64];

    (void)snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    return access(path, F_OK) == 0;
}

int store_directory_open(const char *path, unsigned flags, struct store **ret, struct err *err)
{
    char root[PATH_MAX], location[PATH_MAX + 8];
    AUTO(close_fd) int fd = -1;
    bool own_clock;
    size_t length = strlen(path);

    if (length >= sizeof root)
        return err_fail(err, -ENAMETOOLONG, "the path of the store is longer than %d bytes",
                        PATH_MAX - 1);
    while (length > 1 && path[length - 1] == '/')
        length--;
    memcpy(root, path, length);
    root[length] = '\0';

    int r = open_root(root, flags, &fd, err);
    if (r == 0)
        r = check_file_system(fd, root, flags, &own_clock, err);
    if (r < 0)
        return r;
    if ((flags & STORE_WRITE) && faccessat(fd, ".", W_OK | X_OK, AT_EACCESS) < 0)
        return err_fail(err, -errno, "the store %s cannot be written to: %s", root,
                        strerror(errno));

    struct store_directory *d = calloc(1, sizeof *d);
    (void)snprintf(location, sizeof location, "file://%s", root);
    if (!d || store_init(&d->base, &store_directory_ops, location) < 0) {
        free(d);
        return -ENOMEM;
    }
    d->writable = flags & STORE_WRITE;
    d->own_clock = own_clock;
    d->named_temps = !has_proc(fd);
    d->root_fd = take_fd(&fd);
    pthread_mutex_init(&d->lock, NULL);
    if (d->writable)
        store_temps_clean(d);
    *ret = &d->base;
    return 0;
}

/* ---- temporaries ---- */

#define HOST_DIGITS 16u /* of the digest that stands for a host */

/* "<host>-<boot>-", the same for all processes of a host since its start. The host name is part of
 * it, since cloned machines share their machine-id. */
static void temp_prefix(char *text, size_t size)
{
    char host[256] = "", hex[HOST_DIGITS + 1], boot[64] = "";
    struct buf id = BUF_INIT(4096), boot_id = BUF_INIT(4096);

    (void)gethostname(host, sizeof host - 1);           /* without one the machine-id must do */
    (void)file_slurp(AT_FDCWD, "/etc/machine-id", &id); /* the same the other way round */
    if (buf_append_str(&id, host) < 0)
        buf_clear(&id);
    struct digest digest = digest_of(id.data, id.size);
    hex_encode(hex, digest.byte, HOST_DIGITS / 2);
    if (file_slurp(AT_FDCWD, "/proc/sys/kernel/random/boot_id", &boot_id) == 0) {
        size_t n = 0;
        for (const char *p = buf_text(&boot_id); *p && n < sizeof boot - 1; p++) {
            if (*p != '-' && *p != '\n')
                boot[n++] = *p;
        }
    }
    (void)snprintf(text, size, "%s-%s-", hex, boot);
    buf_release(&id);
    buf_release(&boot_id);
}

void store_temp_name(char ret[static STORE_TEMP_NAME_SIZE], pid_t pid)
{
    char prefix[STORE_TEMP_NAME_SIZE], random_hex[17];
    uint8_t random[8];

    temp_prefix(prefix, sizeof prefix - 32); /* room for pid and random */
    env_real()->random(env_real(), random, sizeof random);
    hex_encode(random_hex, random, sizeof random);
    (void)snprintf(ret, STORE_TEMP_NAME_SIZE, "%.60s%ld-%s", prefix, (long)pid, random_hex);
}

/* Whether `name` is of this host, and of a process that no longer runs. */
static bool is_orphan(const char *name, const char *prefix)
{
    const char *boot = prefix + HOST_DIGITS + 1;
    size_t boot_length = strlen(boot);
    char *end;

    if (boot_length <= 1 || strncmp(name, prefix, HOST_DIGITS + 1) != 0)
        return false;
    if (strncmp(name + HOST_DIGITS + 1, boot, boot_length) != 0)
        return true; /* before the last start of this host */
    long pid = strtol(name + HOST_DIGITS + 1 + boot_length, &end, 10);
    return *end == '-' && pid > 0 && kill((pid_t)pid, 0) < 0 && errno == ESRCH;
}

void store_temps_clean(const struct store_directory *d)
{
    char prefix[STORE_TEMP_NAME_SIZE];
    struct stat st;
    int64_t now = env_real()->wall_ms(env_real()) / 1000;
    int fd =
        openat(d->root_fd, STORE_TEMP_DIRECTORY, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    AUTO(close_dir) DIR *dir = fd < 0 ? NULL : fdopendir(fd);

    if (!dir) {
        if (fd >= 0)
            (void)close(fd); /* a directory: nothing to lose */
        return;
    }
    temp_prefix(prefix, sizeof prefix - 32);
    for (int i = 0; i < TEMPS_MAX; i++) {
        const struct dirent *entry = readdir(dir);
        if (!entry)
            break;
        if (!is_orphan(entry->d_name, prefix) ||
            fstatat(dirfd(dir), entry->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0)
            continue;
        if (S_ISREG(st.st_mode) && st.st_mtime < now - TEMP_AGE_S)
            (void)unlinkat(dirfd(dir), entry->d_name, 0); /* litter: the next opening tries again */
    }
}
