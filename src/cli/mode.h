/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How a version is mounted: chosen before its server is started.
 */
#ifndef CLI_MODE_H
#define CLI_MODE_H

#include "cli/cmd-mount.h"

#define MODE_ONLY_ROOT "only root may have the kernel mount an index"

const char *mode_name(enum mode mode);
/* --mode, or auto. Gives an exit code. */
int mode_option(const struct args *args, enum mode *ret);
/* Whether a mode is possible that looks at the view before a server is started. */
bool mode_wants_view(const struct cli *cli, enum mode wanted);
/* From s->reading.mode and the opened version: the mode, in `s` and in the record, and why no
 * better one. Gives an exit code. */
int mode_choose(struct cli *cli, struct opened *o, struct serve *s, struct attach_record *record);
/* The kernel refused after all (-EOPNOTSUPP): the next best mode, or false if it was asked for. */
bool mode_step_down(struct serve *s, struct attach_record *record, const struct err *err);
/* The same for what a run attaches: true if anything changed. */
bool mode_step_down_all(struct items *items, const struct err *err);
/* mode-probe.c: does this machine's kernel mount our images, and read the right bytes? `wide`: such
 * of the 48-bit layout. Tried once per boot; if not, why. */
bool mode_probe(bool wide, char *ret_why, size_t size);

#endif
