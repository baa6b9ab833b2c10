/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Verified reads. A read first takes what is cached, leaf by leaf. What is not is read in runs of
 * leaves that lie one behind the other, one get for each run, every leaf digested before anybody
 * sees it, without the lock.
 *
 * Leaves of an index all have one size, so a cached one is found by its number alone; for a pack
 * the leaf table says which leaf covers an offset.
 */
#include "fetch/fetch-internal.h"

#include "base/log.h"

#include <inttypes.h>
#include <string.h>

/* One get; more than that is not read ahead of being asked for. */
#define RUN_MAX (1u << 20)
/* Leaves in a run: those of one page of the table at most. */
#define RUN_LEAVES PACK_PAGE_LEAVES
/* Up to this a copy is made under the lock: shorter than taking it twice. */
#define COPY_LOCKED_MAX 4096u

/* ---- life
 * --------------------------------------------------------------------------------------------------
 */

int fetch_new(const struct fetch_options *o, struct fetch **ret)
{
    AUTO(free_ptr) struct fetch *f = calloc(1, sizeof *f);
    uint64_t limit = o->memory_bytes ? o->memory_bytes : FETCH_MEMORY_DEFAULT;

    if (!f)
        return -ENOMEM;
    int r = memory_init(&f->memory, limit > FETCH_MEMORY_MIN ? limit : FETCH_MEMORY_MIN);
    if (r < 0)
        return r;
    f->store = o->store;
    f->open_source = o->open_source;
    f->open_source_ctx = o->open_source_ctx;
    *ret = take_ptr(&f);
    return 0;
}

void fetch_free(struct fetch *f)
{
    if (!f)
        return;
    memory_release(&f->memory);
    free(f);
}

int fetch_object_new(struct fetch *f, const char *key, enum pack_kind kind,
                     const struct pack_summary *s, struct fetch_object **ret)
{
    AUTO(fetch_object_free) struct fetch_object *o = calloc(1, sizeof *o);

    if (s->trailer_length == 0 || s->trailer_length > PACK_TRAILER_MAX ||
        s->trailer_offset > s->length || s->length - s->trailer_offset != s->trailer_length ||
        s->data_size > s->trailer_offset)
        return -EPROTO;
    if (!o)
        return -ENOMEM;
    o->key = strdup(key);
    if (!o->key)
        return -ENOMEM;
    o->fetch = f;
    o->kind = kind;
    o->summary = *s;
    {
        WITH_LOCK(&f->memory.lock);
        o->id = f->next_object++;
    }
    *ret = take_ptr(&o);
    return 0;
}

int fetch_object_new_linked(struct fetch *f, const char *key, const struct pack_summary *table,
                            uint64_t blocks, struct fetch_object **ret)
{
    AUTO(fetch_object_free) struct fetch_object *o = calloc(1, sizeof *o);
    struct fetch_object *links = NULL;

    if (!o)
        return -ENOMEM;
    o->fetch = f;
    o->kind = PACK_KIND_LINKS;
    o->summary.data_size = blocks * PACK_BLOCK;
    int r = fetch_object_new(f, key, PACK_KIND_LINKS, table, &links);
    if (r == 0)
        r = fetch_linked_new(links, key, table->data_size, blocks, f->open_source,
                             f->open_source_ctx, &o->linked);
    if (r == 0)
        *ret = take_ptr(&o);
    return r;
}

/* What is cached of it ages away: its id is never used again. */
void fetch_object_free(struct fetch_object *o)
{
    if (!o)
        return;
    fetch_linked_free(o->linked);
    free(o->key);
    free(o);
}

void fetch_stats(struct fetch *f, struct fetch_stats *ret)
{
    WITH_LOCK(&f->memory.lock);
    *ret = (struct fetch_stats){.hits = f->hits,
                                .misses = f->misses,
                                .bytes_store = f->bytes_read,
                                .bytes_verified = f->bytes_verified,
                                .damaged = f->damaged,
                                .memory_bytes = f->memory.used,
                                .memory_limit = f->memory.limit};
}

/* ---- reading from the store
 * ----------------------------------------------------------------------------- */

int fetch_damaged(struct fetch_object *o, uint64_t offset, size_t size, const char *what)
{
    log_warning("%s: %s at offset %" PRIu64 ", %zu bytes, does not match its digest", o->key, what,
                offset, size);
    WITH_LOCK(&o->fetch->memory.lock);
    o->fetch->damaged++;
    return -EBADMSG;
}

int fetch_get(struct fetch_object *o, uint64_t offset, void *data, size_t size)
{
    size_t got = 0;
    int r = store_get(o->fetch->store, o->key, offset, data, size, &got, NULL);

    if (r < 0) {
        log_debug("%s: reading %zu bytes at offset %" PRIu64 ": %s", o->key, size, offset,
                  store_error(o->fetch->store, r));
        return r;
    }
    if (got < size)
        return fetch_damaged(o, offset + got, size - got, "the object ends too early: what is");
    WITH_LOCK(&o->fetch->memory.lock);
    o->fetch->bytes_read += size;
    return 0;
}

