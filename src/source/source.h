/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A source: the directory tree that a new version is made of. Walked once, directory by directory,
 * then read file by file.
 *
 * A source is not trusted to hold still: what was listed may have changed when it is read, and what
 * is read may change meanwhile. source_file_stat() before and after tells; publish decides.
 *
 * Threads: a source and an opened directory may be used by any number; an opened file by one.
 * Does not: filter (.gridignore is publish's), sort, or follow symbolic links, ever.
 *
 * Add a source: implement struct source_ops in source-NAME.c and a constructor here.
 */
#ifndef SOURCE_SOURCE_H
#define SOURCE_SOURCE_H

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/err.h"

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

enum source_type { SOURCE_FILE, SOURCE_DIRECTORY, SOURCE_SYMLINK, SOURCE_SPECIAL };

struct source_time {
    int64_t s;
    uint32_t ns;
};

struct source_stat {
    enum source_type type;
    uint16_t mode; /* 07777 */
    uint32_t link_count;
    uint64_t device, inode;
    uint64_t size;
    uint64_t room; /* bytes that it takes where it is: less than `size` if it has holes */
    struct source_time mtime, ctime;
};

/* What pins a file that is an object in a bucket: the same key with the same ETag (and version id)
 * is the same bytes. All NUL-ended. */
struct source_pin {
    const char *key;        /* the whole key; NULL: the file is no object */
    const char *etag;       /* without quotes */
    const char *version_id; /* NULL: the bucket has no versions */
};

/* One child of a directory. All texts are valid until the listing is released. */
struct source_entry {
    const char *name; /* NUL-ended */
    struct source_stat stat;
    const char *target; /* symlinks; NUL-ended */
    struct source_pin pin;
};

struct source_listing {
    struct source_entry *entries; /* in no order; without "." and ".." */
    size_t count;
    void *memory; /* private */
};

/* A source that is a bucket: what somebody else needs, but for secrets, to read its objects. */
struct source_bucket {
    const char *bucket, *prefix; /* prefix: "", or ends in '/' */
    const char *endpoint;        /* "https://host[:port][/path]"; NULL: AWS's, by region */
    const char *region;          /* as far as it is known: right once something was read */
    const char *addressing;      /* "auto", "path", "virtual" */
    bool has_versions;           /* files have version ids */
};

struct source;
struct source_dir;  /* an opened directory */
struct source_file; /* an opened file */

typedef int source_skipped_fn(void *ctx, const char *path, const char *why);

struct source_ops {
    /* Open a directory by its path below the root, "" for the root itself. No component may be a
     * symbolic link (-ELOOP; -ENOTDIR for the last one) or lead out of the root. */
    int (*open_dir)(struct source *s, const char *path, struct source_dir **ret);
    void (*close_dir)(struct source_dir *d);
    /* All children with their attributes. A child that vanishes meanwhile is left out. */
    int (*list)(struct source_dir *d, struct source_listing *ret);
    int (*dir_stat)(struct source_dir *d, struct source_stat *ret);
    /* user.* attributes in tree_set_xattrs()'s form, sorted, appended to `b`. */
    int (*dir_xattrs)(struct source_dir *d, struct buf *b);

    /* Open a regular file for reading; -ELOOP, -EINVAL if it is (no longer) one. Never waits
     * (FIFO). */
    int (*open_file)(struct source_dir *d, const char *name, struct source_file **ret);
    void (*close_file)(struct source_file *f);
    int (*file_stat)(struct source_file *f, struct source_stat *ret);
    int (*file_xattrs)(struct source_file *f, struct buf *b);
    /* Exactly as pread(2), but whole: fewer than `size` only at the end of the file. -ESTALE: it
     * changed; opened again, it is what it is now. */
    ssize_t (*read)(struct source_file *f, void *data, size_t size, uint64_t offset);
    /* First byte at or behind `offset` that is not in a hole; the file's size if there is none. */
    int (*next_data)(struct source_file *f, uint64_t offset, uint64_t *ret);

    /* The rest may be NULL. */
    /* Where the objects are; it may give NULL: it is no bucket. */
    const struct source_bucket *(*bucket)(struct source *s);
    /* The file will soon be read from `offset` on: get it on its way. True: tell more. */
    bool (*will_read)(struct source *s, const char *path, const char *name, uint64_t offset);
    /* What cannot be a file, in order, with the reason; `fn` gives 0 to go on. */
    int (*each_skipped)(struct source *s, source_skipped_fn *fn, void *ctx);
    /* A sentence on the failure `code` that was met last, if there is a better one than errno's. */
    bool (*explain)(struct source *s, int code, char *ret, size_t size);

    void (*close)(struct source *s);
};

/* ---- streams ----------------------------------------------------------------------------------
 *
 * A source that is no tree but a stream: entries in an order of its own, each with its data, once.
 * `source.stream` is set then, and of source_ops only `close` is.
 *
 * A part is what is handed over at once: some entries whole, or a piece of a large file. Workers
 * take parts one at a time, in order (next), and finish them at the same time (fill).
 */

#define SOURCE_PIECE      (8u << 20) /* a file larger than this comes in pieces of this size */
#define SOURCE_PART_ITEMS 1024u
#define SOURCE_PART_BYTES (4u << 20)   /* of small files in a part, about */
#define SOURCE_PART_ROOM  SOURCE_PIECE /* of part.data */
#define SOURCE_PART_ALIGN 512u         /* where each file's data starts in part.data */
#define SOURCE_PART_TEXTS (16u << 20)  /* bytes of all names of a part */
#define SOURCE_PATH_MAX   4096u

/* One entry, or one piece of a large file. Texts are places in part.texts. Nothing of it is checked
 * or made safe: a path may say anything. */
struct source_item {
    size_t path, path_size;
    size_t target, target_size; /* of a symbolic or hard link */
    size_t xattrs, xattrs_size; /* in tree_set_xattrs()'s form */
    struct source_stat stat;    /* type, mode, mtime; size if `sized` */
    bool is_hard_link;          /* a further name of the file `target` */
    bool xattrs_dropped;        /* too large */
    bool unique;                /* a second entry of that name is an error; else the last counts */
    bool sized;                 /* the file's size is known when its first piece comes */
    bool first, last;           /* of the file's pieces */
    bool hole;                  /* zero bytes, of which none is in part.data */
    uint64_t file;              /* the same number in all pieces of a file; pieces come in order */
    uint64_t size;              /* of this piece */
    size_t data;                /* its place in part.data */
};

struct source_part {
    struct source_item *items; /* room for SOURCE_PART_ITEMS */
    size_t count;
    struct buf texts;
    uint8_t *data; /* SOURCE_PART_ROOM */
    size_t data_size;
};

struct source_worker; /* what one thread needs */

struct source_stream_ops {
    int (*worker_new)(struct source *s, struct source_worker **ret);
    void (*worker_free)(struct source *s, struct source_worker *w);
    /* The next part: 1, 0 if there is none for this worker any more (the others may be in the
     * middle of a file), or an error. One thread at a time. The caller has emptied `part`. */
    int (*next)(struct source *s, struct source_worker *w, struct source_part *part,
                struct err *err);
    /* Complete the part that `next` gave to this worker last. Any number of threads at once. */
    int (*fill)(struct source *s, struct source_worker *w, struct source_part *part,
                struct err *err);
    /* Bytes of the archive that were taken, and of all of it (0: not known). Any thread. */
    void (*progress)(struct source *s, uint64_t *ret_done, uint64_t *ret_total);
    /* Whoever waits in `next` or `fill` comes back soon with -ECANCELED. Any thread. */
    void (*stop)(struct source *s);
};

/* Implementations embed these first. */
struct source {
    const struct source_ops *ops;
    const struct source_stream_ops *stream; /* NULL: a tree */
    char *location;                         /* owned; absolute, as records show it */
    char *terms; /* owned; "key=value" lines, what else is needed to open it again; NULL: nothing */
    bool inodes_stable; /* inode numbers and ctimes identify content (local file systems) */
};
struct source_dir {
    struct source *source;
};
struct source_file {
    struct source *source;
};

/* A directory of this machine, or a single file (then a tree with just that file). The root itself
 * may be reached through symbolic links, nothing below it. */
int source_directory_open(const char *path, struct source **ret, struct err *err);

/* Generated, for tests and benchmarks: `files` files in directories of `per_directory`, sizes
 * between the two bounds, bytes a function of path and offset. source_synthetic_bytes() gives the
 * expected bytes of file `number`. Every generation
 * after 0 changes `changed_percent` of the files, picked at random; the others stay as they were in
 * the generation before. */
struct source_synthetic_options {
    uint64_t files, per_directory;
    uint64_t size_min, size_max;
    uint32_t generation, changed_percent;
};
int source_synthetic_new(const struct source_synthetic_options *o, struct source **ret);
void source_synthetic_bytes(const struct source_synthetic_options *o, uint64_t number,
                            uint64_t offset, void *data, size_t size);

/* Objects below a prefix of a bucket, as a tree: docs/sources.md says which key becomes which file.
 * The whole prefix is listed here, many requests at once; reading is pinned to what was listed.
 * NULL in `options`, or of it: as AWS's own tools find it. -ENXIO no such bucket; -EACCES, the
 * sentence says which permission is missing; -ENOENT nothing there. */
struct source_s3_options {
    const char *endpoint, *region, *profile, *ca_file;
    const char *addressing; /* "auto", "path", "virtual" */
    const char *role_arn, *external_id;
    bool pins; /* listings have pins, with version ids where the bucket has versions */
    /* Called from one thread, a few times a second while it lists. May be NULL. */
    void (*progress)(void *ctx, uint64_t files, uint64_t bytes);
    void *ctx;
    const volatile sig_atomic_t *interrupted; /* nonzero: stop soon with -ECANCELED. May be NULL */
};
int source_s3_open(const char *location, const struct source_s3_options *options,
                   struct source **ret, struct err *err);
/* What source.terms says; `text` is changed, and borrowed by `o`. */
void source_s3_parse_terms(char *text, struct source_s3_options *o);

/* NULL: it is no bucket. Valid until the source is closed. */
const struct source_bucket *source_bucket(struct source *s);

bool source_will_read(struct source *s, const char *path, const char *name, uint64_t offset);
/* Does source_will_read() do anything? */
static inline bool source_reads_ahead(const struct source *s)
{
    return s->ops->will_read != NULL;
}
int source_each_skipped(struct source *s, source_skipped_fn *fn, void *ctx);
bool source_explain(struct source *s, int code, char *ret, size_t size);

/* What stands in sentences between location and path: "/", or "" if the location ends in one. */
const char *source_slash(const struct source *s);

void source_close(struct source *s);
AUTO_FREE_FUNC(struct source, source_close);

int source_open_dir(struct source *s, const char *path, struct source_dir **ret);
void source_close_dir(struct source_dir *d);
AUTO_FREE_FUNC(struct source_dir, source_close_dir);
int source_list(struct source_dir *d, struct source_listing *ret);
void source_listing_release(struct source_listing *l);
int source_dir_stat(struct source_dir *d, struct source_stat *ret);
int source_dir_xattrs(struct source_dir *d, struct buf *b);
int source_open_file(struct source_dir *d, const char *name, struct source_file **ret);
void source_close_file(struct source_file *f);
AUTO_FREE_FUNC(struct source_file, source_close_file);
int source_file_stat(struct source_file *f, struct source_stat *ret);
int source_file_xattrs(struct source_file *f, struct buf *b);
ssize_t source_file_read(struct source_file *f, void *data, size_t size, uint64_t offset);
int source_file_next_data(struct source_file *f, uint64_t offset, uint64_t *ret);

#endif
