#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Mode local on what was prefetched from a bucket: refused before, then the kernel reads the cache's files; they stay while it does."""
import json, os, sys
sys.path.insert(0, os.path.join(os.environ['TOP'], 'tests/lib'))
from gridtest import *
from bucket import Bucket

need_root()
if not os.access('/dev/fuse', os.R_OK | os.W_OK):
    skip('there is no /dev/fuse')
here = os.getcwd()
env = {'GRID_CACHE': here + '/cache', 'GRID_RUNTIME_DIR': here + '/run', 'GRID_SERVER_IDLE': '0'}
source = make_tree('source', seed=9)
wanted = snapshot(source)
os.makedirs('mnt')


def mount(check=True):
    return grid('datastore', 'mount', 'x', 'mnt', '--mode', 'local', env=env, check=check)


with Bucket('bucket') as b:
    env.update(b.env)
    grid('datastore', 'create', 'source', '--name', 'x', env=env)
    p = mount(check=False)
    if p.returncode != 1 or len(p.stderr.splitlines()) != 1:
        fail(f'nothing is prefetched: {p.returncode}, {p.stderr}')
    if 'not all on a disk of this machine' not in p.stderr:
        skip(f'this kernel does not mount our images: {p.stderr}')
    grid('datastore', 'prefetch', 'x', env=env)
    mount()
    row = json.loads(grid('datastore', 'mounts', '--json', env=env).stdout)[0]
    if row['mode'] != 'local':
        fail(f'mounted as {row}')
    # What the kernel stands on is not dropped.
    p = json.loads(grid('datastore', 'prefetch', '--drop', 'x', '--json', env=env).stdout)
    if p['pinned_objects'] < 1:
        fail(f'dropped under a mount: {p}')
    grid('datastore', 'prefetch', '--drop', env=env)
    with open('/proc/sys/vm/drop_caches', 'w') as f:
        f.write('3')
    same(wanted, snapshot('mnt'), 'source and mount')
    grid('datastore', 'unmount', 'mnt', env=env)
    print('the kernel read the files of the cache, and they stayed')
