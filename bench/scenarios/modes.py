# SPDX-License-Identifier: Apache-2.0
"""The kernel's modes beside ext4 and others' mounts. Cold is cold for all: the page cache is dropped before each pass, and
servers are started anew, so that they have nothing in memory; the data of native, fuse, rclone and s3fs lies in their caches on
disk, that of local mounts in a store on the disk of the ext4 tree. A virtual machine's unused memory is its host's and slow to touch
first: some is touched before each pass."""
import contextlib, json, mmap, os, shutil, subprocess, time

from .common import GRID, Run, fresh, header, median, report, tree_small
from .far import Bucket, far_env, read_all, tree_paths

FILES = 10_000  # the first 20 directories: a cold pass of ext4 takes seconds, not minutes
FEW = 2_000     # for those that take milliseconds a file
MEMORY = 256 << 20


def cold():
    with mmap.mmap(-1, 2 << 30) as m:
        for at in range(0, len(m), 4096):
            m[at] = 1
    subprocess.run(['sync'])
    with open('/proc/sys/vm/drop_caches', 'w') as f:
        f.write('3')


def peak_of_servers(env):
    """The largest VmHWM of the processes that serve, bytes."""
    peak = 0
    for m in json.loads(Run([GRID, 'datastore', 'mounts', '--json'], env).out):
        pid = m.get('server') or m.get('pid')
        with contextlib.suppress(OSError), open(f'/proc/{pid}/task/{pid}/children') as f:
            for p in [str(pid), *f.read().split()]:
                with open(f'/proc/{p}/status') as s:
                    peak = max(peak, *(int(line.split()[1]) << 10 for line in s if line.startswith('VmHWM')))
    return peak


class Ours:
    def __init__(self, env, mnt, name, mode):
        self.env, self.mnt, self.name, self.mode, self.peak = env, mnt, name, mode, 0
        os.makedirs(mnt, exist_ok=True)

    @contextlib.contextmanager
    def there(self):
        Run([GRID, 'datastore', 'mount', self.name, self.mnt, '--mode', self.mode, '--memory', str(MEMORY)], self.env)
        try:
            yield self.mnt
            self.peak = max(self.peak, peak_of_servers(self.env))
        finally:
            Run([GRID, 'datastore', 'unmount', self.mnt], self.env)


class Ext4:
    def __init__(self, tree):
        self.tree = tree

    @contextlib.contextmanager
    def there(self):
        yield self.tree


class Other:
    """A mount by a command of others, that goes to the background."""
    def __init__(self, mnt, command, env=None):
        self.mnt, self.command, self.env = mnt, command, env
        os.makedirs(mnt, exist_ok=True)

    @contextlib.contextmanager
    def there(self):
        subprocess.run(self.command, env=self.env, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=60)
        for _ in range(200):
            if os.path.ismount(self.mnt):
                break
            time.sleep(0.05)
        try:
            yield self.mnt
        finally:
            subprocess.run(['umount', self.mnt], check=True)


def passes(system, paths):
    """us a file: stat, read at random, read in order, all cold; read and stat again."""
    n, out = len(paths), {}
    for what, flags in ('stat', ['-s']), ('random', []), ('order', ['-o']):
        with system.there() as where:
            cold()
            out['cold ' + what] = read_all(where, paths, *flags) / n * 1e6
            if what == 'order':
                for _ in range(2):  # the first one fills what the order left out
                    out['warm read'] = read_all(where, paths) / n * 1e6
                    out['warm stat'] = read_all(where, paths, '-s') / n * 1e6
    return out


def others(opt, b, base):
    """rclone and s3fs, where they are installed."""
    found = {}
    if shutil.which('rclone'):
        env = dict(os.environ, RCLONE_CONFIG_B_TYPE='s3', RCLONE_CONFIG_B_PROVIDER='Other', RCLONE_CONFIG_B_ENDPOINT=b.url,
                   RCLONE_CONFIG_B_ACCESS_KEY_ID='bench', RCLONE_CONFIG_B_SECRET_ACCESS_KEY='bench')
        env.pop('AWS_CA_BUNDLE', None)  # rclone's own transport refuses it
        found['rclone'] = Other(base + '/rclone', ['rclone', 'mount', 'b:plain', base + '/rclone', '--daemon', '--read-only', '--vfs-cache-mode', 'full',
                                                   '--dir-cache-time', '24h', '--cache-dir', base + '/rclone-cache'], env)
    if shutil.which('s3fs'):
        with open(base + '/passwd', 'w') as f:
            f.write('bench:bench\n')
        os.chmod(base + '/passwd', 0o600)
        found['s3fs'] = Other(base + '/s3fs', ['s3fs', 'plain', base + '/s3fs', '-o', f'url={b.url}', '-o', 'use_path_request_style', '-o', f'passwd_file={base}/passwd',
                                               '-o', f'use_cache={base}/s3fs-cache', '-o', 'ro', '-o', 'stat_cache_expire=86400'])
    return found


