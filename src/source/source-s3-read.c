/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading ahead: pieces of objects that will be wanted soon are on their way already.
 *
 * What is announced stands in line; requests go out in that order, as many at once as the client
 * takes, as long as what came and was not read yet is within WINDOW_BYTES. A piece that is wanted
 * before its turn goes out at once, whatever the window. So memory is bounded, nothing waits for
 * itself, and a thousand small objects cost a few round trips instead of a thousand.
 *
 * Does not: judge what changed; it only says that it did (-ESTALE).
 */
#include "source/source-s3-internal.h"

#include <string.h>
#include <time.h>

#define WINDOW_BYTES  (UINT64_C(64) << 20)
#define WINDOW_PIECES 8192u /* announced and not read: some 8 batches of publish */
#define BUCKETS       4096u
#define WAIT_MS       200 /* then a wish to stop is heard */
#define SENTENCES     4u

enum piece_state { PIECE_QUEUED, PIECE_RUNNING, PIECE_DONE };

struct piece {
    struct piece *same_bucket;
    struct piece *before, *behind; /* in line */
    struct window *window;
    struct window_object object; /* key owned */
    char *key;                   /* owned */
    uint64_t offset;
    size_t size;
    enum piece_state state;
    int result;
    uint8_t *data; /* owned; since it runs */
    bool dropped;  /* nobody wants it: freed when its answer comes */
    unsigned readers;
};

struct window {
    struct s3 *s3; /* owned */
    char bucket[256];
    const volatile sig_atomic_t *interrupted;
    pthread_mutex_t lock;
    pthread_cond_t done;
    struct piece *buckets[BUCKETS];
    struct piece *first, *last; /* queued */
    unsigned pieces, in_flight;
    uint64_t bytes; /* of pieces that run or are done */
    struct {
        int code;
        struct err err;
    } sentences[SENTENCES];
    unsigned next_sentence;
    bool closing;
};

/* ---- the table --------------------------------------------------------------------------------
 */

static struct piece **bucket_of(struct window *w, const uint8_t *row, uint64_t offset)
{
    uint64_t hash =
        ((uint64_t)(uintptr_t)row + offset / WINDOW_PIECE * 31) * UINT64_C(0x9e3779b97f4a7c15);

    return &w->buckets[hash >> 52];
}
_Static_assert(BUCKETS == 1u << 12, "twelve bits of a hash");

static struct piece *find(struct window *w, const uint8_t *row, uint64_t offset)
{
    struct piece *p = *bucket_of(w, row, offset);

    while (p && (p->object.row != row || p->offset != offset))
        p = p->same_bucket;
    return p;
}

static void leave_line(struct window *w, struct piece *p)
{
    *(p->before ? &p->before->behind : &w->first) = p->behind;
    *(p->behind ? &p->behind->before : &w->last) = p->before;
    p->before = p->behind = NULL;
}

static void piece_free(struct piece *p)
{
    free(p->key);
    free(p->data);
    free(p);
}

/* Out of the table; freed now, or when its answer comes. Under the lock. */
static void drop(struct window *w, struct piece *p)
{
    struct piece **at = bucket_of(w, p->object.row, p->offset);

    while (*at != p)
        at = &(*at)->same_bucket;
    *at = p->same_bucket;
    w->pieces--;
    if (p->state == PIECE_QUEUED)
        leave_line(w, p);
    if (p->state == PIECE_RUNNING) {
        p->dropped = true;
        return;
    }
    if (p->state == PIECE_DONE)
        w->bytes -= p->size;
    piece_free(p);
}

static struct piece *piece_new(struct window *w, const struct window_object *o, uint64_t offset)
{
    struct piece *p = calloc(1, sizeof *p), **at = bucket_of(w, o->row, offset);
    uint64_t left = o->pin.size - offset;

    if (!p)
        return NULL;
    p->key = strdup(o->key);
    if (!p->key) {
        free(p);
        return NULL;
    }
    p->window = w;
    p->object = *o;
    p->object.key = p->key;
    p->offset = offset;
    p->size = (size_t)(left < WINDOW_PIECE ? left : WINDOW_PIECE);
    p->same_bucket = *at;
    *at = p;
    p->before = w->last;
    *(w->last ? &w->last->behind : &w->first) = p;
    w->last = p;
    w->pieces++;
    return p;
}

