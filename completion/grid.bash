# SPDX-License-Identifier: Apache-2.0
#
# bash completion for grid. Commands and options come from the program itself
# (grid --dump-options), names of datastores from the store.

_grid_names() {
    "$1" datastore --global --json 2>/dev/null |
        sed -n 's/^ *"name": "\([a-z0-9._-]*\)",$/\1/p' | sort -u
}

_grid_clusters() {
    "$1" clusters --json 2>/dev/null | sed -n 's/^ *"name": "\([a-z0-9._-]*\)",*$/\1/p'
}

_grid_credentials() {
    "$1" credential --json 2>/dev/null | sed -n 's/^ *"name": "\([a-z0-9._-]*\)",*$/\1/p'
}

# What may stand for a value or argument of this kind.
_grid_values() {
    case $2 in
    *CREDENTIAL*) mapfile -t COMPREPLY < <(compgen -W "$(_grid_credentials "$1")" -- "$3") ;;
    *NAME*) mapfile -t COMPREPLY < <(compgen -W "$(_grid_names "$1")" -- "$3") ;;
    *CLUSTER*) mapfile -t COMPREPLY < <(compgen -W "$(_grid_clusters "$1")" -- "$3") ;;
    *MODE*) mapfile -t COMPREPLY < <(compgen -W "auto fuse" -- "$3") ;;
    *DIR*)
        mapfile -t COMPREPLY < <(compgen -d -- "$3")
        compopt -o filenames 2>/dev/null
        ;;
    *FILE* | *SOURCE*)
        mapfile -t COMPREPLY < <(compgen -f -- "$3")
        compopt -o filenames 2>/dev/null
        ;;
    esac
}

_grid() {
    local program=$1 word=${COMP_WORDS[COMP_CWORD]} words='' arguments='' argument=0
    local kind name third fourth rest i w value known

    if [ -z "${_grid_dump:-}" ]; then
        _grid_dump=$("$program" --dump-options 2>/dev/null) || return
    fi
    COMPREPLY=()

    # The command so far: as many words as the table knows; a value behind its option is none.
    value=
    for ((i = 1; i < COMP_CWORD; i++)); do
        w=${COMP_WORDS[i]}
        if [ -n "$value" ]; then
            value=
            continue
        fi
        if [[ $w == -* ]]; then
            if [ "$w" = -- ] && [ "$words" = run ]; then
                _grid_command $((i + 1))
                return
            fi
            value=$(awk -F '\t' -v c="$words" -v o="$w" \
                '$1 == "option" && $2 == c && $3 == o { print $4; exit }' <<<"$_grid_dump")
            continue
        fi
        known=$(awk -F '\t' -v c="${words:+$words }$w" \
            '$1 == "command" && index($2 " ", c " ") == 1 { print "yes"; exit }' <<<"$_grid_dump")
        if [ -n "$known" ] && [ "$argument" = 0 ]; then
            words=${words:+$words }$w
        elif [ "$words" = run ]; then
            _grid_command "$i"
            return
        else
            argument=$((argument + 1))
        fi
    done

    if [ -n "$value" ]; then
        _grid_values "$program" "$value" "$word"
        return
    fi
    local choices=
    if [[ $word == -* ]]; then
        choices=$(awk -F '\t' -v c="$words" '$1 == "option" && $2 == c { print $3 }' \
            <<<"$_grid_dump")" --help"
        mapfile -t COMPREPLY < <(compgen -W "$choices" -- "$word")
        return
    fi
    if [ "$argument" = 0 ]; then
        choices=$(awk -F '\t' -v c="$words" '
            $1 == "command" && (c == "" || index($2, c " ") == 1) {
                rest = c == "" ? $2 : substr($2, length(c) + 2)
                split(rest, part, " ")
                print part[1]
            }' <<<"$_grid_dump" | sort -u)
        mapfile -t COMPREPLY < <(compgen -W "$choices" -- "$word")
        [ "${#COMPREPLY[@]}" -gt 0 ] && [ -n "$choices" ] && return
    fi
    while IFS=$'\t' read -r kind name third fourth rest; do
        [ "$kind" = command ] && [ "$name" = "$words" ] && arguments=$third
    done < <(tr '\t' '\v' <<<"$_grid_dump" | sed 's/\v\v/\v-\v/g' | tr '\v' '\t')
    # shellcheck disable=SC2086 # the arguments of the synopsis, one by one
    set -- $arguments
    [ $# -eq 0 ] && return
    [ "$argument" -ge $# ] && argument=$(($# - 1))
    shift "$argument"
    _grid_values "$program" "$1" "$word"
}

# Behind `grid run --` any command line may stand.
_grid_command() {
    if declare -F _command_offset >/dev/null; then
        _command_offset "$1"
    else
        mapfile -t COMPREPLY < <(compgen -c -f -- "${COMP_WORDS[COMP_CWORD]}")
    fi
}

# A ':' is part of NAME:N, but bash cuts words there: complete without it.
complete -F _grid grid
