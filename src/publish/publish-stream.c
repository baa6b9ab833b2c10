/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The writer of a stream: takes its parts in order, gives each entry its row among the names, drops
 * contents that are stored already, has the rest put into packs, and makes the tree at the end.
 *
 * It runs in the thread that called publish_run(), so that notices and progress come from there. A
 * file that is replaced later is stored all the same: when it came, nobody could know. Local state
 * knows packs and the upload, no files: the next time the whole stream is read again.
 */
#include "publish/publish-names.h"
#include "publish/publish-place.h"
#include "publish/publish-stream.h"

#include <inttypes.h>

#define MODE_READ    0444u
#define MODE_EXECUTE 0111u
/* Known blobs that are remembered: one per file of a large version. */
#define BLOBS_MAX 100000000u
/* A file is cut into pieces, each with a row in memory, also where it has no data: so its size is
 * bounded, and that of all files together. */
#define FILE_MAX  (UINT64_C(16) << 40)
#define TOTAL_MAX (UINT64_C(128) << 40)
/* Nobody knows ahead how much there is, so now and then it is looked whether the next pack fits. */
#define SPACE_EVERY (UINT64_C(256) << 20)
#define NO_FILE_ROW UINT32_MAX /* it is left out */

/* A large file of which not all pieces have come. Several members of a zip come side by side. */
struct open_file {
    uint64_t file; /* the stream's number */
    uint32_t row;
    uint32_t chunk;            /* first one */
    uint64_t pieces, reserved; /* that came; rows in the table of chunks */
    uint64_t size;
};

struct row_xattrs {
    uint32_t row;
    uint16_t size;
    uint8_t *data; /* owned */
};

struct stream_writer {
    struct publish *p;
    struct stream_pipe *pipe;
    struct placer *placer;
    struct names *names;
    VEC(struct open_file) open;
    VEC(struct row_xattrs) xattrs;
    uint64_t total, space_looked;
};

/* ---- what comes with an entry -----------------------------------------------------------------
 */

static const char *item_text(const struct source_part *part, size_t place)
{
    return part->texts.data ? (const char *)part->texts.data + place : "";
}

static void notice(struct stream_writer *w, const struct source_part *part,
                   const struct source_item *it, enum publish_notice_kind kind)
{
    char name[SOURCE_PATH_MAX + 1];
    size_t n = it->path_size < sizeof name ? it->path_size : sizeof name - 1;

    memcpy(name, item_text(part, it->path), n);
    name[n] = '\0';
    publish_notice(w->p, kind, name);
}

static bool is_private(const struct source_stat *st)
{
    if (st->type == SOURCE_DIRECTORY)
        return (st->mode & 0005) != 0005;
    return st->type == SOURCE_FILE && !(st->mode & 0004);
}

static uint16_t mode_of(const struct source_stat *st)
{
    if (st->type == SOURCE_DIRECTORY)
        return MODE_READ | MODE_EXECUTE;
    if (st->type == SOURCE_SYMLINK)
        return 0777;
    return (uint16_t)(MODE_READ | ((st->mode & MODE_EXECUTE) ? MODE_EXECUTE : 0));
}

/* Is it published at all? A private directory is: what lies in it has modes of its own. */
static bool keep(struct stream_writer *w, const struct source_part *part,
                 const struct source_item *it)
{
    struct publish *p = w->p;

    if (it->stat.type == SOURCE_SPECIAL) {
        p->result.skipped_files++;
        notice(w, part, it, PUBLISH_NOTICE_SKIPPED);
        return false;
    }
    if (it->is_hard_link || !is_private(&it->stat))
        return true;
    p->result.private_files++;
    notice(w, part, it, PUBLISH_NOTICE_PRIVATE);
    return !p->o->exclude_private || it->stat.type == SOURCE_DIRECTORY;
}

