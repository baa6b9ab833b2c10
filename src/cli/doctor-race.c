/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Does a directory keep put-if-absent between two processes? Two of them race for one key, many
 * times, each with a store of its own, meeting before each round.
 *
 * They work in a directory of their own on the same file system, under a name that no key can have,
 * so readers and collectors pass it over. Does not: involve a second host; only the file system's
 * kind says what is promised there.
 */
#include "cli/cli-internal.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define RACERS 2u
/* A racer whose mate has died gives up. */
#define MEET_MAX_MS 10000

struct race {
    _Atomic unsigned arrived; /* in all rounds together */
    int results[RACE_ROUNDS][RACERS];
};

static bool meet(struct race *race, unsigned round)
{
    struct env *env = env_real();
    int64_t start = env->boot_ms(env);

    race->arrived++;
    while (race->arrived < (round + 1) * RACERS) {
        if (env->boot_ms(env) - start > MEET_MAX_MS)
            return false;
    }
    return true;
}

static void race_key(unsigned round, char ret[static 16])
{
    (void)snprintf(ret, 16, "r%u", round);
}

/* In a process of its own; gives its exit code. */
static int run_racer(struct race *race, const char *root, unsigned flags, unsigned number)
{
    AUTO(store_close) struct store *s = NULL;
    char key[16], body[2] = {(char)('a' + number), '\0'};

    int r = store_open(root, flags, &s, NULL);
    for (unsigned round = 0; round < RACE_ROUNDS; round++) {
        race_key(round, key);
        if (!meet(race, round))
            return 1;
        race->results[round][number] = r < 0 ? r : store_put_if_absent(s, key, bytes_str(body));
    }
    return r < 0;
}

static int judge(const struct race *race, struct store *s, const char *root, struct err *err)
{
    char key[16], body;
    size_t got;

    for (unsigned round = 0; round < RACE_ROUNDS; round++) {
        int a = race->results[round][0], b = race->results[round][1];
        bool one = (a == 0 && b == -EEXIST) || (b == 0 && a == -EEXIST);
        if (!one && ((a < 0 && a != -EEXIST) || (b < 0 && b != -EEXIST)))
            return err_fail(err, a < 0 && a != -EEXIST ? a : b, "cannot write to %s: %s", root,
                            strerror(a < 0 && a != -EEXIST ? -a : -b));
        race_key(round, key);
        int r = store_get(s, key, 0, &body, 1, &got, NULL);
        if (r < 0)
            return err_fail(err, r, "cannot read what was just written to %s: %s", root,
                            strerror(-r));
        if (!one || got != 1 || body != (a == 0 ? 'a' : 'b'))
            return err_fail(err, -EOPNOTSUPP,
                            "%s must not be written to: of two processes that wrote one new key at "
                            "the same time not exactly one won",
                            root);
    }
    return 0;
}

static int run_race(struct race *race, const char *root, unsigned flags, struct err *err)
{
    AUTO(store_close) struct store *s = NULL;
    pid_t pids[RACERS];
    unsigned started = 0;
    int status, r = store_open(root, flags, &s, err);

    if (r < 0)
        return r;
    for (; started < RACERS && r == 0; started++) {
        pids[started] = fork();
        if (pids[started] == 0)
            _exit(run_racer(race, root, flags, started));
        if (pids[started] < 0)
            r = -errno;
    }
    for (unsigned i = 0; i < started; i++) {
        if (pids[i] > 0 && (waitpid(pids[i], &status, 0) < 0 || status != 0) && r == 0)
            r = -EIO;
    }
    if (r == 0)
        r = judge(race, s, root, err);
    for (unsigned round = 0; round < RACE_ROUNDS; round++) {
        char key[16];
        race_key(round, key);
        (void)store_remove(s, key); /* what stays is passed over by everybody */
    }
    return r < 0 ? err_fail(err, r, "the processes that try out %s failed: %s", root, strerror(-r))
                 : 0;
}

int race_two_processes(const char *root, bool coherent, struct err *err)
{
    char path[4200];
    int n = snprintf(path, sizeof path, "%s/.doctor-XXXXXX", root);

    if (n < 0 || (size_t)n >= sizeof path)
        return err_fail(err, -ENAMETOOLONG, "%.200s...: the path is too long", root);
    if (!mkdtemp(path))
        return err_fail(err, -errno, "cannot write to %s: %s", root, strerror(errno));
    struct race *race =
        mmap(NULL, sizeof *race, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    int r = race == MAP_FAILED
                ? err_fail(err, -ENOMEM, "out of memory")
                : run_race(race, path, STORE_WRITE | (coherent ? STORE_COHERENT : 0u), err);
    if (race != MAP_FAILED)
        (void)munmap(race, sizeof *race); /* our own mapping: cannot fail */
    (void)snprintf(path + n, sizeof path - (size_t)n, "/.tmp");
    (void)rmdir(path); /* there only where files without names are not */
    path[n] = '\0';
    (void)rmdir(path); /* what stays is passed over by everybody */
    return r;
}
