/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Figures of servers: as bytes and back, damaged or half written, and the latencies in them.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "cli/tally.h"

#include <string.h>

static void test_round_trip(void **state)
{
    struct tally t, u;
    uint8_t data[TALLY_SIZE];

    for (size_t i = 0; i < TALLY_FIELDS; i++)
        t.at[i] = i * 1000003u;
    tally_encode(&t, 7, data);
    assert_int_equal(tally_decode(data, sizeof data, &u), 0);
    assert_memory_equal(&t, &u, sizeof t);
    for (size_t i = 0; i < sizeof data; i++)
        assert_int_equal(tally_decode(data, i, &u), -EPROTO);
    for (size_t i = 0; i < 16; i++) { /* letters, format, number of fields */
        data[i] ^= 1;
        assert_int_equal(tally_decode(data, sizeof data, &u), -EPROTO);
        data[i] ^= 1;
    }
    data[16] ^= 1; /* one end of it is of another second */
    assert_int_equal(tally_decode(data, sizeof data, &u), -EAGAIN);
    data[16] ^= 1;
    memset(data + TALLY_HEAD_SIZE, 0xff, 8); /* more than JSON can say */
    assert_int_equal(tally_decode(data, sizeof data, &u), 0);
    assert_true(u.at[0] == INT64_MAX);
}

static void test_latency(void **state)
{
    struct tally t = {.at = {0}};

    assert_true(tally_latency_ms(&t, 0.5) < 0);
    t.at[TALLY_LATENCY + 28] = 98; /* 2^14 us: 16 to 23 ms */
    t.at[TALLY_LATENCY + 40] = 2;  /* 2^20 us: 1.0 to 1.5 s */
    double median = tally_latency_ms(&t, 0.5), most = tally_latency_ms(&t, 0.99);
    assert_true(median >= 16.384 && median < 23.2);
    assert_true(most >= 1048.5 && most < 1482.9);
    assert_true(tally_latency_ms(&t, 0.98) == median);
    t.at[TALLY_LATENCY + FETCH_LATENCY_BUCKETS - 1] = 1000;
    assert_true(tally_latency_ms(&t, 1.0) > most);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_latency),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
