/* SPDX-License-Identifier: Apache-2.0 */
/*
 * SHA-256, the one digest of all formats. The only place that names the digest library.
 *
 * Threads: any number; a struct digest_stream belongs to one at a time.
 */
#ifndef BASE_DIGEST_H
#define BASE_DIGEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define DIGEST_SIZE     32
#define DIGEST_HEX_SIZE (2 * DIGEST_SIZE + 1)

struct digest {
    uint8_t byte[DIGEST_SIZE];
};

/* Cannot fail: the digest needs no memory of its own once the first call was made. */
struct digest digest_of(const void *data, size_t size);

/* Of two pieces of one size, in less time than one after the other. */
void digest_of_two(const void *a, const void *b, size_t size, struct digest ret[static 2]);

/* Of pieces of one size that lie in a row. */
void digest_of_many(const void *data, size_t size, size_t count, struct digest *ret);

static inline bool digest_equal(const struct digest *a, const struct digest *b)
{
    return memcmp(a->byte, b->byte, DIGEST_SIZE) == 0;
}

void digest_to_hex(const struct digest *d, char text[static DIGEST_HEX_SIZE]);
int digest_from_hex(struct digest *ret, const char *text); /* 0 or -EINVAL; 64 digits, then NUL */

/* For what does not lie in one piece. */
struct digest_stream;
struct digest_stream *digest_stream_new(void); /* NULL: no memory */
void digest_stream_free(struct digest_stream *s);
void digest_stream_add(struct digest_stream *s, const void *data, size_t size);
/* Gives the digest of all that was added, and starts anew. */
struct digest digest_stream_finish(struct digest_stream *s);

#endif
