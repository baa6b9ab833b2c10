/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The end of a publish: packs get their device numbers, the index is written, read back from the
 * store and checked, and the manifest goes to the catalogue, which commits.
 *
 * The index is checked because some mistakes in it give wrong bytes without an error, and nobody
 * else would notice in time.
 */
#include "publish/publish-internal.h"
#include "publish/publish-shelf.h"

#include "fetch/fetch.h"
#include "index/index.h"

#include <inttypes.h>
#include <stdio.h>

#define INDEX_BUFFER (64u * PACK_INDEX_LEAF) /* leaves that go to the pack writer at once */
#define TOLD_FROM    200000u                 /* nodes: fewer are done before anybody could look */
#define CHECK_MEMORY (UINT64_C(32) << 20)    /* for the index while it is read back */

/* ---- packs become devices ---------------------------------------------------------------------
 */

struct devices {
    struct index_device *devices; /* owned; in device order */
    struct object_ref *refs;      /* owned; the same for the manifest */
    uint16_t *device_of;          /* owned; by pack number; id from 1, 0: not used */
    size_t count;
    uint64_t *used; /* owned; blocks, by pack number */
};

static void devices_release(struct devices *d)
{
    free(d->devices);
    free(d->refs);
    free(d->device_of);
    free(d->used);
}

/* Blocks that two files share are counted twice: an upper bound, cut at the pack's size below. It
 * only serves to decide when a pack is worn. */
static void count_blocks(struct devices *d, uint16_t pack, size_t packs, uint64_t bytes)
{
    if (pack >= packs)
        return;
    if (d->device_of[pack] == 0)
        d->device_of[pack] = (uint16_t)++d->count;
    d->used[pack] += pack_blocks(bytes);
}

static void count_file(struct devices *d, const struct publish *p, const struct tree_node *n)
{
    if (n->pack != TREE_PACK_MANY) {
        count_blocks(d, n->pack, p->packs.count, n->size);
        return;
    }
    for (uint64_t i = 0; i < tree_chunk_count(n->size); i++) {
        uint64_t left = n->size - i * PACK_BLOB_MAX;
        count_blocks(d, tree_chunk(p->tree, n->ref + (uint32_t)i)->pack, p->packs.count,
                     left < PACK_BLOB_MAX ? left : PACK_BLOB_MAX);
    }
}

/* Numbers in the order of first use. */
static int devices_make(struct publish *p, struct devices *d, struct err *err)
{
    size_t packs = p->packs.count;

    d->devices = calloc(packs + 1, sizeof *d->devices);
    d->refs = calloc(packs + 1, sizeof *d->refs);
    d->device_of = calloc(packs + 1, sizeof *d->device_of);
    d->used = calloc(packs + 1, sizeof *d->used);
    if (!d->devices || !d->refs || !d->device_of || !d->used)
        return err_fail(err, -ENOMEM, "out of memory");
    for (uint32_t i = 0; i < tree_node_count(p->tree); i++) {
        const struct tree_node *n = tree_node(p->tree, i);
        if (n->type == TREE_FILE)
            count_file(d, p, n);
    }
    if (d->count > MANIFEST_PACKS_MAX)
        return err_fail(err, -EFBIG,
                        "'%s' would consist of %zu packs, more than %u are not possible",
                        p->o->name, d->count, MANIFEST_PACKS_MAX);
    for (size_t i = 0; i < packs; i++) {
        struct object_ref ref = p->packs.at[i].ref;
        uint64_t blocks = ref.data_size / PACK_BLOCK;
        if (d->device_of[i] == 0)
            continue;
        if (ref.linked) /* the object is a table; it knows how many blocks the device has */
            blocks = ref.used_blocks;
        else
            ref.used_blocks = d->used[i] < blocks ? d->used[i] : blocks;
        d->refs[d->device_of[i] - 1] = ref;
        d->devices[d->device_of[i] - 1] =
            (struct index_device){.digest = ref.digest, .blocks = blocks};
        p->result.packs_reused += !p->packs.at[i].of_session;
    }
    return 0;
}

/* ---- the index --------------------------------------------------------------------------------
 */

struct index_output {
    struct store_upload *upload;
    struct pack_writer *writer;
    uint8_t *data; /* owned; INDEX_BUFFER */
    size_t size;
};

static int to_store(void *ctx, const void *data, size_t size)
{
    struct index_output *out = ctx;

    return store_upload_write(out->upload, data, size);
}

