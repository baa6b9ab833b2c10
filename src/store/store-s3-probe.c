/* SPDX-License-Identifier: Apache-2.0 */
/*
 * May this bucket be written to by many? Tried out, since servers differ and most do not say.
 *
 * Some ignore If-None-Match on a put; some look first and write then, which no test of one put
 * after another shows. So rounds of writers put one key at the same time, each request held before
 * its last byte until all have come that far: one may win, and what is read must be its bytes.
 * Several rounds, since a proxy in between may gather bodies and spoil the overlap.
 *
 * Its objects lie below ".probe/", which is no key of a store: listings pass over what a crash
 * leaves. Does not: change anything of the bucket; look at it through several addresses.
 */
#include "store/store-internal.h"

#include "base/hex.h"
#include "s3/s3.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>

#define ROUNDS 20u
#define RACERS 8u
/* Rounds side by side, each with a key of its own. */
#define RACES_AT_ONCE 4u
/* Rounds without a winner say nothing (a proxy in trouble); so many of them are too many. */
#define VOID_ROUNDS_MAX 10u
#define BODY_SIZE       64u

struct probing {
    struct store_s3 *store;
    char base[STORE_S3_KEY_SIZE]; /* ".../.probe/<random>-" */
    struct store_probe found;
    struct err *err;
};

static void probe_key(const struct probing *p, unsigned number, char ret[static STORE_S3_KEY_SIZE])
{
    int n = snprintf(ret, STORE_S3_KEY_SIZE, "%s", p->base);

    if (n > 0 && (size_t)n + 12 < STORE_S3_KEY_SIZE)
        (void)snprintf(ret + n, 12, "%u", number);
}

/* Best effort: who may write need not be allowed to delete. */
static void clean(const struct probing *p, const char *key)
{
    (void)s3_delete(p->store->s3, p->store->bucket, key, NULL);
}

static int refuse(const struct probing *p, const char *what)
{
    return err_fail(p->err, -EOPNOTSUPP,
                    "%s must not be written to: %s (If-None-Match); two uploads could both believe "
                    "to own one version. Use a server that keeps this promise, as AWS S3, MinIO, "
                    "Ceph and R2 do; reading is possible",
                    p->store->base.location, what);
}

static int read_back(const struct probing *p, const char *key, char ret[static BODY_SIZE + 1])
{
    size_t got = 0;
    int r =
        s3_get(p->store->s3, p->store->bucket, key, 0, ret, BODY_SIZE, NULL, &got, NULL, p->err);

    ret[r < 0 ? 0 : got] = '\0';
    return r;
}

/* ---- one after another, and the clocks ---- */

static int look_at_date(void *ctx, const struct s3_entry *e)
{
    int64_t *date = ctx;

    *date = e->object.mtime_ms;
    return 0;
}

static int compare_clocks(struct probing *p, const char *key, int64_t put_ms)
{
    struct store_s3 *d = p->store;
    struct s3_list_options o = {.prefix = key};
    int64_t dated = 0, now = 0, passed = d->env->boot_ms(d->env) - put_ms;

    int r = s3_list(d->s3, d->bucket, &o, look_at_date, &dated, &now, p->err);
    if (r < 0)
        return r;
    if (dated == 0)
        return refuse(p, "what was just written is missing in its listing");
    /* Both may have been cut to whole seconds. */
    int64_t early = now - passed - (dated + 999), late = dated - (now + 999);
    p->found.clock_spread_ms = early > 0 ? early : late > 0 ? late : 0;
    p->found.clock_offset_ms = s3_clock_offset_ms(d->s3);
    return 0;
}

static int one_after_another(struct probing *p)
{
    struct store_s3 *d = p->store;
    char key[STORE_S3_KEY_SIZE], there[BODY_SIZE + 1];
    bool in_doubt = false;

    probe_key(p, 0, key);
    int64_t now = d->env->boot_ms(d->env);
    int r = s3_put_if_absent(d->s3, d->bucket, key, bytes_str("first"), &in_doubt, p->err);
    if (r < 0 && !(r == -EEXIST && in_doubt)) /* that was us: the key is random */
        return r;
    r = compare_clocks(p, key, now);
    if (r == 0) {
        struct err why = ERR_INIT;
        r = s3_put_if_absent(d->s3, d->bucket, key, bytes_str("second"), &in_doubt, &why);
        if (r == 0)
            r = refuse(p, "its server lets a key that exists be written again");
        else if (r == -EEXIST)
            r = read_back(p, key, there);
        else
            (void)err_fail(p->err, r, "%s", why.text);
    }
    if (r == 0 && strcmp(there, "first") != 0)
        r = refuse(p, "its server says that a key exists, and overwrites it");
    clean(p, key);
    return r;
}

/* ---- all at once ---- */

