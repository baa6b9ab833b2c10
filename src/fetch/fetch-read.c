/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reads: leaf by leaf from memory, and a plan for all that is missing at once.
 *
 * A plan claims what nobody has or reads yet, in runs of leaves that lie one behind the other, and
 * waits for what others read already. Where the table is missing too, data is claimed by where it
 * must be if blobs are cut as the publisher cuts them, so that trailer, table page and data come in
 * one round trip.
 */
#include "fetch/fetch-internal.h"

/* Up to this a copy is made under the lock: shorter than taking it twice. */
#define COPY_LOCKED_MAX 4096u
/* Looks at the same place without getting on; more is a fault of ours, and no reason to hang. */
#define LOOKS_MAX 64u

/* One read, as far as it has come. */
struct reading {
    struct fetch_object *object;
    uint64_t offset;
    uint8_t *data;
    size_t size;
    const struct fetch_hint *hint; /* may be NULL */
    bool flat;
};

/* ---- linked devices ---- */

/* The piece that covers `offset`, cut at FETCH_PIECE from where its object begins. */
static int linked_place(struct fetch_object *o, uint64_t offset, const struct fetch_hint *hint,
                        struct place *ret, uint64_t *ret_run)
{
    AUTO(free_ptr) struct fetch_link *link = malloc(sizeof *link);

    if (!link)
        return -ENOMEM;
    int r = fetch_linked_find(o->linked, offset, hint ? hint->leaf : FETCH_NO_HINT, link);
    if (r < 0)
        return r;
    uint64_t from = (offset - link->start) / FETCH_PIECE * FETCH_PIECE;
    uint64_t left = from < link->length ? link->length - from : 0;
    *ret = (struct place){.start = link->start + from,
                          .length = (uint32_t)(left < FETCH_PIECE ? left : FETCH_PIECE),
                          .known = true};
    *ret_run = link->start;
    return 0;
}

int linked_get(struct fetch_object *o, uint64_t offset, void *data, size_t size)
{
    AUTO(free_ptr) struct fetch_link *link = malloc(sizeof *link);

    if (!link)
        return -ENOMEM;
    int r = fetch_linked_find(o->linked, offset, FETCH_NO_HINT, link);
    return r < 0 ? r : fetch_linked_get(o->linked, link, offset - link->start, data, size);
}

/* ---- from memory ---- */

/* The leaf at `offset`, if it is in memory, and where it starts. With the lock. 1, 0, or -EPROTO;
 * *ret_end: behind the leaf's last block, if only that is known. */
static int find_leaf(const struct reading *x, const struct place *linked, struct memory_entry **ret,
                     struct place *ret_place)
{
    struct fetch_object *o = x->object;
    struct memory_entry *e;
    struct need need;

    if (linked) {
        *ret_place = *linked;
    } else if (!table_guess(o, x->offset, x->hint, ret_place)) {
        ret_place->start = UINT64_MAX;
    }
    if (ret_place->start != UINT64_MAX) {
        struct memory_key key = leaf_key(o, ret_place->start);
        e = memory_find(&o->fetch->memory, &key);
        if (e && e->loaded) {
            ret_place->length = (uint32_t)e->size;
            *ret = e;
            return 1;
        }
    }
    if (linked) {
        *ret = NULL;
        return x->offset - linked->start < linked->length ? 0 : 1;
    }
    int r = table_find(o, x->offset, ret_place, &need);
    if (r != 1)
        return r;
    struct memory_key key = leaf_key(o, ret_place->start);
    e = memory_find(&o->fetch->memory, &key);
    *ret = e && e->loaded ? e : NULL;
    /* Padding is known without the leaf. */
    return *ret || x->offset - ret_place->start >= ret_place->length;
}

/* With the lock, which is given up while much is copied. */
static void copy_out(struct fetch *f, struct memory_entry *e, size_t at, void *data, size_t size)
{
    if (size <= COPY_LOCKED_MAX) {
        memcpy(data, (const uint8_t *)e->data + at, size);
        return;
    }
    e->pins++;
    pthread_mutex_unlock(&f->lock);
    memcpy(data, (const uint8_t *)e->data + at, size);
    pthread_mutex_lock(&f->lock);
    e->pins--;
}

/* The entry was asked for. What is read once, in order, goes in the order it came; what is asked
 * for again stays. */
