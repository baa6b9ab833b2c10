/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Shared by the files of this folder.
 *
 *   fetch-read.c    a read: what is in memory, and a plan for what is not
 *   fetch-table.c   which leaf covers an offset, and what of the table is missing to say so
 *   fetch-ticket.c  who waits, what is kept for them, deadlines
 *   fetch-get.c     gets: queued, started, ended, tried again
 *   fetch-verify.c  what came is verified, and goes to those who wait
 *   fetch-disk.c    what was verified goes to the disk's cache
 *   fetch-ahead.c   reading ahead
 *   fetch-pool.c    threads
 *
 * One lock for all of it, held for the time of a look-up, never while something is read or
 * digested. "With the lock" means that of the fetch.
 */
#ifndef FETCH_FETCH_INTERNAL_H
#define FETCH_FETCH_INTERNAL_H

#include "fetch/fetch-linked.h"
#include "fetch/fetch-memory.h"
#include "fetch/fetch.h"

#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

/* A demand's get at most: several of them are under way at once. */
#define GET_DEMAND_MAX (1u << 20)
/* What a parsed trailer may take, per byte of the trailer. */
#define PARSED_FACTOR 3u
/* A table that is no longer than this is read together with the trailer behind it. */
#define TAIL_MAX (128u << 10)

/* ---- gets ---- */

enum get_what { GET_TAIL, GET_GROUP, GET_PAGES, GET_DATA };

/* A leaf that a get reads; of GET_PAGES, a page. */
struct get_leaf {
    struct memory_entry *claim; /* NULL: handed on, or ended */
    uint64_t start;             /* byte in the object */
    uint32_t length;
    bool known; /* by the table: length and digest are right */
    bool good;  /* and so are its bytes */
    struct digest digest;
};

/* One range that is read from the store or the disk, and whom it is read for. */
struct get {
    struct get *next, *before;         /* in one of the lists below */
    struct get *run_next, *run_before; /* among those that are under way */
    struct fetch_object *object;
    enum get_what what;
    uint64_t offset;
    size_t size, reserved; /* beside the slab */
    struct slab *slab;     /* NULL: it waits for room */
    uint8_t *data;         /* of the slab */
    bool ahead;            /* nobody waits for it */
    bool counted;          /* in running_ahead */
    bool fill;             /* of those, one that goes to the disk only */
    bool past_disk;        /* what the disk has of it is wrong */
    bool from_disk;
    bool again; /* it did not verify the first time */
    bool claimed_segments;
    unsigned attempts;
    int64_t due_us;   /* to be tried again */
    int64_t start_us; /* of this attempt */
    int result;
    size_t got;
    struct get_leaf *leaves;
    size_t count, capacity;
};

struct get_list {
    struct get *first, *last;
    size_t count;
};

/* Verified bytes that are to be written to the disk. */
struct disk_write {
    struct disk_write *next;
    struct fetch_object *object; /* a reference */
    struct slab *slab;           /* the same */
    const uint8_t *data;         /* in it */
    uint64_t offset;
    size_t size;
    bool direct; /* past the page cache */
};

/* ---- reading ahead ---- */

#define STREAMS 16u
#define SPANS   64u

/* A range of an object that shall be read ahead. */
struct span {
    struct fetch_object *object; /* NULL: none */
    uint64_t at, end;
    bool waits; /* for the table */
};

/* A reader that goes on in order. */
struct stream {
    struct fetch_object *object; /* NULL: none */
    uint64_t next;               /* where it will go on */
    uint64_t used;               /* order of use */
    int64_t used_us;             /* and when */
    uint64_t window;             /* bytes to be ahead of it */
    uint64_t run;                /* bytes of them */
    unsigned steps;
    struct span span; /* being read ahead; may be in an object behind already */
    uint64_t between; /* bytes of objects between the reader's and that */
    bool no_next;     /* object */
};

struct fetch_series {
    struct fetch *fetch;
    struct fetch_series *next;
    uint32_t count;
    uint64_t total_bytes;
    fetch_open_fn *open;
    void *ctx;
    bool fits;
    uint64_t touched; /* segments */
    bool filling;
    unsigned opening;     /* threads in `open` */
    uint32_t fill_number; /* the object that is being filled in */
    struct span fill;
};

/* ---- the fetch ---- */

#define POOL_MAX 24u
/* They verify: more would only compete with the readers. */
#define POOL_WORKERS 2u
/* The disk is one. */
#define POOL_WRITERS 1u
/* One get of what is read ahead: what a request costs is gone at the larger one. */
#define GET_AHEAD_MIN (UINT64_C(1) << 20)
#define GET_AHEAD_MAX (UINT64_C(8) << 20)
/* Of memory, what may be read ahead. */
#define AHEAD_SHARE 2u

