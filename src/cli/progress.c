/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One line on stderr that says how far we are. Only on a terminal: never in a log.
 *
 * It is cut to the terminal's width, in order of importance: phase, bar, files, bytes, rate, time
 * left. Colour is not used, so NO_COLOR asks for nothing; TERM=dumb cannot redraw a line, and gets
 * none.
 */
#include "cli/cli-internal.h"

#include "base/env.h"

#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

/* Often enough to look alive, rarely enough to cost nothing. */
#define REDRAW_MS 200
/* Rates of the first moment mean nothing. */
#define RATE_AFTER_S   0.5
#define LINE_MAX_BYTES 512
/* So that all parts fit into 80 columns; wider terminals get a longer bar. */
#define BAR_CELLS      10
#define BAR_CELLS_WIDE 30
#define WIDE           110

static struct {
    const char *phase;
    int64_t phase_ms, drawn_ms;
    uint64_t first_bytes; /* when the phase began: what a resumed upload had is no speed */
    bool is_shown;
} line;

static bool wanted(void)
{
    static int known = -1;

    if (known < 0) {
        const char *term = getenv("TERM");
        known = isatty(STDERR_FILENO) && term && *term && strcmp(term, "dumb") != 0;
    }
    return known == 1;
}

/* Append a part if it still fits. */
static void add_part(char *text, size_t size, size_t columns, const char *part)
{
    size_t n = strlen(text), more = strlen(part);

    if (n + more <= columns && n + more < size)
        memcpy(text + n, part, more + 1);
}

static double share_done(const struct progress *p)
{
    if (p->bytes_total)
        return (double)p->bytes / (double)p->bytes_total;
    return p->files_total ? (double)p->files / (double)p->files_total : 0;
}

static void format_bar(const struct progress *p, size_t cells, char *part, size_t size)
{
    char bar[BAR_CELLS_WIDE + 1];
    double share = share_done(p);
    size_t full = share >= 1 ? cells : (size_t)(share * (double)cells);

    memset(bar, '#', full);
    memset(bar + full, '.', cells - full);
    bar[cells] = '\0';
    (void)snprintf(part, size, " [%s] %d%%", bar, share >= 1 ? 100 : (int)(share * 100));
}

static void format_files(const struct progress *p, char *part, size_t size)
{
    char done[FIGURE_MAX], total[FIGURE_MAX];

    if (p->files_total)
        (void)snprintf(part, size, " %s/%s files", figure_count(p->files, done),
                       figure_count(p->files_total, total));
    else
        (void)snprintf(part, size, " %s files", figure_count(p->files, done));
}

/* " 616.0/700.0 MiB", or " 12.0 MiB/1.0 GiB". */
static void format_bytes(const struct progress *p, char *part, size_t size)
{
    char done[FIGURE_MAX], total[FIGURE_MAX] = "";

    (void)figure_bytes(p->bytes, done);
    if (p->bytes_total)
        (void)figure_bytes(p->bytes_total, total);
    char *unit = strchr(done, ' ');
    const char *total_unit = strchr(total, ' ');
    if (unit && total_unit && strcmp(unit, total_unit) == 0)
        *unit = '\0';
    (void)snprintf(part, size, " %s%s%s", done, *total ? "/" : "", total);
}

void progress_format(const struct progress *p, double seconds, size_t columns, char *ret,
                     size_t size)
{
    char part[160], figure[FIGURE_MAX];

    ret[0] = '\0';
    add_part(ret, size, columns, p->phase);
    if (p->bytes_total || p->files_total) {
        format_bar(p, columns < WIDE ? BAR_CELLS : BAR_CELLS_WIDE, part, sizeof part);
        add_part(ret, size, columns, part);
    }
    if (p->files || p->files_total) {
        format_files(p, part, sizeof part);
        add_part(ret, size, columns, part);
    }
    if (p->bytes || p->bytes_total) {
        format_bytes(p, part, sizeof part);
        add_part(ret, size, columns, part);
    }
    if (seconds < RATE_AFTER_S || p->bytes == 0)
        return;
    double rate = (double)p->bytes / seconds;
    (void)snprintf(part, sizeof part, " %s/s", figure_bytes((uint64_t)rate, figure));
    add_part(ret, size, columns, part);
    if (p->bytes_total > p->bytes && rate >= 1) {
        uint64_t left = (uint64_t)((double)(p->bytes_total - p->bytes) / rate) + 1;
        (void)snprintf(part, sizeof part, " %s left", figure_seconds(left, figure));
        add_part(ret, size, columns, part);
    }
}

void progress_show(const struct progress *p)
{
    struct winsize window = {0};
    char text[LINE_MAX_BYTES];

    if (!wanted())
        return;
    int64_t now = env_real()->boot_ms(env_real());
    bool is_new = !line.phase || strcmp(line.phase, p->phase) != 0;
    if (is_new) {
        line.phase = p->phase;
        line.phase_ms = now;
        line.first_bytes = p->bytes;
    }
    if (!is_new && now - line.drawn_ms < REDRAW_MS)
        return;
    line.drawn_ms = now;

    size_t columns = 80;
    if (ioctl(STDERR_FILENO, TIOCGWINSZ, &window) == 0 && window.ws_col > 1)
        columns = window.ws_col;
    struct progress since = *p;
    double seconds = (double)(now - line.phase_ms) / 1000;
    if (p->bytes >= line.first_bytes && p->bytes > 0 && line.first_bytes > 0) {
        /* The rate is of this phase only: stretch the time as if the rest had come at that rate. */
        double fresh = (double)(p->bytes - line.first_bytes) / (double)p->bytes;
        seconds = fresh > 0 ? seconds / fresh : 0;
    }
    progress_format(&since, seconds, columns - 1, text, sizeof text);
    /* Carriage return, text, erase to the end of the line. */
    (void)fprintf(stderr, "\r%s\033[K", text);
    (void)fflush(stderr);
    line.is_shown = true;
}

void progress_clear(void)
{
    if (!line.is_shown)
        return;
    (void)fputs("\r\033[K", stderr);
    (void)fflush(stderr);
    line.is_shown = false;
}
