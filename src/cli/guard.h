/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The guard of a server process: holds the version that is served, on a thread of its own, so that
 * nobody deletes it meanwhile; and tells what it knows.
 */
#ifndef CLI_GUARD_H
#define CLI_GUARD_H

#include "catalogue/catalogue.h"

#include <sys/types.h>

struct guard;

/* Hold `info`, for `text` ("run r1"), in the name of `owner`: this process, or its parent, if that
 * lives as long as the mount; when it dies, in our own. What protects the version is written beside
 * the owner's record of the mount. `required`: unprotected is an error. */
int guard_new(struct catalogue *c, const struct version_info *info, const char *text, bool required,
              pid_t owner, struct guard **ret, struct err *err);
/* Let go of it. NULL is fine. */
void guard_free(struct guard *g);
AUTO_FREE_FUNC(struct guard, guard_free);

#endif
