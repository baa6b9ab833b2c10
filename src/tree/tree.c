/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Nodes, directories and names.
 *
 * All tables grow by segments that never move, so memory peaks at what is used and pointers stay
 * good. A directory's children have consecutive node numbers and one piece of the arena for their
 * names, so a node needs neither a pointer to its name nor to its siblings; what only directories
 * have stands in a table of their own. Symlink targets, chunks, hard links and attributes are in
 * tree-extra.c.
 */
#include "tree/tree-internal.h"

#include "base/le.h"
#include "base/name.h"

#include <string.h>

#define TARGET_MAX 4095u /* PATH_MAX without its NUL */

int tree_new(struct tree **ret)
{
    AUTO(tree_free) struct tree *t = calloc(1, sizeof *t);
    size_t at;

    if (!t)
        return -ENOMEM;
    segvec_init(&t->nodes, sizeof(struct tree_node));
    segvec_init(&t->directories, sizeof(struct tree_directory));
    segvec_init(&t->targets, sizeof(uint64_t));
    segvec_init(&t->chunks, sizeof(struct tree_chunk));
    if (segvec_add(&t->nodes, 1, &at) < 0 || segvec_add(&t->directories, 1, &at) < 0)
        return -ENOMEM;
    *tree_node(t, TREE_ROOT) =
        (struct tree_node){.type = TREE_DIRECTORY, .mode = 0555, .pack = TREE_PACK_NONE};
    *ret = take_ptr(&t);
    return 0;
}

void tree_free(struct tree *t)
{
    if (!t)
        return;
    segvec_release(&t->nodes);
    segvec_release(&t->directories);
    segvec_release(&t->targets);
    segvec_release(&t->chunks);
    arena_release(&t->texts);
    vec_release(&t->xattrs);
    free(t->links);
    free(t);
}

static struct tree_directory *directory_at(const struct tree *t, uint32_t directory)
{
    return segvec_at(&t->directories, directory);
}

static int name_compare(const struct tree_entry *a, const struct tree_entry *b)
{
    size_t common = a->name_length < b->name_length ? a->name_length : b->name_length;
    int d = memcmp(a->name, b->name, common);
    return d ? d : (int)a->name_length - (int)b->name_length;
}

static bool entry_is_valid(const struct tree_entry *e)
{
    if (!name_is_file_name(e->name, e->name_length) || (unsigned)e->type > TREE_HARDLINK ||
        e->mode > 07777 || e->mtime_ns > 999999999)
        return false;
    return e->type != TREE_SYMLINK || (e->target_length >= 1 && e->target_length <= TARGET_MAX &&
                                       !memchr(e->target, '\0', e->target_length));
}

/* What a set of entries adds to the tables. */
struct demand {
    size_t directories, symlinks, name_bytes;
};

static int entries_check(const struct tree_entry *entries, size_t count, struct demand *ret)
{
    struct demand d = {0};

    for (size_t i = 0; i < count; i++) {
        const struct tree_entry *e = &entries[i];
        if (!entry_is_valid(e) || (i > 0 && name_compare(e - 1, e) >= 0))
            return -EINVAL;
        d.directories += e->type == TREE_DIRECTORY;
        d.symlinks += e->type == TREE_SYMLINK;
        d.name_bytes += 1 + (size_t)e->name_length;
    }
    *ret = d;
    return 0;
}

/* Where the rows of a set of entries stand. */
struct place {
    size_t node, directory, symlink;
    uint64_t names;
};

static int place_targets(struct tree *t, const struct tree_entry *entries, size_t count,
                         size_t first)
{
    for (size_t i = 0; i < count; i++) {
        if (entries[i].type != TREE_SYMLINK)
            continue;
        uint64_t *place = segvec_at(&t->targets, first++);
        int r = arena_add(&t->texts, 2 + (size_t)entries[i].target_length, place);
        if (r < 0)
            return r;
        uint8_t *p = arena_at(&t->texts, *place);
        le16_put(p, entries[i].target_length);
        memcpy(p + 2, entries[i].target, entries[i].target_length);
    }
    return 0;
}

/* Take the memory for all of it, or for nothing. */
static int place_take(struct tree *t, const struct tree_entry *entries, size_t count,
                      const struct demand *d, struct place *ret)
{
    struct arena_mark mark = arena_mark(&t->texts);
    size_t nodes = t->nodes.count, directories = t->directories.count, targets = t->targets.count;

    int r = arena_add(&t->texts, d->name_bytes, &ret->names);
    if (r == 0)
        r = segvec_add(&t->nodes, count, &ret->node);
    if (r == 0)
        r = segvec_add(&t->directories, d->directories, &ret->directory);
    if (r == 0)
        r = segvec_add(&t->targets, d->symlinks, &ret->symlink);
    if (r == 0)
        r = place_targets(t, entries, count, ret->symlink);
    if (r < 0) {
        /* Rows that were written before are overwritten by the next who gets them. */
        arena_reset(&t->texts, mark);
        t->nodes.count = nodes;
        t->directories.count = directories;
        t->targets.count = targets;
    }
    return r;
}

static uint32_t entry_ref(const struct tree_entry *e, struct place *at)
{
    switch (e->type) {
    case TREE_DIRECTORY:
        return (uint32_t)at->directory++;
    case TREE_SYMLINK:
        return (uint32_t)at->symlink++;
    case TREE_HARDLINK:
        return e->link;
    default:
        return 0;
    }
}

