/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Answers go to the kernel. Errors: what a careful program can make something of goes out as it is;
 * damage of any kind is EIO.
 */
#include "front/front-internal.h"

void front_answer_error(fuse_req_t req, int code)
{
    switch (code) {
    case -ENOENT:
    case -ENOTDIR:
    case -EINVAL:
    case -EISDIR:
    case -EINTR:
    case -ENAMETOOLONG:
    case -ENOMEM:
    case -ERANGE:
    case -ENODATA:
    case -EOPNOTSUPP:
        break;
    default:
        code = -EIO;
    }
    (void)fuse_reply_err(req, -code); /* fails if the kernel has gone: the loop sees that */
}

void front_answer(fuse_req_t req, const struct front_answer *a)
{
    char *buffer = (char *)front_reply_buffer();

    /* All of these fail if the kernel has gone: the loop sees that. */
    switch (a->kind) {
    case FRONT_ERROR:
        front_answer_error(req, a->code);
        break;
    case FRONT_ENTRY:
        (void)fuse_reply_entry(req, &a->entry);
        break;
    case FRONT_ATTR:
        (void)fuse_reply_attr(req, &a->attr, FRONT_FOREVER);
        break;
    case FRONT_TEXT:
        (void)fuse_reply_readlink(req, buffer);
        break;
    case FRONT_BYTES:
        (void)fuse_reply_buf(req, buffer, a->size);
        break;
    case FRONT_LENGTH:
        (void)fuse_reply_xattr(req, a->size);
        break;
    }
}
