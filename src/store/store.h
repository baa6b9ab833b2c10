/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A store maps keys to immutable bytes. A local directory and a prefix of an S3 bucket are stores.
 *
 * A key is written at most once: store_put_if_absent() and an upload's commit are the only ways to
 * write, and the only atomic steps of the whole system. Whoever loses the race gets -EEXIST and
 * reads the winner's bytes. Assumed of every store (docs/formats/catalogue.md, A1 to A4):
 * put-if-absent is atomic per key; what was written before a list or get began is seen by it; an
 * unanswered put may take effect at any later time, or never.
 *
 * Errors of every call: -ENOENT absent; -EEXIST taken; -EIO, -ETIMEDOUT *outcome unknown* (a put
 * may have landed, now or later: the caller reads back and compares its nonce); -ENOSPC, -EROFS,
 * -EACCES, -EDQUOT: nothing was written; -EINVAL a key that breaks the rules below; -EPROTO
 * something stands in the store that no store writes (a symlink in a directory).
 *
 * Threads: a store may be used by any number of threads at once; an upload by one at a time.
 * Does not: cache, retry (see store-retry.c), or know what the bytes mean.
 *
 * Add a store: implement struct store_ops in store-NAME.c, add a line to store_kinds[] in store.c,
 * add NAME to kinds[] in tests/unit/store-helpers.h. Every test must then pass unchanged.
 */
#ifndef STORE_STORE_H
#define STORE_STORE_H

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/env.h"
#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>

/* Keys: 1 to 512 bytes, components of 1 to 255 bytes of [A-Za-z0-9._-] joined by single '/', none
 * starting with ".". Checked once, by the dispatchers. No key may be what stands before a '/' in
 * another: directories and memory refuse the second of "a" and "a/b" with -EINVAL, a bucket cannot.
 */
#define STORE_KEY_MAX 512
/* put_if_absent bodies, else -EFBIG; larger objects go through an upload. */
#define STORE_PUT_MAX        (8u << 20)
#define STORE_LENGTH_UNKNOWN UINT64_MAX

struct store;
struct store_upload;

/* One row of a listing. Borrowed until the callback returns. */
struct store_entry {
    const char *key;     /* whole key; with a delimiter also "prefix/", ending in '/' */
    bool is_prefix;      /* it stands for all keys below it */
    uint64_t size_bytes; /* of an object */
    int64_t mtime_ms;    /* Last-Modified by the store's own clock, UTC; 0 for prefixes */
};

/* 0 to go on; anything else ends the listing, and store_list() returns it. */
typedef int store_list_fn(void *ctx, const struct store_entry *entry);

struct store_list_options {
    bool by_component; /* stop at the first '/' behind the prefix, as S3's delimiter does */
    bool keys_only;    /* sizes and times are not wanted, and may be 0: spares a directory a stat
                        * for each object */
    const char *start_after; /* rows (keys, and prefixes as told) greater than this; NULL: all */
};

/* What the store can say of itself; -1 where it cannot know. */
struct store_space {
    int64_t free_bytes;
    int64_t free_objects;
};

/* What trying it out has shown. */
struct store_probe {
    unsigned rounds, racers; /* of overlapped puts, each with one winner; 0: needs no probe */
    int64_t clock_offset_ms; /* the store's clock, less ours */
    int64_t clock_spread_ms; /* between its clock when asked and when it dates an object (A4) */
    int versioning, lifecycle, replication; /* of the bucket: 1 yes, 0 no, -1 may not look */
    const char *file_system;                /* of a directory: its name; else NULL */
    const char *sharing;                    /* and what it promises to several hosts */
};

/* A get has ended: as store_get() would have. */
typedef void store_done_fn(void *ctx, int result, size_t size);

struct store_ops {
    const char *kind; /* "directory", "memory", ... for messages */

    /* Write all of `body` under `key`, durably, or nothing. May block. -EEXIST if the key is taken,
     * even by equal bytes. */
    int (*put_if_absent)(struct store *s, const char *key, struct bytes body);

