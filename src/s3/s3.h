/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The S3 dialect: buckets, objects, listings, multipart uploads, signed with SigV4.
 *
 * Retries happen here and nowhere above or below: each call makes as many attempts as the policy
 * and its deadline allow, with full jitter, Retry-After honoured, fewer requests at once after
 * SlowDown, a budget for the whole process, a new connection and a fresh name look-up after a
 * failure. A retried put-if-absent that is told "exists" gives -EEXIST: whether the earlier attempt
 * landed is for the caller to find out (store-s3 reads back).
 *
 * Credentials are found as AWS's tools find them (s3-credential*.c), refreshed ahead of expiry, one
 * refresh at a time, and never appear in messages, arguments or logs.
 *
 * Threads: any number. Does not: know datastores, cache.
 */
#ifndef S3_S3_H
#define S3_S3_H

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/env.h"
#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>

#define S3_KEY_MAX  1024u
#define S3_ETAG_MAX 128u
#define S3_PART_MIN (5u << 20)

enum s3_addressing { S3_ADDRESSING_AUTO, S3_ADDRESSING_PATH, S3_ADDRESSING_VIRTUAL };

struct s3_options {
    const char *endpoint; /* "https://host[:port]"; NULL: AWS_ENDPOINT_URL(_S3), else AWS's */
    const char *region;   /* NULL: AWS_REGION, profile, us-east-1; a redirect corrects it */
    enum s3_addressing addressing; /* AUTO: path for own endpoints, virtual host for AWS's */
    const char *profile;           /* NULL: AWS_PROFILE, else "default" */
    const char *ca_file;
    const char *role_arn, *external_id; /* assume this role with what was found; NULL: do not */
    bool anonymous;       /* never sign; else unsigned only if no credentials are found */
    unsigned connections; /* 0: 128 */
    int64_t attempt_ms;   /* deadline of one attempt; 0: 30 s, more for large bodies */
    int64_t total_ms;     /* deadline of one call; 0: 180 s */
    struct env *env;      /* NULL: the real one */
};

struct s3;
int s3_new(const struct s3_options *o, struct s3 **ret, struct err *err);
void s3_free(struct s3 *s);
AUTO_FREE_FUNC(struct s3, s3_free);

/* "auto" (or NULL), "path", "virtual". -EINVAL with a sentence. */
int s3_parse_addressing(const char *text, enum s3_addressing *ret, struct err *err);

/* "s3://bucket/prefix/" -> bucket, prefix ("" or without leading '/'). -EINVAL with a sentence. */
int s3_parse_location(const char *location, char ret_bucket[static 256],
                      char ret_prefix[static S3_KEY_MAX + 1], struct err *err);

/* Errors of all calls: -ENOENT no such key; -ENXIO no such bucket; -EACCES (the sentence says which
 * permission is missing on what); -EEXIST the condition failed (412, or 409 after it was retried);
 * -ESTALE an If-Match failed: the object changed; -EPROTO nonsense; -ETIMEDOUT, -EIO: outcome
 * unknown; -ENOSPC, a quota or a full server; -EKEYREJECTED its certificate; -EOPNOTSUPP it cannot
 * do that. The sentence names bucket and key, S3's code and request id, and the way out. */

struct s3_object {
    uint64_t size;
    int64_t mtime_ms;
    char etag[S3_ETAG_MAX]; /* without quotes */
    char version_id[128];   /* "" where the bucket has no versions */
};

/* Read `size` bytes at `offset` into `data`: exactly what was asked, except behind the object's
 * end. `pin` (may be NULL): the object must be this one (ETag, or version id if it has one). */
int s3_get(struct s3 *s, const char *bucket, const char *key, uint64_t offset, void *data,
           size_t size, const struct s3_object *pin, size_t *ret_size, struct s3_object *ret_object,
           struct err *err);
/* The same, handed to `done` on another thread when finished. `data` is borrowed until then. */
typedef void s3_done_fn(void *ctx, int result, size_t size);
int s3_get_async(struct s3 *s, const char *bucket, const char *key, uint64_t offset, void *data,
                 size_t size, const struct s3_object *pin, s3_done_fn *done, void *ctx);
