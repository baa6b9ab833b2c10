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
 * somebody would else be idle: no directory costs a request because it is one. Where directories
 * have about a page each, or more, one is cut off at a time, and listed by its prefix.
 *
 * Ranges are disjoint whatever the cuts are, so a bad cut costs a request and never a key.
 */
#include "source/source-s3-internal.h"

#include <stdio.h>
#include <string.h>

#define WORKERS      32u /* LISTs at once: each is some ms of a server's CPU time */
#define WORKERS_MAX  64u
#define ASKED_MAX    4096u /* directories that were asked for their directories */
#define CUTS_MAX     3u    /* of one range that nothing is known of yet */
#define PAGE         1000u /* keys a request gives */
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
    size_t varies; /* in this byte keys differ, else there would be none in this range */
    char start[S3_KEY_MAX + 1];
    uint64_t listed;        /* rows since the start */
    uint64_t per_directory; /* rows that a directory has, by what was listed; 0: not known */
    char whole_path[S3_KEY_MAX + 1]; /* all of it is below that; "": not known */
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
    struct hints hints;
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

/* How many rows of a page are the range's; its place moves behind them, so that a cut meanwhile is
 * behind them too. Under the lock. */
static size_t claim(struct lister *l, struct range *range, const struct s3_entry *rows,
                    size_t count)
{
    size_t prefix = strlen(l->o->prefix), n = count;
    bool was_long = range->rows >= PAGE;

    while (range->has_end && n > 0 && strcmp(rows[n - 1].key + prefix, range->end) > 0)
        n--;
    if (n == 0)
        return 0;
    const char *last = rows[n - 1].key + prefix;
    range->common = common_length(rows[0].key + prefix, last, S3_KEY_MAX);
    memcpy(range->at, last, strlen(last) + 1);
    range->rows = n < count ? 0 : range->rows + n; /* 0: it is at its end, so nobody cuts it */
    range->listed += n;
    l->files += n;
    for (size_t i = 0; i < n; i++) {
        l->bytes += rows[i].object.size;
        if (i % 16 == 0) /* is enough */
            split_learn(&l->alphabet, rows[i].key + prefix);
    }
    bool is_long = range->rows >= PAGE && !was_long;
    if (!range->proven || is_long) {
        range->proven = true;
        end_cut(l, range, true);
        if (is_long)
            pthread_cond_broadcast(&l->changed); /* now it may be cut */
    }
    return n;
}

