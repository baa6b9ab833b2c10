/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Listing a prefix with many requests at once.
 *
 * One listing goes page by page, each page's request waiting for the page before; so the keys are
 * cut into ranges that are listed side by side. It begins with one range, everything. A worker that
 * has nothing to do cuts a range that is known to have more than a page: at a directory, if one of
 * it is known; else it asks for the directories below one that the range stands in; else
 * somewhere in between (source-s3-split.c). The range keeps what is below the cut, and the worker
 * lists what is behind it. So small prefixes cost one request, and a range is only cut while
 * somebody would else be idle: no directory costs a request because it is one.
 *
 * Ranges are disjoint whatever the cuts are, so a bad cut costs a request and never a key.
 */
#include "source/source-s3-internal.h"

#include <stdio.h>
#include <string.h>

#define WORKERS      16u /* LISTs at once: each is some ms of a server's CPU time */
#define WORKERS_MAX  64u
#define HINTS_MAX    65536u /* directories that are remembered to cut at */
#define ASKED_MAX    4096u  /* directories that were asked for their directories */
#define CUTS_MAX     3u     /* of one range that nothing is known of yet */
#define PAGE         1000u  /* keys a request gives */
#define PROGRESS_MS  200
#define WORKER_STACK (512u << 10)

/* Keys behind `at`, up to and with `end`. Under the lock but for the builder, which is its
 * worker's. All keys without the prefix. */
struct range {
    char at[S3_KEY_MAX + 1]; /* the last one that was listed */
    char end[S3_KEY_MAX + 1];
    bool has_end;
    bool active;   /* somebody lists it */
    bool proven;   /* it has had a key: cutting it gives something */
    bool asking;   /* somebody asks for directories to cut it at */
    unsigned cuts; /* that have not shown yet whether they hold anything */
    struct range *cut_from;
    uint64_t number, cut_from_number; /* a worker's next range has another number */
    uint64_t rows;                    /* since a cut of it held something */
    size_t common;                    /* bytes that all keys of the last page began with */
    size_t page_common;               /* of this page, so far */
    size_t varies; /* in this byte keys differ, else there would be none in this range */
    unsigned in_page;
    struct rows_builder builder;
};

/* A directory whose directories were asked for, as far as `to` ("": all). */
struct asked {
    char *path; /* owned */
    char *to;   /* owned */
};

struct lister {
    const struct lister_options *o;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    struct range ranges[WORKERS_MAX]; /* one a worker */
    unsigned workers, active;
    uint64_t begun; /* ranges */
    int result;
    struct err err;
    struct split_alphabet alphabet;
    VEC(char *) hints; /* owned; ascending */
    VEC(struct asked) asked;
    struct rows rows; /* what is complete */
    uint64_t files, bytes;
};

struct worker {
    struct lister *l;
    struct range *range;
    pthread_t thread;
};

/* ---- one range --------------------------------------------------------------------------------
 */

static bool is_interrupted(const struct lister *l)
{
    return l->o->interrupted && __atomic_load_n(l->o->interrupted, __ATOMIC_RELAXED);
}

static size_t common_length(const char *a, const char *b, size_t most)
{
    size_t n = 0;

    while (n < most && a[n] && a[n] == b[n])
        n++;
    return n;
}

/* It shows whether what was cut off holds anything. */
static void end_cut(struct lister *l, struct range *range, bool holds)
{
    struct range *from = range->cut_from;

    range->cut_from = NULL;
    if (!from || from->number != range->cut_from_number)
        return;
    from->cuts--;
    if (holds)
        from->rows = 0; /* there may be little left of it */
    pthread_cond_broadcast(&l->changed);
}

static int take_row(void *ctx, const struct s3_entry *e)
{
    struct worker *w = ctx;
    struct lister *l = w->l;
    struct range *range = w->range;
    const char *key = e->key + strlen(l->o->prefix);

    WITH_LOCK(&l->lock);
    if (l->result < 0 || is_interrupted(l))
        return 1;
    if (range->has_end && strcmp(key, range->end) > 0)
        return 1;
    int r = rows_add(&range->builder, key, &e->object);
    if (r < 0)
        return r;
    range->page_common =
        range->in_page == 0 ? strlen(key) : common_length(key, range->at, range->page_common);
    if (range->page_common < range->common)
        range->common = range->page_common;
    if (++range->in_page == PAGE) {
        range->in_page = 0;
        range->common = range->page_common;
    }
    memcpy(range->at, key, strlen(key) + 1);
    range->rows++;
    l->files++;
    l->bytes += e->object.size;
    /* One key in sixteen is enough. */
    if (range->rows % 16 == 1)
        split_learn(&l->alphabet, key);
    if (!range->proven || range->rows == PAGE) {
        range->proven = true;
        end_cut(l, range, true);
        if (range->rows == PAGE)
            pthread_cond_broadcast(&l->changed); /* now it may be cut */
    }
    return 0;
}

