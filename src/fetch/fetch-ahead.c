/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading ahead: what reads so far make likely.
 *
 *   - The first miss in a segment (1 MiB) reads just what is asked for. At the second one the rest
 *     of the segment is read; inside a large file only after many, since random reads of it say
 *     nothing about what lies beside them.
 *   - A reader that goes on in order has a window behind it, which doubles as it is used up, across
 *     the borders of files and packs.
 *   - When enough of a version was read and it fits, the rest is read in the background.
 *
 * Everything here is done by threads of the pool and gives way to demands. On a store of this
 * machine's disk only readers in order are read ahead of: the rest the kernel does.
 */
#include "fetch/fetch-internal.h"

#include "cache/cache.h"

#define SEGMENT (1u << 20)
/* Misses in a segment of a large file before the rest of it is read: half of its leaves. */
#define LARGE_MISSES 8u
/* Readers in order: requests of the kernel come out of order by so much; of small files some are
 * left out. */
#define SLACK       (512u << 10)
#define SLACK_LARGE (192u << 10)
/* Of a reader who is believed, the more the further reading ahead has come: the kernel asks for a
 * megabyte at a time, several at once, and threads answer them as they come. */
#define SLACK_MAX (4u << 20)
/* Steps in order, and bytes, before a reader is believed: a small file that is read by itself, with
 * what the kernel reads behind it, is no order. */
#define STEPS    2u
#define BELIEVED (384u << 10)
/* A window that only a reader gets who has gone on for some time. */
#define FIRM (4u * SEGMENT)
/* A reader in order that was heard of so long ago has gone. */
#define IDLE_US INT64_C(100000)
/* Of all gets under way; the others are for demands. */
#define RUNNING_AHEAD_MAX 40u
/* Pages of a table that are read at once. */
#define PAGES_AT_ONCE 32u
/* The rest of a version is read when one segment in so many was touched, of this many at least. */
#define FILL_SHARE 32u
#define FILL_LEAST 16u

static uint64_t end_of(const struct fetch_object *o)
{
    return o->summary.data_size;
}

void ahead_wake(struct fetch *f)
{
    if (f->prefetch == FETCH_PREFETCH_NONE || f->stopping)
        return;
    f->ahead_work = true;
    pool_wake(f);
}

/* ---- what was touched ---- */

static void add_span(struct fetch *f, struct fetch_object *o, uint64_t at, uint64_t end)
{
    struct span *s = &f->spans[f->span_next++ % SPANS];

    /* One that is pushed out was asked for long ago. */
    *s = (struct span){.object = o, .at = at, .end = end < end_of(o) ? end : end_of(o)};
    ahead_wake(f);
}

static bool is_large(const struct fetch_hint *hint)
{
    return hint && hint->end - hint->start > SEGMENT;
}

/* A miss. True: enough of its segment to count as touched: one read in it, but inside a large file,
 * where random reads are no sign that all of it will be read, those that have the rest read. */
static bool touch_segment(struct fetch_object *o, uint64_t offset, const struct fetch_hint *hint)
{
    uint64_t segment = offset / SEGMENT;
    unsigned wanted = is_large(hint) ? LARGE_MISSES : 2;

    if (!o->touches)
        o->touches = calloc(end_of(o) / SEGMENT + 1, 1);
    if (!o->touches || o->touches[segment] == UINT8_MAX)
        return false;
    if (++o->touches[segment] == wanted) {
        add_span(o->fetch, o, segment * SEGMENT, (segment + 1) * SEGMENT);
        o->touches[segment] = UINT8_MAX;
        return wanted > 2;
    }
    return wanted == 2 && o->touches[segment] == 1;
}

static void touch_series(struct fetch_series *s)
{
    uint64_t segments = s->total_bytes / SEGMENT + 1;

    s->touched++;
    if (!s->fits || s->filling || s->touched < FILL_LEAST || s->touched < segments / FILL_SHARE)
        return;
    s->filling = true;
    ahead_wake(s->fetch);
}

/* ---- readers in order ---- */