/* ---- hits
 * -------------------------------------------------------------------------------------------------
 */

/* The key of the leaf that covers `offset`, and where it starts. With the lock. 1: known; 0: the
 * table has to be read first; -EPROTO. */
static int leaf_key(struct fetch_object *o, uint64_t offset, uint64_t hint, struct memory_key *key,
                    uint64_t *ret_start)
{
    struct fetch_place place;

    if (o->kind != PACK_KIND_DATA) {
        *key = fetch_key(o, MEMORY_LEAF, offset / PACK_INDEX_LEAF);
        *ret_start = offset - offset % PACK_INDEX_LEAF;
        return 1;
    }
    int r = fetch_table_find(o, offset, hint, &place);
    if (r == 1) {
        *key = fetch_key(o, MEMORY_LEAF, place.at.number);
        *ret_start = place.at.block * PACK_BLOCK;
    }
    return r;
}

/* Copy what the cached leaf at `offset` has. The number of bytes, 0 if it is not cached, -EPROTO.
 */
static ssize_t read_cached(struct fetch_object *o, uint64_t offset, void *data, size_t size,
                           uint64_t hint)
{
    struct memory *c = &o->fetch->memory;
    struct memory_key key;
    uint64_t start;

    pthread_mutex_lock(&c->lock);
    int r = leaf_key(o, offset, hint, &key, &start);
    struct memory_entry *e = r == 1 ? memory_find(c, &key) : NULL;
    if (!e) {
        pthread_mutex_unlock(&c->lock);
        return r < 0 ? r : 0;
    }
    size_t at = (size_t)(offset - start);
    if (at >= e->size) {
        pthread_mutex_unlock(&c->lock);
        return -EPROTO; /* padding */
    }
    size_t n = size < e->size - at ? size : e->size - at;
    o->fetch->hits++;
    if (n <= COPY_LOCKED_MAX) {
        memcpy(data, (const uint8_t *)e->data + at, n);
    } else {
        memory_pin(e);
        pthread_mutex_unlock(&c->lock);
        memcpy(data, (const uint8_t *)e->data + at, n);
        pthread_mutex_lock(&c->lock);
        memory_unpin(c, e);
    }
    pthread_mutex_unlock(&c->lock);
    return (ssize_t)n;
}

/* ---- misses
 * -----------------------------------------------------------------------------------------------
 */

/* Leaves one behind the other, that one get reads. */
struct run {
    struct pack_leaf_at leaves[RUN_LEAVES];
    struct memory_entry *claims[RUN_LEAVES];
    size_t count, claimed;
    size_t reserved;
};

static size_t run_bytes(const struct pack_leaf_at *leaves, size_t count)
{
    const struct pack_leaf_at *last = &leaves[count - 1];

    return (size_t)((last->block - leaves[0].block) * PACK_BLOCK) + last->leaf.length;
}

/* The leaves from `offset` on that a read of `size` bytes wants. */
static int find_run(struct fetch_object *o, uint64_t offset, size_t size, uint64_t hint,
                    struct run *run)
{
    struct memory *c = &o->fetch->memory;
    struct fetch_place p;
    int r;

    for (;;) {
        {
            WITH_LOCK(&c->lock);
            r = fetch_table_find(o, offset, hint, &p);
            if (r == 1) {
                /* The page is good while we have the lock. Rows behind the last one are zero. */
                uint64_t end = offset + size;
                run->leaves[0] = p.at;
                run->count = 1;
                while (++p.row < PACK_PAGE_LEAVES && run->count < RUN_LEAVES) {
                    struct pack_leaf_at at = pack_page_leaf(p.page, p.page_number, p.row);
                    run->leaves[run->count] = at;
                    if (at.leaf.length == 0 || at.block * PACK_BLOCK >= end ||
                        run_bytes(run->leaves, run->count + 1) > RUN_MAX)
                        break;
                    run->count++;
                }
                return 0;
            }
        }
        if (r == 0)
            r = fetch_table_load(o, offset, hint);
        if (r < 0)
            return r;
    }
}

/* Claim the first leaf (waiting for whoever reads it: 0 claims then), and as many behind it as
 * nobody has or reads. */
