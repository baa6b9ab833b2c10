/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An index to find things in, packs to read them from, both verified by fetch/. Packs are opened
 * when something in them is first read: a version may name thousands, and a job read from a few.
 *
 * An object that is gone from the store must never look like a file that does not exist, so errors
 * of objects become -EIO before they meet errors of names.
 */
#include "view/view-internal.h"

#include <inttypes.h>
#include <string.h>

/* An index of at most so many bytes (some 300,000 files) is read as a whole, in the background. */
#define INDEX_WHOLE_MAX (UINT64_C(32) << 20)

int view_object_error(int code)
{
    return code < 0 && code != -ENOMEM ? -EIO : code;
}

/* ---- opening
 * ------------------------------------------------------------------------------------------------
 */

static struct pack_summary summary_of(const struct object_ref *ref)
{
    return (struct pack_summary){.digest = ref->digest,
                                 .length = ref->length,
                                 .data_size = ref->data_size,
                                 .leaf_count = ref->leaf_count,
                                 .trailer_offset = object_ref_trailer_offset(ref),
                                 .trailer_length = ref->trailer_length};
}

static int open_object(struct view *v, char letter, enum pack_kind kind,
                       const struct object_ref *ref, struct fetch_object **ret)
{
    struct pack_summary summary = summary_of(ref);
    char key[OBJECT_KEY_MAX];

    object_ref_key(letter, ref, key);
    return fetch_object_new(v->fetch, key, kind, &summary, ret);
}

static int open_linked(struct view *v, const struct object_ref *ref, struct fetch_object **ret)
{
    struct pack_summary summary = summary_of(ref);
    char key[OBJECT_KEY_MAX];

    object_ref_key('p', ref, key);
    return fetch_object_new_linked(v->fetch, key, &summary, ref->used_blocks, ret);
}

/* Blocks of the device that stands for it. */
static uint64_t device_blocks(const struct object_ref *ref)
{
    return ref->linked ? ref->used_blocks : ref->data_size / PACK_BLOCK;
}

static int read_index(void *ctx, uint64_t offset, void *data, size_t size)
{
    struct view *v = ctx;

    return view_object_error(fetch_read(v->index_object, offset, data, size, FETCH_NO_HINT));
}

/* The index names packs by digest and length; the manifest says where they are. They must agree. */
static int check_devices(const struct view *v, struct err *err)
{
    const struct manifest *m = &v->manifest;

    if (index_device_count(v->index) != m->pack_count)
        return err_fail(err, -EPROTO, "%s:%u: its index names %u packs, its manifest %u", m->name,
                        m->version, index_device_count(v->index), m->pack_count);
    for (uint32_t i = 0; i < m->pack_count; i++) {
        struct digest d = index_device_digest(v->index, i + 1);
        if (!digest_equal(&d, &m->packs[i].digest) ||
            index_device_blocks(v->index, i + 1) != device_blocks(&m->packs[i]))
            return err_fail(err, -EPROTO,
                            "%s:%u: pack %u of its index is not the one in its manifest", m->name,
                            m->version, i + 1);
    }
    return 0;
}

/* Bytes of the index that are read at once when it is opened: from afar its head, which takes no
 * longer than one block of it. */
static size_t first_read(const struct view *v, uint64_t index_size, uint64_t head)
{
    size_t size = PACK_BLOCK;

    if (!v->quick && head > size)
        size = head < INDEX_HEAD_MAX ? (size_t)head : INDEX_HEAD_MAX;
    return size < index_size ? size : (size_t)index_size;
}

/* The record of the version says already where the index is: it comes while the manifest is read.
 */
static int begin_index(struct view *v, const struct version_info *info)
{
    size_t size = first_read(v, info->index_size, info->index_head);
    struct fetch_ticket ticket;

    if (v->quick || info->index.trailer_length == 0 || info->index_size > info->index.data_size)
        return 0;
    AUTO(free_ptr) uint8_t *head = malloc(size + 1);
    int r = open_object(v, 'x', PACK_KIND_INDEX, &info->index, &v->index_object);
    if (r < 0 || !head)
        return r < 0 ? 0 : -ENOMEM; /* the manifest may be right where the record is not */
    fetch_ticket_init(&ticket, v->fetch, NULL);
    fetch_try_begin(&ticket);
    (void)fetch_read(v->index_object, 0, head, size, FETCH_NO_HINT); /* asked for again below */
    if (fetch_try_end(&ticket))
        fetch_ticket_release(&ticket);
    v->begun = info->index;
    return 0;
}

