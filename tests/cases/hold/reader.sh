#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# timeout: 60
#
# Who may read a store and not write to it attaches unprotected: is told so once, is not seen by a
# deletion, and then gets errors and no wrong bytes. --require-lease refuses.
. "$TOP/tests/lib/cli.sh"

[ "$(id -u)" = 0 ] || { echo "needs root: a store of somebody else's"; exit 77; }
command -v setpriv >/dev/null || { echo "there is no setpriv"; exit 77; }
if [ "$(stat -c %a /dev/fuse 2>/dev/null)" != 666 ] && [ -z "${GRID_FUSE_OPENED:-}" ]; then
    export GRID_FUSE_OPENED=1
    # shellcheck disable=SC2016 # expanded there
    exec unshare -m sh -c 'mkdir dev && mount -t tmpfs -o mode=0755 tmpfs dev && mknod dev/fuse c 10 229 &&
        chmod 0666 dev/fuse && mount --bind dev/fuse /dev/fuse && exec "$0"' "$0"
fi
dir=$(mktemp -d /tmp/grid-reader-XXXXXX)
chmod 0755 "$dir"
cp "$GRID" "$dir/grid"
mkdir "$dir/home"
chown 65534:65534 "$dir/home"
user() {
    setpriv --reuid=65534 --regid=65534 --clear-groups \
        env -i HOME="$dir/home" PATH="$PATH" GRID_STORE="$dir/store" "$@"
}
trap 'user "$dir/grid" datastore unmount --lazy "$dir/home/mnt" 2>/dev/null || :; cd /; rm -rf "$dir" /tmp/grid-65534' EXIT
export GRID_STORE="$dir/store"
make_tree tree
"$GRID" datastore create tree --name t >out 2>err || fail "create: $(cat err)"
chmod -R a+rX "$dir/store"
cd "$dir/home"
user mkdir mnt

user "$dir/grid" datastore mount t mnt 2>err || { echo "a user cannot mount here: $(cat err)"; exit 77; }
grep -q 't:1 is attached unprotected, and may be deleted meanwhile: cannot write l/t/1/' err || fail "mount: $(cat err)"
expect 0 '' user "$dir/grid" datastore mounts --json
[ "$(json out 'd[0]["protection"]')" = unprotected ] || fail "mounts: $(cat out)"
MANY_LINES=1 expect 1 'cannot write l/t/1/' user "$dir/grid" run --require-lease --datastore_name t -- true
expect 1 'cannot be written to' user "$dir/grid" datastore delete --name t --version 1 --yes
expect 0 '' "$GRID" datastore show t
grep -q '^Held by  *nobody$' out || fail "show: $(cat out)"
expect 0 '' "$GRID" datastore delete --name t --version 1 --yes
user cat mnt/dir/big >bytes 2>/dev/null && fail "bytes of a version that is gone"
expect 0 '' user "$dir/grid" datastore unmount mnt
expect 0 '' "$GRID" datastore fsck
