/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a server process does: open one version, serve it to the end.
 *
 * The version is resolved before, in the command that a person waits for: so its sentences reach
 * them, and a server that is started again serves the same version.
 */
#include "cli/cli-internal.h"
#include "cli/guard.h"
#include "cli/mode.h"

#include "attach/attach.h"
#include "base/log.h"
#include "front/front.h"
#include "supervise/supervise.h"

#include <string.h>
#include <unistd.h>

int serve_prepare(struct cli *cli, const char *reference, uint32_t version,
                  const struct reading *reading, struct serve *ret,
                  struct attach_record *ret_record)
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
    ret->reading = *reading;
    (void)snprintf(ret_record->name, sizeof ret_record->name, "%s", o.info.name);
    (void)snprintf(ret_record->cluster, sizeof ret_record->cluster, "%s", cli->cluster);
    ret_record->version = o.info.version;
    code = mode_choose(cli, &o, ret, ret_record);
    if (code != CLI_DONE)
        return code;
    unsigned seconds = attach_request_timeout();
    if (seconds)
        say("warning: this machine's kernel takes mounts away if a read waits for more than %u s; "
            "see sysctl fs.fuse.default_request_timeout and fs.fuse.max_request_timeout",
            seconds);
    return CLI_DONE;
}

void serve_release(struct serve *s)
{
    free(s->packs);
    s->packs = NULL;
}

void serve_note(const struct attach_record *record, const char *sentence)
{
    say("%s:%u is attached unprotected, and may be deleted meanwhile: %s", record->name,
        record->version, sentence);
}

/* Of struct front_flat. */
static int read_flat(void *ctx, uint64_t offset, void *data, size_t size)
{
    return view_flat_read(ctx, offset, data, size);
}

static int64_t age(void *ctx)
{
    return front_age_ms(ctx);
}

int serve_run(void *ctx, struct supervise_child *child)
{
    const struct serve *s = ctx;
    AUTO(opened_release) struct opened o = {0};
    AUTO(guard_free) struct guard *guard = NULL; /* lets go before the store is closed */
    struct front *front = NULL;
    struct err err = ERR_INIT;
    char source[ATTACH_SOURCE_MAX];
    struct front_options options = {
        .fuse_fd = child->fuse_fd, .init = child->init, .init_size = child->init_size};

    struct fetch_options reading = {.memory_bytes = s->reading.memory_bytes,
                                    .io_timeout_ms = s->reading.io_timeout_ms,
                                    .prefetch = s->reading.prefetch};

    int r = open_again(s->store, s->coherent, &s->options, &s->info, &reading, &o, &err);
    if (r == 0)
        r = guard_new(o.catalogue, &s->info, s->text, s->require_lease, getppid(), &guard, &err);
    struct front_flat flat = {.name = source, .read = read_flat, .ctx = o.view};
    if (r == 0 && s->mode != MODE_FUSE) {
        (void)snprintf(source, sizeof source, ATTACH_SOURCE_FORMAT, s->info.name, s->info.version);
        flat.size = view_flat_size(o.view);
        options.flat = &flat;
    }
    if (r == 0)
        r = front_open(o.view, &options, &front, &err);
    if (r < 0) {
        supervise_failed(child, r, err_text(&err, r));
        return CLI_FAILED;
    }
    supervise_ready(child);
    supervise_watch_age(child, age, front);
    r = front_serve(front, &err);
    if (r < 0)
        log_error("%s", err_text(&err, r));
    supervise_watch_age(child, NULL, NULL);
    front_free(front);
    return r < 0 ? CLI_FAILED : CLI_DONE;
}
