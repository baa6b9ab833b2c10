/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Scope-bound release of resources, with the GNU cleanup attribute.
 *
 *   AUTO(free_ptr) char *path = ...;      freed when the scope ends
 *   AUTO(close_fd) int fd = open(...);    closed if >= 0
 *   return take_ptr(&path);               hand ownership out: the scope then frees nothing
 *   WITH_LOCK(&m);                        locked until the scope ends
 *
 * Every AUTO function takes a pointer to the variable and tolerates NULL, -1 and half-built
 * objects. A module adds its own with AUTO_FREE_FUNC(type, function).
 */
#ifndef BASE_CLEANUP_H
#define BASE_CLEANUP_H

#include <dirent.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define AUTO(fn) __attribute__((cleanup(auto_##fn)))

/* Defines auto_<fn>() for `AUTO(fn) struct thing *x`; fn must accept NULL. */
#define AUTO_FREE_FUNC(type, fn)                                                                   \
    static inline void auto_##fn(type **p)                                                         \
    {                                                                                              \
        fn(*p);                                                                                    \
        *p = NULL;                                                                                 \
    }                                                                                              \
    struct base_swallow_semicolon

static inline void auto_free_ptr(void *p)
{
    free(*(void **)p);
}

static inline void auto_close_fd(const int *fd)
{
    int saved = errno;
    if (*fd >= 0)
        (void)close(*fd); /* read side or already synced: nothing to report */
    errno = saved;
}

static inline void auto_close_file(FILE **f)
{
    if (*f)
        (void)fclose(*f);
}

static inline void auto_close_dir(DIR **d)
{
    if (*d)
        (void)closedir(*d);
}

/* Hand a pointer out of an AUTO variable. */
#define take_ptr(p)                                                                                \
    __extension__({                                                                                \
        __typeof__(*(p)) take_ptr_ = *(p);                                                         \
        *(p) = NULL;                                                                               \
        take_ptr_;                                                                                 \
    })

static inline int take_fd(int *fd)
{
    int r = *fd;
    *fd = -1;
    return r;
}

static inline void auto_unlock_(pthread_mutex_t **m)
{
    if (*m)
        pthread_mutex_unlock(*m);
}

static inline pthread_mutex_t *lock_(pthread_mutex_t *m)
{
    pthread_mutex_lock(m);
    return m;
}

#define WITH_LOCK_NAME2(line) with_lock_##line
#define WITH_LOCK_NAME(line)  WITH_LOCK_NAME2(line)
#define WITH_LOCK(m)                                                                               \
    __attribute__((cleanup(auto_unlock_), unused)) pthread_mutex_t *WITH_LOCK_NAME(__LINE__) =     \
        lock_(m)

#endif