/* ---- requests ---------------------------------------------------------------------------------
 */

static void start_more(struct window *w);

static void keep_sentence(struct window *w, int code, const struct err *why)
{
    w->sentences[w->next_sentence % SENTENCES].code = code;
    w->sentences[w->next_sentence++ % SENTENCES].err = *why;
}

static void on_answer(void *ctx, int result, size_t size, const struct err *why)
{
    struct piece *p = ctx;
    struct window *w = p->window;

    pthread_mutex_lock(&w->lock);
    w->in_flight--;
    p->state = PIECE_DONE;
    /* Fewer bytes than its listing said: it cannot be the same object. */
    p->result = result == 0 && size != p->size ? -ESTALE : result;
    if (result < 0 && result != -ESTALE)
        keep_sentence(w, result, why);
    if (p->readers > 0)
        pthread_cond_broadcast(&w->done);
    if (p->dropped) {
        w->bytes -= p->size;
        piece_free(p);
    }
    bool closing = w->closing;
    pthread_mutex_unlock(&w->lock);
    if (!closing)
        start_more(w);
}

/* Under the lock: take it out of the line, and its bytes into the account. -ENOMEM. */
static int prepare(struct window *w, struct piece *p)
{
    p->data = malloc(p->size);
    if (!p->data)
        return -ENOMEM;
    leave_line(w, p);
    p->state = PIECE_RUNNING;
    w->in_flight++;
    w->bytes += p->size;
    return 0;
}

/* Without the lock: the answer may come before this returns. */
static void send(struct window *w, struct piece *p)
{
    int r = s3_get_async_told(w->s3, w->bucket, p->object.key, p->offset, p->data, p->size,
                              &p->object.pin, on_answer, p);

    if (r < 0) {
        struct err why = ERR_INIT;
        on_answer(p, r, 0, &why);
    }
}

static void start_more(struct window *w)
{
    for (;;) {
        pthread_mutex_lock(&w->lock);
        struct piece *p = w->first;
        bool go = p && !w->closing && w->in_flight < WINDOW_IN_FLIGHT &&
                  (w->bytes == 0 || w->bytes + p->size <= WINDOW_BYTES) && prepare(w, p) == 0;
        pthread_mutex_unlock(&w->lock);
        if (!go)
            return;
        send(w, p);
    }
}

bool window_announce(struct window *w, const struct window_object *o, uint64_t offset)
{
    bool more = false;

    if (offset >= o->pin.size)
        return true;
    pthread_mutex_lock(&w->lock);
    if (!find(w, o->row, offset))
        (void)piece_new(w, o, offset); /* without memory it is read when it is wanted */
    more = w->pieces < WINDOW_PIECES && w->bytes < WINDOW_BYTES;
    pthread_mutex_unlock(&w->lock);
    start_more(w);
    return more;
}

/* ---- reading ----------------------------------------------------------------------------------
 */

static bool is_interrupted(const struct window *w)
{
    return w->interrupted && __atomic_load_n(w->interrupted, __ATOMIC_RELAXED);
}

static int wait_for(struct window *w, const struct piece *p)
{
    struct timespec until;

    while (p->state != PIECE_DONE) {
        if (is_interrupted(w))
            return -ECANCELED;
        (void)clock_gettime(CLOCK_MONOTONIC, &until); /* cannot fail: the clock exists */
        until.tv_nsec += WAIT_MS * 1000000L;
        until.tv_sec += until.tv_nsec / 1000000000L;
        until.tv_nsec %= 1000000000L;
        (void)pthread_cond_timedwait(&w->done, &w->lock, &until); /* it is looked at anyway */
    }
    return p->result;
}

/* The piece at `offset`, on its way. Under the lock, dropped meanwhile. */
static int demand(struct window *w, const struct window_object *o, uint64_t offset,
                  struct piece **ret)
{
    struct piece *p = find(w, o->row, offset);

