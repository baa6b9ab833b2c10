/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A wrapper that fails one call of many, on purpose: a loop over N = 1, 2, 3, ... walks a piece of
 * code through the failure of each store call it makes.
 *
 * "After" is the nasty half: the call takes effect below, and the caller hears an error. Calls that
 * count: put_if_absent, get, list, remove, upload, upload_write, upload_commit, space.
 */
#include "store/store-internal.h"

#include <assert.h>
#include <stdatomic.h>

struct store_fault {
    struct store base;
    struct store *below;
    struct store_fault_plan plan; /* fixed */
    atomic_uint_fast64_t calls;
    atomic_bool fired;
};

struct fault_upload {
    struct store_upload base;
    struct store_upload *below;
    int error; /* sticky, as everywhere */
};

enum verdict { PASS, FAIL_BEFORE, FAIL_AFTER };

static struct store_fault *fault_of(struct store *s)
{
    return (struct store_fault *)s;
}

static enum verdict count_call(struct store_fault *f)
{
    uint64_t n = ++f->calls;

    if (f->plan.nth == 0 || n < f->plan.nth || (n > f->plan.nth && !f->plan.forever))
        return PASS;
    f->fired = true;
    return f->plan.after ? FAIL_AFTER : FAIL_BEFORE;
}

static int fault_put_if_absent(struct store *s, const char *key, struct bytes body)
{
    struct store_fault *f = fault_of(s);
    enum verdict v = count_call(f);
    int r = v == FAIL_BEFORE ? 0 : store_put_if_absent(f->below, key, body);

    return v == PASS ? r : f->plan.code;
}

static int fault_get(struct store *s, const char *key, uint64_t offset, void *data, size_t size,
                     size_t *ret_size, uint64_t *ret_length)
{
    struct store_fault *f = fault_of(s);
    enum verdict v = count_call(f);
    size_t lost_size;

    if (v == PASS)
        return store_get(f->below, key, offset, data, size, ret_size, ret_length);
    if (v == FAIL_AFTER)
        (void)store_get(f->below, key, offset, data, size, &lost_size, NULL); /* lost on purpose */
    return f->plan.code;
}

static bool fault_is_quick(struct store *s)
{
    return store_is_quick(fault_of(s)->below);
}

static int fault_list(struct store *s, const char *prefix, const struct store_list_options *options,
                      store_list_fn *fn, void *ctx, int64_t *ret_now_ms)
{
    struct store_fault *f = fault_of(s);
    enum verdict v = count_call(f);

    if (v == PASS)
        return store_list(f->below, prefix, options, fn, ctx, ret_now_ms);
    if (v == FAIL_AFTER)
        (void)store_list(f->below, prefix, options, fn, ctx, NULL); /* rows came, the end did not */
    return f->plan.code;
}

static int fault_remove(struct store *s, const char *key)
{
    struct store_fault *f = fault_of(s);
    enum verdict v = count_call(f);
    int r = v == FAIL_BEFORE ? 0 : store_remove(f->below, key);

    return v == PASS ? r : f->plan.code;
}

static int fault_upload(struct store *s, const char *key, struct store_upload **ret)
{
    struct store_fault *f = fault_of(s);
    enum verdict v = count_call(f);
    struct fault_upload *u = calloc(1, sizeof *u);
    int r = u ? 0 : -ENOMEM;

    if (r == 0 && v != FAIL_BEFORE)
        r = store_upload(f->below, key, &u->below);
    if (r == 0 && v != PASS) {
        store_upload_abort(u->below);
        r = f->plan.code;
    }
    if (r < 0) {
        free(u);
        return r;
    }
    u->base.store = s;
    *ret = &u->base;
    return 0;
}

static int fault_upload_write(struct store_upload *u, const void *data, size_t size)
{
    struct store_fault *f = fault_of(u->store);
    struct fault_upload *fu = (struct fault_upload *)u;
    enum verdict v = count_call(f);
    int r = v == FAIL_BEFORE ? 0 : store_upload_write(fu->below, data, size);

    if (fu->error == 0)
        fu->error = v == PASS ? r : f->plan.code;
    return fu->error;
}

static void fault_upload_abort(struct store_upload *u)
{
    struct fault_upload *fu = (struct fault_upload *)u;

    store_upload_abort(fu->below);
    free(fu);
}

static int fault_upload_commit(struct store_upload *u)
{
    struct store_fault *f = fault_of(u->store);
    struct fault_upload *fu = (struct fault_upload *)u;
    enum verdict v = count_call(f);
    int r = fu->error;

    if (r < 0 || v == FAIL_BEFORE) {
        fault_upload_abort(u);
        return r < 0 ? r : f->plan.code;
    }
    r = store_upload_commit(fu->below);
    free(fu);
    return v == PASS ? r : f->plan.code;
}

static int fault_space(struct store *s, struct store_space *ret)
{
    struct store_fault *f = fault_of(s);

    return count_call(f) == PASS ? store_space(f->below, ret) : f->plan.code;
}

static void fault_close(struct store *s)
{
    store_close(fault_of(s)->below);
    store_release(s);
    free(s);
}

static const struct store_ops fault_ops = {
    .kind = "fault",
    .put_if_absent = fault_put_if_absent,
    .get = fault_get,
    .is_quick = fault_is_quick,
    .list = fault_list,
    .remove = fault_remove,
    .upload = fault_upload,
    .upload_write = fault_upload_write,
    .upload_commit = fault_upload_commit,
    .upload_abort = fault_upload_abort,
    .space = fault_space,
    .close = fault_close,
};

int store_fault_new(struct store *below, const struct store_fault_plan *plan, struct store **ret)
{
    struct store_fault *f = calloc(1, sizeof *f);

    assert(plan->nth == 0 || plan->code < 0);
    if (!f || store_init(&f->base, &fault_ops, below->location) < 0) {
        free(f);
        return -ENOMEM;
    }
    f->below = below;
    f->plan = *plan;
    *ret = &f->base;
    return 0;
}

uint64_t store_fault_calls(struct store *fault)
{
    return fault_of(fault)->calls;
}

bool store_fault_fired(struct store *fault)
{
    return fault_of(fault)->fired;
}
