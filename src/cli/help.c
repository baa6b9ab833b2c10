/* SPDX-License-Identifier: Apache-2.0 */
/*
 * --help, overviews, and the dump by which completion and tools/check-man see the tables: all
 * printed from the same rows that parse the command line.
 */
#include "cli/cli-internal.h"

#include <string.h>

/* Options begin their help in this column; longer ones take a line of their own. */
#define HELP_COLUMN 30

static void print_synopsis(const struct command *c)
{
    bool has_options = false;

    for (const struct option *o = c->options; o && o->name; o++)
        has_options |= o->help != NULL;
    printf("usage: grid %s%s%s%s\n", c->words, has_options ? " [OPTIONS]" : "",
           *c->arguments ? " " : "", c->arguments);
}

static void print_option(const struct option *o)
{
    char left[128];
    char letter[8] = "";

    if (o->letter)
        (void)snprintf(letter, sizeof letter, "-%c, ", o->letter);
    int n = snprintf(left, sizeof left, "  %s%s%s%s", letter, o->name, o->value ? " " : "",
                     o->value ? o->value : "");
    if (n >= HELP_COLUMN)
        printf("%s\n%*s%s\n", left, HELP_COLUMN, "", o->help);
    else
        printf("%-*s%s\n", HELP_COLUMN, left, o->help);
}

void help_command(const struct command *c)
{
    print_synopsis(c);
    if (c->summary)
        printf("\n%s\n", c->summary);
    if (c->details)
        printf("\n%s\n", c->details);
    printf("\noptions:\n");
    for (const struct option *o = c->options; o && o->name; o++) {
        if (o->help)
            print_option(o);
    }
    printf("%-*s%s\n", HELP_COLUMN, "  -h, --help", "print this");
}

void help_overview(const struct command *commands, const char *words)
{
    size_t n = strlen(words);

    printf("usage: grid %s%sCOMMAND ...\n\n", words, n ? " " : "");
    for (const struct command *c = commands; c->words; c++) {
        if (c->summary && strncmp(c->words, words, n) == 0)
            printf("  %-26s %s\n", c->words, c->summary);
    }
    printf("\n'grid help COMMAND' and 'grid COMMAND --help' say more.\n");
}

void help_dump(const struct command *commands)
{
    for (const struct command *c = commands; c->words; c++) {
        if (!c->summary)
            continue;
        printf("command\t%s\t%s\t%s\n", c->words, c->arguments, c->summary);
        for (const struct option *o = c->options; o && o->name; o++) {
            if (o->help && o->letter)
                printf("option\t%s\t-%c\t%s\t%s\n", c->words, o->letter, o->value ? o->value : "",
                       o->help);
            if (o->help)
                printf("option\t%s\t%s\t%s\t%s\n", c->words, o->name, o->value ? o->value : "",
                       o->help);
        }
    }
}
