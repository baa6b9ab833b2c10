/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A download, decompressed in a thread of its own, in order. Inside archive/ only.
 *
 * Checksums of the format are verified, and what comes behind its end is not ignored. Threads:
 * expand_take() by one at a time; expand_stop() by any.
 */
#ifndef ARCHIVE_ARCHIVE_EXPAND_H
#define ARCHIVE_ARCHIVE_EXPAND_H

#include "archive/archive-download.h"

enum expand_kind { EXPAND_NONE, EXPAND_GZIP, EXPAND_ZSTD, EXPAND_XZ, EXPAND_BZIP2 };

struct expand;

/* `d` is borrowed, and nobody else takes of it. */
int expand_open(struct download *d, enum expand_kind kind, struct expand **ret, struct err *err);
void expand_close(struct expand *e);
AUTO_FREE_FUNC(struct expand, expand_close);
/* The next bytes: 1, 0 at the end. Valid until the next call. */
int expand_take(struct expand *e, struct bytes *ret, struct err *err);
/* expand_take() gives -ECANCELED from now on. Stop the download, too. */
void expand_stop(struct expand *e);

#endif
