/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The table of commands, and the way from argv to one of them.
 */
#include "cli/cli-internal.h"

#include <locale.h>
#include <string.h>

static const struct command commands[] = {
    {"datastore", "", "list datastores",
     "Lists your own datastores, newest version first. Uploads that did not succeed are shown by\n"
     "--show-incomplete.",
     cmd_list_options, 0, 0, false, cmd_list},
    {"datastore list", "", "list datastores", "The same as 'grid datastore'.", cmd_list_options, 0,
     0, false, cmd_list},
    {"datastore create", "[SOURCE]", "make a new version of a datastore",
     "SOURCE is a directory, a file, s3://BUCKET/PREFIX/, or the URL of an archive. Without "
     "--name,\n"
     "its last component is the name, in lower case. A .gridignore at the root of SOURCE leaves\n"
     "files out. An upload that was interrupted is continued by the same command, or by\n"
     "'grid datastore resume'.",
     cmd_create_options, 0, 1, false, cmd_create},
    {"datastore resume", "", "continue interrupted uploads",
     "Continues what 'grid datastore create' left unfinished on this machine, where it stopped.",
     cmd_resume_options, 0, 0, false, cmd_resume},
    {"datastore clearcache", "", "forget the local state of uploads",
     "Interrupted uploads can then not be resumed, and the next create reads every file again.",
     cmd_clearcache_options, 0, 0, false, cmd_clearcache},
    {"datastore show", "NAME[:N]", "show what one version consists of", NULL, cmd_show_options, 1,
     1, false, cmd_show},
    {"datastore ls", "NAME[:N][/PATH]", "list files of a version, without a mount", NULL,
     cmd_ls_options, 1, 1, false, cmd_ls},
    {"datastore cat", "NAME[:N]/PATH ...", "write files of a version to standard output", NULL,
     cmd_cat_options, 1, ARGS_ANY, false, cmd_cat},
    {"datastore diff", "NAME[:N] NAME[:N]", "show which files differ between two versions",
     "A: added, D: removed, M: changed. Reads the indexes only: files are the same where they "
     "name\n"
     "the same place of the same pack, else where size and time of modification are equal.",
     cmd_diff_options, 2, 2, false, cmd_diff},
    {"datastore export", "NAME[:N] DIR", "copy a version into a new or empty directory", NULL,
     cmd_export_options, 2, 2, false, cmd_export},
    {"datastore index", "NAME[:N] [FILE]", "write a version's index, an EROFS image, to a file",
     "FILE may be '-' for standard output; with --dump it may be left out.", cmd_index_options, 1,
     2, false, cmd_index},
    {"datastore verify", "NAME[:N]", "check every byte of a version against its digest",
     "Of a linked version: the tables of links, and which objects of the source are not what they\n"
     "were.",
     cmd_verify_options, 1, 1, false, cmd_verify},
    {"datastore delete", "", "delete one version, for good",
     "Immediate and final: the number is never used again, other versions stay whole. Refused\n"
     "while the version is attached anywhere. An upload that is not complete is given up. What no\n"
     "other version needs is then reclaimed.",
     cmd_delete_options, 0, 0, false, cmd_delete},
    {"datastore gc", "", "reclaim what no version needs any more",
     "Waits for nobody: while uploads that began before are under way it says so and stops, and\n"
     "the next call goes on.",
     cmd_gc_options, 0, 0, false, cmd_gc},
    {"datastore fsck", "", "check that a whole store keeps its rules",
     "Reads all records and looks for all objects, and says which rule of the format is broken\n"
     "where. On a store at rest: what others do meanwhile may show. Changes nothing.",
     cmd_fsck_options, 0, 0, false, cmd_fsck},
    {"datastore mount", "NAME[:N] DIR", "mount a version, read-only, on an empty directory", NULL,
     cmd_mount_options, 2, 2, false, cmd_mount},
    {"datastore unmount", "DIR", "unmount a version", NULL, cmd_unmount_options, 1, 1, false,
     cmd_unmount},
    {"datastore mounts", "", "list mounted versions", NULL, cmd_mounts_options, 0, 0, false,
     cmd_mounts},
    {"datastore prefetch", "[NAME[:N][/PATH]] [PATH ...]", "fetch a version into the disk cache",
     "All of it, or the files at and below some paths. Interrupted, the same command goes on "
     "where\n"
     "it stopped. What is in a store on this machine's disk needs no cache.",
     cmd_prefetch_options, 0, ARGS_ANY, false, cmd_prefetch},
    {"datastore stats", "", "show how reads of the live mounts went",
     "Hits and misses in memory, bytes from memory, disk cache and store, times of the store's\n"
     "answers, and for how long readers waited; and how full the cache is.",
     cmd_stats_options, 0, 0, false, cmd_stats},
    {"run", "[--] [COMMAND ...]", "run a command with datastores attached; alone: list runs",
     "Each --datastore_name may be followed by its own --datastore_version and\n"
     "--datastore_mount_dir. A COMMAND that ends in .py is run with python3. The exit code is the\n"
     "command's own.",
     cmd_run_options, 0, ARGS_ANY, true, cmd_run},
    {"session", "", "list sessions",
     "Sessions of this user on this machine, with their datastores.", cmd_session_list_options, 0,
     0, false, cmd_session_list},
    {"session list", "", "list sessions", "The same as 'grid session'.", cmd_session_list_options,
     0, 0, false, cmd_session_list},
    {"session create", "", "open a shell with datastores attached",
     "On a terminal the shell ($SHELL, else /bin/sh) is there at once. Otherwise the session "
     "stays\n"
     "in the background until 'grid session delete'.",
     cmd_session_create_options, 0, 0, false, cmd_session_create},
    {"session enter", "S [COMMAND ...]", "run a command, or a shell, in a session", NULL,
     cmd_session_enter_options, 0, ARGS_ANY, true, cmd_session_enter},
    {"session delete", "S", "end a session and all its processes, and detach",
     "Its processes get SIGHUP and SIGTERM, and SIGKILL after 5 seconds.",
     cmd_session_delete_options, 1, 1, false, cmd_session_delete},
    {"slurm check", "SPEC ...", NULL, "For the Slurm plugin: see grid-slurm(7).",
     cmd_slurm_check_options, 1, ARGS_ANY, false, cmd_slurm_check},
    {"slurm attach", "SPEC ...", NULL, "For the Slurm plugin: see grid-slurm(7).",
     cmd_slurm_attach_options, 1, ARGS_ANY, false, cmd_slurm_attach},
    {"slurm settle", "PID ...", NULL, "For the Slurm plugin: see grid-slurm(7).",
     cmd_slurm_settle_options, 1, ARGS_ANY, false, cmd_slurm_settle},
    {"datastore doctor", "", "try out whether a store keeps what it must",
     "Tries whether of several who write one new key at the same time exactly one wins, and\n"
     "compares clocks; of a bucket also its settings, of a directory its file system and space.\n"
     "Leaves nothing behind.",
     cmd_doctor_options, 0, 0, false, cmd_doctor},
    {"credential", "", "list the roles that may read buckets of sources",
     "A bucket that a datastore is made from, or links to, is read with what AWS's own tools "
     "find,\n"
     "else with the first of these roles that may.",
     cmd_credential_options, 0, 0, false, cmd_credential},
    {"credential list", "", "list the roles that may read buckets of sources",
     "The same as 'grid credential'.", cmd_credential_options, 0, 0, false, cmd_credential},
    {"credential create", "", "store a role that may read buckets of sources",
     "Prints the trust policy (with an external id) and the permission policy to install, then\n"
     "takes the role's ARN. Only its name and the external id are kept, never keys.",
     cmd_credential_create_options, 0, 0, false, cmd_credential_create},
    {"credential delete", "CREDENTIAL", "forget a stored role", NULL, cmd_credential_delete_options,
     1, 1, false, cmd_credential_delete},
    {"clusters", "", "list the configured stores", NULL, cmd_clusters_options, 0, 0, false,
     cmd_clusters},
    {"user set-cluster-context", "CLUSTER", "choose the cluster that commands use by default", NULL,
     cmd_set_cluster_context_options, 1, 1, false, cmd_set_cluster_context},
    {"help", "[WORD ...]", "explain a command", NULL, cmd_help_options, 0, ARGS_ANY, false,
     cmd_help},
    {0}};

