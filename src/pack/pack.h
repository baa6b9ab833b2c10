/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A pack: many files' bytes in one object that verifies itself. Format: docs/formats/pack.md.
 *
 *   data (leaves, each from a block border) | leaf table (4-KiB pages) | [page table] | trailer
 *
 * A leaf is the unit of verification: a whole file up to 64 KiB, or a 64-KiB piece of a larger one
 * (the last may be shorter). A blob is what deduplication knows: a whole file up to 8 MiB, or an
 * 8-MiB piece of a larger one; its leaves stand one behind the other, the first one marked. The
 * digest of a pack is the SHA-256 of its trailer, which holds the digest of every page of the leaf
 * table, which holds the digest of every leaf: so any leaf can be fetched and verified alone.
 *
 * An index object and a table of links are stored in the same frame (PACK_KIND_INDEX, _LINKS), cut
 * into leaves of 16 KiB.
 *
 * This folder is pure: bytes in, bytes out. Reading and writing are the caller's, through
 * callbacks. Threads: a writer belongs to one thread at a time; a parsed trailer is constant, any
 * number.
 */
#ifndef PACK_PACK_H
#define PACK_PACK_H

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/digest.h"
#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>

#define PACK_BLOCK       512u                /* unit of addresses; data is zero-padded to it */
#define PACK_LEAF_MAX    65536u              /* bytes of a leaf of a pack */
#define PACK_INDEX_LEAF  16384u              /* bytes of a leaf of other kinds, but the last */
#define PACK_BLOB_MAX    (8u << 20)          /* files are cut at this */
#define PACK_PAGE        4096u               /* one page of the leaf table */
#define PACK_PAGE_LEAVES 102u                /* rows of 40 bytes; 16 zero bytes end a page */
#define PACK_DATA_MAX    (UINT64_C(4) << 30) /* bytes of data in one pack */
#define PACK_INDEX_MAX   (UINT64_C(1) << 40) /* bytes of an index image, or table of links */
#define PACK_TRAILER_MAX (4u << 20)          /* bytes of a trailer; parsers refuse more */
#define PACK_GROUP_PAGES 1024u               /* more pages than this: two levels */
#define PACK_BLOB_LEAVES (PACK_BLOB_MAX / PACK_LEAF_MAX)
/* Leaves of a data pack that a writer takes: it keeps 40 bytes for each until the end, so this is
 * 42 MB. Only packs of very many tiny files end here before they are full. Readers do not care. */
#define PACK_LEAVES_MAX 1048576u

enum pack_kind { PACK_KIND_DATA = 1, PACK_KIND_INDEX = 2, PACK_KIND_LINKS = 3 };

static inline uint64_t pack_blocks(uint64_t bytes)
{
    return bytes / PACK_BLOCK + (bytes % PACK_BLOCK != 0);
}

struct pack_leaf {
    struct digest digest;
    uint32_t length;  /* bytes, 1 to PACK_LEAF_MAX */
    bool starts_blob; /* first leaf of a file, or of an 8-MiB piece */
};

/* A leaf at its place. */
struct pack_leaf_at {
    struct pack_leaf leaf;
    uint64_t number; /* in the pack, from 0 */
    uint64_t block;  /* where its data starts, in PACK_BLOCKs from the pack's start */
};

/* The identity of a blob of 1 to PACK_BLOB_LEAVES leaves: its only leaf's digest, or one made of
 * the length and the leaves' digests (docs/formats/pack.md, "Blob identity"). */
struct digest pack_blob_id(const struct pack_leaf *leaves, size_t count);
/* The leaves of a blob from `at` on, which is a border of leaves, up to `end`; gives how many. */
size_t pack_make_leaves(const void *blob, size_t at, size_t end, struct pack_leaf *ret);

/* Takes the object's bytes in order; borrowed until return. A negative errno ends the writing. */
typedef int pack_sink_fn(void *ctx, const void *data, size_t size);

/* What has to be known to read a pack back; goes into the manifest. */
struct pack_summary {
    struct digest digest; /* of the trailer */
    uint64_t length;      /* of the whole object, bytes */
    uint64_t data_size;   /* bytes, a multiple of PACK_BLOCK */
    uint64_t leaf_count;
    uint64_t trailer_offset;
    uint32_t trailer_length;
};

struct pack_writer;

int pack_writer_new(enum pack_kind kind, pack_sink_fn *sink, void *ctx, struct pack_writer **ret);
void pack_writer_free(struct pack_writer *w);
AUTO_FREE_FUNC(struct pack_writer, pack_writer_free);

