/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writes and reads manifests, and the keys of the objects they name.
 *
 * One set of rules (manifest_check) serves both directions: what would not be accepted is not
 * written. Decoding takes only the canonical form, so encoding again gives the same bytes.
 */
#include "manifest/manifest.h"

#include "base/hex.h"
#include "base/le.h"
#include "base/name.h"

#include <string.h>

#define MANIFEST_MAGIC   "GRIDMANI"
#define MANIFEST_VERSION 1u
#define MANIFEST_HEADER  256u
#define REF_SIZE         96u
#define BLOCK            512u                /* of packs; docs/formats/pack.md */
#define LINKED_MAX       (UINT64_C(1) << 32) /* blocks of a linked device */
#define FLAG_LINKED      1u

enum manifest_field {
    FIELD_MAGIC = 0,
    FIELD_FORMAT = 8,
    FIELD_FLAGS = 12,
    FIELD_NUMBER = 16,
    FIELD_PACK_COUNT = 20,
    FIELD_CREATED = 24,
    FIELD_FILES = 32,
    FIELD_DIRECTORIES = 40,
    FIELD_SYMLINKS = 48,
    FIELD_SIZE = 56,
    FIELD_INDEX_SIZE = 64,
    FIELD_INDEX_HEAD = 72,
    FIELD_SOURCE_LENGTH = 80,
    FIELD_RESERVED = 84,
    FIELD_NAME = 88,
    FIELD_RESERVED_2 = 152,
    FIELD_INDEX = 160,
};

enum ref_field {
    REF_SESSION = 0,
    REF_SEQ = 16,
    REF_TRAILER_LENGTH = 20,
    REF_LENGTH = 24,
    REF_DATA_SIZE = 32,
    REF_LEAF_COUNT = 40,
    REF_DIGEST = 48,
    REF_USED_BLOCKS = 80,
    REF_BORN = 88,
    REF_FLAGS = 92,
};

_Static_assert(FIELD_INDEX + REF_SIZE == MANIFEST_HEADER, "the index's reference ends the header");
_Static_assert(MANIFEST_HEADER + MANIFEST_PACKS_MAX * REF_SIZE + MANIFEST_SOURCE_MAX <=
                   MANIFEST_SIZE_MAX,
               "the largest manifest fits its bound");
_Static_assert(sizeof((struct manifest *)0)->name == 64 && NAME_MAX_LENGTH == 63,
               "a name and its NUL fill the field");

void object_ref_key(char letter, const struct object_ref *ref, char ret_key[static OBJECT_KEY_MAX])
{
    char hex[33];

    session_id_to_hex(&ref->session, hex);
    (void)snprintf(ret_key, OBJECT_KEY_MAX, "%c/%s/%u", letter, hex, ref->seq); /* at most 46 */
}

void session_id_to_hex(const struct session_id *id, char ret_hex[static 33])
{
    hex_encode(ret_hex, id->byte, sizeof id->byte);
}

int session_id_from_hex(struct session_id *ret, const char *hex)
{
    struct session_id id;

    if (strlen(hex) != 2 * sizeof id.byte || hex_decode(id.byte, sizeof id.byte, hex) < 0)
        return -EINVAL;
    *ret = id;
    return 0;
}

void manifest_release(struct manifest *m)
{
    free(m->packs);
    m->packs = NULL;
    m->pack_count = 0;
}

int manifest_copy(const struct manifest *m, struct manifest *ret)
{
    struct object_ref *packs = calloc(m->pack_count + 1u, sizeof *packs);

    if (!packs)
        return -ENOMEM;
    if (m->pack_count)
        memcpy(packs, m->packs, m->pack_count * sizeof *packs);
    *ret = *m;
    ret->packs = packs;
    return 0;
}

static bool ref_is_sound(const struct object_ref *ref)
{
    return ref->trailer_length >= 1 && ref->data_size >= BLOCK && ref->data_size % BLOCK == 0 &&
           ref->leaf_count >= 1 && ref->leaf_count <= ref->data_size / BLOCK &&
           ref->data_size <= ref->length && ref->trailer_length <= ref->length - ref->data_size;
}

/* A pack may be born in a higher version: an upload that was interrupted keeps its low number, and
 * when it is resumed it may use what versions since then have stored. */
static bool pack_is_sound(const struct object_ref *ref)
{
    uint64_t blocks = ref->linked ? LINKED_MAX : ref->data_size / BLOCK;

    return ref_is_sound(ref) && ref->used_blocks <= blocks && ref->born >= 1 &&
           (!ref->linked || ref->used_blocks >= 1);
}

