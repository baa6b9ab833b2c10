/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Publish: source -> packs + index + manifest -> committed version. The only writer of datastores.
 *
 *   walk    the whole source, into a tree; what local state knows unchanged is not read again
 *   read    workers read and digest batches of files in directory order; one writer, in order,
 * drops known blobs and appends the rest to packs, which go to the store as they are made index
 * written, re-read and checked commit  manifest, then outcome
 *
 * Memory is bounded: PUBLISH_MEMORY plus 64 bytes a file, whatever the sizes. No file data is
 * staged on disk. Interrupted at any point, nothing is visible; the same call, or resume, goes on.
 * A linked version (o->linked) is walked only, and its tables of links are written meanwhile; an
 * interrupted one is given up: the next begins anew, and costs no more.
 *
 * docs/publish.md has the rules of packing, reuse and local state, with their reasons.
 */
#ifndef PUBLISH_PUBLISH_H
#define PUBLISH_PUBLISH_H

#include "base/env.h"
#include "base/err.h"
#include "catalogue/catalogue.h"
#include "source/source.h"

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>

#define PUBLISH_MEMORY (UINT64_C(256) << 20)

enum publish_phase { PUBLISH_WALK, PUBLISH_READ, PUBLISH_INDEX, PUBLISH_COMMIT };

/* A snapshot for progress bars. Totals are known after the walk. */
struct publish_progress {
    enum publish_phase phase;
    uint64_t files_done, files_total;
    uint64_t bytes_done, bytes_total;
    uint64_t bytes_stored; /* written to packs */
    bool is_stream;        /* bytes are those of the archive; files_total is 0 until the end */
};

enum publish_notice_kind {
    PUBLISH_NOTICE_SKIPPED, /* a socket, device or FIFO */
    PUBLISH_NOTICE_KEY,     /* cannot be a file; path: what it is called, and why */
    PUBLISH_NOTICE_PRIVATE, /* was not readable by all, becomes so (or is left out) */
    PUBLISH_NOTICE_CHANGED, /* changed while it was read, read again */
    PUBLISH_NOTICE_XATTR,   /* attributes too large, left out */
    PUBLISH_NOTICE_RESUMED, /* an earlier upload is continued; path: its version number */
    /* of streams: */
    PUBLISH_NOTICE_ABSOLUTE, /* its path began with '/', and counts without it */
    PUBLISH_NOTICE_REPLACED, /* it came twice: the later one counts */
    PUBLISH_NOTICE_ENCODING, /* its name is no UTF-8; the bytes are kept */
};

struct publish_options {
    const char *name;
    const char *owner;
    const char *host;
    const char *state_dir;      /* local state; NULL: none is kept or used */
    bool append;                /* the name may belong to somebody else */
    bool exclude_private;       /* leave files out that are not readable by all */
    bool trust_mtime;           /* use local state although inodes are not stable */
    bool linked;                /* copy nothing: pin the objects of a bucket where they are */
    unsigned workers;           /* reading threads; 0: one per CPU, at most 8 */
    uint64_t pack_size_min;     /* bytes; 0: 64 MiB. For tests */
    uint64_t linked_blocks_max; /* of a linked device; 0: as many as can be. For tests */
    /* Called from one thread, a few times a second and at the end of each phase. May be NULL. */
    void (*progress)(void *ctx, const struct publish_progress *p);
    /* Called from one thread at a time, as things are found. `path` is below the source's root. */
    void (*notice)(void *ctx, enum publish_notice_kind kind, const char *path);
    /* Called once, after the walk and before anything is written. Nonzero: stop with -ECANCELED. */
    int (*confirm)(void *ctx, const struct publish_progress *totals);
    void *ctx;
    const volatile sig_atomic_t *interrupted; /* nonzero: stop soon with -ECANCELED. May be NULL */
};

struct publish_result {
    struct version_info info;
    uint64_t files_read, files_unchanged; /* opened; known from local state */
    uint64_t bytes_read, bytes_stored;    /* of sources; written to packs */
    uint64_t packs_written, packs_reused;
    uint64_t private_files, skipped_files;
};

/* Publish `source` as the next version of o->name. An interrupted upload of the same source to the
 * same name, found in the local state, is continued under its number. Two at once for one name and
 * source on one machine: -EBUSY with a sentence.
 *
 * -ESTALE: the upload was aborted by somebody else meanwhile. -EAGAIN: a file kept changing, or
 * could not be read: the sentence names it. -ENOSPC, -EROFS...: the store's. */
int publish_run(struct catalogue *c, struct source *source, const struct publish_options *o,
                struct publish_result *ret, struct err *err);

/* Uploads that the local state knows and that have no end yet, newest first. */
struct publish_pending {
    char name[64];
    uint32_t version;
    struct session_id session;
    char source[4097];       /* location to open */
    char source_terms[4097]; /* what else that needs; "" or as struct source has it */
    char store_id[33];
    char store[1024]; /* location of the store */
    int64_t started_ms;
    bool append, exclude_private, trust_mtime;
    bool running; /* a process of this machine is at it now */
};
typedef int publish_pending_fn(void *ctx, const struct publish_pending *p);
int publish_each_pending(const char *state_dir, publish_pending_fn *fn, void *ctx, struct err *err);

/* Forget all local state of uploads and of unchanged files. *ret_count: uploads forgotten. */
int publish_clear_state(const char *state_dir, unsigned *ret_count, struct err *err);

#endif
