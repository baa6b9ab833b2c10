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
/* What makes a store ours never changes: who opens it again need not ask. */
struct catalogue_known {
    char store_id[33];
    int64_t dead_after_ms;
};
void catalogue_known(const struct catalogue *c, struct catalogue_known *ret);
/* For reading; no request is made. */
int catalogue_open_known(struct store *store, struct env *env, const struct catalogue_known *known,
                         struct catalogue **ret, struct err *err);
/* Open what is a store already, with the record of its format on its way on a thread of its own: a
 * round trip that does not come before the next one. The first call is to be catalogue_resolve() or
 * catalogue_delete(), which wait for it, and fail as catalogue_open() would: then
 * catalogue_store_id() is still empty. */
int catalogue_open_beside(struct store *store, struct env *env, struct catalogue **ret,
                          struct err *err);
void catalogue_close(struct catalogue *c);
AUTO_FREE_FUNC(struct catalogue, catalogue_close);

/* Threads that read records of a listing, the caller's included: 4 unless set; 1 starts none. */
void catalogue_set_readers(struct catalogue *c, unsigned readers);
/* Keep records that never change in a file of `directory` (made, 0700), and do not read them from
 * the store again. For stores that a network separates from us. */
int catalogue_keep_records(struct catalogue *c, const char *directory);
struct store *catalogue_store(const struct catalogue *c);
/* 32 hex digits, fixed when the store was first written to. */
const char *catalogue_store_id(const struct catalogue *c);

/* ---- versions ---- */

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
 * that is damaged: -EBADMSG with its key in the sentence, after all others were handed out. */
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

/* ---- uploads ---- */

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

/* ---- holding: a version that is attached
 * -----------------------------------------------------------------------------------
 *
 * A server that reads a version holds it by a lease, which lists its jobs. While a holder believes
 * in its lease nobody can delete the version without --force (I13). The lease is renewed every two
 * minutes; an outage of the store may last TTL - margin. What a lost lease costs is the version,
 * never a right byte: reads are checked by digest.
 *
 *     hold_begin(c, "cats", 3, &options, &hold, err);
 *     hold_join(hold, &(struct hold_job){.text = "run r1", .pid = pid}, &id);
 *     for (;;) wait(hold_tick(hold));          on a thread of the owner's
 *     hold_leave(hold, id);
 *     hold_end(hold);
 *
 * hold_tick() makes all requests: joins and leaves are gathered into its next write, and never are
 * two writes in flight. Threads: hold_begin and hold_end by the owner, all others by any.
 */

struct hold_times {
    int64_t ttl_ms, renew_ms, margin_ms;
};
#define HOLD_TTL_MS    (INT64_C(10) * 60 * 1000)
#define HOLD_RENEW_MS  (INT64_C(2) * 60 * 1000) /* +- 20 % */
#define HOLD_MARGIN_MS (INT64_C(2) * 60 * 1000) /* clock error of the store (A4), and drift */
#define HOLD_JOBS_MAX  1000u                    /* named in a lease; further ones are counted in */
#define HOLD_TEXT_MAX  256u

/* Which process holds: enough to tell, on the same machine, that it is gone. */
struct hold_process {
    char host[128];
    char machine[33]; /* digest of the machine id; "": unknown */
    char boot_id[40]; /* of the running kernel; "": unknown */
    uint64_t pid_ns;  /* inode of its pid namespace; 0: unknown */
    int64_t pid;
    uint64_t pid_start; /* clock ticks after boot, as in /proc/PID/stat; 0: unknown */
};
void hold_process_self(struct hold_process *ret);
void hold_process_of(int64_t pid, struct hold_process *ret); /* another one of this machine */
/* True only if it is certain: same kernel and pid namespace and no such process there, or the same
 * machine (outside containers) has booted since. */
bool hold_process_is_gone(const struct hold_process *p);

struct hold_options {
    bool required;                   /* may not write leases: fail, instead of unprotected */
    struct hold_times times;         /* zeros: the constants */
    const struct hold_process *self; /* NULL: this process */
    const char *text;                /* the server itself, "mount /data"; its first job */
    int64_t text_pid;                /* of that job; 0: self's */
    const uint8_t *family;           /* its id begins with these bytes; NULL: with any */
};
#define HOLD_FAMILY_SIZE 8u
#define HOLD_FIRST_JOB   UINT64_C(1) /* the id of `text` */

struct hold_job {
    const char *text; /* what people call it: "run r1" */
    int64_t pid;
};

enum hold_state {
    HOLD_HELD,        /* nobody can delete it */
    HOLD_DOUBTFUL,    /* the store has not answered for too long: it may go, or be held again */
    HOLD_LOST,        /* deleted, or another process uses this lease: final */
    HOLD_UNPROTECTED, /* may not write: nobody sees this reader (I15) */
};
const char *hold_state_name(enum hold_state s); /* "held", ... */

struct hold;

/* The version is one that was resolved as succeeded. -ESTALE: it has been deleted meanwhile. -EIO,
 * -ETIMEDOUT: the store does not answer. -EACCES, -EPERM, -EROFS: only if `required`. */
