/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tar as a stream of parts: libarchive reads the headers, with all their dialects (ustar, pax, GNU,
 * sparse), and gives the data without a copy; here it is copied once, to its place in the part.
 *
 * What libarchive only warns of is an error, but for names that are no UTF-8, whose bytes are kept.
 * An archive without its end mark was cut off; what stands behind the mark is refused, since
 * readers do not agree on it.
 */
#include "archive/archive-internal.h"

#include "base/le.h"

#include <archive.h>
#include <archive_entry.h>
#include <stdio.h>
#include <string.h>

#define XATTRS_MAX 4096u /* bytes of a file's attributes: what a tree keeps */
#define XATTR_ROWS 256u
#define END_MARK   512u

struct tar {
    struct archived base;
    struct expand *expand;  /* owned */
    struct archive *reader; /* owned */
    struct err err;         /* of the input */
    int error;
    uint64_t given;         /* bytes to libarchive */
    struct bytes last;      /* what it got last */
    uint8_t tail[END_MARK]; /* the last bytes of all */
    size_t tail_size;
    /* the entry that is being given: */
    struct archive_entry *entry; /* NULL: the next one is to be read */
    bool ended;
    uint64_t files, file;
    uint64_t size, at; /* of the file; where the next piece starts */
    bool begun;
    const uint8_t *block; /* of its data */
    size_t block_size;
    uint64_t block_at;
    bool block_end; /* there is no more */
};

/* ---- input ------------------------------------------------------------------------------------
 */

static void keep_tail(struct tar *t, struct bytes b)
{
    const uint8_t *p = b.data;

    if (b.size >= END_MARK) {
        memcpy(t->tail, p + b.size - END_MARK, END_MARK);
        t->tail_size = END_MARK;
        return;
    }
    size_t keep = t->tail_size + b.size > END_MARK ? END_MARK - b.size : t->tail_size;
    memmove(t->tail, t->tail + t->tail_size - keep, keep);
    memcpy(t->tail + keep, p, b.size);
    t->tail_size = keep + b.size;
}

static int take(struct tar *t, struct bytes *ret)
{
    int r = expand_take(t->expand, ret, &t->err);

    if (r == 1)
        keep_tail(t, *ret);
    t->error = r < 0 ? r : 0;
    return r;
}

static la_ssize_t give_input(struct archive *a, void *ctx, const void **ret)
{
    struct tar *t = ctx;

    int r = take(t, &t->last);
    if (r < 0) {
        archive_set_error(a, -r, "%s", "");
        return -1;
    }
    if (r == 0)
        t->last = bytes_of(NULL, 0);
    *ret = t->last.data;
    t->given += t->last.size;
    return (la_ssize_t)t->last.size;
}

static int failed(struct tar *t, struct err *err)
{
    const char *why = archive_error_string(t->reader);

    if (t->error < 0)
        return err_fail(err, t->error, "%s", err_text(&t->err, t->error));
    return err_fail(err, -EPROTO, "%s is no whole tar archive: %s",
                    download_shown(t->base.download),
                    why && *why ? why : "its header is not valid");
}

static bool is_zero(const uint8_t *p, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        if (p[i] != 0)
            return false;
    }
    return true;
}

/* All of the input is read, so that its checksum was compared, and nothing hides in it. */
static int finish(struct tar *t, struct err *err)
{
    uint64_t used = (uint64_t)archive_filter_bytes(t->reader, 0);
    uint64_t start = t->given - t->last.size;
    struct bytes b = {0};
    int r = 1;

    if (used >= start && used < t->given)
        b = bytes_of((const uint8_t *)t->last.data + (used - start), (size_t)(t->given - used));
    for (; r == 1; r = take(t, &b)) {
        if (b.size > 0 && !is_zero(b.data, b.size))
            return err_fail(err, -EPROTO,
                            "%s goes on behind the end of its tar archive; several archives in "
                            "one are not unpacked",
                            download_shown(t->base.download));
    }
    if (r < 0)
        return failed(t, err);
    if (t->tail_size < END_MARK || !is_zero(t->tail, END_MARK))
        return err_fail(err, -EPROTO, "%s was cut off: its tar archive has no end mark",
                        download_shown(t->base.download));
    return 0;
}

