/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inodes and directories as bytes.
 *
 * Walks the units in the order of the plan and computes each inode's place again as it goes, so
 * that entries can name the nids of inodes that are written later. Nothing is ever written
 * backwards. The bytes carry what the plan checked; nothing is checked here but that addresses
 * agree.
 */
#include "index/index-emit.h"

#include <sys/stat.h>

#include "base/le.h"

/* No more entries fit a block: names have at least one byte. */
#define BLOCK_ENTRIES (EROFS_BLOCK_SIZE / (EROFS_DIRENT_SIZE + 1))

int emit_flush(struct emit *e)
{
    size_t used = e->used;
    e->used = 0;
    return used ? e->sink(e->ctx, e->buffer, used) : 0;
}

int emit_bytes(struct emit *e, const void *data, size_t size)
{
    e->position += size;
    while (size > 0) {
        size_t part = EMIT_BUFFER - e->used;
        part = part < size ? part : size;
        memcpy(e->buffer + e->used, data, part);
        e->used += part;
        data = (const uint8_t *)data + part;
        size -= part;
        int r = e->used == EMIT_BUFFER ? emit_flush(e) : 0;
        if (r < 0)
            return r;
    }
    return 0;
}

int emit_zeros_to(struct emit *e, uint64_t position)
{
    static const uint8_t zeros[EROFS_BLOCK_SIZE];
    if (position < e->position)
        abort(); /* plan and emission disagree */
    while (e->position < position) {
        uint64_t gap = position - e->position;
        int r = emit_bytes(e, zeros, gap < sizeof zeros ? (size_t)gap : sizeof zeros);
        if (r < 0)
            return r;
    }
    return 0;
}

/* ---- directories -------------------------------------------------------------------------------
 */

/* One directory block while it is gathered. */
struct block {
    struct {
        uint64_t nid;
        const char *name;
        uint8_t name_length;
        uint8_t type;
    } entry[BLOCK_ENTRIES];
    uint32_t count;
    uint32_t used; /* bytes */
};

static int emit_block(struct emit *e, struct block *b, bool pad)
{
    uint8_t data[EROFS_BLOCK_SIZE] = {0};
    uint32_t name_at = b->count * EROFS_DIRENT_SIZE;
    for (uint32_t i = 0; i < b->count; i++) {
        struct erofs_dirent *d = (struct erofs_dirent *)data + i;
        le64_put(d->nid, b->entry[i].nid);
        le16_put(d->name_offset, (uint16_t)name_at);
        d->type[0] = b->entry[i].type;
        memcpy(data + name_at, b->entry[i].name, b->entry[i].name_length);
        name_at += b->entry[i].name_length;
    }
    b->count = b->used = 0;
    return emit_bytes(e, data, pad ? sizeof data : name_at);
}

static uint8_t type_of(uint32_t type)
{
    return type == TREE_DIRECTORY ? EROFS_TYPE_DIRECTORY
           : type == TREE_SYMLINK ? EROFS_TYPE_SYMLINK
                                  : EROFS_TYPE_FILE;
}

/* The entries of a directory whose children's inodes are placed from `inodes` on. */
static int emit_entries(struct emit *e, uint32_t directory, uint64_t inodes, bool pad)
{
    const struct layout *l = e->l;
    struct block b = {.count = 0};
    struct layout_entries walk;
    struct layout_entry entry;
    layout_entries_start(l, directory, &walk);
    while (layout_entries_next(l, &walk, &entry)) {
        uint32_t room = EROFS_DIRENT_SIZE + entry.name_length;
        int r = b.used + room > EROFS_BLOCK_SIZE ? emit_block(e, &b, true) : 0;
        if (r < 0)
            return r;
        uint32_t node = entry.node;
        uint64_t address;
        if (entry.dots) {
            address = layout_inode_of(l, tree_node(l->tree, node)->ref);
        } else if (layout_owns_inode(l, entry.node, &node)) {
            struct layout_shape s;
            layout_shape_of(l, node, &s);
            address = layout_place(&s, &inodes);
        } else {
            address = (uint64_t)layout_link_of(l, node)->position * EROFS_NID_SIZE;
        }
        b.entry[b.count].nid = layout_nid(l, address);
        b.entry[b.count].name = entry.name;
        b.entry[b.count].name_length = entry.name_length;
        b.entry[b.count].type = type_of(tree_node(l->tree, node)->type);
        b.count++;
        b.used += room;
    }
    return emit_block(e, &b, pad);
}

