/* SPDX-License-Identifier: Apache-2.0 */
/*
 * SOURCE as a word: which kind it is, and opening it, for `create` and for `resume`.
 */
#include "cli/cmd-create.h"

#include <string.h>

bool source_is_url(const char *text)
{
    return strncmp(text, "http://", 7) == 0 || strncmp(text, "https://", 8) == 0;
}

bool source_is_bucket(const char *text)
{
    return strncmp(text, "s3://", 5) == 0;
}

int source_choose(struct cli *cli, const char *text, struct source **ret, struct err *err)
{
    if (source_is_bucket(text) || source_is_url(text))
        return err_fail(err, -EINVAL,
                        "%s sources are not supported by this version of grid; give a directory "
                        "instead of %s",
                        text[0] == 's' ? "S3" : "HTTP", text);
    return source_directory_open(text, ret, err);
}
