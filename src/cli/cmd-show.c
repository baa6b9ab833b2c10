/* SPDX-License-Identifier: Apache-2.0 */
/*
 * grid datastore show: the record of one version, and what it consists of.
 */
#include "cli/cli-internal.h"

#include <inttypes.h>
#include <string.h>

const struct option cmd_show_options[] = {OPTION_CLUSTER, OPTION_JSON, OPTION_END};

/* Packs that this version brought, and bytes of data in all of them. */
static void count_packs(const struct manifest *m, uint32_t *ret_new, uint64_t *ret_bytes,
                        uint64_t *ret_used)
{
    *ret_new = 0;
    *ret_bytes = 0;
    *ret_used = 0;
    for (uint32_t i = 0; i < m->pack_count; i++) {
        *ret_new += m->packs[i].born == m->version;
        *ret_bytes += m->packs[i].length;
        *ret_used += m->packs[i].used_blocks * 512;
    }
}

static json_t *json_pack_row(const struct object_ref *pack)
{
    char key[OBJECT_KEY_MAX], digest[DIGEST_HEX_SIZE];

    uint64_t used = pack->used_blocks * 512;

    object_ref_key('p', pack, key);
    digest_to_hex(&pack->digest, digest);
    return json_pack("{s:s, s:s, s:I, s:I, s:I}", "key", key, "digest", digest, "length_bytes",
                     (json_int_t)pack->length, "used_bytes", (json_int_t)used, "since_version",
                     (json_int_t)pack->born);
}

/* ---- who holds it ---- */

static int add_holder(void *ctx, const struct holder *h)
{
    char since[FIGURE_MAX];
    json_t *row = json_pack("{s:s, s:s, s:I, s:s}", "host", h->host, "job", h->text, "pid",
                            (json_int_t)h->pid, "since", figure_utc_time(h->since_ms, since));

    return json_array_append_new(ctx, row) < 0 ? -ENOMEM : 0;
}

static int print_holder(void *ctx, const struct holder *h)
{
    struct buf *t = ctx;
    char since[FIGURE_MAX];

    return buf_printf(t, "%s%s on %s, since %s", t->size ? "; " : "", h->text, h->host,
                      figure_local_time(h->since_ms, since));
}

static json_t *json_show(const struct cli *cli, const struct opened *o, const struct manifest *m)
{
    char session[33], key[OBJECT_KEY_MAX];
    json_t *object = json_version(cli, &o->info), *packs = json_array();
    bool is_complete = object && packs;

    session_id_to_hex(&o->info.session, session);
    object_ref_key('x', &m->index, key);
    for (uint32_t i = 0; is_complete && i < m->pack_count; i++)
        is_complete = json_array_append_new(packs, json_pack_row(&m->packs[i])) == 0;
    if (is_complete) {
        json_t *more = json_pack("{s:s, s:s, s:s, s:I, s:I, s:s, s:I}", "store", cli->store, "host",
                                 o->info.host, "session", session, "directories",
                                 (json_int_t)m->directories, "symlinks", (json_int_t)m->symlinks,
                                 "index_key", key, "index_bytes", (json_int_t)m->index_size);
        is_complete = more && json_object_update(object, more) == 0;
        json_decref(more);
    }
    json_t *holders = json_array();
    if (is_complete)
        is_complete = holders && catalogue_holders(o->catalogue, o->info.name, o->info.version,
                                                   add_holder, holders, NULL) != -ENOMEM;
    if (holders && json_object_set_new(object, "holders", holders) < 0)
        is_complete = false;
    if (is_complete && json_object_set(object, "packs", packs) == 0) {
        json_decref(packs);
        return object;
    }
    json_decref(object);
    json_decref(packs);
    return NULL;
}

/* "label   value", the value made harmless. */
static void print_row(const char *label, const char *value)
{
    AUTO(buf_release) struct buf b = BUF_INIT(32768);

    if (escape_text(&b, value, strlen(value)) < 0)
        buf_clear(&b);
    printf("%-12s %s\n", label, buf_text(&b));
}

static void print_holders(const struct opened *o)
{
    AUTO(buf_release) struct buf text = BUF_INIT(8192);
    struct err err = ERR_INIT;
    int r =
        catalogue_holders(o->catalogue, o->info.name, o->info.version, print_holder, &text, &err);

    if (r < 0 && r != -EFBIG)
        print_row("Held by", err_text(&err, r));
    else
        print_row("Held by", text.size ? buf_text(&text) : "nobody");
}

static void print_show(const struct cli *cli, const struct opened *o, const struct manifest *m)
{
    char text[512], a[FIGURE_MAX], b[FIGURE_MAX], key[OBJECT_KEY_MAX];
    uint32_t fresh;
    uint64_t bytes, used;

    (void)snprintf(text, sizeof text, "%s:%" PRIu32, o->info.name, o->info.version);
    print_row("Datastore", text);
    (void)snprintf(text, sizeof text, "%s (%.400s)", cli->cluster, cli->store);
    print_row("Cluster", text);
    print_row("Status", version_status_name(o->info.status));
    print_row("Created", figure_local_time(o->info.created_ms, a));
    (void)snprintf(text, sizeof text, "%s, from %s", o->info.owner, o->info.host);
    print_row("Owner", text);
    print_row("Source", m->source);
    print_row("Kind", m->linked ? "linked" : "copy");
    (void)snprintf(text, sizeof text, "%s (%" PRIu64 " bytes)", figure_bytes(m->size_bytes, a),
                   m->size_bytes);
    print_row("Size", m->size_bytes < 1024 ? a : text);
    print_row("Files", figure_count(m->files, a));
    print_row("Directories", figure_count(m->directories, a));
    print_row("Symlinks", figure_count(m->symlinks, a));
    object_ref_key('x', &m->index, key);
    (void)snprintf(text, sizeof text, "%s, %s", figure_bytes(m->index_size, a), key);
    print_row("Index", text);
    count_packs(m, &fresh, &bytes, &used);
    if (m->linked)
        (void)snprintf(text, sizeof text, "%" PRIu32 ", %s", m->pack_count, figure_bytes(bytes, a));
    else
        (void)snprintf(text, sizeof text,
                       "%" PRIu32 " (%" PRIu32 " of them new), %s, of which %s used", m->pack_count,
                       fresh, figure_bytes(bytes, a), figure_bytes(used, b));
    print_row(m->linked ? "Link tables" : "Packs", text);
    print_holders(o);
}

int cmd_show(struct cli *cli, const struct args *args)
{
    AUTO(opened_release) struct opened o = {0};
    AUTO(manifest_release) struct manifest m = {0};
    struct err err = ERR_INIT;
    int code = open_version(cli, args->words.at[0], false, &o);

    if (code != CLI_DONE)
        return code;
    int r = catalogue_manifest(o.catalogue, &o.info, &m, &err);
    if (r < 0)
        return say_err(&err, r);
    if (args_flag(args, "--json"))
        return json_print(json_show(cli, &o, &m));
    print_show(cli, &o, &m);
    return finish_stdout(CLI_DONE);
}
