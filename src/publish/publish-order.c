/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The order of everything: directories from the root down, siblings by name, as `tar` has it. The
 * walk makes the tree in this order, and files are read and packed in it, so that what lies
 * together in the tree lies together in packs.
 *
 * No recursion: one level per directory on the way down.
 */
#include "publish/publish-internal.h"

#define PATH_SIZE_MAX ((size_t)TREE_DEPTH_MAX * 256)

void order_init(struct order *o, const struct tree *t)
{
    *o = (struct order){.tree = t};
    buf_init(&o->path, PATH_SIZE_MAX);
}

void order_release(struct order *o)
{
    vec_release(&o->levels);
    buf_release(&o->path);
}

static int descend(struct order *o, uint32_t node)
{
    struct order_level level = {.directory = node, .path_size = o->path.size};

    return vec_push(&o->levels, level);
}

static int path_set(struct order *o, size_t size, const struct tree_cursor *c)
{
    int r = 0;

    if (o->path.data) {
        o->path.size = size;
        o->path.data[size] = '\0';
    }
    if (size > 0)
        r = buf_append(&o->path, "/", 1);
    return r < 0 ? r : buf_append(&o->path, c->name, c->name_length);
}

int order_next(struct order *o, uint32_t *ret_node)
{
    if (!o->begun) {
        o->begun = true;
        *ret_node = TREE_ROOT;
        int r = descend(o, TREE_ROOT);
        return r < 0 ? r : 1;
    }
    while (o->levels.count > 0) {
        struct order_level *l = &o->levels.at[o->levels.count - 1];
        uint32_t number = tree_node(o->tree, l->directory)->ref;
        if (!l->started) {
            l->started = true;
            l->more = tree_directory_subdirs(o->tree, number) > 0 &&
                      tree_first(o->tree, l->directory, &l->cursor);
        } else if (l->more) {
            l->more = tree_next(o->tree, &l->cursor);
        }
        while (l->more && tree_node(o->tree, l->cursor.node)->type != TREE_DIRECTORY)
            l->more = tree_next(o->tree, &l->cursor);
        if (!l->more) {
            o->levels.count--;
            continue;
        }
        uint32_t node = l->cursor.node;
        int r = path_set(o, l->path_size, &l->cursor);
        if (r == 0)
            r = descend(o, node);
        if (r < 0)
            return r;
        *ret_node = node;
        return 1;
    }
    return 0;
}
