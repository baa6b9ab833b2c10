/* SPDX-License-Identifier: Apache-2.0 */
/*
 * HTTP against a server of a few lines, which answers with exactly the bytes that a test wants.
 *
 * The path says what comes: see `pages`. Each connection has a thread. TLS is tried against
 * `openssl s_server` with a certificate made for it.
 */
#include "http/http.h"

#include "base/file.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include <cmocka.h>

#define BIG_SIZE (20u << 20)

static struct {
    int fd;
    unsigned port;
    pthread_t thread;
    _Atomic unsigned connections, requests, posts;
    pthread_mutex_t lock;
    char last_head[8192]; /* of the request before; read when nothing is under way */
} server = {.lock = PTHREAD_MUTEX_INITIALIZER};

static struct http *http;

struct page {
    const char *path;
    const char *answer; /* all of it */
    bool closes;        /* hang up behind it */
};

static const struct page pages[] = {
    {"/plain", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-Odd-Name:  some value \r\n\r\nhello",
     false},
    {"/empty", "HTTP/1.1 204 No Content\r\n\r\n", false},
    {"/short", "HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nhello", true},
    {"/endless", "HTTP/1.1 200 OK\r\n\r\nno length, ends with the connection", true},
    {"/chunked", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
     false},
    {"/chunk-cut", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel", true},
    {"/nothing", "", true},
    {"/garbage", "\x01\x02\x03 nothing of HTTP\r\n\r\n", true},
    {"/moved",
     "HTTP/1.1 302 Found\r\nLocation: http://other.example/x\r\nContent-Length: 0\r\n\r\n", false},
    {"/gzip", "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 5\r\n\r\nhello", false},
    {"/two-lengths", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
     true},
    {"/continue",
     "HTTP/1.1 100 Continue\r\nX-A: 1\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
     false},
    {"/missing", "HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\n\r\nnone", false},
};

static void send_all(int fd, const void *data, size_t size)
{
    const char *at = data;

    while (size > 0) {
        ssize_t n = send(fd, at, size, MSG_NOSIGNAL);
        if (n <= 0)
            return; /* the client has hung up */
        at += n;
        size -= (size_t)n;
    }
}

/* Request line and headers into `head`; the body is read and dropped. False: the client is gone. */
static bool read_request(int fd, char *head, size_t room)
{
    size_t n = 0;

    for (;;) {
        if (n + 1 >= room || recv(fd, head + n, 1, 0) != 1)
            return false;
        head[++n] = '\0';
        if (n >= 4 && strcmp(head + n - 4, "\r\n\r\n") == 0)
            break;
    }
    const char *length = strcasestr(head, "\r\ncontent-length:");
    size_t rest = length ? strtoul(length + 17, NULL, 10) : 0;
    char piece[65536];
    while (rest > 0) {
        ssize_t got = recv(fd, piece, rest < sizeof piece ? rest : sizeof piece, 0);
        if (got <= 0)
            return false;
        rest -= (size_t)got;
    }
    return true;
}

static void send_big(int fd)
{
    static char zeros[65536];
    char head[128];

    (void)snprintf(head, sizeof head, "HTTP/1.1 200 OK\r\nContent-Length: %u\r\n\r\n", BIG_SIZE);
    send_all(fd, head, strlen(head));
    for (size_t sent = 0; sent < BIG_SIZE; sent += sizeof zeros)
        send_all(fd, zeros, sizeof zeros);
}

static void send_flood(int fd)
{
    char line[1024];

    send_all(fd, "HTTP/1.1 200 OK\r\n", 17);
    for (int i = 0; i < 1000; i++) {
        int n = snprintf(line, sizeof line, "X-Flood-%d: %0900d\r\n", i, i);
        send_all(fd, line, (size_t)n);
    }
    send_all(fd, "Content-Length: 0\r\n\r\n", 21);
}

static void wait_for_hangup(int fd)
{
    char c;

    while (recv(fd, &c, 1, 0) > 0)
        continue;
}

/* False: the connection is over. */
static bool answer(int fd, const char *path)
{
    if (strcmp(path, "/big") == 0) {
        send_big(fd);
        return true;
    }
    if (strcmp(path, "/flood") == 0) {
        send_flood(fd);
        return false;
    }
    if (strcmp(path, "/silence") == 0) {
        wait_for_hangup(fd);
        return false;
    }
    for (size_t i = 0; i < sizeof pages / sizeof *pages; i++)
        if (strcmp(pages[i].path, path) == 0) {
            send_all(fd, pages[i].answer, strlen(pages[i].answer));
            return !pages[i].closes;
        }
    send_all(fd, "HTTP/1.1 500 x\r\nContent-Length: 0\r\n\r\n", 38);
    return false;
}

static void *serve(void *arg)
{
    int fd = (int)(intptr_t)arg;
    char head[8192], path[256];

    server.connections++;
    while (read_request(fd, head, sizeof head)) {
        server.requests++;
        if (strncmp(head, "POST", 4) == 0)
            server.posts++;
        if (sscanf(head, "%*s %255s", path) != 1)
            break;
        {
            WITH_LOCK(&server.lock);
            memcpy(server.last_head, head, sizeof head);
        }
        /* Once answered, the next request on this connection meets a closed door. */
        if (strcmp(path, "/once") == 0) {
            (void)answer(fd, "/plain");
            if (read_request(fd, head, sizeof head))
                server.posts += strncmp(head, "POST", 4) == 0;
            break;
        }
        if (!answer(fd, path))
            break;
    }
    (void)close(fd);
    return NULL;
}

static void *accept_all(void *arg)
{
    for (;;) {
        int fd = accept4(server.fd, NULL, NULL, SOCK_CLOEXEC);
        pthread_t thread;
        if (fd < 0)
            return NULL;
        if (pthread_create(&thread, NULL, serve, (void *)(intptr_t)fd) == 0)
            (void)pthread_detach(thread);
    }
}

static struct http *open_http(const struct http_options *o)
{
    struct http *h = NULL;
    struct err err = ERR_INIT;

    if (http_new(o, &h, &err) < 0)
        fail_msg("%s", err.text);
    return h;
}

static int set_up(void **state)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof a;

    (void)unsetenv("http_proxy");
    server.fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(server.fd, (struct sockaddr *)&a, sizeof a), 0);
    assert_int_equal(listen(server.fd, 256), 0);
    assert_int_equal(getsockname(server.fd, (struct sockaddr *)&a, &size), 0);
    server.port = ntohs(a.sin_port);
    assert_int_equal(pthread_create(&server.thread, NULL, accept_all, NULL), 0);
    http = open_http(&(struct http_options){.connections = 8});
    return 0;
}

