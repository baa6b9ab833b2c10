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
/* Opens the source that `text` names, whichever kind it is. */
int source_choose(struct cli *cli, const char *text, struct source **ret, struct err *err);

/* `options` has name and what the user chose; the rest is filled in. Gives an exit code, after a
 * sentence or the result. */
int publish_and_tell(struct cli *cli, struct opened *o, struct source *source,
                     struct publish_options *options, bool json);

#endif
