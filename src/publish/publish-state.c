/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The files of local state: <state_dir>/uploads/<key>/{lock,journal,journal.next,known}, and the
 * two calls that go over all of them. The key is a digest, so that any source's path makes a name.
 *
 * The lock is flock(2): it ends with its process, however that ends.
 */
#include "publish/publish-state.h"

#include "publish/publish.h"

#include "base/file.h"
#include "base/hex.h"
#include "base/vec.h"

#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>

#define UPLOADS      "uploads"
#define LOCK         "lock"
#define JOURNAL      "journal"
#define JOURNAL_NEXT "journal.next"
#define KNOWN        "known"
#define KEY_BYTES    16
#define LOCK_TRIES   8 /* clearcache may remove the file between opening and locking it */
#define BUSY_TRIES   5 /* whoever only looks holds the lock for a moment */
#define BUSY_WAIT_MS 20

struct state {
    int dir_fd, lock_fd;
    struct log_identity id;
};

/* 0 locked, -EBUSY, or another error. The file that is locked is the one that has the name. */
static int lock_directory(int dir_fd, int *ret_fd)
{
    for (int i = 0; i < LOCK_TRIES; i++) {
        AUTO(close_fd)
        int fd = openat(dir_fd, LOCK, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
        struct stat mine, named;
        if (fd < 0)
            return -errno;
        if (flock(fd, LOCK_EX | LOCK_NB) < 0)
            return errno == EWOULDBLOCK ? -EBUSY : -errno;
        if (fstat(fd, &mine) == 0 && fstatat(dir_fd, LOCK, &named, AT_SYMLINK_NOFOLLOW) == 0 &&
            mine.st_ino == named.st_ino && mine.st_dev == named.st_dev) {
            *ret_fd = take_fd(&fd);
            return 0;
        }
    }
    return -EBUSY;
}

static int state_path(char path[static PATH_MAX], const char *state_dir,
                      const struct log_identity *id)
{
    struct buf b = BUF_INIT(PATH_MAX * 2);
    char hex[2 * KEY_BYTES + 1];

    int r = buf_printf(&b, "%s\n%s\n%s", id->store_id, id->name, id->source);
    if (r == 0) {
        struct digest d = digest_of(b.data, b.size);
        hex_encode(hex, d.byte, KEY_BYTES);
        int n = snprintf(path, PATH_MAX, "%s/" UPLOADS "/%s", state_dir, hex);
        r = n < 0 || n >= PATH_MAX ? -ENAMETOOLONG : 0;
    }
    buf_release(&b);
    return r;
}

int state_open(const char *state_dir, const struct log_identity *id, struct state **ret,
               struct err *err)
{
    char path[PATH_MAX];
    AUTO(state_close) struct state *s = calloc(1, sizeof *s);
    int busy = 0;

    if (!s)
        return -ENOMEM;
    s->dir_fd = s->lock_fd = -1;
    s->id = *id;
    for (;;) {
        int r = state_path(path, state_dir, id);
        if (r == 0)
            r = file_mkdirs(path, 0700);
        if (r < 0)
            return err_fail(err, r, "cannot keep local state in %s: %s", state_dir, strerror(-r));
        s->dir_fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        r = s->dir_fd < 0 ? -errno : lock_directory(s->dir_fd, &s->lock_fd);
        if (r == -ENOENT) { /* clearcache came in between */
            if (s->dir_fd >= 0)
                (void)close(take_fd(&s->dir_fd)); /* a directory: nothing to lose */
            continue;
        }
        if (r == -EBUSY && ++busy < BUSY_TRIES) {
            (void)close(take_fd(&s->dir_fd)); /* a directory: nothing to lose */
            env_real()->sleep_ms(env_real(), BUSY_WAIT_MS);
            continue;
        }
        if (r == -EBUSY)
            return err_fail(err, r, "%s is just being published as '%s' by another process",
                            id->source, id->name);
        if (r < 0)
            return err_fail(err, r, "cannot lock local state in %s: %s", path, strerror(-r));
        *ret = take_ptr(&s);
        return 0;
    }
}

void state_close(struct state *s)
{
    if (!s)
        return;
    if (s->lock_fd >= 0)
        (void)close(s->lock_fd); /* which unlocks it */
    if (s->dir_fd >= 0)
        (void)close(s->dir_fd); /* a directory: nothing to lose */
    free(s);
}

static int open_log(int dir_fd, const char *name, struct log_reader **ret)
{
    int fd = openat(dir_fd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);

    return fd < 0 ? -errno : log_reader_open(fd, ret);
}

int state_read(const struct state *s, enum state_log which, struct log_reader **ret)
{
    AUTO(log_reader_free) struct log_reader *r = NULL;

    int e = open_log(s->dir_fd, which == STATE_JOURNAL ? JOURNAL : KNOWN, &r);
    if (e == -ENOMEM)
        return e;
    if (e < 0)
        return -ENOENT; /* damaged, or of another program: it is written anew */
    const struct log_identity *id = log_reader_identity(r);
    if (strcmp(id->store_id, s->id.store_id) != 0 || strcmp(id->name, s->id.name) != 0 ||
        strcmp(id->source, s->id.source) != 0)
        return -ENOENT;
    *ret = take_ptr(&r);
    return 0;
}

int state_write(const struct state *s, struct log_writer **ret)
{
    int fd = openat(s->dir_fd, JOURNAL_NEXT, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW,
                    0600);

    return fd < 0 ? -errno : log_writer_new(fd, &s->id, ret);
}

int state_promote(const struct state *s)
{
    return renameat(s->dir_fd, JOURNAL_NEXT, s->dir_fd, JOURNAL) < 0 ? -errno : 0;
}

/* Not synced: after a power cut a torn log only costs time, a sync costs time always. */
int state_commit(const struct state *s)
{
    return renameat(s->dir_fd, JOURNAL, s->dir_fd, KNOWN) < 0 ? -errno : 0;
}

void state_forget_journal(const struct state *s)
{
    (void)unlinkat(s->dir_fd, JOURNAL, 0); /* absent is fine, too */
}

void state_forget_next(const struct state *s)
{
    (void)unlinkat(s->dir_fd, JOURNAL_NEXT, 0); /* absent is fine, too */
}

/* ---- all of them ------------------------------------------------------------------------------
 */

typedef int each_fn(void *ctx, int uploads_fd, const char *key, int dir_fd, struct err *err);

static int each_upload(const char *state_dir, each_fn *fn, void *ctx, struct err *err)
{
    char path[PATH_MAX];
    int n = snprintf(path, sizeof path, "%s/" UPLOADS, state_dir);

    if (n < 0 || n >= PATH_MAX)
        return err_fail(err, -ENAMETOOLONG, "%s is too long a path", state_dir);
    AUTO(close_dir) DIR *dir = opendir(path);
    if (!dir)
        return errno == ENOENT ? 0
                               : err_fail(err, -errno, "cannot read %s: %s", path, strerror(errno));
    for (;;) {
        errno = 0;
        const struct dirent *e = readdir(dir);
        if (!e)
            return errno ? err_fail(err, -errno, "cannot read %s: %s", path, strerror(errno)) : 0;
        if (e->d_name[0] == '.')
            continue;
        AUTO(close_fd)
        int fd = openat(dirfd(dir), e->d_name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
        int r = fd < 0 ? 0 : fn(ctx, dirfd(dir), e->d_name, fd, err);
        if (r < 0)
            return r;
    }
}

struct pending_list {
    VEC(struct publish_pending) rows;
};

static int collect_pending(void *ctx, int uploads_fd, const char *key, int dir_fd, struct err *err)
{
    struct pending_list *list = ctx;
    AUTO(close_fd) int lock_fd = openat(dir_fd, LOCK, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    AUTO(log_reader_free) struct log_reader *r = NULL;
    struct log_session session;
    struct digest manifest;

    if (lock_fd < 0)
        return 0; /* clearcache was here */
    int e = open_log(dir_fd, JOURNAL, &r);
    if (e == -ENOMEM)
        return e;
    if (e < 0 || !log_reader_session(r, &session) || log_reader_committed(r, &manifest))
        return 0;
    const struct log_identity *id = log_reader_identity(r);
    struct publish_pending row = {
        .version = session.version,
        .session = session.session,
        .started_ms = session.started_ms,
        .append = id->append,
        .exclude_private = id->exclude_private,
        .trust_mtime = id->trust_mtime,
        .running = flock(lock_fd, LOCK_SH | LOCK_NB) < 0,
    };
    memcpy(row.name, id->name, sizeof row.name);
    memcpy(row.source, id->source, sizeof row.source);
    memcpy(row.source_terms, id->source_terms, sizeof row.source_terms);
    memcpy(row.store_id, id->store_id, sizeof row.store_id);
    memcpy(row.store, id->store, sizeof row.store);
    return vec_push(&list->rows, row);
}

static int newest_first(const void *a, const void *b)
{
    const struct publish_pending *x = a, *y = b;

    return x->started_ms > y->started_ms ? -1 : x->started_ms < y->started_ms;
}

int publish_each_pending(const char *state_dir, publish_pending_fn *fn, void *ctx, struct err *err)
{
    struct pending_list list = {0};

    int r = each_upload(state_dir, collect_pending, &list, err);
    if (r == 0 && list.rows.count > 1)
        qsort(list.rows.at, list.rows.count, sizeof *list.rows.at, newest_first);
    for (size_t i = 0; r == 0 && i < list.rows.count; i++)
        r = fn(ctx, &list.rows.at[i]);
    vec_release(&list.rows);
    return r;
}

struct clearing {
    unsigned count;
    bool busy;
};

static int clear_upload(void *ctx, int uploads_fd, const char *key, int dir_fd, struct err *err)
{
    static const char *const files[] = {JOURNAL, JOURNAL_NEXT, KNOWN, LOCK};
    struct clearing *c = ctx;
    AUTO(close_fd) int lock_fd = -1;
    struct stat st;

    int r = lock_directory(dir_fd, &lock_fd);
    if (r == -EBUSY) {
        c->busy = true;
        return 0;
    }
    if (r < 0)
        return err_fail(err, r, "cannot lock local state: %s", strerror(-r));
    c->count += fstatat(dir_fd, JOURNAL, &st, AT_SYMLINK_NOFOLLOW) == 0;
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        if (unlinkat(dir_fd, files[i], 0) < 0 && errno != ENOENT)
            return err_fail(err, -errno, "cannot remove local state: %s", strerror(errno));
    }
    (void)unlinkat(uploads_fd, key, AT_REMOVEDIR); /* not empty: somebody begins anew */
    return 0;
}

int publish_clear_state(const char *state_dir, unsigned *ret_count, struct err *err)
{
    struct clearing c = {0};

    int r = each_upload(state_dir, clear_upload, &c, err);
    if (r < 0)
        return r;
    *ret_count = c.count;
    if (c.busy)
        return err_fail(err, -EBUSY, "an upload is running: its local state was kept");
    return 0;
}