    /* Read up to `size` bytes from `offset` into `data`; *ret_size says how many (fewer only at the
     * object's end; 0 behind it), *ret_length (may be NULL) the object's length. May block. */
    int (*get)(struct store *s, const char *key, uint64_t offset, void *data, size_t size,
               size_t *ret_size, uint64_t *ret_length);

    /* The same (`size` is not 0) without waiting: `done` is called once, on any thread, maybe
     * before this returns; not if this fails. It must not wait. `data` is borrowed until then.
     * Closing the store ends what is under way with -ECANCELED. NULL: it has only get. */
    int (*get_async)(struct store *s, const char *key, uint64_t offset, void *data, size_t size,
                     store_done_fn *done, void *ctx);
    /* Whether a get only reads this machine's memory or disk, so that handing it to another thread
     * costs more than waiting. NULL: no. */
    bool (*is_quick)(struct store *s);

    /* Every key that starts with `prefix`, in ascending byte order, complete or an error: a page
     * that is missing is never silently left out. `prefix` is empty or ends anywhere; -EINVAL if no
     * key can begin with it. *ret_now_ms (may be NULL) is the store's own clock when the listing
     * began. The callback may call the store. */
    int (*list)(struct store *s, const char *prefix, const struct store_list_options *options,
                store_list_fn *fn, void *ctx, int64_t *ret_now_ms);

    /* Remove one object. 0 also if it was not there. */
    int (*remove)(struct store *s, const char *key);

    /* Begin a large object that is written in order as it is made. Nothing is visible under `key`
     * before the commit. */
    int (*upload)(struct store *s, const char *key, struct store_upload **ret);
    /* Append. `data` is borrowed until return. Errors are sticky: the commit reports them again. */
    int (*upload_write)(struct store_upload *u, const void *data, size_t size);
    /* Make it visible and durable, put-if-absent. Frees `u` whatever it returns. May be called from
     * another thread than the writes, so that the next upload goes on meanwhile. */
    int (*upload_commit)(struct store_upload *u);
    /* Forget it. Frees `u`. */
    void (*upload_abort)(struct store_upload *u);

    int (*space)(struct store *s, struct store_space *ret);
    /* A read-only descriptor of the object as a file on a disk of this machine, of a kind whose
     * pages the kernel's EROFS can read. May be NULL. */
    int (*open_local)(struct store *s, const char *key, int *ret_fd);
    /* NULL: nothing has to be tried out. */
    int (*probe)(struct store *s, struct store_probe *ret, struct err *err);
    /* The sentence behind the last failure with `code`; false if it has none. May be NULL. */
    bool (*explain)(struct store *s, int code, char *ret, size_t size);
    void (*close)(struct store *s);
};

/* Implementations embed this first. */
struct store {
    const struct store_ops *ops;
    char *location; /* owned; "file:///var/lib/grid/store", for messages */
};

struct store_upload {
    struct store *store;
};

/* ---- opening ---- */

enum store_open_flags {
    STORE_READ = 0,
    STORE_WRITE = 1 << 0,    /* create the root where it is missing */
    STORE_COHERENT = 1 << 1, /* --store-is-coherent: trust an unknown file system */
};

/* What a location does not say of an S3 store. Borrowed until the open returns. NULL: as AWS's own
 * tools find it. */
struct store_options {
    const char *endpoint;   /* "https://host[:port]" */
    const char *region;     /* a redirect corrects it */
    const char *addressing; /* "auto", "path", "virtual" */
    const char *profile;    /* of the AWS configuration */
    const char *ca_file;    /* certificates that may sign the endpoint's */
};

/* Open by location: "file:///path" or an absolute path; "s3://bucket/prefix"; "memory:" (an empty
 * one of its own). Opening an S3 store makes no request: what is wrong with it shows at the first
 * call. `options` may be NULL. The caller closes. */
