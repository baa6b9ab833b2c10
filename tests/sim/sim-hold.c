/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Programs that hold, delete and collect versions, and publishers that name old packs again. Times
 * of leases are short here, so that runs see many; what they mean to each other is as it is.
 */
#include "sim.h"

#include <stdio.h>

/* Margin: more than the error of the store's clocks. */
static const struct hold_times times = {.ttl_ms = 10000, .renew_ms = 2000, .margin_ms = 2500};

struct pick {
    struct actor *a;
    int name;
    uint32_t count;
    struct version_info v;
};

/* Any succeeded version, all equally likely. */
static int pick_version(void *ctx, const struct version_info *v)
{
    struct pick *p = ctx;

    if (v->status == VERSION_SUCCEEDED && rng_below(&p->a->rng, ++p->count) == 0)
        p->v = *v;
    return 0;
}

static bool pick(struct actor *a, struct catalogue *c, int name, struct version_info *ret)
{
    struct pick p = {.a = a, .name = name};

    if (catalogue_list(c, sim_names[name], pick_version, &p, NULL) < 0 || !p.count || a->dead)
        return false;
    *ret = p.v;
    return true;
}

void sim_reuse_packs(struct actor *a, struct catalogue *c, struct upload *u, int name,
                     struct manifest *m)
{
    AUTO(manifest_release) struct manifest old = {0};
    struct version_info v;

    if (!rng_chance(&a->rng, a->sim->storm ? 950 : 700) || !pick(a, c, name, &v) ||
        catalogue_manifest(c, &v, &old, NULL) < 0)
        return;
    struct object_ref *packs =
        realloc(m->packs, (m->pack_count + old.pack_count) * sizeof *m->packs);
    if (!packs)
        abort();
    m->packs = packs;
    for (uint32_t i = 0; i < old.pack_count; i++) {
        if (!upload_may_reuse(u, &old.packs[i]))
            continue;
        m->packs[m->pack_count++] = old.packs[i];
        a->sim->stats.reused++;
    }
}

/* ---- holders ---- */

static bool is_gone(void *ctx, const struct hold_process *p)
{
    const struct actor *a = ctx;
    const struct actor *holder = &a->sim->actors[p->pid];

    return holder->dead || holder->done;
}

static void hold_a_while(struct actor *a, const struct version_info *v)
{
    int ticks = 1 + (int)rng_below(&a->rng, 20);
    uint64_t id[4];
    int jobs = 0;

    a->sim->stats.held++;
    for (int i = 0; i < ticks && !a->dead; i++) {
        int64_t wait = hold_tick(a->hold);
        watch_belief(a->sim, a);
        if (a->dead || wait == INT64_MAX)
            break;
        if (jobs < 4 && rng_chance(&a->rng, 300) &&
            hold_join(a->hold, &(struct hold_job){.text = "job", .pid = i}, &id[jobs]) == 0)
            jobs++;
        else if (jobs && rng_chance(&a->rng, 300))
            hold_leave(a->hold, id[--jobs]);
        a->env.sleep_ms(&a->env, wait ? (int64_t)rng_below(&a->rng, (uint64_t)wait + 100) : 1);
        watch_belief(a->sim, a);
    }
    if (!a->dead && hold_look(a->hold, NULL) == HOLD_LOST)
        a->sim->stats.lost_leases++;
}

void holder_main(struct actor *a)
{
    AUTO(catalogue_close) struct catalogue *c = sim_open_catalogue(a);
    struct hold_process self = {.host = "sim", .boot_id = "sim", .pid = a->number};
    struct hold_options options = {.times = times, .self = &self, .text = "run"};

    for (int i = 0; c && i < 8 && !a->dead; i++) {
        int name = rng_chance(&a->rng, 200);
        struct hold *h = NULL;
        struct version_info v;
        a->env.sleep_ms(&a->env, (int64_t)rng_below(&a->rng, 2000));
        if (!pick(a, c, name, &v) || hold_begin(c, v.name, v.version, &options, &h, NULL) < 0)
            continue;
        a->held_name = name;
        a->held_version = v.version;
        a->hold = h;
        watch_belief(a->sim, a);
        hold_a_while(a, &v);
        a->hold = NULL;
        hold_end(h);
    }
}

/* ---- deleters ---- */

static bool while_waiting(void *ctx, const struct holder *holder, int64_t left_ms)
{
    struct actor *a = ctx;

    return !a->dead && !rng_chance(&a->rng, 20);
}

void deleter_main(struct actor *a)
{
    AUTO(catalogue_close) struct catalogue *c = sim_open_catalogue(a);
    struct sim *sim = a->sim;

    for (int i = 0; c && i < (sim->storm ? 8 : 6) && !a->dead; i++) {
        struct delete_options options = {
            .times = times, .waiting = while_waiting, .is_gone = is_gone, .ctx = a};
        struct delete_report report;
        struct version_info v;
        int name = !sim->storm && rng_chance(&a->rng, 200);
        a->env.sleep_ms(&a->env, (int64_t)rng_below(&a->rng, sim->storm ? 1000 : 3000));
        if (!pick(a, c, name, &v))
            continue;
        struct deletion_note note = {.name = name, .version = v.version};
        size_t place = sim->deletions.count;
        if (vec_push(&sim->deletions, note) < 0)
            abort();
        int r = catalogue_delete(c, v.name, v.version, &options, &report, NULL);
        if (a->dead)
            return;
        sim->deletions.at[place].reported = true;
        sim->deletions.at[place].result = r;
        sim->stats.deleted += r == 0;
        sim->stats.refused += r == -EBUSY;
        sim_log(sim, "%s %d is told %d about the deletion of %u of %s", a->role, a->number, r,
                v.version, v.name);
    }
}

/* ---- collectors ---- */

void collector_main(struct actor *a)
{
    AUTO(catalogue_close) struct catalogue *c = sim_open_catalogue(a);

    for (int i = 0; c && i < (a->sim->storm ? 8 : 6) && !a->dead; i++) {
        struct collect_options options = {.is_gone = is_gone, .ctx = a};
        struct collect_report report;
        struct err err = ERR_INIT;
        a->env.sleep_ms(&a->env, (int64_t)rng_below(&a->rng, a->sim->storm ? 1000 : 4000));
        int r = catalogue_collect(c, &options, &report, &err);
        if (a->dead)
            return;
        if (r == 0 && report.waits)
            a->sim->stats.waits++;
        sim_log(a->sim, "%s %d: %d %s", a->role, a->number, r, r < 0 ? err_text(&err, r) : "");
        if (r < 0 && !err.text[0])
            sim_violation(a->sim, "a collection failed without a sentence");
    }
}
