/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Packs being made.
 *
 * Blobs that lie one behind the other in a batch are one run: one call of the pack writer, one
 * write to the store, no copy. A finished pack goes to a thread of its own for its commit, which is
 * mostly a sync; two may be there, so that memory and dirty pages stay bounded.
 *
 * A pack's leaves stay in memory until it is committed: until then nobody can read them back.
 */
#include "publish/publish-making.h"
#include "publish/publish-shelf.h"

#include "base/queue.h"

#include <stdatomic.h>
#include <stdio.h>

#define COMMITS_WAITING 1u         /* besides the one that is being committed */
#define LEAVES_MAX      (1u << 19) /* of one pack: 20 MiB of rows in memory */

struct leaf_row {
    struct digest digest;
    uint32_t block, length;
};

struct pack_making {
    struct pack_making *next; /* newest first */
    uint16_t number;
    struct store_upload *upload; /* NULL once the commit has it */
    struct pack_writer *writer;
    struct object_ref ref; /* complete when it goes to the commit */
    VEC(struct leaf_row) rows;
    uint64_t size; /* bytes of data, the current run included */
    int error;     /* of the commit; valid when done */
    atomic_bool done;
};

struct making {
    struct publish *p;
    struct pack_making *packs; /* owned; the open one first, if there is one */
    bool open;
    struct queue *commits;
    pthread_t thread;
    bool has_thread;
    /* the run: */
    const struct pack_leaf *leaves;
    const uint8_t *data;
    size_t leaf_count, size;
    uint64_t block; /* where it starts */
};

/* ---- commit -----------------------------------------------------------------------------------
 */

/* After an answer that leaves it open: does the pack lie there? Its trailer tells. */
static int settle(const struct publish *p, const struct object_ref *ref, int code)
{
    struct pack_summary summary = shelf_summary(ref);
    AUTO(pack_trailer_free) struct pack_trailer *trailer = NULL;
    AUTO(free_ptr) void *bytes = malloc(ref->trailer_length);
    char key[OBJECT_KEY_MAX];
    uint64_t length = 0;
    size_t got = 0;

    object_ref_key('p', ref, key);
    if (!bytes || store_get(p->store, key, summary.trailer_offset, bytes, ref->trailer_length, &got,
                            &length) < 0)
        return code;
    if (got != ref->trailer_length || length != ref->length ||
        pack_trailer_parse(bytes_of(bytes, got), PACK_KIND_DATA, &summary, &trailer, NULL) < 0)
        return code;
    return 0;
}

static void *commit_packs(void *ctx)
{
    struct making *m = ctx;
    struct pack_making *k;

    while ((k = queue_pop(m->commits)) != NULL) {
        struct store_upload *upload = take_ptr(&k->upload);
        int r = store_upload_commit(upload);
        if (r == -EIO || r == -ETIMEDOUT || r == -EEXIST)
            r = settle(m->p, &k->ref, r);
        k->error = r;
        atomic_store(&k->done, true);
    }
    return NULL;
}

static void pack_free(struct pack_making *k)
{
    pack_writer_free(k->writer);
    store_upload_abort(k->upload);
    vec_release(&k->rows);
    free(k);
}

static int store_failed(const struct making *m, int code, struct err *err)
{
    return err_fail(err, code, "cannot write to %s: %s", m->p->store->location,
                    store_error(m->p->store, code));
}

/* Let go of what is committed. */
static int reap(struct making *m, struct err *err)
{
    for (struct pack_making **at = &m->packs; *at;) {
        struct pack_making *k = *at;
        if (!atomic_load(&k->done)) {
            at = &k->next;
            continue;
        }
        if (k->error < 0)
            return store_failed(m, k->error, err);
        *at = k->next;
        pack_free(k);
    }
    return 0;
}

/* ---- one pack ---------------------------------------------------------------------------------
 */

static int to_store(void *ctx, const void *data, size_t size)
{
    struct pack_making *k = ctx;

    return store_upload_write(k->upload, data, size);
}

static int open_pack(struct making *m, struct err *err)
{
    struct publish *p = m->p;
    struct publish_pack pack = {.state = PACK_OPEN, .of_session = true};
    char key[OBJECT_KEY_MAX];
    struct pack_making *k = calloc(1, sizeof *k);

    if (!k)
        return err_fail(err, -ENOMEM, "out of memory");
    k->next = m->packs;
    m->packs = k;
    pack.ref.session = *upload_session(p->upload);
    pack.ref.seq = upload_next_seq(p->upload, 'p');
    pack.ref.born = upload_version(p->upload);
    k->ref = pack.ref;
    object_ref_key('p', &pack.ref, key);
    int r = publish_add_pack(p, &pack, &k->number, err);
    if (r < 0)
        return r;
    r = pack_writer_new(PACK_KIND_DATA, to_store, k, &k->writer);
    if (r == 0)
        r = store_upload(p->store, key, &k->upload);
    if (r < 0)
        return store_failed(m, r, err);
    m->open = true;
    return 0;
}

