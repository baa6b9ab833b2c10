/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Making room. One thread of one process at a time walks all cells twice: it counts what is there
 * (which puts the account right) and how long each segment was not used, then takes the oldest away
 * until there is room. Memory does not grow with the cache: ages are counted in classes.
 *
 * What this process saw used since it opened the cache is *protected* (cache.h says why): of that
 * goes one byte for each CACHE_ADMIT that were refused, and whatever a filling disk asks for.
 */
#include "cache/cache-internal.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

/* Room that is made: to this share below the limit, and for the largest write that was refused. */
#define ROOM_SHARE 8u
/* A pass that could not make it is not repeated sooner; and waits for so many times as long as it
 * took, so that a large cache that is full costs 5 % of a core. */
#define AGAIN_MS    1000
#define AGAIN_TIMES 20
/* Longer than this nothing is protected. */
#define PROTECT_S (24u * 3600u)
/* Half-made cells of dead processes. */
#define TEMP_AGE_S 3600
/* Ages fall into classes, four to an octave: 32 octaves are 136 years. */
#define CLASSES 132u

static unsigned age_class(uint32_t clock, uint32_t now)
{
    uint32_t age = clock < now ? now - clock : 0;

    if (age < 4)
        return age;
    unsigned octave = 31u - (unsigned)__builtin_clz(age);
    return octave * 4u - 4u + ((age >> (octave - 2u)) & 3u);
}

struct pass {
    struct cache *c;
    uint32_t now, protect_from;
    /* what was counted */
    uint64_t used, objects;
    uint64_t class_bytes[CLASSES];
    /* what is to be done */
    bool evicting, everything;
    unsigned class_min;            /* this age and older ones go */
    uint64_t goal, protected_goal; /* bytes that still have to go; of them, protected ones */
    uint64_t freed, protected_freed;
    bool stopped;
};

/* ---- one cell ---- */

/* What a pass learns of a cell before it does anything. */
struct segments {
    uint64_t count, going; /* in use; that the pass would take */
};

static bool is_protected(const struct pass *p, uint32_t clock)
{
    return clock >= p->protect_from && clock <= p->now;
}

struct survey {
    struct pass *pass;
    struct segments *segments;
    uint64_t in_class[CLASSES];
};

static int survey_segment(void *ctx, struct victim *v, uint64_t segment, uint32_t clock)
{
    struct survey *s = ctx;
    const struct pass *p = s->pass;

    if (clock > p->now) /* from a clock that was wrong: as old as can be */
        clock = 1;
    unsigned class = age_class(clock, p->now);
    s->in_class[class]++;
    s->segments->count++;
    s->segments->going += class >= p->class_min && !is_protected(p, clock);
    return 0;
}

static int survey(struct pass *p, struct victim *v, struct segments *ret)
{
    struct survey s = {.pass = p, .segments = ret};
    int r = victim_each_segment(v, survey_segment, &s);

    for (unsigned i = 0; r == 0 && !p->evicting && ret->count && i < CLASSES; i++)
        p->class_bytes[i] += v->bytes / ret->count * s.in_class[i];
    return r;
}

static int take_segment(void *ctx, struct victim *v, uint64_t segment, uint32_t clock)
{
    struct pass *p = ctx;

    clock = clock > p->now ? 1 : clock;
    bool guarded = is_protected(p, clock);

    if (p->goal == 0 || age_class(clock, p->now) < p->class_min ||
        (guarded && p->protected_goal == 0))
        return 0;
    int r = victim_evict_segment(v, segment);
    if (r < 0)
        return r;
    uint64_t left = victim_disk_bytes(v);
    uint64_t freed = left < v->bytes ? v->bytes - left : 0;
    v->bytes = left;
    p->freed += freed;
    p->goal = freed < p->goal ? p->goal - freed : 0;
    if (guarded) {
        p->protected_freed += freed;
        p->protected_goal = freed < p->protected_goal ? p->protected_goal - freed : 0;
    }
    return 0;
}

static void taken(struct pass *p, uint64_t freed)
{
    p->freed += freed;
    p->goal = freed < p->goal ? p->goal - freed : 0;
    p->objects--;
}

