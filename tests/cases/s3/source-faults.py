#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# timeout: 200
"""Creating from a bucket whose server does wrong: one run for each tests/fake-s3-source/SYMPTOM.json (tests/lib/fake-s3.py says
what stands in them). Never a wrong version, nothing visible after a failure, and a sentence that names what it is about."""
import glob, json, os, signal, subprocess, sys, time, urllib.request

sys.path.insert(0, os.path.join(os.environ['TOP'], 'tests/lib'))
from gridtest import fail, grid, versions

SCENARIOS = os.path.join(os.environ['TOP'], 'tests/fake-s3-source')
fake = subprocess.Popen([sys.executable, os.path.join(os.environ['TOP'], 'tests/lib/fake-s3.py'), SCENARIOS], stdin=subprocess.PIPE,
                        stdout=subprocess.PIPE, text=True)
url = f'http://127.0.0.1:{fake.stdout.readline().strip()}'


def tell(path, text=''):
    return urllib.request.urlopen(urllib.request.Request(url + path, text.encode(), method='POST')).read().decode()


def pattern(size):
    whole = bytes((i * 7 + i // 251) & 255 for i in range(min(size, 251 * 256)))
    return (whole * (size // (251 * 256) + 1))[:size]


def check(name):
    with open(os.path.join(SCENARIOS, name + '.json')) as f:
        expect = json.load(f)['expect']
    env = {'AWS_ENDPOINT_URL': url, 'AWS_REGION': 'us-east-1', 'AWS_ACCESS_KEY_ID': 'key', 'AWS_SECRET_ACCESS_KEY': 'secret',
           'GRID_STORE': f'file://{os.getcwd()}/store-{name}', 'GRID_CACHE': f'{os.getcwd()}/cache-{name}'}
    tell('/_scenario', name)
    p = grid('datastore', 'create', 's3://b/p/', '--name', 'x', env=env, check=False)
    fired = tell('/_verdict')
    if fired != 'ok':
        fail(f'{name}: {fired}')
    if p.returncode != expect['exit'] or expect['words'] not in p.stderr:
        fail(f'{name}: exit code {p.returncode}, {p.stderr}')
    if p.returncode:
        if not os.path.exists(f'store-{name}'):
            return
        if [v for v in versions(env=env).values() if v['status'] == 'succeeded']:
            fail(f'{name}: something is visible')
        return
    grid('datastore', 'export', 'x', f'copy-{name}', env=env)

    def read(path):
        with open(f'copy-{name}/{path}', 'rb') as f:
            return f.read()
    for path, text in expect.get('files', {}).items():
        if read(path) != text.encode():
            fail(f'{name}: {path} holds {read(path)[:100]}')
    for path, size in expect.get('sizes', {}).items():
        if read(path) not in (pattern(size), pattern(size + 1)[1:]):
            fail(f'{name}: {path} is neither the one nor the other')
    if 'shifted' in expect and read(expect['shifted']) != pattern(os.path.getsize(f'copy-{name}/{expect["shifted"]}') + 1)[1:]:
        fail(f'{name}: a mixture of two objects')
    count = sum(len(files) for _, _, files in os.walk(f'copy-{name}'))
    if count != expect.get('count', count):
        fail(f'{name}: {count} files')


names = sorted(os.path.basename(f)[:-5] for f in glob.glob(SCENARIOS + '/*.json') if not f.endswith('/stalls.json'))
for each in names:
    start = time.monotonic()
    check(each)
    print(f'{each}: {time.monotonic() - start:.1f} s', flush=True)

# A signal while it lists: nothing was made, and the exit code says which signal it was.
tell('/_scenario', 'stalls')
env = {'AWS_ENDPOINT_URL': url, 'AWS_REGION': 'us-east-1', 'AWS_ACCESS_KEY_ID': 'key', 'AWS_SECRET_ACCESS_KEY': 'secret',
       'GRID_STORE': f'file://{os.getcwd()}/store-stalls'}
p = subprocess.Popen([os.environ['GRID'], 'datastore', 'create', 's3://b/p/', '--name', 'x'], env=dict(os.environ, **env),
                     stderr=subprocess.PIPE, text=True)
while 'GET' not in tell('/_requests'):
    time.sleep(0.01)
p.send_signal(signal.SIGTERM)
said = p.communicate()[1]
if p.returncode != 128 + signal.SIGTERM or said != 'grid: interrupted\n' or os.path.exists('store-stalls'):
    fail(f'interrupted: {p.returncode} {said}')
fake.stdin.close()
fake.wait()
print(f'{len(names)} scenarios')
