/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The store as one actor sees it: every call yields, and may fail in all the ways that A1 to A3
 * allow.
 *
 *   lost before   nothing happened, and the answer says "unknown"
 *   lost after    it took effect, and the answer says "unknown"
 *   taken         a put took effect, and the answer says "taken": somebody below had tried it twice
 *   late          it takes effect at some later time, or never, and the answer says "unknown"
 *   refused       nothing happened, and the answer says so (no space)
 *   page          a listing is no snapshot: others may write between two pages of it
 */
#include "sim.h"

#include <string.h>

enum fate { FATE_FINE, FATE_LOST_BEFORE, FATE_LOST_AFTER, FATE_TAKEN, FATE_LATE, FATE_REFUSED };

static struct actor *actor_of(struct store *s)
{
    return (struct actor *)((char *)s - offsetof(struct actor, wire));
}

static enum fate draw(struct sim *sim, bool is_put)
{
    if (!rng_chance(&sim->rng, sim->fault_per_mille))
        return FATE_FINE;
    sim->stats.lost++;
    switch (rng_below(&sim->rng, is_put ? 8 : 2)) {
    case 0:
        return FATE_LOST_BEFORE;
    case 1:
    case 2:
        return FATE_LOST_AFTER;
    case 3:
        return FATE_TAKEN;
    case 4:
    case 5:
    case 6:
        return FATE_LATE;
    default:
        return rng_chance(&sim->rng, 300) ? FATE_REFUSED : FATE_LOST_AFTER;
    }
}

static int doubt(struct sim *sim)
{
    return rng_chance(&sim->rng, 500) ? -EIO : -ETIMEDOUT;
}

static const char *fate_name(enum fate f)
{
    static const char *const names[] = {[FATE_FINE] = "",
                                        [FATE_LOST_BEFORE] = " lost before",
                                        [FATE_LOST_AFTER] = " lost after",
                                        [FATE_TAKEN] = " \"taken\"",
                                        [FATE_LATE] = " late",
                                        [FATE_REFUSED] = " refused"};
    return names[f];
}

static void log_call(struct actor *a, const char *call, const char *key, enum fate f)
{
    sim_log(a->sim, "%s %d %s %s%s", a->role, a->number, call, key, fate_name(f));
}

static void take_off(struct sim *sim, const char *key, struct bytes body, bool removal)
{
    struct flight f = {.key = strdup(key), .body = BUF_INIT(body.size + 1), .removal = removal};

    if (!f.key || (body.size && buf_append(&f.body, body.data, body.size) < 0) ||
        vec_push(&sim->flights, f) < 0)
        abort();
}

static int put_now(struct sim *sim, const char *key, struct bytes body)
{
    int r = store_put_if_absent(sim->raw, key, body);

    if (r == 0 && sim->watch)
        watch_put(sim, key, body);
    return r;
}

static int remove_now(struct sim *sim, const char *key)
{
    if (sim->watch)
        watch_remove(sim, key);
    return store_remove(sim->raw, key);
}

void sim_land(struct sim *sim)
{
    size_t i = rng_below(&sim->rng, sim->flights.count);
    struct flight f = sim->flights.at[i];

    sim->flights.at[i] = sim->flights.at[--sim->flights.count];
    if (rng_chance(&sim->rng, 300)) {
        sim->stats.never++;
        sim_log(sim, "%s never lands", f.key);
    } else {
        int r = f.removal ? remove_now(sim, f.key) : put_now(sim, f.key, buf_bytes(&f.body));
        sim->stats.late++;
        sim_log(sim, "%s lands late: %d", f.key, r);
    }
    free(f.key);
    buf_release(&f.body);
}

/* I6: no object of a session before its registration. */
static void watch_order(struct actor *a, const char *key)
{
    char session[64];

    if (strchr("pxm", key[0]) && key[1] == '/') {
        (void)snprintf(session, sizeof session, "s/%.32s/i", key + 2);
        if (!sim_exists(a->sim, session) && !(a->sim->watch && watch_has_seen(a->sim, session)))
            sim_violation(a->sim, "%s is written before its session is registered (I6)", key);
    }
    if (key[0] == 's' && strcmp(key + strlen(key) - 2, "/i") == 0)
        a->registered_step = a->sim->steps;
}

