/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The S3 store: keys below a prefix of a bucket.
 *
 * The client below retries, so nothing above does. What it cannot know is settled here: a put that
 * is told "exists" after an attempt without an answer reads back, and equal bytes are its own.
 * Listings must ascend, since callers draw conclusions from their order: a server that breaks it is
 * an error. What stands below the prefix and is no key of a store is passed over.
 *
 * Calls give codes, as every store's; the client's sentences (which permission is missing on what)
 * are kept for store_error(). Does not: make buckets.
 */
#include "store/store-internal.h"

#include "s3/s3.h"

#include <stdio.h>
#include <string.h>

/* No object is longer, so nothing is asked for behind it. */
#define OFFSET_MAX (UINT64_C(1) << 50)

static struct store_s3 *s3_of(struct store *s)
{
    return (struct store_s3 *)s;
}

void store_s3_key(const struct store_s3 *d, const char *key, char ret[static STORE_S3_KEY_SIZE])
{
    (void)snprintf(ret, STORE_S3_KEY_SIZE, "%s%s", d->prefix, key); /* both are bounded: it fits */
}

/* ---- sentences ---- */

int store_s3_failed(struct store_s3 *d, int code, const struct err *why)
{
    struct store_s3_sentence *oldest = d->sentences;

    /* These are answers, not failures. */
    if (code == -ENOENT || code == -EEXIST || !why->text[0])
        return code;
    WITH_LOCK(&d->lock);
    for (size_t i = 0; i < STORE_S3_SENTENCES; i++) {
        struct store_s3_sentence *at = &d->sentences[i];
        if (at->code == code) {
            oldest = at;
            break;
        }
        if (at->when < oldest->when)
            oldest = at;
    }
    oldest->code = code;
    oldest->when = ++d->failures;
    (void)snprintf(oldest->text, sizeof oldest->text, "%.1023s", why->text);
    return code;
}

static bool explain(struct store *s, int code, char *ret, size_t size)
{
    struct store_s3 *d = s3_of(s);

    WITH_LOCK(&d->lock);
    for (size_t i = 0; i < STORE_S3_SENTENCES; i++) {
        if (d->sentences[i].code == code && code != 0) {
            (void)snprintf(ret, size, "%s", d->sentences[i].text); /* cut if it must be */
            return true;
        }
    }
    return false;
}

/* ---- objects ---- */

struct first_row {
    const char *key;
    bool is_there;
};

/* The key itself comes before all that begin with it. */
static int take_first(void *ctx, const struct s3_entry *e)
{
    struct first_row *first = ctx;

    first->is_there = strcmp(e->key, first->key) == 0;
    return 1;
}

/* Who may list below the prefix only is told "access denied" of what is not there: a policy's
 * condition on s3:prefix is not met by a GET. So a listing decides. */
static bool is_absent(struct store_s3 *d, const char *key)
{
    struct s3_list_options o = {.prefix = key, .page = 1};
    struct first_row first = {.key = key};

    return s3_list(d->s3, d->bucket, &o, take_first, &first, NULL, NULL) >= 0 && !first.is_there;
}

static int get(struct store *s, const char *key, uint64_t offset, void *data, size_t size,
               size_t *ret_size, uint64_t *ret_length)
{
    struct store_s3 *d = s3_of(s);
    struct s3_object object = {.size = 0};
    struct err err = ERR_INIT;
    char whole[STORE_S3_KEY_SIZE];
    size_t got = 0;

    store_s3_key(d, key, whole);
    int r = s3_get(d->s3, d->bucket, whole, offset, data, offset > OFFSET_MAX ? 0 : size, NULL,
                   &got, &object, &err);
    if (r == -EACCES && is_absent(d, whole))
        return -ENOENT;
    if (r < 0)
        return store_s3_failed(d, r, &err);
    *ret_size = got;
    if (ret_length)
        *ret_length = object.size;
    return 0;
}

