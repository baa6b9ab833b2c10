/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzzes .gridignore: patterns, a zero byte, and a path to hold against them.
 */
#include "fuzz-target.h"

#include "publish/publish-ignore.h"

#include <string.h>

#define PATH_SIZE 4096u /* longer ones add time, not cases */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    AUTO(ignore_free) struct ignore *g = NULL;
    const uint8_t *zero = size ? memchr(data, '\0', size) : NULL;
    struct err err = ERR_INIT;

    if (!zero)
        return 0;
    const char *path = (const char *)zero + 1;
    size_t length = size - (size_t)(zero + 1 - data);
    if (length == 0 || length > PATH_SIZE || zero - data > (ptrdiff_t)PATH_SIZE)
        return 0;
    int r = ignore_parse(bytes_of(data, (size_t)(zero - data)), &g, &err);
    FUZZ_REQUIRE((r == 0) == (err.text[0] == '\0'));
    if (r < 0)
        return 0;
    /* What only directories can match, no file can. */
    bool file = ignore_matches(g, path, length, false);
    FUZZ_REQUIRE(file == ignore_matches(g, path, length, false));
    (void)ignore_matches(g, path, length, true);
    return 0;
}
