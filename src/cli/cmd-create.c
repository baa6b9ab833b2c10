/* SPDX-License-Identifier: Apache-2.0 */
/*
 * grid datastore create: from a source to a new version.
 *
 * What can be wrong with the words is said before anything is opened, what can be wrong with the
 * source before the store is made, and where it stores before it writes. publish_and_tell() is also
 * what `resume` ends in.
 */
#include "cli/cmd-create.h"

#include "archive/archive.h"
#include "base/name.h"

#include <inttypes.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

const struct option cmd_create_options[] = {
    {"--name", 0, "NAME", "name of the datastore; default: the last component of SOURCE", NULL},
    {"--source", 0, "SOURCE", "deprecated: give SOURCE as the argument", NULL},
    OPTION_CLUSTER,
    {"--append", 0, NULL, "add a version although the name belongs to somebody else", NULL},
    {"--exclude-private", 0, NULL, "leave files out that not everybody may read", NULL},
    {"--trust-mtime", 0, NULL, "believe size and time where inode numbers are not stable", NULL},
    {"--store-is-coherent", 0, NULL, "the store's file system may be shared by writers", NULL},
    {"--source-endpoint", 0, "URL", "the server of an S3 source, if it is not the default", NULL},
    {"--source-region", 0, "REGION", "the region of an S3 source", NULL},
    {"--source-profile", 0, "PROFILE", "the AWS profile that may read an S3 source", NULL},
    {"--no-copy", 0, NULL, "copy nothing: link to the objects of an S3 source as they are now",
     NULL},
    OPTION_JSON,
    OPTION_END};

/* Private files named one by one before they are only counted. */
#define NAMED_MAX 3
/* The same of keys that cannot be files. */
#define KEYS_NAMED_MAX 100

struct telling {
    struct cli *cli;
    const struct publish_options *options;
    struct opened *opened;
    uint64_t private_files, skipped, changed, xattrs, keys;
    uint64_t absolute, replaced, encodings;
    char named[NAMED_MAX][128];
    bool was_told; /* a sentence that explains the failure stands already */
};

/* ---- what publish tells ---- */

static void on_progress(void *ctx, const struct publish_progress *p)
{
    static const char *const phases[] = {[PUBLISH_WALK] = "Looking",
                                         [PUBLISH_READ] = "Storing",
                                         [PUBLISH_INDEX] = "Writing the index",
                                         [PUBLISH_COMMIT] = "Committing"};
    /* A file counts when it is done; of a large one, what was stored tells how far it is. Of an
     * archive what was taken of it tells. */
    uint64_t stored = p->is_stream                       ? 0
                      : p->bytes_stored < p->bytes_total ? p->bytes_stored
                                                         : p->bytes_total;
    struct progress line = {.phase = phases[p->phase],
                            .files = p->files_done,
                            .files_total = p->files_total,
                            .bytes = stored > p->bytes_done ? stored : p->bytes_done,
                            .bytes_total = p->bytes_total};

    progress_show(&line);
}

static void on_notice(void *ctx, enum publish_notice_kind kind, const char *path)
{
    struct telling *t = ctx;

    switch (kind) {
    case PUBLISH_NOTICE_PRIVATE:
        if (t->private_files < NAMED_MAX)
            (void)snprintf(t->named[t->private_files], sizeof t->named[0], "%s", path);
        t->private_files++;
        break;
    case PUBLISH_NOTICE_SKIPPED:
        if (t->skipped++ < NAMED_MAX)
            say("skipped %s: sockets, devices and FIFOs are not stored", path);
        break;
    case PUBLISH_NOTICE_KEY:
        if (t->keys++ < KEYS_NAMED_MAX)
            say("skipped %s", path);
        break;
    case PUBLISH_NOTICE_CHANGED:
        if (t->changed++ < NAMED_MAX)
            say("%s changed while it was read, and is read again", path);
        break;
    case PUBLISH_NOTICE_XATTR:
        if (t->xattrs++ < NAMED_MAX)
            say("the extended attributes of %s are too large and are left out", path);
        break;
    case PUBLISH_NOTICE_RESUMED:
        say("continuing the interrupted upload of %s:%s", t->options->name, path);
        break;
    case PUBLISH_NOTICE_ABSOLUTE:
        if (t->absolute++ < NAMED_MAX)
            say("%s is unpacked without the '/' that its path begins with", path);
        break;
    case PUBLISH_NOTICE_REPLACED:
        if (t->replaced++ < NAMED_MAX)
            say("%s is in the archive more than once: the last one counts", path);
        break;
    case PUBLISH_NOTICE_ENCODING:
        if (t->encodings++ < NAMED_MAX)
            say("the name of %s is no UTF-8: its bytes are kept", path);
        break;
    }
}

