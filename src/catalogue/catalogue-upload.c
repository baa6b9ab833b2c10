/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A running upload: allocate, register, read the condemned lists, in exactly this order (I6);
 * resume; heartbeats; counters of the session's objects.
 *
 * The caller reads manifests and writes packs after upload_begin() has returned, so the order of
 * the protocol is the order of the calls. How it ends stands in catalogue-commit.c.
 */
#include "catalogue/catalogue-internal.h"

#include "base/name.h"

#include <assert.h>
#include <inttypes.h>

/* Numbers tried behind the highest that was listed: so many others would have to come in between.
 */
#define ALLOCATE_TRIES 10000u
/* Heartbeat numbers tried: two processes may have resumed one session. */
#define BEAT_TRIES 8u
/* "p/<32 hex>/" */
#define OBJECT_PREFIX 35u
/* "s/<32 hex>/h." */
#define BEAT_PREFIX 37u

static const char letters[] = "pxm";

static unsigned letter_index(char letter)
{
    const char *p = strchr(letters, letter);

    assert(letter && p);
    return (unsigned)(p - letters);
}

/* ---- begin ---- */

static json_t *allocation_body(const struct version_info *t)
{
    char hex[33];

    session_id_to_hex(&t->session, hex);
    return json_pack("{s:s, s:I, s:s, s:s, s:s, s:s, s:b}", "name", t->name, "version",
                     (json_int_t)t->version, "session", hex, "owner", t->owner, "host", t->host,
                     "source", t->source, "linked", (int)t->linked);
}

/* Take the number behind the highest; a number that somebody else has taken sends us to the next.
 */
static int allocate(struct upload *u, struct err *err)
{
    struct version_info *t = &u->terms;
    uint32_t highest;

    int r = version_highest(u->c, t->name, &highest, err);
    if (r < 0)
        return r;
    for (unsigned i = 0; i < ALLOCATE_TRIES; i++) {
        AUTO(draft_release) struct draft d = {0};
        char key[CATALOGUE_KEY_MAX];
        if (highest >= CATALOGUE_VERSION_MAX)
            return err_fail(err, -EOVERFLOW, "'%s' has used up all version numbers", t->name);
        t->version = ++highest;
        key_version(key, t->name, t->version, "a");
        r = draft_make(u->c, RECORD_ALLOCATION, allocation_body(t), &d, err);
        if (r == 0)
            r = put_record(u->c, key, RECORD_ALLOCATION, &d, NULL, err);
        if (r != -EEXIST) {
            t->created_ms =
                (int64_t)json_integer_value(d.body ? json_object_get(d.body, "time_ms") : NULL);
            return r;
        }
    }
    return err_fail(err, -EBUSY, "cannot get a version number of '%s': too many others do",
                    t->name);
}

/* Write "s/<session>/i"; another process that resumes the same session may have done so. */
static int register_session(struct upload *u, struct err *err)
{
    AUTO(draft_release) struct draft d = {0};
    AUTO(json_decref) json_t *other = NULL;
    const struct version_info *t = &u->terms;
    char key[CATALOGUE_KEY_MAX], hex[33];

    session_id_to_hex(&t->session, hex);
    key_session(key, &t->session, "i");
    int r = draft_make(u->c, RECORD_SESSION,
                       json_pack("{s:s, s:s, s:I}", "session", hex, "name", t->name, "version",
                                 (json_int_t)t->version),
                       &d, err);
    if (r == 0)
        r = put_record(u->c, key, RECORD_SESSION, &d, &other, err);
    if (r != -EEXIST)
        return r;
    struct record_fields f = {.body = other, .key = key, .err = err};
    const char *name = record_string(&f, "name");
    if (!f.error && strcmp(name, t->name) != 0)
        record_bad_field(&f, "name", "is another upload's");
    if (record_number(&f, "version", CATALOGUE_VERSION_MAX) != t->version)
        record_bad_field(&f, "version", "is another upload's");
    return f.error;
}

static int upload_new(struct catalogue *c, const char *name, struct upload **ret, struct err *err)
{
    if (!name_is_valid(name))
        return err_fail(err, -EINVAL, "'%s' is no name of a datastore", name);
    struct upload *u = calloc(1, sizeof *u);
    if (!u)
        return err_fail(err, -ENOMEM, "out of memory");
    u->c = c;
    u->last_beat_boot_ms = c->env->boot_ms(c->env);
    (void)snprintf(u->terms.name, sizeof u->terms.name, "%s", name); /* valid, so it fits */
    *ret = u;
    return 0;
}

