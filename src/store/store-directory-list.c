/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Listings of a directory store: a walk in the order of whole keys, complete or an error.
 *
 * The trap: "a-" sorts before "a/", so the order of names in a directory is not the order of keys.
 * Children are sorted with a '/' behind the names of directories. Subtrees that cannot hold a key
 * of the listing are not opened. Directories without an object are not told, since a bucket has no
 * such thing. Names that are no part of a key are not ours and are passed over; but a symlink or a
 * device under a name of a key is an error, since nobody can tell what was lost there.
 */
#include "store/store-internal.h"

#include "base/vec.h"

#include <fcntl.h>
#include <sys/stat.h>

/* Entries of one getdents64(2). */
#define DIRENT_BYTES (64u << 10)
/* Names of one directory; 50 million entries, beyond what file systems bear. */
#define NAMES_MAX ((size_t)2 << 30)

struct child {
    size_t offset;    /* of its name in the frame's names */
    const char *name; /* valid once all are read */
    bool is_directory;
};

/* One directory on the way down. Frames are kept for the next directory of that depth. */
struct frame {
    int fd;
    size_t path_length; /* of walk.path that leads here, with its last '/' */
    size_t next;        /* child */
    struct buf names;
    VEC(struct child) children;
};

struct walk {
    const struct store_list_options *options;
    store_list_fn *fn; /* NULL: end with 1 at the first object */
    void *ctx;
    uint8_t *dirents;
    VEC(struct frame) frames;
    size_t depth; /* frames in use */
    char path[STORE_KEY_MAX + 2];
};

static void walk_pop(struct walk *w)
{
    struct frame *f = &w->frames.at[--w->depth];

    if (f->fd >= 0)
        (void)close(f->fd); /* a directory: nothing to lose */
    f->fd = -1;
}

static void walk_release(struct walk *w)
{
    while (w->depth > 0)
        walk_pop(w);
    for (size_t i = 0; i < w->frames.count; i++) {
        buf_release(&w->frames.at[i].names);
        vec_release(&w->frames.at[i].children);
    }
    vec_release(&w->frames);
}

static inline void auto_walk_release(struct walk *w)
{
    walk_release(w);
}

/* Takes `fd` over, whatever it returns. */
static int walk_push(struct walk *w, int fd, size_t path_length)
{
    if (w->depth == w->frames.count) {
        struct frame fresh = {.fd = -1};
        buf_init(&fresh.names, NAMES_MAX);
        if (vec_push(&w->frames, fresh) < 0) {
            (void)close(fd); /* a directory: nothing to lose */
            return -ENOMEM;
        }
    }
    struct frame *f = &w->frames.at[w->depth++];
    f->fd = fd;
    f->path_length = path_length;
    f->next = 0;
    buf_clear(&f->names);
    f->children.count = 0;
    return 0;
}