/* The same; `why` has the sentence of a failure, and is borrowed until `told` returns. */
typedef void s3_told_fn(void *ctx, int result, size_t size, const struct err *why);
int s3_get_async_told(struct s3 *s, const char *bucket, const char *key, uint64_t offset,
                      void *data, size_t size, const struct s3_object *pin, s3_told_fn *told,
                      void *ctx);
int s3_head(struct s3 *s, const char *bucket, const char *key, struct s3_object *ret,
            struct err *err);
/* `if_absent`: put-if-absent. Checksum header always. */
int s3_put(struct s3 *s, const char *bucket, const char *key, struct bytes body, bool if_absent,
           struct err *err);
/* Put-if-absent; *ret_in_doubt: an attempt of it had no answer and may have landed. */
int s3_put_if_absent(struct s3 *s, const char *bucket, const char *key, struct bytes body,
                     bool *ret_in_doubt, struct err *err);
/* For probes: put-if-absent of each body (none is empty) to one key, which overlap for certain: no
 * request is complete before all have begun. One attempt each; ret_results[i] is what it gave. */
#define S3_OVERLAP_MAX 16u
int s3_put_overlapped(struct s3 *s, const char *bucket, const char *key, const struct bytes *bodies,
                      unsigned count, int *ret_results, struct err *err);
int s3_delete(struct s3 *s, const char *bucket, const char *key, struct err *err);

/* A multipart upload: parts in order, several under way at once, bounded memory. */
struct s3_upload;
int s3_upload_new(struct s3 *s, const char *bucket, const char *key, size_t part_size,
                  unsigned parallel, struct s3_upload **ret, struct err *err);
int s3_upload_write(struct s3_upload *u, const void *data, size_t size, struct err *err);
/* Complete; frees `u`. `if_absent`: -EEXIST if the key is taken. What fitted one part is a put, and
 * that holds; for more it is only as good as the server: some (Ceph) ignore the condition when a
 * multipart upload completes, so the key is looked at just before. Use keys that are your own. */
int s3_upload_commit(struct s3_upload *u, bool if_absent, struct err *err);
void s3_upload_abort(struct s3_upload *u);

/* One row of a listing; borrowed until the callback returns. */
struct s3_entry {
    const char *key; /* decoded bytes; may hold anything but NUL */
    bool is_prefix;
    struct s3_object object;
};
typedef int s3_list_fn(void *ctx, const struct s3_entry *e);
/* A page's rows, at least one, ascending; borrowed as a row is. */
typedef int s3_list_page_fn(void *ctx, const struct s3_entry *rows, size_t count);
struct s3_list_options {
    const char *prefix;
    char delimiter;          /* '/' or 0 */
    const char *start_after; /* may be NULL */
    const char *end_before;  /* stop at keys >= this; may be NULL */
    bool versions;           /* latest versions with their version ids */
    unsigned page;           /* keys a page; 0: 1,000 */
    s3_list_page_fn *pages;  /* gets whole pages, and no function gets rows; may be NULL */
};
/* Each page in ascending order; pages as the server gives them, which most do in ascending order.
 * *ret_now_ms: its Date. */
int s3_list(struct s3 *s, const char *bucket, const struct s3_list_options *o, s3_list_fn *fn,
            void *ctx, int64_t *ret_now_ms, struct err *err);

/* Where a bucket's objects are asked for, as it is known now. */
struct s3_place {
    char endpoint[1100]; /* "https://host[:port][/path]"; "": AWS's, by region */
    char region[64];
    enum s3_addressing addressing;
};
void s3_place_of(struct s3 *s, const char *bucket, struct s3_place *ret);

/* What `doctor` asks: 1 yes, 0 no, -1 may not look. */
struct s3_bucket_settings {
    int versioning, lifecycle, replication;
};
int s3_bucket_settings(struct s3 *s, const char *bucket, struct s3_bucket_settings *ret);
/* Only the first of them. */
int s3_bucket_versioning(struct s3 *s, const char *bucket, int *ret);
/* How far the server's clock is from ours, ms (server - ours), at the last answer. */
int64_t s3_clock_offset_ms(const struct s3 *s);

struct s3_counts {
    uint64_t requests, retries, bytes_in, bytes_out;
};
void s3_counts(struct s3 *s, struct s3_counts *ret);

#endif
