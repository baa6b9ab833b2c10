#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Completion in bash offers what the program has; zsh can at least parse its own.
set -eu
mkdir bin tree
ln -s "$GRID" bin/grid
PATH=$PWD/bin:$PATH
echo x >tree/x
grid datastore create tree --name flowers >/dev/null 2>&1
. "$TOP/completion/grid.bash"

try() { # EXPECTED WORDS...: the last word is being typed
    local want=$1
    shift
    COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) COMPREPLY=()
    _grid grid 2>/dev/null || :
    [ "${COMPREPLY[*]-}" = "$want" ] || { echo "FAILED: '$*' offers '${COMPREPLY[*]-}', not '$want'"; exit 1; }
}

try datastore grid d
try 'cat clearcache create' grid datastore c
try --global grid datastore --gl
try --exclude-private grid datastore create --exc
try '--datastore_name --datastore_version --datastore_mount_dir' grid run --data
try set-cluster-context grid user ''
try flowers grid datastore show fl
try flowers grid datastore ls --json f
try flowers grid run --datastore_name fl
grid credential create --role-arn arn:aws:iam::123456789012:role/reader >/dev/null 2>&1
try reader grid credential delete r
try 'auto fuse' grid datastore mount --mode ''
try local grid datastore --cluster l
try tree grid datastore create tr
try tree grid datastore export flowers tr

[ -z "$(command -v zsh)" ] || zsh -n "$TOP/completion/_grid"
