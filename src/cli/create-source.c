/* SPDX-License-Identifier: Apache-2.0 */
/*
 * SOURCE as a word: which kind it is, and opening it, for `create` and for `resume`.
 */
#include "cli/cmd-create.h"

#include "archive/archive.h"

#include <stdlib.h>
#include <string.h>

bool source_is_url(const char *text)
{
    return strncmp(text, "http://", 7) == 0 || strncmp(text, "https://", 8) == 0;
}

bool source_is_bucket(const char *text)
{
    return strncmp(text, "s3://", 5) == 0;
}

int source_choose(struct cli *cli, const struct source_choice *c, struct source **ret,
                  struct err *err)
{
    if (source_is_bucket(c->location))
        return source_open_bucket(cli, c, ret, err);
    if (c->endpoint || c->region || c->profile)
        return err_fail(err, -EINVAL,
                        "--source-endpoint, --source-region and --source-profile are for buckets: "
                        "%s is none",
                        c->location);
    if (source_is_url(c->location)) {
        struct archive_options o = {.ca_file = getenv("SSL_CERT_FILE"),
                                    .interrupted = &interrupt_signal};
        interrupt_catch();
        return archive_open(c->location, &o, ret, err);
    }
    return source_directory_open(c->location, ret, err);
}

int say_source_failed(const struct err *err, int code)
{
    (void)say_err(err, code); /* it says "interrupted" too */
    return interrupt_signal ? 128 + interrupt_signal : CLI_FAILED;
}
