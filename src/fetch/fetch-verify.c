/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a get has brought is verified, and goes to those who wait for it.
 *
 * The table may still be on its way when the data is here: then the get is held, and verified when
 * the table is. What does not match is read once more, past the disk's cache; what does not match
 * then either is damage: an error for who waits for just that, and a line in the log.
 */
#include "fetch/fetch-internal.h"

#include "base/log.h"
#include "cache/cache.h"

#include <inttypes.h>

void verify_damaged(struct fetch_object *o, uint64_t offset, size_t size, const char *what)
{
    log_warning("%s: %s at offset %" PRIu64 ", %zu bytes, does not match its digest", o->key, what,
                offset, size);
    WITH_LOCK(&o->fetch->lock);
    o->fetch->stats.damaged++;
}

/* ---- ends ---- */

/* With the lock: the table has grown, or will not. */
static void look_at_held(struct fetch_object *o)
{
    struct get *g;

    while ((g = o->held)) {
        o->held = g->next;
        get_list_add(&o->fetch->ended, g);
    }
    pool_wake(o->fetch);
}

static void end_with(struct get *g, int code)
{
    struct fetch_object *o = g->object;
    bool is_table = g->what != GET_DATA;
    WITH_LOCK(&o->fetch->lock);

    object_ref(o); /* the get's may be the last one */
    get_end(g, code);
    if (is_table) {
        look_at_held(o);
        ahead_table(o);
    }
    object_unref(o);
}

/* With the lock: hand over `data`, a copy. */
static void fill(struct get *g, struct memory_entry *claim, void *data, size_t size, size_t charge)
{
    struct fetch *f = g->object->fetch;

    memory_fill(&f->memory, claim, data, size, charge);
    g->reserved -= charge;
    ticket_tell(f, claim, 0);
}

/* Is `e` a claim that somebody will end? With the lock. */
static bool on_its_way(struct fetch_object *o, enum memory_kind kind, uint32_t number)
{
    struct memory_key key = fetch_key(o, kind, number);
    const struct memory_entry *e = memory_find(&o->fetch->memory, &key);

    return e && !e->loaded;
}

/* ---- again ---- */

static void disk_forget(struct get *g, const struct get_leaf *l)
{
    if (g->object->disk && g->from_disk)
        cache_forget(g->object->disk, l->start, l->length);
}

/* The same range once more: from the store, if the disk had it wrong; else a second and last time.
 * The claims go along. */
static void read_again(struct get *g, size_t first, size_t count)
{
    struct fetch_object *o = g->object;
    struct get_list gets = {.first = NULL};

    for (size_t i = first; i < first + count; i++)
        disk_forget(g, &g->leaves[i]);
    {
        WITH_LOCK(&o->fetch->lock);
        struct get *n =
            get_new(o, g->what, g->what == GET_TAIL ? g->offset : g->leaves[first].start, g->size);
        for (size_t i = first; n && i < first + count; i++) {
            struct get_leaf *l = &g->leaves[i];
            struct place p = {.start = l->start, .length = l->length, .known = l->known};
            p.digest = l->digest;
            if (!l->claim || get_add(n, l->claim, &p) < 0)
                continue;
            l->claim = NULL;
        }
        if (n) {
            n->past_disk = g->from_disk || g->past_disk;
            n->again = !g->from_disk;
            if (g->from_disk)
                o->fetch->stats.damaged_cache++;
            else
                o->fetch->stats.retries++;
            get_list_add(&gets, n);
        }
    }
    gets_begin(o->fetch, &gets);
}

/* ---- trailer ---- */

/* Keep the pages that came along with the trailer. What does not verify is left out: whoever needs
 * it reads it again, and tells. */
static void keep_pages(struct get *g, const struct pack_trailer *t)
{
    struct fetch_object *o = g->object;
    struct memory *m = &o->fetch->memory;

    for (uint32_t i = 0; i < pack_trailer_page_count(t); i++) {
        struct pack_page_ref ref;
        if (pack_trailer_page(t, i, &ref) < 0 || ref.offset < g->offset ||
            ref.offset - g->offset + PACK_PAGE > g->size ||
            pack_page_verify(t, &ref, g->data + (ref.offset - g->offset)) < 0)
            continue;
        AUTO(free_ptr) uint8_t *copy = malloc(PACK_PAGE);
        if (!copy)
            return;
        memcpy(copy, g->data + (ref.offset - g->offset), PACK_PAGE);
        struct memory_key key = fetch_key(o, MEMORY_PAGE, i);
        WITH_LOCK(&o->fetch->lock);
        struct memory_entry *claim = memory_find(m, &key) ? NULL : memory_claim(m, &key);
        if (claim)
            fill(g, claim, take_ptr(&copy), PACK_PAGE, PACK_PAGE + MEMORY_ENTRY_COST);
    }
}

