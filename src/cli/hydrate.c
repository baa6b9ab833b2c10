/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Hydrating: ranges of packs, cut into pieces that a few threads read through fetch, one after the
 * other, in the order in which they lie. Fetch verifies and keeps them; what it did not keep is
 * written here. An object of which everything is there is made durable, and believed the next time.
 *
 * The bytes behind an object's data (its leaf table and trailer) verify the rest and are verified
 * by whoever reads them: they are copied as they are.
 */
#include "cli/hydrate.h"

#include <inttypes.h>
#include <stdatomic.h>
#include <string.h>

/* One piece: what fetch merges into one or two requests. */
#define PIECE_SIZE (8u << 20)
/* Enough to keep warm what fetch keeps under way; each has a piece in memory. */
#define THREADS 6u
/* Smaller gaps between files that are wanted are read, too: cheaper than another request. */
#define GAP_MAX (64u << 10)
/* How long a piece that is refused waits until the cache has made room. */
#define ROOM_ATTEMPTS 50
#define ROOM_WAIT_MS  100
#define REDRAW_MS     100

/* Of one object: the index (number 0), or pack number - 1. */
struct part {
    struct cache_object *cached;
    struct object_ref ref;
    uint64_t flat;      /* where its data begins in the view's flat image; */
    uint64_t flat_size; /* and how much of it stands there */
    char letter;
    bool whole, done;      /* wanted as a whole; and that is there already */
    _Atomic uint32_t left; /* pieces */
};

struct range {
    uint32_t part;
    uint32_t files; /* that end in it */
    uint64_t offset, size;
};

struct hydrate {
    struct opened *o;
    struct part *parts;
    uint32_t part_count;
    VEC(struct range) ranges;
    bool planned;
    uint64_t present;

    _Atomic size_t next;
    _Atomic uint64_t bytes, files;
    _Atomic int failure;
    pthread_mutex_t lock;
    struct err err; /* of the first failure; under lock */
};

/* ---- what is wanted ---- */

static int open_part(struct hydrate *h, uint32_t number)
{
    const struct manifest *m = view_manifest(h->o->view);
    const struct index *x = view_index(h->o->view);
    struct part *p = &h->parts[number];

    p->ref = number ? m->packs[number - 1] : m->index;
    p->letter = number ? 'p' : 'x';
    p->flat = number ? index_device_start(x, number) : 0;
    p->flat_size = number ? p->ref.data_size : m->index_size;
    if (p->ref.linked)
        return 0; /* of a source: not ours to keep */
    return cache_object_open(h->o->cache, &p->ref.digest, p->ref.length, &p->cached);
}

int hydrate_new(struct opened *o, struct hydrate **ret)
{
    const struct manifest *m = view_manifest(o->view);
    AUTO(hydrate_free) struct hydrate *h = calloc(1, sizeof *h);
    int r = 0;

    if (!h)
        return -ENOMEM;
    (void)pthread_mutex_init(&h->lock, NULL); /* cannot fail without attributes */
    h->o = o;
    h->parts = calloc((size_t)m->pack_count + 1, sizeof *h->parts);
    if (!h->parts)
        return -ENOMEM;
    h->part_count = m->pack_count + 1;
    for (uint32_t i = 0; r == 0 && i < h->part_count; i++)
        r = open_part(h, i);
    if (r == 0)
        *ret = take_ptr(&h);
    return r;
}

void hydrate_free(struct hydrate *h)
{
    if (!h)
        return;
    for (uint32_t i = 0; h->parts && i < h->part_count; i++)
        cache_object_close(h->parts[i].cached);
    free(h->parts);
    vec_release(&h->ranges);
    pthread_mutex_destroy(&h->lock);
    free(h);
}

static int add(struct hydrate *h, uint32_t part, uint64_t offset, uint64_t size, uint32_t files)
{
    struct range r = {.part = part, .files = files, .offset = offset, .size = size};

    return size ? vec_push(&h->ranges, r) : 0;
}

int hydrate_add_all(struct hydrate *h)
{
    int r = 0;

    for (uint32_t i = 0; r == 0 && i < h->part_count; i++) {
        if (!h->parts[i].cached)
            continue;
        h->parts[i].whole = true;
        r = add(h, i, 0, h->parts[i].ref.length, 0);
    }
    return r;
}