static void tell_private(const struct telling *t)
{
    char count[FIGURE_MAX];
    bool is_one = t->private_files == 1;

    if (t->private_files == 0)
        return;
    (void)figure_count(t->private_files, count);
    if (t->options->exclude_private)
        say("%s private file%s %s left out (%s%s%s%s%s%s)", count, is_one ? "" : "s",
            is_one ? "is" : "are", t->named[0], *t->named[1] ? ", " : "", t->named[1],
            *t->named[2] ? ", " : "", t->named[2], t->private_files > NAMED_MAX ? ", ..." : "");
    else
        say("%s private file%s become%s readable to all who can read the store (%s%s%s%s%s%s); "
            "--exclude-private leaves %s out",
            count, is_one ? "" : "s", is_one ? "s" : "", t->named[0], *t->named[1] ? ", " : "",
            t->named[1], *t->named[2] ? ", " : "", t->named[2],
            t->private_files > NAMED_MAX ? ", ..." : "", is_one ? "it" : "them");
}

static void tell_keys(const struct telling *t)
{
    char count[FIGURE_MAX];

    if (t->keys > KEYS_NAMED_MAX)
        say("skipped %s in all, of which %d are named above", figure_things(t->keys, "key", count),
            KEYS_NAMED_MAX);
}

/* The walk is done, nothing is written yet: does it fit? Of a first version everything is stored;
 * of a later one only what changed, which nobody knows yet: that is only warned of. */
static int on_confirm(void *ctx, const struct publish_progress *totals)
{
    struct telling *t = ctx;
    struct store_space space = {.free_bytes = -1};
    struct version_info newest;
    char need[FIGURE_MAX], free[FIGURE_MAX];

    tell_private(t);
    tell_keys(t);
    if (store_space(t->opened->store, &space) < 0 || space.free_bytes < 0 ||
        totals->bytes_total <= (uint64_t)space.free_bytes)
        return 0;
    (void)figure_bytes(totals->bytes_total, need);
    (void)figure_bytes((uint64_t)space.free_bytes, free);
    if (catalogue_resolve(t->opened->catalogue, t->options->name, 0, &newest, NULL) == 0) {
        say("the source is %s and %s has %s free: only what changed must fit", need, t->cli->store,
            free);
        return 0;
    }
    say("the source does not fit: it is %s, and %s has %s free", need, t->cli->store, free);
    t->was_told = true;
    return -ENOSPC;
}

/* ---- how it ended ---- */

static void tell_done(const struct publish_result *r, double seconds)
{
    char a[FIGURE_MAX], b[FIGURE_MAX], c[FIGURE_MAX], d[FIGURE_MAX], e[FIGURE_MAX];

    say("%s, %s; %s unchanged; %s stored in %s; %.1f s", figure_things(r->info.files, "file", a),
        figure_bytes(r->info.size_bytes, b), figure_count(r->files_unchanged, c),
        figure_bytes(r->bytes_stored, d), figure_things(r->packs_written, "new pack", e), seconds);
}

static void tell_linked(const struct publish_result *r, double seconds)
{
    char a[FIGURE_MAX], b[FIGURE_MAX], c[FIGURE_MAX];

    say("%s, %s, linked and not copied: they are read from the source, and only as long as they "
        "stay what they are; %s of tables and index stored; %.1f s",
        figure_things(r->info.files, "file", a), figure_bytes(r->info.size_bytes, b),
        figure_bytes(r->bytes_stored, c), seconds);
}

static int tell_failed(const struct telling *t, const struct err *err, int r)
{
    if (interrupt_signal && t->options->linked) {
        say("interrupted; nothing of it is visible. The same command again begins anew");
        return 128 + interrupt_signal;
    }
    if (interrupt_signal) {
        say("interrupted; nothing of this upload is visible. The same command again, or 'grid "
            "datastore resume --name %s', continues it",
            t->options->name);
        return 128 + interrupt_signal;
    }
    if (t->was_told)
        return CLI_FAILED;
    return say_err(err, r);
}

static void tell_more(uint64_t count, const char *what)
{
    char text[FIGURE_MAX];

    if (count > NAMED_MAX)
        say("%s %s in all", figure_count(count, text), what);
}

/* Of a stream all is known only when it has come. */
static void tell_stream(const struct telling *t)
{
    tell_private(t);
    tell_more(t->skipped, "entries were skipped");
    tell_more(t->xattrs, "files have lost attributes");
    tell_more(t->absolute, "entries had paths that began with '/'");
    tell_more(t->replaced, "entries were there more than once");
    tell_more(t->encodings, "names are no UTF-8");
}

int publish_and_tell(struct cli *cli, struct opened *o, struct source *source,
                     struct publish_options *options, bool json)
{
    struct telling t = {.cli = cli, .options = options, .opened = o};
    struct publish_result result;
    struct err err = ERR_INIT;
    int64_t start = env_real()->boot_ms(env_real());

    options->owner = cli->owner;
    options->host = cli->host;
    options->state_dir = cli->places.cache;
    options->progress = on_progress;
    options->notice = on_notice;
    options->confirm = on_confirm;
    options->ctx = &t;
    options->interrupted = &interrupt_signal;
    interrupt_catch();
    int r = publish_run(o->catalogue, source, options, &result, &err);
    progress_clear();
    if (r < 0)
        return tell_failed(&t, &err, r);

