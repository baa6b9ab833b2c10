/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A bucket as SOURCE: where it is, as whom it is read, and that it is not the store itself.
 *
 * What is not said by --source-... is taken from the section [bucket NAME], then from where AWS's
 * own tools look. A source's place has nothing to do with the store's: they may be at two
 * providers.
 */
#include "cli/cmd-create.h"
#include "cli/credential.h"

#include <stdlib.h>
#include <string.h>

static void on_listing(void *ctx, uint64_t files, uint64_t bytes)
{
    struct progress line = {.phase = "Listing", .files = files, .bytes = bytes};

    progress_show(&line);
}

static const char *first_of(const char *a, const char *b)
{
    return a ? a : b;
}

/* The section of the bucket that `location` names; or NULL. */
static const struct cluster *find_section(const struct cli *cli, const char *location)
{
    const char *name = location + strlen("s3://");
    size_t n = strcspn(name, "/");

    for (size_t i = 0; i < cli->config.buckets.count; i++) {
        const struct cluster *b = &cli->config.buckets.at[i];
        if (strlen(b->name) == n && memcmp(b->name, name, n) == 0)
            return b;
    }
    return NULL;
}

/* Whoever has stored roles may mean one of them: the first that may list the source is taken, if
 * what is there without any may not. */
static int choose_role(struct cli *cli, const char *location, struct source_s3_options *o,
                       struct credential *role, struct err *err)
{
    AUTO(credentials_release) struct credentials stored = {0};
    AUTO(free_ptr) char *path = NULL;
    AUTO(s3_free) struct s3 *client = NULL;
    char bucket[256], prefix[S3_KEY_MAX + 1];
    const char *how = o->addressing ? o->addressing : "auto";
    struct s3_options options = {
        .endpoint = o->endpoint,
        .region = o->region,
        .profile = o->profile,
        .ca_file = o->ca_file,
        .addressing = strcmp(how, "path") == 0      ? S3_ADDRESSING_PATH
                      : strcmp(how, "virtual") == 0 ? S3_ADDRESSING_VIRTUAL
                                                    : S3_ADDRESSING_AUTO,
    };

    int r = credentials_path(&cli->places, &path, err);
    if (r == 0)
        r = credentials_read(path, &stored, err);
    if (r < 0 || stored.rows.count == 0)
        return r;
    r = s3_parse_location(location, bucket, prefix, err);
    if (r == 0)
        r = credential_choose(path, &options, bucket, prefix, NULL, &client, role, err);
    if (r < 0 || !*role->name)
        return r;
    say("reading %s with the credential %s", location, role->name);
    o->role_arn = role->role_arn;
    o->external_id = *role->external_id ? role->external_id : NULL;
    return 0;
}

int source_open_bucket(struct cli *cli, const struct source_choice *c, struct source **ret,
                       struct err *err)
{
    const struct cluster *section = find_section(cli, c->location);
    AUTO(free_ptr) char *terms = c->terms ? strdup(c->terms) : NULL;
    struct source_s3_options o = {.endpoint = c->endpoint,
                                  .region = c->region,
                                  .profile = c->profile,
                                  .pins = c->pins,
                                  .progress = on_listing,
                                  .interrupted = &interrupt_signal};

    if (c->terms && !terms)
        return err_fail(err, -ENOMEM, "out of memory");
    if (terms) /* as it was opened then, whatever the configuration says now */
        source_s3_parse_terms(terms, &o);
    if (section && !terms) {
        o.endpoint = first_of(o.endpoint, section->endpoint);
        o.region = first_of(o.region, section->region);
        o.profile = first_of(o.profile, section->profile);
        o.addressing = section->addressing;
        o.ca_file = section->ca_file;
    }
    AUTO(free_ptr) struct credential *role = calloc(1, sizeof *role);
    int r = role ? choose_role(cli, c->location, &o, role, err)
                 : err_fail(err, -ENOMEM, "out of memory");
    if (r < 0)
        return r;
    interrupt_catch();
    r = source_s3_open(c->location, &o, ret, err);
    progress_clear();
    return r;
}

/* Where a client that is told `endpoint` (NULL: nothing) will go. */
static void place_of(const char *endpoint, char ret[static 1024])
{
    const char *const names[] = {"AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"};

    for (size_t i = 0; i < 2 && !endpoint; i++) {
        const char *value = getenv(names[i]);
        if (value && *value)
            endpoint = value;
    }
    size_t n = (size_t)snprintf(ret, 1024, "%.1000s", endpoint ? endpoint : "");
    while (n > 0 && ret[n - 1] == '/')
        ret[--n] = '\0';
}

/* Does one of them begin with the other, as directories? */
static bool overlap(const char *a, const char *b)
{
    size_t n = strlen(a), m = strlen(b), least = n < m ? n : m;

    if (strncmp(a, b, least) != 0)
        return false;
    return n == m || least == 0 || a[least - 1] == '/' || (n < m ? b : a)[least] == '/';
}

bool source_overlaps_store(const struct cli *cli, struct source *source)
{
    const struct source_bucket *b = source_bucket(source);
    char ours[1024], theirs[1024], bucket[256];
    const char *store = cli->store;

    if (!b || strncmp(store, "s3://", 5) != 0)
        return false;
    size_t n = strcspn(store + 5, "/");
    if (n >= sizeof bucket)
        return false;
    (void)snprintf(bucket, sizeof bucket, "%.*s", (int)n, store + 5); /* measured */
    place_of(cli->options.endpoint, theirs);
    place_of(b->endpoint, ours);
    if (strcmp(bucket, b->bucket) != 0 || strcmp(ours, theirs) != 0)
        return false;
    return overlap(b->prefix, store[5 + n] ? store + 5 + n + 1 : "");
}
