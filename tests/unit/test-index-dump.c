/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The text form of an index: golden dumps, round trips, and dumps that must be refused.
 *
 * Each tests/golden/index-*.dump is parsed, written (its image has the SHA-256 in the .digest
 * file), opened, checked and dumped again. `test-index-dump build DUMP FILE` writes the image of a
 * dump, for tests that show it to the kernel.
 */
#include "index/index.h"

#include <fcntl.h>
#include <glob.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "base/file.h"

#define IMAGE_MAX (256u << 20) /* the largest image that these tests make */

static int to_buf(void *ctx, const void *data, size_t size)
{
    return buf_append(ctx, data, size);
}

static int from_buf(void *ctx, uint64_t offset, void *data, size_t size)
{
    const struct buf *b = ctx;
    assert_true(offset <= b->size && size <= b->size - offset);
    memcpy(data, b->data + offset, size);
    return 0;
}

static FILE *open_text(const char *text, size_t size)
{
    FILE *f = tmpfile();
    assert_non_null(f);
    assert_int_equal(fwrite(text, 1, size, f), size);
    rewind(f);
    return f;
}

/* Parse and write. */
static int image_of(FILE *in, struct buf *image, struct err *err)
{
    struct index_dump_parsed p = {0};
    struct index_summary summary;
    int r = index_dump_parse(in, &p, err);
    if (r < 0)
        return r;
    r = index_write(p.tree, p.devices, p.device_count, p.device_of, p.device_count, to_buf, image,
                    &summary, err);
    index_dump_parsed_release(&p);
    if (r == 0)
        assert_int_equal(summary.size, image->size);
    return r;
}

static char *dump_of(const struct buf *image, size_t *ret_size)
{
    struct err err = ERR_INIT;
    AUTO(index_close) struct index *x = NULL;
    char *text = NULL;
    int r = index_open(from_buf, (void *)image, image->size, &x, &err);
    if (r < 0)
        fail_msg("open: %s", err_text(&err, r));
    r = index_check(x, NULL, &err);
    if (r < 0)
        fail_msg("check: %s", err_text(&err, r));
    FILE *out = open_memstream(&text, ret_size);
    assert_non_null(out);
    r = index_dump(x, out, &err);
    if (r < 0)
        fail_msg("dump: %s", err_text(&err, r));
    assert_int_equal(fclose(out), 0);
    return text;
}

static void slurp(const char *path, struct buf *b)
{
    buf_init(b, IMAGE_MAX);
    int r = file_slurp(AT_FDCWD, path, b);
    if (r < 0)
        fail_msg("%s: %s", path, strerror(-r));
}

static void check_golden(const char *path)
{
    AUTO(buf_release) struct buf text, want;
    AUTO(buf_release) struct buf image = BUF_INIT(IMAGE_MAX);
    AUTO(free_ptr) char *again = NULL;
    struct err err = ERR_INIT;
    char digest_path[4096], hex[DIGEST_HEX_SIZE];
    size_t again_size;
    slurp(path, &text);
    (void)snprintf(digest_path, sizeof digest_path, "%.*s.digest", (int)(strlen(path) - 5), path);
    slurp(digest_path, &want);
    AUTO(close_file) FILE *in = open_text(buf_text(&text), text.size);
    int r = image_of(in, &image, &err);
    if (r < 0)
        fail_msg("%s: %s", path, err_text(&err, r));
    again = dump_of(&image, &again_size);
    for (size_t i = 0, line = 1; i < text.size && i < again_size; i++) {
        if (again[i] != (char)text.data[i])
            fail_msg("%s: line %zu comes out as \"%.100s\"", path, line, again + i);
        line += again[i] == '\n';
    }
    assert_int_equal(again_size, text.size);
    struct digest digest = digest_of(image.data, image.size);
    digest_to_hex(&digest, hex);
    assert_int_equal(want.size, 2 * DIGEST_SIZE + 1);
    assert_memory_equal(hex, want.data, 2 * DIGEST_SIZE);
}

static void each_file(const char *pattern, size_t least, void (*fn)(const char *path))
{
    glob_t found;
    char full[4096];
    (void)snprintf(full, sizeof full, "%s/%s", GOLDEN_DIR, pattern);
    assert_int_equal(glob(full, 0, NULL, &found), 0);
    assert_true(found.gl_pathc >= least);
    for (size_t i = 0; i < found.gl_pathc; i++)
        fn(found.gl_pathv[i]);
    globfree(&found);
}

static void test_golden(void **state)
{
    each_file("index-*.dump", 3, check_golden);
}