/* ---- entries ----------------------------------------------------------------------------------
 */

/* The next header, unless one is waiting. 1, 0 at the end. */
static int next_entry(struct tar *t, struct err *err)
{
    if (t->entry)
        return 1;
    if (t->ended)
        return 0;
    int r = archive_read_next_header(t->reader, &t->entry);
    if (r == ARCHIVE_EOF) {
        t->entry = NULL;
        t->ended = true;
        return finish(t, err);
    }
    const char *why = archive_error_string(t->reader);
    if (r != ARCHIVE_OK && (r != ARCHIVE_WARN || !why || !strstr(why, "can't be converted"))) {
        t->entry = NULL;
        return failed(t, err);
    }
    t->file = t->files++;
    t->begun = false;
    t->at = t->block_at = 0;
    t->block_size = 0;
    t->block_end = false;
    t->size = archive_entry_size_is_set(t->entry) && archive_entry_size(t->entry) > 0
                  ? (uint64_t)archive_entry_size(t->entry)
                  : 0;
    return 1;
}

struct xattr_row {
    const char *name;
    const void *value;
    size_t size;
};

static int xattr_compare(const void *a, const void *b)
{
    return strcmp(((const struct xattr_row *)a)->name, ((const struct xattr_row *)b)->name);
}

/* user.* only: the others are of the machine that the archive was made on. */
static int add_xattrs(struct tar *t, struct source_part *part, struct source_item *it)
{
    struct xattr_row rows[XATTR_ROWS];
    size_t count = 0, total = 0;
    struct xattr_row x;

    (void)archive_entry_xattr_reset(t->entry);
    while (archive_entry_xattr_next(t->entry, &x.name, &x.value, &x.size) == ARCHIVE_OK) {
        if (!x.name || strncmp(x.name, "user.", 5) != 0 || !x.name[5])
            continue;
        x.name += 5;
        total += strlen(x.name) + 3 + x.size;
        if (count == XATTR_ROWS || strlen(x.name) > 255 || x.size > XATTRS_MAX ||
            total > XATTRS_MAX) {
            it->xattrs_dropped = true;
            return 0;
        }
        rows[count++] = x;
    }
    if (count > 1)
        qsort(rows, count, sizeof *rows, xattr_compare);
    it->xattrs = part->texts.size;
    for (size_t i = 0; i < count; i++) {
        uint8_t size[2];
        if (i > 0 && strcmp(rows[i].name, rows[i - 1].name) == 0)
            continue; /* pax allows it twice */
        le16_put(size, (uint16_t)rows[i].size);
        int r = buf_append(&part->texts, rows[i].name, strlen(rows[i].name) + 1);
        if (r == 0)
            r = buf_append(&part->texts, size, 2);
        if (r == 0)
            r = buf_append(&part->texts, rows[i].value, rows[i].size);
        if (r < 0)
            return r;
    }
    it->xattrs_size = part->texts.size - it->xattrs;
    return 0;
}

static void fill_stat(const struct tar *t, struct source_stat *ret)
{
    struct archive_entry *e = t->entry;
    long ns = archive_entry_mtime_is_set(e) ? archive_entry_mtime_nsec(e) : 0;

    ret->type = archive_entry_filetype(e) == AE_IFDIR   ? SOURCE_DIRECTORY
                : archive_entry_filetype(e) == AE_IFLNK ? SOURCE_SYMLINK
                : archive_entry_filetype(e) == AE_IFREG || archive_entry_hardlink(e)
                    ? SOURCE_FILE
                    : SOURCE_SPECIAL;
    ret->mode = archive_entry_perm(e) & 07777;
    ret->size = t->size;
    ret->mtime.s = archive_entry_mtime_is_set(e) ? archive_entry_mtime(e) : 0;
    /* Some versions of libarchive count fractions before 1970 into the wrong direction. */
    ret->mtime.ns = ret->mtime.s >= 0 && ns > 0 && ns < 1000000000 ? (uint32_t)ns : 0;
}

