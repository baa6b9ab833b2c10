# SPDX-License-Identifier: Apache-2.0
#
# For the cases of Slurm, sourced behind cli.sh: a cluster of one node (tests/lib/slurm.sh) with the
# plugin, and two ordinary users.
#   user COMMAND...     as `nobody`, whose home is $PWD/home; other COMMAND...: as `daemon`
#   attached            names of runs that the node has attached
#   eventually COMMAND...   within 20 s
[ "$(id -u)" = 0 ] || { echo "needs root, for Slurm's daemons"; exit 77; }
[ -e /dev/fuse ] || { echo "there is no /dev/fuse"; exit 77; }
plugin=$BUILD/plugins/slurm/grid_slurm.so
[ -e "$plugin" ] || { echo "the plugin was not built: there is no slurm/spank.h"; exit 77; }
for program in slurmctld slurmd munged srun setpriv; do
    command -v $program >/dev/null || { echo "$program is not installed"; exit 77; }
done

top=$PWD
slurm=$top/slurm
mkdir home other node
chown 65534:65534 home
chown daemon:daemon other
cp "$GRID" grid
as() {
    as_id=$1 as_home=$2
    shift 2
    setpriv --reuid="$as_id" --regid="$as_id" --clear-groups env -i SLURM_CONF="$slurm/slurm.conf" PATH="$PATH" HOME="$as_home" GRID_RUNTIME_DIR="$as_home/run" \
        LC_ALL=C.UTF-8 "$@"
}
user() { as 65534 "$top/home" "$@"; }
other() { as 1 "$top/other" "$@"; }
attached() { GRID_RUNTIME_DIR=$top/node "$top/grid" run 2>/dev/null | sed 1d; }
eventually() {
    for _ in $(seq 200); do
        "$@" && return
        sleep 0.1
    done
    fail "this does not come: $*; $(cat "$slurm"/log/slurmd.log | tail -n 20)"
}
nothing_attached() { [ -z "$(attached)" ]; }
# The state of a job.
state() { scontrol -o show job "$1" | sed -n 's/.* JobState=\([A-Z_]*\) .*/\1/p'; }
is_state() { [ "$(state "$1")" = "$2" ]; }

trap '"$TOP/tests/lib/slurm.sh" stop "$slurm"' EXIT
start_slurm() {
    "$TOP/tests/lib/slurm.sh" start "$slurm" "$plugin" "grid=$PWD/grid" "setenv=GRID_RUNTIME_DIR=$PWD/node" \
        setenv=GRID_SERVER_IDLE=0 "setenv=GRID_CACHE=$PWD/node/cache" "$@" >started 2>err || {
        code=$?
        [ $code = 77 ] || fail "Slurm does not start: $(cat err)"
        cat err
        exit 77
    }
    . ./started
}
