#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# timeout: 180
#
# Jobs with datastores: srun, sbatch and salloc, as an ordinary user and as root; wrong names fail where
# they are submitted.
. "$TOP/tests/lib/cli.sh"
. "$TOP/tests/lib/slurm-case.sh"
start_slurm

make_tree tree
mkdir second
echo first >second/which
chmod -R a+rX tree second
user ./grid datastore create tree --name t >out 2>err || fail "create: $(cat err)"
user ./grid datastore create second --name s >out 2>err || fail "create: $(cat err)"
echo newer >second/which
user ./grid datastore create second --name s >out 2>err || fail "create: $(cat err)"
cd home
mkdir mine
chown 65534:65534 mine

# One, several, several tasks that see one mount.
srun --help | grep -q -- '--datastore=NAME' || fail "srun --help does not show --datastore"
expect 0 "" user srun -Q --datastore=t diff -r --no-dereference ../tree /datastores/t
expect 0 "" user srun -Q --datastore=t --datastore=s:1@"$PWD/mine" --datastore=s \
    sh -c 'cat mine/which /datastores/s/which /datastores/t/hello.txt; id -un; pwd'
[ "$(tr '\n' ' ' <out)" = "first newer hello nobody $PWD " ] || fail "several: $(cat out)"
[ -z "$(ls -A mine)" ] || fail "others see the datastore"
[ ! -e /datastores/t ] || fail "others see the datastore"
expect 0 "" user srun -Q -n4 --overcommit --datastore=t sh -c 'readlink /proc/self/ns/mnt; cmp /datastores/t/hello.txt ../tree/hello.txt'
[ "$(sort -u out | wc -l)" = 1 ] && [ "$(wc -l <out)" = 4 ] || fail "four tasks: $(cat out)"
expect 0 "" user srun -Q sh -c '[ ! -e /datastores/t ]'
expect 3 "error: .*Exited with exit code 3" user srun -Q --datastore=t sh -c 'exit 3'

# A script with steps: they see what the job has, and what is theirs.
cat >job <<'END'
#!/bin/sh
#SBATCH --datastore=t
#SBATCH --datastore=s:1
cat /datastores/t/hello.txt /datastores/s/which
srun sh -c 'echo step $(cat /datastores/t/hello.txt /datastores/s/which)'
srun --datastore=s:2 --datastore=t@$PWD/mine sh -c 'echo own $(cat mine/hello.txt /datastores/t/hello.txt /datastores/s/which)'
srun --datastore=nope true && echo never
echo end
END
expect 0 "" user sbatch --wait -o log job
[ "$(grep -v -e "^srun: " -e "^grid: " log | tr "\n" " ")" = "hello first step hello first own hello hello newer end " ] ||
    fail "sbatch: $(cat log)"
grep -q "^grid: no datastore is named .nope" log || fail "sbatch: $(cat log)"
expect 0 "" user sbatch --wait --export=HOME="$PWD",PATH="$PATH" -o log job
grep -q "^step hello first$" log || fail "sbatch --export: $(cat log)"
expect 0 '' user salloc -Q --datastore=t srun cat /datastores/t/hello.txt
[ "$(cat out)" = hello ] || fail "salloc: $(cat out)"

# The version is settled at submission: all see the same, whatever is created meanwhile.
user sbatch --hold --parsable -o held --datastore=s --wrap 'cat /datastores/s/which' >id
echo newest >../second/which
user ../grid datastore create ../second --name s >out 2>err || fail "create: $(cat err)"
scontrol release "$(cat id)"
eventually is_state "$(cat id)" COMPLETED
[ "$(cat held)" = newer ] || fail "held: $(cat held)"

# What is wrong is said at submission, and no job is made.
before=$(scontrol -o show jobs | wc -l)
MANY_LINES=1
printf '#!/bin/sh\n' >plain
submit() {
    expect 1 "$1" user srun "$2" true
    expect 1 "$1" user sbatch "$2" plain
    expect 1 "$1" user salloc "$2" true
}
submit "^grid: no datastore is named 'nope'" --datastore=nope
submit "^grid: 't' has no version 9" --datastore=t:9
expect 1 "^grid: .T. is no name of a datastore" user srun --datastore=T true
expect 1 "must be an absolute path" user srun --datastore=t@here true
expect 1 "there is no cluster 'moon'" user srun --datastore=moon/t true
expect 1 "names a file" user srun --datastore=local/t/hello.txt true
expect 1 "t and t:1 would be at the same place" user srun --datastore=t --datastore=t:1 true
expect 255 "datastore=NAME" user srun --datastore= true
[ "$(scontrol -o show jobs | wc -l)" = "$before" ] || fail "a job was made for a wrong name"

# Nothing is mounted where programs of root's would trust it.
for directory in /etc /nowhere/t "$PWD/../other"; do
    expect 1 "below /datastores, or on a directory of the user's own: .* is neither" user srun --datastore=t@"$directory" echo never
    [ ! -s out ] || fail "the job ran: $(cat out)"
done
ln -s /etc mine/link
expect 1 "/etc is neither" user srun --datastore=t@"$PWD/mine/link" echo never
# A batch job that fails so does not take the node away.
expect 1 '' user sbatch --wait -o log --datastore=t@/etc --wrap 'echo never'
grep -q "is neither" log || fail "sbatch: $(cat log)"
eventually sh -c 'sinfo -h -o %T | grep -qx idle'
MANY_LINES=

# Root's jobs.
cd ..
export HOME="$PWD/roots"
unset GRID_RUNTIME_DIR
GRID_RUNTIME_DIR=$PWD/node ./grid datastore create tree --name r >out 2>err || fail "create: $(cat err)"
expect 0 "" srun -Q --datastore=r diff -r --no-dereference tree /datastores/r
expect 0 '' sbatch --wait -o log --datastore=r@"$PWD/tree/empty" --wrap "cat '$PWD/tree/empty/hello.txt'; srun cat '$PWD/tree/empty/hello.txt'"
[ "$(tr '\n' ' ' <log)" = 'hello hello ' ] || fail "root's sbatch: $(cat log)"

eventually nothing_attached
! grep -q '/datastores/' /proc/self/mountinfo || fail "a mount is left"
