/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A hash table and a list in order of use; and the slabs that entries lie in.
 */
#include "fetch/fetch-memory.h"

#include "pack/pack.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* One bucket for so many bytes of the limit: about one entry each. */
#define BYTES_PER_BUCKET 8192u
#define BUCKETS_MAX      (1u << 22)
/* Of the limit, what spare slabs may be. */
#define SPARE_SHARE 8u
/* An entry is given bytes of its own if its slab is so many times as large. */
#define OWN_FACTOR 4u

int memory_init(struct memory *m, uint64_t limit)
{
    size_t n = 256;

    while (n < limit / BYTES_PER_BUCKET && n < BUCKETS_MAX)
        n *= 2;
    *m = (struct memory){.limit = limit, .bucket_count = n};
    m->buckets = calloc(n, sizeof(struct memory_entry *));
    return m->buckets ? 0 : -ENOMEM;
}

static void slab_free(struct slab *s)
{
    free(s->data);
    free(s);
}

void slab_unref(struct memory *m, struct slab *s)
{
    if (!s || --s->references > 0)
        return;
    if (s->data && s->capacity >= SLAB_LARGE &&
        m->spare_bytes + s->capacity <= m->limit / SPARE_SHARE) {
        s->next = m->spare;
        m->spare = s;
        m->spare_bytes += s->capacity;
        return;
    }
    m->used -= s->capacity;
    slab_free(s);
}

static void entry_free(struct memory *m, struct memory_entry *e)
{
    if (e->slab)
        slab_unref(m, e->slab);
    else if (e->key.kind == MEMORY_TRAILER)
        pack_trailer_free(e->data);
    else
        free(e->data);
    free(e);
}

void memory_release(struct memory *m)
{
    for (size_t i = 0; m->buckets && i < m->bucket_count; i++) {
        for (struct memory_entry *e = m->buckets[i], *next; e; e = next) {
            next = e->chain;
            entry_free(m, e);
        }
    }
    for (struct slab *s; (s = m->spare);) {
        m->spare = s->next;
        slab_free(s);
    }
    free(m->buckets);
    m->buckets = NULL;
}

static struct memory_entry **bucket_of(const struct memory *m, const struct memory_key *key)
{
    uint64_t h = key->object * UINT64_C(0x9E3779B97F4A7C15) ^ (uint64_t)key->kind << 56;

    h = (h ^ key->number) * UINT64_C(0xD6E8FEB86659FD93);
    return &m->buckets[(h >> 32) & (m->bucket_count - 1)];
}

struct memory_entry *memory_find(const struct memory *m, const struct memory_key *key)
{
    struct memory_entry *e = *bucket_of(m, key);

    while (e && !memory_key_equal(&e->key, key))
        e = e->chain;
    return e;
}

static void list_remove(struct memory *m, struct memory_entry *e)
{
    *(e->older ? &e->older->newer : &m->oldest) = e->newer;
    *(e->newer ? &e->newer->older : &m->newest) = e->older;
}

static void list_add_newest(struct memory *m, struct memory_entry *e)
{
    e->older = m->newest;
    e->newer = NULL;
    *(m->newest ? &m->newest->newer : &m->oldest) = e;
    m->newest = e;
}

static void unchain(struct memory *m, struct memory_entry *e)
{
    struct memory_entry **at = bucket_of(m, &e->key);

    while (*at != e)
        at = &(*at)->chain;
    *at = e->chain;
}

void memory_used_now(struct memory *m, struct memory_entry *e)
{
    if (m->newest != e) {
        list_remove(m, e);
        list_add_newest(m, e);
    }
}

struct memory_entry *memory_claim(struct memory *m, const struct memory_key *key)
{
    struct memory_entry *e = calloc(1, sizeof *e);
    struct memory_entry **bucket = bucket_of(m, key);

    if (!e)
        return NULL;
    e->key = *key;
    e->chain = *bucket;
    *bucket = e;
    return e;
}

void memory_fill(struct memory *m, struct memory_entry *claim, void *data, size_t size,
                 size_t charge)
{
    claim->data = data;
    claim->size = size;
    claim->charge = charge;
    claim->loaded = true;
    claim->get = NULL;
    if (claim->ahead)
        m->ahead_bytes += size;
    list_add_newest(m, claim);
}