/* Whoever may not list is told -EACCES here of what is not there: a reader fails either way. */
static int get_async(struct store *s, const char *key, uint64_t offset, void *data, size_t size,
                     store_done_fn *done, void *ctx)
{
    struct store_s3 *d = s3_of(s);
    char whole[STORE_S3_KEY_SIZE];

    if (offset > OFFSET_MAX)
        return -EINVAL;
    store_s3_key(d, key, whole);
    return s3_get_async(d->s3, d->bucket, whole, offset, data, size, NULL, done, ctx);
}

/* The key is taken, and an attempt of ours had no answer: 0 if what stands there is ours. */
static int settle(struct store *s, const char *key, struct bytes body)
{
    AUTO(free_ptr) uint8_t *there = malloc(body.size + 1);
    uint64_t length = 0;
    size_t got = 0;

    if (!there)
        return -EIO;
    int r = get(s, key, 0, there, body.size, &got, &length);
    if (r < 0)
        return -EIO; /* also if it has been removed since: whose it was cannot be told */
    if (length != body.size || got != body.size)
        return -EEXIST;
    return body.size == 0 || memcmp(there, body.data, body.size) == 0 ? 0 : -EEXIST;
}

static int put_if_absent(struct store *s, const char *key, struct bytes body)
{
    struct store_s3 *d = s3_of(s);
    struct err err = ERR_INIT;
    char whole[STORE_S3_KEY_SIZE];
    bool in_doubt = false;

    store_s3_key(d, key, whole);
    int r = s3_put_if_absent(d->s3, d->bucket, whole, body, &in_doubt, &err);
    if (r == 0)
        return 0;
    (void)store_s3_failed(d, r, &err);
    if (!in_doubt)
        return r;
    if (r == -EEXIST)
        return settle(s, key, body);
    /* An attempt may have landed, or may yet: "nothing was written" would be a lie. */
    return r == -ETIMEDOUT ? r : store_s3_failed(d, -EIO, &err);
}

static int remove_object(struct store *s, const char *key)
{
    struct store_s3 *d = s3_of(s);
    struct err err = ERR_INIT;
    char whole[STORE_S3_KEY_SIZE];

    store_s3_key(d, key, whole);
    int r = s3_delete(d->s3, d->bucket, whole, &err);
    return r < 0 ? store_s3_failed(d, r, &err) : 0;
}

/* ---- listing ---- */

struct listing {
    struct store_s3 *store;
    store_list_fn *fn;
    void *ctx;
    bool stopped; /* by the callback */
    char last[STORE_KEY_MAX + 2];
    struct err err;
};

/* A key of ours, or "components/". */
static bool is_ours(const char *key, bool is_prefix)
{
    char bare[STORE_KEY_MAX + 1];
    size_t n = strnlen(key, STORE_KEY_MAX + 2);

    if (!is_prefix)
        return store_key_is_valid(key);
    if (n < 2 || n > STORE_KEY_MAX || key[n - 1] != '/')
        return false;
    memcpy(bare, key, n - 1);
    bare[n - 1] = '\0';
    return store_key_is_valid(bare);
}

static int on_row(void *ctx, const struct s3_entry *e)
{
    struct listing *l = ctx;
    const char *key = e->key + strlen(l->store->prefix); /* the client checked the prefix */
    struct store_entry entry = {.key = key,
                                .is_prefix = e->is_prefix,
                                .size_bytes = e->is_prefix ? 0 : e->object.size,
                                .mtime_ms = e->is_prefix ? 0 : e->object.mtime_ms};

    if (!is_ours(key, e->is_prefix))
        return 0;
    if (l->last[0] && strcmp(key, l->last) <= 0)
        return err_fail(&l->err, -EPROTO,
                        "cannot list s3://%s/%s: the server gives keys out of order (%s after %s), "
                        "which a store may not",
                        l->store->bucket, l->store->prefix, key, l->last);
    (void)snprintf(l->last, sizeof l->last, "%s", key); /* is_ours() has measured it */
    int r = l->fn(l->ctx, &entry);
    l->stopped = r != 0;
    return r;
}

