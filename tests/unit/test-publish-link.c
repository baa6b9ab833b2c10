/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Publishing without copying: nothing of a file is read, each byte of each file has a row in a
 * table of links that names its object, also where large objects go over several devices; and what
 * cannot be linked is refused without a version.
 */
#include "publish-fixture.h"

#include "link/link.h"

/* ---- a bucket, made of a directory -------------------------------------------------------------
 */

struct bucket {
    struct source base;
    struct source *below;
    bool is_plain; /* no bucket at all */
    bool unpinned; /* listings say nothing of what the objects are */
    char *texts[1000];
    size_t text_count;
};

struct bucket_dir {
    struct source_dir base;
    struct source_dir *below;
    char path[4096];
};

static struct bucket *bucket_of(struct source *s)
{
    return (struct bucket *)s;
}

static const char *keep(struct bucket *b, char *text)
{
    assert_true(b->text_count < sizeof b->texts / sizeof *b->texts);
    b->texts[b->text_count++] = text;
    return text;
}

static int bucket_open_dir(struct source *s, const char *path, struct source_dir **ret)
{
    struct bucket_dir *d = calloc(1, sizeof *d);

    assert_int_equal(source_open_dir(bucket_of(s)->below, path, &d->below), 0);
    d->base.source = s;
    (void)snprintf(d->path, sizeof d->path, "%s%s", path, *path ? "/" : "");
    *ret = &d->base;
    return 0;
}

static void bucket_close_dir(struct source_dir *d)
{
    source_close_dir(((struct bucket_dir *)d)->below);
    free(d);
}

/* ETags are short. */
static const char *tail(const char *name)
{
    size_t n = strlen(name);

    return n > 20 ? name + n - 20 : name;
}

static int bucket_list(struct source_dir *d, struct source_listing *ret)
{
    struct bucket_dir *x = (struct bucket_dir *)d;
    struct bucket *b = bucket_of(d->source);
    int r = source_list(x->below, ret);

    for (size_t i = 0; r == 0 && i < ret->count; i++) {
        struct source_entry *e = &ret->entries[i];
        char *key = NULL, *etag = NULL;
        if (e->stat.type != SOURCE_FILE)
            continue;
        assert_true(asprintf(&key, "pre/%s%s", x->path, e->name) > 0);
        assert_true(asprintf(&etag, "etag-of-%s", tail(e->name)) > 0);
        e->pin.key = keep(b, key);
        e->pin.etag = keep(b, etag);
        if (b->unpinned)
            e->pin.etag = NULL;
        e->pin.version_id = e->stat.size % 2 ? "version" : NULL;
    }
    return r;
}

static int bucket_dir_stat(struct source_dir *d, struct source_stat *ret)
{
    return source_dir_stat(((struct bucket_dir *)d)->below, ret);
}

static int bucket_dir_xattrs(struct source_dir *d, struct buf *b)
{
    return 0;
}

static int bucket_open_file(struct source_dir *d, const char *name, struct source_file **ret)
{
    assert_string_equal(name, ".gridignore"); /* nothing else is opened */
    return -ENOENT;
}

static const struct source_bucket *bucket_place(struct source *s)
{
    static const struct source_bucket place = {.bucket = "photos",
                                               .prefix = "pre/",
                                               .endpoint = "http://s3.test:9000",
                                               .region = "here",
                                               .addressing = "path"};

    return bucket_of(s)->is_plain ? NULL : &place;
}

static void bucket_close(struct source *s)
{
    struct bucket *b = bucket_of(s);

    for (size_t i = 0; i < b->text_count; i++)
        free(b->texts[i]);
    source_close(b->below);
    free(b);
}

static const struct source_ops bucket_ops = {
    .open_dir = bucket_open_dir,
    .close_dir = bucket_close_dir,
    .list = bucket_list,
    .dir_stat = bucket_dir_stat,
    .dir_xattrs = bucket_dir_xattrs,
    .open_file = bucket_open_file,
    .bucket = bucket_place,
    .close = bucket_close,
};

static struct bucket *open_bucket(struct fixture *f)
{
    struct bucket *b = calloc(1, sizeof *b);

    assert_int_equal(source_directory_open(f->source, &b->below, &f->err), 0);
    b->base.ops = &bucket_ops;
    b->base.location = strdup("s3://photos/pre/");
    f->o.linked = true;
    return b;
}

static void publish_from(struct fixture *f, struct source *s)
{
    int r = try_publish_from(f, s);

    if (r < 0)
        print_error("publish: %s\n", f->err.text);
    assert_int_equal(r, 0);
}

