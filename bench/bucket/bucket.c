/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The loop: connections, their timers, and the bytes.
 *
 *   bucket [--delay-ms N] [--rate-mb N] [--port N] [--log FILE] ROOT
 *
 * Prints its port, serves until its standard input ends, then says how many requests there were and
 * how many bytes went out, as JSON. `--delay-ms` holds each answer back; `--rate-mb` is what one
 * connection may carry in a second, in pieces of 64 KiB. `--log` writes a line for each request
 * that was answered: when it had come and when its answer had gone, in microseconds, method and
 * target: bench/scenarios/rounds.py tells from it which requests waited for which.
 */
#include "bucket.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define CONNECTIONS_MAX 4096u
#define PIECE           (64u << 10)
#define EVENTS          64

enum phase { PHASE_HEAD, PHASE_BODY, PHASE_DELAY, PHASE_SEND };

struct connection {
    int fd;
    enum phase phase;
    char head[BUCKET_HEAD_MAX + 1];
    size_t head_size; /* received, the beginning of a body among it */
    struct request request;
    struct target target;
    uint64_t body_got;
    struct answer answer;
    size_t sent_head;
    int64_t wake_ns;  /* when its timer runs out; 0: it has none */
    int64_t ready_ns; /* when the rate allows the next piece */
    int64_t came_ns;  /* when the request's head was whole */
    size_t timer;     /* position in the heap */
};

static struct {
    int epoll_fd, listen_fd;
    int64_t delay_ns;
    double piece_ns; /* how long PIECE takes on one connection; 0: no limit */
    struct connection *timers[CONNECTIONS_MAX];
    size_t timer_count;
    uint64_t requests, lists, bytes_out;
    unsigned connections;
    FILE *log; /* NULL: none */
} server;

