/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reads the text form of an index into records, one a line; index-dump-build.c makes them a tree.
 *
 * The text is hostile: every line is bounded, and nothing is allocated that is not in proportion to
 * what was read. A line's directory is found on a stack of the directories that are still open.
 */
#include "index/index-dump.h"

#include <inttypes.h>

#include "base/le.h"
#include "base/name.h"

#define LINE_MAX_SIZE (64u << 20) /* a 64-TiB file's chunks, or the deepest path fully escaped */
#define RECORDS_MAX   (1u << 26)  /* far more than anybody edits as text; below 2^32 */
#define TEXTS_MAX     (2u << 30)  /* bytes of names, targets and attributes together */
#define CHUNK_WORD    4u          /* bytes of the shortest chunk word with its space: " 1:0" */

int dump_bad(const struct dump_parser *p, int code, const char *what, struct err *err)
{
    return err_fail(err, code, "line %" PRIu64 " of the dump: %s", p->line_number, what);
}

int dump_name_order(const void *a, size_t a_size, const void *b, size_t b_size)
{
    size_t common = a_size < b_size ? a_size : b_size;
    int order = common ? memcmp(a, b, common) : 0;
    return order ? order : (a_size > b_size) - (a_size < b_size);
}

/* 1: a line, without its newline; 0: the end. */
static int read_line(struct dump_parser *p, FILE *in, struct err *err)
{
    char chunk[512];
    size_t used = 0;
    int c = EOF, r = 0;
    buf_clear(&p->line);
    p->line_number++;
    while (r == 0 && (c = getc_unlocked(in)) != EOF && c != '\n') {
        chunk[used++] = (char)c;
        if (used == sizeof chunk) {
            r = buf_append(&p->line, chunk, used);
            used = 0;
        }
    }
    if (r == 0)
        r = buf_append(&p->line, chunk, used);
    if (r < 0)
        return dump_bad(p, r, "it is too long", err);
    if (ferror(in))
        return err_fail(err, -EIO, "the dump could not be read");
    if (c == EOF && p->line.size > 0)
        return dump_bad(p, -EINVAL, "it does not end with a newline", err);
    return c != EOF;
}

static int bad_word(const struct dump_parser *p, int r, const char *what, struct err *err)
{
    return r == -EINVAL ? dump_bad(p, r, what, err) : r;
}

static int parse_device(struct dump_parser *p, struct dump_words *words, struct err *err)
{
    struct index_device d;
    struct bytes digest, blocks, more;
    char hex[DIGEST_HEX_SIZE];
    if (!dump_word_next(words, &digest) || !dump_word_next(words, &blocks) ||
        dump_word_next(words, &more) || digest.size != sizeof hex - 1)
        return dump_bad(p, -EINVAL, "a device is a digest and a number of blocks", err);
    memcpy(hex, digest.data, digest.size);
    hex[digest.size] = '\0';
    if (digest_from_hex(&d.digest, hex) < 0 || !dump_number(blocks, INT64_MAX, &d.blocks))
        return dump_bad(p, -EINVAL, "a device is a digest and a number of blocks", err);
    if (p->devices.count == INDEX_DEVICES_MAX)
        return dump_bad(p, -EINVAL, "there are too many devices", err);
    return vec_push(&p->devices, d);
}

/* ---- the words behind a path -------------------------------------------------------------------
 */

static bool parse_chunk(const struct dump_parser *p, struct bytes word, bool leaf,
                        struct tree_chunk *ret)
{
    const char *part[3];
    size_t length[3], parts = 1;
    uint64_t n[3] = {0};
    if (dump_word_is(word, "hole")) {
        *ret = (struct tree_chunk){.pack = TREE_PACK_HOLE};
        return true;
    }
    part[0] = word.data;
    length[0] = word.size;
    for (const char *colon; parts < 3; parts++) {
        colon = memchr(part[parts - 1], ':', length[parts - 1]);
        if (!colon)
            break;
        part[parts] = colon + 1;
        length[parts] = length[parts - 1] - (size_t)(colon + 1 - part[parts - 1]);
        length[parts - 1] = (size_t)(colon - part[parts - 1]);
    }
    if (parts != (leaf ? 3 : 2))
        return false;
    for (size_t i = 0; i < parts; i++) {
        if (!dump_number(bytes_of(part[i], length[i]), UINT32_MAX, &n[i]))
            return false;
    }
    if (n[0] == 0 || n[0] > p->devices.count)
        return false;
    *ret = (struct tree_chunk){(uint32_t)n[1], (uint32_t)n[2], (uint16_t)(n[0] - 1)};
    return true;
}

