/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Growable bytes with a maximum. Doubles its memory, so n appends cost O(n).
 */
#include "base/buf.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

void buf_init(struct buf *b, size_t max)
{
    *b = (struct buf){.max = max};
}

void buf_release(struct buf *b)
{
    free(b->data);
    *b = (struct buf){.max = b->max};
}

void buf_clear(struct buf *b)
{
    b->size = 0;
    if (b->data)
        b->data[0] = 0;
}

/* Make room for `more` bytes and the NUL behind them. */
static int buf_reserve(struct buf *b, size_t more)
{
    if (more > b->max || b->size > b->max - more)
        return -EFBIG;
    size_t need = b->size + more + 1;
    if (need <= b->capacity)
        return 0;
    size_t capacity = b->capacity ? b->capacity : 64;
    while (capacity < need)
        capacity *= 2;
    uint8_t *data = realloc(b->data, capacity);
    if (!data)
        return -ENOMEM;
    b->data = data;
    b->capacity = capacity;
    return 0;
}

int buf_append(struct buf *b, const void *data, size_t size)
{
    int r = buf_reserve(b, size);
    if (r < 0)
        return r;
    if (size)
        memcpy(b->data + b->size, data, size);
    b->size += size;
    b->data[b->size] = 0;
    return 0;
}

int buf_append_str(struct buf *b, const char *text)
{
    return buf_append(b, text, strlen(text));
}

int buf_printf(struct buf *b, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int n = vsnprintf(NULL, 0, format, args);
    va_end(args);
    if (n < 0)
        return -EINVAL;
    int r = buf_reserve(b, (size_t)n);
    if (r < 0)
        return r;
    va_start(args, format);
    (void)vsnprintf((char *)b->data + b->size, (size_t)n + 1, format, args);
    va_end(args);
    b->size += (size_t)n;
    return 0;
}

int buf_extend(struct buf *b, size_t size, uint8_t **ret)
{
    int r = buf_reserve(b, size);
    if (r < 0)
        return r;
    memset(b->data + b->size, 0, size + 1);
    *ret = b->data + b->size;
    b->size += size;
    return 0;
}
