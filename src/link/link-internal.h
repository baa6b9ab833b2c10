/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The layout that the writer and the parsers of tables of links share: docs/formats/link.md in
 * code.
 */
#ifndef LINK_LINK_INTERNAL_H
#define LINK_LINK_INTERNAL_H

#include "link/link.h"

#define LINK_MAGIC           "GRIDLINK"
#define LINK_VERSION         1u
#define LINK_ROWS_MAGIC      "LNKR"
#define LINK_DIRECTORY_MAGIC "LNKD"
#define LINK_PAGE_HEAD       8u /* of pages of rows and of the directory */
#define LINK_ROW             48u
#define LINK_ENTRIES         4094u /* of a page of the directory */
#define LINK_FIRST           4096u /* where the header's list begins */
#define LINK_DIRECTORY_MAX   ((LINK_PAGE - LINK_FIRST) / 4)

_Static_assert(LINK_PAGE_HEAD + LINK_ENTRIES * 4 == LINK_PAGE, "entries fill a page");

enum link_page_field { PAGE_MAGIC = 0, PAGE_COUNT = 4 };

enum link_row_field {
    ROW_BLOCK = 0,
    ROW_TEXT = 4,
    ROW_KEY_LENGTH = 6,
    ROW_SIZE = 8,
    ROW_OFFSET = 16,
    ROW_LENGTH = 24,
    ROW_MTIME = 32,
    ROW_ETAG_LENGTH = 40,
    ROW_VERSION_LENGTH = 41,
    ROW_ZERO = 42,
};

enum link_header_field {
    HEADER_MAGIC = 0,
    HEADER_FORMAT = 8,
    HEADER_ADDRESSING = 12,
    HEADER_BLOCKS = 16,
    HEADER_ROWS = 24,
    HEADER_BYTES = 32,
    HEADER_ROW_PAGES = 40,
    HEADER_DIRECTORY_PAGES = 44,
    HEADER_TEXT_LENGTHS = 48, /* four of two bytes */
    HEADER_TEXTS = 56,
};
#define LINK_TEXTS 4u

_Static_assert(HEADER_TEXTS + sizeof((struct link_place *)0)->bucket +
                       sizeof((struct link_place *)0)->prefix +
                       sizeof((struct link_place *)0)->endpoint +
                       sizeof((struct link_place *)0)->region <=
                   LINK_FIRST,
               "all texts fit before the list");

/* One set of rules for both directions: may a row be like this, but for its place? */
bool link_row_is_sound(const struct link_row *row);

#endif