static int64_t now_ns(void)
{
    struct timespec t;

    (void)clock_gettime(CLOCK_MONOTONIC, &t); /* exists */
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* ---- timers: a heap, the next one first ---- */

static void heap_set(size_t i, struct connection *c)
{
    server.timers[i] = c;
    c->timer = i;
}

static void heap_up(size_t i)
{
    struct connection *c = server.timers[i];

    for (; i > 0 && server.timers[(i - 1) / 2]->wake_ns > c->wake_ns; i = (i - 1) / 2)
        heap_set(i, server.timers[(i - 1) / 2]);
    heap_set(i, c);
}

static void heap_down(size_t i)
{
    struct connection *c = server.timers[i];

    for (;;) {
        size_t child = 2 * i + 1;
        if (child >= server.timer_count)
            break;
        if (child + 1 < server.timer_count &&
            server.timers[child + 1]->wake_ns < server.timers[child]->wake_ns)
            child++;
        if (server.timers[child]->wake_ns >= c->wake_ns)
            break;
        heap_set(i, server.timers[child]);
        i = child;
    }
    heap_set(i, c);
}

static void timer_start(struct connection *c, int64_t at_ns)
{
    c->wake_ns = at_ns;
    heap_set(server.timer_count++, c);
    heap_up(server.timer_count - 1);
}

static void timer_stop(struct connection *c)
{
    if (!c->wake_ns)
        return;
    c->wake_ns = 0;
    struct connection *last = server.timers[--server.timer_count];
    if (last == c)
        return;
    heap_set(c->timer, last);
    heap_up(last->timer);
    heap_down(last->timer);
}

/* ---- connections ---- */

static void drop(struct connection *c)
{
    timer_stop(c);
    if (c->target.owned && c->target.fd >= 0)
        (void)close(c->target.fd);
    if (c->answer.fd >= 0)
        (void)close(c->answer.fd);
    buf_release(&c->answer.head);
    (void)close(c->fd); /* the kernel forgets its events with it */
    free(c);
    server.connections--;
}

static void watch(struct connection *c, uint32_t events)
{
    struct epoll_event e = {.events = events, .data.ptr = c};

    (void)epoll_ctl(server.epoll_fd, EPOLL_CTL_MOD, c->fd, &e); /* it is there */
}

static bool step(struct connection *c);

/* The body has come. */
static bool answer(struct connection *c)
{
    if (c->target.owned && c->target.fd >= 0)
        (void)close(c->target.fd);
    answer_make(&c->request, &c->target, &c->answer);
    c->target = (struct target){.fd = -1};
    server.requests++;
    server.lists += !strchr(c->request.path + 1, '/');
    c->sent_head = 0;
    c->phase = PHASE_SEND;
    if (!server.delay_ns)
        return true;
    c->phase = PHASE_DELAY;
    watch(c, 0);
    timer_start(c, now_ns() + server.delay_ns);
    return true;
}

static bool keep_body(struct connection *c, const char *data, size_t size)
{
    if (c->target.fd >= 0 &&
        pwrite(c->target.fd, data, size, c->target.offset + (off_t)c->body_got) != (ssize_t)size)
        return false;
    c->body_got += size;
    return true;
}

static bool take_head(struct connection *c)
{
    ssize_t n = recv(c->fd, c->head + c->head_size, BUCKET_HEAD_MAX - c->head_size, MSG_DONTWAIT);

    if (n <= 0)
        return n < 0 && errno == EAGAIN;
    c->head_size += (size_t)n;
    c->head[c->head_size] = '\0';
    char *end = strstr(c->head, "\r\n\r\n");
    if (!end)
        return c->head_size < BUCKET_HEAD_MAX;
    *end = '\0';
    size_t rest = c->head_size - (size_t)(end + 4 - c->head);
    c->came_ns = now_ns();
    if (request_parse(c->head, &c->request) < 0 || rest > c->request.length)
        return false; /* nobody sends the next request before the answer */
    target_open(&c->request, &c->target);
    c->body_got = 0;
    c->head_size = 0;
    if (c->request.expects && rest < c->request.length &&
        send(c->fd, "HTTP/1.1 100 Continue\r\n\r\n", 25, MSG_NOSIGNAL) != 25)
        return false;
    if (!keep_body(c, end + 4, rest))
        return false;
    c->phase = PHASE_BODY;
    return step(c);
}

static bool take_body(struct connection *c)
{
    static char piece[4 * PIECE];

    while (c->body_got < c->request.length) {
        uint64_t left = c->request.length - c->body_got;
        ssize_t n =
            recv(c->fd, piece, left < sizeof piece ? (size_t)left : sizeof piece, MSG_DONTWAIT);
        if (n <= 0)
            return n < 0 && errno == EAGAIN;
        if (!keep_body(c, piece, (size_t)n))
            return false;
        if (server.piece_ns > 0) {
            int64_t now = now_ns();
            c->ready_ns = (c->ready_ns > now ? c->ready_ns : now) +
                          (int64_t)(server.piece_ns * (double)n / PIECE);
            if (c->ready_ns > now + (int64_t)server.piece_ns) {
                watch(c, 0);
                timer_start(c, c->ready_ns);
                return true;
            }
        }
    }
    return answer(c) && (c->phase == PHASE_DELAY || step(c));
}

static bool send_piece(struct connection *c)
{
    struct answer *a = &c->answer;

    if (c->sent_head < a->head.size) {
        ssize_t n = send(c->fd, a->head.data + c->sent_head, a->head.size - c->sent_head,
                         MSG_DONTWAIT | MSG_NOSIGNAL | (a->size ? MSG_MORE : 0));
        if (n < 0)
            return errno == EAGAIN;
        c->sent_head += (size_t)n;
        server.bytes_out += (uint64_t)n;
        return true;
    }
    off_t from = (off_t)a->from;
    size_t most = server.piece_ns > 0 ? PIECE : 4 * PIECE;
    ssize_t n = sendfile(c->fd, a->fd, &from, a->size < most ? (size_t)a->size : most);
    if (n <= 0)
        return n < 0 && errno == EAGAIN;
    a->from += (uint64_t)n;
    a->size -= (uint64_t)n;
    server.bytes_out += (uint64_t)n;
    if (server.piece_ns > 0) {
        int64_t now = now_ns();
        c->ready_ns = (c->ready_ns > now ? c->ready_ns : now) +
                      (int64_t)(server.piece_ns * (double)n / PIECE);
    }
    return true;
}

static void log_request(const struct connection *c)
{
    const struct request *q = &c->request;

    if (!server.log)
        return;
    (void)fprintf(server.log, "%" PRId64 " %" PRId64 " %s %s%s%s", c->came_ns / 1000,
                  now_ns() / 1000, q->method, q->path, *q->query ? "?" : "", q->query);
    if (q->ranged)
        (void)fprintf(server.log, " %" PRIu64 "-%" PRIu64, q->from, q->to);
    (void)fputc('\n', server.log);
    (void)fflush(server.log); /* a log that is not written is missed by whoever reads it */
}

static bool send_answer(struct connection *c)
{
    while (c->sent_head < c->answer.head.size || c->answer.size > 0) {
        int64_t now = server.piece_ns > 0 ? now_ns() : 0;
        if (server.piece_ns > 0 && c->ready_ns > now + (int64_t)server.piece_ns) {
            watch(c, 0);
            timer_start(c, c->ready_ns - (int64_t)server.piece_ns);
            return true;
        }
        size_t before = c->sent_head;
        uint64_t size = c->answer.size;
        if (!send_piece(c))
            return false;
        if (before == c->sent_head && size == c->answer.size) {
            watch(c, EPOLLOUT);
            return true;
        }
    }
    if (c->answer.fd >= 0)
        (void)close(c->answer.fd);
    c->answer.fd = -1;
    c->phase = PHASE_HEAD;
    log_request(c);
    watch(c, EPOLLIN);
    return true;
}

/* What can be done now. False: the connection is at its end. */
static bool step(struct connection *c)
{
    switch (c->phase) {
    case PHASE_HEAD:
        return take_head(c);
    case PHASE_BODY:
        return take_body(c);
    case PHASE_DELAY:
    case PHASE_SEND:
        return send_answer(c);
    }
    return false;
}

static void accept_one(void)
{
    int fd = accept4(server.listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC), on = 1;
    struct connection *c = fd >= 0 ? calloc(1, sizeof *c) : NULL;

    if (!c || server.connections == CONNECTIONS_MAX) {
        if (fd >= 0)
            (void)close(fd);
        free(c);
        return;
    }
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on); /* only speed */
    c->fd = fd;
    c->answer.fd = c->target.fd = -1;
    c->answer.head = (struct buf)BUF_INIT(2 * BUCKET_XML_MAX);
    struct epoll_event e = {.events = EPOLLIN, .data.ptr = c};
    server.connections++;
    if (epoll_ctl(server.epoll_fd, EPOLL_CTL_ADD, fd, &e) < 0)
        drop(c);
}

