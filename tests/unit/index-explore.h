/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Follows whatever an opened index says, hostile or not, with a bounded number of steps, and aborts
 * if an answer contradicts another: for the fuzz target and for mutated images.
 */
#ifndef TESTS_INDEX_EXPLORE_H
#define TESTS_INDEX_EXPLORE_H

#include "index/index.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define EXPLORE_ENTRIES 48u /* of each directory that are looked at again */
#define EXPLORE_STACK   64u

#define EXPLORE_REQUIRE(condition)                                                                 \
    do {                                                                                           \
        if (!(condition))                                                                          \
            abort();                                                                               \
    } while (0)

struct explore_entry {
    char name[INDEX_NAME_MAX];
    uint8_t length;
    uint64_t nid, next;
};

struct explore_list {
    struct explore_entry at[EXPLORE_ENTRIES];
    size_t count;
    uint64_t left; /* entries that may still be listed */
    bool cut;
};

static int explore_entry(void *ctx, const struct index_entry *e)
{
    struct explore_list *l = ctx;

    EXPLORE_REQUIRE(e->name_length > 0 && !memchr(e->name, 0, e->name_length) &&
                    !memchr(e->name, '/', e->name_length));
    EXPLORE_REQUIRE(e->nid >= INDEX_ROOT_NID && e->next > 0 && e->next <= INT64_MAX);
    if (l->left == 0) {
        l->cut = true;
        return 1;
    }
    l->left--;
    if (l->count < EXPLORE_ENTRIES) {
        struct explore_entry *to = &l->at[l->count++];
        memcpy(to->name, e->name, e->name_length);
        to->length = e->name_length;
        to->nid = e->nid;
        to->next = e->next;
    }
    return 0;
}

static int explore_one(void *ctx, const struct index_entry *e)
{
    *(uint64_t *)ctx = e->nid;
    return 1;
}

static int explore_attribute(void *ctx, const char *name, size_t length, struct bytes value)
{
    uint64_t *bytes = ctx;

    EXPLORE_REQUIRE(length > 0 && length <= 250 && !memchr(name, 0, length));
    *bytes += length + value.size;
    EXPLORE_REQUIRE(*bytes < 65536);
    return 0;
}

static int explore_file(const struct index *x, const struct index_inode *file)
{
    const uint64_t offsets[] = {0, file->size / 2, file->size - 1};
    struct index_extent e;

    for (size_t i = 0; file->size && i < 3; i++) {
        int r = index_map(x, file, offsets[i], &e);
        if (r < 0)
            return r;
        EXPLORE_REQUIRE(e.chunk_size > 0 && offsets[i] - e.chunk_offset < e.chunk_size);
        EXPLORE_REQUIRE(e.chunk_size <= file->size - e.chunk_offset);
        if (e.device) {
            EXPLORE_REQUIRE(e.device <= index_device_count(x));
            uint64_t end = e.block * INDEX_BLOCK + e.chunk_size;
            EXPLORE_REQUIRE(end <= index_device_blocks(x, e.device) * INDEX_BLOCK);
            EXPLORE_REQUIRE(index_device_start(x, e.device) + end <= index_flat_size(x));
        }
    }
    EXPLORE_REQUIRE(index_map(x, file, file->size, &e) == -EINVAL);
    return 0;
}

static int explore_inode(const struct index *x, const struct index_inode *inode)
{
    char target[INDEX_TARGET_MAX + 1];
    uint64_t bytes = 0;
    int r = index_xattrs(x, inode, explore_attribute, &bytes);

    EXPLORE_REQUIRE(inode->nlink > 0);
    EXPLORE_REQUIRE(inode->type == INDEX_SYMLINK ? inode->mode == 0777 : !(inode->mode & ~0555));
    if (r < 0)
        return r;
    if (inode->type == INDEX_FILE)
        return explore_file(x, inode);
    if (inode->type == INDEX_DIRECTORY)
        return 0;
    r = index_readlink(x, inode, target);
    EXPLORE_REQUIRE(r < 0 || strlen(target) == inode->size);
    return r;
}

/* A directory that was listed to its end is sorted, so each of its names must be found, and each
 * cookie must give the next entry. */
static void explore_again(const struct index *x, const struct index_inode *dir,
                          const struct explore_list *l)
{
    uint64_t nid;

    for (size_t i = 0; i < l->count; i++) {
        EXPLORE_REQUIRE(index_lookup(x, dir, l->at[i].name, l->at[i].length, &nid) == 0);
        EXPLORE_REQUIRE(nid == l->at[i].nid);
        if (i + 1 < l->count) {
            EXPLORE_REQUIRE(index_readdir(x, dir, l->at[i].next, explore_one, &nid) == 0);
            EXPLORE_REQUIRE(nid == l->at[i + 1].nid);
        }
    }
}

/* Everything reachable, or `steps` entries; gives the first error met, but goes on after it. */
static int explore(const struct index *x, uint64_t steps)
{
    uint64_t stack[EXPLORE_STACK] = {INDEX_ROOT_NID};
    size_t depth = 1;
    int first = 0;

    while (depth && steps) {
        struct explore_list list = {.left = steps};
        struct index_inode dir, inode;
        int r = index_inode(x, stack[--depth], &dir);

        steps--;
        if (r == 0)
            r = explore_inode(x, &dir);
        if (r == 0)
            r = index_readdir(x, &dir, 0, explore_entry, &list);
        if (r < 0) {
            first = first ? first : r;
            continue;
        }
        steps = list.left;
        if (!list.cut)
            explore_again(x, &dir, &list);
        for (size_t i = 0; i < list.count; i++) {
            bool dots = list.at[i].name[0] == '.' && list.at[i].length <= 2 &&
                        list.at[i].name[list.at[i].length - 1] == '.';
            r = index_inode(x, list.at[i].nid, &inode);
            if (r == 0)
                r = explore_inode(x, &inode);
            if (r == 0 && inode.type == INDEX_DIRECTORY && !dots && depth < EXPLORE_STACK)
                stack[depth++] = inode.nid;
            first = first ? first : r;
        }
    }
    return first;
}

#endif
