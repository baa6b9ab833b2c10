/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The parts of s3/ that need no server: signatures against AWS's published examples, spellings,
 * pages, profiles, locations, addresses.
 */
#include "s3/s3-internal.h"
#include "s3/s3-profile.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define EMPTY "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

static const struct s3_credential example = {
    .access_key = "AKIAIOSFODNN7EXAMPLE",
    .secret = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
};

/* ---- signing: "Signature Calculations for the Authorization Header", Amazon S3 API reference ----
 */

static void check_signature(const char *method, const char *path, const char *query,
                            const char *payload_hash, struct http_header *headers, size_t count,
                            const char *expected)
{
    struct s3_signing g = {
        .method = method,
        .path = path,
        .query = query,
        .region = "us-east-1",
        .service = "s3",
        .payload_hash = payload_hash,
        .date = "20130524T000000Z",
        .credential = &example,
    };
    char authorization[S3_AUTHORIZATION_MAX];

    assert_int_equal(s3_sign(&g, headers, count, authorization), 0);
    const char *signature = strstr(authorization, "Signature=");
    assert_non_null(signature);
    assert_string_equal(signature + strlen("Signature="), expected);
    assert_non_null(
        strstr(authorization, "Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/"));
}

static void test_sign(void **state)
{
    struct http_header get[] = {
        {"x-amz-date", "20130524T000000Z"},
        {"range", "bytes=0-9"},
        {"x-amz-content-sha256", EMPTY},
        {"host", "examplebucket.s3.amazonaws.com"},
    };
    check_signature("GET", "/test.txt", "", EMPTY, get, 4,
                    "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41");

    const char *hash = "44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034a8b803f8b072";
    struct http_header put[] = {
        {"date", "Fri, 24 May 2013 00:00:00 GMT"},
        {"host", "examplebucket.s3.amazonaws.com"},
        {"x-amz-content-sha256", hash},
        {"x-amz-date", "20130524T000000Z"},
        {"x-amz-storage-class", "  REDUCED_REDUNDANCY "},
    };
    check_signature("PUT", "/test%24file.text", "", hash, put, 5,
                    "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd");

    struct http_header plain[] = {
        {"host", "examplebucket.s3.amazonaws.com"},
        {"x-amz-content-sha256", EMPTY},
        {"x-amz-date", "20130524T000000Z"},
    };
    check_signature("GET", "/", "lifecycle=", EMPTY, plain, 3,
                    "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543");
    check_signature("GET", "/", "max-keys=2&prefix=J", EMPTY, plain, 3,
                    "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7");
}

static void test_sign_date(void **state)
{
    char text[S3_AMZ_DATE_SIZE];

    s3_sign_date(INT64_C(1369353600999), text);
    assert_string_equal(text, "20130524T000000Z");
}

static void test_multipart_etag(void **state)
{
    struct s3_etag parts[2] = {{"0cc175b9c0f1b6a831c399e269772661"},
                               {"92eb5ffee6ae2fec3ad71c777531578f"}};
    char etag[S3_ETAG_MAX];

    assert_int_equal(s3_multipart_etag(parts, 2, etag), 0);
    assert_string_equal(etag, "96e024ba2074fe77e8e965ba43a704be-2");
    (void)snprintf(parts[1].text, sizeof parts[1].text, "not of hexadecimal digits");
    assert_int_equal(s3_multipart_etag(parts, 2, etag), -EINVAL);
}

/* ---- spellings ---- */

static void test_encode(void **state)
{
    AUTO(buf_release) struct buf b = BUF_INIT(256);

    assert_int_equal(s3_encode(&b, "a/b c+d%~\xc3\xa4'()*!", true), 0);
    assert_string_equal(buf_text(&b), "a/b%20c%2Bd%25~%C3%A4%27%28%29%2A%21");
    buf_clear(&b);
    assert_int_equal(s3_encode(&b, "a/b=", false), 0);
    assert_string_equal(buf_text(&b), "a%2Fb%3D");
}

static void test_decode(void **state)
{
    char good[] = "a%2Fb+c%2b%C3%a4", bad[][8] = {"%", "%4", "%zz", "a%00b", "%+1"};

    assert_int_equal(s3_decode(good, true), 0);
    assert_string_equal(good, "a/b c+\xc3\xa4");
    char plus[] = "a+b";
    assert_int_equal(s3_decode(plus, false), 0);
    assert_string_equal(plus, "a+b");
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_int_equal(s3_decode(bad[i], true), -EPROTO);
}

