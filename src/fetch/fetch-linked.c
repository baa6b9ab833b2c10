/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reads of linked devices. One page of the table tells all about a file: where its object is and
 * what it was when the version was made; each get then asks for exactly that object.
 *
 * Pages are looked at once, and then kept checked for a while, since a large file's reads all come
 * to the same one. What became of a source that drifted is found out once for each object and
 * logged; its readers get the error each time.
 */
#include "fetch/fetch-linked.h"

#include "base/log.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define SLOTS  64u /* checked pages that are kept: 1 MiB a device */
#define LOGGED 64u /* drifted objects whose line is not written again */
/* How long nobody tries again to reach a source that nobody could open. */
#define REOPEN_MS 10000

struct slot {
    bool used;
    uint32_t number;
    uint8_t page[LINK_PAGE];
};

struct fetch_linked {
    struct fetch_object *table; /* owned */
    char *name;                 /* owned; key of the table, for the log */
    uint64_t table_size, blocks;
    fetch_source_fn *open;
    void *open_ctx;

    pthread_mutex_t lock; /* of all below; not held while anything is read */
    struct slot *slots;   /* owned; SLOTS */
    uint64_t logged[LOGGED];
    unsigned logged_next;
    bool has_header;
    struct link_header header;

    pthread_mutex_t opening; /* held while the source is opened */
    struct s3 *s3;           /* of `open`, which keeps it */
    int open_error;
    int64_t open_failed_ms;
};

/* ---- life -------------------------------------------------------------------------------------
 */

int fetch_linked_new(struct fetch_object *table, const char *key, uint64_t table_size,
                     uint64_t blocks, fetch_source_fn *open, void *open_ctx,
                     struct fetch_linked **ret)
{
    struct fetch_linked *l = calloc(1, sizeof *l);

    if (!l) {
        fetch_object_free(table);
        return -ENOMEM;
    }
    (void)pthread_mutex_init(&l->lock, NULL);    /* fails for no default attributes */
    (void)pthread_mutex_init(&l->opening, NULL); /* the same */
    l->table = table;
    l->table_size = table_size;
    l->blocks = blocks;
    l->open = open;
    l->open_ctx = open_ctx;
    l->name = strdup(key);
    l->slots = calloc(SLOTS, sizeof *l->slots);
    if (!l->name || !l->slots || table_size < LINK_PAGE || table_size % LINK_PAGE != 0) {
        int r = l->name && l->slots ? -EPROTO : -ENOMEM;
        fetch_linked_free(l);
        return r;
    }
    *ret = l;
    return 0;
}

void fetch_linked_free(struct fetch_linked *l)
{
    if (!l)
        return;
    fetch_object_free(l->table);
    pthread_mutex_destroy(&l->lock);
    pthread_mutex_destroy(&l->opening);
    free(l->slots);
    free(l->name);
    free(l);
}

/* ---- the table --------------------------------------------------------------------------------
 */

static int bad_table(const struct fetch_linked *l, uint32_t page)
{
    log_warning("%s: page %" PRIu32 " of the table of links breaks its format", l->name, page);
    return -EPROTO;
}

static int read_page(struct fetch_linked *l, uint32_t number, uint8_t page[static LINK_PAGE])
{
    if (number >= l->table_size / LINK_PAGE)
        return -EPROTO;
    return fetch_read(l->table, (uint64_t)number * LINK_PAGE, page, LINK_PAGE, FETCH_NO_HINT);
}

static int read_header(struct fetch_linked *l, uint8_t page[static LINK_PAGE],
                       struct link_header *ret)
{
    uint32_t last = (uint32_t)(l->table_size / LINK_PAGE) - 1;
    int r = read_page(l, last, page);

    if (r < 0)
        return r;
    r = link_header_parse(page, l->table_size, ret);
    if (r == -EPROTONOSUPPORT)
        log_warning("%s: the table of links is of a newer format than this program knows", l->name);
    else if (r < 0 || ret->blocks != l->blocks)
        r = bad_table(l, last);
    if (r < 0)
        return r;
    WITH_LOCK(&l->lock);
    l->header = *ret;
    l->has_header = true;
    return 0;
}