struct fetch {
    struct store *store; /* borrowed */
    struct cache *cache; /* borrowed */
    int64_t io_timeout_ms;
    enum fetch_prefetch prefetch;
    fetch_source_fn *open_source;
    void *open_source_ctx;
    bool quick; /* gets are done by whoever needs them */
    bool async;
    bool keep_first;
    pthread_mutex_t objects_lock; /* of `objects` and `next_object`; taken last */
    struct fetch_object *objects;
    uint64_t next_object;
    pthread_mutex_t lock;
    /* under the lock: */
    struct memory memory;
    struct fetch_stats stats;
    struct fetch_object *dead; /* linked ones, to be freed without the lock */
    struct fetch_series *series;
    uint64_t next_ticket;
    struct fetch_ticket *waiting_first, *waiting_last;
    struct get_list demand;                   /* wait for memory or a place */
    struct get_list delayed;                  /* wait for their time */
    struct get_list ended;                    /* to be verified */
    struct get_list blocking;                 /* to be read by a thread that may wait */
    struct disk_write *writes, **writes_end;  /* oldest first */
    uint64_t writing_bytes;                   /* queued, and being written */
    struct get *running_first, *running_last; /* oldest first */
    unsigned running;
    uint64_t running_ahead; /* bytes */
    int store_error;
    int64_t error_us;  /* when the store failed last */
    int64_t told_us;   /* when the log was told of reads that fail */
    uint64_t touches;  /* clock of streams */
    int64_t stream_us; /* when a reader in order was heard of last */
    int64_t fill_us;   /* when to look whether filling in may go on; 0: somebody else will */
    struct stream streams[STREAMS];
    struct span spans[SPANS]; /* what is left of segments, taken in turn */
    unsigned span_next;
    bool ahead_work;
    uint64_t ahead_max; /* bytes read ahead that nobody has used yet */
    uint64_t ahead_get; /* of one get */
    /* threads */
    pthread_cond_t work, block, write, timer, opened;
    pthread_t threads[POOL_MAX], keeper;
    unsigned thread_count, workers, blockers, writers, idle_workers, idle_blockers, idle_writers;
    int64_t timer_us; /* when the keeper will look again; 0: it is awake */
    bool keeper_runs, stopping, freed;
    unsigned asynchronous; /* gets that the store has: the last one ends what was freed before */
};

struct fetch_object {
    struct fetch *fetch;
    struct fetch_object *next; /* in fetch->objects */
    uint64_t id;
    char *key; /* owned; in the store, or a name for messages */
    enum pack_kind kind;
    struct pack_summary summary;
    unsigned refs;               /* the owner's, and of gets */
    struct get *held;            /* read; what verifies them is on its way */
    uint8_t *touches;            /* of each segment, saturating */
    struct fetch_linked *linked; /* owned; NULL: the object has its own bytes */
    struct cache_object *disk;
    struct fetch_series *series;
    uint32_t number; /* in the series */
};

static inline struct memory_key fetch_key(const struct fetch_object *o, enum memory_kind kind,
                                          uint64_t number)
{
    return (struct memory_key){.object = o->id, .number = number, .kind = kind};
}

static inline struct memory_key leaf_key(const struct fetch_object *o, uint64_t start)
{
    return fetch_key(o, MEMORY_LEAF, start / PACK_BLOCK);
}

int64_t fetch_now_us(void);
void fetch_destroy(struct fetch *f);
/* Run `run` with a ticket of its own until it gives something else than -EAGAIN. */
int fetch_waiting(struct fetch *f, int (*run)(struct fetch_ticket *t, void *ctx), void *ctx);

/* With the lock. The object lives on until all its gets have ended. */
void object_ref(struct fetch_object *o);
void object_unref(struct fetch_object *o);

/* ---- table (all with the lock) ---- */

/* A leaf at its place. */
struct place {
    uint64_t start;
    uint32_t length;
    bool known; /* by the table, with its digest; else guessed from where blobs are cut */
    struct digest digest;
};

/* What of the table has to be read next. */
struct need {
    enum memory_kind kind;
    uint32_t number;
};

/* The leaf that covers `offset`, by the table. 1: known; 0: *ret_need is missing; -EPROTO. */
int table_find(struct fetch_object *o, uint64_t offset, struct place *ret, struct need *ret_need);
/* Where the leaf that covers `offset` is if blobs are cut as they should be; false: unknown. */
bool table_guess(const struct fetch_object *o, uint64_t offset, const struct fetch_hint *hint,
                 struct place *ret);
/* The number of that leaf; FETCH_NO_HINT: unknown. */
uint64_t table_guess_number(const struct fetch_object *o, uint64_t offset,
                            const struct fetch_hint *hint);
