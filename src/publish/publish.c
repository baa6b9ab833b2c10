/* SPDX-License-Identifier: Apache-2.0 */
/*
 * publish_run(): the order of the steps, and what all of them need.
 *
 *   lock local state -> find what may be reused -> walk -> ask -> begin the upload -> look again
 *   whether it may be reused -> read and store -> index -> commit
 *
 * A fresh upload begins after the walk, so that a source that cannot be read, does not fit or is
 * not wanted leaves no trace in the store. A failure later leaves the upload as it stands, to be
 * resumed; without local state nothing could resume it, so it is aborted.
 */
#include "publish/publish-internal.h"
#include "publish/publish-link.h"
#include "publish/publish-state.h"

#include "base/name.h"

#include <inttypes.h>
#include <stdio.h>

#define PACK_SIZE_MIN (UINT64_C(64) << 20)
#define PACKS_WANTED  4096u /* of one version, by the size of its packs */
#define PROGRESS_MS   200

/* ---- what the steps need ----------------------------------------------------------------------
 */

bool publish_interrupted(const struct publish *p)
{
    return p->o->interrupted && __atomic_load_n(p->o->interrupted, __ATOMIC_RELAXED);
}

void publish_tell(struct publish *p, bool now)
{
    if (!p->o->progress)
        return;
    int64_t ms = env_real()->boot_ms(env_real());
    if (!now && ms - p->progress_ms < PROGRESS_MS)
        return;
    p->progress_ms = ms;
    p->o->progress(p->o->ctx, &p->progress);
}

void publish_notice(struct publish *p, enum publish_notice_kind kind, const char *path)
{
    if (p->o->notice)
        p->o->notice(p->o->ctx, kind, path);
}

int publish_add_pack(struct publish *p, const struct publish_pack *pack, uint16_t *ret_number,
                     struct err *err)
{
    if (p->packs.count == PUBLISH_PACKS_MAX)
        return err_fail(err, -EFBIG, "'%s' has too many packs: more than %u", p->o->name,
                        PUBLISH_PACKS_MAX);
    int r = vec_push(&p->packs, *pack);
    if (r < 0)
        return err_fail(err, r, "out of memory");
    *ret_number = (uint16_t)(p->packs.count - 1);
    return 0;
}

int publish_add_xattrs(struct publish *p, uint32_t node, struct bytes xattrs)
{
    struct publish_xattrs x = {.node = node, .size = (uint16_t)xattrs.size};

    x.data = malloc(xattrs.size + 1);
    if (!x.data)
        return -ENOMEM;
    if (xattrs.size > 0)
        memcpy(x.data, xattrs.data, xattrs.size);
    int r = vec_push(&p->xattrs, x);
    if (r < 0)
        free(x.data);
    return r;
}

void publish_journal_pack(struct publish *p, uint16_t number)
{
    struct publish_pack *pack = &p->packs.at[number];

    if (p->journal && !pack->journaled) {
        pack->journaled = true;
        log_writer_pack(p->journal, number, &pack->ref);
    }
}

/* ---- local state ------------------------------------------------------------------------------
 */

static void identity_fill(const struct publish *p, struct log_identity *ret)
{
    *ret = (struct log_identity){.append = p->o->append,
                                 .exclude_private = p->o->exclude_private,
                                 .trust_mtime = p->o->trust_mtime};
    (void)snprintf(ret->store_id, sizeof ret->store_id, "%s", catalogue_store_id(p->catalogue));
    (void)snprintf(ret->name, sizeof ret->name, "%s", p->o->name);
    (void)snprintf(ret->store, sizeof ret->store, "%s", p->store->location);
    (void)snprintf(ret->source, sizeof ret->source, "%s", p->source->location);
    (void)snprintf(ret->source_terms, sizeof ret->source_terms, "%s",
                   p->source->terms ? p->source->terms : "");
}

/* A later version that succeeded meanwhile stays the newest, so what is published now must not come
 * out under an earlier number: that upload is given up, and a new number taken. */
static int give_up_overtaken(struct publish *p, uint32_t version, bool *ret_given_up)
{
    struct version_info newest;
    char reason[64];

    *ret_given_up = false;
    int r = catalogue_resolve(p->catalogue, p->o->name, 0, &newest, NULL);
    if (r < 0 || newest.version <= version)
        return r == -ENOENT ? 0 : r;
    (void)snprintf(reason, sizeof reason, "overtaken by version %" PRIu32, newest.version);
    r = catalogue_abort(p->catalogue, p->o->name, version, reason, NULL);
    *ret_given_up = r == 0;
    return r == -EEXIST || r == -ENOENT ? 0 : r;
}

