/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a collector sees: the objects in the store, the versions, and what the available ones name.
 *
 * The order of reading is objects, then versions: an object whose upload was registered later is
 * not seen at all, one whose upload is decided is seen as such. Everything odd ends the survey: an
 * unknown key, a hole in the numbers, an object of no upload, a version whose object is missing
 * (I16). What is missing because somebody deleted and collected meanwhile is looked at once more.
 */
#include "catalogue/catalogue-internal.h"

#include <inttypes.h>

#define READERS_MAX 16u
/* Surveys tried while others change what is being surveyed. */
#define SURVEY_TRIES 3
/* Names are made unique when so many new ones have come. */
#define NAMES_STEP (1u << 20)

static int compare_objects(const void *a, const void *b)
{
    const struct survey_object *x = a, *y = b;

    if (x->letter != y->letter)
        return x->letter < y->letter ? -1 : 1;
    int order = memcmp(&x->session, &y->session, sizeof x->session);
    if (order != 0)
        return order;
    return x->seq < y->seq ? -1 : x->seq > y->seq ? 1 : 0;
}

static int compare_versions(const void *a, const void *b)
{
    const struct survey_version *x = a, *y = b;
    int order = strcmp(x->name, y->name);

    if (order != 0)
        return order;
    return x->version > y->version ? -1 : x->version < y->version ? 1 : 0;
}

static int compare_sessions(const void *a, const void *b)
{
    const struct survey_version *x = *(const struct survey_version *const *)a;
    const struct survey_version *y = *(const struct survey_version *const *)b;

    return memcmp(&x->session, &y->session, sizeof x->session);
}

void survey_release(struct survey *s)
{
    vec_release(&s->objects);
    vec_release(&s->named);
    vec_release(&s->versions);
    vec_release(&s->by_session);
}

