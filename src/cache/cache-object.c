/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Objects: finding and making the cell of one, and keeping few of them open.
 *
 * A cell may lose its name at any time, to the evictor of any process. Who reads from it finds
 * nothing and opens anew; who writes looks first. A file that is not what it should be is removed
 * and made anew.
 */
#include "cache/cache-object.h"

#include "base/file.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>

/* An object whose cell cannot be made for reasons of its own is left alone for so long. */
#define OBJECT_REST_MS 60000
/* Opening races with eviction and with makers: so often, then it is left. */
#define OPEN_ATTEMPTS 4

int cache_object_open(struct cache *c, const struct digest *id, uint64_t length,
                      struct cache_object **ret)
{
    struct cell_shape shape;
    int r = cell_shape_of(length, &shape);

    if (r < 0)
        return r;
    struct cache_object *o = calloc(1, sizeof *o);
    if (!o)
        return -ENOMEM;
    o->cache = c;
    o->id = *id;
    o->shape = shape;
    digest_to_hex(id, o->name + 3);
    memcpy(o->name, o->name + 3, 2);
    o->name[2] = '/';
    *ret = o;
    return 0;
}

/* ---- which cells are open; with cache.lock ---- */

static void list_remove(struct cache_object *o)
{
    struct cache *c = o->cache;

    *(o->newer ? &o->newer->older : &c->newest) = o->older;
    *(o->older ? &o->older->newer : &c->oldest) = o->newer;
    o->newer = o->older = NULL;
}

static void list_add(struct cache_object *o)
{
    struct cache *c = o->cache;

    o->older = c->newest;
    *(c->newest ? &c->newest->newer : &c->oldest) = o;
    c->newest = o;
}

/* One user less; gives the cell if it was the last one, to be freed without the lock. */
static struct cell *drop_user(struct cell *cell)
{
    return --cell->users == 0 ? cell : NULL;
}

static void cell_free(struct cell *cell)
{
    if (!cell)
        return;
    (void)close(cell->fd); /* a cache: what is lost is fetched again */
    free(cell);
}

static struct cell *detach(struct cache_object *o)
{
    struct cell *cell = o->cell;

    if (!cell)
        return NULL;
    list_remove(o);
    o->cell = NULL;
    o->cache->cells_open--;
    return drop_user(cell);
}

/* The one that nobody was at for longest. */
static struct cell *detach_oldest(struct cache *c)
{
    struct cache_object *o = c->oldest;

    while (o && o->cell->users > 1)
        o = o->newer;
    return o ? detach(o) : NULL;
}

void cache_object_close(struct cache_object *o)
{
    if (!o)
        return;
    struct cache *c = o->cache;
    while (o->claims.count > 0)
        cache_unclaim(o, o->claims.at[0].segment);
    pthread_mutex_lock(&c->lock);
    struct cell *last = detach(o);
    pthread_mutex_unlock(&c->lock);
    cell_free(last);
    vec_release(&o->claims);
    free(o);
}

void object_release(struct cache_object *o, struct cell *cell)
{
    struct cache *c = o->cache;

    pthread_mutex_lock(&c->lock);
    struct cell *last = drop_user(cell);
    pthread_mutex_unlock(&c->lock);
    cell_free(last);
}

void object_discard(struct cache_object *o, struct cell *cell)
{
    struct cache *c = o->cache;

    pthread_mutex_lock(&c->lock);
    struct cell *last = o->cell == cell ? detach(o) : NULL;
    pthread_mutex_unlock(&c->lock);
    cell_free(last); /* never the caller's: it is a user */
}

/* ---- files ---- */

/* A new cell under a name of its own, linked to its place when it is whole: 0 also if somebody else
 * was quicker. */
