/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where things are: the environment's word, else the XDG directories, else the system's for root.
 *
 * As the XDG specification says, a relative path in an XDG variable counts as if it were unset. Our
 * own variables are an error then: a cache that depends on the working directory is a mistake.
 */
#include "cli/cli-internal.h"

#include <pwd.h>
#include <stdlib.h>
#include <string.h>

#ifndef GRID_SYSCONFDIR
#define GRID_SYSCONFDIR "/etc"
#endif

static const char *environment(const char *name)
{
    const char *value = getenv(name);
    return value && *value ? value : NULL;
}

/* $HOME, or what the user database says. */
static const char *home(void)
{
    const char *value = environment("HOME");

    if (value && *value == '/')
        return value;
    const struct passwd *pw = getpwuid(geteuid());
    return pw && pw->pw_dir && *pw->pw_dir == '/' ? pw->pw_dir : NULL;
}

/* "$XDG_.../grid" or "$HOME/<below>/grid", with `end` behind it. */
static char *xdg(const char *variable, const char *below, const char *end)
{
    const char *base = environment(variable), *user = home();
    char *path = NULL;
    int n = -1;

    if (base && *base == '/')
        n = asprintf(&path, "%s/grid%s", base, end);
    else if (user)
        n = asprintf(&path, "%s/%s/grid%s", user, below, end);
    return n < 0 ? NULL : path;
}

static int find_cache(struct places *p, struct err *err)
{
    const char *given = environment("GRID_CACHE");

    if (given && *given != '/')
        return err_fail(err, -EINVAL, "GRID_CACHE must be an absolute path, not '%s'", given);
    p->cache = given            ? strdup(given)
               : geteuid() == 0 ? strdup("/var/cache/grid")
                                : xdg("XDG_CACHE_HOME", ".cache", "");
    return 0;
}

static int find_store(struct places *p, struct err *err)
{
    const char *given = environment("GRID_STORE");

    p->store_is_given = given != NULL;
    if (given) {
        p->store = strdup(given);
    } else if (geteuid() == 0) {
        p->store = strdup("file:///var/lib/grid/store");
    } else {
        AUTO(free_ptr) char *path = xdg("XDG_DATA_HOME", ".local/share", "/store");
        if (path && asprintf(&p->store, "file://%s", path) < 0)
            p->store = NULL;
    }
    return p->store
               ? 0
               : err_fail(err, -ENOENT, "there is no place for a store: set HOME or GRID_STORE");
}

int places_find(struct places *ret, struct err *err)
{
    struct places p = {0};
    int r = find_store(&p, err);

    if (r == 0)
        r = find_cache(&p, err);
    const char *system_config = environment("GRID_CONFIG_SYSTEM");
    p.system_config_is_given = system_config != NULL;
    p.system_config = strdup(system_config ? system_config : GRID_SYSCONFDIR "/grid/config");
    p.user_config = xdg("XDG_CONFIG_HOME", ".config", "/config");
    if (r == 0 && (!p.cache || !p.system_config || !p.user_config))
        r = err_fail(err, -ENOENT, "there is no place for files: set HOME");
    if (r < 0)
        places_release(&p);
    else
        *ret = p;
    return r;
}

void places_release(struct places *p)
{
    free(p->store);
    free(p->cache);
    free(p->system_config);
    free(p->user_config);
    memset(p, 0, sizeof *p);
}
