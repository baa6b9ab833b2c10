/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What was verified goes to the cache on disk: small ranges at once, large ones by a thread of
 * their own, so that no disk keeps those waiting who verify. While the disk is far behind, they
 * write themselves: memory is not filled with what it has yet to take.
 *
 * What is read ahead of a reader in order goes past the kernel's page cache, which has it as a part
 * of the file that is read, as long as the disk keeps up; what is filled in for later does not.
 * Failures are the cache's to count.
 */
#include "fetch/fetch-internal.h"

#include "cache/cache.h"

/* Smaller ranges are not worth handing over. */
#define LATER_MIN SLAB_LARGE
/* Of memory, what may wait for the disk. */
#define BEHIND_SHARE 4u
/* From here on the page cache takes it after all: it has more room than we. */
#define DIRECT_SHARE 16u

bool disk_is_behind(const struct fetch *f)
{
    return f->writing_bytes > f->memory.limit / BEHIND_SHARE;
}

static void write_now(const struct fetch_object *o, const struct get *g, uint64_t from, size_t size)
{
    (void)cache_write(o->disk, from, g->data + (from - g->offset), size);
}

/* False: it is to be written at once. */
static bool write_later(struct get *g, uint64_t from, size_t size)
{
    struct fetch_object *o = g->object;
    struct fetch *f = o->fetch;
    WITH_LOCK(&f->lock);

    struct disk_write *w = disk_is_behind(f) || f->stopping ? NULL : malloc(sizeof *w);
    if (!w)
        return false;
    *w = (struct disk_write){.object = o,
                             .slab = g->slab,
                             .data = g->data + (from - g->offset),
                             .offset = from,
                             .size = size,
                             .direct = !g->fill};
    object_ref(o);
    g->slab->references++;
    f->writing_bytes += size;
    *(f->writes ? f->writes_end : &f->writes) = w;
    f->writes_end = &w->next;
    pool_wake(f);
    return true;
}

void disk_keep(struct get *g, uint64_t from, uint64_t end)
{
    if (!g->object->disk || g->from_disk || end <= from)
        return;
    if (end - from < LATER_MIN || g->object->fetch->keep_first ||
        !write_later(g, from, (size_t)(end - from)))
        write_now(g->object, g, from, (size_t)(end - from));
}

bool disk_write_one(struct fetch *f)
{
    struct disk_write *w = f->writes;

    if (!w)
        return false;
    bool direct = w->direct && f->writing_bytes <= f->memory.limit / DIRECT_SHARE;
    f->writes = w->next;
    pthread_mutex_unlock(&f->lock);
    (void)(direct ? cache_write_direct : cache_write)(w->object->disk, w->offset, w->data, w->size);
    pthread_mutex_lock(&f->lock);
    f->writing_bytes -= w->size;
    slab_unref(&f->memory, w->slab);
    object_unref(w->object);
    free(w);
    pool_wake(f); /* there is room for more */
    ahead_wake(f);
    return true;
}