/* 1: a winner; 0: none, which says nothing. */
static int judge_round(struct probing *p, const char *key, const int *results)
{
    char there[BODY_SIZE + 1], expected[BODY_SIZE + 1], what[160];
    unsigned winners = 0, winner = 0;

    for (unsigned i = 0; i < RACERS; i++) {
        if (results[i] == 0) {
            winners++;
            winner = i;
        }
    }
    if (winners == 0)
        return 0;
    (void)snprintf(what, sizeof what,
                   "its server let %u of %u who wrote one new key at the same time succeed",
                   winners, RACERS);
    if (winners > 1)
        return refuse(p, what);
    int r = read_back(p, key, there);
    if (r < 0)
        return r;
    (void)snprintf(expected, sizeof expected, "by racer %u", winner);
    return strcmp(there, expected) == 0
               ? 1
               : refuse(p, "its server told one writer of a new key that it won, and kept "
                           "another's bytes");
}

static int race_once(struct probing *p, unsigned round, struct err *why)
{
    struct store_s3 *d = p->store;
    char key[STORE_S3_KEY_SIZE], body[RACERS][BODY_SIZE];
    struct bytes bodies[RACERS];
    int results[RACERS];

    probe_key(p, round + 1, key);
    for (unsigned i = 0; i < RACERS; i++) {
        (void)snprintf(body[i], sizeof body[i], "by racer %u", i);
        bodies[i] = bytes_str(body[i]);
    }
    int r = s3_put_overlapped(d->s3, d->bucket, key, bodies, RACERS, results, why);
    if (r < 0)
        return err_fail(p->err, r, "%s", why->text);
    r = judge_round(p, key, results);
    clean(p, key);
    return r;
}

struct race {
    const struct probing *p;
    pthread_mutex_t lock;
    unsigned next, under_way, good, empty; /* rounds */
    int result;
    struct err err;
};

/* Round after round, until enough have had a winner. */
static void *run_lane(void *ctx)
{
    struct race *race = ctx;
    WITH_LOCK(&race->lock);

    while (race->result == 0 && race->good + race->under_way < ROUNDS) {
        struct err why = ERR_INIT, err = ERR_INIT;
        struct probing own = {.store = race->p->store, .err = &err};
        unsigned round = race->next++;
        memcpy(own.base, race->p->base, sizeof own.base);
        race->under_way++;
        pthread_mutex_unlock(&race->lock);
        int r = race_once(&own, round, &why);
        pthread_mutex_lock(&race->lock);
        race->under_way--;
        race->good += r == 1;
        race->empty += r == 0;
        if (r == 0 && race->empty > VOID_ROUNDS_MAX)
            r = err_fail(&err, -EIO, "cannot tell whether %s may be written to: %s",
                         own.store->base.location,
                         why.text[0] ? why.text : "no writer of a new key succeeds");
        if (r < 0 && race->result == 0) {
            race->result = r;
            race->err = err;
        }
    }
    return NULL;
}

static int race(struct probing *p)
{
    struct race race = {.p = p, .lock = PTHREAD_MUTEX_INITIALIZER};
    pthread_t threads[RACES_AT_ONCE - 1];
    unsigned started = 0;

    while (started < RACES_AT_ONCE - 1 &&
           pthread_create(&threads[started], NULL, run_lane, &race) == 0)
        started++;
    (void)run_lane(&race); /* what comes of it is in `race` */
    for (unsigned i = 0; i < started; i++)
        (void)pthread_join(threads[i], NULL); /* ours, joinable: cannot fail */
    if (race.result < 0)
        return err_fail(p->err, race.result, "%s", err_text(&race.err, race.result));
    p->found.rounds = race.good;
    p->found.racers = RACERS;
    return 0;
}

int store_s3_probe(struct store *s, struct store_probe *ret, struct err *err)
{
    struct store_s3 *d = (struct store_s3 *)s;
    struct probing p = {.store = d, .err = err};
    struct s3_bucket_settings settings = {-1, -1, -1};
    struct err own = ERR_INIT;
    uint8_t random[8];
    char hex[2 * sizeof random + 1];

    if (!err)
        p.err = &own;
    d->env->random(d->env, random, sizeof random);
    hex_encode(hex, random, sizeof random);
    (void)snprintf(p.base, sizeof p.base, "%s.probe/%s-", d->prefix, hex); /* measured at open */
    int r = one_after_another(&p);
    if (r == 0)
        r = store_s3_probe_visible(d, p.base, p.err);
    if (r == 0)
        r = race(&p);
    if (r < 0)
        return r;
    if (s3_bucket_settings(d->s3, d->bucket, &settings) == 0) {
        p.found.versioning = settings.versioning;
        p.found.lifecycle = settings.lifecycle;
        p.found.replication = settings.replication;
    } else {
        p.found.versioning = p.found.lifecycle = p.found.replication = -1;
    }
    *ret = p.found;
    return 0;
}
