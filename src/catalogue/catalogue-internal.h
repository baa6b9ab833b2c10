/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of this folder share: records, keys, the settled put, and a version's raw rows.
 * Tests may look in here; other folders may not.
 */
#ifndef CATALOGUE_CATALOGUE_INTERNAL_H
#define CATALOGUE_CATALOGUE_INTERNAL_H

#include "base/vec.h"
#include "catalogue/catalogue.h"

#include <jansson.h>

/* ---- records: catalogue-record.c ---- */

enum record_type {
    RECORD_FORMAT,
    RECORD_ALLOCATION,
    RECORD_OUTCOME,
    RECORD_DELETE_INTENT,
    RECORD_DELETE_RESULT,
    RECORD_LEASE,
    RECORD_SESSION,
    RECORD_HEARTBEAT,
    RECORD_CONDEMNED,
    RECORD_SWEEP,
    RECORD_ROUND_END,
    RECORD_AWAITED,
    RECORD_TYPE_COUNT,
};

#define RECORD_VERSION 1
/* Strings of a record are no longer than this, so that a listing's row stays small. */
#define RECORD_STRING_MAX 4096u

struct nonce {
    uint8_t byte[16];
};

const char *record_type_name(enum record_type type);

static inline void auto_json_decref(json_t **j)
{
    json_decref(*j);
    *j = NULL;
}

/* The record's bytes, appended to `b`. `body` must be whole. 0, -ENOMEM, -EFBIG. */
int record_encode(enum record_type type, const json_t *body, struct buf *b);
/* Frame, digest, version, type, JSON and the fields every body has. The caller owns *ret. */
int record_decode(struct bytes bytes, const char *key, enum record_type type, json_t **ret,
                  struct err *err);

/* Fields of a decoded body. The first that is missing or ill-typed sets `error` (-EPROTO) and the
 * sentence; from then on all give zero, so one look at `error` at the end is enough. */
struct record_fields {
    const json_t *body;
    const char *key;
    struct err *err;
    int error;
};

const char *record_string(struct record_fields *f, const char *field);
uint64_t record_number(struct record_fields *f, const char *field, uint64_t max);
bool record_flag(struct record_fields *f, const char *field);
/* `size` bytes as lower-case hex. */
void record_hex(struct record_fields *f, const char *field, void *ret, size_t size);
const json_t *record_member(struct record_fields *f, const char *field, json_type type);
/* A sentence of one's own about a field. */
void record_bad_field(struct record_fields *f, const char *field, const char *what);

/* The nonce of a decoded body. */
struct nonce record_nonce(const json_t *body);

/* `in` as valid UTF-8: other bytes become U+FFFD; what does not fit is cut between characters and
 * ends in "...". `size` is that of `out`, at least 4. */
void text_copy(char *out, size_t size, const char *in);

/* ---- keys: catalogue-key.c ---- */

#define CATALOGUE_KEY_MAX 160
#define KEY_REVERSE       UINT64_C(9999999999)
#define KEY_FORMAT        "fmt"
#define KEY_VERSIONS      "n/"
#define KEY_ROUNDS        "g/"

/* "n/<name>/v/" */
void key_versions(char key[static CATALOGUE_KEY_MAX], const char *name);
/* "n/<name>/v/<rev>/<leaf>" */
void key_version(char key[static CATALOGUE_KEY_MAX], const char *name, uint32_t n,
                 const char *leaf);
/* "s/<session>/<leaf>" */
void key_session(char key[static CATALOGUE_KEY_MAX], const struct session_id *id, const char *leaf);
/* "s/<session>/h.<seq>" */
void key_heartbeat(char key[static CATALOGUE_KEY_MAX], const struct session_id *id, uint32_t seq);
/* "<letter>/<session>/" */
void key_objects(char key[static CATALOGUE_KEY_MAX], char letter, const struct session_id *id);

enum key_leaf {
    KEY_LEAF_NONE, /* a listing's prefix, which stops behind the number */
    KEY_LEAF_ALLOCATION,
    KEY_LEAF_OUTCOME,
    KEY_LEAF_DELETE_INTENT,
    KEY_LEAF_DELETE_RESULT,
};

struct key_parts {
    char name[64];
    uint32_t version;
    enum key_leaf leaf;
    uint32_t delete_round; /* of an intent or a result */
};

/* False for a key that is none of a version's: left alone by readers. */
bool key_parse_version(const char *key, struct key_parts *ret);
/* The number that ends "<letter>/<session>/<seq>" or "s/<session>/h.<seq>"; `skip` bytes stand
 * before it. False if it is no plain number. */
