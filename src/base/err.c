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
    char old[sizeof err->text];

    if (!err)
        return code;
    (void)snprintf(old, sizeof old, "%s", err_text(err, code));

    va_list args;
    va_start(args, format);
    int n = vsnprintf(err->text, sizeof err->text, format, args);
    va_end(args);
    if (n >= 0 && (size_t)n < sizeof err->text)
        (void)snprintf(err->text + n, sizeof err->text - (size_t)n, ": %s", old);
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
