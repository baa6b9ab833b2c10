/* SPDX-License-Identifier: Apache-2.0 */
/*
 * grid slurm: what the Slurm plugin calls, so that nothing of this program is linked into Slurm's
 * daemons.
 *
 *   check    as the user who submits: are the names right? Prints them with their versions, so that
 *            all nodes and steps of the job see the same.
 *   attach   as root, on a node, in front of a step's first process: attaches in a mount namespace,
 *            prints "ready PID SERVER...", and keeps the namespace of PID until its standard input
 *            ends, by when the step has entered it.
 *   settle   as root: moves servers into the control groups of a task.
 *
 * Whose credentials open a store: the node's, where the administrator's configuration lists the
 * user for that cluster; else the user's own, in processes of the user's.
 */
#include "cli/mode.h"
#include "cli/slurm.h"

#include "base/file.h"
#include "base/name.h"

#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <poll.h>
#include <pwd.h>
#include <stdlib.h>
#include <string.h>

const struct option cmd_slurm_check_options[] = {OPTION_END};
const struct option cmd_slurm_attach_options[] = {
    {"--uid", 0, "N", "the job's user", NULL},
    {"--gid", 0, "N", "the job's group", NULL},
    {"--job", 0, "JOB.STEP", "a name for the run, for listings", NULL},
    OPTIONS_READING,
    OPTION_REQUIRE_LEASE,
    OPTION_END};
const struct option cmd_slurm_settle_options[] = {OPTION_END};

/* The step enters the namespace at once, or never. */
#define ENTER_MS 60000

/* ---- check ---- */

/* As the user; what only the node can open cannot be checked here. */
static int check_one(struct cli *cli, struct spec *spec)
{
    AUTO(opened_release) struct opened o = {0};
    struct err err = ERR_INIT;
    int code = cli_use_cluster(cli, true, *spec->cluster ? spec->cluster : NULL);

    if (code != CLI_DONE)
        return code;
    bool is_environments = cli->places.store_is_given && strcmp(cli->cluster, CLUSTER_DEFAULT) == 0;
    const struct cluster *cluster = config_cluster(&cli->config, cli->cluster);
    if (!is_environments)
        (void)snprintf(spec->cluster, sizeof spec->cluster, "%s", cli->cluster);
    if (!is_environments && cluster && cluster->store && cluster_is_open_to(cluster, geteuid()) &&
        open_catalogue_quietly(cli, false, &o, &err) < 0)
        return CLI_DONE;
    opened_release(&o);
    o = (struct opened){0};
    char reference[96];
    (void)snprintf(reference, sizeof reference, spec->version ? "%s:%" PRIu32 : "%s", spec->name,
                   spec->version); /* fits */
    code = open_version(cli, reference, false, &o);
    if (code == CLI_DONE)
        spec->version = o.info.version;
    return code;
}

static bool is_same_place(const struct spec *a, const struct spec *b)
{
    if (a->directory || b->directory)
        return a->directory && b->directory && strcmp(a->directory, b->directory) == 0;
    return strcmp(a->name, b->name) == 0;
}

int cmd_slurm_check(struct cli *cli, const struct args *args)
{
    struct err err = ERR_INIT;

    for (size_t i = 0; i < args->words.count; i++) {
        struct spec spec, other;
        int r = spec_parse(args->words.at[i], &spec, &err);
        for (size_t j = 0; r == 0 && j < i; j++) {
            if (spec_parse(args->words.at[j], &other, &err) == 0 && is_same_place(&spec, &other))
                r = err_fail(&err, -EINVAL,
                             "%s and %s would be at the same place: give one of them a directory, "
                             "%s@DIR",
                             args->words.at[j], args->words.at[i], args->words.at[i]);
        }
        if (r < 0)
            return say_err(&err, r);
        int code = check_one(cli, &spec);
        if (code != CLI_DONE)
            return code;
        printf("%s%s%s", spec.cluster, *spec.cluster ? "/" : "", spec.name);
        if (spec.version)
            printf(":%" PRIu32, spec.version);
        printf("%s%s\n", spec.directory ? "@" : "", spec.directory ? spec.directory : "");
    }
    return finish_stdout(CLI_DONE);
}

/* ---- attach ---- */

struct job {
    struct items items;
    struct job_user user;
    struct attach_user owner, alone;
    struct job_serve serves[DATASTORES_MAX];
    char versions[DATASTORES_MAX][16];
    char run[80], text[HOLD_TEXT_MAX];
    bool is_users[DATASTORES_MAX]; /* served by the user */
};

static int id_option(const struct args *args, const char *name, uint32_t *ret)
{
    const char *text = args_text(args, name);
    char *end;

    errno = 0;
    unsigned long n = text && *text >= '0' && *text <= '9' ? strtoul(text, &end, 10) : ULONG_MAX;
    if (n >= UINT32_MAX || errno || *end)
        return say_usage(args->command, "%s needs a number", name);
    *ret = (uint32_t)n;
    return CLI_DONE;
}

