/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Spellings of S3: percent-encoding as signatures want it, its two formats of time, ETags.
 *
 * Strict on what is read: what is not exactly of the form is an error, never a guess.
 */
#include "s3/s3-internal.h"

#include "base/hex.h"

#include <stdio.h>
#include <time.h>

#define DAY_MS INT64_C(86400000)

static bool is_unreserved(char c)
{
    return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '_' || c == '.' || c == '~';
}

int s3_encode(struct buf *b, const char *text, bool keep_slash)
{
    static const char digits[] = "0123456789ABCDEF";

    for (; *text; text++) {
        unsigned char c = (unsigned char)*text;
        char coded[3] = {'%', digits[c >> 4], digits[c & 15]};
        bool plain = is_unreserved(*text) || (*text == '/' && keep_slash);
        int r = plain ? buf_append(b, text, 1) : buf_append(b, coded, sizeof coded);
        if (r < 0)
            return r;
    }
    return 0;
}

static int hex_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

int s3_decode(char *text, bool plus_is_space)
{
    char *to = text;

    for (const char *from = text; *from; from++) {
        if (*from == '+' && plus_is_space) {
            *to++ = ' ';
            continue;
        }
        if (*from != '%') {
            *to++ = *from;
            continue;
        }
        int high = hex_value(from[1]);
        int low = high < 0 ? -1 : hex_value(from[2]);
        if (low < 0 || (high == 0 && low == 0))
            return -EPROTO;
        *to++ = (char)(high << 4 | low);
        from += 2;
    }
    *to = '\0';
    return 0;
}

static int number_at(const char *text, int digits)
{
    int v = 0;

    for (int i = 0; i < digits; i++) {
        if (text[i] < '0' || text[i] > '9')
            return -1;
        v = v * 10 + text[i] - '0';
    }
    return v;
}

/* Of the first of a month, by the calendar that always was. timegm() takes a lock and looks for
 * time zones, for each object of a listing. */
static int64_t days_since_1970(int year, int month)
{
    int64_t y = year - (month <= 2); /* years begin in March: the odd day is their last */
    int64_t days_of_months = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5;

    return 365 * y + y / 4 - y / 100 + y / 400 + days_of_months - 719468;
}

static int to_ms(struct tm *t, int ms, int64_t *ret)
{
    if (t->tm_year < 0 || t->tm_mon < 0 || t->tm_mon > 11 || t->tm_mday < 1 || t->tm_mday > 31 ||
        t->tm_hour < 0 || t->tm_hour > 23 || t->tm_min < 0 || t->tm_min > 59 || t->tm_sec < 0 ||
        t->tm_sec > 60)
        return -EPROTO;
    *ret = (days_since_1970(t->tm_year + 1900, t->tm_mon + 1) + t->tm_mday - 1) * DAY_MS +
           ((t->tm_hour * 60 + t->tm_min) * 60 + t->tm_sec) * INT64_C(1000) + ms;
    return 0;
}

int s3_parse_iso_time(const char *text, int64_t *ret_ms)
{
    size_t n = strlen(text);
    int ms = 0;

    if (n < 20 || text[4] != '-' || text[7] != '-' || text[10] != 'T' || text[13] != ':' ||
        text[16] != ':' || text[n - 1] != 'Z')
        return -EPROTO;
    if (n > 20) { /* a fraction of any length; milliseconds count */
        if (text[19] != '.' || n > 31)
            return -EPROTO;
        for (size_t i = 20, scale = 100; i < n - 1; i++, scale /= 10) {
            if (text[i] < '0' || text[i] > '9')
                return -EPROTO;
            ms += (text[i] - '0') * (int)scale;
        }
    }
    struct tm t = {
        .tm_year = number_at(text, 4) - 1900,
        .tm_mon = number_at(text + 5, 2) - 1,
        .tm_mday = number_at(text + 8, 2),
        .tm_hour = number_at(text + 11, 2),
        .tm_min = number_at(text + 14, 2),
        .tm_sec = number_at(text + 17, 2),
    };
    return to_ms(&t, ms, ret_ms);
}

int s3_parse_http_time(const char *text, int64_t *ret_ms)
{
    static const char months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
    char month[4] = "";

    if (strlen(text) != 29 || text[3] != ',' || strcmp(text + 25, " GMT") != 0)
        return -EPROTO;
    memcpy(month, text + 8, 3);
    const char *at = strstr(months, month);
    if (!at || (at - months) % 3)
        return -EPROTO;
    struct tm t = {
        .tm_year = number_at(text + 12, 4) - 1900,
        .tm_mon = (int)(at - months) / 3,
        .tm_mday = number_at(text + 5, 2),
        .tm_hour = number_at(text + 17, 2),
        .tm_min = number_at(text + 20, 2),
        .tm_sec = number_at(text + 23, 2),
    };
    return to_ms(&t, 0, ret_ms);
}

int s3_parse_number(const char *text, uint64_t max, uint64_t *ret)
{
    uint64_t v = 0;

    if (!*text)
        return -EPROTO;
    for (; *text; text++) {
        if (*text < '0' || *text > '9')
            return -EPROTO;
        uint64_t digit = (uint64_t)(*text - '0');
        if (digit > max || v > (max - digit) / 10)
            return -EPROTO;
        v = v * 10 + digit;
    }
    *ret = v;
    return 0;
}

void s3_copy_etag(const char *text, char ret[static S3_ETAG_MAX])
{
    if (strncmp(text, "W/", 2) == 0)
        text += 2;
    size_t n = strlen(text);
    if (n >= 2 && text[0] == '"' && text[n - 1] == '"') {
        text++;
        n -= 2;
    }
    if (n >= S3_ETAG_MAX)
        n = 0; /* no ETag that could be sent back */
    memcpy(ret, text, n);
    ret[n] = '\0';
}

int s3_copy(char *to, size_t room, const char *text)
{
    size_t n = strlen(text);

    if (n >= room)
        return -ENAMETOOLONG;
    memcpy(to, text, n + 1);
    return 0;
}
