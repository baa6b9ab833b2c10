/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The parts of the command line that need no store: options, numbers, configuration, tables,
 * escaping, figures, progress lines, the order of walks. Commands are tested by tests/cases/cli.
 */
#include "cli/cli-internal.h"

#include <fcntl.h>
#include <locale.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

/* ---- options ---- */

static const struct option list_options[] = {
    {"--json", 'j', NULL, "json", NULL}, {"--name", 'n', "NAME", "name", NULL}, OPTION_END};
static const struct option make_options[] = {
    {"--name", 'n', "NAME", "name", NULL}, {"--long_name", 0, "X", "long", NULL}, OPTION_END};
static const struct option run_options[] = {{"--data_name", 0, "NAME", "data", NULL},
                                            {"--gpus", 0, "N", NULL, "no machines are rented here"},
                                            OPTION_END};

static const struct command commands[] = {
    {"thing", "", "s", NULL, list_options, 0, 0, false, NULL},
    {"thing make", "SOURCE", "s", NULL, make_options, 1, 2, false, NULL},
    {"deep er word", "", "s", NULL, NULL, 0, 0, false, NULL},
    {"run", "[COMMAND]", "s", NULL, run_options, 0, ARGS_ANY, true, NULL},
    {0}};

/* Parse the words of one string, split at blanks; argv lives as long as the test. */
static int parse(const char *line, struct args *a, bool *help, struct err *err)
{
    static char text[256];
    static char *argv[32];
    size_t n = 0;

    (void)snprintf(text, sizeof text, "%s", line);
    for (char *rest = text, *word; (word = strsep(&rest, " "));) {
        if (*word)
            argv[n++] = word;
    }
    argv[n] = NULL;
    err_clear(err);
    return args_parse(commands, argv, a, help, err);
}

static void test_options(void **state)
{
    static const struct {
        const char *line, *words, *name;
        size_t arguments;
    } good[] = {
        {"thing", "thing", NULL, 0},
        {"thing --name=x", "thing", "x", 0},
        {"thing --name x --name y", "thing", "y", 0},
        {"thing -jn x", "thing", "x", 0},
        {"thing -nx", "thing", "x", 0},
        {"thing make a", "thing make", NULL, 1},
        {"thing make a --name z b", "thing make", "z", 2},
        {"thing --name q make a", "thing make", "q", 1},
        {"thing make -- --name", "thing make", NULL, 1},
        {"thing make -", "thing make", NULL, 1},
        {"deep er word", "deep er word", NULL, 0},
    };
    struct err err = ERR_INIT;
    struct args a;
    bool help;

    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        int r = parse(good[i].line, &a, &help, &err);
        if (r != 0)
            fail_msg("'%s': %s", good[i].line, err.text);
        assert_string_equal(a.command->words, good[i].words);
        assert_int_equal(a.words.count, good[i].arguments);
        assert_false(help);
        if (a.command->options && a.command != &commands[3]) {
            const char *name = args_text(&a, "--name");
            assert_true(!name == !good[i].name);
            if (name)
                assert_string_equal(name, good[i].name);
        }
        args_release(&a);
    }
}

static void test_options_wrong(void **state)
{
    static const char *const bad[] = {"",
                                      "nothing",
                                      "thin",
                                      "thing other",
                                      "thing --nam x",
                                      "thing --name",
                                      "thing --json=1",
                                      "thing -x",
                                      "thing make",
                                      "thing make a b c",
                                      "thing --json make a", /* make has no --json */
                                      "deep",
                                      "deep er",
                                      "deep er word x",
                                      "-j"};
    struct err err = ERR_INIT;
    struct args a;
    bool help;

    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        int r = parse(bad[i], &a, &help, &err);
        if (r != -EINVAL || !*err.text)
            fail_msg("'%s' gave %d: %s", bad[i], r, err.text);
        args_release(&a);
    }
}