/* Take from this cell what is to go: all at once, where that is all of it. */
static int evict_from(struct pass *p, struct victim *v)
{
    struct segments s = {.count = 0};
    uint64_t freed = 0;

    if (victim_is_pinned(v))
        return 0;
    int r = survey(p, v, &s);
    if (r < 0)
        return r;
    if (s.count == 0 && v->is_fresh && !p->everything)
        return 0;
    if (p->everything || s.count == 0 || (s.going == s.count && v->bytes <= p->goal)) {
        r = victim_remove(v, &freed);
        if (r == 0)
            taken(p, freed);
        return r;
    }
    if (v->header.flags & CELL_PINNED) {
        /* Only as a whole: when the last use of it is that old. */
        if (s.going < s.count || p->goal == 0)
            return 0;
        r = victim_remove(v, &freed);
        if (r == 0)
            taken(p, freed);
        return r;
    }
    r = victim_each_segment(v, take_segment, p);
    if (r == -EOPNOTSUPP && s.going == s.count) { /* no holes on this file system */
        r = victim_remove(v, &freed);
        if (r == 0)
            taken(p, freed);
    }
    return r == -EOPNOTSUPP ? 0 : r;
}

int evict_file(int shard_fd, const char *name, uint64_t *ret_freed)
{
    AUTO(victim_close) struct victim v = VICTIM_NONE;
    int r = victim_open(shard_fd, name, &v);

    if (r < 0)
        return r;
    return victim_is_pinned(&v) ? -EBUSY : victim_remove(&v, ret_freed);
}

/* ---- walking ---- */

static int visit(struct pass *p, int shard_fd, const char *name)
{
    AUTO(victim_close) struct victim v = VICTIM_NONE;
    struct segments s = {.count = 0};
    int r = victim_open(shard_fd, name, &v);

    if (r == -EPROTO) { /* no cell: nobody can use it */
        cache_note_foreign(p->c);
        return unlinkat(shard_fd, name, 0) < 0 && errno != ENOENT && errno != EISDIR ? -errno : 0;
    }
    if (r < 0)
        return r == -ENOENT || r == -EACCES || r == -EISDIR || r == -ENXIO ? 0 : r;
    if (p->evicting)
        return evict_from(p, &v);
    p->used += v.bytes;
    p->objects++;
    r = survey(p, &v, &s);
    return r == -EPROTO ? 0 : r;
}

