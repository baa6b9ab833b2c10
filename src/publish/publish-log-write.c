/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writing a log of local state.
 *
 * Entries are gathered into a block per directory, blocks into a buffer, and the buffer goes to the
 * kernel when it is full or a pack ends: a kill loses some entries, and their files are read again.
 * Nothing is synced: an entry only helps if its pack is in the store, and a torn block
 * has a wrong check.
 */
#include "publish/publish-log-internal.h"

#include "base/file.h"
#include "base/le.h"

#define FLUSH_AT (1u << 20) /* bytes gathered before a write */

struct log_writer {
    int fd;
    int error;
    struct buf out;   /* whole records */
    struct buf block; /* payload of the block that is being built */
    struct buf path;  /* of its directory */
    uint32_t entries; /* in the block */
    bool has_directory;
};

uint64_t log_check(const void *data, size_t size)
{
    struct digest d = digest_of(data, size);

    return le64_get(d.byte);
}

uint64_t log_path_hash(const char *path, size_t length)
{
    return log_check(path, length);
}

void log_record_head(uint8_t head[static LOG_RECORD_SIZE], enum log_type type, uint64_t key,
                     const void *payload, size_t size)
{
    le32_put(head, (uint32_t)type);
    le32_put(head + 4, (uint32_t)size);
    le64_put(head + 8, key);
    le64_put(head + 16, log_check(payload, size));
    le64_put(head + 24, log_check(head, 24));
}

static void fail(struct log_writer *w, int r)
{
    if (w->error == 0 && r < 0)
        w->error = r;
}

static void write_out(struct log_writer *w)
{
    if (w->error == 0 && w->out.size > 0)
        fail(w, file_write(w->fd, w->out.data, w->out.size));
    buf_clear(&w->out);
}

static void put_record(struct log_writer *w, enum log_type type, uint64_t key, const void *payload,
                       size_t size)
{
    uint8_t head[LOG_RECORD_SIZE];

    if (w->error < 0)
        return;
    if (size > LOG_PAYLOAD_MAX)
        return; /* a file of more than 100 TB: it will be read again */
    log_record_head(head, type, key, payload, size);
    fail(w, buf_append(&w->out, head, sizeof head));
    fail(w, buf_append(&w->out, payload, size));
    if (w->out.size >= FLUSH_AT)
        write_out(w);
}

static void end_block(struct log_writer *w)
{
    if (w->entries > 0 && w->error == 0) {
        le32_put(w->block.data, (uint32_t)w->path.size);
        le32_put(w->block.data + 4, w->entries);
        put_record(w, LOG_TYPE_BLOCK, log_path_hash(buf_text(&w->path), w->path.size),
                   w->block.data, w->block.size);
    }
    w->entries = 0;
    buf_clear(&w->block);
}

static void begin_block(struct log_writer *w)
{
    static const uint8_t head[LOG_BLOCK_HEAD];

    fail(w, buf_append(&w->block, head, sizeof head));
    fail(w, buf_append(&w->block, buf_text(&w->path), w->path.size));
}

void log_writer_directory(struct log_writer *w, const char *path, size_t path_length)
{
    if (w->error < 0 || (w->has_directory && w->path.size == path_length &&
                         memcmp(buf_text(&w->path), path, path_length) == 0))
        return;
    end_block(w);
    buf_clear(&w->path);
    fail(w, buf_append(&w->path, path, path_length));
    w->has_directory = true;
}

static void entry_put_head(uint8_t p[static LOG_ENTRY_HEAD], const struct log_entry *e)
{
    p[0] = e->name_length;
    p[1] = (uint8_t)e->where;
    le16_put(p + 2, (uint16_t)e->xattrs.size);
    le64_put(p + 4, e->size);
    le64_put(p + 12, e->inode);
    le64_put(p + 20, (uint64_t)e->mtime.s);
    le32_put(p + 28, e->mtime.ns);
    le64_put(p + 32, (uint64_t)e->ctime.s);
    le32_put(p + 40, e->ctime.ns);
    le16_put(p + 44, e->mtime_settled ? LOG_ENTRY_MTIME_SETTLED : 0);
}

static void chunk_put(uint8_t p[static LOG_CHUNK_SIZE], struct tree_chunk c)
{
    le16_put(p, c.pack);
    le32_put(p + 2, c.block);
    le32_put(p + 6, c.leaf);
}

