/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Makes a tree of the records of a dump.
 *
 * Records stand in the order of their lines, so a directory's record comes before its children's,
 * and its node is known when it is reached. Hard links are bound last: what they name may come
 * later.
 */
#include "index/index-dump.h"

#include <inttypes.h>

struct builder {
    struct dump_parser *p;
    VEC(struct tree_entry) entries; /* of one directory */
    VEC(uint32_t) record_of;        /* by node */
};

/* The sentence for what only a whole tree shows. */
static int bad_record(const struct dump_parser *p, uint32_t record, int code, const char *what,
                      struct err *err)
{
    uint64_t line = UINT64_C(2) + p->devices.count + record;
    return err_fail(err, code, "line %" PRIu64 " of the dump: %s", line, what);
}

static struct tree_entry entry_of(const struct dump_parser *p, const struct dump_record *rec)
{
    const char *texts = (const char *)p->texts.data;
    return (struct tree_entry){
        .name = texts + rec->name,
        .name_length = rec->name_length,
        .type = rec->type,
        .mode = rec->mode,
        .size = rec->size,
        .mtime_s = rec->mtime_s,
        .mtime_ns = rec->mtime_ns,
        .target = texts + rec->target,
        .target_length = rec->type == TREE_SYMLINK ? (uint16_t)rec->target_length : 0,
        .link = TREE_NO_NODE,
    };
}

/* What tree_add_children() does not take. */
static int finish_node(struct builder *b, uint32_t node, uint32_t record, struct err *err)
{
    struct dump_parser *p = b->p;
    const struct dump_record *rec = &p->records.at[record];
    struct tree_node *n = tree_node(p->tree, node);
    if (rec->type == TREE_FILE) {
        n->pack = rec->chunk.pack;
        n->ref = rec->chunk.block;
        n->leaf = rec->chunk.leaf;
    }
    if (rec->xattr_length > 0) {
        struct bytes list = bytes_of(p->texts.data + rec->xattrs, rec->xattr_length);
        int r = tree_set_xattrs(p->tree, node, list);
        if (r < 0)
            return bad_record(p, record, r, "its attributes are malformed or do not ascend", err);
    }
    return vec_push(&b->record_of, record);
}

static int build_directory(struct builder *b, uint32_t node, uint32_t record, struct err *err)
{
    struct dump_parser *p = b->p;
    struct dump_record *dir = &p->records.at[record];
    int r = 0;
    b->entries.count = 0;
    for (uint32_t c = dir->first_child; r == 0 && c != 0; c = p->records.at[c].next)
        r = vec_push(&b->entries, entry_of(p, &p->records.at[c]));
    if (r == 0)
        r = tree_add_children(p->tree, node, b->entries.at, b->entries.count, &dir->first_node);
    if (r < 0)
        return bad_record(p, record, r, "its children do not fit a tree", err);
    uint32_t child = dir->first_node;
    for (uint32_t c = dir->first_child; r == 0 && c != 0; c = p->records.at[c].next)
        r = finish_node(b, child++, c, err);
    return r;
}

/* The child of this name, or 0. */
static uint32_t find_child(const struct builder *b, const struct dump_record *dir, const char *name,
                           size_t length)
{
    uint32_t low = dir->first_node, high = dir->first_node + dir->child_count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        const struct dump_record *rec = &b->p->records.at[b->record_of.at[middle]];
        int order = dump_name_order(name, length, b->p->texts.data + rec->name, rec->name_length);
        if (order == 0)
            return middle;
        if (order < 0)
            high = middle;
        else
            low = middle + 1;
    }
    return 0;
}

/* The node of "/a/b/c", or 0. */
static uint32_t find_path(const struct builder *b, const char *path, size_t length)
{
    uint32_t node = TREE_ROOT;
    const char *end = path + length;
    while (path < end) {
        const char *name = path + 1;
        const char *slash = memchr(name, '/', (size_t)(end - name));
        path = slash ? slash : end;
        node = find_child(b, &b->p->records.at[b->record_of.at[node]], name, (size_t)(path - name));
        if (node == 0)
            break;
    }
    return node;
}

static int bind_link(struct builder *b, uint32_t node, struct err *err)
{
    struct dump_parser *p = b->p;
    uint32_t record = b->record_of.at[node];
    const struct dump_record *rec = &p->records.at[record];
    const char *path = (const char *)p->texts.data + rec->target;
    uint32_t to = find_path(b, path, rec->target_length);
    if (to == 0)
        return bad_record(p, record, -EINVAL, "a hard link leads nowhere", err);
    uint32_t type = tree_node(p->tree, to)->type;
    if (type != TREE_FILE && type != TREE_SYMLINK)
        return bad_record(p, record, -EINVAL, "a hard link leads to neither file nor symlink", err);
    tree_node(p->tree, node)->ref = to;
    return 0;
}

static int build(struct builder *b, struct err *err)
{
    struct dump_parser *p = b->p;
    const struct dump_record *root = &p->records.at[0];
    struct tree_node *n = tree_node(p->tree, TREE_ROOT);
    n->mode = root->mode;
    n->mtime_s = root->mtime_s;
    n->mtime_ns = root->mtime_ns & 0x3fffffff;
    int r = finish_node(b, TREE_ROOT, 0, err);
    /* Nodes are numbered as they are added, so each directory's turn comes after its parent's. */
    for (uint32_t node = 0; r == 0 && node < b->record_of.count; node++) {
        uint32_t record = b->record_of.at[node];
        if (p->records.at[record].child_count > 0)
            r = build_directory(b, node, record, err);
    }
    for (uint32_t node = 0; r == 0 && node < b->record_of.count; node++) {
        if (tree_node(p->tree, node)->type == TREE_HARDLINK)
            r = bind_link(b, node, err);
    }
    return r < 0 ? r : tree_seal(p->tree);
}

int dump_build(struct dump_parser *p, struct err *err)
{
    struct builder b = {.p = p};
    int r = build(&b, err);
    vec_release(&b.entries);
    vec_release(&b.record_of);
    return r;
}
