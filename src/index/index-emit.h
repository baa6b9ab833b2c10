/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The second pass of the writer: bytes in ascending order, through a bounded buffer, to a sink.
 *
 * Private to this folder. Threads: one at a time.
 */
#ifndef INDEX_INDEX_EMIT_H
#define INDEX_INDEX_EMIT_H

#include "index/index-layout.h"

#define EMIT_BUFFER 262144u /* bytes handed to the sink at once: few calls, small memory */

struct emit {
    const struct layout *l;
    index_sink_fn *sink;
    void *ctx;
    uint64_t position; /* of the next byte in the image */
    uint8_t *buffer;   /* borrowed, EMIT_BUFFER bytes */
    size_t used;
};

int emit_bytes(struct emit *e, const void *data, size_t size);
int emit_zeros_to(struct emit *e, uint64_t position);
int emit_flush(struct emit *e);

/* Everything from the end of the device table to the end of the image. */
int emit_metadata(struct emit *e);

#endif
