/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Answers to the kernel's requests. Everything is read from the view each time: the kernel keeps
 * names, attributes and pages for ever, so it asks for each thing about once.
 *
 * Each operation is a function that makes an answer from a value (run_...), so that it can be run
 * again where it had to wait for its bytes.
 */
#include "front/front-internal.h"

#include <string.h>
#include <sys/stat.h>

#define USER_PREFIX        "user."
#define USER_PREFIX_LENGTH (sizeof USER_PREFIX - 1)

static _Thread_local uint8_t *reply_buffer;

void front_set_reply_buffer(uint8_t *buffer)
{
    reply_buffer = buffer;
}

uint8_t *front_reply_buffer(void)
{
    return reply_buffer;
}

static struct front *front_of(fuse_req_t req)
{
    return fuse_req_userdata(req);
}

static void fail(struct front_answer *ret, int code)
{
    ret->kind = FRONT_ERROR;
    ret->code = code;
}

static mode_t type_bits(enum index_type type)
{
    return type == INDEX_DIRECTORY ? S_IFDIR : type == INDEX_SYMLINK ? S_IFLNK : S_IFREG;
}

static void fill_stat(const struct front *f, const struct index_inode *inode, struct stat *st)
{
    *st = (struct stat){
        .st_ino = inode->nid,
        .st_mode = type_bits(inode->type) | (inode->mode & 07777),
        .st_nlink = inode->nlink,
        .st_uid = f->uid,
        .st_gid = f->gid,
        .st_size = (off_t)inode->size,
        .st_blksize = 4096,
        .st_blocks = (blkcnt_t)(inode->size / 512 + (inode->size % 512 != 0)),
        .st_mtim = {.tv_sec = inode->mtime_s, .tv_nsec = inode->mtime_ns},
    };
    st->st_atim = st->st_ctim = st->st_mtim;
}

static void fill_entry(const struct front *f, const struct index_inode *inode,
                       struct fuse_entry_param *e)
{
    *e = (struct fuse_entry_param){
        .ino = inode->nid, .attr_timeout = FRONT_FOREVER, .entry_timeout = FRONT_FOREVER};
    fill_stat(f, inode, &e->attr);
}

/* ---- start
 * --------------------------------------------------------------------------------------------- */

static void op_init(void *userdata, struct fuse_conn_info *conn)
{
    struct front *f = userdata;
    const unsigned wanted = FUSE_CAP_ASYNC_READ | FUSE_CAP_PARALLEL_DIROPS | FUSE_CAP_READDIRPLUS |
                            FUSE_CAP_CACHE_SYMLINKS;

    /* AUTO would ask for attributes only after somebody has asked for one; and who reads past the
     * page cache in the asynchronous way cannot be killed while he waits. */
    conn->want &=
        ~(unsigned)(FUSE_CAP_READDIRPLUS_AUTO | FUSE_CAP_AUTO_INVAL_DATA | FUSE_CAP_ASYNC_DIO);
    conn->want |= wanted & conn->capable;
    conn->max_background = FRONT_BACKGROUND_MAX;
    conn->congestion_threshold = FRONT_BACKGROUND_MAX * 3 / 4;
    f->no_open = (conn->capable & FUSE_CAP_NO_OPEN_SUPPORT) != 0;
    f->no_opendir = (conn->capable & FUSE_CAP_NO_OPENDIR_SUPPORT) != 0;
}

/* ---- names and attributes
 * ------------------------------------------------------------------------------- */

static void run_lookup(struct front_op *op, struct front_answer *ret)
{
    struct front *f = op->front;
    struct index_inode inode;
    int r = view_lookup(f->view, op->ino, op->name, strlen(op->name), &inode);

    if (r < 0 && r != -ENOENT) {
        fail(ret, r);
        return;
    }
    /* Node 0 says: there is no such name, and there never will be. */
    ret->kind = FRONT_ENTRY;
    ret->entry = (struct fuse_entry_param){.entry_timeout = FRONT_FOREVER};
    if (r == 0)
        fill_entry(f, &inode, &ret->entry);
}

static void op_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
    size_t length = strlen(name);

    if (length > INDEX_NAME_MAX) {
        front_answer_error(req, -ENAMETOOLONG);
        return;
    }
    struct front_op *op = front_op_begin(req, run_lookup, parent);
    memcpy(op->name, name, length + 1);
    front_op_go(op);
}

