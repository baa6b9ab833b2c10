/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two SHA-256 at once, on x86's SHA instructions.
 *
 * Each of these instructions waits for the one before, so that one digest keeps the CPU's unit for
 * them busy half of the time; two that take turns cost little more than one. What is published is
 * digested in pieces of one size, so there is nearly always a second one. Machines without the
 * instructions, and single digests, use libcrypto.
 */
#include "base/digest-internal.h"

#if defined(__x86_64__)

#include <cpuid.h>
#include <immintrin.h>

#define BLOCK  64u
#define TARGET __attribute__((target("sha,sse4.1,ssse3")))

const uint32_t digest_round_constants[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};

const uint32_t digest_first_state[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                        0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};

/* One digest on its way. The instructions want the eight words as ABEF and CDGH. */
struct lane {
    __m128i abef, cdgh;
    __m128i words[4]; /* the schedule's last sixteen */
};

TARGET static inline void lane_start(struct lane *l)
{
    l->abef = _mm_set_epi32((int)digest_first_state[0], (int)digest_first_state[1],
                            (int)digest_first_state[4], (int)digest_first_state[5]);
    l->cdgh = _mm_set_epi32((int)digest_first_state[2], (int)digest_first_state[3],
                            (int)digest_first_state[6], (int)digest_first_state[7]);
}

/* Words 4i to 4i+3 of the schedule: the block's own, then what follows from the last sixteen. */
TARGET static inline __m128i lane_words(struct lane *l, const uint8_t *block, unsigned i)
{
    const __m128i big_endian = _mm_set_epi64x(0x0c0d0e0f08090a0b, 0x0405060700010203);
    __m128i w;

    if (i < 4) {
        w = _mm_loadu_si128((const __m128i *)(const void *)(block + (size_t)16 * i));
        w = _mm_shuffle_epi8(w, big_endian);
    } else {
        __m128i before = l->words[(i + 3) % 4];
        w = _mm_sha256msg1_epu32(l->words[i % 4], l->words[(i + 1) % 4]);
        w = _mm_add_epi32(w, _mm_alignr_epi8(before, l->words[(i + 2) % 4], 4));
        w = _mm_sha256msg2_epu32(w, before);
    }
    l->words[i % 4] = w;
    return w;
}

TARGET static inline void lane_rounds(struct lane *l, __m128i words_and_constants)
{
    l->cdgh = _mm_sha256rnds2_epu32(l->cdgh, l->abef, words_and_constants);
    l->abef = _mm_sha256rnds2_epu32(l->abef, l->cdgh, _mm_shuffle_epi32(words_and_constants, 0x0e));
}

TARGET static void lanes_add(struct lane *a, struct lane *b, const uint8_t *from_a,
                             const uint8_t *from_b, size_t blocks)
{
    struct lane x = *a, y = *b;

    for (; blocks > 0; blocks--, from_a += BLOCK, from_b += BLOCK) {
        __m128i x_abef = x.abef, x_cdgh = x.cdgh, y_abef = y.abef, y_cdgh = y.cdgh;
#pragma GCC unroll 16
        for (unsigned i = 0; i < 16; i++) {
            __m128i k = _mm_loadu_si128(
                (const __m128i *)(const void *)(digest_round_constants + (size_t)4 * i));
            __m128i x_words = _mm_add_epi32(lane_words(&x, from_a, i), k);
            __m128i y_words = _mm_add_epi32(lane_words(&y, from_b, i), k);
            lane_rounds(&x, x_words);
            lane_rounds(&y, y_words);
        }
        x.abef = _mm_add_epi32(x.abef, x_abef);
        x.cdgh = _mm_add_epi32(x.cdgh, x_cdgh);
        y.abef = _mm_add_epi32(y.abef, y_abef);
        y.cdgh = _mm_add_epi32(y.cdgh, y_cdgh);
    }
    *a = x;
    *b = y;
}

static void put_big_endian(uint8_t *at, uint32_t v)
{
    for (unsigned i = 0; i < 4; i++)
        at[i] = (uint8_t)(v >> (24 - 8 * i));
}

TARGET static void lane_end(const struct lane *l, struct digest *ret)
{
    uint32_t abef[4], cdgh[4]; /* the last of each comes first */

    _mm_storeu_si128((__m128i *)(void *)abef, l->abef);
    _mm_storeu_si128((__m128i *)(void *)cdgh, l->cdgh);
    for (unsigned i = 0; i < 2; i++) {
        put_big_endian(ret->byte + (size_t)4 * i, abef[3 - i]);
        put_big_endian(ret->byte + 8 + (size_t)4 * i, cdgh[3 - i]);
        put_big_endian(ret->byte + 16 + (size_t)4 * i, abef[1 - i]);
        put_big_endian(ret->byte + 24 + (size_t)4 * i, cdgh[1 - i]);
    }
}

/* What is left behind the last whole block, a one bit, zeros, and the length in bits. */
static size_t make_tail(const uint8_t *data, size_t size, uint8_t tail[static 2 * BLOCK])
{
    size_t rest = size % BLOCK, length = rest + 9 > BLOCK ? 2 * BLOCK : BLOCK;
    uint64_t bits = (uint64_t)size * 8;

    memset(tail, 0, length);
    memcpy(tail, data + (size - rest), rest);
    tail[rest] = 0x80;
    put_big_endian(tail + length - 8, (uint32_t)(bits >> 32));
    put_big_endian(tail + length - 4, (uint32_t)bits);
    return length;
}

bool digest_has_pairs(void)
{
    unsigned a, b, c, d;

    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_SSE4_1) || !(c & bit_SSSE3))
        return false;
    return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (b & bit_SHA);
}

TARGET void digest_pair(const void *a, const void *b, size_t size, struct digest ret[static 2])
{
    uint8_t tail_a[2 * BLOCK], tail_b[2 * BLOCK];
    struct lane x, y;

    lane_start(&x);
    lane_start(&y);
    lanes_add(&x, &y, a, b, size / BLOCK);
    size_t length = make_tail(a, size, tail_a);
    (void)make_tail(b, size, tail_b); /* as long */
    lanes_add(&x, &y, tail_a, tail_b, length / BLOCK);
    lane_end(&x, &ret[0]);
    lane_end(&y, &ret[1]);
}

#else

bool digest_has_pairs(void)
{
    return false;
}

void digest_pair(const void *a, const void *b, size_t size, struct digest ret[static 2])
{
    ret[0] = digest_of(a, size);
    ret[1] = digest_of(b, size);
}

#endif
