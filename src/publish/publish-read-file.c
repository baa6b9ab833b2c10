/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading one file, or one piece of a large one, into a batch, and digesting it.
 *
 * A file counts as read if it was the same file before and after: size, mtime, ctime. It is read
 * again when it changed, a few times; then publishing fails and names it. A change that falls into
 * the clock tick of the last one would not show, so a file that was changed in the current tick is
 * only read when the tick is over.
 */
#include "publish/publish-pipe.h"

#include <stdio.h>
#include <time.h>

#define READ_TRIES    4 /* the first one, and three more */
#define SETTLE_TRIES  5 /* ticks to wait; a clock that stands still, or is ahead, ends it */
#define SETTLE_NS     5000000
#define SETTLED_AFTER 1 /* seconds between a file's last change and its reading */

#define READ_STEP (16 * PACK_LEAF_MAX)
_Static_assert(READ_STEP % PACK_LEAF_MAX == 0, "steps end at leaves");

enum attempt { ATTEMPT_DONE, ATTEMPT_CHANGED };

void reader_init(struct reader *rd, const struct publish *p)
{
    *rd = (struct reader){.p = p};
    buf_init(&rd->dir_path, (size_t)TREE_DEPTH_MAX * 256 + 1);
    buf_init(&rd->xattrs, TREE_XATTR_MAX);
}

void reader_release(struct reader *rd)
{
    source_close_dir(rd->dir);
    buf_release(&rd->dir_path);
    buf_release(&rd->xattrs);
}

static int fail(const struct reader *rd, struct batch *b, const struct batch_item *it, int code)
{
    const char *path = batch_path(b, it);
    const char *errno_text = strerror(-code), *why = errno_text;
    char sentence[1024];
    int r = code;

    if (source_explain(rd->p->source, code, sentence, sizeof sentence))
        errno_text = why = sentence;
    if (code == -ENOENT)
        why = "it vanished while the source was read";
    else if (code == -ELOOP || code == -EINVAL || code == -ENOTDIR || code == -EISDIR)
        why = "it is no regular file any more";
    else if (code == -EAGAIN)
        why = "it keeps changing while it is read";
    if (why != errno_text)
        r = -EAGAIN;
    b->error = err_fail(&b->err, r, "cannot read %s%s%s%s%.*s: %s", rd->p->source->location,
                        source_slash(rd->p->source), path, *path ? "/" : "", (int)it->name_length,
                        it->name, why);
    return b->error;
}

static int open_directory(struct reader *rd, const struct batch *b, const struct batch_item *it)
{
    if (rd->has_dir && rd->dir_path.size == it->path_size &&
        memcmp(buf_text(&rd->dir_path), batch_path(b, it), it->path_size) == 0)
        return 0;
    source_close_dir(rd->dir);
    rd->dir = NULL;
    rd->has_dir = false;
    buf_clear(&rd->dir_path);
    int r = source_open_dir(rd->p->source, batch_path(b, it), &rd->dir);
    if (r == 0)
        r = buf_append(&rd->dir_path, batch_path(b, it), it->path_size);
    rd->has_dir = r == 0;
    return r;
}

/* ---- change -----------------------------------------------------------------------------------
 */

static bool is_before(struct source_time a, const struct timespec *b, int64_t seconds)
{
    return a.s + seconds < b->tv_sec || (a.s + seconds == b->tv_sec && a.ns < b->tv_nsec);
}

/* The clock that file systems stamp with. */
static struct timespec tick_now(void)
{
    struct timespec now;

    (void)clock_gettime(CLOCK_REALTIME_COARSE, &now); /* cannot fail: the clock exists */
    return now;
}

/* Attributes from which on every change will show. */
static int stat_settled(struct source_file *f, struct batch_item *it, struct source_stat *ret)
{
    static const struct timespec wait = {.tv_nsec = SETTLE_NS};

    for (int i = 0;; i++) {
        struct timespec now = tick_now();
        int r = source_file_stat(f, ret);
        if (r < 0)
            return r;
        it->settled = is_before(ret->ctime, &now, SETTLED_AFTER);
        it->mtime_settled = is_before(ret->mtime, &now, SETTLED_AFTER);
        if (is_before(ret->ctime, &now, 0) || i == SETTLE_TRIES)
            return 0;
        (void)nanosleep(&wait, NULL); /* cut short, it is only looked at earlier */
    }
}

static bool is_same(const struct source_stat *a, const struct source_stat *b)
{
    return a->size == b->size && a->inode == b->inode && a->device == b->device &&
           a->mtime.s == b->mtime.s && a->mtime.ns == b->mtime.ns && a->ctime.s == b->ctime.s &&
           a->ctime.ns == b->ctime.ns;
}

/* ---- bytes ------------------------------------------------------------------------------------
 */

static bool is_zero(const uint8_t *p, size_t size)
{
    return p[0] == 0 && memcmp(p, p + 1, size - 1) == 0;
}

/* Leaves from `at` on, which is a border of leaves, up to `end`. */
static void digest_leaves(struct batch *b, struct batch_item *it, size_t at, size_t end)
{
    it->leaf_count +=
        pack_make_leaves(b->data + it->offset, at, end, &b->leaves[it->leaf + it->leaf_count]);
}

/* Read and digest in turns, while the bytes are in the CPU's cache. Leading zeros are not digested
 * before something else is seen: mostly it is all zeros then. */
static int read_and_digest(struct source_file *f, struct batch *b, struct batch_item *it,
                           enum attempt *ret)
{
    uint8_t *data = b->data + it->offset;
    uint64_t start = it->piece * PACK_BLOB_MAX;
    size_t digested = 0;

