/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Out of the job that happens to start a server which others will use: its control groups, its
 * limits, its processors, its priority. A job ends by the killing of its control group, and takes
 * with it whatever is inside.
 *
 * In the second hierarchy (cgroup2) the server gets the group `grid-servers` below the top, as far
 * as this machine or container shows it; in those of the first kind it goes to the top itself.
 * Where that is not possible the server stays what it was: one for each run.
 */
#include "attach/attach-shared.h"

#include "base/file.h"
#include "base/log.h"

#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>

#define GROUP     "grid-servers"
#define TEXT_MAX  (1u << 20) /* of a file in /proc */
#define FILES_MAX 65536      /* descriptors: one for each job that waits for its end */

/* Inodes of the first namespaces of a kernel, where they are fixed. */
#define FIRST_USER UINT64_C(0xEFFFFFFD)
#define FIRST_PID  UINT64_C(0xEFFFFFFC)
#define FIRST_NET  UINT64_C(0xEFFFFFF9)
#define FIRST_MNT  UINT64_C(0xEFFFFFF8)

bool apart_same_namespace(const char *kind, uint64_t inode_of_first)
{
    char path[64];
    struct stat own, first;

    (void)snprintf(path, sizeof path, "/proc/self/ns/%s", kind); /* fits */
    if (stat(path, &own) < 0)
        return false;
    (void)snprintf(path, sizeof path, "/proc/1/ns/%s", kind); /* fits */
    if (stat(path, &first) == 0)
        return own.st_ino == first.st_ino && own.st_dev == first.st_dev;
    return own.st_ino == inode_of_first; /* process 1 may be closed to us */
}

bool apart_is_possible(void)
{
    return geteuid() == 0 && apart_same_namespace("mnt", FIRST_MNT) &&
           apart_same_namespace("pid", FIRST_PID) && apart_same_namespace("user", FIRST_USER) &&
           apart_same_namespace("net", FIRST_NET);
}

/* ---- control groups
 * ------------------------------------------------------------------------------------------- */

/* `word` is one of the comma-separated words of `list`. */
static bool has_word(const char *list, const char *word, size_t length)
{
    for (const char *p = list; p; p = strchr(p, ',')) {
        p += *p == ',';
        if (strncmp(p, word, length) == 0 && (p[length] == ',' || p[length] == '\0'))
            return true;
    }
    return false;
}

/* Where a hierarchy is mounted, and which of its groups is at the top there. `controllers` "": the
 * second hierarchy. -ENOENT. */
