/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From an offset to the leaf that covers it: trailer, group page, page, row, as far as they are in
 * memory; what is not is said. Where blobs are cut as the publisher cuts them, places follow from
 * numbers that the reader knows already, so that the data can be read at the same time as the table
 * that will verify it. A guess that is wrong costs a read, never a byte.
 */
#include "fetch/fetch-internal.h"

/* ---- where things are, from what names the pack alone ---- */

static uint32_t divide_up(uint64_t a, uint64_t b)
{
    return (uint32_t)(a / b + (a % b != 0));
}

uint32_t table_page_count(const struct fetch_object *o)
{
    /* At least a block for each leaf; what breaks that will not pass the trailer's check. */
    if (o->summary.leaf_count > o->summary.data_size / PACK_BLOCK)
        return 0;
    return divide_up(o->summary.leaf_count, PACK_PAGE_LEAVES);
}

bool table_has_groups(const struct fetch_object *o)
{
    return table_page_count(o) > PACK_GROUP_PAGES;
}

bool table_is_short(const struct fetch_object *o)
{
    return o->summary.length - o->summary.data_size <= TAIL_MAX;
}

uint64_t table_page_offset(const struct fetch_object *o, uint32_t number)
{
    return o->summary.data_size + (uint64_t)number * PACK_PAGE;
}

uint64_t table_group_offset(const struct fetch_object *o, uint32_t number)
{
    return table_page_offset(o, table_page_count(o)) + (uint64_t)number * PACK_PAGE;
}

bool table_guess(const struct fetch_object *o, uint64_t offset, const struct fetch_hint *hint,
                 struct place *ret)
{
    uint64_t from = 0, end = o->summary.data_size;
    uint32_t size = PACK_INDEX_LEAF;

    if (o->kind == PACK_KIND_DATA) {
        if (!hint || offset < hint->start || offset >= hint->end || hint->start % PACK_BLOCK != 0 ||
            hint->end > end)
            return false;
        from = hint->start;
        end = hint->end;
        size = PACK_LEAF_MAX;
    }
    *ret = (struct place){.start = from + (offset - from) / size * size};
    ret->length = (uint32_t)(end - ret->start < size ? end - ret->start : size);
    return true;
}

uint64_t table_guess_number(const struct fetch_object *o, uint64_t offset,
                            const struct fetch_hint *hint)
{
    uint64_t number;

    if (o->kind != PACK_KIND_DATA)
        number = offset / PACK_INDEX_LEAF;
    else if (!hint || offset < hint->start)
        return FETCH_NO_HINT;
    else if (hint->leaf == FETCH_NO_HINT) /* as if all leaves were equal: of large files they are */
        number = (uint64_t)((double)offset / (double)o->summary.data_size *
                            (double)o->summary.leaf_count);
    else
        number = hint->leaf + (offset - hint->start) / PACK_LEAF_MAX;
    return number < o->summary.leaf_count ? number : FETCH_NO_HINT;
}

/* ---- what is in memory ---- */

static struct memory_entry *loaded(struct fetch_object *o, enum memory_kind kind, uint64_t number)
{
    struct memory *m = &o->fetch->memory;
    struct memory_key key = fetch_key(o, kind, number);
    struct memory_entry *e = memory_find(m, &key);

    if (!e || !e->loaded)
        return NULL;
    memory_used_now(m, e);
    return e;
}

int table_find(struct fetch_object *o, uint64_t offset, struct place *ret, struct need *ret_need)
{
    uint64_t block = offset / PACK_BLOCK;
    struct pack_page_ref group_ref, ref;
    struct pack_leaf_at at;
    const void *group = NULL;

    const struct memory_entry *e = loaded(o, MEMORY_TRAILER, 0);
    if (!e) {
        *ret_need = (struct need){.kind = MEMORY_TRAILER};
        return 0;
    }
    const struct pack_trailer *t = e->data;
    if (pack_trailer_has_groups(t)) {
        if (pack_trailer_find_group(t, block, &group_ref) < 0)
            return -EPROTO;
        e = loaded(o, MEMORY_GROUP, group_ref.number);
        if (!e) {
            *ret_need = (struct need){.kind = MEMORY_GROUP, .number = group_ref.number};
            return 0;
        }
        group = e->data;
    }
    if (pack_trailer_find_page(t, group, group ? &group_ref : NULL, block, &ref) < 0)
        return -EPROTO;
    e = loaded(o, MEMORY_PAGE, ref.number);
    if (!e) {
        *ret_need = (struct need){.kind = MEMORY_PAGE, .number = ref.number};
        return 0;
    }
    if (pack_page_find(t, e->data, ref.number, block, &at) < 0)
        return -EPROTO;
    *ret = (struct place){.start = at.block * PACK_BLOCK,
                          .length = at.leaf.length,
                          .known = true,
                          .digest = at.leaf.digest};
    return 1;
}

