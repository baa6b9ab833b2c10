/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The world outside a deterministic function: clocks, randomness, sleep.
 *
 * Protocol code (catalogue, store-retry) takes a `struct env *` and calls nothing else for these,
 * so that the simulator can run many actors on one thread, by seed. env_real() is the real world.
 * Threads: the real one may be used by any number.
 */
#ifndef BASE_ENV_H
#define BASE_ENV_H

#include <stddef.h>
#include <stdint.h>

struct env {
    /* Milliseconds since 1970 (UTC). For display and records; never for safety. */
    int64_t (*wall_ms)(struct env *env);
    /* Milliseconds on a clock that counts suspend (CLOCK_BOOTTIME). For deadlines. */
    int64_t (*boot_ms)(struct env *env);
    /* Unpredictable bytes. Cannot fail (aborts if the kernel has none). */
    void (*random)(struct env *env, void *data, size_t size);
    void (*sleep_ms)(struct env *env, int64_t ms);
    void *ctx;
};

struct env *env_real(void);

#endif
