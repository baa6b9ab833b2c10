/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Zip's records, read once, strictly.
 *
 * A zip can be read from its front and from its end, and attacks live where the two differ. So: one
 * end record only, which ends the file; the central directory ends where the end record begins, and
 * has as many members as it says; members do not overlap, nor reach into the directory; and each
 * local header is held against its member when it comes. Every number is checked before it is added
 * to another.
 */
#include "archive/archive-zip-directory.h"

#include "base/le.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define END_MAGIC     0x06054b50u
#define END_SIZE      22u
#define LOCATOR_MAGIC 0x07064b50u
#define LOCATOR_SIZE  20u
#define END64_MAGIC   0x06064b50u
#define END64_SIZE    56u
#define CENTRAL_MAGIC 0x02014b50u
#define CENTRAL_SIZE  46u
#define LOCAL_MAGIC   0x04034b50u

#define FLAG_ENCRYPTED  0x0001u
#define FLAG_DESCRIPTOR 0x0008u
#define FLAG_PATCH      0x0020u
#define FLAG_STRONG     0x0040u
#define FLAG_UTF8       0x0800u
#define FLAG_MASKED     0x2000u

#define EXTRA_ZIP64 0x0001u
#define EXTRA_NTFS  0x000au
#define EXTRA_TIME  0x5455u

#define HOST_FAT  0u
#define HOST_UNIX 3u
#define HOST_OSX  19u

#define METHOD_STORED  0u
#define METHOD_DEFLATE 8u
/* A deflate stream cannot grow by more: 258 bytes for two bits. */
#define DEFLATE_GROWTH 1032u
#define NAME_SHOWN     300

static int broken(struct err *err, const char *why)
{
    return err_fail(err, -EPROTO, "its zip directory %s", why);
}

/* ---- the end ----------------------------------------------------------------------------------
 */

/* Offset in `tail` of the only end record whose comment ends the file. */
static int find_end(struct bytes tail, size_t *ret, struct err *err)
{
    const uint8_t *p = tail.data;
    size_t found = 0, place = 0;

    for (size_t back = END_SIZE; back <= tail.size && back <= END_SIZE + 65535u; back++) {
        size_t at = tail.size - back;
        if (le32_get(p + at) == END_MAGIC && le16_get(p + at + 20) == back - END_SIZE) {
            place = at;
            found++;
        }
    }
    if (found == 0)
        return broken(err, "has no end: it was cut off, or is no zip");
    if (found > 1)
        return broken(err, "has several ends: readers would disagree about it");
    *ret = place;
    return 0;
}

struct end {
    uint64_t count, size, offset;
    uint64_t at; /* where in the file the directory has to end */
};

/* The zip64 records in front of the end record, if there are some. 1: taken; 0: there are none. */
static int read_end64(struct bytes tail, uint64_t tail_at, size_t end, struct end *e,
                      uint64_t *ret_from, struct err *err)
{
    const uint8_t *p = tail.data;

    if (end < LOCATOR_SIZE || le32_get(p + end - LOCATOR_SIZE) != LOCATOR_MAGIC)
        return 0;
    const uint8_t *locator = p + end - LOCATOR_SIZE;
    uint64_t at = le64_get(locator + 8), locator_at = tail_at + end - LOCATOR_SIZE;
    if (le32_get(locator + 4) != 0 || le32_get(locator + 16) > 1)
        return broken(err, "is of an archive in several parts, which is not unpacked");
    if (at > locator_at || locator_at - at < END64_SIZE || locator_at - at > ZIP_TAIL_MAX)
        return broken(err, "has its zip64 end in no possible place");
    if (at < tail_at) {
        *ret_from = at;
        return -EAGAIN;
    }
    const uint8_t *q = p + (at - tail_at);
    if (le32_get(q) != END64_MAGIC || le64_get(q + 4) != locator_at - at - 12)
        return broken(err, "has no zip64 end where it should be");
    if (le32_get(q + 16) != 0 || le32_get(q + 20) != 0 || le64_get(q + 24) != le64_get(q + 32))
        return broken(err, "is of an archive in several parts, which is not unpacked");
    const uint8_t *o = p + end;
    uint64_t count = le64_get(q + 32), size = le64_get(q + 40), offset = le64_get(q + 48);
    if ((le16_get(o + 10) != 0xffff && le16_get(o + 10) != count) ||
        (le32_get(o + 12) != 0xffffffff && le32_get(o + 12) != size) ||
        (le32_get(o + 16) != 0xffffffff && le32_get(o + 16) != offset))
        return broken(err, "has two ends that differ");
    *e = (struct end){count, size, offset, at};
    return 1;
}