static void sweep_temp(int shard_fd, const char *name)
{
    struct stat st;

    if (fstatat(shard_fd, name, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
        st.st_mtime + TEMP_AGE_S < time(NULL))
        (void)unlinkat(shard_fd, name, 0); /* the next pass */
}

static int walk_shard(struct pass *p, const char *shard)
{
    struct digest ignored;
    struct dirent *e;
    int fd, r = cache_shard_open(p->c, shard, false, &fd);

    if (r < 0)
        return r == -ENOENT || r == -EPERM ? 0 : r;
    AUTO(close_dir) DIR *d = fdopendir(fd);
    if (!d) {
        (void)close(fd); /* read-only */
        return -ENOMEM;
    }
    while (r == 0 && (errno = 0, e = readdir(d)) != NULL) {
        if (atomic_load_explicit(&p->c->stop, memory_order_relaxed)) {
            p->stopped = true;
            return 0;
        }
        if (p->evicting && p->goal == 0)
            return 0;
        if (strncmp(e->d_name, ".new-", 5) == 0)
            sweep_temp(fd, e->d_name);
        else if (strncmp(e->d_name, shard, 2) == 0 && digest_from_hex(&ignored, e->d_name) == 0)
            r = visit(p, fd, e->d_name);
    }
    return r == 0 ? -errno : r;
}

static int walk(struct pass *p)
{
    char shard[3];
    int r = 0;

    for (unsigned i = 0; r == 0 && i < 256 && !p->stopped; i++) {
        (void)snprintf(shard, sizeof shard, "%02x", i);
        r = walk_shard(p, shard);
    }
    return r;
}

/* ---- a pass ---- */

/* How much has to go, and how old it must be. */
static void choose(struct pass *p)
{
    struct cache *c = p->c;
    WITH_LOCK(&c->account_lock);

    account_look(c);
    uint64_t used = account_used(c), limit = c->effective_limit, room = limit / ROOM_SHARE;
    room = room > c->room_wanted ? room : c->room_wanted;
    uint64_t low = room < limit ? limit - room : 0;
    c->room_wanted = 0;
    p->goal = used > low ? used - low : 0;
    p->protected_goal = (c->refused - c->refused_spent) / CACHE_ADMIT;
    if (p->protected_goal < CACHE_SEGMENT) /* saved up: less cannot be taken */
        p->protected_goal = 0;
    if (used > limit && p->protected_goal < used - limit)
        p->protected_goal = used - limit;
    uint64_t sum = 0;
    p->class_min = CLASSES;
    while (p->class_min > 0 && sum < p->goal)
        sum += p->class_bytes[--p->class_min];
}

int evict_pass(struct cache *c)
{
    AUTO(free_ptr) struct pass *p = calloc(1, sizeof *p);

    if (!p)
        return -ENOMEM;
    int r = account_lock_eviction(c);
    if (r < 0)
        return r;
    int64_t began_ms = cache_now_ms(c);
    p->c = c;
    p->now = cache_now_s(c);
    p->protect_from = c->opened_s + 1;
    if (p->now > PROTECT_S && p->protect_from < p->now - PROTECT_S)
        p->protect_from = p->now - PROTECT_S;
    r = walk(p);
    if (r == 0 && !p->stopped) {
        account_set(c, p->used, p->objects);
        choose(p);
        p->evicting = true;
        uint64_t goal = p->goal, objects = p->objects;
        if (goal)
            r = walk(p);
        account_add(c, -(int64_t)p->freed, (int64_t)p->objects - (int64_t)objects);
        WITH_LOCK(&c->account_lock);
        c->evicted += p->freed;
        c->refused_spent += p->protected_freed * CACHE_ADMIT;
        if (c->refused_spent > c->refused)
            c->refused_spent = c->refused;
        int64_t now_ms = cache_now_ms(c), again_ms = (now_ms - began_ms) * AGAIN_TIMES;
        c->evict_next_ms = p->goal ? now_ms + (again_ms > AGAIN_MS ? again_ms : AGAIN_MS) : 0;
        if (p->freed && (c->failure == -ENOSPC || c->failure == -EDQUOT))
            c->failure_retry_ms = 0; /* there is room again: worth a try */
    }
    account_unlock_eviction(c);
    return r;
}

int evict_all(struct cache *c, uint64_t *ret_freed)
{
    AUTO(free_ptr) struct pass *p = calloc(1, sizeof *p);

    if (!p)
        return -ENOMEM;
    p->c = c;
    p->now = cache_now_s(c);
    p->evicting = p->everything = true;
    p->goal = UINT64_MAX;
    int r = walk(p);
    account_add(c, -(int64_t)p->freed, (int64_t)p->objects);
    *ret_freed = p->freed;
    return r;
}

/* ---- the thread ---- */

static void *evictor(void *arg)
{
    struct cache *c = arg;

    pthread_mutex_lock(&c->account_lock);
    while (!c->closing) {
        int64_t wait = c->evict_next_ms - cache_now_ms(c);
        if (!c->evict_wanted) {
            pthread_cond_wait(&c->evict_wake, &c->account_lock);
        } else if (wait > 0) {
            struct timespec until;
            (void)clock_gettime(CLOCK_REALTIME, &until); /* cannot fail */
            wait = wait < AGAIN_MS ? wait : AGAIN_MS;
            until.tv_nsec += wait * 1000000;
            until.tv_sec += until.tv_nsec / 1000000000;
            until.tv_nsec %= 1000000000;
            pthread_cond_timedwait(&c->evict_wake, &c->account_lock, &until);
        } else {
            c->evict_wanted = false;
            pthread_mutex_unlock(&c->account_lock);
            int r = evict_pass(c);
            pthread_mutex_lock(&c->account_lock);
            if (r < 0) { /* another process is at it, or the disk fails */
                c->evict_wanted = true;
                c->evict_next_ms = cache_now_ms(c) + AGAIN_MS;
            }
        }
    }
    pthread_mutex_unlock(&c->account_lock);
    return NULL;
}

void evict_wake(struct cache *c)
{
    sigset_t all, before;

    c->evict_wanted = true;
    if (!c->evictor_runs && !c->closing) {
        (void)sigfillset(&all);
        (void)pthread_sigmask(SIG_BLOCK, &all, &before); /* signals are for others */
        c->evictor_runs = pthread_create(&c->evictor, NULL, evictor, c) == 0;
        (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    }
    pthread_cond_signal(&c->evict_wake);
}

void evict_stop(struct cache *c)
{
    bool runs;

    {
        WITH_LOCK(&c->account_lock);
        c->closing = true;
        atomic_store(&c->stop, true);
        runs = c->evictor_runs;
        pthread_cond_signal(&c->evict_wake);
    }
    if (runs)
        (void)pthread_join(c->evictor, NULL); /* ends at the next file */
}