static int open_index(struct view *v, struct err *err)
{
    const struct manifest *m = &v->manifest;
    size_t first = first_read(v, m->index_size, m->index_head);
    char key[OBJECT_KEY_MAX];
    int r = 0;

    object_ref_key('x', &m->index, key);
    if (m->index_size > m->index.data_size)
        return err_fail(err, -EPROTO, "%s:%u: its index %s is shorter than its manifest says",
                        m->name, m->version, key);
    if (v->index_object &&
        (!digest_equal(&v->begun.digest, &m->index.digest) || v->begun.seq != m->index.seq ||
         memcmp(&v->begun.session, &m->index.session, sizeof m->index.session) != 0)) {
        fetch_object_free(v->index_object);
        v->index_object = NULL;
    }
    if (!v->index_object)
        r = open_object(v, 'x', PACK_KIND_INDEX, &m->index, &v->index_object);
    if (r == 0) {
        /* Read some of it here, where the reason for a failure is still known. */
        AUTO(free_ptr) uint8_t *head = malloc(first + 1);
        r = !head                   ? -ENOMEM
            : m->index_size < first ? -EPROTO
            : first < PACK_BLOCK    ? -EPROTO
                                    : fetch_read(v->index_object, 0, head, first, FETCH_NO_HINT);
    }
    if (r == -ENOENT)
        return err_fail(err, -EIO, "%s:%u: its index %s is not in the store", m->name, m->version,
                        key);
    if (r == -EBADMSG)
        return err_fail(err, r, "%s:%u: its index %s is damaged", m->name, m->version, key);
    if (r < 0)
        return err_fail(err, r, "%s:%u: cannot read its index %s: %s", m->name, m->version, key,
                        strerror(-r));
    r = index_open(read_index, v, m->index_size, &v->index, err);
    if (r < 0)
        return err_prefix(err, r, "%s:%u: its index %s", m->name, m->version, key);
    return check_devices(v, err);
}

static struct fetch_object *open_number(void *ctx, uint32_t i)
{
    struct fetch_object *o = NULL;

    return view_open_pack(ctx, i, &o) == 0 ? o : NULL;
}

/* Packs follow one another as the tree's files do; and a small index is read whole. */
static int open_series(struct view *v, struct err *err)
{
    uint64_t bytes = 0;

    for (uint32_t i = 0; i < v->manifest.pack_count; i++)
        bytes += v->manifest.packs[i].data_size;
    int r = fetch_series_new(v->fetch, v->manifest.pack_count, bytes, open_number, v, &v->series);
    if (r < 0)
        return err_fail(err, r, "not enough memory to open %s:%u", v->manifest.name,
                        v->manifest.version);
    if (v->manifest.index_size <= INDEX_WHOLE_MAX)
        fetch_ahead(v->index_object, 0, v->manifest.index_size, FETCH_NO_HINT);
    return 0;
}

int view_open(struct catalogue *c, const struct version_info *info, struct fetch *fetch,
              struct view **ret, struct err *err)
{
    return view_open_known(c, info, NULL, fetch, ret, err);
}

int view_open_known(struct catalogue *c, const struct version_info *info,
                    const struct manifest *known, struct fetch *fetch, struct view **ret,
                    struct err *err)
{
    AUTO(view_close) struct view *v = calloc(1, sizeof *v);

    if (!v)
        return err_fail(err, -ENOMEM, "not enough memory to open %s:%u", info->name, info->version);
    v->fetch = fetch;
    v->quick = fetch_is_quick(fetch);
    int r = begin_index(v, info);
    if (r < 0)
        return err_fail(err, r, "not enough memory to open %s:%u", info->name, info->version);
    if (!known)
        r = catalogue_manifest(c, info, &v->manifest, err);
    else if (manifest_copy(known, &v->manifest) < 0)
        r = err_fail(err, -ENOMEM, "not enough memory to open %s:%u", info->name, info->version);
    if (r < 0)
        return r;
    v->packs = calloc(v->manifest.pack_count + 1u, sizeof *v->packs);
    if (!v->packs)
        return err_fail(err, -ENOMEM, "not enough memory to open %s:%u", info->name, info->version);
    r = open_index(v, err);
    if (r == 0)
        r = open_series(v, err);
    if (r == 0)
        *ret = take_ptr(&v);
    return r;
}

void view_close(struct view *v)
{
    if (!v)
        return;
    fetch_series_free(v->series);
    index_close(v->index);
    fetch_object_free(v->index_object);
    for (uint32_t i = 0; v->packs && i < v->manifest.pack_count; i++)
        fetch_object_free(atomic_load(&v->packs[i]));
    free(v->packs);
    manifest_release(&v->manifest);
    free(v);
}

const struct manifest *view_manifest(const struct view *v)
{
    return &v->manifest;
}

const struct index *view_index(const struct view *v)
{
    return v->index;
}

/* ---- names and attributes
 * ----------------------------------------------------------------------------------- */

int view_inode(struct view *v, uint64_t nid, struct index_inode *ret)
{
    return index_inode(v->index, nid, ret);
}

