#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# timeout: 60
#
# Deleting: refused while anybody has it attached, by name; possible right after; for good.
. "$TOP/tests/lib/cli.sh"

[ -e /dev/fuse ] || { echo "there is no /dev/fuse"; exit 77; }
if [ "$(id -u)" != 0 ] && ! command -v fusermount3 >/dev/null; then
    echo "an ordinary user needs fusermount3"
    exit 77
fi
trap '"$GRID" datastore unmount --lazy mnt 2>/dev/null || :' EXIT

make_tree tree
for n in 1 2 3 4; do
    echo $n >tree/number
    "$GRID" datastore create tree --name t >out 2>err || fail "create: $(cat err)"
done
delete() { "$GRID" datastore delete --name t --version "$@"; }

# What is wrong is said before anything is asked or done.
expect 2 '--name NAME is missing' "$GRID" datastore delete
expect 2 '--version N is missing' "$GRID" datastore delete --name t
expect 2 'is no name of a datastore' "$GRID" datastore delete --name ../t --version 1
expect 2 'is a number from 1' "$GRID" datastore delete --name t --version 0
expect 2 'is a number from 1' "$GRID" datastore delete --name t --version newest
expect 1 "has no version 9; its versions are 1 to 4" delete 9 --yes
expect 1 "no datastore is named 'u'" "$GRID" datastore delete --name u --version 1 --yes
expect 1 'there is no terminal to ask on; --yes deletes without a question' delete 1
GRID_STORE=$PWD/nowhere expect 1 'nowhere' delete 1 --yes
[ ! -e nowhere ] || fail "a store was made"

# A mount, and a run, each by its name; the others can go.
mkdir mnt
expect 0 '' "$GRID" datastore mount t:1 mnt
expect 0 '' "$GRID" datastore mounts --json
[ "$(json out 'd[0]["protection"]')" = protected ] || fail "mounts: $(cat out)"
expect 1 "version 1 of 't' is in use: mount $PWD/mnt on .* \(process [0-9]+\) since 20" delete 1 --yes
expect 0 '' "$GRID" datastore show t:1
grep -q "^Held by  *mount $PWD/mnt on " out || fail "show: $(cat out)"
expect 0 '' "$GRID" datastore show t:1 --json
[ "$(json out 'd["holders"][0]["job"]')" = "mount $PWD/mnt" ] || fail "show --json: $(cat out)"
expect 0 '' delete 2 --yes
grep -qE '^t:2 deleted, .* freed in [0-9]+ objects?$' out || fail "delete: $(cat out)"
cmp tree/dir/big mnt/dir/big || fail "another version has changed"
expect 0 '' "$GRID" datastore unmount mnt
expect 0 '' delete 1 --yes
expect 1 "version 1 of 't' was deleted" delete 1 --yes
expect 1 "version 1 of 't' was deleted" "$GRID" datastore mount t:1 mnt

export GRID
"$GRID" run --datastore_name t --datastore_version 3 --name alpha -- sh -c '
    "$GRID" datastore delete --name t --version 3 --yes 2>inside && exit 9
    cat /datastores/t/number' >out 2>err || fail "run: $(cat err)"
[ "$(cat out)" = 3 ] || fail "the run read $(cat out)"
grep -q "is in use: run alpha on .* (process [0-9]*) since 20" inside || fail "inside: $(cat inside)"
expect 0 '' delete 3 --yes

# Numbers do not return; what is left is whole.
"$GRID" datastore create tree --name t >out 2>err || fail "create: $(cat err)"
grep -q '^t:5$' out || fail "the next number: $(cat out)"
expect 0 '' "$GRID" datastore verify t:4
expect 0 '' "$GRID" datastore verify t:5

# A server that was killed holds nothing: its process is gone, and that is known here.
expect 0 '' "$GRID" datastore mount t:4 mnt
expect 0 '' "$GRID" datastore mounts --json
server=$(json out 'd[0]["server"]')
children=$(cat /proc/"$server"/task/*/children)
kill -9 "$server" $children
for _ in $(seq 500); do
    grep -qs ') [^Z]' "/proc/$server/stat" || break
    sleep 0.01
done
expect 0 '' delete 4 --yes
"$GRID" datastore mounts >/dev/null 2>&1 # takes away what was left

# By force: recorded, and the reader's reads fail, with an error.
expect 0 '' "$GRID" datastore mount t:5 mnt
expect 0 '1 who had it attached was overruled' delete 5 --force --yes
cmp tree/dir/big mnt/dir/big 2>/dev/null && fail "bytes of a version that is gone"
expect 0 '' "$GRID" datastore unmount mnt
expect 0 'there are no datastores' "$GRID" datastore list --show-incomplete
[ "$(find store -path 'store/[pxm]/*' -type f | wc -l)" = 0 ] || fail "objects are left"
expect 0 '' "$GRID" datastore fsck
