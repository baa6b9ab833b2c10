/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The S3 client against a server that does wrong: one test for each
 * tests/fake-s3/OPERATION/SYMPTOM.json (tests/lib/fake-s3.py says what stands in them). A new fault
 * of a known operation is a new file.
 *
 * Each asserts the result, words of the sentence, what is in the bucket afterwards, how many
 * requests were made, and that the faults fired. Delays are zero: the jitter's random is.
 */
#include "s3/s3.h"

#include "base/file.h"
#include "http/http.h"

#include <fcntl.h>
#include <glob.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <cmocka.h>

#define SCENARIOS   GOLDEN_DIR "/../fake-s3"
#define OBJECT_SIZE 100000u
#define UPLOAD_SIZE (11u << 20)

static struct {
    pid_t pid;
    int to_fake; /* closing it ends the fake */
    unsigned port;
    struct http *http;
    char scratch[64];
} fake;

static void start_fake(void)
{
    int in[2], out[2];
    char line[16] = "";

    assert_int_equal(pipe2(in, O_CLOEXEC), 0);
    assert_int_equal(pipe2(out, O_CLOEXEC), 0);
    fake.pid = fork();
    assert_true(fake.pid >= 0);
    if (fake.pid == 0) {
        (void)dup2(in[0], 0);
        (void)dup2(out[1], 1);
        (void)execlp("python3", "python3", SCENARIOS "/../lib/fake-s3.py", SCENARIOS, (char *)NULL);
        _exit(127);
    }
    (void)close(in[0]);
    (void)close(out[1]);
    fake.to_fake = in[1];
    assert_true(file_read(out[0], line, 1) == 1);
    for (size_t n = 1; n < sizeof line - 1 && line[n - 1] != '\n'; n++)
        assert_true(file_read(out[0], line + n, 1) == 1);
    (void)close(out[0]);
    fake.port = (unsigned)strtoul(line, NULL, 10);
    assert_in_range(fake.port, 1, 65535);
}

static int set_up(void **state)
{
    struct err err = ERR_INIT;

    start_fake();
    (void)snprintf(fake.scratch, sizeof fake.scratch, "%s", "/tmp/test-s3-XXXXXX");
    assert_non_null(mkdtemp(fake.scratch));
    assert_int_equal(http_new(&(struct http_options){.connections = 2}, &fake.http, &err), 0);
    return 0;
}

static int tear_down(void **state)
{
    http_free(fake.http);
    (void)close(fake.to_fake);
    assert_int_equal(waitpid(fake.pid, NULL, 0), fake.pid);
    (void)rmdir(fake.scratch);
    return 0;
}

static void tell(const char *path, const char *text, struct buf *answer)
{
    struct http_response r;
    char url[128];

    (void)snprintf(url, sizeof url, "http://127.0.0.1:%u%s", fake.port, path);
    struct http_request q = {
        .method = "POST",
        .url = url,
        .body = bytes_str(text),
        .body_max = 1 << 20,
    };
    assert_int_equal(http_perform(fake.http, &q, &r), 0);
    assert_int_equal(r.status, 200);
    assert_int_equal(buf_append(answer, r.body.data, r.body.size), 0);
    http_response_release(&r);
}

/* ---- what a scenario asks for ---- */

struct scenario {
    struct s3_options options;
    struct env env;
    char result[32], words[256];
    char *names[16]; /* of variables that were set */
    size_t name_count;
    char files[8][160];
    size_t file_count;
};

static void zero_random(struct env *env, void *data, size_t size)
{
    memset(data, 0, size);
}

static void no_sleep(struct env *env, int64_t ms)
{
}

static void write_file(struct scenario *s, char *name_and_text)
{
    char *text = strchr(name_and_text, ' '), *to = text;
    AUTO(close_fd) int fd = -1;

    assert_non_null(text);
    *text++ = '\0';
    to = text;
    for (const char *p = text; *p; p++) { /* percent-encoded */
        unsigned c = (unsigned char)*p;
        if (c == '%') {
            assert_int_equal(sscanf(p + 1, "%2x", &c), 1);
            p += 2;
        }
        *to++ = (char)c;
    }
    char *path = s->files[s->file_count++];
    (void)snprintf(path, sizeof s->files[0], "%s/%s", fake.scratch, name_and_text);
    fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0700);
    assert_true(fd >= 0);
    assert_int_equal(file_write(fd, text, (size_t)(to - text)), 0);
}

