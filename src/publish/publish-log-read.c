/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading a log of local state.
 *
 * Opening scans the headers of the records and remembers 16 bytes per block: the hash of its
 * directory and its place. A header whose check is wrong ends the log there; a block whose check is
 * wrong is left out. So whatever happened to the file, an entry is either one that was written, or
 * absent.
 */
#include "publish/publish-log-internal.h"

#include "base/file.h"
#include "base/le.h"
#include "base/name.h"
#include "base/vec.h"

#include <sys/stat.h>

struct block_place {
    uint64_t hash;
    uint64_t offset; /* of the record */
};

struct log_reader {
    int fd;
    uint64_t size; /* bytes of the file when it was opened */
    struct log_identity identity;
    bool has_identity, has_session, has_committed;
    struct log_session session;
    struct digest manifest;
    VEC(struct block_place) blocks; /* by hash, then offset */
    VEC(struct object_ref) packs;
    uint16_t pack_at[LOG_PACKS]; /* place in `packs` plus one; 0: none */
    struct buf payload;          /* of the block that is being read */
};

struct tree_chunk log_chunk(const struct log_entry *e, uint64_t i)
{
    const uint8_t *p = e->chunks + i * LOG_CHUNK_SIZE;

    return (struct tree_chunk){
        .pack = le16_get(p), .block = le32_get(p + 2), .leaf = le32_get(p + 6)};
}

struct record {
    uint32_t type, length;
    uint64_t key, check;
};

/* -EBADMSG: no whole, undamaged header there. */
static int read_head(const struct log_reader *r, uint64_t offset, struct record *ret)
{
    uint8_t head[LOG_RECORD_SIZE];

    if (offset > r->size || r->size - offset < sizeof head ||
        file_pread(r->fd, head, sizeof head, (off_t)offset) != (ssize_t)sizeof head ||
        log_check(head, 24) != le64_get(head + 24))
        return -EBADMSG;
    struct record record = {.type = le32_get(head),
                            .length = le32_get(head + 4),
                            .key = le64_get(head + 8),
                            .check = le64_get(head + 16)};
    if (record.length > LOG_PAYLOAD_MAX || r->size - offset - sizeof head < record.length)
        return -EBADMSG;
    *ret = record;
    return 0;
}

/* The payload into r->payload. */
static int read_payload(struct log_reader *r, uint64_t offset, const struct record *record)
{
    uint8_t *p;

    buf_clear(&r->payload);
    int e = buf_extend(&r->payload, record->length, &p);
    if (e < 0)
        return e;
    ssize_t n = file_pread(r->fd, p, record->length, (off_t)(offset + LOG_RECORD_SIZE));
    if (n != (ssize_t)record->length || log_check(p, record->length) != record->check)
        return -EBADMSG;
    return 0;
}

/* ---- opening ----------------------------------------------------------------------------------
 */

static bool take_text(struct bytes *b, char *text, size_t size)
{
    const uint8_t *p = b->data;

    if (b->size < 2)
        return false;
    size_t length = le16_get(p);
    if (length > b->size - 2 || length >= size || memchr(p + 2, '\0', length))
        return false;
    memcpy(text, p + 2, length);
    text[length] = '\0';
    *b = bytes_of(p + 2 + length, b->size - 2 - length);
    return true;
}

static int take_header(struct log_reader *r)
{
    struct log_identity id = {0};
    const uint8_t *p = r->payload.data;

    if (r->payload.size < 16 || memcmp(p, LOG_MAGIC, 8) != 0)
        return -EPROTO;
    if (le32_get(p + 8) != LOG_FORMAT)
        return -EPROTONOSUPPORT;
    uint32_t flags = le32_get(p + 12);
    id.append = flags & LOG_FLAG_APPEND;
    id.exclude_private = flags & LOG_FLAG_EXCLUDE_PRIVATE;
    id.trust_mtime = flags & LOG_FLAG_TRUST_MTIME;
    struct bytes rest = bytes_of(p + 16, r->payload.size - 16);
    if (!take_text(&rest, id.store_id, sizeof id.store_id) ||
        !take_text(&rest, id.name, sizeof id.name) || !name_is_valid(id.name) ||
        !take_text(&rest, id.store, sizeof id.store) ||
        !take_text(&rest, id.source, sizeof id.source) ||
        (rest.size != 0 && !take_text(&rest, id.source_terms, sizeof id.source_terms)) ||
        rest.size != 0)
        return -EPROTO;
    r->identity = id;
    r->has_identity = true;
    return 0;
}