static int claim_run(struct fetch_object *o, struct run *run)
{
    struct memory *c = &o->fetch->memory;
    int r = 0;

    /* The bytes as they are read, and again as they are kept. */
    run->reserved = 2 * run_bytes(run->leaves, run->count) + run->count * MEMORY_ENTRY_COST;
    run->claimed = 0;
    WITH_LOCK(&c->lock);
    memory_reserve(c, run->reserved);
    while (r == 0 && run->claimed < run->count) {
        struct memory_key key = fetch_key(o, MEMORY_LEAF, run->leaves[run->claimed].number);
        struct memory_entry *claim = NULL;
        r = memory_claim(c, &key, run->claimed == 0, &claim);
        if (!claim)
            break;
        run->claims[run->claimed++] = claim;
    }
    if (run->claimed == 0)
        memory_unreserve(c, run->reserved);
    o->fetch->misses += run->claimed;
    return run->claimed ? 0 : r;
}

/* Digest the leaves in `bytes`; gives how many match, in order. The first one is worth a warning:
 * it is asked for now. */
static size_t verify_run(struct fetch_object *o, const struct run *run, const uint8_t *bytes)
{
    for (size_t i = 0; i < run->claimed; i++) {
        const struct pack_leaf_at *at = &run->leaves[i];
        size_t from = (size_t)((at->block - run->leaves[0].block) * PACK_BLOCK);
        struct digest d = digest_of(bytes + from, at->leaf.length);
        if (!digest_equal(&d, &at->leaf.digest)) {
            if (i == 0)
                (void)fetch_damaged(o, at->block * PACK_BLOCK, at->leaf.length, "the leaf");
            return i;
        }
    }
    return run->claimed;
}

/* End all claims: the first `good` leaves go to the cache. */
static void settle_run(struct fetch_object *o, struct run *run, uint8_t **bytes, size_t good)
{
    struct memory *c = &o->fetch->memory;
    uint8_t *copies[RUN_LEAVES] = {NULL};

    if (run->claimed == 1 && good == 1) {
        copies[0] = take_ptr(bytes);
    } else {
        for (size_t i = 0; i < good; i++) {
            const struct pack_leaf_at *at = &run->leaves[i];
            copies[i] = malloc(at->leaf.length);
            if (copies[i])
                memcpy(copies[i], *bytes + (at->block - run->leaves[0].block) * PACK_BLOCK,
                       at->leaf.length);
        }
    }
    WITH_LOCK(&c->lock);
    for (size_t i = 0; i < run->claimed; i++) {
        size_t length = run->leaves[i].leaf.length;
        if (copies[i]) {
            memory_fill(c, run->claims[i], copies[i], length, length + MEMORY_ENTRY_COST);
            run->reserved -= length + MEMORY_ENTRY_COST;
            o->fetch->bytes_verified += length;
        } else {
            memory_give_up(c, run->claims[i]);
        }
    }
    memory_unreserve(c, run->reserved);
}

/* Read what is missing at `offset`, and copy from it; the number of bytes (0: somebody else has
 * read it), or an error. */
static ssize_t read_missing(struct fetch_object *o, uint64_t offset, void *data, size_t size,
                            uint64_t hint)
{
    struct run run;
    size_t good = 0, copied = 0;
    int r = find_run(o, offset, size, hint, &run);

    if (r == 0)
        r = claim_run(o, &run);
    if (r < 0 || run.claimed == 0)
        return r;
    uint64_t start = run.leaves[0].block * PACK_BLOCK;
    size_t length = run_bytes(run.leaves, run.claimed);
    AUTO(free_ptr) uint8_t *bytes = malloc(length);
    r = bytes ? fetch_get(o, start, bytes, length) : -ENOMEM;
    if (r == 0) {
        good = verify_run(o, &run, bytes);
        r = good ? 0 : -EBADMSG;
    }
    for (size_t i = 0; i < good && copied < size; i++) {
        uint64_t from = run.leaves[i].block * PACK_BLOCK;
        uint64_t end = from + run.leaves[i].leaf.length;
        if (offset + copied < from || offset + copied >= end) {
            r = copied ? 0 : -EPROTO; /* padding: the next call says so */
            break;
        }
        size_t n = (size_t)(end - (offset + copied));
        n = n < size - copied ? n : size - copied;
        memcpy((uint8_t *)data + copied, bytes + (offset + copied - start), n);
        copied += n;
    }
    settle_run(o, &run, &bytes, good);
    return r < 0 ? r : (ssize_t)copied;
}

int fetch_read(struct fetch_object *o, uint64_t offset, void *data, size_t size, uint64_t leaf_hint)
{
    uint8_t *to = data;

    if (size > o->summary.data_size || offset > o->summary.data_size - size)
        return -EPROTO;
    if (o->linked)
        return fetch_linked_read(o->linked, offset, data, size, leaf_hint);
    while (size > 0) {
        ssize_t n = read_cached(o, offset, to, size, leaf_hint);
        if (n == 0)
            n = read_missing(o, offset, to, size, leaf_hint);
        if (n < 0)
            return (int)n;
        if (n > 0)
            leaf_hint = FETCH_NO_HINT; /* it was for the first leaf */
        to += n;
        offset += (uint64_t)n;
        size -= (size_t)n;
    }
    return 0;
}
