/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What collection rounds without end may remove: read once per upload, behind its registration and
 * before any manifest (I6), so that no upload names a condemned object (I7). Fails closed (I16).
 */
#include "catalogue/catalogue-internal.h"

/* Ranges of all unfinished rounds together; a record of 1 MiB holds some 24,000. */
#define CONDEMNED_MAX 200000u

int range_compare(const void *a, const void *b)
{
    const struct condemned_range *x = a, *y = b;

    if (x->letter != y->letter)
        return x->letter < y->letter ? -1 : 1;
    int order = memcmp(&x->session, &y->session, sizeof x->session);
    if (order != 0)
        return order;
    return x->first < y->first ? -1 : x->first > y->first ? 1 : 0;
}

bool range_parse(const char *text, struct condemned_range *ret)
{
    struct condemned_range range = {.letter = text[0]};
    char hex[33] = "", first[12] = "", last[12] = "";
    int end = 0;

    if (sscanf(text, "%*1[pxm]/%32[0-9a-f]/%10[0-9]-%10[0-9]%n", hex, first, last, &end) != 3 ||
        text[end] != '\0')
        return false;
    if (strlen(hex) != 32 || session_id_from_hex(&range.session, hex) < 0 ||
        !key_parse_seq(first, 0, &range.first) || !key_parse_seq(last, 0, &range.last) ||
        range.first > range.last)
        return false;
    *ret = range;
    return true;
}

static int read_condemned(struct upload *u, uint64_t round, struct err *err)
{
    AUTO(json_decref) json_t *body = NULL;
    char key[CATALOGUE_KEY_MAX];
    size_t i;
    json_t *text;

    key_round(key, round, 'c');
    int r = read_record(u->c, key, RECORD_CONDEMNED, &body, err);
    if (r < 0)
        return err_fail(err, r, "the record %s was listed and is gone", key);
    struct record_fields f = {.body = body, .key = key, .err = err};
    if (record_number(&f, "round", KEY_REVERSE) != round)
        record_bad_field(&f, "round", "is not that of its key");
    const json_t *objects = record_member(&f, "objects", JSON_ARRAY);
    json_array_foreach(objects, i, text)
    {
        struct condemned_range range;
        const char *value = json_string_value(text);
        if (!value || !range_parse(value, &range)) {
            record_bad_field(&f, "objects", "holds something that is no range of objects");
            return f.error;
        }
        if (u->condemned.count >= CONDEMNED_MAX)
            return err_fail(err, -EFBIG, "collection rounds without end name too many objects");
        if (vec_push(&u->condemned, range) < 0)
            return err_fail(err, -ENOMEM, "out of memory");
    }
    return f.error;
}

/* The rounds that a listing shows, newest first, down to the first that has ended: older ones have
 * too (I11). */
struct rounds {
    uint64_t round;
    bool condemned, ended;
    VEC(uint64_t) open;
    int error;
};

static void close_round(struct rounds *s)
{
    if (s->round && s->condemned && !s->ended)
        s->error = vec_push(&s->open, s->round);
}

static int take_round(void *ctx, const struct store_entry *entry)
{
    struct rounds *s = ctx;
    uint64_t round;
    char leaf;

    if (!key_parse_round(entry->key, &round, &leaf))
        return 0;
    if (round != s->round) {
        close_round(s);
        if (s->error || s->ended)
            return 1;
        s->round = round;
        s->condemned = false;
    }
    if (leaf == 'c')
        s->condemned = true;
    if (leaf == 'e')
        s->ended = true;
    return 0;
}

int upload_load_condemned(struct upload *u, struct err *err)
{
    struct rounds s = {0};

    int r = store_list(u->c->store, KEY_ROUNDS, NULL, take_round, &s, NULL);
    if (r == 0)
        close_round(&s);
    if (r < 0)
        (void)err_fail(err, r, "cannot list the collection rounds in the store %s: %s",
                       u->c->store->location, store_error(u->c->store, r));
    else if (s.error < 0)
        r = err_fail(err, s.error, "out of memory");
    else
        r = 0;
    for (size_t i = 0; r == 0 && i < s.open.count; i++)
        r = read_condemned(u, s.open.at[i], err);
    vec_release(&s.open);
    if (r == 0 && u->condemned.count)
        qsort(u->condemned.at, u->condemned.count, sizeof *u->condemned.at, range_compare);
    return r;
}

bool upload_may_reuse(const struct upload *u, const struct object_ref *pack)
{
    struct condemned_range wanted = {'p', pack->session, pack->seq, pack->seq};
    size_t low = 0, high = u->condemned.count;

    /* the last range that begins at or before the pack */
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (range_compare(&u->condemned.at[middle], &wanted) <= 0)
            low = middle + 1;
        else
            high = middle;
    }
    /* ranges of several rounds may overlap: look at all of this session */
    for (size_t i = low; i > 0; i--) {
        const struct condemned_range *range = &u->condemned.at[i - 1];
        if (range->letter != 'p' ||
            memcmp(&range->session, &pack->session, sizeof pack->session) != 0)
            break;
        if (pack->seq <= range->last)
            return false;
    }
    return true;
}
