/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Collection rounds (I9 to I11): condemn, see which uploads run, wait for their outcome, read all
 * versions again, write the sweep list, remove, end. Each step is one key written once, so rounds
 * may be shared, taken over and resumed: what a key says is what holds, whoever wrote it.
 *
 * Nothing here looks at an age but the expiry of dead uploads, which costs an upload and no data
 * (R8). Nothing is removed unless all enumerations before it were whole (I16).
 */
#include "catalogue/catalogue-internal.h"

#include <inttypes.h>

/* Ranges of a list: 60 bytes each, so that a record has room. */
#define RANGES_MAX 12000u

/* ---- rounds ---- */

struct round_lister {
    struct collection *g;
    struct collect_round newest, at; /* listed newest first */
};

static int odd_round(struct collection *g, uint64_t number)
{
    g->error = err_fail(g->err, -EPROTO,
                        "the records of collection round %" PRIu64
                        " in the store %s are not all there: nothing is collected",
                        number, g->c->store->location);
    return 1;
}

/* All but the newest have ended; they end in 1. */
static int leave_round(struct round_lister *l, uint64_t next)
{
    struct collection *g = l->g;
    struct collect_round *r = &l->at;

    if (r->number == 0)
        return 0;
    bool whole = r->condemned && (!r->ended || r->swept);
    if (!whole || r->number != next + 1)
        return odd_round(g, whole ? r->number - 1 : r->number);
    if (l->newest.number == 0)
        l->newest = *r;
    else if (!r->ended)
        return odd_round(g, r->number);
    if (r->ended && g->last_ended == 0)
        g->last_ended = r->number;
    return 0;
}

static int take_round_key(void *ctx, const struct store_entry *entry)
{
    struct round_lister *l = ctx;
    uint64_t number;
    char leaf;

    if (!key_parse_round(entry->key, &number, &leaf)) {
        l->g->error = err_fail(l->g->err, -EPROTO,
                               "%s is no collection record that this program "
                               "knows: nothing is collected",
                               entry->key);
        return 1;
    }
    if (number != l->at.number) {
        if (leave_round(l, number))
            return 1;
        l->at = (struct collect_round){.number = number};
    }
    l->at.condemned |= leaf == 'c';
    l->at.awaited |= leaf == 's';
    l->at.swept |= leaf == 'w';
    l->at.ended |= leaf == 'e';
    return 0;
}

/* Which round it is, and how far it has come. */
static int find_round(struct collection *g)
{
    struct round_lister l = {.g = g};

    g->last_ended = 0;
    int r = store_list(g->c->store, KEY_ROUNDS, NULL, take_round_key, &l, NULL);
    if (g->error)
        return g->error;
    if (r < 0)
        return err_fail(g->err, r, "cannot list the collection rounds in the store %s: %s",
                        g->c->store->location, store_error(g->c->store, r));
    if (leave_round(&l, 0))
        return g->error;
    g->round = l.newest;
    if (l.newest.number == 0 || l.newest.ended)
        g->round = (struct collect_round){.number = l.newest.number + 1};
    return 0;
}

/* Write a record of the round, or accept the one that somebody else has written. */
int round_write(struct collection *g, char leaf, enum record_type type, json_t *body)
{
    AUTO(draft_release) struct draft d = {0};
    AUTO(json_decref) json_t *owned = body;
    char key[CATALOGUE_KEY_MAX];

    key_round(key, g->round.number, leaf);
    if (owned && json_object_set_new(owned, "round", json_integer((json_int_t)g->round.number)) < 0)
        return err_fail(g->err, -ENOMEM, "out of memory");
    int r = draft_make(g->c, type, take_ptr(&owned), &d, g->err);
    if (r == 0)
        r = put_record(g->c, key, type, &d, NULL, g->err);
    return r == -EEXIST ? 0 : r;
}

int round_read(struct collection *g, char leaf, enum record_type type, json_t **ret)
{
    AUTO(json_decref) json_t *body = NULL;
    char key[CATALOGUE_KEY_MAX];

    key_round(key, g->round.number, leaf);
    int r = read_record_settled(g->c, key, type, &body, g->err);
    if (r == -ENOENT)
        return err_fail(g->err, -EPROTO, "the record %s is missing in the store %s", key,
                        g->c->store->location);
    if (r < 0)
        return r;
    struct record_fields f = {.body = body, .key = key, .err = g->err};
    if (record_number(&f, "round", KEY_REVERSE) != g->round.number)
        record_bad_field(&f, "round", "is not that of its key");
    if (f.error == 0)
        *ret = take_ptr(&body);
    return f.error;
}

/* ---- condemn ---- */

/* More versions were committed before the last round's end than can be seen now: a listing lacks
 * something. */