/* ---- inodes ------------------------------------------------------------------------------------
 */

static int emit_xattrs(struct emit *e, uint32_t node)
{
    static const uint8_t zeros[EROFS_XATTR_HEADER_SIZE];
    struct bytes list = tree_xattrs(e->l->tree, node);
    struct layout_xattr x;
    size_t at = 0;
    int r = emit_bytes(e, zeros, EROFS_XATTR_HEADER_SIZE);
    while (r == 0 && layout_xattr_next(list, &at, &x) == 1) {
        struct erofs_xattr_entry entry = {.name_length = {(uint8_t)x.name.size},
                                          .name_index = {EROFS_XATTR_USER}};
        le16_put(entry.value_size, (uint16_t)x.value.size);
        r = emit_bytes(e, &entry, sizeof entry);
        if (r == 0)
            r = emit_bytes(e, x.name.data, x.name.size);
        if (r == 0)
            r = emit_bytes(e, x.value.data, x.value.size);
        if (r == 0)
            r = emit_zeros_to(e, layout_up(e->position, 4)); /* the inode is 4-aligned */
    }
    return r;
}

static int emit_chunks(struct emit *e, const struct tree_node *n)
{
    uint64_t count = tree_chunk_count(n->size);
    for (uint64_t i = 0; i < count; i++) {
        struct layout_chunk c;
        int r = layout_chunk_of(e->l, n, i, &c);
        if (r < 0)
            return r;
        struct erofs_chunk_index index = {.block_hi = {0}};
        le16_put(index.device, c.device);
        le32_put(index.block, c.device ? c.block : EROFS_HOLE);
        r = emit_bytes(e, &index, sizeof index);
        if (r < 0)
            return r;
    }
    return 0;
}

static void fill_file(const struct layout *l, const struct tree_node *n, struct erofs_inode *inode)
{
    uint32_t bits = 0;
    struct layout_chunk c = {0};
    while (bits < EROFS_CHUNK_BITS_BIG && (uint64_t)EROFS_BLOCK_SIZE << bits < n->size)
        bits++;
    /* The plan made sure that the chunk is good. */
    if (tree_chunk_count(n->size) == 1 && layout_chunk_of(l, n, 0, &c) == 0)
        le32_put(inode->leaf_hint, c.leaf);
    le32_put(inode->u, EROFS_CHUNK_INDEXES | bits);
}

/* `target`: where a plain symlink's target stands. */
static void fill_inode(const struct layout *l, uint32_t node, const struct layout_shape *s,
                       uint64_t target, struct erofs_inode *inode)
{
    const struct tree_node *n = tree_node(l->tree, node);
    uint64_t size = n->size;
    uint32_t mode = S_IFREG, nlink;
    if (n->type == TREE_DIRECTORY) {
        mode = S_IFDIR;
        nlink = 2 + tree_directory_subdirs(l->tree, n->ref);
        size = s->layout == EROFS_LAYOUT_PLAIN ? layout_entries_size(l, n->ref) : s->behind;
        target = layout_unit_of(l, n->ref);
    } else {
        nlink = tree_link_count(l->tree, node);
    }
    if (n->type == TREE_FILE) {
        fill_file(l, n, inode);
    } else {
        mode = n->type == TREE_SYMLINK ? S_IFLNK : mode;
        /* an inline symlink is handed the place of the next plain one's target */
        if (s->layout == EROFS_LAYOUT_PLAIN)
            le32_put(inode->u, (uint32_t)(target / EROFS_BLOCK_SIZE));
    }
    le16_put(inode->format, (uint16_t)EROFS_FORMAT(s->layout));
    if (s->xattrs)
        le16_put(inode->xattr_count, (uint16_t)(1 + (s->xattrs - EROFS_XATTR_HEADER_SIZE) / 4));
    le16_put(inode->mode, (uint16_t)(mode | n->mode));
    le64_put(inode->size, size);
    le64_put(inode->mtime, (uint64_t)n->mtime_s);
    le32_put(inode->mtime_nsec, n->mtime_ns);
    le32_put(inode->nlink, nlink);
}

