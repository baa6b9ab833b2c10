/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One running publish, and what its steps share. Inside publish/ only.
 *
 * Everything here belongs to the thread that called publish_run(), but for what publish-read.c and
 * publish-write.c say of their own threads.
 */
#ifndef PUBLISH_PUBLISH_INTERNAL_H
#define PUBLISH_PUBLISH_INTERNAL_H

#include "publish/publish-ignore.h"
#include "publish/publish-log.h"
#include "publish/publish.h"

#include "base/vec.h"
#include "pack/pack.h"
#include "tree/tree.h"

/* In tree_node.pack while publishing: the file has to be read (docs/publish.md, "Marks"). */
#define PUBLISH_PENDING 0xFFFCu
/* Numbers of packs that one publish can know: of the base, of the local state, and its own. */
#define PUBLISH_PACKS_MAX 65000u

/* ---- packs ------------------------------------------------------------------------------------
 */

enum pack_state {
    PACK_UNUSABLE, /* known, but must not be named: worn, condemned, damaged, or not in the store */
    PACK_USABLE,   /* in the store, may be named */
    PACK_OPEN,     /* this publish is making it, or has made it */
};

struct publish_pack {
    struct object_ref ref; /* complete once the pack is finished */
    enum pack_state state;
    bool of_base, of_known; /* the base, or the version that local state knows, names it */
    bool of_session;        /* lies under this upload's session */
    bool journaled;         /* the journal says what its number means */
};

/* ---- xattrs -----------------------------------------------------------------------------------
 */

/* A file may be looked at twice (known, then read after all): the last attributes count. */
struct publish_xattrs {
    uint32_t node;
    uint8_t *data; /* owned */
    uint16_t size;
    size_t order; /* in which they were found */
};

/* ---- the whole --------------------------------------------------------------------------------
 */

struct linking; /* publish-link.h */

struct publish {
    struct catalogue *catalogue;
    struct store *store;
    struct source *source;
    const struct publish_options *o;
    struct publish_result result;
    struct publish_progress progress;
    int64_t progress_ms; /* when progress was last told */

    struct tree *tree; /* owned */
    VEC(struct publish_pack) packs;
    VEC(struct publish_xattrs) xattrs; /* of files */
    bool xattrs_outdated;              /* files with known ones are read after all */

    struct state *state;        /* owned; NULL: none is kept */
    struct log_reader *known;   /* owned; what an earlier publish knew; may be NULL */
    uint16_t *known_packs;      /* owned; LOG_PACKS rows: a log's pack number to ours */
    struct log_writer *journal; /* owned; NULL: no local state, or it failed */

    struct linking *linking; /* owned; NULL: files are copied */

    struct upload *upload; /* owned; NULL until it has begun */
    bool resumed;
    bool resumable;         /* the journal names the upload */
    uint32_t base_version;  /* 0: the name has no succeeded version */
    uint32_t known_version; /* the committed version of `known`; 0: of none */
    struct digest base_manifest, known_manifest;
    uint64_t base_bytes;  /* of the base's files */
    uint64_t base_used;   /* bytes of its packs that it uses */
    uint64_t pack_target; /* bytes of data at which a pack is closed */

    uint64_t pending_files, pending_bytes, pending_room; /* to be read, as the walk found them */
};

/* publish.c */
bool publish_interrupted(const struct publish *p);
void publish_tell(struct publish *p, bool now); /* progress, a few times a second */
void publish_notice(struct publish *p, enum publish_notice_kind kind, const char *path);
int publish_add_pack(struct publish *p, const struct publish_pack *pack, uint16_t *ret_number,
                     struct err *err);
int publish_add_xattrs(struct publish *p, uint32_t node, struct bytes xattrs);
/* Make sure that the journal says what pack `number` is. */
void publish_journal_pack(struct publish *p, uint16_t number);

/* publish-walk.c: the source into p->tree. Files that have to be read get PUBLISH_PENDING. */
int publish_walk(struct publish *p, struct err *err);

/* publish-order.c: directories of a tree from the root down, siblings by name. A directory may get
 * its children until the next call. */
struct order_level {
    struct tree_cursor cursor;
    uint32_t directory; /* node */
    size_t path_size;   /* of the directory */
    bool started, more;
};
struct order {
    const struct tree *tree;
    VEC(struct order_level) levels;
    struct buf path; /* of the current directory */
    bool begun;
};
void order_init(struct order *o, const struct tree *t);
void order_release(struct order *o);
/* 1: *ret_node is the next directory; 0: that was all; or -ENOMEM. */
int order_next(struct order *o, uint32_t *ret_node);

/* publish-reuse.c */
int publish_load_base(struct publish *p, struct err *err);
/* Packs of the interrupted session, verified, become usable. */
int publish_adopt_left(struct publish *p, struct err *err);
int publish_map_known(struct publish *p);
/* After the walk, if anything is new: many small packs are gathered into few. */
int publish_settle_reuse(struct publish *p);
/* After the upload has begun: what was read before has to be so still. */
int publish_recheck_reuse(struct publish *p, struct err *err);

/* publish-read.c, publish-write.c: everything that is pending is read and stored. */
int publish_store_files(struct publish *p, struct err *err);

/* publish-stream.c: for a source that is a stream, instead of walking and storing files. */
void publish_expect_stream(struct publish *p); /* what is known of it before it comes */
int publish_store_stream(struct publish *p, struct err *err);

/* publish-finish.c */
int publish_finish(struct publish *p, struct err *err);

#endif
