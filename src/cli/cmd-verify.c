/* SPDX-License-Identifier: Apache-2.0 */
/*
 * grid datastore verify: every byte of a version against its digest, as it lies in the store.
 *
 * The manifest against the record, the index object leaf by leaf, the index image against the rules
 * of its format, every pack leaf by leaf. All damage is listed, with the files that lie in it. What
 * a machine remembers of the store (memory, page cache of a mount) is not asked.
 *
 * Of a linked version the tables of links are checked like this, and then the source is asked which
 * of its objects are not what they were.
 */
#include "cli/damage.h"
#include "cli/drift.h"
#include "cli/linking.h"

#include <inttypes.h>
#include <string.h>

const struct option cmd_verify_options[] = {OPTION_CLUSTER, OPTION_JSON, OPTION_END};

/* Files named one by one on stderr; with --json all are. */
#define NAMED_MAX 20

struct verify {
    struct opened o;
    struct manifest manifest;
    struct damage damage, index_damage;
    struct progress progress;
    char index_sentence[512]; /* what is wrong with the image; "" if nothing */
    uint64_t files_damaged;
    struct drift_report drift;
    json_t *rows, *files, *drifted; /* NULL: text */
};

static int check_packs(struct verify *v)
{
    struct manifest *m = &v->manifest;
    int r = damage_check_object(v->o.store, 'x', &m->index, 0, &v->progress, &v->index_damage);

    for (uint32_t i = 0; r == 0 && i < m->pack_count; i++) {
        r = damage_check_object(v->o.store, 'p', &m->packs[i], i, &v->progress, &v->damage);
    }
    progress_clear();
    return r;
}

/* Open the view and check the image: it can be wrong although its bytes are what was published. */
static int check_index(struct verify *v)
{
    struct index_counts counts;
    struct err err = ERR_INIT;

    struct fetch_options options = {.store = v->o.store};
    int r = fetch_new(&options, &v->o.fetch);
    if (r == 0)
        r = view_open(v->o.catalogue, &v->o.info, v->o.fetch, &v->o.view, &err);
    if (r == 0)
        r = index_check(view_index(v->o.view), &counts, &err);
    if (r == 0 &&
        (counts.files != v->manifest.files || counts.size_bytes != v->manifest.size_bytes))
        r = err_fail(&err, -EPROTO, "the index has other files than the manifest says");
    if (r < 0)
        (void)snprintf(v->index_sentence, sizeof v->index_sentence, "%.500s", err_text(&err, r));
    return r == -ENOMEM ? r : 0;
}

static int tell_range(struct verify *v, char letter, const struct object_ref *ref,
                      const struct damage_range *d)
{
    char key[OBJECT_KEY_MAX];

    object_ref_key(letter, ref, key);
    if (v->rows) {
        json_t *row = json_pack("{s:s, s:I, s:I, s:s}", "key", key, "offset", (json_int_t)d->offset,
                                "size_bytes", (json_int_t)d->size, "reason", d->why);
        return json_array_append_new(v->rows, row) < 0 ? -ENOMEM : 0;
    }
    say("%s %s is damaged at byte %" PRIu64 ", %" PRIu64 " bytes: %s",
        letter == 'x' ? "index"
        : ref->linked ? "table of links"
                      : "pack",
        key, d->offset, d->size, d->why);
    return 0;
}

static int tell_file(void *ctx, const char *path, size_t length)
{
    struct verify *v = ctx;

    v->files_damaged++;
    if (v->files) {
        json_t *row = json_object();
        int r = row ? json_set_bytes(row, "path", path, length) : -ENOMEM;
        if (r < 0)
            json_decref(row);
        return r < 0 || json_array_append_new(v->files, row) < 0 ? -ENOMEM : 0;
    }
    if (v->files_damaged <= NAMED_MAX)
        say("damaged file: %s", path);
    return 0;
}

static int tell_damage(struct verify *v)
{
    int r = 0;

    for (size_t i = 0; r == 0 && i < v->index_damage.ranges.count; i++)
        r = tell_range(v, 'x', &v->manifest.index, &v->index_damage.ranges.at[i]);
    for (size_t i = 0; r == 0 && i < v->damage.ranges.count; i++) {
        const struct damage_range *d = &v->damage.ranges.at[i];
        r = tell_range(v, 'p', &v->manifest.packs[d->pack], d);
    }
    if (*v->index_sentence && v->index_damage.ranges.count == 0 && !v->rows)
        say("the index is damaged: %s", v->index_sentence);
    if (r == 0 && v->damage.ranges.count && v->manifest.linked)
        say("which files that concerns cannot be told");
    else if (r == 0 && v->damage.ranges.count && v->o.view) {
        int walked = damage_each_file(&v->damage, v->o.view, tell_file, v);
        if (walked < 0)
            say("the files in damaged places cannot all be named: %s", strerror(-walked));
    }
    return r;
}

static size_t count_ranges(const struct verify *v)
{
    return v->damage.ranges.count + v->index_damage.ranges.count;
}