    it->leaf = b->leaf_count;
    it->leaf_count = 0;
    it->result = ITEM_HOLE;
    for (size_t at = 0; at < it->size; at += READ_STEP) {
        size_t size = it->size - at < READ_STEP ? it->size - at : READ_STEP;
        ssize_t n = source_file_read(f, data + at, size, start + at);
        if (n < 0)
            return (int)n;
        if ((size_t)n != size) {
            *ret = ATTEMPT_CHANGED;
            return 0;
        }
        if (it->result == ITEM_HOLE && is_zero(data + at, size))
            continue;
        it->result = ITEM_DATA;
        digest_leaves(b, it, digested, at + size);
        digested = at + size;
    }
    if (it->result == ITEM_DATA)
        it->id = pack_blob_id(&b->leaves[it->leaf], it->leaf_count);
    return 0;
}

/* Bytes that this item has of a file of `size`. */
static uint64_t item_size(const struct batch_item *it, uint64_t size)
{
    uint64_t start = it->piece * PACK_BLOB_MAX;

    if (it->pieces == 1)
        return size;
    return size - start < PACK_BLOB_MAX ? size - start : PACK_BLOB_MAX;
}

/* A whole piece without data need not be read. */
static int find_hole(struct source_file *f, const struct batch_item *it, bool *ret)
{
    uint64_t next, start = it->piece * PACK_BLOB_MAX;

    *ret = false;
    if (it->pieces == 1 || it->stat.room >= it->stat.size)
        return 0;
    int r = source_file_next_data(f, start, &next);
    if (r == 0)
        *ret = next - start >= it->size;
    return r;
}

static int read_bytes(struct source_file *f, struct batch *b, struct batch_item *it,
                      enum attempt *ret)
{
    bool hole;

    it->result = it->size == 0 ? ITEM_EMPTY : ITEM_HOLE;
    if (it->size == 0)
        return 0;
    int r = find_hole(f, it, &hole);
    return r < 0 || hole ? r : read_and_digest(f, b, it, ret);
}

static int read_xattrs(struct reader *rd, struct source_file *f, struct batch *b,
                       struct batch_item *it, enum attempt *ret)
{
    buf_clear(&rd->xattrs);
    int r = it->piece > 0 ? 0 : source_file_xattrs(f, &rd->xattrs);
    it->xattrs_dropped = r == -E2BIG;
    if (r == -EAGAIN)
        *ret = ATTEMPT_CHANGED;
    if (r == -E2BIG || r == -EAGAIN) {
        buf_clear(&rd->xattrs);
        r = 0;
    }
    it->xattrs = b->xattrs.size;
    it->xattrs_size = rd->xattrs.size;
    return r < 0 || rd->xattrs.size == 0 ? r
                                         : buf_append(&b->xattrs, rd->xattrs.data, rd->xattrs.size);
}

/* May it be read here and now, given what it has become? */
static bool has_planned_shape(const struct batch *b, const struct batch_item *it)
{
    if (it->pieces > 1)
        return it->stat.size == it->planned_size;
    return it->stat.size <= PACK_BLOB_MAX &&
           pack_blocks(it->stat.size) * PACK_BLOCK <= BATCH_BUFFER - b->data_size;
}

static int try_read(struct reader *rd, struct batch *b, struct batch_item *it, enum attempt *ret)
{
    AUTO(source_close_file) struct source_file *f = NULL;
    char name[256];
    struct source_stat after;

    *ret = ATTEMPT_DONE;
    memcpy(name, it->name, it->name_length);
    name[it->name_length] = '\0';
    int r = source_open_file(rd->dir, name, &f);
    if (r == 0)
        r = stat_settled(f, it, &it->stat);
    if (r < 0)
        return r;
    if (!has_planned_shape(b, it)) {
        it->result = ITEM_DEFERRED;
        return 0;
    }
    it->offset = b->data_size;
    it->size = (size_t)item_size(it, it->stat.size);
    r = read_xattrs(rd, f, b, it, ret);
    if (r == 0)
        r = read_bytes(f, b, it, ret);
    if (r == -ESTALE) { /* what was listed is not there any more: opened anew, it is what is */
        *ret = ATTEMPT_CHANGED;
        return 0;
    }
    if (r == 0)
        r = source_file_stat(f, &after);
    if (r == 0 && !is_same(&it->stat, &after))
        *ret = ATTEMPT_CHANGED;
    return r;
}

/* Zeros behind the last byte, up to the border where the next file starts. */
static void pad(struct batch *b, const struct batch_item *it)
{
    size_t end = it->offset + it->size;

    b->data_size = it->offset + (size_t)(pack_blocks(it->size) * PACK_BLOCK);
    memset(b->data + end, 0, b->data_size - end);
}

static int read_item(struct reader *rd, struct batch *b, struct batch_item *it)
{
    enum attempt attempt = ATTEMPT_CHANGED;

    int r = open_directory(rd, b, it);
    for (int i = 0; r == 0 && attempt == ATTEMPT_CHANGED; i++) {
        if (i == READ_TRIES)
            return fail(rd, b, it, -EAGAIN);
        it->changed = i > 0;
        b->xattrs.size = i > 0 ? it->xattrs : b->xattrs.size;
        r = try_read(rd, b, it, &attempt);
    }
    if (r < 0)
        return fail(rd, b, it, r);
    if (it->result == ITEM_DATA) {
        b->leaf_count += it->leaf_count;
        pad(b, it);
    }
    return 0;
}

void reader_read(struct reader *rd, struct batch *b)
{
    b->data_size = b->leaf_count = 0;
    b->error = 0;
    err_clear(&b->err);
    buf_clear(&b->xattrs);
    for (size_t i = 0; i < b->count; i++) {
        if (read_item(rd, b, &b->items[i]) < 0)
            return;
    }
}
