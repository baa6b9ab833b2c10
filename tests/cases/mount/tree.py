#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A mounted tree from a program's side: system calls that cp and diff do not make. Compared with the
directory that was stored wherever the two can be compared. MODE says how it is mounted."""
import errno, hashlib, json, mmap, os, random, stat, subprocess, sys, threading, time

GRID = os.environ['GRID']
MODE = os.environ.get('MODE', 'fuse')
random.seed(7)


def grid(*args, check=True):
    return subprocess.run([GRID, *args], check=check, capture_output=True, text=True)


def mount(check=True):
    return grid('datastore', 'mount', 't', 'mnt', '--mode', MODE, check=check)


def unmount_and_wait():
    """Until the server has ended: else the next mount may find it, with what it has read before."""
    servers = [row['server'] for row in json.loads(grid('datastore', 'mounts', '--json').stdout)]
    grid('datastore', 'unmount', 'mnt')
    end = time.time() + 60
    while any(os.path.exists(f'/proc/{pid}/exe') for pid in servers):
        assert time.time() < end, 'the server lives on'
        time.sleep(0.05)


def skip(why):
    print(why)
    sys.exit(77)


def code_of(function, *args, **kw):
    try:
        function(*args, **kw)
    except OSError as e:
        return e.errno
    return 0


def make_tree():
    os.makedirs('tree/many')
    os.makedirs('tree/a/b/c/d/e/f')
    with open('tree/big', 'wb') as f:
        f.write(random.randbytes(17 << 20))
    with open('tree/hole', 'wb') as f:
        f.truncate(40 << 20)
        f.seek(9 << 20)
        f.write(b'island')
    for i in range(3000):
        with open(f'tree/many/{"n" * (i % 200)}{i}', 'w') as f:
            f.write(str(i))
    with open('tree/' + 'x' * 255, 'w') as f:
        f.write('long name')
    with open(b'tree/\xff\xfe\n', 'wb') as f:
        f.write(b'no UTF-8')
    with open('tree/run', 'w') as f:
        f.write('#!/bin/sh\necho it runs\n')
    os.chmod('tree/run', 0o755)
    os.symlink('../big', 'tree/many/link')
    os.symlink('t' * 3000, 'tree/dangling')
    os.link('tree/big', 'tree/a/b/hard')
    os.utime('tree/big', ns=(0, -1234567890123456789))
    os.utime('tree/run', ns=(0, 4102444800987654321))
    open('tree/empty', 'w').close()
    try:
        os.setxattr('tree/big', 'user.colour', b'blue\0green')
        os.setxattr('tree/big', 'user.empty', b'')
        os.setxattr('tree/a', 'user.of a directory', b'1')
        return True
    except OSError:
        return False


def attributes():
    for path, dirs, files in os.walk(b'tree'):
        for name in dirs + files:
            a = os.lstat(os.path.join(path, name))
            at = os.path.join(b'mnt', os.path.relpath(path, b'tree'), name)
            b = os.lstat(at)
            assert stat.S_IFMT(a.st_mode) == stat.S_IFMT(b.st_mode), name
            assert stat.S_ISLNK(b.st_mode) or b.st_mode & 0o7222 == 0, name
            assert a.st_mtime_ns == b.st_mtime_ns, (name, a.st_mtime_ns, b.st_mtime_ns)
            if not stat.S_ISDIR(a.st_mode):
                assert a.st_size == b.st_size and a.st_nlink == b.st_nlink, name
            assert b.st_uid == os.geteuid(), name
            assert b.st_blocks == (b.st_size + 511) // 512, name
    assert os.stat('mnt/big').st_ino == os.stat('mnt/a/b/hard').st_ino
    assert os.stat('mnt').st_ino != os.stat('mnt/a').st_ino
    assert os.readlink('mnt/dangling') == 't' * 3000
    assert os.readlink('mnt/many/link') == '../big'
    assert subprocess.run(['mnt/run'], capture_output=True, text=True).stdout == 'it runs\n'


def direct(whole):
    fd = os.open('mnt/big', os.O_RDONLY | os.O_DIRECT)
    with mmap.mmap(-1, 1 << 20) as room:
        for at in (0, 4096, 8 << 20, (8 << 20) - 4096, 16 << 20):
            n = os.preadv(fd, [room], at)
            assert room[:n] == whole[at:at + n] and n == min(1 << 20, len(whole) - at), (at, n)
    os.close(fd)


def data():
    with open('tree/big', 'rb') as f:
        whole = f.read()
    with open('mnt/big', 'rb') as f:
        assert f.read() == whole
        for _ in range(200):
            at, size = random.randrange(len(whole) + 10), random.randrange(200000)
            assert os.pread(f.fileno(), size, at) == whole[at:at + size]
        with mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ) as m:
            for _ in range(200):
                at = random.randrange(len(whole))
                assert m[at:at + 5000] == whole[at:at + 5000]
    if MODE == 'fuse':
        direct(whole)
    else:  # the kernel's EROFS has no such thing for images in files
        assert code_of(os.open, 'mnt/big', os.O_RDONLY | os.O_DIRECT) == errno.EINVAL
    with open('mnt/hole', 'rb') as f:
        found = f.read()
    assert len(found) == 40 << 20 and found.strip(b'\0') == b'island'
    assert found[9 << 20:(9 << 20) + 6] == b'island'
    assert open('mnt/empty', 'rb').read() == b''

    # Many readers of one cold file at once.
    grid('datastore', 'unmount', 'mnt')
    mount()
    wrong = []

    def reader(seed):
        r = random.Random(seed)
        with open('mnt/big', 'rb') as f:
            for _ in range(100):
                at = r.randrange(len(whole))
                if os.pread(f.fileno(), 70000, at) != whole[at:at + 70000]:
                    wrong.append(at)
    threads = [threading.Thread(target=reader, args=(i,)) for i in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong, wrong


def directories():
    names = set(os.listdir(b'tree/many'))
    assert set(os.listdir(b'mnt/many')) == names
    assert len(os.listdir(b'mnt/many')) == len(names)
    assert set(os.listdir(b'mnt')) == set(os.listdir(b'tree'))
    # Seek back to where a listing was.
    out = subprocess.run([sys.executable, '-c', SEEK, 'mnt/many'], capture_output=True, text=True)
    assert out.returncode == 0, out.stderr
    assert os.path.realpath('mnt/a/b/../..') == os.path.realpath('mnt')
    d = os.open('mnt/a/b/c', os.O_RDONLY | os.O_DIRECTORY)
    os.stat('../../../big', dir_fd=d)
    os.close(d)


SEEK = '''
import ctypes, sys
c = ctypes.CDLL(None, use_errno=True)
c.opendir.restype = c.readdir.restype = ctypes.c_void_p
c.readdir.argtypes = c.telldir.argtypes = c.rewinddir.argtypes = [ctypes.c_void_p]
c.telldir.restype = ctypes.c_long
c.seekdir.argtypes = [ctypes.c_void_p, ctypes.c_long]
d = c.opendir(sys.argv[1].encode())
def next_name():
    e = c.readdir(d)
    return ctypes.string_at(e + 19) if e else None
places, names = [], []
while True:
    places.append(c.telldir(d))
    n = next_name()
    if n is None:
        break
    names.append(n)
assert len(set(names)) == len(names) > 3000
assert b'.' in names and b'..' in names
for i in list(range(0, len(names), 97)) + [0, len(names) - 1]:
    c.seekdir(d, places[i])
    assert next_name() == names[i], i
c.seekdir(d, places[-1])
assert next_name() is None
c.rewinddir(d)
assert next_name() == names[0]
'''


def refusals():
    assert code_of(open, 'mnt/none') == errno.ENOENT
    assert code_of(open, 'mnt/none') == errno.ENOENT  # now from the kernel's memory
    assert code_of(open, 'mnt/big/x') == errno.ENOTDIR
    assert code_of(os.stat, 'mnt/' + 'y' * 256) == errno.ENAMETOOLONG
    assert code_of(os.readlink, 'mnt/big') == errno.EINVAL
    assert code_of(open, 'mnt/a', 'rb') == errno.EISDIR
    for function, args in ((open, ('mnt/new', 'w')), (open, ('mnt/big', 'ab')), (os.unlink, ('mnt/big',)),
                           (os.mkdir, ('mnt/d',)), (os.rename, ('mnt/big', 'mnt/b')),
                           (os.chmod, ('mnt/big', 0o777)), (os.utime, ('mnt/big',)),
                           (os.truncate, ('mnt/big', 0)), (os.symlink, ('x', 'mnt/s')),
                           (os.link, ('mnt/big', 'mnt/l')), (os.rmdir, ('mnt/a',))):
        assert code_of(function, *args) == errno.EROFS, function
    flags = os.statvfs('mnt').f_flag
    assert flags & os.ST_RDONLY and flags & os.ST_NOSUID and flags & os.ST_NODEV


def figures():
    s = os.statvfs('mnt')
    count = sum(len(d) + len(f) for _, d, f in os.walk('tree')) + 1
    links = sum(os.lstat(os.path.join(p, n)).st_nlink > 1 for p, _, f in os.walk('tree') for n in f) // 2
    if MODE == 'fuse':  # the kernel's EROFS counts no files, and only blocks that are stored
        assert s.f_files == count - links, (s.f_files, count, links)
    assert s.f_bfree == s.f_bavail == s.f_ffree == 0 or MODE != 'fuse'
    assert s.f_blocks * s.f_frsize >= (57 << 20 if MODE == 'fuse' else 17 << 20)
    assert s.f_namemax == 255


def xattrs():
    assert sorted(os.listxattr('mnt/big')) == ['user.colour', 'user.empty']
    assert os.getxattr('mnt/big', 'user.colour') == b'blue\0green'
    assert os.getxattr('mnt/big', 'user.empty') == b''
    assert os.listxattr('mnt/a') == ['user.of a directory']
    assert os.listxattr('mnt/run') == []
    assert code_of(os.getxattr, 'mnt/run', 'user.colour') == errno.ENODATA
    assert code_of(os.getxattr, 'mnt/big', 'trusted.x') in (errno.EOPNOTSUPP, errno.ENODATA, errno.EPERM)
    assert code_of(os.setxattr, 'mnt/big', 'user.x', b'1') == errno.EROFS


def damage():
    """One damaged leaf: its pages give EIO, all others the right bytes; the log names pack and offset."""
    unmount_and_wait()
    with open('tree/big', 'rb') as f:
        whole = f.read()
    packs = [os.path.join(d, f) for d, _, files in os.walk('store/p') for f in files]
    leaf, needle = 70, whole[70 * 65536 + 1000:70 * 65536 + 1064]
    hit = None
    for p in packs:
        with open(p, 'rb') as f:
            at = f.read().find(needle)
        if at >= 0:
            hit = (p, at)
    assert hit, 'the file is in no pack'
    os.chmod(hit[0], 0o644)
    with open(hit[0], 'r+b') as f:
        f.seek(hit[1])
        f.write(bytes([needle[0] ^ 4]))
    mount()
    # EROFS gives up what it reads into one piece of its page cache together.
    start, end, near = leaf * 65536, (leaf + 1) * 65536, 0 if MODE == 'fuse' else 256 << 10
    fd = os.open('mnt/big', os.O_RDONLY)
    for at in range(0, len(whole), 4096):
        try:
            got = os.pread(fd, 4096, at)
        except OSError as e:
            assert e.errno == errno.EIO and start - near <= at < end + near, (at, e)
        else:
            assert got == whole[at:at + 4096] and at // 65536 != leaf, at
    with mmap.mmap(fd, 0, prot=mmap.PROT_READ) as m:
        digest = hashlib.sha256(m[:start - near] + m[end + near:]).digest()
    assert digest == hashlib.sha256(whole[:start - near] + whole[end + near:]).digest()
    os.close(fd)
    assert open('mnt/run').read().startswith('#!')
    key = os.path.relpath(hit[0], 'store')
    logs = ''.join(open(os.path.join(d, f)).read() for d, _, files in os.walk('runtime') for f in files
                   if f.endswith('.log'))
    line = f'{key}: the leaf at offset {hit[1] - 1000}, 65536 bytes'
    assert line in logs, (line, logs)


def main():
    if not os.path.exists('/dev/fuse'):
        skip('there is no /dev/fuse')
    os.environ['GRID_RUNTIME_DIR'] = os.path.abspath('runtime')
    os.environ['GRID_STORE'] = 'file://' + os.path.abspath('store')
    has_xattrs = make_tree()
    grid('datastore', 'create', 'tree', '--name', 't')
    os.mkdir('mnt')
    p = mount(check=False)
    if p.returncode != 0:
        skip(f'nothing can be mounted with mode {MODE} here: {p.stderr}')
    try:
        attributes()
        data()
        directories()
        refusals()
        figures()
        if has_xattrs:
            xattrs()
        if MODE != 'local':  # there the kernel reads packs as it reads any file
            damage()
    finally:
        grid('datastore', 'unmount', 'mnt', check=False)


main()