static int make_cell(struct cache_object *o, int shard_fd)
{
    struct cache *c = o->cache;
    uint8_t data[CELL_HEADER_SIZE];
    struct cell_header h = {.length = o->shape.length, .id = o->id};
    struct rlimit limit;
    char temp[64];
    unsigned number;

    /* Beyond that limit the kernel would send a signal. */
    if (getrlimit(RLIMIT_FSIZE, &limit) == 0 && limit.rlim_cur < o->shape.file_size)
        return -EFBIG;
    {
        WITH_LOCK(&c->lock);
        number = c->temp_counter++;
    }
    (void)snprintf(temp, sizeof temp, ".new-%d-%d-%u", (int)getpid(), c->dir_fd, number);
    AUTO(close_fd)
    int fd =
        openat(shard_fd, temp, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC | O_NOCTTY, 0600);
    if (fd < 0 && errno == EEXIST) { /* of a process with our number, that died */
        (void)unlinkat(shard_fd, temp, 0);
        return -EAGAIN;
    }
    if (fd < 0)
        return -errno;
    memcpy(h.boot, c->boot, sizeof h.boot);
    cell_header_encode(&h, data);
    int r = ftruncate(fd, (off_t)o->shape.file_size) < 0 ? -errno : 0;
    if (r == 0)
        r = file_pwrite(fd, data, sizeof data, (off_t)o->shape.header);
    bool is_ours = r == 0 && linkat(shard_fd, temp, shard_fd, o->name + 3, 0) == 0;
    if (r == 0 && !is_ours && errno != EEXIST)
        r = -errno;
    (void)unlinkat(shard_fd, temp, 0); /* else the evictor finds it */
    if (is_ours)
        account_add(c, CELL_ALIGN, 1);
    return r;
}

/* Is this open file the cell of `o`? 0; -ESTALE: it has lost its name; -EPROTO: no. */
static int check_cell(const struct cache_object *o, int fd, struct cell *ret)
{
    struct cell_header h;
    struct cell_shape s;
    struct stat st;

    if (fstat(fd, &st) < 0)
        return -errno;
    if (!S_ISREG(st.st_mode) || st.st_uid != geteuid() ||
        (uint64_t)st.st_size != o->shape.file_size)
        return -EPROTO;
    if (st.st_nlink == 0)
        return -ESTALE;
    int r = cell_identify(fd, (uint64_t)st.st_size, &h, &s);
    if (r < 0)
        return r;
    if (h.length != o->shape.length || !digest_equal(&h.id, &o->id))
        return -EPROTO;
    ret->device = st.st_dev;
    ret->inode = st.st_ino;
    return 0;
}

/* What an errno of open(2) says of the file and not of the disk. */
static bool is_foreign(int r)
{
    return r == -EPROTO || r == -ELOOP || r == -ENXIO || r == -EISDIR || r == -EACCES;
}

static int open_once(struct cache_object *o, int shard_fd, bool make, struct cell *ret)
{
    const int flags = O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC | O_NOCTTY;
    bool writable = true;
    AUTO(close_fd) int fd = openat(shard_fd, o->name + 3, O_RDWR | flags);

    if (fd < 0 && (errno == EROFS || errno == EACCES)) {
        writable = false;
        fd = openat(shard_fd, o->name + 3, O_RDONLY | flags);
    }
    int r = fd < 0 ? -errno : check_cell(o, fd, ret);
    if (r == 0) {
        ret->fd = take_fd(&fd);
        ret->writable = writable;
        return 0;
    }
    if (r == -ENOENT && make) {
        r = make_cell(o, shard_fd);
        return r == 0 ? -EAGAIN : r;
    }
    if (!is_foreign(r))
        return r == -ESTALE ? -EAGAIN : r;
    cache_note_foreign(o->cache);
    if (unlinkat(shard_fd, o->name + 3, 0) < 0 && errno != ENOENT)
        return errno == EISDIR ? -EPROTO : -errno;
    return -EAGAIN;
}

static int open_file(struct cache_object *o, bool make, struct cell *ret)
{
    int r = -EAGAIN;

    for (int attempt = 0; r == -EAGAIN && attempt < OPEN_ATTEMPTS; attempt++) {
        AUTO(close_fd) int shard_fd = -1;
        r = cache_shard_open(o->cache, o->name, make, &shard_fd);
        if (r == 0)
            r = open_once(o, shard_fd, make, ret);
    }
    return r;
}

