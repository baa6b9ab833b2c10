/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The cache of one fetch: verified things in memory, found by (object, kind, number), least
 * recently used goes first, and one budget for all that is held or being read.
 *
 * How it stays within the budget without a deadlock: whoever is going to read reserves all that it
 * may need, at once, before it holds anything (a pin or a claim). What is reserved and what is
 * cached never exceed the limit together. Whoever holds a claim waits for nobody.
 *
 * Every function needs the lock unless it says otherwise; cache_claim() and cache_reserve() give it
 * up while they wait.
 */
#ifndef FETCH_FETCH_CACHE_H
#define FETCH_FETCH_CACHE_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum cache_kind { CACHE_TRAILER, CACHE_GROUP, CACHE_PAGE, CACHE_LEAF };

struct cache_key {
    uint64_t object; /* never given out twice */
    uint64_t number; /* of the leaf or page */
    enum cache_kind kind;
};

struct cache_entry {
    struct cache_key key;
    struct cache_entry *chain;         /* in the bucket */
    struct cache_entry *older, *newer; /* in order of use; loaded ones only */
    unsigned pins;
    bool loaded;
    size_t charge; /* bytes that it counts for */
    size_t size;   /* of data */
    void *data;    /* owned: a parsed trailer, or bytes from malloc() */
};

struct cache {
    pthread_mutex_t lock;
    pthread_cond_t changed; /* something was loaded, given up, unpinned or unreserved */
    uint64_t limit, used;   /* bytes; used: cached and reserved */
    size_t bucket_count;    /* a power of two */
    struct cache_entry **buckets;
    struct cache_entry *oldest, *newest;
};

/* What an entry costs beside its data. */
#define CACHE_ENTRY_COST (sizeof(struct cache_entry) + 32)

int cache_init(struct cache *c, uint64_t limit);
void cache_release(struct cache *c); /* without the lock; nobody uses it any more */

/* The loaded entry, which counts as used now; or NULL. Good until the lock is given up, or longer
 * if pinned. */
struct cache_entry *cache_find(struct cache *c, const struct cache_key *key);
void cache_pin(struct cache_entry *e);
void cache_unpin(struct cache *c, struct cache_entry *e);

/* Claim the right to load. *ret_claim is NULL if it is loaded already (by whom we waited for, too).
 * With `wait` false also if somebody else is loading it. -ENOMEM. */
int cache_claim(struct cache *c, const struct cache_key *key, bool wait,
                struct cache_entry **ret_claim);
/* End a claim: hand over `data`, for `charge` bytes of the caller's reservation. */
void cache_fill(struct cache *c, struct cache_entry *claim, void *data, size_t size, size_t charge);
/* End a claim with nothing. */
void cache_give_up(struct cache *c, struct cache_entry *claim);

/* Make room; waits for others if need be. `bytes` is at most the limit. */
void cache_reserve(struct cache *c, size_t bytes);
void cache_unreserve(struct cache *c, size_t bytes);

#endif
