/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where to cut a long range of keys of which only the beginning is known.
 *
 * Nobody tells how keys are spread. What those of a page have in common may be common to all
 * ("img_00") or not, so the cut goes behind half of that: is there anything at all beyond? Where
 * keys are known to differ in a byte, the cut goes through the middle of the bytes that occur in
 * keys. A cut that has nothing behind it costs one request, and teaches where the range ends. Pure,
 * so that it is tested alone.
 *
 * Only ASCII is cut: a server may refuse a key that is no UTF-8.
 */
#include "source/source-s3-internal.h"

#include <string.h>

#define FIRST_CHAR 0x21
#define LAST_CHAR  0x7e

void split_learn(struct split_alphabet *a, const char *key)
{
    for (; *key; key++)
        a->seen[(uint8_t)*key] = true;
}

static bool is_cuttable(char c)
{
    return c >= FIRST_CHAR && c <= LAST_CHAR;
}

/* `length` bytes of `at`, then `c`. */
static bool make(const char *at, size_t length, char c, const char *end,
                 char ret[static S3_KEY_MAX + 1])
{
    if (length >= S3_KEY_MAX)
        return false;
    memcpy(ret, at, length);
    ret[length] = c;
    ret[length + 1] = '\0';
    return strcmp(ret, at) > 0 && (!end || strcmp(ret, end) < 0);
}

/* The middle one of the bytes that occur in keys, above `low` and below `high`. */
static char middle_of(const struct split_alphabet *a, int low, int high)
{
    char found[LAST_CHAR + 1];
    size_t n = 0;

    for (int c = low + 1 > FIRST_CHAR ? low + 1 : FIRST_CHAR; c < high && c <= LAST_CHAR; c++) {
        if (a->seen[c])
            found[n++] = (char)c;
    }
    return n > 0 ? found[n / 2] : '\0';
}

static bool cut_common(const char *at, size_t low, size_t common, const char *end,
                       char ret[static S3_KEY_MAX + 1])
{
    size_t half = low + (common - low) / 2;

    for (size_t i = half; i < common; i++) {
        if (is_cuttable(at[i]) && at[i] < LAST_CHAR && make(at, i, (char)(at[i] + 1), end, ret))
            return true;
    }
    return false;
}

bool split_between(const struct split_alphabet *a, const struct split_range *r,
                   char ret[static S3_KEY_MAX + 1])
{
    const char *at = r->at, *end = r->end;
    size_t low = 0, length = strlen(at);
    char c = '\0';

    while (end && at[low] && at[low] == end[low])
        low++;
    if (end) {
        c = middle_of(a, (uint8_t)at[low], (uint8_t)end[low]);
        if (c && make(at, low, c, end, ret))
            return true;
        low++; /* what is left begins with this byte, but for what lies just below the end */
    }
    if (r->varies >= low && r->varies < length) {
        c = middle_of(a, (uint8_t)at[r->varies], LAST_CHAR + 1);
        if (c && make(at, r->varies, c, end, ret))
            return true;
        low = r->varies + 1;
    }
    if (low < r->common && cut_common(at, low, r->common, end, ret))
        return true;
    for (size_t i = low > r->common ? low : r->common; i < length; i++) {
        c = middle_of(a, (uint8_t)at[i], LAST_CHAR + 1);
        if (c && make(at, i, c, end, ret))
            return true;
        if ((uint8_t)at[i] >= 0x80) /* what follows is inside of a character */
            return false;
    }
    return false;
}
