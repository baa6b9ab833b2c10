/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A manifest: what one version consists of. Format: docs/formats/manifest.md.
 *
 * One object, `m/<session>/<seq>`, written before the version's outcome, which holds its digest. It
 * lists the packs in the order of the index's device slots, with all that is needed to read and
 * verify them (so a reader goes to a pack's trailer without asking for its length first), the
 * index, counts, and where the files came from. Pure: bytes in, bytes out.
 */
#ifndef MANIFEST_MANIFEST_H
#define MANIFEST_MANIFEST_H

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/digest.h"
#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>

#define MANIFEST_PACKS_MAX  60000u     /* EROFS has 16-bit device ids; publish refuses above this */
#define MANIFEST_SIZE_MAX   (8u << 20) /* 60,000 rows of 96 bytes are 5.8 MB */
#define MANIFEST_SOURCE_MAX 4096u

/* A session's id: 128 random bits, written as 32 hex digits in keys. */
struct session_id {
    uint8_t byte[16];
};

/* Where an object of a session lies, and what is needed to read it back. 96 bytes on disk. */
struct object_ref {
    struct session_id session;
    uint32_t seq;            /* keys "p/<session>/<seq>", "x/..." for an index, "m/..." */
    uint32_t trailer_length; /* bytes; 0 for a manifest */
    uint64_t length;         /* of the whole object, bytes */
    uint64_t data_size;      /* bytes before the leaf table */
    uint64_t leaf_count;
    struct digest digest; /* of the trailer; of the whole object for a manifest */
    /* packs only: */
    /* 512-byte blocks that this version's files name (each block once); linked: of the device */
    uint64_t used_blocks;
    uint32_t born; /* version number of the same name that first used it; age = n - born */
    bool linked;   /* no-copy: this is the device's table of links (docs/formats/link.md) */
};

/* The trailer stands at the end of the object. */
static inline uint64_t object_ref_trailer_offset(const struct object_ref *ref)
{
    return ref->length - ref->trailer_length;
}

#define OBJECT_KEY_MAX 48
/* "p/0123456789abcdef0123456789abcdef/17"; `letter` is 'p', 'x' or 'm'. */
void object_ref_key(char letter, const struct object_ref *ref, char ret_key[static OBJECT_KEY_MAX]);
void session_id_to_hex(const struct session_id *id, char ret_hex[static 33]);
int session_id_from_hex(struct session_id *ret, const char *hex); /* 0 or -EINVAL */

struct manifest {
    char name[64]; /* of the datastore */
    uint32_t version;
    int64_t created_ms; /* wall clock of the publisher, UTC */
    struct object_ref index;
    uint64_t index_size;                   /* bytes of the EROFS image in it */
    uint64_t index_head;                   /* its first bytes that a mount wants at once */
    uint64_t files, directories, symlinks; /* inodes; hard links counted once */
    uint64_t size_bytes;                   /* sum of the files' sizes, each inode once */
    bool linked;
    char source[MANIFEST_SOURCE_MAX + 1]; /* as the user would type it, without secrets */
    struct object_ref *packs;             /* owned; in device order: device id = position + 1 */
    uint32_t pack_count;
};

void manifest_release(struct manifest *m);
static inline void auto_manifest_release(struct manifest *m)
{
    manifest_release(m);
}

/* A copy of its own. -ENOMEM. */
int manifest_copy(const struct manifest *m, struct manifest *ret);

/* Appends the object's bytes to `b`. -EINVAL if a field breaks its bound. */
int manifest_encode(const struct manifest *m, struct buf *b);
/* Parses bytes whose digest the caller has compared with the outcome's. On failure *ret is
 * untouched. */
int manifest_decode(struct bytes bytes, struct manifest *ret, struct err *err);

#endif
