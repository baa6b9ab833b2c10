/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the two halves of the text form share, and the words of its lines.
 *
 * Private to this folder.
 */
#ifndef INDEX_INDEX_DUMP_H
#define INDEX_INDEX_DUMP_H

#include "base/buf.h"
#include "base/err.h"
#include "base/vec.h"
#include "index/index.h"

#define INDEX_DUMP_MAGIC "grid-index-dump 1"

/* Cuts a line into its words, separated by one space each. */
struct dump_words {
    const char *at; /* NULL: no more words */
    const char *end;
};
bool dump_word_next(struct dump_words *words, struct bytes *ret);
bool dump_word_is(struct bytes word, const char *text);

/* Each reads one whole word and gives false if it is anything else, or above `max`. */
bool dump_number(struct bytes word, uint64_t max, uint64_t *ret);
bool dump_mode(struct bytes word, uint16_t *ret);
bool dump_time(struct bytes word, int64_t *ret_seconds, uint32_t *ret_ns);

/* Does this byte of a name stand for itself? */
bool dump_is_plain(uint8_t byte);
/* Append the bytes that an escaped word stands for. 0, -EINVAL, or as buf_append(). */
int dump_unescape(struct bytes word, struct buf *out);
/* Append the bytes of a hex word. */
int dump_hex(struct bytes word, struct buf *out);

/* One line of a path, as it was read. */
struct dump_record {
    uint64_t name;   /* offsets in the parser's texts */
    uint64_t target; /* symlink: its target; hard link: the path, which begins with '/' */
    uint64_t xattrs; /* as tree_set_xattrs() takes them */
    uint32_t target_length;
    uint32_t xattr_length;
    uint8_t name_length;
    enum tree_type type;
    uint16_t mode;
    uint32_t mtime_ns;
    int64_t mtime_s;
    uint64_t size;
    struct tree_chunk chunk; /* of a file of one chunk; many: `block` is the first row */
    uint32_t last_child;     /* records; 0: none */
    uint32_t first_child;
    uint32_t next; /* sibling; 0: none */
    uint32_t child_count;
    uint32_t first_node; /* of the children, once they are in the tree */
};

/* A directory whose lines have not ended. */
struct dump_open {
    uint32_t record;
    uint32_t path_length;
};

struct dump_parser {
    struct buf line, path, open_path, texts;
    uint64_t line_number;
    VEC(struct dump_record) records; /* 0 is the root */
    VEC(struct dump_open) open;
    VEC(struct index_device) devices;
    struct tree *tree;
};

/* "line N: WHAT"; gives `code`. */
int dump_bad(const struct dump_parser *p, int code, const char *what, struct err *err);
/* < 0, 0, > 0: as unsigned bytes, the shorter first. */
int dump_name_order(const void *a, size_t a_size, const void *b, size_t b_size);
/* Put all records into p->tree, and seal it. */
int dump_build(struct dump_parser *p, struct err *err);

#endif
