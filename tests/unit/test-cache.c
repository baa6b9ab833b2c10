/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The cache on disk: what is kept, found, forgotten, evicted, pinned; and files in its directory
 * that somebody else wrote.
 */
#include "cache-fixture.h"

#include "base/le.h"

#include <fcntl.h>
#include <unistd.h>

/* ---- keeping ---- */

static void test_keeps(void **state)
{
    struct fixture f;
    fixture_init(&f);
    struct cache *c = fixture_open(&f, 64 * MIB);
    const uint64_t length = 3 * MIB + 1234;
    struct cache_object *o = object(c, 1, length);

    assert_int_equal(check(o, 1, 0, 512), -ENODATA);
    assert_int_equal(cache_missing(o, 0, length), 0);
    assert_int_equal(cache_missing(o, 777, length), 777);
    assert_int_equal(usage(c).objects, 0);
    /* Over a border of segments, read at any offset. */
    assert_int_equal(put(o, 1, MIB - 1024, 4096), 0);
    assert_int_equal(check(o, 1, MIB - 1024, 4096), 0);
    assert_int_equal(check(o, 1, MIB - 3, 7), 0);
    assert_int_equal(check(o, 1, MIB - 1025, 2), -ENODATA);
    assert_int_equal(check(o, 1, MIB + 3072 - 1, 2), -ENODATA);
    assert_int_equal(cache_missing(o, MIB - 1024, length), MIB + 3072);
    assert_int_equal(cache_missing(o, MIB, MIB + 100), MIB + 100);
    /* The end of the object is the one end that may be crooked. */
    assert_int_equal(put(o, 1, 3 * MIB + 1024, 210), 0);
    assert_int_equal(check(o, 1, 3 * MIB + 1024, 210), 0);
    assert_int_equal(cache_missing(o, 3 * MIB + 1024, UINT64_MAX), length);
    assert_int_equal(put(o, 1, 512, 100), -EINVAL);
    assert_int_equal(put(o, 1, 100, 512), -EINVAL);
    assert_int_equal(put(o, 1, 3 * MIB + 1024, 512), -EINVAL);
    assert_int_equal(check(o, 1, length, 1), -ENODATA);
    assert_int_equal(check(o, 1, UINT64_MAX - 10, 100), -ENODATA);
    assert_int_equal(usage(c).objects, 1);
    assert_int_equal(usage(c).used_bytes, 4096 + 512 + CELL_ALIGN);

    /* Another process would see the same. */
    struct cache *d = fixture_open(&f, 64 * MIB);
    struct cache_object *p = object(d, 1, length);
    assert_int_equal(check(p, 1, MIB - 1024, 4096), 0);
    cache_forget(p, MIB, 1);
    assert_int_equal(check(o, 1, MIB - 1024, 1024), 0);
    assert_int_equal(check(o, 1, MIB, 1), -ENODATA);
    assert_int_equal(check(o, 1, MIB + 512, 512), 0);
    cache_object_close(p);
    cache_close(d);
    cache_object_close(o);
    cache_close(c);

    c = fixture_open(&f, 64 * MIB);
    o = object(c, 1, length);
    assert_int_equal(check(o, 1, MIB - 1024, 1024), 0);
    assert_int_equal(cache_object_drop(o), 0);
    assert_int_equal(check(o, 1, MIB - 1024, 1024), -ENODATA);
    assert_int_equal(put(o, 1, 0, 512), 0);
    assert_int_equal(check(o, 1, 0, 512), 0);
    cache_object_close(o);
    cache_close(c);
    fixture_release(&f);
}

static void test_lengths(void **state)
{
    struct cell_shape s;

    assert_int_equal(cell_shape_of(0, &s), -EINVAL);
    assert_int_equal(cell_shape_of(CACHE_OBJECT_MAX + 1, &s), -EINVAL);
    assert_int_equal(cell_shape_of(CACHE_OBJECT_MAX, &s), 0);
    struct fixture f;
    fixture_init(&f);
    struct cache *c = fixture_open(&f, 64 * MIB);
    static const uint64_t lengths[] = {1,    511,     512,         513,         4096,
                                       4097, MIB - 1, MIB,         MIB + 1,     4096 * MIB,
                                       4095, 2 * MIB, 9 * MIB + 5, 70000 * MIB, 4096 * MIB + 3};
    for (unsigned i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
        struct cache_object *o = object(c, i, lengths[i]);
        uint64_t at = lengths[i] > 1024 ? (lengths[i] - 1024) / 512 * 512 : 0;
        assert_int_equal(put(o, i, at, (size_t)(lengths[i] - at)), 0);
        assert_int_equal(check(o, i, at, (size_t)(lengths[i] - at)), 0);
        cache_object_close(o);
        o = object(c, i, lengths[i]);
        assert_int_equal(cache_missing(o, at, lengths[i]), lengths[i]);
        cache_object_close(o);
    }
    cache_close(c);
    fixture_release(&f);
}

