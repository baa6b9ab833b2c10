/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The head of an answer: header lines kept as text, names in lower case, and the few of them that
 * every caller needs as numbers.
 *
 * A line that breaks the rules (no colon, control characters) is dropped, not guessed at; a length
 * that is no number, or two that differ, end the request, since framing would depend on who reads.
 */
#include "http/http-internal.h"

#include <ctype.h>

void http_response_init(struct http_response *r, size_t body_max)
{
    *r = (struct http_response){.content_length = UINT64_MAX};
    buf_init(&r->head, HTTP_HEAD_MAX);
    buf_init(&r->body, body_max);
}

void http_response_release(struct http_response *r)
{
    buf_release(&r->head);
    buf_release(&r->body);
}

static bool is_printable(const char *text, size_t size)
{
    for (size_t i = 0; i < size; i++)
        if ((unsigned char)text[i] < 0x20 && text[i] != '\t')
            return false;
    return true;
}

int http_response_line(struct http_response *r, const char *line, size_t size)
{
    while (size > 0 && (line[size - 1] == '\r' || line[size - 1] == '\n' || line[size - 1] == ' '))
        size--;
    const char *colon = memchr(line, ':', size);

    if (!colon || colon == line || !is_printable(line, size))
        return 0;
    size_t name_size = (size_t)(colon - line);
    const char *value = colon + 1;
    size_t value_size = size - name_size - 1;
    while (value_size > 0 && (*value == ' ' || *value == '\t')) {
        value++;
        value_size--;
    }
    size_t at = r->head.size;
    if (buf_append(&r->head, line, name_size) < 0 || buf_append_str(&r->head, ": ") < 0 ||
        buf_append(&r->head, value, value_size) < 0 || buf_append_str(&r->head, "\n") < 0)
        return -EFBIG;
    for (size_t i = 0; i < name_size; i++)
        r->head.data[at + i] = (uint8_t)tolower(r->head.data[at + i]);
    return 0;
}

/* The first line of that name at or behind `from`: its value and size. NULL: none. */
static const char *find_header(const struct http_response *r, const char *from, const char *name,
                               size_t *ret_size)
{
    size_t name_size = strlen(name);

    while (*from) {
        const char *end = strchr(from, '\n');
        if (!end)
            return NULL;
        if (strncmp(from, name, name_size) == 0 && from[name_size] == ':') {
            const char *value = from + name_size + 2;
            *ret_size = (size_t)(end - value);
            return value;
        }
        from = end + 1;
    }
    return NULL;
}

bool http_response_header(const struct http_response *r, const char *name, char *value, size_t size)
{
    size_t n;
    const char *found = find_header(r, buf_text(&r->head), name, &n);

    if (!found || n >= size)
        return false;
    memcpy(value, found, n);
    value[n] = '\0';
    return true;
}

static int parse_length(const char *text, size_t size, uint64_t *ret)
{
    uint64_t v = 0;

    if (size == 0 || size > 19)
        return -EPROTO;
    for (size_t i = 0; i < size; i++) {
        if (text[i] < '0' || text[i] > '9')
            return -EPROTO;
        v = v * 10 + (uint64_t)(text[i] - '0');
    }
    *ret = v;
    return 0;
}

int http_response_settle(struct http_response *r)
{
    const char *at = buf_text(&r->head);
    uint64_t length;
    size_t n;

    r->content_length = UINT64_MAX;
    while ((at = find_header(r, at, "content-length", &n))) {
        if (parse_length(at, n, &length) < 0)
            return -EPROTO;
        if (r->content_length != UINT64_MAX && r->content_length != length)
            return -EPROTO;
        r->content_length = length;
        at += n + 1;
    }
    if (!http_response_header(r, "location", r->location, sizeof r->location))
        r->location[0] = '\0';
    return 0;
}