static int tear_down(void **state)
{
    http_free(http);
    (void)shutdown(server.fd, SHUT_RDWR);
    (void)pthread_join(server.thread, NULL);
    (void)close(server.fd);
    return 0;
}

/* ---- asking ---- */

#define URL_SIZE 128

static const char *url_of(char url[static URL_SIZE], const char *path)
{
    (void)snprintf(url, URL_SIZE, "http://127.0.0.1:%u%s", server.port, path);
    return url;
}

/* GET `path`, or what else `q` says. */
static int ask(const char *path, const struct http_request *q, struct http_response *r)
{
    char url[URL_SIZE];
    struct http_request full = q ? *q : (struct http_request){.method = NULL};

    full.method = full.method ? full.method : "GET";
    full.url = url_of(url, path);
    full.body_max = full.body_max ? full.body_max : 1000;
    return http_perform(http, &full, r);
}

static void expect(const char *path, const struct http_request *q, int result, int status)
{
    struct http_response r;

    int got = ask(path, q, &r);
    if (got != result || r.status != status)
        fail_msg("%s: %d (%s), status %d; not %d, %d", path, got, r.error, r.status, result,
                 status);
    http_response_release(&r);
}

static void test_plain(void **state)
{
    struct http_response r;
    char value[64], small[4];

    assert_int_equal(ask("/plain", NULL, &r), 0);
    assert_int_equal(r.status, 200);
    assert_int_equal(r.content_length, 5);
    assert_string_equal(buf_text(&r.body), "hello");
    assert_true(http_response_header(&r, "x-odd-name", value, sizeof value));
    assert_string_equal(value, "some value");
    assert_false(http_response_header(&r, "x-odd-name", small, sizeof small));
    assert_false(http_response_header(&r, "x-odd", value, sizeof value));
    http_response_release(&r);
    assert_non_null(strstr(server.last_head, "Accept-Encoding: identity\r\n"));
    expect("/empty", NULL, 0, 204);
    expect("/missing", NULL, 0, 404);
    expect("/chunked", NULL, 0, 200);
    expect("/endless", NULL, 0, 200);
    expect("/plain", &(struct http_request){.method = "HEAD"}, 0, 200);
}

