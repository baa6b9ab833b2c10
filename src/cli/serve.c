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
#include "cli/tally.h"

#include "attach/attach.h"
#include "base/digest.h"
#include "base/log.h"
#include "front/front.h"
#include "supervise/supervise.h"

#include <inttypes.h>
#include <malloc.h>
#include <pthread.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

/* What a server takes from the environment of whoever starts it: others may have other rights. */
static bool is_of_access(const char *variable)
{
    static const char *const proxies[] = {"http_proxy=", "https_proxy=", "all_proxy=", "no_proxy="};

    for (size_t i = 0; i < sizeof proxies / sizeof *proxies; i++) {
        if (strncasecmp(variable, proxies[i], strlen(proxies[i])) == 0)
            return true;
    }
    return strncmp(variable, "AWS_", 4) == 0 || strncmp(variable, "HOME=", 5) == 0;
}

/* Measured: a server at work needs so much beside its data. */
#define MEMORY_BESIDE (UINT64_C(28) << 20)
#define LARGE_BUFFER  (256 << 10)
#define ARENAS        2

/* Who asks for the same bytes in the same way may have the same server. */
static int make_share(const struct opened *o, struct serve *s)
{
    AUTO(buf_release) struct buf text = BUF_INIT(1u << 20);
    const struct reading *r = &s->reading;
    char session[33];

    session_id_to_hex(&o->info.session, session);
    int c = buf_printf(&text, "%s %s %" PRIu64 " %" PRId64 " %d %" PRIu64 " %d %s",
                       catalogue_store_id(o->catalogue), session, r->memory_bytes, r->io_timeout_ms,
                       (int)r->prefetch, r->cache.size_bytes, r->cache.off,
                       r->cache.dir ? r->cache.dir : "");
    for (char **v = environ; c == 0 && *v; v++) {
        if (is_of_access(*v))
            c = buf_printf(&text, "\n%s", *v);
    }
    if (c < 0)
        return say_failed("out of memory");
    struct digest d = digest_of(text.data, text.size);
    digest_to_hex(&d, s->share);
    return CLI_DONE;
}

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
    /* The server opens the view and tells what is wrong with it before anything is mounted. From
     * near it costs nothing to see it here, too, and the kernel's modes want to look at it. */
    bool look = !is_far(cli) || mode_wants_view(cli, reading->mode);
    int code =
        look ? open_view(cli, reference, false, &o) : open_version(cli, reference, false, &o);
    if (code != CLI_DONE)
        return code;
    if (strlen(cli->store) >= sizeof ret->store)
        return say_failed("the location of the store is too long");
    (void)snprintf(ret->store, sizeof ret->store, "%s", cli->store);
    ret->coherent = cli->coherent;
    ret->options = cli->options;
    ret->info = o.info;
    catalogue_known(o.catalogue, &ret->known);
    ret->reading = *reading;
    if (look && is_far(cli)) /* then the server need not read it once more */
        (void)manifest_copy(view_manifest(o.view), &ret->manifest);
    (void)snprintf(ret_record->name, sizeof ret_record->name, "%s", o.info.name);
    (void)snprintf(ret_record->cluster, sizeof ret_record->cluster, "%s", cli->cluster);
    ret_record->version = o.info.version;
    code = mode_choose(cli, &o, ret, ret_record);
    if (code == CLI_DONE)
        code = make_share(&o, ret);
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
    manifest_release(&s->manifest);
    s->manifest.version = 0;
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

/* ---- jobs of a shared server: attach_job_ops over a guard */

/* The lease of the job that a shared server is started for is written before the job has come,
 * while the view is opened: what the job then waits for is one round trip after the other less. */
struct keeping {
    struct guard *guard;
    uint64_t expected; /* the job that is yet to come; 0: none */
};

/* Somebody has come: who was expected, or another one. */
static int job_take(struct keeping *k, const struct attach_job *job, uint64_t *ret_id,
                    struct err *err)
{
    uint64_t expected = k->expected;
    struct err why = ERR_INIT;

    k->expected = 0;
    if (expected && !(job->required && guard_is_unprotected(k->guard, &why)) &&
        guard_take(k->guard, expected, job->text, job->pid)) {
        *ret_id = expected;
        return 0;
    }
    int r = guard_join(k->guard, job->text, job->pid, job->required, ret_id, err);
    if (expected)
        guard_leave(k->guard, expected);
    return r;
}

static int job_join(void *ctx, const struct attach_job *job, uint64_t *ret_id, char *note,
                    size_t note_size, struct err *err)
{
    struct keeping *k = ctx;
    struct err why = ERR_INIT;
    int r = job_take(k, job, ret_id, err);

    if (r == 0 && guard_is_unprotected(k->guard, &why))
        (void)snprintf(note, note_size, "%s", why.text); /* or cut short */
    return r;
}

static void job_leave(void *ctx, uint64_t id)
{
    struct keeping *k = ctx;

    guard_leave(k->guard, id);
}

static const struct attach_job_ops job_ops = {.join = job_join, .leave = job_leave};