static bool is_near(uint64_t offset, const struct stream *s, uint64_t slack)
{
    uint64_t place = s->next;

    if (s->window >= FIRM)
        slack = s->window < SLACK_MAX ? s->window : SLACK_MAX;
    return offset + slack >= place && offset <= place + slack;
}

/* The reader has come to the object behind its own, where it was expected. */
static bool has_come_to(const struct stream *s, const struct fetch_object *o)
{
    return s->object && s->span.object != s->object && o->series &&
           o->series == s->object->series && o->number == s->object->number + 1;
}

/* The reader who goes on here; or a place for a new one. */
static struct stream *find_stream(struct fetch_object *o, uint64_t offset, uint64_t slack)
{
    struct fetch *f = o->fetch;
    struct stream *oldest = &f->streams[0];

    for (unsigned i = 0; i < STREAMS; i++) {
        struct stream *s = &f->streams[i];
        if (s->object == o && is_near(offset, s, slack))
            return s;
        if (offset <= SLACK && has_come_to(s, o)) {
            s->between -= s->span.object == o ? 0 : end_of(o);
            s->object = o;
            s->next = offset;
            return s;
        }
        if (s->used < oldest->used)
            oldest = s;
    }
    *oldest = (struct stream){.object = o, .next = offset};
    return oldest;
}

/* How far ahead of the reader reading has come. */
static uint64_t distance(const struct stream *s)
{
    if (s->span.object == s->object)
        return s->span.at > s->next ? s->span.at - s->next : 0;
    return s->span.object ? end_of(s->object) - s->next + s->between + s->span.at : 0;
}

static uint64_t window_max(const struct fetch *f)
{
    int64_t now = fetch_now_us();
    unsigned active = 0;

    for (unsigned i = 0; i < STREAMS; i++)
        active += f->streams[i].window >= FIRM && now - f->streams[i].used_us < IDLE_US;
    uint64_t share = f->ahead_max / (active > 1 ? active : 1);
    return share > SEGMENT ? share : SEGMENT;
}

static void touch_stream(struct fetch_object *o, uint64_t offset, uint64_t size, bool large)
{
    struct fetch *f = o->fetch;
    struct stream *s = find_stream(o, offset, large ? SLACK_LARGE : SLACK);

    s->used = ++f->touches;
    s->used_us = fetch_now_us();
    if (s->window > FIRM)
        f->stream_us = s->used_us;
    if (offset + size <= s->next)
        return;
    s->run += offset + size - s->next;
    s->next = offset + size;
    if (++s->steps < STEPS || s->run < BELIEVED)
        return;
    if (s->window == 0) {
        s->window = SEGMENT;
        s->span = (struct span){.object = o, .at = s->next};
    } else if (distance(s) > s->window / 2) {
        return;
    } else {
        uint64_t most = window_max(f);
        s->window = 2 * s->window < most ? 2 * s->window : most;
    }
    if (s->span.object == o && s->span.at < s->next)
        s->span.at = s->next;
    ahead_wake(f);
}

void ahead_touch(struct fetch_object *o, uint64_t offset, uint64_t size,
                 const struct fetch_hint *hint, bool missed)
{
    struct fetch *f = o->fetch;

    if (f->prefetch == FETCH_PREFETCH_NONE || o->linked)
        return;
    if (missed && !f->quick && touch_segment(o, offset, hint) && o->series)
        touch_series(o->series);
    /* What a plan wants is touched again when it is here. */
    if (!missed && o->kind == PACK_KIND_DATA)
        touch_stream(o, offset, size, is_large(hint));
}

void fetch_ahead(struct fetch_object *o, uint64_t offset, uint64_t size, uint64_t leaf_hint)
{
    struct fetch *f = o->fetch;
    struct get_list gets = {.first = NULL};
    struct place p;
    struct need need;

    /* It shall not push everything else out. */
    if (f->prefetch == FETCH_PREFETCH_NONE || f->quick || o->linked || size > f->memory.limit / 8)
        return;
    {
        WITH_LOCK(&f->lock);
        add_span(f, o, offset, offset + size);
        if (leaf_hint != FETCH_NO_HINT && table_find(o, offset, &p, &need) == 0)
            (void)plan_table(o, &need, leaf_hint, NULL, true, &gets); /* else one by one */
    }
    gets_begin(f, &gets);
}