int zip_find_directory(struct bytes tail, uint64_t size, struct zip_directory *ret,
                       uint64_t *ret_from, struct err *err)
{
    const uint8_t *p = tail.data;
    uint64_t tail_at = size - tail.size;
    size_t end = 0;
    struct end e = {0};

    if (tail.size > size || tail.size < END_SIZE)
        return broken(err, "has no end: it was cut off, or is no zip");
    int r = find_end(tail, &end, err);
    if (r == 0)
        r = read_end64(tail, tail_at, end, &e, ret_from, err);
    if (r < 0)
        return r;
    const uint8_t *o = p + end;
    if ((le16_get(o + 4) != 0 && le16_get(o + 4) != 0xffff) ||
        (le16_get(o + 6) != 0 && le16_get(o + 6) != 0xffff) || le16_get(o + 8) != le16_get(o + 10))
        return broken(err, "is of an archive in several parts, which is not unpacked");
    if (r == 0)
        e = (struct end){le16_get(o + 10), le32_get(o + 12), le32_get(o + 16), tail_at + end};
    if (e.size > ZIP_BYTES_MAX)
        return broken(err, "is larger than 1 GiB, which is not unpacked");
    if (e.offset > e.at || e.at - e.offset != e.size || e.count > e.size / CENTRAL_SIZE)
        return broken(err, "is not where its end says, or something stands before the archive");
    ret->offset = e.offset;
    ret->size = e.size;
    ret->count = e.count;
    return 0;
}

/* ---- extras -----------------------------------------------------------------------------------
 */

struct central {
    const uint8_t *p;
    struct bytes name, extra;
};

/* Sizes and offset that did not fit, in this order, those only that are all ones. */
static bool read_zip64(struct bytes field, struct zip_member *m, const uint8_t *p)
{
    const uint8_t *q = field.data;
    size_t at = 0;

    for (int i = 0; i < 3; i++) {
        static const size_t places[] = {24, 20, 42};
        uint64_t *const values[] = {&m->size, &m->packed, &m->offset};
        if (le32_get(p + places[i]) != 0xffffffff)
            continue;
        if (field.size - at < 8)
            return false;
        *values[i] = le64_get(q + at);
        at += 8;
    }
    return true;
}

static void read_time(struct bytes field, struct zip_member *m)
{
    const uint8_t *q = field.data;

    if (field.size >= 5 && (q[0] & 1)) {
        m->mtime_s = (int32_t)le32_get(q + 1);
        m->mtime_ns = 0;
    }
}

/* 100 ns since 1601. */
static void read_ntfs(struct bytes field, struct zip_member *m)
{
    const uint8_t *q = field.data;

    if (field.size < 4 + 4 + 24 || le16_get(q + 4) != 1 || le16_get(q + 6) < 24)
        return;
    uint64_t ticks = le64_get(q + 8);
    if (ticks == 0 || ticks > INT64_MAX)
        return;
    m->mtime_s = (int64_t)(ticks / 10000000) - INT64_C(11644473600);
    m->mtime_ns = (uint32_t)(ticks % 10000000) * 100;
}

static int read_extra(const struct central *c, struct zip_member *m)
{
    const uint8_t *p = c->extra.data;
    size_t at = 0;
    bool zip64 = false, wants64 = le32_get(c->p + 20) == 0xffffffff ||
                                  le32_get(c->p + 24) == 0xffffffff ||
                                  le32_get(c->p + 42) == 0xffffffff;
    bool has_time = false;

    while (c->extra.size - at >= 4) {
        uint16_t id = le16_get(p + at), size = le16_get(p + at + 2);
        if (size > c->extra.size - at - 4)
            return -EPROTO;
        struct bytes field = bytes_of(p + at + 4, size);
        if (id == EXTRA_ZIP64) {
            if (zip64 || !read_zip64(field, m, c->p))
                return -EPROTO;
            zip64 = true;
        } else if (id == EXTRA_TIME) {
            read_time(field, m);
            has_time = true;
        } else if (id == EXTRA_NTFS && !has_time) {
            read_ntfs(field, m);
        }
        at += 4u + size;
    }
    return wants64 && !zip64 ? -EPROTO : 0;
}

/* ---- names ------------------------------------------------------------------------------------
 */

