#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# show, ls, cat, diff, index, export, verify on good versions, without a mount.
. "$TOP/tests/lib/cli.sh"

make_tree tree
python3 -c 'import os; os.setxattr("tree/hello.txt", "user.colour", b"blue\xff")' 2>/dev/null ||
    echo "note: no extended attributes on this file system"
"$GRID" datastore create tree --name t >out 2>err || fail "create: $(cat err)"

# ls: raw bytes to a pipe, in the order of bytes; -0; -l; -R; one file; JSON.
expect 0 '' "$GRID" datastore ls t -0
(cd tree && find . -mindepth 1 -maxdepth 1 -printf '%f\0' | LC_ALL=C sort -z) >want
cmp out want || fail "ls -0 differs"
expect 0 '' "$GRID" datastore ls -R0 t:1
(cd tree && find . -mindepth 1 -printf '%P\0' | LC_ALL=C sort -z) >want
LC_ALL=C sort -z out >got
cmp got want || fail "ls -R0 differs"
expect 0 '' "$GRID" datastore ls t/dir/
[ "$(tr '\n' ' ' <out)" = 'big deep hole link small ' ] || fail "ls t/dir: $(cat out)"
expect 0 '' env TZ=UTC "$GRID" datastore ls -l t/hello.txt
[ "$(cat out)" = '-r--r--r--   1            6 2001-02-03 04:05 hello.txt' ] || fail "ls -l: $(cat out)"
expect 0 '' "$GRID" datastore ls -l t:1/dir
grep -qE '^lr.* link -> \.\./hello\.txt$' out || fail "no target in $(cat out)"
grep -qE '^-r-xr-xr-x +2 +100 .* small$' out || fail "mode and links: $(cat out)"
expect 0 '' "$GRID" datastore ls t --json
[ "$(json out 'sorted(r["path_bytes"] for r in d if "path_bytes" in r)')" = "['6c6174696ee9']" ] ||
    fail "JSON of a name that is not UTF-8: $(cat out)"
[ "$(json out '[r["modified_at"] for r in d if r["path"] == "nothing"]')" = "['1960-01-01T00:00:00Z']" ] ||
    fail "JSON of a time before 1970: $(cat out)"
expect 0 '' "$GRID" datastore ls t/empty
[ ! -s out ] || fail "an empty directory has: $(cat out)"

# On a terminal names are escaped.
if command -v script >/dev/null; then
    script -qec "'$GRID' datastore ls t" /dev/null >out </dev/null
    grep -q 'odd\\x1b\[2J\\x0aname' out || fail "names are not escaped on a terminal: $(cat -v out)"
fi

# cat: bytes.
for file in hello.txt dir/big dir/deep/er/file nothing dir/hole; do
    "$GRID" datastore cat "t/$file" | cmp - "tree/$file" || fail "cat $file differs"
done
"$GRID" datastore cat t/hello.txt t:1/dir/deep/er/file >out
[ "$(cat out)" = "$(printf 'hello\ndeep')" ] || fail "cat of two: $(cat out)"
expect 1 'cannot write the output' sh -c '"$GRID" datastore cat t/dir/big >/dev/full'
expect 1 'cannot write the output' sh -c '"$GRID" datastore ls t >/dev/full'
expect 1 'cannot write the output' sh -c '"$GRID" datastore --json >/dev/full'

# show.
expect 0 '' "$GRID" datastore show t
grep -qE '^Datastore +t:1$' out || fail "show: $(cat out)"
expect 0 '' "$GRID" datastore show t --json
[ "$(json out 'd["name"], d["version"], d["directories"] > 3, d["symlinks"], len(d["packs"])')" = \
    "('t', 1, True, 1, 1)" ] || fail "show --json: $(cat out)"