/* More objects than cells may be open. */
static void test_many_objects(void **state)
{
    struct fixture f;
    fixture_init(&f);
    struct cache *c = fixture_open(&f, 64 * MIB);
    enum { COUNT = CACHE_CELLS_MAX + 100 };
    static struct cache_object *o[COUNT];

    for (unsigned i = 0; i < COUNT; i++) {
        o[i] = object(c, i, 1000);
        assert_int_equal(put(o[i], i, 0, 1000), 0);
    }
    assert_true(c->cells_open <= CACHE_CELLS_MAX);
    for (unsigned i = 0; i < COUNT; i++)
        assert_int_equal(check(o[i], i, 0, 1000), 0);
    assert_true(c->cells_open <= CACHE_CELLS_MAX);
    for (unsigned i = 0; i < COUNT; i++)
        cache_object_close(o[i]);
    assert_int_equal(c->cells_open, 0);
    cache_close(c);
    fixture_release(&f);
}

/* ---- claims ---- */

static void test_claims(void **state)
{
    struct fixture f;
    fixture_init(&f);
    struct cache *c = fixture_open(&f, 64 * MIB), *d = fixture_open(&f, 64 * MIB);
    struct cache_object *o = object(c, 1, 10 * MIB), *p = object(d, 1, 10 * MIB);

    assert_int_equal(cache_claim(o, 3), 0);
    assert_int_equal(cache_claim(p, 3), -EBUSY);
    assert_int_equal(cache_claim(o, 3), -EBUSY);
    assert_int_equal(cache_claim(p, 4), 0);
    cache_unclaim(p, 3); /* not his: nothing */
    assert_int_equal(cache_claim(p, 3), -EBUSY);
    cache_unclaim(o, 3);
    assert_int_equal(cache_claim(p, 3), 0);
    cache_object_close(p); /* lets go of both */
    assert_int_equal(cache_claim(o, 3), 0);
    assert_int_equal(cache_claim(o, 4), 0);
    cache_object_close(o);
    cache_close(c);
    cache_close(d);
    fixture_release(&f);
}

/* ---- eviction ---- */

static void test_evicts_the_oldest(void **state)
{
    struct fixture f;
    fixture_init(&f);
    struct cache *c = fixture_open(&f, 16 * MIB);

    for (unsigned i = 0; i < 12; i++) {
        struct cache_object *o = object(c, i, MIB);
        assert_int_equal(put(o, i, 0, MIB), 0);
        cache_object_close(o);
        fixture_wait(&f, 100 << (12 - i)); /* each twice as old as the next one */
    }
    cache_close(c);
    fixture_wait(&f, 100);
    c = fixture_open(&f, 16 * MIB); /* what was before this is not protected */
    struct cache_object *first = object(c, 0, MIB);
    assert_int_equal(check(first, 0, 0, 512), 0); /* the oldest one is used again */
    cache_object_close(first);
    fixture_wait(&f, 60);
    struct cache_object *big = object(c, 100, 8 * MIB);
    for (unsigned i = 0; i < 8; i++) {
        if (put(big, 100, i * MIB, MIB) == -EDQUOT) {
            evict(c);
            assert_int_equal(put(big, 100, i * MIB, MIB), 0);
        }
        fixture_wait(&f, 1);
    }
    assert_int_equal(check(big, 100, 0, 8 * MIB), 0);
    cache_object_close(big);
    assert_true(usage(c).evicted > 0);
    assert_true(usage(c).used_bytes <= 16 * MIB);
    bool gone = false;
    for (unsigned i = 11; i >= 1; i--) { /* all behind the first one that is gone are gone */
        struct cache_object *o = object(c, i, MIB);
        int r = check(o, i, 0, MIB);
        assert_true(r == 0 || r == -ENODATA);
        assert_false(gone && r == 0);
        gone = gone || r < 0;
        cache_object_close(o);
    }
    assert_true(gone);
    first = object(c, 0, MIB);
    assert_int_equal(check(first, 0, 0, MIB), 0);
    cache_object_close(first);
    cache_close(c);
    fixture_release(&f);
}

