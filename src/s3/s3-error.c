/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What an answer of S3 means: a code, whether to try again, and a sentence that names bucket and
 * key, says what to do, and ends with S3's own code and request id.
 *
 * Servers' messages are not shown: they echo access keys and what was signed. HEAD has no body, so
 * its status is all there is.
 */
#include "s3/s3-internal.h"

#include <stdio.h>

/* Servers accept some 15 minutes between the clocks. */
#define SKEW_MAX_MS (5 * 60 * 1000)

/* By S3's code first; rows without one are by status. %s of a sentence is the action. */
struct meaning {
    const char *code;
    int status;
    int result;
    enum s3_verdict verdict;
    const char *sentence;
};

static const struct meaning meanings[] = {
    {"NoSuchKey", 0, -ENOENT, S3_FINAL, "there is no such object"},
    {"NoSuchVersion", 0, -ESTALE, S3_FINAL, "this version of the object is gone"},
    {"NoSuchBucket", 0, -ENXIO, S3_FINAL,
     "there is no such bucket; check its name and the endpoint"},
    {"NoSuchUpload", 0, -ENOENT, S3_FINAL,
     "the multipart upload is gone: completed, aborted, or cleaned up by the bucket's rules"},
    {"InvalidAccessKeyId", 0, -EACCES, S3_FINAL,
     "the server does not know the access key; check the credentials"},
    {"InvalidClientTokenId", 0, -EACCES, S3_FINAL,
     "the server does not know the access key; check the credentials"},
    {"SignatureDoesNotMatch", 0, -EACCES, S3_FINAL,
     "the secret key does not belong to the access key; check the credentials"},
    {"AccessDenied", 0, -EACCES, S3_FINAL, NULL},
    {"AllAccessDisabled", 0, -EACCES, S3_FINAL, "all access to this bucket is switched off"},
    {"AccountProblem", 0, -EACCES, S3_FINAL, "there is a problem with the account"},
    {"InvalidObjectState", 0, -EACCES, S3_FINAL,
     "the object lies in an archive class; restore it first"},
    {"ExpiredToken", 0, -EACCES, S3_REFRESH, "the session token has expired; get new credentials"},
    {"ExpiredTokenException", 0, -EACCES, S3_REFRESH,
     "the session token has expired; get new credentials"},
    {"TokenRefreshRequired", 0, -EACCES, S3_REFRESH,
     "the session token has expired; get new credentials"},
    {"InvalidToken", 0, -EACCES, S3_REFRESH, "the session token is not valid; get new credentials"},
    {"RequestTimeTooSkewed", 0, -EACCES, S3_CLOCK,
     "this machine's clock differs too much from the server's; set it"},
    {"RequestExpired", 0, -EACCES, S3_CLOCK,
     "this machine's clock differs too much from the server's; set it"},
    {"AuthorizationHeaderMalformed", 0, -EACCES, S3_REGION,
     "the server expects another region; set AWS_REGION"},
    {"PermanentRedirect", 0, -EACCES, S3_REGION,
     "the bucket lies in another region or at another endpoint; set AWS_REGION"},
    {"TemporaryRedirect", 0, -EACCES, S3_REGION,
     "the bucket lies in another region or at another endpoint; set AWS_REGION"},
    {"IllegalLocationConstraintException", 0, -EACCES, S3_REGION,
     "the bucket lies in another region; set AWS_REGION"},
    {"PreconditionFailed", 0, -EEXIST, S3_FINAL, NULL},
    {"ConditionalRequestConflict", 0, -EEXIST, S3_AGAIN_FEW, NULL},
    {"OperationAborted", 0, -EEXIST, S3_AGAIN_FEW, NULL},
    {"SlowDown", 0, -EIO, S3_SLOW_DOWN, "the server asks for fewer requests, and went on asking"},
    {"TooManyRequests", 0, -EIO, S3_SLOW_DOWN,
     "the server asks for fewer requests, and went on asking"},
    {"RequestLimitExceeded", 0, -EIO, S3_SLOW_DOWN,
     "the server asks for fewer requests, and went on asking"},
    {"Throttling", 0, -EIO, S3_SLOW_DOWN, "the server asks for fewer requests, and went on asking"},
    {"ServiceUnavailable", 0, -EIO, S3_SLOW_DOWN, "the server is not available"},
    {"RequestTimeout", 0, -EIO, S3_AGAIN, "the server waited too long for the request"},
    {"InternalError", 0, -EIO, S3_AGAIN, "the server failed"},
    {"IncompleteBody", 0, -EIO, S3_AGAIN_FEW, "the server got a part of the data only"},
    {"XAmzContentSHA256Mismatch", 0, -EIO, S3_AGAIN_FEW,
     "the data were damaged on their way to the server"},
    {"BadDigest", 0, -EIO, S3_AGAIN_FEW, "the data were damaged on their way to the server"},
    {"QuotaExceeded", 0, -ENOSPC, S3_FINAL, "the bucket's or the user's quota is used up"},
    {"XMinioStorageFull", 0, -ENOSPC, S3_FINAL, "the server's disks are full"},
    {"InsufficientCapacity", 0, -ENOSPC, S3_FINAL, "the server is full"},
    {"NotImplemented", 0, -EOPNOTSUPP, S3_FINAL, "this server does not implement what is needed"},
    {"InvalidBucketName", 0, -EINVAL, S3_FINAL, "the bucket's name is not valid"},
    {"KeyTooLongError", 0, -EINVAL, S3_FINAL, "the key is too long"},
    {"EntityTooLarge", 0, -EFBIG, S3_FINAL, "the object is larger than the server allows"},
    {"InvalidRange", 0, -ERANGE, S3_FINAL, "the object ends before that range"},
    /* by status */
    {NULL, 301, -EACCES, S3_REGION,
     "the bucket lies in another region or at another endpoint; set AWS_REGION"},
    {NULL, 307, -EACCES, S3_REGION,
     "the bucket lies in another region or at another endpoint; set AWS_REGION"},
    {NULL, 401, -EACCES, S3_FINAL, NULL},
    {NULL, 403, -EACCES, S3_FINAL, NULL},
    {NULL, 404, -ENOENT, S3_FINAL, "there is no such object"},
    {NULL, 405, -EOPNOTSUPP, S3_FINAL, "this server does not implement what is needed"},
    {NULL, 408, -EIO, S3_AGAIN, "the server waited too long for the request"},
    {NULL, 409, -EEXIST, S3_AGAIN_FEW, NULL},
    {NULL, 412, -EEXIST, S3_FINAL, NULL},
    {NULL, 416, -ERANGE, S3_FINAL, "the object ends before that range"},
    {NULL, 429, -EIO, S3_SLOW_DOWN, "the server asks for fewer requests, and went on asking"},
    {NULL, 500, -EIO, S3_AGAIN, "the server failed"},
    {NULL, 501, -EOPNOTSUPP, S3_FINAL, "this server does not implement what is needed"},
    {NULL, 502, -EIO, S3_AGAIN, "a proxy did not reach the server"},
    {NULL, 503, -EIO, S3_SLOW_DOWN, "the server is not available"},
    {NULL, 504, -EIO, S3_AGAIN, "a proxy did not reach the server"},
    {NULL, 507, -ENOSPC, S3_FINAL, "the server is full"},
};

