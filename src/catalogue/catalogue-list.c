/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Many versions: the listing, and finding the one that is meant.
 *
 * One listing of keys says what there is, and its rows go to the readers while it goes on.
 */
#include "catalogue/catalogue-internal.h"

#include "base/name.h"

#include <inttypes.h>

/* ---- the listing ---- */

struct filter {
    catalogue_version_fn *fn;
    void *ctx;
};

static int leave_out_deleted(void *ctx, const struct version_info *info)
{
    struct filter *f = ctx;

    return info->status == VERSION_DELETED ? 0 : f->fn(f->ctx, info);
}

static int check_name(const char *name, struct err *err)
{
    if (name_is_valid(name))
        return 0;
    return err_fail(err, -EINVAL, "'%s' is no name of a datastore", name);
}

/* Key order is nearly name order, but "a-b/" and "a.b/" stand before "a/". So the rows of all names
 * that agree up to their first '-' or '.' are put in order together; they stand together in a
 * listing, for '-', '.' and '/' are neighbours. */
struct listing {
    struct version_reading *reading;
    struct version_rows v; /* of one stem */
    int result;
};

static bool same_stem(const char *a, const char *b)
{
    size_t n = strcspn(a, "-.");

    return strcspn(b, "-.") == n && memcmp(a, b, n) == 0;
}

static int compare_rows(const void *a, const void *b)
{
    const struct version_row *x = a, *y = b;
    int order = strcmp(x->name, y->name);

    if (order != 0)
        return order;
    return x->version < y->version ? 1 : x->version > y->version ? -1 : 0;
}

static int pass_rows(struct listing *l)
{
    size_t count = l->v.rows.count;
    int r = 0;

    if (count > 1)
        qsort(l->v.rows.at, count, sizeof *l->v.rows.at, compare_rows);
    for (size_t i = 0; r == 0 && i < count; i++)
        r = version_reading_add(l->reading, &l->v.rows.at[i]);
    l->v.rows.count = 0;
    return r;
}

static int list_row(void *ctx, const struct store_entry *entry)
{
    struct listing *l = ctx;
    struct key_parts parts;

    if (entry->is_prefix || !key_parse_version(entry->key, &parts))
        return 0;
    const struct version_row *last = l->v.rows.count ? &l->v.rows.at[l->v.rows.count - 1] : NULL;
    if (last && !same_stem(last->name, parts.name))
        l->result = pass_rows(l);
    if (l->result == 0)
        l->result = version_rows_add(&l->v, entry, &parts);
    return l->result ? 1 : 0;
}

static int take_row(void *ctx, const struct version_row *row)
{
    struct listing *l = ctx;
    const struct version_row *last = l->v.rows.count ? &l->v.rows.at[l->v.rows.count - 1] : NULL;
    int r = last && !same_stem(last->name, row->name) ? pass_rows(l) : 0;

    return r != 0 ? r : vec_push(&l->v.rows, *row);
}

static int list_all_rows(struct catalogue *c, struct listing *l, struct err *err)
{
    int r = version_rows_each(c, take_row, l, err);

    if (r == 0)
        r = pass_rows(l);
    return r ? r : version_reading_finish(l->reading);
}

static int list_rows(struct catalogue *c, const char *prefix, struct listing *l, struct err *err)
{
    int r = store_list(c->store, prefix, &(struct store_list_options){.keys_only = true}, list_row,
                       l, NULL);

    if (l->result)
        return l->result;
    if (r < 0)
        return err_fail(err, r, "cannot list %s in the store %s: %s", prefix, c->store->location,
                        store_error(c->store, r));
    r = pass_rows(l);
    return r ? r : version_reading_finish(l->reading);
}

int catalogue_list(struct catalogue *c, const char *name, catalogue_version_fn *fn, void *ctx,
                   struct err *err)
{
    char prefix[CATALOGUE_KEY_MAX] = KEY_VERSIONS;
    struct filter filter = {fn, ctx};
    struct listing l = {0};
    int r = 0;

    if (name) {
        r = check_name(name, err);
        if (r == 0)
            key_versions(prefix, name);
    }
    if (r == 0)
        r = version_reading_new(c, leave_out_deleted, &filter, true, err, &l.reading);
    if (r == 0)
        r = !name && c->readers > CATALOGUE_READERS ? list_all_rows(c, &l, err)
                                                    : list_rows(c, prefix, &l, err);
    version_reading_free(l.reading);
    vec_release(&l.v.rows);
    return r;
}

/* ---- resolving ---- */

/* Read at once: usually the newest has succeeded. */
#define NEWEST 3u

struct newest {
    struct version_info found; /* version 0: none yet */
    struct version_info first; /* the newest of all, for the sentence */
};

static int look_for_succeeded(void *ctx, const struct version_info *info)
{
    struct newest *n = ctx;

    if (n->first.version == 0)
        n->first = *info;
    if (info->status != VERSION_SUCCEEDED)
        return 0;
    n->found = *info;
    return 1;
}