static void run_getattr(struct front_op *op, struct front_answer *ret)
{
    struct index_inode inode;
    int r = view_inode(op->front->view, op->ino, &inode);

    if (r < 0) {
        fail(ret, r);
        return;
    }
    ret->kind = FRONT_ATTR;
    fill_stat(op->front, &inode, &ret->attr);
}

static void op_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    front_op_go(front_op_begin(req, run_getattr, ino));
}

_Static_assert(INDEX_TARGET_MAX < FRONT_REPLY_MAX, "a target fits an answer");

static void run_readlink(struct front_op *op, struct front_answer *ret)
{
    int r = view_readlink(op->front->view, op->ino, (char *)reply_buffer);

    if (r < 0)
        fail(ret, r);
    else
        ret->kind = FRONT_TEXT;
}

static void op_readlink(fuse_req_t req, fuse_ino_t ino)
{
    front_op_go(front_op_begin(req, run_readlink, ino));
}

static void op_statfs(fuse_req_t req, fuse_ino_t ino)
{
    struct front *f = front_of(req);
    const struct manifest *m = view_manifest(f->view);
    struct statvfs st = {
        .f_bsize = 512,
        .f_frsize = 512,
        .f_blocks = m->size_bytes / 512 + (m->size_bytes % 512 != 0),
        .f_files = index_inode_count(view_index(f->view)),
        .f_namemax = INDEX_NAME_MAX,
    };

    (void)fuse_reply_statfs(req, &st); /* fails if the kernel has gone */
}

/* ---- directories
 * ------------------------------------------------------------------------------------------ */

struct listing {
    fuse_req_t req;
    struct front *front;
    bool plus;
    size_t size, used;
};

static int add_entry(void *ctx, const struct index_entry *entry)
{
    struct listing *l = ctx;
    char name[INDEX_NAME_MAX + 1];
    char *to = (char *)reply_buffer + l->used;
    size_t room = l->size - l->used, need;

    memcpy(name, entry->name, entry->name_length);
    name[entry->name_length] = '\0';
    if (l->plus) {
        struct fuse_entry_param e = {.attr.st_ino = entry->nid,
                                     .attr.st_mode = type_bits(entry->type)};
        struct index_inode inode;
        /* Node 0: the kernel takes the entry for a listing only, as it must "." and "..", and one
         * whose inode is damaged; whoever uses that one gets the error. */
        if (strcmp(name, ".") != 0 && strcmp(name, "..") != 0 &&
            view_inode(l->front->view, entry->nid, &inode) == 0)
            fill_entry(l->front, &inode, &e);
        need = fuse_add_direntry_plus(l->req, to, room, name, &e, (off_t)entry->next);
    } else {
        struct stat st = {.st_ino = entry->nid, .st_mode = type_bits(entry->type)};
        need = fuse_add_direntry(l->req, to, room, name, &st, (off_t)entry->next);
    }
    if (need > room)
        return 1;
    l->used += need;
    return 0;
}

static void run_list(struct front_op *op, struct front_answer *ret)
{
    struct listing l = {.req = op->req, .front = op->front, .plus = op->plus};

    l.size = op->size < FRONT_REPLY_MAX ? op->size : FRONT_REPLY_MAX;
    int r = view_readdir(op->front->view, op->ino, (uint64_t)op->offset, add_entry, &l);
    if (r < 0 && l.used == 0) { /* else the error comes when the kernel goes on */
        fail(ret, r);
        return;
    }
    ret->kind = FRONT_BYTES;
    ret->size = l.used;
}

static void list(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, bool plus)
{
    struct front_op *op = front_op_begin(req, run_list, ino);

    op->size = size;
    op->offset = offset;
    op->plus = plus;
    front_op_go(op);
}

static void op_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset,
                       struct fuse_file_info *fi)
{
    list(req, ino, size, offset, false);
}

static void op_readdirplus(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset,
                           struct fuse_file_info *fi)
{
    list(req, ino, size, offset, true);
}

/* ---- data
 * ----------------------------------------------------------------------------------------------------
 */

/* ENOSYS, once, tells the kernel that it can do without: opening then costs no request at all. */
static void op_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    if (front_of(req)->no_open) {
        (void)fuse_reply_err(req, ENOSYS); /* fails if the kernel has gone */
        return;
    }
    fi->keep_cache = 1;
    (void)fuse_reply_open(req, fi); /* fails if the kernel has gone */
}

