#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# An upload that is interrupted: nothing visible, told how to go on, continued under its number.
. "$TOP/tests/lib/cli.sh"
MANY_LINES=1

mkdir tree
head -c 240M /dev/zero | openssl enc -aes-128-ctr -pass pass:x -nosalt 2>/dev/null >tree/large
echo small >tree/small

# It is visible while it runs, and nobody else may do the same, or pull its state away.
while_running() {
    "$GRID" datastore --json >running
    [ "$(json running '[r["status"] in ("processing", "optimizing") for r in d][0]')" = True ] ||
        fail "a running upload is not shown: $(cat running)"
    (expect 1 't' "$GRID" datastore create tree --name t)
    (expect 1 'under way' "$GRID" datastore clearcache)
    (expect 1 'under way' "$GRID" datastore resume)
}

# Start, wait until data is being written, and send a signal.
interrupted() { # SIGNAL
    before=$(echo store/p/*/*)
    [ -e store/p ] || before=
    # A shell's background jobs ignore SIGINT; this one must not.
    env --default-signal=INT "$GRID" datastore create tree --name t >first.out 2>first.err &
    pid=$!
    # Until the first pack of this upload stands in the store; there are several to come.
    while kill -0 $pid 2>/dev/null; do
        for f in store/p/*/*; do
            case " $before " in
            *" $f "*) ;;
            *) [ -e "$f" ] && break 2 ;;
            esac
        done
        sleep 0.005
    done
    kill -STOP $pid 2>/dev/null && while_running
    kill -CONT $pid
    kill "-$1" $pid 2>/dev/null || { echo "the upload was faster than the signal"; exit 77; }
    got=0
    wait $pid || got=$?
}

interrupted INT
[ "$got" = 130 ] || fail "after SIGINT the exit code is $got: $(cat first.err)"
grep -q 'nothing of this upload is visible.*resume --name t' first.err || fail "no word on how to go on: $(cat first.err)"
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
head -c 250M /dev/zero | openssl enc -aes-128-ctr -pass pass:y -nosalt 2>/dev/null >tree/large
interrupted KILL
[ "$got" = 137 ] || fail "after SIGKILL the exit code is $got"
expect 0 '' "$GRID" datastore --json
[ "$(json out 'len(d)')" = 1 ] || fail "it is visible: $(cat out)"
expect 0 'continuing the interrupted upload of t:2' "$GRID" datastore create tree --name t
[ "$(cat out)" = t:2 ] || fail "create: $(cat out)"
"$GRID" datastore cat t/large | cmp - tree/large || fail "the continued version differs"

# Given up: the number is not used again, and nothing can be resumed.
head -c 260M /dev/zero | openssl enc -aes-128-ctr -pass pass:z -nosalt 2>/dev/null >tree/large
interrupted KILL
expect 0 'forgot 1 interrupted upload' "$GRID" datastore clearcache
expect 0 'no interrupted upload' "$GRID" datastore resume
expect 0 '' "$GRID" datastore --show-incomplete --json
[ "$(json out '[(r["version"], r["status"]) for r in d][0]')" = "(3, 'failed')" ] || fail "given up: $(cat out)"
expect 0 'storing' "$GRID" datastore create tree --name t
[ "$(cat out)" = t:4 ] || fail "create: $(cat out)"
expect 0 '' "$GRID" datastore verify t

# Meanwhile another machine stored all of it as the next version: what is published now must be the newest, so the old
# number is given up. Its contents are known by then, from the other machine's packs.
head -c 270M /dev/zero | openssl enc -aes-128-ctr -pass pass:w -nosalt 2>/dev/null >tree/large
interrupted KILL
(GRID_CACHE=$PWD/elsewhere && export GRID_CACHE && expect 0 storing "$GRID" datastore create tree --name t &&
    [ "$(cat out)" = t:6 ]) || fail "the other machine: $(cat out err)"
expect 0 'storing' "$GRID" datastore create tree --name t
[ "$(cat out)" = t:7 ] || fail "create: $(cat out)"
expect 0 '' "$GRID" datastore --show-incomplete --json
[ "$(json out '[r["status"] for r in d if r["version"] == 5]')" = "['failed']" ] || fail "the overtaken upload: $(cat out)"
"$GRID" datastore show t:7 --json | grep -q '"since_version": 6' || fail "t:7 uses nothing of t:6: it was stored again"
expect 0 '' "$GRID" datastore verify t:7
"$GRID" datastore cat t:7/large | cmp - tree/large || fail "the version differs"