/* ---- reading tables back -----------------------------------------------------------------------
 */

struct linked {
    struct manifest manifest;
    struct fetch *fetch;
    struct fetch_object *index_object;
    struct index *index;
    struct fetch_object *tables[8];
    struct link_header headers[8];
};

static int read_image(void *ctx, uint64_t offset, void *data, size_t size)
{
    return fetch_read(ctx, offset, data, size, FETCH_NO_HINT);
}

static struct fetch_object *open_object(struct linked *l, char letter, enum pack_kind kind,
                                        const struct object_ref *ref)
{
    struct pack_summary s = {.digest = ref->digest,
                             .length = ref->length,
                             .data_size = ref->data_size,
                             .leaf_count = ref->leaf_count,
                             .trailer_offset = object_ref_trailer_offset(ref),
                             .trailer_length = ref->trailer_length};
    struct fetch_object *o = NULL;
    char key[OBJECT_KEY_MAX];

    object_ref_key(letter, ref, key);
    assert_int_equal(fetch_object_new(l->fetch, key, kind, &s, &o), 0);
    return o;
}

static void open_linked(struct fixture *f, struct linked *l)
{
    uint8_t page[LINK_PAGE];

    memset(l, 0, sizeof *l);
    assert_int_equal(catalogue_manifest(f->catalogue, &f->result.info, &l->manifest, &f->err), 0);
    assert_true(l->manifest.linked && f->result.info.linked);
    assert_int_equal(fetch_new(&(struct fetch_options){.store = f->store}, &l->fetch), 0);
    l->index_object = open_object(l, 'x', PACK_KIND_INDEX, &l->manifest.index);
    assert_int_equal(
        index_open(read_image, l->index_object, l->manifest.index_size, &l->index, &f->err), 0);
    assert_int_equal(index_device_count(l->index), l->manifest.pack_count);
    for (uint32_t i = 0; i < l->manifest.pack_count; i++) {
        const struct object_ref *ref = &l->manifest.packs[i];
        assert_true(ref->linked && i < 8);
        l->tables[i] = open_object(l, 'p', PACK_KIND_LINKS, ref);
        assert_int_equal(
            fetch_read(l->tables[i], ref->data_size - LINK_PAGE, page, LINK_PAGE, FETCH_NO_HINT),
            0);
        assert_int_equal(link_header_parse(page, ref->data_size, &l->headers[i]), 0);
        assert_true(l->headers[i].blocks == ref->used_blocks);
        assert_true(l->headers[i].blocks == index_device_blocks(l->index, i + 1));
        assert_string_equal(l->headers[i].place.bucket, "photos");
        assert_string_equal(l->headers[i].place.prefix, "pre/");
        assert_string_equal(l->headers[i].place.endpoint, "http://s3.test:9000");
        assert_int_equal(l->headers[i].place.addressing, LINK_ADDRESSING_PATH);
    }
}

static void close_linked(struct linked *l)
{
    for (unsigned i = 0; i < 8; i++)
        fetch_object_free(l->tables[i]);
    index_close(l->index);
    fetch_object_free(l->index_object);
    fetch_free(l->fetch);
    manifest_release(&l->manifest);
}

/* Every chunk of the file stands in a row that names this object, at this offset of it. */
static void check_file(struct linked *l, const char *path, uint64_t size, unsigned *ret_devices)
{
    const char *name = strrchr(path, '/') ? strrchr(path, '/') + 1 : path;
    uint8_t page[LINK_PAGE];
    char etag[300];
    struct index_inode file;
    unsigned devices = 0;

    (void)snprintf(etag, sizeof etag, "etag-of-%s", tail(name));
    assert_int_equal(index_walk(l->index, path, &file), 0);
    assert_true(file.size == size);
    for (uint64_t at = 0; at < size; at += PACK_BLOB_MAX) {
        struct index_extent e;
        struct link_row row;
        assert_int_equal(index_map(l->index, &file, at, &e), 0);
        assert_true(e.device >= 1);
        devices |= 1u << e.device;
        /* A small file's inode knows the page; else all are looked at. */
        uint32_t pages = l->headers[e.device - 1].row_pages, p = 0;
        int r = -ENOENT;
        for (p = size <= PACK_BLOB_MAX ? file.leaf_hint : 0; r == -ENOENT && p < pages; p++) {
            assert_int_equal(fetch_read(l->tables[e.device - 1], (uint64_t)p * LINK_PAGE, page,
                                        LINK_PAGE, FETCH_NO_HINT),
                             0);
            assert_int_equal(link_rows_check(page), 0);
            r = link_rows_find(page, (uint32_t)e.block, &row);
            assert_true(r == 0 || size > PACK_BLOB_MAX);
        }
        assert_int_equal(r, 0);
        assert_true(row.size == size);
        assert_true(row.offset + (e.block - row.block) * PACK_BLOCK == at);
        assert_int_equal(row.key.size, strlen(path));
        assert_memory_equal(row.key.data, path, row.key.size);
        assert_int_equal(row.etag.size, strlen(etag));
        assert_memory_equal(row.etag.data, etag, row.etag.size);
        assert_int_equal(row.version.size, size % 2 ? 7 : 0);
        assert_true(row.mtime_ms == file.mtime_s * 1000 + file.mtime_ns / 1000000);
    }
    *ret_devices = (unsigned)__builtin_popcount(devices);
}

