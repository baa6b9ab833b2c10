/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the formats share. Inside archive/ only.
 */
#ifndef ARCHIVE_ARCHIVE_INTERNAL_H
#define ARCHIVE_ARCHIVE_INTERNAL_H

#include "archive/archive-download.h"
#include "archive/archive-expand.h"
#include "archive/archive.h"

/* Embedded first by each format's source. */
struct archived {
    struct source source;
    struct download *download; /* owned */
};

/* Takes `d`, also where it fails. */
int archived_init(struct archived *a, const struct source_ops *ops,
                  const struct source_stream_ops *stream, struct download *d);
void archived_progress(struct source *s, uint64_t *ret_done, uint64_t *ret_total);

/* A text of a part. */
int archived_text(struct source_part *part, const char *text, size_t size, size_t *ret_at,
                  size_t *ret_size);

/* Bytes that a file takes in a part. */
static inline size_t archived_room(uint64_t size)
{
    return (size_t)((size + SOURCE_PART_ALIGN - 1) / SOURCE_PART_ALIGN * SOURCE_PART_ALIGN);
}

/* Both take `d`, also where they fail. */
int archived_tar_open(struct download *d, enum expand_kind kind, struct source **ret,
                      struct err *err);
int archived_zip_open(struct download *d, struct source **ret, struct err *err);

#endif
