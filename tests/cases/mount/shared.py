#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# timeout: 240
"""One server for all jobs of a version: 50 runs and 200 mounts at once have the same process, which nobody has
to end; one lease names them all; killing a job's whole control group, the server, its supervisor or both does to
the others what docs/attaching.md says."""
import atexit, contextlib, os, re, signal, subprocess, sys, time

sys.path.insert(0, os.environ['TOP'] + '/tests/lib')
from gridtest import fail, grid, skip
import json

GRID, WAIT = os.environ['GRID'], 60
RUNTIME = os.environ['GRID_RUNTIME_DIR']
IDLE = dict(os.environ, GRID_SERVER_IDLE='2')
RUNS = []
BYTES = os.urandom(3 << 20)

READER = '''
import os, sys, time
want = open("tree/big", "rb").read()
print("up", flush=True)
while not os.path.exists(sys.argv[1]):
    fd = os.open("/datastores/t/big", os.O_RDONLY)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    at = os.urandom(2)[0] << 13
    if os.pread(fd, 1 << 20, at) != want[at:at + (1 << 20)]:
        sys.exit("wrong bytes")
    os.close(fd)
    open(sys.argv[1] + ".rounds", "a").write(".")
'''


def until(what, condition):
    end = time.monotonic() + WAIT
    while time.monotonic() < end:
        got = condition()
        if got:
            return got
        time.sleep(0.02)
    fail(f'{what}: it never came to that')


def mounts():
    return json.loads(grid('datastore', 'mounts', '--json').stdout)


def servers():
    return {row['server'] for row in mounts()}


def children(pid):
    with contextlib.suppress(OSError):
        with open(f'/proc/{pid}/task/{pid}/children') as f:
            return [int(p) for p in f.read().split()]
    return []


def is_alive(pid):
    try:
        with open(f'/proc/{pid}/stat') as f:
            return f.read().rsplit(')', 1)[1].split()[0] not in 'ZX'
    except OSError:
        return False


def start(name, *command, **more):
    RUNS.append(subprocess.Popen([GRID, 'run', '--name', name, '--datastore_name', 't', '--', *command], env=IDLE, text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True, **more))
    return RUNS[-1]


@atexit.register
def end_runs():
    """Of a case that failed."""
    for p in RUNS:
        if p.poll() is None:
            os.killpg(p.pid, signal.SIGKILL)


def start_reader(name, stop):
    p = start(name, sys.executable, '-c', READER, stop)
    if p.stdout.readline() != 'up\n':
        fail(f'{name} did not start: {p.stdout.read()}')
    return p


def end_reader(p, stop, what):
    """It has read on, and all it read was right."""
    def count():
        return os.path.getsize(stop + '.rounds') if os.path.exists(stop + '.rounds') else 0
    rounds = count()
    until(f'{what}: it reads on', lambda: p.poll() is not None or count() > rounds + 2)
    open(stop, 'w').close()
    text = p.stdout.read()
    if p.wait() or text:
        fail(f'{what}: {p.returncode}: {text}')


def delete():
    return grid('datastore', 'delete', '--name', 't', '--version', '1', '--yes', check=False)


def leases():
    return [os.path.join(d, f) for d, _, files in os.walk('store/l') for f in files]


def nothing_left(what, void=0):
    """`void`: leases of processes that were killed, in nobody's way."""
    until(f'{what}: the server ends', lambda: not mounts() and not [f for f in os.listdir(RUNTIME + '/servers') if f.endswith('.sock')])
    until(f'{what}: no record is left', lambda: not os.listdir(RUNTIME + '/mounts'))
    if len(leases()) > void:
        fail(f'{what}: leases are left: {leases()}')
    for path in leases():
        os.unlink(path)
    grid('datastore', 'fsck')


def fifty_runs():
    os.mkfifo('gate')
    runs = [start(f'r{i}', 'sh', '-c', 'cmp tree/big /datastores/t/big && echo same && cat gate && cat gate') for i in range(50)]
    for p in runs:
        if p.stdout.readline() != 'same\n':
            fail(f'a run did not start: {p.stdout.read()}')
    rows = mounts()
    if sorted(r['run'] for r in rows) != sorted(f'r{i}' for i in range(50)):
        fail(f'the list of mounts: {rows}')
    if len(servers()) != 1:
        fail(f'50 runs have {len(servers())} servers')
    if grid('run', '--json').stdout.count('"run":') != 50:
        fail('the list of runs')
    until('one lease', lambda: len(leases()) == 1)
    until('it names all of them', lambda: all(f'run r{i} on ' in delete().stderr for i in range(50)))
    since = re.findall(r'run r\d+ on \S+ \(process (\d+)\) since 20', delete().stderr)
    if len(set(since)) != 50:
        fail(f'the refusal names {len(set(since))} processes: {delete().stderr}')
    # All but one go; it is still in use, by that one.
    for p in runs[1:]:
        os.kill(p.pid, signal.SIGKILL)
        p.wait()
    if len(mounts()) != 50:
        fail('without its wrapper a run is not attached any more')
    server = servers().pop()
    fd = os.open('gate', os.O_RDWR)
    inside = json.loads(grid('datastore', 'show', 't', '--json').stdout)['holders']
    for h in inside:
        if h['job'] != 'run r0':
            with contextlib.suppress(OSError):
                for pid in children(h['pid']) + [h['pid']]:
                    os.kill(pid, signal.SIGKILL)
    until('one run is left', lambda: [r['run'] for r in mounts()] == ['r0'])
    until('the lease names it alone', lambda: re.findall(r'run (r\d+) on ', delete().stderr) == ['r0'])
    for pid in [h['pid'] for h in inside if h['job'] == 'run r0']:
        for p in children(pid) + [pid]:
            with contextlib.suppress(OSError):  # it may follow its child at once
                os.kill(p, signal.SIGKILL)
    runs[0].wait()
    os.close(fd)
    until('no run is left', lambda: not mounts())
    # The next one finds the server warm; and what only lies warm is in nobody's way.
    p = start('warm', 'true')
    p.wait()
    if not is_alive(server):
        fail('the server did not stay')
    if leases():
        fail('a version is held that nobody has attached')
    nothing_left('50 runs')


