/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Gets: what is read from the store or the disk, from the claim of its leaves to its end.
 *
 * A get starts as soon as memory has room for it, demands in the order they came. On a store of
 * this machine's disk whoever needs it reads it; elsewhere the store calls back, or a thread of the
 * pool waits. What fails for a reason that may pass is tried again as long as somebody waits.
 */
#include "fetch/fetch-internal.h"

#include "cache/cache.h"

/* Of all kinds under way at once; more would only wait in the store's client. */
#define RUNNING_MAX 64u
/* Before a get that failed is tried again; doubled each time. The store's client has retried. */
#define AGAIN_FIRST_US INT64_C(250000)
#define AGAIN_MAX_US   INT64_C(5000000)
/* Memory that data leaves to tables: data that came before its table waits for it, and could fill
 * all there is. */
#define TABLE_ROOM (4u << 20)

/* ---- lists ---- */

void get_list_add(struct get_list *l, struct get *g)
{
    g->next = NULL;
    g->before = l->last;
    *(l->last ? &l->last->next : &l->first) = g;
    l->last = g;
    l->count++;
}

void get_list_remove(struct get_list *l, struct get *g)
{
    *(g->before ? &g->before->next : &l->first) = g->next;
    *(g->next ? &g->next->before : &l->last) = g->before;
    g->next = g->before = NULL;
    l->count--;
}

static void get_list_add_first(struct get_list *l, struct get *g)
{
    g->before = NULL;
    g->next = l->first;
    *(l->first ? &l->first->before : &l->last) = g;
    l->first = g;
    l->count++;
}

struct get *get_list_take(struct get_list *l)
{
    struct get *g = l->first;

    if (g)
        get_list_remove(l, g);
    return g;
}

/* ---- making and ending ---- */

struct get *get_new(struct fetch_object *o, enum get_what what, uint64_t offset, size_t size)
{
    struct get *g = calloc(1, sizeof *g);

    if (!g)
        return NULL;
    object_ref(o);
    g->object = o;
    g->what = what;
    g->offset = offset;
    g->size = size;
    return g;
}

int get_add(struct get *g, struct memory_entry *claim, const struct place *p)
{
    if (g->count == g->capacity) {
        size_t capacity = g->capacity ? 4 * g->capacity : 4;
        struct get_leaf *more = realloc(g->leaves, capacity * sizeof *more);
        if (!more)
            return -ENOMEM;
        g->leaves = more;
        g->capacity = capacity;
    }
    g->leaves[g->count++] = (struct get_leaf){.claim = claim,
                                              .start = p->start,
                                              .length = p->length,
                                              .known = p->known,
                                              .digest = p->digest};
    claim->get = g;
    g->size = (size_t)(p->start + p->length - g->offset);
    return 0;
}

void get_end(struct get *g, int code)
{
    struct fetch *f = g->object->fetch;

    for (size_t i = 0; i < g->count; i++) {
        struct memory_entry *claim = g->leaves[i].claim;
        if (!claim)
            continue;
        ticket_tell(f, claim, code);
        memory_give_up(&f->memory, claim);
    }
    memory_unreserve(&f->memory, g->reserved);
    slab_unref(&f->memory, g->slab);
    object_unref(g->object);
    free(g->leaves);
    free(g);
    pool_wake(f);
    ahead_wake(f); /* there is room for more */
}

/* Whole blocks: their padding is part of what the disk keeps. */
static size_t get_room(const struct get *g)
{
    return g->what == GET_DATA && !g->object->linked ? pack_blocks(g->size) * PACK_BLOCK : g->size;
}

/* Large ones lie in memory as in the object: what goes to the disk past the page cache wants that.
 */
static size_t get_shift(const struct get *g)
{
    return get_room(g) >= SLAB_LARGE ? g->offset % SLAB_ALIGN : 0;
}

