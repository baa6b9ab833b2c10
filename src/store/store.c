/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The front of every store: keys are checked here, once, so that no implementation meets a key that
 * could leave its root or that another store would refuse. Also opening by location.
 *
 * It knows no store beyond the table below.
 */
#include "store/store-internal.h"

#include <assert.h>

/* A file name on every file system we know. */
#define STORE_COMPONENT_MAX 255
/* What store_get_all() asks for before it knows the length: records fit, so they take one request.
 */
#define STORE_FIRST_GET (64u << 10)

static int open_memory(const char *rest, unsigned flags, const struct store_options *options,
                       struct store **ret, struct err *err)
{
    if (*rest)
        return err_fail(err, -EINVAL, "the store location memory:%s is not \"memory:\"", rest);
    return store_memory_new(ret);
}

static int open_directory(const char *rest, unsigned flags, const struct store_options *options,
                          struct store **ret, struct err *err)
{
    return store_directory_open(rest, flags, ret, err);
}

/* What a location may begin with. `skip`: bytes that are not handed to `open`. */
static const struct store_kind {
    const char *begins;
    size_t skip;
    int (*open)(const char *rest, unsigned flags, const struct store_options *options,
                struct store **ret, struct err *err);
} store_kinds[] = {
    {"/", 0, open_directory},
    {"file:///", 7, open_directory},
    {"memory:", 7, open_memory},
    {"s3:", 0, store_s3_open},
};

int store_open(const char *location, unsigned flags, struct store **ret, struct err *err)
{
    return store_open_with(location, flags, NULL, ret, err);
}

int store_open_with(const char *location, unsigned flags, const struct store_options *options,
                    struct store **ret, struct err *err)
{
    static const struct store_options none = {0};

    for (size_t i = 0; i < sizeof store_kinds / sizeof *store_kinds; i++) {
        const struct store_kind *kind = &store_kinds[i];
        if (strncmp(location, kind->begins, strlen(kind->begins)) != 0)
            continue;
        int r = kind->open(location + kind->skip, flags, options ? options : &none, ret, err);
        return r < 0 ? err_fail(err, r, "cannot open the store %s: %s", location, strerror(-r)) : 0;
    }
    return err_fail(err, -EINVAL,
                    "the store location \"%s\" is neither an absolute path, nor file:///path, nor "
                    "s3://bucket/prefix",
                    location);
}

void store_close(struct store *s)
{
    if (s)
        s->ops->close(s);
}

int store_init(struct store *s, const struct store_ops *ops, const char *location)
{
    s->ops = ops;
    s->location = strdup(location);
    return s->location ? 0 : -ENOMEM;
}

void store_release(struct store *s)
{
    free(s->location);
    s->location = NULL;
}

/* ---- keys ---- */

static bool is_key_char(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || c == '.' ||
           c == '_' || c == '-';
}

bool store_component_is_valid(const char *name, size_t length)
{
    if (length == 0 || length > STORE_COMPONENT_MAX || name[0] == '.')
        return false;
    for (size_t i = 0; i < length; i++) {
        if (!is_key_char(name[i]))
            return false;
    }
    return true;
}

/* `length` bytes of `text` are components joined by '/'. */
static bool are_components(const char *text, size_t length)
{
    for (size_t start = 0;;) {
        const char *slash = memchr(text + start, '/', length - start);
        size_t end = slash ? (size_t)(slash - text) : length;
        if (!store_component_is_valid(text + start, end - start))
            return false;
        if (!slash)
            return true;
        start = end + 1;
    }
}

bool store_key_is_valid(const char *key)
{
    size_t length = strnlen(key, STORE_KEY_MAX + 1);

    return length <= STORE_KEY_MAX && are_components(key, length);
}

/* Anything that some valid key begins with, or a whole key. */
static bool prefix_is_valid(const char *prefix)
{
    size_t length = strnlen(prefix, STORE_KEY_MAX + 1);

    if (length == 0)
        return true;
    if (length > STORE_KEY_MAX)
        return false;
    return are_components(prefix, prefix[length - 1] == '/' ? length - 1 : length);
}

/* ---- verbs ---- */

int store_put_if_absent(struct store *s, const char *key, struct bytes body)
{
    assert(body.data || body.size == 0);
    if (!store_key_is_valid(key))
        return -EINVAL;
    if (body.size > STORE_PUT_MAX)
        return -EFBIG;
    return s->ops->put_if_absent(s, key, body);
}

