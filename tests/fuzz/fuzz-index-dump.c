/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzzes the parser of dumps, and behind it the writer and the dumper: what is taken is written,
 * passes the check, and its dump is taken again and gives the same image.
 */
#include "fuzz-target.h"

#include "index/index.h"

#define INPUT_MAX 65536u
#define IMAGE_MAX (64u << 20) /* 60,000 devices and 64 KiB of text make far less */

static int to_buf(void *ctx, const void *data, size_t size)
{
    return buf_append(ctx, data, size);
}

static int from_buf(void *ctx, uint64_t offset, void *data, size_t size)
{
    const struct buf *b = ctx;

    FUZZ_REQUIRE(offset <= b->size && size <= b->size - offset);
    memcpy(data, b->data + offset, size);
    return 0;
}

/* Parse and write; an error must come with a sentence. */
static int image_of(const void *text, size_t size, struct buf *image)
{
    AUTO(close_file) FILE *in = fmemopen((void *)text, size, "r");
    struct index_dump_parsed p = {0};
    struct index_summary summary;
    struct err err = ERR_INIT;

    FUZZ_REQUIRE(in);
    int r = index_dump_parse(in, &p, &err);
    if (r == 0) {
        r = index_write(p.tree, p.devices, p.device_count, p.device_of, p.device_count, to_buf,
                        image, &summary, &err);
        index_dump_parsed_release(&p);
    }
    FUZZ_REQUIRE(r == 0 || err.text[0] != '\0');
    FUZZ_REQUIRE(r < 0 || summary.size == image->size);
    return r;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    AUTO(buf_release) struct buf image = BUF_INIT(IMAGE_MAX), again = BUF_INIT(IMAGE_MAX);
    AUTO(index_close) struct index *x = NULL;
    AUTO(free_ptr) char *text = NULL;
    size_t text_size;

    if (size == 0 || size > INPUT_MAX || image_of(data, size, &image) < 0)
        return 0;
    FUZZ_REQUIRE(index_open(from_buf, &image, image.size, &x, NULL) == 0);
    FUZZ_REQUIRE(index_check(x, NULL, NULL) == 0);
    FILE *out = open_memstream(&text, &text_size);
    FUZZ_REQUIRE(out && index_dump(x, out, NULL) == 0 && fclose(out) == 0);
    FUZZ_REQUIRE(image_of(text, text_size, &again) == 0);
    FUZZ_REQUIRE(again.size == image.size);
    FUZZ_REQUIRE(memcmp(again.data, image.data, image.size) == 0);
    return 0;
}
