/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which client reads the objects of a linked version: its endpoint as the version says, credentials
 * chosen here and now. Nothing of them is in the version, since whoever reads it may be somebody
 * else than who made it.
 */
#include "cli/linking.h"

#include "cli/credential.h"

#include <stdio.h>
#include <string.h>

struct client {
    struct link_place place;
    bool lists;
    struct s3 *s3; /* owned */
};

struct linking_clients {
    pthread_mutex_t lock;
    VEC(struct client *) clients; /* owned */
};

struct linking_clients *linking_clients_new(void)
{
    struct linking_clients *l = calloc(1, sizeof *l);

    if (l)
        (void)pthread_mutex_init(&l->lock, NULL); /* fails for no default attributes */
    return l;
}

void linking_clients_free(struct linking_clients *l)
{
    if (!l)
        return;
    for (size_t i = 0; i < l->clients.count; i++) {
        s3_free(l->clients.at[i]->s3);
        free(l->clients.at[i]);
    }
    vec_release(&l->clients);
    pthread_mutex_destroy(&l->lock);
    free(l);
}

static void ignore_warning(void *ctx, const char *sentence)
{
}

/* What the configuration says of the bucket: a profile, an authority; and another way to it, which
 * this machine may need. Pins hold wherever the bytes come from. */
static int read_section(const struct places *places, const char *bucket, struct config *config,
                        struct s3_options *o, struct err *err)
{
    int r = config_read(config, places->system_config, !places->system_config_is_given,
                        ignore_warning, NULL, err);

    if (r == 0)
        r = config_read(config, places->user_config, false, ignore_warning, NULL, err);
    for (size_t i = 0; r == 0 && i < config->buckets.count; i++) {
        const struct cluster *b = &config->buckets.at[i];
        if (strcmp(b->name, bucket) != 0)
            continue;
        o->profile = b->profile;
        o->ca_file = b->ca_file;
        if (b->region)
            o->region = b->region;
        if (b->endpoint)
            o->endpoint = b->endpoint;
        if (b->addressing)
            o->addressing = strcmp(b->addressing, "path") == 0      ? S3_ADDRESSING_PATH
                            : strcmp(b->addressing, "virtual") == 0 ? S3_ADDRESSING_VIRTUAL
                                                                    : S3_ADDRESSING_AUTO;
    }
    return r;
}

static int open_client(const struct link_place *place, const char *key, struct s3 **ret,
                       struct err *err)
{
    static const enum s3_addressing addressing[] = {
        [LINK_ADDRESSING_AUTO] = S3_ADDRESSING_AUTO,
        [LINK_ADDRESSING_PATH] = S3_ADDRESSING_PATH,
        [LINK_ADDRESSING_VIRTUAL] = S3_ADDRESSING_VIRTUAL,
    };
    AUTO(free_ptr) char *path = NULL;
    struct places places = {0};
    struct config config = {0};
    char standard[128];
    struct s3_options o = {
        .endpoint = place->endpoint,
        .region = *place->region ? place->region : NULL,
        .addressing = addressing[place->addressing],
    };

    int r = places_find(&places, err);
    if (r == 0)
        r = read_section(&places, place->bucket, &config, &o, err);
    /* AWS's own must be named: the environment may lead to the store's endpoint. */
    if (r == 0 && !*o.endpoint) {
        (void)snprintf(standard, sizeof standard, "https://s3.%s.amazonaws.com%s",
                       o.region ? o.region : "us-east-1",
                       o.region && strncmp(o.region, "cn-", 3) == 0 ? ".cn" : "");
        o.endpoint = standard;
    }
    if (r == 0)
        r = credentials_path(&places, &path, err);
    if (r == 0)
        r = credential_choose(path, &o, place->bucket, place->prefix, key, ret, NULL, err);
    config_release(&config);
    places_release(&places);
    return r;
}

static bool same_place(const struct link_place *a, const struct link_place *b)
{
    return strcmp(a->bucket, b->bucket) == 0 && strcmp(a->prefix, b->prefix) == 0 &&
           strcmp(a->endpoint, b->endpoint) == 0 && strcmp(a->region, b->region) == 0 &&
           a->addressing == b->addressing;
}

int linking_open(void *ctx, const struct link_place *place, const char *key, struct s3 **ret,
                 struct err *err)
{
    struct linking_clients *l = ctx;
    AUTO(free_ptr) struct client *c = NULL;

    WITH_LOCK(&l->lock);
    for (size_t i = 0; i < l->clients.count; i++) {
        if (l->clients.at[i]->lists == !key && same_place(&l->clients.at[i]->place, place)) {
            *ret = l->clients.at[i]->s3;
            return 0;
        }
    }
    c = calloc(1, sizeof *c);
    if (!c)
        return err_fail(err, -ENOMEM, "out of memory");
    c->place = *place;
    c->lists = !key;
    int r = open_client(place, key, &c->s3, err);
    if (r < 0)
        return r;
    struct s3 *s3 = c->s3;
    r = vec_push(&l->clients, c);
    if (r < 0) {
        s3_free(s3);
        return err_fail(err, r, "out of memory");
    }
    c = NULL;
    *ret = s3;
    return 0;
}
