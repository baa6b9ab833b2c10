/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Patterns of a .gridignore file: which files of a source are left out. The rules are those of
 * gitignore(5), written down in docs/publish.md. Inside publish/ only.
 *
 * Threads: constant once parsed.
 */
#ifndef PUBLISH_PUBLISH_IGNORE_H
#define PUBLISH_PUBLISH_IGNORE_H

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/err.h"

#include <stdbool.h>

#define IGNORE_FILE         ".gridignore"
#define IGNORE_FILE_MAX     (1u << 20)
#define IGNORE_PATTERNS_MAX 10000u /* every file is held against every pattern */

struct ignore;

/* `text` is copied. -EFBIG with a sentence: too many patterns. */
int ignore_parse(struct bytes text, struct ignore **ret, struct err *err);
void ignore_free(struct ignore *g);
AUTO_FREE_FUNC(struct ignore, ignore_free);

/* Is "a/b/c" left out? The caller does not ask for what lies in a directory that is. */
bool ignore_matches(const struct ignore *g, const char *path, size_t length, bool is_directory);

#endif
