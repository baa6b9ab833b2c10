/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Numbers and times as people read them.
 */
#include "cli/cli-internal.h"

#include <inttypes.h>
#include <string.h>
#include <time.h>

const char *figure_count(uint64_t n, char ret[static FIGURE_MAX])
{
    char digits[24];
    int length = snprintf(digits, sizeof digits, "%" PRIu64, n);
    size_t out = 0;

    for (int i = 0; i < length; i++) {
        if (i > 0 && (length - i) % 3 == 0)
            ret[out++] = ',';
        ret[out++] = digits[i];
    }
    ret[out] = '\0';
    return ret;
}

const char *figure_things(uint64_t n, const char *thing, char ret[static FIGURE_MAX])
{
    (void)figure_count(n, ret);
    size_t length = strlen(ret);
    (void)snprintf(ret + length, FIGURE_MAX - length, " %s%s", thing, n == 1 ? "" : "s");
    return ret;
}

const char *figure_bytes(uint64_t n, char ret[static FIGURE_MAX])
{
    static const char *const units[] = {"", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    double value = (double)n;
    size_t unit = 0;

    /* 1023.95 would be shown as 1024.0 */
    while (value >= 1023.95 && unit + 1 < sizeof units / sizeof *units) {
        value /= 1024;
        unit++;
    }
    if (unit == 0)
        return figure_things(n, "byte", ret);
    (void)snprintf(ret, FIGURE_MAX, "%.1f %s", value, units[unit]);
    return ret;
}

const char *figure_seconds(uint64_t s, char ret[static FIGURE_MAX])
{
    if (s >= 3600)
        (void)snprintf(ret, FIGURE_MAX, "%" PRIu64 ":%02u:%02u", s / 3600, (unsigned)(s / 60 % 60),
                       (unsigned)(s % 60));
    else
        (void)snprintf(ret, FIGURE_MAX, "%u:%02u", (unsigned)(s / 60), (unsigned)(s % 60));
    return ret;
}

/* Floor, since times before 1970 are negative. */
static time_t seconds_of(int64_t ms)
{
    return (time_t)(ms / 1000 - (ms % 1000 < 0));
}

const char *figure_local_time(int64_t ms, char ret[static FIGURE_MAX])
{
    time_t s = seconds_of(ms);
    struct tm tm;

    if (!localtime_r(&s, &tm) || strftime(ret, FIGURE_MAX, "%Y-%m-%d %H:%M", &tm) == 0)
        (void)snprintf(ret, FIGURE_MAX, "%" PRId64 " s", (int64_t)s);
    return ret;
}

const char *figure_utc_time(int64_t ms, char ret[static FIGURE_MAX])
{
    time_t s = seconds_of(ms);
    struct tm tm;

    if (!gmtime_r(&s, &tm) || strftime(ret, FIGURE_MAX, "%Y-%m-%dT%H:%M:%SZ", &tm) == 0)
        (void)snprintf(ret, FIGURE_MAX, "%" PRId64 " s", (int64_t)s);
    return ret;
}
