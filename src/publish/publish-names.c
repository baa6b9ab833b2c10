/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Paths become rows: each component is looked up below its directory, in one table for all.
 *
 * A replaced file keeps its row, without a name, since hard links may still lead to it. A directory
 * is never replaced, and nothing becomes one: so what an entry lies in is decided when it comes,
 * and cannot be turned into something else afterwards. Directories have lower numbers than what is
 * in them.
 */
#include "publish/publish-names.h"

#include "base/le.h"
#include "base/name.h"
#include "base/vec.h"

#define ROWS_MAX     100000000u /* entries of a version; formats are made for as many */
#define TABLE_LEAST  4096u
#define SEGMENT      (1u << 20) /* of texts; a text is at most 4 KiB */
#define SEGMENTS_MAX 4096u      /* so that a place fits into 32 bits: 4 GiB of names */
#define IMPLIED_MODE 0555u
#define SHOWN_MAX    1000 /* bytes of a path in a sentence */

struct row {
    struct tree_node node; /* symlink: ref is its target's text; hard link: ref is a row */
    uint32_t parent;       /* row; NO_ROW: replaced. After names_build(): the node of the tree */
    uint32_t name;         /* text */
};

#define NO_ROW UINT32_MAX

struct names {
    struct segvec rows;
    uint32_t *table; /* owned; row + 1, 0: free */
    size_t table_size, table_used;
    VEC(uint8_t *) segments; /* owned */
    size_t segment_used;
};

static struct row *row_at(const struct names *n, uint32_t i)
{
    return segvec_at(&n->rows, i);
}

/* ---- texts ------------------------------------------------------------------------------------
 */

static int text_add(struct names *n, const char *text, size_t size, uint32_t *ret)
{
    if (n->segments.count == 0 || SEGMENT - n->segment_used < size + 2) {
        if (n->segments.count == SEGMENTS_MAX)
            return -EFBIG;
        uint8_t *segment = malloc(SEGMENT);
        int r = segment ? vec_push(&n->segments, segment) : -ENOMEM;
        if (r < 0) {
            free(segment);
            return r;
        }
        n->segment_used = 0;
    }
    uint8_t *place = n->segments.at[n->segments.count - 1] + n->segment_used;
    le16_put(place, (uint16_t)size);
    memcpy(place + 2, text, size);
    *ret = (uint32_t)((n->segments.count - 1) * SEGMENT + n->segment_used);
    n->segment_used += size + 2;
    return 0;
}

static struct bytes text_at(const struct names *n, uint32_t place)
{
    const uint8_t *p = n->segments.at[place / SEGMENT] + place % SEGMENT;

    return bytes_of(p + 2, le16_get(p));
}

/* ---- the table --------------------------------------------------------------------------------
 */

static uint64_t hash_name(uint32_t parent, const void *name, size_t size)
{
    const uint8_t *p = name;
    uint64_t h = (parent + 1) * UINT64_C(0x9e3779b97f4a7c15);

    for (; size >= 8; p += 8, size -= 8) {
        uint64_t word;
        memcpy(&word, p, 8);
        h = (h ^ word) * UINT64_C(0xff51afd7ed558ccd);
        h ^= h >> 32;
    }
    for (; size > 0; p++, size--)
        h = (h ^ *p) * UINT64_C(0x100000001b3);
    h *= UINT64_C(0xc4ceb9fe1a85ec53);
    return h ^ h >> 29;
}

static uint32_t *table_slot(const struct names *n, uint32_t parent, const void *name, size_t size)
{
    size_t i = (size_t)hash_name(parent, name, size) & (n->table_size - 1);

    for (; n->table[i] != 0; i = (i + 1) & (n->table_size - 1)) {
        const struct row *row = row_at(n, n->table[i] - 1);
        struct bytes known = text_at(n, row->name);
        if (row->parent == parent && known.size == size && memcmp(known.data, name, size) == 0)
            break;
    }
    return &n->table[i];
}

