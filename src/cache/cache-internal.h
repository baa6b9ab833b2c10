/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Shared by the files of this folder.
 *
 * A *cell* is the file of one object: its data at their own offsets (sparse), then a header, one
 * head (use clock, generation) for each segment and one mark for each block. A mark is a byte, so
 * that processes set them without a lock. All is read and written with pread and pwrite: a failing
 * or truncated file is an errno, never a signal.
 *
 * Locks: cache.lock (open cells, objects), cache.account_lock (counts); the second may be taken
 * inside the first. Neither is held during calls to the disk, but account_lock while the small
 * account file is read and written.
 */
#ifndef CACHE_CACHE_INTERNAL_H
#define CACHE_CACHE_INTERNAL_H

#include "cache/cache.h"

#include "base/vec.h"

#include <stdatomic.h>
#include <sys/types.h>

/* ---- cells (cache-cell.c) ---- */

#define CELL_FORMAT       1u
#define CELL_HEADER_SIZE  128u
#define CELL_HEAD_SIZE    8u
#define CELL_PINNED       1u
#define CELL_SETTLED      2u
#define CELL_MARK         1u /* a block that is there; every other value: it is not */
#define CELL_ALIGN        4096u
#define CELL_NAME_SIZE    (2u + 1u + DIGEST_HEX_SIZE) /* "ab/abcd..." */
#define CELL_BOOT_SIZE    16u
#define CACHE_OBJECT_MAX  (UINT64_C(1) << 44) /* 4,096 times the largest pack */
#define CELL_CLAIM_OFFSET (INT64_C(1) << 62)  /* locks of segments: no byte of the file is there */
#define CELL_PIN_OFFSET   (CELL_CLAIM_OFFSET - 1)

/* Where things are in the cell of an object of this length. */
struct cell_shape {
    uint64_t length;
    uint64_t blocks, segments;
    uint64_t header, heads, marks; /* offsets */
    uint64_t file_size;
};

struct cell_header {
    uint64_t length;
    struct digest id;
    uint32_t flags;
    uint8_t boot[CELL_BOOT_SIZE];
};

struct cell_head {
    uint32_t clock;      /* seconds since 1970, UTC; 0: nothing of the segment is there */
    uint32_t generation; /* grows when it is evicted */
};

int cell_shape_of(uint64_t length, struct cell_shape *ret); /* 0 or -EINVAL */
void cell_header_encode(const struct cell_header *h, uint8_t data[static CELL_HEADER_SIZE]);
/* 0, or -EPROTO for what no header is. */
int cell_header_decode(const uint8_t data[static CELL_HEADER_SIZE], struct cell_header *ret);
/* Look at an open file whose length is its own word: 0, -EPROTO, or an errno of the disk. */
int cell_identify(int fd, uint64_t file_size, struct cell_header *ret,
                  struct cell_shape *ret_shape);

/* An open file. Counted, since threads use it while another finds that it has to be opened anew. */
struct cell {
    int fd;
    unsigned users; /* under cache.lock */
    bool writable;
    dev_t device;
    ino_t inode;
};

int cell_head_read(const struct cell *cell, const struct cell_shape *s, uint64_t segment,
                   struct cell_head *ret);
int cell_clock_write(const struct cell *cell, const struct cell_shape *s, uint64_t segment,
                     uint32_t clock);
/* The first block in [first, end) whose mark is (or is not) set; `end` if none. < 0: errno. */
int64_t cell_find(const struct cell *cell, const struct cell_shape *s, uint64_t first, uint64_t end,
                  bool marked);
/* Blocks in [first, end) without a mark; < 0: errno. */
int64_t cell_unmarked(const struct cell *cell, const struct cell_shape *s, uint64_t first,
                      uint64_t end);
int cell_mark(const struct cell *cell, const struct cell_shape *s, uint64_t first, uint64_t end,
              bool marked);
int cell_flags_write(const struct cell *cell, const struct cell_shape *s, uint32_t flags);

/* ---- the cache (cache.c) ---- */

/* Cells held open at once; a version may have 20,000. Less where RLIMIT_NOFILE asks for it. */
#define CACHE_CELLS_MAX 512u

struct cache_claimed {
    uint64_t segment;
    struct cell *cell; /* has one user for it */
};

struct cache_object {
    struct cache *cache;
    struct digest id;
    struct cell_shape shape;
    char name[CELL_NAME_SIZE];
    /* under cache.lock: */
    struct cell *cell;                  /* NULL: not open */
    struct cache_object *newer, *older; /* among those with an open cell, by use */
    VEC(struct cache_claimed) claims;
    int64_t retry_ms; /* it could not be made: not before then */
};