void log_writer_entry(struct log_writer *w, const struct log_entry *e, log_chunk_fn *chunk,
                      void *ctx)
{
    uint64_t chunks = e->where == LOG_ONE ? 1 : e->where == LOG_MANY ? e->chunk_count : 0;
    uint8_t *p;

    if (w->error < 0 || chunks > LOG_PAYLOAD_MAX / LOG_CHUNK_SIZE)
        return;
    size_t size =
        LOG_ENTRY_HEAD + (size_t)chunks * LOG_CHUNK_SIZE + e->xattrs.size + (size_t)e->name_length;
    if (w->entries > 0 && w->block.size + size > LOG_BLOCK_MAX)
        end_block(w);
    if (w->entries == 0)
        begin_block(w);
    fail(w, buf_extend(&w->block, size, &p));
    if (w->error < 0)
        return;
    entry_put_head(p, e);
    p += LOG_ENTRY_HEAD;
    for (uint64_t i = 0; i < chunks; i++, p += LOG_CHUNK_SIZE)
        chunk_put(p, e->where == LOG_ONE ? e->chunk : chunk(ctx, i));
    if (e->xattrs.size > 0)
        memcpy(p, e->xattrs.data, e->xattrs.size);
    memcpy(p + e->xattrs.size, e->name, e->name_length);
    w->entries++;
}

void log_writer_pack(struct log_writer *w, uint16_t number, const struct object_ref *ref)
{
    uint8_t p[LOG_PACK_SIZE];

    memcpy(p, ref->session.byte, 16);
    le32_put(p + 16, ref->seq);
    le64_put(p + 20, ref->length);
    le64_put(p + 28, ref->data_size);
    le64_put(p + 36, ref->leaf_count);
    le32_put(p + 44, ref->trailer_length);
    le32_put(p + 48, ref->born);
    memcpy(p + 52, ref->digest.byte, DIGEST_SIZE);
    put_record(w, LOG_TYPE_PACK, number, p, sizeof p);
}

void log_writer_session(struct log_writer *w, const struct log_session *s)
{
    uint8_t p[LOG_SESSION_SIZE];

    memcpy(p, s->session.byte, 16);
    le32_put(p + 16, s->version);
    le64_put(p + 20, (uint64_t)s->started_ms);
    put_record(w, LOG_TYPE_SESSION, 0, p, sizeof p);
}

void log_writer_committed(struct log_writer *w, const struct digest *manifest)
{
    end_block(w);
    put_record(w, LOG_TYPE_COMMITTED, 0, manifest->byte, DIGEST_SIZE);
}

int log_writer_flush(struct log_writer *w)
{
    end_block(w);
    w->has_directory = false;
    write_out(w);
    return w->error;
}

static int append_text(struct buf *b, const char *text)
{
    uint8_t length[2];

    le16_put(length, (uint16_t)strlen(text));
    int r = buf_append(b, length, sizeof length);
    return r < 0 ? r : buf_append_str(b, text);
}

static void put_header(struct log_writer *w, const struct log_identity *id)
{
    struct buf b = BUF_INIT(LOG_HEADER_MAX);
    const char *const texts[] = {id->store_id, id->name, id->store, id->source};
    uint8_t *p;

    fail(w, buf_append(&b, LOG_MAGIC, strlen(LOG_MAGIC)));
    fail(w, buf_extend(&b, 8, &p));
    if (w->error == 0) {
        le32_put(p, LOG_FORMAT);
        le32_put(p + 4, (id->append ? LOG_FLAG_APPEND : 0) |
                            (id->exclude_private ? LOG_FLAG_EXCLUDE_PRIVATE : 0) |
                            (id->trust_mtime ? LOG_FLAG_TRUST_MTIME : 0));
    }
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        fail(w, append_text(&b, texts[i]));
    if (id->source_terms[0])
        fail(w, append_text(&b, id->source_terms));
    put_record(w, LOG_TYPE_HEADER, 0, b.data, b.size);
    buf_release(&b);
}

int log_writer_new(int fd, const struct log_identity *id, struct log_writer **ret)
{
    AUTO(close_fd) int owned = fd;
    struct log_writer *w = calloc(1, sizeof *w);

    if (!w)
        return -ENOMEM;
    w->fd = take_fd(&owned);
    buf_init(&w->out, FLUSH_AT + LOG_PAYLOAD_MAX + LOG_RECORD_SIZE);
    buf_init(&w->block, LOG_PAYLOAD_MAX);
    buf_init(&w->path, LOG_PAYLOAD_MAX);
    put_header(w, id);
    if (w->error < 0) {
        int r = w->error;
        log_writer_free(w);
        return r;
    }
    *ret = w;
    return 0;
}

void log_writer_free(struct log_writer *w)
{
    if (!w)
        return;
    (void)close(w->fd); /* whoever wants it on disk has synced it */
    buf_release(&w->out);
    buf_release(&w->block);
    buf_release(&w->path);
    free(w);
}
