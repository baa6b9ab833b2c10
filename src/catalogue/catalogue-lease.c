/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What holders and deleters share: leases on a version and the rounds of its deletion, read and
 * written (I13, I14).
 *
 * Enumerations here decide whether a version may go, so they fail closed: an unknown key or a
 * damaged record is an error, never "nobody" (R6).
 */
#include "catalogue/catalogue-internal.h"

#include <inttypes.h>

/* A lease that is replaced between the listing and the reading is looked for again. */
#define READ_TRIES 5
/* No holder may ask to be believed for longer after it was last seen. */
#define TTL_MAX_MS (INT64_C(24) * 3600 * 1000)
/* Leases and rounds of one version; far beyond a cluster's machines. */
#define LEASES_MAX 100000u

struct hold_times hold_times_or_default(const struct hold_times *t)
{
    if (t->ttl_ms > 0)
        return *t;
    return (struct hold_times){HOLD_TTL_MS, HOLD_RENEW_MS, HOLD_MARGIN_MS};
}

/* ---- holders ---- */

json_t *holder_body(const struct holder *h)
{
    return json_pack("{s:s, s:I, s:s, s:I}", "host", h->host, "pid", (json_int_t)h->pid, "job",
                     h->text, "since_ms", (json_int_t)h->since_ms);
}

int holders_parse(struct record_fields *f, const char *host, struct holders *ret)
{
    const json_t *list = record_member(f, "holders", JSON_ARRAY);
    const json_t *row;
    size_t i;

    if (f->error)
        return f->error;
    json_array_foreach(list, i, row)
    {
        struct record_fields in = {.body = row, .key = f->key, .err = f->err};
        struct holder h = {0};
        if (!json_is_object(row)) {
            record_bad_field(f, "holders", "holds something that is no object");
            return f->error;
        }
        text_copy(h.host, sizeof h.host, host ? host : record_string(&in, "host"));
        text_copy(h.text, sizeof h.text, record_string(&in, "job"));
        h.pid = (int64_t)record_number(&in, "pid", INT64_MAX);
        if (json_object_get(row, "since_ms"))
            h.since_ms = (int64_t)record_number(&in, "since_ms", INT64_MAX);
        if (in.error)
            return f->error = in.error;
        if (vec_push(&ret->rows, h) < 0)
            return f->error = err_fail(f->err, -ENOMEM, "out of memory");
    }
    return 0;
}

/* ---- leases ---- */

void leases_release(struct leases *l)
{
    for (size_t i = 0; i < l->rows.count; i++)
        vec_release(&l->rows.at[i].holders.rows);
    vec_release(&l->rows);
}

/* The newest key of each lease: they are listed by lease, then by seq. */
struct lease_lister {
    struct catalogue *c;
    struct leases *leases;
    VEC(int64_t) mtimes; /* beside leases->rows */
    struct err *err;
    int error;
};

static int take_lease(void *ctx, const struct store_entry *entry)
{
    struct lease_lister *l = ctx;
    struct lease_parts parts;
    size_t last = l->leases->rows.count;

    if (!key_parse_lease(entry->key, &parts)) {
        l->error = err_fail(l->err, -EPROTO, "%s is no lease that this program knows", entry->key);
        return 1;
    }
    if (last > 0 &&
        memcmp(&l->leases->rows.at[last - 1].id, &parts.lease, sizeof parts.lease) == 0) {
        if (parts.seq >= l->leases->rows.at[last - 1].seq) {
            l->leases->rows.at[last - 1].seq = parts.seq;
            l->mtimes.at[last - 1] = entry->mtime_ms;
        }
        return 0;
    }
    struct lease lease = {.id = parts.lease, .seq = parts.seq};
    if (last >= LEASES_MAX)
        l->error = err_fail(l->err, -EFBIG, "a version has more than %u leases", LEASES_MAX);
    else if (vec_push(&l->mtimes, entry->mtime_ms) < 0 || vec_push(&l->leases->rows, lease) < 0)
        l->error = err_fail(l->err, -ENOMEM, "out of memory");
    return l->error ? 1 : 0;
}

