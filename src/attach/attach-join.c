/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A job's side of a shared server: find it or start it, ask, and put the mount that comes back
 * where the job wants it.
 *
 * A job is there as long as its tag is: a tiny file system of its own, mounted at the mount point
 * just before the datastore covers it. It goes exactly when the kernel drops the job's namespace,
 * and every copy of that, however this happens; the server watches it. So nobody has to say that a
 * job has ended, and no process can be killed that should have said so.
 */
#include "attach/attach-shared.h"

#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <time.h>

/* A server that ends while one asks is asked again; this often only on a machine where servers die
 * one after the other. */
#define TRIES_MAX 20
#define TRY_NS    5000000

static int start_server(const struct attach_item *item, const struct registry *g, struct err *err)
{
    const struct attach_record *r = &item->record;
    struct attach_server server = ATTACH_SERVER_NONE;
    struct attach_answer a;
    AUTO(close_fd) int listen_fd = -1;
    uint64_t inode = 0;

    int c = registry_offer(g, &listen_fd, &inode);
    if (c < 0)
        return err_fail(err, -EOPNOTSUPP, "cannot make a socket for %s:%u: %s", r->name, r->version,
                        strerror(-c));
    c = attach_server_start_shared(item, listen_fd, inode, &server, err);
    if (c == 0)
        c = attach_server_command(&server, ATTACH_SHARED, g->key, -1);
    if (c == 0)
        c = attach_receive(server.talk_fd, &a, sizeof a, NULL);
    if (c == 0) {
        a.sentence[sizeof a.sentence - 1] = '\0';
        c = a.code < 0 ? err_fail(err, a.code, "%s", a.sentence) : registry_publish(g);
    } else {
        c = err_fail(err, -EOPNOTSUPP, "the server of %s:%u died", r->name, r->version);
    }
    if (c < 0)
        registry_withdraw(g, inode);
    attach_server_close(&server);
    return c;
}

/* Another one's server is none for us; one of ours that does not answer is a failure. */
static int no_link(const struct attach_record *r, int code, struct err *err)
{
    return err_fail(err, code == -ETIMEDOUT ? code : -EOPNOTSUPP,
                    "cannot reach the server of %s:%u: %s", r->name, r->version, strerror(-code));
}

int attach_link_open(const struct attach_item *item, int *ret_link, struct err *err)
{
    struct registry g __attribute__((cleanup(registry_close))) = {.dir_fd = -1};
    AUTO(close_fd) int lock_fd = -1;

    if (!item->share || (item->record.user && item->record.user->alone))
        return err_fail(err, -EOPNOTSUPP, "not to be shared");
    int c = registry_open(&item->record, item->share, &g, err);
    if (c < 0)
        return c;
    c = registry_connect(&g, ret_link);
    if (c != -ENOENT)
        return c < 0 ? no_link(&item->record, c, err) : 0;
    if (!apart_is_possible())
        return err_fail(err, -EOPNOTSUPP, "a server could not outlive this job");
    c = registry_lock(&g, true, &lock_fd);
    if (c == 0)
        c = registry_connect(&g, ret_link);
    if (c == -ENOENT) {
        c = start_server(item, &g, err);
        if (c < 0)
            return c;
        c = registry_connect(&g, ret_link);
    }
    return c < 0 ? no_link(&item->record, c, err) : 0;
}

/* ---- asking
 * ------------------------------------------------------------------------------------------- */

/* -EAGAIN: the server has ended meanwhile; there may be another one. */
static int ask(int link, const struct attach_item *item, enum shared_kind kind, const char *place,
               int tag_fd, int *ret_mount_fd, struct err *err)
{
    const struct attach_record *r = &item->record;
    struct shared_request request = {.protocol = SHARED_PROTOCOL,
                                     .kind = kind,
                                     .required = item->required,
                                     .pid = r->pid ? r->pid : getpid()};
    struct shared_answer a;

    (void)snprintf(request.run, sizeof request.run, "%s", r->run);
    (void)snprintf(request.cluster, sizeof request.cluster, "%s", r->cluster);
    (void)snprintf(request.holder, sizeof request.holder, "%s", r->holder);
    (void)snprintf(request.mountpoint, sizeof request.mountpoint, "%s", place);
    int c = attach_send(link, &request, sizeof request, tag_fd);
    /* A server that cannot serve answers before it is asked, and closes: that is told first. */
    if (c == 0 || c == -EPIPE || c == -ECONNRESET)
        c = attach_receive(link, &a, sizeof a, ret_mount_fd);
    if (c == -ECONNRESET)
        c = attach_receive(link, &a, sizeof a, ret_mount_fd);
    if (c == -EAGAIN)
        return err_fail(err, -ETIMEDOUT, "the server of %s:%u does not answer", r->name,
                        r->version);
    if (c < 0)
        return err_fail(err, -EAGAIN, "the server of %s:%u has ended", r->name, r->version);
    a.sentence[sizeof a.sentence - 1] = '\0';
    if (a.code < 0 && a.again)
        return err_fail(err, -EAGAIN, "the server of %s:%u has ended", r->name, r->version);
    if (a.code < 0)
        return err_fail(err, a.code, "%s", a.sentence[0] ? a.sentence : strerror(-a.code));
    if (a.sentence[0] && r->note)
        r->note(r, a.sentence);
    return 0;
}

