/* SPDX-License-Identifier: Apache-2.0 */
/*
 * AWS's shared config and credentials files, as the AWS command line reads them.
 *
 * A line that is none of "[section]", "key = value", an indented continuation, a comment or empty
 * is skipped, as AWS's tools do: the files are other programs' too. Sections of SSO and services
 * are not read.
 */
#include "s3/s3-profile.h"

#include "base/cleanup.h"
#include "base/file.h"

#include <ctype.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#define FILE_SIZE_MAX (1u << 20) /* some people keep hundreds of profiles */
#define ENTRIES_MAX   256u       /* of one profile */
#define LINE_MAX_SIZE 16384u     /* session tokens stand in one line */

struct reader {
    struct s3_profile *profile;
    bool secret_file, in_section;
    char outer[64]; /* the key whose value is the indented lines; "" : none */
};

static char *trim(char *text)
{
    while (isspace((unsigned char)*text))
        text++;
    size_t n = strlen(text);
    while (n > 0 && isspace((unsigned char)text[n - 1]))
        text[--n] = '\0';
    return text;
}

static int set(struct s3_profile *p, const char *key, const char *value, bool secret_file)
{
    AUTO(free_ptr) char *owned = strdup(value);

    if (!owned)
        return -ENOMEM;
    for (size_t i = 0; i < p->entries.count; i++) {
        struct s3_profile_entry *e = &p->entries.at[i];
        if (strcmp(e->key, key) == 0) {
            free(e->value);
            e->value = take_ptr(&owned);
            e->secret_file = secret_file;
            return 0;
        }
    }
    if (p->entries.count >= ENTRIES_MAX)
        return 0;
    AUTO(free_ptr) char *name = strdup(key);
    struct s3_profile_entry e = {.key = name, .value = owned, .secret_file = secret_file};
    if (!name || vec_push(&p->entries, e) < 0)
        return -ENOMEM;
    name = owned = NULL; /* the profile's now */
    return 0;
}

/* "[profile NAME]" or "[NAME]", NAME perhaps in quotes. */
static void open_section(struct reader *r, char *line)
{
    char *end = strchr(line, ']');

    r->in_section = false;
    r->outer[0] = '\0';
    if (!end)
        return;
    *end = '\0';
    char *name = trim(line + 1);
    if (!r->secret_file && strncmp(name, "profile", 7) == 0 && isspace((unsigned char)name[7]))
        name = trim(name + 7);
    else if (!r->secret_file && strcmp(name, "default") != 0)
        return;
    size_t n = strlen(name);
    if (n >= 2 && (name[0] == '"' || name[0] == '\'') && name[n - 1] == name[0]) {
        name[n - 1] = '\0';
        name++;
    }
    r->in_section = strcmp(name, r->profile->name) == 0;
    if (r->in_section)
        r->profile->found = true;
}

/* In these files a comment behind a value begins with a space and # or ;. */
static void cut_comment(char *value)
{
    for (char *p = value; *p; p++)
        if ((*p == '#' || *p == ';') && p > value && isspace((unsigned char)p[-1])) {
            *p = '\0';
            return;
        }
}

static int read_line(struct reader *r, char *line)
{
    bool indented = isspace((unsigned char)line[0]);
    char *text = trim(line), full[160];

    if (!*text || *text == '#' || *text == ';')
        return 0;
    if (*text == '[' && !indented) {
        open_section(r, text);
        return 0;
    }
    char *equals = strchr(text, '=');
    if (!r->in_section || !equals)
        return 0;
    *equals = '\0';
    char *key = trim(text), *value;
    cut_comment(equals + 1);
    value = trim(equals + 1);
    if (!*key || strlen(key) >= sizeof r->outer)
        return 0;
    for (char *p = key; *p; p++)
        *p = (char)tolower((unsigned char)*p);
    if (indented && r->outer[0]) {
        (void)snprintf(full, sizeof full, "%s.%s", r->outer, key); /* both are bounded */
        return set(r->profile, full, value, r->secret_file);
    }
    (void)snprintf(r->outer, sizeof r->outer, "%s", *value ? "" : key);
    return *value ? set(r->profile, key, value, r->secret_file) : 0;
}

int s3_profile_parse(struct s3_profile *p, struct bytes text, bool secret_file)
{
    struct reader r = {.profile = p, .secret_file = secret_file};
    const char *at = text.data, *end = at + text.size;
    AUTO(free_ptr) char *line = malloc(LINE_MAX_SIZE);
    int result = line ? 0 : -ENOMEM;

    while (result == 0 && at < end) {
        const char *stop = memchr(at, '\n', (size_t)(end - at));
        size_t n = (size_t)((stop ? stop : end) - at);
        if (n < LINE_MAX_SIZE && !memchr(at, 0, n)) {
            memcpy(line, at, n);
            line[n] = '\0';
            result = read_line(&r, line);
        }
        at += n + 1;
    }
    if (line)
        explicit_bzero(line, LINE_MAX_SIZE);
    return result;
}

static int read_file(struct s3_profile *p, const char *variable, const char *name, bool secret_file,
                     struct err *err)
{
    AUTO(buf_release) struct buf text = BUF_INIT(FILE_SIZE_MAX);
    AUTO(buf_release) struct buf path = BUF_INIT(4096);
    const char *given = getenv(variable), *home = getenv("HOME");

    if (given && given[0])
        (void)buf_append_str(&path, given); /* too long: empty, and not found */
    else if (home && home[0])
        (void)buf_printf(&path, "%s/.aws/%s", home, name);
    if (!path.size)
        return 0;
    int r = file_slurp(AT_FDCWD, buf_text(&path), &text);
    if (r == -ENOENT || r == -ENOTDIR)
        return 0;
    if (r == -EACCES && !(given && given[0]))
        return 0; /* another user's home: as if it were not there */
    if (r < 0)
        return err_fail(err, r, "cannot read %s: %s", buf_text(&path), strerror(-r));
    r = s3_profile_parse(p, buf_bytes(&text), secret_file);
    if (text.data)
        explicit_bzero(text.data, text.size);
    return r;
}

int s3_profile_load(const char *name, struct s3_profile *ret, struct err *err)
{
    AUTO(s3_profile_release) struct s3_profile p = {.name = ""};
    const char *variable = getenv("AWS_PROFILE");
    bool named = name || (variable && variable[0]);

    if (!name)
        name = named ? variable : "default";
    if (strlen(name) > S3_PROFILE_NAME_MAX)
        return err_fail(err, -EINVAL, "the profile's name is too long: %.100s...", name);
    memcpy(p.name, name, strlen(name) + 1);
    int r = read_file(&p, "AWS_CONFIG_FILE", "config", false, err);
    if (r == 0)
        r = read_file(&p, "AWS_SHARED_CREDENTIALS_FILE", "credentials", true, err);
    if (r < 0)
        return r;
    if (named && !p.found)
        return err_fail(err, -ENOENT,
                        "there is no profile \"%s\" in AWS's config and credentials files", name);
    *ret = p;
    p = (struct s3_profile){.name = ""};
    return 0;
}

void s3_profile_release(struct s3_profile *p)
{
    for (size_t i = 0; i < p->entries.count; i++) {
        struct s3_profile_entry *e = &p->entries.at[i];
        explicit_bzero(e->value, strlen(e->value));
        free(e->key);
        free(e->value);
    }
    vec_release(&p->entries);
}

const char *s3_profile_get(const struct s3_profile *p, const char *key)
{
    for (size_t i = 0; i < p->entries.count; i++)
        if (strcmp(p->entries.at[i].key, key) == 0)
            return p->entries.at[i].value;
    return NULL;
}