int hydrate_add_file(struct hydrate *h, const struct index_inode *file)
{
    const struct index *x = view_index(h->o->view);
    uint64_t at = 0;

    while (at < file->size) {
        struct index_extent e;
        int r = index_map(x, file, at, &e);
        if (r < 0)
            return r;
        uint64_t end = e.chunk_offset + e.chunk_size;
        if (end <= at)
            return -EPROTO;
        if (e.device && e.device < h->part_count && h->parts[e.device].cached)
            r = add(h, e.device, e.block * 512,
                    (e.chunk_size + CACHE_BLOCK - 1) / CACHE_BLOCK * CACHE_BLOCK,
                    end >= file->size);
        if (r < 0)
            return r;
        at = end;
    }
    return 0;
}

static int by_place(const void *a, const void *b)
{
    const struct range *x = a, *y = b;

    if (x->part != y->part)
        return x->part < y->part ? -1 : 1;
    return (x->offset > y->offset) - (x->offset < y->offset);
}

/* Join what touches or nearly does; drop objects that are there as a whole. */
static void merge(struct hydrate *h)
{
    size_t count = 0;

    for (size_t i = 0; i < h->ranges.count; i++) {
        struct range r = h->ranges.at[i];
        struct range *last = count ? &h->ranges.at[count - 1] : NULL;
        if (last && last->part == r.part && r.offset <= last->offset + last->size + GAP_MAX) {
            uint64_t end = r.offset + r.size, last_end = last->offset + last->size;
            last->size = (end > last_end ? end : last_end) - last->offset;
            last->files += r.files;
        } else {
            h->ranges.at[count++] = r;
        }
    }
    h->ranges.count = count;
}

uint64_t hydrate_plan(struct hydrate *h)
{
    uint64_t sum = 0;

    if (h->ranges.count)
        qsort(h->ranges.at, h->ranges.count, sizeof h->ranges.at[0], by_place);
    merge(h);
    for (size_t i = 0; i < h->ranges.count; i++)
        sum += h->ranges.at[i].size;
    return sum;
}

/* Cut the ranges into pieces, at multiples of their size, and leave out what is complete. */
static int cut(struct hydrate *h)
{
    VEC(struct range) pieces = {0};
    int r = 0;

    for (size_t i = 0; r == 0 && i < h->ranges.count; i++) {
        struct range left = h->ranges.at[i];
        struct part *p = &h->parts[left.part];
        if (!p->done && cache_object_is_complete(p->cached))
            p->done = true;
        if (p->done) {
            h->present += left.size;
            h->files += left.files;
            continue;
        }
        while (r == 0 && left.size > 0) {
            uint64_t n = PIECE_SIZE - left.offset % PIECE_SIZE;
            struct range piece = {.part = left.part, .offset = left.offset};
            piece.size = n < left.size ? n : left.size;
            left.offset += piece.size;
            left.size -= piece.size;
            piece.files = left.size ? 0 : left.files;
            r = vec_push(&pieces, piece);
            if (r == 0)
                p->left++;
        }
    }
    vec_release(&h->ranges);
    h->ranges.at = pieces.at;
    h->ranges.count = pieces.count;
    h->ranges.capacity = pieces.capacity;
    return r;
}

uint64_t hydrate_present(const struct hydrate *h)
{
    return h->present;
}

/* ---- doing it ---- */

static int fail(struct hydrate *h, int r, const char *what, const struct part *p)
{
    char key[OBJECT_KEY_MAX];
    int none = 0;

    object_ref_key(p->letter, &p->ref, key);
    if (!atomic_compare_exchange_strong(&h->failure, &none, r))
        return r;
    WITH_LOCK(&h->lock);
    return err_fail(&h->err, r, "%s %s: %s", what, key, strerror(-r));
}

static bool is_stopped(struct hydrate *h)
{
    return interrupt_signal || atomic_load(&h->failure);
}