/* Segments of one file: some go, some stay. */
static void test_evicts_segments(void **state)
{
    struct fixture f;
    struct stat st;
    char path[256];
    fixture_init(&f);
    struct cache *c = fixture_open(&f, 16 * MIB);
    struct cache_object *o = object(c, 1, 14 * MIB);

    for (unsigned i = 0; i < 14; i++) {
        assert_int_equal(put(o, 1, i * MIB, MIB), 0);
        fixture_wait(&f, 100);
    }
    cache_object_close(o);
    cache_close(c);
    fixture_wait(&f, 1000);
    c = fixture_open(&f, 16 * MIB);
    o = object(c, 1, 14 * MIB);
    fixture_wait(&f, 1);
    struct cache_object *p = object(c, 2, 6 * MIB);
    for (unsigned i = 0; i < 6; i++) {
        if (put(p, 2, i * MIB, MIB) == -EDQUOT) {
            evict(c);
            assert_int_equal(put(p, 2, i * MIB, MIB), 0);
        }
    }
    cell_path(&f, 1, path);
    assert_int_equal(stat(path, &st), 0);
    assert_true((uint64_t)st.st_blocks * 512 < 13 * MIB); /* its holes are holes */
    assert_int_equal(check(o, 1, 0, MIB), -ENODATA);
    assert_int_equal(check(o, 1, 13 * MIB, MIB), 0);
    assert_int_equal(check(p, 2, 0, 6 * MIB), 0);
    cache_object_close(o);
    cache_object_close(p);
    cache_close(c);
    fixture_release(&f);
}

/* What this process uses stays, but one byte in CACHE_ADMIT: three rounds over three times as much
 * as there is room for find a good part each time. */
static void test_rounds_over_more_than_fits(void **state)
{
    enum { COUNT = 192, FITS = 64 };
    struct fixture f;
    fixture_init(&f);
    struct cache *c = fixture_open(&f, FITS * MIB);
    unsigned found[3] = {0}, order[COUNT], seed = 7;

    for (unsigned i = 0; i < COUNT; i++)
        order[i] = i;
    struct cache_object *o = object(c, 1, COUNT * MIB);
    fixture_wait(&f, 2);
    for (unsigned round = 0; round < 3; round++) {
        for (unsigned i = COUNT - 1; i > 0; i--) {
            seed = seed * 1103515245u + 12345u;
            unsigned j = (seed >> 8) % (i + 1), t = order[i];
            order[i] = order[j];
            order[j] = t;
        }
        for (unsigned i = 0; i < COUNT; i++) {
            uint64_t at = order[i] * MIB;
            if (check(o, 1, at, MIB) == 0)
                found[round]++;
            else if (put(o, 1, at, MIB) == -EDQUOT)
                evict(c);
            fixture_wait(&f, 1);
        }
    }
    print_message("found %u, %u, %u of %u\n", found[0], found[1], found[2], FITS);
    assert_int_equal(found[0], 0);
    assert_true(found[1] >= FITS * 3 / 4);
    assert_true(found[2] >= FITS * 3 / 4);
    assert_true(usage(c).refused > 0);
    assert_true(usage(c).used_bytes <= FITS * MIB);
    cache_object_close(o);
    cache_close(c);
    fixture_release(&f);
}

static void test_account_is_put_right(void **state)
{
    struct fixture f;
    char path[256];
    fixture_init(&f);
    struct cache *c = fixture_open(&f, 64 * MIB);
    struct cache_object *o = object(c, 1, 8 * MIB);

    assert_int_equal(put(o, 1, 0, 8 * MIB), 0);
    (void)snprintf(path, sizeof path, "%s/packs/account", f.dir);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, "\xff\xff\xff\xff\xff\xff\xff\xff", 8, 16), 8);
    evict(c);
    uint64_t used = usage(c).used_bytes;
    assert_true(used >= 8 * MIB && used < 9 * MIB);
    assert_int_equal(usage(c).objects, 1);
    assert_int_equal(ftruncate(fd, 3), 0);
    close(fd);
    cache_object_close(o);
    cache_close(c);
    c = fixture_open(&f, 64 * MIB);
    evict(c);
    used = usage(c).used_bytes;
    assert_true(used >= 8 * MIB && used < 9 * MIB);
    uint64_t freed = 0;
    assert_int_equal(cache_drop(c, &freed), 0);
    assert_true(freed >= 8 * MIB);
    assert_int_equal(usage(c).used_bytes, 0);
    assert_int_equal(usage(c).objects, 0);
    cache_close(c);
    fixture_release(&f);
}