static void run_timers(void)
{
    int64_t now = now_ns();

    while (server.timer_count && server.timers[0]->wake_ns <= now) {
        struct connection *c = server.timers[0];
        timer_stop(c);
        if (c->phase == PHASE_DELAY)
            c->phase = PHASE_SEND;
        if (c->phase == PHASE_BODY)
            watch(c, EPOLLIN);
        if (!step(c))
            drop(c);
    }
}

static void serve(void)
{
    struct epoll_event events[EVENTS];

    for (;;) {
        struct timespec left = {0}, *wait = NULL;
        if (server.timer_count) {
            int64_t ns = server.timers[0]->wake_ns - now_ns();
            ns = ns > 0 ? ns : 0;
            left = (struct timespec){ns / 1000000000, ns % 1000000000};
            wait = &left;
        }
        int n = epoll_pwait2(server.epoll_fd, events, EVENTS, wait, NULL);
        for (int i = 0; i < n; i++) {
            struct connection *c = events[i].data.ptr;
            char byte;
            if (c == (void *)&server.listen_fd)
                accept_one();
            else if (c == NULL) {
                if (read(0, &byte, 1) <= 0)
                    return;
            } else if (c->wake_ns == 0 && !step(c))
                drop(c);
            else if (c->wake_ns && (events[i].events & (EPOLLHUP | EPOLLERR)))
                drop(c);
        }
        run_timers();
    }
}

