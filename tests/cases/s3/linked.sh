#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# Versions that link to the objects of a bucket: made, read in every way, made again, compared; what happens when the source
# changes, with and without versions of the bucket; and a source that only a stored role may read.
# timeout: 300
. "$TOP/tests/lib/cli.sh"
. "$TOP/tests/lib/s3.sh"
MANY_LINES=1
export GRID_STORE="file://$PWD/store" HOME="$PWD/home"
mkdir home
source="s3://$S3_TEST_BUCKET/$S3_TEST_PREFIX/photos/"

# put KEY FILE, del KEY: behind the program's back, below the source's prefix
put() {
    s3_request PUT "/$S3_TEST_BUCKET/$S3_TEST_PREFIX/photos/$1" "$2" >/dev/null
}
del() {
    s3_request DELETE "/$S3_TEST_BUCKET/$S3_TEST_PREFIX/photos/$1" >/dev/null
}

mkdir -p tree/a/b 'tree/with space'
for size in 0 1 511 512 513 65536 65537 200000; do head -c $size /dev/urandom >tree/a/s$size; done
head -c 20000001 /dev/urandom >tree/large # three chunks
i=0
while [ $i -lt 60 ]; do
    echo "file $i" >tree/a/b/f$i
    i=$((i + 1))
done
echo spaced >'tree/with space/x y'
(cd tree && find . -type f | sed 's|^\./||') | while read -r f; do put "$(echo "$f" | sed 's/ /%20/g')" "tree/$f"; done

# Made: nothing of the bytes is stored.
expect 0 'linked and not copied' "$GRID" datastore create "$source" --no-copy
[ "$(cat out)" = photos:1 ] || fail "create: $(cat out)"
[ "$(du -sk store | cut -f1)" -lt 400 ] || fail "something was copied: $(du -sk store)"
expect 0 '' "$GRID" datastore --json
[ "$(json out '[(r["name"], r["version"], r["kind"], r["files"]) for r in d]')" = "[('photos', 1, 'linked', 70)]" ] || fail "list: $(cat out)"
expect 0 '' "$GRID" datastore show photos
grep -q '^Kind *linked' out && grep -q '^Link tables *1,' out || fail "show: $(cat out)"

# All ways to read it.
expect 0 'copied' "$GRID" datastore export photos copy
diff -r tree copy || fail "the export differs"
"$GRID" datastore cat photos/large | cmp - tree/large || fail "cat differs"
expect 0 '' "$GRID" datastore verify photos
grep -q 'good: 70 files' out || fail "verify: $(cat out)"
expect 0 '' "$GRID" datastore fsck
if [ -e /dev/fuse ]; then
    mkdir mnt
    expect 0 '' "$GRID" datastore mount photos mnt
    diff -r tree mnt || fail "the mount differs"
    expect 0 '' "$GRID" datastore unmount mnt
    expect 0 '' "$GRID" run --datastore_name photos -- cmp /datastores/photos/large tree/large
    expect 1 'linked from' "$GRID" datastore mount photos mnt --mode local
fi
expect 1 'is always copied' "$GRID" datastore create tree --no-copy

# The version knows where it came from; the configuration may know another way, and who reads.
printf '[other]\naws_access_key_id = %s\naws_secret_access_key = %s\n' "$AWS_ACCESS_KEY_ID" "$AWS_SECRET_ACCESS_KEY" >aws-keys
(
    export AWS_ENDPOINT_URL=http://127.0.0.1:1 XDG_CONFIG_HOME="$PWD/config2"
    mkdir -p config2/grid
    "$GRID" datastore cat photos/large | cmp - tree/large || fail "it does not know its endpoint"
    export AWS_SHARED_CREDENTIALS_FILE="$PWD/aws-keys"
    unset AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY
    printf '[bucket %s]\nprofile = other\nendpoint = %s/\n' "$S3_TEST_BUCKET" "$S3_TEST_ENDPOINT" >config2/grid/config
    "$GRID" datastore cat photos/large | cmp - tree/large || fail "the section of the bucket is not asked"
    printf '[bucket %s]\nendpoint = http://127.0.0.1:1\nprofile = other\n' "$S3_TEST_BUCKET" >config2/grid/config
    if timeout 5 "$GRID" datastore cat photos/large >bytes 2>/dev/null; then fail "the section's endpoint is not asked"; fi
)

