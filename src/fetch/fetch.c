/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A fetch and its objects: beginning, end, figures.
 */
#include "fetch/fetch-internal.h"

#include "cache/cache.h"

#include <string.h>

/* A get that takes longer says that the store does not answer. */
#define SILENT_US INT64_C(5000000)

/* ---- the fetch ---- */

static int init_locks(struct fetch *f)
{
    pthread_condattr_t attributes;

    if (pthread_condattr_init(&attributes) != 0)
        return -ENOMEM;
    (void)pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC); /* a clock that is allowed */
    int r = -pthread_mutex_init(&f->lock, NULL);
    if (r == 0 && pthread_mutex_init(&f->objects_lock, NULL) != 0)
        r = -ENOMEM;
    if (r == 0 &&
        (pthread_cond_init(&f->work, NULL) != 0 || pthread_cond_init(&f->block, NULL) != 0 ||
         pthread_cond_init(&f->write, NULL) != 0 ||
         pthread_cond_init(&f->timer, &attributes) != 0 ||
         pthread_cond_init(&f->opened, NULL) != 0))
        r = -ENOMEM;
    (void)pthread_condattr_destroy(&attributes); /* valid attributes */
    return r;
}

int fetch_new(const struct fetch_options *o, struct fetch **ret)
{
    AUTO(free_ptr) struct fetch *f = calloc(1, sizeof *f);
    uint64_t limit = o->memory_bytes ? o->memory_bytes : FETCH_MEMORY_DEFAULT;

    if (!f)
        return -ENOMEM;
    int r = memory_init(&f->memory, limit > FETCH_MEMORY_MIN ? limit : FETCH_MEMORY_MIN);
    if (r == 0)
        r = init_locks(f);
    if (r < 0) {
        memory_release(&f->memory);
        return r;
    }
    f->store = o->store;
    f->io_timeout_ms = o->io_timeout_ms;
    f->prefetch = o->prefetch;
    f->keep_first = o->keep_first;
    f->open_source = o->open_source;
    f->open_source_ctx = o->open_source_ctx;
    f->quick = store_is_quick(o->store);
    f->async = store_has_async(o->store);
    f->cache = f->quick ? NULL : o->cache; /* a second copy on the same machine is worth nothing */
    f->ahead_max = f->memory.limit / AHEAD_SHARE;
    f->ahead_get = f->ahead_max / 16 < GET_AHEAD_MIN ? GET_AHEAD_MIN : f->ahead_max / 16;
    f->ahead_get = f->ahead_get < GET_AHEAD_MAX ? f->ahead_get : GET_AHEAD_MAX;
    /* A leaf less, a leaf more: all fit slabs of one size. */
    f->ahead_get = f->ahead_get / SLAB_LARGE * SLAB_LARGE - SLAB_ALIGN;
    *ret = take_ptr(&f);
    return 0;
}

bool fetch_is_quick(const struct fetch *f)
{
    return f->quick;
}

void fetch_destroy(struct fetch *f)
{
    memory_release(&f->memory);
    (void)pthread_cond_destroy(&f->work); /* nobody uses them any more */
    (void)pthread_cond_destroy(&f->block);
    (void)pthread_cond_destroy(&f->write);
    (void)pthread_cond_destroy(&f->timer);
    (void)pthread_cond_destroy(&f->opened);
    (void)pthread_mutex_destroy(&f->lock);
    (void)pthread_mutex_destroy(&f->objects_lock);
    free(f);
}

static void end_all(struct get_list *l)
{
    struct get *g;

    while ((g = get_list_take(l)))
        get_end(g, -ECANCELED);
}

static void free_dead(struct fetch *f);

/* What the store still has comes back when it is closed, at the latest: the last one of those ends
 * what is left. */
void fetch_free(struct fetch *f)
{
    bool last;

    if (!f)
        return;
    pool_stop(f);
    {
        WITH_LOCK(&f->lock);
        end_all(&f->demand);
        end_all(&f->delayed);
        end_all(&f->ended);
        end_all(&f->blocking);
        while (disk_write_one(f)) /* no thread could be started */
            continue;
        WITH_LOCK(&f->objects_lock);
        for (struct fetch_object *o = f->objects; o; o = o->next) {
            if (o->disk)
                cache_object_close(o->disk);
            o->disk = NULL;
        }
    }
    free_dead(f);
    {
        WITH_LOCK(&f->lock);
        f->freed = true;
        last = f->asynchronous == 0;
    }
    if (last)
        fetch_destroy(f);
}

