#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# A real Slurm for tests: one node, on ports of its own, with its own munge, in a directory of its own.
# Needs root, slurmctld, slurmd, slurm-client and munge.
#
#   eval "$(tests/lib/slurm.sh start DIR PLUGIN [ARGUMENT...])"
#       boots it, with a line for PLUGIN and its arguments in plugstack.conf, and prints the environment
#       of its users: SLURM_CONF
#   tests/lib/slurm.sh restart-node DIR      kills the node's daemon (kill -9) and starts it again
#   tests/lib/slurm.sh stop DIR              ends its processes and removes DIR
set -euo pipefail

[ $# -ge 2 ] || { echo "usage: slurm.sh start DIR PLUGIN [ARGUMENT...] | restart-node DIR | stop DIR" >&2; exit 2; }
d=$(realpath -m "$2")
node=$(hostname -s)

# A daemon may have died and its number been given away: only what was started here is ours.
end() {
    local pid
    [ -e "$d/run/$1.pid" ] || return 0
    pid=$(cat "$d/run/$1.pid")
    if tr '\0' '\n' <"/proc/$pid/environ" 2>/dev/null | grep -qxF "SLURM_CONF=$d/slurm.conf"; then
        kill "-$2" "$pid" 2>/dev/null || true
        for _ in $(seq 400); do
            [ -e "/proc/$pid" ] && [ "$(sed 's/.*) //; s/ .*//' "/proc/$pid/stat" 2>/dev/null)" != Z ] || break
            sleep 0.05
        done
    fi
    rm -f "$d/run/$1.pid"
}

begin() {
    local name=$1
    shift
    SLURM_CONF=$d/slurm.conf setsid "$@" </dev/null >"$d/log/$name.out" 2>&1 &
    echo $! >"$d/run/$name.pid"
}

start_node() {
    begin slurmd slurmd -D -N "$node"
}

is_idle() {
    SLURM_CONF=$d/slurm.conf sinfo -h -o %T 2>/dev/null | grep -qx idle
}

wait_idle() {
    for _ in $(seq 200); do
        is_idle && return
        sleep 0.1
    done
    echo "the node does not become idle" >&2
    return 1
}

case $1 in
stop)
    end slurmd TERM
    end slurmctld TERM
    end munged TERM
    rm -rf "$d"
    exit 0
    ;;
restart-node)
    end slurmd KILL
    start_node
    wait_idle
    exit 0
    ;;
start) ;;
*) exit 2 ;;
esac

[ "$(id -u)" = 0 ] || { echo "needs root, for Slurm's daemons" >&2; exit 77; }
for program in slurmctld slurmd munged srun; do
    command -v "$program" >/dev/null || { echo "$program is not installed" >&2; exit 77; }
done
shift 2
rm -rf "$d"
mkdir -p "$d"/{state,spool,log,run,munge}
chmod 0755 "$d" "$d/munge"
trap 'code=$?; [ $code = 0 ] || { tail -n 20 "$d"/log/* >&2 || true; "$0" stop "$d"; }' EXIT
read -r ctld_port node_port < <(python3 -c '
import socket
s = [socket.socket() for _ in range(2)]
[x.bind(("127.0.0.1", 0)) for x in s]
print(*[x.getsockname()[1] for x in s])')
head -c 128 /dev/urandom >"$d/munge/key"
chmod 0600 "$d/munge/key"
echo "required $*" >"$d/plugstack.conf"
cat >"$d/slurm.conf" <<END
ClusterName=test
SlurmctldHost=$node(127.0.0.1)
SlurmctldPort=$ctld_port
SlurmdPort=$node_port
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket=$d/munge/socket,cred_expire=5
StateSaveLocation=$d/state
SlurmdSpoolDir=$d/spool
SlurmctldPidFile=$d/run/slurmctld.own
SlurmdPidFile=$d/run/slurmd.own
SlurmctldLogFile=$d/log/slurmctld.log
SlurmdLogFile=$d/log/slurmd.log
PlugStackConfig=$d/plugstack.conf
ProctrackType=${SLURM_TEST_PROCTRACK:-proctrack/linuxproc}
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/linear
MpiDefault=none
ReturnToService=2
KillWait=2
MinJobAge=300
SchedulerParameters=sched_min_interval=100000,batch_sched_delay=0,defer_batch=0
JobRequeue=1
NodeName=$node NodeAddr=127.0.0.1 CPUs=2 State=UNKNOWN
PartitionName=test Nodes=$node Default=YES MaxTime=INFINITE OverSubscribe=FORCE:8 State=UP
END
begin munged munged --foreground --force --socket "$d/munge/socket" --key-file "$d/munge/key" \
    --log-file "$d/log/munged.log" --pid-file "$d/run/munged.own" --seed-file "$d/munge/seed" --num-threads 2
for _ in $(seq 100); do
    [ -S "$d/munge/socket" ] && break
    sleep 0.05
done
begin slurmctld slurmctld -D
start_node
wait_idle
echo "export SLURM_CONF=$d/slurm.conf"
