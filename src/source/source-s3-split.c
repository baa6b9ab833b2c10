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

static bool *row_at(struct split_alphabet *a, size_t place)
{
    return a->seen[place < SPLIT_PLACES ? place : SPLIT_PLACES - 1];
}

/* Where a '0' was seen there will be other digits. */
static void learn_all(bool *row, char first, char last)
{
    if (row[(uint8_t)last] && row[(uint8_t)first])
        return;
    for (char c = first; c <= last; c++)
        row[(uint8_t)c] = true;
}

void split_learn(struct split_alphabet *a, const char *key)
{
    for (size_t i = 0; key[i]; i++) {
        bool *row = row_at(a, i);
        char c = key[i];
        if (c >= '0' && c <= '9')
            learn_all(row, '0', '9');
        else if (c >= 'a' && c <= 'f')
            learn_all(row, 'a', 'f');
        else if (c >= 'a' && c <= 'z')
            learn_all(row, 'a', 'z');
        else if (c >= 'A' && c <= 'Z')
            learn_all(row, 'A', 'Z');
        else if (c > 0)
            row[(uint8_t)c] = true;
    }
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

/* The middle one of the bytes that occur there in keys, above `low` and below `high`. */
static char middle_of(const struct split_alphabet *a, size_t place, int low, int high)
{
    const bool *row = a->seen[place < SPLIT_PLACES ? place : SPLIT_PLACES - 1];
    char found[LAST_CHAR + 1];
    size_t n = 0;

    for (int c = low + 1 > FIRST_CHAR ? low + 1 : FIRST_CHAR; c < high && c <= LAST_CHAR; c++) {
        if (row[c])
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
        c = middle_of(a, low, (uint8_t)at[low], (uint8_t)end[low]);
        if (c && make(at, low, c, end, ret))
            return true;
        low++; /* what is left begins with this byte, but for what lies just below the end */
    }
    if (r->varies >= low && r->varies < length) {
        c = middle_of(a, r->varies, (uint8_t)at[r->varies], LAST_CHAR + 1);
        if (c && make(at, r->varies, c, end, ret))
            return true;
        low = r->varies + 1;
    }
    if (low < r->common && cut_common(at, low, r->common, end, ret))
        return true;
    /* Further behind it would cut off less than a page. */
    for (size_t i = low > r->common ? low : r->common; i < length && i <= r->common + 1; i++) {
        c = middle_of(a, i, (uint8_t)at[i], LAST_CHAR + 1);
        if (c && make(at, i, c, end, ret))
            return true;
        if ((uint8_t)at[i] >= 0x80) /* what follows is inside of a character */
            return false;
    }
    return false;
}
