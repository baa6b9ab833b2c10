/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Opening: whose store is this, and do we know its format?
 *
 * The `fmt` record makes a store one of ours. An empty store becomes one when it is first opened
 * for writing; a place that holds something else is never written to.
 */
#include "catalogue/catalogue-internal.h"

#include "base/file.h"
#include "base/hex.h"

#include <pthread.h>
#include <pwd.h>
#include <unistd.h>

static void describe_writer(struct catalogue *c)
{
    char space[1024], host[sizeof c->host];
    struct passwd entry, *found = NULL;

    c->pid = getpid();
    if (gethostname(host, sizeof host) < 0)
        (void)snprintf(host, sizeof host, "unknown"); /* fits */
    host[sizeof host - 1] = '\0';
    text_copy(c->host, sizeof c->host, host);
    if (getpwuid_r(geteuid(), &entry, space, sizeof space, &found) == 0 && found)
        text_copy(c->user, sizeof c->user, found->pw_name);
    else
        (void)snprintf(c->user, sizeof c->user, "uid-%u", (unsigned)geteuid()); /* fits */
}

static int take_format(struct catalogue *c, const json_t *body, struct err *err)
{
    struct record_fields f = {.body = body, .key = KEY_FORMAT, .err = err};
    uint8_t id[16];
    uint64_t format = record_number(&f, "format", INT64_MAX);

    if (!f.error && format > CATALOGUE_FORMAT)
        return err_fail(err, -EPROTONOSUPPORT,
                        "the store %s has format %llu, and this program knows %d: it needs a newer "
                        "one",
                        c->store->location, (unsigned long long)format, CATALOGUE_FORMAT);
    if (!f.error && format == 0)
        record_bad_field(&f, "format", "is out of range");
    record_hex(&f, "store_id", id, sizeof id);
    c->dead_after_ms = (int64_t)record_number(&f, "dead_after_ms", INT64_MAX);
    (void)record_number(&f, "created_ms", INT64_MAX); /* only that it is there */
    hex_encode(c->store_id, id, sizeof id);
    return f.error;
}

static int first_key(void *ctx, const struct store_entry *entry)
{
    bool *found = ctx;

    *found = true;
    return 1;
}

/* Whether the store holds anything at all. */
static int holds_anything(struct catalogue *c, bool *ret, struct err *err)
{
    bool found = false;

    int r = store_list(c->store, "", &(struct store_list_options){.by_component = true}, first_key,
                       &found, NULL);
    if (r < 0)
        return err_fail(err, r, "cannot list the store %s: %s", c->store->location,
                        store_error(c->store, r));
    *ret = found;
    return 0;
}

static int make_format(struct catalogue *c, json_t **ret, struct err *err)
{
    AUTO(draft_release) struct draft d = {0};
    struct store_probe probe;
    uint8_t id[16];
    char hex[2 * sizeof id + 1];

    int r = store_probe(c->store, &probe, err); /* before anything is decided in it */
    if (r < 0)
        return r;
    c->env->random(c->env, id, sizeof id);
    hex_encode(hex, id, sizeof id);
    json_t *body = json_pack("{s:i, s:s, s:I, s:I}", "format", CATALOGUE_FORMAT, "store_id", hex,
                             "created_ms", (json_int_t)catalogue_now_ms(c), "dead_after_ms",
                             (json_int_t)CATALOGUE_DEAD_AFTER_MS);
    if (body && probe.rounds &&
        json_object_set_new(body, "probe",
                            json_pack("{s:s, s:i, s:i}", "put_if_absent", "kept", "rounds",
                                      (int)probe.rounds, "writers", (int)probe.racers)) < 0) {
        json_decref(body);
        body = NULL;
    }
    r = draft_make(c, RECORD_FORMAT, body, &d, err);
    if (r == 0)
        r = put_record(c, KEY_FORMAT, RECORD_FORMAT, &d, ret, err);
    if (r == -EEXIST) /* somebody else made it a moment ago: theirs holds */
        return 0;
    if (r == 0)
        *ret = json_incref(d.body);
    return r;
}

static int find_format(struct catalogue *c, unsigned flags, json_t **ret, struct err *err)
{
    bool anything = false;

    int r = read_record(c, KEY_FORMAT, RECORD_FORMAT, ret, err);
    if (r != -ENOENT)
        return r;
    r = holds_anything(c, &anything, err);
    if (r < 0)
        return r;
    if (anything) { /* or has it become a store since the first look? */
        r = read_record(c, KEY_FORMAT, RECORD_FORMAT, ret, err);
        if (r == -ENOENT)
            r = err_fail(err, -EPROTO,
                         "%s is not a store of datastores: it holds other things and no record "
                         "\"" KEY_FORMAT "\"",
                         c->store->location);
        return r;
    }
    if (!(flags & CATALOGUE_WRITE))
        return err_fail(err, -ENOENT, "the store %s holds no datastores yet", c->store->location);
    return make_format(c, ret, err);
}