static int check_growth(struct collection *g)
{
    AUTO(json_decref) json_t *body = NULL;
    struct collect_round now = g->round;

    if (g->last_ended == 0)
        return 0;
    g->round.number = g->last_ended;
    int r = round_read(g, 'e', RECORD_ROUND_END, &body);
    g->round = now;
    if (r < 0)
        return r;
    struct record_fields f = {.body = body, .key = "of the last round's end", .err = g->err};
    uint64_t before = record_number(&f, "committed", INT64_MAX);
    if (f.error)
        return f.error;
    if (before > g->survey.committed)
        return err_fail(g->err, -EPROTO,
                        "%" PRIu64 " versions had been committed in the store %s and %" PRIu64
                        " can be seen: nothing is collected",
                        before, g->c->store->location, g->survey.committed);
    return 0;
}

static int condemn(struct collection *g)
{
    AUTO(json_decref) json_t *ranges = json_array();
    uint64_t objects, bytes;

    if (!ranges)
        return err_fail(g->err, -ENOMEM, "out of memory");
    int r = survey_candidates(&g->survey, RANGES_MAX, ranges, &objects, &bytes, g->err);
    if (r < 0)
        return r;
    if (g->options->dry_run) {
        g->report.objects = objects;
        g->report.bytes = bytes;
        return 0;
    }
    if (json_array_size(ranges) == 0) /* no round for nothing */
        return 0;
    r = round_write(g, 'c', RECORD_CONDEMNED, json_pack("{s:O}", "objects", ranges));
    g->round.condemned = r == 0;
    return r;
}

/* ---- wait ---- */

struct session_row {
    struct session_id session;
};

struct sessions {
    VEC(struct session_row) rows; /* with a record 'i' */
    struct collection *g;
};

static int take_session(void *ctx, const struct store_entry *entry)
{
    struct sessions *s = ctx;
    struct session_row row;
    char leaf;

    if (!key_parse_session(entry->key, &row.session, &leaf)) {
        s->g->error = err_fail(s->g->err, -EPROTO,
                               "%s is no record of an upload that this program "
                               "knows: nothing is collected",
                               entry->key);
        return 1;
    }
    if (leaf == 'i' && vec_push(&s->rows, row) < 0) {
        s->g->error = err_fail(s->g->err, -ENOMEM, "out of memory");
        return 1;
    }
    return 0;
}

/* Whether the upload (name, n) has an outcome. */
static int is_decided(struct catalogue *c, const char *name, uint32_t n, bool *ret, struct err *err)
{
    AUTO(json_decref) json_t *body = NULL;
    struct version_info info;
    char key[CATALOGUE_KEY_MAX];

    key_version(key, name, n, "o");
    int r = read_record(c, key, RECORD_OUTCOME, &body, err);
    *ret = r == 0;
    if (r == -ENOENT)
        return 0;
    return r < 0 ? r : version_from_outcome(body, key, name, n, &info, err);
}

/* The upload that a session's record names. -ENOENT: it has been removed, so it is decided. */
static int read_session(struct collection *g, const struct session_id *id, struct collect_wait *ret)
{
    AUTO(json_decref) json_t *body = NULL;
    char key[CATALOGUE_KEY_MAX];

    key_session(key, id, "i");
    int r = read_record(g->c, key, RECORD_SESSION, &body, g->err);
    if (r < 0)
        return r;
    struct record_fields f = {.body = body, .key = key, .err = g->err};
    const char *name = record_string(&f, "name");
    ret->version = (uint32_t)record_number(&f, "version", CATALOGUE_VERSION_MAX);
    if (!f.error && snprintf(ret->name, sizeof ret->name, "%s", name) >= (int)sizeof ret->name)
        record_bad_field(&f, "name", "is no name");
    return f.error;
}

/* Every upload that is registered behind the condemned list and has no outcome. */
static int list_undecided(struct collection *g, json_t *ret)
{
    struct sessions s = {.g = g};

    int r = store_list(g->c->store, "s/", NULL, take_session, &s, NULL);
    if (g->error)
        r = g->error;
    else if (r < 0)
        (void)err_fail(g->err, r, "cannot list the uploads in the store %s: %s",
                       g->c->store->location, store_error(g->c->store, r));
    for (size_t i = 0; r == 0 && i < s.rows.count; i++) {
        const struct survey_version *v = survey_session(&g->survey, &s.rows.at[i].session);
        struct collect_wait w = {0};
        bool decided = false;
        if (v && v->decided)
            continue;
        r = read_session(g, &s.rows.at[i].session, &w);
        if (r == -ENOENT) {
            r = 0;
            continue;
        }
        if (r == 0)
            r = is_decided(g->c, w.name, w.version, &decided, g->err);
        if (r == 0 && !decided &&
            json_array_append_new(
                ret, json_pack("{s:s, s:I}", "name", w.name, "version", (json_int_t)w.version)) < 0)
            r = err_fail(g->err, -ENOMEM, "out of memory");
    }
    vec_release(&s.rows);
    return r;
}

