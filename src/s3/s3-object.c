/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Single objects: ranges, heads, puts, deletes; and what a bucket says of its settings.
 *
 * A range is asked for always, also of a whole object: only then is the answer about exact bytes.
 * An empty range and what lies behind an object's end are settled by a HEAD.
 */
#include "s3/s3-internal.h"

#include <stdio.h>

static int no_call(struct err *err, int r, const char *bucket, const char *key)
{
    return err_fail(err, r, "cannot use s3://%s/%.100s: %s", bucket, key ? key : "",
                    r == -EINVAL ? "S3 allows no such name" : strerror(-r));
}

/* ---- reading ---- */

static int range_call(struct s3 *s, const char *bucket, const char *key, uint64_t offset,
                      void *data, size_t size, const struct s3_object *pin, struct s3_call **ret)
{
    AUTO(s3_call_free) struct s3_call *c = NULL;
    char range[64];

    if (offset > INT64_MAX || size > INT64_MAX - offset)
        return -EINVAL;
    int r = s3_call_new(s, "GET", "s3:GetObject", bucket, key, &c);
    if (r == 0)
        r = s3_call_pin(c, pin);
    if (r < 0)
        return r;
    (void)snprintf(range, sizeof range, "bytes=%llu-%llu", (unsigned long long)offset,
                   (unsigned long long)(offset + size - 1));
    r = s3_call_header(c, "range", range);
    if (r < 0)
        return r;
    c->ranged = true;
    c->offset = offset;
    c->data = data;
    c->size = size;
    *ret = take_ptr(&c);
    return 0;
}

static int head_call(struct s3 *s, const char *method, const char *bucket, const char *key,
                     const struct s3_object *pin, struct s3_call **ret)
{
    AUTO(s3_call_free) struct s3_call *c = NULL;

    int r = s3_call_new(s, method, "s3:GetObject", bucket, key, &c);
    if (r == 0)
        r = s3_call_pin(c, pin);
    if (r < 0)
        return r;
    *ret = take_ptr(&c);
    return 0;
}

/* HEAD answers have no body, so which error it was is asked with a GET of one byte. */
static int explain_head(struct s3 *s, const char *bucket, const char *key,
                        const struct s3_object *pin, int code, struct err *err)
{
    AUTO(s3_call_free) struct s3_call *c = NULL;
    uint8_t byte;
    struct err reason = ERR_INIT;

    int r = range_call(s, bucket, key, 0, &byte, 1, pin, &c);
    if (r == 0)
        r = s3_call_run(c, &reason);
    if (r == 0 || r == -ERANGE)
        return err_fail(err, code, "s3://%s/%s appeared or became readable just now; try again",
                        bucket, key);
    return err_fail(err, r, "%s", err_text(&reason, r));
}

static int head_pinned(struct s3 *s, const char *bucket, const char *key,
                       const struct s3_object *pin, struct s3_object *ret, struct err *err)
{
    AUTO(s3_call_free) struct s3_call *c = NULL;
    struct err first = ERR_INIT;

    int r = head_call(s, "HEAD", bucket, key, pin, &c);
    if (r < 0)
        return no_call(err, r, bucket, key);
    r = s3_call_run(c, &first);
    if (r == -ENOENT || r == -EACCES || (r == -EPROTO && c->response.status == 400))
        return explain_head(s, bucket, key, pin, r, err);
    if (r < 0)
        return err_fail(err, r, "%s", first.text);
    if (c->object.size == UINT64_MAX)
        return err_fail(err, -EPROTO, "s3://%s/%s: the server does not say how long it is", bucket,
                        key);
    *ret = c->object;
    return 0;
}

int s3_head(struct s3 *s, const char *bucket, const char *key, struct s3_object *ret,
            struct err *err)
{
    return head_pinned(s, bucket, key, NULL, ret, err);
}

int s3_get(struct s3 *s, const char *bucket, const char *key, uint64_t offset, void *data,
           size_t size, const struct s3_object *pin, size_t *ret_size, struct s3_object *ret_object,
           struct err *err)
{
    AUTO(s3_call_free) struct s3_call *c = NULL;
    struct s3_object object = {.size = 0};
    struct err reason = ERR_INIT;
    int r;

    if (size > 0) {
        r = range_call(s, bucket, key, offset, data, size, pin, &c);
        if (r < 0)
            return no_call(err, r, bucket, key);
        r = s3_call_run(c, &reason);
        if (r < 0 && r != -ERANGE)
            return err_fail(err, r, "%s", reason.text);
        if (r == 0) {
            *ret_size = c->got;
            if (ret_object)
                *ret_object = c->object;
            return 0;
        }
    }
    r = head_pinned(s, bucket, key, pin, &object, err);
    if (r < 0)
        return r;
    if (size > 0 && object.size > offset)
        return err_fail(err, -EPROTO, "s3://%s/%s: the server has %llu bytes, but not from %llu on",
                        bucket, key, (unsigned long long)object.size, (unsigned long long)offset);
    *ret_size = 0;
    if (ret_object)
        *ret_object = object;
    return 0;
}

struct async_get {
    s3_done_fn *done; /* or */
    s3_told_fn *told;
    void *ctx;
};

static void on_got(void *ctx, struct s3_call *c, int result)
{
    struct async_get a = *(struct async_get *)ctx;
    size_t got = result == 0 ? c->got : 0;

    free(ctx);
    if (result == -ERANGE)
        result = 0;
    if (a.told)
        a.told(a.ctx, result, got, &c->err);
    s3_call_free(c);
    if (a.done)
        a.done(a.ctx, result, got);
}

