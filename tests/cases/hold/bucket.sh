#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# timeout: 300
#
# Holding and deleting with a bucket as the store: sessions and runs hold their versions by leases there, by
# name; what ended, or was killed, holds nothing; in the end nothing is left.
. "$TOP/tests/lib/cli.sh"
. "$TOP/tests/lib/s3.sh"
[ -e /dev/fuse ] || { echo "there is no /dev/fuse"; exit 77; }
export GRID_STORE="s3://$S3_TEST_BUCKET/$S3_TEST_PREFIX"

make_tree tree
for n in 1 2 3; do
    echo $n >tree/number
    "$GRID" datastore create tree --name t >out 2>err || fail "create: $(cat err)"
done
delete() { "$GRID" datastore delete --name t --version "$@" --yes; }

expect 0 '' "$GRID" session create --datastore_name t:1 --name s1
[ "$(s3_count l/)" = 1 ] || fail "there is no lease in the bucket"
expect 1 "version 1 of 't' is in use: session s1 on .* since 20" delete 1
expect 0 '' delete 2
expect 1 "version 2 of 't' was deleted" "$GRID" run --datastore_name t:2 true
expect 0 '' "$GRID" session enter s1 cat /datastores/t/number
[ "$(cat out)" = 1 ] || fail "the session reads $(cat out)"
expect 0 '' "$GRID" session delete s1
expect 0 '' delete 1

# Killed, with its server: known on this machine at once.
"$GRID" run --datastore_name t --name r1 -- sh -c 'echo up >up; exec sleep 600' &
run=$!
while [ ! -e up ]; do sleep 0.05; done
expect 1 "version 3 of 't' is in use: run r1 on " delete 3
expect 0 '' "$GRID" run --json
server=$(json out 'd[0]["server"]')
# shellcheck disable=SC2046 # numbers
kill -9 "$server" $(cat /proc/"$server"/task/*/children) $(cat /proc/$run/task/*/children) $run
wait $run || :
for _ in $(seq 500); do
    grep -qs ') [^ZX]' "/proc/$server/stat" || break
    sleep 0.01
done
expect 0 '' delete 3
expect 0 '' "$GRID" datastore gc
expect 0 '' "$GRID" datastore fsck
for kind in p x m; do
    [ "$(s3_count $kind/)" = 0 ] || fail "objects are left below $kind/"
done
"$GRID" datastore create tree --name t >out 2>err || fail "create: $(cat err)"
[ "$(cat out)" = t:4 ] || fail "a number has returned: $(cat out)"