/* Continue the upload that `journal` is of. *ret says whether its log may be used. */
static int resume_upload(struct publish *p, const struct log_reader *journal, bool *ret,
                         struct err *err)
{
    struct log_session s;
    struct err mine = ERR_INIT;
    char number[16];

    *ret = false;
    if (!log_reader_session(journal, &s))
        return 0;
    bool given_up;
    int r = give_up_overtaken(p, s.version, &given_up);
    if (r < 0)
        return err_fail(err, r, "cannot resume version %" PRIu32 " of '%s': %s", s.version,
                        p->o->name, strerror(-r));
    if (given_up)
        return 0;
    r = upload_resume(p->catalogue, p->o->name, s.version, &s.session, &p->upload, &mine);
    if (r == 0) {
        p->resumed = p->resumable = *ret = true;
        (void)snprintf(number, sizeof number, "%" PRIu32, s.version);
        publish_notice(p, PUBLISH_NOTICE_RESUMED, number);
        return 0;
    }
    *ret = r == -EEXIST; /* it had committed: its journal is what is known */
    if (r == -EEXIST || r == -ESTALE)
        return 0;
    return err_fail(err, r, "cannot resume version %" PRIu32 " of '%s': %s", s.version, p->o->name,
                    err_text(&mine, r));
}

static int open_state(struct publish *p, struct err *err)
{
    AUTO(log_reader_free) struct log_reader *journal = NULL;
    struct log_identity id;
    bool use = false;

    if (!p->o->state_dir || p->o->linked)
        return 0;
    identity_fill(p, &id);
    int r = state_open(p->o->state_dir, &id, &p->state, err);
    if (r < 0)
        return r;
    r = state_read(p->state, STATE_JOURNAL, &journal);
    if (r == 0)
        r = resume_upload(p, journal, &use, err);
    if (r == 0 && use) {
        p->known = take_ptr(&journal);
        return 0;
    }
    if (r == 0 || r == -ENOENT)
        r = state_read(p->state, STATE_KNOWN, &p->known);
    return r == -ENOENT ? 0 : r;
}

/* From now on the journal is this upload's. */
static void begin_journal(struct publish *p)
{
    struct log_session s = {.version = upload_version(p->upload),
                            .session = *upload_session(p->upload),
                            .started_ms = env_real()->wall_ms(env_real())};

    if (!p->journal)
        return;
    log_writer_session(p->journal, &s);
    if (log_writer_flush(p->journal) < 0 || state_promote(p->state) < 0) {
        /* A full disk at home shall not keep anybody from publishing. */
        log_writer_free(p->journal);
        p->journal = NULL;
        return;
    }
    p->resumable = true;
}

static void end_journal(struct publish *p)
{
    if (!p->journal)
        return;
    log_writer_committed(p->journal, &p->result.info.manifest.digest);
    if (log_writer_flush(p->journal) < 0 || state_commit(p->state) < 0)
        state_forget_journal(p->state);
}

/* ---- steps ------------------------------------------------------------------------------------
 */

static int check_owner(const struct publish *p, struct err *err)
{
    struct err mine = ERR_INIT;
    char owner[64];

    if (!name_is_valid(p->o->name))
        return err_fail(err, -EINVAL, "'%s' is no name of a datastore", p->o->name);
    int r = catalogue_owner(p->catalogue, p->o->name, owner, &mine);
    if (r == -ENOENT)
        return 0;
    if (r < 0)
        return err_fail(err, r, "%s", err_text(&mine, r));
    if (strcmp(owner, p->o->owner) != 0 && !p->o->append)
        return err_fail(err, -EPERM,
                        "the datastore '%s' belongs to %s; --append adds a version all the same",
                        p->o->name, owner);
    return 0;
}

static uint64_t pack_target(const struct publish *p)
{
    uint64_t target = p->o->pack_size_min ? p->o->pack_size_min : PACK_SIZE_MIN;
    uint64_t bytes = p->progress.bytes_total + p->base_bytes;

    while (target < bytes / PACKS_WANTED && target < PACK_DATA_MAX)
        target *= 2;
    return target < PACK_DATA_MAX ? target : PACK_DATA_MAX;
}