static void test_interim_answer(void **state)
{
    struct http_response r;
    char value[8];

    assert_int_equal(ask("/continue", NULL, &r), 0);
    assert_int_equal(r.status, 200);
    assert_string_equal(buf_text(&r.body), "ok");
    assert_false(http_response_header(&r, "x-a", value, sizeof value));
    http_response_release(&r);
}

static void test_bad_answers(void **state)
{
    expect("/short", NULL, -EPROTO, 200);
    expect("/chunk-cut", NULL, -EPROTO, 200);
    expect("/nothing", NULL, -ECONNRESET, 0);
    expect("/garbage", NULL, -EPROTO, 0);
    expect("/two-lengths", NULL, -EPROTO, 200);
    expect("/gzip", NULL, -EPROTO, 200);
    expect("/gzip", &(struct http_request){.encoded_ok = true}, 0, 200);
    expect("/flood", NULL, -EFBIG, 0);
    expect("/big", NULL, -EFBIG, 200);
    expect("/endless", &(struct http_request){.body_max = 5}, -EFBIG, 200);
}

static void test_redirect_is_not_followed(void **state)
{
    struct http_response r;

    assert_int_equal(ask("/moved", NULL, &r), 0);
    assert_int_equal(r.status, 302);
    assert_string_equal(r.location, "http://other.example/x");
    http_response_release(&r);
}

static void test_requests(void **state)
{
    struct http_header headers[] = {{"X-Empty", ""}, {"X-Value", "a b"}};

    expect("/plain",
           &(struct http_request){
               .method = "PUT", .headers = headers, .header_count = 2, .body = bytes_str("12345")},
           0, 200);
    assert_non_null(strstr(server.last_head, "PUT /plain HTTP/1.1\r\n"));
    assert_non_null(strstr(server.last_head, "\r\nContent-Length: 5\r\n"));
    assert_non_null(strstr(server.last_head, "\r\nX-Empty:\r\n"));
    assert_non_null(strstr(server.last_head, "\r\nX-Value: a b\r\n"));
    assert_null(strstr(server.last_head, "Expect"));
    expect("/plain", &(struct http_request){.method = "POST"}, 0, 200);
    assert_non_null(strstr(server.last_head, "\r\nContent-Length: 0\r\n"));
    expect("/plain", &(struct http_request){.method = "DELETE"}, 0, 200);
    assert_non_null(strstr(server.last_head, "DELETE /plain"));
}

static void test_injection(void **state)
{
    struct http_header bad[] = {{"X-A", "b\r\nX-C: d"}};
    struct http_header name[] = {{"X-A: b\r\nX", "d"}};

    expect("/plain", &(struct http_request){.headers = bad, .header_count = 1}, -EINVAL, 0);
    expect("/plain", &(struct http_request){.headers = name, .header_count = 1}, -EINVAL, 0);
    expect("/plain x\r\nX-A: b", NULL, -EINVAL, 0);
}

