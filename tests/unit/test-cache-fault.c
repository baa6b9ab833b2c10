/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The cache among others: threads, processes that are killed in the middle, disks that are full or
 * read-only. What it gives is right or is not there.
 */
#include "cache-fixture.h"

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- many at once ---- */

enum { OBJECTS = 4, OBJECT_SIZE = 12 << 20, LIMIT = 24 << 20, WORKERS = 4 };

/* Shared by all workers. */
struct shared {
    _Atomic int64_t now_ms;
    _Atomic uint64_t right, wrong, absent, kept, refused, claims;
    _Atomic bool stop;
};

static struct shared *shared;

/* Each look at the clock is another 20 minutes: nothing stays protected, everything ages. */
static int64_t racing_now(struct env *env)
{
    return atomic_fetch_add(&shared->now_ms, 1200000);
}

static struct env racing_env = {
    .wall_ms = racing_now, .boot_ms = racing_now, .sleep_ms = fixture_sleep};

static void work(struct cache *c, unsigned seed, unsigned rounds)
{
    struct cache_object *o[OBJECTS];

    for (unsigned i = 0; i < OBJECTS; i++)
        o[i] = object(c, i, OBJECT_SIZE);
    for (unsigned round = 0; !atomic_load(&shared->stop) && (!rounds || round < rounds); round++) {
        seed = seed * 1103515245u + 12345u;
        unsigned n = (seed >> 8) % OBJECTS, what = (seed >> 4) % 16;
        uint64_t at = (seed >> 12) % (OBJECT_SIZE / 65536) * 65536;
        size_t size = 65536 << (what % 3);
        size = at + size > OBJECT_SIZE ? OBJECT_SIZE - at : size;
        if (what == 15) {
            cache_forget(o[n], at, 512);
            continue;
        }
        int r = check(o[n], n, at, size);
        if (r == 0) {
            atomic_fetch_add(&shared->right, 1);
        } else if (r > 0) {
            atomic_fetch_add(&shared->wrong, 1);
            cache_forget(o[n], at, size); /* as a reader does whose digests differ */
        } else {
            atomic_fetch_add(&shared->absent, 1);
            uint64_t segment = at / CACHE_SEGMENT;
            bool claimed = cache_claim(o[n], segment) == 0;
            atomic_fetch_add(&shared->claims, claimed);
            if (put(o[n], n, at, size) == 0)
                atomic_fetch_add(&shared->kept, 1);
            else
                atomic_fetch_add(&shared->refused, 1);
            if (claimed)
                cache_unclaim(o[n], segment);
        }
    }
    for (unsigned i = 0; i < OBJECTS; i++)
        cache_object_close(o[i]);
}

static struct cache *open_racing(const char *dir)
{
    struct cache_options options = {
        .dir = dir, .size_bytes = LIMIT, .keep_free_bytes = 1, .env = &racing_env};
    struct cache *c = NULL;

    assert_int_equal(cache_open(&options, &c, NULL), 0);
    return c;
}

static void shared_init(void)
{
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(shared != MAP_FAILED);
    atomic_store(&shared->now_ms, 1800000000000);
}

static void shared_release(void)
{
    print_message("%llu right, %llu wrong, %llu absent, %llu kept, %llu refused\n",
                  (unsigned long long)shared->right, (unsigned long long)shared->wrong,
                  (unsigned long long)shared->absent, (unsigned long long)shared->kept,
                  (unsigned long long)shared->refused);
    assert_int_equal(munmap(shared, sizeof *shared), 0);
}

struct thread {
    struct cache *c;
    unsigned seed;
    pthread_t id;
};

static void *thread_main(void *arg)
{
    struct thread *t = arg;

    work(t->c, t->seed, 400);
    return NULL;
}

