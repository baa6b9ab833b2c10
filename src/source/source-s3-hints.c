/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Directories that are known before their keys are listed: where a listing is cut.
 *
 * They come from pages of a listing with a delimiter, which shows the files beside them too. So it
 * is known of most that nothing but what is below them stands between their cut and the next one's:
 * such a one can be listed by its prefix, and the server ends the last page where it ends; else the
 * page goes on with keys that another request gets as well. Pure.
 */
#include "source/source-s3-internal.h"

#include <string.h>

size_t hints_first_behind(const struct hints *h, const char *key)
{
    size_t low = 0, high = h->count;

    while (low < high) {
        size_t mid = low + (high - low) / 2;
        if (strcmp(h->at[mid].path, key) > 0)
            high = mid;
        else
            low = mid + 1;
    }
    return low;
}

void hint_cut(const struct hint *hint, char ret[static S3_KEY_MAX + 1])
{
    size_t n = strlen(hint->path) - 1;

    memcpy(ret, hint->path, n);
    ret[n] = '\0';
}

void hints_between(const struct hints *h, const char *at, const char *end, size_t *ret_first,
                   size_t *ret_end)
{
    char cut[S3_KEY_MAX + 1];

    *ret_first = hints_first_behind(h, at);
    *ret_end = end ? hints_first_behind(h, end) : h->count;
    for (; *ret_first < *ret_end; ++*ret_first) { /* "a/" is behind "a", and its cut is not */
        hint_cut(&h->at[*ret_first], cut);
        if (strcmp(cut, at) > 0)
            break;
    }
}

bool hint_is_whole(const struct hints *h, size_t i, const char *end)
{
    char next[S3_KEY_MAX + 1];

    if (!end || !h->at[i].alone || i + 1 == h->count)
        return false;
    hint_cut(&h->at[i + 1], next);
    return strcmp(end, next) <= 0;
}

/* Does a hint's cut stand behind `key`, or on it? */
static bool cut_is_behind(const char *path, const char *key)
{
    size_t n = strlen(path) - 1, length = strlen(key);
    int c = memcmp(path, key, n < length ? n : length);

    return c > 0 || (c == 0 && n >= length);
}

int hints_see(struct hints_page *p, const char *key, bool is_prefix)
{
    size_t n = strlen(key);
    bool good = is_prefix && n > 1 && key[n - 1] == '/';
    bool apart = good && cut_is_behind(key, p->last);
    struct hint hint = {.alone = false};

    if (p->open && apart)
        p->found.at[p->found.count - 1].alone = true;
    p->open = apart;
    memcpy(p->last, key, n + 1);
    if (!good)
        return 0;
    hint.path = strdup(key);
    int r = hint.path ? vec_push(&p->found, hint) : -ENOMEM;
    if (r < 0)
        free(hint.path);
    return r;
}

static int by_path(const void *a, const void *b)
{
    return strcmp(((const struct hint *)a)->path, ((const struct hint *)b)->path);
}

void hints_page_release(struct hints_page *p)
{
    for (size_t i = 0; i < p->found.count; i++)
        free(p->found.at[i].path);
    vec_release(&p->found);
}

void hints_release(struct hints *h)
{
    for (size_t i = 0; i < h->count; i++)
        free(h->at[i].path);
    vec_release(h);
}

int hints_learn(struct hints *h, struct hints_page *p)
{
    for (size_t i = 0; i < p->found.count; i++) {
        if (h->count == HINTS_MAX) {
            break;
        }
        bool next_too = h->count + 1 < HINTS_MAX;
        p->found.at[i].alone = p->found.at[i].alone && next_too;
        int r = vec_push(h, p->found.at[i]);
        if (r < 0)
            return r;
        p->found.at[i].path = NULL;
    }
    if (h->count > 1)
        qsort(h->at, h->count, sizeof *h->at, by_path);
    return 0;
}
