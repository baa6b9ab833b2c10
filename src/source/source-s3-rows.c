/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A listing in memory: rows of ascending keys, front-coded in blocks.
 *
 * A block: its number of rows (1 byte), then rows: flags (1), bytes of the key that are those of
 * the row before (varint), bytes of the rest (varint), the rest, size (varint), mtime in seconds
 * less that of the row before (zigzag varint) and its milliseconds if bit 5 of the flags is set
 * (varint), then the pin: how the ETag stands (1), the ETag, length of the version id (1) and it,
 * if bit 6 is set. The first row of a block refers to nothing before it.
 *
 * Ranges are listed out of order, each as a run of blocks; rows_settle() sorts the runs and proves
 * that the whole ascends. Does not: know buckets.
 */
#include "source/source-s3-internal.h"

#include "base/hex.h"

#include <string.h>

#define FLAG_KIND    0x0fu
#define FLAG_CHANGED 0x10u
#define FLAG_MS      0x20u
#define FLAG_VERSION 0x40u
_Static_assert(KEY_KINDS <= FLAG_KIND + 1, "a kind fits its bits");

/* A row at its longest: key, ETag, version id, and five varints. */
#define ROW_MAX (S3_KEY_MAX + S3_ETAG_MAX + 128 + 64)

enum etag_form { ETAG_TEXT, ETAG_MD5, ETAG_PARTS };

#define MD5_BYTES 16u

/* ---- numbers ----------------------------------------------------------------------------------
 */

static size_t put_number(uint8_t *at, uint64_t n)
{
    size_t i = 0;

    for (; n >= 0x80; n >>= 7)
        at[i++] = (uint8_t)(n | 0x80);
    at[i++] = (uint8_t)n;
    return i;
}

/* Blocks are our own, so they are believed. */
static uint64_t get_number(const uint8_t **at)
{
    uint64_t n = 0;

    for (unsigned shift = 0;; shift += 7) {
        uint8_t byte = *(*at)++;
        n |= (uint64_t)(byte & 0x7f) << shift;
        if (!(byte & 0x80))
            return n;
    }
}

static uint64_t zigzag(int64_t n)
{
    return (uint64_t)n << 1 ^ (uint64_t)(n >> 63);
}

static int64_t unzigzag(uint64_t n)
{
    return (int64_t)(n >> 1) ^ -(int64_t)(n & 1);
}

/* ---- pins -------------------------------------------------------------------------------------
 */

/* "d41d...", or "d41d...-17" of an object that was uploaded in 17 parts. */
static enum etag_form etag_form(const char *etag, uint8_t md5[static MD5_BYTES],
                                uint32_t *ret_parts)
{
    size_t n = strlen(etag);
    char again[16];
    uint32_t parts = 0;

    *ret_parts = 0;
    if (n < (size_t)2 * MD5_BYTES || hex_decode(md5, MD5_BYTES, etag) < 0)
        return ETAG_TEXT;
    if (n == (size_t)2 * MD5_BYTES)
        return ETAG_MD5;
    if (etag[2 * MD5_BYTES] != '-' || n > 2 * MD5_BYTES + 6)
        return ETAG_TEXT;
    for (size_t i = 2 * MD5_BYTES + 1; i < n; i++) {
        if (etag[i] < '0' || etag[i] > '9')
            return ETAG_TEXT;
        parts = parts * 10 + (uint32_t)(etag[i] - '0');
    }
    (void)snprintf(again, sizeof again, "-%u", parts);
    *ret_parts = parts;
    return strcmp(again, etag + 2 * MD5_BYTES) == 0 ? ETAG_PARTS : ETAG_TEXT;
}

