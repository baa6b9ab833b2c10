/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Names: of datastores, clusters and runs; and of files inside a tree.
 */
#ifndef BASE_NAME_H
#define BASE_NAME_H

#include <stdbool.h>
#include <stddef.h>

#define NAME_MAX_LENGTH 63

/* [a-z0-9][a-z0-9._-]{0,62} */
bool name_is_valid(const char *name);

/* 1 to 255 bytes, no '/', no NUL, not "." or "..": what a directory of ours may hold. */
bool name_is_file_name(const char *name, size_t length);

/* The name that `create` derives from a source: its last component, archive suffixes stripped if
 * `is_url`, lower case, without spaces; non-ASCII letters are dropped. Gives false if nothing valid
 * is left, and then the caller asks for --name. */
bool name_derive(const char *source, bool is_url, char ret_name[static NAME_MAX_LENGTH + 1]);

#endif
