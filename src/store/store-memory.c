/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A store in this process's memory: the yardstick that other stores are compared with, for tests
 * and the simulator.
 *
 * One array of objects, sorted by key, under one lock. Listings copy the keys they need under the
 * lock and call back without it. Nothing survives the process, nothing is bounded but by memory.
 */
#include "store/store-internal.h"

#include "base/vec.h"

struct object {
    char *key;
    uint8_t *data;
    size_t size;
    int64_t mtime_ms;
};

struct store_memory {
    struct store base;
    pthread_mutex_t lock;         /* guards `objects` */
    VEC(struct object *) objects; /* ascending by key */
};

struct memory_upload {
    struct store_upload base;
    char *key;
    struct buf body;
    int error; /* the first one: the commit reports it again */
};

static struct store_memory *memory_of(struct store *s)
{
    return (struct store_memory *)s;
}

static void object_free(struct object *o)
{
    if (!o)
        return;
    free(o->key);
    free(o->data);
    free(o);
}
AUTO_FREE_FUNC(struct object, object_free);

static struct object *object_new(const char *key, struct bytes body)
{
    AUTO(object_free) struct object *o = calloc(1, sizeof *o);

    if (!o || !(o->key = strdup(key)) || !(o->data = malloc(body.size + 1)))
        return NULL;
    if (body.size)
        memcpy(o->data, body.data, body.size);
    o->size = body.size;
    o->mtime_ms = env_real()->wall_ms(env_real());
    return take_ptr(&o);
}

