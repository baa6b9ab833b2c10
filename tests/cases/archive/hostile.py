#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# timeout: 300
"""Archives that lie, conflict, overflow or were cut off: each row of the table in docs/archives.md. What is refused names the
entry and leaves nothing visible; what is mapped is mapped as the table says, and is told."""
import os, sys
sys.path.insert(0, os.path.join(os.environ['TOP'], 'tests/lib'))
from archives import *

server = Server()
F, D, L, H = tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE
number = 0


def url(data, suffix='.tar'):
    global number
    number += 1
    return server.url('range/' + server.put(f'{number}{suffix}', data))


def tar_refused(entries, *words, **more):
    refused(url(tar(entries, **more)), *words)


def zip_refused(members, *words, **more):
    refused(url(zipped(members, **more), '.zip'), *words)


def accept(data, want, *told, suffix='.tar'):
    """want: {path: content}; told: words on stderr."""
    where = url(data, suffix)
    p = create(where, f'a{number}')
    exported(f'a{number}')
    found = unpacked('out')
    if found != want:
        fail(f'{found} is not {want}\n{p.stderr}')
    for word in told:
        if word not in p.stderr:
            fail(f'{word!r} is not told: {p.stderr}')
    return p


ok = ('fine', b'fine', {})

# ---- names
tar_refused([ok, ('a/../../b', b'x', {})], "'a/../../b'", "'..'")
tar_refused([ok, ('..', b'x', {})], "'..'")
tar_refused([('n' * 256, b'x', {})], '255 bytes')
tar_refused([('/'.join(['d' * 200] * 21), b'x', {})], '4096')
accept(tar([('/etc/passwd', b'x', {})]), {b'etc/passwd': b'x'}, '/etc/passwd is unpacked without')
accept(tar([('./a//b/./c', b'x', {}), ('back\\slash', b'y', {})]), {b'a/b/c': b'x', b'back\\slash': b'y'})
accept(tar([('caf\udce9', b'x', {})], fmt=tarfile.GNU_FORMAT), {b'caf\xe9': b'x'}, 'no UTF-8')
accept(tar([('caf\udce9', b'x', {})]), {b'caf\xe9': b'x'}, 'no UTF-8')
accept(tar([('köln/' + 'ü' * 120, b'x', {})]), {('köln/' + 'ü' * 120).encode(): b'x'})
accept(tar([('long/' * 30 + 'n' * 150, b'x', {})], fmt=tarfile.GNU_FORMAT), {b'long/' * 30 + b'n' * 150: b'x'})

# ---- two entries, one place
accept(tar([('a', b'first', {}), ('a', b'second', {})]), {b'a': b'second'}, 'more than once')
accept(tar([('a', b'old', {}), ('b', None, {'type': H, 'linkname': 'a'}), ('a', b'new', {})]), {b'a': b'new', b'b': b'old'})
accept(tar([('a', b'x', {}), ('a', None, {'type': L, 'linkname': 't'})]), {b'a': ('->', b't')}, 'more than once')
tar_refused([('a', b'x', {}), ('a/b', b'y', {})], "'a/b'", 'below something that is no directory')
tar_refused([('a', None, {'type': L, 'linkname': '/tmp'}), ('a/b', b'y', {})], 'below something that is no directory')
tar_refused([('d', None, {'type': D}), ('d/f', b'x', {}), ('d', None, {'type': L, 'linkname': '/tmp'}), ('d/g', b'y', {})],
            "'d'", 'a directory and something else')
tar_refused([('a/b', b'x', {}), ('a', b'y', {})], 'a directory and something else')
tar_refused([('a', None, {'type': L, 'linkname': 'd'}), ('a', None, {'type': D})], 'a directory and something else')
accept(tar([('d/f', b'x', {}), ('d', None, {'type': D, 'mtime': 5}), ('d', None, {'type': D, 'mtime': 7})]), {b'd/f': b'x'})
if os.stat('out/d').st_mtime != 7:
    fail('the last entry of a directory does not count')

# ---- links
accept(tar([('a', b'x', {}), ('b', None, {'type': H, 'linkname': './a'}), ('c', None, {'type': H, 'linkname': 'b'})]),
       {b'a': b'x', b'b': b'x', b'c': b'x'})
if os.stat('out/a').st_nlink != 3:
    fail('hard links are not kept')
tar_refused([('b', None, {'type': H, 'linkname': 'a'}), ('a', b'x', {})], "hard link to 'a'", 'not come before')
tar_refused([('b', None, {'type': H, 'linkname': '../../etc/passwd'})], 'hard link')
tar_refused([('d', None, {'type': D}), ('b', None, {'type': H, 'linkname': 'd'})], 'hard link to a directory')
accept(tar([('l', None, {'type': L, 'linkname': '../../../etc/passwd'})]), {b'l': ('->', b'../../../etc/passwd')})

# ---- kinds, modes, times
p = accept(tar([ok, ('null', None, {'type': tarfile.CHRTYPE, 'devmajor': 1, 'devminor': 3}), ('fifo', None, {'type': tarfile.FIFOTYPE})]),
           {b'fine': b'fine'}, 'skipped null', 'skipped fifo')
