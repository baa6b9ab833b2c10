/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The bytes of a URL in order, some MiB ahead, and pieces of it out of order. Inside archive/ only.
 *
 * A window of chunks is filled by ranged requests, several in flight, pinned to what the first
 * answer was; or by one plain answer, held back while the window is full, where the server has no
 * ranges or nothing to pin them to. Requests that fail are repeated here, and nowhere else, for the
 * bytes that are missing.
 *
 * Threads: download_take(), download_range() and the like by one at a time; download_stop() and
 * download_progress() by any.
 */
#ifndef ARCHIVE_ARCHIVE_DOWNLOAD_H
#define ARCHIVE_ARCHIVE_DOWNLOAD_H

#include "archive/archive.h"
#include "base/buf.h"
#include "base/cleanup.h"

#define DOWNLOAD_UNKNOWN UINT64_MAX

struct download;

int download_open(const char *url, const struct archive_options *o, struct download **ret,
                  struct err *err);
void download_close(struct download *d);
AUTO_FREE_FUNC(struct download, download_close);

/* The URL, without its secrets. */
const char *download_shown(const struct download *d);
/* Bytes in all; DOWNLOAD_UNKNOWN. */
uint64_t download_size(const struct download *d);
bool download_has_ranges(const struct download *d);
/* Does the server call it a page? */
bool download_is_html(const struct download *d);

/* The first bytes, which are not taken: as many as `size` unless the resource is shorter. Only
 * before anything is taken. */
int download_peek(struct download *d, size_t size, struct bytes *ret, struct err *err);
/* The next bytes: 1, 0 at the end. Valid until the next call. */
int download_take(struct download *d, struct bytes *ret, struct err *err);
/* From the first byte again, which have to be the same ones. */
int download_rewind(struct download *d, struct err *err);
/* Exactly these bytes; only with ranges. */
int download_range(struct download *d, uint64_t offset, void *data, size_t size, struct err *err);

/* Whoever waits comes back with -ECANCELED. */
void download_stop(struct download *d);
/* Bytes that were taken. */
uint64_t download_progress(const struct download *d);

#endif
