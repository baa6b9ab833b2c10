/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The head of a request: the few lines that matter. What is not understood is refused.
 */
#include "bucket.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

static int hex_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c = (char)(c | 32);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* %XX, and '+' for a space, of `size` bytes. */
static bool decode(const char *from, size_t size, char *ret, size_t ret_size)
{
    size_t n = 0;

    for (size_t i = 0; i < size; i++) {
        char c = from[i];
        if (c == '%' && i + 2 < size && hex_value(from[i + 1]) >= 0 &&
            hex_value(from[i + 2]) >= 0) {
            c = (char)(hex_value(from[i + 1]) * 16 + hex_value(from[i + 2]));
            i += 2;
        } else if (c == '+') {
            c = ' ';
        }
        if (c == '\0' || n + 1 >= ret_size)
            return false;
        ret[n++] = c;
    }
    ret[n] = '\0';
    return true;
}

bool request_query(const struct request *q, const char *name, char *ret, size_t size)
{
    size_t length = strlen(name);

    for (const char *p = q->query; *p;) {
        size_t part = strcspn(p, "&");
        if (strncmp(p, name, length) == 0 && (part == length || p[length] == '=')) {
            const char *value = part == length ? "" : p + length + 1;
            return decode(value, part == length ? 0 : part - length - 1, ret, size);
        }
        p += part;
        p += *p == '&';
    }
    return false;
}

bool request_decode(char *text)
{
    return decode(text, strlen(text), text, strlen(text) + 1);
}

static void take_header(struct request *q, const char *name, const char *value)
{
    if (strcasecmp(name, "content-length") == 0)
        q->length = strtoull(value, NULL, 10);
    else if (strcasecmp(name, "expect") == 0)
        q->expects = true;
    else if (strcasecmp(name, "if-none-match") == 0)
        q->if_absent = true;
    else if (strcasecmp(name, "if-match") == 0)
        (void)snprintf(q->if_match, sizeof q->if_match, "%s", value);
    else if (strcasecmp(name, "range") == 0 && strncmp(value, "bytes=", 6) == 0) {
        char *end;
        q->ranged = true;
        q->from = strtoull(value + 6, &end, 10);
        q->to = *end == '-' && end[1] ? strtoull(end + 1, NULL, 10) : UINT64_MAX;
    }
}

int request_parse(char *head, struct request *ret)
{
    char *line = strsep(&head, "\n"), *method = strsep(&line, " "), *target = strsep(&line, " ");

    memset(ret, 0, sizeof *ret);
    if (!target || target[0] != '/' || strlen(method) >= sizeof ret->method)
        return -EPROTO;
    (void)snprintf(ret->method, sizeof ret->method, "%s", method);
    size_t path = strcspn(target, "?");
    if (strlen(target + path) > sizeof ret->query ||
        !decode(target, path, ret->path, sizeof ret->path))
        return -EPROTO;
    if (target[path])
        (void)snprintf(ret->query, sizeof ret->query, "%s", target + path + 1);
    while ((line = strsep(&head, "\n")) != NULL) {
        char *colon = strchr(line, ':');
        if (!colon)
            continue;
        *colon = '\0';
        char *value = colon + 1 + strspn(colon + 1, " ");
        value[strcspn(value, "\r")] = '\0';
        take_header(ret, line, value);
    }
    return 0;
}
