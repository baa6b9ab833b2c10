/* SPDX-License-Identifier: Apache-2.0 */
/*
 * URLs: taken apart, without their secrets, and led on by redirects. Inside archive/ only.
 */
#ifndef ARCHIVE_ARCHIVE_URL_H
#define ARCHIVE_ARCHIVE_URL_H

#include "base/err.h"
#include "http/http.h"

#include <stdbool.h>

struct url {
    char request[HTTP_URL_MAX]; /* without user, password and fragment */
    char origin[512];           /* "https://host:port", lower case: who may see the password */
    char basic[1024];           /* value of Authorization; empty: none */
    bool is_https;
};

/* -EINVAL with a sentence, which does not repeat secrets. */
int url_parse(const char *text, struct url *ret, struct err *err);
/* "https://host/path": what may be shown and recorded. */
void url_redact(const struct url *u, char *ret, size_t size);
/* Where `location` leads from `from`: -EPROTO with a sentence if nobody should go there. */
int url_redirect(const struct url *from, const char *location, struct url *ret, struct err *err);

#endif
