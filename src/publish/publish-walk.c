/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The walk: the whole source into a tree, one directory at a time.
 *
 * A directory is listed, sorted, filtered, added to the tree, and then held against what local
 * state knows of it, so that only one directory is in memory besides the tree. What is unchanged
 * goes into the new journal at once: an interruption loses nothing that was known.
 *
 * Does not open files (but for .gridignore), and decides nothing about packs.
 */
#include "publish/publish-known.h"
#include "publish/publish-link.h"

#include <stdio.h>

#define MODE_READ    0444u
#define MODE_EXECUTE 0111u

/* Inodes with several names, by (device, inode): open addressing, at most 3/4 full. */
struct link_row {
    uint64_t device, inode;
    uint32_t node; /* TREE_NO_NODE: free */
};

struct walk {
    struct publish *p;
    struct order order;
    struct ignore *ignore; /* NULL: none */
    uint64_t device;       /* of the root: elsewhere inodes may be less stable */
    struct link_row *links;
    size_t link_count, link_capacity;

    struct source_listing listing; /* of the current directory */
    VEC(struct sort_row) sorted;   /* what is kept of it */
    VEC(struct tree_entry) entries;
    struct buf path; /* of an entry, for notices and patterns */
    uint32_t first;  /* node of the first child */
};

static int say(struct walk *w, int code, const char *what, struct err *err)
{
    const char *path = buf_text(&w->order.path);

    if (code == -ECANCELED || code == -ENOMEM)
        return err_fail(err, code, "%s", code == -ENOMEM ? "out of memory" : "interrupted");
    return err_fail(err, code == -ENOENT || code == -ENOTDIR || code == -ELOOP ? -EAGAIN : code,
                    "%s %s%s%s: %s", what, w->p->source->location,
                    *path ? source_slash(w->p->source) : "", path,
                    code == -ENOENT ? "it vanished while the source was read" : strerror(-code));
}

/* ---- hard links -------------------------------------------------------------------------------
 */

static struct link_row *link_slot(const struct walk *w, uint64_t device, uint64_t inode)
{
    uint64_t hash = (inode ^ (device << 40)) * UINT64_C(0x9e3779b97f4a7c15);
    size_t i = (size_t)(hash >> 32) & (w->link_capacity - 1);

    while (w->links[i].node != TREE_NO_NODE &&
           (w->links[i].inode != inode || w->links[i].device != device))
        i = (i + 1) & (w->link_capacity - 1);
    return &w->links[i];
}

static int links_grow(struct walk *w)
{
    struct link_row *old = w->links;
    size_t count = w->link_capacity, capacity = count ? 2 * count : 1024;
    struct link_row *rows = malloc(capacity * sizeof *rows);

    if (!rows)
        return -ENOMEM;
    for (size_t i = 0; i < capacity; i++)
        rows[i].node = TREE_NO_NODE;
    w->links = rows;
    w->link_capacity = capacity;
    for (size_t i = 0; i < count; i++) {
        if (old[i].node != TREE_NO_NODE)
            *link_slot(w, old[i].device, old[i].inode) = old[i];
    }
    free(old);
    return 0;
}

/* The node that already has this inode, or TREE_NO_NODE; then it is `node` from now on. */
static int link_find(struct walk *w, const struct source_stat *st, uint32_t node, uint32_t *ret)
{
    if (w->link_count * 4 >= w->link_capacity * 3) {
        int r = links_grow(w);
        if (r < 0)
            return r;
    }
    struct link_row *row = link_slot(w, st->device, st->inode);
    *ret = row->node;
    if (row->node == TREE_NO_NODE) {
        *row = (struct link_row){st->device, st->inode, node};
        w->link_count++;
    }
    return 0;
}

/* ---- one directory: filter and sort -----------------------------------------------------------
 */

static int entry_path(struct walk *w, const char *name)
{
    buf_clear(&w->path);
    int r = buf_append(&w->path, buf_text(&w->order.path), w->order.path.size);
    if (r == 0 && w->order.path.size > 0)
        r = buf_append(&w->path, "/", 1);
    return r < 0 ? r : buf_append_str(&w->path, name);
}

