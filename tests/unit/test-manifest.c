/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Manifests: the same bytes for ever, back and forth, and nothing that breaks a rule gets through.
 *
 * `test-manifest --write-golden FILE` writes the golden manifest anew. That is right only for a new
 * version of the format.
 */
#include "manifest/manifest.h"

#include "base/file.h"
#include "base/le.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define GOLDEN GOLDEN_DIR "/manifest-small.manifest"
#define HEADER 256u
#define REF    96u
#define INDEX  160u

static struct object_ref some_ref(unsigned number)
{
    struct object_ref ref = {
        .seq = number,
        .trailer_length = 104,
        .data_size = 512 * 1000,
        .leaf_count = 100,
        .used_blocks = 900,
        .born = 1,
    };

    memset(ref.session.byte, 0xa0 + (int)number, sizeof ref.session.byte);
    ref.digest = digest_of(&ref.seq, 1);
    ref.length = ref.data_size + 4096 + ref.trailer_length;
    return ref;
}

/* Three packs; the caller owns m->packs. */
static void fill(struct manifest *m)
{
    *m = (struct manifest){
        .name = "cats",
        .version = 7,
        .created_ms = INT64_C(1700000000123),
        .index = some_ref(17),
        .index_size = 512 * 1000 - 100,
        .index_head = 70000,
        .files = 50000,
        .directories = 100,
        .symlinks = 3,
        .size_bytes = UINT64_C(1) << 40,
        .source = "/data/katzen \xfc",
        .pack_count = 3,
    };
    m->packs = calloc(3, sizeof *m->packs);
    assert_non_null(m->packs);
    for (unsigned i = 0; i < 3; i++)
        m->packs[i] = some_ref(i);
    m->packs[1].born = 7;
    m->packs[2].linked = true;
    m->packs[2].seq = UINT32_MAX;
    m->index.used_blocks = m->index.born = 0;
}

static void encode(const struct manifest *m, struct buf *b)
{
    *b = (struct buf)BUF_INIT(MANIFEST_SIZE_MAX);
    assert_int_equal(manifest_encode(m, b), 0);
}

static int decode_code(const void *data, size_t size)
{
    struct manifest m = {.version = 99};
    struct err err = ERR_INIT;

    int r = manifest_decode(bytes_of(data, size), &m, &err);
    if (r < 0) {
        assert_true(m.version == 99 && !m.packs);
        assert_true(err.text[0]);
    }
    manifest_release(&m);
    return r;
}

static void assert_ref_equal(const struct object_ref *a, const struct object_ref *b)
{
    assert_memory_equal(&a->session, &b->session, sizeof a->session);
    assert_true(a->seq == b->seq && a->trailer_length == b->trailer_length);
    assert_true(a->length == b->length && a->data_size == b->data_size);
    assert_true(a->leaf_count == b->leaf_count && digest_equal(&a->digest, &b->digest));
    assert_true(a->used_blocks == b->used_blocks && a->born == b->born && a->linked == b->linked);
}

static void round_trip(void **state)
{
    AUTO(manifest_release) struct manifest m, n = {.version = 0};
    AUTO(buf_release) struct buf b, again;
    struct err err = ERR_INIT;

    fill(&m);
    encode(&m, &b);
    assert_int_equal(b.size, HEADER + 3 * REF + strlen(m.source));
    assert_int_equal(manifest_decode(buf_bytes(&b), &n, &err), 0);
    assert_string_equal(err.text, "");
    assert_string_equal(n.name, "cats");
    assert_string_equal(n.source, m.source);
    assert_true(n.version == 7 && n.created_ms == m.created_ms && !n.linked);
    assert_true(n.files == 50000 && n.directories == 100 && n.symlinks == 3);
    assert_true(n.size_bytes == m.size_bytes);
    assert_true(n.index_size == m.index_size && n.index_head == m.index_head);
    assert_ref_equal(&n.index, &m.index);
    assert_int_equal(n.pack_count, 3);
    for (unsigned i = 0; i < 3; i++)
        assert_ref_equal(&n.packs[i], &m.packs[i]);
    assert_true(object_ref_trailer_offset(&n.index) == m.index.length - 104);
    encode(&n, &again);
    assert_int_equal(again.size, b.size);
    assert_memory_equal(again.data, b.data, b.size);
}

