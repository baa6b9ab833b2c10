/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From an offset to the leaf that covers it: trailer, group page, page, row. Each of them is read
 * once, verified, and kept in the cache; the search itself only looks at what is cached, and says
 * what is missing.
 */
#include "fetch/fetch-internal.h"

#include <string.h>

/* A table that is no longer than this is read together with the trailer behind it. */
#define TAIL_MAX (128u << 10)
/* What a parsed trailer may take, per byte of the trailer. */
#define PARSED_FACTOR 3u

enum need { NEED_NOTHING, NEED_TRAILER, NEED_GROUP, NEED_PAGE };

static bool leaf_covers(const struct pack_leaf_at *at, uint64_t block)
{
    return block >= at->block && block - at->block < pack_blocks(at->leaf.length);
}

/* The hinted leaf, if its page is here. Sets *ret_need if only the page is missing. */
static bool try_hint(struct fetch_object *o, const struct pack_trailer *t, uint64_t block,
                     uint64_t hint, struct pack_page_ref *ref, struct fetch_place *ret,
                     enum need *ret_need)
{
    uint32_t row = (uint32_t)(hint % PACK_PAGE_LEAVES);

    if (hint >= pack_trailer_leaf_count(t) || pack_trailer_has_groups(t) ||
        pack_trailer_page(t, (uint32_t)(hint / PACK_PAGE_LEAVES), ref) < 0 ||
        block < ref->first_block || block >= ref->end_block)
        return false;
    struct memory_key key = fetch_key(o, MEMORY_PAGE, ref->number);
    struct memory_entry *e = memory_find(&o->fetch->memory, &key);
    if (!e) {
        *ret_need = NEED_PAGE;
        return true;
    }
    struct pack_leaf_at at = pack_page_leaf(e->data, ref->number, row);
    if (!leaf_covers(&at, block))
        return false;
    *ret = (struct fetch_place){.page = e->data, .page_number = ref->number, .row = row, .at = at};
    *ret_need = NEED_NOTHING;
    return true;
}

/* With the lock. 0 with *ret_need (and *ref of what is needed), or an error. */
static int look(struct fetch_object *o, uint64_t offset, uint64_t hint, enum need *ret_need,
                struct pack_page_ref *ref, struct fetch_place *ret)
{
    struct memory *c = &o->fetch->memory;
    struct memory_key key = fetch_key(o, MEMORY_TRAILER, 0);
    const struct memory_entry *e = memory_find(c, &key);
    uint64_t block = offset / PACK_BLOCK;
    struct pack_page_ref group_ref;
    const void *group = NULL;
    int r = 0;

    if (!e) {
        *ret_need = NEED_TRAILER;
        return 0;
    }
    const struct pack_trailer *t = e->data;
    if (hint != FETCH_NO_HINT && try_hint(o, t, block, hint, ref, ret, ret_need))
        return 0;
    if (pack_trailer_has_groups(t)) {
        r = pack_trailer_find_group(t, block, &group_ref);
        if (r < 0)
            return r;
        key = fetch_key(o, MEMORY_GROUP, group_ref.number);
        e = memory_find(c, &key);
        if (!e) {
            *ref = group_ref;
            *ret_need = NEED_GROUP;
            return 0;
        }
        group = e->data;
    }
    r = pack_trailer_find_page(t, group, group ? &group_ref : NULL, block, ref);
    if (r < 0)
        return r;
    key = fetch_key(o, MEMORY_PAGE, ref->number);
    e = memory_find(c, &key);
    if (!e) {
        *ret_need = NEED_PAGE;
        return 0;
    }
    *ret_need = NEED_NOTHING;
    *ret = (struct fetch_place){.page = e->data, .page_number = ref->number};
    r = pack_page_find(t, e->data, ref->number, block, &ret->at);
    ret->row = (uint32_t)(ret->at.number % PACK_PAGE_LEAVES);
    return r;
}

int fetch_table_find(struct fetch_object *o, uint64_t offset, uint64_t leaf_hint,
                     struct fetch_place *ret)
{
    enum need need;
    struct pack_page_ref ref;
    int r = look(o, offset, leaf_hint, &need, &ref, ret);

    if (r < 0)
        return -EPROTO; /* no leaf covers it */
    return need == NEED_NOTHING;
}

/* ---- loading
 * --------------------------------------------------------------------------------------------- */

/* Keep the pages that came along with the trailer. What does not verify is left out: whoever needs
 * it reads it again, and tells. */
static void keep_pages(struct fetch_object *o, const struct pack_trailer *t, const uint8_t *tail,
                       uint64_t tail_offset, size_t tail_size, size_t *reserved)
{
    struct memory *c = &o->fetch->memory;

    for (uint32_t i = 0; i < pack_trailer_page_count(t); i++) {
        struct pack_page_ref ref;
        struct memory_entry *claim = NULL;
        if (pack_trailer_page(t, i, &ref) < 0 || ref.offset < tail_offset ||
            ref.offset - tail_offset + PACK_PAGE > tail_size ||
            pack_page_verify(t, &ref, tail + (ref.offset - tail_offset)) < 0)
            continue;
        uint8_t *copy = malloc(PACK_PAGE);
        if (!copy)
            return;
        memcpy(copy, tail + (ref.offset - tail_offset), PACK_PAGE);
        struct memory_key key = fetch_key(o, MEMORY_PAGE, i);
        WITH_LOCK(&c->lock);
        if (memory_claim(c, &key, false, &claim) == 0 && claim) {
            memory_fill(c, claim, copy, PACK_PAGE, PACK_PAGE + MEMORY_ENTRY_COST);
            *reserved -= PACK_PAGE + MEMORY_ENTRY_COST;
        } else {
            free(copy);
        }
    }
}

