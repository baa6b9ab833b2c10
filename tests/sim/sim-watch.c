/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The judge of holding, deleting and collecting: sees every change of the raw store when it
 * happens, and compares it with what holders believe at that moment and with what commits name. It
 * shares no code with the catalogue but for the decoder of manifests.
 */
#include "sim.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>

#define VERSIONS_MAX 256

struct stamp {
    char *key;
    int64_t ms;
};

/* An object that a committed version names. */
struct named {
    char key[OBJECT_KEY_MAX];
    int name;
    uint32_t version;
};

/* An upload that was registered and undecided when a condemned list landed. */
struct running {
    uint64_t round;
    char outcome[128]; /* its key */
};

/* A condemned range, and when its round had lists and an end. */
struct condemned {
    uint64_t round, from_step, to_step; /* 0: no end yet */
    char prefix[OBJECT_KEY_MAX];        /* "p/<session>/" */
    uint32_t first, last;
};

struct begun {
    struct session_id session;
    uint64_t read_step, step; /* the lists were read between these */
};

struct watch {
    VEC(struct condemned) condemned;
    VEC(struct begun) begun;
    VEC(struct stamp) stamps;
    VEC(struct named) named;
    VEC(struct running) running;
    bool deleted[SIM_NAMES][VERSIONS_MAX];
};

struct watch *watch_new(void)
{
    struct watch *w = calloc(1, sizeof *w);

    if (!w)
        abort();
    return w;
}

void watch_free(struct watch *w)
{
    if (!w)
        return;
    for (size_t i = 0; i < w->stamps.count; i++)
        free(w->stamps.at[i].key);
    vec_release(&w->stamps);
    vec_release(&w->named);
    vec_release(&w->condemned);
    vec_release(&w->begun);
    vec_release(&w->running);
    free(w);
}

int64_t watch_mtime(const struct sim *sim, const char *key)
{
    const struct watch *w = sim->watch;

    if (strchr("pxm", key[0])) /* nobody asks */
        return sim->now_ms;
    for (size_t i = w->stamps.count; i > 0; i--) {
        if (strcmp(w->stamps.at[i - 1].key, key) == 0)
            return w->stamps.at[i - 1].ms;
    }
    return sim->now_ms;
}

/* Whether the key was ever written. */
bool watch_has_seen(const struct sim *sim, const char *key)
{
    for (size_t i = 0; i < sim->watch->stamps.count; i++) {
        if (strcmp(sim->watch->stamps.at[i].key, key) == 0)
            return true;
    }
    return false;
}

/* Line 2 of a record. */
static json_t *body_of(struct bytes bytes)
{
    const char *text = bytes.data;
    const char *line = memchr(text, '\n', bytes.size);
    const char *end = line ? memchr(line + 1, '\n', bytes.size - (size_t)(line + 1 - text)) : NULL;

    return end ? json_loadb(line + 1, (size_t)(end - line - 1), 0, NULL) : NULL;
}

static bool says(const json_t *body, const char *field, const char *value)
{
    const char *text = json_string_value(json_object_get(body, field));

    return text && strcmp(text, value) == 0;
}

/* ---- versions ---- */

static bool parse_version(const char *key, int *ret_name, uint32_t *ret_n, char leaf[static 32])
{
    unsigned long long reverse;
    char name[64];

    if (sscanf(key, "n/%63[a-z]/v/%10llu/%31s", name, &reverse, leaf) != 3)
        return false;
    *ret_name = strcmp(name, sim_names[0]) == 0 ? 0 : 1;
    *ret_n = (uint32_t)(UINT64_C(9999999999) - reverse);
    return *ret_n < VERSIONS_MAX;
}

void watch_begun(struct sim *sim, const struct session_id *session, uint64_t step)
{
    struct begun begun = {*session, step, sim->steps};

    if (vec_push(&sim->watch->begun, begun) < 0)
        abort();
}