/* The place of the first key >= `key`. */
static size_t lower_bound(const struct store_memory *m, const char *key)
{
    size_t low = 0, high = m->objects.count;

    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (strcmp(m->objects.at[middle]->key, key) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static struct object *find(const struct store_memory *m, const char *key)
{
    size_t i = lower_bound(m, key);

    if (i == m->objects.count || strcmp(m->objects.at[i]->key, key) != 0)
        return NULL;
    return m->objects.at[i];
}

/* Whether a key would be a directory of another: no directory store could hold both. */
static bool stands_in_the_way(const struct store_memory *m, const char *key)
{
    char part[STORE_KEY_MAX + 2];
    size_t length = strlen(key);

    for (size_t i = 1; i < length; i++) {
        if (key[i] != '/')
            continue;
        memcpy(part, key, i);
        part[i] = '\0';
        if (find(m, part))
            return true;
    }
    memcpy(part, key, length);
    memcpy(part + length, "/", 2);
    size_t next = lower_bound(m, part);
    return next < m->objects.count && strncmp(m->objects.at[next]->key, part, length + 1) == 0;
}

static int memory_put_if_absent(struct store *s, const char *key, struct bytes body)
{
    struct store_memory *m = memory_of(s);
    AUTO(object_free) struct object *o = object_new(key, body);

    if (!o)
        return -ENOMEM;
    WITH_LOCK(&m->lock);
    if (find(m, key))
        return -EEXIST;
    if (stands_in_the_way(m, key))
        return -EINVAL;
    size_t place = lower_bound(m, key);
    int r = vec_push(&m->objects, o);
    if (r < 0)
        return r;
    memmove(m->objects.at + place + 1, m->objects.at + place,
            (m->objects.count - 1 - place) * sizeof *m->objects.at);
    m->objects.at[place] = take_ptr(&o);
    return 0;
}

static int memory_get(struct store *s, const char *key, uint64_t offset, void *data, size_t size,
                      size_t *ret_size, uint64_t *ret_length)
{
    struct store_memory *m = memory_of(s);
    WITH_LOCK(&m->lock);
    struct object *o = find(m, key);

    if (!o)
        return -ENOENT;
    size_t left = offset < o->size ? o->size - (size_t)offset : 0;
    if (size > left)
        size = left;
    if (size)
        memcpy(data, o->data + offset, size);
    *ret_size = size;
    if (ret_length)
        *ret_length = o->size;
    return 0;
}

static bool memory_is_quick(struct store *s)
{
    return true;
}

/* Copies of what a listing needs of the objects that begin with its prefix. */
struct snapshot {
    VEC(struct object) rows; /* without data */
};

static void snapshot_release(struct snapshot *p)
{
    for (size_t i = 0; i < p->rows.count; i++)
        free(p->rows.at[i].key);
    vec_release(&p->rows);
}

static inline void auto_snapshot_release(struct snapshot *p)
{
    snapshot_release(p);
}

static int snapshot_take(struct store_memory *m, const char *prefix, struct snapshot *snapshot)
{
    WITH_LOCK(&m->lock);
    size_t length = strlen(prefix);

    for (size_t i = lower_bound(m, prefix); i < m->objects.count; i++) {
        struct object row = *m->objects.at[i];
        if (strncmp(row.key, prefix, length) != 0)
            break;
        row.data = NULL;
        row.key = strdup(row.key);
        if (!row.key || vec_push(&snapshot->rows, row) < 0) {
            free(row.key);
            return -ENOMEM;
        }
    }
    return 0;
}

static int memory_list(struct store *s, const char *prefix,
                       const struct store_list_options *options, store_list_fn *fn, void *ctx,
                       int64_t *ret_now_ms)
{
    AUTO(snapshot_release) struct snapshot snapshot = {0};
    int64_t now = env_real()->wall_ms(env_real());
    size_t length = strlen(prefix);
    char last[STORE_KEY_MAX + 1] = ""; /* the prefix row before this one */
    int r = snapshot_take(memory_of(s), prefix, &snapshot);

    for (size_t i = 0; r == 0 && i < snapshot.rows.count; i++) {
        struct object *row = &snapshot.rows.at[i];
        struct store_entry entry = {row->key, false, row->size, row->mtime_ms};
        char *slash = options->by_component ? strchr(row->key + length, '/') : NULL;
        if (slash) {
            slash[1] = '\0';
            if (strcmp(row->key, last) == 0)
                continue;
            memcpy(last, row->key, strlen(row->key) + 1);
            entry = (struct store_entry){.key = row->key, .is_prefix = true};
        }
        if (!options->start_after || strcmp(entry.key, options->start_after) > 0)
            r = fn(ctx, &entry);
    }
    if (r == 0 && ret_now_ms)
        *ret_now_ms = now;
    return r;
}

static int memory_remove(struct store *s, const char *key)
{
    struct store_memory *m = memory_of(s);
    WITH_LOCK(&m->lock);
    struct object *o = find(m, key);

    if (!o)
        return 0;
    size_t place = lower_bound(m, key);
    m->objects.count--;
    memmove(m->objects.at + place, m->objects.at + place + 1,
            (m->objects.count - place) * sizeof *m->objects.at);
    object_free(o);
    return 0;
}

static void memory_upload_abort(struct store_upload *u)
{
    struct memory_upload *mu = (struct memory_upload *)u;

    buf_release(&mu->body);
    free(mu->key);
    free(mu);
}

static int memory_upload(struct store *s, const char *key, struct store_upload **ret)
{
    struct memory_upload *mu = calloc(1, sizeof *mu);

    if (!mu)
        return -ENOMEM;
    mu->base.store = s;
    mu->key = strdup(key);
    buf_init(&mu->body, SIZE_MAX / 4);
    if (!mu->key) {
        memory_upload_abort(&mu->base);
        return -ENOMEM;
    }
    *ret = &mu->base;
    return 0;
}

static int memory_upload_write(struct store_upload *u, const void *data, size_t size)
{
    struct memory_upload *mu = (struct memory_upload *)u;

    if (mu->error == 0)
        mu->error = buf_append(&mu->body, data, size);
    return mu->error;
}

static int memory_upload_commit(struct store_upload *u)
{
    struct memory_upload *mu = (struct memory_upload *)u;
    int r = mu->error;

    if (r == 0)
        r = memory_put_if_absent(u->store, mu->key, buf_bytes(&mu->body));
    memory_upload_abort(u);
    return r;
}

static int memory_space(struct store *s, struct store_space *ret)
{
    *ret = (struct store_space){.free_bytes = -1, .free_objects = -1};
    return 0;
}

static void memory_close(struct store *s)
{
    struct store_memory *m = memory_of(s);

    for (size_t i = 0; i < m->objects.count; i++)
        object_free(m->objects.at[i]);
    vec_release(&m->objects);
    pthread_mutex_destroy(&m->lock);
    store_release(s);
    free(m);
}

static const struct store_ops memory_ops = {
    .kind = "memory",
    .put_if_absent = memory_put_if_absent,
    .get = memory_get,
    .is_quick = memory_is_quick,
    .list = memory_list,
    .remove = memory_remove,
    .upload = memory_upload,
    .upload_write = memory_upload_write,
    .upload_commit = memory_upload_commit,
    .upload_abort = memory_upload_abort,
    .space = memory_space,
    .close = memory_close,
};

int store_memory_new(struct store **ret)
{
    struct store_memory *m = calloc(1, sizeof *m);

    if (!m)
        return -ENOMEM;
    if (store_init(&m->base, &memory_ops, "memory:") < 0) {
        free(m);
        return -ENOMEM;
    }
    pthread_mutex_init(&m->lock, NULL);
    *ret = &m->base;
    return 0;
}