def anonymous_kib(pid):
    with open(f'/proc/{pid}/status') as f:
        return int(re.search(r'RssAnon:\s+(\d+)', f.read()).group(1))


def two_hundred_mounts():
    """In view of all; and the memory of the server does not grow with them."""
    n = 200 if os.environ.get('SOAK') else 60
    base = os.path.abspath('many')
    for i in range(n):
        os.makedirs(f'{base}/{i}')
    grid('datastore', 'mount', 't', f'{base}/0', env=IDLE)
    child = children(servers().pop())[0]
    before = anonymous_kib(child)
    for i in range(1, n):
        grid('datastore', 'mount', 't', f'{base}/{i}', env=IDLE)
    rows = mounts()
    if len(rows) != n or len(servers()) != 1:
        fail(f'{n} mounts are {len(rows)} with {len(servers())} servers')
    devices = {os.stat(f'{base}/{i}').st_dev for i in range(n)}
    if len(devices) != 1:
        fail('the mounts do not share one page cache')
    after = anonymous_kib(child)
    with open(GRID, 'rb') as f:
        sanitized = b'__asan_init' in f.read() or b'__tsan_init' in open(GRID, 'rb').read()
    if after - before > 2048 + 4 * n and not sanitized:  # which keeps what was freed
        fail(f'{n} mounts cost the server {after - before} KiB')
    if grid('datastore', 'mount', 't', f'{base}/0', check=False).returncode == 0:
        fail('mounted twice at one place')
    # umount(8) by somebody else, unmount, and one that is in use.
    held = open(f'{base}/2/small')
    for i in range(n):
        if i % 2:
            subprocess.run(['umount', f'{base}/{i}'], check=True)
        elif i != 2:
            grid('datastore', 'unmount', f'{base}/{i}')
    if len(mounts()) != 1 or not grid('datastore', 'unmount', f'{base}/2', check=False).returncode:
        fail('a mount in use')
    held.close()
    grid('datastore', 'unmount', f'{base}/2')
    until('nobody holds what nobody has mounted', lambda: not leases())
    nothing_left('200 mounts')


def own_group():
    """Where a control group can be made that can be killed."""
    with open('/proc/self/mountinfo') as f:
        tops = [line.split()[4] for line in f if ' - cgroup2 ' in line]
    for top in tops:
        group = f'{top}/grid-test-{os.getpid()}'
        try:
            os.mkdir(group)
        except OSError:
            continue
        if os.path.exists(group + '/cgroup.kill'):
            return group
        os.rmdir(group)
    return None


def job_killed():
    """The job that started the server is killed with its whole control group."""
    group = own_group()
    if not group:
        print('  no control group can be killed here: left out')
        return
    first = start('first', 'sh', '-c', 'cat /datastores/t/small; sleep 1000 & sleep 1000',
                  preexec_fn=lambda: open(group + '/cgroup.procs', 'w').write('0'))
    if first.stdout.readline() != 'hello\n':
        fail(f'the first job did not start: {first.stdout.read()}')
    server = servers().pop()
    other = start_reader('other', 'stop-killed')
    with open(group + '/cgroup.procs') as f:
        inside = [int(p) for p in f]
    if len(inside) < 3 or server in inside or children(server)[0] in inside or servers() != {server}:
        fail(f'in the group are {inside}, the servers are {servers()}')
    with open(group + '/cgroup.kill', 'w') as f:
        f.write('1')
    if first.wait() != -signal.SIGKILL:
        fail(f'the first job ended with {first.returncode}')
    until('its processes are dead', lambda: not any(is_alive(p) for p in inside))
    until('its attachment is gone', lambda: [r['run'] for r in mounts()] == ['other'])
    end_reader(other, 'stop-killed', 'job killed')
    if not is_alive(server):
        fail('the server was killed')
    until('the group is empty', lambda: not open(group + '/cgroup.procs').read())
    os.rmdir(group)
    nothing_left('job killed')


