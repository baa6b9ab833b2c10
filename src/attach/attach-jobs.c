/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The jobs of a shared server, on a thread of the process that serves: who comes, who has gone, and
 * when it is over.
 *
 * A job in a namespace has a tag there, on whose file system the server has an inotify watch; the
 * kernel takes the watch away with the file system. A mount in view of all is looked for in the
 * mount table whenever that changes. Both are asked of the kernel, never remembered: so a new child
 * finds in the records who was here, and in the kernel who still is.
 *
 * When the last job seems to be gone, mounts may still be in namespaces that were copied: then it
 * stays, for the kernel shows them. After a while without any, the server lets go of the mount, and
 * the kernel ends it.
 */
#include "attach/attach-shared.h"

#include "base/env.h"
#include "base/log.h"
#include "base/vec.h"

#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/magic.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <time.h>

/* Copies of the mount in other namespaces are looked for so often, while nothing else is left. */
#define COPIES_MS 2000
/* Who held the lock when the server wanted to end is done by then. */
#define BUSY_MS 100
/* From the start of a server to its first job, who is on the way. */
#define FIRST_MS 5000
/* Connections that have not asked yet; they do so at once. */
#define GUESTS_MAX 4096

struct attachment {
    uint32_t number; /* of its record */
    int watch;       /* of its tag; 0: it is in view of all */
    uint64_t mount_id;
    uint64_t job;
    int fd; /* closed when it has gone, for who waits for that; -1: nobody */
};

struct guest {
    int fd;
    pid_t pid;
};

struct attach_jobs {
    struct shared *shared;
    const struct attach_job_ops *ops;
    void *ctx;
    pthread_t thread;
    bool started;
    int wake_fd;  /* eventfd */
    int table_fd; /* the mount table, which tells when it changes */
    pthread_mutex_t lock;
    bool stop, adopted; /* under lock */
    /* of the thread: */
    pid_t owner; /* in whose name the records are */
    uint64_t owner_start;
    VEC(struct attachment) rows;
    VEC(struct guest) guests;
    uint32_t last_number;
    bool asked;      /* somebody has come, or was here */
    bool retired;    /* nobody else is let in */
    bool copies;     /* only copies of the mount are left, of the one attachment in rows */
    int64_t look_at; /* when to look for copies, or to try again to end */
    int64_t idle_from;
};

static int64_t now_ms(void)
{
    return env_real()->boot_ms(env_real());
}

/* ---- what the kernel shows
 * ------------------------------------------------------------------------------------------- */

static bool watch_is_live(int watches_fd, int watch)
{
    char path[64], line[512];
    unsigned wd;

    (void)snprintf(path, sizeof path, "/proc/self/fdinfo/%d", watches_fd); /* fits */
    AUTO(close_file) FILE *f = fopen(path, "re");
    while (f && fgets(line, sizeof line, f)) {
        if (sscanf(line, "inotify wd:%x ", &wd) == 1 && (int)wd == watch)
            return true;
    }
    return !f; /* cannot be told: it is */
}

/* The live watches, ascending or not. False: cannot be told. */
struct watches {
    VEC(int) live;
};

static int read_watches(int watches_fd, struct watches *ret)
{
    char path[64], line[512];
    unsigned wd;
    int c = 0;

    (void)snprintf(path, sizeof path, "/proc/self/fdinfo/%d", watches_fd); /* fits */
    AUTO(close_file) FILE *f = fopen(path, "re");
    if (!f)
        return -errno;
    while (c == 0 && fgets(line, sizeof line, f)) {
        if (sscanf(line, "inotify wd:%x ", &wd) == 1)
            c = vec_push(&ret->live, (int)wd);
    }
    return c;
}

/* Mounts of this device in the namespace whose table this is. */
typedef bool mount_fn(void *ctx, uint64_t mount_id);
static int each_mount(const char *path, dev_t device, mount_fn *fn, void *ctx)
{
    AUTO(close_file) FILE *f = fopen(path, "re");
    AUTO(free_ptr) char *line = NULL;
    size_t capacity = 0;

    if (!f)
        return -errno;
    while (getline(&line, &capacity, f) > 0) {
        uint64_t id;
        unsigned major_number, minor_number;
        if (sscanf(line, "%" SCNu64 " %*u %u:%u ", &id, &major_number, &minor_number) == 3 &&
            makedev(major_number, minor_number) == device && !fn(ctx, id))
            break;
    }
    return ferror(f) ? -EIO : 0;
}