static void was_used(struct fetch *f, struct memory_entry *e)
{
    if (e->ahead) {
        e->ahead = false;
        f->memory.ahead_bytes -= e->size;
        return;
    }
    memory_used_now(&f->memory, e);
    memory_own(&f->memory, e);
}

/* What memory has at the beginning of what is left. The number of bytes, 0: nothing; -EPROTO. */
static ssize_t read_memory(struct reading *x, const struct place *linked, bool waited)
{
    struct fetch *f = x->object->fetch;
    struct memory_entry *e = NULL;
    struct place p;
    WITH_LOCK(&f->lock);

    int r = find_leaf(x, linked, &e, &p);
    if (r != 1)
        return r;
    size_t at = (size_t)(x->offset - p.start);
    if (at >= p.length) {
        uint64_t blocks = pack_blocks(p.length) * PACK_BLOCK;
        if (!x->flat || at >= blocks)
            return -EPROTO;
        size_t n = blocks - at < x->size ? (size_t)(blocks - at) : x->size;
        memset(x->data, 0, n);
        return (ssize_t)n;
    }
    size_t n = x->size < p.length - at ? x->size : p.length - at;
    if (!waited) {
        f->stats.hits++;
        f->stats.bytes_memory += n;
    }
    was_used(f, e);
    copy_out(f, e, at, x->data, n);
    return (ssize_t)n;
}

/* ---- what is missing ---- */

/* Gets being planned: leaves that lie one behind the other share one. */
struct plan {
    struct fetch_ticket *ticket;
    struct get_list *gets;
    struct get *last;
    uint64_t run; /* of `last`; linked devices */
};

static int add_leaf(struct fetch_object *o, struct plan *plan, const struct place *p, uint64_t run)
{
    struct memory *m = &o->fetch->memory;
    struct memory_key key = leaf_key(o, p->start);
    struct get *g = plan->last;

    if (g && (g->offset + pack_blocks(g->size) * PACK_BLOCK != p->start || run != plan->run ||
              p->start - g->offset + p->length > GET_DEMAND_MAX))
        g = NULL;
    if (!g) {
        g = get_new(o, GET_DATA, p->start, 0);
        if (!g)
            return -ENOMEM;
        get_list_add(plan->gets, g);
        plan->last = g;
        plan->run = run;
    }
    struct memory_entry *e = memory_claim(m, &key);
    if (!e)
        return -ENOMEM;
    if (get_add(g, e, p) < 0) {
        memory_give_up(m, e);
        return -ENOMEM;
    }
    o->fetch->stats.misses++;
    return ticket_wait_for(plan->ticket, e);
}

/* One leaf: wait for it, whoever reads it. */
static int want_leaf(struct fetch_object *o, struct plan *plan, const struct place *p, uint64_t run)
{
    struct memory_key key = leaf_key(o, p->start);
    struct memory_entry *e = memory_find(&o->fetch->memory, &key);

    if (!e) {
        int r = ticket_failure(plan->ticket, &key);
        return r < 0 ? r : add_leaf(o, plan, p, run);
    }
    if (!e->loaded) {
        get_promote(o->fetch, e->get);
        e->ahead = false;
    }
    return ticket_wait_for(plan->ticket, e);
}

/* The next leaf from `at` on. 1: *ret is it, perhaps a guess; 0: it is not known where it is; or an
 * error. What is missing of the table is wanted on the way. */
static int next_leaf(const struct reading *x, uint64_t at, struct plan *plan, struct place *ret)
{
    struct fetch_object *o = x->object;
    struct need need;

    int r = table_find(o, at, ret, &need);
    if (r != 0)
        return r;
    r = plan_table(o, &need, table_guess_number(o, at, x->hint), plan->ticket, false, plan->gets);
    if (r < 0)
        return r;
    return !o->fetch->quick && table_guess(o, at, x->hint, ret);
}

static int plan_leaves(const struct reading *x, struct plan *plan)
{
    uint64_t at = x->offset, end = x->offset + x->size;
    struct place p;

    while (at < end) {
        int r = next_leaf(x, at, plan, &p);
        if (r == 1 && at - p.start < p.length)
            r = want_leaf(x->object, plan, &p, 0);
        else if (r == 1 && !x->flat)
            r = -EPROTO;
        else if (r == 0)
            return 0;
        /* What comes before it may be read all the same, and then the error is met again. */
        if (r < 0)
            return at == x->offset ? r : 0;
        at = p.start + pack_blocks(p.length) * PACK_BLOCK;
    }
    return 0;
}