    if (!p)
        p = piece_new(w, o, offset);
    if (!p)
        return -ENOMEM;
    p->readers++;
    if (p->state == PIECE_QUEUED) {
        int r = prepare(w, p);
        if (r < 0) {
            p->readers--;
            return r;
        }
        pthread_mutex_unlock(&w->lock);
        send(w, p);
        pthread_mutex_lock(&w->lock);
    }
    *ret = p;
    return 0;
}

/* Copy what the piece at `offset` has of it. */
static ssize_t read_piece(struct window *w, const struct window_object *o, uint8_t *data,
                          size_t size, uint64_t offset)
{
    uint64_t start = offset - offset % WINDOW_PIECE;
    size_t at = (size_t)(offset - start);
    struct piece *p = NULL;
    bool more = false;

    pthread_mutex_lock(&w->lock);
    int r = demand(w, o, start, &p);
    if (r == 0) {
        r = wait_for(w, p);
        p->readers--;
    }
    if (r == 0) {
        if (size > p->size - at)
            size = p->size - at;
        memcpy(data, p->data + at, size);
    }
    /* Read to its end, or of no use: its place is for others. */
    if (p && p->readers == 0 && p->state == PIECE_DONE && (r < 0 || at + size == p->size)) {
        drop(w, p);
        more = true;
    }
    pthread_mutex_unlock(&w->lock);
    if (more)
        start_more(w);
    return r < 0 ? r : (ssize_t)size;
}

ssize_t window_read(struct window *w, const struct window_object *o, void *data, size_t size,
                    uint64_t offset)
{
    uint8_t *to = data;
    size_t done = 0;

    while (done < size && offset + done < o->pin.size) {
        ssize_t n = read_piece(w, o, to + done, size - done, offset + done);
        if (n < 0)
            return n;
        done += (size_t)n;
    }
    return (ssize_t)done;
}

void window_drop(struct window *w, const uint8_t *row)
{
    pthread_mutex_lock(&w->lock);
    for (size_t i = 0; i < BUCKETS; i++) {
        for (struct piece *p = w->buckets[i], *next; p; p = next) {
            next = p->same_bucket;
            if (p->object.row == row && p->readers == 0)
                drop(w, p);
        }
    }
    pthread_mutex_unlock(&w->lock);
}

void window_tell(struct window *w, int code, const struct err *why)
{
    WITH_LOCK(&w->lock);
    keep_sentence(w, code, why);
}

bool window_explain(struct window *w, int code, char *ret, size_t size)
{
    WITH_LOCK(&w->lock);
    for (unsigned i = 0; i < SENTENCES; i++) {
        if (w->sentences[i].code == code && w->sentences[i].err.text[0]) {
            (void)snprintf(ret, size, "%s", w->sentences[i].err.text); /* cut if it must be */
            return true;
        }
    }
    return false;
}

/* ---- life -------------------------------------------------------------------------------------
 */

int window_new(struct s3 *s3, const char *bucket, const volatile sig_atomic_t *interrupted,
               struct window **ret)
{
    struct window *w = calloc(1, sizeof *w);
    pthread_condattr_t attr;

    if (!w)
        return -ENOMEM;
    w->s3 = s3;
    w->interrupted = interrupted;
    (void)snprintf(w->bucket, sizeof w->bucket, "%s", bucket); /* at most 255 bytes */
    pthread_mutex_init(&w->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&w->done, &attr);
    pthread_condattr_destroy(&attr);
    *ret = w;
    return 0;
}

void window_free(struct window *w)
{
    if (!w)
        return;
    pthread_mutex_lock(&w->lock);
    w->closing = true;
    pthread_mutex_unlock(&w->lock);
    s3_free(w->s3); /* all answers have come when it returns */
    for (size_t i = 0; i < BUCKETS; i++) {
        while (w->buckets[i])
            drop(w, w->buckets[i]);
    }
    pthread_cond_destroy(&w->done);
    pthread_mutex_destroy(&w->lock);
    free(w);
}
