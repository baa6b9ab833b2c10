/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How an upload ends: one key, written once, says committed or aborted (I3), and whoever asked is
 * told what it says (I4).
 *
 * The hard case is a commit whose answer is lost. "Absent" proves nothing then, for the commit may
 * land later. So the opposite decision is written to the same key: from then on a late commit can
 * do nothing, and what the key says is the answer.
 */
#include "catalogue/catalogue-internal.h"

#include "base/name.h"

#include <inttypes.h>

/* Manifest keys tried: each may be taken by a process that resumed the same session. */
#define MANIFEST_TRIES 8u

/* ---- are the packs there? (I5, I7) ---- */

struct expected {
    const struct object_ref **refs; /* of one session, ascending by seq */
    size_t count, found;
    char letter;
    struct err *err;
    int error;
};

static int compare_refs(const void *a, const void *b)
{
    const struct object_ref *x = *(const struct object_ref *const *)a;
    const struct object_ref *y = *(const struct object_ref *const *)b;
    int order = memcmp(&x->session, &y->session, sizeof x->session);

    if (order != 0)
        return order;
    return x->seq < y->seq ? -1 : x->seq > y->seq ? 1 : 0;
}

static int tick_off(void *ctx, const struct store_entry *entry)
{
    struct expected *e = ctx;
    size_t low = 0, high = e->count;
    uint32_t seq;

    if (!key_parse_seq(entry->key, strlen("p/0123456789abcdef0123456789abcdef/"), &seq))
        return 0;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (e->refs[middle]->seq < seq)
            low = middle + 1;
        else
            high = middle;
    }
    for (; low < e->count && e->refs[low]->seq == seq; low++) {
        if (e->refs[low]->length != entry->size_bytes) {
            e->error =
                err_fail(e->err, -EBADMSG, "%s is %" PRIu64 " bytes long and should be %" PRIu64,
                         entry->key, entry->size_bytes, e->refs[low]->length);
            return 1;
        }
        e->found++;
    }
    return 0;
}

/* All of one session's, by one listing. */
static int check_session(struct catalogue *c, struct expected *e)
{
    char prefix[CATALOGUE_KEY_MAX];

    key_objects(prefix, e->letter, &e->refs[0]->session);
    int r = store_list(c->store, prefix, NULL, tick_off, e, NULL);
    if (e->error)
        return e->error;
    if (r < 0)
        return err_fail(e->err, r, "cannot list %s in the store %s: %s", prefix, c->store->location,
                        store_error(c->store, r));
    if (e->found != e->count)
        return err_fail(e->err, -ENOENT, "%zu of %zu objects under %s are missing in the store %s",
                        e->count - e->found, e->count, prefix, c->store->location);
    return 0;
}

static int check_objects(struct upload *u, const struct manifest *m, struct err *err)
{
    AUTO(free_ptr) const struct object_ref **refs = calloc(m->pack_count + 1, sizeof *refs);
    const struct object_ref *index = &m->index;
    size_t count = 0;

    if (!refs)
        return err_fail(err, -ENOMEM, "out of memory");
    for (uint32_t i = 0; i < m->pack_count; i++) {
        const struct object_ref *pack = &m->packs[i];
        char key[OBJECT_KEY_MAX];
        object_ref_key('p', pack, key);
        if (!upload_may_reuse(u, pack))
            return err_fail(err, -EPROTO, "the pack %s is about to be collected", key);
        refs[count++] = pack;
    }
    if (count)
        qsort(refs, count, sizeof *refs, compare_refs);
    for (size_t first = 0, next; first < count; first = next) {
        for (next = first + 1; next < count; next++) {
            if (memcmp(&refs[next]->session, &refs[first]->session, sizeof refs[0]->session) != 0)
                break;
        }
        struct expected e = {
            .refs = refs + first, .count = next - first, .letter = 'p', .err = err};
        int r = check_session(u->c, &e);
        if (r < 0)
            return r;
    }
    struct expected e = {.refs = &index, .count = 1, .letter = 'x', .err = err};
    return check_session(u->c, &e);
}