static void whole_key(const struct lister *l, const char *key, char ret[static S3_KEY_MAX + 1])
{
    (void)snprintf(ret, S3_KEY_MAX + 1, "%s%s", l->o->prefix, key); /* a key, or the cut of one */
}

static void fail(struct lister *l, int code, const struct err *why)
{
    if (l->result == 0) {
        l->result = code;
        l->err = *why;
    }
    pthread_cond_broadcast(&l->changed);
}

/* The range is empty or behind its worker; the worker is free. */
static void list_range(struct worker *w, bool has_start)
{
    struct lister *l = w->l;
    struct range *range = w->range;
    char start[S3_KEY_MAX + 1];
    struct err err = ERR_INIT;
    struct s3_list_options o = {.prefix = l->o->prefix, .versions = l->o->versions, .page = PAGE};

    if (has_start) {
        whole_key(l, range->at, start);
        o.start_after = start;
    }
    int r = s3_list(l->o->s3, l->o->bucket, &o, take_row, w, NULL, &err);
    WITH_LOCK(&l->lock);
    if (r == -EPROTO && !err.text[0])
        r = err_fail(&err, r, "cannot list s3://%s/%s: the server's pages are out of order",
                     l->o->bucket, l->o->prefix);
    if (r >= 0)
        r = rows_take(&l->rows, &range->builder);
    end_cut(l, range, range->proven);
    range->active = false;
    range->number = 0;
    l->active--;
    if (r < 0)
        fail(l, r, &err);
    pthread_cond_broadcast(&l->changed);
}

/* ---- cutting ----------------------------------------------------------------------------------
 */

static size_t first_hint_behind(const struct lister *l, const char *key)
{
    size_t low = 0, high = l->hints.count;

    while (low < high) {
        size_t mid = low + (high - low) / 2;
        if (strcmp(l->hints.at[mid], key) > 0)
            high = mid;
        else
            low = mid + 1;
    }
    return low;
}

/* The directory in the middle of those that are known in what is left of the range. */
static bool cut_at_hint(const struct lister *l, const struct range *range,
                        char ret[static S3_KEY_MAX + 1])
{
    size_t first = first_hint_behind(l, range->at), end = l->hints.count;

    if (range->has_end)
        end = first_hint_behind(l, range->end);
    if (first >= end)
        return false;
    (void)snprintf(ret, S3_KEY_MAX + 1, "%s", l->hints.at[first + (end - first) / 2]); /* a key */
    return !range->has_end || strcmp(ret, range->end) < 0;
}

static bool was_asked(const struct lister *l, const char *path, size_t length, const char *at)
{
    for (size_t i = 0; i < l->asked.count; i++) {
        const struct asked *a = &l->asked.at[i];
        if (strlen(a->path) == length && memcmp(a->path, path, length) == 0)
            return !a->to[0] || strcmp(at, a->to) < 0;
    }
    return false;
}

/* The highest directory that the range's place is in and that may tell more directories; in bytes
 * of range->at. False: none. */
static bool find_unasked(const struct lister *l, const struct range *range, size_t *ret)
{
    const char *at = range->at;
    /* Above what both ends have in common there is nothing to cut. */
    size_t n = range->has_end ? common_length(at, range->end, S3_KEY_MAX) : 0;

    while (n > 0 && at[n - 1] != '/')
        n--;
    for (; l->asked.count < ASKED_MAX;) {
        if (!was_asked(l, at, n, at)) {
            *ret = n;
            return true;
        }
        const char *slash = strchr(at + n, '/');
        if (!slash)
            return false;
        n = (size_t)(slash - at) + 1;
    }
    return false;
}

struct asking {
    struct lister *l;
    VEC(char *) found;
    char last[S3_KEY_MAX + 1];
    unsigned rows;
    bool stopped;
};

