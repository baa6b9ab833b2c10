/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The decompressing thread: fills blocks, which the consumer takes and gives back.
 *
 * gzip goes through ISA-L, some three times as fast as zlib; the others through libarchive's
 * filters (raw format), which know their frames, streams and checksums. Blocks are large: ISA-L
 * copies its window, 64 KiB and more, in and out of each.
 */
#include "archive/archive-expand.h"

#include <archive.h>
#include <isa-l/igzip_lib.h>
#include <stdio.h>
#include <string.h>

#define BLOCK_SIZE  ((size_t)1 << 20)
#define BLOCK_COUNT 6u

struct block {
    uint8_t *data; /* owned */
    size_t size;
};

struct expand {
    struct download *d;
    enum expand_kind kind;
    pthread_t thread;
    bool has_thread;
    struct inflate_state *inflate; /* owned; gzip */
    struct bytes input;            /* of the download, not used yet */

    pthread_mutex_t lock;
    pthread_cond_t moved;
    struct block blocks[BLOCK_COUNT];
    size_t head, count; /* under lock; full ones, the head may be with the consumer */
    bool given;         /* under lock; it is */
    bool stop, ended;   /* under lock */
    int error;          /* under lock; valid when ended */
    struct err err;
};

static const char *kind_name(enum expand_kind kind)
{
    static const char *const names[] = {"", "gzip", "zstd", "xz", "bzip2"};

    return names[kind];
}

/* ---- blocks, the thread's side ----------------------------------------------------------------
 */

/* NULL: it is to stop. */
static struct block *block_begin(struct expand *e)
{
    WITH_LOCK(&e->lock);

    while (e->count == BLOCK_COUNT && !e->stop)
        pthread_cond_wait(&e->moved, &e->lock);
    return e->stop ? NULL : &e->blocks[(e->head + e->count) % BLOCK_COUNT];
}

static void block_end(struct expand *e, struct block *b, size_t size)
{
    WITH_LOCK(&e->lock);

    if (size == 0)
        return;
    b->size = size;
    e->count++;
    pthread_cond_broadcast(&e->moved);
}

static int damaged(struct expand *e, const char *why)
{
    return err_fail(&e->err, -EBADMSG, "%s is damaged: its %s stream %s", download_shown(e->d),
                    kind_name(e->kind), why);
}

/* ---- gzip -------------------------------------------------------------------------------------
 */

/* 1: there is input; 0: the download is at its end. */
static int more_input(struct expand *e)
{
    return e->input.size > 0 ? 1 : download_take(e->d, &e->input, &e->err);
}

static void used_input(struct expand *e, size_t size)
{
    e->input.data = (const uint8_t *)e->input.data + size;
    e->input.size -= size;
}

/* Between members: 1: another one begins; 0: the end. Padding with zeros is nobody's harm. */
static int next_member(struct expand *e)
{
    int r;

    while ((r = more_input(e)) == 1) {
        const uint8_t *p = e->input.data;
        if (*p == 0x1f)
            return 1;
        if (*p != 0)
            return damaged(e, "is followed by something else");
        used_input(e, 1);
    }
    return r;
}

static const char *inflate_why(int code)
{
    return code == ISAL_INCORRECT_CHECKSUM ? "has a wrong checksum"
           : code == ISAL_INVALID_WRAPPER || code == ISAL_UNSUPPORTED_METHOD
               ? "has a header that is none"
               : "is not valid";
}

/* Fill one block from the current member. *ret_end: the member is complete. */
static int inflate_block(struct expand *e, struct block *b, size_t *ret_size, bool *ret_end)
{
    struct inflate_state *s = e->inflate;

    s->next_out = b->data;
    s->avail_out = BLOCK_SIZE;
    *ret_end = false;
    while (s->avail_out > 0 && !*ret_end) {
        int r = more_input(e);
        if (r < 0)
            return r;
        uint32_t size = e->input.size > (1u << 30) ? 1u << 30 : (uint32_t)e->input.size;
        uint32_t room = s->avail_out;
        s->next_in = (uint8_t *)e->input.data; /* only read */
        s->avail_in = size;
        int code = isal_inflate(s);
        if (code < 0)
            return damaged(e, inflate_why(code));
        used_input(e, size - s->avail_in);
        *ret_end = s->block_state == ISAL_BLOCK_FINISH;
        if (r == 0 && s->avail_out == room && !*ret_end)
            return damaged(e, "is cut off");
    }
    *ret_size = BLOCK_SIZE - s->avail_out;
    return 0;
}

static int expand_gzip(struct expand *e)
{
    int r;

    while ((r = next_member(e)) == 1) {
        bool end = false;
        isal_inflate_init(e->inflate);
        e->inflate->crc_flag = ISAL_GZIP;
        while (!end) {
            size_t size = 0;
            struct block *b = block_begin(e);
            if (!b)
                return -ECANCELED;
            r = inflate_block(e, b, &size, &end);
            if (r < 0)
                return r;
            block_end(e, b, size);
        }
    }
    return r;
}

/* ---- the others -------------------------------------------------------------------------------
 */

static la_ssize_t give_input(struct archive *a, void *ctx, const void **ret)
{
    struct expand *e = ctx;
    struct bytes input;

    int r = download_take(e->d, &input, &e->err);
    if (r < 0) {
        archive_set_error(a, -r, "%s", "");
        return -1;
    }
    *ret = r == 1 ? input.data : NULL;
    return r == 1 ? (la_ssize_t)input.size : 0;
}

