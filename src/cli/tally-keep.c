/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The thread of a server that keeps its tally: once a second it looks at what fetch and cache have
 * counted, writes it down if it changed, and makes one line in the log of each change of state:
 * store or cache failing, or well again.
 */
#include "cli/tally.h"

#include "attach/attach.h"
#include "base/file.h"
#include "base/log.h"

#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define LOOK_MS 1000

struct tally_keeper {
    struct opened *o;
    pid_t owner; /* in whose name: our parent, or we, if it has died */
    int fd;      /* -1: not open */
    uint64_t sequence;
    struct tally before; /* counters of servers before this one */
    struct tally last;   /* as written */
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    bool stop; /* under lock */
};

static void look(struct tally_keeper *k, struct tally *t)
{
    struct fetch_stats f;
    struct cache_usage c = {.used_bytes = 0};

    fetch_stats(k->o->fetch, &f);
    if (k->o->cache)
        (void)cache_usage(k->o->cache, &c); /* cannot fail */
    *t = k->before;
    t->at[TALLY_HITS] += f.hits;
    t->at[TALLY_MISSES] += f.misses;
    t->at[TALLY_BYTES_MEMORY] += f.bytes_memory;
    t->at[TALLY_BYTES_CACHE] += f.bytes_cache;
    t->at[TALLY_BYTES_STORE] += f.bytes_store;
    t->at[TALLY_GETS] += f.gets;
    t->at[TALLY_RETRIES] += f.retries;
    t->at[TALLY_DAMAGED] += f.damaged;
    t->at[TALLY_DAMAGED_CACHE] += f.damaged_cache;
    t->at[TALLY_STALLS] += f.stalls;
    t->at[TALLY_STALL_NS] += f.stall_ns;
    t->at[TALLY_AHEAD_BYTES] += f.ahead_bytes;
    t->at[TALLY_AHEAD_UNUSED] += f.ahead_unused;
    t->at[TALLY_CACHE_REFUSED] += c.refused;
    for (size_t i = 0; i < FETCH_LATENCY_BUCKETS; i++)
        t->at[TALLY_LATENCY + i] += f.latency[i];
    t->at[TALLY_MEMORY_BYTES] = f.memory_bytes;
    t->at[TALLY_MEMORY_LIMIT] = f.memory_limit;
    t->at[TALLY_WAITING] = f.waiting;
    t->at[TALLY_STORE_ERROR] = (uint64_t) - (int64_t)f.store_error;
    t->at[TALLY_HAS_CACHE] = k->o->cache != NULL;
    t->at[TALLY_CACHE_ERROR] = (uint64_t) - (int64_t)c.failure;
}

static void log_changes(const struct tally_keeper *k, const struct tally *now)
{
    const char *store = k->o->store->location;
    uint64_t was = k->last.at[TALLY_STORE_ERROR], is = now->at[TALLY_STORE_ERROR];

    if (!was && is)
        log_warning("the store %s does not answer, reads wait: %s", store,
                    store_error(k->o->store, -(int)is));
    else if (was && !is)
        log_info("the store %s answers again", store);
    was = k->last.at[TALLY_CACHE_ERROR];
    is = now->at[TALLY_CACHE_ERROR];
    if (!was && is)
        log_warning("the cache on disk fails, reads go on without it: %s", strerror((int)is));
    else if (was && !is)
        log_info("the cache on disk is well again");
}

/* The file of our owner; another one when that has died. */
static void follow(struct tally_keeper *k)
{
    struct stat st;

    if (k->owner != getpid() && getppid() != k->owner) {
        k->owner = getpid();
        if (k->fd >= 0)
            (void)close(k->fd); /* nobody will look there again */
        k->fd = -1;
    }
    if (k->fd >= 0 && (fstat(k->fd, &st) < 0 || st.st_nlink == 0)) {
        (void)close(k->fd); /* it went with a record of ours */
        k->fd = -1;
    }
    if (k->fd < 0 && attach_figures_open(k->owner, &k->fd) < 0)
        k->fd = -1; /* the next look tries again */
}

