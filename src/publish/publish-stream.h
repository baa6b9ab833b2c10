/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A stream (source/source.h) is stored as it comes, by worker threads and one writer, and its tree
 * is made at the end. Inside publish/ only.
 */
#ifndef PUBLISH_PUBLISH_STREAM_H
#define PUBLISH_PUBLISH_STREAM_H

#include "publish/publish-internal.h"

#include "pack/pack.h"

/* What workers make of one item. */
enum piece_kind { PIECE_NONE, PIECE_DATA, PIECE_ZEROS };

struct stream_piece {
    enum piece_kind kind;
    size_t leaf, leaf_count; /* in the batch */
    struct digest id;
};

/* A part with its digests. It belongs to a worker until it is posted, then to the writer. */
struct stream_batch {
    uint64_t sequence;
    struct source_part part;
    struct stream_piece *pieces; /* owned; of items */
    struct pack_leaf *leaves;    /* owned */
    size_t leaf_count;
    int error; /* the stream ends here */
    struct err err;
};

/* ---- publish-stream-read.c: the workers -------------------------------------------------------
 */

struct stream_pipe;

int stream_pipe_start(struct publish *p, struct stream_pipe **ret);
/* The next batch in order, or NULL at the end; waits up to a moment: *ret_waiting says that there
 * is none yet. */
struct stream_batch *stream_pipe_take(struct stream_pipe *pipe, bool *ret_waiting);
void stream_pipe_give_back(struct stream_pipe *pipe, struct stream_batch *b);
/* Stops the workers if they are not done, and frees everything. NULL is fine. */
void stream_pipe_stop(struct stream_pipe *pipe);
AUTO_FREE_FUNC(struct stream_pipe, stream_pipe_stop);

#endif
