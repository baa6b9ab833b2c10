#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# An upload that is interrupted: nothing visible, told how to go on, continued under its number.
. "$TOP/tests/lib/cli.sh"
MANY_LINES=1

mkdir tree
head -c 400M /dev/zero | openssl enc -aes-128-ctr -pass pass:x -nosalt 2>/dev/null >tree/large
echo small >tree/small

# Start, wait until data is being written, and send a signal.
interrupted() { # SIGNAL
    "$GRID" datastore create tree --name t >out 2>err &
    pid=$!
    for _ in $(seq 600); do
        # Anything in the store that is as large as a part of a pack.
        [ -n "$(find store -type f -size +4096k 2>/dev/null | head -n 1)" ] && break
        kill -0 $pid 2>/dev/null || break
        sleep 0.01
    done
    kill "-$1" $pid 2>/dev/null || { echo "the upload was faster than the signal"; exit 77; }
    got=0
    wait $pid || got=$?
}

interrupted INT
[ "$got" = 130 ] || fail "after SIGINT the exit code is $got: $(cat err)"
grep -q 'nothing of this upload is visible.*resume --name t' err || fail "no word on how to go on: $(cat err)"
expect 0 'no datastores' "$GRID" datastore
expect 0 '' "$GRID" datastore --json
[ "$(json out d)" = '[]' ] || fail "it is visible: $(cat out)"
expect 0 '' "$GRID" datastore --show-incomplete --json
[ "$(json out '[(r["name"], r["version"], r["status"]) for r in d]')" = "[('t', 1, 'processing')]" ] ||
    fail "--show-incomplete: $(cat out)"
expect 1 't' "$GRID" datastore show t

expect 1 'no interrupted upload of other' "$GRID" datastore resume --name other
expect 0 'continuing the interrupted upload of t:1' "$GRID" datastore resume
[ "$(cat out)" = t:1 ] || fail "resume: $(cat out)"
expect 0 '' "$GRID" datastore verify t:1
"$GRID" datastore cat t/large | cmp - tree/large || fail "the resumed version differs"
expect 0 'no interrupted upload' "$GRID" datastore resume

# Killed without a word; the same command continues.
head -c 300M /dev/zero | openssl enc -aes-128-ctr -pass pass:y -nosalt 2>/dev/null >tree/large
interrupted KILL
[ "$got" = 137 ] || fail "after SIGKILL the exit code is $got"
expect 0 '' "$GRID" datastore --json
[ "$(json out 'len(d)')" = 1 ] || fail "it is visible: $(cat out)"
expect 0 'continuing the interrupted upload of t:2' "$GRID" datastore create tree --name t
[ "$(cat out)" = t:2 ] || fail "create: $(cat out)"
"$GRID" datastore cat t/large | cmp - tree/large || fail "the continued version differs"

# Given up: the number is not used again, and nothing can be resumed.
head -c 310M /dev/zero | openssl enc -aes-128-ctr -pass pass:z -nosalt 2>/dev/null >tree/large
interrupted KILL
expect 0 'forgot 1 interrupted upload' "$GRID" datastore clearcache
expect 0 'no interrupted upload' "$GRID" datastore resume
expect 0 '' "$GRID" datastore --show-incomplete --json
[ "$(json out '[(r["version"], r["status"]) for r in d][0]')" = "(3, 'failed')" ] || fail "given up: $(cat out)"
expect 0 'storing' "$GRID" datastore create tree --name t
[ "$(cat out)" = t:4 ] || fail "create: $(cat out)"
expect 0 '' "$GRID" datastore verify t
