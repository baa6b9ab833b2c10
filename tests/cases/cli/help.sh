#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# Every command explains itself, wrong usage is told with exit code 2, and Grid's words for rented
# machines are known.
. "$TOP/tests/lib/cli.sh"

expect 0 '' "$GRID" --version
grep -qE '^grid [0-9]+\.[0-9]+\.[0-9]+$' out || fail "version: $(cat out)"
expect 0 '' "$GRID" --help
expect 0 '' "$GRID" help

expect 0 '' "$GRID" --dump-options
cp out dump
[ "$(grep -c '^command' dump)" -ge 19 ] || fail "commands are missing from the dump"
cut -f 2 dump | sort -u | while read -r words; do
    # shellcheck disable=SC2086 # the words of a command are words
    expect 0 '' "$GRID" $words --help
    grep -q "^usage: grid $words" out || fail "$words --help shows no usage"
    cp out by-option
    # shellcheck disable=SC2086
    expect 0 '' "$GRID" help $words
    case $words in
    datastore | credential | session) ;; # with the overview of what begins like this
    *) cmp by-option out || fail "'help $words' and '$words --help' differ" ;;
    esac
    grep "^option	$words	" dump | cut -f 3 | while read -r option; do
        grep -q -- "$option" by-option || fail "$words --help does not show $option"
    done
done

expect 2 'a command is missing' "$GRID"
expect 2 "there is no command 'nonsense'" "$GRID" nonsense
expect 2 "there is no command 'datastore nonsense'" "$GRID" datastore nonsense
expect 2 'needs one more word' "$GRID" user
expect 2 'unknown option --nonsense.*grid datastore --help' "$GRID" datastore --nonsense
expect 2 'unknown option -x' "$GRID" datastore ls -x name
expect 2 'needs a value' "$GRID" datastore --cluster
expect 2 'takes no value' "$GRID" datastore --json=yes
expect 2 'an argument is missing: NAME' "$GRID" datastore show
expect 2 'one argument too many' "$GRID" datastore show a b
expect 2 "there is no command 'no such'" "$GRID" help no such
expect 2 'command to run is missing' "$GRID" run --datastore_name x
expect 2 'datastore is missing' "$GRID" run -- true

for word in login logout status stop history artifacts train ssh-keys team; do
    expect 2 "^grid: 'grid $word' " "$GRID" $word
    [ "$(wc -l <err)" = 1 ] || fail "$word: more than one sentence"
done
for option in --instance_type=g4 --gpus=1 --use_spot --disk_size=100; do
    expect 2 'rented machine' "$GRID" run $option --datastore_name x -- true
done
