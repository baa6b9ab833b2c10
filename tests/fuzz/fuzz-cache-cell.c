/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzzes cells of the disk cache: the first eight bytes are the size of a sparse file, the rest is
 * its end. What is taken for a cell must be one by all rules, and its heads and marks can be read.
 */
#include "fuzz-target.h"

#include "base/file.h"
#include "base/le.h"
#include "cache/cache-internal.h"

#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* Of a large file, so many blocks and segments are looked at. */
#define LOOK_MAX 4096u

static void look(int fd, uint64_t size)
{
    struct cell cell = {.fd = fd};
    struct cell_header h;
    struct cell_shape s, again;
    struct cell_head head;

    int r = cell_identify(fd, size, &h, &s);
    FUZZ_REQUIRE(r == 0 || r == -EPROTO);
    if (r < 0)
        return;
    FUZZ_REQUIRE(h.length > 0 && h.length <= CACHE_OBJECT_MAX && h.length == s.length);
    FUZZ_REQUIRE(cell_shape_of(h.length, &again) == 0 && memcmp(&s, &again, sizeof s) == 0);
    FUZZ_REQUIRE(s.file_size == size && s.header >= h.length && s.marks + s.blocks == size);
    uint8_t data[CELL_HEADER_SIZE], as_read[CELL_HEADER_SIZE];
    cell_header_encode(&h, data);
    FUZZ_REQUIRE(file_pread(fd, as_read, sizeof as_read, (off_t)s.header) == sizeof as_read);
    FUZZ_REQUIRE(memcmp(data, as_read, sizeof data) == 0);
    for (uint64_t i = 0; i < s.segments && i < LOOK_MAX; i++)
        FUZZ_REQUIRE(cell_head_read(&cell, &s, i, &head) == 0);
    uint64_t end = s.blocks < LOOK_MAX ? s.blocks : LOOK_MAX;
    int64_t hole = cell_find(&cell, &s, 0, end, false);
    int64_t holes = cell_unmarked(&cell, &s, 0, end);
    FUZZ_REQUIRE(hole >= 0 && (uint64_t)hole <= end && holes >= 0 && (uint64_t)holes <= end);
    FUZZ_REQUIRE((holes == 0) == ((uint64_t)hole == end));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 8)
        return 0;
    uint64_t length = le64_get(data) % (UINT64_C(1) << 46);
    size_t rest = size - 8;
    int fd = memfd_create("cell", MFD_CLOEXEC);

    FUZZ_REQUIRE(fd >= 0);
    if (length >= rest && ftruncate(fd, (off_t)length) == 0 &&
        file_pwrite(fd, data + 8, rest, (off_t)(length - rest)) == 0)
        look(fd, length);
    close(fd);
    return 0;
}
