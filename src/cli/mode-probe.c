/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What this machine's kernel can do, by trying: a tiny image of our format is served and mounted as
 * any version is, and a file in it compared. Some kernels read images of the 48-bit layout in the
 * wrong place without an error, so that one is tried with a device beyond 2^32 blocks: nobody needs
 * so much space, since the server makes up the bytes.
 *
 * Once per boot and kernel: <runtime>/kernel-mount and kernel-mount-48 say how it came out.
 */
#include "cli/mode.h"

#include "attach/attach.h"
#include "base/file.h"
#include "base/le.h"
#include "front/front.h"
#include "supervise/supervise.h"

#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <string.h>
#include <sys/utsname.h>

#define PROBE_DEVICE_BLOCKS (UINT64_C(4) << 30 >> 9) /* of 4 GiB, as the largest pack */
/* So many of them that the last one begins beyond 2^32 blocks; without the need, a few. */
#define PROBE_DEVICES_WIDE 520u
#define PROBE_DEVICES      2u
#define PROBE_IMAGE_MAX    (1u << 20)
#define PROBE_FILE_SIZE    4096u
#define REMEMBERED_MAX     1024u

/* What the probe's server serves: an index, then words that tell where they stand. */
struct probe {
    struct buf index;
    uint64_t size;
    char source[ATTACH_SOURCE_MAX];
};

/* ---- the image ---- */

static int append(void *ctx, const void *data, size_t size)
{
    return buf_append(ctx, data, size);
}

static int build_tree(struct tree *t, uint16_t last_device)
{
    const struct tree_entry file = {.name = "probe",
                                    .name_length = 5,
                                    .type = TREE_FILE,
                                    .mode = 0444,
                                    .size = PROBE_FILE_SIZE};
    uint32_t node;
    int r = tree_add_children(t, TREE_ROOT, &file, 1, &node);

    if (r < 0)
        return r;
    tree_node(t, node)->pack = (uint16_t)(last_device - 1);
    tree_node(t, node)->ref = 0;
    return tree_seal(t);
}

static int build(struct probe *p, bool wide)
{
    uint16_t count = wide ? PROBE_DEVICES_WIDE : PROBE_DEVICES;
    AUTO(free_ptr) struct index_device *devices = calloc(count, sizeof *devices);
    AUTO(free_ptr) uint16_t *ids = calloc(count, sizeof *ids);
    AUTO(tree_free) struct tree *t = NULL;
    struct index_summary summary;

    if (!devices || !ids)
        return -ENOMEM;
    for (uint16_t i = 0; i < count; i++) {
        devices[i] =
            (struct index_device){.digest = digest_of(&i, sizeof i), .blocks = PROBE_DEVICE_BLOCKS};
        ids[i] = (uint16_t)(i + 1);
    }
    int r = tree_new(&t);
    if (r == 0)
        r = build_tree(t, count);
    if (r == 0)
        r = index_write(t, devices, count, ids, count, append, &p->index, &summary, NULL);
    if (r == 0 && summary.wide != wide)
        r = -EPROTO;
    p->size = p->index.size + (count + 1u) * PROBE_DEVICE_BLOCKS * PACK_BLOCK;
    return r;
}

/* Of struct front_flat. Each word says where it stands. */
static int read_probe(void *ctx, uint64_t offset, void *data, size_t size)
{
    const struct probe *p = ctx;
    uint8_t *to = data;
    uint8_t word[8];

    for (size_t i = 0; i < size; i++) {
        uint64_t at = offset + i;
        if (at < p->index.size) {
            to[i] = p->index.data[at];
        } else {
            le64_put(word, at / 8);
            to[i] = word[at % 8];
        }
    }
    return 0;
}

static int serve_probe(void *ctx, struct supervise_child *child)
{
    struct probe *p = ctx;
    const struct front_flat flat = {
        .name = p->source, .size = p->size, .read = read_probe, .ctx = p};
    const struct front_options options = {.flat = &flat,
                                          .fuse_fd = child->fuse_fd,
                                          .init = child->init,
                                          .init_size = child->init_size};
    struct front *front = NULL;
    struct err err = ERR_INIT;
    int r = front_open(NULL, &options, &front, &err);

    if (r < 0) {
        supervise_failed(child, r, err_text(&err, r));
        return CLI_FAILED;
    }
    supervise_ready(child);
    r = front_serve(front, &err);
    front_free(front);
    return r < 0 ? CLI_FAILED : CLI_DONE;
}

/* ---- trying ---- */