static bool found_one(void *ctx, uint64_t mount_id)
{
    *(bool *)ctx = true;
    return false;
}

/* In any namespace that has a process. */
static bool has_copies(dev_t device)
{
    VEC(ino_t) seen = {0};
    AUTO(close_dir) DIR *d = opendir("/proc");
    struct dirent *e;
    bool found = false;

    while (d && !found && (e = readdir(d)) != NULL) {
        char path[300];
        struct stat st;
        bool again = false;
        if (e->d_name[0] < '1' || e->d_name[0] > '9')
            continue;
        (void)snprintf(path, sizeof path, "/proc/%s/ns/mnt", e->d_name); /* fits */
        if (stat(path, &st) < 0)
            continue;
        for (size_t i = 0; !again && i < seen.count; i++)
            again = seen.at[i] == st.st_ino;
        if (again || vec_push(&seen, st.st_ino) < 0)
            continue;
        (void)snprintf(path, sizeof path, "/proc/%s/mountinfo", e->d_name); /* fits */
        (void)each_mount(path, device, found_one, &found); /* it may just have ended */
    }
    vec_release(&seen);
    return found;
}

/* ---- leaving
 * ------------------------------------------------------------------------------------------- */

static void record_key(const struct attach_jobs *j, uint32_t number, struct attach_record *ret)
{
    ret->server = j->owner;
    ret->server_start = j->owner_start;
    ret->attachment = number;
}

static void leave(struct attach_jobs *j, size_t i)
{
    struct attachment a = j->rows.at[i];
    struct attach_record key;

    record_key(j, a.number, &key);
    j->rows.at[i] = j->rows.at[--j->rows.count];
    j->ops->leave(j->ctx, a.job);
    attach_record_remove(&key);
    if (a.fd >= 0)
        (void)close(a.fd); /* tells who waits */
    if (j->rows.count == 0)
        j->idle_from = now_ms();
}

/* The last one stays while the kernel shows mounts. */
static void leave_unless_copied(struct attach_jobs *j, size_t i)
{
    if (j->rows.count == 1) {
        j->copies = has_copies(j->shared->device);
        j->look_at = now_ms() + COPIES_MS;
        if (j->copies)
            return;
    }
    leave(j, i);
}

static void check_watches(struct attach_jobs *j)
{
    struct watches w = {.live = {0}};

    if (read_watches(j->shared->watches_fd, &w) == 0) {
        for (size_t i = j->rows.count; i-- > 0;) {
            bool live = j->rows.at[i].watch == 0;
            for (size_t k = 0; !live && k < w.live.count; k++)
                live = w.live.at[k] == j->rows.at[i].watch;
            if (!live)
                leave_unless_copied(j, i);
        }
    }
    vec_release(&w.live);
}

struct mount_ids {
    VEC(uint64_t) ids;
    bool failed;
};

static bool add_mount(void *ctx, uint64_t mount_id)
{
    struct mount_ids *m = ctx;

    m->failed = vec_push(&m->ids, mount_id) < 0;
    return !m->failed;
}

static void check_table(struct attach_jobs *j)
{
    struct mount_ids m = {.failed = false};

    int c = each_mount("/proc/self/mountinfo", j->shared->device, add_mount, &m);
    for (size_t i = j->rows.count; c == 0 && !m.failed && i-- > 0;) {
        bool there = j->rows.at[i].watch > 0;
        for (size_t k = 0; !there && k < m.ids.count; k++)
            there = m.ids.at[k] == j->rows.at[i].mount_id;
        if (!there)
            leave_unless_copied(j, i);
    }
    vec_release(&m.ids);
}

static void drain_watches(struct attach_jobs *j)
{
    char events[4096] __attribute__((aligned(8)));

    while (read(j->shared->watches_fd, events, sizeof events) > 0)
        continue; /* what happened, the list of watches tells */
    check_watches(j);
}

