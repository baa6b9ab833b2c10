/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Parsing a command line by the tables of its command.
 *
 * Values stay as text, in the order in which they were given (`grid run` needs the order); a
 * command asks for them by name. Words of commands and options may be mixed: `grid datastore --json
 * list` is `grid datastore list --json`. Nothing is abbreviated, so that a new option breaks no
 * script.
 */
#include "cli/cli-internal.h"

#include <stdlib.h>
#include <string.h>

/* Longest words of a command: "user set-cluster-context". */
#define WORDS_MAX 128
/* A path as an argument is at most this long on Linux; counts only against mistakes. */
#define ARGUMENTS_MAX 100000u

/* ---- commands ---- */

static const struct command *find_command(const struct command *commands, const char *words)
{
    for (const struct command *c = commands; c->words; c++) {
        if (strcmp(c->words, words) == 0)
            return c;
    }
    return NULL;
}

/* Does any command begin with these whole words? */
static bool begins_command(const struct command *commands, const char *words)
{
    size_t n = strlen(words);

    for (const struct command *c = commands; c->words; c++) {
        if (strncmp(c->words, words, n) == 0 && (c->words[n] == ' ' || c->words[n] == '\0'))
            return true;
    }
    return false;
}

/* Are there commands with these words and more? */
static bool has_longer(const struct command *commands, const char *words)
{
    size_t n = strlen(words);

    for (const struct command *c = commands; c->words; c++) {
        if (strncmp(c->words, words, n) == 0 && c->words[n] == ' ')
            return true;
    }
    return false;
}

/* "a b" and "c" to "a b c"; false if that is longer than any command. */
static bool join_words(char joined[static WORDS_MAX], const char *words, const char *word)
{
    int n = snprintf(joined, WORDS_MAX, "%s%s%s", words, *words ? " " : "", word);
    return n > 0 && n < WORDS_MAX;
}

/* ---- options ---- */

static bool same_name(const char *a, const char *b, size_t length)
{
    for (size_t i = 0; i < length; i++) {
        char x = a[i] == '_' && i > 1 ? '-' : a[i];
        char y = b[i] == '_' && i > 1 ? '-' : b[i];
        if (x != y)
            return false;
    }
    return a[length] == '\0';
}

static const struct option *find_option(const struct command *c, const char *name, size_t length)
{
    for (const struct option *o = c ? c->options : NULL; o && o->name; o++) {
        if (same_name(o->name, name, length))
            return o;
    }
    return NULL;
}

static const struct option *find_letter(const struct command *c, char letter)
{
    for (const struct option *o = c ? c->options : NULL; o && o->name; o++) {
        if (o->letter == letter)
            return o;
    }
    return NULL;
}

static int add_option(struct args *a, const struct option *o, const char *value, struct err *err)
{
    if (o->instead)
        return err_fail(err, -ENOTSUP, "%s", o->instead);
    struct args_option given = {o, value};
    if (vec_push(&a->options, given) < 0)
        return err_fail(err, -ENOMEM, "out of memory");
    return 0;
}

/* "--name", "--name=value" or "--name" "value"; steps *at over what was used. */
static int parse_long(struct args *a, char *const **at, struct err *err)
{
    const char *word = **at;
    size_t length = strcspn(word, "=");
    const char *value = word[length] ? word + length + 1 : NULL;
    const struct option *o = find_option(a->command, word, length);

    if (!o)
        return err_fail(err, -EINVAL, "unknown option %.*s", (int)length, word);
    if (!o->value && value && !o->instead)
        return err_fail(err, -EINVAL, "%s takes no value", o->name);
    if (o->value && !value && !o->instead) {
        (*at)++;
        value = **at;
        if (!value)
            return err_fail(err, -EINVAL, "%s needs a value: %s", o->name, o->value);
    }
    return add_option(a, o, value, err);
}

/* "-lR", or "-nVALUE" and "-n" "VALUE". */
static int parse_letters(struct args *a, char *const **at, struct err *err)
{
    for (const char *p = **at + 1; *p; p++) {
        const struct option *o = find_letter(a->command, *p);
        const char *value = NULL;

        if (!o)
            return err_fail(err, -EINVAL, "unknown option -%c", *p);
        if (o->value) {
            value = p[1] ? p + 1 : *++(*at);
            if (!value)
                return err_fail(err, -EINVAL, "-%c needs a value: %s", *p, o->value);
        }
        int r = add_option(a, o, value, err);
        if (r < 0 || o->value)
            return r;
    }
    return 0;
}

/* Options that stood between the words of a command, and were parsed by the shorter one's table. */
static int adopt_options(struct args *a, const struct command *c, struct err *err)
{
    for (size_t i = 0; i < a->options.count; i++) {
        const char *name = a->options.at[i].option->name;
        const struct option *o = find_option(c, name, strlen(name));
        if (!o)
            return err_fail(err, -EINVAL, "grid %s has no option %s", c->words, name);
        a->options.at[i].option = o;
    }
    a->command = c;
    return 0;
}

