/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sixteen SHA-256 at once, in the lanes of AVX-512: each word of the algorithm is a vector with
 * that word of all sixteen. Pieces are whole blocks and of one size, so that all lanes end
 * together.
 */
#include "base/digest-internal.h"

#if defined(__x86_64__)

#include <immintrin.h>

#define BLOCK  64u
#define TARGET __attribute__((target("avx512f,avx512bw")))

struct lanes {
    __m512i word[8];
};

bool digest_has_wide(void)
{
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw");
}

/* One block of each lane, turned so that w[i] has word i of all of them. */
TARGET static inline void load_words(const uint8_t *const *from, size_t offset,
                                     __m512i w[static 16])
{
    const __m512i big_endian =
        _mm512_broadcast_i32x4(_mm_set_epi64x(0x0c0d0e0f08090a0b, 0x0405060700010203));
    __m512i a[16], b[16];

    for (unsigned i = 0; i < 16; i++) {
        a[i] = _mm512_loadu_si512(from[i] + offset);
        a[i] = _mm512_shuffle_epi8(a[i], big_endian);
    }
    for (unsigned i = 0; i < 16; i += 2) { /* pairs of rows */
        b[i] = _mm512_unpacklo_epi32(a[i], a[i + 1]);
        b[i + 1] = _mm512_unpackhi_epi32(a[i], a[i + 1]);
    }
    for (unsigned i = 0; i < 16; i += 4) { /* fours of rows */
        a[i] = _mm512_unpacklo_epi64(b[i], b[i + 2]);
        a[i + 1] = _mm512_unpackhi_epi64(b[i], b[i + 2]);
        a[i + 2] = _mm512_unpacklo_epi64(b[i + 1], b[i + 3]);
        a[i + 3] = _mm512_unpackhi_epi64(b[i + 1], b[i + 3]);
    }
    for (unsigned i = 0; i < 4; i++) { /* all rows */
        __m512i low_0 = _mm512_shuffle_i32x4(a[i], a[4 + i], 0x44);
        __m512i low_1 = _mm512_shuffle_i32x4(a[8 + i], a[12 + i], 0x44);
        __m512i high_0 = _mm512_shuffle_i32x4(a[i], a[4 + i], 0xee);
        __m512i high_1 = _mm512_shuffle_i32x4(a[8 + i], a[12 + i], 0xee);
        w[i] = _mm512_shuffle_i32x4(low_0, low_1, 0x88);
        w[4 + i] = _mm512_shuffle_i32x4(low_0, low_1, 0xdd);
        w[8 + i] = _mm512_shuffle_i32x4(high_0, high_1, 0x88);
        w[12 + i] = _mm512_shuffle_i32x4(high_0, high_1, 0xdd);
    }
}

#define ADD(x, y)     _mm512_add_epi32((x), (y))
#define ROR(x, n)     _mm512_ror_epi32((x), (n))
#define XOR(x, y, z)  _mm512_ternarylogic_epi32((x), (y), (z), 0x96)
#define PICK(x, y, z) _mm512_ternarylogic_epi32((x), (y), (z), 0xca) /* x ? y : z */
#define MOST(x, y, z) _mm512_ternarylogic_epi32((x), (y), (z), 0xe8)

/* Word t of the schedule, t >= 16, in the place of word t - 16. */
TARGET static inline void next_word(__m512i w[static 16], unsigned t)
{
    __m512i early = w[(t + 1) % 16], late = w[(t + 14) % 16];
    __m512i s0 = XOR(ROR(early, 7), ROR(early, 18), _mm512_srli_epi32(early, 3));
    __m512i s1 = XOR(ROR(late, 17), ROR(late, 19), _mm512_srli_epi32(late, 10));

    w[t % 16] = ADD(ADD(w[t % 16], s0), ADD(w[(t + 9) % 16], s1));
}

TARGET static inline void add_block(struct lanes *l, __m512i w[static 16])
{
    __m512i s[8];

    for (unsigned i = 0; i < 8; i++)
        s[i] = l->word[i];
#pragma GCC unroll 64
    for (unsigned t = 0; t < 64; t++) {
        /* The eight go round instead of moving: a is s[-t], b is s[1 - t], ... */
        unsigned a = (64 - t) % 8, b = (65 - t) % 8, c = (66 - t) % 8, d = (67 - t) % 8;
        unsigned e = (68 - t) % 8, f = (69 - t) % 8, g = (70 - t) % 8, h = (71 - t) % 8;
        if (t >= 16)
            next_word(w, t);
        __m512i k = ADD(_mm512_set1_epi32((int)digest_round_constants[t]), w[t % 16]);
        __m512i t1 = ADD(ADD(s[h], k), PICK(s[e], s[f], s[g]));
        t1 = ADD(t1, XOR(ROR(s[e], 6), ROR(s[e], 11), ROR(s[e], 25)));
        __m512i t2 = ADD(XOR(ROR(s[a], 2), ROR(s[a], 13), ROR(s[a], 22)), MOST(s[a], s[b], s[c]));
        s[d] = ADD(s[d], t1);
        s[h] = ADD(t1, t2);
    }
    for (unsigned i = 0; i < 8; i++)
        l->word[i] = ADD(l->word[i], s[i]);
}

TARGET static void lanes_end(struct lanes *l, size_t size, size_t count, struct digest *ret)
{
    uint64_t bits = (uint64_t)size * 8;
    uint32_t words[16];
    __m512i w[16];

    for (unsigned i = 0; i < 16; i++)
        w[i] = _mm512_setzero_si512();
    w[0] = _mm512_set1_epi32((int)0x80000000);
    w[14] = _mm512_set1_epi32((int)(bits >> 32));
    w[15] = _mm512_set1_epi32((int)(uint32_t)bits);
    add_block(l, w);
    for (unsigned i = 0; i < 8; i++) {
        _mm512_storeu_si512(words, l->word[i]);
        for (size_t k = 0; k < count; k++) {
            uint32_t word = __builtin_bswap32(words[k]);
            memcpy(ret[k].byte + (size_t)4 * i, &word, sizeof word);
        }
    }
}

TARGET void digest_wide(const void *data, size_t size, size_t count, struct digest *ret)
{
    const uint8_t *from[DIGEST_WIDE];
    struct lanes l;
    __m512i w[16];

    for (size_t i = 0; i < DIGEST_WIDE; i++) /* lanes without a piece do the first one's */
        from[i] = (const uint8_t *)data + (i < count ? i : 0) * size;
    for (unsigned i = 0; i < 8; i++)
        l.word[i] = _mm512_set1_epi32((int)digest_first_state[i]);
    for (size_t at = 0; at < size; at += BLOCK) {
        load_words(from, at, w);
        add_block(&l, w);
    }
    lanes_end(&l, size, count, ret);
}

#else

bool digest_has_wide(void)
{
    return false;
}

void digest_wide(const void *data, size_t size, size_t count, struct digest *ret)
{
    for (size_t i = 0; i < count; i++)
        ret[i] = digest_of((const uint8_t *)data + i * size, size);
}

#endif
