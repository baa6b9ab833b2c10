/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Hexadecimal, lower case only: one text for one value, since keys are compared as text.
 */
#include "base/hex.h"

#include <errno.h>
#include <stdint.h>

void hex_encode(char *text, const void *data, size_t size)
{
    static const char digits[] = "0123456789abcdef";
    const uint8_t *p = data;

    for (size_t i = 0; i < size; i++) {
        *text++ = digits[p[i] >> 4];
        *text++ = digits[p[i] & 15];
    }
    *text = '\0';
}

static int hex_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return -1;
}

int hex_decode(void *data, size_t size, const char *text)
{
    uint8_t *p = data;

    for (size_t i = 0; i < size; i++) {
        int high = hex_value(text[2 * i]);
        int low = high < 0 ? -1 : hex_value(text[2 * i + 1]);
        if (low < 0)
            return -EINVAL;
        p[i] = (uint8_t)(high << 4 | low);
    }
    return 0;
}
