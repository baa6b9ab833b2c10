/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which key is which file: the table of docs/sources.md, "Keys and names".
 *
 * A key is a path if all of its names are names of files: then it is taken byte for byte, whatever
 * else stands in it. Nothing is rewritten, since two keys could become one file; what cannot be
 * held is left out and told. Keys that only stand in each other's way are found in rows_settle().
 */
#include "source/source-s3-internal.h"

#include <string.h>

#define NAME_BYTES_MAX 255u

enum key_kind key_kind(const char *path, uint64_t size)
{
    if (!*path) /* the prefix itself, as a marker */
        return size > 0 ? KEY_DIRECTORY_DATA : KEY_DIRECTORY;
    for (const char *name = path;;) {
        size_t n = strcspn(name, "/");
        if (n == 0)
            return KEY_EMPTY_NAME;
        if (name[0] == '.' && (n == 1 || (n == 2 && name[1] == '.')))
            return KEY_DOT_NAME;
        if (n > NAME_BYTES_MAX)
            return KEY_LONG_NAME;
        if (!name[n])
            return KEY_FILE;
        name += n + 1;
        if (!*name)
            return size > 0 ? KEY_DIRECTORY_DATA : KEY_DIRECTORY;
    }
}

const char *key_why(enum key_kind kind)
{
    static const char *const why[KEY_KINDS] = {
        [KEY_DIRECTORY_DATA] = "it ends in '/', which makes it a directory, but has data",
        [KEY_EMPTY_NAME] = "it has an empty name: two '/' in a row, or one in front",
        [KEY_DOT_NAME] = "it has a '.' or '..' between its slashes",
        [KEY_LONG_NAME] = "it has a name of more than 255 bytes",
        [KEY_BELOW_FILE] = "it marks an empty directory that has the name of a file",
        [KEY_IS_DIRECTORY] = "there are files below it, so its name is a directory's",
    };

    return kind < KEY_KINDS && why[kind] ? why[kind] : "";
}
