/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A generated tree, for tests and benchmarks of millions of files without a disk.
 *
 * File `number` is "d<number / per_directory>/f<number>". Its bytes are a function of the number,
 * the generation that last changed it, and the offset, so any range can be made alone.
 */
#include "source/source-internal.h"

#include <stdio.h>
#include <string.h>

#define EPOCH INT64_C(1700000000) /* mtime of generation 0; older than any publish */

struct synthetic_source {
    struct source base;
    struct source_synthetic_options o;
};

struct synthetic_dir {
    struct source_dir base;
    bool is_root;
    uint64_t number;
};

struct synthetic_file {
    struct source_file base;
    uint64_t number;
};

static const struct source_synthetic_options *options_of(const struct source *s)
{
    return &((const struct synthetic_source *)s)->o;
}

/* A well-mixed 64-bit function (the finaliser of splitmix64). */
static uint64_t mix(uint64_t x)
{
    x += UINT64_C(0x9e3779b97f4a7c15);
    x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
    return x ^ (x >> 31);
}

/* The generation that last changed a file: each one picks its own, at random. */
static uint32_t generation_of(const struct source_synthetic_options *o, uint64_t number)
{
    uint32_t g = o->generation;

    while (g > 0 && mix(mix(number) + g) % 100 >= o->changed_percent)
        g--;
    return g;
}

static uint64_t size_of(const struct source_synthetic_options *o, uint64_t number)
{
    uint64_t span = o->size_max - o->size_min + 1;

    return o->size_min + (span ? mix(number) % span : 0);
}

void source_synthetic_bytes(const struct source_synthetic_options *o, uint64_t number,
                            uint64_t offset, void *data, size_t size)
{
    uint64_t seed = mix(number * 2 + 1) ^ mix(generation_of(o, number));
    uint8_t *p = data;

    while (size > 0) {
        uint64_t word = mix(seed + offset / 8);
        size_t skip = offset % 8, n = 8 - skip;
        if (n > size)
            n = size;
        memcpy(p, (const uint8_t *)&word + skip, n);
        p += n;
        offset += n;
        size -= n;
    }
}

static void stat_of_file(const struct source_synthetic_options *o, uint64_t number,
                         struct source_stat *ret)
{
    int64_t time = EPOCH + generation_of(o, number);

    *ret = (struct source_stat){
        .type = SOURCE_FILE,
        .mode = 0644,
        .link_count = 1,
        .device = 1,
        .inode = number + 2,
        .size = size_of(o, number),
        .room = size_of(o, number),
        .mtime = {time, (uint32_t)(number % 1000000000)},
        .ctime = {time, 0},
    };
}

static void stat_of_dir(struct source_stat *ret)
{
    *ret = (struct source_stat){.type = SOURCE_DIRECTORY,
                                .mode = 0755,
                                .link_count = 2,
                                .device = 1,
                                .inode = 1,
                                .mtime = {EPOCH, 0},
                                .ctime = {EPOCH, 0}};
}

/* "f123" or "d123" back to 123. */
static bool number_parse(const char *name, char letter, uint64_t *ret)
{
    char again[32];

    if (name[0] != letter || name[1] < '0' || name[1] > '9')
        return false;
    *ret = strtoull(name + 1, NULL, 10);
    (void)snprintf(again, sizeof again, "%c%llu", letter, (unsigned long long)*ret);
    return strcmp(again, name) == 0;
}

static uint64_t directory_count(const struct source_synthetic_options *o)
{
    return o->files / o->per_directory + (o->files % o->per_directory != 0);
}

static int synthetic_open_dir(struct source *s, const char *path, struct source_dir **ret)
{
    uint64_t number = 0;

    if (*path && (!number_parse(path, 'd', &number) || number >= directory_count(options_of(s))))
        return -ENOENT;
    struct synthetic_dir *d = malloc(sizeof *d);
    if (!d)
        return -ENOMEM;
    *d = (struct synthetic_dir){.base = {s}, .is_root = !*path, .number = number};
    *ret = &d->base;
    return 0;
}

static void synthetic_close_dir(struct source_dir *d)
{
    free(d);
}

