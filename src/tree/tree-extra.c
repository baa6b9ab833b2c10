/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What only some nodes have: symlink targets, chunks of large files, hard links, attributes.
 *
 * They lie in tables of their own, so that the millions of plain files do not pay for them. Hard
 * links and attributes are looked up by node, in tables that tree_seal() sorts.
 */
#include "tree/tree-internal.h"

#include "base/le.h"

#include <string.h>

#define CHUNK_SHIFT 23 /* files are cut at 8 MiB */

static struct bytes sized_text(const struct tree *t, uint64_t place)
{
    const uint8_t *p = arena_at(&t->texts, place);
    return bytes_of(p + 2, le16_get(p));
}

struct bytes tree_symlink_target(const struct tree *t, const struct tree_node *n)
{
    return sized_text(t, *(const uint64_t *)segvec_at(&t->targets, n->ref));
}

int tree_add_chunks(struct tree *t, size_t count, uint32_t *ret_first)
{
    size_t first;

    if (count > UINT32_MAX - t->chunks.count)
        return -EFBIG;
    int r = segvec_add(&t->chunks, count, &first);
    if (r < 0)
        return r;
    *ret_first = (uint32_t)first;
    return 0;
}

struct tree_chunk *tree_chunk(const struct tree *t, uint32_t chunk)
{
    return segvec_at(&t->chunks, chunk);
}

uint64_t tree_chunk_count(uint64_t size)
{
    uint64_t rest = size & ((UINT64_C(1) << CHUNK_SHIFT) - 1);
    return (size >> CHUNK_SHIFT) + (rest != 0);
}

static int number_compare(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

/* Collect what the hard links name, sorted. */
static int seal_links(const struct tree *t, uint32_t **ret, size_t *ret_count)
{
    size_t count = 0, at = 0;

    for (uint32_t i = 0; i < t->nodes.count; i++)
        count += tree_node(t, i)->type == TREE_HARDLINK;
    *ret = NULL;
    *ret_count = count;
    if (count == 0)
        return 0;
    AUTO(free_ptr) uint32_t *links = malloc(count * sizeof *links);
    if (!links)
        return -ENOMEM;
    for (uint32_t i = 0; i < t->nodes.count; i++) {
        const struct tree_node *n = tree_node(t, i);
        if (n->type != TREE_HARDLINK)
            continue;
        if (n->ref >= t->nodes.count)
            return -EINVAL;
        unsigned type = tree_node(t, n->ref)->type;
        if (type == TREE_DIRECTORY || type == TREE_HARDLINK)
            return -EINVAL;
        links[at++] = n->ref;
    }
    qsort(links, count, sizeof *links, number_compare);
    *ret = take_ptr(&links);
    return 0;
}

static int xattr_row_compare(const void *a, const void *b)
{
    const struct tree_xattr_row *x = a, *y = b;
    return x->node < y->node ? -1 : x->node > y->node;
}

int tree_seal(struct tree *t)
{
    if (t->sealed)
        return -EINVAL;
    if (t->xattrs.count > 0)
        qsort(t->xattrs.at, t->xattrs.count, sizeof *t->xattrs.at, xattr_row_compare);
    for (size_t i = 1; i < t->xattrs.count; i++) {
        if (t->xattrs.at[i - 1].node == t->xattrs.at[i].node)
            return -EINVAL;
    }
    int r = seal_links(t, &t->links, &t->link_rows);
    if (r == 0)
        t->sealed = true;
    return r;
}

/* How many of the sorted links name a node below `node`. */
static size_t links_below(const struct tree *t, uint64_t node)
{
    size_t low = 0, high = t->link_rows;

    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (t->links[middle] < node)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

uint32_t tree_link_count(const struct tree *t, uint32_t node)
{
    return (uint32_t)(1 + links_below(t, (uint64_t)node + 1) - links_below(t, node));
}

/* name NUL, value length, value, ...: whole, in strictly ascending order of names. */
static bool xattrs_are_valid(struct bytes b)
{
    const uint8_t *p = b.data, *end = p + b.size;
    const char *last = NULL;

    while (p < end) {
        const uint8_t *nul = memchr(p, '\0', (size_t)(end - p));
        if (!nul || nul == p || nul - p > 255 || end - nul < 3)
            return false;
        const char *name = (const char *)p;
        size_t value = le16_get(nul + 1);
        p = nul + 3;
        if (value > (size_t)(end - p) || (last && strcmp(last, name) >= 0))
            return false;
        p += value;
        last = name;
    }
    return true;
}

int tree_set_xattrs(struct tree *t, uint32_t node, struct bytes names_values)
{
    struct tree_xattr_row row = {.node = node};

    if (names_values.size > TREE_XATTR_MAX)
        return -E2BIG;
    if (t->sealed || node >= t->nodes.count || tree_node(t, node)->type == TREE_HARDLINK ||
        (names_values.size && !xattrs_are_valid(names_values)))
        return -EINVAL;
    if (names_values.size == 0)
        return 0;
    struct arena_mark mark = arena_mark(&t->texts);
    int r = arena_add(&t->texts, 2 + names_values.size, &row.place);
    if (r < 0)
        return r;
    r = vec_push(&t->xattrs, row);
    if (r < 0) {
        arena_reset(&t->texts, mark);
        return r;
    }
    uint8_t *p = arena_at(&t->texts, row.place);
    le16_put(p, (uint16_t)names_values.size);
    memcpy(p + 2, names_values.data, names_values.size);
    return 0;
}

struct bytes tree_xattrs(const struct tree *t, uint32_t node)
{
    size_t low = 0, high = t->xattrs.count;

    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (t->xattrs.at[middle].node == node)
            return sized_text(t, t->xattrs.at[middle].place);
        if (t->xattrs.at[middle].node < node)
            low = middle + 1;
        else
            high = middle;
    }
    return bytes_of(NULL, 0);
}

static uint64_t segvec_memory(const struct segvec *v)
{
    return (uint64_t)v->segment_count * SEGVEC_ROWS * v->item_size +
           v->segment_capacity * sizeof *v->segments;
}

uint64_t tree_memory(const struct tree *t)
{
    return sizeof *t + segvec_memory(&t->nodes) + segvec_memory(&t->directories) +
           segvec_memory(&t->targets) + segvec_memory(&t->chunks) + t->texts.bytes +
           t->texts.segments.capacity * sizeof *t->texts.segments.at +
           t->xattrs.capacity * sizeof *t->xattrs.at + t->link_rows * sizeof *t->links;
}