static void test_other_schemes(void **state)
{
    static const char *const urls[] = {"file:///etc/passwd", "ftp://127.0.0.1/", "gopher://x/"};

    for (size_t i = 0; i < sizeof urls / sizeof *urls; i++) {
        struct http_response r;
        struct http_request q = {.method = "GET", .url = urls[i], .body_max = 10000};
        assert_int_equal(http_perform(http, &q, &r), -EINVAL);
        http_response_release(&r);
    }
}

static void test_unreachable(void **state)
{
    struct http_response r;
    struct http_request q = {.method = "GET", .url = "http://127.0.0.1:1/"};

    assert_int_equal(http_perform(http, &q, &r), -ECONNREFUSED);
    assert_true(r.error[0]);
    http_response_release(&r);
    q.url = "http://no-such-host.invalid/";
    assert_int_equal(http_perform(http, &q, &r), -EHOSTUNREACH);
    http_response_release(&r);
}

static void test_deadline(void **state)
{
    expect("/silence", &(struct http_request){.deadline_ms = 100}, -ETIMEDOUT, 0);
}

/* ---- callbacks ---- */

struct taken {
    uint64_t size;
    int head_code, sink_code;
    unsigned heads;
};

static int on_head(void *ctx, const struct http_response *head)
{
    struct taken *t = ctx;

    t->heads++;
    assert_true(head->status >= 200);
    return t->head_code;
}

static int on_piece(void *ctx, const void *data, size_t size)
{
    struct taken *t = ctx;

    t->size += size;
    return t->sink_code;
}

static void test_sink(void **state)
{
    struct taken t = {.size = 0};
    struct http_request q = {
        .head = on_head, .sink = on_piece, .ctx = &t, .body_max = BIG_SIZE, .deadline_ms = 60000};

    expect("/big", &q, 0, 200);
    assert_int_equal(t.size, BIG_SIZE);
    assert_int_equal(t.heads, 1);
    t = (struct taken){.sink_code = -ENOSPC};
    expect("/big", &q, -ENOSPC, 200);
    t = (struct taken){.head_code = -ESTALE};
    expect("/big", &q, -ESTALE, 200);
    assert_int_equal(t.size, 0);
}

struct crowd {
    pthread_mutex_t lock;
    pthread_cond_t cond;
    unsigned done, bad;
};

static void on_done(void *ctx, int result, struct http_response *response)
{
    struct crowd *c = ctx;

    WITH_LOCK(&c->lock);
    c->done++;
    c->bad += result != 0 || response->status != 200;
    http_response_release(response);
    pthread_cond_signal(&c->cond);
}

/* A sink that takes one piece at a time, when it is told to. */
struct slow {
    struct http_flow flow;
    atomic_uint allowed, taken, held;
    atomic_size_t size;
    atomic_bool refuses;
    atomic_int result; /* 1: not done yet */
};

static int on_slow_piece(void *ctx, const void *data, size_t size)
{
    struct slow *s = ctx;

    if (s->refuses)
        return -ENOSPC;
    if (s->taken == s->allowed) {
        s->held++;
        return HTTP_HOLD;
    }
    s->taken++;
    s->size += size;
    return 0;
}

static void on_slow_done(void *ctx, int result, struct http_response *response)
{
    ((struct slow *)ctx)->result = result;
}

static void wait_while_held(struct slow *s, unsigned before)
{
    while (s->held == before && s->result == 1)
        (void)usleep(1000);
}

