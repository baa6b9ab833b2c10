/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The half of a collection round that removes: the sweep list, which is the condemned one without
 * what is named by now (I9), and its removal until a listing shows none of it (I11).
 */
#include "catalogue/catalogue-internal.h"

#include <inttypes.h>

/* Listings of what was removed, until none of it is left. */
#define SWEEP_TRIES 4

/* The list of a condemned or sweep record, ascending. */
static int read_list(struct collection *g, char leaf, enum record_type type)
{
    AUTO(json_decref) json_t *body = NULL;
    const json_t *text;
    size_t i;

    int r = round_read(g, leaf, type, &body);
    if (r < 0)
        return r;
    struct record_fields f = {.body = body, .key = record_type_name(type), .err = g->err};
    const json_t *objects = record_member(&f, "objects", JSON_ARRAY);
    g->list.count = 0;
    json_array_foreach(objects, i, text)
    {
        struct condemned_range range;
        const char *value = json_string_value(text);
        if (!value || !range_parse(value, &range)) {
            record_bad_field(&f, "objects", "holds something that is no range of objects");
            return f.error;
        }
        if (vec_push(&g->list, range) < 0)
            return err_fail(g->err, -ENOMEM, "out of memory");
    }
    if (g->list.count)
        qsort(g->list.at, g->list.count, sizeof *g->list.at, range_compare);
    return f.error;
}

static int append_range(struct collection *g, json_t *list, const struct condemned_range *range,
                        uint32_t first, uint32_t last)
{
    char hex[33], text[64];

    session_id_to_hex(&range->session, hex);
    (void)snprintf(text, sizeof text, "%c/%s/%" PRIu32 "-%" PRIu32, range->letter, hex, first,
                   last); /* fits */
    if (json_array_append_new(list, json_string(text)) < 0)
        return err_fail(g->err, -ENOMEM, "out of memory");
    return 0;
}

/* The last of the list that begins at or before an object, if it covers it. */
static const struct condemned_range *range_of(const struct condemned_range *ranges, size_t count,
                                              const struct survey_object *o)
{
    struct condemned_range wanted = {o->letter, o->session, o->seq, o->seq};
    size_t low = 0, high = count;

    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (range_compare(&ranges[middle], &wanted) <= 0)
            low = middle + 1;
        else
            high = middle;
    }
    const struct condemned_range *range = low ? &ranges[low - 1] : NULL;
    if (range && range->letter == o->letter && o->seq <= range->last &&
        memcmp(&range->session, &o->session, sizeof o->session) == 0)
        return range;
    return NULL;
}

/* What of one condemned range is not named now. */
static int sweep_range(struct collection *g, const struct condemned_range *range, json_t *list)
{
    const struct survey *s = &g->survey;
    uint64_t from = range->first;

    for (size_t i = survey_find(s, range->letter, &range->session, range->first);
         i < s->named.count; i++) {
        const struct survey_object *o = &s->named.at[i];
        if (o->letter != range->letter || o->seq > range->last ||
            memcmp(&o->session, &range->session, sizeof o->session) != 0)
            break;
        if (o->seq > from) {
            int r = append_range(g, list, range, (uint32_t)from, o->seq - 1);
            if (r < 0)
                return r;
        }
        from = (uint64_t)o->seq + 1;
    }
    return from > range->last ? 0 : append_range(g, list, range, (uint32_t)from, range->last);
}

int round_write_sweep(struct collection *g)
{
    AUTO(json_decref) json_t *list = json_array();

    int r = survey_again(&g->survey, g->err);
    if (r == 0)
        r = read_list(g, 'c', RECORD_CONDEMNED);
    for (size_t i = 0; r == 0 && i < g->list.count; i++)
        r = list ? sweep_range(g, &g->list.at[i], list)
                 : err_fail(g->err, -ENOMEM, "out of memory");
    if (r == 0)
        r = round_write(g, 'w', RECORD_SWEEP, json_pack("{s:O}", "objects", list));
    g->round.swept = r == 0;
    return r;
}

/* A sweep list that names what a version names is not to be believed, whoever wrote it. */
static int check_sweep(struct collection *g)
{
    for (size_t i = 0; i < g->survey.named.count; i++) {
        const struct survey_object *o = &g->survey.named.at[i];
        if (range_of(g->list.at, g->list.count, o))
            return err_fail(g->err, -EPROTO,
                            "collection round %" PRIu64
                            " would remove an object that an available version names: nothing is "
                            "collected",
                            g->round.number);
    }
    return 0;
}

struct doomed {
    struct collection *g;
    const struct condemned_range *ranges; /* of one letter and session */
    size_t count;
    VEC(struct survey_object) found;
};

static int take_doomed(void *ctx, const struct store_entry *entry)
{
    struct doomed *d = ctx;
    struct survey_object o = {.size = entry->size_bytes};

    if (!key_parse_object(entry->key, &o.letter, &o.session, &o.seq))
        return -EPROTO;
    return range_of(d->ranges, d->count, &o) ? vec_push(&d->found, o) : 0;
}

/* Remove what is there of the ranges of one session; *ret_left: so many were there. */
static int sweep_session(struct collection *g, const struct condemned_range *ranges, size_t count,
                         size_t *ret_left)
{
    struct doomed d = {.g = g, .ranges = ranges, .count = count};
    struct store *store = g->c->store;
    char key[CATALOGUE_KEY_MAX];

    key_objects(key, ranges[0].letter, &ranges[0].session);
    int r = store_list(store, key, NULL, take_doomed, &d, NULL);
    if (r < 0)
        (void)err_fail(g->err, r, "cannot list %s in the store %s: %s", key, store->location,
                       store_error(store, r));
    for (size_t i = 0; r == 0 && i < d.found.count; i++) {
        const struct survey_object *o = &d.found.at[i];
        object_ref_key(o->letter, &(struct object_ref){.session = o->session, .seq = o->seq}, key);
        r = store_remove(store, key);
        if (r < 0) {
            (void)err_fail(g->err, r, "cannot remove %s from the store %s: %s", key,
                           store->location, store_error(store, r));
            break;
        }
        g->report.objects++;
        g->report.bytes += o->size;
    }
    *ret_left += d.found.count;
    vec_release(&d.found);
    return r;
}

/* Remove what the sweep list names, until a listing shows none of it. */
int round_sweep(struct collection *g)
{
    int r = read_list(g, 'w', RECORD_SWEEP);

    if (r == 0)
        r = check_sweep(g);
    for (int i = 0; r == 0 && i < SWEEP_TRIES; i++) {
        size_t left = 0;
        for (size_t first = 0, next; r == 0 && first < g->list.count; first = next) {
            const struct condemned_range *range = &g->list.at[first];
            for (next = first + 1; next < g->list.count; next++) {
                if (g->list.at[next].letter != range->letter ||
                    memcmp(&g->list.at[next].session, &range->session, sizeof range->session) != 0)
                    break;
            }
            r = sweep_session(g, range, next - first, &left);
        }
        if (r < 0 || left == 0)
            return r;
    }
    return r < 0 ? r
                 : err_fail(g->err, -EIO,
                            "objects that were removed are still listed in the store %s: the next "
                            "collection goes on",
                            g->c->store->location);
}