struct cache {
    struct env *env;
    int dir_fd;
    uint8_t boot[CELL_BOOT_SIZE];
    uint64_t limit_bytes, keep_free_bytes; /* as wanted */
    uint32_t opened_s;
    unsigned cells_max;

    pthread_mutex_t lock;
    struct cache_object *newest, *oldest;
    unsigned cells_open;
    unsigned temp_counter;

    pthread_mutex_t account_lock;         /* all below */
    int account_fd;                       /* -1: none; then counts are this process's own */
    uint64_t shared_used, shared_objects; /* as last read */
    int64_t used_delta, objects_delta;    /* not yet written */
    uint64_t effective_limit;
    int64_t looked_ms; /* when the disk and the shared counts were looked at */
    uint64_t refused, refused_spent, evicted, errors, foreign;
    uint64_t room_wanted; /* the largest write that was refused since the last pass */
    int failure;
    int64_t failure_retry_ms, failure_delay_ms;
    bool evict_wanted, recount_wanted, closing, evictor_runs;
    bool evicting; /* a thread of this process is at it */
    pthread_t evictor;
    pthread_cond_t evict_wake;
    int64_t evict_next_ms; /* an eviction that found nothing is not repeated at once */
    _Atomic bool stop;     /* closing, for loops without the lock */
};

uint32_t cache_now_s(struct cache *c);
int64_t cache_now_ms(struct cache *c);
/* Something went wrong (or right: r = 0) with the disk. */
void cache_note(struct cache *c, int r);
/* Reads (or writes) are not tried for the moment. */
bool cache_rests(struct cache *c, bool writing);
void cache_note_foreign(struct cache *c);
/* "ab" of "ab/abcd...", made if wanted. */
int cache_shard_open(struct cache *c, const char *name, bool make, int *ret_fd);

/* ---- counting (cache-account.c) ---- */

void account_open(struct cache *c, bool is_new);
void account_close(struct cache *c);
/* May `size` more bytes be kept? 0 or -EDQUOT. Wakes the evictor when it gets tight. */
int account_admit(struct cache *c, uint64_t size);
void account_add(struct cache *c, int64_t bytes, int64_t objects);
/* What a walk has counted. */
void account_set(struct cache *c, uint64_t used, uint64_t objects);
/* Look at disk and account now. With account_lock. */
void account_look(struct cache *c);
uint64_t account_used(const struct cache *c); /* with account_lock */
/* One thread of one process evicts at a time: 0 or -EBUSY. */
int account_lock_eviction(struct cache *c);
void account_unlock_eviction(struct cache *c);

/* ---- what an eviction does to one cell (cache-victim.c) ---- */

/* Heads looked at in one read: those of 4 GiB. */
#define HEADS_AT_ONCE 4096u

struct victim {
    struct cell cell;
    struct cell_header header;
    struct cell_shape shape;
    uint64_t bytes; /* on the disk */
    bool is_fresh;  /* written to just now: one that looks empty may be filling */
    int shard_fd;
    const char *name; /* borrowed; below shard_fd */
};

#define VICTIM_NONE                                                                                \
    {                                                                                              \
        .cell = {.fd = -1 }                                                                        \
    }

static inline void auto_victim_close(const struct victim *v)
{
    auto_close_fd(&v->cell.fd);
}

/* 0; -EPROTO: it is no cell; or an errno. */
int victim_open(int shard_fd, const char *name, struct victim *ret);
/* Somebody holds a pin. Keeps new ones away until it is closed. */
bool victim_is_pinned(const struct victim *v);
/* What it takes of the disk now. */
uint64_t victim_disk_bytes(const struct victim *v);
int victim_evict_segment(const struct victim *v, uint64_t segment);
int victim_remove(const struct victim *v, uint64_t *ret_freed);
/* The clock of each segment that is in use. */
typedef int victim_segment_fn(void *ctx, struct victim *v, uint64_t segment, uint32_t clock);
int victim_each_segment(struct victim *v, victim_segment_fn *fn, void *ctx);

/* ---- eviction (cache-evict.c) ---- */

void evict_wake(struct cache *c); /* with account_lock */
void evict_stop(struct cache *c);
/* Now, by the caller: recount, and evict what is too much. */
int evict_pass(struct cache *c);
/* Remove everything that is not pinned. */
int evict_all(struct cache *c, uint64_t *ret_freed);
/* Remove one file unless it is pinned: -EBUSY. `name` below `shard_fd`. */
int evict_file(int shard_fd, const char *name, uint64_t *ret_freed);

#endif
