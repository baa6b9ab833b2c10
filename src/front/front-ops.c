/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Answers to the kernel's requests. Everything is read from the view each time: the kernel keeps
 * names, attributes and pages for ever, so it asks for each thing about once.
 *
 * Errors: what a careful program can make something of goes out as it is; damage of any kind is
 * EIO.
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

static void reply_error(fuse_req_t req, int code)
{
    switch (code) {
    case -ENOENT:
    case -ENOTDIR:
    case -EINVAL:
    case -ENAMETOOLONG:
    case -ENOMEM:
    case -ERANGE:
    case -ENODATA:
    case -EOPNOTSUPP:
        break;
    default:
        code = -EIO;
    }
    (void)fuse_reply_err(req, -code); /* fails if the kernel has gone: the loop sees that */
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

    /* AUTO would ask for attributes only after somebody has asked for one. */
    conn->want &= ~(unsigned)(FUSE_CAP_READDIRPLUS_AUTO | FUSE_CAP_AUTO_INVAL_DATA);
    conn->want |= wanted & conn->capable;
    conn->max_background = FRONT_BACKGROUND_MAX;
    conn->congestion_threshold = FRONT_BACKGROUND_MAX * 3 / 4;
    f->no_open = (conn->capable & FUSE_CAP_NO_OPEN_SUPPORT) != 0;
    f->no_opendir = (conn->capable & FUSE_CAP_NO_OPENDIR_SUPPORT) != 0;
}

/* ---- names and attributes
 * ------------------------------------------------------------------------------- */

static void op_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
    struct front *f = front_of(req);
    struct fuse_entry_param e = {.entry_timeout = FRONT_FOREVER};
    struct index_inode inode;
    size_t length = strlen(name);
    int r = length > INDEX_NAME_MAX ? -ENAMETOOLONG
                                    : view_lookup(f->view, parent, name, length, &inode);

    if (r < 0 && r != -ENOENT) {
        reply_error(req, r);
        return;
    }
    /* Node 0 says: there is no such name, and there never will be. */
    if (r == 0)
        fill_entry(f, &inode, &e);
    (void)fuse_reply_entry(req, &e); /* fails if the kernel has gone */
}

static void op_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    struct front *f = front_of(req);
    struct index_inode inode;
    struct stat st;
    int r = view_inode(f->view, ino, &inode);

    if (r < 0) {
        reply_error(req, r);
        return;
    }
    fill_stat(f, &inode, &st);
    (void)fuse_reply_attr(req, &st, FRONT_FOREVER); /* fails if the kernel has gone */
}

static void op_readlink(fuse_req_t req, fuse_ino_t ino)
{
    char target[INDEX_TARGET_MAX + 1];
    int r = view_readlink(front_of(req)->view, ino, target);

    if (r < 0)
        reply_error(req, r);
    else
        (void)fuse_reply_readlink(req, target); /* fails if the kernel has gone */
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

static void list(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, bool plus)
{
    struct listing l = {.req = req, .front = front_of(req), .plus = plus};

    l.size = size < FRONT_REPLY_MAX ? size : FRONT_REPLY_MAX;
    int r = view_readdir(l.front->view, ino, (uint64_t)offset, add_entry, &l);
    if (r < 0 && l.used == 0) /* else the error comes when the kernel goes on */
        reply_error(req, r);
    else
        (void)fuse_reply_buf(req, (char *)reply_buffer, l.used); /* fails if the kernel has gone */
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

static void op_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset,
                    struct fuse_file_info *fi)
{
    struct front *f = front_of(req);
    struct index_inode inode;
    int r = view_inode(f->view, ino, &inode);

    if (r < 0) {
        reply_error(req, r);
        return;
    }
    ssize_t n = view_read(f->view, &inode, (uint64_t)offset, reply_buffer,
                          size < FRONT_REPLY_MAX ? size : FRONT_REPLY_MAX);
    if (n < 0)
        reply_error(req, (int)n);
    else
        (void)fuse_reply_buf(req, (char *)reply_buffer, (size_t)n); /* kernel gone: see above */
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

static void attributes(fuse_req_t req, fuse_ino_t ino, struct attributes *a, size_t size)
{
    struct front *f = front_of(req);
    struct index_inode inode;
    int r = view_inode(f->view, ino, &inode);

    if (r == 0)
        r = view_xattrs(f->view, &inode, take_attribute, a);
    if (r >= 0 && a->wanted && !a->found)
        r = -ENODATA;
    if (r >= 0 && size != 0 && a->used > size)
        r = -ERANGE;
    if (r < 0)
        reply_error(req, r);
    else if (size == 0)
        (void)fuse_reply_xattr(req, a->used); /* fails if the kernel has gone */
    else
        (void)fuse_reply_buf(req, (char *)reply_buffer, a->used); /* the same */
}

static void op_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size)
{
    if (strncmp(name, USER_PREFIX, USER_PREFIX_LENGTH) != 0) {
        reply_error(req, -EOPNOTSUPP);
        return;
    }
    name += USER_PREFIX_LENGTH;
    struct attributes a = {.wanted = name, .wanted_length = strlen(name)};
    attributes(req, ino, &a, size);
}

static void op_listxattr(fuse_req_t req, fuse_ino_t ino, size_t size)
{
    struct attributes a = {.wanted = NULL};

    attributes(req, ino, &a, size);
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