/* ---- tests -------------------------------------------------------------------------------------
 */

static void no_sleep(struct env *env, int64_t ms)
{
}

static void put_sparse(const struct fixture *f, const char *name, uint64_t size)
{
    put_size(f, name, 0, 1);
    assert_int_equal(truncate(at(f, name), (off_t)size), 0);
}

static void every_file_has_its_row(void **state)
{
    struct fixture *f = *state;
    struct linked l;
    char name[300];
    unsigned devices, i;

    assert_int_equal(mkdir(at(f, "d"), 0755), 0);
    for (i = 0; i < 300; i++) {
        (void)snprintf(name, sizeof name, "%s%0*u", i % 2 ? "d/" : "", (int)(1 + i % 200), i);
        put_sparse(f, name, i * 700);
    }
    struct bucket *b = open_bucket(f);
    publish_from(f, &b->base);
    source_close(&b->base);
    assert_true(f->result.info.files == 300 && f->result.bytes_read == 0);
    assert_true(f->result.files_unchanged == 0);
    open_linked(f, &l);
    assert_true(l.manifest.pack_count == 1 && l.headers[0].row_pages > 2);
    for (i = 0; i < 300; i++) {
        (void)snprintf(name, sizeof name, "%s%0*u", i % 2 ? "d/" : "", (int)(1 + i % 200), i);
        check_file(&l, name, i * 700, &devices);
    }
    close_linked(&l);
}

static void large_objects_go_over_several_devices(void **state)
{
    struct fixture *f = *state;
    const uint64_t chunk = PACK_BLOB_MAX / PACK_BLOCK;
    struct linked l;
    unsigned devices;

    put_sparse(f, "a", 100);
    put_sparse(f, "b-large", 7 * PACK_BLOB_MAX + 5);
    put_sparse(f, "c", 3 << 20);
    put_sparse(f, "d-large", PACK_BLOB_MAX + 1);
    put_sparse(f, "e", PACK_BLOB_MAX);
    f->o.linked_blocks_max = 3 * chunk + 2;
    struct bucket *b = open_bucket(f);
    publish_from(f, &b->base);
    source_close(&b->base);
    open_linked(f, &l);
    assert_true(l.manifest.pack_count >= 4);
    check_file(&l, "a", 100, &devices);
    check_file(&l, "b-large", 7 * PACK_BLOB_MAX + 5, &devices);
    assert_int_equal(devices, 3);
    check_file(&l, "c", 3 << 20, &devices);
    check_file(&l, "d-large", PACK_BLOB_MAX + 1, &devices);
    check_file(&l, "e", PACK_BLOB_MAX, &devices);
    close_linked(&l);
}

static void an_empty_prefix_is_a_version_too(void **state)
{
    struct fixture *f = *state;
    struct linked l;

    put_sparse(f, "empty", 0);
    struct bucket *b = open_bucket(f);
    publish_from(f, &b->base);
    source_close(&b->base);
    open_linked(f, &l);
    assert_int_equal(l.manifest.pack_count, 0);
    close_linked(&l);
}