accept(tar([('s', b'x', {'mode': 0o6755}), ('p', b'y', {'mode': 0o600}), ('old', b'z', {'mtime': -86400}), ('new', b'z', {'mtime': 2**33})]),
       {b's': b'x', b'p': b'y', b'old': b'z', b'new': b'z'}, '1 private file')
if os.stat('out/s').st_mode & 0o7555 != 0o555 or os.stat('out/old').st_mtime != -86400 or os.stat('out/new').st_mtime != 2**33:
    fail('modes or times are not what they should be')
p = create(url(tar([ok, ('p', b'y', {'mode': 0o600})])), 'without', None, True, '--exclude-private')
exported('without')
if unpacked('out') != {b'fine': b'fine'} or 'left out' not in p.stderr:
    fail(f'--exclude-private: {p.stderr}')

# ---- pax and sparse
accept(tar([('x', b'12345', {'pax_headers': {'comment': 'c' * 100000, 'SCHILY.xattr.security.selinux': 'u', 'SCHILY.xattr.user.a': 'b'}})]), {b'x': b'12345'})
try:
    if os.listxattr('out/x') and set(os.listxattr('out/x')) - {'user.a'}:
        fail(f'attributes {os.listxattr("out/x")}')
except OSError:
    pass
broken = bytearray(tar([('p' * 150, b'x', {})]))
broken[512:520] = b'99999999'  # the length of the first pax record
refused(url(bytes(broken)), 'no whole tar archive')
two = tar([('size', b'x' * 1000, {'pax_headers': {'size': '1000'}}), ok])
accept(two, {b'size': b'x' * 1000, b'fine': b'fine'})


def sparse(size, real, pieces):
    """GNU sparse format 1.0: a map in front of the data."""
    head = b''.join(b'%d\n' % n for n in [len(pieces)] + [n for p in pieces for n in (p[0], len(p[1]))])
    body = head + bytes(-len(head) % 512) + b''.join(p[1] for p in pieces)
    return tar([(f'GNUSparseFile.1/f', body, {'pax_headers': {'GNU.sparse.major': '1', 'GNU.sparse.minor': '0', 'GNU.sparse.name': 'f',
                                                              'GNU.sparse.realsize': str(size)}})])


accept(sparse(30 << 20, 0, [(0, b'head'), (20 << 20, b'middle' * 100), ((30 << 20) - 4, b'tail')]),
       {b'f': b'head' + bytes((20 << 20) - 4) + b'middle' * 100 + bytes((10 << 20) - 604) + b'tail'})
if 'stored' not in create(url(sparse(1 << 40, 0, [(1 << 39, b'island')])), 'tera').stderr:  # 1 TiB of holes costs nothing
    fail('a terabyte of holes')
if json.loads(grid('datastore', '--json').stdout) and versions('tera')[('tera', 1)]['size_bytes'] != 1 << 40:
    fail('a terabyte is not one')
refused(url(sparse((8 << 60) - 1, 0, [(0, b'x')])), 'larger than 16 TiB')
refused(url(sparse(100, 0, [(50, b'x' * 100)])), '')