static uint64_t entry_size(const struct tree_entry *e)
{
    if (e->type == TREE_FILE)
        return e->size;
    return e->type == TREE_SYMLINK ? e->target_length : 0;
}

static void entries_store(struct tree *t, uint32_t parent, const struct tree_entry *entries,
                          size_t count, struct place at)
{
    uint32_t depth = directory_at(t, parent)->depth + 1;
    uint8_t *name = arena_at(&t->texts, at.names);

    for (size_t i = 0; i < count; i++) {
        const struct tree_entry *e = &entries[i];
        uint32_t node = (uint32_t)(at.node + i);
        if (e->type == TREE_DIRECTORY)
            *directory_at(t, (uint32_t)at.directory) =
                (struct tree_directory){.node = node, .parent = parent, .depth = depth};
        *tree_node(t, node) = (struct tree_node){
            .size = entry_size(e),
            .mtime_s = e->mtime_s,
            .mtime_ns = e->mtime_ns & 0x3fffffff,
            .type = e->type & 3,
            .ref = entry_ref(e, &at),
            .pack = TREE_PACK_NONE,
            .mode = e->mode,
        };
        *name++ = e->name_length;
        memcpy(name, e->name, e->name_length);
        name += e->name_length;
    }
}

int tree_add_children(struct tree *t, uint32_t dir, const struct tree_entry *entries, size_t count,
                      uint32_t *ret_first)
{
    struct demand d;
    struct place at;

    if (t->sealed || count == 0 || dir >= t->nodes.count ||
        tree_node(t, dir)->type != TREE_DIRECTORY)
        return -EINVAL;
    uint32_t number = tree_node(t, dir)->ref;
    struct tree_directory *parent = directory_at(t, number);
    if (parent->children > 0)
        return -EEXIST;
    if (count >= TREE_NO_NODE - t->nodes.count)
        return -EFBIG;
    int r = entries_check(entries, count, &d);
    if (r < 0)
        return r;
    if (d.directories > 0 && parent->depth >= TREE_DEPTH_MAX)
        return -ENAMETOOLONG;
    r = place_take(t, entries, count, &d, &at);
    if (r < 0)
        return r;
    entries_store(t, number, entries, count, at);
    parent->names = at.names;
    parent->first_child = (uint32_t)at.node;
    parent->children = (uint32_t)count;
    parent->subdirs = (uint32_t)d.directories;
    *ret_first = parent->first_child;
    return 0;
}

struct tree_node *tree_node(const struct tree *t, uint32_t node)
{
    return segvec_at(&t->nodes, node);
}

uint32_t tree_node_count(const struct tree *t)
{
    return (uint32_t)t->nodes.count;
}

static void cursor_set(struct tree_cursor *c, const uint8_t *name)
{
    c->name_length = name[0];
    c->name = (const char *)name + 1;
}

bool tree_first(const struct tree *t, uint32_t dir, struct tree_cursor *c)
{
    const struct tree_directory *d = directory_at(t, tree_node(t, dir)->ref);

    *c = (struct tree_cursor){.node = d->first_child, .end = d->first_child + d->children};
    if (d->children == 0)
        return false;
    cursor_set(c, arena_at(&t->texts, d->names));
    return true;
}

bool tree_next(const struct tree *t, struct tree_cursor *c)
{
    if (c->node == c->end || ++c->node == c->end)
        return false;
    cursor_set(c, (const uint8_t *)c->name + c->name_length);
    return true;
}

uint32_t tree_directory_count(const struct tree *t)
{
    return (uint32_t)t->directories.count;
}

uint32_t tree_directory_node(const struct tree *t, uint32_t directory)
{
    return directory_at(t, directory)->node;
}

uint32_t tree_directory_parent(const struct tree *t, uint32_t directory)
{
    return directory_at(t, directory)->parent;
}

uint32_t tree_directory_children(const struct tree *t, uint32_t directory)
{
    return directory_at(t, directory)->children;
}

uint32_t tree_directory_subdirs(const struct tree *t, uint32_t directory)
{
    return directory_at(t, directory)->subdirs;
}

uint32_t tree_directory_depth(const struct tree *t, uint32_t directory)
{
    return directory_at(t, directory)->depth;
}

uint64_t *tree_directory_word(const struct tree *t, uint32_t directory)
{
    return &directory_at(t, directory)->word;
}

static int path_append_name(const struct tree *t, uint32_t directory, struct buf *b)
{
    const struct tree_directory *d = directory_at(t, directory);
    struct tree_cursor c;

    for (bool more = tree_first(t, directory_at(t, d->parent)->node, &c); more;
         more = tree_next(t, &c)) {
        if (c.node == d->node)
            return buf_append(b, c.name, c.name_length);
    }
    abort(); /* a directory is always among its parent's children */
}

int tree_directory_path(const struct tree *t, uint32_t directory, struct buf *b)
{
    uint32_t depth = directory_at(t, directory)->depth;
    size_t before = b->size;

    if (depth == 0)
        return 0;
    AUTO(free_ptr) uint32_t *way = calloc(depth, sizeof *way);
    if (!way)
        return -ENOMEM;
    for (uint32_t i = depth; i > 0; i--) {
        way[i - 1] = directory;
        directory = directory_at(t, directory)->parent;
    }
    for (uint32_t i = 0; i < depth; i++) {
        int r = i > 0 ? buf_append(b, "/", 1) : 0;
        if (r == 0)
            r = path_append_name(t, way[i], b);
        if (r < 0) {
            b->size = before;
            if (b->data)
                b->data[before] = 0;
            return r;
        }
    }
    return 0;
}