/* The first record of a number counts: entries that were written before a second one cannot have
 * meant it. */
static int take_pack(struct log_reader *r, uint64_t number)
{
    const uint8_t *p = r->payload.data;
    struct object_ref ref = {0};

    if (number >= LOG_NO_PACK || r->payload.size != LOG_PACK_SIZE || r->pack_at[number] != 0)
        return 0;
    memcpy(ref.session.byte, p, 16);
    ref.seq = le32_get(p + 16);
    ref.length = le64_get(p + 20);
    ref.data_size = le64_get(p + 28);
    ref.leaf_count = le64_get(p + 36);
    ref.trailer_length = le32_get(p + 44);
    ref.born = le32_get(p + 48);
    memcpy(ref.digest.byte, p + 52, DIGEST_SIZE);
    int e = vec_push(&r->packs, ref);
    if (e == 0)
        r->pack_at[number] = (uint16_t)r->packs.count; /* at most 65,535, as numbers are unique */
    return e;
}

static void take_session(struct log_reader *r)
{
    const uint8_t *p = r->payload.data;

    if (r->payload.size != LOG_SESSION_SIZE)
        return;
    memcpy(r->session.session.byte, p, 16);
    r->session.version = le32_get(p + 16);
    r->session.started_ms = (int64_t)le64_get(p + 20);
    r->has_session = true;
}

static void take_committed(struct log_reader *r)
{
    if (r->payload.size != LOG_COMMITTED_SIZE)
        return;
    memcpy(r->manifest.byte, r->payload.data, DIGEST_SIZE);
    r->has_committed = true;
}

static int take_record(struct log_reader *r, uint64_t offset, const struct record *record)
{
    if (record->type == LOG_TYPE_BLOCK) {
        struct block_place place = {.hash = record->key, .offset = offset};
        return vec_push(&r->blocks, place);
    }
    int e = read_payload(r, offset, record);
    if (e == -EBADMSG)
        return 0;
    if (e < 0)
        return e;
    switch (record->type) {
    case LOG_TYPE_PACK:
        return take_pack(r, record->key);
    case LOG_TYPE_SESSION:
        take_session(r);
        return 0;
    case LOG_TYPE_COMMITTED:
        take_committed(r);
        return 0;
    default: /* of a later program of this format: it may be ignored */
        return 0;
    }
}

static int place_compare(const void *a, const void *b)
{
    const struct block_place *x = a, *y = b;

    if (x->hash != y->hash)
        return x->hash < y->hash ? -1 : 1;
    return x->offset < y->offset ? -1 : x->offset > y->offset;
}

static int scan(struct log_reader *r)
{
    struct record record;
    uint64_t offset = 0;

    int e = read_head(r, 0, &record);
    if (e == 0 && record.type == LOG_TYPE_HEADER && record.length <= LOG_HEADER_MAX)
        e = read_payload(r, 0, &record);
    else
        e = -EPROTO;
    if (e == 0)
        e = take_header(r);
    if (e < 0)
        return e == -EBADMSG ? -EPROTO : e;
    for (offset = LOG_RECORD_SIZE + record.length; read_head(r, offset, &record) == 0;
         offset += LOG_RECORD_SIZE + record.length) {
        e = take_record(r, offset, &record);
        if (e < 0)
            return e;
    }
    if (r->blocks.count > 1)
        qsort(r->blocks.at, r->blocks.count, sizeof *r->blocks.at, place_compare);
    return 0;
}

int log_reader_open(int fd, struct log_reader **ret)
{
    AUTO(close_fd) int owned = fd;
    AUTO(log_reader_free) struct log_reader *r = calloc(1, sizeof *r);
    struct stat st;

    if (!r)
        return -ENOMEM;
    r->fd = -1;
    buf_init(&r->payload, LOG_PAYLOAD_MAX);
    if (fstat(fd, &st) < 0)
        return -errno;
    r->fd = take_fd(&owned);
    r->size = (uint64_t)st.st_size;
    int e = scan(r);
    if (e == 0)
        *ret = take_ptr(&r);
    return e;
}

