#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# timeout: 900
#
# survive-kill.py as an ordinary user, with a /dev/fuse that is open to users, as udev makes it.
set -eu

[ "$(id -u)" = 0 ] || { echo "needs root, to become somebody else; survive-kill.py is the user's case"; exit 77; }
[ -e /dev/fuse ] || { echo "there is no /dev/fuse"; exit 77; }
command -v fusermount3 >/dev/null || { echo "there is no fusermount3"; exit 77; }
command -v setpriv >/dev/null || { echo "there is no setpriv"; exit 77; }
dir=$(mktemp -d /tmp/grid-survive-XXXXXX)
trap 'rm -rf "$dir"' EXIT
cp "$GRID" "$TOP/tests/cases/mount/survive-kill.py" "$dir/"
chown -R 65534:65534 "$dir"
export dir
code=0
# shellcheck disable=SC2016 # expanded there
unshare --mount --propagation private sh -eu -c '
    mkdir device
    mount -t tmpfs -o mode=0755 dev device
    mknod -m 0666 device/fuse c 10 229
    chmod 0666 device/fuse
    mount --bind device/fuse /dev/fuse
    umount -l device
    rmdir device
    cd "$dir"
    exec setpriv --reuid=65534 --regid=65534 --clear-groups env -i HOME="$dir" PATH="$PATH" LC_ALL=C.UTF-8 \
        GRID="$dir/grid" GRID_RUNTIME_DIR="$dir/runtime" SOAK="${SOAK:-}" ./survive-kill.py' || code=$?
exit "$code"