static bool reserve(struct get *g)
{
    struct fetch *f = g->object->fetch;
    size_t extra = g->count * MEMORY_ENTRY_COST + g->capacity * sizeof *g->leaves;
    size_t leave = g->what == GET_DATA ? TABLE_ROOM : 0;

    /* Leaves stay where they are read; of tables copies are kept. */
    if (g->what != GET_DATA)
        extra += g->size;
    if (g->what == GET_TAIL)
        extra += PARSED_FACTOR * g->object->summary.trailer_length +
                 (g->size / PACK_PAGE + 2) * MEMORY_ENTRY_COST;
    while (!(g->slab = slab_reserve(&f->memory, get_room(g) + get_shift(g), extra, leave))) {
        if (g->ahead || !ticket_strip(f))
            return false;
    }
    g->reserved = extra;
    return true;
}

void get_promote(struct fetch *f, struct get *g)
{
    /* It is under way already: it only counts no longer as read ahead. */
    if (g && g->counted)
        f->running_ahead -= g->size;
    if (g)
        g->ahead = g->counted = false;
}

/* ---- starting ---- */

/* Bytes came, or an error; whoever verifies takes over. With the lock. */
static void came(struct get *g, int result, size_t got)
{
    struct fetch *f = g->object->fetch;

    g->result = result;
    g->got = result < 0 ? 0 : got;
    *(g->run_before ? &g->run_before->run_next : &f->running_first) = g->run_next;
    *(g->run_next ? &g->run_next->run_before : &f->running_last) = g->run_before;
    f->running--;
    if (g->counted)
        f->running_ahead -= g->size;
    g->counted = false;
}

static void count_latency(struct fetch *f, int64_t us)
{
    unsigned i = 0;

    /* Half octaves: between 2^k and 2^(k+1) lies 2^(k+1/2), about 1.414 * 2^k. */
    while (i < FETCH_LATENCY_BUCKETS - 2 && us >= INT64_C(2) << (i / 2))
        i += 2;
    if (us * 1000 >= (INT64_C(1) << (i / 2)) * 1414)
        i++;
    f->stats.latency[i]++;
}

static bool may_pass(int code)
{
    switch (code) {
    case -EIO:
    case -ETIMEDOUT:
    case -ECONNREFUSED:
    case -ECONNRESET:
    case -EHOSTUNREACH:
    case -ENETUNREACH:
    case -EPIPE:
    case -EAGAIN:
    case -EBUSY:
        return true;
    default:
        return false;
    }
}

static bool somebody_waits(const struct get *g)
{
    for (size_t i = 0; i < g->count; i++) {
        if (g->leaves[i].claim && g->leaves[i].claim->waits)
            return true;
    }
    return false;
}

/* With the lock: what the answer of the store says of the store. True: the get will be tried again.
 */
static bool store_answered(struct get *g)
{
    struct fetch *f = g->object->fetch;
    int64_t now = fetch_now_us(), delay = AGAIN_FIRST_US;

    f->stats.gets++;
    count_latency(f, now - g->start_us);
    if (g->result == 0) {
        f->stats.bytes_store += g->got;
        f->store_error = 0;
        return false;
    }
    if (!may_pass(g->result))
        return false;
    f->store_error = g->result;
    f->error_us = now;
    if (f->quick || f->io_timeout_ms == 0 || f->stopping || !somebody_waits(g))
        return false;
    for (unsigned i = 0; i < g->attempts && delay < AGAIN_MAX_US; i++)
        delay *= 2;
    g->attempts++;
    g->due_us = now + (delay < AGAIN_MAX_US ? delay : AGAIN_MAX_US);
    f->stats.retries++;
    memory_unreserve(&f->memory, g->reserved);
    g->reserved = 0;
    slab_unref(&f->memory, g->slab);
    g->slab = NULL;
    get_list_add(&f->delayed, g);
    pool_keep_time(f);
    return true;
}

/* The store calls back; it may be the last we hear of it. */
static void on_got(void *ctx, int result, size_t size)
{
    struct get *g = ctx;
    struct fetch *f = g->object->fetch;
    bool last;

    {
        WITH_LOCK(&f->lock);
        came(g, result, size);
        f->asynchronous--;
        last = f->freed && f->asynchronous == 0;
        if (f->stopping)
            get_end(g, -ECANCELED);
        else if (!store_answered(g))
            get_list_add(&f->ended, g);
        pool_wake(f);
    }
    if (last)
        fetch_destroy(f);
}

