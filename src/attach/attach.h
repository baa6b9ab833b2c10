/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Attach: servers in the background, and commands in a mount namespace of their own.
 *
 * A server process holds one mounted version; it supervises a child that serves it.
 * attach_serve_background() starts it apart from the caller and comes back when the mount is ready:
 * a mount point is never an empty directory. It writes a small record under the runtime directory,
 * by which `mounts` and `unmount` find it.
 *
 * attach_run() runs a command with datastores at /datastores/NAME (or a directory of the user's
 * choice), seen by that command and its children only, as root or as an ordinary user
 * (docs/attaching.md has the cases and fall-backs). The datastores are gone when the last process
 * in the command's namespace is gone, however that ends.
 *
 * This folder knows nothing of versions or stores: what is served is a callback.
 */
#ifndef ATTACH_ATTACH_H
#define ATTACH_ATTACH_H

#include "base/cleanup.h"
#include "base/err.h"
#include "supervise/supervise.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* Where sockets, records and private mount points live: GRID_RUNTIME_DIR; root: /run/grid; else
 * $XDG_RUNTIME_DIR/grid, else /tmp/grid-UID. Made 0700, owner and type checked, no symlink. */
int attach_runtime_dir(char *ret_path, size_t size, struct err *err);

struct attach_record;
/* What a server had to say although it is ready. Called in the caller's process, or, in a run, in
 * the one that becomes the command. */
typedef void attach_note_fn(const struct attach_record *record, const char *sentence);

/* Called in a child of the server process (supervise/supervise.h says what it gets and owes), and
 * again in another one whenever that dies. Descriptors that the program itself opened
 * (close-on-exec) are still open, those it inherited are closed, the log (base/log.h) and
 * descriptor 2 lead to the log file, the directory is "/", and SIGTERM is taken care of. */
typedef supervise_serve_fn attach_serve_fn;

/* Files that the kernel reads a mount's data from itself. */
struct attach_devices {
    int *fds; /* malloc()ed; in the order of the index's devices */
    size_t count;
};
void attach_devices_release(struct attach_devices *d); /* closes them */
static inline void auto_attach_devices_release(struct attach_devices *d)
{
    attach_devices_release(d);
}

/* A mount that the kernel reads itself (EROFS), from the one file in the root of what the server
 * serves, called attach_source_name(). Only as root. A kernel that does not do it: -EOPNOTSUPP. */
struct attach_kernel {
    uint64_t ahead;      /* bytes of the file to ask for at once: its index, if that is small */
    uint64_t index_size; /* bytes of the file that are the index */
    const char *copies;  /* a directory of ours, for a copy of it, with devices; NULL: none */
    /* Called when the server is ready, in the process that mounts. NULL: all data is in the file.
     */
    int (*devices)(void *ctx, struct attach_devices *ret, struct err *err);
    void *ctx;
};

#define ATTACH_SOURCE_MAX    96
#define ATTACH_SOURCE_FORMAT "grid:%s:%u"
struct attach_record;
/* "grid:NAME:VERSION", as /proc/mounts shows it. */
void attach_source_name(const struct attach_record *r, char ret[static ATTACH_SOURCE_MAX]);

/* A mount of the kernel's that stands nowhere, to try out what it can do: r->kernel says what.
 * Gone, with its server, when the descriptor is closed. */
int attach_kernel_try(const struct attach_record *r, attach_serve_fn *serve, void *ctx,
                      int *ret_mount_fd, struct err *err);

/* Whose a job is that root attaches for. */
struct attach_user {
    uid_t uid;
    gid_t gid;
    bool alone; /* nobody else may look into the mount, not even root: the server is the user's */
};

/* What a mount is, for records and listings. */
struct attach_record {
    char name[64];
    uint32_t version;
    char cluster[64];
    char mountpoint[4096];
    char mode[16];         /* "fuse", "native", "local" */
    char why[256];         /* this mode and no better one: a clause; "" if it is the best */
    pid_t server;          /* the supervisor */
    uint64_t server_start; /* field 22 of /proc/PID/stat: a pid that was given out again differs */
    int64_t since_ms;
    char run[80];        /* name of the run; "session/NAME"; "" for `mount` */
    char protection[16]; /* "protected": nobody can delete the version under it; "unprotected"... */
    char holder[256];    /* who holds the version by it: "run r1" */
    pid_t pid;           /* the process that asked for it; 0: of a server of its own */
    uint32_t attachment; /* its number at a shared server; 0: of a server of its own */
    int watch;           /* there: what tells that its namespace is gone; 0: it is in view */
    uint64_t mount_id;   /* there: if it is in view */
    /* of the caller, not of the record: */
    attach_note_fn *note;               /* may be NULL */
    const struct attach_kernel *kernel; /* NULL: the server's own file system is what is seen */
    const struct attach_user *user;     /* NULL: we are the user */
};

/* What reads may wait: for a store that does not answer, or for a server to take over. */
#define ATTACH_PATIENCE_S 60
/* Seconds after which this machine's kernel gives up on a request and takes its mount away for good
 * (sysctl fs.fuse.default_request_timeout and max_request_timeout), if that is sooner; else 0. */
unsigned attach_request_timeout(void);

/* From the process that serves: what protects the version under the mount of this server process
 * (its parent, if that lives), for `mounts`; the sentence, if it is not empty, for the caller's
 * note. Before the server is ready, and whenever it changes. */
