/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Configuration files: an INI dialect that fits on a page (docs/configuration.md).
 *
 *   # comment, also ;          whole lines only
 *   [cluster NAME]             store, store_is_coherent, kernel_mount, users; of S3 stores
 * endpoint, key = value                region, addressing, profile, ca_file [bucket NAME] endpoint,
 * region, addressing, profile, ca_file of an S3 source [user]                     context
 *
 * A broken line is an error with file and line; an unknown key is a warning, so that one file
 * serves several releases. Read whole (bounded), parsed line by line.
 */
#include "cli/cli-internal.h"

#include "base/file.h"
#include "base/name.h"

#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

struct parser {
    struct config *config;
    const char *path;
    unsigned line;
    bool is_system;
    bool in_user;            /* inside [user] */
    struct cluster *cluster; /* inside [cluster NAME] or [bucket NAME]; into the config */
    bool in_bucket;
    config_warn_fn *warn;
    void *warn_ctx;
};

static bool is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\r';
}

/* Cut blanks at both ends, in place. */
static char *trim(char *text)
{
    size_t n = strlen(text);

    while (n > 0 && is_blank(text[n - 1]))
        text[--n] = '\0';
    while (is_blank(*text))
        text++;
    return text;
}

static void warn(const struct parser *p, const char *what, const char *name)
{
    char sentence[512];

    (void)snprintf(sentence, sizeof sentence, "%s:%u: unknown %s '%.100s' is left out", p->path,
                   p->line, what, name);
    if (p->warn)
        p->warn(p->warn_ctx, sentence);
}

static struct cluster *find_cluster(const struct config *c, const char *name)
{
    for (size_t i = 0; i < c->clusters.count; i++) {
        if (strcmp(c->clusters.at[i].name, name) == 0)
            return &c->clusters.at[i];
    }
    return NULL;
}

const struct cluster *config_cluster(const struct config *c, const char *name)
{
    return find_cluster(c, name);
}

/* A bucket is a cluster without a store. */
static int begin_bucket(struct parser *p, const char *name, struct err *err)
{
    struct cluster fresh = {.line = p->line};

    if (!name_is_valid(name))
        return err_fail(err, -EINVAL, "%s:%u: '%.100s' is no name for a bucket", p->path, p->line,
                        name);
    p->in_bucket = true;
    for (size_t i = 0; i < p->config->buckets.count; i++) {
        p->cluster = &p->config->buckets.at[i];
        if (strcmp(p->cluster->name, name) == 0)
            return 0;
    }
    p->cluster = NULL;
    if (p->config->buckets.count >= CONFIG_CLUSTERS_MAX)
        return err_fail(err, -EINVAL, "%s:%u: more than %u buckets", p->path, p->line,
                        CONFIG_CLUSTERS_MAX);
    (void)snprintf(fresh.name, sizeof fresh.name, "%s", name);
    if (vec_push(&p->config->buckets, fresh) < 0)
        return err_fail(err, -ENOMEM, "out of memory");
    p->cluster = &p->config->buckets.at[p->config->buckets.count - 1];
    return 0;
}

static int begin_cluster(struct parser *p, const char *name, struct err *err)
{
    struct cluster fresh = {.line = p->line};
    struct cluster *old = find_cluster(p->config, name);

    if (!name_is_valid(name))
        return err_fail(err, -EINVAL,
                        "%s:%u: '%.100s' is no name for a cluster: lower case letters, digits, "
                        "'.', '_' and '-', at most 63",
                        p->path, p->line, name);
    if (old) {
        p->cluster = old;
        return 0;
    }
    if (p->config->clusters.count >= CONFIG_CLUSTERS_MAX)
        return err_fail(err, -EINVAL, "%s:%u: more than %u clusters", p->path, p->line,
                        CONFIG_CLUSTERS_MAX);
    (void)snprintf(fresh.name, sizeof fresh.name, "%s", name);
    fresh.file = strdup(p->path);
    if (!fresh.file || vec_push(&p->config->clusters, fresh) < 0) {
        free(fresh.file);
        return err_fail(err, -ENOMEM, "out of memory");
    }
    p->cluster = &p->config->clusters.at[p->config->clusters.count - 1];
    return 0;
}

static int parse_section(struct parser *p, char *text, struct err *err)
{
    char *end = strchr(text, ']');

    p->cluster = NULL;
    p->in_user = p->in_bucket = false;
    if (!end || end[1])
        return err_fail(err, -EINVAL,
                        "%s:%u: a section reads [cluster NAME], [bucket NAME] or [user]", p->path,
                        p->line);
    *end = '\0';
    char *name = trim(text + 1);
    if (strcmp(name, "user") == 0)
        p->in_user = true;
    else if (strncmp(name, "cluster", 7) == 0 && is_blank(name[7]))
        return begin_cluster(p, trim(name + 7), err);
    else if (strncmp(name, "bucket", 6) == 0 && is_blank(name[6]))
        return begin_bucket(p, trim(name + 6), err);
    else
        warn(p, "section", name);
    return 0;
}