def server_killed():
    """Joiners wait while it is replaced; who is there sees nothing; then the supervisor goes, then both."""
    reader = start_reader('reader', 'stop-server')
    supervisor = servers().pop()
    for i in range(5):
        child = until('a server', lambda: children(supervisor))[0]
        os.kill(child, signal.SIGKILL)
        p = start(f'joiner{i}', 'cmp', 'tree/big', '/datastores/t/big')
        if p.wait():
            fail(f'a joiner failed: {p.stdout.read()}')
        if children(supervisor) == [child]:
            fail('the server was not killed')
    until('the lease of the dead ones is gone', lambda: len(leases()) == 1)
    child = until('a server', lambda: children(supervisor))[0]
    os.kill(supervisor, signal.SIGKILL)
    until('the server takes the record over', lambda: servers() == {child})
    p = start('joiner', 'cmp', 'tree/big', '/datastores/t/big')
    if p.wait() or servers() != {child}:
        fail(f'a joiner of the adopted server: {p.stdout.read()} {servers()}')
    end_reader(reader, 'stop-server', 'server killed')
    until('one lease at most', lambda: len(leases()) <= 1)
    nothing_left('server killed')

    reader = start('reader', 'sh', '-c', 'echo up; read x; cat /datastores/t/small', stdin=subprocess.PIPE)
    reader.stdout.readline()
    supervisor = servers().pop()
    subprocess.run(['kill', '-9', str(supervisor), *map(str, children(supervisor))], check=True)
    until('both are dead', lambda: not is_alive(supervisor))
    p = start('next', 'cmp', 'tree/big', '/datastores/t/big')
    if p.wait():
        fail(f'after both were killed the next run fails: {p.stdout.read()}')
    text = reader.communicate('\n')[0]
    if 'Transport endpoint is not connected' not in text:
        fail(f'a run without servers: {text}')
    grid('datastore', 'mounts')
    nothing_left('both killed', void=1)


def told_to_end():
    """SIGTERM: mounts in view go, runs stay, and the next job has another server."""
    os.makedirs('view', exist_ok=True)
    grid('datastore', 'mount', 't', 'view', env=IDLE)
    reader = start_reader('reader', 'stop-told')
    server = servers().pop()
    os.kill(server, signal.SIGTERM)
    until('the mount goes', lambda: [r.get('run') for r in mounts()] == ['reader'])
    if os.listdir('view'):
        fail('the mount did not go')
    p = start('next', 'cmp', 'tree/big', '/datastores/t/big')
    if p.wait():
        fail(f'the next run fails: {p.stdout.read()}')
    end_reader(reader, 'stop-told', 'told to end')
    until('it ends', lambda: not is_alive(server))
    nothing_left('told to end')


def copies():
    """A copy of the namespace, and processes that were left behind, keep the attachment."""
    p = start('parent', 'sh', '-c', 'unshare -m sleep 1000 >/dev/null 2>&1 & cat /datastores/t/small; while ! pgrep -P $! sleep '
              '>/dev/null && [ "$(cat /proc/$!/comm)" != sleep ]; do sleep 0.02; done; echo $!')
    lines = p.communicate()[0].split()
    time.sleep(0.2)
    if p.returncode or [r['run'] for r in mounts()] != ['parent'] or delete().returncode == 0:
        fail(f'what a run left behind does not hold it: {lines} {mounts()}')
    os.kill(int(lines[-1]), signal.SIGKILL)
    until('it lets go', lambda: not mounts())
    os.makedirs('copied', exist_ok=True)
    grid('datastore', 'mount', 't', 'copied', env=IDLE)
    q = subprocess.Popen(['unshare', '-m', '--propagation', 'private', 'sh', '-c', 'echo up; read x; cat copied/small'],
                         stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    q.stdout.readline()
    subprocess.run(['umount', 'copied'], check=True)
    time.sleep(0.3)
    if delete().returncode == 0:
        fail('a version was deleted that a copied namespace shows')
    if q.communicate('\n')[0] != 'hello\n':
        fail('a copied namespace lost its mount')
    until('the copy is gone', lambda: not mounts())
    nothing_left('copies')


if os.geteuid():
    skip('needs root: an ordinary user has servers of his own')
os.mkdir('tree')
with open('tree/big', 'wb') as f:
    f.write(BYTES)
with open('tree/small', 'w') as f:
    f.write('hello\n')
grid('datastore', 'create', 'tree', '--name', 't')
probe = grid('run', '--datastore_name', 't', '--', 'true', check=False)
if probe.returncode:
    skip(f'datastores cannot be attached here: {probe.stderr.strip()}')
with open(RUNTIME + '/log/t-1.log') as f:
    alone = re.search(r'gets servers of its own: (.*)', f.read())
if alone or not os.path.exists(RUNTIME + '/servers'):
    skip(f'servers are not shared here: {alone.group(1) if alone else "this is no first namespace"}')
for case in (fifty_runs, two_hundred_mounts, job_killed, server_killed, told_to_end, copies):
    if os.environ.get('ONLY', case.__name__) != case.__name__:
        continue
    begin = time.monotonic()
    case()
    print(f'{case.__name__}: {time.monotonic() - begin:.1f} s', flush=True)
