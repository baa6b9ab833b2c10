/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One record: three lines of text (docs/formats/catalogue.md, "A record"). Pure: bytes in, bytes
 * out.
 *
 * The frame is checked first and stays the same in all future versions, so damage (-EBADMSG) is
 * told from a newer writer (-EPROTONOSUPPORT) and both from a body that breaks the rules (-EPROTO).
 * A damaged record never looks absent (I17).
 */
#include "catalogue/catalogue-internal.h"

#include "base/hex.h"

#include <inttypes.h>

#define FRAME_WORD  "grid-record "
#define DIGEST_WORD "sha256 "
/* "sha256 <64 digits>\n" */
#define DIGEST_LINE (sizeof DIGEST_WORD - 1 + 2 * DIGEST_SIZE + 1)

static const char *const type_names[] = {
    [RECORD_FORMAT] = "format",
    [RECORD_ALLOCATION] = "allocation",
    [RECORD_OUTCOME] = "outcome",
    [RECORD_DELETE_INTENT] = "delete-intent",
    [RECORD_DELETE_RESULT] = "delete-result",
    [RECORD_LEASE] = "lease",
    [RECORD_SESSION] = "session",
    [RECORD_HEARTBEAT] = "heartbeat",
    [RECORD_CONDEMNED] = "condemned",
    [RECORD_SWEEP] = "sweep",
    [RECORD_ROUND_END] = "round-end",
    [RECORD_AWAITED] = "awaited",
};
_Static_assert(sizeof type_names / sizeof *type_names == RECORD_TYPE_COUNT, "a name for each type");

const char *record_type_name(enum record_type type)
{
    return type_names[type];
}

int record_encode(enum record_type type, const json_t *body, struct buf *b)
{
    AUTO(free_ptr) char *line = json_dumps(body, JSON_COMPACT | JSON_SORT_KEYS);
    char hex[DIGEST_HEX_SIZE];
    size_t before = b->size;

    if (!line)
        return -ENOMEM;
    int r = buf_printf(b, FRAME_WORD "%d %s\n%s\n", RECORD_VERSION, type_names[type], line);
    if (r < 0)
        return r;
    struct digest digest = digest_of(b->data + before, b->size - before);
    digest_to_hex(&digest, hex);
    r = buf_printf(b, DIGEST_WORD "%s\n", hex);
    if (r == 0 && b->size - before > CATALOGUE_RECORD_MAX)
        r = -EFBIG;
    if (r < 0)
        b->size = before;
    return r;
}

static int damaged(struct err *err, const char *key, const char *what)
{
    return err_fail(err, -EBADMSG, "the record %s is damaged: %s", key, what);
}

/* The frame around line 2: gives line 1's words and line 2. */
struct frame {
    uint64_t version;
    const char *type;
    size_t type_length;
    const char *body;
    size_t body_length;
};

static int frame_words(struct frame *f, const char *text, size_t length)
{
    size_t i = strlen(FRAME_WORD);

    if (length < i || memcmp(text, FRAME_WORD, i) != 0)
        return -EBADMSG;
    size_t start = i;
    for (; i < length && text[i] >= '0' && text[i] <= '9' && i - start < 9; i++)
        f->version = f->version * 10 + (uint64_t)(text[i] - '0');
    if (i == start || text[start] == '0' || i == length || text[i] != ' ')
        return -EBADMSG;
    f->type = text + i + 1;
    f->type_length = length - i - 1;
    return 0;
}

static int frame_parse(struct bytes bytes, const char *key, struct frame *ret, struct err *err)
{
    const char *text = bytes.data;
    char hex[DIGEST_HEX_SIZE];

    if (bytes.size > CATALOGUE_RECORD_MAX)
        return damaged(err, key, "it is longer than any record");
    if (bytes.size <= DIGEST_LINE)
        return damaged(err, key, "it is too short");
    size_t signed_length = bytes.size - DIGEST_LINE;
    const char *last = text + signed_length;
    if (memcmp(last, DIGEST_WORD, strlen(DIGEST_WORD)) != 0 || last[-1] != '\n' ||
        last[DIGEST_LINE - 1] != '\n')
        return damaged(err, key, "its last line is no digest");
    struct digest digest = digest_of(text, signed_length);
    digest_to_hex(&digest, hex);
    if (memcmp(last + strlen(DIGEST_WORD), hex, DIGEST_HEX_SIZE - 1) != 0)
        return damaged(err, key, "its digest does not match");

    const char *newline = memchr(text, '\n', signed_length);
    if (frame_words(ret, text, (size_t)(newline - text)) < 0)
        return damaged(err, key, "its first line is no record's");
    ret->body = newline + 1;
    ret->body_length = signed_length - (size_t)(ret->body - text);
    return 0;
}

static int check_head(const json_t *body, const char *key, struct err *err)
{
    struct record_fields f = {.body = body, .key = key, .err = err};
    struct nonce nonce;

    record_hex(&f, "nonce", &nonce, sizeof nonce);
    (void)record_number(&f, "time_ms", INT64_MAX); /* only that it is there */
    struct record_fields writer = {record_member(&f, "writer", JSON_OBJECT), key, err, f.error};
    (void)record_string(&writer, "host");
    (void)record_number(&writer, "pid", INT64_MAX);
    (void)record_string(&writer, "program");
    (void)record_string(&writer, "user");
    return writer.error;
}

