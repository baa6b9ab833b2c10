/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The judge: reads the raw store with its own few lines of parsing, and compares it with what
 * everybody was told. It shares no code with the catalogue.
 */
#include "sim.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>

#define VERSIONS_MAX 256

struct fact {
    bool allocated, decided, committed, deleted;
    uint64_t files; /* of a commit: the attempt's id */
    struct session_id session;
};

struct facts {
    struct sim *sim;
    struct fact of[SIM_NAMES][VERSIONS_MAX];
    unsigned formats;
};

static int read_raw(struct sim *sim, const char *key, struct buf *b)
{
    buf_clear(b);
    return store_get_all(sim->raw, key, b);
}

/* Line 2 of a record. */
static json_t *read_body(struct sim *sim, const char *key)
{
    AUTO(buf_release) struct buf b = BUF_INIT(CATALOGUE_RECORD_MAX);

    if (read_raw(sim, key, &b) < 0)
        return NULL;
    const char *line = strchr(buf_text(&b), '\n');
    const char *end = line ? strchr(line + 1, '\n') : NULL;
    return end ? json_loadb(line + 1, (size_t)(end - line - 1), 0, NULL) : NULL;
}

static bool take_session(const json_t *body, struct session_id *ret)
{
    const char *hex = json_string_value(json_object_get(body, "session"));

    return hex && session_id_from_hex(ret, hex) == 0;
}

/* One object that a commit names: there, of its length, of its content. */
static bool object_is_whole(struct sim *sim, char letter, const struct object_ref *ref,
                            struct buf *ret)
{
    char key[OBJECT_KEY_MAX];

    object_ref_key(letter, ref, key);
    if (read_raw(sim, key, ret) < 0 || ret->size != ref->length) {
        sim_violation(sim, "a commit names %s, which is not there with its length (I5)", key);
        return false;
    }
    struct digest d = digest_of(ret->data, ret->size);
    if (!digest_equal(&d, &ref->digest)) {
        sim_violation(sim, "a commit names %s, which has other content (I8)", key);
        return false;
    }
    return true;
}

static void check_objects(struct sim *sim, const struct object_ref *manifest)
{
    AUTO(buf_release) struct buf b = BUF_INIT(MANIFEST_SIZE_MAX);
    AUTO(manifest_release) struct manifest m = {0};

    if (!object_is_whole(sim, 'm', manifest, &b))
        return;
    if (manifest_decode(buf_bytes(&b), &m, NULL) < 0) {
        sim_violation(sim, "a committed manifest cannot be read (I5)");
        return;
    }
    (void)object_is_whole(sim, 'x', &m.index, &b); /* it has said so itself */
    for (uint32_t i = 0; i < m.pack_count; i++)
        (void)object_is_whole(sim, 'p', &m.packs[i], &b);
}

void sim_check_visible(struct sim *sim, const struct version_info *v)
{
    check_objects(sim, &v->manifest);
}

static void check_commit(struct facts *f, const char *key, struct fact *fact, const json_t *body)
{
    const json_t *m = json_object_get(body, "manifest");
    const char *digest = json_string_value(json_object_get(m, "digest"));
    struct object_ref ref = {
        .seq = (uint32_t)json_integer_value(json_object_get(m, "seq")),
        .length = (uint64_t)json_integer_value(json_object_get(m, "length")),
    };

    fact->committed = true;
    fact->files = (uint64_t)json_integer_value(json_object_get(body, "files"));
    if (fact->deleted) /* its objects may have gone */
        return;
    if (!take_session(m, &ref.session) || !digest || digest_from_hex(&ref.digest, digest) < 0)
        sim_violation(f->sim, "%s names no manifest", key);
    else
        check_objects(f->sim, &ref);
}

