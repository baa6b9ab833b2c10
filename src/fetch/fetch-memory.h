/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The cache of one fetch: verified things in memory, found by (object, kind, number), least
 * recently used goes first, and one budget for all that is held or being read.
 *
 * How it stays within the budget without a deadlock: whoever is going to read reserves all that it
 * may need, at once, before it holds anything (a pin or a claim). What is reserved and what is
 * cached never exceed the limit together. Whoever holds a claim waits for nobody.
 *
 * Every function needs the lock unless it says otherwise; memory_claim() and memory_reserve() give
 * it up while they wait.
 */
#ifndef FETCH_FETCH_MEMORY_H
#define FETCH_FETCH_MEMORY_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum memory_kind { MEMORY_TRAILER, MEMORY_GROUP, MEMORY_PAGE, MEMORY_LEAF };

struct memory_key {
    uint64_t object; /* never given out twice */
    uint64_t number; /* of the leaf or page */
    enum memory_kind kind;
};

struct memory_entry {
    struct memory_key key;
    struct memory_entry *chain;         /* in the bucket */
    struct memory_entry *older, *newer; /* in order of use; loaded ones only */
    unsigned pins;
    bool loaded;
    size_t charge; /* bytes that it counts for */
    size_t size;   /* of data */
    void *data;    /* owned: a parsed trailer, or bytes from malloc() */
};

struct memory {
    pthread_mutex_t lock;
    pthread_cond_t changed; /* something was loaded, given up, unpinned or unreserved */
    uint64_t limit, used;   /* bytes; used: cached and reserved */
    size_t bucket_count;    /* a power of two */
    struct memory_entry **buckets;
    struct memory_entry *oldest, *newest;
};

/* What an entry costs beside its data. */
#define MEMORY_ENTRY_COST (sizeof(struct memory_entry) + 32)

int memory_init(struct memory *c, uint64_t limit);
void memory_release(struct memory *c); /* without the lock; nobody uses it any more */

/* The loaded entry, which counts as used now; or NULL. Good until the lock is given up, or longer
 * if pinned. */
struct memory_entry *memory_find(struct memory *c, const struct memory_key *key);
void memory_pin(struct memory_entry *e);
void memory_unpin(struct memory *c, struct memory_entry *e);

/* Claim the right to load. *ret_claim is NULL if it is loaded already (by whom we waited for, too).
 * With `wait` false also if somebody else is loading it. -ENOMEM. */
int memory_claim(struct memory *c, const struct memory_key *key, bool wait,
                 struct memory_entry **ret_claim);
/* End a claim: hand over `data`, for `charge` bytes of the caller's reservation. */
void memory_fill(struct memory *c, struct memory_entry *claim, void *data, size_t size,
                 size_t charge);
/* End a claim with nothing. */
void memory_give_up(struct memory *c, struct memory_entry *claim);

/* Make room; waits for others if need be. `bytes` is at most the limit. */
void memory_reserve(struct memory *c, size_t bytes);
void memory_unreserve(struct memory *c, size_t bytes);

#endif
