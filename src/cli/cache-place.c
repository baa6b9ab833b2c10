/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which disk cache belongs to a store: the user's, unless the store itself lies on this machine's
 * disk. Packs there are read where they lie; a second copy would only cost.
 */
#include "cli/cli-internal.h"

#include <stdlib.h>
#include <string.h>

/* Less than a few segments keeps nothing that is found again. */
#define SIZE_MIN (UINT64_C(16) << 20)

int cache_place_parse(const char *text, struct cache_place *place)
{
    uint64_t size;

    if (strcmp(text, "none") == 0 || strcmp(text, "0") == 0) {
        place->off = true;
        return 0;
    }
    if (parse_bytes(text, &size) < 0 || size < SIZE_MIN || size > UINT64_C(1) << 60)
        return -EINVAL;
    place->off = false;
    place->size_bytes = size;
    return 0;
}

int cache_place_choose(const struct cli *cli, const struct args *args, struct cache_place *ret)
{
    struct cache_place place = {.dir = cli->places.cache};
    const char *given = getenv("GRID_CACHE_SIZE"),
               *option = args ? args_text(args, "--cache-size") : NULL;

    if (given && *given && cache_place_parse(given, &place) < 0)
        return say_failed("GRID_CACHE_SIZE is a size from 16M, or none, not '%s'", given);
    if (option && cache_place_parse(option, &place) < 0)
        return say_usage(args->command, "--cache-size is a size from 16M, or none, not '%s'",
                         option);
    *ret = place;
    return CLI_DONE;
}

bool cache_place_is_wanted(const struct cache_place *place, struct store *store)
{
    return place->dir && !place->off && !store_is_quick(store);
}

int cache_place_open(const struct cache_place *place, struct cache **ret, struct err *err)
{
    struct cache_options options = {.dir = place->dir, .size_bytes = place->size_bytes};

    return cache_open(&options, ret, err);
}