/* What the upper half of code page 437 is in Unicode. */
static const uint16_t cp437[128] = {
    0x00c7, 0x00fc, 0x00e9, 0x00e2, 0x00e4, 0x00e0, 0x00e5, 0x00e7, 0x00ea, 0x00eb, 0x00e8, 0x00ef,
    0x00ee, 0x00ec, 0x00c4, 0x00c5, 0x00c9, 0x00e6, 0x00c6, 0x00f4, 0x00f6, 0x00f2, 0x00fb, 0x00f9,
    0x00ff, 0x00d6, 0x00dc, 0x00a2, 0x00a3, 0x00a5, 0x20a7, 0x0192, 0x00e1, 0x00ed, 0x00f3, 0x00fa,
    0x00f1, 0x00d1, 0x00aa, 0x00ba, 0x00bf, 0x2310, 0x00ac, 0x00bd, 0x00bc, 0x00a1, 0x00ab, 0x00bb,
    0x2591, 0x2592, 0x2593, 0x2502, 0x2524, 0x2561, 0x2562, 0x2556, 0x2555, 0x2563, 0x2551, 0x2557,
    0x255d, 0x255c, 0x255b, 0x2510, 0x2514, 0x2534, 0x252c, 0x251c, 0x2500, 0x253c, 0x255e, 0x255f,
    0x255a, 0x2554, 0x2569, 0x2566, 0x2560, 0x2550, 0x256c, 0x2567, 0x2568, 0x2564, 0x2565, 0x2559,
    0x2558, 0x2552, 0x2553, 0x256b, 0x256a, 0x2518, 0x250c, 0x2588, 0x2584, 0x258c, 0x2590, 0x2580,
    0x03b1, 0x00df, 0x0393, 0x03c0, 0x03a3, 0x03c3, 0x00b5, 0x03c4, 0x03a6, 0x0398, 0x03a9, 0x03b4,
    0x221e, 0x03c6, 0x03b5, 0x2229, 0x2261, 0x00b1, 0x2265, 0x2264, 0x2320, 0x2321, 0x00f7, 0x2248,
    0x00b0, 0x2219, 0x00b7, 0x221a, 0x207f, 0x00b2, 0x25a0, 0x00a0};

/* Old DOS programs write code page 437; on Unix bytes are bytes. Many programs write UTF-8 without
 * saying so: what is valid as such is taken as such. */
static bool wants_cp437(struct bytes name, uint16_t flags, uint8_t host)
{
    const uint8_t *p = name.data;

    if ((flags & FLAG_UTF8) || host == HOST_UNIX || host == HOST_OSX)
        return false;
    for (size_t i = 0; i < name.size;) {
        size_t more = p[i] < 0x80                   ? 0
                      : p[i] >= 0xc2 && p[i] < 0xe0 ? 1
                      : p[i] >= 0xe0 && p[i] < 0xf0 ? 2
                      : p[i] >= 0xf0 && p[i] < 0xf5 ? 3
                                                    : SIZE_MAX;
        if (more >= name.size - i)
            return true;
        for (size_t k = 1; k <= more; k++) {
            if ((p[i + k] & 0xc0) != 0x80)
                return true;
        }
        i += more + 1;
    }
    return false;
}

static int append_cp437(struct buf *b, struct bytes name)
{
    const uint8_t *p = name.data;

    for (size_t i = 0; i < name.size; i++) {
        uint32_t c = p[i] < 0x80 ? p[i] : cp437[p[i] - 0x80];
        char text[3];
        size_t n = 0;
        if (c < 0x80) {
            text[n++] = (char)c;
        } else if (c < 0x800) {
            text[n++] = (char)(0xc0 | c >> 6);
            text[n++] = (char)(0x80 | (c & 0x3f));
        } else {
            text[n++] = (char)(0xe0 | c >> 12);
            text[n++] = (char)(0x80 | (c >> 6 & 0x3f));
            text[n++] = (char)(0x80 | (c & 0x3f));
        }
        int r = buf_append(b, text, n);
        if (r < 0)
            return r;
    }
    return 0;
}

static int add_names(struct zip_directory *z, const struct central *c, struct zip_member *m)
{
    uint8_t host = c->p[5];

    m->raw = (uint32_t)z->names.size;
    m->raw_size = (uint16_t)c->name.size;
    int r = buf_append(&z->names, c->name.data, c->name.size);
    m->name = m->raw;
    m->name_size = m->raw_size;
    bool slashes = host == HOST_FAT && !memchr(c->name.data, '/', c->name.size) &&
                   memchr(c->name.data, '\\', c->name.size);
    bool convert = wants_cp437(c->name, m->flags, host);
    if (r < 0 || (!slashes && !convert))
        return r;
    m->name = (uint32_t)z->names.size;
    r = convert ? append_cp437(&z->names, c->name)
                : buf_append(&z->names, c->name.data, c->name.size);
    if (r < 0 || z->names.size - m->name > UINT16_MAX)
        return r < 0 ? r : -EPROTO;
    m->name_size = (uint16_t)(z->names.size - m->name);
    for (size_t i = m->name; slashes && i < z->names.size; i++) {
        if (z->names.data[i] == '\\')
            z->names.data[i] = '/';
    }
    return 0;
}

