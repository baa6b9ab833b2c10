/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A prefix of a bucket as a tree of files: the operations of a source, on a listing that was made
 * when it was opened.
 *
 * A directory is what keys have in front of a slash. It has no time of its own: it is as old as the
 * newest of what is below it. Nothing changes in here unless a read says that the object is another
 * one now; then the next opening asks for what it has become. What identifies content is a hash of
 * the ETag (and version id) in place of an inode number, so local state knows what is unchanged
 * from a listing alone.
 */
#include "source/source-s3-internal.h"

#include "base/digest.h"
#include "base/le.h"

#include <string.h>

#define MODE_FILE      0644u
#define MODE_DIRECTORY 0755u
/* Objects that may change between listing and reading; beyond it is a bucket in full swing. */
#define CHANGED_MAX 65536u

struct s3_dir {
    struct source_dir base;
    size_t length;
    char path[S3_KEY_MAX + 2]; /* "" or ends in '/' */
};

struct s3_file {
    struct source_file base;
    uint8_t *row;
    struct window_object object;
    char key[2 * S3_KEY_MAX + 4]; /* whole */
};

static struct source_s3 *source_of(struct source *s)
{
    return (struct source_s3 *)s;
}

static struct s3_dir *dir_of(struct source_dir *d)
{
    return (struct s3_dir *)d;
}

static struct s3_file *file_of(struct source_file *f)
{
    return (struct s3_file *)f;
}

/* ---- attributes -------------------------------------------------------------------------------
 */

static struct source_time time_of(int64_t ms)
{
    int64_t s = ms / 1000 - (ms % 1000 < 0);

    return (struct source_time){s, (uint32_t)(ms - s * 1000) * 1000000};
}

/* Equal for equal content of this bucket, whatever the object is called. */
static uint64_t identity_of(const struct source_s3 *s, const struct s3_object *o)
{
    char text[sizeof s->place.endpoint + sizeof s->bucket_name + sizeof o->etag +
              sizeof o->version_id + 8];
    int n = snprintf(text, sizeof text, "%s\n%s\n%s\n%s", s->place.endpoint, s->bucket_name,
                     o->etag, s->pins ? o->version_id : "");
    struct digest d = digest_of(text, (size_t)n);

    return le64_get(d.byte);
}

/* A change never hides in a clock's tick, so ctime says nothing, and is always long ago. */
static void stat_of_object(const struct source_s3 *s, const struct s3_object *o,
                           struct source_stat *ret)
{
    *ret = (struct source_stat){.type = SOURCE_FILE,
                                .mode = MODE_FILE,
                                .link_count = 1,
                                .inode = identity_of(s, o),
                                .size = o->size,
                                .room = o->size,
                                .mtime = time_of(o->mtime_ms)};
}

static void stat_of_directory(int64_t mtime_ms, struct source_stat *ret)
{
    *ret = (struct source_stat){.type = SOURCE_DIRECTORY,
                                .mode = MODE_DIRECTORY,
                                .link_count = 1,
                                .mtime = time_of(mtime_ms)};
}

/* ---- directories ------------------------------------------------------------------------------
 */

/* The next row below `path` (which the cursor may stand on already) that is not skipped. */
static bool next_below(struct rows_cursor *c, const char *path, size_t length, bool more)
{
    while (more && strncmp(c->key, path, length) == 0) {
        enum key_kind kind = rows_kind(c);
        if (kind == KEY_FILE || key_is_directory(kind))
            return true;
        more = rows_next(c);
    }
    return false;
}

static int s3_open_dir(struct source *base, const char *path, struct source_dir **ret)
{
    struct source_s3 *s = source_of(base);
    struct rows_cursor c;
    size_t n = strlen(path);

    if (n > S3_KEY_MAX)
        return -ENOENT;
    struct s3_dir *d = malloc(sizeof *d);
    if (!d)
        return -ENOMEM;
    d->base.source = base;
    d->length = (size_t)snprintf(d->path, sizeof d->path, "%s%s", path, n > 0 ? "/" : "");
    if (n > 0 && !next_below(&c, d->path, d->length, rows_seek(&s->rows, d->path, &c))) {
        free(d);
        return -ENOENT;
    }
    *ret = &d->base;
    return 0;
}

static void s3_close_dir(struct source_dir *d)
{
    free(d);
}

/* All files of a directory that is below the one that is listed become one entry. */
struct group {
    char name[256];
    size_t length; /* 0: none */
    int64_t mtime_ms;
};

static int end_group(struct listing_builder *b, struct group *g)
{
    struct source_stat stat;

    if (g->length == 0)
        return 0;
    stat_of_directory(g->mtime_ms, &stat);
    g->length = 0;
    return listing_add(b, g->name, &stat, NULL);
}