static size_t put_pin(uint8_t *at, const struct s3_object *o)
{
    uint8_t md5[MD5_BYTES];
    uint32_t parts;
    enum etag_form form = etag_form(o->etag, md5, &parts);
    size_t n = 1;

    at[0] = (uint8_t)form;
    if (form == ETAG_TEXT) {
        size_t length = strlen(o->etag);
        at[n++] = (uint8_t)length;
        memcpy(at + n, o->etag, length);
        n += length;
    } else {
        memcpy(at + n, md5, MD5_BYTES);
        n += MD5_BYTES;
        if (form == ETAG_PARTS)
            n += put_number(at + n, parts);
    }
    if (o->version_id[0]) {
        size_t length = strlen(o->version_id);
        at[n++] = (uint8_t)length;
        memcpy(at + n, o->version_id, length);
        n += length;
    }
    return n;
}

/* Reads a pin into `ret`, or only passes over it (NULL). */
static const uint8_t *get_pin(const uint8_t *at, uint8_t flags, struct s3_object *ret)
{
    enum etag_form form = (enum etag_form) * at++;

    if (form == ETAG_TEXT) {
        size_t length = *at++;
        if (ret)
            memcpy(ret->etag, at, length);
        at += length;
    } else {
        const uint8_t *md5 = at;
        at += MD5_BYTES;
        uint64_t parts = form == ETAG_PARTS ? get_number(&at) : 0;
        if (ret)
            hex_encode(ret->etag, md5, MD5_BYTES);
        if (ret && form == ETAG_PARTS)
            (void)snprintf(ret->etag + 2 * MD5_BYTES, sizeof ret->etag - 2 * MD5_BYTES, "-%u",
                           (unsigned)parts);
    }
    if (flags & FLAG_VERSION) {
        size_t length = *at++;
        if (ret)
            memcpy(ret->version_id, at, length);
        at += length;
    }
    return at;
}

/* ---- writing ----------------------------------------------------------------------------------
 */

static int end_block(struct rows_builder *b)
{
    if (b->count == 0)
        return 0;
    uint8_t *block = malloc(b->block.size);
    if (!block)
        return -ENOMEM;
    memcpy(block, b->block.data, b->block.size);
    block[0] = (uint8_t)b->count;
    int r = vec_push(&b->blocks, block);
    if (r < 0) {
        free(block);
        return r;
    }
    buf_clear(&b->block);
    b->count = 0;
    b->mtime_s = 0;
    return 0;
}

static size_t shared_length(const char *a, const char *b)
{
    size_t n = 0;

    while (a[n] && a[n] == b[n])
        n++;
    return n;
}

static int64_t floor_seconds(int64_t ms)
{
    return ms / 1000 - (ms % 1000 < 0);
}

int rows_add(struct rows_builder *b, const char *key, const struct s3_object *o)
{
    uint8_t row[ROW_MAX];
    size_t length = strlen(key), n = 1;
    int64_t s = floor_seconds(o->mtime_ms);
    uint64_t ms = (uint64_t)(o->mtime_ms - s * 1000);

    if (length > S3_KEY_MAX)
        return -ENAMETOOLONG;
    if (b->total > 0 && strcmp(key, b->last) <= 0)
        return -EPROTO;
    if (b->count == ROWS_BLOCK) {
        int r = end_block(b);
        if (r < 0)
            return r;
    }
    b->block.max = 1 + (size_t)ROWS_BLOCK * ROW_MAX;
    size_t shared = b->count > 0 ? shared_length(key, b->last) : 0;
    row[0] = (uint8_t)(key_kind(key, o->size) | (ms ? FLAG_MS : 0) |
                       (o->version_id[0] ? FLAG_VERSION : 0));
    n += put_number(row + n, shared);
    n += put_number(row + n, length - shared);
    memcpy(row + n, key + shared, length - shared);
    n += length - shared;
    n += put_number(row + n, o->size);
    n += put_number(row + n, zigzag(s - b->mtime_s));
    if (ms)
        n += put_number(row + n, ms);
    n += put_pin(row + n, o);
    int r = b->count > 0 ? 0 : buf_append(&b->block, "", 1);
    if (r == 0)
        r = buf_append(&b->block, row, n);
    if (r < 0)
        return r;
    b->count++;
    b->total++;
    b->mtime_s = s;
    memcpy(b->last, key, length + 1);
    return 0;
}

