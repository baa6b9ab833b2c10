/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzzes the zip directory: first byte 0: the rest is the end of an archive, with its directory in
 * it. Else: a directory without its end, said to have as many members as that byte says; each
 * member is held against the bytes as a local header.
 */
#include "fuzz-target.h"

#include "archive/archive-zip-directory.h"

#include <string.h>

static void look_at_members(const struct zip_directory *z, struct bytes b)
{
    uint64_t last = 0;
    size_t skip;

    for (size_t i = 0; i < z->members.count; i++) {
        const struct zip_member *m = &z->members.at[i];
        FUZZ_REQUIRE((uint64_t)m->name + m->name_size <= z->names.size);
        FUZZ_REQUIRE((uint64_t)m->raw + m->raw_size <= z->names.size);
        FUZZ_REQUIRE(m->offset >= last);
        FUZZ_REQUIRE(m->offset + ZIP_LOCAL_SIZE + m->raw_size + m->packed <= z->offset);
        FUZZ_REQUIRE(m->method == 0 || m->method == 8);
        FUZZ_REQUIRE(m->mtime_ns < 1000000000);
        FUZZ_REQUIRE(!memchr(zip_name(z, m), '\0', m->name_size));
        last = m->offset + ZIP_LOCAL_SIZE + m->raw_size + m->packed;
        (void)zip_local_matches(b, z, m);
    }
    if (zip_local_length(b, &skip) == 0)
        FUZZ_REQUIRE(skip >= ZIP_LOCAL_SIZE && skip <= ZIP_LOCAL_SIZE + 2 * 65535u);
}

static void find_and_parse(struct bytes tail, struct zip_directory *z)
{
    struct err err = ERR_INIT;
    uint64_t from = 0, size = tail.size;

    int r = zip_find_directory(tail, size, z, &from, &err);
    FUZZ_REQUIRE(r != -EAGAIN); /* all of it is there */
    if (r < 0) {
        FUZZ_REQUIRE(err.text[0] != '\0');
        return;
    }
    FUZZ_REQUIRE(z->offset <= size && z->size <= size - z->offset);
    const uint8_t *p = tail.data;
    if (zip_parse_directory(bytes_of(p + z->offset, (size_t)z->size), z, &err) == 0) {
        FUZZ_REQUIRE(z->members.count == z->count);
        look_at_members(z, tail);
    } else {
        FUZZ_REQUIRE(err.text[0] != '\0');
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct zip_directory z = {0};

    if (size < 1)
        return 0;
    if (data[0] == 0) {
        find_and_parse(bytes_of(data + 1, size - 1), &z);
    } else {
        struct err err = ERR_INIT;
        z.offset = UINT32_MAX;
        z.size = size - 1;
        z.count = data[0];
        if (zip_parse_directory(bytes_of(data + 1, size - 1), &z, &err) == 0)
            look_at_members(&z, bytes_of(data + 1, size - 1));
    }
    zip_directory_release(&z);
    return 0;
}
