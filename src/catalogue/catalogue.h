/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The catalogue: names, versions and who is publishing, as write-once records in a store. Protocol,
 * keys, bodies and numbered invariants: docs/formats/catalogue.md; checked in models/ and
 * tests/sim.
 *
 * Only put-if-absent, get, list and delete are used. A decision is one key written once; doubt
 * about a write is settled by reading back and comparing nonces; a number is never used twice.
 *
 *   fmt                                    store id, format version
 *   n/<name>/v/<9999999999-n>/a            allocation of version n: who, what, which session
 *   n/<name>/v/<9999999999-n>/o            its outcome: committed (what) or aborted (why)
 *   n/<name>/v/<9999999999-n>/d/<k>/{i,r}  delete intent of round k, and its result
 *   l/<name>/<n>/<lease>.<seq>             lease of an attached version
 *   s/<session>/{i,h.<seq>}                upload session, heartbeats
 *   p|x|m/<session>/<seq>                  packs, indexes, manifests
 *   g/<9999999999-k>/{c,w,e}               collection round k: condemned, sweep, end
 *
 * Threads: one catalogue may be used by any number; one upload by one at a time.
 */
#ifndef CATALOGUE_CATALOGUE_H
#define CATALOGUE_CATALOGUE_H

#include "base/buf.h"
#include "base/env.h"
#include "base/err.h"
#include "manifest/manifest.h"
#include "store/store.h"

#include <stdbool.h>
#include <stdint.h>

#define CATALOGUE_FORMAT        1
#define CATALOGUE_VERSION_MAX   UINT32_C(4000000000)
#define CATALOGUE_RECORD_MAX    (1u << 20)                      /* bytes of one record */
#define CATALOGUE_DEAD_AFTER_MS (INT64_C(7) * 24 * 3600 * 1000) /* upload without heartbeat */
#define CATALOGUE_HEARTBEAT_MS  (INT64_C(10) * 60 * 1000)

struct catalogue;

enum catalogue_open_flags {
    CATALOGUE_READ = 0,
    CATALOGUE_WRITE = 1 << 0, /* make the `fmt` record where there is none */
};

/* `store` and `env` are borrowed for the life of the catalogue. A store without `fmt`: with
 * CATALOGUE_READ, -ENOENT if the store is empty ("holds no datastores yet") and -EPROTO if it holds
 * something else; -EPROTONOSUPPORT if its format is newer than ours. */
int catalogue_open(struct store *store, struct env *env, unsigned flags, struct catalogue **ret,
                   struct err *err);
void catalogue_close(struct catalogue *c);
AUTO_FREE_FUNC(struct catalogue, catalogue_close);

/* Threads that read records of a listing, the caller's included: 4 unless set; 1 starts none. */
void catalogue_set_readers(struct catalogue *c, unsigned readers);
struct store *catalogue_store(const struct catalogue *c);
/* 32 hex digits, fixed when the store was first written to. */
const char *catalogue_store_id(const struct catalogue *c);

/* ---- versions
 * ------------------------------------------------------------------------------------ */

enum version_status {
    VERSION_PROCESSING, /* allocated; data on its way */
    VERSION_OPTIMIZING, /* its session says that the index is being made */
    VERSION_SUCCEEDED,
    VERSION_FAILED, /* aborted */
    VERSION_DELETED,
};
const char *version_status_name(enum version_status s); /* "processing", ... as documented */

/* What a listing shows, from allocation and outcome records alone. Values; strings are inside. */
struct version_info {
    char name[64];
    uint32_t version;
    enum version_status status;
    struct session_id session;
    int64_t created_ms; /* UTC: committed, or else allocated */
    uint64_t size_bytes, files;
    bool linked;
    char owner[64];    /* user name of the publisher: a label */
    char host[128];    /* where it was published from */
    char source[1024]; /* shortened with "..." if longer */
    char reason[256];  /* failed: why */
    /* succeeded only: */
    struct object_ref manifest;
    struct object_ref index;
    uint64_t index_size, index_head;
};

typedef int catalogue_version_fn(void *ctx, const struct version_info *info);

/* Every version of `name` (NULL: of every name), names ascending, newest version first. Deleted
 * ones are left out. fn returns 0 to go on. Records are read by a few threads at once. A record
 * that is damaged: -EBADMSG with its key in the sentence. */
