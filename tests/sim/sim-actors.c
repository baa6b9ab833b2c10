/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the programs of the simulation do: publish, resume each other's sessions, expire each other,
 * list. What they are told is noted, to be compared with the store at the end of the run.
 */
#include "sim.h"

#include <inttypes.h>
#include <stdio.h>

#define TRIES 6

struct catalogue *sim_open_catalogue(struct actor *a)
{
    struct catalogue *c = NULL;

    for (int i = 0; i < TRIES && !a->dead; i++) {
        if (catalogue_open(a->store, &a->env, CATALOGUE_WRITE, &c, NULL) == 0) {
            catalogue_set_readers(c, 1);
            return c;
        }
    }
    return NULL;
}

static void note(struct actor *a, enum told told, int name, uint32_t version,
                 const struct session_id *session)
{
    struct report report = {.told = told, .name = name, .version = version};

    if (a->dead)
        return;
    if (session)
        report.session = *session;
    if (vec_push(&a->sim->reports, report) < 0)
        abort();
}

/* ---- publishing ---- */

/* Some pack or index, under a key that nobody doubts; `trusting` takes a lost answer for success
 * and leaves it to the commit to find out. */
static int put_object(struct actor *a, struct upload *u, char letter, bool trusting,
                      struct object_ref *ret)
{
    uint8_t body[512 + 64] = {0};
    size_t trailer = 1 + rng_below(&a->rng, 64);
    char key[OBJECT_KEY_MAX];
    int r = -EIO;

    for (size_t i = 0; i < 512 + trailer; i += 8) {
        uint64_t random = rng_next(&a->rng);
        memcpy(body + i, &random, 512 + trailer - i < 8 ? 512 + trailer - i : 8);
    }
    for (int i = 0; i < TRIES && (r == -EIO || r == -ETIMEDOUT || r == -EEXIST); i++) {
        struct object_ref ref = {.session = *upload_session(u),
                                 .seq = upload_next_seq(u, letter),
                                 .length = 512 + trailer,
                                 .trailer_length = (uint32_t)trailer,
                                 .data_size = 512,
                                 .leaf_count = 1,
                                 .born = letter == 'p' ? upload_version(u) : 0,
                                 .digest = digest_of(body, 512 + trailer)};
        object_ref_key(letter, &ref, key);
        r = store_put_if_absent(a->store, key, bytes_of(body, 512 + trailer));
        if (r == 0 || (trusting && (r == -EIO || r == -ETIMEDOUT))) {
            *ret = ref;
            return 0;
        }
    }
    return r;
}

static int put_objects(struct actor *a, struct upload *u, bool trusting, struct manifest *m)
{
    uint32_t count = a->sim->storm ? 1 : 1 + (uint32_t)rng_below(&a->rng, 3);
    int r = 0;

    m->packs = calloc(count, sizeof *m->packs);
    if (!m->packs)
        abort();
    for (; r == 0 && m->pack_count < count; m->pack_count++) {
        r = put_object(a, u, 'p', trusting, &m->packs[m->pack_count]);
        if (r == 0 && rng_chance(&a->rng, 100))
            (void)upload_heartbeat(u, NULL); /* a publisher goes on without */
    }
    if (r == 0 && rng_chance(&a->rng, 300))
        (void)upload_indexing(u, NULL);
    return r == 0 ? put_object(a, u, 'x', false, &m->index) : r;
}

static void tell_result(struct actor *a, size_t place, int result, const struct version_info *v)
{
    struct sim *sim = a->sim;
    struct attempt *t = &sim->attempts.at[place];

    if (a->dead)
        return;
    t->reported = true;
    t->result = result;
    sim_log(sim, "%s %d is told %d about version %u of %s", a->role, a->number, result, t->version,
            sim_names[t->name]);
    if (result == 0) {
        sim->stats.commits++;
        if (v->version != t->version || v->files != t->id)
            sim_violation(sim, "a commit gave back another version (I4)");
        if (t->version > sim->newest_committed[t->name])
            sim->newest_committed[t->name] = t->version;
    } else if (result == -ESTALE) {
        sim->stats.aborts++;
    } else if (result == -EEXIST) {
        sim->stats.others++;
    } else if (result == -EIO || result == -ETIMEDOUT) {
        sim->stats.unknown++;
    }
}

