#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The cache's disk without inodes, read-only, and failing with EIO under a live mount: reads are right, one line in the log
when it begins and one when it is over."""
import json, os, subprocess, sys, time
sys.path.insert(0, os.path.join(os.environ['TOP'], 'tests/lib'))
from gridtest import *
from bucket import Bucket

need_root()
if not os.access('/dev/fuse', os.R_OK | os.W_OK):
    skip('there is no /dev/fuse')
MIB = 1 << 20
here = os.getcwd()
env = {'GRID_CACHE': here + '/cache', 'GRID_RUNTIME_DIR': here + '/run', 'GRID_CACHE_SIZE': '200M', 'GRID_SERVER_IDLE': '0'}
os.makedirs('source')
for i in range(16):
    with open(f'source/f{i:02}', 'wb') as f:
        f.write(random.Random(i).randbytes(2 * MIB))
os.makedirs('mnt')


def read(*numbers):
    for i in numbers:
        with open(f'mnt/f{i:02}', 'rb') as f:
            if f.read() != random.Random(i).randbytes(2 * MIB):
                fail(f'f{i:02} is not what it was')


def log_lines(words):
    with open(here + '/run/log/x-1.log') as f:
        return [line for line in f if words in line]


def wait_for(what, look):
    until = time.monotonic() + 90
    while not look():
        if time.monotonic() > until:
            fail(f'{what}: {open(here + "/run/log/x-1.log").read()}')
        time.sleep(0.2)


def is_gone(pid):
    try:
        with open(f'/proc/{pid}/stat') as f:
            return f.read().rsplit(')', 1)[1].split()[0] == 'Z'
    except OSError:
        return True


def mounted():
    grid('datastore', 'mount', 'x', 'mnt', '--mode', 'fuse', '--prefetch', 'none', env=env)


def unmounted():
    server = json.loads(grid('datastore', 'stats', '--json', env=env).stdout)['mounts'][0]['server']
    grid('datastore', 'unmount', 'mnt', env=env)
    wait_for('its server to end', lambda: is_gone(server))  # it has files of the cache open
    os.unlink(here + '/run/log/x-1.log')


def failed_once(what):
    wait_for(what + ' is in the log', lambda: log_lines('the cache on disk fails'))
    figures = json.loads(grid('datastore', 'stats', '--json', env=env).stdout)['mounts'][0]['figures']
    if not figures['cache_failing']:
        fail(f'{what}: stats say {figures}')


with Bucket('bucket') as b:
    env.update(b.env)
    grid('datastore', 'create', 'source', '--name', 'x', env=dict(env, GRID_CACHE=here + '/state'))

    # No inode for another file.
    os.makedirs('cache')
    subprocess.run(['mount', '-t', 'tmpfs', '-o', 'size=100m,nr_inodes=4', 'cache', 'cache'], check=True)
    try:
        mounted()
        read(*range(4))
        failed_once('a disk without inodes')
        subprocess.run(['mount', '-o', 'remount,nr_inodes=1000', 'cache'], check=True)
        n = iter(range(4, 16))
        wait_for('well again', lambda: (read(next(n, 15)), time.sleep(1), log_lines('well again'))[2])
        if len(log_lines('the cache on disk fails')) != 1:
            fail(f'more than one line: {log_lines("cache")}')
        unmounted()

        # Read-only: what is there is read, what is not comes from the store.
        subprocess.run(['mount', '-o', 'remount,ro', 'cache'], check=True)
        mounted()
        read(*range(16))
        failed_once('a read-only disk')
        unmounted()
    finally:
        subprocess.run(['umount', '-l', 'cache'], check=True)

    # A disk that fails: nothing of it can be read or written any more.
    fs = LoopFs('ext4', here + '/cache', size=100 * MIB)
    try:
        mounted()
        read(*range(4))
        cells = [os.path.join(t, n) for t, _, ns in os.walk('cache/packs') for n in ns if len(n) == 64]
        if not cells:
            fail('nothing is in the cache')
        fd = os.open(fs.at, os.O_RDONLY)
        fcntl.ioctl(fd, 0x8004587D, struct.pack('I', 2))
        os.close(fd)
        try:
            os.mkdir(fs.at + '/proof')
            fail('the disk does not fail')
        except OSError as e:
            print(f'the disk gives: {e}')
        read(*range(16))
        failed_once('a failing disk')
        read(*range(16))
        unmounted()
        # The power fails: what was prefetched was synced, and is still there; of the rest, no byte is wrong.
        fs.umount()
        fs.mount()
        grid('datastore', 'prefetch', 'x', env=env)
        fs.cut_power()
        p = json.loads(grid('datastore', 'prefetch', 'x', '--json', env=env).stdout)
        if p['fetched_bytes'] > MIB:
            fail(f'what was settled did not outlive the power: {p}')
        grid('datastore', 'prefetch', '--drop', env=env)
        mounted()
        read(*range(8))
        unmounted()
        fs.cut_power()
        mounted()
        read(*range(16))
        unmounted()
    finally:
        fs.umount()
