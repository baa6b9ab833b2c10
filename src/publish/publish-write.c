/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The writer: takes batches in order, drops contents that are stored already, has the rest put into
 * packs, and fills in the tree and the journal.
 *
 * It runs in the thread that called publish_run(), so that notices and progress come from there.
 * What it finds changed beyond what was planned stays pending and is planned once more.
 */
#include "publish/publish-pipe.h"
#include "publish/publish-place.h"

#include <stdio.h>

#define PASSES_MAX 4u /* files that change their size under us get so many chances */
/* Known blobs that are remembered: what 64 MiB hold, or one per file of a larger tree. */
#define BLOBS_LEAST (UINT64_C(3) << 20)

struct writer {
    struct publish *p;
    struct pipe *pipe;
    struct placer *placer;
    uint64_t deferred;
    char deferred_name[512]; /* one of them, for the sentence */
    /* the large file whose pieces come in: */
    struct source_stat large_stat; /* of its first piece */
    bool large_differs, large_changed, large_dropped, large_settled, large_mtime_settled;
    struct publish_xattrs large_xattrs;
};

/* ---- items ------------------------------------------------------------------------------------
 */

static int place_data(struct writer *w, const struct batch *b, const struct batch_item *it,
                      struct tree_chunk *ret, struct err *err)
{
    struct placer_blob blob = {.leaves = &b->leaves[it->leaf],
                               .leaf_count = it->leaf_count,
                               .data = b->data + it->offset,
                               .size = it->size,
                               .id = &it->id};

    return placer_place(w->placer, &blob, ret, err);
}

/* The table of chunks grows while further pieces are planned. */
struct large_rows {
    struct pipe *pipe;
    const struct tree *tree;
    uint32_t first;
};

static struct tree_chunk large_row(void *ctx, uint64_t i)
{
    const struct large_rows *rows = ctx;
    WITH_LOCK(pipe_tree_lock(rows->pipe));

    return *tree_chunk(rows->tree, rows->first + (uint32_t)i);
}

/* An entry is only worth something if every later change of the file will show in its times. */
static void journal_item(struct writer *w, const struct batch *b, const struct batch_item *it,
                         struct tree_chunk place, struct bytes xattrs)
{
    struct publish *p = w->p;
    const struct source_stat *st = &it->stat;
    struct large_rows rows = {w->pipe, p->tree, it->node->ref};
    struct log_entry e = {
        .name = it->name,
        .name_length = it->name_length,
        .where = it->pieces > 1                 ? LOG_MANY
                 : it->result == ITEM_EMPTY     ? LOG_EMPTY
                 : place.pack == TREE_PACK_HOLE ? LOG_HOLE
                                                : LOG_ONE,
        .size = st->size,
        .inode = st->inode,
        .mtime = st->mtime,
        .ctime = st->ctime,
        .mtime_settled = it->mtime_settled,
        .chunk = place,
        .chunk_count = it->pieces,
        .xattrs = xattrs,
    };

    if (!p->journal || !(p->source->inodes_stable ? it->settled : it->mtime_settled))
        return;
    log_writer_directory(p->journal, batch_path(b, it), it->path_size);
    log_writer_entry(p->journal, &e, large_row, &rows);
}

static void item_name(const struct batch *b, const struct batch_item *it, char *text, size_t size)
{
    const char *path = batch_path(b, it);

    (void)snprintf(text, size, "%s%s%.*s", path, *path ? "/" : "", (int)it->name_length, it->name);
}

static void notice_item(struct writer *w, const struct batch *b, const struct batch_item *it,
                        enum publish_notice_kind kind)
{
    char name[4096 + 256]; /* for people: longer paths are cut */

    item_name(b, it, name, sizeof name);
    publish_notice(w->p, kind, name);
}

/* The file's contents are in place. */
static int finish_item(struct writer *w, const struct batch *b, struct batch_item *it,
                       struct tree_chunk place, struct bytes xattrs, struct err *err)
{
    struct publish *p = w->p;

    it->fate = FATE_DONE;
    it->place = place;
    p->progress.bytes_total += it->stat.size - it->node->size;
    p->progress.bytes_done += it->stat.size;
    p->progress.files_done++;
    p->result.files_read++;
    journal_item(w, b, it, place, xattrs);
    if (it->changed)
        notice_item(w, b, it, PUBLISH_NOTICE_CHANGED);
    if (it->xattrs_dropped)
        notice_item(w, b, it, PUBLISH_NOTICE_XATTR);
    int r = xattrs.size > 0 || p->xattrs_outdated ? publish_add_xattrs(p, it->number, xattrs) : 0;
    return r < 0 ? err_fail(err, r, "out of memory") : 0;
}

/* It stays pending, and is planned anew with what it is now. */
static void defer(struct writer *w, const struct batch *b, struct batch_item *it)
{
    it->fate = FATE_AGAIN;
    w->p->progress.bytes_total += it->stat.size - it->node->size;
    w->deferred++;
    item_name(b, it, w->deferred_name, sizeof w->deferred_name);
    notice_item(w, b, it, PUBLISH_NOTICE_CHANGED);
}

/* The file's attributes as they were when it was read, and where it is now. */
static void set_node(const struct batch_item *it)
{
    struct tree_node *n = it->node;

    n->size = it->stat.size;
    n->mtime_s = it->stat.mtime.s;
    n->mtime_ns = it->stat.mtime.ns & 0x3fffffff;
    if (it->fate == FATE_AGAIN)
        return;
    n->pack = it->pieces > 1 ? TREE_PACK_MANY : it->place.pack;
    if (it->pieces == 1) {
        n->ref = it->place.block;
        n->leaf = it->place.leaf;
    }
}

