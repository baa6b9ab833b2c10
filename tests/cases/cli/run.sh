#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# run: exit codes, signals, several datastores, Python programs, and what is left: nothing.
. "$TOP/tests/lib/cli.sh"

[ -e /dev/fuse ] || { echo "there is no /dev/fuse"; exit 77; }
make_tree tree
mkdir other
echo second >other/which
"$GRID" datastore create tree --name t >out 2>err || fail "create: $(cat err)"
"$GRID" datastore create other --name o >out 2>err || fail "create: $(cat err)"
echo third >other/which
"$GRID" datastore create other --name o >out 2>err || fail "create: $(cat err)"
run() { "$GRID" run "$@"; }

run --datastore_name t true || {
    echo "datastores cannot be attached here: $("$GRID" run --datastore_name t true 2>&1)"
    exit 77
}
expect 0 '' run --datastore_name t -- diff -r --no-dereference tree /datastores/t
[ ! -e /datastores/t ] || fail "others see the datastore"

# Exit codes and signals are the command's own.
for code in 0 1 2 7 126 255; do
    got=0
    run --datastore_name t -- sh -c "exit $code" || got=$?
    [ "$got" = "$code" ] || fail "exit code $code became $got"
done
got=0
run --datastore_name t -- sh -c 'kill -TERM $$' 2>err || got=$?
[ "$got" = 143 ] || fail "SIGTERM became $got"
got=0
run --datastore_name t -- no-such-command 2>err || got=$?
[ "$got" = 127 ] || fail "a missing command became $got: $(cat err)"
grep -q 'no-such-command' err || fail "the missing command is not named: $(cat err)"
got=0
run --datastore_name t -- "$PWD/tree/hello.txt" 2>err || got=$?
[ "$got" = 126 ] || fail "a file that is no program became $got: $(cat err)"

# A signal reaches the command.
sh -c 'exec "$GRID" run --datastore_name t -- sh -c "trap \"echo caught; exit 9\" TERM; echo ready; while :; do sleep 0.1; done"' >out 2>err &
pid=$!
while ! grep -q ready out; do sleep 0.05; done
kill -TERM $pid
got=0
wait $pid || got=$?
grep -q caught out || fail "the signal did not arrive"
[ "$got" = 9 ] || fail "after a signal the exit code is $got"

# Arguments, standard input and output pass as they are.
expect 0 '' run --datastore_name t printf '%s|' a 'b c' -x --json
[ "$(cat out)" = 'a|b c|-x|--json|' ] || fail "arguments: $(cat out)"
[ "$(echo input | "$GRID" run --datastore_name t -- cat - /datastores/t/hello.txt)" = \
    "$(printf 'input\nhello')" ] || fail "standard input"

# Several datastores, each with its version and directory.
mkdir "here"
expect 0 '' run --datastore_name o --datastore_version 1 --datastore_name t --datastore_name o \
    --datastore_mount_dir "$PWD/here" -- sh -c 'cat /datastores/o/which here/which /datastores/t/hello.txt'
[ "$(tr '\n' ' ' <out)" = 'second third hello ' ] || fail "several datastores: $(cat out)"
[ -z "$(ls -A here)" ] || fail "others see the datastore in 'here'"
expect 0 '' run --datastore_name o:1 -- cat /datastores/o/which
[ "$(cat out)" = second ] || fail "NAME:N: $(cat out)"
expect 2 'two datastores at /datastores/o' run --datastore_name o --datastore_name o:1 -- true
expect 2 'belongs behind a --datastore_name' run --datastore_version 1 --datastore_name o -- true
expect 2 'given twice for o' run --datastore_name o --datastore_version 1 --datastore_version 2 -- true
expect 2 'is a number from 1' run --datastore_name o --datastore_version x -- true
expect 1 'o.*9' run --datastore_name o --datastore_version 9 -- true

# A Python program.
printf 'import sys\nprint(open(sys.argv[1] + "/hello.txt").read(), end="")\n' >main.py
expect 0 '' run --datastore_name t -- main.py /datastores/t
[ "$(cat out)" = hello ] || fail "main.py: $(cat out)"

# Listed while it runs.
expect 0 'no runs' "$GRID" run
"$GRID" run --datastore_name t --name trial -- sh -c 'echo up >up; while [ ! -e down ]; do sleep 0.05; done' &
pid=$!
while [ ! -e up ]; do sleep 0.05; done
expect 0 '' "$GRID" run
grep -qE '^trial +t +1 +local +/datastores/t ' out || fail "run: $(cat out)"
expect 0 '' "$GRID" run --json
[ "$(json out 'd[0]["run"], d[0]["name"]')" = "('trial', 't')" ] || fail "run --json: $(cat out)"
: >down
wait $pid
expect 0 'no runs' "$GRID" run

# Nothing is left.
expect 0 'nothing is mounted' "$GRID" datastore mounts
grep -q "$PWD" /proc/self/mountinfo && fail "a mount is left: $(grep "$PWD" /proc/self/mountinfo)"
exit 0
