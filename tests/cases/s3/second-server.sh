#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# Another S3 server, written by others than Ceph's: publish, mount, diff; the same from a source in it, copied and linked.
# moto (https://github.com/getmoto/moto) where its moto_server is installed: in PATH, or as MOTO_SERVER says.
. "$TOP/tests/lib/cli.sh"
moto=${MOTO_SERVER:-$(command -v moto_server)} || {
    echo "skipped: no second S3 server: Debian has no moto; 'pip install moto[server]' gives one, and MOTO_SERVER names it"
    exit 77
}
MANY_LINES=1
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
# One request at a time: its threads decide "if absent" without a lock between them, which our probe finds out now and then.
python=$(sed -n '1s/^#! *\(.*python.*\)/\1/p' "$moto")
[ -n "$python" ] || python=python3
$python -c 'import moto.server, werkzeug' 2>/dev/null || {
    echo "skipped: no second S3 server: $moto is there, and $python does not find its module"
    exit 77
}
cat >serve.py <<'EOF'
import sys
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import run_simple
run_simple('127.0.0.1', int(sys.argv[1]), DomainDispatcherApplication(create_backend_app), threaded=False)
EOF
$python serve.py "$port" >moto.log 2>&1 &
pid=$!
trap 'kill $pid 2>/dev/null; wait $pid 2>/dev/null || :' EXIT
export S3_TEST_ENDPOINT="http://127.0.0.1:$port" AWS_ENDPOINT_URL="http://127.0.0.1:$port" AWS_REGION=us-east-1 AWS_ACCESS_KEY_ID=testing AWS_SECRET_ACCESS_KEY=testing
i=0
until python3 "$TOP/tests/lib/s3-request.py" PUT /second >/dev/null 2>&1; do
    i=$((i + 1))
    [ $i -lt 100 ] || fail "moto does not answer: $(cat moto.log)"
    sleep 0.2
done

make_tree tree
head -c 20M /dev/urandom >tree/large
export GRID_STORE=s3://second/grid
"$GRID" datastore create tree --name second >out 2>err || fail "create: $(cat err)"
[ "$(cat out)" = second:1 ] || fail "create: $(cat out)"
"$GRID" datastore verify second >out 2>err || fail "verify: $(cat err)"
"$GRID" datastore export second copy 2>err || fail "export: $(cat err)"
diff -r --no-dereference tree copy || fail "the export differs"
if [ -e /dev/fuse ]; then
    mkdir mnt
    "$GRID" datastore mount second mnt 2>err || fail "mount: $(cat err)"
    diff -r --no-dereference tree mnt || fail "the mount differs"
    "$GRID" datastore unmount mnt || fail "unmount"
fi

# Objects as a source.
mkdir plain
cp tree/large tree/hello.txt plain
for name in large hello.txt; do
    python3 "$TOP/tests/lib/s3-request.py" PUT "/second/source/$name" plain/$name >/dev/null || fail "cannot put $name"
done
for flag in '' --no-copy; do
    # shellcheck disable=SC2086 # one word or none
    "$GRID" datastore create s3://second/source/ --name "from$flag" $flag >out 2>err || fail "create $flag: $(cat err)"
    "$GRID" datastore export "from$flag" "from$flag" 2>err || fail "export: $(cat err)"
    diff -r plain "from$flag" || fail "what came from the bucket differs"
done
"$GRID" datastore fsck >out 2>err || fail "fsck: $(cat out err)"