static int listen_on(unsigned port)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    socklen_t size = sizeof a;
    int on = 1;

    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    server.listen_fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    (void)setsockopt(server.listen_fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on); /* bind tells */
    if (bind(server.listen_fd, (struct sockaddr *)&a, sizeof a) < 0 ||
        listen(server.listen_fd, 1024) < 0 ||
        getsockname(server.listen_fd, (struct sockaddr *)&a, &size) < 0)
        return -errno;
    return ntohs(a.sin_port);
}

int main(int argc, char **argv)
{
    unsigned port = 0;
    double rate = 0;
    const char *log = NULL;
    int i = 1;

    for (; i + 1 < argc && argv[i][0] == '-'; i += 2) {
        if (strcmp(argv[i], "--delay-ms") == 0)
            server.delay_ns = (int64_t)(strtod(argv[i + 1], NULL) * 1e6);
        else if (strcmp(argv[i], "--rate-mb") == 0)
            rate = strtod(argv[i + 1], NULL);
        else if (strcmp(argv[i], "--port") == 0)
            port = (unsigned)strtoul(argv[i + 1], NULL, 10);
        else if (strcmp(argv[i], "--log") == 0)
            log = argv[i + 1];
        else
            break;
    }
    if (i + 1 != argc) {
        (void)fprintf(stderr,
                      "usage: bucket [--delay-ms N] [--rate-mb N] [--port N] [--log FILE] ROOT\n");
        return 2;
    }
    if (log && !(server.log = fopen(log, "we"))) {
        (void)fprintf(stderr, "bucket: %s: %s\n", log, strerror(errno));
        return 1;
    }
    server.piece_ns = rate > 0 ? PIECE / rate * 1000 : 0;
    int r = objects_load(argv[i]);
    int bound = r < 0 ? r : listen_on(port);
    if (bound < 0) {
        (void)fprintf(stderr, "bucket: %s: %s\n", argv[i], strerror(-bound));
        return 1;
    }
    server.epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event in = {.events = EPOLLIN, .data.ptr = NULL};
    struct epoll_event come = {.events = EPOLLIN, .data.ptr = &server.listen_fd};
    (void)signal(SIGPIPE, SIG_IGN); /* a valid signal */
    if (epoll_ctl(server.epoll_fd, EPOLL_CTL_ADD, 0, &in) < 0 ||
        epoll_ctl(server.epoll_fd, EPOLL_CTL_ADD, server.listen_fd, &come) < 0) {
        (void)fprintf(stderr, "bucket: %s\n", strerror(errno));
        return 1;
    }
    (void)printf("%d\n", bound);
    (void)fflush(stdout);
    serve();
    struct rusage u;
    (void)getrusage(RUSAGE_SELF, &u); /* valid arguments */
    (void)printf("{\"requests\": %" PRIu64 ", \"lists\": %" PRIu64 ", \"bytes_out\": %" PRIu64
                 ", \"cpu_s\": %.3f}\n",
                 server.requests, server.lists, server.bytes_out,
                 (double)u.ru_utime.tv_sec + (double)u.ru_utime.tv_usec / 1e6 +
                     (double)u.ru_stime.tv_sec + (double)u.ru_stime.tv_usec / 1e6);
    return 0;
}
