/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tells a source that is far away what will be read next, in the order of the plan and ahead of it:
 * as far as the source wants to know, but never less than what is planned already.
 *
 * It walks the tree by itself, before the plan comes there: what is pending now is still pending
 * then. Under the lock of the plan, as everything that looks at nodes.
 */
#include "publish/publish-pipe.h"

void ahead_init(struct ahead *a, const struct publish *p)
{
    *a = (struct ahead){.p = p, .enabled = source_reads_ahead(p->source)};
    order_init(&a->order, p->tree);
}

void ahead_release(struct ahead *a)
{
    order_release(&a->order);
}

/* On the next file that is pending. 1, or 0: there is none. */
static int next_file(struct ahead *a)
{
    const struct tree *t = a->p->tree;

    for (;;) {
        if (a->in_directory && a->looked_at)
            a->in_directory = tree_next(t, &a->cursor);
        while (!a->in_directory) {
            uint32_t node;
            int r = order_next(&a->order, &node);
            if (r <= 0)
                return r;
            a->in_directory = tree_first(t, node, &a->cursor);
        }
        a->looked_at = true;
        const struct tree_node *n = tree_node(t, a->cursor.node);
        if (n->type == TREE_FILE && n->pack == PUBLISH_PENDING) {
            a->size = n->size;
            a->offset = 0;
            return 1;
        }
    }
}

/* The next file or piece. *ret_more: the source wants to hear of further ones. */
static int tell_one(struct ahead *a, bool *ret_more)
{
    char name[256];

    if (!a->in_file) {
        int r = next_file(a);
        if (r <= 0)
            return r;
        a->in_file = true;
    }
    memcpy(name, a->cursor.name, a->cursor.name_length);
    name[a->cursor.name_length] = '\0';
    *ret_more =
        a->size == 0 || source_will_read(a->p->source, buf_text(&a->order.path), name, a->offset);
    a->offset += PACK_BLOB_MAX;
    a->in_file = a->offset < a->size;
    a->told++;
    return 1;
}

void ahead_tell(struct ahead *a, uint64_t least)
{
    bool more = true;

    while (a->enabled && (more || a->told < least)) {
        /* Without memory it is read when it is wanted. */
        if (tell_one(a, &more) <= 0)
            a->enabled = false;
    }
}