static int add_file(const struct source_s3 *s, struct listing_builder *b,
                    const struct rows_cursor *c, const char *name)
{
    struct source_stat stat;
    struct s3_object o;
    char key[2 * S3_KEY_MAX + 4];

    rows_object(c, &o);
    stat_of_object(s, &o, &stat);
    int r = listing_add(b, name, &stat, NULL);
    if (r < 0 || !s->pins)
        return r;
    (void)snprintf(key, sizeof key, "%s%s", s->prefix, c->key); /* both are bounded: it fits */
    struct source_pin pin = {
        .key = key, .etag = o.etag, .version_id = o.version_id[0] ? o.version_id : NULL};
    return listing_pin(b, &pin);
}

static int add_row(const struct source_s3 *s, struct listing_builder *b, struct group *g,
                   const struct rows_cursor *c, const char *name)
{
    size_t n = strcspn(name, "/");
    bool joins = g->length == n && memcmp(g->name, name, n) == 0;
    int r = joins && name[n] ? 0 : end_group(b, g);

    if (r < 0 || n == 0) /* the marker of the directory itself */
        return r;
    if (!name[n])
        return add_file(s, b, c, name);
    if (!joins) {
        memcpy(g->name, name, n);
        g->name[n] = '\0';
        g->length = n;
        g->mtime_ms = c->mtime_ms;
    }
    if (c->mtime_ms > g->mtime_ms)
        g->mtime_ms = c->mtime_ms;
    return 0;
}

static int s3_list_dir(struct source_dir *base, struct source_listing *ret)
{
    const struct s3_dir *d = dir_of(base);
    const struct source_s3 *s = source_of(base->source);
    AUTO(listing_builder_release) struct listing_builder b = {.pieces = NULL};
    struct group g = {.length = 0};
    struct rows_cursor c;
    bool more = rows_seek(&s->rows, d->path, &c);
    int r = 0;

    while (r == 0 && next_below(&c, d->path, d->length, more)) {
        r = add_row(s, &b, &g, &c, c.key + d->length);
        more = rows_next(&c);
    }
    if (r == 0)
        r = end_group(&b, &g);
    if (r == 0)
        listing_finish(&b, ret);
    return r;
}

static int s3_dir_stat(struct source_dir *base, struct source_stat *ret)
{
    const struct s3_dir *d = dir_of(base);
    const struct source_s3 *s = source_of(base->source);
    struct rows_cursor c;
    bool more = rows_seek(&s->rows, d->path, &c);
    int64_t newest = 0;

    for (bool first = true; next_below(&c, d->path, d->length, more); first = false) {
        if (first || c.mtime_ms > newest)
            newest = c.mtime_ms;
        more = rows_next(&c);
    }
    stat_of_directory(newest, ret);
    return 0;
}

static int s3_dir_xattrs(struct source_dir *d, struct buf *b)
{
    return 0;
}

/* ---- files ------------------------------------------------------------------------------------
 */

static struct changed *find_changed(struct source_s3 *s, const uint8_t *row)
{
    for (size_t i = 0; i < s->changed.count; i++) {
        if (s->changed.at[i].row == row)
            return &s->changed.at[i];
    }
    return NULL;
}

/* A read said that it is not the object that was listed. */
static int note_change(struct source_s3 *s, uint8_t *row)
{
    WITH_LOCK(&s->lock);
    struct changed *there = find_changed(s, row), fresh = {.row = row};

    if (there) {
        there->known = false;
        return 0;
    }
    if (s->changed.count == CHANGED_MAX)
        return -EAGAIN;
    int r = vec_push(&s->changed, fresh);
    if (r == 0)
        rows_set_changed(row);
    return r;
}

/* What the object is now. */
static int look_again(struct source_s3 *s, const uint8_t *row, const char *key,
                      struct s3_object *ret)
{
    struct err err = ERR_INIT;

    {
        WITH_LOCK(&s->lock);
        const struct changed *there = find_changed(s, row);
        if (there->known) {
            *ret = there->object;
            return 0;
        }
    }
    int r = s3_head(s->s3, s->bucket_name, key, ret, &err);
    if (r < 0) {
        window_tell(s->window, r, &err);
        return r;
    }
    if (!s->pins)
        ret->version_id[0] =
            '\0'; /* its ETag is the pin: reading a version is another permission */
    WITH_LOCK(&s->lock);
    struct changed *there = find_changed(s, row);
    there->object = *ret;
    there->known = true;
    return 0;
}

/* Stands on the file `path``name`; -ENOENT. */
static int find_file(const struct source_s3 *s, const char *path, const char *name,
                     struct rows_cursor *c)
{
    char key[2 * S3_KEY_MAX + 4];
    int n = snprintf(key, sizeof key, "%s%s", path, name);