/* Keep what fetch did not: the cache had no room, and makes some. */
static int keep(struct hydrate *h, struct part *p, uint64_t offset, const uint8_t *data,
                uint64_t size)
{
    uint64_t end = offset + size;
    int r = 0;

    for (int attempt = 0; attempt < ROOM_ATTEMPTS && !is_stopped(h); attempt++) {
        uint64_t from = cache_missing(p->cached, offset, end);
        if (from >= end)
            return 0;
        from -= from % CACHE_BLOCK;
        r = cache_write(p->cached, from, data + (from - offset), (size_t)(end - from));
        if (r == 0)
            return 0;
        if (r != -EDQUOT && r != -EAGAIN && r != -ENOSPC)
            break;
        env_real()->sleep_ms(env_real(), ROOM_WAIT_MS);
    }
    return r;
}

/* The part of an object that is not data of the flat image. */
static int read_raw(struct hydrate *h, const struct part *p, uint64_t offset, uint8_t *data,
                    size_t size)
{
    char key[OBJECT_KEY_MAX];
    size_t got = 0;

    object_ref_key(p->letter, &p->ref, key);
    int r = store_get(h->o->store, key, offset, data, size, &got, NULL);
    return r == 0 && got < size ? -EBADMSG : r;
}

static int do_piece(struct hydrate *h, const struct range *piece, uint8_t *data)
{
    struct part *p = &h->parts[piece->part];
    uint64_t end = piece->offset + piece->size;
    uint64_t flat_end = end < p->flat_size ? end : p->flat_size;
    size_t verified = piece->offset < flat_end ? (size_t)(flat_end - piece->offset) : 0;
    int r = 0;

    if (verified)
        r = view_flat_read(h->o->view, p->flat + piece->offset, data, verified);
    uint64_t rest = piece->offset + verified;
    if (r == 0 && rest < end && cache_missing(p->cached, rest, end) < end)
        r = read_raw(h, p, rest, data + verified, (size_t)(end - rest));
    else if (r == 0)
        end = rest;
    if (r < 0)
        return fail(h, r, "cannot read", p);
    /* A cut in the middle of a block is no border of the cache. */
    uint64_t whole = end == p->ref.length ? end : end - end % CACHE_BLOCK;
    if (whole > piece->offset)
        r = keep(h, p, piece->offset, data, whole - piece->offset);
    if (r < 0)
        return fail(h, r == -EDQUOT ? -ENOSPC : r, "the cache does not keep", p);
    h->files += piece->files;
    h->bytes += piece->size;
    if (atomic_fetch_sub(&p->left, 1) == 1 && p->whole)
        (void)cache_object_settle(p->cached); /* else it is looked at again the next time */
    return 0;
}

static void *work(void *arg)
{
    struct hydrate *h = arg;
    uint8_t *data = malloc(PIECE_SIZE);

    if (!data) {
        (void)fail(h, -ENOMEM, "cannot read", &h->parts[0]);
        return NULL;
    }
    while (!is_stopped(h)) {
        size_t i = atomic_fetch_add(&h->next, 1);
        if (i >= h->ranges.count || do_piece(h, &h->ranges.at[i], data) < 0)
            break;
    }
    free(data);
    return NULL;
}

static bool is_over(struct hydrate *h, uint64_t total)
{
    return is_stopped(h) || atomic_load(&h->bytes) >= total;
}

int hydrate_run(struct hydrate *h, struct progress *p, struct err *err)
{
    pthread_t threads[THREADS];
    unsigned count = 0;
    uint64_t total = 0;
    int r = cut(h);

    if (r < 0)
        return err_fail(err, r, "out of memory");
    for (size_t i = 0; i < h->ranges.count; i++)
        total += h->ranges.at[i].size;
    p->bytes_total = total;
    while (total && count < THREADS && pthread_create(&threads[count], NULL, work, h) == 0)
        count++;
    if (total && count == 0)
        return err_fail(err, -EAGAIN, "there is no thread to read with");
    while (!is_over(h, total)) {
        p->bytes = atomic_load(&h->bytes);
        p->files = atomic_load(&h->files);
        progress_show(p);
        env_real()->sleep_ms(env_real(), REDRAW_MS);
    }
    for (unsigned i = 0; i < count; i++)
        (void)pthread_join(threads[i], NULL); /* each ends behind its piece */
    p->bytes = atomic_load(&h->bytes);
    p->files = atomic_load(&h->files);
    progress_clear();
    r = atomic_load(&h->failure);
    if (r < 0)
        return err_fail(err, r, "%s", h->err.text);
    return interrupt_signal && p->bytes < total ? -ECANCELED : 0;
}