int rows_take(struct rows *r, struct rows_builder *b)
{
    int result = end_block(b);

    for (size_t i = 0; i < b->blocks.count && result == 0; i++) {
        result = vec_push(&r->blocks, b->blocks.at[i]);
        if (result == 0)
            b->blocks.at[i] = NULL;
    }
    rows_builder_release(b);
    return result;
}

void rows_builder_release(struct rows_builder *b)
{
    for (size_t i = 0; i < b->blocks.count; i++)
        free(b->blocks.at[i]);
    vec_release(&b->blocks);
    buf_release(&b->block);
    *b = (struct rows_builder){.total = 0};
}

void rows_release(struct rows *r)
{
    for (size_t i = 0; i < r->blocks.count; i++)
        free(r->blocks.at[i]);
    vec_release(&r->blocks);
    *r = (struct rows){.count = 0};
}

/* ---- reading ----------------------------------------------------------------------------------
 */

static void begin_block(struct rows_cursor *c, size_t block)
{
    c->block = block;
    c->index = 0;
    c->at = c->rows->blocks.at[block] + 1;
    c->key_length = 0;
    c->mtime_s = 0;
}

bool rows_next(struct rows_cursor *c)
{
    if (c->index == c->rows->blocks.at[c->block][0]) {
        if (c->block + 1 == c->rows->blocks.count)
            return false;
        begin_block(c, c->block + 1);
    }
    const uint8_t *at = c->at;
    c->row = c->rows->blocks.at[c->block] + (at - c->rows->blocks.at[c->block]);
    uint8_t flags = __atomic_load_n(at++, __ATOMIC_RELAXED);
    size_t shared = (size_t)get_number(&at), rest = (size_t)get_number(&at);
    memcpy(c->key + shared, at, rest);
    at += rest;
    c->key_length = shared + rest;
    c->key[c->key_length] = '\0';
    c->size = get_number(&at);
    c->mtime_s += unzigzag(get_number(&at));
    c->mtime_ms = c->mtime_s * 1000 + (flags & FLAG_MS ? (int64_t)get_number(&at) : 0);
    c->pin = at;
    c->at = get_pin(at, flags, NULL);
    c->index++;
    return true;
}

/* Does the first row of a block stand behind `key`? */
static bool block_is_behind(const struct rows *r, size_t block, const char *key)
{
    const uint8_t *at = r->blocks.at[block] + 2;

    (void)get_number(&at); /* shares nothing */
    size_t length = (size_t)get_number(&at), n = strlen(key);
    int c = memcmp(at, key, length < n ? length : n);
    return c > 0 || (c == 0 && length > n);
}

bool rows_seek(const struct rows *r, const char *key, struct rows_cursor *c)
{
    size_t low = 0, high = r->blocks.count;

    c->rows = r;
    if (r->blocks.count == 0)
        return false;
    while (low < high) { /* the first block behind it; it is in the one before */
        size_t mid = low + (high - low) / 2;
        if (block_is_behind(r, mid, key))
            high = mid;
        else
            low = mid + 1;
    }
    begin_block(c, low > 0 ? low - 1 : 0);
    while (rows_next(c)) {
        if (strcmp(c->key, key) >= 0)
            return true;
    }
    return false;
}

enum key_kind rows_kind(const struct rows_cursor *c)
{
    return (enum key_kind)(__atomic_load_n(c->row, __ATOMIC_RELAXED) & FLAG_KIND);
}

void rows_object(const struct rows_cursor *c, struct s3_object *ret)
{
    *ret = (struct s3_object){.size = c->size, .mtime_ms = c->mtime_ms};
    (void)get_pin(c->pin, __atomic_load_n(c->row, __ATOMIC_RELAXED), ret);
}

