/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Listings: page after page, complete or an error.
 *
 * What the server was asked to leave out is checked again here (prefix, start, end), since some do
 * not know start-after. A listing that does not advance ends with -EPROTO instead of going round
 * for ever: tokens must differ, pages must begin with other keys, empty pages are counted.
 */
#include "s3/s3-internal.h"

#include <stdio.h>

#define PAGE_DEFAULT    1000u
#define EMPTY_PAGES_MAX 1000u

struct listing {
    struct s3 *s3;
    const char *bucket;
    const struct s3_list_options *o;
    s3_list_fn *fn;
    void *ctx;
    char *token, *version_id;                         /* owned: where to go on */
    char first[S3_KEY_MAX + 1], last[S3_KEY_MAX + 1]; /* of the page before */
    unsigned empty;
    int64_t now_ms; /* by the first answer; 0: not known */
    bool done;
};

static int add_query(struct s3_call *c, const char *name, const char *value)
{
    return value && value[0] ? s3_call_query(c, name, value) : 0;
}

/* Names ascend, as a signature wants them. */
static int build_query(const struct listing *l, struct s3_call *c)
{
    const struct s3_list_options *o = l->o;
    char delimiter[2] = {o->delimiter, '\0'}, page[16];
    int r = 0;

    (void)snprintf(page, sizeof page, "%u", o->page ? o->page : PAGE_DEFAULT);
    if (!o->versions)
        r = add_query(c, "continuation-token", l->token);
    if (r == 0)
        r = add_query(c, "delimiter", delimiter);
    if (r == 0)
        r = add_query(c, "encoding-type", "url");
    if (r == 0 && o->versions)
        r = add_query(c, "key-marker", l->token ? l->token : o->start_after);
    if (r == 0 && !o->versions)
        r = add_query(c, "list-type", "2");
    if (r == 0)
        r = add_query(c, "max-keys", page);
    if (r == 0)
        r = add_query(c, "prefix", o->prefix);
    if (r == 0 && !o->versions && !l->token)
        r = add_query(c, "start-after", o->start_after);
    if (r == 0 && o->versions)
        r = add_query(c, "version-id-marker", l->version_id);
    return r == 0 && o->versions ? s3_call_query(c, "versions", "") : r;
}

static int fetch_page(struct listing *l, struct s3_page *ret, struct err *err)
{
    AUTO(s3_call_free) struct s3_call *c = NULL;
    char date[64];

    int r = s3_call_new(l->s3, "GET", l->o->versions ? "s3:ListBucketVersions" : "s3:ListBucket",
                        l->bucket, NULL, &c);
    if (r == 0)
        r = build_query(l, c);
    if (r < 0)
        return err_fail(err, r, "cannot list s3://%s: %s", l->bucket, strerror(-r));
    c->body_max = S3_PAGE_BODY_MAX;
    r = s3_call_run(c, err);
    if (r < 0)
        return r == -ENOENT ? -ENXIO : r;
    if (l->now_ms == 0 && http_response_header(&c->response, "date", date, sizeof date) &&
        s3_parse_http_time(date, &l->now_ms) < 0)
        l->now_ms = 0;
    r = s3_page_parse(buf_bytes(&c->answer_body), l->o->versions, ret, err);
    return r < 0 ? err_prefix(err, r, "cannot list s3://%s", l->bucket) : 0;
}

static int complain(const struct listing *l, const char *what, struct err *err)
{
    return err_fail(err, -EPROTO, "cannot list s3://%s: %s", l->bucket, what);
}

static int advance(struct listing *l, struct s3_page *p, struct err *err)
{
    if (p->truncated && l->token && strcmp(l->token, p->token) == 0 &&
        (!l->o->versions ||
         strcmp(l->version_id ? l->version_id : "", p->version_id ? p->version_id : "") == 0))
        return complain(l, "the server gives the same page again and again", err);
    if (p->rows.count == 0) {
        if (++l->empty > EMPTY_PAGES_MAX)
            return complain(l, "the server gives nothing but empty pages", err);
    } else {
        if (strcmp(p->rows.at[0].key, l->first) == 0 && !p->rows.at[0].is_prefix)
            return complain(l, "the server gives the same page again and again", err);
        l->empty = 0;
        (void)s3_copy(l->first, sizeof l->first, p->rows.at[0].key); /* the page checked lengths */
        (void)s3_copy(l->last, sizeof l->last, p->rows.at[p->rows.count - 1].key);
    }
    free(l->token);
    free(l->version_id);
    l->token = take_ptr(&p->token);
    l->version_id = take_ptr(&p->version_id);
    l->done = !p->truncated;
    return 0;
}

/* Leave in the page what was asked for. `before`: the last key of the page before. */
static int filter(struct listing *l, struct s3_page *p, const char *before, size_t *ret,
                  struct err *err)
{
    const struct s3_list_options *o = l->o;
    const char *prefix = o->prefix ? o->prefix : "";
    size_t length = strlen(prefix), kept = 0;

    for (size_t i = 0; i < p->rows.count; i++) {
        struct s3_entry *row = &p->rows.at[i];

        if (strncmp(row->key, prefix, length) != 0)
            return complain(l, "the server lists keys outside of the prefix", err);
        if (o->start_after && strcmp(row->key, o->start_after) <= 0)
            continue;
        if (o->end_before && strcmp(row->key, o->end_before) >= 0) {
            l->done = true; /* pages ascend */
            continue;
        }
        if (row->is_prefix && strcmp(row->key, before) == 0)
            continue;   /* cut by the border of two pages */
        if (kept < i) { /* a swap: the page frees all of them */
            struct s3_entry other = p->rows.at[kept];
            p->rows.at[kept] = *row;
            *row = other;
        }
        kept++;
    }
    *ret = kept;
    return 0;
}

/* Hand out the first rows of a page. */
static int hand_out(struct listing *l, const struct s3_page *p, size_t count)
{
    int r = 0;

    if (l->o->pages)
        return count > 0 ? l->o->pages(l->ctx, p->rows.at, count) : 0;
    for (size_t i = 0; i < count && r == 0; i++)
        r = l->fn(l->ctx, &p->rows.at[i]);
    return r;
}

int s3_list(struct s3 *s, const char *bucket, const struct s3_list_options *o, s3_list_fn *fn,
            void *ctx, int64_t *ret_now_ms, struct err *err)
{
    struct listing l = {.s3 = s, .bucket = bucket, .o = o, .fn = fn, .ctx = ctx};
    char before[sizeof l.last];
    size_t count = 0;
    int r = 0;

    while (r == 0 && !l.done) {
        AUTO(s3_page_release) struct s3_page page = {.truncated = false};
        r = fetch_page(&l, &page, err);
        memcpy(before, l.last, sizeof before);
        if (r == 0)
            r = advance(&l, &page, err);
        if (r == 0)
            r = filter(&l, &page, before, &count, err);
        if (r == 0)
            r = hand_out(&l, &page, count);
    }
    free(l.token);
    free(l.version_id);
    if (r == 0 && ret_now_ms)
        *ret_now_ms = l.now_ms ? l.now_ms : s->env->wall_ms(s->env) + s->clock_offset_ms;
    return r;
}