int table_ref(struct fetch_object *o, enum memory_kind kind, uint32_t number,
              const struct pack_trailer **ret_trailer, struct memory_entry **ret_pinned,
              struct pack_page_ref *ret)
{
    struct memory_entry *trailer = loaded(o, MEMORY_TRAILER, 0);
    struct pack_page_ref group_ref;
    int r;

    if (!trailer)
        return 0;
    const struct pack_trailer *t = trailer->data;
    if (kind == MEMORY_GROUP) {
        r = pack_trailer_group(t, number, ret);
    } else if (!pack_trailer_has_groups(t)) {
        r = pack_trailer_page(t, number, ret);
    } else {
        uint32_t group_number = number / PACK_PAGE_LEAVES;
        struct memory_entry *group = loaded(o, MEMORY_GROUP, group_number);
        if (!group)
            return 0;
        r = pack_trailer_group(t, group_number, &group_ref);
        if (r == 0)
            r = pack_group_page(t, group->data, &group_ref, number, ret);
    }
    if (r < 0)
        return -EPROTO;
    *ret_trailer = t;
    *ret_pinned = trailer;
    return 1;
}

/* ---- planning ---- */

/* One page (or group page, or the trailer), if nobody has or reads it. */
static int want(struct fetch_object *o, enum memory_kind kind, uint32_t number,
                struct fetch_ticket *t, bool ahead, struct get_list *gets)
{
    struct memory *m = &o->fetch->memory;
    struct memory_key key = fetch_key(o, kind, number);
    struct memory_entry *e = memory_find(m, &key);
    const struct pack_summary *s = &o->summary;
    struct place p = {.length = PACK_PAGE};
    enum get_what what = kind == MEMORY_PAGE ? GET_PAGES : GET_GROUP;

    if (!e) {
        int r = t ? ticket_failure(t, &key) : 0;
        if (r < 0)
            return r;
        p.start =
            kind == MEMORY_PAGE ? table_page_offset(o, number) : table_group_offset(o, number);
        if (kind == MEMORY_TRAILER) {
            what = GET_TAIL;
            p.start = table_is_short(o) ? s->data_size : s->trailer_offset;
            p.length = (uint32_t)(s->length - p.start);
        }
        e = memory_claim(m, &key);
        struct get *g = e ? get_new(o, what, p.start, 0) : NULL;
        if (!g || get_add(g, e, &p) < 0) {
            if (g)
                get_end(g, 0);
            if (e)
                memory_give_up(m, e);
            return -ENOMEM;
        }
        g->ahead = ahead;
        get_list_add(gets, g);
    } else if (!e->loaded && !ahead) {
        get_promote(o->fetch, e->get);
    }
    return t ? ticket_wait_for(t, e) : 0;
}

int plan_table(struct fetch_object *o, const struct need *need, uint64_t leaf_number,
               struct fetch_ticket *t, bool ahead, struct get_list *gets)
{
    int r = want(o, need->kind, need->number, t, ahead, gets);

    /* What hangs below it, as far as its number is known and it does not come along. */
    if (r < 0 || leaf_number == FETCH_NO_HINT || need->kind == MEMORY_PAGE ||
        (need->kind == MEMORY_TRAILER && table_is_short(o)) || o->fetch->quick)
        return r;
    uint32_t page = (uint32_t)(leaf_number / PACK_PAGE_LEAVES);
    if (page >= table_page_count(o))
        return 0;
    if (need->kind == MEMORY_TRAILER && table_has_groups(o))
        r = want(o, MEMORY_GROUP, page / PACK_PAGE_LEAVES, t, ahead, gets);
    return r == 0 ? want(o, MEMORY_PAGE, page, t, ahead, gets) : r;
}