void log_reader_free(struct log_reader *r)
{
    if (!r)
        return;
    if (r->fd >= 0)
        (void)close(r->fd); /* only read */
    vec_release(&r->blocks);
    vec_release(&r->packs);
    buf_release(&r->payload);
    free(r);
}

const struct log_identity *log_reader_identity(const struct log_reader *r)
{
    return &r->identity;
}

bool log_reader_session(const struct log_reader *r, struct log_session *ret)
{
    if (r->has_session)
        *ret = r->session;
    return r->has_session;
}

bool log_reader_committed(const struct log_reader *r, struct digest *ret_manifest)
{
    if (r->has_committed)
        *ret_manifest = r->manifest;
    return r->has_committed;
}

bool log_reader_pack(const struct log_reader *r, uint16_t number, struct object_ref *ret)
{
    if (r->pack_at[number] == 0)
        return false;
    *ret = r->packs.at[r->pack_at[number] - 1];
    return true;
}

/* ---- blocks -----------------------------------------------------------------------------------
 */

/* The entry at `*at`; moves it behind. False: the block's bytes make no sense. */
static bool entry_parse(struct bytes b, size_t *at, struct log_entry *ret)
{
    const uint8_t *p = (const uint8_t *)b.data + *at;
    size_t left = b.size - *at;

    if (left < LOG_ENTRY_HEAD || p[0] == 0 || p[1] > LOG_MANY)
        return false;
    struct log_entry e = {
        .name_length = p[0],
        .where = p[1],
        .size = le64_get(p + 4),
        .inode = le64_get(p + 12),
        .mtime = {(int64_t)le64_get(p + 20), le32_get(p + 28)},
        .ctime = {(int64_t)le64_get(p + 32), le32_get(p + 40)},
        .mtime_settled = le16_get(p + 44) & LOG_ENTRY_MTIME_SETTLED,
    };
    size_t xattrs = le16_get(p + 2);
    uint64_t chunks = tree_chunk_count(e.size);
    if ((e.where == LOG_EMPTY) != (chunks == 0) || (e.where == LOG_MANY) != (chunks > 1))
        return false;
    if (e.where != LOG_MANY)
        chunks = e.where == LOG_ONE;
    left -= LOG_ENTRY_HEAD;
    p += LOG_ENTRY_HEAD;
    if (chunks > left / LOG_CHUNK_SIZE)
        return false;
    size_t tail = (size_t)chunks * LOG_CHUNK_SIZE + xattrs + e.name_length;
    if (tail > left)
        return false;
    e.chunks = p;
    e.chunk_count = chunks;
    if (e.where == LOG_ONE)
        e.chunk = log_chunk(&e, 0);
    p += chunks * LOG_CHUNK_SIZE;
    e.xattrs = bytes_of(p, xattrs);
    e.name = (const char *)p + xattrs;
    *at += LOG_ENTRY_HEAD + tail;
    *ret = e;
    return true;
}

static int each_entry(struct bytes b, const char *path, size_t path_length, log_entry_fn *fn,
                      void *ctx)
{
    struct log_entry e;
    size_t at = LOG_BLOCK_HEAD + path_length;

    if (b.size < at || le32_get(b.data) != path_length ||
        memcmp((const uint8_t *)b.data + LOG_BLOCK_HEAD, path, path_length) != 0)
        return 0; /* another directory with the same hash */
    while (at < b.size && entry_parse(b, &at, &e)) {
        int r = fn(ctx, &e);
        if (r != 0)
            return r;
    }
    return 0;
}

static size_t first_block(const struct log_reader *r, uint64_t hash)
{
    size_t low = 0, high = r->blocks.count;

    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (r->blocks.at[middle].hash < hash)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

int log_reader_directory(struct log_reader *r, const char *path, size_t path_length,
                         log_entry_fn *fn, void *ctx)
{
    uint64_t hash = log_path_hash(path, path_length);

    for (size_t i = first_block(r, hash); i < r->blocks.count && r->blocks.at[i].hash == hash;
         i++) {
        uint64_t offset = r->blocks.at[i].offset;
        struct record record;
        int e = read_head(r, offset, &record);
        if (e == 0)
            e = read_payload(r, offset, &record);
        if (e == -EBADMSG)
            continue;
        if (e == 0)
            e = each_entry(buf_bytes(&r->payload), path, path_length, fn, ctx);
        if (e != 0)
            return e;
    }
    return 0;
}