static bool index_is_sound(const struct manifest *m)
{
    uint64_t blocks = m->index_size / BLOCK + (m->index_size % BLOCK != 0);

    return ref_is_sound(&m->index) && m->index_size >= 1 && m->index_head <= m->index_size &&
           blocks == m->index.data_size / BLOCK;
}

/* The sentence that says which rule is broken; NULL if none is. */
static const char *manifest_check(const struct manifest *m)
{
    if (m->version < 1)
        return "its version has no number";
    if (m->created_ms < 0)
        return "its time is before 1970";
    if (!memchr(m->name, '\0', sizeof m->name) || !name_is_valid(m->name))
        return "it names no datastore";
    if (!memchr(m->source, '\0', sizeof m->source))
        return "its source is too long";
    if (m->pack_count > MANIFEST_PACKS_MAX)
        return "it has too many packs";
    if (!index_is_sound(m))
        return "the sizes of its index contradict each other";
    for (uint32_t i = 0; i < m->pack_count; i++) {
        if (!pack_is_sound(&m->packs[i]))
            return "the sizes of one of its packs contradict each other";
    }
    return NULL;
}

static void ref_put(uint8_t *p, const struct object_ref *ref)
{
    memcpy(p + REF_SESSION, ref->session.byte, sizeof ref->session.byte);
    le32_put(p + REF_SEQ, ref->seq);
    le32_put(p + REF_TRAILER_LENGTH, ref->trailer_length);
    le64_put(p + REF_LENGTH, ref->length);
    le64_put(p + REF_DATA_SIZE, ref->data_size);
    le64_put(p + REF_LEAF_COUNT, ref->leaf_count);
    memcpy(p + REF_DIGEST, ref->digest.byte, DIGEST_SIZE);
    le64_put(p + REF_USED_BLOCKS, ref->used_blocks);
    le32_put(p + REF_BORN, ref->born);
    le32_put(p + REF_FLAGS, ref->linked ? FLAG_LINKED : 0);
}

static void index_put(uint8_t *p, const struct object_ref *ref)
{
    struct object_ref index = *ref;

    index.used_blocks = 0;
    index.born = 0;
    index.linked = false;
    ref_put(p, &index);
}

int manifest_encode(const struct manifest *m, struct buf *b)
{
    uint8_t *p;

    if (manifest_check(m))
        return -EINVAL;
    size_t source = strlen(m->source);
    int r = buf_extend(b, MANIFEST_HEADER + (size_t)m->pack_count * REF_SIZE + source, &p);
    if (r < 0)
        return r;
    memcpy(p + FIELD_MAGIC, MANIFEST_MAGIC, 8);
    le32_put(p + FIELD_FORMAT, MANIFEST_VERSION);
    le32_put(p + FIELD_FLAGS, m->linked ? FLAG_LINKED : 0);
    le32_put(p + FIELD_NUMBER, m->version);
    le32_put(p + FIELD_PACK_COUNT, m->pack_count);
    le64_put(p + FIELD_CREATED, (uint64_t)m->created_ms);
    le64_put(p + FIELD_FILES, m->files);
    le64_put(p + FIELD_DIRECTORIES, m->directories);
    le64_put(p + FIELD_SYMLINKS, m->symlinks);
    le64_put(p + FIELD_SIZE, m->size_bytes);
    le64_put(p + FIELD_INDEX_SIZE, m->index_size);
    le64_put(p + FIELD_INDEX_HEAD, m->index_head);
    le32_put(p + FIELD_SOURCE_LENGTH, (uint32_t)source);
    memcpy(p + FIELD_NAME, m->name, strlen(m->name));
    index_put(p + FIELD_INDEX, &m->index);
    p += MANIFEST_HEADER;
    for (uint32_t i = 0; i < m->pack_count; i++, p += REF_SIZE)
        ref_put(p, &m->packs[i]);
    memcpy(p, m->source, source);
    return 0;
}

static bool is_zero(const uint8_t *p, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        if (p[i] != 0)
            return false;
    }
    return true;
}

