/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Clients for the sources of linked versions, with credentials that open them; one a place, for the
 * life of what was opened.
 */
#ifndef CLI_LINKING_H
#define CLI_LINKING_H

#include "base/cleanup.h"
#include "fetch/fetch.h"
#include "link/link.h"
#include "s3/s3.h"

struct linking_clients;

struct linking_clients *linking_clients_new(void); /* NULL: no memory */
void linking_clients_free(struct linking_clients *l);

/* A fetch_source_fn; `ctx` is the struct linking_clients. `key` NULL: to list the place. */
int linking_open(void *ctx, const struct link_place *place, const char *key, struct s3 **ret,
                 struct err *err);

#endif