static void test_times(void **state)
{
    static const char *const bad[] = {"",
                                      "2009-10-12T17:50:30",
                                      "2009-10-12 17:50:30.000Z",
                                      "2009-13-12T17:50:30.000Z",
                                      "2009-10-12T17:50:30.0x0Z",
                                      "2009-10-12T25:50:30.000Z",
                                      "200a-10-12T17:50:30.000Z"};
    int64_t ms;

    assert_int_equal(s3_parse_iso_time("2009-10-12T17:50:30.123Z", &ms), 0);
    assert_int_equal(ms, INT64_C(1255369830123));
    assert_int_equal(s3_parse_iso_time("2009-10-12T17:50:30Z", &ms), 0);
    assert_int_equal(ms, INT64_C(1255369830000));
    assert_int_equal(s3_parse_iso_time("2009-10-12T17:50:30.123456789Z", &ms), 0);
    assert_int_equal(ms, INT64_C(1255369830123));
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_int_equal(s3_parse_iso_time(bad[i], &ms), -EPROTO);
    assert_int_equal(s3_parse_http_time("Mon, 12 Oct 2009 17:50:30 GMT", &ms), 0);
    assert_int_equal(ms, INT64_C(1255369830000));
    assert_int_equal(s3_parse_http_time("Mon, 12 ctN 2009 17:50:30 GMT", &ms), -EPROTO);
    assert_int_equal(s3_parse_http_time("Mon, 12 Oct 2009 17:50:30 CET", &ms), -EPROTO);
}

static void test_numbers(void **state)
{
    uint64_t v;

    assert_int_equal(s3_parse_number("18446744073709551615", UINT64_MAX, &v), 0);
    assert_true(v == UINT64_MAX);
    assert_int_equal(s3_parse_number("18446744073709551616", UINT64_MAX, &v), -EPROTO);
    assert_int_equal(s3_parse_number("256", 255, &v), -EPROTO);
    assert_int_equal(s3_parse_number("7", 5, &v), -EPROTO);
    assert_int_equal(s3_parse_number("", 5, &v), -EPROTO);
    assert_int_equal(s3_parse_number("-1", 5, &v), -EPROTO);
    assert_int_equal(s3_parse_number("1 ", 5, &v), -EPROTO);
}

static void test_locations(void **state)
{
    static const char *const bad[] = {"s3://",     "s3:///x",   "http://b/x",
                                      "s3://b@d/", "s3://-b/x", "b/x"};
    char bucket[256], prefix[S3_KEY_MAX + 1];
    struct err err;

    assert_int_equal(s3_parse_location("s3://my-bucket", bucket, prefix, NULL), 0);
    assert_string_equal(bucket, "my-bucket");
    assert_string_equal(prefix, "");
    assert_int_equal(s3_parse_location("s3://b/a//c/", bucket, prefix, NULL), 0);
    assert_string_equal(prefix, "a//c/");
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        err_clear(&err);
        assert_int_equal(s3_parse_location(bad[i], bucket, prefix, &err), -EINVAL);
        assert_true(err.text[0]);
    }
}

/* ---- pages ---- */

#define ROW(key)                                                                                   \
    "<Contents><Key>" key "</Key><LastModified>2009-10-12T17:50:30.000Z</LastModified>"            \
    "<Size>5</Size><ETag>&quot;e&quot;</ETag></Contents>"
#define PAGE(rest) "<ListBucketResult xmlns=\"x\">" rest "</ListBucketResult>"
#define LAST       "<IsTruncated>false</IsTruncated><EncodingType>url</EncodingType>"

static void check_page(const char *text, size_t count, const char *const *keys)
{
    AUTO(s3_page_release) struct s3_page p = {.truncated = true};
    struct err err = ERR_INIT;

    if (s3_page_parse(bytes_str(text), false, &p, &err) < 0)
        fail_msg("%s", err.text);
    assert_int_equal(p.rows.count, count);
    for (size_t i = 0; i < count; i++)
        assert_string_equal(p.rows.at[i].key, keys[i]);
}

