#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# timeout: 300
#
# 64 processes create versions of one name at once, on the directory store and on a bucket; some are killed on the
# way. The numbers that were given are 1 to N without a gap, each once; what was reported as done is there, with its
# own bytes, and nothing else says that it succeeded.
. "$TOP/tests/lib/cli.sh"
. "$TOP/tests/lib/s3.sh"
MANY_LINES=1
CREATORS=64

for i in $(seq $CREATORS); do
    mkdir -p "sources/$i"
    echo "creator $i" >"sources/$i/who"
done

# race NAME: all at once, every eighth one killed after a while.
race() {
    mkdir -p "out-$1"
    for i in $(seq $CREATORS); do
        (
            HOME=$PWD/home-$1-$i XDG_CACHE_HOME=$PWD/home-$1-$i/cache GRID_CACHE=$PWD/home-$1-$i/cache
            export HOME XDG_CACHE_HOME GRID_CACHE
            if [ $((i % 8)) = 0 ]; then
                timeout -s KILL "0.$((i % 10))$i" "$GRID" datastore create "sources/$i" --name "$1" >"out-$1/$i" 2>"out-$1/$i.err" || :
            else
                "$GRID" datastore create "sources/$i" --name "$1" >"out-$1/$i" 2>"out-$1/$i.err" || echo "failed: $?" >>"out-$1/$i.err"
            fi
        ) &
    done
    wait
    python3 - "$1" "$CREATORS" <<'EOF' || fail "the race for $1"
import json, os, subprocess, sys
name, creators = sys.argv[1], int(sys.argv[2])
GRID = os.environ['GRID']
shown = json.loads(subprocess.check_output([GRID, 'datastore', '--show-incomplete', '--json'], text=True))
versions = {v['version']: v['status'] for v in shown if v['name'] == name}
told = {}
for i in range(1, creators + 1):
    out = open(f'out-{name}/{i}').read().strip()
    if out:
        version = int(out.removeprefix(name + ':'))
        if version in told:
            sys.exit(f'creators {told[version]} and {i} were both told {out}')
        told[version] = i
    elif i % 8:
        sys.exit(f'creator {i}: {open(f"out-{name}/{i}.err").read()}')
if sorted(versions) != list(range(1, len(versions) + 1)):
    sys.exit(f'numbers with gaps: {sorted(versions)}')
if len(told) < creators - creators // 8:
    sys.exit(f'{len(told)} of {creators} are done')
for version, i in told.items():
    who = subprocess.run([GRID, 'datastore', 'cat', f'{name}:{version}/who'], stdout=subprocess.PIPE, text=True).stdout
    if versions.get(version) != 'succeeded' or who != f'creator {i}\n':
        sys.exit(f'version {version} of creator {i} is {versions.get(version)}, and says {who!r}')
# Who was killed between its commit and its last line has succeeded too; nobody else has.
extra = [v for v, status in versions.items() if status == 'succeeded' and v not in told]
if len(extra) > creators // 8:
    sys.exit(f'nobody was told of {extra}')
print(f'{name}: {len(versions)} numbers, {len(told)} told, {len(versions) - len(told)} killed on the way')
EOF
    "$GRID" datastore fsck >fsck.out 2>&1 || fail "fsck: $(cat fsck.out)"
}

# The store is there before: its probe is not what is tested here.
"$GRID" datastore create sources/1 --name first >out 2>err || fail "create: $(cat err)"
race disk
export GRID_STORE="s3://$S3_TEST_BUCKET/$S3_TEST_PREFIX"
"$GRID" datastore create sources/1 --name first >out 2>err || fail "create: $(cat err)"
race bucket
