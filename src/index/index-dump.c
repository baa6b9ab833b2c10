/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An index as text: one line a path. Format: docs/formats/index-dump.md.
 *
 * Walks the tree depth-first with a stack as deep as the tree, through the reader's public
 * functions. Files are printed from inside the listing; a directory stops it, is walked, and the
 * listing then goes on behind its entry. A hostile image can name one directory from many places:
 * no image has more entries than fit its bytes, so the walk ends there.
 */
#include "index/index.h"

#include <inttypes.h>
#include <search.h>

#include "base/vec.h"
#include "index/index-dump.h"
#include "index/index-internal.h"

#define ENTRY_MIN     (EROFS_DIRENT_SIZE + 1) /* bytes of the smallest directory entry */
#define PATH_MAX_SIZE ((INDEX_DEPTH_MAX + 1) * (INDEX_NAME_MAX + 1))

/* A directory that is being walked. */
struct frame {
    struct index_inode inode;
    uint64_t next;      /* cookie to go on from */
    size_t path_length; /* of the directory */
};

/* The first name of a file that has several. */
struct first_name {
    uint64_t nid;
    char *path; /* owned, escaped */
};

struct dumper {
    const struct index *x;
    FILE *out;
    struct buf path; /* of what is looked at, not escaped; "" is the root */
    VEC(struct frame) stack;
    void *first_names; /* tsearch(3) tree of struct first_name */
    uint64_t entries_left;
    bool descend; /* the listing stopped at a directory: */
    struct index_inode subdirectory;
};

static void print_escaped(FILE *out, const void *data, size_t size)
{
    const uint8_t *p = data;
    for (size_t i = 0; i < size; i++) {
        if (dump_is_plain(p[i]))
            (void)putc(p[i], out); /* errors are asked for at the end */
        else
            (void)fprintf(out, "\\x%02x", p[i]);
    }
}

static int print_xattr(void *ctx, const char *name, size_t name_length, struct bytes value)
{
    FILE *out = ctx;
    const uint8_t *p = value.data;
    (void)fputs(" user.", out); /* errors are asked for at the end */
    print_escaped(out, name, name_length);
    (void)putc('=', out);
    for (size_t i = 0; i < value.size; i++)
        (void)fprintf(out, "%02x", p[i]);
    return 0;
}

static int print_chunks(const struct dumper *d, const struct index_inode *file)
{
    struct index_extent e;
    bool one = file->size <= EROFS_CHUNK_BIG;
    for (uint64_t at = 0; at < file->size; at = e.chunk_offset + e.chunk_size) {
        int r = index_map(d->x, file, at, &e);
        if (r < 0)
            return r;
        if (e.chunk_offset != at || e.chunk_size == 0)
            return -EPROTO;
        if (e.device == 0)
            (void)fputs(" hole", d->out);
        else
            (void)fprintf(d->out, " %" PRIu32 ":%" PRIu64, e.device, e.block);
        if (e.device != 0 && one)
            (void)fprintf(d->out, ":%" PRIu32, file->leaf_hint);
    }
    return 0;
}

static int order_first_names(const void *a, const void *b)
{
    uint64_t x = ((const struct first_name *)a)->nid, y = ((const struct first_name *)b)->nid;
    return x < y ? -1 : x > y;
}

static void free_first_name(void *p)
{
    struct first_name *n = p;
    free(n->path);
    free(n);
}

/* 1 and *ret: another name of this inode was printed before. */
static int seen_before(struct dumper *d, uint64_t nid, const char **ret)
{
    struct first_name *fresh = calloc(1, sizeof *fresh);
    if (!fresh)
        return -ENOMEM;
    fresh->nid = nid;
    struct first_name **found = tsearch(fresh, &d->first_names, order_first_names);
    if (!found) {
        free(fresh);
        return -ENOMEM;
    }
    if (*found != fresh) {
        free(fresh);
        *ret = (*found)->path;
        return 1;
    }
    fresh->path = malloc(d->path.size + 1);
    if (!fresh->path)
        return -ENOMEM;
    memcpy(fresh->path, buf_text(&d->path), d->path.size + 1);
    return 0;
}

