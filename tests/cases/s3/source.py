#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# timeout: 300
"""Creating from a bucket on a real server: many small objects and a large one, every odd key of docs/sources.md, again unchanged
(nothing is read), one changed, killed and resumed, at another endpoint and as another user, and what is refused."""
import atexit, concurrent.futures, json, os, re, signal, subprocess, sys, time

sys.path.insert(0, os.path.join(os.environ['TOP'], 'tests/lib'))
from gridtest import fail, grid, skip, versions

try:
    import boto3
except ImportError:
    skip('skipped: python3-boto3 is not installed')

TOP = os.environ['TOP']
ours = 'S3_TEST_ENDPOINT' not in os.environ
if ours:
    atexit.register(subprocess.run, [f'{TOP}/tests/lib/ceph.sh', 'stop', 'ceph'])
    p = subprocess.run([f'{TOP}/tests/lib/ceph.sh', 'start', 'ceph'], stdout=subprocess.PIPE, text=True)
    if p.returncode == 77:
        skip('skipped: no Ceph here (ceph-mon ceph-osd ceph-mgr radosgw), and S3_TEST_ENDPOINT is not set')
    if p.returncode:
        fail('Ceph did not start')
    os.environ.update(re.findall(r'^export (\w+)=(.*)$', p.stdout, re.M))
endpoint = os.environ['S3_TEST_ENDPOINT']
os.environ.update(AWS_ENDPOINT_URL=endpoint, AWS_REGION=os.environ.get('AWS_REGION', 'us-east-1'),
                  GRID_STORE=f'file://{os.getcwd()}/store')
s3 = boto3.client('s3', endpoint_url=endpoint, aws_access_key_id=os.environ['AWS_ACCESS_KEY_ID'],
                  aws_secret_access_key=os.environ['AWS_SECRET_ACCESS_KEY'], region_name=os.environ['AWS_REGION'])
bucket = os.environ.get('S3_TEST_BUCKET', 'bucket')
if ours:
    s3.create_bucket(Bucket=bucket)
root = f'source-{os.getpid()}'
url = f's3://{bucket}/{root}'


def put_all(prefix, objects):
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda o: s3.put_object(Bucket=bucket, Key=f'{root}/{prefix}/{o[0]}', Body=o[1]), objects.items()))


def tree_of(path):
    out = {}
    for top, dirs, files in os.walk(path):
        for f in files:
            with open(os.path.join(top, f), 'rb') as stream:
                out[os.path.relpath(os.path.join(top, f), path)] = stream.read()
        if not dirs and not files and top != path:
            out[os.path.relpath(top, path)] = None  # an empty directory
    return out


def expect_tree(what, name, expected):
    copy = f'copy-{what}'
    grid('datastore', 'export', name, copy)
    got = tree_of(copy)
    if got != expected:
        fail(f'{what}: missing {sorted(expected.keys() - got.keys())[:5]}, surplus {sorted(got.keys() - expected.keys())[:5]}, '
             f'different {[k for k in got if k in expected and got[k] != expected[k]][:5]}')


def refused(words, *args, env=None):
    p = grid('datastore', 'create', *args, env=env, check=False)
    last = p.stderr.strip().split('\n')[-1]
    if p.returncode not in (1, 2) or words not in last:
        fail(f'{args}: exit code {p.returncode}, {p.stderr}')


# Many small ones and a large one; more than a page, in several directories; a name made of the location.
small = {f'd{i % 7}/{"x" * (i % 40)}{i:05d}': os.urandom(i * 13 % 9000) for i in range(3000)}
small['esRedditJson.large'] = os.urandom(21_000_000)
put_all('esRedditJson', small)
p = grid('datastore', 'create', f'{url}/esRedditJson/')
if p.stdout != 'esredditjson:1\n' or '3,001 files' not in p.stderr:
    fail(f'{p.stdout} {p.stderr}')
expect_tree('small', 'esredditjson', small)
row = versions('esredditjson')['esredditjson', 1]
if row['source'] != f'{url}/esRedditJson/' or row['kind'] != 'copy':
    fail(f'the record: {row}')