/* ---- the manifest ---- */

/* A put in doubt is written again under the next number, and the old key never named (I8). */
static int write_manifest(struct upload *u, const struct manifest *m, struct object_ref *ret,
                          struct err *err)
{
    AUTO(buf_release) struct buf b = BUF_INIT(MANIFEST_SIZE_MAX);
    char key[OBJECT_KEY_MAX] = "";

    int r = manifest_encode(m, &b);
    if (r < 0)
        return err_fail(err, r, "cannot make the manifest of version %" PRIu32 " of '%s': %s",
                        m->version, m->name, strerror(-r));
    for (unsigned i = 0; i < MANIFEST_TRIES; i++) {
        struct object_ref ref = {
            .session = u->terms.session, .seq = upload_next_seq(u, 'm'), .length = b.size};
        object_ref_key('m', &ref, key);
        r = store_put_if_absent(u->c->store, key, buf_bytes(&b));
        if (r == 0) {
            ref.digest = digest_of(b.data, b.size);
            *ret = ref;
            return 0;
        }
        if (!is_doubt(r))
            break;
        doubt_sleep(u->c, (int)i);
    }
    return err_fail(err, r, "cannot write the manifest %s to the store %s: %s", key,
                    u->c->store->location, store_error(u->c->store, r));
}

/* ---- the outcome ---- */

/* Adds `more` (stolen) to `body` (stolen). NULL if either is, or no memory. */
static json_t *joined(json_t *body, json_t *more)
{
    AUTO(json_decref) json_t *a = body;
    AUTO(json_decref) json_t *b = more;

    if (!a || !b || json_object_update(a, b) < 0)
        return NULL;
    return take_ptr(&a);
}

static json_t *ref_body(const struct object_ref *ref)
{
    char session[33], digest[DIGEST_HEX_SIZE];

    session_id_to_hex(&ref->session, session);
    digest_to_hex(&ref->digest, digest);
    return json_pack("{s:s, s:I, s:I, s:s}", "session", session, "seq", (json_int_t)ref->seq,
                     "length", (json_int_t)ref->length, "digest", digest);
}

/* An index has a trailer, as packs do. */
static json_t *index_body(const struct object_ref *ref)
{
    return joined(ref_body(ref),
                  json_pack("{s:I, s:I, s:I}", "trailer_length", (json_int_t)ref->trailer_length,
                            "data_size", (json_int_t)ref->data_size, "leaf_count",
                            (json_int_t)ref->leaf_count));
}

json_t *outcome_body(const struct version_info *t, int64_t created_ms)
{
    char hex[33];

    session_id_to_hex(&t->session, hex);
    return json_pack("{s:s, s:I, s:s, s:s, s:s, s:s, s:b, s:I}", "name", t->name, "version",
                     (json_int_t)t->version, "session", hex, "owner", t->owner, "host", t->host,
                     "source", t->source, "linked", (int)t->linked, "created_ms",
                     (json_int_t)created_ms);
}

static int make_abort(struct catalogue *c, const struct version_info *terms, const char *reason,
                      struct draft *ret, struct err *err)
{
    char text[sizeof terms->reason];

    text_copy(text, sizeof text, reason);
    return draft_make(c, RECORD_OUTCOME,
                      joined(outcome_body(terms, terms->created_ms),
                             json_pack("{s:s, s:s}", "decision", "aborted", "reason", text)),
                      ret, err);
}

static int make_commit(struct upload *u, const struct manifest *m,
                       const struct object_ref *manifest, struct draft *ret, struct err *err)
{
    return draft_make(
        u->c, RECORD_OUTCOME,
        joined(outcome_body(&u->terms, m->created_ms),
               json_pack("{s:s, s:I, s:I, s:o, s:o, s:I, s:I}", "decision", "committed", "files",
                         (json_int_t)m->files, "size_bytes", (json_int_t)m->size_bytes, "manifest",
                         ref_body(manifest), "index", index_body(&m->index), "index_size",
                         (json_int_t)m->index_size, "index_head", (json_int_t)m->index_head)),
        ret, err);
}

