/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How a version is mounted: by the kernel's own EROFS with packs on local disks (local), by it over
 * one file of ours (native), or as our file system (fuse). docs/attaching.md, "Modes".
 *
 * The kernel parses what it mounts, and whoever names the store may be the attacker: so only root
 * has it so, and unasked only for a store that the administrator opened for it. What the kernel can
 * do is tried, not guessed (mode-probe.c).
 */
#include "cli/mode.h"

#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>

/* An index up to this size is asked for at once: later, each page of it would cost a request. */
#define AHEAD_MAX (UINT64_C(16) << 20)
/* Descriptors beside those of packs. */
#define OTHER_DESCRIPTORS 64u
/* Of a pack: for the kernel, and for its pin in the cache. */
#define PER_PACK 2u

static const char *const names[] = {
    [MODE_AUTO] = "auto", [MODE_FUSE] = "fuse", [MODE_NATIVE] = "native", [MODE_LOCAL] = "local"};

const char *mode_name(enum mode mode)
{
    return names[mode];
}

int mode_option(const struct args *args, enum mode *ret)
{
    const char *text = args_text(args, "--mode");

    *ret = MODE_AUTO;
    for (size_t i = 0; text && i < sizeof names / sizeof *names; i++) {
        if (strcmp(text, names[i]) == 0) {
            *ret = (enum mode)i;
            return CLI_DONE;
        }
    }
    return text ? say_usage(args->command, "--mode is auto, fuse, native or local, not '%s'", text)
                : CLI_DONE;
}

/* ---- trust ---- */

/* Root's own store, closed to others. */
static bool is_roots_own(const struct cli *cli)
{
    struct stat st;

    return cli->store_is_default && strncmp(cli->store, "file://", 7) == 0 &&
           stat(cli->store + 7, &st) == 0 && S_ISDIR(st.st_mode) && st.st_uid == 0 &&
           (st.st_mode & 022) == 0;
}

static bool may_unasked(const struct cli *cli, char *why, size_t size)
{
    const struct cluster *cluster = config_cluster(&cli->config, cli->cluster);

    if (is_roots_own(cli) || (!cli->places.store_is_given && cluster && cluster->kernel_mount))
        return true;
    (void)snprintf(why, size,
                   "the store is not opened for it by kernel_mount = yes in /etc/grid/config");
    return false;
}

/* ---- what there is ---- */

static int find_packs(struct opened *o, struct serve *s, char *why, size_t size)
{
    const struct manifest *m = view_manifest(o->view);
    struct rlimit limit;

    if (m->linked) {
        (void)snprintf(why, size, "its data lies in the bucket it was linked from");
        return -EOPNOTSUPP;
    }
    rlim_t needed = PER_PACK * (rlim_t)m->pack_count + OTHER_DESCRIPTORS;
    if (getrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_max < needed) {
        (void)snprintf(why, size, "%" PRIu32 " packs are more than this process may open",
                       m->pack_count);
        return -EOPNOTSUPP;
    }
    s->packs = calloc(m->pack_count + 1u, sizeof *s->packs);
    if (!s->packs)
        return -ENOMEM;
    s->pack_count = m->pack_count;
    for (uint32_t i = 0; i < m->pack_count; i++) {
        object_ref_key('p', &m->packs[i], s->packs[i].key);
        s->packs[i].length = m->packs[i].length;
        s->packs[i].digest = m->packs[i].digest;
    }
    return 0;
}

/* In the cache, whole. `ret_fd` NULL: is it? Else pinned, while this process lives. */
static int open_cached(struct cache *cache, const struct serve_pack *p, int *ret_fd)
{
    AUTO(cache_object_close) struct cache_object *o = NULL;

    if (!cache || cache_object_open(cache, &p->digest, p->length, &o) < 0)
        return -EOPNOTSUPP;
    if (!ret_fd)
        return cache_object_is_complete(o) ? 0 : -EOPNOTSUPP;
    return cache_object_pin(o, ret_fd) < 0 ? -EOPNOTSUPP : 0;
}

static int open_stored(struct store *store, const struct serve_pack *p, int *ret_fd, char *why,
                       size_t size)
{
    AUTO(close_fd) int fd = -1;
    struct stat st;
    int r = store_open_local(store, p->key, &fd);

    if (r == -EOPNOTSUPP) {
        (void)snprintf(why, size, "its packs are not all on a disk of this machine");
    } else if (r < 0) {
        (void)snprintf(why, size, "pack %s cannot be opened: %s", p->key, strerror(-r));
    } else if (fstat(fd, &st) < 0 || (uint64_t)st.st_size != p->length) {
        /* The kernel would give zeros for what is missing. */
        (void)snprintf(why, size, "pack %s has not the length that it was stored with", p->key);
        r = -EIO;
    }
    if (r == 0)
        *ret_fd = take_fd(&fd);
    return r;
}

/* Where it lies, or in the cache. */
static int open_pack(struct store *store, struct cache *cache, const struct serve_pack *p,
                     int *ret_fd, char *why, size_t size)
{
    int r = open_stored(store, p, ret_fd, why, size);

    return r == -EOPNOTSUPP ? open_cached(cache, p, ret_fd) : r;
}

