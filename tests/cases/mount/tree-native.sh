#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# tree.py, mounted by the kernel's own EROFS: mode native.
[ "$(id -u)" = 0 ] || { echo "needs root (mounts EROFS)"; exit 77; }
MODE=native exec "$TOP/tests/cases/mount/tree.py"
