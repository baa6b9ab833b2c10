#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# timeout: 120
#
# Who may read what: a cluster that the administrator opened to one user, with the node's credentials; and
# everybody else, who gets what their own open, and nothing more, whatever they ask of the node.
. "$TOP/tests/lib/cli.sh"

# The administrator's file, seen by this case alone.
if [ -z "${GRID_CASE_INSIDE:-}" ]; then
    [ "$(id -u)" = 0 ] || { echo "needs root, for Slurm's daemons"; exit 77; }
    made=
    [ -d /etc/grid ] || { mkdir /etc/grid && made=yes; }
    code=0
    GRID_CASE_INSIDE=1 unshare -m "$0" || code=$?
    [ -z "$made" ] || rmdir /etc/grid
    exit $code
fi
. "$TOP/tests/lib/slurm-case.sh"
mount -t tmpfs -o mode=0755 tmpfs /etc/grid
unset GRID_CONFIG_SYSTEM GRID_STORE
mkdir -m 0700 rootstore
cat >/etc/grid/config <<END
[cluster lab]
store = file://$PWD/rootstore
users = somebody, nobody

[cluster open]
store = file://$PWD/rootstore
END
start_slurm

mkdir tree
echo secret >tree/which
./grid datastore create tree --name c --cluster lab >out 2>err || fail "create: $(cat err)"
MANY_LINES=1

# The listed user: by root's server.
cd home
expect 0 '' user srun -Q --datastore=lab/c sh -c 'cat /datastores/c/which; id -un; readlink /proc/self/ns/user'
[ "$(sed -n 1,2p out | tr '\n' ' ')" = 'secret nobody ' ] || fail "the listed user: $(cat out)"
user sh -c 'mkdir -p .config/grid && printf "[user]\ncontext = lab\n" >.config/grid/config'
expect 0 '' user srun -Q --datastore=c:1 cat /datastores/c/which
rm -r .config
cat >job <<'END'
#!/bin/sh
touch up
while [ ! -e down ]; do sleep 0.1; done
END
user sbatch --parsable -o log --datastore=lab/c job >id
eventually test -e up
attached >runs
grep -q '^job-.*batch  *c  *1  *lab ' runs || fail "the node has $(cat runs)"
pid=$(pgrep -n -f "^/bin/sh $slurm/spool")
[ "$(cat "/proc/$pid/root/datastores/c/which")" = secret ] || fail "the job does not see it"
! other cat "/proc/$pid/root/datastores/c/which" >seen 2>&1 || fail "another user reads through the job"
expect 1 "version 1 of 'c' is in use: Slurm job $(cat id).batch of nobody" ../grid datastore delete --cluster lab --name c --version 1 --yes
expect 1 'Permission denied' user cat "$top/rootstore/fmt"
: >down
eventually nothing_attached

# By name alone, in an own directory; a wrong name is said by the node, where only it can look.
mkdir mine
chown 65534:65534 mine
expect 0 '' user srun -Q --datastore=lab/c@"$PWD/mine" cat mine/which
expect 1 "is neither" user srun -Q --datastore=lab/c@/etc cat /etc/which
expect 1 "no datastore is named 'nope'" user srun -Q --datastore=lab/nope true

# Not listed: refused where it is submitted, and on the node, if that is got around.
cd ../other
for cluster in lab open; do
    expect 1 "rootstore" other srun --datastore=$cluster/c true
    expect 1 "rootstore" other salloc -Q sh -c "SLURM_GRID_DATASTORES=$cluster/c:1 srun cat /datastores/c/which"
    [ ! -s out ] || fail "the data came: $(cat out)"
done
cd ../home
expect 1 "rootstore" user srun --datastore=open/c true
expect 1 "rootstore" user salloc -Q sh -c "SLURM_GRID_DATASTORES=open/c:1 srun cat /datastores/c/which"
[ ! -s out ] || fail "the data came: $(cat out)"

# Who names another store by the name of an opened cluster gets it from nobody but themselves; and a
# user's own file opens nothing.
user sh -c "mkdir -p .config/grid && printf '[cluster open]\nusers = nobody\n' >.config/grid/config"
expect 1 "rootstore" user salloc -Q sh -c "SLURM_GRID_DATASTORES=open/c:1 srun cat /datastores/c/which"
rm -r .config

# The user's own server is nobody else's.
echo mine >../tree/which
user ../grid datastore create ../tree --name m >out 2>err || fail "create: $(cat err)"
rm -f up down
user sbatch --parsable -o log --datastore=m job >id
eventually test -e up
pid=$(pgrep -n -f "^/bin/sh $slurm/spool")
[ "$(user cat "/proc/$pid/root/datastores/m/which")" = mine ] || fail "the job does not see its own"
! cat "/proc/$pid/root/datastores/m/which" >seen 2>&1 || fail "root reads the user's own"
: >down
eventually nothing_attached
