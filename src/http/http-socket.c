/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which socket a call runs on, to acknowledge the head of its answer at once.
 *
 * Servers that write head and body apart without TCP_NODELAY (Ceph's default) hold a small body
 * back until the head is acknowledged, and our kernel would put that off by 40 ms: twenty small
 * reads a second. curl does not tell the socket of a running transfer, but it tells when sockets
 * open and close, and the local port of the connection that a request is about to use.
 *
 * All of it on the loop's thread. Only a hint: a socket that is not found costs nothing else.
 */
#include "http/http-internal.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

static int on_open(void *ctx, curl_socket_t fd, curlsocktype purpose)
{
    struct http *h = ctx;

    if (purpose == CURLSOCKTYPE_IPCXN)
        /* Without memory for it, it is not found later. */
        (void)vec_push(&h->sockets, ((struct http_socket){.fd = fd}));
    return CURL_SOCKOPT_OK;
}

static int on_close(void *ctx, curl_socket_t fd)
{
    struct http *h = ctx;

    for (size_t i = 0; i < h->sockets.count; i++)
        if (h->sockets.at[i].fd == fd) {
            h->sockets.at[i] = h->sockets.at[--h->sockets.count];
            break;
        }
    return close(fd);
}

static int local_port(int fd)
{
    union {
        struct sockaddr any;
        struct sockaddr_in v4;
        struct sockaddr_in6 v6;
    } a = {.any.sa_family = AF_UNSPEC};
    socklen_t size = sizeof a;

    if (getsockname(fd, &a.any, &size) < 0)
        return 0;
    return a.any.sa_family == AF_INET    ? ntohs(a.v4.sin_port)
           : a.any.sa_family == AF_INET6 ? ntohs(a.v6.sin6_port)
                                         : 0;
}

static int on_request(void *ctx, char *peer, char *local, int peer_port, int port)
{
    struct http_call *c = ctx;
    struct http *h = c->http;

    c->fd = -1;
    for (size_t i = 0; i < h->sockets.count; i++) {
        struct http_socket *s = &h->sockets.at[i];
        if (s->port == 0) /* it was not connected when it was opened */
            s->port = local_port(s->fd);
        if (s->port == port)
            c->fd = s->fd;
    }
    return CURL_PREREQFUNC_OK;
}

bool http_socket_watch(struct http_call *c)
{
    CURL *e = c->easy;

    c->fd = -1;
    return curl_easy_setopt(e, CURLOPT_SOCKOPTFUNCTION, on_open) == CURLE_OK &&
           curl_easy_setopt(e, CURLOPT_SOCKOPTDATA, c->http) == CURLE_OK &&
           curl_easy_setopt(e, CURLOPT_CLOSESOCKETFUNCTION, on_close) == CURLE_OK &&
           curl_easy_setopt(e, CURLOPT_CLOSESOCKETDATA, c->http) == CURLE_OK &&
           curl_easy_setopt(e, CURLOPT_PREREQFUNCTION, on_request) == CURLE_OK &&
           curl_easy_setopt(e, CURLOPT_PREREQDATA, c) == CURLE_OK;
}

void http_socket_acknowledge(const struct http_call *c)
{
    int one = 1;

    if (c->fd >= 0)
        (void)setsockopt(c->fd, IPPROTO_TCP, TCP_QUICKACK, &one, sizeof one); /* a hint */
}
