/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One page of a listing, from XML to rows: ListObjectsV2 and ListObjectVersions.
 *
 * Servers have been seen to cut pages, to count wrong, and to encode keys in more than one way, so
 * what can be checked against itself is: the count, the flag that says whether there is more, the
 * token that goes with it. Keys come URL-encoded; '+' is a space, except in a page that also spells
 * spaces as %20 (such a server does not encode '+'). Rows are given in ascending byte order.
 */
#include "s3/s3-internal.h"

#include <stdio.h>

#define ROWS_MAX 20000u /* servers send 1,000; some allow 10,000 */

struct reader {
    struct s3_page *page;
    struct s3_entry row; /* the one being read */
    char *key;           /* its key, owned; may move on into the page */
    bool in_row, latest, is_delete_marker, has_size, has_mtime;
    bool versions, encoded, percent_space, key_count_told, truncated_told;
    uint64_t key_count, counted;
    struct err *err;
};

static int complain(struct reader *r, const char *what)
{
    return err_fail(r->err, -EPROTO, "the server's listing is damaged: %s", what);
}

static int keep(struct reader *r, char **to, const char *text)
{
    if (*to)
        return complain(r, "an element stands twice in it");
    *to = strdup(text);
    return *to ? 0 : -ENOMEM;
}

static void drop_row(struct reader *r)
{
    free(r->key);
    r->key = NULL;
    r->in_row = false;
}

static int open_row(struct reader *r, bool is_prefix, bool is_delete_marker)
{
    drop_row(r);
    r->in_row = true;
    /* Only what is read where nothing was told: the rest of its texts is rubbish behind a NUL. */
    r->row.is_prefix = is_prefix;
    r->row.object.size = 0;
    r->row.object.mtime_ms = 0;
    r->row.object.etag[0] = r->row.object.version_id[0] = '\0';
    r->is_delete_marker = is_delete_marker;
    r->latest = !r->versions;
    r->has_size = r->has_mtime = is_prefix;
    return 0;
}

static int close_row(struct reader *r)
{
    r->counted++;
    if (!r->key)
        return complain(r, "an object without a key");
    if (r->is_delete_marker || (r->versions && !r->row.is_prefix && !r->latest)) {
        drop_row(r);
        return 0;
    }
    if (!r->has_size || !r->has_mtime)
        return complain(r, "an object without its size or time");
    if (r->page->rows.count >= ROWS_MAX)
        return complain(r, "too many objects in one page");
    r->row.key = r->key;
    int result = vec_push(&r->page->rows, r->row);
    if (result == 0)
        r->key = NULL;
    drop_row(r);
    return result;
}

static int read_bool(struct reader *r, const char *text, bool *ret)
{
    if (strcmp(text, "true") != 0 && strcmp(text, "false") != 0)
        return complain(r, "a flag that is neither true nor false");
    *ret = text[0] == 't';
    return 0;
}

/* An element directly below a row. */
static int read_field(struct reader *r, const char *name, const char *text)
{
    struct s3_object *o = &r->row.object;

    if (strcmp(name, r->row.is_prefix ? "Prefix" : "Key") == 0) {
        r->percent_space = r->percent_space || strstr(text, "%20");
        return keep(r, &r->key, text);
    }
    if (r->row.is_prefix)
        return 0;
    if (strcmp(name, "Size") == 0) {
        r->has_size = true;
        return s3_parse_number(text, INT64_MAX, &o->size) < 0 ? complain(r, "a size") : 0;
    }
    if (strcmp(name, "LastModified") == 0) {
        r->has_mtime = true;
        return s3_parse_iso_time(text, &o->mtime_ms) < 0 ? complain(r, "a time") : 0;
    }
    if (strcmp(name, "ETag") == 0)
        s3_copy_etag(text, o->etag);
    else if (strcmp(name, "IsLatest") == 0)
        return read_bool(r, text, &r->latest);
    else if (strcmp(name, "VersionId") == 0 && strcmp(text, "null") != 0 &&
             s3_copy(o->version_id, sizeof o->version_id, text) < 0)
        return complain(r, "a version id that is too long");
    return 0;
}

