/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The log that local state is kept in: what each file was when it was last read, and where its
 * bytes went. Append-only, every record with its own check; what is damaged is ignored, never
 * believed. Format: docs/formats/state.md. Inside publish/ only.
 *
 * Threads: a writer and a reader belong to one thread at a time.
 */
#ifndef PUBLISH_PUBLISH_LOG_H
#define PUBLISH_PUBLISH_LOG_H

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/digest.h"
#include "manifest/manifest.h"
#include "source/source.h"
#include "tree/tree.h"

#define LOG_FORMAT    1u
#define LOG_BLOCK_MAX (256u << 10) /* a block is cut when it is larger; one entry always fits */
#define LOG_PACKS     65536u       /* pack numbers of a log */
#define LOG_NO_PACK   0xFFFFu

/* Whose log it is. A log of anybody else is no log. */
struct log_identity {
    char store_id[33];
    char name[64];
    char store[1024];
    char source[4097];
    char source_terms[4097];
    bool append, exclude_private, trust_mtime;
};

/* The upload that a log belongs to. */
struct log_session {
    struct session_id session;
    uint32_t version;
    int64_t started_ms;
};

enum log_where { LOG_EMPTY = 0, LOG_HOLE = 1, LOG_ONE = 2, LOG_MANY = 3 };

#define LOG_CHUNK_SIZE 10u /* pack (2), block (4), leaf (4) */

/* One file. Borrowed until the callback returns. */
struct log_entry {
    const char *name;
    uint8_t name_length;
    enum log_where where;
    uint64_t size, inode;
    struct source_time mtime, ctime;
    bool mtime_settled;      /* mtime was old enough when it was read to be trusted alone */
    struct tree_chunk chunk; /* LOG_ONE */
    const uint8_t *chunks;   /* LOG_MANY: rows of LOG_CHUNK_SIZE, log_chunk() reads one */
    uint64_t chunk_count;
    struct bytes xattrs; /* tree_set_xattrs()'s form */
};

struct tree_chunk log_chunk(const struct log_entry *e, uint64_t i);

/* ---- writing ----------------------------------------------------------------------------------
 */

/* Writes are buffered. The first error is kept and makes all later calls do nothing: local state
 * is a help, not a condition. */
struct log_writer;

/* `fd` is taken over. */
int log_writer_new(int fd, const struct log_identity *id, struct log_writer **ret);
void log_writer_free(struct log_writer *w); /* flushes nothing */
AUTO_FREE_FUNC(struct log_writer, log_writer_free);

/* Entries that follow are in directory `path`, in ascending order of names. */
void log_writer_directory(struct log_writer *w, const char *path, size_t path_length);
/* `chunk` gives row i of a LOG_MANY entry. */
typedef struct tree_chunk log_chunk_fn(void *ctx, uint64_t i);
void log_writer_entry(struct log_writer *w, const struct log_entry *e, log_chunk_fn *chunk,
                      void *ctx);
/* What number `number` of the entries' chunks stands for; once per number. */
void log_writer_pack(struct log_writer *w, uint16_t number, const struct object_ref *ref);
void log_writer_session(struct log_writer *w, const struct log_session *s);
void log_writer_committed(struct log_writer *w, const struct digest *manifest);
/* End the block, hand everything to the kernel. 0 or the first error. */
int log_writer_flush(struct log_writer *w);

/* ---- reading ----------------------------------------------------------------------------------
 */

struct log_reader;

/* Scan the records' headers; blocks are read when they are asked for. `fd` is taken over.
 * -EPROTO: no log; -EPROTONOSUPPORT: of a newer program. */
int log_reader_open(int fd, struct log_reader **ret);
void log_reader_free(struct log_reader *r);
AUTO_FREE_FUNC(struct log_reader, log_reader_free);

const struct log_identity *log_reader_identity(const struct log_reader *r);
bool log_reader_session(const struct log_reader *r, struct log_session *ret);
bool log_reader_committed(const struct log_reader *r, struct digest *ret_manifest);

/* Packs by number; false: the log does not say. */
bool log_reader_pack(const struct log_reader *r, uint16_t number, struct object_ref *ret);

/* All entries of a directory, as blocks: ascending within one, later blocks win. `fn` gives 0 to go
 * on. A damaged block is left out. */
typedef int log_entry_fn(void *ctx, const struct log_entry *e);
int log_reader_directory(struct log_reader *r, const char *path, size_t path_length,
                         log_entry_fn *fn, void *ctx);

#endif