/* The first line of each says, behind "# ", what the sentence must contain. */
static void check_refused(const char *path)
{
    AUTO(buf_release) struct buf text;
    AUTO(buf_release) struct buf image = BUF_INIT(IMAGE_MAX);
    struct err err = ERR_INIT;
    slurp(path, &text);
    char *line_end = memchr(buf_text(&text), '\n', text.size);
    assert_non_null(line_end);
    assert_memory_equal(text.data, "# ", 2);
    *line_end = '\0';
    const char *expected = buf_text(&text) + 2;
    size_t skip = (size_t)(line_end + 1 - buf_text(&text));
    AUTO(close_file) FILE *in = open_text(line_end + 1, text.size - skip);
    int r = image_of(in, &image, &err);
    if (r == 0)
        fail_msg("%s was taken", path);
    if (!strstr(err_text(&err, r), expected))
        fail_msg("%s: \"%s\" does not say \"%s\"", path, err_text(&err, r), expected);
    assert_int_equal(image.size, 0);
}

static void test_refused(void **state)
{
    each_file("should-fail-*.dump", 20, check_refused);
}

/* A link and what it leads to may change places: the image is the same, and so is its dump. */
static void test_links_have_one_form(void **state)
{
    static const char one[] = "grid-index-dump 1\n"
                              "/ directory 0555 0.000000000\n"
                              "/a file 0444 1.000000000 0 user.x=\n"
                              "/b hardlink /a\n"
                              "/d directory 0555 0.000000000\n"
                              "/d/c hardlink /a\n";
    static const char two[] = "grid-index-dump 1\n"
                              "/ directory 0555 0.000000000\n"
                              "/a hardlink /d/c\n"
                              "/b hardlink /d/c\n"
                              "/d directory 0555 0.000000000\n"
                              "/d/c file 0444 1.000000000 0 user.x=\n";
    AUTO(buf_release) struct buf image1 = BUF_INIT(IMAGE_MAX), image2 = BUF_INIT(IMAGE_MAX);
    AUTO(close_file) FILE *in1 = open_text(one, strlen(one)), *in2 = open_text(two, strlen(two));
    size_t size;
    assert_int_equal(image_of(in1, &image1, NULL), 0);
    assert_int_equal(image_of(in2, &image2, NULL), 0);
    assert_int_equal(image1.size, image2.size);
    assert_memory_equal(image1.data, image2.data, image1.size);
    AUTO(free_ptr) char *text = dump_of(&image2, &size);
    assert_string_equal(text, one);
}

/* No byte of a dump can be lost without notice, and no prefix of one is taken for a whole line. */
static void test_cut_dumps(void **state)
{
    static const char text[] = "grid-index-dump 1\n/ directory 0555 0.000000000\n"
                               "/a symlink 0777 0.000000000 b user.a=01\n";
    size_t root_end = (size_t)(strchr(strchr(text, '\n') + 1, '\n') + 1 - text);
    for (size_t cut = 0; cut < sizeof text - 1; cut++) {
        AUTO(buf_release) struct buf image = BUF_INIT(IMAGE_MAX);
        AUTO(close_file) FILE *in = open_text(text, cut);
        struct err err = ERR_INIT;
        int r = image_of(in, &image, &err);
        assert_int_equal(r, cut == root_end ? 0 : -EINVAL);
        assert_true(r == 0 || err.text[0] != '\0');
    }
}

/* A writer that fails at some byte gives an error, not a short dump. */
static void test_dump_to_full_disk(void **state)
{
    static const char text[] = "grid-index-dump 1\n/ directory 0555 0.000000000\n";
    AUTO(buf_release) struct buf image = BUF_INIT(IMAGE_MAX);
    AUTO(close_file) FILE *in = open_text(text, strlen(text)), *full = fopen("/dev/full", "w");
    AUTO(index_close) struct index *x = NULL;
    struct err err = ERR_INIT;
    assert_non_null(full);
    assert_int_equal(image_of(in, &image, &err), 0);
    assert_int_equal(index_open(from_buf, &image, image.size, &x, &err), 0);
    assert_int_equal(index_dump(x, full, &err), -EIO);
    assert_string_equal(err.text, "the dump of the index could not be written");
}

static int build(const char *dump, const char *path)
{
    AUTO(buf_release) struct buf image = BUF_INIT(IMAGE_MAX);
    AUTO(close_file) FILE *in = fopen(dump, "re"), *out = fopen(path, "we");
    struct err err = ERR_INIT;
    if (!in || !out)
        return 1;
    int r = image_of(in, &image, &err);
    if (r < 0) {
        (void)fprintf(stderr, "%s: %s\n", dump, err_text(&err, r));
        return 1;
    }
    return fwrite(image.data, 1, image.size, out) != image.size || fflush(out) != 0;
}

int main(int argc, char **argv)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_golden),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_links_have_one_form),
        cmocka_unit_test(test_cut_dumps),
        cmocka_unit_test(test_dump_to_full_disk),
    };
    if (argc == 4 && strcmp(argv[1], "build") == 0)
        return build(argv[2], argv[3]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
