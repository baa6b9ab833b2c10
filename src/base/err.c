/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The sentence that goes with an error code. No allocation, so that -ENOMEM can be told too.
 */
#include "base/err.h"

#include <stdio.h>
#include <string.h>

int err_fail(struct err *err, int code, const char *format, ...)
{
    if (err && !err->text[0]) {
        va_list args;
        va_start(args, format);
        (void)vsnprintf(err->text, sizeof err->text, format, args);
        va_end(args);
    }
    return code;
}

int err_prefix(struct err *err, int code, const char *format, ...)
{
    char head[sizeof err->text];

    if (!err)
        return code;
    va_list args;
    va_start(args, format);
    int n = vsnprintf(head, sizeof head - 2, format, args);
    va_end(args);
    if (n < 0)
        return code;
    size_t length = strlen(head), room = sizeof err->text - 1;
    const char *tail = err_text(err, code);
    size_t tail_length = strlen(tail);

    /* The cause stands behind the prefix; what does not fit is cut at its end. */
    head[length++] = ':';
    head[length++] = ' ';
    if (tail_length > room - length)
        tail_length = room - length;
    memmove(err->text + length, tail, tail_length);
    memcpy(err->text, head, length);
    err->text[length + tail_length] = '\0';
    return code;
}

const char *err_text(const struct err *err, int code)
{
    if (err && err->text[0])
        return err->text;
    return strerror(code < 0 ? -code : code);
}

void err_clear(struct err *err)
{
    if (err)
        err->text[0] = '\0';
}
