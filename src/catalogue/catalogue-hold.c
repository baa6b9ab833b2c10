/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Holding a version: write a lease, then look whether somebody is deleting (R5), and again at every
 * renewal (I13). The holder believes in its lease only until its own deadline, counted from the
 * sending of the last write that was looked behind, on a clock that counts suspend.
 *
 * One thread at a time makes requests (`busy`); the lock is never held meanwhile.
 */
#include "catalogue/catalogue-internal.h"

#include "base/hex.h"

#include <inttypes.h>

/* After a failed renewal the next comes this much sooner. */
#define RETRY_PART 8
/* Jobs whose names make a lease longer than a record are counted only. */
#define JOBS_NAMED_BYTES (512u << 10)

struct job {
    uint64_t id;
    int64_t pid, since_ms;
    char text[HOLD_TEXT_MAX];
};

struct job_list {
    VEC(struct job) rows;
};

struct hold {
    struct catalogue *c; /* borrowed */
    char name[64];
    uint32_t version;
    struct session_id lease;
    struct hold_times times;
    struct hold_process self;
    /* by whoever is busy */
    uint32_t next_seq, oldest_seq;
    VEC(uint32_t) refused; /* rounds known to have been refused */
    pthread_mutex_t lock;  /* guards all below */
    struct job_list jobs;
    uint64_t next_id;
    enum hold_state state;
    int64_t deadline_ms, due_ms; /* boot clock */
    bool changed;                /* jobs came or left since the last write was begun */
    bool busy;
    struct err why;
};

const char *hold_state_name(enum hold_state s)
{
    static const char *const names[] = {
        [HOLD_HELD] = "held",
        [HOLD_DOUBTFUL] = "doubtful",
        [HOLD_LOST] = "lost",
        [HOLD_UNPROTECTED] = "unprotected",
    };
    return names[s];
}

static int64_t boot_ms(const struct hold *h)
{
    return h->c->env->boot_ms(h->c->env);
}

/* ---- the lease's text ---- */

static json_t *holders_of(const struct hold *h, const struct job_list *jobs)
{
    AUTO(json_decref) json_t *list = json_array();
    size_t named = 0, bytes = 0;

    for (; named < jobs->rows.count && named < HOLD_JOBS_MAX && bytes < JOBS_NAMED_BYTES; named++) {
        const struct job *j = &jobs->rows.at[named];
        struct holder row = {.pid = j->pid, .since_ms = j->since_ms};
        memcpy(row.host, h->self.host, sizeof row.host);
        memcpy(row.text, j->text, sizeof row.text);
        bytes += 6 * strlen(j->text) + 6 * strlen(row.host) + 100; /* escaped, at worst */
        if (!list || json_array_append_new(list, holder_body(&row)) < 0)
            return NULL;
    }
    if (named < jobs->rows.count) {
        struct holder row = {.pid = h->self.pid, .since_ms = jobs->rows.at[named].since_ms};
        memcpy(row.host, h->self.host, sizeof row.host);
        (void)snprintf(row.text, sizeof row.text, "%zu more", jobs->rows.count - named); /* fits */
        if (json_array_append_new(list, holder_body(&row)) < 0)
            return NULL;
    }
    return take_ptr(&list);
}

static json_t *lease_body(const struct hold *h, uint32_t seq, const struct job_list *jobs)
{
    char hex[33];
    AUTO(json_decref) json_t *list = holders_of(h, jobs);

    session_id_to_hex(&h->lease, hex);
    return json_pack("{s:s, s:I, s:s, s:I, s:I, s:s, s:s, s:s, s:I, s:I, s:I, s:O}", "name",
                     h->name, "version", (json_int_t)h->version, "lease", hex, "seq",
                     (json_int_t)seq, "ttl_ms", (json_int_t)h->times.ttl_ms, "host", h->self.host,
                     "machine", h->self.machine, "boot_id", h->self.boot_id, "pid_ns",
                     (json_int_t)h->self.pid_ns, "pid", (json_int_t)h->self.pid, "pid_start",
                     (json_int_t)h->self.pid_start, "holders", list);
}