/* ---- members ----------------------------------------------------------------------------------
 */

static int64_t days_of(int64_t year, unsigned month, unsigned day)
{
    int64_t y = month <= 2 ? year - 1 : year;
    int64_t era = y / 400;
    unsigned yoe = (unsigned)(y - era * 400), m = month > 2 ? month - 3 : month + 9;
    unsigned doy = (153 * m + 2) / 5 + day - 1;

    return era * 146097 + (int64_t)yoe * 365 + yoe / 4 - yoe / 100 + doy - 719468;
}

/* DOS times have no zone: they are taken as UTC, so that a version does not depend on where it was
 * made. */
static int64_t dos_time(uint16_t date, uint16_t time)
{
    unsigned month = date >> 5 & 15, day = date & 31;

    if (month < 1 || month > 12 || day < 1)
        return 0;
    return days_of(1980 + (date >> 9), month, day) * 86400 + (time >> 11) * 3600 +
           (time >> 5 & 63) * 60 + (time & 31) * 2;
}

static void set_type(struct zip_member *m, const struct central *c)
{
    const char *name = c->name.data;
    uint32_t attributes = le32_get(c->p + 38);
    uint8_t host = c->p[5];
    uint32_t unix_mode = host == HOST_UNIX || host == HOST_OSX ? attributes >> 16 : 0;
    bool slash = c->name.size > 0 && (name[c->name.size - 1] == '/' ||
                                      (host == HOST_FAT && name[c->name.size - 1] == '\\'));

    m->type = ZIP_FILE;
    if (slash)
        m->type = ZIP_DIRECTORY;
    else if ((unix_mode & 0170000) == 0120000)
        m->type = ZIP_SYMLINK;
    else if ((unix_mode & 0170000) != 0100000 && (unix_mode & 0170000) != 0)
        m->type = ZIP_SPECIAL;
    m->mode = (uint16_t)(unix_mode & 0777);
    if (m->mode == 0)
        m->mode = slash ? 0755 : 0644;
}

static int member_error(struct err *err, const struct central *c, const char *why)
{
    int size = c->name.size < NAME_SHOWN ? (int)c->name.size : NAME_SHOWN;

    return err_fail(err, -EPROTO, "its member '%.*s' %s", size, (const char *)c->name.data, why);
}

static int check_member(const struct zip_member *m, const struct central *c, struct err *err)
{
    uint16_t method = le16_get(c->p + 10);
    char why[128];

    if (m->flags & (FLAG_ENCRYPTED | FLAG_STRONG | FLAG_MASKED))
        return member_error(err, c, "is encrypted, which is not unpacked");
    if (le16_get(c->p + 34) != 0)
        return member_error(err, c, "lies in another part of the archive");
    if (method != METHOD_STORED && method != METHOD_DEFLATE) {
        (void)snprintf(why, sizeof why,
                       "is compressed by method %u; only stored (0) and deflate (8) are unpacked",
                       method);
        return member_error(err, c, why);
    }
    if (m->flags & FLAG_PATCH)
        return member_error(err, c, "is a patch, not a file");
    if (c->name.size == 0 || memchr(c->name.data, '\0', c->name.size))
        return member_error(err, c, "has no name, or a NUL in it");
    if (method == METHOD_STORED && m->packed != m->size)
        return member_error(err, c, "has two sizes that differ");
    if (m->size / DEFLATE_GROWTH > m->packed)
        return member_error(err, c, "lies about its size: nothing can be packed so small");
    if (m->type == ZIP_DIRECTORY && m->size != 0)
        return member_error(err, c, "is a directory with data in it");
    return 0;
}

