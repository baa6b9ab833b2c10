#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""grid datastore prefetch: everything or paths, again, interrupted, without room, of a local store; --drop; and stats."""
import json, os, signal, subprocess, sys, time
sys.path.insert(0, os.path.join(os.environ['TOP'], 'tests/lib'))
from gridtest import *
from bucket import Bucket

MIB = 1 << 20
cache = os.path.join(os.getcwd(), 'cache')
source = make_tree('source', seed=3)
os.makedirs('source/part')
for i in range(24):
    with open(f'source/part/f{i:02}', 'wb') as f:
        f.write(random.Random(i).randbytes(2 * MIB))


def cells():
    """{path: bytes on the disk} of what is in the cache."""
    out = {}
    for top, _, names in os.walk(cache + '/packs'):
        out.update({os.path.join(top, n): os.stat(os.path.join(top, n)).st_blocks * 512 for n in names if len(n) == 64})
    return out


def prefetch(*args, **more):
    return json.loads(grid('datastore', 'prefetch', *args, '--json', env=env, **more).stdout)


with Bucket('bucket') as b:
    env = dict(b.env, GRID_CACHE=cache)
    grid('datastore', 'create', 'source', '--name', 'x', env=env)
    if cells():
        fail('create has left data in the cache')

    # Paths, then everything, then again.
    p = grid('datastore', 'prefetch', 'x', 'part/f03', 'part/f04', env=env)
    if '2 files of x:1, 4.0 MiB, are in the cache' not in p.stderr:
        fail(f'two paths: {p.stderr}')
    if not 4 * MIB <= sum(cells().values()) < 12 * MIB:
        fail(f'two paths take {cells()}')
    first = prefetch('x')
    if first['files'] < 24 or first['size_bytes'] < 48 * MIB or first['fetched_bytes'] < 40 * MIB:
        fail(f'all: {first}')
    again = prefetch('x')
    if again['fetched_bytes'] > MIB or again['size_bytes'] != first['size_bytes']:
        fail(f'again: {again}')
    cached = json.loads(grid('datastore', 'stats', '--json', env=env).stdout)['cache']
    if cached['objects'] != len(cells()) or abs(cached['used_bytes'] - sum(cells().values())) > MIB:
        fail(f'stats say {cached}, there is {cells()}')
    text = grid('datastore', 'stats', env=env)
    if 'nothing is mounted' not in text.stderr or f'Cache {cache}: ' not in text.stdout:
        fail(f'stats: {text}')
    same(snapshot('source'), snapshot(grid('datastore', 'export', 'x', 'copy', env=env) and 'copy'), 'source and export')

    # Bad input, no room, and out again.
    for args, code, words in ((('x', 'no/such'), 1, 'x:1/no/such: No such file'), ((), 2, 'NAME'), (('nobody',), 1, 'nobody'),
                              (('x', '--cache-size', '1'), 2, 'a size from 16M'), (('--drop', 'x', 'part'), 2, 'whole version'),
                              (('x', '--cache-size', 'none'), 1, 'switched off'),
                              (('x', '--cache-size', '16M'), 1, 'may take 16.0 MiB')):
        p = grid('datastore', 'prefetch', *args, env=env, check=False)
        if p.returncode != code or words not in p.stderr or len(p.stderr.splitlines()) > 2:
            fail(f'prefetch {args}: {p.returncode}, {p.stderr}')
    p = grid('datastore', 'prefetch', 'x', env=dict(env, GRID_CACHE_SIZE='16M'), check=False)
    if p.returncode != 1 or '16.0 MiB' not in p.stderr or 'GRID_CACHE_SIZE' not in p.stderr:
        fail(f'no room: {p.stderr}')
    p = grid('datastore', 'prefetch', 'x', env=dict(env, GRID_CACHE_SIZE='much'), check=False)
    if p.returncode != 1 or "not 'much'" not in p.stderr:
        fail(f'GRID_CACHE_SIZE=much: {p.stderr}')
    freed = json.loads(grid('datastore', 'prefetch', '--drop', 'x', '--json', env=env).stdout)
    if freed['freed_bytes'] < 40 * MIB or len(cells()) > 1: # the index may have been read again on the way
        fail(f'drop: {freed}, there is {cells()}')
    grid('datastore', 'prefetch', 'x', 'part', env=env)
    grid('datastore', 'prefetch', '--drop', env=env)
    if cells():
        fail(f'drop everything: there is {cells()}')

# Ctrl-C: what was fetched stays, and the next call fetches the rest.
with Bucket('bucket', '--rate-mb', '0.5') as b:
    env = dict(b.env, GRID_CACHE=cache)
    p = subprocess.Popen([os.environ['GRID'], 'datastore', 'prefetch', 'x'], env=dict(os.environ, **env), stderr=subprocess.PIPE, text=True)
    until = time.monotonic() + 60
    while sum(cells().values()) < 2 * MIB and p.poll() is None and time.monotonic() < until:
        time.sleep(0.02)
    p.send_signal(signal.SIGINT)
    words = p.stderr.read()
    if p.wait() != 130 or 'the same command goes on' not in words:
        fail(f'interrupted: {p.returncode}, {words}')
    had = sum(cells().values())
with Bucket('bucket') as b:
    env = dict(b.env, GRID_CACHE=cache)
    rest = prefetch('x')
    # Pieces under way are read in whole segments, so a little of what is there may come again.
    if not 0 < rest['fetched_bytes'] < first['fetched_bytes'] - had / 2:
        fail(f'{had} bytes were there, and {rest["fetched_bytes"]} of {first["fetched_bytes"]} were fetched')
    print(f'interrupted with {had >> 20} MiB in the cache; {rest["fetched_bytes"] >> 20} MiB came with the second call')

    # A store on this disk needs none.
    env = {'GRID_STORE': f'file://{os.getcwd()}/store', 'GRID_CACHE': cache + '2'}
    grid('datastore', 'create', 'source/part', '--name', 'y', env=env)
    p = grid('datastore', 'prefetch', 'y', env=env)
    if 'nothing to fetch' not in p.stderr or os.path.exists(cache + '2/packs'):
        fail(f'local store: {p.stderr}')
