#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# The three policies of docs/s3.md, as printed there, on Ceph: what a reader, an attacher and a publisher may and may not do.
# timeout: 300
. "$TOP/tests/lib/cli.sh"
[ -z "${S3_TEST_ENDPOINT:-}" ] || { echo "skipped: makes users, which it does on a Ceph of its own only"; exit 77; }
. "$TOP/tests/lib/s3.sh"
export GRID_STORE="s3://$S3_TEST_BUCKET/$S3_TEST_PREFIX"
make_tree tree
MANY_LINES=1
expect 0 'stored' "$GRID" datastore create tree --name job

# One bucket policy for three users, of the statements in the page.
python3 - "$TOP/docs/s3.md" "$S3_TEST_BUCKET" "$S3_TEST_PREFIX" >policy <<'END'
import json, re, sys
page, bucket, prefix = open(sys.argv[1]).read(), *sys.argv[2:]
page = page.split('## Permissions')[1].split('\n## ')[0]
blocks = re.findall(r'```json\n(.*?)```', page, re.S)
assert len(blocks) == 3, blocks
reader = json.loads(blocks[0])['Statement']
roles = {'reader': reader, 'attacher': reader + [json.loads(blocks[1])], 'publisher': reader + [json.loads(blocks[2])]}
statements = [dict(s, Principal={'AWS': [f'arn:aws:iam:::user/{user}']}) for user, list in roles.items() for s in list]
text = json.dumps({'Version': '2012-10-17', 'Statement': statements})
print(text.replace('BUCKET', bucket).replace('PREFIX', prefix))
END
for user in reader attacher publisher; do
    radosgw-admin -n client.rgw.a user create --uid $user --display-name $user --access-key AK$user --secret-key SK$user >users 2>&1 ||
        fail "$(cat users)"
done
s3_request PUT "/$S3_TEST_BUCKET?policy=" policy || fail "the policy was refused: $(cat policy)"

as() {
    user=$1
    shift
    env AWS_ACCESS_KEY_ID=AK$user AWS_SECRET_ACCESS_KEY=SK$user "$@"
}
may_read() {
    expect 0 '' as "$1" "$GRID" datastore --json
    [ "$(json out 'd[0]["name"]')" = job ] || fail "$1: $(cat out)"
    expect 0 '' as "$1" "$GRID" datastore verify job
    [ "$(as "$1" "$GRID" datastore cat job/hello.txt)" = hello ] || fail "$1 cannot read"
}
for user in reader attacher publisher; do may_read $user; done
for user in reader attacher; do
    expect 1 "cannot write .*lack the permission s3:PutObject" as $user "$GRID" datastore create tree --name mine
    expect 1 "lack the permission s3:PutObject" as $user "$GRID" datastore doctor
done
expect 0 'stored' as publisher "$GRID" datastore create tree --name mine
[ "$(cat out)" = mine:1 ] || fail "publisher: $(cat out)"
expect 0 '' as publisher "$GRID" datastore verify mine
expect 0 '' as publisher "$GRID" datastore doctor
grep -q 'Put if absent *kept' out || fail "doctor: $(cat out)"
grep -q 'Versioning *unknown' out || fail "doctor: $(cat out)"

# Other users, and other prefixes of the bucket.
expect 1 'lack the permission' as other "$GRID" datastore
expect 1 'lack the permission' as publisher env GRID_STORE="s3://$S3_TEST_BUCKET/elsewhere" "$GRID" datastore
if [ -e /dev/fuse ]; then
    mkdir mnt
    for user in reader attacher; do
        # A reader may be told that nothing protects what it reads.
        as $user "$GRID" datastore mount job mnt 2>err || fail "$user cannot mount: $(cat err)"
        diff -r --no-dereference tree mnt || fail "$user: the mount differs"
        expect 0 '' "$GRID" datastore unmount mnt
    done
fi