/* False: a flag is set that this format does not have. */
static bool ref_get(const uint8_t *p, struct object_ref *ret)
{
    uint32_t flags = le32_get(p + REF_FLAGS);

    *ret = (struct object_ref){
        .seq = le32_get(p + REF_SEQ),
        .trailer_length = le32_get(p + REF_TRAILER_LENGTH),
        .length = le64_get(p + REF_LENGTH),
        .data_size = le64_get(p + REF_DATA_SIZE),
        .leaf_count = le64_get(p + REF_LEAF_COUNT),
        .used_blocks = le64_get(p + REF_USED_BLOCKS),
        .born = le32_get(p + REF_BORN),
        .linked = flags & FLAG_LINKED,
    };
    memcpy(ret->session.byte, p + REF_SESSION, sizeof ret->session.byte);
    memcpy(ret->digest.byte, p + REF_DIGEST, DIGEST_SIZE);
    return (flags & ~FLAG_LINKED) == 0;
}

static const char *fields_get(const uint8_t *h, struct manifest *m)
{
    uint32_t flags = le32_get(h + FIELD_FLAGS);

    m->version = le32_get(h + FIELD_NUMBER);
    m->created_ms = (int64_t)le64_get(h + FIELD_CREATED);
    m->files = le64_get(h + FIELD_FILES);
    m->directories = le64_get(h + FIELD_DIRECTORIES);
    m->symlinks = le64_get(h + FIELD_SYMLINKS);
    m->size_bytes = le64_get(h + FIELD_SIZE);
    m->index_size = le64_get(h + FIELD_INDEX_SIZE);
    m->index_head = le64_get(h + FIELD_INDEX_HEAD);
    m->linked = flags & FLAG_LINKED;
    memcpy(m->name, h + FIELD_NAME, sizeof m->name);
    const uint8_t *end = memchr(m->name, '\0', sizeof m->name);
    if (!end || !is_zero(end, sizeof m->name - (size_t)(end - (const uint8_t *)m->name)))
        return "its name is not padded with zeros";
    if ((flags & ~FLAG_LINKED) != 0 || le32_get(h + FIELD_RESERVED) != 0 ||
        !is_zero(h + FIELD_RESERVED_2, FIELD_INDEX - FIELD_RESERVED_2) ||
        !ref_get(h + FIELD_INDEX, &m->index) ||
        !is_zero(h + FIELD_INDEX + REF_USED_BLOCKS, REF_SIZE - REF_USED_BLOCKS))
        return "a reserved field is in use";
    return NULL;
}

/* Packs and source: `rest` has the size that the header says. */
static const char *rest_get(const uint8_t *rest, uint32_t source_length, struct manifest *m)
{
    for (uint32_t i = 0; i < m->pack_count; i++, rest += REF_SIZE) {
        if (!ref_get(rest, &m->packs[i]))
            return "a reserved field of a pack is in use";
    }
    if (memchr(rest, '\0', source_length))
        return "its source has a zero byte";
    memcpy(m->source, rest, source_length);
    return manifest_check(m);
}

int manifest_decode(struct bytes bytes, struct manifest *ret, struct err *err)
{
    AUTO(manifest_release) struct manifest m = {0};
    const uint8_t *h = bytes.data;

    if (bytes.size < MANIFEST_HEADER || memcmp(h + FIELD_MAGIC, MANIFEST_MAGIC, 8) != 0)
        return err_fail(err, -EPROTO, "this is not a manifest");
    uint32_t format = le32_get(h + FIELD_FORMAT);
    if (format > MANIFEST_VERSION)
        return err_fail(err, -EPROTONOSUPPORT,
                        "the manifest is of format %u, newer than this program knows (%u)", format,
                        MANIFEST_VERSION);
    uint32_t packs = le32_get(h + FIELD_PACK_COUNT), source = le32_get(h + FIELD_SOURCE_LENGTH);
    if (format != MANIFEST_VERSION || packs > MANIFEST_PACKS_MAX || source > MANIFEST_SOURCE_MAX ||
        bytes.size != MANIFEST_HEADER + (size_t)packs * REF_SIZE + source)
        return err_fail(err, -EPROTO, "the manifest's format or length is wrong");

    const char *wrong = fields_get(h, &m);
    if (!wrong && packs > 0) {
        m.packs = malloc(packs * sizeof *m.packs); /* bounded by the bytes that are there */
        if (!m.packs)
            return err_fail(err, -ENOMEM, "not enough memory for a manifest of %u packs", packs);
        m.pack_count = packs;
    }
    if (!wrong)
        wrong = rest_get(h + MANIFEST_HEADER, source, &m);
    if (wrong)
        return err_fail(err, -EPROTO, "the manifest breaks its format: %s", wrong);
    *ret = m;
    m.packs = NULL;
    return 0;
}