static int list_leases(struct catalogue *c, const char *name, uint32_t n, struct leases *ret,
                       struct err *err)
{
    struct lease_lister l = {.c = c, .leases = ret, .err = err};
    char prefix[CATALOGUE_KEY_MAX];
    int64_t now = 0;

    key_leases(prefix, name, n, "");
    int r = store_list(c->store, prefix, NULL, take_lease, &l, &now);
    if (l.error)
        r = l.error;
    else if (r < 0)
        (void)err_fail(err, r, "cannot list %s in the store %s: %s", prefix, c->store->location,
                       store_error(c->store, r));
    for (size_t i = 0; r == 0 && i < ret->rows.count; i++)
        ret->rows.at[i].age_ms = now > l.mtimes.at[i] ? now - l.mtimes.at[i] : 0;
    vec_release(&l.mtimes);
    return r;
}

static void take_process(struct record_fields *f, struct hold_process *p)
{
    text_copy(p->host, sizeof p->host, record_string(f, "host"));
    text_copy(p->boot_id, sizeof p->boot_id, record_string(f, "boot_id"));
    p->pid = (int64_t)record_number(f, "pid", INT64_MAX);
    p->pid_start = record_number(f, "pid_start", INT64_MAX);
    if (!f->error && json_object_get(f->body, "pid_ns"))
        p->pid_ns = record_number(f, "pid_ns", INT64_MAX);
    if (!f->error && json_object_get(f->body, "machine"))
        text_copy(p->machine, sizeof p->machine, record_string(f, "machine"));
}

/* -ENOENT: replaced or released since the listing. */
static int read_lease(struct catalogue *c, const char *name, uint32_t n, struct lease *l,
                      struct err *err)
{
    AUTO(json_decref) json_t *body = NULL;
    char key[CATALOGUE_KEY_MAX];
    struct session_id id;

    key_lease(key, name, n, &l->id, l->seq);
    int r = read_record(c, key, RECORD_LEASE, &body, err);
    if (r < 0)
        return r;
    struct record_fields f = {.body = body, .key = key, .err = err};
    record_hex(&f, "lease", &id, sizeof id);
    if (!f.error && memcmp(&id, &l->id, sizeof id) != 0)
        record_bad_field(&f, "lease", "is not that of its key");
    if (record_number(&f, "seq", UINT32_MAX) != l->seq)
        record_bad_field(&f, "seq", "is not that of its key");
    l->ttl_ms = (int64_t)record_number(&f, "ttl_ms", TTL_MAX_MS);
    take_process(&f, &l->process);
    if (!f.error)
        (void)holders_parse(&f, l->process.host, &l->holders); /* f.error tells */
    if (!f.error && l->holders.rows.count == 0) {
        struct holder server = {.pid = l->process.pid};
        memcpy(server.host, l->process.host, sizeof server.host);
        if (vec_push(&l->holders.rows, server) < 0)
            return err_fail(err, -ENOMEM, "out of memory");
    }
    return f.error;
}

int leases_read(struct catalogue *c, const char *name, uint32_t n, struct leases *ret,
                struct err *err)
{
    int r = -ENOENT;

    for (int i = 0; r == -ENOENT && i < READ_TRIES; i++) {
        AUTO(leases_release) struct leases leases = {0};
        r = list_leases(c, name, n, &leases, err);
        for (size_t k = 0; r == 0 && k < leases.rows.count; k++)
            r = read_lease(c, name, n, &leases.rows.at[k], err);
        if (r == 0) {
            *ret = leases;
            leases = (struct leases){0};
        }
    }
    if (r == -ENOENT)
        return err_fail(err, -EBUSY,
                        "version %" PRIu32 " of '%s' is being attached and detached all the time",
                        n, name);
    return r;
}