static void test_pages(void **state)
{
    check_page(PAGE(LAST), 0, NULL);
    check_page(PAGE(LAST ROW("b+c%2Bd") ROW("a%2Fb")), 2, (const char *const[]){"a/b", "b c+d"});
    /* A server that spells a space as %20 does not mean one by "+". */
    check_page(PAGE(LAST ROW("b+c") ROW("a%20b")), 2, (const char *const[]){"a b", "b+c"});
    /* Not encoded: nothing is decoded. */
    check_page(PAGE("<IsTruncated>false</IsTruncated>" ROW("a+b%20c")), 1,
               (const char *const[]){"a+b%20c"});
    check_page(PAGE(LAST ROW("b") "<CommonPrefixes><Prefix>a/</Prefix></CommonPrefixes>"
                                  "<Prefix></Prefix><KeyCount>2</KeyCount>"),
               2, (const char *const[]){"a/", "b"});
}

static void test_versions_page(void **state)
{
    const char *text =
        "<ListVersionsResult><IsTruncated>false</IsTruncated>"
        "<Version><Key>a</Key><VersionId>v2</VersionId><IsLatest>true</IsLatest><Size>1</Size>"
        "<LastModified>2009-10-12T17:50:30Z</LastModified><Owner><ID>x</ID></Owner></Version>"
        "<Version><Key>a</Key><VersionId>v1</VersionId><IsLatest>false</IsLatest><Size>1</Size>"
        "<LastModified>2009-10-12T17:50:30Z</LastModified></Version>"
        "<DeleteMarker><Key>b</Key><VersionId>v9</VersionId><IsLatest>true</IsLatest>"
        "<LastModified>2009-10-12T17:50:30Z</LastModified></DeleteMarker></ListVersionsResult>";
    AUTO(s3_page_release) struct s3_page p = {.truncated = true};

    assert_int_equal(s3_page_parse(bytes_str(text), true, &p, NULL), 0);
    assert_int_equal(p.rows.count, 1);
    assert_string_equal(p.rows.at[0].key, "a");
    assert_string_equal(p.rows.at[0].object.version_id, "v2");
}

static void test_bad_pages(void **state)
{
    static const char *const bad[] = {
        "",
        "<ListBucketResult>",
        PAGE(LAST) "x",
        PAGE(LAST) PAGE(LAST),
        "<!DOCTYPE x>" PAGE(LAST),
        PAGE(""),
        PAGE(LAST ROW("")),
        PAGE(LAST ROW("a") ROW("a")),
        PAGE(LAST ROW("a<Key>b</Key>")),
        PAGE(LAST "<Contents><Key>a</Key><Key>b</Key></Contents>"),
        PAGE(LAST "<Contents><Key>a</Key></Contents>"),
        PAGE(LAST "<Contents><Size>1</Size></Contents>"),
        PAGE(LAST "<Contents><Key>a</Key><Size>-1</Size></Contents>"),
        PAGE(LAST "<KeyCount>1</KeyCount>"),
        PAGE("<IsTruncated>yes</IsTruncated>"),
        PAGE("<IsTruncated>true</IsTruncated>"),
        PAGE(LAST "<a><b><c><d><e><f><g><h></h></g></f></e></d></c></b></a>"),
        PAGE(LAST "&nbsp;"),
    };
    AUTO(s3_page_release) struct s3_page p = {.truncated = true};

    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct err err = ERR_INIT;
        if (s3_page_parse(bytes_str(bad[i]), false, &p, &err) != -EPROTO || !err.text[0])
            fail_msg("%s: \"%s\"", bad[i], err.text);
    }
}

static void test_errors(void **state)
{
    struct s3_answer a;

    assert_true(s3_xml_error(bytes_str("<Error><Code>NoSuchKey</Code><RequestId>r</RequestId>"
                                       "<Details><More>x</More></Details></Error>"),
                             &a));
    assert_string_equal(a.code, "NoSuchKey");
    assert_string_equal(a.request_id, "r");
    assert_true(s3_xml_error(
        bytes_str("<ErrorResponse><Error><Code>AccessDenied</Code></Error></ErrorResponse>"), &a));
    assert_string_equal(a.code, "AccessDenied");
    assert_false(s3_xml_error(bytes_str("<html><Code>NoSuchKey</Code></html>"), &a));
    assert_string_equal(a.code, "");
    assert_false(s3_xml_error(bytes_str("<Error><Code>NoSuchKey</Code>"), &a));
    assert_string_equal(a.code, "");
}

/* ---- profiles ---- */

