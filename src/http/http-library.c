/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libcurl, loaded when the first request is made: with what it brings along (TLS, LDAP, Kerberos)
 * it takes longer to load than all else that a command on a directory store does, and such a store
 * makes no request.
 *
 * The rest of this folder calls libcurl as ever; these are the functions that it finds. Where the
 * library is missing they fail as if there were no memory.
 */
#define CURL_DISABLE_TYPECHECK
#include "http/http-internal.h"

#include "base/log.h"

#include <dlfcn.h>
#include <stdarg.h>

#undef curl_easy_setopt
#undef curl_easy_getinfo
#undef curl_multi_setopt

#define FUNCTIONS(X)                                                                               \
    X(curl_easy_cleanup)                                                                           \
    X(curl_easy_getinfo)                                                                           \
    X(curl_easy_init)                                                                              \
    X(curl_easy_pause)                                                                             \
    X(curl_easy_reset)                                                                             \
    X(curl_easy_setopt)                                                                            \
    X(curl_easy_strerror)                                                                          \
    X(curl_global_init)                                                                            \
    X(curl_multi_add_handle)                                                                       \
    X(curl_multi_cleanup)                                                                          \
    X(curl_multi_info_read)                                                                        \
    X(curl_multi_init)                                                                             \
    X(curl_multi_perform)                                                                          \
    X(curl_multi_poll)                                                                             \
    X(curl_multi_remove_handle)                                                                    \
    X(curl_multi_setopt)                                                                           \
    X(curl_multi_wakeup)                                                                           \
    X(curl_slist_append)                                                                           \
    X(curl_slist_free_all)

#define MEMBER(name) __typeof__(&(name)) name;
#define NAME(name)   #name,

static struct {
    FUNCTIONS(MEMBER)
} library;
static bool loaded;
static pthread_once_t once = PTHREAD_ONCE_INIT;

/* What Debian's two packages of it are called; the first has OpenSSL, which we have anyway. */
static const char *const files[] = {"libcurl.so.4", "libcurl-gnutls.so.4"};

static void load(void)
{
    static const char *const names[] = {FUNCTIONS(NAME)};
    void *handle = NULL, *symbol;

    for (size_t i = 0; !handle && i < sizeof files / sizeof *files; i++)
        handle = dlopen(files[i], RTLD_LAZY | RTLD_LOCAL);
    if (!handle) {
        log_debug("%s", dlerror());
        return;
    }
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        symbol = dlsym(handle, names[i]);
        if (!symbol) {
            log_debug("libcurl has no %s", names[i]);
            return;
        }
        memcpy((char *)&library + i * sizeof symbol, &symbol, sizeof symbol);
    }
    loaded = true;
}

static bool is_loaded(void)
{
    return pthread_once(&once, load) == 0 && loaded;
}

/* ---- where everything begins: these load it ---- */

CURLcode curl_global_init(long flags)
{
    return is_loaded() ? library.curl_global_init(flags) : CURLE_FAILED_INIT;
}

CURLM *curl_multi_init(void)
{
    return is_loaded() ? library.curl_multi_init() : NULL;
}

CURL *curl_easy_init(void)
{
    return is_loaded() ? library.curl_easy_init() : NULL;
}

struct curl_slist *curl_slist_append(struct curl_slist *list, const char *text)
{
    return is_loaded() ? library.curl_slist_append(list, text) : NULL;
}

/* ---- these need something that those gave ---- */

void curl_easy_cleanup(CURL *easy)
{
    if (easy)
        library.curl_easy_cleanup(easy);
}

void curl_slist_free_all(struct curl_slist *list)
{
    if (list)
        library.curl_slist_free_all(list);
}

/* One argument, whose type the option's number tells. */
#define PASS_ON(function, handle, option)                                                          \
    do {                                                                                           \
        va_list arguments_;                                                                        \
        va_start(arguments_, option);                                                              \
        if ((int)(option) >= CURLOPTTYPE_OFF_T && (int)(option) < CURLOPTTYPE_BLOB)                \
            code = function(handle, option, va_arg(arguments_, curl_off_t));                       \
        else if ((int)(option) < CURLOPTTYPE_OBJECTPOINT)                                          \
            code = function(handle, option, va_arg(arguments_, long));                             \
        else                                                                                       \
            code = function(handle, option, va_arg(arguments_, void *));                           \
        va_end(arguments_);                                                                        \
    } while (0)

CURLcode curl_easy_setopt(CURL *easy, CURLoption option, ...)
{
    CURLcode code;

    PASS_ON(library.curl_easy_setopt, easy, option);
    return code;
}

CURLMcode curl_multi_setopt(CURLM *multi, CURLMoption option, ...)
{
    CURLMcode code;

    PASS_ON(library.curl_multi_setopt, multi, option);
    return code;
}

CURLcode curl_easy_getinfo(CURL *easy, CURLINFO info, ...)
{
    va_list arguments;

    va_start(arguments, info);
    CURLcode code = library.curl_easy_getinfo(easy, info, va_arg(arguments, void *));
    va_end(arguments);
    return code;
}

CURLcode curl_easy_pause(CURL *easy, int mask)
{
    return library.curl_easy_pause(easy, mask);
}

void curl_easy_reset(CURL *easy)
{
    library.curl_easy_reset(easy);
}

const char *curl_easy_strerror(CURLcode code)
{
    return is_loaded() ? library.curl_easy_strerror(code) : "libcurl is missing";
}

CURLMcode curl_multi_add_handle(CURLM *multi, CURL *easy)
{
    return library.curl_multi_add_handle(multi, easy);
}

CURLMcode curl_multi_cleanup(CURLM *multi)
{
    return library.curl_multi_cleanup(multi);
}

CURLMsg *curl_multi_info_read(CURLM *multi, int *ret_left)
{
    return library.curl_multi_info_read(multi, ret_left);
}

CURLMcode curl_multi_perform(CURLM *multi, int *ret_running)
{
    return library.curl_multi_perform(multi, ret_running);
}

CURLMcode curl_multi_poll(CURLM *multi, struct curl_waitfd fds[], unsigned count, int timeout_ms,
                          int *ret_ready)
{
    return library.curl_multi_poll(multi, fds, count, timeout_ms, ret_ready);
}

CURLMcode curl_multi_remove_handle(CURLM *multi, CURL *easy)
{
    return library.curl_multi_remove_handle(multi, easy);
}

CURLMcode curl_multi_wakeup(CURLM *multi)
{
    return library.curl_multi_wakeup(multi);
}