/* ---- complete, settled, pinned ---- */

static void test_complete(void **state)
{
    struct fixture f;
    char path[256];
    fixture_init(&f);
    struct cache *c = fixture_open(&f, 64 * MIB);
    struct cache_object *o = object(c, 1, 2 * MIB + 5);

    assert_false(cache_object_is_complete(o));
    assert_int_equal(cache_object_settle(o), -ENODATA);
    assert_int_equal(put(o, 1, 0, 2 * MIB), 0);
    assert_false(cache_object_is_complete(o));
    assert_int_equal(cache_object_settle(o), -ENODATA);
    assert_int_equal(put(o, 1, 2 * MIB, 5), 0);
    assert_true(cache_object_is_complete(o));
    cache_object_close(o);

    /* As another boot would have left it: the data is used, but nobody mounts it. */
    cell_path(&f, 1, path);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, "other boot......", 16, 2 * MIB + 4096 + 56), 16);
    o = object(c, 1, 2 * MIB + 5);
    assert_int_equal(check(o, 1, 0, 2 * MIB + 5), 0);
    assert_false(cache_object_is_complete(o));
    int pinned = -1;
    assert_int_equal(cache_object_pin(o, &pinned), -ENODATA);
    assert_int_equal(cache_object_settle(o), 0);
    assert_true(cache_object_is_complete(o));
    cache_forget(o, 4096, 1); /* it did not verify */
    assert_false(cache_object_is_complete(o));
    assert_int_equal(put(o, 1, 4096, 512), 0);
    assert_false(cache_object_is_complete(o)); /* until somebody looked at all of it */
    assert_int_equal(cache_object_settle(o), 0);
    assert_true(cache_object_is_complete(o));
    close(fd);
    cache_object_close(o);
    cache_close(c);
    fixture_release(&f);
}

static void test_pinned(void **state)
{
    struct fixture f;
    uint8_t byte, want;
    fixture_init(&f);
    struct cache *c = fixture_open(&f, 16 * MIB);
    struct cache_object *o = object(c, 1, 8 * MIB);
    int fd = -1;

    assert_int_equal(put(o, 1, 0, 8 * MIB), 0);
    assert_int_equal(cache_object_pin(o, &fd), 0);
    assert_int_equal(fcntl(fd, F_GETFL) & O_ACCMODE, O_RDONLY);
    close(fd); /* the process holds it all the same */
    cache_object_close(o);
    cache_close(c);
    fixture_wait(&f, 100000);
    c = fixture_open(&f, 16 * MIB);
    fixture_wait(&f, 1);
    struct cache_object *p = object(c, 2, 12 * MIB);
    for (unsigned i = 0; i < 12; i++) {
        if (put(p, 2, i * MIB, MIB) == -EDQUOT)
            evict(c);
    }
    assert_true(usage(c).refused > 0);
    o = object(c, 1, 8 * MIB);
    assert_int_equal(check(o, 1, 0, 8 * MIB), 0);
    assert_int_equal(cache_object_drop(o), -EBUSY);
    uint64_t freed = 0;
    assert_int_equal(cache_drop(c, &freed), 0);
    assert_int_equal(check(o, 1, 0, 8 * MIB), 0);
    assert_int_equal(check(p, 2, 0, MIB), -ENODATA);
    cache_object_close(p);

    /* The pin of a process that is gone: the file may go, but not what others have open of it. */
    char path[256];
    cell_path(&f, 1, path);
    int mount = open(path, O_RDONLY | O_CLOEXEC);
    assert_true(mount >= 0);
    for (int i = 3; i < 64; i++) { /* what a process's end would do */
        struct flock l = {.l_type = F_UNLCK, .l_start = CELL_PIN_OFFSET, .l_len = 1};
        (void)fcntl(i, F_OFD_SETLK, &l);
    }
    assert_int_equal(cache_object_drop(o), 0);
    assert_int_equal(access(path, F_OK), -1);
    assert_int_equal(pread(mount, &byte, 1, 5 * MIB), 1);
    fill(1, 5 * MIB, &want, 1);
    assert_int_equal(byte, want);
    close(mount);
    cache_object_close(o);
    cache_close(c);
    fixture_release(&f);
}