static int find_hierarchy(const char *mountinfo, const char *controllers, char *ret_top,
                          char *ret_root)
{
    AUTO(free_ptr) char *copy = strdup(mountinfo);
    char *save = NULL;

    if (!copy)
        return -ENOMEM;
    for (char *line = strtok_r(copy, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
        char root[ATTACH_PATH_MAX], point[ATTACH_PATH_MAX], type[32], options[1024];
        const char *dash = strstr(line, " - ");
        if (!dash || sscanf(line, "%*u %*u %*s %4095s %4095s", root, point) != 2 ||
            sscanf(dash + 3, "%31s %*s %1023s", type, options) != 2)
            continue;
        if (controllers[0] ? strcmp(type, "cgroup") == 0 &&
                                 has_word(options, controllers, strcspn(controllers, ","))
                           : strcmp(type, "cgroup2") == 0) {
            (void)snprintf(ret_top, ATTACH_PATH_MAX, "%s", point);
            (void)snprintf(ret_root, ATTACH_PATH_MAX, "%s", root);
            return 0;
        }
    }
    return -ENOENT;
}

static int enter_group(const char *group)
{
    char path[ATTACH_PATH_MAX + 32];

    (void)snprintf(path, sizeof path, "%s/cgroup.procs", group);
    AUTO(close_fd) int fd = open(path, O_WRONLY | O_CLOEXEC);
    return fd < 0 ? -errno : file_write(fd, "0", 1);
}

/* A line of /proc/self/cgroup: "4:memory:/job", "0::/job". */
static int leave_group(const char *mountinfo, const char *controllers, const char *path)
{
    char top[ATTACH_PATH_MAX], root[ATTACH_PATH_MAX], group[ATTACH_PATH_MAX + 32];
    bool at_top = strcmp(path, "/") == 0;
    int c = find_hierarchy(mountinfo, controllers, top, root);

    if (c == -ENOENT) /* nobody here can reach it; so nobody here killed by it */
        return controllers[0] || at_top ? 0 : -EOPNOTSUPP;
    if (c < 0)
        return c;
    at_top = at_top || strcmp(path, root) == 0;
    if (controllers[0])
        return at_top ? 0 : enter_group(top);
    (void)snprintf(group, sizeof group, "%s/%s", top, GROUP);
    if (mkdir(group, 0755) < 0 && errno != EEXIST)
        c = -errno;
    if (c == 0)
        c = enter_group(group);
    return at_top ? 0 : c; /* at the top no job's end reaches it either */
}

static int slurp(const char *path, struct buf *b)
{
    return file_slurp(AT_FDCWD, path, b);
}

static int leave_groups(struct err *err)
{
    AUTO(buf_release) struct buf groups = BUF_INIT(TEXT_MAX);
    AUTO(buf_release) struct buf mountinfo = BUF_INIT(TEXT_MAX);
    char *save = NULL;
    int c = slurp("/proc/self/cgroup", &groups);

    if (c == -ENOENT)
        return 0; /* a kernel without */
    if (c == 0)
        c = slurp("/proc/self/mountinfo", &mountinfo);
    if (c < 0)
        return err_fail(err, -EOPNOTSUPP, "cannot read /proc/self/cgroup: %s", strerror(-c));
    AUTO(free_ptr) char *lines = strdup(buf_text(&groups));
    if (!lines)
        return err_fail(err, -ENOMEM, "not enough memory");
    for (char *line = strtok_r(lines, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
        char *controllers = strchr(line, ':');
        char *path = controllers ? strchr(controllers + 1, ':') : NULL;
        if (!path)
            continue;
        *path++ = '\0';
        c = leave_group(buf_text(&mountinfo), controllers + 1, path);
        if (c < 0)
            return err_fail(err, -EOPNOTSUPP, "cannot leave the control group %s: %s", path,
                            strerror(-c));
    }
    return 0;
}

/* ---- limits
 * ------------------------------------------------------------------------------------------- */

/* What cannot be lifted stays: no reason not to serve. */
static void lift_limits(void)
{
    static const int lifted[] = {RLIMIT_CPU, RLIMIT_AS, RLIMIT_DATA, RLIMIT_FSIZE};
    struct rlimit files;
    cpu_set_t all;

    for (size_t i = 0; i < sizeof lifted / sizeof lifted[0]; i++) {
        struct rlimit none = {RLIM_INFINITY, RLIM_INFINITY};
        (void)setrlimit((__rlimit_resource_t)lifted[i], &none);
    }
    if (getrlimit(RLIMIT_NOFILE, &files) == 0 && files.rlim_cur < FILES_MAX) {
        files.rlim_cur = files.rlim_max < FILES_MAX ? files.rlim_max : FILES_MAX;
        (void)setrlimit(RLIMIT_NOFILE, &files);
    }
    memset(&all, 0xff, sizeof all);
    (void)sched_setaffinity(0, sizeof all, &all); /* as many as the group may use */
    (void)setpriority(PRIO_PROCESS, 0, 0);
    AUTO(close_fd) int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
    if (fd >= 0)
        (void)file_write(fd, "0", 1);
}

int apart_go(struct err *err)
{
    int c = leave_groups(err);

    if (c == 0)
        lift_limits();
    return c;
}
