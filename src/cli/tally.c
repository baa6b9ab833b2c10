/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The tally as bytes, and the latencies in it. The sequence number stands at both ends: a reader
 * that meets a writer sees that they differ.
 */
#include "cli/tally.h"

#include "base/le.h"

#include <string.h>

#define TALLY_FORMAT 1u

static const char magic[8] = {'G', 'R', 'I', 'D', 'T', 'A', 'L', 'Y'};

void tally_encode(const struct tally *t, uint64_t sequence, uint8_t data[static TALLY_SIZE])
{
    memcpy(data, magic, sizeof magic);
    le32_put(data + 8, TALLY_FORMAT);
    le32_put(data + 12, TALLY_FIELDS);
    le64_put(data + 16, sequence);
    for (size_t i = 0; i < TALLY_FIELDS; i++)
        le64_put(data + TALLY_HEAD_SIZE + 8 * i, t->at[i]);
    le64_put(data + TALLY_HEAD_SIZE + 8 * TALLY_FIELDS, sequence);
}

int tally_decode(const uint8_t *data, size_t size, struct tally *ret)
{
    if (size != TALLY_SIZE || memcmp(data, magic, sizeof magic) != 0 ||
        le32_get(data + 8) != TALLY_FORMAT || le32_get(data + 12) != TALLY_FIELDS)
        return -EPROTO;
    if (le64_get(data + 16) != le64_get(data + TALLY_HEAD_SIZE + 8 * TALLY_FIELDS))
        return -EAGAIN;
    for (size_t i = 0; i < TALLY_FIELDS; i++) {
        uint64_t n = le64_get(data + TALLY_HEAD_SIZE + 8 * i);
        ret->at[i] = n <= INT64_MAX ? n : INT64_MAX; /* as JSON can say it */
    }
    return 0;
}

double tally_latency_ms(const struct tally *t, double part)
{
    double all = 0, sum = 0;

    for (size_t i = 0; i < FETCH_LATENCY_BUCKETS; i++)
        all += (double)t->at[TALLY_LATENCY + i];
    if (all < 1)
        return -1;
    for (size_t i = 0; i < FETCH_LATENCY_BUCKETS; i++) {
        sum += (double)t->at[TALLY_LATENCY + i];
        if (sum >= part * all) {
            /* Bucket i is half an octave from 2^(i/2) us on: its middle is 2^(1/4) above that. */
            double us = (double)(UINT64_C(1) << (i / 2)) * (i % 2 ? 1.41421356 : 1) * 1.18920712;
            return us / 1000;
        }
    }
    return -1;
}