/* ---- from spans to gets ---- */

/* Pages from `number` on that nobody has or reads, as one get. */
static int want_pages(struct fetch_object *o, uint32_t number, struct get_list *gets)
{
    struct memory *m = &o->fetch->memory;
    uint32_t end = number + PAGES_AT_ONCE;
    struct get *g = NULL;

    end = end < table_page_count(o) ? end : table_page_count(o);
    for (; number < end; number++) {
        struct memory_key key = fetch_key(o, MEMORY_PAGE, number);
        struct place p = {.start = table_page_offset(o, number), .length = PACK_PAGE};
        if (memory_find(m, &key))
            break;
        if (!g) {
            g = get_new(o, GET_PAGES, p.start, 0);
            if (!g)
                return -ENOMEM;
            g->ahead = true;
            get_list_add(gets, g);
        }
        struct memory_entry *e = memory_claim(m, &key);
        if (!e)
            return -ENOMEM;
        if (get_add(g, e, &p) < 0) {
            memory_give_up(m, e);
            return -ENOMEM;
        }
    }
    return 0;
}

static int want_table(struct fetch_object *o, const struct need *need, struct get_list *gets)
{
    return need->kind == MEMORY_PAGE ? want_pages(o, need->number, gets)
                                     : plan_table(o, need, FETCH_NO_HINT, NULL, true, gets);
}

static bool add_leaf(struct get **g, struct fetch_object *o, const struct place *p)
{
    struct memory *m = &o->fetch->memory;
    struct memory_key key = leaf_key(o, p->start);

    if (!*g)
        *g = get_new(o, GET_DATA, p->start, 0);
    struct memory_entry *e = *g ? memory_claim(m, &key) : NULL;
    if (!e)
        return false;
    if (get_add(*g, e, p) < 0) {
        memory_give_up(m, e);
        return false;
    }
    e->ahead = true;
    return true;
}

/* The next get for [*at, end), at most `most` bytes; *at goes behind it. `skip_disk`: what the disk
 * has may stay there. NULL: there is nothing more to do (then *at is `end`), or the table has to
 * come first (`tables` begin it). */
static struct get *next_get(struct fetch_object *o, uint64_t *at, uint64_t end, uint64_t most,
                            bool skip_disk, struct get_list *tables)
{
    struct get *g = NULL;
    struct place p;
    struct need need;

    while (*at < end) {
        int r = table_find(o, *at, &p, &need);
        if (r == 0 && !g && want_table(o, &need, tables) == 0)
            return NULL;
        if (r < 0 && !g)
            *at = end;
        if (r <= 0)
            break;
        struct memory_key key = leaf_key(o, p.start);
        uint64_t next = p.start + pack_blocks(p.length) * PACK_BLOCK;
        bool there = memory_find(&o->fetch->memory, &key) != NULL ||
                     (skip_disk && o->disk && cache_missing(o->disk, p.start, next) >= next);
        if (there && g)
            break;
        if (!there && ((g && p.start - g->offset + p.length > most) || !add_leaf(&g, o, &p)))
            break;
        *at = next;
    }
    if (g && g->count == 0) {
        get_end(g, 0);
        g = NULL;
    }
    return g;
}

/* What reads ahead: its place in the order, too. */
enum ahead { AHEAD_SEGMENT, AHEAD_STREAM, AHEAD_FILL };