static int parse_size_and_chunks(struct dump_parser *p, struct dump_words *words,
                                 struct dump_record *rec, struct err *err)
{
    struct bytes word;
    uint32_t first = 0;
    if (!dump_word_next(words, &word) || !dump_number(word, INT64_MAX, &rec->size))
        return dump_bad(p, -EINVAL, "a file's size is missing or no number", err);
    uint64_t count = tree_chunk_count(rec->size);
    if (count > (words->at ? (uint64_t)(words->end - words->at) + 1 : 0) / CHUNK_WORD)
        return dump_bad(p, -EINVAL, "a file has fewer chunks than its size asks for", err);
    rec->chunk.pack = TREE_PACK_NONE;
    if (count > 1) {
        int r = tree_add_chunks(p->tree, (size_t)count, &first);
        if (r < 0)
            return r;
        rec->chunk = (struct tree_chunk){.pack = TREE_PACK_MANY, .block = first};
    }
    for (uint64_t i = 0; i < count; i++) {
        struct tree_chunk *to = count > 1 ? tree_chunk(p->tree, first + (uint32_t)i) : &rec->chunk;
        if (!dump_word_next(words, &word) || !parse_chunk(p, word, count == 1, to))
            return dump_bad(p, -EINVAL, "a file's chunk is missing, malformed or of no device",
                            err);
    }
    return 0;
}

/* The last words of a line. */
static int parse_xattrs(struct dump_parser *p, struct dump_words *words, struct dump_record *rec,
                        struct err *err)
{
    static const char prefix[] = "user.";
    struct bytes word;
    rec->xattrs = p->texts.size;
    while (dump_word_next(words, &word)) {
        const char *text = word.data;
        const char *equals = memchr(text, '=', word.size);
        size_t skip = sizeof prefix - 1;
        uint8_t *head;
        if (!equals || (size_t)(equals - text) < skip || memcmp(text, prefix, skip) != 0)
            return dump_bad(p, -EINVAL, "a word is no attribute, and too much", err);
        int r = dump_unescape(bytes_of(text + skip, (size_t)(equals - text) - skip), &p->texts);
        if (r < 0)
            return bad_word(p, r, "an attribute's name is malformed", err);
        size_t digits = word.size - (size_t)(equals + 1 - text);
        if (digits / 2 > TREE_XATTR_MAX)
            return dump_bad(p, -EINVAL, "an attribute's value is too long", err);
        r = buf_extend(&p->texts, 3, &head); /* NUL, length */
        if (r < 0)
            return r;
        le16_put(head + 1, (uint16_t)(digits / 2));
        r = dump_hex(bytes_of(equals + 1, digits), &p->texts);
        if (r < 0)
            return bad_word(p, r, "an attribute's value is no hex", err);
        if (p->texts.size - rec->xattrs > TREE_XATTR_MAX)
            return dump_bad(p, -EINVAL, "its attributes are too large together", err);
    }
    rec->xattr_length = (uint32_t)(p->texts.size - rec->xattrs);
    return 0;
}

static int parse_target(struct dump_parser *p, struct dump_words *words, struct dump_record *rec,
                        struct err *err)
{
    struct bytes word;
    rec->target = p->texts.size;
    int r = dump_word_next(words, &word) ? dump_unescape(word, &p->texts) : -EINVAL;
    if (r < 0)
        return bad_word(p, r, "a target is missing or malformed", err);
    size_t length = p->texts.size - rec->target;
    const uint8_t *target = p->texts.data + rec->target;
    if (rec->type == TREE_HARDLINK && (length == 0 || target[0] != '/'))
        return dump_bad(p, -EINVAL, "a hard link's target is no path", err);
    if (rec->type == TREE_SYMLINK &&
        (length == 0 || length > INDEX_TARGET_MAX || memchr(target, '\0', length)))
        return dump_bad(p, -EINVAL, "a symlink's target is no text of 1 to 4095 bytes", err);
    rec->target_length = (uint32_t)length;
    return 0;
}

