/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The real world behind struct env. The simulated one lives with the tests (tests/sim).
 */
#include "base/env.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/random.h>
#include <time.h>

static int64_t clock_ms(clockid_t id)
{
    struct timespec t;

    (void)clock_gettime(id, &t); /* cannot fail for these two clocks */
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static int64_t real_wall_ms(struct env *env)
{
    return clock_ms(CLOCK_REALTIME);
}

static int64_t real_boot_ms(struct env *env)
{
    return clock_ms(CLOCK_BOOTTIME);
}

static void real_random(struct env *env, void *data, size_t size)
{
    unsigned char *p = data;

    while (size > 0) {
        ssize_t n = getrandom(p, size, 0);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            abort(); /* ids that repeat would lose data */
        p += n;
        size -= (size_t)n;
    }
}

static void real_sleep_ms(struct env *env, int64_t ms)
{
    struct timespec t = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};

    while (nanosleep(&t, &t) < 0 && errno == EINTR)
        continue;
}

struct env *env_real(void)
{
    static struct env real = {
        .wall_ms = real_wall_ms,
        .boot_ms = real_boot_ms,
        .random = real_random,
        .sleep_ms = real_sleep_ms,
    };
    return &real;
}