static int compare(struct probe *p, int mount_fd, bool wide, struct err *err)
{
    uint8_t found[PROBE_FILE_SIZE], expected[PROBE_FILE_SIZE];
    uint64_t devices = wide ? PROBE_DEVICES_WIDE : PROBE_DEVICES;
    /* As the writer places them: page by page behind the index, one behind the other. */
    uint64_t first = (p->index.size + 4095) / 4096 * 4096;
    AUTO(close_fd) int fd = openat(mount_fd, "probe", O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -errno : file_pread(fd, found, sizeof found, 0);

    if (n < 0)
        return err_fail(err, -EOPNOTSUPP, "the kernel cannot read an image of ours: %s",
                        strerror((int)-n));
    (void)read_probe(p, first + (devices - 1) * PROBE_DEVICE_BLOCKS * PACK_BLOCK, expected,
                     sizeof expected);
    if ((size_t)n != sizeof found || memcmp(found, expected, sizeof found) != 0)
        return err_fail(err, -EOPNOTSUPP, "this kernel reads %s images in the wrong place",
                        wide ? "48-bit" : "our");
    return 0;
}

static int try_it(bool wide, struct err *err)
{
    struct probe p = {.index = BUF_INIT(PROBE_IMAGE_MAX)};
    const struct attach_kernel kernel = {.ahead = 0};
    struct attach_record record = {.name = "kernel-probe", .version = 1, .kernel = &kernel};
    AUTO(close_fd) int mount_fd = -1;

    attach_source_name(&record, p.source);
    int r = build(&p, wide);
    if (r < 0)
        err_fail(err, r, "cannot make an image to try: %s", strerror(-r));
    if (r == 0)
        r = attach_kernel_try(&record, serve_probe, &p, &mount_fd, err);
    if (r == 0)
        r = compare(&p, mount_fd, wide, err);
    buf_release(&p.index);
    return r;
}

/* ---- remembering ---- */

/* This boot of this kernel. */
static int identify(char *ret, size_t size)
{
    AUTO(buf_release) struct buf boot = BUF_INIT(256);
    struct utsname u;
    int r = file_slurp(AT_FDCWD, "/proc/sys/kernel/random/boot_id", &boot);

    if (r < 0 || uname(&u) < 0)
        return r < 0 ? r : -errno;
    (void)snprintf(ret, size, "%.36s %.64s", buf_text(&boot), u.release); /* fits */
    return 0;
}

static bool file_path(bool wide, char ret[static PATH_MAX])
{
    char dir[PATH_MAX - 32];

    if (attach_runtime_dir(dir, sizeof dir, NULL) < 0)
        return false;
    (void)snprintf(ret, PATH_MAX, "%s/kernel-mount%s", dir, wide ? "-48" : ""); /* fits */
    return true;
}

/* 1: it can; 0: it cannot, and why; -ENOENT: nobody knows. */
static int recall(bool wide, const char *identity, char *ret_why, size_t size)
{
    AUTO(buf_release) struct buf text = BUF_INIT(REMEMBERED_MAX);
    char path[PATH_MAX];
    size_t n = strlen(identity);

    if (!file_path(wide, path) || file_slurp(AT_FDCWD, path, &text) < 0 ||
        strncmp(buf_text(&text), identity, n) != 0 || buf_text(&text)[n] != '\n')
        return -ENOENT;
    const char *rest = buf_text(&text) + n + 1;
    if (strcmp(rest, "yes") == 0)
        return 1;
    (void)snprintf(ret_why, size, "%s", rest); /* or cut short */
    return 0;
}

static void remember(bool wide, const char *identity, const char *result)
{
    char path[PATH_MAX], temp[PATH_MAX + 8];
    AUTO(buf_release) struct buf text = BUF_INIT(REMEMBERED_MAX);

    if (!file_path(wide, path) || buf_printf(&text, "%s\n%s", identity, result) < 0)
        return;                                           /* it is tried again, then */
    (void)snprintf(temp, sizeof temp, "%s.XXXXXX", path); /* fits */
    AUTO(close_fd) int fd = mkostemp(temp, O_CLOEXEC);
    if (fd >= 0 && (file_write(fd, text.data, text.size) < 0 || rename(temp, path) < 0))
        (void)unlink(temp); /* the same */
}

/* Kernels that hang, which no trial may find out: file-backed mounts of 6.14 to 6.15-rc5. */
static bool is_known_bad(const char *release)
{
    unsigned major_number, minor_number, candidate;

    if (sscanf(release, "%u.%u", &major_number, &minor_number) != 2 || major_number != 6)
        return false;
    return minor_number == 14 ||
           (minor_number == 15 && sscanf(release, "6.15.0-rc%u", &candidate) == 1 && candidate < 6);
}

bool mode_probe(bool wide, char *ret_why, size_t size)
{
    struct err err = ERR_INIT;
    struct utsname u;
    char identity[128];

    if (uname(&u) == 0 && is_known_bad(u.release)) {
        (void)snprintf(ret_why, size, "Linux %.40s hangs when it reads images from files",
                       u.release);
        return false;
    }
    int r = identify(identity, sizeof identity);
    int known = r == 0 ? recall(wide, identity, ret_why, size) : -ENOENT;
    if (known >= 0)
        return known;
    int c = try_it(wide, &err);
    if (c < 0)
        (void)snprintf(ret_why, size, "%s", err_text(&err, c)); /* or cut short */
    /* What failed for another reason may work the next time. */
    if (r == 0 && (c == 0 || c == -EOPNOTSUPP))
        remember(wide, identity, c == 0 ? "yes" : ret_why);
    return c == 0;
}
