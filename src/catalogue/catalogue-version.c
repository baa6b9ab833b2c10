/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One version as its records tell it: its row in a listing, its allocation, its outcome, whether it
 * was deleted. The status is derived and stands nowhere (docs/formats/catalogue.md, "Status").
 *
 * As few reads as there can be: the outcome alone where there is one, the allocation (and a
 * heartbeat) where there is none, delete results only where a listing shows some.
 */
#include "catalogue/catalogue-internal.h"

#include "base/name.h"

#include <inttypes.h>

/* ---- rows ---- */

int version_rows_add(struct version_rows *v, const struct store_entry *entry,
                     const struct key_parts *parts)
{
    struct version_row *row = v->rows.count ? &v->rows.at[v->rows.count - 1] : NULL;

    if (!row || row->version != parts->version || strcmp(row->name, parts->name) != 0) {
        struct version_row fresh = {.version = parts->version};
        memcpy(fresh.name, parts->name, sizeof fresh.name);
        int r = vec_push(&v->rows, fresh);
        if (r < 0)
            return r;
        row = &v->rows.at[v->rows.count - 1];
    }
    if (parts->delete_round > row->delete_round)
        row->delete_round = parts->delete_round;
    switch (parts->leaf) {
    case KEY_LEAF_ALLOCATION:
        row->allocated = true;
        row->mtime_ms = entry->mtime_ms;
        break;
    case KEY_LEAF_OUTCOME:
        row->decided = true;
        break;
    case KEY_LEAF_DELETE_RESULT:
        row->delete_result = true;
        break;
    case KEY_LEAF_DELETE_INTENT: /* changes nothing until it has a result */
    case KEY_LEAF_NONE:
        break;
    }
    return 0;
}

struct row_filler {
    struct version_rows *rows;
    int error;
};

static int fill_row(void *ctx, const struct store_entry *entry)
{
    struct row_filler *filler = ctx;
    struct key_parts parts;

    if (entry->is_prefix || !key_parse_version(entry->key, &parts))
        return 0;
    filler->error = version_rows_add(filler->rows, entry, &parts);
    return filler->error ? 1 : 0;
}

int version_rows_list(struct catalogue *c, const char *prefix, struct version_rows *ret,
                      struct err *err)
{
    struct row_filler filler = {.rows = ret};

    int r = store_list(c->store, prefix, NULL, fill_row, &filler, NULL);
    if (filler.error)
        return err_fail(err, filler.error, "out of memory");
    if (r < 0)
        return err_fail(err, r, "cannot list %s in the store %s: %s", prefix, c->store->location,
                        store_error(c->store, r));
    return 0;
}

static int take_highest(void *ctx, const struct store_entry *entry)
{
    uint32_t *highest = ctx;
    struct key_parts parts;

    if (!entry->is_prefix || !key_parse_version(entry->key, &parts))
        return 0;
    *highest = parts.version;
    return 1; /* the newest comes first */
}

int version_highest(struct catalogue *c, const char *name, uint32_t *ret, struct err *err)
{
    char prefix[CATALOGUE_KEY_MAX];
    uint32_t highest = 0;

    key_versions(prefix, name);
    int r = store_list(c->store, prefix, &(struct store_list_options){.by_component = true},
                       take_highest, &highest, NULL);
    if (r < 0)
        return err_fail(err, r, "cannot list the versions of '%s' in the store %s: %s", name,
                        c->store->location, store_error(c->store, r));
    *ret = highest;
    return 0;
}

/* ---- records ---- */

/* What allocation and outcome have in common. */
static void take_terms(struct record_fields *f, const char *name, uint32_t n,
                       struct version_info *info)
{
    const char *named = record_string(f, "name");

    memset(info, 0, sizeof *info);
    (void)snprintf(info->name, sizeof info->name, "%s", name); /* valid, so it fits */
    info->version = n;
    if (!f->error && strcmp(named, name) != 0)
        record_bad_field(f, "name", "is not that of its key");
    if (record_number(f, "version", CATALOGUE_VERSION_MAX) != n)
        record_bad_field(f, "version", "is not that of its key");
    record_hex(f, "session", info->session.byte, sizeof info->session.byte);
    text_copy(info->owner, sizeof info->owner, record_string(f, "owner"));
    text_copy(info->host, sizeof info->host, record_string(f, "host"));
    text_copy(info->source, sizeof info->source, record_string(f, "source"));
    info->linked = record_flag(f, "linked");
}

static void take_ref(struct record_fields *f, const char *field, bool has_trailer,
                     struct object_ref *ref)
{
    struct record_fields in = {record_member(f, field, JSON_OBJECT), f->key, f->err, f->error};

