# SPDX-License-Identifier: Apache-2.0
#
# For cases that need a real S3 server, sourced: boots Ceph's in ./ceph, or takes the one that S3_TEST_ENDPOINT names (with
# S3_TEST_BUCKET, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY). Then S3_TEST_BUCKET is there, AWS's variables lead to it,
# S3_TEST_PREFIX is a prefix of its own, and S3_OURS is 1 if the server is ours.
s3_dir=$PWD
trap '"$TOP/tests/lib/ceph.sh" stop "$s3_dir/ceph"' EXIT
if [ -z "${S3_TEST_ENDPOINT:-}" ]; then
    S3_OURS=1
    s3_environment=$("$TOP/tests/lib/ceph.sh" start "$s3_dir/ceph") || {
        [ $? = 77 ] || exit 1
        echo "skipped: no Ceph here (ceph-mon ceph-osd ceph-mgr radosgw), and S3_TEST_ENDPOINT is not set"
        exit 77
    }
    eval "$s3_environment"
    export S3_TEST_BUCKET=bucket
    "$BUILD/tests/s3/s3-live" --make-bucket
else
    S3_OURS=
fi
export AWS_ENDPOINT_URL="$S3_TEST_ENDPOINT" AWS_REGION="${S3_TEST_REGION:-us-east-1}"
S3_TEST_PREFIX=test-$(od -An -N8 -tx8 /dev/urandom | tr -d ' ')

s3_request() {
    python3 "$TOP/tests/lib/s3-request.py" "$@"
}
# How many objects stand below a prefix of ours (at most 1,000).
s3_count() {
    s3_request GET "/$S3_TEST_BUCKET?list-type=2&prefix=$(echo "$S3_TEST_PREFIX/$1" | sed 's|/|%2F|g')" | grep -o '<Key>' | wc -l
}