/* Begin one get of a span. With the lock, given up meanwhile. False: there is no room. */
static bool begin_get(struct fetch *f, struct span *s, uint64_t end, uint64_t most, enum ahead why)
{
    struct fetch_object *o = s->object;
    struct get_list tables = {.first = NULL};
    uint64_t before = s->at;
    struct get *g = next_get(o, &s->at, end, most, why != AHEAD_STREAM, &tables);

    if (g) {
        g->ahead = true;
        g->fill = why == AHEAD_FILL && o->disk;
        if (!get_may_start(g)) {
            s->at = before;
            get_end(g, 0);
            return false;
        }
    }
    s->waits = !g && s->at < end;
    pthread_mutex_unlock(&f->lock);
    gets_begin(f, &tables);
    if (g)
        get_start(g);
    pthread_mutex_lock(&f->lock);
    return true;
}

/* ---- series ---- */

int fetch_series_new(struct fetch *f, uint32_t count, uint64_t total_bytes, fetch_open_fn *open,
                     void *ctx, struct fetch_series **ret)
{
    struct fetch_series *s = calloc(1, sizeof *s);
    struct cache_usage usage = {.used_bytes = 0};
    uint64_t room = f->memory.limit / 2;

    if (!s)
        return -ENOMEM;
    if (f->cache && cache_usage(f->cache, &usage) == 0 && !usage.failing)
        room = usage.limit_bytes;
    *s = (struct fetch_series){.fetch = f,
                               .count = count,
                               .total_bytes = total_bytes,
                               .open = open,
                               .ctx = ctx,
                               .fits = !f->quick && total_bytes <= room};
    WITH_LOCK(&f->lock);
    s->next = f->series;
    f->series = s;
    if (f->prefetch == FETCH_PREFETCH_ALL && s->fits) {
        s->filling = true;
        ahead_wake(f);
    }
    *ret = s;
    return 0;
}

void fetch_series_free(struct fetch_series *s)
{
    if (!s)
        return;
    struct fetch *f = s->fetch;
    {
        WITH_LOCK(&f->lock);
        while (s->opening)
            (void)pthread_cond_wait(&f->opened, &f->lock); /* a valid condition */
        struct fetch_series **at = &f->series;
        while (*at != s)
            at = &(*at)->next;
        *at = s->next;
        WITH_LOCK(&f->objects_lock);
        for (struct fetch_object *o = f->objects; o; o = o->next) {
            if (o->series == s)
                o->series = NULL;
        }
    }
    free(s);
}

void fetch_object_in_series(struct fetch_object *o, struct fetch_series *s, uint32_t i)
{
    WITH_LOCK(&o->fetch->lock);

    o->series = s;
    o->number = i;
}

/* The object with that number; NULL: there is none. The lock is given up meanwhile. */
static struct fetch_object *open_number(struct fetch *f, struct fetch_series *s, uint32_t i)
{
    if (i >= s->count)
        return NULL;
    s->opening++;
    pthread_mutex_unlock(&f->lock);
    struct fetch_object *o = s->open(s->ctx, i);
    pthread_mutex_lock(&f->lock);
    s->opening--;
    (void)pthread_cond_broadcast(&f->opened); /* a valid condition */
    return o && o->linked ? NULL : o;
}

/* ---- a step ---- */

static bool step_spans(struct fetch *f, bool *ret_full)
{
    for (unsigned i = 0; i < SPANS; i++) {
        struct span *s = &f->spans[(f->span_next + i) % SPANS];
        if (!s->object || s->waits)
            continue;
        if (s->at >= s->end) {
            s->object = NULL;
            continue;
        }
        *ret_full = !begin_get(f, s, s->end, f->ahead_get, AHEAD_SEGMENT);
        return !*ret_full;
    }
    return false;
}

/* A stream's reading goes on in the next object. False: there is none, or it is known. */
static bool cross_border(struct fetch *f, struct stream *s)
{
    struct fetch_object *o = s->span.object, *next = NULL;

    if (s->span.at < end_of(o) || !o->series || s->no_next)
        return false;
    next = open_number(f, o->series, o->number + 1);
    if (s->span.object != o || s->span.at < end_of(o))
        return true; /* somebody else took the place meanwhile: look again */
    s->no_next = !next;
    if (next) {
        s->between += o == s->object ? 0 : end_of(o);
        s->span = (struct span){.object = next};
    }
    return next != NULL;
}

