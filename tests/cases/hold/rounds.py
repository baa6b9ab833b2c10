#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Round trips that wait for one another, counted in the log of a bucket that answers late: from the command to the first byte at
most six with the lease, eight where it lies deep; a deletion that nobody is in the way of takes at most five. Late enough that
requests which are sent together overlap also on a busy machine; the best of three counts."""
# timeout: 240
import os, re, sys
sys.path.insert(0, os.path.join(os.environ['TOP'], 'tests/lib'))
sys.path.insert(0, os.path.join(os.environ['TOP'], 'bench/scenarios'))
from gridtest import *
from bucket import Bucket
from rounds import longest_chain, read_log

if not os.access('/dev/fuse', os.R_OK | os.W_OK):
    skip('there is no /dev/fuse')
here = os.getcwd()
deep = 'a/b/c/d/e/f'
for i in range(300):
    os.makedirs(f'source/d{i % 30:02}', exist_ok=True)
    with open(f'source/d{i % 30:02}/f{i:03}', 'wb') as f:
        f.write(random.Random(i).randbytes(20000))
os.makedirs(f'source/{deep}')
with open(f'source/{deep}/leaf', 'wb') as f:
    f.write(b'deep down')
with Bucket('bucket') as b:
    grid('datastore', 'create', 'source', '--name', 'x', env=b.env)
    grid('datastore', 'create', 'source', '--name', 'y', env=b.env)


def measure(number, run, last):
    """The longest chain of requests while run(env) runs, with a server of its own and nothing known here; up to the request `last`."""
    place = f'{here}/try{number}'
    os.makedirs(place)
    env = {'GRID_CACHE': place + '/cache', 'GRID_RUNTIME_DIR': place + '/run', 'GRID_SERVER_IDLE': '0'}
    with Bucket('bucket', '--delay-ms', '200', '--log', place + '/log') as b:
        env.update(b.env)
        after = run(env)
        with open(place + '/log') as f:
            lines = f.read()  # what comes later is not counted
        if after:
            after()
    with open(place + '/log', 'w') as f:
        f.write(lines)
    log = read_log(place + '/log')
    ends = [gone for _, gone, request in log if last and re.search(last, request)]
    if last and not ends:
        fail(f'no request like {last} was made')
    return longest_chain([row for row in log if not last or row[1] <= ends[0]])


count = 0


def check(what, most, run, last=None):
    global count
    best = None
    for _ in range(3):
        count += 1
        chain = measure(count, run, last)
        best = chain if best is None or len(chain) < len(best) else best
        if len(best) <= most:
            break
    text = '\n'.join(f'  {line[2]}' for line in best)
    if len(best) > most:
        fail(f'{what}: {len(best)} round trips, one after the other, and {most} at most were wanted:\n{text}')
    if len(best) < 3:
        fail(f'{what}: {len(best)} round trips cannot be all:\n{text}')
    print(f'{what}: {len(best)} round trips')


def first_byte(mode, path, want):
    def run(env):
        os.makedirs('mnt', exist_ok=True)
        grid('datastore', 'mount', 'x', 'mnt', '--mode', mode, env=env)
        os.listdir('mnt')
        with open(f'mnt/{path}', 'rb') as f:
            if f.read(1) != want:
                fail(f'{mode}: {path} begins with another byte')
        return lambda: grid('datastore', 'unmount', 'mnt', env=env)
    return run


begin = random.Random(0).randbytes(20000)[:1]
modes = ['fuse'] + (['native'] if os.geteuid() == 0 and os.path.exists('/sys/fs/erofs') else [])
for mode in modes:
    check(f'{mode}: command to first byte', 6, first_byte(mode, 'd00/f000', begin))
    check(f'{mode}: deep down', 8, first_byte(mode, f'{deep}/leaf', b'd'))
versions = iter(range(1, 4))


def delete(env):
    grid('datastore', 'delete', '--name', 'y', '--version', str(next(versions)), '--yes', env=env)


with Bucket('bucket') as b:  # one for each try
    grid('datastore', 'create', 'source', '--name', 'y', env=b.env)
    grid('datastore', 'create', 'source', '--name', 'y', env=b.env)
# Its result decides; what it frees is collected behind.
check('deletion', 5, delete, r'^PUT .*/d/000001/r$')
