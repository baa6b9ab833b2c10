/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What each request does: get, head, put, delete, list (version 2), multipart uploads. Parts of an
 * upload are written where they belong in the end, so that completing it copies nothing; all but
 * the last must have one size, as clients do it.
 */
#include "bucket.h"

#include "base/vec.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define PAGE_MAX 1000u

struct upload {
    uint64_t id;
    int fd;
    char temporary[256];
    uint64_t part_size, last_part, last_size, parts;
};

static VEC(struct upload) uploads;
static uint64_t next_upload = 1;

static struct upload *find_upload(const struct request *q)
{
    char id[32];

    if (!request_query(q, "uploadId", id, sizeof id))
        return NULL;
    for (size_t i = 0; i < uploads.count; i++) {
        if (uploads.at[i].id == strtoull(id, NULL, 10))
            return &uploads.at[i];
    }
    return NULL;
}

static uint64_t part_number(const struct request *q)
{
    char number[16] = "0";

    return request_query(q, "partNumber", number, sizeof number) ? strtoull(number, NULL, 10) : 0;
}

static bool is(const struct request *q, const char *method)
{
    return strcmp(q->method, method) == 0;
}

void target_open(const struct request *q, struct target *ret)
{
    struct upload *u = find_upload(q);
    uint64_t number = part_number(q);

    *ret = (struct target){.fd = -1};
    if (!is(q, "PUT"))
        return;
    if (u && number) {
        if (u->part_size < q->length)
            u->part_size = q->length;
        ret->fd = u->fd;
        ret->offset = (off_t)((number - 1) * u->part_size);
    } else if (!u) {
        ret->fd = object_begin(ret->temporary);
        ret->owned = true;
    }
}

/* ---- shapes of answers ---- */

static void http_date(int64_t at_s, char ret[static 40])
{
    struct tm tm;
    time_t t = (time_t)at_s;

    (void)strftime(ret, 40, "%a, %d %b %Y %H:%M:%S GMT", gmtime_r(&t, &tm));
}

static void begin(struct answer *a, const char *status, uint64_t length)
{
    char now[40];

    buf_clear(&a->head);
    http_date((int64_t)time(NULL), now);
    (void)buf_printf(&a->head, "HTTP/1.1 %s\r\nDate: %s\r\nContent-Length: %" PRIu64 "\r\n", status,
                     now, length); /* short, and bounded */
}

static void empty(struct answer *a, const char *status)
{
    begin(a, status, 0);
    (void)buf_append_str(&a->head, "\r\n");
}

static void fail(struct answer *a, const char *status, const char *code)
{
    char xml[256];
    int length =
        snprintf(xml, sizeof xml, "<?xml version=\"1.0\"?><Error><Code>%s</Code></Error>", code);

    begin(a, status, (uint64_t)length);
    (void)buf_printf(&a->head, "Content-Type: application/xml\r\n\r\n%s", xml);
}

static void with_xml(struct answer *a, const struct buf *xml)
{
    begin(a, "200 OK", xml->size);
    (void)buf_append_str(&a->head, "Content-Type: application/xml\r\n\r\n");
    if (buf_append(&a->head, xml->data, xml->size) < 0)
        fail(a, "500 Internal Server Error", "InternalError");
}

/* ---- objects ---- */

static void get(const struct request *q, struct answer *a)
{
    const struct object *o = object_get(q->path + 1);
    char etag[40], date[40];

    if (!o) {
        fail(a, "404 Not Found", "NoSuchKey");
        return;
    }
    object_etag(o, etag);
    if (q->if_match[0] && !strstr(q->if_match, etag)) {
        fail(a, "412 Precondition Failed", "PreconditionFailed");
        return;
    }
    if (q->ranged && q->from >= o->size) {
        fail(a, "416 Range Not Satisfiable", "InvalidRange");
        return;
    }
    uint64_t end = q->ranged && q->to < o->size ? q->to + 1 : o->size;
    a->from = q->ranged ? q->from : 0;
    a->size = end - a->from;
    begin(a, q->ranged ? "206 Partial Content" : "200 OK", a->size);
    http_date(o->mtime_s, date);
    (void)buf_printf(&a->head, "ETag: \"%s\"\r\nLast-Modified: %s\r\nAccept-Ranges: bytes\r\n",
                     etag, date);
    if (q->ranged)
        (void)buf_printf(&a->head, "Content-Range: bytes %" PRIu64 "-%" PRIu64 "/%" PRIu64 "\r\n",
                         a->from, end - 1, o->size);
    (void)buf_append_str(&a->head, "\r\n");
    if (is(q, "HEAD"))
        a->size = 0;
    else if (a->size)
        a->fd = object_open(o);
}