static const struct meaning *meaning_of(const struct s3_call *c)
{
    for (size_t i = 0; i < sizeof meanings / sizeof *meanings; i++) {
        const struct meaning *m = &meanings[i];
        if (m->code ? strcmp(m->code, c->answer.code) == 0 : m->status == c->response.status)
            return m;
    }
    return NULL;
}

/* No answer came, or none that can be used. */
static int judge_transport(struct s3_call *c, int result, enum s3_verdict *ret)
{
    *ret = S3_AGAIN;
    switch (result) {
    case -ETIMEDOUT:
        return -ETIMEDOUT;
    case -ECONNREFUSED:
    case -EHOSTUNREACH:
        /* A server that never spoke may be a wrong address: say so soon. */
        if (!c->s3->answered)
            *ret = S3_AGAIN_FEW;
        return -EIO;
    case -ECONNRESET:
        return -EIO;
    case -EPROTO:
        *ret = S3_AGAIN_FEW;
        return -EPROTO;
    case -EFBIG:
        *ret = S3_FINAL;
        c->complaint = "it sent more than was asked for";
        return -EPROTO;
    default:
        *ret = S3_FINAL;
        return result;
    }
}

int s3_judge(struct s3_call *c, int result, enum s3_verdict *ret)
{
    int status = c->response.status;

    *ret = S3_FINAL;
    if (result == -EFBIG && status && status / 100 != 2)
        result = 0; /* a proxy's long page: its status says enough */
    if (status / 100 == 2 && c->complaint) {
        *ret = S3_AGAIN_FEW;
        return -EPROTO;
    }
    if (result < 0)
        return judge_transport(c, result, ret);
    if (status / 100 == 2 && !c->answer.code[0]) {
        if (c->ranged && c->got != c->expected) {
            c->complaint = "it sent fewer bytes than it announced";
            *ret = S3_AGAIN_FEW;
            return -EPROTO;
        }
        return 0;
    }
    const struct meaning *m = meaning_of(c);
    if (!m) {
        *ret = status / 100 == 5 || status / 100 == 2 ? S3_AGAIN : S3_FINAL;
        return status / 100 == 5 || status / 100 == 2 ? -EIO : -EPROTO;
    }
    *ret = m->verdict;
    /* Not every server says that it is the clock; one try tells. */
    int64_t off = c->s3->clock_offset_ms - c->s3->signing_offset_ms;
    if (m->result == -EACCES && m->verdict == S3_FINAL && !c->no_credentials &&
        (off > SKEW_MAX_MS || off < -SKEW_MAX_MS))
        *ret = S3_CLOCK;
    /* A condition: of put-if-absent, or of a pin. */
    if (m->result == -EEXIST && !c->if_absent)
        return m->verdict == S3_FINAL ? -ESTALE : -EIO;
    return m->result;
}