static int unknown(struct upload *u, int code, struct err *err)
{
    err_clear(err);
    return err_fail(err, code,
                    "cannot tell whether version %" PRIu32
                    " of '%s' was committed: the store %s does not answer; resuming it will tell",
                    u->terms.version, u->terms.name, u->c->store->location);
}

/* The outcome as it stands. Mine: 0. Not there: -ENOENT. */
static int read_decision(struct upload *u, const char *key, const struct draft *commit,
                         struct version_info *ret, struct err *err)
{
    AUTO(json_decref) json_t *there = NULL;
    const struct version_info *t = &u->terms;

    int r = read_record_settled(u->c, key, RECORD_OUTCOME, &there, err);
    if (r == -EIO || r == -ETIMEDOUT)
        return unknown(u, r, err);
    if (r == 0)
        r = version_from_outcome(there, key, t->name, t->version, ret, err);
    if (r < 0)
        return r;
    struct nonce nonce = record_nonce(there);
    if (memcmp(&nonce, &commit->nonce, sizeof nonce) == 0)
        return 0;
    if (ret->status == VERSION_FAILED)
        return err_fail(err, -ESTALE, "version %" PRIu32 " of '%s' was aborted: %s", t->version,
                        t->name, ret->reason);
    return err_fail(err, -EEXIST,
                    "version %" PRIu32 " of '%s' was committed by another process meanwhile",
                    t->version, t->name);
}

/* Write the commit; in doubt, write the abort to the same key and report what the key says. */
static int decide(struct upload *u, const struct draft *commit, struct version_info *ret,
                  struct err *err)
{
    AUTO(draft_release) struct draft abort = {0};
    char key[CATALOGUE_KEY_MAX];
    struct version_info mine;

    key_version(key, u->terms.name, u->terms.version, "o");
    /* Nothing is written that could not be read back. */
    int r = version_from_outcome(commit->body, key, u->terms.name, u->terms.version, &mine, err);
    if (r == 0)
        r = make_abort(u->c, &u->terms, "the commit was not answered", &abort, err);
    if (r < 0)
        return r;
    r = store_put_if_absent(u->c->store, key, buf_bytes(&commit->bytes));
    if (r == 0) {
        *ret = mine;
        return 0;
    }
    if (!is_doubt(r))
        return err_fail(err, r, "cannot write %s to the store %s: %s", key, u->c->store->location,
                        store_error(u->c->store, r));
    for (int i = 0; i < DOUBT_TRIES; i++) {
        r = read_decision(u, key, commit, ret, err);
        if (r != -ENOENT)
            return r;
        if (i > 0)
            doubt_sleep(u->c, i - 1);
        (void)store_put_if_absent(u->c->store, key, buf_bytes(&abort.bytes)); /* the key tells */
    }
    return unknown(u, -EIO, err);
}

int upload_commit(struct upload *u, struct manifest *m, struct version_info *ret, struct err *err)
{
    AUTO(draft_release) struct draft commit = {0};
    struct object_ref manifest;
    struct version_info info;

    (void)snprintf(m->name, sizeof m->name, "%s", u->terms.name); /* of the same size */
    m->version = u->terms.version;
    if (m->created_ms == 0)
        m->created_ms = catalogue_now_ms(u->c);
    int r = check_objects(u, m, err);
    if (r == 0)
        r = write_manifest(u, m, &manifest, err);
    if (r == 0)
        r = make_commit(u, m, &manifest, &commit, err);
    if (r == 0)
        r = decide(u, &commit, &info, err);
    if (r == 0)
        *ret = info;
    return r;
}

