/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What publish keeps on the machine: the log of what is known, whatever happens to its bytes; the
 * files around it; and the two small machines beside it, .gridignore patterns and the table of
 * known blobs.
 */
#include "publish/publish-dedup.h"
#include "publish/publish-ignore.h"
#include "publish/publish-log.h"
#include "publish/publish-state.h"
#include "publish/publish.h"

#include "base/file.h"
#include "base/le.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static char root[64];

static int setup(void **state)
{
    (void)snprintf(root, sizeof root, "/tmp/grid-test-state-XXXXXX");
    return mkdtemp(root) ? 0 : -1;
}

static int teardown(void **state)
{
    pid_t pid = fork();

    if (pid == 0) {
        execlp("rm", "rm", "-rf", root, (char *)NULL);
        _exit(127);
    }
    return waitpid(pid, NULL, 0) == pid ? 0 : -1;
}

static struct log_identity identity(const char *name)
{
    struct log_identity id = {.store_id = "0123456789abcdef0123456789abcdef",
                              .store = "file:///store",
                              .source = "/data/source",
                              .append = true};

    (void)snprintf(id.name, sizeof id.name, "%s", name);
    return id;
}

/* ---- the log ----------------------------------------------------------------------------------
 */

#define FILES 40u /* in each of two directories */

static struct tree_chunk row_of(void *ctx, uint64_t i)
{
    return (struct tree_chunk){.pack = 1, .block = (uint32_t)(i * 16384), .leaf = (uint32_t)i};
}

/* A function of its number, so that a reader can tell whether an entry is what was written. */
static struct log_entry entry_of(unsigned i, char name[static 16])
{
    struct log_entry e = {.size = i == 0   ? 0
                                  : i == 3 ? 20u << 20
                                           : 100 + i,
                          .inode = 1000 + i,
                          .mtime = {-5 + (int64_t)i, i},
                          .ctime = {1700000000 + (int64_t)i, 999999999 - i},
                          .mtime_settled = i % 2,
                          .chunk = {.pack = (uint16_t)(i % 2), .block = 7 * i, .leaf = i},
                          .chunk_count = 3};

    (void)snprintf(name, 16, "file%05u", i);
    e.name = name;
    e.name_length = 9;
    e.where = i == 0 ? LOG_EMPTY : i == 3 ? LOG_MANY : i == 4 ? LOG_HOLE : LOG_ONE;
    if (i == 5)
        e.xattrs = bytes_of("a\0\1\0x", 5);
    return e;
}

static struct object_ref ref_of(unsigned number)
{
    struct object_ref ref = {.seq = number + 7,
                             .length = 70000 + number,
                             .data_size = 512 * 100,
                             .leaf_count = 50,
                             .trailer_length = 100,
                             .born = 3};

    memset(ref.session.byte, 0x11 * (int)(number + 1), 16);
    memset(ref.digest.byte, 0xa0 + (int)number, DIGEST_SIZE);
    return ref;
}

static void write_log(const char *path)
{
    struct log_identity id = identity("cats");
    struct log_session session = {.version = 9, .started_ms = 12345};
    struct log_writer *w = NULL;
    struct digest manifest;
    char name[16];
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    assert_true(fd >= 0);
    memset(manifest.byte, 0x5a, DIGEST_SIZE);
    memset(session.session.byte, 0x77, 16);
    assert_int_equal(log_writer_new(fd, &id, &w), 0);
    for (unsigned n = 0; n < 2; n++) {
        struct object_ref ref = ref_of(n);
        log_writer_pack(w, (uint16_t)n, &ref);
    }
    for (unsigned d = 0; d < 2; d++) {
        log_writer_directory(w, d ? "a/b" : "", d ? 3 : 0);
        for (unsigned i = 0; i < FILES; i++) {
            struct log_entry e = entry_of(i, name);
            log_writer_entry(w, &e, row_of, NULL);
        }
    }
    log_writer_session(w, &session);
    log_writer_committed(w, &manifest);
    assert_int_equal(log_writer_flush(w), 0);
    log_writer_free(w);
}

/* An entry that is not what was written would be believed, and is the one thing that must not be.
 */