/* I7: what was condemned when the upload read the lists is not named. */
static void check_not_condemned(struct sim *sim, const struct session_id *by,
                                const struct object_ref *pack)
{
    const struct watch *w = sim->watch;
    const struct begun *b = NULL;
    char key[OBJECT_KEY_MAX];

    for (size_t i = 0; i < w->begun.count; i++) {
        if (memcmp(&w->begun.at[i].session, by, sizeof *by) == 0)
            b = &w->begun.at[i];
    }
    object_ref_key('p', pack, key);
    for (size_t i = 0; b && i < w->condemned.count; i++) {
        const struct condemned *c = &w->condemned.at[i];
        if (strncmp(key, c->prefix, strlen(c->prefix)) == 0 && pack->seq >= c->first &&
            pack->seq <= c->last && c->from_step < b->read_step &&
            (c->to_step == 0 || c->to_step > b->step))
            sim_violation(sim, "%s is named, and round %" PRIu64 " had condemned it (I7)", key,
                          c->round);
    }
}

static void add_name(struct sim *sim, char letter, const struct object_ref *ref, int name,
                     uint32_t n)
{
    struct named named = {.name = name, .version = n};

    object_ref_key(letter, ref, named.key);
    if (!sim_exists(sim, named.key))
        sim_violation(sim, "version %u of %s is committed without %s (I5, I7, I9)", n,
                      sim_names[name], named.key);
    if (vec_push(&sim->watch->named, named) < 0)
        abort();
}

static void see_commit(struct sim *sim, const json_t *body, int name, uint32_t n)
{
    AUTO(buf_release) struct buf b = BUF_INIT(MANIFEST_SIZE_MAX);
    AUTO(manifest_release) struct manifest m = {0};
    const json_t *where = json_object_get(body, "manifest");
    const char *hex = json_string_value(json_object_get(where, "session"));
    struct object_ref ref = {.seq = (uint32_t)json_integer_value(json_object_get(where, "seq"))};
    char key[OBJECT_KEY_MAX];

    const char *by_hex = json_string_value(json_object_get(body, "session"));
    struct session_id by;
    if (!hex || session_id_from_hex(&ref.session, hex) < 0 || !by_hex ||
        session_id_from_hex(&by, by_hex) < 0)
        return; /* seen by sim_check() */
    object_ref_key('m', &ref, key);
    add_name(sim, 'm', &ref, name, n);
    if (store_get_all(sim->raw, key, &b) < 0 || manifest_decode(buf_bytes(&b), &m, NULL) < 0)
        return;
    add_name(sim, 'x', &m.index, name, n);
    for (uint32_t i = 0; i < m.pack_count; i++) {
        add_name(sim, 'p', &m.packs[i], name, n);
        check_not_condemned(sim, &by, &m.packs[i]);
    }
}

void watch_belief(struct sim *sim, const struct actor *a)
{
    if (a->dead || a->done || !a->hold || !sim->watch->deleted[a->held_name][a->held_version])
        return;
    if (hold_look(a->hold, NULL) == HOLD_HELD)
        sim_violation(sim, "version %u of %s is deleted, and %s %d believes to hold it (I13)",
                      a->held_version, sim_names[a->held_name], a->role, a->number);
}

static void see_deletion(struct sim *sim, int name, uint32_t n)
{
    sim->watch->deleted[name][n] = true;
    for (int i = 0; i < sim->actor_count; i++) {
        const struct actor *a = &sim->actors[i];
        if (a->hold && a->held_name == name && a->held_version == n)
            watch_belief(sim, a);
    }
}

/* ---- rounds ---- */

static void round_key(char key[static 32], uint64_t round, char leaf)
{
    (void)snprintf(key, 32, "g/%010" PRIu64 "/%c", UINT64_C(9999999999) - round, leaf);
}

struct session_scan {
    struct sim *sim;
    uint64_t round;
};