def modes(opt):
    header('the modes of a mount beside ext4, rclone and s3fs')
    if os.geteuid() != 0:
        print('  only root mounts by the kernel')
        return
    tree = tree_small(opt)
    paths = tree_paths(tree)[:FILES]
    base, root = fresh(os.path.join(opt.dir, 'modes')), fresh(os.path.join(opt.dir, 'modes-bucket'))
    os.makedirs(root + '/b')
    subprocess.run(['cp', '-al', tree, root + '/plain'], check=True)
    local = dict(os.environ, GRID_STORE=f'file://{base}/store', GRID_CACHE=base + '/no-cache', GRID_RUNTIME_DIR=base + '/run-local', GRID_SERVER_IDLE='0',
                 GRID_CONFIG_SYSTEM='/nonexistent', XDG_CONFIG_HOME=base + '/config')
    Run([GRID, 'datastore', 'create', tree, '--name', 'm'], local)
    b = Bucket(root)
    try:
        env = dict(far_env(b, base), GRID_SERVER_IDLE='0')
        Run([GRID, 'datastore', 'create', tree, '--name', 'm'], env)
        Run([GRID, 'datastore', 'prefetch', 'm'], env)
        systems = dict(ext4=Ext4(tree), local=Ours(local, base + '/local', 'm', 'local'), native=Ours(env, base + '/native', 'm', 'native'),
                       fuse=Ours(env, base + '/fuse', 'm', 'fuse'))
        figures = {}
        for _ in range(opt.rounds):
            for name, system in systems.items():
                for what, us in passes(system, paths).items():
                    figures.setdefault((name, what), []).append(us)
        for name, system in others(opt, b, base).items():
            with system.there() as where:  # fills its cache
                read_all(where, paths[:FEW], '-o')
            with system.there() as where:
                read_all(where, paths[:FEW], '-s', '-o')  # s3fs and rclone list before they find
                cold()
                figures[name, 'cold random'] = [read_all(where, paths[:FEW]) / FEW * 1e6]
    finally:
        b.stop()
    us = {k: median(v) for k, v in figures.items()}
    for name, what, bar in [('local', 'cold stat', 0.8), ('local', 'cold random', 0.7), ('local', 'cold order', None), ('local', 'warm read', 1), ('local', 'warm stat', 1),
                            ('native', 'cold stat', None), ('native', 'cold random', 1.2), ('native', 'cold order', 0.8), ('native', 'warm read', 1), ('native', 'warm stat', 1),
                            ('fuse', 'cold stat', None), ('fuse', 'cold random', 3), ('fuse', 'cold order', 3), ('fuse', 'warm read', None), ('fuse', 'warm stat', None)]:
        report('modes', f'{name}, {what}: time / ext4', us[name, what] / us['ext4', what], 'x', bar, note=f'{us[name, what]:.1f} us / {us["ext4", what]:.1f} us a file')
    for name in 'rclone', 's3fs':
        if (name, 'cold random') in us:
            report('modes', f'fuse, cold random: time / {name}', us['fuse', 'cold random'] / us[name, 'cold random'], 'x', 0.3, note=f'{us[name, "cold random"]:.0f} us a file')
        else:
            print(f'  {name} is not installed')
    for name in 'local', 'native', 'fuse':
        report('modes', f'{name}: peak memory of the server / limit', systems[name].peak / MEMORY, 'x', 1, note=f'{systems[name].peak >> 20} MiB of {MEMORY >> 20}')
    shutil.rmtree(base)
    shutil.rmtree(root)


SCENARIOS = dict(modes=modes)