static int take_prefix(void *ctx, const struct s3_entry *e)
{
    struct asking *a = ctx;
    const char *key = e->key + strlen(a->l->o->prefix);

    (void)snprintf(a->last, sizeof a->last, "%s", key); /* a key */
    if (e->is_prefix) {
        char *copy = strdup(key);
        if (!copy || vec_push(&a->found, copy) < 0) {
            free(copy);
            return -ENOMEM;
        }
    }
    a->stopped = ++a->rows == PAGE;
    return a->stopped;
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Remember what was found; under the lock. */
static int learn_directories(struct lister *l, struct asking *a)
{
    for (size_t i = 0; i < a->found.count && l->hints.count < HINTS_MAX; i++) {
        int r = vec_push(&l->hints, a->found.at[i]);
        if (r < 0)
            return r;
        a->found.at[i] = NULL;
    }
    if (l->hints.count > 1)
        qsort(l->hints.at, l->hints.count, sizeof *l->hints.at, by_text);
    return 0;
}

static int begin_asking(struct lister *l, const char *path, size_t *ret)
{
    for (size_t i = 0; i < l->asked.count; i++) {
        if (strcmp(l->asked.at[i].path, path) == 0) {
            *ret = i;
            return 0;
        }
    }
    struct asked a = {.path = strdup(path), .to = strdup("")};
    int r = a.path && a.to ? vec_push(&l->asked, a) : -ENOMEM;
    if (r < 0) {
        free(a.path);
        free(a.to);
        return r;
    }
    *ret = l->asked.count - 1;
    return 0;
}

/* One page of the directories below the first `n` bytes of the range's place. Drops the lock
 * meanwhile. */
static int ask_directories(struct lister *l, struct range *range, size_t n, struct err *err)
{
    char path[S3_KEY_MAX + 1], prefix[S3_KEY_MAX + 1], start[S3_KEY_MAX + 1];
    struct s3_list_options o = {.prefix = prefix, .delimiter = '/', .start_after = start};
    struct asking a = {.l = l};
    size_t number;

    memcpy(path, range->at, n);
    path[n] = '\0';
    whole_key(l, path, prefix);
    whole_key(l, range->at, start);
    int r = begin_asking(l, path, &number);
    if (r < 0)
        return err_fail(err, r, "out of memory");
    pthread_mutex_unlock(&l->lock);
    r = s3_list(l->o->s3, l->o->bucket, &o, take_prefix, &a, NULL, err);
    pthread_mutex_lock(&l->lock);
    if (r >= 0)
        r = learn_directories(l, &a);
    /* Where it is mostly files there is nothing more to learn. */
    if (r == 0 && a.stopped && a.found.count >= PAGE / 2) {
        char *to = strdup(a.last);
        if (to) {
            free(l->asked.at[number].to);
            l->asked.at[number].to = to;
        }
        r = to ? 0 : -ENOMEM;
    }
    for (size_t i = 0; i < a.found.count; i++)
        free(a.found.at[i]);
    vec_release(&a.found);
    return r < 0 ? r : 0;
}

/* What is listed for longest, without having been cut. */
static struct range *find_longest(struct lister *l)
{
    struct range *longest = NULL;

    for (unsigned i = 0; i < l->workers; i++) {
        struct range *r = &l->ranges[i];
        if (r->active && r->proven && !r->asking && r->cuts < CUTS_MAX && r->rows >= PAGE &&
            (!longest || r->rows >> r->cuts > longest->rows >> longest->cuts))
            longest = r;
    }
    return longest;
}

static void begin_range(struct lister *l, struct range *mine, struct range *from, const char *cut)
{
    struct rows_builder fresh = {.total = 0};

    mine->builder = fresh;
    mine->has_end = from->has_end;
    memcpy(mine->end, from->end, sizeof mine->end);
    (void)snprintf(mine->at, sizeof mine->at, "%s", cut); /* a key's length */
    mine->proven = mine->asking = false;
    mine->cuts = 0;
    mine->number = ++l->begun;
    mine->cut_from_number = from->number;
    mine->rows = 0;
    mine->in_page = 0;
    mine->common = S3_KEY_MAX;
    mine->varies = common_length(cut, from->at, S3_KEY_MAX);
    mine->cut_from = from;
    mine->active = true;
    l->active++;
    from->cuts++;
    from->has_end = true;
    memcpy(from->end, mine->at, sizeof from->end);
}

/* Cut off a part for `mine`; false: nothing can be cut now. Under the lock, dropped meanwhile. */
static bool cut(struct lister *l, struct range *mine)
{
    char at[S3_KEY_MAX + 1];
    struct err err = ERR_INIT;
    struct range *from = find_longest(l);
    size_t n;

    if (!from)
        return false;
    if (!cut_at_hint(l, from, at)) {
        if (find_unasked(l, from, &n)) {
            from->asking = true;
            int r = ask_directories(l, from, n, &err);
            from->asking = false;
            if (r < 0)
                fail(l, r, &err);
            pthread_cond_broadcast(&l->changed);
            return false; /* look again: much may have happened */
        }
        struct split_range s = {.at = from->at,
                                .end = from->has_end ? from->end : NULL,
                                .common = from->common,
                                .varies = from->varies};
        if (!split_between(&l->alphabet, &s, at)) {
            from->rows = 0; /* not before the next page */
            return false;
        }
    }
    begin_range(l, mine, from, at);
    return true;
}

/* ---- workers ----------------------------------------------------------------------------------
 */

static void *work(void *ctx)
{
    struct worker *w = ctx;
    struct lister *l = w->l;

    pthread_mutex_lock(&l->lock);
    while (l->active > 0 && l->result == 0 && !is_interrupted(l)) {
        if (w->range->active || cut(l, w->range)) {
            bool has_start = w->range->at[0] != '\0';
            pthread_mutex_unlock(&l->lock);
            list_range(w, has_start);
            pthread_mutex_lock(&l->lock);
        } else if (l->active > 0 && l->result == 0 && !find_longest(l)) {
            pthread_cond_wait(&l->changed, &l->lock);
        }
    }
    pthread_cond_broadcast(&l->changed);
    pthread_mutex_unlock(&l->lock);
    return NULL;
}

/* On the caller's thread, until all is listed. */
static void watch(struct lister *l)
{
    struct timespec until;

    pthread_mutex_lock(&l->lock);
    while (l->active > 0 && l->result == 0 && !is_interrupted(l)) {
        (void)clock_gettime(CLOCK_MONOTONIC, &until); /* cannot fail: the clock exists */
        until.tv_nsec += PROGRESS_MS * 1000000L;
        until.tv_sec += until.tv_nsec / 1000000000L;
        until.tv_nsec %= 1000000000L;
        (void)pthread_cond_timedwait(&l->changed, &l->lock, &until); /* it is looked at anyway */
        uint64_t files = l->files, bytes = l->bytes;
        pthread_mutex_unlock(&l->lock);
        if (l->o->progress)
            l->o->progress(l->o->ctx, files, bytes);
        pthread_mutex_lock(&l->lock);
    }
    pthread_cond_broadcast(&l->changed);
    pthread_mutex_unlock(&l->lock);
}

static int run_workers(struct lister *l)
{
    struct worker workers[WORKERS_MAX];
    pthread_attr_t attr;
    unsigned started = 0;
    int r = 0;

    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, WORKER_STACK);
    l->ranges[0].active = true;
    l->ranges[0].varies = SIZE_MAX;
    l->ranges[0].common = S3_KEY_MAX;
    l->ranges[0].number = ++l->begun;
    l->ranges[0].proven = true; /* all there is: it may be cut as soon as it has a page */
    l->active = 1;
    for (; started < l->workers && r == 0; started += r == 0) {
        workers[started] = (struct worker){.l = l, .range = &l->ranges[started]};
        r = -pthread_create(&workers[started].thread, &attr, work, &workers[started]);
    }
    pthread_attr_destroy(&attr);
    if (started > 0)
        watch(l);
    for (unsigned i = 0; i < started; i++)
        pthread_join(workers[i].thread, NULL);
    return started > 0 ? 0 : r;
}

