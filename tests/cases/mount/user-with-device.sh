#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# The ordinary user's case again, with a /dev/fuse that is open to users, as udev makes it, where
# this machine's is not. Seen by this case alone.
set -eu

[ "$(id -u)" = 0 ] || { echo "needs root, to make a device node"; exit 77; }
[ -e /dev/fuse ] || { echo "there is no /dev/fuse"; exit 77; }
case $(stat -c %a /dev/fuse) in
*[67]) echo "/dev/fuse is open to users here: cli/ordinary-user.sh has done it"; exit 77 ;;
esac
mkdir device
export TOP GRID
exec unshare --mount --propagation private sh -eu -c '
    mount -t tmpfs -o mode=0755 dev device
    mknod -m 0666 device/fuse c 10 229
    chmod 0666 device/fuse
    mount --bind device/fuse /dev/fuse
    umount -l device
    exec "$TOP/tests/cases/cli/ordinary-user.sh"'