int store_get(struct store *s, const char *key, uint64_t offset, void *data, size_t size,
              size_t *ret_size, uint64_t *ret_length)
{
    assert((data || size == 0) && ret_size);
    if (!store_key_is_valid(key))
        return -EINVAL;
    return s->ops->get(s, key, offset, data, size, ret_size, ret_length);
}

int store_get_async(struct store *s, const char *key, uint64_t offset, void *data, size_t size,
                    store_done_fn *done, void *ctx)
{
    assert(data && size);
    if (!store_has_async(s))
        return -EOPNOTSUPP;
    if (!store_key_is_valid(key))
        return -EINVAL;
    return s->ops->get_async(s, key, offset, data, size, done, ctx);
}

bool store_has_async(const struct store *s)
{
    return s->ops->get_async != NULL;
}

bool store_is_quick(struct store *s)
{
    return s->ops->is_quick && s->ops->is_quick(s);
}

/* Appends from `offset` of the object up to `size` bytes to `b`. */
static int get_append(struct store *s, const char *key, uint64_t offset, size_t size, struct buf *b,
                      size_t *ret_size, uint64_t *ret_length)
{
    size_t before = b->size, got = 0;
    uint8_t *place;
    int r = buf_extend(b, size, &place);

    if (r < 0)
        return r;
    r = store_get(s, key, offset, place, size, &got, ret_length);
    b->size = before + (r < 0 ? 0 : got);
    b->data[b->size] = 0;
    if (r == 0)
        *ret_size = got;
    return r;
}

int store_get_all(struct store *s, const char *key, struct buf *b)
{
    size_t before = b->size, room = b->max - b->size, got;
    uint64_t length;
    int r =
        get_append(s, key, 0, room < STORE_FIRST_GET ? room : STORE_FIRST_GET, b, &got, &length);

    if (r == 0 && length > room)
        r = -EFBIG;
    if (r == 0 && length > got) {
        size_t rest = (size_t)length - got;
        r = get_append(s, key, got, rest, b, &got, NULL);
        if (r == 0 && got != rest)
            r = -EIO; /* an object never shrinks: the medium failed */
    }
    if (r < 0 && b->data) {
        b->size = before;
        b->data[before] = 0;
    }
    return r;
}

int store_list(struct store *s, const char *prefix, const struct store_list_options *options,
               store_list_fn *fn, void *ctx, int64_t *ret_now_ms)
{
    static const struct store_list_options all = {0};

    assert(prefix && fn);
    if (!prefix_is_valid(prefix))
        return -EINVAL;
    return s->ops->list(s, prefix, options ? options : &all, fn, ctx, ret_now_ms);
}

int store_remove(struct store *s, const char *key)
{
    if (!store_key_is_valid(key))
        return -EINVAL;
    return s->ops->remove(s, key);
}

int store_upload(struct store *s, const char *key, struct store_upload **ret)
{
    if (!store_key_is_valid(key))
        return -EINVAL;
    return s->ops->upload(s, key, ret);
}

int store_upload_write(struct store_upload *u, const void *data, size_t size)
{
    assert(data || size == 0);
    return size ? u->store->ops->upload_write(u, data, size) : 0;
}

int store_upload_commit(struct store_upload *u)
{
    return u->store->ops->upload_commit(u);
}

void store_upload_abort(struct store_upload *u)
{
    if (u)
        u->store->ops->upload_abort(u);
}

int store_space(struct store *s, struct store_space *ret)
{
    return s->ops->space(s, ret);
}

int store_open_local(struct store *s, const char *key, int *ret_fd)
{
    if (!store_key_is_valid(key))
        return -EINVAL;
    return s->ops->open_local ? s->ops->open_local(s, key, ret_fd) : -EOPNOTSUPP;
}

int store_probe(struct store *s, struct store_probe *ret, struct err *err)
{
    struct store_probe none = {.versioning = -1, .lifecycle = -1, .replication = -1};

    if (s->ops->probe)
        return s->ops->probe(s, ret, err);
    *ret = none;
    return 0;
}

const char *store_error(struct store *s, int code)
{
    static _Thread_local char sentence[1024];

    return s->ops->explain && s->ops->explain(s, code, sentence, sizeof sentence) ? sentence
                                                                                  : strerror(-code);
}
