/* SPDX-License-Identifier: Apache-2.0 */
/*
 * credential_process of a profile: a program that prints credentials as JSON.
 *
 * Its words are split as a shell would, without a shell: quotes and backslashes, nothing else. What
 * it prints is bounded in size and time, and never shown; its stderr is the user's.
 */
#include "s3/s3-credential-internal.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <sys/wait.h>

#define WORDS_MAX   64u
#define OUTPUT_MAX  (64u << 10)
#define PATIENCE_MS 60000 /* it may ask somebody for a second factor */

extern char **environ;

/* In place: `text` becomes the words. -EINVAL: an open quote, or too many words. */
static int split(char *text, char **words)
{
    size_t count = 0;
    char *to = text;

    for (char *p = text; *p;) {
        while (*p == ' ' || *p == '\t')
            p++;
        if (!*p)
            break;
        if (count + 1 >= WORDS_MAX)
            return -EINVAL;
        words[count++] = to;
        char quote = 0;
        while (*p && (quote || (*p != ' ' && *p != '\t'))) {
            if (!quote && (*p == '"' || *p == '\'')) {
                quote = *p++;
            } else if (quote && *p == quote) {
                quote = 0;
                p++;
            } else {
                if (*p == '\\' && quote != '\'' && p[1])
                    p++;
                *to++ = *p++;
            }
        }
        if (quote)
            return -EINVAL;
        bool more = *p;
        *to++ = '\0';
        p += more;
    }
    words[count] = NULL;
    return count ? 0 : -EINVAL;
}

static int start(char **words, pid_t *ret_pid, int *ret_fd)
{
    int fds[2];
    posix_spawn_file_actions_t actions;

    if (pipe2(fds, O_CLOEXEC) < 0)
        return -errno;
    int r = posix_spawn_file_actions_init(&actions);
    if (r == 0) {
        r = posix_spawn_file_actions_adddup2(&actions, fds[1], 1);
        if (r == 0)
            r = posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
        if (r == 0)
            r = posix_spawnp(ret_pid, words[0], &actions, NULL, words, environ);
        (void)posix_spawn_file_actions_destroy(&actions); /* only frees memory */
    }
    (void)close(fds[1]); /* a pipe: nothing to lose */
    if (r != 0) {
        (void)close(fds[0]);
        return -r;
    }
    *ret_fd = fds[0];
    return 0;
}

static int read_output(struct env *env, int fd, struct buf *out)
{
    int64_t end = env->boot_ms(env) + PATIENCE_MS;
    char piece[4096];

    for (;;) {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        int64_t rest = end - env->boot_ms(env);
        int r = rest > 0 ? poll(&p, 1, (int)rest) : 0;
        if (r < 0 && errno == EINTR)
            continue;
        if (r <= 0)
            return r < 0 ? -errno : -ETIMEDOUT;
        ssize_t n = read(fd, piece, sizeof piece);
        if (n == 0)
            return 0;
        if (n < 0)
            return -errno;
        r = buf_append(out, piece, (size_t)n);
        explicit_bzero(piece, sizeof piece);
        if (r < 0)
            return r;
    }
}

static int run(struct env *env, char **words, struct buf *out)
{
    AUTO(close_fd) int fd = -1;
    pid_t pid = -1;
    int status = 0;

    int r = start(words, &pid, &fd);
    if (r < 0)
        return r;
    r = read_output(env, fd, out);
    if (r < 0 && pid > 0)
        (void)kill(pid, SIGKILL); /* ours, and not waited for yet */
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        continue;
    if (r == 0 && (!WIFEXITED(status) || WEXITSTATUS(status) != 0))
        r = -EACCES;
    return r;
}

int s3_credential_process(struct s3_credentials *k, const struct s3_profile *p,
                          struct s3_credential *ret, struct err *err)
{
    AUTO(buf_release) struct buf out = BUF_INIT(OUTPUT_MAX);
    const char *command = s3_profile_get(p, "credential_process");
    char *words[WORDS_MAX], source[256];

    if (!command)
        return -ENOENT;
    AUTO(free_ptr) char *copy = strdup(command);
    if (!copy)
        return err_fail(err, -ENOMEM, "out of memory");
    (void)snprintf(source, sizeof source, "the credential_process of profile \"%.200s\"", p->name);
    if (split(copy, words) < 0)
        return err_fail(err, -EACCES, "%s is not a command", source);
    int r = run(k->env, words, &out);
    if (r == 0)
        r = s3_credential_parse_json(buf_bytes(&out), "SessionToken", source, ret, err);
    else
        r = err_fail(err, -EACCES, "%s failed%s", source,
                     r == -ETIMEDOUT ? ": it took too long"
                     : r == -ENOENT  ? ": there is no such program"
                                     : "");
    if (out.data)
        explicit_bzero(out.data, out.size);
    return r;
}
