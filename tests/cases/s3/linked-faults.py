#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# timeout: 200
"""A linked version whose source is not what it was, or whose server does wrong: made from the objects of `unchanged`, then read
and verified with each tests/fake-s3-linked/SYMPTOM.json (tests/lib/fake-s3.py says what stands in them; "cat" and "verify" of
"expect": the exit code and words of standard error). Never a wrong byte, and a sentence that names the object."""
import glob, json, os, subprocess, sys, urllib.request

sys.path.insert(0, os.path.join(os.environ['TOP'], 'tests/lib'))
from gridtest import GRID, fail, grid

SCENARIOS = os.path.join(os.environ['TOP'], 'tests/fake-s3-linked')
fake = subprocess.Popen([sys.executable, os.path.join(os.environ['TOP'], 'tests/lib/fake-s3.py'), SCENARIOS], stdin=subprocess.PIPE,
                        stdout=subprocess.PIPE, text=True)
url = f'http://127.0.0.1:{fake.stdout.readline().strip()}'
env = {'AWS_ENDPOINT_URL': url, 'AWS_REGION': 'us-east-1', 'AWS_ACCESS_KEY_ID': 'key', 'AWS_SECRET_ACCESS_KEY': 'secret',
       'GRID_STORE': f'file://{os.getcwd()}/store', 'GRID_CACHE': f'{os.getcwd()}/cache'}


def tell(path, text=''):
    return urllib.request.urlopen(urllib.request.Request(url + path, text.encode(), method='POST')).read().decode()


def content(value):
    return value.encode() if isinstance(value, str) else bytes((i * 7 + i // 251) & 255 for i in range(value))


def scenario(name):
    tell('/_scenario', name)
    with open(os.path.join(SCENARIOS, name + '.json')) as f:
        return json.load(f)


linked = {k[4:]: content(v) for k, v in scenario('unchanged')['objects'].items()}
p = grid('datastore', 'create', 's3://b/p/', '--no-copy', '--name', 'x', env=env)
if p.stdout != 'x:1\n' or 'linked and not copied' not in p.stderr:
    fail(f'create: {p.stdout} {p.stderr}')


def expect_exit(what, p, want):
    code, words = want
    if p.returncode != code or words not in (p.stderr if isinstance(p.stderr, str) else p.stderr.decode()):
        fail(f'{what}: exit code {p.returncode}, {p.stderr}')


def check(name):
    expect = scenario(name)['expect']
    for path, want in expect['cat'].items():
        p = subprocess.run([GRID, 'datastore', 'cat', f'x/{path}'], env=dict(os.environ, **env), capture_output=True)
        expect_exit(f'{name}: cat {path}', p, want)
        if p.stdout != (b'' if want[0] else linked[path]):
            fail(f'{name}: cat {path} gives {len(p.stdout)} bytes that are not what was linked')
        if want[0] and f's3://b/p/{path}' not in p.stderr.decode():
            fail(f'{name}: the log does not name the object: {p.stderr.decode()}')
    if expect['cat'] and (verdict := tell('/_verdict')) != 'ok' and expect.get('skip_verify'):
        fail(f'{name}: {verdict}')
    if expect.get('skip_verify'):
        return
    p = grid('datastore', 'verify', 'x', env=env, check=False)
    expect_exit(f'{name}: verify', p, expect['verify'])
    told = [line for line in p.stdout.splitlines() if 'is good' not in line]
    if expect['drifted'] is not None and told != expect['drifted']:
        fail(f'{name}: verify names {told}')
    if (verdict := tell('/_verdict')) != 'ok':
        fail(f'{name}: {verdict}')


names = sorted(os.path.basename(f)[:-5] for f in glob.glob(SCENARIOS + '/*.json'))
for each in names:
    check(each)

# Nobody is there at all: no answer, no bytes, a sentence.
fake.stdin.close()
fake.wait()
p = grid('datastore', 'verify', 'x', env=dict(env, AWS_MAX_ATTEMPTS='1'), check=False)
expect_exit('nobody there: verify', p, [1, 'cannot compare x:1 with its source'])
print(f'{len(names)} scenarios')
