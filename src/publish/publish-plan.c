/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Cuts what is pending into batches: runs of small files of some MiB, and pieces of large ones.
 *
 * One plan is shared by all readers, under a lock that is taken once a batch. The writer does not
 * look into the tree meanwhile: it has pointers to the rows that it fills in.
 */
#include "publish/publish-pipe.h"

void plan_init(struct plan *plan, const struct publish *p)
{
    *plan = (struct plan){.p = p};
    order_init(&plan->order, p->tree);
}

void plan_release(struct plan *plan)
{
    order_release(&plan->order);
}

static size_t padded(uint64_t size)
{
    return (size_t)(pack_blocks(size) * PACK_BLOCK);
}

/* The path of the current directory, once per batch and directory. */
static int add_path(const struct plan *plan, struct batch *b, size_t *ret)
{
    const struct buf *path = &plan->order.path;

    if (b->count > 0) {
        const struct batch_item *last = &b->items[b->count - 1];
        if (last->path_size == path->size &&
            memcmp(batch_path(b, last), buf_text(path), path->size) == 0) {
            *ret = last->path;
            return 0;
        }
    }
    *ret = b->paths.size;
    return buf_append(&b->paths, buf_text(path), path->size + 1);
}

static int add_item(struct plan *plan, struct batch *b, struct tree_node *n)
{
    struct batch_item it = {
        .node = n,
        .number = plan->cursor.node,
        .pieces = 1,
        .planned_size = n->size,
        .name = plan->cursor.name,
        .name_length = plan->cursor.name_length,
        .path_size = plan->order.path.size,
    };

    int r = add_path(plan, b, &it.path);
    if (r < 0)
        return r;
    if (plan->large) {
        it.chunk = tree_chunk(plan->p->tree, plan->large_chunk + (uint32_t)plan->piece);
        it.piece = plan->piece;
        it.pieces = plan->pieces;
    }
    b->items[b->count++] = it;
    return 0;
}

/* The next piece of the large file, alone. */
static int add_piece(struct plan *plan, struct batch *b)
{
    int r = add_item(plan, b, plan->large);

    if (r == 0 && ++plan->piece == plan->pieces)
        plan->large = NULL;
    return r < 0 ? r : 1;
}

static int begin_large(struct plan *plan, struct tree_node *n)
{
    plan->pieces = tree_chunk_count(n->size);
    int r = tree_add_chunks(plan->p->tree, (size_t)plan->pieces, &plan->large_chunk);
    if (r < 0)
        return r;
    n->ref = plan->large_chunk;
    plan->large = n;
    plan->piece = 0;
    return 0;
}

/* The cursor stands on a child; go to the next one when it is dealt with. */
static void step(struct plan *plan)
{
    plan->in_directory = tree_next(plan->p->tree, &plan->cursor);
}

static int next_directory(struct plan *plan)
{
    uint32_t node;
    int r = order_next(&plan->order, &node);

    if (r == 1)
        plan->in_directory = tree_first(plan->p->tree, node, &plan->cursor);
    return r;
}

int plan_batch(struct plan *plan, struct batch *b)
{
    size_t bytes = 0;
    int r;

    b->count = 0;
    buf_clear(&b->paths);
    for (;;) {
        if (plan->large) {
            r = add_piece(plan, b);
            if (!plan->large)
                step(plan);
            return r;
        }
        if (!plan->in_directory) {
            r = next_directory(plan);
            if (r <= 0)
                return r < 0 ? r : b->count > 0;
            continue;
        }
        struct tree_node *n = tree_node(plan->p->tree, plan->cursor.node);
        if (n->type != TREE_FILE || n->pack != PUBLISH_PENDING) {
            step(plan);
            continue;
        }
        bool fits = n->size <= BATCH_BYTES && bytes + padded(n->size) <= BATCH_BYTES;
        if (b->count == BATCH_FILES || (b->count > 0 && !fits))
            return 1;
        if (n->size > PACK_BLOB_MAX) {
            r = begin_large(plan, n);
            if (r < 0)
                return r;
            continue;
        }
        r = add_item(plan, b, n);
        if (r < 0)
            return r;
        bytes += padded(n->size);
        step(plan);
    }
}
