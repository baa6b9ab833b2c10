/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A view: one opened version. Lookup, readdir, readlink, attributes and verified reads; what a
 * front end (FUSE, `ls`, `cat`, `export`) stands on. Node ids are the index's nids; there is no
 * state beyond the image, so a server that is started again knows everything at once.
 *
 * Threads: any number. Nothing here writes.
 * Does not: know what a mount is, print, or hold leases.
 */
#ifndef VIEW_VIEW_H
#define VIEW_VIEW_H

#include "catalogue/catalogue.h"
#include "fetch/fetch.h"
#include "index/index.h"

struct view;

/* Read the manifest, open the index. `catalogue` is borrowed until return, its store and `fetch`
 * for the life of the view. */
int view_open(struct catalogue *c, const struct version_info *info, struct fetch *fetch,
              struct view **ret, struct err *err);
/* The same where the manifest is known: it is read no more. A copy is kept. */
int view_open_known(struct catalogue *c, const struct version_info *info,
                    const struct manifest *known, struct fetch *fetch, struct view **ret,
                    struct err *err);
void view_close(struct view *v);
AUTO_FREE_FUNC(struct view, view_close);

const struct manifest *view_manifest(const struct view *v);
const struct index *view_index(const struct view *v);

int view_inode(struct view *v, uint64_t nid, struct index_inode *ret);
int view_lookup(struct view *v, uint64_t dir_nid, const char *name, size_t name_length,
                struct index_inode *ret);
int view_walk(struct view *v, const char *path, struct index_inode *ret);
int view_readdir(struct view *v, uint64_t dir_nid, uint64_t cookie, index_entry_fn *fn, void *ctx);
int view_readlink(struct view *v, uint64_t nid, char target[static INDEX_TARGET_MAX + 1]);
/* Up to `size` bytes; fewer only at the end of the file; holes read as zeros. -EIO for a damaged or
 * missing range, and only that one. */
ssize_t view_read(struct view *v, const struct index_inode *file, uint64_t offset, void *data,
                  size_t size);
/* A linked version: which object a file (that is not empty, else -EINVAL) is read from, and where
 * all objects are. */
int view_link(struct view *v, const struct index_inode *file, struct fetch_link *ret);
int view_link_place(struct view *v, struct link_place *ret);
int view_xattrs(struct view *v, const struct index_inode *inode, index_xattr_fn *fn, void *ctx);

/* The version as one image: the index, then every pack at its unified address; whole pages. */
uint64_t view_flat_size(const struct view *v);
/* Exactly `size` verified bytes of it. -EINVAL behind its end; -EIO as view_read(). */
int view_flat_read(struct view *v, uint64_t offset, void *data, size_t size);
/* Begin to read the tables and first bytes of the first packs: nothing else tells in time where the
 * leaves of a flat read are. Only where a store is far away. */
void view_flat_ahead(struct view *v);

#endif
