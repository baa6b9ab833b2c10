/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzzes the reader of local state. First byte 0: the rest is a log as it stands. Else: records
 * whose checks are put right first, so that what lies behind the checks is reached.
 */
#include "fuzz-target.h"

#include "base/file.h"
#include "base/le.h"
#include "publish/publish-log-internal.h"

#include <string.h>
#include <sys/mman.h>

static int look_at_entry(void *ctx, const struct log_entry *e)
{
    uint64_t *sum = ctx;

    FUZZ_REQUIRE(e->name_length > 0);
    for (size_t i = 0; i < e->name_length; i++)
        *sum += (uint8_t)e->name[i];
    for (size_t i = 0; i < e->xattrs.size; i++)
        *sum += ((const uint8_t *)e->xattrs.data)[i];
    if (e->where == LOG_MANY) {
        FUZZ_REQUIRE(e->chunk_count == tree_chunk_count(e->size));
        for (uint64_t i = 0; i < e->chunk_count; i++)
            *sum += log_chunk(e, i).block;
    }
    return 0;
}

static void look(int fd)
{
    AUTO(log_reader_free) struct log_reader *r = NULL;
    struct log_session session;
    struct digest manifest;
    struct object_ref ref;
    uint64_t sum = 0;

    if (log_reader_open(fd, &r) < 0)
        return;
    FUZZ_REQUIRE(strlen(log_reader_identity(r)->name) < 64);
    (void)log_reader_session(r, &session);
    (void)log_reader_committed(r, &manifest);
    for (uint32_t i = 0; i < LOG_PACKS; i++)
        (void)log_reader_pack(r, (uint16_t)i, &ref);
    FUZZ_REQUIRE(log_reader_directory(r, "", 0, look_at_entry, &sum) == 0);
    FUZZ_REQUIRE(log_reader_directory(r, "a/b", 3, look_at_entry, &sum) == 0);
}

/* Cuts `data` into records by their own lengths, and writes each with the checks that it needs. */
static void write_records(int fd, const uint8_t *data, size_t size)
{
    uint8_t head[LOG_RECORD_SIZE];

    while (size >= LOG_RECORD_SIZE) {
        size_t length = le32_get(data + 4);
        uint32_t type = le32_get(data);
        const uint8_t *payload = data + LOG_RECORD_SIZE;
        uint64_t key = le64_get(data + 8);
        if (length > size - LOG_RECORD_SIZE)
            length = size - LOG_RECORD_SIZE;
        if (type == LOG_TYPE_BLOCK && length >= LOG_BLOCK_HEAD &&
            le32_get(payload) <= length - LOG_BLOCK_HEAD)
            key = log_path_hash((const char *)payload + LOG_BLOCK_HEAD, le32_get(payload));
        log_record_head(head, type, key, payload, length);
        FUZZ_REQUIRE(file_write(fd, head, sizeof head) == 0);
        FUZZ_REQUIRE(file_write(fd, payload, length) == 0);
        data += LOG_RECORD_SIZE + length;
        size -= LOG_RECORD_SIZE + length;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    int fd = memfd_create("state", MFD_CLOEXEC);

    FUZZ_REQUIRE(fd >= 0);
    if (size > 0 && data[0] == 0)
        FUZZ_REQUIRE(file_write(fd, data + 1, size - 1) == 0);
    else if (size > 0)
        write_records(fd, data + 1, size - 1);
    look(fd); /* takes it over */
    return 0;
}