/* ---- requests; by whoever is busy ---- */

static bool known_refused(const struct hold *h, uint32_t round)
{
    for (size_t i = 0; i < h->refused.count; i++) {
        if (h->refused.at[i] == round)
            return true;
    }
    return false;
}

/* What a round says; one without result is refused, naming me. */
static int settle_round(struct hold *h, const struct delete_round *round,
                        const struct job_list *jobs, bool *ret_deleted, struct err *err)
{
    AUTO(json_decref) json_t *body = NULL;
    char key[CATALOGUE_KEY_MAX];

    if (!round->result)
        return delete_result_write(h->c, h->name, h->version, round->round, false,
                                   holders_of(h, jobs), ret_deleted, NULL, err);
    key_delete_round(key, h->name, h->version, round->round, 'r');
    int r = read_record(h->c, key, RECORD_DELETE_RESULT, &body, err);
    if (r < 0)
        return err_fail(err, r, "the record %s was listed and is gone", key);
    return delete_result_decode(body, key, ret_deleted, err);
}

/* -ESTALE: the version has been deleted. */
static int look_for_deletion(struct hold *h, const struct job_list *jobs, struct err *err)
{
    AUTO(delete_rounds_release) struct delete_rounds rounds = {0};

    int r = delete_rounds_list(h->c, h->name, h->version, &rounds, err);
    for (size_t i = 0; r == 0 && i < rounds.rows.count; i++) {
        const struct delete_round *round = &rounds.rows.at[i];
        bool deleted = false;
        if (known_refused(h, round->round))
            continue;
        r = settle_round(h, round, jobs, &deleted, err);
        if (r == 0 && deleted)
            r = err_fail(err, -ESTALE, "version %" PRIu32 " of '%s' has been deleted", h->version,
                         h->name);
        if (r == 0 && vec_push(&h->refused, round->round) < 0)
            r = err_fail(err, -ENOMEM, "out of memory");
    }
    return r;
}

/* Remove the leases below `end`. What stays is a stray. */
static void remove_leases(struct hold *h, uint32_t end)
{
    char key[CATALOGUE_KEY_MAX];

    while (h->oldest_seq < end) {
        key_lease(key, h->name, h->version, &h->lease, h->oldest_seq);
        if (store_remove(h->c->store, key) < 0)
            return;
        h->oldest_seq++;
    }
}

/* Write the next lease and look behind it. 0: *ret_deadline is the new one, which may have passed.
 * -ESTALE: deleted. -EEXIST: another process writes this lease. */
static int write_lease(struct hold *h, const struct job_list *jobs, int64_t *ret_deadline,
                       struct err *err)
{
    AUTO(draft_release) struct draft d = {0};
    char key[CATALOGUE_KEY_MAX];
    uint32_t seq = h->next_seq++; /* after doubt too: a number is tried with one body only */
    int64_t sent = boot_ms(h);

    key_lease(key, h->name, h->version, &h->lease, seq);
    int r = draft_make(h->c, RECORD_LEASE, lease_body(h, seq, jobs), &d, err);
    if (r == 0)
        r = put_record(h->c, key, RECORD_LEASE, &d, NULL, err);
    if (r == -EEXIST) {
        h->oldest_seq = h->next_seq; /* the leases are the other's now: nothing here to remove */
        return err_fail(err, r, "another process holds version %" PRIu32 " of '%s' by this lease",
                        h->version, h->name);
    }
    if (r < 0)
        return r;
    r = look_for_deletion(h, jobs, err);
    if (r < 0)
        return r;
    remove_leases(h, seq);
    *ret_deadline = sent + h->times.ttl_ms - h->times.margin_ms;
    return 0;
}

/* ---- states; under the lock ---- */

static void see_deadline(struct hold *h)
{
    if (h->state == HOLD_HELD && boot_ms(h) >= h->deadline_ms) {
        h->state = HOLD_DOUBTFUL;
        (void)err_fail(&h->why, -ETIMEDOUT,
                       "the lease of version %" PRIu32 " of '%s' could not be renewed in time",
                       h->version, h->name);
    }
}

