/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Has the source of a linked version changed?
 *
 * The bucket is listed once, a request for a thousand objects, and each object that is what it was
 * makes a mark at its file. Files without a mark are then asked for one by one, pinned, some at a
 * time: that says what became of them, and finds versions that are not the newest any more. Who may
 * not list asks for all of them.
 */
#include "cli/drift.h"

#include "cli/linking.h"

#include <inttypes.h>
#include <stdatomic.h>
#include <string.h>

#define AT_ONCE 32u  /* requests */
#define BATCH   512u /* files that are looked at together */

struct asked {
    char *path; /* owned */
    size_t path_length;
    struct fetch_link link;
    struct s3_object now;
    int result;
    char why[256];
};

struct drift {
    struct view *view;
    struct linking_clients *clients;
    struct link_place place;
    struct progress *progress;
    uint8_t *marks; /* owned; a bit for each nid */
    uint64_t mark_bits;
    struct s3 *s3;
    struct asked *asked; /* owned; BATCH */
    size_t asked_count;
    atomic_size_t asked_next;
    drift_fn *fn;
    void *ctx;
    struct drift_report report;
};

/* ---- by the listing ---- */

static bool same_object(const struct fetch_link *link, const struct s3_object *now)
{
    if (link->pin.version_id[0])
        return strcmp(link->pin.version_id, now->version_id) == 0;
    return link->pin.size == now->size && strcmp(link->pin.etag, now->etag) == 0;
}

static int on_listed(void *ctx, const struct s3_entry *e)
{
    struct drift *d = ctx;
    size_t prefix = strlen(d->place.prefix);
    struct index_inode file;
    struct fetch_link link;

    if (interrupt_signal)
        return -ECANCELED;
    if (e->is_prefix || strncmp(e->key, d->place.prefix, prefix) != 0)
        return 0;
    /* Keys that are no files of this version are none of its business. */
    int r = view_walk(d->view, e->key + prefix, &file);
    if (r == -EIO || r == -ENOMEM)
        return r;
    if (r < 0 || file.type != INDEX_FILE || file.nid >= d->mark_bits)
        return 0;
    if (file.size > 0) {
        r = view_link(d->view, &file, &link);
        if (r < 0)
            return r;
        if (strcmp(link.key, e->key + prefix) != 0 || !same_object(&link, &e->object))
            return 0;
    } else if (e->object.size != 0) {
        return 0;
    }
    d->marks[file.nid / 8] |= (uint8_t)(1u << (file.nid % 8));
    d->progress->files++;
    progress_show(d->progress);
    return 0;
}

/* Version ids are only worth asking for if the files have some. */
static int has_versions(struct drift *d, bool *ret)
{
    AUTO(walk_free) struct walk *walk = NULL;
    struct index_inode root;
    struct walk_item item;
    struct fetch_link link;
    int r = view_inode(d->view, INDEX_ROOT_NID, &root);

    *ret = false;
    if (r == 0)
        r = walk_new(d->view, &root, &walk);
    while (r == 0 && (r = walk_next(walk, &item)) == 1) {
        r = 0;
        if (item.inode.type != INDEX_FILE || item.inode.size == 0)
            continue;
        r = view_link(d->view, &item.inode, &link);
        *ret = r == 0 && link.pin.version_id[0];
        return r;
    }
    return r;
}

static int list_source(struct drift *d, struct err *err)
{
    struct s3_list_options options = {.prefix = d->place.prefix};
    struct s3 *s3 = NULL;
    struct err why = ERR_INIT;
    int r = has_versions(d, &options.versions);

    if (r == 0)
        r = linking_open(d->clients, &d->place, NULL, &s3, &why);
    if (r == 0)
        r = s3_list(s3, d->place.bucket, &options, on_listed, d, NULL, &why);
    if (r == -EACCES) /* may perhaps read: each is asked for */
        return 0;
    return r < 0 ? err_fail(err, r, "%s", err_text(&why, r)) : 0;
}

/* ---- one by one ---- */

static void ask(struct drift *d, struct asked *a)
{
    char key[2 * S3_KEY_MAX + 1];
    struct err why = ERR_INIT;
    size_t got;

    (void)snprintf(key, sizeof key, "%s%s", d->place.prefix, a->link.key); /* both are bounded */
    a->result = s3_get(d->s3, d->place.bucket, key, 0, NULL, 0, &a->link.pin, &got, &a->now, &why);
    if (a->result == 0 && a->now.size != a->link.pin.size)
        a->result = -ESTALE;
    if (a->result == -ENOENT || (a->result == -ESTALE && a->link.pin.version_id[0]))
        (void)snprintf(a->why, sizeof a->why, "is gone");
    else if (a->result == -ESTALE)
        (void)snprintf(a->why, sizeof a->why, "was changed");
    else if (a->result < 0)
        (void)snprintf(a->why, sizeof a->why, "cannot be read: %.200s", err_text(&why, a->result));
}