/* ---- sentences ---- */

static const char *verb_of(const char *action)
{
    static const struct {
        const char *action, *verb;
    } verbs[] = {
        {"s3:GetObject", "read"},        {"s3:PutObject", "write"},
        {"s3:DeleteObject", "delete"},   {"s3:ListBucket", "list"},
        {"s3:GetObjectVersion", "read"}, {"s3:ListBucketVersions", "list the versions of"},
    };
    for (size_t i = 0; i < sizeof verbs / sizeof *verbs; i++)
        if (strcmp(verbs[i].action, action) == 0)
            return verbs[i].verb;
    return "use";
}

static void denied(const struct s3_call *c, char *text, size_t size)
{
    if (c->no_credentials)
        (void)snprintf(text, size,
                       "no credentials were used, and not everybody is allowed to (%s); set "
                       "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE",
                       c->action);
    else
        (void)snprintf(text, size,
                       "these credentials lack the permission %s on it; have it granted, or use "
                       "others",
                       c->action);
}

static void transport(const struct s3_call *c, int code, char *text, size_t size)
{
    const char *said = c->response.error;

    if (c->complaint)
        (void)snprintf(text, size, "the answer cannot be trusted: %s", c->complaint);
    else if (code == -EKEYREJECTED)
        (void)snprintf(text, size, "the server's certificate was not accepted: %s", said);
    else if (code == -ECANCELED)
        (void)snprintf(text, size, "canceled");
    else
        (void)snprintf(text, size, "no answer from %.255s: %s",
                       c->s3->host[0] ? c->s3->host : "AWS", said[0] ? said : strerror(-code));
}

void s3_describe(struct s3_call *c, int code)
{
    const struct meaning *m = c->response.status ? meaning_of(c) : NULL;
    char reason[768], tail[192] = "", tries[48] = "";

    if (code == -EEXIST)
        (void)snprintf(reason, sizeof reason, "it exists already");
    else if (code == -ESTALE)
        (void)snprintf(reason, sizeof reason, "the object changed since it was listed");
    else if (c->complaint || !c->response.status || code == -ECANCELED)
        transport(c, code, reason, sizeof reason);
    else if (m && m->sentence)
        (void)snprintf(reason, sizeof reason, "%s", m->sentence);
    else if (code == -EACCES)
        denied(c, reason, sizeof reason);
    else
        (void)snprintf(reason, sizeof reason, "the server answered in a way that is not S3's");
    if (c->response.status && !c->complaint)
        (void)snprintf(tail, sizeof tail, " (%s%sstatus %d%s%s)", c->answer.code,
                       c->answer.code[0] ? ", " : "", c->response.status,
                       c->answer.request_id[0] ? ", request " : "", c->answer.request_id);
    if (c->attempts > 1)
        (void)snprintf(tries, sizeof tries, ", after %u attempts", c->attempts);
    (void)err_fail(&c->err, code, "cannot %s s3://%s%s%s: %s%s%s", verb_of(c->action), c->bucket,
                   c->key ? "/" : "", c->key ? c->key : "", reason, tail, tries);
}