static void publish(struct actor *a, struct catalogue *c, struct upload *u, int name, bool shared)
{
    AUTO(manifest_release) struct manifest m = {.index_size = 512};
    struct sim *sim = a->sim;
    struct version_info v;
    struct err err = ERR_INIT;

    if (put_objects(a, u, !shared && rng_chance(&a->rng, 100), &m) < 0)
        return;
    if (sim->watch)
        sim_reuse_packs(a, c, u, name, &m);
    struct attempt t = {.id = sim->attempts.count + 1,
                        .name = name,
                        .version = upload_version(u),
                        .session = *upload_session(u)};
    m.files = t.id;
    size_t place = sim->attempts.count;
    if (vec_push(&sim->attempts, t) < 0)
        abort();
    int r = upload_commit(u, &m, &v, &err);
    if (r < 0 && !err.text[0])
        sim_violation(sim, "a commit failed without a sentence");
    tell_result(a, place, r, &v);
}

static void abort_upload(struct actor *a, struct upload *u, int name)
{
    int r = upload_abort(u, "changed its mind", NULL);

    if (r == 0)
        note(a, TOLD_ABORTED, name, upload_version(u), NULL);
    else if (r == -EEXIST)
        note(a, TOLD_COMMITTED, name, upload_version(u), NULL);
}

void creator_main(struct actor *a)
{
    AUTO(catalogue_close) struct catalogue *c = sim_open_catalogue(a);
    int rounds = a->sim->storm ? 4 : 1 + (int)rng_below(&a->rng, 3);

    for (int i = 0; c && i < rounds && !a->dead; i++) {
        AUTO(upload_free) struct upload *u = NULL;
        int name = !a->sim->storm && rng_chance(&a->rng, 200);
        bool shared = rng_chance(&a->rng, 500);
        struct upload_terms terms = {
            .name = sim_names[name], .owner = "sim", .host = "sim", .source = "/sim"};
        a->registered_step = a->rounds_step = 0;
        if (upload_begin(c, &terms, &u, NULL) < 0 || a->dead)
            continue;
        if (a->registered_step >= a->rounds_step)
            sim_violation(a->sim, "the condemned lists were read before registering (I6)");
        if (a->sim->watch)
            watch_begun(a->sim, upload_session(u), a->rounds_step);
        note(a, TOLD_OWNED, name, upload_version(u), upload_session(u));
        struct session_note session = {name, upload_version(u), *upload_session(u)};
        if (shared && vec_push(&a->sim->sessions, session) < 0)
            abort();
        if (rng_chance(&a->rng, 100))
            abort_upload(a, u, name);
        else
            publish(a, c, u, name, shared);
    }
}

void resumer_main(struct actor *a)
{
    AUTO(catalogue_close) struct catalogue *c = sim_open_catalogue(a);

    for (int i = 0; c && i < 12 && !a->dead; i++) {
        AUTO(upload_free) struct upload *u = NULL;
        a->env.sleep_ms(&a->env, (int64_t)rng_below(&a->rng, 1000));
        if (a->sim->sessions.count == 0)
            continue;
        struct session_note s = a->sim->sessions.at[rng_below(&a->rng, a->sim->sessions.count)];
        int r = upload_resume(c, sim_names[s.name], s.version, &s.session, &u, NULL);
        if (r == -EEXIST)
            note(a, TOLD_COMMITTED, s.name, s.version, NULL);
        if (r == -ESTALE)
            note(a, TOLD_ABORTED, s.name, s.version, NULL);
        if (r < 0 || a->dead)
            continue;
        a->sim->stats.resumes++;
        note(a, TOLD_OWNED, s.name, s.version, &s.session);
        if (rng_chance(&a->rng, 100))
            abort_upload(a, u, s.name);
        else
            publish(a, c, u, s.name, true);
    }
}