# Again: another version of the same things; they are compared by what they link to.
expect 0 'linked' "$GRID" datastore create "$source" --no-copy
expect 0 '' "$GRID" datastore diff photos:1 photos:2
[ ! -s out ] || fail "diff of the same: $(cat out)"

# The source changes: one object gets other bytes of the same size, one goes, one comes.
printf 'FILE 7\n' >other
put a/b/f7 other
del a/s513
put a/new other
expect 1 'photos:2 has drifted: 2 of 70 files are not what they were' "$GRID" datastore verify photos
[ "$(sort out)" = "$(printf 'a/b/f7: was changed\na/s513: is gone')" ] || fail "drift: $(cat out)"
expect 1 'drifted' "$GRID" datastore verify photos:1 --json
[ "$(json out 'd["good"], [(r["path"], r["reason"]) for r in d["drifted"]]')" = "(False, [('a/b/f7', 'was changed'), ('a/s513', 'is gone')])" ] || fail "drift: $(cat out)"
for bad in a/b/f7 a/s513; do
    expect 1 "Input/output error" "$GRID" datastore cat photos/$bad
    [ ! -s out ] || fail "bytes of a drifted file: $(head -c 100 out)"
    grep -q "$S3_TEST_PREFIX/photos/$bad, which .*\(was changed\|is gone\)" err || fail "it does not say what happened: $(cat err)"
done
"$GRID" datastore cat photos/a/b/f8 | cmp - tree/a/b/f8 || fail "what has not drifted cannot be read"
if [ -e /dev/fuse ]; then
    GRID_RUNTIME_DIR=$PWD/runtime
    export GRID_RUNTIME_DIR
    expect 0 '' "$GRID" datastore mount photos mnt --mode fuse
    ! cat mnt/a/b/f7 >bytes 2>/dev/null || fail "a drifted file is read through a mount"
    [ ! -s bytes ] || fail "bytes of a drifted file: $(cat bytes)"
    cmp mnt/a/b/f8 tree/a/b/f8 || fail "its neighbour cannot be read"
    grep -rq 'photos/a/b/f7.*was changed' runtime || fail "the log does not name the file: $(cat runtime/log/* || ls -R runtime)"
    expect 0 '' "$GRID" datastore unmount mnt
    unset GRID_RUNTIME_DIR
fi
expect 0 'linked' "$GRID" datastore create "$source" --no-copy
expect 0 '' "$GRID" datastore diff photos:2 photos:3
[ "$(sort out)" = "$(printf 'A a/new\nD a/s513\nM a/b/f7')" ] || fail "diff: $(cat out)"
expect 0 '' "$GRID" datastore verify photos:3

# A copy of it needs nothing of the links; deleted and collected, nothing is left of them.
expect 0 'stored' "$GRID" datastore create "$source"
for n in 1 2 3; do expect 0 '' "$GRID" datastore delete --name photos --version $n --yes; done
expect 0 '' "$GRID" datastore gc
expect 0 '' "$GRID" datastore fsck
grep -q '1 available version, ' out || fail "fsck: $(cat out)"
grep -q 'not named' out && fail "collection left something: $(cat out)"
del a/b/f8
expect 0 '' "$GRID" datastore verify photos
"$GRID" datastore cat photos/a/b/f8 | cmp - tree/a/b/f8 || fail "a copy depends on its source"

