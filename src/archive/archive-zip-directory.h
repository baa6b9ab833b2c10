/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The directory of a zip: bytes in, members out. Inside archive/ only (and its fuzzer's).
 *
 * The end record and the central directory are parsed strictly: whatever two readers could
 * understand differently is refused (docs/archives.md). No I/O.
 */
#ifndef ARCHIVE_ARCHIVE_ZIP_DIRECTORY_H
#define ARCHIVE_ARCHIVE_ZIP_DIRECTORY_H

#include "base/buf.h"
#include "base/err.h"
#include "base/vec.h"

#include <stdbool.h>
#include <stdint.h>

#define ZIP_LOCAL_SIZE 30u                     /* of a local header, without name and extra */
#define ZIP_TAIL_MAX   (65535u + 22 + 20 + 56) /* where the end records are, at most */
#define ZIP_BYTES_MAX  (UINT64_C(1) << 30)     /* of a central directory: some 10 M members */

enum zip_type { ZIP_FILE, ZIP_DIRECTORY, ZIP_SYMLINK, ZIP_SPECIAL };

/* 64 bytes a member. */
struct zip_member {
    uint64_t offset; /* of its local header */
    uint64_t packed; /* bytes of its data in the archive */
    uint64_t size;   /* and unpacked */
    int64_t mtime_s;
    uint32_t mtime_ns;
    uint32_t crc;
    uint32_t name; /* place in zip_directory.names, as it is published */
    uint32_t raw;  /* as it stands in the archive, to compare */
    uint16_t name_size, raw_size;
    uint16_t flags;
    uint16_t mode;  /* permission bits */
    uint8_t method; /* 0 or 8 */
    uint8_t type;   /* enum zip_type */
};

struct zip_directory {
    VEC(struct zip_member) members; /* by offset */
    struct buf names;
    uint64_t offset, size; /* of the central directory */
    uint64_t count;        /* of members, as the end record says */
};

/* From the end of the archive, `size` bytes in all: where the central directory is. -EPROTO with a
 * sentence; -EAGAIN: `tail` has to begin at *ret_from. */
int zip_find_directory(struct bytes tail, uint64_t size, struct zip_directory *ret,
                       uint64_t *ret_from, struct err *err);
/* The central directory itself, ret->size bytes. Fills in members and names. */
int zip_parse_directory(struct bytes b, struct zip_directory *ret, struct err *err);
void zip_directory_release(struct zip_directory *z);

static inline const char *zip_name(const struct zip_directory *z, const struct zip_member *m)
{
    return z->names.data ? (const char *)z->names.data + m->name : "";
}

/* Does the local header at `b` (ZIP_LOCAL_SIZE bytes, then name and extra) say the same as the
 * directory? *ret_skip: bytes up to the data, known when ZIP_LOCAL_SIZE bytes are there. */
int zip_local_length(struct bytes b, size_t *ret_skip);
bool zip_local_matches(struct bytes b, const struct zip_directory *z, const struct zip_member *m);

#endif