static int check_entry(void *ctx, const struct log_entry *e)
{
    unsigned *seen = ctx, i;
    char name[16];

    assert_int_equal(e->name_length, 9);
    assert_memory_equal(e->name, "file", 4);
    i = (unsigned)strtoul(e->name + 4, NULL, 10);
    assert_true(i < FILES);
    struct log_entry x = entry_of(i, name);
    assert_int_equal(e->where, x.where);
    assert_int_equal(e->size, x.size);
    assert_int_equal(e->inode, x.inode);
    assert_int_equal(e->mtime.s, x.mtime.s);
    assert_int_equal(e->mtime.ns, x.mtime.ns);
    assert_int_equal(e->ctime.s, x.ctime.s);
    assert_int_equal(e->ctime.ns, x.ctime.ns);
    assert_int_equal(e->mtime_settled, x.mtime_settled);
    assert_int_equal(e->xattrs.size, x.xattrs.size);
    if (x.xattrs.size)
        assert_memory_equal(e->xattrs.data, x.xattrs.data, x.xattrs.size);
    if (e->where == LOG_ONE) {
        assert_int_equal(e->chunk.pack, x.chunk.pack);
        assert_int_equal(e->chunk.block, x.chunk.block);
        assert_int_equal(e->chunk.leaf, x.chunk.leaf);
    }
    for (uint64_t c = 0; e->where == LOG_MANY && c < 3; c++)
        assert_int_equal(log_chunk(e, c).block, row_of(NULL, c).block);
    (*seen)++;
    return 0;
}

/* Opens it and checks everything that it says. Gives the number of entries; ~0: it is no log. */
static unsigned read_log(const char *path)
{
    struct log_reader *r = NULL;
    struct log_session session;
    struct digest manifest;
    unsigned seen = 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    assert_true(fd >= 0);
    if (log_reader_open(fd, &r) < 0)
        return ~0u;
    assert_string_equal(log_reader_identity(r)->name, "cats");
    assert_string_equal(log_reader_identity(r)->source, "/data/source");
    assert_true(log_reader_identity(r)->append);
    if (log_reader_session(r, &session)) {
        assert_int_equal(session.version, 9);
        assert_int_equal(session.started_ms, 12345);
        assert_int_equal(session.session.byte[5], 0x77);
    }
    if (log_reader_committed(r, &manifest))
        assert_int_equal(manifest.byte[31], 0x5a);
    for (unsigned n = 0; n < 4; n++) {
        struct object_ref ref, x = ref_of(n);
        if (!log_reader_pack(r, (uint16_t)n, &ref))
            continue;
        assert_true(n < 2);
        assert_memory_equal(ref.digest.byte, x.digest.byte, DIGEST_SIZE);
        assert_int_equal(ref.length, x.length);
        assert_int_equal(ref.seq, x.seq);
        assert_int_equal(ref.trailer_length, x.trailer_length);
    }
    assert_int_equal(log_reader_directory(r, "", 0, check_entry, &seen), 0);
    assert_int_equal(log_reader_directory(r, "a/b", 3, check_entry, &seen), 0);
    assert_int_equal(log_reader_directory(r, "a", 1, check_entry, &seen), 0);
    log_reader_free(r);
    return seen;
}

static void a_log_round_trips(void **state)
{
    struct log_reader *r = NULL;
    struct log_session session;
    struct digest manifest;
    struct object_ref ref;
    char path[128];

    (void)snprintf(path, sizeof path, "%s/log", root);
    write_log(path);
    assert_int_equal(read_log(path), 2 * FILES);
    assert_int_equal(log_reader_open(open(path, O_RDONLY | O_CLOEXEC), &r), 0);
    assert_true(log_reader_session(r, &session));
    assert_true(log_reader_committed(r, &manifest));
    assert_true(log_reader_pack(r, 0, &ref));
    assert_true(log_reader_pack(r, 1, &ref));
    assert_false(log_reader_pack(r, 2, &ref));
    assert_false(log_reader_pack(r, LOG_NO_PACK, &ref));
    log_reader_free(r);
}

static void every_flipped_byte_is_noticed(void **state)
{
    char path[128];
    struct buf whole = BUF_INIT(1 << 20);
    unsigned less = 0;

    (void)snprintf(path, sizeof path, "%s/flipped", root);
    write_log(path);
    assert_int_equal(file_slurp(AT_FDCWD, path, &whole), 0);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    for (size_t i = 0; i < whole.size; i++) {
        uint8_t wrong = whole.data[i] ^ (uint8_t)(1u << i % 8);
        assert_int_equal(file_pwrite(fd, &wrong, 1, (off_t)i), 0);
        less += read_log(path) != 2 * FILES; /* and what it gives was checked */
        assert_int_equal(file_pwrite(fd, &whole.data[i], 1, (off_t)i), 0);
    }
    (void)close(fd);
    assert_true(less > whole.size / 2); /* most of the log is entries */
    assert_int_equal(read_log(path), 2 * FILES);
    buf_release(&whole);
}

