/* SPDX-License-Identifier: Apache-2.0 */
/*
 * grid datastore mount, unmount, mounts.
 *
 * A mount is served by a process of its own in the background, which holds the version by a lease
 * as long as it is mounted.
 */
#include "cli/cmd-mount.h"
#include "cli/mode.h"

#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

const struct option cmd_mount_options[] = {OPTIONS_READING, OPTION_REQUIRE_LEASE, OPTION_CLUSTER,
                                           OPTION_END};

const struct option cmd_unmount_options[] = {
    {"--lazy", 'l', NULL, "also if it is in use: it goes when the last user does", NULL},
    OPTION_END};

const struct option cmd_mounts_options[] = {OPTION_JSON, OPTION_END};

/* ---- mount ---- */

/* An existing directory with nothing in it: what a mount hides, nobody finds again. */
static int check_mountpoint(const char *path, char ret_real[static PATH_MAX])
{
    if (!realpath(path, ret_real))
        return errno == ENOENT ? say_failed("cannot mount on %s: there is no such directory", path)
                               : say_failed("cannot mount on %s: %s", path, strerror(errno));
    int fd = open(ret_real, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    AUTO(close_dir) DIR *directory = fd < 0 ? NULL : fdopendir(fd);
    const struct dirent *e;

    if (!directory)
        return errno == ENOTDIR ? say_failed("cannot mount on %s: it is no directory", path)
                                : say_failed("cannot mount on %s: %s", path, strerror(errno));
    while ((e = readdir(directory))) {
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
            return say_failed("cannot mount on %s: it is not empty", path);
    }
    return CLI_DONE;
}

int cmd_mount(struct cli *cli, const struct args *args)
{
    AUTO(serve_release) struct serve serve = {0};
    struct attach_item item = {.serve = serve_run, .serve_ctx = &serve, .share = serve.share};
    struct attach_record *record = &item.record;
    struct err err = ERR_INIT;
    struct reading reading = {0};
    int code = reading_options(cli, args, &reading);

    if (code == CLI_DONE)
        code = check_mountpoint(args->words.at[1], record->mountpoint);
    if (code == CLI_DONE)
        code = serve_prepare(cli, args->words.at[0], 0, &reading, &serve, record);
    if (code != CLI_DONE)
        return code;
    (void)snprintf(serve.text, sizeof serve.text, "mount %.240s",
                   record->mountpoint);                                      /* cut short */
    (void)snprintf(record->holder, sizeof record->holder, "%s", serve.text); /* of the same size */
    serve.require_lease = item.required = args_flag(args, "--require-lease");
    record->note = serve_note;
    int r;
    do {
        err_clear(&err);
        r = attach_serve_background(&item, &err);
    } while (r == -EOPNOTSUPP && mode_step_down(&serve, record, &err));
    return r < 0 ? say_err(&err, r) : CLI_DONE;
}

/* ---- unmount ---- */

/* Like realpath(3), but the last component is not looked at where that fails: the root of a mount
 * whose server is gone answers nothing. */
static int resolve_mountpoint(const char *path, char ret_real[static PATH_MAX])
{
    char real[PATH_MAX];

    if (realpath(path, ret_real))
        return CLI_DONE;
    if (errno == ENOENT)
        return say_failed("cannot unmount %s: there is no such directory", path);
    AUTO(free_ptr) char *copy = strdup(path);
    if (!copy)
        return say_failed("out of memory");
    for (size_t n = strlen(copy); n > 1 && copy[n - 1] == '/'; n--)
        copy[n - 1] = '\0';
    char *slash = strrchr(copy, '/');
    const char *name = slash ? slash + 1 : copy;
    if (slash)
        *slash = '\0';
    if (!realpath(slash ? (*copy ? copy : "/") : ".", real) ||
        (size_t)snprintf(ret_real, PATH_MAX, "%s/%s", real[1] ? real : "", name) >= PATH_MAX)
        return say_failed("cannot unmount %s: %s", path, strerror(errno));
    return CLI_DONE;
}

int cmd_unmount(struct cli *cli, const struct args *args)
{
    struct err err = ERR_INIT;
    char real[PATH_MAX];
    int code = resolve_mountpoint(args->words.at[0], real);

    if (code != CLI_DONE)
        return code;
    int r = attach_unmount(real, args_flag(args, "--lazy"), &err);
    return r < 0 ? say_err(&err, r) : CLI_DONE;
}

/* ---- mounts, runs, sessions ---- */

struct mounts {
    enum listing what;
    struct table *table; /* or */
    json_t *rows;
    size_t count;
};

static int add_json(struct mounts *m, const struct attach_record *r)
{
    char time[FIGURE_MAX];
    json_t *row = json_pack("{s:s, s:I, s:s, s:s, s:s, s:s, s:I, s:s}", "name", r->name, "version",
                            (json_int_t)r->version, "cluster", r->cluster, "mode", r->mode, "why",
                            r->why, "protection", r->protection, "server", (json_int_t)r->server,
                            "since", figure_utc_time(r->since_ms, time));
    int code =
        row ? json_set_bytes(row, "mountpoint", r->mountpoint, strlen(r->mountpoint)) : -ENOMEM;

    const char *session = attach_session_name(r);
    if (code == 0 && session)
        code = json_set_bytes(row, "session", session, strlen(session));
    else if (code == 0 && *r->run)
        code = json_set_bytes(row, "run", r->run, strlen(r->run));
    if (code == 0)
        return json_array_append_new(m->rows, row) < 0 ? -ENOMEM : 0;
    json_decref(row);
    return code;
}

static int add_record(void *ctx, const struct attach_record *r)
{
    struct mounts *m = ctx;
    const char *session = attach_session_name(r);
    char text[64];

    if ((m->what == LIST_RUNS && (!*r->run || session)) || (m->what == LIST_SESSIONS && !session))
        return 0;
    m->count++;
    if (m->rows)
        return add_json(m, r);
    if (m->what != LIST_MOUNTS)
        table_add(m->table, session ? session : r->run);
    (void)snprintf(text, sizeof text, "%" PRIu32, r->version);
    table_add(m->table, r->name);
    table_add(m->table, text);
    table_add(m->table, r->cluster);
    table_add(m->table, r->mountpoint);
    if (m->what == LIST_MOUNTS) {
        table_add(m->table, r->mode);
        table_add(m->table, r->protection);
    }
    table_add(m->table, figure_local_time(r->since_ms, text));
    return 0;
}

int list_mounts(enum listing what, bool json)
{
    static const char *const nothing[] = {[LIST_MOUNTS] = "nothing is mounted",
                                          [LIST_RUNS] = "no runs on this machine",
                                          [LIST_SESSIONS] = "no sessions on this machine"};
    static const char *const columns[] = {"Run",         "Name", ">Version",   "Cluster ID",
                                          "Mount point", "Mode", "Protection", "Since"};
    const char *const run_columns[] = {what == LIST_RUNS ? "Run" : "Session",
                                       "Name",
                                       ">Version",
                                       "Cluster ID",
                                       "Mount point",
                                       "Since"};
    AUTO(table_free)
    struct table *table =
        what == LIST_MOUNTS ? table_new(columns + 1, 7) : table_new(run_columns, 6);
    struct mounts m = {.what = what, .table = table, .rows = json ? json_array() : NULL};
    struct err err = ERR_INIT;

    int r = !table || (json && !m.rows) ? -ENOMEM : attach_each(add_record, &m, &err);
    if (r < 0) {
        json_decref(m.rows);
        return say_err(&err, r);
    }
    if (json)
        return json_print(m.rows);
    if (m.count == 0)
        say("%s", nothing[what]);
    else if (table_print(table, stdout) < 0)
        return say_failed("out of memory");
    return finish_stdout(CLI_DONE);
}

int cmd_mounts(struct cli *cli, const struct args *args)
{
    return list_mounts(LIST_MOUNTS, args_flag(args, "--json"));
}
