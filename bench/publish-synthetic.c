/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Publishes a generated tree into a directory store, so that trees of millions of files can be
 * measured without making them on a disk first. Prints one line of JSON.
 *
 *   publish-synthetic STORE NAME FILES PER_DIRECTORY SIZE_MIN SIZE_MAX [GENERATION CHANGED_PERCENT]
 */
#include "catalogue/catalogue.h"
#include "publish/publish.h"
#include "source/source.h"
#include "store/store.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>

static int run(char **argv, int argc, struct err *err)
{
    AUTO(store_close) struct store *store = NULL;
    AUTO(catalogue_close) struct catalogue *catalogue = NULL;
    AUTO(source_close) struct source *source = NULL;
    struct publish_result result;
    struct rusage usage;
    struct source_synthetic_options options = {
        .files = strtoull(argv[3], NULL, 10),
        .per_directory = strtoull(argv[4], NULL, 10),
        .size_min = strtoull(argv[5], NULL, 10),
        .size_max = strtoull(argv[6], NULL, 10),
        .generation = argc > 7 ? (uint32_t)strtoul(argv[7], NULL, 10) : 0,
        .changed_percent = argc > 8 ? (uint32_t)strtoul(argv[8], NULL, 10) : 0,
    };
    struct publish_options publish = {
        .name = argv[2], .owner = "bench", .host = "bench", .state_dir = getenv("GRID_CACHE")};

    int r = store_open(argv[1], STORE_WRITE, &store, err);
    if (r == 0)
        r = catalogue_open(store, env_real(), CATALOGUE_WRITE, &catalogue, err);
    if (r == 0)
        r = source_synthetic_new(&options, &source);
    if (r == 0)
        r = publish_run(catalogue, source, &publish, &result, err);
    if (r < 0)
        return r;
    (void)getrusage(RUSAGE_SELF, &usage);
    (void)printf("{\"version\": %" PRIu32 ", \"files\": %" PRIu64 ", \"index_bytes\": %" PRIu64
                 ", \"bytes_stored\": %" PRIu64 ", \"packs_written\": %" PRIu64
                 ", \"packs_reused\": %" PRIu64 ", \"peak_rss_kib\": %ld, \"cpu_s\": %.2f}\n",
                 result.info.version, result.info.files, result.info.index_size,
                 result.bytes_stored, result.packs_written, result.packs_reused, usage.ru_maxrss,
                 (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
                     (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6);
    return 0;
}

int main(int argc, char **argv)
{
    struct err err = ERR_INIT;

    if (argc < 7) {
        (void)fprintf(stderr, "usage: publish-synthetic STORE NAME FILES PER_DIRECTORY SIZE_MIN "
                              "SIZE_MAX [GENERATION CHANGED_PERCENT]\n");
        return 2;
    }
    int r = run(argv, argc, &err);
    if (r < 0)
        (void)fprintf(stderr, "publish-synthetic: %s\n", err_text(&err, r));
    return r < 0;
}
