/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The memory of one fetch: verified things, found by (object, kind, number), the least recently
 * used goes first, and one budget for all that is held or being read.
 *
 * An entry begins as a claim: somebody reads it, nobody else needs to. It is filled or removed when
 * that has ended. What is reserved and what is held never exceed the limit together.
 *
 * Does not wait, and has no lock: every function needs that of the fetch.
 */
#ifndef FETCH_FETCH_MEMORY_H
#define FETCH_FETCH_MEMORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum memory_kind { MEMORY_TRAILER, MEMORY_GROUP, MEMORY_PAGE, MEMORY_LEAF };

struct memory_key {
    uint64_t object; /* never given out twice */
    uint64_t number; /* of the page; of a leaf the block where it starts */
    enum memory_kind kind;
};

struct fetch_wait;
struct get;

/* A buffer that bytes are read into, and where leaves of them stay: it lives as long as one of them
 * does, and counts as a whole for as long. */
struct slab {
    struct slab *next;   /* among the spare ones */
    unsigned references; /* of a get, of entries, of who writes it to the disk */
    size_t capacity;     /* bytes it counts for */
    uint8_t *data;       /* owned; at a border of SLAB_ALIGN if large; NULL: not yet allocated */
};
#define SLAB_ALIGN 4096u
/* A large one: its pages are worth keeping for the next, since touching fresh ones costs as much as
 * copying them. */
#define SLAB_LARGE (256u << 10)

struct memory_entry {
    struct memory_key key;
    struct memory_entry *chain;         /* in the bucket */
    struct memory_entry *older, *newer; /* in order of use; loaded ones only */
    unsigned pins;                      /* who copies from it just now */
    unsigned keeps;                     /* who waited for it, and has not run since */
    bool loaded;
    bool ahead;               /* read before anybody asked, and nobody has asked yet */
    size_t charge;            /* bytes that it counts for */
    size_t size;              /* of data */
    void *data;               /* a parsed trailer, or bytes from malloc(), owned; or in the slab */
    struct slab *slab;        /* holds the data; NULL: it is the entry's own */
    struct fetch_wait *waits; /* of a claim: who waits */
    struct get *get;          /* of a claim: what will end it */
};

struct memory {
    uint64_t limit, used; /* bytes; used: held and reserved */
    uint64_t ahead_bytes; /* of entries that are `ahead` */
    uint64_t ahead_unused;
    size_t bucket_count; /* a power of two */
    struct memory_entry **buckets;
    struct memory_entry *oldest, *newest;
    struct slab *spare; /* large ones that nobody uses */
    uint64_t spare_bytes;
};

/* What an entry costs beside its data, the allocator's share included. */
#define MEMORY_ENTRY_COST (sizeof(struct memory_entry) + 48)

static inline bool memory_key_equal(const struct memory_key *a, const struct memory_key *b)
{
    return a->number == b->number && a->object == b->object && a->kind == b->kind;
}

int memory_init(struct memory *m, uint64_t limit);
void memory_release(struct memory *m);

/* The entry, loaded or claimed; NULL. */
struct memory_entry *memory_find(const struct memory *m, const struct memory_key *key);
/* It was used now: it goes last. */
void memory_used_now(struct memory *m, struct memory_entry *e);
/* A claim for a key that memory_find() does not know. NULL: no memory. */
struct memory_entry *memory_claim(struct memory *m, const struct memory_key *key);
/* End a claim: hand over `data`, for `charge` bytes of the caller's reservation. */
void memory_fill(struct memory *m, struct memory_entry *claim, void *data, size_t size,
                 size_t charge);
/* The same for bytes that stay in the slab where they are. */
void memory_fill_slab(struct memory *m, struct memory_entry *claim, struct slab *s, void *data,
                      size_t size, size_t charge);
/* An entry that is used again gets its bytes for itself, so that it keeps no large slab. */
void memory_own(struct memory *m, struct memory_entry *e);
/* End a claim with nothing. */
void memory_give_up(struct memory *m, struct memory_entry *claim);

/* Make room, and take it; `leave` bytes stay free beside it. False: what is held is in use. */
bool memory_reserve(struct memory *m, size_t bytes, size_t leave);
static inline void memory_unreserve(struct memory *m, size_t bytes)
{
    m->used -= bytes;
}

/* The same for a slab of at least `size` bytes and `extra` beside it. One reference is the
 * caller's, `extra` is to be unreserved. NULL: no room. */
struct slab *slab_reserve(struct memory *m, size_t size, size_t extra, size_t leave);
/* Allocate its bytes, if it has none yet; needs no lock. -ENOMEM. */
int slab_allocate(struct slab *s);
void slab_unref(struct memory *m, struct slab *s);

#endif