# Again: nothing is read. One changed, one is new, one is gone: that much is read, and no more.
p = grid('datastore', 'create', f'{url}/esRedditJson')
if '3,001 unchanged' not in p.stderr:
    fail(f'again: {p.stderr}')
put_all('esRedditJson', {'d1/new': b'new', 'd0/00000': b'changed'})
gone = 'd2/' + 'x' * 2 + '00002'
s3.delete_object(Bucket=bucket, Key=f'{root}/esRedditJson/{gone}')
small.update({'d1/new': b'new', 'd0/00000': b'changed'})
del small[gone]
p = grid('datastore', 'create', f'{url}/esRedditJson/')
if '2,999 unchanged' not in p.stderr:
    fail(f'one changed: {p.stderr}')
expect_tree('changed', 'esredditjson:3', small)

# Keys that no file system can hold: the table of docs/sources.md, row by row. {key: (data, path in the tree or None, told)}
odd = {
    'plain': (b'1', 'plain', False),
    'with space+plus%20percent&amp;"quote\'': (b'2', 'with space+plus%20percent&amp;"quote\'', False),
    'ümläut/日本': (b'3', 'ümläut/日本', False),
    'line\nbreak\ttab': (b'4', 'line\nbreak\ttab', False),
    'back\\slash': (b'5', 'back\\slash', False),
    '...': (b'6', '...', False),
    'marker/': (b'', 'marker', False),
    'full/': (b'', None, False),
    'full/file': (b'7', 'full/file', False),
    'data-marker/': (b'8', 'data-marker', True),
    'double//slash': (b'9', None, True),
    '/leading': (b'10', None, True),
    'dot/./file': (b'11', None, True),
    'dotdot/../file': (b'12', None, True),
    'both': (b'13', None, True),
    'both/inside': (b'14', 'both/inside', False),
    'both-or-not': (b'15', 'both-or-not', False),
    'file-and-marker': (b'16', 'file-and-marker', False),
    'file-and-marker/': (b'', None, True),
    'n' * 255: (b'17', 'n' * 255, False),
    'n' * 256: (b'18', None, True),
    'deep/' * 150 + 'file': (b'19', 'deep/' * 150 + 'file', False),
    'empty': (b'', 'empty', False),
}
put_all('odd', {k: v[0] for k, v in odd.items()})
listed = [o['Key'][len(f'{root}/odd/'):] for page in s3.get_paginator('list_objects_v2').paginate(Bucket=bucket, Prefix=f'{root}/odd/')
          for o in page.get('Contents', [])]
odd = {k: v for k, v in odd.items() if k in listed}  # a server may have its own opinion on a key
if len(odd) < 20:
    fail(f'the server has only {listed}')
p = grid('datastore', 'create', f'{url}/odd/', '--name', 'odd')
told = [line for line in p.stderr.split('\n') if line.startswith('grid: skipped ')]
for key, (data, path, is_told) in odd.items():
    is_there = any(line.startswith(f'grid: skipped {key}: ') for line in told)
    if is_there != is_told:
        fail(f'{key!r} is {"" if is_there else "not "}told: {p.stderr}')
if len(told) != sum(v[2] for v in odd.values()):
    fail(f'told: {told}')
expect_tree('odd', 'odd', {v[1]: None if k.endswith('/') else v[0] for k, v in odd.items() if v[1]})

# One object; and a directory of that name comes first.
p = grid('datastore', 'create', f'{url}/odd/plain')
expect_tree('object', 'plain', {'plain': b'1'})
expect_tree('object-or-directory', grid('datastore', 'create', f'{url}/odd/both').stdout.strip(), {'inside': b'14'})

# Killed in the middle, continued by the same command and by resume; the endpoint and the profile are remembered.
with open('credentials', 'w') as f:
    f.write(f'[reader]\naws_access_key_id = {os.environ["AWS_ACCESS_KEY_ID"]}\naws_secret_access_key = {os.environ["AWS_SECRET_ACCESS_KEY"]}\n')
