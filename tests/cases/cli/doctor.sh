#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# What `doctor` says of a directory. Buckets are in tests/cases/s3/.
. "$TOP/tests/lib/cli.sh"

expect 1 "no store at $PWD/store" "$GRID" datastore doctor
[ ! -e store ] || fail "it has made the store"
mkdir store
expect 0 '' "$GRID" datastore doctor
grep -qE '^Put if absent +kept: one winner in each of 100 rounds of two processes' out || fail "$(cat out)"
grep -qE '^File system +' out || fail "$(cat out)"
grep -qE '^Free +[0-9.]+ ' out || fail "$(cat out)"
[ -z "$(ls -A store)" ] || fail "it left $(ls -A store)"

make_tree tree
MANY_LINES=1
expect 0 'stored' "$GRID" datastore create tree --name t
find store | sort >before
expect 0 '' "$GRID" datastore doctor --json
[ "$(json out 'd["kind"], d["cluster"], d["put_if_absent"], d["rounds"], d["writers"], d["warnings"]')" = \
    "('directory', 'local', True, 100, 2, [])" ] || fail "$(cat out)"
[ "$(json out 'd["free_bytes"] > 0')" = True ] || fail "$(cat out)"
find store | sort | cmp - before || fail "it left something"

# Where nobody may write there is nothing to try out.
MANY_LINES=
expect 1 'proc' env GRID_STORE=/proc "$GRID" datastore doctor
expect 1 '/nonexistent' env GRID_STORE=/nonexistent/x "$GRID" datastore doctor
expect 2 'doctor' "$GRID" datastore doctor extra