static bool is_private(const struct source_stat *st)
{
    if (st->type == SOURCE_DIRECTORY)
        return (st->mode & 0005) != 0005;
    return st->type == SOURCE_FILE && !(st->mode & 0004);
}

static int entry_keep(struct walk *w, const struct source_entry *e, bool *ret_keep)
{
    struct publish *p = w->p;
    bool private = is_private(&e->stat), keep = true;

    *ret_keep = true;
    if (!w->ignore && !private && e->stat.type != SOURCE_SPECIAL)
        return 0;
    int r = entry_path(w, e->name);
    if (r < 0)
        return r;
    const char *path = buf_text(&w->path);
    if (w->ignore &&
        ignore_matches(w->ignore, path, w->path.size, e->stat.type == SOURCE_DIRECTORY)) {
        keep = false;
    } else if (e->stat.type == SOURCE_SPECIAL) {
        p->result.skipped_files++;
        publish_notice(p, PUBLISH_NOTICE_SKIPPED, path);
        keep = false;
    } else if (private) {
        p->result.private_files++;
        publish_notice(p, PUBLISH_NOTICE_PRIVATE, path);
        keep = !p->o->exclude_private;
    }
    *ret_keep = keep;
    return 0;
}

static int sort_compare(const void *a, const void *b, void *ctx)
{
    const struct sort_row *x = a, *y = b;
    const struct source_entry *entries = ctx;

    if (x->prefix != y->prefix)
        return x->prefix < y->prefix ? -1 : 1;
    return strcmp(entries[x->entry].name, entries[y->entry].name);
}

static uint64_t name_prefix(const char *name)
{
    uint64_t prefix = 0;

    for (int i = 0; i < 8; i++) {
        prefix = prefix << 8 | (uint8_t)*name;
        name += *name != '\0';
    }
    return prefix;
}

static int filter_and_sort(struct walk *w)
{
    struct source_entry *entries = w->listing.entries;
    size_t kept = 0;

    w->sorted.count = 0;
    for (size_t i = 0; i < w->listing.count; i++) {
        bool keep;
        int r = entry_keep(w, &entries[i], &keep);
        struct sort_row row = {name_prefix(entries[i].name), (uint32_t)i};
        if (r == 0 && keep)
            r = vec_push(&w->sorted, row);
        if (r < 0)
            return r;
    }
    if (w->sorted.count > 1)
        qsort_r(w->sorted.at, w->sorted.count, sizeof *w->sorted.at, sort_compare, entries);
    /* A rename during the listing may show a name twice. */
    for (size_t i = 0; i < w->sorted.count; i++) {
        if (kept == 0 || sort_compare(&w->sorted.at[kept - 1], &w->sorted.at[i], entries) != 0)
            w->sorted.at[kept++] = w->sorted.at[i];
    }
    w->sorted.count = kept;
    return 0;
}

/* ---- one directory: into the tree -------------------------------------------------------------
 */

static uint16_t mode_of(const struct source_stat *st)
{
    if (st->type == SOURCE_DIRECTORY)
        return MODE_READ | MODE_EXECUTE;
    if (st->type == SOURCE_SYMLINK)
        return 0777;
    return (uint16_t)(MODE_READ | ((st->mode & MODE_EXECUTE) ? MODE_EXECUTE : 0));
}

static const struct source_entry *kept_entry(const struct walk *w, size_t i)
{
    return &w->listing.entries[w->sorted.at[i].entry];
}