static void golden(void **state)
{
    AUTO(manifest_release) struct manifest m;
    AUTO(buf_release) struct buf b, file = BUF_INIT(MANIFEST_SIZE_MAX);

    fill(&m);
    encode(&m, &b);
    assert_int_equal(file_slurp(AT_FDCWD, GOLDEN, &file), 0);
    assert_int_equal(file.size, b.size);
    assert_memory_equal(file.data, b.data, b.size);
}

static void no_packs_and_most_packs(void **state)
{
    AUTO(manifest_release) struct manifest m;
    AUTO(buf_release) struct buf b, large;

    fill(&m);
    m.pack_count = 0;
    m.source[0] = '\0';
    encode(&m, &b);
    assert_int_equal(b.size, HEADER);
    assert_int_equal(decode_code(b.data, b.size), 0);

    struct object_ref *packs = calloc(MANIFEST_PACKS_MAX + 1, sizeof *packs);
    assert_non_null(packs);
    for (unsigned i = 0; i <= MANIFEST_PACKS_MAX; i++)
        packs[i] = some_ref(0);
    free(m.packs);
    m.packs = packs;
    m.pack_count = MANIFEST_PACKS_MAX;
    memset(m.source, 's', MANIFEST_SOURCE_MAX);
    memset(m.name, 'n', 63);
    encode(&m, &large);
    assert_int_equal(decode_code(large.data, large.size), 0);
    m.pack_count++;
    assert_int_equal(manifest_encode(&m, &large), -EINVAL);
    le32_put(large.data + 20, MANIFEST_PACKS_MAX + 1);
    assert_int_equal(buf_append(&large, large.data + HEADER, REF), 0);
    assert_int_equal(decode_code(large.data, large.size), -EPROTO);
}

/* A rule is kept in both directions: encode refuses, and so does decode what was changed so. */
static void encode_refuses(void **state)
{
    AUTO(buf_release) struct buf b = BUF_INIT(MANIFEST_SIZE_MAX);

    for (unsigned i = 0; i < 18; i++) {
        AUTO(manifest_release) struct manifest m;
        fill(&m);
        switch (i) {
        case 0:
            m.version = 0;
            break;
        case 1:
            m.created_ms = -1;
            break;
        case 2:
            m.name[0] = '\0';
            break;
        case 3:
            m.name[0] = 'C';
            break;
        case 4:
            memset(m.name, 'n', sizeof m.name);
            break;
        case 5:
            memset(m.source, 's', sizeof m.source);
            break;
        case 6:
            m.index_size = 0;
            break;
        case 7:
            m.index_size += 101;
            break;
        case 8:
            m.index_size -= 412;
            break;
        case 9:
            m.index_head = m.index_size + 1;
            break;
        case 10:
            m.index.trailer_length = 0;
            break;
        case 11:
            m.packs[1].data_size++;
            break;
        case 12:
            m.packs[1].length = m.packs[1].data_size + 103;
            break;
        case 13:
            m.packs[1].data_size = UINT64_MAX - 511;
            break;
        case 14:
            m.packs[1].leaf_count = 0;
            break;
        case 15:
            m.packs[1].leaf_count = 1001;
            break;
        case 16:
            m.packs[1].used_blocks = 1001;
            break;
        case 17:
            m.packs[1].born = 0;
            break;
        }
        if (manifest_encode(&m, &b) != -EINVAL || b.size != 0)
            fail_msg("case %u was written", i);
    }
}

