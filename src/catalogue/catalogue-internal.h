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

/* ---- records: catalogue-record.c ----------------------------------------------------------------
 */

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

/* ---- keys: catalogue-key.c
 * ------------------------------------------------------------------------ */

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
};

/* False for a key that is none of a version's: left alone by readers. */
bool key_parse_version(const char *key, struct key_parts *ret);
/* The number that ends "<letter>/<session>/<seq>" or "s/<session>/h.<seq>"; `skip` bytes stand
 * before it. False if it is no plain number. */
bool key_parse_seq(const char *key, size_t skip, uint32_t *ret);
/* "g/<rev>/<leaf>" */
bool key_parse_round(const char *key, uint64_t *ret_round, char *ret_leaf);

/* ---- reading and writing records: catalogue-put.c
 * ------------------------------------------------- */

struct catalogue {
    struct store *store; /* borrowed */
    struct env *env;     /* borrowed */
    unsigned readers;    /* threads that read records, the caller's included */
    char store_id[33];
    int64_t dead_after_ms;
    char user[64], host[128]; /* of the writer; for display */
    int64_t pid;
};

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

/* ---- versions: catalogue-version.c
 * ------------------------------------------------------------------ */

/* What a listing shows of one version. */
struct version_row {
    char name[64];
    uint32_t version;
    bool allocated, decided, delete_result;
    int64_t mtime_ms; /* of the allocation, by the store's clock */
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

/* ---- uploads: catalogue-upload.c, catalogue-commit.c
 * ------------------------------------------------- */

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

#endif
