/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzzes the reader of indexes: opening, following everything, the check of the whole image.
 *
 * The input is an image. Its size is rounded up to a block, and the number of blocks and the
 * checksum in its superblock are put right, so that the fuzzer gets past them. What the check
 * accepts must be followed without an error.
 */
#include "fuzz-target.h"

#include "../unit/index-explore.h"

#include "base/le.h"

#define IMAGE_MAX 65536u
#define STEPS     4096u /* entries followed of one image */

struct image {
    uint8_t bytes[IMAGE_MAX];
    size_t size;
};

static int image_read(void *ctx, uint64_t offset, void *data, size_t size)
{
    const struct image *m = ctx;

    FUZZ_REQUIRE(size > 0 && offset <= m->size && size <= m->size - offset);
    memcpy(data, m->bytes + offset, size);
    return 0;
}

static void put_checksum(uint8_t *b)
{
    uint32_t crc = UINT32_MAX;

    le32_put(b + 1028, 0);
    for (int i = 1024; i < 1536; i++) {
        crc ^= b[i];
        for (int bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (crc & 1 ? 0x82F63B78u : 0);
    }
    le32_put(b + 1028, crc);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct image m;
    AUTO(index_close) struct index *x = NULL;
    struct index_counts counts;
    struct err err = ERR_INIT;
    int r, followed;

    if (size < 1024 + 128 || size > IMAGE_MAX)
        return 0;
    m.size = (size + INDEX_BLOCK - 1) / INDEX_BLOCK * INDEX_BLOCK;
    memcpy(m.bytes, data, size);
    memset(m.bytes + size, 0, m.size - size);
    if (m.size >= 1536) {
        le32_put(m.bytes + 1024 + 36, (uint32_t)(m.size / INDEX_BLOCK));
        put_checksum(m.bytes);
    }

    r = index_open(image_read, &m, m.size, &x, &err);
    if (r < 0) {
        FUZZ_REQUIRE(!x && err.text[0]);
        return 0;
    }
    followed = explore(x, STEPS);
    r = index_check(x, &counts, &err);
    if (r < 0) {
        FUZZ_REQUIRE(r == -EPROTO && err.text[0]);
        return 0;
    }
    FUZZ_REQUIRE(followed == 0);
    FUZZ_REQUIRE(counts.files + counts.directories + counts.symlinks == index_inode_count(x));
    return 0;
}