# diff.
cp -a tree tree2
mv tree2 moved && mv tree tree1 && mv moved tree
echo more >>tree/hello.txt
rm tree/dir/deep/er/file
echo new >tree/dir/new
chmod 0644 tree/dir/small
touch -h -d '2010-01-01 UTC' tree/dir/link
"$GRID" datastore create tree --name t >out 2>err || fail "create: $(cat err)"
expect 0 '' "$GRID" datastore diff t:1 t:2
cat >want <<'WANT'
M dir/deep/twin
D dir/deep/er/file
A dir/new
M dir/small
M hello.txt
WANT
LC_ALL=C sort out >got
LC_ALL=C sort want | cmp - got || fail "diff: $(cat out)"
expect 0 '' "$GRID" datastore diff t:2 t:2
[ ! -s out ] || fail "a version differs from itself: $(cat out)"
expect 0 '' "$GRID" datastore diff t:1 t --json
[ "$(json out '[r["path"] for r in d["added"]], [r["path"] for r in d["removed"]], len(d["changed"]), d["to"]["version"]')" = \
    "(['dir/new'], ['dir/deep/er/file'], 3, 2)" ] || fail "diff --json: $(cat out)"

# index: what erofs-utils reads, and text.
expect 0 '' "$GRID" datastore index t:1 image
if command -v dump.erofs >/dev/null && dump.erofs -s image >dumped 2>&1; then
    grep -qi 'magic' dumped || fail "dump.erofs: $(cat dumped)"
fi
"$GRID" datastore index t:1 - | cmp - image || fail "index on standard output differs"
[ "$(stat -c %a image)" = "$(printf '%o' $((0666 & ~$(umask))))" ] || fail "mode of the image"
expect 0 '' "$GRID" datastore index t:1 --dump
grep -q 'hello.txt' out || fail "the dump has no names"
expect 2 'file for the image is missing' "$GRID" datastore index t:1
expect 1 'nowhere/image' "$GRID" datastore index t:1 nowhere/image

# export: the same tree, again publishable, and nothing through links.
expect 0 'copied [0-9]+ files' "$GRID" datastore export t:1 copy
python3 - tree1 copy <<'PYTHON' || fail "the copy differs"
import os, sys
a, b = (os.fsencode(x) for x in sys.argv[1:])
def rows(top):
    r = {}
    for d, dirs, files in os.walk(top):
        for n in dirs + files:
            p = os.path.join(d, n); s = os.lstat(p)
            kind = s.st_mode & 0o170000
            data = os.readlink(p) if os.path.islink(p) else open(p, 'rb').read() if os.path.isfile(p) else b''
            mode = 0 if os.path.islink(p) else (s.st_mode | 0o444) & 0o555
            mtime = s.st_mtime_ns
            xattrs = [(k, os.getxattr(p, k)) for k in os.listxattr(p)] if kind == 0o100000 else []
            data = (data, xattrs)
            r[os.path.relpath(p, top)] = (kind, mode, mtime, s.st_nlink if not os.path.isdir(p) else 0, data)
    return r
x, y = rows(a), rows(b)
assert x.keys() == y.keys(), x.keys() ^ y.keys()
for p in x:
    assert x[p] == y[p], (p, x[p][:4], y[p][:4])
assert os.lstat(b + b'/dir/small').st_ino == os.lstat(b + b'/dir/deep/twin').st_ino
assert os.lstat(b + b'/dir/hole').st_blocks * 512 < 1 << 20, 'the hole was filled'
PYTHON
expect 1 'is not empty' "$GRID" datastore export t:1 copy
mkdir new
expect 0 'copied' "$GRID" datastore export t:2 new
expect 1 'cannot make no/where' "$GRID" datastore export t:2 no/where
expect 1 'hello' "$GRID" datastore export t:2 tree/hello.txt

# verify.
expect 0 '' "$GRID" datastore verify t:1
grep -q '^t:1 is good' out || fail "verify: $(cat out)"
expect 0 '' "$GRID" datastore verify t --json
[ "$(json out 'd["good"], d["version"], d["damaged"], d["damaged_files"]')" = "(True, 2, [], [])" ] ||
    fail "verify --json: $(cat out)"