static void verify_trailer(struct get *g)
{
    struct fetch_object *o = g->object;
    const struct pack_summary *s = &o->summary;
    struct pack_trailer *t = NULL;
    const uint8_t *at = g->data + (s->trailer_offset - g->offset);

    int r = pack_trailer_parse(bytes_of(at, s->trailer_length), o->kind, s, &t, NULL);
    if (r == -EBADMSG && !g->again) {
        read_again(g, 0, 1);
        end_with(g, 0);
        return;
    }
    if (r == -EBADMSG)
        verify_damaged(o, s->trailer_offset, s->trailer_length, "the trailer");
    if (r < 0) {
        end_with(g, r);
        return;
    }
    if (g->size > s->trailer_length)
        keep_pages(g, t);
    disk_keep(g, g->offset, g->offset + g->size);
    {
        WITH_LOCK(&o->fetch->lock);
        struct memory_entry *claim = g->leaves[0].claim;
        g->leaves[0].claim = NULL;
        fill(g, claim, t, s->trailer_length,
             PARSED_FACTOR * (size_t)s->trailer_length + MEMORY_ENTRY_COST);
    }
    end_with(g, 0);
}

/* ---- pages ---- */

enum outcome { DONE, HELD, AGAIN };

/* One page. HELD: what verifies it is on its way, and the get waits for that. */
static enum outcome verify_page(struct get *g, size_t i, int *ret_code)
{
    struct fetch_object *o = g->object;
    struct fetch *f = o->fetch;
    struct get_leaf *l = &g->leaves[i];
    enum memory_kind kind = l->claim->key.kind;
    uint32_t number = (uint32_t)l->claim->key.number;
    const struct pack_trailer *t = NULL;
    struct memory_entry *pinned = NULL;
    struct pack_page_ref ref;
    const uint8_t *page = g->data + (l->start - g->offset);

    {
        WITH_LOCK(&f->lock);
        int r = table_ref(o, kind, number, &t, &pinned, &ref);
        if (r == 0 &&
            (on_its_way(o, MEMORY_TRAILER, 0) ||
             (kind == MEMORY_PAGE && on_its_way(o, MEMORY_GROUP, number / PACK_PAGE_LEAVES)))) {
            g->next = o->held;
            o->held = g;
            return HELD;
        }
        if (r <= 0) {
            *ret_code = r; /* 0: whoever wants it begins with what is above */
            return DONE;
        }
        pinned->pins++;
    }
    AUTO(free_ptr) uint8_t *copy = malloc(PACK_PAGE);
    int r = copy ? pack_page_verify(t, &ref, page) : -ENOMEM;
    if (r == -EBADMSG && g->again)
        verify_damaged(o, ref.offset, PACK_PAGE, "a page of the leaf table");
    {
        WITH_LOCK(&f->lock);
        pinned->pins--;
        if (r == 0) {
            memcpy(copy, page, PACK_PAGE);
            struct memory_entry *claim = l->claim;
            l->claim = NULL;
            fill(g, claim, take_ptr(&copy), PACK_PAGE, PACK_PAGE + MEMORY_ENTRY_COST);
        }
    }
    if (r == 0)
        disk_keep(g, l->start, l->start + PACK_PAGE);
    *ret_code = r;
    return r == -EBADMSG && !g->again ? AGAIN : DONE;
}

static void verify_pages(struct get *g)
{
    int code = 0;

    for (size_t i = 0; i < g->count; i++) {
        int r = 0;
        if (!g->leaves[i].claim)
            continue;
        switch (verify_page(g, i, &r)) {
        case HELD:
            return;
        case AGAIN:
            read_again(g, i, 1);
            break;
        default:
            code = r < 0 ? r : code;
        }
    }
    end_with(g, code);
}

/* ---- data ---- */

/* With the lock: what the table says of guessed leaves. False: the table is on its way. A guess
 * that was wrong is given up: whoever waits looks again, and knows better then. */
static bool resolve(struct get *g)
{
    struct fetch_object *o = g->object;
    struct place p;
    struct need need;

    for (size_t i = 0; i < g->count; i++) {
        struct get_leaf *l = &g->leaves[i];
        if (l->known || !l->claim)
            continue;
        int r = table_find(o, l->start, &p, &need);
        if (r == 0 && on_its_way(o, need.kind, need.number))
            return false;
        if (r == 1 && p.start == l->start && p.start - g->offset + p.length <= g->size) {
            l->length = p.length;
            l->digest = p.digest;
            l->known = true;
            continue;
        }
        struct memory_entry *claim = l->claim;
        l->claim = NULL;
        ticket_tell(o->fetch, claim, r < 0 ? r : 0);
        memory_give_up(&o->fetch->memory, claim);
    }
    return true;
}

static bool hold_or_resolve(struct get *g)
{
    struct fetch_object *o = g->object;
    WITH_LOCK(&o->fetch->lock);

    if (o->linked || resolve(g))
        return true;
    g->next = o->held;
    o->held = g;
    return false;
}