/* Everything is held that somebody has attached. */
static int hold_all(const struct serve *s, const struct supervise_child *child, struct keeping *k,
                    struct err *err)
{
    uint64_t id;
    bool required = s->require_lease && !child->more; /* else it is the job's to refuse */
    int r = child->more ? attach_jobs_begin(child->more, &job_ops, k, err) : 0;

    if (r == 0 && !(child->more && child->again)) {
        r = guard_join(k->guard, s->text, child->supervisor, required, &id, err);
        k->expected = r == 0 && child->more ? id : 0;
    }
    if (r == 0 && child->again)
        guard_settle(k->guard);
    return r;
}

/* The view, opened on a thread of its own while the lease is written: both wait for the store. */
struct opening {
    struct opened *o;
    const struct fetch_options *reading;
    const struct manifest *known; /* NULL: it is to be read */
    bool flat;
    int result;
    struct err err;
};

static void *open_beside(void *ctx)
{
    struct opening *opening = ctx;

    opening->result = open_again_view(opening->o, opening->reading, opening->known, &opening->err);
    if (opening->result == 0 && opening->flat)
        view_flat_ahead(opening->o->view);
    return NULL;
}

static int hold_and_open(const struct serve *s, const struct supervise_child *child,
                         const struct fetch_options *reading, struct opened *o, struct keeping *k,
                         struct err *err)
{
    struct opening opening = {.o = o,
                              .reading = reading,
                              .known = s->manifest.version ? &s->manifest : NULL,
                              .flat = s->mode != MODE_FUSE};
    pthread_t thread;
    bool beside = pthread_create(&thread, NULL, open_beside, &opening) == 0;
    int r = guard_new(o->catalogue, &s->info, child->supervisor, &k->guard, err);

    if (r == 0)
        r = hold_all(s, child, k, err);
    if (beside)
        (void)pthread_join(thread, NULL); /* ours, joinable: cannot fail */
    else
        (void)open_beside(&opening); /* its result is in it */
    if (r == 0 && opening.result < 0)
        r = err_fail(err, opening.result, "%s", err_text(&opening.err, opening.result));
    return r;
}

static void serve_requests(struct supervise_child *child, struct front *front)
{
    struct err err = ERR_INIT;
    int r = 0;

    supervise_ready(child);
    supervise_watch_age(child, age, front);
    if (child->more)
        r = attach_jobs_serve(child->more, &err);
    if (r < 0)
        log_error("%s", err_text(&err, r));
    err_clear(&err);
    r = front_serve(front, &err);
    if (r < 0)
        log_error("%s", err_text(&err, r));
    supervise_watch_age(child, NULL, NULL);
    if (child->more)
        attach_jobs_end(child->more);
}

/* The limit is for the whole process: what it needs beside the data it reads (answers in the
 * making, connections, what the allocator cannot give back) is left out of it. */
static uint64_t memory_for_data(uint64_t limit)
{
    /* Large buffers come from the system and go back to it, instead of leaving holes. */
    (void)mallopt(M_MMAP_THRESHOLD, LARGE_BUFFER); /* fails for no such value */
    (void)mallopt(M_ARENA_MAX, ARENAS);            /* the same */
    return limit - (limit / 8 > MEMORY_BESIDE ? limit / 8 : MEMORY_BESIDE);
}

int serve_run(void *ctx, struct supervise_child *child)
{
    const struct serve *s = ctx;
    AUTO(opened_release) struct opened o = {0};
    AUTO(guard_free) struct guard *guard = NULL; /* lets go before the store is closed */
    struct keeping keeping = {.guard = NULL};
    struct front *front = NULL;
    struct err err = ERR_INIT;
    char source[ATTACH_SOURCE_MAX];
    struct front_options options = {
        .fuse_fd = child->fuse_fd, .init = child->init, .init_size = child->init_size};

    struct fetch_options reading = {.memory_bytes = memory_for_data(s->reading.memory_bytes),
                                    .io_timeout_ms = s->reading.io_timeout_ms,
                                    .prefetch = s->reading.prefetch};

    int r = open_again(s->store, s->coherent, &s->options, &s->info, &s->known, &s->reading.cache,
                       &o, &err);
    if (r == 0)
        r = hold_and_open(s, child, &reading, &o, &keeping, &err);
    guard = keeping.guard;
    struct front_flat flat = {.name = source, .read = read_flat, .ctx = o.view};
    if (r == 0 && s->mode != MODE_FUSE) {
        (void)snprintf(source, sizeof source, ATTACH_SOURCE_FORMAT, s->info.name, s->info.version);
        flat.size = view_flat_size(o.view);
        options.flat = &flat;
    }
    options.fetch = o.fetch;
    if (r == 0)
        r = front_open(o.view, &options, &front, &err);
    if (r < 0) {
        supervise_failed(child, r, err_text(&err, r));
        return CLI_FAILED;
    }
    struct tally_keeper *tally = tally_keep(&o, child->supervisor);
    serve_requests(child, front);
    tally_keeper_free(tally);
    front_free(front);
    return CLI_DONE;
}
