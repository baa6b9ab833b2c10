/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Lower-case hexadecimal text of bytes, and back.
 */
#ifndef BASE_HEX_H
#define BASE_HEX_H

#include <stddef.h>

/* Writes 2*size digits and a NUL. */
void hex_encode(char *text, const void *data, size_t size);
/* Reads exactly 2*size lower-case digits of `text` (which may go on behind them). 0 or -EINVAL. */
int hex_decode(void *data, size_t size, const char *text);

#endif
