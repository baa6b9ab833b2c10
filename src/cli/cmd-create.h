/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What `create` and `resume` share: a publish with its progress, notices and last words.
 */
#ifndef CLI_CMD_CREATE_H
#define CLI_CMD_CREATE_H

#include "cli/cli-internal.h"

#include "publish/publish.h"

/* create-source.c */
bool source_is_url(const char *text);    /* http:// or https:// */
bool source_is_bucket(const char *text); /* s3:// */
/* A source as it was asked for; NULL where nothing was said. */
struct source_choice {
    const char *location;
    const char *endpoint, *region, *profile; /* of a bucket */
    const char *terms;                       /* of an earlier opening, in place of these */
    bool pins;                               /* of a bucket: as in struct source_s3_options */
};
/* Opens the source, whichever kind it is. */
int source_choose(struct cli *cli, const struct source_choice *c, struct source **ret,
                  struct err *err);

/* What its failure was; gives an exit code. */
int say_source_failed(const struct err *err, int code);

/* create-bucket.c */
int source_open_bucket(struct cli *cli, const struct source_choice *c, struct source **ret,
                       struct err *err);
/* Is the store in this bucket, and one below the other's prefix? */
bool source_overlaps_store(const struct cli *cli, struct source *source);

/* `options` has name and what the user chose; the rest is filled in. Gives an exit code, after a
 * sentence or the result. */
int publish_and_tell(struct cli *cli, struct opened *o, struct source *source,
                     struct publish_options *options, bool json);

#endif
