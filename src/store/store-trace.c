/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A wrapper that counts calls and bytes and tells each call to a function, for --debug, for tests
 * of "how many round trips", and for the simulator. It changes nothing.
 *
 * The function is called after the call, by the thread that made it, without a lock: it may run on
 * several threads at once.
 */
#include "store/store-internal.h"

#include <stdatomic.h>

struct store_trace {
    struct store base;
    struct store *below;
    store_trace_fn *fn;
    void *ctx;
    atomic_uint_fast64_t puts, gets, lists, removes, uploads, put_bytes, get_bytes;
};

struct trace_upload {
    struct store_upload base;
    struct store_upload *below;
    char key[STORE_KEY_MAX + 1];
};

static struct store_trace *trace_of(struct store *s)
{
    return (struct store_trace *)s;
}

static int told(struct store_trace *t, const char *call, const char *key, int result)
{
    if (t->fn)
        t->fn(t->ctx, call, key, result);
    return result;
}

static int trace_put_if_absent(struct store *s, const char *key, struct bytes body)
{
    struct store_trace *t = trace_of(s);

    t->puts++;
    t->put_bytes += body.size;
    return told(t, "put_if_absent", key, store_put_if_absent(t->below, key, body));
}

static int trace_get(struct store *s, const char *key, uint64_t offset, void *data, size_t size,
                     size_t *ret_size, uint64_t *ret_length)
{
    struct store_trace *t = trace_of(s);
    int r = store_get(t->below, key, offset, data, size, ret_size, ret_length);

    t->gets++;
    if (r == 0)
        t->get_bytes += *ret_size;
    return told(t, "get", key, r);
}

static bool trace_is_quick(struct store *s)
{
    return store_is_quick(trace_of(s)->below);
}

static int trace_list(struct store *s, const char *prefix, const struct store_list_options *options,
                      store_list_fn *fn, void *ctx, int64_t *ret_now_ms)
{
    struct store_trace *t = trace_of(s);

    t->lists++;
    return told(t, "list", prefix, store_list(t->below, prefix, options, fn, ctx, ret_now_ms));
}

static int trace_remove(struct store *s, const char *key)
{
    struct store_trace *t = trace_of(s);

    t->removes++;
    return told(t, "remove", key, store_remove(t->below, key));
}

static int trace_upload(struct store *s, const char *key, struct store_upload **ret)
{
    struct store_trace *t = trace_of(s);
    struct trace_upload *u = calloc(1, sizeof *u);

    if (!u)
        return -ENOMEM;
    t->uploads++;
    u->base.store = s;
    memcpy(u->key, key, strlen(key) + 1);
    int r = store_upload(t->below, key, &u->below);
    (void)told(t, "upload", key, r);
    if (r < 0) {
        free(u);
        return r;
    }
    *ret = &u->base;
    return 0;
}

static int trace_upload_write(struct store_upload *u, const void *data, size_t size)
{
    struct store_trace *t = trace_of(u->store);
    struct trace_upload *tu = (struct trace_upload *)u;

    t->put_bytes += size;
    return told(t, "upload_write", tu->key, store_upload_write(tu->below, data, size));
}

static int trace_upload_commit(struct store_upload *u)
{
    struct trace_upload *tu = (struct trace_upload *)u;
    int r = store_upload_commit(tu->below);

    (void)told(trace_of(u->store), "upload_commit", tu->key, r);
    free(tu);
    return r;
}

static void trace_upload_abort(struct store_upload *u)
{
    struct trace_upload *tu = (struct trace_upload *)u;

    store_upload_abort(tu->below);
    (void)told(trace_of(u->store), "upload_abort", tu->key, 0);
    free(tu);
}

static int trace_space(struct store *s, struct store_space *ret)
{
    return store_space(trace_of(s)->below, ret);
}

static void trace_close(struct store *s)
{
    store_close(trace_of(s)->below);
    store_release(s);
    free(s);
}

static const struct store_ops trace_ops = {
    .kind = "trace",
    .put_if_absent = trace_put_if_absent,
    .get = trace_get,
    .is_quick = trace_is_quick,
    .list = trace_list,
    .remove = trace_remove,
    .upload = trace_upload,
    .upload_write = trace_upload_write,
    .upload_commit = trace_upload_commit,
    .upload_abort = trace_upload_abort,
    .space = trace_space,
    .close = trace_close,
};

int store_trace_new(struct store *below, store_trace_fn *fn, void *ctx, struct store **ret)
{
    struct store_trace *t = calloc(1, sizeof *t);

    if (!t || store_init(&t->base, &trace_ops, below->location) < 0) {
        free(t);
        return -ENOMEM;
    }
    t->below = below;
    t->fn = fn;
    t->ctx = ctx;
    *ret = &t->base;
    return 0;
}

void store_trace_counts(struct store *trace, struct store_counts *ret)
{
    struct store_trace *t = trace_of(trace);

    *ret = (struct store_counts){
        .puts = t->puts,
        .gets = t->gets,
        .lists = t->lists,
        .removes = t->removes,
        .uploads = t->uploads,
        .put_bytes = t->put_bytes,
        .get_bytes = t->get_bytes,
    };
}