void memory_fill_slab(struct memory *m, struct memory_entry *claim, struct slab *s, void *data,
                      size_t size, size_t charge)
{
    s->references++;
    claim->slab = s;
    memory_fill(m, claim, data, size, charge);
}

void memory_own(struct memory *m, struct memory_entry *e)
{
    struct slab *s = e->slab;

    if (!s || s->capacity <= OWN_FACTOR * e->size || e->pins > 0)
        return;
    e->pins++;
    bool there_is_room = memory_reserve(m, e->size, 0);
    e->pins--;
    void *data = there_is_room ? malloc(e->size) : NULL;
    if (!data) {
        memory_unreserve(m, there_is_room ? e->size : 0);
        return;
    }
    memcpy(data, e->data, e->size);
    e->data = data;
    e->charge += e->size;
    e->slab = NULL;
    slab_unref(m, s);
}

void memory_give_up(struct memory *m, struct memory_entry *claim)
{
    unchain(m, claim);
    free(claim);
}

/* ---- room ---- */

static bool is_room(const struct memory *m, size_t bytes, size_t leave)
{
    return m->used + bytes <= m->limit - leave;
}

/* Let go of the first entry from *at on that nobody uses. False: there is none. */
static bool evict(struct memory *m, struct memory_entry **at)
{
    struct memory_entry *e = *at;

    while (e && (e->pins > 0 || e->keeps > 0))
        e = e->newer;
    *at = e ? e->newer : NULL;
    if (!e)
        return false;
    list_remove(m, e);
    unchain(m, e);
    m->used -= e->charge;
    if (e->ahead) {
        m->ahead_bytes -= e->size;
        m->ahead_unused += e->size;
    }
    entry_free(m, e);
    return true;
}

static struct slab *spare_take(struct memory *m, struct slab **at)
{
    struct slab *s = *at;

    *at = s->next;
    m->spare_bytes -= s->capacity;
    m->used -= s->capacity;
    return s;
}

/* A spare one that fits: large enough, and not much larger. */
static struct slab *spare_find(struct memory *m, size_t capacity)
{
    for (struct slab **at = &m->spare; *at; at = &(*at)->next) {
        if ((*at)->capacity >= capacity && (*at)->capacity <= capacity + capacity / 2)
            return spare_take(m, at);
    }
    return NULL;
}

static bool spare_drop(struct memory *m)
{
    if (!m->spare)
        return false;
    slab_free(spare_take(m, &m->spare));
    return true;
}

bool memory_reserve(struct memory *m, size_t bytes, size_t leave)
{
    struct memory_entry *at = m->oldest;

    while (!is_room(m, bytes, leave)) {
        if (!spare_drop(m) && !evict(m, &at))
            return false;
    }
    m->used += bytes;
    return true;
}

/* Sizes differ by a leaf or two: rounded, they fit each other. */
static size_t slab_capacity(size_t size)
{
    return size < SLAB_LARGE ? size : (size + SLAB_LARGE - 1) / SLAB_LARGE * SLAB_LARGE;
}

struct slab *slab_reserve(struct memory *m, size_t size, size_t extra, size_t leave)
{
    size_t capacity = slab_capacity(size);
    struct memory_entry *at = m->oldest;
    struct slab *s = NULL;

    /* What is evicted may be just what is wanted. */
    for (;;) {
        if (!s)
            s = spare_find(m, capacity);
        if (is_room(m, (s ? s->capacity : capacity) + extra, leave))
            break;
        if (!spare_drop(m) && !evict(m, &at)) {
            if (s)
                slab_free(s);
            return NULL;
        }
    }
    if (!s) {
        s = calloc(1, sizeof *s);
        if (!s)
            return NULL;
        s->capacity = capacity;
    }
    s->references = 1;
    s->next = NULL;
    m->used += s->capacity + extra;
    return s;
}

int slab_allocate(struct slab *s)
{
    if (s->data)
        return 0;
    s->data = s->capacity >= SLAB_LARGE ? aligned_alloc(SLAB_ALIGN, s->capacity)
                                        : malloc(s->capacity ? s->capacity : 1);
    return s->data ? 0 : -ENOMEM;
}
