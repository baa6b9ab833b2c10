/* SPDX-License-Identifier: Apache-2.0 */
/*
 * As the user of a job: what that user's own credentials and configuration do not open, the job
 * does not get. Every store is opened, and every byte of it parsed, in a process that has given up
 * root for good.
 */
#include "cli/slurm.h"

#include "base/file.h"
#include "base/log.h"
#include "supervise/supervise.h"

#include <fcntl.h>
#include <grp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

/* Linux gives a program no more than a quarter of its stack's limit; nobody has this much. */
#define ENVIRONMENT_MAX (16u << 20)

int job_user_read(int fd, struct job_user *user)
{
    AUTO(buf_release) struct buf b = BUF_INIT(ENVIRONMENT_MAX);
    char piece[4096];
    ssize_t n;

    /* The end is an empty string; the peer keeps the socket open to say when it is done. */
    while (b.size < 1 ||
           (b.size == 1 ? b.data[0] != 0 : b.data[b.size - 1] || b.data[b.size - 2])) {
        n = read(fd, piece, sizeof piece);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n < 0 ? -errno : -EPROTO;
        int r = buf_append(&b, piece, (size_t)n);
        if (r < 0)
            return r;
    }
    user->environment = malloc(b.size);
    if (!user->environment)
        return -ENOMEM;
    memcpy(user->environment, b.data, b.size);
    return 0;
}

void job_user_environment(const struct job_user *user)
{
    (void)clearenv(); /* cannot fail here */
    for (char *s = user->environment; *s; s += strlen(s) + 1) {
        if (strchr(s, '='))
            (void)putenv(s); /* without memory a variable is missing, and a sentence follows */
    }
}

int job_user_become(const struct job_user *user)
{
    if (geteuid() == 0) {
        int r = user->name[0] ? initgroups(user->name, user->gid) : setgroups(1, &user->gid);
        if (r < 0 || setresgid(user->gid, user->gid, user->gid) < 0 ||
            setresuid(user->uid, user->uid, user->uid) < 0)
            return -errno;
    }
    if (getuid() != user->uid || geteuid() != user->uid || getegid() != user->gid ||
        (user->uid != 0 && setuid(0) == 0))
        return -EPERM;
    job_user_environment(user);
    return 0;
}

static int begin(struct cli *cli, const struct spec *spec)
{
    int code = cli_read_config(cli);

    return code == CLI_DONE ? cli_use_cluster(cli, true, *spec->cluster ? spec->cluster : NULL)
                            : code;
}

static int format_reference(const struct spec *spec, char ret[static 96])
{
    if (spec->version)
        return snprintf(ret, 96, "%s:%u", spec->name, (unsigned)spec->version);
    return snprintf(ret, 96, "%s", spec->name);
}

/* ---- resolving ---- */

struct resolved {
    uint32_t version;
    char cluster[64];
};

static int resolve_here(const struct job_user *user, const struct spec *spec, int fd)
{
    AUTO(opened_release) struct opened o = {0};
    struct cli cli = {.commands = NULL};
    struct resolved found = {.version = 0};
    char reference[96];
    int r = job_user_become(user);

    if (r < 0)
        return say_failed("cannot become the user of the job: %s", strerror(-r));
    (void)format_reference(spec, reference); /* fits */
    int code = begin(&cli, spec);
    if (code == CLI_DONE)
        code = open_view(&cli, reference, false, &o); /* damage shows before the job starts */
    if (code != CLI_DONE)
        return code;
    found.version = o.info.version;
    (void)snprintf(found.cluster, sizeof found.cluster, "%s", cli.cluster);
    return file_write(fd, &found, sizeof found) < 0 ? CLI_FAILED : CLI_DONE;
}

int job_user_resolve(const struct job_user *user, struct spec *spec)
{
    struct resolved found;
    int fds[2], status;

    if (pipe2(fds, O_CLOEXEC) < 0)
        return say_failed("cannot make a pipe: %s", strerror(errno));
    AUTO(close_fd) int ours = fds[0];
    AUTO(close_fd) int theirs = fds[1];
    pid_t pid = fork();
    if (pid < 0)
        return say_failed("cannot start a process: %s", strerror(errno));
    if (pid == 0)
        _exit(resolve_here(user, spec, theirs));
    (void)close(take_fd(&theirs));
    ssize_t n = file_read(ours, &found, sizeof found);
    while (waitpid(pid, &status, 0) < 0) {
        if (errno != EINTR)
            return say_failed("cannot wait for a process: %s", strerror(errno));
    }
    if (!WIFEXITED(status) || WEXITSTATUS(status) != CLI_DONE || n != (ssize_t)sizeof found)
        return CLI_FAILED; /* it has said why */
    spec->version = found.version;
    found.cluster[sizeof found.cluster - 1] = '\0';
    (void)snprintf(spec->cluster, sizeof spec->cluster, "%s", found.cluster);
    return CLI_DONE;
}

/* ---- serving ---- */

int job_serve_run(void *ctx, struct supervise_child *child)
{
    const struct job_serve *s = ctx;
    struct cli cli = {.commands = NULL};
    AUTO(serve_release) struct serve serve = {0};
    struct attach_record record = {.version = 0};
    struct reading reading = s->reading;
    char reference[96];
    int r = job_user_become(s->user);

    if (r < 0) {
        supervise_failed(child, r, "cannot become the user of the job");
        return CLI_FAILED;
    }
    (void)format_reference(&s->spec, reference); /* fits */
    int code = begin(&cli, &s->spec);
    if (code == CLI_DONE)
        code = cache_place_choose(&cli, s->args, &reading.cache);
    if (code == CLI_DONE)
        code = serve_prepare(&cli, reference, 0, &reading, &serve, &record);
    if (code != CLI_DONE) {
        supervise_failed(child, -EIO, "the datastore cannot be opened any more; the log has why");
        return code;
    }
    (void)snprintf(serve.text, sizeof serve.text, "%s", s->text);
    serve.require_lease = s->require_lease;
    code = serve_run(&serve, child);
    attach_protection_forget(getppid()); /* in the user's runtime directory */
    return code;
}