static int synthetic_list(struct source_dir *base, struct source_listing *ret)
{
    const struct synthetic_dir *d = (const struct synthetic_dir *)base;
    const struct source_synthetic_options *o = options_of(base->source);
    AUTO(listing_builder_release) struct listing_builder b = {0};
    uint64_t first = d->is_root ? 0 : d->number * o->per_directory;
    uint64_t end = d->is_root ? directory_count(o) : first + o->per_directory;
    char name[32];
    struct source_stat stat;

    if (!d->is_root && end > o->files)
        end = o->files;
    for (uint64_t i = first; i < end; i++) {
        (void)snprintf(name, sizeof name, "%c%llu", d->is_root ? 'd' : 'f', (unsigned long long)i);
        if (d->is_root)
            stat_of_dir(&stat);
        else
            stat_of_file(o, i, &stat);
        int r = listing_add(&b, name, &stat, NULL);
        if (r < 0)
            return r;
    }
    listing_finish(&b, ret);
    return 0;
}

static int synthetic_dir_stat(struct source_dir *d, struct source_stat *ret)
{
    stat_of_dir(ret);
    return 0;
}

static int synthetic_dir_xattrs(struct source_dir *d, struct buf *b)
{
    return 0;
}

static int synthetic_open_file(struct source_dir *base, const char *name, struct source_file **ret)
{
    const struct synthetic_dir *d = (const struct synthetic_dir *)base;
    const struct source_synthetic_options *o = options_of(base->source);
    uint64_t number;

    if (d->is_root || !number_parse(name, 'f', &number) || number >= o->files ||
        number / o->per_directory != d->number)
        return -ENOENT;
    struct synthetic_file *f = malloc(sizeof *f);
    if (!f)
        return -ENOMEM;
    *f = (struct synthetic_file){.base = {base->source}, .number = number};
    *ret = &f->base;
    return 0;
}

static void synthetic_close_file(struct source_file *f)
{
    free(f);
}

static uint64_t number_of(const struct source_file *f)
{
    return ((const struct synthetic_file *)f)->number;
}

static int synthetic_file_stat(struct source_file *f, struct source_stat *ret)
{
    stat_of_file(options_of(f->source), number_of(f), ret);
    return 0;
}

static int synthetic_file_xattrs(struct source_file *f, struct buf *b)
{
    return 0;
}

static ssize_t synthetic_read(struct source_file *f, void *data, size_t size, uint64_t offset)
{
    const struct source_synthetic_options *o = options_of(f->source);
    uint64_t all = size_of(o, number_of(f));
    uint64_t left = offset < all ? all - offset : 0;

    if (size > left)
        size = (size_t)left;
    source_synthetic_bytes(o, number_of(f), offset, data, size);
    return (ssize_t)size;
}

static int synthetic_next_data(struct source_file *f, uint64_t offset, uint64_t *ret)
{
    *ret = offset;
    return 0;
}

static void synthetic_close(struct source *s)
{
    free(s);
}

static const struct source_ops synthetic_ops = {
    .open_dir = synthetic_open_dir,
    .close_dir = synthetic_close_dir,
    .list = synthetic_list,
    .dir_stat = synthetic_dir_stat,
    .dir_xattrs = synthetic_dir_xattrs,
    .open_file = synthetic_open_file,
    .close_file = synthetic_close_file,
    .file_stat = synthetic_file_stat,
    .file_xattrs = synthetic_file_xattrs,
    .read = synthetic_read,
    .next_data = synthetic_next_data,
    .close = synthetic_close,
};

int source_synthetic_new(const struct source_synthetic_options *o, struct source **ret)
{
    if (o->per_directory == 0 || o->size_max < o->size_min || o->changed_percent > 100)
        return -EINVAL;
    struct synthetic_source *s = calloc(1, sizeof *s);
    if (!s)
        return -ENOMEM;
    s->o = *o;
    int r = source_init(&s->base, &synthetic_ops, "synthetic:", true);
    if (r < 0) {
        free(s);
        return r;
    }
    *ret = &s->base;
    return 0;
}
