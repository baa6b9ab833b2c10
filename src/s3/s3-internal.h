/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Shared inside s3/: the client, one call on its way through it, and the small parts they use.
 *
 * A call is filled in by an operation (s3-object.c, s3-list.c, s3-upload.c ...), scheduled
 * (s3-schedule.c: how many at once, when again), attempted (s3-call.c: address, sign, send, judge)
 * and ends with a code and a sentence. Every operation is the same call, waited for or not.
 */
#ifndef S3_S3_INTERNAL_H
#define S3_S3_INTERNAL_H

#include "s3/s3.h"

#include "base/digest.h"
#include "base/vec.h"
#include "http/http.h"
#include "s3/s3-credential.h"

#include <pthread.h>
#include <stdatomic.h>

#define S3_BUCKET_MAX     255u
#define S3_REGION_MAX     63u
#define S3_HOST_MAX       512u
#define S3_CODE_MAX       63u
#define S3_CALL_HEADERS   6u
#define S3_ERROR_BODY_MAX (64u << 10)
#define S3_PAGE_BODY_MAX  (16u << 20)
#define S3_SECOND_MS      1000
#define S3_BUCKETS_KNOWN  64u /* whose regions are remembered */

/* ---- text, s3-text.c ---- */

/* Percent-encode as SigV4 wants it; '/' stays if `keep_slash`. */
int s3_encode(struct buf *b, const char *text, bool keep_slash);
/* In place; '+' becomes a space if `plus_is_space`. -EPROTO: bad %XX or a NUL. */
int s3_decode(char *text, bool plus_is_space);
/* "2009-10-12T17:50:30.000Z" and "Mon, 12 Oct 2009 17:50:30 GMT" -> ms since 1970. */
int s3_parse_iso_time(const char *text, int64_t *ret_ms);
int s3_parse_http_time(const char *text, int64_t *ret_ms);
int s3_parse_number(const char *text, uint64_t max, uint64_t *ret);
/* Copy an ETag without its quotes (and W/). */
void s3_copy_etag(const char *text, char ret[static S3_ETAG_MAX]);
/* Copy text into a fixed field; -ENAMETOOLONG. */
int s3_copy(char *to, size_t room, const char *text);

/* ---- signing, s3-sign.c ---- */

#define S3_AUTHORIZATION_MAX 1024u
#define S3_AMZ_DATE_SIZE     17u /* 20130524T000000Z */

struct s3_signing {
    const char *method;
    const char *path;  /* encoded, as sent */
    const char *query; /* canonical: encoded, names ascending; "" */
    const char *region, *service;
    const char *payload_hash;
    const char *date; /* of s3_sign_date(); also sent as x-amz-date */
    const struct s3_credential *credential;
};
void s3_sign_date(int64_t wall_ms, char ret[static S3_AMZ_DATE_SIZE]);
/* Signs all of `headers` (lower-case names; sorted by this). -EFBIG: does not fit. */
int s3_sign(const struct s3_signing *g, struct http_header *headers, size_t count,
            char ret_authorization[static S3_AUTHORIZATION_MAX]);
struct s3_etag {
    char text[S3_ETAG_MAX];
};
/* The ETag that servers give a multipart object: MD5 of the parts' MD5s. -EINVAL: not all are. */
int s3_multipart_etag(const struct s3_etag *parts, size_t count, char ret[static S3_ETAG_MAX]);

/* ---- XML, s3-xml.c ---- */

#define S3_XML_DEPTH_MAX 8u
#define S3_XML_TEXT_MAX  (16u << 10)

struct s3_xml_event {
    bool close;       /* else: an element opens */
    unsigned depth;   /* the root's is 1 */
    const char *name; /* without a namespace prefix */
    const char *text; /* when it closes: what stood in it, behind the last inner element */
};
typedef int s3_xml_fn(void *ctx, const struct s3_xml_event *e);
/* No DTD, bounded depth and text. -EPROTO, or what `fn` gave. */
int s3_xml_parse(struct bytes body, s3_xml_fn *fn, void *ctx);

/* The same events for the plain XML that servers really send, several times as fast. -ENOTSUP: it
 * is something else, or damaged, so s3_xml_parse() is to be asked; some events may have been given.
 * Else 0, or what `fn` gave. */