/* Each bit of each byte: refused, or another manifest that is written in just these bytes. */
static void flipped_bits(void **state)
{
    AUTO(manifest_release) struct manifest m;
    AUTO(buf_release) struct buf b;
    unsigned refused = 0;

    fill(&m);
    encode(&m, &b);
    for (size_t bit = 0; bit < b.size * 8; bit++) {
        AUTO(manifest_release) struct manifest n = {.version = 0};
        b.data[bit / 8] ^= (uint8_t)(1 << bit % 8);
        if (manifest_decode(buf_bytes(&b), &n, NULL) == 0) {
            AUTO(buf_release) struct buf again;
            encode(&n, &again);
            assert_int_equal(again.size, b.size);
            assert_memory_equal(again.data, b.data, b.size);
        } else {
            refused++;
        }
        b.data[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
    assert_true(refused > 1500);
    assert_int_equal(decode_code(b.data, b.size), 0);
}

static void decode_refuses(void **state)
{
    /* Offset of a 4-byte field, its new value, the answer. */
    static const struct {
        size_t offset;
        uint32_t value;
        int code;
    } cases[] = {
        {0, 0, -EPROTO},          /* magic */
        {8, 0, -EPROTO},          /* format */
        {8, 2, -EPROTONOSUPPORT}, /* a newer one */
        {8, UINT32_MAX, -EPROTONOSUPPORT},
        {12, 1, 0},       /* linked */
        {12, 2, -EPROTO}, /* an unknown flag */
        {16, 0, -EPROTO}, /* version number */
        {16, 6, 0},       /* resumed after version 7, in which a pack was born */
        {20, 2, -EPROTO}, /* fewer packs than bytes */
        {20, 4, -EPROTO}, /* more */
        {20, UINT32_MAX, -EPROTO},
        {28, 0x80000000u, -EPROTO}, /* before 1970 */
        {80, 0, -EPROTO},           /* length of the source */
        {80, UINT32_MAX, -EPROTO},
        {84, 1, -EPROTO},                   /* reserved */
        {88, 0, -EPROTO},                   /* name */
        {148, 1, -EPROTO},                  /* behind the name */
        {152, 1, -EPROTO},                  /* reserved */
        {INDEX + 20, 0, -EPROTO},           /* no trailer */
        {INDEX + 80, 1, -EPROTO},           /* blocks in use, of an index */
        {INDEX + 88, 1, -EPROTO},           /* born */
        {INDEX + 92, 1, -EPROTO},           /* linked */
        {HEADER + 92, 2, -EPROTO},          /* an unknown flag of a pack */
        {HEADER + 28, UINT32_MAX, 0},       /* longer: the trailer will tell */
        {HEADER + 36, UINT32_MAX, -EPROTO}, /* data beyond the object */
        {HEADER + 3 * REF + 2, 0, -EPROTO}, /* zeros in the source */
    };
    AUTO(manifest_release) struct manifest m;
    AUTO(buf_release) struct buf b;

    fill(&m);
    encode(&m, &b);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        uint32_t before = le32_get(b.data + cases[i].offset);
        le32_put(b.data + cases[i].offset, cases[i].value);
        if (decode_code(b.data, b.size) != cases[i].code)
            fail_msg("offset %zu, value %u: %d", cases[i].offset, cases[i].value,
                     decode_code(b.data, b.size));
        le32_put(b.data + cases[i].offset, before);
    }
    for (size_t n = 0; n < b.size; n++)
        assert_int_equal(decode_code(b.data, n), -EPROTO);
    assert_int_equal(buf_append(&b, "x", 1), 0);
    assert_int_equal(decode_code(b.data, b.size), -EPROTO);
}

static void keys(void **state)
{
    struct object_ref ref = some_ref(3);
    struct session_id id;
    char key[OBJECT_KEY_MAX], hex[33];

    object_ref_key('p', &ref, key);
    assert_string_equal(key, "p/a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3/3");
    ref.seq = UINT32_MAX;
    object_ref_key('x', &ref, key);
    assert_string_equal(key, "x/a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3/4294967295");
    session_id_to_hex(&ref.session, hex);
    assert_int_equal(session_id_from_hex(&id, hex), 0);
    assert_memory_equal(&id, &ref.session, sizeof id);
    assert_int_equal(session_id_from_hex(&id, "a3"), -EINVAL);
    assert_int_equal(session_id_from_hex(&id, "A3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3"), -EINVAL);
    assert_int_equal(session_id_from_hex(&id, "a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a"), -EINVAL);
}

static int write_golden(const char *path)
{
    AUTO(manifest_release) struct manifest m;
    AUTO(buf_release) struct buf b;

    fill(&m);
    encode(&m, &b);
    AUTO(close_fd) int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    return fd < 0 ? -errno : file_write(fd, b.data, b.size);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(round_trip),
        cmocka_unit_test(golden),
        cmocka_unit_test(no_packs_and_most_packs),
        cmocka_unit_test(encode_refuses),
        cmocka_unit_test(flipped_bits),
        cmocka_unit_test(decode_refuses),
        cmocka_unit_test(keys),
    };

    if (argc == 3 && strcmp(argv[1], "--write-golden") == 0)
        return write_golden(argv[2]) < 0;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
