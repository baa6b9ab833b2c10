/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A deterministic simulation of many programs that share one store.
 *
 * Each actor is a coroutine that runs the real catalogue over a store and a world of its own. Every
 * store call is a yield point; which actor goes on, what fails, what lands late or never, and who
 * dies follows from the seed alone, so any run can be replayed. All on one thread.
 *
 * An actor that dies keeps running for the sake of its memory, but its store is cut off: no call of
 * it takes effect any more, its reports count for nothing, and what it had sent may still land.
 */
#ifndef SIM_SIM_H
#define SIM_SIM_H

#include "base/vec.h"
#include "catalogue/catalogue.h"

#include <ucontext.h>

#define SIM_NAMES      2 /* datastores that the actors fight for */
#define SIM_ACTORS_MAX 8
/* A run that needs more steps than this runs in circles. */
#define SIM_STEPS_MAX 200000u

struct rng {
    uint64_t state;
};
uint64_t rng_next(struct rng *r);
uint64_t rng_below(struct rng *r, uint64_t n);
bool rng_chance(struct rng *r, unsigned per_mille);

/* Which programs there are: publishers and their like, or also holders, deleters and collectors. */
enum sim_plan { SIM_PLAN_PUBLISH, SIM_PLAN_HOLD };

struct sim;
struct actor;
typedef void actor_fn(struct actor *a);

struct actor {
    struct sim *sim;
    int number;
    const char *role;
    actor_fn *fn;
    struct store wire;   /* its connection; the wrapper finds the actor from it */
    struct store *store; /* what it uses: the connection, or a retry over it */
    struct env env;
    struct rng rng; /* of its random bytes and choices */
    ucontext_t context;
    void *stack;
    bool done, dead;
    int64_t wake_ms;
    uint64_t registered_step, rounds_step; /* when it last wrote s/<session>/i, listed g/ */
    void *fake_stack;                      /* of the address sanitizer */
    struct hold *hold;                     /* of a holder, and what it holds */
    int held_name;
    uint32_t held_version;
};

/* A put or removal that was not answered and has not landed. */
struct flight {
    char *key;
    struct buf body;
    bool removal;
};

/* One call of upload_commit(). Its manifest says `files = id`, so its outcome can be told. */
struct attempt {
    uint64_t id;
    int name;
    uint32_t version;
    struct session_id session;
    bool reported; /* false: still running, or its actor died */
    int result;
};

/* What an actor was told about a version by begin, resume or abort. */
enum told { TOLD_OWNED, TOLD_COMMITTED, TOLD_ABORTED };
struct report {
    enum told told;
    int name;
    uint32_t version;
    struct session_id session; /* of TOLD_OWNED */
};

/* A session that others may resume. */
struct session_note {
    int name;
    uint32_t version;
    struct session_id session;
};

/* One call of catalogue_delete(). */
struct deletion_note {
    int name;
    uint32_t version;
    bool reported;
    int result;
};

struct sim_stats {
    uint64_t commits, aborts, others, unknown, deaths, lost, late, never, resumes, resolves;
    uint64_t reused, held, refused, deleted, lost_leases, rounds, removed, waits;
};

struct watch; /* what the judge of holding and collecting knows */

struct sim {
    uint64_t seed;
    enum sim_plan plan;
    struct watch *watch; /* SIM_PLAN_HOLD only */
    VEC(struct deletion_note) deletions;
    struct rng rng; /* of the schedule and the faults */
    struct store *raw;
    int64_t now_ms;
    uint64_t steps;
    ucontext_t main_context;
    void *main_fake_stack;
    const void *main_stack_bottom;
    size_t main_stack_size;
    struct actor actors[SIM_ACTORS_MAX];
    int actor_count;
    struct actor *running;
    VEC(struct flight) flights;
    VEC(struct attempt) attempts;
    VEC(struct report) reports;
    VEC(struct session_note) sessions;
    uint32_t newest_committed[SIM_NAMES]; /* that somebody was told of */
    bool retry;                           /* actors use store-retry, as programs do */
    bool storm;                           /* uploads, deletions and collections without a pause */
    unsigned fault_per_mille, death_per_mille, page_rows;
    bool verbose;
    char violation[512]; /* the first one; empty: none */
    struct sim_stats stats;
};

extern const char *const sim_names[SIM_NAMES];

/* ---- sim-world.c ---- */
/* One run. Adds to *stats. False: a violation, written to `text`. */
bool sim_run(uint64_t seed, enum sim_plan plan, bool verbose, struct sim_stats *stats, char *text,
             size_t size);
void sim_violation(struct sim *sim, const char *format, ...) __attribute__((format(printf, 2, 3)));
void sim_log(struct sim *sim, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* The raw store's object is there. */
bool sim_exists(struct sim *sim, const char *key);

/* ---- sim-store.c ---- */
extern const struct store_ops sim_store_ops;
void sim_yield(struct actor *a);
/* Let one of the flights land, or be lost for ever. */
void sim_land(struct sim *sim);

/* ---- sim-actors.c ---- */
void creator_main(struct actor *a);
void resumer_main(struct actor *a);
void expirer_main(struct actor *a);
void lister_main(struct actor *a);
struct catalogue *sim_open_catalogue(struct actor *a);

/* ---- sim-hold.c ---- */
void holder_main(struct actor *a);
void deleter_main(struct actor *a);
void collector_main(struct actor *a);
/* Packs of some available version that the upload may name again; added to `m`. */
void sim_reuse_packs(struct actor *a, struct catalogue *c, struct upload *u, int name,
                     struct manifest *m);

/* ---- sim-watch.c: sees every change of the raw store when it happens ---- */
struct watch *watch_new(void);
void watch_free(struct watch *w);
void watch_put(struct sim *sim, const char *key, struct bytes body); /* has landed */
void watch_remove(struct sim *sim, const char *key);                 /* is about to */
bool watch_has_seen(const struct sim *sim, const char *key);
int64_t watch_mtime(const struct sim *sim, const char *key);
/* An upload has begun; it read the condemned lists at `step`. */
void watch_begun(struct sim *sim, const struct session_id *session, uint64_t step);
/* I13: what a holder believes now may not have been deleted. */
void watch_belief(struct sim *sim, const struct actor *a);
/* Told results of deletions; and that everything that nobody names can be collected. */
void watch_end(struct sim *sim);

/* ---- sim-check.c ---- */
/* Looks at the raw store and at what everybody was told, without the catalogue's code. */
void sim_check(struct sim *sim);
/* The same for one committed version that somebody sees now (I5). */
void sim_check_visible(struct sim *sim, const struct version_info *v);

#endif