static int table_grow(struct names *n)
{
    uint32_t *old = n->table;
    size_t old_size = n->table_size, size = old_size ? 2 * old_size : TABLE_LEAST;
    uint32_t *table = calloc(size, sizeof *table);

    if (!table)
        return -ENOMEM;
    n->table = table;
    n->table_size = size;
    for (size_t i = 0; i < old_size; i++) {
        if (old[i] == 0)
            continue;
        const struct row *row = row_at(n, old[i] - 1);
        struct bytes name = text_at(n, row->name);
        *table_slot(n, row->parent, name.data, name.size) = old[i];
    }
    free(old);
    return 0;
}

/* A new row for (parent, name); `slot` is its place in the table. */
static int row_new(struct names *n, uint32_t parent, const char *name, size_t size, uint32_t *slot,
                   uint32_t *ret)
{
    struct row row = {.parent = parent};
    size_t number;

    if (n->rows.count >= ROWS_MAX)
        return -EFBIG;
    int r = *slot ? 0 : text_add(n, name, size, &row.name);
    if (r == 0)
        r = segvec_add(&n->rows, 1, &number);
    if (r < 0)
        return r;
    if (*slot) { /* the replaced one gives its name, and keeps nothing but its data */
        struct row *before = row_at(n, *slot - 1);
        row.name = before->name;
        before->parent = NO_ROW;
    } else {
        n->table_used++;
    }
    *row_at(n, (uint32_t)number) = row;
    *slot = (uint32_t)number + 1;
    *ret = (uint32_t)number;
    return n->table_used * 4 >= n->table_size * 3 ? table_grow(n) : 0;
}

int names_new(struct names **ret)
{
    AUTO(names_free) struct names *n = calloc(1, sizeof *n);
    size_t root;

    if (!n)
        return -ENOMEM;
    segvec_init(&n->rows, sizeof(struct row));
    int r = table_grow(n);
    if (r == 0)
        r = segvec_add(&n->rows, 1, &root);
    if (r < 0)
        return r;
    struct row *row = row_at(n, 0);
    row->node = (struct tree_node){.type = TREE_DIRECTORY, .mode = IMPLIED_MODE};
    row->parent = NO_ROW; /* it is in no directory, and no name leads to it */
    *ret = take_ptr(&n);
    return 0;
}

void names_free(struct names *n)
{
    if (!n)
        return;
    for (size_t i = 0; i < n->segments.count; i++)
        free(n->segments.at[i]);
    vec_release(&n->segments);
    segvec_release(&n->rows);
    free(n->table);
    free(n);
}

struct tree_node *names_node(struct names *n, uint32_t row)
{
    return &row_at(n, row)->node;
}

uint64_t names_count(const struct names *n)
{
    return n->rows.count;
}

/* ---- paths ------------------------------------------------------------------------------------
 */

static bool is_utf8(const char *text, size_t size)
{
    const uint8_t *p = (const uint8_t *)text, *end = p + size;

    while (p < end) {
        unsigned more = *p < 0x80   ? 0
                        : *p < 0xc2 ? 9
                        : *p < 0xe0 ? 1
                        : *p < 0xf0 ? 2
                        : *p < 0xf5 ? 3
                                    : 9;
        if (more >= (size_t)(end - p))
            return false;
        if ((*p == 0xe0 && p[1] < 0xa0) || (*p == 0xed && p[1] > 0x9f) ||
            (*p == 0xf0 && p[1] < 0x90) || (*p == 0xf4 && p[1] > 0x8f))
            return false;
        for (p++; more > 0; more--, p++) {
            if ((*p & 0xc0) != 0x80)
                return false;
        }
    }
    return true;
}

static int shown(size_t size)
{
    return size < SHOWN_MAX ? (int)size : SHOWN_MAX;
}

static int refuse(struct err *err, const char *path, size_t size, const char *why)
{
    return err_fail(err, -EPROTO, "'%.*s' %s", shown(size), path, why);
}

static int no_room(struct err *err, int code)
{
    return err_fail(err, code, "%s",
                    code == -ENOMEM ? "out of memory" : "it has too many names for one version");
}

/* The next component of path[*at..]: false at the end. Empty ones and "." are no components. */
static bool next_component(const char *path, size_t size, size_t *at, const char **ret,
                           size_t *ret_size)
{
    for (;;) {
        while (*at < size && path[*at] == '/')
            (*at)++;
        if (*at == size)
            return false;
        const char *start = path + *at;
        const char *slash = memchr(start, '/', size - *at);
        size_t length = slash ? (size_t)(slash - start) : size - *at;
        *at += length;
        if (length == 1 && *start == '.')
            continue;
        *ret = start;
        *ret_size = length;
        return true;
    }
}