/* An element directly below the root. */
static int read_head(struct reader *r, const char *name, const char *text)
{
    struct s3_page *p = r->page;

    if (strcmp(name, "IsTruncated") == 0) {
        r->truncated_told = true;
        return read_bool(r, text, &p->truncated);
    }
    if (strcmp(name, "KeyCount") == 0) {
        r->key_count_told = true;
        return s3_parse_number(text, UINT32_MAX, &r->key_count) < 0 ? complain(r, "its count") : 0;
    }
    if (strcmp(name, "EncodingType") == 0)
        r->encoded = strcmp(text, "url") == 0;
    else if (strcmp(name, r->versions ? "NextKeyMarker" : "NextContinuationToken") == 0)
        return keep(r, &p->token, text);
    else if (r->versions && strcmp(name, "NextVersionIdMarker") == 0)
        return keep(r, &p->version_id, text);
    return 0;
}

static int on_event(void *ctx, const struct s3_xml_event *e)
{
    struct reader *r = ctx;
    const char *root = r->versions ? "ListVersionsResult" : "ListBucketResult";
    const char *object = r->versions ? "Version" : "Contents";

    if (e->depth == 1 && !e->close)
        return strcmp(e->name, root) == 0 ? 0 : complain(r, "it is something else");
    if (e->depth == 2 && !e->close) {
        if (strcmp(e->name, object) == 0)
            return open_row(r, false, false);
        if (strcmp(e->name, "CommonPrefixes") == 0)
            return open_row(r, true, false);
        return r->versions && strcmp(e->name, "DeleteMarker") == 0 ? open_row(r, false, true) : 0;
    }
    if (e->depth == 3 && e->close && r->in_row)
        return read_field(r, e->name, e->text);
    if (e->depth == 2 && e->close)
        return r->in_row ? close_row(r) : read_head(r, e->name, e->text);
    return 0;
}

static int by_key(const void *a, const void *b)
{
    return strcmp(((const struct s3_entry *)a)->key, ((const struct s3_entry *)b)->key);
}

/* Most servers give them so. */
static void sort(struct s3_page *p)
{
    size_t i = 1;

    while (i < p->rows.count && by_key(&p->rows.at[i - 1], &p->rows.at[i]) <= 0)
        i++;
    if (i < p->rows.count)
        qsort(p->rows.at, p->rows.count, sizeof *p->rows.at, by_key);
}

static int settle(struct reader *r)
{
    struct s3_page *p = r->page;

    if (!r->truncated_told)
        return complain(r, "it does not say whether it is complete");
    if (r->key_count_told && r->key_count != r->counted)
        return complain(r, "it counts other than what it holds");
    if (p->truncated && !p->token)
        return complain(r, "there is more, but not where");
    for (size_t i = 0; r->encoded && i < p->rows.count; i++)
        if (s3_decode((char *)p->rows.at[i].key, !r->percent_space) < 0) /* it is ours */
            return complain(r, "a key that is not URL-encoded");
    if (r->encoded && r->versions && p->token && s3_decode(p->token, !r->percent_space) < 0)
        return complain(r, "a key that is not URL-encoded");
    sort(p);
    for (size_t i = 0; i < p->rows.count; i++) {
        size_t n = strlen(p->rows.at[i].key);
        if (n == 0 || n > S3_KEY_MAX)
            return complain(r, "a key that is empty or longer than S3 allows");
        if (i > 0 && strcmp(p->rows.at[i].key, p->rows.at[i - 1].key) == 0)
            return complain(r, "a key stands twice in one page");
    }
    return 0;
}

void s3_page_release(struct s3_page *p)
{
    for (size_t i = 0; i < p->rows.count; i++)
        free((char *)p->rows.at[i].key);
    vec_release(&p->rows);
    free(p->token);
    free(p->version_id);
    p->token = p->version_id = NULL;
}

int s3_page_parse(struct bytes body, bool versions, struct s3_page *ret, struct err *err)
{
    struct s3_page page = {.truncated = false};
    struct reader r = {.page = &page, .versions = versions, .err = err};

    int result = s3_xml_scan(body, on_event, &r);
    if (result == -ENOTSUP) {
        s3_page_release(&page);
        drop_row(&r);
        page.truncated = false;
        r = (struct reader){.page = &page, .versions = versions, .err = err};
        result = s3_xml_parse(body, on_event, &r);
    }
    if (result == 0)
        result = settle(&r);
    drop_row(&r);
    if (result < 0) {
        s3_page_release(&page);
        return result == -EPROTO ? complain(&r, "it is not well-formed, or cut short") : result;
    }
    *ret = page;
    return 0;
}
