/* SPDX-License-Identifier: Apache-2.0 */
/*
 * grid datastore ls, cat: look into a version without a mount.
 */
#include "cli/cli-internal.h"

#include "base/file.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

const struct option cmd_ls_options[] = {
    {"--long", 'l', NULL, "mode, links, size and time of each", NULL},
    {"--recursive", 'R', NULL, "everything below, too, each with its path", NULL},
    {"--null", '0', NULL, "end names with a zero byte instead of a newline", NULL},
    OPTION_CLUSTER,
    OPTION_JSON,
    OPTION_END};

const struct option cmd_cat_options[] = {OPTION_CLUSTER, OPTION_END};

/* One read of cat: as large as a segment, so that fetches are few. */
#define CAT_BUFFER (1u << 20)

struct lister {
    struct opened *o;
    bool is_long, recursive, null_ended;
    json_t *rows; /* NULL: text */
};

static char type_letter(enum index_type type)
{
    return type == INDEX_DIRECTORY ? 'd' : type == INDEX_SYMLINK ? 'l' : '-';
}

static void mode_text(const struct index_inode *inode, char ret[static 11])
{
    static const char letters[] = "rwxrwxrwx";

    ret[0] = type_letter(inode->type);
    for (int i = 0; i < 9; i++)
        ret[1 + i] = inode->mode & (0400 >> i) ? letters[i] : '-';
    ret[10] = '\0';
}

/* Seconds beyond what milliseconds hold are cut: nobody's files are that old. */
static int64_t mtime_ms(const struct index_inode *inode)
{
    int64_t limit = INT64_MAX / 1000 - 1;
    int64_t s = inode->mtime_s > limit ? limit : inode->mtime_s < -limit ? -limit : inode->mtime_s;
    return s * 1000 + inode->mtime_ns / 1000000;
}

static int add_json(struct lister *l, const char *path, size_t length,
                    const struct index_inode *inode, const char *target)
{
    static const char *const types[] = {
        [INDEX_FILE] = "file", [INDEX_DIRECTORY] = "directory", [INDEX_SYMLINK] = "symlink"};
    char time[FIGURE_MAX], mode[8];

    (void)snprintf(mode, sizeof mode, "%04o", inode->mode);
    json_t *row =
        json_pack("{s:s, s:s, s:I, s:I, s:s}", "type", types[inode->type], "mode", mode, "links",
                  (json_int_t)inode->nlink, "size_bytes", (json_int_t)inode->size, "modified_at",
                  figure_utc_time(mtime_ms(inode), time));
    int r = row ? json_set_bytes(row, "path", path, length) : -ENOMEM;
    if (r == 0 && target)
        r = json_set_bytes(row, "target", target, strlen(target));
    if (r < 0) {
        json_decref(row);
        return r;
    }
    return json_array_append_new(l->rows, row) < 0 ? -ENOMEM : 0;
}

static int show_entry(struct lister *l, const char *path, size_t length,
                      const struct index_inode *inode)
{
    char target[INDEX_TARGET_MAX + 1], mode[11], time[FIGURE_MAX];
    bool has_target = inode->type == INDEX_SYMLINK && (l->is_long || l->rows);

    if (has_target) {
        int r = view_readlink(l->o->view, inode->nid, target);
        if (r < 0)
            return r;
    }
    if (l->rows)
        return add_json(l, path, length, inode, has_target ? target : NULL);
    if (l->is_long) {
        mode_text(inode, mode);
        printf("%s %3" PRIu32 " %12" PRIu64 " %s ", mode, inode->nlink,
               inode->type == INDEX_DIRECTORY ? 0 : inode->size,
               figure_local_time(mtime_ms(inode), time));
    }
    if (l->null_ended)
        (void)fwrite(path, 1, length, stdout); /* errors show in finish_stdout() */
    else
        print_name(path, length);
    if (has_target) {
        printf(" -> ");
        print_name(target, strlen(target));
    }
    putchar(l->null_ended ? '\0' : '\n');
    return 0;
}

