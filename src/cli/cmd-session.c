/* SPDX-License-Identifier: Apache-2.0 */
/*
 * grid session: a shell with datastores attached, that can be entered again, and ended, from
 * elsewhere.
 *
 * On a terminal `create` is that shell; otherwise it comes back when all is attached, and the
 * session stays until it is deleted.
 */
#include "cli/cmd-mount.h"
#include "cli/mode.h"

#include "base/name.h"

#include <stdlib.h>
#include <string.h>

const struct option cmd_session_create_options[] = {
    OPTIONS_ITEMS,   {"--name", 0, "S", "a name for the session; default: session-N", NULL},
    OPTIONS_READING, OPTION_REQUIRE_LEASE,
    OPTION_CLUSTER,  OPTIONS_RENTED,
    OPTION_END};
const struct option cmd_session_list_options[] = {OPTION_JSON, OPTION_END};
const struct option cmd_session_enter_options[] = {OPTION_END};
const struct option cmd_session_delete_options[] = {OPTION_END};

/* Programs that were asked to end have this long to write down what they have. */
#define GRACE_MS 5000

static int check_name(const struct args *args, const char *name)
{
    if (name_is_valid(name))
        return CLI_DONE;
    return say_usage(args->command,
                     "a session's name is made of lower case letters, digits, '.', '_' and '-', "
                     "not '%s'",
                     name);
}

static const char *shell(void)
{
    const char *given = getenv("SHELL");

    return given && *given == '/' && access(given, X_OK) == 0 ? given : "/bin/sh";
}

static bool on_a_terminal(void)
{
    return isatty(STDIN_FILENO) && isatty(STDOUT_FILENO);
}

int cmd_session_create(struct cli *cli, const struct args *args)
{
    AUTO(items_free) struct items *items = NULL;
    const char *given = args_text(args, "--name");
    char name[64], run[80], text[HOLD_TEXT_MAX];
    struct err err = ERR_INIT;
    int exit_code = CLI_DONE;

    if (given && check_name(args, given) != CLI_DONE)
        return CLI_USAGE;
    if (given)
        (void)snprintf(name, sizeof name, "%s", given);
    else
        (void)snprintf(name, sizeof name, "session-%ld", (long)getpid());
    (void)snprintf(run, sizeof run, ATTACH_SESSION_PREFIX "%s", name);
    (void)snprintf(text, sizeof text, "session %s", name);
    int code = items_prepare(cli, args, run, text, &items);
    if (code != CLI_DONE)
        return code;
    char *argv[] = {(char *)shell(), NULL};
    bool interactive = on_a_terminal();
    int r;
    if (interactive)
        say("session %s: 'exit' ends it", name);
    do {
        err_clear(&err);
        r = interactive ? attach_run(items->at, items->count, argv, &exit_code, &err)
                        : attach_hold(items->at, items->count, &err);
    } while (r == -EOPNOTSUPP && mode_step_down_all(items, &err));
    if (r < 0)
        return say_err(&err, r);
    if (interactive)
        return exit_code;
    printf("%s\n", name);
    return finish_stdout(CLI_DONE);
}

int cmd_session_list(struct cli *cli, const struct args *args)
{
    return list_mounts(LIST_SESSIONS, args_flag(args, "--json"));
}

int cmd_session_enter(struct cli *cli, const struct args *args)
{
    char *only_shell[] = {(char *)shell(), NULL};
    struct err err = ERR_INIT;
    int exit_code = CLI_FAILED;

    if (!args->rest)
        return say_usage(args->command, "an argument is missing: S");
    const char *name = args->rest[0];
    char *const *argv = args->rest + 1;
    if (check_name(args, name) != CLI_DONE)
        return CLI_USAGE;
    if (*argv && strcmp(*argv, "--") == 0)
        argv++;
    int r = attach_session_enter(name, *argv ? argv : only_shell, &exit_code, &err);
    (void)say_err(&err, r); /* the code is a shell's, if the command could not be run */
    return exit_code;
}

int cmd_session_delete(struct cli *cli, const struct args *args)
{
    const char *name = args->words.at[0];
    struct err err = ERR_INIT;

    if (check_name(args, name) != CLI_DONE)
        return CLI_USAGE;
    int r = attach_session_end(name, GRACE_MS, &err);
    return r < 0 ? say_err(&err, r) : CLI_DONE;
}
