/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzzes the parser of manifests: what it accepts must come out of the encoder byte for byte.
 */
#include "fuzz-target.h"

#include "manifest/manifest.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    AUTO(manifest_release) struct manifest m = {.pack_count = 0};
    AUTO(buf_release) struct buf b = BUF_INIT(MANIFEST_SIZE_MAX);
    struct err err = ERR_INIT;
    char key[OBJECT_KEY_MAX];

    int r = manifest_decode(bytes_of(data, size), &m, &err);
    FUZZ_REQUIRE((r == 0) == (err.text[0] == '\0'));
    if (r < 0)
        return 0;
    FUZZ_REQUIRE(manifest_encode(&m, &b) == 0);
    FUZZ_REQUIRE(b.size == size && memcmp(b.data, data, size) == 0);
    for (uint32_t i = 0; i < m.pack_count; i++) {
        object_ref_key('p', &m.packs[i], key);
        FUZZ_REQUIRE(object_ref_trailer_offset(&m.packs[i]) >= m.packs[i].data_size);
    }
    return 0;
}
