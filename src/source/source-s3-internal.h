/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of the S3 source share: which key is which file (source-s3-key.c), the listing as
 * it is kept (source-s3-rows.c), how it is made (source-s3-list.c, source-s3-hints.c,
 * source-s3-split.c), and reading ahead (source-s3-read.c).
 */
#ifndef SOURCE_SOURCE_S3_INTERNAL_H
#define SOURCE_SOURCE_S3_INTERNAL_H

#include "source/source-internal.h"

#include "s3/s3.h"

#include <pthread.h>

/* ---- keys, source-s3-key.c --------------------------------------------------------------------
 */

/* What becomes of a key; in the flags of its row. docs/sources.md, "Keys and names". */
enum key_kind {
    KEY_FILE,
    KEY_DIRECTORY, /* "a/" without data: the directory `a` */
    /* from here on something is skipped, and told: */
    KEY_DIRECTORY_DATA, /* "a/" with data: the directory is made, its data is not */
    KEY_EMPTY_NAME,     /* "//", or "/" in front */
    KEY_DOT_NAME,       /* "." or ".." */
    KEY_LONG_NAME,      /* more than 255 bytes between two slashes */
    KEY_BELOW_FILE,     /* a marker "a/" beside the file "a", and no file below it */
    KEY_IS_DIRECTORY,   /* "a" beside "a/b" */
    KEY_KINDS
};
/* `path`: the key behind the source's prefix. The last two kinds are found later. */
enum key_kind key_kind(const char *path, uint64_t size);
/* "its key has an empty name in it" */
const char *key_why(enum key_kind kind);
static inline bool key_is_skipped(enum key_kind kind)
{
    return kind >= KEY_DIRECTORY_DATA;
}
/* Does a directory come from it? */
static inline bool key_is_directory(enum key_kind kind)
{
    return kind == KEY_DIRECTORY || kind == KEY_DIRECTORY_DATA;
}

/* ---- the listing, source-s3-rows.c ------------------------------------------------------------
 */

/* Rows in ascending order of keys, front-coded in blocks of ROWS_BLOCK: some 35 bytes an object
 * that has an MD5 as its ETag. Keys stand without the source's prefix. */
#define ROWS_BLOCK 64u

struct rows {
    VEC(uint8_t *) blocks; /* owned */
    uint64_t count, bytes; /* all rows; bytes of objects */
};

/* A run of ascending rows as it is listed. Zero is a fresh one. */
struct rows_builder {
    VEC(uint8_t *) blocks; /* owned; full ones */
    struct buf block;      /* the one being made */
    unsigned count;        /* in it */
    uint64_t total;        /* rows */
    int64_t mtime_s;       /* of the row before, in the block */
    char last[S3_KEY_MAX + 1];
};
/* `key` must be greater than the one before, else -EPROTO. */
int rows_add(struct rows_builder *b, const char *key, const struct s3_object *o);
/* What was listed moves over to `r`; the builder is fresh again. */
int rows_take(struct rows *r, struct rows_builder *b);
void rows_builder_release(struct rows_builder *b);
/* After the last rows_take(): put the runs in order. -EPROTO: they overlap. Finds what stands in
 * each other's way (KEY_BELOW_FILE, KEY_IS_DIRECTORY). */
int rows_settle(struct rows *r);
void rows_release(struct rows *r);

/* A place in the rows; the members are of the row that it stands on. */
struct rows_cursor {
    const struct rows *rows;
    size_t block;
    unsigned index;     /* of the next row in the block */
    const uint8_t *at;  /* the next row */
    uint8_t *row;       /* this one; also its identity. Its first byte: enum key_kind, and more */
    const uint8_t *pin; /* of this row */
    char key[S3_KEY_MAX + 1];
    size_t key_length;
    uint64_t size;
    int64_t mtime_ms, mtime_s;
};
/* On the first row at or behind `key`, if any. */
bool rows_seek(const struct rows *r, const char *key, struct rows_cursor *c);
bool rows_next(struct rows_cursor *c);
enum key_kind rows_kind(const struct rows_cursor *c);
/* The whole of what the listing said. */
void rows_object(const struct rows_cursor *c, struct s3_object *ret);
/* A mark of the reader's on a row. */
void rows_set_changed(uint8_t *row);
bool rows_changed(const uint8_t *row);

/* ---- listing, source-s3-list.c, source-s3-hints.c, source-s3-split.c --------------------------
 */

