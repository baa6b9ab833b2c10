/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The command line: what people type, and all that is ever printed.
 *
 * A command is one row of the table in commands.c: its words, a table of options, a function. The
 * same table drives parsing, `--help`, `grid --dump-options`, by which shell completion works and
 * tools/check-man compares the manual pages: so none of them can say something else.
 *
 * What holds for every command:
 *   - stdout carries the result and nothing else; with --json exactly one JSON document;
 *   - stderr carries sentences ("grid: ...") and, on a terminal only, a progress line;
 *   - exit codes: 0 done, 1 failed (one sentence that names the thing), 2 wrong usage, 130 stopped
 *     by Ctrl-C; `grid run` gives its command's own;
 *   - bytes that come from elsewhere (file names, sources, owners) are escaped in sentences, tables
 *     and on terminals, so that they cannot steer one.
 *
 * How to add a command:
 *   1. cmd-NOUN.c: its option table and its function, both declared in cli-internal.h;
 *   2. a row in commands[] in commands.c;
 *   3. a section in docs/man/ (tools/check-man says what is missing);
 *   4. a script in tests/cases/cli/, with its bad input;
 *   5. cmd-NOUN.c in meson.build. Completion needs nothing.
 *
 * Threads: the command line runs on one.
 */
#ifndef CLI_CLI_H
#define CLI_CLI_H

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/err.h"
#include "base/vec.h"
#include "store/store.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum cli_exit { CLI_DONE = 0, CLI_FAILED = 1, CLI_USAGE = 2, CLI_INTERRUPTED = 130 };

/* ---- options ------------------------------------------------------------------------------------
 */

/* One option of one command; tables end with an empty row. */
struct option {
    const char *name;  /* "--datastore_name"; '-' and '_' are the same inside a name */
    char letter;       /* 'l' for "-l"; 0: none */
    const char *value; /* what --help calls its value; NULL: a flag without one */
    const char *help;  /* one line; NULL: not shown (a word of Grid that is only refused) */
    /* Words of Grid that this program knows and refuses: the sentence on what to use instead. */
    const char *instead;
};

struct cli;
struct args;

struct command {
    const char *words;     /* "datastore create" */
    const char *arguments; /* "[SOURCE]"; "" for none. A name in it that completion knows: NAME,
                              CREDENTIAL, DIR, FILE, SOURCE, CLUSTER, COMMAND */
    const char *summary;   /* one line; NULL: not in overviews */
    const char *details;   /* more for --help; may be NULL */
    const struct option *options; /* may be NULL */
    unsigned args_min, args_max;
    bool stop_at_argument; /* what follows the first argument is not ours to parse */
    int (*run)(struct cli *cli, const struct args *args); /* gives the exit code */
};

#define ARGS_ANY UINT32_MAX /* no upper limit of arguments */

/* An option as it was given. `value` points into argv; NULL for flags. */
struct args_option {
    const struct option *option;
    const char *value;
};

/* A parsed command line: options in the order in which they stood. */
struct args {
    const struct command *command;
    VEC(struct args_option) options;
    VEC(const char *) words; /* arguments */
    char *const *rest; /* stop_at_argument: the first argument and all behind it, NULL-ended */
};

/* Find the command that argv (without the program's name) begins with, and parse what follows. On a
 * mistake: -EINVAL and a sentence; ret->command is then set as far as it is known. -ENOTSUP: an
 * option with `instead` was given, and that is the sentence. A --help anywhere: *ret_help. */
int args_parse(const struct command *commands, char *const *argv, struct args *ret, bool *ret_help,
               struct err *err);
void args_release(struct args *a);

/* Asking for an option that the command has not is a mistake in this program: it aborts. */
bool args_flag(const struct args *a, const char *name);
const char *args_text(const struct args *a, const char *name); /* the last one given; or NULL */

/* Numbers as people write them. 0 or -EINVAL. */
int parse_version(const char *text, uint32_t *ret); /* 1 to CATALOGUE_VERSION_MAX */
int parse_bytes(const char *text, uint64_t *ret);   /* "64M", "2GiB": K, M, G, T are binary */

