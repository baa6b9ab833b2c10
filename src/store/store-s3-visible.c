/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Does a bucket show at once what was written, and hide at once what was removed (A2)?
 *
 * Several lanes at the same time, so that connections, and what stands behind them, differ: write a
 * new key, list and read it, remove it, list again. A server that answers one of these from
 * yesterday must not be written to: a collector would not see who has just begun.
 * Does not: choose addresses; how connections are spread is the resolver's and the balancer's.
 */
#include "store/store-internal.h"

#include "s3/s3.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>

#define LANES  16u
#define ROUNDS 4u

struct lane {
    struct store_s3 *store;
    const char *base;
    unsigned number;
    int result;
    struct err err;
    pthread_t thread;
    bool started;
};

static int count_entry(void *ctx, const struct s3_entry *e)
{
    ++*(unsigned *)ctx;
    return 0;
}

static int stale(struct lane *l, const char *what)
{
    return err_fail(
        &l->err, -EOPNOTSUPP,
        "%s must not be written to: %s; uploads and collections could miss each other. "
        "Use a server that shows every change at once, as AWS S3, MinIO, Ceph and R2 do; "
        "reading is possible",
        l->store->base.location, what);
}

static int expect_listed(struct lane *l, const char *key, unsigned expected, const char *what)
{
    struct s3_list_options o = {.prefix = key};
    unsigned count = 0;
    int r = s3_list(l->store->s3, l->store->bucket, &o, count_entry, &count, NULL, &l->err);

    if (r < 0)
        return r;
    return count == expected ? 0 : stale(l, what);
}

static int look(struct lane *l, const char *key)
{
    struct store_s3 *d = l->store;
    char there[8];
    bool in_doubt = false;
    size_t got = 0;
    int r = s3_put_if_absent(d->s3, d->bucket, key, bytes_str("seen"), &in_doubt, &l->err);
    if (r == -EEXIST && in_doubt) { /* that was us: the key is random */
        err_clear(&l->err);
        r = 0;
    }
    if (r == 0)
        r = expect_listed(l, key, 1, "what was just written is missing in its listing");
    if (r == 0)
        r = s3_get(d->s3, d->bucket, key, 0, there, sizeof there, NULL, &got, NULL, &l->err);
    if (r == -ENOENT) {
        err_clear(&l->err);
        return stale(l, "what was just written cannot be read");
    }
    if (r == 0 && (got != 4 || memcmp(there, "seen", 4) != 0))
        r = stale(l, "what was just written reads as something else");
    return r;
}

static int one_round(struct lane *l, unsigned round)
{
    struct store_s3 *d = l->store;
    char key[STORE_S3_KEY_SIZE];
    int n = snprintf(key, sizeof key, "%sv%u-%u", l->base, l->number, round);

    if (n < 0 || (size_t)n >= sizeof key)
        return err_fail(&l->err, -ENAMETOOLONG, "the location of the store is too long");
    int r = look(l, key);
    bool removed = s3_delete(d->s3, d->bucket, key, NULL) == 0;
    if (r < 0 || !removed) /* who may write need not be allowed to delete */
        return r;
    return expect_listed(l, key, 0, "what was just removed is still listed");
}

static void *run_lane(void *ctx)
{
    struct lane *l = ctx;

    for (unsigned round = 0; round < ROUNDS && l->result == 0; round++)
        l->result = one_round(l, round);
    return NULL;
}

int store_s3_probe_visible(struct store_s3 *d, const char *base, struct err *err)
{
    AUTO(free_ptr) struct lane *lanes = calloc(LANES, sizeof *lanes);
    int r = 0;

    if (!lanes)
        return err_fail(err, -ENOMEM, "out of memory");
    for (unsigned i = 0; i < LANES; i++) {
        lanes[i].store = d;
        lanes[i].base = base;
        lanes[i].number = i;
        lanes[i].started = pthread_create(&lanes[i].thread, NULL, run_lane, &lanes[i]) == 0;
    }
    for (unsigned i = 0; i < LANES; i++) {
        if (lanes[i].started)
            (void)pthread_join(lanes[i].thread, NULL); /* ours, joinable: cannot fail */
        else
            (void)run_lane(&lanes[i]); /* its result is in the lane */
        if (r == 0 && lanes[i].result < 0)
            r = err_fail(err, lanes[i].result, "%s", err_text(&lanes[i].err, lanes[i].result));
    }
    return r;
}