static int list(struct store *s, const char *prefix, const struct store_list_options *options,
                store_list_fn *fn, void *ctx, int64_t *ret_now_ms)
{
    struct store_s3 *d = s3_of(s);
    struct listing l = {.store = d, .fn = fn, .ctx = ctx, .err = ERR_INIT};
    const char *after = options->start_after;
    char whole[STORE_S3_KEY_SIZE];
    AUTO(free_ptr) char *start = NULL;

    store_s3_key(d, prefix, whole);
    if (after && after[0] && asprintf(&start, "%s%s", d->prefix, after) < 0)
        return -ENOMEM;
    struct s3_list_options o = {
        .prefix = whole, .delimiter = options->by_component ? '/' : 0, .start_after = start};
    int r = s3_list(d->s3, d->bucket, &o, on_row, &l, ret_now_ms, &l.err);
    return r < 0 && !l.stopped ? store_s3_failed(d, r, &l.err) : r;
}

static int space(struct store *s, struct store_space *ret)
{
    *ret = (struct store_space){.free_bytes = -1, .free_objects = -1};
    return 0;
}

/* ---- opening ---- */

static void close_store(struct store *s)
{
    struct store_s3 *d = s3_of(s);

    s3_free(d->s3);
    pthread_mutex_destroy(&d->lock);
    store_release(s);
    free(d);
}

const struct store_ops store_s3_ops = {
    .kind = "S3",
    .put_if_absent = put_if_absent,
    .get = get,
    .get_async = get_async,
    .list = list,
    .remove = remove_object,
    .upload = store_s3_upload,
    .upload_write = store_s3_upload_write,
    .upload_commit = store_s3_upload_commit,
    .upload_abort = store_s3_upload_abort,
    .space = space,
    .probe = store_s3_probe,
    .explain = explain,
    .close = close_store,
};

/* "prefix" -> "prefix/". Keys of every tool must be able to stand below it. */
static int set_prefix(struct store_s3 *d, const char *prefix, const char *location, struct err *err)
{
    size_t n = strlen(prefix);

    while (n > 0 && prefix[n - 1] == '/')
        n--;
    if (n > STORE_KEY_MAX)
        return err_fail(err, -EINVAL,
                        "the store location %.100s... is too long: its prefix may have %d bytes",
                        location, STORE_KEY_MAX);
    if (n == 0)
        return 0;
    (void)snprintf(d->prefix, sizeof d->prefix, "%.*s", (int)n, prefix); /* measured above */
    if (!store_key_is_valid(d->prefix))
        return err_fail(err, -EINVAL,
                        "the store location %s cannot be used: between its slashes stand letters, "
                        "digits, '.', '_' and '-', and no '.' in front",
                        location);
    d->prefix[n] = '/';
    d->prefix[n + 1] = '\0';
    return 0;
}

static int set_up(struct store_s3 *d, const char *location, const struct store_options *options,
                  struct err *err)
{
    struct s3_options o = {
        .endpoint = options->endpoint,
        .region = options->region,
        .profile = options->profile,
        .ca_file = options->ca_file,
        .env = d->env,
    };
    char prefix[S3_KEY_MAX + 1];

    int r = s3_parse_location(location, d->bucket, prefix, err);
    if (r == 0)
        r = set_prefix(d, prefix, location, err);
    if (r == 0)
        r = s3_parse_addressing(options->addressing, &o.addressing, err);
    return r < 0 ? r : s3_new(&o, &d->s3, err);
}

int store_s3_open(const char *location, unsigned flags, const struct store_options *options,
                  struct store **ret, struct err *err)
{
    struct store_s3 *d = calloc(1, sizeof *d);

    if (!d)
        return -ENOMEM;
    (void)pthread_mutex_init(&d->lock, NULL);
    d->env = env_real();
    int r = store_init(&d->base, &store_s3_ops, location);
    if (r == 0)
        r = set_up(d, location, options, err);
    if (r < 0) {
        close_store(&d->base);
        return r;
    }
    *ret = &d->base;
    return 0;
}
