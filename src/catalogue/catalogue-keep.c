/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Records that never change, kept in a local file: a listing of a bucket that was listed before
 * reads no outcome again.
 *
 * The file holds records as the store gave them, each with its own digest, which is checked when it
 * is used; so what is damaged here is read from the store again. It is read at once, added to in
 * memory, and written anew as a whole when the catalogue is closed, under another name first: of
 * two processes the later one wins, and nothing is lost but time. Format: docs/formats/state.md,
 * "Kept records". Does not: keep what may change or go (leases, heartbeats, formats).
 */
#include "catalogue/catalogue-internal.h"

#include "base/file.h"
#include "base/le.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>

#define MAGIC      "GRIDKEEP"
#define HEADER     16u
#define ROW_HEADER 8u
/* Some 60,000 records; then it begins anew. */
#define KEEP_MAX  (64u << 20)
#define BODY_MAX  8192u
#define SLOTS_MIN 1024u

/* One record: where its row stands in the bytes; 0: free. */
struct keep {
    char *path; /* owned */
    pthread_mutex_t lock;
    struct buf bytes; /* the file as it is to be written */
    size_t *slots;    /* owned; open addressing */
    size_t slot_count, count;
    bool dirty;
};

/* FNV-1a, which is enough for keys that nobody chooses to collide in their own file. */
static size_t hash(const char *key, size_t length)
{
    uint64_t h = UINT64_C(0xcbf29ce484222325);

    for (size_t i = 0; i < length; i++)
        h = (h ^ (uint8_t)key[i]) * UINT64_C(0x100000001b3);
    return (size_t)(h ^ h >> 32);
}

static const char *row_key(const struct keep *k, size_t row, size_t *ret_length)
{
    *ret_length = le16_get(k->bytes.data + row);
    return (const char *)k->bytes.data + row + ROW_HEADER;
}

/* The slot that holds `key`, or the free one where it belongs. */
static size_t *find_slot(struct keep *k, const char *key, size_t length)
{
    size_t i = hash(key, length) & (k->slot_count - 1);

    for (;; i = (i + 1) & (k->slot_count - 1)) {
        size_t other_length;
        if (k->slots[i] == 0)
            return &k->slots[i];
        const char *other = row_key(k, k->slots[i], &other_length);
        if (other_length == length && memcmp(other, key, length) == 0)
            return &k->slots[i];
    }
}

static int grow(struct keep *k)
{
    struct keep larger = *k;

    if ((k->count + 1) * 2 <= k->slot_count)
        return 0;
    larger.slot_count = k->slot_count ? 2 * k->slot_count : SLOTS_MIN;
    larger.slots = calloc(larger.slot_count, sizeof *larger.slots);
    if (!larger.slots)
        return -ENOMEM;
    for (size_t i = 0; i < k->slot_count; i++) {
        size_t length;
        if (k->slots[i] == 0)
            continue;
        const char *key = row_key(k, k->slots[i], &length);
        *find_slot(&larger, key, length) = k->slots[i];
    }
    free(k->slots);
    k->slots = larger.slots;
    k->slot_count = larger.slot_count;
    return 0;
}

/* Note the row at `row`, which is whole. The first one of a key counts. */
static int note_row(struct keep *k, size_t row)
{
    size_t length;
    int r = grow(k);

    if (r < 0)
        return r;
    const char *key = row_key(k, row, &length);
    size_t *slot = find_slot(k, key, length);
    if (*slot == 0) {
        *slot = row;
        k->count++;
    }
    return 0;
}

static int begin_anew(struct keep *k)
{
    uint8_t header[HEADER] = MAGIC;

    le32_put(header + 8, 1);
    buf_clear(&k->bytes);
    k->count = 0;
    if (k->slots)
        memset(k->slots, 0, k->slot_count * sizeof *k->slots);
    return buf_append(&k->bytes, header, sizeof header);
}

/* Rows up to the first that is not whole. False: it is no such file. */
static bool take_rows(struct keep *k)
{
    size_t at = HEADER;

    if (k->bytes.size < HEADER || memcmp(k->bytes.data, MAGIC, strlen(MAGIC)) != 0 ||
        le32_get(k->bytes.data + 8) != 1)
        return false;
    while (k->bytes.size - at >= ROW_HEADER) {
        size_t key = le16_get(k->bytes.data + at), body = le32_get(k->bytes.data + at + 4);
        if (key == 0 || key > CATALOGUE_KEY_MAX || body == 0 || body > BODY_MAX ||
            k->bytes.size - at - ROW_HEADER < key + body)
            break;
        if (note_row(k, at) < 0)
            break;
        at += ROW_HEADER + key + body;
    }
    k->bytes.size = at;
    return true;
}

int keep_open(const char *path, struct keep **ret)
{
    AUTO(free_ptr) struct keep *k = calloc(1, sizeof *k);

    if (!k)
        return -ENOMEM;
    k->bytes = (struct buf)BUF_INIT(KEEP_MAX);
    k->path = strdup(path);
    int r = k->path ? file_slurp(AT_FDCWD, path, &k->bytes) : -ENOMEM;
    if (k->path && (r < 0 || !take_rows(k)))
        r = begin_anew(k);
    if (r < 0) {
        buf_release(&k->bytes);
        free(k->slots);
        free(k->path);
        return r;
    }
    pthread_mutex_init(&k->lock, NULL);
    *ret = take_ptr(&k);
    return 0;
}

bool keep_get(struct keep *k, const char *key, struct buf *b)
{
    size_t length = strlen(key);

    WITH_LOCK(&k->lock);
    size_t row = k->slot_count ? *find_slot(k, key, length) : 0;
    if (row == 0)
        return false;
    uint32_t size = le32_get(k->bytes.data + row + 4);
    return buf_append(b, k->bytes.data + row + ROW_HEADER + length, size) == 0;
}

void keep_put(struct keep *k, const char *key, struct bytes body)
{
    size_t length = strlen(key);
    uint8_t header[ROW_HEADER] = {0};

    if (body.size == 0 || body.size > BODY_MAX)
        return;
    le16_put(header, (uint16_t)length);
    le32_put(header + 4, (uint32_t)body.size);
    WITH_LOCK(&k->lock);
    if (k->bytes.size + sizeof header + length + body.size > KEEP_MAX && begin_anew(k) < 0)
        return;
    size_t row = k->bytes.size;
    if (buf_append(&k->bytes, header, sizeof header) < 0 ||
        buf_append(&k->bytes, key, length) < 0 || buf_append(&k->bytes, body.data, body.size) < 0 ||
        note_row(k, row) < 0)
        k->bytes.size = row; /* not kept: it is read again next time */
    else
        k->dirty = true;
}

static int write_file(const struct keep *k)
{
    AUTO(free_ptr) char *temporary = NULL;

    if (asprintf(&temporary, "%s.%d", k->path, (int)getpid()) < 0)
        return -ENOMEM;
    int fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0)
        return -errno;
    int r = file_write(fd, k->bytes.data, k->bytes.size);
    if (close(fd) < 0 && r == 0)
        r = -errno;
    if (r == 0 && rename(temporary, k->path) < 0)
        r = -errno;
    if (r < 0)
        (void)unlink(temporary); /* may not exist */
    return r;
}

void keep_close(struct keep *k)
{
    if (!k)
        return;
    if (k->dirty)
        (void)write_file(k); /* only time is lost */
    pthread_mutex_destroy(&k->lock);
    buf_release(&k->bytes);
    free(k->slots);
    free(k->path);
    free(k);
}