static void *ask_thread(void *ctx)
{
    struct drift *d = ctx;
    size_t i;

    while ((i = d->asked_next++) < d->asked_count && !interrupt_signal)
        ask(d, &d->asked[i]);
    return NULL;
}

static int tell(struct drift *d, struct asked *a)
{
    char key[2 * S3_KEY_MAX + 1];

    d->progress->files++;
    progress_show(d->progress);
    if (a->result == 0)
        return 0;
    d->report.drifted++;
    d->report.unknown += a->result != -ENOENT && a->result != -ESTALE;
    (void)snprintf(key, sizeof key, "%s%s", d->place.prefix, a->link.key);
    return d->fn(d->ctx, a->path, a->path_length, key, a->why);
}

static int ask_all(struct drift *d, struct err *err)
{
    pthread_t threads[AT_ONCE];
    size_t count = 0;
    char key[2 * S3_KEY_MAX + 1];
    int r = 0;

    if (d->asked_count == 0)
        return 0;
    if (!d->s3) {
        (void)snprintf(key, sizeof key, "%s%s", d->place.prefix, d->asked[0].link.key);
        r = linking_open(d->clients, &d->place, key, &d->s3, err);
        if (r < 0)
            return r;
    }
    d->asked_next = 0;
    while (count < AT_ONCE && count < d->asked_count &&
           pthread_create(&threads[count], NULL, ask_thread, d) == 0)
        count++;
    ask_thread(d);
    while (count > 0)
        (void)pthread_join(threads[--count], NULL); /* fails for no thread of ours */
    if (interrupt_signal)
        r = -ECANCELED;
    for (size_t i = 0; i < d->asked_count; i++) {
        if (r == 0)
            r = tell(d, &d->asked[i]);
        free(d->asked[i].path);
    }
    d->asked_count = 0;
    return r;
}

/* A file without a mark; an empty one has no pin, and is only missed. */
static int add_asked(struct drift *d, const struct walk_item *item, struct err *err)
{
    struct asked *a = &d->asked[d->asked_count];
    int r = 0;

    memset(a, 0, sizeof *a);
    if (item->inode.size > 0)
        r = view_link(d->view, &item->inode, &a->link);
    else if (strlen(item->path) < sizeof a->link.key)
        (void)snprintf(a->link.key, sizeof a->link.key, "%s", item->path);
    if (r < 0)
        return err_fail(err, r, "%s: its link cannot be read", item->path);
    a->path = strdup(item->path);
    if (!a->path)
        return err_fail(err, -ENOMEM, "out of memory");
    a->path_length = item->path_length;
    d->asked_count++;
    return d->asked_count == BATCH ? ask_all(d, err) : 0;
}

static int ask_the_rest(struct drift *d, struct err *err)
{
    AUTO(walk_free) struct walk *walk = NULL;
    struct index_inode root;
    struct walk_item item;
    int r = view_inode(d->view, INDEX_ROOT_NID, &root);

    if (r == 0)
        r = walk_new(d->view, &root, &walk);
    while (r == 0 && (r = walk_next(walk, &item)) == 1) {
        r = interrupt_signal ? -ECANCELED : 0;
        if (r < 0 || item.inode.type != INDEX_FILE)
            continue;
        uint64_t nid = item.inode.nid;
        d->report.files++;
        if (nid >= d->mark_bits || !(d->marks[nid / 8] & (1u << (nid % 8))))
            r = add_asked(d, &item, err);
    }
    return r < 0 ? r : ask_all(d, err);
}

int drift_check(struct opened *o, struct progress *progress, drift_fn *fn, void *ctx,
                struct drift_report *ret, struct err *err)
{
    const struct manifest *m = view_manifest(o->view);
    struct drift d = {.view = o->view,
                      .clients = o->linking,
                      .progress = progress,
                      .fn = fn,
                      .ctx = ctx,
                      .mark_bits = m->index_size / 32 + 1}; /* an inode takes 32 bytes at least */

    *ret = (struct drift_report){0};
    if (m->pack_count == 0) /* nothing but empty files, which are linked to nothing */
        return 0;
    int r = view_link_place(o->view, &d.place);
    if (r < 0)
        return err_fail(err, r, "the table of links cannot be read: %s", strerror(-r));
    d.marks = calloc(d.mark_bits / 8 + 1, 1);
    d.asked = calloc(BATCH, sizeof *d.asked);
    r = d.marks && d.asked ? list_source(&d, err) : err_fail(err, -ENOMEM, "out of memory");
    if (r == 0)
        r = ask_the_rest(&d, err);
    for (size_t i = 0; i < d.asked_count; i++)
        free(d.asked[i].path);
    free(d.asked);
    free(d.marks);
    progress_clear();
    if (r == 0)
        *ret = d.report;
    return r;
}
