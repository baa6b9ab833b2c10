/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Runs a fuzz target on given inputs, where libFuzzer is not linked.
 *
 * Arguments are files, or directories whose files are taken. Prints how many inputs were run, and
 * fails if there were none, so that a lost corpus is noticed.
 */
#include "fuzz-target.h"

#include "base/cleanup.h"
#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>

#define INPUT_MAX (64u << 20)

static unsigned long inputs;

static int run_file(int dirfd, const char *path)
{
    AUTO(buf_release) struct buf b = BUF_INIT(INPUT_MAX);
    int r = file_slurp(dirfd, path, &b);

    if (r < 0) {
        (void)fprintf(stderr, "%s: error %d\n", path, -r);
        return r;
    }
    (void)LLVMFuzzerTestOneInput(b.size ? b.data : (const uint8_t *)"", b.size);
    inputs++;
    return 0;
}

static int run_directory(const char *path)
{
    AUTO(close_dir) DIR *d = opendir(path);
    int r = 0;

    if (!d)
        return -errno;
    for (const struct dirent *e; r == 0 && (e = readdir(d));) {
        if (e->d_name[0] != '.')
            r = run_file(dirfd(d), e->d_name);
    }
    return r;
}

int main(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        struct stat st;
        int r = stat(argv[i], &st) < 0 ? -errno : 0;

        if (r == 0)
            r = S_ISDIR(st.st_mode) ? run_directory(argv[i]) : run_file(AT_FDCWD, argv[i]);
        if (r < 0) {
            (void)fprintf(stderr, "%s: cannot be read (error %d)\n", argv[i], -r);
            return 1;
        }
    }
    (void)printf("%lu inputs run\n", inputs);
    return inputs ? 0 : 1;
}