static int library_failed(struct expand *e, struct archive *a)
{
    const char *why = archive_error_string(a);

    if (e->err.text[0]) /* the download's own sentence */
        return archive_errno(a) > 0 ? -archive_errno(a) : -EIO;
    return err_fail(&e->err, -EBADMSG, "%s is damaged: its %s stream: %s", download_shown(e->d),
                    kind_name(e->kind), why ? why : "is not valid");
}

static int expand_blocks(struct expand *e, struct archive *a)
{
    struct archive_entry *entry;

    int r = archive_read_next_header(a, &entry);
    if (r == ARCHIVE_EOF)
        return 0;
    if (r != ARCHIVE_OK)
        return library_failed(e, a);
    for (;;) {
        struct block *b = block_begin(e);
        if (!b)
            return -ECANCELED;
        la_ssize_t n = archive_read_data(a, b->data, BLOCK_SIZE);
        if (n < 0)
            return library_failed(e, a);
        if (n == 0)
            return 0;
        block_end(e, b, (size_t)n);
    }
}

static int expand_library(struct expand *e)
{
    struct archive *a = archive_read_new();
    int r = ARCHIVE_FATAL;

    if (!a)
        return err_fail(&e->err, -ENOMEM, "out of memory");
    if (e->kind == EXPAND_ZSTD)
        r = archive_read_support_filter_zstd(a);
    else if (e->kind == EXPAND_XZ)
        r = archive_read_support_filter_xz(a);
    else if (e->kind == EXPAND_BZIP2)
        r = archive_read_support_filter_bzip2(a);
    if (r == ARCHIVE_OK)
        r = archive_read_support_format_raw(a);
    if (r == ARCHIVE_OK)
        r = archive_read_open(a, e, NULL, give_input, NULL);
    r = r == ARCHIVE_OK ? expand_blocks(e, a) : library_failed(e, a);
    (void)archive_read_free(a); /* of a reader: nothing is lost */
    return r;
}

static void *run(void *ctx)
{
    struct expand *e = ctx;
    int r = e->kind == EXPAND_GZIP ? expand_gzip(e) : expand_library(e);

    WITH_LOCK(&e->lock);
    e->ended = true;
    e->error = r;
    pthread_cond_broadcast(&e->moved);
    return NULL;
}

/* ---- the consumer's side ----------------------------------------------------------------------
 */

int expand_take(struct expand *e, struct bytes *ret, struct err *err)
{
    if (e->kind == EXPAND_NONE)
        return download_take(e->d, ret, err);
    WITH_LOCK(&e->lock);
    if (e->given) {
        e->given = false;
        e->head = (e->head + 1) % BLOCK_COUNT;
        e->count--;
        pthread_cond_broadcast(&e->moved);
    }
    while (e->count == 0 && !e->ended && !e->stop)
        pthread_cond_wait(&e->moved, &e->lock);
    if (e->stop)
        return err_fail(err, -ECANCELED, "interrupted");
    if (e->count == 0)
        return e->error < 0 ? err_fail(err, e->error, "%s", err_text(&e->err, e->error)) : 0;
    *ret = bytes_of(e->blocks[e->head].data, e->blocks[e->head].size);
    e->given = true;
    return 1;
}

void expand_stop(struct expand *e)
{
    WITH_LOCK(&e->lock);
    e->stop = true;
    pthread_cond_broadcast(&e->moved);
}

/* ---- life -------------------------------------------------------------------------------------
 */

static int start(struct expand *e)
{
    for (size_t i = 0; i < BLOCK_COUNT; i++) {
        e->blocks[i].data = malloc(BLOCK_SIZE);
        if (!e->blocks[i].data)
            return -ENOMEM;
    }
    if (e->kind == EXPAND_GZIP) {
        e->inflate = malloc(sizeof *e->inflate);
        if (!e->inflate)
            return -ENOMEM;
    }
    int r = pthread_create(&e->thread, NULL, run, e);
    e->has_thread = r == 0;
    return -r;
}

int expand_open(struct download *d, enum expand_kind kind, struct expand **ret, struct err *err)
{
    AUTO(expand_close) struct expand *e = calloc(1, sizeof *e);

    if (!e)
        return err_fail(err, -ENOMEM, "out of memory");
    e->d = d;
    e->kind = kind;
    (void)pthread_mutex_init(&e->lock, NULL); /* these cannot fail on Linux */
    (void)pthread_cond_init(&e->moved, NULL);
    int r = kind == EXPAND_NONE ? 0 : start(e);
    if (r < 0)
        return err_fail(err, r, "cannot start decompressing: %s", strerror(-r));
    *ret = take_ptr(&e);
    return 0;
}

void expand_close(struct expand *e)
{
    if (!e)
        return;
    expand_stop(e);
    if (e->has_thread) {
        download_stop(e->d);
        pthread_join(e->thread, NULL);
    }
    for (size_t i = 0; i < BLOCK_COUNT; i++)
        free(e->blocks[i].data);
    free(e->inflate);
    pthread_cond_destroy(&e->moved);
    pthread_mutex_destroy(&e->lock);
    free(e);
}
