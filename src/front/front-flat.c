/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A file system of one file, for the kernel's own EROFS to read: a root directory, and in it the
 * flat image of a version. As in front-ops.c everything may be kept for ever.
 *
 * An answer is never short: the kernel would take that for the end of the file. A range with damage
 * in it is an error as a whole; the kernel then asks again for single pages of it.
 */
#include "front/front-internal.h"

#include <string.h>
#include <sys/stat.h>

#define IMAGE_INO (FUSE_ROOT_ID + 1)

static void fill_stat(const struct front *f, fuse_ino_t ino, struct stat *st)
{
    bool root = ino == FUSE_ROOT_ID;

    *st = (struct stat){
        .st_ino = ino,
        .st_mode = root ? S_IFDIR | 0500 : S_IFREG | 0400,
        .st_nlink = root ? 2 : 1,
        .st_uid = f->uid,
        .st_gid = f->gid,
        .st_size = root ? 0 : (off_t)f->flat.size,
        .st_blksize = 4096,
        .st_blocks = root ? 0 : (blkcnt_t)(f->flat.size / 512),
    };
}

static void op_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
    const struct front *f = fuse_req_userdata(req);
    struct fuse_entry_param e = {.entry_timeout = FRONT_FOREVER, .attr_timeout = FRONT_FOREVER};

    if (parent == FUSE_ROOT_ID && strcmp(name, f->flat.name) == 0) {
        e.ino = IMAGE_INO;
        fill_stat(f, e.ino, &e.attr);
    }
    (void)fuse_reply_entry(req, &e); /* fails if the kernel has gone */
}

static void op_init(void *userdata, struct fuse_conn_info *conn)
{
    struct front *f = userdata;

    conn->want &= ~(unsigned)FUSE_CAP_AUTO_INVAL_DATA;
    conn->want |= FUSE_CAP_ASYNC_READ & conn->capable;
    conn->max_background = FRONT_BACKGROUND_MAX;
    conn->congestion_threshold = FRONT_BACKGROUND_MAX * 3 / 4;
    f->no_open = (conn->capable & FUSE_CAP_NO_OPEN_SUPPORT) != 0;
}

/* As in front-ops.c: the kernel needs no open, and keeps what it read. */
static void op_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    const struct front *f = fuse_req_userdata(req);

    fi->keep_cache = 1;
    if (f->no_open)
        (void)fuse_reply_err(req, ENOSYS); /* fails if the kernel has gone */
    else
        (void)fuse_reply_open(req, fi); /* the same */
}

static void op_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    struct stat st;

    fill_stat(fuse_req_userdata(req), ino, &st);
    (void)fuse_reply_attr(req, &st, FRONT_FOREVER); /* fails if the kernel has gone */
}

static void run_read(struct front_op *op, struct front_answer *ret)
{
    const struct front_flat *flat = &op->front->flat;
    uint64_t at = (uint64_t)op->offset;
    size_t size = op->size < FRONT_REPLY_MAX ? op->size : FRONT_REPLY_MAX;

    if (at >= flat->size)
        size = 0;
    else if (size > flat->size - at)
        size = (size_t)(flat->size - at);
    int r = size ? flat->read(flat->ctx, at, front_reply_buffer(), size) : 0;
    if (r < 0) {
        ret->kind = FRONT_ERROR;
        ret->code = r == -ENOMEM ? r : -EIO;
        return;
    }
    ret->kind = FRONT_BYTES;
    ret->size = size;
}

static void op_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset,
                    struct fuse_file_info *fi)
{
    struct front_op *op;

    if (ino != IMAGE_INO) {
        front_answer_error(req, -EISDIR);
        return;
    }
    op = front_op_begin(req, run_read, ino);
    op->size = size;
    op->offset = offset;
    front_op_go(op);
}

const struct fuse_lowlevel_ops front_flat_ops = {
    .init = op_init,
    .lookup = op_lookup,
    .getattr = op_getattr,
    .open = op_open,
    .read = op_read,
};