static void a_torn_log_is_a_prefix(void **state)
{
    char path[128];
    struct stat st;
    unsigned last = 2 * FILES;

    (void)snprintf(path, sizeof path, "%s/torn", root);
    write_log(path);
    assert_int_equal(stat(path, &st), 0);
    for (off_t size = st.st_size - 1; size >= 0; size--) {
        assert_int_equal(truncate(path, size), 0);
        unsigned seen = read_log(path);
        if (seen == ~0u) {
            assert_true(size < 400); /* not even its header */
            continue;
        }
        assert_true(seen <= last);
        last = seen;
    }
    assert_int_equal(last, 0);
}

static void a_large_directory_has_several_blocks(void **state)
{
    struct log_identity id = identity("cats");
    struct log_writer *w = NULL;
    struct log_reader *r = NULL;
    char path[128], name[16];
    unsigned seen = 0;

    (void)snprintf(path, sizeof path, "%s/large", root);
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    assert_int_equal(log_writer_new(fd, &id, &w), 0);
    log_writer_directory(w, "d", 1);
    for (unsigned i = 0; i < 20000; i++) {
        struct log_entry e = entry_of(i % FILES, name);
        log_writer_entry(w, &e, row_of, NULL);
    }
    assert_int_equal(log_writer_flush(w), 0);
    log_writer_free(w);
    assert_int_equal(log_reader_open(open(path, O_RDONLY | O_CLOEXEC), &r), 0);
    assert_int_equal(log_reader_directory(r, "d", 1, check_entry, &seen), 0);
    assert_int_equal(seen, 20000);
    log_reader_free(r);
}

/* ---- the files around it ------------------------------------------------------------------------
 */

#define TERMS "endpoint=https://s3.example.org\nprofile=lab\n"

static void begin_upload(const char *dir, const char *name, int64_t started)
{
    struct log_identity id = identity(name);
    struct log_session session = {.version = 4, .started_ms = started};
    struct state *s = NULL;
    struct log_writer *w = NULL;
    struct err err = ERR_INIT;

    if (name[0] == 'c') /* of a bucket, say */
        (void)snprintf(id.source_terms, sizeof id.source_terms, "%s", TERMS);
    assert_int_equal(state_open(dir, &id, &s, &err), 0);
    assert_int_equal(state_write(s, &w), 0);
    log_writer_session(w, &session);
    assert_int_equal(log_writer_flush(w), 0);
    assert_int_equal(state_promote(s), 0);
    log_writer_free(w);
    state_close(s);
}

struct pending_seen {
    unsigned count, running;
    char names[4][64];
};

static int collect(void *ctx, const struct publish_pending *p)
{
    struct pending_seen *seen = ctx;

    assert_int_equal(p->version, 4);
    assert_string_equal(p->source, "/data/source");
    assert_string_equal(p->source_terms, p->name[0] == 'c' ? TERMS : "");
    assert_string_equal(p->store, "file:///store");
    seen->running += p->running;
    memcpy(seen->names[seen->count++], p->name, 64);
    return 0;
}

static void one_at_a_time(void **state)
{
    struct log_identity id = identity("dogs"), other = identity("cats");
    struct state *s = NULL, *t = NULL;
    struct err err = ERR_INIT;
    char dir[128];

    (void)snprintf(dir, sizeof dir, "%s/deep/state", root);
    assert_int_equal(state_open(dir, &id, &s, &err), 0);
    assert_int_equal(state_open(dir, &id, &t, &err), -EBUSY);
    assert_non_null(strstr(err.text, "another process"));
    assert_null(t);
    err_clear(&err);
    assert_int_equal(state_open(dir, &other, &t, &err), 0);
    state_close(t);
    state_close(s);
    assert_int_equal(state_open(dir, &id, &s, &err), 0);
    state_close(s);
}