static void set_variable(struct scenario *s, char *name_and_value)
{
    char *value = strchr(name_and_value, ' '), full[512];

    assert_non_null(value);
    *value++ = '\0';
    if (strncmp(value, "{DIR}", 5) == 0)
        (void)snprintf(full, sizeof full, "%s%s", fake.scratch, value + 5);
    else
        (void)snprintf(full, sizeof full, "%s", value);
    assert_int_equal(setenv(name_and_value, full, 1), 0);
    s->names[s->name_count++] = strdup(name_and_value);
}

static void read_directions(struct scenario *s, char *text)
{
    char *save = NULL;

    for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
        char *value = strchr(line, ' ');
        assert_non_null(value);
        *value++ = '\0';
        if (strcmp(line, "result") == 0)
            (void)snprintf(s->result, sizeof s->result, "%s", value);
        else if (strcmp(line, "words") == 0)
            (void)snprintf(s->words, sizeof s->words, "%s", value);
        else if (strcmp(line, "attempt_ms") == 0)
            s->options.attempt_ms = strtol(value, NULL, 10);
        else if (strcmp(line, "total_ms") == 0)
            s->options.total_ms = strtol(value, NULL, 10);
        else if (strcmp(line, "role_arn") == 0)
            s->options.role_arn = strdup(value);
        else if (strcmp(line, "env") == 0)
            set_variable(s, value);
        else if (strcmp(line, "file") == 0)
            write_file(s, value);
        else
            fail_msg("the scenario has an option that is not known: %s", line);
    }
}

static void begin(const char *name, struct scenario *s, struct s3 **ret)
{
    static const char *const variables[] = {
        "AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_REGION", "AWS_ENDPOINT_URL", "http_proxy",
    };
    AUTO(buf_release) struct buf text = BUF_INIT(1 << 20);
    struct err err = ERR_INIT;
    char endpoint[64];

    for (size_t i = 0; i < sizeof variables / sizeof *variables; i++)
        (void)unsetenv(variables[i]);
    (void)setenv("AWS_ACCESS_KEY_ID", "AKfake", 1);
    (void)setenv("AWS_SECRET_ACCESS_KEY", "SKfake", 1);
    (void)setenv("HOME", "/nonexistent", 1);
    *s = (struct scenario){.env = *env_real()};
    tell("/_scenario", name, &text);
    read_directions(s, (char *)text.data);
    (void)snprintf(endpoint, sizeof endpoint, "http://127.0.0.1:%u", fake.port);
    s->env.random = zero_random;
    s->env.sleep_ms = no_sleep;
    s->options.env = &s->env;
    s->options.endpoint = endpoint;
    if (s3_new(&s->options, ret, &err) < 0)
        fail_msg("s3_new: %s", err.text);
}

static void end(struct scenario *s)
{
    for (size_t i = 0; i < s->name_count; i++) {
        (void)unsetenv(s->names[i]);
        free(s->names[i]);
    }
    for (size_t i = 0; i < s->file_count; i++)
        (void)unlink(s->files[i]);
    free((char *)s->options.role_arn);
}

/* ---- the operations ---- */

static void make_pattern(uint8_t *data, size_t size)
{
    for (size_t i = 0; i < size; i++)
        data[i] = (uint8_t)(i * 7 + i / 251);
}

static int run_get(struct s3 *s, struct err *err)
{
    static uint8_t data[OBJECT_SIZE], expected[OBJECT_SIZE];
    size_t got = 0;

    memset(data, 0xee, sizeof data);
    make_pattern(expected, sizeof expected);
    int r = s3_get(s, "b", "key", 1000, data, 50000, NULL, &got, NULL, err);
    if (r == 0) {
        assert_int_equal(got, 50000);
        assert_memory_equal(data, expected + 1000, got);
    }
    for (size_t i = 50000; i < sizeof data; i++) /* nothing may come behind the range */
        assert_int_equal(data[i], 0xee);
    return r;
}

static int run_get_pinned(struct s3 *s, struct err *err)
{
    struct s3_object pin = {.size = OBJECT_SIZE};
    char data[100];
    size_t got;

    (void)snprintf(pin.etag, sizeof pin.etag, "0123456789abcdef0123456789abcdef");
    return s3_get(s, "b", "key", 0, data, sizeof data, &pin, &got, NULL, err);
}

static int run_head(struct s3 *s, struct err *err)
{
    struct s3_object o;

    int r = s3_head(s, "b", "key", &o, err);
    if (r == 0)
        assert_int_equal(o.size, OBJECT_SIZE);
    return r;
}

static int run_put(struct s3 *s, struct err *err)
{
    return s3_put(s, "b", "new", bytes_str("our body"), true, err);
}

static int run_delete(struct s3 *s, struct err *err)
{
    return s3_delete(s, "b", "key", err);
}

