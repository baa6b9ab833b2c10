/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A bounded first-in, first-out queue of pointers between threads.
 *
 * queue_push() waits while the queue is full, queue_pop() while it is empty. queue_close() wakes
 * everybody: pushes are then refused, pops give what is left and then NULL. The queue does not own
 * what passes through it. Threads: any number on both sides.
 */
#ifndef BASE_QUEUE_H
#define BASE_QUEUE_H

#include <stdbool.h>
#include <stddef.h>

struct queue;

struct queue *queue_new(size_t capacity);     /* NULL: no memory */
void queue_free(struct queue *q);             /* nobody may be waiting */
bool queue_push(struct queue *q, void *item); /* false: closed; the item stays the caller's */
void *queue_pop(struct queue *q);             /* NULL: closed and empty */
void queue_close(struct queue *q);

#endif