static void put(const struct request *q, const struct target *body, struct answer *a)
{
    char etag[40];

    if (q->if_absent && object_get(q->path + 1)) {
        fail(a, "412 Precondition Failed", "PreconditionFailed");
        return;
    }
    if (object_finish(body->temporary, q->path + 1, q->length) < 0) {
        fail(a, "500 Internal Server Error", "InternalError");
        return;
    }
    object_etag(object_get(q->path + 1), etag);
    begin(a, "200 OK", 0);
    (void)buf_printf(&a->head, "ETag: \"%s\"\r\n\r\n", etag);
}

/* ---- uploads in parts ---- */

static void begin_upload(const struct request *q, struct answer *a)
{
    AUTO(buf_release) struct buf xml = BUF_INIT(4096);
    struct upload u = {.id = next_upload++};

    u.fd = object_begin(u.temporary);
    if (u.fd < 0 || vec_push(&uploads, u) < 0) {
        fail(a, "500 Internal Server Error", "InternalError");
        return;
    }
    (void)buf_printf(&xml,
                     "<?xml version=\"1.0\"?><InitiateMultipartUploadResult><UploadId>%" PRIu64
                     "</UploadId></InitiateMultipartUploadResult>",
                     u.id);
    with_xml(a, &xml);
}

static void put_part(const struct request *q, struct upload *u, struct answer *a)
{
    uint64_t number = part_number(q);

    if (number > u->last_part) {
        u->last_part = number;
        u->last_size = q->length;
    }
    u->parts++;
    begin(a, "200 OK", 0);
    (void)buf_printf(&a->head, "ETag: \"%032" PRIx64 "\"\r\n\r\n", number);
}

static void end_upload(const struct request *q, struct upload *u, struct answer *a)
{
    AUTO(buf_release) struct buf xml = BUF_INIT(4096);
    struct upload done = *u;
    uint64_t size = (done.last_part - 1) * done.part_size + done.last_size;

    *u = uploads.at[--uploads.count];
    (void)close(done.fd); /* a file of ours; a failed write was told before */
    if (q->if_absent && object_get(q->path + 1)) {
        fail(a, "412 Precondition Failed", "PreconditionFailed");
        return;
    }
    if (done.parts != done.last_part || object_finish(done.temporary, q->path + 1, size) < 0) {
        fail(a, "500 Internal Server Error", "InternalError");
        return;
    }
    (void)buf_append_str(&xml, "<?xml version=\"1.0\"?><CompleteMultipartUploadResult>"
                               "<ETag>\"done-1\"</ETag></CompleteMultipartUploadResult>");
    with_xml(a, &xml);
}

/* ---- listings ---- */

static void add_encoded(struct buf *xml, const char *text, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        unsigned char c = (unsigned char)text[i];
        if ((c >= '0' && c <= '9') || ((c | 32) >= 'a' && (c | 32) <= 'z') || strchr("-_.~/", c))
            (void)buf_append(xml, &c, 1);
        else
            (void)buf_printf(xml, "%%%02X", c);
    }
}

struct page {
    char bucket[BUCKET_QUERY_MAX], prefix[BUCKET_QUERY_MAX], after[BUCKET_QUERY_MAX];
    char delimiter[8];
    size_t max;
};

static void add_object(struct buf *xml, const struct object *o, size_t bucket)
{
    char etag[40], date[40];
    struct tm tm;
    time_t t = (time_t)o->mtime_s;

    object_etag(o, etag);
    (void)strftime(date, sizeof date, "%Y-%m-%dT%H:%M:%S.000Z", gmtime_r(&t, &tm));
    (void)buf_append_str(xml, "<Contents><Key>");
    add_encoded(xml, o->key + bucket, strlen(o->key + bucket));
    (void)buf_printf(
        xml,
        "</Key><LastModified>%s</LastModified><ETag>&quot;%s&quot;</ETag><Size>%" PRIu64
        "</Size><StorageClass>STANDARD</StorageClass></Contents>",
        date, etag, o->size);
}

