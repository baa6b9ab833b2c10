#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# timeout: 180
#
# How long a job has its datastore: until its last process ends, however that ends; meanwhile it cannot
# be deleted.
. "$TOP/tests/lib/cli.sh"
[ "${SOAK:-}" = 1 ] || {
    echo "in the soak only: it restarts Slurm's daemons, which lose a job on the way now and then"
    exit 77
}
. "$TOP/tests/lib/slurm-case.sh"
start_slurm

make_tree tree
chmod -R a+rX tree
user ./grid datastore create tree --name t >out 2>err || fail "create: $(cat err)"
cd home
delete() { user ../grid datastore delete --name t --version 1 --yes "$@"; }
cat >job <<'END'
#!/bin/sh
echo up >up
while [ ! -e down ]; do cat /datastores/t/hello.txt >>seen || echo failed >>bad; sleep 0.1; done
echo end >>ends
END
begin() {
    rm -f up down seen ends
    user sbatch --parsable -o log --datastore=t "$@" job >id 2>err || fail "sbatch: $(cat err)"
    id=$(cat id)
    eventually test -e up
}

# Refused, by name, while the job runs; possible behind it.
begin
expect 1 "version 1 of 't' is in use: Slurm job $id.batch of nobody on .* \(process [0-9]+\) since 20" delete
attached >runs
grep -qE "^job-$id.batch +t +1 +local +/datastores/t " runs || fail "the node has $(cat runs)"
! ls /proc/"$(pgrep -n -f "^/bin/sh $slurm/spool")"/root/datastores/t 2>/dev/null || fail "root sees the user's own datastore"
: >down
eventually is_state "$id" COMPLETED
eventually nothing_attached

# Killed.
is_over() {
    case $(state "$1") in
    PENDING | RUNNING | COMPLETING) return 1 ;;
    esac
}
begin
scancel --signal=KILL --full "$id"
eventually is_over "$id"
eventually nothing_attached
[ ! -e ends ] || fail "it was not killed"
begin
scancel "$id"
eventually is_over "$id"
eventually nothing_attached

# A process that the job left behind keeps it.
cat >leaves <<'END'
#!/bin/sh
setsid sh -c 'echo up >up; while [ ! -e down ]; do cat /datastores/t/hello.txt >>seen || echo failed >>bad; sleep 0.1; done; echo end >ends' >/dev/null 2>&1 &
while [ ! -e up ]; do sleep 0.05; done
END
rm -f up down seen ends bad
expect 0 '' user sbatch --wait --parsable -o log --datastore=t leaves
id=$(cat out)
: >seen
eventually test -s seen
expect 1 "in use: Slurm job $id.batch of nobody" delete
: >down
eventually test -s ends
[ ! -e bad ] || fail "what it left behind lost its data"
eventually nothing_attached

# Slurm's daemons die; the job does not notice.
begin
stepd=$(pgrep -f "^slurmstepd: \[$id[.]bat")
"$TOP/tests/lib/slurm.sh" restart-node "$slurm" 2>err || :
: >seen
eventually test -s seen
kill -9 "$stepd"
: >seen
eventually test -s seen
expect 1 "in use: Slurm job $id.batch of nobody" delete
: >down
eventually test -s ends
[ ! -e bad ] || fail "the job lost its data"
eventually nothing_attached
scancel "$id" # who would have said that it ended is dead
eventually sh -c 'sinfo -h -o %T | grep -qx idle'

# A server dies: another one goes on, as the user.
begin
supervisor=$(GRID_RUNTIME_DIR=$top/node ../grid run --json | python3 -c 'import json, sys; print(json.load(sys.stdin)[0]["server"])')
server=$(cat /proc/"$supervisor"/task/*/children)
[ "$(awk '/^Uid:/ { print $2 $3 $4 $5 }' "/proc/${server% }/status")" = 65534655346553465534 ] || fail "the server is not the user's"
# shellcheck disable=SC2086
kill -9 $server
: >seen
eventually test -s seen
: >down
eventually is_state "$id" COMPLETED
[ ! -e bad ] || fail "the job lost its data: $(cat bad)"

# Requeued: attached anew.
begin
scontrol requeue "$id"
eventually nothing_attached
rm -f up seen
eventually is_state "$id" PENDING
scontrol update JobId="$id" StartTime=now # Slurm would let it wait a while
eventually test -e up
: >down
eventually is_state "$id" COMPLETED
[ "$(cat ends)" = end ] || fail "requeued: $(cat ends)"

eventually nothing_attached
expect 0 '' delete
expect 1 "version 1 of 't' was deleted|no datastore is named 't'" user ../grid datastore show t:1
