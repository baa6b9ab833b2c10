#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# The main job with a bucket as the store: create, list, read in every way, again, interrupted; by GRID_STORE and as a cluster
# of the configuration. Then what a reader, an attacher and a publisher may do, by the policies of docs/s3.md.
# timeout: 400
. "$TOP/tests/lib/cli.sh"
. "$TOP/tests/lib/s3.sh"
MANY_LINES=1
export GRID_STORE="s3://$S3_TEST_BUCKET/$S3_TEST_PREFIX"

make_tree tree
head -c 40M /dev/urandom >tree/large # several parts
i=0
while [ $i -lt 300 ]; do
    echo "file $i" >tree/dir/f$i
    i=$((i + 1))
done

# Nothing is there yet; asking makes nothing.
expect 1 'holds no datastores yet' "$GRID" datastore show job
[ "$(s3_count '')" = 0 ] || fail "a look has written something"

# The first writer tries the store out, once.
expect 0 'in s3://' "$GRID" datastore create tree --name job
[ "$(cat out)" = job:1 ] || fail "create: $(cat out)"
s3_request GET "/$S3_TEST_BUCKET/$S3_TEST_PREFIX/fmt" >fmt
grep -q '"probe":{"put_if_absent":"kept","rounds":20,"writers":8}' fmt || fail "no probe: $(cat fmt)"
[ "$(s3_count .probe/)" = 0 ] || fail "the probe left objects"
expect 0 '' "$GRID" datastore --json
[ "$(json out '[(r["name"], r["version"], r["status"]) for r in d]')" = "[('job', 1, 'succeeded')]" ] || fail "list: $(cat out)"

# All ways to read it.
expect 0 '' "$GRID" datastore verify job
grep -q 'good' out || fail "verify: $(cat out)"
"$GRID" datastore cat job/large | cmp - tree/large || fail "cat differs"
expect 0 'copied' "$GRID" datastore export job copy
diff -r --no-dereference tree copy || fail "the export differs"
if [ -e /dev/fuse ]; then
    mkdir mnt
    expect 0 '' "$GRID" datastore mount job mnt
    diff -r --no-dereference tree mnt || fail "the mount differs"
    expect 0 '' "$GRID" datastore unmount mnt
    expect 0 '' "$GRID" run --datastore_name job -- sh -c 'cmp /datastores/job/large tree/large && ls /datastores/job/dir | wc -l'
    [ "$(tail -n 1 out)" = 305 ] || fail "run: $(cat out)"
fi

# Again: what is there already is not sent again.
sleep 1.1
echo changed >tree/hello.txt
expect 0 'stored' "$GRID" datastore create tree --name job
grep -qE '[0-9.]+ (bytes|KiB) stored|[0-9]+ B stored' err || fail "all was stored again: $(cat err)"
[ "$("$GRID" datastore cat job:1/hello.txt) $("$GRID" datastore cat job:2/hello.txt)" = 'hello changed' ] || fail "versions mix"

# Killed in mid-upload: invisible, and continued.
head -c 400M /dev/zero | openssl enc -aes-128-ctr -pass pass:x -nosalt 2>/dev/null >tree/large
before=$(s3_count p/)
"$GRID" datastore create tree --name job >killed.out 2>killed.err &
pid=$!
while kill -0 $pid 2>/dev/null && [ "$(s3_count p/)" = "$before" ]; do sleep 0.02; done
kill -KILL $pid 2>/dev/null || fail "the upload was faster than the signal"
wait $pid && fail "it survived"
expect 0 '' "$GRID" datastore --json
[ "$(json out 'len(d)')" = 2 ] || fail "it is visible: $(cat out)"
expect 0 'job:3' "$GRID" datastore resume --name job
[ "$(cat out)" = job:3 ] || fail "resume: $(cat out)"
expect 0 '' "$GRID" datastore verify job:3
"$GRID" datastore cat job:3/large | cmp - tree/large || fail "the resumed version differs"

# As a cluster, with the credentials of a profile; nothing of it in the environment.
mkdir -p config/grid .aws
cat >config/grid/config <<END
[cluster team]
store = $GRID_STORE
endpoint = $S3_TEST_ENDPOINT
region = $AWS_REGION
addressing = path
profile = team
END
printf '[team]\naws_access_key_id = %s\naws_secret_access_key = %s\n' "$AWS_ACCESS_KEY_ID" "$AWS_SECRET_ACCESS_KEY" >.aws/credentials
by_cluster() {
    env -u GRID_STORE -u AWS_ENDPOINT_URL -u AWS_REGION -u AWS_ACCESS_KEY_ID -u AWS_SECRET_ACCESS_KEY "$@" --cluster team
}
expect 0 '' by_cluster "$GRID" datastore --json
[ "$(json out 'len(d), d[0]["cluster"]')" = "(3, 'team')" ] || fail "cluster: $(cat out)"
if [ -e /dev/fuse ]; then
    expect 0 '' by_cluster "$GRID" datastore mount job:2 mnt
    cmp mnt/hello.txt tree/hello.txt || fail "mounted by cluster: it differs"
    expect 0 '' "$GRID" datastore unmount mnt
fi
expect 0 'warning: ' by_cluster "$GRID" datastore doctor --json
[ "$(json out 'd["kind"], d["put_if_absent"], d["rounds"]')" = "('s3', True, 20)" ] || fail "doctor: $(cat out)"

# What is wrong with a store is told in its server's words, and by one sentence.
MANY_LINES=
expect 1 'no such bucket' env GRID_STORE=s3://no-such-bucket-here/x "$GRID" datastore
expect 1 'secret key does not belong' env AWS_SECRET_ACCESS_KEY=wrong "$GRID" datastore
[ -n "$S3_OURS" ] || exit 0
expect 1 'lack the permission s3:' env AWS_ACCESS_KEY_ID="$S3_TEST_OTHER_KEY" AWS_SECRET_ACCESS_KEY="$S3_TEST_OTHER_SECRET" "$GRID" datastore