static void tell_wait(struct collection *g, struct collect_wait *w)
{
    AUTO(free_ptr) struct version_info *info = calloc(1, sizeof *info);

    g->report.waits++;
    if (!g->options->waits_for)
        return;
    if (info && version_read_allocation(g->c, w->name, w->version, info, NULL) == 0) {
        memcpy(w->owner, info->owner, sizeof w->owner);
        memcpy(w->host, info->host, sizeof w->host);
        w->since_ms = info->created_ms;
    }
    g->options->waits_for(g->options->ctx, w);
}

/* Say which of the uploads in `list` are still undecided. */
static int look_at_waits(struct collection *g, const json_t *list)
{
    const json_t *row;
    size_t i;

    json_array_foreach(list, i, row)
    {
        struct record_fields f = {.body = row, .key = "of the awaited uploads", .err = g->err};
        struct collect_wait w = {0};
        bool decided = false;
        if (!json_is_object(row))
            return err_fail(g->err, -EPROTO, "the list of awaited uploads is damaged");
        const char *name = record_string(&f, "name");
        w.version = (uint32_t)record_number(&f, "version", CATALOGUE_VERSION_MAX);
        if (!f.error && snprintf(w.name, sizeof w.name, "%s", name) >= (int)sizeof w.name)
            record_bad_field(&f, "name", "is no name");
        if (f.error)
            return f.error;
        int r = is_decided(g->c, w.name, w.version, &decided, g->err);
        if (r < 0)
            return r;
        if (!decided)
            tell_wait(g, &w);
    }
    return 0;
}

/* The list of uploads that run while the round does is made once: later ones have read the
 * condemned list. Else a busy store would never be collected. */
static int await_uploads(struct collection *g)
{
    AUTO(json_decref) json_t *list = json_array();
    AUTO(json_decref) json_t *body = NULL;
    int r = 0;

    if (!g->round.awaited) {
        r = list ? list_undecided(g, list) : err_fail(g->err, -ENOMEM, "out of memory");
        if (r < 0 || json_array_size(list) == 0 || g->options->dry_run)
            return r < 0 ? r : look_at_waits(g, list);
        r = round_write(g, 's', RECORD_AWAITED, json_pack("{s:O}", "uploads", list));
        if (r < 0)
            return r;
        g->round.awaited = true;
    }
    r = round_read(g, 's', RECORD_AWAITED, &body);
    if (r < 0)
        return r;
    struct record_fields f = {.body = body, .key = "of the awaited uploads", .err = g->err};
    const json_t *uploads = record_member(&f, "uploads", JSON_ARRAY);
    return f.error ? f.error : look_at_waits(g, uploads);
}

/* ---- end ---- */

static int end_round(struct collection *g)
{
    struct collect_report *p = &g->report;

    return round_write(g, 'e', RECORD_ROUND_END,
                       json_pack("{s:I, s:I, s:I, s:I}", "objects", (json_int_t)p->objects, "bytes",
                                 (json_int_t)p->bytes, "versions", (json_int_t)g->survey.available,
                                 "committed", (json_int_t)g->survey.committed));
}

/* ---- the verb ---- */

static int run_round(struct collection *g)
{
    int r = 0;

    if (!g->round.condemned)
        r = condemn(g);
    if (r < 0 || (!g->round.condemned && !g->options->dry_run))
        return r;
    g->report.round = g->round.condemned ? g->round.number : 0;
    if (!g->round.swept)
        r = await_uploads(g);
    if (r < 0 || g->options->dry_run || g->report.waits)
        return r;
    if (!g->round.swept)
        r = round_write_sweep(g);
    if (r == 0)
        r = round_sweep(g);
    if (r == 0)
        r = end_round(g);
    g->report.ended = r == 0;
    return r;
}

/* Of a round that somebody has begun, a dry run shows what is left of its list. */
static int collect(struct collection *g)
{
    int r = 0;

    if (!g->options->dry_run)
        r = catalogue_expire(g->c, NULL, &g->report.expired, g->err);
    if (r == 0)
        r = survey_take(&g->survey, g->c, g->err);
    if (r == 0)
        r = find_round(g);
    if (r == 0)
        r = check_growth(g);
    g->report.versions = g->survey.available;
    if (r == 0 && g->options->dry_run)
        g->round.condemned = false;
    if (r == 0)
        r = run_round(g);
    if (r == 0 && !g->options->dry_run && !g->report.waits)
        r = collect_tidy(g->c, &g->survey, g->options, &g->report.records, g->err);
    return r;
}

int catalogue_collect(struct catalogue *c, const struct collect_options *options,
                      struct collect_report *ret, struct err *err)
{
    struct collection g = {.c = c, .options = options, .err = err};

    int r = collect(&g);
    survey_release(&g.survey);
    vec_release(&g.list);
    if (r == 0)
        *ret = g.report;
    return r;
}
