# SPDX-License-Identifier: Apache-2.0
"""What the cases written in Python share: running grid, making trees, comparing them, loop file systems."""
import ctypes, fcntl, hashlib, json, os, random, stat, struct, subprocess, sys, time

GRID = os.environ['GRID']


def skip(why):
    print(why)
    sys.exit(77)


def fail(why):
    sys.exit(f'FAILED: {why}')


def grid(*args, env=None, check=True, wrap=(), **more):
    """Run grid; -> CompletedProcess with text output. check: it must succeed."""
    p = subprocess.run([*wrap, GRID, *args], env=dict(os.environ, **(env or {})), stdout=subprocess.PIPE,
                       stderr=subprocess.PIPE, text=True, errors='surrogateescape', **more)
    if check and p.returncode:
        fail(f'grid {" ".join(args)}: exit code {p.returncode}\n{p.stderr}')
    return p


def versions(name=None, env=None):
    """All versions of the store, also incomplete ones: {(name, number): row}."""
    rows = json.loads(grid('datastore', '--json', '--global', '--show-incomplete', env=env).stdout)
    return {(r['name'], r['version']): r for r in rows if name in (None, r['name'])}


def make_tree(path, seed, files=60, sizes=(0, 1, 100, 511, 512, 513, 5000, 70000, 200000)):
    """A small tree with odd names, links, holes and old times."""
    rnd = random.Random(seed)
    root = os.fsencode(path)
    os.makedirs(root, exist_ok=True)
    for i in range(files):
        d = os.path.join(root, *[b'd%d' % rnd.randint(0, 3) for _ in range(rnd.randint(0, 3))])
        os.makedirs(d, exist_ok=True)
        name = rnd.choice([b'file%d' % i, b'-%d' % i, b'.%d' % i, b'\xff\xfe%d' % i, b'a b\n%d' % i, (b'%d' % i).ljust(255, b'n')])
        p = os.path.join(d, name)
        with open(p, 'wb') as f:
            f.write(rnd.randbytes(rnd.choice(sizes)))
        if rnd.random() < 0.2:
            os.symlink(rnd.choice([b'nowhere', b'../x', b'y' * 600]), p[:200] + b'.sym')
        if rnd.random() < 0.1:
            os.link(p, p[:200] + b'.hard')
        os.utime(p, ns=(0, rnd.choice([0, -10**9 - 1, 2**33 * 10**9, 1234567890123456789])))
    with open(os.path.join(root, b'sparse'), 'wb') as f:
        f.truncate(20 << 20)
        f.seek(9 << 20)
        f.write(b'island')
    return path


def snapshot(path):
    """{relative path: (kind, mode, mtime, content digest or target, link group)}: what a version keeps."""
    root, out, groups = os.fsencode(path), {}, {}
    for top, dirs, files in os.walk(root):
        for name in dirs + files:
            p = os.path.join(top, name)
            rel, st = os.path.relpath(p, root), os.lstat(p)
            mode = stat.S_IMODE(st.st_mode) & 0o555 | 0o444
            if st.st_mode & 0o111:
                mode |= 0o111
            if stat.S_ISLNK(st.st_mode):
                out[rel] = ('link', None, st.st_mtime_ns, os.readlink(p), None)
            elif stat.S_ISDIR(st.st_mode):
                out[rel] = ('directory', mode | 0o111, st.st_mtime_ns, None, None)
            elif stat.S_ISREG(st.st_mode):
                with open(p, 'rb') as f:
                    digest = hashlib.sha256(f.read()).hexdigest()
                group = groups.setdefault((st.st_dev, st.st_ino), rel) if st.st_nlink > 1 else None
                out[rel] = ('file', mode, st.st_mtime_ns, digest, group)
    # The first name of a link group depends on the order of the walk: name it by its least member.
    least = {}
    for rel, row in out.items():
        if row[4]:
            least[row[4]] = min(least.get(row[4], rel), rel)
    return {rel: row[:4] + (least.get(row[4]),) for rel, row in out.items()}


def same(a, b, what, ignore_times_of_links=False):
    """Compare two snapshots; says the first differences."""
    if ignore_times_of_links:
        a, b = ({k: v if v[0] != 'link' else v[:2] + (None,) + v[3:] for k, v in x.items()} for x in (a, b))
    bad = [f'only in the first: {k!r}' for k in a.keys() - b.keys()] + [f'only in the second: {k!r}' for k in b.keys() - a.keys()]
    bad += [f'{k!r}: {a[k]} is not {b[k]}' for k in a.keys() & b.keys() if a[k] != b[k]]
    if bad:
        fail(f'{what}: {len(bad)} differences\n' + '\n'.join(bad[:10]))


def need_root():
    if os.geteuid():
        skip('needs root (mounts a loop device)')


def private_mounts():
    """A mount namespace of our own. A mount that other tests' namespaces have copied outlives our umount, and with it a file
    system whose power was cut: the next mount would be of that one."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(0x00020000) != 0:
        skip(f'cannot make a mount namespace: {os.strerror(ctypes.get_errno())}')
    subprocess.run(['mount', '--make-rprivate', '/'], check=True)
    # Nor do we hold what others have mounted: their servers end when nobody has it.
    with open('/proc/self/mountinfo') as f:
        points = [line.split()[4] for line in f if line.rsplit(' - ', 1)[1].split()[0].startswith(('fuse', 'erofs'))]
    for point in reversed(points):
        subprocess.run(['umount', '-l', point], stderr=subprocess.DEVNULL)


class LoopFs:
    """A file system on a loop device, whose power can be cut; seen by this process and its children only."""
    def __init__(self, kind, directory, size=400 << 20):
        if os.readlink('/proc/self/ns/mnt') == os.readlink(f'/proc/{os.getppid()}/ns/mnt'):
            private_mounts()
        self.image, self.at, self.kind = directory + '.img', directory, kind
        os.makedirs(directory, exist_ok=True)
        with open(self.image, 'wb') as f:
            f.truncate(size)
        subprocess.run([f'mkfs.{kind}', '-q', *(['-F'] if kind == 'ext4' else []), self.image], check=True, stdout=subprocess.DEVNULL)
        self.mount()

    def mount(self):
        p = subprocess.run(['mount', '-o', 'loop', self.image, self.at], stderr=subprocess.PIPE, text=True)
        if p.returncode:
            skip(f'cannot mount {self.kind} on a loop device: {p.stderr.strip()}')

    def cut_power(self):
        """All that was not committed to the medium is gone: the shutdown ioctl without a log flush."""
        fd = os.open(self.at, os.O_RDONLY)
        try:
            fcntl.ioctl(fd, 0x8004587D, struct.pack('I', 2))
        finally:
            os.close(fd)
        self.umount()
        self.mount()

    def umount(self):
        for _ in range(50):
            if subprocess.run(['umount', self.at], stderr=subprocess.DEVNULL).returncode == 0:
                return
            time.sleep(0.1)
        fail(f'{self.at} stays busy')
