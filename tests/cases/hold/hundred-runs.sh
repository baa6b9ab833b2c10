#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# timeout: 120
#
# A hundred runs of one version at once: all read it, none can lose it, each is listed, and the last one
# takes everything with it.
. "$TOP/tests/lib/cli.sh"

[ -e /dev/fuse ] || { echo "there is no /dev/fuse"; exit 77; }
RUNS=100
make_tree tree
"$GRID" datastore create tree --name t >out 2>err || fail "create: $(cat err)"
"$GRID" run --datastore_name t true 2>err || { echo "datastores cannot be attached here: $(cat err)"; exit 77; }
mkdir up seen
export GRID
for n in $(seq $RUNS); do
    "$GRID" run --datastore_name t --name "r$n" -- sh -c '
        : >up/$0; while [ ! -e down ]; do sleep 0.2; done; cat /datastores/t/hello.txt >seen/$0' "$n" 2>>complaints &
done
for _ in $(seq 600); do
    [ "$(ls up | wc -l)" = $RUNS ] && break
    sleep 0.1
done
[ "$(ls up | wc -l)" = $RUNS ] || fail "only $(ls up | wc -l) of $RUNS runs began: $(sort -u complaints | head -n 5)"
expect 0 '' "$GRID" run --json
[ "$(json out 'len({r["run"] for r in d})')" = $RUNS ] || fail "the list has $(json out 'len(d)') rows"
MANY_LINES=1
expect 1 "version 1 of 't' is in use: " "$GRID" datastore delete --name t --version 1 --yes
: >down
wait
[ "$(cat seen/* | sort | uniq -c | awk '{ print $1, $2 }')" = "$RUNS hello" ] || fail "they read $(cat seen/* | sort | uniq -c)"
expect 0 'no runs' "$GRID" run
expect 0 '' "$GRID" datastore delete --name t --version 1 --yes
