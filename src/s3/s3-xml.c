/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The XML of S3, on expat, with everything bounded: no DTD (so no entities but the five and
 * numeric ones), depth, length of text. Bodies come complete and must end where the root does.
 *
 * Events are flat: an element opens, an element closes with the text that stood in it. That is all
 * that S3's answers need; mixed content does not occur in them.
 */
#include "s3/s3-internal.h"

#include <expat.h>

struct parser {
    XML_Parser expat;
    s3_xml_fn *fn;
    void *ctx;
    unsigned depth;
    struct buf text;
    int result;
};

static void stop(struct parser *p, int result)
{
    if (p->result == 0)
        p->result = result;
    (void)XML_StopParser(p->expat, XML_FALSE); /* fails only if it is stopped already */
}

static const char *local_name(const char *name)
{
    const char *colon = strrchr(name, ':');
    return colon ? colon + 1 : name;
}

static void emit(struct parser *p, bool close, const char *name)
{
    struct s3_xml_event e = {
        .close = close,
        .depth = p->depth,
        .name = local_name(name),
        .text = close ? buf_text(&p->text) : "",
    };
    int r = p->result ? p->result : p->fn(p->ctx, &e);

    buf_clear(&p->text);
    if (r != 0)
        stop(p, r);
}

static void XMLCALL on_open(void *ctx, const XML_Char *name, const XML_Char **attributes)
{
    struct parser *p = ctx;

    if (++p->depth > S3_XML_DEPTH_MAX) {
        stop(p, -EPROTO);
        return;
    }
    emit(p, false, name);
}

static void XMLCALL on_close(void *ctx, const XML_Char *name)
{
    struct parser *p = ctx;

    emit(p, true, name);
    p->depth--;
}

static void XMLCALL on_text(void *ctx, const XML_Char *text, int size)
{
    struct parser *p = ctx;
    int r = buf_append(&p->text, text, (size_t)size);

    if (r < 0)
        stop(p, r == -EFBIG ? -EPROTO : r);
}

static void XMLCALL on_doctype(void *ctx, const XML_Char *name, const XML_Char *system,
                               const XML_Char *public, int has_internal)
{
    stop(ctx, -EPROTO);
}

int s3_xml_parse(struct bytes body, s3_xml_fn *fn, void *ctx)
{
    struct parser p = {.fn = fn, .ctx = ctx, .text = BUF_INIT(S3_XML_TEXT_MAX)};

    if (body.size > S3_PAGE_BODY_MAX)
        return -EPROTO;
    p.expat = XML_ParserCreate(NULL);
    if (!p.expat)
        return -ENOMEM;
    XML_SetUserData(p.expat, &p);
    XML_SetElementHandler(p.expat, on_open, on_close);
    XML_SetCharacterDataHandler(p.expat, on_text);
    XML_SetStartDoctypeDeclHandler(p.expat, on_doctype);
    if (XML_Parse(p.expat, body.data ? body.data : "", (int)body.size, XML_TRUE) != XML_STATUS_OK &&
        p.result == 0)
        p.result = XML_GetErrorCode(p.expat) == XML_ERROR_NO_MEMORY ? -ENOMEM : -EPROTO;
    XML_ParserFree(p.expat);
    buf_release(&p.text);
    return p.result;
}

/* ---- errors ---- */

struct error_reader {
    struct s3_answer answer;
    bool is_error;
};

static int on_error_event(void *ctx, const struct s3_xml_event *e)
{
    struct error_reader *r = ctx;

    if (e->depth == 1 && !e->close) {
        /* IAM and STS put theirs into <ErrorResponse><Error>. */
        r->is_error = strcmp(e->name, "Error") == 0 || strcmp(e->name, "ErrorResponse") == 0;
        return r->is_error ? 0 : -EPROTO;
    }
    if (!e->close || e->depth > 3)
        return 0;
    /* What is too long for its field is left out: it is only shown. */
    if (strcmp(e->name, "Code") == 0)
        (void)s3_copy(r->answer.code, sizeof r->answer.code, e->text);
    else if (strcmp(e->name, "RequestId") == 0)
        (void)s3_copy(r->answer.request_id, sizeof r->answer.request_id, e->text);
    else if (strcmp(e->name, "Region") == 0)
        (void)s3_copy(r->answer.region, sizeof r->answer.region, e->text);
    return 0;
}

/* These go into sentences: only what such words are made of. */
static void keep_plain(char *text)
{
    for (char *p = text; *p; p++)
        if (!strchr("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-:+/=", *p))
            *p = '?';
}

bool s3_xml_error(struct bytes body, struct s3_answer *ret)
{
    struct error_reader r = {.is_error = false};

    *ret = r.answer;
    if (s3_xml_parse(body, on_error_event, &r) < 0 || !r.is_error)
        return false;
    keep_plain(r.answer.code);
    keep_plain(r.answer.request_id);
    keep_plain(r.answer.region);
    *ret = r.answer;
    return true;
}

/* ---- one word ---- */

struct finder {
    const char *root, *name;
    char *ret;
    size_t room;
    bool found;
};

static int on_find_event(void *ctx, const struct s3_xml_event *e)
{
    struct finder *f = ctx;

    if (e->depth == 1 && !e->close)
        return strcmp(e->name, f->root) == 0 ? 0 : -EPROTO;
    if (!e->close || e->depth != 2 || f->found || strcmp(e->name, f->name) != 0)
        return 0;
    f->found = true;
    return s3_copy(f->ret, f->room, e->text) < 0 ? -EPROTO : 0;
}

int s3_xml_find(struct bytes body, const char *root, const char *name, char *ret, size_t room)
{
    struct finder f = {.root = root, .name = name, .ret = ret, .room = room};
    int r = s3_xml_parse(body, on_find_event, &f);

    return r < 0 ? r : f.found ? 0 : -EPROTO;
}

static int on_root_event(void *ctx, const struct s3_xml_event *e)
{
    return e->depth > 1 || strcmp(e->name, ctx) == 0 ? 0 : -EPROTO;
}

bool s3_xml_is(struct bytes body, const char *root)
{
    return s3_xml_parse(body, on_root_event, (void *)root) == 0;
}
