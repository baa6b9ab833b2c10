/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of the download share. Inside archive/ only.
 */
#ifndef ARCHIVE_ARCHIVE_DOWNLOAD_INTERNAL_H
#define ARCHIVE_ARCHIVE_DOWNLOAD_INTERNAL_H

#include "archive/archive-download.h"
#include "archive/archive-url.h"

#include "http/http.h"

#include <pthread.h>
#include <stdatomic.h>

#define CHUNK_SIZE  ((size_t)8 << 20)
#define CHUNK_COUNT 6u /* 48 MiB: some seconds of a fast line, a second of a slow disk's pause */

enum chunk_state {
    CHUNK_IDLE,
    CHUNK_RUNNING, /* a request fills it */
    CHUNK_AGAIN,   /* its request failed, and is repeated at again_ms */
    CHUNK_FULL,
    CHUNK_FAILED,
};

/* What an answer turned out to be, decided where its headers come. */
enum verdict {
    VERDICT_NONE,
    VERDICT_BODY,     /* the bytes that were asked for */
    VERDICT_REDIRECT, /* to response.location */
    VERDICT_STATUS,   /* any other status */
    VERDICT_CHANGED,  /* of another resource than the first */
    VERDICT_NO_RANGE, /* the whole, where a part was wanted */
};

/* One request, and its room. */
struct chunk {
    struct download *d;
    uint8_t *data;   /* owned in the window */
    uint64_t offset; /* in the resource */
    size_t size;     /* wanted */
    size_t got;      /* under lock; these bytes are valid */
    enum chunk_state state;
    enum verdict verdict;
    bool plain; /* no range is asked for, or was given: its bytes go into the window */
    unsigned tries;
    int64_t begun_ms, again_ms;
    int code; /* of the last request */
    int status;
    int64_t retry_after_ms;
    char error[256];
    struct http_response response;
};

struct download {
    struct http *http;
    struct url url; /* where the bytes are, behind all redirects */
    uint8_t probe;  /* the first byte, which the first request asks for */
    char *shown;    /* owned */
    char etag[512]; /* a strong one; empty: none */
    char modified[128];
    char type[128];
    uint64_t size;
    bool ranged;
    bool pinned; /* etag, modified, size and type are known */
    int64_t patience_ms;
    const volatile sig_atomic_t *interrupted;

    pthread_mutex_t lock;
    pthread_cond_t moved; /* something in the window has changed */
    bool stop;            /* under lock */
    int64_t moved_ms;     /* under lock; when bytes came last */
    struct chunk single;  /* the first request, the plain answer, download_range() */
    struct chunk chunks[CHUNK_COUNT];
    size_t head, count; /* under lock; the window's */
    size_t given;       /* of the head chunk, to the consumer */
    uint64_t next;      /* offset of what is behind the window */
    bool ended;         /* under lock; the plain answer is complete */
    struct http_flow flow;
    _Atomic uint64_t taken;
};

/* ---- archive-request.c: one request ------------------------------------------------------------
 *
 * All with the lock held. */

/* Ask for the bytes of `c` that are missing. */
void chunk_start(struct chunk *c);
/* A request has ended for good, in `c`: its code and one sentence. */
int chunk_error(const struct chunk *c, struct err *err);
/* May the request of `c`, which failed, be repeated? Then it is marked so. */
bool chunk_again(struct chunk *c);
/* Wait until something moves, or `until_ms`. -ECANCELED when it is to stop. */
int download_wait(struct download *d, int64_t until_ms);
int64_t download_now(void);
/* Bytes came, from one count to another: the consumer is woken, but not for each piece. */
void download_wake(struct download *d, uint64_t before, uint64_t now);

/* archive-download.c: takes a piece of the plain answer. 0, HTTP_HOLD, or an error. */
int download_plain_piece(struct download *d, const void *data, size_t size);
void download_plain_end(struct download *d);

#endif
