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

/* One child of a directory. `name` is valid until the listing is released. */
struct source_entry {
    const char *name; /* NUL-ended */
    struct source_stat stat;
    const char *target; /* symlinks; NUL-ended */
};

struct source_listing {
    struct source_entry *entries; /* in no order; without "." and ".." */
    size_t count;
    void *memory; /* private */
};

struct source;
struct source_dir;  /* an opened directory */
struct source_file; /* an opened file */

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
    /* Exactly as pread(2), but whole: fewer than `size` only at the end of the file. */
    ssize_t (*read)(struct source_file *f, void *data, size_t size, uint64_t offset);
    /* First byte at or behind `offset` that is not in a hole; the file's size if there is none. */
    int (*next_data)(struct source_file *f, uint64_t offset, uint64_t *ret);

    void (*close)(struct source *s);
};

/* Implementations embed these first. */
struct source {
    const struct source_ops *ops;
    char *location;     /* owned; absolute, as records show it */
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
