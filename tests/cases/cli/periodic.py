#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The cron line and the systemd units of docs/periodic.md work as they stand there, but for /data and the program's path; and
docs/creating.md has every way to create."""
import os, re, shlex, shutil, subprocess, sys

sys.path.insert(0, os.path.join(os.environ['TOP'], 'tests/lib'))
from gridtest import GRID, fail, grid


def page(name):
    with open(os.path.join(os.environ['TOP'], 'docs', name), encoding='utf-8') as f:
        return f.read()


def here(text):
    """The same for this machine; each place must be named."""
    for place in ('/data/images', '/data/grid', '/usr/local/bin/grid'):
        if place not in text:
            fail(f'{place} does not stand in: {text}')
    return text.replace('/data/', f'{os.getcwd()}/data/').replace('/usr/local/bin/grid', GRID)


def run_and_expect(version, command, env):
    """As cron and systemd do it: with nearly nothing in the environment."""
    env = dict({'HOME': os.environ['HOME'], 'PATH': '/usr/bin:/bin', 'LOGNAME': 'somebody'}, **env)
    p = subprocess.run(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if p.returncode or p.stdout != f'images:{version}\n':
        fail(f'{command}: {p.returncode} {p.stdout} {p.stderr}')


os.makedirs('data/images')
with open('data/images/a', 'w') as f:
    f.write('one')
periodic = page('periodic.md')

lines = re.findall(r'^```cron\n(.*?)^```', periodic, re.M | re.S)
if len(lines) != 1 or lines[0].count('\n') != 1 or '%' in lines[0]:
    fail(f'the cron line: {lines}')
m = re.fullmatch(r'(?:[0-9*/,-]+\s+){5}(.*)\n', lines[0])
if not m:
    fail(f'this is no line for cron: {lines[0]}')
run_and_expect(1, ['/bin/sh', '-c', here(m[1])], {})

units = re.findall(r'^`~/.config/systemd/user/([\w.-]+)`:\n\n```systemd\n(.*?)^```', periodic, re.M | re.S)
if sorted(name for name, _ in units) != ['grid-images.service', 'grid-images.timer']:
    fail(f'the units: {[name for name, _ in units]}')
service = here(dict(units)['grid-images.service'])
timer = dict(units)['grid-images.timer']
with open('data/images/b', 'w') as f:
    f.write('two')
environment = dict(line.split('=', 1) for line in re.findall(r'^Environment=(.*)$', service, re.M))
run_and_expect(2, shlex.split(re.search(r'^ExecStart=(.*)$', service, re.M)[1]), environment)
copy = grid('datastore', 'ls', 'images', env={'GRID_STORE': f'file://{os.getcwd()}/data/grid'}).stdout
if copy.split() != ['a', 'b']:
    fail(f'the second version has {copy}')

for name, text in (('grid-images.service', service), ('grid-images.timer', timer)):
    with open(name, 'w') as f:
        f.write(text)
if shutil.which('systemd-analyze'):
    p = subprocess.run(['systemd-analyze', 'verify', './grid-images.service', './grid-images.timer'], stdout=subprocess.PIPE,
                       stderr=subprocess.STDOUT, text=True)
    # What it finds in units of this machine is not ours.
    if p.returncode or 'grid-images' in p.stdout:
        fail(f'systemd-analyze: {p.stdout}')
else:
    print('systemd-analyze is not there: the units were only read')

creating = page('creating.md')
for command in ('export GRID_STORE=s3://team-data/grid', 'grid datastore create ./imagenet_folder --name imagenet',
                'grid datastore create s3://public-data/esRedditJson/', 'grid datastore create s3://private-data/images/ --no-copy',
                'grid datastore create https://host/subfolder/trainingSet.tar.gz', 'grid datastore create https://host/data.zip --name zipped'):
    if not re.search('^' + re.escape(command) + r'( +#.*)?$', creating, re.M):
        fail(f'docs/creating.md lacks: {command}')
