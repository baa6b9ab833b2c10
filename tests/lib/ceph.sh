#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# A real S3 server for tests: Ceph's object gateway with one monitor, one manager and one object store in
# memory, on ports of its own, in a directory of its own. Needs ceph-mon, ceph-osd, ceph-mgr and radosgw.
#
#   eval "$(tests/lib/ceph.sh start DIR)"    boots it and prints the environment of its users:
#       S3_TEST_ENDPOINT, S3_TEST_REGION; S3_TEST_STS_ENDPOINT, the same with roles (its errors are vaguer); AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY of a user who may do
#       everything, S3_TEST_OTHER_KEY and S3_TEST_OTHER_SECRET of one who owns nothing; CEPH_CONF
#   tests/lib/ceph.sh stop DIR               ends its processes and removes DIR
#
# Where S3_TEST_ENDPOINT is set already, `start` boots nothing and prints nothing: the tests use that one.
set -euo pipefail

usage() {
    echo "usage: ceph.sh start|stop DIR" >&2
    exit 2
}
[ $# = 2 ] || usage
d=$(realpath -m "$2")

stop() {
    local pid file
    for file in "$d"/run/*.pid; do
        [ -e "$file" ] || continue
        pid=$(cat "$file")
        # A daemon may have died and its number been given away: only what works in this directory is ours.
        if tr '\0' '\n' <"/proc/$pid/environ" 2>/dev/null | grep -qxF "CEPH_CONF=$d/ceph.conf"; then
            kill -9 "$pid" 2>/dev/null || true
            while [ -e "/proc/$pid" ] && [ "$(sed 's/.*) //; s/ .*//' "/proc/$pid/stat" 2>/dev/null)" != Z ]; do
                sleep 0.05
            done
        fi
    done
    rm -rf "$d"
}

answers() {
    for _ in $(seq 240); do
        (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null && return
        sleep 0.25
    done
    return 1
}

if [ "$1" = stop ]; then
    stop
    exit 0
fi
[ "$1" = start ] || usage
[ -z "${S3_TEST_ENDPOINT:-}" ] || exit 0

for program in ceph-mon ceph-osd ceph-mgr radosgw radosgw-admin; do
    command -v "$program" >/dev/null || { echo "$program is not installed" >&2; exit 77; }
done
rm -rf "$d"
mkdir -p "$d"/{mon,mgr,osd,rgw,run,log}
trap 'code=$?; [ $code = 0 ] || { tail -n 20 "$d"/log/* >&2 || true; stop; }' EXIT
read -r mon2 mon1 s3 sts < <(python3 -c '
import random, socket
s = []
while len(s) < 4:  # below the ports that the kernel gives to connections: nobody takes one before its daemon does
    try:
        s.append(socket.create_server(("127.0.0.1", random.randrange(10000, 30000))))
    except OSError:
        pass
print(*[x.getsockname()[1] for x in s])')
fsid=$(cat /proc/sys/kernel/random/uuid)

cat >"$d/ceph.conf" <<C
[global]
fsid = $fsid
mon initial members = a
mon host = [v2:127.0.0.1:$mon2,v1:127.0.0.1:$mon1]
public network = 127.0.0.0/8
auth cluster required = none
auth service required = none
auth client required = none
auth supported = none
ms mon client mode = crc
ms client mode = crc
ms bind ipv6 = false
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 4
osd crush chooseleaf type = 0
osd objectstore = memstore
memstore device bytes = 8589934592
mon allow pool size one = true
mon data avail crit = 1
run dir = $d/run
log file = $d/log/\$name.log
admin socket = $d/run/\$name.asok
pid file = $d/run/\$name.pid
keyring = $d/rgw/keyring
[mon.a]
mon data = $d/mon
[osd.0]
osd data = $d/osd
[mgr.x]
mgr data = $d/mgr
[client.rgw.a]
rgw data = $d/rgw
rgw frontends = beast endpoint=127.0.0.1:$s3
[client.rgw.b]
rgw data = $d/rgw
rgw frontends = beast endpoint=127.0.0.1:$sts
rgw sts key = abcdefghijklmnop
rgw s3 auth use sts = true
C
export CEPH_CONF=$d/ceph.conf

{
    monmaptool --create --addv a "[v2:127.0.0.1:$mon2,v1:127.0.0.1:$mon1]" --fsid "$fsid" "$d/monmap"
    ceph-mon --mkfs -i a --monmap "$d/monmap"
    ceph-mon -i a
    ceph osd create
    ceph-osd -i 0 --mkfs
    ceph-osd -i 0
    ceph-mgr -i x
    ceph auth get-or-create client.rgw.a mon 'allow rw' osd 'allow rwx' >"$d/rgw/keyring"
    ceph auth get-or-create client.rgw.b mon 'allow rw' osd 'allow rwx' >>"$d/rgw/keyring"
    radosgw -n client.rgw.a
    answers "$s3"
    radosgw -n client.rgw.b
    answers "$sts"
    radosgw-admin -n client.rgw.a user create --uid test --display-name test \
        --access-key AKtest --secret-key SKtest --caps 'roles=*;user-policy=*'
    radosgw-admin -n client.rgw.a user create --uid other --display-name other \
        --access-key AKother --secret-key SKother
} >"$d/log/start" 2>&1 </dev/null

cat <<E
export S3_TEST_ENDPOINT=http://127.0.0.1:$s3
export S3_TEST_STS_ENDPOINT=http://127.0.0.1:$sts
export S3_TEST_REGION=default
export AWS_ACCESS_KEY_ID=AKtest
export AWS_SECRET_ACCESS_KEY=SKtest
export S3_TEST_OTHER_KEY=AKother
export S3_TEST_OTHER_SECRET=SKother
export CEPH_CONF=$d/ceph.conf
E
