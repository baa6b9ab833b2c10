/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Opening: what is it? Its first bytes decide, not its name: servers and people rename. What is
 * none of the formats is said to be what it looks like, since mostly it is a page to log in at.
 */
#include "archive/archive-internal.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#define SNIFFED 512u

int archived_init(struct archived *a, const struct source_ops *ops,
                  const struct source_stream_ops *stream, struct download *d)
{
    a->source.ops = ops;
    a->source.stream = stream;
    a->download = d;
    a->source.location = strdup(download_shown(d));
    return a->source.location ? 0 : -ENOMEM;
}

void archived_progress(struct source *s, uint64_t *ret_done, uint64_t *ret_total)
{
    const struct archived *a = (const struct archived *)s;
    uint64_t size = download_size(a->download);

    *ret_done = download_progress(a->download);
    *ret_total = size == DOWNLOAD_UNKNOWN ? 0 : size;
}

int archived_text(struct source_part *part, const char *text, size_t size, size_t *ret_at,
                  size_t *ret_size)
{
    *ret_at = part->texts.size;
    *ret_size = size;
    return size > 0 ? buf_append(&part->texts, text, size) : 0;
}

/* ---- what is it? ------------------------------------------------------------------------------
 */

enum format {
    FORMAT_NONE,
    FORMAT_TAR,
    FORMAT_GZIP,
    FORMAT_ZSTD,
    FORMAT_XZ,
    FORMAT_BZIP2,
    FORMAT_ZIP
};

static bool begins(struct bytes b, const char *magic, size_t size)
{
    return b.size >= size && memcmp(b.data, magic, size) == 0;
}

/* The header's checksum, in octal at 148, which counts as spaces: old archives have no magic. */
static bool is_tar(struct bytes b)
{
    const uint8_t *p = b.data;
    uint32_t sum = 8 * ' ', said = 0;
    int digits = 0;

    if (b.size < 512)
        return false;
    for (size_t i = 0; i < 512; i++)
        sum += i >= 148 && i < 156 ? 0 : p[i];
    for (size_t i = 148; i < 156; i++) {
        if (p[i] >= '0' && p[i] <= '7') {
            said = said * 8 + (uint32_t)(p[i] - '0');
            digits++;
        } else if (p[i] != ' ' || digits > 0) {
            break;
        }
    }
    if (digits == 0) /* an empty archive is all zeros */
        return p[0] == 0 && memcmp(p, p + 1, 511) == 0;
    return said == sum;
}

static enum format sniff(struct bytes b)
{
    if (begins(b, "\x1f\x8b", 2))
        return FORMAT_GZIP;
    if (begins(b, "\x28\xb5\x2f\xfd", 4))
        return FORMAT_ZSTD;
    if (begins(b,
               "\xfd"
               "7zXZ\0",
               6))
        return FORMAT_XZ;
    if (begins(b, "BZh", 3))
        return FORMAT_BZIP2;
    if (begins(b, "PK\3\4", 4) || begins(b, "PK\5\6", 4))
        return FORMAT_ZIP;
    return is_tar(b) ? FORMAT_TAR : FORMAT_NONE;
}

static bool looks_like_html(struct bytes b)
{
    const char *p = b.data, *end = p + b.size;

    while (p < end && isspace((unsigned char)*p))
        p++;
    return end - p >= 5 && (strncasecmp(p, "<html", 5) == 0 || strncasecmp(p, "<!doc", 5) == 0);
}

static int no_archive(const struct download *d, struct bytes b, struct err *err)
{
    const char *shown = download_shown(d);

    if (b.size == 0)
        return err_fail(err, -EPROTO, "%s is empty", shown);
    if (looks_like_html(b) || download_is_html(d))
        return err_fail(err, -EPROTO,
                        "%s answers with a web page, not with an archive; does it want a log-in, "
                        "or is it the page about the file?",
                        shown);
    if (begins(b, "PK", 2) || begins(b, "7z\xbc\xaf", 4) || begins(b, "Rar!", 4))
        return err_fail(
            err, -EPROTO,
            "%s is an archive of a kind that is not unpacked; these are: " ARCHIVE_SUFFIXES, shown);
    return err_fail(err, -EPROTO,
                    "%s is no archive: its first bytes are of no format that is "
                    "unpacked, which are " ARCHIVE_SUFFIXES,
                    shown);
}

int archive_open(const char *url, const struct archive_options *o, struct source **ret,
                 struct err *err)
{
    static const enum expand_kind kinds[] = {[FORMAT_TAR] = EXPAND_NONE,
                                             [FORMAT_GZIP] = EXPAND_GZIP,
                                             [FORMAT_ZSTD] = EXPAND_ZSTD,
                                             [FORMAT_XZ] = EXPAND_XZ,
                                             [FORMAT_BZIP2] = EXPAND_BZIP2};
    AUTO(download_close) struct download *d = NULL;
    struct bytes first;

    int r = download_open(url, o, &d, err);
    if (r == 0)
        r = download_peek(d, SNIFFED, &first, err);
    if (r < 0)
        return r;
    enum format format = sniff(first);
    if (format == FORMAT_NONE)
        return no_archive(d, first, err);
    if (format == FORMAT_ZIP)
        return archived_zip_open(take_ptr(&d), ret, err);
    return archived_tar_open(take_ptr(&d), kinds[format], ret, err);
}