int view_lookup(struct view *v, uint64_t dir_nid, const char *name, size_t name_length,
                struct index_inode *ret)
{
    struct index_inode dir;
    uint64_t nid;
    int r = index_inode(v->index, dir_nid, &dir);

    if (r == 0)
        r = index_lookup(v->index, &dir, name, name_length, &nid);
    return r == 0 ? index_inode(v->index, nid, ret) : r;
}

int view_walk(struct view *v, const char *path, struct index_inode *ret)
{
    return index_walk(v->index, path, ret);
}

int view_readdir(struct view *v, uint64_t dir_nid, uint64_t cookie, index_entry_fn *fn, void *ctx)
{
    struct index_inode dir;
    int r = index_inode(v->index, dir_nid, &dir);

    return r == 0 ? index_readdir(v->index, &dir, cookie, fn, ctx) : r;
}

int view_readlink(struct view *v, uint64_t nid, char target[static INDEX_TARGET_MAX + 1])
{
    struct index_inode link;
    int r = index_inode(v->index, nid, &link);

    return r == 0 ? index_readlink(v->index, &link, target) : r;
}

int view_xattrs(struct view *v, const struct index_inode *inode, index_xattr_fn *fn, void *ctx)
{
    return index_xattrs(v->index, inode, fn, ctx);
}

/* ---- data
 * ------------------------------------------------------------------------------------------------------
 */

int view_open_pack(struct view *v, uint32_t i, struct fetch_object **ret)
{
    struct fetch_object *o = atomic_load_explicit(&v->packs[i], memory_order_acquire);
    struct fetch_object *other = NULL;

    if (!o) {
        const struct object_ref *ref = &v->manifest.packs[i];
        int r =
            ref->linked ? open_linked(v, ref, &o) : open_object(v, 'p', PACK_KIND_DATA, ref, &o);
        if (r < 0)
            return r;
        if (v->series)
            fetch_object_in_series(o, v->series, i);
        if (!atomic_compare_exchange_strong(&v->packs[i], &other, o)) {
            fetch_object_free(o);
            o = other;
        }
    }
    *ret = o;
    return 0;
}

/* `size` bytes of one chunk, `within` bytes behind its start. */
static int read_chunk(struct view *v, const struct index_inode *file, const struct index_extent *e,
                      uint64_t within, void *data, size_t size)
{
    struct fetch_object *pack;
    struct fetch_hint hint = {.start = e->block * PACK_BLOCK, .leaf = FETCH_NO_HINT};

    if (e->device == 0) {
        memset(data, 0, size);
        return 0;
    }
    int r = view_open_pack(v, e->device - 1, &pack);
    if (r < 0)
        return r;
    /* The inode knows the first leaf of a file that is one chunk; linked: the page of the table. */
    hint.end = hint.start + e->chunk_size;
    if (e->chunk_size == file->size)
        hint.leaf = file->leaf_hint;
    return fetch_read_hinted(pack, hint.start + within, data, size, &hint);
}

ssize_t view_read(struct view *v, const struct index_inode *file, uint64_t offset, void *data,
                  size_t size)
{
    size_t done = 0;

    if (file->type != INDEX_FILE)
        return file->type == INDEX_DIRECTORY ? -EISDIR : -EINVAL;
    if (offset >= file->size)
        return 0;
    if (size > file->size - offset)
        size = (size_t)(file->size - offset);
    while (done < size) {
        struct index_extent e;
        int r = index_map(v->index, file, offset + done, &e);
        if (r == 0) {
            uint64_t within = offset + done - e.chunk_offset;
            uint64_t n = e.chunk_size - within;
            n = n < size - done ? n : size - done;
            r = read_chunk(v, file, &e, within, (uint8_t *)data + done, (size_t)n);
            done += (size_t)n;
        }
        if (r < 0)
            return view_object_error(r);
    }
    return (ssize_t)done;
}

int view_link(struct view *v, const struct index_inode *file, struct fetch_link *ret)
{
    struct index_extent e;
    struct fetch_object *device;

    if (file->type != INDEX_FILE || file->size == 0)
        return -EINVAL;
    int r = index_map(v->index, file, 0, &e);
    if (r == 0)
        r = e.device ? view_open_pack(v, e.device - 1, &device) : -EINVAL;
    if (r < 0)
        return r;
    uint64_t hint = e.chunk_size == file->size ? file->leaf_hint : FETCH_NO_HINT;
    return fetch_object_link(device, e.block * PACK_BLOCK, hint, ret);
}

int view_link_place(struct view *v, struct link_place *ret)
{
    struct fetch_object *device;

    if (v->manifest.pack_count == 0 || !v->manifest.packs[0].linked)
        return -EINVAL;
    int r = view_open_pack(v, 0, &device);
    return r < 0 ? r : fetch_object_place(device, ret);
}