# ---- cut off, damaged, too much
whole = tar([('a', b'x' * 100000, {}), ('b', b'y' * 100000, {})])
refused(url(whole[:150000]), 'no whole tar archive')
refused(url(tar([('a', b'x' * 1024, {})], end=False)), 'no end mark')
accept(whole + bytes(100000), {b'a': b'x' * 100000, b'b': b'y' * 100000})
refused(url(whole + whole), 'goes on behind the end')
packed = lambda *c: subprocess.run([*c], input=whole, stdout=subprocess.PIPE, check=True).stdout
for tool, suffix in (('gzip', '.tar.gz'), ('zstd', '.tar.zst'), ('xz', '.tar.xz'), ('bzip2', '.tar.bz2')):
    data = packed(tool, '-c')
    refused(url(data[:len(data) - 6], suffix), 'is damaged' if tool == 'gzip' else '')
    flipped = bytearray(data)
    flipped[len(data) // 2] ^= 0x10
    refused(url(bytes(flipped), suffix), '')
    accept(data, {b'a': b'x' * 100000, b'b': b'y' * 100000}, suffix=suffix)
data = bytearray(packed('gzip', '-c'))
data[-6] ^= 1  # the checksum only
refused(url(bytes(data), '.tar.gz'), 'wrong checksum')
refused(url(packed('gzip', '-c') + b'more', '.tar.gz'), 'followed by something else')
accept(tar([(f'{i % 100}/{i}', b'', {}) for i in range(5000)]), {b'%d/%d' % (i % 100, i): b'' for i in range(5000)})
accept(tar([('/'.join('d' * 300), b'deep', {})]), {b'/'.join([b'd'] * 300): b'deep'})
accept(tar([]), {})

# ---- zip
accept(zipped([{'name': b'a/b', 'data': b'x' * 5000}, {'name': b'd/', 'method': 0}, {'name': b'run', 'data': b'#!', 'external': 0o100755 << 16},
               {'name': b'l', 'data': b'a/b', 'external': 0o120777 << 16}, {'name': b'e', 'data': b''},
               {'name': b'later', 'data': b'later' * 100, 'flags': 8, 'descriptor': True},
               {'name': b'later-stored', 'data': b'later' * 100, 'flags': 8, 'descriptor': True, 'method': 0},
               {'name': b'z64', 'data': b'z' * 100, 'size': 0xffffffff, 'packed': 0xffffffff, 'extra': struct.pack('<HHQQ', 1, 16, 100, len(deflate(b'z' * 100)))}]),
       {b'a/b': b'x' * 5000, b'run': b'#!', b'l': ('->', b'a/b'), b'e': b'', b'later': b'later' * 100, b'later-stored': b'later' * 100,
        b'z64': b'z' * 100}, suffix='.zip')
if not os.stat('out/run').st_mode & 0o111 or not os.path.isdir('out/d'):
    fail('modes or directories of a zip are lost')
accept(zipped([{'name': b'gr\x81n', 'data': b'1', 'host': 0}, {'name': 'grün2'.encode(), 'data': b'2', 'flags': 0x800, 'host': 0},
               {'name': 'grün3'.encode(), 'data': b'3', 'host': 0}, {'name': b'gr\xfcn', 'data': b'4'}, {'name': b'a\\b', 'data': b'5', 'host': 0},
               {'name': b'a\\c', 'data': b'6'}]),
       {'grün'.encode(): b'1', 'grün2'.encode(): b'2', 'grün3'.encode(): b'3', b'gr\xfcn': b'4', b'a/b': b'5', b'a\\c': b'6'}, 'no UTF-8', suffix='.zip')
accept(zipped([]), {}, suffix='.zip')
one = {'name': b'one', 'data': b'one' * 1000}
zip_refused([one, one], "'one'", 'twice')
zip_refused([one, {'name': b'../x', 'data': b'x'}], "'../x'", "'..'")
zip_refused([{'name': b'a\0b', 'data': b'x'}], 'NUL')
zip_refused([{'name': b'a', 'data': b'x'}, {'name': b'a/b', 'data': b'x'}], 'no directory')
zip_refused([{'name': b'l', 'data': b'/tmp', 'external': 0o120777 << 16}, {'name': b'l/b', 'data': b'x'}], 'no directory')
zip_refused([{**one, 'crc': 1}], "'one'", 'checksum')
zip_refused([{**one, 'size': 2999}], "'one'", 'size and checksum')
zip_refused([{**one, 'size': 3001}], "'one'", 'size and checksum')
zip_refused([{**one, 'raw': deflate(b'one' * 1000)[:-3]}], "'one'", 'size and checksum')
zip_refused([{**one, 'size': 1 << 30}], "'one'", 'lies about its size')
zip_refused([{**one, 'method': 0, 'size': 5}], 'two sizes')
zip_refused([{**one, 'flags': 1}], "'one'", 'encrypted')
zip_refused([{**one, 'method': 14}], 'method 14')
zip_refused([{**one, 'disk': 3}], 'another part')
zip_refused([{**one, 'local_name': b'two'}], "'one'", 'differs from the directory')
zip_refused([one, {**one, 'name': b'two', 'offset': 0}], 'over each other')
zip_refused([one, {**one, 'name': b'two', 'offset': 100000}], 'outside')
zip_refused([{'name': b'd/', 'data': b'x'}], 'directory with data')
zip_refused([one], 'several parts', end=struct.pack('<IHHHHIIH', 0x06054b50, 1, 1, 1, 1, 49, 46, 0))
zip_refused([one], 'is not where', end=struct.pack('<IHHHHIIH', 0x06054b50, 0, 0, 1, 1, 49, 0, 0))
good = zipped([one])
refused(url(b'#!/bin/sh\n' + good, '.zip'), 'no archive')
refused(url(good[:-10], '.zip'), 'has no end')
refused(url(good + b'junk', '.zip'), 'has no end')
fake = zipped([one], comment=struct.pack('<IHHHHIIH', 0x06054b50, 0, 0, 0, 0, 0, 0, 0))
refused(url(fake, '.zip'), 'several ends')
# The zip bomb: one kernel of data, and a thousand members that all lead to it.
zip_refused([{'name': b'kernel', 'data': bytes(1 << 20)}] + [{'name': b'%d' % i, 'data': bytes(1 << 20), 'offset': 0} for i in range(1000)], 'zip bomb')
# Much from little is no error: zeros are not stored.
p = accept(zipped([{'name': b'zeros', 'data': bytes(100 << 20)}]), {b'zeros': bytes(100 << 20)}, suffix='.zip')
# The same strictness where the server has no ranges.
refused(server.url('plain/' + server.put('bad.zip', zipped([{**one, 'crc': 1}]))), 'checksum')
refused(server.url('plain/' + server.put('bad2.zip', fake)), 'several ends')
server.stop()