/* From the user's own server. */
static int add_users(const struct args *args, struct job *job, size_t i, struct spec *spec)
{
    struct attach_item *item = &job->items.at[i];
    struct job_serve *s = &job->serves[i];
    int code = job_user_resolve(&job->user, spec);

    if (code != CLI_DONE)
        return code;
    (void)snprintf(job->items.serves[i].info.name, sizeof job->items.serves[i].info.name, "%s",
                   spec->name);
    job->items.groups[i].directory = spec->directory;
    code = items_target(args, &job->items, i);
    if (code != CLI_DONE)
        return code;
    job->is_users[i] = true;
    job->items.serves[i].mode = MODE_FUSE; /* there is nothing below it to step down to */
    s->user = &job->user;
    s->args = args;
    s->spec = *spec;
    s->require_lease = args_flag(args, "--require-lease");
    (void)snprintf(s->text, sizeof s->text, "%s", job->text);
    (void)snprintf(item->record.name, sizeof item->record.name, "%s", spec->name);
    (void)snprintf(item->record.cluster, sizeof item->record.cluster, "%s", spec->cluster);
    (void)snprintf(item->record.mode, sizeof item->record.mode, "fuse");
    (void)snprintf(item->record.run, sizeof item->record.run, "%s", job->run);
    (void)snprintf(item->record.holder, sizeof item->record.holder, "%s", job->text);
    item->record.version = spec->version;
    item->record.user = &job->alone;
    item->record.note = serve_note;
    item->target = job->items.targets[i];
    item->required = s->require_lease;
    item->serve = job_serve_run;
    item->serve_ctx = s;
    return CLI_DONE;
}

/* From root's, with the node's credentials. */
static int add_nodes(struct cli *cli, const struct args *args, struct job *job, size_t i,
                     const struct spec *spec, const struct reading *reading)
{
    struct asked *g = &job->items.groups[i];

    g->name = spec->name;
    g->directory = spec->directory;
    if (spec->version) {
        (void)snprintf(job->versions[i], sizeof job->versions[i], "%" PRIu32, spec->version);
        g->version = job->versions[i];
    }
    int code = items_resolve(cli, args, &job->items, i, reading, job->run, job->text);
    job->items.at[i].record.user = &job->owner;
    return code;
}

static int add(struct cli *cli, const struct args *args, struct job *job, size_t i)
{
    struct spec *spec = &job->serves[i].spec;
    struct reading reading = {0};
    struct err err = ERR_INIT;
    struct cli own = *cli;

    int r = spec_parse(args->words.at[i], spec, &err);
    if (r < 0)
        return say_err(&err, r);
    int code = reading_options(cli, args, &reading);
    if (code != CLI_DONE)
        return code;
    const struct cluster *cluster =
        *spec->cluster ? config_cluster(&cli->config, spec->cluster) : NULL;
    bool is_open = cluster && cluster->store && cluster_is_open_to(cluster, job->user.uid);
    job->items.count = i + 1;
    if (!is_open && job->user.uid != 0) {
        job->serves[i].reading = reading;
        job->serves[i].reading.mode = MODE_FUSE;
        return add_users(args, job, i, spec);
    }
    code = cli_use_cluster(&own, true, *spec->cluster ? spec->cluster : NULL);
    return code == CLI_DONE ? add_nodes(&own, args, job, i, spec, &reading) : code;
}

/* For the plugin: which servers shall count as the job's. */
static int print_server(void *ctx, const struct attach_record *r)
{
    const struct job *job = ctx;

    for (size_t i = 0; i < job->items.count; i++) {
        const struct attach_record *mine = &job->items.at[i].record;
        if (job->is_users[i] && strcmp(r->run, job->run) == 0 && strcmp(r->name, mine->name) == 0 &&
            r->version == mine->version)
            printf(" %d", (int)r->server);
    }
    return 0;
}

static int hold(struct job *job)
{
    struct pollfd p = {.fd = STDIN_FILENO, .events = POLLIN};
    struct err err = ERR_INIT;
    pid_t pid;
    int r;

    do {
        err_clear(&err);
        r = attach_hold_job(job->items.at, job->items.count, &pid, &err);
    } while (r == -EOPNOTSUPP && mode_step_down_all(&job->items, &err));
    if (r < 0)
        return say_err(&err, r);
    printf("ready %d", (int)pid);
    (void)attach_each(print_server, job, NULL); /* then they stay where they are */
    putchar('\n');
    int code = finish_stdout(CLI_DONE);
    if (code == CLI_DONE)
        (void)poll(&p, 1, ENTER_MS); /* the end, or too late */
    return code;                     /* and the one that holds it goes with us */
}

