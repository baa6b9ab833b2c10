#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The cache's files flipped, cut, swapped, replaced, closed; somebody else's directory: what is read is right, and what was
wrong is fetched and kept anew."""
import json, os, shutil, stat, sys
sys.path.insert(0, os.path.join(os.environ['TOP'], 'tests/lib'))
from gridtest import *
from bucket import Bucket

cache = os.path.join(os.getcwd(), 'cache')
rnd = random.Random(5)
source = make_tree('source', seed=11)
with open('source/large', 'wb') as f:
    f.write(random.Random(1).randbytes(9 << 20))
wanted = snapshot(source)
exports = 0


def cells():
    return [os.path.join(t, n) for t, _, ns in os.walk(cache + '/packs') for n in ns if len(n) == 64]


def objects(root):
    """Bytes of each pack and index in the bucket, by length."""
    out = {}
    for kind in 'px':
        for t, _, ns in os.walk(f'{root}/b/grid/{kind}'):
            for n in ns:
                with open(os.path.join(t, n), 'rb') as f:
                    data = f.read()
                out[len(data)] = data
    return out


def length_of(cell):
    """Of the object: its header says it."""
    with open(cell, 'rb') as f:
        data = f.read()
    at = data.rindex(b'GRIDCELL')
    return int.from_bytes(data[at + 16:at + 24], 'little'), at


def export(env, what):
    """All of it, compared; gives what grid said."""
    global exports
    exports += 1
    out = f'copy{exports}'
    p = grid('datastore', 'export', 'x', out, env=env)
    same(wanted, snapshot(out), what)
    shutil.rmtree(out)
    return p.stderr


def edit(path, change):
    with open(path, 'r+b') as f:
        data = bytearray(f.read())
        change(data)
        f.seek(0)
        f.write(data)


with Bucket('bucket') as b:
    env = dict(b.env, GRID_CACHE=cache)
    grid('datastore', 'create', 'source', '--name', 'x', env=env)
    grid('datastore', 'prefetch', 'x', env=env)
    before = b.stop()

# Everything is there: an export fetches next to nothing.
with Bucket('bucket') as b:
    env = dict(b.env, GRID_CACHE=cache)
    export(env, 'from the cache')
    sent = b.stop()['bytes_out']
    if sent > 300 << 10:
        fail(f'{sent} bytes were sent although all was in the cache')

# A bit flipped in each 64 KiB of data: each leaf is fetched anew, and the file is as it was.
truth = objects('bucket')
flips = 0
for cell in cells():
    length, _ = length_of(cell)

    def flip(data):
        global flips
        for at in range(rnd.randrange(1000), length, 65536):
            data[at] ^= 1 << rnd.randrange(8)
            flips += 1
    edit(cell, flip)
with Bucket('bucket') as b:
    env = dict(b.env, GRID_CACHE=cache)
    export(env, 'flipped bits in data')
    sent = b.stop()['bytes_out']
    if sent < 9 << 20:
        fail(f'{flips} bits were flipped, and only {sent} bytes fetched')
healed = 0
for cell in cells():
    length, _ = length_of(cell)
    with open(cell, 'rb') as f:
        healed += f.read(length) == truth[length]
if healed < 1:
    fail('no cell was put right')
print(f'{flips} flipped bits; {sent} bytes came again; {healed} of {len(cells())} cells are as they were')


def flip_map(data):
    at = data.rindex(b'GRIDCELL')
    for _ in range(50):
        data[rnd.randrange(at, len(data))] ^= 1 << rnd.randrange(8)


def garbage_map(data):
    at = data.rindex(b'GRIDCELL') + 128
    data[at:] = rnd.randbytes(len(data) - at)


def all_marks(data):
    """Says that all is there, of holes."""
    at = data.rindex(b'GRIDCELL')
    data[:at] = bytes(at)
    data[at + 128:] = b'\1' * (len(data) - at - 128)


def swap(paths):
    if len(paths) > 1:
        os.rename(paths[0], paths[0] + '.t')
        os.rename(paths[1], paths[0])
        os.rename(paths[0] + '.t', paths[1])


outside = os.path.join(os.getcwd(), 'outside')
os.makedirs(outside)
with open(outside + '/file', 'wb') as f:
    f.write(b'untouched')
harms = {
    'flipped bits in the map': lambda ps: [edit(p, flip_map) for p in ps],
    'garbage as map': lambda ps: [edit(p, garbage_map) for p in ps],
    'marks that lie': lambda ps: [edit(p, all_marks) for p in ps],
    'truncated': lambda ps: [os.truncate(p, os.path.getsize(p) // 2) for p in ps],
    'oversized': lambda ps: [os.truncate(p, os.path.getsize(p) + 12345) for p in ps],
    'empty': lambda ps: [os.truncate(p, 0) for p in ps],
    'swapped': swap,
    'deleted': lambda ps: [os.unlink(p) for p in ps],
    'symlinks': lambda ps: [(os.unlink(p), os.symlink(outside + '/file', p)) for p in ps],
    'directories': lambda ps: [(os.unlink(p), os.mkdir(p)) for p in ps],
    'closed': lambda ps: [os.chmod(p, 0) for p in ps],
    'shards are symlinks': lambda ps: [(shutil.rmtree(os.path.dirname(p)), os.symlink(outside, os.path.dirname(p))) for p in ps],
    'a leftover of a dead process': lambda ps: [open(os.path.dirname(p) + '/.new-1-1-1', 'wb').close() for p in ps],
    'account is garbage': lambda ps: edit(cache + '/packs/account', lambda d: d.__setitem__(slice(0, 64), rnd.randbytes(64))),
    'account is gone': lambda ps: os.unlink(cache + '/packs/account'),
}
with Bucket('bucket') as b:
    env = dict(b.env, GRID_CACHE=cache)
    for what, harm in harms.items():
        shutil.rmtree(cache, ignore_errors=True)
        grid('datastore', 'prefetch', 'x', env=env)
        paths = cells()
        if not paths:
            fail(f'{what}: nothing is in the cache')
        harm(paths)
        said = export(env, what)
        if len(said.splitlines()) > 1:
            fail(f'{what}: {said}')
        if what in ('flipped bits in the map', 'swapped'):
            export(env, what + ', again')
        with open(outside + '/file', 'rb') as f:
            if f.read() != b'untouched' or os.listdir(outside) != ['file']:
                fail(f'{what}: something outside of the cache was touched')

    # A directory of somebody else: said, and not used.
    shutil.rmtree(cache)
    if os.geteuid() == 0:
        os.makedirs(cache + '/packs')
        os.chown(cache + '/packs', 12345, 12345)
        said = export(env, "somebody else's directory")
        if 'belongs to somebody else' not in said or os.listdir(cache + '/packs'):
            fail(f"somebody else's directory: {said}")
        os.rmdir(cache + '/packs')
    os.makedirs(cache, exist_ok=True)
    os.symlink(outside, cache + '/packs')
    said = export(env, 'a symlink')
    if 'is not a directory' not in said or os.listdir(outside) != ['file']:
        fail(f'a symlink: {said}')
