/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Results for programs: one JSON document on stdout.
 *
 * JSON text is Unicode, file names are bytes. A name that is not UTF-8 is given twice: readable
 * with replacement characters, and whole in hexadecimal, so that nothing is lost and nothing
 * breaks.
 */
#include "cli/cli-internal.h"

#include "base/hex.h"

#include <string.h>

/* Names, targets and paths are below 4,096 bytes each; a walk's path may be longer. */
#define JSON_TEXT_MAX (16u << 20)

int json_set_bytes(json_t *object, const char *key, const char *text, size_t length)
{
    AUTO(buf_release) struct buf b = BUF_INIT(JSON_TEXT_MAX);
    char key_bytes[64];
    json_t *plain = json_stringn(text, length);

    if (plain)
        return json_object_set_new(object, key, plain) == 0 ? 0 : -ENOMEM;

    uint8_t *hex;
    if (buf_extend(&b, 2 * length + 1, &hex) < 0)
        return -ENOMEM;
    hex_encode((char *)hex, text, length);
    (void)snprintf(key_bytes, sizeof key_bytes, "%s_bytes", key);
    if (json_object_set_new(object, key_bytes, json_string((char *)hex)) < 0)
        return -ENOMEM;

    buf_clear(&b);
    for (size_t i = 0; i < length; i++) {
        bool is_ascii = (unsigned char)text[i] < 0x80 && text[i];
        int r = is_ascii ? buf_append(&b, text + i, 1) : buf_append_str(&b, "\xef\xbf\xbd");
        if (r < 0)
            return r;
    }
    return json_object_set_new(object, key, json_string(buf_text(&b))) == 0 ? 0 : -ENOMEM;
}

json_t *json_version(const struct cli *cli, const struct version_info *info)
{
    char time[FIGURE_MAX];
    json_t *o = json_pack("{s:s, s:s, s:I, s:I, s:I, s:s, s:s}", "name", info->name, "cluster",
                          cli->cluster, "version", (json_int_t)info->version, "size_bytes",
                          (json_int_t)info->size_bytes, "files", (json_int_t)info->files,
                          "created_at", figure_utc_time(info->created_ms, time), "status",
                          version_status_name(info->status));

    if (o && json_set_bytes(o, "owner", info->owner, strlen(info->owner)) == 0 &&
        json_set_bytes(o, "source", info->source, strlen(info->source)) == 0 &&
        json_object_set_new(o, "kind", json_string(info->linked ? "linked" : "copy")) == 0)
        return o;
    json_decref(o);
    return NULL;
}

int json_print(json_t *document)
{
    if (!document)
        return say_failed("out of memory");
    int r = json_dumpf(document, stdout, JSON_INDENT(2) | JSON_PRESERVE_ORDER);
    json_decref(document);
    (void)fputc('\n', stdout); /* errors show in finish_stdout() */
    return finish_stdout(r == 0 ? CLI_DONE : CLI_FAILED);
}