/* Without a hint: header, directory. */
static int find_page(struct fetch_linked *l, uint32_t block, uint32_t *ret)
{
    AUTO(free_ptr) uint8_t *page = malloc(LINK_PAGE);
    struct link_header h;
    uint32_t directory;

    if (!page)
        return -ENOMEM;
    int r = read_header(l, page, &h);
    if (r == 0)
        r = link_header_find(page, &h, block, &directory);
    if (r == 0)
        r = read_page(l, directory, page);
    if (r == 0 && link_directory_find(page, &h, directory, block, ret) < 0)
        r = bad_table(l, directory);
    return r == -ENOENT ? -EPROTO : r;
}

static void take_row(const struct link_row *row, struct fetch_link *ret)
{
    *ret = (struct fetch_link){
        .start = (uint64_t)row->block * PACK_BLOCK,
        .offset = row->offset,
        .length = row->length,
        .pin = {.size = row->size, .mtime_ms = row->mtime_ms},
    };
    memcpy(ret->pin.etag, row->etag.data, row->etag.size); /* all bounded by LINK_*_MAX */
    memcpy(ret->pin.version_id, row->version.data, row->version.size);
    memcpy(ret->key, row->key.data, row->key.size);
}
_Static_assert(LINK_ETAG_MAX < S3_ETAG_MAX && LINK_KEY_MAX <= S3_KEY_MAX &&
                   LINK_VERSION_MAX < sizeof((struct s3_object *)0)->version_id,
               "what a row may hold fits a pin");

/* 0, -ENOENT: the page is right, but has not that block; or an error. */
static int find_in_page(struct fetch_linked *l, uint32_t number, uint32_t block,
                        struct fetch_link *ret)
{
    struct slot *slot = &l->slots[number % SLOTS];
    struct link_row row;

    {
        WITH_LOCK(&l->lock);
        if (slot->used && slot->number == number) {
            int r = link_rows_find(slot->page, block, &row);
            if (r == 0)
                take_row(&row, ret);
            return r;
        }
    }
    AUTO(free_ptr) uint8_t *page = malloc(LINK_PAGE);
    int r = page ? read_page(l, number, page) : -ENOMEM;
    if (r < 0)
        return r;
    if (link_rows_check(page) < 0)
        return bad_table(l, number);
    r = link_rows_find(page, block, &row);
    if (r == 0)
        take_row(&row, ret);
    WITH_LOCK(&l->lock);
    slot->used = true;
    slot->number = number;
    memcpy(slot->page, page, LINK_PAGE);
    return r;
}

int fetch_linked_find(struct fetch_linked *l, uint64_t offset, uint64_t page_hint,
                      struct fetch_link *ret)
{
    uint64_t block = offset / PACK_BLOCK, pages = l->table_size / LINK_PAGE;
    uint32_t number;
    int r = -ENOENT;

    if (block >= l->blocks)
        return -EPROTO;
    if (page_hint < pages) /* a page of another kind says -EPROTO; then the directory knows */
        r = find_in_page(l, (uint32_t)page_hint, (uint32_t)block, ret);
    if (r == -ENOENT || r == -EPROTO) {
        r = find_page(l, (uint32_t)block, &number);
        if (r == 0)
            r = find_in_page(l, number, (uint32_t)block, ret);
    }
    return r == -ENOENT ? -EPROTO : r;
}

/* ---- the source -------------------------------------------------------------------------------
 */

/* The place is in the header: one page more, once. */
int fetch_linked_place(struct fetch_linked *l, struct link_place *ret)
{
    struct link_header h;

    {
        WITH_LOCK(&l->lock);
        if (l->has_header) {
            *ret = l->header.place;
            return 0;
        }
    }
    AUTO(free_ptr) uint8_t *page = malloc(LINK_PAGE);
    int r = page ? read_header(l, page, &h) : -ENOMEM;
    if (r == 0)
        *ret = h.place;
    return r;
}

static int64_t now_ms(void)
{
    return env_real()->boot_ms(env_real());
}

static int open_source(struct fetch_linked *l, const struct link_place *place, const char *key,
                       struct s3 **ret)
{
    struct err err = ERR_INIT;