    memset(ref, 0, sizeof *ref);
    record_hex(&in, "session", ref->session.byte, sizeof ref->session.byte);
    ref->seq = (uint32_t)record_number(&in, "seq", UINT32_MAX);
    ref->length = record_number(&in, "length", INT64_MAX);
    record_hex(&in, "digest", ref->digest.byte, sizeof ref->digest.byte);
    if (has_trailer) {
        ref->trailer_length = (uint32_t)record_number(&in, "trailer_length", UINT32_MAX);
        ref->data_size = record_number(&in, "data_size", INT64_MAX);
        ref->leaf_count = record_number(&in, "leaf_count", INT64_MAX);
    }
    f->error = in.error;
    if (!f->error && (ref->trailer_length > ref->length || ref->data_size > ref->length))
        record_bad_field(f, field, "has parts that are longer than the whole");
}

int version_from_outcome(const json_t *body, const char *key, const char *name, uint32_t n,
                         struct version_info *ret, struct err *err)
{
    struct record_fields f = {.body = body, .key = key, .err = err};
    struct version_info info;

    take_terms(&f, name, n, &info);
    info.created_ms = (int64_t)record_number(&f, "created_ms", INT64_MAX);
    const char *decision = record_string(&f, "decision");
    if (strcmp(decision, "committed") == 0) {
        info.status = VERSION_SUCCEEDED;
        info.files = record_number(&f, "files", INT64_MAX);
        info.size_bytes = record_number(&f, "size_bytes", INT64_MAX);
        take_ref(&f, "manifest", false, &info.manifest);
        take_ref(&f, "index", true, &info.index);
        info.index_size = record_number(&f, "index_size", INT64_MAX);
        info.index_head = record_number(&f, "index_head", INT64_MAX);
    } else if (strcmp(decision, "aborted") == 0) {
        info.status = VERSION_FAILED;
        text_copy(info.reason, sizeof info.reason, record_string(&f, "reason"));
    } else {
        record_bad_field(&f, "decision", "is neither \"committed\" nor \"aborted\"");
    }
    if (f.error == 0)
        *ret = info;
    return f.error;
}

int version_read_allocation(struct catalogue *c, const char *name, uint32_t n,
                            struct version_info *ret, struct err *err)
{
    AUTO(json_decref) json_t *body = NULL;
    char key[CATALOGUE_KEY_MAX];
    struct version_info info;

    key_version(key, name, n, "a");
    int r = read_record(c, key, RECORD_ALLOCATION, &body, err);
    if (r < 0)
        return r;
    struct record_fields f = {.body = body, .key = key, .err = err};
    take_terms(&f, name, n, &info);
    info.status = VERSION_PROCESSING;
    info.created_ms = (int64_t)record_number(&f, "time_ms", INT64_MAX);
    if (f.error == 0)
        *ret = info;
    return f.error;
}

static int take_last_key(void *ctx, const struct store_entry *entry)
{
    if (!entry->is_prefix)
        (void)snprintf(ctx, CATALOGUE_KEY_MAX, "%s", entry->key); /* longer ones are not ours */
    return 0;
}

/* Whether the newest heartbeat of an undecided session says that the index is being made. */
static int read_phase(struct catalogue *c, struct version_info *info, struct err *err)
{
    AUTO(json_decref) json_t *body = NULL;
    char prefix[CATALOGUE_KEY_MAX], last[CATALOGUE_KEY_MAX] = "";

    key_session(prefix, &info->session, "h.");
    int r = store_list(c->store, prefix, NULL, take_last_key, last, NULL);
    if (r < 0)
        return err_fail(err, r, "cannot list %s in the store %s: %s", prefix, c->store->location,
                        store_error(c->store, r));
    if (!last[0])
        return 0;
    r = read_record(c, last, RECORD_HEARTBEAT, &body, err);
    if (r == -ENOENT) /* replaced by a newer one a moment ago */
        return 0;
    if (r < 0)
        return r;
    struct record_fields f = {.body = body, .key = last, .err = err};
    if (strcmp(record_string(&f, "phase"), "index") == 0)
        info->status = VERSION_OPTIMIZING;
    return f.error;
}

struct result_keys {
    VEC(char *) keys;
};

static void result_keys_release(struct result_keys *k)
{
    for (size_t i = 0; i < k->keys.count; i++)
        free(k->keys.at[i]);
    vec_release(&k->keys);
}

static inline void auto_result_keys_release(struct result_keys *k)
{
    result_keys_release(k);
}

static int take_result_key(void *ctx, const struct store_entry *entry)
{
    struct result_keys *k = ctx;
    struct key_parts parts;

    if (!key_parse_version(entry->key, &parts) || parts.leaf != KEY_LEAF_DELETE_RESULT)
        return 0;
    char *copy = strdup(entry->key);
    if (!copy || vec_push(&k->keys, copy) < 0) {
        free(copy);
        return -ENOMEM;
    }
    return 0;
}

