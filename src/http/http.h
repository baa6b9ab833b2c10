/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bytes over HTTP: requests with bounds and deadlines, over libcurl. One attempt per call.
 *
 * One loop thread owns all sockets (curl multi): connections stay warm and are shared by all
 * callers. http_perform() waits; http_submit() comes back at once and calls `done` on the loop
 * thread.
 *
 * Nothing is trusted of a peer: a body longer than the sink allows, a length that does not match
 * what came, a header flood, a trickle slower than the low-speed limit end the request. Redirects
 * are never followed by themselves; `location` is given, and the caller decides (and strips
 * credentials). Certificates are verified; HTTPS and, only where the URL says so, HTTP.
 *
 * A body is never sent twice behind the caller's back, as HTTP clients like to do on a dead warm
 * connection. HTTP/1.1 only, nothing is decoded. Not usable in a child after fork().
 *
 * Threads: any number may submit. Callbacks of one request run on the loop thread, one at a time,
 * and must not block. Does not: retry, sign, know what S3 is.
 */
#ifndef HTTP_HTTP_H
#define HTTP_HTTP_H

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/err.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define HTTP_URL_MAX     8192u
#define HTTP_HEADERS_MAX 64u
#define HTTP_HEAD_MAX    (256u << 10) /* bytes of all response headers */

struct http_options {
    const char *ca_file; /* NULL: the system's */
    const char *user_agent;
    unsigned connections;       /* open at once, in all; 0: 64 */
    unsigned per_host;          /* 0: the same */
    int64_t connect_timeout_ms; /* 0: 10 s */
    uint64_t low_speed_bytes;   /* a transfer slower than this many bytes a second ... */
    int64_t low_speed_ms;       /* ... for this long is ended with -ETIMEDOUT; 0: 1 KB/s, 20 s */
};

struct http;
int http_new(const struct http_options *o, struct http **ret, struct err *err);
/* Waits for nobody: requests still running end with -ECANCELED. */
void http_free(struct http *h);
AUTO_FREE_FUNC(struct http, http_free);

struct http_header {
    const char *name; /* any case */
    const char *value;
};

/* Takes a piece of the body; borrowed until return. Nonzero: ends the request with that code. */
typedef int http_sink_fn(void *ctx, const void *data, size_t size);
/* The status line and headers are complete (before the first piece). Nonzero ends the request. */
struct http_response;
typedef int http_head_fn(void *ctx, const struct http_response *head);

/* Holds back the last byte of several bodies, so that their requests overlap for certain. */
struct http_gate {
    _Atomic unsigned arrived; /* requests that have sent all but it */
    _Atomic bool open;
};

/* A sink that cannot take a piece now gives HTTP_HOLD: nothing more is read of that answer until
 * http_flow_open(), and then the same piece comes again. Time held does not count as slow, but for
 * the deadline. */
#define HTTP_HOLD 1
struct http_flow {
    _Atomic bool open; /* there is room again */
};
/* A deadline for answers that take as long as they take (24 days). */
#define HTTP_NO_DEADLINE INT32_MAX

struct http_request {
    const char *method;                /* "GET", "PUT", "HEAD", "POST", "DELETE" */
    const char *url;                   /* percent-encoded; borrowed until done */
    const struct http_header *headers; /* copied */
    size_t header_count;
    struct bytes body;  /* sent with its length; borrowed until done */
    http_head_fn *head; /* may be NULL */
    http_sink_fn *sink; /* NULL: the body is kept in response.body, up to body_max */
    void *ctx;
    size_t body_max;        /* bytes of body accepted in all; more: -EFBIG */
    int64_t deadline_ms;    /* from when it gets a connection to its end; 0: 60 s */
    bool fresh;             /* a new connection and a fresh name look-up (after a failure) */
    bool no_proxy;          /* link-local metadata services */
    bool encoded_ok;        /* a Content-Encoding belongs to the resource (objects have one as a
                               label) and the bytes are wanted as they are; else -EPROTO */
    struct http_gate *gate; /* NULL: none; else borrowed until done, and the body is not empty */
    struct http_flow *flow; /* NULL: the sink never holds; else borrowed until done */
};

struct http_response {
    int status;              /* of the final answer; 0: none came */
    uint64_t content_length; /* as announced; UINT64_MAX: not */
    struct buf head;         /* "name: value\n" lines, names in lower case */
    struct buf body;         /* if no sink was given */
    char location[HTTP_URL_MAX];
    char error[256]; /* what curl said, without secrets */
    int64_t first_byte_ms, total_ms;
};
void http_response_release(struct http_response *r);
/* The value of a header (name in lower case), copied into `value`; false if it is not there. */
bool http_response_header(const struct http_response *r, const char *name, char *value,
                          size_t size);

/* 0: an answer came, whatever its status, and its body was whole. Else -ETIMEDOUT, -ECONNREFUSED,
 * -ECONNRESET, -EHOSTUNREACH (name look-up), -EKEYREJECTED (TLS), -EPROTO (bad framing, short
 * body), -EFBIG, -ECANCELED, or what a callback gave. */
/* `ret` is always set; the caller releases it, whatever the result. */
int http_perform(struct http *h, const struct http_request *q, struct http_response *ret);

typedef void http_done_fn(void *ctx, int result, struct http_response *response);
/* `response` is owned by the caller, must live until done(), and is released by the caller. */
int http_submit(struct http *h, const struct http_request *q, struct http_response *response,
                http_done_fn *done, void *done_ctx);

/* What waits at the gate goes on. */
void http_gate_open(struct http *h, struct http_gate *gate);

/* A sink that held gets its piece again. */
void http_flow_open(struct http *h, struct http_flow *flow);

struct http_counts {
    uint64_t requests, connections, bytes_in, bytes_out;
};
void http_counts(struct http *h, struct http_counts *ret);

#endif
