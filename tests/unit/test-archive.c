/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Archives' parts that need no server: URLs and their secrets, members of a zip piece by piece, zip
 * directories that readers could understand in two ways.
 */
#include "archive/archive-internal.h"
#include "archive/archive-url.h"
#include "archive/archive-zip-member.h"

#include "base/le.h"

#include <libdeflate.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static void test_suffixes(void **state)
{
    static const char *const good[] = {"http://h/a.zip",        "https://h/x/A.TAR.GZ",
                                       "http://h/a.tgz?x=y.7z", "http://h/a.tar#part",
                                       "http://h/a.tar.zst",    "http://h/a.tar.xz",
                                       "http://h/a.tar.bz2"};
    static const char *const bad[] = {"http://h/a.7z", "http://h/?a.zip", "http://h/.zip",
                                      "http://h/zip",  "http://h/a.zip/", "http://h/a.gz"};

    for (size_t i = 0; i < sizeof good / sizeof *good; i++)
        assert_true(archive_has_suffix(good[i]));
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_false(archive_has_suffix(bad[i]));
}

static void test_secrets_leave_the_url(void **state)
{
    struct err err = ERR_INIT;
    char shown[HTTP_URL_MAX];
    struct url u;

    assert_int_equal(
        url_parse("https://me:p%40ss%2fword@Host.Example/a/b.zip?sig=secret#x", &u, &err), 0);
    assert_string_equal(u.request, "https://Host.Example/a/b.zip?sig=secret");
    assert_string_equal(u.origin, "https://host.example:443");
    assert_string_equal(u.basic, "Basic bWU6cEBzcy93b3Jk");
    url_redact(&u, shown, sizeof shown);
    assert_string_equal(shown, "https://Host.Example/a/b.zip");
    assert_int_equal(url_parse("http://[::1]:81?q", &u, &err), 0);
    assert_string_equal(u.request, "http://[::1]:81/?q");
    assert_string_equal(u.origin, "http://[::1]:81");
    assert_int_equal(url_parse("http://[::1]/x", &u, &err), 0);
    assert_string_equal(u.origin, "http://[::1]:80");
    assert_int_equal(url_parse("ftp://h/x", &u, &err), -EINVAL);
    assert_int_equal(url_parse("http:///x", &u, &err), -EINVAL);
    assert_int_equal(url_parse("http://secret@/x", &u, &err), -EINVAL);
    assert_int_equal(url_parse("http://h/a b", &u, &err), -EINVAL);
    assert_int_equal(url_parse("http://h/a\nb", &u, &err), -EINVAL);
    assert_null(strstr(err.text, "secret"));
}

static void goes(const struct url *from, const char *location, const char *want, bool password)
{
    struct err err = ERR_INIT;
    struct url to;

    assert_int_equal(url_redirect(from, location, &to, &err), 0);
    assert_string_equal(to.request, want);
    assert_int_equal(to.basic[0] != '\0', password);
}

static void test_redirects(void **state)
{
    static const char *const nowhere[] = {
        "", "file:///etc/passwd", "ftp://h/x", "javascript:x", "http://h/a", "https://"};
    struct err err = ERR_INIT;
    struct url from, to;

    assert_int_equal(url_parse("https://me:pass@h:443/a/b?q#f", &from, &err), 0);
    goes(&from, "https://h/c", "https://h/c", true);
    goes(&from, "https://H:443/c", "https://H:443/c", true);
    goes(&from, "https://other/c?s=1", "https://other/c?s=1", false);
    goes(&from, "https://h:444/c", "https://h:444/c", false);
    goes(&from, "https://h.evil/c", "https://h.evil/c", false);
    goes(&from, "https://you:word@other/c", "https://other/c", false);
    goes(&from, "//other/c", "https://other/c", false);
    goes(&from, "/c", "https://h:443/c", true);
    goes(&from, "c?x", "https://h:443/a/c?x", true);
    goes(&from, "?x", "https://h:443/a/b?x", true);
    for (size_t i = 0; i < sizeof nowhere / sizeof *nowhere; i++) {
        err_clear(&err);
        assert_int_equal(url_redirect(&from, nowhere[i], &to, &err), -EPROTO);
        assert_null(strstr(err.text, "pass@"));
    }
}

/* ---- members ----------------------------------------------------------------------------------
 */

#define PLAIN 300000u

static uint8_t plain[PLAIN], packed[PLAIN], unpacked[PLAIN];

static struct zip_member pack_plain(void)
{
    struct libdeflate_compressor *c = libdeflate_alloc_compressor(6);

    for (size_t i = 0; i < PLAIN; i++)
        plain[i] = (uint8_t)(i / 1000 * 7 + i % 13);
    size_t size = libdeflate_deflate_compress(c, plain, PLAIN, packed, sizeof packed);
    libdeflate_free_compressor(c);
    assert_true(size > 0);
    return (struct zip_member){
        .packed = size, .size = PLAIN, .crc = libdeflate_crc32(0, plain, PLAIN), .method = 8};
}