int record_decode(struct bytes bytes, const char *key, enum record_type type, json_t **ret,
                  struct err *err)
{
    struct frame f = {0};
    json_error_t why;
    const char *name = type_names[type];

    int r = frame_parse(bytes, key, &f, err);
    if (r < 0)
        return r;
    if (f.version > RECORD_VERSION)
        return err_fail(err, -EPROTONOSUPPORT,
                        "the record %s has format %" PRIu64
                        ", and this program knows %d: it needs a newer one",
                        key, f.version, RECORD_VERSION);
    if (f.type_length != strlen(name) || memcmp(f.type, name, f.type_length) != 0)
        return err_fail(err, -EPROTO, "the record %s should be of type \"%s\" and is not", key,
                        name);
    if (f.body_length < 2 || memchr(f.body, '\n', f.body_length) != f.body + f.body_length - 1)
        return err_fail(err, -EPROTO, "the record %s does not have three lines", key);
    AUTO(json_decref)
    json_t *body = json_loadb(f.body, f.body_length - 1, JSON_REJECT_DUPLICATES, &why);
    if (!body)
        return err_fail(err, -EPROTO, "the body of record %s cannot be read: %s", key, why.text);
    if (!json_is_object(body))
        return err_fail(err, -EPROTO, "the body of record %s is no object", key);
    r = check_head(body, key, err);
    if (r == 0)
        *ret = take_ptr(&body);
    return r;
}

void record_bad_field(struct record_fields *f, const char *field, const char *what)
{
    if (f->error == 0)
        f->error =
            err_fail(f->err, -EPROTO, "the record %s: its field \"%s\" %s", f->key, field, what);
}

const json_t *record_member(struct record_fields *f, const char *field, json_type type)
{
    if (f->error)
        return NULL;
    const json_t *value = json_object_get(f->body, field);
    if (!value) {
        record_bad_field(f, field, "is missing");
        return NULL;
    }
    if (json_typeof(value) != type) {
        record_bad_field(f, field, "is of the wrong type");
        return NULL;
    }
    return value;
}

const char *record_string(struct record_fields *f, const char *field)
{
    const json_t *value = record_member(f, field, JSON_STRING);

    if (value && json_string_length(value) > RECORD_STRING_MAX)
        record_bad_field(f, field, "is too long");
    return f->error ? "" : json_string_value(value);
}

uint64_t record_number(struct record_fields *f, const char *field, uint64_t max)
{
    const json_t *value = record_member(f, field, JSON_INTEGER);

    if (value && (json_integer_value(value) < 0 || (uint64_t)json_integer_value(value) > max))
        record_bad_field(f, field, "is out of range");
    return f->error ? 0 : (uint64_t)json_integer_value(value);
}

bool record_flag(struct record_fields *f, const char *field)
{
    if (f->error)
        return false;
    const json_t *value = json_object_get(f->body, field);
    if (!value)
        record_bad_field(f, field, "is missing");
    else if (!json_is_boolean(value))
        record_bad_field(f, field, "is of the wrong type");
    return json_is_true(value);
}

void record_hex(struct record_fields *f, const char *field, void *ret, size_t size)
{
    const char *text = record_string(f, field);

    memset(ret, 0, size);
    if (f->error)
        return;
    if (strlen(text) != 2 * size || hex_decode(ret, size, text) < 0)
        record_bad_field(f, field, "is no identifier of its length");
}

struct nonce record_nonce(const json_t *body)
{
    struct record_fields f = {.body = body, .key = ""};
    struct nonce nonce;

    record_hex(&f, "nonce", &nonce, sizeof nonce); /* cannot fail: record_decode() has looked */
    return nonce;
}

/* The length of the UTF-8 character at `p`, 0 if there is none. */
static size_t utf8_length(const unsigned char *p)
{
    size_t n = p[0] < 0x80                    ? 1
               : p[0] >= 0xc2 && p[0] <= 0xdf ? 2
               : p[0] >= 0xe0 && p[0] <= 0xef ? 3
               : p[0] >= 0xf0 && p[0] <= 0xf4 ? 4
                                              : 0;
    for (size_t i = 1; i < n; i++) {
        if ((p[i] & 0xc0) != 0x80)
            return 0;
    }
    bool too_long = (p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xf0 && p[1] < 0x90);
    bool surrogate = p[0] == 0xed && p[1] > 0x9f;
    bool beyond = p[0] == 0xf4 && p[1] > 0x8f;
    return too_long || surrogate || beyond ? 0 : n;
}

void text_copy(char *out, size_t size, const char *in)
{
    const unsigned char *p = (const unsigned char *)in;
    size_t n = 0, cut = 0; /* cut: the last border that leaves room for "..." */

    while (*p) {
        size_t length = utf8_length(p);
        const char *from = length ? (const char *)p : "\xef\xbf\xbd";
        size_t add = length ? length : 3;
        if (n + add + 1 > size) {
            memcpy(out + cut, "...", 4);
            return;
        }
        memcpy(out + n, from, add);
        n += add;
        p += length ? length : 1;
        if (n + 4 <= size)
            cut = n;
    }
    out[n] = '\0';
}
