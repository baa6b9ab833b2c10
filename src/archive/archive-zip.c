/* SPDX-License-Identifier: Apache-2.0 */
/*
 * zip as a stream of parts, in the order in which members stand in the archive.
 *
 * Packed bytes are taken from the download in order, under the stream's lock, which is a copy and
 * no more; unpacking is done by each worker for itself. A member of more than PACKED_MAX, whose
 * packed bytes would not fit, is unpacked under the lock, piece by piece.
 *
 * The directory stands at the end. Where the server has ranges it is read first. Where it has none,
 * the archive is read twice: once for the directory, once for the members: a zip read only from its
 * front has no modes, no links and no way to tell what was deleted from it.
 */
#include "archive/archive-internal.h"
#include "archive/archive-zip-member.h"

#include <inttypes.h>
#include <libdeflate.h>
#include <stdio.h>
#include <string.h>

#define PACKED_MAX ((size_t)16 << 20) /* of packed bytes in each worker */
#define HEADER_MAX (ZIP_LOCAL_SIZE + 2 * 65535u)
#define TARGET_MAX 4095u
#define RANGE      ((size_t)8 << 20)
#define TAIL_KEPT                                                                                  \
    ((size_t)64 << 20) /* where there are no ranges: of the end, with the directory                \
                        */

struct zip {
    struct archived base;
    struct zip_directory directory;
    size_t next;                /* member */
    struct bytes input;         /* of the download, not used yet */
    uint64_t at;                /* offset of input */
    struct member_stream large; /* m is NULL: none is being read */
    uint64_t large_left;        /* packed bytes that are still in the download */
    uint8_t header[HEADER_MAX];
};

/* A small member of the part. */
struct job {
    const struct zip_member *m;
    size_t item, packed;
};

struct source_worker {
    struct libdeflate_decompressor *inflate; /* owned */
    uint8_t *packed;                         /* owned; PACKED_MAX */
    size_t packed_size;
    struct job jobs[SOURCE_PART_ITEMS];
    size_t job_count;
    struct member_stream middling; /* m is NULL: none is being read */
    struct bytes middling_left;    /* of `packed` */
};

static int say(const struct zip *z, int code, const struct zip_member *m, const char *why,
               struct err *err)
{
    return err_fail(err, code, "%s is damaged: its member '%.*s' %s",
                    download_shown(z->base.download), (int)m->name_size, zip_name(&z->directory, m),
                    why);
}

static int wrong(const struct zip *z, const struct zip_member *m, struct err *err)
{
    return say(z, -EBADMSG, m, "does not unpack to the size and checksum that it should have", err);
}

/* ---- the download, in order -------------------------------------------------------------------
 */

static int more_input(struct zip *z, struct err *err)
{
    if (z->input.size > 0)
        return 0;
    int r = download_take(z->base.download, &z->input, err);
    if (r == 0)
        return err_fail(err, -EPROTO, "%s was cut off", download_shown(z->base.download));
    return r < 0 ? r : 0;
}

static void used_input(struct zip *z, size_t size)
{
    z->input.data = (const uint8_t *)z->input.data + size;
    z->input.size -= size;
    z->at += size;
}

static int copy_input(struct zip *z, uint8_t *to, size_t size, struct err *err)
{
    while (size > 0) {
        int r = more_input(z, err);
        if (r < 0)
            return r;
        size_t n = z->input.size < size ? z->input.size : size;
        memcpy(to, z->input.data, n);
        used_input(z, n);
        to += n;
        size -= n;
    }
    return 0;
}

static int skip_input(struct zip *z, uint64_t to, struct err *err)
{
    while (z->at < to) {
        int r = more_input(z, err);
        if (r < 0)
            return r;
        used_input(z, z->input.size < to - z->at ? z->input.size : (size_t)(to - z->at));
    }
    return 0;
}

/* Up to the data of the next member; its header has to say what the directory says. */
static int enter_member(struct zip *z, const struct zip_member *m, struct err *err)
{
    size_t skip;

    if (z->at > m->offset)
        return say(z, -EPROTO, m, "lies over another one, as in a zip bomb", err);
    int r = skip_input(z, m->offset, err);
    if (r == 0)
        r = copy_input(z, z->header, ZIP_LOCAL_SIZE, err);
    if (r < 0)
        return r;
    if (zip_local_length(bytes_of(z->header, ZIP_LOCAL_SIZE), &skip) < 0)
        return say(z, -EPROTO, m, "is not where the directory says", err);
    r = copy_input(z, z->header + ZIP_LOCAL_SIZE, skip - ZIP_LOCAL_SIZE, err);
    if (r < 0)
        return r;
    if (!zip_local_matches(bytes_of(z->header, skip), &z->directory, m))
        return say(z, -EPROTO, m, "has a header that differs from the directory", err);
    uint64_t end = z->next + 1 < z->directory.members.count
                       ? z->directory.members.at[z->next + 1].offset
                       : z->directory.offset;
    if (end < z->at || end - z->at < m->packed)
        return say(z, -EPROTO, m, "lies over another one, as in a zip bomb", err);
    return 0;
}

