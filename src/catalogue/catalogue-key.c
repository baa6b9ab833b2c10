/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Keys of the catalogue: made and taken apart here and nowhere else (docs/formats/catalogue.md).
 *
 * Version numbers and rounds count down in keys, so that one listing shows the newest first.
 */
#include "catalogue/catalogue-internal.h"

#include "base/name.h"

#include <assert.h>
#include <inttypes.h>

static void key_printf(char key[static CATALOGUE_KEY_MAX], const char *format, ...)
    __attribute__((format(printf, 2, 3)));

static void key_printf(char key[static CATALOGUE_KEY_MAX], const char *format, ...)
{
    va_list args;

    va_start(args, format);
    int n = vsnprintf(key, CATALOGUE_KEY_MAX, format, args);
    va_end(args);
    assert(n > 0 && n < CATALOGUE_KEY_MAX); /* names are checked before they get here */
}

void key_versions(char key[static CATALOGUE_KEY_MAX], const char *name)
{
    key_printf(key, KEY_VERSIONS "%s/v/", name);
}

void key_version(char key[static CATALOGUE_KEY_MAX], const char *name, uint32_t n, const char *leaf)
{
    key_printf(key, KEY_VERSIONS "%s/v/%010" PRIu64 "/%s", name, KEY_REVERSE - n, leaf);
}

void key_session(char key[static CATALOGUE_KEY_MAX], const struct session_id *id, const char *leaf)
{
    char hex[33];

    session_id_to_hex(id, hex);
    key_printf(key, "s/%s/%s", hex, leaf);
}

void key_heartbeat(char key[static CATALOGUE_KEY_MAX], const struct session_id *id, uint32_t seq)
{
    char hex[33];

    session_id_to_hex(id, hex);
    key_printf(key, "s/%s/h.%010" PRIu32, hex, seq);
}

void key_objects(char key[static CATALOGUE_KEY_MAX], char letter, const struct session_id *id)
{
    char hex[33];

    session_id_to_hex(id, hex);
    key_printf(key, "%c/%s/", letter, hex);
}

/* Reads 1 to `width` digits at *text (exactly `width` if `exact`) and moves *text behind them. */
static bool parse_digits(const char **text, size_t width, bool exact, uint64_t *ret)
{
    uint64_t value = 0;
    size_t i = 0;

    for (; i < width && (*text)[i] >= '0' && (*text)[i] <= '9'; i++)
        value = value * 10 + (uint64_t)((*text)[i] - '0');
    if (i == 0 || (exact && i != width))
        return false;
    *text += i;
    *ret = value;
    return true;
}

/* What stands behind "n/<name>/v/<rev>/". */
static bool parse_leaf(const char *text, enum key_leaf *ret, uint32_t *ret_round)
{
    uint64_t round;

    if (!*text)
        *ret = KEY_LEAF_NONE;
    else if (strcmp(text, "a") == 0)
        *ret = KEY_LEAF_ALLOCATION;
    else if (strcmp(text, "o") == 0)
        *ret = KEY_LEAF_OUTCOME;
    else if (strncmp(text, "d/", 2) == 0) {
        text += 2;
        if (!parse_digits(&text, 6, true, &round))
            return false;
        *ret_round = (uint32_t)round;
        if (strcmp(text, "/i") == 0)
            *ret = KEY_LEAF_DELETE_INTENT;
        else if (strcmp(text, "/r") == 0)
            *ret = KEY_LEAF_DELETE_RESULT;
        else
            return false;
    } else
        return false;
    return true;
}

bool key_parse_version(const char *key, struct key_parts *ret)
{
    struct key_parts parts = {0};
    const char *p = key;
    uint64_t reverse;

    if (strncmp(p, KEY_VERSIONS, strlen(KEY_VERSIONS)) != 0)
        return false;
    p += strlen(KEY_VERSIONS);
    size_t length = strcspn(p, "/");
    if (length >= sizeof parts.name)
        return false;
    memcpy(parts.name, p, length);
    p += length;
    if (!name_is_valid(parts.name) || strncmp(p, "/v/", 3) != 0)
        return false;
    p += 3;
    if (!parse_digits(&p, 10, true, &reverse) || *p != '/')
        return false;
    if (reverse >= KEY_REVERSE || KEY_REVERSE - reverse > CATALOGUE_VERSION_MAX)
        return false;
    parts.version = (uint32_t)(KEY_REVERSE - reverse);
    if (!parse_leaf(p + 1, &parts.leaf, &parts.delete_round))
        return false;
    *ret = parts;
    return true;
}