static int count_row(void *ctx, const struct s3_entry *e)
{
    ++*(unsigned *)ctx;
    return 0;
}

static int run_list(struct s3 *s, struct err *err)
{
    unsigned rows = 0;

    int r = s3_list(s, "b", &(struct s3_list_options){.prefix = "k", .page = 3}, count_row, &rows,
                    NULL, err);
    if (r == 0)
        assert_int_equal(rows, 10);
    return r;
}

static int run_upload(struct s3 *s, struct err *err)
{
    struct s3_upload *u = NULL;
    uint8_t *data = malloc(UPLOAD_SIZE);

    assert_non_null(data);
    make_pattern(data, UPLOAD_SIZE);
    assert_int_equal(s3_upload_new(s, "b", "new", 5u << 20, 2, &u, err), 0);
    int r = s3_upload_write(u, data, UPLOAD_SIZE, NULL);
    r = s3_upload_commit(u, true, err);
    free(data);
    return r;
}

/* Reads until all that was expected has happened beside: an end, not a measure of time. */
static int run_renewal(struct s3 *s, struct err *err)
{
    for (int i = 0; i < 3000; i++) {
        AUTO(buf_release) struct buf verdict = BUF_INIT(1 << 20);
        int r = run_get(s, err);
        tell("/_verdict", "", &verdict);
        if (r < 0 || strcmp(buf_text(&verdict), "ok") == 0)
            return r;
        (void)usleep(5000);
    }
    return 0;
}

static const struct {
    const char *name;
    int (*run)(struct s3 *s, struct err *err);
} operations[] = {
    {"get", run_get},       {"get-pinned", run_get_pinned}, {"head", run_head},
    {"put", run_put},       {"delete", run_delete},         {"list", run_list},
    {"upload", run_upload}, {"credentials", run_get},       {"renewal", run_renewal},
};

static const char *name_of(int code)
{
    static const struct {
        int code;
        const char *name;
    } names[] = {
        {0, "OK"},
        {-EIO, "EIO"},
        {-EPROTO, "EPROTO"},
        {-EACCES, "EACCES"},
        {-ENOENT, "ENOENT"},
        {-ENXIO, "ENXIO"},
        {-EEXIST, "EEXIST"},
        {-ESTALE, "ESTALE"},
        {-ENOSPC, "ENOSPC"},
        {-ETIMEDOUT, "ETIMEDOUT"},
        {-EOPNOTSUPP, "EOPNOTSUPP"},
    };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (names[i].code == code)
            return names[i].name;
    return strerror(-code);
}

static void run_scenario(void **state)
{
    const char *name = *state;
    AUTO(buf_release) struct buf verdict = BUF_INIT(1 << 20);
    AUTO(s3_free) struct s3 *s = NULL;
    struct scenario scenario;
    struct err err = ERR_INIT;
    size_t op = 0, count = sizeof operations / sizeof *operations, n = strcspn(name, "/");

    while (op < count &&
           (strlen(operations[op].name) != n || strncmp(operations[op].name, name, n)))
        op++;
    assert_true(op < count);
    begin(name, &scenario, &s);
    int r = operations[op].run(s, &err);
    if (strcmp(name_of(r), scenario.result) != 0 || !strstr(err.text, scenario.words))
        fail_msg("%s \"%s\", not %s \"%s\"", name_of(r), err.text, scenario.result, scenario.words);
    assert_true((r == 0) == (err.text[0] == '\0'));
    assert_null(strstr(err.text, "SKfake"));
    assert_null(strstr(err.text, "secret words"));
    tell("/_verdict", "", &verdict);
    if (strcmp(buf_text(&verdict), "ok") != 0)
        fail_msg("%s", buf_text(&verdict));
    end(&scenario);
}

int main(void)
{
    glob_t files;
    size_t top = strlen(SCENARIOS) + 1;

    if (glob(SCENARIOS "/*/*.json", 0, NULL, &files) != 0)
        return 1;
    struct CMUnitTest *tests = calloc(files.gl_pathc, sizeof *tests);
    if (!tests)
        return 1;
    for (size_t i = 0; i < files.gl_pathc; i++) {
        char *name = files.gl_pathv[i] + top;
        name[strlen(name) - strlen(".json")] = '\0';
        tests[i] =
            (struct CMUnitTest){.name = name, .test_func = run_scenario, .initial_state = name};
    }
    int failed = _cmocka_run_group_tests("s3-fault", tests, files.gl_pathc, set_up, tear_down);
    free(tests);
    globfree(&files);
    return failed;
}