static bool any_visible(const struct attach_jobs *j)
{
    for (size_t i = 0; i < j->rows.count; i++) {
        if (j->rows.at[i].watch == 0)
            return true;
    }
    return false;
}

/* ---- coming
 * ------------------------------------------------------------------------------------------- */

static int check_request(const struct shared_request *q)
{
    if (q->protocol != SHARED_PROTOCOL || (q->kind != SHARED_JOB && q->kind != SHARED_VISIBLE) ||
        strnlen(q->run, sizeof q->run) == sizeof q->run ||
        strnlen(q->cluster, sizeof q->cluster) == sizeof q->cluster ||
        strnlen(q->holder, sizeof q->holder) == sizeof q->holder ||
        strnlen(q->mountpoint, sizeof q->mountpoint) == sizeof q->mountpoint ||
        q->mountpoint[0] != '/')
        return -EPROTO;
    return 0;
}

static int watch_tag(struct attach_jobs *j, int tag_fd, int *ret_watch)
{
    char path[64];
    struct statfs fs;

    if (tag_fd < 0 || fstatfs(tag_fd, &fs) < 0 || fs.f_type != TMPFS_MAGIC)
        return -EPROTO;
    (void)snprintf(path, sizeof path, "/proc/self/fd/%d", tag_fd); /* fits */
    *ret_watch = inotify_add_watch(j->shared->watches_fd, path, IN_DELETE_SELF | IN_ONLYDIR);
    return *ret_watch < 0 ? -errno : 0;
}

static int same_mount_namespace(pid_t pid)
{
    char path[64];
    struct stat own, other;

    (void)snprintf(path, sizeof path, "/proc/%d/ns/mnt", (int)pid); /* fits */
    if (stat("/proc/self/ns/mnt", &own) < 0 || stat(path, &other) < 0)
        return -EPERM;
    return own.st_ino == other.st_ino ? 0 : -EPERM;
}

/* Show it in view of all. */
static int show(struct attach_jobs *j, int mount_fd, const char *place, uint64_t *ret_id,
                struct err *err)
{
    struct statx st;
    dev_t device;

    if (attach_fuse_find(place, &device) == 0)
        return err_fail(err, -EBUSY, "a datastore is mounted at %s already", place);
    if (move_mount(mount_fd, "", AT_FDCWD, place, MOVE_MOUNT_F_EMPTY_PATH) < 0)
        return err_fail(err, -errno, "cannot mount at %s: %s", place, strerror(errno));
    if (statx(mount_fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_MNT_ID, &st) < 0)
        return err_fail(err, -errno, "cannot look at %s: %s", place, strerror(errno));
    *ret_id = st.stx_mnt_id;
    return 0;
}

static void write_record(struct attach_jobs *j, const struct shared_request *q,
                         const struct attachment *a)
{
    const struct attach_record *server = &j->shared->job->record;
    struct err err = ERR_INIT;
    struct attach_record r = *server;

    record_key(j, a->number, &r);
    r.since_ms = env_real()->wall_ms(env_real());
    r.watch = a->watch;
    r.mount_id = a->mount_id;
    r.pid = q->pid;
    (void)snprintf(r.run, sizeof r.run, "%s", q->run);
    (void)snprintf(r.cluster, sizeof r.cluster, "%s", q->cluster);
    (void)snprintf(r.holder, sizeof r.holder, "%s", q->holder);
    (void)snprintf(r.mountpoint, sizeof r.mountpoint, "%s", q->mountpoint);
    int c = attach_record_write(&r, &err);
    if (c < 0)
        log_warning("the mount works, but will not be listed: %s", err_text(&err, c));
}

/* The same tag again: who asked did not get the answer of the child before this one. */
static void forget_watch(struct attach_jobs *j, int watch)
{
    for (size_t i = j->rows.count; i-- > 0;) {
        if (watch > 0 && j->rows.at[i].watch == watch)
            leave(j, i);
    }
}