int catalogue_holders(struct catalogue *c, const char *name, uint32_t version,
                      catalogue_holder_fn *fn, void *ctx, struct err *err)
{
    AUTO(leases_release) struct leases leases = {0};

    int r = leases_read(c, name, version, &leases, err);
    for (size_t i = 0; r == 0 && i < leases.rows.count; i++) {
        const struct lease *l = &leases.rows.at[i];
        if (l->age_ms > l->ttl_ms || hold_process_is_gone(&l->process))
            continue;
        for (size_t k = 0; r == 0 && k < l->holders.rows.count; k++)
            r = fn(ctx, &l->holders.rows.at[k]);
    }
    return r;
}

/* ---- delete rounds ---- */

struct round_lister {
    struct delete_rounds *rounds;
    struct err *err;
    int error;
};

static int take_delete_key(void *ctx, const struct store_entry *entry)
{
    struct round_lister *l = ctx;
    struct delete_rounds *d = l->rounds;
    struct key_parts parts;

    if (!key_parse_version(entry->key, &parts) ||
        (parts.leaf != KEY_LEAF_DELETE_INTENT && parts.leaf != KEY_LEAF_DELETE_RESULT)) {
        l->error =
            err_fail(l->err, -EPROTO, "%s is no delete round that this program knows", entry->key);
        return 1;
    }
    if (d->rows.count == 0 || d->rows.at[d->rows.count - 1].round != parts.delete_round) {
        struct delete_round fresh = {.round = parts.delete_round};
        if (vec_push(&d->rows, fresh) < 0) {
            l->error = err_fail(l->err, -ENOMEM, "out of memory");
            return 1;
        }
    }
    if (parts.leaf == KEY_LEAF_DELETE_INTENT)
        d->rows.at[d->rows.count - 1].intent = true;
    else
        d->rows.at[d->rows.count - 1].result = true;
    return 0;
}

int delete_rounds_list(struct catalogue *c, const char *name, uint32_t n, struct delete_rounds *ret,
                       struct err *err)
{
    AUTO(delete_rounds_release) struct delete_rounds rounds = {0};
    struct round_lister l = {.rounds = &rounds, .err = err};
    char prefix[CATALOGUE_KEY_MAX];

    key_version(prefix, name, n, "d/");
    int r = store_list(c->store, prefix, NULL, take_delete_key, &l, NULL);
    if (l.error)
        return l.error;
    if (r < 0)
        return err_fail(err, r, "cannot list %s in the store %s: %s", prefix, c->store->location,
                        store_error(c->store, r));
    *ret = rounds;
    rounds = (struct delete_rounds){0};
    return 0;
}

int delete_result_decode(const json_t *body, const char *key, bool *ret_deleted, struct err *err)
{
    struct record_fields f = {.body = body, .key = key, .err = err};
    const char *decision = record_string(&f, "decision");
    bool deleted = strcmp(decision, "deleted") == 0;

    if (!f.error && !deleted && strcmp(decision, "refused") != 0)
        record_bad_field(&f, "decision", "is neither \"deleted\" nor \"refused\"");
    if (f.error == 0)
        *ret_deleted = deleted;
    return f.error;
}

int delete_result_write(struct catalogue *c, const char *name, uint32_t n, uint32_t round,
                        bool deleted, json_t *holders, bool *ret_deleted, json_t **ret_other,
                        struct err *err)
{
    AUTO(draft_release) struct draft d = {0};
    AUTO(json_decref) json_t *other = NULL;
    AUTO(json_decref) json_t *named = holders;
    char key[CATALOGUE_KEY_MAX];

    key_delete_round(key, name, n, round, 'r');
    int r = draft_make(c, RECORD_DELETE_RESULT,
                       json_pack("{s:s, s:I, s:I, s:s, s:O}", "name", name, "version",
                                 (json_int_t)n, "round", (json_int_t)round, "decision",
                                 deleted ? "deleted" : "refused", "holders", named),
                       &d, err);
    if (r == 0)
        r = put_record(c, key, RECORD_DELETE_RESULT, &d, &other, err);
    if (r == 0)
        *ret_deleted = deleted;
    if (r != -EEXIST)
        return r;
    r = delete_result_decode(other, key, ret_deleted, err);
    if (r == 0 && ret_other)
        *ret_other = take_ptr(&other);
    return r;
}