int upload_begin(struct catalogue *c, const struct upload_terms *terms, struct upload **ret,
                 struct err *err)
{
    AUTO(upload_free) struct upload *u = NULL;

    int r = upload_new(c, terms->name, &u, err);
    if (r < 0)
        return r;
    text_copy(u->terms.owner, sizeof u->terms.owner, terms->owner);
    text_copy(u->terms.host, sizeof u->terms.host, terms->host);
    text_copy(u->terms.source, sizeof u->terms.source, terms->source);
    u->terms.linked = terms->linked;
    c->env->random(c->env, u->terms.session.byte, sizeof u->terms.session.byte);
    r = allocate(u, err);
    bool allocated = r == 0;
    if (r == 0)
        r = register_session(u, err);
    if (r == 0)
        r = upload_load_condemned(u, err);
    if (r == 0) {
        *ret = take_ptr(&u);
        return 0;
    }
    /* A store that answers shall not show a number as processing for days. */
    if (allocated && r != -EIO && r != -ETIMEDOUT)
        (void)outcome_abort(c, &u->terms, "it could not be started", NULL);
    return r;
}

void upload_free(struct upload *u)
{
    if (!u)
        return;
    vec_release(&u->condemned);
    free(u);
}

uint32_t upload_version(const struct upload *u)
{
    return u->terms.version;
}

const struct session_id *upload_session(const struct upload *u)
{
    return &u->terms.session;
}

uint32_t upload_next_seq(struct upload *u, char letter)
{
    return u->next_seq[letter_index(letter)]++;
}

/* ---- resume ---- */

struct numbering {
    size_t skip;
    uint32_t next; /* behind the highest number listed */
};

static int take_number(void *ctx, const struct store_entry *entry)
{
    struct numbering *n = ctx;
    uint32_t seq;

    if (key_parse_seq(entry->key, n->skip, &seq) && seq >= n->next && seq < UINT32_MAX)
        n->next = seq + 1;
    return 0;
}

static int count_on(struct upload *u, const char *prefix, size_t skip, uint32_t *ret,
                    struct err *err)
{
    struct numbering n = {.skip = skip};

    int r = store_list(u->c->store, prefix, NULL, take_number, &n, NULL);
    if (r < 0)
        return err_fail(err, r, "cannot list %s in the store %s: %s", prefix, u->c->store->location,
                        store_error(u->c->store, r));
    *ret = n.next;
    return 0;
}

static int check_undecided(struct upload *u, struct err *err)
{
    AUTO(json_decref) json_t *body = NULL;
    const struct version_info *t = &u->terms;
    struct version_info outcome;
    char key[CATALOGUE_KEY_MAX];

    key_version(key, t->name, t->version, "o");
    int r = read_record(u->c, key, RECORD_OUTCOME, &body, err);
    if (r == -ENOENT)
        return 0;
    if (r == 0)
        r = version_from_outcome(body, key, t->name, t->version, &outcome, err);
    if (r < 0)
        return r;
    if (outcome.status == VERSION_SUCCEEDED)
        return err_fail(err, -EEXIST,
                        "version %" PRIu32 " of '%s' has been committed: nothing is left to resume",
                        t->version, t->name);
    return err_fail(err, -ESTALE, "version %" PRIu32 " of '%s' was aborted (%s)", t->version,
                    t->name, outcome.reason);
}