/* Give the asker its mount, or show it. */
static int admit(struct attach_jobs *j, const struct guest *g, const struct shared_request *q,
                 int tag_fd, struct shared_answer *answer, int *ret_mount_fd, struct err *err)
{
    const struct attach_record *server = &j->shared->job->record;
    struct attach_job job = {.text = q->holder, .pid = q->pid, .required = q->required != 0};
    struct attachment a = {.fd = -1};
    int c = check_request(q);

    if (c == 0)
        c = q->kind == SHARED_JOB ? watch_tag(j, tag_fd, &a.watch) : same_mount_namespace(g->pid);
    if (c < 0)
        return err_fail(err, c, "the server of %s:%u refuses: %s", server->name, server->version,
                        strerror(-c));
    forget_watch(j, a.watch);
    c = j->ops->join(j->ctx, &job, &a.job, answer->sentence, sizeof answer->sentence, err);
    bool joined = c == 0;
    AUTO(close_fd) int mount_fd = -1;
    if (c == 0) {
        mount_fd = shared_copy(j->shared, j->shared->mount_fd);
        if (mount_fd < 0)
            c = err_fail(err, mount_fd, "cannot copy the mount of %s:%u: %s", server->name,
                         server->version, strerror(-mount_fd));
    }
    if (c == 0 && q->kind == SHARED_VISIBLE)
        c = show(j, mount_fd, q->mountpoint, &a.mount_id, err);
    a.number = ++j->last_number;
    if (c == 0)
        c = vec_push(&j->rows, a);
    if (c < 0) {
        if (joined)
            j->ops->leave(j->ctx, a.job);
        if (a.watch > 0)
            (void)inotify_rm_watch(j->shared->watches_fd, a.watch); /* gone already: as wanted */
        return c;
    }
    write_record(j, q, &a);
    if (q->kind == SHARED_JOB)
        *ret_mount_fd = take_fd(&mount_fd);
    return 0;
}

/* True: the connection stays, until the job is gone. */
static bool take_request(struct attach_jobs *j, const struct guest *g)
{
    AUTO(free_ptr) struct shared_request *q = malloc(sizeof *q);
    struct shared_answer answer = {.code = 0};
    AUTO(close_fd) int mount_fd = -1;
    AUTO(close_fd) int tag_fd = -1;
    struct err err = ERR_INIT;

    if (!q || attach_receive(g->fd, q, sizeof *q, &tag_fd) < 0)
        return false; /* it went away, or is none of ours */
    bool was_empty = j->rows.count == 0;
    j->asked = true;
    answer.again = j->retired;
    answer.code = j->retired ? -ESHUTDOWN : admit(j, g, q, tag_fd, &answer, &mount_fd, &err);
    if (answer.code < 0) {
        (void)snprintf(answer.sentence, sizeof answer.sentence, "%s", err_text(&err, answer.code));
        if (was_empty)
            j->idle_from = now_ms();
    } else {
        j->rows.at[j->rows.count - 1].fd = q->kind == SHARED_JOB ? g->fd : -1;
    }
    (void)attach_send(g->fd, &answer, sizeof answer, mount_fd); /* its tag tells if it is gone */
    return answer.code == 0 && q->kind == SHARED_JOB;
}

static void accept_guests(struct attach_jobs *j)
{
    while (j->guests.count < GUESTS_MAX) {
        struct ucred peer;
        socklen_t size = sizeof peer;
        AUTO(close_fd) int fd = accept4(j->shared->listen_fd, NULL, NULL, SOCK_CLOEXEC);
        if (fd < 0)
            return;
        if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) < 0 || peer.uid != geteuid())
            continue;
        struct guest g = {.fd = fd, .pid = peer.pid};
        if (vec_push(&j->guests, g) == 0)
            (void)take_fd(&fd);
    }
}

/* ---- ending
 * ------------------------------------------------------------------------------------------- */

static void tell_supervisor(struct attach_jobs *j, int32_t what, int fd)
{
    (void)attach_send(j->shared->control_fd, &what, sizeof what, fd); /* it may be gone */
}