/* ---- items ------------------------------------------------------------------------------------
 */

static int add_item(struct zip *z, struct source_part *part, const struct zip_member *m,
                    struct source_item **ret, struct err *err)
{
    struct source_item it = {.file = z->next, .sized = true, .first = true, .unique = true};

    it.stat.type = m->type == ZIP_DIRECTORY ? SOURCE_DIRECTORY
                   : m->type == ZIP_SYMLINK ? SOURCE_SYMLINK
                   : m->type == ZIP_SPECIAL ? SOURCE_SPECIAL
                                            : SOURCE_FILE;
    it.stat.mode = m->mode;
    it.stat.size = m->size;
    it.stat.mtime = (struct source_time){m->mtime_s, m->mtime_ns};
    it.data = part->data_size;
    int r = archived_text(part, zip_name(&z->directory, m), m->name_size, &it.path, &it.path_size);
    if (r < 0)
        return err_fail(err, r, "out of memory");
    *ret = &part->items[part->count++];
    **ret = it;
    return 0;
}

static bool is_small(const struct zip_member *m)
{
    return m->size <= SOURCE_PIECE && m->packed <= SOURCE_PIECE;
}

/* 1: the part is full. */
static int add_small(struct zip *z, struct source_worker *w, struct source_part *part,
                     const struct zip_member *m, struct err *err)
{
    struct source_item *it;

    if (part->count == SOURCE_PART_ITEMS || part->texts.size > SOURCE_PART_TEXTS / 4 ||
        (part->data_size > 0 && part->data_size + archived_room(m->size) > SOURCE_PART_BYTES) ||
        w->packed_size + m->packed > PACKED_MAX)
        return 1;
    if (m->type == ZIP_SYMLINK && m->size > TARGET_MAX)
        return say(z, -EPROTO, m, "is a symbolic link to no possible path", err);
    int r = enter_member(z, m, err);
    if (r == 0)
        r = copy_input(z, w->packed + w->packed_size, (size_t)m->packed, err);
    if (r == 0)
        r = add_item(z, part, m, &it, err);
    if (r < 0)
        return r;
    w->jobs[w->job_count++] = (struct job){m, part->count - 1, w->packed_size};
    w->packed_size += (size_t)m->packed;
    it->last = true;
    it->size = m->size;
    part->data_size += archived_room(m->size);
    z->next++;
    return 0;
}

/* The next piece of a member that is larger than a piece. */
static int add_piece(struct zip *z, struct member_stream *s, struct source_part *part,
                     struct err *err)
{
    struct source_item *it;
    uint64_t left = s->m->size - s->made;

    int r = add_item(z, part, s->m, &it, err);
    if (r < 0)
        return r;
    it->file = s->file;
    it->first = s->made == 0;
    it->last = left <= SOURCE_PIECE;
    it->size = it->last ? left : SOURCE_PIECE;
    part->data_size = archived_room(it->size);
    return 1;
}

/* ---- large members, under the lock ------------------------------------------------------------
 */

static int read_large(struct zip *z, struct source_part *part, struct err *err)
{
    struct member_stream *s = &z->large;
    const struct zip_member *m = s->m;
    size_t done = 0, n = 0;

    int r = add_piece(z, s, part, err);
    if (r < 0)
        return r;
    const struct source_item *it = &part->items[part->count - 1];
    for (;;) {
        n = 0;
        if (z->large_left > 0) {
            r = more_input(z, err);
            if (r < 0)
                return r;
        }
        struct bytes in = z->input;
        if (in.size > z->large_left)
            in.size = (size_t)z->large_left;
        size_t before = in.size;
        r = done < it->size
                ? member_stream_read(s, &in, part->data + done, (size_t)it->size - done, &n)
                : 0;
        if (r < 0)
            return wrong(z, m, err);
        done += done < it->size ? n : 0;
        used_input(z, before - in.size);
        z->large_left -= before - in.size;
        if (done == it->size)
            break;
        if (before == in.size && n == 0)
            return wrong(z, m, err); /* no input is left, and output is missing */
    }
    if (!it->last)
        return 1;
    /* What may be left are the bits of the last block's end. */
    uint8_t rest[64];
    size_t rest_size = z->large_left < sizeof rest ? (size_t)z->large_left : sizeof rest;
    r = copy_input(z, rest, rest_size, err);
    if (r < 0)
        return r;
    z->large_left -= rest_size;
    if (z->large_left > 0 || member_stream_end(s, bytes_of(rest, rest_size)) < 0)
        return wrong(z, m, err);
    s->m = NULL;
    return 1;
}

