/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sentences on stderr, and text that comes from elsewhere made harmless.
 *
 * A file name may hold any byte. Printed as it is, it could move the cursor, change the title, or
 * forge a line: so in sentences, tables and on terminals everything but printable UTF-8 is shown as
 * \xNN. To a file or a pipe, `ls` writes names as they are.
 */
#include "cli/cli-internal.h"

#include <stdarg.h>
#include <string.h>
#include <unistd.h>
#include <wchar.h>

/* A sentence names at most a few paths of 4,096 bytes; longer ones are cut. */
#define SENTENCE_MAX 16384

/* ---- escaping ---- */

/* The code point at `text`, and how many bytes it takes; 0 if that is not UTF-8. */
static size_t utf8_decode(const unsigned char *text, size_t length, uint32_t *ret)
{
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    unsigned char c = text[0];
    size_t n = c < 0x80 ? 1 : c >= 0xf0 ? 4 : c >= 0xe0 ? 3 : c >= 0xc0 ? 2 : 0;

    if (n == 0 || n > length || c > 0xf4)
        return 0;
    uint32_t point = n == 1 ? c : c & (0x7fu >> n);
    for (size_t i = 1; i < n; i++) {
        if ((text[i] & 0xc0) != 0x80)
            return 0;
        point = point << 6 | (text[i] & 0x3fu);
    }
    if (point < least[n] || point > 0x10ffff || (point >= 0xd800 && point < 0xe000))
        return 0;
    *ret = point;
    return n;
}

/* Characters that move, hide or reorder text: C0, DEL, C1, and Unicode's invisible controls. */
static bool is_steering(uint32_t point)
{
    return point < 0x20 || (point >= 0x7f && point < 0xa0) ||
           (point >= 0x200b && point <= 0x200f) || (point >= 0x2028 && point <= 0x202e) ||
           (point >= 0x2060 && point <= 0x206f) || point == 0xfeff;
}

int escape_text(struct buf *b, const char *text, size_t length)
{
    const unsigned char *p = (const unsigned char *)text;
    int r = 0;

    for (size_t i = 0; i < length && r == 0;) {
        uint32_t point;
        size_t n = utf8_decode(p + i, length - i, &point);
        if (n && !is_steering(point)) {
            r = buf_append(b, p + i, n);
            i += n;
            continue;
        }
        size_t end = i + (n ? n : 1);
        for (; i < end && r == 0; i++)
            r = buf_printf(b, "\\x%02x", p[i]);
    }
    return r;
}

size_t text_width(const char *text, size_t length)
{
    size_t width = 0;

    for (size_t i = 0; i < length;) {
        uint32_t point = 0;
        size_t n = utf8_decode((const unsigned char *)text + i, length - i, &point);
        int columns = n ? wcwidth((wchar_t)point) : 1;
        width += columns < 0 ? 1 : (size_t)columns; /* a locale without that character */
        i += n ? n : 1;
    }
    return width;
}

bool stdout_is_terminal(void)
{
    static int known = -1;

    if (known < 0)
        known = isatty(STDOUT_FILENO);
    return known == 1;
}

void print_name(const char *name, size_t length)
{
    AUTO(buf_release) struct buf b = BUF_INIT(SENTENCE_MAX * 4);

    if (stdout_is_terminal() && escape_text(&b, name, length) == 0)
        (void)fwrite(b.data, 1, b.size, stdout); /* errors show in finish_stdout() */
    else
        (void)fwrite(name, 1, length, stdout); /* the same */
}

/* ---- sentences ---- */

__attribute__((format(printf, 2, 0))) static void say_list(const char *end, const char *format,
                                                           va_list args)
{
    char text[SENTENCE_MAX];
    AUTO(buf_release) struct buf b = BUF_INIT(SENTENCE_MAX * 4 + 64);
    int n = vsnprintf(text, sizeof text, format, args);

    progress_clear();
    if (n < 0)
        return;
    (void)fflush(stdout); /* so that both stand in order where they go to one place */
    size_t length = (size_t)n < sizeof text ? (size_t)n : sizeof text - 1;
    if (escape_text(&b, text, length) < 0)
        buf_clear(&b);
    (void)fprintf(stderr, "grid: %s%s\n", buf_text(&b), end);
}

void say(const char *format, ...)
{
    va_list args;

    va_start(args, format);
    say_list("", format, args);
    va_end(args);
}

int say_failed(const char *format, ...)
{
    va_list args;

    va_start(args, format);
    say_list("", format, args);
    va_end(args);
    return CLI_FAILED;
}

int say_err(const struct err *err, int code)
{
    say("%s", err_text(err, code));
    return CLI_FAILED;
}

int say_usage(const struct command *c, const char *format, ...)
{
    char end[160] = "; see 'grid help'";
    va_list args;

    if (c)
        (void)snprintf(end, sizeof end, "; see 'grid %s --help'", c->words);
    va_start(args, format);
    say_list(end, format, args);
    va_end(args);
    return CLI_USAGE;
}

int finish_stdout(int code)
{
    if (fflush(stdout) == 0 && !ferror(stdout))
        return code;
    say("cannot write the output: %s", strerror(errno));
    return code == CLI_DONE ? CLI_FAILED : code;
}