/* --help of one command, and the overview of those whose words begin with `words`. */
void help_command(const struct command *c);
void help_overview(const struct command *commands, const char *words);
/* One line per command, option and value, separated by tabs; for completion and tools/check-man. */
void help_dump(const struct command *commands);

/* ---- configuration
 * --------------------------------------------------------------------------------
 */

#define CONFIG_SIZE_MAX     (256u << 10) /* bytes of a file: a thousand clusters fit */
#define CONFIG_CLUSTERS_MAX 1024u

/* A named store. Strings are owned by the config. */
struct cluster {
    char name[64];
    char *store; /* location; NULL: the section names none */
    /* for an S3 store; NULL: as AWS's own tools find it */
    char *endpoint, *region, *addressing, *profile, *ca_file;
    bool coherent;     /* store_is_coherent = yes */
    bool kernel_mount; /* kernel_mount = yes; only believed in the system's file */
    char *users;       /* whose jobs root may serve: "a, b, @group"; only of the system's file */
    char *file;        /* where the section stands, for sentences */
    unsigned line;
};

struct config {
    VEC(struct cluster) clusters;
    VEC(struct cluster) buckets; /* where sources are: without a store */
    char context[64];            /* chosen by `grid user set-cluster-context`; "" if none was */
};

/* Add what `path` says to `c`; a later file overrides an earlier one key by key. A missing file is
 * fine. -EINVAL with "file:line: what". Unknown keys and sections are told to `warn` and left out.
 */
typedef void config_warn_fn(void *ctx, const char *sentence);
int config_read(struct config *c, const char *path, bool is_system, config_warn_fn *warn, void *ctx,
                struct err *err);
void config_release(struct config *c);
const struct cluster *config_cluster(const struct config *c, const char *name); /* or NULL */
struct store_options cluster_options(const struct cluster *c);                  /* borrowed */
/* Set [user] context in the file at `path`, made if missing; everything else in it stays. */
int config_set_context(const char *path, const char *name, struct err *err);

/* ---- places
 * ---------------------------------------------------------------------------------------
 */

struct places {
    char *store;                 /* default store's location: GRID_STORE, or "file:///..." */
    bool store_is_given;         /* by GRID_STORE */
    char *cache;                 /* GRID_CACHE, $XDG_CACHE_HOME/grid; root: /var/cache/grid */
    char *system_config;         /* /etc/grid/config, or GRID_CONFIG_SYSTEM */
    bool system_config_is_given; /* by the environment: then it opens no store to the kernel */
    char *user_config;           /* $XDG_CONFIG_HOME/grid/config */
};

int places_find(struct places *ret, struct err *err);
void places_release(struct places *p);

/* ---- one call of grid
 * -----------------------------------------------------------------------------
 */

#define CLUSTER_DEFAULT "local" /* the unnamed default cluster */

struct cli {
    const struct command *commands;
    struct places places;
    struct config config;
    char cluster[64];             /* the chosen one's name */
    const char *store;            /* its location; borrowed from places or config */
    bool store_is_default;        /* nobody named it: an absent one is an empty one */
    bool coherent;                /* its file system is declared coherent */
    struct store_options options; /* of an S3 store; borrowed from config */
    char owner[64];               /* user name of who calls, else the uid */
    char host[128];
};

/* Places, configuration, and the store that --cluster, GRID_STORE or the context choose. Gives an
 * exit code, after a sentence. */
int cli_choose_store(struct cli *cli, const struct args *args);
/* The same in two steps, for who serves several clusters or users. `name` may be NULL; without
 * `is_needed`, one that leads nowhere is no mistake. */
int cli_read_config(struct cli *cli);
int cli_use_cluster(struct cli *cli, bool is_needed, const char *name);

/* The program: what main() calls. */
int cli_main(int argc, char *const argv[]);

#endif
