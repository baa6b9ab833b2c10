/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Verified bytes of packs and indexes, from a store: every leaf is checked against its digest
 * before it is handed out. How and why: docs/fetch.md.
 *
 * A bounded memory holds verified leaves, table pages and trailers. What is missing is read once
 * for all who want it, at the same time as the table that verifies it, and what reads so far make
 * likely is read ahead of them.
 *
 * Threads: any number, on one fetch and one object. Reads wait; on a thread that has begun a try
 * (below) they give -EAGAIN instead, and the operation is run again when what it wanted has come.
 */
#ifndef FETCH_FETCH_H
#define FETCH_FETCH_H

#include "base/cleanup.h"
#include "base/err.h"
#include "link/link.h"
#include "pack/pack.h"
#include "s3/s3.h"
#include "store/store.h"

#define FETCH_MEMORY_DEFAULT (UINT64_C(256) << 20)
#define FETCH_MEMORY_MIN     (UINT64_C(32) << 20)

struct cache;
struct fetch;

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
    uint64_t memory_bytes; /* bounds all that is held or being read; 0: the default; at least
                            * FETCH_MEMORY_MIN */
    int64_t io_timeout_ms; /* how long a read may wait for a store that fails or is silent, which is
                            * asked again and again; 0: until the store itself gives up */
    enum fetch_prefetch prefetch;
    bool keep_first; /* what was read is in the cache before it is handed out: for who fills it */
    fetch_source_fn *open_source; /* NULL: linked devices cannot be read */
    void *open_source_ctx;
};
int fetch_new(const struct fetch_options *o, struct fetch **ret);
/* After all its objects, and before the store is closed. */
void fetch_free(struct fetch *f);
AUTO_FREE_FUNC(struct fetch, fetch_free);

/* Whether what is missing is read by whoever asks for it (store_is_quick()). */
bool fetch_is_quick(const struct fetch *f);

/* ---- objects ---- */

/* One pack or index. Opening costs nothing: its trailer is read and verified at the first read. */
struct fetch_object;
int fetch_object_new(struct fetch *f, const char *key, enum pack_kind kind,
                     const struct pack_summary *summary, struct fetch_object **ret);
/* A linked device of `blocks` blocks, by its table of links: its bytes are read from the objects of
 * the source, each only as long as it is what it was, and nothing else is known of them. Hints are
 * pages of the table. A source that drifted: -ESTALE, -ENOENT, and a line in the log. */
int fetch_object_new_linked(struct fetch *f, const char *key, const struct pack_summary *table,
                            uint64_t blocks, struct fetch_object **ret);
/* A run of an object of the source on a linked device. Values; some KB. */
struct fetch_link {
    uint64_t start;           /* on the device, bytes */
    uint64_t offset, length;  /* what stands there of the object */
    struct s3_object pin;     /* what it was when the version was made */
    char key[S3_KEY_MAX + 1]; /* without the place's prefix */
};
/* Of a linked device (else -EINVAL): what covers `offset`, and where the objects are. */
int fetch_object_link(struct fetch_object *o, uint64_t offset, uint64_t leaf_hint,
                      struct fetch_link *ret);
int fetch_object_place(struct fetch_object *o, struct link_place *ret);
void fetch_object_free(struct fetch_object *o);
AUTO_FREE_FUNC(struct fetch_object, fetch_object_free);

/* The objects of a version, one behind the other, as its files lie in them: reading ahead goes on
 * in the next one. `open` gives object number i (not to be freed while the series lives), or NULL;
 * called on a thread of the fetch, without locks. Freed before the objects. */
struct fetch_series;
typedef struct fetch_object *fetch_open_fn(void *ctx, uint32_t i);
int fetch_series_new(struct fetch *f, uint32_t count, uint64_t total_bytes, fetch_open_fn *open,
                     void *ctx, struct fetch_series **ret);
void fetch_series_free(struct fetch_series *s);
/* Before its first read. */
void fetch_object_in_series(struct fetch_object *o, struct fetch_series *s, uint32_t i);