void get_read_blocking(struct get *g)
{
    struct fetch_object *o = g->object;
    struct fetch *f = o->fetch;
    size_t got = 0;
    bool again;
    int r;

    {
        WITH_LOCK(&f->lock);
        g->start_us = fetch_now_us();
    }
    if (o->linked) {
        r = linked_get(o, g->offset, g->data, g->size);
        got = g->size;
    } else {
        r = store_get(f->store, o->key, g->offset, g->data, get_room(g), &got, NULL);
    }
    {
        WITH_LOCK(&f->lock);
        came(g, r, got);
        again = store_answered(g);
    }
    if (!again)
        verify_get(g);
}

/* All of it is on the disk, and here now. */
static bool disk_read(struct get *g)
{
    struct fetch_object *o = g->object;
    struct fetch *f = o->fetch;

    if (!o->disk || g->past_disk || cache_read(o->disk, g->offset, g->data, get_room(g)) < 0)
        return false;
    g->from_disk = true;
    WITH_LOCK(&f->lock);
    came(g, 0, g->size);
    f->stats.bytes_cache += g->size;
    return true;
}

void get_start(struct get *g)
{
    struct fetch_object *o = g->object;
    struct fetch *f = o->fetch;

    bool allocated = slab_allocate(g->slab) == 0;
    g->data = allocated ? g->slab->data + get_shift(g) : NULL;
    if (allocated && disk_read(g)) {
        verify_get(g);
        return;
    }
    if (!allocated) {
        {
            WITH_LOCK(&f->lock);
            came(g, -ENOMEM, 0);
        }
        verify_get(g);
        return;
    }
    if (f->quick && !o->linked) {
        get_read_blocking(g);
        return;
    }
    if (!f->async || o->linked) {
        WITH_LOCK(&f->lock);
        get_list_add(&f->blocking, g);
        pool_wake(f);
        return;
    }
    {
        WITH_LOCK(&f->lock);
        f->asynchronous++;
        g->start_us = fetch_now_us();
    }
    int r = store_get_async(f->store, o->key, g->offset, g->data, get_room(g), on_got, g);
    if (r < 0)
        on_got(g, r, 0);
}

bool get_may_start(struct get *g)
{
    struct fetch *f = g->object->fetch;

    if (f->stopping || f->running >= RUNNING_MAX || !reserve(g))
        return false;
    g->start_us = fetch_now_us();
    g->counted = g->ahead;
    if (g->ahead)
        f->running_ahead += g->size;
    g->run_before = f->running_last;
    g->run_next = NULL;
    *(f->running_last ? &f->running_last->run_next : &f->running_first) = g;
    f->running_last = g;
    f->running++;
    return true;
}

void gets_begin(struct fetch *f, struct get_list *gets)
{
    struct get_list now = {.first = NULL};
    struct get *g;

    {
        WITH_LOCK(&f->lock);
        while ((g = get_list_take(gets))) {
            /* First come, first served; but tables, which others wait for, come first. */
            bool table = g->what != GET_DATA;
            if ((table || !f->demand.first) && get_may_start(g))
                get_list_add(&now, g);
            else if (table)
                get_list_add_first(&f->demand, g);
            else
                get_list_add(&f->demand, g);
        }
        if (f->demand.first)
            pool_wake(f);
    }
    while ((g = get_list_take(&now)))
        get_start(g);
}

int64_t gets_due(struct fetch *f)
{
    int64_t now = fetch_now_us(), next = INT64_MAX;
    bool any = false;

    for (struct get *g = f->delayed.first, *after; g; g = after) {
        after = g->next;
        if (g->due_us > now) {
            next = g->due_us < next ? g->due_us : next;
            continue;
        }
        get_list_remove(&f->delayed, g);
        if (somebody_waits(g)) {
            get_list_add(&f->demand, g);
            any = true;
        } else {
            get_end(g, 0);
        }
    }
    if (any)
        pool_wake(f);
    return next;
}
