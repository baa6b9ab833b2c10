/* SPDX-License-Identifier: Apache-2.0 */
/*
 * .gridignore: globs, one a line; the last one that matches decides.
 *
 * A glob is matched without recursion. Two places to go back to are enough: the last star, and the
 * last double star before it. A star cannot cross a '/', so once a '/' behind it is matched no
 * other length of it can help; and of all ways to match what stands before a double star, the
 * earliest leaves most to what stands behind it.
 */
#include "publish/publish-ignore.h"

#include "base/vec.h"

struct pattern {
    const char *text;
    size_t length;
    bool negated, anchored, only_directories;
};

struct ignore {
    char *text; /* owned copy of the file */
    VEC(struct pattern) patterns;
};

/* ---- globs ------------------------------------------------------------------------------------
 */

struct text {
    const char *p, *end;
};

/* Does the bracket expression at `*g` (behind '[') hold `c`? Moves *g behind the ']'. An expression
 * without end holds nothing. */
static bool bracket_holds(struct text *g, unsigned char c)
{
    bool negated = g->p < g->end && (*g->p == '!' || *g->p == '^');
    bool holds = false, first = true;

    g->p += negated;
    for (; g->p < g->end && (first || *g->p != ']'); first = false) {
        if (*g->p == '\\' && g->p + 1 < g->end)
            g->p++;
        unsigned char low = (unsigned char)*g->p++, high = low;
        if (g->end - g->p >= 2 && g->p[0] == '-' && g->p[1] != ']') {
            g->p++;
            if (*g->p == '\\' && g->p + 1 < g->end)
                g->p++;
            high = (unsigned char)*g->p++;
        }
        holds |= low <= c && c <= high;
    }
    if (g->p == g->end)
        return false;
    g->p++;
    return holds != negated && c != '/';
}

/* One element of the glob that is no star, against one byte. Moves *g behind it if it matches. */
static bool one_matches(struct text *g, unsigned char c)
{
    struct text t = *g;
    bool matches;

    if (t.p == t.end)
        return false;
    switch (*t.p++) {
    case '?':
        matches = c != '/';
        break;
    case '[':
        matches = bracket_holds(&t, c);
        break;
    case '\\':
        matches = t.p < t.end && (unsigned char)*t.p++ == c;
        break;
    default:
        matches = (unsigned char)t.p[-1] == c;
    }
    if (matches)
        *g = t;
    return matches;
}

/* "**" that stands for directories: between slashes, or at an end of the glob. */
static bool is_double_star(const char *begin, const struct text *g)
{
    return g->end - g->p >= 2 && g->p[0] == '*' && g->p[1] == '*' &&
           (g->p == begin || g->p[-1] == '/') && (g->end - g->p == 2 || g->p[2] == '/');
}

struct retry {
    const char *glob, *text; /* NULL: none */
};

/* Go back to the last star, or to the last double star. False: there is no other way. */
static bool go_back(struct retry *star, struct retry *dirs, struct text *g, struct text *t)
{
    if (star->glob && star->text < t->end && *star->text != '/') {
        star->text++;
        g->p = star->glob;
        t->p = star->text;
        return true;
    }
    if (!dirs->glob)
        return false;
    const char *slash = memchr(dirs->text, '/', (size_t)(t->end - dirs->text));
    if (!slash)
        return false;
    star->glob = NULL;
    dirs->text = slash + 1;
    g->p = dirs->glob;
    t->p = dirs->text;
    return true;
}

static bool glob_matches(struct text g, struct text t)
{
    const char *begin = g.p;
    struct retry star = {0}, dirs = {0};

    for (;;) {
        if (is_double_star(begin, &g)) {
            if (g.end - g.p == 2) {
                if (t.p < t.end)
                    return true; /* everything inside */
            } else {
                g.p += 3;
                dirs = (struct retry){g.p, t.p};
                star.glob = NULL;
                continue;
            }
        } else if (g.p < g.end && *g.p == '*') {
            g.p++;
            star = (struct retry){g.p, t.p};
            continue;
        } else if (t.p == t.end && g.p == g.end) {
            return true;
        } else if (t.p < t.end && one_matches(&g, (unsigned char)*t.p)) {
            t.p++;
            continue;
        }
        if (!go_back(&star, &dirs, &g, &t))
            return false;
    }
}

/* ---- the file ---------------------------------------------------------------------------------
 */

/* Spaces at the end do not count, unless a backslash stands before them. */
static size_t trim(const char *line, size_t length)
{
    while (length > 0 && (line[length - 1] == ' ' || line[length - 1] == '\r')) {
        size_t slashes = 0;
        while (slashes + 1 < length && line[length - 2 - slashes] == '\\')
            slashes++;
        if (slashes % 2 == 1)
            break;
        length--;
    }
    return length;
}

static int add_line(struct ignore *g, const char *line, size_t length, struct err *err)
{
    struct pattern p = {0};

    length = trim(line, length);
    if (length == 0 || line[0] == '#')
        return 0;
    if (line[0] == '!') {
        p.negated = true;
        line++;
        length--;
    }
    if (length > 0 && line[length - 1] == '/') {
        p.only_directories = true;
        length--;
    }
    p.anchored = length > 0 && memchr(line, '/', length);
    if (length > 0 && line[0] == '/') {
        line++;
        length--;
    }
    if (length == 0)
        return 0;
    if (g->patterns.count == IGNORE_PATTERNS_MAX)
        return err_fail(err, -EFBIG, "%s has more than %u patterns", IGNORE_FILE,
                        IGNORE_PATTERNS_MAX);
    p.text = line;
    p.length = length;
    return vec_push(&g->patterns, p);
}

int ignore_parse(struct bytes text, struct ignore **ret, struct err *err)
{
    AUTO(ignore_free) struct ignore *g = calloc(1, sizeof *g);

    if (!g)
        return -ENOMEM;
    g->text = malloc(text.size + 1);
    if (!g->text)
        return -ENOMEM;
    if (text.size > 0)
        memcpy(g->text, text.data, text.size);
    for (size_t at = 0; at < text.size;) {
        const char *line = g->text + at;
        const char *newline = memchr(line, '\n', text.size - at);
        size_t length = newline ? (size_t)(newline - line) : text.size - at;
        int r = add_line(g, line, length, err);
        if (r < 0)
            return r;
        at += length + 1;
    }
    *ret = take_ptr(&g);
    return 0;
}

void ignore_free(struct ignore *g)
{
    if (!g)
        return;
    vec_release(&g->patterns);
    free(g->text);
    free(g);
}

bool ignore_matches(const struct ignore *g, const char *path, size_t length, bool is_directory)
{
    const char *slash = memrchr(path, '/', length);
    struct text whole = {path, path + length};
    struct text base = {slash ? slash + 1 : path, path + length};

    for (size_t i = g->patterns.count; i > 0; i--) {
        const struct pattern *p = &g->patterns.at[i - 1];
        struct text glob = {p->text, p->text + p->length};
        if (p->only_directories && !is_directory)
            continue;
        if (glob_matches(glob, p->anchored ? whole : base))
            return !p->negated;
    }
    return false;
}
