/* SPDX-License-Identifier: Apache-2.0 */
/*
 * grid datastore diff: which paths differ between two versions, from their indexes alone.
 *
 * Two walks in the same order, merged. A file is unchanged if all its chunks name the same place of
 * the same pack; where they do not (the same bytes may have been stored anew), size and time of
 * modification decide. Of two linked versions, the objects that they link to are compared.
 * Permission bits and the targets of symbolic links count; times alone and extended attributes do
 * not.
 */
#include "cli/cli-internal.h"

#include <string.h>

const struct option cmd_diff_options[] = {OPTION_CLUSTER, OPTION_JSON, OPTION_END};

struct side {
    struct opened o;
    struct walk *walk;
    struct walk_item item;
    bool has_item;
};

struct diff {
    struct side left, right;
    bool same_source;                  /* both are linked, to one place */
    json_t *added, *removed, *changed; /* NULL: text */
};

/* To the next item that is no leaving. */
static int step(struct side *s)
{
    int r;

    do {
        r = walk_next(s->walk, &s->item);
    } while (r == 1 && s->item.leaving);
    s->has_item = r == 1;
    return r < 0 ? r : 0;
}

static int same_extent(const struct diff *d, const struct index_extent *a,
                       const struct index_extent *b)
{
    if (a->chunk_offset != b->chunk_offset || a->chunk_size != b->chunk_size ||
        !a->device != !b->device)
        return false;
    if (!a->device)
        return true;
    struct digest x = index_device_digest(view_index(d->left.o.view), a->device);
    struct digest y = index_device_digest(view_index(d->right.o.view), b->device);
    return a->block == b->block && digest_equal(&x, &y);
}

/* 1 if both files of this size lie in the same places, 0 if not, or an error. */
static int same_places(const struct diff *d, uint64_t size)
{
    struct index_extent a, b;

    for (uint64_t offset = 0; offset < size;) {
        int r = index_map(view_index(d->left.o.view), &d->left.item.inode, offset, &a);
        if (r == 0)
            r = index_map(view_index(d->right.o.view), &d->right.item.inode, offset, &b);
        if (r < 0)
            return r;
        if (!same_extent(d, &a, &b))
            return 0;
        uint64_t next = a.chunk_offset + a.chunk_size;
        if (next <= offset)
            return -EPROTO;
        offset = next;
    }
    return 1;
}

/* 1 if both files are linked to the same object as it was at the same time; 0; or an error. */
static int same_link(const struct diff *d)
{
    struct fetch_link a, b;
    int r = view_link(d->left.o.view, &d->left.item.inode, &a);

    if (r == 0)
        r = view_link(d->right.o.view, &d->right.item.inode, &b);
    if (r < 0)
        return r;
    return strcmp(a.key, b.key) == 0 && strcmp(a.pin.etag, b.pin.etag) == 0 &&
           strcmp(a.pin.version_id, b.pin.version_id) == 0;
}

/* Linked, to the same bucket and prefix? */
static int same_source(const struct diff *d)
{
    struct link_place a, b;
    int r = view_link_place(d->left.o.view, &a);

    if (r == 0)
        r = view_link_place(d->right.o.view, &b);
    if (r < 0)
        return r == -EINVAL ? 0 : r;
    return strcmp(a.bucket, b.bucket) == 0 && strcmp(a.prefix, b.prefix) == 0 &&
           strcmp(a.endpoint, b.endpoint) == 0;
}

static int same_target(const struct diff *d)
{
    char a[INDEX_TARGET_MAX + 1], b[INDEX_TARGET_MAX + 1];
    int r = view_readlink(d->left.o.view, d->left.item.inode.nid, a);

    if (r == 0)
        r = view_readlink(d->right.o.view, d->right.item.inode.nid, b);
    return r < 0 ? r : strcmp(a, b) == 0;
}