static int parse_bool(const struct parser *p, const char *key, const char *value, bool *ret,
                      struct err *err)
{
    if (strcmp(value, "yes") == 0 || strcmp(value, "true") == 0)
        *ret = true;
    else if (strcmp(value, "no") == 0 || strcmp(value, "false") == 0)
        *ret = false;
    else
        return err_fail(err, -EINVAL, "%s:%u: %s is 'yes' or 'no', not '%.100s'", p->path, p->line,
                        key, value);
    return 0;
}

/* The keys that are kept as they are written; NULL: it is none of them. */
static char **text_of_key(struct cluster *c, const char *key)
{
    struct {
        const char *key;
        char **text;
    } texts[] = {
        {"store", &c->store},           {"endpoint", &c->endpoint}, {"region", &c->region},
        {"addressing", &c->addressing}, {"profile", &c->profile},   {"ca_file", &c->ca_file},
    };

    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        if (strcmp(key, texts[i].key) == 0)
            return texts[i].text;
    }
    return NULL;
}

static int set_text(const struct parser *p, char **text, const char *key, const char *value,
                    struct err *err)
{
    if (strcmp(key, "addressing") == 0 && strcmp(value, "auto") != 0 &&
        strcmp(value, "path") != 0 && strcmp(value, "virtual") != 0)
        return err_fail(err, -EINVAL,
                        "%s:%u: addressing is 'auto', 'path' or 'virtual', not '%.100s'", p->path,
                        p->line, value);
    char *copy = strdup(value);
    if (!copy)
        return err_fail(err, -ENOMEM, "out of memory");
    free(*text);
    *text = copy;
    return 0;
}

struct store_options cluster_options(const struct cluster *c)
{
    return (struct store_options){.endpoint = c->endpoint,
                                  .region = c->region,
                                  .addressing = c->addressing,
                                  .profile = c->profile,
                                  .ca_file = c->ca_file};
}

static int set_cluster_key(struct parser *p, const char *key, const char *value, struct err *err)
{
    char **text = text_of_key(p->cluster, key);
    bool flag = false;

    /* A cluster that another file changes is no longer the one that the administrator opened. */
    if (!p->is_system)
        p->cluster->kernel_mount = false;
    if (text && !(p->in_bucket && text == &p->cluster->store))
        return set_text(p, text, key, value, err);
    if (p->in_bucket) {
        warn(p, "key", key);
        return 0;
    }
    if (strcmp(key, "users") == 0)
        return p->is_system ? set_text(p, &p->cluster->users, key, value, err) : 0;
    if (strcmp(key, "store_is_coherent") == 0)
        return parse_bool(p, key, value, &p->cluster->coherent, err);
    if (strcmp(key, "kernel_mount") == 0) {
        int r = parse_bool(p, key, value, &flag, err);
        /* Whoever names a store that the kernel parses must be the administrator. */
        if (r == 0 && p->is_system)
            p->cluster->kernel_mount = flag;
        return r;
    }
    warn(p, "key", key);
    return 0;
}

static int set_user_key(struct parser *p, const char *key, const char *value, struct err *err)
{
    if (strcmp(key, "context") != 0) {
        warn(p, "key", key);
        return 0;
    }
    if (!name_is_valid(value))
        return err_fail(err, -EINVAL, "%s:%u: context names a cluster; '%.100s' is no such name",
                        p->path, p->line, value);
    (void)snprintf(p->config->context, sizeof p->config->context, "%s", value);
    return 0;
}

static int parse_line(struct parser *p, char *text, struct err *err)
{
    text = trim(text);
    if (!*text || *text == '#' || *text == ';')
        return 0;
    if (*text == '[')
        return parse_section(p, text, err);

    char *equals = strchr(text, '=');
    if (!equals)
        return err_fail(err, -EINVAL, "%s:%u: a line reads 'key = value'", p->path, p->line);
    *equals = '\0';
    char *key = trim(text), *value = trim(equals + 1);
    if (p->cluster)
        return set_cluster_key(p, key, value, err);
    if (p->in_user)
        return set_user_key(p, key, value, err);
    warn(p, "key", key);
    return 0;
}

static int slurp_config(const char *path, struct buf *b, struct err *err)
{
    int r = file_slurp(AT_FDCWD, path, b);

    if (r == -EFBIG)
        return err_fail(err, -EINVAL, "%s: longer than %u KiB", path, CONFIG_SIZE_MAX >> 10);
    if (r < 0 && r != -ENOENT)
        return err_fail(err, r, "cannot read %s: %s", path, strerror(-r));
    if (r == 0 && b->size && memchr(b->data, '\0', b->size))
        return err_fail(err, -EINVAL, "%s: this is no text file", path);
    return r;
}

