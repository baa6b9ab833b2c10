/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The words of a dump's lines: numbers, times, escaped bytes.
 *
 * Only the one spelling that index_dump() uses is taken, so that text which parses round-trips.
 */
#include "index/index-dump.h"

#include <errno.h>

#include "base/hex.h"

#define NANOSECONDS 9u /* digits */

bool dump_word_next(struct dump_words *words, struct bytes *ret)
{
    if (!words->at)
        return false;
    size_t left = (size_t)(words->end - words->at);
    const char *space = memchr(words->at, ' ', left);
    *ret = bytes_of(words->at, space ? (size_t)(space - words->at) : left);
    words->at = space ? space + 1 : NULL;
    return true;
}

bool dump_word_is(struct bytes word, const char *text)
{
    return word.size == strlen(text) && memcmp(word.data, text, word.size) == 0;
}

bool dump_number(struct bytes word, uint64_t max, uint64_t *ret)
{
    const char *p = word.data;
    uint64_t n = 0;
    if (word.size == 0 || (word.size > 1 && p[0] == '0'))
        return false;
    for (size_t i = 0; i < word.size; i++) {
        if (p[i] < '0' || p[i] > '9')
            return false;
        if (__builtin_mul_overflow(n, 10, &n) || __builtin_add_overflow(n, p[i] - '0', &n))
            return false;
    }
    if (n > max)
        return false;
    *ret = n;
    return true;
}

bool dump_mode(struct bytes word, uint16_t *ret)
{
    const char *p = word.data;
    uint16_t mode = 0;
    if (word.size != 4)
        return false;
    for (size_t i = 0; i < word.size; i++) {
        if (p[i] < '0' || p[i] > '7')
            return false;
        mode = (uint16_t)(mode << 3 | (p[i] - '0'));
    }
    *ret = mode;
    return true;
}

bool dump_time(struct bytes word, int64_t *ret_seconds, uint32_t *ret_ns)
{
    const char *p = word.data;
    if (word.size < NANOSECONDS + 2 || p[word.size - NANOSECONDS - 1] != '.')
        return false;
    bool negative = p[0] == '-';
    uint64_t seconds, limit = (uint64_t)INT64_MAX + negative;
    size_t digits = word.size - NANOSECONDS - 1 - negative;
    if (!dump_number(bytes_of(p + negative, digits), limit, &seconds) || (negative && seconds == 0))
        return false;
    uint32_t ns = 0;
    for (const char *d = p + word.size - NANOSECONDS; d < p + word.size; d++) {
        if (*d < '0' || *d > '9')
            return false;
        ns = ns * 10 + (uint32_t)(*d - '0');
    }
    *ret_seconds = (int64_t)(negative ? 0 - seconds : seconds);
    *ret_ns = ns;
    return true;
}

bool dump_is_plain(uint8_t byte)
{
    return byte > 0x20 && byte < 0x7f && byte != '\\' && byte != '=';
}

int dump_unescape(struct bytes word, struct buf *out)
{
    const char *p = word.data, *end = p + word.size;
    while (p < end) {
        const char *run = p;
        while (p < end && dump_is_plain((uint8_t)*p))
            p++;
        int r = p > run ? buf_append(out, run, (size_t)(p - run)) : 0;
        if (r < 0)
            return r;
        if (p == end)
            break;
        uint8_t byte;
        if (*p != '\\' || end - p < 4 || p[1] != 'x' || hex_decode(&byte, 1, p + 2) < 0 ||
            dump_is_plain(byte))
            return -EINVAL;
        r = buf_append(out, &byte, 1);
        if (r < 0)
            return r;
        p += 4;
    }
    return 0;
}

int dump_hex(struct bytes word, struct buf *out)
{
    uint8_t *to;
    if (word.size % 2)
        return -EINVAL;
    int r = word.size ? buf_extend(out, word.size / 2, &to) : 0;
    if (r == 0 && word.size)
        r = hex_decode(to, word.size / 2, word.data);
    return r;
}
