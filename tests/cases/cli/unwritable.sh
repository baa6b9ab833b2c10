#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# A source that cannot be read, a store that cannot be written to, a full disk: told, and nothing is
# half-visible. Needs root, who becomes somebody else for what root may always do.
. "$TOP/tests/lib/cli.sh"

[ "$(id -u)" = 0 ] || { echo "only root can become somebody else and mount a small file system"; exit 77; }
dir=$(mktemp -d /tmp/grid-cli-XXXXXX)
trap 'umount "$dir/small" 2>/dev/null || :; rm -rf "$dir"' EXIT
chmod 0755 "$dir"
cp "$GRID" "$dir/grid" # where everybody can run it
as_nobody() {
    setpriv --reuid=65534 --regid=65534 --clear-groups \
        env HOME="$dir/home" GRID_STORE="$GRID_STORE" GRID_CACHE="$dir/home/cache" "$@"
}
mkdir "$dir/home" "$dir/tree"
chown 65534:65534 "$dir/home"
cd "$dir"
MANY_LINES=1

echo a >tree/a
echo b >tree/unreadable
chmod 0000 tree/unreadable
export GRID_STORE="file://$dir/home/store"
expect 1 'unreadable' as_nobody "$dir/grid" datastore create tree --name x
expect 0 '' as_nobody "$dir/grid" datastore --json
[ "$(json out d)" = '[]' ] || fail "a failed upload is visible"
expect 0 'there are no datastores' "$dir/grid" datastore # nor is it counted for others
rm tree/unreadable

# A store of somebody else's, read-only: reading works, writing does not.
export GRID_STORE="file://$dir/rootstore"
"$dir/grid" datastore create tree --name x >out 2>err || fail "create: $(cat err)"
chmod -R go+rX,go-w rootstore
expect 1 'rootstore.*(Permission denied|Read-only)' as_nobody "$dir/grid" datastore create tree --name y
expect 0 'belongs to root' as_nobody "$dir/grid" datastore cat x/a
[ "$(cat out)" = a ] || fail "cat gave $(cat out)"
expect 0 'version of others|versions of others' as_nobody "$dir/grid" datastore
expect 0 '' as_nobody "$dir/grid" datastore --global --json
[ "$(json out 'd[0]["owner"]')" = root ] || fail "owner: $(cat out)"

# Somebody else's name.
chmod -R a+rwX rootstore
expect 1 'x.*root' as_nobody "$dir/grid" datastore create tree --name x
grep -q append err || fail "--append is not mentioned: $(cat err)"
expect 0 '' sh -c 'setpriv --reuid=65534 --regid=65534 --clear-groups env HOME="$1/home" GRID_CACHE="$1/home/cache" "$1/grid" datastore create "$1/tree" --name x --append 2>/dev/null' - "$dir"
[ "$(cat out)" = x:2 ] || fail "--append gave $(cat out)"

# A full disk.
mkdir small
mount -t tmpfs -o size=4M,mode=0777 tmpfs small
export GRID_STORE="file://$dir/small/store"
head -c 8M /dev/urandom >tree/large
expect 1 'does not fit' "$dir/grid" datastore create tree --name full
expect 0 '' "$dir/grid" datastore --json
[ "$(json out d)" = '[]' ] || fail "a failed upload is visible"
rm tree/large
expect 0 'storing' "$dir/grid" datastore create tree --name full
expect 0 '' "$dir/grid" datastore verify full

# Fits by its size, but not by what is there when it is written.
head -c 3500000 /dev/urandom >tree/large
head -c 2M /dev/zero >small/ballast
expect 1 'No space|does not fit|full' "$dir/grid" datastore create tree --name full
rm small/ballast
expect 0 '' "$dir/grid" datastore verify full