/* By pieces of every kind of size: what a worker does with a member that is larger than a part. */
static int unpack(const struct zip_member *m, size_t in_step, size_t out_step)
{
    struct member_stream s = {0};
    size_t given = 0, done = 0, n;
    struct bytes in = {packed, 0};
    int r = member_stream_begin(&s, m, 0);

    while (r == 0 && done < m->size) {
        size_t want = m->size - done < out_step ? (size_t)m->size - done : out_step;
        size_t more = m->packed - given < in_step ? (size_t)m->packed - given : in_step;
        in.size += more;
        given += more;
        r = member_stream_read(&s, &in, unpacked + done, want, &n);
        if (r == 0 && n == 0 && more == 0)
            r = -EBADMSG;
        done += r == 0 ? n : 0;
    }
    in.size += (size_t)m->packed - given;
    if (r == 0)
        r = member_stream_end(&s, in);
    member_stream_release(&s);
    return r;
}

static void test_members_in_pieces(void **state)
{
    static const size_t steps[] = {1, 7, 1000, PLAIN};
    struct zip_member m = pack_plain();

    for (size_t i = 0; i < 4; i++) {
        for (size_t k = 1; k < 4; k++) {
            memset(unpacked, 0, sizeof unpacked);
            assert_int_equal(unpack(&m, steps[i], steps[k]), 0);
            assert_memory_equal(plain, unpacked, PLAIN);
        }
    }
}

static void test_members_that_lie(void **state)
{
    struct zip_member good = pack_plain(), m = good;
    struct libdeflate_decompressor *d = libdeflate_alloc_decompressor();

    assert_int_equal(member_unpack(d, &good, packed, unpacked), 0);
    m.crc ^= 1;
    assert_int_equal(unpack(&m, PLAIN, 4096), -EBADMSG);
    assert_int_equal(member_unpack(d, &m, packed, unpacked), -EBADMSG);
    m = good;
    m.size--;
    m.crc = libdeflate_crc32(0, plain, PLAIN - 1);
    assert_int_equal(unpack(&m, PLAIN, 4096), -EBADMSG);
    assert_int_equal(member_unpack(d, &m, packed, unpacked), -EBADMSG);
    m = good;
    m.packed--;
    assert_int_equal(unpack(&m, PLAIN, 4096), -EBADMSG);
    assert_int_equal(member_unpack(d, &m, packed, unpacked), -EBADMSG);
    m = good;
    m.packed++;
    assert_int_equal(unpack(&m, PLAIN, 4096), -EBADMSG);
    assert_int_equal(member_unpack(d, &m, packed, unpacked), -EBADMSG);
    m = (struct zip_member){.packed = 100, .size = 100, .crc = libdeflate_crc32(0, packed, 100)};
    assert_int_equal(unpack(&m, 7, 13), 0);
    m.crc++;
    assert_int_equal(unpack(&m, 7, 13), -EBADMSG);
    libdeflate_free_decompressor(d);
}

/* ---- the end of a zip -------------------------------------------------------------------------
 */

static void put_end(uint8_t *p, uint16_t count, uint32_t size, uint32_t offset, uint16_t comment)
{
    memset(p, 0, 22);
    le32_put(p, 0x06054b50);
    le16_put(p + 8, count);
    le16_put(p + 10, count);
    le32_put(p + 12, size);
    le32_put(p + 16, offset);
    le16_put(p + 20, comment);
}

static void test_zip64_end_far_away(void **state)
{
    static uint8_t zip[100000];
    struct zip_directory z = {0};
    struct err err = ERR_INIT;
    uint64_t from = 0;
    size_t end = sizeof zip - 22;

    /* The zip64 record at 100, whose extensible part reaches to the locator. */
    le32_put(zip + 100, 0x06064b50);
    le64_put(zip + 104, end - 20 - 100 - 12);
    le64_put(zip + 148, 100);
    le32_put(zip + end - 20, 0x07064b50);
    le64_put(zip + end - 12, 100);
    le32_put(zip + end - 4, 1);
    put_end(zip + end, 0xffff, 0xffffffff, 0xffffffff, 0);
    assert_int_equal(zip_find_directory(bytes_of(zip, sizeof zip), sizeof zip, &z, &from, &err),
                     -EPROTO); /* farther than anything sensible */
    memmove(zip + 40000, zip + 100, 56);
    le64_put(zip + 40004, end - 20 - 40000 - 12);
    le64_put(zip + 40048, 40000);
    le64_put(zip + end - 12, 40000);
    assert_int_equal(zip_find_directory(bytes_of(zip + 50000, 50000), sizeof zip, &z, &from, &err),
                     -EAGAIN);
    assert_int_equal(from, 40000);
    assert_int_equal(
        zip_find_directory(bytes_of(zip + from, sizeof zip - from), sizeof zip, &z, &from, &err),
        0);
    assert_int_equal(z.offset, 40000);
    assert_int_equal(z.count, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_suffixes),         cmocka_unit_test(test_secrets_leave_the_url),
        cmocka_unit_test(test_redirects),        cmocka_unit_test(test_members_in_pieces),
        cmocka_unit_test(test_members_that_lie), cmocka_unit_test(test_zip64_end_far_away),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