static int write_heartbeat(struct upload *u, struct err *err)
{
    char hex[33], key[CATALOGUE_KEY_MAX];
    uint32_t first = u->next_beat;
    int r = -EEXIST;

    session_id_to_hex(&u->terms.session, hex);
    while (r == -EEXIST && u->next_beat - first < BEAT_TRIES) {
        AUTO(draft_release) struct draft d = {0};
        uint32_t seq = u->next_beat++;
        key_heartbeat(key, &u->terms.session, seq);
        r = draft_make(u->c, RECORD_HEARTBEAT,
                       json_pack("{s:s, s:I, s:s}", "session", hex, "seq", (json_int_t)seq, "phase",
                                 u->indexing ? "index" : "data"),
                       &d, err);
        if (r == 0)
            r = put_record(u->c, key, RECORD_HEARTBEAT, &d, NULL, err);
    }
    if (r == -EEXIST)
        return err_fail(err, -EBUSY,
                        "another process writes heartbeats of version %" PRIu32
                        " of '%s': it is being resumed elsewhere",
                        u->terms.version, u->terms.name);
    if (r < 0)
        return r;
    u->last_beat_boot_ms = u->c->env->boot_ms(u->c->env);
    if (first > 0) {
        key_heartbeat(key, &u->terms.session, first - 1);
        (void)store_remove(u->c->store, key); /* a stray heartbeat is only clutter */
    }
    return 0;
}

int upload_resume(struct catalogue *c, const char *name, uint32_t n,
                  const struct session_id *session, struct upload **ret, struct err *err)
{
    AUTO(upload_free) struct upload *u = NULL;
    char prefix[CATALOGUE_KEY_MAX];

    int r = upload_new(c, name, &u, err);
    if (r == 0)
        r = version_read_allocation(c, name, n, &u->terms, err);
    if (r == -ENOENT)
        return err_fail(err, -ESTALE, "'%s' has no version %" PRIu32 " in %s", name, n,
                        c->store->location);
    if (r < 0)
        return r;
    if (memcmp(&u->terms.session, session, sizeof *session) != 0)
        return err_fail(err, -ESTALE, "version %" PRIu32 " of '%s' is another upload's", n, name);
    r = check_undecided(u, err);
    if (r == 0)
        r = register_session(u, err);
    key_session(prefix, session, "h.");
    if (r == 0)
        r = count_on(u, prefix, BEAT_PREFIX, &u->next_beat, err);
    if (r == 0)
        r = write_heartbeat(u, err);
    if (r == 0)
        r = upload_load_condemned(u, err);
    for (unsigned i = 0; r == 0 && letters[i]; i++) {
        key_objects(prefix, letters[i], session);
        r = count_on(u, prefix, OBJECT_PREFIX, &u->next_seq[i], err);
    }
    if (r == 0)
        *ret = take_ptr(&u);
    return r;
}

struct found_pack {
    uint32_t seq;
    uint64_t length;
};

struct found_packs {
    VEC(struct found_pack) packs;
    int error;
};

static int take_pack(void *ctx, const struct store_entry *entry)
{
    struct found_packs *found = ctx;
    struct found_pack pack = {.length = entry->size_bytes};

    if (key_parse_seq(entry->key, OBJECT_PREFIX, &pack.seq))
        found->error = vec_push(&found->packs, pack);
    return found->error ? 1 : 0;
}

static int compare_packs(const void *a, const void *b)
{
    const struct found_pack *x = a, *y = b;

    return x->seq < y->seq ? -1 : x->seq > y->seq ? 1 : 0;
}

int upload_each_pack(struct upload *u, upload_pack_fn *fn, void *ctx, struct err *err)
{
    struct found_packs found = {0};
    char prefix[CATALOGUE_KEY_MAX];

    key_objects(prefix, 'p', &u->terms.session);
    int r = store_list(u->c->store, prefix, NULL, take_pack, &found, NULL);
    if (r >= 0 && found.error == 0) {
        r = 0;
        if (found.packs.count)
            qsort(found.packs.at, found.packs.count, sizeof *found.packs.at, compare_packs);
        for (size_t i = 0; r == 0 && i < found.packs.count; i++)
            r = fn(ctx, found.packs.at[i].seq, found.packs.at[i].length);
    } else {
        r = found.error ? found.error : r;
        (void)err_fail(err, r, "cannot list %s in the store %s: %s", prefix, u->c->store->location,
                       store_error(u->c->store, r));
    }
    vec_release(&found.packs);
    return r;
}

/* ---- signs of life ---- */

int upload_heartbeat(struct upload *u, struct err *err)
{
    int64_t now = u->c->env->boot_ms(u->c->env);

    if (now - u->last_beat_boot_ms < CATALOGUE_HEARTBEAT_MS)
        return 0;
    return write_heartbeat(u, err);
}

int upload_indexing(struct upload *u, struct err *err)
{
    if (u->indexing)
        return 0;
    u->indexing = true;
    return write_heartbeat(u, err);
}