static void test_options_spelling(void **state)
{
    struct err err = ERR_INIT;
    struct args a;
    bool help;

    assert_int_equal(parse("thing make a --long-name 1", &a, &help, &err), 0);
    assert_string_equal(args_text(&a, "--long_name"), "1");
    args_release(&a);
    assert_int_equal(parse("thing make a --long_name=2", &a, &help, &err), 0);
    assert_string_equal(args_text(&a, "--long_name"), "2");
    args_release(&a);
    assert_int_equal(parse("thing make a __long_name 2", &a, &help, &err), -EINVAL);
    args_release(&a);
}

static void test_options_help(void **state)
{
    struct err err = ERR_INIT;
    struct args a;
    bool help;

    assert_int_equal(parse("thing make --help", &a, &help, &err),
                     0); /* although SOURCE is missing */
    assert_true(help);
    assert_string_equal(a.command->words, "thing make");
    args_release(&a);
    assert_int_equal(parse("run prog --help", &a, &help, &err), 0);
    assert_false(help); /* the program's */
    args_release(&a);
}

static void test_options_rest(void **state)
{
    struct err err = ERR_INIT;
    struct args a;
    bool help;

    assert_int_equal(
        parse("run --data_name a --data_name=b prog --data_name c -x", &a, &help, &err), 0);
    assert_int_equal(a.options.count, 2);
    assert_string_equal(a.options.at[0].value, "a");
    assert_string_equal(a.options.at[1].value, "b");
    assert_string_equal(a.rest[0], "prog");
    assert_string_equal(a.rest[3], "-x");
    assert_null(a.rest[4]);
    args_release(&a);

    assert_int_equal(parse("run --data_name a -- --odd", &a, &help, &err), 0);
    assert_string_equal(a.rest[0], "--odd");
    args_release(&a);
    assert_int_equal(parse("run", &a, &help, &err), 0);
    assert_null(a.rest);
    args_release(&a);
    assert_int_equal(parse("run --gpus 4 prog", &a, &help, &err), -ENOTSUP);
    assert_string_equal(err.text, "no machines are rented here");
    args_release(&a);
}

/* ---- numbers ---- */

static void test_numbers(void **state)
{
    uint32_t version = 7;
    uint64_t bytes = 7;

    assert_int_equal(parse_version("1", &version), 0);
    assert_int_equal(version, 1);
    assert_int_equal(parse_version("4000000000", &version), 0);
    assert_int_equal(version, 4000000000u);
    static const char *const no_versions[] = {
        "", "0", "-1", "+1", " 1", "1 ", "1x", "4000000001", "99999999999999999999999"};
    for (size_t i = 0; i < sizeof no_versions / sizeof *no_versions; i++)
        assert_int_equal(parse_version(no_versions[i], &version), -EINVAL);
    assert_int_equal(version, 4000000000u);

    assert_int_equal(parse_bytes("0", &bytes), 0);
    assert_int_equal(bytes, 0);
    assert_int_equal(parse_bytes("64M", &bytes), 0);
    assert_int_equal(bytes, 64u << 20);
    assert_int_equal(parse_bytes("2GiB", &bytes), 0);
    assert_true(bytes == UINT64_C(2) << 30);
    assert_int_equal(parse_bytes("3T", &bytes), 0);
    static const char *const no_bytes[] = {
        "", "M", "1X", "1MB", "1Mi", "-1M", "1M1", "99999999999T", "18446744073709551616"};
    for (size_t i = 0; i < sizeof no_bytes / sizeof *no_bytes; i++)
        assert_int_equal(parse_bytes(no_bytes[i], &bytes), -EINVAL);
}

/* ---- configuration ---- */

static char config_path[64];

static void write_config(const char *text)
{
    int fd = open(config_path, O_WRONLY | O_CREAT | O_TRUNC, 0600);

    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
    assert_int_equal(close(fd), 0);
}

static void count_warning(void *ctx, const char *sentence)
{
    assert_non_null(strstr(sentence, config_path));
    (*(int *)ctx)++;
}