/* An item with all but its data. -E2BIG: the part has no room for it. */
static int add_item(struct tar *t, struct source_part *part, struct source_item **ret)
{
    const char *path = archive_entry_pathname(t->entry);
    const char *link = archive_entry_hardlink(t->entry);
    struct source_item it = {.file = t->file, .sized = true};

    fill_stat(t, &it.stat);
    /* A further name that carries data is a file of its own: its data counts. */
    it.is_hard_link = link && t->size == 0;
    if (!it.is_hard_link)
        link = it.stat.type == SOURCE_SYMLINK ? archive_entry_symlink(t->entry) : NULL;
    if (!path)
        path = "";
    if (!link)
        link = "";
    int r = archived_text(part, path, strlen(path), &it.path, &it.path_size);
    if (r == 0)
        r = archived_text(part, link, strlen(link), &it.target, &it.target_size);
    if (r == 0)
        r = add_xattrs(t, part, &it);
    if (r < 0)
        return r;
    *ret = &part->items[part->count];
    part->items[part->count++] = it;
    return 0;
}

/* ---- data -------------------------------------------------------------------------------------
 */

/* Make sure that there is a block that is not used up, or that there is none any more. */
static int next_block(struct tar *t, struct err *err)
{
    while (t->block_size == 0 && !t->block_end) {
        const void *data;
        size_t size;
        la_int64_t at;
        int r = archive_read_data_block(t->reader, &data, &size, &at);
        if (r == ARCHIVE_EOF) {
            t->block_end = true;
            break;
        }
        if (r != ARCHIVE_OK)
            return failed(t, err);
        if (at < 0 || (uint64_t)at < t->block_at || size > t->size || (uint64_t)at > t->size - size)
            return err_fail(err, -EPROTO, "%s: the data of '%s' lies outside of it",
                            download_shown(t->base.download), archive_entry_pathname(t->entry));
        t->block = data;
        t->block_size = size;
        t->block_at = (uint64_t)at;
    }
    return 0;
}

/* The file's bytes from t->at on, `size` of them. What is in no block is zero. */
static int copy_data(struct tar *t, uint8_t *to, size_t size, struct err *err)
{
    size_t done = 0;

    while (done < size) {
        int r = next_block(t, err);
        if (r < 0)
            return r;
        uint64_t at = t->at + done;
        uint64_t gap = t->block_end ? size - done : t->block_at > at ? t->block_at - at : 0;
        size_t zeros = gap < size - done ? (size_t)gap : size - done;
        memset(to + done, 0, zeros);
        done += zeros;
        if (done == size)
            break;
        size_t n = t->block_size < size - done ? t->block_size : size - done;
        memcpy(to + done, t->block, n);
        t->block += n;
        t->block_at += n;
        t->block_size -= n;
        done += n;
    }
    t->at += size;
    return 0;
}

static int whole_file(struct tar *t, struct source_part *part, struct source_item *it,
                      struct err *err)
{
    it->first = it->last = true;
    it->size = t->size;
    it->data = part->data_size;
    int r = copy_data(t, part->data + it->data, (size_t)t->size, err);
    part->data_size += archived_room(t->size);
    return r;
}

/* The next piece of a large file. 1: the part is full. */
static int add_piece(struct tar *t, struct source_part *part, struct err *err)
{
    struct source_item *it;
    uint64_t left = t->size - t->at;
    uint64_t size = left < SOURCE_PIECE ? left : SOURCE_PIECE;

    int r = next_block(t, err);
    if (r < 0)
        return r;
    bool hole = t->block_end || t->block_at - t->at >= size;
    if (!hole && part->data_size > 0)
        return 1; /* a piece with data is alone */
    if (!t->begun) {
        r = add_item(t, part, &it);
        if (r < 0)
            return err_fail(err, r, "out of memory");
    } else {
        it = &part->items[part->count++];
        *it = (struct source_item){.file = t->file, .sized = true};
    }
    it->first = !t->begun;
    it->last = left == size;
    it->size = size;
    it->hole = hole;
    it->stat.type = SOURCE_FILE;
    it->data = part->data_size;
    t->begun = true;
    if (hole)
        t->at += size;
    else
        r = copy_data(t, part->data + it->data, (size_t)size, err);
    part->data_size += hole ? 0 : archived_room(size);
    if (it->last)
        t->entry = NULL;
    return r;
}