struct lister_options {
    struct s3 *s3;
    const char *bucket, *prefix;
    bool versions;
    unsigned parallel; /* 0: a good number */
    void (*progress)(void *ctx, uint64_t files, uint64_t bytes);
    void *ctx;
    const volatile sig_atomic_t *interrupted;
};
/* All below the prefix into `ret`, settled. */
int lister_run(const struct lister_options *o, struct rows *ret, struct err *err);

/* A directory to cut at: the cut is its path without the slash, so that its marker is behind it. */
struct hint {
    char *path; /* owned; ends in '/' */
    bool alone; /* nothing else stands between its cut and that of the next one of its parent's */
};
#define HINTS_MAX 65536u
struct hints { /* ascending */
    struct hint *at;
    size_t count, capacity;
};
/* The first one whose path is behind `key`. */
size_t hints_first_behind(const struct hints *h, const char *key);
/* Those whose cuts are in the range. */
void hints_between(const struct hints *h, const char *at, const char *end, size_t *ret_first,
                   size_t *ret_end);
void hint_cut(const struct hint *hint, char ret[static S3_KEY_MAX + 1]);
/* Is all that is behind its cut, up to and with `end`, below it? */
bool hint_is_whole(const struct hints *h, size_t i, const char *end);
void hints_release(struct hints *h);

/* Rows of a listing with a delimiter, ascending, behind `last`. */
struct hints_page {
    VEC(struct hint) found; /* owned */
    char last[S3_KEY_MAX + 1];
    bool open; /* the row before was a directory; nothing stands between its cut and it */
};
int hints_see(struct hints_page *p, const char *key, bool is_prefix);
/* What was found moves over, as long as there is room. */
int hints_learn(struct hints *h, struct hints_page *p);
void hints_page_release(struct hints_page *p);

/* Which kinds of bytes were seen where in keys; far behind, places share a row. */
#define SPLIT_PLACES 64u
struct split_alphabet {
    bool seen[SPLIT_PLACES][128];
};
void split_learn(struct split_alphabet *a, const char *key);
struct split_range {
    const char *at;  /* keys behind this */
    const char *end; /* up to this; NULL: no end */
    size_t common;   /* bytes that all keys of the last page began with */
    size_t varies;   /* in this byte keys are known to differ; SIZE_MAX: in none */
};
/* A key in the range, so that both sides of it may have some; false: there is none to be found. */
bool split_between(const struct split_alphabet *a, const struct split_range *r,
                   char ret[static S3_KEY_MAX + 1]);

/* ---- the source, source-s3.c, source-s3-open.c ------------------------------------------------
 */

struct window;

/* An object that is not what was listed any more. */
struct changed {
    const uint8_t *row;
    bool known; /* what it is now */
    struct s3_object object;
};

struct source_s3 {
    struct source base;
    struct s3 *s3; /* owned, by the window once there is one */
    struct window *window;
    struct rows rows;
    bool pins;
    bool is_object; /* a tree of one file, whose key the location is */
    char bucket_name[256], prefix[S3_KEY_MAX + 2];
    struct s3_place place;
    struct source_bucket bucket;
    pthread_mutex_t lock;
    VEC(struct changed) changed; /* under the lock */
};
extern const struct source_ops source_s3_ops;

/* ---- reading, source-s3-read.c ----------------------------------------------------------------
 */

/* Objects are read in pieces that begin at multiples of this. */
#define WINDOW_PIECE     (UINT64_C(8) << 20)
#define WINDOW_IN_FLIGHT 128u /* requests at once */

struct window_object {
    const uint8_t *row; /* which it is */
    const char *key;    /* whole */
    struct s3_object pin;
};

int window_new(struct s3 *s3, const char *bucket, const volatile sig_atomic_t *interrupted,
               struct window **ret);
/* Stops what runs, with the client: `s3` is freed too. */
void window_free(struct window *w);
/* The piece at `offset` will be read soon. True: it has room for more. */
bool window_announce(struct window *w, const struct window_object *o, uint64_t offset);
/* As source_ops.read. -ESTALE: it is another object now. */
ssize_t window_read(struct window *w, const struct window_object *o, void *data, size_t size,
                    uint64_t offset);
/* What is there of it is not wanted any more. */
void window_drop(struct window *w, const uint8_t *row);
/* Keep a sentence for `code`. */
void window_tell(struct window *w, int code, const struct err *why);
/* The last sentence for `code`, if there is one. */
bool window_explain(struct window *w, int code, char *ret, size_t size);

#endif
