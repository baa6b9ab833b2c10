/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Verified bytes of packs and indexes, from a store: every leaf is checked against its digest
 * before it is handed out.
 *
 * A bounded cache in memory holds verified leaves, table pages and trailers (least recently used
 * goes first); readers of one leaf at the same time wait for one get. Nothing is written to disk.
 *
 * Threads: any number, on one fetch and one object. Reads block.
 */
#ifndef FETCH_FETCH_H
#define FETCH_FETCH_H

#include "base/cleanup.h"
#include "base/err.h"
#include "pack/pack.h"
#include "store/store.h"

#define FETCH_MEMORY_DEFAULT (UINT64_C(256) << 20)

struct fetch;

/* `store` is borrowed. `memory_bytes` bounds all that is cached or being read; 32 MiB at least. */
int fetch_new(struct store *store, uint64_t memory_bytes, struct fetch **ret);
void fetch_free(struct fetch *f); /* after all its objects */
AUTO_FREE_FUNC(struct fetch, fetch_free);

/* One pack or index. Opening costs nothing: its trailer is read and verified at the first read. */
struct fetch_object;
int fetch_object_new(struct fetch *f, const char *key, enum pack_kind kind,
                     const struct pack_summary *summary, struct fetch_object **ret);
void fetch_object_free(struct fetch_object *o);
AUTO_FREE_FUNC(struct fetch_object, fetch_object_free);

/* Copy exactly `size` verified bytes of the object's data, which starts at leaf borders: `offset`
 * and `size` may lie anywhere inside leaves, but not in the padding between them nor behind the
 * last
 * (-EPROTO). -EBADMSG: bytes do not match (a warning with key and offset goes to the log, the range
 * is read again at the next call); -ENOENT: the object is gone; else what the store gave.
 * `leaf_hint`: number of the leaf that holds `offset`, or FETCH_NO_HINT; a wrong one costs time
 * only. */
#define FETCH_NO_HINT UINT64_MAX
int fetch_read(struct fetch_object *o, uint64_t offset, void *data, size_t size,
               uint64_t leaf_hint);
/* The same for any range of the object's data, as it lies there: padding reads as zeros. */
int fetch_read_flat(struct fetch_object *o, uint64_t offset, void *data, size_t size);

struct fetch_stats {
    uint64_t hits, misses, bytes_read, bytes_verified, damaged;
    uint64_t memory_bytes; /* in use now */
};
void fetch_stats(struct fetch *f, struct fetch_stats *ret);

#endif
