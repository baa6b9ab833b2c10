/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bounded queue: a ring, one mutex, two conditions.
 */
#include "base/queue.h"

#include "base/cleanup.h"

struct queue {
    pthread_mutex_t lock; /* guards all below */
    pthread_cond_t not_empty, not_full;
    size_t capacity, first, count;
    bool closed;
    void *items[];
};

struct queue *queue_new(size_t capacity)
{
    struct queue *q = calloc(1, sizeof *q + capacity * sizeof *q->items);

    if (!q)
        return NULL;
    q->capacity = capacity;
    pthread_mutex_init(&q->lock, NULL);
    pthread_cond_init(&q->not_empty, NULL);
    pthread_cond_init(&q->not_full, NULL);
    return q;
}

void queue_free(struct queue *q)
{
    if (!q)
        return;
    pthread_cond_destroy(&q->not_full);
    pthread_cond_destroy(&q->not_empty);
    pthread_mutex_destroy(&q->lock);
    free(q);
}

bool queue_push(struct queue *q, void *item)
{
    WITH_LOCK(&q->lock);
    while (q->count == q->capacity && !q->closed)
        pthread_cond_wait(&q->not_full, &q->lock);
    if (q->closed)
        return false;
    q->items[(q->first + q->count++) % q->capacity] = item;
    pthread_cond_signal(&q->not_empty);
    return true;
}

void *queue_pop(struct queue *q)
{
    WITH_LOCK(&q->lock);
    while (q->count == 0 && !q->closed)
        pthread_cond_wait(&q->not_empty, &q->lock);
    if (q->count == 0)
        return NULL;
    void *item = q->items[q->first];
    q->first = (q->first + 1) % q->capacity;
    q->count--;
    pthread_cond_signal(&q->not_full);
    return item;
}

void queue_close(struct queue *q)
{
    WITH_LOCK(&q->lock);
    q->closed = true;
    pthread_cond_broadcast(&q->not_empty);
    pthread_cond_broadcast(&q->not_full);
}
