/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The first pass of the writer: check every node, give every unit and every inode its place.
 *
 * Units are visited without a stack: subdirectories of one directory have consecutive numbers in
 * name order, so number, parent and "first subdirectory" are all that a walk in either order needs.
 */
#include "index/index-layout.h"

#define MODE_ALLOWED 0555u /* a published tree is read-only, whoever reads it */
#define MODE_SYMLINK 0777u /* means nothing; what Linux shows for all of them */

/* The number of the first subdirectory; there is one. */
static uint32_t first_subdir(const struct tree *t, uint32_t directory)
{
    struct tree_cursor c;
    bool more = tree_first(t, tree_directory_node(t, directory), &c);
    for (; more; more = tree_next(t, &c)) {
        const struct tree_node *n = tree_node(t, c.node);
        if (n->type == TREE_DIRECTORY)
            return n->ref;
    }
    abort(); /* tree_directory_subdirs() said that there is one */
}

/* An empty directory whose entries are inline has nothing but its inode. */
static bool has_unit(const struct layout *l, uint32_t directory)
{
    if (tree_directory_children(l->tree, directory) > 0)
        return true;
    struct layout_shape s;
    layout_shape_of(l, tree_directory_node(l->tree, directory), &s);
    return s.layout == EROFS_LAYOUT_PLAIN;
}

static bool is_in_head(const struct layout *l, uint32_t directory)
{
    uint64_t start = layout_unit_of(l, directory);
    return start != 0 && start < l->head;
}

static int each_subdir_in_head(const struct layout *l, uint32_t directory, layout_unit_fn *fn,
                               void *ctx, struct err *err)
{
    uint32_t count = tree_directory_subdirs(l->tree, directory);
    uint32_t first = count ? first_subdir(l->tree, directory) : 0;
    for (uint32_t d = first; d < first + count; d++) {
        if (!has_unit(l, d) || (l->planned && !is_in_head(l, d)))
            continue;
        int r = fn(ctx, d, true, err);
        if (r < 0)
            return r;
    }
    return 0;
}

/* The directory behind `d`, depth-first; 0 at the end. */
static uint32_t next_directory(const struct tree *t, uint32_t d)
{
    if (tree_directory_subdirs(t, d) > 0)
        return first_subdir(t, d);
    for (; d != 0; d = tree_directory_parent(t, d)) {
        uint32_t next = d + 1;
        if (next < tree_directory_count(t) &&
            tree_directory_parent(t, next) == tree_directory_parent(t, d))
            return next;
    }
    return 0;
}

int layout_each_unit(const struct layout *l, layout_unit_fn *fn, void *ctx, struct err *err)
{
    const struct tree *t = l->tree;
    int r = has_unit(l, 0) ? fn(ctx, 0, true, err) : 0;
    if (r == 0)
        r = each_subdir_in_head(l, 0, fn, ctx, err);
    uint32_t count = tree_directory_subdirs(t, 0);
    uint32_t first = count ? first_subdir(t, 0) : 0;
    for (uint32_t d = first; r == 0 && d < first + count; d++) {
        if (is_in_head(l, d))
            r = each_subdir_in_head(l, d, fn, ctx, err);
    }
    for (uint32_t d = next_directory(t, 0); r == 0 && d != 0; d = next_directory(t, d)) {
        if (has_unit(l, d) && !is_in_head(l, d))
            r = fn(ctx, d, false, err);
    }
    return r;
}

/* ---- checks ------------------------------------------------------------------------------------
 */

static int check_chunks(const struct layout *l, const struct tree_node *n, struct err *err)
{
    uint64_t count = tree_chunk_count(n->size);
    if (n->size > INT64_MAX)
        return err_fail(err, -EINVAL, "its size is beyond 2^63");
    if (count == 0)
        return 0;
    if (n->pack == TREE_PACK_NONE || (n->pack == TREE_PACK_MANY) != (count > 1))
        return err_fail(err, -EINVAL, "it has no data, or not in as many chunks as its size asks");
    for (uint64_t i = 0; i < count; i++) {
        struct layout_chunk c;
        if (layout_chunk_of(l, n, i, &c) < 0)
            return err_fail(err, -EINVAL, "its data is in a pack that this version does not have");
        uint64_t length = i + 1 < count ? EROFS_CHUNK_BIG : n->size - i * EROFS_CHUNK_BIG;
        uint64_t blocks = layout_up(length, EROFS_BLOCK_SIZE) / EROFS_BLOCK_SIZE;
        if (c.device != 0 && c.block + blocks > l->devices[c.device - 1].blocks)
            return err_fail(err, -EINVAL, "its data is beyond the end of its pack");
    }
    return 0;
}

