/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sizes and places of inodes, entries and units.
 *
 * Everything here is computed from the tree each time it is asked for, by one walk over one
 * directory: sizes depend on names, types, file sizes, targets and attributes only, never on where
 * something else stands. Plan and emission call the same functions, so they cannot disagree. The
 * order of units and the plan itself are in index-plan.c.
 */
#include "index/index-layout.h"

#include <limits.h>

#include "base/le.h"

void layout_entries_start(const struct layout *l, uint32_t directory, struct layout_entries *e)
{
    e->directory = directory;
    e->dots = 0;
    e->more = tree_first(l->tree, tree_directory_node(l->tree, directory), &e->cursor);
}

/* Is the child's name behind `dots` bytes of ".."? */
static bool name_behind_dots(const struct tree_cursor *c, unsigned dots)
{
    if (c->name[0] != '.')
        return (unsigned char)c->name[0] > '.';
    size_t common = c->name_length < dots ? c->name_length : dots;
    int order = memcmp(c->name, "..", common);
    return order > 0 || (order == 0 && c->name_length > dots);
}

bool layout_entries_next(const struct layout *l, struct layout_entries *e, struct layout_entry *ret)
{
    if (e->dots < 2 && (!e->more || name_behind_dots(&e->cursor, e->dots + 1u))) {
        uint32_t d = e->directory;
        if (e->dots == 1)
            d = tree_directory_parent(l->tree, d);
        e->dots++;
        *ret = (struct layout_entry){"..", e->dots, tree_directory_node(l->tree, d), true};
        return true;
    }
    if (!e->more)
        return false;
    *ret = (struct layout_entry){e->cursor.name, e->cursor.name_length, e->cursor.node, false};
    e->more = tree_next(l->tree, &e->cursor);
    return true;
}

uint64_t layout_entries_size(const struct layout *l, uint32_t directory)
{
    struct layout_entries e;
    struct layout_entry entry;
    uint64_t blocks = 0;
    uint32_t used = 0;
    layout_entries_start(l, directory, &e);
    while (layout_entries_next(l, &e, &entry)) {
        uint32_t room = EROFS_DIRENT_SIZE + entry.name_length;
        if (used + room > EROFS_BLOCK_SIZE) {
            blocks++;
            used = 0;
        }
        used += room;
    }
    return blocks * EROFS_BLOCK_SIZE + used;
}

int layout_xattr_next(struct bytes list, size_t *at, struct layout_xattr *ret)
{
    if (*at == list.size)
        return 0;
    const uint8_t *p = (const uint8_t *)list.data + *at;
    size_t left = list.size - *at;
    size_t name = strnlen((const char *)p, left);
    if (name == 0 || name > LAYOUT_XATTR_NAME_MAX || left - name < 3)
        return -EINVAL;
    size_t value = le16_get(p + name + 1);
    if (left - name - 3 < value)
        return -EINVAL;
    ret->name = bytes_of(p, name);
    ret->value = bytes_of(p + name + 3, value);
    *at += name + 3 + value;
    return 1;
}

/* A malformed list, which layout_check_node() refuses, counts up to where it breaks. */
static uint32_t xattrs_size(const struct layout *l, uint32_t node)
{
    struct bytes list = tree_xattrs(l->tree, node);
    struct layout_xattr x;
    size_t at = 0;
    uint32_t size = 0;
    while (layout_xattr_next(list, &at, &x) == 1)
        size += (uint32_t)layout_up(EROFS_XATTR_ENTRY_SIZE + x.name.size + x.value.size, 4);
    return size ? EROFS_XATTR_HEADER_SIZE + size : 0;
}

static bool fits_inline(uint32_t xattrs, uint64_t tail)
{
    return tail <= EROFS_INLINE_MAX && xattrs + tail <= EROFS_INLINE_MAX;
}

static void shape_of_directory(const struct layout *l, uint32_t node, uint32_t directory,
                               struct layout_shape *s)
{
    /* Most large directories are known to be large without a look at their names. */
    uint64_t least =
        (tree_directory_children(l->tree, directory) + UINT64_C(2)) * (EROFS_DIRENT_SIZE + 1);
    s->layout = EROFS_LAYOUT_PLAIN;
    if (!fits_inline(s->xattrs, least))
        return;
    uint64_t size = layout_entries_size(l, directory);
    uint32_t before = node == TREE_ROOT ? INDEX_ROOT_NID * EROFS_NID_SIZE : 0;
    if (fits_inline(s->xattrs + before, size)) {
        s->layout = EROFS_LAYOUT_INLINE;
        s->behind = size;
    }
}

void layout_shape_of(const struct layout *l, uint32_t node, struct layout_shape *ret)
{
    const struct tree_node *n = tree_node(l->tree, node);
    struct layout_shape s = {.xattrs = xattrs_size(l, node)};
    switch ((enum tree_type)n->type) {
    case TREE_DIRECTORY:
        shape_of_directory(l, node, n->ref, &s);
        break;
    case TREE_SYMLINK:
        if (fits_inline(s.xattrs, n->size)) {
            s.layout = EROFS_LAYOUT_INLINE;
            s.behind = n->size;
        } else {
            s.layout = EROFS_LAYOUT_PLAIN;
            s.target = n->size;
        }
        break;
    case TREE_FILE:
    case TREE_HARDLINK: /* has no inode of its own; nobody asks */
        s.layout = EROFS_LAYOUT_CHUNK;
        s.behind = tree_chunk_count(n->size) * EROFS_CHUNK_INDEX_SIZE;
        break;
    }
    *ret = s;
}

