/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The guard of a server process: while there are jobs it holds the version that is served, on a
 * thread of its own, so that nobody deletes it meanwhile; and tells what it knows.
 */
#ifndef CLI_GUARD_H
#define CLI_GUARD_H

#include "catalogue/catalogue.h"

#include <sys/types.h>

struct guard;

/* In the name of `owner`: this process, or its parent, if that lives as long as the mount; when it
 * dies, in our own. What protects the version is written beside the owner's record. Holds nothing
 * yet. */
int guard_new(struct catalogue *c, const struct version_info *info, pid_t owner, struct guard **ret,
              struct err *err);
/* Let go of it. NULL is fine. */
void guard_free(struct guard *g);
AUTO_FREE_FUNC(struct guard, guard_free);

/* A job, "run r1": the first one has the version held before this comes back; further ones are
 * named soon. `required`: unprotected is an error. Joins and leaves come from one thread. */
int guard_join(struct guard *g, const char *text, pid_t pid, bool required, uint64_t *ret_id,
               struct err *err);
/* A job that was joined for somebody who was yet to come: it is theirs now, if it is named so and
 * held. False: join, and have it leave. */
bool guard_take(struct guard *g, uint64_t id, const char *text, pid_t pid);
/* The last one has the version released before this comes back. */
void guard_leave(struct guard *g, uint64_t id);
/* After the joins of a process that follows a dead one of the same owner: its lease goes. */
void guard_settle(struct guard *g);
/* Whether it is unprotected, and the sentence for those who attach. */
bool guard_is_unprotected(struct guard *g, struct err *ret_why);

#endif