bool key_parse_seq(const char *key, size_t skip, uint32_t *ret);
/* "l/<name>/<n>/<leaf>" */
void key_leases(char key[static CATALOGUE_KEY_MAX], const char *name, uint32_t n, const char *leaf);
/* "l/<name>/<n>/<lease>.<seq>" */
void key_lease(char key[static CATALOGUE_KEY_MAX], const char *name, uint32_t n,
               const struct session_id *lease, uint32_t seq);
struct lease_parts {
    char name[64];
    uint32_t version;
    struct session_id lease;
    uint32_t seq;
};
bool key_parse_lease(const char *key, struct lease_parts *ret);
/* "n/<name>/v/<rev>/d/<round>/<leaf>" */
void key_delete_round(char key[static CATALOGUE_KEY_MAX], const char *name, uint32_t n,
                      uint32_t round, char leaf);
/* "s/<session>/i" or "s/<session>/h.<seq>"; *ret_leaf is 'i' or 'h'. */
bool key_parse_session(const char *key, struct session_id *ret_id, char *ret_leaf);
/* "<letter>/<session>/<seq>", exactly as it is written. */
bool key_parse_object(const char *key, char *ret_letter, struct session_id *ret_id,
                      uint32_t *ret_seq);
/* "g/<rev>/<leaf>" */
void key_round(char key[static CATALOGUE_KEY_MAX], uint64_t round, char leaf);
/* Leaves: c, s, w, e. */
bool key_parse_round(const char *key, uint64_t *ret_round, char *ret_leaf);

/* ---- reading and writing records: catalogue-put.c ---- */

struct catalogue {
    struct store *store;     /* borrowed */
    struct env *env;         /* borrowed */
    unsigned readers;        /* threads that read records, the caller's included */
    struct keep *keep;       /* owned; NULL: nothing is kept */
    struct opening *opening; /* owned; the format is being read; NULL: it is known */
    char store_id[33];
    int64_t dead_after_ms;
    char user[64], host[128]; /* of the writer; for display */
    int64_t pid;
};

/* Wait for the format of a store that is being opened beside; what was listed meanwhile means
 * nothing before. */
int catalogue_settle(struct catalogue *c, struct err *err);

/* Reads in flight of a listing: enough for a disk. More of them mean a network. */
#define CATALOGUE_READERS 4u

/* Records that never change, from an earlier run: catalogue-keep.c. Threads: any. */
struct keep;
/* From `path`, as far as it can be read. */
int keep_open(const char *path, struct keep **ret);
void keep_close(struct keep *k); /* writes it, if it has grown; NULL is fine */
/* True: the record's bytes are appended to `b`. */
bool keep_get(struct keep *k, const char *key, struct buf *b);
void keep_put(struct keep *k, const char *key, struct bytes body);

/* How often one put or get in doubt is tried, and the first wait between; doubled each time. The
 * store below has retried already: this bounds the time in which an outage is told from doubt. */
#define DOUBT_TRIES    8
#define DOUBT_DELAY_MS 50

/* A record that is about to be written: always with the same bytes. */
struct draft {
    struct nonce nonce;
    json_t *body; /* owned */
    struct buf bytes;
};

void draft_release(struct draft *d);
static inline void auto_draft_release(struct draft *d)
{
    draft_release(d);
}

/* Adds nonce, writer and time to `body` (stolen; NULL gives -ENOMEM) and encodes it. */
int draft_make(struct catalogue *c, enum record_type type, json_t *body, struct draft *ret,
               struct err *err);

/* Put with doubt settled (R4). 0: mine stands. -EEXIST: another's does, and *ret_other (may be
 * NULL) is its body, to be released. -EIO: unknown. Others: not written. */
int put_record(struct catalogue *c, const char *key, enum record_type type, const struct draft *d,
               json_t **ret_other, struct err *err);
/* -ENOENT only if the key is absent; then no sentence is set. */
int read_record(struct catalogue *c, const char *key, enum record_type type, json_t **ret,
                struct err *err);
/* The same, tried again while the store's answer is unknown. */
int read_record_settled(struct catalogue *c, const char *key, enum record_type type, json_t **ret,
                        struct err *err);
/* Whether a put that gave `code` may have taken effect, now or later. */
bool is_doubt(int code);
/* The wall clock, not before 1970: records know no negative numbers. */
int64_t catalogue_now_ms(struct catalogue *c);
void doubt_sleep(struct catalogue *c, int try_number);