/* Nobody finds the server any more; those who just did are told to ask again. */
static int retire(struct attach_jobs *j, bool wait)
{
    struct shared *s = j->shared;
    AUTO(close_fd) int lock_fd = -1;
    struct pollfd p = {.fd = s->listen_fd, .events = POLLIN};

    if (j->retired)
        return 0;
    if (registry_lock(&s->registry, wait, &lock_fd) == -EAGAIN)
        return -EAGAIN; /* any other failure: its directory was taken away, and nobody comes */
    if (!wait && poll(&p, 1, 0) != 0)
        return -EAGAIN; /* somebody comes */
    registry_withdraw(&s->registry, s->socket_mark);
    j->retired = true;
    return 0;
}

static void let_go(struct attach_jobs *j)
{
    struct shared *s = j->shared;
    int *const fds[] = {&s->listen_fd, &s->mount_fd, &s->flat_fd, &s->vault_fd};

    tell_supervisor(j, SHARED_LET_GO, -1);
    for (size_t i = 0; i < sizeof fds / sizeof fds[0]; i++) {
        int fd = take_fd(fds[i]);
        if (fd >= 0)
            (void)close(fd); /* with the last one the kernel ends the mount */
    }
}

/* What is due without an event; gives the milliseconds until something will be, or -1. */
static int64_t look(struct attach_jobs *j)
{
    int64_t now = now_ms();

    if (j->copies && j->rows.count == 1 && now >= j->look_at) {
        check_watches(j);
        check_table(j);
        now = now_ms();
    }
    j->copies = j->copies && j->rows.count == 1;
    if (j->copies)
        return j->look_at > now ? j->look_at - now : 0;
    if (j->rows.count > 0 || j->guests.count > 0 || j->shared->mount_fd < 0)
        return -1;
    int64_t idle = j->shared->idle_ms;
    if (!j->asked && idle < FIRST_MS)
        idle = FIRST_MS; /* whoever started it comes */
    int64_t due = j->idle_from + idle;
    if (now < due)
        return due - now;
    if (has_copies(j->shared->device))
        return COPIES_MS;
    if (retire(j, false) < 0)
        return BUSY_MS;
    shared_refuse(j->shared->listen_fd, 0, NULL);
    let_go(j);
    return -1;
}

static int unmount_row(void *ctx, const struct attach_record *r)
{
    const struct attach_jobs *j = ctx;
    dev_t device;

    if (r->watch == 0 && attach_fuse_find(r->mountpoint, &device) == 0 &&
        device == j->shared->device)
        (void)attach_fuse_unmount(r->mountpoint, true, NULL); /* it stays, then */
    return 0;
}

/* The machine shuts down, perhaps: what is in view goes, runs stay until they end. The second time,
 * if no run is left, it ends whoever has a file open. */
static void quit(struct attach_jobs *j)
{
    eventfd_t n;
    bool before = j->retired;

    if (eventfd_read(j->shared->quit_fd, &n) < 0)
        return;
    if (retire(j, true) == 0 && j->shared->listen_fd >= 0)
        shared_refuse(j->shared->listen_fd, 0, NULL);
    (void)attach_record_each_of(j->owner, j->owner_start, unmount_row, j);
    check_table(j);
    if (before && j->rows.count == 0) {
        tell_supervisor(j, SHARED_END, -1);
        if (getppid() != j->shared->supervisor)
            _exit(1);
    }
    let_go(j);
}

/* ---- the thread
 * ------------------------------------------------------------------------------------------- */

static int rename_record(void *ctx, const struct attach_record *r)
{
    struct attach_jobs *j = ctx;
    struct attach_record mine = *r;

    record_key(j, r->attachment, &mine);
    (void)attach_record_write(&mine, NULL); /* it is not listed, then */
    attach_record_remove(r);
    return 0;
}

static void take_over_records(struct attach_jobs *j)
{
    pid_t before = j->owner;
    uint64_t start = j->owner_start, own;

    if (attach_process_start(getpid(), &own) < 0)
        return;
    j->owner = getpid();
    j->owner_start = own;
    (void)attach_record_each_of(before, start, rename_record, j);
}

/* False: it is over. */
static bool heed(struct attach_jobs *j)
{
    eventfd_t n;
    bool stop, adopted;

    (void)eventfd_read(j->wake_fd, &n); /* or not yet */
    {
        WITH_LOCK(&j->lock);
        stop = j->stop;
        adopted = j->adopted;
    }
    if (adopted && j->owner != getpid())
        take_over_records(j);
    return !stop;
}

