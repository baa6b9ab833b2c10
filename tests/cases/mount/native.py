#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# store: damaged
"""Modes native and local: who gets them and who is refused, what damage does, two versions in turn at one path.
The system's configuration is only believed in /etc: so this runs in a mount namespace with an /etc/grid of its own."""
import ctypes, errno, hashlib, json, mmap, os, random, shutil, signal, subprocess, sys, time

sys.path.insert(0, os.path.join(os.environ['TOP'], 'tests/lib'))
from gridtest import fail, grid, make_tree, same, skip, snapshot

WAIT = 20
libc = ctypes.CDLL(None, use_errno=True)


def expect(what, got, want):
    if got != want:
        fail(f'{what}: {got!r}, not {want!r}')


def mounts():
    return json.loads(grid('datastore', 'mounts', '--json').stdout)


def kernel_sees(path):
    """(type, source) of what is mounted there, by the kernel's table."""
    found = None
    with open('/proc/self/mountinfo') as f:
        for line in f:
            left, right = line.split(' - ')
            if left.split()[4] == os.path.abspath(path):
                found = tuple(right.split()[:2])
    return found


def is_alive(pid):
    try:
        with open(f'/proc/{pid}/stat') as f:
            return f.read().rsplit(')', 1)[1].split()[0] not in 'ZX'
    except OSError:
        return False


def no_processes_of(server):
    end = time.monotonic() + WAIT
    while is_alive(server):
        if time.monotonic() > end:
            fail(f'the server {server} does not end')
        time.sleep(0.01)


def mount(name, *args, env=None, check=True):
    return grid('datastore', 'mount', name, 'mnt', *args, env=env, check=check)


def unmount(*args):
    grid('datastore', 'unmount', *args, 'mnt')


def expect_mode(what, mode, why='', args=(), env=None):
    """Mounted so, it is in that mode, for that reason."""
    print(' ', what, flush=True)
    mount('t', *args, env=env)
    row = mounts()[0]
    expect(f'{what}: mode', row['mode'], mode)
    if why not in row['why']:
        fail(f'{what}: why: {row["why"]}')
    expect(f'{what}: type', kernel_sees('mnt')[0], 'fuse.grid' if mode == 'fuse' else 'erofs')
    if mode != 'fuse':
        expect(f'{what}: source', kernel_sees('mnt')[1], 'grid:t:1')
    flags = os.statvfs('mnt').f_flag
    if not flags & os.ST_RDONLY or not flags & os.ST_NOSUID or not flags & os.ST_NODEV:
        fail(f'{what}: mount flags {flags:#x}')
    same(snapshot('tree'), snapshot('mnt'), what)
    unmount()
    no_processes_of(row['server'])
    expect(f'{what}: afterwards', kernel_sees('mnt'), None)


# ---- who gets it

def write(path, text):
    with open(path, 'w') as f:
        f.write(text)


