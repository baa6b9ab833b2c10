/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where local state lies: one directory per (store, name, source), with a lock, the log of the
 * running or interrupted upload, and that of the last committed version. Inside publish/ only.
 *
 * Threads: a state belongs to one thread.
 */
#ifndef PUBLISH_PUBLISH_STATE_H
#define PUBLISH_PUBLISH_STATE_H

#include "publish/publish-log.h"

#include "base/err.h"

struct state;

/* Open and lock. -EBUSY with a sentence: another process publishes this source under this name. */
int state_open(const char *state_dir, const struct log_identity *id, struct state **ret,
               struct err *err);
void state_close(struct state *s);
AUTO_FREE_FUNC(struct state, state_close);

enum state_log { STATE_JOURNAL, STATE_KNOWN };

/* -ENOENT: there is none that can be used. */
int state_read(const struct state *s, enum state_log which, struct log_reader **ret);
/* A new journal. It takes the place of the old one only with state_promote(), so that a walk that
 * is interrupted loses nothing. */
int state_write(const struct state *s, struct log_writer **ret);
int state_promote(const struct state *s);
/* The journal, flushed and complete, becomes what is known. */
int state_commit(const struct state *s);
/* Forget the interrupted upload (not what is known). */
void state_forget_journal(const struct state *s);
/* Forget a journal that was begun and not promoted. */
void state_forget_next(const struct state *s);

#endif
