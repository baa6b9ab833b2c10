#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""grid datastore stats: what a mount read from where; counted on over a server that is killed; a store that goes away and
comes back is a line in the log each."""
import json, os, signal, sys, threading, time
sys.path.insert(0, os.path.join(os.environ['TOP'], 'tests/lib'))
from gridtest import *
from bucket import Bucket

if not os.access('/dev/fuse', os.R_OK | os.W_OK):
    skip('there is no /dev/fuse')
MIB = 1 << 20
here = os.getcwd()
env = {'GRID_CACHE': here + '/cache', 'GRID_RUNTIME_DIR': here + '/run', 'GRID_SERVER_IDLE': '0'}
os.makedirs('source')
for i in range(12):
    with open(f'source/f{i:02}', 'wb') as f:
        f.write(random.Random(i).randbytes(MIB))
os.makedirs('mnt')


def read(*numbers):
    for i in numbers:
        with open(f'mnt/f{i:02}', 'rb') as f:
            if f.read() != random.Random(i).randbytes(MIB):
                fail(f'f{i:02} is not what it was')


def stats():
    return json.loads(grid('datastore', 'stats', '--json', env=env).stdout)


def figures():
    time.sleep(1.3)
    mounts = stats()['mounts']
    if len(mounts) != 1 or mounts[0]['name'] != 'x' or mounts[0]['mountpoint'] != here + '/mnt' or not mounts[0]['figures']:
        fail(f'stats: {mounts}')
    return mounts[0]['figures']


def log_lines(words):
    with open(here + '/run/log/x-1.log') as f:
        return [line for line in f if words in line]


def wait_for(what, look):
    until = time.monotonic() + 60
    while not look():
        if time.monotonic() > until:
            fail(f'{what}: {open(here + "/run/log/x-1.log").read()}')
        time.sleep(0.2)


def child_of(server):
    with open(f'/proc/{server}/task/{server}/children') as f:
        children = f.read().split()
    return int(children[0]) if children else 0  # none between two of them


with Bucket('bucket') as b:
    env.update(b.env)
    port = b.port
    grid('datastore', 'create', 'source', '--name', 'x', env=env)
    grid('datastore', 'mount', 'x', 'mnt', '--mode', 'fuse', '--prefetch', 'none', env=env)
    read(0, 1, 2, 3)
    first = figures()
    if first['bytes']['store'] < 4 * MIB or first['misses'] < 1 or first['gets'] < 1 or first['restarts'] or first['latency_ms']['median'] is None:
        fail(f'after four files: {first}')
    if not 0 < first['memory_bytes'] <= first['memory_limit_bytes'] or not first['has_cache'] or first['latency_ms']['p99'] < first['latency_ms']['median']:
        fail(f'after four files: {first}')
    text = grid('datastore', 'stats', env=env)
    if 'x:1' not in text.stdout or 'Stalled' not in text.stdout:
        fail(f'stats: {text.stdout}')

    # The server is killed: the next one counts on, and has from the disk what was fetched.
    server = stats()['mounts'][0]['server']
    child = child_of(server)
    os.kill(child, signal.SIGKILL)
    wait_for('another server', lambda: child_of(server) not in (0, child))
    for i in range(4):  # out of the kernel's page cache, where we may
        fd = os.open(f'mnt/f{i:02}', os.O_RDONLY)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(fd)
    read(0, 1, 2, 3, 4)
    second = figures()
    if second['restarts'] != 1 or second['bytes']['store'] < first['bytes']['store'] + MIB // 2 or second['gets'] <= first['gets']:
        fail(f'behind the kill: {second}, before it: {first}')
    if second['bytes']['cache'] < 3 * MIB:
        fail(f'the cache was not used: {second}')

    # The store goes away: readers wait, and are counted; it comes back, and all is well.
    b.stop()
    reader = threading.Thread(target=read, args=(8,))
    reader.start()
    wait_for('a line in the log', lambda: log_lines('does not answer, reads wait'))
    waiting = figures()
    if not waiting['store_failing']:
        fail(f'the store is gone: {waiting}')
with Bucket('bucket', port=port) as b:
    wait_for('a line in the log', lambda: log_lines('answers again'))
    reader.join(60)
    last = figures()
    if reader.is_alive() or last['store_failing'] or last['stalls'] <= first['stalls'] or last['stall_seconds'] < 1:
        fail(f'the store is back: {last}')
    if len(log_lines('does not answer')) != 1 or len(log_lines('answers again')) != 1:
        fail(f'more than one line for a change: {open(here + "/run/log/x-1.log").read()}')
    print(f'readers stood for {last["stall_seconds"]:.1f} s; {last["gets"]} gets, median {last["latency_ms"]["median"]:.1f} ms')
    grid('datastore', 'unmount', 'mnt', env=env)
    wait_for('figures to be removed', lambda: not stats()['mounts'] and not [n for n in os.listdir(here + '/run/mounts') if n.startswith('.f-')])
