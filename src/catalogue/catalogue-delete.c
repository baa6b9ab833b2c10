/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Deleting a version: post the intent, then list the leases (R5), then write the result; what the
 * result's key says is the answer, whoever wrote it (I14).
 *
 * A lease that is fresh by the store's clock is a refusal. One that has run out is only suspect:
 * its holder is watched for one renewal interval by our own clock, so that a store whose clocks
 * disagree costs time and no version.
 */
#include "catalogue/catalogue-internal.h"

#include "base/name.h"

#include <inttypes.h>
#include <time.h>

/* Rounds tried: others may post intents at the same time. */
#define INTENT_TRIES 64
#define ROUND_MAX    999999u
/* How often a suspect is looked at. */
#define POLL_MS 2000
/* Holders that a result or a sentence names. */
#define NAMED_MAX       1000u
#define SENTENCE_ROWS   5u
#define SENTENCE_LENGTH 1500u

struct seen_lease {
    struct session_id id;
    uint32_t seq;
};

struct deletion {
    struct catalogue *c;
    const char *name;
    uint32_t version;
    uint32_t round; /* ours; before, the last that was listed */
    const struct delete_options *options;
    struct hold_times times;
    struct holders live;
    struct holder suspect; /* one of them */
    size_t suspects;
    bool watching;
    VEC(struct seen_lease) seen; /* when the watch began */
};

/* ---- who holds it ---- */

static void when_text(int64_t ms, char *ret, size_t size)
{
    time_t seconds = (time_t)(ms / 1000);
    struct tm tm;

    if (ms <= 0 || !localtime_r(&seconds, &tm) ||
        strftime(ret, size, " since %Y-%m-%d %H:%M", &tm) == 0)
        ret[0] = '\0';
}

static int refusal(const struct deletion *d, const struct holders *holders, struct err *err)
{
    AUTO(buf_release) struct buf b = BUF_INIT(SENTENCE_LENGTH);
    size_t i = 0;

    for (; i < holders->rows.count && i < SENTENCE_ROWS; i++) {
        const struct holder *h = &holders->rows.at[i];
        char since[64];
        when_text(h->since_ms, since, sizeof since);
        if (buf_printf(&b, "%s%s%son %s (process %" PRId64 ")%s", i ? "; " : "", h->text,
                       h->text[0] ? " " : "", h->host, h->pid, since) < 0)
            break;
    }
    if (i < holders->rows.count)
        (void)buf_printf(&b, "; and %zu more", holders->rows.count - i); /* or cut short */
    return err_fail(err, -EBUSY, "version %" PRIu32 " of '%s' is in use: %s", d->version, d->name,
                    b.size ? buf_text(&b) : "somebody has just attached it");
}

static json_t *holders_body(const struct holders *holders)
{
    AUTO(json_decref) json_t *list = json_array();

    for (size_t i = 0; i < holders->rows.count && i < NAMED_MAX; i++) {
        if (!list || json_array_append_new(list, holder_body(&holders->rows.at[i])) < 0)
            return NULL;
    }
    return take_ptr(&list);
}

static bool is_void(const struct deletion *d, const struct lease *l)
{
    if (d->options->is_gone)
        return d->options->is_gone(d->options->ctx, &l->process);
    return hold_process_is_gone(&l->process);
}

/* Whether a lease is as it was when the watch began: any other has been written since. */
static bool is_as_seen(const struct deletion *d, const struct lease *l)
{
    for (size_t i = 0; i < d->seen.count; i++) {
        if (memcmp(&d->seen.at[i].id, &l->id, sizeof l->id) == 0)
            return d->seen.at[i].seq == l->seq;
    }
    return false;
}

static int take_suspect(struct deletion *d, const struct lease *l)
{
    struct seen_lease seen = {l->id, l->seq};

    d->suspect = l->holders.rows.at[0];
    d->suspects++;
    return d->watching ? 0 : vec_push(&d->seen, seen);
}

/* List the leases: fills d->live and the suspects. */
static int look_at_leases(struct deletion *d, struct err *err)
{
    AUTO(leases_release) struct leases leases = {0};

    d->live.rows.count = 0;
    d->suspects = 0;
    int r = leases_read(d->c, d->name, d->version, &leases, err);
    for (size_t i = 0; r == 0 && i < leases.rows.count; i++) {
        const struct lease *l = &leases.rows.at[i];
        if (is_void(d, l))
            continue;
        if (l->age_ms > l->ttl_ms && (!d->watching || is_as_seen(d, l))) {
            if (take_suspect(d, l) < 0)
                r = err_fail(err, -ENOMEM, "out of memory");
            continue;
        }
        for (size_t k = 0; r == 0 && k < l->holders.rows.count; k++) {
            if (vec_push(&d->live.rows, l->holders.rows.at[k]) < 0)
                r = err_fail(err, -ENOMEM, "out of memory");
        }
    }
    return r;
}

/* ---- the round ---- */

/* Post the intent in the next unused round. */
static int post_intent(struct deletion *d, struct err *err)
{
    uint32_t next = d->round + 1;
    int r = -EEXIST;

    for (int i = 0; i < INTENT_TRIES && next <= ROUND_MAX; i++, next++) {
        AUTO(draft_release) struct draft draft = {0};
        char key[CATALOGUE_KEY_MAX];
        key_delete_round(key, d->name, d->version, next, 'i');
        r = draft_make(d->c, RECORD_DELETE_INTENT,
                       json_pack("{s:s, s:I, s:I, s:b}", "name", d->name, "version",
                                 (json_int_t)d->version, "round", (json_int_t)next, "force",
                                 (int)d->options->force),
                       &draft, err);
        if (r == 0)
            r = put_record(d->c, key, RECORD_DELETE_INTENT, &draft, NULL, err);
        d->round = next;
        if (r != -EEXIST)
            return r;
    }
    return err_fail(err, -EBUSY, "too many others delete version %" PRIu32 " of '%s'", d->version,
                    d->name);
}

