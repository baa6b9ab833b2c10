/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The layout of a log's records, shared by its writer and its reader. docs/formats/state.md.
 */
#ifndef PUBLISH_PUBLISH_LOG_INTERNAL_H
#define PUBLISH_PUBLISH_LOG_INTERNAL_H

#include "publish/publish-log.h"

enum log_type {
    LOG_TYPE_HEADER = 1,
    LOG_TYPE_PACK = 2,
    LOG_TYPE_BLOCK = 3,
    LOG_TYPE_SESSION = 4,
    LOG_TYPE_COMMITTED = 5,
};

#define LOG_RECORD_SIZE         32u /* before the payload */
#define LOG_PACK_SIZE           84u
#define LOG_SESSION_SIZE        28u
#define LOG_COMMITTED_SIZE      32u
#define LOG_BLOCK_HEAD          8u  /* path length, entry count; then the path */
#define LOG_ENTRY_HEAD          46u /* then chunks, xattrs, name */
#define LOG_HEADER_MAX          16384u
#define LOG_ENTRY_MTIME_SETTLED 1u

/* One entry of a file of 100 TB has 12.5 million chunks. */
#define LOG_PAYLOAD_MAX (160u << 20)

#define LOG_MAGIC "GRIDSTAT"

#define LOG_FLAG_APPEND          1u
#define LOG_FLAG_EXCLUDE_PRIVATE 2u
#define LOG_FLAG_TRUST_MTIME     4u

/* First eight bytes of the SHA-256. */
uint64_t log_check(const void *data, size_t size);
uint64_t log_path_hash(const char *path, size_t length);
void log_record_head(uint8_t head[static LOG_RECORD_SIZE], enum log_type type, uint64_t key,
                     const void *payload, size_t size);

#endif