def trust():
    store = os.path.abspath('store')
    here = {'GRID_CONFIG_SYSTEM': ''}
    lab = dict(here, GRID_STORE='')
    user = os.path.join(os.environ['XDG_CONFIG_HOME'], 'grid')
    os.makedirs(user)
    not_opened = 'kernel_mount = yes in /etc/grid/config'

    expect_mode('a store named by the environment', 'fuse', not_opened, env=here)
    expect_mode('asked for by root', 'native', args=('--mode', 'native'))
    expect_mode('asked for by root', 'local', args=('--mode', 'local'))

    write('/etc/grid/config', f'[cluster lab]\nstore = file://{store}\n')
    expect_mode('a store that is not opened', 'fuse', not_opened, args=('--cluster', 'lab'), env=lab)
    write(f'{user}/config', '[cluster lab]\nkernel_mount = yes\n')
    expect_mode('a store that a user opened', 'fuse', not_opened, args=('--cluster', 'lab'), env=lab)
    write(f'{user}/config', '')
    write('/etc/grid/config', f'[cluster lab]\nstore = file://{store}\nkernel_mount = yes\n')
    expect_mode('a store that is opened', 'local', args=('--cluster', 'lab'), env=lab)
    expect_mode('fuse, asked for', 'fuse', args=('--cluster', 'lab', '--mode', 'fuse'), env=lab)
    write(f'{user}/config', f'[cluster lab]\nstore = file://{store}\n')
    expect_mode('a store that a user put in the place of an opened one', 'fuse', not_opened,
                args=('--cluster', 'lab'), env=lab)
    write(f'{user}/config', '')

    # The same file elsewhere, named by the environment, opens nothing.
    expect_mode('a system file named by the environment', 'fuse', not_opened, args=('--cluster', 'lab'),
                env={'GRID_STORE': '', 'GRID_CONFIG_SYSTEM': '/etc/grid/config'})

    # Root's own default store; packs in memory are no files that the kernel can use.
    os.makedirs('/var/lib/grid/store')
    own = dict(here, GRID_STORE='')
    grid('datastore', 'create', 'tree', '--name', 't', env=own)
    expect_mode("root's own store", 'native', 'not local: its packs are not all on a disk', env=own)
    os.chmod('/var/lib/grid/store', 0o777)
    expect_mode("root's own store, open to all", 'fuse', not_opened, env=own)
    os.chmod('/var/lib/grid/store', 0o755)
    os.chown('/var/lib/grid/store', 65534, 65534)
    expect_mode("somebody else's default store", 'fuse', not_opened, env=own)
    os.chown('/var/lib/grid/store', 0, 0)
    p = mount('t', '--mode', 'local', env=own, check=False)
    if p.returncode != 1 or 'its packs are not all on a disk of this machine' not in p.stderr:
        fail(f'local, from memory: {p.returncode} {p.stderr}')


def ordinary_user():
    """One sentence, and nothing is mounted; unasked, fuse."""
    if not shutil.which('setpriv'):
        print('  no setpriv: not tried as an ordinary user')
        return
    grid_copy = os.path.abspath('grid-copy')
    shutil.copy(os.environ['GRID'], grid_copy)
    os.makedirs('user/mnt')
    subprocess.run(['chown', '-R', '65534:65534', 'user'], check=True)
    for mode in ('native', 'local'):
        p = subprocess.run(['setpriv', '--reuid', '65534', '--regid', '65534', '--clear-groups', grid_copy, 'datastore',
                            'mount', 't', 'user/mnt', '--mode', mode], capture_output=True, text=True,
                           env=dict(os.environ, GRID_RUNTIME_DIR=os.path.abspath('user/run'), HOME=os.path.abspath('user'),
                                    GRID_CACHE=os.path.abspath('user/cache')))
        want = f'grid: cannot mount t:1 with --mode {mode}: only root may have the kernel mount an index\n'
        if p.returncode != 1 or not p.stderr.endswith(want):
            fail(f'an ordinary user: {p.returncode} {p.stderr}')
    expect('nothing is mounted', kernel_sees('user/mnt'), None)


def remembered():
    """What was tried is remembered for this boot, and believed."""
    with open('runtime/kernel-mount') as f:
        identity, result = f.read().split('\n', 1)
    expect('the trial', result, 'yes')
    write('runtime/kernel-mount', identity + '\nthe moon is full')
    p = mount('t', '--mode', 'native', check=False)
    expect('a kernel that cannot', (p.returncode, p.stderr),
           (1, 'grid: cannot mount t:1 with --mode native: the moon is full\n'))
    write('/etc/grid/config', f'[cluster lab]\nstore = file://{os.path.abspath("store")}\nkernel_mount = yes\n')
    expect_mode('a kernel that cannot', 'fuse', 'not native: the moon is full', args=('--cluster', 'lab'),
                env={'GRID_CONFIG_SYSTEM': '', 'GRID_STORE': ''})
    write('runtime/kernel-mount', 'another boot\nthe moon is full')
    expect_mode('after a boot', 'native', args=('--mode', 'native'))
    if not shutil.which('unshare'):
        return
    # Without /dev/fuse there is a sentence, and nothing is remembered that may change.
    os.unlink('runtime/kernel-mount')
    p = subprocess.run(['unshare', '-m', 'sh', '-c', 'mount --bind /dev/null /dev/fuse && exec "$GRID" datastore mount t mnt --mode native'],
                       capture_output=True, text=True)
    if p.returncode != 1 or not p.stderr.startswith('grid: cannot mount t:1 with --mode native: '):
        fail(f'without /dev/fuse: {p.returncode} {p.stderr}')
    if os.path.exists('runtime/kernel-mount'):
        fail('a failure that may pass was remembered')


