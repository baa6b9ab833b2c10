# SPDX-License-Identifier: Apache-2.0
#
# For the cases of the command line, sourced: what a command owes.
#   expect CODE PATTERN COMMAND...   exit code, and PATTERN (extended regular expression; '' for no
#                                    output at all) on standard error; standard output goes to ./out
#   fail WORDS                       end the case
set -eu

fail() {
    echo "FAILED: $*" >&2
    exit 1
}

expect() {
    want=$1 pattern=$2
    shift 2
    got=0
    "$@" >out 2>err || got=$?
    [ "$got" = "$want" ] || fail "'$*' gave $got instead of $want: $(cat err)"
    if [ -z "$pattern" ]; then
        [ ! -s err ] || fail "'$*' said: $(cat err)"
    else
        grep -qE -e "$pattern" err || fail "'$*' said '$(cat err)', not '$pattern'"
    fi
    # A failure is one sentence, of one line that names the program.
    if [ "$want" = 1 ] && [ "${MANY_LINES:-}" = '' ]; then
        [ "$(wc -l <err)" = 1 ] || fail "'$*' said more than one sentence: $(cat err)"
        grep -q '^grid: ' err || fail "'$*' does not say who speaks: $(cat err)"
    fi
}

# The value of a key path in a JSON file: json FILE EXPRESSION
json() {
    python3 -c 'import json, sys; d = json.load(open(sys.argv[1])); print(eval(sys.argv[2]))' "$1" "$2"
}

# A small tree with some of everything.
make_tree() {
    mkdir -p "$1/dir/deep/er" "$1/empty"
    echo hello >"$1/hello.txt"
    : >"$1/nothing"
    head -c 300000 /dev/urandom >"$1/dir/big"
    head -c 100 /dev/urandom >"$1/dir/small"
    echo deep >"$1/dir/deep/er/file"
    ln -s ../hello.txt "$1/dir/link"
    ln "$1/dir/small" "$1/dir/deep/twin"
    chmod 0755 "$1/dir/small"
    touch -d '2001-02-03 04:05:06.789 UTC' "$1/hello.txt"
    touch -d '1960-01-01 00:00:00 UTC' "$1/nothing"
    touch "$1/$(printf 'odd\033[2J\nname')" "$1/$(printf 'latin\351')"
    truncate -s 20M "$1/dir/hole"
    echo end >>"$1/dir/hole"
}