int attach_protection_write(pid_t server, const char *word, const char *sentence);
/* Remove what that left, and figures: where the server process is another user's, and cannot. */
void attach_protection_forget(pid_t server);
/* A small file for what that server counts, made if it is missing; it goes with the server's
 * record. And what it says: the number of bytes, -ENOENT if there is none. */
int attach_figures_open(pid_t server, int *ret_fd);
ssize_t attach_figures_read(const struct attach_record *record, void *data, size_t size);

/* One datastore to be attached. */
struct attach_item {
    struct attach_record record; /* name, version, cluster, mode, run, holder by the caller */
    const char *target;          /* of a run: where the command sees it: absolute path */
    attach_serve_fn *serve;
    void *serve_ctx;
    /* All else that must be the same for two jobs to use one server. NULL: it has its own. */
    const char *share;
    bool required; /* fail rather than attach unprotected */
};

/* Mount at `item->record.mountpoint`, an existing empty directory, which is made absolute. Joins
 * the server of that version, or starts one in the background (a process of its own session,
 * standard descriptors closed but the log, which goes to <runtime>/log/), and waits until it is
 * ready or has failed. The server writes the record and removes it. */
int attach_serve_background(struct attach_item *item, struct err *err);

/* Live mounts of this user, oldest first: records whose server is alive. Those of dead servers are
 * removed on the way, and so is a visible mount that such a server left behind. */
typedef int attach_record_fn(void *ctx, const struct attach_record *record);
int attach_each(attach_record_fn *fn, void *ctx, struct err *err);
/* Unmount what attach_serve_background() mounted, and wait until its server is gone. -EINVAL: no
 * datastore is mounted there; -EBUSY: in use, unless `lazy`. */
int attach_unmount(const char *mountpoint, bool lazy, struct err *err);

/* Run argv with all items attached; blocks until it ended; *ret_exit is its exit code (128 + signal
 * if it was killed). Signals that reach us are passed on; the terminal is the command's. On failure
 * before the command was started, an errno and a sentence; nothing stays mounted. If the command
 * itself could not be run, *ret_exit is set all the same, as shells do: 127 if it was not found,
 * 126 otherwise. */
int attach_run(struct attach_item *items, size_t count, char *const argv[], int *ret_exit,
               struct err *err);

/* ---- sessions: runs that others can enter and end; their records' `run` is "session/NAME"
 * ------------------------------------------------------------------------------------------- */

#define ATTACH_SESSION_PREFIX "session/"
/* The session's name in a record, or NULL: it is of none. */
const char *attach_session_name(const struct attach_record *r);
/* Like attach_run(), but without a command: comes back when all is attached, and a process in the
 * background keeps it so. A session's name that is taken: -EEXIST, here and in attach_run(). */
int attach_hold(struct attach_item *items, size_t count, struct err *err);
/* The same, as root, for a job of somebody else's (record.user), who then enters the namespace of
 * *ret_pid, a child of ours that is killed if we end. A place must lie below /datastores or be a
 * directory of the user's: what else is mounted over, programs of root's may trust. */
int attach_hold_job(struct attach_item *items, size_t count, pid_t *ret_pid, struct err *err);
/* Become argv in the session. Only comes back if that fails; *ret_exit as above. -ENOENT: there is
 * none of that name. */
int attach_session_enter(const char *name, char *const argv[], int *ret_exit, struct err *err);
/* End all its processes: SIGHUP and SIGTERM, after `grace_ms` SIGKILL; wait until all is detached.
 * -ENOENT. */
int attach_session_end(const char *name, unsigned grace_ms, struct err *err);

/* ---- servers that many jobs share (docs/attaching.md)
 * ------------------------------------------------------------------------------------------- */

/* Privileged callers: show item->target in a mount namespace (a descriptor of /proc/PID/ns/mnt; -1:
 * our own) from the shared server of its version, which is started if there is none. From then on
 * it is attached as long as that namespace, or a copy of it, has it. `*ret_link` (NULL: not
 * wanted) becomes readable when the server has seen the end. -EOPNOTSUPP: not possible here; use
 * servers of their own. The caller is single-threaded, and not in a namespace of a job's. */
int attach_join(const struct attach_item *item, int namespace_fd, int *ret_link, struct err *err);

/* In the process that serves: supervise_child.more, where the server is shared. */
struct attach_jobs;

struct attach_job {
    const char *text; /* what people call it: "run r1" */
    pid_t pid;
    bool required; /* fail rather than attach unprotected */
};

/* Called on one thread at a time. */
struct attach_job_ops {
    /* `note`: what is wrong, although it may come. */
    int (*join)(void *ctx, const struct attach_job *job, uint64_t *ret_id, char *note,
                size_t note_size, struct err *err);
    void (*leave)(void *ctx, uint64_t id);
};

/* Before it is ready: tells of the jobs that were here before this process. */
int attach_jobs_begin(struct attach_jobs *jobs, const struct attach_job_ops *ops, void *ctx,
                      struct err *err);
/* When it is ready and serves: lets jobs in, on a thread. */
int attach_jobs_serve(struct attach_jobs *jobs, struct err *err);
void attach_jobs_end(struct attach_jobs *jobs); /* of the thread */

#endif
