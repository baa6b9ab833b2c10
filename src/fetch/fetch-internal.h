/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Shared by the files of this folder.
 */
#ifndef FETCH_FETCH_INTERNAL_H
#define FETCH_FETCH_INTERNAL_H

#include "fetch/fetch-linked.h"
#include "fetch/fetch-memory.h"
#include "fetch/fetch.h"

#include <stdatomic.h>

struct fetch {
    struct store *store; /* borrowed */
    fetch_source_fn *open_source;
    void *open_source_ctx;
    struct memory memory;
    /* under the cache's lock: */
    uint64_t next_object;
    uint64_t hits, misses, bytes_read, bytes_verified, damaged;
};

struct fetch_object {
    struct fetch *fetch;
    uint64_t id;
    char *key; /* owned; in the store */
    enum pack_kind kind;
    struct pack_summary summary;
    struct fetch_linked *linked; /* owned; NULL: the object has its own bytes */
};

static inline struct memory_key fetch_key(const struct fetch_object *o, enum memory_kind kind,
                                          uint64_t number)
{
    return (struct memory_key){.object = o->id, .number = number, .kind = kind};
}

/* Read exactly `size` bytes of the object. An object that ends too early gives -EBADMSG, and a line
 * in the log. Without the lock. */
int fetch_get(struct fetch_object *o, uint64_t offset, void *data, size_t size);
/* A line in the log, and one more in the statistics. Without the lock. */
int fetch_damaged(struct fetch_object *o, uint64_t offset, size_t size, const char *what);

/* A verified leaf table page in the cache, good until the lock is given up. */
struct fetch_place {
    const void *page;
    uint32_t page_number;
    uint32_t row;           /* of the leaf that was asked for */
    struct pack_leaf_at at; /* that leaf */
};

/* Find the leaf that covers `offset` from what is cached. With the lock. 1: found; 0: something
 * must be loaded first; -EPROTO: no leaf is there. */
int fetch_table_find(struct fetch_object *o, uint64_t offset, uint64_t leaf_hint,
                     struct fetch_place *ret);
/* Load the next thing that fetch_table_find() needs. Without the lock. */
int fetch_table_load(struct fetch_object *o, uint64_t offset, uint64_t leaf_hint);

#endif
