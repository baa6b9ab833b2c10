#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# mount, mounts, unmount: what is mounted is what was stored, and nothing is left behind.
. "$TOP/tests/lib/cli.sh"

[ -e /dev/fuse ] || { echo "there is no /dev/fuse"; exit 77; }
if [ "$(id -u)" != 0 ] && ! command -v fusermount3 >/dev/null; then
    echo "an ordinary user needs fusermount3"
    exit 77
fi
trap '"$GRID" datastore unmount mnt 2>/dev/null || :; "$GRID" datastore unmount "mnt two" 2>/dev/null || :' EXIT

make_tree tree
"$GRID" datastore create tree --name t >out 2>err || fail "create: $(cat err)"
expect 0 'nothing is mounted' "$GRID" datastore mounts
expect 0 '' "$GRID" datastore mounts --json
[ "$(json out d)" = '[]' ] || fail "mounts --json: $(cat out)"

mkdir mnt "mnt two"
expect 0 '' "$GRID" datastore mount t:1 mnt
diff -r --no-dereference tree mnt || fail "the mount differs"
[ "$(readlink mnt/dir/link)" = ../hello.txt ] || fail "the symbolic link differs"
[ "$(stat -c %h mnt/dir/small)" = 2 ] || fail "the link count differs"
[ "$(stat -c %Y mnt/hello.txt)" = "$(stat -c %Y tree/hello.txt)" ] || fail "the time differs"
[ "$(find mnt | wc -l)" = "$(find tree | wc -l)" ] || fail "find sees other names"
(: >mnt/new) 2>/dev/null && fail "the mount can be written to"

expect 0 '' "$GRID" datastore mounts
grep -qE "^t +1 +local +$PWD/mnt +fuse +protected +[0-9-]+ [0-9:]+$" out || fail "mounts: $(cat out)"
expect 0 '' "$GRID" datastore mounts --json
[ "$(json out 'd[0]["name"], d[0]["version"], d[0]["mode"], d[0]["mountpoint"].endswith("/mnt")')" = \
    "('t', 1, 'fuse', True)" ] || fail "mounts --json: $(cat out)"

# Twice on one place is refused; the same version elsewhere works.
expect 1 'mnt: it is not empty' "$GRID" datastore mount t mnt
expect 0 '' "$GRID" datastore mount t "mnt two" --memory 64M
cmp "mnt two/dir/big" tree/dir/big || fail "the second mount differs"
expect 0 '' "$GRID" datastore unmount "mnt two/"

# In use: refused, unless lazily.
exec 3<mnt/hello.txt
expect 1 'mnt' "$GRID" datastore unmount mnt
cmp mnt/hello.txt tree/hello.txt || fail "a refused unmount did harm"
exec 3<&-
expect 0 '' "$GRID" datastore unmount "$PWD/mnt"
[ -z "$(ls -A mnt)" ] || fail "something is left at the mount point"
expect 0 'nothing is mounted' "$GRID" datastore mounts
expect 1 'mnt' "$GRID" datastore unmount mnt

# A damaged leaf is an error of that range only, and a line in the log.
head -c 2000000 /dev/urandom >tree/many-leaves
"$GRID" datastore create tree --name t >out 2>err || fail "create: $(cat err)"
pack=$(find store/p -type f -size +1900k | head -n 1)
chmod 0644 "$pack"
printf 'XXXX' | dd of="$pack" bs=1 seek=1000000 conv=notrunc 2>/dev/null
expect 0 '' "$GRID" datastore mount t:2 mnt
hurt=0
for f in $(cd tree && find . -type f -size +64k -name '[a-z]*'); do
    cmp "tree/$f" "mnt/$f" >/dev/null 2>cmp.err || {
        hurt=$((hurt + 1))
        grep -q 'Input/output error' cmp.err || fail "$f has wrong bytes: $(cat cmp.err)"
    }
done
[ "$hurt" = 1 ] || fail "$hurt files are damaged instead of one"
cmp tree/hello.txt mnt/hello.txt || fail "an undamaged file"
grep -rqE 'p/[0-9a-f]+/[0-9]+' runtime/log || fail "the log does not name the pack"
expect 0 '' "$GRID" datastore unmount mnt
