/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bucket: a bucket server for benchmarks, that costs little CPU: what is measured against it is the
 * client. It serves files of a directory as an S3 bucket serves objects, and takes new ones; each
 * answer may be held back for some time, and each connection slowed down, as a network does.
 *
 * It is no network: it has no slow start, loses nothing, and its delay is that of a request, not of
 * a packet. It checks no signature and trusts its clients: for this machine only.
 *
 * One thread. Objects are files below the root, found through a table of keys that is read once.
 */
#ifndef BUCKET_BUCKET_H
#define BUCKET_BUCKET_H

#include "base/buf.h"
#include "base/cleanup.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define BUCKET_HEAD_MAX  (16u << 10) /* bytes of a request's head */
#define BUCKET_XML_MAX   (8u << 20)
#define BUCKET_QUERY_MAX 2048u

/* ---- requests: bucket-request.c ---- */

struct request {
    char method[8];
    char path[BUCKET_QUERY_MAX];  /* decoded, with its '/' */
    char query[BUCKET_QUERY_MAX]; /* as it came */
    uint64_t length;              /* of the body */
    bool ranged, expects, if_absent;
    uint64_t from, to; /* of the range, `to` included; UINT64_MAX: the end */
    char if_match[64];
};

/* 0; -EPROTO: no request that is understood. `head` is changed. */
int request_parse(char *head, struct request *ret);
/* The decoded value of a parameter; false: there is none. */
bool request_query(const struct request *q, const char *name, char *ret, size_t size);
/* In place; false: it holds a NUL. */
bool request_decode(char *text);

/* ---- objects: bucket-objects.c ---- */

struct object {
    char *key; /* owned: "bucket/key" */
    uint64_t size;
    int64_t mtime_s;
};

/* Everything below `root`, sorted. */
int objects_load(const char *root);
size_t object_count(void);
/* Position of the first key that is not less than `key`. */
size_t object_find(const char *key);
const struct object *object_at(size_t i);
const struct object *object_get(const char *key); /* NULL: there is none */
void object_etag(const struct object *o, char ret[static 40]);
int object_open(const struct object *o);
/* A temporary file for a body, and what becomes of it. Each gives a descriptor or -errno. */
int object_begin(char ret_path[static 256]);
int object_finish(const char *temporary, const char *key, uint64_t size);
int object_remove(const char *key);

/* ---- answers: bucket-answer.c ---- */

/* Where the body of a request goes as it comes. */
struct target {
    int fd; /* -1: nowhere */
    off_t offset;
    bool owned;          /* the descriptor is a temporary file's, to be closed */
    char temporary[256]; /* its name; "": none */
};

struct answer {
    struct buf head;     /* with a short body behind it */
    int fd;              /* file with the body, -1: none */
    uint64_t from, size; /* of it */
};

void target_open(const struct request *q, struct target *ret);
/* The whole body has come. The descriptor of the target is closed by now, if it was owned. */
void answer_make(const struct request *q, const struct target *body, struct answer *ret);

#endif
