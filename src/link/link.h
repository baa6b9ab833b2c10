/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tables of links: which object of a source stands at which blocks of a linked device. Format:
 * docs/formats/link.md.
 *
 * A table is pages of one size in the frame of a pack (PACK_KIND_LINKS), one leaf each, so that one
 * page tells all about a file: pages of rows, a directory of them, and a header last.
 *
 * Pure: bytes in, bytes out. The writer gives them to a callback; the parsers get pages that the
 * caller has verified, and trust none of them all the same. Threads: a writer belongs to one at a
 * time; the parsers have no state.
 */
#ifndef LINK_LINK_H
#define LINK_LINK_H

#include "base/buf.h"
#include "base/cleanup.h"
#include "pack/pack.h"

#include <stdbool.h>
#include <stdint.h>

#define LINK_PAGE        PACK_INDEX_LEAF
#define LINK_CUT         PACK_BLOB_MAX /* objects are cut between devices at multiples of this */
#define LINK_BLOCKS_MAX  ((UINT64_C(1) << 32) - LINK_CUT / PACK_BLOCK) /* of a device */
#define LINK_KEY_MAX     1024u
#define LINK_ETAG_MAX    127u
#define LINK_VERSION_MAX 127u

enum link_addressing { LINK_ADDRESSING_AUTO, LINK_ADDRESSING_PATH, LINK_ADDRESSING_VIRTUAL };

/* Where the objects of a table are. No secrets. */
struct link_place {
    char bucket[256];
    char prefix[LINK_KEY_MAX + 1]; /* of all keys */
    char endpoint[512];            /* "https://host[:port][/path]"; "": AWS's, by region */
    char region[64];               /* "": unknown */
    enum link_addressing addressing;
};

/* A run of an object. Texts are borrowed: of the caller, or of the page that was parsed. */
struct link_row {
    uint32_t block;             /* of the device */
    uint64_t size;              /* of the object */
    uint64_t offset, length;    /* what stands here of it */
    int64_t mtime_ms;           /* of the object */
    struct bytes key;           /* without the prefix */
    struct bytes etag, version; /* version: empty where the bucket has none */
};

/* ---- writing ----------------------------------------------------------------------------------
 */

struct link_writer;

/* `place` is copied. `blocks_max` bounds the device, for tests; 0: LINK_BLOCKS_MAX. -EINVAL: a text
 * of `place` breaks the format. */
int link_writer_new(const struct link_place *place, uint64_t blocks_max, pack_sink_fn *sink,
                    void *ctx, struct link_writer **ret);
void link_writer_free(struct link_writer *w);
AUTO_FREE_FUNC(struct link_writer, link_writer_free);

/* How many bytes of an object of which `left` bytes are left have room in this device: `left`, or a
 * multiple of LINK_CUT, or 0. */
uint64_t link_writer_room(const struct link_writer *w, uint64_t left);
/* Append a row (its `block` is ignored). *ret_block is where it begins, *ret_page the hint for
 * inodes. -EFBIG: no room; -EINVAL: a field breaks the format. After the sink failed each call
 * gives that error again. */
int link_writer_add(struct link_writer *w, const struct link_row *row, uint32_t *ret_block,
                    uint32_t *ret_page);
/* Write directory, header and the end of the pack. -EINVAL for a table without rows. */
int link_writer_finish(struct link_writer *w, struct pack_summary *ret, uint64_t *ret_blocks);

/* ---- reading ----------------------------------------------------------------------------------
 *
 * All give 0, or -EPROTO for a page that breaks the format.
 */

struct link_header {
    struct link_place place;
    uint64_t blocks, rows, bytes;
    uint32_t row_pages, directory_pages;
};

/* The last page of a table of `data_size` bytes. -EPROTONOSUPPORT: of a newer format. */
int link_header_parse(const void *page, uint64_t data_size, struct link_header *ret);
/* Which page of the table is the part of the directory that covers `block`. `page`: the header's,
 * parsed before. -ENOENT: the block is behind the device. */
int link_header_find(const void *page, const struct link_header *h, uint32_t block,
                     uint32_t *ret_page);
/* Which page of rows covers `block`, by page `number` of the table, a part of the directory. */
int link_directory_find(const void *page, const struct link_header *h, uint32_t number,
                        uint32_t block, uint32_t *ret_page);

/* Check a page of rows whole; from then on the two below trust it. */
int link_rows_check(const void *page);
uint32_t link_rows_count(const void *page);
void link_rows_get(const void *page, uint32_t i, struct link_row *ret);
/* The row that covers `block`; -ENOENT: none of this page does. Cheap: a binary search. */
int link_rows_find(const void *page, uint32_t block, struct link_row *ret);

static inline uint64_t link_row_blocks(const struct link_row *row)
{
    return pack_blocks(row->length);
}

#endif
