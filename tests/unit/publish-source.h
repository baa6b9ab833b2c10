/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A source around another one, that counts what is opened and lets a test step in: between the
 * walk and the reading, and in the middle of a file.
 */
#ifndef TESTS_PUBLISH_SOURCE_H
#define TESTS_PUBLISH_SOURCE_H

#include "source/source.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

struct spy {
    struct source base;
    struct source *below;
    atomic_uint opened, read;
    /* Called before each read; may change the file below. `name` is the file's. */
    void (*on_read)(struct spy *s, const char *name, uint64_t offset);
    /* Called when a file is opened; nonzero is what the opening then gives. */
    int (*on_open)(struct spy *s, const char *name);
    /* May change what a stat says, and then what a read gives: for contents that are made up. */
    void (*on_stat)(struct spy *s, const char *name, struct source_stat *st);
    void (*on_data)(struct spy *s, const char *name, uint64_t offset, void *data, size_t size);
    void *ctx;
};

struct spy_dir {
    struct source_dir base;
    struct source_dir *below;
};

struct spy_file {
    struct source_file base;
    struct source_file *below;
    char name[256];
};

static struct spy *spy_of(struct source *s)
{
    return (struct spy *)s;
}

static int spy_open_dir(struct source *s, const char *path, struct source_dir **ret)
{
    struct spy_dir *d = calloc(1, sizeof *d);
    int r = source_open_dir(spy_of(s)->below, path, &d->below);

    if (r < 0) {
        free(d);
        return r;
    }
    d->base.source = s;
    *ret = &d->base;
    return 0;
}

static struct source_dir *dir_below(struct source_dir *d)
{
    return ((struct spy_dir *)d)->below;
}

static void spy_close_dir(struct source_dir *d)
{
    source_close_dir(dir_below(d));
    free(d);
}

static int spy_list(struct source_dir *d, struct source_listing *ret)
{
    struct spy *s = spy_of(d->source);
    int r = source_list(dir_below(d), ret);

    for (size_t i = 0; r == 0 && s->on_stat && i < ret->count; i++)
        s->on_stat(s, ret->entries[i].name, &ret->entries[i].stat);
    return r;
}

static int spy_dir_stat(struct source_dir *d, struct source_stat *ret)
{
    return source_dir_stat(dir_below(d), ret);
}

static int spy_dir_xattrs(struct source_dir *d, struct buf *b)
{
    return source_dir_xattrs(dir_below(d), b);
}

static int spy_open_file(struct source_dir *d, const char *name, struct source_file **ret)
{
    struct spy *s = spy_of(d->source);
    struct spy_file *f = calloc(1, sizeof *f);
    int r = strcmp(name, ".gridignore") != 0 && s->on_open ? s->on_open(s, name) : 0;

    if (r == 0)
        r = source_open_file(dir_below(d), name, &f->below);
    if (r < 0) {
        free(f);
        return r;
    }
    s->opened++;
    f->base.source = d->source;
    memcpy(f->name, name, strlen(name) + 1);
    *ret = &f->base;
    return 0;
}

static struct spy_file *spy_file_of(struct source_file *f)
{
    return (struct spy_file *)f;
}

static void spy_close_file(struct source_file *f)
{
    source_close_file(spy_file_of(f)->below);
    free(f);
}

static int spy_file_stat(struct source_file *f, struct source_stat *ret)
{
    struct spy *s = spy_of(f->source);
    int r = source_file_stat(spy_file_of(f)->below, ret);

    if (r == 0 && s->on_stat)
        s->on_stat(s, spy_file_of(f)->name, ret);
    return r;
}

static int spy_file_xattrs(struct source_file *f, struct buf *b)
{
    return source_file_xattrs(spy_file_of(f)->below, b);
}

static ssize_t spy_read(struct source_file *f, void *data, size_t size, uint64_t offset)
{
    struct spy *s = spy_of(f->source);

    s->read++;
    if (s->on_read)
        s->on_read(s, spy_file_of(f)->name, offset);
    ssize_t n = source_file_read(spy_file_of(f)->below, data, size, offset);
    if (n > 0 && s->on_data)
        s->on_data(s, spy_file_of(f)->name, offset, data, (size_t)n);
    return n;
}

static int spy_next_data(struct source_file *f, uint64_t offset, uint64_t *ret)
{
    return source_file_next_data(spy_file_of(f)->below, offset, ret);
}

static void spy_close(struct source *s)
{
    source_close(spy_of(s)->below);
    free(s);
}

static const struct source_ops spy_ops = {
    .open_dir = spy_open_dir,
    .close_dir = spy_close_dir,
    .list = spy_list,
    .dir_stat = spy_dir_stat,
    .dir_xattrs = spy_dir_xattrs,
    .open_file = spy_open_file,
    .close_file = spy_close_file,
    .file_stat = spy_file_stat,
    .file_xattrs = spy_file_xattrs,
    .read = spy_read,
    .next_data = spy_next_data,
    .close = spy_close,
};

/* Takes `below` over. */
static struct spy *spy_new(struct source *below)
{
    struct spy *s = calloc(1, sizeof *s);

    s->base.ops = &spy_ops;
    s->base.location = strdup(below->location);
    s->base.inodes_stable = below->inodes_stable;
    s->below = below;
    return s;
}

#endif
