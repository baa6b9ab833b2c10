/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From "NAME:N/path" to an opened version, with a sentence for all that can be wrong on the way.
 */
#include "cli/cli-internal.h"
#include "cli/linking.h"

#include "base/log.h"
#include "base/name.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

/* A store on a network may fail for a moment: three tries within half a minute. */
static const struct store_retry_policy retry_policy = {
    .attempts = 3, .first_delay_ms = 50, .max_delay_ms = 1000, .deadline_ms = 30000};

/* Records of a listing that are read at once from a bucket, where each costs a round trip. */
#define S3_READERS 224u

/* ---- references ---- */

int reference_parse(const char *text, char ret_name[static 64], uint32_t *ret_version,
                    const char **ret_path, struct err *err)
{
    char name[64];
    uint32_t version = 0;
    size_t end = strcspn(text, "/"), length = strcspn(text, ":/");

    if (length >= sizeof name)
        return err_fail(err, -EINVAL, "'%.100s...' is no name of a datastore: it is too long",
                        text);
    memcpy(name, text, length);
    name[length] = '\0';
    if (!name_is_valid(name))
        return err_fail(err, -EINVAL,
                        "'%s' is no name of a datastore: one begins with a lower case letter or "
                        "digit and goes on with these, '.', '_' or '-'",
                        name);
    if (text[length] == ':') {
        AUTO(free_ptr) char *number = strndup(text + length + 1, end - length - 1);
        if (!number)
            return err_fail(err, -ENOMEM, "out of memory");
        if (parse_version(number, &version) < 0)
            return err_fail(err, -EINVAL, "'%.100s' is no version of %s: write %s:1", number, name,
                            name);
    }
    memcpy(ret_name, name, sizeof name);
    *ret_version = version;
    *ret_path = text[end] == '/' ? text + end + 1 : "";
    return 0;
}

/* ---- stores ---- */

static bool is_s3(const char *location)
{
    return strncmp(location, "s3:", 3) == 0;
}

bool is_far(const struct cli *cli)
{
    return is_s3(cli->store);
}

static int open_retried(const char *location, unsigned flags, const struct store_options *options,
                        struct store **ret, struct err *err)
{
    struct store *below;
    int r = store_open_with(location, flags, options, &below, err);

    if (r < 0)
        return r;
    if (is_s3(location)) { /* it retries by itself, and knows better */
        *ret = below;
        return 0;
    }
    r = store_retry_new(below, &retry_policy, env_real(), ret);
    if (r < 0)
        store_close(below);
    return r;
}

static unsigned store_flags(bool write, bool coherent)
{
    return (write ? STORE_WRITE : STORE_READ) | (coherent ? STORE_COHERENT : 0u);
}

int open_store(const struct cli *cli, bool write, struct store **ret, struct err *err)
{
    return open_retried(cli->store, store_flags(write, cli->coherent), &cli->options, ret, err);
}

/* Each record costs a round trip: many are read at once, and none twice. */
static void far_away(const struct cli *cli, struct catalogue *c)
{
    AUTO(free_ptr) char *directory = NULL;

    catalogue_set_readers(c, S3_READERS);
    if (asprintf(&directory, "%s/records", cli->places.cache) >= 0)
        (void)catalogue_keep_records(c, directory); /* else they are read each time */
}

int open_catalogue_quietly(struct cli *cli, bool write, struct opened *o, struct err *err)
{
    int r = open_store(cli, write, &o->store, err);

    if (r < 0)
        return r;
    r = catalogue_open(o->store, env_real(), write ? CATALOGUE_WRITE : CATALOGUE_READ,
                       &o->catalogue, err);
    if (r < 0 && !strstr(err_text(err, r), o->store->location))
        err_prefix(err, r, "cannot use the store %s", o->store->location);
    if (r == 0 && is_s3(cli->store))
        far_away(cli, o->catalogue);
    return r;
}

int open_catalogue(struct cli *cli, bool write, struct opened *o)
{
    struct err err = ERR_INIT;
    int r = open_catalogue_quietly(cli, write, o, &err);

    return r < 0 ? say_err(&err, r) : CLI_DONE;
}

/* ---- versions ---- */

/* A bare NAME may be somebody else's: a label, no access control, but worth knowing. From afar it
 * is asked for while the version is looked for, whether it will be told or not. */
struct owner_look {
    struct catalogue *c; /* NULL: not asked yet */
    const char *name;
    pthread_t thread;
    int result;
    char owner[64];
};

static void *look_for_owner(void *arg)
{
    struct owner_look *l = arg;

    l->result = catalogue_owner(l->c, l->name, l->owner, NULL);
    return NULL;
}

static void owner_begin(struct owner_look *l, const struct opened *o, const char *name)
{
    static const struct catalogue_known none; /* what a store is known by is not needed to read */

    l->name = name;
    if (catalogue_open_known(o->store, env_real(), &none, &l->c, NULL) == 0 &&
        pthread_create(&l->thread, NULL, look_for_owner, l) != 0) {
        catalogue_close(l->c);
        l->c = NULL;
    }
}

static void owner_end(struct owner_look *l)
{
    if (!l->c)
        return;
    (void)pthread_join(l->thread, NULL); /* ours, joinable: cannot fail */
    catalogue_close(l->c);
}

static void tell_owner(const struct cli *cli, const struct opened *o, struct owner_look *l)
{
    /* Who has made the newest version knows. */
    if (strcmp(o->info.owner, cli->owner) == 0)
        return;
    if (!l->c)
        l->result = catalogue_owner(o->catalogue, o->info.name, l->owner, NULL);
    if (l->result == 0 && strcmp(l->owner, cli->owner) != 0)
        say("%s belongs to %s", o->info.name, l->owner);
}

