/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Does a store, at rest, keep what docs/formats/catalogue.md promises? Reads everything with a few
 * lines of parsing of its own (of the catalogue's code nothing is used; manifests are decoded by
 * src/manifest), so that one mistake cannot hide in both.
 *
 * Everything is listed once and kept in the order of keys; then each rule looks at it. Packs are
 * not read but for their trailers: `verify` does that, for one version.
 */
#include "catalogue/catalogue.h"

#include "base/vec.h"

#include <inttypes.h>
#include <jansson.h>

#define ROW_KEY_MAX 160
/* A trailer is 64 KiB at most; larger ones are a finding. */
#define TRAILER_MAX (1u << 20)

struct row {
    char key[ROW_KEY_MAX];
    uint64_t size;
    json_t *body; /* owned; of records that are whole */
    bool named;   /* an object that an available version names */
};

struct fsck {
    struct store *store;
    fsck_fn *fn;
    void *ctx;
    struct fsck_report report;
    VEC(struct row) rows; /* ascending by key */
    int error;
    struct err *err;
};

static void finding(struct fsck *f, const char *rule, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

static void finding(struct fsck *f, const char *rule, const char *format, ...)
{
    char text[1024];
    va_list args;

    va_start(args, format);
    (void)vsnprintf(text, sizeof text, format, args); /* or cut short */
    va_end(args);
    f->report.findings++;
    f->fn(f->ctx, rule, text);
}

static int compare_rows(const void *a, const void *b)
{
    return strcmp(((const struct row *)a)->key, ((const struct row *)b)->key);
}

static struct row *find(struct fsck *f, const char *key)
{
    struct row wanted;

    if (!f->rows.count || strlen(key) >= sizeof wanted.key)
        return NULL;
    memcpy(wanted.key, key, strlen(key) + 1);
    return bsearch(&wanted, f->rows.at, f->rows.count, sizeof wanted, compare_rows);
}

static const char *text_of(const json_t *body, const char *field)
{
    const char *text = json_string_value(json_object_get(body, field));

    return text ? text : "";
}

static uint64_t number_of(const json_t *body, const char *field)
{
    const json_t *n = json_object_get(body, field);

    return json_is_integer(n) && json_integer_value(n) >= 0 ? (uint64_t)json_integer_value(n)
                                                            : UINT64_MAX;
}

/* ---- keys ---- */

/* The type of record that a key wants; "": an object; NULL: no key of ours. */
static const char *type_of_key(const char *key)
{
    char name[64], id[33], leaf[4];
    unsigned long long number, seq;
    int end = 0;

    if (strcmp(key, "fmt") == 0)
        return "format";
    if (sscanf(key, "n/%63[a-z0-9._-]/v/%10llu/%3[aod]%n", name, &number, leaf, &end) == 3) {
        if (strcmp(key + end, "") == 0 && strcmp(leaf, "a") == 0)
            return "allocation";
        if (strcmp(key + end, "") == 0 && strcmp(leaf, "o") == 0)
            return "outcome";
        if (strcmp(leaf, "d") == 0 && sscanf(key + end, "/%6llu/%1[ir]", &seq, id) == 2)
            return id[0] == 'i' ? "delete-intent" : "delete-result";
        return NULL;
    }
    end = 0;
    if (sscanf(key, "l/%63[a-z0-9._-]/%10llu/%32[0-9a-f].%10llu%n", name, &number, id, &seq,
               &end) == 4 &&
        !key[end] && strlen(id) == 32)
        return "lease";
    end = 0;
    if (sscanf(key, "s/%32[0-9a-f]/%n", id, &end) == 1 && end == 35)
        return strcmp(key + end, "i") == 0                                   ? "session"
               : strncmp(key + end, "h.", 2) == 0 && strlen(key + end) == 12 ? "heartbeat"
                                                                             : NULL;
    end = 0;
    if (sscanf(key, "g/%10llu/%1[cswe]%n", &number, leaf, &end) == 2 && !key[end])
        return leaf[0] == 'c'   ? "condemned"
               : leaf[0] == 's' ? "awaited"
               : leaf[0] == 'w' ? "sweep"
                                : "round-end";
    end = 0;
    if (sscanf(key, "%1[pxm]/%32[0-9a-f]/%10llu%n", leaf, id, &seq, &end) == 3 && !key[end] &&
        strlen(id) == 32)
        return "";
    return NULL;
}

/* ---- records ---- */

/* The three lines. NULL: damaged, and said so. */
static json_t *parse_record(struct fsck *f, const char *key, const char *type, struct bytes bytes)
{
    const char *text = bytes.data;
    char head[64], hex[DIGEST_HEX_SIZE], last[DIGEST_HEX_SIZE + 16];
    const char *first = memchr(text, '\n', bytes.size);
    const char *second =
        first ? memchr(first + 1, '\n', bytes.size - (size_t)(first + 1 - text)) : NULL;

    if (!second) {
        finding(f, "R3", "%s is damaged: it does not have three lines", key);
        return NULL;
    }
    struct digest d = digest_of(text, (size_t)(second + 1 - text));
    digest_to_hex(&d, hex);
    (void)snprintf(last, sizeof last, "sha256 %s\n", hex); /* fits */
    size_t rest = bytes.size - (size_t)(second + 1 - text);
    if (rest != strlen(last) || memcmp(second + 1, last, rest) != 0) {
        finding(f, "R3", "%s is damaged: its digest does not match", key);
        return NULL;
    }
    (void)snprintf(head, sizeof head, "grid-record 1 %s", type); /* fits */
    if ((size_t)(first - text) != strlen(head) || memcmp(text, head, strlen(head)) != 0) {
        finding(f, "R3", "%s is no record of type \"%s\", format 1", key, type);
        return NULL;
    }
    json_t *body =
        json_loadb(first + 1, (size_t)(second - first - 1), JSON_REJECT_DUPLICATES, NULL);
    if (!json_is_object(body) || strlen(text_of(body, "nonce")) != 32) {
        finding(f, "R3", "%s has no body with a nonce", key);
        json_decref(body);
        return NULL;
    }
    return body;
}

static int read_record(struct fsck *f, struct row *row, const char *type)
{
    AUTO(buf_release) struct buf b = BUF_INIT(CATALOGUE_RECORD_MAX + 1);

    int r = store_get_all(f->store, row->key, &b);
    if (r == -EFBIG) {
        finding(f, "R3", "%s is longer than any record", row->key);
        return 0;
    }
    if (r < 0)
        return err_fail(f->err, r, "cannot read %s in the store %s: %s", row->key,
                        f->store->location, strerror(-r));
    f->report.records++;
    row->body = parse_record(f, row->key, type, buf_bytes(&b));
    return 0;
}

static int take_row(void *ctx, const struct store_entry *entry)
{
    struct fsck *f = ctx;
    struct row row = {.size = entry->size_bytes};

    f->report.keys++;
    if (strlen(entry->key) >= sizeof row.key || !type_of_key(entry->key)) {
        finding(f, "R6", "%s is nothing that this program knows", entry->key);
        return 0;
    }
    memcpy(row.key, entry->key, strlen(entry->key) + 1);
    if (vec_push(&f->rows, row) < 0) {
        f->error = err_fail(f->err, -ENOMEM, "out of memory");
        return 1;
    }
    return 0;
}

static int read_all(struct fsck *f)
{
    int r = store_list(f->store, "", NULL, take_row, f, NULL);

    if (f->error)
        return f->error;
    if (r < 0)
        return err_fail(f->err, r, "cannot list the store %s: %s", f->store->location,
                        strerror(-r));
    if (f->rows.count)
        qsort(f->rows.at, f->rows.count, sizeof *f->rows.at, compare_rows);
    for (size_t i = 0; i < f->rows.count; i++) {
        struct row *row = &f->rows.at[i];
        const char *type = type_of_key(row->key);
        r = *type ? read_record(f, row, type) : 0;
        if (r < 0)
            return r;
        f->report.objects += !*type;
        f->report.bytes += *type ? 0 : row->size;
    }
    return 0;
}

static int compare_texts(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* R2, R3: no two records have one nonce. */
static int check_nonces(struct fsck *f)
{
    VEC(const char *) nonces = {0};
    int r = 0;

    for (size_t i = 0; r == 0 && i < f->rows.count; i++) {
        if (f->rows.at[i].body)
            r = vec_push(&nonces, text_of(f->rows.at[i].body, "nonce"));
    }
    if (nonces.count)
        qsort(nonces.at, nonces.count, sizeof *nonces.at, compare_texts);
    for (size_t i = 1; r == 0 && i < nonces.count; i++) {
        if (strcmp(nonces.at[i - 1], nonces.at[i]) == 0)
            finding(f, "R3", "two records have the nonce %s", nonces.at[i]);
    }
    vec_release(&nonces);
    return r < 0 ? err_fail(f->err, r, "out of memory") : 0;
}

/* ---- versions ---- */

struct version {
    char name[64];
    uint64_t n;
    const json_t *allocation, *outcome;
    bool has_allocation, deleted;
};

/* Objects: there, of the length that is named (I5). */
static struct row *check_object(struct fsck *f, char letter, const struct object_ref *ref,
                                const struct version *v)
{
    char key[OBJECT_KEY_MAX];

    object_ref_key(letter, ref, key);
    struct row *row = find(f, key);
    if (!row)
        finding(f, "I5", "%s:%" PRIu64 " names %s, which is missing", v->name, v->n, key);
    else if (row->size != ref->length)
        finding(f, "I5", "%s:%" PRIu64 " names %s with %" PRIu64 " bytes, and it has %" PRIu64,
                v->name, v->n, key, ref->length, row->size);
    else {
        row->named = true;
        return row;
    }
    return NULL;
}

static int check_trailer(struct fsck *f, const struct row *row, const struct object_ref *ref)
{
    AUTO(free_ptr) uint8_t *trailer = NULL;
    size_t got = 0;

    if (ref->trailer_length > TRAILER_MAX || ref->trailer_length > ref->length) {
        finding(f, "I5", "%s has a trailer of %" PRIu32 " bytes", row->key, ref->trailer_length);
        return 0;
    }
    trailer = malloc(ref->trailer_length + 1u);
    if (!trailer)
        return err_fail(f->err, -ENOMEM, "out of memory");
    int r = store_get(f->store, row->key, ref->length - ref->trailer_length, trailer,
                      ref->trailer_length, &got, NULL);
    if (r < 0)
        return err_fail(f->err, r, "cannot read %s in the store %s: %s", row->key,
                        f->store->location, strerror(-r));
    struct digest d = digest_of(trailer, got);
    if (got != ref->trailer_length || !digest_equal(&d, &ref->digest))
        finding(f, "I5", "the trailer of %s does not match its digest", row->key);
    return 0;
}

static int check_manifest(struct fsck *f, const struct version *v, const struct object_ref *where)
{
    AUTO(buf_release) struct buf b = BUF_INIT(MANIFEST_SIZE_MAX);
    AUTO(manifest_release) struct manifest m = {0};
    struct err why = ERR_INIT;
    struct row *row = check_object(f, 'm', where, v);

    if (!row)
        return 0;
    int r = store_get_all(f->store, row->key, &b);
    if (r < 0)
        return err_fail(f->err, r, "cannot read %s in the store %s: %s", row->key,
                        f->store->location, strerror(-r));
    struct digest d = digest_of(b.data, b.size);
    if (!digest_equal(&d, &where->digest)) {
        finding(f, "I5", "%s does not match its digest", row->key);
        return 0;
    }
    r = manifest_decode(buf_bytes(&b), &m, &why);
    if (r < 0) {
        finding(f, "I5", "%s cannot be read: %s", row->key, err_text(&why, r));
        return 0;
    }
    if (strcmp(m.name, v->name) != 0 || m.version != v->n)
        finding(f, "I5", "%s is of %s:%" PRIu32, row->key, m.name, m.version);
    row = check_object(f, 'x', &m.index, v);
    r = row ? check_trailer(f, row, &m.index) : 0;
    for (uint32_t i = 0; r == 0 && i < m.pack_count; i++) {
        row = check_object(f, 'p', &m.packs[i], v);
        r = row ? check_trailer(f, row, &m.packs[i]) : 0;
    }
    return r;
}

static int check_committed(struct fsck *f, const struct version *v)
{
    const json_t *ref = json_object_get(v->outcome, "manifest");
    struct object_ref where = {.length = number_of(ref, "length"),
                               .seq = (uint32_t)number_of(ref, "seq")};

    f->report.available++;
    if (session_id_from_hex(&where.session, text_of(ref, "session")) < 0 ||
        digest_from_hex(&where.digest, text_of(ref, "digest")) < 0) {
        finding(f, "I5", "the outcome of %s:%" PRIu64 " names no manifest", v->name, v->n);
        return 0;
    }
    return check_manifest(f, v, &where);
}

static int check_version(struct fsck *f, const struct version *v)
{
    const char *decision = text_of(v->outcome, "decision");

    f->report.versions++;
    if (!v->has_allocation)
        finding(f, "I1", "%s:%" PRIu64 " has records and no allocation", v->name, v->n);
    if (v->allocation && (strcmp(text_of(v->allocation, "name"), v->name) != 0 ||
                          number_of(v->allocation, "version") != v->n))
        finding(f, "I1", "the allocation of %s:%" PRIu64 " says another number", v->name, v->n);
    if (v->outcome && v->allocation &&
        strcmp(text_of(v->outcome, "session"), text_of(v->allocation, "session")) != 0)
        finding(f, "I1", "the outcome of %s:%" PRIu64 " is of another upload", v->name, v->n);
    if (v->outcome && strcmp(decision, "committed") != 0 && strcmp(decision, "aborted") != 0)
        finding(f, "I3", "the outcome of %s:%" PRIu64 " is neither committed nor aborted", v->name,
                v->n);
    if (strcmp(decision, "committed") == 0 && !v->deleted)
        return check_committed(f, v);
    return 0;
}

/* One delete record: a result has its intent, and a decision (I14). */
static void see_deletion(struct fsck *f, const struct row *row, struct version *v)
{
    const char *decision = text_of(row->body, "decision");
    char intent[ROW_KEY_MAX];
    size_t length = strlen(row->key);

    if (row->key[length - 1] != 'r' || !row->body)
        return;
    memcpy(intent, row->key, length + 1);
    intent[length - 1] = 'i';
    if (!find(f, intent))
        finding(f, "I14", "%s has no intent", row->key);
    if (strcmp(decision, "deleted") == 0)
        v->deleted = true;
    else if (strcmp(decision, "refused") != 0)
        finding(f, "I14", "%s is neither deleted nor refused", row->key);
}

/* Numbers of a name go from the highest down to 1 (I1). */
static void check_dense(struct fsck *f, const struct version *last, const struct version *v)
{
    bool same = v && strcmp(last->name, v->name) == 0;

    if (last->n && !same && last->n != 1)
        finding(f, "I1", "%s has no version below %" PRIu64, last->name, last->n);
    if (last->n && same && v->n != last->n - 1)
        finding(f, "I1", "%s has no version %" PRIu64, v->name, last->n - 1);
}

static int check_versions(struct fsck *f)
{
    struct version v = {0}, next;
    int r = 0;

    for (size_t i = 0; r == 0 && i < f->rows.count; i++) {
        const struct row *row = &f->rows.at[i];
        unsigned long long reverse;
        char leaf;
        next = (struct version){0};
        if (row->key[0] != 'n' ||
            sscanf(row->key, "n/%63[^/]/v/%10llu/%c", next.name, &reverse, &leaf) != 3)
            continue;
        next.n = UINT64_C(9999999999) - reverse;
        if (next.n != v.n || strcmp(next.name, v.name) != 0) {
            if (v.n)
                r = check_version(f, &v);
            check_dense(f, &v, &next);
            v = next;
        }
        if (leaf == 'a') {
            v.has_allocation = true;
            v.allocation = row->body;
        } else if (leaf == 'o')
            v.outcome = row->body;
        else
            see_deletion(f, row, &v);
    }
    if (r == 0 && v.n) {
        r = check_version(f, &v);
        check_dense(f, &v, NULL);
    }
    return r;
}

/* ---- uploads ---- */

struct upload_row {
    char session[33];
    bool decided;
};

struct uploads {
    VEC(struct upload_row) rows; /* ascending */
};

static int compare_uploads(const void *a, const void *b)
{
    return strcmp(((const struct upload_row *)a)->session, ((const struct upload_row *)b)->session);
}

static int find_uploads(struct fsck *f, struct uploads *u)
{
    for (size_t i = 0; i < f->rows.count; i++) {
        const struct row *row = &f->rows.at[i];
        size_t length = strlen(row->key);
        struct upload_row upload = {0};
        char outcome[ROW_KEY_MAX];
        if (row->key[0] != 'n' || row->key[length - 1] != 'a' || !row->body)
            continue;
        memcpy(outcome, row->key, length + 1);
        outcome[length - 1] = 'o';
        upload.decided = find(f, outcome) != NULL;
        (void)snprintf(upload.session, sizeof upload.session, "%s", /* else no key matches */
                       text_of(row->body, "session"));
        if (vec_push(&u->rows, upload) < 0)
            return err_fail(f->err, -ENOMEM, "out of memory");
    }
    if (u->rows.count)
        qsort(u->rows.at, u->rows.count, sizeof *u->rows.at, compare_uploads);
    for (size_t i = 1; i < u->rows.count; i++) {
        if (compare_uploads(&u->rows.at[i - 1], &u->rows.at[i]) == 0)
            finding(f, "I1", "the upload %s owns two numbers", u->rows.at[i].session);
    }
    return 0;
}

/* I6, I12: objects and sessions belong to allocations; what runs and has objects is registered. */
static int check_sessions(struct fsck *f)
{
    struct uploads u = {0};
    int r = find_uploads(f, &u);

    for (size_t i = 0; r == 0 && i < f->rows.count; i++) {
        const struct row *row = &f->rows.at[i];
        struct upload_row wanted = {0};
        char record[64];
        if (!strchr("pxms", row->key[0]))
            continue;
        memcpy(wanted.session, row->key + 2, 32);
        const struct upload_row *found =
            u.rows.count ? bsearch(&wanted, u.rows.at, u.rows.count, sizeof wanted, compare_uploads)
                         : NULL;
        (void)snprintf(record, sizeof record, "s/%s/i", wanted.session); /* fits */
        if (!found)
            finding(f, "I6", "%s is of no upload that has a number", row->key);
        else if (row->key[0] != 's' && !found->decided && !find(f, record))
            finding(f, "I12", "%s is of an upload that runs and is not registered", row->key);
        if (row->key[0] != 's' && !row->named) {
            f->report.unnamed_objects++;
            f->report.unnamed_bytes += row->size;
        }
    }
    vec_release(&u.rows);
    return r;
}

/* ---- rounds ---- */

/* I10, I11: c, then w, then e; all but the newest have ended; none is missing; w is part of c. */
static void check_round(struct fsck *f, uint64_t k, uint64_t newest)
{
    static const char leaves[] = "cwe";
    const struct row *row[3];
    char key[32];

    for (size_t i = 0; i < 3; i++) {
        (void)snprintf(key, sizeof key, "g/%010" PRIu64 "/%c", UINT64_C(9999999999) - k, /* fits */
                       leaves[i]);
        row[i] = find(f, key);
    }
    if (!row[0] || (row[2] && !row[1]))
        finding(f, "I10", "round %" PRIu64 " lacks a list", k);
    if (k < newest && !row[2])
        finding(f, "I11", "round %" PRIu64 " has no end, and there is a later one", k);
}

static void check_rounds(struct fsck *f)
{
    uint64_t newest = 0;

    for (size_t i = 0; i < f->rows.count; i++) {
        unsigned long long reverse;
        if (sscanf(f->rows.at[i].key, "g/%10llu/", &reverse) != 1)
            continue;
        uint64_t k = UINT64_C(9999999999) - reverse;
        if (k > newest)
            newest = k;
        const json_t *body = f->rows.at[i].body;
        if (body && number_of(body, "round") != k)
            finding(f, "I11", "%s says that it is of another round", f->rows.at[i].key);
    }
    /* more than there are keys are not looked for one by one: the first hole says it */
    for (uint64_t k = 1; k <= newest && k <= f->rows.count + 1; k++)
        check_round(f, k, newest);
}

/* ---- the verb ---- */

int catalogue_fsck(struct store *store, fsck_fn *fn, void *ctx, struct fsck_report *ret,
                   struct err *err)
{
    struct fsck f = {.store = store, .fn = fn, .ctx = ctx, .err = err};
    int r = read_all(&f);

    if (r == 0 && f.rows.count && !find(&f, "fmt"))
        finding(&f, "R3", "there is no record \"fmt\"");
    if (r == 0)
        r = check_nonces(&f);
    if (r == 0)
        r = check_versions(&f);
    if (r == 0)
        r = check_sessions(&f);
    if (r == 0)
        check_rounds(&f);
    for (size_t i = 0; i < f.rows.count; i++)
        json_decref(f.rows.at[i].body);
    vec_release(&f.rows);
    if (r == 0)
        *ret = f.report;
    return r;
}