/* Every drifted file is a line of the result: "changed PATH". */
static int tell_drift(void *ctx, const char *path, size_t path_length, const char *key,
                      const char *why)
{
    struct verify *v = ctx;

    if (!v->drifted) {
        progress_clear();
        print_name(path, path_length);
        printf(": %s\n", why);
        return 0;
    }
    json_t *row = json_object();
    int r = row ? json_set_bytes(row, "path", path, path_length) : -ENOMEM;
    if (r == 0)
        r = json_set_bytes(row, "key", key, strlen(key));
    if (r == 0)
        r = json_set_bytes(row, "reason", why, strlen(why));
    if (r < 0)
        json_decref(row);
    return r < 0 || json_array_append_new(v->drifted, row) < 0 ? -ENOMEM : 0;
}

static int check_drift(struct verify *v, struct err *err)
{
    struct progress progress = {.phase = "Comparing with the source",
                                .files_total = v->manifest.files};

    if (!v->manifest.linked || count_ranges(v) || *v->index_sentence)
        return 0;
    v->o.linking = linking_clients_new();
    if (!v->o.linking)
        return -ENOMEM;
    int r = drift_check(&v->o, &progress, tell_drift, v, &v->drift, err);
    return r < 0 && r != -ECANCELED
               ? err_prefix(err, r, "cannot compare %s:%" PRIu32 " with its source", v->o.info.name,
                            v->o.info.version)
               : r;
}

static int finish_linked(struct verify *v)
{
    char a[FIGURE_MAX], b[FIGURE_MAX];

    if (v->drift.drifted)
        return say_failed("%s:%" PRIu32 " has drifted: %s of %s %s not what %s", v->o.info.name,
                          v->o.info.version, figure_count(v->drift.drifted, a),
                          figure_things(v->manifest.files, "file", b),
                          v->drift.drifted == 1 ? "is" : "are",
                          v->drift.drifted == 1 ? "it was" : "they were");
    if (v->rows)
        return CLI_DONE;
    printf("%s:%" PRIu32 " is good: %s, as in %s\n", v->o.info.name, v->o.info.version,
           figure_things(v->manifest.files, "file", a), v->manifest.source);
    return finish_stdout(CLI_DONE);
}

static int finish(struct verify *v)
{
    char a[FIGURE_MAX], b[FIGURE_MAX];
    size_t ranges = count_ranges(v);
    bool is_good = ranges == 0 && !*v->index_sentence;
    int code = CLI_DONE;

    if (v->rows) {
        code = json_print(json_pack(
            "{s:s, s:I, s:b, s:I, s:I, s:O, s:O, s:s, s:O}", "name", v->o.info.name, "version",
            (json_int_t)v->o.info.version, "good", is_good && v->drift.drifted == 0, "packs",
            (json_int_t)v->manifest.pack_count, "checked_bytes", (json_int_t)v->progress.bytes,
            "damaged", v->rows, "damaged_files", v->files, "index", v->index_sentence, "drifted",
            v->drifted));
    }
    if (!is_good)
        return say_failed("%s:%" PRIu32 " is damaged: %s, %s", v->o.info.name, v->o.info.version,
                          figure_things(ranges, "place", a),
                          figure_things(v->files_damaged, "file", b));
    if (v->manifest.linked && code == CLI_DONE)
        return finish_linked(v);
    if (v->rows)
        return code;
    printf("%s:%" PRIu32 " is good: %s in %s\n", v->o.info.name, v->o.info.version,
           figure_bytes(v->progress.bytes, a), figure_things(v->manifest.pack_count, "pack", b));
    return finish_stdout(CLI_DONE);
}

static int run_verify(struct verify *v)
{
    struct err err = ERR_INIT;
    int r = catalogue_manifest(v->o.catalogue, &v->o.info, &v->manifest, &err);

    if (r < 0)
        return say_err(&err, r);
    v->progress.phase = "Verifying";
    v->progress.bytes_total = v->manifest.index.data_size;
    for (uint32_t i = 0; i < v->manifest.pack_count; i++)
        v->progress.bytes_total += v->manifest.packs[i].data_size;

    interrupt_catch();
    r = check_packs(v);
    if (r == 0)
        r = check_index(v);
    if (r == 0)
        r = tell_damage(v);
    if (r == 0)
        r = check_drift(v, &err);
    if (r == -ECANCELED) {
        say("interrupted; %s:%u was not checked to the end", v->o.info.name, v->o.info.version);
        return 128 + interrupt_signal;
    }
    return r < 0 ? say_err(&err, r) : finish(v);
}

int cmd_verify(struct cli *cli, const struct args *args)
{
    struct verify v = {0};
    bool json = args_flag(args, "--json");
    int code = open_version(cli, args->words.at[0], false, &v.o);

    if (code == CLI_DONE && json) {
        v.rows = json_array();
        v.files = json_array();
        v.drifted = json_array();
        if (!v.rows || !v.files || !v.drifted)
            code = say_failed("out of memory");
    }
    if (code == CLI_DONE)
        code = run_verify(&v);
    json_decref(v.rows);
    json_decref(v.files);
    json_decref(v.drifted);
    damage_release(&v.damage);
    damage_release(&v.index_damage);
    manifest_release(&v.manifest);
    opened_release(&v.o);
    return code;
}
