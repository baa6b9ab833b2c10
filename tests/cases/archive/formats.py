#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# timeout: 300
"""Every kind of archive, from servers with and without ranges: the version is what tar and unzip make of it. Names are
derived, large and sparse files come in pieces, nothing is kept that is secret."""
import os, sys
sys.path.insert(0, os.path.join(os.environ['TOP'], 'tests/lib'))
from archives import *

make_tree('tree', seed=3)
rnd = random.Random(4)
os.mkdir('big')
with open('big/large', 'wb') as f:  # random, so that its packed bytes are large, too
    f.write(rnd.randbytes(17 << 20))
with open('big/middling', 'wb') as f:
    f.write(b''.join(b'%d ' % i for i in range(2000000)))
with open('big/holes', 'wb') as f:
    f.truncate(50 << 20)
    f.seek(30 << 20)
    f.write(b'island' * 1000)
with open('big/small', 'wb') as f:
    f.write(b'small')
with open('tree/eight', 'wb') as f:
    f.write(b'x' * (8 << 20))
os.chmod('tree/eight', 0o755)
os.mkdir('tree/empty')
with_xattrs = True
try:
    os.setxattr('tree/eight', 'user.origin', b'here')
    os.setxattr('tree/eight', 'user.a', b'')
except OSError:
    with_xattrs = False
server = Server()
run = lambda *a, **k: subprocess.run(a, check=True, **k)
run('tar', '-C', 'tree', '--sparse', '--xattrs', '--format=posix', '-cf', 'www/a.tar', '.')
run('tar', '-C', 'tree', '--sparse', '--format=gnu', '-cf', 'www/gnu.tar', '.')
run('gzip', '-k', 'www/a.tar')
run('cp', 'www/a.tar.gz', 'www/trainingSet.tgz')
run('zstd', '-q', '-k', 'www/a.tar')
run('xz', '-k', '-0', 'www/a.tar')
run('bzip2', '-k', '-1', 'www/gnu.tar')
run('zip', '-qry', '../www/a.zip', '.', cwd='tree')
run('zip', '-qry', '-1', '../www/big.zip', '.', cwd='big')
run('tar', '-C', 'big', '--sparse', '-cf', 'www/big.tar', '.')
run('gzip', '-1', '-k', 'www/big.tar')
run('zip', '-qry', '-0', '../www/stored.zip', '.', cwd='tree')
# Data descriptors, zip64. Not all of zip's builds stream symbolic links, which they do not compress.
no_links = sorted(os.path.join(t, n) for t, ds, ns in os.walk(b'tree') for n in ds + ns if not os.path.islink(os.path.join(t, n)))
with open('www/streamed.zip', 'wb') as f:
    run('zip', '-q', '-fd', '-', *[b'.' + n.removeprefix(b'tree') for n in no_links], cwd='tree', stdout=f)
with open('www/twice.tar.gz', 'wb') as f:  # gzip in several members, and padding
    data = open('www/a.tar', 'rb').read()
    f.write(subprocess.run(['gzip', '-1'], input=data[:1000001], stdout=subprocess.PIPE, check=True).stdout)
    f.write(subprocess.run(['gzip', '-1'], input=data[1000001:], stdout=subprocess.PIPE, check=True).stdout + bytes(1000))


def no_ns(rows):
    """zip and old tar keep seconds only, zip no hard links and not all times."""
    return {k: (v[0], v[1], None, v[3], None) for k, v in rows.items()}


def compare(found, want, what, is_zip):
    if is_zip:
        found, want = no_ns(found), no_ns(want)
    same(found, want, what, ignore_times_of_links=is_zip)


# Fractions of seconds before 1970 are not kept.
wanted = {k: v if v[2] >= 0 else v[:2] + (-(-v[2] // 10**9 * 10**9),) + v[3:] for k, v in snapshot('tree').items()}
for file in 'a.tar', 'a.tar.gz', 'a.tar.zst', 'a.tar.xz', 'gnu.tar.bz2', 'twice.tar.gz', 'a.zip', 'stored.zip', 'streamed.zip':
    create(server.url('range/' + file), 'x')
    want = {k: v for k, v in wanted.items() if v[0] != 'link'} if file == 'streamed.zip' else wanted
    compare(exported('x'), want, file, '.zip' in file or 'gnu' in file)
    print('unpacked', file, flush=True)
for file in 'big.tar.gz', 'big.zip':
    for how in 'range', 'plain':
        create(server.url(f'{how}/{file}'), 'b')
        compare(exported('b'), snapshot('big'), file, True)
if with_xattrs:
    create(server.url('range/a.tar'), 'attributes')
    exported('attributes')
    if os.getxattr('out/eight', 'user.origin') != b'here' or os.getxattr('out/eight', 'user.a') != b'':
        fail('the attributes of a file are lost')

# Servers differ; what is published does not.
ranged = [r for r in server.requests('range/a.tar') if r['range'] != 'bytes=0-0']
if len(ranged) < 5 or not all(r['match'] for r in ranged):
    fail(f'no pinned ranges were asked for: {ranged[:3]}')
for how in 'plain', 'chunked', 'nopin', 'time', 'weak', 'cut/1000000', 'busy/2':
    for file in 'a.tar', 'a.zip':
        p = create(server.url(f'{how}/{file}'), 'y')
        compare(exported('y'), wanted, f'{how} {file}', '.zip' in file)
    print('unpacked from', how)
if not any(r['range'] != 'bytes=0-0' and r['path'].startswith('/cut') for r in server.requests('/cut/')):
    fail('nothing was cut')

# What is said: name, source, counts.
p = grid('datastore', 'create', server.url('range/trainingSet.tgz?X-Amz-Signature=SECRET1#part', user='me:SECRET2@'), '--json')
row = json.loads(p.stdout)
if row['name'] != 'trainingset' or row['source'] != server.url('range/trainingSet.tgz') or row['kind'] != 'copy':
    fail(f'told is {row}')
if row['files'] != sum(1 for v in wanted.values() if v[0] == 'file') - sum(1 for k, v in wanted.items() if v[4] not in (None, k)):
    fail(f'{row["files"]} files')
asked = server.requests('SECRET1')
if not asked or 'SECRET2' in json.dumps(asked) or not all(r['authorization'] for r in asked):
    fail('query and password did not go to the server')
if subprocess.run(['grep', '-rlaE', 'SECRET[12]', os.environ['HOME'], *[os.environ[k] for k in os.environ if k.startswith('XDG_')]],
                  stdout=subprocess.PIPE).stdout or 'SECRET' in p.stderr:
    fail('a secret was kept or shown')

# A local archive is a file like any other.
grid('datastore', 'create', 'www/a.zip', '--name', 'plain')
if list(exported('plain')) != [b'a.zip']:
    fail('a local archive was unpacked')
for args, words in ((('http://h/x.7z',), ('.zip', '.tar.bz2')), (('http://h/data/',), ('.tar.gz',)),
                    ((server.url('range/a.zip'), '--no-copy'), ('--no-copy',))):
    p = grid('datastore', 'create', *args, check=False)
    if p.returncode != 2 or not all(w in p.stderr for w in words):
        fail(f'{args}: {p.returncode} {p.stderr}')
server.stop()
