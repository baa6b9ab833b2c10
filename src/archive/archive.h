/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An archive behind a URL as a source: downloaded, decompressed and unpacked as one stream, with
 * bounded memory and no temporary file.
 *
 *   tar       plain or in gzip, zstd, xz, bzip2: by libarchive, gzip by ISA-L; decompressed in a
 *             thread of its own
 *   zip       the central directory first, then members in the order in which they stand, small
 *             and middling ones inflated by all workers at once
 *
 * What comes is a stream of source/source.h, whose names are not made safe: publish does that.
 * Bytes of the archive are taken in order, by ranged requests ahead where the server has them,
 * pinned to the first answer, so that an archive that changes meanwhile fails instead of being
 * mixed. docs/archives.md says what becomes of what.
 *
 * Secrets: user, password and query of the URL go into requests to its host and nowhere else.
 */
#ifndef ARCHIVE_ARCHIVE_H
#define ARCHIVE_ARCHIVE_H

#include "base/err.h"
#include "source/source.h"

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>

#define ARCHIVE_SUFFIXES ".zip, .tar, .tar.gz, .tgz, .tar.zst, .tar.xz, .tar.bz2"

struct archive_options {
    const char *ca_file;  /* NULL: the system's */
    int64_t patience_ms;  /* without progress before it fails; 0: two minutes */
    int64_t low_speed_ms; /* a request that trickles so long is given up; 0: 20 s */
    const volatile sig_atomic_t *interrupted; /* nonzero: opening gives -ECANCELED. May be NULL */
};

/* Does the path of this http(s) URL end as an archive's does? */
bool archive_has_suffix(const char *url);

/* Ask the server, follow redirects, and look at the first bytes; of a zip, read its directory.
 * -ENOENT, -EACCES: what the server says; -EPROTO: no archive, or one that breaks its format. */
int archive_open(const char *url, const struct archive_options *o, struct source **ret,
                 struct err *err);

#endif