static void pending_and_cleared(void **state)
{
    struct pending_seen seen = {0};
    struct log_identity id = identity("dogs");
    struct log_reader *r = NULL;
    struct state *s = NULL;
    struct err err = ERR_INIT;
    unsigned count = 77;
    char dir[128];

    (void)snprintf(dir, sizeof dir, "%s/pending", root);
    assert_int_equal(publish_each_pending(dir, collect, &seen, &err), 0);
    assert_int_equal(publish_clear_state(dir, &count, &err), 0);
    assert_int_equal(count, 0);
    assert_int_equal(seen.count, 0);
    begin_upload(dir, "cats", 100);
    begin_upload(dir, "dogs", 300);
    begin_upload(dir, "apes", 200);
    assert_int_equal(publish_each_pending(dir, collect, &seen, &err), 0);
    assert_int_equal(seen.count, 3);
    assert_int_equal(seen.running, 0);
    assert_string_equal(seen.names[0], "dogs");
    assert_string_equal(seen.names[1], "apes");
    assert_string_equal(seen.names[2], "cats");

    /* One of them runs: it is said to, and is not forgotten. */
    assert_int_equal(state_open(dir, &id, &s, &err), 0);
    seen = (struct pending_seen){0};
    assert_int_equal(publish_each_pending(dir, collect, &seen, &err), 0);
    assert_int_equal(seen.count, 3);
    assert_int_equal(seen.running, 1);
    assert_int_equal(publish_clear_state(dir, &count, &err), -EBUSY);
    assert_int_equal(count, 2);
    assert_int_equal(state_read(s, STATE_JOURNAL, &r), 0);
    log_reader_free(r);
    state_close(s);
    err_clear(&err);
    assert_int_equal(publish_clear_state(dir, &count, &err), 0);
    assert_int_equal(count, 1);
    assert_int_equal(state_open(dir, &id, &s, &err), 0);
    assert_int_equal(state_read(s, STATE_JOURNAL, &r), -ENOENT);
    assert_int_equal(state_read(s, STATE_KNOWN, &r), -ENOENT);
    state_close(s);
}

/* ---- .gridignore --------------------------------------------------------------------------------
 */

static void ignore_table(void **state)
{
    static const struct {
        const char *patterns, *path;
        bool is_directory, ignored;
    } rows[] = {
        {"", "a", false, false},
        {"# a\n\n", "# a", false, false},
        {"\\#a", "#a", false, true},
        {"\\!a", "!a", false, true},
        {"*.pyc", "x.pyc", false, true},
        {"*.pyc", "deep/er/x.pyc", false, true},
        {"*.pyc", "x.pyc.txt", false, false},
        {"*.pyc\r\n", "x.pyc", false, true},
        {"a  ", "a", false, true},
        {"a\\ ", "a ", false, true},
        {"a\\ ", "a", false, false},
        {"/top", "top", false, true},
        {"/top", "sub/top", false, false},
        {"top", "sub/top", false, true},
        {"sub/top", "sub/top", false, true},
        {"sub/top", "x/sub/top", false, false},
        {"build/", "build", true, true},
        {"build/", "build", false, false},
        {"build/", "a/build", true, true},
        {"a/*.c", "a/x.c", false, true},
        {"a/*.c", "a/b/x.c", false, false},
        {"**/x", "x", false, true},
        {"**/x", "a/b/x", false, true},
        {"**/x", "a/xx", false, false},
        {"a/**", "a/b/c", false, true},
        {"a/**", "a", true, false},
        {"a/**/z", "a/z", false, true},
        {"a/**/z", "a/b/c/z", false, true},
        {"a/**/z", "b/a/z", false, false},
        {"a/**/b/**/c", "a/b/x/b/y/c", false, true},
        {"a**z", "abcz", false, true},
        {"a**z", "a/z", false, false},
        {"*a*b*c", "xxaxxbxxc", false, true},
        {"*a*b*c", "xxaxxbxx", false, false},
        {"x/*y*/z", "x/ayb/z", false, true},
        {"x/*y*/z", "x/a/yb/z", false, false},
        {"?", "a", false, true},
        {"?", "ab", false, false},
        {"a?b", "a/b", false, false},
        {"/a?b", "a/b", false, false},
        {"[abc]x", "bx", false, true},
        {"[!abc]x", "bx", false, false},
        {"[^abc]x", "dx", false, true},
        {"[a-f]x", "ex", false, true},
        {"[a-f]x", "gx", false, false},
        {"[]]x", "]x", false, true},
        {"[a-]x", "-x", false, true},
        {"/a[!b]c", "a/c", false, false},
        {"[", "[", false, false},
        {"[a", "a", false, false},
        {"\\*", "*", false, true},
        {"\\*", "a", false, false},
        {"*.log\n!keep.log", "keep.log", false, false},
        {"*.log\n!keep.log", "a/other.log", false, true},
        {"!keep.log\n*.log", "keep.log", false, true},
        {"*\n!*/\n!*.jpg", "a", true, false},
        {"*\n!*/\n!*.jpg", "a/x.jpg", false, false},
        {"*\n!*/\n!*.jpg", "a/x.txt", false, true},
        {"/", "a", true, false},
        {"!", "a", false, false},
        {"**", "a/b", false, true},
        {"\xff*", "\xff\xfe", false, true},
        {"[\x80-\xff]", "\xc3", false, true},
    };
    struct err err = ERR_INIT;

    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct ignore *g = NULL;
        assert_int_equal(ignore_parse(bytes_str(rows[i].patterns), &g, &err), 0);
        bool ignored = ignore_matches(g, rows[i].path, strlen(rows[i].path), rows[i].is_directory);
        if (ignored != rows[i].ignored)
            print_error("row %zu: '%s' and '%s'\n", i, rows[i].patterns, rows[i].path);
        assert_int_equal(ignored, rows[i].ignored);
        ignore_free(g);
    }
}