static int begin_large(struct zip *z, const struct zip_member *m, struct err *err)
{
    int r = enter_member(z, m, err);

    if (r == 0 && (r = member_stream_begin(&z->large, m, z->next)) < 0)
        (void)err_fail(err, r, "out of memory");
    z->large_left = m->packed;
    if (r == 0)
        z->next++;
    return r;
}

/* ---- middling members -------------------------------------------------------------------------
 */

static int begin_middling(struct zip *z, struct source_worker *w, const struct zip_member *m,
                          struct err *err)
{
    int r = enter_member(z, m, err);

    if (r == 0)
        r = copy_input(z, w->packed, (size_t)m->packed, err);
    if (r == 0 && (r = member_stream_begin(&w->middling, m, z->next)) < 0)
        (void)err_fail(err, r, "out of memory");
    w->middling_left = bytes_of(w->packed, (size_t)m->packed);
    if (r == 0)
        z->next++;
    return r;
}

static int fill_middling(struct zip *z, struct source_worker *w, struct source_part *part,
                         struct err *err)
{
    struct member_stream *s = &w->middling;
    const struct zip_member *m = s->m;
    const struct source_item *it = &part->items[0];
    size_t n = 0;

    int r = member_stream_read(s, &w->middling_left, part->data, (size_t)it->size, &n);
    if (r < 0 || n != it->size)
        return wrong(z, m, err);
    if (!it->last)
        return 0;
    r = member_stream_end(s, w->middling_left);
    s->m = NULL;
    return r < 0 ? wrong(z, m, err) : 0;
}

/* ---- the stream -------------------------------------------------------------------------------
 */

static int zip_next(struct source *source, struct source_worker *w, struct source_part *part,
                    struct err *err)
{
    struct zip *z = (struct zip *)source;

    w->job_count = w->packed_size = 0;
    if (w->middling.m)
        return add_piece(z, &w->middling, part, err);
    for (;;) {
        if (z->large.m)
            return part->count > 0 ? 1 : read_large(z, part, err);
        if (z->next == z->directory.members.count)
            return part->count > 0;
        const struct zip_member *m = &z->directory.members.at[z->next];
        int r = 0;
        if (is_small(m)) {
            r = add_small(z, w, part, m, err);
            if (r != 0)
                return r;
            continue;
        }
        if (part->count > 0)
            return 1;
        if (m->type == ZIP_SYMLINK)
            return say(z, -EPROTO, m, "is a symbolic link to no possible path", err);
        if (m->packed <= PACKED_MAX && m->size > SOURCE_PIECE) {
            r = begin_middling(z, w, m, err);
            return r < 0 ? r : add_piece(z, &w->middling, part, err);
        }
        r = begin_large(z, m, err);
        if (r < 0)
            return r;
    }
}

/* A link's data is where it leads. */
static int set_target(struct source_part *part, struct source_item *it)
{
    int r = archived_text(part, (const char *)part->data + it->data, (size_t)it->size, &it->target,
                          &it->target_size);

    it->size = 0;
    return r;
}

static int zip_fill(struct source *source, struct source_worker *w, struct source_part *part,
                    struct err *err)
{
    struct zip *z = (struct zip *)source;

    if (w->middling.m)
        return fill_middling(z, w, part, err);
    for (size_t i = 0; i < w->job_count; i++) {
        const struct job *job = &w->jobs[i];
        struct source_item *it = &part->items[job->item];
        int r = member_unpack(w->inflate, job->m, w->packed + job->packed, part->data + it->data);
        if (r < 0)
            return wrong(z, job->m, err);
        if (job->m->type == ZIP_SYMLINK && (r = set_target(part, it)) < 0)
            return err_fail(err, r, "out of memory");
    }
    return 0;
}

static void zip_worker_free(struct source *source, struct source_worker *w)
{
    if (w->inflate)
        libdeflate_free_decompressor(w->inflate);
    member_stream_release(&w->middling);
    free(w->packed);
    free(w);
}

static int zip_worker_new(struct source *source, struct source_worker **ret)
{
    struct source_worker *w = calloc(1, sizeof *w);

    if (!w)
        return -ENOMEM;
    w->inflate = libdeflate_alloc_decompressor();
    w->packed = malloc(PACKED_MAX);
    if (!w->inflate || !w->packed) {
        zip_worker_free(source, w);
        return -ENOMEM;
    }
    *ret = w;
    return 0;
}

static void zip_stop(struct source *source)
{
    download_stop(((struct zip *)source)->base.download);
}

static const struct source_stream_ops zip_stream = {
    .worker_new = zip_worker_new,
    .worker_free = zip_worker_free,
    .next = zip_next,
    .fill = zip_fill,
    .progress = archived_progress,
    .stop = zip_stop,
};