    WITH_LOCK(&l->opening);
    if (!l->s3) {
        if (l->open_error && now_ms() - l->open_failed_ms < REOPEN_MS)
            return l->open_error;
        int r = l->open ? l->open(l->open_ctx, place, key, &l->s3, &err) : -EOPNOTSUPP;
        l->open_error = r;
        l->open_failed_ms = now_ms();
        if (r < 0) {
            log_warning("cannot read the objects of s3://%s/%s that %s links to: %s", place->bucket,
                        place->prefix, l->name, err_text(&err, r));
            return r;
        }
    }
    *ret = l->s3;
    return 0;
}

static bool was_logged(struct fetch_linked *l, const char *key)
{
    uint64_t hash = UINT64_C(14695981039346656037);

    for (; *key; key++)
        hash = (hash ^ (uint8_t)*key) * UINT64_C(1099511628211);
    WITH_LOCK(&l->lock);
    for (unsigned i = 0; i < LOGGED; i++) {
        if (l->logged[i] == hash)
            return true;
    }
    l->logged[l->logged_next++ % LOGGED] = hash;
    return false;
}

/* Say once what became of an object. */
static void log_drift(struct fetch_linked *l, const struct link_place *place, struct s3 *s3,
                      const struct fetch_link *link, const char *key, int code,
                      const struct err *why)
{
    struct s3_object now = {.size = 0};

    if (was_logged(l, key))
        return;
    if (code == -ENOENT || (code == -ESTALE && link->pin.version_id[0]))
        log_warning("s3://%s/%s, which %s links to, is gone%s%s", place->bucket, key, l->name,
                    link->pin.version_id[0] ? ", or this version of it: " : "",
                    link->pin.version_id);
    else if (code == -ESTALE && s3_head(s3, place->bucket, key, &now, NULL) == 0)
        log_warning("s3://%s/%s, which %s links to, was changed: its ETag was \"%s\" (%" PRIu64
                    " bytes) and is \"%s\" (%" PRIu64 " bytes)",
                    place->bucket, key, l->name, link->pin.etag, link->pin.size, now.etag,
                    now.size);
    else
        log_warning("s3://%s/%s, which %s links to, cannot be read: %s", place->bucket, key,
                    l->name, err_text(why, code));
}

int fetch_linked_get(struct fetch_linked *l, const struct fetch_link *link, uint64_t within,
                     void *data, size_t size)
{
    AUTO(free_ptr) struct link_place *place = malloc(sizeof *place);
    char key[2 * S3_KEY_MAX + 1];
    struct err err = ERR_INIT;
    struct s3 *s3 = NULL;
    size_t got = 0;

    int r = place ? fetch_linked_place(l, place) : -ENOMEM;
    if (r < 0)
        return r;
    (void)snprintf(key, sizeof key, "%s%s", place->prefix, link->key); /* both are bounded */
    r = open_source(l, place, key, &s3);
    if (r < 0)
        return r;
    r = s3_get(s3, place->bucket, key, link->offset + within, data, size, &link->pin, &got, NULL,
               &err);
    if (r == 0 && got < size)
        r = err_fail(&err, -ESTALE, "it is shorter than it was");
    if (r < 0)
        log_drift(l, place, s3, link, key, r, &err);
    return r;
}

int fetch_linked_read(struct fetch_linked *l, uint64_t offset, void *data, size_t size,
                      uint64_t page_hint)
{
    AUTO(free_ptr) struct fetch_link *link = malloc(sizeof *link);
    uint8_t *to = data;

    if (!link)
        return -ENOMEM;
    while (size > 0) {
        int r = fetch_linked_find(l, offset, page_hint, link);
        if (r < 0)
            return r;
        uint64_t within = offset - link->start;
        uint64_t blocks = pack_blocks(link->length) * PACK_BLOCK;
        size_t here = blocks - within < size ? (size_t)(blocks - within) : size;
        size_t bytes = within < link->length ? (size_t)(link->length - within) : 0;
        bytes = bytes < here ? bytes : here;
        r = bytes ? fetch_linked_get(l, link, within, to, bytes) : 0;
        if (r < 0)
            return r;
        memset(to + bytes, 0, here - bytes);
        to += here;
        offset += here;
        size -= here;
    }
    return 0;
}
