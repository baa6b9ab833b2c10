/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How a server shall read: the options that `mount` and `run` share.
 */
#include "cli/mode.h"

#include <stdlib.h>
#include <string.h>

/* What a server needs beside its data, and the least that a fetch takes. */
#define MEMORY_MIN (UINT64_C(64) << 20)
/* More than any machine has. */
#define MEMORY_MAX (UINT64_C(1) << 40)
/* Shorter than a few attempts, a single lost packet would be an error; longer than a day is never.
 */
#define IO_TIMEOUT_MIN_S     1u
#define IO_TIMEOUT_MAX_S     86400u
#define IO_TIMEOUT_DEFAULT_S 600u

/* "90", "90s", "10m", "1h" as seconds. */
static int parse_seconds(const char *text, uint64_t *ret)
{
    char *end;
    uint64_t unit = 1;

    if (*text < '0' || *text > '9')
        return -EINVAL;
    errno = 0;
    unsigned long long n = strtoull(text, &end, 10);
    if (errno || n > IO_TIMEOUT_MAX_S)
        return -EINVAL;
    if (strcmp(end, "m") == 0)
        unit = 60;
    else if (strcmp(end, "h") == 0)
        unit = 3600;
    else if (*end && strcmp(end, "s") != 0)
        return -EINVAL;
    *ret = n * unit;
    return *ret < IO_TIMEOUT_MIN_S || *ret > IO_TIMEOUT_MAX_S ? -EINVAL : 0;
}

static int parse_prefetch(const char *text, enum fetch_prefetch *ret)
{
    static const char *const names[] = {[FETCH_PREFETCH_NONE] = "none",
                                        [FETCH_PREFETCH_ADAPTIVE] = "adaptive",
                                        [FETCH_PREFETCH_ALL] = "all"};

    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (strcmp(text, names[i]) == 0) {
            *ret = (enum fetch_prefetch)i;
            return 0;
        }
    }
    return -EINVAL;
}

int reading_options(const struct cli *cli, const struct args *args, struct reading *ret)
{
    const char *memory = args_text(args, "--memory"), *timeout = args_text(args, "--io-timeout"),
               *prefetch = args_text(args, "--prefetch");
    uint64_t bytes = FETCH_MEMORY_DEFAULT, seconds = IO_TIMEOUT_DEFAULT_S;
    enum fetch_prefetch what = FETCH_PREFETCH_ADAPTIVE;
    enum mode mode = MODE_AUTO;
    struct cache_place cache;
    int code = mode_option(args, &mode);

    if (code == CLI_DONE)
        code = cache_place_choose(cli, args, &cache);

    if (code != CLI_DONE)
        return code;

    if (memory && (parse_bytes(memory, &bytes) < 0 || bytes < MEMORY_MIN || bytes > MEMORY_MAX))
        return say_usage(args->command, "--memory is a size from 64M to 1T, not '%s'", memory);
    if (timeout && parse_seconds(timeout, &seconds) < 0)
        return say_usage(args->command, "--io-timeout is a time from 1s to 24h, not '%s'", timeout);
    if (prefetch && parse_prefetch(prefetch, &what) < 0)
        return say_usage(args->command, "--prefetch is none, adaptive or all, not '%s'", prefetch);
    *ret = (struct reading){.mode = mode,
                            .memory_bytes = bytes,
                            .io_timeout_ms = (int64_t)seconds * 1000,
                            .prefetch = what,
                            .cache = cache};
    return CLI_DONE;
}