if [ "$S3_OURS" ]; then
    # A bucket with versions: what was overwritten or deleted is still what it was.
    s3_request PUT /versioned >/dev/null
    echo '<VersioningConfiguration xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Status>Enabled</Status></VersioningConfiguration>' >versioning
    s3_request PUT '/versioned?versioning=' versioning >/dev/null
    for f in a/s511 a/s512 large; do s3_request PUT "/versioned/v/$f" tree/$f >/dev/null; done
    expect 0 'linked' "$GRID" datastore create s3://versioned/v/ --no-copy --name v
    s3_request PUT /versioned/v/a/s511 other >/dev/null
    s3_request PUT /versioned/v/large other >/dev/null
    s3_request DELETE /versioned/v/a/s512 >/dev/null
    expect 0 'copied' "$GRID" datastore export v vcopy
    for f in a/s511 a/s512 large; do cmp tree/$f vcopy/$f || fail "the old version of $f is not what it was"; done
    expect 0 '' "$GRID" datastore verify v
    grep -q 'good: 3 files' out || fail "verify: $(cat out)"
    expect 0 'linked' "$GRID" datastore create s3://versioned/v/ --no-copy --name v
    expect 0 '' "$GRID" datastore diff v:1 v:2
    [ "$(sort out)" = "$(printf 'D a/s512\nM a/s511\nM large')" ] || fail "diff: $(cat out)"
    # ... until that version itself is deleted.
    s3_request GET '/versioned?prefix=v%2Fa%2Fs511&versions=' >rows
    id=$(tr '>' '\n' <rows | grep -A1 'VersionId$' | grep -o '^[^<]*</VersionId' | sed 's|</VersionId||' | tail -n 1)
    s3_request DELETE "/versioned/v/a/s511?versionId=$id" >/dev/null
    expect 1 '1 of 3 files is not what it was' "$GRID" datastore verify v:1
    grep -qx 'a/s511: is gone' out || fail "drift: $(cat out)"
    expect 1 'Input/output error' "$GRID" datastore cat v:1/a/s511
fi

if [ "$S3_OURS" ] && [ "${S3_TEST_STS_ENDPOINT:-}" ]; then
    # Somebody who owns nothing, and may assume a role that may read the bucket.
    trust='{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":["arn:aws:iam:::user/other"]},"Action":["sts:AssumeRole"]}]}'
    rights='{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["s3:ListBucket","s3:ListBucketVersions","s3:GetObject","s3:GetObjectVersion"],"Resource":"arn:aws:s3:::*"}]}'
    radosgw-admin -n client.rgw.b role create --role-name=Reader --assume-role-policy-doc="$trust" >role.json
    radosgw-admin -n client.rgw.b role-policy put --role-name=Reader --policy-name=read --policy-doc="$rights" >/dev/null
    role=$(sed -n 's/.*"Arn": "\(.*\)".*/\1/p' role.json)
    export AWS_ENDPOINT_URL="$S3_TEST_STS_ENDPOINT" AWS_ACCESS_KEY_ID="$S3_TEST_OTHER_KEY" AWS_SECRET_ACCESS_KEY="$S3_TEST_OTHER_SECRET"
    expect 1 'rgw|denied|permission|may not' "$GRID" datastore create "$source" --no-copy --name role
    grep -q AKother err && fail "a key is told: $(cat err)"
    expect 0 'is stored' "$GRID" credential create --type s3 --name useless --role-arn arn:aws:iam:::role/nobody
    expect 1 'useless' "$GRID" datastore create "$source" --no-copy --name role
    expect 0 'reader is stored' "$GRID" credential create --type s3 --role-arn "$role"
    expect 0 'with the credential reader' "$GRID" datastore create "$source" --no-copy --name role
    expect 0 'copied' "$GRID" datastore export role rcopy
    cmp tree/large rcopy/large || fail "what the role reads differs"
    expect 0 '' "$GRID" datastore verify role
    expect 0 'stored in' "$GRID" datastore create "$source" --name copied
    expect 0 'forgotten' "$GRID" credential delete reader
    expect 1 'Input/output error' "$GRID" datastore cat role/large
    grep -q "cannot read the objects of $source" err || fail "it does not say why: $(cat err)"
    ! grep -rq "SKother\|AKother" home store config || fail "a key was stored"
fi
