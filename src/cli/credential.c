/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Credentials in a file of their own, and which of them opens a bucket.
 *
 * The file is JSON, replaced in one step under a lock, readable by its owner only. It holds no
 * keys. Nobody says which credential belongs to which bucket: they are tried, first what is there
 * without any, and the first that may is taken.
 */
#include "cli/credential.h"

#include "base/file.h"
#include "base/name.h"

#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>

#define FILE_MAX    (1u << 20)
#define FILE_FORMAT 1

void credentials_release(struct credentials *c)
{
    vec_release(&c->rows);
}

int credentials_path(const struct places *places, char **ret, struct err *err)
{
    const char *slash = strrchr(places->user_config, '/');
    int n = slash ? (int)(slash - places->user_config) : 0;

    if (asprintf(ret, "%.*s%scredentials", n, places->user_config, slash ? "/" : "") < 0)
        return err_fail(err, -ENOMEM, "out of memory");
    return 0;
}

/* ---- what is valid ---- */

static bool is_printable(const char *text)
{
    for (; *text; text++) {
        if ((unsigned char)*text <= ' ' || (unsigned char)*text >= 0x7f)
            return false;
    }
    return true;
}

/* "arn:PARTITION:iam::ACCOUNT:role/NAME"; some servers have no accounts. */
bool credential_arn_is_valid(const char *arn)
{
    const char *at = arn;

    if (strlen(arn) > CREDENTIAL_ARN_MAX || !is_printable(arn) || strncmp(arn, "arn:", 4) != 0)
        return false;
    for (int i = 0; i < 5; i++) {
        at = strchr(at, ':');
        if (!at)
            return false;
        at++;
    }
    return strstr(arn, ":iam:") && strncmp(at, "role/", 5) == 0 && at[5];
}

bool credential_external_id_is_valid(const char *id)
{
    size_t n = strlen(id);

    return n >= 2 && n <= CREDENTIAL_EXTERNAL_MAX &&
           strspn(id, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+=,.@:/-_") ==
               n;
}

/* ---- the file ---- */

static bool take_text(const json_t *row, const char *key, char *ret, size_t size)
{
    const char *text = json_string_value(json_object_get(row, key));

    return text && (size_t)snprintf(ret, size, "%s", text) < size;
}

static bool row_get(const json_t *row, struct credential *ret)
{
    *ret =
        (struct credential){.created_ms = json_integer_value(json_object_get(row, "created_ms"))};
    return take_text(row, "name", ret->name, sizeof ret->name) &&
           take_text(row, "role_arn", ret->role_arn, sizeof ret->role_arn) &&
           take_text(row, "external_id", ret->external_id, sizeof ret->external_id) &&
           take_text(row, "description", ret->description, sizeof ret->description) &&
           name_is_valid(ret->name) && credential_arn_is_valid(ret->role_arn) &&
           (!*ret->external_id || credential_external_id_is_valid(ret->external_id));
}

static int parse(const char *path, const struct buf *b, struct credentials *ret, struct err *err)
{
    json_t *document = json_loadb(buf_text(b), b->size, JSON_REJECT_DUPLICATES, NULL);
    const json_t *rows = json_object_get(document, "credentials");
    const char *wrong = NULL;
    struct credential c;
    int r = 0;

    if (json_integer_value(json_object_get(document, "format")) > FILE_FORMAT)
        wrong = "it was written by a newer version of grid";
    else if (!json_is_array(rows) || json_array_size(rows) > CREDENTIALS_MAX)
        wrong = "this is no list of credentials";
    for (size_t i = 0; !wrong && r == 0 && i < json_array_size(rows); i++) {
        if (row_get(json_array_get(rows, i), &c))
            r = vec_push(&ret->rows, c);
        else
            wrong = "one of its credentials is not complete";
    }
    json_decref(document);
    if (wrong)
        r = err_fail(err, -EINVAL, "%s: %s", path, wrong);
    return r == -ENOMEM ? err_fail(err, r, "out of memory") : r;
}

int credentials_read(const char *path, struct credentials *ret, struct err *err)
{
    AUTO(buf_release) struct buf b = BUF_INIT(FILE_MAX);
    AUTO(credentials_release) struct credentials c = {0};
    AUTO(close_fd) int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    struct stat st;
    uint8_t *text;

    if (fd < 0)
        return errno == ENOENT ? 0
                               : err_fail(err, -errno, "cannot read %s: %s", path, strerror(errno));
    if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || st.st_size > (off_t)FILE_MAX)
        return err_fail(err, -EINVAL, "%s: this is no list of credentials", path);
    if ((st.st_uid != geteuid() && st.st_uid != 0) || (st.st_mode & 022))
        return err_fail(err, -EPERM, "%s can be changed by others, and is not used: chmod 600 %s",
                        path, path);
    int r = buf_extend(&b, (size_t)st.st_size, &text);
    ssize_t n = r == 0 ? file_read(fd, text, (size_t)st.st_size) : r;
    if (n < 0)
        return err_fail(err, (int)n, "cannot read %s: %s", path, strerror((int)-n));
    b.size = (size_t)n;
    r = parse(path, &b, &c, err);
    if (r == 0) {
        *ret = c;
        memset(&c, 0, sizeof c);
    }
    return r;
}