static void schedule(struct hold *h, bool renewed)
{
    uint32_t dice;
    int64_t wait = renewed ? h->times.renew_ms : h->times.renew_ms / RETRY_PART;

    h->c->env->random(h->c->env, &dice, sizeof dice);
    h->due_ms = boot_ms(h) + wait * 8 / 10 + (int64_t)(dice % 1000) * (wait * 4 / 10) / 1000;
}

static void take_result(struct hold *h, int r, int64_t deadline, const struct err *err)
{
    if (r == 0 && boot_ms(h) < deadline) {
        h->state = HOLD_HELD;
        h->deadline_ms = deadline;
        err_clear(&h->why);
    } else if (r == -ESTALE || r == -EEXIST) {
        h->state = HOLD_LOST;
        err_clear(&h->why);
        (void)err_fail(&h->why, r, "%s", err_text(err, r));
    } else {
        see_deadline(h);
        h->changed = true;
    }
    schedule(h, r == 0);
}

/* ---- the interface ---- */

static void hold_free(struct hold *h)
{
    if (!h)
        return;
    vec_release(&h->jobs.rows);
    vec_release(&h->refused);
    pthread_mutex_destroy(&h->lock);
    free(h);
}
AUTO_FREE_FUNC(struct hold, hold_free);

static bool may_not_write(int code)
{
    return code == -EACCES || code == -EPERM || code == -EROFS;
}

static int add_job(struct hold *h, const char *text, int64_t pid, uint64_t *ret_id)
{
    struct job job = {.id = ++h->next_id, .pid = pid, .since_ms = catalogue_now_ms(h->c)};

    text_copy(job.text, sizeof job.text, text);
    *ret_id = job.id;
    return vec_push(&h->jobs.rows, job);
}

static int hold_new(struct catalogue *c, const char *name, uint32_t version,
                    const struct hold_options *options, struct hold **ret, struct err *err)
{
    AUTO(hold_free) struct hold *h = calloc(1, sizeof *h);
    uint64_t id;

    if (!h)
        return err_fail(err, -ENOMEM, "out of memory");
    pthread_mutex_init(&h->lock, NULL);
    h->c = c;
    h->version = version;
    h->times = hold_times_or_default(&options->times);
    (void)snprintf(h->name, sizeof h->name, "%s", name); /* resolved, so it fits */
    if (options->self)
        h->self = *options->self;
    else
        hold_process_self(&h->self);
    c->env->random(c->env, h->lease.byte, sizeof h->lease.byte);
    if (options->family)
        memcpy(h->lease.byte, options->family, HOLD_FAMILY_SIZE);
    if (options->text &&
        add_job(h, options->text, options->text_pid ? options->text_pid : h->self.pid, &id) < 0)
        return err_fail(err, -ENOMEM, "out of memory");
    *ret = take_ptr(&h);
    return 0;
}

int hold_begin(struct catalogue *c, const char *name, uint32_t version,
               const struct hold_options *options, struct hold **ret, struct err *err)
{
    AUTO(hold_free) struct hold *h = NULL;
    struct err why = ERR_INIT;
    int64_t deadline = 0;

    int r = hold_new(c, name, version, options, &h, err);
    if (r < 0)
        return r;
    r = write_lease(h, &h->jobs, &deadline, &why);
    if (r == 0 && boot_ms(h) >= deadline)
        r = err_fail(&why, -ETIMEDOUT,
                     "the store %s took too long to attach version %" PRIu32 " of '%s'",
                     c->store->location, version, name);
    if (r < 0 && may_not_write(r) && !options->required) {
        h->state = HOLD_UNPROTECTED;
        h->why = why;
    } else if (r < 0) {
        remove_leases(h, h->next_seq); /* what cannot be removed is a stray */
        return err_fail(err, r, "%s", err_text(&why, r));
    } else {
        h->state = HOLD_HELD;
        h->deadline_ms = deadline;
        schedule(h, true);
    }
    *ret = take_ptr(&h);
    return 0;
}

struct sweep {
    struct catalogue *c;
    const struct hold *keep;
};