/* ---- versions: catalogue-version.c ---- */

/* What a listing shows of one version. */
struct version_row {
    char name[64];
    uint32_t version;
    bool allocated, decided, delete_result;
    uint32_t delete_round; /* the last one; 0: none */
    int64_t mtime_ms;      /* of the allocation, by the store's clock */
};

struct version_rows {
    VEC(struct version_row) rows;
};
static inline void auto_version_rows_release(struct version_rows *v)
{
    vec_release(&v->rows);
}

/* Count one listed key of a version in: to the last row, or as a new one. */
int version_rows_add(struct version_rows *v, const struct store_entry *entry,
                     const struct key_parts *parts);
/* The rows of all names in key order, listed by several threads; fn on the caller's. What fn gives
 * other than 0 ends it: catalogue-names.c. */
typedef int version_row_fn(void *ctx, const struct version_row *row);
int version_rows_each(struct catalogue *c, version_row_fn *fn, void *ctx, struct err *err);
/* Rows under `prefix`, in the listing's order. */
int version_rows_list(struct catalogue *c, const char *prefix, struct version_rows *ret,
                      struct err *err);
/* The highest number of `name`; 0: none. */
int version_highest(struct catalogue *c, const char *name, uint32_t *ret, struct err *err);
int version_read_allocation(struct catalogue *c, const char *name, uint32_t n,
                            struct version_info *ret, struct err *err);
/* From a decoded outcome at `key`. */
int version_from_outcome(const json_t *body, const char *key, const char *name, uint32_t n,
                         struct version_info *ret, struct err *err);
/* From its records, as the row says which are there. */
int version_read(struct catalogue *c, const struct version_row *row, struct version_info *ret,
                 struct err *err);

/* ---- many versions: catalogue-read.c ---- */

/* Reads the records of the rows that are added, and calls `fn` with each, in order, on the caller's
 * thread, from version_reading_add() and version_reading_finish(). What fn, or a failed read, gives
 * other than 0 ends it. `err` gets the sentence of a failed read. With `past_damage`, records that
 * are damaged are left out, and version_reading_finish() fails because of them. */
struct version_reading;
int version_reading_new(struct catalogue *c, catalogue_version_fn *fn, void *ctx, bool past_damage,
                        struct err *err, struct version_reading **ret);
int version_reading_add(struct version_reading *g, const struct version_row *row);
int version_reading_finish(struct version_reading *g);
void version_reading_free(struct version_reading *g); /* NULL is fine */

/* ---- uploads: catalogue-upload.c, catalogue-commit.c ---- */

/* Objects "<letter>/<session>/<first>-<last>" that an unfinished round may remove. */
struct condemned_range {
    char letter;
    struct session_id session;
    uint32_t first, last;
};

struct upload {
    struct catalogue *c;       /* borrowed */
    struct version_info terms; /* of the allocation: name, version, session, owner, source... */
    uint32_t next_seq[3];      /* of 'p', 'x', 'm' */
    uint32_t next_beat;
    int64_t last_beat_boot_ms;
    bool indexing;
    VEC(struct condemned_range) condemned; /* ascending by letter, session, first */
};

/* Fill u->condemned. */
int upload_load_condemned(struct upload *u, struct err *err);
/* The body of an outcome, without decision. NULL: no memory. */
json_t *outcome_body(const struct version_info *terms, int64_t created_ms);
/* Write "aborted: reason" for the number that `terms` describe. 0: aborted, by whomever; -EEXIST:
 * committed. */
int outcome_abort(struct catalogue *c, const struct version_info *terms, const char *reason,
                  struct err *err);

/* All of these, read by version_read(), many at once; fn in the order of rows. */
int versions_each(struct catalogue *c, const struct version_row *rows, size_t count,
                  catalogue_version_fn *fn, void *ctx, struct err *err);

/* "p/<session>/<first>-<last>" */
bool range_parse(const char *text, struct condemned_range *ret);
int range_compare(const void *a, const void *b); /* by letter, session, first */

/* ---- leases and delete rounds: catalogue-lease.c ---- */

struct holders {
    VEC(struct holder) rows;
};
static inline void auto_holders_release(struct holders *h)
{
    vec_release(&h->rows);
}

struct lease {
    struct session_id id;
    uint32_t seq;
    int64_t age_ms; /* by the store's clock; 0 if it says less */
    int64_t ttl_ms;
    struct hold_process process;
    struct holders holders; /* at least one */
};