static int see_session(void *ctx, const struct store_entry *entry)
{
    struct session_scan *scan = ctx;
    AUTO(buf_release) struct buf b = BUF_INIT(CATALOGUE_RECORD_MAX);
    struct running running = {.round = scan->round};

    if (strcmp(entry->key + strlen(entry->key) - 2, "/i") != 0 ||
        store_get_all(scan->sim->raw, entry->key, &b) < 0)
        return 0;
    json_t *body = body_of(buf_bytes(&b));
    const char *name = json_string_value(json_object_get(body, "name"));
    json_int_t n = json_integer_value(json_object_get(body, "version"));
    (void)snprintf(running.outcome, sizeof running.outcome, "n/%s/v/%010" PRIu64 "/o", name,
                   UINT64_C(9999999999) - (uint64_t)n);
    json_decref(body);
    if (!sim_exists(scan->sim, running.outcome) &&
        vec_push(&scan->sim->watch->running, running) < 0)
        abort();
    return 0;
}

static void see_condemned(struct sim *sim, uint64_t round, const json_t *body)
{
    const json_t *text;
    size_t i;

    json_array_foreach(json_object_get(body, "objects"), i, text)
    {
        struct condemned c = {.round = round, .from_step = sim->steps};
        const char *value = json_string_value(text);
        if (!value ||
            sscanf(value, "%35[pxm/0-9a-f]%" SCNu32 "-%" SCNu32, c.prefix, &c.first, &c.last) != 3)
            sim_violation(sim, "round %" PRIu64 " condemns something odd", round);
        else if (vec_push(&sim->watch->condemned, c) < 0)
            abort();
    }
}

static void see_round(struct sim *sim, uint64_t round, char leaf)
{
    struct session_scan scan = {sim, round};
    char key[32];

    if (leaf == 'c') {
        round_key(key, round - 1, 'e');
        if (round > 1 && !sim_exists(sim, key))
            sim_violation(sim, "round %" PRIu64 " begins before the last has ended (I11)", round);
        (void)store_list(sim->raw, "s/", NULL, see_session, &scan, NULL);
    }
    for (size_t i = 0; leaf == 'w' && i < sim->watch->running.count; i++) {
        const struct running *r = &sim->watch->running.at[i];
        if (r->round == round && !sim_exists(sim, r->outcome))
            sim_violation(sim, "round %" PRIu64 " sweeps, and %s is not there (I10)", round,
                          r->outcome);
    }
    if (leaf == 'e') {
        round_key(key, round, 'w');
        if (!sim_exists(sim, key))
            sim_violation(sim, "round %" PRIu64 " ends without a sweep (I11)", round);
        sim->stats.rounds++;
        for (size_t i = 0; i < sim->watch->condemned.count; i++) {
            if (sim->watch->condemned.at[i].round == round)
                sim->watch->condemned.at[i].to_step = sim->steps;
        }
    }
}

/* ---- changes ---- */

void watch_put(struct sim *sim, const char *key, struct bytes body)
{
    struct stamp stamp = {strdup(key), sim->now_ms};
    char leaf[32];
    unsigned long long reverse;
    json_t *record;
    char step;
    uint32_t n;
    int name;

    if (!stamp.key)
        abort();
    if (strchr("pxm", key[0]))
        free(stamp.key);
    else if (vec_push(&sim->watch->stamps, stamp) < 0)
        abort();
    if (sscanf(key, "g/%10llu/%c", &reverse, &step) == 2) {
        see_round(sim, UINT64_C(9999999999) - reverse, step);
        record = body_of(body);
        if (step == 'c')
            see_condemned(sim, UINT64_C(9999999999) - reverse, record);
        json_decref(record);
    }
    if (!parse_version(key, &name, &n, leaf))
        return;
    record = body_of(body);
    if (strcmp(leaf, "o") == 0 && says(record, "decision", "committed"))
        see_commit(sim, record, name, n);
    if (leaf[0] == 'd' && leaf[strlen(leaf) - 1] == 'r' && says(record, "decision", "deleted"))
        see_deletion(sim, name, n);
    json_decref(record);
}

