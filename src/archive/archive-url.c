/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The few things that have to be known of a URL. What is sent is the user's own text, but for user
 * and password, which become a header for that origin alone.
 *
 * Redirects lead to http and https only, never from https to http, and take a password along only
 * within the same scheme, host and port.
 */
#include "archive/archive-url.h"

#include "archive/archive.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

static bool is_plain(const char *text)
{
    for (; *text; text++) {
        if ((unsigned char)*text <= 0x20 || *text == 0x7f)
            return false;
    }
    return true;
}

/* Length of "http://" or "https://"; 0: neither. */
static size_t scheme_length(const char *text)
{
    return strncasecmp(text, "http://", 7) == 0 ? 7 : strncasecmp(text, "https://", 8) == 0 ? 8 : 0;
}

static int hex_digit(char c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

static void base64(const uint8_t *data, size_t size, char *to)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

    for (size_t i = 0; i < size; i += 3) {
        uint32_t v = (uint32_t)data[i] << 16;
        v |= i + 1 < size ? (uint32_t)data[i + 1] << 8 : 0;
        v |= i + 2 < size ? data[i + 2] : 0;
        *to++ = digits[v >> 18];
        *to++ = digits[v >> 12 & 63];
        *to++ = i + 1 < size ? digits[v >> 6 & 63] : '=';
        *to++ = i + 2 < size ? digits[v & 63] : '=';
    }
    *to = '\0';
}

/* "user:password", percent-encoded. False: too long. */
static bool set_basic(struct url *u, const char *text, size_t size)
{
    uint8_t plain[600];
    size_t n = 0;

    for (size_t i = 0; i < size; i++) {
        if (n == sizeof plain)
            return false;
        if (text[i] == '%' && i + 2 < size && hex_digit(text[i + 1]) >= 0 &&
            hex_digit(text[i + 2]) >= 0) {
            plain[n++] = (uint8_t)(hex_digit(text[i + 1]) << 4 | hex_digit(text[i + 2]));
            i += 2;
        } else {
            plain[n++] = (uint8_t)text[i];
        }
    }
    memcpy(u->basic, "Basic ", 6);
    base64(plain, n, u->basic + 6);
    explicit_bzero(plain, sizeof plain);
    return true;
}

static int bad(struct err *err, const char *why)
{
    return err_fail(err, -EINVAL, "this URL cannot be used: %s", why);
}

int url_parse(const char *text, struct url *ret, struct err *err)
{
    struct url u = {0};
    size_t scheme = scheme_length(text);

    if (scheme == 0)
        return bad(err, "it begins with neither http:// nor https://");
    if (strlen(text) >= sizeof u.request || !is_plain(text))
        return bad(err, "it has spaces or control characters, or more than 8191 bytes");
    u.is_https = scheme == 8;
    const char *authority = text + scheme;
    size_t length = strcspn(authority, "/?#");
    const char *at = memrchr(authority, '@', length);
    const char *host = at ? at + 1 : authority;
    size_t host_length = length - (size_t)(host - authority);
    if (at && !set_basic(&u, authority, (size_t)(at - authority)))
        return bad(err, "its user and password are too long");
    if (host_length == 0 || host_length > 300)
        return bad(err, "it has no host");
    const char *rest = authority + length;
    size_t rest_length = strcspn(rest, "#");
    const char *port = memrchr(host, ':', host_length);
    bool has_port = port && !memchr(port, ']', host_length - (size_t)(port - host));
    (void)snprintf(u.request, sizeof u.request, "%s%.*s%s%.*s",
                   scheme == 8 ? "https://" : "http://", (int)host_length, host,
                   *rest == '/' ? "" : "/", (int)rest_length, rest);
    (void)snprintf(u.origin, sizeof u.origin, "%s%.*s%s", scheme == 8 ? "https://" : "http://",
                   (int)host_length, host,
                   has_port      ? ""
                   : scheme == 8 ? ":443"
                                 : ":80");
    for (char *c = u.origin; *c; c++)
        *c = (char)tolower((unsigned char)*c);
    *ret = u;
    return 0;
}

void url_redact(const struct url *u, char *ret, size_t size)
{
    (void)snprintf(ret, size, "%.*s", (int)strcspn(u->request, "?"), u->request);
}

bool archive_has_suffix(const char *url)
{
    static const char *const suffixes[] = {".zip",     ".tar",    ".tar.gz", ".tgz",
                                           ".tar.zst", ".tar.xz", ".tar.bz2"};
    size_t length = strcspn(url, "?#");

    for (size_t i = 0; i < sizeof suffixes / sizeof *suffixes; i++) {
        size_t n = strlen(suffixes[i]);
        if (length > n && strncasecmp(url + length - n, suffixes[i], n) == 0 &&
            url[length - n - 1] != '/')
            return true;
    }
    return false;
}

/* ---- redirects --------------------------------------------------------------------------------
 */

/* Relative references: all forms that servers send; dots are left to the next server. */
static bool absolute_url(const struct url *from, const char *location, char *ret, size_t size)
{
    size_t scheme = scheme_length(from->request);
    size_t root = scheme + strcspn(from->request + scheme, "/?#");
    size_t path = strcspn(from->request, "?");
    int n;

    if (scheme_length(location) > 0)
        n = snprintf(ret, size, "%s", location);
    else if (strncmp(location, "//", 2) == 0)
        n = snprintf(ret, size, "%.*s%s", (int)scheme - 2, from->request, location);
    else if (location[0] == '/')
        n = snprintf(ret, size, "%.*s%s", (int)root, from->request, location);
    else if (location[0] == '?')
        n = snprintf(ret, size, "%.*s%s", (int)path, from->request, location);
    else {
        while (path > root && from->request[path - 1] != '/')
            path--;
        n = snprintf(ret, size, "%.*s%s", (int)path, from->request, location);
    }
    return n >= 0 && (size_t)n < size;
}

static bool has_other_scheme(const char *location)
{
    size_t n = strcspn(location, ":/?#");

    return location[n] == ':' && scheme_length(location) == 0;
}

int url_redirect(const struct url *from, const char *location, struct url *ret, struct err *err)
{
    char text[HTTP_URL_MAX], shown[HTTP_URL_MAX];
    struct url u;

    url_redact(from, shown, sizeof shown);
    if (!*location || has_other_scheme(location) ||
        !absolute_url(from, location, text, sizeof text) || url_parse(text, &u, NULL) < 0)
        return err_fail(err, -EPROTO, "%s redirects to something that is no http or https URL",
                        shown);
    if (from->is_https && !u.is_https)
        return err_fail(err, -EPROTO,
                        "%s redirects from https to http, which is not followed; give that URL "
                        "itself if you trust it",
                        shown);
    explicit_bzero(u.basic, sizeof u.basic); /* nobody's password but the user's */
    if (strcmp(u.origin, from->origin) == 0)
        memcpy(u.basic, from->basic, sizeof u.basic);
    *ret = u;
    return 0;
}