/* One inode at `address`, with all that stands behind it. */
static int emit_inode(struct emit *e, uint32_t node, const struct layout_shape *s, uint64_t address,
                      uint64_t target)
{
    const struct layout *l = e->l;
    const struct tree_node *n = tree_node(l->tree, node);
    struct erofs_inode inode = {.format = {0}};
    fill_inode(l, node, s, target, &inode);
    int r = emit_zeros_to(e, address);
    if (r == 0)
        r = emit_bytes(e, &inode, sizeof inode);
    if (r == 0 && s->xattrs)
        r = emit_xattrs(e, node);
    if (r < 0)
        return r;
    if (s->layout == EROFS_LAYOUT_CHUNK) {
        r = emit_zeros_to(e, layout_up(e->position, EROFS_CHUNK_INDEX_SIZE));
        return r < 0 ? r : emit_chunks(e, n);
    }
    if (s->layout == EROFS_LAYOUT_PLAIN)
        return 0;
    if (n->type == TREE_DIRECTORY)
        return emit_entries(e, n->ref, layout_unit_of(l, n->ref), false);
    struct bytes text = tree_symlink_target(l->tree, n);
    return emit_bytes(e, text.data, text.size);
}

/* ---- units -------------------------------------------------------------------------------------
 */

static int emit_targets(struct emit *e, uint32_t directory)
{
    const struct layout *l = e->l;
    struct tree_cursor c;
    bool more = tree_first(l->tree, tree_directory_node(l->tree, directory), &c);
    for (; more; more = tree_next(l->tree, &c)) {
        struct layout_shape s;
        uint32_t node;
        if (!layout_owns_inode(l, c.node, &node))
            continue;
        layout_shape_of(l, node, &s);
        if (s.target == 0)
            continue;
        struct bytes text = tree_symlink_target(l->tree, tree_node(l->tree, node));
        int r = emit_zeros_to(e, layout_up(e->position, EROFS_BLOCK_SIZE));
        if (r == 0)
            r = emit_bytes(e, text.data, text.size);
        if (r < 0)
            return r;
    }
    return 0;
}

static int emit_unit(void *ctx, uint32_t directory, bool head, struct err *err)
{
    (void)head; /* the plan decided */
    (void)err;  /* the sink's code is all there is to say */
    struct emit *e = ctx;
    const struct layout *l = e->l;
    struct layout_unit u;
    layout_measure(l, directory, layout_unit_of(l, directory), &u);
    int r = emit_zeros_to(e, u.start);
    if (r == 0 && !u.inlined)
        r = emit_entries(e, directory, u.inodes, true);
    uint64_t pos = u.inodes, target = u.targets;
    struct tree_cursor c;
    bool more = tree_first(l->tree, tree_directory_node(l->tree, directory), &c);
    for (; r == 0 && more; more = tree_next(l->tree, &c)) {
        struct layout_shape s;
        uint32_t node;
        if (!layout_owns_inode(l, c.node, &node))
            continue;
        layout_shape_of(l, node, &s);
        uint64_t address = layout_place(&s, &pos);
        r = emit_inode(e, node, &s, address, target);
        target += layout_up(s.target, EROFS_BLOCK_SIZE);
    }
    if (r == 0 && u.targets != u.end)
        r = emit_targets(e, directory);
    return r < 0 ? r : emit_zeros_to(e, u.end);
}

int emit_metadata(struct emit *e)
{
    const struct layout *l = e->l;
    struct layout_shape s;
    layout_shape_of(l, TREE_ROOT, &s);
    int r = emit_inode(e, TREE_ROOT, &s, layout_inode_of(l, 0), 0);
    if (r == 0)
        r = layout_each_unit(l, emit_unit, e, NULL);
    if (r == 0)
        r = emit_zeros_to(e, l->end);
    return r < 0 ? r : emit_flush(e);
}
