/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Opening a bucket as a source: the client, the whole listing, and what is said of it.
 *
 * A location without a slash at its end may be one object, as a path may be one file; a directory
 * of that name comes first. Does not keep secrets: terms and location name places and profiles.
 */
#include "source/source-s3-internal.h"

#include <string.h>

#define TERMS_MAX 4096u

struct named {
    const char *name;
    const char **value;
};
#define TERMS_COUNT 7u

/* What source.terms may hold. */
static void name_terms(struct source_s3_options *o, struct named ret[static TERMS_COUNT])
{
    const struct named all[TERMS_COUNT] = {
        {"endpoint", &o->endpoint},       {"region", &o->region},
        {"profile", &o->profile},         {"ca_file", &o->ca_file},
        {"role_arn", &o->role_arn},       {"addressing", &o->addressing},
        {"external_id", &o->external_id},
    };

    memcpy(ret, all, sizeof all);
}

static int set_terms(struct source_s3 *s, const struct source_s3_options *options)
{
    struct source_s3_options o = *options;
    AUTO(buf_release) struct buf b = BUF_INIT(TERMS_MAX);
    struct named terms[TERMS_COUNT];
    int r = 0;

    name_terms(&o, terms);
    for (size_t i = 0; i < TERMS_COUNT && r == 0; i++) {
        if (*terms[i].value)
            r = buf_printf(&b, "%s=%s\n", terms[i].name, *terms[i].value);
    }
    if (r < 0 || b.size == 0)
        return r;
    s->base.terms = strdup(buf_text(&b));
    return s->base.terms ? 0 : -ENOMEM;
}

void source_s3_parse_terms(char *text, struct source_s3_options *o)
{
    struct named terms[TERMS_COUNT];
    char *end;

    name_terms(o, terms);
    for (; *text; text = end) {
        end = strchrnul(text, '\n');
        if (*end)
            *end++ = '\0';
        char *equals = strchr(text, '=');
        if (!equals)
            continue;
        *equals = '\0';
        for (size_t i = 0; i < TERMS_COUNT; i++) {
            if (strcmp(text, terms[i].name) == 0)
                *terms[i].value = equals + 1;
        }
    }
}

static int make_client(struct source_s3 *s, const struct source_s3_options *o, struct err *err)
{
    struct s3_options c = {.endpoint = o->endpoint,
                           .region = o->region,
                           .profile = o->profile,
                           .ca_file = o->ca_file,
                           .role_arn = o->role_arn,
                           .external_id = o->external_id,
                           .connections = WINDOW_IN_FLIGHT};
    int r = s3_parse_addressing(o->addressing, &c.addressing, err);

    if (r == 0)
        r = s3_new(&c, &s->s3, err);
    if (r == 0 && window_new(s->s3, s->bucket_name, o->interrupted, &s->window) < 0)
        r = err_fail(err, -ENOMEM, "out of memory");
    return r;
}

/* ---- listing ----------------------------------------------------------------------------------
 */

struct only {
    const char *key;
    bool is_there;
    struct s3_object object;
};

/* The key itself comes before all that begin with it. */
static int take_only(void *ctx, const struct s3_entry *e)
{
    struct only *only = ctx;

    only->is_there = strcmp(e->key, only->key) == 0;
    only->object = e->object;
    return 1;
}

/* Nothing is below "prefix/": is there an object "prefix"? Then that is the tree. */
static int list_only(struct source_s3 *s, const char *location, struct err *err)
{
    char key[S3_KEY_MAX + 1];
    struct only only = {.key = key};
    struct s3_list_options o = {.prefix = key, .page = 1};
    struct rows_builder b = {.total = 0};

    (void)snprintf(key, sizeof key, "%.*s", (int)strlen(s->prefix) - 1, s->prefix); /* its '/' */
    int r = s3_list(s->s3, s->bucket_name, &o, take_only, &only, NULL, err);
    if (r < 0)
        return r;
    if (!only.is_there)
        return err_fail(err, -ENOENT,
                        "there is nothing at %s: no key of the bucket begins with \"%s\"", location,
                        s->prefix);
    char *slash = strrchr(key, '/'), *name = slash ? slash + 1 : key;
    r = rows_add(&b, name, &only.object);
    if (r == 0)
        r = rows_take(&s->rows, &b);
    if (r == 0)
        r = rows_settle(&s->rows);
    rows_builder_release(&b);
    s->prefix[name - key] = '\0';
    s->is_object = true;
    return r < 0 ? err_fail(err, r, "cannot list %s: %s", location, strerror(-r)) : 0;
}

