/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One directory of the walk, held against what local state knows of it: files that are unchanged,
 * and whose packs may be named, are filled in, and handed on to the new journal.
 *
 * Both sides are sorted by name, so they are merged; a log may have several blocks of a directory,
 * each sorted in itself.
 */
#include "publish/publish-known.h"

static const struct source_entry *entry_at(const struct known_directory *d, size_t i)
{
    return &d->entries[d->sorted[i].entry];
}

static bool time_equal(struct source_time a, struct source_time b)
{
    return a.s == b.s && a.ns == b.ns;
}

static bool is_unchanged(const struct known_directory *d, const struct source_stat *st,
                         const struct log_entry *e)
{
    if (st->size != e->size || !time_equal(st->mtime, e->mtime))
        return false;
    if (d->p->o->trust_mtime && e->mtime_settled)
        return true;
    return d->p->source->inodes_stable && st->device == d->device && st->inode == e->inode &&
           time_equal(st->ctime, e->ctime);
}

/* A chunk in our numbers; its pack must be usable and hold it. */
static bool chunk_translate(const struct publish *p, struct tree_chunk *c, uint64_t size)
{
    if (c->pack == TREE_PACK_HOLE)
        return true;
    uint16_t number = p->known_packs[c->pack];
    if (number == LOG_NO_PACK)
        return false;
    const struct object_ref *ref = &p->packs.at[number].ref;
    c->pack = number;
    return c->block < ref->data_size / PACK_BLOCK &&
           size <= ref->data_size - (uint64_t)c->block * PACK_BLOCK;
}

static uint64_t chunk_size(uint64_t file_size, uint64_t i)
{
    uint64_t left = file_size - i * PACK_BLOB_MAX;

    return left < PACK_BLOB_MAX ? left : PACK_BLOB_MAX;
}

static int apply_many(struct publish *p, const struct log_entry *e, struct tree_node *n)
{
    uint32_t first;

    for (uint64_t i = 0; i < e->chunk_count; i++) {
        struct tree_chunk c = log_chunk(e, i);
        if (!chunk_translate(p, &c, chunk_size(e->size, i)))
            return 0;
    }
    int r = tree_add_chunks(p->tree, (size_t)e->chunk_count, &first);
    if (r < 0)
        return r;
    for (uint64_t i = 0; i < e->chunk_count; i++) {
        struct tree_chunk c = log_chunk(e, i);
        (void)chunk_translate(p, &c, 0); /* it could be, above */
        *tree_chunk(p->tree, first + (uint32_t)i) = c;
    }
    n->ref = first;
    n->pack = TREE_PACK_MANY;
    return 0;
}

static int apply_where(struct publish *p, const struct log_entry *e, struct tree_node *n)
{
    struct tree_chunk c = e->chunk;

    switch (e->where) {
    case LOG_EMPTY:
        n->pack = TREE_PACK_NONE;
        return 0;
    case LOG_HOLE:
        n->pack = TREE_PACK_HOLE;
        return 0;
    case LOG_ONE:
        if (c.pack != TREE_PACK_HOLE && chunk_translate(p, &c, e->size)) {
            n->pack = c.pack;
            n->ref = c.block;
            n->leaf = c.leaf;
        }
        return 0;
    default:
        return apply_many(p, e, n);
    }
}

struct chunk_place {
    const struct tree *tree;
    uint32_t first;
};

static struct tree_chunk chunk_at(void *ctx, uint64_t i)
{
    const struct chunk_place *place = ctx;

    return *tree_chunk(place->tree, place->first + (uint32_t)i);
}

/* Hand the entry on to the new journal, with our numbers of packs, and the times of its reading. */
static void journal_known(struct known_directory *d, const struct log_entry *e,
                          const struct tree_node *n)
{
    struct publish *p = d->p;
    struct log_entry out = *e;
    struct chunk_place place = {p->tree, n->ref};

    if (!p->journal)
        return;
    out.chunk = (struct tree_chunk){.block = n->ref, .leaf = n->leaf, .pack = n->pack};
    if (e->where == LOG_ONE)
        publish_journal_pack(p, n->pack);
    for (uint64_t i = 0; e->where == LOG_MANY && i < e->chunk_count; i++) {
        struct tree_chunk c = chunk_at(&place, i);
        if (c.pack != TREE_PACK_HOLE)
            publish_journal_pack(p, c.pack);
    }
    log_writer_directory(p->journal, buf_text(d->path), d->path->size);
    log_writer_entry(p->journal, &out, chunk_at, &place);
}

static int name_compare(const struct log_entry *e, const char *name)
{
    int c = strncmp(e->name, name, e->name_length);

    return c ? c : name[e->name_length] ? -1 : 0;
}

/* Both sides are sorted, so the place moves on together; blocks of the log start anew. */
static const struct source_entry *merge_find(struct known_directory *d, const struct log_entry *e)
{
    if (d->at > 0 && name_compare(e, entry_at(d, d->at - 1)->name) <= 0)
        d->at = 0;
    for (; d->at < d->count; d->at++) {
        int c = name_compare(e, entry_at(d, d->at)->name);
        if (c == 0)
            return entry_at(d, d->at);
        if (c < 0)
            return NULL;
    }
    return NULL;
}

static int merge_entry(void *ctx, const struct log_entry *e)
{
    struct known_directory *d = ctx;
    struct publish *p = d->p;

    if (memchr(e->name, '\0', e->name_length))
        return 0;
    const struct source_entry *s = merge_find(d, e);
    if (!s)
        return 0;
    uint32_t node = d->first + (uint32_t)d->at;
    struct tree_node *n = tree_node(p->tree, node);
    if (n->type != TREE_FILE || n->pack != PUBLISH_PENDING || !is_unchanged(d, &s->stat, e))
        return 0;
    int r = apply_where(p, e, n);
    if (r < 0 || n->pack == PUBLISH_PENDING)
        return r;
    journal_known(d, e, n);
    return e->xattrs.size > 0 ? publish_add_xattrs(p, node, e->xattrs) : 0;
}

int known_merge(struct known_directory *d)
{
    d->at = 0;
    return log_reader_directory(d->p->known, buf_text(d->path), d->path->size, merge_entry, d);
}