size_t survey_find(const struct survey *s, char letter, const struct session_id *session,
                   uint32_t seq)
{
    struct survey_object wanted = {.letter = letter, .session = *session, .seq = seq};
    size_t low = 0, high = s->named.count;

    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (compare_objects(&s->named.at[middle], &wanted) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

bool survey_names(const struct survey *s, char letter, const struct session_id *session,
                  uint32_t seq)
{
    size_t i = survey_find(s, letter, session, seq);
    if (i == s->named.count)
        return false;
    const struct survey_object *o = &s->named.at[i];
    return o->letter == letter && o->seq == seq &&
           memcmp(&o->session, session, sizeof *session) == 0;
}

const struct survey_version *survey_session(const struct survey *s, const struct session_id *id)
{
    struct survey_version wanted = {.session = *id};
    struct survey_version *key = &wanted;

    if (!s->by_session.count)
        return NULL;
    struct survey_version **found =
        bsearch(&key, s->by_session.at, s->by_session.count, sizeof key, compare_sessions);
    return found ? *found : NULL;
}

/* ---- listings ---- */

struct lister {
    struct survey *s;
    struct version_rows *rows;
    struct err *err;
    int error;
};

static int list_strictly(struct lister *l, const char *prefix,
                         const struct store_list_options *options, store_list_fn *fn)
{
    struct store *store = l->s->c->store;

    int r = store_list(store, prefix, options, fn, l, NULL);
    if (l->error)
        return l->error;
    if (r != 0)
        return err_fail(l->err, r < 0 ? r : -EIO, "cannot list '%s' in the store %s: %s", prefix,
                        store->location, store_error(store, r < 0 ? r : -EIO));
    return 0;
}

static int unknown_key(struct lister *l, const char *key)
{
    l->error = err_fail(l->err, -EPROTO,
                        "%s in the store %s is nothing that this program knows: nothing is "
                        "collected there",
                        key, l->s->c->store->location);
    return 1;
}

static int check_root(void *ctx, const struct store_entry *entry)
{
    static const char *const known[] = {"fmt", "g/", "l/", "m/", "n/", "p/", "s/", "x/"};

    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        if (strcmp(entry->key, known[i]) == 0)
            return 0;
    }
    return unknown_key(ctx, entry->key);
}

static int take_object(void *ctx, const struct store_entry *entry)
{
    struct lister *l = ctx;
    struct survey_object o = {.size = entry->size_bytes};

    if (!key_parse_object(entry->key, &o.letter, &o.session, &o.seq))
        return unknown_key(l, entry->key);
    if (vec_push(&l->s->objects, o) < 0) {
        l->error = err_fail(l->err, -ENOMEM, "out of memory");
        return 1;
    }
    return 0;
}

static int take_row(void *ctx, const struct store_entry *entry)
{
    struct lister *l = ctx;
    struct key_parts parts;

    if (!key_parse_version(entry->key, &parts) || parts.leaf == KEY_LEAF_NONE)
        return unknown_key(l, entry->key);
    l->error = version_rows_add(l->rows, entry, &parts);
    if (l->error)
        (void)err_fail(l->err, l->error, "out of memory");
    return l->error ? 1 : 0;
}

static int list_objects(struct survey *s, struct err *err)
{
    static const char *const prefixes[] = {"m/", "p/", "x/"};
    struct lister l = {.s = s, .err = err};
    int r = list_strictly(&l, "", &(struct store_list_options){.by_component = true}, check_root);

    for (size_t i = 0; r == 0 && i < sizeof prefixes / sizeof *prefixes; i++)
        r = list_strictly(&l, prefixes[i], NULL, take_object);
    if (r == 0 && s->objects.count)
        qsort(s->objects.at, s->objects.count, sizeof *s->objects.at, compare_objects);
    return r;
}

/* Every number from the highest down to 1, each with its allocation (I1): else the listing, or the
 * store, is not whole. */
static int check_dense(const struct version_rows *v, struct err *err)
{
    for (size_t i = 0; i < v->rows.count; i++) {
        const struct version_row *row = &v->rows.at[i];
        bool last = i + 1 == v->rows.count || strcmp(row->name, v->rows.at[i + 1].name) != 0;
        uint32_t below = last ? 0 : v->rows.at[i + 1].version;
        if (!row->allocated || row->version != below + 1)
            return err_fail(err, -EPROTO,
                            "the records of version %" PRIu32
                            " of '%s' are not all there: nothing is collected from such a store",
                            row->allocated ? row->version - 1 : row->version, row->name);
    }
    return 0;
}

static int list_versions(struct survey *s, struct version_rows *ret, struct err *err)
{
    struct lister l = {.s = s, .rows = ret, .err = err};

    int r = list_strictly(&l, KEY_VERSIONS, NULL, take_row);
    return r < 0 ? r : check_dense(ret, err);
}

/* ---- versions ---- */

struct version_taker {
    struct survey *s;
    struct err *err;
};

static int take_version(void *ctx, const struct version_info *info)
{
    struct version_taker *t = ctx;
    struct survey_version v = {
        .version = info->version,
        .session = info->session,
        .decided = info->status != VERSION_PROCESSING && info->status != VERSION_OPTIMIZING,
        .available = info->status == VERSION_SUCCEEDED,
        .manifest = info->manifest,
        .index = info->index,
    };

    memcpy(v.name, info->name, sizeof v.name);
    t->s->available += v.available;
    t->s->committed += v.available || info->status == VERSION_DELETED;
    if (vec_push(&t->s->versions, v) < 0)
        return err_fail(t->err, -ENOMEM, "out of memory");
    return 0;
}

/* ---- what they name ---- */

static void make_unique(struct survey *s)
{
    size_t kept = 0;

    if (s->named.count)
        qsort(s->named.at, s->named.count, sizeof *s->named.at, compare_objects);
    for (size_t i = 0; i < s->named.count; i++) {
        if (kept == 0 || compare_objects(&s->named.at[kept - 1], &s->named.at[i]) != 0)
            s->named.at[kept++] = s->named.at[i];
    }
    s->named.count = kept;
}

static int add_name(struct survey *s, char letter, const struct object_ref *ref)
{
    struct survey_object o = {.letter = letter, .session = ref->session, .seq = ref->seq};

    return vec_push(&s->named, o);
}

struct naming {
    struct survey *s;
    size_t first;         /* versions from here on */
    pthread_mutex_t lock; /* guards all below, and s->named */
    size_t next, unique;
    struct err err;
    int error;
};

static bool next_version(struct naming *g, const struct survey_version **ret)
{
    WITH_LOCK(&g->lock);
    while (g->error == 0 && g->next < g->s->versions.count) {
        const struct survey_version *v = &g->s->versions.at[g->next++];
        if (v->available) {
            *ret = v;
            return true;
        }
    }
    return false;
}

static int add_manifest(struct naming *g, const struct survey_version *v, const struct manifest *m)
{
    WITH_LOCK(&g->lock);
    int r = add_name(g->s, 'm', &v->manifest);

    if (r == 0)
        r = add_name(g->s, 'x', &v->index);
    if (r == 0)
        r = add_name(g->s, 'x', &m->index);
    for (uint32_t i = 0; r == 0 && i < m->pack_count; i++)
        r = add_name(g->s, 'p', &m->packs[i]);
    if (g->s->named.count > g->unique + NAMES_STEP) {
        make_unique(g->s);
        g->unique = g->s->named.count;
    }
    return r;
}

static void *namer_main(void *ctx)
{
    struct naming *g = ctx;
    const struct survey_version *v;

    while (next_version(g, &v)) {
        AUTO(manifest_release) struct manifest m = {0};
        AUTO(free_ptr) struct version_info *info = calloc(1, sizeof *info);
        struct err err = ERR_INIT;
        int r = info ? 0 : -ENOMEM;
        if (r == 0) {
            memcpy(info->name, v->name, sizeof info->name);
            info->version = v->version;
            info->status = VERSION_SUCCEEDED;
            info->manifest = v->manifest;
            r = catalogue_manifest(g->s->c, info, &m, &err);
        }
        if (r == 0)
            r = add_manifest(g, v, &m);
        if (r < 0) {
            WITH_LOCK(&g->lock);
            if (g->error == 0) {
                g->error = r;
                g->err = err;
            }
        }
    }
    return NULL;
}

/* Read the manifests of the versions from `first` on, a few at a time. */
static int read_names(struct survey *s, size_t first, struct err *err)
{
    struct naming g = {.s = s, .first = first, .next = first, .unique = s->named.count};
    pthread_t threads[READERS_MAX];
    unsigned started = 0;

    pthread_mutex_init(&g.lock, NULL);
    while (started + 1 < s->c->readers && started < READERS_MAX &&
           started + 1 < s->versions.count - first &&
           pthread_create(&threads[started], NULL, namer_main, &g) == 0)
        started++;
    (void)namer_main(&g); /* NULL */
    while (started > 0)
        (void)pthread_join(threads[--started], NULL); /* ours, joinable: cannot fail */
    pthread_mutex_destroy(&g.lock);
    make_unique(s);
    return g.error ? err_fail(err, g.error, "%s", err_text(&g.err, g.error)) : 0;
}

static int index_sessions(struct survey *s, struct err *err)
{
    s->by_session.count = 0;
    if (s->versions.count)
        qsort(s->versions.at, s->versions.count, sizeof *s->versions.at, compare_versions);
    for (size_t i = 0; i < s->versions.count; i++) {
        if (vec_push(&s->by_session, &s->versions.at[i]) < 0)
            return err_fail(err, -ENOMEM, "out of memory");
    }
    if (s->by_session.count)
        qsort(s->by_session.at, s->by_session.count, sizeof *s->by_session.at, compare_sessions);
    return 0;
}

/* ---- the whole ---- */

/* Objects belong to uploads (I6), and what a version names is there (I5). *ret_missing is the
 * first that is not. */
static int cross_check(const struct survey *s, const struct survey_object **ret_missing,
                       struct err *err)
{
    for (size_t i = 0; i < s->objects.count; i++) {
        const struct survey_object *o = &s->objects.at[i];
        char key[OBJECT_KEY_MAX];
        if (survey_session(s, &o->session))
            continue;
        object_ref_key(o->letter, &(struct object_ref){.session = o->session, .seq = o->seq}, key);
        return err_fail(err, -EPROTO,
                        "%s in the store %s is of no upload that the store knows: nothing is "
                        "collected there",
                        key, s->c->store->location);
    }
    *ret_missing = NULL;
    for (size_t i = 0; i < s->named.count && !*ret_missing; i++) {
        if (!s->objects.count || !bsearch(&s->named.at[i], s->objects.at, s->objects.count,
                                          sizeof *s->objects.at, compare_objects))
            *ret_missing = &s->named.at[i];
    }
    return 0;
}

static int take_once(struct survey *s, const struct survey_object **ret_missing, struct err *err)
{
    AUTO(version_rows_release) struct version_rows v = {0};
    struct version_taker t = {s, err};

    int r = list_objects(s, err);
    if (r == 0)
        r = list_versions(s, &v, err);
    if (r == 0 && v.rows.count)
        r = versions_each(s->c, v.rows.at, v.rows.count, take_version, &t, err);
    if (r == 0)
        r = read_names(s, 0, err);
    if (r == 0)
        r = index_sessions(s, err);
    return r < 0 ? r : cross_check(s, ret_missing, err);
}

int survey_take(struct survey *s, struct catalogue *c, struct err *err)
{
    const struct survey_object *missing = NULL;
    char key[OBJECT_KEY_MAX];

    for (int i = 0; i < SURVEY_TRIES; i++) {
        struct err why = ERR_INIT;
        survey_release(s);
        *s = (struct survey){.c = c};
        int r = take_once(s, &missing, &why);
        if (r == 0 && !missing)
            return 0;
        if (r < 0 && (r != -ENOENT || i + 1 == SURVEY_TRIES)) /* a manifest may just have gone */
            return err_fail(err, r == -ENOENT ? -EPROTO : r, "%s", err_text(&why, r));
    }
    object_ref_key(missing->letter,
                   &(struct object_ref){.session = missing->session, .seq = missing->seq}, key);
    return err_fail(err, -EPROTO,
                    "an available version names %s, which is missing in the store %s: nothing is "
                    "collected from a damaged store",
                    key, c->store->location);
}

int survey_again(struct survey *s, struct err *err)
{
    AUTO(version_rows_release) struct version_rows v = {0};
    struct survey fresh = {.c = s->c};
    struct version_taker t = {&fresh, err};
    size_t kept = 0;

    int r = list_versions(s, &v, err);
    if (r < 0)
        return r;
    /* What was decided stays so, and what it named may stay named: only the others are read. */
    for (size_t i = 0; i < v.rows.count; i++) {
        struct survey_version key = {.version = v.rows.at[i].version};
        memcpy(key.name, v.rows.at[i].name, sizeof key.name);
        const struct survey_version *old =
            s->versions.count
                ? bsearch(&key, s->versions.at, s->versions.count, sizeof key, compare_versions)
                : NULL;
        if (!old || !old->decided)
            v.rows.at[kept++] = v.rows.at[i];
    }
    if (kept)
        r = versions_each(s->c, v.rows.at, kept, take_version, &t, err);
    size_t first = s->versions.count;
    for (size_t i = 0; r == 0 && i < fresh.versions.count; i++)
        r = vec_push(&s->versions, fresh.versions.at[i]);
    s->available += fresh.available;
    s->committed += fresh.committed;
    survey_release(&fresh);
    if (r == -ENOMEM)
        return err_fail(err, r, "out of memory");
    if (r == 0)
        r = read_names(s, first, err);
    if (r < 0)
        return r;
    kept = 0; /* those that were undecided have been read anew */
    for (size_t i = 0; i < s->versions.count; i++) {
        if (i >= first || s->versions.at[i].decided)
            s->versions.at[kept++] = s->versions.at[i];
    }
    s->versions.count = kept;
    return index_sessions(s, err);
}

/* ---- candidates ---- */

struct ranges {
    json_t *list; /* borrowed */
    struct survey_object first;
    uint32_t last;
    bool open;
};

static int finish_range(struct ranges *g)
{
    char hex[33], text[64];

    if (!g->open)
        return 0;
    g->open = false;
    session_id_to_hex(&g->first.session, hex);
    (void)snprintf(text, sizeof text, "%c/%s/%" PRIu32 "-%" PRIu32, g->first.letter, hex, /* fits */
                   g->first.seq, g->last);
    return json_array_append_new(g->list, json_string(text));
}

static bool continues(const struct ranges *g, const struct survey_object *o)
{
    return g->open && g->first.letter == o->letter && o->seq == g->last + 1 &&
           memcmp(&g->first.session, &o->session, sizeof o->session) == 0;
}

int survey_candidates(const struct survey *s, size_t max_ranges, json_t *ret_ranges,
                      uint64_t *ret_objects, uint64_t *ret_bytes, struct err *err)
{
    struct ranges g = {.list = ret_ranges};
    uint64_t objects = 0, bytes = 0;

    for (size_t i = 0; i < s->objects.count; i++) {
        const struct survey_object *o = &s->objects.at[i];
        const struct survey_version *v = survey_session(s, &o->session);
        if (!v || !v->decided || survey_names(s, o->letter, &o->session, o->seq))
            continue;
        if (!continues(&g, o)) {
            if (finish_range(&g) < 0)
                return err_fail(err, -ENOMEM, "out of memory");
            if (json_array_size(ret_ranges) >= max_ranges)
                break; /* the next round takes the rest */
            g = (struct ranges){.list = ret_ranges, .first = *o, .open = true};
        }
        g.last = o->seq;
        objects++;
        bytes += o->size;
    }
    if (finish_range(&g) < 0)
        return err_fail(err, -ENOMEM, "out of memory");
    *ret_objects = objects;
    *ret_bytes = bytes;
    return 0;
}