/* Write what is decided; the answer is what then stands. */
static int write_result(struct deletion *d, bool deleted, struct err *err)
{
    AUTO(json_decref) json_t *other = NULL;
    AUTO(holders_release) struct holders theirs = {0};
    bool stands = false;

    int r = delete_result_write(d->c, d->name, d->version, d->round, deleted,
                                holders_body(&d->live), &stands, &other, err);
    if (r == -EIO || r == -ETIMEDOUT) {
        err_clear(err);
        return err_fail(
            err, r,
            "cannot tell whether version %" PRIu32
            " of '%s' was deleted: the store %s does not answer; asking again will tell",
            d->version, d->name, d->c->store->location);
    }
    if (r < 0 || stands)
        return r;
    if (!other)
        return refusal(d, &d->live, err);
    struct record_fields f = {.body = other, .key = "of the deletion", .err = err};
    r = holders_parse(&f, NULL, &theirs);
    return r < 0 ? r : refusal(d, &theirs, err);
}

static int withdraw(struct deletion *d, struct err *err)
{
    bool deleted = false;

    int r = delete_result_write(d->c, d->name, d->version, d->round, false, json_array(), &deleted,
                                NULL, err);
    if (r < 0 || deleted)
        return r;
    return err_fail(err, -ECANCELED, "stopped: version %" PRIu32 " of '%s' was not deleted",
                    d->version, d->name);
}

/* Leases of suspects only: wait whether one is renewed. False in *ret_go_on: withdraw. */
static int watch(struct deletion *d, bool *ret_go_on, struct err *err)
{
    struct env *env = d->c->env;
    int64_t interval = d->times.renew_ms + d->times.renew_ms / 4;
    int64_t end = env->boot_ms(env) + interval, now;
    int r = 0;

    d->watching = true;
    while (r == 0 && d->suspects && d->live.rows.count == 0 && (now = env->boot_ms(env)) < end) {
        int64_t nap = interval / 4 < POLL_MS ? interval / 4 + 1 : POLL_MS;
        if (d->options->waiting && !d->options->waiting(d->options->ctx, &d->suspect, end - now)) {
            *ret_go_on = false;
            return 0;
        }
        env->sleep_ms(env, nap < end - now ? nap : end - now);
        r = look_at_leases(d, err);
    }
    *ret_go_on = true;
    return r;
}

static int delete_committed(struct deletion *d, struct err *err)
{
    bool go_on = true;

    int r = post_intent(d, err);
    if (r < 0)
        return r;
    r = look_at_leases(d, err);
    if (r < 0 && d->options->force) { /* overruled unseen */
        err_clear(err);
        r = 0;
    } else if (r == 0 && !d->options->force)
        r = watch(d, &go_on, err);
    if (r < 0) { /* else the next holder settles the round for us */
        (void)withdraw(d, NULL);
        return r;
    }
    if (!go_on)
        return withdraw(d, err);
    return write_result(d, d->options->force || d->live.rows.count == 0, err);
}

/* ---- the verb ---- */

static int read_status(struct catalogue *c, const char *name, uint32_t n, struct version_info *ret,
                       uint32_t *ret_last_round, struct err *err)
{
    AUTO(version_rows_release) struct version_rows v = {0};
    struct err listing = ERR_INIT;
    char prefix[CATALOGUE_KEY_MAX];

    if (!name_is_valid(name))
        return err_fail(err, -EINVAL, "'%s' is no name of a datastore", name);
    if (n == 0 || n > CATALOGUE_VERSION_MAX)
        return err_fail(err, -EINVAL, "%" PRIu32 " is no version number", n);
    key_version(prefix, name, n, "");
    int r = version_rows_list(c, prefix, &v, &listing);
    int settled = catalogue_settle(c, err);
    if (settled < 0)
        return settled;
    if (r < 0)
        return err_fail(err, r, "%s", err_text(&listing, r));
    if (v.rows.count == 0) /* for its sentence */
        return catalogue_resolve(c, name, n, ret, err);
    *ret_last_round = v.rows.at[0].delete_round;
    return version_read(c, &v.rows.at[0], ret, err);
}

int catalogue_delete(struct catalogue *c, const char *name, uint32_t version,
                     const struct delete_options *options, struct delete_report *ret,
                     struct err *err)
{
    struct deletion d = {.c = c, .name = name, .version = version, .options = options};
    struct delete_report report = {0};

    d.times = hold_times_or_default(&options->times);
    int r = read_status(c, name, version, &report.info, &d.round, err);
    if (r < 0)
        return r;
    report.was = report.info.status;
    if (report.was == VERSION_PROCESSING || report.was == VERSION_OPTIMIZING) {
        r = outcome_abort(c, &report.info, "deleted", err);
        if (r == -EEXIST) { /* it has been committed a moment ago */
            err_clear(err);
            report.was = VERSION_SUCCEEDED;
            r = 0;
        } else if (r < 0)
            return r;
    } else if (report.was == VERSION_DELETED) {
        return err_fail(err, -ENOENT, "version %" PRIu32 " of '%s' was deleted before", version,
                        name);
    }
    if (report.was == VERSION_SUCCEEDED)
        r = delete_committed(&d, err);
    report.overruled = (unsigned)d.live.rows.count;
    vec_release(&d.live.rows);
    vec_release(&d.seen);
    if (r == 0)
        *ret = report;
    return r;
}