static void what_is_no_bucket_is_not_linked(void **state)
{
    struct fixture *f = *state;
    struct version_info info;

    put_sparse(f, "a", 100);
    struct bucket *b = open_bucket(f);
    b->is_plain = true;
    assert_int_equal(try_publish_from(f, &b->base), -EINVAL);
    assert_non_null(strstr(f->err.text, "s3://photos/pre/"));
    assert_int_equal(catalogue_resolve(f->catalogue, "cats", 0, &info, NULL), -ENOENT);
    b->is_plain = false;
    b->unpinned = true;
    assert_int_equal(try_publish_from(f, &b->base), -EINVAL);
    assert_non_null(strstr(f->err.text, "pre/a"));
    assert_int_equal(catalogue_resolve(f->catalogue, "cats", 1, &info, NULL), -ENOENT);
    b->unpinned = false;
    publish_from(f, &b->base);
    assert_int_equal(f->result.info.version, 2); /* the failed one keeps its number */
    source_close(&b->base);
}

/* A copy after links stores everything, links after a copy nothing; and nothing is lost. */
static void on_finding(void *ctx, const char *rule, const char *text)
{
    print_error("%s: %s\n", rule, text);
}

static void versions_may_take_turns(void **state)
{
    struct fixture *f = *state;
    struct fsck_report report;

    put_size(f, "a", 70000, 1);
    struct bucket *b = open_bucket(f);
    publish_from(f, &b->base);
    f->o.linked = false;
    publish(f);
    assert_true(f->result.bytes_read == 70000 && f->result.packs_reused == 0);
    assert_same(f, 2);
    f->o.linked = true;
    publish_from(f, &b->base);
    source_close(&b->base);
    f->o.linked = false;
    publish(f);
    assert_same(f, 4);
    assert_int_equal(catalogue_fsck(f->store, on_finding, NULL, &report, &f->err), 0);
    assert_true(report.findings == 0 && report.unnamed_objects == 0);
}

/* A call of the store fails, each in turn, and so do all behind it: no version is seen that is not
 * whole, and the next publish is as if nothing had been. */
static void faults_of_the_store_leave_nothing(void **state)
{
    struct fixture *f = *state;
    struct env impatient = *env_real();
    unsigned fired = 0;

    impatient.sleep_ms = no_sleep;
    put_sparse(f, "a", 100);
    put_sparse(f, "b", 20 << 20);
    for (uint64_t n = 1; n < 1000; n++) {
        struct store *memory = NULL, *fault = NULL;
        struct store_fault_plan plan = {
            .nth = n / 2 + 1, .code = -EIO, .after = n % 2, .forever = true};
        struct fixture g = *f;
        struct fsck_report report;
        assert_int_equal(store_memory_new(&memory), 0);
        assert_int_equal(store_fault_new(memory, &plan, &fault), 0); /* closes it, at the end */
        struct bucket *b = open_bucket(&g);
        g.store = memory;
        g.o.ctx = &g;
        g.catalogue = NULL;
        int r = catalogue_open(fault, &impatient, CATALOGUE_WRITE, &g.catalogue, &g.err);
        if (r == 0)
            r = try_publish_from(&g, &b->base);
        catalogue_close(g.catalogue);
        bool hit = store_fault_fired(fault);
        fired += hit && r < 0;
        assert_int_equal(catalogue_open(memory, env_real(), CATALOGUE_WRITE, &g.catalogue, &g.err),
                         0);
        publish_from(&g, &b->base);
        assert_int_equal(catalogue_fsck(memory, on_finding, NULL, &report, &g.err), 0);
        assert_int_equal(report.findings, 0);
        /* What answered with an error may have landed all the same. */
        assert_true(report.available == 1u + (r == 0) || (report.available == 2 && hit));
        source_close(&b->base);
        catalogue_close(g.catalogue);
        store_close(fault);
        if (!hit)
            break;
    }
    assert_true(fired > 8);
}

static void an_interruption_gives_it_up(void **state)
{
    struct fixture *f = *state;
    struct version_info info;

    put_sparse(f, "a", 100);
    struct bucket *b = open_bucket(f);
    f->o.interrupted = &f->stop;
    f->stop = 1;
    assert_int_equal(try_publish_from(f, &b->base), -ECANCELED);
    f->stop = 0;
    assert_int_equal(catalogue_resolve(f->catalogue, "cats", 1, &info, NULL), -ENOENT);
    publish_from(f, &b->base);
    assert_int_equal(f->result.info.version, 2);
    assert_int_equal(f->notices[PUBLISH_NOTICE_RESUMED], 0);
    source_close(&b->base);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(every_file_has_its_row),           TEST(large_objects_go_over_several_devices),
        TEST(an_empty_prefix_is_a_version_too), TEST(what_is_no_bucket_is_not_linked),
        TEST(versions_may_take_turns),          TEST(faults_of_the_store_leave_nothing),
        TEST(an_interruption_gives_it_up),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
