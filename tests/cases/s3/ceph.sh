#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# The S3 client against a real server: Ceph's gateway, or what S3_TEST_ENDPOINT names (with S3_TEST_BUCKET).
# timeout: 300
set -euo pipefail
dir=$PWD
trap '"$TOP/tests/lib/ceph.sh" stop "$dir/ceph"' EXIT
environment=$("$TOP/tests/lib/ceph.sh" start "$dir/ceph") || {
    [ $? = 77 ] || exit 1
    echo "skipped: no Ceph here (ceph-mon ceph-osd ceph-mgr radosgw), and S3_TEST_ENDPOINT is not set"
    exit 77
}
eval "$environment"
if [ -z "${S3_TEST_BUCKET:-}" ]; then
    export S3_TEST_BUCKET=bucket
    "$BUILD/tests/s3/s3-live" --make-bucket
fi
"$BUILD/tests/s3/s3-live"