static struct catalogue *catalogue_new(struct store *store, struct env *env, struct err *err)
{
    struct catalogue *c = calloc(1, sizeof *c);

    if (!c) {
        (void)err_fail(err, -ENOMEM, "out of memory"); /* the only reason for NULL */
        return NULL;
    }
    c->store = store;
    c->env = env;
    c->readers = CATALOGUE_READERS;
    describe_writer(c);
    return c;
}

void catalogue_known(const struct catalogue *c, struct catalogue_known *ret)
{
    memcpy(ret->store_id, c->store_id, sizeof ret->store_id);
    ret->dead_after_ms = c->dead_after_ms;
}

int catalogue_open_known(struct store *store, struct env *env, const struct catalogue_known *known,
                         struct catalogue **ret, struct err *err)
{
    struct catalogue *c = catalogue_new(store, env, err);

    if (!c)
        return -ENOMEM;
    memcpy(c->store_id, known->store_id, sizeof c->store_id);
    c->dead_after_ms = known->dead_after_ms;
    *ret = c;
    return 0;
}

int catalogue_open(struct store *store, struct env *env, unsigned flags, struct catalogue **ret,
                   struct err *err)
{
    AUTO(catalogue_close) struct catalogue *c = catalogue_new(store, env, err);
    AUTO(json_decref) json_t *format = NULL;

    if (!c)
        return -ENOMEM;
    int r = find_format(c, flags, &format, err);
    if (r == 0)
        r = take_format(c, format, err);
    if (r == 0)
        *ret = take_ptr(&c);
    return r;
}

/* ---- beside the first request ---- */

struct opening {
    struct catalogue *c;
    pthread_t thread;
    char *keep; /* owned; where records will be kept, NULL: nowhere */
    json_t *format;
    int result;
    struct err err;
};

static void *read_format(void *arg)
{
    struct opening *o = arg;

    o->result = find_format(o->c, CATALOGUE_READ, &o->format, &o->err);
    return NULL;
}

static void opening_free(struct opening *o)
{
    json_decref(o->format);
    free(o->keep);
    free(o);
}

int catalogue_open_beside(struct store *store, struct env *env, struct catalogue **ret,
                          struct err *err)
{
    AUTO(catalogue_close) struct catalogue *c = catalogue_new(store, env, err);
    struct opening *o = c ? calloc(1, sizeof *o) : NULL;

    if (!c)
        return -ENOMEM;
    if (!o)
        return err_fail(err, -ENOMEM, "out of memory");
    o->c = c;
    int r = -pthread_create(&o->thread, NULL, read_format, o);
    if (r < 0) {
        opening_free(o);
        return err_fail(err, r, "cannot start a thread");
    }
    c->opening = o;
    *ret = take_ptr(&c);
    return 0;
}

int catalogue_settle(struct catalogue *c, struct err *err)
{
    struct opening *o = c->opening;

    if (!o)
        return c->store_id[0] ? 0 : err_fail(err, -EINVAL, "the store was not opened");
    (void)pthread_join(o->thread, NULL); /* ours, joinable: cannot fail */
    c->opening = NULL;
    int r = o->result < 0 ? err_fail(err, o->result, "%s", err_text(&o->err, o->result))
                          : take_format(c, o->format, err);
    if (r == 0 && o->keep)
        (void)catalogue_keep_records(c, o->keep); /* else they are read each time */
    opening_free(o);
    return r;
}

void catalogue_close(struct catalogue *c)
{
    if (!c)
        return;
    if (c->opening)
        (void)catalogue_settle(c, NULL); /* nobody wants it any more */
    keep_close(c->keep);
    free(c);
}

int catalogue_keep_records(struct catalogue *c, const char *directory)
{
    AUTO(free_ptr) char *path = NULL;

    if (c->opening) {
        free(c->opening->keep);
        c->opening->keep = strdup(directory);
        return c->opening->keep ? 0 : -ENOMEM;
    }
    int r = c->keep ? 0 : file_mkdirs(directory, 0700);

    if (r < 0 || c->keep)
        return r;
    if (asprintf(&path, "%s/%s", directory, c->store_id) < 0)
        return -ENOMEM;
    return keep_open(path, &c->keep);
}

void catalogue_set_readers(struct catalogue *c, unsigned readers)
{
    c->readers = readers ? readers : 1;
}

struct store *catalogue_store(const struct catalogue *c)
{
    return c->store;
}

const char *catalogue_store_id(const struct catalogue *c)
{
    return c->store_id;
}

const char *version_status_name(enum version_status s)
{
    static const char *const names[] = {
        [VERSION_PROCESSING] = "processing", [VERSION_OPTIMIZING] = "optimizing",
        [VERSION_SUCCEEDED] = "succeeded",   [VERSION_FAILED] = "failed",
        [VERSION_DELETED] = "deleted",
    };
    return names[s];
}