static int keep_xattrs(struct stream_writer *w, const struct source_part *part,
                       const struct source_item *it, uint32_t row)
{
    struct row_xattrs x = {.row = row, .size = (uint16_t)it->xattrs_size};

    if (it->xattrs_dropped)
        notice(w, part, it, PUBLISH_NOTICE_XATTR);
    if (it->xattrs_size == 0 || it->is_hard_link)
        return 0;
    x.data = malloc(it->xattrs_size);
    if (!x.data)
        return -ENOMEM;
    memcpy(x.data, item_text(part, it->xattrs), it->xattrs_size);
    int r = vec_push(&w->xattrs, x);
    if (r < 0)
        free(x.data);
    return r;
}

/* 1: it has a row; 0: it is left out. */
static int add_name(struct stream_writer *w, const struct source_part *part,
                    const struct source_item *it, uint32_t *ret_row, struct err *err)
{
    struct names_entry e = {.path = item_text(part, it->path),
                            .path_size = it->path_size,
                            .target = item_text(part, it->target),
                            .target_size = it->target_size,
                            .stat = &it->stat,
                            .mode = mode_of(&it->stat),
                            .is_hard_link = it->is_hard_link,
                            .unique = it->unique};
    struct names_remarks remarks;

    if (!keep(w, part, it))
        return 0;
    int r = names_add(w->names, &e, ret_row, &remarks, err);
    if (r < 0)
        return err_prefix(err, r, "%s cannot be unpacked", w->p->source->location);
    if (remarks.absolute)
        notice(w, part, it, PUBLISH_NOTICE_ABSOLUTE);
    if (remarks.replaced)
        notice(w, part, it, PUBLISH_NOTICE_REPLACED);
    if (remarks.encoding)
        notice(w, part, it, PUBLISH_NOTICE_ENCODING);
    r = keep_xattrs(w, part, it, *ret_row);
    return r < 0 ? err_fail(err, r, "out of memory") : 1;
}

/* ---- data -------------------------------------------------------------------------------------
 */

static int place_piece(struct stream_writer *w, const struct stream_batch *b, size_t i,
                       struct tree_chunk *ret, struct err *err)
{
    const struct stream_piece *piece = &b->pieces[i];
    const struct source_item *it = &b->part.items[i];
    struct placer_blob blob = {.leaves = &b->leaves[piece->leaf],
                               .leaf_count = piece->leaf_count,
                               .data = b->part.data + it->data,
                               .size = (size_t)it->size,
                               .id = &piece->id};

    *ret =
        (struct tree_chunk){.pack = piece->kind == PIECE_ZEROS ? TREE_PACK_HOLE : TREE_PACK_NONE};
    if (piece->kind != PIECE_DATA)
        return 0;
    w->p->result.bytes_read += it->size;
    return placer_place(w->placer, &blob, ret, err);
}

static int too_large(const struct stream_writer *w, const struct source_part *part,
                     const struct source_item *it, struct err *err)
{
    return err_fail(err, -EFBIG, "%s cannot be unpacked: '%.*s' makes it larger than %s",
                    w->p->source->location, (int)it->path_size, item_text(part, it->path),
                    w->total > TOTAL_MAX ? "128 TiB" : "16 TiB a file");
}

static void file_done(struct stream_writer *w)
{
    w->p->progress.files_done++;
    w->p->result.files_read++;
}

static int whole_file(struct stream_writer *w, const struct stream_batch *b, size_t i,
                      struct err *err)
{
    const struct source_item *it = &b->part.items[i];
    struct tree_chunk place;
    uint32_t row;

    int r = add_name(w, &b->part, it, &row, err);
    if (r <= 0 || it->is_hard_link || it->stat.type != SOURCE_FILE)
        return r < 0 ? r : 0;
    r = place_piece(w, b, i, &place, err);
    if (r < 0)
        return r;
    struct tree_node *n = names_node(w->names, row);
    n->size = it->size;
    n->pack = place.pack;
    n->ref = place.block;
    n->leaf = place.leaf;
    file_done(w);
    return 0;
}

