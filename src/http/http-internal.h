/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Shared inside http/: the loop's state and one request on its way through it.
 *
 * A call is made by the submitter (http-call.c), waits in `waiting`, is handed to curl by the loop
 * thread, runs in `running`, and ends in http_call_finish(). Only `waiting`, `spare` and `stopping`
 * are shared between threads, under `lock`; the rest belongs to the loop.
 */
#ifndef HTTP_HTTP_INTERNAL_H
#define HTTP_HTTP_INTERNAL_H

#include "http/http.h"

#include "base/vec.h"

#include <curl/curl.h>
#include <pthread.h>
#include <stdatomic.h>

struct http_call {
    struct http_call *next, *previous;
    struct http *http;
    CURL *easy;                 /* owned */
    struct curl_slist *headers; /* owned; may hold secrets, never printed */
    struct http_request q;      /* the submitter's; q.headers is not used after the start */
    struct http_response *response;
    http_done_fn *done;
    void *done_ctx;
    int fd;         /* of its connection; -1: not known */
    size_t sent;    /* bytes of q.body that curl took */
    uint64_t got;   /* bytes of body that came */
    bool held;      /* at the gate */
    bool paused;    /* by its sink */
    bool head_done; /* the final answer's headers are complete */
    int code;       /* why we ended it ourselves; 0: we did not */
    char curl_error[CURL_ERROR_SIZE];
};

/* An open connection's. */
struct http_socket {
    int fd;
    int port; /* the local one; 0: not known yet */
};

struct http_call_list {
    struct http_call *first, *last;
};

struct http {
    CURLM *multi; /* owned by the loop thread once it runs */
    pthread_t thread;
    char *ca_file, *user_agent; /* owned; the first may be NULL */
    unsigned connections;
    int64_t connect_timeout_ms, low_speed_ms;
    uint64_t low_speed_bytes;

    pthread_mutex_t lock;
    struct http_call_list waiting;
    CURL **spare; /* handles kept for the next call */
    unsigned spare_count;
    bool stopping;

    VEC(struct http_socket) sockets; /* of the loop, as `running` is */
    struct http_call_list running;
    unsigned running_count, held_count; /* held: at gates, or by sinks */

    _Atomic uint64_t requests, opened, bytes_in, bytes_out;
};

/* http-call.c. The call owns what it was given until http_call_free(). */
int http_call_new(struct http *h, const struct http_request *q, struct http_response *response,
                  struct http_call **ret);
/* Fill in the response and give the result for its caller. */
int http_call_result(struct http_call *c, CURLcode curl_code);
void http_call_free(struct http_call *c);

/* http.c */
CURL *http_take_easy(struct http *h); /* NULL: no memory */
void http_give_easy(struct http *h, CURL *easy);

/* http-socket.c. False: no memory. */
bool http_socket_watch(struct http_call *c);
void http_socket_acknowledge(const struct http_call *c);

/* http-response.c: one header line as curl gives it. Nonzero ends the request. */
int http_response_line(struct http_response *r, const char *line, size_t size);
void http_response_init(struct http_response *r, size_t body_max);
/* After the last line: what the numbers in the headers say. */
int http_response_settle(struct http_response *r);

#endif