static void op_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    if (front_of(req)->no_opendir) {
        (void)fuse_reply_err(req, ENOSYS); /* fails if the kernel has gone */
        return;
    }
    fi->keep_cache = 1;
    fi->cache_readdir = 1;
    (void)fuse_reply_open(req, fi); /* fails if the kernel has gone */
}

static void run_read(struct front_op *op, struct front_answer *ret)
{
    struct front *f = op->front;
    struct index_inode inode;
    ssize_t n = view_inode(f->view, op->ino, &inode);

    if (n == 0)
        n = view_read(f->view, &inode, (uint64_t)op->offset, reply_buffer,
                      op->size < FRONT_REPLY_MAX ? op->size : FRONT_REPLY_MAX);
    if (n < 0) {
        fail(ret, (int)n);
        return;
    }
    ret->kind = FRONT_BYTES;
    ret->size = (size_t)n;
}

static void op_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset,
                    struct fuse_file_info *fi)
{
    struct front_op *op = front_op_begin(req, run_read, ino);

    op->size = size;
    op->offset = offset;
    front_op_go(op);
}

/* ---- extended attributes
 * -------------------------------------------------------------------------------------- */

struct attributes {
    const char *wanted; /* without "user."; NULL: list them all */
    size_t wanted_length;
    size_t used;
    bool found;
};

static int copy_out(struct attributes *a, const void *data, size_t size)
{
    if (size > FRONT_REPLY_MAX - a->used)
        return -ERANGE;
    memcpy(reply_buffer + a->used, data, size);
    a->used += size;
    return 0;
}

static int take_attribute(void *ctx, const char *name, size_t name_length, struct bytes value)
{
    struct attributes *a = ctx;
    int r;

    if (a->wanted) {
        if (name_length != a->wanted_length || memcmp(name, a->wanted, name_length) != 0)
            return 0;
        a->found = true;
        r = copy_out(a, value.data, value.size);
        return r < 0 ? r : 1;
    }
    r = copy_out(a, USER_PREFIX, USER_PREFIX_LENGTH);
    if (r == 0)
        r = copy_out(a, name, name_length);
    return r == 0 ? copy_out(a, "", 1) : r;
}

/* op->name: the wanted one without "user.", "" for all. */
static void run_attributes(struct front_op *op, struct front_answer *ret)
{
    struct attributes a = {.wanted = op->name[0] ? op->name : NULL,
                           .wanted_length = strlen(op->name)};
    struct view *view = op->front->view;
    struct index_inode inode;
    int r = view_inode(view, op->ino, &inode);

    if (r == 0)
        r = view_xattrs(view, &inode, take_attribute, &a);
    if (r >= 0 && a.wanted && !a.found)
        r = -ENODATA;
    if (r >= 0 && op->size != 0 && a.used > op->size)
        r = -ERANGE;
    if (r < 0) {
        fail(ret, r);
        return;
    }
    ret->kind = op->size == 0 ? FRONT_LENGTH : FRONT_BYTES;
    ret->size = a.used;
}

static void op_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size)
{
    size_t length = strlen(name);

    if (strncmp(name, USER_PREFIX, USER_PREFIX_LENGTH) != 0) {
        front_answer_error(req, -EOPNOTSUPP);
        return;
    }
    length -= USER_PREFIX_LENGTH;
    if (length == 0 || length > INDEX_NAME_MAX) { /* nothing has such a name */
        front_answer_error(req, -ENODATA);
        return;
    }
    struct front_op *op = front_op_begin(req, run_attributes, ino);
    memcpy(op->name, name + USER_PREFIX_LENGTH, length + 1);
    op->size = size;
    front_op_go(op);
}

static void op_listxattr(fuse_req_t req, fuse_ino_t ino, size_t size)
{
    struct front_op *op = front_op_begin(req, run_attributes, ino);

    op->name[0] = '\0';
    op->size = size;
    front_op_go(op);
}

const struct fuse_lowlevel_ops front_ops = {
    .init = op_init,
    .lookup = op_lookup,
    .getattr = op_getattr,
    .readlink = op_readlink,
    .statfs = op_statfs,
    .readdir = op_readdir,
    .readdirplus = op_readdirplus,
    .open = op_open,
    .opendir = op_opendir,
    .read = op_read,
    .getxattr = op_getxattr,
    .listxattr = op_listxattr,
};