int object_acquire(struct cache_object *o, bool make, struct cell **ret)
{
    struct cache *c = o->cache;
    struct cell *spare = NULL;

    pthread_mutex_lock(&c->lock);
    struct cell *cell = o->cell;
    if (cell) {
        cell->users++;
        list_remove(o);
        list_add(o);
    }
    bool rests = !cell && o->retry_ms && cache_now_ms(c) < o->retry_ms;
    pthread_mutex_unlock(&c->lock);
    if (cell || rests) {
        *ret = cell;
        return cell ? 0 : -EPROTO;
    }

    AUTO(free_ptr) struct cell *fresh = calloc(1, sizeof *fresh);
    if (!fresh)
        return -ENOMEM;
    int r = open_file(o, make, fresh);
    if (r == -ENOENT && !make)
        return r;
    if (r < 0 && !is_foreign(r) && r != -EAGAIN && r != -EFBIG)
        cache_note(c, r);
    pthread_mutex_lock(&c->lock);
    if (r < 0) {
        o->retry_ms = is_foreign(r) || r == -EFBIG ? cache_now_ms(c) + OBJECT_REST_MS : 0;
    } else if (o->cell) { /* another thread was quicker */
        spare = take_ptr(&fresh);
        o->cell->users++;
    } else {
        o->cell = take_ptr(&fresh);
        o->cell->users = 2;
        list_add(o);
        if (++c->cells_open > c->cells_max)
            spare = detach_oldest(c);
    }
    if (r == 0)
        *ret = o->cell;
    pthread_mutex_unlock(&c->lock);
    cell_free(spare);
    return r;
}

bool object_is_gone(const struct cell *cell)
{
    struct stat st;

    return fstat(cell->fd, &st) < 0 || st.st_nlink == 0;
}

/* ---- claims: locks of an open file, which go with the process ---- */

static int lock_segment(const struct cell *cell, short type, uint64_t segment)
{
    struct flock l = {.l_type = type,
                      .l_whence = SEEK_SET,
                      .l_start = CELL_CLAIM_OFFSET + (off_t)segment,
                      .l_len = 1};

    return fcntl(cell->fd, F_OFD_SETLK, &l) < 0 ? -errno : 0;
}

int cache_claim(struct cache_object *o, uint64_t segment)
{
    struct cache *c = o->cache;
    struct cell *cell;

    /* Where nothing can be kept there is nothing to agree on. */
    if (segment >= o->shape.segments || cache_rests(c, true) || object_acquire(o, true, &cell) < 0)
        return 0;
    pthread_mutex_lock(&c->lock);
    int r = 0;
    for (size_t i = 0; r == 0 && i < o->claims.count; i++)
        r = o->claims.at[i].segment == segment ? -EBUSY : 0;
    if (r == 0 && cell->writable) {
        r = lock_segment(cell, F_WRLCK, segment);
        r = r == -EAGAIN || r == -EACCES ? -EBUSY : 0;
        struct cache_claimed claim = {.segment = segment, .cell = cell};
        if (r == 0 && vec_push(&o->claims, claim) == 0)
            cell->users++;
    }
    pthread_mutex_unlock(&c->lock);
    object_release(o, cell);
    return r;
}

void cache_unclaim(struct cache_object *o, uint64_t segment)
{
    struct cell *last = NULL;
    struct cache *c = o->cache;

    pthread_mutex_lock(&c->lock);
    for (size_t i = 0; i < o->claims.count; i++) {
        if (o->claims.at[i].segment != segment)
            continue;
        struct cell *cell = o->claims.at[i].cell;
        (void)lock_segment(cell, F_UNLCK, segment); /* or it goes with the descriptor */
        o->claims.at[i] = o->claims.at[--o->claims.count];
        last = drop_user(cell);
        break;
    }
    pthread_mutex_unlock(&c->lock);
    cell_free(last);
}
