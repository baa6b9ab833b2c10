#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# grid credential: what is printed, what is stored and how, what is refused.
. "$TOP/tests/lib/cli.sh"
export HOME=$PWD/home XDG_CONFIG_HOME=$PWD/home/config
mkdir home
file=$XDG_CONFIG_HOME/grid/credentials
arn=arn:aws:iam::123456789012:role/Image-Reader

expect 0 '' "$GRID" credential --json
[ "$(cat out)" = '[]' ] || fail "no list of nothing: $(cat out)"
[ ! -e "$file" ] || fail 'listing made a file'

# Created: two policies, a new external id in one of them and in the file, which is private.
umask 000
MANY_LINES=1 expect 0 'image-reader is stored' "$GRID" credential create --type s3 --role-arn $arn --description 'for images'
umask 022
grep -q 'sts:ExternalId' out && grep -q 's3:GetObjectVersion' out || fail "policies are missing: $(cat out)"
id=$(sed -n 's/.*"sts:ExternalId": "\([0-9a-f]*\)".*/\1/p' out)
[ ${#id} = 32 ] || fail "the external id is '$id'"
[ "$(stat -c %a "$file")" = 600 ] || fail "the file has mode $(stat -c %a "$file")"
expect 0 '' "$GRID" credential list --json
[ "$(json out 'd[0]["role_arn"], d[0]["external_id"], d[0]["name"], d[0]["type"], d[0]["description"]')" = "('$arn', '$id', 'image-reader', 's3', 'for images')" ] || fail "$(cat out)"
expect 0 '' "$GRID" credential
grep -q "image-reader *s3 *$arn" out || fail "$(cat out)"

# A second one has another external id, or the one that is given; documents are JSON.
MANY_LINES=1 expect 0 'second is stored' "$GRID" credential create --name second --role-arn $arn --external-id other-id --json
[ "$(json out 'd["trust_policy"]["Statement"][0]["Condition"]["StringEquals"]["sts:ExternalId"]')" = other-id ] || fail "$(cat out)"
expect 0 'third' "$GRID" credential create --name third --role-arn $arn
! grep -q "$id" out || fail 'an external id was given out twice'

# Bad input: nothing changes.
cp "$file" before
expect 1 "there is a credential 'image-reader' already" "$GRID" credential create --role-arn $arn
for bad in '' role/x arn:aws:iam::1:user/x arn:aws:iam::1:role/ arn:aws:s3:::bucket 'arn:aws:iam::1:role/a b' "arn:aws:iam::1:role/$(head -c 3000 /dev/zero | tr '\0' x)"; do
    expect 1 'is no role' "$GRID" credential create --name x --role-arn "$bad"
done
expect 2 'cannot be an external id' "$GRID" credential create --name x --role-arn $arn --external-id 'a b'
expect 2 'no name for a credential' "$GRID" credential create --name 'X Y' --role-arn $arn
expect 2 "type 'gs'" "$GRID" credential create --type gs --role-arn $arn
expect 2 'longer than' "$GRID" credential create --role-arn $arn --name x --description "$(head -c 300 /dev/zero | tr '\0' x)"
expect 2 'no terminal' "$GRID" credential create </dev/null
expect 1 "there is no credential 'nobody'" "$GRID" credential delete nobody
cmp -s before "$file" || fail 'what failed changed the file'

# On a terminal the role is asked for, after the policies.
if command -v script >/dev/null; then
    printf '%s\n' "$arn" | script -qec "$GRID credential create --name asked" typescript >/dev/null || fail "$(cat typescript)"
    grep -q 'ARN of the role' typescript || fail "it did not ask: $(cat typescript)"
    "$GRID" credential | grep -q asked || fail 'what was asked for is not stored'
    "$GRID" credential delete asked 2>/dev/null
fi

# Two at once lose nothing.
for i in 1 2 3 4 5 6; do "$GRID" credential create --name "p$i" --role-arn $arn >/dev/null 2>&1 & done
wait
expect 0 '' "$GRID" credential --json
[ "$(json out len\(d\))" = 9 ] || fail "some of the credentials are lost: $(cat out)"

expect 0 'second is forgotten' "$GRID" credential delete second
! grep -q other-id "$file" || fail 'it is still there'

# A file that others can change says whose role is assumed: not used. Nor is one that is damaged, or newer.
chmod 666 "$file"
expect 1 'can be changed by others' "$GRID" credential
chmod 600 "$file"
echo '{"format": 2, "credentials": []}' >"$file"
expect 1 'newer version' "$GRID" credential
for bad in '' '{' '[]' '{"format": 1}' '{"format": 1, "credentials": [{}]}' '{"format": 1, "credentials": [{"name": "../x", "role_arn": "'$arn'", "external_id": "", "description": ""}]}'; do
    echo "$bad" >"$file"
    expect 1 "$file" "$GRID" credential
done
