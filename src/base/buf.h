/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A growable run of bytes with a hard maximum, and `struct bytes`, a borrowed view of some.
 *
 * Life: buf_init() (or = BUF_INIT(max)), appends, buf_release(). After an append failed with
 * -ENOMEM or -EFBIG the content is what it was before. A buf always has room for a NUL behind its
 * content, and that byte is NUL, so text built in a buf is a C string. Threads: one at a time.
 */
#ifndef BASE_BUF_H
#define BASE_BUF_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* Borrowed bytes: whoever made the view says for how long it is valid. */
struct bytes {
    const void *data;
    size_t size;
};

static inline struct bytes bytes_of(const void *data, size_t size)
{
    return (struct bytes){data, size};
}

static inline struct bytes bytes_str(const char *text)
{
    return (struct bytes){text, strlen(text)};
}

struct buf {
    uint8_t *data; /* owned; NULL while empty */
    size_t size;
    size_t capacity;
    size_t max; /* content never exceeds this */
};

#define BUF_INIT(maximum)                                                                          \
    {                                                                                              \
        .max = (maximum)                                                                           \
    }

void buf_init(struct buf *b, size_t max);
void buf_release(struct buf *b);
void buf_clear(struct buf *b); /* keeps the memory */

/* 0, -ENOMEM, or -EFBIG beyond `max`. */
int buf_append(struct buf *b, const void *data, size_t size);
int buf_append_str(struct buf *b, const char *text);
int buf_printf(struct buf *b, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Append `size` zero bytes and give their place in *ret (valid until the next append). */
int buf_extend(struct buf *b, size_t size, uint8_t **ret);

static inline struct bytes buf_bytes(const struct buf *b)
{
    return (struct bytes){b->data, b->size};
}

static inline const char *buf_text(const struct buf *b)
{
    return b->data ? (const char *)b->data : "";
}

static inline void auto_buf_release(struct buf *b)
{
    buf_release(b);
}

#endif