/* 1 a directory, 0 an object, -ENOENT gone meanwhile, -EPROTO nothing of ours. */
static int child_type(int fd, const struct dirent64 *e)
{
    struct stat st;

    if (e->d_type == DT_DIR)
        return 1;
    if (e->d_type == DT_REG)
        return 0;
    if (e->d_type != DT_UNKNOWN)
        return -EPROTO;
    if (fstatat(fd, e->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return -errno;
    return S_ISDIR(st.st_mode) ? 1 : S_ISREG(st.st_mode) ? 0 : -EPROTO;
}

static int add_child(struct walk *w, struct frame *f, const struct dirent64 *e, const char *begins)
{
    size_t length = strlen(e->d_name), begins_length = strlen(begins);

    if (!store_component_is_valid(e->d_name, length) ||
        strncmp(e->d_name, begins, begins_length) != 0 || f->path_length + length > STORE_KEY_MAX)
        return 0;
    int type = child_type(f->fd, e);
    if (type < 0)
        return type == -ENOENT ? 0 : type;
    if (type == 0 && !w->fn)
        return 1;
    struct child child = {.offset = f->names.size, .is_directory = type == 1};
    int r = buf_append(&f->names, e->d_name, length);
    if (r == 0)
        r = buf_append(&f->names, child.is_directory ? "/" : "", child.is_directory ? 2 : 1);
    return r < 0 ? r : vec_push(&f->children, child);
}

static int child_compare(const void *a, const void *b)
{
    return strcmp(((const struct child *)a)->name, ((const struct child *)b)->name);
}

/* Read the directory of the topmost frame: children whose name begins with `begins`. */
static int frame_load(struct walk *w, const char *begins)
{
    struct frame *f = &w->frames.at[w->depth - 1];

    for (;;) {
        ssize_t n = getdents64(f->fd, w->dirents, DIRENT_BYTES);
        if (n < 0)
            return -errno;
        if (n == 0)
            break;
        for (ssize_t at = 0; at < n;) {
            const struct dirent64 *e = (const struct dirent64 *)(w->dirents + at);
            int r = add_child(w, f, e, begins);
            if (r != 0)
                return r;
            at += e->d_reclen;
        }
    }
    for (size_t i = 0; i < f->children.count; i++)
        f->children.at[i].name = buf_text(&f->names) + f->children.at[i].offset;
    if (f->children.count > 1)
        qsort(f->children.at, f->children.count, sizeof *f->children.at, child_compare);
    return 0;
}

static bool behind_start(const struct walk *w)
{
    return !w->options->start_after || strcmp(w->path, w->options->start_after) > 0;
}

/* Whether keys that begin with walk.path may be greater than start_after. */
static bool may_be_behind_start(const struct walk *w)
{
    const char *start = w->options->start_after;

    return !start || strncmp(w->path, start, strlen(w->path)) >= 0;
}

static int visit_object(struct walk *w, const struct frame *f, const char *name)
{
    struct stat st;

    if (!behind_start(w))
        return 0;
    if (w->options->keys_only) /* that it is a file is known: child_type() has looked */
        return w->fn(w->ctx, &(struct store_entry){.key = w->path});
    if (fstatat(f->fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return errno == ENOENT ? 0 : -errno;
    if (!S_ISREG(st.st_mode))
        return -EPROTO;
    struct store_entry entry = {
        .key = w->path,
        .size_bytes = (uint64_t)st.st_size,
        .mtime_ms = (int64_t)st.st_mtim.tv_sec * 1000 + st.st_mtim.tv_nsec / 1000000,
    };
    return w->fn(w->ctx, &entry);
}

static int walk_run(struct walk *w, int fd, size_t path_length, const char *begins);

/* 1 if an object stands anywhere below `fd`, 0 if not. Takes `fd` over. */
static int has_object(const struct walk *above, int fd, size_t path_length)
{
    static const struct store_list_options all = {0};
    AUTO(walk_release) struct walk w = {.options = &all, .dirents = above->dirents};

    memcpy(w.path, above->path, path_length + 1);
    return walk_run(&w, fd, path_length, "");
}

/* walk.path ends in '/' here. */
static int visit_directory(struct walk *w, const struct frame *f, const char *name, size_t length)
{
    if (w->options->by_component ? !behind_start(w) : !may_be_behind_start(w))
        return 0;
    char component[NAME_MAX + 1];
    size_t name_length = strlen(name) - 1;
    memcpy(component, name, name_length);
    component[name_length] = '\0';
    int fd = openat(f->fd, component, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return errno == ENOENT ? 0 : errno == ELOOP || errno == ENOTDIR ? -EPROTO : -errno;
    if (!w->options->by_component) {
        int r = walk_push(w, fd, length);
        return r < 0 ? r : frame_load(w, "");
    }
    int r = has_object(w, fd, length);
    if (r <= 0)
        return r;
    struct store_entry entry = {.key = w->path, .is_prefix = true};
    return w->fn(w->ctx, &entry);
}

/* Everything below `fd`, whose children begin with `begins`. Takes `fd` over. */
static int walk_run(struct walk *w, int fd, size_t path_length, const char *begins)
{
    int r = walk_push(w, fd, path_length);

    if (r == 0)
        r = frame_load(w, begins);
    while (r == 0 && w->depth > 0) {
        struct frame *f = &w->frames.at[w->depth - 1];
        if (f->next == f->children.count) {
            walk_pop(w);
            continue;
        }
        const struct child *child = &f->children.at[f->next++];
        size_t name_length = strlen(child->name), length = f->path_length + name_length;
        if (length > STORE_KEY_MAX)
            continue; /* a directory whose '/' is too much: no key fits below it */
        memcpy(w->path + f->path_length, child->name, name_length + 1);
        if (child->is_directory)
            r = visit_directory(w, f, child->name, length);
        else
            r = visit_object(w, f, child->name);
    }
    return r;
}

/* The store's clock: by a file that is made there, where other hosts' clocks date the objects. */
static int64_t store_now_ms(struct store_directory *d)
{
    char name[STORE_TEMP_NAME_SIZE];
    AUTO(close_fd) int dir_fd = -1;
    struct stat st;
    int64_t wall = env_real()->wall_ms(env_real());

    if (d->own_clock || !d->writable ||
        store_directory_walk(d, STORE_TEMP_DIRECTORY, strlen(STORE_TEMP_DIRECTORY), STORE_WALK_MAKE,
                             &dir_fd) < 0)
        return wall;
    store_temp_name(name, getpid());
    AUTO(close_fd)
    int fd = openat(dir_fd, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0444);
    if (fd < 0)
        return wall;
    (void)unlinkat(dir_fd, name, 0); /* a leftover is cleaned by a later opening */
    if (fstat(fd, &st) < 0)
        return wall;
    return (int64_t)st.st_mtim.tv_sec * 1000 + st.st_mtim.tv_nsec / 1000000;
}

int store_directory_list(struct store *s, const char *prefix,
                         const struct store_list_options *options, store_list_fn *fn, void *ctx,
                         int64_t *ret_now_ms)
{
    struct store_directory *d = (struct store_directory *)s;
    AUTO(free_ptr) uint8_t *dirents = malloc(DIRENT_BYTES);
    AUTO(walk_release)
    struct walk w = {.options = options, .fn = fn, .ctx = ctx, .dirents = dirents};
    const char *slash = strrchr(prefix, '/');
    size_t above = slash ? (size_t)(slash - prefix) + 1 : 0;
    int64_t now = ret_now_ms ? store_now_ms(d) : 0;
    int fd;

    if (!dirents)
        return -ENOMEM;
    memcpy(w.path, prefix, above);
    int r = store_directory_walk(d, prefix, above ? above - 1 : 0, STORE_WALK_READ, &fd);
    if (r == 0)
        r = walk_run(&w, fd, above, prefix + above);
    else if (r == -ENOENT || r == -ENOTDIR)
        r = 0; /* nothing stands there */
    if (r == 0 && ret_now_ms)
        *ret_now_ms = now;
    return r;
}
