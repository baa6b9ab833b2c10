/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Objects are files: key "bucket/a/b" is the file a/b of the directory "bucket" below the root. A
 * sorted table of all keys answers listings without a look at the disk.
 */
#include "bucket.h"

#include "base/file.h"
#include "base/vec.h"

#include <errno.h>
#include <fcntl.h>
#include <fts.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define TEMPORARY ".uploads"

static struct {
    char root[PATH_MAX];
    VEC(struct object) rows;
    uint64_t temporaries;
} all;

static int compare(const void *a, const void *b)
{
    return strcmp(((const struct object *)a)->key, ((const struct object *)b)->key);
}

static int load_file(const FTSENT *e)
{
    struct object o = {.key = strdup(e->fts_path + strlen(all.root) + 1),
                       .size = (uint64_t)e->fts_statp->st_size,
                       .mtime_s = e->fts_statp->st_mtime};

    if (!o.key)
        return -ENOMEM;
    if (strncmp(o.key, TEMPORARY, strlen(TEMPORARY)) == 0) {
        free(o.key);
        return 0;
    }
    return vec_push(&all.rows, o);
}

int objects_load(const char *root)
{
    char temporary[PATH_MAX + 16];

    if (!realpath(root, all.root))
        return -errno;
    (void)snprintf(temporary, sizeof temporary, "%s/" TEMPORARY, all.root);
    int r = file_mkdirs(temporary, 0700);
    char *paths[] = {all.root, NULL};
    FTS *fts = r == 0 ? fts_open(paths, FTS_PHYSICAL | FTS_NOCHDIR, NULL) : NULL;
    if (!fts)
        return r < 0 ? r : -errno;
    for (FTSENT *e; r == 0 && (e = fts_read(fts)) != NULL;) {
        if (e->fts_info == FTS_F)
            r = load_file(e);
    }
    (void)fts_close(fts); /* what was read is there */
    if (all.rows.count > 1)
        qsort(all.rows.at, all.rows.count, sizeof *all.rows.at, compare);
    return r;
}

size_t object_count(void)
{
    return all.rows.count;
}

size_t object_find(const char *key)
{
    size_t low = 0, high = all.rows.count;

    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (strcmp(all.rows.at[middle].key, key) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

const struct object *object_at(size_t i)
{
    return &all.rows.at[i];
}

const struct object *object_get(const char *key)
{
    size_t i = object_find(key);

    return i < all.rows.count && strcmp(all.rows.at[i].key, key) == 0 ? &all.rows.at[i] : NULL;
}

/* Not of the bytes: like that of an object of several parts, it says only that it is another one.
 */
void object_etag(const struct object *o, char ret[static 40])
{
    (void)snprintf(ret, 40, "%016" PRIx64 "%015" PRIx64 "-1", o->size,
                   (uint64_t)o->mtime_s & 0xfffffffffffffff);
}

static void file_path(const char *key, char ret[static 2 * PATH_MAX])
{
    (void)snprintf(ret, 2 * PATH_MAX, "%s/%s", all.root, key);
}

int object_open(const struct object *o)
{
    char path[2 * PATH_MAX];

    file_path(o->key, path);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    return fd < 0 ? -errno : fd;
}

int object_begin(char ret_path[static 256])
{
    char path[2 * PATH_MAX];

    (void)snprintf(ret_path, 256, TEMPORARY "/%" PRIu64, all.temporaries++);
    file_path(ret_path, path);
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    return fd < 0 ? -errno : fd;
}

int object_finish(const char *temporary, const char *key, uint64_t size)
{
    char from[2 * PATH_MAX], to[2 * PATH_MAX];
    struct stat st;

    file_path(temporary, from);
    file_path(key, to);
    char *slash = strrchr(to, '/');
    *slash = '\0';
    int r = file_mkdirs(to, 0755);
    *slash = '/';
    if (r < 0 || rename(from, to) < 0 || stat(to, &st) < 0)
        return r < 0 ? r : -errno;
    size_t i = object_find(key);
    if (i < all.rows.count && strcmp(all.rows.at[i].key, key) == 0) {
        all.rows.at[i].size = size;
        all.rows.at[i].mtime_s = st.st_mtime;
        return 0;
    }
    struct object o = {.key = strdup(key), .size = size, .mtime_s = st.st_mtime};
    r = o.key ? vec_push(&all.rows, o) : -ENOMEM;
    if (r < 0)
        return r;
    memmove(&all.rows.at[i + 1], &all.rows.at[i], (all.rows.count - 1 - i) * sizeof o);
    all.rows.at[i] = o;
    return 0;
}

int object_remove(const char *key)
{
    char path[2 * PATH_MAX];
    size_t i = object_find(key);

    if (i == all.rows.count || strcmp(all.rows.at[i].key, key) != 0)
        return 0;
    file_path(key, path);
    if (unlink(path) < 0 && errno != ENOENT)
        return -errno;
    free(all.rows.at[i].key);
    memmove(&all.rows.at[i], &all.rows.at[i + 1], (all.rows.count - 1 - i) * sizeof *all.rows.at);
    all.rows.count--;
    return 0;
}