/* 1: the same; 0: changed. */
static int same_item(const struct diff *d)
{
    const struct index_inode *a = &d->left.item.inode, *b = &d->right.item.inode;

    if (a->type != b->type)
        return 0;
    if (a->type == INDEX_SYMLINK)
        return same_target(d);
    if (a->mode != b->mode)
        return 0;
    if (a->type == INDEX_DIRECTORY)
        return 1;
    if (a->size != b->size)
        return 0;
    if (d->same_source && a->size > 0)
        return same_link(d);
    int r = same_places(d, a->size);
    return r != 0 ? r : a->mtime_s == b->mtime_s && a->mtime_ns == b->mtime_ns;
}

static int report(json_t *rows, char letter, const struct walk_item *item)
{
    if (!rows) {
        printf("%c ", letter);
        print_name(item->path, item->path_length);
        putchar('\n');
        return 0;
    }
    json_t *row = json_object();
    int r = row ? json_set_bytes(row, "path", item->path, item->path_length) : -ENOMEM;
    if (r < 0) {
        json_decref(row);
        return r;
    }
    return json_array_append_new(rows, row) < 0 ? -ENOMEM : 0;
}

static int compare_item(struct diff *d)
{
    int order = !d->left.has_item    ? 1
                : !d->right.has_item ? -1
                                     : walk_compare(d->left.item.path, d->right.item.path);
    int r = 0;

    if (order < 0) {
        r = report(d->removed, 'D', &d->left.item);
    } else if (order > 0) {
        r = report(d->added, 'A', &d->right.item);
    } else {
        int same = same_item(d);
        r = same < 0 ? same : same ? 0 : report(d->changed, 'M', &d->right.item);
    }
    if (r == 0 && order <= 0)
        r = step(&d->left);
    if (r == 0 && order >= 0)
        r = step(&d->right);
    return r;
}

static int open_side(struct cli *cli, const char *reference, struct side *s)
{
    struct index_inode root;
    int code = open_view(cli, reference, false, &s->o);

    if (code != CLI_DONE)
        return code;
    int r = view_inode(s->o.view, INDEX_ROOT_NID, &root);
    if (r == 0)
        r = walk_new(s->o.view, &root, &s->walk);
    if (r == 0)
        r = step(s);
    return r < 0 ? say_failed("cannot read the index of %s: %s", reference, strerror(-r))
                 : CLI_DONE;
}

static json_t *document(const struct diff *d)
{
    return json_pack("{s:{s:s, s:I}, s:{s:s, s:I}, s:O, s:O, s:O}", "from", "name",
                     d->left.o.info.name, "version", (json_int_t)d->left.o.info.version, "to",
                     "name", d->right.o.info.name, "version", (json_int_t)d->right.o.info.version,
                     "added", d->added, "removed", d->removed, "changed", d->changed);
}

static int run_diff(struct cli *cli, const struct args *args, struct diff *d)
{
    int code = open_side(cli, args->words.at[0], &d->left);
    int r = 0;

    if (code == CLI_DONE)
        code = open_side(cli, args->words.at[1], &d->right);
    if (code != CLI_DONE)
        return code;
    r = same_source(d);
    d->same_source = r == 1;
    if (r > 0)
        r = 0;
    while (r == 0 && (d->left.has_item || d->right.has_item) && !ferror(stdout))
        r = compare_item(d);
    if (r < 0)
        return say_failed("cannot compare %s with %s: %s", args->words.at[0], args->words.at[1],
                          strerror(-r));
    return d->added ? json_print(document(d)) : finish_stdout(CLI_DONE);
}

int cmd_diff(struct cli *cli, const struct args *args)
{
    struct diff d = {0};
    bool json = args_flag(args, "--json");
    int code = CLI_FAILED;

    if (json) {
        d.added = json_array();
        d.removed = json_array();
        d.changed = json_array();
    }
    if (json && (!d.added || !d.removed || !d.changed))
        say("out of memory");
    else
        code = run_diff(cli, args, &d);
    walk_free(d.left.walk);
    walk_free(d.right.walk);
    opened_release(&d.left.o);
    opened_release(&d.right.o);
    json_decref(d.added);
    json_decref(d.removed);
    json_decref(d.changed);
    return code;
}