    if (n > (int)S3_KEY_MAX || !rows_seek(&s->rows, key, c) || strcmp(c->key, key) != 0)
        return -ENOENT;
    return rows_kind(c) == KEY_FILE ? 0 : -ENOENT;
}

static int s3_open_file(struct source_dir *base, const char *name, struct source_file **ret)
{
    struct source_s3 *s = source_of(base->source);
    struct rows_cursor c;

    int r = find_file(s, dir_of(base)->path, name, &c);
    if (r < 0)
        return r;
    struct s3_file *f = malloc(sizeof *f);
    if (!f)
        return -ENOMEM;
    f->base.source = base->source;
    f->row = c.row;
    (void)snprintf(f->key, sizeof f->key, "%s%s", s->prefix, c.key); /* both are bounded: it fits */
    rows_object(&c, &f->object.pin);
    f->object.row = c.row;
    f->object.key = f->key;
    if (rows_changed(c.row))
        r = look_again(s, c.row, f->key, &f->object.pin);
    if (r < 0) {
        free(f);
        return r;
    }
    *ret = &f->base;
    return 0;
}

static void s3_close_file(struct source_file *f)
{
    free(f);
}

static int s3_file_stat(struct source_file *f, struct source_stat *ret)
{
    stat_of_object(source_of(f->source), &file_of(f)->object.pin, ret);
    return 0;
}

static int s3_file_xattrs(struct source_file *f, struct buf *b)
{
    return 0;
}

static ssize_t s3_read(struct source_file *base, void *data, size_t size, uint64_t offset)
{
    struct s3_file *f = file_of(base);
    struct source_s3 *s = source_of(base->source);
    ssize_t n = window_read(s->window, &f->object, data, size, offset);

    if (n != -ESTALE && n != -ENOENT)
        return n;
    int r = note_change(s, f->row);
    window_drop(s->window, f->row);
    return r < 0 ? r : -ESTALE;
}

static int s3_next_data(struct source_file *f, uint64_t offset, uint64_t *ret)
{
    *ret = offset;
    return 0;
}

/* ---- the rest ---------------------------------------------------------------------------------
 */

static bool s3_will_read(struct source *base, const char *path, const char *name, uint64_t offset)
{
    struct source_s3 *s = source_of(base);
    char directory[S3_KEY_MAX + 2], key[2 * S3_KEY_MAX + 4];
    struct window_object o;
    struct rows_cursor c;

    if (strlen(path) > S3_KEY_MAX)
        return true;
    (void)snprintf(directory, sizeof directory, "%s%s", path, *path ? "/" : ""); /* measured */
    if (find_file(s, directory, name, &c) < 0 || rows_changed(c.row))
        return true;
    (void)snprintf(key, sizeof key, "%s%s", s->prefix, c.key); /* both are bounded: it fits */
    o.row = c.row;
    o.key = key;
    rows_object(&c, &o.pin);
    return window_announce(s->window, &o, offset);
}

static int s3_each_skipped(struct source *base, source_skipped_fn *fn, void *ctx)
{
    const struct source_s3 *s = source_of(base);
    struct rows_cursor c;
    int r = 0;

    for (bool more = rows_seek(&s->rows, "", &c); more && r == 0; more = rows_next(&c)) {
        if (key_is_skipped(rows_kind(&c)))
            r = fn(ctx, c.key, key_why(rows_kind(&c)));
    }
    return r;
}

static bool s3_explain(struct source *base, int code, char *ret, size_t size)
{
    return window_explain(source_of(base)->window, code, ret, size);
}

static const struct source_bucket *s3_bucket(struct source *base)
{
    return &source_of(base)->bucket;
}

static void s3_close(struct source *base)
{
    struct source_s3 *s = source_of(base);

    if (s->window)
        window_free(s->window);
    else
        s3_free(s->s3);
    rows_release(&s->rows);
    vec_release(&s->changed);
    pthread_mutex_destroy(&s->lock);
    free(s);
}

const struct source_ops source_s3_ops = {
    .open_dir = s3_open_dir,
    .close_dir = s3_close_dir,
    .list = s3_list_dir,
    .dir_stat = s3_dir_stat,
    .dir_xattrs = s3_dir_xattrs,
    .open_file = s3_open_file,
    .close_file = s3_close_file,
    .file_stat = s3_file_stat,
    .file_xattrs = s3_file_xattrs,
    .read = s3_read,
    .next_data = s3_next_data,
    .bucket = s3_bucket,
    .will_read = s3_will_read,
    .each_skipped = s3_each_skipped,
    .explain = s3_explain,
    .close = s3_close,
};
