/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a collector clears away behind a round: the records of uploads that are decided and have no
 * object left (I12), and leases that protect nothing.
 *
 * A lease on an available version is left to run out in the eyes of a deleter; only when its holder
 * has been silent for as long as makes an upload dead, or is gone for certain, is it removed. None
 * of this frees space worth a risk.
 */
#include "catalogue/catalogue-internal.h"

#include <inttypes.h>

struct stray {
    char key[CATALOGUE_KEY_MAX];
    struct session_id session; /* or of the lease */
    char leaf;
    struct lease_parts lease;
    int64_t mtime_ms;
};

struct strays {
    VEC(struct stray) rows;
    struct err *err;
    int error;
};

static int keep_stray(struct strays *s, const struct stray *stray)
{
    if (vec_push(&s->rows, *stray) < 0) {
        s->error = err_fail(s->err, -ENOMEM, "out of memory");
        return 1;
    }
    return 0;
}

static int unknown(struct strays *s, const char *key)
{
    s->error = err_fail(s->err, -EPROTO, "%s is nothing that this program knows", key);
    return 1;
}

static int take_session_key(void *ctx, const struct store_entry *entry)
{
    struct strays *s = ctx;
    struct stray stray = {0};

    if (!key_parse_session(entry->key, &stray.session, &stray.leaf))
        return unknown(s, entry->key);
    (void)snprintf(stray.key, sizeof stray.key, "%s", entry->key); /* parsed, so it fits */
    return keep_stray(s, &stray);
}

static int take_lease_key(void *ctx, const struct store_entry *entry)
{
    struct strays *s = ctx;
    struct stray stray = {.mtime_ms = entry->mtime_ms};

    if (!key_parse_lease(entry->key, &stray.lease))
        return unknown(s, entry->key);
    (void)snprintf(stray.key, sizeof stray.key, "%s", entry->key); /* parsed, so it fits */
    return keep_stray(s, &stray);
}

static int list_strays(struct catalogue *c, const char *prefix, store_list_fn *fn, struct strays *s,
                       int64_t *ret_now_ms)
{
    int r = store_list(c->store, prefix, NULL, fn, s, ret_now_ms);

    if (s->error)
        return s->error;
    return r < 0 ? err_fail(s->err, r, "cannot list %s in the store %s: %s", prefix,
                            c->store->location, store_error(c->store, r))
                 : 0;
}

static int remove_stray(struct catalogue *c, const char *key, uint64_t *count, struct err *err)
{
    int r = store_remove(c->store, key);

    if (r < 0)
        return err_fail(err, r, "cannot remove %s from the store %s: %s", key, c->store->location,
                        store_error(c->store, r));
    ++*count;
    return 0;
}

/* ---- sessions ---- */

static int found_one(void *ctx, const struct store_entry *entry)
{
    *(bool *)ctx = true;
    return 1;
}

static int has_objects(struct catalogue *c, const struct session_id *id, bool *ret, struct err *err)
{
    static const char letters[] = "mpx";
    char prefix[CATALOGUE_KEY_MAX];

    *ret = false;
    for (const char *p = letters; *p && !*ret; p++) {
        key_objects(prefix, *p, id);
        int r = store_list(c->store, prefix, NULL, found_one, ret, NULL);
        if (r < 0)
            return err_fail(err, r, "cannot list %s in the store %s: %s", prefix,
                            c->store->location, store_error(c->store, r));
    }
    return 0;
}

/* Available versions keep their session: they have objects. No listing is needed to see that. */
static bool is_over(const struct survey *s, const struct session_id *id)
{
    const struct survey_version *v = survey_session(s, id);

    return v && v->decided && !survey_names(s, 'm', id, v->manifest.seq);
}

static int tidy_sessions(struct catalogue *c, const struct survey *s, uint64_t *count,
                         struct err *err)
{
    struct strays strays = {.err = err};
    bool objects = true;

    int r = list_strays(c, "s/", take_session_key, &strays, NULL);
    /* Heartbeats stand before the session's record in the listing: it goes last. */
    for (size_t i = 0; r == 0 && i < strays.rows.count; i++) {
        const struct stray *stray = &strays.rows.at[i];
        bool same = i > 0 && memcmp(&strays.rows.at[i - 1].session, &stray->session,
                                    sizeof stray->session) == 0;
        if (!is_over(s, &stray->session))
            continue;
        if (!same)
            r = has_objects(c, &stray->session, &objects, err);
        if (r == 0 && !objects)
            r = remove_stray(c, stray->key, count, err);
    }
    vec_release(&strays.rows);
    return r;
}

/* ---- leases ---- */

static bool is_attachable(const struct survey *s, const char *name, uint32_t n)
{
    size_t low = 0, high = s->versions.count; /* ascending by name, descending by number */

    while (low < high) {
        size_t middle = low + (high - low) / 2;
        const struct survey_version *v = &s->versions.at[middle];
        int order = strcmp(v->name, name);
        if (order == 0)
            order = v->version > n ? -1 : v->version < n ? 1 : 0;
        if (order == 0)
            return v->available || !v->decided;
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return true; /* newer than the survey */
}

/* Certainly gone: of this machine, or silent for days. */
static int is_abandoned(struct catalogue *c, const struct stray *stray, int64_t now_ms,
                        const struct collect_options *options, bool *ret, struct err *err)
{
    AUTO(leases_release) struct leases leases = {0};
    const struct lease_parts *p = &stray->lease;

    *ret = now_ms - stray->mtime_ms > c->dead_after_ms;
    if (*ret)
        return 0;
    int r = leases_read(c, p->name, p->version, &leases, err);
    for (size_t i = 0; r == 0 && i < leases.rows.count; i++) {
        const struct lease *l = &leases.rows.at[i];
        if (memcmp(&l->id, &p->lease, sizeof l->id) == 0)
            *ret = options->is_gone ? options->is_gone(options->ctx, &l->process)
                                    : hold_process_is_gone(&l->process);
    }
    return r;
}

static int tidy_leases(struct catalogue *c, const struct survey *s,
                       const struct collect_options *options, uint64_t *count, struct err *err)
{
    struct strays strays = {.err = err};
    int64_t now = 0;

    int r = list_strays(c, "l/", take_lease_key, &strays, &now);
    for (size_t i = 0; r == 0 && i < strays.rows.count; i++) {
        const struct stray *stray = &strays.rows.at[i];
        bool stays = is_attachable(s, stray->lease.name, stray->lease.version);
        if (stays) {
            bool abandoned = false;
            r = is_abandoned(c, stray, now, options, &abandoned, err);
            stays = !abandoned;
        }
        if (r == 0 && !stays)
            r = remove_stray(c, stray->key, count, err);
    }
    vec_release(&strays.rows);
    return r;
}

int collect_tidy(struct catalogue *c, const struct survey *s, const struct collect_options *options,
                 uint64_t *ret_records, struct err *err)
{
    uint64_t count = 0;

    int r = tidy_sessions(c, s, &count, err);
    if (r == 0)
        r = tidy_leases(c, s, options, &count, err);
    *ret_records = count;
    return r;
}
