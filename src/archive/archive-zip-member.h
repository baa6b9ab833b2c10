/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One member's bytes, unpacked piece by piece and checked. Inside archive/ only.
 */
#ifndef ARCHIVE_ARCHIVE_ZIP_MEMBER_H
#define ARCHIVE_ARCHIVE_ZIP_MEMBER_H

#include "archive/archive-zip-directory.h"

struct inflate_state;

struct member_stream {
    const struct zip_member *m;  /* NULL: none is begun */
    struct inflate_state *state; /* owned; made when first needed */
    uint64_t file;               /* the part's number of it */
    uint64_t taken, made;        /* bytes of packed and unpacked data */
    uint32_t crc;
    bool finished; /* deflate says so */
};

int member_stream_begin(struct member_stream *s, const struct zip_member *m, uint64_t file);
void member_stream_release(struct member_stream *s);
/* Unpack from `in`, which advances, into `to`, up to `size`; *ret_size: how many came. Fewer than
 * `size` only when `in` is used up. -EBADMSG: the data is damaged. */
int member_stream_read(struct member_stream *s, struct bytes *in, uint8_t *to, size_t size,
                       size_t *ret_size);
/* All of the data was made, and `in` is what is left of the packed bytes: is it what the directory
 * says? -EBADMSG. */
int member_stream_end(struct member_stream *s, struct bytes in);

/* A whole member at once. `inflate` is a libdeflate decompressor. */
struct libdeflate_decompressor;
int member_unpack(struct libdeflate_decompressor *inflate, const struct zip_member *m,
                  const uint8_t *packed, uint8_t *to);

#endif