static int start_get(struct s3 *s, const char *bucket, const char *key, uint64_t offset, void *data,
                     size_t size, const struct s3_object *pin, const struct async_get *owner)
{
    struct s3_call *c;

    if (size == 0)
        return -EINVAL;
    struct async_get *a = malloc(sizeof *a);
    if (!a)
        return -ENOMEM;
    *a = *owner;
    int r = range_call(s, bucket, key, offset, data, size, pin, &c);
    if (r < 0) {
        free(a);
        return r;
    }
    s3_call_start(c, on_got, a);
    return 0;
}

int s3_get_async(struct s3 *s, const char *bucket, const char *key, uint64_t offset, void *data,
                 size_t size, const struct s3_object *pin, s3_done_fn *done, void *ctx)
{
    struct async_get a = {.done = done, .ctx = ctx};

    return start_get(s, bucket, key, offset, data, size, pin, &a);
}

int s3_get_async_told(struct s3 *s, const char *bucket, const char *key, uint64_t offset,
                      void *data, size_t size, const struct s3_object *pin, s3_told_fn *told,
                      void *ctx)
{
    struct async_get a = {.told = told, .ctx = ctx};

    return start_get(s, bucket, key, offset, data, size, pin, &a);
}

/* ---- writing ---- */

int s3_put_call(struct s3 *s, const char *bucket, const char *key, struct bytes body,
                bool if_absent, struct s3_call **ret)
{
    AUTO(s3_call_free) struct s3_call *c = NULL;

    int r = s3_call_new(s, "PUT", "s3:PutObject", bucket, key, &c);
    if (r == 0 && if_absent)
        r = s3_call_header(c, "if-none-match", "*");
    if (r < 0)
        return r;
    c->if_absent = if_absent;
    s3_call_body(c, body);
    *ret = take_ptr(&c);
    return 0;
}

int s3_put(struct s3 *s, const char *bucket, const char *key, struct bytes body, bool if_absent,
           struct err *err)
{
    AUTO(s3_call_free) struct s3_call *c = NULL;

    int r = s3_put_call(s, bucket, key, body, if_absent, &c);
    return r < 0 ? no_call(err, r, bucket, key) : s3_call_run(c, err);
}

int s3_put_if_absent(struct s3 *s, const char *bucket, const char *key, struct bytes body,
                     bool *ret_in_doubt, struct err *err)
{
    AUTO(s3_call_free) struct s3_call *c = NULL;

    int r = s3_put_call(s, bucket, key, body, true, &c);
    if (r < 0)
        return no_call(err, r, bucket, key);
    r = s3_call_run(c, err);
    *ret_in_doubt = c->in_doubt;
    return r;
}

int s3_delete(struct s3 *s, const char *bucket, const char *key, struct err *err)
{
    AUTO(s3_call_free) struct s3_call *c = NULL;

    int r = s3_call_new(s, "DELETE", "s3:DeleteObject", bucket, key, &c);
    if (r < 0)
        return no_call(err, r, bucket, key);
    struct err reason = ERR_INIT;
    r = s3_call_run(c, &reason);
    if (r == -ENOENT) /* AWS says 204; some servers say that it was not there */
        return 0;
    return r < 0 ? err_fail(err, r, "%s", reason.text) : 0;
}

/* ---- settings ---- */

static int ask_setting(struct s3 *s, const char *bucket, const char *action, const char *what,
                       struct s3_call **ret)
{
    int r = s3_call_new(s, "GET", action, bucket, NULL, ret);

    if (r == 0)
        r = s3_call_query(*ret, what, "");
    return r < 0 ? r : s3_call_run(*ret, NULL);
}

/* A list of rules: none is a 404, or (Ceph) an empty list. */
static int has_rules(struct s3 *s, const char *bucket, const char *action, const char *what)
{
    AUTO(s3_call_free) struct s3_call *c = NULL;
    int r = ask_setting(s, bucket, action, what, &c);

    if (r < 0)
        return r == -ENOENT ? 0 : -1;
    return memmem(c->answer_body.data, c->answer_body.size, "<Rule>", strlen("<Rule>")) != NULL;
}

int s3_bucket_versioning(struct s3 *s, const char *bucket, int *ret)
{
    AUTO(s3_call_free) struct s3_call *c = NULL;
    char status[32] = "";

    *ret = -1;
    int r = ask_setting(s, bucket, "s3:GetBucketVersioning", "versioning", &c);
    if (r == 0) {
        struct bytes body = buf_bytes(&c->answer_body);
        r = s3_xml_find(body, "VersioningConfiguration", "Status", status, sizeof status);
        *ret = r == 0 && strcmp(status, "Enabled") == 0;
        return 0;
    }
    return r == -EACCES || r == -EOPNOTSUPP || r == -ENOENT ? 0 : r;
}

int s3_bucket_settings(struct s3 *s, const char *bucket, struct s3_bucket_settings *ret)
{
    ret->lifecycle = has_rules(s, bucket, "s3:GetLifecycleConfiguration", "lifecycle");
    ret->replication = has_rules(s, bucket, "s3:GetReplicationConfiguration", "replication");
    return s3_bucket_versioning(s, bucket, &ret->versioning);
}
