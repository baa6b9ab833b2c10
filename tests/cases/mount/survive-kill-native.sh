#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# timeout: 900
#
# survive-kill.py where the kernel's own EROFS reads from our server.
[ "$(id -u)" = 0 ] || { echo "needs root (mounts EROFS)"; exit 77; }
MODE=native exec "$TOP/tests/cases/mount/survive-kill.py"
