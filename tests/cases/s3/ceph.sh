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
if [ -n "${S3_TEST_STS_ENDPOINT:-}" ]; then
    # A role that may read, and that the user of these tests may assume.
    trust='{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":["arn:aws:iam:::user/test"]},"Action":["sts:AssumeRole"]}]}'
    rights='{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["s3:GetObject"],"Resource":"arn:aws:s3:::*"}]}'
    radosgw-admin -n client.rgw.b role create --role-name=reader --assume-role-policy-doc="$trust" >role.json
    radosgw-admin -n client.rgw.b role-policy put --role-name=reader --policy-name=read --policy-doc="$rights" >/dev/null
    S3_TEST_ROLE=$(sed -n 's/.*"Arn": "\(.*\)".*/\1/p' role.json)
    export S3_TEST_ROLE
fi
"$BUILD/tests/s3/s3-live"