/* ---- the others ---- */

void expirer_main(struct actor *a)
{
    AUTO(catalogue_close) struct catalogue *c = sim_open_catalogue(a);

    for (int i = 0; c && i < 4 && !a->dead; i++) {
        int name = rng_chance(&a->rng, 200);
        uint32_t version = 1 + (uint32_t)rng_below(&a->rng, 4);
        a->env.sleep_ms(&a->env, (int64_t)rng_below(&a->rng, 1500));
        int r = catalogue_abort(c, sim_names[name], version, "expired", NULL);
        if (r == 0)
            note(a, TOLD_ABORTED, name, version, NULL);
        if (r == -EEXIST)
            note(a, TOLD_COMMITTED, name, version, NULL);
    }
}

struct listing {
    struct sim *sim;
    const char *name;
    uint32_t version;
    enum version_status *last; /* [name][version % 64]: what was seen before */
};

static int look(void *ctx, const struct version_info *v)
{
    struct listing *l = ctx;

    if (l->name && strcmp(l->name, v->name) == 0) {
        if (v->version != l->version - 1)
            sim_violation(l->sim, "a listing of %s goes from %u to %u (I1)", v->name, l->version,
                          v->version);
    } else if (l->name && l->version != 1) {
        sim_violation(l->sim, "a listing of %s ends at %u (I1)", l->name, l->version);
    }
    l->name = strcmp(v->name, sim_names[0]) == 0 ? sim_names[0] : sim_names[1];
    l->version = v->version;
    enum version_status *last = &l->last[(l->name == sim_names[1]) * 64 + v->version % 64];
    bool final = *last == VERSION_SUCCEEDED || *last == VERSION_FAILED;
    if (final && *last != v->status)
        sim_violation(l->sim, "version %u of %s was %s and is %s (I3)", v->version, v->name,
                      version_status_name(*last), version_status_name(v->status));
    *last = v->status;
    if (v->status == VERSION_SUCCEEDED)
        sim_check_visible(l->sim, v);
    return 0;
}

static void resolve_newest(struct actor *a, struct catalogue *c, int name)
{
    AUTO(manifest_release) struct manifest m = {0};
    uint32_t known = a->sim->newest_committed[name];
    struct version_info v;

    int r = catalogue_resolve(c, sim_names[name], 0, &v, NULL);
    if (a->dead)
        return;
    if (r == -ENOENT && known)
        sim_violation(a->sim, "nothing is found of %s, and version %u was committed (A2)",
                      sim_names[name], known);
    if (r < 0)
        return;
    a->sim->stats.resolves++;
    if (v.version < known)
        sim_violation(a->sim, "version %u of %s is found, and %u was committed (A2)", v.version,
                      sim_names[name], known);
    sim_check_visible(a->sim, &v);
    r = catalogue_manifest(c, &v, &m, NULL);
    if (r < 0 && r != -EIO && r != -ETIMEDOUT)
        sim_violation(a->sim, "the manifest of version %u of %s cannot be read: %d (I5)", v.version,
                      sim_names[name], r);
}

void lister_main(struct actor *a)
{
    AUTO(catalogue_close) struct catalogue *c = sim_open_catalogue(a);
    enum version_status last[SIM_NAMES * 64] = {VERSION_PROCESSING};

    for (int i = 0; c && i < 4 && !a->dead; i++) {
        struct listing l = {.sim = a->sim, .last = last};
        a->env.sleep_ms(&a->env, (int64_t)rng_below(&a->rng, 2000));
        int r = catalogue_list(c, NULL, look, &l, NULL);
        if (r == 0 && l.name && l.version != 1)
            sim_violation(a->sim, "a listing of %s ends at %u (I1)", l.name, l.version);
        if (r < 0 && r != -EIO && r != -ETIMEDOUT)
            sim_violation(a->sim, "a listing failed: %d", r);
        resolve_newest(a, c, rng_chance(&a->rng, 200));
    }
}