/* The waiting entry into the part. 1: the part is full. */
static int add_entry(struct tar *t, struct source_part *part, struct err *err)
{
    struct source_item *it;
    bool has_data = t->size > 0 && archive_entry_filetype(t->entry) == AE_IFREG;

    if (!has_data)
        t->size = 0;
    if (part->count == SOURCE_PART_ITEMS || part->texts.size > SOURCE_PART_TEXTS / 4)
        return 1;
    if (has_data && t->size > SOURCE_PIECE)
        return add_piece(t, part, err);
    if (part->data_size > 0 && part->data_size + archived_room(t->size) > SOURCE_PART_BYTES)
        return 1;
    int r = add_item(t, part, &it);
    if (r < 0)
        return err_fail(err, r, "out of memory");
    r = whole_file(t, part, it, err);
    t->entry = NULL;
    return r;
}

/* ---- the stream -------------------------------------------------------------------------------
 */

static int tar_worker_new(struct source *s, struct source_worker **ret)
{
    *ret = (struct source_worker *)s; /* nothing is kept for a thread */
    return 0;
}

static void tar_worker_free(struct source *s, struct source_worker *w)
{
}

static int tar_next(struct source *s, struct source_worker *w, struct source_part *part,
                    struct err *err)
{
    struct tar *t = (struct tar *)s;

    for (;;) {
        int r = next_entry(t, err);
        if (r == 0)
            return part->count > 0;
        if (r == 1)
            r = add_entry(t, part, err);
        if (r != 0)
            return r;
    }
}

static int tar_fill(struct source *s, struct source_worker *w, struct source_part *part,
                    struct err *err)
{
    return 0; /* it is complete */
}

static void tar_stop(struct source *s)
{
    struct tar *t = (struct tar *)s;

    download_stop(t->base.download);
    expand_stop(t->expand);
}

static const struct source_stream_ops tar_stream = {
    .worker_new = tar_worker_new,
    .worker_free = tar_worker_free,
    .next = tar_next,
    .fill = tar_fill,
    .progress = archived_progress,
    .stop = tar_stop,
};

static void tar_close(struct source *s)
{
    struct tar *t = (struct tar *)s;

    if (t->reader)
        (void)archive_read_free(t->reader); /* of a reader: nothing is lost */
    expand_close(t->expand);
    download_close(t->base.download);
    free(t);
}

static const struct source_ops tar_ops = {.close = tar_close};

static int open_reader(struct tar *t, struct err *err)
{
    t->reader = archive_read_new();
    if (!t->reader || archive_read_support_format_tar(t->reader) != ARCHIVE_OK)
        return err_fail(err, -ENOMEM, "out of memory");
    if (archive_read_open(t->reader, t, NULL, give_input, NULL) != ARCHIVE_OK)
        return failed(t, err);
    int r = next_entry(t, err); /* now, as nothing is written yet: is it one? */
    return r < 0 ? r : 0;
}

int archived_tar_open(struct download *d, enum expand_kind kind, struct source **ret,
                      struct err *err)
{
    struct tar *t = calloc(1, sizeof *t);

    if (!t) {
        download_close(d);
        return err_fail(err, -ENOMEM, "out of memory");
    }
    int r = archived_init(&t->base, &tar_ops, &tar_stream, d);
    if (r < 0)
        (void)err_fail(err, r, "out of memory");
    if (r == 0)
        r = expand_open(d, kind, &t->expand, err);
    if (r == 0)
        r = open_reader(t, err);
    if (r < 0)
        source_close(&t->base.source);
    else
        *ret = &t->base.source;
    return r;
}
