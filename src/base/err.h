/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Errors: a code for the machine, a sentence for the person.
 *
 * Every function below cli/ that can fail returns 0 or a negative errno. What the codes mean here:
 *
 *   -ENOENT     absent                         -EEXIST    lost the put-if-absent race
 *   -EBADMSG    bytes do not match their digest, or a record is damaged
 *   -EPROTO     well-formed bytes that break the format's rules, or a peer spoke nonsense
 *   -EPROTONOSUPPORT   of a newer format than this program knows
 *   -ESTALE     the version or lease is gone   -ETIMEDOUT the deadline passed; outcome unknown
 *   -EIO        outcome unknown, or the medium failed
 *   -ENAMETOOLONG, -EINVAL, -ENOMEM, -ENOSPC, -EROFS, -EACCES, -EPERM   as errno(3)
 *   -ECANCELED  the user interrupted           -EBUSY     somebody else holds it
 *
 * Control-path functions (open, publish, commit, mount) end with `struct err *err`: on failure they
 * set one complete sentence that names the thing, on success they leave it alone. Data-path
 * functions return the code only. `err` may be NULL everywhere. Threads: one err, one thread.
 */
#ifndef BASE_ERR_H
#define BASE_ERR_H

#include <stdarg.h>

struct err {
    char text[2048];
};

#define ERR_INIT                                                                                   \
    {                                                                                              \
        .text = ""                                                                                 \
    }

/* Set the sentence if none is set yet (the innermost cause wins), and return `code` unchanged, so
 * that `return err_fail(err, -ENOENT, "...")` reads as one step. No trailing full stop or newline.
 */
int err_fail(struct err *err, int code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Put "what: " in front of the sentence that is there (or of strerror(code) if none is). */
int err_prefix(struct err *err, int code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* The sentence, or strerror(-code) if none was set. Valid as long as `err` and until the next call
 * on this thread. */
const char *err_text(const struct err *err, int code);

void err_clear(struct err *err);

#endif
