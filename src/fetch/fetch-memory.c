/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A hash table and a list in order of use.
 */
#include "fetch/fetch-memory.h"

#include "pack/pack.h"

#include <errno.h>
#include <stdlib.h>

/* One bucket for so many bytes of the limit: about one entry each. */
#define BYTES_PER_BUCKET 8192u
#define BUCKETS_MAX      (1u << 22)

int memory_init(struct memory *m, uint64_t limit)
{
    size_t n = 256;

    while (n < limit / BYTES_PER_BUCKET && n < BUCKETS_MAX)
        n *= 2;
    *m = (struct memory){.limit = limit, .bucket_count = n};
    m->buckets = calloc(n, sizeof(struct memory_entry *));
    return m->buckets ? 0 : -ENOMEM;
}

static void entry_free(struct memory_entry *e)
{
    if (e->key.kind == MEMORY_TRAILER)
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
            entry_free(e);
        }
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

void memory_give_up(struct memory *m, struct memory_entry *claim)
{
    unchain(m, claim);
    free(claim);
}

bool memory_reserve(struct memory *m, size_t bytes, size_t leave)
{
    uint64_t limit = m->limit - leave;
    struct memory_entry *e = m->oldest;

    while (m->used + bytes > limit && e) {
        struct memory_entry *newer = e->newer;
        if (e->pins == 0 && e->keeps == 0) {
            list_remove(m, e);
            unchain(m, e);
            m->used -= e->charge;
            if (e->ahead) {
                m->ahead_bytes -= e->size;
                m->ahead_unused += e->size;
            }
            entry_free(e);
        }
        e = newer;
    }
    if (m->used + bytes > limit)
        return false;
    m->used += bytes;
    return true;
}