static char *document_of(const struct credentials *c)
{
    json_t *rows = json_array(), *document;
    char *text = NULL;

    for (size_t i = 0; rows && i < c->rows.count; i++) {
        const struct credential *x = &c->rows.at[i];
        json_t *row =
            json_pack("{s:s, s:s, s:s, s:s, s:s, s:I}", "name", x->name, "type", "s3", "role_arn",
                      x->role_arn, "external_id", x->external_id, "description", x->description,
                      "created_ms", (json_int_t)x->created_ms);
        if (!row || json_array_append_new(rows, row) < 0) {
            json_decref(rows);
            return NULL;
        }
    }
    document = json_pack("{s:i, s:o}", "format", FILE_FORMAT, "credentials", rows);
    if (document)
        text = json_dumps(document, JSON_INDENT(2));
    json_decref(document);
    return text;
}

static int write_file(const char *path, const struct credentials *c, struct err *err)
{
    AUTO(free_ptr) char *text = document_of(c), *temp = NULL;

    if (!text || asprintf(&temp, "%s.XXXXXX", path) < 0)
        return err_fail(err, -ENOMEM, "out of memory");
    AUTO(close_fd) int fd = mkostemp(temp, O_CLOEXEC); /* mode 0600 */
    if (fd < 0)
        return err_fail(err, -errno, "cannot write %s: %s", path, strerror(errno));
    int r = file_write(fd, text, strlen(text));
    if (r == 0)
        r = file_write(fd, "\n", 1);
    if (r == 0 && (fsync(fd) < 0 || rename(temp, path) < 0))
        r = -errno;
    if (r < 0) {
        (void)unlink(temp); /* the first error is the one to tell */
        return err_fail(err, r, "cannot write %s: %s", path, strerror(-r));
    }
    return 0;
}

/* One process changes the file at a time. The lock is a file beside it, which stays. */
static int lock_file(const char *path, int *ret_fd, struct err *err)
{
    AUTO(free_ptr) char *directory = strdup(path), *lock = NULL;
    char *slash = directory ? strrchr(directory, '/') : NULL;

    if (!directory || asprintf(&lock, "%s.lock", path) < 0)
        return err_fail(err, -ENOMEM, "out of memory");
    if (slash && slash != directory) {
        *slash = '\0';
        int r = file_mkdirs(directory, 0700);
        if (r < 0)
            return err_fail(err, r, "cannot make %s: %s", directory, strerror(-r));
    }
    AUTO(close_fd) int fd = open(lock, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0 || flock(fd, LOCK_EX) < 0)
        return err_fail(err, -errno, "cannot write %s: %s", lock, strerror(errno));
    *ret_fd = take_fd(&fd);
    return 0;
}

static size_t find_row(const struct credentials *c, const char *name)
{
    size_t i = 0;

    while (i < c->rows.count && strcmp(c->rows.at[i].name, name) != 0)
        i++;
    return i;
}