/* Rows of one page behind p->after; where the next one begins goes to `next`. */
static size_t add_rows(struct buf *xml, const struct page *p, char next[static BUCKET_QUERY_MAX])
{
    char key[2 * BUCKET_QUERY_MAX];
    size_t bucket = strlen(p->bucket) + 1, whole = bucket + strlen(p->prefix), count = 0;

    next[0] = '\0';
    (void)snprintf(key, sizeof key, "%s/%s", p->bucket,
                   strcmp(p->after, p->prefix) > 0 ? p->after : p->prefix);
    size_t i = object_find(key);
    char last[2 * BUCKET_QUERY_MAX];
    (void)snprintf(last, sizeof last, "%s/%s", p->bucket, p->prefix);
    for (; i < object_count(); i++) {
        const struct object *o = object_at(i);
        if (strncmp(o->key, last, whole) != 0)
            break;
        if (p->after[0] && strcmp(o->key + bucket, p->after) <= 0)
            continue;
        const char *cut = p->delimiter[0] ? strchr(o->key + whole, p->delimiter[0]) : NULL;
        size_t length = cut ? (size_t)(cut - o->key) + 1 : 0;
        if (cut && p->after[0] && strncmp(o->key + bucket, p->after, length - bucket) == 0 &&
            strlen(p->after) >= length - bucket)
            continue; /* told before */
        if (count == p->max)
            return count;
        count++;
        if (!cut) {
            add_object(xml, o, bucket);
            (void)snprintf(next, BUCKET_QUERY_MAX, "%s", o->key + bucket);
            continue;
        }
        (void)buf_append_str(xml, "<CommonPrefixes><Prefix>");
        add_encoded(xml, o->key + bucket, length - bucket);
        (void)buf_append_str(xml, "</Prefix></CommonPrefixes>");
        (void)snprintf(next, BUCKET_QUERY_MAX, "%.*s\xff", (int)(length - bucket), o->key + bucket);
        (void)snprintf(key, sizeof key, "%s/%s", p->bucket, next);
        i = object_find(key) - 1; /* behind all that begin so */
    }
    next[0] = '\0';
    return count;
}

static void list(const struct request *q, struct answer *a)
{
    AUTO(buf_release) struct buf xml = BUF_INIT(BUCKET_XML_MAX), rows = BUF_INIT(BUCKET_XML_MAX);
    struct page p = {.max = PAGE_MAX};
    char next[BUCKET_QUERY_MAX], max[16];

    (void)snprintf(p.bucket, sizeof p.bucket, "%s", q->path + 1);
    p.bucket[strcspn(p.bucket, "/")] = '\0';
    (void)request_query(q, "prefix", p.prefix, sizeof p.prefix); /* each of these may lack */
    (void)request_query(q, "delimiter", p.delimiter, sizeof p.delimiter);
    if (request_query(q, "continuation-token", p.after, sizeof p.after))
        (void)request_decode(p.after); /* clients give it back as they got it, encoded */
    else
        (void)request_query(q, "start-after", p.after, sizeof p.after);
    if (request_query(q, "max-keys", max, sizeof max) && strtoull(max, NULL, 10) < PAGE_MAX)
        p.max = (size_t)strtoull(max, NULL, 10);
    size_t count = add_rows(&rows, &p, next);
    (void)buf_printf(
        &xml,
        "<?xml version=\"1.0\"?><ListBucketResult><Name>%s</Name><EncodingType>url</EncodingType>"
        "<KeyCount>%zu</KeyCount><MaxKeys>%zu</MaxKeys><IsTruncated>%s</IsTruncated>",
        p.bucket, count, p.max, next[0] ? "true" : "false");
    if (next[0]) {
        (void)buf_append_str(&xml, "<NextContinuationToken>");
        add_encoded(&xml, next, strlen(next));
        (void)buf_append_str(&xml, "</NextContinuationToken>");
    }
    (void)buf_append(&xml, rows.data, rows.size);
    if (buf_append_str(&xml, "</ListBucketResult>") < 0)
        fail(a, "500 Internal Server Error", "InternalError");
    else
        with_xml(a, &xml);
}

/* No object has versions. */
static void say_versioning(struct answer *a)
{
    AUTO(buf_release) struct buf xml = BUF_INIT(256);

    (void)buf_append_str(&xml, "<?xml version=\"1.0\"?><VersioningConfiguration/>"); /* it fits */
    with_xml(a, &xml);
}

void answer_make(const struct request *q, const struct target *body, struct answer *ret)
{
    struct upload *u = find_upload(q);
    const char *slash = strchr(q->path + 1, '/');
    char none[2];

    ret->fd = -1;
    ret->from = ret->size = 0;
    if (!slash || !slash[1]) {
        if (is(q, "GET") && request_query(q, "versioning", none, sizeof none))
            say_versioning(ret);
        else if (is(q, "GET"))
            list(q, ret);
        else
            empty(ret, "200 OK");
    } else if (is(q, "GET") || is(q, "HEAD")) {
        get(q, ret);
    } else if (is(q, "POST") && request_query(q, "uploads", none, sizeof none)) {
        begin_upload(q, ret);
    } else if (is(q, "PUT") && u) {
        put_part(q, u, ret);
    } else if (is(q, "POST") && u) {
        end_upload(q, u, ret);
    } else if (is(q, "PUT")) {
        put(q, body, ret);
    } else if (is(q, "DELETE")) {
        if (!u && object_remove(q->path + 1) < 0)
            fail(ret, "500 Internal Server Error", "InternalError");
        else
            empty(ret, "204 No Content");
    } else {
        fail(ret, "501 Not Implemented", "NotImplemented");
    }
}
