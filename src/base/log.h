/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The log of a program: one line per state change, none per request.
 *
 * Libraries (everything below cli/ and the server's main) log at debug only; programs log once,
 * where the decision is taken. The one exception is the read path of a server: a range of a pack
 * that fails verification is named by log_warning(), since no caller can carry the sentence.
 * Threads: any. A line is written with one write(2). Control characters in a line are escaped, so
 * that a file name cannot forge lines.
 */
#ifndef BASE_LOG_H
#define BASE_LOG_H

enum log_level { LOG_LEVEL_ERROR, LOG_LEVEL_WARNING, LOG_LEVEL_INFO, LOG_LEVEL_DEBUG };

/* `fd` is borrowed for the life of the program; 2 (stderr) until set. `prefix` is copied (max 31).
 */
void log_init(int fd, enum log_level level, const char *prefix);

void log_error(const char *format, ...) __attribute__((format(printf, 1, 2)));
void log_warning(const char *format, ...) __attribute__((format(printf, 1, 2)));
void log_info(const char *format, ...) __attribute__((format(printf, 1, 2)));
void log_debug(const char *format, ...) __attribute__((format(printf, 1, 2)));

#endif