static int entry_convert(struct walk *w, size_t i, struct tree_entry *ret)
{
    const struct source_entry *e = kept_entry(w, i);
    struct tree_entry t = {
        .name = e->name,
        .name_length = (uint8_t)strlen(e->name),
        .type = e->stat.type == SOURCE_DIRECTORY ? TREE_DIRECTORY
                : e->stat.type == SOURCE_SYMLINK ? TREE_SYMLINK
                                                 : TREE_FILE,
        .mode = mode_of(&e->stat),
        .size = e->stat.size,
        .mtime_s = e->stat.mtime.s,
        .mtime_ns = e->stat.mtime.ns,
        .target = e->target,
        .target_length = e->target ? (uint16_t)strlen(e->target) : 0,
    };
    if (e->stat.link_count > 1 && t.type != TREE_DIRECTORY) {
        /* Children get the next numbers, in order. */
        uint32_t other;
        int r = link_find(w, &e->stat, tree_node_count(w->p->tree) + (uint32_t)i, &other);
        if (r < 0)
            return r;
        if (other != TREE_NO_NODE) {
            t.type = TREE_HARDLINK;
            t.link = other;
            t.target = NULL;
        }
    }
    *ret = t;
    return 0;
}

static int add_to_tree(struct walk *w, uint32_t directory, struct err *err)
{
    struct tree_entry t;

    w->entries.count = 0;
    for (size_t i = 0; i < w->sorted.count; i++) {
        int r = entry_convert(w, i, &t);
        if (r == 0)
            r = vec_push(&w->entries, t);
        if (r < 0)
            return say(w, r, "cannot list", err);
    }
    if (w->entries.count == 0)
        return 0;
    int r = tree_add_children(w->p->tree, directory, w->entries.at, w->entries.count, &w->first);
    if (r < 0)
        return say(w, r, "cannot publish", err);
    for (size_t i = 0; i < w->sorted.count; i++) {
        struct tree_node *n = tree_node(w->p->tree, w->first + (uint32_t)i);
        if (n->type == TREE_FILE)
            n->pack = PUBLISH_PENDING;
    }
    return 0;
}

static int merge_known(struct walk *w, struct err *err)
{
    struct known_directory d = {
        .p = w->p,
        .path = &w->order.path,
        .entries = w->listing.entries,
        .sorted = w->sorted.at,
        .count = w->sorted.count,
        .first = w->first,
        .device = w->device,
    };

    int r = w->p->known && d.count > 0 ? known_merge(&d) : 0;
    return r < 0 ? say(w, r, "cannot look up what is known of", err) : 0;
}

static int link_files(struct walk *w, struct err *err)
{
    int r = upload_heartbeat(w->p->upload, err);

    for (size_t i = 0; r == 0 && i < w->sorted.count; i++) {
        struct tree_node *n = tree_node(w->p->tree, w->first + (uint32_t)i);
        if (n->type == TREE_FILE)
            r = linking_add(w->p->linking, n, kept_entry(w, i), err);
    }
    return r;
}

static void count_files(struct walk *w)
{
    struct publish *p = w->p;

    for (size_t i = 0; i < w->sorted.count; i++) {
        const struct tree_node *n = tree_node(p->tree, w->first + (uint32_t)i);
        if (n->type != TREE_FILE)
            continue;
        p->progress.files_total++;
        p->progress.bytes_total += n->size;
        if (n->pack == PUBLISH_PENDING) {
            const struct source_stat *st = &kept_entry(w, i)->stat;
            p->pending_files++;
            p->pending_bytes += n->size;
            p->pending_room += st->room < st->size ? st->room : st->size;
        } else {
            p->progress.files_done++;
            p->progress.bytes_done += n->size;
        }
    }
}

/* ---- the walk ---------------------------------------------------------------------------------
 */

static int set_directory_xattrs(struct walk *w, struct source_dir *d, uint32_t node,
                                struct err *err)
{
    struct buf b = BUF_INIT(TREE_XATTR_MAX);

    int r = source_dir_xattrs(d, &b);
    if (r == 0 && b.size > 0)
        r = tree_set_xattrs(w->p->tree, node, buf_bytes(&b));
    buf_release(&b);
    if (r == -E2BIG) {
        publish_notice(w->p, PUBLISH_NOTICE_XATTR, buf_text(&w->order.path));
        r = 0;
    }
    return r < 0 ? say(w, r, "cannot read the attributes of", err) : 0;
}