/* Of a linked device: one piece after the other, each looked up without the lock. */
static int plan_linked(const struct reading *x, struct plan *plan)
{
    uint64_t at = x->offset, end = x->offset + x->size, run;
    struct place p;

    while (at < end) {
        int r = linked_place(x->object, at, x->hint, &p, &run);
        if (r == 0 && at - p.start < p.length) {
            WITH_LOCK(&x->object->fetch->lock);
            r = want_leaf(x->object, plan, &p, run);
        }
        if (r < 0)
            return at == x->offset ? r : 0;
        at = p.start + pack_blocks(p.length) * PACK_BLOCK;
        if (p.length == 0)
            return -EPROTO;
    }
    return 0;
}

/* Get what is missing on its way. 0: look again; -EAGAIN: it will take a while; or an error. */
static int read_missing(struct reading *x, struct fetch_ticket *t)
{
    struct fetch *f = x->object->fetch;
    struct get_list gets = {.first = NULL};
    struct plan plan = {.ticket = t, .gets = &gets};
    int r = 0;

    if (t->expired)
        return -ETIMEDOUT;
    {
        WITH_LOCK(&f->lock);
        if (!t->number)
            t->number = ++f->next_ticket;
        if (!x->object->linked)
            r = plan_leaves(x, &plan);
        ahead_touch(x->object, x->offset, x->size, x->hint, true);
    }
    if (x->object->linked)
        r = plan_linked(x, &plan);
    gets_begin(f, &gets);
    if (r < 0)
        return r;
    WITH_LOCK(&f->lock);
    return t->pending ? -EAGAIN : 0;
}

/* ---- reading ---- */

/* One step of a reader, however many leaves it is. */
static void touch(const struct reading *x)
{
    WITH_LOCK(&x->object->fetch->lock);

    ahead_touch(x->object, x->offset, x->size, x->hint, false);
}

static int run_reading(struct fetch_ticket *t, void *ctx)
{
    const struct reading *all = ctx;
    struct reading x = *all;
    unsigned looks = 0;

    while (x.size > 0) {
        struct place linked;
        uint64_t run;
        int r = x.object->linked ? linked_place(x.object, x.offset, x.hint, &linked, &run) : 0;
        ssize_t n = r < 0 ? r : read_memory(&x, x.object->linked ? &linked : NULL, t->number != 0);
        if (n == 0) {
            n = ++looks < LOOKS_MAX ? read_missing(&x, t) : -EIO;
            if (n == -EAGAIN)
                t->missed = true;
            if (n < 0)
                return (int)n;
            continue;
        }
        if (n < 0)
            return (int)n;
        looks = 0;
        x.data += n;
        x.offset += (uint64_t)n;
        x.size -= (size_t)n;
    }
    touch(all);
    return 0;
}

static int read_any(struct reading *x)
{
    struct fetch_object *o = x->object;
    struct fetch_ticket *t = ticket_current(o->fetch);

    if (x->size > o->summary.data_size || x->offset > o->summary.data_size - x->size)
        return -EPROTO;
    return t ? run_reading(t, x) : fetch_waiting(o->fetch, run_reading, x);
}

int fetch_read_hinted(struct fetch_object *o, uint64_t offset, void *data, size_t size,
                      const struct fetch_hint *hint)
{
    struct reading x = {.object = o, .offset = offset, .data = data, .size = size, .hint = hint};

    return read_any(&x);
}

int fetch_read(struct fetch_object *o, uint64_t offset, void *data, size_t size, uint64_t leaf_hint)
{
    /* Where the blob is, is not known; but which page of the table to read is. */
    struct fetch_hint hint = {.start = offset, .end = offset, .leaf = leaf_hint};

    return fetch_read_hinted(o, offset, data, size, leaf_hint == FETCH_NO_HINT ? NULL : &hint);
}

int fetch_read_flat(struct fetch_object *o, uint64_t offset, void *data, size_t size)
{
    struct reading x = {.object = o, .offset = offset, .data = data, .size = size, .flat = true};

    return read_any(&x);
}