# ---- damage

def flip(path, at):
    os.chmod(path, 0o644)
    with open(path, 'r+b') as f:
        f.seek(at)
        byte = f.read(1)[0]
        f.seek(at)
        f.write(bytes([byte ^ 16]))


def only(below):
    return [os.path.join(d, f) for d, _, files in os.walk(below) for f in files]


def log():
    return ''.join(open(p, errors='replace').read() for p in only('runtime/log'))


def damaged_index():
    """The kernel gets no byte of it that does not match: an error, never something else."""
    os.makedirs('many')
    for i in range(4000):
        write(f'many/{"n" * 40}{i}', str(i))
    grid('datastore', 'create', 'many', '--name', 'many')
    indexes = sorted(only('store/x'), key=os.path.getsize)
    index = indexes[-1]
    if os.path.getsize(index) < 400000:
        fail('the index is too small for this test')
    flip(index, 200000)
    mount('many', '--mode', 'native')
    errors = right = 0
    for i in range(4000):
        try:
            with open(f'mnt/{"n" * 40}{i}') as f:
                expect('a file', f.read(), str(i))
            right += 1
        except OSError as e:
            expect('the error', e.errno, errno.EIO)
            errors += 1
    print(f'  damaged index: {errors} files cannot be read, {right} can')
    if not errors or not right:
        fail('the damage did not show, or everything is gone')
    if 'the leaf at offset 196608, 16384 bytes, does not match its digest' not in log():
        fail(f'the log does not say so: {log()}')
    unmount()
    flip(index, 200000)
    flip(index, 100)
    p = mount('many', '--mode', 'native', check=False)
    if p.returncode != 1 or 'is damaged' not in p.stderr:
        fail(f'an index whose first leaf is damaged: {p.returncode} {p.stderr}')
    flip(index, 100)
    expect('nothing is mounted', kernel_sees('mnt'), None)


def short_pack():
    """The kernel would read zeros where a pack is too short."""
    packs = only('store/p')
    for p in packs:
        size = os.path.getsize(p)
        os.chmod(p, 0o644)
        os.truncate(p, size - 1)
    p = mount('t', '--mode', 'local', check=False)
    if p.returncode != 1 or 'has not the length that it was stored with' not in p.stderr:
        fail(f'a short pack: {p.returncode} {p.stderr}')
    expect('nothing is mounted', kernel_sees('mnt'), None)


# ---- versions in turn, runs

def two_versions():
    """Two versions at one path, while a process maps a file of the first."""
    os.mkdir('turn')
    first, second = random.Random(1).randbytes(3 << 20), random.Random(2).randbytes(3 << 20)
    for mode in ('native', 'local'):
        for content in (first, second):
            with open('turn/file', 'wb') as f:
                f.write(content)
            grid('datastore', 'create', 'turn', '--name', f'turn-{mode}')
        mount(f'turn-{mode}:1', '--mode', mode)
        server = mounts()[0]['server']
        fd = os.open('mnt/file', os.O_RDONLY)
        here = os.open('mnt', os.O_RDONLY | os.O_DIRECTORY)
        m = mmap.mmap(fd, 0, prot=mmap.PROT_READ)
        expect('before', m[:100], first[:100])
        p = grid('datastore', 'unmount', 'mnt', check=False)
        if p.returncode != 1 or 'in use' not in p.stderr:
            fail(f'unmounting what is in use: {p.returncode} {p.stderr}')
        unmount('--lazy')
        mount(f'turn-{mode}:2', '--mode', mode)
        with open('mnt/file', 'rb') as f:
            expect('the second version', hashlib.sha256(f.read()).digest(), hashlib.sha256(second).digest())
        write('/proc/sys/vm/drop_caches', '3')
        expect('the mapping', hashlib.sha256(m).digest(), hashlib.sha256(first).digest())
        expect('the directory', os.stat('file', dir_fd=here).st_size, len(first))
        m.close()
        os.close(fd)
        os.close(here)
        no_processes_of(server)
        unmount()