static void test_profile(void **state)
{
    static const char config[] = "# comment\n"
                                 "[default]\nregion = no\n"
                                 "[profile work] ; note\n"
                                 "region=eu-west-1 # here\n"
                                 "s3 =\n"
                                 "    addressing_style = virtual\n"
                                 "    max_queue = 7\n"
                                 "Output = json\r\n"
                                 "broken line\n"
                                 "[work]\nregion = not-this\n"
                                 "[profile 'other one']\nregion = neither\n";
    static const char credentials[] = "[work]\naws_access_key_id = AK#1\n[profile work]\nregion=x";
    AUTO(s3_profile_release) struct s3_profile p = {.name = "work"};

    assert_int_equal(s3_profile_parse(&p, bytes_str(config), false), 0);
    assert_true(p.found);
    assert_string_equal(s3_profile_get(&p, "region"), "eu-west-1");
    assert_string_equal(s3_profile_get(&p, "s3.addressing_style"), "virtual");
    assert_string_equal(s3_profile_get(&p, "s3.max_queue"), "7");
    assert_string_equal(s3_profile_get(&p, "output"), "json");
    assert_null(s3_profile_get(&p, "addressing_style"));
    assert_int_equal(s3_profile_parse(&p, bytes_str(credentials), true), 0);
    assert_string_equal(s3_profile_get(&p, "aws_access_key_id"), "AK#1");
    assert_string_equal(s3_profile_get(&p, "region"), "eu-west-1");
}

/* ---- addresses ---- */

static void check_address(const struct s3_options *o, const char *bucket, const char *host,
                          const char *path)
{
    AUTO(s3_free) struct s3 *s = NULL;
    AUTO(buf_release) struct buf b = BUF_INIT(1024);
    char got[S3_HOST_MAX + 1];

    assert_int_equal(s3_new(o, &s, NULL), 0);
    assert_int_equal(s3_address(s, bucket, got, &b), 0);
    assert_string_equal(got, host);
    assert_string_equal(buf_text(&b), path);
}

static void test_addresses(void **state)
{
    struct s3_options aws = {.region = "eu-west-1", .anonymous = true};
    struct s3_options own = {.endpoint = "http://10.0.0.1:80/base/", .anonymous = true};
    struct s3_options virtual = {
        .endpoint = "https://s3.example.org:8443",
        .addressing = S3_ADDRESSING_VIRTUAL,
        .anonymous = true,
    };
    struct s3_options china = {.region = "cn-north-1", .anonymous = true};

    check_address(&aws, "bucket", "bucket.s3.eu-west-1.amazonaws.com", "");
    check_address(&aws, "dotted.bucket", "s3.eu-west-1.amazonaws.com", "/dotted.bucket");
    check_address(&aws, "Upper_Case", "s3.eu-west-1.amazonaws.com", "/Upper_Case");
    check_address(&own, "bucket", "10.0.0.1", "/base/bucket");
    check_address(&virtual, "bucket", "bucket.s3.example.org:8443", "");
    check_address(&china, "bucket", "bucket.s3.cn-north-1.amazonaws.com.cn", "");

    static const char *const bad[] = {"ftp://x", "https://",        "https://user@host",
                                      "host:80", "https://host/?x", "https://a b"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct s3_options o = {.endpoint = bad[i], .anonymous = true};
        struct s3 *s = NULL;
        struct err err = ERR_INIT;
        assert_int_equal(s3_new(&o, &s, &err), -EINVAL);
        assert_non_null(strstr(err.text, "endpoint"));
    }
}

static int set_up(void **state)
{
    static const char *const variables[] = {"AWS_PROFILE", "AWS_REGION", "AWS_DEFAULT_REGION",
                                            "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"};

    for (size_t i = 0; i < sizeof variables / sizeof *variables; i++)
        (void)unsetenv(variables[i]);
    return setenv("HOME", "/nonexistent", 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sign),      cmocka_unit_test(test_sign_date),
        cmocka_unit_test(test_encode),    cmocka_unit_test(test_decode),
        cmocka_unit_test(test_times),     cmocka_unit_test(test_numbers),
        cmocka_unit_test(test_locations), cmocka_unit_test(test_pages),
        cmocka_unit_test(test_bad_pages), cmocka_unit_test(test_versions_page),
        cmocka_unit_test(test_errors),    cmocka_unit_test(test_profile),
        cmocka_unit_test(test_addresses), cmocka_unit_test(test_multipart_etag),
    };

    return cmocka_run_group_tests(tests, set_up, NULL);
}