int store_open(const char *location, unsigned flags, struct store **ret, struct err *err);
int store_open_with(const char *location, unsigned flags, const struct store_options *options,
                    struct store **ret, struct err *err);
void store_close(struct store *s); /* NULL is fine */
AUTO_FREE_FUNC(struct store, store_close);

/* In-process store, for tests and the simulator. */
int store_memory_new(struct store **ret);

/* ---- wrappers: each owns `below` and closes it ---- */

struct store_retry_policy {
    int attempts;           /* in all; 1: no retry */
    int64_t first_delay_ms; /* doubled each time, with full jitter */
    int64_t max_delay_ms;
    int64_t deadline_ms; /* for one call, all attempts together */
};

/* The one level that retries: -EIO and -ETIMEDOUT of get, list, remove and put_if_absent. A retried
 * put_if_absent that gives -EEXIST reads back: equal bytes are success (the earlier attempt
 * landed). Uploads are not retried here: publish makes the pack again. */
int store_retry_new(struct store *below, const struct store_retry_policy *policy, struct env *env,
                    struct store **ret);

/* Counts calls and bytes, and tells each call to `fn` (may be NULL), on the thread that made it:
 * any number at once. */
struct store_counts {
    uint64_t puts, gets, lists, removes, uploads, put_bytes, get_bytes;
};
typedef void store_trace_fn(void *ctx, const char *call, const char *key, int result);
int store_trace_new(struct store *below, store_trace_fn *fn, void *ctx, struct store **ret);
void store_trace_counts(struct store *trace, struct store_counts *ret);

/* Fails the Nth call (1-based, all kinds counted together) with `code`: before it took effect, or
 * after (the answer is lost). `forever`: and every later one. N = 0: only counts. */
struct store_fault_plan {
    uint64_t nth;
    int code;
    bool after;
    bool forever;
};
int store_fault_new(struct store *below, const struct store_fault_plan *plan, struct store **ret);
uint64_t store_fault_calls(struct store *fault); /* calls seen so far */
bool store_fault_fired(struct store *fault);

/* ---- verbs: check keys, then dispatch ---- */

bool store_key_is_valid(const char *key);

int store_put_if_absent(struct store *s, const char *key, struct bytes body);
int store_get(struct store *s, const char *key, uint64_t offset, void *data, size_t size,
              size_t *ret_size, uint64_t *ret_length);
/* -EOPNOTSUPP: it has none. */
int store_get_async(struct store *s, const char *key, uint64_t offset, void *data, size_t size,
                    store_done_fn *done, void *ctx);
bool store_has_async(const struct store *s);
bool store_is_quick(struct store *s);
/* The whole object appended to `b`; -EFBIG beyond b->max. */
int store_get_all(struct store *s, const char *key, struct buf *b);
int store_list(struct store *s, const char *prefix, const struct store_list_options *options,
               store_list_fn *fn, void *ctx, int64_t *ret_now_ms);
int store_remove(struct store *s, const char *key);
int store_upload(struct store *s, const char *key, struct store_upload **ret);
int store_upload_write(struct store_upload *u, const void *data, size_t size);
int store_upload_commit(struct store_upload *u);
void store_upload_abort(struct store_upload *u); /* NULL is fine */
int store_space(struct store *s, struct store_space *ret);
/* The object as a file that lies on a disk of this machine, for the kernel to read from.
 * -EOPNOTSUPP if it lies elsewhere. */
int store_open_local(struct store *s, const char *key, int *ret_fd);
/* Try out what is assumed of a store that many write to (A1, A4). -EOPNOTSUPP with a sentence: it
 * does not keep it, and must not be written to. Some seconds; leaves nothing behind. */
int store_probe(struct store *s, struct store_probe *ret, struct err *err);
/* What `code` meant when a call of this store last gave it: the store's own sentence where it has
 * one (S3: which permission is missing on what), else strerror(). Valid until the next call on this
 * thread. */
const char *store_error(struct store *s, int code);

#endif