static void test_config(void **state)
{
    struct config c = {0};
    struct err err = ERR_INIT;
    int warnings = 0;

    write_config("# a comment\n; another\n\n[cluster big]\nstore = file:///mnt/big \r\n"
                 "  region=eu\nkernel_mount = yes\nstore_is_coherent = yes\nshape = round\n"
                 "[ user ]\ncontext = big\n[future]\nkey = value\n[cluster other]\n");
    assert_int_equal(config_read(&c, config_path, true, count_warning, &warnings, &err), 0);
    assert_int_equal(warnings, 3); /* shape, [future], its key */
    assert_string_equal(c.context, "big");
    const struct cluster *big = config_cluster(&c, "big");
    assert_non_null(big);
    assert_string_equal(big->store, "file:///mnt/big");
    assert_true(big->kernel_mount && big->coherent);
    assert_int_equal(big->line, 4);
    assert_null(config_cluster(&c, "other")->store);
    assert_null(config_cluster(&c, "none"));

    /* A user's file overrides key by key, but cannot open a store to the kernel. */
    write_config("[cluster big]\nstore = /elsewhere\n[cluster mine]\nkernel_mount = yes\n");
    assert_int_equal(config_read(&c, config_path, false, NULL, NULL, &err), 0);
    assert_string_equal(config_cluster(&c, "big")->store, "/elsewhere");
    assert_true(config_cluster(&c, "big")->coherent);
    assert_false(config_cluster(&c, "mine")->kernel_mount);
    config_release(&c);
}

static void test_config_wrong(void **state)
{
    static const struct {
        const char *text;
        unsigned line;
    } bad[] = {
        {"nonsense\n", 1},
        {"\n[cluster]x\n", 2},
        {"[cluster A]\n", 1},
        {"[cluster a\n", 1},
        {"[cluster a]\nkernel_mount = perhaps\n", 2},
        {"[user]\n\ncontext = No Name\n", 3},
        {"[cluster 0123456789012345678901234567890123456789012345678901234567890123]\n", 1},
    };
    char where[128];

    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct config c = {0};
        struct err err = ERR_INIT;
        write_config(bad[i].text);
        assert_int_equal(config_read(&c, config_path, true, NULL, NULL, &err), -EINVAL);
        (void)snprintf(where, sizeof where, "%s:%u: ", config_path, bad[i].line);
        if (!strstr(err.text, where))
            fail_msg("'%s' does not name %s", err.text, where);
        config_release(&c);
    }

    struct config c = {0};
    struct err err = ERR_INIT;
    assert_int_equal(unlink(config_path), 0);
    assert_int_equal(config_read(&c, config_path, true, NULL, NULL, &err), 0); /* none is fine */
    int fd = open(config_path, O_WRONLY | O_CREAT, 0600);
    assert_int_equal(ftruncate(fd, CONFIG_SIZE_MAX + 1), 0);
    assert_int_equal(close(fd), 0);
    assert_int_equal(config_read(&c, config_path, true, NULL, NULL, &err), -EINVAL);
    config_release(&c);
}

static void check_context(const char *before, const char *name, const char *after)
{
    struct err err = ERR_INIT;
    char text[4096] = "";

    if (before)
        write_config(before);
    else
        (void)unlink(config_path);
    assert_int_equal(config_set_context(config_path, name, &err), 0);
    int fd = open(config_path, O_RDONLY);
    assert_true(fd >= 0);
    assert_true(read(fd, text, sizeof text - 1) >= 0);
    (void)close(fd);
    assert_string_equal(text, after);
}

static void test_config_context(void **state)
{
    check_context(NULL, "a", "[user]\ncontext = a\n");
    check_context("[user]\ncontext = a\n", "b", "[user]\ncontext = b\n");
    check_context("# mine\n[user]\n# keep\n  context=a\n[cluster a]\nstore = /x", "b",
                  "# mine\n[user]\ncontext = b\n# keep\n[cluster a]\nstore = /x\n");
    check_context("[cluster a]\ncontext = no\n", "b",
                  "[cluster a]\ncontext = no\n\n[user]\ncontext = b\n");
    check_context("[user]\ncontext = a\ncontext = c\n", "b", "[user]\ncontext = b\n");
}

/* ---- text ---- */

static void check_escaped(const char *text, size_t length, const char *expected)
{
    AUTO(buf_release) struct buf b = BUF_INIT(4096);

    assert_int_equal(escape_text(&b, text, length), 0);
    assert_string_equal(buf_text(&b), expected);
}