int cmd_slurm_attach(struct cli *cli, const struct args *args)
{
    AUTO(free_ptr) struct job *job = calloc(1, sizeof *job);
    const char *label = args_text(args, "--job");
    uint32_t uid = 0, gid = 0;

    if (!job)
        return say_failed("out of memory");
    if (geteuid() != 0)
        return say_failed("only root attaches for jobs of others: 'grid run' is for your own");
    if (id_option(args, "--uid", &uid) != CLI_DONE || id_option(args, "--gid", &gid) != CLI_DONE)
        return CLI_USAGE;
    if (!label || !name_is_valid(label))
        return say_usage(args->command, "--job names the job and its step");
    if (args->words.count > DATASTORES_MAX)
        return say_usage(args->command, "more than %d datastores", DATASTORES_MAX);
    int r = job_user_read(STDIN_FILENO, &job->user);
    if (r < 0)
        return say_failed("the job's environment cannot be read: %s", strerror(-r));
    const struct passwd *pw = getpwuid(uid);
    job->user.uid = job->owner.uid = job->alone.uid = uid;
    job->user.gid = job->owner.gid = job->alone.gid = gid;
    job->alone.alone = true;
    (void)snprintf(job->user.name, sizeof job->user.name, "%s", pw ? pw->pw_name : "");
    (void)snprintf(job->run, sizeof job->run, "job-%s", label);
    (void)snprintf(job->text, sizeof job->text, "Slurm job %s of %s", label,
                   pw ? pw->pw_name : "a user without a name");
    struct cli own = {.commands = cli->commands};
    if (uid == 0) { /* root's own job sees what root's shell sees */
        job_user_environment(&job->user);
        r = cli_read_config(&own);
        cli = &own;
    }
    int code = r;
    for (size_t i = 0; code == CLI_DONE && i < args->words.count; i++)
        code = add(cli, args, job, i);
    if (code == CLI_DONE)
        code = hold(job);
    for (size_t i = 0; i < job->items.count; i++)
        serve_release(&job->items.serves[i]);
    free(job->user.environment);
    config_release(&own.config);
    places_release(&own.places);
    return code;
}

/* ---- settle ---- */

/* Each hierarchy of version 1 is mounted under its controllers' names, version 2 at the top or,
 * beside version 1, below "unified". */
static bool join_group(const char *controllers, const char *path, const char *pid)
{
    static const char *const tops[] = {"/sys/fs/cgroup", "/sys/fs/cgroup/unified"};
    char file[PATH_MAX];
    bool is_done = false;

    if (strncmp(controllers, "name=", 5) == 0)
        controllers += 5;
    for (size_t i = 0; !is_done && i < 2; i++) {
        int n = *controllers ? snprintf(file, sizeof file, "%s/%s%s/cgroup.procs", tops[0],
                                        controllers, path)
                             : snprintf(file, sizeof file, "%s%s/cgroup.procs", tops[i], path);
        AUTO(close_fd)
        int fd = n < 0 || n >= (int)sizeof file ? -1 : open(file, O_WRONLY | O_CLOEXEC | O_NOCTTY);
        is_done = fd >= 0 && file_write(fd, pid, strlen(pid)) == 0;
        if (*controllers)
            break;
    }
    return is_done;
}

/* Into all groups of `task`. */
static int settle(const char *task, const char *pid)
{
    char name[64], *save = NULL;
    AUTO(buf_release) struct buf text = BUF_INIT(65536);
    bool is_done = true;

    (void)snprintf(name, sizeof name, "/proc/%.20s/cgroup", task);
    if (file_slurp(AT_FDCWD, name, &text) < 0)
        return say_failed("process %s is gone", task);
    for (char *line = strtok_r((char *)buf_text(&text), "\n", &save); line;
         line = strtok_r(NULL, "\n", &save)) {
        char *controllers = strchr(line, ':');
        char *path = controllers ? strchr(controllers + 1, ':') : NULL;
        if (!path)
            continue;
        *path++ = '\0';
        is_done &= join_group(controllers + 1, path, pid);
    }
    return is_done ? CLI_DONE : say_failed("process %s cannot be moved into the job's groups", pid);
}

static int settle_children(const char *task, const char *server)
{
    char name[96], *save = NULL;
    AUTO(buf_release) struct buf text = BUF_INIT(65536);
    int code = CLI_DONE;

    (void)snprintf(name, sizeof name, "/proc/%.20s/task/%.20s/children", server, server);
    if (file_slurp(AT_FDCWD, name, &text) < 0)
        return CLI_DONE; /* it has ended */
    for (char *pid = strtok_r((char *)buf_text(&text), " \n", &save); pid && code == CLI_DONE;
         pid = strtok_r(NULL, " \n", &save))
        code = settle(task, pid);
    return code;
}

int cmd_slurm_settle(struct cli *cli, const struct args *args)
{
    int code = CLI_DONE;

    for (size_t i = 0; i < args->words.count; i++) {
        if (strspn(args->words.at[i], "0123456789") != strlen(args->words.at[i]))
            return say_usage(args->command, "'%s' is no process", args->words.at[i]);
    }
    for (size_t i = 1; code == CLI_DONE && i < args->words.count; i++) {
        code = settle(args->words.at[0], args->words.at[i]);
        if (code == CLI_DONE)
            code = settle_children(args->words.at[0], args->words.at[i]);
    }
    return code;
}
