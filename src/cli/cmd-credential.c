/* SPDX-License-Identifier: Apache-2.0 */
/*
 * grid credential: roles that may read buckets of sources.
 *
 * Creating one prints what has to be installed on the other side: a trust policy with an external
 * id made here, and a permission policy. The role may exist before or after: it is first assumed
 * when a source needs it.
 */
#include "cli/credential.h"

#include "base/hex.h"
#include "base/name.h"

#include <inttypes.h>
#include <string.h>

const struct option cmd_credential_options[] = {OPTION_JSON, OPTION_END};

const struct option cmd_credential_create_options[] = {
    {"--type", 0, "TYPE", "what it opens; s3 is the only type, and the default", NULL},
    {"--name", 0, "NAME", "name of the credential; default: made of the role's", NULL},
    {"--role-arn", 0, "ARN", "the role to assume; without it, it is asked for", NULL},
    {"--external-id", 0, "ID", "of a trust policy that exists; default: a new one", NULL},
    {"--description", 0, "TEXT", "what it is for", NULL},
    OPTION_JSON,
    OPTION_END};

const struct option cmd_credential_delete_options[] = {OPTION_END};

#define EXTERNAL_ID_BYTES 16u

/* ---- policies ---- */

/* Who may assume the role, and only with the external id: so nobody else can have us use it. */
static json_t *trust_policy(const char *external_id)
{
    return json_pack("{s:s, s:[{s:s, s:{s:s}, s:s, s:{s:{s:s}}}]}", "Version", "2012-10-17",
                     "Statement", "Effect", "Allow", "Principal", "AWS",
                     "arn:aws:iam::YOUR-ACCOUNT:root", "Action", "sts:AssumeRole", "Condition",
                     "StringEquals", "sts:ExternalId", external_id);
}

static json_t *permission_policy(void)
{
    return json_pack("{s:s, s:[{s:s, s:[s, s], s:s}, {s:s, s:[s, s], s:s}]}", "Version",
                     "2012-10-17", "Statement", "Effect", "Allow", "Action", "s3:ListBucket",
                     "s3:ListBucketVersions", "Resource", "arn:aws:s3:::BUCKET", "Effect", "Allow",
                     "Action", "s3:GetObject", "s3:GetObjectVersion", "Resource",
                     "arn:aws:s3:::BUCKET/*");
}

static int print_policy(const char *title, json_t *policy)
{
    AUTO(free_ptr) char *text = policy ? json_dumps(policy, JSON_INDENT(2)) : NULL;

    json_decref(policy);
    if (!text)
        return say_failed("out of memory");
    printf("%s\n\n%s\n\n", title, text);
    return CLI_DONE;
}

static int print_policies(const char *external_id)
{
    int code = print_policy("Trust policy of the role (YOUR-ACCOUNT: of those who run grid):",
                            trust_policy(external_id));

    if (code == CLI_DONE)
        code = print_policy("Permission policy of the role (BUCKET: what it may read):",
                            permission_policy());
    return code == CLI_DONE ? finish_stdout(CLI_DONE) : code;
}

/* ---- create ---- */

static int choose_external_id(const struct args *args, struct credential *c)
{
    const char *given = args_text(args, "--external-id");
    uint8_t random[EXTERNAL_ID_BYTES];

    if (given && !credential_external_id_is_valid(given))
        return say_usage(args->command, "'%s' cannot be an external id", given);
    if (given) {
        (void)snprintf(c->external_id, sizeof c->external_id, "%s", given);
        return CLI_DONE;
    }
    env_real()->random(env_real(), random, sizeof random);
    hex_encode(c->external_id, random, sizeof random);
    return CLI_DONE;
}

static int choose_role(const struct args *args, struct credential *c)
{
    const char *given = args_text(args, "--role-arn");
    char line[CREDENTIAL_ARN_MAX + 2] = "";

    if (!given) {
        if (!isatty(STDIN_FILENO))
            return say_usage(args->command,
                             "there is no terminal to ask on: give the role with --role-arn");
        (void)fputs("ARN of the role: ", stderr);
        if (!fgets(line, sizeof line, stdin))
            return say_failed("no role was given; nothing is stored");
        line[strcspn(line, "\r\n")] = '\0';
        given = line;
    }
    if (!credential_arn_is_valid(given))
        return say_failed("'%.200s' is no role: arn:aws:iam::ACCOUNT:role/NAME", given);
    (void)snprintf(c->role_arn, sizeof c->role_arn, "%s", given);
    return CLI_DONE;
}

static int choose_name(const struct args *args, struct credential *c)
{
    const char *given = args_text(args, "--name");
    char name[NAME_MAX_LENGTH + 1];

    if (!given) {
        if (!name_derive(c->role_arn, false, name))
            return say_usage(args->command, "no name can be made of '%s': give one with --name",
                             c->role_arn);
        given = name;
    }
    if (!name_is_valid(given))
        return say_usage(args->command,
                         "'%s' is no name for a credential: it begins with a lower case letter or "
                         "digit and goes on with these, '.', '_' or '-', 63 in all",
                         given);
    (void)snprintf(c->name, sizeof c->name, "%s", given);
    return CLI_DONE;
}

