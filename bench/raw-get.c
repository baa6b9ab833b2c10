/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The raw client: gets ranges of objects, as many at once as told, and throws the bytes away. What
 * a reader of a bucket is measured against: nothing is verified, kept or asked for twice.
 *
 *   raw-get BASE_URL AT_ONCE <LIST      lines of LIST: "path offset size"
 *
 * Prints {"wall_s", "cpu_s", "bytes", "requests"}. Warm connections, libcurl's multi interface.
 */
#include <curl/curl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#define AT_ONCE_MAX 512

struct item {
    char *path;
    unsigned long long offset, size;
};

struct slot {
    CURL *easy;
    char range[64];
};

static struct item *items;
static size_t item_count, next_item;
static unsigned long long bytes;
static const char *base;

static size_t swallow(char *data, size_t size, size_t count, void *ctx)
{
    bytes += size * count;
    return size * count;
}

static void read_list(void)
{
    char *line = NULL;
    size_t room = 0, capacity = 0;

    while (getline(&line, &room, stdin) > 0) {
        struct item it = {0};
        if (sscanf(line, "%ms %llu %llu", &it.path, &it.offset, &it.size) != 3 || it.size == 0)
            exit(2);
        if (item_count == capacity) {
            capacity = capacity ? 2 * capacity : 1024;
            items = realloc(items, capacity * sizeof *items);
            if (!items)
                exit(1);
        }
        items[item_count++] = it;
    }
    free(line);
}

static void start(CURLM *multi, struct slot *s)
{
    const struct item *it = &items[next_item++];
    char url[4096];

    (void)snprintf(url, sizeof url, "%s/%s", base, it->path);
    (void)snprintf(s->range, sizeof s->range, "%llu-%llu", it->offset, it->offset + it->size - 1);
    (void)curl_easy_setopt(s->easy, CURLOPT_URL, url); /* what fails shows in the transfer */
    (void)curl_easy_setopt(s->easy, CURLOPT_RANGE, s->range);
    (void)curl_multi_add_handle(multi, s->easy);
}

static void run(CURLM *multi, struct slot *slots, size_t at_once)
{
    int running = 0;

    for (size_t i = 0; i < at_once && next_item < item_count; i++)
        start(multi, &slots[i]);
    do {
        CURLMsg *m;
        int left;
        (void)curl_multi_perform(multi, &running); /* failures are told below */
        while ((m = curl_multi_info_read(multi, &left)) != NULL) {
            struct slot *s = NULL;
            if (m->msg != CURLMSG_DONE || m->data.result != CURLE_OK) {
                (void)fprintf(stderr, "raw-get: %s\n", curl_easy_strerror(m->data.result));
                exit(1);
            }
            (void)curl_easy_getinfo(m->easy_handle, CURLINFO_PRIVATE, &s); /* was set */
            (void)curl_multi_remove_handle(multi, s->easy);
            if (next_item < item_count) {
                start(multi, s);
                running = 1;
            }
        }
        if (running)
            (void)curl_multi_poll(multi, NULL, 0, 1000, NULL); /* or goes round at once */
    } while (running);
}

static double seconds(struct timespec a, struct timespec b)
{
    return (double)(b.tv_sec - a.tv_sec) + (double)(b.tv_nsec - a.tv_nsec) / 1e9;
}

int main(int argc, char **argv)
{
    struct slot slots[AT_ONCE_MAX] = {{0}};
    struct timespec begin, end;
    struct rusage u;

    if (argc != 3)
        return 2;
    base = argv[1];
    size_t at_once = strtoul(argv[2], NULL, 10);
    if (at_once == 0 || at_once > AT_ONCE_MAX || curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK)
        return 2;
    read_list();
    CURLM *multi = curl_multi_init();
    (void)curl_multi_setopt(multi, CURLMOPT_MAXCONNECTS, (long)at_once); /* only speed */
    for (size_t i = 0; i < at_once; i++) {
        slots[i].easy = curl_easy_init();
        (void)curl_easy_setopt(slots[i].easy, CURLOPT_WRITEFUNCTION, swallow);
        (void)curl_easy_setopt(slots[i].easy, CURLOPT_PRIVATE, &slots[i]);
        (void)curl_easy_setopt(slots[i].easy, CURLOPT_FAILONERROR, 1L);
        (void)curl_easy_setopt(slots[i].easy, CURLOPT_BUFFERSIZE, 512L * 1024);
    }
    (void)clock_gettime(CLOCK_MONOTONIC, &begin); /* exists */
    run(multi, slots, at_once);
    (void)clock_gettime(CLOCK_MONOTONIC, &end);
    (void)getrusage(RUSAGE_SELF, &u); /* valid arguments */
    (void)printf("{\"wall_s\": %.4f, \"cpu_s\": %.4f, \"bytes\": %llu, \"requests\": %zu}\n",
                 seconds(begin, end),
                 (double)u.ru_utime.tv_sec + (double)u.ru_utime.tv_usec / 1e6 +
                     (double)u.ru_stime.tv_sec + (double)u.ru_stime.tv_usec / 1e6,
                 bytes, item_count);
    return 0;
}
