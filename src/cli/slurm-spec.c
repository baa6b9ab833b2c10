/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which datastore a job means, and whom the administrator's list lets read it.
 */
#include "cli/slurm.h"

#include "base/name.h"

#include <grp.h>
#include <pwd.h>
#include <string.h>

/* Groups of one user; more are not looked at. */
#define GROUPS_MAX 1024

int spec_parse(const char *text, struct spec *ret, struct err *err)
{
    struct spec s = {.version = 0};
    size_t length = strcspn(text, "@");
    char reference[160];
    const char *path = "", *name = reference;

    if (length >= sizeof reference)
        return err_fail(err, -EINVAL, "'%.100s...' is no name of a datastore: it is too long",
                        text);
    memcpy(reference, text, length);
    reference[length] = '\0';
    if (text[length] == '@') {
        s.directory = text + length + 1;
        if (s.directory[0] != '/')
            return err_fail(err, -EINVAL,
                            "in '%.200s' the directory behind '@' must be an absolute path", text);
    }
    char *slash = strchr(reference, '/');
    if (slash) {
        *slash = '\0';
        if (!name_is_valid(reference))
            return err_fail(err, -EINVAL, "'%.100s' is no name of a cluster", reference);
        (void)snprintf(s.cluster, sizeof s.cluster, "%.63s", reference);
        name = slash + 1;
    }
    int r = reference_parse(name, s.name, &s.version, &path, err);
    if (r == 0 && *path)
        r = err_fail(err, -EINVAL, "'%.200s' names a file; a job gets a whole datastore", text);
    if (r == 0)
        *ret = s;
    return r;
}

static bool is_in_group(const char *name, const gid_t *groups, int count)
{
    const struct group *g = getgrnam(name);

    for (int i = 0; g && i < count; i++) {
        if (groups[i] == g->gr_gid)
            return true;
    }
    return false;
}

bool cluster_is_open_to(const struct cluster *c, uid_t uid)
{
    const struct passwd *pw = c->users ? getpwuid(uid) : NULL;
    AUTO(free_ptr) char *list = pw ? strdup(c->users) : NULL;
    gid_t groups[GROUPS_MAX];
    int count = GROUPS_MAX;
    char *save = NULL, user[256];

    if (!list || (size_t)snprintf(user, sizeof user, "%s", pw->pw_name) >= sizeof user)
        return false;
    if (getgrouplist(user, pw->pw_gid, groups, &count) < 0)
        count = GROUPS_MAX;
    for (char *word = strtok_r(list, ", \t", &save); word; word = strtok_r(NULL, ", \t", &save)) {
        if (word[0] == '@' ? is_in_group(word + 1, groups, count) : strcmp(word, user) == 0)
            return true;
    }
    return false;
}