static int parse_word(const struct command *commands, struct args *a, char *words, const char *word,
                      struct err *err)
{
    char longer[WORDS_MAX];

    if (a->words.count == 0 && join_words(longer, words, word) &&
        begins_command(commands, longer)) {
        const struct command *c = find_command(commands, longer);
        memcpy(words, longer, sizeof longer);
        return c ? adopt_options(a, c, err) : 0;
    }
    bool is_group =
        a->command && a->command->args_max == 0 && has_longer(commands, a->command->words);
    if (!a->command || is_group)
        return err_fail(err, -EINVAL, "there is no command '%s%s%s'", words, *words ? " " : "",
                        word);
    if (a->words.count >= a->command->args_max || a->words.count >= ARGUMENTS_MAX)
        return err_fail(err, -EINVAL,
                        a->command->args_max ? "one argument too many: '%s'"
                                             : "it takes no argument: '%s'",
                        word);
    return vec_push(&a->words, word) < 0 ? err_fail(err, -ENOMEM, "out of memory") : 0;
}

static int parse_all(const struct command *commands, char *const *argv, struct args *a,
                     bool *ret_help, struct err *err)
{
    char words[WORDS_MAX] = "", longer[WORDS_MAX];
    bool options_end = false;
    int r = 0;

    for (char *const *at = argv; *at && r == 0; at++) {
        const char *word = *at;
        bool is_option = !options_end && word[0] == '-' && word[1];

        if (is_option && strcmp(word, "--") == 0) {
            options_end = true;
            continue;
        }
        if (is_option && (strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0)) {
            *ret_help = true;
            continue;
        }
        if (!is_option && a->command && a->command->stop_at_argument &&
            (!join_words(longer, words, word) || !begins_command(commands, longer))) {
            a->rest = at;
            return 0;
        }
        if (!is_option)
            r = parse_word(commands, a, words, word, err);
        else if (word[1] == '-')
            r = parse_long(a, &at, err);
        else
            r = parse_letters(a, &at, err);
        if (!*at)
            break;
    }
    if (r == 0 && !a->command && !*ret_help)
        r = *words ? err_fail(err, -EINVAL, "'grid %s' needs one more word", words)
                   : err_fail(err, -EINVAL, "a command is missing");
    return r;
}

int args_parse(const struct command *commands, char *const *argv, struct args *ret, bool *ret_help,
               struct err *err)
{
    memset(ret, 0, sizeof *ret);
    *ret_help = false;
    int r = parse_all(commands, argv, ret, ret_help, err);
    if (*ret_help && r != -ENOMEM)
        return 0;
    if (r == 0 && ret->words.count < ret->command->args_min)
        r = err_fail(err, -EINVAL, "an argument is missing: %s", ret->command->arguments);
    return r;
}

void args_release(struct args *a)
{
    vec_release(&a->options);
    vec_release(&a->words);
}

/* ---- asking ---- */

static const struct args_option *last_given(const struct args *a, const char *name)
{
    const struct option *o = find_option(a->command, name, strlen(name));

    if (!o)
        abort(); /* the table and the function of a command disagree */
    for (size_t i = a->options.count; i-- > 0;) {
        if (a->options.at[i].option == o)
            return &a->options.at[i];
    }
    return NULL;
}

bool args_flag(const struct args *a, const char *name)
{
    return last_given(a, name) != NULL;
}

const char *args_text(const struct args *a, const char *name)
{
    const struct args_option *given = last_given(a, name);
    return given ? given->value : NULL;
}

/* ---- numbers ---- */

/* Digits only: strtoull(3) takes signs and blanks. Gives what follows them, or NULL. */
static const char *parse_digits(const char *text, uint64_t max, uint64_t *ret)
{
    uint64_t n = 0;
    const char *p = text;

    for (; *p >= '0' && *p <= '9'; p++) {
        uint64_t digit = (uint64_t)(*p - '0');
        if (n > (max - digit) / 10)
            return NULL;
        n = n * 10 + digit;
    }
    *ret = n;
    return p == text ? NULL : p;
}

int parse_version(const char *text, uint32_t *ret)
{
    uint64_t n;
    const char *end = parse_digits(text, CATALOGUE_VERSION_MAX, &n);

    if (!end || *end || n == 0)
        return -EINVAL;
    *ret = (uint32_t)n;
    return 0;
}

int parse_bytes(const char *text, uint64_t *ret)
{
    static const char units[] = "KMGT";
    uint64_t n;
    unsigned shift = 0;
    const char *end = parse_digits(text, UINT64_MAX / 16, &n);

    if (!end)
        return -EINVAL;
    const char *unit = *end ? strchr(units, *end) : NULL;
    if (unit) {
        shift = 10 * (unsigned)(unit - units + 1);
        end++;
        if (strcmp(end, "iB") == 0)
            end += 2;
    }
    if (*end || (shift && n > UINT64_MAX >> shift))
        return -EINVAL;
    *ret = n << shift;
    return 0;
}
