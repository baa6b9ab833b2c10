/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a server counts, for `grid datastore stats`: a row of numbers in a small file, written once
 * a second if anything changed, so it costs a request nothing. A server that is started again goes
 * on where the one before stopped.
 */
#ifndef CLI_TALLY_H
#define CLI_TALLY_H

#include "cli/cli-internal.h"

/* The order is that of docs/formats/tally.md. Counters first, then what is so just now. */
enum tally_field {
    TALLY_HITS,
    TALLY_MISSES,
    TALLY_BYTES_MEMORY,
    TALLY_BYTES_CACHE,
    TALLY_BYTES_STORE,
    TALLY_GETS,
    TALLY_RETRIES,
    TALLY_DAMAGED,
    TALLY_DAMAGED_CACHE,
    TALLY_STALLS,
    TALLY_STALL_NS,
    TALLY_AHEAD_BYTES,
    TALLY_AHEAD_UNUSED,
    TALLY_CACHE_REFUSED,
    TALLY_LATENCY,
    TALLY_COUNTERS = TALLY_LATENCY + FETCH_LATENCY_BUCKETS,
    TALLY_RESTARTS = TALLY_COUNTERS,
    TALLY_MEMORY_BYTES,
    TALLY_MEMORY_LIMIT,
    TALLY_WAITING,
    TALLY_STORE_ERROR, /* errno; 0: it answers */
    TALLY_HAS_CACHE,
    TALLY_CACHE_ERROR, /* errno; 0: it is well */
    TALLY_UPDATED_MS,
    TALLY_FIELDS
};
_Static_assert(TALLY_FIELDS == 70, "docs/formats/tally.md says so");

struct tally {
    uint64_t at[TALLY_FIELDS];
};

#define TALLY_HEAD_SIZE 24u
#define TALLY_SIZE      (TALLY_HEAD_SIZE + 8u * TALLY_FIELDS + 8u)
void tally_encode(const struct tally *t, uint64_t sequence, uint8_t data[static TALLY_SIZE]);
/* 0; -EPROTO: no tally; -EAGAIN: it is being written. */
int tally_decode(const uint8_t *data, size_t size, struct tally *ret);
/* Milliseconds within which a share `part` (of 1) of the gets were answered; < 0: there were none.
 */
double tally_latency_ms(const struct tally *t, double part);

/* Counts what `o` does, in a thread, and logs what changes its state. Never fails a server: NULL.
 */
struct tally_keeper;
struct tally_keeper *tally_keep(struct opened *o, pid_t owner);
void tally_keeper_free(struct tally_keeper *k);
AUTO_FREE_FUNC(struct tally_keeper, tally_keeper_free);

#endif