void watch_remove(struct sim *sim, const char *key)
{
    struct watch *w = sim->watch;

    if (!sim_exists(sim, key))
        return;
    sim->stats.removed += strchr("pxm", key[0]) != NULL;
    for (size_t i = 0; i < w->named.count; i++) {
        const struct named *o = &w->named.at[i];
        if (strcmp(o->key, key) == 0 && !w->deleted[o->name][o->version])
            sim_violation(sim, "%s is removed, and version %u of %s names it (I9)", key, o->version,
                          sim_names[o->name]);
    }
    if (key[0] == 'n' || key[0] == 'g')
        sim_violation(sim, "%s is removed, and is for ever (I2)", key);
    if (key[0] == 's' && strcmp(key + strlen(key) - 2, "/i") == 0) {
        struct session_scan scan = {.sim = sim, .round = 0};
        struct store_entry entry = {.key = key};
        size_t before = w->running.count;
        (void)see_session(&scan, &entry);
        if (w->running.count > before)
            sim_violation(sim, "%s is removed, and its upload is not decided (I12)", key);
        w->running.count = before;
    }
}

/* ---- the end ---- */

static void check_deletions(struct sim *sim)
{
    for (int name = 0; name < SIM_NAMES; name++) {
        for (uint32_t n = 1; n < VERSIONS_MAX; n++) {
            bool maybe = false, told = false;
            for (size_t i = 0; i < sim->deletions.count; i++) {
                const struct deletion_note *d = &sim->deletions.at[i];
                if (d->name != name || d->version != n)
                    continue;
                told |= d->reported && d->result == 0;
                maybe |=
                    !d->reported || d->result == 0 || d->result == -EIO || d->result == -ETIMEDOUT;
            }
            if (told && !sim->watch->deleted[name][n])
                sim_violation(sim, "told \"deleted\", and version %u of %s is not (I14)", n,
                              sim_names[name]);
            if (!maybe && sim->watch->deleted[name][n])
                sim_violation(sim, "version %u of %s is deleted, and nobody was told (I14)", n,
                              sim_names[name]);
        }
    }
}

struct garbage {
    struct sim *sim;
    struct catalogue *c;
};

static int abort_undecided(void *ctx, const struct version_info *v)
{
    struct garbage *g = ctx;

    if (v->status == VERSION_PROCESSING || v->status == VERSION_OPTIMIZING)
        return catalogue_abort(g->c, v->name, v->version, "the world ends", NULL);
    return 0;
}

static int find_garbage(void *ctx, const struct store_entry *entry)
{
    struct garbage *g = ctx;
    const struct watch *w = g->sim->watch;

    for (size_t i = 0; i < w->named.count; i++) {
        const struct named *o = &w->named.at[i];
        if (strcmp(o->key, entry->key) == 0 && !w->deleted[o->name][o->version])
            return 0;
    }
    sim_violation(g->sim, "%s is named by nobody, and cannot be collected", entry->key);
    return 0;
}

/* When all uploads are over, collectors leave nothing behind; whatever has happened before. */
static void collect_all(struct sim *sim)
{
    AUTO(catalogue_close) struct catalogue *c = NULL;
    struct garbage g = {.sim = sim};
    struct err err = ERR_INIT;

    if (catalogue_open(sim->raw, env_real(), CATALOGUE_READ, &c, NULL) < 0)
        return; /* nobody came to make it */
    catalogue_set_readers(c, 1);
    g.c = c;
    int r = catalogue_list(c, NULL, abort_undecided, &g, &err);
    for (int i = 0; r == 0 && i < 3; i++) { /* ends what is open, then two of its own */
        struct collect_options options = {0};
        struct collect_report report;
        r = catalogue_collect(c, &options, &report, &err);
    }
    if (r < 0)
        sim_violation(sim, "what is left cannot be collected: %s", err_text(&err, r));
    static const char *const prefixes[] = {"m/", "p/", "x/"};
    for (size_t i = 0; i < sizeof prefixes / sizeof *prefixes; i++)
        (void)store_list(sim->raw, prefixes[i], NULL, find_garbage, &g, NULL);
}

void watch_end(struct sim *sim)
{
    check_deletions(sim);
    if (!sim->violation[0])
        collect_all(sim);
    if (!sim->violation[0])
        sim_check(sim);
}