const struct option cmd_help_options[] = {OPTION_END};

int cmd_help(struct cli *cli, const struct args *args)
{
    AUTO(buf_release) struct buf words = BUF_INIT(4096);
    bool is_known = false, is_beginning = false;

    for (size_t i = 0; i < args->words.count; i++) {
        if (buf_printf(&words, "%s%s", i ? " " : "", args->words.at[i]) < 0)
            return say_usage(args->command, "that is no command");
    }
    for (const struct command *c = commands; c->words; c++) {
        is_known |= strcmp(c->words, buf_text(&words)) == 0;
        is_beginning |= strncmp(c->words, buf_text(&words), words.size) == 0 &&
                        (words.size == 0 || c->words[words.size] == ' ');
        if (strcmp(c->words, buf_text(&words)) == 0)
            help_command(c);
    }
    if (!is_known && !is_beginning)
        return say_usage(NULL, "there is no command '%s'", buf_text(&words));
    if (is_known && is_beginning)
        putchar('\n');
    if (is_beginning)
        help_overview(commands, buf_text(&words));
    return finish_stdout(CLI_DONE);
}

/* What stands alone, before any command. True if it was one of these. */
static bool run_special(const char *word, int *ret_exit)
{
    if (strcmp(word, "--version") == 0)
        printf("grid %s\n", GRID_VERSION);
    else if (strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0)
        help_overview(commands, "");
    else if (strcmp(word, "--dump-options") == 0)
        help_dump(commands);
    else
        return false;
    *ret_exit = finish_stdout(CLI_DONE);
    return true;
}

static int run_help(const struct args *args, const char *first)
{
    if (args->command)
        help_command(args->command);
    else
        help_overview(commands, strcmp(first, "user") == 0 ? first : "");
    return finish_stdout(CLI_DONE);
}

int cli_main(int argc, char *const argv[])
{
    struct cli cli = {.commands = commands};
    struct err err = ERR_INIT;
    struct args args;
    bool help;
    int code;

    /* Only widths of characters depend on the locale; messages are English, sorting is by bytes. */
    (void)setlocale(LC_CTYPE, "C.UTF-8");
    if (argc < 2) {
        (void)say_usage(NULL, "a command is missing");
        return CLI_USAGE;
    }
    if (run_special(argv[1], &code) || foreign_command(argv + 1, &code))
        return code;

    int r = args_parse(commands, argv + 1, &args, &help, &err);
    if (r == -ENOTSUP) {
        say("%s", err_text(&err, r));
        code = CLI_USAGE;
    } else if (r < 0)
        code = say_usage(args.command, "%s", err_text(&err, r));
    else if (help)
        code = run_help(&args, argv[1]);
    else
        code = cli_choose_store(&cli, &args);
    if (r == 0 && !help && code == CLI_DONE)
        code = args.command->run(&cli, &args);
    args_release(&args);
    config_release(&cli.config);
    places_release(&cli.places);
    return code;
}