int catalogue_list(struct catalogue *c, const char *name, catalogue_version_fn *fn, void *ctx,
                   struct err *err);

/* Version `n` of `name`; n = 0: the newest succeeded one. -ENOENT with a sentence that says what
 * there is instead (no such datastore; no such version, versions are 1-4; failed; deleted). */
int catalogue_resolve(struct catalogue *c, const char *name, uint32_t n, struct version_info *ret,
                      struct err *err);

/* The owner of version 1 owns the name: a label, not access control. -ENOENT: the name is unused.
 */
int catalogue_owner(struct catalogue *c, const char *name, char ret_owner[static 64],
                    struct err *err);

/* Read and verify the manifest of a succeeded version. */
int catalogue_manifest(struct catalogue *c, const struct version_info *info, struct manifest *ret,
                       struct err *err);

/* ---- uploads
 * --------------------------------------------------------------------------------------- */

struct upload_terms {
    const char *name;
    const char *owner;
    const char *host;
    const char *source; /* without secrets */
    bool linked;
};

/* One running upload: number allocated, session registered, condemned lists read (in that order).
 */
struct upload;

/* Allocate the next number of `name` and register a session. */
int upload_begin(struct catalogue *c, const struct upload_terms *terms, struct upload **ret,
                 struct err *err);
/* Continue a session that has no outcome yet. -ESTALE if it was aborted or expired, -EEXIST if it
 * has committed meanwhile (both with a sentence). */
int upload_resume(struct catalogue *c, const char *name, uint32_t n,
                  const struct session_id *session, struct upload **ret, struct err *err);
void upload_free(struct upload *u); /* leaves the session as it stands: resumable */
AUTO_FREE_FUNC(struct upload, upload_free);

uint32_t upload_version(const struct upload *u);
const struct session_id *upload_session(const struct upload *u);
/* The next free sequence number for 'p', 'x' or 'm' objects; a resumed session continues behind
 * what the store holds. */
uint32_t upload_next_seq(struct upload *u, char letter);
/* May a pack of an earlier version be named by this one? False if an unfinished collection round
 * condemned it. */
bool upload_may_reuse(const struct upload *u, const struct object_ref *pack);
/* Complete packs that this session has left in the store (after a resume), ascending seq. */
typedef int upload_pack_fn(void *ctx, uint32_t seq, uint64_t length);
int upload_each_pack(struct upload *u, upload_pack_fn *fn, void *ctx, struct err *err);

/* Tell others that we live; writes at most one object per CATALOGUE_HEARTBEAT_MS, else nothing. */
int upload_heartbeat(struct upload *u, struct err *err);

/* The data is in the store and the index is being made: tells others at once. */
int upload_indexing(struct upload *u, struct err *err);

/* Check that the index and every pack that `m` names are there with their length, fill in m->name,
 * m->version and (if 0) m->created_ms, write the manifest, write the outcome. In doubt, the abort
 * is written to the same key and whatever the key then says is the answer.
 *
 * 0: committed, by me. -ESTALE: aborted, for ever (the data can be published under a new number).
 * -EEXIST: another process resumed this session and has committed it. -ENOENT, -EPROTO: a pack is
 * missing, or condemned. -EIO, -ETIMEDOUT: unknown. Unless it is 0, -ESTALE or -EEXIST, the session
 * can be resumed, and resuming it tells. */
int upload_commit(struct upload *u, struct manifest *m, struct version_info *ret, struct err *err);
/* Write the outcome "aborted: reason". 0 also if it was aborted before; -EEXIST if it had
 * committed. */
int upload_abort(struct upload *u, const char *reason, struct err *err);
/* The same for anybody's upload, named by its number. -ENOENT: there is no such version. */
int catalogue_abort(struct catalogue *c, const char *name, uint32_t n, const char *reason,
                    struct err *err);
/* Abort the uploads of `name` (NULL: of all names) that have shown no sign of life for the store's
 * dead_after time, by the store's own clock. A wrong guess costs its publisher the upload, no data.
 */
int catalogue_expire(struct catalogue *c, const char *name, unsigned *ret_count, struct err *err);

#endif