struct leases {
    VEC(struct lease) rows;
};
void leases_release(struct leases *l);
static inline void auto_leases_release(struct leases *l)
{
    leases_release(l);
}

/* The newest of each lease on a version, with its body (R6: any oddity is an error). */
int leases_read(struct catalogue *c, const char *name, uint32_t n, struct leases *ret,
                struct err *err);
/* Add the holders that a body lists, as a lease or a delete result has them. `host`: of a lease,
 * whose holders name none; else NULL. */
int holders_parse(struct record_fields *f, const char *host, struct holders *ret);

/* The delete rounds of a version. */
struct delete_round {
    uint32_t round;
    bool intent, result;
};
struct delete_rounds {
    VEC(struct delete_round) rows; /* ascending */
};
static inline void auto_delete_rounds_release(struct delete_rounds *d)
{
    vec_release(&d->rows);
}
int delete_rounds_list(struct catalogue *c, const char *name, uint32_t n, struct delete_rounds *ret,
                       struct err *err);
/* What a result at `key` says. */
int delete_result_decode(const json_t *body, const char *key, bool *ret_deleted, struct err *err);
/* Write the result of a round. *ret_deleted: what it says then, whoever wrote it; *ret_other (may
 * be NULL): another's body, to be released. */
int delete_result_write(struct catalogue *c, const char *name, uint32_t n, uint32_t round,
                        bool deleted, json_t *holders, bool *ret_deleted, json_t **ret_other,
                        struct err *err);
json_t *holder_body(const struct holder *h);
struct hold_times hold_times_or_default(const struct hold_times *t);

/* ---- what a collector sees: catalogue-survey.c ---- */

/* An object that a version names, or that is in the store. */
struct survey_object {
    char letter;
    struct session_id session;
    uint32_t seq;
    uint64_t size; /* of those in the store */
};

struct survey_version {
    char name[64];
    uint32_t version;
    struct session_id session;
    bool decided, available;
    struct object_ref manifest, index;
};

struct survey {
    struct catalogue *c;
    VEC(struct survey_object) objects;   /* in the store, ascending */
    VEC(struct survey_object) named;     /* by available versions, ascending, each once */
    VEC(struct survey_version) versions; /* ascending by name, then descending by number */
    VEC(struct survey_version *) by_session;
    uint64_t available, committed;
};
void survey_release(struct survey *s);
static inline void auto_survey_release(struct survey *s)
{
    survey_release(s);
}

/* All objects, then all versions with their manifests: complete, or an error (R6). */
int survey_take(struct survey *s, struct catalogue *c, struct err *err);
/* The versions again: what new ones name is added. What was named before stays so. */
int survey_again(struct survey *s, struct err *err);
/* The place of the first name at or behind it. */
size_t survey_find(const struct survey *s, char letter, const struct session_id *session,
                   uint32_t seq);
bool survey_names(const struct survey *s, char letter, const struct session_id *session,
                  uint32_t seq);
/* NULL: no allocation names this session. */
const struct survey_version *survey_session(const struct survey *s, const struct session_id *id);
/* Objects, none of them named, of uploads that are decided. */
int survey_candidates(const struct survey *s, size_t max_ranges, json_t *ret_ranges,
                      uint64_t *ret_objects, uint64_t *ret_bytes, struct err *err);

/* ---- collection: catalogue-collect.c, catalogue-sweep.c ---- */

struct collect_round {
    uint64_t number;
    bool condemned, awaited, swept, ended;
};

struct collection {
    struct catalogue *c;
    const struct collect_options *options;
    struct collect_report report;
    struct survey survey;
    struct collect_round round;
    uint64_t last_ended; /* 0: none */
    VEC(struct condemned_range) list;
    struct err *err;
    int error;
};

/* Write a record of the round ("g/<rev>/<leaf>"; `body` is stolen), or accept the one that somebody
 * else has written. */
int round_write(struct collection *g, char leaf, enum record_type type, json_t *body);
int round_read(struct collection *g, char leaf, enum record_type type, json_t **ret);
/* Read all versions again and write the sweep list. */
int round_write_sweep(struct collection *g);
/* Remove what the sweep list names, until a listing shows none of it. */
int round_sweep(struct collection *g);

/* ---- collection: catalogue-tidy.c ---- */

/* Behind a round: records of sessions without objects (I12), and stray leases. */
int collect_tidy(struct catalogue *c, const struct survey *s, const struct collect_options *options,
                 uint64_t *ret_records, struct err *err);

#endif