static void keep_leaf(struct get *g, struct get_leaf *l)
{
    struct fetch *f = g->object->fetch;
    WITH_LOCK(&f->lock);

    struct memory_entry *claim = l->claim;
    l->claim = NULL;
    f->stats.bytes_verified += l->length;
    if (g->fill && !claim->waits) {
        memory_give_up(&f->memory, claim);
        return;
    }
    if (claim->ahead)
        f->stats.ahead_bytes += l->length;
    memory_fill_slab(&f->memory, claim, g->slab, g->data + (l->start - g->offset), l->length,
                     MEMORY_ENTRY_COST);
    g->reserved -= MEMORY_ENTRY_COST;
    ticket_tell(f, claim, 0);
}

/* Leaf i does not match. */
static void bad_leaf(struct get *g, size_t i)
{
    struct fetch *f = g->object->fetch;
    struct get_leaf *l = &g->leaves[i];
    bool wanted;

    {
        WITH_LOCK(&f->lock);
        wanted = l->claim->waits != NULL;
    }
    if (wanted && !g->again) {
        read_again(g, i, 1);
        return;
    }
    disk_forget(g, l);
    if (g->again)
        verify_damaged(g->object, l->start, l->length, "the leaf");
    /* Who began to wait meanwhile looks again, and has it read from the store: one look that nobody
     * waited for proves no damage. */
    WITH_LOCK(&f->lock);
    struct memory_entry *claim = l->claim;
    l->claim = NULL;
    ticket_tell(f, claim, g->again ? -EBADMSG : 0);
    memory_give_up(&f->memory, claim);
}

/* Digests of a get's leaves in turn. Those of full leaves, which lie in a row, are made together.
 */
#define TOGETHER 16u
struct digests {
    size_t first, count; /* of the leaves whose digests are known */
    struct digest at[TOGETHER];
};

static uint8_t *leaf_data(const struct get *g, const struct get_leaf *l)
{
    return g->data + (l->start - g->offset);
}

static const struct digest *leaf_digest(const struct get *g, size_t i, struct digests *known)
{
    const struct get_leaf *l = &g->leaves[i];
    size_t n = 1;

    if (i - known->first < known->count)
        return &known->at[i - known->first];
    while (n < TOGETHER && i + n < g->count && l[n].claim && l[n].length == l->length &&
           l[n].start == l->start + n * l->length)
        n++;
    known->first = i;
    known->count = n;
    digest_of_many(leaf_data(g, l), l->length, n, known->at);
    return known->at;
}

/* Its padding is zero from here on: the disk keeps it, too. */
static bool leaf_matches(const struct get *g, size_t i, struct digests *known)
{
    const struct get_leaf *l = &g->leaves[i];
    const struct digest *d = leaf_digest(g, i, known);

    memset(leaf_data(g, l) + l->length, 0, pack_blocks(l->length) * PACK_BLOCK - l->length);
    return digest_equal(d, &l->digest);
}

static void verify_data(struct get *g)
{
    bool linked = g->object->linked != NULL, keep_first = g->object->fetch->keep_first;
    uint64_t from = g->offset, end = g->offset; /* what is right, and not yet on the disk */
    struct digests known = {.count = 0};

    if (!hold_or_resolve(g))
        return;
    for (size_t i = 0; i < g->count; i++) {
        struct get_leaf *l = &g->leaves[i];
        if (!l->claim)
            continue;
        if (!linked && !leaf_matches(g, i, &known)) {
            bad_leaf(g, i);
            continue;
        }
        if (l->start != end) {
            disk_keep(g, from, end);
            from = l->start;
        }
        end = l->start + pack_blocks(l->length) * PACK_BLOCK;
        l->good = true;
        if (!keep_first)
            keep_leaf(g, l);
    }
    disk_keep(g, from, end);
    for (size_t i = 0; keep_first && i < g->count; i++) {
        if (g->leaves[i].claim && g->leaves[i].good)
            keep_leaf(g, &g->leaves[i]);
    }
    end_with(g, 0);
}

/* ---- all ---- */

static int short_object(struct get *g)
{
    log_warning("%s: the object ends too early: at offset %" PRIu64 " %zu of %zu bytes came",
                g->object->key, g->offset, g->got, g->size);
    WITH_LOCK(&g->object->fetch->lock);
    g->object->fetch->stats.damaged++;
    return -EBADMSG;
}

void verify_get(struct get *g)
{
    int r = g->result;

    if (r == 0 && g->got < g->size)
        r = short_object(g);
    if (r < 0) {
        log_debug("%s: reading %zu bytes at offset %" PRIu64 ": %s", g->object->key, g->size,
                  g->offset, strerror(-r));
        end_with(g, r);
        return;
    }
    if (g->what == GET_TAIL)
        verify_trailer(g);
    else if (g->what == GET_DATA)
        verify_data(g);
    else
        verify_pages(g);
}