/* Once a batch, since the plan looks at nodes meanwhile. */
static void set_nodes(struct writer *w, const struct batch *b)
{
    WITH_LOCK(pipe_tree_lock(w->pipe));

    for (size_t i = 0; i < b->count; i++) {
        if (b->items[i].fate != FATE_NONE)
            set_node(&b->items[i]);
    }
}

static struct bytes item_xattrs(const struct batch *b, const struct batch_item *it)
{
    return bytes_of(it->xattrs_size ? b->xattrs.data + it->xattrs : NULL, it->xattrs_size);
}

static bool stat_equal(const struct source_stat *a, const struct source_stat *b)
{
    return a->size == b->size && a->inode == b->inode && a->device == b->device &&
           a->mtime.s == b->mtime.s && a->mtime.ns == b->mtime.ns && a->ctime.s == b->ctime.s &&
           a->ctime.ns == b->ctime.ns;
}

/* Pieces come one behind the other, read by whichever thread, each looked at before and after. All
 * looks alike: nothing changed between the first and the last. */
static int end_piece(struct writer *w, const struct batch *b, struct batch_item *it,
                     struct err *err)
{
    static const struct tree_chunk none = {.pack = TREE_PACK_NONE};
    struct publish_xattrs *x = &w->large_xattrs;

    if (it->piece == 0) {
        w->large_stat = it->stat;
        w->large_differs = w->large_changed = false;
        w->large_dropped = it->xattrs_dropped;
        w->large_settled = it->settled;
        w->large_mtime_settled = it->mtime_settled;
        x->size = (uint16_t)it->xattrs_size;
        if (it->xattrs_size > 0)
            memcpy(x->data, item_xattrs(b, it).data, it->xattrs_size);
    }
    if (it->result == ITEM_DEFERRED || !stat_equal(&w->large_stat, &it->stat))
        w->large_differs = true;
    w->large_changed |= it->changed;
    if (it->piece + 1 < it->pieces)
        return 0;
    if (w->large_differs) {
        defer(w, b, it);
        return 0;
    }
    it->changed = w->large_changed;
    it->xattrs_dropped = w->large_dropped;
    it->settled = w->large_settled;
    it->mtime_settled = w->large_mtime_settled;
    return finish_item(w, b, it, none, bytes_of(x->data, x->size), err);
}

static int write_item(struct writer *w, const struct batch *b, struct batch_item *it,
                      struct err *err)
{
    struct tree_chunk place = {.pack = TREE_PACK_NONE};
    int r = 0;

    if (it->result == ITEM_DATA) {
        w->p->result.bytes_read += it->size;
        r = place_data(w, b, it, &place, err);
    } else if (it->result == ITEM_HOLE) {
        place.pack = TREE_PACK_HOLE;
    }
    if (r < 0)
        return r;
    if (it->pieces > 1) {
        *it->chunk = place;
        return end_piece(w, b, it, err);
    }
    if (it->result == ITEM_DEFERRED) {
        defer(w, b, it);
        return 0;
    }
    return finish_item(w, b, it, place, item_xattrs(b, it), err);
}

static int write_batch(struct writer *w, struct batch *b, struct err *err)
{
    if (b->error < 0)
        return err_fail(err, b->error, "%s", err_text(&b->err, b->error));
    for (size_t i = 0; i < b->count; i++) {
        int r = write_item(w, b, &b->items[i], err);
        if (r < 0)
            return r;
    }
    set_nodes(w, b);
    return placer_flush(w->placer, err); /* before the batch's memory is used again */
}

/* ---- passes -----------------------------------------------------------------------------------
 */

static int pass(struct writer *w, struct err *err)
{
    struct publish *p = w->p;
    AUTO(pipe_stop) struct pipe *pipe = NULL;
    bool waiting;

    int r = pipe_start(p, &pipe);
    if (r < 0)
        return err_fail(err, r, "cannot start reading: %s", strerror(-r));
    w->pipe = pipe;
    w->deferred = 0;
    for (;;) {
        struct batch *b = pipe_take(pipe, &waiting);
        if (!b && !waiting)
            return 0;
        if (publish_interrupted(p))
            return err_fail(err, -ECANCELED, "interrupted");
        if (b) {
            r = write_batch(w, b, err);
            pipe_give_back(pipe, b);
        }
        if (r == 0)
            r = upload_heartbeat(p->upload, err);
        if (r < 0)
            return r;
        publish_tell(p, false);
    }
}

static int write_all(struct writer *w, struct err *err)
{
    struct publish *p = w->p;
    uint64_t nodes = tree_node_count(p->tree);

    int r = placer_start(p, nodes > BLOBS_LEAST ? nodes : BLOBS_LEAST, &w->placer, err);
    w->deferred = p->pending_files;
    for (unsigned i = 0; r == 0 && w->deferred > 0; i++) {
        if (i == PASSES_MAX)
            return err_fail(err, -EAGAIN, "cannot read %s%s%s: it keeps changing while it is read",
                            p->source->location, source_slash(p->source), w->deferred_name);
        r = pass(w, err);
    }
    return r < 0 ? r : placer_finish(w->placer, err);
}

int publish_store_files(struct publish *p, struct err *err)
{
    uint8_t xattrs[TREE_XATTR_MAX];
    struct writer w = {.p = p, .large_xattrs = {.data = xattrs}};

    p->progress.phase = PUBLISH_READ;
    publish_tell(p, true);
    int r = p->pending_files > 0 ? write_all(&w, err) : 0;
    placer_free(w.placer);
    if (r == 0)
        publish_tell(p, true);
    return r;
}
