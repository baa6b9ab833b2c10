#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# timeout: 600
#
# A version is deleted while another process attaches it, many times: one of the two succeeds, the
# other one says why not, and who attached reads right bytes for as long as it likes.
. "$TOP/tests/lib/cli.sh"

[ -e /dev/fuse ] || { echo "there is no /dev/fuse"; exit 77; }
if [ "$(id -u)" != 0 ] && ! command -v fusermount3 >/dev/null; then
    echo "an ordinary user needs fusermount3"
    exit 77
fi
mkdir tree
head -c 200000 /dev/urandom >tree/bytes
attached=0 deleted=0
for n in $(seq 50); do
    echo "$n" >tree/number
    "$GRID" datastore create tree --name t >out 2>err || fail "create: $(cat err)"
    rm -f done
    # Either may be ahead, by more and less, so that every step of both is met.
    ahead=$(awk "BEGIN { print ($n % 25) * 0.002 }")
    [ $((n % 2)) = 0 ] && late_run=$ahead late_delete=0 || late_run=0 late_delete=$ahead
    (sleep "$late_run" && exec "$GRID" run --datastore_name t --datastore_version "$n" --name "run$n" -- sh -c '
        while [ ! -e done ]; do sleep 0.01; done
        cmp /datastores/t/bytes tree/bytes && cat /datastores/t/number') >run.out 2>run.err &
    run=$!
    sleep "$late_delete"
    code=0
    "$GRID" datastore delete --name t --version "$n" --yes >delete.out 2>delete.err || code=$?
    : >done
    if wait "$run"; then
        [ "$code" = 1 ] || fail "round $n: deleted ($code) under a run that read it"
        [ "$(cat run.out)" = "$n" ] || fail "round $n: the run read $(cat run.out)"
        grep -q "in use: run run$n on " delete.err || fail "round $n: $(cat delete.err)"
        attached=$((attached + 1))
    else
        [ "$code" = 0 ] || fail "round $n: neither: $(cat run.err) $(cat delete.err)"
        grep -qE "deleted|lease|missing|cannot (open|read)" run.err || fail "round $n: $(cat run.err)"
        deleted=$((deleted + 1))
    fi
done
echo "$attached attached first, $deleted were deleted first"
[ "$attached" -gt 0 ] && [ "$deleted" -gt 0 ] || fail "one of the two always wins: nothing was raced"
expect 0 '' "$GRID" datastore fsck
