/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The one level that retries. Only answers that say "outcome unknown" (-EIO, -ETIMEDOUT) are tried
 * again, with full jitter, until the attempts or the deadline are used up; then the last answer
 * goes to the caller, who settles the doubt by reading.
 *
 * Uploads pass through untouched: their bytes are gone once written, publish makes the pack again.
 */
#include "store/store-internal.h"

#include <assert.h>

struct store_retry {
    struct store base;
    struct store *below;
    struct store_retry_policy policy;
    struct env *env;
};

/* One call's attempts. */
struct attempts {
    struct store_retry *retry;
    int64_t start_ms;
    int used;
};

static struct store_retry *retry_of(struct store *s)
{
    return (struct store_retry *)s;
}

static struct attempts attempts_begin(struct store *s)
{
    struct store_retry *r = retry_of(s);

    return (struct attempts){.retry = r, .start_ms = r->env->boot_ms(r->env)};
}

/* A uniform delay below first * 2^used, capped: full jitter, so that many clients that failed
 * together do not come back together. */
static int64_t next_delay_ms(const struct attempts *a)
{
    const struct store_retry *r = a->retry;
    int64_t limit = r->policy.first_delay_ms;
    uint64_t random;

    for (int i = 1; i < a->used && limit < r->policy.max_delay_ms; i++)
        limit *= 2;
    if (limit > r->policy.max_delay_ms)
        limit = r->policy.max_delay_ms;
    if (limit <= 0)
        return 0;
    r->env->random(r->env, &random, sizeof random);
    return (int64_t)(random % ((uint64_t)limit + 1));
}

/* After an attempt gave `code`: sleep and say true if there shall be another. */
static bool again(struct attempts *a, int code)
{
    struct store_retry *r = a->retry;

    if (code != -EIO && code != -ETIMEDOUT)
        return false;
    if (++a->used >= r->policy.attempts)
        return false;
    int64_t delay = next_delay_ms(a);
    if (r->env->boot_ms(r->env) - a->start_ms + delay >= r->policy.deadline_ms)
        return false;
    r->env->sleep_ms(r->env, delay);
    return true;
}

/* The key is taken after an attempt of ours whose outcome is unknown: 0 if ours landed. */
static int settle(struct store *below, const char *key, struct bytes body)
{
    AUTO(free_ptr) uint8_t *there = malloc(body.size + 1);
    uint64_t length;
    size_t got;

    if (!there)
        return -ENOMEM;
    int r = store_get(below, key, 0, there, body.size, &got, &length);
    if (r == -ENOENT)
        return -ESTALE; /* taken a moment ago and removed since: whose it was cannot be told */
    if (r < 0)
        return r;
    if (length != body.size || got != body.size)
        return -EEXIST;
    return body.size == 0 || memcmp(there, body.data, body.size) == 0 ? 0 : -EEXIST;
}

static int retry_put_if_absent(struct store *s, const char *key, struct bytes body)
{
    struct store *below = retry_of(s)->below;
    struct attempts a = attempts_begin(s);
    bool taken = false; /* the key is, so only the question by whom is left */
    int r;

    do {
        r = taken ? -EEXIST : store_put_if_absent(below, key, body);
        if (r == -EEXIST && a.used > 0) {
            taken = true;
            r = settle(below, key, body);
        }
    } while (again(&a, r));
    /* An earlier attempt may have landed, or may yet: "nothing was written" would be a lie. */
    if (a.used > 0 && r < 0 && r != -EEXIST && r != -ETIMEDOUT)
        r = -EIO;
    return r;
}

static int retry_get(struct store *s, const char *key, uint64_t offset, void *data, size_t size,
                     size_t *ret_size, uint64_t *ret_length)
{
    struct attempts a = attempts_begin(s);
    int r;

    do {
        r = store_get(retry_of(s)->below, key, offset, data, size, ret_size, ret_length);
    } while (again(&a, r));
    return r;
}

static bool retry_is_quick(struct store *s)
{
    return store_is_quick(retry_of(s)->below);
}

/* A listing that goes on where it broke: rows come in ascending order, so the last row that was
 * handed out says all. */
struct resumed_list {
    store_list_fn *fn;
    void *ctx;
    bool any, stopped;
    char last[STORE_KEY_MAX + 1]; /* valid if any */
};

static int pass_row(void *ctx, const struct store_entry *entry)
{
    struct resumed_list *l = ctx;

    if (l->any && strcmp(entry->key, l->last) <= 0)
        return 0;
    (void)snprintf(l->last, sizeof l->last, "%s", entry->key); /* keys are no longer than this */
    l->any = true;
    int r = l->fn(l->ctx, entry);
    l->stopped = r != 0;
    return r;
}

static int retry_list(struct store *s, const char *prefix, const struct store_list_options *options,
                      store_list_fn *fn, void *ctx, int64_t *ret_now_ms)
{
    struct attempts a = attempts_begin(s);
    struct resumed_list l = {.fn = fn, .ctx = ctx};
    char from[sizeof l.last];
    int r;

    do {
        struct store_list_options rest = *options;
        if (l.any) {
            memcpy(from, l.last, sizeof from);
            rest.start_after = from;
        }
        r = store_list(retry_of(s)->below, prefix, &rest, pass_row, &l, ret_now_ms);
    } while (!l.stopped && again(&a, r));
    return r;
}

static int retry_remove(struct store *s, const char *key)
{
    struct attempts a = attempts_begin(s);
    int r;

    do {
        r = store_remove(retry_of(s)->below, key);
    } while (again(&a, r));
    return r;
}

/* The upload is the one of the store below: its verbs are found through its own store. */
static int retry_upload(struct store *s, const char *key, struct store_upload **ret)
{
    return store_upload(retry_of(s)->below, key, ret);
}

static int retry_open_local(struct store *s, const char *key, int *ret_fd)
{
    return store_open_local(retry_of(s)->below, key, ret_fd);
}

static int retry_space(struct store *s, struct store_space *ret)
{
    return store_space(retry_of(s)->below, ret);
}

static int retry_probe(struct store *s, struct store_probe *ret, struct err *err)
{
    return store_probe(retry_of(s)->below, ret, err);
}

static void retry_close(struct store *s)
{
    store_close(retry_of(s)->below);
    store_release(s);
    free(s);
}

static const struct store_ops retry_ops = {
    .kind = "retry",
    .put_if_absent = retry_put_if_absent,
    .get = retry_get,
    .is_quick = retry_is_quick, /* and no get_async: an attempt may have to be waited for */
    .list = retry_list,
    .remove = retry_remove,
    .upload = retry_upload, /* no other upload verbs: no upload is of this store */
    .space = retry_space,
    .open_local = retry_open_local,
    .probe = retry_probe,
    .close = retry_close,
};

int store_retry_new(struct store *below, const struct store_retry_policy *policy, struct env *env,
                    struct store **ret)
{
    struct store_retry *r = calloc(1, sizeof *r);

    assert(policy->attempts >= 1);
    if (!r || store_init(&r->base, &retry_ops, below->location) < 0) {
        free(r);
        return -ENOMEM;
    }
    r->below = below;
    r->policy = *policy;
    r->env = env;
    *ret = &r->base;
    return 0;
}
