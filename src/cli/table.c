/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tables for people: columns as wide as their widest cell, two blanks between them.
 *
 * All cells are kept until the table is printed, escaped. Widths are columns of a terminal, not
 * bytes: names may be UTF-8.
 */
#include "cli/cli-internal.h"

#include <stdlib.h>
#include <string.h>

/* A cell is a name or a path of at most 4,096 bytes, each of which may become "\xNN". */
#define CELL_MAX (4u * 4096u + 1u)

struct table {
    size_t columns;
    bool *is_right;    /* owned */
    size_t *widths;    /* owned */
    VEC(char *) cells; /* owned, the titles first */
    bool out_of_memory;
};

struct table *table_new(const char *const *columns, size_t count)
{
    AUTO(table_free) struct table *t = calloc(1, sizeof *t);

    if (!t)
        return NULL;
    t->columns = count;
    t->is_right = calloc(count, sizeof *t->is_right);
    t->widths = calloc(count, sizeof *t->widths);
    if (!t->is_right || !t->widths)
        return NULL;
    for (size_t i = 0; i < count; i++) {
        t->is_right[i] = columns[i][0] == '>';
        table_add(t, columns[i] + t->is_right[i]);
    }
    return take_ptr(&t);
}

void table_free(struct table *t)
{
    if (!t)
        return;
    for (size_t i = 0; i < t->cells.count; i++)
        free(t->cells.at[i]);
    vec_release(&t->cells);
    free(t->is_right);
    free(t->widths);
    free(t);
}

void table_add(struct table *t, const char *text)
{
    AUTO(buf_release) struct buf b = BUF_INIT(CELL_MAX);
    size_t length = strnlen(text, CELL_MAX / 4);

    if (t->out_of_memory)
        return;
    char *cell = escape_text(&b, text, length) == 0 ? strdup(buf_text(&b)) : NULL;
    if (!cell || vec_push(&t->cells, cell) < 0) {
        free(cell);
        t->out_of_memory = true;
        return;
    }
    size_t width = text_width(cell, strlen(cell));
    size_t *column = &t->widths[(t->cells.count - 1) % t->columns];
    if (width > *column)
        *column = width;
}

int table_print(const struct table *t, FILE *out)
{
    if (t->out_of_memory)
        return -ENOMEM;
    for (size_t i = 0; i < t->cells.count; i++) {
        size_t column = i % t->columns;
        bool is_last = column + 1 == t->columns;
        const char *cell = t->cells.at[i];
        int blanks = (int)(t->widths[column] - text_width(cell, strlen(cell)));

        if (t->is_right[column])
            (void)fprintf(out, "%*s%s", blanks, "", cell);
        else
            (void)fprintf(out, "%s%*s", cell, is_last ? 0 : blanks, "");
        (void)fputs(is_last ? "\n" : "  ", out); /* errors show in finish_stdout() */
    }
    return 0;
}
