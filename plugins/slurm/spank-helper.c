/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Starting `grid`, and talking to it: bytes through pipes, all within one deadline. What it is
 * given (a job's environment, which may hold credentials) goes through a socket, never through
 * arguments, and into no log.
 */
#include "spank-grid.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define STEP_MS       20
#define SIGNALS_COUNT 32
/* Where close_range(2) is missing: what programs of Slurm have open at most. */
#define FD_MAX 4096

int64_t now_ms(void)
{
    struct timespec t;

    (void)clock_gettime(CLOCK_MONOTONIC, &t); /* cannot fail */
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static void close_pair(const int pair[2])
{
    for (int i = 0; i < 2; i++) {
        if (pair[i] >= 0)
            (void)close(pair[i]); /* pipes and sockets: nothing to lose */
    }
}

/* In the new process: nothing of the daemon's gets into the program. */
static _Noreturn void become(char *const argv[], const char *const environment[], int in, int out,
                             int err)
{
    sigset_t none;

    (void)sigemptyset(&none); /* valid arguments, all of them */
    for (int i = 1; i < SIGNALS_COUNT; i++)
        (void)signal(i, SIG_DFL); /* not those two */
    (void)sigprocmask(SIG_SETMASK, &none, NULL);
    if (environment && (setgroups(0, NULL) < 0 || setresgid(0, 0, 0) < 0 ||
                        setresuid(0, 0, 0) < 0 || chdir("/") < 0))
        _exit(126);
    if (environment)
        (void)umask(022);
    /* Above what is about to be replaced. */
    int fds[3] = {in, out, err};
    for (int i = 0; i < 3; i++) {
        fds[i] = fcntl(fds[i], F_DUPFD, 10);
        if (fds[i] < 0)
            _exit(126);
    }
    for (int i = 0; i < 3; i++) {
        if (dup2(fds[i], i) < 0)
            _exit(126);
    }
    if (syscall(SYS_close_range, 3u, ~0u, 0u) < 0) {
        for (int fd = 3; fd < FD_MAX; fd++)
            (void)close(fd); /* most are none */
    }
    if (environment)
        (void)execve(settings.grid, argv, (char *const *)environment);
    else
        (void)execv(settings.grid, argv);
    static const char sentence[] = "grid: the program cannot be run; see grid= in plugstack.conf\n";
    (void)!write(2, sentence, sizeof sentence - 1); /* nobody else is left to tell */
    _exit(127);
}

int helper_start(struct helper *h, char *const argv[], const char *const environment[])
{
    int in[2] = {-1, -1}, out[2] = {-1, -1}, err[2] = {-1, -1};
    bool is_roots = environment != NULL;
    int null_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);

    *h = (struct helper){.pid = -1,
                         .in = -1,
                         .out = -1,
                         .err = -1,
                         .deadline = now_ms() + (int64_t)settings.timeout_s * 1000};
    if (null_fd < 0 || pipe2(out, O_CLOEXEC) < 0 ||
        (is_roots &&
         (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, in) < 0 || pipe2(err, O_CLOEXEC) < 0)))
        goto failed;
    h->pid = fork();
    if (h->pid < 0)
        goto failed;
    if (h->pid == 0)
        become(argv, environment, is_roots ? in[1] : null_fd, out[1], is_roots ? err[1] : 2);
    h->in = in[0];
    h->out = out[0];
    h->err = err[0];
    in[0] = out[0] = err[0] = -1;
    close_pair(in);
    close_pair(out);
    close_pair(err);
    (void)close(null_fd);
    return 0;
failed:;
    int saved = errno;
    close_pair(in);
    close_pair(out);
    close_pair(err);
    if (null_fd >= 0)
        (void)close(null_fd);
    errno = saved;
    return -1;
}

/* Append what is there. -1: the end, or it does not fit. */
static int take(int fd, char *text, size_t size, size_t *at, bool *ret_full)
{
    char rest[512];
    bool full = *at + 1 >= size;
    ssize_t n = full ? read(fd, rest, sizeof rest) : read(fd, text + *at, size - 1 - *at);

    if (n < 0)
        return errno == EINTR || errno == EAGAIN ? 0 : -1;
    if (n > 0 && full)
        *ret_full = true;
    else
        *at += (size_t)n;
    text[*at] = '\0';
    return n == 0 ? -1 : 0;
}

bool helper_talk(struct helper *h, const char *input, size_t input_size, bool one_line,
                 char *output, size_t output_size, char *said, size_t said_size)
{
    size_t sent = 0, got = 0, heard = 0;
    bool is_full = false, is_cut = false;
    struct pollfd p[3] = {{.fd = h->out, .events = POLLIN},
                          {.fd = h->err, .events = POLLIN},
                          {.fd = input_size ? h->in : -1, .events = POLLOUT}};

    output[0] = said[0] = '\0';
    while (p[0].fd >= 0 || p[1].fd >= 0) {
        int64_t left = h->deadline - now_ms();
        if (left <= 0)
            return false;
        if (poll(p, 3, (int)left) < 0 && errno != EINTR)
            return false;
        if (p[2].fd >= 0 && p[2].revents) {
            ssize_t n = send(h->in, input + sent, input_size - sent, MSG_NOSIGNAL | MSG_DONTWAIT);
            if (n > 0)
                sent += (size_t)n;
            if (sent == input_size || (n < 0 && errno != EAGAIN && errno != EINTR))
                p[2].fd = -1;
        }
        if (p[1].fd >= 0 && p[1].revents && take(p[1].fd, said, said_size, &heard, &is_cut) < 0)
            p[1].fd = -1;
        if (p[0].fd >= 0 && p[0].revents && take(p[0].fd, output, output_size, &got, &is_full) < 0)
            p[0].fd = -1;
        if (is_full)
            return false;
        if (one_line && strchr(output, '\n'))
            return true;
    }
    return !one_line || strchr(output, '\n') != NULL;
}

int helper_end(struct helper *h)
{
    int status = 0;
    pid_t done;

    if (h->in >= 0)
        (void)close(h->in); /* tells it that we have what we want */
    if (h->out >= 0)
        (void)close(h->out);
    if (h->err >= 0)
        (void)close(h->err);
    h->in = h->out = h->err = -1;
    while ((done = waitpid(h->pid, &status, WNOHANG)) == 0 || (done < 0 && errno == EINTR)) {
        if (now_ms() >= h->deadline) {
            (void)kill(h->pid, SIGKILL); /* ours, not waited for yet */
            (void)waitpid(h->pid, &status, 0);
            return -1;
        }
        (void)poll(NULL, 0, STEP_MS);
    }
    return done > 0 && WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}
