/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Cache: what was fetched from a store, kept on a local disk; one per user and node, shared by all
 * processes, versions and datastores. Keyed by the digest of an object (of its trailer) and offset.
 *
 * It never knows whether bytes are right: whoever reads verifies them (fetch does, each leaf), and
 * calls cache_forget() for what is not. So an unclean boot, a flipped bit or a stranger's hand cost
 * a new fetch, never a wrong byte. Everything is best effort: a full, read-only or failing disk
 * means no caching and no error to a reader; cache_usage() says so, and whoever runs a program
 * makes a line in the log of it.
 *
 * Which data goes first: what was not used for longest. But what was used since this process opened
 * the cache (and within a day) stays, and the new data is not kept, except one byte in
 * CACHE_ADMIT: so a data set that is larger than the cache and is read again and again in any
 * order finds its share there each time, where "least recently used" would find nothing.
 *
 * Units: ranges are in bytes and multiples of CACHE_BLOCK, but for the end of the object.
 * Threads: any number, processes too; not across fork(). Format: docs/formats/cache.md.
 */
#ifndef CACHE_CACHE_H
#define CACHE_CACHE_H

#include "base/cleanup.h"
#include "base/digest.h"
#include "base/env.h"
#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CACHE_BLOCK   512u
#define CACHE_SEGMENT (1u << 20) /* what is claimed and evicted at once: offset / this */
#define CACHE_ADMIT   32u

struct cache;
struct cache_object;

struct cache_options {
    const char *dir;          /* made 0700; owner and type checked, no symlink */
    uint64_t size_bytes;      /* limit; 0: a share of the disk */
    uint64_t keep_free_bytes; /* always left free on the disk; 0: a share of it */
    struct env *env;          /* NULL: the real one */
};

/* An error with a sentence: there is no caching. A directory that can be read but not written is
 * fine: what is there is used. */
int cache_open(const struct cache_options *o, struct cache **ret, struct err *err);
void cache_close(struct cache *c); /* after all its objects */
AUTO_FREE_FUNC(struct cache, cache_close);

/* One object of `length` bytes. Opening makes nothing on disk. Borrowed by nobody after close. */
int cache_object_open(struct cache *c, const struct digest *id, uint64_t length,
                      struct cache_object **ret);
void cache_object_close(struct cache_object *o);
AUTO_FREE_FUNC(struct cache_object, cache_object_close);

/* Copy, if all of it is there: 0, or -ENODATA. Marks it used. */
int cache_read(struct cache_object *o, uint64_t offset, void *data, size_t size);
/* The first byte at or behind `offset` (up to `end`) that is not there; `end` if all is. */
uint64_t cache_missing(struct cache_object *o, uint64_t offset, uint64_t end);
/* Keep. Errors are for counting only. -EDQUOT: there is no room for it. */
int cache_write(struct cache_object *o, uint64_t offset, const void *data, size_t size);
/* The same past the kernel's page cache, for what will not be read again soon; where the file
 * system can, and `data` lies in memory as it does in the object (modulo 4096). */
int cache_write_direct(struct cache_object *o, uint64_t offset, const void *data, size_t size);
void cache_forget(struct cache_object *o, uint64_t offset, uint64_t size);

/* Between processes one fetches a segment: 0: the caller does; -EBUSY: somebody else is at it (look
 * again later; it is free when that process ends, however it ends). */
int cache_claim(struct cache_object *o, uint64_t segment);
void cache_unclaim(struct cache_object *o, uint64_t segment);

/* For mounts on local files: all of the object's data is there, and was written since this boot or
 * settled. */
bool cache_object_is_complete(struct cache_object *o);
/* The caller has read and verified all of it: make it durable, so that it is believed after a crash
 * of the machine too. -ENODATA: something is missing. */
int cache_object_settle(struct cache_object *o);
/* Pinned, it is not evicted while this process lives (nor while the descriptor is open); and once
 * pinned, it is only ever removed as a whole, so that who has the file open keeps its bytes. The
 * descriptor is the caller's, read-only, of a file that begins with the object and goes on behind
 * it. -ENODATA: not complete. */
int cache_object_pin(struct cache_object *o, int *ret_fd);

/* Forget an object or all of them, and free the space; what is pinned stays. */
int cache_object_drop(struct cache_object *o);
int cache_drop(struct cache *c, uint64_t *ret_freed_bytes);

struct cache_usage {
    uint64_t used_bytes;  /* by all processes; right within some MiB */
    uint64_t limit_bytes; /* what may be used just now: less than the option on a filling disk */
    uint64_t objects;
    bool failing;
    int failure;      /* the -errno of that */
    uint64_t errors;  /* failed calls to the disk since the opening */
    uint64_t refused; /* bytes that were not kept for want of room, since the opening */
    uint64_t evicted; /* bytes, by this process */
    uint64_t foreign; /* files that were not what they should be, and were made anew */
};
int cache_usage(struct cache *c, struct cache_usage *ret);

#endif