static int check_component(const char *name, size_t length, const char *path, size_t size,
                           struct err *err)
{
    if (length == 2 && memcmp(name, "..", 2) == 0)
        return refuse(err, path, size, "has '..' in its path");
    if (length > 255)
        return refuse(err, path, size, "has a name of more than 255 bytes");
    if (!name_is_file_name(name, length))
        return refuse(err, path, size, "has a NUL in its name");
    return 0;
}

/* The directory `name` below `parent`; it is implied if it has not been seen. */
static int enter(struct names *n, uint32_t parent, const char *name, size_t length, uint32_t *ret)
{
    uint32_t *slot = table_slot(n, parent, name, length);

    if (*slot) {
        *ret = *slot - 1;
        return row_at(n, *ret)->node.type == TREE_DIRECTORY ? 0 : -ENOTDIR;
    }
    int r = row_new(n, parent, name, length, slot, ret);
    if (r == 0)
        row_at(n, *ret)->node = (struct tree_node){
            .type = TREE_DIRECTORY, .mode = IMPLIED_MODE, .pack = TREE_PACK_NONE};
    return r;
}

/* Down to the last component, whose name is given back: NULL for the root. */
static int descend(struct names *n, const char *path, size_t size, uint32_t *ret_parent,
                   const char **ret_name, size_t *ret_length, struct err *err)
{
    const char *name = NULL, *next;
    size_t at = 0, length = 0, next_length;
    uint32_t parent = 0;

    if (size > SOURCE_PATH_MAX)
        return refuse(err, path, size, "... is longer than 4096 bytes");
    while (next_component(path, size, &at, &next, &next_length)) {
        int r = check_component(next, next_length, path, size, err);
        if (r == 0 && name) {
            r = enter(n, parent, name, length, &parent);
            if (r == -ENOTDIR)
                return refuse(err, path, size, "lies below something that is no directory");
            if (r < 0)
                return no_room(err, r);
        }
        if (r < 0)
            return r;
        name = next;
        length = next_length;
    }
    *ret_parent = parent;
    *ret_name = name;
    *ret_length = length;
    return 0;
}

/* Where a hard link leads: a file or symlink that came before. */
static int find_target(struct names *n, const struct names_entry *e, uint32_t *ret, struct err *err)
{
    const char *name;
    size_t at = 0, length;
    uint32_t row = 0;

    while (next_component(e->target, e->target_size, &at, &name, &length)) {
        uint32_t slot = *table_slot(n, row, name, length);
        if (slot == 0)
            return err_fail(err, -EPROTO,
                            "'%.*s' is a hard link to '%.*s', which does not come before it",
                            shown(e->path_size), e->path, shown(e->target_size), e->target);
        row = slot - 1;
    }
    if (row_at(n, row)->node.type == TREE_HARDLINK)
        row = row_at(n, row)->node.ref;
    if (row_at(n, row)->node.type == TREE_DIRECTORY)
        return refuse(err, e->path, e->path_size, "is a hard link to a directory");
    *ret = row;
    return 0;
}

/* ---- entries ----------------------------------------------------------------------------------
 */

static void set_directory(struct tree_node *node, const struct names_entry *e)
{
    node->type = TREE_DIRECTORY;
    node->mode = e->mode;
    node->mtime_s = e->stat->mtime.s;
    node->mtime_ns = e->stat->mtime.ns & 0x3fffffff;
    node->pack = TREE_PACK_NONE;
}

static int set_node(struct names *n, uint32_t row, const struct names_entry *e, uint32_t target,
                    struct err *err)
{
    struct tree_node node = {.mode = e->mode,
                             .mtime_s = e->stat->mtime.s,
                             .mtime_ns = e->stat->mtime.ns & 0x3fffffff,
                             .pack = TREE_PACK_NONE};
    int r = 0;