static int fill_in(const struct args *args, struct credential *c)
{
    const char *type = args_text(args, "--type"), *text = args_text(args, "--description");

    if (type && strcmp(type, "s3") != 0)
        return say_usage(args->command, "there are no credentials of type '%s': --type s3", type);
    if (text && strlen(text) > CREDENTIAL_TEXT_MAX)
        return say_usage(args->command, "the description is longer than %u bytes",
                         CREDENTIAL_TEXT_MAX);
    (void)snprintf(c->description, sizeof c->description, "%s", text ? text : "");
    c->created_ms = env_real()->wall_ms(env_real());
    return choose_external_id(args, c);
}

static json_t *json_credential(const struct credential *c)
{
    char time[FIGURE_MAX];
    json_t *row = json_pack("{s:s, s:s, s:s, s:s, s:s}", "name", c->name, "type", "s3", "role_arn",
                            c->role_arn, "external_id", c->external_id, "created_at",
                            figure_utc_time(c->created_ms, time));

    if (row && json_set_bytes(row, "description", c->description, strlen(c->description)) < 0) {
        json_decref(row);
        row = NULL;
    }
    return row;
}

static json_t *json_created(const struct credential *c)
{
    json_t *row = json_credential(c);

    if (row && json_object_set_new(row, "trust_policy", trust_policy(c->external_id)) == 0 &&
        json_object_set_new(row, "permission_policy", permission_policy()) == 0)
        return row;
    json_decref(row);
    return NULL;
}

int cmd_credential_create(struct cli *cli, const struct args *args)
{
    AUTO(free_ptr) struct credential *c = calloc(1, sizeof *c);
    AUTO(free_ptr) char *path = NULL;
    struct err err = ERR_INIT;
    bool json = args_flag(args, "--json");

    if (!c)
        return say_failed("out of memory");
    int code = fill_in(args, c);
    bool asks = !args_text(args, "--role-arn");
    if (code == CLI_DONE && asks && !json && isatty(STDIN_FILENO))
        code = print_policies(c->external_id); /* first: the role is made with them */
    if (code == CLI_DONE)
        code = choose_role(args, c);
    if (code == CLI_DONE)
        code = choose_name(args, c);
    if (code != CLI_DONE)
        return code;
    int r = credentials_path(&cli->places, &path, &err);
    if (r == 0)
        r = credentials_add(path, c, &err);
    if (r < 0)
        return say_err(&err, r);
    if (json)
        code = json_print(json_created(c));
    else if (!asks)
        code = print_policies(c->external_id);
    say("the credential %s is stored in %s: no keys, only the role's name and the external id",
        c->name, path);
    return code;
}

/* ---- list, delete ---- */

static int print_list(const struct credentials *all)
{
    static const char *const columns[] = {"Name", "Type", "Role", "Created At", "Description"};
    AUTO(table_free) struct table *table = table_new(columns, 5);
    char time[FIGURE_MAX];

    if (!table)
        return say_failed("out of memory");
    for (size_t i = 0; i < all->rows.count; i++) {
        const struct credential *c = &all->rows.at[i];
        table_add(table, c->name);
        table_add(table, "s3");
        table_add(table, c->role_arn);
        table_add(table, figure_local_time(c->created_ms, time));
        table_add(table, c->description);
    }
    if (table_print(table, stdout) < 0)
        return say_failed("out of memory");
    return finish_stdout(CLI_DONE);
}

int cmd_credential(struct cli *cli, const struct args *args)
{
    AUTO(credentials_release) struct credentials all = {0};
    AUTO(free_ptr) char *path = NULL;
    struct err err = ERR_INIT;
    int r = credentials_path(&cli->places, &path, &err);

    if (r == 0)
        r = credentials_read(path, &all, &err);
    if (r < 0)
        return say_err(&err, r);
    if (!args_flag(args, "--json"))
        return print_list(&all);
    json_t *rows = json_array();
    for (size_t i = 0; rows && i < all.rows.count; i++) {
        if (json_array_append_new(rows, json_credential(&all.rows.at[i])) < 0) {
            json_decref(rows);
            return say_failed("out of memory");
        }
    }
    return rows ? json_print(rows) : say_failed("out of memory");
}

int cmd_credential_delete(struct cli *cli, const struct args *args)
{
    AUTO(free_ptr) char *path = NULL;
    struct err err = ERR_INIT;
    int r = credentials_path(&cli->places, &path, &err);

    if (r == 0)
        r = credentials_remove(path, args->words.at[0], &err);
    if (r < 0)
        return say_err(&err, r);
    say("the credential %s is forgotten; the role itself is not touched", args->words.at[0]);
    return CLI_DONE;
}