/* Trailer and whole table are read at once. */
bool table_is_short(const struct fetch_object *o);
bool table_has_groups(const struct fetch_object *o);
uint32_t table_page_count(const struct fetch_object *o);
uint64_t table_group_offset(const struct fetch_object *o, uint32_t number);
uint64_t table_page_offset(const struct fetch_object *o, uint32_t number);
/* What verifies page or group `number`. 1: known; 0: its parent is not in memory; -EPROTO. */
int table_ref(struct fetch_object *o, enum memory_kind kind, uint32_t number,
              const struct pack_trailer **ret_trailer, struct memory_entry **ret_pinned,
              struct pack_page_ref *ret);

/* ---- tickets (all with the lock) ---- */

/* Wait for a claim, or keep what is loaded. -ENOMEM. */
int ticket_wait_for(struct fetch_ticket *t, struct memory_entry *e);
/* The error that ended a claim for `key` while this operation waited for it; else 0. */
int ticket_failure(const struct fetch_ticket *t, const struct memory_key *key);
/* Those who wait for `e`, which was filled now, or (code) is about to be given up. */
void ticket_tell(struct fetch *f, struct memory_entry *e, int code);
/* Nobody but the oldest keeps anything. True if that freed something. */
bool ticket_strip(struct fetch *f);
/* Of all that wait too long; gives when to look again, INT64_MAX: never. */
int64_t ticket_expire(struct fetch *f);
/* The ticket of the try that this thread has begun; NULL. */
struct fetch_ticket *ticket_current(const struct fetch *f);
/* ---- gets ---- */

/* With the lock. A get of nothing yet; NULL: no memory. */
struct get *get_new(struct fetch_object *o, enum get_what what, uint64_t offset, size_t size);
/* Add a claim to it, and its range. */
int get_add(struct get *g, struct memory_entry *claim, const struct place *p);
void get_list_add(struct get_list *l, struct get *g);
void get_list_remove(struct get_list *l, struct get *g);
struct get *get_list_take(struct get_list *l);
/* Start them, or queue what has no room yet. Without the lock; may do the whole work of a get. */
void gets_begin(struct fetch *f, struct get_list *gets);
/* With the lock: make room for it, and count it among those that are under way. False: no room. */
bool get_may_start(struct get *g);
void get_start(struct get *g); /* then; without the lock */
/* On a thread that may wait. */
void get_read_blocking(struct get *g);
/* Somebody waits for it now: it goes before what nobody waits for. With the lock. */
void get_promote(struct fetch *f, struct get *g);
/* End it: every claim that is left is given up, with `code` (0: look again). With the lock. */
void get_end(struct get *g, int code);
/* What is due is queued again; gives when to look again. With the lock. */
int64_t gets_due(struct fetch *f);

/* ---- verifying ---- */

/* A get that has its bytes or its error. Without the lock. */
void verify_get(struct get *g);
/* A line in the log, and one more in the statistics. Without the lock. */
void verify_damaged(struct fetch_object *o, uint64_t offset, size_t size, const char *what);

/* ---- the disk ---- */

/* Keep [from, end) of what `g` read, borders of blocks, if it is to be kept. Without the lock;
 * large ranges later, by a thread of their own. */
void disk_keep(struct get *g, uint64_t from, uint64_t end);
/* With the lock, given up meanwhile: write what waits longest. False: nothing does. */
bool disk_write_one(struct fetch *f);
/* With the lock: the disk is behind, and what only goes there may wait. */
bool disk_is_behind(const struct fetch *f);

/* Of a linked device, read by a thread that may wait. */
int linked_get(struct fetch_object *o, uint64_t offset, void *data, size_t size);

/* ---- planning (with the lock) ---- */

/* What is wanted of the table to find `offset`. A wait for each (no ticket: none). */
int plan_table(struct fetch_object *o, const struct need *need, uint64_t leaf_number,
               struct fetch_ticket *t, bool ahead, struct get_list *gets);

/* ---- reading ahead ---- */

/* With the lock. Somebody reads this now; `missed`: it was not in memory. */
void ahead_touch(struct fetch_object *o, uint64_t offset, uint64_t size,
                 const struct fetch_hint *hint, bool missed);
/* On a thread of the pool, with the lock, which it may give up: one piece of work. False: none. */
bool ahead_step(struct fetch *f);
/* With the lock: room was made, or a table came. */
void ahead_wake(struct fetch *f);
/* With the lock: the table of this object has grown, or will not. */
void ahead_table(struct fetch_object *o);
/* With the lock: what waits for readers to end; gives when to look again. */
int64_t ahead_due(struct fetch *f);
/* With the lock: nothing of this object any more. */
void ahead_forget(struct fetch *f, const struct fetch_object *o);

/* ---- threads ---- */

/* The keeper of time is that exact. */
#define AGAIN_MIN_US INT64_C(1000)

/* With the lock. */
void pool_wake(struct fetch *f);
void pool_keep_time(struct fetch *f);
void pool_stop(struct fetch *f);

#endif