static int parse_fields(struct dump_parser *p, struct dump_words *words, struct dump_record *rec,
                        struct err *err)
{
    static const char *const names[] = {[TREE_FILE] = "file",
                                        [TREE_DIRECTORY] = "directory",
                                        [TREE_SYMLINK] = "symlink",
                                        [TREE_HARDLINK] = "hardlink"};
    struct bytes word;
    unsigned type = 0;
    int r = 0;
    if (!dump_word_next(words, &word))
        return dump_bad(p, -EINVAL, "its type is missing", err);
    while (type <= TREE_HARDLINK && !dump_word_is(word, names[type]))
        type++;
    if (type > TREE_HARDLINK)
        return dump_bad(p, -EINVAL, "its type is unknown", err);
    rec->type = (enum tree_type)type;
    if (rec->type == TREE_HARDLINK) {
        r = parse_target(p, words, rec, err);
        if (r == 0 && words->at)
            return dump_bad(p, -EINVAL, "a hard link has a target and no more", err);
        return r;
    }
    if (!dump_word_next(words, &word) || !dump_mode(word, &rec->mode))
        return dump_bad(p, -EINVAL, "its mode is missing or not four octal digits", err);
    if (!dump_word_next(words, &word) || !dump_time(word, &rec->mtime_s, &rec->mtime_ns))
        return dump_bad(p, -EINVAL, "its time is missing or malformed", err);
    if (rec->type == TREE_FILE)
        r = parse_size_and_chunks(p, words, rec, err);
    else if (rec->type == TREE_SYMLINK)
        r = parse_target(p, words, rec, err);
    return r < 0 ? r : parse_xattrs(p, words, rec, err);
}

/* ---- paths -------------------------------------------------------------------------------------
 */

/* Find the open directory of p->path; close those that are not above it. */
static int find_parent(struct dump_parser *p, size_t parent_length, struct err *err)
{
    while (p->open.count > 0 && p->open.at[p->open.count - 1].path_length > parent_length)
        p->open.count--;
    if (p->open.count == 0 || p->open.at[p->open.count - 1].path_length != parent_length ||
        (parent_length > 0 && memcmp(p->open_path.data, p->path.data, parent_length) != 0))
        return dump_bad(p, -EINVAL, "the lines before do not lead to its directory", err);
    return 0;
}

/* Make the record the last child of the directory on top of the stack. */
static int add_child(struct dump_parser *p, uint32_t record, struct err *err)
{
    struct dump_record *parent = &p->records.at[p->open.at[p->open.count - 1].record];
    struct dump_record *rec = &p->records.at[record];
    struct dump_record *last = &p->records.at[parent->last_child];
    if (parent->child_count > 0 &&
        dump_name_order(p->texts.data + last->name, last->name_length, p->texts.data + rec->name,
                        rec->name_length) >= 0)
        return dump_bad(p, -EINVAL, "its name does not ascend", err);
    if (parent->child_count > 0)
        last->next = record;
    else
        parent->first_child = record;
    parent->last_child = record;
    parent->child_count++;
    return 0;
}

static int open_directory(struct dump_parser *p, uint32_t record, struct err *err)
{
    struct dump_open open = {record, (uint32_t)p->path.size};
    if (p->open.count > TREE_DEPTH_MAX)
        return dump_bad(p, -ENAMETOOLONG, "its directory is too deep", err);
    buf_clear(&p->open_path);
    int r = buf_append(&p->open_path, p->path.data, p->path.size);
    return r < 0 ? r : vec_push(&p->open, open);
}