static int add_member(struct zip_directory *z, const struct central *c, struct err *err)
{
    const uint8_t *p = c->p;
    struct zip_member m = {.offset = le32_get(p + 42),
                           .packed = le32_get(p + 20),
                           .size = le32_get(p + 24),
                           .crc = le32_get(p + 16),
                           .flags = le16_get(p + 8),
                           .method = (uint8_t)le16_get(p + 10),
                           .mtime_s = dos_time(le16_get(p + 14), le16_get(p + 12))};

    if (read_extra(c, &m) < 0)
        return member_error(err, c, "has an extra field that is not valid");
    set_type(&m, c);
    int r = check_member(&m, c, err);
    if (r < 0)
        return r;
    if (m.offset > z->offset || z->offset - m.offset < ZIP_LOCAL_SIZE + c->name.size ||
        z->offset - m.offset - ZIP_LOCAL_SIZE - c->name.size < m.packed)
        return member_error(err, c, "lies outside of the archive");
    r = add_names(z, c, &m);
    if (r == 0)
        r = vec_push(&z->members, m);
    return r < 0 ? err_fail(err, r, "out of memory") : 0;
}

static int offset_compare(const void *a, const void *b)
{
    const struct zip_member *x = a, *y = b;

    return x->offset < y->offset ? -1 : x->offset > y->offset;
}

/* Sorted by offset, each ends before the next begins. The local header's own extra is not known
 * yet: that is looked at when it is read. */
static int check_overlaps(const struct zip_directory *z, struct err *err)
{
    for (size_t i = 1; i < z->members.count; i++) {
        const struct zip_member *a = &z->members.at[i - 1], *b = &z->members.at[i];
        if (b->offset - a->offset < ZIP_LOCAL_SIZE + a->raw_size ||
            b->offset - a->offset - ZIP_LOCAL_SIZE - a->raw_size < a->packed)
            return err_fail(err, -EPROTO,
                            "its members '%.*s' and '%.*s' lie over each other, as in a zip bomb",
                            a->name_size < NAME_SHOWN ? a->name_size : NAME_SHOWN, zip_name(z, a),
                            b->name_size < NAME_SHOWN ? b->name_size : NAME_SHOWN, zip_name(z, b));
    }
    return 0;
}

int zip_parse_directory(struct bytes b, struct zip_directory *z, struct err *err)
{
    const uint8_t *p = b.data;
    size_t at = 0;

    buf_init(&z->names, UINT32_MAX);
    for (uint64_t i = 0; i < z->count; i++) {
        if (b.size - at < CENTRAL_SIZE || le32_get(p + at) != CENTRAL_MAGIC)
            return broken(err, "has fewer members than its end says");
        size_t name = le16_get(p + at + 28), extra = le16_get(p + at + 30);
        size_t all = CENTRAL_SIZE + name + extra + le16_get(p + at + 32);
        if (all > b.size - at)
            return broken(err, "ends within a member");
        struct central c = {.p = p + at,
                            .name = bytes_of(p + at + CENTRAL_SIZE, name),
                            .extra = bytes_of(p + at + CENTRAL_SIZE + name, extra)};
        int r = add_member(z, &c, err);
        if (r < 0)
            return r;
        at += all;
    }
    if (at != b.size)
        return broken(err, "has more in it than its end says");
    if (z->members.count > 1)
        qsort(z->members.at, z->members.count, sizeof *z->members.at, offset_compare);
    return check_overlaps(z, err);
}

void zip_directory_release(struct zip_directory *z)
{
    vec_release(&z->members);
    buf_release(&z->names);
}

/* ---- local headers ----------------------------------------------------------------------------
 */

int zip_local_length(struct bytes b, size_t *ret_skip)
{
    const uint8_t *p = b.data;

    if (b.size < ZIP_LOCAL_SIZE || le32_get(p) != LOCAL_MAGIC)
        return -EPROTO;
    *ret_skip = (size_t)ZIP_LOCAL_SIZE + le16_get(p + 26) + le16_get(p + 28);
    return 0;
}

bool zip_local_matches(struct bytes b, const struct zip_directory *z, const struct zip_member *m)
{
    const uint8_t *p = b.data;
    size_t skip;

    if (zip_local_length(b, &skip) < 0 || b.size < skip || le16_get(p + 26) != m->raw_size ||
        memcmp(p + ZIP_LOCAL_SIZE, z->names.data + m->raw, m->raw_size) != 0)
        return false;
    uint16_t flags = le16_get(p + 6), mine = FLAG_ENCRYPTED | FLAG_DESCRIPTOR;
    if ((flags & mine) != (m->flags & mine) || le16_get(p + 8) != m->method)
        return false;
    uint32_t crc = le32_get(p + 14), packed = le32_get(p + 18), size = le32_get(p + 22);
    bool later = flags & FLAG_DESCRIPTOR; /* they may stand behind the data only */
    return (crc == m->crc || (later && crc == 0)) &&
           (packed == m->packed || packed == 0xffffffff || (later && packed == 0)) &&
           (size == m->size || size == 0xffffffff || (later && size == 0));
}