int hold_begin(struct catalogue *c, const char *name, uint32_t version,
               const struct hold_options *options, struct hold **ret, struct err *err);
/* Remove the leases of this version whose ids begin with `family`, but that of `keep` (may be
 * NULL): left by processes that are known to be dead, before they run out. */
void hold_sweep(struct catalogue *c, const char *name, uint32_t version, const uint8_t *family,
                const struct hold *keep);
/* Release the lease, as far as the store answers; what stays runs out by itself. NULL is fine. */
void hold_end(struct hold *h);
AUTO_FREE_FUNC(struct hold, hold_end);

/* A job comes; it is named in the store after the next tick, which is due at once. -ESTALE: lost.
 * -EAGAIN: doubtful; tick, and try again. */
int hold_join(struct hold *h, const struct hold_job *job, uint64_t *ret_id);
void hold_leave(struct hold *h, uint64_t id);

/* Do what is due; gives the milliseconds until something will be (INT64_MAX: never again). */
int64_t hold_tick(struct hold *h);
/* *ret_why (may be NULL) is the sentence behind any state but held. */
enum hold_state hold_look(struct hold *h, struct err *ret_why);

/* Who holds a version: one row for each job of each lease that has not run out. */
struct holder {
    char host[128];
    char text[HOLD_TEXT_MAX];
    int64_t pid;
    int64_t since_ms; /* wall clock of the holder */
};
typedef int catalogue_holder_fn(void *ctx, const struct holder *holder);
int catalogue_holders(struct catalogue *c, const char *name, uint32_t version,
                      catalogue_holder_fn *fn, void *ctx, struct err *err);

/* ---- deleting
 * --------------------------------------------------------------------------------------
 *
 * Final: the number never returns. Refused while anybody holds the version. Space comes back by
 * collecting.
 */

struct delete_options {
    bool force; /* overrule the holders; who they were is recorded */
    /* A lease has run out by the store's clock: its holder is watched for one renewal interval.
     * Called every few seconds meanwhile. False: withdraw. NULL: go on. */
    bool (*waiting)(void *ctx, const struct holder *holder, int64_t left_ms);
    bool (*is_gone)(void *ctx, const struct hold_process *p); /* NULL: hold_process_is_gone() */
    void *ctx;
    struct hold_times times; /* zeros: the constants */
};

struct delete_report {
    enum version_status was; /* before */
    struct version_info info;
    unsigned overruled; /* holders, with force */
};

/* 0: deleted, or (an upload that was not complete) aborted. -EBUSY: held; the sentence names by
 * whom. -ENOENT: there is no such version, or it was deleted before. -ECANCELED: withdrawn. -EIO,
 * -ETIMEDOUT: unknown; asking again tells. Anything else: nothing was deleted. */
int catalogue_delete(struct catalogue *c, const char *name, uint32_t version,
                     const struct delete_options *options, struct delete_report *ret,
                     struct err *err);

/* ---- collecting
 * ------------------------------------------------------------------------------------
 *
 * Takes away what no available version names, in numbered rounds that anybody may take over; never
 * by age. Fails closed: an error, a hole in the numbers, an unknown key or format, and nothing is
 * removed (I16).
 */

struct collect_wait {
    char name[64], owner[64], host[128];
    uint32_t version;
    int64_t since_ms;
};

struct collect_options {
    bool dry_run; /* writes nothing at all */
    /* An upload that the round waits for; may be NULL. */
    void (*waits_for)(void *ctx, const struct collect_wait *w);
    bool (*is_gone)(void *ctx, const struct hold_process *p); /* NULL: hold_process_is_gone() */
    void *ctx;
};

struct collect_report {
    uint64_t round;          /* 0: there was nothing to collect */
    bool ended;              /* false: it waits for uploads; the next call goes on */
    unsigned waits;          /* for how many */
    unsigned expired;        /* dead uploads that were aborted */
    uint64_t objects, bytes; /* removed; dry run: that would be */
    uint64_t versions;       /* available */
    uint64_t records;        /* of sessions and leases, removed */
};

int catalogue_collect(struct catalogue *c, const struct collect_options *options,
                      struct collect_report *ret, struct err *err);

/* ---- checking a whole store
 * -----------------------------------------------------------------------------
 *
 * A reader of its own, which trusts no record and shares next to nothing with the code above: it
 * says where a store, at rest, breaks the numbered invariants of docs/formats/catalogue.md. What
 * others do meanwhile may show as a finding.
 */

struct fsck_report {
    uint64_t keys, records, versions, available, objects, bytes;
    uint64_t unnamed_objects, unnamed_bytes; /* for a collector */
    uint64_t findings;
};

/* `rule`: "I5", "R3"...; `text`: a sentence that names the key. */
typedef void fsck_fn(void *ctx, const char *rule, const char *text);

/* 0 also with findings. An error: it could not be read to the end. */
int catalogue_fsck(struct store *store, fsck_fn *fn, void *ctx, struct fsck_report *ret,
                   struct err *err);

#endif