static int take_page(void *ctx, const struct s3_entry *rows, size_t count)
{
    struct worker *w = ctx;
    struct lister *l = w->l;
    size_t prefix = strlen(l->o->prefix), mine;

    {
        WITH_LOCK(&l->lock);
        if (l->result < 0 || is_interrupted(l))
            return 1;
        mine = claim(l, w->range, rows, count);
    }
    for (size_t i = 0; i < mine; i++) {
        int r = rows_add(&w->range->builder, rows[i].key + prefix, &rows[i].object);
        if (r < 0)
            return r;
    }
    return mine < count;
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
static void list_range(struct worker *w)
{
    struct lister *l = w->l;
    struct range *range = w->range;
    char start[S3_KEY_MAX + 1], prefix[S3_KEY_MAX + 1];
    struct err err = ERR_INIT;
    struct s3_list_options o = {
        .prefix = prefix, .versions = l->o->versions, .page = PAGE, .pages = take_page};

    whole_key(l, range->whole_path, prefix);
    if (!range->whole_path[0] && range->start[0]) {
        whole_key(l, range->start, start);
        o.start_after = start;
    }
    int r = s3_list(l->o->s3, l->o->bucket, &o, NULL, w, NULL, &err);
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

/* Which directory to cut at: the one in the middle of those that are known in what is left of the
 * range, or the last one alone; and how many there are. */
static bool pick_hint(const struct lister *l, const struct range *range, size_t *ret,
                      size_t *ret_count)
{
    const char *to = range->has_end ? range->end : NULL;
    char cut[S3_KEY_MAX + 1];
    size_t first, end;

    hints_between(&l->hints, range->at, to, &first, &end);
    if (first >= end)
        return false;
    *ret = range->per_directory >= PAGE / 2 ? end - 1 : first + (end - first) / 2;
    *ret_count = end - first;
    hint_cut(&l->hints.at[*ret], cut);
    return strcmp(cut, range->at) > 0 && (!to || strcmp(cut, to) < 0);
}

/* Rows in it that nobody has listed, by its directories; 0: not known, or none to cut at. */
static uint64_t rows_left(const struct lister *l, struct range *range)
{
    size_t hint, count,
        seen =
            hints_first_behind(&l->hints, range->at) - hints_first_behind(&l->hints, range->start);

    if (range->listed >= PAGE && l->hints.count > 0)
        range->per_directory = range->listed / (seen > 0 ? seen : 1);
    return pick_hint(l, range, &hint, &count) ? count * range->per_directory : 0;
}

/* `ret_whole`: all that is behind the cut is below that path; "": not so. */
static bool cut_at_hint(const struct lister *l, const struct range *range,
                        char ret[static S3_KEY_MAX + 1], char ret_whole[static S3_KEY_MAX + 1])
{
    size_t i, count;

    ret_whole[0] = '\0';
    if (!pick_hint(l, range, &i, &count))
        return false;
    hint_cut(&l->hints.at[i], ret);
    if (hint_is_whole(&l->hints, i, range->has_end ? range->end : NULL))
        (void)snprintf(ret_whole, S3_KEY_MAX + 1, "%s", l->hints.at[i].path); /* a key */
    return true;
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
    struct hints_page page;
    unsigned rows;
    bool stopped;
};

static int take_prefix(void *ctx, const struct s3_entry *e)
{
    struct asking *a = ctx;
    int r = hints_see(&a->page, e->key + strlen(a->l->o->prefix), e->is_prefix);

    if (r < 0)
        return r;
    a->stopped = ++a->rows == PAGE;
    return a->stopped;
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
    memcpy(a.page.last, range->at, sizeof a.page.last);
    whole_key(l, path, prefix);
    whole_key(l, range->at, start);
    int r = begin_asking(l, path, &number);
    if (r < 0)
        return err_fail(err, r, "out of memory");
    pthread_mutex_unlock(&l->lock);
    r = s3_list(l->o->s3, l->o->bucket, &o, take_prefix, &a, NULL, err);
    pthread_mutex_lock(&l->lock);
    if (r >= 0)
        r = hints_learn(&l->hints, &a.page);
    /* Where it is mostly files there is nothing more to learn. */
    if (r == 0 && a.stopped && a.page.found.count >= PAGE / 2) {
        char *to = strdup(a.page.last);
        if (to) {
            free(l->asked.at[number].to);
            l->asked.at[number].to = to;
        }
        r = to ? 0 : -ENOMEM;
    }
    hints_page_release(&a.page);
    return r < 0 ? r : 0;
}

/* What has most left, as far as that is known; else what is listed for longest, without having been
 * cut. */
static struct range *find_longest(struct lister *l)
{
    struct range *longest = NULL;
    uint64_t most = PAGE - 1;

    for (unsigned i = 0; i < l->workers; i++) {
        uint64_t left = l->ranges[i].active ? rows_left(l, &l->ranges[i]) : 0;
        if (left > most) {
            most = left;
            longest = &l->ranges[i];
        }
    }
    for (unsigned i = 0; i < l->workers && most < PAGE; i++) {
        struct range *r = &l->ranges[i];
        if (r->active && r->proven && !r->asking && r->cuts < CUTS_MAX && r->rows >= PAGE &&
            (!longest || r->rows >> r->cuts > longest->rows >> longest->cuts))
            longest = r;
    }
    return longest;
}

static void begin_range(struct lister *l, struct range *mine, struct range *from, const char *cut,
                        const char *whole)
{
    struct rows_builder fresh = {.total = 0};

    mine->builder = fresh;
    mine->has_end = from->has_end;
    memcpy(mine->end, from->end, sizeof mine->end);
    (void)snprintf(mine->at, sizeof mine->at, "%s", cut); /* a key's length */
    memcpy(mine->start, mine->at, sizeof mine->start);
    (void)snprintf(mine->whole_path, sizeof mine->whole_path, "%s", whole); /* so is this */
    mine->per_directory = from->per_directory;
    mine->listed = 0;
    mine->proven = mine->asking = false;
    mine->cuts = 0;
    mine->number = ++l->begun;
    mine->cut_from_number = from->number;
    mine->rows = 0;
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
    char at[S3_KEY_MAX + 1], whole[S3_KEY_MAX + 1];
    struct err err = ERR_INIT;
    struct range *from = find_longest(l);
    size_t n;

    if (!from)
        return false;
    if (!cut_at_hint(l, from, at, whole)) {
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
    begin_range(l, mine, from, at, whole);
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
            pthread_mutex_unlock(&l->lock);
            list_range(w);
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
    hints_release(&l->hints);
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
