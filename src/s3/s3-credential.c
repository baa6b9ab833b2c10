/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Credentials as one thing: looked for once, kept, renewed ahead of expiry by one thread at a time.
 *
 * While a renewal fails, what is there is used until it expires; those of the machine a while
 * longer, because the metadata service of a cloud may be down when its storage is not, and the
 * storage decides in the end.
 */
#include "s3/s3-credential-internal.h"

#include <stdio.h>

#define RENEW_BEFORE_MS   (5 * 60 * 1000)
#define RENEW_JITTER_MS   (60 * 1000)
#define LOOK_AGAIN_MS     (30 * 1000) /* after a renewal that failed, or found nothing */
#define EXPIRED_MARGIN_MS (10 * 1000) /* a request takes its time, too */
#define GRACE_MS          (10 * 60 * 1000)

void s3_credential_wipe(struct s3_credential *c)
{
    explicit_bzero(c, sizeof *c);
}

static char *copy_or_null(const char *text)
{
    return text ? strdup(text) : NULL;
}

int s3_credentials_new(const struct s3_credentials_options *o, struct s3_credentials **ret,
                       struct err *err)
{
    struct s3_credentials *k = calloc(1, sizeof *k);
    uint32_t random;

    if (!k)
        return err_fail(err, -ENOMEM, "out of memory");
    k->http = o->http;
    k->env = o->env;
    k->profile = copy_or_null(o->profile);
    k->region = copy_or_null(o->region);
    k->sts_endpoint = copy_or_null(o->sts_endpoint);
    k->role_arn = copy_or_null(o->role_arn);
    k->external_id = copy_or_null(o->external_id);
    (void)pthread_mutex_init(&k->lock, NULL);
    (void)pthread_mutex_init(&k->finding, NULL);
    o->env->random(o->env, &random, sizeof random);
    k->jitter_ms = random % RENEW_JITTER_MS;
    if ((o->profile && !k->profile) || !k->region || (o->role_arn && !k->role_arn) ||
        (o->external_id && !k->external_id) || (o->sts_endpoint && !k->sts_endpoint)) {
        s3_credentials_free(k);
        return err_fail(err, -ENOMEM, "out of memory");
    }
    *ret = k;
    return 0;
}

void s3_credentials_free(struct s3_credentials *k)
{
    if (!k)
        return;
    s3_credential_wipe(&k->known);
    free(k->profile);
    free(k->region);
    free(k->sts_endpoint);
    free(k->role_arn);
    free(k->external_id);
    pthread_mutex_destroy(&k->lock);
    pthread_mutex_destroy(&k->finding);
    free(k);
}

/* What may be used now? Under the lock. */
static int peek(struct s3_credentials *k, struct s3_credential *ret, bool *ret_stale)
{
    bool may_look = k->env->boot_ms(k->env) >= k->look_again_ms;

    if (k->none && !may_look)
        return -ENOENT;
    if (!k->generation || k->none || k->rejected)
        return -EAGAIN;
    int64_t rest = k->known.expires_ms - k->env->wall_ms(k->env);
    if (k->known.expires_ms && rest < EXPIRED_MARGIN_MS)
        return -EAGAIN;
    *ret_stale = k->known.expires_ms && rest < RENEW_BEFORE_MS + k->jitter_ms && may_look;
    *ret = k->known;
    return 0;
}

int s3_credentials_peek(struct s3_credentials *k, struct s3_credential *ret, bool *ret_stale)
{
    WITH_LOCK(&k->lock);
    return peek(k, ret, ret_stale);
}

void s3_credentials_reject(struct s3_credentials *k, uint64_t generation)
{
    WITH_LOCK(&k->lock);
    if (k->generation == generation)
        k->rejected = true;
}

int s3_credential_find(struct s3_credentials *k, const struct s3_profile *p,
                       struct s3_credential *ret, struct err *err)
{
    static s3_provider_fn *const places[] = {
        s3_credential_environment, s3_credential_profile_role, s3_credential_web_identity,
        s3_credential_profile,     s3_credential_process,      s3_credential_container,
        s3_credential_machine,
    };

    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        int r = places[i](k, p, ret, err);
        if (r != -ENOENT)
            return r;
    }
    return err_fail(err, -ENOENT,
                    "no credentials: neither in the environment, nor in AWS's files (profile "
                    "\"%s\"), nor from a container or machine role",
                    p->name);
}

static int look(struct s3_credentials *k, struct s3_credential *ret, struct err *err)
{
    AUTO(s3_profile_release) struct s3_profile profile = {.name = ""};
    AUTO(s3_credential_wipe) struct s3_credential base = {.token = ""};

    /* Read anew each time: files are rotated under us. */
    int r = s3_profile_load(k->profile, &profile, err);
    if (r < 0)
        return r == -ENOENT ? -EACCES : r;
    if (!k->role_arn)
        return s3_credential_find(k, &profile, ret, err);
    r = s3_credential_find(k, &profile, &base, err);
    return r < 0 ? r : s3_credential_assume(k, &base, k->role_arn, k->external_id, NULL, ret, err);
}

/* A renewal failed: may what was there be used on? Under the lock. */
static bool goes_on(struct s3_credentials *k, int64_t now)
{
    if (!k->generation || k->rejected)
        return false;
    if (strcmp(k->known.source, "the machine's role") == 0 && k->known.expires_ms - now < GRACE_MS)
        k->known.expires_ms = now + GRACE_MS;
    return k->known.expires_ms == 0 || k->known.expires_ms - now >= EXPIRED_MARGIN_MS;
}

int s3_credentials_get(struct s3_credentials *k, struct s3_credential *ret, struct err *err)
{
    AUTO(s3_credential_wipe) struct s3_credential found = {.token = ""};
    bool stale = false;

    WITH_LOCK(&k->finding);
    int r = s3_credentials_peek(k, ret, &stale); /* another thread was faster */
    if ((r == 0 && !stale) || r == -ENOENT)
        return r;
    struct err reason = ERR_INIT;
    r = look(k, &found, &reason);

    WITH_LOCK(&k->lock);
    k->look_again_ms = k->env->boot_ms(k->env) + LOOK_AGAIN_MS;
    k->none = r == -ENOENT;
    if (r == 0) {
        k->known = found;
        k->known.generation = ++k->generation;
        k->rejected = false;
        k->look_again_ms = 0;
    } else if (!goes_on(k, k->env->wall_ms(k->env))) {
        return err_fail(err, r, "%s", err_text(&reason, r));
    } else {
        k->none = false;
    }
    *ret = k->known;
    return 0;
}