static int write_leaves(struct index_output *out)
{
    struct pack_leaf leaves[INDEX_BUFFER / PACK_INDEX_LEAF];
    size_t count = 0;
    uint64_t block, leaf;

    for (size_t at = 0; at < out->size; at += PACK_INDEX_LEAF, count++) {
        size_t length = out->size - at < PACK_INDEX_LEAF ? out->size - at : PACK_INDEX_LEAF;
        leaves[count] = (struct pack_leaf){.digest = digest_of(out->data + at, length),
                                           .length = (uint32_t)length};
    }
    int r = count == 0
                ? 0
                : pack_writer_add(out->writer, leaves, count, out->data, out->size, &block, &leaf);
    out->size = 0;
    return r;
}

static int to_leaves(void *ctx, const void *data, size_t size)
{
    struct index_output *out = ctx;

    while (size > 0) {
        size_t n = INDEX_BUFFER - out->size < size ? INDEX_BUFFER - out->size : size;
        memcpy(out->data + out->size, data, n);
        out->size += n;
        data = (const uint8_t *)data + n;
        size -= n;
        if (out->size == INDEX_BUFFER) {
            int r = write_leaves(out);
            if (r < 0)
                return r;
        }
    }
    return 0;
}

static int write_index(struct publish *p, const struct devices *d, struct index_output *out,
                       struct index_summary *ret, struct object_ref *ref, struct err *err)
{
    struct pack_summary summary;

    int r = index_write(p->tree, d->devices, d->count, d->device_of, p->packs.count, to_leaves, out,
                        ret, err);
    if (r == 0)
        r = write_leaves(out);
    if (r == 0)
        r = pack_writer_finish(out->writer, &summary);
    if (r == 0)
        r = store_upload_commit(take_ptr(&out->upload));
    if (r < 0)
        return err_fail(err, r, "cannot write the index to %s: %s", p->store->location,
                        store_error(p->store, r));
    shelf_set_summary(ref, &summary);
    p->result.bytes_stored += summary.length;
    return 0;
}

static int store_index(struct publish *p, const struct devices *d, struct index_summary *ret,
                       struct object_ref *ret_ref, struct err *err)
{
    struct index_output out = {0};
    struct object_ref ref = {.session = *upload_session(p->upload),
                             .seq = upload_next_seq(p->upload, 'x')};
    char key[OBJECT_KEY_MAX];

    object_ref_key('x', &ref, key);
    out.data = malloc(INDEX_BUFFER);
    int r = out.data ? store_upload(p->store, key, &out.upload) : -ENOMEM;
    if (r == 0)
        r = pack_writer_new(PACK_KIND_INDEX, to_store, &out, &out.writer);
    if (r < 0)
        (void)err_fail(err, r, "cannot write the index to %s: %s", p->store->location,
                       strerror(-r));
    if (r == 0)
        r = write_index(p, d, &out, ret, &ref, err);
    pack_writer_free(out.writer);
    store_upload_abort(out.upload);
    free(out.data);
    if (r == 0)
        *ret_ref = ref;
    return r;
}

/* ---- the check --------------------------------------------------------------------------------
 */

static int read_index(void *ctx, uint64_t offset, void *data, size_t size)
{
    return fetch_read(ctx, offset, data, size, offset / PACK_INDEX_LEAF);
}

static void count_tree(const struct tree *t, struct index_counts *ret)
{
    *ret = (struct index_counts){0};
    for (uint32_t i = 0; i < tree_node_count(t); i++) {
        const struct tree_node *n = tree_node(t, i);
        ret->files += n->type == TREE_FILE;
        ret->directories += n->type == TREE_DIRECTORY;
        ret->symlinks += n->type == TREE_SYMLINK;
        ret->size_bytes += n->type == TREE_FILE ? n->size : 0;
    }
}

static int check_open_index(struct fetch_object *o, const struct index_summary *summary,
                            const struct index_counts *expected, struct err *err)
{
    AUTO(index_close) struct index *x = NULL;
    struct index_counts found;

    int r = index_open(read_index, o, summary->size, &x, err);
    if (r == 0)
        r = index_check(x, &found, err);
    if (r == 0 &&
        (found.files != expected->files || found.directories != expected->directories ||
         found.symlinks != expected->symlinks || found.size_bytes != expected->size_bytes))
        r = err_fail(err, -EPROTO, "%" PRIu64 " files were written and %" PRIu64 " are found",
                     expected->files, found.files);
    return r;
}

