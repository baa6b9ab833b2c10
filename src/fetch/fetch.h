/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Verified bytes of packs and indexes, from a store: every leaf is checked against its digest
 * before it is handed out.
 *
 * A bounded cache in memory holds verified leaves, table pages and trailers (least recently used
 * goes first); readers of one leaf at the same time wait for one get. Nothing is written to disk.
 *
 * Threads: any number, on one fetch and one object. Reads block.
 */
#ifndef FETCH_FETCH_H
#define FETCH_FETCH_H

#include "base/cleanup.h"
#include "base/err.h"
#include "pack/pack.h"
#include "store/store.h"

#define FETCH_MEMORY_DEFAULT (UINT64_C(256) << 20)
#define FETCH_MEMORY_MIN     (UINT64_C(32) << 20)

struct cache;
struct fetch;
struct link_place;
struct s3;

/* A client for the objects of a linked device, with credentials that can read `key`, one of them.
 * It stays the callback's, and good as long as the fetch. Called on any thread; may wait. */
typedef int fetch_source_fn(void *ctx, const struct link_place *place, const char *key,
                            struct s3 **ret, struct err *err);

enum fetch_prefetch {
    FETCH_PREFETCH_NONE,     /* only what is asked for */
    FETCH_PREFETCH_ADAPTIVE, /* what reads so far make likely */
    FETCH_PREFETCH_ALL,      /* the whole version, from the start */
};

struct fetch_options {
    struct store *store;   /* borrowed */
    struct cache *cache;   /* on a local disk; borrowed; NULL: none */
    uint64_t memory_bytes; /* bounds all that is cached or being read; 0: the default; at least
                            * FETCH_MEMORY_MIN */
    int64_t io_timeout_ms; /* how long a read may wait for a store that fails or is silent; 0: until
                            * the store itself gives up */
    enum fetch_prefetch prefetch;
    fetch_source_fn *open_source; /* NULL: linked devices cannot be read */
    void *open_source_ctx;
};
int fetch_new(const struct fetch_options *o, struct fetch **ret);
void fetch_free(struct fetch *f); /* after all its objects */
AUTO_FREE_FUNC(struct fetch, fetch_free);

/* One pack or index. Opening costs nothing: its trailer is read and verified at the first read. */
struct fetch_object;
int fetch_object_new(struct fetch *f, const char *key, enum pack_kind kind,
                     const struct pack_summary *summary, struct fetch_object **ret);
/* A linked device of `blocks` blocks, by its table of links: its bytes are read from the objects of
 * the source, each only as long as it is what it was, and nothing else is known of them. Hints are
 * pages of the table. A source that drifted: -ESTALE, -ENOENT, and a line in the log. */
int fetch_object_new_linked(struct fetch *f, const char *key, const struct pack_summary *table,
                            uint64_t blocks, struct fetch_object **ret);
void fetch_object_free(struct fetch_object *o);
AUTO_FREE_FUNC(struct fetch_object, fetch_object_free);

/* Copy exactly `size` verified bytes of the object's data, which starts at leaf borders: `offset`
 * and `size` may lie anywhere inside leaves, but not in the padding between them nor behind the
 * last
 * (-EPROTO). -EBADMSG: bytes do not match (a warning with key and offset goes to the log, the range
 * is read again at the next call); -ENOENT: the object is gone; else what the store gave.
 * `leaf_hint`: number of the leaf that holds `offset`, or FETCH_NO_HINT; a wrong one costs time
 * only. */
#define FETCH_NO_HINT UINT64_MAX
int fetch_read(struct fetch_object *o, uint64_t offset, void *data, size_t size,
               uint64_t leaf_hint);
/* The same for any range of the object's data, as it lies there: padding reads as zeros. */
int fetch_read_flat(struct fetch_object *o, uint64_t offset, void *data, size_t size);

/* The histogram of gets: bucket i counts those of [2^(i/2), 2^((i+1)/2)) microseconds. */
#define FETCH_LATENCY_BUCKETS 48

/* Counters since fetch_new(), but where it says otherwise. */
struct fetch_stats {
    uint64_t hits, misses; /* of leaves */
    uint64_t bytes_memory; /* served from memory */
    uint64_t bytes_cache;  /* read from the cache on disk */
    uint64_t bytes_store;  /* read from the store */
    uint64_t bytes_verified;
    uint64_t gets, retries; /* of the store; retries: after a failure or damage */
    uint64_t damaged;       /* things of the store that did not verify, also when read again */
    uint64_t damaged_cache; /* leaves of the cache that did not verify: they were fetched anew */
    uint64_t stalls;        /* reads that waited ... */
    uint64_t stall_ns;      /* ... and for how long, in sum */
    uint64_t ahead_bytes;   /* read ahead of being asked for ... */
    uint64_t ahead_unused;  /* ... and dropped before anybody did */
    uint64_t latency[FETCH_LATENCY_BUCKETS];
    uint64_t memory_bytes; /* in use now */
    uint64_t memory_limit;
    uint64_t waiting; /* reads that wait now */
    int store_error;  /* what the store gives just now; 0: it answers */
};
void fetch_stats(struct fetch *f, struct fetch_stats *ret);

#endif