bool key_parse_seq(const char *key, size_t skip, uint32_t *ret)
{
    const char *p = key + skip;
    uint64_t value;

    if (strlen(key) <= skip || !parse_digits(&p, 10, false, &value) || *p || value > UINT32_MAX)
        return false;
    *ret = (uint32_t)value;
    return true;
}

bool key_parse_round(const char *key, uint64_t *ret_round, char *ret_leaf)
{
    const char *p = key;
    uint64_t reverse;

    if (strncmp(p, KEY_ROUNDS, strlen(KEY_ROUNDS)) != 0)
        return false;
    p += strlen(KEY_ROUNDS);
    if (!parse_digits(&p, 10, true, &reverse) || reverse >= KEY_REVERSE)
        return false;
    if (p[0] != '/' || !p[1] || !strchr("cswe", p[1]) || p[2])
        return false;
    *ret_round = KEY_REVERSE - reverse;
    *ret_leaf = p[1];
    return true;
}

void key_round(char key[static CATALOGUE_KEY_MAX], uint64_t round, char leaf)
{
    key_printf(key, KEY_ROUNDS "%010" PRIu64 "/%c", KEY_REVERSE - round, leaf);
}

void key_delete_round(char key[static CATALOGUE_KEY_MAX], const char *name, uint32_t n,
                      uint32_t round, char leaf)
{
    key_printf(key, KEY_VERSIONS "%s/v/%010" PRIu64 "/d/%06" PRIu32 "/%c", name, KEY_REVERSE - n,
               round, leaf);
}

void key_leases(char key[static CATALOGUE_KEY_MAX], const char *name, uint32_t n, const char *leaf)
{
    key_printf(key, "l/%s/%" PRIu32 "/%s", name, n, leaf);
}

void key_lease(char key[static CATALOGUE_KEY_MAX], const char *name, uint32_t n,
               const struct session_id *lease, uint32_t seq)
{
    char hex[33];

    session_id_to_hex(lease, hex);
    key_printf(key, "l/%s/%" PRIu32 "/%s.%010" PRIu32, name, n, hex, seq);
}

/* 32 digits of an id at *text; moves it behind them. */
static bool parse_id(const char **text, struct session_id *ret)
{
    char hex[33];

    if (strnlen(*text, 32) != 32)
        return false;
    memcpy(hex, *text, 32);
    hex[32] = '\0';
    *text += 32;
    return session_id_from_hex(ret, hex) == 0;
}

bool key_parse_lease(const char *key, struct lease_parts *ret)
{
    struct lease_parts parts = {0};
    const char *p = key + 2;
    uint64_t version, seq;

    if (strncmp(key, "l/", 2) != 0)
        return false;
    size_t length = strcspn(p, "/");
    if (length >= sizeof parts.name || p[length] != '/')
        return false;
    memcpy(parts.name, p, length);
    p += length + 1;
    if (!name_is_valid(parts.name) || *p == '0' || !parse_digits(&p, 10, false, &version) ||
        version > CATALOGUE_VERSION_MAX || *p++ != '/')
        return false;
    if (!parse_id(&p, &parts.lease) || *p++ != '.' || !parse_digits(&p, 10, true, &seq) || *p ||
        seq > UINT32_MAX)
        return false;
    parts.version = (uint32_t)version;
    parts.seq = (uint32_t)seq;
    *ret = parts;
    return true;
}

bool key_parse_session(const char *key, struct session_id *ret_id, char *ret_leaf)
{
    const char *p = key + 2;
    struct session_id id;
    uint64_t seq;

    if (strncmp(key, "s/", 2) != 0 || !parse_id(&p, &id))
        return false;
    if (strcmp(p, "/i") == 0)
        *ret_leaf = 'i';
    else if (strncmp(p, "/h.", 3) == 0 && (p += 3, parse_digits(&p, 10, true, &seq)) && !*p)
        *ret_leaf = 'h';
    else
        return false;
    *ret_id = id;
    return true;
}

bool key_parse_object(const char *key, char *ret_letter, struct session_id *ret_id,
                      uint32_t *ret_seq)
{
    struct object_ref ref = {0};
    const char *p = key + 2;
    char again[OBJECT_KEY_MAX];
    uint64_t seq;

    if (!key[0] || !strchr("pxm", key[0]) || key[1] != '/' || !parse_id(&p, &ref.session) ||
        *p++ != '/' || !parse_digits(&p, 10, false, &seq) || *p || seq > UINT32_MAX)
        return false;
    ref.seq = (uint32_t)seq;
    object_ref_key(key[0], &ref, again);
    if (strcmp(again, key) != 0) /* "007" is no number that anybody writes */
        return false;
    *ret_letter = key[0];
    *ret_id = ref.session;
    *ret_seq = ref.seq;
    return true;
}