static int list_directory(struct lister *l, const struct index_inode *directory)
{
    AUTO(walk_free) struct walk *walk = NULL;
    struct walk_item item;
    int r = walk_new(l->o->view, directory, &walk);

    while (r == 0 && (r = walk_next(walk, &item)) == 1) {
        r = item.leaving ? 0 : show_entry(l, item.path, item.path_length, &item.inode);
        if (!l->recursive)
            walk_skip(walk);
        if (ferror(stdout))
            break; /* finish_stdout() says why */
    }
    return r;
}

/* "/a//b/" to "a//b": the reader of indexes knows no other slashes than those between names. */
static char *clean_path(char *path)
{
    size_t n = strlen(path);

    while (n > 0 && path[n - 1] == '/')
        path[--n] = '\0';
    while (*path == '/')
        path++;
    return path;
}

static int say_path_error(const struct opened *o, const char *path, int r)
{
    if (r == -ENOENT || r == -ENOTDIR)
        return say_failed("there is no '%s' in %s:%u", path, o->info.name, o->info.version);
    return say_failed("cannot read '%s' in %s:%u: %s", *path ? path : "/", o->info.name,
                      o->info.version, strerror(-r));
}

int cmd_ls(struct cli *cli, const struct args *args)
{
    AUTO(opened_release) struct opened o = {0};
    struct index_inode inode;
    struct lister l = {.o = &o,
                       .is_long = args_flag(args, "--long"),
                       .recursive = args_flag(args, "--recursive"),
                       .null_ended = args_flag(args, "--null")};
    int code = open_view(cli, args->words.at[0], true, &o);

    if (code != CLI_DONE)
        return code;
    const char *path = clean_path(o.path);
    int r = view_walk(o.view, path, &inode);
    if (r < 0)
        return say_path_error(&o, path, r);
    l.rows = args_flag(args, "--json") ? json_array() : NULL;
    if (args_flag(args, "--json") && !l.rows)
        return say_failed("out of memory");

    if (inode.type == INDEX_DIRECTORY)
        r = list_directory(&l, &inode);
    else
        r = show_entry(&l, path, strlen(path), &inode);
    if (r < 0) {
        json_decref(l.rows);
        return say_path_error(&o, path, r);
    }
    return l.rows ? json_print(l.rows) : finish_stdout(CLI_DONE);
}

static int cat_file(struct opened *o, const struct index_inode *file, char *buffer)
{
    for (uint64_t offset = 0; offset < file->size;) {
        ssize_t n = view_read(o->view, file, offset, buffer, CAT_BUFFER);
        if (n <= 0)
            return n < 0 ? say_failed("cannot read '%s' in %s:%u at byte %" PRIu64 ": %s", o->path,
                                      o->info.name, o->info.version, offset, strerror((int)-n))
                         : say_failed("'%s' in %s:%u ends early", o->path, o->info.name,
                                      o->info.version);
        int r = file_write(STDOUT_FILENO, buffer, (size_t)n);
        if (r < 0)
            return say_failed("cannot write the output: %s", strerror(-r));
        offset += (uint64_t)n;
    }
    return CLI_DONE;
}

static int cat_one(struct cli *cli, const char *reference, char *buffer)
{
    AUTO(opened_release) struct opened o = {0};
    struct index_inode inode;
    int code = open_view(cli, reference, true, &o);

    if (code != CLI_DONE)
        return code;
    const char *path = clean_path(o.path);
    if (!*path)
        return say_failed("'%s' names no file: write NAME/PATH", reference);
    int r = view_walk(o.view, path, &inode);
    if (r < 0)
        return say_path_error(&o, path, r);
    if (inode.type != INDEX_FILE)
        return say_failed("'%s' in %s:%u is a %s, no file", path, o.info.name, o.info.version,
                          inode.type == INDEX_DIRECTORY ? "directory" : "symbolic link");
    return cat_file(&o, &inode, buffer);
}

int cmd_cat(struct cli *cli, const struct args *args)
{
    AUTO(free_ptr) char *buffer = malloc(CAT_BUFFER);
    int worst = buffer ? CLI_DONE : say_failed("out of memory");

    for (size_t i = 0; buffer && i < args->words.count; i++) {
        int code = cat_one(cli, args->words.at[i], buffer);
        if (code != CLI_DONE)
            worst = code;
    }
    return worst;
}
