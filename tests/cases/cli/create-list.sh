#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# create and the listing: names, versions, tables, JSON.
. "$TOP/tests/lib/cli.sh"

make_tree tree
mkfifo tree/fifo
echo secret >tree/private
chmod 0600 tree/private

# Nothing yet: the listing is empty, not an error; JSON is still a document.
mkdir store
expect 0 'no datastores' "$GRID" datastore
[ ! -s out ] || fail "a table without datastores"
expect 0 '' "$GRID" datastore --json
[ "$(json out d)" = '[]' ] || fail "an empty listing is no empty array"

expect 0 'storing .*/tree as first in file://.*/store \(cluster local\)' \
    "$GRID" datastore create tree --name first
[ "$(cat out)" = first:1 ] || fail "create printed '$(cat out)'"
grep -q 'skipped fifo' err || fail "the FIFO was not named"
grep -q '1 private file becomes readable to all.*(private).*--exclude-private' err ||
    fail "the private file was not named: $(cat err)"

expect 0 'private file is left out' "$GRID" datastore create --name first --exclude-private tree
[ "$(cat out)" = first:2 ] || fail "create printed '$(cat out)'"
expect 0 '' "$GRID" datastore cat first:1/private
[ "$(cat out)" = secret ] || fail "the private file is not in version 1"
expect 1 "there is no 'private' in first:2" "$GRID" datastore cat first:2/private

# A derived name; the deprecated option; JSON of create.
mkdir "My Tree"
echo x >"My Tree/x"
expect 0 'deprecated' "$GRID" datastore create --source "My Tree" --json
[ "$(json out 'd["name"], d["version"], d["status"]')" = "('mytree', 1, 'succeeded')" ] ||
    fail "create --json: $(cat out)"

# A file is a tree with one file.
expect 0 'storing' "$GRID" datastore create tree/hello.txt --name one
expect 0 '' "$GRID" datastore ls one
[ "$(cat out)" = hello.txt ] || fail "a file as source: $(cat out)"

# The table: aligned, titles as documented, names ascending, the newest version first.
expect 0 '' "$GRID" datastore
cp out table
[ "$(head -n 1 table | sed 's/   */|/g; s/  /|/g')" = 'Name|Cluster ID|Version|Size (MiB)|Created At|Status' ] ||
    fail "titles: $(head -n 1 table)"
[ "$(awk 'NR > 1 { print $1 ":" $3 }' table | tr '\n' ' ')" = 'first:2 first:1 mytree:1 one:1 ' ] ||
    fail "rows: $(cat table)"
python3 - table <<'PYTHON' || fail "the table is not aligned"
import re, sys
lines = open(sys.argv[1]).read().splitlines()
at = lines[0].index('Status')
for line in lines[1:]:
    assert line[at:] == 'succeeded' and line[at - 1] == ' ', line
    assert re.search(r'  \d{4}-\d\d-\d\d \d\d:\d\d  succeeded$', line), line
    assert line[lines[0].index('Version') + 6].isdigit(), line
PYTHON
"$GRID" datastore list >again
cmp table again || fail "'datastore list' is not the same"

expect 0 '' "$GRID" datastore --json
python3 - out <<'PYTHON' || fail "the listing's JSON is not as documented"
import json, re, sys
rows = json.load(open(sys.argv[1]))
assert len(rows) == 4
for r in rows:
    assert list(r) == 'name cluster version size_bytes files created_at status owner source kind'.split(), list(r)
    assert re.fullmatch(r'\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ', r['created_at']), r
    assert r['cluster'] == 'local' and r['kind'] == 'copy' and r['status'] == 'succeeded'
assert rows[0]['name'] == 'first' and rows[0]['version'] == 2 and rows[0]['source'].endswith('/tree')
assert rows[1]['files'] == rows[0]['files'] + 1  # the private one
PYTHON
"$GRID" datastore list --json >again
cmp out again || fail "'datastore list --json' is not the same"
"$GRID" datastore --json list >again
cmp out again || fail "options before 'list' are not the same"