static void release(struct lister *l)
{
    for (unsigned i = 0; i < l->workers; i++)
        rows_builder_release(&l->ranges[i].builder);
    for (size_t i = 0; i < l->hints.count; i++)
        free(l->hints.at[i]);
    vec_release(&l->hints);
    for (size_t i = 0; i < l->asked.count; i++) {
        free(l->asked.at[i].path);
        free(l->asked.at[i].to);
    }
    vec_release(&l->asked);
    rows_release(&l->rows);
    pthread_cond_destroy(&l->changed);
    pthread_mutex_destroy(&l->lock);
    free(l);
}

int lister_run(const struct lister_options *o, struct rows *ret, struct err *err)
{
    struct lister *l = calloc(1, sizeof *l);
    pthread_condattr_t attr;

    if (!l)
        return err_fail(err, -ENOMEM, "out of memory");
    l->o = o;
    l->workers = o->parallel ? o->parallel : WORKERS;
    if (l->workers > WORKERS_MAX)
        l->workers = WORKERS_MAX;
    pthread_mutex_init(&l->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&l->changed, &attr);
    pthread_condattr_destroy(&attr);
    int r = run_workers(l);
    if (r == 0)
        r = l->result;
    if (r == 0 && is_interrupted(l))
        r = -ECANCELED;
    if (r == 0)
        r = rows_settle(&l->rows);
    if (r == 0) {
        *ret = l->rows;
        l->rows = (struct rows){.count = 0};
    } else if (r == -EPROTO && !l->err.text[0]) {
        r = err_fail(err, r, "cannot list s3://%s/%s: the server's pages are out of order",
                     o->bucket, o->prefix);
    } else {
        r = err_fail(err, r, "%s", r == -ECANCELED ? "interrupted" : err_text(&l->err, r));
    }
    release(l);
    return r;
}