uint64_t layout_place(const struct layout_shape *s, uint64_t *pos)
{
    uint64_t address = layout_up(*pos, EROFS_NID_SIZE);
    uint64_t tail = EROFS_INODE_SIZE + s->xattrs;
    if (s->layout == EROFS_LAYOUT_INLINE &&
        address % EROFS_BLOCK_SIZE + tail + s->behind > EROFS_BLOCK_SIZE)
        address = layout_up(address, EROFS_BLOCK_SIZE);
    if (s->layout == EROFS_LAYOUT_CHUNK)
        tail = layout_up(tail, EROFS_CHUNK_INDEX_SIZE);
    *pos = address + tail + s->behind;
    return address;
}

static bool is_inlined(const struct layout *l, uint32_t directory)
{
    struct layout_shape s;
    layout_shape_of(l, tree_directory_node(l->tree, directory), &s);
    return s.layout == EROFS_LAYOUT_INLINE;
}

void layout_measure(const struct layout *l, uint32_t directory, uint64_t at,
                    struct layout_unit *ret)
{
    struct layout_unit u = {.inlined = is_inlined(l, directory)};
    u.start = layout_up(at, u.inlined ? EROFS_NID_SIZE : EROFS_BLOCK_SIZE);
    u.inodes = u.start;
    if (!u.inlined)
        u.inodes += layout_up(layout_entries_size(l, directory), EROFS_BLOCK_SIZE);
    u.inodes_end = u.inodes;
    uint64_t targets = 0;
    struct tree_cursor c;
    bool more = tree_first(l->tree, tree_directory_node(l->tree, directory), &c);
    for (; more; more = tree_next(l->tree, &c)) {
        struct layout_shape s;
        uint32_t node;
        if (!layout_owns_inode(l, c.node, &node))
            continue;
        layout_shape_of(l, node, &s);
        (void)layout_place(&s, &u.inodes_end); /* only the end matters here */
        targets += layout_up(s.target, EROFS_BLOCK_SIZE);
    }
    u.targets = targets ? layout_up(u.inodes_end, EROFS_BLOCK_SIZE) : u.inodes_end;
    u.end = u.targets + targets;
    *ret = u;
}

static int order_links(const void *a, const void *b)
{
    uint32_t x = ((const struct layout_link *)a)->node, y = ((const struct layout_link *)b)->node;
    return x < y ? -1 : x > y;
}

int layout_collect_links(struct layout *l, struct err *err)
{
    const struct tree *t = l->tree;
    size_t count = 0, kept = 0;
    uint32_t nodes = tree_node_count(t);
    for (uint32_t i = 0; i < nodes; i++)
        count += tree_node(t, i)->type == TREE_HARDLINK;
    l->inodes = nodes - count;
    if (count == 0)
        return 0;
    l->links = calloc(count, sizeof *l->links);
    if (!l->links)
        return -ENOMEM;
    for (uint32_t i = 0; i < nodes; i++) {
        const struct tree_node *n = tree_node(t, i);
        if (n->type != TREE_HARDLINK)
            continue;
        const struct tree_node *to = n->ref < nodes ? tree_node(t, n->ref) : n;
        if (to->type != TREE_FILE && to->type != TREE_SYMLINK)
            return err_fail(err, -EINVAL, "a hard link leads to neither a file nor a symlink");
        l->links[kept++] = (struct layout_link){.node = n->ref, .owner = TREE_NO_NODE};
    }
    qsort(l->links, count, sizeof *l->links, order_links);
    kept = 1;
    for (size_t i = 1; i < count; i++) {
        if (l->links[i].node != l->links[kept - 1].node)
            l->links[kept++] = l->links[i];
    }
    l->link_count = kept;
    struct layout_link *less = realloc(l->links, kept * sizeof *less);
    if (less)
        l->links = less;
    return 0;
}

struct layout_link *layout_link_of(const struct layout *l, uint32_t node)
{
    struct layout_link key = {.node = node};
    if (l->link_count == 0)
        return NULL;
    return bsearch(&key, l->links, l->link_count, sizeof key, order_links);
}

bool layout_owns_inode(const struct layout *l, uint32_t node, uint32_t *ret)
{
    const struct tree_node *n = tree_node(l->tree, node);
    *ret = n->type == TREE_HARDLINK ? n->ref : node;
    struct layout_link *link = layout_link_of(l, *ret);
    return !link || link->owner == node;
}

int layout_chunk_of(const struct layout *l, const struct tree_node *file, uint64_t number,
                    struct layout_chunk *ret)
{
    struct tree_chunk one = {.block = file->ref, .leaf = file->leaf, .pack = file->pack};
    if (file->pack == TREE_PACK_MANY)
        one = *tree_chunk(l->tree, file->ref + (uint32_t)number);
    *ret = (struct layout_chunk){0};
    if (one.pack == TREE_PACK_HOLE)
        return 0;
    if (one.pack >= l->pack_count || l->device_of[one.pack] == 0 ||
        l->device_of[one.pack] > l->device_count)
        return -EINVAL;
    *ret = (struct layout_chunk){l->device_of[one.pack], one.block, one.leaf};
    return 0;
}
