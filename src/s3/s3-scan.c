/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The XML that servers really send, without a parser of all XML: a listing of a million objects is
 * 250 MB of it, and expat takes 12 ns for each byte.
 *
 * Read are elements without attributes (but for the root's xmlns), ASCII, and the five entities.
 * Anything else, and whatever is wrong, is -ENOTSUP: expat (s3-xml.c) then says what it is. So what
 * is accepted here is a part of what expat accepts, with the same events in the same order; a fuzz
 * target holds one against the other.
 */
#include "s3/s3-internal.h"

#define NAME_MAX_ 31u
#define TEXT_MAX  4096u

struct scan {
    const char *at, *end;
    s3_xml_fn *fn;
    void *ctx;
    unsigned depth;
    char name[S3_XML_DEPTH_MAX + 1][NAME_MAX_ + 1]; /* of the open elements; [0] is no element */
    char text[TEXT_MAX];
    size_t size; /* of text */
};

/* Printable ASCII but for markup; tab and newline. Not '\r': XML makes another character of it. */
static bool is_plain(char c)
{
    return (c >= ' ' && c <= '~' && c != '<' && c != '>' && c != '&') || c == '\t' || c == '\n';
}

static bool is_letter(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

static bool skip(struct scan *s, const char *word)
{
    size_t n = strlen(word);

    if ((size_t)(s->end - s->at) < n || memcmp(s->at, word, n) != 0)
        return false;
    s->at += n;
    return true;
}

static bool skip_any(struct scan *s, const char *const *words, size_t count, size_t *ret)
{
    for (size_t i = 0; i < count; i++) {
        if (skip(s, words[i])) {
            *ret = i;
            return true;
        }
    }
    return false;
}

static void skip_blanks(struct scan *s)
{
    while (s->at < s->end && (*s->at == ' ' || *s->at == '\n' || *s->at == '\t'))
        s->at++;
}

static void skip_declaration(struct scan *s)
{
    static const char *const known[] = {
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>",
        "<?xml version=\"1.0\" encoding=\"utf-8\"?>",
        "<?xml version=\"1.0\"?>",
        "<?xml version='1.0' encoding='UTF-8'?>",
    };
    size_t which;

    (void)skip_any(s, known, sizeof known / sizeof *known, &which); /* it may lack */
    skip_blanks(s);
}

static int emit(struct scan *s, bool close)
{
    s->text[s->size] = '\0';
    struct s3_xml_event e = {
        .close = close,
        .depth = s->depth,
        .name = s->name[s->depth],
        .text = close ? s->text : "",
    };

    s->size = 0;
    return s->fn(s->ctx, &e);
}

static int read_entity(struct scan *s)
{
    static const char *const names[] = {"&quot;", "&amp;", "&lt;", "&gt;", "&apos;"};
    size_t which;

    if (!skip_any(s, names, sizeof names / sizeof *names, &which))
        return -ENOTSUP;
    s->text[s->size++] = "\"&<>'"[which];
    return 0;
}

/* Up to the next tag. */
static int read_text(struct scan *s)
{
    while (s->at < s->end && *s->at != '<') {
        size_t room = TEXT_MAX - 1 - s->size;
        const char *from = s->at;
        const char *most = (size_t)(s->end - from) < room ? s->end : from + room;
        while (s->at < most && is_plain(*s->at))
            s->at++;
        memcpy(s->text + s->size, from, (size_t)(s->at - from));
        s->size += (size_t)(s->at - from);
        if (s->size == TEXT_MAX - 1 || s->at == s->end)
            return -ENOTSUP;
        if (*s->at == '&') {
            int r = read_entity(s);
            if (r < 0)
                return r;
        } else if (*s->at != '<') {
            return -ENOTSUP;
        }
    }
    return s->at < s->end ? 0 : -ENOTSUP;
}

static bool skip_xmlns(struct scan *s)
{
    if (!skip(s, " xmlns=\""))
        return true;
    while (s->at < s->end && *s->at != '"' && is_plain(*s->at))
        s->at++;
    return skip(s, "\"");
}

/* Behind "<". */
static int open_element(struct scan *s)
{
    const char *from = s->at;

    if (s->depth == S3_XML_DEPTH_MAX)
        return -ENOTSUP;
    while (s->at < s->end && (is_letter(*s->at) || (*s->at >= '0' && *s->at <= '9')))
        s->at++;
    size_t n = (size_t)(s->at - from);
    if (n == 0 || n > NAME_MAX_ || !is_letter(*from))
        return -ENOTSUP;
    char *name = s->name[++s->depth];
    memcpy(name, from, n);
    name[n] = '\0';
    if (s->depth == 1 && !skip_xmlns(s))
        return -ENOTSUP;
    s->size = 0;
    if (skip(s, ">"))
        return emit(s, false);
    if (!skip(s, "/>"))
        return -ENOTSUP;
    int r = emit(s, false);
    if (r == 0)
        r = emit(s, true);
    s->depth--;
    return r;
}

/* Behind "</". */
static int close_element(struct scan *s)
{
    if (!skip(s, s->name[s->depth]) || !skip(s, ">"))
        return -ENOTSUP;
    int r = emit(s, true);
    s->depth--;
    return r;
}

int s3_xml_scan(struct bytes body, s3_xml_fn *fn, void *ctx)
{
    struct scan s = {.fn = fn, .ctx = ctx, .depth = 0, .size = 0};
    int r;

    if (body.size == 0 || body.size > S3_PAGE_BODY_MAX)
        return -ENOTSUP;
    s.at = (const char *)body.data;
    s.end = s.at + body.size;
    skip_declaration(&s);
    r = skip(&s, "<") ? open_element(&s) : -ENOTSUP;
    while (r == 0 && s.depth > 0) {
        r = read_text(&s);
        if (r == 0)
            r = skip(&s, "</") ? close_element(&s) : skip(&s, "<") ? open_element(&s) : -ENOTSUP;
    }
    skip_blanks(&s);
    return r == 0 && s.at < s.end ? -ENOTSUP : r;
}
