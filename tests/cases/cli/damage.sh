#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# One flipped bit in each kind of object: told in one sentence that names it, exit code 1; what is not
# damaged can still be read; the bit turned back, all is well.
. "$TOP/tests/lib/cli.sh"

make_tree tree
head -c 3000000 /dev/urandom >tree/many-leaves
"$GRID" datastore create tree --name t >out 2>err || fail "create: $(cat err)"
cp -a store good-store

flip() { # FILE OFFSET (negative: from the end)
    python3 - "$@" <<'PYTHON'
import os, sys
path, offset = sys.argv[1], int(sys.argv[2])
os.chmod(path, 0o644)
with open(path, 'r+b') as f:
    f.seek(offset, 2 if offset < 0 else 0)
    at = f.tell()
    byte = f.read(1)[0]
    f.seek(at)
    f.write(bytes([byte ^ 0x10]))
PYTHON
}
restore() {
    rm -rf store
    cp -a good-store store
}
find_one() { # KIND: the only object of it
    find "store/$1" -type f | head -n 1
}
pack=$(find_one p)
[ -n "$pack" ] || fail "there is no pack"

# Data: verify names pack, offset and file; cat reads up to the damaged leaf, everything else is fine.
"$GRID" datastore show t --json >shown
size=$(json shown 'd["packs"][0]["length_bytes"]')
[ "$size" -gt 3000000 ] || fail "the pack has $size bytes"
flip "$pack" 1500000
MANY_LINES=1
expect 1 'pack p/[0-9a-f]+/[0-9]+ is damaged at byte [0-9]+, [0-9]+ bytes: .*digest' "$GRID" datastore verify t
grep -q 'damaged file: many-leaves' err || grep -q 'damaged file: dir/big' err || fail "no file is named: $(cat err)"
grep -qE 't:1 is damaged: 1 place, 1 file$' err || fail "verify: $(cat err)"
file=$(sed -n 's/.*damaged file: //p' err)
expect 1 't:1|damaged' "$GRID" datastore verify t --json
[ "$(json out 'd["good"], len(d["damaged"]), [f["path"] for f in d["damaged_files"]]')" = "(False, 1, ['$file'])" ] ||
    fail "verify --json: $(cat out)"
expect 1 "cannot read '$file' in t:1 at byte [0-9]+: " "$GRID" datastore cat "t/$file"
head -c "$(stat -c %s out)" "tree/$file" | cmp - out || fail "wrong bytes were given"
"$GRID" datastore cat t/hello.txt | cmp - tree/hello.txt || fail "an undamaged file"
expect 1 "cannot copy $file" "$GRID" datastore export t copy
[ ! -e "copy/$file" ] || fail "half a file was exported"
cmp copy/hello.txt tree/hello.txt || fail "an undamaged file was not exported"
restore
expect 0 '' "$GRID" datastore verify t

# The pack's trailer, and a pack that is too short or gone.
flip "$pack" -3
expect 1 "$(echo "$pack" | sed 's,^store/,,')" "$GRID" datastore verify t
restore
chmod 0644 "$pack"
truncate -s -1 "$pack"
expect 1 "$(echo "$pack" | sed 's,^store/,,')" "$GRID" datastore verify t
restore
rm -f "$pack"
expect 1 "$(echo "$pack" | sed 's,^store/,,').*missing" "$GRID" datastore verify t
expect 1 "hello.txt" "$GRID" datastore cat t/hello.txt
restore

# The index: at its beginning and in its trailer.
index=$(find_one x)
for offset in 1030 -3; do
    flip "$index" $offset
    expect 1 'index|x/' "$GRID" datastore verify t
    expect 1 't:1|t/|index' "$GRID" datastore ls -R t
    restore
done

# The manifest, the records of the catalogue, the format.
MANY_LINES=
manifest=$(find_one m)
flip "$manifest" 100
expect 1 "$(echo "$manifest" | sed 's,^store/,,')|manifest" "$GRID" datastore show t
expect 1 'manifest|m/' "$GRID" datastore verify t
expect 1 'manifest|m/' "$GRID" datastore ls t
restore
for record in $(find store/n -type f); do
    flip "$record" 20
    key=$(echo "$record" | sed 's,^store/,,')
    case $key in
    */a) # read where there is no outcome, and by who adds a version
        MANY_LINES=1
        expect 1 "$key" "$GRID" datastore create tree --name t
        ;;
    *) expect 1 "$key" "$GRID" datastore --show-incomplete ;;
    esac
    MANY_LINES=
    restore
done
# A listing shows what can be read beside what cannot.
"$GRID" datastore create tree --name u >out 2>err || fail "create: $(cat err)"
outcome=$(find store/n/t -name o -type f)
flip "$outcome" 20
MANY_LINES=1
expect 1 "$(echo "$outcome" | sed 's,^store/,,') is damaged" "$GRID" datastore
MANY_LINES=
"$GRID" datastore 2>/dev/null | grep -q '^u ' || fail "the undamaged version is not listed"
restore
flip store/fmt 4
expect 1 'store' "$GRID" datastore
restore
expect 0 '' "$GRID" datastore verify t
