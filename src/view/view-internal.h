/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Shared by the files of this folder.
 */
#ifndef VIEW_VIEW_INTERNAL_H
#define VIEW_VIEW_INTERNAL_H

#include "view/view.h"

#include <stdatomic.h>

struct view {
    struct fetch *fetch; /* borrowed */
    struct manifest manifest;
    struct fetch_object *index_object;
    struct index *index;
    struct fetch_series *series; /* of the packs */
    bool quick;                  /* reading is not worth planning */
    struct object_ref begun;     /* what index_object was opened by, ahead of the manifest */
    _Atomic(struct fetch_object *) *packs; /* by position in the manifest; NULL: not opened yet */
};

/* An object that is gone must not look like a file that does not exist. */
int view_object_error(int code);
/* The pack at position `i` of the manifest, opened when it is first asked for. */
int view_open_pack(struct view *v, uint32_t i, struct fetch_object **ret);

#endif
