/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A hash table and a list in order of use. One lock for everything: it is held for the time of a
 * look-up, never while something is read or digested.
 */
#include "fetch/fetch-memory.h"

#include "pack/pack.h"

#include <errno.h>
#include <stdlib.h>

/* One bucket for so many bytes of the limit: about one entry each. */
#define BYTES_PER_BUCKET 8192u
#define BUCKETS_MAX      (1u << 22)

int memory_init(struct memory *c, uint64_t limit)
{
    size_t n = 256;

    while (n < limit / BYTES_PER_BUCKET && n < BUCKETS_MAX)
        n *= 2;
    *c = (struct memory){.limit = limit, .bucket_count = n};
    c->buckets = calloc(n, sizeof(struct memory_entry *));
    if (!c->buckets)
        return -ENOMEM;
    if (pthread_mutex_init(&c->lock, NULL) != 0 || pthread_cond_init(&c->changed, NULL) != 0) {
        free(c->buckets);
        return -ENOMEM;
    }
    return 0;
}

static void entry_free(struct memory_entry *e)
{
    if (e->key.kind == MEMORY_TRAILER)
        pack_trailer_free(e->data);
    else
        free(e->data);
    free(e);
}

void memory_release(struct memory *c)
{
    for (size_t i = 0; i < c->bucket_count; i++) {
        for (struct memory_entry *e = c->buckets[i], *next; e; e = next) {
            next = e->chain;
            entry_free(e);
        }
    }
    free(c->buckets);
    (void)pthread_cond_destroy(&c->changed); /* nobody waits */
    (void)pthread_mutex_destroy(&c->lock);   /* nobody holds it */
}

static struct memory_entry **bucket_of(struct memory *c, const struct memory_key *key)
{
    uint64_t h = key->object * UINT64_C(0x9E3779B97F4A7C15) ^ (uint64_t)key->kind << 56;

    h = (h ^ key->number) * UINT64_C(0xD6E8FEB86659FD93);
    return &c->buckets[(h >> 32) & (c->bucket_count - 1)];
}

static struct memory_entry *look_up(struct memory *c, const struct memory_key *key)
{
    struct memory_entry *e = *bucket_of(c, key);

    while (e && (e->key.number != key->number || e->key.object != key->object ||
                 e->key.kind != key->kind))
        e = e->chain;
    return e;
}

static void list_remove(struct memory *c, struct memory_entry *e)
{
    *(e->older ? &e->older->newer : &c->oldest) = e->newer;
    *(e->newer ? &e->newer->older : &c->newest) = e->older;
}

static void list_add_newest(struct memory *c, struct memory_entry *e)
{
    e->older = c->newest;
    e->newer = NULL;
    *(c->newest ? &c->newest->newer : &c->oldest) = e;
    c->newest = e;
}

static void unchain(struct memory *c, struct memory_entry *e)
{
    struct memory_entry **at = bucket_of(c, &e->key);

    while (*at != e)
        at = &(*at)->chain;
    *at = e->chain;
}

struct memory_entry *memory_find(struct memory *c, const struct memory_key *key)
{
    struct memory_entry *e = look_up(c, key);

    if (!e || !e->loaded)
        return NULL;
    if (c->newest != e) {
        list_remove(c, e);
        list_add_newest(c, e);
    }
    return e;
}

void memory_pin(struct memory_entry *e)
{
    e->pins++;
}

void memory_unpin(struct memory *c, struct memory_entry *e)
{
    if (--e->pins == 0)
        (void)pthread_cond_broadcast(&c->changed); /* fails for no valid condition */
}

int memory_claim(struct memory *c, const struct memory_key *key, bool wait,
                 struct memory_entry **ret_claim)
{
    struct memory_entry *e;

    while ((e = look_up(c, key)) != NULL && !e->loaded && wait)
        (void)pthread_cond_wait(&c->changed, &c->lock); /* fails for no valid condition */
    if (e) {
        *ret_claim = NULL;
        return 0;
    }
    e = calloc(1, sizeof *e);
    if (!e)
        return -ENOMEM;
    e->key = *key;
    struct memory_entry **bucket = bucket_of(c, key);
    e->chain = *bucket;
    *bucket = e;
    *ret_claim = e;
    return 0;
}

void memory_fill(struct memory *c, struct memory_entry *claim, void *data, size_t size,
                 size_t charge)
{
    claim->data = data;
    claim->size = size;
    claim->charge = charge;
    claim->loaded = true;
    list_add_newest(c, claim);
    (void)pthread_cond_broadcast(&c->changed); /* fails for no valid condition */
}

void memory_give_up(struct memory *c, struct memory_entry *claim)
{
    unchain(c, claim);
    free(claim);
    (void)pthread_cond_broadcast(&c->changed); /* fails for no valid condition */
}

/* Drop old entries until `bytes` more fit, or nothing can be dropped. */
static bool evict(struct memory *c, size_t bytes)
{
    struct memory_entry *e = c->oldest;

    while (c->used + bytes > c->limit && e) {
        struct memory_entry *newer = e->newer;
        if (e->pins == 0) {
            list_remove(c, e);
            unchain(c, e);
            c->used -= e->charge;
            entry_free(e);
        }
        e = newer;
    }
    return c->used + bytes <= c->limit;
}

void memory_reserve(struct memory *c, size_t bytes)
{
    while (!evict(c, bytes))
        (void)pthread_cond_wait(&c->changed, &c->lock); /* fails for no valid condition */
    c->used += bytes;
}

void memory_unreserve(struct memory *c, size_t bytes)
{
    c->used -= bytes;
    (void)pthread_cond_broadcast(&c->changed); /* fails for no valid condition */
}