int attach_link_join(int link, const struct attach_item *item, const char *place, struct err *err)
{
    AUTO(close_fd) int mount_fd = -1;

    if (mount("grid", place, "tmpfs", MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC,
              "size=4k,nr_inodes=2,mode=0555") < 0)
        return err_fail(err, -errno, "cannot mount at %s: %s", place, strerror(errno));
    AUTO(close_fd) int tag_fd = open(place, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int c = tag_fd < 0 ? err_fail(err, -errno, "cannot open %s: %s", place, strerror(errno)) : 0;
    if (c == 0)
        c = ask(link, item, SHARED_JOB, place, tag_fd, &mount_fd, err);
    if (c == 0 &&
        (mount_fd < 0 || move_mount(mount_fd, "", AT_FDCWD, place, MOVE_MOUNT_F_EMPTY_PATH) < 0))
        c = err_fail(err, mount_fd < 0 ? -EPROTO : -errno, "cannot mount at %s: %s", place,
                     strerror(mount_fd < 0 ? EPROTO : errno));
    if (c < 0)
        (void)umount2(place, MNT_DETACH); /* it goes with the namespace */
    return c;
}

static void pause_a_little(void)
{
    const struct timespec t = {.tv_nsec = TRY_NS};

    (void)nanosleep(&t, NULL); /* too early does no harm */
}

int attach_shared_visible(const struct attach_item *item, struct err *err)
{
    const char *place = item->record.mountpoint;
    int c = -EAGAIN;
    dev_t device;

    for (int i = 0; c == -EAGAIN && i < TRIES_MAX; i++) {
        AUTO(close_fd) int link = -1;
        AUTO(close_fd) int none = -1;
        if (i > 0)
            pause_a_little();
        /* A server that was killed before it could answer may have shown it: nothing stood there
         * when we began. */
        if (i > 0 && attach_fuse_find(place, &device) == 0)
            (void)attach_fuse_unmount(place, true, NULL); /* or the server says what is there */
        err_clear(err);
        c = attach_link_open(item, &link, err);
        if (c == 0)
            c = ask(link, item, SHARED_VISIBLE, place, -1, &none, err);
    }
    return c;
}

bool attach_link_ended(int link, int timeout_ms)
{
    struct pollfd p = {.fd = link, .events = POLLIN};

    return link < 0 || poll(&p, 1, timeout_ms) > 0;
}

int attach_join(const struct attach_item *item, int namespace_fd, int *ret_link, struct err *err)
{
    AUTO(close_fd) int own = -1;
    int c = -EAGAIN;

    if (namespace_fd >= 0 && (own = open("/proc/self/ns/mnt", O_RDONLY | O_CLOEXEC)) < 0)
        return err_fail(err, -errno, "cannot open /proc/self/ns/mnt: %s", strerror(errno));
    for (int i = 0; c == -EAGAIN && i < TRIES_MAX; i++) {
        AUTO(close_fd) int link = -1;
        if (i > 0)
            pause_a_little();
        err_clear(err);
        c = attach_link_open(item, &link, err);
        if (c < 0)
            continue;
        if (own >= 0 && setns(namespace_fd, CLONE_NEWNS) < 0)
            return err_fail(err, -errno, "cannot enter the mount namespace: %s", strerror(errno));
        c = attach_link_join(link, item, item->target, err);
        if (own >= 0 && setns(own, CLONE_NEWNS) < 0)
            return err_fail(err, -errno, "cannot leave the mount namespace: %s", strerror(errno));
        if (c == 0 && ret_link)
            *ret_link = take_fd(&link);
    }
    return c;
}