static int no_such_datastore(struct catalogue *c, const char *name, struct err *err)
{
    return err_fail(err, -ENOENT, "no datastore is named '%s' in %s", name, c->store->location);
}

static int unusable(const struct version_info *v, struct err *err)
{
    switch (v->status) {
    case VERSION_FAILED:
        return err_fail(err, -ENOENT, "version %" PRIu32 " of '%s' failed: %s", v->version, v->name,
                        v->reason);
    case VERSION_DELETED:
        return err_fail(err, -ENOENT, "version %" PRIu32 " of '%s' was deleted", v->version,
                        v->name);
    default:
        return err_fail(err, -ENOENT, "version %" PRIu32 " of '%s' is still being made (%s)",
                        v->version, v->name, version_status_name(v->status));
    }
}

/* The rows of the newest few versions behind `start_after`. */
struct newest_rows {
    struct version_rows v;
    char last[CATALOGUE_KEY_MAX]; /* the last key of those versions */
    int error;
};

static int fill_newest(void *ctx, const struct store_entry *entry)
{
    struct newest_rows *n = ctx;
    struct key_parts parts;

    if (strlen(entry->key) >= sizeof n->last || !key_parse_version(entry->key, &parts))
        return 0;
    bool same = n->v.rows.count && n->v.rows.at[n->v.rows.count - 1].version == parts.version;
    if (!same && n->v.rows.count == NEWEST)
        return 1;
    n->error = version_rows_add(&n->v, entry, &parts);
    if (n->error)
        return 1;
    memcpy(n->last, entry->key, strlen(entry->key) + 1);
    return 0;
}

static int resolve_newest(struct catalogue *c, const char *name, struct version_info *ret,
                          struct err *err)
{
    struct newest newest = {0};
    char prefix[CATALOGUE_KEY_MAX], after[CATALOGUE_KEY_MAX] = "";

    key_versions(prefix, name);
    for (;;) {
        struct newest_rows rows = {0};
        AUTO(version_rows_release) struct version_rows v = {0};
        int r = store_list(c->store, prefix,
                           &(struct store_list_options){.start_after = after[0] ? after : NULL},
                           fill_newest, &rows, NULL);
        v = rows.v;
        int settled = catalogue_settle(c, err);
        if (settled < 0)
            return settled;
        if (r < 0 || rows.error < 0)
            return err_fail(err, r < 0 ? r : rows.error,
                            "cannot list the versions of '%s' in the store %s: %s", name,
                            c->store->location, store_error(c->store, r < 0 ? r : rows.error));
        if (v.rows.count == 0)
            break;
        r = versions_each(c, v.rows.at, v.rows.count, look_for_succeeded, &newest, err);
        if (r < 0)
            return r;
        if (newest.found.version) {
            *ret = newest.found;
            return 0;
        }
        memcpy(after, rows.last, sizeof after);
    }
    if (newest.first.version == 0)
        return no_such_datastore(c, name, err);
    (void)unusable(&newest.first, err); /* the code is always the same: the sentence is wanted */
    return err_prefix(err, -ENOENT, "'%s' has no succeeded version", name);
}

static int no_such_version(struct catalogue *c, const char *name, uint32_t n, struct err *err)
{
    uint32_t highest;

    int r = version_highest(c, name, &highest, err);
    if (r < 0)
        return r;
    if (highest == 0)
        return no_such_datastore(c, name, err);
    if (highest == 1)
        return err_fail(err, -ENOENT, "'%s' has no version %" PRIu32 "; its only version is 1",
                        name, n);
    return err_fail(err, -ENOENT, "'%s' has no version %" PRIu32 "; its versions are 1 to %" PRIu32,
                    name, n, highest);
}

int catalogue_resolve(struct catalogue *c, const char *name, uint32_t n, struct version_info *ret,
                      struct err *err)
{
    AUTO(version_rows_release) struct version_rows v = {0};
    char prefix[CATALOGUE_KEY_MAX];
    struct version_info info;
    struct err listing = ERR_INIT;

    int r = check_name(name, err);
    if (r < 0)
        return r;
    if (n == 0)
        return resolve_newest(c, name, ret, err);
    if (n > CATALOGUE_VERSION_MAX) {
        r = catalogue_settle(c, err);
        return r < 0 ? r : no_such_version(c, name, n, err);
    }
    key_version(prefix, name, n, "");
    r = version_rows_list(c, prefix, &v, &listing);
    int settled = catalogue_settle(c, err);
    if (settled < 0)
        return settled;
    if (r < 0)
        return err_fail(err, r, "%s", err_text(&listing, r));
    if (v.rows.count == 0)
        return no_such_version(c, name, n, err);
    r = version_read(c, &v.rows.at[0], &info, err);
    if (r < 0)
        return r;
    if (info.status != VERSION_SUCCEEDED)
        return unusable(&info, err);
    *ret = info;
    return 0;
}