static int close_pack(struct making *m, struct err *err)
{
    struct pack_making *k = m->packs;
    struct publish *p = m->p;
    struct pack_summary summary;

    int r = making_flush(m, err);
    if (r < 0)
        return r;
    r = pack_writer_finish(k->writer, &summary);
    if (r < 0)
        return store_failed(m, r, err);
    pack_writer_free(take_ptr(&k->writer));
    shelf_set_summary(&k->ref, &summary);
    p->packs.at[k->number].ref = k->ref;
    p->result.packs_written++;
    p->result.bytes_stored += summary.length;
    m->open = false;
    /* The journal first: a pack that it does not name is lost to a resume. */
    publish_journal_pack(p, k->number);
    if (p->journal)
        (void)log_writer_flush(p->journal); /* a journal that fails only costs time later */
    (void)queue_push(m->commits, k);        /* it is only closed by us */
    return reap(m, err);
}

int making_room(struct making *m, size_t size, size_t leaf_count, struct err *err)
{
    if (m->open) {
        const struct pack_making *k = m->packs;
        if (k->size + size <= m->p->pack_target && k->rows.count + leaf_count <= LEAVES_MAX)
            return 0;
        int r = close_pack(m, err);
        if (r < 0)
            return r;
    }
    return open_pack(m, err);
}

static int add_rows(struct pack_making *k, const struct pack_leaf *leaves, size_t count)
{
    uint64_t block = k->size / PACK_BLOCK;

    for (size_t i = 0; i < count; i++) {
        struct leaf_row row = {leaves[i].digest, (uint32_t)block, leaves[i].length};
        int r = vec_push(&k->rows, row);
        if (r < 0)
            return r;
        block += pack_blocks(leaves[i].length);
    }
    return 0;
}

int making_add(struct making *m, const struct pack_leaf *leaves, size_t leaf_count,
               const uint8_t *data, size_t size, struct tree_chunk *ret, struct err *err)
{
    struct pack_making *k = m->packs;

    if (m->size > 0 && (m->data + m->size != data || m->leaves + m->leaf_count != leaves)) {
        int r = making_flush(m, err);
        if (r < 0)
            return r;
    }
    if (m->size == 0) {
        m->data = data;
        m->leaves = leaves;
        m->block = k->size / PACK_BLOCK;
    }
    *ret = (struct tree_chunk){.block = (uint32_t)(k->size / PACK_BLOCK),
                               .leaf = (uint32_t)k->rows.count,
                               .pack = k->number};
    int r = add_rows(k, leaves, leaf_count);
    if (r < 0)
        return err_fail(err, r, "out of memory");
    k->size += size;
    m->size += size;
    m->leaf_count += leaf_count;
    m->p->progress.bytes_stored += size;
    return 0;
}

int making_flush(struct making *m, struct err *err)
{
    uint64_t block, leaf;

    if (m->size == 0)
        return 0;
    int r = pack_writer_add(m->packs->writer, m->leaves, m->leaf_count, m->data, m->size, &block,
                            &leaf);
    if (r < 0)
        return store_failed(m, r, err);
    if (block != m->block)
        abort(); /* files have been told another place: never write a version like that */
    m->size = m->leaf_count = 0;
    return 0;
}

/* ---- known leaves -----------------------------------------------------------------------------
 */

int making_has_leaf(struct making *m, uint16_t number, uint64_t block, const struct pack_leaf *leaf,
                    uint32_t *ret_number)
{
    const struct pack_making *k = m->packs;
    size_t low = 0, high;

    while (k && k->number != number)
        k = k->next;
    if (!k)
        return -ENOENT;
    for (high = k->rows.count; low < high;) {
        size_t middle = low + (high - low) / 2;
        if (k->rows.at[middle].block < block)
            low = middle + 1;
        else
            high = middle;
    }
    if (low == k->rows.count || k->rows.at[low].block != block ||
        k->rows.at[low].length != leaf->length ||
        !digest_equal(&k->rows.at[low].digest, &leaf->digest))
        return 0;
    *ret_number = (uint32_t)low;
    return 1;
}

/* ---- life -------------------------------------------------------------------------------------
 */

int making_start(struct publish *p, struct making **ret)
{
    AUTO(making_free) struct making *m = calloc(1, sizeof *m);

    if (!m)
        return -ENOMEM;
    m->p = p;
    m->commits = queue_new(COMMITS_WAITING);
    if (!m->commits)
        return -ENOMEM;
    int r = pthread_create(&m->thread, NULL, commit_packs, m);
    if (r != 0)
        return -r;
    m->has_thread = true;
    *ret = take_ptr(&m);
    return 0;
}

static void join(struct making *m)
{
    if (m->commits)
        queue_close(m->commits); /* what is in it is still committed */
    if (m->has_thread)
        pthread_join(m->thread, NULL);
    m->has_thread = false;
}

int making_finish(struct making *m, struct err *err)
{
    int r = m->open ? close_pack(m, err) : 0;

    join(m);
    return r < 0 ? r : reap(m, err);
}

void making_free(struct making *m)
{
    if (!m)
        return;
    join(m);
    while (m->packs) {
        struct pack_making *k = m->packs;
        m->packs = k->next;
        pack_free(k);
    }
    queue_free(m->commits);
    free(m);
}