    if (source->stream)
        tell_stream(&t);
    double seconds = (double)(env_real()->boot_ms(env_real()) - start) / 1000;
    if (options->linked)
        tell_linked(&result, seconds);
    else
        tell_done(&result, seconds);
    if (json)
        return json_print(json_version(cli, &result.info));
    printf("%s:%" PRIu32 "\n", result.info.name, result.info.version);
    return finish_stdout(CLI_DONE);
}

/* ---- the words ---- */

static int choose_source(const struct args *args, const char **ret)
{
    const char *old = args_text(args, "--source");
    const char *source = args->words.count ? args->words.at[0] : old;

    if (!source)
        return say_usage(args->command,
                         "a source is missing: a directory, a file, a bucket or an archive's URL");
    if (old && args->words.count)
        return say_usage(args->command, "SOURCE is given twice: as an argument and by --source");
    if (old)
        say("--source is deprecated: 'grid datastore create %s'", source);
    if (args_flag(args, "--no-copy") && source_is_url(source))
        return say_usage(args->command,
                         "--no-copy is for S3 sources: an archive is always unpacked and copied");
    if (args_flag(args, "--no-copy") && !source_is_bucket(source))
        return say_failed("--no-copy is for S3 sources: %s is always copied", source);
    if (source_is_url(source) && !archive_has_suffix(source))
        return say_usage(args->command,
                         "a URL is the source only where it is one of an archive, and ends in "
                         "one of " ARCHIVE_SUFFIXES);
    *ret = source;
    return CLI_DONE;
}

static int choose_name(const struct args *args, const char *location,
                       char ret[static NAME_MAX_LENGTH + 1])
{
    const char *given = args_text(args, "--name");

    if (!given) {
        if (name_derive(location, source_is_url(location), ret))
            return CLI_DONE;
        return say_usage(args->command, "no name can be made of '%s': give one with --name",
                         location);
    }
    if (!name_is_valid(given))
        return say_failed("'%s' is no name for a datastore: it begins with a lower case letter or "
                          "digit and goes on with these, '.', '_' or '-', 63 in all",
                          given);
    (void)snprintf(ret, NAME_MAX_LENGTH + 1, "%s", given);
    return CLI_DONE;
}

/* A store inside its own source would grow while it is read. */
static bool contains_store(const char *location, const char *store)
{
    char real[PATH_MAX];
    AUTO(free_ptr) char *path = strdup(strncmp(store, "file://", 7) == 0 ? store + 7 : store);
    size_t n = strlen(location);

    if (strncmp(store, "s3:", 3) == 0)
        return false;
    /* What is not there yet is made below what is. */
    while (path && !realpath(path, real)) {
        char *slash = strrchr(path, '/');
        if (!slash || slash == path)
            return false;
        *slash = '\0';
    }
    if (!path || strncmp(real, location, n) != 0)
        return false;
    return real[n] == '/' || real[n] == '\0' || (n == 1 && location[0] == '/');
}

int cmd_create(struct cli *cli, const struct args *args)
{
    AUTO(opened_release) struct opened o = {0};
    AUTO(source_close) struct source *source = NULL;
    struct err err = ERR_INIT;
    char name[NAME_MAX_LENGTH + 1];
    const char *path = NULL;

    int code = choose_source(args, &path);
    if (code != CLI_DONE)
        return code;
    /* A bucket takes its time to be listed, so its name is settled before. */
    code = source_is_bucket(path) ? choose_name(args, path, name) : CLI_DONE;
    if (code != CLI_DONE)
        return code;
    struct source_choice choice = {.location = path,
                                   .endpoint = args_text(args, "--source-endpoint"),
                                   .region = args_text(args, "--source-region"),
                                   .profile = args_text(args, "--source-profile"),
                                   .pins = args_flag(args, "--no-copy")};
    int r = source_choose(cli, &choice, &source, &err);
    if (r < 0)
        return say_source_failed(&err, r);
    code = choose_name(args, source->location, name);
    if (code != CLI_DONE)
        return code;
    if (source_overlaps_store(cli, source))
        return say_failed("the source %s and the store %s overlap: a store cannot be stored in "
                          "itself; choose another source, or another store with GRID_STORE or "
                          "--cluster",
                          source->location, cli->store);
    if (contains_store(source->location, cli->store))
        return say_failed("the store %s lies inside the source %s, and would be stored in itself; "
                          "choose another store with GRID_STORE or --cluster",
                          cli->store, source->location);

    cli->coherent |= args_flag(args, "--store-is-coherent");
    say("storing %s as %s in %s (cluster %s)", source->location, name, cli->store, cli->cluster);
    code = open_catalogue(cli, true, &o);
    if (code != CLI_DONE)
        return code;

    struct publish_options options = {.name = name,
                                      .linked = args_flag(args, "--no-copy"),
                                      .append = args_flag(args, "--append"),
                                      .exclude_private = args_flag(args, "--exclude-private"),
                                      .trust_mtime = args_flag(args, "--trust-mtime")};
    return publish_and_tell(cli, &o, source, &options, args_flag(args, "--json"));
}