static int check_space(const struct publish *p, struct err *err)
{
    struct store_space space;
    uint64_t need = p->pending_room;

    /* Without local state nobody knows yet how much of it is stored already. */
    if (!p->known)
        need -= p->base_bytes < need ? p->base_bytes : need;
    int r = store_space(p->store, &space);
    if (r < 0)
        return err_fail(err, r, "cannot find out the free space of %s: %s", p->store->location,
                        strerror(-r));
    if (space.free_bytes >= 0 && need > (uint64_t)space.free_bytes)
        return err_fail(
            err, -ENOSPC,
            "%s does not fit: %" PRIu64 " MiB have to be stored, and %s has %" PRId64 " MiB free",
            p->source->location, need >> 20, p->store->location, space.free_bytes >> 20);
    return 0;
}

static int walk(struct publish *p, struct err *err)
{
    int r = publish_load_base(p, err);

    if (r == 0 && p->resumed)
        r = publish_adopt_left(p, err);
    if (r == 0)
        r = publish_map_known(p);
    if (r == 0)
        r = tree_new(&p->tree);
    if (r == 0 && p->state && state_write(p->state, &p->journal) < 0)
        p->journal = NULL; /* as in begin_journal() */
    if (r == 0 && p->source->stream)
        publish_expect_stream(p);
    else if (r == 0)
        r = publish_walk(p, err);
    if (r < 0)
        return r;
    p->pack_target = pack_target(p);
    r = publish_settle_reuse(p);
    if (r == 0)
        r = check_space(p, err);
    log_reader_free(take_ptr(&p->known)); /* only the walk needed it, and it holds memory */
    if (r == 0 && p->o->confirm && p->o->confirm(p->o->ctx, &p->progress) != 0)
        r = err_fail(err, -ECANCELED, "not confirmed");
    return r;
}

static int begin(struct publish *p, struct err *err)
{
    struct upload_terms terms = {.name = p->o->name,
                                 .owner = p->o->owner,
                                 .host = p->o->host,
                                 .source = p->source->location,
                                 .linked = p->o->linked};
    int r = p->upload ? 0 : upload_begin(p->catalogue, &terms, &p->upload, err);

    if (r == 0) {
        begin_journal(p);
        r = publish_recheck_reuse(p, err);
    }
    return r;
}

/* A source that is a bucket has been listed when it was opened: what could go wrong with it has
 * gone wrong by now. So the upload begins first, and the tables are written while the tree grows.
 */
static int link_all(struct publish *p, struct err *err)
{
    int r = tree_new(&p->tree);

    if (r < 0)
        return err_fail(err, r, "out of memory");
    r = linking_new(p, &p->linking, err);
    if (r == 0)
        r = begin(p, err);
    if (r == 0)
        r = publish_walk(p, err);
    if (r == 0)
        r = linking_finish(p->linking, err);
    return r;
}

static int copy_all(struct publish *p, struct err *err)
{
    int r = walk(p, err);

    if (r == 0)
        r = begin(p, err);
    if (r < 0)
        return r;
    return p->source->stream ? publish_store_stream(p, err) : publish_store_files(p, err);
}

static int run(struct publish *p, struct err *err)
{
    int r = check_owner(p, err);

    if (r == 0)
        r = open_state(p, err);
    if (r == 0)
        r = p->o->linked ? link_all(p, err) : copy_all(p, err);
    if (r == 0)
        r = publish_finish(p, err);
    if (r == 0)
        end_journal(p);
    return r;
}

static void release(struct publish *p)
{
    for (size_t i = 0; i < p->xattrs.count; i++)
        free(p->xattrs.at[i].data);
    vec_release(&p->xattrs);
    vec_release(&p->packs);
    tree_free(p->tree);
    log_reader_free(p->known);
    free(p->known_packs);
    log_writer_free(p->journal);
    linking_free(p->linking);
    upload_free(p->upload);
    state_close(p->state);
}

int publish_run(struct catalogue *c, struct source *source, const struct publish_options *o,
                struct publish_result *ret, struct err *err)
{
    struct publish p = {.catalogue = c, .store = catalogue_store(c), .source = source, .o = o};

    int r = run(&p, err);
    if (r == 0)
        *ret = p.result;
    if (r < 0 && p.journal)
        (void)log_writer_flush(p.journal); /* what is lost of it is read again */
    if (r < 0 && p.upload && !p.resumable && r != -ESTALE)
        (void)upload_abort(p.upload, err_text(err, r), NULL); /* nobody could resume it */
    if (p.state && r < 0)
        state_forget_next(p.state);
    release(&p);
    return r;
}