static void zip_close(struct source *source)
{
    struct zip *z = (struct zip *)source;

    zip_directory_release(&z->directory);
    member_stream_release(&z->large);
    download_close(z->base.download);
    free(z);
}

static const struct source_ops zip_ops = {.close = zip_close};

/* ---- the directory ----------------------------------------------------------------------------
 */

static int prefix(const struct zip *z, int r, struct err *err)
{
    return r < 0 ? err_prefix(err, r, "%s cannot be unpacked", download_shown(z->base.download))
                 : 0;
}

/* `tail` is the end of the archive, whose directory is somewhere in it. */
static int parse_tail(struct zip *z, struct bytes tail, uint64_t size, struct err *err)
{
    uint64_t from, tail_at = size - tail.size;

    int r = zip_find_directory(tail, size, &z->directory, &from, err);
    if (r == -EAGAIN || (r == 0 && z->directory.offset < tail_at))
        return prefix(z,
                      err_fail(err, -EFBIG,
                               "its directory is larger than %zu MiB, and the server has no ranges "
                               "to read it by",
                               TAIL_KEPT >> 20),
                      err);
    if (r == 0)
        r = zip_parse_directory(
            bytes_of((const uint8_t *)tail.data + (z->directory.offset - tail_at),
                     (size_t)z->directory.size),
            &z->directory, err);
    return prefix(z, r, err);
}

/* All of it passes by, and its end is kept. */
static int read_plainly(struct zip *z, struct err *err)
{
    struct download *d = z->base.download;
    AUTO(buf_release) struct buf kept = BUF_INIT(2 * TAIL_KEPT + RANGE);
    struct bytes b;
    uint64_t size = 0;
    int r;

    while ((r = download_take(d, &b, err)) == 1) {
        size += b.size;
        if (kept.size > 2 * TAIL_KEPT - b.size) {
            memmove(kept.data, kept.data + kept.size - TAIL_KEPT, TAIL_KEPT);
            kept.size = TAIL_KEPT;
        }
        r = buf_append(&kept, b.data, b.size);
        if (r < 0)
            return err_fail(err, r, "out of memory");
    }
    if (r == 0)
        r = parse_tail(z, buf_bytes(&kept), size, err);
    return r < 0 ? r : download_rewind(d, err);
}

static int read_range(struct zip *z, uint64_t offset, size_t size, uint8_t **ret, struct err *err)
{
    AUTO(free_ptr) uint8_t *data = malloc(size + 1);

    if (!data)
        return err_fail(err, -ENOMEM, "out of memory");
    for (size_t at = 0; at < size; at += RANGE) {
        int r = download_range(z->base.download, offset + at, data + at,
                               size - at < RANGE ? size - at : RANGE, err);
        if (r < 0)
            return r;
    }
    *ret = take_ptr(&data);
    return 0;
}

static int find_by_range(struct zip *z, uint64_t size, uint64_t from, uint64_t *ret_from,
                         struct err *err)
{
    AUTO(free_ptr) uint8_t *tail = NULL;

    int r = read_range(z, from, (size_t)(size - from), &tail, err);
    if (r < 0)
        return r;
    r = zip_find_directory(bytes_of(tail, (size_t)(size - from)), size, &z->directory, ret_from,
                           err);
    return r == -EAGAIN ? r : prefix(z, r, err);
}

static int read_by_range(struct zip *z, struct err *err)
{
    AUTO(free_ptr) uint8_t *data = NULL;
    uint64_t size = download_size(z->base.download);
    uint64_t from = size > ZIP_TAIL_MAX ? size - ZIP_TAIL_MAX : 0;

    int r = find_by_range(z, size, from, &from, err);
    if (r == -EAGAIN) /* a zip64 end that is far away from its locator */
        r = find_by_range(z, size, from, &from, err);
    if (r == 0)
        r = read_range(z, z->directory.offset, (size_t)z->directory.size, &data, err);
    if (r < 0)
        return r;
    return prefix(
        z, zip_parse_directory(bytes_of(data, (size_t)z->directory.size), &z->directory, err), err);
}

int archived_zip_open(struct download *d, struct source **ret, struct err *err)
{
    struct zip *z = calloc(1, sizeof *z);

    if (!z) {
        download_close(d);
        return err_fail(err, -ENOMEM, "out of memory");
    }
    int r = archived_init(&z->base, &zip_ops, &zip_stream, d);
    if (r < 0)
        (void)err_fail(err, r, "out of memory");
    if (r == 0)
        r = download_has_ranges(d) ? read_by_range(z, err) : read_plainly(z, err);
    if (r < 0)
        source_close(&z->base.source);
    else
        *ret = &z->base.source;
    return r;
}
