/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The table of known blobs: 256 small open-addressing tables, by the first byte of the digest.
 *
 * Each grows on its own by a quarter when it is 7/8 full, so that neither a doubling nor a copy of
 * the whole is ever in memory: some 20 bytes a blob, at most.
 */
#include "publish/publish-dedup.h"

#include "base/le.h"

#include <string.h>

#define SHARDS         256u
#define SHARD_CAPACITY 64u /* at first */

struct row {
    uint64_t key; /* bytes 1 to 8 of the digest; */
    uint32_t block;
    uint16_t pack;
    uint16_t used;
};
_Static_assert(sizeof(struct row) == 16, "16 bytes a blob");

struct shard {
    struct row *rows; /* owned */
    uint32_t count, capacity;
};

struct dedup {
    uint64_t max, count;
    struct shard shards[SHARDS];
};

int dedup_new(uint64_t max_blobs, struct dedup **ret)
{
    struct dedup *d = calloc(1, sizeof *d);

    if (!d)
        return -ENOMEM;
    d->max = max_blobs;
    *ret = d;
    return 0;
}

void dedup_free(struct dedup *d)
{
    if (!d)
        return;
    for (size_t i = 0; i < SHARDS; i++)
        free(d->shards[i].rows);
    free(d);
}

/* The row of `key`, or the free one where it would stand. */
static struct row *find_row(const struct shard *s, uint64_t key)
{
    size_t i = (size_t)(((key >> 32) * s->capacity) >> 32);

    while (s->rows[i].used && s->rows[i].key != key)
        i = i + 1 == s->capacity ? 0 : i + 1;
    return &s->rows[i];
}

static int grow(struct shard *s)
{
    struct shard larger = {.count = s->count};

    if (s->capacity > UINT32_MAX / 2)
        return -ENOMEM;
    larger.capacity = s->capacity ? s->capacity + s->capacity / 4 : SHARD_CAPACITY;
    larger.rows = calloc(larger.capacity, sizeof *larger.rows);
    if (!larger.rows)
        return -ENOMEM;
    for (uint32_t i = 0; i < s->capacity; i++) {
        if (s->rows[i].used)
            *find_row(&larger, s->rows[i].key) = s->rows[i];
    }
    free(s->rows);
    *s = larger;
    return 0;
}

static uint64_t key_of(const struct digest *id)
{
    return le64_get(id->byte + 1);
}

bool dedup_find(const struct dedup *d, const struct digest *id, struct dedup_place *ret)
{
    const struct shard *s = &d->shards[id->byte[0]];

    if (s->count == 0)
        return false;
    const struct row *row = find_row(s, key_of(id));
    if (row->used)
        *ret = (struct dedup_place){row->block, row->pack};
    return row->used;
}

int dedup_add(struct dedup *d, const struct digest *id, struct dedup_place place)
{
    struct shard *s = &d->shards[id->byte[0]];

    if (d->count >= d->max)
        return 0;
    if (s->count + 1 > s->capacity - s->capacity / 8) {
        int r = grow(s);
        if (r < 0)
            return r;
    }
    struct row *row = find_row(s, key_of(id));
    if (row->used)
        return 0;
    *row = (struct row){.key = key_of(id), .block = place.block, .pack = place.pack, .used = 1};
    s->count++;
    d->count++;
    return 0;
}

uint64_t dedup_count(const struct dedup *d)
{
    return d->count;
}

uint64_t dedup_memory(const struct dedup *d)
{
    uint64_t bytes = sizeof *d;

    for (size_t i = 0; i < SHARDS; i++)
        bytes += d->shards[i].capacity * sizeof(struct row);
    return bytes;
}