static void test_escape(void **state)
{
    check_escaped("plain \xc3\xa9 \xe6\xbc\xa2 \xf0\x9f\x98\x80", 17,
                  "plain \xc3\xa9 \xe6\xbc\xa2 \xf0\x9f\x98\x80");
    check_escaped("a\033[2Jb\n\t", 8, "a\\x1b[2Jb\\x0a\\x09");
    check_escaped("\0z", 2, "\\x00z");
    check_escaped("\x7f\xc2\x85", 3, "\\x7f\\xc2\\x85");          /* DEL, C1 */
    check_escaped("\xe2\x80\xae", 3, "\\xe2\\x80\\xae");          /* right to left */
    check_escaped("\xc0\xaf", 2, "\\xc0\\xaf");                   /* overlong */
    check_escaped("\xed\xa0\x80", 3, "\\xed\\xa0\\x80");          /* surrogate */
    check_escaped("\xf4\x90\x80\x80", 4, "\\xf4\\x90\\x80\\x80"); /* beyond Unicode */
    check_escaped("\xe6\xbc", 2, "\\xe6\\xbc");                   /* cut off */
    check_escaped("\xffx", 2, "\\xffx");
}

static void test_table(void **state)
{
    static const char *const columns[] = {"Name", ">Size", "Last"};
    AUTO(table_free) struct table *t = table_new(columns, 3);
    static const char *const cells[] = {
        "a", "10.5", "x", "longer-name", "1.0", "y\n", "\xe6\xbc\xa2", "100000.0", ""};
    char *text = NULL;
    size_t size;

    assert_non_null(t);
    for (size_t i = 0; i < 9; i++)
        table_add(t, cells[i]);
    FILE *out = open_memstream(&text, &size);
    assert_int_equal(table_print(t, out), 0);
    assert_int_equal(fclose(out), 0);
    assert_string_equal(text, "Name             Size  Last\n"
                              "a                10.5  x\n"
                              "longer-name       1.0  y\\x0a\n"
                              "\xe6\xbc\xa2           100000.0  \n");
    free(text);
}

static void test_figures(void **state)
{
    char t[FIGURE_MAX];

    assert_string_equal(figure_count(0, t), "0");
    assert_string_equal(figure_count(999, t), "999");
    assert_string_equal(figure_count(1000, t), "1,000");
    assert_string_equal(figure_count(UINT64_MAX, t), "18,446,744,073,709,551,615");
    assert_string_equal(figure_things(1, "file", t), "1 file");
    assert_string_equal(figure_things(2000, "file", t), "2,000 files");
    assert_string_equal(figure_bytes(1, t), "1 byte");
    assert_string_equal(figure_bytes(1023, t), "1,023 bytes");
    assert_string_equal(figure_bytes(1024, t), "1.0 KiB");
    assert_string_equal(figure_bytes(1048575, t), "1.0 MiB");
    assert_string_equal(figure_bytes(UINT64_MAX, t), "16.0 EiB");
    assert_string_equal(figure_seconds(59, t), "0:59");
    assert_string_equal(figure_seconds(3661, t), "1:01:01");
    assert_string_equal(figure_utc_time(0, t), "1970-01-01T00:00:00Z");
    assert_string_equal(figure_utc_time(-1, t), "1969-12-31T23:59:59Z");
    assert_string_equal(figure_utc_time(INT64_C(1700000000123), t), "2023-11-14T22:13:20Z");
    (void)figure_utc_time(INT64_MAX, t); /* the year does not fit: any text, no overflow */
    (void)figure_local_time(INT64_MIN, t);
}