/* The rows of a file stand together: all of them are taken at once where its size is known. Where
 * it is not, no other file comes between its pieces. */
static int open_large(struct stream_writer *w, const struct stream_batch *b, size_t i,
                      struct err *err)
{
    const struct source_item *it = &b->part.items[i];
    struct open_file f = {.file = it->file, .row = NO_FILE_ROW};

    int r = add_name(w, &b->part, it, &f.row, err);
    if (r < 0)
        return r;
    if (r == 0)
        f.row = NO_FILE_ROW;
    if (it->stat.size > FILE_MAX)
        return too_large(w, &b->part, it, err);
    f.reserved = it->sized ? tree_chunk_count(it->stat.size) : 1;
    r = f.row == NO_FILE_ROW ? 0 : tree_add_chunks(w->p->tree, (size_t)f.reserved, &f.chunk);
    if (r == 0)
        r = vec_push(&w->open, f);
    return r < 0 ? err_fail(err, r, "out of memory") : 0;
}

static int add_piece(struct stream_writer *w, struct open_file *f, const struct stream_batch *b,
                     size_t i, struct err *err)
{
    const struct source_item *it = &b->part.items[i];
    struct tree_chunk place;
    uint32_t chunk;

    f->size += it->size;
    if (f->size > FILE_MAX)
        return too_large(w, &b->part, it, err);
    if (f->row == NO_FILE_ROW)
        return 0;
    int r = place_piece(w, b, i, &place, err);
    if (r < 0)
        return r;
    if (f->pieces == f->reserved) {
        r = tree_add_chunks(w->p->tree, 1, &chunk);
        if (r < 0 || chunk != f->chunk + f->reserved)
            return err_fail(err, r < 0 ? r : -EPROTO, "out of memory");
        f->reserved++;
    }
    *tree_chunk(w->p->tree, f->chunk + (uint32_t)f->pieces++) = place;
    return 0;
}

static void close_large(struct stream_writer *w, struct open_file *f)
{
    if (f->row != NO_FILE_ROW) {
        struct tree_node *n = names_node(w->names, f->row);
        n->size = f->size;
        n->pack = TREE_PACK_MANY;
        n->ref = f->chunk;
        file_done(w);
    }
    *f = w->open.at[--w->open.count];
}

static int large_file(struct stream_writer *w, const struct stream_batch *b, size_t i,
                      struct err *err)
{
    const struct source_item *it = &b->part.items[i];
    size_t at = 0;

    if (it->first) {
        int r = open_large(w, b, i, err);
        if (r < 0)
            return r;
    }
    while (at < w->open.count && w->open.at[at].file != it->file)
        at++;
    if (at == w->open.count)
        return err_fail(err, -EPROTO, "the stream broke its own rules");
    int r = add_piece(w, &w->open.at[at], b, i, err);
    if (r == 0 && it->last)
        close_large(w, &w->open.at[at]);
    return r;
}

/* ---- the stream -------------------------------------------------------------------------------
 */

static int write_batch(struct stream_writer *w, struct stream_batch *b, struct err *err)
{
    if (b->error < 0)
        return err_fail(err, b->error, "%s", err_text(&b->err, b->error));
    for (size_t i = 0; i < b->part.count; i++) {
        const struct source_item *it = &b->part.items[i];
        w->total += it->size;
        if (w->total > TOTAL_MAX)
            return too_large(w, &b->part, it, err);
        int r = it->first && it->last ? whole_file(w, b, i, err) : large_file(w, b, i, err);
        if (r < 0)
            return r;
    }
    return placer_flush(w->placer, err); /* before the batch's memory is used again */
}