/* Whether some delete round of the version came to "deleted". */
static int read_deletion(struct catalogue *c, struct version_info *info, struct err *err)
{
    AUTO(result_keys_release) struct result_keys results = {0};
    char prefix[CATALOGUE_KEY_MAX];

    key_version(prefix, info->name, info->version, "d/");
    int r = store_list(c->store, prefix, NULL, take_result_key, &results, NULL);
    if (r < 0)
        return err_fail(err, r, "cannot list %s in the store %s: %s", prefix, c->store->location,
                        store_error(c->store, r));
    for (size_t i = 0; i < results.keys.count; i++) {
        AUTO(json_decref) json_t *body = NULL;
        const char *key = results.keys.at[i];
        r = read_record(c, key, RECORD_DELETE_RESULT, &body, err);
        if (r < 0)
            return err_fail(err, r, "the record %s was listed and is gone", key);
        struct record_fields f = {.body = body, .key = key, .err = err};
        const char *decision = record_string(&f, "decision");
        if (!f.error && strcmp(decision, "deleted") != 0 && strcmp(decision, "refused") != 0)
            record_bad_field(&f, "decision", "is neither \"deleted\" nor \"refused\"");
        if (f.error)
            return f.error;
        if (strcmp(decision, "deleted") == 0)
            info->status = VERSION_DELETED;
    }
    return 0;
}

int version_read(struct catalogue *c, const struct version_row *row, struct version_info *ret,
                 struct err *err)
{
    AUTO(json_decref) json_t *body = NULL;
    char key[CATALOGUE_KEY_MAX];
    struct version_info info;
    int r;

    if (row->decided) {
        key_version(key, row->name, row->version, "o");
        r = read_record(c, key, RECORD_OUTCOME, &body, err);
        if (r == 0)
            r = version_from_outcome(body, key, row->name, row->version, &info, err);
        if (r == 0 && row->delete_result && info.status == VERSION_SUCCEEDED)
            r = read_deletion(c, &info, err);
    } else {
        key_version(key, row->name, row->version, "a");
        r = version_read_allocation(c, row->name, row->version, &info, err);
        if (r == 0)
            r = read_phase(c, &info, err);
    }
    if (r == -ENOENT)
        return err_fail(err, -EPROTO,
                        "the record %s is missing in the store %s: it is never removed", key,
                        c->store->location);
    if (r == 0)
        *ret = info;
    return r;
}

/* ---- one version ---- */

int catalogue_owner(struct catalogue *c, const char *name, char ret_owner[static 64],
                    struct err *err)
{
    struct version_info first;
    uint32_t highest = 0;

    if (!name_is_valid(name))
        return err_fail(err, -EINVAL, "'%s' is no name of a datastore", name);
    int r = version_read_allocation(c, name, 1, &first, err);
    if (r == -ENOENT) {
        r = version_highest(c, name, &highest, err);
        if (r == 0 && highest == 0)
            r = -ENOENT;
        else if (r == 0) /* it has been made since we looked */
            r = version_read_allocation(c, name, 1, &first, err);
    }
    if (r == 0)
        memcpy(ret_owner, first.owner, sizeof first.owner);
    if (r != -ENOENT)
        return r;
    if (highest > 0) /* numbers are dense (I1): something was removed */
        return err_fail(err, -EPROTO, "'%s' has a version %" PRIu32 " and no record of version 1",
                        name, highest);
    return err_fail(err, -ENOENT, "no datastore is named '%s' in %s", name, c->store->location);
}

int catalogue_manifest(struct catalogue *c, const struct version_info *info, struct manifest *ret,
                       struct err *err)
{
    AUTO(buf_release) struct buf b = BUF_INIT(MANIFEST_SIZE_MAX);
    AUTO(manifest_release) struct manifest m = {0};
    char key[OBJECT_KEY_MAX];

    if (info->status != VERSION_SUCCEEDED)
        return err_fail(err, -EINVAL, "version %" PRIu32 " of '%s' has no manifest: it is %s",
                        info->version, info->name, version_status_name(info->status));
    object_ref_key('m', &info->manifest, key);
    int r = store_get_all(c->store, key, &b);
    if (r == -EFBIG)
        return err_fail(err, -EBADMSG, "the manifest %s is damaged: it is longer than any", key);
    if (r < 0)
        return err_fail(err, r, "cannot read the manifest %s of version %" PRIu32 " of '%s': %s",
                        key, info->version, info->name, store_error(c->store, r));
    struct digest digest = digest_of(b.data, b.size);
    if (b.size != info->manifest.length || !digest_equal(&digest, &info->manifest.digest))
        return err_fail(err, -EBADMSG,
                        "the manifest %s of version %" PRIu32
                        " of '%s' is damaged: its digest does not match",
                        key, info->version, info->name);
    r = manifest_decode(buf_bytes(&b), &m, err);
    if (r < 0)
        return err_prefix(err, r, "the manifest %s", key);
    if (strcmp(m.name, info->name) != 0 || m.version != info->version)
        return err_fail(err, -EPROTO,
                        "the manifest %s is of version %" PRIu32 " of '%s' and should be of '%s'",
                        key, m.version, m.name, info->name);
    *ret = m;
    memset(&m, 0, sizeof m);
    return 0;
}
