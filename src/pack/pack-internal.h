/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The layout that the writer and the readers of a pack share: docs/formats/pack.md in code.
 */
#ifndef PACK_PACK_INTERNAL_H
#define PACK_PACK_INTERNAL_H

#include "pack/pack.h"

#include "base/le.h"

#define PACK_MAGIC       "GRIDPACK"
#define PACK_VERSION     1u
#define PACK_ROW         40u /* bytes of a row of any table */
#define PACK_HEADER      64u /* bytes of the trailer before its rows */
#define PACK_BATCH_PAGES 64u /* pages read or written in one go: 256 KiB */

#define ROW_BLOCK  DIGEST_SIZE       /* offsets in a row */
#define ROW_INFO   (DIGEST_SIZE + 4) /* leaf rows: length and mark; page rows: zero */
#define ROW_LENGTH 0x0001ffffu       /* bits of the info word */
#define ROW_STARTS 0x80000000u

_Static_assert(PACK_PAGE_LEAVES *PACK_ROW + 16 == PACK_PAGE, "rows and a zero tail fill a page");
_Static_assert(PACK_INDEX_MAX / PACK_BLOCK <= UINT32_MAX, "blocks are numbered with 32 bits");

/* Offsets in the header of the trailer. */
enum pack_header_field {
    HEADER_MAGIC = 0,
    HEADER_VERSION = 8,
    HEADER_KIND = 12,
    HEADER_DATA_SIZE = 16,
    HEADER_LEAF_COUNT = 24,
    HEADER_PAGE_COUNT = 32,
    HEADER_LEVELS = 36,
    HEADER_ENTRY_COUNT = 40,
    HEADER_RESERVED = 44,
    HEADER_LEAF_SIZE = 48,
    HEADER_TAIL = 52, /* zero up to PACK_HEADER */
};

/* Everything that follows from kind, data size and number of leaves. */
struct pack_shape {
    enum pack_kind kind;
    uint64_t data_size, leaf_count;
    uint32_t leaf_size; /* the longest */
    uint32_t page_count, group_count, entry_count;
    uint64_t groups_offset; /* pages stand at data_size */
    uint64_t trailer_offset;
    uint32_t trailer_length;
};

/* -EPROTO: no pack has such a shape. */
int pack_shape_of(uint32_t kind, uint64_t data_size, uint64_t leaf_count, struct pack_shape *ret);

struct pack_trailer {
    struct pack_shape shape;
    uint8_t entries[]; /* rows of PACK_ROW bytes, checked */
};

bool pack_is_zero(const uint8_t *p, size_t size);
/* The last of `count` rows (at least one) that starts at or before `block`, or else the first. */
uint32_t rows_find(const uint8_t *rows, uint32_t count, uint64_t block);

static inline uint32_t rows_in_page(uint64_t rows, uint32_t page)
{
    uint64_t before = (uint64_t)page * PACK_PAGE_LEAVES;
    if (before >= rows)
        return 0;
    return rows - before < PACK_PAGE_LEAVES ? (uint32_t)(rows - before) : PACK_PAGE_LEAVES;
}

static inline uint32_t row_length(const uint8_t *row)
{
    return le32_get(row + ROW_INFO) & ROW_LENGTH;
}

static inline bool row_starts_blob(const uint8_t *row)
{
    return le32_get(row + ROW_INFO) & ROW_STARTS;
}

static inline uint32_t row_block(const uint8_t *row)
{
    return le32_get(row + ROW_BLOCK);
}

/* Entry `number` of the trailer: of a group page with two levels, else of a leaf page. */
void trailer_entry(const struct pack_trailer *t, uint32_t number, struct pack_page_ref *ret);
/* Row `row` of a verified group page. */
void group_entry(const struct pack_trailer *t, const uint8_t *group,
                 const struct pack_page_ref *group_ref, uint32_t row, struct pack_page_ref *ret);
/* Do the rows of a group page keep the format? 0 or -EPROTO. */
int pack_group_check(const struct pack_trailer *t, const struct pack_page_ref *ref,
                     const uint8_t *page);
/* How many pages group page `number` has rows of. */
uint32_t group_page_count(const struct pack_trailer *t, uint32_t number);

#endif