    if (e->is_hard_link) {
        node.type = TREE_HARDLINK;
        node.ref = target;
    } else if (e->stat->type == SOURCE_SYMLINK) {
        uint32_t text = 0;
        if (e->target_size == 0 || e->target_size > 4095 || memchr(e->target, '\0', e->target_size))
            return refuse(err, e->path, e->path_size, "is a symbolic link to no possible path");
        r = text_add(n, e->target, e->target_size, &text);
        node.type = TREE_SYMLINK;
        node.ref = text;
    } else {
        node.type = TREE_FILE;
    }
    row_at(n, row)->node = node;
    return r < 0 ? no_room(err, r) : 0;
}

static int add_below(struct names *n, const struct names_entry *e, uint32_t parent,
                     const char *name, size_t length, uint32_t *ret_row,
                     struct names_remarks *remarks, struct err *err)
{
    bool is_directory = e->stat->type == SOURCE_DIRECTORY && !e->is_hard_link;
    uint32_t *slot = table_slot(n, parent, name, length), target = NO_ROW;

    if (*slot) {
        bool was_directory = row_at(n, *slot - 1)->node.type == TREE_DIRECTORY;
        if (was_directory != is_directory)
            return refuse(err, e->path, e->path_size, "is a directory and something else");
        if (e->unique && !was_directory)
            return refuse(err, e->path, e->path_size, "is there twice");
        if (is_directory) {
            *ret_row = *slot - 1;
            set_directory(names_node(n, *ret_row), e);
            return 0;
        }
    }
    if (e->is_hard_link) {
        int r = find_target(n, e, &target, err);
        if (r < 0)
            return r;
        if (*slot && (target == *slot - 1 || (row_at(n, *slot - 1)->node.type == TREE_HARDLINK &&
                                              row_at(n, *slot - 1)->node.ref == target))) {
            *ret_row = *slot - 1; /* a link to what it is already */
            return 0;
        }
    }
    remarks->replaced = *slot != 0;
    int r = row_new(n, parent, name, length, slot, ret_row);
    if (r < 0)
        return no_room(err, r);
    if (is_directory) {
        set_directory(names_node(n, *ret_row), e);
        return 0;
    }
    return set_node(n, *ret_row, e, target, err);
}

int names_add(struct names *n, const struct names_entry *e, uint32_t *ret_row,
              struct names_remarks *ret_remarks, struct err *err)
{
    const char *name = NULL;
    size_t length = 0;
    uint32_t parent = 0;

    *ret_remarks = (struct names_remarks){0};
    int r = descend(n, e->path, e->path_size, &parent, &name, &length, err);
    if (r < 0)
        return r;
    if (!name && (e->path_size == 0 || e->stat->type != SOURCE_DIRECTORY || e->is_hard_link))
        return refuse(err, e->path, e->path_size, "is no name");
    ret_remarks->absolute = e->path[0] == '/';
    ret_remarks->encoding = !is_utf8(e->path, e->path_size);
    if (!name) {
        *ret_row = 0;
        set_directory(names_node(n, 0), e);
        return 0;
    }
    return add_below(n, e, parent, name, length, ret_row, ret_remarks, err);
}

/* ---- the tree ---------------------------------------------------------------------------------
 */

/* A file whose name was replaced lives on in the first of its hard links; the others name that. */
static void settle_links(struct names *n)
{
    for (uint32_t i = 0; i < n->rows.count; i++) {
        struct row *row = row_at(n, i);
        if (row->node.type != TREE_HARDLINK || row->parent == NO_ROW)
            continue;
        struct row *target = row_at(n, row->node.ref);
        if (target->parent != NO_ROW)
            continue;
        if (target->node.type == TREE_HARDLINK) { /* moved already */
            row->node.ref = target->node.ref;
            continue;
        }
        row->node = target->node;
        target->node.type = TREE_HARDLINK;
        target->node.ref = i;
    }
}

static int child_compare(const void *a, const void *b, void *ctx)
{
    const struct names *n = ctx;
    struct bytes x = text_at(n, row_at(n, *(const uint32_t *)a)->name);
    struct bytes y = text_at(n, row_at(n, *(const uint32_t *)b)->name);
    int d = memcmp(x.data, y.data, x.size < y.size ? x.size : y.size);

    return d ? d : x.size < y.size ? -1 : x.size > y.size;
}

