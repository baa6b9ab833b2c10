/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Opens, reads and closes (or stats) every file of a list, in a shuffled or the given order, and
 * prints microseconds per file, for one or several passes.
 *
 *   read-files [-s] [-o] [-p PASSES] DIR < LIST        -s stat only, -o keep the order
 *
 * LIST: paths below DIR, one a line. The shuffle is the same at every run.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static double now(void)
{
    struct timespec t;

    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void shuffle(char **paths, size_t count)
{
    uint64_t x = 88172645463325252u;

    for (size_t i = count; i > 1; i--) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        size_t j = x % i;
        char *t = paths[i - 1];
        paths[i - 1] = paths[j];
        paths[j] = t;
    }
}

static uint64_t read_one(const char *path)
{
    static char data[1 << 20];
    uint64_t sum = 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd < 0) {
        (void)fprintf(stderr, "%s: %s\n", path, strerror(errno));
        exit(1);
    }
    for (;;) {
        ssize_t n = read(fd, data, sizeof data);
        if (n < 0) {
            (void)fprintf(stderr, "%s: %s\n", path, strerror(errno));
            exit(1);
        }
        if (n == 0)
            break;
        sum += (uint64_t)n;
    }
    (void)close(fd);
    return sum;
}

static uint64_t stat_one(const char *path)
{
    struct stat st;

    if (lstat(path, &st) < 0) {
        (void)fprintf(stderr, "%s: %s\n", path, strerror(errno));
        exit(1);
    }
    return (uint64_t)st.st_size;
}

int main(int argc, char **argv)
{
    int only_stat = 0, keep_order = 0, passes = 1, c;
    char **paths = NULL, *line = NULL;
    size_t count = 0, room = 0, line_room = 0;
    ssize_t n;

    while ((c = getopt(argc, argv, "sop:")) != -1) {
        if (c == 's')
            only_stat = 1;
        else if (c == 'o')
            keep_order = 1;
        else if (c == 'p')
            passes = (int)strtol(optarg, NULL, 10);
        else
            return 2;
    }
    if (optind >= argc || chdir(argv[optind]) < 0) {
        (void)fprintf(stderr, "usage: read-files [-s] [-o] [-p PASSES] DIR < LIST\n");
        return 2;
    }
    while ((n = getline(&line, &line_room, stdin)) > 0) {
        if (line[n - 1] == '\n')
            line[n - 1] = '\0';
        if (count == room) {
            room = room ? room * 2 : 1024;
            paths = realloc(paths, room * sizeof *paths);
            if (!paths)
                return 1;
        }
        paths[count++] = strdup(line);
    }
    if (!keep_order)
        shuffle(paths, count);
    for (int pass = 0; pass < passes; pass++) {
        uint64_t sum = 0;
        double start = now();
        for (size_t i = 0; i < count; i++)
            sum += only_stat ? stat_one(paths[i]) : read_one(paths[i]);
        (void)printf("%.3f us/file, %zu files, %llu bytes\n",
                     (now() - start) * 1e6 / (double)(count ? count : 1), count,
                     (unsigned long long)sum);
    }
    return 0;
}
