#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# The suite of all stores, on a bucket: Ceph's, or that of the server that S3_TEST_ENDPOINT names.
# timeout: 600
set -eu
. "$TOP/tests/lib/s3.sh"
TEST_STORE_KIND=s3 "$BUILD/tests/unit/test-store" >log 2>&1 || { cat log; exit 1; }
grep -q '  PASSED  ] 17 ' log || { echo "the suite did not run on the bucket:"; cat log; exit 1; }