static void ignore_is_bounded(void **state)
{
    struct buf b = BUF_INIT(1 << 20);
    struct ignore *g = NULL;
    struct err err = ERR_INIT;

    for (unsigned i = 0; i < IGNORE_PATTERNS_MAX; i++)
        assert_int_equal(buf_append_str(&b, "x\n"), 0);
    assert_int_equal(ignore_parse(buf_bytes(&b), &g, &err), 0);
    ignore_free(g);
    g = NULL;
    assert_int_equal(buf_append_str(&b, "one more"), 0);
    assert_int_equal(ignore_parse(buf_bytes(&b), &g, &err), -EFBIG);
    assert_non_null(strstr(err.text, ".gridignore"));
    assert_null(g);
    buf_release(&b);
}

/* Stars over and over: the time must stay in bounds, and this test end. */
static void ignore_does_not_explode(void **state)
{
    struct ignore *g = NULL;
    struct err err = ERR_INIT;
    char pattern[401], path[4000];

    for (size_t i = 0; i < sizeof pattern - 1; i += 4)
        memcpy(pattern + i, "*a**", 4);
    pattern[sizeof pattern - 1] = 'b';
    memset(path, 'a', sizeof path);
    assert_int_equal(ignore_parse(bytes_of(pattern, sizeof pattern), &g, &err), 0);
    assert_false(ignore_matches(g, path, sizeof path, false));
    ignore_free(g);
}

/* ---- known blobs --------------------------------------------------------------------------------
 */

static struct digest id_of(uint64_t i)
{
    uint8_t number[8];

    le64_put(number, i);
    return digest_of(number, sizeof number);
}

static void blobs_are_found(void **state)
{
    struct dedup *d = NULL;
    struct dedup_place place;

    assert_int_equal(dedup_new(100000, &d), 0);
    for (uint32_t i = 0; i < 100000; i++) {
        struct digest id = id_of(i);
        assert_false(dedup_find(d, &id, &place));
        assert_int_equal(dedup_add(d, &id, (struct dedup_place){i, (uint16_t)(i % 60000)}), 0);
    }
    assert_int_equal(dedup_count(d), 100000);
    assert_true(dedup_memory(d) <= 100000 * 24 + 65536);
    for (uint32_t i = 0; i < 100000; i++) {
        struct digest id = id_of(i);
        assert_true(dedup_find(d, &id, &place));
        assert_int_equal(place.block, i);
        assert_int_equal(place.pack, i % 60000);
        /* The first one counts; and the table is full. */
        assert_int_equal(dedup_add(d, &id, (struct dedup_place){1, 1}), 0);
    }
    struct digest more = id_of(100001);
    assert_int_equal(dedup_add(d, &more, (struct dedup_place){1, 1}), 0);
    assert_false(dedup_find(d, &more, &place));
    assert_int_equal(dedup_count(d), 100000);
    dedup_free(d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_log_round_trips),
        cmocka_unit_test(every_flipped_byte_is_noticed),
        cmocka_unit_test(a_torn_log_is_a_prefix),
        cmocka_unit_test(a_large_directory_has_several_blocks),
        cmocka_unit_test(one_at_a_time),
        cmocka_unit_test(pending_and_cleared),
        cmocka_unit_test(ignore_table),
        cmocka_unit_test(ignore_is_bounded),
        cmocka_unit_test(ignore_does_not_explode),
        cmocka_unit_test(blobs_are_found),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