void fetch_stats(struct fetch *f, struct fetch_stats *ret)
{
    WITH_LOCK(&f->lock);
    *ret = f->stats;
    ret->memory_bytes = f->memory.used;
    ret->memory_limit = f->memory.limit;
    ret->ahead_unused = f->memory.ahead_unused;
    ret->store_error = f->store_error;
    if (f->store_error == 0 && f->running_first && !f->quick &&
        fetch_now_us() - f->running_first->start_us > SILENT_US)
        ret->store_error = -ETIMEDOUT;
}

/* ---- objects ---- */

static int object_new(struct fetch *f, const char *key, enum pack_kind kind,
                      const struct pack_summary *s, struct fetch_object **ret)
{
    struct fetch_object *o = calloc(1, sizeof *o);

    if (!o)
        return -ENOMEM;
    o->key = strdup(key);
    if (!o->key) {
        free(o);
        return -ENOMEM;
    }
    o->fetch = f;
    o->kind = kind;
    o->summary = *s;
    o->refs = 1;
    WITH_LOCK(&f->objects_lock);
    o->id = f->next_object++;
    o->next = f->objects;
    f->objects = o;
    *ret = o;
    return 0;
}

int fetch_object_new(struct fetch *f, const char *key, enum pack_kind kind,
                     const struct pack_summary *s, struct fetch_object **ret)
{
    if (s->trailer_length == 0 || s->trailer_length > PACK_TRAILER_MAX ||
        s->trailer_offset > s->length || s->length - s->trailer_offset != s->trailer_length ||
        s->data_size > s->trailer_offset)
        return -EPROTO;
    int r = object_new(f, key, kind, s, ret);
    /* Without it, it is only not kept on disk. */
    if (r == 0 && f->cache && cache_object_open(f->cache, &s->digest, s->length, &(*ret)->disk) < 0)
        (*ret)->disk = NULL;
    return r;
}

int fetch_object_new_linked(struct fetch *f, const char *key, const struct pack_summary *table,
                            uint64_t blocks, struct fetch_object **ret)
{
    const struct pack_summary s = {.data_size = blocks * PACK_BLOCK};
    AUTO(fetch_object_free) struct fetch_object *o = NULL;
    struct fetch_object *links = NULL;

    int r = object_new(f, key, PACK_KIND_LINKS, &s, &o);
    if (r == 0)
        r = fetch_object_new(f, key, PACK_KIND_LINKS, table, &links);
    if (r == 0)
        r = fetch_linked_new(links, key, table->data_size, blocks, f->open_source,
                             f->open_source_ctx, &o->linked);
    if (r == 0)
        *ret = take_ptr(&o);
    return r;
}

int fetch_object_link(struct fetch_object *o, uint64_t offset, uint64_t leaf_hint,
                      struct fetch_link *ret)
{
    return o->linked ? fetch_linked_find(o->linked, offset, leaf_hint, ret) : -EINVAL;
}

int fetch_object_place(struct fetch_object *o, struct link_place *ret)
{
    return o->linked ? fetch_linked_place(o->linked, ret) : -EINVAL;
}

void object_ref(struct fetch_object *o)
{
    o->refs++;
}

static void object_release(struct fetch_object *o)
{
    free(o->touches);
    free(o->key);
    free(o);
}

void object_unref(struct fetch_object *o)
{
    struct fetch *f = o->fetch;

    if (--o->refs > 0)
        return;
    {
        WITH_LOCK(&f->objects_lock);
        struct fetch_object **at = &f->objects;
        while (*at != o)
            at = &(*at)->next;
        *at = o->next;
    }
    if (o->linked) { /* which needs the lock for its table */
        o->next = f->dead;
        f->dead = o;
        return;
    }
    if (o->disk)
        cache_object_close(o->disk);
    object_release(o);
}

static void free_dead(struct fetch *f)
{
    struct fetch_object *o;

    for (;;) {
        {
            WITH_LOCK(&f->lock);
            o = f->dead;
            if (!o)
                return;
            f->dead = o->next;
        }
        fetch_linked_free(o->linked);
        object_release(o);
    }
}

/* What memory has of it ages away: its id is never used again. Gets of it that nobody waits for may
 * go on. */
void fetch_object_free(struct fetch_object *o)
{
    if (!o)
        return;
    struct fetch *f = o->fetch;
    {
        WITH_LOCK(&f->lock);
        ahead_forget(f, o);
        object_unref(o);
    }
    free_dead(f);
}
