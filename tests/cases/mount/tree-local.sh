#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# tree.py, mounted by the kernel's own EROFS: mode local.
[ "$(id -u)" = 0 ] || { echo "needs root (mounts EROFS)"; exit 77; }
MODE=local exec "$TOP/tests/cases/mount/tree.py"