static int list(struct source_s3 *s, const char *location, const struct source_s3_options *options,
                bool may_be_object, struct err *err)
{
    struct lister_options o = {.s3 = s->s3,
                               .bucket = s->bucket_name,
                               .prefix = s->prefix,
                               .versions = s->bucket.has_versions,
                               .progress = options->progress,
                               .ctx = options->ctx,
                               .interrupted = options->interrupted};

    int r = lister_run(&o, &s->rows, err);
    if (r < 0)
        return r;
    if (s->rows.count > 0)
        return 0;
    if (may_be_object)
        return list_only(s, location, err);
    if (!s->prefix[0])
        return err_fail(err, -ENOENT, "there is nothing at %s: the bucket is empty", location);
    return err_fail(err, -ENOENT, "there is nothing at %s: no key of the bucket begins with \"%s\"",
                    location, s->prefix);
}

/* ---- opening ----------------------------------------------------------------------------------
 */

static void describe(struct source_s3 *s)
{
    static const char *const addressing[] = {[S3_ADDRESSING_AUTO] = "auto",
                                             [S3_ADDRESSING_PATH] = "path",
                                             [S3_ADDRESSING_VIRTUAL] = "virtual"};

    s3_place_of(s->s3, s->bucket_name, &s->place);
    s->bucket.bucket = s->bucket_name;
    s->bucket.prefix = s->prefix;
    s->bucket.endpoint = s->place.endpoint[0] ? s->place.endpoint : NULL;
    s->bucket.region = s->place.region;
    s->bucket.addressing = addressing[s->place.addressing];
}

static int open_bucket(struct source_s3 *s, const char *location, const struct source_s3_options *o,
                       struct err *err)
{
    int versioning;
    bool may_be_object;
    int r = s3_parse_location(location, s->bucket_name, s->prefix, err);

    if (r < 0)
        return r;
    size_t n = strlen(s->prefix);
    may_be_object = n > 0 && s->prefix[n - 1] != '/';
    if (may_be_object)
        memcpy(s->prefix + n, "/", 2);
    r = make_client(s, o, err);
    if (r < 0)
        return r;
    /* Who may not ask gets ETags, which pin as well. */
    if (o->pins && s3_bucket_versioning(s->s3, s->bucket_name, &versioning) == 0)
        s->bucket.has_versions = versioning == 1;
    r = list(s, location, o, may_be_object, err);
    if (r == -EACCES && s->bucket.has_versions) {
        err_clear(err);
        s->bucket.has_versions = false;
        r = list(s, location, o, may_be_object, err);
    }
    if (r == 0)
        describe(s);
    return r;
}

/* "s3://bucket/prefix/", the same for all ways to write it. */
static int set_location(struct source_s3 *s)
{
    AUTO(buf_release) struct buf b = BUF_INIT(8192);
    struct rows_cursor c;

    int r = buf_printf(&b, "s3://%s/%s", s->bucket_name, s->prefix);
    if (r == 0 && s->is_object && rows_seek(&s->rows, "", &c))
        r = buf_append_str(&b, c.key);
    if (r < 0)
        return r;
    char *location = strdup(buf_text(&b));
    if (!location)
        return -ENOMEM;
    free(s->base.location);
    s->base.location = location;
    return 0;
}

int source_s3_open(const char *location, const struct source_s3_options *options,
                   struct source **ret, struct err *err)
{
    static const struct source_s3_options none = {.endpoint = NULL};
    const struct source_s3_options *o = options ? options : &none;
    struct source_s3 *s = calloc(1, sizeof *s);

    if (!s)
        return err_fail(err, -ENOMEM, "out of memory");
    pthread_mutex_init(&s->lock, NULL);
    s->pins = o->pins;
    int r = source_init(&s->base, &source_s3_ops, location, true);
    if (r == 0)
        r = set_terms(s, o);
    if (r < 0)
        (void)err_fail(err, r, "cannot open %.200s: %s", location, strerror(-r));
    if (r == 0)
        r = open_bucket(s, location, o, err);
    if (r == 0 && set_location(s) < 0)
        r = err_fail(err, -ENOMEM, "out of memory");
    if (r < 0) {
        source_close(&s->base);
        return r;
    }
    *ret = &s->base;
    return 0;
}