static void test_held(void **state)
{
    struct http_response r;
    struct slow s = {.result = 1};
    char url[128];
    struct http_request q = {.method = "GET",
                             .url = url,
                             .sink = on_slow_piece,
                             .ctx = &s,
                             .flow = &s.flow,
                             .body_max = BIG_SIZE,
                             .deadline_ms = HTTP_NO_DEADLINE};

    (void)snprintf(url, sizeof url, "http://127.0.0.1:%u/big", server.port);
    assert_int_equal(http_submit(http, &q, &r, on_slow_done, &s), 0);
    for (unsigned i = 0; s.result == 1; i++) {
        wait_while_held(&s, i);
        assert_int_equal(s.taken, s.allowed); /* nothing came past it */
        s.allowed++;
        http_flow_open(http, &s.flow);
    }
    assert_int_equal(s.result, 0);
    assert_int_equal(s.size, BIG_SIZE);
    assert_true(s.held >= 2); /* it was held, time and again */
    http_response_release(&r);

    /* What fails when it comes again, fails the request. */
    s = (struct slow){.result = 1};
    assert_int_equal(http_submit(http, &q, &r, on_slow_done, &s), 0);
    wait_while_held(&s, 0);
    s.refuses = true;
    http_flow_open(http, &s.flow);
    while (s.result == 1)
        (void)usleep(1000);
    assert_int_equal(s.result, -ENOSPC);
    http_response_release(&r);
}

static void test_crowd(void **state)
{
    static struct http_response responses[500];
    struct crowd c = {.lock = PTHREAD_MUTEX_INITIALIZER, .cond = PTHREAD_COND_INITIALIZER};
    struct http_counts before, after;
    char url[URL_SIZE];
    struct http_request q = {.method = "GET", .url = url_of(url, "/plain"), .body_max = 100};

    http_counts(http, &before);
    for (size_t i = 0; i < 500; i++)
        assert_int_equal(http_submit(http, &q, &responses[i], on_done, &c), 0);
    pthread_mutex_lock(&c.lock);
    while (c.done < 500)
        pthread_cond_wait(&c.cond, &c.lock);
    pthread_mutex_unlock(&c.lock);
    assert_int_equal(c.bad, 0);
    http_counts(http, &after);
    assert_int_equal(after.requests - before.requests, 500);
    assert_in_range(after.connections - before.connections, 0, 8);
}

static void test_fresh(void **state)
{
    unsigned before;

    expect("/plain", NULL, 0, 200);
    before = server.connections;
    expect("/plain", NULL, 0, 200);
    assert_int_equal(server.connections, before);
    expect("/plain", &(struct http_request){.fresh = true}, 0, 200);
    assert_int_equal(server.connections, before + 1);
}

/* The connection dies after a body was sent on it: that was the attempt, and there is no other. */
static void test_body_is_sent_once(void **state)
{
    AUTO(http_free) struct http *one = open_http(&(struct http_options){.connections = 1});
    struct http_response r;
    char url[URL_SIZE];
    struct http_request q = {.method = "GET", .url = url_of(url, "/once"), .body_max = 100};

    assert_int_equal(http_perform(one, &q, &r), 0);
    http_response_release(&r);
    unsigned before = server.posts;
    q.method = "POST";
    q.body = bytes_str("a body");
    q.url = url_of(url, "/plain");
    assert_int_equal(http_perform(one, &q, &r), -ECONNRESET);
    http_response_release(&r);
    assert_int_equal(server.posts, before + 1);
}

static void on_canceled(void *ctx, int result, struct http_response *response)
{
    *(int *)ctx = result;
    http_response_release(response);
}

static void test_free_cancels(void **state)
{
    struct http *one = open_http(&(struct http_options){.connections = 1});
    struct http_response r[2];
    int results[2] = {1, 1};
    char url[URL_SIZE];
    struct http_request q = {.method = "GET", .url = url_of(url, "/silence"), .body_max = 100};

    for (int i = 0; i < 2; i++) /* one runs, one waits */
        assert_int_equal(http_submit(one, &q, &r[i], on_canceled, &results[i]), 0);
    http_free(one);
    assert_int_equal(results[0], -ECANCELED);
    assert_int_equal(results[1], -ECANCELED);
}

/* ---- TLS ---- */