/* Are they all here, and as long as they were? */
static int try_packs(struct opened *o, const struct serve *s, char *why, size_t size)
{
    int r = 0;

    for (size_t i = 0; r == 0 && i < s->pack_count; i++) {
        AUTO(close_fd) int fd = -1;
        r = open_stored(o->store, &s->packs[i], &fd, why, size);
        if (r == -EOPNOTSUPP)
            r = open_cached(o->cache, &s->packs[i], NULL);
    }
    return r;
}

/* Of struct attach_kernel: in the process that mounts. */
static int open_packs(void *ctx, struct attach_devices *ret, struct err *err)
{
    const struct serve *s = ctx;
    AUTO(store_close) struct store *store = NULL;
    AUTO(cache_close) struct cache *cache = NULL;
    struct rlimit limit;
    char why[200] = "";
    int r = store_open_with(s->store, STORE_READ, &s->options, &store, err);

    if (r < 0)
        return r;
    if (cache_place_is_wanted(&s->reading.cache, store))
        (void)cache_place_open(&s->reading.cache, &cache, NULL); /* then it has none of them */
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 &&
        limit.rlim_cur < PER_PACK * s->pack_count + OTHER_DESCRIPTORS) {
        limit.rlim_cur = limit.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &limit); /* if it fails, opening does */
    }
    ret->fds = calloc(s->pack_count + 1, sizeof *ret->fds);
    if (!ret->fds)
        return err_fail(err, -ENOMEM, "out of memory");
    while (r == 0 && ret->count < s->pack_count) {
        r = open_pack(store, cache, &s->packs[ret->count], &ret->fds[ret->count], why, sizeof why);
        ret->count += r == 0;
    }
    return r < 0 ? err_fail(err, -EOPNOTSUPP, "%s", why) : 0;
}

/* ---- choosing ---- */

static bool kernel_can(struct opened *o, char *why, size_t size)
{
    if (!mode_probe(false, why, size))
        return false;
    return !index_is_wide(view_index(o->view)) || mode_probe(true, why, size);
}

static bool can_local(struct opened *o, struct serve *s, char *why, size_t size)
{
    int r = find_packs(o, s, why, size);

    if (r == 0)
        r = try_packs(o, s, why, size);
    return r == 0;
}

static void set_mode(struct serve *s, struct attach_record *record, enum mode mode)
{
    s->mode = mode;
    s->kernel.devices = mode == MODE_LOCAL ? open_packs : NULL;
    record->kernel = mode == MODE_FUSE ? NULL : &s->kernel;
    (void)snprintf(record->mode, sizeof record->mode, "%s", names[mode]);
}

static void keep_why(struct attach_record *record, const char *better, const char *why)
{
    (void)snprintf(record->why, sizeof record->why, "not %s: %s", better, why); /* or cut short */
}

bool mode_wants_view(const struct cli *cli, enum mode wanted)
{
    char why[200];

    return wanted != MODE_FUSE && geteuid() == 0 &&
           (wanted != MODE_AUTO || may_unasked(cli, why, sizeof why));
}

int mode_choose(struct cli *cli, struct opened *o, struct serve *s, struct attach_record *record)
{
    enum mode wanted = s->reading.mode;
    char why[200] = "";
    uint64_t index_size = o->info.index_size;

    s->kernel = (struct attach_kernel){.ahead = index_size <= AHEAD_MAX ? index_size : 0,
                                       .index_size = index_size,
                                       .copies = cli->places.cache,
                                       .ctx = s};
    set_mode(s, record, MODE_FUSE);
    if (wanted == MODE_FUSE)
        return CLI_DONE;
    bool can = geteuid() == 0;
    if (!can)
        (void)snprintf(why, sizeof why, "%s", MODE_ONLY_ROOT);
    else if (wanted == MODE_AUTO)
        can = may_unasked(cli, why, sizeof why);
    can = can && kernel_can(o, why, sizeof why);
    if (!can && wanted != MODE_AUTO)
        return say_failed("cannot mount %s:%" PRIu32 " with --mode %s: %s", o->info.name,
                          o->info.version, names[wanted], why);
    if (!can) {
        keep_why(record, "native", why);
        return CLI_DONE;
    }
    if (wanted != MODE_NATIVE) {
        if (can_local(o, s, why, sizeof why)) {
            set_mode(s, record, MODE_LOCAL);
            return CLI_DONE;
        }
        if (wanted == MODE_LOCAL)
            return say_failed("cannot mount %s:%" PRIu32 " with --mode local: %s", o->info.name,
                              o->info.version, why);
        keep_why(record, "local", why);
    }
    set_mode(s, record, MODE_NATIVE);
    return CLI_DONE;
}

bool mode_step_down(struct serve *s, struct attach_record *record, const struct err *err)
{
    if (s->reading.mode != MODE_AUTO || s->mode == MODE_FUSE)
        return false;
    keep_why(record, names[s->mode], err_text(err, -EOPNOTSUPP));
    set_mode(s, record, s->mode == MODE_LOCAL ? MODE_NATIVE : MODE_FUSE);
    return true;
}

bool mode_step_down_all(struct items *items, const struct err *err)
{
    bool any = false;

    for (size_t i = 0; i < items->count; i++) {
        if (mode_step_down(&items->serves[i], &items->at[i].record, err))
            any = true;
    }
    return any;
}