int credentials_add(const char *path, const struct credential *new, struct err *err)
{
    AUTO(credentials_release) struct credentials c = {0};
    AUTO(close_fd) int lock = -1;
    int r = lock_file(path, &lock, err);

    if (r == 0)
        r = credentials_read(path, &c, err);
    if (r < 0)
        return r;
    if (find_row(&c, new->name) < c.rows.count)
        return err_fail(err, -EEXIST,
                        "there is a credential '%s' already; choose another name with --name",
                        new->name);
    if (c.rows.count >= CREDENTIALS_MAX)
        return err_fail(err, -ENOSPC, "there are %u credentials, no more are kept",
                        CREDENTIALS_MAX);
    r = vec_push(&c.rows, *new);
    return r < 0 ? err_fail(err, r, "out of memory") : write_file(path, &c, err);
}

int credentials_remove(const char *path, const char *name, struct err *err)
{
    AUTO(credentials_release) struct credentials c = {0};
    AUTO(close_fd) int lock = -1;
    int r = lock_file(path, &lock, err);

    if (r == 0)
        r = credentials_read(path, &c, err);
    if (r < 0)
        return r;
    size_t i = find_row(&c, name);
    if (i == c.rows.count)
        return err_fail(err, -ENOENT, "there is no credential '%s'", name);
    memmove(&c.rows.at[i], &c.rows.at[i + 1], (c.rows.count - i - 1) * sizeof *c.rows.at);
    c.rows.count--;
    return write_file(path, &c, err);
}

/* ---- choosing ---- */

static int ignore_row(void *ctx, const struct s3_entry *e)
{
    return 1;
}

/* May this client do it? 0: yes. */
static int try_out(struct s3 *s, const char *bucket, const char *prefix, const char *key,
                   struct err *err)
{
    struct s3_list_options list = {.prefix = prefix, .page = 1};
    struct s3_object object;

    if (!key) {
        int r = s3_list(s, bucket, &list, ignore_row, NULL, NULL, err);
        return r > 0 ? 0 : r;
    }
    int r = s3_head(s, bucket, key, &object, err);
    return r == -ENOENT ? 0 : r; /* who may not read is told otherwise */
}

static int try_credential(const struct s3_options *base, const struct credential *c,
                          const char *bucket, const char *prefix, const char *key, struct s3 **ret,
                          struct err *err)
{
    AUTO(s3_free) struct s3 *s = NULL;
    struct s3_options o = *base;

    if (c) {
        o.role_arn = c->role_arn;
        o.external_id = *c->external_id ? c->external_id : NULL;
    }
    int r = s3_new(&o, &s, err);
    if (r == 0)
        r = try_out(s, bucket, prefix, key, err);
    if (r == 0)
        *ret = take_ptr(&s);
    return r;
}

int credential_choose(const char *path, const struct s3_options *base, const char *bucket,
                      const char *prefix, const char *key, struct s3 **ret,
                      struct credential *ret_used, struct err *err)
{
    AUTO(credentials_release) struct credentials c = {0};
    AUTO(buf_release) struct buf tried = BUF_INIT(1024);
    struct err plain = ERR_INIT, why = ERR_INIT;
    int first = try_credential(base, NULL, bucket, prefix, key, ret, &plain);

    if (ret_used)
        *ret_used = (struct credential){.name = ""};
    if (first != -EACCES) /* done; or nothing that another key could open */
        return first < 0 ? err_fail(err, first, "%s", err_text(&plain, first)) : 0;
    int r = credentials_read(path, &c, err);
    if (r < 0)
        return r;
    for (size_t i = 0; i < c.rows.count; i++) {
        err_clear(&why);
        r = try_credential(base, &c.rows.at[i], bucket, prefix, key, ret, &why);
        if (r == 0) {
            if (ret_used)
                *ret_used = c.rows.at[i];
            return 0;
        }
        (void)buf_printf(&tried, "; %s: %.300s", c.rows.at[i].name, err_text(&why, r));
    }
    if (c.rows.count == 0)
        return err_fail(err, first,
                        "%.1500s; a role that may read it can be stored with 'grid credential "
                        "create --type s3'",
                        err_text(&plain, first));
    return err_fail(err, first, "%.900s; nor with a stored credential%s", err_text(&plain, first),
                    buf_text(&tried));
}