int s3_xml_scan(struct bytes body, s3_xml_fn *fn, void *ctx);

struct s3_answer { /* of an error */
    char code[S3_CODE_MAX + 1];
    char request_id[S3_CODE_MAX + 1];
    char region[S3_REGION_MAX + 1];
};
/* Leaves `ret` empty where the body is no S3 error. True: its root is <Error>. */
bool s3_xml_error(struct bytes body, struct s3_answer *ret);
/* Whether the root is this, and the whole of it is well-formed. */
bool s3_xml_is(struct bytes body, const char *root);
/* The text of the first element `name` directly below the root. -EPROTO: not there or too long. */
int s3_xml_find(struct bytes body, const char *root, const char *name, char *ret, size_t room);

/* ---- listings, s3-page.c ---- */

struct s3_page {
    VEC(struct s3_entry) rows; /* ascending keys; these are owned */
    bool truncated;
    char *token;      /* owned: where to go on; NULL: not told. Opaque, or a key marker */
    char *version_id; /* owned: of versions */
};
void s3_page_release(struct s3_page *p);
static inline void auto_s3_page_release(struct s3_page *p)
{
    s3_page_release(p);
}
/* One page of ListObjectsV2, or of ListObjectVersions. -EPROTO with a sentence. */
int s3_page_parse(struct bytes body, bool versions, struct s3_page *ret, struct err *err);

/* ---- what an answer means, s3-error.c ---- */

enum s3_verdict {
    S3_FINAL,     /* it stays like this */
    S3_AGAIN,     /* try again after a while */
    S3_AGAIN_FEW, /* the same, a few times only: it may be a property, not an accident */
    S3_SLOW_DOWN, /* try again later, and all calls together slower */
    S3_CLOCK,     /* sign again by the server's clock */
    S3_REGION,    /* sign again for the region that was told */
    S3_REFRESH,   /* with other credentials */
};

struct s3_call;
/* Judge the answer of c->response and c->answer; `result` is http's. Gives the code for the caller,
 * sets the verdict. */
int s3_judge(struct s3_call *c, int result, enum s3_verdict *ret);
/* The sentence for a call that ended with `code`. */
void s3_describe(struct s3_call *c, int code);

/* ---- calls, s3-call.c ---- */

typedef void s3_call_done_fn(void *ctx, struct s3_call *c, int result);

struct s3_call {
    struct s3 *s3;
    struct s3_call *next; /* in the schedule */
    /* the request: set by the operation */
    const char *method;
    const char *action; /* the permission it needs, "s3:GetObject" */
    char bucket[S3_BUCKET_MAX + 1];
    char *key;        /* owned; NULL: the bucket itself */
    struct buf query; /* canonical */
    struct {
        const char *name;
        char value[S3_ETAG_MAX + 32];
    } header[S3_CALL_HEADERS];
    size_t header_count;
    struct bytes body; /* borrowed */
    char body_hash[DIGEST_HEX_SIZE];
    bool if_absent;
    bool pinned; /* object.etag must be the answer's */
    /* the answer: a range goes to `data`, anything else to `answer_body` */
    bool ranged;
    uint64_t offset;
    uint8_t *data; /* borrowed */
    size_t size;
    size_t body_max;
    size_t got, expected; /* of a range: bytes that came, that must come */
    struct buf answer_body;
    struct s3_object object; /* before: the pin; after: what headers say of it */
    bool drifted;            /* another than the pin */
    uint64_t total;          /* of Content-Range; UINT64_MAX: not told */
    struct s3_answer answer;
    struct http_response response;
    const char *complaint; /* why a 2xx was not believed; static text */
    /* the way */
    int64_t start_ms, due_ms;
    unsigned attempts; /* that were sent */
    unsigned redirects;
    unsigned attempts_max;         /* 0: as many as time and policy allow */
    struct http_gate *gate;        /* borrowed; NULL: none */
    const _Atomic bool *abandoned; /* borrowed; true: no more attempts. NULL: never */
    const char *root;              /* a 2xx is one only with this root in its body; NULL: any */
    bool in_doubt;                 /* an attempt may have taken effect without an answer */
    bool clock_mended, refreshed, no_credentials;
    uint64_t generation; /* of the credentials that signed */
    struct buf url;
    s3_call_done_fn *done;
    void *done_ctx;
    struct err err;
};