static void test_threads(void **state)
{
    struct fixture f;
    struct thread t[WORKERS];
    fixture_init(&f);
    shared_init();
    struct cache *c = open_racing(f.dir);

    for (unsigned i = 0; i < WORKERS; i++) {
        t[i] = (struct thread){.c = c, .seed = i + 1};
        assert_int_equal(pthread_create(&t[i].id, NULL, thread_main, &t[i]), 0);
    }
    for (unsigned i = 0; i < WORKERS; i++)
        assert_int_equal(pthread_join(t[i].id, NULL), 0);
    assert_int_equal(shared->wrong, 0);
    assert_true(shared->right > 0 && shared->kept > 0);
    assert_true(usage(c).evicted > 0);
    assert_false(usage(c).failing);
    cache_close(c);
    shared_release();
    fixture_release(&f);
}

static pid_t start_worker(const char *dir, unsigned seed, unsigned rounds)
{
    pid_t pid = fork();

    assert_true(pid >= 0);
    if (pid == 0) {
        struct cache *c = open_racing(dir);
        work(c, seed, rounds);
        cache_close(c);
        _exit(0);
    }
    return pid;
}

static void test_processes(void **state)
{
    struct fixture f;
    pid_t pids[WORKERS];
    fixture_init(&f);
    shared_init();

    for (unsigned i = 0; i < WORKERS; i++)
        pids[i] = start_worker(f.dir, i + 100, 400);
    for (unsigned i = 0; i < WORKERS; i++) {
        int status = -1;
        assert_int_equal(waitpid(pids[i], &status, 0), pids[i]);
        assert_int_equal(status, 0);
    }
    assert_int_equal(shared->wrong, 0);
    assert_true(shared->right > 0 && shared->kept > 0);
    shared_release();
    fixture_release(&f);
}

static uint64_t disk_use;

static int add_use(const char *path, const struct stat *st, int kind, struct FTW *ftw)
{
    if (S_ISREG(st->st_mode) && strlen(path) > 64)
        disk_use += (uint64_t)st->st_blocks * 512;
    return 0;
}

/* Killed in the middle of writes and evictions: what is there afterwards is right, or a reader's
 * digests find it once; and the account is put right. */
static void test_killed(void **state)
{
    const unsigned kills = getenv("SOAK") ? 500 : 40;
    struct fixture f;
    pid_t pids[WORKERS];
    fixture_init(&f);
    shared_init();

    for (unsigned i = 0; i < WORKERS; i++)
        pids[i] = start_worker(f.dir, i + 7, 0);
    for (unsigned i = 0; i < kills; i++) {
        int status = 0;
        env_real()->sleep_ms(env_real(), 20 + i % 7 * 5);
        unsigned n = i % WORKERS;
        assert_int_equal(kill(pids[n], SIGKILL), 0);
        assert_int_equal(waitpid(pids[n], &status, 0), pids[n]);
        assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
        pids[n] = start_worker(f.dir, i + 1000, 0);
    }
    atomic_store(&shared->stop, true);
    for (unsigned i = 0; i < WORKERS; i++) {
        int status = -1;
        assert_int_equal(waitpid(pids[i], &status, 0), pids[i]);
        assert_int_equal(status, 0);
    }
    assert_true(shared->right > 0 && shared->kept > 0);
    /* A killed evictor may leave one segment whose marks say too much; never more than that. */
    assert_true(shared->wrong <= kills);

    struct cache *c = open_racing(f.dir);
    for (unsigned n = 0; n < OBJECTS; n++) {
        struct cache_object *o = object(c, n, OBJECT_SIZE);
        for (uint64_t at = 0; at < OBJECT_SIZE; at += 65536) {
            if (check(o, n, at, 65536) > 0)
                cache_forget(o, at, 65536);
            assert_int_not_equal(check(o, n, at, 65536), 1);
        }
        for (uint64_t s = 0; s < OBJECT_SIZE / CACHE_SEGMENT; s++)
            assert_int_equal(cache_claim(o, s), 0); /* nobody holds any */
        cache_object_close(o);
    }
    evict(c);
    disk_use = 0;
    assert_int_equal(nftw(f.dir, add_use, 16, FTW_PHYS), 0);
    uint64_t used = usage(c).used_bytes;
    assert_true(used <= disk_use + MIB && disk_use <= used + MIB);
    cache_close(c);
    shared_release();
    fixture_release(&f);
}