static bool step_streams(struct fetch *f, bool *ret_full)
{
    for (unsigned i = 0; i < STREAMS; i++) {
        struct stream *s = &f->streams[i];
        struct fetch_object *o = s->span.object;
        if (!o || s->window == 0 || s->span.waits || distance(s) >= s->window)
            continue;
        if (s->span.at >= end_of(o)) {
            if (cross_border(f, s))
                return true;
            continue;
        }
        uint64_t room = s->window - distance(s), most = s->window / 16;
        uint64_t end = s->span.at + room < end_of(o) ? s->span.at + room : end_of(o);
        most = most < GET_AHEAD_MIN ? GET_AHEAD_MIN : most;
        most = most < f->ahead_get ? most : f->ahead_get;
        /* Full gets only, but for the first one and the end. */
        if (end - s->span.at < most && end < end_of(o) && s->window > SEGMENT)
            continue;
        *ret_full = !begin_get(f, &s->span, end, most, AHEAD_STREAM);
        return !*ret_full;
    }
    return false;
}

int64_t ahead_due(struct fetch *f)
{
    int64_t now = fetch_now_us();

    if (f->fill_us == 0)
        return INT64_MAX;
    if (f->fill_us > now)
        return f->fill_us;
    f->fill_us = 0;
    ahead_wake(f);
    return INT64_MAX;
}

/* Readers in order go first: what is filled in is read and verified again when it is asked for. */
static bool fill_may_run(struct fetch *f)
{
    if (disk_is_behind(f)) /* which wakes us */
        return false;
    if (fetch_now_us() - f->stream_us >= IDLE_US)
        return true;
    f->fill_us = f->stream_us + IDLE_US;
    pool_keep_time(f);
    return false;
}

static bool step_fill(struct fetch *f, bool *ret_full)
{
    for (struct fetch_series *s = f->series; s; s = s->next) {
        if (!s->filling || s->fill.waits)
            continue;
        if (!fill_may_run(f))
            return false;
        if (s->fill.object && s->fill.at < end_of(s->fill.object)) {
            *ret_full = !begin_get(f, &s->fill, end_of(s->fill.object), f->ahead_get, AHEAD_FILL);
            return !*ret_full;
        }
        uint32_t number = s->fill_number;
        if (number >= s->count) {
            s->filling = false;
            continue;
        }
        struct fetch_object *o = open_number(f, s, number);
        if (s->fill_number == number) {
            s->fill = (struct span){.object = o};
            s->fill_number++;
        }
        return true;
    }
    return false;
}

bool ahead_step(struct fetch *f)
{
    bool full = f->running_ahead >= f->ahead_max || f->running >= RUNNING_AHEAD_MAX ||
                (f->store_error != 0 && !f->quick);

    if (!full && (step_spans(f, &full) || (!full && step_streams(f, &full)) ||
                  (!full && step_fill(f, &full))))
        return true;
    f->ahead_work = false; /* until room is made, a table comes, or somebody reads */
    return false;
}

static void table_came(struct span *s, const struct fetch_object *o)
{
    if (s->object == o)
        s->waits = false;
}

void ahead_table(struct fetch_object *o)
{
    struct fetch *f = o->fetch;

    for (unsigned i = 0; i < SPANS; i++)
        table_came(&f->spans[i], o);
    for (unsigned i = 0; i < STREAMS; i++)
        table_came(&f->streams[i].span, o);
    for (struct fetch_series *s = f->series; s; s = s->next)
        table_came(&s->fill, o);
    ahead_wake(f);
}

void ahead_forget(struct fetch *f, const struct fetch_object *o)
{
    for (unsigned i = 0; i < SPANS; i++) {
        if (f->spans[i].object == o)
            f->spans[i].object = NULL;
    }
    for (unsigned i = 0; i < STREAMS; i++) {
        if (f->streams[i].object == o || f->streams[i].span.object == o)
            f->streams[i] = (struct stream){.object = NULL};
    }
    for (struct fetch_series *s = f->series; s; s = s->next) {
        if (s->fill.object == o)
            s->fill.object = NULL;
    }
}