/* Append `count` leaves whose bytes lie one behind the other in `data`, each zero-padded to whole
 * blocks (`size` in all; the caller padded and digested them). *ret_block and *ret_leaf say where
 * the first one stands. With nothing written: -EFBIG if the pack would exceed PACK_DATA_MAX or
 * PACK_LEAVES_MAX (other kinds: PACK_INDEX_MAX); -EINVAL if lengths, marks or padding break the
 * format (other kinds: no marks, and every leaf but the last is PACK_INDEX_LEAF long). After the
 * sink failed or the writer ran out of memory each call gives that error again. */
int pack_writer_add(struct pack_writer *w, const struct pack_leaf *leaves, size_t count,
                    const void *data, size_t size, uint64_t *ret_block, uint64_t *ret_leaf);

uint64_t pack_writer_data_size(const struct pack_writer *w);

/* Write table and trailer. The writer can then only be freed. -EINVAL for a pack without leaves. */
int pack_writer_finish(struct pack_writer *w, struct pack_summary *ret);

struct pack_trailer;

/* Parse `bytes` and check every field against `expect` (all of it: digest, lengths). Nothing in
 * `bytes` is trusted before its digest was right. -EBADMSG: not the bytes that were written;
 * -EPROTO: they break the format; -EPROTONOSUPPORT: a newer one. */
int pack_trailer_parse(struct bytes bytes, enum pack_kind kind, const struct pack_summary *expect,
                       struct pack_trailer **ret, struct err *err);
void pack_trailer_free(struct pack_trailer *t);
AUTO_FREE_FUNC(struct pack_trailer, pack_trailer_free);

uint64_t pack_trailer_data_size(const struct pack_trailer *t);
uint64_t pack_trailer_leaf_count(const struct pack_trailer *t);
uint32_t pack_trailer_page_count(const struct pack_trailer *t); /* of the leaf table */
bool pack_trailer_has_groups(const struct pack_trailer *t);     /* two levels */

/* A page of the table: where it stands, how it is verified. */
struct pack_page_ref {
    uint32_t number; /* of the page, or of the group page */
    bool is_group;
    uint64_t offset; /* in the object; PACK_PAGE bytes */
    struct digest digest;
    uint64_t first_block; /* first leaf's */
    uint64_t end_block;   /* behind its last leaf */
};

/* Two levels only (else -EINVAL): the group page whose pages cover `block`. -ENOENT: none, it is
 * behind the data. */
int pack_trailer_find_group(const struct pack_trailer *t, uint64_t block,
                            struct pack_page_ref *ret);
/* The leaf page that covers `block`. With two levels `group` is the verified group page (PACK_PAGE
 * bytes) and `group_ref` what find_group gave; else both are NULL (-EINVAL if it is otherwise).
 * -ENOENT: the block is behind the data, or outside that group. */
int pack_trailer_find_page(const struct pack_trailer *t, const void *group,
                           const struct pack_page_ref *group_ref, uint64_t block,
                           struct pack_page_ref *ret);
/* Page `number` where the leaf number is known: number / PACK_PAGE_LEAVES (one level only; -EINVAL
 * with two, or if there is no such page). */
int pack_trailer_page(const struct pack_trailer *t, uint32_t number, struct pack_page_ref *ret);

/* Two levels only (else -EINVAL), where the page number is known: group page `number`, and from it
 * (verified, with what named it) leaf page `page`. -EINVAL if there is none. */
int pack_trailer_group(const struct pack_trailer *t, uint32_t number, struct pack_page_ref *ret);
int pack_group_page(const struct pack_trailer *t, const void *group,
                    const struct pack_page_ref *group_ref, uint32_t page,
                    struct pack_page_ref *ret);

/* Does `page` (PACK_PAGE bytes, a leaf page or a group page) match? 0, -EBADMSG, or -EPROTO if its
 * rows break the format (out of order, overlapping, beyond the data). */
int pack_page_verify(const struct pack_trailer *t, const struct pack_page_ref *ref,
                     const void *page);

/* Rows of a verified leaf page. */
uint32_t pack_page_leaf_count(const struct pack_trailer *t, uint32_t page_number);
struct pack_leaf_at pack_page_leaf(const void *page, uint32_t page_number, uint32_t row);
/* The row whose data covers `block`; -ENOENT if none in this page does. */
int pack_page_find(const struct pack_trailer *t, const void *page, uint32_t page_number,
                   uint64_t block, struct pack_leaf_at *ret);

/* All leaves in order, pages read through `read` (exactly `size` bytes at `offset` of the object,
 * or a negative errno) and verified, several at a time. `fn` returns 0 to go on; what else it
 * returns is what this returns. */
typedef int pack_read_fn(void *ctx, uint64_t offset, void *data, size_t size);
typedef int pack_leaf_fn(void *ctx, const struct pack_leaf_at *leaf);
int pack_each_leaf(const struct pack_trailer *t, pack_read_fn *read, void *read_ctx,
                   pack_leaf_fn *fn, void *ctx);

#endif
