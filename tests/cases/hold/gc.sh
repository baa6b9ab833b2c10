#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# timeout: 60
#
# Collection: frees what no version needs and nothing else, waits for uploads without standing still,
# and stops at what it does not know.
. "$TOP/tests/lib/cli.sh"

store=$PWD/store
export GRID_STORE=$store
size() { find "$store" -path "$store/[pxm]/*" -type f -printf '%s\n' | awk '{ s += $1 } END { print s + 0 }'; }

expect 0 '' "$GRID" datastore gc
grep -qx 'nothing to reclaim' out || fail "gc of no store: $(cat out)"
[ ! -e "$store" ] || fail "a store was made"
make_tree tree
"$GRID" datastore create tree --name t >out 2>err || fail "create: $(cat err)"
head -c 400000 /dev/urandom >tree/second
"$GRID" datastore create tree --name t >out 2>err || fail "create: $(cat err)"
head -c 400000 /dev/urandom >tree/other
"$GRID" datastore create tree --name u >out 2>err || fail "create: $(cat err)"
expect 0 '' "$GRID" datastore gc
grep -qx 'nothing to reclaim' out || fail "gc: $(cat out)"
expect 2 'unknown option --hard' "$GRID" datastore gc --hard

# An upload that is stopped half-way leaves objects; it may be resumed, so they stay, and gc says so.
strace_or_stop() {
    "$GRID" datastore create tree --name v >out 2>err &
    pid=$!
    for _ in $(seq 500); do
        [ -n "$(find "$store/s" -name i 2>/dev/null | sed -n 4p)" ] && break
        sleep 0.005
    done
    kill -9 "$pid" 2>/dev/null || :
    wait "$pid" || :
}
head -c 30000000 /dev/urandom >tree/large
strace_or_stop
rm tree/large
before=$(size)
expect 0 '' "$GRID" datastore gc --dry-run --json
[ "$(json out 'd["dry_run"]')" = True ] || fail "dry run: $(cat out)"
[ "$(size)" = "$before" ] || fail "a dry run has removed something"
[ "$(find "$store/g" -type f 2>/dev/null | wc -l)" = 0 ] || fail "a dry run has written something"
if [ "$("$GRID" datastore list --show-incomplete --json | tee out | grep -c '"v"')" = 1 ]; then
    expect 0 '' "$GRID" datastore delete --name v --version 1 --yes
    grep -q '^v:1 ' out || fail "giving up: $(cat out)"
fi

# Of a deleted version goes what no other needs.
before=$(size)
expect 0 '' "$GRID" datastore delete --name t --version 2 --yes
[ "$(size)" -lt $((before - 390000)) ] || fail "its space did not come back: $before, $(size)"
for v in t:1 u:1; do
    expect 0 '' "$GRID" datastore verify "$v"
done
expect 0 '' "$GRID" datastore gc
grep -qx 'nothing to reclaim' out || fail "gc: $(cat out)"

# What nobody knows stops it before anything is removed.
expect 0 '' "$GRID" datastore gc --dry-run
mkdir -p "$store/z"
echo x >"$store/z/strange"
before=$(size)
expect 0 'z/ in the store .* is nothing that this program knows' \
    "$GRID" datastore delete --name u --version 1 --yes
[ "$(size)" = "$before" ] || fail "something was removed from a strange store"
expect 1 'is nothing that this program knows' "$GRID" datastore gc
rm -r "$store/z"
expect 0 '' "$GRID" datastore gc --json
[ "$(json out 'd["objects"] > 0 and d["ended"]')" = True ] || fail "gc --json: $(cat out)"
expect 0 '' "$GRID" datastore verify t:1
expect 0 '' "$GRID" datastore fsck
