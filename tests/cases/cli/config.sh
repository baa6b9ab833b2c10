#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# Clusters and contexts: which store a command works on.
. "$TOP/tests/lib/cli.sh"
unset GRID_STORE

mkdir -p tree config/grid
echo x >tree/x
cat >config/grid/config <<END
# two of them
[cluster lab]
store = file://$PWD/lab
[cluster far]
store = s3://bucket/prefix
region = eu-west-1
endpoint = http://127.0.0.1:1
addressing = path
profile = robot
[cluster empty]
END
cp config/grid/config before

expect 0 'in file://.*/lab \(cluster lab\)' "$GRID" datastore create tree --cluster lab
[ "$(cat out)" = tree:1 ] || fail "create: $(cat out)"
expect 0 '' "$GRID" datastore --cluster lab --json
[ "$(json out 'd[0]["cluster"]')" = lab ] || fail "cluster: $(cat out)"
expect 1 "there is no cluster 'none'" "$GRID" datastore --cluster none
expect 1 "the cluster empty has no 'store'" "$GRID" datastore --cluster empty
expect 1 "profile robot|robot" "$GRID" datastore --cluster far
mkdir .aws
printf '[profile robot]\naws_access_key_id = x\naws_secret_access_key = y\n' >.aws/config
expect 1 's3://bucket/prefix.*no answer from 127.0.0.1:1' "$GRID" datastore --cluster far

# The context, and what overrides it.
expect 1 "there is no cluster 'none'" "$GRID" user set-cluster-context none
cmp before config/grid/config || fail "a wrong context was written"
expect 0 'the cluster is now lab' "$GRID" user set-cluster-context lab
grep -q '^# two of them' config/grid/config || fail "the file lost its comment"
expect 0 '' "$GRID" datastore --json
[ "$(json out 'd[0]["name"], d[0]["cluster"]')" = "('tree', 'lab')" ] || fail "context: $(cat out)"
expect 0 '' "$GRID" clusters --json
[ "$(json out '[r["name"] for r in d if r["chosen"]]')" = "['lab']" ] || fail "clusters: $(cat out)"
expect 0 '' "$GRID" clusters
grep -qE '^lab +file://.*/lab +yes$' out || fail "clusters: $(cat out)"
expect 1 "$PWD/elsewhere" env GRID_STORE="file://$PWD/elsewhere" "$GRID" datastore
expect 0 '' env GRID_STORE="file://$PWD/elsewhere" "$GRID" datastore --cluster lab --json
[ "$(json out 'len(d)')" = 1 ] || fail "--cluster does not beat GRID_STORE"
expect 0 'GRID_STORE is set and overrides it' env GRID_STORE=/x "$GRID" user set-cluster-context lab

# A context that leads nowhere is told, and can be mended.
cat >config/grid/config <<'END'
[user]
context = gone
END
expect 1 "there is no cluster 'gone'" "$GRID" datastore
expect 0 'is now local' "$GRID" user set-cluster-context local
grep -q '^context = local$' config/grid/config || fail "$(cat config/grid/config)"

# The system's file comes first; errors name file and line; unknown keys are only warned of.
cat >etc-config <<END
[cluster local]
store = file://$PWD/moved
END
expect 0 'in file://.*/moved \(cluster local\)' "$GRID" datastore create tree
printf '[cluster local]\nshape = round\n' >config/grid/config
expect 0 "config:2: unknown key 'shape'" "$GRID" datastore
printf '[cluster local]\nnonsense\n' >config/grid/config
expect 1 "grid/config:2: " "$GRID" datastore
printf '[cluster x' >config/grid/config
expect 1 "grid/config:1: " "$GRID" datastore
