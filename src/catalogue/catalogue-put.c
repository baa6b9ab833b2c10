/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writing a record so that the writer knows what happened (R3, R4), and reading one.
 *
 * A put whose answer is lost, or that says "taken", is settled by reading back: the nonce tells
 * whose record stands. While nothing stands, the same bytes are put again: they can land once at
 * most.
 */
#include "catalogue/catalogue-internal.h"

#include "base/hex.h"

/* Records are smaller than this but for collection lists: they take one request. */
#define FIRST_GET 8192u

void draft_release(struct draft *d)
{
    json_decref(d->body);
    d->body = NULL;
    buf_release(&d->bytes);
}

int64_t catalogue_now_ms(struct catalogue *c)
{
    int64_t now = c->env->wall_ms(c->env);

    return now > 0 ? now : 0;
}

int draft_make(struct catalogue *c, enum record_type type, json_t *body, struct draft *ret,
               struct err *err)
{
    AUTO(json_decref) json_t *owned = body;
    AUTO(buf_release) struct buf bytes = BUF_INIT(CATALOGUE_RECORD_MAX + 1);
    struct nonce nonce;
    char hex[2 * sizeof nonce + 1];

    c->env->random(c->env, &nonce, sizeof nonce);
    hex_encode(hex, &nonce, sizeof nonce);
    json_t *head = json_pack("{s:s, s:I, s:{s:s, s:I, s:s, s:s}}", "nonce", hex, "time_ms",
                             (json_int_t)catalogue_now_ms(c), "writer", "host", c->host, "pid",
                             (json_int_t)c->pid, "program", GRID_VERSION, "user", c->user);
    int r = owned && head && json_object_update(owned, head) == 0 ? 0 : -ENOMEM;
    json_decref(head);
    if (r == 0)
        r = record_encode(type, owned, &bytes);
    if (r < 0)
        return err_fail(err, r, "cannot make a record of type \"%s\": %s", record_type_name(type),
                        strerror(-r));
    *ret = (struct draft){.nonce = nonce, .body = take_ptr(&owned), .bytes = bytes};
    bytes = (struct buf)BUF_INIT(0);
    return 0;
}

bool is_doubt(int code)
{
    return code == -EEXIST || code == -EIO || code == -ETIMEDOUT;
}

void doubt_sleep(struct catalogue *c, int try_number)
{
    c->env->sleep_ms(c->env, (int64_t)DOUBT_DELAY_MS << try_number);
}

/* Written once and never removed. */
static bool is_kept(enum record_type type)
{
    return type == RECORD_OUTCOME || type == RECORD_DELETE_RESULT || type == RECORD_ALLOCATION;
}

static int read_kept(struct catalogue *c, const char *key, enum record_type type, json_t **ret)
{
    AUTO(buf_release) struct buf b = BUF_INIT(CATALOGUE_RECORD_MAX);

    return keep_get(c->keep, key, &b) ? record_decode(buf_bytes(&b), key, type, ret, NULL)
                                      : -ENOENT;
}

int read_record(struct catalogue *c, const char *key, enum record_type type, json_t **ret,
                struct err *err)
{
    bool kept = c->keep && is_kept(type);

    if (kept && read_kept(c, key, type, ret) == 0)
        return 0;
    AUTO(buf_release) struct buf whole = BUF_INIT(CATALOGUE_RECORD_MAX);
    uint8_t first[FIRST_GET]; /* not from the heap: listings come here ten thousand times */
    uint64_t length;
    size_t got = 0;

    int r = store_get(c->store, key, 0, first, sizeof first, &got, &length);
    struct bytes bytes = bytes_of(first, got);
    if (r == 0 && length > sizeof first) {
        r = store_get_all(c->store, key, &whole);
        bytes = buf_bytes(&whole);
    }
    if (r == -ENOENT)
        return r;
    if (r == -EFBIG)
        return err_fail(err, -EBADMSG, "the record %s is damaged: it is longer than any record",
                        key);
    if (r < 0)
        return err_fail(err, r, "cannot read %s in the store %s: %s", key, c->store->location,
                        store_error(c->store, r));
    r = record_decode(bytes, key, type, ret, err);
    if (kept && r == 0)
        keep_put(c->keep, key, bytes);
    return r;
}

int read_record_settled(struct catalogue *c, const char *key, enum record_type type, json_t **ret,
                        struct err *err)
{
    struct err last = ERR_INIT;
    int r = -EIO;

    for (int i = 0; i < DOUBT_TRIES; i++) {
        err_clear(&last);
        r = read_record(c, key, type, ret, &last);
        if ((r != -EIO && r != -ETIMEDOUT) || i + 1 == DOUBT_TRIES)
            break;
        doubt_sleep(c, i);
    }
    if (r < 0 && r != -ENOENT)
        return err_fail(err, r, "%s", err_text(&last, r));
    return r;
}

/* What stands at the key: 0 mine, -EEXIST another's, -ENOENT nothing (yet). */
static int compare(struct catalogue *c, const char *key, enum record_type type,
                   const struct draft *d, json_t **ret_other, struct err *err)
{
    AUTO(json_decref) json_t *there = NULL;

    int r = read_record_settled(c, key, type, &there, err);
    if (r < 0)
        return r;
    struct nonce nonce = record_nonce(there);
    if (memcmp(&nonce, &d->nonce, sizeof nonce) == 0)
        return 0;
    if (ret_other)
        *ret_other = take_ptr(&there);
    return -EEXIST;
}

int put_record(struct catalogue *c, const char *key, enum record_type type, const struct draft *d,
               json_t **ret_other, struct err *err)
{
    bool doubted = false;
    int r = -EIO;

    for (int i = 0; i < DOUBT_TRIES; i++) {
        r = store_put_if_absent(c->store, key, buf_bytes(&d->bytes));
        if (r == 0)
            return 0;
        if (!is_doubt(r))
            break;
        doubted = true;
        r = compare(c, key, type, d, ret_other, err);
        if (r != -ENOENT)
            return r;
        doubt_sleep(c, i);
    }
    if (doubted) /* an earlier try may still land, whatever the last one said */
        return err_fail(err, -EIO, "cannot tell whether %s was written to the store %s", key,
                        c->store->location);
    return err_fail(err, r, "cannot write %s to the store %s: %s", key, c->store->location,
                    store_error(c->store, r));
}
