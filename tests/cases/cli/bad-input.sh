#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# Bad input: one sentence that names the thing, exit code 1 (2 for wrong usage), nothing half-visible.
. "$TOP/tests/lib/cli.sh"

make_tree tree
MANY_LINES=

# Sources.
expect 1 'no/such' "$GRID" datastore create no/such --name x
nowhere() { # a port that nobody answers on
    env AWS_ENDPOINT_URL=http://127.0.0.1:1 AWS_ACCESS_KEY_ID=a AWS_SECRET_ACCESS_KEY=b "$@"
}
expect 1 's3://bucket: no answer from 127.0.0.1:1' nowhere "$GRID" datastore create s3://bucket/x/
expect 1 'names no bucket' "$GRID" datastore create s3:///x
expect 1 "cannot be a bucket's name" "$GRID" datastore create 's3://Bad_Bucket!/x'
expect 1 'https://127.0.0.1:1/x.tar cannot be read' "$GRID" datastore create https://127.0.0.1:1/x.tar
expect 2 'ends in one of .zip, .tar' "$GRID" datastore create https://127.0.0.1:1/x.rar
expect 1 '--no-copy' "$GRID" datastore create tree --no-copy
expect 2 'source is missing' "$GRID" datastore create
expect 2 'given twice' "$GRID" datastore create tree --source tree
[ ! -e store ] || fail "a store was made for nothing"

# Names.
for name in A 'a b' a/b .a -a "$(printf 'a%.0s' $(seq 64))" "$(printf 'a\nb')" ''; do
    expect 1 'is no name for a datastore' "$GRID" datastore create tree --name="$name"
done
mkdir 'ÄÖ'
expect 2 'no name can be made of' "$GRID" datastore create 'ÄÖ'
[ ! -e store ] || fail "a store was made for nothing"

# The store inside its source would be stored in itself.
mkdir outer
expect 1 'lies inside the source' env GRID_STORE="file://$PWD/outer/store" "$GRID" datastore create outer

# No store, no datastore, no version.
expect 1 'there is no datastore .nothing.*there is no store' "$GRID" datastore show nothing
"$GRID" datastore create tree --name good >out 2>err || fail "create: $(cat err)"
expect 1 'nothing' "$GRID" datastore show nothing
expect 1 'good.*(7|version)' "$GRID" datastore show good:7
expect 1 "'x' is no version of good" "$GRID" datastore show good:x
expect 1 "'0' is no version" "$GRID" datastore ls good:0
expect 1 "'Good' is no name" "$GRID" datastore verify Good
expect 1 "names a file" "$GRID" datastore verify good/x
for command in show ls verify; do
    expect 1 'no-such' "$GRID" datastore $command no-such
done
expect 1 'no-such' "$GRID" datastore cat no-such/x
expect 1 'no-such' "$GRID" datastore diff good no-such
expect 1 'no-such' "$GRID" datastore export no-such new
[ ! -e new ] || fail "a directory was made for nothing"
expect 1 'no-such' "$GRID" datastore index no-such file
[ ! -e file ] || fail "a file was made for nothing"
expect 1 'no-such' "$GRID" run --datastore_name no-such -- true

# Paths in a version.
expect 1 "no 'missing' in good:1" "$GRID" datastore cat good/missing
expect 1 "no 'hello.txt/x' in good:1" "$GRID" datastore ls good:1/hello.txt/x
expect 1 "'dir' in good:1 is a directory" "$GRID" datastore cat good/dir
expect 1 'is a symbolic link' "$GRID" datastore cat good/dir/link
expect 1 'names no file' "$GRID" datastore cat good

# Stores.
for store in s3:// s3://b%x/y s3://bucket/a//b S3:x ftp://x relative; do
    expect 1 "$store" env GRID_STORE=$store "$GRID" datastore
done
s3="env AWS_ACCESS_KEY_ID=x AWS_SECRET_ACCESS_KEY=y AWS_ENDPOINT_URL=http://127.0.0.1:1 GRID_STORE=s3://bucket/p"
expect 1 's3://bucket/p.*no answer from 127.0.0.1:1' $s3 "$GRID" datastore
expect 1 's3://bucket/p.*no answer from 127.0.0.1:1' $s3 "$GRID" datastore doctor
mkdir other
echo something >other/file
expect 1 "$PWD/other" env GRID_STORE="file://$PWD/other" "$GRID" datastore
MANY_LINES=1 # the first says where it was going to store
expect 1 "$PWD/other" env GRID_STORE="file://$PWD/other" "$GRID" datastore create tree
MANY_LINES=
[ "$(ls -A other)" = file ] || fail "something was written into a foreign directory"
expect 1 "$PWD/other/file" env GRID_STORE="file://$PWD/other/file" "$GRID" datastore
expect 1 "$PWD/gone" env GRID_STORE="file://$PWD/gone" "$GRID" datastore
expect 1 'GRID_CACHE' env GRID_CACHE=relative "$GRID" datastore

mkdir mnt
expect 2 'auto, fuse, native or local' "$GRID" datastore mount good mnt --mode nonsense
expect 2 '64M to 1T' "$GRID" datastore mount good mnt --memory 1K
expect 1 "on nowhere: there is no such directory" "$GRID" datastore mount good nowhere
expect 1 "on tree: it is not empty" "$GRID" datastore mount good tree
expect 1 "on tree/hello.txt: it is no directory" "$GRID" datastore mount good tree/hello.txt
expect 1 "mnt" "$GRID" datastore unmount mnt
expect 1 "nowhere: there is no such directory" "$GRID" datastore unmount nowhere

# After all of it the store is as it was.
expect 0 '' "$GRID" datastore verify good
expect 0 '' "$GRID" datastore --show-incomplete --json
[ "$(json out 'len(d)')" = 1 ] || fail "something half-visible is left: $(cat out)"
