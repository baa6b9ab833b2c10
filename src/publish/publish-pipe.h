/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What goes from the reading threads to the writer: batches of files, read and digested, in the
 * very layout in which they stand in a pack. Inside publish/ only.
 *
 * A batch belongs to one thread at a time: to a reader until it is posted, then to the writer until
 * it is given back. Order is by sequence, whoever reads it.
 */
#ifndef PUBLISH_PUBLISH_PIPE_H
#define PUBLISH_PUBLISH_PIPE_H

#include "publish/publish-internal.h"

#include "pack/pack.h"

#define BATCH_FILES  1024u
#define BATCH_BYTES  (4u << 20) /* of small files; a larger one is a batch of its own */
#define BATCH_BUFFER (PACK_BLOB_MAX + (256u << 10)) /* room for files that have grown */
#define BATCH_LEAVES (BATCH_FILES + BATCH_BUFFER / PACK_LEAF_MAX + 1)

enum item_result {
    ITEM_DATA,
    ITEM_EMPTY,
    ITEM_HOLE,     /* all zero bytes */
    ITEM_DEFERRED, /* its size is not what was planned for: to be planned again */
};

enum item_fate {
    FATE_NONE,  /* a piece, but not the last */
    FATE_DONE,  /* the file is stored */
    FATE_AGAIN, /* it is to be planned anew */
};

/* A file, or an 8-MiB piece of a large one. */
struct batch_item {
    struct tree_node *node;
    struct tree_chunk *chunk; /* of a piece; NULL: a whole file */
    uint32_t number;          /* of the node */
    uint64_t piece, pieces;   /* 0 and 1 for a whole file */
    uint64_t planned_size;    /* of the file */
    const char *name;
    size_t path, path_size; /* of its directory, in batch.paths */
    uint8_t name_length;
    /* filled in by reading: */
    enum item_result result;
    bool changed;        /* it was read more than once */
    bool xattrs_dropped; /* too large */
    bool settled, mtime_settled;
    struct source_stat stat;
    size_t offset, size; /* in batch.data */
    size_t leaf, leaf_count;
    size_t xattrs, xattrs_size; /* in batch.xattrs */
    struct digest id;           /* of the blob */
    /* filled in by the writer: */
    enum item_fate fate;
    struct tree_chunk place; /* of a whole file */
};

struct batch {
    uint64_t sequence;
    struct batch_item *items; /* owned; BATCH_FILES */
    size_t count;
    struct buf paths, xattrs;
    uint8_t *data; /* owned; BATCH_BUFFER */
    size_t data_size;
    struct pack_leaf *leaves; /* owned; BATCH_LEAVES */
    size_t leaf_count;
    int error; /* reading stopped here */
    struct err err;
};

static inline const char *batch_path(const struct batch *b, const struct batch_item *it)
{
    return b->paths.size ? (const char *)b->paths.data + it->path : "";
}

/* ---- reading: publish-read.c ------------------------------------------------------------------
 */

struct pipe;

/* Starts the readers on all files of p->tree that are pending. */
int pipe_start(struct publish *p, struct pipe **ret);
/* The next batch in order, or NULL at the end; waits up to a moment: *ret_waiting says that there
 * is none yet. */
struct batch *pipe_take(struct pipe *pipe, bool *ret_waiting);
void pipe_give_back(struct pipe *pipe, struct batch *b);
/* Held by the plan while it looks at the tree, and by the writer while it changes nodes. */
pthread_mutex_t *pipe_tree_lock(struct pipe *pipe);
/* Stops the readers if they are not done, and frees everything. NULL is fine. */
void pipe_stop(struct pipe *pipe);
AUTO_FREE_FUNC(struct pipe, pipe_stop);

/* publish-plan.c: what is to be read, cut into batches in the order of the tree. */
struct plan {
    const struct publish *p;
    struct order order;
    struct tree_cursor cursor; /* in the current directory */
    bool in_directory;
    /* the large file that is being cut: */
    struct tree_node *large;
    uint32_t large_chunk;
    uint64_t piece, pieces;
};
void plan_init(struct plan *plan, const struct publish *p);
void plan_release(struct plan *plan);
/* 1: `b` has files to read; 0: that was all; or -ENOMEM. Changes the tree's chunk table. */
int plan_batch(struct plan *plan, struct batch *b);

/* publish-ahead.c: tells the source what the plan will come to. */
struct ahead {
    const struct publish *p;
    struct order order;
    struct tree_cursor cursor; /* in the current directory */
    bool in_directory, looked_at;
    bool in_file;          /* not all pieces of it are told */
    uint64_t size, offset; /* of the file; of its next piece */
    uint64_t told;         /* files and pieces */
    bool enabled;
};
void ahead_init(struct ahead *a, const struct publish *p);
void ahead_release(struct ahead *a);
/* Tell as much as the source wants to know, and at least the first `least` files and pieces. */
void ahead_tell(struct ahead *a, uint64_t least);

/* publish-read-file.c */
struct reader {
    const struct publish *p;
    struct source_dir *dir; /* the one opened last */
    struct buf dir_path;
    struct buf xattrs;
    bool has_dir;
};
void reader_init(struct reader *rd, const struct publish *p);
void reader_release(struct reader *rd);
/* Fills in all items; b->error if one cannot be read. */
void reader_read(struct reader *rd, struct batch *b);

#endif
