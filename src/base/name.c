/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a name may look like, and how one is derived from a source.
 */
#include "base/name.h"

#include <string.h>

static bool is_name_start(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
}

static bool is_name_char(char c)
{
    return is_name_start(c) || c == '.' || c == '_' || c == '-';
}

bool name_is_valid(const char *name)
{
    size_t n = strlen(name);

    if (n == 0 || n > NAME_MAX_LENGTH || !is_name_start(name[0]))
        return false;
    for (size_t i = 1; i < n; i++) {
        if (!is_name_char(name[i]))
            return false;
    }
    return true;
}

bool name_is_file_name(const char *name, size_t length)
{
    if (length == 0 || length > 255)
        return false;
    if (name[0] == '.' && (length == 1 || (length == 2 && name[1] == '.')))
        return false;
    return !memchr(name, '/', length) && !memchr(name, '\0', length);
}

/* The length of `text` without the archive suffix that ends it, if one does. */
static size_t without_suffix(const char *text, size_t length)
{
    static const char *const suffixes[] = {".tar.gz", ".tar.zst", ".tar.xz", ".tar.bz2",
                                           ".tgz",    ".tar",     ".zip"};

    for (size_t i = 0; i < sizeof suffixes / sizeof *suffixes; i++) {
        size_t n = strlen(suffixes[i]);
        if (length > n && strncasecmp(text + length - n, suffixes[i], n) == 0)
            return length - n;
    }
    return length;
}

bool name_derive(const char *source, bool is_url, char ret_name[static NAME_MAX_LENGTH + 1])
{
    size_t end = is_url ? strcspn(source, "?#") : strlen(source);
    size_t start, n = 0;

    while (end > 0 && source[end - 1] == '/')
        end--;
    for (start = end; start > 0 && source[start - 1] != '/'; start--)
        continue;
    if (is_url)
        end = start + without_suffix(source + start, end - start);

    for (size_t i = start; i < end; i++) {
        char c = source[i];
        if (c >= 'A' && c <= 'Z')
            c = (char)(c - 'A' + 'a');
        if (c == ' ' || (unsigned char)c >= 0x80)
            continue;
        if (n == NAME_MAX_LENGTH)
            return false;
        ret_name[n++] = c;
    }
    ret_name[n] = '\0';
    return name_is_valid(ret_name);
}
