/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Walking the tree of a view, depth first, one step at a time, so that two walks can be merged.
 *
 * No recursion: directories that are being walked stand on a stack, each with a small batch of its
 * entries, so memory grows with depth only. The image may be hostile: a directory that contains
 * itself is refused, depth is bounded by INDEX_DEPTH_MAX.
 */
#include "cli/cli-internal.h"

#include "base/name.h"

#include <stdlib.h>
#include <string.h>

/* Entries that are read from a directory at once. */
#define BATCH_ENTRIES 128
/* A path has up to INDEX_DEPTH_MAX names of 255 bytes. */
#define WALK_PATH_MAX ((INDEX_DEPTH_MAX + 1) * (INDEX_NAME_MAX + 1))
#define BATCH_MAX     (BATCH_ENTRIES * (INDEX_NAME_MAX + 16u))

/* One directory. Its batch is rows of: nid (8 bytes), name length (1), name. */
struct level {
    struct index_inode inode;
    uint64_t cookie;    /* where the next batch begins */
    size_t path_length; /* of the directory's own path */
    struct buf batch;
    size_t at;     /* next row */
    unsigned rows; /* in the batch */
    bool is_last;  /* no batch behind this one */
};

struct walk {
    struct view *view; /* borrowed */
    VEC(struct level) levels;
    struct buf path;
    struct index_inode pending; /* a directory to enter at the next step */
    bool has_pending;
};

static int push_level(struct walk *w, const struct index_inode *directory)
{
    struct level fresh = {.inode = *directory, .path_length = w->path.size};

    if (w->levels.count > INDEX_DEPTH_MAX)
        return -EPROTO;
    for (size_t i = 0; i < w->levels.count; i++) {
        if (w->levels.at[i].inode.nid == directory->nid)
            return -EPROTO; /* it contains itself */
    }
    buf_init(&fresh.batch, BATCH_MAX);
    return vec_push(&w->levels, fresh);
}

int walk_new(struct view *v, const struct index_inode *directory, struct walk **ret)
{
    struct walk *w = calloc(1, sizeof *w);

    if (!w)
        return -ENOMEM;
    w->view = v;
    buf_init(&w->path, WALK_PATH_MAX);
    int r = push_level(w, directory);
    if (r < 0)
        walk_free(w);
    else
        *ret = w;
    return r;
}

void walk_free(struct walk *w)
{
    if (!w)
        return;
    for (size_t i = 0; i < w->levels.count; i++)
        buf_release(&w->levels.at[i].batch);
    vec_release(&w->levels);
    buf_release(&w->path);
    free(w);
}

static int collect(void *ctx, const struct index_entry *e)
{
    struct level *l = ctx;
    bool is_dot = (e->name_length == 1 && e->name[0] == '.') ||
                  (e->name_length == 2 && e->name[0] == '.' && e->name[1] == '.');

    l->cookie = e->next;
    if (is_dot)
        return 0;
    if (!name_is_file_name(e->name, e->name_length))
        return -EPROTO; /* a path with such a name would lead elsewhere */
    int r = buf_append(&l->batch, &e->nid, sizeof e->nid);
    if (r == 0)
        r = buf_append(&l->batch, &e->name_length, 1);
    if (r == 0)
        r = buf_append(&l->batch, e->name, e->name_length);
    if (r < 0)
        return r;
    return ++l->rows == BATCH_ENTRIES;
}

static int fill(struct walk *w, struct level *l)
{
    buf_clear(&l->batch);
    l->at = 0;
    l->rows = 0;
    int r = view_readdir(w->view, l->inode.nid, l->cookie, collect, l);
    l->is_last = l->rows < BATCH_ENTRIES;
    return r;
}

static int set_path(struct walk *w, size_t length, const void *name, size_t name_length)
{
    w->path.size = length;
    int r = length ? buf_append_str(&w->path, "/") : 0;
    return r == 0 ? buf_append(&w->path, name, name_length) : r;
}

static void show_path(const struct walk *w, struct walk_item *ret)
{
    const char *slash;

    ret->path = buf_text(&w->path);
    ret->path_length = w->path.size;
    slash = strrchr(ret->path, '/');
    ret->name = slash ? slash + 1 : ret->path;
}

/* The directory on top is done: give it once more. */
static int leave(struct walk *w, struct walk_item *ret)
{
    struct level *l = &w->levels.at[w->levels.count - 1];
    size_t length = l->path_length;
    struct index_inode inode = l->inode;

    buf_release(&l->batch);
    w->levels.count--;
    if (w->levels.count == 0)
        return 0;
    w->path.size = length;
    w->path.data[length] = '\0';
    show_path(w, ret);
    ret->inode = inode;
    ret->leaving = true;
    return 1;
}

int walk_next(struct walk *w, struct walk_item *ret)
{
    int r = 0;

    memset(ret, 0, sizeof *ret);
    if (w->has_pending) {
        w->has_pending = false;
        show_path(w, ret);
        r = push_level(w, &w->pending);
        if (r < 0)
            return r;
    }
    if (w->levels.count == 0)
        return 0;
    struct level *l = &w->levels.at[w->levels.count - 1];
    while (l->at >= l->batch.size && !l->is_last) {
        r = fill(w, l);
        if (r < 0)
            return r;
    }
    if (l->at >= l->batch.size)
        return leave(w, ret);

    uint64_t nid;
    const uint8_t *row = l->batch.data + l->at;
    memcpy(&nid, row, sizeof nid);
    l->at += sizeof nid + 1 + row[8];
    r = set_path(w, l->path_length, row + 9, row[8]);
    if (r < 0)
        return r;
    show_path(w, ret);
    r = view_inode(w->view, nid, &ret->inode);
    if (r < 0)
        return r;
    if (ret->inode.type == INDEX_DIRECTORY) {
        w->pending = ret->inode;
        w->has_pending = true;
    }
    return 1;
}

void walk_skip(struct walk *w)
{
    w->has_pending = false;
}

int walk_compare(const char *a, const char *b)
{
    for (;; a++, b++) {
        int x = *a == '/' ? 1 : *a ? 2 : 0;
        int y = *b == '/' ? 1 : *b ? 2 : 0;
        if (x != y || x == 0)
            return x - y;
        if (*a != *b)
            return (unsigned char)*a < (unsigned char)*b ? -1 : 1;
    }
}
