/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Large objects of an S3 store: parts on their way while the next ones are made.
 *
 * What fits one part is one put. The client settles what ends in doubt as far as it can be read.
 */
#include "store/store-internal.h"

#include "s3/s3.h"

/* The smallest that AWS's advice allows for throughput; 10,000 of them hold any pack. */
#define PART_SIZE (8u << 20)
/* Parts under way per upload: each connection to S3 carries some 90 MB/s. One buffer each, one of
 * them for a part that waits to be hashed, and one for the writer: 64 MiB. */
#define PARTS_PARALLEL 7u

struct store_s3_upload {
    struct store_upload base;
    struct s3_upload *upload;
};

static struct store_s3 *store_of(struct store_s3_upload *u)
{
    return (struct store_s3 *)u->base.store;
}

int store_s3_upload(struct store *s, const char *key, struct store_upload **ret)
{
    AUTO(free_ptr) struct store_s3_upload *u = calloc(1, sizeof *u);
    struct store_s3 *d = (struct store_s3 *)s;
    struct err err = ERR_INIT;
    char whole[STORE_S3_KEY_SIZE];

    if (!u)
        return -ENOMEM;
    u->base.store = s;
    store_s3_key(d, key, whole);
    int r = s3_upload_new(d->s3, d->bucket, whole, PART_SIZE, PARTS_PARALLEL, &u->upload, &err);
    if (r < 0)
        return store_s3_failed(d, r, &err);
    *ret = &u->base;
    u = NULL;
    return 0;
}

int store_s3_upload_write(struct store_upload *upload, const void *data, size_t size)
{
    struct store_s3_upload *u = (struct store_s3_upload *)upload;
    struct err err = ERR_INIT;

    int r = s3_upload_write(u->upload, data, size, &err);
    return r < 0 ? store_s3_failed(store_of(u), r, &err) : 0;
}

int store_s3_upload_commit(struct store_upload *upload)
{
    AUTO(free_ptr) struct store_s3_upload *u = (struct store_s3_upload *)upload;
    struct err err = ERR_INIT;

    int r = s3_upload_commit(u->upload, true, &err);
    return r < 0 ? store_s3_failed(store_of(u), r, &err) : 0;
}

void store_s3_upload_abort(struct store_upload *upload)
{
    AUTO(free_ptr) struct store_s3_upload *u = (struct store_s3_upload *)upload;

    s3_upload_abort(u->upload);
}
