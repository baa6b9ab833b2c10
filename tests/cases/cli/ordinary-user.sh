#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# The main job as an ordinary user with nothing set but HOME: create, list, run, mount, unmount.
. "$TOP/tests/lib/cli.sh"

# Some machines close /dev/fuse to users: as root, open a copy of it in a mount namespace of our own.
if [ "$(id -u)" = 0 ] && [ -e /dev/fuse ] && [ "$(stat -c %a /dev/fuse)" != 666 ] && [ -z "${GRID_FUSE_OPENED:-}" ]; then
    export GRID_FUSE_OPENED=1
    # shellcheck disable=SC2016 # expanded there
    exec unshare -m sh -c 'mkdir dev && mount -t tmpfs -o mode=0755 tmpfs dev && mknod dev/fuse c 10 229 &&
        chmod 0666 dev/fuse && mount --bind dev/fuse /dev/fuse && exec "$0"' "$0"
fi

dir=$(mktemp -d /tmp/grid-user-XXXXXX)
if [ "$(id -u)" = 0 ]; then
    command -v setpriv >/dev/null || { echo "there is no setpriv"; exit 77; }
    chown 65534:65534 "$dir"
    as='setpriv --reuid=65534 --regid=65534 --clear-groups'
else
    as=
fi
cp "$GRID" "$dir/grid"
user() {
    # shellcheck disable=SC2086 # none, or words
    $as env -i HOME="$dir" PATH="$PATH" LC_ALL=C.UTF-8 "$@"
}
trap 'user "$dir/grid" datastore unmount "$dir/mnt" 2>/dev/null || :; cd /; rm -rf "$dir"; rm -rf /tmp/grid-65534' EXIT
cd "$dir"
# shellcheck disable=SC2016 # expanded there
user TOP="$TOP" sh -c '. "$TOP/tests/lib/cli.sh"; make_tree tree; mkdir mnt here'

expect 0 "storing .* in file://$dir/.local/share/grid/store" user "$dir/grid" datastore create tree --name imagenet
[ "$(cat out)" = imagenet:1 ] || fail "create: $(cat out)"
expect 0 '0 bytes stored|[0-9,]+ unchanged' user "$dir/grid" datastore create tree --name imagenet
[ "$(cat out)" = imagenet:2 ] || fail "create: $(cat out)"
expect 0 '' user "$dir/grid" datastore
[ "$(awk 'NR > 1 { print $1 ":" $3 }' out | tr '\n' ' ')" = 'imagenet:2 imagenet:1 ' ] || fail "table: $(cat out)"
[ "$(stat -c %a "$dir/.cache/grid")" = 700 ] || echo "note: the cache has mode $(stat -c %a "$dir/.cache/grid")"

[ -r /dev/fuse ] || [ "$(id -u)" = 0 ] || { echo "there is no /dev/fuse"; exit 77; }
command -v fusermount3 >/dev/null || { echo "there is no fusermount3"; exit 77; }
user "$dir/grid" datastore mount imagenet:1 mnt 2>err || { echo "a user cannot mount here: $(cat err)"; exit 77; }
user diff -r --no-dereference tree mnt || fail "the mount differs"
expect 0 '' user "$dir/grid" datastore mounts
grep -q "$dir/mnt" out || fail "mounts: $(cat out)"
expect 0 '' user "$dir/grid" datastore unmount mnt

user "$dir/grid" run --datastore_name imagenet true 2>err || { echo "a user cannot attach here: $(cat err)"; exit 77; }
expect 0 '' user "$dir/grid" run --datastore_name imagenet -- diff -r --no-dereference tree /datastores/imagenet
expect 0 '' user "$dir/grid" run --datastore_name imagenet --datastore_mount_dir "$dir/here" -- cat here/hello.txt
[ "$(cat out)" = hello ] || fail "mount directory: $(cat out)"
expect 0 '' user "$dir/grid" run --datastore_name imagenet -- id -u
[ "$(cat out)" = "$(user id -u)" ] || fail "the user is $(cat out) inside"
expect 3 '' user "$dir/grid" run --datastore_name imagenet -- sh -c 'exit 3'
# What users meet: a directory of somebody else's, a machine that keeps /dev/fuse to root.
if [ "$(id -u)" = 0 ]; then
    mkdir foreign
    expect 1 'foreign: users may only mount on directories' user "$dir/grid" datastore mount imagenet foreign
fi
if [ -n "${GRID_FUSE_OPENED:-}" ]; then
    chmod 0600 /dev/fuse
    expect 1 'you may not open /dev/fuse; root' user "$dir/grid" run --datastore_name imagenet true
    chmod 0666 /dev/fuse
fi
grep -q "$dir" /proc/self/mountinfo && fail "a mount is left"
exit 0