int config_read(struct config *c, const char *path, bool is_system, config_warn_fn *warn_fn,
                void *ctx, struct err *err)
{
    AUTO(buf_release) struct buf b = BUF_INIT(CONFIG_SIZE_MAX);
    struct parser p = {
        .config = c, .path = path, .is_system = is_system, .warn = warn_fn, .warn_ctx = ctx};
    int r = slurp_config(path, &b, err);

    if (r < 0 || !b.size)
        return r == -ENOENT ? 0 : r;
    char *text = (char *)b.data;
    while (text && r == 0) {
        char *end = strchr(text, '\n');
        if (end)
            *end = '\0';
        p.line++;
        r = parse_line(&p, text, err);
        text = end ? end + 1 : NULL;
    }
    return r;
}

static void release_cluster(struct cluster *cluster)
{
    free(cluster->store);
    free(cluster->endpoint);
    free(cluster->region);
    free(cluster->addressing);
    free(cluster->profile);
    free(cluster->ca_file);
    free(cluster->users);
    free(cluster->file);
}

void config_release(struct config *c)
{
    for (size_t i = 0; i < c->clusters.count; i++)
        release_cluster(&c->clusters.at[i]);
    for (size_t i = 0; i < c->buckets.count; i++)
        release_cluster(&c->buckets.at[i]);
    vec_release(&c->clusters);
    vec_release(&c->buckets);
}

/* ---- writing ---- */

/* Does the line (up to its newline) set `context`, or begin a section, [user] perhaps? */
static bool line_is_context(const char *line)
{
    while (is_blank(*line))
        line++;
    if (strncmp(line, "context", 7) != 0)
        return false;
    for (line += 7; is_blank(*line); line++)
        continue;
    return *line == '=';
}

static bool line_is_user(const char *line)
{
    while (is_blank(*line))
        line++;
    if (*line++ != '[')
        return false;
    while (is_blank(*line))
        line++;
    return strncmp(line, "user", 4) == 0 && (line[4] == ']' || is_blank(line[4]));
}

static bool line_is_section(const char *line)
{
    while (is_blank(*line))
        line++;
    return *line == '[';
}

/* `old` with [user] context set, everything else as it was. */
static int with_context(const char *old, const char *name, struct buf *b)
{
    bool in_user = false, is_done = false;
    int r = 0;

    while (*old && r == 0) {
        size_t n = strcspn(old, "\n");
        bool ends = old[n] == '\n';
        if (line_is_section(old))
            in_user = line_is_user(old);
        if (in_user && line_is_context(old)) {
            if (!is_done)
                r = buf_printf(b, "context = %s\n", name);
            is_done = true;
        } else {
            r = buf_append(b, old, n);
            if (r == 0)
                r = buf_append_str(b, "\n");
            if (r == 0 && in_user && !is_done && line_is_section(old)) {
                r = buf_printf(b, "context = %s\n", name);
                is_done = true;
            }
        }
        old += n + ends;
    }
    if (r == 0 && !is_done)
        r = buf_printf(b, "%s[user]\ncontext = %s\n", b->size ? "\n" : "", name);
    return r;
}

/* Replace the file in one step; a symbolic link (to somebody's dotfiles) is followed. */
static int replace_file(const char *path, const struct buf *b, struct err *err)
{
    char real[PATH_MAX], temp[PATH_MAX];
    struct stat st;
    mode_t mode = 0644;

    if (realpath(path, real)) {
        if (stat(real, &st) == 0)
            mode = st.st_mode & 0777;
    } else if ((size_t)snprintf(real, sizeof real, "%s", path) >= sizeof real) {
        return err_fail(err, -ENAMETOOLONG, "%s: the path is too long", path);
    }
    if ((size_t)snprintf(temp, sizeof temp, "%s.XXXXXX", real) >= sizeof temp)
        return err_fail(err, -ENAMETOOLONG, "%s: the path is too long", path);

    AUTO(close_fd) int fd = mkostemp(temp, O_CLOEXEC);
    if (fd < 0)
        return err_fail(err, -errno, "cannot write %s: %s", path, strerror(errno));
    int r = file_write(fd, b->data, b->size);
    if (r == 0 && (fchmod(fd, mode) < 0 || fsync(fd) < 0 || rename(temp, real) < 0))
        r = -errno;
    if (r < 0) {
        (void)unlink(temp); /* the first error is the one to tell */
        return err_fail(err, r, "cannot write %s: %s", path, strerror(-r));
    }
    return 0;
}

int config_set_context(const char *path, const char *name, struct err *err)
{
    AUTO(buf_release) struct buf old = BUF_INIT(CONFIG_SIZE_MAX);
    AUTO(buf_release) struct buf b = BUF_INIT(CONFIG_SIZE_MAX + 256);
    AUTO(free_ptr) char *directory = strdup(path);
    char *slash = directory ? strrchr(directory, '/') : NULL;
    int r = slurp_config(path, &old, err);

    if (r < 0 && r != -ENOENT)
        return r;
    if (slash && slash != directory) {
        *slash = '\0';
        r = file_mkdirs(directory, 0700);
        if (r < 0)
            return err_fail(err, r, "cannot make %s: %s", directory, strerror(-r));
    }
    r = with_context(buf_text(&old), name, &b);
    return r < 0 ? err_fail(err, r, "cannot write %s: %s", path, strerror(-r))
                 : replace_file(path, &b, err);
}