static int check_node(const struct layout *l, uint32_t node, struct err *err)
{
    const struct tree_node *n = tree_node(l->tree, node);
    if (n->type == TREE_HARDLINK)
        return 0; /* layout_collect_links() looked at what it leads to */
    if (n->type == TREE_SYMLINK ? n->mode != MODE_SYMLINK : n->mode & ~MODE_ALLOWED)
        return err_fail(err, -EINVAL, "its mode %04o is not one that an index has", n->mode);
    if (n->mtime_ns > 999999999)
        return err_fail(err, -EINVAL, "its time has more than a second of nanoseconds");
    struct bytes list = tree_xattrs(l->tree, node);
    struct layout_xattr x;
    size_t at = 0;
    int r;
    while ((r = layout_xattr_next(list, &at, &x)) == 1)
        ;
    if (r < 0)
        return err_fail(err, -EINVAL, "its extended attributes are malformed");
    if (n->type == TREE_FILE)
        return check_chunks(l, n, err);
    if (n->type == TREE_SYMLINK && (n->size == 0 || n->size > INDEX_TARGET_MAX))
        return err_fail(err, -EINVAL, "its target is not 1 to %u bytes long", INDEX_TARGET_MAX);
    return 0;
}

static int name_in_error(const struct layout *l, uint32_t directory, const struct tree_cursor *c,
                         int code, struct err *err)
{
    struct buf path = BUF_INIT(TREE_DEPTH_MAX * 256u);
    if (tree_directory_path(l->tree, directory, &path) == 0)
        code = err_prefix(err, code, "%s%s%.*s", buf_text(&path), path.size ? "/" : "",
                          c->name_length, c->name);
    buf_release(&path);
    return code;
}

/* ---- the plan ----------------------------------------------------------------------------------
 */

static int too_large(struct err *err)
{
    return err_fail(err, -EFBIG, "the index would be larger than %u GiB",
                    (unsigned)(LAYOUT_SIZE_MAX >> 30));
}

static void set_inode(const struct layout *l, uint32_t node, uint64_t address)
{
    const struct tree_node *n = tree_node(l->tree, node);
    uint32_t position = (uint32_t)(address / EROFS_NID_SIZE);
    if (n->type == TREE_DIRECTORY) {
        *tree_directory_word(l->tree, n->ref) = position;
        return;
    }
    struct layout_link *link = layout_link_of(l, node);
    if (link)
        link->position = position;
}

/* Check and place the children of a directory whose unit starts at `u->start`. */
static int place_children(const struct layout *l, uint32_t directory, const struct layout_unit *u,
                          struct err *err)
{
    uint64_t pos = u->inodes;
    struct tree_cursor c;
    bool more = tree_first(l->tree, tree_directory_node(l->tree, directory), &c);
    for (; more; more = tree_next(l->tree, &c)) {
        int r = check_node(l, c.node, err);
        if (r < 0)
            return name_in_error(l, directory, &c, r, err);
        uint32_t node;
        if (!layout_owns_inode(l, c.node, &node))
            continue;
        struct layout_shape s;
        layout_shape_of(l, node, &s);
        set_inode(l, node, layout_place(&s, &pos));
    }
    return 0;
}

/* Names of this directory that are the first of their inode take it, or give it back. */
static void claim_links(const struct layout *l, uint32_t directory, bool take)
{
    struct tree_cursor c;
    bool more = l->link_count && tree_first(l->tree, tree_directory_node(l->tree, directory), &c);
    for (; more; more = tree_next(l->tree, &c)) {
        const struct tree_node *n = tree_node(l->tree, c.node);
        struct layout_link *link = layout_link_of(l, n->type == TREE_HARDLINK ? n->ref : c.node);
        if (link && link->owner == (take ? TREE_NO_NODE : c.node))
            link->owner = take ? c.node : TREE_NO_NODE;
    }
}

static int plan_unit(void *ctx, uint32_t directory, bool head, struct err *err)
{
    struct layout *l = ctx;
    struct layout_unit u;
    claim_links(l, directory, true);
    layout_measure(l, directory, l->end, &u);
    if (head && directory != 0 && u.end > INDEX_HEAD_MAX) {
        claim_links(l, directory, false);
        return 0;
    }
    if (u.end > LAYOUT_SIZE_MAX)
        return too_large(err);
    *tree_directory_word(l->tree, directory) |= u.start / EROFS_NID_SIZE << 32;
    l->end = u.end;
    if (head)
        l->head = u.end;
    return place_children(l, directory, &u, err);
}

int layout_plan(struct layout *l, struct err *err)
{
    for (uint32_t d = 0; d < tree_directory_count(l->tree); d++)
        *tree_directory_word(l->tree, d) = 0;
    int r = layout_collect_links(l, err);
    if (r < 0)
        return r;
    r = check_node(l, TREE_ROOT, err);
    if (r < 0)
        return err_prefix(err, r, "the root directory");
    l->meta = layout_up(EROFS_SUPER_OFFSET + EROFS_SUPER_SIZE +
                            EROFS_SLOT_SIZE * (uint64_t)l->device_count,
                        EROFS_BLOCK_SIZE);
    uint64_t pos = l->meta + INDEX_ROOT_NID * EROFS_NID_SIZE;
    struct layout_shape s;
    layout_shape_of(l, TREE_ROOT, &s);
    set_inode(l, TREE_ROOT, layout_place(&s, &pos));
    l->end = l->head = pos;
    r = layout_each_unit(l, plan_unit, l, err);
    if (r < 0)
        return r;
    l->end = layout_up(l->end, EROFS_BLOCK_SIZE);
    l->planned = true;
    return 0;
}

void layout_release(struct layout *l)
{
    free(l->links);
    l->links = NULL;
    l->link_count = 0;
}
