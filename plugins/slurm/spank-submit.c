/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where a job or step is submitted: the options, and `grid slurm check` as the user who submits, so
 * that a wrong name fails here and not hours later; it also settles the versions, so that all nodes
 * and steps see the same. They travel in an environment variable.
 */
#include "spank-grid.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define SPECS_COUNT_MAX 64

static const char *specs[SPECS_COUNT_MAX];
static size_t spec_count;

int submit_add(const char *spec)
{
    if (!spec || !*spec || strpbrk(spec, ",\n")) {
        slurm_error("grid: --datastore=NAME[:N][@DIR], not '%s'", spec ? spec : "");
        return -1;
    }
    for (size_t i = 0; i < spec_count; i++) {
        if (strcmp(specs[i], spec) == 0)
            return 0; /* sbatch may look at its options twice */
    }
    if (spec_count == SPECS_COUNT_MAX) {
        slurm_error("grid: more than %d datastores", SPECS_COUNT_MAX);
        return -1;
    }
    specs[spec_count] = strdup(spec);
    return specs[spec_count++] ? 0 : -1;
}

/* Where a spec's datastore is seen; *ret_length. */
static const char *place_of(const char *spec, size_t length, size_t *ret_length)
{
    const char *at = memchr(spec, '@', length), *start = spec;

    if (at) {
        *ret_length = length - (size_t)(at + 1 - spec);
        return at + 1;
    }
    const char *slash = memchr(spec, '/', length);
    if (slash)
        start = slash + 1;
    const char *colon = memchr(start, ':', length - (size_t)(start - spec));
    *ret_length = (colon ? colon : spec + length) != start
                      ? (size_t)((colon ? colon : spec + length) - start)
                      : 0;
    return start;
}

/* Is there one among `fresh` (separated by commas) for the same place? */
static bool is_replaced(const char *spec, size_t length, const char *fresh)
{
    size_t place_length, other_length;
    const char *place = place_of(spec, length, &place_length);

    while (*fresh) {
        size_t n = strcspn(fresh, ",");
        const char *other = place_of(fresh, n, &other_length);
        if (other_length == place_length && memcmp(other, place, place_length) == 0)
            return true;
        fresh += n + (fresh[n] == ',');
    }
    return false;
}

/* What the job has, but for the places that this step fills anew, and what was asked for here. */
static int publish(const char *fresh)
{
    const char *old = getenv(SPECS_VARIABLE);
    size_t size = (old ? strlen(old) : 0) + strlen(fresh) + 2;
    char *all = malloc(size);
    size_t at = 0;

    if (!all || size > SPECS_MAX) {
        free(all);
        slurm_error("grid: too many datastores");
        return -1;
    }
    while (old && *old) {
        size_t n = strcspn(old, ",");
        if (!is_replaced(old, n, fresh)) {
            memcpy(all + at, old, n);
            at += n;
            all[at++] = ',';
        }
        old += n + (old[n] == ',');
    }
    memcpy(all + at, fresh, strlen(fresh) + 1);
    int r = setenv(SPECS_VARIABLE, all, 1);
    free(all);
    return r;
}

int submit_check(spank_t sp)
{
    static char output[SPECS_MAX];
    char said[1];
    char *argv[SPECS_COUNT_MAX + 4] = {(char *)"grid", (char *)"slurm", (char *)"check"};
    struct helper h;

    (void)sp;
    if (spec_count == 0)
        return 0;
    for (size_t i = 0; i < spec_count; i++)
        argv[3 + i] = (char *)specs[i];
    if (helper_start(&h, argv, NULL) < 0) {
        slurm_error("grid: cannot start %s: %s", settings.grid, strerror(errno));
        return -1;
    }
    bool in_time = helper_talk(&h, NULL, 0, false, output, sizeof output, said, sizeof said);
    int code = helper_end(&h);
    if (!in_time)
        slurm_error("grid: the datastores could not be looked up within %u s", settings.timeout_s);
    if (!in_time || code != 0)
        return -1; /* it has said why */
    size_t n = strlen(output);
    while (n > 0 && output[n - 1] == '\n')
        output[--n] = '\0';
    for (char *p = output; *p; p++) {
        if (*p == '\n')
            *p = ',';
    }
    return publish(output);
}