static bool run(const char *const *words)
{
    int status = 0;
    pid_t pid = fork();

    if (pid == 0) {
        int null = open("/dev/null", O_RDWR | O_CLOEXEC);
        (void)dup2(null, 1);
        (void)dup2(null, 2);
        (void)execvp(words[0], (char *const *)words);
        _exit(127);
    }
    return waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

/* `openssl s_server` in `dir`; *ret_port is where. */
static pid_t start_tls(const char *dir, unsigned *ret_port)
{
    int out[2];
    char text[4096] = "";
    size_t n = 0;
    const char *at = NULL;

    assert_int_equal(pipe2(out, O_CLOEXEC), 0);
    pid_t pid = fork();
    if (pid == 0) {
        (void)dup2(out[1], 1);
        if (chdir(dir) == 0)
            (void)execlp("openssl", "openssl", "s_server", "-accept", "127.0.0.1:0", "-cert",
                         "cert.pem", "-key", "key.pem", "-www", (char *)NULL);
        _exit(127);
    }
    (void)close(out[1]);
    while (!at && n + 1 < sizeof text && file_read(out[0], text + n, 1) == 1) {
        text[++n] = '\0';
        at = text[n - 1] == '\n' ? strstr(text, "ACCEPT 127.0.0.1:") : NULL;
    }
    (void)close(out[0]);
    assert_non_null(at);
    *ret_port = (unsigned)strtoul(at + strlen("ACCEPT 127.0.0.1:"), NULL, 10);
    return pid;
}

static int ask_tls(const char *ca_file, const char *host, unsigned port)
{
    AUTO(http_free) struct http *h = open_http(&(struct http_options){.ca_file = ca_file});
    struct http_response r;
    char url[URL_SIZE];

    (void)snprintf(url, sizeof url, "https://%s:%u/", host, port);
    struct http_request q = {.method = "GET", .url = url, .body_max = 1 << 20, .fresh = true};
    int result = http_perform(h, &q, &r);
    http_response_release(&r);
    return result;
}

static void test_tls(void **state)
{
    char dir[] = "/tmp/test-http-XXXXXX", key[64], cert[64];
    unsigned port = 0;

    if (!run((const char *const[]){"openssl", "version", NULL})) {
        print_message("no openssl command here\n");
        skip();
    }
    assert_non_null(mkdtemp(dir));
    (void)snprintf(key, sizeof key, "%s/key.pem", dir);
    (void)snprintf(cert, sizeof cert, "%s/cert.pem", dir);
    assert_true(run((const char *const[]){"openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt",
                                          "ec_paramgen_curve:P-256", "-nodes", "-keyout", key,
                                          "-out", cert, "-days", "2", "-subj", "/CN=x", "-addext",
                                          "subjectAltName=DNS:localhost", NULL}));
    pid_t pid = start_tls(dir, &port);
    assert_int_equal(ask_tls(cert, "localhost", port), 0);
    assert_int_equal(ask_tls(NULL, "localhost", port), -EKEYREJECTED);
    assert_int_equal(ask_tls(cert, "127.0.0.1", port), -EKEYREJECTED); /* another name */
    assert_int_equal(kill(pid, SIGKILL), 0);
    (void)waitpid(pid, NULL, 0);
    assert_int_equal(unlink(key) | unlink(cert) | rmdir(dir), 0);
    struct err err = ERR_INIT;
    struct http *none = NULL;
    struct http_options absent = {.ca_file = "/nonexistent/ca.pem"};
    assert_int_equal(http_new(&absent, &none, &err), -ENOENT);
    assert_non_null(strstr(err.text, "/nonexistent/ca.pem"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_plain),         cmocka_unit_test(test_interim_answer),
        cmocka_unit_test(test_bad_answers),   cmocka_unit_test(test_redirect_is_not_followed),
        cmocka_unit_test(test_requests),      cmocka_unit_test(test_injection),
        cmocka_unit_test(test_other_schemes), cmocka_unit_test(test_unreachable),
        cmocka_unit_test(test_deadline),      cmocka_unit_test(test_sink),
        cmocka_unit_test(test_held),          cmocka_unit_test(test_crowd),
        cmocka_unit_test(test_fresh),         cmocka_unit_test(test_body_is_sent_once),
        cmocka_unit_test(test_free_cancels),  cmocka_unit_test(test_tls),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
