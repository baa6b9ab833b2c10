#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# timeout: 120
#
# The checker of whole stores: silent over a good one, and each damage is seen, by its rule.
. "$TOP/tests/lib/cli.sh"

export GRID_STORE=$PWD/store
make_tree tree
for n in 1 2 3; do
    echo $n >tree/number
    "$GRID" datastore create tree --name t >out 2>err || fail "create: $(cat err)"
done
"$GRID" datastore create tree --name u >out 2>err || fail "create: $(cat err)"
expect 0 '' "$GRID" datastore delete --name t --version 2 --yes
expect 0 '' "$GRID" datastore fsck
grep -qE '^3 available versions, [0-9]+ objects, .*: good$' out || fail "fsck: $(cat out)"
expect 0 '' "$GRID" datastore fsck --json
[ "$(json out 'd["findings"], d["available"], d["unnamed_objects"]')" = '([], 3, 0)' ] || fail "$(cat out)"
GRID_STORE=$PWD/none expect 1 'none' "$GRID" datastore fsck

# damage RULE COMMAND...: in a copy of the store
damage() {
    rule=$1
    shift
    rm -rf store.good
    cp -a store store.good
    (cd store && "$@") || fail "cannot damage: $*"
    code=0
    "$GRID" datastore fsck >out 2>err || code=$?
    [ "$code" = 1 ] || fail "'$*' gave $code: $(cat out err)"
    grep -q "^$rule: " out || fail "'$*' is not seen as $rule: $(cat out)"
    rm -rf store
    mv store.good store
}
flip() { printf 'X' | dd of="$1" bs=1 seek="$2" conv=notrunc 2>dd.err || { cat dd.err; return 1; }; rm dd.err; }
t=n/t/v
one=$t/9999999998 two=$t/9999999997 three=$t/9999999996
pack=$(cd store && find p -type f -printf '%s %p\n' | sort -n | tail -1 | cut -d' ' -f2)
manifest=$(cd store && find m -type f | head -1)
index=$(cd store && find x -type f | head -1)
session=$(echo "$pack" | cut -d/ -f2)

damage R3 rm fmt
damage R3 flip fmt 40
damage R3 flip $one/o 100
damage R3 truncate -s 30 $three/a
damage R3 truncate -s 0 $two/d/000001/r
damage R6 sh -c 'mkdir z && echo x >z/y'
damage R6 sh -c "echo x >$one/z"
damage R6 sh -c 'mkdir -p l/t/1 && echo x >l/t/1/whatever'
damage I1 rm $one/a
damage I1 rm $two/a
damage I1 rm -r $two
damage I1 cp n/u/v/9999999998/a $one/a
damage I1 cp n/u/v/9999999998/o $one/o
damage R3 sh -c "cp $one/a $three/a"
damage I5 rm "$manifest"
damage I5 rm "$index"
damage I5 rm "$pack"
damage I5 truncate -s +1 "$pack"
damage I5 flip "$manifest" 20
damage I5 sh -c "size=\$(stat -c %s $pack); printf X | dd of=$pack bs=1 seek=\$((size - 8)) conv=notrunc 2>/dev/null"
damage I6 sh -c 'mkdir -p p/0123456789abcdef0123456789abcdef && echo x >p/0123456789abcdef0123456789abcdef/0'
damage I12 sh -c "rm -r n/u/v/9999999998/o s/\$(sed -n 's/.*\"session\":\"\\([0-9a-f]*\\)\".*/\\1/p' n/u/v/9999999998/a)"
damage I14 rm $two/d/000001/i
damage I10 rm g/9999999998/c
damage I10 rm g/9999999998/w
damage I11 sh -c 'rm g/9999999998/e && mkdir g/9999999997 && cp g/9999999998/c g/9999999997/c'
expect 0 '' "$GRID" datastore fsck