void rows_set_changed(uint8_t *row)
{
    (void)__atomic_fetch_or(row, (uint8_t)FLAG_CHANGED, __ATOMIC_RELAXED);
}

bool rows_changed(const uint8_t *row)
{
    return (__atomic_load_n(row, __ATOMIC_RELAXED) & FLAG_CHANGED) != 0;
}

/* ---- order and conflicts ----------------------------------------------------------------------
 */

static int by_first_key(const void *a, const void *b)
{
    const uint8_t *x = *(uint8_t *const *)a + 2, *y = *(uint8_t *const *)b + 2;

    (void)get_number(&x);
    (void)get_number(&y);
    size_t n = (size_t)get_number(&x), m = (size_t)get_number(&y);
    int c = memcmp(x, y, n < m ? n : m);
    return c ? c : (n > m) - (n < m);
}

/* A file whose key the next keys begin with. */
struct above {
    uint8_t *row;
    size_t length;
    bool has_markers, has_files; /* below "key/" */
};

struct conflicts {
    VEC(struct above) stack;
    char key[S3_KEY_MAX + 1]; /* of the row before: all of the stack are beginnings of it */
};

static void set_kind(uint8_t *row, enum key_kind kind)
{
    *row = (uint8_t)((*row & ~FLAG_KIND) | kind);
}

/* The file stays, and the markers below it are left out. */
static void drop_markers(const struct rows *r, const char *path)
{
    char from[S3_KEY_MAX + 2];
    struct rows_cursor c;
    int n = snprintf(from, sizeof from, "%s/", path);

    for (bool more = rows_seek(r, from, &c); more && strncmp(c.key, from, (size_t)n) == 0;
         more = rows_next(&c)) {
        if (key_is_directory(rows_kind(&c)))
            set_kind(c.row, KEY_BELOW_FILE);
    }
}

/* The rows move on to `key`: what it does not begin with is complete. */
static void pop_above(struct conflicts *f, const struct rows *r, const char *key)
{
    while (f->stack.count > 0) {
        struct above *top = &f->stack.at[f->stack.count - 1];
        if (key && strncmp(f->key, key, top->length) == 0)
            return;
        if (top->has_files) {
            set_kind(top->row, KEY_IS_DIRECTORY);
        } else if (top->has_markers) {
            f->key[top->length] = '\0'; /* nothing longer is above any more */
            drop_markers(r, f->key);
        }
        f->stack.count--;
    }
}

static int look_at(struct conflicts *f, const struct rows *r, const struct rows_cursor *c)
{
    enum key_kind kind = rows_kind(c);
    int result = 0;

    pop_above(f, r, c->key);
    for (size_t i = 0; i < f->stack.count; i++) {
        struct above *a = &f->stack.at[i];
        if (c->key[a->length] != '/')
            continue;
        a->has_files |= kind == KEY_FILE;
        a->has_markers |= key_is_directory(kind);
    }
    if (kind == KEY_FILE) {
        struct above a = {.row = c->row, .length = c->key_length};
        result = vec_push(&f->stack, a);
    }
    memcpy(f->key, c->key, c->key_length + 1);
    return result;
}

int rows_settle(struct rows *r)
{
    struct conflicts f = {.key = ""};
    struct rows_cursor c;
    int result = 0;

    if (r->blocks.count == 0)
        return 0;
    qsort(r->blocks.at, r->blocks.count, sizeof *r->blocks.at, by_first_key);
    r->count = r->bytes = 0;
    for (bool more = rows_seek(r, "", &c); more && result == 0; more = rows_next(&c)) {
        if (r->count > 0 && strcmp(c.key, f.key) <= 0)
            result = -EPROTO;
        else
            result = look_at(&f, r, &c);
        r->count++;
        r->bytes += c.size;
    }
    if (result == 0)
        pop_above(&f, r, NULL);
    vec_release(&f.stack);
    return result;
}
