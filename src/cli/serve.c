/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a server process does: open one version, mount it, serve it to the end.
 *
 * The version is resolved before, in the command that a person waits for: so its sentences reach
 * them, and a server that is started again serves the same version.
 */
#include "cli/cli-internal.h"
#include "cli/guard.h"

#include "attach/attach.h"
#include "front/front.h"

#include <string.h>
#include <unistd.h>

int serve_prepare(struct cli *cli, const char *reference, uint32_t version, uint64_t memory_bytes,
                  struct serve *ret, struct attach_record *ret_record)
{
    AUTO(opened_release) struct opened o = {0};
    char exact[64 + 16];

    if (version) {
        (void)snprintf(exact, sizeof exact, "%.63s:%u", reference, version);
        reference = exact;
    }
    /* The view is opened to see damage before a mount point is touched. */
    int code = open_view(cli, reference, false, &o);
    if (code != CLI_DONE)
        return code;
    if (strlen(cli->store) >= sizeof ret->store)
        return say_failed("the location of the store is too long");
    (void)snprintf(ret->store, sizeof ret->store, "%s", cli->store);
    ret->coherent = cli->coherent;
    ret->options = cli->options;
    ret->info = o.info;
    ret->memory_bytes = memory_bytes;
    (void)snprintf(ret_record->name, sizeof ret_record->name, "%s", o.info.name);
    (void)snprintf(ret_record->cluster, sizeof ret_record->cluster, "%s", cli->cluster);
    (void)snprintf(ret_record->mode, sizeof ret_record->mode, "fuse");
    ret_record->version = o.info.version;
    return CLI_DONE;
}

void serve_note(const struct attach_record *record, const char *sentence)
{
    say("%s:%u is attached unprotected, and may be deleted meanwhile: %s", record->name,
        record->version, sentence);
}

int serve_run(void *ctx, const char *mountpoint, int control_fd, serve_ready_fn *ready,
              void *ready_ctx)
{
    const struct serve *s = ctx;
    AUTO(opened_release) struct opened o = {0};
    AUTO(guard_free) struct guard *guard = NULL; /* lets go before the store is closed */
    struct front *front = NULL;
    struct err err = ERR_INIT;
    char fsname[128];

    int r = open_again(s->store, s->coherent, &s->options, &s->info, s->memory_bytes, &o, &err);
    (void)snprintf(fsname, sizeof fsname, "grid:%s:%u", s->info.name, s->info.version);
    /* Root's mounts are for everybody on the machine, as mount(8)'s are; its runs hide them. */
    struct front_options options = {
        .fsname = fsname, .allow_other = geteuid() == 0, .control_fd = control_fd};
    if (r == 0)
        r = guard_new(o.catalogue, &s->info, s->text, s->require_lease, getpid(), &guard, &err);
    if (r < 0 && control_fd >= 0)
        (void)close(control_fd);
    if (r == 0)
        r = front_mount(o.view, mountpoint, &options, &front, &err);
    if (r < 0) {
        ready(ready_ctx, r, err_text(&err, r));
        return CLI_FAILED;
    }
    ready(ready_ctx, 0, NULL);
    r = front_serve(front, &err);
    front_free(front);
    return r < 0 ? CLI_FAILED : CLI_DONE;
}