static void test_claim_ends_with_its_process(void **state)
{
    struct fixture f;
    int pipes[2];
    char byte;
    fixture_init(&f);
    assert_int_equal(pipe(pipes), 0);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        struct cache *c = fixture_open(&f, 16 * MIB);
        struct cache_object *o = object(c, 1, 4 * MIB);
        byte = cache_claim(o, 2) == 0 ? 'y' : 'n';
        if (write(pipes[1], &byte, 1) == 1)
            pause();
        _exit(1);
    }
    assert_int_equal(read(pipes[0], &byte, 1), 1);
    assert_int_equal(byte, 'y');
    struct cache *c = fixture_open(&f, 16 * MIB);
    struct cache_object *o = object(c, 1, 4 * MIB);
    assert_int_equal(cache_claim(o, 2), -EBUSY);
    assert_int_equal(cache_claim(o, 1), 0);
    assert_int_equal(kill(pid, SIGKILL), 0);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
    assert_int_equal(cache_claim(o, 2), 0);
    cache_object_close(o);
    cache_close(c);
    close(pipes[0]);
    close(pipes[1]);
    fixture_release(&f);
}

/* ---- disks: each in a child, in a mount namespace of its own ---- */

#define CHILD_SKIP 77
#define REQUIRE(x)                                                                                 \
    do {                                                                                           \
        if (!(x)) {                                                                                \
            print_error("line %d: %s\n", __LINE__, #x);                                            \
            _exit(1);                                                                              \
        }                                                                                          \
    } while (0)

static void in_child(void (*fn)(struct fixture *f), const char *options)
{
    struct fixture f;
    int status = -1;
    fixture_init(&f);
    pid_t pid = fork();

    assert_true(pid >= 0);
    if (pid == 0) {
        if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
            mount("cache", f.dir, "tmpfs", 0, options) < 0)
            _exit(CHILD_SKIP);
        fn(&f);
        _exit(0);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    fixture_release(&f);
    if (WIFEXITED(status) && WEXITSTATUS(status) == CHILD_SKIP) {
        print_message("a tmpfs cannot be mounted here\n");
        skip();
    }
    assert_int_equal(status, 0);
}

static int fill_disk(struct fixture *f, char path[static 128])
{
    static uint8_t data[65536];

    (void)snprintf(path, 128, "%s/foreign", f->dir);
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    REQUIRE(fd >= 0);
    ssize_t n;
    while ((n = write(fd, data, sizeof data)) > 0)
        continue;
    REQUIRE(n < 0 && errno == ENOSPC);
    return fd;
}

/* Until the evictor's thread sleeps. */
static void quiet(struct cache *c)
{
    for (bool busy = true; busy;) {
        env_real()->sleep_ms(env_real(), 5);
        WITH_LOCK(&c->account_lock);
        busy = c->evict_wanted || c->evicting;
    }
}

static void child_full(struct fixture *f)
{
    char path[128];
    struct cache *c = fixture_open(f, 64 * MIB);
    struct cache_object *o = object(c, 1, 16 * MIB), *p = object(c, 2, MIB);

    REQUIRE(put(o, 1, 0, 2 * MIB) == 0);
    quiet(c);
    int fd = fill_disk(f, path);
    REQUIRE(put(o, 1, 2 * MIB, 2 * MIB) == -ENOSPC); /* the clock stands: nobody has looked */
    REQUIRE(usage(c).errors == 1);
    REQUIRE(cache_claim(p, 0) == 0);
    REQUIRE(check(o, 1, 0, 2 * MIB) <= 0); /* right, or gone to make room */
    fixture_wait(f, 2);
    (void)put(o, 1, 4 * MIB, MIB); /* into what was evicted, or not */
    REQUIRE(check(o, 1, 0, 2 * MIB) <= 0);
    REQUIRE(check(o, 1, 4 * MIB, MIB) <= 0);
    close(fd);
    REQUIRE(unlink(path) == 0);
    int r = -1;
    for (int i = 0; i < 200 && r < 0; i++) { /* well again, without anybody's help */
        fixture_wait(f, 100);
        r = put(o, 1, 4 * MIB, MIB);
        env_real()->sleep_ms(env_real(), 5);
    }
    REQUIRE(r == 0);
    REQUIRE(!usage(c).failing);
    REQUIRE(check(o, 1, 4 * MIB, MIB) == 0);
    cache_object_close(o);
    cache_object_close(p);
    cache_close(c);
}

static void test_full(void **state)
{
    in_child(child_full, "size=8m");
}

/* Somebody else fills the disk: the cache gives way, and what it keeps free stays free. */
static void child_gives_way(struct fixture *f)
{
    struct cache_options options = {
        .dir = f->dir, .size_bytes = 64 * MIB, .keep_free_bytes = 4 * MIB, .env = &f->env};
    struct cache *c;
    char path[128];

    REQUIRE(cache_open(&options, &c, NULL) == 0);
    struct cache_object *o = object(c, 1, 32 * MIB);
    for (uint64_t at = 0; at < 32 * MIB; at += MIB)
        (void)put(o, 1, at, MIB); /* as much as there is room for */
    uint64_t before = usage(c).used_bytes;
    REQUIRE(before > 8 * MIB && before <= 12 * MIB);
    int fd = fill_disk(f, path);
    fixture_wait(f, 10);
    evict(c);
    fixture_wait(f, 10);
    evict(c);
    REQUIRE(usage(c).used_bytes + 3 * MIB < before);
    REQUIRE(usage(c).used_bytes <= usage(c).limit_bytes);
    close(fd);
    cache_object_close(o);
    cache_close(c);
}

static void test_gives_way(void **state)
{
    in_child(child_gives_way, "size=16m");
}

static void child_no_inodes(struct fixture *f)
{
    struct cache *c = fixture_open(f, 64 * MIB);
    struct cache_object *o[16];
    int failed = 0;

    for (unsigned i = 0; i < 16; i++) {
        o[i] = object(c, i, MIB);
        failed += put(o[i], i, 0, MIB) == -ENOSPC;
    }
    REQUIRE(failed > 0);
    REQUIRE(usage(c).failing);
    REQUIRE(check(o[0], 0, 0, MIB) == 0);
    for (unsigned i = 0; i < 16; i++)
        cache_object_close(o[i]);
    cache_close(c);
}

static void test_no_inodes(void **state)
{
    in_child(child_no_inodes, "size=32m,nr_inodes=12");
}

static void child_read_only(struct fixture *f)
{
    struct cache *c = fixture_open(f, 64 * MIB);
    struct cache_object *o = object(c, 1, 2 * MIB);

    REQUIRE(put(o, 1, 0, MIB) == 0);
    cache_object_close(o);
    cache_close(c);
    REQUIRE(mount("cache", f->dir, "tmpfs", MS_REMOUNT | MS_RDONLY, NULL) == 0);
    c = fixture_open(f, 64 * MIB); /* what is there is used */
    o = object(c, 1, 2 * MIB);
    fixture_wait(f, 100);
    REQUIRE(check(o, 1, 0, MIB) == 0);
    REQUIRE(put(o, 1, MIB, MIB) < 0);
    REQUIRE(usage(c).failing);
    REQUIRE(check(o, 1, 0, MIB) == 0);
    REQUIRE(cache_claim(o, 1) == 0);
    cache_forget(o, 0, 512);
    struct cache_object *p = object(c, 2, MIB);
    REQUIRE(put(p, 2, 0, MIB) < 0);
    REQUIRE(check(p, 2, 0, MIB) == -ENODATA);
    cache_object_close(p);
    cache_object_close(o);
    REQUIRE(mount("cache", f->dir, "tmpfs", MS_REMOUNT, NULL) == 0);
    o = object(c, 1, 2 * MIB);
    fixture_wait(f, 1000);
    REQUIRE(put(o, 1, MIB, MIB) == 0);
    REQUIRE(!usage(c).failing);
    cache_object_close(o);
    cache_close(c);
}

static void test_read_only(void **state)
{
    in_child(child_read_only, "size=8m");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_threads),   cmocka_unit_test(test_processes),
        cmocka_unit_test(test_killed),    cmocka_unit_test(test_claim_ends_with_its_process),
        cmocka_unit_test(test_full),      cmocka_unit_test(test_gives_way),
        cmocka_unit_test(test_no_inodes), cmocka_unit_test(test_read_only),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