/* ---- what somebody else wrote ---- */

enum harm {
    HARM_TRUNCATE,
    HARM_EMPTY,
    HARM_GROW,
    HARM_HEADER,
    HARM_FLAGS,
    HARM_FORMAT,
    HARM_DIGEST,
    HARM_LENGTH,
    HARM_SWAP,
    HARM_SYMLINK,
    HARM_SYMLINK_DANGLING,
    HARM_FIFO,
    HARM_SHARD_SYMLINK,
    HARM_SHARD_FILE,
    HARM_COUNT
};

static void write_at(const char *path, off_t at, const char *bytes, size_t size)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);

    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, bytes, size, at), size);
    close(fd);
}

static void do_harm(struct fixture *f, enum harm h, const char *path, const char *outside)
{
    char other[256], shard[256], away[300];

    (void)snprintf(shard, sizeof shard, "%.*s", (int)(strlen(path) - 65), path);
    (void)snprintf(away, sizeof away, "%s/away", f->dir);
    switch (h) {
    case HARM_TRUNCATE:
        assert_int_equal(truncate(path, MIB), 0);
        break;
    case HARM_EMPTY:
        assert_int_equal(truncate(path, 0), 0);
        break;
    case HARM_GROW:
        assert_int_equal(truncate(path, 100 * MIB), 0);
        break;
    case HARM_HEADER:
        write_at(path, 2 * MIB, "XXXXXXXXXXXXXXXX", 16);
        break;
    case HARM_FLAGS:
        write_at(path, 2 * MIB + 12, "\xff", 1);
        break;
    case HARM_FORMAT:
        write_at(path, 2 * MIB + 8, "\x02", 1);
        break;
    case HARM_LENGTH:
        write_at(path, 2 * MIB + 16, "\xff\xff\xff\xff\xff\xff\xff\xff", 8);
        break;
    case HARM_DIGEST:
        write_at(path, 2 * MIB + 24, "XXXX", 4);
        break;
    case HARM_SWAP:
        cell_path(f, 2, other);
        assert_int_equal(rename(other, path), 0);
        break;
    case HARM_SYMLINK:
        assert_int_equal(rename(path, away), 0);
        assert_int_equal(symlink(outside, path), 0);
        break;
    case HARM_SYMLINK_DANGLING:
        assert_int_equal(unlink(path), 0);
        assert_int_equal(symlink("/nowhere/at/all", path), 0);
        break;
    case HARM_FIFO:
        assert_int_equal(unlink(path), 0);
        assert_int_equal(mkfifo(path, 0600), 0);
        break;
    case HARM_SHARD_SYMLINK:
        assert_int_equal(rename(shard, away), 0);
        assert_int_equal(symlink("/tmp", shard), 0);
        break;
    case HARM_SHARD_FILE:
        assert_int_equal(rename(shard, away), 0);
        assert_int_equal(mknod(shard, S_IFREG | 0600, 0), 0);
        break;
    case HARM_COUNT:
        break;
    }
}