static void test_progress(void **state)
{
    struct progress p = {.phase = "Storing",
                         .files = 500,
                         .files_total = 1000,
                         .bytes = 512u << 20,
                         .bytes_total = 1024u << 20};
    char line[256];

    progress_format(&p, 4, 200, line, sizeof line);
    assert_string_equal(line, "Storing [###############...............] 50% 500/1,000 files "
                              "512.0 MiB/1.0 GiB 128.0 MiB/s 0:05 left");
    p.bytes_total = 900u << 20;
    progress_format(&p, 4, 80, line, sizeof line);
    assert_string_equal(line, "Storing [#####.....] 56% 500/1,000 files 512.0/900.0 MiB "
                              "128.0 MiB/s 0:04 left");
    for (size_t columns = 0; columns < 100; columns++) {
        progress_format(&p, 4, columns, line, sizeof line);
        assert_true(strlen(line) <= columns);
    }
    progress_format(&p, 0, 79, line, sizeof line);
    assert_null(strstr(line, "/s")); /* no rate yet */

    p = (struct progress){.phase = "Looking", .files = 12345};
    progress_format(&p, 1, 79, line, sizeof line);
    assert_string_equal(line, "Looking 12,345 files");
    p = (struct progress){.phase = "Storing", .files = 3, .files_total = 3};
    progress_format(&p, 1, 79, line, sizeof line);
    assert_non_null(strstr(line, "100%"));
}

/* ---- references and walks ---- */

static void test_references(void **state)
{
    struct err err = ERR_INIT;
    char name[64] = "untouched";
    uint32_t version = 9;
    const char *path;

    assert_int_equal(reference_parse("imagenet", name, &version, &path, &err), 0);
    assert_string_equal(name, "imagenet");
    assert_int_equal(version, 0);
    assert_string_equal(path, "");
    assert_int_equal(reference_parse("a:12/dir/f:1", name, &version, &path, &err), 0);
    assert_string_equal(name, "a");
    assert_int_equal(version, 12);
    assert_string_equal(path, "dir/f:1");
    assert_int_equal(reference_parse("a/x:y", name, &version, &path, &err), 0);
    assert_int_equal(version, 0);
    assert_string_equal(path, "x:y");

    static const char *const bad[] = {
        "",    ":1",           "/x",
        "A",   "a:",           "a:0",
        "a:x", "a:-1",         "a:1:2",
        "a b", "a:4000000001", "0123456789012345678901234567890123456789012345678901234567890123"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        err_clear(&err);
        assert_int_equal(reference_parse(bad[i], name, &version, &path, &err), -EINVAL);
        assert_true(*err.text != '\0');
    }
    assert_string_equal(name, "a");
}

static void test_walk_order(void **state)
{
    static const char *const ascending[] = {"a",   "a/b", "a/b/c", "a/c", "a!",  "a-b",
                                            "a.b", "a0",  "ab",    "b",   "\xff"};
    size_t n = sizeof ascending / sizeof *ascending;

    for (size_t i = 0; i < n; i++) {
        for (size_t j = 0; j < n; j++) {
            int order = walk_compare(ascending[i], ascending[j]);
            assert_int_equal(order < 0 ? -1 : order > 0, i < j ? -1 : i > j);
        }
    }
}

static void test_json(void **state)
{
    json_t *o = json_object();

    assert_int_equal(json_set_bytes(o, "path", "\xc3\xa9", 2), 0);
    assert_string_equal(json_string_value(json_object_get(o, "path")), "\xc3\xa9");
    assert_null(json_object_get(o, "path_bytes"));
    assert_int_equal(json_set_bytes(o, "path", "a\xff", 2), 0);
    assert_string_equal(json_string_value(json_object_get(o, "path")), "a\xef\xbf\xbd");
    assert_string_equal(json_string_value(json_object_get(o, "path_bytes")), "61ff");
    json_decref(o);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_options),
        cmocka_unit_test(test_options_wrong),
        cmocka_unit_test(test_options_spelling),
        cmocka_unit_test(test_options_help),
        cmocka_unit_test(test_options_rest),
        cmocka_unit_test(test_numbers),
        cmocka_unit_test(test_config),
        cmocka_unit_test(test_config_wrong),
        cmocka_unit_test(test_config_context),
        cmocka_unit_test(test_escape),
        cmocka_unit_test(test_table),
        cmocka_unit_test(test_figures),
        cmocka_unit_test(test_progress),
        cmocka_unit_test(test_references),
        cmocka_unit_test(test_walk_order),
        cmocka_unit_test(test_json),
    };

    (void)snprintf(config_path, sizeof config_path, "/tmp/test-cli-%d", (int)getpid());
    setlocale(LC_CTYPE, "C.UTF-8");
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    (void)unlink(config_path);
    return failed;
}
