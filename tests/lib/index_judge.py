#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A second opinion on indexes: reads dumps (docs/formats/index-dump.md) by itself, and asks the kernel.

  index_judge.py sample                      a dump with every kind of thing in it, to stdout
  index_judge.py many                        a directory of 5,000 entries
  index_judge.py head                        directories that do not all fit the head, of depth 1 to 3
  index_judge.py random FILES SEED           a tree by chance
  index_judge.py packs DUMP OUT              OUT/pack.N, whose blocks are computed from device and block
  index_judge.py flat OUT                    OUT/flat: OUT/index, and the packs at their unified starts
  index_judge.py mount flat|device OUT DIR   through fsopen, fsconfig, fsmount (root); exit 77 if it cannot be
  index_judge.py compare DUMP DIR            DIR has exactly what the dump says, every byte of it
      --holes-may-be-cut                     files that end in a hole may be short (fsck.erofs --extract)
      --no-xattrs                            do not look at attributes
"""
import ctypes, hashlib, os, random, re, stat, struct, sys

BLOCK, BIG, TRAILER = 512, 8 << 20, 700      # TRAILER: foreign bytes behind a pack's data, never to be seen
FLAGS = set()


def escape(name):
    return ''.join(chr(b) if 0x20 < b < 0x7f and b not in b'\\=' else '\\x%02x' % b for b in name)


def unescape(text):
    return re.sub(rb'\\x([0-9a-f]{2})', lambda m: bytes([int(m[1], 16)]), text.encode('ascii'))


# ---- the sample ------------------------------------------------------------------------------------

class Sample:
    """Collects nodes as a nested dict, places their data on devices, prints lines in a dump's order."""
    def __init__(self, devices=3):
        self.blocks, self.root, self.turn = [0] * devices, {}, 0

    def put(self, path, words, default_time='1700000000.000000000'):
        at = self.root
        *way, name = path.split(b'/')
        for part in way:
            at = at.setdefault(part, ['directory 0555 ' + default_time, {}])[1]
        at[name] = [words, {}]

    def chunk(self, length, leaf):
        self.turn = (self.turn + 1) % len(self.blocks)
        d, blocks = self.turn, -(-length // BLOCK)
        at, self.blocks[d] = self.blocks[d], self.blocks[d] + blocks
        return '%d:%d' % (d + 1, at) + (':%d' % (at * 3 + 1) if leaf else '')

    def file(self, path, size, mode='0444', time='1700000000.000000000', holes=(), xattrs=()):
        count = -(-size // BIG)
        chunks = ['hole' if i in holes else self.chunk(min(BIG, size - i * BIG), count == 1) for i in range(count)]
        self.put(path, ' '.join(['file', mode, time, str(size), *chunks, *xattrs]))

    def symlink(self, path, target, xattrs=()):
        self.put(path, ' '.join(['symlink', '0777', '1600000000.123456789', escape(target), *xattrs]))

    def text(self):
        lines = ['grid-index-dump 1']
        for i, blocks in enumerate(self.blocks):
            lines.append('device %s %d' % (hashlib.sha256(b'device %d' % i).hexdigest(), blocks))
        lines.append('/ directory 0555 1700000000.000000000')
        def walk(path, children):
            for name in sorted(children):
                words, below = children[name]
                lines.append('%s/%s %s' % (path, escape(name), words))
                walk('%s/%s' % (path, escape(name)), below)
        walk('', self.root)
        return '\n'.join(lines) + '\n'


def sample():
    s = Sample()
    for n in (0, 1, 511, 512, 513, 4095, 4096, 4097, 65535, 65536, 65537, 300001, BIG - 1, BIG):
        s.file(b'sizes/%d' % n, n)
    s.file(b'sizes/hole', 30000, holes=[0])
    s.file(b'sizes/big', BIG + 1)
    s.file(b'sizes/big-with-holes', 5 * BIG + 77, holes=[1, 2, 4])
    s.file(b'sizes/begins-with-hole', 2 * BIG, holes=[0])
    s.file(b'sizes/above-4GiB', (5 << 30) + 77, holes=range(1, 640))
    for name in (b'!', b'+', b'-', b'+plus', b'.-', b'...', b'..x', b'.a', b'a b\n\t', b'\x01', b'\x7f', b'A', b'a', b'Z', b'z', b'a=b',
                 b'back\\slash', b'caf\xc3\xa9', b'\xff\xfe\x80', b'a' * 255, b'\xff' * 255, b'\x01' * 255):
        s.file(b'names/' + name, len(name))
        s.put(b'names/dirs/' + name, 'directory 0500 0.000000000')
    for i in range(12):
        s.file(b'long/' + (b'%03d' % i).ljust(255, b'n'), 5)
    for i in range(100):
        s.put(b'wide/%d/x' % i, 'directory 0555 1.000000000')
    s.file(b'/'.join(b'd%d' % i for i in range(100)) + b'/bottom', 6)
    for i, t in enumerate(('-1.900000000', '-1.000000000', '0.000000000', '0.999999999', '-2147483649.000000000', '2147483648.000000000',
                           '4294967296.000000005', '-9223372036854775808.000000000', '9223372036854775807.999999999')):
        s.put(b'times/%d' % i, 'file 0444 %s 0' % t)
        s.put(b'times/d%d' % i, 'directory 0555 ' + t)
    for mode in ('0000', '0111', '0400', '0444', '0500', '0550', '0555'):
        s.file(b'modes/' + mode.encode(), 3, mode=mode)
    for n in (1, 59, 415, 416, 417, 447, 448, 449, 511, 512, 513, 1023, 1024, 4094, 4095):
        s.symlink(b'links/sym%04d' % n, (b'%d' % n).ljust(n, b'x'))
    s.symlink(b'links/odd', b'../a b/=\\\xff\n')
    s.file(b'links/one', 1000)
    s.put(b'links/two', 'hardlink /links/one')
    s.put(b'three', 'hardlink /links/one')
    s.put(b'links/symagain', 'hardlink /links/sym0449')
    s.put(b'twins/only-links', 'hardlink /sizes/65537')
    s.put(b'twins/more/of-them', 'hardlink /sizes/65537')
    value = random.Random(1).randbytes(3000)
    s.file(b'xattrs/one', 10, xattrs=['user.a=62'])
    s.file(b'xattrs/none-of-a-byte', 0, xattrs=['user.empty='])
    s.file(b'xattrs/several', 2 * BIG + 5, xattrs=['user.a=01', 'user.b=' + value.hex(), 'user.b\\x20c=0a', 'user.' + 'n' * 250 + '=00'])
    for n in range(330, 460, 13):
        s.symlink(b'xattrs/sym%d' % n, b't' * 30, xattrs=['user.x=' + value[:n].hex()])
        s.put(b'xattrs/dir%d' % n, 'directory 0555 0.000000000 user.x=' + value[:n].hex())
    s.put(b'xattrs/large', 'directory 0555 0.000000000 user.x=' + value.hex())
    s.file(b'xattrs/large/file', 1)
    s.symlink(b'xattrs/long', b'y' * 2000, xattrs=['user.x=' + value.hex()])
    return s.text()


def many():
    s = Sample(1)
    for i in range(5000):
        s.file(b'many/%04d' % i, i % 3 * 100)
    return s.text()


def head():
    s = Sample(2)
    for way, files in ((b'a', 6000), (b'b', 6000), (b'c', 100), (b'a/m', 2000), (b'a/n', 100), (b'b/m', 10), (b'c/n/o', 10)):
        for i in range(files):
            s.file(way + b'/%d' % i, i % 700)
    s.put(b'b/only-links/1', 'hardlink /a/5')
    s.put(b'c/only-links/1', 'hardlink /b/m/5')
    s.put(b'c/only-links/2', 'hardlink /b/7')
    return s.text()


def random_tree(files, seed):
    r, s, ways = random.Random(int(seed)), Sample(5), [b'']
    for i in range(int(files)):
        way = r.choice(ways[-50:] if r.random() < 0.7 else ways)
        name = way + bytes(r.choice(b'!+-.09AZaz\xfe') for _ in range(r.choice((1, 5, 10, 30)))) + b'%d' % i
        kind = r.random()
        if kind < 0.06 and name.count(b'/') < 40:
            ways.append(name + b'/')
            s.put(name, 'directory 0555 %d.%09d' % (r.randrange(-9, 2**33), r.randrange(10**9)))
        elif kind < 0.12:
            s.symlink(name, b'x' * r.choice((1, 20, 100, 400, 448, 449, 3000)))
        elif kind < 0.16 and i > 0:
            s.put(name, 'hardlink /%s' % escape(last))
        else:
            last = name
            s.file(name, r.choice((0, 1, 100, 511, 512, 5000)), xattrs=['user.n=%04x' % (i % 65536)] if kind > 0.97 else ())
    return s.text()


# ---- reading a dump --------------------------------------------------------------------------------

class Node:
    pass


def read_dump(path):
    """-> device blocks, {path: Node}; a hard link is the same Node."""
    devices, nodes, links = [], {}, []
    with open(path, encoding='ascii') as f:
        lines = f.read().splitlines()
    assert lines[0] == 'grid-index-dump 1', lines[0]
    for line in lines[1:]:
        words = line.split(' ')
        if words[0] == 'device':
            devices.append(int(words[2]))
            continue
        name = unescape(words[0]).rstrip(b'/')
        if words[1] == 'hardlink':
            links.append((name, unescape(words[2])))
            continue
        n = nodes[name] = Node()
        n.type, n.mode, n.names = words[1], int(words[2], 8), 1
        seconds, ns = words[3].split('.')
        n.time, rest = int(seconds) * 10**9 + int(ns), words[4:]
        n.chunks, n.size, n.target = [], 0, None
        if n.type == 'file':
            n.size, rest = int(rest[0]), rest[1:]
            count = -(-n.size // BIG)
            n.chunks = [None if w == 'hole' else tuple(map(int, w.split(':')[:2])) for w in rest[:count]]
            rest = rest[count:]
        elif n.type == 'symlink':
            n.target, rest = unescape(rest[0]), rest[1:]
        n.xattrs = {unescape(k).decode('latin-1'): bytes.fromhex(v) for k, v in (w.split('=') for w in rest)}
    for name, target in links:
        nodes[name] = nodes[target]
        nodes[name].names += 1
    return devices, nodes


def block_bytes(device, block, size):
    """The first `size` bytes from this block on."""
    count = -(-size // BLOCK)
    seed = hashlib.shake_128(b'%d' % device).digest(BLOCK)
    return b''.join(struct.pack('<II', device, b) + seed[8 + b % 100:] + seed[:b % 100] for b in range(block, block + count))[:size]


def packs(dump, out):
    devices, nodes = read_dump(dump)
    files = [open('%s/pack.%d' % (out, i + 1), 'wb') for i in range(len(devices))]
    for n in nodes.values():
        for i, chunk in enumerate(n.chunks):
            if chunk:
                f = files[chunk[0] - 1]
                f.seek(chunk[1] * BLOCK)
                f.write(block_bytes(*chunk, min(BIG, n.size - i * BIG)))
    for f, blocks in zip(files, devices):
        f.truncate(blocks * BLOCK)
        f.seek(blocks * BLOCK)
        f.write(b'\xA5' * TRAILER)
        f.close()


def flat(out):
    with open(out + '/index', 'rb') as f:
        image = f.read()
    count, = struct.unpack_from('<H', image, 1024 + 86)
    incompat, = struct.unpack_from('<I', image, 1024 + 80)
    with open(out + '/flat', 'wb') as f:
        f.write(image)
        for i in range(count):
            blocks, start, blocks_hi, start_hi = struct.unpack_from('<IIHH', image, 1152 + 128 * i + 64)
            assert blocks_hi == 0 and (start_hi == 0 or incompat & 0x80)
            with open('%s/pack.%d' % (out, i + 1), 'rb') as pack:
                f.seek((start | start_hi << 32) * BLOCK)
                for at in range(0, blocks * BLOCK, 1 << 20):
                    f.write(pack.read(min(1 << 20, blocks * BLOCK - at)))


def mount(mode, out, where):
    libc = ctypes.CDLL(None, use_errno=True)
    def call(nr, *args):
        r = libc.syscall(nr, *[ctypes.c_char_p(a) if isinstance(a, bytes) else None if a is None else ctypes.c_long(a) for a in args])
        if r < 0:
            raise OSError(ctypes.get_errno(), 'system call %d %s' % (nr, [a for a in args if isinstance(a, bytes)]))
        return r
    try:
        fs = call(430, b'erofs', 1)                                                 # fsopen
    except OSError as e:
        print('the kernel has no EROFS for us:', e)
        sys.exit(77)
    count = sum(f.startswith('pack.') for f in os.listdir(out)) if mode == 'device' else 0
    fds = [os.open('%s/pack.%d' % (out, i + 1), os.O_RDONLY) for i in range(count)]
    source = os.open(out + ('/flat' if mode == 'flat' else '/index'), os.O_RDONLY)
    call(431, fs, 1, b'source', b'/proc/self/fd/%d' % source, 0)                    # fsconfig: SET_STRING
    call(431, fs, 0, b'ro', None, 0)                                                # SET_FLAG
    for fd in fds:
        call(431, fs, 1, b'device', b'/proc/self/fd/%d' % fd, 0)
    try:
        call(431, fs, 6, None, None, 0)                                             # CMD_CREATE
    except OSError as e:
        if e.errno == 15:                                                           # ENOTBLK: a kernel before 6.12
            print('this kernel mounts EROFS from devices only')
            sys.exit(77)
        raise
    mnt = call(432, fs, 1, 1 | 2 | 4)                                               # fsmount: ro nosuid nodev
    call(429, mnt, b'', -100, os.fsencode(where), 4)                                # move_mount


# ---- comparing -------------------------------------------------------------------------------------

class Judge:
    def __init__(self, top):
        self.top, self.bad, self.inode_of, self.subdirs = os.fsencode(top), [], {}, {}

    def complain(self, name, *what):
        self.bad.append((name, *what))

    def content(self, name, n, path):
        with open(path, 'rb') as f:
            size = os.fstat(f.fileno()).st_size
            for i, chunk in enumerate(n.chunks):
                length = min(BIG, n.size - i * BIG)
                if not chunk and 'holes-may-be-cut' in FLAGS:
                    length = max(0, min(length, size - i * BIG))
                ends = [(0, length)] if chunk or len(n.chunks) < 100 else [(0, 4096), (length - 4096, 4096)]
                for at, part in ends:
                    want = block_bytes(*chunk, part) if chunk else bytes(part)
                    if os.pread(f.fileno(), part, i * BIG + at) != want:
                        self.complain(name, 'bytes of chunk', i)
            if os.pread(f.fileno(), 1, n.size):
                self.complain(name, 'goes on behind its end')

    def node(self, name, n):
        path = self.top + name
        try:
            st = os.lstat(path)
        except OSError as e:
            return self.complain(name, 'lookup', os.strerror(e.errno))
        kind = {'file': stat.S_IFREG, 'directory': stat.S_IFDIR, 'symlink': stat.S_IFLNK}[n.type]
        facts = [('type', stat.S_IFMT(st.st_mode), kind), ('mode', stat.S_IMODE(st.st_mode), n.mode), ('mtime', st.st_mtime_ns, n.time),
                 ('owner', (st.st_uid, st.st_gid), (0, 0))]
        if n.type == 'symlink':
            facts += [('target', os.readlink(path), n.target), ('size', st.st_size, len(n.target))]
        ends_in_hole = n.chunks and n.chunks[-1] is None
        if n.type == 'file' and not ('holes-may-be-cut' in FLAGS and ends_in_hole):
            facts += [('size', st.st_size, n.size)]
        if 'holes-may-be-cut' not in FLAGS or n.type != 'directory':
            facts += [('links', st.st_nlink, n.names if n.type != 'directory' else 2 + self.subdirs.get(name, 0))]
        if 'no-xattrs' not in FLAGS and n.type != 'symlink':       # Linux never shows user.* of a symlink
            have = {k: os.getxattr(path, k, follow_symlinks=False) for k in os.listxattr(path, follow_symlinks=False)}
            facts += [('xattrs', {k.encode('utf-8', 'surrogateescape').decode('latin-1'): v for k, v in have.items()}, n.xattrs)]
        for what, is_, should in facts:
            if is_ != should:
                self.complain(name, what, is_, should)
        if self.inode_of.setdefault(id(n), st.st_ino) != st.st_ino:
            self.complain(name, 'is not the same inode as its other names')
        if n.type == 'file':
            self.content(name, n, path)


def compare(dump, top):
    _, nodes = read_dump(dump)
    judge, children = Judge(top), {}
    for name, n in nodes.items():
        if n.type == 'directory':
            children.setdefault(name, [])
        if name:
            children.setdefault(os.path.dirname(name).rstrip(b'/'), []).append(os.path.basename(name))
            judge.subdirs[os.path.dirname(name).rstrip(b'/')] = judge.subdirs.get(os.path.dirname(name).rstrip(b'/'), 0) + (n.type == 'directory')
    for name, below in children.items():
        have = os.listdir(judge.top + name)
        if 'holes-may-be-cut' in FLAGS:
            have.sort()                                  # another file system's order
        if have != sorted(below):
            judge.complain(name, 'names' if sorted(have) != sorted(below) else 'order of names')
    for name, n in nodes.items():
        judge.node(name, n)
    inodes = set(judge.inode_of.values())
    if len(inodes) != len(judge.inode_of):
        judge.complain('', 'two files have one inode number')
    print('%d names, %d inodes compared: %d differences' % (len(nodes), len(inodes), len(judge.bad)), *judge.bad[:20], sep='\n')
    return 1 if judge.bad or not nodes else 0


def main():
    args = [a for a in sys.argv[1:] if not a.startswith('--')]
    FLAGS.update(a[2:] for a in sys.argv[1:] if a.startswith('--'))
    makers = {'sample': sample, 'many': many, 'head': head, 'random': random_tree}
    if args and args[0] in makers:
        sys.stdout.write(makers[args[0]](*args[1:]))
    elif args and args[0] in ('packs', 'flat', 'mount', 'compare'):
        sys.exit({'packs': packs, 'flat': flat, 'mount': mount, 'compare': compare}[args[0]](*args[1:]))
    else:
        sys.exit(__doc__)


if __name__ == '__main__':
    main()