int s3_call_new(struct s3 *s, const char *method, const char *action, const char *bucket,
                const char *key, struct s3_call **ret);
void s3_call_free(struct s3_call *c);
AUTO_FREE_FUNC(struct s3_call, s3_call_free);
/* Values are copied; query names must come in ascending order. */
int s3_call_header(struct s3_call *c, const char *name, const char *value);
int s3_call_query(struct s3_call *c, const char *name, const char *value);
void s3_call_body(struct s3_call *c, struct bytes body);
void s3_call_digested(struct s3_call *c, struct bytes body, const struct digest *d);
int s3_call_pin(struct s3_call *c, const struct s3_object *pin);
/* Runs it; `done` is called on another thread, exactly once. */
void s3_call_start(struct s3_call *c, s3_call_done_fn *done, void *ctx);
/* Runs it and waits. The sentence is handed to `err`. */
int s3_call_run(struct s3_call *c, struct err *err);
/* For the schedule: make one attempt now, or end the call. It may be gone on return. */
void s3_call_attempt(struct s3_call *c);
void s3_call_finish(struct s3_call *c, int result);

/* s3-object.c */
int s3_put_call(struct s3 *s, const char *bucket, const char *key, struct bytes body,
                bool if_absent, struct s3_call **ret);

/* ---- schedule and retries, s3-schedule.c ---- */

struct s3_schedule {
    pthread_mutex_t lock;
    pthread_cond_t cond;
    pthread_t thread;
    bool running, stopping, refresh_wanted;
    struct s3_call *waiting; /* by due time */
    unsigned in_flight, limit_max;
    double limit; /* requests at once: halved on SlowDown, grown by successes */
    int64_t last_cut_ms;
    double budget;     /* retries that may be made now */
    int64_t budget_ms; /* when it was last filled */
};
int s3_schedule_init(struct s3 *s, unsigned connections);
void s3_schedule_stop(struct s3 *s); /* ends what waits with -ECANCELED */
void s3_schedule_release(struct s3 *s);
/* Attempt it on this thread if that blocks nobody, else soon on the schedule's own. */
void s3_schedule_start(struct s3_call *c);
/* An attempt has ended: its place is free. */
void s3_schedule_ended(struct s3 *s, enum s3_verdict verdict, bool success);
/* Try again after the delay that is due; false: the call's time would be over. */
bool s3_schedule_again(struct s3_call *c, enum s3_verdict verdict);
/* At once, for another signature. */
void s3_schedule_now(struct s3_call *c);
/* Calls that were abandoned end now, not when they are due. */
void s3_schedule_hurry(struct s3 *s);
/* Credentials are good but old: get new ones, beside the work. */
void s3_schedule_refresh(struct s3 *s);

/* ---- the client, s3.c ---- */

struct s3_known_bucket {
    char name[S3_BUCKET_MAX + 1];
    char region[S3_REGION_MAX + 1];
};

struct s3 {
    struct http *http;
    struct env *env;
    struct s3_credentials *credentials; /* NULL: anonymous */
    char scheme[8];
    char host[S3_HOST_MAX + 1]; /* of the endpoint, with its port; "" : AWS's, by region */
    char path[S3_HOST_MAX + 1]; /* in front of all paths; "" or "/x" */
    char region[S3_REGION_MAX + 1];
    enum s3_addressing addressing;
    int64_t attempt_ms, total_ms;
    struct s3_schedule schedule;
    pthread_mutex_t lock; /* of the table of buckets */
    struct s3_known_bucket buckets[S3_BUCKETS_KNOWN];
    unsigned bucket_count;
    _Atomic int64_t clock_offset_ms;   /* as last seen */
    _Atomic int64_t signing_offset_ms; /* applied, once the server complained */
    _Atomic bool answered;             /* the endpoint has spoken before */
    _Atomic uint64_t requests, retries;
};

void s3_region_of(struct s3 *s, const char *bucket, char ret[static S3_REGION_MAX + 1]);
/* False: that is what is known already, or it is no region. */
bool s3_learn_region(struct s3 *s, const char *bucket, const char *region);
/* Where a bucket's objects are: host and the encoded path up to (not with) the key's '/'. */
int s3_address(struct s3 *s, const char *bucket, char ret_host[static S3_HOST_MAX + 1],
               struct buf *path);

#endif