int outcome_abort(struct catalogue *c, const struct version_info *terms, const char *reason,
                  struct err *err)
{
    AUTO(draft_release) struct draft d = {0};
    AUTO(json_decref) json_t *other = NULL;
    struct version_info outcome;
    char key[CATALOGUE_KEY_MAX];

    key_version(key, terms->name, terms->version, "o");
    int r = make_abort(c, terms, reason, &d, err);
    if (r == 0)
        r = put_record(c, key, RECORD_OUTCOME, &d, &other, err);
    if (r != -EEXIST)
        return r;
    r = version_from_outcome(other, key, terms->name, terms->version, &outcome, err);
    if (r == 0 && outcome.status == VERSION_SUCCEEDED)
        r = err_fail(err, -EEXIST, "version %" PRIu32 " of '%s' has been committed", terms->version,
                     terms->name);
    return r;
}

int upload_abort(struct upload *u, const char *reason, struct err *err)
{
    return outcome_abort(u->c, &u->terms, reason, err);
}

int catalogue_abort(struct catalogue *c, const char *name, uint32_t n, const char *reason,
                    struct err *err)
{
    struct version_info terms;

    if (!name_is_valid(name))
        return err_fail(err, -EINVAL, "'%s' is no name of a datastore", name);
    int r = version_read_allocation(c, name, n, &terms, err);
    if (r == -ENOENT)
        return err_fail(err, r, "'%s' has no version %" PRIu32 " in %s", name, n,
                        c->store->location);
    return r < 0 ? r : outcome_abort(c, &terms, reason, err);
}

/* ---- uploads that died ---- */

static int take_newest(void *ctx, const struct store_entry *entry)
{
    int64_t *newest = ctx;

    if (entry->mtime_ms > *newest)
        *newest = entry->mtime_ms;
    return 0;
}

/* R8: a clock, the store's own, decides only who is presumed dead. */
static int expire_row(struct catalogue *c, const struct version_row *row, bool *ret_expired,
                      struct err *err)
{
    struct version_info terms;
    char prefix[CATALOGUE_KEY_MAX], reason[128];
    int64_t newest = row->mtime_ms, now = 0;

    int r = version_read_allocation(c, row->name, row->version, &terms, err);
    if (r < 0)
        return err_fail(err, r == -ENOENT ? -EPROTO : r,
                        "version %" PRIu32 " of '%s' has no record", row->version, row->name);
    key_session(prefix, &terms.session, "");
    r = store_list(c->store, prefix, NULL, take_newest, &newest, &now);
    if (r < 0)
        return err_fail(err, r, "cannot list %s in the store %s: %s", prefix, c->store->location,
                        store_error(c->store, r));
    if (now - newest <= c->dead_after_ms)
        return 0;
    (void)snprintf(reason, sizeof reason, "no sign of life for %lld hours", /* fits */
                   (long long)((now - newest) / 3600000));
    r = outcome_abort(c, &terms, reason, err);
    if (r == -EEXIST) { /* it lived, and has committed: no error */
        err_clear(err);
        return 0;
    }
    *ret_expired = r == 0;
    return r;
}

int catalogue_expire(struct catalogue *c, const char *name, unsigned *ret_count, struct err *err)
{
    AUTO(version_rows_release) struct version_rows v = {0};
    char prefix[CATALOGUE_KEY_MAX] = KEY_VERSIONS;
    unsigned count = 0;

    if (name && !name_is_valid(name))
        return err_fail(err, -EINVAL, "'%s' is no name of a datastore", name);
    if (name)
        key_versions(prefix, name);
    int r = version_rows_list(c, prefix, &v, err);
    for (size_t i = 0; r == 0 && i < v.rows.count; i++) {
        bool expired = false;
        if (v.rows.at[i].decided)
            continue;
        r = expire_row(c, &v.rows.at[i], &expired, err);
        count += expired;
    }
    if (r == 0)
        *ret_count = count;
    return r;
}