static int sim_put_if_absent(struct store *s, const char *key, struct bytes body)
{
    struct actor *a = actor_of(s);
    struct sim *sim = a->sim;
    int r = 0;

    sim_yield(a);
    if (a->dead)
        return -EIO;
    enum fate f = draw(sim, true);
    log_call(a, "puts", key, f);
    watch_order(a, key);
    if (f == FATE_LATE)
        take_off(sim, key, body, false);
    else if (f != FATE_LOST_BEFORE && f != FATE_REFUSED)
        r = put_now(sim, key, body);
    sim_yield(a);
    if (a->dead)
        return -EIO;
    switch (f) {
    case FATE_FINE:
        return r;
    case FATE_TAKEN:
        return -EEXIST;
    case FATE_REFUSED:
        return -ENOSPC;
    default:
        return doubt(sim);
    }
}

static int sim_get(struct store *s, const char *key, uint64_t offset, void *data, size_t size,
                   size_t *ret_size, uint64_t *ret_length)
{
    struct actor *a = actor_of(s);

    sim_yield(a);
    if (a->dead)
        return -EIO;
    enum fate f = draw(a->sim, false);
    log_call(a, "gets", key, f);
    int r = store_get(a->sim->raw, key, offset, data, size, ret_size, ret_length);
    sim_yield(a);
    if (a->dead)
        return -EIO;
    return f == FATE_FINE ? r : doubt(a->sim);
}

/* A few rows, copied, so that others may write before the next few. */
struct page {
    struct sim *sim;
    struct store_entry rows[8];
    char keys[8][STORE_KEY_MAX + 1];
    unsigned count, max;
};

static int take_row(void *ctx, const struct store_entry *entry)
{
    struct page *p = ctx;

    if (p->count == p->max)
        return 1;
    p->rows[p->count] = *entry;
    (void)snprintf(p->keys[p->count], sizeof p->keys[0], "%s", entry->key); /* fits */
    p->rows[p->count].key = p->keys[p->count];
    if (p->sim->watch && !entry->is_prefix)
        p->rows[p->count].mtime_ms = watch_mtime(p->sim, entry->key);
    p->count++;
    return 0;
}

static int sim_list(struct store *s, const char *prefix, const struct store_list_options *options,
                    store_list_fn *fn, void *ctx, int64_t *ret_now_ms)
{
    struct actor *a = actor_of(s);
    struct store_list_options rest = *options;
    char last[STORE_KEY_MAX + 1];

    sim_yield(a);
    if (a->dead)
        return -EIO;
    enum fate f = draw(a->sim, false);
    log_call(a, "lists", prefix, f);
    if (strcmp(prefix, "g/") == 0)
        a->rounds_step = a->sim->steps;
    if (ret_now_ms) /* A4: half a second of error */
        *ret_now_ms = a->sim->now_ms - 500 + (int64_t)rng_below(&a->sim->rng, 1000);
    if (f == FATE_LOST_BEFORE)
        return doubt(a->sim);
    for (;;) {
        struct page page = {.sim = a->sim, .max = a->sim->page_rows};
        int r = store_list(a->sim->raw, prefix, &rest, take_row, &page, NULL);
        if (r < 0)
            return r;
        for (unsigned i = 0; i < page.count; i++) {
            int stop = fn(ctx, &page.rows[i]);
            if (stop)
                return stop;
        }
        if (page.count < page.max)
            break;
        memcpy(last, page.keys[page.count - 1], sizeof last);
        rest.start_after = last;
        sim_yield(a);
        if (a->dead)
            return -EIO;
    }
    return f == FATE_FINE ? 0 : doubt(a->sim);
}

static int sim_remove(struct store *s, const char *key)
{
    struct actor *a = actor_of(s);

    sim_yield(a);
    if (a->dead)
        return -EIO;
    enum fate f = draw(a->sim, false);
    log_call(a, "removes", key, f);
    if (f == FATE_LOST_BEFORE) {
        take_off(a->sim, key, (struct bytes){NULL, 0}, true);
        return doubt(a->sim);
    }
    int r = remove_now(a->sim, key);
    return f == FATE_FINE ? r : doubt(a->sim);
}

static void sim_close(struct store *s)
{
    /* the connection is a part of its actor */
}

const struct store_ops sim_store_ops = {
    .kind = "sim",
    .put_if_absent = sim_put_if_absent,
    .get = sim_get,
    .list = sim_list,
    .remove = sim_remove,
    .close = sim_close,
};
