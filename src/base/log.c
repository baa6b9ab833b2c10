/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Log lines to one descriptor, each with one write(2). No rotation, no syslog: the supervisor of
 * the program (systemd, a shell) decides where the descriptor leads.
 */
#include "base/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

static int log_fd = 2;
static enum log_level log_max = LOG_LEVEL_WARNING;
static char log_prefix[32] = "grid";

void log_init(int fd, enum log_level level, const char *prefix)
{
    log_fd = fd;
    log_max = level;
    (void)snprintf(log_prefix, sizeof log_prefix, "%s", prefix);
}

__attribute__((format(printf, 2, 0))) static void log_line(enum log_level level, const char *format,
                                                           va_list args)
{
    static const char *const names[] = {"error: ", "warning: ", "", "debug: "};
    char line[2048];

    if (level > log_max)
        return;
    int n = snprintf(line, sizeof line - 1, "%s: %s", log_prefix, names[level]);
    int m = vsnprintf(line + n, sizeof line - 1 - (size_t)n, format, args);
    if (m < 0)
        return;
    size_t len = (size_t)n + (size_t)m;
    if (len > sizeof line - 2)
        len = sizeof line - 2;
    for (size_t i = 0; i < len; i++) {
        if ((unsigned char)line[i] < 0x20 || line[i] == 0x7f)
            line[i] = '?';
    }
    line[len++] = '\n';
    (void)!write(log_fd, line, len); /* a log that cannot be written has nobody left to tell */
}

#define LOG_FUNCTION(name, level)                                                                  \
    void name(const char *format, ...)                                                             \
    {                                                                                              \
        va_list args;                                                                              \
        va_start(args, format);                                                                    \
        log_line(level, format, args);                                                             \
        va_end(args);                                                                              \
    }                                                                                              \
    struct log_swallow_semicolon

LOG_FUNCTION(log_error, LOG_LEVEL_ERROR);
LOG_FUNCTION(log_warning, LOG_LEVEL_WARNING);
LOG_FUNCTION(log_info, LOG_LEVEL_INFO);
LOG_FUNCTION(log_debug, LOG_LEVEL_DEBUG);