static int check_index(struct publish *p, const struct object_ref *ref,
                       const struct index_summary *summary, const struct index_counts *expected,
                       struct err *err)
{
    AUTO(fetch_free) struct fetch *fetch = NULL;
    AUTO(fetch_object_free) struct fetch_object *object = NULL;
    struct pack_summary pack = shelf_summary(ref);
    char key[OBJECT_KEY_MAX];

    object_ref_key('x', ref, key);
    struct fetch_options options = {.store = p->store, .memory_bytes = CHECK_MEMORY};
    int r = fetch_new(&options, &fetch);
    if (r == 0)
        r = fetch_object_new(fetch, key, PACK_KIND_INDEX, &pack, &object);
    if (r == 0)
        r = check_open_index(object, summary, expected, err);
    return r < 0 ? err_prefix(err, r, "the index that was just written to %s is not right",
                              p->store->location)
                 : 0;
}

/* ---- the commit -------------------------------------------------------------------------------
 */

static int xattrs_compare(const void *a, const void *b)
{
    const struct publish_xattrs *x = a, *y = b;

    if (x->node != y->node)
        return x->node < y->node ? -1 : 1;
    return x->order < y->order ? -1 : 1;
}

/* The last ones of a file count. */
static int set_xattrs(struct publish *p, struct err *err)
{
    size_t n = p->xattrs.count;
    int r = 0;

    for (size_t i = 0; i < n; i++)
        p->xattrs.at[i].order = i;
    if (n > 1)
        qsort(p->xattrs.at, n, sizeof *p->xattrs.at, xattrs_compare);
    for (size_t i = 0; r == 0 && i < n; i++) {
        const struct publish_xattrs *x = &p->xattrs.at[i];
        if (x->size > 0 && (i + 1 == n || x[1].node != x->node))
            r = tree_set_xattrs(p->tree, x->node, bytes_of(x->data, x->size));
    }
    return r < 0 ? err_fail(err, r, "cannot keep extended attributes: %s", strerror(-r)) : 0;
}

static int commit(struct publish *p, const struct devices *d, const struct object_ref *index,
                  const struct index_summary *summary, const struct index_counts *counts,
                  struct err *err)
{
    AUTO(free_ptr) struct manifest *m = calloc(1, sizeof *m); /* some KB: not for the stack */

    if (!m)
        return err_fail(err, -ENOMEM, "out of memory");
    (void)snprintf(m->name, sizeof m->name, "%s", p->o->name);
    (void)snprintf(m->source, sizeof m->source, "%s", p->source->location);
    m->version = upload_version(p->upload);
    m->created_ms = env_real()->wall_ms(env_real());
    m->index = *index;
    m->index_size = summary->size;
    m->index_head = summary->head;
    m->files = counts->files;
    m->directories = counts->directories;
    m->symlinks = counts->symlinks;
    m->size_bytes = counts->size_bytes;
    m->linked = p->o->linked;
    m->packs = d->refs; /* borrowed: devices_release() frees them */
    m->pack_count = (uint32_t)d->count;
    p->progress.phase = PUBLISH_COMMIT;
    publish_tell(p, true);
    return upload_commit(p->upload, m, &p->result.info, err);
}

int publish_finish(struct publish *p, struct err *err)
{
    struct devices d = {0};
    struct index_summary summary;
    struct index_counts counts;
    struct object_ref index;

    p->progress.phase = PUBLISH_INDEX;
    publish_tell(p, true);
    p->result.files_unchanged = p->o->linked ? 0 : p->progress.files_total - p->result.files_read;
    int r = 0;
    if (tree_node_count(p->tree) >= TOLD_FROM)
        r = upload_indexing(p->upload, err);
    if (r == 0)
        r = set_xattrs(p, err);
    if (r == 0 && (r = tree_seal(p->tree)) < 0)
        (void)err_fail(err, r, "cannot finish the tree: %s", strerror(-r));
    if (r == 0)
        r = devices_make(p, &d, err);
    if (r == 0)
        r = store_index(p, &d, &summary, &index, err);
    count_tree(p->tree, &counts);
    if (r == 0)
        r = check_index(p, &index, &summary, &counts, err);
    if (r == 0 && publish_interrupted(p))
        r = err_fail(err, -ECANCELED, "interrupted");
    if (r == 0)
        r = commit(p, &d, &index, &summary, &counts, err);
    devices_release(&d);
    return r;
}