/* Split p->path and keep the name. */
static int parse_path(struct dump_parser *p, struct bytes word, struct dump_record *rec,
                      struct err *err)
{
    buf_clear(&p->path);
    int r = dump_unescape(word, &p->path);
    if (r < 0)
        return bad_word(p, r, "its path is malformed", err);
    const uint8_t *path = p->path.data;
    const uint8_t *slash = path ? memrchr(path, '/', p->path.size) : NULL;
    if (!slash || path[0] != '/')
        return dump_bad(p, -EINVAL, "its path does not begin with a slash", err);
    if (p->records.count == 0) {
        if (p->path.size != 1)
            return dump_bad(p, -EINVAL, "the first path is not /", err);
        buf_clear(&p->path);
        return 0;
    }
    size_t parent_length = (size_t)(slash - path), length = p->path.size - parent_length - 1;
    if (!name_is_file_name((const char *)slash + 1, length))
        return dump_bad(p, -EINVAL, "its name is no file name", err);
    r = find_parent(p, parent_length, err);
    rec->name = p->texts.size;
    rec->name_length = (uint8_t)length;
    return r < 0 ? r : buf_append(&p->texts, slash + 1, length);
}

static int parse_record(struct dump_parser *p, struct bytes path, struct dump_words *words,
                        struct err *err)
{
    struct dump_record rec = {0};
    uint32_t number = (uint32_t)p->records.count;
    if (number == RECORDS_MAX)
        return dump_bad(p, -EFBIG, "there are too many lines", err);
    int r = parse_path(p, path, &rec, err);
    if (r == 0)
        r = parse_fields(p, words, &rec, err);
    if (r == 0 && number == 0 && rec.type != TREE_DIRECTORY)
        r = dump_bad(p, -EINVAL, "the root is no directory", err);
    if (r == 0)
        r = vec_push(&p->records, rec);
    if (r == 0 && number > 0)
        r = add_child(p, number, err);
    if (r == 0 && rec.type == TREE_DIRECTORY)
        r = open_directory(p, number, err);
    return r;
}

static int parse_lines(struct dump_parser *p, FILE *in, struct err *err)
{
    int r = read_line(p, in, err);
    if (r < 0)
        return r;
    if (r == 0 || !dump_word_is(buf_bytes(&p->line), INDEX_DUMP_MAGIC))
        return dump_bad(p, -EINVAL, "this is no dump of an index", err);
    while ((r = read_line(p, in, err)) == 1) {
        struct dump_words words = {buf_text(&p->line), buf_text(&p->line) + p->line.size};
        struct bytes word;
        (void)dump_word_next(&words, &word); /* the first one is always there, if empty */
        if (p->records.count == 0 && dump_word_is(word, "device"))
            r = parse_device(p, &words, err);
        else
            r = parse_record(p, word, &words, err);
        if (r < 0)
            return r;
    }
    if (r == 0 && p->records.count == 0)
        return dump_bad(p, -EINVAL, "the root is missing", err);
    return r;
}

static void parser_release(struct dump_parser *p)
{
    buf_release(&p->line);
    buf_release(&p->path);
    buf_release(&p->open_path);
    buf_release(&p->texts);
    vec_release(&p->records);
    vec_release(&p->open);
    vec_release(&p->devices);
    tree_free(p->tree);
}

/* Hand tree and devices out of the parser. */
static int take_parsed(struct dump_parser *p, struct index_dump_parsed *ret)
{
    size_t count = p->devices.count;
    uint16_t *device_of = calloc(count + 1, sizeof *device_of);
    if (!device_of)
        return -ENOMEM;
    for (size_t i = 0; i < count; i++)
        device_of[i] = (uint16_t)(i + 1);
    *ret =
        (struct index_dump_parsed){take_ptr(&p->tree), take_ptr(&p->devices.at), device_of, count};
    return 0;
}

int index_dump_parse(FILE *in, struct index_dump_parsed *ret, struct err *err)
{
    struct dump_parser p = {
        .line = BUF_INIT(LINE_MAX_SIZE),
        .path = BUF_INIT(LINE_MAX_SIZE),
        .open_path = BUF_INIT(LINE_MAX_SIZE),
        .texts = BUF_INIT(TEXTS_MAX),
    };
    int r = tree_new(&p.tree);
    if (r == 0)
        r = parse_lines(&p, in, err);
    if (r == 0)
        r = dump_build(&p, err);
    if (r == 0)
        r = take_parsed(&p, ret);
    parser_release(&p);
    return r;
}

void index_dump_parsed_release(struct index_dump_parsed *p)
{
    tree_free(p->tree);
    free(p->devices);
    free(p->device_of);
    *p = (struct index_dump_parsed){0};
}