/* Rows by directory: those of row d stand in list[first[d]] to list[first[d + 1] - 1]. */
static int sort_by_directory(const struct names *n, uint32_t **ret_first, uint32_t **ret_list)
{
    size_t count = n->rows.count;
    AUTO(free_ptr) uint32_t *first = calloc(count + 2, sizeof *first);
    AUTO(free_ptr) uint32_t *list = malloc((count + 1) * sizeof *list);

    if (!first || !list)
        return -ENOMEM;
    for (uint32_t i = 1; i < count; i++) {
        if (row_at(n, i)->parent != NO_ROW)
            first[row_at(n, i)->parent + 2]++;
    }
    for (size_t i = 2; i < count + 2; i++)
        first[i] += first[i - 1];
    for (uint32_t i = 1; i < count; i++) {
        if (row_at(n, i)->parent != NO_ROW)
            list[first[row_at(n, i)->parent + 1]++] = i;
    }
    *ret_first = take_ptr(&first);
    *ret_list = take_ptr(&list);
    return 0;
}

static struct tree_entry entry_of(const struct names *n, uint32_t i)
{
    const struct row *row = row_at(n, i);
    struct bytes name = text_at(n, row->name);
    struct tree_entry e = {.name = name.data,
                           .name_length = (uint8_t)name.size,
                           .type = row->node.type,
                           .mode = row->node.mode,
                           .size = row->node.type == TREE_FILE ? row->node.size : 0,
                           .mtime_s = row->node.mtime_s,
                           .mtime_ns = row->node.mtime_ns};

    if (e.type == TREE_SYMLINK) {
        struct bytes target = text_at(n, row->node.ref);
        e.target = target.data;
        e.target_length = (uint16_t)target.size;
    }
    return e;
}

struct entry_list {
    VEC(struct tree_entry) rows;
};

/* The children of one directory, whose node is known. */
static int add_children(struct names *n, struct tree *t, uint32_t directory, uint32_t *list,
                        size_t count, struct entry_list *entries)
{
    uint32_t node;

    if (count == 0)
        return 0;
    if (count > 1)
        qsort_r(list, count, sizeof *list, child_compare, n);
    entries->rows.count = 0;
    for (size_t i = 0; i < count; i++) {
        int r = vec_push(&entries->rows, entry_of(n, list[i]));
        if (r < 0)
            return r;
    }
    int r = tree_add_children(t, row_at(n, directory)->parent, entries->rows.at, count, &node);
    if (r < 0)
        return r;
    for (size_t i = 0; i < count; i++) {
        struct row *row = row_at(n, list[i]);
        struct tree_node *to = tree_node(t, node + (uint32_t)i);
        row->parent = node + (uint32_t)i;
        if (row->node.type != TREE_FILE)
            continue;
        to->pack = row->node.pack;
        to->ref = row->node.ref;
        to->leaf = row->node.leaf;
    }
    return 0;
}

int names_build(struct names *n, struct tree *t)
{
    AUTO(free_ptr) uint32_t *first = NULL;
    AUTO(free_ptr) uint32_t *list = NULL;
    struct entry_list entries = {0};
    const struct row *root = row_at(n, 0);

    settle_links(n);
    free(n->table); /* its memory is needed for the lists */
    n->table = NULL;
    int r = sort_by_directory(n, &first, &list);
    if (r < 0)
        return r;
    tree_node(t, TREE_ROOT)->mode = root->node.mode;
    tree_node(t, TREE_ROOT)->mtime_s = root->node.mtime_s;
    tree_node(t, TREE_ROOT)->mtime_ns = root->node.mtime_ns;
    row_at(n, 0)->parent = TREE_ROOT;
    for (uint32_t i = 0; r == 0 && i < n->rows.count; i++) {
        if (row_at(n, i)->node.type == TREE_DIRECTORY)
            r = add_children(n, t, i, list + first[i], first[i + 1] - first[i], &entries);
    }
    for (uint32_t i = 0; r == 0 && i < n->rows.count; i++) {
        const struct row *row = row_at(n, i);
        if (row->node.type == TREE_HARDLINK && row->parent != NO_ROW)
            tree_node(t, row->parent)->ref = row_at(n, row->node.ref)->parent;
    }
    vec_release(&entries.rows);
    return r;
}

uint32_t names_tree_node(const struct names *n, uint32_t row)
{
    uint32_t node = row_at(n, row)->parent;

    return node == NO_ROW ? TREE_NO_NODE : node;
}
