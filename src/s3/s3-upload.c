/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Large objects, written in order as they are made: multipart uploads with several parts under way
 * and as many buffers as that needs, one more for the writer.
 *
 * What fits one part becomes one put, without an upload. Parts are hashed on the writer's thread
 * (a part's SHA-256 goes with it, signed, and the server compares), two at a time, which costs
 * little more than one; so a full part waits for the next. They are sent from their buffers. Errors
 * are sticky. If completing ends in doubt, the object that is there is compared by its ETag.
 */
#include "s3/s3-internal.h"

#include <stdio.h>

#define PARTS_MAX     10000u
#define UPLOAD_ID_MAX 2047u

struct part_buffer {
    struct part_buffer *next;
    struct s3_upload *upload;
    unsigned number; /* of the part it holds */
    size_t size;
    uint8_t *data; /* owned, part_size bytes */
};

struct s3_upload {
    struct s3 *s3;
    char bucket[S3_BUCKET_MAX + 1];
    char key[S3_KEY_MAX + 1];
    char id[UPLOAD_ID_MAX + 1]; /* "": no multipart upload was begun */
    size_t part_size;
    unsigned parallel;
    struct part_buffer *current; /* the writer's; NULL: none yet */
    struct part_buffer *held;    /* full, and waits for another; NULL: none */

    pthread_mutex_t lock;
    pthread_cond_t cond;
    struct part_buffer *spare;
    unsigned buffers, under_way;
    VEC(struct s3_etag) etags; /* by part number - 1 */
    int result;                /* the first failure; sticky */
    struct err err;
    _Atomic bool abandoned; /* no more retries of parts */
};

int s3_upload_new(struct s3 *s, const char *bucket, const char *key, size_t part_size,
                  unsigned parallel, struct s3_upload **ret, struct err *err)
{
    struct s3_upload *u = calloc(1, sizeof *u);

    if (!u)
        return err_fail(err, -ENOMEM, "out of memory");
    u->s3 = s;
    u->part_size = part_size < S3_PART_MIN ? S3_PART_MIN : part_size;
    u->parallel = parallel ? parallel : 1;
    if (s3_copy(u->bucket, sizeof u->bucket, bucket) < 0 ||
        s3_copy(u->key, sizeof u->key, key) < 0 || !key[0]) {
        free(u);
        return err_fail(err, -EINVAL, "cannot write s3://%s/%.100s: S3 allows no such name", bucket,
                        key);
    }
    (void)pthread_mutex_init(&u->lock, NULL);
    (void)pthread_cond_init(&u->cond, NULL);
    *ret = u;
    return 0;
}

static void buffer_free(struct part_buffer *b)
{
    if (b)
        free(b->data);
    free(b);
}

/* Nothing is under way any more. */
static void upload_free(struct s3_upload *u)
{
    struct part_buffer *b;

    while ((b = u->spare)) {
        u->spare = b->next;
        buffer_free(b);
    }
    buffer_free(u->current);
    buffer_free(u->held);
    vec_release(&u->etags);
    pthread_cond_destroy(&u->cond);
    pthread_mutex_destroy(&u->lock);
    free(u);
}

static int sticky(struct s3_upload *u, struct err *err)
{
    return u->result < 0 ? err_fail(err, u->result, "%s", u->err.text) : 0;
}

static int remember(struct s3_upload *u, int result, const char *sentence)
{
    WITH_LOCK(&u->lock);
    if (u->result == 0) {
        u->result = result;
        (void)err_fail(&u->err, result, "%s", sentence);
    }
    return result;
}

/* A spare buffer, or a new one, or wait until a part has gone. NULL: no memory. */
static struct part_buffer *take_buffer(struct s3_upload *u)
{
    WITH_LOCK(&u->lock);
    while (!u->spare && u->buffers > u->parallel)
        pthread_cond_wait(&u->cond, &u->lock);
    struct part_buffer *b = u->spare;
    if (b) {
        u->spare = b->next;
        b->size = 0;
        return b;
    }
    b = calloc(1, sizeof *b);
    if (b)
        b->data = malloc(u->part_size);
    if (!b || !b->data) {
        free(b);
        return NULL;
    }
    b->upload = u;
    u->buffers++;
    return b;
}

static void give_buffer(struct s3_upload *u, struct part_buffer *b)
{
    b->next = u->spare;
    u->spare = b;
}

static void on_part(void *ctx, struct s3_call *c, int result)
{
    struct part_buffer *b = ctx;
    struct s3_upload *u = b->upload;

    WITH_LOCK(&u->lock);
    if (result == 0 && !c->object.etag[0]) {
        result = -EPROTO;
        (void)err_fail(&c->err, result, "s3://%s/%s: the server gave no ETag for a part", u->bucket,
                       u->key);
    }
    if (result == 0) {
        memcpy(u->etags.at[b->number - 1].text, c->object.etag, S3_ETAG_MAX);
    } else if (u->result == 0) {
        /* The upload is gone, not the key's object: whoever asked for neither. */
        u->result = result == -ENOENT ? -EIO : result;
        u->err = c->err;
    }
    s3_call_free(c);
    give_buffer(u, b);
    u->under_way--;
    pthread_cond_broadcast(&u->cond);
}

static int create(struct s3_upload *u)
{
    AUTO(s3_call_free) struct s3_call *c = NULL;
    struct err err = ERR_INIT;

    int r = s3_call_new(u->s3, "POST", "s3:PutObject", u->bucket, u->key, &c);
    if (r == 0)
        r = s3_call_query(c, "uploads", "");
    if (r == 0)
        r = s3_call_run(c, &err);
    if (r == 0) {
        r = s3_xml_find(buf_bytes(&c->answer_body), "InitiateMultipartUploadResult", "UploadId",
                        u->id, sizeof u->id);
        if (r < 0 || !u->id[0])
            r = err_fail(&err, -EPROTO, "s3://%s/%s: the server's answer names no upload",
                         u->bucket, u->key);
    }
    return r < 0 ? remember(u, r, err_text(&err, r)) : 0;
}

static int part_call(struct s3_upload *u, struct part_buffer *b, const struct digest *digest,
                     struct s3_call **ret)
{
    AUTO(s3_call_free) struct s3_call *c = NULL;
    char number[16];

    (void)snprintf(number, sizeof number, "%u", b->number);
    int r = s3_call_new(u->s3, "PUT", "s3:PutObject", u->bucket, u->key, &c);
    if (r == 0)
        r = s3_call_query(c, "partNumber", number);
    if (r == 0)
        r = s3_call_query(c, "uploadId", u->id);
    if (r < 0)
        return r;
    s3_call_digested(c, bytes_of(b->data, b->size), digest);
    c->abandoned = &u->abandoned;
    *ret = take_ptr(&c);
    return 0;
}

/* Send a buffer as the next part; it is the request's from then on, or is freed. */
static int send_part(struct s3_upload *u, struct part_buffer *b, const struct digest *digest)
{
    struct s3_call *c = NULL;
    int r = u->id[0] ? 0 : create(u);

    if (r == 0) {
        WITH_LOCK(&u->lock);
        r = u->etags.count >= PARTS_MAX ? -EFBIG
                                        : vec_push(&u->etags, (struct s3_etag){.text = ""});
        b->number = (unsigned)u->etags.count;
    }
    if (r == 0)
        r = part_call(u, b, digest, &c);
    if (r < 0) {
        buffer_free(b);
        return remember(u, r, r == -EFBIG ? "the object has too many parts" : strerror(-r));
    }
    {
        WITH_LOCK(&u->lock);
        u->under_way++;
    }
    s3_call_start(c, on_part, b);
    return 0;
}

/* The current buffer is full: hold it, or send it with the one that was held. */
static int end_part(struct s3_upload *u)
{
    struct digest digests[2];

    if (!u->held) {
        u->held = take_ptr(&u->current);
        return 0;
    }
    digest_of_two(u->held->data, u->current->data, u->part_size, digests);
    int r = send_part(u, take_ptr(&u->held), &digests[0]);
    return r < 0 ? r : send_part(u, take_ptr(&u->current), &digests[1]);
}

/* What is left. */
static int end_parts(struct s3_upload *u)
{
    int r = 0;

    if (u->held && u->current && u->current->size == u->part_size)
        return end_part(u);
    for (struct part_buffer *b;
         r == 0 && (b = u->held ? take_ptr(&u->held) : take_ptr(&u->current));) {
        struct digest d = digest_of(b->data, b->size);
        r = send_part(u, b, &d);
    }
    return r;
}

int s3_upload_write(struct s3_upload *u, const void *data, size_t size, struct err *err)
{
    const uint8_t *from = data;

    while (size > 0) {
        {
            WITH_LOCK(&u->lock);
            if (u->result < 0)
                return sticky(u, err);
        }
        if (u->current && u->current->size == u->part_size && end_part(u) < 0)
            return sticky(u, err);
        if (!u->current)
            u->current = take_buffer(u);
        if (!u->current) {
            (void)remember(u, -ENOMEM, "out of memory");
            return sticky(u, err);
        }
        size_t room = u->part_size - u->current->size, n = size < room ? size : room;
        memcpy(u->current->data + u->current->size, from, n);
        u->current->size += n;
        from += n;
        size -= n;
    }
    return 0;
}

static void wait_for_parts(struct s3_upload *u)
{
    WITH_LOCK(&u->lock);
    while (u->under_way > 0)
        pthread_cond_wait(&u->cond, &u->lock);
}

/* Completing ended in doubt, or the upload is gone: is what stands under the key ours? */
static int settle(struct s3_upload *u, int result, struct err *reason)
{
    char expected[S3_ETAG_MAX];
    struct s3_object there;

    int r = s3_head(u->s3, u->bucket, u->key, &there, NULL);
    if (r == 0 && s3_multipart_etag(u->etags.at, u->etags.count, expected) == 0 &&
        strcmp(there.etag, expected) == 0)
        return 0;
    if (r == 0) {
        err_clear(reason);
        return err_fail(reason, -EEXIST, "cannot write s3://%s/%s: it exists already", u->bucket,
                        u->key);
    }
    return result == -ENOENT ? -EIO : result;
}

static int complete(struct s3_upload *u, bool if_absent, struct err *reason)
{
    AUTO(s3_call_free) struct s3_call *c = NULL;
    AUTO(buf_release) struct buf body = BUF_INIT(PARTS_MAX * (S3_ETAG_MAX + 80u));

    int r = buf_append_str(&body, "<CompleteMultipartUpload>");
    for (size_t i = 0; i < u->etags.count && r == 0; i++)
        r = buf_printf(&body,
                       "<Part><PartNumber>%zu</PartNumber><ETag>&quot;%s&quot;</ETag></Part>",
                       i + 1, u->etags.at[i].text);
    if (r == 0)
        r = buf_append_str(&body, "</CompleteMultipartUpload>");
    if (r == 0)
        r = s3_call_new(u->s3, "POST", "s3:PutObject", u->bucket, u->key, &c);
    if (r == 0 && if_absent)
        r = s3_call_header(c, "if-none-match", "*");
    if (r == 0)
        r = s3_call_header(c, "content-type", "application/xml");
    if (r == 0)
        r = s3_call_query(c, "uploadId", u->id);
    if (r < 0 || !c)
        return err_fail(reason, r, "cannot write s3://%s/%s: %s", u->bucket, u->key, strerror(-r));
    c->if_absent = if_absent;
    c->root = "CompleteMultipartUploadResult";
    s3_call_body(c, buf_bytes(&body));
    r = s3_call_run(c, reason);
    return r < 0 && (c->in_doubt || r == -ENOENT) ? settle(u, r, reason) : r;
}

/* Some servers (Ceph) do not know If-None-Match on completing. So look first: that is no guard
 * against a race, but keys of uploads are their writer's own. */
static int check_absent(struct s3_upload *u, struct err *reason)
{
    AUTO(s3_call_free) struct s3_call *c = NULL;
    struct err err = ERR_INIT;

    int r = s3_call_new(u->s3, "HEAD", "s3:GetObject", u->bucket, u->key, &c);
    if (r == 0)
        r = s3_call_run(c, &err);
    if (r == -ENOENT)
        return 0;
    if (r == -EACCES)
        return 0; /* who may write need not be allowed to read: the condition must do */
    return r < 0 ? err_fail(reason, r, "%s", err_text(&err, r))
                 : err_fail(reason, -EEXIST, "cannot write s3://%s/%s: it exists already",
                            u->bucket, u->key);
}

static void remove_upload(struct s3_upload *u)
{
    AUTO(s3_call_free) struct s3_call *c = NULL;

    if (!u->id[0])
        return;
    int r = s3_call_new(u->s3, "DELETE", "s3:AbortMultipartUpload", u->bucket, u->key, &c);
    if (r == 0)
        r = s3_call_query(c, "uploadId", u->id);
    if (r == 0) {
        c->attempts_max = 2; /* what is left is found by the bucket's rules or by collection */
        (void)s3_call_run(c, NULL);
    }
}

static bool stands_there(struct s3_upload *u, struct bytes body)
{
    AUTO(free_ptr) uint8_t *there = malloc(body.size + 1);
    struct s3_object object = {.size = 0};
    size_t got = 0;

    return there &&
           s3_get(u->s3, u->bucket, u->key, 0, there, body.size, NULL, &got, &object, NULL) == 0 &&
           object.size == body.size && got == body.size &&
           (body.size == 0 || memcmp(there, body.data, body.size) == 0);
}

/* One put. If the key is taken after an attempt without an answer, equal bytes are our own. */
static int commit_small(struct s3_upload *u, bool if_absent, struct err *err)
{
    struct bytes body = u->current ? bytes_of(u->current->data, u->current->size) : bytes_of("", 0);
    struct err reason = ERR_INIT;
    bool in_doubt = false;

    if (!if_absent)
        return s3_put(u->s3, u->bucket, u->key, body, false, err);
    int r = s3_put_if_absent(u->s3, u->bucket, u->key, body, &in_doubt, &reason);
    if (r == -EEXIST && in_doubt && stands_there(u, body))
        return 0;
    return r < 0 ? err_fail(err, r, "%s", reason.text) : 0;
}

int s3_upload_commit(struct s3_upload *u, bool if_absent, struct err *err)
{
    struct err reason = ERR_INIT;
    int r = 0;

    if (!u->id[0] && !u->held && u->result == 0) {
        r = commit_small(u, if_absent, err);
        upload_free(u);
        return r;
    }
    if (u->result == 0)
        r = end_parts(u);
    wait_for_parts(u);
    if (r == 0)
        r = sticky(u, &reason);
    else
        (void)sticky(u, &reason);
    if (r == 0 && if_absent)
        r = check_absent(u, &reason);
    if (r == 0)
        r = complete(u, if_absent, &reason);
    if (r < 0) {
        remove_upload(u);
        (void)err_fail(err, r, "%s", err_text(&reason, r));
    }
    upload_free(u);
    return r;
}

void s3_upload_abort(struct s3_upload *u)
{
    if (!u)
        return;
    u->abandoned = true;
    s3_schedule_hurry(u->s3);
    wait_for_parts(u);
    remove_upload(u);
    upload_free(u);
}
