/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the commands share: sentences, tables, JSON, progress, opened versions, tree walks; and the
 * commands themselves, for the table in commands.c.
 */
#ifndef CLI_CLI_INTERNAL_H
#define CLI_CLI_INTERNAL_H

#include "cli/cli.h"

#include "attach/attach.h"
#include "cache/cache.h"
#include "base/digest.h"
#include "catalogue/catalogue.h"
#include "fetch/fetch.h"
#include "store/store.h"
#include "view/view.h"

#include <jansson.h>
#include <signal.h>
#include <stdio.h>

/* ---- sentences on stderr (say.c) ---- */

/* "grid: ..." with everything that could steer a terminal escaped. A progress line gives way. */
void say(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* The same, and CLI_FAILED, for `return say_failed(...)`. */
int say_failed(const char *format, ...) __attribute__((format(printf, 1, 2)));
int say_err(const struct err *err, int code); /* err_text(); CLI_FAILED */
/* The same with "see 'grid WORDS --help'"; CLI_USAGE. */
int say_usage(const struct command *c, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* Append `text` so that it cannot steer a terminal: control characters and what is not UTF-8 become
 * \xNN, a backslash stays. */
int escape_text(struct buf *b, const char *text, size_t length);
/* Columns of a terminal that UTF-8 `text` takes. */
size_t text_width(const char *text, size_t length);
/* A file name: escaped on a terminal, raw bytes otherwise. */
void print_name(const char *name, size_t length);
/* stdout as a terminal? */
bool stdout_is_terminal(void);
/* Flush stdout; CLI_FAILED with a sentence if anything could not be written, else `code`. */
int finish_stdout(int code);

/* ---- figures (figures.c) ---- */

#define FIGURE_MAX 64
/* "1,234,567" */
const char *figure_count(uint64_t n, char ret[static FIGURE_MAX]);
/* "1 file", "1,234 files" */
const char *figure_things(uint64_t n, const char *thing, char ret[static FIGURE_MAX]);
/* "312.4 MiB" */
const char *figure_bytes(uint64_t n, char ret[static FIGURE_MAX]);
/* "0:12", "1:02:03" */
const char *figure_seconds(uint64_t s, char ret[static FIGURE_MAX]);
/* "2026-11-22 17:00", local time; "2026-11-22T17:00:00Z" */
const char *figure_local_time(int64_t ms, char ret[static FIGURE_MAX]);
const char *figure_utc_time(int64_t ms, char ret[static FIGURE_MAX]);

/* ---- tables (table.c) ---- */

struct table;
/* `columns`: titles; one that begins with '>' is aligned to the right. */
struct table *table_new(const char *const *columns, size_t count);
void table_free(struct table *t);
AUTO_FREE_FUNC(struct table, table_free);
/* The next cell, row by row; copied and escaped. Memory that is missing shows at table_print(). */
void table_add(struct table *t, const char *text);
int table_print(const struct table *t, FILE *out); /* 0 or -ENOMEM */

/* ---- JSON (json.c) ---- */

/* Set a string that may not be UTF-8: then `key` has U+FFFD for the bytes that are not, and
 * `key_bytes` all of them in hexadecimal. */
int json_set_bytes(json_t *object, const char *key, const char *text, size_t length);
/* The object that the listing shows. NULL: no memory. */
json_t *json_version(const struct cli *cli, const struct version_info *info);
/* Print the document and drop the reference to it; gives an exit code. */
int json_print(json_t *document);

/* ---- progress (progress.c) ---- */

/* One line on stderr, redrawn a few times a second; nothing at all unless stderr is a terminal. */
struct progress {
    const char *phase; /* "Reading"; a change begins a new rate */
    uint64_t files, files_total;
    uint64_t bytes, bytes_total; /* totals 0: not known */
};
void progress_show(const struct progress *p);
void progress_clear(void); /* takes the line away */
/* The line for a terminal of `columns`, for tests; `seconds` since the phase began. */
void progress_format(const struct progress *p, double seconds, size_t columns, char *ret,
                     size_t size);

/* ---- opened things (opened.c) ---- */

/* The disk cache (cache-place.c). */
struct cache_place {
    const char *dir;     /* borrowed from places; NULL: none */
    uint64_t size_bytes; /* 0: a share of the disk */
    bool off;
};
/* "4G", or "none". 0 or -EINVAL. */
int cache_place_parse(const char *text, struct cache_place *place);
/* GRID_CACHE, GRID_CACHE_SIZE and --cache-size (`args` NULL: without). Gives an exit code. */
int cache_place_choose(const struct cli *cli, const struct args *args, struct cache_place *ret);
/* False: a store on a local disk needs none, or it is switched off. */
bool cache_place_is_wanted(const struct cache_place *place, struct store *store);
int cache_place_open(const struct cache_place *place, struct cache **ret, struct err *err);

struct opened {
    struct store *store;
    struct cache *cache; /* NULL: none */
    struct catalogue *catalogue;
    struct version_info info; /* resolved */
    char path[4096];          /* what stood behind NAME[:N]/ */
    struct fetch *fetch;
    struct view *view;
    struct linking_clients *linking; /* linking.h: who reads what is linked */
};
void opened_release(struct opened *o);
static inline void auto_opened_release(struct opened *o)
{
    opened_release(o);
}

/* "NAME[:N][/path]". -EINVAL with a sentence. *ret_version 0: the newest. */
int reference_parse(const char *text, char ret_name[static 64], uint32_t *ret_version,
                    const char **ret_path, struct err *err);

/* Each gives an exit code, after a sentence. open_catalogue: `write` makes the store where it is
 * missing. open_version resolves a reference and says whose datastore a bare NAME is. */
int open_catalogue(struct cli *cli, bool write, struct opened *o);
/* The catalogue of o->store, which is not made if it is none; from afar with its format on the way:
 * see catalogue_open_beside(). What then fails because of the store gives true here, and its
 * sentence names it. */
int open_catalogue_beside(struct cli *cli, struct opened *o, struct err *err);
bool opened_no_store(const struct opened *o, int code, struct err *err);
/* The store alone, without a look into it. */
int open_store(const struct cli *cli, bool write, struct store **ret, struct err *err);
/* 0 or an error instead. -ENOENT: with o->store set, it is there and empty; else there is none. */
int open_catalogue_quietly(struct cli *cli, bool write, struct opened *o, struct err *err);
/* Each request to the store takes a round trip over a network. */
bool is_far(const struct cli *cli);
int open_version(struct cli *cli, const char *reference, bool path_allowed, struct opened *o);
int open_view(struct cli *cli, const char *reference, bool path_allowed, struct opened *o);
/* `fills`: to fill that cache; what is read is there before it is handed out. */
int open_view_cached(struct cli *cli, const char *reference, bool path_allowed,
                     const struct cache_place *place, bool fills, struct opened *o);
/* Without sentences, for server processes: store and catalogue of a version that was resolved
 * before; then its view. */
int open_again(const char *store, bool coherent, const struct store_options *options,
               const struct version_info *info, const struct catalogue_known *known,
               const struct cache_place *place, struct opened *o, struct err *err);
/* `known`: the manifest, if somebody has read it already. */
int open_again_view(struct opened *o, const struct fetch_options *reading,
                    const struct manifest *known, struct err *err);

/* ---- walks (walk.c) ---- */

/* Depth first, parents before children, siblings in the order of their bytes; the caller pulls. */
struct walk;
struct walk_item {
    const char *path; /* below where the walk began, NUL-ended; valid until the next step */
    size_t path_length;
    const char *name; /* its last component */
    struct index_inode inode;
    bool leaving; /* a directory a second time, behind all that is in it */
};
int walk_new(struct view *v, const struct index_inode *directory, struct walk **ret);
void walk_free(struct walk *w);
AUTO_FREE_FUNC(struct walk, walk_free);
/* 1: an item; 0: the end; or an error, about *ret->path where that is not NULL. */
int walk_next(struct walk *w, struct walk_item *ret);
/* Do not enter the directory that was just given. */
void walk_skip(struct walk *w);
/* In the order of walks: a '/' counts less than any byte of a name. */
int walk_compare(const char *a, const char *b);

/* ---- interruptions (interrupt.c) ---- */

/* The first SIGINT, SIGTERM or SIGHUP sets interrupt_signal, the second one ends the program. */
extern volatile sig_atomic_t interrupt_signal;
void interrupt_catch(void);

/* ---- trying out a directory store (doctor-race.c) ---- */

#define RACE_ROUNDS 100u
/* Two processes put one new key at the same time, RACE_ROUNDS times, in a directory of their own
 * below `root` that is removed again. -EOPNOTSUPP with a sentence: not exactly one of them won. */
int race_two_processes(const char *root, bool coherent, struct err *err);

/* ---- servers (serve.c) ---- */

struct supervise_child;

/* A pack that the kernel shall read where it lies. */
struct serve_pack {
    char key[OBJECT_KEY_MAX];
    uint64_t length;
    struct digest digest; /* by which the cache has it */
};

/* How a version is mounted (mode.h). */
enum mode { MODE_AUTO, MODE_FUSE, MODE_NATIVE, MODE_LOCAL };

/* How a server reads (reading.c): --mode, --memory, --cache-size, --io-timeout, --prefetch. */
struct reading {
    enum mode mode; /* wanted */
    uint64_t memory_bytes;
    int64_t io_timeout_ms;
    enum fetch_prefetch prefetch;
    struct cache_place cache;
};
/* What was given, else the defaults. Gives an exit code. */
int reading_options(const struct cli *cli, const struct args *args, struct reading *ret);

/* For the table of a command. */
#define OPTION_CACHE_SIZE                                                                          \
    {                                                                                              \
        "--cache-size", 0, "SIZE",                                                                 \
            "disk that the cache may take, e.g. 200G, or none; default: a quarter of the disk",    \
            NULL                                                                                   \
    }
#define OPTIONS_READING                                                                            \
    {"--mode", 0, "MODE", "how: auto, fuse, native or local", NULL},                               \
        {"--memory", 0, "SIZE", "memory for what was read, e.g. 512M; default 256M", NULL},        \
        OPTION_CACHE_SIZE,                                                                         \
        {"--io-timeout", 0, "TIME",                                                                \
         "how long a read may wait for a store that does not answer, e.g. 90 (seconds) or 30m; "   \
         "default 10m",                                                                            \
         NULL},                                                                                    \
    {                                                                                              \
        "--prefetch", 0, "WHAT",                                                                   \
            "what is read before it is asked for: none, adaptive (as reads make likely; the "      \
            "default) or all",                                                                     \
            NULL                                                                                   \
    }

/* What a server process needs to know; prepared before it is started. */
struct serve {
    char store[4200];
    bool coherent;
    struct store_options options; /* borrowed from the configuration */
    struct version_info info;
    struct catalogue_known known; /* of the store */
    struct manifest manifest;     /* owned; of version 0: nobody has read it yet */
    struct reading reading;
    char text[HOLD_TEXT_MAX]; /* who holds it: "run r1" */
    bool require_lease;
    char share[DIGEST_HEX_SIZE]; /* of attach_item */
    enum mode mode;              /* what came of reading.mode; not MODE_AUTO */
    struct attach_kernel kernel; /* the record's; not with MODE_FUSE */
    struct serve_pack *packs;    /* owned; of MODE_LOCAL */
    size_t pack_count;
};
void serve_release(struct serve *s);
static inline void auto_serve_release(struct serve *s)
{
    serve_release(s);
}
/* An attach_note_fn: says why it is unprotected. */
void serve_note(const struct attach_record *record, const char *sentence);
/* Resolve `name` (version 0: newest) and fill in both. Gives an exit code. */
int serve_prepare(struct cli *cli, const char *reference, uint32_t version,
                  const struct reading *reading, struct serve *ret,
                  struct attach_record *ret_record);
/* An attach_serve_fn. */
int serve_run(void *ctx, struct supervise_child *child);

/* ---- commands ---- */

#define OPTION_CLUSTER                                                                             \
    {                                                                                              \
        "--cluster", 0, "CLUSTER", "use this cluster's store", NULL                                \
    }
#define OPTION_REQUIRE_LEASE                                                                       \
    {                                                                                              \
        "--require-lease", 0, NULL, "fail rather than attach what may be deleted meanwhile", NULL  \
    }
#define OPTION_JSON                                                                                \
    {                                                                                              \
        "--json", 0, NULL, "print one JSON document, for programs", NULL                           \
    }
#define OPTION_END                                                                                 \
    {                                                                                              \
        NULL, 0, NULL, NULL, NULL                                                                  \
    }

#define COMMAND(name)                                                                              \
    extern const struct option cmd_##name##_options[];                                             \
    int cmd_##name(struct cli *cli, const struct args *args)

COMMAND(list);
COMMAND(create);
COMMAND(resume);
COMMAND(clearcache);
COMMAND(show);
COMMAND(ls);
COMMAND(cat);
COMMAND(diff);
COMMAND(export);
COMMAND(index);
COMMAND(verify);
COMMAND(delete);
COMMAND(fsck);
COMMAND(gc);
COMMAND(mount);
COMMAND(unmount);
COMMAND(mounts);
COMMAND(prefetch);
COMMAND(stats);
COMMAND(run);
COMMAND(session_list);
COMMAND(session_create);
COMMAND(session_enter);
COMMAND(session_delete);
COMMAND(slurm_check);
COMMAND(slurm_attach);
COMMAND(slurm_settle);
COMMAND(doctor);
COMMAND(clusters);
COMMAND(credential);
COMMAND(credential_create);
COMMAND(credential_delete);
COMMAND(set_cluster_context);
COMMAND(help);

#undef COMMAND

/* Words of Grid that this program has not: cmd-foreign.c. True if argv begins with one, with the
 * exit code after a sentence. */
bool foreign_command(char *const *argv, int *ret_exit);

#endif