static int print_inode(const struct dumper *d, const struct index_inode *inode)
{
    static const char *const words[] = {
        [INDEX_FILE] = "file", [INDEX_DIRECTORY] = "directory", [INDEX_SYMLINK] = "symlink"};
    int r = 0;
    (void)fprintf(d->out, " %s %04o %" PRId64 ".%09" PRIu32, words[inode->type], inode->mode,
                  inode->mtime_s, inode->mtime_ns);
    if (inode->type == INDEX_FILE) {
        (void)fprintf(d->out, " %" PRIu64, inode->size);
        r = print_chunks(d, inode);
    } else if (inode->type == INDEX_SYMLINK) {
        char target[INDEX_TARGET_MAX + 1];
        r = index_readlink(d->x, inode, target);
        (void)putc(' ', d->out);
        if (r >= 0)
            print_escaped(d->out, target, strlen(target));
    }
    return r < 0 ? r : index_xattrs(d->x, inode, print_xattr, d->out);
}

/* The line of what d->path names. */
static int print_line(struct dumper *d, const struct index_inode *inode)
{
    const char *first = NULL;
    int r = 0;
    if (inode->type != INDEX_DIRECTORY && inode->nlink > 1) {
        r = seen_before(d, inode->nid, &first);
        if (r < 0)
            return r;
    }
    if (d->path.size == 0)
        (void)putc('/', d->out);
    print_escaped(d->out, buf_text(&d->path), d->path.size);
    if (r == 1) {
        (void)fputs(" hardlink ", d->out);
        print_escaped(d->out, first, strlen(first));
        r = 0;
    } else {
        r = print_inode(d, inode);
    }
    (void)putc('\n', d->out);
    return r;
}

static void path_cut(struct buf *path, size_t length)
{
    path->size = length;
    if (path->data)
        path->data[length] = '\0';
}

static int on_entry(void *ctx, const struct index_entry *entry)
{
    struct dumper *d = ctx;
    struct frame *top = &d->stack.at[d->stack.count - 1];
    top->next = entry->next;
    if (entry->name[0] == '.' &&
        (entry->name_length == 1 || (entry->name_length == 2 && entry->name[1] == '.')))
        return 0;
    if (d->entries_left-- == 0)
        return -EPROTO;
    path_cut(&d->path, top->path_length);
    int r = buf_append(&d->path, "/", 1);
    if (r == 0)
        r = buf_append(&d->path, entry->name, entry->name_length);
    struct index_inode inode = {.nid = 0};
    if (r == 0)
        r = index_inode(d->x, entry->nid, &inode);
    if (r == 0 && inode.type != entry->type)
        r = -EPROTO;
    if (r == 0)
        r = print_line(d, &inode);
    if (r < 0 || inode.type != INDEX_DIRECTORY)
        return r;
    d->descend = true;
    d->subdirectory = inode;
    return 1;
}

static int push(struct dumper *d, const struct index_inode *directory)
{
    struct frame f = {.inode = *directory, .path_length = d->path.size};
    return d->stack.count > INDEX_DEPTH_MAX ? -EPROTO : vec_push(&d->stack, f);
}

static int dump_tree(struct dumper *d)
{
    struct index_inode root;
    int r = index_inode(d->x, INDEX_ROOT_NID, &root);
    if (r == 0)
        r = print_line(d, &root);
    if (r == 0)
        r = push(d, &root);
    while (r == 0 && d->stack.count > 0) {
        struct frame *top = &d->stack.at[d->stack.count - 1];
        d->descend = false;
        r = index_readdir(d->x, &top->inode, top->next, on_entry, d);
        if (r < 0)
            break;
        r = 0;
        if (d->descend)
            r = push(d, &d->subdirectory);
        else
            d->stack.count--;
    }
    return r;
}

static void dump_devices(const struct index *x, FILE *out)
{
    (void)fprintf(out, INDEX_DUMP_MAGIC "\n"); /* errors are asked for at the end */
    for (uint32_t id = 1; id <= index_device_count(x); id++) {
        char hex[DIGEST_HEX_SIZE];
        struct digest digest = index_device_digest(x, id);
        digest_to_hex(&digest, hex);
        (void)fprintf(out, "device %s %" PRIu64 "\n", hex, index_device_blocks(x, id));
    }
}

int index_dump(const struct index *x, FILE *out, struct err *err)
{
    struct dumper d = {
        .x = x,
        .out = out,
        .path = BUF_INIT(PATH_MAX_SIZE),
        .entries_left = x->size / ENTRY_MIN,
    };
    dump_devices(x, out);
    int r = dump_tree(&d);
    if (r < 0)
        r = err_prefix(err, r, "/%s of the index", d.path.size ? buf_text(&d.path) + 1 : "");
    tdestroy(d.first_names, free_first_name);
    buf_release(&d.path);
    vec_release(&d.stack);
    if (r == 0 && (fflush(out) != 0 || ferror(out)))
        r = err_fail(err, -EIO, "the dump of the index could not be written");
    return r;
}