static int load_ignore(struct walk *w, struct source_dir *root, struct err *err)
{
    AUTO(source_close_file) struct source_file *f = NULL;
    struct source_stat st;

    int r = source_open_file(root, IGNORE_FILE, &f);
    if (r == 0)
        r = source_file_stat(f, &st);
    if (r == -ENOENT || r == -ELOOP || r == -EINVAL) /* none, or no file */
        return 0;
    if (r < 0)
        return err_fail(err, r, "cannot read %s%s%s: %s", w->p->source->location,
                        source_slash(w->p->source), IGNORE_FILE, strerror(-r));
    if (st.size > IGNORE_FILE_MAX)
        return err_fail(err, -EFBIG, "%s%s%s is larger than %u bytes", w->p->source->location,
                        source_slash(w->p->source), IGNORE_FILE, IGNORE_FILE_MAX);
    AUTO(free_ptr) char *text = malloc((size_t)st.size + 1);
    if (!text)
        return -ENOMEM;
    ssize_t n = source_file_read(f, text, (size_t)st.size, 0);
    if (n < 0)
        return err_fail(err, (int)n, "cannot read %s%s%s: %s", w->p->source->location,
                        source_slash(w->p->source), IGNORE_FILE, strerror((int)-n));
    return ignore_parse(bytes_of(text, (size_t)n), &w->ignore, err);
}

/* The root's attributes come from itself: no listing shows it. */
static int begin_root(struct walk *w, struct source_dir *d, struct err *err)
{
    struct source_stat st;
    struct tree_node *n = tree_node(w->p->tree, TREE_ROOT);

    int r = source_dir_stat(d, &st);
    if (r < 0)
        return say(w, r, "cannot read", err);
    w->device = st.device;
    n->mode = mode_of(&st);
    n->mtime_s = st.mtime.s;
    n->mtime_ns = st.mtime.ns & 0x3fffffff;
    return load_ignore(w, d, err);
}

static int walk_directory(struct walk *w, uint32_t node, struct err *err)
{
    AUTO(source_close_dir) struct source_dir *d = NULL;

    int r = source_open_dir(w->p->source, buf_text(&w->order.path), &d);
    if (r < 0)
        return say(w, r, "cannot open", err);
    if (node == TREE_ROOT) {
        r = begin_root(w, d, err);
        if (r < 0)
            return r;
    }
    r = set_directory_xattrs(w, d, node, err);
    if (r < 0)
        return r;
    source_listing_release(&w->listing);
    r = source_list(d, &w->listing);
    if (r == 0)
        r = filter_and_sort(w);
    if (r < 0)
        return say(w, r, "cannot list", err);
    r = add_to_tree(w, node, err);
    if (r == 0)
        r = w->p->linking ? link_files(w, err) : merge_known(w, err);
    if (r == 0)
        count_files(w);
    return r;
}

/* What a source has and no tree can hold. */
static int tell_skipped(void *ctx, const char *path, const char *why)
{
    struct walk *w = ctx;

    buf_clear(&w->path);
    int r = buf_printf(&w->path, "%s: %s", path, why);
    if (r < 0)
        return r;
    w->p->result.skipped_files++;
    publish_notice(w->p, PUBLISH_NOTICE_KEY, buf_text(&w->path));
    return 0;
}

int publish_walk(struct publish *p, struct err *err)
{
    struct walk w = {.p = p};
    uint32_t node;
    int r;

    order_init(&w.order, p->tree);
    buf_init(&w.path, (size_t)TREE_DEPTH_MAX * 256 + 256);
    p->progress.phase = PUBLISH_WALK;
    while ((r = order_next(&w.order, &node)) == 1) {
        r = publish_interrupted(p) ? say(&w, -ECANCELED, "", err) : walk_directory(&w, node, err);
        if (r < 0)
            break;
        publish_tell(p, false);
    }
    if (r == 0 && source_each_skipped(p->source, tell_skipped, &w) < 0)
        r = err_fail(err, -ENOMEM, "out of memory");
    if (r == 0)
        publish_tell(p, true);
    source_listing_release(&w.listing);
    vec_release(&w.sorted);
    vec_release(&w.entries);
    order_release(&w.order);
    buf_release(&w.path);
    ignore_free(w.ignore);
    free(w.links);
    return r;
}