/* ---- reading ---- */

/* Copy exactly `size` verified bytes of the object's data, which starts at leaf borders: `offset`
 * and `size` may lie anywhere inside leaves, but not in the padding between them nor behind the
 * last
 * (-EPROTO). -EBADMSG: bytes do not match, not even when read again (a warning with key and offset
 * goes to the log; the next call reads again); -ENOENT: the object is gone; -ETIMEDOUT: the store
 * is silent; else what the store gave.
 * `leaf_hint`: number of the leaf that holds `offset`, or FETCH_NO_HINT; a wrong one costs time
 * only. */
#define FETCH_NO_HINT UINT64_MAX
int fetch_read(struct fetch_object *o, uint64_t offset, void *data, size_t size,
               uint64_t leaf_hint);

/* What a reader knows of the place: with it, data and table are read at the same time. */
struct fetch_hint {
    uint64_t start, end; /* of the blob that holds what is read: bytes in the object */
    uint64_t leaf;       /* number of its first leaf, or FETCH_NO_HINT */
};
int fetch_read_hinted(struct fetch_object *o, uint64_t offset, void *data, size_t size,
                      const struct fetch_hint *hint);
/* Any range of the object's data, as it lies there: padding reads as zeros. */
int fetch_read_flat(struct fetch_object *o, uint64_t offset, void *data, size_t size);
/* Begin to read a range of the object that will be asked for. With a hint all of the table that
 * leads there is read at once. */
void fetch_ahead(struct fetch_object *o, uint64_t offset, uint64_t size, uint64_t leaf_hint);

/* ---- reading without waiting ---- */

/* An operation that can be run again from its beginning: it is tried; if some read of it gave
 * -EAGAIN, it is parked, and tried again when `ready` was called. What came for it stays in memory
 * until then, so it gets on even where memory is short. Embedded by the caller. */
struct fetch_ticket;
/* Called once for each parking, with a lock of the fetch held: it must not call the fetch, nor
 * wait. */
typedef void fetch_ready_fn(struct fetch_ticket *t);

struct fetch_failure;
struct fetch_ticket {
    struct fetch *fetch;
    fetch_ready_fn *ready;
    /* private: */
    struct fetch_wait *waits;
    struct fetch_ticket *before, *after; /* among those that wait, by when they began to */
    struct fetch_failure *failures;
    uint64_t number; /* the smaller, the older; 0: has missed nothing yet */
    int64_t since_us;
    unsigned pending;
    bool missed, waiting, expired;
};
void fetch_ticket_init(struct fetch_ticket *t, struct fetch *f, fetch_ready_fn *ready);
/* From here to fetch_try_end(), reads of this thread do not wait. */
void fetch_try_begin(struct fetch_ticket *t);
/* True: some read gave -EAGAIN, and what the operation made of it is worth nothing. The ticket is
 * to be parked or released. False: it is released. */
bool fetch_try_end(struct fetch_ticket *t);
/* `ready` is called when what was missed has come, failed, or took longer than io_timeout; maybe
 * before this returns. From then on the ticket is whoever's `ready` gave it to. */
void fetch_ticket_park(struct fetch_ticket *t);
/* A parked one: true if `ready` was not called, and will not be. The ticket is then as before
 * fetch_ticket_park(). */
bool fetch_ticket_recall(struct fetch_ticket *t);
/* Give up an operation that is not parked. */
void fetch_ticket_release(struct fetch_ticket *t);

/* ---- figures ---- */

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
    uint64_t ahead_unused;  /* ... and dropped from memory before anybody did */
    uint64_t latency[FETCH_LATENCY_BUCKETS];
    uint64_t memory_bytes; /* in use now */
    uint64_t memory_limit;
    uint64_t waiting; /* reads that wait now */
    int store_error;  /* what the store gives just now; 0: it answers */
};
void fetch_stats(struct fetch *f, struct fetch_stats *ret);

#endif
