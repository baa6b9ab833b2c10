/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Deflate and CRC: whole members by libdeflate, the fastest there is if all of the input and the
 * room for all of the output are there; pieces of larger ones by ISA-L.
 */
#include "archive/archive-zip-member.h"

#include <errno.h>
#include <isa-l/igzip_lib.h>
#include <libdeflate.h>
#include <string.h>

int member_stream_begin(struct member_stream *s, const struct zip_member *m, uint64_t file)
{
    struct inflate_state *state = s->state;

    if (!state)
        state = malloc(sizeof *state);
    if (!state)
        return -ENOMEM;
    isal_inflate_init(state);
    state->crc_flag = ISAL_DEFLATE;
    *s = (struct member_stream){.m = m, .state = state, .file = file};
    s->finished = m->method == 0;
    return 0;
}

void member_stream_release(struct member_stream *s)
{
    free(s->state);
    s->state = NULL;
}

static void advance(struct member_stream *s, struct bytes *in, size_t size)
{
    in->data = (const uint8_t *)in->data + size;
    in->size -= size;
    s->taken += size;
}

static size_t copy_stored(struct member_stream *s, struct bytes *in, uint8_t *to, size_t size)
{
    size_t n = in->size < size ? in->size : size;

    if (n > 0)
        memcpy(to, in->data, n);
    advance(s, in, n);
    return n;
}

static int inflate(struct member_stream *s, struct bytes *in, uint8_t *to, size_t size,
                   size_t *ret_size)
{
    struct inflate_state *state = s->state;
    size_t in_size = in->size < UINT32_MAX ? in->size : UINT32_MAX;

    state->next_in = (uint8_t *)in->data; /* only read */
    state->avail_in = (uint32_t)in_size;
    state->next_out = to;
    state->avail_out = (uint32_t)size;
    int code = s->finished ? ISAL_DECOMP_OK : isal_inflate(state);
    if (code < 0)
        return -EBADMSG;
    s->finished = state->block_state == ISAL_BLOCK_FINISH;
    advance(s, in, in_size - state->avail_in);
    *ret_size = size - state->avail_out;
    return 0;
}

int member_stream_read(struct member_stream *s, struct bytes *in, uint8_t *to, size_t size,
                       size_t *ret_size)
{
    size_t done = 0, n = 0;

    while (done < size) {
        int r = 0;
        size_t before = in->size;
        if (s->m->method == 0)
            n = copy_stored(s, in, to + done, size - done);
        else
            r = inflate(s, in, to + done, size - done, &n);
        if (r < 0)
            return r;
        done += n;
        if (done < size && s->finished && s->m->method != 0)
            return -EBADMSG; /* it ends too early */
        if (n == 0 && before == in->size)
            break;
    }
    s->crc = libdeflate_crc32(s->crc, to, done);
    s->made += done;
    *ret_size = done;
    return 0;
}

int member_stream_end(struct member_stream *s, struct bytes in)
{
    uint8_t more;
    size_t n = 0;

    while (!s->finished && in.size > 0) {
        size_t before = in.size;
        int r = inflate(s, &in, &more, 1, &n);
        if (r < 0 || n > 0)
            return -EBADMSG;
        if (before == in.size && !s->finished)
            break;
    }
    if (!s->finished) { /* its last bits may be with the decoder already */
        int r = inflate(s, &in, &more, 1, &n);
        if (r < 0 || n > 0)
            return -EBADMSG;
    }
    /* Whole bytes that the decoder took, but are none of the stream's. */
    if (s->m->method != 0 && s->state->read_in_length >= 8)
        return -EBADMSG;
    return s->finished && in.size == 0 && s->taken == s->m->packed && s->made == s->m->size &&
                   s->crc == s->m->crc
               ? 0
               : -EBADMSG;
}

int member_unpack(struct libdeflate_decompressor *decompressor, const struct zip_member *m,
                  const uint8_t *packed, uint8_t *to)
{
    size_t used = 0, made = 0;

    if (m->method == 0) {
        if (m->size > 0)
            memcpy(to, packed, (size_t)m->size);
    } else if (libdeflate_deflate_decompress_ex(decompressor, packed, (size_t)m->packed, to,
                                                (size_t)m->size, &used,
                                                &made) != LIBDEFLATE_SUCCESS ||
               used != m->packed || made != m->size) {
        return -EBADMSG;
    }
    return libdeflate_crc32(0, to, (size_t)m->size) == m->crc ? 0 : -EBADMSG;
}