int open_catalogue_beside(struct cli *cli, struct opened *o, struct err *err)
{
    if (!is_far(cli))
        return catalogue_open(o->store, env_real(), CATALOGUE_READ, &o->catalogue, err);
    int r = catalogue_open_beside(o->store, env_real(), &o->catalogue, err);
    if (r == 0)
        far_away(cli, o->catalogue);
    return r;
}

bool opened_no_store(const struct opened *o, int code, struct err *err)
{
    if (o->catalogue && catalogue_store_id(o->catalogue)[0])
        return false;
    if (o->store && !strstr(err_text(err, code), o->store->location))
        err_prefix(err, code, "cannot use the store %s", o->store->location);
    return true;
}

/* Open the catalogue and find the version. From afar both at once, with the owner. */
static int find_version(struct cli *cli, const char *name, uint32_t version, struct opened *o,
                        struct owner_look *owner, struct err *err)
{
    int r = open_store(cli, false, &o->store, err);

    if (r == 0 && is_far(cli) && version == 0)
        owner_begin(owner, o, name);
    if (r == 0)
        r = open_catalogue_beside(cli, o, err);
    if (r == 0)
        r = catalogue_resolve(o->catalogue, name, version, &o->info, err);
    owner_end(owner);
    return r;
}

int open_version(struct cli *cli, const char *reference, bool path_allowed, struct opened *o)
{
    struct err err = ERR_INIT;
    char name[64];
    uint32_t version = 0;
    const char *path = "";

    int r = reference_parse(reference, name, &version, &path, &err);
    if (r == 0 && *path && !path_allowed)
        r = err_fail(&err, -EINVAL, "'%s' names a file; here a whole datastore is meant: %s",
                     reference, name);
    if (r == 0 && strlen(path) >= sizeof o->path)
        r = err_fail(&err, -ENAMETOOLONG, "the path in '%.60s...' is too long", reference);
    if (r < 0)
        return say_err(&err, r);
    (void)snprintf(o->path, sizeof o->path, "%s", path);

    struct owner_look owner = {.c = NULL};
    r = find_version(cli, name, version, o, &owner, &err);
    if (r < 0 && opened_no_store(o, r, &err) && r == -ENOENT)
        err_prefix(&err, r, "there is no datastore '%s'", name);
    if (r < 0)
        return say_err(&err, r);
    if (version == 0)
        tell_owner(cli, o, &owner);
    return CLI_DONE;
}

static int attach_view(struct opened *o, const struct fetch_options *options,
                       const struct manifest *known, struct err *err)
{
    struct fetch_options all = *options;

    all.store = o->store;
    all.cache = o->cache;
    o->linking = linking_clients_new();
    if (!o->linking)
        return err_fail(err, -ENOMEM, "out of memory");
    all.open_source = linking_open;
    all.open_source_ctx = o->linking;
    int r = fetch_new(&all, &o->fetch);

    if (r < 0)
        return err_fail(err, r, "cannot open %s:%u: %s", o->info.name, o->info.version,
                        strerror(-r));
    r = view_open_known(o->catalogue, &o->info, known, o->fetch, &o->view, err);
    return r < 0 ? err_prefix(err, r, "cannot open %s:%u", o->info.name, o->info.version) : 0;
}

int open_view(struct cli *cli, const char *reference, bool path_allowed, struct opened *o)
{
    struct cache_place place;
    int code = cache_place_choose(cli, NULL, &place);

    return code == CLI_DONE ? open_view_cached(cli, reference, path_allowed, &place, false, o)
                            : code;
}

int open_view_cached(struct cli *cli, const char *reference, bool path_allowed,
                     const struct cache_place *place, bool fills, struct opened *o)
{
    struct err err = ERR_INIT;
    int code = open_version(cli, reference, path_allowed, o);

    if (code != CLI_DONE)
        return code;
    int r = 0;
    if (cache_place_is_wanted(place, o->store))
        r = cache_place_open(place, &o->cache, &err);
    if (r < 0) {
        say("reading without a cache: %s", err_text(&err, r));
        err_clear(&err);
    }
    r = attach_view(o, &(struct fetch_options){.keep_first = fills}, NULL, &err);
    return r < 0 ? say_err(&err, r) : CLI_DONE;
}

int open_again(const char *store, bool coherent, const struct store_options *options,
               const struct version_info *info, const struct catalogue_known *known,
               const struct cache_place *place, struct opened *o, struct err *err)
{
    o->info = *info;
    int r = open_retried(store, store_flags(true, coherent), options, &o->store, NULL);
    if (r < 0) /* who may not write reads all the same, unprotected */
        r = open_retried(store, store_flags(false, coherent), options, &o->store, err);
    if (r == 0)
        r = catalogue_open_known(o->store, env_real(), known, &o->catalogue, err);
    if (r < 0)
        return r;
    struct err why = ERR_INIT;
    r = cache_place_is_wanted(place, o->store) ? cache_place_open(place, &o->cache, &why) : 0;
    if (r < 0)
        log_warning("reading without a cache: %s", err_text(&why, r));
    return 0;
}

int open_again_view(struct opened *o, const struct fetch_options *reading,
                    const struct manifest *known, struct err *err)
{
    return attach_view(o, reading, known, err);
}

void opened_release(struct opened *o)
{
    view_close(o->view);
    fetch_free(o->fetch);
    cache_close(o->cache);
    linking_clients_free(o->linking);
    catalogue_close(o->catalogue);
    store_close(o->store);
    memset(o, 0, sizeof *o);
}
