/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The dispatch of every source, and the listings that all of them build.
 */
#include "source/source-internal.h"

#include <string.h>

#define PIECE_SIZE 65536u /* of texts; an entry's name and target take at most 4,352 bytes */

struct listing_piece {
    struct listing_piece *next;
    size_t used;
    char text[PIECE_SIZE - 2 * sizeof(void *)];
};

int source_init(struct source *s, const struct source_ops *ops, const char *location,
                bool inodes_stable)
{
    s->ops = ops;
    s->inodes_stable = inodes_stable;
    s->terms = NULL;
    s->location = strdup(location);
    return s->location ? 0 : -ENOMEM;
}

/* ---- listings ---------------------------------------------------------------------------------
 */

static const char *listing_text(struct listing_builder *b, const char *text)
{
    size_t size = strlen(text) + 1;
    struct listing_piece *piece = b->pieces;

    if (size > sizeof piece->text)
        return NULL;
    if (!piece || sizeof piece->text - piece->used < size) {
        piece = malloc(sizeof *piece);
        if (!piece)
            return NULL;
        piece->next = b->pieces;
        piece->used = 0;
        b->pieces = piece;
    }
    char *place = piece->text + piece->used;
    memcpy(place, text, size);
    piece->used += size;
    return place;
}

int listing_add(struct listing_builder *b, const char *name, const struct source_stat *stat,
                const char *target)
{
    struct source_entry e = {.name = listing_text(b, name), .stat = *stat};

    if (target)
        e.target = listing_text(b, target);
    if (!e.name || (target && !e.target))
        return -ENOMEM;
    return vec_push(&b->entries, e);
}

int listing_pin(struct listing_builder *b, const struct source_pin *pin)
{
    struct source_pin *to = &b->entries.at[b->entries.count - 1].pin;

    to->key = listing_text(b, pin->key);
    to->etag = listing_text(b, pin->etag);
    to->version_id = pin->version_id ? listing_text(b, pin->version_id) : NULL;
    return to->key && to->etag && (!pin->version_id || to->version_id) ? 0 : -ENOMEM;
}

void listing_finish(struct listing_builder *b, struct source_listing *ret)
{
    *ret = (struct source_listing){
        .entries = b->entries.at, .count = b->entries.count, .memory = b->pieces};
    *b = (struct listing_builder){0};
}

static void pieces_free(struct listing_piece *piece)
{
    while (piece) {
        struct listing_piece *next = piece->next;
        free(piece);
        piece = next;
    }
}

void listing_builder_release(struct listing_builder *b)
{
    vec_release(&b->entries);
    pieces_free(b->pieces);
    b->pieces = NULL;
}

void source_listing_release(struct source_listing *l)
{
    free(l->entries);
    pieces_free(l->memory);
    *l = (struct source_listing){0};
}

/* ---- dispatch ---------------------------------------------------------------------------------
 */

void source_close(struct source *s)
{
    if (!s)
        return;
    char *location = s->location, *terms = s->terms;
    s->ops->close(s);
    free(location);
    free(terms);
}

const struct source_bucket *source_bucket(struct source *s)
{
    return s->ops->bucket ? s->ops->bucket(s) : NULL;
}

const char *source_slash(const struct source *s)
{
    size_t n = strlen(s->location);

    return n > 0 && s->location[n - 1] == '/' ? "" : "/";
}

bool source_will_read(struct source *s, const char *path, const char *name, uint64_t offset)
{
    return s->ops->will_read && s->ops->will_read(s, path, name, offset);
}

int source_each_skipped(struct source *s, source_skipped_fn *fn, void *ctx)
{
    return s->ops->each_skipped ? s->ops->each_skipped(s, fn, ctx) : 0;
}

bool source_explain(struct source *s, int code, char *ret, size_t size)
{
    return s->ops->explain && s->ops->explain(s, code, ret, size);
}

int source_open_dir(struct source *s, const char *path, struct source_dir **ret)
{
    return s->ops->open_dir(s, path, ret);
}

void source_close_dir(struct source_dir *d)
{
    if (d)
        d->source->ops->close_dir(d);
}

int source_list(struct source_dir *d, struct source_listing *ret)
{
    return d->source->ops->list(d, ret);
}

int source_dir_stat(struct source_dir *d, struct source_stat *ret)
{
    return d->source->ops->dir_stat(d, ret);
}

int source_dir_xattrs(struct source_dir *d, struct buf *b)
{
    return d->source->ops->dir_xattrs(d, b);
}

int source_open_file(struct source_dir *d, const char *name, struct source_file **ret)
{
    return d->source->ops->open_file(d, name, ret);
}

void source_close_file(struct source_file *f)
{
    if (f)
        f->source->ops->close_file(f);
}

int source_file_stat(struct source_file *f, struct source_stat *ret)
{
    return f->source->ops->file_stat(f, ret);
}

int source_file_xattrs(struct source_file *f, struct buf *b)
{
    return f->source->ops->file_xattrs(f, b);
}

ssize_t source_file_read(struct source_file *f, void *data, size_t size, uint64_t offset)
{
    return f->source->ops->read(f, data, size, offset);
}

int source_file_next_data(struct source_file *f, uint64_t offset, uint64_t *ret)
{
    return f->source->ops->next_data(f, offset, ret);
}