def children(pid):
    with open(f'/proc/{pid}/task/{pid}/children') as f:
        return [int(n) for n in f.read().split()]


def without_servers(mode):
    """Supervisor and server killed at once: native gives errors, local goes on; neither hangs, and both can be unmounted."""
    mount('t', '--mode', mode)
    server = mounts()[0]['server']
    shared = os.path.isdir('runtime/servers') and any(f.endswith('.sock') for f in os.listdir('runtime/servers'))
    if mode == 'local' and os.environ['APART'] == '0' and not shared:
        fail('the server is not shared')
    both = [server, *children(server)]
    expect('processes', len(both), 2)
    for pid in both:
        os.kill(pid, signal.SIGKILL)
    for pid in both:
        no_processes_of(pid)
    write('/proc/sys/vm/drop_caches', '3')
    p = subprocess.run(['diff', '-r', '--no-dereference', 'tree', 'mnt'], capture_output=True, text=True, errors='replace',
                       timeout=60, env=dict(os.environ, LC_ALL='C'))
    if mode == 'native' and (p.returncode != 2 or 'Input/output error' not in p.stderr):
        fail(f'native without servers: {p.returncode} {p.stderr[:500]}')
    if mode == 'local' and shared and p.returncode:
        fail(f'local without servers: {p.returncode} {p.stderr[:500]}')
    expect('the list', [r for r in mounts() if is_alive(r['server'])], [])
    if mode == 'local':
        expect('local, listed', kernel_sees('mnt') is not None, True)
    grid('datastore', 'unmount', 'mnt', check=mode == 'local')
    expect('afterwards', kernel_sees('mnt'), None)


def runs():
    """In a namespace of its own, two at once; nothing is seen outside."""
    code = 'import os; print(open("/proc/self/mounts").read().count(" erofs ")); print(len(os.listdir("/datastores/t")))'
    for mode in ('native', 'local'):
        p = grid('run', '--mode', mode, '--datastore_name', 't', '--datastore_name', 'many', '--', sys.executable, '-c', code)
        expect(f'a run, {mode}', p.stdout.split(), ['2', str(len(os.listdir('tree')))])
    if any('erofs grid:' in line for line in open('/proc/self/mountinfo')):
        fail('a mount of a run is seen outside')
    expect('the mounts', mounts(), [])


def refused_in_a_run():
    p = grid('run', '--mode', 'kernel', '--datastore_name', 't', '--', 'true', check=False)
    expect('a mode that is none', p.returncode, 2)


def main():
    if os.geteuid():
        skip('needs root (mounts EROFS)')
    if 'APART' not in os.environ:
        # In the machine's own namespaces, where root's servers are shared.
        os.environ['APART'] = '0'
        make_tree('tree', 3)
        os.mkdir('mnt')
        grid('datastore', 'create', 'tree', '--name', 't')
        p = mount('t', '--mode', 'native', check=False)
        if p.returncode:
            skip(f'this machine cannot: {p.stderr}')
        unmount()
        without_servers('native')
        without_servers('local')
        if any('kernel-' in f for f in os.listdir(os.environ['GRID_CACHE'])):
            fail('a copy of an index is left')
        os.environ['APART'] = '1'
        os.execvp('unshare', ['unshare', '-m', '--propagation', 'private', sys.executable, os.path.abspath(__file__)])
    if subprocess.run('mkdir -p /etc/grid /var/lib/grid && mount -t tmpfs none /etc/grid && mount -t tmpfs none /var/lib/grid',
                      shell=True).returncode:
        skip('nothing can be mounted here')
    without_servers('native')
    without_servers('local')
    trust()
    remembered()
    ordinary_user()
    two_versions()
    damaged_index()
    runs()
    refused_in_a_run()
    short_pack()


main()
