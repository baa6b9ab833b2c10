/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of this folder share: the base of every store, and the parts of the directory
 * store. Tests may look in here; other folders may not.
 */
#ifndef STORE_STORE_INTERNAL_H
#define STORE_STORE_INTERNAL_H

#include "store/store.h"

#include <pthread.h>
#include <sys/types.h>

/* ---- every store ---- */

/* `location` is copied. 0 or -ENOMEM. */
int store_init(struct store *s, const struct store_ops *ops, const char *location);
void store_release(struct store *s);

/* 1 to STORE_COMPONENT_MAX bytes of a key between two '/'. */
bool store_component_is_valid(const char *name, size_t length);

/* ---- directory store ---- */

/* What a file system promises when several hosts use it; the table stands in docs/formats/store.md.
 */
enum store_sharing {
    STORE_SHARING_LOCAL,    /* one host */
    STORE_SHARING_COHERENT, /* many hosts, each sees at once what another did */
    STORE_SHARING_READ,     /* many hosts with stale caches: reading only */
    STORE_SHARING_UNKNOWN,  /* nothing is known: --store-is-coherent */
};

/* By the `f_type` of statfs(2). *ret_name (may be NULL) is what people call it. */
enum store_sharing store_directory_sharing(uint64_t fs_type, const char **ret_name);

/* Directories whose entries are known to be on disk all the way up: a lookup table, not a list. */
#define STORE_DURABLE_SLOTS 256u

/* Whether files of this file system lie on a local disk and in the page cache, as ext4's do: not
 * those of memory (no pages of a file), of layers (the kernel's EROFS refuses some), of a network.
 */
bool store_directory_is_disk(uint64_t fs_type);

struct store_directory {
    struct store base;
    int root_fd;
    bool writable;
    bool named_temps; /* the file system or the environment has no unnamed files */
    bool own_clock;   /* the wall clock is the file system's clock */
    pthread_mutex_t lock;
    char *durable[STORE_DURABLE_SLOTS]; /* under lock; owned key prefixes without the last '/' */
};

extern const struct store_ops store_directory_ops;

int store_directory_open(const char *path, unsigned flags, struct store **ret, struct err *err);
int store_directory_put_if_absent(struct store *s, const char *key, struct bytes body);
int store_directory_upload(struct store *s, const char *key, struct store_upload **ret);
int store_directory_upload_write(struct store_upload *u, const void *data, size_t size);
int store_directory_upload_commit(struct store_upload *u);
void store_directory_upload_abort(struct store_upload *u);
int store_directory_probe(struct store *s, struct store_probe *ret, struct err *err);
int store_directory_list(struct store *s, const char *prefix,
                         const struct store_list_options *options, store_list_fn *fn, void *ctx,
                         int64_t *ret_now_ms);

enum store_walk {
    STORE_WALK_LOOK, /* descriptors for openat(2) only */
    STORE_WALK_READ, /* readable, so that they can be listed and synced */
    STORE_WALK_MAKE, /* the same, missing directories are made */
};

/* Open the directory `path` (the first `length` bytes of it) below the root, following no symlink.
 * -ENOENT; -ENOTDIR if an object stands in the way; -EPROTO if anything else does. */
int store_directory_walk(struct store_directory *d, const char *path, size_t length,
                         enum store_walk how, int *ret_fd);

/* The directory that holds `key`, by the same rules. */
int store_directory_parent(struct store_directory *d, const char *key, enum store_walk how,
                           int *ret_fd);
/* The last component of a key, and the length of what stands before its '/'. */
const char *store_key_leaf(const char *key, size_t *ret_parent_length);

/* fsync; -EIO, -ENOSPC or -EDQUOT. */
int store_directory_sync(int fd);
/* Whether `path`, and all above it, is known to be on disk as a name in its parent. */
bool store_directory_is_durable(struct store_directory *d, const char *path, size_t length);
void store_directory_set_durable(struct store_directory *d, const char *path, size_t length);

/* Where temporaries with a name live: no key can name it, since components start with no dot. */
#define STORE_TEMP_DIRECTORY ".tmp"
#define STORE_TEMP_NAME_SIZE 96

/* "<host>-<boot>-<pid>-<random>" for a process of this host and boot. */
void store_temp_name(char ret[static STORE_TEMP_NAME_SIZE], pid_t pid);
/* Remove what processes of this host that are gone have left, of more than a day ago. */
void store_temps_clean(const struct store_directory *d);

/* ---- S3 store ---- */

/* Sentences that are kept: one per code, the least recent gives way. */
#define STORE_S3_SENTENCES 8u

struct s3;

struct store_s3_sentence {
    int code; /* 0: none */
    uint64_t when;
    char text[1024];
};

struct store_s3 {
    struct store base;
    struct s3 *s3;
    struct env *env;
    char bucket[256];
    char prefix[STORE_KEY_MAX + 2]; /* "" or ending in '/' */
    pthread_mutex_t lock;
    struct store_s3_sentence sentences[STORE_S3_SENTENCES]; /* under lock */
    uint64_t failures;
};

/* The whole key in the bucket: prefix and key both fit. */
#define STORE_S3_KEY_SIZE 1032u

extern const struct store_ops store_s3_ops;

int store_s3_open(const char *location, unsigned flags, const struct store_options *options,
                  struct store **ret, struct err *err);
void store_s3_key(const struct store_s3 *d, const char *key, char ret[static STORE_S3_KEY_SIZE]);
/* Keep the sentence of a failure, for store_error(); gives `code` back. */
int store_s3_failed(struct store_s3 *d, int code, const struct err *why);
int store_s3_upload(struct store *s, const char *key, struct store_upload **ret);
int store_s3_upload_write(struct store_upload *u, const void *data, size_t size);
int store_s3_upload_commit(struct store_upload *u);
void store_s3_upload_abort(struct store_upload *u);
/* Is what was written seen at once, and what was removed not? Keys begin with `base`. */
int store_s3_probe_visible(struct store_s3 *d, const char *base, struct err *err);
int store_s3_probe(struct store *s, struct store_probe *ret, struct err *err);

#endif