bare = {k: '' for k in ('AWS_ENDPOINT_URL', 'AWS_ACCESS_KEY_ID', 'AWS_SECRET_ACCESS_KEY')}
bare.update(AWS_SHARED_CREDENTIALS_FILE=f'{os.getcwd()}/credentials', AWS_EC2_METADATA_DISABLED='true')
put_all('big', {f'f{i}': os.urandom(4_000_000) for i in range(50)})


def stored():
    """Bytes in the store; what vanishes meanwhile does not count."""
    return int(subprocess.run(['du', '-sb', 'store'], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout.split()[0])


before = stored()
options = ['--source-endpoint', endpoint, '--source-profile', 'reader', '--source-region', os.environ['AWS_REGION']]
child = subprocess.Popen([os.environ['GRID'], 'datastore', 'create', f'{url}/big/', *options], env=dict(os.environ, **bare),
                         stdout=subprocess.PIPE, stderr=subprocess.PIPE)
while child.poll() is None and stored() < before + 20_000_000:
    time.sleep(0.005)
child.send_signal(signal.SIGKILL)
if child.wait() == 0:
    fail('the create was faster than the signal')
p = grid('datastore', 'resume', '--name', 'big', env=bare)
if p.stdout != 'big:1\n':
    fail(f'resume: {p.stdout} {p.stderr}')
grid('datastore', 'verify', 'big')

# The same from the configuration.
os.makedirs('other/grid')
with open('other/grid/config', 'w') as f:
    f.write(f'[bucket {bucket}]\nendpoint = {endpoint}\nregion = {os.environ["AWS_REGION"]}\nprofile = reader\naddressing = path\n')
configured = dict(bare, XDG_CONFIG_HOME=f'{os.getcwd()}/other')
grid('datastore', 'create', f'{url}/odd/plain', '--name', 'configured', env=configured)

# Into the same bucket; but never into what is read.
inside = {'GRID_STORE': f'{url}/store'}
grid('datastore', 'create', f'{url}/odd/full/', env=inside)
refused('overlap', f'{url}/store/', '--name', 'x', env=inside)
refused('overlap', f'{url}/', '--name', 'x', env=inside)
refused('overlap', f'{url}/store/p/', '--name', 'x', env=inside)
grid('datastore', 'create', f'{url}/odd/full/', '--name', 'x', env={'GRID_STORE': f'{url}/odd/fuller'})

# What is refused, and in which words.
refused('there is no such bucket', f's3://no-such-bucket-here-{os.getpid()}/x/')
refused('there is nothing at', f'{url}/nothing-here/')
refused('secret key does not belong', f'{url}/odd/', '--name', 'x', env={'AWS_SECRET_ACCESS_KEY': 'wrong'})
refused('names no bucket', 's3://', '--name', 'x')
refused('are for buckets', 'store', '--name', 'x', '--source-endpoint', endpoint)
refused('give one with --name', f'{url}/ÄÖÜ/')
if ours:
    refused('lack the permission s3:ListBucket', f'{url}/odd/', '--name', 'x',
            env={'AWS_ACCESS_KEY_ID': os.environ['S3_TEST_OTHER_KEY'], 'AWS_SECRET_ACCESS_KEY': os.environ['S3_TEST_OTHER_SECRET']})
    # A public bucket needs nobody's credentials.
    s3.create_bucket(Bucket='public')
    s3.put_bucket_policy(Bucket='public', Policy=json.dumps({'Version': '2012-10-17', 'Statement': [
        {'Effect': 'Allow', 'Principal': '*', 'Action': ['s3:ListBucket', 's3:GetObject'], 'Resource': ['arn:aws:s3:::public', 'arn:aws:s3:::public/*']}]}))
    s3.put_object(Bucket='public', Key='data/a', Body=b'for all')
    grid('datastore', 'create', 's3://public/data/', '--name', 'public', '--source-endpoint', endpoint,
         env=dict(bare, AWS_SHARED_CREDENTIALS_FILE='/nowhere'))
    expect_tree('public', 'public', {'a': b'for all'})
print('done')