/* Rather a sentence while something is left than a full disk. */
static int look_at_space(struct stream_writer *w, struct err *err)
{
    struct publish *p = w->p;
    struct store_space space;

    if (p->progress.bytes_stored - w->space_looked < SPACE_EVERY && w->space_looked > 0)
        return 0;
    w->space_looked = p->progress.bytes_stored + 1;
    if (store_space(p->store, &space) < 0 || space.free_bytes < 0 ||
        (uint64_t)space.free_bytes > SPACE_EVERY + p->pack_target / 4)
        return 0;
    return err_fail(err, -ENOSPC,
                    "%s does not fit: %" PRIu64 " MiB are stored, and %s has %" PRId64 " MiB left",
                    p->source->location, p->progress.bytes_stored >> 20, p->store->location,
                    space.free_bytes >> 20);
}

static void tell(struct stream_writer *w, bool now)
{
    struct publish_progress *g = &w->p->progress;

    w->p->source->stream->progress(w->p->source, &g->bytes_done, &g->bytes_total);
    publish_tell(w->p, now);
}

static int read_all(struct stream_writer *w, struct err *err)
{
    struct publish *p = w->p;
    bool waiting;

    for (;;) {
        struct stream_batch *b = stream_pipe_take(w->pipe, &waiting);
        int r = 0;
        if (!b && !waiting)
            return 0;
        if (publish_interrupted(p))
            return err_fail(err, -ECANCELED, "interrupted");
        if (b) {
            r = write_batch(w, b, err);
            stream_pipe_give_back(w->pipe, b);
        }
        if (r == 0)
            r = look_at_space(w, err);
        if (r == 0)
            r = upload_heartbeat(p->upload, err);
        if (r < 0)
            return r;
        tell(w, false);
    }
}

/* ---- the tree ---------------------------------------------------------------------------------
 */

static int make_tree(struct stream_writer *w, struct err *err)
{
    struct publish *p = w->p;

    if (w->open.count > 0)
        return err_fail(err, -EPROTO, "the stream broke its own rules");
    int r = names_build(w->names, p->tree);
    for (size_t i = 0; r == 0 && i < w->xattrs.count; i++) {
        const struct row_xattrs *x = &w->xattrs.at[i];
        uint32_t node = names_tree_node(w->names, x->row);
        if (node != TREE_NO_NODE)
            r = publish_add_xattrs(p, node, bytes_of(x->data, x->size));
    }
    return r < 0
               ? err_fail(err, r, "cannot make a tree of %s: %s", p->source->location, strerror(-r))
               : 0;
}

static int store_stream(struct stream_writer *w, struct err *err)
{
    struct publish *p = w->p;

    int r = names_new(&w->names);
    if (r < 0)
        return err_fail(err, r, "out of memory");
    r = placer_start(p, BLOBS_MAX, &w->placer, err);
    if (r == 0 && (r = stream_pipe_start(p, &w->pipe)) < 0)
        (void)err_fail(err, r, "cannot start reading: %s", strerror(-r));
    if (r == 0)
        r = read_all(w, err);
    stream_pipe_stop(w->pipe); /* its memory is needed for the tree */
    if (r == 0)
        r = placer_finish(w->placer, err);
    placer_free(w->placer);
    return r < 0 ? r : make_tree(w, err);
}

int publish_store_stream(struct publish *p, struct err *err)
{
    struct stream_writer w = {.p = p};

    p->progress.phase = PUBLISH_READ;
    tell(&w, true);
    int r = store_stream(&w, err);
    if (r == 0) {
        p->progress.files_total = p->progress.files_done;
        tell(&w, true);
    }
    for (size_t i = 0; i < w.xattrs.count; i++)
        free(w.xattrs.at[i].data);
    vec_release(&w.xattrs);
    vec_release(&w.open);
    names_free(w.names);
    return r;
}

void publish_expect_stream(struct publish *p)
{
    p->progress.is_stream = true;
    p->source->stream->progress(p->source, &p->progress.bytes_done, &p->progress.bytes_total);
    p->pending_files = 1; /* something is new, for certain; nobody knows how much */
    p->pending_bytes = p->progress.bytes_total;
}