static void test_harm(void **state)
{
    for (enum harm h = 0; h < HARM_COUNT; h++) {
        for (int evictor_first = 0; evictor_first < 2; evictor_first++) {
            struct fixture f;
            char path[256], outside[300], text[32] = {0};
            fixture_init(&f);
            (void)snprintf(outside, sizeof outside, "%s/outside", f.dir);
            int fd = open(outside, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
            assert_int_equal(write(fd, "untouched", 9), 9);
            struct cache *c = fixture_open(&f, 64 * MIB);
            for (unsigned i = 1; i <= 2; i++) {
                struct cache_object *o = object(c, i, 2 * MIB);
                assert_int_equal(put(o, i, 0, 2 * MIB), 0);
                cache_object_close(o);
            }
            cell_path(&f, 1, path);
            do_harm(&f, h, path, outside);
            if (evictor_first)
                evict(c);
            struct cache_object *o = object(c, 1, 2 * MIB);
            assert_int_equal(check(o, 1, 0, 512), -ENODATA);
            assert_int_equal(put(o, 1, 0, 512), 0);
            assert_int_equal(check(o, 1, 0, 512), 0);
            assert_true(usage(c).foreign >= 1);
            assert_false(usage(c).failing);
            cache_object_close(o);
            cache_close(c);
            assert_int_equal(pread(fd, text, sizeof text, 0), 9);
            assert_string_equal(text, "untouched");
            close(fd);
            fixture_release(&f);
        }
    }
}

/* While it is open. */
static void test_harm_under_way(void **state)
{
    struct fixture f;
    char path[256];
    fixture_init(&f);
    struct cache *c = fixture_open(&f, 64 * MIB);
    struct cache_object *o = object(c, 1, 2 * MIB);

    cell_path(&f, 1, path);
    for (unsigned i = 0; i < 4; i++) {
        assert_int_equal(put(o, 1, 0, 2 * MIB), 0);
        assert_int_equal(check(o, 1, 0, 2 * MIB), 0);
        if (i % 2 == 0)
            assert_int_equal(truncate(path, (off_t)(i * MIB)), 0);
        else
            assert_int_equal(unlink(path), 0);
        if (i % 2 == 0)
            assert_int_equal(check(o, 1, 0, 2 * MIB), -ENODATA);
    }
    assert_int_equal(put(o, 1, 0, 2 * MIB), 0); /* behind the unlink: under a new name */
    assert_int_equal(access(path, F_OK), 0);
    assert_int_equal(check(o, 1, 0, 2 * MIB), 0);
    /* Marks of any other value are no marks; a clock from the future is an old one. */
    write_at(path, 2 * MIB + 128 + 16, "\x02\xff\x80\x00", 4);
    write_at(path, 2 * MIB + 128, "\xff\xff\xff\xff", 4);
    assert_int_equal(cache_missing(o, 0, 2 * MIB), 0);
    assert_int_equal(check(o, 1, 2048, 512), 0);
    assert_int_equal(check(o, 1, 1536, 512), -ENODATA);
    evict(c);
    cache_object_close(o);
    cache_close(c);
    fixture_release(&f);
}

static void test_directory(void **state)
{
    struct fixture f;
    char path[256];
    struct err err = ERR_INIT;
    struct cache *c = NULL;
    fixture_init(&f);
    struct cache_options options = {.dir = f.dir, .size_bytes = MIB, .env = &f.env};

    (void)snprintf(path, sizeof path, "%s/packs", f.dir);
    assert_int_equal(symlink("/tmp", path), 0);
    assert_int_equal(cache_open(&options, &c, &err), -ENOTDIR);
    assert_non_null(strstr(err.text, path));
    assert_int_equal(unlink(path), 0);
    assert_int_equal(mknod(path, S_IFREG | 0600, 0), 0);
    err_clear(&err);
    assert_int_equal(cache_open(&options, &c, &err), -ENOTDIR);
    assert_int_equal(unlink(path), 0);
    /* Open to others: closed. */
    assert_int_equal(mkdir(path, 0777), 0);
    assert_int_equal(chmod(path, 0777), 0);
    c = fixture_open(&f, MIB);
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0700);
    cache_close(c);
    c = NULL;
    if (geteuid() == 0) {
        assert_int_equal(chown(path, 12345, 12345), 0);
        err_clear(&err);
        assert_int_equal(cache_open(&options, &c, &err), -EPERM);
        assert_non_null(strstr(err.text, "belongs to somebody else"));
    } else {
        print_message("not root: another owner's directory is not tried\n");
    }
    assert_null(c);
    fixture_release(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_keeps),
        cmocka_unit_test(test_lengths),
        cmocka_unit_test(test_many_objects),
        cmocka_unit_test(test_claims),
        cmocka_unit_test(test_evicts_the_oldest),
        cmocka_unit_test(test_evicts_segments),
        cmocka_unit_test(test_rounds_over_more_than_fits),
        cmocka_unit_test(test_account_is_put_right),
        cmocka_unit_test(test_complete),
        cmocka_unit_test(test_pinned),
        cmocka_unit_test(test_harm),
        cmocka_unit_test(test_harm_under_way),
        cmocka_unit_test(test_directory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