static void write_down(struct tally_keeper *k)
{
    struct tally now;
    uint8_t data[TALLY_SIZE];
    int fd = k->fd;

    look(k, &now);
    follow(k);
    now.at[TALLY_UPDATED_MS] = k->last.at[TALLY_UPDATED_MS];
    if (k->fd == fd && memcmp(&now, &k->last, sizeof now) == 0)
        return;
    log_changes(k, &now);
    now.at[TALLY_UPDATED_MS] = (uint64_t)env_real()->wall_ms(env_real());
    tally_encode(&now, ++k->sequence, data);
    if (k->fd >= 0)
        (void)file_pwrite(k->fd, data, sizeof data, 0); /* the next look writes again */
    k->last = now;
}

static void *keep(void *arg)
{
    struct tally_keeper *k = arg;
    struct timespec until;

    pthread_mutex_lock(&k->lock);
    while (!k->stop) {
        pthread_mutex_unlock(&k->lock);
        write_down(k);
        pthread_mutex_lock(&k->lock);
        (void)clock_gettime(CLOCK_MONOTONIC, &until); /* cannot fail */
        until.tv_sec += LOOK_MS / 1000;
        if (!k->stop)
            (void)pthread_cond_timedwait(&k->wake, &k->lock, &until); /* or a little earlier */
    }
    pthread_mutex_unlock(&k->lock);
    write_down(k);
    return NULL;
}

/* What the server before this one counted. */
static void take_over(struct tally_keeper *k)
{
    uint8_t data[TALLY_SIZE];
    struct tally t;

    if (attach_figures_open(k->owner, &k->fd) < 0) {
        k->fd = -1;
        return;
    }
    ssize_t n = file_pread(k->fd, data, sizeof data, 0);
    int r = n < 0 ? (int)n : tally_decode(data, (size_t)n, &t);
    if (r == -EAGAIN) /* it died while it wrote: all but the last second is right */
        memcpy(data + TALLY_SIZE - 8, data + 16, 8);
    if (r == -EAGAIN)
        r = tally_decode(data, (size_t)n, &t);
    if (r < 0)
        return;
    memcpy(k->before.at, t.at, TALLY_COUNTERS * sizeof t.at[0]);
    k->before.at[TALLY_RESTARTS] = t.at[TALLY_RESTARTS] + 1;
    k->last.at[TALLY_STORE_ERROR] = t.at[TALLY_STORE_ERROR];
    k->last.at[TALLY_CACHE_ERROR] = t.at[TALLY_CACHE_ERROR];
}

struct tally_keeper *tally_keep(struct opened *o, pid_t owner)
{
    struct tally_keeper *k = calloc(1, sizeof *k);
    pthread_condattr_t attributes;

    if (!k)
        return NULL;
    k->o = o;
    k->fd = -1;
    k->owner = owner;
    take_over(k);
    (void)pthread_mutex_init(&k->lock, NULL); /* cannot fail without attributes */
    (void)pthread_condattr_init(&attributes);
    (void)pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    (void)pthread_cond_init(&k->wake, &attributes);
    pthread_condattr_destroy(&attributes);
    if (pthread_create(&k->thread, NULL, keep, k) == 0)
        return k;
    log_warning("no figures are kept: there is no thread for it");
    if (k->fd >= 0)
        (void)close(k->fd); /* nothing was written */
    pthread_cond_destroy(&k->wake);
    pthread_mutex_destroy(&k->lock);
    free(k);
    return NULL;
}

void tally_keeper_free(struct tally_keeper *k)
{
    if (!k)
        return;
    pthread_mutex_lock(&k->lock);
    k->stop = true;
    pthread_cond_signal(&k->wake);
    pthread_mutex_unlock(&k->lock);
    (void)pthread_join(k->thread, NULL);
    if (k->fd >= 0)
        (void)close(k->fd); /* a help, no more */
    pthread_cond_destroy(&k->wake);
    pthread_mutex_destroy(&k->lock);
    free(k);
}