static void take_requests(struct attach_jobs *j, const struct pollfd *p, size_t count)
{
    for (size_t i = count; i-- > 0;) {
        struct guest g = j->guests.at[i];
        if (!p[i].revents)
            continue;
        j->guests.at[i] = j->guests.at[--j->guests.count];
        if (!take_request(j, &g))
            (void)close(g.fd); /* answered, or gone */
    }
}

enum { POLL_WAKE, POLL_QUIT, POLL_WATCHES, POLL_TABLE, POLL_LISTEN, POLL_GUESTS };

/* False: no memory. */
static bool wait_for_something(struct attach_jobs *j, int64_t wait)
{
    size_t guests = j->guests.count;
    AUTO(free_ptr) struct pollfd *p = calloc(POLL_GUESTS + guests, sizeof *p);

    if (!p)
        return false;
    p[POLL_WAKE] = (struct pollfd){.fd = j->wake_fd, .events = POLLIN};
    p[POLL_QUIT] = (struct pollfd){.fd = j->shared->quit_fd, .events = POLLIN};
    p[POLL_WATCHES] = (struct pollfd){.fd = j->shared->watches_fd, .events = POLLIN};
    p[POLL_TABLE] = (struct pollfd){.fd = any_visible(j) ? j->table_fd : -1, .events = POLLPRI};
    p[POLL_LISTEN] =
        (struct pollfd){.fd = j->retired ? -1 : j->shared->listen_fd, .events = POLLIN};
    for (size_t i = 0; i < guests; i++)
        p[POLL_GUESTS + i] = (struct pollfd){.fd = j->guests.at[i].fd, .events = POLLIN};
    if (poll(p, POLL_GUESTS + guests, wait < 0 ? -1 : wait > INT_MAX ? INT_MAX : (int)wait) <= 0)
        return true; /* time, or a signal: the caller looks what is due */
    if (p[POLL_QUIT].revents)
        quit(j);
    if (p[POLL_WATCHES].revents)
        drain_watches(j);
    if (p[POLL_TABLE].revents)
        check_table(j);
    take_requests(j, p + POLL_GUESTS, guests);
    if (p[POLL_LISTEN].revents)
        accept_guests(j);
    return true;
}

/* What jobs see is the kernel's own mount over ours. */
static int mount_by_kernel(struct attach_jobs *j, struct err *err)
{
    const struct attach_record *r = &j->shared->job->record;
    AUTO(attach_devices_release) struct attach_devices devices = {.fds = NULL};
    struct stat st;
    int fd = -1;

    int c = r->kernel->devices ? r->kernel->devices(r->kernel->ctx, &devices, err) : 0;
    if (c == 0)
        c = attach_kernel_mount(r, j->shared->mount_fd, &devices, true, &fd, err);
    if (c == 0 && j->shared->vault_fd >= 0)
        c = vault_put(j->shared->vault_fd, fd, VAULT_BY_KERNEL);
    if (c == 0 && fstat(fd, &st) < 0)
        c = -errno;
    if (c < 0) {
        if (fd >= 0)
            (void)close(fd); /* a mount that nobody uses */
        return c;
    }
    tell_supervisor(j, SHARED_MOUNT, fd);
    if (r->kernel->devices)
        j->shared->flat_fd = j->shared->mount_fd;
    else
        (void)close(j->shared->mount_fd); /* the other one has it open */
    j->shared->mount_fd = fd;
    j->shared->device = st.st_dev;
    j->shared->by_kernel = true;
    return 0;
}

/* Before the first job is let in. */
static void prepare_mount(struct attach_jobs *j)
{
    struct err err = ERR_INIT;
    int c = mount_by_kernel(j, &err);

    if (c == 0)
        return;
    log_warning("%s", err_text(&err, c));
    (void)retire(j, true); /* or who asks then hears the same */
    shared_refuse(j->shared->listen_fd, c, err_text(&err, c));
    let_go(j);
}