static int collect(void *ctx, const struct store_entry *entry)
{
    struct facts *f = ctx;
    char name[64], leaf[8];
    unsigned long long reverse;

    if (strcmp(entry->key, "fmt") == 0)
        f->formats++;
    if (sscanf(entry->key, "n/%63[a-z]/v/%10llu/%7s", name, &reverse, leaf) != 3)
        return 0;
    uint64_t n = UINT64_C(9999999999) - reverse;
    int which = strcmp(name, sim_names[0]) == 0 ? 0 : 1;
    if (n < 1 || n >= VERSIONS_MAX) {
        sim_violation(f->sim, "%s is a number that nobody should have tried", entry->key);
        return 0;
    }
    struct fact *fact = &f->of[which][n];
    json_t *body = read_body(f->sim, entry->key);
    struct session_id session;
    if (leaf[0] == 'd') { /* "a" comes before "d/...", and that before "o" */
        const char *decision = json_string_value(json_object_get(body, "decision"));
        fact->deleted |= decision && strcmp(decision, "deleted") == 0;
    } else if (!body || !take_session(body, &session)) {
        sim_violation(f->sim, "%s is no whole record", entry->key);
    } else if (strcmp(leaf, "a") == 0) { /* keys ascend: "a" comes before "o" */
        fact->allocated = true;
        fact->session = session;
    } else if (strcmp(leaf, "o") == 0) {
        const char *decision = json_string_value(json_object_get(body, "decision"));
        fact->decided = true;
        if (!fact->allocated || memcmp(&fact->session, &session, sizeof session) != 0)
            sim_violation(f->sim, "%s is not by the owner of its number (I1)", entry->key);
        if (decision && strcmp(decision, "committed") == 0)
            check_commit(f, entry->key, fact, body);
    }
    json_decref(body);
    return 0;
}

static void check_numbers(struct facts *f)
{
    for (int name = 0; name < SIM_NAMES; name++) {
        const struct fact *of = f->of[name];
        for (int n = 1; n < VERSIONS_MAX; n++) {
            if (!of[n].allocated)
                continue;
            if (n > 1 && !of[n - 1].allocated)
                sim_violation(f->sim, "version %d of %s exists, and %d does not (I1)", n,
                              sim_names[name], n - 1);
            for (int k = 1; k < n; k++) {
                if (memcmp(&of[k].session, &of[n].session, sizeof of[n].session) == 0)
                    sim_violation(f->sim, "one upload owns versions %d and %d of %s (R4)", k, n,
                                  sim_names[name]);
            }
        }
    }
}

/* Whether `n` stands as the attempt was told (I4). */
static void check_attempt(struct facts *f, const struct attempt *t)
{
    const struct fact *fact = &f->of[t->name][t->version];
    bool mine = fact->committed && fact->files == t->id;
    const char *name = sim_names[t->name];

    if (!t->reported)
        return;
    if (memcmp(&fact->session, &t->session, sizeof t->session) != 0)
        sim_violation(f->sim, "version %u of %s is published by two (I1)", t->version, name);
    if (t->result == 0 && !mine)
        sim_violation(f->sim, "told \"committed\", and version %u of %s is not that (I4)",
                      t->version, name);
    if (t->result == -ESTALE && (!fact->decided || fact->committed))
        sim_violation(f->sim, "told \"aborted\", and version %u of %s is not (I4)", t->version,
                      name);
    if (t->result == -EEXIST && (!fact->committed || mine))
        sim_violation(f->sim, "told \"another has committed\" version %u of %s, and none has (I4)",
                      t->version, name);
    if (mine && t->result != 0 && t->result != -EIO && t->result != -ETIMEDOUT)
        sim_violation(f->sim, "version %u of %s is committed, and its publisher was told %d (I4)",
                      t->version, name, t->result);
}

static void check_report(struct facts *f, const struct report *r)
{
    const struct fact *fact = &f->of[r->name][r->version];

    switch (r->told) {
    case TOLD_OWNED:
        if (!fact->allocated || memcmp(&fact->session, &r->session, sizeof r->session) != 0)
            sim_violation(f->sim, "told to own version %u of %s, and does not (I1)", r->version,
                          sim_names[r->name]);
        break;
    case TOLD_COMMITTED:
        if (!fact->committed)
            sim_violation(f->sim, "told that version %u of %s is committed, and it is not (I4)",
                          r->version, sim_names[r->name]);
        break;
    case TOLD_ABORTED:
        if (!fact->decided || fact->committed)
            sim_violation(f->sim, "told that version %u of %s is aborted, and it is not (I4)",
                          r->version, sim_names[r->name]);
        break;
    }
}

void sim_check(struct sim *sim)
{
    struct facts *f = calloc(1, sizeof *f);

    if (!f)
        abort();
    f->sim = sim;
    if (store_list(sim->raw, "", NULL, collect, f, NULL) < 0)
        sim_violation(sim, "the raw store cannot be listed");
    check_numbers(f);
    for (size_t i = 0; i < sim->attempts.count; i++)
        check_attempt(f, &sim->attempts.at[i]);
    for (size_t i = 0; i < sim->reports.count; i++)
        check_report(f, &sim->reports.at[i]);
    free(f);
}