/* Read trailer (and table) under a claim; `reserved` shrinks by what the cache keeps. */
static int read_trailer(struct fetch_object *o, struct memory_entry *claim, uint64_t offset,
                        size_t size, size_t *reserved)
{
    const struct pack_summary *s = &o->summary;
    struct memory *c = &o->fetch->memory;
    AUTO(free_ptr) uint8_t *bytes = malloc(size);
    struct pack_trailer *t = NULL;
    int r = bytes ? fetch_get(o, offset, bytes, size) : -ENOMEM;

    if (r == 0) {
        r = pack_trailer_parse(bytes_of(bytes + (s->trailer_offset - offset), s->trailer_length),
                               o->kind, s, &t, NULL);
        if (r == -EBADMSG)
            r = fetch_damaged(o, s->trailer_offset, s->trailer_length, "the trailer");
    }
    if (r == 0 && size > s->trailer_length)
        keep_pages(o, t, bytes, offset, size, reserved);
    WITH_LOCK(&c->lock);
    if (r < 0) {
        memory_give_up(c, claim);
        return r;
    }
    size_t charge = PARSED_FACTOR * (size_t)s->trailer_length + MEMORY_ENTRY_COST;
    memory_fill(c, claim, t, s->trailer_length, charge);
    *reserved -= charge;
    return 0;
}

static int load_trailer(struct fetch_object *o)
{
    const struct pack_summary *s = &o->summary;
    struct memory *c = &o->fetch->memory;
    uint64_t offset = s->trailer_offset;
    size_t size = s->trailer_length;
    struct memory_entry *claim = NULL;

    if (s->length - s->data_size <= TAIL_MAX) {
        offset = s->data_size;
        size = (size_t)(s->length - s->data_size);
    }
    size_t reserved = 2 * size + PARSED_FACTOR * (size_t)s->trailer_length +
                      (size / PACK_PAGE + 2) * MEMORY_ENTRY_COST;
    struct memory_key key = fetch_key(o, MEMORY_TRAILER, 0);
    pthread_mutex_lock(&c->lock);
    memory_reserve(c, reserved);
    int r = memory_claim(c, &key, true, &claim);
    pthread_mutex_unlock(&c->lock);
    if (claim)
        r = read_trailer(o, claim, offset, size, &reserved);
    WITH_LOCK(&c->lock);
    memory_unreserve(c, reserved);
    return r;
}

/* Read a page under a claim. 0 also if the trailer was dropped meanwhile: the caller looks again.
 */
static int read_page(struct fetch_object *o, struct memory_entry *claim,
                     const struct pack_page_ref *ref, size_t *reserved)
{
    struct memory *c = &o->fetch->memory;
    struct memory_key key = fetch_key(o, MEMORY_TRAILER, 0);
    AUTO(free_ptr) uint8_t *page = malloc(PACK_PAGE);
    int r = page ? fetch_get(o, ref->offset, page, PACK_PAGE) : -ENOMEM;

    pthread_mutex_lock(&c->lock);
    struct memory_entry *trailer = memory_find(c, &key);
    if (trailer)
        memory_pin(trailer);
    pthread_mutex_unlock(&c->lock);
    if (r == 0 && trailer) {
        r = pack_page_verify(trailer->data, ref, page);
        if (r == -EBADMSG)
            r = fetch_damaged(o, ref->offset, PACK_PAGE, "a page of the leaf table");
    }
    WITH_LOCK(&c->lock);
    if (r == 0 && trailer) {
        memory_fill(c, claim, take_ptr(&page), PACK_PAGE, *reserved);
        *reserved = 0;
    } else {
        memory_give_up(c, claim);
    }
    if (trailer)
        memory_unpin(c, trailer);
    return r;
}

static int load_page(struct fetch_object *o, enum memory_kind kind, const struct pack_page_ref *ref)
{
    struct memory *c = &o->fetch->memory;
    struct memory_key key = fetch_key(o, kind, ref->number);
    struct memory_entry *claim = NULL;
    size_t reserved = PACK_PAGE + MEMORY_ENTRY_COST;

    pthread_mutex_lock(&c->lock);
    memory_reserve(c, reserved);
    int r = memory_claim(c, &key, true, &claim);
    pthread_mutex_unlock(&c->lock);
    if (claim)
        r = read_page(o, claim, ref, &reserved);
    WITH_LOCK(&c->lock);
    memory_unreserve(c, reserved);
    return r;
}

int fetch_table_load(struct fetch_object *o, uint64_t offset, uint64_t leaf_hint)
{
    enum need need;
    struct pack_page_ref ref;
    struct fetch_place place;
    int r;

    {
        WITH_LOCK(&o->fetch->memory.lock);
        r = look(o, offset, leaf_hint, &need, &ref, &place);
    }
    if (r < 0)
        return -EPROTO;
    switch (need) {
    case NEED_TRAILER:
        return load_trailer(o);
    case NEED_GROUP:
        return load_page(o, MEMORY_GROUP, &ref);
    case NEED_PAGE:
        return load_page(o, MEMORY_PAGE, &ref);
    default:
        return 0;
    }
}