static int sweep_lease(void *ctx, const struct store_entry *entry)
{
    struct sweep *s = ctx;
    struct lease_parts parts;

    if (key_parse_lease(entry->key, &parts) &&
        (!s->keep || memcmp(&parts.lease, &s->keep->lease, sizeof parts.lease) != 0))
        (void)store_remove(s->c->store, entry->key); /* or it is void when the server ends */
    return 0;
}

void hold_sweep(struct catalogue *c, const char *name, uint32_t version, const uint8_t *family,
                const struct hold *keep)
{
    struct sweep s = {.c = c, .keep = keep};
    char prefix[CATALOGUE_KEY_MAX], hex[2 * HOLD_FAMILY_SIZE + 1];

    hex_encode(hex, family, HOLD_FAMILY_SIZE);
    key_leases(prefix, name, version, hex);
    (void)store_list(c->store, prefix, NULL, sweep_lease, &s, NULL); /* the same */
}

void hold_end(struct hold *h)
{
    if (!h)
        return;
    remove_leases(h, h->next_seq);
    hold_free(h);
}

int hold_join(struct hold *h, const struct hold_job *job, uint64_t *ret_id)
{
    WITH_LOCK(&h->lock);

    see_deadline(h);
    if (h->state == HOLD_LOST)
        return -ESTALE;
    if (h->state == HOLD_DOUBTFUL) {
        h->due_ms = boot_ms(h); /* the next tick asks at once */
        return -EAGAIN;
    }
    h->changed = true;
    return add_job(h, job->text, job->pid, ret_id);
}

void hold_leave(struct hold *h, uint64_t id)
{
    WITH_LOCK(&h->lock);

    for (size_t i = 0; i < h->jobs.rows.count; i++) {
        if (h->jobs.rows.at[i].id != id)
            continue;
        h->jobs.rows.count--;
        memmove(h->jobs.rows.at + i, h->jobs.rows.at + i + 1,
                (h->jobs.rows.count - i) * sizeof *h->jobs.rows.at);
        h->changed = true;
        return;
    }
}

/* Whether there is something to write now: then it is mine to do, with a copy of the jobs.
 * *ret_wait: else, until then. */
static bool take_turn(struct hold *h, struct job_list *ret_jobs, int64_t *ret_wait)
{
    struct job_list jobs = {0};
    WITH_LOCK(&h->lock);
    int64_t now = boot_ms(h);

    see_deadline(h);
    *ret_wait = INT64_MAX;
    if (h->state == HOLD_LOST || h->state == HOLD_UNPROTECTED)
        return false;
    *ret_wait = h->due_ms > now ? h->due_ms - now : 0;
    if (*ret_wait > 0 && !(h->changed && h->state == HOLD_HELD))
        return false;
    if (h->busy) {
        *ret_wait = h->times.renew_ms / RETRY_PART;
        return false;
    }
    for (size_t i = 0; i < h->jobs.rows.count; i++) {
        if (vec_push(&jobs.rows, h->jobs.rows.at[i]) < 0) {
            vec_release(&jobs.rows);
            *ret_wait = h->times.renew_ms / RETRY_PART;
            return false;
        }
    }
    h->busy = true;
    h->changed = false;
    *ret_jobs = jobs;
    return true;
}

int64_t hold_tick(struct hold *h)
{
    struct job_list jobs = {0};
    struct err err = ERR_INIT;
    int64_t wait, deadline = 0;

    if (!take_turn(h, &jobs, &wait))
        return wait;
    int r = write_lease(h, &jobs, &deadline, &err);
    if (r == -ESTALE) /* of a dead version: strays */
        remove_leases(h, h->next_seq);
    vec_release(&jobs.rows);

    WITH_LOCK(&h->lock);
    h->busy = false;
    take_result(h, r, deadline, &err);
    int64_t now = boot_ms(h);
    if (h->state == HOLD_LOST)
        return INT64_MAX;
    return h->due_ms > now ? h->due_ms - now : 0;
}

enum hold_state hold_look(struct hold *h, struct err *ret_why)
{
    WITH_LOCK(&h->lock);

    see_deadline(h);
    if (ret_why)
        *ret_why = h->why;
    return h->state;
}