static void *jobs_main(void *arg)
{
    struct attach_jobs *j = arg;

    if (j->shared->job->record.kernel && !j->shared->by_kernel)
        prepare_mount(j);
    while (heed(j)) {
        int64_t wait = look(j);
        if (!wait_for_something(j, wait)) {
            const struct timespec t = {.tv_nsec = 100000000};
            (void)nanosleep(&t, NULL); /* memory may come back */
        }
    }
    return NULL;
}

/* ---- the interface
 * ------------------------------------------------------------------------------------------- */

int jobs_new(struct shared *s, struct attach_jobs **ret)
{
    AUTO(jobs_free) struct attach_jobs *j = calloc(1, sizeof *j);

    if (!j)
        return -ENOMEM;
    j->shared = s;
    j->owner = s->supervisor;
    j->owner_start = s->supervisor_start;
    j->idle_from = now_ms();
    pthread_mutex_init(&j->lock, NULL);
    j->table_fd = open("/proc/self/mountinfo", O_RDONLY | O_CLOEXEC);
    j->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (j->wake_fd < 0 || j->table_fd < 0)
        return -errno;
    *ret = take_ptr(&j);
    return 0;
}

static void wake(struct attach_jobs *j, bool *flag)
{
    {
        WITH_LOCK(&j->lock);
        *flag = true;
    }
    (void)eventfd_write(j->wake_fd, 1); /* cannot be full */
}

void jobs_adopt(struct attach_jobs *j)
{
    wake(j, &j->adopted);
}

/* One that was here before this child. */
static int restore(void *ctx, const struct attach_record *r)
{
    struct attach_jobs *j = ctx;
    struct attachment a = {
        .number = r->attachment, .watch = r->watch, .mount_id = r->mount_id, .fd = -1};
    struct attach_job job = {.text = r->holder, .pid = r->pid};
    struct err err = ERR_INIT;
    char note[64];

    if (a.number > j->last_number)
        j->last_number = a.number;
    j->asked = true;
    if (a.watch > 0 && !watch_is_live(j->shared->watches_fd, a.watch)) {
        attach_record_remove(r);
        return 0;
    }
    int c = j->ops->join(j->ctx, &job, &a.job, note, sizeof note, &err);
    if (c < 0)
        return c;
    return vec_push(&j->rows, a);
}

int attach_jobs_begin(struct attach_jobs *j, const struct attach_job_ops *ops, void *ctx,
                      struct err *err)
{
    j->ops = ops;
    j->ctx = ctx;
    int c = attach_record_each_of(j->owner, j->owner_start, restore, j);
    return c < 0 ? err_fail(err, c, "cannot go on for the jobs of a server: %s", strerror(-c)) : 0;
}

int attach_jobs_serve(struct attach_jobs *j, struct err *err)
{
    sigset_t all, old;

    check_watches(j);
    check_table(j);
    (void)sigfillset(&all); /* valid arguments, all of them */
    (void)pthread_sigmask(SIG_BLOCK, &all, &old);
    int c = -pthread_create(&j->thread, NULL, jobs_main, j);
    (void)pthread_sigmask(SIG_SETMASK, &old, NULL);
    j->started = c == 0;
    return c < 0 ? err_fail(err, c, "cannot start a thread") : 0;
}

void attach_jobs_end(struct attach_jobs *j)
{
    if (!j->started)
        return;
    wake(j, &j->stop);
    (void)pthread_join(j->thread, NULL); /* ours, joinable: cannot fail */
    j->started = false;
}

void jobs_free(struct attach_jobs *j)
{
    if (!j)
        return;
    attach_jobs_end(j);
    for (size_t i = 0; i < j->guests.count; i++)
        (void)close(j->guests.at[i].fd); /* who asks is told by that */
    for (size_t i = 0; i < j->rows.count; i++) {
        if (j->rows.at[i].fd >= 0)
            (void)close(j->rows.at[i].fd); /* the same */
    }
    vec_release(&j->guests);
    vec_release(&j->rows);
    if (j->wake_fd >= 0)
        (void)close(j->wake_fd);
    if (j->table_fd >= 0)
        (void)close(j->table_fd);
    pthread_mutex_destroy(&j->lock);
    free(j);
}
